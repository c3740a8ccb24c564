. "$ROOT/tests/cli/lib.bash"
unset BALORA_DATA
balora evaluate --list | grep -E '^(glue|sst2|gsm8k) '
cat >own.json <<'T'
{ // a task of the user; its data lie beside it
  "task": "own", "version": 1, "scorer": "multiple_choice",
  "data": {"test": "own.jsonl", "train": {"file": "own.tsv", "columns": ["q", "right"]}},
  "description": "Answer.\n\n", "prompt": "Q: {q|strip|sentence}\nA:", "choices": ["no {{x}}", "yes"],
  "label": "right", "num_fewshot": 2, "sampler": "first_n",
}
T
printf '%s\n' '{"q": "é?", "right": 1}' '{"q": " b ", "right": 0}' '{"q": "none"}' >own.jsonl
printf 'c\t0\nd\t1\n' >own.tsv
balora evaluate --show own.json --item 1
balora evaluate --show own.json --item 0 --json
refused balora evaluate --show own.json --item 3
refused balora evaluate --show own.json --item 2
refused balora evaluate --show sst3
refused balora evaluate --show glue
refused balora evaluate --show sst2
refused balora evaluate --show sst2 --data .
# wrong SED-EXPRESSION: a changed task is refused, naming the key
wrong() { sed "$1" own.json >wrong.json; refused balora evaluate --show wrong.json; }
wrong 's/"label"/"lable"/'
wrong 's/multiple_choice/multiple_choise/'
wrong 's/"scorer"/"note"/'
wrong 's/"num_fewshot": 2/"num_fewshot": 3/'
wrong 's/"num_fewshot": 2/"num_fewshot": "2"/'
wrong 's/first_n/random/'
wrong 's/own.tsv/nothing.tsv/'
wrong 's/"columns"/"colums"/'
wrong 's/strip|sentence/strip|sentense/'
wrong 's/{q|strip|sentence}/{question}/'
wrong 's/{q|strip|sentence}/{q/'
wrong 's/\["no {{x}}", "yes"\]/3/'
wrong 's/"right",/"right", "metrics": ["accuracy"],/'
wrong 's/"version": 1,/"version": 1/'
wrong 's/multiple_choice",/exact_match", "target": "x", "filters": [{"name": "a", "regex": "("}],/; s/"choices": [^]]*\],//; s/"label": "right",//'
refused balora evaluate --tasks own.json
refused balora evaluate --rescore 1 --db new.db
