# balora evaluate: an outside checker, runs over seeds, votes of fewer answers, rows that cannot be asked
. "$ROOT/tests/cli/lib.bash"
unset BALORA_DATA
balora demo --write-model m -q
mkdir gsm8k math winobias
printf '%s\n' '{"question": "1+1?", "answer": "that\n#### 2"}' '{"question": "nobody knows"}' \
    '{"question": "2+1?", "answer": "that\n#### 3"}' >gsm8k/test.jsonl
printf '%s\n' '{"problem": "1+1?", "answer": "2", "solution": "\\boxed{2}", "subject": "a"}' \
    '{"problem": "half?", "answer": "0.5", "solution": "\\boxed{0.5}", "subject": "b"}' >math/MATH-500.jsonl
table() { grep -E '^\|(math|gsm8k|wino|\|)' | cut -d'|' -f2-8 ; }
cat >checker.sh <<'T'
while read -r line; do case $line in *'"gold": "2"'*) echo '{"equal": true}';; *) echo '{"equal": false}';; esac; done
T
echo "== an outside checker, also for outputs that are there already"
balora evaluate -q --model m --data . --tasks math500_numeric --max-gen-toks 8 --name a --equivalence-command 'sh checker.sh' | table
balora evaluate -q --model m --data . --tasks math500_numeric --max-gen-toks 8 --name b | table
balora evaluate -q --rescore b --data . --equivalence-command 'sh checker.sh' | table
balora evaluate --rescore b --data . --equivalence-command 'exit 3' 2>&1 | grep -E 'no verdict|nothing extracted' | sed 's/.*nothing/nothing/'
refused balora evaluate --model m --data . --tasks gsm8k_pissa --equivalence-command 'sh checker.sh'
echo "== over seeds"
for s in 1 2 3; do
    balora evaluate -q --model m --data . --tasks gsm8k_cot_self_consistency --num-fewshot 1 --repeats 4 \
        --max-gen-toks 4 --max-length 256 --seed $s --name seed-$s >table.$s
done
table <table.1
grep 'right answer' table.1
balora evaluate --across seed-1,seed-2,seed-3 | grep -c '^|gsm8k_cot_self_consistency|.*|3|'
balora evaluate --across seed-1,seed-2 --json | grep -c '"n_runs": 2'
refused balora evaluate --across seed-1
refused balora evaluate --across seed-1,seed-1
refused balora evaluate --across seed-1,a
refused balora evaluate --across seed-1,seed-9
echo "== longer than the context"
head -c 3000 /dev/zero | tr '\0' 'x' >long.txt
printf '{"question": "%s", "answer": "#### 1"}\n' "$(cat long.txt)" >>gsm8k/test.jsonl
balora evaluate --model m --data . --tasks gsm8k_pissa --max-gen-toks 4 --max-length 128 2>&1 | grep 'left$'
refused balora evaluate --model m --data . --tasks gsm8k_pissa --max-gen-toks 100 --max-length 64
refused balora evaluate --model m --data . --tasks gsm8k_pissa --max-gen-toks 4 --item-range 1:2
echo "== he and she"
cat >winobias/pro_stereotyped_type1.txt.test <<'T'
1 [The developer] asked the nurse because [He] lost [his] key.
2 The developer asked [the nurse] and thanked [her] for [her] help.
T
cat >winobias/anti_stereotyped_type1.txt.test <<'T'
1 [The developer] asked the nurse because [She] lost [her] key.
2 The developer asked [the nurse] and thanked [him] for [his] help.
T
for i in 0 1 2 3; do balora evaluate --show winobias_pronoun_type1 --item $i --data . | grep '^"'; done
balora evaluate -q --model m --data . --tasks winobias_pronoun_type1,winobias_type1 | table | cut -d'|' -f1,5
