#!/usr/bin/env bash
# Searches for inputs that break a target, with libFuzzer; what it finds is left in build/fuzz/found and belongs,
# once mended, into the corpus.  usage: tests/fuzz/search.sh SECONDS CORPORA SOURCE...
# SPDX-License-Identifier: Apache-2.0
set -u
seconds=$1 corpora=$2
shift 2
failed=0
mkdir -p build/fuzz/found build/fuzz/corpora
for source in "$@"; do
    name=$(basename "$source" .c)
    short=${name#fuzz_}
    make --no-print-directory -j"$(nproc)" MODE=fuzz CC=clang "build/fuzz/tests/fuzz/$name" || exit 4
    mkdir -p "build/fuzz/corpora/$short"
    dictionary=tests/fuzz/$short.dict
    "build/fuzz/tests/fuzz/$name" -max_total_time="$seconds" -max_len=65536 -rss_limit_mb=2048 -print_final_stats=0 \
        -artifact_prefix="build/fuzz/found/$short-" ${dictionary:+$([ -f "$dictionary" ] && echo "-dict=$dictionary")} \
        "build/fuzz/corpora/$short" "$corpora/$short" >"build/fuzz/$short.log" 2>&1
    if [ $? -eq 0 ]; then
        echo "  fuzz/$name: nothing found in $seconds s"
    else
        failed=$((failed + 1))
        tail -n 30 "build/fuzz/$short.log"
        echo "  fuzz/$name: FOUND, see build/fuzz/found"
    fi
done
[ "$failed" -eq 0 ]
