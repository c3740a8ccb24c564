#!/usr/bin/env python3
"""Chat templates made at random beside transformers' Jinja: expressions of every operator, filter, test and method over
values of every kind, and statements with loops, macros and white-space control.  A rendering must be equal, or be refused
with a sentence; what Jinja refuses must be refused here.
usage: tests/peers/template_fuzz.py BALORA [COUNT]   SEED=1 for other templates   SHOW=1: sentences of refusals
SPDX-License-Identifier: Apache-2.0"""
import collections
import copy
import json
import os
import random
import subprocess
import sys
import warnings
import tempfile
import concurrent.futures

try:
    from transformers.utils.chat_template_utils import _compile_jinja_template
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)

warnings.simplefilter("ignore")
balora, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1500
rng = random.Random(int(os.environ.get("SEED", "0")))
CONTEXT = {"messages": [{"role": "user", "content": "Hi <b> & 'you'\n"}, {"role": "assistant", "content": "A b\tc", "n": 1}, {"role": "user", "content": "x"}], "tools": None,
           "xs": [3, 1, 2], "ws": ["b", "A", "c", "a"], "ds": [{"n": "p", "v": 2}, {"n": "Q", "v": 1}, {"n": "q", "v": 1.0}], "e": [], "s": "a,b,,C d", "t": "Hello World foo-bar_2", "u": "ünï ΟΔΟΣ Straße ŉ ǆ",
           "d": {"k": 1, "Z": [1, "t'", {"u": None}], "b": True, "f": 2.0}, "nul": None, "i": -7, "f": 2.5, "g": 1e16, "big": 9007199254740993, "m": "l1\r\n l2\n\n\x0bl3 ", "z": {}, "q": "", "p": [["a", 1], ["b", 2]]}
TEXTS = ["'a'", "'b,c'", "''", "'aXb x'", "' x '", "'%s'", "'%d'", "'é'", "'12'", "'1e3'", "'-4.5'", "'a\\nb'", "'ab' 'c'", "'<'", "'{}'", "'ß'", "'1_0'", "'inf'"]
NUMBERS = ["0", "1", "2", "-1", "3", "2.5", "-0.5", "1e3", "10", "7", "1.0"]
NAMES = list(CONTEXT) + ["missing"]
FILTERS = {"abs": 0, "attr": 1, "batch": 2, "capitalize": 0, "center": 1, "count": 0, "d": 2, "default": 2, "dictsort": 3, "e": 0, "escape": 0, "first": 0, "float": 1, "forceescape": 0, "format": 2, "groupby": 2, "indent": 3, "int": 2,
           "items": 0, "join": 2, "last": 0, "length": 0, "list": 0, "lower": 0, "map": 2, "max": 2, "min": 2, "reject": 2, "rejectattr": 3, "replace": 3, "reverse": 0, "round": 2, "safe": 0, "select": 2, "selectattr": 3, "sort": 3, "string": 0,
           "sum": 2, "title": 0, "tojson": 4, "trim": 1, "truncate": 4, "unique": 2, "upper": 0, "wordcount": 0, "slice": 2}
NAMED = {"tojson": ["indent=2", "ensure_ascii=true", "sort_keys=true", "separators=(',',':')", "indent=none"], "sort": ["attribute='n'", "reverse=true", "case_sensitive=true", "attribute='v,n'"], "map": ["attribute='n'", "attribute='v', default=0", "'upper'", "'int'", "attribute='content'"],
         "groupby": ["'n'", "'v'", "'role'", "attribute='n', case_sensitive=true"], "selectattr": ["'n'", "'v', 'eq', 1", "'n', 'in', ['p']", "'role', 'equalto', 'user'"], "rejectattr": ["'n'", "'v', 'gt', 1"], "select": ["'string'", "'gt', 1", ""], "reject": ["'none'", "'odd'"],
         "indent": ["2", "width=3, first=true", "'> '", "2, blank=true"], "default": ["'d'", "'d', true", "none"], "dictsort": ["by='value'", "true", "reverse=true"], "join": ["', '", "attribute='n'", "'-', attribute='v'"], "max": ["attribute='v'"], "sum": ["attribute='v'", "start=1"], "truncate": ["5", "4, true", "6, false, '~'", "5, leeway=0"],
         "batch": ["2", "2, 'x'"], "round": ["1", "1, 'ceil'", "0, 'floor'", "-1"], "replace": ["'a', 'b'", "'x', ''", "' ', '_', 1"], "trim": ["'a'", "' x'"], "unique": ["true", "attribute='n'"], "int": ["7", "0, 16"], "float": ["1.5"], "attr": ["'n'", "'items'"], "format": ["1", "'a', 2"], "center": ["9", "width=4"], "slice": ["2"]}
TESTS = {"defined": 0, "undefined": 0, "none": 0, "boolean": 0, "true": 0, "false": 0, "integer": 0, "float": 0, "number": 0, "string": 0, "mapping": 0, "sequence": 0, "iterable": 0, "callable": 0, "odd": 0, "even": 0, "divisibleby": 1, "eq": 1, "ne": 1, "lt": 1, "gt": 1, "ge": 1, "le": 1, "in": 1, "sameas": 1, "lower": 0, "upper": 0, "escaped": 0, "filter": 0, "test": 0}
METHODS = {"strip": ["", "'a'", "' x'"], "lstrip": ["", "'a'"], "rstrip": ["", "'\\n'"], "split": ["", "','", "' '", "',', 1", "none, 1", "sep=','", "maxsplit=1"], "rsplit": ["", "',', 1", "none, 1"], "splitlines": ["", "true"], "startswith": ["'a'", "('a', 'H')", "['a']"], "endswith": ["'b'", "('x',)"],
           "upper": [""], "lower": [""], "title": [""], "capitalize": [""], "swapcase": [""], "casefold": [""], "replace": ["'a', 'b'", "' ', ''", "'l', 'L', 1"], "find": ["'b'", "'zz'", "''"], "rfind": ["'b'", "'l'"], "index": ["'a'", "1"], "rindex": ["'l'"], "count": ["'a'", "'l'", "1", "''"], "join": ["ws", "xs", "'abc'", "e"],
           "removeprefix": ["'a'", "'H'"], "removesuffix": ["'d'"], "partition": ["','", "' '"], "rpartition": ["','"], "isdigit": [""], "isalpha": [""], "isalnum": [""], "isspace": [""], "isupper": [""], "islower": [""], "isdecimal": [""], "isnumeric": [""], "isascii": [""], "istitle": [""], "zfill": ["5"], "ljust": ["4", "6, '*'"], "rjust": ["4"], "center": ["7", "8, '.'"],
           "format": ["1", "'a', 2", "n=3"], "get": ["'k'", "'no'", "'no', 5", "'k', default=1"], "items": [""], "keys": [""], "values": [""], "copy": [""], "append": ["1"], "pop": [""], "update": ["{}"], "nope": [""], "encode": [""], "expandtabs": [""]}
FORMATS = ["'%s|%s'", "'%5s|'", "'%-5s|'", "'%05d'", "'%.1f'", "'%r'", "'%x'", "'%#o'", "'%+d'", "'%.3d'", "'%05.3d'", "'%e'", "'%g'", "'%%'", "'%.2s'", "'%5.1f'", "'%c'", "'%(k)s'", "'% d'"]
BRACES = ["'{}'", "'{0}-{0}'", "'{:>5}'", "'{:05d}'", "'{:.2f}'", "'{:,}'", "'{:<4}|'", "'{:^7}|'", "'{:*^7}|'", "'{:x}'", "'{:#x}'", "'{:+}'", "'{:e}'", "'{:%}'", "'{'", "'}'", "'{{}}'", "'{n}'", "'{0.real}'", "'{!r}'", "'{:10.3}|'", "'{:g}'", "'{} {0}'"]


def atom(depth):
    r = rng.random()
    if r < 0.45:
        return rng.choice(NAMES)
    if r < 0.6:
        return rng.choice(TEXTS)
    if r < 0.75:
        return rng.choice(NUMBERS)
    if r < 0.8:
        return rng.choice(["true", "false", "none", "[]", "{}", "()", "range(3)", "range(5, 0, -2)", "dict(a=1)", "(1, 'a')", "[1, [2]]", "{'a': 1, 'B': 2}"])
    if depth <= 0:
        return rng.choice(NAMES)
    if r < 0.85:
        return "[" + ", ".join(expression(depth - 1) for _ in range(rng.randrange(3))) + "]"
    if r < 0.9:
        return "{'k': " + expression(depth - 1) + "}"
    return "(" + expression(depth - 1) + ")"


def args_of(name, n, depth):
    if name in NAMED and rng.random() < 0.7:
        return rng.choice(NAMED[name])
    return ", ".join(atom(0) for _ in range(rng.randrange(n + 1)))


def expression(depth=3):
    r = rng.random()
    if depth <= 0 or r < 0.12:
        return atom(depth)
    a = lambda: expression(depth - 1)
    if r < 0.3:
        name = rng.choice(list(FILTERS))
        args = args_of(name, FILTERS[name], depth)
        return f"{postfix(depth - 1)} | {name}" + (f"({args})" if args or rng.random() < 0.1 else "")
    if r < 0.4:
        name = rng.choice(list(TESTS))
        arg = f"({atom(0)})" if TESTS[name] else ""
        return f"({postfix(depth - 1)} is {rng.choice(['', '', 'not '])}{name}{arg if rng.random() < 0.95 else '(1)'})"
    if r < 0.55:
        name = rng.choice(list(METHODS))
        return f"{postfix(depth - 1)}.{name}({rng.choice(METHODS[name])})"
    if r < 0.6:
        return f"{rng.choice(FORMATS)} % {rng.choice([a(), '(1, 2)', '(3,)', 'f', 'i', 's', 'd', 'xs'])}"
    if r < 0.65:
        return f"{rng.choice(BRACES)}.format({rng.choice(['1', 'f', 's', 'i, f', 'n=1', 'big', 'u', 'nul', 'g', '-0.5', 'xs'])})"
    if r < 0.75:
        return f"{a()} {rng.choice(['+', '-', '*', '/', '//', '%', '**', '~', '~', '+'])} {a()}"
    if r < 0.83:
        return f"({a()} {rng.choice(['==', '!=', '<', '>', '<=', '>=', 'in', 'not in', 'and', 'or'])} {a()})"
    if r < 0.87:
        return f"({rng.choice(['not ', '-', '+'])}{a()})"
    if r < 0.92:
        return f"({a()} if {a()}{' else ' + a() if rng.random() < 0.8 else ''})"
    return postfix(depth)


def postfix(depth):
    x = atom(depth)
    if " " in x or x[0] in "-+":
        x = f"({x})"
    r = rng.random()
    if r < 0.15:
        return f"{x}[{rng.choice(['0', '-1', '1', repr('k'), repr('n'), '9', '1.0', 'nul'])}]"
    if r < 0.3:
        b = lambda: rng.choice(["", "0", "1", "-1", "2", "-3", "9", "nul"])
        return f"{x}[{b()}:{b()}{rng.choice(['', '', ':' + rng.choice(['', '1', '2', '-1', '-2', '3'])])}]"
    if r < 0.4:
        return f"{x}.{rng.choice(['k', 'n', 'content', 'role', 'items', 'nope', '0', 'real', '_x'])}"
    return x


SPACE = ["", "", " ", "\n", "  \n", "\n\n  ", "\t", "x\n", " y ", "\r\n", "é\n  "]


def tag(body):
    return "{%" + rng.choice(["", "", "", "-", "+"]) + f" {body} " + rng.choice(["", "", "", "-", "+"]) + "%}"


def output(x):
    return "{{" + rng.choice(["", "", "", "-"]) + f" {x} " + rng.choice(["", "", "", "-"]) + "}}"


names = ["v", "w", "xs", "s", "ns", "loop"]


def block(depth):
    return "".join(rng.choice(SPACE) + statement(depth) for _ in range(rng.randrange(1, 4))) + rng.choice(SPACE)


def statement(depth):
    r = rng.random()
    if depth <= 0 or r < 0.3:
        return output(rng.choice([expression(1), "v", "w", "loop.index", "loop.last", "loop.length", "loop.previtem", "loop.nextitem", "loop.cycle('a', 'b')", "loop.changed(v)", "loop.depth", "loop.revindex0", "ns.n", "f(1)", "f(1, 2, 3)", "f(b=1)", "f(zz=1)", "caller()", "varargs", "kwargs"]))
    if r < 0.42:
        return tag(f"if {expression(1)}") + block(depth - 1) + (tag(f"elif {expression(1)}") + block(depth - 1) if rng.random() < 0.3 else "") + (tag("else") + block(depth - 1) if rng.random() < 0.5 else "") + tag("endif")
    if r < 0.6:
        target = rng.choice(["v", "v", "w", "v, w", "(v, w)"])
        over = rng.choice(["xs", "ws", "e", "p", "d.items()", "d | items", "range(3)", "messages", "s", "ds | map(attribute='n')", "xs | select('odd')", "ws | reverse", "d", expression(1)])
        if target != "v" and rng.random() < 0.7:
            over = "p"
        return tag(f"for {target} in {over}{rng.choice(['', '', ' if v', ' if loop.first', ' if v != 1'])}") + block(depth - 1) + (rng.choice(["", tag("if v") + tag(rng.choice(["break", "continue"])) + tag("endif"), tag("continue")]) if rng.random() < 0.3 else "") + (tag("else") + block(depth - 1) if rng.random() < 0.4 else "") + tag("endfor")
    if r < 0.72:
        return rng.choice([tag(f"set v = {expression(2)}"), tag(f"set v, w = {expression(1)}, 1"), tag("set v") + block(depth - 1) + tag("endset"), tag("set v | upper") + block(depth - 1) + tag("endset"), tag("set ns = namespace(n=0)"), tag("set ns.n = ns.n + 1"), tag(f"set ns.n = {expression(1)}"), tag("set g = ws | map('upper')"), output("g | list"), output("g | first")])
    if r < 0.82:
        return tag(f"macro f({rng.choice(['a', 'a, b=2', '', 'a=1, b=a', 'a, caller', 'b=1, a'])})") + block(depth - 1) + tag("endmacro") + rng.choice(["", output("f(1)"), tag(f"call f({rng.choice(['', '1', '1, 2'])})") + block(depth - 1) + tag("endcall"), tag("call(v) f(1)") + output("v") + tag("endcall")])
    if r < 0.88:
        return tag(f"with v = {expression(1)}, w = v") + block(depth - 1) + tag("endwith")
    if r < 0.92:
        return tag(f"filter {rng.choice(['upper', 'trim', 'replace(1, 2)', 'indent(2)', 'title'])}") + block(depth - 1) + tag("endfilter")
    if r < 0.95:
        return "{#" + rng.choice(["", "-", "+"]) + " c\n " + rng.choice(["", "-"]) + "#}"
    if r < 0.97:
        return tag("raw") + rng.choice(SPACE) + "{{ x }}{%" + rng.choice(SPACE) + tag("endraw")
    return tag("generation") + block(depth - 1) + tag("endgeneration")


def template():
    if rng.random() < 0.6:
        return " ".join(output(expression(rng.choice([1, 2, 2, 3]))) + "|" for _ in range(rng.randrange(1, 3)))
    return block(2)


def peer(text):
    try:
        return _compile_jinja_template(text).render(**copy.deepcopy(CONTEXT))
    except RecursionError:
        return BREAKS
    except Exception as e:
        return e


BREAKS = object()
TOKENIZER = {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None, "model": {"type": "WordLevel", "vocab": {"[UNK]": 0}, "unk_token": "[UNK]"}}


def ours(folder, i, text):
    path = os.path.join(folder, f"{i}.jinja")
    with open(path, "w", encoding="utf-8", newline="") as f:
        f.write(text)
    line = {"messages": CONTEXT["messages"], "chat_template_kwargs": {k: v for k, v in CONTEXT.items() if k not in ("messages", "tools")}}
    p = subprocess.run([balora, "tokenize", "--tokenizer", folder, "--chat", "--chat-template", path], input=json.dumps(line) + "\n", capture_output=True, encoding="utf-8", errors="replace")
    os.unlink(path)
    if p.returncode == 0:
        return json.loads(p.stdout)["text"], ""
    return (None, p.stderr.strip()) if p.returncode == 3 else (f"status {p.returncode}", p.stderr.strip())


equal = agreed = refused = bad = 0
sentences = collections.Counter()
with tempfile.TemporaryDirectory() as folder:
    with open(os.path.join(folder, "tokenizer.json"), "w") as f:
        json.dump(TOKENIZER, f)
    texts = [template() for _ in range(count)]
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda x: ours(folder, *x), enumerate(texts)))
    for text, (got, message) in zip(texts, answers):
        want = peer(text)
        if want is BREAKS or (isinstance(want, str) and " object at 0x" in want):
            if got is not None:
                print("FAIL  what is no text of its own is written:", text, "\n      got ", repr(got))
                bad += 1
        elif isinstance(want, str):
            equal += got == want
            if got is None:
                refused += 1
                sentences[message.split(": ", 1)[-1].split(", line ", 1)[-1].split(": ", 1)[-1]] += 1
                if os.environ.get("SHOW") and not any(x in message for x in ("not supported", "64 bits", "use |list")):
                    print("refused", repr(text), "\n      want", repr(want), "\n     ", message)
            elif got != want:
                bad += 1
                print("FAIL ", repr(text), "\n      want", repr(want), "\n      got ", repr(got), message)
        elif got is None:
            agreed += 1
        else:
            bad += 1
            print("FAIL  Jinja refuses", repr(text), "\n      with", repr(want)[:200], "\n      got ", repr(got), message)
if os.environ.get("SHOW"):
    for sentence, n in sentences.most_common(60):
        print(f"{n:5} {sentence}")
print(f"{count} templates: {equal} renderings equal, {agreed} refused by both, {refused} refused here only, {bad} different")
sys.exit(1 if bad else 0)
