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

for method in lora dora loha lokr ia3 vera houlsby pfeiffer; do
    words=
    case $method in lora | dora | loha | lokr) words="--r 2" ;; vera) words="--r 16" ;; houlsby | pfeiffer) words="--reduction-factor 4" ;; esac
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

refused $T --out x --method ia3 --r 4
refused $T --out x --method lora --decompose-both
refused $T --out x --method vera --lora-alpha 4
refused $T --out x --method loha --init pissa
refused $T --out x --method loha --lora-dropout 0.1
refused $T --out x --method pfeiffer --target-modules q_proj
refused $T --out x --method houlsby --non-linearity sine
refused $T --out x --method lokr --decompose-factor 0
refused $T --out x --method lora --adapter loha
sed 's/"feedforward_modules": \[[^]]*\]/"feedforward_modules": "down"/' ia3/adapter_config.json >c && cat c >/dev/null
ls -d x 2>/dev/null || echo "nothing half-written"
