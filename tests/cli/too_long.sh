# records longer than the context: refused or cut, and said so; more memory than there is
. "$ROOT/tests/cli/lib.bash"
balora demo --write-model m -q                             # its context is 512 tokens
row() { printf '[1'; for i in $(seq 2 "$1"); do printf ', %d' $((i % 50 + 3)); done; printf ']'; }
echo "{\"input_ids\": [[1, 2], $(row 65)]}" >in.json      # the small model's is 64
refused balora forward --model "$MODEL" --input in.json --out out.safetensors
[ ! -e out.safetensors ] || echo "something was written"
echo "{\"input_ids\": [[1, 2], $(row 64)]}" >in.json
balora forward --quiet --model "$MODEL" --input in.json --out out.safetensors

words=$(for i in $(seq 1 700); do printf 'one two '; done)
balora generate --quiet --model m --prompt "$words" --max-new-tokens 2 >answer 2>said; cat said
refused balora generate --quiet --model m --prompt "one" --max-new-tokens 512
echo "{\"prompt\": \"$words\", \"max_new_tokens\": 2}" >requests.jsonl
balora evaluate --quiet --model m --requests requests.jsonl --out answers.jsonl 2>said; cat said
echo "{\"context\": \"one\", \"continuation\": \"$words\"}" >requests.jsonl
refused balora evaluate --quiet --model m --requests requests.jsonl --out never.jsonl
[ ! -e never.jsonl ] || echo "something was written"

echo "{\"prompt\": \"one\", \"response\": \"$words\"}" >data.jsonl
refused balora train --quiet --model m --data data.jsonl --out out --r 2 --max-steps 1 --model-max-length 513
balora train --model m --data data.jsonl --out out --r 2 --max-steps 1 --model-max-length 100 --no-store 2>&1 | grep records

echo '{"input_ids": [1, 5, 9, 12, 7, 2]}' >data.jsonl
big() { (ulimit -v 4000000 && balora train --threads 1 --quiet --model "$MODEL" --data data.jsonl --out big --r 2 --max-steps 1 "$@"); }
refused big --batch-size 1000000 --micro-batch-size 1000000 >said
refused big --batch-size 1000000 --micro-batch-size 1000000 --checkpoint-activations >>said
sed 's| [0-9]* MiB| N MiB|g' said
[ ! -e big ] || echo "something was written"
