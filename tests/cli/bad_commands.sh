. "$ROOT/tests/cli/lib.bash"
for c in analyze convert evaluate forward generate inspect merge report score tokenize train; do
    refused balora $c --no-such-option
    refused balora $c --config nothing.json
done
refused balora inspect nothing
refused balora merge --model "$MODEL" --adapter nothing --out merged
refused balora analyze spectrum --adapter nothing
refused balora analyze spectra
refused balora score --task gsm8k --input nothing.jsonl
refused balora score --task nothing --input nothing.jsonl
refused balora evaluate --model "$MODEL" --tasks nothing
refused balora generate --model nothing --prompt x
refused balora tokenize --tokenizer nothing
refused balora report --db nothing.db --all --out report
ls
