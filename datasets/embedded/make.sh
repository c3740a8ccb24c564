#!/usr/bin/env bash
# Makes the embedded model anew (about ten minutes on 2 cores): generated problems, a tokenizer for them, pre-training
# from the committed recipe.  usage: datasets/embedded/make.sh BALORA
set -euo pipefail
balora=$1
here=datasets/embedded
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$balora" data world --n 60000 --seed 11 --out "$work/world.jsonl"
"$balora" data tokenizer --data "$work/world.jsonl" --vocab 1024 --out "$work/tokenizer.json"
"$balora" pretrain --config "$here/recipe.json" --tokenizer "$work/tokenizer.json" --data "$work/world.jsonl" \
    --out "$work/model" --db "$work/runs.db"
cp "$work/model/config.json" "$work/model/model.safetensors" "$work/model/tokenizer.json" "$here/"
ls -l "$here"
