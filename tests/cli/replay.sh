# The recipe that a run leaves makes the same run again: every default that a method works out is in it, nothing that the
# method has not, and paths that hold wherever the recipe lies.
. "$ROOT/tests/cli/lib.bash"
model_copy model
for i in 1 2 3 4; do echo '{"input_ids":[1,2,3,4,5,6,7,8],"labels":[-100,2,3,4,5,6,7,8]}'; done >d.jsonl
once() {
    name=$1
    shift
    balora train --model model --data d.jsonl --max-steps 2 --batch-size 2 --no-store --threads 1 --out "$name" -q "$@" || return
    mkdir -p elsewhere
    mv "$name/balora/recipe.json" elsewhere/
    balora train --config elsewhere/recipe.json --out "$name-again" -q || return
    cmp "$name/adapter_model.safetensors" "$name-again/adapter_model.safetensors" || return
    diff <(grep -v base_model_name "$name/adapter_config.json") <(grep -v base_model_name "$name-again/adapter_config.json") || return
    echo "$name: the same; $(grep -oE '"(r|lora_alpha|init|lambda_consistency|lambda_svd)": ?[^,}]*' elsewhere/recipe.json | tr -d ' \n' | tr '"' ' ')"
}
once ba --method ba-lora-nlg --r 4 --lr 1e-3
once off --method ba-lora-nlg --r 4 --lr 1e-3 --lambda-svd 0
once rslora --method rslora --r 4
for m in loha lokr ia3 vera adalora houlsby pfeiffer; do once $m --method $m; done
once dora --method dora --r 4
once preset --preset ba-lora-nlg --r 4 --lora-alpha 4
# --resume says what differs from the recipe, a default that was not written too
balora train --model model --data d.jsonl --max-steps 4 --stop-after 2 --batch-size 2 --no-store --threads 1 --method loha --out part -q
part="train --model model --data d.jsonl --max-steps 4 --batch-size 2 --no-store --threads 1 --method loha --out part -q"
refused balora $part --weight-decay 0.5 --resume auto
balora $part --r 8 --resume auto && echo resumed
