# balora train, pretrain, data: from generated problems to an adapter, and what is refused
balora data world --n 300 --seed 5 --out world.jsonl
head -1 world.jsonl
mkdir tok
balora data tokenizer --data world.jsonl --vocab 300 --out tok/tokenizer.json -q
balora data show --data world.jsonl --model tok --format gsm8k_metamath --item 1
cat >tiny.json <<'JSON'
{"model_type":"llama","hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,"num_attention_heads":2,
 "num_key_value_heads":1,"vocab_size":300,"max_position_embeddings":512,"rms_norm_eps":1e-5,"tie_word_embeddings":true}
JSON
balora pretrain --model-config tiny.json --tokenizer tok --data world.jsonl --out base --max-steps 4 --batch-size 8 --lr 1e-3 -q
ls base
T="balora train --model base --data world.jsonl --format gsm8k_metamath --batch-size 4 --max-steps 4 -q"
$T --method ba-lora-nlg --r 4 --out ba --validation-split 0.05 --metrics-out curve.jsonl
ls ba ba/pissa ba/balora/initial
wc -l <curve.jsonl
$T --out ba 2>/dev/null && exit 1 || echo "there: $?"
$T --out ba --method ba-lora-nlg --r 4 --validation-split 0.05 --resume auto && echo "again"
$T --out ba --method ba-lora-nlg --r 4 --validation-split 0.05 --resume auto --lr 1 2>err && exit 1 || echo "other recipe: $?"
grep -o "lr was .* now" err
$T --init corda --corda-method kpm --calibration-data world.jsonl --calibration-format gsm8k_metamath --calibration-samples 5 --r 4 --out corda
ls corda corda/balora/initial
$T --init milora --corda-method kpm --out x 2>err && exit 1 || echo "no corda: $?"
grep -o "corda_method is for --init corda" err
$T --out x --r 33 2>/dev/null && exit 1 || echo "rank: $?"
$T --out x --lr 1000 --max-grad-norm 0 --weight-decay 1000 --lr-scheduler constant 2>err && exit 1 || echo "not finite: $?"
grep -o "step [0-9]*: [a-z/ ]* is not finite" err | sed 's/[0-9][0-9]*/N/'
printf '{"prompt":"a","response":"b"}\n{"prompt":\n' >bad.jsonl
balora train --model base --data bad.jsonl --out y -q 2>err && exit 1 || echo "broken line: $?"
grep -o "bad.jsonl, line 2" err
: >empty.jsonl
balora train --model base --data empty.jsonl --out y -q 2>/dev/null && exit 1 || echo "empty: $?"
printf '{"input_ids":[1,300]}\n' >big.jsonl
balora train --model base --data big.jsonl --out y -q 2>err && exit 1 || echo "big id: $?"
grep -o "token id 300 at position 1" err
ls -d y 2>/dev/null || echo "nothing half-written"
balora runs list | awk 'NR>1{print $2,$4}' | sort | uniq -c | sed 's/^ *//'
