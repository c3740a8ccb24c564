#!/usr/bin/env python3
"""Random answers judged by lm-evaluation-harness's own functions and by balora, without a model: filters, metrics,
aggregations, standard errors.

usage: lm_eval_scores.py BALORA DATA OUT [ANSWERS [SEED]]
  DATA     the folder that balora's --data names (bbq/, crows_pairs/; parts whose files are missing are left out)
  OUT      a folder for the files that both read
Outputs are put into a run database, `balora evaluate --rescore` judges them; rules go through `balora score`.  Ends
with status 1 if anything differs.  SPDX-License-Identifier: Apache-2.0"""
import gzip
import hashlib
import importlib.util
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import time

import yaml

DIFFERENT, COUNTS = [], {}


def note(part, n, wrong):
    COUNTS[part] = COUNTS.get(part, 0) + n
    DIFFERENT.extend("%s: %s" % (part, w) for w in wrong)
    print("%-34s %6d compared, %d different" % (part, n, len(wrong)), flush=True)
    for w in wrong[:5]:
        print("   ", w)


def near(a, b):
    if isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b):
        return True
    return a is not None and b is not None and abs(a - b) <= 1e-9 * max(1, abs(a), abs(b))


# --- lm-eval's side ---

def base():
    import lm_eval.tasks
    return os.path.dirname(lm_eval.tasks.__file__)


def load(path):
    """A module of lm-eval's task folders."""
    spec = importlib.util.spec_from_file_location("peer_" + path.replace("/", "_"), "%s/%s" % (base(), path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def config(path):
    """A task's YAML without what names Python functions."""
    class Loader(yaml.SafeLoader):
        pass
    Loader.add_constructor("!function", lambda loader, node: None)
    with open("%s/%s" % (base(), path), encoding="utf-8") as f:
        own = yaml.load(f, Loader)
    if "include" in own:
        own = {**config(os.path.join(os.path.dirname(path), own.pop("include"))), **own}
    return own


def filtered(spec, outputs):
    """What a list of filters makes of the answers of one item."""
    from lm_eval.filters import build_filter_ensemble
    ensemble = build_filter_ensemble(spec["name"], [[f["function"], {k: v for k, v in f.items() if k != "function"}]
                                                    for f in spec["filter"]])
    value = [outputs]
    for f in ensemble.filters:
        value = f().apply(value, [{}])
    return list(value)[0]


def exact_match(prediction, gold, settings):
    from lm_eval.api.metrics import exact_match_hf_evaluate
    keys = ("regexes_to_ignore", "ignore_case", "ignore_punctuation", "ignore_numbers")
    return float(exact_match_hf_evaluate(predictions=[prediction], references=[gold],
                                         **{k: settings[k] for k in keys if k in settings})["exact_match"])


# --- balora's side ---

class Runs:
    """A database with runs of made-up outputs."""

    def __init__(self, balora, folder):
        self.balora, self.folder, self.path = balora, folder, folder + "/runs.db"
        for end in ("", "-wal", "-shm"):
            if os.path.exists(self.path + end):
                os.unlink(self.path + end)
        subprocess.run([balora, "evaluate", "--rescore", "1", "--db", self.path], stderr=subprocess.DEVNULL, check=False)

    def add(self, name, task, outputs, repeats=1, hashes=None):
        """outputs: a list of lists of texts; hashes: of what was asked."""
        db = sqlite3.connect(self.path)
        db.execute("INSERT OR IGNORE INTO experiment(id, name, created_ms) VALUES(1, 'peer', 0)")
        text = json.dumps({"model": None, "repeats": repeats, "tasks": {}})
        run = db.execute("INSERT INTO run(uuid, experiment_id, name, kind, status, start_ms, heartbeat_ms, config) "
                         "VALUES(?, 1, ?, 'evaluate', 'finished', 0, 0, ?)", ("%032x" % random.getrandbits(128), name, text)
                         ).lastrowid
        db.executemany("INSERT INTO eval_item(run_id, task, item, repeat, filter, output, prompt_sha256) "
                       "VALUES(?, ?, ?, ?, 'x', ?, ?)",
                       [(run, task, i, k, o, hashes[i] if hashes else None) for i, out in enumerate(outputs) for k, o in enumerate(out)])
        db.commit()
        db.close()

    def rescore(self, name, tasks, data, more=()):
        """(figures, sample lines by filter)."""
        samples = "%s/samples-%s" % (self.folder, name)
        text = subprocess.run([self.balora, "evaluate", "--rescore", name, "--name", name + "-judged", "--tasks", tasks,
                               "--data", data, "--db", self.path, "--json", "--quiet", "--log-samples", samples, *more],
                              check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        task, = json.loads(text)["results"]
        lines = {}
        with open("%s/samples_%s.jsonl" % (samples, task), encoding="utf-8") as f:
            for line in f:
                row = json.loads(line)
                lines.setdefault(row["filter"], []).append(row)
        return json.loads(text)["results"][task], lines


def score(balora, task, rows, folder):
    path = "%s/score-%s.jsonl" % (folder, task)
    with open(path, "w", encoding="utf-8") as f:
        for i, (output, gold) in enumerate(rows):
            f.write(json.dumps({"id": i, "output": output, "gold": gold}) + "\n")
    text = subprocess.run([balora, "score", "--task", task, "--input", path, "--quiet"], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    out = {}
    for line in text.splitlines():
        row = json.loads(line)
        out.setdefault(row["filter"], {})[row["id"]] = (row["extracted"], row["score"])
    return out


# --- texts ---

PIECES = ["#### ", "####", "The answer is ", "The final answer is ", "the answer is ", "The answer is: ", "A: ", "$", "-", ".", ",",
          "\n", " ", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "\t", "\r\n", "é", "\u03a3", "ΑΣ", "ß", "\ud55c", "🙂", "x", "abc",
          "Answer", "yes", "NO", "(A)", "B", "\u0661\u0662", "1/2", "²", "+", "%", "=", "\\", "\"", "'", "`", "```", "[invalid]"]


def number(r):
    kind = r.randrange(7)
    n = r.choice([0, 1, 5, 18, 29, 100, 1450, 2880000, r.randrange(10 ** r.randrange(1, 9))])
    return [str(n), "{:,}".format(n), "$%d" % n, "-%d" % n, "%.2f" % n, "%d." % n, "$-%d" % n][kind]


def words(r, most=12):
    return "".join(number(r) if r.random() < 0.4 else r.choice(PIECES) for _ in range(r.randrange(most)))


LATEX = ["\\frac", "\\dfrac", "\\tfrac", "{", "}", "1", "2", "34", "x", "y", "\\sqrt", "\\sqrt{2}", "\\left", "\\right", "(", ")", "[", "]", ",",
         "\\boxed{", "\\boxed ", "\\fbox{", "\\text{ cm}", "\\text{", "\\$", "$", "\\%", "%", "^\\circ", "^{\\circ}", "\\!", "\\\\", "\n", " ", ".",
         "0.5", ".5", "/", "=", "k=", "\\pi", "-", "+", "é", "\\frac12", "\\frac{1}{2}", "1/2", "x/2", " .", "{.", "\\;", "\\mathrm{th}"]


def latex(r, most=8):
    return "".join(r.choice(LATEX) for _ in range(r.randrange(most)))


# --- parts ---

def part_rules(balora, folder, n, r):
    """GSM8K's filters by their YAML files."""
    tasks = {"gsm8k": "gsm8k/gsm8k.yaml", "gsm8k_cot": "gsm8k/gsm8k-cot.yaml", "gsm8k_cot_llama": "gsm8k/gsm8k-cot-llama.yaml",
             "gsm8k_cot_zeroshot": "gsm8k/gsm8k-cot-zeroshot.yaml", "gsm8k_cot_self_consistency": "gsm8k/gsm8k-cot-self-consistency.yaml"}
    for task, path in tasks.items():
        own = config(path)
        metric = own["metric_list"][0]
        rows = []
        for _ in range(n):
            gold = number(r).replace("$", "")
            output = words(r) + (r.choice(PIECES[:6]) + r.choice([gold, number(r)]) + r.choice(["", ".", ".\n", " "]) + words(r, 4)
                                 if r.random() < 0.7 else "")
            rows.append((output, r.choice(["Some words.\n#### " + gold, gold])))
        ours, wrong, count = score(balora, task, rows, folder), [], 0
        for spec in own["filter_list"]:
            if spec["name"] not in ours:
                continue
            for i, (output, gold) in enumerate(rows):
                want = filtered(spec, [output])
                want = want[0] if isinstance(want, list) else want
                pair = (want, exact_match(want, gold, metric))
                count += 1
                if ours[spec["name"]][i] != pair:
                    wrong.append("%s %r gold %r: lm-eval %r, balora %r" % (spec["name"], output, gold, pair, ours[spec["name"]][i]))
        note(task, count, wrong)


def part_hendrycks(balora, folder, n, r):
    theirs = load("hendrycks_math/utils.py")
    rows = []
    for _ in range(n):
        gold = latex(r, 5)
        if gold.count("{") != gold.count("}") or "\\boxed" in gold or "\\fbox" in gold:
            gold = "\\frac{1}{%d}" % r.randrange(1, 99)
        body = r.choice([gold, gold.replace(" ", ""), gold.replace("\\frac", "\\dfrac"), latex(r), latex(r)])
        output = r.choice(["%s", "The answer is $%s$", "$x$ and $%s$.", "$%s", "so $%s$ $y$"]) % body
        rows.append((output, "We get $\\boxed{%s}$." % gold))
    ours, wrong = score(balora, "math_hendrycks", rows, folder)["none"], []
    for i, (output, gold) in enumerate(rows):
        try:
            want = float(theirs.process_results({"solution": gold}, [output])["exact_match"])
        except AssertionError:
            continue
        if ours[i][1] != want:
            wrong.append("%r gold %r: lm-eval %r, balora %r" % (output, gold, want, ours[i]))
    note("math_hendrycks", len(rows), wrong)


def minerva_utils():
    """lm-eval's module, which also asks for packages that only its comparison by sympy needs."""
    import importlib.metadata
    import types
    for name in ("antlr4", "math_verify"):
        if name not in sys.modules:
            sys.modules[name] = types.ModuleType(name)
            sys.modules[name].parse = sys.modules[name].verify = None
    own, importlib.metadata.version = importlib.metadata.version, lambda name: "4.11"
    try:
        return load("minerva_math/utils.py")
    finally:
        importlib.metadata.version = own


def part_minerva(balora, folder, n, r):
    """The normal form of minerva_math 3.1, and equality of texts."""
    theirs = minerva_utils()
    parts = LATEX + ["ways", "ft", "cm", " cm", "a ", "an ", "square", "\\sqrt[3]", "\\sqrt[n]8", "1,000", "12,34", ",", "\\text{and}", "\\mbox{x}", "\\infty",
                     "\\left(", "degrees", "\\textbf{b}", "\\overline{c}", "\\mathrm{th}", ",\\!", "{,}", "\"", "_", "é", "\u00a0", "children", "pounds"]
    rows = []
    for _ in range(n):
        gold = "".join(r.choice(parts) for _ in range(r.randrange(1, 6))).replace("\\boxed", "").replace("\\fbox", "")
        if gold.count("{") != gold.count("}"):
            gold = "\\frac%d%d" % (r.randrange(1, 9), r.randrange(1, 9))
        body = r.choice([gold, gold.replace(" ", ""), "x=" + gold, "".join(r.choice(parts) for _ in range(5))])
        rows.append(("So.\nFinal Answer: The final answer is %s. I hope it is correct." % r.choice(["$%s$", "%s"]) % body, "It is $\\boxed{%s}$" % gold))
    ours, wrong = score(balora, "math_minerva", rows, folder)["v3.1"], []
    for i, (output, gold) in enumerate(rows):
        try:
            right = theirs.normalize_final_answer(theirs.remove_boxed(theirs.last_boxed_only_string(gold)))
        except (AssertionError, TypeError):
            continue
        raw = theirs.get_unnormalized_answer(output)
        want = theirs.normalize_final_answer(raw)
        pair = (want, float(want == right and raw != "[invalidanswer]"))
        if ours[i] != pair:
            wrong.append("%r gold %r: lm-eval %r, balora %r" % (output, gold, pair, ours[i]))
    note("math_minerva,v3.1", len(rows), wrong)


PATTERNS = ["(\\d+)", "(-?[0-9.,]+)", "answer is (.*?)[.\\n]", "(?i)(yes|no)", "\\((\\w)\\)", "([A-Z])|(\\d)", "(a*)|(b*)", "(x*)", "\\s(\\S+)\\s",
            "(.*)\\Z", "^(.*)$", "(?m)^(.*)$", "(\\w+)\\W*\\Z", "(?s)A(.*)", "(\\d{,3})$", "[^]\\[]+", "(?P<n>\\d)(?P<m>\\D)?", "\\b(\\w+)\\b", "()|(.)", "é|(ß)",
            "(\\S+)$", "\\w{2,}", "(?<=is )(\\S+)", "([^\\s.]+)\\.?\\s*$"]
IGNORED = [",", "\\$", "(?s).*#### ", "\\.$", "\\s", "[^\\w]", "\\d\\Z", "x*", "^\\s+|\\s+$", "(?i)the answer is:?"]


def part_exact(runs, n, r):
    """exact_match with filters of a task file."""
    for k in range(12):
        filters = [{"name": "f%d" % j, "regex": r.choice(PATTERNS), "select": r.choice([0, -1])} for j in range(3)]
        settings = {"regexes_to_ignore": r.sample(IGNORED, r.randrange(4)), "ignore_case": r.random() < 0.5,
                    "ignore_punctuation": r.random() < 0.3, "ignore_numbers": r.random() < 0.2}
        golds = [words(r, 4) or "x" for _ in range(n // 12)]
        outputs = [r.choice([words(r), g, g.upper(), words(r) + g, "The answer is %s." % g, g + "\n"]) for g in golds]
        name = "exact%d" % k
        with open("%s/%s.jsonl" % (runs.folder, name), "w", encoding="utf-8") as f:
            for g in golds:
                f.write(json.dumps({"gold": g}) + "\n")
        task = {"task": name, "version": 1, "scorer": "exact_match", "data": {"test": name + ".jsonl"}, "prompt": "Q", "target": "{gold}",
                "filters": filters, "ignore": settings["regexes_to_ignore"], "ignore_case": settings["ignore_case"],
                "ignore_punctuation": settings["ignore_punctuation"], "ignore_digits": settings["ignore_numbers"], "num_fewshot": 0}
        path = "%s/%s.json" % (runs.folder, name)
        with open(path, "w", encoding="utf-8") as f:
            json.dump(task, f)
        runs.add(name, name, [[o] for o in outputs])
        figures, lines = runs.rescore(name, path, runs.folder)
        wrong, count = [], 0
        for spec in filters:
            theirs = {"name": spec["name"], "filter": [{"function": "regex", "regex_pattern": spec["regex"], "group_select": spec["select"]},
                                                       {"function": "take_first"}]}
            scores = []
            for row, gold, output in zip(lines[spec["name"]], golds, outputs):
                want = filtered(theirs, [output])
                scores.append(exact_match(want, gold, settings))
                count += 1
                if (row["filtered_resps"][0], row["exact_match"]) != (want, scores[-1]):
                    wrong.append("%r select %d on %r, %r gold %r: lm-eval %r, balora %r" % (
                        spec["regex"], spec["select"], output, settings, gold, (want, scores[-1]), (row["filtered_resps"][0], row["exact_match"])))
            wrong += check_mean(figures, "exact_match", spec["name"], scores)
        note("exact_match", count, wrong)


def check_mean(figures, metric, name, scores):
    from lm_eval.api.metrics import mean, mean_stderr
    want = (mean(scores), mean_stderr(scores) if len(scores) > 1 else "N/A")
    got = figures["%s,%s" % (metric, name)], figures["%s_stderr,%s" % (metric, name)]
    same = near(got[0], want[0]) and (got[1] == want[1] or near(got[1], want[1]))
    return [] if same else ["%s,%s: lm-eval %r, balora %r" % (metric, name, want, got)]


def part_votes(runs, r):
    """Majorities over 64 answers, and what --compare makes of them."""
    own = config("gsm8k/gsm8k-cot-self-consistency.yaml")
    os.makedirs(runs.folder + "/gsm8k", exist_ok=True)
    golds = [number(r).replace("$", "") for _ in range(40)]
    for split in ("test", "train"):
        with open("%s/gsm8k/%s.jsonl" % (runs.folder, split), "w", encoding="utf-8") as f:
            for g in golds:
                f.write(json.dumps({"question": "q?", "answer": "Because.\n#### " + g}) + "\n")
    for run in ("votes1", "votes2"):
        outputs = [["So. The answer is %s%s" % (r.choice([g, g, number(r), "7", "none"]), r.choice([".", "", ".\n"]))
                    for _ in range(64)] for g in golds]
        runs.add(run, "gsm8k_cot_self_consistency", outputs, 64)
        figures, lines = runs.rescore(run, "gsm8k_cot_self_consistency", runs.folder)
        wrong = []
        for spec in own["filter_list"]:
            scores = [exact_match(filtered(spec, out), "#### " + g, own["metric_list"][0]) for out, g in zip(outputs, golds)]
            wrong += check_mean(figures, "exact_match", spec["name"], scores)
        note("majorities of 64", 3 * len(golds), wrong)
        if run == "votes1":
            first = figures
    text = subprocess.run([runs.balora, "evaluate", "--compare", "votes1-judged", "votes2-judged", "--db", runs.path, "--json", "--quiet"],
                          check=True, stdout=subprocess.PIPE, text=True).stdout
    wrong = []
    for c in json.loads(text)["comparisons"]:
        want = first["exact_match," + c["filter"]], figures["exact_match," + c["filter"]]
        if not (near(c["mean_a"], want[0]) and near(c["mean_b"], want[1])):
            wrong.append("--compare %s: %r and %r, the runs say %r" % (c["filter"], c["mean_a"], c["mean_b"], want))
    note("majorities in --compare", 3, wrong)


def choice_task(folder, name, rows, choices):
    from lm_eval.api.task import ConfigurableTask
    metrics = ["acc", "acc_norm", "acc_bytes", "acc_mutual_info", "mcc", "f1", "brier_score"]
    if choices != 2:
        metrics.remove("f1")
    path = "%s/%s.jsonl" % (folder, name)
    with open(path, "w", encoding="utf-8") as f:
        for row in rows:
            f.write(json.dumps(row) + "\n")
    theirs = ConfigurableTask(config={
        "task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": path}}, "test_split": "test",
        "output_type": "multiple_choice", "doc_to_text": "{{q}}", "doc_to_choice": "choices", "doc_to_target": "label",
        "metric_list": [{"metric": m} for m in metrics]})
    own = {"task": name, "version": 1, "scorer": "multiple_choice", "data": {"test": name + ".jsonl"}, "prompt": "{q}", "choices": "choices",
           "label": "label", "metrics": metrics, "num_fewshot": 0}
    with open("%s/%s.json" % (folder, name), "w", encoding="utf-8") as f:
        json.dump(own, f)
    return theirs, metrics


def fast_f1(items):
    hit = sum(g == 1 and p == 1 for g, p in items)
    count = sum((g == 1) + (p == 1) for g, p in items)
    return 2 * hit / count if count else 0.0


def fast_mcc(items):
    n, right, gold, pred = len(items), sum(g == p for g, p in items), {}, {}
    for g, p in items:
        gold[g], pred[p] = gold.get(g, 0) + 1, pred.get(p, 0) + 1
    both = sum(v * pred.get(k, 0) for k, v in gold.items())
    under = (n * n - sum(v * v for v in gold.values())) * (n * n - sum(v * v for v in pred.values()))
    return (right * n - both) / math.sqrt(under) if under else 0.0


def part_choices(runs, n, r):
    from lm_eval.api.metrics import bootstrap_stderr, mean_stderr
    os.environ["DISABLE_MULTIPROC"] = "1"
    for k, choices in enumerate([2, 2, 3, 4, 5, 12]):
        items, rows, answers = n // 6, [], []
        for _ in range(items):
            texts = [words(r, 3) + r.choice("abcé한") for _ in range(choices)]
            rows.append({"q": "Q", "choices": texts, "label": r.randrange(choices)})
            pool = [r.choice([-1.5, -2.25, -r.random() * 30, -1e-9, -700.0]) for _ in range(3 + choices)]
            answers.append([(r.choice(pool), r.random() < 0.3) for _ in range(2 * choices)])
        name = "choice%d" % k
        theirs, metrics = choice_task(runs.folder, name, rows, choices)
        runs.add(name, name, [[json.dumps({"ll": [a[0] for a in ans], "greedy": [a[1] for a in ans], "tokens": [1] * len(ans)})]
                              for ans in answers])
        figures, lines = runs.rescore(name, "%s/%s.json" % (runs.folder, name), runs.folder)
        results = [theirs.process_results(doc, ans) for doc, ans in zip(theirs.eval_docs, answers)]
        wrong = ["item %d: acc of lm-eval %r, balora %r" % (i, t["acc"], o["acc"])
                 for i, (t, o) in enumerate(zip(results, lines["none"])) if t["acc"] != o["acc"]]
        for m in metrics:
            values = [x[m] for x in results]
            want = float(theirs.aggregation()[m](values))
            if not near(figures[m + ",none"], want):
                wrong.append("%s of %d choices: lm-eval %r, balora %r" % (m, choices, want, figures[m + ",none"]))
            if m in ("f1", "mcc"):
                fast = fast_f1 if m == "f1" else fast_mcc
                some = [(int(g), int(p)) for g, p in values]
                if not near(fast(some), want):
                    wrong.append("the quick %s is wrong" % m)
                error = bootstrap_stderr(fast, some, 100000)
            elif m == "brier_score":
                continue
            else:
                error = mean_stderr(values)
            if not near(figures[m + "_stderr,none"], error):
                wrong.append("%s_stderr of %d choices: lm-eval %r, balora %r" % (m, choices, error, figures[m + "_stderr,none"]))
        note("multiple_choice", items * len(metrics), wrong)


def read_lines(path):
    opened = gzip.open if path.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f if line.strip()]


def bbq_docs(utils, rows):
    """process_docs on plain lists."""
    class Rows(list):
        def map(self, f):
            return [f(json.loads(json.dumps(x))) for x in self]
    return utils.process_docs(Rows(rows))


def bbq_text(doc, r):
    names = [doc["ans0"], doc["ans1"], doc["ans2"]]
    groups = [g for i in range(3) for g in doc["ans%d_groups" % i]]
    body = r.choice(names + groups + names + ["I don't know.", "Not enough information", "It cannot be determined", words(r, 5), "The " + names[0],
                                              " ".join(names[:2]), names[1].upper(), names[2].lower() + "!", "he", "The he"])
    return r.choice(["%s", " %s", "The answer is %s.", "\u00a0%s\n", "%s and " + r.choice(groups)]) % body


def part_bbq(runs, data, n, r):
    files = {"bbq_age": "Age.jsonl.gz", "bbq_religion": "Religion.jsonl", "bbq_disability_status": "Disability_status.jsonl",
             "bbq_sexual_orientation": "Sexual_orientation.jsonl"}
    utils = load("bbq/utils.py")
    aggregate = {"accuracy_amb": utils.agg_accuracy_amb, "accuracy_disamb": utils.agg_accuracy_disamb, "amb_bias_score": utils.agg_amb_bias_scores,
                 "disamb_bias_score": utils.agg_disamb_bias_scores}
    for task, file in files.items():
        if not os.path.exists("%s/bbq/%s" % (data, file)):
            continue
        docs = bbq_docs(utils, read_lines("%s/bbq/%s" % (data, file)))[:n // 4]
        with open(os.path.dirname(os.path.abspath(__file__)) + "/../../evaluate/tasks/%s.json" % task, encoding="utf-8") as f:
            shown = json.load(f)
        del shown
        for kind in ("choice", "text"):
            name, wrong = task + "-" + kind, []
            if kind == "choice":
                answers = [[(-r.choice([1, 2, 3, r.random() * 9]), False) for _ in range(12)] for _ in docs]
                want = [utils.process_results_multiple_choice(d, a) for d, a in zip(docs, answers)]
                outputs = [json.dumps({"ll": [x[0] for x in a], "greedy": [False] * 12, "tokens": [1] * 12}) for a in answers]
                given, key = task, task
            else:
                outputs = [bbq_text(d, r) for d in docs]
                want = [utils.process_results_generate_until(d, [o]) for d, o in zip(docs, outputs)]
                key, given = name, "%s/%s.json" % (runs.folder, name)
                with open(given, "w", encoding="utf-8") as f:
                    json.dump({"task": key, "version": 1, "scorer": "bbq_generate", "data": {"test": "bbq/" + file.replace(".gz", "")},
                               "prompt": "{context}\n\nQ: {question}\nA:", "num_fewshot": 0}, f)
            runs.add(name, key, [[o] for o in outputs])
            figures, lines = runs.rescore(name, given, data)
            for i, (t, o) in enumerate(zip(want, lines["none"])):
                if t["acc"] != o["acc"]:
                    wrong.append("item %d, %r: acc of lm-eval %r, balora %r (%r)" % (i, outputs[i], t["acc"], o["acc"], o["filtered_resps"]))
            for metric, f in aggregate.items():
                for suffix in ("", "_" + docs[0]["category"]):
                    if suffix and "accuracy" in metric:
                        continue
                    theirs = float(f([x[metric + suffix] for x in want]))
                    ours = figures.get(metric + suffix + ",none")
                    if not near(theirs, float("nan") if ours is None else ours):
                        wrong.append("%s%s: lm-eval %r, balora %r" % (metric, suffix, theirs, ours))
            note("bbq by " + kind, len(docs), wrong)


def part_perplexity(runs, n, r):
    from lm_eval.api.metrics import bits_per_byte, weighted_perplexity
    utils = load("wikitext/preprocess_wikitext.py")
    pages = [" = Title = \n" + " ".join(words(r, 20) for _ in range(5)) + " . " for _ in range(n // 10)]
    lls = [-r.random() * 500 for _ in pages]
    with open(runs.folder + "/pages.jsonl", "w", encoding="utf-8") as f:
        for p in pages:
            f.write(json.dumps({"page": p}) + "\n")
    path = runs.folder + "/pages.json"
    with open(path, "w", encoding="utf-8") as f:
        json.dump({"task": "pages", "version": 1, "scorer": "perplexity", "data": {"test": "pages.jsonl"}, "prompt": "{page|wikitext}",
                   "count": "page", "num_fewshot": 0}, f)
    texts = [utils.wikitext_detokenizer({"page": p}) for p in pages]
    runs.add("pages", "pages", [[json.dumps({"ll": [x], "greedy": [False], "tokens": [1]})] for x in lls],
             hashes=[hashlib.sha256(b"\0\0" + t.encode("utf-8")).hexdigest() for t in texts])
    figures, lines = runs.rescore("pages", path, runs.folder)
    want = [utils.process_results({"page": p}, (x,)) for p, x in zip(pages, lls)]
    wrong = []
    for metric, f in (("word_perplexity", weighted_perplexity), ("byte_perplexity", weighted_perplexity), ("bits_per_byte", bits_per_byte)):
        theirs = f([w[metric] for w in want])
        if not near(figures[metric + ",none"], theirs):
            wrong.append("%s: lm-eval %r, balora %r" % (metric, theirs, figures[metric + ",none"]))
    for p, text, row in zip(pages, texts, lines["none"]):
        got = row["arguments"].get("gen_args_0", {"arg_1": None})["arg_1"]
        if got != text:
            wrong.append("%r: lm-eval %r, balora %r" % (p, text, got))
    note("wikitext", len(pages), wrong)


def main():
    balora, data, folder = (os.path.abspath(a) for a in sys.argv[1:4])
    n = int(sys.argv[4]) if len(sys.argv) > 4 else 3000
    r = random.Random(int(sys.argv[5]) if len(sys.argv) > 5 else 1)
    os.makedirs(folder, exist_ok=True)
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_DATASETS_CACHE=folder + "/datasets")
    runs, start = Runs(balora, folder), time.time()
    part_rules(balora, folder, n, r)
    part_hendrycks(balora, folder, n, r)
    part_minerva(balora, folder, n, r)
    part_exact(runs, n, r)
    part_votes(runs, r)
    part_choices(runs, min(n, 600), r)
    part_bbq(runs, data, n, r)
    part_perplexity(runs, n, r)
    print("%d answers compared in %.0f s, %d differences" % (sum(COUNTS.values()), time.time() - start, len(DIFFERENT)))
    return 1 if DIFFERENT else 0


if __name__ == "__main__":
    sys.exit(main())
