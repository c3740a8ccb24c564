# balora demo: the whole pipeline, in small
balora demo --out d --train-items 64 --test-items 8 --steps 3 -q >/dev/null
ls d
test -s d/report/report.html && echo "page"
ls d/report | grep -c '\.gp$'
head -1 d/report/scores.csv
wc -l <d/report/scores.csv
balora runs list --db d/runs.db | awk 'NR>1{print $2,$4}' | sort | uniq -c | sed 's/^ *//'
balora analyze spectrum --adapter d/pissa --no-store --json | grep -o '"update": "[^"]*"'
balora demo --out "a b" 2>err && exit 1 || echo "space: $?"
balora demo --write-model m -q
ls m
