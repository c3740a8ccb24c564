# the progress bar: only on a terminal, never wider than it, and the next message begins a line of its own
. "$ROOT/tests/cli/lib.bash"
command -v script >/dev/null || { echo "there is no script(1)" >&2; exit 77; }
for i in 1 2 3 4 5 6; do echo '{"input_ids": [1, 5, 9, 12, 7, 2]}'; done >data.jsonl
train() { echo "echo \$\$ >pid; exec balora train --threads 1 --model '$MODEL' --data data.jsonl --batch-size 2 --r 2 --no-store --metrics-out $1.jsonl --out $*"; }
on_terminal() { script -qec "stty cols 60; $1" typescript </dev/null >/dev/null; }
lines() { tail -n +2 typescript | tr '\r' '\n' | sed 's/\x1b\[K//g' | grep -v '^$\|^Script'; }

on_terminal "$(train bar --max-steps 3000)"
lines | grep '^training' | awk '{ if (length($0) > 59) print "too wide: " $0 }'
lines | grep '^training' | tail -n 1 | grep -o '^training \[#*\] 3000/3000 steps'
lines | grep -c '^done'
on_terminal "$(train none --max-steps 300 --no-progress)"
lines | grep -c '^training' || true
balora train --threads 1 --model "$MODEL" --data data.jsonl --r 2 --no-store --out plain --max-steps 300 2>&1 | grep -c '^training' || true

# Ctrl-C ends the bar's line first
on_terminal "$(train long --max-steps 1000000)" & job=$!
while [ ! -s long.jsonl ]; do sleep 0.01; done
sleep 0.5; kill -INT "$(cat pid)"
wait $job || true
lines | grep '^balora train: interrupted' | sed 's/step [0-9]*/step N/'
