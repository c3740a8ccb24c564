/* Tables: text cells, written as Markdown, CSV and LaTeX.  SPDX-License-Identifier: Apache-2.0 */
#include "reports/report.h"

#include "lib/base/mem.h"

#include <math.h>
#include <string.h>

report_table *report_table_new(report *r, const char *stem, const char *title, const char *caption, size_t n_columns)
{
    if (r->n_tables == REPORT_MAX_TABLES || n_columns > REPORT_MAX_COLUMNS)
        return NULL;
    report_table *t = &r->tables[r->n_tables++];
    *t = (report_table){stem, title, caption, n_columns, 0, NULL};
    return t;
}

bal_status report_table_row(report_table *t, const char *const *cells)
{
    void *more = bal_realloc(t->cells, (t->n_rows + 1) * t->n_columns, sizeof *t->cells);
    if (more == NULL)
        return BAL_ENOMEM;
    t->cells = more;
    for (size_t i = 0; i < t->n_columns; i++)
        (void)snprintf(t->cells[t->n_rows * t->n_columns + i], REPORT_CELL, "%s", cells[i]);
    t->n_rows++;
    return BAL_OK;
}

void report_dispose(report *r)
{
    for (size_t i = 0; i < r->n_tables; i++)
        bal_free(r->tables[i].cells);
    r->n_tables = 0;
}

typedef enum table_form { FORM_MARKDOWN, FORM_CSV, FORM_LATEX } table_form;

static bal_status put_cell(bal_writer *w, const char *text, table_form form)
{
    bal_status status = BAL_OK;
    bool quote = form == FORM_CSV && strpbrk(text, ",\"\n") != NULL;
    if (quote)
        (void)bal_writer_write(w, "\"", 1);
    for (const char *c = text; *c != '\0'; c++) {
        if (form == FORM_LATEX && strchr("&%$#_{}", *c) != NULL)
            (void)bal_writer_write(w, "\\", 1);
        else if (form == FORM_LATEX && strchr("\\~^", *c) != NULL)
            continue;
        else if (form == FORM_MARKDOWN && strchr("|*_`<", *c) != NULL)
            (void)bal_writer_write(w, "\\", 1);
        else if (quote && *c == '"')
            (void)bal_writer_write(w, "\"", 1);
        status = bal_writer_write(w, *c == '\n' && form != FORM_CSV ? " " : c, 1);
    }
    return quote ? bal_writer_write(w, "\"", 1) : status;
}

static bal_status write_form(const report *r, const report_table *t, table_form form)
{
    static const char *const endings[] = {".md", ".csv", ".tex"}, *const begins[] = {"| ", "", ""},
                             *const betweens[] = {" | ", ",", " & "}, *const ends[] = {" |\n", "\n", " \\\\\n"};
    char name[96];
    bal_writer w = {0};
    (void)snprintf(name, sizeof name, "%s%s", t->stem, endings[form]);
    char *path = bal_path_join(r->out, name);
    bal_status status = path == NULL ? BAL_ENOMEM : bal_writer_open(&w, path);
    bal_free(path);
    if (status != BAL_OK)
        return status;
    if (form == FORM_LATEX)
        (void)bal_writer_printf(&w, "\\begin{tabular}{l%.*s}\n\\hline\n", (int)t->n_columns - 1,
                                "rrrrrrrrrrrrrrrrrrrrrrrr");
    for (size_t i = 0; i < t->n_rows; i++) {
        (void)bal_writer_printf(&w, "%s", begins[form]);
        for (size_t j = 0; j < t->n_columns; j++) {
            (void)put_cell(&w, t->cells[i * t->n_columns + j], form);
            (void)bal_writer_printf(&w, "%s", j + 1 < t->n_columns ? betweens[form] : ends[form]);
        }
        if (i == 0 && form == FORM_MARKDOWN)
            for (size_t j = 0; j < t->n_columns; j++)
                (void)bal_writer_printf(&w, "%s%s", j == 0 ? "|---|" : "---:|", j + 1 < t->n_columns ? "" : "\n");
        if (i == 0 && form == FORM_LATEX)
            (void)bal_writer_printf(&w, "\\hline\n");
    }
    if (form == FORM_LATEX)
        (void)bal_writer_printf(&w, "\\hline\n\\end{tabular}\n");
    return bal_writer_commit(&w);
}

bal_status report_table_write(const report *r, const report_table *t)
{
    bal_status status = write_form(r, t, FORM_MARKDOWN);
    if (status == BAL_OK)
        status = write_form(r, t, FORM_CSV);
    return status == BAL_OK ? write_form(r, t, FORM_LATEX) : status;
}

static const char *cell_text(sqlite3_stmt *q, int column, char *out, size_t n)
{
    const char *text = (const char *)sqlite3_column_text(q, column);
    (void)snprintf(out, n, "%s", text != NULL ? text : "");
    return out;
}

bal_status report_run_table(report *r)
{
    static const char *const head[] = {
        "run",  "name",   "kind", "status", "method", "r", "alpha", "lr", "batch", "steps", "lambda cons./div./svd",
        "seed", "seconds"};
    enum { COLUMNS = sizeof head / sizeof head[0] };
    sqlite3_stmt *q = NULL;
    bool row = false;
    bal_status status = BAL_OK;
    report_table *t = report_table_new(
        r, "runs", "Runs", "Every run of this report with its main settings; `balora runs show ID` has all of them.",
        COLUMNS);
    if (t == NULL)
        return bal_fail(BAL_ELIMIT, "too many tables");
    BAL_TRY(report_table_row(t, head));
    static const char sql[] =
        "WITH p AS (SELECT key, text FROM param WHERE run_id = ?1) SELECT run.id, run.name, kind, status, "
        "(SELECT text FROM p WHERE key = 'method'), (SELECT text FROM p WHERE key = 'r'), "
        "(SELECT text FROM p WHERE key = 'lora_alpha'), (SELECT text FROM p WHERE key = 'lr'), "
        "(SELECT text FROM p WHERE key = 'batch_size'), (SELECT text FROM p WHERE key = 'max_steps'), "
        "CASE WHEN kind IN ('train', 'pretrain') THEN (SELECT text FROM p WHERE key = 'lambda_consistency') || ' / ' "
        "|| (SELECT text FROM p WHERE key = 'lambda_diversity') || ' / ' || "
        "(SELECT text FROM p WHERE key = 'lambda_svd') END, run.seed, CASE WHEN end_ms IS NOT NULL THEN "
        "printf('%.1f', (end_ms - start_ms) / 1000.0) END FROM run WHERE run.id = ?1";
    BAL_TRY(bal_store_prepare(r->store, sql, &q));
    for (size_t i = 0; i < r->n_runs; i++) {
        char text[COLUMNS][REPORT_CELL];
        const char *cells[COLUMNS];
        (void)sqlite3_reset(q);
        (void)sqlite3_bind_int64(q, 1, r->runs[i].id);
        BAL_TRY(bal_store_step(r->store, q, &row));
        for (int c = 0; c < COLUMNS && row; c++)
            cells[c] = cell_text(q, c, text[c], sizeof text[c]);
        if (row)
            BAL_TRY(report_table_row(t, cells));
    }
    status = report_table_write(r, t);
out:
    (void)sqlite3_finalize(q);
    return status;
}

/* A table of named metrics: a row for each run that has one of them. */
static bal_status metric_table(report *r, const char *stem, const char *title, const char *caption,
                               const char *const *metrics, const char *const *labels, size_t n)
{
    sqlite3_stmt *q = NULL;
    bool row = false;
    const char *head[REPORT_MAX_COLUMNS] = {"name"};
    report_table *t = NULL;
    bal_status status = bal_store_prepare(r->store,
                                          "SELECT value FROM metric_last JOIN metric_key ON metric_key.id = key_id "
                                          "WHERE run_id = ?1 AND metric_key.name = ?2",
                                          &q);
    if (status != BAL_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        head[i + 1] = labels[i];
    for (size_t i = 0; i < r->n_runs; i++) {
        char text[REPORT_MAX_COLUMNS][REPORT_CELL];
        const char *cells[REPORT_MAX_COLUMNS] = {r->runs[i].name};
        bool any = false;
        for (size_t k = 0; k < n; k++) {
            (void)sqlite3_reset(q);
            (void)sqlite3_bind_int64(q, 1, r->runs[i].id);
            (void)sqlite3_bind_text(q, 2, metrics[k], -1, SQLITE_STATIC);
            BAL_TRY(bal_store_step(r->store, q, &row));
            bool has = row && sqlite3_column_type(q, 0) != SQLITE_NULL;
            (void)snprintf(text[k], sizeof text[k], has ? "%.4g" : "–", has ? sqlite3_column_double(q, 0) : 0.0);
            any = any || row;
            cells[k + 1] = text[k];
        }
        if (!any)
            continue;
        if (t == NULL) {
            t = report_table_new(r, stem, title, caption, n + 1);
            BAL_TRY(t == NULL ? bal_fail(BAL_ELIMIT, "too many tables") : report_table_row(t, head));
        }
        BAL_TRY(report_table_row(t, cells));
    }
    if (t != NULL)
        status = report_table_write(r, t);
out:
    (void)sqlite3_finalize(q);
    return status;
}

bal_status report_diversity_table(report *r)
{
    static const char *const metrics[] = {"diversity/texts",
                                          "diversity/distinct_1",
                                          "diversity/distinct_2",
                                          "diversity/seq_rep_2",
                                          "diversity/self_bleu_4",
                                          "diversity/compression_ratio",
                                          "diversity/self_repetition_4",
                                          "diversity/homogenization_rouge_l",
                                          "diversity/mean_words"};
    static const char *const labels[] = {"texts",       "distinct-1",      "distinct-2", "seq-rep-2", "self-BLEU-4",
                                         "compression", "self-repetition", "ROUGE-L",    "words"};
    return metric_table(r, "diversity", "Diversity of the outputs",
                        "Lower self-BLEU, compression, repetition and ROUGE-L, and higher distinct-n, mean more varied "
                        "outputs. distinct-n falls with length: compare runs with similar numbers of words.",
                        metrics, labels, 9);
}

bal_status report_update_table(report *r)
{
    static const char *const metrics[] = {"spectrum/frobenius", "spectrum/effective_rank"};
    static const char *const labels[] = {"Frobenius norm of the whole update", "mean effective rank"};
    return metric_table(r, "updates", "Updates",
                        "Size is the first-order predictor of forgetting: compare methods at like size before reading "
                        "more into a spectrum.",
                        metrics, labels, 2);
}
