"""hf_score.py MODEL REQUESTS THREADS: log-likelihoods of {"context", "continuation"} lines with transformers, in f32, batches
of 8 by falling length, padded on the right, log-softmax over the whole vocabulary. Prints tokens/s of the second of two
runs. SPDX-License-Identifier: Apache-2.0"""
import json, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

torch.set_num_threads(int(sys.argv[3]))
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
requests = []
for line in open(sys.argv[2]):
    r = json.loads(line)
    requests.append((tokenizer(r["context"]).input_ids, tokenizer(r["continuation"]).input_ids))
requests.sort(key=lambda r: -len(r[0]) - len(r[1]))


def score(batch):
    ids = [c + t for c, t in batch]
    width = max(map(len, ids)) - 1
    x = torch.tensor([i[:-1] + [0] * (width + 1 - len(i)) for i in ids])
    p = torch.log_softmax(model(input_ids=x).logits, dim=-1, dtype=torch.float32)
    return sum(float(p[j, len(c) - 1:len(c) - 1 + len(t)].gather(-1, torch.tensor(t)[:, None]).sum())
               for j, (c, t) in enumerate(batch))


with torch.no_grad():
    score(requests[-8:])  # warm
    start = time.monotonic()
    total = sum(score(requests[i:i + 8]) for i in range(0, len(requests), 8))
    seconds = time.monotonic() - start
print(json.dumps({"value": sum(len(c) + len(t) for c, t in requests) / seconds, "unit": "tokens/s", "seconds": seconds, "sum": total}))
