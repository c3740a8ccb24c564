# balora merge: the merged folder loads, and its refusals
G=$SHARED/golden/decoder/adp_lora
[ -d "$G" ] || { echo "no golden/decoder" >&2; exit 77; }
balora merge --model "$G/model" --adapter "$G/adapter" --out merged
ls merged
balora merge --model "$G/model" --adapter "$G/adapter" --out half --dtype bf16 --json
balora forward --model half --input "$G/input.json" --out logits.safetensors >/dev/null && echo "loads"
balora merge --model "$G/model" --adapter "$G/adapter" --out merged 2>/dev/null && exit 1 || echo "there: $?"
balora merge --model "$G/model" --adapter "$G/adapter" --out merged --overwrite
balora merge --model merged --adapter "$G/adapter" --out merged --overwrite 2>/dev/null && exit 1 || echo "itself: $?"
cp -r "$G/adapter" odd && chmod -R u+w odd && sed -i 's/"LORA"/"OFT"/' odd/adapter_config.json
balora merge --model "$G/model" --adapter odd --out other 2>err && exit 1 || echo "unknown kind: $?"
cut -d' ' -f1-2 err
balora merge --model "$G/model" --adapter "$SHARED/golden/decoder/adp_gemma2_lora/adapter" --out other 2>err && exit 1 || echo "other base: $?"
grep -c "another base model" err
balora merge --model "$G/model" --out other 2>/dev/null && exit 1 || echo "no adapter: $?"
ls -d other* *.tmp 2>/dev/null || echo "nothing half-written"
