# balora analyze spectrum, alone and against the base
. "$ROOT/tests/cli/lib.bash"
for i in 1 2 3 4 5 6; do echo "{\"input_ids\": [1, $((i + 4)), 9, 12, $((i * 7)), 2]}"; done >data.jsonl
for m in lora pissa; do
    balora train --quiet --threads 1 --model "$MODEL" --data data.jsonl --method $m --r 5 --lr 1e-2 --max-steps 20 --out $m
done
names() { grep -o '"name": "[a-z0-9_]*"' | sort -u | wc -l; }
balora analyze spectrum --adapter lora --json | names
balora analyze spectrum --adapter lora --base "$MODEL" --json | names
balora analyze spectrum --adapter lora --base "$MODEL" --json --no-store | grep -o '"intruder_k": .*}$'
balora analyze spectrum --adapter lora --base "$MODEL" --no-store | head -n 2 | awk '{ print NF }'
balora analyze spectrum --adapter lora --base "$MODEL" --no-store --intruders 0 | sed -n 2p | awk '{ print $(NF - 1), $NF }'
# PiSSA's rank 2 r = 10 is more than k_proj's 8 rows
balora analyze spectrum --adapter pissa --no-store --json | grep -o 'self_attn.k_proj' | wc -l
balora analyze spectrum --adapter pissa --base "$MODEL" --no-store | grep -c 'k_proj'
balora runs export --table matrices last | grep -c amplification
refused balora analyze spectrum --adapter lora --base nothing
refused balora analyze spectrum --adapter lora --base "$MODEL" --intruder-eps 1.5

# two adapters: the same one is nested in itself, at angle 0
balora analyze similarity --adapter lora --against lora | awk 'NR > 1 && $1 ~ /^model/ { print $2, $3, $4, $5, $7, $8 }' | sort -u
balora train --quiet --threads 1 --model "$MODEL" --data data.jsonl --r 3 --lr 1e-2 --max-steps 20 --seed 5 --out other
balora analyze similarity --adapter lora --against other --json | grep -c '"phi": \[\[[0-9.e-]*, [0-9.e-]*, [0-9.e-]*\], '
refused balora analyze similarity --adapter lora
refused balora analyze similarity --adapter lora --against nothing
