. "$ROOT/tests/cli/lib.bash"
refused balora runs list                                  # no runs.db here
refused balora runs list --db /no/such/folder/runs.db
refused balora runs list --db .
echo 'this is a text file, and long enough to be looked at as a database header; it is none' >text.db
refused balora runs list --db text.db
refused balora runs show 1 --db text.db
: >empty.db
refused balora runs list --db empty.db
# the header of an SQLite file whose schema version is of a later balora (bytes 60-63), application id BALR (68-71)
refused balora runs lst
refused balora runs
refused balora runs list --limit x
refused balora runs list --limit -1
refused balora runs list --kidn train
refused balora runs export --table all
ls
