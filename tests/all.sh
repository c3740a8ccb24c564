#!/usr/bin/env bash
# Runs make targets that count tests, one after the other, and prints the sum as the last line.
# usage: [MODE=asan] tests/all.sh check golden cli replay      SPDX-License-Identifier: Apache-2.0
set -u
cd "$(dirname "$0")/.." || exit 2
counts=$(mktemp) || exit 4
trap 'rm -f "$counts"' EXIT
export BALORA_COUNTS=$counts
broken=0
for target in "$@"; do
    echo "== make $target MODE=${MODE:-release}"
    before=$(wc -l <"$counts")
    make --no-print-directory -j"$(nproc)" "$target" MODE="${MODE:-release}" </dev/null
    status=$?
    # a target that did not come to count (it did not build) is one failure
    [ "$status" -ne 0 ] && [ "$(wc -l <"$counts")" -eq "$before" ] && broken=$((broken + 1))
done
awk -v broken="$broken" '{ p += $1; f += $2; s += $3 }
    END { f += broken; printf "%d passed, %d failed, %d skipped\n", p, f, s; exit f != 0 }' "$counts"
