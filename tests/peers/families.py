#!/usr/bin/env python3
"""Random tiny models of every family beside transformers: largest logits difference (relative to the largest logit),
greedy tokens, and the same after a way through GGUF.
usage: tests/peers/families.py [BALORA [NAME...]]   (NAME: cases whose name begins so)
       tests/peers/families.py --write     (renews tests/golden/decoder)
Says "skipped" without transformers.  SPDX-License-Identifier: Apache-2.0"""
import json
import os
import random
import subprocess
import sys
import tempfile

os.environ["TQDM_DISABLE"] = "1"
try:
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(2)
BALORA = sys.argv[1] if len(sys.argv) > 1 else "build/release/balora"
WANTED = sys.argv[2:]
TOLERANCE = 2e-5
LENGTHS = [1, 23, 11, 37]
failed = 0

SMALL = dict(vocab_size=101, hidden_size=32, intermediate_size=56, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2)
GPT2 = dict(vocab_size=101, n_embd=32, n_layer=3, n_head=4, n_positions=64, initializer_range=0.2)
OPT = dict(vocab_size=101, hidden_size=32, ffn_dim=56, num_hidden_layers=3, num_attention_heads=4,
           max_position_embeddings=64, init_std=0.2, word_embed_proj_dim=32)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)


def longrope(n):
    return dict(rope_type="longrope", short_factor=[1 + i / 7 for i in range(n)],
                long_factor=[2 + i / 3 for i in range(n)])


def drop(*keys):
    def edit(c):
        for k in keys:
            c.pop(k, None)
    return edit


def put(**values):
    return lambda c: c.update(values)


def legacy(c):
    """The keys of hub files before transformers 5."""
    r = c.pop("rope_parameters", None)
    c["torch_dtype"] = c.pop("dtype", "float32")
    c.pop("layer_types", None)
    if not r:
        return
    if "full_attention" in r:
        c["rope_theta"] = r["full_attention"]["rope_theta"]
        c["rope_local_base_freq"] = r["sliding_attention"]["rope_theta"]
        r = dict(r["full_attention"])
        c["sliding_window_pattern"] = 6
    r = dict(r)
    c["rope_theta"] = r.pop("rope_theta")
    if "partial_rotary_factor" in r:
        c["partial_rotary_factor"] = r.pop("partial_rotary_factor")
    kind = r.pop("rope_type", "default")
    key = "rope_type" if "rope_local_base_freq" in c else "type"
    c["rope_scaling"] = None if kind == "default" else dict(r, **{key: kind})


class Case:
    """What is asked of one model: config values over the family's small ones, an edit of config.json, a dtype."""

    def __init__(self, name, model, edit=None, dtype=None, shard=None, gguf=True, base=None, read_by_peer=False,
                 **values):
        self.name, self.model, self.edit, self.dtype, self.shard, self.gguf = name, model, edit, dtype, shard, gguf
        self.read_by_peer = read_by_peer
        self.values = dict(base if base is not None else SMALL, **values)


CASES = [
    Case("llama", "llama", read_by_peer=True),
    Case("llama-legacy", "llama", legacy, rope_parameters=dict(rope_theta=5e5, rope_type="default")),
    Case("llama-mha-no-kv-key", "llama", drop("num_key_value_heads", "head_dim"), num_key_value_heads=4),
    Case("llama-head-dim", "llama", head_dim=20, num_attention_heads=2, num_key_value_heads=1),
    Case("llama-biases", "llama", attention_bias=True, mlp_bias=True, gguf=False),
    Case("llama-attention-bias", "llama", attention_bias=True),
    Case("llama-tied", "llama", tie_word_embeddings=True),
    Case("llama-gelu", "llama", hidden_act="gelu", gguf=False),
    Case("llama-relu-eps", "llama", hidden_act="relu", rms_norm_eps=1e-3, gguf=False),
    Case("llama-linear", "llama", legacy, rope_parameters=dict(rope_theta=1e4, rope_type="linear", factor=3.0)),
    Case("llama-dynamic", "llama", rope_parameters=dict(rope_theta=1e4, rope_type="dynamic", factor=2.0),
         max_position_embeddings=20, gguf=False),
    Case("llama-yarn", "llama", rope_parameters=dict(YARN, rope_theta=1e4)),
    Case("llama-yarn-factors", "llama", legacy,
         rope_parameters=dict(YARN, rope_theta=5e3, beta_fast=16.0, beta_slow=2.0, attention_factor=1.3)),
    Case("llama-yarn-mscale", "llama", rope_parameters=dict(YARN, rope_theta=5e3, mscale=0.7, mscale_all_dim=1.1),
         gguf=False),
    Case("llama-llama3", "llama", rope_parameters=dict(LLAMA3, rope_theta=5e5)),
    Case("llama-llama3-legacy", "llama", legacy, rope_parameters=dict(LLAMA3, rope_theta=1e4)),
    Case("llama-partial", "llama", head_dim=16,
         rope_parameters=dict(rope_theta=1e4, rope_type="default", partial_rotary_factor=0.5)),
    Case("llama-original-beside", "llama", put(original_max_position_embeddings=24),
         rope_parameters=dict(YARN, rope_theta=1e4)),
    Case("llama-bf16-shards", "llama", dtype=torch.bfloat16, shard=12000),
    Case("llama-f16", "llama", dtype=torch.float16),
    Case("mistral-window", "mistral", sliding_window=9),
    Case("mistral-window-wide", "mistral", sliding_window=64),
    Case("mistral-window-1", "mistral", sliding_window=1),
    Case("mistral-null", "mistral", legacy, sliding_window=None, rope_parameters=dict(rope_theta=1e6, rope_type="default")),
    Case("mistral-head-dim", "mistral", head_dim=12, sliding_window=None, tie_word_embeddings=True),
    Case("mistral-no-window-key", "mistral", drop("sliding_window", "head_dim"), sliding_window=4096),
    Case("qwen2", "qwen2", read_by_peer=True),
    Case("qwen2-tied-legacy", "qwen2", legacy, tie_word_embeddings=True),
    Case("qwen2-window", "qwen2", use_sliding_window=True, sliding_window=7, max_window_layers=1),
    Case("qwen2-window-legacy", "qwen2", legacy, use_sliding_window=True, sliding_window=7, max_window_layers=2),
    Case("qwen2-window-off", "qwen2", use_sliding_window=False, sliding_window=7, max_window_layers=1),
    Case("qwen2-layer-types", "qwen2", use_sliding_window=True, sliding_window=5,
         layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    Case("qwen2-yarn", "qwen2", rope_parameters=dict(YARN, rope_theta=1e6)),
    Case("qwen3", "qwen3", head_dim=16),
    Case("qwen3-no-head-dim", "qwen3", drop("head_dim"), head_dim=128),
    Case("qwen3-usual-sizes", "qwen3", head_dim=128, read_by_peer=True),
    Case("qwen3-bias-legacy", "qwen3", legacy, attention_bias=True, head_dim=16, tie_word_embeddings=True),
    Case("qwen3-window", "qwen3", use_sliding_window=True, sliding_window=6, max_window_layers=2, head_dim=8),
    Case("phi3", "phi3", pad_token_id=0),
    Case("phi3-usual-sizes", "phi3", vocab_size=32064, read_by_peer=True),
    Case("phi3-window", "phi3", sliding_window=6, pad_token_id=0),
    Case("phi3-eps", "phi3", drop("rms_norm_eps"), pad_token_id=0, rms_norm_eps=1e-5),
    Case("phi3-partial", "phi3", pad_token_id=0, hidden_size=64,
         rope_parameters=dict(rope_theta=1e4, rope_type="default", partial_rotary_factor=0.75)),
    Case("phi3-longrope", "phi3", legacy, pad_token_id=0, original_max_position_embeddings=30,
         rope_parameters=dict(longrope(4), rope_theta=1e4)),
    Case("phi3-longrope-partial", "phi3", pad_token_id=0, original_max_position_embeddings=30, hidden_size=64,
         tie_word_embeddings=True, rope_parameters=dict(longrope(6), rope_theta=1e4, partial_rotary_factor=0.75)),
    Case("gemma", "gemma", head_dim=16),
    Case("gemma-untied", "gemma", head_dim=8, tie_word_embeddings=False),
    Case("gemma-gelu-key", "gemma", lambda c: (legacy(c), c.update(hidden_act="gelu")), head_dim=16,
         num_key_value_heads=1),
    Case("gemma-no-head-dim", "gemma", drop("head_dim", "tie_word_embeddings"), head_dim=256),
    Case("gemma-bias", "gemma", head_dim=16, attention_bias=True),
    Case("gemma2", "gemma2", head_dim=12, sliding_window=7, query_pre_attn_scalar=24),
    Case("gemma2-legacy", "gemma2", legacy, head_dim=12, sliding_window=7, query_pre_attn_scalar=12),
    Case("gemma2-no-caps", "gemma2", head_dim=12, sliding_window=7, attn_logit_softcapping=None,
         final_logit_softcapping=None, gguf=False),
    Case("gemma2-caps", "gemma2", head_dim=12, sliding_window=7, attn_logit_softcapping=2.0,
         final_logit_softcapping=1.5),
    Case("gemma2-all-full", "gemma2", head_dim=8, layer_types=["full_attention"] * 3, gguf=False),
    Case("gemma2-absent", "gemma2", drop("head_dim", "query_pre_attn_scalar", "attn_logit_softcapping",
                                         "final_logit_softcapping", "sliding_window", "layer_types"), head_dim=256),
    Case("gemma2-usual-sizes", "gemma2", head_dim=256, sliding_window=7, read_by_peer=True),
    Case("gemma3-usual-sizes", "gemma3_text", head_dim=256, sliding_window=7, read_by_peer=True),
    Case("gemma3", "gemma3_text", head_dim=12, sliding_window=7, query_pre_attn_scalar=20, num_hidden_layers=7),
    Case("gemma3-legacy", "gemma3_text", legacy, head_dim=12, sliding_window=7, num_hidden_layers=7,
         rope_parameters=dict(full_attention=dict(rope_theta=1e6, rope_type="linear", factor=8.0),
                              sliding_attention=dict(rope_theta=1e4, rope_type="default"))),
    Case("gemma3-types", "gemma3_text", head_dim=12, sliding_window=5,
         layer_types=["full_attention", "sliding_attention", "full_attention"], gguf=False),
    Case("gemma3-cap", "gemma3_text", head_dim=8, sliding_window=7, final_logit_softcapping=1.5),
    Case("gemma3-attn-cap", "gemma3_text", head_dim=8, sliding_window=7, attn_logit_softcapping=1.5, gguf=False),
    Case("gpt2", "gpt2", base=GPT2),
    Case("gpt2-usual-sizes", "gpt2", base=GPT2, n_positions=1024, vocab_size=50257, read_by_peer=True),
    Case("gpt2-inner", "gpt2", base=GPT2, n_inner=40, tie_word_embeddings=False),
    Case("gpt2-gelu", "gpt2", base=GPT2, activation_function="gelu", gguf=False),
    Case("gpt2-unscaled", "gpt2", base=GPT2, scale_attn_weights=False, gguf=False),
    Case("gpt2-by-layer", "gpt2", base=GPT2, scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True,
         gguf=False),
    Case("gpt2-bf16", "gpt2", base=GPT2, dtype=torch.bfloat16),
    Case("opt", "opt", base=OPT, gguf=False),
    Case("opt-post-norm", "opt", base=OPT, do_layer_norm_before=False, gguf=False),
    Case("opt-350m-like", "opt", base=OPT, do_layer_norm_before=False, word_embed_proj_dim=20, gguf=False),
    Case("opt-projected", "opt", base=OPT, word_embed_proj_dim=20, gguf=False),
    Case("opt-gelu-no-proj-key", "opt", drop("word_embed_proj_dim"), base=OPT, activation_function="gelu", gguf=False),
    Case("opt-no-bias", "opt", base=OPT, enable_bias=False, gguf=False),
    Case("opt-no-final", "opt", base=OPT, _remove_final_layer_norm=True, gguf=False),
    Case("opt-untied", "opt", base=OPT, tie_word_embeddings=False, gguf=False),
    Case("smollm3", "smollm3", num_hidden_layers=9, pad_token_id=0),
    Case("smollm3-list", "smollm3", no_rope_layers=[0, 1, 1], pad_token_id=0, tie_word_embeddings=False,
         attention_bias=True, gguf=False),
    Case("smollm3-window", "smollm3", use_sliding_window=True, sliding_window=7, no_rope_layer_interval=2,
         pad_token_id=0, gguf=False),
    Case("smollm3-legacy", "smollm3", legacy, num_hidden_layers=4, pad_token_id=0,
         rope_parameters=dict(YARN, rope_theta=5e6)),
    Case("stablelm", "stablelm", hidden_size=64, pad_token_id=0, read_by_peer=True),
    Case("stablelm-bias-legacy", "stablelm", legacy, hidden_size=64, use_qkv_bias=True,
         rope_parameters=dict(rope_theta=1e4, rope_type="default", partial_rotary_factor=0.5)),
    Case("stablelm-parallel", "stablelm", hidden_size=64, use_parallel_residual=True),
]


def balora(*words):
    p = subprocess.run([BALORA, *words, "--quiet"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if p.returncode != 0:
        raise RuntimeError(p.stderr.strip() or f"status {p.returncode}")
    return p.stdout


def difference(ours, theirs):
    d = (ours - theirs).abs().max().item() / theirs.abs().max().item()
    return d if d == d else float("inf")


def make(case, folder):
    """Random weights with norms and biases away from their start; saved, edited, read again."""
    torch.manual_seed(len(case.name) * 31 + sum(map(ord, case.name)))
    config = transformers.AutoConfig.for_model(case.model, bos_token_id=1, eos_token_id=2, **case.values)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.3)
    if case.dtype is not None:
        model = model.to(case.dtype)
    model.save_pretrained(folder, max_shard_size=case.shard or "1GB")
    path = os.path.join(folder, "config.json")
    if case.edit is not None:
        c = json.load(open(path))
        case.edit(c)
        json.dump(c, open(path, "w"))
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def reference(model, rows):
    with torch.no_grad():
        return torch.cat([model(torch.tensor([r]), use_cache=False).logits[0].float() for r in rows])


def greedy(model, row, n):
    """Greedy tokens and the smallest distance of the two largest logits."""
    made, gap = list(row), float("inf")
    for _ in range(n):
        with torch.no_grad():
            top = model(torch.tensor([made]), use_cache=False).logits[0, -1].float().topk(2)
        gap = min(gap, (top.values[0] - top.values[1]).item())
        made.append(top.indices[0].item())
    return made[len(row):], gap


def logits_of(path, folder, rows):
    source, out = os.path.join(folder, "in.json"), os.path.join(folder, "out.safetensors")
    json.dump({"input_ids": rows}, open(source, "w"))
    balora("forward", "--model", path, "--input", source, "--out", out)
    return load_file(out)["logits"]


def one(case, folder):
    model = make(case, folder)
    generator = random.Random(case.name)
    rows = [[generator.randrange(3, 101) for _ in range(n)] for n in LENGTHS]
    theirs = reference(model, rows)
    ours = logits_of(folder, folder, rows)
    text, worst = "", difference(ours, theirs)
    if case.name != "llama-dynamic":
        prompt = os.path.join(folder, "prompt.json")
        json.dump({"input_ids": [rows[2]]}, open(prompt, "w"))
        made = json.loads(balora("generate", "--model", folder, "--input", prompt, "--max-new-tokens", "16",
                                 "--ignore-eos"))
        want, gap = greedy(model, rows[2], 16)
        got = made["generate"][0]["ids"]
        if got != want and gap > 1e-3:
            text, worst = f"; greedy {got} for {want}", float("inf")
    if case.gguf:
        file = os.path.join(folder, "f32.gguf")
        balora("convert", "--model", folder, "--to", "gguf", "--dtype", "f32", "--out", file)
        back = logits_of(file, folder, rows)
        limit = case.values.get("sliding_window") if case.model in ("mistral", "qwen2", "qwen3") else None
        n = theirs.shape[0] if limit is None else 1 + min(limit, LENGTHS[1])  # the window is lost on the way
        d = difference(back[:n], theirs[:n])
        text += f"; by GGUF {d:.1e}"
        worst = max(worst, d)
        again = os.path.join(folder, "again")
        balora("convert", "--model", file, "--to", "hf", "--out", again)
        d = difference(logits_of(again, folder, rows), back)
        text += f", back as a folder {d:.1e}"
        worst = max(worst, d)
        said, d = theirs_of_gguf(case, folder, file, rows, back)
        text += said
        worst = max(worst, d)
    return worst, f"{difference(ours, theirs):.1e}{text}"


def theirs_of_gguf(case, folder, file, rows, back):
    """transformers' own reading of our GGUF file.  It reads fewer values than such a file has (no caps, biases, rope
    scaling; heads and positions of the usual sizes only), so it counts in the cases that say so."""
    if not case.read_by_peer:
        return "", 0.0
    model = AutoModelForCausalLM.from_pretrained(os.path.dirname(file), gguf_file=os.path.basename(file),
                                                 dtype=torch.float32, attn_implementation="eager").eval()
    d = difference(reference(model, rows), back)
    return f", transformers reads it with {d:.1e}", d


WRITTEN = {"phi3-longrope-partial": "longrope with its two lists, a part of each head turns",
           "gpt2-by-layer": "scores divided by the number of the layer",
           "opt-350m-like": "projected embeddings, norms after the sum", "opt-no-bias": "no biases",
           "smollm3": "layers without rotary embedding", "smollm3-window": "a window in these layers alone",
           "stablelm": "layer norms, a quarter of each head turns", "stablelm-parallel": "attention and MLP side by side"}


def write():
    """Small cases in the form of the shared golden/decoder."""
    root = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "golden", "decoder")
    for case in CASES:
        if case.name not in WRITTEN:
            continue
        for key in ("num_hidden_layers", "n_layer"):
            if key in case.values:
                case.values[key] = 4 if case.name == "smollm3" else 2
        case.dtype = torch.bfloat16
        folder = os.path.join(root, "fwd_" + case.name.replace("-", "_"))
        model = make(case, os.path.join(folder, "model"))
        generator = random.Random(case.name)
        rows = [[generator.randrange(3, 101) for _ in range(n)] for n in (1, 7, 33)]
        json.dump({"input_ids": rows}, open(os.path.join(folder, "input.json"), "w"))
        save_file({"logits": reference(model, rows)}, os.path.join(folder, "expected.safetensors"))
        kinds = {"logits": {"rel": TOLERANCE, "abs": 1e-7}}
        about = {"name": os.path.basename(folder), "pins_down": WRITTEN[case.name], "tolerance": kinds, "options": [],
                 "reference": {"torch": torch.__version__, "transformers": transformers.__version__}}
        json.dump(about, open(os.path.join(folder, "case.json"), "w"), indent=1)
        extra = os.path.join(folder, "model", "generation_config.json")
        if os.path.exists(extra):
            os.remove(extra)


if __name__ != "__main__":
    CASES = []
elif BALORA == "--write":
    write()
    sys.exit(0)
print(f"torch {torch.__version__}, transformers {transformers.__version__}")
for case in CASES:
    if WANTED and not any(case.name.startswith(w) for w in WANTED):
        continue
    with tempfile.TemporaryDirectory() as folder:
        try:
            worst, text = one(case, folder)
        except Exception as e:
            worst, text = float("inf"), str(e)
        good = worst <= TOLERANCE
        failed += not good
        print(("ok    " if good else "FAIL  ") + f"{case.name}: {text}", flush=True)
if __name__ == "__main__":
    sys.exit(failed != 0)
