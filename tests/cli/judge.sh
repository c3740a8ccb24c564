# balora judge: refusals before and at the server
. "$ROOT/tests/cli/lib.bash"
refused balora judge
refused balora judge --answers a --model openai:x
refused balora judge --answers a
mkdir mt_bench
echo '{"question_id": 1, "category": "stem", "turns": ["a", "b"]}' >mt_bench/question.jsonl
: >mt_bench/reference_answer_gpt-4.jsonl
echo '{"name": "single-v1", "system_prompt": "s", "prompt_template": "{question} {answer}"}' >mt_bench/judge_prompts.jsonl
echo '{"question_id": 1, "choices": [{"turns": ["x", "y"]}]}' >answers.jsonl
refused balora judge --model mine
refused balora judge --answers answers.jsonl
echo '{"name": "single-v1-multi-turn", "system_prompt": "s", "prompt_template": "{answer_2}"}' >>mt_bench/judge_prompts.jsonl
refused balora judge --answers answers.jsonl --judge-url ftp://127.0.0.1/
refused balora judge --answers answers.jsonl --judge-url http://me:secret@127.0.0.1/
echo '{"question_id": 1, "choices": [{"turns": ["x"]}]}' >answers.jsonl
refused balora judge --answers answers.jsonl
echo '{"question_id": 7, "choices": [{"turns": ["x", "y"]}]}' >answers.jsonl
refused balora judge --answers answers.jsonl
echo '{"question_id": 1, "category": "stem", "turns": ["a"]}' >mt_bench/question.jsonl
refused balora judge --answers answers.jsonl

# a model here answers; the judge is not there
echo '{"question_id": 1, "category": "stem", "turns": ["a", "b"]}' >mt_bench/question.jsonl
balora demo --write-model m -q
judge() { refused balora judge --judge-url http://127.0.0.1:9/v1 --tries 1 -q "$@"; }
judge --model m --max-new-tokens 4 --write-answers own.jsonl
grep -o '"question_id": 1,.*"model_id": "m", "choices": .{"index": 0, "turns": ."' own.jsonl
judge --answers own.jsonl
judge --model openai:x --base-url http://127.0.0.1:9/v1
judge --model openai:x --prompt-form alpaca
judge --model m --max-new-tokens 4 --prompt-form alpaca --write-answers wrapped.jsonl
grep -c '"question_id": 1' wrapped.jsonl
