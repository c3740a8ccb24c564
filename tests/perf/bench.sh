#!/usr/bin/env bash
# make bench: our speed as ratios to sgemm, and in the same run beside peers when their script and a Python with
# PyTorch, transformers and peft are there.  One JSON object a line; nothing else should run meanwhile.
# usage: tests/perf/bench.sh BUILD [MODEL]
#   BALORA_SHARED      folder with models/, data/ and bench/peers.py (default ../shared)
#   BALORA_PEER_MODEL  f32 folder of the same model for PyTorch (default: made under BUILD by peers.py convert)
#   THREADS, REPEAT    default 2 and 3
# SPDX-License-Identifier: Apache-2.0
set -u
build=$1 model=${2:-}
shared=${BALORA_SHARED:-../shared} threads=${THREADS:-2} repeat=${REPEAT:-3}
balora=$build/balora
if [ -z "$model" ]; then
    for f in "$shared"/models/*/*Q4_1.gguf; do [ -f "$f" ] && model=$f; done
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
if [ -z "$model" ]; then
    echo "no model in $shared/models: measuring the embedded one" >&2
    "$balora" demo --write-model "$work/model" && model=$work/model
fi
gsm8k=$shared/data/gsm8k/train.jsonl
if [ -f "$gsm8k" ]; then # 8 real rows in the Alpaca prompt, as the peers' "--rows gsm8k"
    for i in 0 1 2 3 4 5 6 7; do
        "$balora" data show --data "$gsm8k" --format gsm8k --model "$model" --item $i --json || exit
        echo
    done | sed -n 's/^.*"sequences":\[\(.*\)\]}$/\1/p' >"$work/rows.jsonl"
fi
step() { echo "$balora bench step --model $model --threads $threads --repeat $repeat $*"; }
lora=$(step --method lora --tokens 512)
lora_half=$(step --method lora --tokens 512 --labelled 0.5)
ba=$(step --method ba-lora-nlg --tokens 512 --labelled 0.5)
ba_cached=$(step --method ba-lora-nlg --tokens 512 --labelled 0.5 --teacher-cached)
ba_four=$(step --method ba-lora-nlg --tokens 512 --sequences 4 --labelled 0.5)
lora_rows=$(step --method lora --rows "$work/rows.jsonl")
ba_rows=$(step --method ba-lora-nlg --rows "$work/rows.jsonl")

echo "== balora"
"$balora" bench gemm --threads "$threads"
for i in 1 2 3; do # in turn, so that the ratios of one round belong together
    for s in "$lora" "$lora_half" "$ba" "$ba_cached" "$lora --compute bf16"; do $s | tail -n 1; done
done
$ba_four | tail -n 1
[ -f "$work/rows.jsonl" ] && { $lora_rows | tail -n 1; $ba_rows | tail -n 1; }
"$balora" bench prompt --model "$model" --threads "$threads" --tokens 512 --repeat "$repeat" | tail -n 1
"$balora" bench decode --model "$model" --threads "$threads" --repeat "$repeat" | tail -n 1
"$balora" bench decode --model "$model" --threads "$threads" --sequences 16 --repeat "$repeat" | tail -n 1
"$balora" bench load --model "$model" | tail -n 1

peers=$shared/bench/peers.py
if ! [ -f "$peers" ] || ! python3 -c 'import torch, transformers, peft' 2>/dev/null; then
    echo "== peers: skipped (peers.py, PyTorch, transformers or peft is not there)"
    exit 0
fi
echo "== peers, one process of each in turn"
peer_model=${BALORA_PEER_MODEL:-$build/peer-model}
[ -f "$peer_model/config.json" ] || python3 "$peers" convert --gguf "$model" --model "$peer_model" >/dev/null 2>&1 || exit
against() { # PEER OPTIONS... -- our command
    local options=()
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
    python3 "$peers" lora --model "$peer_model" --data "$shared/data" --threads "$threads" --reps "$repeat" "${options[@]}" \
        --against "$*" --key tokens_per_second 2>/dev/null | tail -n 1
}
against --mode lora -- "$lora"
against --mode lora --labelled 0.5 -- "$lora_half"
against --mode official --labelled 0.5 -- "$ba"
against --mode good --labelled 0.5 -- "$ba"
against --mode official --labelled 0.5 --batch 4 -- "$ba_four"
if [ -f "$work/rows.jsonl" ]; then
    against --mode lora --rows gsm8k --batch 8 -- "$lora_rows"
    against --mode official --rows gsm8k --batch 8 -- "$ba_rows"
fi
# lm-eval itself, on the same items and limits: 50 of GSM8K and 100 of SST-2
if python3 -c 'import lm_eval' 2>/dev/null && [ -f "$shared/data/glue/SST-2/dev.tsv" ]; then
    echo "== lm-evaluation-harness"
    python3 tests/peers/lm_eval_speed.py "$balora" "$model" "$peer_model" "$shared/data" "$work/lm_eval" "$repeat" 2>/dev/null
fi
