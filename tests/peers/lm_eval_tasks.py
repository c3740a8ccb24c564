#!/usr/bin/env python3
"""The tasks of lm-evaluation-harness and of balora on the same items with the same model, side by side.

usage: lm_eval_tasks.py BALORA GGUF HF_FOLDER DATA OUT [TASK=ITEMS ...]
  HF_FOLDER  the GGUF file's weights as f32, with a tokenizer that splits digits as the GGUF file's does
  DATA       the folder that balora's --data names
  OUT        what both write, and table.md
lm-eval's own task files are used; only where they read their data is changed, to local files (no network).
SPDX-License-Identifier: Apache-2.0"""
import csv
import glob
import gzip
import json
import os
import re
import subprocess
import sys
import time

ITEMS = {"sst2": 100, "cola": 100, "mrpc": 100, "qnli": 100, "rte": 100, "mnli": 100, "wnli": 71, "anli_r1": 50,
         "crows_pairs_english": 60, "bbq_age": 40, "bbq_religion": 40, "wikitext": 4, "hendrycks_math500": 8,
         "gsm8k": 50, "humaneval": 8, "mbpp": 8}
GENERATE = {"gsm8k": 128, "hendrycks_math500": 128, "humaneval": 128, "mbpp": 128}  # new tokens
SHOTS = {"gsm8k": 0, "mbpp": 3}


def lines(path):
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def table(path, columns=None):
    with open(path, encoding="utf-8-sig", newline="\n") as f:
        rows = [line.rstrip("\n").split("\t") for line in f]
    names = columns or rows.pop(0)
    return [dict(zip(names, row)) for row in rows]


def number(rows, names=None):
    """Labels as the published sets have them."""
    for i, row in enumerate(rows):
        row["label"] = names.index(row["label"]) if names else int(row["label"])
        row["idx"] = i
    return rows


def pages(path):
    """The articles of a WikiText file: each begins at a heading of the first level."""
    out, text = [], open(path, encoding="utf-8").read()
    for line in text.splitlines(keepends=True):
        if re.fullmatch(r" = [^=].*[^=] = ?\n", line) or not out:
            out.append("")
        out[-1] += line
    return [{"page": page} for page in out if page.strip()]


def rows_of(task, data):
    glue, nli = data + "/glue/", ["entailment", "neutral", "contradiction"]
    two = ["entailment", "not_entailment"]
    if task == "sst2":
        return number(table(glue + "SST-2/dev.tsv"))
    if task == "cola":
        return number(table(glue + "CoLA/dev.tsv", ["source", "label", "star", "sentence"]))
    if task == "mrpc":
        return number([{"sentence1": r["#1 String"], "sentence2": r["#2 String"], "label": r["Quality"]}
                       for r in table(glue + "MRPC/dev.tsv")])
    if task in ("qnli", "rte"):
        return number(table(glue + task.upper() + "/dev.tsv"), two)
    if task == "wnli":
        return number(table(glue + "WNLI/dev.tsv"))
    if task == "mnli":
        return number(lines(glue + "MNLI/dev_matched.jsonl"), nli)
    if task == "anli_r1":
        return number([r for r in lines(data + "/anli/test.jsonl") if r["tag"] == "r1_test"], nli)
    if task == "crows_pairs_english":
        with open(data + "/crows_pairs/crows_pairs_anonymized.csv", encoding="utf-8", newline="") as f:
            return [{k: r[k] for k in ("sent_more", "sent_less", "stereo_antistereo", "bias_type")}
                    for r in csv.DictReader(f)]
    if task == "bbq_age":
        return lines(data + "/bbq/Age.jsonl.gz")
    if task == "bbq_religion":
        return lines(data + "/bbq/Religion.jsonl")
    if task == "wikitext":
        return pages(data + "/corpora/wikitext-2-raw-test.txt")
    if task == "hendrycks_math500":
        return lines(data + "/math/MATH-500.jsonl")
    if task == "humaneval":
        return lines(data + "/humaneval/HumanEval.jsonl")
    if task == "mbpp":
        return [r for r in lines(data + "/mbpp/mbpp.jsonl") if 11 <= r["task_id"] <= 510]
    return lines(data + "/gsm8k/test.jsonl")


def write_task(task, data, folder):
    """A task file that includes lm-eval's own and reads a local file."""
    import lm_eval.tasks
    base = os.path.dirname(lm_eval.tasks.__file__)
    own = "bbq" if task.startswith("bbq_") else task
    found = [p for p in glob.glob(base + "/**/*.yaml", recursive=True)
             if re.search(r"^task: %s$" % own, open(p, encoding="utf-8").read(), re.M)]
    path = "%s/%s.jsonl" % (folder, task)
    with open(path, "w", encoding="utf-8") as f:
        for row in rows_of(task, data):
            f.write(json.dumps(row) + "\n")
    split = "validation_matched" if task == "mnli" else "validation" if "glue" in found[0] else "test"
    files = {split: path}
    if task == "anli_r1":
        files = {"test_r1": path}
    text = "include: %s\ntask: peer_%s\ndataset_path: json\ndataset_name: null\ndataset_kwargs:\n  data_files:\n" % (
        found[0], task)
    text += "".join("    %s: %s\n" % pair for pair in files.items())
    text += "training_split: null\nfewshot_split: null\n"
    if split == "test":
        text += "validation_split: null\n"
    with open("%s/peer_%s.yaml" % (folder, task), "w", encoding="utf-8") as f:
        f.write(text)


def run_lm_eval(model, tasks, data, out):
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    folder = out + "/tasks"
    os.makedirs(folder, exist_ok=True)
    lm = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=1)
    for task, items in tasks.items():
        done = "%s/lm_eval_%s.json" % (out, task)
        if os.path.exists(done):
            continue
        write_task(task, data, folder)
        code = task in ("humaneval", "mbpp")
        start = time.time()
        found = lm_eval.simple_evaluate(
            model=lm, tasks=["peer_" + task], task_manager=TaskManager(include_path=folder), limit=items,
            num_fewshot=SHOTS.get(task), batch_size=1, log_samples=True, bootstrap_iters=1000, predict_only=code,
            gen_kwargs="max_gen_toks=%d" % GENERATE[task] if task in GENERATE else None, confirm_run_unsafe_code=code)
        keep = {"results": found["results"]["peer_" + task], "samples": found["samples"]["peer_" + task],
                "seconds": time.time() - start}
        with open(done, "w", encoding="utf-8") as f:
            json.dump(keep, f, default=str)
        print(task, "%.0f s" % keep["seconds"], {k: v for k, v in keep["results"].items() if "," in k}, flush=True)


def run_balora(balora, gguf, tasks, data, out):
    for task, items in tasks.items():
        folder = "%s/balora_%s" % (out, task)
        args = [balora, "evaluate", "--model", gguf, "--tasks", task, "--data", data, "--limit", str(items), "--json",
                "--log-samples", folder, "--db", out + "/runs.db", "--quiet", "--resume", "never"]
        if task in GENERATE:
            args += ["--max-gen-toks", str(GENERATE[task])]
        if task in SHOTS:
            args += ["--num-fewshot", str(SHOTS[task])]
        text = subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True).stdout
        with open("%s/balora_%s.json" % (out, task), "w", encoding="utf-8") as f:
            f.write(text)


def texts(sample):
    """An item's answers: log-likelihoods, or the text."""
    resps = sample["resps"]
    first = resps[0][0]
    if isinstance(first, str):
        return first
    return [float(r[0][0]) if isinstance(r[0], (list, tuple)) else float(r[0]) for r in resps]


def prompts(sample):
    """The (context, continuation) pairs, or the prompt."""
    arguments = sample["arguments"]
    if isinstance(arguments, dict):
        arguments = [[a["arg_0"], a.get("arg_1")] for a in arguments.values()]
    return [[a for a in pair if isinstance(a, str)] for pair in arguments]


def compare(task, out):
    """One row of the table, and lines about what differs."""
    with open("%s/lm_eval_%s.json" % (out, task), encoding="utf-8") as f:
        theirs = json.load(f)
    with open("%s/balora_%s.json" % (out, task), encoding="utf-8") as f:
        ours = json.load(f)["results"][task]
    mine = {}
    for s in lines("%s/balora_%s/samples_%s.jsonl" % (out, task, task)):
        mine.setdefault(s["doc_id"], s)
    n = same_prompt = same_text = 0
    worst, other = 0.0, []
    for s in theirs["samples"]:
        m = mine.get(s["doc_id"])
        if m is None or s["doc_id"] in [o[0] for o in other]:
            continue
        if s.get("filter") not in (theirs["samples"][0].get("filter"), None):
            continue
        n += 1
        same_prompt += prompts(s) == prompts(m)
        a, b = texts(s), texts(m)
        if isinstance(a, str):
            same_text += a == b
            if a != b:
                other.append((s["doc_id"], a, b))
        else:
            difference = max(abs(x - y) for x, y in zip(a, b)) if len(a) == len(b) else float("inf")
            worst = max(worst, difference)
    figures = []
    for key, value in theirs["results"].items():
        if "," in key and "_stderr" not in key and key in ours and isinstance(value, float):
            figures.append("%s %.4f / %.4f" % (key, value, ours[key]))
    what = "%d texts of %d equal" % (same_text, n) if task in GENERATE else "largest difference of a sum %.1e" % worst
    row = "| %s | %d | %d of %d | %s | %s |" % (task, n, same_prompt, n, what, "; ".join(figures) or "-")
    return row, ["%s %d:\n  lm-eval: %r\n  balora:  %r" % (task, i, a, b) for i, a, b in other]


def main():
    balora, gguf, model, data, out = (os.path.abspath(a) for a in sys.argv[1:6])
    tasks = dict(ITEMS)
    if len(sys.argv) > 6:
        tasks = {a.split("=")[0]: int(a.split("=")[1]) if "=" in a else ITEMS[a] for a in sys.argv[6:]}
    os.makedirs(out, exist_ok=True)
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_ALLOW_CODE_EVAL="1",
                      TOKENIZERS_PARALLELISM="false", HF_DATASETS_CACHE=out + "/datasets")
    run_lm_eval(model, tasks, data, out)
    run_balora(balora, gguf, tasks, data, out)
    rows, notes = ["| task | items | prompts equal | answers | figures: lm-eval / balora |", "|---|---:|---|---|---|"], []
    for task in tasks:
        row, more = compare(task, out)
        rows.append(row)
        notes += more
    text = "\n".join(rows) + "\n\n" + "\n".join(notes) + "\n"
    with open(out + "/table.md", "w", encoding="utf-8") as f:
        f.write(text)
    print(text)


if __name__ == "__main__":
    main()
