#!/usr/bin/env python3
"""Bottleneck adapters beside AdapterHub's library `adapters`: what `balora train` writes is put into its modules (names
below), the logits must be the same; and its configurations double_seq_bn (Houlsby) and seq_bn (Pfeiffer) with values of
their own are written as our folder and read by `balora forward`.
usage: tests/peers/bottlenecks.py BALORA
Says "skipped" where a package is missing.  SPDX-License-Identifier: Apache-2.0"""
import json
import os
import sys
import tempfile
import warnings

from beside import IDS, check, difference, end, logits, run

PLACES = (("self_attn.o_proj", "attention_adapters"), ("mlp.down_proj", "output_adapters"))
warnings.filterwarnings("ignore")

try:
    import adapters
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)


def theirs_of(key):
    """Our tensor's name in the library's model."""
    key = key[len("base_model.model."):]
    for module, place in PLACES:
        key = key.replace(module + ".", place + ".adapters.balora.")
    return key


def main(folder):
    def path(name):
        return os.path.join(folder, name)
    torch.manual_seed(5)
    LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                                 num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                                 tie_word_embeddings=False, initializer_range=0.2)).save_pretrained(path("model"))
    with open(path("ids.json"), "w") as f:
        json.dump({"input_ids": IDS}, f)
    with open(path("data.jsonl"), "w") as f:
        for row in IDS * 4:
            f.write(json.dumps({"input_ids": row, "labels": row}) + "\n")

    def hub(config):
        model = LlamaForCausalLM.from_pretrained(path("model"), torch_dtype=torch.float32)
        adapters.init(model)
        model.add_adapter("balora", config=adapters.AdapterConfig.load(config, reduction_factor=4))
        model.set_active_adapters("balora")
        return model

    def ours(adapter):
        run("forward", "--model", path("model"), "--adapter", adapter, "--input", path("ids.json"), "--out",
            path("out.safetensors"))
        return load_file(path("out.safetensors"))["logits"]

    plain = logits(LlamaForCausalLM.from_pretrained(path("model"), torch_dtype=torch.float32))
    for method, config in (("houlsby", "double_seq_bn"), ("pfeiffer", "seq_bn")):
        out = path(method)
        run("train", "--model", path("model"), "--data", path("data.jsonl"), "--format", "tokens", "--method", method,
            "--reduction-factor", "4", "--lr", "0.02", "--max-steps", "6", "--batch-size", "4", "--no-store", "--out", out)
        tensors = load_file(os.path.join(out, "adapter_model.safetensors"))
        model = hub(config)
        state = {k for k in model.state_dict() if ".adapters.balora." in k}
        check(method + ", tensors", {theirs_of(k) for k in tensors} == state, f"{len(state)} of the same names")
        model.load_state_dict({theirs_of(k): v for k, v in tensors.items()}, strict=False)
        want = logits(model)
        d, moved = difference(ours(out), want), difference(want, plain)
        check(method + ", trained here", d < 2e-6 and moved > 1e-3, f"logits differ by {d:.2g} (moved by {moved:.2g})")

        model = hub(config)
        g = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for name, p in model.named_parameters():
                if ".adapters.balora." in name:
                    p.add_(0.2 * torch.randn(p.shape, generator=g))
        want, state = logits(model), model.state_dict()
        save_file({k: state[theirs_of(k)].contiguous() for k in tensors}, os.path.join(out, "adapter_model.safetensors"))
        d, moved = difference(ours(out), want), difference(want, plain)
        check(method + ", values of theirs", d < 2e-6 and moved > 1e-3,
              f"logits differ by {d:.2g} (moved by {moved:.2g})")


print("adapters", adapters.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
with tempfile.TemporaryDirectory() as work:
    main(work)
end()
