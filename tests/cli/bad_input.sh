. "$ROOT/tests/cli/lib.bash"
try() { printf '%s' "$1" >in.json; shift; refused balora forward --model "$MODEL" --input in.json --out out.safetensors "$@"; }

refused balora forward --model "$MODEL" --input nothing.json --out out.safetensors
refused balora forward --model "$MODEL" --out out.safetensors
try ''
try '{"input_ids": [[1, 2'
try '{"labels": [[1]]}'
try '{"input_ids": []}'
try '{"input_ids": [[]]}'
try '{"input_ids": [[1, 64]]}'                        # the vocabulary has 64 tokens
try '{"input_ids": [[1, -1]]}'
try '{"input_ids": [[1, 1.5]]}'
try '{"input_ids": [[1, "a"]]}'
try '{"input_ids": [[1, 2, 3]], "labels": [[1, 2]]}'
try '{"input_ids": [[1, 2, 3]], "labels": [[1, 2, 64]]}'
try '{"input_ids": [[1, 2, 3]], "labels": [[1, 2, -7]]}'
echo '{"input_ids": [[1, 2, 3]]}' >good.json
refused balora forward --model "$MODEL" --input good.json --out no/such/folder/out.safetensors
refused balora forward --model "$MODEL" --input good.json --out /proc/out.safetensors
mkdir taken.safetensors
refused balora forward --model "$MODEL" --input good.json --out taken.safetensors
limited() { (ulimit -f 1; trap '' XFSZ; exec balora "$@" 2>&1 | cat >&2; exit "${PIPESTATUS[0]}"); } # 1 KiB
refused limited forward --model "$MODEL" --input good.json --out full.safetensors --hidden-states
ls
