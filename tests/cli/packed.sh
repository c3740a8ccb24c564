# balora train on a base packed in memory: QLoRA, LoftQ, QPiSSA; files, resume, and what the other commands make of them
. "$ROOT/tests/cli/lib.bash"
cat >tiny.json <<'JSON'
{"model_type":"llama","hidden_size":64,"intermediate_size":128,"num_hidden_layers":2,"num_attention_heads":2,
 "num_key_value_heads":1,"vocab_size":60,"max_position_embeddings":64,"rms_norm_eps":1e-5,"initializer_range":0.15,
 "tie_word_embeddings":true}
JSON
for i in 1 2 3 4 5 6 7 8; do echo "{\"input_ids\":[1,$i,5,9,$((i * 2)),3,$((i + 7)),2]}"; done >data.jsonl
balora pretrain --model-config tiny.json --data data.jsonl --format tokens --out base --max-steps 2 --batch-size 4 --lr 1e-3 -q --no-store
T="balora train --model base --data data.jsonl --max-steps 4 --batch-size 4 --lr 5e-3 --r 4 --no-store"
said() { "$@" 2>err >/dev/null || { cat err; return 1; }; grep -oE "(packed as|start (loftq|pissa):).*" err | sed 's/[0-9.]* %/N %/g'; }
said $T --base-dtype nf4 --out qlora
cat qlora/balora/base.json
said $T --base-dtype nf4 --init loftq --out loftq
cat loftq/balora/base.json
said $T --base-dtype nf4 --init loftq --loftq-iter 3 --out loftq3
cat loftq3/balora/base.json
ls loftq3 loftq3/balora loftq3/balora/base_shift
said $T --base-dtype q4_0 --method pissa --out qpissa
cat qpissa/balora/base.json
# a run that was stopped ends with the same bits
for m in "--init loftq --loftq-iter 3" "--method pissa"; do
    rm -rf whole parts
    $T --base-dtype nf4 $m --out whole -q
    $T --base-dtype nf4 $m --out parts --stop-after 2 -q
    $T --base-dtype nf4 $m --out parts --resume auto -q
    cmp whole/over_base/adapter_model.safetensors parts/over_base/adapter_model.safetensors && echo "resumed: equal"
done
# the adapter over its base, merged; the base alone, and the adapter over that as over any model; the pair over it
for i in 1 2 3; do echo "{\"context_ids\":[1,$i,5],\"continuation_ids\":[9,7]}"; done >ask.jsonl
score() { # in processes of their own
    local to=answers.$BASHPID
    balora evaluate "$@" --requests ask.jsonl --out "$to" -q >/dev/null
    sed 's/.*"loglikelihood": *\([-0-9.e]*\).*/\1/' "$to"
}
equal() { awk '{d = $1 - $2; if (d < 0) d = -d; if (!(d < 2e-5)) bad = 1} END {print bad ? "differ" : "equal"}'; }
for a in qlora loftq loftq3 qpissa; do
    balora merge --model base --adapter $a --out merged-$a --dtype f32 -q >/dev/null
    balora merge --model base --adapter $a --base-only --out base-$a --dtype f32 -q >/dev/null
    rm -rf plain && cp -r $a plain && rm -rf plain/balora plain/pissa
    echo "$a: merged $(paste <(score --model base --adapter $a) <(score --model merged-$a) | equal)," \
        "over its base $(paste <(score --model base --adapter $a) <(score --model base-$a --adapter plain) | equal)," \
        "over the file's weights $(paste <(score --model base --adapter $a) <(score --model base --adapter plain) | equal)"
done
paste <(score --model base --adapter loftq3) <(score --model base --adapter loftq3/pissa) | equal
refused balora evaluate --model base --adapter qlora --adapter loftq --requests ask.jsonl -q
refused balora merge --model base --adapter plain --base-only --out x
refused $T --init loftq --out x
refused $T --base-dtype nf4 --method full --out x
refused $T --loftq-iter 3 --out x
refused $T --base-dtype nf4 --init loftq --method dora --out x -q
refused $T --base-dtype nf4 --init loftq --reference-model base --out x
said $T --init loftq --reference-model base --out x && echo "nothing is lost, nothing to take up"
