#!/usr/bin/env python3
"""Adapters of every method that balora and peft share, both ways: what `balora train` writes is loaded by
PeftModel.from_pretrained, what peft writes by `balora forward`; the logits must be the same.
usage: tests/peers/methods.py BALORA
Says "skipped" where a package is missing.  SPDX-License-Identifier: Apache-2.0"""
import json
import os
import sys
import tempfile
import warnings

from beside import IDS, check, difference, end, logits, run

SOME = ["down_proj", "q_proj", "v_proj"]
warnings.filterwarnings("ignore")

try:
    import torch
    import peft
    import transformers
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)

# name, words of balora train, configuration of peft
METHODS = [
    ("lora", ["--method", "lora", "--r", "4", "--lora-alpha", "6"], lambda: peft.LoraConfig(r=4, lora_alpha=6)),
    ("lora, bias all", ["--method", "lora", "--r", "4", "--lora-alpha", "6", "--bias", "all"],
     lambda: peft.LoraConfig(r=4, lora_alpha=6, bias="all")),
    ("lora, bias lora_only", ["--method", "lora", "--r", "4", "--lora-alpha", "6", "--bias", "lora_only"],
     lambda: peft.LoraConfig(r=4, lora_alpha=6, bias="lora_only")),
    ("dora, bias lora_only", ["--method", "dora", "--r", "4", "--lora-alpha", "6", "--bias", "lora_only"],
     lambda: peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, bias="lora_only")),
    ("vera, bias vera_only", ["--method", "vera", "--r", "24", "--bias", "lora_only"],
     lambda: peft.VeraConfig(r=24, bias="vera_only")),
    ("lora, modules_to_save", ["--method", "lora", "--r", "4", "--modules-to-save", "lm_head,embed_tokens,norm,k_proj"],
     lambda: peft.LoraConfig(r=4, lora_alpha=4, modules_to_save=["lm_head", "embed_tokens", "norm", "k_proj"])),
    ("lora, modules_to_save that hold modules", ["--method", "lora", "--r", "4", "--modules-to-save", "layers.1.mlp"],
     lambda: peft.LoraConfig(r=4, lora_alpha=4, modules_to_save=["layers.1.mlp"])),
    ("ia3, modules_to_save", ["--method", "ia3", "--feedforward-modules", "down_proj", "--modules-to-save", "lm_head"],
     lambda: peft.IA3Config(feedforward_modules=["down_proj"], modules_to_save=["lm_head"])),
    ("lokr, modules_to_save", ["--method", "lokr", "--r", "4", "--lora-alpha", "6", "--modules-to-save", "o_proj"],
     lambda: peft.LoKrConfig(r=4, alpha=6, modules_to_save=["o_proj"])),
    ("dora", ["--method", "dora", "--r", "4", "--lora-alpha", "6"],
     lambda: peft.LoraConfig(r=4, lora_alpha=6, use_dora=True)),
    ("loha", ["--method", "loha", "--r", "2", "--lora-alpha", "6"], lambda: peft.LoHaConfig(r=2, alpha=6)),
    ("loha, r 16", ["--method", "loha", "--r", "16", "--lora-alpha", "6"], lambda: peft.LoHaConfig(r=16, alpha=6)),
    ("lokr", ["--method", "lokr", "--r", "4", "--lora-alpha", "6"], lambda: peft.LoKrConfig(r=4, alpha=6)),
    ("lokr, both", ["--method", "lokr", "--r", "1", "--decompose-both"],
     lambda: peft.LoKrConfig(r=1, alpha=1, decompose_both=True)),
    ("lokr, factor 4", ["--method", "lokr", "--r", "2", "--decompose-factor", "4"],
     lambda: peft.LoKrConfig(r=2, alpha=2, decompose_factor=4)),
    ("ia3", ["--method", "ia3", "--feedforward-modules", "down_proj"],
     lambda: peft.IA3Config(feedforward_modules=["down_proj"])),
    ("vera", ["--method", "vera", "--r", "24"], lambda: peft.VeraConfig(r=24)),
    # no rank is taken away, so that both have the same tensors: adalora.py is about those
    ("adalora", ["--method", "adalora", "--init-r", "4", "--target-r", "4", "--lora-alpha", "6"],
     lambda: peft.AdaLoraConfig(init_r=4, target_r=4, total_step=6, lora_alpha=6)),
    ("vera, no projection", ["--method", "vera", "--r", "24", "--no-save-projection", "--projection-prng-key", "7"],
     lambda: peft.VeraConfig(r=24, save_projection=False, projection_prng_key=7)),
]


def shapes(folder):
    return {k: tuple(v.shape) for k, v in load_file(os.path.join(folder, "adapter_model.safetensors")).items()}


def main(folder):
    def path(name):
        return os.path.join(folder, name)
    torch.manual_seed(5)
    config = LlamaConfig(vocab_size=64, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                         tie_word_embeddings=False, attention_bias=True, initializer_range=0.2)
    LlamaForCausalLM(config).save_pretrained(path("model"))
    with open(path("ids.json"), "w") as f:
        json.dump({"input_ids": IDS}, f)
    with open(path("data.jsonl"), "w") as f:
        for row in IDS * 4:
            f.write(json.dumps({"input_ids": row, "labels": row}) + "\n")

    def base():
        return AutoModelForCausalLM.from_pretrained(path("model"), dtype=torch.float32)

    def ours(adapter):
        run("forward", "--model", path("model"), "--adapter", adapter, "--input", path("ids.json"), "--out",
            path("out.safetensors"))
        return load_file(path("out.safetensors"))["logits"]

    plain = logits(base())
    for name, words, make in METHODS:
        out = path("ours-" + name)
        run("train", "--model", path("model"), "--data", path("data.jsonl"), "--format", "tokens", *words,
            "--target-modules", ",".join(SOME), "--lr", "0.02", "--max-steps", "6", "--batch-size", "4", "--no-store",
            "--out", out)
        theirs = logits(peft.PeftModel.from_pretrained(base(), out))
        d, moved = difference(ours(out), theirs), difference(theirs, plain)
        check(name + ", written here", d < 2e-6 and moved > 1e-3, f"logits differ by {d:.2g} (moved by {moved:.2g})")

        settings = make()
        settings.target_modules = set(SOME)
        settings.task_type = "CAUSAL_LM"
        model = peft.get_peft_model(base(), settings)
        g = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for n, p in model.named_parameters():
                if p.requires_grad:
                    p.add_(0.1 * torch.randn(p.shape, generator=g))
        theirs = logits(model)
        model.save_pretrained(path("theirs-" + name))
        d, moved = difference(ours(path("theirs-" + name)), theirs), difference(theirs, plain)
        mine, peers = shapes(out), shapes(path("theirs-" + name))
        check(name + ", written by peft", d < 2e-6 and moved > 1e-3 and mine == peers,
              f"logits differ by {d:.2g} (moved by {moved:.2g}), {len(mine)} tensors"
              + ("" if mine == peers else f", other names or shapes: {sorted(set(mine.items()) ^ set(peers.items()))}"))


def conv1d(folder):
    """GPT-2's turned matrices, with peft's own choice of modules."""
    def path(name):
        return os.path.join(folder, name)
    torch.manual_seed(6)
    config = transformers.GPT2Config(vocab_size=64, n_embd=48, n_inner=80, n_layer=2, n_head=4, n_positions=64,
                                     initializer_range=0.2)
    transformers.GPT2LMHeadModel(config).save_pretrained(path("gpt2"))
    both = ["--method", "lora", "--r", "4", "--bias"]
    cases = (("ia3", ["--method", "ia3"], lambda: peft.IA3Config(task_type="CAUSAL_LM")),
             ("vera", ["--method", "vera", "--r", "24"], lambda: peft.VeraConfig(task_type="CAUSAL_LM")),
             ("lora, bias all", [*both, "all", "--target-modules", "c_attn"],
              lambda: peft.LoraConfig(r=4, bias="all", task_type="CAUSAL_LM")),
             ("lora, bias all, modules_to_save", [*both, "all", "--target-modules", "c_attn", "--modules-to-save",
                                                  "wte,wpe,c_proj,ln_f"],
              lambda: peft.LoraConfig(r=4, bias="all", task_type="CAUSAL_LM")),
             ("lora, tied copy", [*both, "none", "--target-modules", "c_attn", "--modules-to-save", "wte",
                                  "--ensure-weight-tying"], lambda: peft.LoraConfig(r=4, task_type="CAUSAL_LM")))
    for name, words, make in cases:
        out = path("gpt2-" + name)
        run("train", "--model", path("gpt2"), "--data", path("data.jsonl"), "--format", "tokens", *words, "--lr", "0.02",
            "--max-steps", "6", "--batch-size", "4", "--no-store", "--out", out)
        run("forward", "--model", path("gpt2"), "--adapter", out, "--input", path("ids.json"), "--out",
            path("out.safetensors"))
        model = AutoModelForCausalLM.from_pretrained(path("gpt2"), dtype=torch.float32)
        plain, default = logits(model), make()
        theirs = logits(peft.PeftModel.from_pretrained(model, out))
        chosen = set(peft.get_peft_model(transformers.GPT2LMHeadModel(config), default).peft_config["default"]
                     .target_modules)
        with open(os.path.join(out, "adapter_config.json")) as f:
            mine = set(json.load(f)["target_modules"])
        d, moved = difference(load_file(path("out.safetensors"))["logits"], theirs), difference(theirs, plain)
        check(name + " on gpt2", d < 2e-6 and moved > 1e-3 and mine == chosen,
              f"logits differ by {d:.2g} (moved by {moved:.2g}), modules {sorted(mine)}")


print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
with tempfile.TemporaryDirectory() as work:
    main(work)
    conv1d(work)
end()
