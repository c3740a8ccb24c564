# What an adapter is on: patterns, expressions, layers; DoRA; files that travel from train to forward and merge
. "$ROOT/tests/cli/lib.bash"
cat >data.jsonl <<END
{"input_ids": [1, 5, 9, 12, 7, 2], "labels": [-100, -100, 9, 12, 7, 2]}
{"input_ids": [1, 6, 8, 2], "labels": [-100, 6, 8, 2]}
END
echo '{"input_ids": [[1, 5, 9, 12, 7, 2], [1, 6, 8, 2]]}' >in.json
echo '{"context_ids": [1, 5, 9], "continuation_ids": [12, 7, 2]}' >ask.jsonl
base="--quiet --no-store --model $MODEL --data data.jsonl --batch-size 2 --max-steps 3 --lr 0.05"
shapes() { balora inspect "$1/adapter_model.safetensors" --tensors | grep -oE '[a-z0-9_.]*(lora_A.weight|vector).*[0-9]' | tr -s ' ' | sed 's/base_model.model.model.//' | sort; }
# says FILE: the log-likelihood in it;  same A B: are they equal?
says() { sed 's/.*"loglikelihood": *\([-0-9.e]*\).*/\1/' "$1"; }
same() { awk -v a="$(says "$1")" -v b="$(says "$2")" 'BEGIN { d = a - b; print (d < 1e-4 && d > -1e-4) ? "the same" : "another" }'; }
# travels NAME OPTIONS...: trained, read back, merged: the same answer, and not that of the base
travels() {
    local name=$1; shift
    balora train $base --out "$name" "$@" || return
    balora evaluate --quiet --model "$MODEL" --requests ask.jsonl --out side --adapter "$name"
    balora merge --quiet --model "$MODEL" --adapter "$name" --out "$name-merged" --dtype f32 >/dev/null
    balora evaluate --quiet --model "$name-merged" --requests ask.jsonl --out merged
    balora evaluate --quiet --model "$MODEL" --requests ask.jsonl --out base
    echo "$name: merged $(same side merged), base $(same side base)"
}
travels patterns --r 4  --target-modules q_proj,v_proj --rank-pattern 'layers.0.*q_proj=2' --rank-pattern v_proj=3 --alpha-pattern v_proj=9
shapes patterns
grep -A 3 _pattern patterns/adapter_config.json
travels expression --r 4  --target-modules '.*\.1\.(self_attn|mlp)\.(o|up)_proj'
shapes expression; grep target_modules expression/adapter_config.json
travels layers --r 4  --layers-to-transform 1 --exclude-modules mlp.up_proj,q_proj
shapes layers
travels dora --r 4 --method dora --target-modules q_proj,down_proj
shapes dora | grep magnitude; grep use_dora dora/adapter_config.json
travels dora-pissa --use-dora --method pissa --r 2 --target-modules q_proj,o_proj
travels outer --r 4 --target-modules embed_tokens,lm_head,q_proj
travels dora-outer --r 4 --use-dora --target-modules embed_tokens,lm_head,q_proj
balora inspect outer/adapter_model.safetensors --tensors | grep -oE '(embed_tokens|lm_head).*[0-9]' | tr -s ' '
grep tie_word outer-merged/config.json
echo '{"r": 2, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 5}, "target_modules": ["q_proj"]}' >recipe.json
balora train --quiet --no-store --model "$MODEL" --data data.jsonl --batch-size 2 --max-steps 2 --out recipe --config recipe.json
shapes recipe
balora train $base --out biased --r 4 --target-modules q_proj --lora-bias
balora evaluate --quiet --model "$MODEL" --requests ask.jsonl --out side --adapter biased
echo "biased: base $(same side base)"
refused balora merge --quiet --model "$MODEL" --adapter biased --out biased-merged

try() { refused balora train $base --r 4 --out out "$@"; }
try --rank-pattern other=3
try --rank-pattern q_proj
try --rank-pattern q_proj=0
try --alpha-pattern 'q_proj=-1'
try --target-modules '.*q_proj('
try --target-modules '.*nothing'
try --layers-to-transform 7
try --layers-to-transform x
try --exclude-modules '.*'
try --use-dora --lora-bias
cp -r patterns broken
sed -i 's/"v_proj": 3/"k_proj": 3/' broken/adapter_config.json
refused balora forward --model "$MODEL" --input in.json --out out.st --adapter broken
cp -r dora without; sed -i '/use_dora/d; s/"task_type": "CAUSAL_LM",/"task_type": "CAUSAL_LM"/' without/adapter_config.json
refused balora forward --model "$MODEL" --input in.json --out out.st --adapter without
cp -r patterns with; sed -i '1a "use_dora": true,' with/adapter_config.json
refused balora forward --model "$MODEL" --input in.json --out out.st --adapter with
refused balora convert --model "$MODEL" --adapter dora --to gguf --out dora.gguf
refused balora analyze spectrum --adapter dora
