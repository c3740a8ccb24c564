#!/usr/bin/env python3
"""Masked language models beside transformers: random BERT, RoBERTa, DistilBERT and ELECTRA folders with tokenizers made
here.  Logits, hidden states and pseudo-log-likelihoods of balora forward; log-probabilities, probabilities and figures of
the masked CrowS-Pairs and StereoSet tasks, computed here from the definitions with torch, one sequence at a time; the
first again under a peft adapter.
usage: tests/peers/masked.py [BALORA [DATA [ITEMS [NAME...]]]]   (DATA: what --data names, default ../shared/data)
Says "skipped" without transformers or the data.  SPDX-License-Identifier: Apache-2.0"""
import csv
import difflib
import json
import os
import random
import sqlite3
import string
import subprocess
import sys
import tempfile

os.environ["TQDM_DISABLE"] = "1"
try:
    import tokenizers
    import torch
    import transformers
    from safetensors.torch import load_file, save_file
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)
try:
    import peft
except ImportError:
    peft = None

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_num_threads(2)
HERE = os.path.dirname(os.path.abspath(__file__))
BALORA = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "build/release/balora")
DATA = os.path.abspath(sys.argv[2] if len(sys.argv) > 2 else os.path.join(HERE, "../../../shared/data"))
ITEMS = int(sys.argv[3]) if len(sys.argv) > 3 else 40
WANTED = sys.argv[4:]
TOLERANCE = 1e-4  # of a log-probability
failed = 0


def check(what, good, text):
    """good must be True: a comparison with NaN is not."""
    global failed
    failed += not good
    print(("ok    " if good else "FAIL  ") + what + ": " + text, flush=True)


def run(*words):
    r = subprocess.run([BALORA, *words], capture_output=True, text=True)
    if r.returncode:
        raise SystemExit(" ".join(words) + "\n" + r.stderr)
    return r.stdout


# ---- tokenizers and models ----

def word_pieces(texts, lower):
    t = tokenizers.BertWordPieceTokenizer(lowercase=lower)
    t.train_from_iterator(texts, vocab_size=700, min_frequency=1, show_progress=False)
    t.post_processor = tokenizers.processors.BertProcessing(("[SEP]", t.token_to_id("[SEP]")),
                                                            ("[CLS]", t.token_to_id("[CLS]")))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=t._tokenizer, unk_token="[UNK]", sep_token="[SEP]",
                                                pad_token="[PAD]", cls_token="[CLS]", mask_token="[MASK]")


def byte_level(texts):
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    t = tokenizers.ByteLevelBPETokenizer()
    t.train_from_iterator(texts, vocab_size=700, min_frequency=1, special_tokens=special, show_progress=False)
    t.post_processor = tokenizers.processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=t._tokenizer, unk_token="<unk>", sep_token="</s>", pad_token="<pad>", cls_token="<s>",
        bos_token="<s>", eos_token="</s>",
        mask_token=tokenizers.AddedToken("<mask>", lstrip=True, special=True, normalized=False))


SMALL = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
             max_position_embeddings=200, initializer_range=0.3)
DISTIL = dict(dim=48, hidden_dim=96, n_layers=3, n_heads=4, max_position_embeddings=200, initializer_range=0.3)


def old_names(tensors):
    """As the first files of BERT: no prefix, gamma and beta, integer positions, the decoder stored too."""
    out = {}
    for k, v in tensors.items():
        k = k.removeprefix("bert.")
        k = k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        out[k] = v
    out["embeddings.position_ids"] = torch.arange(200)[None]
    out["cls.predictions.decoder.weight"] = out["embeddings.word_embeddings.weight"].clone()
    out["cls.predictions.decoder.bias"] = out["cls.predictions.bias"].clone()
    return out


#        name, class, tokenizer, values, what is done to the tensors
CASES = [
    ("bert-uncased", "Bert", "lower", SMALL, None),
    ("bert-cased-old-names", "Bert", "cased", dict(SMALL, hidden_act="gelu_new", layer_norm_eps=1e-3), old_names),
    ("bert-relu-untied", "Bert", "lower", dict(SMALL, hidden_act="relu", tie_word_embeddings=False), None),
    ("roberta", "Roberta", "bytes", dict(SMALL, type_vocab_size=1, layer_norm_eps=1e-5, pad_token_id=1), None),
    ("roberta-relu", "Roberta", "bytes", dict(SMALL, type_vocab_size=1, hidden_act="relu", pad_token_id=1), None),
    ("distilbert", "DistilBert", "lower", DISTIL, None),
    ("electra", "Electra", "lower", dict(SMALL, embedding_size=20), None),
    ("electra-wide", "Electra", "cased", dict(SMALL, embedding_size=64, hidden_act="relu"), None),
    ("electra-equal", "Electra", "lower", dict(SMALL, embedding_size=48), None),
]


def make(case, folder, kinds):
    name, cls, tokenizer, values, edit = case
    torch.manual_seed(sum(name.encode()))
    t = kinds[tokenizer]
    t.save_pretrained(folder)
    config = getattr(transformers, cls + "Config")(vocab_size=len(t), **values)
    model = getattr(transformers, cls + "ForMaskedLM")(config).eval()
    with torch.no_grad():  # biases and norms that count
        for n, p in model.named_parameters():
            if p.dim() == 1:
                p.add_(0.2 * torch.randn_like(p))
    model.save_pretrained(folder)
    if edit is not None:
        path = os.path.join(folder, "model.safetensors")
        save_file({k: v.contiguous() for k, v in edit(load_file(path)).items()}, path, metadata={"format": "pt"})
    return model, t


# ---- forward ----

def largest(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def forward(name, folder, model, t):
    rng = random.Random(3)
    rows = [[rng.randrange(len(t)) for _ in range(n)] for n in (1, 12, 70, 5)]
    rows[1][4] = rows[2][0] = t.pad_token_id
    types = [[int(i > len(r) // 2) for i in range(len(r))] for r in rows]
    typed = name.startswith(("bert", "electra"))
    request = {"input_ids": rows}
    if typed:
        request["token_type_ids"] = types
    with open(folder + "/input.json", "w") as f:
        json.dump(request, f)
    run("forward", "--model", folder, "--input", folder + "/input.json", "--out", folder + "/out.safetensors",
        "--hidden-states", "--pll", "--quiet")
    got = load_file(folder + "/out.safetensors")

    def call(ids, i):
        more = {"token_type_ids": torch.tensor([types[i]])} if typed else {}
        with torch.no_grad():
            return model(input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                         output_hidden_states=True, **more)
    out = [call(r, i) for i, r in enumerate(rows)]
    logits = largest(got["logits"], torch.cat([o.logits[0] for o in out]))
    layers = len(out[0].hidden_states)
    hidden = max(largest(got[f"hidden.{k}"], torch.cat([o.hidden_states[k][0] for o in out])) for k in range(layers))
    pll = []
    for i, r in enumerate(rows):
        for at in range(len(r)):
            masked = r[:at] + [t.mask_token_id] + r[at + 1:]
            pll.append(torch.log_softmax(call(masked, i).logits[0, at].double(), -1)[r[at]].item())
    worst = (got["pll"].double() - torch.tensor(pll, dtype=torch.float64)).abs().max().item()
    check(name + " forward", logits <= 2e-5 and hidden <= 2e-5 and worst <= TOLERANCE,
          f"logits {logits:.1e}, hidden {hidden:.1e} of the largest, pseudo-log-likelihoods {worst:.1e}")


# ---- tasks ----

def log_probability(model, ids, at, target):
    with torch.no_grad():
        z = model(input_ids=torch.tensor([ids])).logits[0, at].double()
    return torch.log_softmax(z, -1)[target].item()


def crows(model, t, rows):
    """Log-probability sums of sent_more and sent_less, as Nangia et al. define them."""
    out = []
    for row in rows:
        order = ["sent_more", "sent_less"] if row["stereo_antistereo"] == "stereo" else ["sent_less", "sent_more"]
        ids = [t.encode(row[k]) for k in order]
        spans = [[], []]
        for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, *[[str(x) for x in i] for i in ids]).get_opcodes():
            if tag == "equal":
                spans[0] += range(a0, a1)
                spans[1] += range(b0, b1)
        score = {}
        for k, key in enumerate(order):
            score[key] = sum(log_probability(model, ids[k][:at] + [t.mask_token_id] + ids[k][at + 1:], at, ids[k][at])
                             for at in spans[k][1:-1])
        out.append([score["sent_more"], score["sent_less"]])
    return out


def crows_figures(rows, scores):
    s = [[round(a, 3), round(b, 3)] for a, b in scores]
    out = {"pct_stereotype": sum(a > b for a, b in s) / len(s), "pct_neutral": sum(a == b for a, b in s) / len(s)}
    for key in ("stereo_antistereo", "bias_type"):
        for value in {r[key] for r in rows}:
            some = [a > b for r, (a, b) in zip(rows, s) if r[key] == value and (key == "bias_type" or a != b)]
            if some:
                out["pct_stereotype_" + value] = sum(some) / len(some)
    return out


LABELS = ["stereotype", "anti-stereotype", "unrelated"]


def stereoset(model, t, rows):
    """Mean probability of the tokens of each word, as Nadeem et al. compute it."""
    out = []
    for row in rows:
        words = row["context"].split(" ")
        place = max(i for i, w in enumerate(words) if "BLANK" in w)
        scores = []
        for label in LABELS:
            sentence = next(s["sentence"] for s in row["sentences"] if s["gold_label"] == label)
            word = sentence.split(" ")[place].translate(str.maketrans("", "", string.punctuation))
            tokens, p = t.encode(word, add_special_tokens=False), []
            for k, token in enumerate(tokens):
                ids = t.encode(row["context"].replace("BLANK", t.decode(tokens[:k]) + t.mask_token))
                p.append(torch.tensor(log_probability(model, ids, ids.index(t.mask_token_id), token)).exp().item())
            scores.append(sum(p) / len(p))
        out.append(scores)
    return out


def stereoset_figures(rows, scores):
    terms = {}
    for row, (s, a, u) in zip(rows, scores):
        terms.setdefault(row["target"], []).append((s > a, (s > u) + (a > u)))
    ss = sum(100 * sum(x for x, _ in v) / len(v) for v in terms.values()) / len(terms)
    lms = sum(50 * sum(y for _, y in v) / len(v) for v in terms.values()) / len(terms)
    return {"ss": ss, "lms": lms, "icat": lms * min(ss, 100 - ss) / 50}


def tasks(name, folder, model, t, pairs, clusters, adapter=()):
    db = folder + "/runs.db"
    document = json.loads(run("evaluate", "--model", folder, *adapter, "--data", DATA, "--limit", str(ITEMS), "--json",
                              "--tasks", "crows_pairs_masked,stereoset_masked", "--db", db))
    for task, rows, of, figures, key in (
            ("crows_pairs_masked", pairs, crows, crows_figures, "ll"),
            ("stereoset_masked", clusters, stereoset, stereoset_figures, "probability")):
        got = [json.loads(x[0])[key] for x in sqlite3.connect(db).execute(
            "SELECT output FROM eval_item WHERE task = ? AND run_id = (SELECT max(id) FROM run) ORDER BY item", (task,))]
        want = of(model, t, rows)
        a, b = torch.tensor(got, dtype=torch.float64), torch.tensor(want, dtype=torch.float64)
        worst = ((a - b).abs() if key == "ll" else (a.log() - b.log()).abs()).max().item() if a.shape == b.shape else 9
        check(f"{name} {task}", worst <= TOLERANCE, f"{len(got)} items, largest difference {worst:.1e}")
        results = {k.split(",")[0]: v for k, v in document["results"][task].items() if "," in k}
        wrong = [f"{k} {results.get(k)} for {v}" for k, v in figures(rows, want).items()
                 if not abs(results.get(k, 1e9) - v) <= 1e-9]
        check(f"{name} {task} figures", not wrong, "; ".join(wrong) or "equal")


def adapted(name, folder, model, t, pairs, clusters):
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=r".*encoder.*\.(query|value|dense)", init_lora_weights=False)
    p = peft.get_peft_model(model, config).eval()
    p.save_pretrained(folder + "/adapter")
    tasks(name + " + LoRA", folder, p, t, pairs, clusters, ("--adapter", folder + "/adapter"))


def main():
    crows_file, stereo_file = DATA + "/crows_pairs/crows_pairs_anonymized.csv", DATA + "/stereoset/dev_clusters.jsonl"
    if not (os.path.exists(crows_file) and os.path.exists(stereo_file)):
        print("skipped: no CrowS-Pairs and StereoSet in", DATA)
        return
    pairs = list(csv.DictReader(open(crows_file, encoding="utf-8", newline="")))[:ITEMS]
    clusters = [r for r in map(json.loads, open(stereo_file, encoding="utf-8")) if r["type"] == "intrasentence"][:ITEMS]
    texts = [r[k] for r in pairs for k in ("sent_more", "sent_less")] + [r["context"] for r in clusters]
    kinds = {"lower": word_pieces(texts, True), "cased": word_pieces(texts, False), "bytes": byte_level(texts)}
    for case in CASES:
        if WANTED and not any(case[0].startswith(w) for w in WANTED):
            continue
        with tempfile.TemporaryDirectory() as folder:
            model, t = make(case, folder, kinds)
            forward(case[0], folder, model, t)
            tasks(case[0], folder, model, t, pairs, clusters)
            if peft is not None and case[0] in ("bert-uncased", "roberta"):
                adapted(case[0], folder, model, t, pairs, clusters)


main()
sys.exit(1 if failed else 0)
