#!/usr/bin/env python3
"""lm-evaluation-harness and balora on the same items, in turn: 50 items of GSM8K (no examples, at most 128 new tokens,
greedy) and 100 sentences of SST-2 with two choices each.  One JSON line a round and a task.

usage: lm_eval_speed.py BALORA GGUF HF_FOLDER DATA OUT [ROUNDS [TASK ...]]
seconds: evaluation alone (lm-eval: simple_evaluate() with a loaded model; balora: its own total_evaluation_time);
process: from start to exit.  Nothing else should run meanwhile.  SPDX-License-Identifier: Apache-2.0"""
import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import lm_eval_tasks as tasks

ITEMS = {"gsm8k": 50, "sst2": 100}


def child(model, task, data, out):
    """lm-eval in a process of its own."""
    import lm_eval
    import torch
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    torch.set_num_threads(2)
    lm = HFLM(pretrained=model, dtype="float32", device="cpu", batch_size=8)
    os.makedirs(out + "/tasks", exist_ok=True)
    tasks.write_task(task, data, out + "/tasks")
    start = time.time()
    found = lm_eval.simple_evaluate(
        model=lm, tasks=["peer_" + task], task_manager=TaskManager(include_path=out + "/tasks"), limit=ITEMS[task],
        num_fewshot=0, batch_size=8, log_samples=True, bootstrap_iters=0,
        gen_kwargs="max_gen_toks=128" if task in tasks.GENERATE else None)
    seconds = time.time() - start
    keep = {"results": found["results"]["peer_" + task], "samples": found["samples"]["peer_" + task],
            "seconds": seconds}
    with open("%s/lm_eval_%s.json" % (out, task), "w", encoding="utf-8") as f:
        json.dump(keep, f, default=str)


def ours(balora, gguf, task, data, out):
    args = [balora, "evaluate", "--model", gguf, "--tasks", task, "--data", data, "--limit", str(ITEMS[task]),
            "--num-fewshot", "0", "--json", "--log-samples", "%s/balora_%s" % (out, task), "--db", out + "/speed.db",
            "--quiet", "--resume", "never", "--threads", "2"]
    if task in tasks.GENERATE:
        args += ["--max-gen-toks", "128"]
    text = subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True).stdout
    with open("%s/balora_%s.json" % (out, task), "w", encoding="utf-8") as f:
        f.write(text)
    return float(json.loads(text)["total_evaluation_time_seconds"])


def main():
    if sys.argv[1] == "--child":
        child(*sys.argv[2:6])
        return
    balora, gguf, model, data, out = (os.path.abspath(a) for a in sys.argv[1:6])
    rounds = int(sys.argv[6]) if len(sys.argv) > 6 else 3
    os.makedirs(out, exist_ok=True)
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1",
                      TOKENIZERS_PARALLELISM="false", HF_DATASETS_CACHE=out + "/datasets")
    for _ in range(rounds):
        for task in sys.argv[7:] or list(ITEMS):
            start = time.time()
            subprocess.run([sys.executable, os.path.abspath(__file__), "--child", model, task, data, out], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            theirs_all = time.time() - start
            with open("%s/lm_eval_%s.json" % (out, task), encoding="utf-8") as f:
                theirs = json.load(f)["seconds"]
            start = time.time()
            own = ours(balora, gguf, task, data, out)
            own_all = time.time() - start
            print(json.dumps({"lm_eval": task, "items": ITEMS[task], "lm_eval_seconds": round(theirs, 2),
                              "lm_eval_process": round(theirs_all, 2), "balora_seconds": round(own, 2),
                              "balora_process": round(own_all, 2), "ratio": round(theirs / own, 2),
                              "ratio_process": round(theirs_all / own_all, 2)}), flush=True)


main()
