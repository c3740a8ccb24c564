# biases and whole modules that are trained with an adapter: resuming, files, merging, several adapters at once, and what is refused
. "$ROOT/tests/cli/lib.bash"
for i in $(seq 1 24); do
    echo "{\"input_ids\": [1, $((i + 2)), 9, 12, $((30 - i)), 2], \"labels\": [-100, -100, 9, 12, $((30 - i)), 2]}"
done >data.jsonl
echo '{"input_ids": [[1, 5, 9, 12, 30, 2], [3, 4]], "labels": [[1, 5, 9, 12, 30, 2], [3, 4]]}' >ids.json
echo '{"prompt_ids": [1, 5, 9], "max_new_tokens": 6, "temperature": 0, "ignore_eos": true}' >ask.jsonl
cat >tiny.json <<'JSON'
{"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":2,
 "num_key_value_heads":1,"vocab_size":60,"max_position_embeddings":64,"rms_norm_eps":1e-5,"tie_word_embeddings":true}
JSON
balora pretrain --model-config tiny.json --data data.jsonl --format tokens --out wide --max-steps 2 --batch-size 4 --lr 1e-3 -q --no-store
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
trains saves "$LLAMA" --r 2 --target-modules q_proj --modules-to-save lm_head,norm --head-lr 0.01
trains pissa_saves "$LLAMA" --r 2 --method pissa --target-modules q_proj,v_proj --modules-to-save down_proj,embed_tokens
trains loha_saves "$LLAMA" --r 2 --method loha --modules-to-save layers.1.mlp --checkpoint-activations
trains parted "$GPT2" --r 2 --modules-to-save wte,attn.c_proj --bias all
trains tied "$GPT2" --r 2 --modules-to-save wte --ensure-weight-tying
grep -h tie_word merged/config.json || echo "  its head is the embedding"
trains packed wide --r 2 --modules-to-save lm_head,up_proj --base-dtype q8_0 --target-modules q_proj
for key in bias modules_to_save; do
    for folder in saves pissa_saves pissa_saves/balora/initial tied lora_all pissa_only pissa_only/pissa pissa_only/balora/initial vera_only gpt2_all; do
        grep -A2 "\"$key\"" $folder/adapter_config.json | tr -d '\n' | sed "s|^|$folder|; s/,  .*//; s/, *\"peft.*//"
        echo
    done
done
balora inspect lora_all --json | grep -o '"other_tensors": *[0-9]*'

# a rank-2r LoRA has the copies too, and says the same
balora convert --quiet --model "$LLAMA" --adapter pissa_saves/pissa --to lora --out plain
for a in pissa_saves pissa_saves/pissa plain; do
    balora forward --quiet --model "$LLAMA" --adapter $a --input ids.json --out x.safetensors --json |
        grep -o '"loss.task":[0-9.]\{7\}'
done | uniq -c | tr -s ' '
balora train $COMMON --model "$LLAMA" --r 2 --modules-to-save lm_head --out adaptive --use-adaptive-regularization \
    --lambda-consistency 0.1 --compute bf16 --teacher-cache rows && echo "adaptive weight, bf16, kept teacher rows: runs"
balora train --quiet --threads 1 --config saves/balora/recipe.json --out again --overwrite
cmp saves/adapter_model.safetensors again/adapter_model.safetensors && echo "its recipe makes it again"
balora forward --quiet --model "$GPT2" --adapter parted --input ids.json --out g.safetensors --grad $TERMS
balora inspect g.safetensors --tensors 2>/dev/null | grep -c 'grad.base_model.model.transformer.h.0.attn.c_proj.weight'
rm x.safetensors

# the base, and adapters beside it, as each alone
balora evaluate --quiet --model "$LLAMA" --requests ask.jsonl --out base.jsonl >/dev/null
for a in lora_all pissa_only vera_only saves pissa_saves; do
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
refused $T --out x --r 2 --modules-to-save lm_hat
refused $T --out x --ensure-weight-tying
refused $T --out x --adapter saves --modules-to-save lm_head
refused $T --out x --method full --modules-to-save lm_head
refused $T --out x --target-modules q_proj --modules-to-save self_attn
refused balora train $COMMON --model "$GPT2" --out x --target-modules lm_head,c_fc --modules-to-save wte --ensure-weight-tying
refused $T --out x --r 2 --modules-to-save lm_head --svd-solver gram $TERMS
refused balora convert --quiet --model "$LLAMA" --adapter saves --to gguf --out a.gguf
refused balora convert --quiet --model "$LLAMA" --adapter lora_all --to gguf --out a.gguf
refused balora merge --quiet --model "$LLAMA" --adapter lora_all --adapter lora_all --combination cat --out x
sed 's/"bias": "all"/"bias": "some"/' lora_all/adapter_config.json >c && cp -r lora_all other && cp c other/adapter_config.json
refused balora forward --quiet --model "$LLAMA" --adapter other --input ids.json --out x.safetensors
sed 's/"bias": "all"/"bias": "none"/' lora_all/adapter_config.json >other/adapter_config.json
refused balora forward --quiet --model "$LLAMA" --adapter other --input ids.json --out x.safetensors
balora train --no-store --model "$MODEL" --data data.jsonl --out none --max-steps 1 --r 2 --bias all 2>&1 | grep -o 'bias all: .*'
ls -d x* 2>/dev/null || echo "nothing half-written"
