. "$ROOT/tests/cli/lib.bash"
cat >good.jsonl <<END
{"input_ids": [1, 5, 9, 12, 7, 2], "labels": [-100, -100, 9, 12, 7, 2]}
{"input_ids": [1, 6, 8, 2], "labels": [-100, 6, 8, 2]}
{"input_ids": [1, 3, 30, 31, 2], "labels": [-100, -100, 30, 31, 2]}
END
base="--quiet --model $MODEL --data good.jsonl --max-steps 2 --batch-size 2"
try() { refused balora train $base --out out "$@"; }
try_out() { refused balora train $base --r 2 --out "$1"; }

refused balora train --quiet --model "$MODEL" --out out
refused balora train --quiet --model "$MODEL" --data nothing.jsonl --out out
: >empty.jsonl; try_data() { refused balora train --quiet --model "$MODEL" --data "$1" --out out --max-steps 2 --r 2; }
try_data empty.jsonl
printf '\n\n' >blank.jsonl; try_data blank.jsonl
{ cat good.jsonl; echo '{"input_ids": [1, 2'; } >broken.jsonl; try_data broken.jsonl
{ cat good.jsonl; echo '[1, 2]'; } >list.jsonl; try_data list.jsonl
{ cat good.jsonl; echo '{"question": "x"}'; } >mixed.jsonl; try_data mixed.jsonl
echo '{"question": "x"}' >fields.jsonl; try_data fields.jsonl
{ cat good.jsonl; echo '{"input_ids": [1, 64], "labels": [1, 64]}'; } >vocabulary.jsonl; try_data vocabulary.jsonl
echo '{"input_ids": [1, 5], "labels": [-100, -100]}' >unlabelled.jsonl; try_data unlabelled.jsonl
try --r 17                                            # q_proj is 16 x 16
try --method pissa --r 9                              # k_proj is 8 x 16
try --r 0
try --method lore
try --target-modules q_prog
try --init pissa_niter_x
try --preset ba-lora
try --lr nan
try --resume nothing
try --init-adapter nothing
try_out /proc/run
echo 'x' >file; try_out file
try_out file/run

try --db nosuch/runs.db
echo '{"rank": 4}' >recipe.json; try --config recipe.json
echo '{"r": "4"}' >recipe.json; try --config recipe.json
printf '{\n "r": 4\n "lr": 1}' >recipe.json; try --config recipe.json
ls
