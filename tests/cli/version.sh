balora --version
