# two identical evaluations at once are two runs; one after a kill goes on with what is there
. "$ROOT/tests/cli/lib.bash"
balora demo --write-model m -q
mkdir gsm8k
for i in $(seq 1 40); do printf '{"question": "What is %d + 1?", "answer": "#### %d"}\n' $i $((i + 1)); done >gsm8k/test.jsonl
run() { exec balora evaluate --model m --data . --tasks gsm8k_pissa --max-gen-toks 24 --threads 1 --batch-size 1 >"$1" 2>"$1.err"; }
items() { balora runs show "$1" --json 2>/dev/null | sed -n "s,.*\"items\": \([0-9]\+\).*,\1,p"; }
run a & first=$!
run b & second=$!
wait $first; wait $second
cmp a b && echo "the same scores"
balora runs list --json | grep -o '"status": "[a-z]*"'
items 1
items 2

sed -i 's/What/How much/' gsm8k/test.jsonl
run c & third=$!
while [ "$(items 3)" = "" ]; do sleep 0.01; done; while [ "$(items 3)" -lt 3 ]; do sleep 0.02; done
kill -9 $third; wait $third 2>/dev/null || true
(run d)
grep -c 'going on with run 3' d.err
items 3
balora runs list --json | grep -o "\"status\": \"[a-z]*\""
balora runs show 3 --json | grep -o '"tags": {[^}]*}'
