#!/usr/bin/env python3
"""Every component that a tokenizer.json may name, beside the tokenizers library: files are made from each kind and
option, random and nasty texts are encoded, random ids decoded, and both must be equal or be refused with a sentence.
usage: tests/peers/tokenizer_parts.py BALORA [NAME_PART]   SEED=1 for other texts, MIXED=200 for more files that are drawn,
BALORA_SHARED=../shared for the tokenizers of models ("model ...").  Says "skipped" without the library.
SPDX-License-Identifier: Apache-2.0"""
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

os.environ["TOKENIZERS_PARALLELISM"] = "false"
try:
    import tokenizers
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)

balora, only = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else ""
rng = random.Random(int(os.environ.get("SEED", "0")))
MARK = "\u2581"

NASTY = ["", " ", "   ", "\n", "\t \n", "a", "Hello, World!", "  lead and trail  ", "e\u0301e\u0301 o\u0308\u0323", "\u1e9b\u0323 \u212b \ufb01",
         "\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f3f3\ufe0f\u200d\U0001f308\U0001f1e9\U0001f1ea", "\u4f60\u597d\uff0c\u4e16\u754c! \u65e5\u672c\u8a9e\u3067\u3059\u3002", "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u202eabc\u202c",
         "a\x00b\x01c\x7f\x80\x9f", "\ufeffbom \ufffd \u200b\u200c\u200d", "x" * 300, "ab" * 200, " " * 200, "1234567890 3.14 \u00bd \u00b2 \u2167 \u0663 \u0967",
         "don't I'm we've they'll he'd DON'T", "foo_bar-baz.qux/quux@x.y", "\u0130stanbul STRASSE stra\u00dfe \u1e9e \u03a3\u03a3 \u03c3\u03c2", "\u1100\u1161\u11a8 \uac01 \ud55c\uad6d\uc5b4",
         "\u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "a\u0300\u0301\u0302\u0303" + "\u0304" * 40, "\u0301 start mark", "\u2581 mark \u2581\u2581here", "A\u00a0B\u3000C\u2003D\u1680E\u180eF\u2028G\u0085H\x0bI\x0cJ",
         "\u24b6\u24d0 \U0001f130 \u1d2c \u2460 \u00aa\u00ba", "<s>x</s> <pad><mask> [CLS] [SEP]", "aaaa bbbb AAAA", "caf\u00e9 CAFE\u0301 na\u00efve", "a,b;c:d!e?f(g)h[i]j{k}l", "\u00ad soft\u00adhyphen \u2060wj", "tab\tsep\tvalue\r\nline2\rline3",
         "\U00020000\U0002a6df\U0002b820\uf900 \u3042\u30a2\u30fc\u3006", "\uff41\uff22\uff11 \u3391 \u2126", "\u0958 \u09dc \u0f43 \u2adc \ufb1d \U0001d15e", "word" * 60 + " end", "<0x41> <0xE4>", "##a ##b a##b", "</w> a</w>"]
POOLS = ["abcdeABCDE", "   \t\n", "0123456789", ".,!?'\"-_()", "\u0301\u0308\u0323\u0327\u05b0\u064b\u0e31\u094d\u20dd", "\u4e00\u4f60\u597d\u3042\u30a2\u30fc\uac00\u1100\u1161\u11a8", "\u00e9\u00fc\u00df\u0130\u0131\u03a3\u0416\u05d0\u0627\u0928",
         "\U0001f600\U0001f468\u200d\ufe0f\U0001f3fd\U0001f1e9\U0001f1ea", "\x00\x01\x1f\x7f\x85\xa0\u1680\u180e\u200b\u2028\u3000\ufeff\ufffd\u202e", "\u00bd\u00b2\u2167\u2460\u24b6\ufb01\u212b\uff21\u1d400\u0663",
         MARK + "<>/#sw\u0120\u010a"]


def text():
    """A random one: runs from a few pools."""
    out = []
    for _ in range(rng.randrange(1, 7)):
        pool = rng.choice(POOLS)
        out += [rng.choice(pool) for _ in range(rng.randrange(1, 8))]
    return "".join(out)


TEXTS = NASTY + [text() for _ in range(60)]
CHARS = sorted({c for t in TEXTS for c in t})
LETTERS = [c for c in CHARS if c != "\x00"]
UNK = "[UNK]"
cases = []  # name, file as a tree, texts


def case(name, model, texts=TEXTS, **parts):
    cases.append((name, {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
                         "post_processor": None, "decoder": None, "model": model, **parts}, texts))


def part(make, tree):
    """The library's object of a component; None when it refuses."""
    holder = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None,
              "decoder": None, "model": {"type": "WordLevel", "vocab": {UNK: 0}, "unk_token": UNK}, make: tree}
    try:
        return getattr(Tokenizer.from_str(json.dumps(holder)), make)
    except BaseException as e:
        print(f"tokenizers refuses {json.dumps(tree)}: {e}")
        return None


def words(normalizer=None, pre=None):
    """A WordLevel model that knows every piece which the library cuts: any other piece shows as unknown."""
    n = part("normalizer", normalizer) if normalizer else None
    p = part("pre_tokenizer", pre) if pre else None
    if (normalizer and not n) or (pre and not p):
        return None
    vocab = {UNK: 0}
    for t in TEXTS:
        t = n.normalize_str(t) if n else t
        for piece, _ in p.pre_tokenize_str(t) if p else [(t, 0)]:
            vocab.setdefault(piece, len(vocab))
    return {"type": "WordLevel", "vocab": vocab, "unk_token": UNK}


# A BPE model with a few merges over the characters of the texts: neighbours that were cut apart do not merge.
def bpe(more=(), **options):
    vocab = {UNK: 0}
    for c in [c for c in CHARS if ord(c) < 0x3000 or rng.random() < 0.5]:
        vocab[c] = len(vocab)
    merges = []
    for _ in range(250):
        t = rng.choice(TEXTS)
        if len(t) < 2:
            continue
        i = rng.randrange(len(t) - 1)
        for n in (1, 2, 3):
            for m in (1, 2, 3):
                a, b = t[i:i + n], t[i + n:i + n + m]
                if a in vocab and b in vocab and "\x00" not in a + b and [a, b] not in merges and rng.random() < 0.6:
                    merges.append([a, b])
                    vocab.setdefault(a + b, len(vocab))
    for token in more:
        vocab.setdefault(token, len(vocab))
    return {"type": "BPE", "dropout": None, "unk_token": UNK, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
            "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges, **options}


BYTES = [f"<0x{b:02X}>" for b in range(256)]
S = lambda *items, key: {"type": "Sequence", key: list(items)}

# ---- normalizers ----
NORMALIZERS = [{"type": k} for k in ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "ByteLevel")]
NORMALIZERS += [{"type": "Strip", "strip_left": a, "strip_right": b} for a in (True, False) for b in (True, False)]
NORMALIZERS += [{"type": "BertNormalizer", "clean_text": a, "handle_chinese_chars": b, "strip_accents": c, "lowercase": d}
                for a in (True, False) for b in (True, False) for c in (True, False, None) for d in (True, False)]
NORMALIZERS += [{"type": "Prepend", "prepend": p} for p in (MARK, " ", "ab", "")]
NORMALIZERS += [{"type": "Replace", "pattern": p, "content": c} for p, c in
                [({"String": " "}, MARK), ({"String": "ab"}, ""), ({"String": "a"}, "aa"), ({"String": "."}, "x"), ({"String": ""}, "-"), ({"Regex": "\\s+"}, " "), ({"Regex": " {2,}"}, " "),
                 ({"Regex": "[a-c]+"}, "$0x"), ({"Regex": "(?=b)"}, "_"), ({"Regex": "x*"}, "-"), ({"Regex": "\\p{M}"}, ""), ({"Regex": "[^\\x00-\\x7F]"}, "?"),
                 ({"Regex": "^a|b$"}, "Z"), ({"Regex": "."}, "d"), ({"Regex": "``"}, "\""), ({"Regex": "\\p{Zs}|\\p{Cc}"}, "_"), ({"Regex": "(a)(b)"}, "\\2\\1"), ({"Regex": "\\n"}, "")]]
NORMALIZERS += [S(key="normalizers"), S({"type": "NFD"}, {"type": "StripAccents"}, {"type": "Lowercase"}, key="normalizers"), S({"type": "NFKC"}, S({"type": "Strip", "strip_left": True, "strip_right": True},
                {"type": "Replace", "pattern": {"Regex": "\\s"}, "content": MARK}, key="normalizers"), {"type": "Prepend", "prepend": MARK}, key="normalizers"), S({"type": "ByteLevel"}, {"type": "Lowercase"}, key="normalizers"),
                S({"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}, key="normalizers")]
for n in NORMALIZERS:
    m = words(n)
    if m:
        case(f"normalizer {json.dumps(n)}", m, normalizer=n)

# ---- pre-tokenizers ----
BEHAVIORS = ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"]
PRE = [{"type": k} for k in ("BertPreTokenizer", "Whitespace", "WhitespaceSplit", "UnicodeScripts")]
PRE += [{"type": "ByteLevel", "add_prefix_space": a, "trim_offsets": True, "use_regex": b} for a in (True, False) for b in (True, False)] + [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True}]
PRE += [{"type": "Digits", "individual_digits": a} for a in (True, False)]
PRE += [{"type": "Punctuation", "behavior": b} for b in BEHAVIORS] + [{"type": "Punctuation"}]
PRE += [{"type": "CharDelimiterSplit", "delimiter": d} for d in (" ", "a", MARK, "\n")]
PRE += [{"type": "Metaspace", "replacement": r, "prepend_scheme": p, "split": s} for r in (MARK, "_", " ", "a") for p in ("always", "first", "never") for s in (True, False)]
PRE += [{"type": "Metaspace", "replacement": MARK, "add_prefix_space": a} for a in (True, False)] + [{"type": "Metaspace", "replacement": MARK}, {"type": "Metaspace", "replacement": MARK, "str_rep": MARK, "add_prefix_space": True}]
PRE += [{"type": "FixedLength", "length": n} for n in (1, 2, 5)]
PATTERNS = [{"String": " "}, {"String": "a"}, {"String": "ab"}, {"String": ""}, {"String": "."}, {"Regex": "\\s+"}, {"Regex": " ?[^\\s]+"}, {"Regex": "(?=b)"}, {"Regex": "x*"}, {"Regex": "\\w+|[^\\w\\s]+"}]
PRE += [{"type": "Split", "pattern": p, "behavior": b, "invert": i} for p in PATTERNS for b in BEHAVIORS for i in (True, False)]
REGEXES = ["'s|'t| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
           "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
           "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
           "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
           "[\\u4e00-\\u9fa5\\u3040-\\u309f\\u30a0-\\u30ff]+", "[\\p{Han}]+|[\\p{Hiragana}\\p{Katakana}]+|\\p{Arabic}+|\\p{Latin}+", "\\p{N}{1,3}", "\\d", "\\d{3}", "\\D+", "\\S+", "\\W+", "\\b", "\\B", "[\\s\\S]", "[[:alpha:]]+", "[[:^space:]]+", "[[:punct:]]+|[[:space:]]+", "\\p{Alpha}+", "\\p{^L}+", "[^\\S\\n]+", "[\\w&&[^a]]+",
           "\\h+", "\\H+", "(?i)straSSe|\u03c3+", "(?i:\u00df)", "\\R", "\\X", "(?<=a)b", "(?<!a)b", "(a|b)+", "(?:ab)++", "a{,2}", "a{2,}?", "\\x{4f60}", "\\u4f60", "\\p{Cc}|\\p{Cf}", "\\p{S}+|\\p{Z}+", "\\p{Lu}\\p{Ll}*", "\\p{L}\\p{M}*", "[^\\n]+|[\\n]+",
           "(?m:^.)", "(?s:.)+", ".+", "\\A.", ".\\z", ".\\Z", "$", "^", "\\G.", "[a\\-c]+", "[]a]+", "[\\]a]+", "\\Aa|b", "(?x: a b )", "(?<n>a)\\k<n>", "(a)\\1", "\\p{Script=Han}", "\\p{Emoji}", "[\\p{L}--[a]]", "\\p{L}&&\\p{Lu}", "\\pL", "\\p{Any}", "\\p{Nl}|\\p{No}", "\\p{Pd}|\\p{Ps}|\\p{Pe}|\\p{Po}|\\p{Pc}", "[ \\t]+", "\\t|\\v|\\f", "\\e|\\a", "\\N", "\\O", "(?~ab)", "[^\\p{L}]", "[^\\p{N}\\s]+", "[^\\w]+", "[^\\W]+", "[^\\d]+", "[\\D]+", "[\\W_]+", "[\\H]+", "[^\\h]+", "[\\P{L}]+", "\\P{L}+", "[\\p{^L}]+"]
PRE += [{"type": "Split", "pattern": {"Regex": r}, "behavior": "Isolated", "invert": False} for r in REGEXES]
PRE += [S(key="pretokenizers"), S({"type": "Digits", "individual_digits": True}, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}, key="pretokenizers"),
        S({"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}, key="pretokenizers"),
        S({"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": True}, key="pretokenizers"),
        S({"type": "Punctuation", "behavior": "Contiguous"}, S({"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}, {"type": "Digits", "individual_digits": False}, key="pretokenizers"), key="pretokenizers"),
        S({"type": "Split", "pattern": {"Regex": "[0-9][0-9][0-9]"}, "behavior": "Isolated", "invert": False}, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}, key="pretokenizers"),
        S({"type": "UnicodeScripts"}, {"type": "FixedLength", "length": 3}, key="pretokenizers"), S({"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": True}, {"type": "Punctuation", "behavior": "Isolated"}, key="pretokenizers")]
for p in PRE:
    m = words(None, p)
    if m:
        case(f"pre_tokenizer {json.dumps(p)}", m, pre_tokenizer=p)
for r in REGEXES:
    n = {"type": "Replace", "pattern": {"Regex": r}, "content": "<>"}
    m = words(n)
    if m:
        case(f"normalizer {json.dumps(n)}", m, normalizer=n)
for n, p in [({"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}), ({"type": "Lowercase"}, {"type": "Whitespace"}),
             ({"type": "Replace", "pattern": {"String": " "}, "content": MARK}, {"type": "Split", "pattern": {"String": MARK}, "behavior": "MergedWithPrevious", "invert": False})]:
    case(f"normalizer {json.dumps(n)} then {json.dumps(p)}", words(n, p), normalizer=n, pre_tokenizer=p)


# ---- post-processors ----
def special(i, content, **more):
    return {"id": i, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **more}


ADDED = [special(900, "<s>"), special(901, "</s>"), special(902, "<sep>")]
T = lambda *items: [({"Sequence": {"id": x, "type_id": 0}} if x in ("A", "B") else {"SpecialToken": {"id": x, "type_id": 0}}) for x in items]
NAMES = {"<s>": {"id": "<s>", "ids": [900], "tokens": ["<s>"]}, "</s>": {"id": "</s>", "ids": [901], "tokens": ["</s>"]}, "two": {"id": "two", "ids": [902, 901], "tokens": ["<sep>", "</s>"]}}
TEMPLATE = lambda *single: {"type": "TemplateProcessing", "single": T(*single), "pair": T("A", "B"), "special_tokens": NAMES}
ROBERTA = {"type": "RobertaProcessing", "sep": ["</s>", 901], "cls": ["<s>", 900], "trim_offsets": True, "add_prefix_space": False}
BERT = {"type": "BertProcessing", "sep": ["</s>", 901], "cls": ["<s>", 900]}
BYTE = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
small = {"type": "WordLevel", "vocab": {UNK: 0, "a": 1, "<s>": 900, "</s>": 901, "<sep>": 902}, "unk_token": UNK}
for p in [TEMPLATE("A"), TEMPLATE("<s>", "A"), TEMPLATE("A", "</s>"), TEMPLATE("<s>", "<s>", "A", "two", "</s>"), TEMPLATE("A", "A"), TEMPLATE("<s>"), TEMPLATE("<s>", "A", "</s>", "A"), TEMPLATE("B"), ROBERTA, BERT, BYTE,
          S(key="processors"), S(BYTE, TEMPLATE("<s>", "A"), key="processors"), S(TEMPLATE("<s>", "A"), BYTE, key="processors"), S(TEMPLATE("<s>", "A"), TEMPLATE("A", "</s>"), key="processors"), S(ROBERTA, BERT, key="processors"),
          S(BERT, TEMPLATE("<s>", "A", "</s>"), key="processors"), S(S(BYTE, key="processors"), BERT, key="processors"), S(TEMPLATE("A"), BERT, key="processors"), S(BERT, TEMPLATE("A"), key="processors"), S(ROBERTA, BYTE, BERT, key="processors")]:
    case(f"post_processor {json.dumps(p)}", small, ["", "a", "a b", "x<s>a"], post_processor=p, added_tokens=ADDED)

# ---- models ----
for options in [{}, {"fuse_unk": True}, {"unk_token": None}, {"byte_fallback": True, "more": BYTES}, {"byte_fallback": True, "fuse_unk": True, "more": BYTES[:200]}, {"byte_fallback": True, "unk_token": None, "more": BYTES[:200]}, {"byte_fallback": True},
                {"ignore_merges": True, "more": ["Hello, World!", "cafe", "abab", "x" * 300, "a", "don't I'm we've they'll he'd DON'T"]}, {"dropout": 0.0}, {"dropout": 0.5}, {"dropout": 1.0},
                {"continuing_subword_prefix": ""}, {"end_of_word_suffix": ""}, {"continuing_subword_prefix": "", "end_of_word_suffix": ""}]:
    for pre in (None, {"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": True}):
        options = dict(options)
        case(f"BPE {options if 'more' not in options else {k: v if k != 'more' else len(v) for k, v in options.items()}} {json.dumps(pre)}", bpe(**{k: v for k, v in options.items()}), pre_tokenizer=pre)
for prefix, suffix in [("##", None), (None, "</w>"), ("##", "</w>"), ("@@", "</w>")]:
    for more in ({}, {"fuse_unk": True}, {"unk_token": None}, {"ignore_merges": True}):
        t = Tokenizer(models.BPE(unk_token=UNK, **({"continuing_subword_prefix": prefix} if prefix else {}), **({"end_of_word_suffix": suffix} if suffix else {})))
        t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        t.train_from_iterator(TEXTS[:60], trainers.BpeTrainer(vocab_size=500, special_tokens=[UNK], show_progress=False, limit_alphabet=120, **({"continuing_subword_prefix": prefix} if prefix else {}),
                                                             **({"end_of_word_suffix": suffix} if suffix else {})))
        tree = json.loads(t.to_str())["model"]
        case(f"BPE prefix {prefix} suffix {suffix} {more}", {**tree, **more}, pre_tokenizer={"type": "WhitespaceSplit"})
        case(f"BPE prefix {prefix} suffix {suffix} {more} decoded", {**tree, **more}, pre_tokenizer={"type": "WhitespaceSplit"}, decoder={"type": "BPEDecoder", "suffix": suffix or ""})


def substrings(n, most=6):
    out = {}
    for c in LETTERS:
        if rng.random() < 0.8:
            out[c] = 1
    while len(out) < n:
        t = rng.choice([t for t in TEXTS if len(t) > 1])
        i = rng.randrange(len(t))
        out[t[i:i + rng.randrange(1, most)]] = 1
    return [x for x in out if x]


def unigram(unk=0, byte_fallback=False, bytes_=(), scores=lambda: -rng.random() * 12):
    return {"type": "Unigram", "unk_id": unk, "vocab": [[UNK, 0.0]] + [[x, scores()] for x in substrings(400)] + [[b, -15.0] for b in bytes_], "byte_fallback": byte_fallback}


for name, m in [("", unigram()), ("equal scores", unigram(scores=lambda: -1.0)), ("few scores", unigram(scores=lambda: -float(rng.randrange(1, 4)))), ("positive", unigram(scores=lambda: rng.random() * 4 - 2)), ("bytes", unigram(0, True, BYTES)), ("some bytes", unigram(0, True, BYTES[:200])),
                ("no bytes", unigram(0, True)), ("no unknown", unigram(None)), ("no unknown, bytes", unigram(None, True, BYTES)), ("unknown 5", unigram(5)), ("old", {k: v for k, v in unigram().items() if k != "byte_fallback"}), ("bytes, off", unigram(0, False, BYTES)),
                ("unknown not in", {"type": "Unigram", "unk_id": 100000, "vocab": [["a", -1.0]], "byte_fallback": False}), ("twice", {"type": "Unigram", "unk_id": 0, "vocab": [[UNK, 0.0], ["a", -1.0], ["a", -2.0], ["b", -3.0], ["b", -1.0], ["", -1.0]], "byte_fallback": False})]:
    for pre in (None, {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}):
        case(f"Unigram {name} {json.dumps(pre)}", m, pre_tokenizer=pre, decoder={"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True} if pre else None)
for options in [{}, {"max_input_chars_per_word": 5}, {"continuing_subword_prefix": "@"}, {"continuing_subword_prefix": ""}, {"unk_token": "nowhere"}]:
    vocab = {UNK: 0}
    prefix = options.get("continuing_subword_prefix", "##")
    for x in substrings(300):
        vocab.setdefault(x, len(vocab))
        vocab.setdefault(prefix + x, len(vocab))
    for pre in (None, {"type": "BertPreTokenizer"}):
        case(f"WordPiece {options} {json.dumps(pre)}", {"type": "WordPiece", "unk_token": UNK, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab, **options}, pre_tokenizer=pre)
for options in [{"unk_token": "nowhere"}, {"unk_token": "a"}]:
    case(f"WordLevel {options}", {"type": "WordLevel", "vocab": {UNK: 0, "a": 1}, **options}, pre_tokenizer={"type": "Whitespace"})
plain = bpe()
for name, m in [("without a type", {k: v for k, v in plain.items() if k != "type"}), ("only what is needed", {k: plain[k] for k in ("type", "vocab", "merges")}), ("merges as texts", {**plain, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"], "unk_token": None}),
                ("merges with a version", {**plain, "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["#version: 0.2", "a b"], "unk_token": None}), ("a merge twice", {**plain, "vocab": {"a": 0, "b": 1, "ab": 2, "ba": 3, "aba": 4}, "merges": [["a", "b"], ["b", "a"], ["a", "b"], ["ab", "a"], ["a", "ba"]], "unk_token": None}),
                ("unknown not in", {**plain, "unk_token": "nowhere"})]:
    case(f"BPE {name}", m, TEXTS + ["ababab", "aba", "abbaba"])

# ---- decoders ----
TOKENS = ["a", "b", "##a", "##b", "</w>", "a</w>", "b</w></w>", MARK, MARK + "a", "a" + MARK + "b", MARK + MARK, " ", "  a", "a ", "<0x41>", "<0xE4>", "<0xBD>", "<0xA0>", "<0xC3>", "<0xZZ>", "<0x4>", "<0xe4>", "<0x00>", "\u0120a", "\u00c3", "\u00a9", "\u00ef\u00bf\u00bd", "\u00e4\u00bd", "\u00a0", "\u4f60",
          "|", "<pad>", "<unk>", ".", "n't", "'m", "do not", " ?", "'s", " ' ", "'", ",", "!", "we", "'re", "'ve", "not", "do", "\u0301", "aa", "\n", "\u0100", "\u0143", "\u0144", "x", "\U0001f600", "\u00f0\u0141\u013a\u0122"]
DECODERS = [None, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, {"type": "ByteFallback"}, {"type": "Fuse"}]
DECODERS += [{"type": "WordPiece", "prefix": p, "cleanup": c} for p in ("##", "", "a") for c in (True, False)]
DECODERS += [{"type": "Metaspace", "replacement": r, "prepend_scheme": p, "split": True} for r in (MARK, "a") for p in ("always", "first", "never")] + [{"type": "Metaspace", "replacement": MARK, "add_prefix_space": a} for a in (True, False)]
DECODERS += [{"type": "BPEDecoder", "suffix": s} for s in ("</w>", "", "a")]
DECODERS += [{"type": "CTC", "pad_token": p, "word_delimiter_token": d, "cleanup": c} for p in ("<pad>", "") for d in ("|", "") for c in (True, False)]
DECODERS += [{"type": "Strip", "content": c, "start": a, "stop": b} for c in (" ", "a") for a in (0, 1, 2, 5) for b in (0, 1, 2)]
DECODERS += [{"type": "Replace", "pattern": p, "content": c} for p, c in [({"String": MARK}, " "), ({"Regex": "a+"}, "<$0>"), ({"String": ""}, "-"), ({"Regex": "x*"}, "-"), ({"Regex": "^."}, "Q")]]
DECODERS += [S(key="decoders"), S({"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}, key="decoders"),
             S({"type": "Fuse"}, {"type": "WordPiece", "prefix": "##", "cleanup": True}, key="decoders"), S({"type": "ByteFallback"}, {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "always", "split": True}, key="decoders"),
             S({"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, {"type": "Strip", "content": "a", "start": 1, "stop": 1}, key="decoders"), S({"type": "Strip", "content": "a", "start": 1, "stop": 1}, {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": True}, key="decoders"),
             S({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": True}, {"type": "Fuse"}, {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "}, key="decoders")]
pieces = {"type": "WordLevel", "vocab": {UNK: 0, **{x: i + 1 for i, x in enumerate(TOKENS)}}, "unk_token": UNK}
for d in DECODERS:
    case(f"decoder {json.dumps(d)}", pieces, ["a"], decoder=d, added_tokens=[special(200, "<s>"), special(201, "a b", special=False), special(202, MARK + "x", special=False), special(203, "\u4f60\u597d", special=False)])

# ---- added tokens ----
CONTENTS = ["<s>", "<s", "s>", "ab", "abc", " x", "x ", "\u00e9", "e\u0301", "A", "aB", "\u4f60", MARK, "\u0130", "##", "1", " ", "<pad>", "bab"]
for k in range(30):
    added = [special(950 + i, c, single_word=rng.random() < 0.3, lstrip=rng.random() < 0.4, rstrip=rng.random() < 0.4, normalized=rng.random() < 0.5, special=rng.random() < 0.5) for i, c in enumerate(rng.sample(CONTENTS, rng.randrange(2, 8)))]
    texts = TEXTS + ["".join(rng.choice(CONTENTS + [" ", "a", "x", ".", "  ", "\u3000"]) for _ in range(rng.randrange(1, 12))) for _ in range(60)]
    normalizer = rng.choice([None, {"type": "Lowercase"}, {"type": "NFD"}, {"type": "Prepend", "prepend": MARK}, {"type": "Strip", "strip_left": True, "strip_right": True}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK},
                             S({"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}, key="normalizers"), {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}])
    pre = rng.choice([None, {"type": "Metaspace", "replacement": MARK, "prepend_scheme": rng.choice(["first", "always"]), "split": rng.random() < 0.5}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, {"type": "Whitespace"}, {"type": "FixedLength", "length": 2},
                      {"type": "Punctuation", "behavior": "Isolated"}])
    decoder = rng.choice(DECODERS)
    brief = ["".join(k[0] if k != "special" else "!" for k in ("single_word", "lstrip", "rstrip", "normalized", "special") if a[k]) + ":" + a["content"] for a in added]
    case(f"added {k} {brief} {json.dumps(normalizer)} {json.dumps(pre)} {json.dumps(decoder)}", bpe(fuse_unk=rng.random() < 0.5), texts, added_tokens=added, normalizer=normalizer, pre_tokenizer=pre, decoder=decoder)
# tokens that the model knows already, and ids that are not its next ones
known = bpe()
case("added known", known, added_tokens=[special(known["vocab"]["a"], "a"), special(known["vocab"]["b"], "b", special=False, normalized=True)])
case("added known by another id", known, added_tokens=[special(5000, "a")])
case("added twice", known, added_tokens=[special(5000, "zz"), special(5001, "zz", special=False)])
case("added empty", known, added_tokens=[special(5000, ""), special(5001, "zz")])
case("added with gaps", known, TEXTS + ["zzyy"], added_tokens=[special(6000, "yy"), special(7000, "zz")])
case("added with only its content", known, TEXTS + ["zz"], added_tokens=[{"id": len(known["vocab"]), "content": "zz", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}])
# ---- several components, drawn ----
maps = []
for shared in ("t5", "xlnet"):
    path = os.path.join(os.environ.get("BALORA_SHARED", "../shared"), "tokenizers", shared, "tokenizer.json")
    if os.path.exists(path):
        tree = json.load(open(path, encoding="utf-8"))["normalizer"]
        maps += [n for n in [tree, *tree.get("normalizers", [])] if n["type"] == "Precompiled"]
for n in maps:
    case("normalizer Precompiled of a model", words(n), normalizer=n)
def any_model():
    """A model of any kind, its options drawn."""
    kind = rng.choice(["BPE", "BPE", "Unigram", "WordPiece", "WordLevel"])
    if kind == "BPE":
        return bpe(fuse_unk=rng.random() < 0.5, byte_fallback=rng.random() < 0.4, ignore_merges=rng.random() < 0.3, unk_token=rng.choice([UNK, None]), more=rng.choice([(), BYTES, BYTES[:220]]))
    if kind == "Unigram":
        return unigram(0, rng.random() < 0.5, rng.choice([(), BYTES]), rng.choice([lambda: -rng.random() * 12, lambda: -float(rng.randrange(1, 4))]))
    vocab = {UNK: 0}
    for x in substrings(300):
        vocab.setdefault(x, len(vocab))
        vocab.setdefault("##" + x, len(vocab))
    return {"type": kind, "unk_token": UNK, "vocab": vocab, **({"continuing_subword_prefix": "##", "max_input_chars_per_word": rng.choice([6, 100])} if kind == "WordPiece" else {})}


for k in range(int(os.environ.get("MIXED", "60"))):
    n = S(*rng.sample(NORMALIZERS + maps, rng.randrange(0, 4)), key="normalizers")
    p = S(*rng.sample([x for x in PRE if x["type"] not in ("UnicodeScripts",) and part("pre_tokenizer", x)], rng.randrange(0, 3)), key="pretokenizers")
    added = [special(950 + i, c, lstrip=rng.random() < 0.3, normalized=rng.random() < 0.5, special=rng.random() < 0.5) for i, c in enumerate(rng.sample(CONTENTS, 2))]
    brief = lambda x: [{**y, "precompiled_charsmap": "..."} if y["type"] == "Precompiled" else y for y in next(iter(v for v in x.values() if isinstance(v, list)))]
    case(f"mixed {k} {json.dumps(brief(n))} {json.dumps(brief(p))} {[a['content'] for a in added]}", any_model(), TEXTS + [text() for _ in range(20)], normalizer=n, pre_tokenizer=p, added_tokens=added, decoder=rng.choice(DECODERS))
# ---- what classes of patterns and characters mean, over all of Unicode ----
ASSIGNED = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) not in ("Cs", "Co") and (unicodedata.category(c) != "Cn" or 0x870 <= ord(c) < 0x323B0)]
EVERY = ["a".join(ASSIGNED[i:i + 5000]) for i in range(0, len(ASSIGNED), 5000)]
CLASSES = ["\\s", "\\w", "\\d", "\\h"] + ["\\p{" + x + "}" for x in "L Lu Ll Lt Lm Lo M Mc Me N Nd Nl No P Pc Pd Ps Pe Pi Pf Po S Sm Sc Sk So Z Zs Zl Zp Cc Cf Han Hiragana Katakana Hangul Latin Greek Cyrillic Arabic Hebrew Thai Devanagari Bengali Tamil Armenian Georgian".split()]
for n in [{"type": "Replace", "pattern": {"Regex": x}, "content": ""} for x in CLASSES] + [{"type": x} for x in ("Lowercase", "StripAccents", "Nmt", "NFC", "NFD", "NFKC", "NFKD")] + NORMALIZERS[12:36:5]:
    tool = part("normalizer", n)
    case(f"all characters {json.dumps(n)}", {"type": "WordLevel", "vocab": {UNK: 0, **{x: i + 1 for i, x in enumerate(dict.fromkeys(map(tool.normalize_str, EVERY)))}}, "unk_token": UNK}, EVERY, normalizer=n)
for p in [{"type": x} for x in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")] + [{"type": "Punctuation", "behavior": "Contiguous"}, {"type": "Digits", "individual_digits": False}] + [{"type": "Split", "pattern": {"Regex": x}, "behavior": "Contiguous", "invert": False} for x in ("\\w", "\\b", "\\S", "\\W")]:
    tool = part("pre_tokenizer", p)
    case(f"all characters {json.dumps(p)}", {"type": "WordLevel", "vocab": {UNK: 0, **{x: i + 1 for i, x in enumerate(dict.fromkeys(y for e in EVERY for y, _ in tool.pre_tokenize_str(e)))}}, "unk_token": UNK}, EVERY, pre_tokenizer=p)
# ---- truncation and padding: fields of the file that the library applies and transformers takes off ----
for direction in ("Right", "Left"):
    for strategy in ("LongestFirst", "OnlyFirst", "OnlySecond"):
        case(f"truncation {direction} {strategy}", plain, truncation={"direction": direction, "max_length": 4, "strategy": strategy, "stride": 1}, padding={"strategy": {"Fixed": 6}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": UNK})


def run(path, lines, *words):
    p = subprocess.run([balora, "tokenize", "--tokenizer", path, *words], input="".join(json.dumps(x) + "\n" for x in lines), capture_output=True, encoding="utf-8", errors="replace")
    return p.returncode, [json.loads(x) for x in p.stdout.split("\n") if x], p.stderr.strip()


BREAKS = object()
equal = refused = differ = broken = 0
sentences = {}


def compare(name, t, path, key, lines, want, *words):
    """want: what the library gives for each line, None for an error of its own."""
    global equal, differ, broken
    status, got, message = run(path, lines, *words)
    if status != 0:  # one line at a time
        got = []
        for line in lines:
            status, one, message = run(path, [line], *words)
            got.append(one[0] if status == 0 and one else {key: None})
            if status not in (0, 3):
                print(f"FAIL  {name}: status {status}: {message}")
                differ += 1
    for line, w, g in zip(lines, want, got):
        if w is BREAKS:
            broken += 1
            continue
        if g[key] == w:
            equal += 1
            continue
        differ += 1
        count[0] += 1
        if count[0] <= 3:
            print(f"FAIL  {name} {' '.join(words)}\n      {line!r}\n      want {w!r:.300}\n      got  {g[key]!r:.300}")
            if key == "ids" and w is not None and g[key] is not None and t is not None:
                print(f"      want {[t.id_to_token(i) for i in w]!r:.300}\n      got  {[t.id_to_token(i) for i in g[key]]!r:.300}")


def safely(call):
    try:
        return call()
    except Exception:
        return None
    except BaseException:  # the library itself breaks (a Rust panic)
        return BREAKS


with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "tokenizer.json")
    for name, tree, texts in cases:
        if only not in name:
            continue
        count = [0]
        with open(path, "w", encoding="utf-8") as f:
            json.dump(tree, f, ensure_ascii=False)
        status, _, message = run(path, [{"text": ""}])
        try:
            t = Tokenizer.from_str(json.dumps(tree))
        except BaseException as e:
            if status == 0:
                print(f"note  tokenizers refuses {name:.200}, balora does not: {e}")
            continue
        if status == 3:
            refused += 1
            sentences.setdefault(message.split("tokenizer.json: ", 1)[-1], []).append(name)
            continue
        if status not in (0, 3):
            print(f"FAIL  {name}: status {status}: {message}")
            differ += 1
            continue
        t.no_truncation()
        t.no_padding()
        lines = [{"text": x} for x in texts]
        for words_, special_ in (((), True), (("--no-special-tokens",), False)):
            compare(name, t, path, "ids", lines, [safely(lambda: t.encode(x, add_special_tokens=special_).ids) for x in texts], *words_)
        known_ids = sorted(t.get_vocab(with_added_tokens=True).values())
        lists = [[rng.choice(known_ids) for _ in range(rng.randrange(0, 9))] for _ in range(80 if name.startswith(("decoder", "added")) else 12)]
        lists += [e for e in (safely(lambda: t.encode(x, add_special_tokens=True).ids) for x in texts[:30]) if e and e is not BREAKS]
        for words_, skip in (((), False), (("--skip-special-tokens",), True)):
            compare(name, None, path, "text", [{"ids": x} for x in lists], [safely(lambda: t.decode(x, skip_special_tokens=skip)) for x in lists], "--decode", *words_)
        if count[0] > 3:
            print(f"      ... {count[0]} differences in this file")
# ---- the tokenizers of models: texts drawn, with their own added tokens among them ----
models_at = os.path.join(os.environ.get("BALORA_SHARED", "../shared"), "tokenizers")
for name in sorted(os.listdir(models_at)) if os.path.isdir(models_at) else []:
    path = os.path.join(models_at, name)
    if not os.path.exists(os.path.join(path, "tokenizer.json")) or only not in f"model {name}":
        continue
    t = Tokenizer.from_file(os.path.join(path, "tokenizer.json"))
    t.no_truncation()
    t.no_padding()
    count = [0]
    own = [x.content for x in t.get_added_tokens_decoder().values()]
    texts = TEXTS + [text() for _ in range(300)] + ["".join(rng.choice([rng.choice(own), text(), " ", "\n"]) for _ in range(rng.randrange(1, 6))) for _ in range(150) if own]
    for words_, special_ in (((), True), (("--no-special-tokens",), False)):
        compare(f"model {name}", t, path, "ids", [{"text": x} for x in texts], [safely(lambda: t.encode(x, add_special_tokens=special_).ids) for x in texts], *words_)
    known_ids = sorted(t.get_vocab(with_added_tokens=True).values())
    lists = [[rng.choice(known_ids) for _ in range(rng.randrange(0, 12))] for _ in range(300)]
    for words_, skip in (((), False), (("--skip-special-tokens",), True)):
        compare(f"model {name}", None, path, "text", [{"ids": x} for x in lists], [safely(lambda: t.decode(x, skip_special_tokens=skip)) for x in lists], "--decode", *words_)
for message in sorted(sentences):
    print(f"refused ({len(sentences[message])} files): {message}")
print(f"tokenizers {tokenizers.__version__}: {equal} answers equal, {differ} different, {broken} at which the library breaks, {refused} of {len(cases)} files refused")
sys.exit(1 if differ else 0)
