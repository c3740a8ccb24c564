# The wire between the two interpreters of one judged program.  SPDX-License-Identifier: Apache-2.0
# The program lives in one process and its checks in another.  Only plain values cross: numbers, texts, containers and
# a few types of the standard library, each rebuilt from its parts with the methods of the base type, so that an
# object's own __eq__ never takes part in a check.  Anything else stays where it is and is named by a number.
import sys
from os import read as _read, write as _write

MOST = 1 << 26  # bytes of one message
DEEP = 200
sys.path[:] = [folder for folder in sys.path if folder]  # not the folder that the program writes to


class Remote:
    """An object of the other process."""
    __slots__ = ("_peer", "_id")

    def __init__(self, peer, number):
        object.__setattr__(self, "_peer", peer)
        object.__setattr__(self, "_id", number)

    def __getattr__(self, name):
        return self._peer.ask("getattr", self, name)

    def __setattr__(self, name, value):
        self._peer.ask("setattr", self, name, value)

    def __call__(self, *args, **named):
        return self._peer.call(self, args, named)

    def __eq__(self, other):
        if type(other) is not Remote:
            return False  # its own __eq__ has no say about plain values
        return self._id == other._id or bool(self._peer.ask("eq", self, other))

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash(self._id)

    def __bool__(self):
        return bool(self._peer.ask("bool", self))

    def __iter__(self):
        return self._peer.ask("iter", self)

    def __next__(self):
        return self._peer.ask("next", self)

    def __len__(self):
        return self._peer.ask("len", self)

    def __getitem__(self, key):
        return self._peer.ask("getitem", self, key)

    def __setitem__(self, key, value):
        self._peer.ask("setitem", self, key, value)

    def __contains__(self, value):
        return bool(self._peer.ask("contains", self, value))

    def __str__(self):
        return str(self._peer.ask("str", self))

    def __repr__(self):
        return str(self._peer.ask("repr", self))


class Failure(Exception):
    """An exception of a class that the other process does not have."""


PURE = {f.__name__: f for f in (
    int, float, complex, bool, str, bytes, bytearray, list, tuple, dict, set, frozenset, range, object, type(None),
    type, len, sum, min, max, sorted, abs, round, divmod, pow, ord, chr, hex, bin, oct, repr, any, all, zip, map,
    filter, enumerate, reversed, isinstance, hash)}
BASES = ((bool, b"?"), (int, b"i"), (float, b"f"), (complex, b"c"), (str, b"s"), (bytes, b"b"), (bytearray, b"y"),
         (list, b"l"), (tuple, b"t"), (dict, b"d"), (set, b"u"), (frozenset, b"z"))
TAGS = dict(BASES)
KINDS = (("collections", "deque", b"D"), ("collections", "OrderedDict", b"O"), ("collections", "Counter", b"C"),
         ("collections", "defaultdict", b"d"), ("fractions", "Fraction", b"F"), ("decimal", "Decimal", b"M"),
         ("datetime", "datetime", b"1"), ("datetime", "date", b"2"), ("datetime", "time", b"3"))


def kind_of(cls):
    tag = TAGS.get(cls)
    if tag is not None:
        return tag
    for module, name, tag in KINDS:
        if module in sys.modules and cls is getattr(sys.modules[module], name, None):
            return tag
    for base, tag in BASES:
        if issubclass(cls, base):
            return tag
    return b"h"


class Peer:
    def __init__(self, source, sink, trusted):
        self.source, self.sink, self.trusted = source, sink, trusted
        self.given, self.numbers = [], {}

    # values to bytes
    def put(self, v, out, depth=0):
        if depth > DEEP:
            raise RecursionError("a value is nested too deeply")
        if v is None:
            out.append(b"n")
            return
        tag = kind_of(type(v))
        if tag == b"?":
            out.append(b"T" if v else b"N")
        elif tag == b"i":
            out.append(b"i%x;" % int.__pos__(v) if v >= 0 else b"i-%x;" % int.__neg__(v))
        elif tag == b"f":
            out.append(b"f" + float.hex(v).encode() + b";")
        elif tag == b"c":
            out.append(b"c")
            self.put(complex.__pos__(v).real, out, depth)
            self.put(complex.__pos__(v).imag, out, depth)
        elif tag == b"s":
            self.raw(tag, str.encode(v, "utf-8", "surrogatepass"), out)
        elif tag in (b"b", b"y"):
            self.raw(tag, bytes(v), out)
        elif tag in (b"l", b"t", b"u", b"z", b"D"):
            items = list(v) if tag == b"D" else list(TYPES[tag].__iter__(v))
            out.append(tag + b"%x;" % len(items))
            for item in items:
                self.put(item, out, depth + 1)
        elif tag in (b"d", b"O", b"C"):
            items = list(dict.items(v))
            out.append(tag + b"%x;" % len(items))
            for key, item in items:
                self.put(key, out, depth + 1)
                self.put(item, out, depth + 1)
        elif tag in (b"F", b"M"):
            self.raw(tag, str(v).encode(), out)
        elif tag in (b"1", b"2", b"3"):
            self.raw(tag, v.isoformat().encode(), out)
        else:
            self.handle(v, out)

    def raw(self, tag, data, out):
        out.append(tag + b"%x;" % len(data))
        out.append(data)

    def handle(self, v, out):
        if type(v) is Remote:
            out.append(b"H%x;" % v._id)  # it goes home
            return
        if type(v) is range:
            out.append(b"r")
            for n in (v.start, v.stop, v.step):
                self.put(n, out)
            return
        name = getattr(v, "__name__", None)
        if type(name) is str and PURE.get(name) is v:
            self.raw(b"B", name.encode(), out)
        elif type(v) is type(sys) and v.__name__ in MODULES:
            self.raw(b"m", v.__name__.encode(), out)
        else:
            number = self.numbers.get(id(v))
            if number is None:
                number = self.numbers[id(v)] = len(self.given)
                self.given.append(v)  # kept alive, so that its id stays its own
            out.append(b"h%x;" % number)

    # bytes to values
    def take(self, data, at=0, depth=0):
        if depth > DEEP:
            raise RecursionError("a value is nested too deeply")
        tag = data[at:at + 1]
        at += 1
        if tag in (b"n", b"T", b"N"):
            return {b"n": None, b"T": True, b"N": False}[tag], at
        if tag in (b"c", b"r"):
            parts = []
            for _ in range(2 if tag == b"c" else 3):
                v, at = self.take(data, at, depth + 1)
                parts.append(v)
            return (complex if tag == b"c" else range)(*parts), at
        end = data.index(b";", at)
        head = data[at:end].decode()
        at = end + 1
        if tag == b"i":
            return int(head, 16), at
        if tag == b"f":
            return float.fromhex(head), at
        n = int(head, 16)
        if tag == b"h":
            return Remote(self, n), at
        if tag == b"H":
            return self.given[n], at
        if tag in (b"l", b"t", b"u", b"z", b"D"):
            items = []
            for _ in range(n):
                v, at = self.take(data, at, depth + 1)
                items.append(v)
            if tag == b"l":
                return items, at
            return (standard("collections").deque if tag == b"D" else TYPES[tag])(items), at
        if tag in (b"d", b"O", b"C"):
            items = {}
            for _ in range(n):
                key, at = self.take(data, at, depth + 1)
                items[key], at = self.take(data, at, depth + 1)
            if tag == b"d":
                return items, at
            return getattr(standard("collections"), "OrderedDict" if tag == b"O" else "Counter")(items), at
        if n < 0 or n > len(data) - at:
            raise ValueError("a message is cut")
        return self.build(tag, data[at:at + n]), at + n

    def build(self, tag, part):
        if tag == b"s":
            return part.decode("utf-8", "surrogatepass")
        if tag == b"b":
            return part
        if tag == b"y":
            return bytearray(part)
        text = part.decode()
        if tag == b"B":
            return PURE[text]
        if tag == b"m":
            return standard(text)
        if tag == b"F":
            return standard("fractions").Fraction(text)
        if tag == b"M":
            return standard("decimal").Decimal(text)
        names = {b"1": "datetime", b"2": "date", b"3": "time"}
        return getattr(standard("datetime"), names[tag]).fromisoformat(text)

    # messages
    def send(self, value):
        out = []
        self.put(value, out)
        data = b"".join(out)
        if len(data) > MOST:
            raise MemoryError("a value is too large to be checked")
        data = len(data).to_bytes(8, "little") + data
        while data:
            data = data[_write(self.sink, data):]

    def exactly(self, n):
        parts = []
        while n:
            part = _read(self.source, min(n, 1 << 20))
            if not part:
                raise EOFError("the program ended")
            parts.append(part)
            n -= len(part)
        return b"".join(parts)

    def receive(self):
        n = int.from_bytes(self.exactly(8), "little")
        if n > MOST:
            raise ValueError("a value is too large to be checked")
        return self.take(self.exactly(n))[0]

    def bytes_of(self, value):
        out = []
        self.put(value, out)
        return b"".join(out)

    # asking the other side
    def answer(self):
        while True:
            message = self.receive()
            if message[0] == "value":
                return message
            if message[0] == "raised":
                cls = getattr(sys.modules["builtins"], message[1], None)
                if not (isinstance(cls, type) and issubclass(cls, BaseException)):
                    raise Failure("%s: %s" % (message[1], message[2]))
                try:
                    problem = cls(message[2])
                except TypeError:
                    problem = Failure("%s: %s" % (message[1], message[2]))
                raise problem
            self.serve(message)  # it asks back before it answers

    def ask(self, op, *args):
        self.send(("do", op) + args)
        return self.answer()[1]

    def call(self, function, args, named):
        self.send(("call", function, args, named))
        message = self.answer()
        for i, value in message[2].items():  # arguments that were changed in place
            mine = args[i]
            if isinstance(mine, (list, bytearray)):
                mine[:] = value
            elif isinstance(mine, (dict, set)) or hasattr(mine, "extend"):
                mine.clear()
                (mine.extend if hasattr(mine, "extend") else mine.update)(value)
        return message[1]

    def serve(self, message):
        try:
            if message[0] == "call":
                function, args, named = message[1:]
                before = [self.bytes_of(a) if isinstance(a, (list, dict, set, bytearray)) or hasattr(a, "extend")
                          else None for a in args]
                value = function(*args, **named)
                changed = {i: a for i, a in enumerate(args) if before[i] is not None and self.bytes_of(a) != before[i]}
                self.send(("value", value, changed))
            else:
                self.send(("value", self.do(*message[1:])))
        except BaseException as problem:
            self.send(("raised", type(problem).__name__, text_of(problem)))

    def do(self, op, *args):
        if self.trusted and op in ("getattr", "setattr", "setitem"):
            raise AttributeError("the checks' own objects are closed")
        return OPS[op](*args)


def text_of(problem):
    try:
        return str(problem)[:300]
    except BaseException:
        return ""


def setitem(object, key, value):
    object[key] = value


OPS = {"getattr": getattr, "setattr": setattr, "eq": lambda a, b: a == b, "bool": bool, "iter": iter, "next": next,
       "len": len, "getitem": lambda o, k: o[k], "setitem": setitem, "contains": lambda o, v: v in o, "str": str,
       "repr": repr}
TYPES = {tag: base for base, tag in BASES}
MODULES = frozenset("math cmath collections itertools functools re string copy random heapq bisect operator datetime "
                    "time calendar typing statistics fractions decimal numbers textwrap json sys".split())


def standard(name):
    if name not in MODULES:
        raise ImportError("module '%s' is not for the checks" % name)
    __import__(name)
    return sys.modules[name]


def whole(fd):
    parts = []
    while True:
        part = _read(fd, 1 << 20)
        if not part:
            return b"".join(parts)
        parts.append(part)
