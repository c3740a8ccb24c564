# no room on the disk (here: a limit on the size of a file): one sentence, status 4, what was there before stays
. "$ROOT/tests/cli/lib.bash"
for i in 1 2 3 4; do echo '{"input_ids": [1, 5, 9, 12, 7, 2], "labels": [-100, -100, 9, 12, 7, 2]}'; done >data.jsonl
train() { balora train --quiet --threads 1 --model "$MODEL" --data data.jsonl --r 8 --batch-size 4 --max-steps 4 "$@"; }
limited() { (ulimit -f "$1" && shift && "$@"); }

refused limited 1 train --out out                          # the database
rm -f runs.db*
for blocks in 1 25; do refused limited $blocks train --out out --no-store; done # adapter, state of the training
ls -A out 2>/dev/null || echo "nothing half-written"

train --out out --no-store && cp out/adapter_model.safetensors before
refused limited 25 train --out out --no-store --overwrite --seed 2 # asked for: the old one goes first
[ ! -e out/adapter_model.safetensors ] && echo "none"
train --out out --no-store --overwrite --seed 2 && ! cmp -s before out/adapter_model.safetensors && echo "the new one"

refused limited 1 balora merge --model "$MODEL" --adapter out --out merged
[ ! -e merged ] || echo "a merged folder is there"
[ ! -c /dev/full ] || { refused train --out again --no-store --metrics-out /dev/full; [ -c /dev/full ] || echo "/dev/full was replaced"; }
