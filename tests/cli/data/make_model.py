#!/usr/bin/env python3
"""Writes tests/cli/data/model: a LLaMA of 2 layers and 64 tokens with fixed random weights, about 20 KB in F16, and
tests/cli/data/bert: a BERT of 2 layers whose word pieces are a few words and all letters.
They mean nothing; the command-line tests break copies of them.  SPDX-License-Identifier: Apache-2.0"""
import json
import pathlib
import random
import struct

D, LAYERS, HEADS, KV, FF, V = 16, 2, 4, 2, 32, 64
HERE = pathlib.Path(__file__).resolve().parent
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": D, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KV, "intermediate_size": FF, "vocab_size": V,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
    "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "torch_dtype": "float16",
    "bos_token_id": 1, "eos_token_id": 2,
}


BERT = {
    "architectures": ["BertForMaskedLM"], "model_type": "bert", "hidden_size": D, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "intermediate_size": FF, "max_position_embeddings": 64, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12, "hidden_act": "gelu", "pad_token_id": 0, "torch_dtype": "float16",
}


def write(folder, config, shapes, is_one, rng):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(shapes):
        n = 1
        for d in shapes[name]:
            n *= d
        values = [1.0] * n if is_one(name, shapes[name]) else [rng.gauss(0, 0.2) for _ in range(n)]
        chunk = struct.pack(f"<{n}e", *values)
        header[name] = {"dtype": "F16", "shape": shapes[name], "data_offsets": [len(data), len(data) + len(chunk)]}
        data += chunk
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")


def llama():
    shapes = {"model.embed_tokens.weight": [V, D], "model.norm.weight": [D], "lm_head.weight": [V, D]}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        shapes |= {p + "input_layernorm.weight": [D], p + "post_attention_layernorm.weight": [D],
                   p + "self_attn.q_proj.weight": [D, D], p + "self_attn.k_proj.weight": [D * KV // HEADS, D],
                   p + "self_attn.v_proj.weight": [D * KV // HEADS, D], p + "self_attn.o_proj.weight": [D, D],
                   p + "mlp.gate_proj.weight": [FF, D], p + "mlp.up_proj.weight": [FF, D],
                   p + "mlp.down_proj.weight": [D, FF]}
    write(HERE / "model", CONFIG, shapes, lambda name, shape: len(shape) == 1, random.Random(20260101))


def special(token, i):
    return {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
            "special": True}


def bert():
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = names + [".", ",", "the", "man", "woman", "old", "young", "is", "##s", "##ing"]
    pieces += [p for p in letters + ["##" + c for c in letters] if p not in pieces]
    around = [{"SpecialToken": {"id": n, "type_id": 0}} for n in ("[CLS]", "[SEP]")]
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [special(t, i) for i, t in enumerate(names)],
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing", "single": [around[0], {"Sequence": {"id": "A", "type_id": 0}}, around[1]],
            "pair": [around[0], {"Sequence": {"id": "A", "type_id": 0}}, around[1],
                     {"Sequence": {"id": "B", "type_id": 1}}, {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
            "special_tokens": {n: {"id": n, "ids": [names.index(n)], "tokens": [n]} for n in ("[CLS]", "[SEP]")}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": {p: i for i, p in enumerate(pieces)}},
    }
    n = len(pieces)
    shapes = {"bert.embeddings.word_embeddings.weight": [n, D], "bert.embeddings.position_embeddings.weight": [64, D],
              "bert.embeddings.token_type_embeddings.weight": [2, D], "cls.predictions.bias": [n],
              "cls.predictions.transform.dense.weight": [D, D], "cls.predictions.transform.dense.bias": [D]}
    norms = ["bert.embeddings.LayerNorm", "cls.predictions.transform.LayerNorm"]
    for i in range(LAYERS):
        p = f"bert.encoder.layer.{i}."
        for name, rows, cols in (("attention.self.query", D, D), ("attention.self.key", D, D),
                                 ("attention.self.value", D, D), ("attention.output.dense", D, D),
                                 ("intermediate.dense", FF, D), ("output.dense", D, FF)):
            shapes |= {p + name + ".weight": [rows, cols], p + name + ".bias": [rows]}
        norms += [p + "attention.output.LayerNorm", p + "output.LayerNorm"]
    for name in norms:
        shapes |= {name + ".weight": [D], name + ".bias": [D]}
    write(HERE / "bert", dict(BERT, vocab_size=n), shapes, lambda name, shape: name.endswith("LayerNorm.weight"),
          random.Random(20260102))
    (HERE / "bert" / "tokenizer.json").write_text(json.dumps(tokenizer, separators=(",", ":")) + "\n")


llama()
bert()
