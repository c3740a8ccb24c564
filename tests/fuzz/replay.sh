#!/usr/bin/env bash
# Replays the corpus of each fuzz target.  usage: tests/fuzz/replay.sh BUILD CORPORA PROGRAM...
# SPDX-License-Identifier: Apache-2.0
set -u
corpora=$2
shift 2
passed=0 failed=0
for program in "$@"; do
    name=$(basename "$program")
    folder=$corpora/${name#fuzz_}
    if [ ! -d "$folder" ]; then
        echo "$name: no corpus $folder"
        failed=$((failed + 1))
        continue
    fi
    output=$(timeout 300 "$program" "$folder" 2>&1)
    status=$?
    line=$(printf '%s\n' "$output" | tail -n 1)
    if [ "$status" -eq 0 ] && [[ $line =~ ^([0-9]+)\ passed,\ 0\ failed ]]; then
        passed=$((passed + BASH_REMATCH[1]))
    else
        failed=$((failed + 1))
        printf '%s\n%s: ended with status %s\n' "$output" "$name" "$status"
    fi
    echo "  fuzz/$name: $line"
done
[ -n "${BALORA_COUNTS:-}" ] && echo "$passed $failed 0" >>"$BALORA_COUNTS"
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" -eq 0 ]
