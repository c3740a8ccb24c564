#!/usr/bin/env python3
"""Writes tests/cli/data/model: a LLaMA of 2 layers and 64 tokens with fixed random weights, about 20 KB in F16.
It means nothing; the command-line tests break copies of it.  SPDX-License-Identifier: Apache-2.0"""
import json
import pathlib
import random
import struct

D, LAYERS, HEADS, KV, FF, V = 16, 2, 4, 2, 32, 64
HERE = pathlib.Path(__file__).resolve().parent / "model"
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": D, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KV, "intermediate_size": FF, "vocab_size": V,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "torch_dtype": "float16",
    "bos_token_id": 1, "eos_token_id": 2,
}


def main():
    rng = random.Random(20260101)
    shapes = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D], "lm_head.weight": [V, D]}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        shapes |= {p + "input_layernorm.weight": [D], p + "post_attention_layernorm.weight": [D],
                   p + "self_attn.q_proj.weight": [D, D], p + "self_attn.k_proj.weight": [D * KV // HEADS, D],
                   p + "self_attn.v_proj.weight": [D * KV // HEADS, D], p + "self_attn.o_proj.weight": [D, D],
                   p + "mlp.gate_proj.weight": [FF, D], p + "mlp.up_proj.weight": [FF, D],
                   p + "mlp.down_proj.weight": [D, FF]}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(shapes):
        n = 1
        for d in shapes[name]:
            n *= d
        values = [1.0] * n if len(shapes[name]) == 1 else [rng.gauss(0, 0.2) for _ in range(n)]
        chunk = struct.pack(f"<{n}e", *values)
        header[name] = {"dtype": "F16", "shape": shapes[name], "data_offsets": [len(data), len(data) + len(chunk)]}
        data += chunk
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    HERE.mkdir(parents=True, exist_ok=True)
    (HERE / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (HERE / "config.json").write_text(json.dumps(CONFIG, indent=1) + "\n")


main()
