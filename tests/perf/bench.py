#!/usr/bin/env python3
"""make bench: our speed, as ratios to sgemm of the same process and, when they are there, to the peers.

BENCH=quick (default)  our own figures, three processes each; compared with tests/perf/baseline.json
BENCH=full             every row beside PyTorch + peft (PEERS, PYTHON, HF_MODEL) and llama.cpp (LLAMA): the programs in
                       turn, ROUNDS processes of each (default 3; the longest rows two), median ratio with its spread
SEVEN=1                also the 7B-shaped rows (see seven_rows)
Nothing else should run meanwhile. ROWS=regex picks rows, JSON=file (or --json) writes all figures, BASELINE=write renews
the baseline. SPDX-License-Identifier: Apache-2.0"""
import glob, gzip, json, os, re, shutil, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
ENV = os.environ.get
build = sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else "build/release"
BALORA = os.path.join(build, "balora")
SHARED = ENV("BALORA_SHARED", "../shared")
THREADS, ROUNDS, FULL = ENV("THREADS", "2"), int(ENV("ROUNDS", "3")), ENV("BENCH", "quick") == "full"
ONLY = re.compile(ENV("ROWS", "."))
found = sorted(glob.glob(os.path.join(SHARED, "models", "*", "*Q4_1.gguf")))
MODEL = ENV("MODEL") or (found[0] if found else "")
PEERS, PYTHON = ENV("PEERS", os.path.join(SHARED, "bench", "peers.py")), ENV("PYTHON", "python3")
HF, LLAMA = ENV("HF_MODEL", os.path.join(build, "peer-model")), ENV("LLAMA", "")
work = tempfile.mkdtemp(prefix="balora-bench-")
figures, table, failures = {}, [], []


def run(command, env=None):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True,
                          env=dict(os.environ, **(env or {}))).stdout.decode()


def last_json(text):
    return json.loads(text.strip().splitlines()[-1])


def bench(*words):
    return last_json(run([BALORA, "bench", *words, "--threads", THREADS]))


def step(*words, repeat=3, model=None):
    return bench("step", "--model", model or MODEL, "--repeat", str(repeat), *words)


def peer(*words):
    """The last line of peers.py; its own threads, our machine."""
    return last_json(run([PYTHON, PEERS, *words, "--threads", THREADS, "--data", os.path.join(SHARED, "data"),
                          "--patience", "1", "--wait", "0"]))


def torch_step(*words, reps=1):
    return peer("lora", "--model", HF, "--reps", str(reps), *words)


def spread(values):
    return "%.2f (%.2f-%.2f)" % (statistics.median(values), min(values), max(values))


def add(row, what, ask, ours, other=None, values=None, unit="tokens/s", least=True):
    """A line of the table. values: the pairwise ratios; without them `ours` is compared with the ask itself."""
    value = statistics.median(values) if values else ours
    ok = None if ask is None else (value >= ask if least else value <= ask)
    table.append((row, what, ours, other, spread(values) if values else "%.4g" % ours, ask, ok, unit))
    print("%-22s %-58s %10.4g %10s  %-22s %s%s %s" % (
        row, what, ours, "" if other is None else "%.4g" % other, table[-1][4] if values else unit,
        "" if ask is None else (">= " if least else "<= "), "" if ask is None else "%g" % ask,
        "" if ok is None else "met" if ok else "MISSED"), flush=True)


def versus(row, what, ask, ours, other, rounds=None, key="tokens_per_second", other_key="value", more=()):
    """Runs the peer and ours in turn. more: further of our commands against the same peer: (row, what, ask, function)."""
    if not ONLY.search(row):
        return None, None
    mine, theirs, extra = [], [], [[] for _ in more]
    for _ in range(min(ROUNDS, rounds or ROUNDS)):
        theirs.append(other())
        mine.append(ours())
        for i, m in enumerate(more):
            extra[i].append(m[3]())
    figures[row] = {"ours": mine, "peer": theirs}
    add(row, what, ask, statistics.median(m[key] for m in mine), statistics.median(t[other_key] for t in theirs),
        [m[key] / t[other_key] for m, t in zip(mine, theirs)])
    for (r, w, a, _), e in zip(more, extra):
        figures[r] = {"ours": e}
        add(r, w, a, statistics.median(x[key] for x in e), statistics.median(t[other_key] for t in theirs),
            [x[key] / t[other_key] for x, t in zip(e, theirs)])
    return mine, theirs


def guarded(fn, *a, **k):
    try:
        return fn(*a, **k)
    except (subprocess.CalledProcessError, json.JSONDecodeError, KeyError, OSError, IndexError) as e:
        failures.append("%s: %s" % (fn.__name__ if not a else a[0], str(e)[:300]))
        print("-- " + failures[-1], flush=True)
        return None, None


# ------------------------------------------------------------------ inputs
def write_rows():
    """8 real rows in the Alpaca prompt, as the peers' --rows gsm8k; requests to score and to generate."""
    gsm = os.path.join(SHARED, "data", "gsm8k")
    if not os.path.exists(os.path.join(gsm, "train.jsonl")):
        return None
    rows = []
    for i in range(8):
        text = run([BALORA, "data", "show", "--data", os.path.join(gsm, "train.jsonl"), "--format", "gsm8k", "--model", MODEL,
                    "--item", str(i), "--json"])
        rows.append(json.dumps(json.loads(text)["sequences"][0]))
    path = os.path.join(work, "rows.jsonl")
    open(path, "w").write("\n".join(rows) + "\n")
    test = [json.loads(l) for l in open(os.path.join(gsm, "test.jsonl"))]
    prompt = "Question: %s\nAnswer:"
    with open(os.path.join(work, "score.jsonl"), "w") as f:
        for it in test[:32]:
            f.write(json.dumps({"context": prompt % it["question"], "continuation": " " + it["answer"]}) + "\n")
    return path


def write_choices():
    """100 sentences with two answers each, as a multiple-choice task asks them."""
    path = os.path.join(work, "choices.jsonl")
    lines = open(os.path.join(SHARED, "data", "glue", "SST-2", "dev.tsv")).read().splitlines()[1:101]
    with open(path, "w") as f:
        for line in lines:
            context = line.split("\t")[0] + "\nQuestion: Is this sentence positive or negative?\nAnswer:"
            for answer in (" negative", " positive"):
                f.write(json.dumps({"context": context, "continuation": answer}) + "\n")
    return path


def answer(requests, *words):
    return last_json(run([BALORA, "evaluate", "--model", MODEL, "--requests", requests, "--out", os.path.join(work, "answers"),
                          "--threads", THREADS, "--db", os.path.join(work, "runs.db"), "--json", *words]))


def hf_score(requests):
    return last_json(run([PYTHON, os.path.join(HERE, "hf_score.py"), HF, requests, THREADS]))


def wall(command, n):
    times = []
    for _ in range(n):
        t = time.monotonic()
        run(command)
        times.append(1000 * (time.monotonic() - t))
    return statistics.median(times)


# ------------------------------------------------------------------ rows
LORA, BA = ("--method", "lora"), ("--method", "ba-lora-nlg")
HALF = ("--labelled", "0.5")


def own_rows(rows):
    """What needs no peer; the ratios to sgemm are what the baseline holds."""
    share = {}
    parts = {"lora": LORA, "lora_half": LORA + HALF, "ba_half": BA + HALF, "ba_cached": BA + HALF + ("--teacher-cached",),
             "lora_bf16": LORA + ("--compute", "bf16"), "ba_half_bf16": BA + HALF + ("--compute", "bf16"),
             "lora_half_bf16": LORA + HALF + ("--compute", "bf16")}
    got = {k: [] for k in parts}
    for _ in range(ROUNDS):
        for k, words in parts.items():
            got[k].append(step(*words))
    for k, v in got.items():
        share[k] = statistics.median(x["vs_sgemm"] for x in v)
    figures["own"] = got
    seconds = lambda k: [x["seconds"] for x in got[k]]
    ratios = lambda a, b: [x / y for x, y in zip(seconds(a), seconds(b))]
    add("share", "vs sgemm of the LoRA step, all rows labelled", .65, share["lora"], unit="of sgemm")
    native = all(x.get("bf16_native") for x in got["lora_bf16"])
    add("share bf16", "the same in bf16" + ("" if native else " (no such instructions here)"), .95 if native else None,
        share["lora_bf16"], unit="of sgemm")
    for row, a, b, ask in (("BA/LoRA", "ba_half", "lora_half", 1.5), ("BA/LoRA cached", "ba_cached", "lora_half", 1.15),
                           ("BA/LoRA bf16", "ba_half_bf16", "lora_half_bf16", 1.5)):
        add(row, "time of a BA-LoRA step over that of LoRA, half labelled", ask, statistics.median(seconds(a)),
            statistics.median(seconds(b)), ratios(a, b), unit="s", least=False)
    parts = {"prompt": ("prompt", "--tokens", "512"), "prompt_bf16": ("prompt", "--tokens", "512", "--compute", "bf16"),
             "decode": ("decode",), "decode_16": ("decode", "--sequences", "16")}
    for k, words in parts.items():
        v = [bench(words[0], "--model", MODEL, *words[1:]) for _ in range(ROUNDS)]
        figures[k] = {"ours": v}
        share[k] = statistics.median(x["vs_sgemm"] for x in v)
        add(k, "tokens/s; vs sgemm %.3f" % share[k], None, statistics.median(x["tokens_per_second"] for x in v))
    if rows:
        v = step(*LORA, "--rows", rows)
        share["lora_rows"] = v["vs_sgemm"]
        add("lora_rows", "8 real GSM8K rows; vs sgemm %.3f" % v["vs_sgemm"], None, v["tokens_per_second"])
    return share


def start_rows():
    add("start --version", "milliseconds of a process", 10, wall([BALORA, "--version"], 20), unit="ms", least=False)
    add("start inspect", "inspect MODEL", 50, wall([BALORA, "inspect", MODEL], 10), unit="ms", least=False)
    add("start token", "one token from the Q4_1 file", 100,
        wall([BALORA, "generate", "--model", MODEL, "--prompt", "Hello", "--max-new-tokens", "1", "--threads", THREADS], 10),
        unit="ms", least=False)


def train_rows(rows):
    bf16 = ("--compute", "bf16")
    mine, theirs = guarded(versus, "LoRA 1x512", "all rows labelled, PEFT f32", 1.35, lambda: step(*LORA),
                           lambda: torch_step("--mode", "lora", reps=2))
    if mine:
        peak = lambda m: m["peak_rss_bytes"] / 1e6 / 1.048576
        add("memory 1x512", "peak MB on the Q4_1 file over PEFT's", .25, peak(mine[0]), theirs[0]["peak_rss_mb"],
            [peak(m) / t["peak_rss_mb"] for m, t in zip(mine, theirs)], unit="MiB", least=False)
        full = step(*LORA, repeat=1, model=HF)
        add("memory 1x512 f32", "on the f32 base", .45, peak(full), theirs[0]["peak_rss_mb"],
            [peak(full) / theirs[0]["peak_rss_mb"]], unit="MiB", least=False)
    guarded(versus, "LoRA 1x512 half", "half labelled, PEFT f32", 1.5, lambda: step(*LORA, *HALF),
            lambda: torch_step("--mode", "lora", *HALF))
    guarded(versus, "LoRA 1x512 bf16", "PEFT bf16 autocast", 1.5, lambda: step(*LORA, *bf16),
            lambda: torch_step("--mode", "lora", "--precision", "autocast", reps=2))
    guarded(versus, "BA 1x512", "half labelled, official style f32", 1.7, lambda: step(*BA, *HALF),
            lambda: torch_step("--mode", "official", *HALF))
    guarded(versus, "BA 1x512 good", "half labelled, written well f32", 1.4, lambda: step(*BA, *HALF),
            lambda: torch_step("--mode", "good", *HALF))
    guarded(versus, "BA 1x512 bf16", "half labelled, official style bf16", 2.2, lambda: step(*BA, *HALF, *bf16),
            lambda: torch_step("--mode", "official", "--precision", "bf16", *HALF))
    if rows:
        real = ("--rows", "gsm8k", "--batch", "8")
        guarded(versus, "LoRA rows", "8 real rows, PEFT f32", 2, lambda: step(*LORA, "--rows", rows, repeat=2),
                lambda: torch_step("--mode", "lora", *real), rounds=2)
        guarded(versus, "LoRA rows bf16", "8 real rows, PEFT bf16 autocast", 2.2,
                lambda: step(*LORA, *bf16, "--rows", rows, repeat=2),
                lambda: torch_step("--mode", "lora", "--precision", "autocast", *real), rounds=2)
        guarded(versus, "BA rows", "8 real rows, official style f32", 3, lambda: step(*BA, "--rows", rows, repeat=1),
                lambda: torch_step("--mode", "official", *real), rounds=2,
                more=[("BA rows bf16", "ours in bf16 over official style f32", 4,
                       lambda: step(*BA, *bf16, "--rows", rows, repeat=1))])
    mine, theirs = guarded(versus, "LoRA 4x512", "PEFT f32 (no ask of speed)", None,
                           lambda: step(*LORA, "--sequences", "4", repeat=1),
                           lambda: torch_step("--mode", "lora", "--batch", "4"), rounds=1)
    if mine:
        peak = mine[0]["peak_rss_bytes"] / 1048576
        add("memory 4x512", "peak MiB over PEFT's", .4, peak, theirs[0]["peak_rss_mb"], [peak / theirs[0]["peak_rss_mb"]],
            unit="MiB", least=False)
    guarded(versus, "BA 4x512", "half labelled, official style f32", 2.4, lambda: step(*BA, *HALF, "--sequences", "4", repeat=1),
            lambda: torch_step("--mode", "official", *HALF, "--batch", "4"), rounds=1)


def text_rows():
    score, choices = os.path.join(work, "score.jsonl"), write_choices()
    guarded(versus, "log-likelihood", "32 GSM8K items, HF batch 8", 1.4, lambda: answer(score), lambda: hf_score(score), rounds=2,
            more=[("log-likelihood bf16", "ours in bf16", 2.3, lambda: answer(score, "--compute", "bf16"))])
    guarded(versus, "multiple choice", "100 sentences, two answers, HF batch 8", 3, lambda: answer(choices),
            lambda: hf_score(choices), rounds=2,
            more=[("multiple choice bf16", "ours in bf16", 4, lambda: answer(choices, "--compute", "bf16"))])
    prompts = os.path.join(work, "prompts.jsonl")
    test = [json.loads(l) for l in open(os.path.join(SHARED, "data", "gsm8k", "test.jsonl"))]
    with open(prompts, "w") as f:
        for it in test[:16]:
            f.write(json.dumps({"prompt": "Question: %s\nAnswer:" % it["question"], "max_new_tokens": 128}) + "\n")
    guarded(versus, "generate", "greedy, 16 GSM8K prompts, HF in one batch", 6, lambda: answer(prompts),
            lambda: peer("generate", "--model", HF, "--items", "16", "--batch", "16", "--new", "128", "--reps", "1"), rounds=2,
            key="new_tokens_per_second")


def pissa_row():
    if not ONLY.search("PiSSA"):
        return
    def ours():
        return bench("init", "--model", MODEL, "--init", "pissa_niter_16", "--repeat", "2")
    def other():
        return last_json(run([PYTHON, PEERS, "pissa", "--model", HF, "--how", "pissa_niter_16", "--reps", "2", "--threads",
                              THREADS, "--wait", "0", "--patience", "1"]))
    mine, theirs = [], []
    for _ in range(ROUNDS):
        theirs.append(other())
        mine.append(ours())
    exact = bench("init", "--model", MODEL, "--init", "pissa", "--repeat", "1")
    figures["PiSSA"] = {"ours": mine, "peer": theirs, "exact": exact}
    add("PiSSA", "210 matrices, peft's pissa_niter_16; energy %.5f of the exact" % (mine[0]["energy"] / exact["energy"]), 5,
        statistics.median(m["seconds"] for m in mine), statistics.median(t["value"] for t in theirs),
        [t["value"] / m["seconds"] for m, t in zip(mine, theirs)], unit="s")


def llama_bench(path):
    out = json.loads(run([os.path.join(LLAMA, "llama-bench"), "-m", path, "-t", THREADS, "-p", "512", "-n", "128", "-r", "1",
                          "-o", "json"]))
    return {"pp": next(r["avg_ts"] for r in out if r["n_prompt"]), "tg": next(r["avg_ts"] for r in out if r["n_gen"])}


def llama_rows():
    kinds = {"Q4_1": (MODEL, 2, 1.3)}
    for kind in ("Q4_0", "Q8_0", "BF16"):
        path = os.path.join(work, kind + ".gguf")
        run([BALORA, "convert", "--model", HF if os.path.exists(os.path.join(HF, "config.json")) else MODEL, "--to", "gguf",
             "--dtype", kind.lower(), "--out", path])
        kinds[kind] = (path, 1, 1)
    for kind, (path, ask_p, ask_d) in kinds.items():
        if not ONLY.search("llama " + kind):
            continue
        words = () if kind == "Q4_1" else ("--compute", "bf16")
        prompt, decode, pp, tg = [], [], [], []
        for _ in range(ROUNDS):
            r = llama_bench(path)
            pp.append(r["pp"])
            tg.append(r["tg"])
            prompt.append(bench("prompt", "--model", path, "--tokens", "512", "--repeat", "2", *words)["tokens_per_second"])
            decode.append(bench("decode", "--model", path, "--new-tokens", "128", "--repeat", "1")["tokens_per_second"])
        figures["llama " + kind] = {"prompt": prompt, "decode": decode, "llama_prompt": pp, "llama_decode": tg}
        add("prompt " + kind, "512 tokens%s, llama.cpp" % (" in bf16" if words else ""), ask_p, statistics.median(prompt),
            statistics.median(pp), [a / b for a, b in zip(prompt, pp)])
        add("decode " + kind, "one sequence, llama.cpp", ask_d, statistics.median(decode), statistics.median(tg),
            [a / b for a, b in zip(decode, tg)])
    for n in ("16", "32"):
        if not ONLY.search("llama batched"):
            continue
        mine, theirs = [], []
        for _ in range(min(ROUNDS, 2)):
            out = run([os.path.join(LLAMA, "llama-batched-bench"), "-m", MODEL, "-t", THREADS, "-c", "16384", "-b", "2048", "-ub", "512",
                       "-npp", "128", "-ntg", "64", "-npl", n, "--output-format", "jsonl"])
            theirs.append(next(json.loads(l)["speed_tg"] for l in out.splitlines() if l.startswith("{")))
            mine.append(bench("decode", "--model", MODEL, "--sequences", n, "--context", "128", "--new-tokens", "64", "--repeat",
                              "1")["tokens_per_second"])
        figures["decode x" + n] = {"ours": mine, "llama": theirs}
        add("decode x" + n, n + " sequences after 128 tokens, llama.cpp batched", 1.7, statistics.median(mine),
            statistics.median(theirs), [a / b for a, b in zip(mine, theirs)])
    if ONLY.search("llama start"):
        t = wall([os.path.join(LLAMA, "llama-completion"), "-m", MODEL, "-t", THREADS, "-p", "Hello", "-n", "1", "--no-warmup",
                  "-no-cnv", "-c", "512"], 3)
        add("start llama.cpp", "one token (for comparison)", None, t, unit="ms")


def tokenize_rows():
    """Text to ids on one thread, beside the tokenizers library where PYTHON has it (tests/peers/tokenizer_speed.py compares
    the ids as well)."""
    text = os.path.join(SHARED, "data", "corpora", "wikitext-2-raw-test.txt")
    theirs = ("import sys,time,tokenizers\nt=tokenizers.Tokenizer.from_file(sys.argv[1])\nt.no_truncation()\n"
              "x=open(sys.argv[2],encoding='utf-8').read()\ns=time.process_time()\nt.encode(x,add_special_tokens=False)\n"
              "print(len(x.encode())/1e6/(time.process_time()-s))")
    one = {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    for folder in sorted(glob.glob(os.path.join(SHARED, "tokenizers", "*", ""))):
        name, ours, other = os.path.basename(folder[:-1]), [], []
        if os.path.exists(folder + "tokenizer.json.gz"):
            packed, folder = folder, os.path.join(work, name, "")
            os.mkdir(folder)
            with gzip.open(packed + "tokenizer.json.gz") as source, open(folder + "tokenizer.json", "wb") as target:
                shutil.copyfileobj(source, target)
        byte_level = "ByteLevel" in open(os.path.join(folder, "tokenizer.json"), encoding="utf-8").read()
        for _ in range(ROUNDS):
            v = last_json(run([BALORA, "bench", "tokenize", "--model", folder, "--text", text, "--no-reference", "--threads", "1"]))
            ours.append(v["megabytes_per_second"])
            try:
                other.append(float(run([PYTHON, "-c", theirs, os.path.join(folder, "tokenizer.json"), text], one)))
            except subprocess.CalledProcessError:
                pass
        figures["tokenize " + name] = {"ours": ours, "peer": other}
        add("tokenize " + name, "MB of wikitext, one thread; beside it the tokenizers library",
            10 if byte_level else None, statistics.median(ours), statistics.median(other) if other else None, unit="MB/s")


def seven_rows():
    """A 7B-shaped llama of random weights (20 GB of disk, 16 GiB of memory, a quarter of an hour): two steps of 256 tokens
    inside 22 GB, the estimate beside the measured peak, the step beside sgemm of the same process."""
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008,
              "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000,
              "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
              "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2}
    json.dump(config, open(os.path.join(work, "config.json"), "w"))
    with open(os.path.join(work, "seven.jsonl"), "w") as f:
        for i in range(4):
            ids = [3 + (7919 * (256 * i + j)) % 31997 for j in range(256)]
            f.write(json.dumps({"input_ids": ids, "labels": [-100] * 64 + ids[64:]}) + "\n")
    for dtype in ("q4_0", "bf16"):
        folder = os.path.join(work, "7b-" + dtype)
        run([BALORA, "inspect", "--synthesize", os.path.join(work, "config.json"), "--dtype", dtype, "--out", folder])
        for method in ("lora", "ba-lora-nlg"):
            start = ("--init", "pissa_niter_4") if method != "lora" else ()
            said = subprocess.run([BALORA, "train", "--model", folder, "--data", os.path.join(work, "seven.jsonl"), "--format", "tokens",
                                   "--method", method, *start, "--r", "16", "--max-steps", "2", "--batch-size", "1",
                                   "--model-max-length", "256", "--no-store", "--threads", THREADS, "--out",
                                   os.path.join(work, "out-%s-%s" % (dtype, method))],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=True).stdout.decode()
            estimate, peak = (float(re.search(p, said).group(1)) for p in (r"memory +about (\d+) MiB", r"peak memory (\d+) MiB"))
            v = step("--method", method, *start, "--tokens", "256", repeat=1, model=folder)
            figures["7B %s %s" % (dtype, method)] = {"estimate_mib": estimate, "peak_mib": peak, "step": v}
            name = "7B %s %s" % (dtype, "LoRA" if method == "lora" else "BA")
            add(name + " memory", "peak MiB of training; estimated %.0f" % estimate, 22 * 1024, peak, unit="MiB", least=False)
            add(name + " estimate", "part by which the estimate is off", .1, abs(estimate / peak - 1), unit="", least=False)
            add(name, "tokens/s of a step of 256; vs sgemm %.2f" % v["vs_sgemm"], None, v["tokens_per_second"])
        shutil.rmtree(folder)


def check_baseline(share):
    """Warns about shares of sgemm that fell by more than a tenth; never an error: machines differ."""
    path = os.path.join(HERE, "baseline.json")
    known = json.load(open(path)) if os.path.exists(path) else {}
    isa = figures["own"]["lora"][0]["isa"] + ("+bf16" if figures["own"]["lora_bf16"][0].get("bf16_native") else "")
    if ENV("BASELINE") == "write":
        known[isa] = {k: round(v, 3) for k, v in sorted(share.items())}
        open(path, "w").write(json.dumps(known, indent=1, sort_keys=True) + "\n")
        return
    if isa not in known:
        print("no baseline for '%s' in %s (BASELINE=write makes one)" % (isa, path))
    for k, v in sorted(known.get(isa, {}).items()):
        if k in share and not share[k] >= 0.9 * v:
            print("warning: %s is %.3f of sgemm, the baseline %.3f" % (k, share[k], v))


def main():
    global MODEL
    if not MODEL:
        MODEL = os.path.join(work, "model")
        print("no model in %s/models: measuring the embedded one" % SHARED, file=sys.stderr)
        run([BALORA, "demo", "--write-model", MODEL])
    rows = write_rows()
    if ONLY.search("own"):
        check_baseline(own_rows(rows))
    if ONLY.search("start"):
        start_rows()
    if FULL and rows and ONLY.search("tokenize"):
        guarded(tokenize_rows)
    if ENV("SEVEN"):
        guarded(seven_rows)
    if FULL:
        can = subprocess.run([PYTHON, "-c", "import torch, transformers, peft"], stderr=subprocess.DEVNULL).returncode == 0
        if can and os.path.exists(PEERS):
            if not os.path.exists(os.path.join(HF, "config.json")):
                run([PYTHON, PEERS, "convert", "--gguf", MODEL, "--model", HF])
            train_rows(rows)
            if rows and ONLY.search("log-likelihood multiple choice generate"):
                text_rows()
            guarded(pissa_row)
        else:
            print("-- rows beside PyTorch are skipped: PEERS, or torch, transformers and peft of PYTHON, are not there")
        if LLAMA and os.path.exists(os.path.join(LLAMA, "llama-bench")):
            guarded(llama_rows)
        else:
            print("-- rows beside llama.cpp are skipped: LLAMA names no folder with llama-bench")
    out = ENV("JSON") or ("-" if "--json" in sys.argv else None)
    document = json.dumps({"table": [dict(zip(("row", "what", "ours", "other", "ratio", "ask", "met", "unit"), t)) for t in table],
                           "figures": figures, "failures": failures}, indent=1)
    if out == "-":
        print(document)
    elif out:
        open(out, "w").write(document + "\n")


main()
