. "$ROOT/tests/cli/lib.bash"
echo '{"input_ids": [1, 5, 9, 12, 7, 2], "labels": [-100, -100, 9, 12, 7, 2]}' >good.jsonl
train() { balora train --quiet --model "$MODEL" --data good.jsonl --out "$1" --max-steps 1 --r 2 --batch-size 1 --name "$1"; }
train one
printf '\0\0\3\347' | dd of=runs.db bs=1 seek=60 conv=notrunc status=none # user_version 999
refused train two
refused balora runs rm one
balora runs list --json | grep -o '"name": "[a-z]*"'
ls
printf '\0\0\0\1' | dd of=runs.db bs=1 seek=60 conv=notrunc status=none
printf 'XXXX' | dd of=runs.db bs=1 seek=68 conv=notrunc status=none       # application id
refused train two
refused balora runs list
