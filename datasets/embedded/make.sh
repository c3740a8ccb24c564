#!/usr/bin/env bash
# Makes the embedded model anew (about five minutes on 2 cores): generated problems, a tokenizer for them, pre-training
# from the committed recipe.  Three problems in ten carry the answer of the problem before them: the inherited noise
# that fine-tuning on clean problems then meets.  usage: datasets/embedded/make.sh BALORA
set -euo pipefail
balora=$1
here=datasets/embedded
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$balora" data world --n 40000 --seed 11 --out "$work/clean.jsonl"
awk '{
    match($0, /"answer":".*","kind"/)
    answer = substr($0, RSTART, RLENGTH)
    if (NR > 1 && NR % 10 < 3)
        print substr($0, 1, RSTART - 1) previous substr($0, RSTART + RLENGTH)
    else
        print
    previous = answer
}' "$work/clean.jsonl" >"$work/world.jsonl"
"$balora" data tokenizer --data "$work/world.jsonl" --vocab 1024 --out "$work/tokenizer.json"
"$balora" pretrain --config "$here/recipe.json" --tokenizer "$work/tokenizer.json" --data "$work/world.jsonl" \
    --out "$work/model" --db "$work/runs.db"
cp "$work/model/config.json" "$work/model/model.safetensors" "$work/tokenizer.json" "$work/tokenizer_config.json" "$here/"
ls -l "$here"
