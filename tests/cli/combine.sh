# balora merge with several adapters: their weighted sum, merged into the model or written as an adapter
. "$ROOT/tests/cli/lib.bash"
for i in 1 2 3 4; do echo "{\"input_ids\":[1,$i,5,9,$((i * 2)),3]}"; done >data.jsonl
T="balora train --model $MODEL --data data.jsonl --max-steps 3 --batch-size 2 --lr 0.05 --no-store -q"
$T --out a --r 2 --lora-alpha 4 --seed 1
$T --out b --r 3 --seed 2 --target-modules q_proj,down_proj
$T --out p --r 2 --seed 3 --method pissa
balora merge --model "$MODEL" --adapter a --adapter b --weights 0.5,-1.5 --combination cat --out cat
ls cat
balora merge --model "$MODEL" --adapter a --adapter b --adapter p --weights 1,1,2 --combination svd --out svd --json
balora merge --model "$MODEL" --adapter a --adapter b --weights 0.5,-1.5 --out merged --dtype f32
for i in 1 2 3; do echo "{\"context_ids\":[1,$i,5],\"continuation_ids\":[9,7]}"; done >ask.jsonl
score() { # in processes of their own
    local to=answers.$BASHPID
    balora evaluate "$@" --requests ask.jsonl --out "$to" -q >/dev/null
    sed 's/.*"loglikelihood": *\([-0-9.e]*\).*/\1/' "$to"
}
paste <(score --model "$MODEL" --adapter cat) <(score --model merged) <(score --model "$MODEL") |
    awk '{d = $1 - $2; d = d < 0 ? -d : d; e = $1 - $3; e = e < 0 ? -e : e; print (d < 1e-4 ? "equal" : d), (e > 1e-3 ? "not the base" : e)}'
refused balora merge --model "$MODEL" --adapter a --adapter b --combination linear --out x
refused balora merge --model "$MODEL" --adapter a --adapter b --weights 1 --combination cat --out x
refused balora merge --model "$MODEL" --adapter a --adapter b --weights 1,nan --combination cat --out x
refused balora merge --model "$MODEL" --adapter a --adapter b --rank 3 --combination cat --out x
refused balora merge --model "$MODEL" --adapter a --adapter b --weights 1,2 --combination ties --out x
refused balora merge --model "$MODEL" --adapter a --adapter gone --combination cat --out x
ls -d x* .x* 2>/dev/null || echo "nothing half-written"
