/* The tables of the run database, one text per schema version.  Times are milliseconds of UTC, steps are whole
 * numbers, hashes lower-case hexadecimal.  A value that is NaN or infinite is NULL in `value`, and `kind` tells:
 * 0 a number, 1 NaN, 2 +infinity, 3 -infinity.  Version n + 1 is appended here as another text; what is written
 * is never edited.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_SCHEMA_SQL_H
#define BAL_IO_SCHEMA_SQL_H

#define BAL_SCHEMA_1_RUNS                                                                                              \
    "CREATE TABLE experiment(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_ms INTEGER NOT NULL, "         \
    "note TEXT) STRICT;"                                                                                               \
    "CREATE TABLE host(id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, hostname TEXT, os TEXT, "             \
    "kernel TEXT, cpu TEXT, cores INTEGER, ram_bytes INTEGER) STRICT;"                                                 \
    "CREATE TABLE noise_spec(id INTEGER PRIMARY KEY, kind TEXT NOT NULL, requested_rate REAL, realised_rate REAL, "    \
    "params TEXT, mask_sha256 TEXT, corpus_sha256 TEXT) STRICT;"                                                       \
    "CREATE TABLE run(id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE CHECK(length(uuid) = 32), "                    \
    "experiment_id INTEGER NOT NULL REFERENCES experiment(id), "                                                       \
    "parent_run_id INTEGER REFERENCES run(id) ON DELETE SET NULL, name TEXT NOT NULL, kind TEXT NOT NULL, "            \
    "status TEXT NOT NULL, start_ms INTEGER NOT NULL, end_ms INTEGER, heartbeat_ms INTEGER NOT NULL, "                 \
    "exit_code INTEGER, error TEXT, seed INTEGER, argv TEXT, cwd TEXT, tool_version TEXT, git_commit TEXT, "           \
    "config_sha256 TEXT, config TEXT, host_id INTEGER REFERENCES host(id), "                                           \
    "noise_id INTEGER REFERENCES noise_spec(id)) STRICT;"                                                              \
    "CREATE INDEX run_by_experiment ON run(experiment_id, status, start_ms);"                                          \
    "CREATE INDEX run_by_name ON run(name);"                                                                           \
    "CREATE INDEX run_by_parent ON run(parent_run_id);"                                                                \
    "CREATE TABLE param(run_id INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, key TEXT NOT NULL, "             \
    "type TEXT NOT NULL, text TEXT, num REAL, PRIMARY KEY(run_id, key)) STRICT, WITHOUT ROWID;"                        \
    "CREATE TABLE tag(run_id INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, key TEXT NOT NULL, value TEXT, "   \
    "PRIMARY KEY(run_id, key)) STRICT, WITHOUT ROWID;"                                                                 \
    "CREATE TABLE artifact(id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, "     \
    "path TEXT NOT NULL, role TEXT, bytes INTEGER, sha256 TEXT, UNIQUE(run_id, path)) STRICT;"                         \
    "CREATE TABLE dataset(id INTEGER PRIMARY KEY, name TEXT NOT NULL, split TEXT NOT NULL DEFAULT '', "                \
    "rows INTEGER, sha256 TEXT NOT NULL DEFAULT '', license TEXT, UNIQUE(name, split, sha256)) STRICT;"                \
    "CREATE TABLE run_dataset(run_id INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, "                          \
    "dataset_id INTEGER NOT NULL REFERENCES dataset(id), context TEXT NOT NULL DEFAULT '', "                           \
    "PRIMARY KEY(run_id, dataset_id, context)) STRICT, WITHOUT ROWID;"

#define BAL_SCHEMA_1_VALUES                                                                                            \
    "CREATE TABLE metric_key(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, unit TEXT, direction TEXT, "           \
    "description TEXT) STRICT;"                                                                                        \
    "CREATE TABLE metric(run_id INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, "                               \
    "key_id INTEGER NOT NULL REFERENCES metric_key(id), step INTEGER NOT NULL, seq INTEGER NOT NULL DEFAULT 0, "       \
    "t_ms INTEGER NOT NULL, value REAL, kind INTEGER NOT NULL DEFAULT 0, "                                             \
    "PRIMARY KEY(run_id, key_id, step, seq)) STRICT, WITHOUT ROWID;"                                                   \
    "CREATE INDEX metric_by_key ON metric(key_id, run_id);"                                                            \
    "CREATE TABLE metric_last(run_id INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, "                          \
    "key_id INTEGER NOT NULL REFERENCES metric_key(id), step INTEGER NOT NULL, t_ms INTEGER NOT NULL, value REAL, "    \
    "kind INTEGER NOT NULL DEFAULT 0, min REAL, min_step INTEGER, max REAL, max_step INTEGER, n INTEGER NOT NULL, "    \
    "PRIMARY KEY(run_id, key_id)) STRICT, WITHOUT ROWID;"                                                              \
    "CREATE TABLE matrix_stat(id INTEGER PRIMARY KEY, run_id INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE,"   \
    " checkpoint_step INTEGER NOT NULL, layer INTEGER NOT NULL, module TEXT NOT NULL, target TEXT NOT NULL, "          \
    "convention TEXT NOT NULL, m INTEGER, n INTEGER, r INTEGER, scaling REAL, dtype TEXT, status TEXT, "               \
    "n_nonfinite INTEGER, UNIQUE(run_id, checkpoint_step, layer, module, target, convention)) STRICT;"                 \
    "CREATE TABLE matrix_value(matrix_stat_id INTEGER NOT NULL REFERENCES matrix_stat(id) ON DELETE CASCADE, "         \
    "name TEXT NOT NULL, value REAL, kind INTEGER NOT NULL DEFAULT 0, "                                                \
    "PRIMARY KEY(matrix_stat_id, name)) STRICT, WITHOUT ROWID;"                                                        \
    "CREATE TABLE spectrum(matrix_stat_id INTEGER PRIMARY KEY REFERENCES matrix_stat(id) ON DELETE CASCADE, "          \
    "n INTEGER NOT NULL, sv BLOB NOT NULL, sha256 TEXT NOT NULL) STRICT;"                                              \
    "CREATE TABLE pair_stat(run_a INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, "                             \
    "run_b INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, layer INTEGER NOT NULL, module TEXT NOT NULL, "      \
    "name TEXT NOT NULL, i INTEGER NOT NULL, j INTEGER NOT NULL, value REAL, kind INTEGER NOT NULL DEFAULT 0, "        \
    "PRIMARY KEY(run_a, run_b, layer, module, name, i, j)) STRICT, WITHOUT ROWID;"                                     \
    "CREATE INDEX pair_stat_by_b ON pair_stat(run_b);"                                                                 \
    "CREATE TABLE eval_item(run_id INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, task TEXT NOT NULL, "        \
    "item INTEGER NOT NULL, repeat INTEGER NOT NULL DEFAULT 0, filter TEXT NOT NULL DEFAULT 'none', "                  \
    "correct INTEGER, score REAL, extracted TEXT, gold TEXT, group_id TEXT, prompt_sha256 TEXT, output TEXT, "         \
    "prompt_tokens INTEGER, output_tokens INTEGER, seconds REAL, finish_reason TEXT, "                                 \
    "PRIMARY KEY(run_id, task, item, repeat, filter)) STRICT;"

#define BAL_SCHEMA_1_VIEWS                                                                                             \
    "CREATE VIEW v_metrics_long AS SELECT run.uuid AS run_uuid, run.name AS run_name, metric_key.name AS key, "        \
    "metric.step AS step, metric.t_ms AS timestamp, metric.value AS value, metric.kind = 1 AS is_nan, "                \
    "metric.kind AS kind FROM metric JOIN run ON run.id = metric.run_id "                                              \
    "JOIN metric_key ON metric_key.id = metric.key_id;"                                                                \
    "CREATE VIEW v_runs_wide AS SELECT run.id AS id, run.uuid AS run_id, run.name AS name, run.kind AS kind, "         \
    "experiment.name AS experiment, run.status AS status, run.start_ms AS start_time, run.end_ms AS end_time, "        \
    "run.seed AS seed, (SELECT text FROM param WHERE run_id = run.id AND key = 'model') AS model, "                    \
    "(SELECT text FROM param WHERE run_id = run.id AND key = 'method') AS method, "                                    \
    "(SELECT num FROM param WHERE run_id = run.id AND key = 'r') AS r, "                                               \
    "(SELECT num FROM param WHERE run_id = run.id AND key = 'lr') AS lr, "                                             \
    "(SELECT json_group_object(key, text) FROM (SELECT key, text FROM param WHERE run_id = run.id ORDER BY key)) "     \
    "AS params, (SELECT json_group_object(name, value) FROM (SELECT metric_key.name, metric_last.value "               \
    "FROM metric_last JOIN metric_key ON metric_key.id = metric_last.key_id WHERE metric_last.run_id = run.id "        \
    "ORDER BY metric_key.name)) AS metrics FROM run JOIN experiment ON experiment.id = run.experiment_id;"

#endif
