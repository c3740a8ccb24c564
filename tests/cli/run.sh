#!/usr/bin/env bash
# Command-line tests.  usage: tests/cli/run.sh BUILD [CASE...]
#   x.sh            the case: run by bash -eu in an empty folder, `balora` is the built program
#   x.stdout.exact  what standard output must be; or x.stdout.glob: a pattern a line, "..." stands for any lines
#   x.stderr.glob   the same for standard error;  without a file the stream must be empty
#   x.exit          the exit status (without it: 0);  77 skips the case, the last line of stderr says why
# UPDATE=1 renews .exact, .exit and missing files.  $ROOT is the repository, $SHARED the folder of larger inputs.
# SPDX-License-Identifier: Apache-2.0
set -u
build=$(cd "$1" && pwd) || exit 2
shift
cd "$(dirname "$0")/../.." || exit 2
ROOT=$PWD
SHARED=${BALORA_SHARED:-$ROOT/../shared}
[ -d "$SHARED" ] && SHARED=$(cd "$SHARED" && pwd)
export ROOT SHARED PATH="$build:$PATH" LC_ALL=C OPENBLAS_NUM_THREADS=2 HF_HUB_OFFLINE=1
unset BALORA_DB HF_TOKEN HF_ENDPOINT
passed=0 failed=0 skipped=0
work=$(mktemp -d) || exit 4
trap 'chmod -R u+w "$work" 2>/dev/null; rm -rf "$work"' EXIT

# matches_glob PATTERNS TEXT: line by line, "..." takes any number of lines.
matches_glob() {
    local -a want got
    mapfile -t want <"$1"
    mapfile -t got <"$2"
    local w=0 g=0 star=-1 mark=0
    while [ "$g" -lt "${#got[@]}" ]; do
        if [ "$w" -lt "${#want[@]}" ] && [ "${want[w]}" = "..." ]; then
            star=$w mark=$g w=$((w + 1))
        elif [ "$w" -lt "${#want[@]}" ] && [[ ${got[g]} == ${want[w]} ]]; then
            w=$((w + 1)) g=$((g + 1))
        elif [ "$star" -ge 0 ]; then
            mark=$((mark + 1)) g=$mark w=$((star + 1))
        else
            return 1
        fi
    done
    while [ "$w" -lt "${#want[@]}" ] && [ "${want[w]}" = "..." ]; do w=$((w + 1)); done
    [ "$w" -eq "${#want[@]}" ]
}

# check_stream NAME STREAM: says what differs.
check_stream() {
    local base=$1 stream=$2 got=$work/$2
    if [ -f "$base.$stream.exact" ]; then
        [ -n "${UPDATE:-}" ] && cp "$got" "$base.$stream.exact"
        cmp -s "$got" "$base.$stream.exact" || { diff -u "$base.$stream.exact" "$got" | head -n 30; return 1; }
    elif [ -f "$base.$stream.glob" ]; then
        matches_glob "$base.$stream.glob" "$got" && return 0
        echo "-- $stream does not match $base.$stream.glob:"
        head -c 4000 "$got"
        return 1
    elif [ -s "$got" ]; then
        if [ -n "${UPDATE:-}" ]; then
            [ "$stream" = stdout ] && cp "$got" "$base.stdout.exact" || cp "$got" "$base.$stream.glob"
            return 0
        fi
        echo "-- $stream should be empty:"
        head -c 4000 "$got"
        return 1
    fi
}

[ $# -gt 0 ] || set -- tests/cli/*.sh
for script in "$@"; do
    base=${script%.sh}
    name=$(basename "$base")
    [ "$name" = run ] && continue
    [ -f "$script" ] || { echo "there is no case $script"; failed=$((failed + 1)); continue; }
    mkdir -p "$work/here"
    (cd "$work/here" && exec timeout 120 bash -eu "$ROOT/$script") >"$work/stdout" 2>"$work/stderr" </dev/null
    status=$?
    want=0
    [ -f "$base.exit" ] && want=$(cat "$base.exit")
    [ -n "${UPDATE:-}" ] && [ "$status" -ne 77 ] && [ "$status" != "$want" ] && echo "$status" >"$base.exit" && want=$status
    if [ "$status" -eq 77 ]; then
        skipped=$((skipped + 1))
        echo "skip $name: $(tail -n 1 "$work/stderr")"
    else
        problem=$(check_stream "$base" stdout; check_stream "$base" stderr
            [ "$status" = "$want" ] || echo "-- exit status is $status, not $want")
        if [ -z "$problem" ]; then
            passed=$((passed + 1))
        else
            failed=$((failed + 1))
            printf '%s\nFAIL %s\n' "$problem" "$name"
        fi
    fi
    chmod -R u+w "$work/here" 2>/dev/null
    rm -rf "$work/here"
done
[ -n "${BALORA_COUNTS:-}" ] && echo "$passed $failed $skipped" >>"$BALORA_COUNTS"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
