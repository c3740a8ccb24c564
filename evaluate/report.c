/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/report.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double k_z95 = 1.959963984540054; /* 97.5 % of the normal distribution */

static bal_status read_filter(filter_result *f, bal_store *s, int64_t run, const char *name, size_t n_items)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status = bal_store_cached(
        s,
        "SELECT count(*), total(score), total(extracted IS NULL OR extracted = '[invalid]') FROM eval_item "
        "WHERE run_id = ?1 AND task = ?2 AND filter = ?3 AND repeat = 0 AND item < ?4",
        &st);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_text(st, 2, name, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_text(st, 3, f->filter, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(st, 4, (int64_t)n_items);
    BAL_TRY(bal_store_step(s, st, &row));
    f->n = (size_t)sqlite3_column_int64(st, 0);
    double n = (double)f->n, sum = sqlite3_column_double(st, 1);
    f->n_failed = (size_t)sqlite3_column_double(st, 2);
    f->mean = sum / n;
    f->stderr_mean = f->n > 1 ? bal_share_stderr(f->mean, f->n) : (double)NAN;
    bal_wilson((size_t)(sum + 0.5), f->n, k_z95, &f->low, &f->high);
out:
    (void)sqlite3_reset(st);
    return status;
}

bal_status report_read(task_result *r, bal_store *s, int64_t run, const task *t, size_t n_items)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status;
    *r = (task_result){.task = t, .n_items = n_items, .n_original = t->test.n};
    for (size_t f = 0; f < t->scorer->n_filters && f < MAX_FILTERS; f++) {
        r->filters[f].filter = t->scorer->filters[f].name;
        BAL_TRY(read_filter(&r->filters[f], s, run, t->name, n_items));
        r->n_filters = f + 1;
        if (r->filters[f].n != n_items) {
            status =
                bal_fail(BAL_EIO, "task '%s' has %zu of %zu items in the store", t->name, r->filters[f].n, n_items);
            goto out;
        }
    }
    BAL_TRY(
        bal_store_cached(s,
                         "SELECT total(trim(output, ' ' || char(9, 10, 13)) = ''), total(finish_reason = 'length') "
                         "FROM eval_item WHERE run_id = ?1 AND task = ?2 AND filter = ?3 AND repeat = 0 AND item < ?4",
                         &st));
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_text(st, 2, t->name, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_text(st, 3, r->filters[0].filter, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(st, 4, (int64_t)n_items);
    BAL_TRY(bal_store_step(s, st, &row));
    r->n_empty = (size_t)sqlite3_column_double(st, 0);
    r->n_cut = (size_t)sqlite3_column_double(st, 1);
out:
    if (st != NULL)
        (void)sqlite3_reset(st);
    return status;
}

/* "key,filter": value */
static bal_status put_metric(bal_buf *out, const char *key, const char *filter, double value)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, ", \"%s,%s\": ", key, filter));
    BAL_TRY(bal_json_put_f64(out, value));
out:
    return status;
}

static bal_status put_results(bal_buf *out, const task_result *r)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "{\"alias\": \"%s\"", r->task->name));
    for (size_t f = 0; f < r->n_filters; f++) {
        BAL_TRY(put_metric(out, "exact_match", r->filters[f].filter, r->filters[f].mean));
        BAL_TRY(put_metric(out, "exact_match_stderr", r->filters[f].filter, r->filters[f].stderr_mean));
    }
    BAL_TRY(bal_buf_text(out, "}"));
out:
    return status;
}

static bal_status put_config(bal_buf *out, const task_result *r)
{
    const task *t = r->task;
    bal_status status;
    BAL_TRY(bal_buf_printf(out,
                           "{\"task\": \"%s\", \"output_type\": \"generate_until\", \"num_fewshot\": %zu, "
                           "\"doc_to_text\": ",
                           t->name, t->num_fewshot));
    BAL_TRY(bal_json_put_text(out, t->prompt));
    BAL_TRY(bal_buf_text(out, ", \"doc_to_target\": "));
    BAL_TRY(bal_json_put_text(out, t->target));
    BAL_TRY(bal_buf_text(out, ", \"target_delimiter\": "));
    BAL_TRY(bal_json_put_text(out, t->target_delimiter));
    BAL_TRY(bal_buf_text(out, ", \"fewshot_delimiter\": "));
    BAL_TRY(bal_json_put_text(out, t->fewshot_delimiter));
    BAL_TRY(bal_buf_text(out, ", \"generation_kwargs\": {\"until\": ["));
    for (size_t i = 0; i < t->n_until; i++) {
        BAL_TRY(bal_buf_text(out, i == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_text(out, t->until[i]));
    }
    BAL_TRY(bal_buf_printf(out,
                           "], \"do_sample\": false, \"temperature\": 0.0, \"max_gen_toks\": %zu}, \"metadata\": "
                           "{\"version\": %.1f}}",
                           t->max_gen_toks, t->version));
out:
    return status;
}

static bal_status put_version(bal_buf *out, const task_result *r)
{
    return bal_buf_printf(out, "%.1f", r->task->version);
}

static bal_status put_shots(bal_buf *out, const task_result *r)
{
    return bal_buf_printf(out, "%zu", r->task->num_fewshot);
}

static bal_status put_better(bal_buf *out, const task_result *r)
{
    (void)r;
    return bal_buf_text(out, "{\"exact_match\": true}");
}

static bal_status put_samples(bal_buf *out, const task_result *r)
{
    return bal_buf_printf(out, "{\"original\": %zu, \"effective\": %zu}", r->n_original, r->n_items);
}

/* What lm-eval has no place for. */
static bal_status put_more(bal_buf *out, const task_result *r)
{
    bal_status status;
    double n = (double)r->n_items;
    BAL_TRY(bal_buf_text(out, "{\"empty_share\": "));
    BAL_TRY(bal_json_put_f64(out, (double)r->n_empty / n));
    BAL_TRY(bal_buf_text(out, ", \"truncated_share\": "));
    BAL_TRY(bal_json_put_f64(out, (double)r->n_cut / n));
    BAL_TRY(bal_buf_printf(out, ", \"data_sha256\": \"%s\"", r->task->test_sha256));
    for (size_t f = 0; f < r->n_filters; f++) {
        const filter_result *x = &r->filters[f];
        BAL_TRY(put_metric(out, "extraction_failure_share", x->filter, (double)x->n_failed / n));
        BAL_TRY(put_metric(out, "exact_match_wilson_low", x->filter, x->low));
        BAL_TRY(put_metric(out, "exact_match_wilson_high", x->filter, x->high));
    }
    BAL_TRY(bal_buf_text(out, "}"));
out:
    return status;
}

bal_status report_json(bal_buf *out, const task_result *r, size_t n, const char *config, const char *run_uuid,
                       double seconds)
{
    static const struct {
        const char *key;
        bal_status (*put)(bal_buf *out, const task_result *r);
    } parts[] = {{"results", put_results}, {"configs", put_config},          {"versions", put_version},
                 {"n-shot", put_shots},    {"higher_is_better", put_better}, {"n-samples", put_samples},
                 {"balora", put_more}};
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{"));
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        BAL_TRY(bal_buf_printf(out, "%s\n\"%s\": {", p == 0 ? "" : ",", parts[p].key));
        for (size_t i = 0; i < n; i++) {
            BAL_TRY(bal_buf_printf(out, "%s\n  \"%s\": ", i == 0 ? "" : ",", r[i].task->name));
            BAL_TRY(parts[p].put(out, &r[i]));
        }
        BAL_TRY(bal_buf_text(out, "\n}"));
    }
    BAL_TRY(bal_buf_printf(out, ",\n\"config\": %s,\n\"run_id\": \"%s\",\n\"total_evaluation_time_seconds\": ", config,
                           run_uuid));
    BAL_TRY(bal_json_put_f64(out, seconds));
    BAL_TRY(bal_buf_text(out, "\n}\n"));
out:
    return status;
}

static bal_status table_row(bal_buf *out, const task_result *r, const filter_result *f, bool first)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "|%s|", first ? r->task->name : ""));
    if (first)
        BAL_TRY(bal_buf_printf(out, "%g|", r->task->version));
    else
        BAL_TRY(bal_buf_text(out, "|"));
    BAL_TRY(bal_buf_printf(out, "%s|%zu|exact_match|\xe2\x86\x91|%.4f|\xc2\xb1|", f->filter, r->task->num_fewshot,
                           f->mean));
    if (isfinite(f->stderr_mean))
        BAL_TRY(bal_buf_printf(out, "%.4f|", f->stderr_mean));
    else
        BAL_TRY(bal_buf_text(out, "N/A|"));
    BAL_TRY(bal_buf_printf(out, "[%.4f, %.4f]|%zu|\n", f->low, f->high, f->n));
out:
    return status;
}

bal_status report_table(bal_buf *out, const task_result *r, size_t n)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "|Tasks|Version|Filter|n-shot|Metric| |Value| |Stderr|Wilson 95 %|n|\n"
                              "|---|---:|---|---:|---|---|---:|---|---:|---|---:|\n"));
    for (size_t i = 0; i < n; i++)
        for (size_t f = 0; f < r[i].n_filters; f++)
            BAL_TRY(table_row(out, &r[i], &r[i].filters[f], f == 0));
    BAL_TRY(bal_buf_text(out, "\n"));
    for (size_t i = 0; i < n; i++) {
        double items = (double)r[i].n_items / 100;
        BAL_TRY(bal_buf_printf(
            out, "%s: %.1f %% of the outputs empty, %.1f %% ended by the limit of %zu tokens; nothing extracted:",
            r[i].task->name, (double)r[i].n_empty / items, (double)r[i].n_cut / items, r[i].task->max_gen_toks));
        for (size_t f = 0; f < r[i].n_filters; f++)
            BAL_TRY(bal_buf_printf(out, "%s %.1f %% (%s)", f == 0 ? "" : ",", (double)r[i].filters[f].n_failed / items,
                                   r[i].filters[f].filter));
        BAL_TRY(bal_buf_text(out, "\n"));
    }
out:
    return status;
}

static bal_status put_hash(bal_buf *out, const char *key, const char *text, size_t n)
{
    char hex[65];
    bal_sha256_hex(text, n, hex);
    return bal_buf_printf(out, ", \"%s\": \"%s\"", key, hex);
}

static const char *column(sqlite3_stmt *st, int i)
{
    const unsigned char *text = sqlite3_column_text(st, i);
    return text == NULL ? "" : (const char *)text;
}

static bal_status sample_line(bal_buf *out, const task *t, size_t item, const bal_buf *prompt, sqlite3_stmt *st)
{
    bal_buf target = {0}, doc = {0};
    bal_status status;
    BAL_TRY(task_target(t, item, &target));
    BAL_TRY(bal_json_put(&doc, t->test.items[item], false));
    BAL_TRY(bal_buf_printf(out, "{\"doc_id\": %zu, \"doc\": %s, \"target\": ", item, bal_buf_cstr(&doc)));
    BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(&target), target.len));
    BAL_TRY(bal_buf_text(out, ", \"arguments\": {\"gen_args_0\": {\"arg_0\": "));
    BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(prompt), prompt->len));
    BAL_TRY(bal_buf_text(out, ", \"arg_1\": {\"until\": ["));
    for (size_t i = 0; i < t->n_until; i++) {
        BAL_TRY(bal_buf_text(out, i == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_text(out, t->until[i]));
    }
    BAL_TRY(bal_buf_printf(out,
                           "], \"do_sample\": false, \"temperature\": 0.0, \"max_gen_toks\": %zu}}}, \"resps\": [[",
                           t->max_gen_toks));
    BAL_TRY(bal_json_put_text(out, column(st, 1)));
    BAL_TRY(bal_buf_text(out, "]], \"filtered_resps\": ["));
    if (sqlite3_column_type(st, 2) == SQLITE_NULL)
        BAL_TRY(bal_buf_text(out, "null"));
    else
        BAL_TRY(bal_json_put_text(out, column(st, 2)));
    BAL_TRY(bal_buf_printf(out, "], \"filter\": \"%s\", \"metrics\": [\"exact_match\"]", column(st, 0)));
    BAL_TRY(put_hash(out, "doc_hash", bal_buf_cstr(&doc), doc.len));
    BAL_TRY(put_hash(out, "prompt_hash", bal_buf_cstr(prompt), prompt->len));
    BAL_TRY(put_hash(out, "target_hash", bal_buf_cstr(&target), target.len));
    BAL_TRY(bal_buf_printf(out, ", \"finish_reason\": \"%s\", \"output_tokens\": %lld, \"exact_match\": %.1f}\n",
                           column(st, 4), (long long)sqlite3_column_int64(st, 5), sqlite3_column_double(st, 3)));
out:
    bal_buf_dispose(&target);
    bal_buf_dispose(&doc);
    return status;
}

bal_status report_samples(const char *dir, const task_result *r, bal_store *s, int64_t run, const bal_buf *prompts)
{
    char path[1024];
    bal_writer w = {0};
    bal_buf line = {0};
    sqlite3_stmt *st = NULL;
    bool row = true;
    bal_status status;
    BAL_TRY(bal_folder_make(dir));
    (void)snprintf(path, sizeof path, "%.900s/samples_%s.jsonl", dir, r->task->name);
    BAL_TRY(bal_writer_open(&w, path));
    BAL_TRY(
        bal_store_prepare(s,
                          "SELECT filter, output, extracted, score, finish_reason, output_tokens, item FROM eval_item "
                          "WHERE run_id = ?1 AND task = ?2 AND repeat = 0 AND item < ?3 ORDER BY item, filter DESC",
                          &st));
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_text(st, 2, r->task->name, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(st, 3, (int64_t)r->n_items);
    for (;;) {
        BAL_TRY(bal_store_step(s, st, &row));
        if (!row)
            break;
        size_t item = (size_t)sqlite3_column_int64(st, 6);
        bal_buf_clear(&line);
        BAL_TRY(sample_line(&line, r->task, item, &prompts[item], st));
        BAL_TRY(bal_writer_write(&w, line.data, line.len));
    }
    status = bal_writer_commit(&w);
out:
    (void)sqlite3_finalize(st);
    bal_writer_abort(&w);
    bal_buf_dispose(&line);
    return status;
}
