# The process of the judged program: runs it, then does what the checks ask.  SPDX-License-Identifier: Apache-2.0
def main():
    peer = Peer(3, 4, False)
    names = {}
    OPS["names"] = lambda wanted: {n: names[n] for n in wanted if n in names}
    try:
        exec(compile(whole(0).decode("utf-8", "surrogatepass"), "<program>", "exec"), names)
    except BaseException as problem:
        peer.send(("raised", type(problem).__name__, text_of(problem)))
        return
    peer.send(("value", None))
    try:
        while True:
            peer.serve(peer.receive())
    except EOFError:
        pass
