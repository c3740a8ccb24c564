#!/usr/bin/env bash
# Runs test programs one after the other and adds up their counts.  usage: tests/run.sh BUILD SUITE PROGRAM...
# The sum is appended to $BALORA_COUNTS when set, so that `make test` can print one last line for all suites.
set -u
build=$1 suite=$2
shift 2
passed=0 failed=0 skipped=0
export OPENBLAS_NUM_THREADS=${OPENBLAS_NUM_THREADS:-2}
for program in "$@"; do
    name=${program#"$build"/tests/}
    output=$("$program" 2>&1)
    status=$?
    line=$(printf '%s\n' "$output" | tail -n 1)
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed,\ ([0-9]+)\ skipped$ ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2])) skipped=$((skipped + BASH_REMATCH[3]))
        [ "$status" -ne 0 ] && [ "${BASH_REMATCH[2]}" -eq 0 ] && failed=$((failed + 1)) && echo "$name: exit status $status"
        [ "${BASH_REMATCH[2]}" -ne 0 ] || [ "${BASH_REMATCH[3]}" -ne 0 ] || [ "$status" -ne 0 ] && printf '%s\n' "$output" | sed '$d'
    else
        failed=$((failed + 1))
        printf '%s\n%s: ended with status %s and no count\n' "$output" "$name" "$status"
    fi
    echo "  $suite/$name: $line"
done
[ -n "${BALORA_COUNTS:-}" ] && echo "$passed $failed $skipped" >>"$BALORA_COUNTS"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
