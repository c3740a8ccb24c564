/* balora runs export: CSV (RFC 4180 quoting, UTF-8, a header, NULL as an empty cell, as many digits as bring the
 * same double back) and JSON.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/runs.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"

#include <stdio.h>
#include <string.h>

/* SELECT ... FROM ... WHERE run.id IN chosen: chosen is a temporary table of the runs asked for. */
typedef struct export_table {
    const char *name, *sql;
} export_table;

static const export_table tables[] = {
    {"params", "SELECT run.uuid AS run_id, run.name AS run_name, param.key AS key, param.type AS type, param.text AS "
               "value FROM param JOIN run ON run.id = param.run_id WHERE run.id = ?1 ORDER BY key"},
    {"metrics", "SELECT run.uuid AS run_id, run.name AS run_name, metric_key.name AS key, metric.step AS step, "
                "metric.t_ms AS timestamp, metric.value AS value, CASE metric.kind WHEN 0 THEN 'ok' WHEN 1 THEN 'nan' "
                "WHEN 2 THEN 'inf' ELSE '-inf' END AS kind FROM metric JOIN run ON run.id = metric.run_id JOIN "
                "metric_key ON metric_key.id = metric.key_id WHERE run.id = ?1 ORDER BY metric_key.name, step"},
    {"items", "SELECT run.uuid AS run_id, run.name AS run_name, task, item, repeat, filter, correct, score, extracted, "
              "gold, group_id, prompt_sha256, output, prompt_tokens, output_tokens, seconds, finish_reason FROM "
              "eval_item JOIN run ON run.id = eval_item.run_id WHERE run.id = ?1 ORDER BY task, item, repeat, filter"},
    {"matrices", "SELECT run.uuid AS run_id, run.name AS run_name, checkpoint_step AS step, layer, module, target, "
                 "convention, m, n, r, scaling, dtype, matrix_stat.status AS status, n_nonfinite, matrix_value.name AS "
                 "name, matrix_value.value AS value FROM matrix_stat JOIN run ON run.id = matrix_stat.run_id LEFT JOIN "
                 "matrix_value ON matrix_value.matrix_stat_id = matrix_stat.id WHERE run.id = ?1 ORDER BY step, layer, "
                 "module, target, convention, matrix_value.name"},
    {"spectra", "SELECT run.uuid AS run_id, run.name AS run_name, checkpoint_step AS step, layer, module, target, "
                "convention, spectrum.sv AS sv FROM matrix_stat JOIN run ON run.id = matrix_stat.run_id JOIN spectrum "
                "ON spectrum.matrix_stat_id = matrix_stat.id WHERE run.id = ?1 ORDER BY step, layer, module, target, "
                "convention"},
};
enum { N_TABLES = sizeof tables / sizeof tables[0] };

typedef struct run_list {
    int64_t *ids;
    size_t n, cap;
} run_list;

static bal_status add_run(run_list *list, int64_t run)
{
    for (size_t i = 0; i < list->n; i++)
        if (list->ids[i] == run)
            return BAL_OK;
    if (list->n == list->cap) {
        size_t cap = 2 * list->cap + 64;
        int64_t *grown = bal_realloc(list->ids, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        list->ids = grown;
        list->cap = cap;
    }
    list->ids[list->n++] = run;
    return BAL_OK;
}

/* The runs named, or all. */
static bal_status choose_runs(runs_context *c, run_list *list)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < c->n_words; i++) {
        int64_t run = 0;
        BAL_TRY(bal_run_find(c->store, c->words[i], &run));
        BAL_TRY(add_run(list, run));
    }
    if (c->n_words > 0)
        return BAL_OK;
    BAL_TRY(bal_store_prepare(c->store, "SELECT id FROM run ORDER BY id", &st));
    while ((status = bal_store_step(c->store, st, &row)) == BAL_OK && row)
        BAL_TRY(add_run(list, sqlite3_column_int64(st, 0)));
out:
    (void)sqlite3_finalize(st);
    return status;
}

static bal_status put_csv_text(bal_buf *out, const char *text, size_t n)
{
    bal_status status = BAL_OK;
    if (n > 0 && memchr(text, '"', n) == NULL && memchr(text, ',', n) == NULL && memchr(text, '\n', n) == NULL &&
        memchr(text, '\r', n) == NULL)
        return bal_buf_append(out, text, n);
    BAL_TRY(bal_buf_text(out, "\"")); /* an empty text is "", so that it differs from NULL */
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"')
            BAL_TRY(bal_buf_text(out, "\""));
        BAL_TRY(bal_buf_append(out, text + i, 1));
    }
    BAL_TRY(bal_buf_text(out, "\""));
out:
    return status;
}

static bal_status put_csv_cell(bal_buf *out, sqlite3_stmt *st, int column)
{
    switch (sqlite3_column_type(st, column)) {
    case SQLITE_NULL:
        return BAL_OK;
    case SQLITE_FLOAT:
        return bal_json_put_f64(out, sqlite3_column_double(st, column));
    case SQLITE_INTEGER:
        return bal_buf_printf(out, "%lld", (long long)sqlite3_column_int64(st, column));
    default:
        return put_csv_text(out, (const char *)sqlite3_column_text(st, column),
                            (size_t)sqlite3_column_bytes(st, column));
    }
}

static bal_status put_cells(bal_buf *out, sqlite3_stmt *st, int n)
{
    bal_status status = BAL_OK;
    for (int i = 0; i < n && status == BAL_OK; i++) {
        if (i > 0)
            status = bal_buf_text(out, ",");
        if (status == BAL_OK)
            status = put_csv_cell(out, st, i);
    }
    return status;
}

/* One line a singular value instead of the blob. */
static bal_status put_spectrum(bal_buf *out, sqlite3_stmt *st, int blob)
{
    bal_status status = BAL_OK;
    size_t n = (size_t)sqlite3_column_bytes(st, blob) / sizeof(double);
    const unsigned char *bytes = sqlite3_column_blob(st, blob);
    for (size_t i = 0; i < n; i++) {
        double value;
        memcpy(&value, bytes + i * sizeof value, sizeof value);
        BAL_TRY(put_cells(out, st, blob));
        BAL_TRY(bal_buf_printf(out, ",%zu,", i + 1));
        BAL_TRY(bal_json_put_f64(out, value));
        BAL_TRY(bal_buf_text(out, "\n"));
    }
out:
    return status;
}

static bal_status put_long_csv(runs_context *c, bal_buf *out, const export_table *table, const run_list *list)
{
    sqlite3_stmt *st = NULL;
    bool row = false, spectra = strcmp(table->name, "spectra") == 0;
    bal_status status = BAL_OK;
    BAL_TRY(bal_store_prepare(c->store, table->sql, &st));
    int n = sqlite3_column_count(st);
    for (int i = 0; i < n; i++)
        BAL_TRY(bal_buf_printf(out, "%s%s", i > 0 ? "," : "",
                               spectra && i == n - 1 ? "i,value" : sqlite3_column_name(st, i)));
    BAL_TRY(bal_buf_text(out, "\n"));
    for (size_t r = 0; r < list->n; r++) {
        (void)sqlite3_reset(st);
        (void)sqlite3_bind_int64(st, 1, list->ids[r]);
        while ((status = bal_store_step(c->store, st, &row)) == BAL_OK && row) {
            if (spectra) {
                BAL_TRY(put_spectrum(out, st, n - 1));
                continue;
            }
            BAL_TRY(put_cells(out, st, n));
            BAL_TRY(bal_buf_text(out, "\n"));
        }
        BAL_TRY(status);
    }
out:
    (void)sqlite3_finalize(st);
    return status;
}

/* The wide table: what mlflow.search_runs() gives, one line a run. */
typedef struct wide_part {
    const char *prefix, *names, *value;
} wide_part;

static const wide_part parts[] = {
    {"params.", "SELECT DISTINCT key FROM param ORDER BY key", "SELECT text FROM param WHERE run_id = ?1 AND key = ?2"},
    {"metrics.", "SELECT DISTINCT name FROM metric_key ORDER BY name",
     "SELECT value FROM metric_last WHERE run_id = ?1 AND key_id = (SELECT id FROM metric_key WHERE name = ?2)"},
    {"tags.", "SELECT DISTINCT key FROM tag ORDER BY key", "SELECT value FROM tag WHERE run_id = ?1 AND key = ?2"},
};
enum { N_PARTS = sizeof parts / sizeof parts[0] };

static bool used_by(runs_context *c, sqlite3_stmt *value, const run_list *list, const char *name)
{
    bool used = false;
    for (size_t i = 0; i < list->n && !used; i++) {
        bool row = false;
        (void)sqlite3_reset(value);
        (void)sqlite3_bind_int64(value, 1, list->ids[i]);
        (void)sqlite3_bind_text(value, 2, name, -1, SQLITE_TRANSIENT);
        used = bal_store_step(c->store, value, &row) == BAL_OK && row;
    }
    return used;
}

typedef struct wide_columns {
    char *names[4096];
    size_t part[4096], n;
} wide_columns;

static bal_status find_columns(runs_context *c, const run_list *list, sqlite3_stmt *const *values, wide_columns *w)
{
    bal_status status = BAL_OK;
    for (size_t p = 0; p < N_PARTS && status == BAL_OK; p++) {
        sqlite3_stmt *names = NULL;
        bool row = false;
        status = bal_store_prepare(c->store, parts[p].names, &names);
        while (status == BAL_OK && (status = bal_store_step(c->store, names, &row)) == BAL_OK && row) {
            const char *name = (const char *)sqlite3_column_text(names, 0);
            if (!used_by(c, values[p], list, name))
                continue;
            if (w->n == sizeof w->names / sizeof w->names[0])
                status = bal_fail(BAL_ELIMIT, "more than %zu columns: export fewer runs, or use --out", w->n);
            else if ((w->names[w->n] = bal_strdup(name)) == NULL)
                status = BAL_ENOMEM;
            else
                w->part[w->n++] = p;
        }
        (void)sqlite3_finalize(names);
    }
    return status;
}

static const char wide_head[] =
    "SELECT run.uuid AS run_id, run.experiment_id AS experiment_id, experiment.name AS experiment_name, run.name AS "
    "run_name, run.kind AS kind, run.status AS status, (SELECT path FROM artifact WHERE run_id = run.id ORDER BY id "
    "LIMIT 1) AS artifact_uri, strftime('%Y-%m-%d %H:%M:%f+00:00', run.start_ms / 1000.0, 'unixepoch') AS start_time, "
    "strftime('%Y-%m-%d %H:%M:%f+00:00', run.end_ms / 1000.0, 'unixepoch') AS end_time, run.seed AS seed FROM run JOIN "
    "experiment ON experiment.id = run.experiment_id WHERE run.id = ?1";

static bal_status put_wide_row(runs_context *c, bal_buf *out, int64_t run, sqlite3_stmt *head,
                               sqlite3_stmt *const *values, const wide_columns *w)
{
    bool row = false;
    bal_status status = BAL_OK;
    (void)sqlite3_reset(head);
    (void)sqlite3_bind_int64(head, 1, run);
    BAL_TRY(bal_store_step(c->store, head, &row));
    BAL_TRY(put_cells(out, head, sqlite3_column_count(head)));
    for (size_t i = 0; i < w->n; i++) {
        sqlite3_stmt *st = values[w->part[i]];
        (void)sqlite3_reset(st);
        (void)sqlite3_bind_int64(st, 1, run);
        (void)sqlite3_bind_text(st, 2, w->names[i], -1, SQLITE_STATIC);
        BAL_TRY(bal_store_step(c->store, st, &row));
        BAL_TRY(bal_buf_text(out, ","));
        if (row)
            BAL_TRY(put_csv_cell(out, st, 0));
    }
    BAL_TRY(bal_buf_text(out, "\n"));
out:
    return status;
}

static bal_status put_wide_csv(runs_context *c, bal_buf *out, const run_list *list)
{
    sqlite3_stmt *values[N_PARTS] = {NULL}, *head = NULL;
    wide_columns *w = bal_alloc(1, sizeof *w);
    bal_status status = w == NULL ? BAL_ENOMEM : BAL_OK;
    for (size_t p = 0; p < N_PARTS && status == BAL_OK; p++)
        status = bal_store_prepare(c->store, parts[p].value, &values[p]);
    if (w == NULL || status != BAL_OK)
        goto out;
    BAL_TRY(bal_store_prepare(c->store, wide_head, &head));
    BAL_TRY(find_columns(c, list, values, w));
    for (int i = 0; i < sqlite3_column_count(head); i++)
        BAL_TRY(bal_buf_printf(out, "%s%s", i > 0 ? "," : "", sqlite3_column_name(head, i)));
    for (size_t i = 0; i < w->n; i++) {
        bal_buf name = {0};
        status = bal_buf_printf(&name, "%s%s", parts[w->part[i]].prefix, w->names[i]);
        if (status == BAL_OK)
            status = bal_buf_text(out, ",");
        if (status == BAL_OK)
            status = put_csv_text(out, bal_buf_cstr(&name), name.len);
        bal_buf_dispose(&name);
        BAL_TRY(status);
    }
    BAL_TRY(bal_buf_text(out, "\n"));
    for (size_t i = 0; i < list->n; i++)
        BAL_TRY(put_wide_row(c, out, list->ids[i], head, values, w));
out:
    for (size_t p = 0; p < N_PARTS; p++)
        (void)sqlite3_finalize(values[p]);
    (void)sqlite3_finalize(head);
    for (size_t i = 0; w != NULL && i < w->n; i++)
        bal_free(w->names[i]);
    bal_free(w);
    return status;
}

/* table NULL: the wide one. */
static bal_status put_table(runs_context *c, bal_buf *out, const export_table *table, const run_list *list)
{
    return table == NULL ? put_wide_csv(c, out, list) : put_long_csv(c, out, table, list);
}

static bal_status write_folder(runs_context *c, const run_list *list)
{
    bal_status status = bal_folder_make(c->config->out);
    for (size_t i = 0; i <= N_TABLES && status == BAL_OK; i++) {
        const export_table *table = i == 0 ? NULL : &tables[i - 1];
        bal_buf text = {0};
        char name[64];
        (void)snprintf(name, sizeof name, "%s.csv", table == NULL ? "runs" : table->name);
        char *path = bal_path_join(c->config->out, name);
        status = path == NULL ? BAL_ENOMEM : put_table(c, &text, table, list);
        if (status == BAL_OK)
            status = bal_file_replace(path, bal_buf_cstr(&text), text.len);
        if (status == BAL_OK && !c->json)
            status = bal_buf_printf(&c->out, "%s\n", path);
        bal_free(path);
        bal_buf_dispose(&text);
    }
    return status;
}

static bal_status put_json(runs_context *c, const run_list *list)
{
    bal_status status = bal_buf_text(&c->out, "{\"runs\": [");
    for (size_t i = 0; i < list->n && status == BAL_OK; i++) {
        if (i > 0)
            status = bal_buf_text(&c->out, ", ");
        if (status == BAL_OK)
            status = runs_put_run(c, &c->out, list->ids[i], true);
    }
    return status == BAL_OK ? bal_buf_text(&c->out, "]}\n") : status;
}

bal_status runs_export(runs_context *c)
{
    run_list list = {0};
    const export_table *table = NULL;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < N_TABLES; i++)
        if (strcmp(c->config->table, tables[i].name) == 0)
            table = &tables[i];
    BAL_TRY(choose_runs(c, &list));
    if (list.n == 0)
        BAL_TRY(bal_fail(BAL_ENOENT, "%s holds no runs to export", bal_store_path(c->store)));
    if (c->config->out != NULL)
        BAL_TRY(write_folder(c, &list));
    if (c->json)
        status = put_json(c, &list);
    else if (c->config->out == NULL)
        status = put_table(c, &c->out, table, &list);
out:
    bal_free(list.ids);
    return status;
}
