# For tests/cli/*.sh.  SPDX-License-Identifier: Apache-2.0
MODEL=$ROOT/tests/cli/data/model

# refused COMMAND...: runs it and prints "STATUS: message".  A refusal is one line on standard error (and a hint
# after a usage error) and leaves nothing on standard output.
refused() {
    local status=0 lines
    "$@" >refused.out 2>refused.err </dev/null || status=$?
    lines=$(grep -vcE "^ *(Try '|\(balora )" refused.err || true)
    echo "$status: $(head -n 1 refused.err | sed "s,$ROOT/,,g")"
    [ "$lines" -eq 1 ] || { echo "  $lines lines of message:"; cat refused.err; }
    [ ! -s refused.out ] || { echo "  on standard output:"; head -n 3 refused.out; }
    rm -f refused.out refused.err
}

# model_copy NAME: a copy of the small model in this folder that may be broken.
model_copy() { rm -rf "$1"; cp -r "$MODEL" "$1"; chmod -R u+w "$1"; }

# le64 N: eight bytes, little endian.
le64() {
    local n=$1 i
    for i in 1 2 3 4 5 6 7 8; do printf "\\x$(printf %02x $((n & 255)))"; n=$((n >> 8)); done
}
# tensors HEADER [BYTES]: a safetensors file on standard output whose data is zeros.
tensors() { le64 ${#1}; printf %s "$1"; head -c "${2:-0}" /dev/zero; }
