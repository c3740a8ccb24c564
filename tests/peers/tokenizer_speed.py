#!/usr/bin/env python3
"""Rate of text to ids beside the tokenizers library, in processor time of one thread, and equal ids.
usage: tests/peers/tokenizer_speed.py BALORA TEXT TOKENIZER_FOLDER...   Says "skipped" without the library.
SPDX-License-Identifier: Apache-2.0"""
import json
import os
import resource
import subprocess
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
try:
    import tokenizers
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)

REPEAT = 10
balora, path, folders = sys.argv[1], sys.argv[2], sys.argv[3:]
text = open(path, encoding="utf-8").read()
size = len(text.encode()) / 1e6
failed = False


def cpu(*words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([balora, *words], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime


for folder in folders:
    theirs = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    start = time.process_time()
    want = theirs.encode(text, add_special_tokens=False).ids
    seconds = time.process_time() - start
    p = subprocess.run([balora, "tokenize", "--tokenizer", folder, "--no-special-tokens"], check=True,
                       input=json.dumps({"text": text}) + "\n", stdout=subprocess.PIPE, text=True)
    same = json.loads(p.stdout)["ids"] == want
    failed |= not same
    bench = ["bench", "tokenize", "--model", folder, "--text", path, "--no-reference", "--threads", "1", "--repeat"]
    ours = (cpu(*bench, str(REPEAT + 1)) - cpu(*bench, "1")) / REPEAT  # loading is in both
    print(f"{os.path.basename(folder)}: balora {size / ours:.1f} MB/s, tokenizers {tokenizers.__version__} "
          f"{size / seconds:.1f} MB/s, ids {'equal' if same else 'DIFFER'}", flush=True)
sys.exit(failed)
