# balora serve: what is refused before it starts; a client of another kind (curl, when installed); the end
. "$ROOT/tests/cli/lib.bash"
refused balora serve
refused balora serve --model nowhere
balora demo --write-model m -q
refused balora serve --model m --host example.org
refused balora serve --model m --host 0.0.0.0
refused balora serve --model m --port 70000
refused balora serve --model m --adapter none
refused balora serve --model m --adapter m=m
refused balora serve --model m --adapter a=nowhere
refused balora serve --model m --api-key-env BALORA_NO_SUCH_KEY

balora serve --model m --port 0 --json -q >url 2>log & pid=$!
for i in $(seq 200); do [ -s url ] && break; sleep 0.05; done
sed 's,:[0-9]*/v1,:PORT/v1,' url
url=$(grep -o 'http://[^"]*' url)
ask() {
    if command -v curl >/dev/null; then curl -s "$url/$1" -H 'Content-Type: application/json' ${2:+-d "$2"}
    else balora_ask "$@"; fi
}
# without curl: bash's own sockets
balora_ask() {
    local port=${url#http://127.0.0.1:}
    exec 3<>"/dev/tcp/127.0.0.1/${port%/v1}"
    if [ -n "${2:-}" ]; then printf 'POST /v1/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s' "$1" ${#2} "$2" >&3
    else printf 'GET /v1/%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$1" >&3; fi
    sed '1,/^\r*$/d' <&3
}
ask models | grep -o '"id": "[a-z]*"'
ask completions '{"model": "m", "prompt": "Ann has 3 apples", "max_tokens": 5, "temperature": 0}' >answer
grep -o '"finish_reason": "[a-z]*"' answer
echo '{"prompt": "Ann has 3 apples", "max_new_tokens": 5}' >in.jsonl
balora evaluate --model m --requests in.jsonl -q | grep -o '"text": ".*", "ids"' | sed 's/, "ids"//' >text
grep -qF "$(cat text)" answer && echo "the same text"
ask completions '{"model": "x", "prompt": "x"}'
ask chat/completions '{"model": "m", "messages": "x"}'
kill -INT $pid; status=0; wait $pid || status=$?
echo "ended: $status"
cat log
