# balora data list and get, --data org/name: sets of the hub's cache in every form, by command line and recipe; offline
. "$ROOT/tests/cli/lib.bash"
export HF_HOME=$PWD/hf BALORA_DATA=$PWD/data
unset HF_HUB_CACHE XDG_CACHE_HOME
S=hf/hub/datasets--some--sums/snapshots/0123abc
mkdir -p ${S%/*}/../refs $S/main data/gsm8k
printf 0123abc >${S%/*}/../refs/main
r='{"input_ids": [1, 2, 3, 4], "labels": [-100, 2, 3, 4]}'
printf '[%s,\n %s]\n' "$r" "$r" >$S/main/train-00000-of-00002.json
printf '[%s]' "$r" >$S/main/train-00001-of-00002.json
printf '[%s]' "$r" >$S/main/test-00000-of-00001.json
printf 'question,answer\n"1, 2?",#### 3\n' >$S/other.csv
printf '{"question": "q", "answer": "#### 1"}\n' >data/gsm8k/train.jsonl
here() { sed "s,$PWD,HERE,g"; }
balora data get some/sums:main | here
balora data get some/sums:main --split train --json | here
balora data get some/sums:other | here
balora data get gsm8k --split train | here
balora data list | sed -n '/^Data sets/,$p' | cut -c 1-60 | grep -E 'gsm8k|^Data|^In|some|world'
balora data list --json | grep -o '"cached":.*'
train() { balora train --model "$MODEL" --max-steps 1 --batch-size 2 --r 2 --overwrite --out ba --no-store "$@" 2>&1 >/dev/null | grep ^data; }
train --data some/sums:main
echo '{"data": "some/sums:main", "validation_data": "some/sums:main/test"}' >recipe.json
train --config recipe.json
echo "{\"data\": \"$S/main/test-00000-of-00001.json\"}" >recipe.json
train --config recipe.json
say() { refused "$@" | here; }
say balora data get
say balora data get gsm9k
say balora data get some/other
balora data get some/sums | here | wc -l
mkdir $S/more; cp $S/other.csv $S/more/train.csv
say balora data get some/sums
say balora data get some/sums:none
say balora data get some/sums:main --split validation
say balora data get metamathqa
say balora data list x
say balora train --model "$MODEL" --data some/none --out no
rm $S/main/train-00001-of-00002.json
say balora data get some/sums:main
