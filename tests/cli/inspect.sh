cp "$ROOT/tests/fuzz/corpora/safetensors/good" good.safetensors
cp "$ROOT/tests/fuzz/corpora/gguf/good" good.gguf
balora inspect good.safetensors --tensors --metadata --check
balora inspect good.gguf --tensors
balora inspect good.gguf --json | grep -c '"kind"'
head -c 60 good.gguf >cut.gguf
balora inspect cut.gguf && exit 1 || echo "status $?"
balora inspect nowhere && exit 1 || echo "status $?"
balora inspect && exit 1 || echo "status $?"
