# biases that are trained with an adapter: resuming, files, merging, several adapters at once, and what is refused
. "$ROOT/tests/cli/lib.bash"
for i in $(seq 1 24); do
    echo "{\"input_ids\": [1, $((i + 2)), 9, 12, $((30 - i)), 2], \"labels\": [-100, -100, 9, 12, $((30 - i)), 2]}"
done >data.jsonl
echo '{"input_ids": [[1, 5, 9, 12, 30, 2], [3, 4]], "labels": [[1, 5, 9, 12, 30, 2], [3, 4]]}' >ids.json
echo '{"prompt_ids": [1, 5, 9], "max_new_tokens": 6, "temperature": 0, "ignore_eos": true}' >ask.jsonl
LLAMA=$ROOT/tests/unit/data/methods/base GPT2=$ROOT/tests/unit/data/methods/gpt2
COMMON="--quiet --threads 1 --no-store --data data.jsonl --max-steps 12 --batch-size 8 --lr 0.02 --lr-scheduler constant"
TERMS="--lambda-consistency 0.05 --lambda-diversity 0.01 --lambda-svd 0.01"

# value KEY LINE: of a line of metrics
value() { grep -o "\"$1\":[^,}]*" <<<"$2" | cut -d: -f2; }

# trains NAME MODEL WORDS...: in one go and in two, then merged
trains() {
    local name=$1 model=$2 first last
    shift 2
    balora train $COMMON $TERMS --model "$model" "$@" --out "$name" --metrics-out "$name.jsonl"
    first=$(head -n 1 "$name.jsonl") last=$(tail -n 1 "$name.jsonl")
    awk -v m="$name" -v a="$(value loss/task "$first")" -v b="$(value loss/task "$last")" \
        -v c="$(value loss/consistency "$first")" -v d="$(value loss/consistency "$last")" 'BEGIN {
        print m ": " (b + 0 < 0.98 * a ? "learns" : "does not learn: " a " to " b) \
            (c < 1e-6 && d > 1e-3 ? ", away from the frozen teacher" : ", teacher? " c " to " d) }'
    balora train $COMMON $TERMS --model "$model" "$@" --out parts --overwrite --stop-after 5
    balora train $COMMON $TERMS --model "$model" "$@" --out parts --resume auto
    cmp "$name/adapter_model.safetensors" parts/adapter_model.safetensors && echo "  resumed: the same bits"
    balora merge --quiet --model "$model" --adapter "$name" --out merged --overwrite --dtype f32 >/dev/null
    balora forward --quiet --model "$model" --adapter "$name" --input ids.json --out a.safetensors --json >a
    balora forward --quiet --model merged --input ids.json --out b.safetensors --json >b
    awk -v a="$(value loss.task "$(cat a)")" -v b="$(value loss.task "$(cat b)")" \
        'BEGIN { print "  merged" ((a - b) ^ 2 < 1e-10 && a > 0 ? "" : " to another model: " a ", " b) }'
}

trains lora_all "$LLAMA" --r 2 --target-modules q_proj --bias all
trains pissa_only "$LLAMA" --r 2 --method pissa --target-modules q_proj,v_proj --bias lora_only
trains vera_only "$LLAMA" --r 16 --method vera --bias lora_only
trains gpt2_all "$GPT2" --r 2 --bias all
trains bitfit "$GPT2" --method bitfit
grep -c . bitfit/adapter_config.json
balora inspect bitfit --json | grep -oE '"(peft_type|modules_adapted|other_tensors)": *[^,]*'
for key in bias modules_to_save; do
    for folder in lora_all pissa_only pissa_only/pissa pissa_only/balora/initial vera_only gpt2_all; do
        grep "\"$key\"" $folder/adapter_config.json | sed "s|^|$folder|"
    done
done
balora inspect lora_all --json | grep -o '"other_tensors": *[0-9]*'

# the base, and adapters beside it, as each alone
balora evaluate --quiet --model "$LLAMA" --requests ask.jsonl --out base.jsonl >/dev/null
for a in lora_all pissa_only vera_only; do
    balora evaluate --quiet --model "$LLAMA" --adapter $a --requests ask.jsonl --out $a.answer >/dev/null
    cmp -s base.jsonl $a.answer && echo "$a answers as its base does"
done

# what is refused, or said
T="balora train $COMMON --model $LLAMA"
refused $T --out x --method loha --bias all
refused $T --out x --method ia3 --bias lora_only
refused $T --out x --method houlsby --bias all
refused $T --out x --bias some
refused $T --out x --method bitfit --bias all
refused $T --out x --method bitfit --r 4
refused $T --out x --method bitfit --target-modules q_proj
refused balora train --quiet --no-store --model "$MODEL" --data data.jsonl --out x --method bitfit
refused balora forward --quiet --model "$LLAMA" --adapter bitfit --input ids.json --out x.safetensors
refused balora convert --quiet --model "$GPT2" --adapter bitfit --to lora --out x
refused $T --out x --adapter lora_all --bias lora_only
refused balora convert --quiet --model "$LLAMA" --adapter lora_all --to gguf --out a.gguf
refused balora merge --quiet --model "$LLAMA" --adapter lora_all --adapter lora_all --combination cat --out x
sed 's/"bias": "all"/"bias": "some"/' lora_all/adapter_config.json >c && cp -r lora_all other && cp c other/adapter_config.json
refused balora forward --quiet --model "$LLAMA" --adapter other --input ids.json --out x.safetensors
sed 's/"bias": "all"/"bias": "none"/' lora_all/adapter_config.json >other/adapter_config.json
refused balora forward --quiet --model "$LLAMA" --adapter other --input ids.json --out x.safetensors
balora train --no-store --model "$MODEL" --data data.jsonl --out none --max-steps 1 --r 2 --bias all 2>&1 | grep -o 'bias all: .*'
ls -d x* 2>/dev/null || echo "nothing half-written"
