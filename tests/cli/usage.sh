balora && exit 1 || echo "status $?"
balora trian 2>/dev/null && exit 1 || echo "status $?"
balora help nothing 2>/dev/null && exit 1 || echo "status $?"
balora --help | head -n 1
balora help | head -n 1
