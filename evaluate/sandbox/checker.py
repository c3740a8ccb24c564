# The process of the checks: they alone know the word that says "passed".  SPDX-License-Identifier: Apache-2.0
def names_of(code, found):
    found.update(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            names_of(constant, found)
    return found


def main():
    word, _, text = whole(0).partition(b"\n")
    peer = Peer(3, 4, True)
    try:
        code = compile(text.decode("utf-8", "surrogatepass"), "<checks>", "exec")
        peer.answer()  # the program has run to its end
        space = peer.ask("names", sorted(n for n in names_of(code, set()) if not n.startswith("__")))
        exec(code, space)
    except BaseException as problem:
        word = b"!" + ("%s: %s" % (type(problem).__name__, text_of(problem))).encode("utf-8", "replace")[:400]
    while word:
        word = word[_write(5, word):]
