#!/usr/bin/env bash
# Tests of the tests: every line of tests/mutations/*.list changes one place of a source file, and the named unit test
# must then fail.  usage: tests/mutations/run.sh BUILD [PART OF A FILE NAME]     (by `make mutate`, which sets CC, FLAGS, LIBS)
#   FILE | TEST | SED-EXPRESSION      lines that begin with # are comments
# The changed copy is compiled beside the build and linked in front of the library; nothing of the tree is touched.
# A line whose expression changes nothing, or whose copy does not compile, fails: it has outlived its source.
# SPDX-License-Identifier: Apache-2.0
set -u
build=$1 only=${2:-}
cd "$(dirname "$0")/../.." || exit 2
work=$(mktemp -d) || exit 4
trap 'rm -rf "$work"' EXIT

# one LINE: prints "noticed", "skipped ..." or what is wrong.
one() {
    local file=${1%% | *} rest=${1#* | } test edit out
    test=${rest%% | *} edit=${rest#* | }
    local dir=$work/$BASHPID
    mkdir -p "$dir"
    sed -E "$edit" "$file" >"$dir/changed.c" || { echo "WRONG: sed: $1"; return; }
    cmp -s "$file" "$dir/changed.c" && { echo "WRONG: nothing changes: $1"; return; }
    # shellcheck disable=SC2086
    $CC $FLAGS -w -Wno-error -c "$dir/changed.c" -o "$dir/changed.o" 2>"$dir/log" &&
        $CC $FLAGS -o "$dir/test" "$build/tests/unit/$test.o" "$dir/changed.o" "$build/tests/test.o" \
            "$build/tests/program.o" "$build/libbal.a" $LIBS 2>"$dir/log" ||
        { echo "WRONG: does not build: $1: $(grep -m1 error "$dir/log")"; return; }
    out=$(timeout 120 "$dir/test" 2>&1 </dev/null)
    case $? in
    0) case $out in
        *" 0 skipped") echo "NOT NOTICED: $1" ;;
        *) echo "skipped: $1: the test cannot run in full here" ;;
        esac ;;
    1[2-9][0-9]) echo noticed ;; # it crashed, or never ended
    *) case $out in
        *passed,*failed,*) echo noticed ;;
        *) echo "WRONG: the test ends without a count: $1" ;;
        esac ;;
    esac
    rm -rf "$dir"
}
export -f one
export work build CC FLAGS LIBS
grep -hvE '^(#|$)' tests/mutations/*.list | grep -F "$only" | tr '\n' '\0' |
    xargs -0 -P "$(nproc)" -I{} bash -c 'one "$1"' _ {} >"$work/all"
grep -vx noticed "$work/all"
noticed=$(grep -cx noticed "$work/all")
skipped=$(grep -c '^skipped' "$work/all")
failed=$(grep -cE '^(NOT NOTICED|WRONG)' "$work/all")
echo "$noticed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$((noticed + skipped))" -gt 0 ]
