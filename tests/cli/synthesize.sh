# a random model of a configuration's shape: it loads, it can be trained on, and the memory said before is what it took
echo '{"model_type":"llama","num_hidden_layers":8,"hidden_size":512,"num_attention_heads":8,"num_key_value_heads":4,"intermediate_size":2048,"vocab_size":32000,"max_position_embeddings":512,"tie_word_embeddings":false}' >config.json
balora inspect --synthesize config.json --out q4
balora inspect --synthesize config.json --out bf --dtype bf16 --json
balora inspect --synthesize config.json --out q4 2>/dev/null && exit 1 || echo "there: $?"
balora inspect --synthesize config.json 2>/dev/null && exit 1 || echo "no place: $?"
balora inspect q4 --check --json | grep -o '"architecture":[^,]*'
seq -s, 3 258 >ids
echo "{\"input_ids\": [$(cat ids)], \"labels\": [$(cat ids)]}" >data.jsonl
for m in q4 bf; do
    balora train --model $m --data data.jsonl --format tokens --r 16 --batch-size 1 --micro-batch-size 1 --max-steps 2 \
        --out run-$m --no-store --quiet --json >$m.json
    # within 10 % of the peak
    sed 's/.*"peak_rss_bytes": *\([0-9.e+]*\), *"estimated_bytes": *\([0-9.e+]*\).*/\1 \2/' $m.json |
        awk -v m=$m '{ print m, ($2 > 0.9 * $1 && $2 < 1.1 * $1) ? "as estimated" : "peak " $1 ", estimated " $2 }'
done
