"""What the scripts of this folder share: running balora, and saying what was compared.  SPDX-License-Identifier: Apache-2.0"""
import subprocess
import sys

IDS = [[3, 7, 1, 9, 30, 2, 44, 5], [5, 5, 0, 17, 22, 8, 11]]
failed = 0


def run(*words):
    subprocess.run([sys.argv[1], *words, "--quiet"], check=True, stdout=subprocess.DEVNULL)


def check(what, good, text):
    """good must be True: a comparison with NaN is not."""
    global failed
    failed += not good
    print(("ok    " if good else "FAIL  ") + what + ": " + text, flush=True)


def logits(model):
    """Of a transformers model, the rows of IDS one below the other."""
    import torch
    model.eval()
    with torch.no_grad():
        return torch.cat([model(input_ids=torch.tensor([row])).logits[0] for row in IDS])


def difference(a, b):
    """Largest difference over the largest of b."""
    return ((a - b).abs().max() / b.abs().max()).item()


def end():
    sys.exit(1 if failed else 0)
