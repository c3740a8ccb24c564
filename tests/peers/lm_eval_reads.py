#!/usr/bin/env python3
"""lm-evaluation-harness's own functions read what `balora evaluate --output-path DIR` wrote.

usage: lm_eval_reads.py DIR/MODEL      Prints the table that lm-eval makes of it.  SPDX-License-Identifier: Apache-2.0"""
import glob
import json
import os
import sys

from lm_eval.utils import hash_string
from lm_eval.utils import get_latest_filename, get_results_filenames, get_sample_results_filenames, make_table


def main():
    names = sorted(glob.glob(sys.argv[1] + "/*"))
    results = get_results_filenames(names)
    assert results, "no results_*.json by lm-eval's pattern"
    with open(get_latest_filename(results), encoding="utf-8") as f:
        document = json.load(f)
    print(make_table(document))
    samples = get_sample_results_filenames(names)
    keys = {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash",
            "prompt_hash", "target_hash"}
    count = 0
    for task in document["results"]:
        latest = get_latest_filename([s for s in samples if os.path.basename(s).startswith("samples_%s_2" % task)])
        for line in open(latest, encoding="utf-8"):
            row = json.loads(line)
            assert keys <= set(row), keys - set(row)
            assert all(m in row for m in row["metrics"]), row["metrics"]
            assert row["doc_hash"] == hash_string(json.dumps(row["doc"], indent=2, ensure_ascii=False)), row["doc_id"]
            assert row["prompt_hash"] == hash_string(row["arguments"]["gen_args_0"]["arg_0"]), row["doc_id"]
            assert row["target_hash"] == hash_string(str(row["target"])), row["doc_id"]
            count += 1
    print("%d tasks, %d sample lines read" % (len(document["results"]), count))


main()
