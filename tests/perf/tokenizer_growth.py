#!/usr/bin/env python3
"""How the time of text to ids and back grows with the length of nasty texts: processor seconds for a quarter of a
megabyte and for one (the program's start taken off), for every tokenizer of a folder and for each kind of component.
Four times the text must not take much more than four times as long.
usage: tests/perf/tokenizer_growth.py BALORA [FOLDER_OF_TOKENIZERS] [NAME_PART]     SPDX-License-Identifier: Apache-2.0"""
import json
import os
import random
import resource
import subprocess
import sys
import tempfile

balora, folder, only = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "", sys.argv[3] if len(sys.argv) > 3 else ""
SMALL, LARGE = 1 << 18, 1 << 20
rng = random.Random(1)
LETTERS = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(LARGE))
UNITS = {"a": "a", "ab": "ab", "spaces": " ", "digits": "1", "marks": "\u0301", "marks of two classes": "\u0301\u0316", "marks that come apart": "\u0f73", "one word": LETTERS, "added token": "<s>", "begins of added tokens": "<",
         "new lines": "\n", "space and letter": " x", "quotes": "'", "ideographs": "\u4f60", "emoji": "\U0001f468\u200d", "not UTF-8's usual": "\u2581", "full stops": ".", "letters and marks": "e\u0301"}


def seconds(path, line, *words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    p = subprocess.run([balora, "tokenize", "--tokenizer", path, *words], input=json.dumps(line) + "\n", capture_output=True, text=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before, p


def made():
    """A file for each kind of component, around a small model."""
    vocab = {c: i for i, c in enumerate(["?", *"abcdefghijklmnopqrstuvwxyz", " ", "1", "\u2581", "##a", "##b", "<", "."])}
    for pair in ("ab", "aa", "abab", "aaaa", "11", "  "):
        vocab[pair] = len(vocab)
    bpe = {"type": "BPE", "unk_token": "?", "vocab": vocab, "merges": [["a", "b"], ["a", "a"], ["ab", "ab"], ["aa", "aa"], ["1", "1"], [" ", " "]]}
    models = {"BPE": bpe, "BPE, unknown fused": {**bpe, "fuse_unk": True}, "BPE, whole pieces": {**bpe, "ignore_merges": True}, "WordLevel": {"type": "WordLevel", "unk_token": "?", "vocab": vocab},
              "WordPiece": {"type": "WordPiece", "unk_token": "?", "continuing_subword_prefix": "##", "max_input_chars_per_word": 2000000, "vocab": vocab},
              "Unigram": {"type": "Unigram", "unk_id": 0, "vocab": [[x, -1.0 - i / 100] for i, x in enumerate(vocab)], "byte_fallback": False}}
    added = [{"id": len(vocab), "content": "<s>", "special": True, "normalized": False}, {"id": len(vocab) + 1, "content": "<" * 40, "special": False, "normalized": False}]
    base = {"added_tokens": added, "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": bpe}
    for name, model in models.items():
        yield name, {**base, "model": model}
    for n in [{"type": k} for k in ("NFC", "NFKD", "Lowercase", "StripAccents", "Nmt", "ByteLevel")] + [{"type": "BertNormalizer"}, {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Prepend", "prepend": "a"},
              {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, {"type": "Replace", "pattern": {"Regex": " {2,}$"}, "content": " "}]:
        yield "normalizer " + json.dumps(n), {**base, "normalizer": n}
    for p in [{"type": k} for k in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "ByteLevel", "Metaspace", "Punctuation", "Digits", "FixedLength")] + [{"type": "Split", "pattern": {"String": "ab"}, "behavior": b, "invert": False} for b in ("Isolated", "MergedWithPrevious", "Contiguous")]:
        yield "pre-tokenizer " + json.dumps(p), {**base, "pre_tokenizer": {"replacement": "\u2581", "prepend_scheme": "always", "add_prefix_space": True, **p} if p["type"] in ("Metaspace", "ByteLevel") else p}
    for flags in ({"lstrip": True}, {"rstrip": True}, {"lstrip": True, "rstrip": True}, {"single_word": True}, {"normalized": True}):
        more = [{**x, **flags} for x in added] + [{"id": len(vocab) + 2, "content": "\n", "special": False, "normalized": False, **flags}]
        yield f"added tokens {flags}", {**base, "added_tokens": more}
    for d in [{"type": "ByteLevel"}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "WordPiece", "prefix": "##", "cleanup": True}, {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True}, {"type": "BPEDecoder", "suffix": "b"},
              {"type": "CTC", "pad_token": "a", "word_delimiter_token": "b", "cleanup": True}, {"type": "Strip", "content": "a", "start": 1, "stop": 0}, {"type": "Replace", "pattern": {"String": "a"}, "content": " "},
              {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "WordPiece", "prefix": "##", "cleanup": True}]}, {"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "BPEDecoder", "suffix": "a"}]}]:
        yield "decoder " + json.dumps(d), {**base, "decoder": d}


bad = measured = 0
with tempfile.TemporaryDirectory() as room:
    files = [(x, os.path.join(folder, x)) for x in sorted(os.listdir(folder)) if os.path.isdir(os.path.join(folder, x))] if folder else []
    for i, (name, tree) in enumerate(made()):
        files.append((name, os.path.join(room, f"{i}.json")))
        with open(files[-1][1], "w", encoding="utf-8") as f:
            json.dump(tree, f)
    for name, path in files:
        if only not in name:
            continue
        start = min(seconds(path, {"text": ""})[0] for _ in range(2))
        worst = []
        for what, unit in UNITS.items():
            texts = [(unit * (n // len(unit) + 1))[:n] for n in (SMALL, LARGE)]
            (a, p), (b, q) = (seconds(path, {"text": x}, "--no-special-tokens") for x in texts)
            if p.returncode or q.returncode:
                print(f"FAIL  {name}, {what}: {q.stderr.strip():.200}")
                bad += 1
                continue
            times = [(a, b, "to ids")]
            if name.startswith("decoder") or os.path.isdir(path):
                times.append((seconds(path, {"ids": json.loads(p.stdout)["ids"]}, "--decode")[0], seconds(path, {"ids": json.loads(q.stdout)["ids"]}, "--decode")[0], "to text"))
            for a, b, way in times:
                a, b = max(a - start, 0.0), max(b - start, 0.0)
                good = b < 0.5 or b < 7 * max(a, 0.02)
                bad += not good
                measured += 1
                worst.append((b, a, f"{what} {way}"))
                if not good:
                    print(f"FAIL  {name}, {what} {way}: {a:.2f} s, four times the text {b:.2f} s", flush=True)
        b, a, what = max(worst)
        print(f"{name}: slowest of {len(worst)}: {what}, {a:.2f} s and {b:.2f} s", flush=True)
print(f"{measured} times, {bad} grew too fast")
sys.exit(1 if bad else 0)
