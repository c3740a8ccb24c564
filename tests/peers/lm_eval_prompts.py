#!/usr/bin/env python3
"""Prompts of random items, numbers of examples, seeds, conversation forms, system messages: lm-evaluation-harness's and
what `balora evaluate --show` prints must be the same characters.

usage: lm_eval_prompts.py BALORA DATA OUT TOKENIZER[,TOKENIZER...] [PROMPTS_A_TASK [SEED]]
  DATA       the folder that balora's --data names (gsm8k, glue, mbpp, humaneval, math, bbq: what is missing is left out)
  TOKENIZER  folders with tokenizer.json and a chat template
SPDX-License-Identifier: Apache-2.0"""
import gzip
import json
import os
import random
import shutil
import subprocess
import sys

from lm_eval_scores import base, read_lines
from lm_eval_tasks import number, table

NLI = ["entailment", "neutral", "contradiction"]
TWO = ["entailment", "not_entailment"]


def mrpc(path):
    return number([{"sentence1": r["#1 String"], "sentence2": r["#2 String"], "label": r["Quality"]} for r in table(path)])


def made_up(folder):
    """Small sets in the layouts of HellaSwag, ARC, MMLU, ANLI, with strange texts and rows that occur twice."""
    r = random.Random(5)
    odd = ["  the cat", "ÉCOLE [title] x", "a [b] c  d", "{{x}}", "{x}", "\u00a0end\u00a0", "tab\there", "quote \" '", "é", "line\nline ", "."]

    def text():
        return " ".join(r.choice(odd + ["sun", "Moon.", "is", "42"]) for _ in range(r.randrange(1, 6)))
    sets = {"hellaswag/hellaswag_%s.jsonl": ("train", "val", lambda: {"activity_label": text(), "ctx_a": text(), "ctx_b": text(),
                                                                      "endings": [text() for _ in range(4)], "label": str(r.randrange(4))}),
            "arc/ARC-Easy-%s.jsonl": ("Train", "Test", lambda: {"question": text(), "choices": {"text": [text() for _ in range(4)],
                                                                                               "label": list("ABCD")}, "answerKey": r.choice("ABCD")}),
            "mmlu/%s.jsonl": ("dev", "test", lambda: {"question": text(), "choices": [text() for _ in range(4)], "answer": r.randrange(4),
                                                      "subject": "anatomy"})}
    for name, (train, test, make) in sets.items():
        os.makedirs(folder + "/" + name.split("/")[0], exist_ok=True)
        for split, n in ((train, 30), (test, 20)):
            rows = [make() for _ in range(n)]
            with open(folder + "/" + name % split, "w", encoding="utf-8") as f:
                for row in rows + rows[:3]:
                    f.write(json.dumps(row) + "\n")


def sets(data, own):
    """task: (lm-eval's file, {split: rows}, the data folder)."""
    glue = data + "/glue/"
    out = {}

    def add(task, yaml, splits, folder=data):
        try:
            out[task] = (yaml, {k: v() for k, v in splits.items()}, folder)
        except FileNotFoundError as e:
            print("left out: %s (%s)" % (task, e.filename))
    gsm = {"train": lambda: read_lines(data + "/gsm8k/train.jsonl"), "test": lambda: read_lines(data + "/gsm8k/test.jsonl")}
    add("gsm8k", "gsm8k/gsm8k.yaml", gsm)
    add("gsm8k_cot", "gsm8k/gsm8k-cot.yaml", gsm)
    add("gsm8k_cot_zeroshot", "gsm8k/gsm8k-cot-zeroshot.yaml", gsm)
    add("gsm8k_cot_llama", "gsm8k/gsm8k-cot-llama.yaml", gsm)
    add("gsm8k_cot_self_consistency", "gsm8k/gsm8k-cot-self-consistency.yaml", gsm)
    for task, folder in (("sst2", "SST-2"), ("wnli", "WNLI")):
        add(task, "glue/%s/default.yaml" % task, {"train": lambda f=folder: number(table(glue + f + "/train.tsv")),
                                                  "validation": lambda f=folder: number(table(glue + f + "/dev.tsv"))})
    cola = ["source", "label", "star", "sentence"]
    add("cola", "glue/cola/default.yaml", {"train": lambda: number(table(glue + "CoLA/train.tsv", cola)),
                                           "validation": lambda: number(table(glue + "CoLA/dev.tsv", cola))})
    add("rte", "glue/rte/default.yaml", {"train": lambda: number(table(glue + "RTE/train.tsv"), TWO),
                                         "validation": lambda: number(table(glue + "RTE/dev.tsv"), TWO)})
    add("mrpc", "glue/mrpc/default.yaml", {"train": lambda: mrpc(glue + "MRPC/train.tsv"), "validation": lambda: mrpc(glue + "MRPC/dev.tsv")})
    add("mbpp", "mbpp/mbpp.yaml", {"test": lambda: [x for x in read_lines(data + "/mbpp/mbpp.jsonl") if 11 <= x["task_id"] <= 510]})
    human = {"test": lambda: read_lines(data + "/humaneval/HumanEval.jsonl")}
    add("humaneval", "humaneval/humaneval.yaml", human)
    add("humaneval_instruct", "humaneval/humaneval_instruct.yaml", human)
    add("hellaswag", "hellaswag/hellaswag.yaml", {"train": lambda: read_lines(own + "/hellaswag/hellaswag_train.jsonl"),
                                                  "validation": lambda: read_lines(own + "/hellaswag/hellaswag_val.jsonl")}, own)
    add("arc_easy", "arc/arc_easy.yaml", {"train": lambda: read_lines(own + "/arc/ARC-Easy-Train.jsonl"),
                                          "test": lambda: read_lines(own + "/arc/ARC-Easy-Test.jsonl")}, own)
    add("mmlu", "mmlu/default/mmlu_anatomy.yaml", {"dev": lambda: read_lines(own + "/mmlu/dev.jsonl"),
                                                   "test": lambda: read_lines(own + "/mmlu/test.jsonl")}, own)
    return out


def make_task(task, yaml, splits, folder):
    from lm_eval.tasks import TaskManager, get_task_dict
    where = "%s/%s" % (folder, task)
    os.makedirs(where, exist_ok=True)
    text = "include: %s/%s\ntask: peer_%s\ndataset_path: json\ndataset_name: null\ntag: null\ndataset_kwargs:\n  data_files:\n" % (base(), yaml, task)
    for split, rows in splits.items():
        path = "%s/%s.jsonl" % (where, split)
        with open(path, "w", encoding="utf-8") as f:
            for row in rows:
                f.write(json.dumps(row) + "\n")
        text += "    %s: %s\n" % (split, path)
    for key in ("training_split", "validation_split"):
        with open("%s/%s" % (base(), yaml), encoding="utf-8") as f:
            named = {line.split(":")[0]: line.split(":")[1].strip() for line in f if line.startswith(key)}
        if named.get(key, "null") not in splits:
            text += key + ": null\n"
    with open("%s/peer_%s.yaml" % (where, task), "w", encoding="utf-8") as f:
        f.write(text)
    return get_task_dict(["peer_" + task], TaskManager(include_path=where))["peer_" + task]


def template_of(tokenizer):
    """lm_eval.models.huggingface's apply_chat_template."""
    import jinja2

    def apply(history, add_generation_prompt=True):
        def render(h):
            return tokenizer.apply_chat_template(h, tokenize=False, add_generation_prompt=add_generation_prompt,
                                                 continue_final_message=not add_generation_prompt)
        try:
            return render(history)
        except jinja2.exceptions.TemplateError:
            return render([m for m in history if m["role"] != "system"])
    return apply


def theirs(task, item, c, template):
    """The (context, continuation) pairs of an item."""
    task.set_config(key="num_fewshot", value=c["shots"])
    task.set_fewshot_seed(seed=c["seed"])
    out = None
    for i, doc in zip(range(item + 1), task.eval_docs):
        context = task.fewshot_context(doc, num_fewshot=c["shots"], system_instruction=c["system"], apply_chat_template=c["chat"],
                                       fewshot_as_multiturn=c["turns"], chat_template=template if c["chat"] else None,
                                       gen_prefix=task.doc_to_prefix(doc))
        if i == item:
            out = task.construct_requests(doc=doc, ctx=context, apply_chat_template=c["chat"], metadata=(None, i, 1))
    pairs = out if isinstance(out, list) else [out]
    return [[a for a in p.args if isinstance(a, str)] for p in pairs]


def ours(balora, task, item, c, data, tokenizer):
    args = [balora, "evaluate", "--show", task, "--item", str(item), "--data", data, "--json", "--num-fewshot", str(c["shots"]),
            "--fewshot-seed", str(c["seed"])]
    if c["system"] is not None:
        args += ["--system-instruction", c["system"]]
    if c["chat"]:
        args += ["--apply-chat-template", "--tokenizer", tokenizer, "--fewshot-as-multiturn=%s" % ("true" if c["turns"] else "false")]
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return "balora: " + done.stderr.strip()
    shown = json.loads(done.stdout)
    return [[q["context"], q["continuation"]] for q in shown["requests"]] or [[shown["prompt"]]]


def unpacked(path, folder):
    """A tokenizer's folder as transformers reads it."""
    if not os.path.exists(path + "/tokenizer.json.gz"):
        return path
    to = folder + "/tokenizer-" + os.path.basename(path.rstrip("/"))
    shutil.copytree(path, to, dirs_exist_ok=True, copy_function=shutil.copyfile)
    with gzip.open(path + "/tokenizer.json.gz") as a, open(to + "/tokenizer.json", "wb") as b:
        shutil.copyfileobj(a, b)
    return to


def main():
    balora, data, folder = (os.path.abspath(a) for a in sys.argv[1:4])
    n = int(sys.argv[5]) if len(sys.argv) > 5 else 40
    r = random.Random(int(sys.argv[6]) if len(sys.argv) > 6 else 1)
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_CACHE=folder + "/datasets",
                      HF_ALLOW_CODE_EVAL="1")
    import evaluate
    from transformers import AutoTokenizer

    class NoPrograms:  # lm-eval's code tasks load it when they are read
        def compute(self, **given):
            return {"pass@1": 0}, {}
    evaluate.load = lambda name: NoPrograms()
    os.makedirs(folder, exist_ok=True)
    made_up(folder + "/made_up")
    templates = {}
    for path in sys.argv[4].split(","):
        tokenizer = AutoTokenizer.from_pretrained(unpacked(path, folder))
        if tokenizer.chat_template:
            templates[path] = template_of(tokenizer)
    count = different = 0
    for task, (yaml, splits, where) in sets(data, folder + "/made_up").items():
        peer = make_task(task, yaml, splits, folder)
        wrong = refused = 0
        test = len(peer.eval_docs)
        for _ in range(n):
            item = r.randrange(min(test, 60))
            tokenizer = r.choice(list(templates))
            c = {"shots": r.choice([0, 0, 1, 2, 3, 5, 8]), "seed": r.choice([1234, 1234, r.randrange(1 << 32)]), "chat": r.random() < 0.6,
                 "turns": r.random() < 0.6, "system": r.choice([None, None, "Be brief.", "Be brief.\n", "", "é {x} %s"])}
            if task in ("mbpp", "gsm8k_cot_zeroshot", "humaneval", "humaneval_instruct", "gsm8k_cot_self_consistency", "gsm8k_cot"):
                c["shots"] = 0 if task.startswith("humaneval") or task.endswith("zeroshot") else r.choice([0, 1, 2, 3])
            try:
                want = theirs(peer, item, c, templates[tokenizer])
            except Exception as e:  # what it cannot ask, we may refuse
                refused += 1
                print("  lm-eval: %s %r: %s" % (task, c, str(e)[:200]))
                continue
            got = ours(balora, task, item, c, where, tokenizer)
            count += 1
            if got != want:
                wrong += 1
                if wrong <= 3:
                    print("  %s item %d %r %s\n    lm-eval %r\n    balora  %r" % (task, item, c, os.path.basename(tokenizer), want[:2], got[:2]))
        different += wrong
        print("%-28s %4d prompts, %d different, %d that lm-eval refuses" % (task, n - refused, wrong, refused), flush=True)
    print("%d prompts compared, %d different" % (count, different))
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
