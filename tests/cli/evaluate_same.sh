# balora evaluate: the same figures and sample lines for any batch, number of threads, order of items (shards), and after
# kill -9, for text, choices, bias scores, programs and perplexity
. "$ROOT/tests/cli/lib.bash"
unset BALORA_DATA
balora demo --write-model m -q
mkdir -p gsm8k crows_pairs stereoset winobias code
for i in 1 2 3 4 5 6 7 8 9 10 11 12; do
    printf '{"question": "Tom has %d apples and buys %d more. How many?", "answer": "So %d.\\n#### %d"}\n' $i $((i * 3)) $((i * 4)) $((i * 4))
done >gsm8k/test.jsonl
cp gsm8k/test.jsonl gsm8k/train.jsonl
{
    echo ',sent_more,sent_less,stereo_antistereo,bias_type,annotations,anon_writer,anon_annotators'
    for i in 1 2 3 4 5 6; do echo "$i,The old man lost $i keys.,The young man lost $i keys.,stereo,age,[],a,[]"; done
} >crows_pairs/crows_pairs_anonymized.csv
for i in 1 2 3 4 5; do
    printf '{"id": "%d", "type": "intrasentence", "bias_type": "gender", "target": "t%d", "context": "c", "sentences": [{"gold_label": "stereotype", "sentence": "She has %d dolls."}, {"gold_label": "anti-stereotype", "sentence": "He has %d dolls."}, {"gold_label": "unrelated", "sentence": "Blue has %d of."}]}\n' $i $((i / 2)) $i $i $i
done >stereoset/dev_clusters.jsonl
for s in pro:he:his anti:she:her; do
    IFS=: read -r kind he his <<<"$s"
    for i in 1 2 3; do printf '%d [The developer] met the nurse because [%s] lost [%s] key %d.\n' $i $he $his $i; done >winobias/${kind}_stereotyped_type1.txt.test
done
for i in 1 2 3 4; do
    printf '{"task_id": "HumanEval/%d", "prompt": "def f(x):\\n    return x + %d\\n#", "entry_point": "f", "test": "def check(candidate):\\n    assert candidate(1) == 3\\n"}\n' $i $i
done >code/own.jsonl
cat >own.json <<'T'
{"task": "own", "version": 1, "scorer": "code", "program": "humaneval", "data": {"test": "code/own.jsonl"},
 "prompt": "{prompt}", "num_fewshot": 0, "until": ["\n"], "max_gen_toks": 6, "repeats": 2, "temperature": 1.0}
T
printf 'The sun is up. It is %s.\n' one two three four five six seven >lines.txt
cat >words.json <<'T'
{"task": "words", "version": 1, "scorer": "perplexity", "data": {"test": {"file": "lines.txt", "reader": "lines"}},
 "prompt": "{line}", "count": "line", "num_fewshot": 0}
T
tasks=gsm8k_pissa,crows_pairs_english,stereoset_intrasentence,winobias_type1,winobias_pronoun_type1,words.json
balora score --task humaneval --input /dev/null --data . >/dev/null 2>err || true
echo '{"task_id": 1, "output": "x"}' >one.jsonl
mkdir -p humaneval && cp code/own.jsonl humaneval/HumanEval.jsonl
balora score --task humaneval --input one.jsonl --data . >/dev/null 2>err && tasks=$tasks,own.json || { grep -q 'no sandbox' err || cat err; }
run() { balora evaluate --model m --data . --tasks $tasks --max-gen-toks 12 --quiet --json --log-samples "$1" --name "$1" "${@:2}" >"$1.json"; }
# (where the file system has no files without a name, one that was being written stays behind as .tmp) what must be the same: everything but times, the name and what describes the call
same() {
    diff <(grep -vE '"(config|run_id|total_evaluation_time_seconds|date|model_name)"' base.json) \
        <(grep -vE '"(config|run_id|total_evaluation_time_seconds|date|model_name)"' "$1.json") >diff.txt && diff -r -x '*.tmp*' base "$1" >>diff.txt &&
        echo "$1: the same" || { echo "$1: differs"; head -c 600 diff.txt; }
}
run base --batch-size 1 --threads 1
grep -c . base/*.jsonl | sed '/own/d'
run batch3 --batch-size 3 --threads 2 && same batch3
run batch32 --batch-size 32 --threads 1 && same batch32
run few-tokens --max-batch-tokens 600 && same few-tokens
for i in 1 2 3; do run part-$i --shard $i/3; done
balora evaluate --rescore part-3,part-1,part-2 --data . --quiet --json --name whole --log-samples whole >whole.json
diff <(sed -n '/"results"/,/^}/p' base.json) <(sed -n '/"results"/,/^}/p' whole.json) >diff.txt && diff -r base whole >>diff.txt &&
    echo "shards: the same" || head -c 600 diff.txt
# killed over and over until it is through
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    (exec balora evaluate --model m --data . --tasks $tasks --max-gen-toks 12 --quiet --json --log-samples killed --name killed --threads 1 --batch-size 2 >killed.json 2>killed.err) &
    pid=$!
    (sleep "0.$((n + 4 < 10 ? 0 : 1))$((n % 10))"; sleep "$((n / 8))"; kill -9 $pid 2>/dev/null) &
    killer=$!
    wait $pid 2>/dev/null && { kill $killer 2>/dev/null; break; }
    wait $killer 2>/dev/null || true
done 2>/dev/null # bash says "Killed"
[ "$n" -gt 1 ] && echo "killed and begun again"
same killed
