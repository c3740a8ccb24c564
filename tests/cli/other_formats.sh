# files that are not read: one sentence with the command that converts them
. "$ROOT/tests/cli/lib.bash"
model_copy pickled
mv pickled/model.safetensors pickled/pytorch_model.bin
refused balora inspect pickled
refused balora generate --model pickled --prompt x
mkdir pieces && touch pieces/tokenizer.model
echo '{"text": "x"}' >x.jsonl
refused balora tokenize --tokenizer pieces x.jsonl
mkdir adapter && touch adapter/adapter_model.bin
echo '{"peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}' >adapter/adapter_config.json
refused balora merge --model "$MODEL" --adapter adapter --out merged
