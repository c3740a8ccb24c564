# balora generate and evaluate with several adapters: the base and each of them, side by side
. "$ROOT/tests/cli/lib.bash"
balora data world --n 60 --seed 5 --out world.jsonl
mkdir tok
balora data tokenizer --data world.jsonl --vocab 300 --out tok/tokenizer.json -q
cat >tiny.json <<'JSON'
{"model_type":"llama","hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,"num_attention_heads":2,
 "num_key_value_heads":1,"vocab_size":300,"max_position_embeddings":512,"rms_norm_eps":1e-5,"tie_word_embeddings":true}
JSON
balora pretrain --model-config tiny.json --tokenizer tok --data world.jsonl --out base --max-steps 4 --batch-size 8 --lr 1e-3 -q --no-store
T="balora train --model base --data world.jsonl --format gsm8k_metamath --batch-size 4 --max-steps 3 --lr 0.05 --no-store -q"
$T --out a --r 2 --seed 1
$T --out b --r 3 --seed 2 --method pissa
G="balora generate --model base --prompt The -n 5 -q"
E="balora evaluate --model base -q"
$G --adapter a --adapter b >all
for m in base a b; do
    echo "== $m =="
    if [ $m = base ]; then $G; else $G --adapter $m; fi
    [ $m = b ] || echo
done >each
cmp all each && echo "generate: as each alone"
$G --adapter a --adapter b --json | tr -d '\n' | grep -o '"adapter": [^,]*'
printf '{"text": "The sum is"}\n{"text": "one more text"}\n' >texts.jsonl
$E --adapter a --adapter b --perplexity texts.jsonl | sed 's/[0-9][0-9.]*/N/g'
for m in "" "--adapter a" "--adapter b"; do $E $m --perplexity texts.jsonl --json | grep -o '"perplexity": [0-9.]*' | tail -n 1; done >alone
$E --adapter a --adapter b --perplexity texts.jsonl --json | grep '^\]' | grep -o '"perplexity": [0-9.]*' >together
cmp alone together && echo "perplexity: as each alone"
printf '{"context": "The", "continuation": " sum"}\n{"prompt": "One", "max_new_tokens": 2}\n' >ask.jsonl
$E --adapter a --adapter b --requests ask.jsonl --out answers.jsonl
wc -l <answers.jsonl
sed 's/"ids".*//; s/-[0-9][-0-9.e]*/N/g' answers.jsonl | head -1 | grep -o '"adapter": [a-z"]*, "loglikelihood": N'
cat >own.json <<'JSON'
{"task": "own", "version": 1, "scorer": "multiple_choice", "data": {"test": "own.jsonl"}, "prompt": "Q: {q}\nA:",
 "choices": ["no", "yes"], "label": "right"}
JSON
printf '%s\n' '{"q": "one", "right": 1}' '{"q": "two", "right": 0}' >own.jsonl
$E --adapter a --adapter b --tasks own.json --log-samples logs --db r.db --name trio | sed 's/[01]\.[0-9]*/N/g'
ls logs
balora runs list --db r.db | awk 'NR>1{print $3, $4, $5}'
$E --adapter a --adapter b --tasks own.json --db r.db --json | grep -c '"results"'
refused balora evaluate --model base --adapter a --adapter a --perplexity texts.jsonl
refused balora evaluate --model base --adapter a --adapter gone --perplexity texts.jsonl -q
refused balora generate --model base --adapter a --adapter b --chat
