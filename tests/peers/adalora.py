#!/usr/bin/env python3
"""AdaLoRA beside peft: the same start, the same records, AdamW; after every step the elements of E and which ranks are
left must be the same, and the folders at the end must be read by the other program with the same logits.  (Steps are
counted from 1 in both.)
usage: tests/peers/adalora.py BALORA
Says "skipped" where a package is missing.  SPDX-License-Identifier: Apache-2.0"""
import json
import os
import sys
import tempfile
import warnings

from beside import IDS, check, difference, end, logits, run

SOME = ["down_proj", "q_proj", "v_proj"]
STEPS, BATCH, RECORDS = 30, 4, 40
warnings.filterwarnings("ignore")

try:
    import torch
    import peft
    import transformers
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM
except ImportError as e:
    print("skipped:", e)
    sys.exit(0)

CASES = [
    ("defaults", {}),
    ("tinit 4, tfinal 6, every 2 steps", {"tinit": 4, "tfinal": 6, "deltaT": 2}),
    ("target_r 1, other decays", {"target_r": 1, "tinit": 2, "tfinal": 3, "beta1": 0.6, "beta2": 0.9}),
    ("no orthogonality", {"orth_reg_weight": 0.0, "tfinal": 5}),
    ("every 7 steps", {"tinit": 1, "tfinal": 4, "deltaT": 7}),
]


def train_theirs(model, rows):
    """E of every module, the ranks that are left and the loss, after each step."""
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01, weight_decay=0.01)
    seen = []
    model.train()
    for step in range(1, STEPS + 1):
        first = (step - 1) * BATCH
        batch = torch.tensor([rows[i % RECORDS] for i in range(first, first + BATCH)])
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        model.base_model.update_and_allocate(step)
        optimiser.zero_grad()
        E = {n.replace(".default", ""): p.detach().clone() for n, p in model.named_parameters() if ".lora_E." in n}
        seen.append((E, loss.item()))
    return seen


def main(folder):
    def path(name):
        return os.path.join(folder, name)
    torch.manual_seed(5)
    config = LlamaConfig(vocab_size=64, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
                         tie_word_embeddings=False, initializer_range=0.2)
    LlamaForCausalLM(config).save_pretrained(path("model"))
    rows = torch.randint(0, 64, (RECORDS, 9)).tolist()
    with open(path("ids.json"), "w") as f:
        json.dump({"input_ids": IDS}, f)
    with open(path("data.jsonl"), "w") as f:
        for row in rows:
            f.write(json.dumps({"input_ids": row, "labels": row}) + "\n")

    def base():
        return AutoModelForCausalLM.from_pretrained(path("model"), dtype=torch.float32)

    def ours(adapter):
        run("forward", "--model", path("model"), "--adapter", adapter, "--input", path("ids.json"), "--out",
            path("out.safetensors"))
        return load_file(path("out.safetensors"))["logits"]

    plain = logits(base())
    for name, words in CASES:
        settings = {"init_r": 6, "target_r": 3, "lora_alpha": 9, "total_step": STEPS, **words}
        torch.manual_seed(3)
        model = peft.get_peft_model(base(), peft.AdaLoraConfig(task_type="CAUSAL_LM", target_modules=SOME, **settings))
        start, out, theirs = path("start-" + name), path("ours-" + name), path("theirs-" + name)
        model.save_pretrained(start)
        run("train", "--model", path("model"), "--data", path("data.jsonl"), "--format", "tokens", "--method",
            "adalora", "--adapter", start, "--order", "file", "--lr", "0.01", "--lr-scheduler", "constant",
            "--weight-decay", "0.01", "--max-steps", str(STEPS), "--batch-size", str(BATCH), "--no-store", "--out", out,
            "--save-steps", "1", "--save-total-limit", "100", "--metrics-out", path("metrics.jsonl"))
        with open(path("metrics.jsonl")) as f:
            metrics = [json.loads(line) for line in f]
        worst, apart, loss, ranks, changes = 0.0, 0, 0.0, [], 0
        before = None
        for step, (E, total) in enumerate(train_theirs(model, rows), 1):
            mine = load_file(os.path.join(out, f"checkpoint-{step}", "adapter_model.safetensors"))
            a = torch.cat([mine[k].flatten() for k in E])
            b = torch.cat([E[k].flatten() for k in E])
            worst = max(worst, difference(a, b) if torch.isfinite(a).all() else float("nan"))
            apart += int(((a == 0) != (b == 0)).sum())
            changes += before is not None and not torch.equal(before, b == 0)
            before = b == 0
            loss = max(loss, abs(metrics[step - 1]["loss/total"] - total))
            ranks.append(int((b != 0).sum()))
        check(name, worst < 1e-4 and apart == 0 and loss < 1e-5 and changes > 1 and ranks[-1] < ranks[0],
              f"{STEPS} steps: E differs by {worst:.2g}, {apart} ranks by their mask, losses by {loss:.2g}; ranks "
              f"{ranks[0]} to {ranks[-1]}, {changes} steps with another choice")

        model.save_pretrained(theirs)
        with open(os.path.join(out, "adapter_config.json")) as f:
            mine = json.load(f)["rank_pattern"]
        with open(os.path.join(theirs, "adapter_config.json")) as f:
            want = json.load(f)["rank_pattern"]
        check("  rank_pattern", mine == want, f"{sum(sum(v) for v in mine.values())} ranks of {len(mine)} modules")
        z = logits(peft.PeftModel.from_pretrained(base(), out))
        d, moved = difference(ours(out), z), difference(z, plain)
        check("  written here", d < 2e-6 and moved > 1e-3, f"logits differ by {d:.2g} (moved by {moved:.2g})")
        z = logits(model)
        again = difference(logits(peft.PeftModel.from_pretrained(base(), theirs)), z)
        d = difference(ours(theirs), z)
        check("  written by peft", d < 2e-6 and again < 2e-6,
              f"logits differ by {d:.2g} from the trained model's, by {again:.2g} in peft itself")
        run("convert", "--adapter", out, "--model", path("model"), "--to", "lora", "--out", path("plain"),
            "--overwrite")
        d = difference(logits(peft.PeftModel.from_pretrained(base(), path("plain"))), ours(out))
        check("  as a LoRA in peft", d < 2e-6, f"logits differ by {d:.2g}")


print("peft", peft.__version__, "transformers", transformers.__version__, "torch", torch.__version__)
with tempfile.TemporaryDirectory() as work:
    main(work)
end()
