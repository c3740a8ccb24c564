/* balora runs merge, rm.  A run is the same run when its uuid is: merging twice changes nothing, and a copy that was
 * heard of later replaces an earlier one.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/runs.h"

#include <string.h>

#define RUN_COLUMNS                                                                                                    \
    "name, kind, status, start_ms, end_ms, heartbeat_ms, exit_code, error, seed, argv, cwd, tool_version, "            \
    "git_commit, "                                                                                                     \
    "config_sha256, config"
#define SAME_MATRIX                                                                                                    \
    "m.run_id = map.ours AND m.checkpoint_step = o.checkpoint_step AND m.layer = o.layer AND m.module = o.module AND " \
    "m.target = o.target AND m.convention = o.convention"

/* In order: what runs point to, the runs, then what hangs on them.  Only runs in the map are touched: those that
 * are new here, or newer there. */
static const char *const steps[] = {
    "INSERT OR IGNORE INTO main.experiment(name, created_ms, note) SELECT name, created_ms, note FROM other.experiment",
    "INSERT OR IGNORE INTO main.host(fingerprint, hostname, os, kernel, cpu, cores, ram_bytes) SELECT fingerprint, "
    "hostname, os, kernel, cpu, cores, ram_bytes FROM other.host",
    "INSERT INTO main.noise_spec(kind, requested_rate, realised_rate, params, mask_sha256, corpus_sha256) SELECT kind, "
    "requested_rate, realised_rate, params, mask_sha256, corpus_sha256 FROM other.noise_spec EXCEPT SELECT kind, "
    "requested_rate, realised_rate, params, mask_sha256, corpus_sha256 FROM main.noise_spec",
    "INSERT OR IGNORE INTO main.dataset(name, split, rows, sha256, license) SELECT name, split, rows, sha256, license "
    "FROM other.dataset",
    "INSERT OR IGNORE INTO main.metric_key(name, unit, direction, description) SELECT name, unit, direction, "
    "description FROM other.metric_key",
    "INSERT INTO changed(uuid, is_new) SELECT t.uuid, o.uuid IS NULL FROM other.run t LEFT JOIN main.run o ON o.uuid = "
    "t.uuid WHERE o.uuid IS NULL OR t.heartbeat_ms > o.heartbeat_ms",
    "INSERT INTO main.run(uuid, experiment_id, " RUN_COLUMNS ") SELECT uuid, (SELECT e.id FROM main.experiment e JOIN "
    "other.experiment x ON x.name = e.name WHERE x.id = t.experiment_id), " RUN_COLUMNS
    " FROM other.run t WHERE uuid IN "
    "(SELECT uuid FROM changed WHERE is_new) ORDER BY start_ms, id",
    "UPDATE main.run SET (" RUN_COLUMNS ") = (SELECT " RUN_COLUMNS " FROM other.run t WHERE t.uuid = main.run.uuid) "
    "WHERE uuid IN (SELECT uuid FROM changed WHERE NOT is_new)",
    "INSERT INTO map(theirs, ours) SELECT t.id, o.id FROM changed c JOIN other.run t ON t.uuid = c.uuid JOIN main.run "
    "o "
    "ON o.uuid = c.uuid",
    "UPDATE main.run SET host_id = (SELECT h.id FROM map JOIN other.run t ON t.id = map.theirs JOIN other.host x ON "
    "x.id = t.host_id JOIN main.host h ON h.fingerprint = x.fingerprint WHERE map.ours = main.run.id), noise_id = "
    "(SELECT min(n.id) FROM map JOIN other.run t ON t.id = map.theirs JOIN other.noise_spec x ON x.id = t.noise_id "
    "JOIN "
    "main.noise_spec n ON n.kind = x.kind AND n.requested_rate IS x.requested_rate AND n.realised_rate IS "
    "x.realised_rate AND n.params IS x.params AND n.mask_sha256 IS x.mask_sha256 AND n.corpus_sha256 IS "
    "x.corpus_sha256 WHERE map.ours = main.run.id), parent_run_id = (SELECT p.id FROM map JOIN other.run t ON t.id = "
    "map.theirs JOIN other.run q ON q.id = t.parent_run_id JOIN main.run p ON p.uuid = q.uuid WHERE map.ours = "
    "main.run.id) WHERE id IN (SELECT ours FROM map)",
    "DELETE FROM main.param WHERE run_id IN (SELECT ours FROM map)",
    "DELETE FROM main.tag WHERE run_id IN (SELECT ours FROM map)",
    "DELETE FROM main.artifact WHERE run_id IN (SELECT ours FROM map)",
    "DELETE FROM main.run_dataset WHERE run_id IN (SELECT ours FROM map)",
    "DELETE FROM main.metric WHERE run_id IN (SELECT ours FROM map)",
    "DELETE FROM main.metric_last WHERE run_id IN (SELECT ours FROM map)",
    "DELETE FROM main.eval_item WHERE run_id IN (SELECT ours FROM map)",
    "DELETE FROM main.matrix_stat WHERE run_id IN (SELECT ours FROM map)",
    "INSERT INTO main.param(run_id, key, type, text, num) SELECT ours, key, type, text, num FROM other.param JOIN map "
    "ON "
    "theirs = run_id",
    "INSERT INTO main.tag(run_id, key, value) SELECT ours, key, value FROM other.tag JOIN map ON theirs = run_id",
    "INSERT INTO main.artifact(run_id, path, role, bytes, sha256) SELECT ours, path, role, bytes, sha256 FROM "
    "other.artifact JOIN map ON theirs = run_id ORDER BY id",
    "INSERT INTO main.run_dataset(run_id, dataset_id, context) SELECT ours, d.id, context FROM other.run_dataset r "
    "JOIN "
    "map ON theirs = r.run_id JOIN other.dataset x ON x.id = r.dataset_id JOIN main.dataset d ON d.name = x.name AND "
    "d.split = x.split AND d.sha256 = x.sha256",
    "INSERT INTO main.metric(run_id, key_id, step, seq, t_ms, value, kind) SELECT ours, k.id, step, seq, t_ms, value, "
    "kind FROM other.metric JOIN map ON theirs = run_id JOIN other.metric_key x ON x.id = key_id JOIN main.metric_key "
    "k "
    "ON k.name = x.name",
    "INSERT INTO main.metric_last(run_id, key_id, step, t_ms, value, kind, min, min_step, max, max_step, n) SELECT "
    "ours, "
    "k.id, step, t_ms, value, kind, min, min_step, max, max_step, n FROM other.metric_last JOIN map ON theirs = run_id "
    "JOIN other.metric_key x ON x.id = key_id JOIN main.metric_key k ON k.name = x.name",
    "INSERT INTO main.eval_item(run_id, task, item, repeat, filter, correct, score, extracted, gold, group_id, "
    "prompt_sha256, output, prompt_tokens, output_tokens, seconds, finish_reason) SELECT ours, task, item, repeat, "
    "filter, correct, score, extracted, gold, group_id, prompt_sha256, output, prompt_tokens, output_tokens, seconds, "
    "finish_reason FROM other.eval_item JOIN map ON theirs = run_id",
    "INSERT INTO main.matrix_stat(run_id, checkpoint_step, layer, module, target, convention, m, n, r, scaling, dtype, "
    "status, n_nonfinite) SELECT ours, checkpoint_step, layer, module, target, convention, m, n, r, scaling, dtype, "
    "status, n_nonfinite FROM other.matrix_stat JOIN map ON theirs = run_id ORDER BY id",
    "INSERT INTO main.matrix_value(matrix_stat_id, name, value, kind) SELECT m.id, v.name, v.value, v.kind FROM "
    "other.matrix_value v JOIN other.matrix_stat o ON o.id = v.matrix_stat_id JOIN map ON map.theirs = o.run_id JOIN "
    "main.matrix_stat m ON " SAME_MATRIX,
    "INSERT INTO main.spectrum(matrix_stat_id, n, sv, sha256) SELECT m.id, v.n, v.sv, v.sha256 FROM other.spectrum v "
    "JOIN other.matrix_stat o ON o.id = v.matrix_stat_id JOIN map ON map.theirs = o.run_id JOIN main.matrix_stat m "
    "ON " SAME_MATRIX,
    "INSERT OR REPLACE INTO main.pair_stat(run_a, run_b, layer, module, name, i, j, value, kind) SELECT a.id, b.id, "
    "p.layer, p.module, p.name, p.i, p.j, p.value, p.kind FROM other.pair_stat p JOIN other.run x ON x.id = p.run_a "
    "JOIN "
    "other.run y ON y.id = p.run_b JOIN main.run a ON a.uuid = x.uuid JOIN main.run b ON b.uuid = y.uuid",
};

static bal_status attach(runs_context *c, const char *path)
{
    sqlite3_stmt *st = NULL;
    bal_store *other = NULL;
    bal_status status = bal_store_open(&other, path, false); /* is it ours, can this program read it */
    bal_store_close(other);
    if (status != BAL_OK)
        return status;
    status = bal_store_prepare(c->store, "ATTACH ?1 AS other", &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_text(st, 1, path, -1, SQLITE_STATIC);
    status = bal_store_run(c->store, st, "read the other database");
    (void)sqlite3_finalize(st);
    return status;
}

static bal_status count_of(runs_context *c, const char *sql, int64_t *n)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status = bal_store_prepare(c->store, sql, &st);
    if (status == BAL_OK)
        status = bal_store_step(c->store, st, &row);
    *n = row ? sqlite3_column_int64(st, 0) : 0;
    (void)sqlite3_finalize(st);
    return status;
}

static bal_status check_version(runs_context *c, const char *path)
{
    int64_t version = 0;
    bal_status status = count_of(c, "PRAGMA other.user_version", &version);
    if (status == BAL_OK && version != bal_store_schema_version())
        status = bal_fail(BAL_EUNSUPPORTED, "%s has schema %lld, this program merges only schema %d", path,
                          (long long)version, bal_store_schema_version());
    return status;
}

static bal_status merge_one(runs_context *c, const char *path)
{
    int64_t added = 0, updated = 0, all = 0;
    bal_status status = attach(c, path);
    if (status != BAL_OK)
        return status;
    BAL_TRY(check_version(c, path));
    BAL_TRY(bal_store_exec(c->store, "CREATE TEMP TABLE changed(uuid TEXT PRIMARY KEY, is_new INTEGER); "
                                     "CREATE TEMP TABLE map(theirs INTEGER PRIMARY KEY, ours INTEGER)"));
    BAL_TRY(bal_store_begin(c->store));
    for (size_t i = 0; i < sizeof steps / sizeof steps[0] && status == BAL_OK; i++)
        status = bal_store_exec(c->store, steps[i]);
    if (status == BAL_OK)
        status = bal_store_commit(c->store);
    else
        bal_store_rollback(c->store);
    BAL_TRY(status);
    BAL_TRY(count_of(c, "SELECT count(*) FROM changed WHERE is_new", &added));
    BAL_TRY(count_of(c, "SELECT count(*) FROM changed WHERE NOT is_new", &updated));
    BAL_TRY(count_of(c, "SELECT count(*) FROM other.run", &all));
    BAL_TRY(bal_store_exec(c->store, "DROP TABLE changed; DROP TABLE map; DETACH other"));
    if (c->json)
        status = bal_buf_printf(&c->out, "{\"added\": %lld, \"updated\": %lld, \"unchanged\": %lld}\n",
                                (long long)added, (long long)updated, (long long)(all - added - updated));
    else
        status = bal_buf_printf(&c->out, "%s: %lld runs added, %lld updated, %lld unchanged\n", path, (long long)added,
                                (long long)updated, (long long)(all - added - updated));
out:
    return status;
}

bal_status runs_merge(runs_context *c)
{
    bal_status status = BAL_OK;
    if (c->n_words == 0 || (c->json && c->n_words > 1))
        return bal_fail(BAL_EINVAL, "merge needs %s other database", c->n_words == 0 ? "at least one" : "just one");
    for (size_t i = 0; i < c->n_words && status == BAL_OK; i++)
        status = merge_one(c, c->words[i]);
    return status;
}

bal_status runs_remove(runs_context *c)
{
    sqlite3_stmt *st = NULL;
    bal_status status = BAL_OK;
    if (c->n_words == 0)
        return bal_fail(BAL_EINVAL, "rm needs at least one RUN");
    status = bal_store_begin(c->store); /* all or none */
    if (status != BAL_OK)
        return status;
    BAL_TRY(bal_store_cached(c->store, "DELETE FROM run WHERE id = ?1", &st));
    for (size_t i = 0; i < c->n_words; i++) {
        int64_t run = 0;
        BAL_TRY(bal_run_find(c->store, c->words[i], &run));
        (void)sqlite3_bind_int64(st, 1, run);
        BAL_TRY(bal_store_run(c->store, st, "remove the run"));
        if (!c->json)
            BAL_TRY(bal_buf_printf(&c->out, "run %lld is removed; its files stay\n", (long long)run));
    }
    if (c->json)
        BAL_TRY(bal_buf_printf(&c->out, "{\"removed\": %zu}\n", c->n_words));
    return bal_store_commit(c->store);
out:
    bal_store_rollback(c->store);
    return status;
}
