. "$ROOT/tests/cli/lib.bash"
cat >good.jsonl <<END
{"input_ids": [1, 5, 9, 12, 7, 2], "labels": [-100, -100, 9, 12, 7, 2]}
{"input_ids": [1, 6, 8, 2], "labels": [-100, 6, 8, 2]}
END
echo '{"input_ids": [[1, 2, 3]]}' >in.json
model_copy nan # the last weight of the last tensor becomes NaN
size=$(stat -c %s nan/model.safetensors)
printf '\0\176' | dd of=nan/model.safetensors bs=1 seek=$((size - 2)) conv=notrunc status=none
refused balora forward --model nan --input in.json --out out.safetensors
refused balora train --quiet --model nan --data good.jsonl --out a --max-steps 3 --r 2 --batch-size 2
# a weight decay that multiplies the weights by -10^6 each step
refused balora train --quiet --model "$MODEL" --data good.jsonl --out b --max-steps 60 --r 2 --batch-size 2 \
    --lr 1000 --weight-decay 1000 --max-grad-norm 0
ls
balora runs list --json | grep -o '"status": "[a-z]*"\|"exit_code": [0-9]*'
