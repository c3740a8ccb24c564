#!/usr/bin/env python3
"""balora's files beside those of peft, transformers and gguf: quantisers by error, starts by their product.
usage: tests/peers/files.py BALORA MODEL_FOLDER   (a Hugging Face folder of a small llama; hidden a multiple of 32)
Says "skipped" where a package is missing.  SPDX-License-Identifier: Apache-2.0"""
import json
import os
import sys
import tempfile

from beside import check, end, run

MODEL = sys.argv[2]


def quantisers(folder):
    try:
        import gguf
        import numpy as np
    except ImportError as e:
        print("skipped: quantisers,", e)
        return
    def tensors(name):
        return {t.name: t for t in gguf.GGUFReader(os.path.join(folder, name)).tensors}
    run("convert", "--model", MODEL, "--to", "gguf", "--dtype", "f32", "--out", folder + "/f32.gguf")
    plain = tensors("f32.gguf")
    for kind in ("q8_0", "q4_0", "q4_1"):
        run("convert", "--model", MODEL, "--to", "gguf", "--dtype", kind, "--out", f"{folder}/{kind}.gguf")
        ours = theirs = 0.0
        for name, t in tensors(kind + ".gguf").items():
            if t.tensor_type.name.lower() != kind:
                continue
            w = gguf.dequantize(plain[name].data, plain[name].tensor_type).astype(np.float64)
            ours += ((gguf.dequantize(t.data, t.tensor_type) - w) ** 2).sum()
            again = gguf.quantize(w.astype(np.float32), t.tensor_type)
            theirs += ((gguf.dequantize(again, t.tensor_type) - w) ** 2).sum()
        check(kind, 0 < ours <= theirs * 1.0001, f"squared error {ours:.6g}, gguf's own {theirs:.6g}")


def starts(folder):
    try:
        import torch
        from peft import LoraConfig, get_peft_model
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM
    except ImportError as e:
        print("skipped: starts,", e)
        return
    data = os.path.join(folder, "data.jsonl")
    with open(data, "w") as f:
        f.write(json.dumps({"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}) + "\n")
    for init in ("olora", "pissa"):
        out = os.path.join(folder, init)
        run("train", "--model", MODEL, "--data", data, "--format", "tokens", "--init", init, "--method", "pissa",
            "--r", "4",
            "--lora-alpha", "8", "--target-modules", "q_proj,down_proj", "--max-steps", "1", "--batch-size", "1",
            "--no-store", "--out", out)
        ours = load_file(os.path.join(out, "balora", "initial", "adapter_model.safetensors"))
        base = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
        config = LoraConfig(r=4, lora_alpha=8, init_lora_weights=init, target_modules=["q_proj", "down_proj"])
        model = get_peft_model(base, config)
        worst = 0.0
        for name, module in model.named_modules():
            key = name + ".lora_A.weight"
            if key in ours:
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                delta = (b @ a - ours[name + ".lora_B.weight"] @ ours[key]).abs().max() / (b @ a).abs().max()
                worst = max(worst, delta.item())
        check(init, 0 < worst < 1e-4, f"B0 A0 differs from peft's by {worst:.2g} of its largest element")


with tempfile.TemporaryDirectory() as folder:
    quantisers(folder)
    starts(folder)
end()
