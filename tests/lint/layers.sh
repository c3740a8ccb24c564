#!/usr/bin/env bash
# The dependency rule of lib/README.md, read from the #include lines: a folder may include what lies below it.
# usage: tests/lint/layers.sh FILE...      SPDX-License-Identifier: Apache-2.0
exec awk '
BEGIN {
    split("lib/base lib/io lib/net lib/tensor lib/nn lib/text lib/stats lib/adapter lib/model lib/loss lib/optim lib/data", name, " ")
    split("0        1      0.5     1          2      2        2         3           4         5        6         6", level, " ")
    for (i in name) rank[name[i]] = level[i]
    split("train tools evaluate analyze reports datasets serve", rooms, " ")
    for (i in rooms) { rank[rooms[i]] = 7; room[rooms[i]] = 1 }
    # types that io and tensor read from each other
    allowed["lib/io lib/tensor/view.h"] = allowed["lib/io lib/tensor/real.h"] = allowed["lib/io lib/tensor/quantize.h"] = 1
}
function folder(path,   n, parts) {
    n = split(path, parts, "/")
    if (parts[1] == "lib") return n > 2 ? parts[1] "/" parts[2] : "lib"
    return n > 1 ? parts[1] : ""
}
FNR == 1 { from = folder(FILENAME); files++ }
/^[ \t]*#[ \t]*include[ \t]*"/ {
    target = $0
    sub(/^[^"]*"/, "", target); sub(/".*/, "", target)
    to = folder(target)
    if (from == "" || from == "tests" || to == from) next
    if (to == "tests") { report("only tests include the harness"); next }
    if (!(from in rank)) { report("folder " from " has no place in the rule"); next }
    if (!(to in rank)) { report("not a folder of the rule"); next }
    if (target == "tools/commands.h" && (from in room)) next # declarations of the commands only
    if ((from " " target) in allowed) next
    if (rank[to] >= rank[from]) report(from " may not include " to)
}
function report(why) { printf "%s:%d: %s: %s\n", FILENAME, FNR, target, why; bad++ }
END { printf "layers: %d files, %d arrows the wrong way\n", files, bad; exit bad != 0 }
' "$@"
