/* balora runs list, show, diff.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/runs.h"

#include "lib/io/json.h"

#include <stdio.h>
#include <string.h>

/* A run that still says "running" and has not been heard of for 15 minutes was lost. */
#define SHOWN_STATUS                                                                                                   \
    "iif(run.status = 'running' AND run.heartbeat_ms < unixepoch() * 1000 - 900000, 'lost', run.status)"

/* The three metrics that say most, of those that the run has. */
#define FEW_METRICS                                                                                                    \
    "(SELECT group_concat(t, '  ') FROM (SELECT metric_key.name || '=' || CASE metric_last.kind WHEN 0 THEN "          \
    "printf('%.5g', metric_last.value) WHEN 1 THEN 'nan' WHEN 2 THEN 'inf' ELSE '-inf' END AS t FROM metric_last "     \
    "JOIN metric_key ON metric_key.id = metric_last.key_id WHERE metric_last.run_id = run.id ORDER BY "                \
    "name = 'loss/total' DESC, name LIKE '%stderr%', name LIKE '%valid%' DESC, name LIKE '%match%' DESC, "             \
    "name LIKE 'loss/%' DESC, name LIKE 'lambda/%' OR name LIKE 'lr%' OR name LIKE '%tokens%' OR name LIKE "           \
    "'%rss%' OR name IN ('rows', 'grad_norm', 'step'), name LIMIT 3))"

static bal_status put_runs_json(runs_context *c, const char *sql)
{
    sqlite3_stmt *st = NULL;
    bool row = false, first = true;
    bal_status status = BAL_OK;
    BAL_TRY(bal_store_prepare(c->store, sql, &st));
    BAL_TRY(bal_buf_text(&c->out, "{\"runs\": ["));
    while ((status = bal_store_step(c->store, st, &row)) == BAL_OK && row) {
        BAL_TRY(bal_buf_text(&c->out, first ? "" : ", "));
        first = false;
        BAL_TRY(runs_put_run(c, &c->out, sqlite3_column_int64(st, 0), false));
    }
    if (status == BAL_OK)
        status = bal_buf_text(&c->out, "]}\n");
out:
    (void)sqlite3_finalize(st);
    return status;
}

static bal_status list_query(const runs_config *config, bal_buf *sql)
{
    bal_status status = BAL_OK;
    BAL_TRY(bal_buf_text(
        sql,
        "SELECT run.id AS id, run.kind AS kind, run.name AS name, " SHOWN_STATUS " AS status, " RUNS_TIME(
            "run.start_ms") " AS started, iif(run.end_ms IS NULL, '', "
                            "printf('%.0f s', (run.end_ms - run.start_ms) / 1000.0)) AS took, coalesce((SELECT text "
                            "FROM param WHERE run_id = run.id AND key = 'method'), '') AS method, "
                            "coalesce(" FEW_METRICS ", '') AS metrics FROM run WHERE 1"));
    if (config->kind != NULL) /* both are choices of the option table: plain words */
        BAL_TRY(bal_buf_printf(sql, " AND run.kind = '%s'", config->kind));
    if (config->status != NULL)
        BAL_TRY(bal_buf_printf(sql, " AND %s = '%s'", SHOWN_STATUS, config->status));
    BAL_TRY(bal_buf_printf(sql, " ORDER BY run.start_ms DESC, run.id DESC LIMIT %lld",
                           (long long)(config->limit == 0 ? -1 : config->limit)));
out:
    return status;
}

bal_status runs_list(runs_context *c)
{
    bal_buf sql = {0};
    if (c->n_words > 0)
        return bal_fail(BAL_EINVAL, "list takes no further words, but '%.60s' was given", c->words[0]);
    bal_status status = list_query(c->config, &sql);
    if (status == BAL_OK)
        status = c->json ? put_runs_json(c, bal_buf_cstr(&sql)) : runs_put_table(c, NULL, bal_buf_cstr(&sql), 0);
    if (status == BAL_OK && c->out.len == 0)
        status = bal_buf_printf(&c->out, "no %sruns in %s\n",
                                c->config->kind != NULL || c->config->status != NULL ? "such " : "",
                                bal_store_path(c->store));
    bal_buf_dispose(&sql);
    return status;
}

static const char metrics_sql[] =
    "SELECT metric_key.name AS name, metric_last.value AS last, metric_last.step AS step, metric_last.min AS min, "
    "metric_last.min_step AS min_step, metric_last.max AS max, metric_last.max_step AS max_step, metric_last.n AS n, "
    "CASE metric_last.kind WHEN 0 THEN 'ok' WHEN 1 THEN 'nan' WHEN 2 THEN 'inf' ELSE '-inf' END AS kind "
    "FROM metric_last JOIN metric_key ON metric_key.id = metric_last.key_id WHERE run_id = ?1 ORDER BY name";
static const char items_sql[] =
    "SELECT task, filter, count(*) AS items, sum(CASE WHEN score IN (0, 1) THEN CAST(score AS INTEGER) END) AS "
    "correct, "
    "avg(score) AS score, avg(output_tokens) AS output_tokens, sum(seconds) AS seconds FROM (SELECT e.task AS task, "
    "e.filter AS filter, " BAL_ITEM_SCORE " AS score, avg(e.output_tokens) AS output_tokens, sum(e.seconds) AS seconds "
    "FROM eval_item AS e WHERE e.run_id = ?1 GROUP BY e.task, e.filter, e.item) GROUP BY task, filter ORDER BY task, "
    "filter";
static const char artifacts_sql[] =
    "SELECT role, path, bytes, sha256 FROM artifact WHERE run_id = ?1 ORDER BY role, path";
static const char matrices_sql[] =
    "SELECT target, convention, checkpoint_step AS step, count(*) AS matrices, sum(EXISTS(SELECT 1 FROM spectrum "
    "WHERE matrix_stat_id = matrix_stat.id)) AS spectra FROM matrix_stat WHERE run_id = ?1 "
    "GROUP BY target, convention, step ORDER BY target, convention, step";
static const char head_sql[] =
    "SELECT run.id AS id, run.uuid AS uuid, run.name AS name, run.kind AS kind, experiment.name AS experiment, "
    "run.status AS status, run.heartbeat_ms < unixepoch() * 1000 - 900000 AND run.status = 'running' AS lost, "
    "run.start_ms AS start_ms, run.end_ms AS end_ms, run.exit_code AS exit_code, run.error AS error, "
    "run.seed AS seed, (SELECT uuid FROM run AS p WHERE p.id = run.parent_run_id) AS parent, run.cwd AS cwd, "
    "run.tool_version AS tool_version, run.git_commit AS git_commit, run.config_sha256 AS config_sha256, host.hostname "
    "AS hostname, "
    "host.cpu AS cpu, host.cores AS cores, host.ram_bytes AS ram_bytes FROM run JOIN experiment ON experiment.id = "
    "run.experiment_id LEFT JOIN host ON host.id = run.host_id WHERE run.id = ?1";
static const char curves_sql[] =
    "SELECT metric_key.name AS name, metric.step AS step, metric.value AS value, metric.t_ms AS t_ms, "
    "metric.kind AS kind FROM metric JOIN metric_key ON metric_key.id = metric.key_id WHERE run_id = ?1 "
    "ORDER BY name, step";

/* The first row of a list: "[{...}]" without its brackets. */
static bal_status put_head(runs_context *c, bal_buf *out, int64_t run)
{
    bal_buf rows = {0};
    bal_status status = runs_put_rows(c, &rows, head_sql, run);
    if (status == BAL_OK && rows.len > 4) /* left open: the caller adds members */
        status = bal_buf_append(out, rows.data + 1, rows.len - 3);
    bal_buf_dispose(&rows);
    return status;
}

bal_status runs_put_run(runs_context *c, bal_buf *out, int64_t run, bool curves)
{
    bal_status status = BAL_OK;
    BAL_TRY(put_head(c, out, run));
    BAL_TRY(bal_buf_text(out, ", \"argv\": "));
    bal_buf argv = {0};
    status = runs_put_map(c, &argv, "SELECT 'argv', argv FROM run WHERE id = ?1", run);
    cJSON *json = NULL; /* argv is JSON in a text column: shown as the list that it is */
    if (status == BAL_OK)
        status = bal_json_parse(&json, bal_buf_cstr(&argv), argv.len, "argv");
    const char *text = status == BAL_OK ? cJSON_GetStringValue(bal_json_member(json, "argv")) : NULL;
    if (status == BAL_OK)
        status = bal_buf_text(out, text != NULL ? text : "[]");
    cJSON_Delete(json);
    bal_buf_dispose(&argv);
    if (status != BAL_OK)
        return status;
    BAL_TRY(bal_buf_text(out, ", \"params\": "));
    BAL_TRY(runs_put_params(c, out, run));
    BAL_TRY(bal_buf_text(out, ", \"tags\": "));
    BAL_TRY(runs_put_map(c, out, "SELECT key, value FROM tag WHERE run_id = ?1 ORDER BY key", run));
    BAL_TRY(bal_buf_text(out, ", \"metrics\": "));
    BAL_TRY(runs_put_map(c, out, metrics_sql, run));
    BAL_TRY(bal_buf_text(out, ", \"items\": "));
    BAL_TRY(runs_put_rows(c, out, items_sql, run));
    BAL_TRY(bal_buf_text(out, ", \"matrices\": "));
    BAL_TRY(runs_put_rows(c, out, matrices_sql, run));
    BAL_TRY(bal_buf_text(out, ", \"artifacts\": "));
    BAL_TRY(runs_put_rows(c, out, artifacts_sql, run));
    if (curves) {
        BAL_TRY(bal_buf_text(out, ", \"curves\": "));
        BAL_TRY(runs_put_rows(c, out, curves_sql, run));
    }
    BAL_TRY(bal_buf_text(out, "}"));
out:
    return status;
}

bal_status runs_show(runs_context *c)
{
    int64_t run = 0;
    bal_status status = BAL_OK;
    if (c->n_words != 1)
        return bal_fail(BAL_EINVAL, "show needs one RUN: a number, a name, a uuid or its beginning, or 'last'");
    BAL_TRY(bal_run_find(c->store, c->words[0], &run));
    if (c->json) {
        BAL_TRY(runs_put_run(c, &c->out, run, false));
        return bal_buf_text(&c->out, "\n");
    }
    BAL_TRY(runs_put_table(c, NULL,
                           "SELECT 'run' AS '', id || ' ' || name AS '' FROM run WHERE id = ?1 "
                           "UNION ALL SELECT 'kind', kind FROM run WHERE id = ?1 "
                           "UNION ALL SELECT 'status', " SHOWN_STATUS
                           " || coalesce(', exit status ' || exit_code, '') FROM run WHERE id = ?1 "
                           "UNION ALL SELECT 'error', error FROM run WHERE id = ?1 AND error IS NOT NULL "
                           "UNION ALL SELECT 'started', " RUNS_TIME(
                               "start_ms") " FROM run WHERE id = ?1 "
                                           "UNION ALL SELECT 'ended', " RUNS_TIME(
                                               "end_ms") " FROM run WHERE id = ?1 AND end_ms IS NOT NULL "
                                                         "UNION ALL SELECT 'uuid', uuid FROM run WHERE id = ?1 "
                                                         "UNION ALL SELECT 'machine', cpu || ', ' || cores || ' cores' "
                                                         "FROM run JOIN host ON host.id "
                                                         "= run.host_id WHERE run.id = ?1",
                           run));
    BAL_TRY(
        runs_put_table(c, "Parameters", "SELECT key, text AS value FROM param WHERE run_id = ?1 ORDER BY key", run));
    BAL_TRY(runs_put_table(c, "Tags", "SELECT key, value FROM tag WHERE run_id = ?1 ORDER BY key", run));
    BAL_TRY(runs_put_table(c, "Metrics", metrics_sql, run));
    BAL_TRY(runs_put_table(c, "Items", items_sql, run));
    BAL_TRY(runs_put_table(c, "Matrices", matrices_sql, run));
    BAL_TRY(runs_put_table(c, "Artifacts",
                           "SELECT role, path, bytes FROM artifact WHERE run_id = ?1 ORDER BY role, path", run));
out:
    return status;
}

/* The two runs are put into the text of the queries as numbers: runs_put_table() binds only one. */
static const char diff_params[] =
    "SELECT key, a.text AS a, b.text AS b FROM (SELECT key FROM param WHERE run_id = %lld UNION SELECT key FROM param "
    "WHERE run_id = %lld) LEFT JOIN (SELECT key, text FROM param WHERE run_id = %lld) a USING(key) LEFT JOIN (SELECT "
    "key, text FROM param WHERE run_id = %lld) b USING(key) WHERE a.text IS NOT b.text ORDER BY key";
static const char diff_metrics[] =
    "SELECT name, a.value AS a, b.value AS b, b.value - a.value AS 'b - a' FROM (SELECT id, name FROM metric_key WHERE "
    "id IN (SELECT key_id FROM metric_last WHERE run_id IN (%lld, %lld))) k LEFT JOIN metric_last a ON a.key_id = k.id "
    "AND a.run_id = %lld LEFT JOIN metric_last b ON b.key_id = k.id AND b.run_id = %lld ORDER BY name";

bal_status runs_diff(runs_context *c)
{
    int64_t a = 0, b = 0;
    char params[700], metrics[700];
    bal_status status = BAL_OK;
    if (c->n_words != 2)
        return bal_fail(BAL_EINVAL, "diff needs two runs: diff A B");
    BAL_TRY(bal_run_find(c->store, c->words[0], &a));
    BAL_TRY(bal_run_find(c->store, c->words[1], &b));
    (void)snprintf(params, sizeof params, diff_params, (long long)a, (long long)b, (long long)a, (long long)b);
    (void)snprintf(metrics, sizeof metrics, diff_metrics, (long long)a, (long long)b, (long long)a, (long long)b);
    bal_buf rows = {0};
    status = runs_put_rows(c, &rows, params, 0);
    c->differs = rows.len > 2;
    if (status == BAL_OK && c->json)
        status = bal_buf_printf(&c->out, "{\"a\": %lld, \"b\": %lld, \"params\": %s, \"metrics\": ", (long long)a,
                                (long long)b, bal_buf_cstr(&rows));
    bal_buf_dispose(&rows);
    if (status != BAL_OK)
        return status;
    if (c->json) {
        BAL_TRY(runs_put_rows(c, &c->out, metrics, 0));
        return bal_buf_text(&c->out, "}\n");
    }
    BAL_TRY(bal_buf_printf(&c->out, "a: run %lld, b: run %lld\n", (long long)a, (long long)b));
    if (!c->differs)
        BAL_TRY(bal_buf_text(&c->out, "\nThe parameters are the same.\n"));
    BAL_TRY(runs_put_table(c, "Parameters that differ", params, 0));
    BAL_TRY(runs_put_table(c, "Last values of the metrics", metrics, 0));
out:
    return status;
}
