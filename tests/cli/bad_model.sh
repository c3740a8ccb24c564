. "$ROOT/tests/cli/lib.bash"
echo '{"input_ids": [[1, 2, 3]], "labels": [[1, 2, 3]]}' >in.json
try() { refused balora forward --model "$1" --input in.json --out out.safetensors; }

try nothing                                           # not there
mkdir empty; try empty                                # nothing in it
model_copy m; rm m/model.safetensors; try m           # no weights
model_copy m; rm m/config.json; try m
model_copy m; head -c 9000 "$MODEL/model.safetensors" >m/model.safetensors; try m
model_copy m; head -c 5 "$MODEL/model.safetensors" >m/model.safetensors; try m
model_copy m; : >m/model.safetensors; try m
model_copy m; { le64 99999999999; tail -c +9 "$MODEL/model.safetensors"; } >m/model.safetensors; try m
model_copy m; { le64 20; tail -c +9 "$MODEL/model.safetensors"; } >m/model.safetensors; try m
model_copy m; sed -i 's/"hidden_size": 16/"hidden_size": 32/' m/config.json; try m
model_copy m; sed -i 's/"vocab_size": 64/"vocab_size": 65/' m/config.json; try m
model_copy m; sed -i 's/"num_hidden_layers": 2/"num_hidden_layers": 3/' m/config.json; try m
model_copy m; sed -i 's/"num_key_value_heads": 2/"num_key_value_heads": 3/' m/config.json; try m
model_copy m; sed -i 's/"model_type": "llama"/"model_type": "lama"/' m/config.json; try m
model_copy m; sed -i 's/"vocab_size": 64/"vocab_size": "many"/' m/config.json; try m
model_copy m; sed -i 's/"vocab_size": 64/"vocab_size": -4/' m/config.json; try m
model_copy m; head -c 50 "$MODEL/config.json" >m/config.json; try m
model_copy m; sed -i 's/"F16"/"F17"/' m/model.safetensors; try m
model_copy m; sed -i 's/lm_head.weight/xm_head.weight/' m/model.safetensors; try m
printf 'GGUF\3\0\0\0' >m.gguf; try m.gguf
printf 'GGML\3\0\0\0aaaaaaaaaaaaaaaaaaaaaaaaaaa' >m.gguf; try m.gguf
mkdir g; cp m.gguf g/one.gguf; try g                   # a folder around one GGUF file is that file
cp m.gguf g/two.gguf; cp m.gguf g/three.gguf; try g
refused balora tokenize --tokenizer g x
refused balora inspect g
[ ! -e out.safetensors ] || echo "something was written"
