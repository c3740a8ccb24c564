# --model DIR around one GGUF file is that file
F=$SHARED/models/SmolLM2-135M-Instruct-GGUF
[ -d "$F" ] || { echo "the shared model is not there" >&2; exit 77; }
balora inspect "$F" --json | grep -o '"kind":[^,]*'
echo '{"text": "One file."}' | balora tokenize --tokenizer "$F"
echo '{"input_ids": [[1, 2, 3]]}' >in.json
balora forward --quiet --model "$F" --input in.json --out folder.safetensors
balora forward --quiet --model "$F"/*.gguf --input in.json --out file.safetensors
cmp folder.safetensors file.safetensors && echo "the same logits"
