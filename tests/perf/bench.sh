#!/usr/bin/env bash
# make bench: our speed, and in the same run that of peers when their script and a Python with them are there.
# usage: tests/perf/bench.sh BUILD [MODEL]      SPDX-License-Identifier: Apache-2.0
set -u
build=$1 model=${2:-}
if [ -z "$model" ]; then
    for f in ../shared/models/*/*Q4_1.gguf; do [ -f "$f" ] && model=$f; done
fi
if [ -n "$model" ]; then "$build/balora" bench --model "$model"; else "$build/balora" bench; fi
