/* --across A,B,C: the figures of runs that repeat one another with other seeds (of training, of sampling): mean and sample
 * standard deviation over the runs, kept apart from the error over items that each run has by itself.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"

#include "lib/base/mem.h"
#include "lib/io/store.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <string.h>

enum { MAX_RUNS = 256 };

typedef struct across_state {
    bal_store *store;
    const bal_text_list *words;
    int64_t runs[MAX_RUNS];
    cJSON *configs[MAX_RUNS];
    size_t n;
} across_state;

/* What must be the same for figures to be of one kind. */
static bool same_tasks(const cJSON *a, const cJSON *b)
{
    static const char *const keys[] = {"tasks",       "limit",        "item_range",          "shard",
                                       "num_fewshot", "max_gen_toks", "apply_chat_template", "system_instruction"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        const cJSON *x = bal_json_member(a, keys[i]), *y = bal_json_member(b, keys[i]);
        if ((x != NULL || y != NULL) && cJSON_Compare(x, y, true) == 0)
            return false;
    }
    return true;
}

static bal_status read_run(across_state *s, size_t i)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status;
    BAL_TRY(bal_run_find(s->store, s->words->items[i], &s->runs[i]));
    for (size_t k = 0; k < i; k++)
        if (s->runs[k] == s->runs[i]) {
            status = bal_fail(BAL_EINVAL, "'%s' and '%s' are the same run", s->words->items[k], s->words->items[i]);
            goto out;
        }
    BAL_TRY(bal_store_prepare(s->store, "SELECT config, kind, status FROM run WHERE id = ?1", &st));
    (void)sqlite3_bind_int64(st, 1, s->runs[i]);
    BAL_TRY(bal_store_step(s->store, st, &row));
    const char *text = row ? (const char *)sqlite3_column_text(st, 0) : NULL;
    const char *kind = row ? (const char *)sqlite3_column_text(st, 1) : NULL;
    const char *how = row ? (const char *)sqlite3_column_text(st, 2) : NULL;
    if (text == NULL || kind == NULL || how == NULL || strcmp(kind, "evaluate") != 0 || strcmp(how, "finished") != 0) {
        status = bal_fail(BAL_EINVAL, "run '%.60s' is not a finished evaluation of tasks", s->words->items[i]);
        goto out;
    }
    BAL_TRY(bal_json_parse(&s->configs[i], text, strlen(text), "the run's configuration"));
    if (i > 0 && !same_tasks(s->configs[0], s->configs[i]))
        status = bal_fail(BAL_EINVAL,
                          "runs '%.60s' and '%.60s' did not answer the same: their tasks, data, limit, examples or "
                          "prompts differ ('balora runs diff' shows where)",
                          s->words->items[0], s->words->items[i]);
out:
    (void)sqlite3_finalize(st);
    return status;
}

/* The value of a figure in each run; NaN where it has none. */
static bal_status read_values(across_state *s, const char *key, double *out)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < s->n; i++) {
        BAL_TRY(bal_store_cached(s->store,
                                 "SELECT metric_last.value, metric_last.kind FROM metric_last JOIN metric_key ON "
                                 "metric_key.id = metric_last.key_id WHERE run_id = ?1 AND name = ?2",
                                 &st));
        (void)sqlite3_bind_int64(st, 1, s->runs[i]);
        (void)sqlite3_bind_text(st, 2, key, -1, SQLITE_TRANSIENT);
        BAL_TRY(bal_store_step(s->store, st, &row));
        out[i] = row && sqlite3_column_int(st, 1) == 0 && sqlite3_column_type(st, 0) != SQLITE_NULL
                     ? sqlite3_column_double(st, 0)
                     : (double)NAN;
        (void)sqlite3_reset(st);
    }
out:
    return status;
}

static bal_status put_cell(bal_buf *out, double value)
{
    return isnan(value) ? bal_buf_text(out, "N/A|") : bal_buf_printf(out, "%.4f|", value);
}

static bal_status put_number(bal_buf *out, const char *key, double value)
{
    bal_status status = bal_buf_printf(out, ", \"%s\": ", key);
    return status == BAL_OK ? bal_json_put_f64(out, value) : status;
}

/* key: "task/metric,filter". */
static bal_status put_figure(across_state *s, const char *key, bool json, bool first, bal_buf *out)
{
    double values[MAX_RUNS], errors[MAX_RUNS];
    const char *slash = strchr(key, '/'), *comma = strrchr(key, ',');
    bal_buf name = {0};
    bal_status status;
    if (slash == NULL || comma == NULL || comma < slash)
        return BAL_OK;
    BAL_TRY(read_values(s, key, values));
    BAL_TRY(bal_buf_printf(&name, "%.*s_stderr%s", (int)(comma - key), key, comma));
    BAL_TRY(read_values(s, bal_buf_cstr(&name), errors));
    double mean = bal_mean(values, s->n), sd = bal_sample_sd(values, s->n), low = values[0], high = values[0];
    for (size_t i = 1; i < s->n; i++) {
        low = fmin(low, values[i]);
        high = fmax(high, values[i]);
    }
    if (!json) {
        BAL_TRY(bal_buf_printf(out, "|%.*s|%s|%.*s|%zu|", (int)(slash - key), key, comma + 1, (int)(comma - slash - 1),
                               slash + 1, s->n));
        BAL_TRY(put_cell(out, mean));
        BAL_TRY(bal_buf_text(out, "\xc2\xb1|"));
        BAL_TRY(put_cell(out, sd));
        BAL_TRY(put_cell(out, low));
        BAL_TRY(put_cell(out, high));
        BAL_TRY(put_cell(out, bal_mean(errors, s->n)));
        status = bal_buf_text(out, "\n");
        goto out;
    }
    BAL_TRY(bal_buf_printf(out, "%s\n  {\"task\": \"%.*s\", \"metric\": \"%.*s\", \"filter\": \"%s\", \"n_runs\": %zu",
                           first ? "" : ",", (int)(slash - key), key, (int)(comma - slash - 1), slash + 1, comma + 1,
                           s->n));
    BAL_TRY(put_number(out, "mean", mean));
    BAL_TRY(put_number(out, "sd", sd));
    BAL_TRY(put_number(out, "min", low));
    BAL_TRY(put_number(out, "max", high));
    BAL_TRY(put_number(out, "mean_item_stderr", bal_mean(errors, s->n)));
    BAL_TRY(bal_buf_text(out, ", \"values\": ["));
    for (size_t i = 0; i < s->n; i++) {
        BAL_TRY(bal_buf_text(out, i == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_f64(out, values[i]));
    }
    status = bal_buf_text(out, "]}");
out:
    bal_buf_dispose(&name);
    return status;
}

/* The figures of the first run, in the order in which it stored them. */
static bal_status put_figures(across_state *s, bool json, bal_buf *out)
{
    sqlite3_stmt *st = NULL;
    bool row = false, first = true;
    bal_status status;
    BAL_TRY(bal_store_prepare(s->store,
                              "SELECT name FROM metric_last JOIN metric_key ON metric_key.id = metric_last.key_id "
                              "WHERE run_id = ?1 AND name LIKE '%/%,%' AND name NOT LIKE '%\\_stderr,%' ESCAPE '\\' "
                              "ORDER BY substr(name, 1, instr(name, '/')), metric_key.id",
                              &st));
    (void)sqlite3_bind_int64(st, 1, s->runs[0]);
    for (;;) {
        BAL_TRY(bal_store_step(s->store, st, &row));
        if (!row)
            break;
        BAL_TRY(put_figure(s, (const char *)sqlite3_column_text(st, 0), json, first, out));
        first = false;
    }
    if (first)
        status = bal_fail(BAL_EINVAL, "run '%.60s' holds no figures", s->words->items[0]);
out:
    (void)sqlite3_finalize(st);
    return status;
}

bal_status evaluate_across(bal_store *store, const bal_text_list *runs, bool json, bal_buf *out)
{
    bal_status status = BAL_OK;
    if (runs->n < 2 || runs->n > MAX_RUNS)
        return bal_fail(BAL_EINVAL, "--across takes 2 to %d runs, not %zu", (int)MAX_RUNS, runs->n);
    across_state *s = bal_alloc(1, sizeof *s);
    if (s == NULL)
        return BAL_ENOMEM;
    *s = (across_state){.store = store, .words = runs, .n = runs->n};
    for (size_t i = 0; i < s->n; i++)
        BAL_TRY(read_run(s, i));
    if (!json)
        BAL_TRY(bal_buf_text(out, "|Task|Filter|Metric|runs|Mean| |sd|Min|Max|Stderr over items, mean|\n"
                                  "|---|---|---|---:|---:|---|---:|---:|---:|---:|\n"));
    else
        BAL_TRY(bal_buf_text(out, "{\"runs\": ["));
    for (size_t i = 0; i < s->n && json; i++) {
        BAL_TRY(bal_buf_printf(out, "%s{\"id\": %lld, \"given\": ", i == 0 ? "" : ", ", (long long)s->runs[i]));
        BAL_TRY(bal_json_put_text(out, runs->items[i]));
        BAL_TRY(bal_buf_text(out, "}"));
    }
    if (json)
        BAL_TRY(bal_buf_text(out, "], \"figures\": ["));
    BAL_TRY(put_figures(s, json, out));
    status =
        bal_buf_text(out, json ? "\n]}\n"
                               : "\nsd: sample standard deviation over the runs (n - 1), what the seed does; the last "
                                 "column is what the choice of items does.\n");
out:
    for (size_t i = 0; i < s->n; i++)
        cJSON_Delete(s->configs[i]);
    bal_free(s);
    return status;
}
