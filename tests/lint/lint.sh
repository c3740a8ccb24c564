#!/usr/bin/env bash
# Format, sizes, banned calls and words, clang-tidy.  usage: tests/lint/lint.sh FILE...
# TIDY=all runs clang-tidy over every file (minutes), TIDY=no over none; the default is lib/base and lib/io.
# SPDX-License-Identifier: Apache-2.0
set -u
bad=0
say() { printf '%s\n' "$1"; bad=$((bad + 1)); }
# report TITLE TEXT: TEXT is empty when all is well.
report() { [ -z "$2" ] || say "$2
lint: $1"; }

if command -v clang-format >/dev/null; then
    report 'not formatted; run "make format"' "$(clang-format --dry-run -Werror "$@" 2>&1 | grep -o '^[^:]*:[0-9]*:.*error:' |
        cut -d: -f1 | sort | uniq -c | awk '{ printf "%s: %d places\n", $2, $1 }')"
else
    echo 'lint: clang-format is missing, the format is not checked'
fi

report 'files are too long (.c 800, .h 300, tests 1000 lines)' "$(wc -l "$@" | awk '$2 != "total" {
    limit = $2 ~ /^tests\// ? 1000 : $2 ~ /\.h$/ ? 300 : 800
    if ($1 > limit) printf "%s: %d lines\n", $2, $1 }')"
report 'functions are too long (120 lines)' "$(awk '/^\{$/ { start = FNR } /^\}$/ && start {
    if (FNR - start - 1 > 120) printf "%s:%d: %d lines\n", FILENAME, start, FNR - start - 1; start = 0 } FNR == 1 { start = 0 }' "$@")"

calls='atoi|atol|atoll|atof|sprintf|vsprintf|strcpy|strcat|strtok|gets|rand|srand|alloca|tmpnam|mktemp|system'
report 'banned calls' "$(grep -nE "(^|[^A-Za-z0-9_.>])($calls)[[:space:]]*\(" "$@" /dev/null | grep -vE ':[0-9]+:[[:space:]]*(/?\*|//)')"
lib=()
for f in "$@"; do [[ $f == lib/* ]] && lib+=("$f"); done
report 'lib/ never prints to standard output, exits or aborts' "$(grep -nE '(^|[^A-Za-z0-9_.>])(printf|vprintf|puts|putchar|exit|abort)[[:space:]]*\(' \
    "${lib[@]}" /dev/null | grep -vE ':[0-9]+:[[:space:]]*(/?\*|//)' | grep -v '__attribute__')"
words='TO''DO|FIX''ME|X''XX|for ''now|ha''ck'
report 'unfinished work' "$(grep -nwE "$words" "$@" /dev/null)"
report 'trailing blanks or tabs' "$(grep -nP '[ \t]+$|\t' "$@" /dev/null)"
report 'no SPDX line in the first lines' "$(for f in "$@"; do head -n 40 "$f" | grep -q 'SPDX-License-Identifier: Apache-2.0' || echo "$f"; done)"

# clang-tidy is slow: a file is looked at again only when what it compiles to has changed.
tidy_one() {
    local key
    key=$( (cat .clang-tidy; clang -E -P $CFLAGS_TIDY "$1") 2>/dev/null | sha256sum | cut -c1-40)
    [ -e "build/tidy/$key" ] && return 0
    if output=$(clang-tidy --quiet "$1" -- $CFLAGS_TIDY 2>/dev/null); then touch "build/tidy/$key"
    else printf '%s\n' "$output" | grep -E 'error:|warning:'; fi
}
if [ "${TIDY:-}" = no ]; then
    :
elif ! command -v clang-tidy >/dev/null; then
    echo 'lint: clang-tidy is missing, its checks are not run'
else
    export -f tidy_one
    export CFLAGS_TIDY="${CFLAGS_TIDY:--std=c11 -D_GNU_SOURCE -I.} -DBAL_ISA=base"
    mkdir -p build/tidy
    if [ "${TIDY:-}" = all ]; then pattern='^[^t].*\.c$|^t(ools|rain)/.*\.c$'; else pattern='^lib/(base|io)/.*\.c$'; fi
    report 'clang-tidy' "$(printf '%s\n' "$@" | grep -E "$pattern" | xargs -P "$(nproc)" -I{} bash -c 'tidy_one "$1"' _ {})"
fi
echo "lint: $# files, $bad problems"
[ "$bad" -eq 0 ]
