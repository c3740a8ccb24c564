# balora evaluate --compare: two runs of one task, paired by item
. "$ROOT/tests/cli/lib.bash"
balora demo --write-model m -q
mkdir gsm8k
for i in 1 2 3 4 5 6; do
    printf '{"question": "What is %d + 1?", "answer": "It is that.\\n#### %d"}\n' $i $((i + 1))
done >gsm8k/test.jsonl
run() { balora evaluate --quiet --model m --data . --tasks gsm8k_pissa --name "$@" >/dev/null; }
run short --max-gen-toks 2
run long --max-gen-toks 4 --limit 5
balora evaluate --compare short long | grep -v '^|gsm8k'
balora evaluate --compare short,long --json | grep -o '"n": 5, "only_a": 1, "only_b": 0, "prompts_differ": 0'
refused balora evaluate --compare short
refused balora evaluate --compare short --tasks gsm8k long
refused balora evaluate --compare short short
refused balora evaluate --compare short lung
refused balora evaluate short
