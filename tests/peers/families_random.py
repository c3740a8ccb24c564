#!/usr/bin/env python3
"""Random configurations of every family beside transformers: logits of whole sequences, greedy tokens (key/value cache
against transformers' whole forward), gradients of all weights and of an adapter beside autograd, the way through GGUF
and back with transformers reading what comes back, and llama.cpp's logits of the GGUF file.
usage: tests/peers/families_random.py [BALORA [SEED [COUNT [FAMILY...]]]]
       SHAKE=1: keys are left out of config.json and such of other families are added
       LLAMA_LOGITS=PROGRAM: called as PROGRAM MODEL.gguf IDS LOGITS N_VOCAB, see llama_logits() below
Case i of seed S is the same whatever the count and the families.  Says "skipped" without transformers.
SPDX-License-Identifier: Apache-2.0"""
import json
import os
import random
import subprocess
import sys
import tempfile

from families import (BALORA, TOLERANCE, AutoModelForCausalLM, balora, difference, greedy, legacy, load_file, logits_of,
                      reference, save_file, torch, transformers)

SEED = int(sys.argv[2]) if len(sys.argv) > 2 else 1
COUNT = int(sys.argv[3]) if len(sys.argv) > 3 else 40
WANTED = sys.argv[4:]
LLAMA = os.environ.get("LLAMA_LOGITS", "")
KEEP = os.environ.get("KEEP", "")
SHAKE = os.environ.get("SHAKE", "")
ACTS = ["silu", "gelu", "relu", "gelu_pytorch_tanh", "gelu_new", "gelu_fast", "swish"]
GATED = ("silu", "swish")
failed, worst_of = 0, {}


# Keys that some family knows: a model of another one must not mind them, as it does not in transformers.
STRAY = dict(sliding_window=3, query_pre_attn_scalar=9, final_logit_softcapping=1.5, attn_logit_softcapping=1.5,
             scale_attn_weights=False, scale_attn_by_inverse_layer_idx=True, use_sliding_window=True, max_window_layers=0,
             no_rope_layer_interval=1, mlp_bias=True, attention_bias=True, use_qkv_bias=True, use_parallel_residual=True,
             qk_layernorm=True, hidden_activation="relu", hidden_act="relu", activation_function="relu",
             word_embed_proj_dim=4, do_layer_norm_before=False, enable_bias=False, num_key_value_heads=1,
             embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.5, layer_norm_eps=0.1, rms_norm_eps=0.1,
             layer_norm_epsilon=0.1, rope_local_base_freq=10.0, sliding_window_pattern=2, type_vocab_size=9,
             embedding_size=3, n_inner=3, partial_rotary_factor=0.5,
             no_rope_layers=[0], original_max_position_embeddings=11, is_decoder=True, summary_activation="tanh")
# What may be left out whatever the weights are.
MAY_GO = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "hidden_act", "hidden_activation", "activation_function",
          "activation", "sliding_window", "use_sliding_window", "max_window_layers", "layer_types", "no_rope_layers",
          "no_rope_layer_interval", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping",
          "rope_parameters", "rope_theta", "partial_rotary_factor", "scale_attn_weights", "do_layer_norm_before",
          "use_parallel_residual", "initializer_range")


def shake(d, known):
    """An edit that leaves keys out and adds strange ones."""
    def edit(c):
        for key in d.r.sample(sorted(STRAY), d.r.randrange(0, 4)):
            if key not in known and key not in c:
                c[key] = STRAY[key]
                d.shaken.append("+" + key)
        for key in [k for k in MAY_GO if k in c and d.r.random() < 0.12]:
            if key in ("do_layer_norm_before", "use_parallel_residual") and c[key] != (key == "do_layer_norm_before"):
                continue  # other norms
            del c[key]
            d.shaken.append("-" + key)
    d.edits.append(edit)

class Draw:
    """One configuration: values for transformers, edits of config.json, and what to ask."""

    def __init__(self, family, r):
        self.family, self.r = family, r
        self.model = {"ministral": "mistral", "gemma3": "gemma3_text"}.get(family, family)
        self.values, self.edits, self.gguf, self.llama = {}, [], True, True
        self.shaken = []
        self.limit, self.known = None, None  # rows longer than limit are not compared by GGUF; engine's limit
        self.dtype = r.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16])
        self.shard = r.choice([None, None, 9000, 30000])
        getattr(self, "draw_" + {"ministral": "mistral"}.get(family, family))()

    def maybe(self, p=0.5):
        return self.r.random() < p

    def put(self, **values):
        self.values.update(values)

    def no_gguf(self):
        self.gguf = self.llama = False

    def sizes(self, fixed_head=False):
        """Heads that need not fill the width, groups, odd sizes."""
        r = self.r
        heads = r.choice([1, 2, 3, 4, 6, 8])
        kv = r.choice([k for k in range(1, heads + 1) if heads % k == 0])
        own = 2 * r.randrange(2, 9)
        hidden = heads * own
        if hidden < 16:
            hidden, own = heads * 16, 16
        head_dim = own if fixed_head or self.maybe() else 2 * r.randrange(2, 13)
        self.heads, self.head_dim, self.hidden = heads, head_dim, hidden
        if head_dim != own and self.family in ("qwen2", "phi3"):
            self.llama = False  # llama.cpp derives it
        self.put(vocab_size=r.randrange(60, 140), hidden_size=hidden, intermediate_size=r.randrange(9, 80),
                 num_hidden_layers=r.randrange(1, 6), num_attention_heads=heads, num_key_value_heads=kv,
                 max_position_embeddings=self.r.choice([64, 80, 100]), initializer_range=0.15,
                 rms_norm_eps=r.choice([1e-6, 1e-5, 1e-3, 1e-2]), tie_word_embeddings=self.maybe(),
                 bos_token_id=1, eos_token_id=2, pad_token_id=0)
        self.fixed_head = fixed_head
        if not fixed_head:
            self.put(head_dim=head_dim)

    def act(self, key="hidden_act", usual="silu"):
        a = self.r.choice(ACTS) if self.maybe(0.3) else "silu" if usual == "silu" else "gelu_pytorch_tanh"
        self.put(**{key: a})
        tanh = ("gelu_pytorch_tanh", "gelu_new", "gelu_fast")
        same = a in GATED if usual == "silu" else a in tanh
        if not same:
            self.no_gguf()

    def rope(self, kinds, part=None, theta=(1e4, 5e5, 500.0, 1e6)):
        r, kind = self.r, self.r.choice(kinds)
        turned = self.head_dim
        p = dict(rope_type=kind, rope_theta=r.choice(theta))
        if part is not None:
            fits = [x for x in (1.0, 0.75, 0.5, 0.25, 0.4) if int(self.head_dim * x) % 2 == 0 and int(self.head_dim * x) > 0]
            p["partial_rotary_factor"] = r.choice(fits)
            turned = int(self.head_dim * p["partial_rotary_factor"])
            if kind in ("dynamic",) and turned <= 2:
                p["rope_type"] = kind = "default"
        if kind == "linear":
            p["factor"] = r.choice([2.0, 3.5, 8.0])
        if kind == "dynamic":
            p["factor"] = r.choice([2.0, 4.0])
            self.put(max_position_embeddings=20)
            self.known = 20
            self.no_gguf()
        if kind == "yarn":
            p.update(factor=r.choice([2.0, 4.0, 1.5]), original_max_position_embeddings=r.choice([8, 16, 32]))
            if self.maybe(0.3):
                p["attention_factor"] = r.choice([1.0, 0.7, 1.4])
            elif self.maybe(0.3):
                p.update(mscale=r.choice([0.7, 1.0]), mscale_all_dim=r.choice([1.0, 1.3]))
            if self.maybe(0.3):
                p.update(beta_fast=r.choice([8.0, 16.0]), beta_slow=r.choice([1.0, 2.0]))
                self.llama = False  # llama.cpp has 32 and 1
            if self.maybe(0.3):
                p["truncate"] = False
                self.no_gguf()
        if kind == "llama3":
            p.update(factor=r.choice([4.0, 8.0]), low_freq_factor=1.0, high_freq_factor=4.0,
                     original_max_position_embeddings=r.choice([16, 32]))
        if kind == "longrope":
            p.update(short_factor=[round(1 + r.random(), 3) for _ in range(turned // 2)],
                     long_factor=[round(1 + 4 * r.random(), 3) for _ in range(turned // 2)])
            original = r.choice([12, 30])
            self.known = original
            if self.model == "phi3":
                self.put(original_max_position_embeddings=original)
            else:
                p["original_max_position_embeddings"] = original
            if self.maybe(0.3):
                p["attention_factor"] = 1.2
            elif self.maybe(0.3) or self.model != "phi3":
                p["factor"] = 3.0
        self.kind = kind
        self.put(rope_parameters=p)
        if self.maybe(0.4):
            self.edits.append(legacy)

    def window_types(self, p=0.6):
        if self.maybe(p):
            types = [self.r.choice(["sliding_attention", "full_attention"]) for _ in range(self.values["num_hidden_layers"])]
            self.put(layer_types=types)
            return types
        return None

    # ---- the families ----

    def draw_llama(self):
        self.sizes()
        self.act()
        self.put(attention_bias=self.maybe(0.3), mlp_bias=self.maybe(0.2))
        self.rope(["default", "linear", "dynamic", "yarn", "llama3", "longrope"])

    def draw_mistral(self):
        self.sizes()
        self.act()
        self.rope(["default", "linear", "yarn", "llama3", "dynamic"])
        window = self.r.choice([None, 1, 3, 9, 64])
        self.put(sliding_window=window)
        self.limit = window
        if self.family == "ministral":
            self.limit = window = window or 5
            types = [self.r.choice(["sliding_attention", "full_attention"])
                     for _ in range(self.values["num_hidden_layers"])]
            self.put(sliding_window=window)
            self.edits.append(lambda c: c.update(layer_types=types))

    def draw_qwen2(self):
        self.sizes()
        self.act()
        self.rope(["default", "linear", "yarn", "dynamic"])
        self.qwen_window()

    def qwen_window(self):
        use = self.maybe()
        window = self.r.choice([2, 7, 30])
        self.put(use_sliding_window=use, sliding_window=window,
                 max_window_layers=self.r.randrange(0, self.values["num_hidden_layers"] + 1))
        if use:
            self.window_types(0.4)
            self.limit = window

    def draw_qwen3(self):
        self.draw_qwen2()
        self.put(attention_bias=self.maybe(0.3))
        self.llama = self.llama and not self.values["attention_bias"]

    def draw_phi3(self):
        self.sizes(fixed_head=True)
        self.act()
        self.rope(["default", "longrope", "longrope"], part=1)
        window = self.r.choice([None, None, 6, 40])
        self.put(sliding_window=window)
        self.llama = self.llama and window is None

    def draw_gemma(self):
        self.sizes()
        self.act(usual="tanh")
        if self.values["hidden_act"] == "gelu":
            self.gguf = True  # means the tanh form there
            self.llama = True
        self.rope(["default", "linear", "yarn"])
        self.put(attention_bias=self.maybe(0.2))
        self.llama = self.llama and self.values["tie_word_embeddings"] and not self.values["attention_bias"]

    def gemma2_like(self):
        self.sizes()
        self.act("hidden_activation", usual="tanh")
        self.put(attention_bias=self.maybe(0.2), query_pre_attn_scalar=self.r.choice([8, 24, 100, 256]),
                 sliding_window=self.r.choice([1, 4, 7, 30]))

    def draw_gemma2(self):
        self.gemma2_like()
        self.rope(["default", "linear", "yarn"])
        caps = [self.r.choice([None, 1.5, 50.0, 3.0]), self.r.choice([None, 2.0, 30.0])]
        self.put(attn_logit_softcapping=caps[0], final_logit_softcapping=caps[1])
        if self.maybe(0.6):
            self.put(attn_logit_softcapping=3.0, final_logit_softcapping=2.0)
        elif None in caps:
            self.no_gguf()
        types = self.window_types(0.3)
        if types is not None:
            self.irregular(types, 2)
        self.llama = self.llama and self.values["tie_word_embeddings"] and not self.values["attention_bias"]

    def irregular(self, types, usual):
        n = len(types)
        if not any(all((t == "sliding_attention") == ((i + 1) % p != 0) for i, t in enumerate(types))
                   for p in range(1, n + 2)):
            self.no_gguf()

    def draw_gemma3(self):
        self.gemma2_like()
        self.put(num_hidden_layers=self.r.randrange(1, 8))
        r = self.r
        full = dict(rope_type="default", rope_theta=r.choice([1e6, 1e5]))
        if self.maybe():
            full.update(rope_type="linear", factor=8.0)
        elif self.maybe(0.3):
            full.update(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
        local = dict(rope_type="default", rope_theta=r.choice([1e4, 700.0]))
        if self.maybe(0.15):
            local.update(rope_type="linear", factor=2.0)
            self.no_gguf()
        self.put(rope_parameters=dict(full_attention=full, sliding_attention=local),
                 final_logit_softcapping=r.choice([None, None, 2.0]), attn_logit_softcapping=r.choice([None, None, 2.0]))
        types = self.window_types(0.5)
        if types is not None:
            self.irregular(types, 6)
        elif local["rope_type"] == "default" and self.maybe():
            period = r.choice([2, 3, 6])
            self.put(layer_types=["full_attention" if (i + 1) % period == 0 else "sliding_attention"
                                  for i in range(self.values["num_hidden_layers"])])
            self.edits += [legacy, lambda c: c.update(sliding_window_pattern=period)]
        self.llama = self.llama and not self.values["attention_bias"]

    def draw_gpt2(self):
        r, heads = self.r, self.r.choice([1, 2, 3, 5])
        self.head_dim = r.choice([4, 7, 9, 16])
        self.put(vocab_size=r.randrange(60, 140), n_embd=heads * self.head_dim, n_layer=r.randrange(1, 5), n_head=heads,
                 n_positions=64, initializer_range=0.15, n_inner=r.choice([None, 19, 50]),
                 layer_norm_epsilon=r.choice([1e-5, 1e-3]), activation_function=r.choice(["gelu_new", "gelu_new", r.choice(ACTS)]),
                 tie_word_embeddings=self.maybe(0.7), scale_attn_weights=self.maybe(0.8),
                 scale_attn_by_inverse_layer_idx=self.maybe(0.2), reorder_and_upcast_attn=self.maybe(0.2),
                 bos_token_id=1, eos_token_id=2)
        v = self.values
        if v["activation_function"] not in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast") or not v["scale_attn_weights"] \
                or v["scale_attn_by_inverse_layer_idx"]:
            self.no_gguf()

    def draw_opt(self):
        r, heads = self.r, self.r.choice([1, 2, 4])
        self.head_dim = r.choice([4, 6, 9, 16])
        hidden = heads * self.head_dim
        self.put(vocab_size=r.randrange(60, 140), hidden_size=hidden, ffn_dim=r.randrange(9, 70),
                 num_hidden_layers=r.randrange(1, 5), num_attention_heads=heads, max_position_embeddings=64, init_std=0.15,
                 word_embed_proj_dim=r.choice([hidden, hidden, r.randrange(5, 40)]), do_layer_norm_before=self.maybe(),
                 enable_bias=self.maybe(0.8), _remove_final_layer_norm=self.maybe(0.2),
                 activation_function=r.choice(ACTS), bos_token_id=1, eos_token_id=2)
        self.put(tie_word_embeddings=self.values["word_embed_proj_dim"] != hidden or self.maybe(0.7))
        self.no_gguf()

    def draw_smollm3(self):
        self.sizes(fixed_head=True)
        self.act()
        n = self.r.choice([2, 4, 5, 9])
        self.put(num_hidden_layers=n, attention_bias=self.maybe(0.2), mlp_bias=self.maybe(0.2))
        self.rope(["default", "linear", "yarn"])
        if self.maybe(0.3):
            self.put(no_rope_layers=[self.r.randrange(2) for _ in range(n)])
        elif self.maybe(0.3):
            self.put(no_rope_layer_interval=self.r.choice([2, 3]))
        usual = [int((i + 1) % 4 != 0) for i in range(n)]
        every = self.values.get("no_rope_layer_interval", 4)
        layers = self.values.get("no_rope_layers", [int((i + 1) % every != 0) for i in range(n)])
        if layers != usual:
            self.no_gguf()
        if self.maybe(0.4):
            self.put(use_sliding_window=self.maybe(), sliding_window=7)
            if self.values["use_sliding_window"] or self.maybe():
                self.window_types(0.5)
            self.limit = 7
        self.llama = self.llama and not self.values["attention_bias"] and not self.values["mlp_bias"]

    def draw_stablelm(self):
        self.sizes(fixed_head=True)
        self.put(layer_norm_eps=self.values.pop("rms_norm_eps"))
        self.act()
        self.put(use_qkv_bias=self.maybe(), use_parallel_residual=self.maybe())
        self.rope(["default", "linear"], part=1)
        self.llama = self.llama and not self.values["tie_word_embeddings"]

    # ---- encoders ----

    def draw_bert(self):
        r, heads = self.r, self.r.choice([1, 2, 3, 5])
        width = heads * r.choice([4, 7, 12])
        self.put(vocab_size=r.randrange(60, 140), hidden_size=width, intermediate_size=r.randrange(9, 70),
                 num_hidden_layers=r.randrange(1, 5), num_attention_heads=heads, max_position_embeddings=70,
                 initializer_range=0.2, layer_norm_eps=r.choice([1e-12, 1e-5, 1e-2]), hidden_act=r.choice(ACTS),
                 type_vocab_size=r.choice([1, 2, 3]), tie_word_embeddings=self.maybe(0.7), pad_token_id=r.choice([0, 0, 5]))
        self.types = self.values["type_vocab_size"]

    def draw_roberta(self):
        self.draw_bert()
        self.put(pad_token_id=self.r.choice([0, 1, 4]))

    def draw_electra(self):
        self.draw_bert()
        self.put(embedding_size=self.r.choice([self.values["hidden_size"], 11, 40]))

    def draw_distilbert(self):
        self.draw_bert()
        v = self.values
        for key in ("type_vocab_size", "layer_norm_eps"):
            v.pop(key)
        for key, name in (("dim", "hidden_size"), ("hidden_dim", "intermediate_size"), ("n_layers", "num_hidden_layers"),
                          ("n_heads", "num_attention_heads"), ("activation", "hidden_act")):
            v[key] = v.pop(name)
        self.put(sinusoidal_pos_embds=self.maybe(0.3))
        self.types = 1


FAMILIES = ["llama", "mistral", "ministral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3", "gpt2", "opt",
            "smollm3", "stablelm", "bert", "roberta", "distilbert", "electra"]
ENCODERS = FAMILIES[-4:]


def build(d, folder, seed):
    torch.manual_seed(seed)
    config = transformers.AutoConfig.for_model(d.model, **d.values)
    if SHAKE:
        shake(d, set(config.to_dict()) | set(dir(config)))
    auto = transformers.AutoModelForMaskedLM if d.family in ENCODERS else AutoModelForCausalLM
    model = auto.from_config(config)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() == 1:
                p.add_(torch.randn_like(p) * 0.3)
    model.to(d.dtype).save_pretrained(folder, max_shard_size=d.shard or "1GB")
    path = os.path.join(folder, "config.json")
    c = json.load(open(path))
    for edit in d.edits:
        edit(c)
    json.dump(c, open(path, "w"))
    return auto.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def llama_logits(file, folder, rows, vocab):
    """PROGRAM writes f32 logits of each row of IDS (text, a row a line); "" when it refuses the model."""
    ids, out = os.path.join(folder, "ids"), os.path.join(folder, "llama")
    with open(ids, "w") as f:
        f.writelines(" ".join(map(str, r)) + "\n" for r in rows)
    p = subprocess.run([LLAMA, file, ids, out], capture_output=True, text=True)
    if p.returncode:
        return None, (p.stderr.strip().splitlines() or ["?"])[-1]
    return torch.frombuffer(bytearray(open(out, "rb").read()), dtype=torch.float32).reshape(-1, vocab), ""


def check_gradients(d, model, folder, rows):
    """All weights, then an adapter on all linear modules."""
    labels = [[t if i % 3 else -100 for i, t in enumerate(r)] for r in rows]
    source, out = os.path.join(folder, "grad.json"), os.path.join(folder, "grad.safetensors")
    json.dump({"input_ids": rows, "labels": labels}, open(source, "w"))

    def loss():
        total, n = 0, 0
        for row, label in zip(rows, labels):
            z = model(torch.tensor([row]), use_cache=False).logits[0, :-1]
            y = torch.tensor(label[1:])
            total = total + torch.nn.functional.cross_entropy(z, y, ignore_index=-100, reduction="sum")
            n += int((y != -100).sum())
        return total / n

    def compare(named, *words):
        balora("forward", "--model", folder, "--input", source, "--out", out, "--grad", "--preset", "lora", *words)
        got = load_file(out)
        worst, seen = 0.0, 0
        for name, g in named.items():
            key = "grad." + name
            if key not in got:
                continue
            ours = got[key]
            if d.family == "gpt2" and ".h." in name and g.dim() == 2 and "lora" not in name:
                ours = ours.t()  # outputs x inputs, Conv1D has them the other way round
            seen += 1
            scale = max(g.abs().max().item(), 1e-4)
            worst = max(worst, (ours - g).abs().max().item() / scale)
        if seen < len(named) * 0.9:
            return float("inf"), f"only {seen} of {len(named)} gradients were there: " + \
                str([k for k in named if "grad." + k not in got][:4])
        return worst, ""

    model.requires_grad_(True)
    model.zero_grad()
    loss().backward()
    worst, said = compare({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    try:
        import peft
    except ImportError:
        return worst, said + " (no peft)"
    at = os.path.join(folder, "adapter")
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=3, lora_alpha=5, target_modules="all-linear"))
    with torch.no_grad():
        for n, p in wrapped.named_parameters():
            if "lora_" in n:
                p.copy_(torch.randn_like(p) * 0.1)
    wrapped.save_pretrained(at)
    wrapped.zero_grad()
    loss().backward()
    named = {n.replace(".default", ""): p.grad for n, p in wrapped.named_parameters() if "lora_" in n}
    second, again = compare(named, "--adapter", at)
    return max(worst, second), said + again + f" (adapter {second:.1e})"


def one_encoder(d, folder, index):
    r = random.Random(f"rows {SEED} {index}")
    model = build(d, folder, SEED * 1000 + index)
    vocab, pad = d.values["vocab_size"], d.values["pad_token_id"]
    rows = [[r.choice([pad, r.randrange(vocab), r.randrange(vocab), r.randrange(vocab)]) for _ in range(n)]
            for n in (1, 2, r.randrange(3, 12), r.randrange(31, 60))]
    types = [[r.randrange(d.types) for _ in row] for row in rows]
    source, out = os.path.join(folder, "in.json"), os.path.join(folder, "out.safetensors")
    json.dump({"input_ids": rows, "token_type_ids": types}, open(source, "w"))
    balora("forward", "--model", folder, "--input", source, "--out", out)
    theirs = []
    with torch.no_grad():
        for a, t in zip(rows, types):
            more = {} if d.family == "distilbert" else {"token_type_ids": torch.tensor([t])}
            theirs.append(model(torch.tensor([a]), **more).logits[0])
    return {"logits": difference(load_file(out)["logits"], torch.cat(theirs))}, ""


def one(d, folder, index):
    r = random.Random(f"rows {SEED} {index}")
    model = build(d, folder, SEED * 1000 + index)
    vocab = d.values["vocab_size"]
    rows = [[r.randrange(3, vocab) for _ in range(n)] for n in (1, 2, r.randrange(3, 12), r.randrange(12, 30), r.randrange(31, 60))]
    theirs = reference(model, rows)
    parts = {"logits": difference(logits_of(folder, folder, rows), theirs)}
    said = ""
    n_prompt = r.randrange(1, 10)
    prompts = [[r.randrange(3, vocab) for _ in range(n)] for n in (n_prompt, n_prompt + 3)]
    n_new = min(24, (d.known or 1000) - n_prompt - 3)
    if n_new > 0:
        prompt = os.path.join(folder, "prompt.json")
        json.dump({"input_ids": prompts}, open(prompt, "w"))
        made = json.loads(balora("generate", "--model", folder, "--input", prompt, "--max-new-tokens", str(n_new),
                                 "--ignore-eos"))["generate"]
        for p, m in zip(prompts, made):
            want, gap = greedy(model, p, n_new)
            if m["ids"] != want and gap > 1e-3:
                said += f"; greedy {m['ids']} for {want}"
                parts["greedy"] = float("inf")
    if index % 2 == 0 and d.values.get("word_embed_proj_dim") in (None, d.values.get("hidden_size")):
        parts["gradients"], text = check_gradients(d, model, folder, rows[1:4])
        said += text
        parts["gradients"] /= 50  # single precision sums of many terms
    if d.gguf:
        by_gguf(d, folder, rows, theirs, parts, index)
    return parts, said


def keep_rows(rows, want):
    keep, at = [], 0
    for row in rows:
        keep += [want(row)] * len(row)
    return torch.tensor(keep)


def by_gguf(d, folder, rows, theirs, parts, index):
    file, again = os.path.join(folder, "f32.gguf"), os.path.join(folder, "again")
    balora("convert", "--model", folder, "--to", "gguf", "--dtype", "f32", "--out", file)
    keep = keep_rows(rows, lambda r: d.limit is None or d.model in ("phi3", "gemma2", "gemma3_text") or len(r) <= d.limit)
    back = logits_of(file, folder, rows)
    if keep.any():
        parts["gguf"] = difference(back[keep], theirs[keep])
    balora("convert", "--model", file, "--to", "hf", "--out", again)
    parts["back"] = difference(logits_of(again, folder, rows), back)
    model = AutoModelForCausalLM.from_pretrained(again, dtype=torch.float32, attn_implementation="eager").eval()
    parts["back in transformers"] = difference(reference(model, rows), back)
    if LLAMA and d.llama:
        z, why = llama_logits(file, folder, rows, d.values["vocab_size"])
        if z is None:
            print(f"       llama.cpp refuses case {index} ({d.family}): {why}")
        else:
            if d.family == "phi3" or d.kind_is("longrope"):
                keep = keep & keep_rows(rows, lambda r: not d.kind_is("longrope") or len(r) > d.known)
            if keep.any():
                parts["llama.cpp"] = difference(z[keep], theirs[keep]) / 100  # it has f16 tables and sums of its own


Draw.kind_is = lambda self, kind: getattr(self, "kind", "") == kind

if __name__ == "__main__":
    for index in range(COUNT):
        family = FAMILIES[index % len(FAMILIES)]
        if WANTED and family not in WANTED:
            continue
        d = Draw(family, random.Random(f"{SEED} {index}"))
        with tempfile.TemporaryDirectory() as folder:
            if KEEP:
                folder = os.path.join(KEEP, f"{SEED}-{index}")
                os.makedirs(folder, exist_ok=True)
            try:
                parts, said = (one_encoder if family in ENCODERS else one)(d, folder, index)
            except Exception as e:
                parts, said = {"error": float("inf")}, f"{type(e).__name__}: {e}"
        good = all(p <= TOLERANCE for p in parts.values())
        failed += not good
        for k, p in parts.items():
            worst_of.setdefault(family, {})[k] = max(p, worst_of.get(family, {}).get(k, 0))
        print(("ok    " if good else "FAIL  ") + f"{SEED}/{index} {family} " +
              ", ".join(f"{k} {p:.1e}" for k, p in parts.items()) + said, flush=True)
        if not good:
            print("      ", d.values, "edits", len(d.edits), d.shaken, d.dtype, "shard", d.shard, flush=True)
    for family, parts in worst_of.items():
        print(f"largest of {family}: " + ", ".join(f"{k} {p:.1e}" for k, p in parts.items()))
    sys.exit(failed != 0)
