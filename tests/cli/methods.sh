# every adapter method through the program: BA-LoRA's terms, resuming, files, merging, generation, and what is refused
. "$ROOT/tests/cli/lib.bash"
for i in $(seq 1 24); do
    echo "{\"input_ids\": [1, $((i + 2)), 9, 12, $((50 - i)), 2], \"labels\": [-100, -100, 9, 12, $((50 - i)), 2]}"
done >data.jsonl
echo '{"input_ids": [[1, 5, 9, 12, 30, 2], [3, 4]]}' >ids.json
echo '{"prompt_ids": [1, 5, 9], "max_new_tokens": 6, "temperature": 0, "ignore_eos": true}' >ask.jsonl
echo '{"prompt_ids": [7, 5], "max_new_tokens": 4, "temperature": 0, "ignore_eos": true}' >>ask.jsonl
T="balora train --quiet --threads 1 --no-store --model $MODEL --data data.jsonl --max-steps 16 --batch-size 8 --lr 0.02"
T="$T --lambda-consistency 0.05 --lambda-diversity 0.01 --lambda-svd 0.01 --lr-scheduler constant"

# value KEY LINE: of a line of metrics
value() { grep -o "\"$1\":[^,}]*" <<<"$2" | cut -d: -f2; }

for method in lora dora loha lokr ia3 vera adalora houlsby pfeiffer; do
    words=
    case $method in lora | dora | loha | lokr) words="--r 2" ;; vera) words="--r 16" ;; adalora) words="--init-r 4 --target-r 2 --tfinal 4 --target-modules q_proj,v_proj,down_proj" ;; houlsby | pfeiffer) words="--reduction-factor 4" ;; esac
    $T --method $method $words --out $method --metrics-out $method.jsonl
    first=$(head -n 1 $method.jsonl) last=$(tail -n 1 $method.jsonl)
    for term in consistency diversity spectral; do
        [[ $(value loss/$term "$last") =~ ^-?[0-9.e-]+$ ]] || echo "$method: $term is $(value loss/$term "$last")"
    done
    awk -v m=$method -v a="$(value loss/task "$first")" -v b="$(value loss/task "$last")" \
        'BEGIN { print m ": " (b + 0 < 0.98 * a ? "learns" : "does not learn: " a " to " b) }'
    rm -f again.jsonl
    $T --method $method $words --out parts --overwrite --metrics-out again.jsonl --stop-after 7
    $T --method $method $words --out parts --resume auto --metrics-out again.jsonl
    cmp $method/adapter_model.safetensors parts/adapter_model.safetensors && echo "  resumed: the same bits"
    balora forward --quiet --model "$MODEL" --adapter $method --input ids.json --out a.safetensors
    if balora merge --quiet --model "$MODEL" --adapter $method --out merged --overwrite --dtype f32 >/dev/null 2>err; then
        balora forward --quiet --model merged --input ids.json --out b.safetensors && echo "  merged"
    else
        head -n 1 err | sed 's/^/  /'
    fi
    balora evaluate --quiet --model "$MODEL" --adapter $method --requests ask.jsonl --out both.jsonl >/dev/null
    tail -n 1 ask.jsonl >one.jsonl
    balora evaluate --quiet --model "$MODEL" --adapter $method --requests one.jsonl --out alone.jsonl >/dev/null
    [ "$(tail -n 1 both.jsonl)" = "$(cat alone.jsonl)" ] && echo "  generates, alone as with others"
    balora inspect $method --json | grep -o '"peft_type": *"[A-Z0-9]*"' | tr -d ' '
done
rm -rf parts

echo "adalora: the ranks go down, its term is in the total, and what is left is one adapter to all commands"
ranks=$(grep -o '"ranks":[0-9]*' adalora.jsonl | cut -d: -f2 | tr '\n' ' ')
echo "$ranks" | awk '{ for (i = 2; i <= NF; i++) if ($i > $(i - 1)) print "  ranks rise"; print "  " ($1 > 12 ? "more" : "fewer") " than 12 at first, then " $NF }'
for line in 1 9 16; do
    l=$(sed -n ${line}p adalora.jsonl)
    awk -v t="$(value loss/total "$l")" -v a="$(value loss/task "$l")" -v c="$(value loss/consistency "$l")" \
        -v d="$(value loss/diversity "$l")" -v s="$(value loss/spectral "$l")" -v o="$(value loss/orthogonality "$l")" \
        'BEGIN { e = t - (a + 0.05 * c + 0.01 * d + 0.01 * s + 0.5 * o); print "  " (o > 0.1 && e * e < 1e-8 ? "total is the sum" : "total is off by " e) }'
done
tr -d ' \n' <adalora/adapter_config.json | grep -o '"rank_pattern":{[^}]*}' | grep -o true | wc -l | sed 's/$/ ranks in rank_pattern/'
tr -d ' \n' <adalora/adapter_config.json | grep -o '"total_step":[0-9]*'
balora inspect adalora --json | tr -d ' \n' | grep -o '"scale":[0-9.]*' | sort -u
balora convert --adapter adalora --model "$MODEL" --to lora --out plain | sed 's/rank [0-9].*modules/rank R/' # which ranks stay depends on the last bits
for a in adalora plain; do
    balora merge --quiet --model "$MODEL" --adapter $a --out merged-$a --dtype f32 >/dev/null
    balora forward --quiet --model merged-$a --input ids.json --out $a.safetensors
    balora analyze spectrum --adapter $a --no-store | tail -n 1 >$a.txt
done
cmp adalora.txt plain.txt && echo "  the same spectrum"
balora merge --quiet --model "$MODEL" --adapter adalora --adapter lora --weights 0.5,0.5 --combination cat --out sum | sed 's/[0-9]*$/R/'
balora train --quiet --no-store --threads 1 --model "$MODEL" --data data.jsonl --max-steps 3 --batch-size 8 --method adalora \
    --adapter adalora --target-r 1 --tfinal 0 --metrics-out warm.jsonl --out warm
grep -o '"ranks":[0-9]*' warm.jsonl | tail -n 1
balora train --no-store --threads 1 --model "$MODEL" --data data.jsonl --max-steps 3 --batch-size 8 --method adalora \
    --total-step 9 --no-progress --out more 2>&1 | grep -E '^(method|ranks)|warning' | sed 's/, [0-9.]* M trainable.*//'
rm -rf more

refused $T --out x --method ia3 --r 4
refused $T --out x --method lora --decompose-both
refused $T --out x --method vera --lora-alpha 4
refused $T --out x --method loha --init pissa
refused $T --out x --method loha --lora-dropout 0.1
refused $T --out x --method pfeiffer --target-modules q_proj
refused $T --out x --method houlsby --non-linearity sine
refused $T --out x --method lokr --decompose-factor 0
refused $T --out x --method lora --adapter loha
refused $T --out x --method adalora --r 4
refused $T --out x --method adalora --rank-pattern q_proj=4
refused $T --out x --method adalora --use-rslora
refused $T --out x --method adalora --use-dora
refused $T --out x --method lora --init-r 4
refused $T --out x --method adalora --tinit 8 --tfinal 8
refused $T --out x --method adalora --target-r 13
refused $T --out x --method adalora --beta1 1
refused $T --out x --adapter adalora --method adalora --init-r 3
refused $T --out x --method ia3 --layers-to-transform 0
refused $T --out x --method vera --exclude-modules q_proj
refused $T --out x --method vera --rank-pattern q_proj=4
refused $T --out x --method loha --ensure-weight-tying --modules-to-save lm_head
refused $T --out x --method lora --layers-pattern layers
refused $T --out x --method lora --target-modules ".*q_proj" --layers-to-transform 0
refused $T --out x --method lora --lora-dropout 0.1 --target-modules lm_head,q_proj
refused $T --out x --method lora --lora-bias --target-modules embed_tokens
refused $T --out x --adapter lora --target-modules q_proj
refused $T --out x --adapter lora --rank-pattern q_proj=3
refused $T --out x --adapter lokr --method lokr --decompose-both
refused $T --out x --adapter ia3 --method ia3 --feedforward-modules q_proj
refused balora merge --model "$MODEL" --adapter adalora --adapter adalora --combination linear --out x | sed 's/not [0-9].*)/not .../'
sed 's/"feedforward_modules": \[[^]]*\]/"feedforward_modules": "down"/' ia3/adapter_config.json >c && cat c >/dev/null
ls -d x 2>/dev/null || echo "nothing half-written"
