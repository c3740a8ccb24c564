#!/usr/bin/env python3
"""balora's GGUF files beside llama.cpp: a LoRA adapter that it loads, a merged model, and the K-quantisers by error.
usage: tests/peers/llama_cpp.py BALORA MODEL_FOLDER LLAMA   (a Hugging Face folder of a llama that has a tokenizer; the
folder with llama-perplexity and llama-quantize).  Says "skipped" where something is missing.
SPDX-License-Identifier: Apache-2.0"""
import json
import os
import subprocess
import sys
import tempfile

from beside import check, end, run

MODEL = sys.argv[2]
LLAMA = sys.argv[3] if len(sys.argv) > 3 else ""
CONTEXT, CHUNKS = 128, 3
TEXT = ("The river rose slowly in the night, and the people of the village carried what they had to the hill. "
        "A machine that computes with numbers of finite length makes small errors; they are harmless until they add up. ")


def llama(name, *words):
    return subprocess.run([os.path.join(LLAMA, name), *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def log_probabilities(folder, name, *words):
    """llama.cpp's own: tokens (chunks x CONTEXT), log p of the rows of each chunk's second half. They are stored in 16
    bits over at most 16 nats under the largest."""
    import numpy as np
    path = os.path.join(folder, name + ".logits")
    llama("llama-perplexity", "-f", os.path.join(folder, "text"), "-c", str(CONTEXT), "-b", str(CONTEXT), "--chunks", str(CHUNKS),
          "-t", "2", "-ctk", "f32", "-ctv", "f32", "-fa", "off", "--kl-divergence-base", path, *words)
    raw = open(path, "rb").read()
    assert raw[:8] == b"_logits_"
    context, vocab, chunks = np.frombuffer(raw, np.int32, 3, 8)
    tokens = np.frombuffer(raw, np.int32, context * chunks, 20).reshape(chunks, context)
    width = 2 * ((vocab + 1) // 2) + 4
    rows = np.frombuffer(raw, np.uint16, -1, 20 + 4 * context * chunks).reshape(-1, width)
    scale = rows[:, :4].copy().view(np.float32)
    return tokens, scale[:, :1] * rows[:, 4:4 + vocab] + scale[:, 1:2]


def ours(folder, tokens, *words):
    """The same rows by balora."""
    import numpy as np
    from safetensors.numpy import load_file
    with open(folder + "/in.json", "w") as f:
        json.dump({"input_ids": tokens.tolist()}, f)
    run("forward", "--input", folder + "/in.json", "--out", folder + "/out.safetensors", *words)
    z = load_file(folder + "/out.safetensors")["logits"].reshape(len(tokens), CONTEXT, -1)[:, CONTEXT // 2:CONTEXT - 1]
    z = z.reshape(-1, z.shape[-1]).astype(np.float64)
    z -= z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def beside(name, mine, theirs, limit):
    """The largest difference of the log-probabilities that the file holds (those 15 nats under the largest)."""
    import numpy as np
    near = mine > mine.max(1, keepdims=True) - 15
    worst = np.abs(mine - theirs)[near].max()
    check(name, worst <= limit, f"log-probabilities differ by {worst:.2g} at most, of {near.sum()}")


def adapter(folder):
    with open(folder + "/text", "w") as f:
        f.write(TEXT * 40)
    with open(folder + "/data.jsonl", "w") as f:
        for i in range(8):
            f.write(json.dumps({"input_ids": [(7 * i + 11 * j) % 2000 + 5 for j in range(24)],
                                "labels": [(7 * i + 11 * j) % 2000 + 5 for j in range(24)]}) + "\n")
    run("convert", "--model", MODEL, "--to", "gguf", "--dtype", "f32", "--out", folder + "/f32.gguf")
    for method, words in (("lora", ()), ("pissa", ()), ("rslora", ("--use-rslora",))):
        at = os.path.join(folder, method)
        run("train", "--model", MODEL, "--data", folder + "/data.jsonl", "--format", "tokens", "--method",
            "lora" if method == "rslora" else method, "--r", "8", *words, "--lr", "3e-3", "--max-steps", "4", "--batch-size", "4",
            "--warmup-ratio", "0", "--no-store", "--out", at)
        run("convert", "--adapter", at, "--model", MODEL, "--to", "gguf", "--dtype", "f32", "--out", at + ".gguf")
        tokens, theirs = log_probabilities(folder, method, "-m", folder + "/f32.gguf", "--lora", at + ".gguf")
        mine = ours(folder, tokens, "--model", MODEL, "--adapter", at)
        beside(f"{method} adapter in llama.cpp", mine, theirs, 2e-3)
        plain = ours(folder, tokens, "--model", MODEL)
        moved = abs(plain - mine).max()
        check(f"{method} adapter counts", moved > 0.1, f"without it they differ by {moved:.2g}")
    run("merge", "--model", MODEL, "--adapter", folder + "/pissa", "--dtype", "f32", "--out", folder + "/merged.gguf")
    tokens, theirs = log_probabilities(folder, "merged", "-m", folder + "/merged.gguf")
    beside("merged model in llama.cpp", ours(folder, tokens, "--model", MODEL, "--adapter", folder + "/pissa"), theirs, 2e-3)
    run("merge", "--model", MODEL, "--adapter", folder + "/pissa", "--dtype", "q8_0", "--out", folder + "/q8.gguf")
    tokens, theirs = log_probabilities(folder, "q8", "-m", folder + "/q8.gguf")
    mine = ours(folder, tokens, "--model", folder + "/q8.gguf")
    import numpy as np
    kl = (np.exp(mine) * (mine - theirs)).sum(1).mean()
    check("merged model as Q8_0", abs(kl) < 2e-3, f"mean KL of its rows {kl:.2g} (llama.cpp rounds activations to 8 bits)")


def quantisers(folder):
    import gguf
    import numpy as np
    def tensors(name):
        return {t.name: t for t in gguf.GGUFReader(os.path.join(folder, name)).tensors}
    plain = tensors("f32.gguf")
    for kind, name in (("q4_k", "Q4_K_S"), ("q6_k", "Q6_K"), ("q8_0", "Q8_0"), ("q4_0", "Q4_0"), ("q4_1", "Q4_1")):
        run("convert", "--model", MODEL, "--to", "gguf", "--dtype", kind, "--out", f"{folder}/{kind}.gguf")
        llama("llama-quantize", "--pure", folder + "/f32.gguf", f"{folder}/theirs.gguf", name, "2")
        error, count = [0.0, 0.0], 0
        pair = tensors(kind + ".gguf"), tensors("theirs.gguf")
        for key, t in plain.items():
            if any(p[key].tensor_type.name.lower() != kind for p in pair):
                continue
            w, count = gguf.dequantize(t.data, t.tensor_type).astype(np.float64), count + 1
            for i, p in enumerate(pair):
                error[i] += ((gguf.dequantize(p[key].data, p[key].tensor_type) - w) ** 2).sum()
        check(kind, count > 0 and 0 <= error[0] <= error[1] * 1.02,
              f"{count} matrices, squared error {error[0]:.6g}, llama.cpp's {error[1]:.6g}")


if __name__ == "__main__":
    try:
        import gguf, numpy, safetensors  # noqa: F401
    except ImportError as e:
        print("skipped:", e)
        sys.exit(0)
    if not os.path.exists(os.path.join(LLAMA, "llama-perplexity")):
        print("skipped: no llama.cpp at", LLAMA or "(third argument)")
        sys.exit(0)
    with tempfile.TemporaryDirectory() as work:
        adapter(work)
        quantisers(work)
    end()
