#!/usr/bin/env python3
"""Starts, packed bases and sums of adapters beside peft and bitsandbytes: what `balora train` writes is loaded by
PeftModel.from_pretrained with the same logits; CorDA's factors are peft's; NF4 is bitsandbytes'.
usage: tests/peers/starts.py BALORA
Says "skipped" where a package is missing.  SPDX-License-Identifier: Apache-2.0"""
import json
import os
import sys
import tempfile
import warnings

from beside import IDS, check, difference, end, logits, run

warnings.filterwarnings("ignore")
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

try:
    import torch
    import peft
    import transformers
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
    transformers.utils.logging.disable_progress_bar()
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)

PACKED = [
    ("qlora nf4", ["--base-dtype", "nf4"]),
    ("loftq nf4 of 1 round", ["--base-dtype", "nf4", "--init", "loftq"]),
    ("loftq nf4 of 4 rounds", ["--base-dtype", "nf4", "--init", "loftq", "--loftq-iter", "4"]),
    ("qpissa nf4", ["--base-dtype", "nf4", "--method", "pissa"]),
    ("qpissa q4_0", ["--base-dtype", "q4_0", "--method", "pissa"]),
]
PLAIN = [
    ("rslora", ["--method", "rslora"]),
    ("lora+", ["--loraplus-lr-ratio", "8"]),
    ("gaussian", ["--init", "gaussian"]),
    ("orthogonal", ["--init", "orthogonal"]),
    ("pissa to 2r", ["--method", "pissa"]),
    ("pissa, rslora, to 2r", ["--method", "pissa", "--use-rslora"]),
    ("pissa_niter_4 to 2r", ["--method", "pissa", "--init", "pissa_niter_4"]),
    ("olora to 2r", ["--init", "olora"]),
    ("milora to 2r", ["--init", "milora"]),
    ("corda ipm to 2r", ["--init", "corda"]),
    ("corda kpm to 2r", ["--init", "corda", "--corda-method", "kpm"]),
]


class Place:
    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return os.path.join(self.folder, name)

    def base(self, name="model"):
        return AutoModelForCausalLM.from_pretrained(self.path(name), dtype=torch.float32)

    def train(self, name, words, r="4"):
        run("train", "--model", self.path("model"), "--data", self.path("data.jsonl"), "--format", "tokens", *words, "--r",
            r, "--lora-alpha", "6", "--lr", "0.02", "--max-steps", "4", "--batch-size", "4", "--no-store", "--out",
            self.path(name))
        return self.path(name)

    def ours(self, adapter, model="model"):
        run("forward", "--model", self.path(model), "--adapter", adapter, "--input", self.path("ids.json"), "--out",
            self.path("out.safetensors"))
        return load_file(self.path("out.safetensors"))["logits"]


def plain_starts(p):
    before = logits(p.base())
    for name, words in PLAIN:
        out = p.train("plain-" + name, words)
        theirs = logits(peft.PeftModel.from_pretrained(p.base(), out))
        d, moved = difference(p.ours(out), theirs), difference(theirs, before)
        check(name + ", written here", d < 5e-6 and moved > 1e-3, f"logits differ by {d:.2g} (moved by {moved:.2g})")


def packed_bases(p):
    for name, words in PACKED:
        out, alone = p.train("packed-" + name, words), "base-" + name
        run("merge", "--model", p.path("model"), "--adapter", out, "--base-only", "--dtype", "f32", "--out", p.path(alone))
        theirs = logits(peft.PeftModel.from_pretrained(p.base(alone), out))
        d = difference(p.ours(out), theirs)
        far = difference(logits(peft.PeftModel.from_pretrained(p.base(), out)), theirs)
        check(name + ", over its base in peft", d < 5e-6 and far > 1e-4,
              f"logits differ by {d:.2g} (over the file's weights by {far:.2g})")


def sums(p):
    a, b = p.train("sum-a", ["--seed", "1"]), p.train("sum-b", ["--seed", "2", "--use-rslora"])
    weights = [0.6, -1.3]
    for kind, bound in (("cat", 5e-6), ("linear", 5e-6), ("svd", 2e-5)):
        out = p.path("sum-" + kind)
        run("merge", "--model", p.path("model"), "--adapter", a, "--adapter", b, "--weights", "0.6,-1.3", "--combination",
            kind, "--out", out)
        model = peft.PeftModel.from_pretrained(p.base(), a, adapter_name="a")
        model.load_adapter(b, adapter_name="b")
        model.add_weighted_adapter(["a", "b"], weights, "sum", combination_type=kind)
        model.set_adapter("sum")
        d, again = difference(p.ours(out), logits(model)), difference(
            logits(peft.PeftModel.from_pretrained(p.base(), out)), logits(model))
        check("sum by " + kind, d < bound and again < bound,
              f"logits differ from add_weighted_adapter's by {d:.2g}, loaded in peft by {again:.2g}")


def corda(p):
    """The factors of both, from the same records: products s B0 A0 of every module."""
    from peft.tuners.lora.config import CordaConfig
    from peft.tuners.lora.corda import preprocess_corda
    for kind in ("ipm", "kpm"):
        model = p.base()
        config = peft.LoraConfig(r=4, lora_alpha=6, init_lora_weights="corda", task_type="CAUSAL_LM",
                                 target_modules=["q_proj", "down_proj", "gate_proj"],
                                 corda_config=CordaConfig(corda_method=kind))

        def calibrate(model=model):
            with torch.no_grad():
                for row in IDS:
                    model(input_ids=torch.tensor([row]))
        preprocess_corda(model, config, run_model=calibrate)
        theirs = peft.get_peft_model(model, config).state_dict()
        out = p.train("corda-" + kind, ["--init", "corda", "--corda-method", kind, "--calibration-samples", "2",
                                        "--target-modules", "q_proj,down_proj,gate_proj"])
        ours = load_file(os.path.join(out, "balora", "initial", "adapter_model.safetensors"))
        worst = 0.0
        for name in [n for n in ours if n.endswith("lora_A.weight")]:
            mine = ours[name.replace("lora_A", "lora_B")] @ ours[name]
            key = name.replace("lora_A.weight", "lora_A.default.weight")
            worst = max(worst, difference(mine, theirs[key.replace("lora_A", "lora_B")] @ theirs[key]))
        check("corda " + kind + ", factors", worst < 2e-2, f"B0 A0 differs by {worst:.2g} (peft's inverse is in f32)")


def nf4(p):
    try:
        import bitsandbytes.functional as bnb
    except ImportError as e:
        print("skipped: nf4 beside bitsandbytes,", e)
        return
    out = p.train("nf4", ["--base-dtype", "nf4"])
    run("merge", "--model", p.path("model"), "--adapter", out, "--base-only", "--dtype", "f32", "--out", p.path("nf4-base"))
    ours, worst, n = p.base("nf4-base").state_dict(), 0.0, 0
    for name, w in p.base().state_dict().items():
        if "proj" not in name:
            continue
        packed, state = bnb.quantize_4bit(w.contiguous(), blocksize=64, quant_type="nf4", compress_statistics=False)
        worst = max(worst, (bnb.dequantize_4bit(packed, state) - ours[name]).abs().max().item())
        n += w.numel()
    check("nf4", worst == 0, f"{n} weights differ by at most {worst:g} from bitsandbytes'")


print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
with tempfile.TemporaryDirectory() as work:
    place = Place(work)
    torch.manual_seed(5)
    shape = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=False,
                        initializer_range=0.2)
    LlamaForCausalLM(shape).save_pretrained(place.path("model"))
    with open(place.path("ids.json"), "w") as f:
        json.dump({"input_ids": IDS}, f)
    with open(place.path("data.jsonl"), "w") as f:
        for row in IDS * 4:
            f.write(json.dumps({"input_ids": row, "labels": row}) + "\n")
    for part in (plain_starts, packed_bases, sums, corda, nf4):
        part(place)
end()
