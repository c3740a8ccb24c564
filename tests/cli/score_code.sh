# balora score for code: verdicts, pass@k of several answers a problem, refusals
. "$ROOT/tests/cli/lib.bash"
mkdir -p humaneval mbpp
cat > humaneval/HumanEval.jsonl <<'END'
{"task_id": "HumanEval/0", "prompt": "def one(x):\n    \"\"\"x plus one\"\"\"\n", "entry_point": "one", "test": "def check(candidate):\n    assert candidate(1) == 2\n"}
{"task_id": "HumanEval/1", "prompt": "def two(x):\n", "entry_point": "two", "test": "def check(candidate):\n    assert candidate(1) == 3, 'three'\n"}
END
echo '[{"task_id": 7, "test_imports": ["import math"], "test_list": ["assert math.floor(f(2)) == 2"]}]' > mbpp/sanitized-mbpp.json
cat > answers.jsonl <<'END'
{"task_id": "HumanEval/0", "output": "    return x + 1\n\nprint(one(1))"}
{"task_id": "HumanEval/0", "output": "    return x\n"}
{"task_id": 1, "completion": "    return x + 2\ndef other(): assert False"}
{"task_id": 1, "completion": "    while True: pass"}
END
balora score --task humaneval --input answers.jsonl --data . --timeout 1 --out verdicts.jsonl 2>err || { grep -q "no sandbox" err && cat err >&2 && exit 77; cat err; }
sed "s/too much processor time/too much time/" verdicts.jsonl
grep -v sandbox err
echo '{"id": 7, "output": "def f(x): return x\n[DONE]\nassert"}' | balora score --task mbpp_sanitized --input - --data . --quiet
refused balora score --task mbpp --input answers.jsonl --data .
refused balora score --task mbpp_sanitized --input answers.jsonl --data .
refused balora score --task humanevil --input answers.jsonl
echo '{"output": "x"}' > none.jsonl
refused balora score --task humaneval --input none.jsonl --data .
echo '{"task_id": "HumanEval/0"}' > none.jsonl
refused balora score --task humaneval --input none.jsonl --data .

# as a task: what the model writes ends in a comment behind the finished function
balora demo --write-model m -q
cat > humaneval/own.jsonl <<'END'
{"task_id": "HumanEval/0", "prompt": "def one(x):\n    return x + 1\n#", "entry_point": "one", "test": "def check(candidate):\n    assert candidate(1) == 2\n"}
{"task_id": "HumanEval/1", "prompt": "def one(x):\n    return x + 2\n#", "entry_point": "one", "test": "def check(candidate):\n    assert candidate(1) == 2\n"}
END
cat > own.json <<'END'
{"task": "own", "version": 1, "scorer": "code", "program": "humaneval", "data": {"test": "humaneval/own.jsonl"},
 "prompt": "{prompt}", "num_fewshot": 0, "until": ["\n"], "max_gen_toks": 4, "repeats": 2, "temperature": 1.0}
END
balora evaluate --model m --tasks own.json --data . --quiet --json | grep -o '"pass@[12],create_test": [0-9.]*'
sed 's/"humaneval"/"humanevil"/' own.json > bad.json
refused balora evaluate --model m --tasks bad.json --data .
