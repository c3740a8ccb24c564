# balora convert: PiSSA to plain LoRA, and its refusals
G=$SHARED/golden/decoder/adp_pissa_llama
[ -d "$G" ] || { echo "no golden/decoder" >&2; exit 77; }
balora convert --adapter "$G/adapter" --initial-adapter "$G/initial_adapter" --model "$G/model" --out plain
grep -E '"(r|lora_alpha|init_lora_weights)"' plain/adapter_config.json
ls plain
balora convert --adapter "$G/adapter" --model "$G/model" --out plain 2>err && exit 1 || echo "there: $?"
grep -c overwrite err
balora convert --adapter "$G/adapter" --model "$G/model" --out plain --overwrite --json 2>err # no initial factors: the SVD is redone
grep -c redone err
mkdir mine && echo text >mine/precious
balora convert --adapter "$G/adapter" --model "$G/model" --out mine --overwrite 2>/dev/null && exit 1 || echo "not an adapter: $?"
cat mine/precious
balora convert --adapter nowhere --model "$G/model" --out other 2>/dev/null && exit 1 || echo "missing: $?"
balora convert --adapter "$G/adapter" --model "$G/model" --out other --to ggml 2>/dev/null && exit 1 || echo "unknown form: $?"
balora convert --adapter plain --model "$G/model" --out plain --overwrite 2>/dev/null && exit 1 || echo "itself: $?"
ls -d other* *.tmp 2>/dev/null || echo "nothing half-written"
