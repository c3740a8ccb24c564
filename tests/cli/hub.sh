# --model org/name: what is in the Hugging Face cache is found there, by branch, tag or commit; offline
. "$ROOT/tests/cli/lib.bash"
export HF_HOME=$PWD/hf
unset HF_HUB_CACHE XDG_CACHE_HOME
C=hf/hub/models--some--small.model
mkdir -p $C/refs $C/snapshots/0123abc $C/blobs
cp "$MODEL"/* $C/blobs/
for f in $C/blobs/*; do ln -s ../../blobs/"${f##*/}" $C/snapshots/0123abc/"${f##*/}"; done
printf '0123abc\n' >$C/refs/main
printf 0123abc >$C/refs/v1
echo '{"input_ids": [[1, 2, 3]], "labels": [[1, 2, 3]]}' >in.json
for m in some/small.model some/small.model@v1 some/small.model@0123abc; do
    balora forward --model $m --input in.json --out out.safetensors -q >/dev/null && echo "$m loads"
done
say() { refused "$@" | sed "s,$PWD,HERE,"; }
say balora forward --model some/other --input in.json --out out.safetensors
say balora forward --model some/small.model@v2 --input in.json --out out.safetensors
HF_HUB_CACHE=$PWD/elsewhere say balora generate --model some/small.model --prompt x
printf '../../..' >$C/refs/main
say balora forward --model some/small.model --input in.json --out out.safetensors
mkdir -p some; cp -r "$MODEL" some/small.model
balora forward --model some/small.model --input in.json --out out.safetensors -q >/dev/null && echo "a path comes first"
