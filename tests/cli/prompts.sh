# balora evaluate --show: system messages, beginnings of answers, examples out of the evaluated file, seeds, labels;
# names that a task file may not have; votes in --compare; sample lines that are judged again
. "$ROOT/tests/cli/lib.bash"
unset BALORA_DATA
show() { balora evaluate --show "$@"; }
cat >begun.json <<'T'
{"task": "begun", "version": 1, "scorer": "exact_match", "data": {"test": "begun.jsonl", "train": "train.jsonl"},
 "description": "Count. ", "prompt": "{q}", "target": "{a}", "gen_prefix": "It is", "target_delimiter": "|", "num_fewshot": 1, "sampler": "first_n",
 "filters": [{"name": "last", "regex": "(x)|(\\d*)", "select": -1}, {"name": "end", "regex": "(\\d+)\\Z"}], "ignore_case": true}
T
printf '%s\n' '{"q": "1 + 1?", "a": "2"}' '{"q": "2 + 2? ", "a": "4"}' >begun.jsonl
printf '%s\n' '{"q": "5 + 5?", "a": "10"}' '{"q": "1 + 1?", "a": "2"}' >train.jsonl
show begun.json --item 0 --system-instruction 'Be brief.'
show begun.json --item 1 --system-instruction 'Be brief. ' --num-fewshot 0
# examples out of the evaluated file: the item itself and its copies are left out, also by first_n
cat >same.json <<'T'
{"task": "same", "version": 1, "scorer": "multiple_choice", "data": {"test": "same.jsonl", "train": "same.jsonl"}, "same_split": true,
 "prompt": "{q}:", "choices": "c", "label": "right", "num_fewshot": 2, "gen_prefix": "I say"}
T
printf '%s\n' '{"q": "a", "c": ["no", "yes"], "right": "yes"}' '{"q": "a", "c": ["no", "yes"], "right": "yes"}' '{"q": "b", "c": ["no", "yes"], "right": false}' \
    '{"q": "a", "c": ["no", "yes"], "right": "yes"}' '{"q": "c", "c": ["no", "yes"], "right": true}' '{"q": "d", "c": ["no", "yes"], "right": 1.5}' | head -5 >same.jsonl
show same.json --item 0
sed -i 's/"num_fewshot": 2/"num_fewshot": 2, "sampler": "first_n"/' same.json
show same.json --item 2
refused balora evaluate --show same.json --item 0 --num-fewshot 4
cat >seed.json <<'T'
{"task": "seed", "version": 1, "scorer": "exact_match", "data": {"test": "begun.jsonl", "train": "many.jsonl"}, "prompt": "{q}", "target": "{a}", "num_fewshot": 5}
T
for i in 0 1 2 3 4 5 6 7 8 9; do echo "{\"q\": \"\", \"a\": \"$i\"}"; done >many.jsonl
for seed in 1234 0 7; do show seed.json --fewshot-seed $seed | sed -n 's/^ //p' | tr -d '\n'; echo " with seed $seed"; done
# wrong SED-EXPRESSION: a changed task is refused
wrong() { sed "$1" begun.json >wrong.json; refused balora evaluate --show wrong.json; }
wrong 's/"begun"/"..\/begun"/'
wrong 's/"begun"/"a\\"b"/'
wrong 's/"task": "begun", //'
wrong 's/"name": "last"/"name": "a,b"/'
wrong 's/(x)|/(x|/'
# answers of a model: rescored sample lines are those of the run; --compare says what the runs say of a majority
balora demo --write-model m -q
cat >votes.json <<'T'
{"task": "votes", "version": 1, "scorer": "exact_match", "data": {"test": "many.jsonl"}, "prompt": "Say {a}:", "target": "{a}", "num_fewshot": 0,
 "repeats": 6, "temperature": 2.0, "max_gen_toks": 3,
 "filters": [{"name": "first", "regex": "(.)"}, {"name": "maj@3", "regex": "(.)", "vote": true, "first": 3}, {"name": "maj@6", "regex": "(.)", "vote": true, "first": 6}],
 "ignore": ["[0-9a-z]"]}
T
evaluate() { balora evaluate --data . --quiet --json --name "$1" --log-samples "$1" "${@:2}" >"$1.figures"; }
evaluate one --model m --tasks votes.json
evaluate two --model m --tasks votes.json --seed 5
evaluate same --model m --tasks same.json --system-instruction 'Be brief.'
evaluate chat --model m --tasks same.json --chat --fewshot-as-multiturn=false
for run in one two same chat; do
    evaluate again-$run --rescore $run
    diff -r $run again-$run >/dev/null && echo "$run: its sample lines are made again" || echo "$run: other sample lines"
done
sed -i 's/Say/Tell/' votes.json
balora evaluate --data . --rescore one --json --log-samples other 2>&1 >/dev/null | grep prompts
grep -c '"arguments": {"gen_args_0": {"arg_0": "",' other/samples_votes.jsonl
figure() { grep -o "\"exact_match,$2\": [0-9.]*" "$1.figures" | sed 's/.*: //'; }
balora evaluate --compare one two --json >compare.json
balora runs show one --json >show.json
for f in first maj@3 maj@6; do
    grep -o "\"filter\": *\"$f\"[^}]*" show.json | grep -oE "\"items\": *10|\"score\": *$(figure one $f)[,}]?" | tr -d "\n" | sed "s/[0-9.]*,\$/.../"; echo " in runs show, $f"
    grep -q "\"filter\": \"$f\".*\"mean_a\": $(figure one $f), \"mean_b\": $(figure two $f)," compare.json && echo "$f: as the runs" || echo "$f: not as the runs"
done
