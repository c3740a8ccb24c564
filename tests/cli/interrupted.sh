. "$ROOT/tests/cli/lib.bash"
for i in $(seq 1 40); do
    echo "{\"input_ids\": [1, $((i + 2)), 9, 12, $((50 - i)), 2], \"labels\": [-100, -100, 9, 12, $((50 - i)), 2]}"
done >data.jsonl
train() { exec balora train --quiet --threads 1 --model "$MODEL" --data data.jsonl --max-steps "$1" --r 2 --batch-size 4 --lr 1e-3 --metrics-out metrics.jsonl "${@:2}"; }

# Ctrl-C: the step is finished, a checkpoint saved, the status 130; --resume auto goes on to the same bits
(train 4000 --out whole --no-store)
rm metrics.jsonl; train 4000 --out parts --resume auto & pid=$!
while [ ! -s metrics.jsonl ]; do sleep 0.01; done
kill -INT $pid; status=0; wait $pid || status=$?
echo "interrupted: $status"
ls -d parts/checkpoint-* >/dev/null && echo "with a checkpoint"
(train 4000 --out parts --resume auto)
cmp whole/adapter_model.safetensors parts/adapter_model.safetensors && echo "the same bits"
balora runs list --json | grep -o '"status": "[a-z]*"'

# Ctrl-C twice ends at once
rm metrics.jsonl; train 1000000 --out twice & pid=$!
while [ ! -s metrics.jsonl ]; do sleep 0.01; done
kill -INT $pid; kill -INT $pid 2>/dev/null || true; status=0; wait $pid || status=$?
echo "twice: $status"
[ ! -e twice/adapter_model.safetensors ] || echo "an unfinished run looks finished"
