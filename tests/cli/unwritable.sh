# a folder that cannot be written, for every command that writes: one sentence, status 4
. "$ROOT/tests/cli/lib.bash"
for i in 1 2 3 4; do echo '{"input_ids": [1, 5, 9, 12, 7, 2], "labels": [-100, -100, 9, 12, 7, 2]}'; done >data.jsonl
echo '{"input_ids": [[1, 2, 3]]}' >in.json
balora demo --write-model m -q
balora train --quiet --threads 1 --model "$MODEL" --data data.jsonl --r 2 --max-steps 2 --out adapter
echo '{"prompt": "one", "max_new_tokens": 2}' >requests.jsonl
echo '{"id": 1, "output": "#### 3", "gold": "3"}' >outputs.jsonl
no=/proc/no
refused balora forward --model "$MODEL" --input in.json --out $no
refused balora train --quiet --model "$MODEL" --data data.jsonl --r 2 --max-steps 2 --out $no
refused balora train --quiet --model "$MODEL" --data data.jsonl --r 2 --max-steps 2 --out out --db $no/runs.db
refused balora merge --model "$MODEL" --adapter adapter --out $no
refused balora convert --model "$MODEL" --adapter adapter --out $no
refused balora evaluate --quiet --model m --requests requests.jsonl --out $no
refused balora score --task gsm8k --input outputs.jsonl --out $no
refused balora report --all --out $no
refused balora runs export --out $no
refused balora demo --write-model $no
refused balora demo -q --out $no
