# a model and its tokenizer from GGUF to a folder and back, merged and as an adapter
F=$SHARED/models/SmolLM2-135M-Instruct-GGUF
[ -d "$F" ] || { echo "the shared model is not there" >&2; exit 77; }
balora convert --quiet --model "$F" --to hf --dtype f32 --out hf
ls hf
balora convert --quiet --model hf --to gguf --out back.gguf
echo '{"text": "It costs 1234 dollars, or ½ of 12³\n\n  <|im_start|>user"}' >text.jsonl
for t in "$F" hf back.gguf; do balora tokenize --tokenizer "$t" <text.jsonl; done | uniq | wc -l
echo '{"input_ids": [[1, 2, 3, 500]]}' >in.json
for m in "$F" hf back.gguf; do balora forward --quiet --model "$m" --input in.json --out x.safetensors && sha256sum <x.safetensors; done | uniq | wc -l
balora convert --quiet --model hf --to gguf --dtype q4_0 --out q4_0.gguf
balora generate --model q4_0.gguf --prompt "The capital of France is" --max-new-tokens 4 2>/dev/null
rm -r hf *.gguf
G=$SHARED/golden/decoder/adp_lora
balora merge --model "$G/model" --adapter "$G/adapter" --out merged.gguf --json 2>/dev/null
balora merge --quiet --model "$G/model" --adapter "$G/adapter" --out merged
for m in merged merged.gguf; do balora forward --quiet --model $m --input "$G/input.json" --out x.safetensors && sha256sum <x.safetensors; done | uniq | wc -l
balora merge --model "$G/model" --adapter "$G/adapter" --out merged.gguf 2>/dev/null && exit 1 || echo "there: $?"
balora merge --model "$G/model" --adapter "$G/adapter" --out folder --dtype q4_0 2>&1 && exit 1 || echo "a folder: $?"
balora convert --model "$G/model" --adapter "$G/adapter" --to gguf --out adapter.gguf
balora convert --model "$G/model" --adapter "$G/adapter" --to hf --out other 2>&1 && exit 1 || echo "an adapter: $?"
balora convert --model "$G/model" --to gguf --out other 2>&1 && exit 1 || echo "no name of a file: $?"
ls -d other* folder *.tmp 2>/dev/null || echo "nothing half-written"
