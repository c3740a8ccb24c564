#!/usr/bin/env python3
"""Random adapters beside peft: families, methods, targets, patterns, layers, biases, saved modules, tied heads, starts.
For each draw: what peft writes gives the same logits here, alone and merged; two steps of AdamW from it give the same
numbers in both; what `balora train` writes is loaded by peft without a missing or unexpected key, with the same logits.
usage: tests/peers/draws.py BALORA [DRAWS [FIRST_SEED]]
Says "skipped" where a package is missing.  SPDX-License-Identifier: Apache-2.0"""
import json
import os
import random
import subprocess
import sys
import tempfile
import warnings

from beside import IDS, difference, logits

try:
    import torch
    import peft
    import transformers
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)
transformers.utils.logging.disable_progress_bar()
transformers.utils.logging.set_verbosity_error()
torch.set_num_threads(1)

STEPS, LR = 2, 0.3
ROWS = [[3, 7, 6, 9, 30, 2, 44, 5], [5, 5, 10, 17, 22, 8, 11, 60]]  # no padding: PyTorch does not train its row of an embedding
SIZES = dict(vocab_size=64, hidden_size=48, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
             num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, bos_token_id=1, eos_token_id=2,
             pad_token_id=0)
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# configuration, matrices, embedding, list of layers, the default feed-forward module, norms, whether the head is tied
FAMILIES = {
    "llama": (transformers.LlamaConfig(**SIZES, attention_bias=True, tie_word_embeddings=False), LLAMA, "embed_tokens",
              "layers", "down_proj", "norm", False),
    "llama, tied": (transformers.LlamaConfig(**SIZES, tie_word_embeddings=True), LLAMA, "embed_tokens", "layers",
                    "down_proj", "input_layernorm", True),
    "qwen3": (transformers.Qwen3Config(**SIZES, head_dim=16, tie_word_embeddings=True), LLAMA, "embed_tokens", "layers",
              "down_proj", "q_norm", True),
    "gemma2": (transformers.Gemma2Config(**SIZES, head_dim=12, sliding_window=6, query_pre_attn_scalar=12), LLAMA,
               "embed_tokens", "layers", "down_proj", "pre_feedforward_layernorm", True),
    "gpt2": (transformers.GPT2Config(vocab_size=64, n_embd=48, n_inner=80, n_layer=3, n_head=4, n_positions=64,
                                     initializer_range=0.2, bos_token_id=1, eos_token_id=2),
             ["c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"], "wte", "h", "mlp.c_proj", "ln_f", True),
    "opt": (transformers.OPTConfig(vocab_size=64, hidden_size=48, word_embed_proj_dim=48, ffn_dim=80,
                                   num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64, init_std=0.2,
                                   bos_token_id=2, eos_token_id=2, pad_token_id=1),
            ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"], "embed_tokens", "layers", "fc2",
            "self_attn_layer_norm", True),
    "phi3": (transformers.Phi3Config(**SIZES, tie_word_embeddings=False, sliding_window=None),
             ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"], "embed_tokens", "layers", "down_proj", "norm", False),
}
METHODS = ["lora", "lora", "lora", "dora", "dora", "loha", "lokr", "lokr", "ia3", "vera", "adalora"]
TYPES = {"lora": peft.LoraConfig, "dora": peft.LoraConfig, "loha": peft.LoHaConfig, "lokr": peft.LoKrConfig,
         "ia3": peft.IA3Config, "vera": peft.VeraConfig, "adalora": peft.AdaLoraConfig}


class Draw:
    """settings: of peft's class; words: of `balora train` for the same."""

    def __init__(self, seed, family=None, method=None):
        self.rng = rng = random.Random(seed)
        self.seed = seed
        self.family = family or rng.choice(sorted(FAMILIES))
        self.method = method or rng.choice(METHODS)
        while self.family == "gpt2" and self.method in ("loha", "lokr"):  # peft has none for Conv1D
            self.method = rng.choice(METHODS)
        self.config, self.matrices, self.embedding, self.layers, self.forward, self.norm, self.tied = FAMILIES[self.family]
        self.settings, self.words = {"task_type": "CAUSAL_LM"}, []
        self.named = []
        self.targets()
        getattr(self, self.method)()
        self.extra()

    def say(self, key, value, words=None):
        self.settings[key] = value
        if words is None:
            words = str(value)
        if words is True:
            self.words += ["--" + key.replace("_", "-")]
        elif words is not False:
            self.words += ["--" + key.replace("_", "-"), words]

    def chance(self, p):
        return self.rng.random() < p

    def targets(self):
        rng, has_layers = self.rng, self.method != "ia3"
        kind = rng.choice(["list", "list", "list", "expression", "all", "paths"])
        self.named = some = rng.sample(self.matrices, rng.randint(1, len(self.matrices)))
        ends = [self.embedding] if self.method in ("lora", "dora") and self.chance(0.3) else []
        if self.method in ("lora", "dora", "adalora") and self.chance(0.2) and self.family != "gpt2":
            ends.append("lm_head")
        self.ends = [] if kind in ("all", "expression") else ends
        self.listed = kind in ("list", "paths")
        if kind == "list":
            self.say("target_modules", some + ends, ",".join(some + ends))
        elif kind == "paths":
            names = [n for n, _ in self.model().named_modules()
                     if any(n.endswith("." + s) for s in some) and self.rng.random() < 0.7] or some
            self.say("target_modules", names + ends, ",".join(names + ends))
        elif kind == "all":
            self.named = self.matrices
            self.say("target_modules", "all-linear", "all-linear")
        else:
            text = rf".*\.(0|2)\..*({'|'.join(some)})".replace("attn.", r"attn\.").replace("mlp.", r"mlp\.")
            self.say("target_modules", text, text)
        if kind == "list" and has_layers and self.chance(0.3):
            layers = rng.sample(range(3), rng.randint(1, 2))
            self.say("layers_to_transform", layers, ",".join(map(str, layers)))
            if self.chance(0.5):
                self.say("layers_pattern", rng.choice([self.layers, [self.layers]]), self.layers)
        if self.method != "vera" and self.chance(0.25):
            name = rng.choice(self.matrices)
            out = rng.choice([[name], rf".*\.1\..*{name}"])
            self.say("exclude_modules", out, out if isinstance(out, str) else ",".join(out))

    def rank(self, most=8):
        r = self.rng.randint(1, most)
        self.say("r", r)
        return r

    def patterns(self, ranks=(1, 9)):
        rng = self.rng
        keys = [rng.choice(self.named), rf"[^.]*\.1\..*{rng.choice(self.named)}", rng.choice(self.matrices)]
        for key, first, last in (("rank_pattern", *ranks), ("alpha_pattern", 1, 20)):
            if self.chance(0.3):
                chosen = {k: rng.randint(first, last) for k in rng.sample(keys, rng.randint(1, 3))}
                self.say(key, chosen, ",".join(f"{k}={v}" for k, v in chosen.items()))

    def lora(self):
        self.words += ["--method", "lora"]
        self.factors()
        if self.chance(0.12) and not self.ends:
            self.say("lora_bias", True, True)
        elif self.chance(0.3):
            init = self.rng.choice(["gaussian", "orthogonal", "pissa", "olora"])
            if init == "orthogonal":
                self.settings["r"] = 4
                self.settings.pop("rank_pattern", None)
                at = self.words.index("--r")
                self.words[at + 1] = "4"
                if "--rank-pattern" in self.words:
                    at = self.words.index("--rank-pattern")
                    del self.words[at:at + 2]
            self.say("init_lora_weights", init, False)
            if init == "pissa":
                self.words[self.words.index("--method") + 1] = "pissa"
            else:
                self.words += ["--init", init]

    def dora(self):
        self.words += ["--method", "dora"]
        self.say("use_dora", True, False)
        self.factors()

    def factors(self):
        self.rank()
        self.say("lora_alpha", self.rng.randint(1, 16))
        if self.chance(0.3):
            self.say("use_rslora", True, True)
        self.patterns()
        if self.chance(0.35):
            self.say("bias", self.rng.choice(["all", "lora_only"]))

    def loha(self):
        self.words += ["--method", "loha"]
        self.rank(12)
        self.say("alpha", self.rng.randint(1, 16))
        self.patterns()

    def lokr(self):
        self.words += ["--method", "lokr"]
        self.rank(10)
        self.say("alpha", self.rng.randint(1, 16))
        self.patterns()
        if self.chance(0.5):
            self.say("decompose_both", True, True)
        if self.chance(0.5):
            self.say("decompose_factor", self.rng.choice([1, 2, 3, 4, 5, 7, 16]))

    def ia3(self):
        self.words += ["--method", "ia3"]
        inside = [n for n in self.named if self.chance(0.4)]
        if self.settings["target_modules"] == "all-linear" or not self.listed:
            inside = inside or [self.forward]
        elif self.settings["target_modules"] and self.settings["target_modules"][0] not in self.matrices:  # paths
            inside = [t for t in self.settings["target_modules"] if t.endswith(self.forward)]
        self.settings["feedforward_modules"] = inside
        if inside:
            self.words += ["--feedforward-modules", ",".join(inside)]

    def vera(self):
        self.words += ["--method", "vera"]
        self.rank(40)
        self.say("d_initial", self.rng.choice([0.1, 0.5, 1.0]))
        if self.chance(0.5):
            self.say("projection_prng_key", self.rng.randint(0, 2**32 - 1))
        if self.chance(0.3):
            self.say("save_projection", False, False)
            self.words += ["--no-save-projection"]
        if self.chance(0.35):
            bias = self.rng.choice(["all", "lora_only"])
            self.say("bias", bias.replace("lora", "vera"), bias)

    def adalora(self):
        self.words += ["--method", "adalora"]
        r = self.rng.randint(2, 8)
        self.say("init_r", r)
        self.say("target_r", r)
        self.say("lora_alpha", self.rng.randint(1, 16))
        self.say("total_step", 1000, False)
        if self.chance(0.35):
            self.say("bias", self.rng.choice(["all", "lora_only"]))

    def extra(self):
        if self.chance(0.25):
            free = [self.norm] + [m for m in self.matrices if m not in self.named]
            if not self.ends:
                free += ["lm_head", self.embedding]
            saved = self.rng.sample(free, self.rng.randint(1, min(2, len(free))))
            if self.family == "gpt2" and "lm_head" in saved:
                saved = [self.embedding]
            self.say("modules_to_save", saved, ",".join(saved))
            if self.tied and self.method in ("lora", "dora") and self.chance(0.5) and \
                    set(saved) & {"lm_head", self.embedding}:
                self.say("ensure_weight_tying", True, True)
        elif self.tied and self.method in ("lora", "dora") and self.embedding in self.ends and self.chance(0.4):
            self.say("ensure_weight_tying", True, True)

    def model(self):
        return transformers.AutoModelForCausalLM.from_config(self.config)

    def peft_config(self):
        return TYPES[self.method](**self.settings)

    def text(self):
        words = {k: v for k, v in self.settings.items() if k != "task_type"}
        return f"{self.seed}: {self.family}, {self.method} {words}"


class Refused(Exception):
    pass


def run(*words):
    done = subprocess.run([sys.argv[1], *words, "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        raise Refused((done.stderr.strip() or f"exit {done.returncode}").splitlines()[0])


class Place:
    def __init__(self, folder):
        self.folder, self.worst, self.refused, self.failed, self.counts = folder, {}, {}, 0, {}
        with open(self.path("ids.json"), "w") as f:
            json.dump({"input_ids": IDS}, f)
        with open(self.path("data.jsonl"), "w") as f:
            for row in ROWS:
                f.write(json.dumps({"input_ids": row, "labels": row}) + "\n")
        for name, row in FAMILIES.items():
            torch.manual_seed(11)
            model = transformers.AutoModelForCausalLM.from_config(row[0])
            g = torch.Generator().manual_seed(12)
            with torch.no_grad():  # biases and norms that are not 0 and 1
                for n, p in model.named_parameters():
                    if p.dim() == 1:
                        p.add_(0.1 * torch.randn(p.shape, generator=g))
            model.save_pretrained(self.path(name))

    def path(self, name):
        return os.path.join(self.folder, name)

    def base(self, d):
        return AutoModelForCausalLM.from_pretrained(self.path(d.family), dtype=torch.float32)

    def ours(self, d, adapter, model=None):
        words = ["--adapter", adapter] if adapter else []
        run("forward", "--model", model or self.path(d.family), *words, "--input", self.path("ids.json"), "--out",
            self.path("out.safetensors"))
        return load_file(self.path("out.safetensors"))["logits"]

    def note(self, d, what, value, bound):
        key = (d.method, what)
        self.worst[key] = max(self.worst.get(key, 0.0), value) if value == value else float("nan")
        self.counts[key] = self.counts.get(key, 0) + 1
        if not value <= bound:
            self.failed += 1
            print(f"FAIL  {d.text()}\n      {what}: {value:.3g}", flush=True)

    def refuse(self, d, what, e):
        self.refused.setdefault(str(e).split(": ", 1)[-1][:110], []).append((what, d.text()))

    def loaded(self, d, folder):
        """In peft, and what it complained of."""
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            model = peft.PeftModel.from_pretrained(self.base(d), folder)
        bad = [str(w.message) for w in seen if any(s in str(w.message) for s in ("missing", "nexpected"))]
        return model, bad

    def theirs(self, d):
        """A folder of peft, its model and logits; None: peft itself has no such adapter."""
        torch.manual_seed(d.seed)
        try:
            model = peft.get_peft_model(self.base(d), d.peft_config())
        except (ValueError, TypeError) as e:
            return str(e)
        g = torch.Generator().manual_seed(d.seed)
        with torch.no_grad():
            for _, p in model.named_parameters():
                if p.requires_grad:
                    p.add_(0.1 * torch.randn(p.shape, generator=g))
        folder = self.path("theirs")
        subprocess.run(["rm", "-rf", folder])
        model.save_pretrained(folder)  # sorts patterns, of which the first counts: what it reads again is compared
        try:
            again, _ = self.loaded(d, folder)
        except (ValueError, RuntimeError) as e:  # ranks in another order
            return "reads not what it wrote: " + str(e)[:60]
        return folder, logits(again)

    def steps(self, d, folder):
        """step(); a ReLU may lie between the two at one rate, hardly at another."""
        worst = self.step(d, folder, LR)
        return worst if worst <= 2e-3 or d.family != "opt" else self.step(d, folder, 0.6 * LR)

    def step(self, d, folder, lr):
        """Two steps of both from the folder: the largest difference of a change, of the largest change of its tensor."""
        start = load_file(os.path.join(folder, "adapter_model.safetensors"))
        out = self.path("stepped")
        run("train", "--model", self.path(d.family), "--data", self.path("data.jsonl"), "--format", "tokens", "--adapter",
            folder, "--order", "file", "--lr", str(lr), "--lr-scheduler", "constant", "--adam-epsilon", "1",
            "--max-grad-norm", "0", "--max-steps", str(STEPS), "--batch-size", "2", "--no-store", "--out", out,
            "--overwrite", *(["--method", d.method] if d.method != "lora" else []))
        pair = os.path.join(out, "pissa")
        mine = load_file(os.path.join(pair if os.path.isdir(pair) else out, "adapter_model.safetensors"))
        model = peft.PeftModel.from_pretrained(self.base(d), folder, is_trainable=True)
        model.eval()
        params = [p for p in model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(params, lr=lr, eps=1.0, weight_decay=0)
        for _ in range(STEPS):
            optimiser.zero_grad()
            model(input_ids=torch.tensor(ROWS), labels=torch.tensor(ROWS)).loss.backward()
            optimiser.step()
        model.save_pretrained(self.path("peft-stepped"))
        want = load_file(os.path.join(self.path("peft-stepped"), "adapter_model.safetensors"))
        worst, moved = 0.0, 0.0
        scale = max((want[k] - start[k]).abs().max().item() for k in want if k in start)
        for k, v in want.items():
            if k not in mine:
                if ".base_layer.weight" in k or "modules_to_save" in k or "original_module" in k:
                    continue
                raise AssertionError(f"{k} is missing here")
            change = v - start[k]
            moved = max(moved, change.abs().max().item())
            size = max(change.abs().max().item(), 1e-3 * scale)
            worst = max(worst, ((mine[k] - v).abs().max() / size).item())
        if not moved > 1e-5:
            raise AssertionError(f"nothing moved ({moved})")
        return worst

    def merged(self, d, folder, z, what, bound):
        out = self.path("merged")
        run("merge", "--model", self.path(d.family), "--adapter", folder, "--dtype", "f32", "--out", out, "--overwrite")
        self.note(d, what + ", merged here", difference(self.ours(d, None, out), z), bound)
        again = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
        self.note(d, what + ", merged here, in transformers", difference(logits(again), z), bound)

    def from_peft(self, d):
        result = self.theirs(d)
        if isinstance(result, str):
            return result
        folder, z = result
        residual = d.settings.get("init_lora_weights") in ("pissa", "olora")
        bound = 1e-4 if residual else 1e-5
        try:
            self.note(d, "written by peft", difference(self.ours(d, folder), z), bound)
        except Refused as e:
            self.refuse(d, "forward", e)
            return ""
        try:
            self.merged(d, folder, z, "written by peft", 2 * bound)
        except Refused as e:
            self.refuse(d, "merge", e)
        if d.method == "adalora":
            return ""
        try:
            self.note(d, "two steps", self.steps(d, folder), 1e-2 if residual else 2e-3)
        except Refused as e:
            self.refuse(d, "train", e)
        return ""

    def to_peft(self, d):
        out = self.path("ours")
        try:
            run("train", "--model", self.path(d.family), "--data", self.path("data.jsonl"), "--format", "tokens", *d.words,
                "--lr", "0.05", "--max-steps", "2", "--batch-size", "2", "--no-store", "--out", out, "--overwrite")
        except Refused as e:
            self.refuse(d, "train anew", e)
            return
        try:
            model, bad = self.loaded(d, out)
        except (ValueError, TypeError, RuntimeError, KeyError) as e:
            self.failed += 1
            print(f"FAIL  {d.text()}\n      peft cannot load what was written here: {str(e)[:300]}", flush=True)
            return
        if bad:
            self.failed += 1
            print(f"FAIL  {d.text()}\n      peft: {bad[0][:300]}", flush=True)
        z = logits(model)
        if not torch.isfinite(z).all():  # DoRA on a head whose padding row is 0
            self.refuse(d, "written here", "peft: not finite")
            return
        self.note(d, "written here", difference(self.ours(d, out), z), 1e-5)


def main(draws, first):
    with tempfile.TemporaryDirectory() as folder:
        place, tried, skipped = Place(folder), 0, {}
        warnings.simplefilter("ignore")
        for seed in range(first, first + draws):
            d = Draw(seed)
            try:
                why = place.from_peft(d)
                if why:
                    skipped[why[:100]] = skipped.get(why[:100], 0) + 1
                    continue
                tried += 1
                place.to_peft(d)
            except (AssertionError, Refused, RuntimeError, OSError) as e:
                place.failed += 1
                print(f"FAIL  {d.text()}\n      {type(e).__name__}: {str(e)[:300]}", flush=True)
        for key in sorted(place.worst):
            print(f"{key[0]:8} {key[1]:46} {place.counts[key]:4} compared, worst {place.worst[key]:.2g}")
        for text, seen in sorted(place.refused.items()):
            print(f"refused {len(seen):3}  ({seen[0][0]}; {seen[0][1].split(':')[0]}) {text}")
        for why, n in sorted(skipped.items()):
            print(f"peft itself refuses {n:3}: {why}")
        print(f"{tried} configurations, {place.failed} failures")
        return place.failed


print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
sys.exit(1 if main(int(sys.argv[2]) if len(sys.argv) > 2 else 60, int(sys.argv[3]) if len(sys.argv) > 3 else 1) else 0)
