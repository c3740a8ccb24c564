. "$ROOT/tests/cli/lib.bash"
echo '{"input_ids": [[1, 2, 3]], "labels": [[1, 2, 3]]}' >in.json
try() { refused balora forward --model "$MODEL" --input in.json --out out.safetensors --adapter "$1"; }
config='"peft_type": "LORA", "lora_alpha": 4, "bias": "none", "fan_in_fan_out": false, "task_type": "CAUSAL_LM"'
# adapter FOLDER R IN OUT MODULE: LoRA factors of one q_proj, all zero.
adapter() {
    mkdir -p "$1"
    echo "{$config, \"r\": $2, \"target_modules\": [\"${5##*.}\"]}" >"$1/adapter_config.json"
    local a=$(($2 * $3 * 4)) b=$(($4 * $2 * 4)) p="base_model.model.model.layers.0.$5"
    tensors "{\"$p.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[$2,$3],\"data_offsets\":[0,$a]},\"$p.lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[$4,$2],\"data_offsets\":[$a,$((a + b))]}}" \
        $((a + b)) >"$1/adapter_model.safetensors"
}
try nothing
mkdir empty; try empty
adapter names 2 16 16 attention.query; try names          # another architecture's names
adapter shapes 2 24 24 self_attn.q_proj; try shapes       # a base of another width
adapter ranks 2 16 16 self_attn.q_proj
echo "{$config, \"r\": 4, \"target_modules\": [\"q_proj\"]}" >ranks/adapter_config.json; try ranks
adapter kind 2 16 16 self_attn.q_proj
echo '{"peft_type": "OFT", "target_modules": ["q_proj"]}' >kind/adapter_config.json; try kind
adapter json 2 16 16 self_attn.q_proj; echo '{"peft_type": ' >json/adapter_config.json; try json
adapter zero 2 16 16 self_attn.q_proj; echo "{$config, \"r\": 0, \"target_modules\": [\"q_proj\"]}" >zero/adapter_config.json; try zero
adapter cut 2 16 16 self_attn.q_proj; head -c 200 cut/adapter_model.safetensors >t; mv t cut/adapter_model.safetensors; try cut
[ ! -e out.safetensors ] || echo "something was written"
