/* What the outputs of evaluated runs look like: shares that tell of trouble, the five worst and five random samples of
 * every task that generates.  SPDX-License-Identifier: Apache-2.0 */
#include "reports/report.h"

#include <stdio.h>
#include <string.h>

/* One filter stands for a task: its outputs are the same under all. */
#define OUTPUTS                                                                                                        \
    "FROM eval_item AS e WHERE run_id = ?1 AND finish_reason IS NOT NULL AND finish_reason <> 'score' AND filter = "   \
    "(SELECT min(filter) FROM eval_item WHERE run_id = e.run_id AND task = e.task) "

static const char k_notes[] =
    "SELECT task, count(*), 100.0 * avg(trim(output, ' ' || char(9, 10, 13)) = ''), "
    "100.0 * avg(finish_reason = 'length'), 100.0 * avg(extracted IS NULL OR extracted = '[invalid]'), "
    "avg(output_tokens) " OUTPUTS "GROUP BY task ORDER BY task";
static const char k_tasks[] = "SELECT DISTINCT task " OUTPUTS "ORDER BY task";
static const char k_worst[] =
    "SELECT item, score, gold, extracted, output " OUTPUTS
    "AND task = ?2 ORDER BY score, finish_reason = 'length' DESC, length(output) DESC, item LIMIT 5";
/* The order of a multiplicative hash of the item: the same samples each time. */
static const char k_random[] = "SELECT item, score, gold, extracted, output " OUTPUTS
                               "AND task = ?2 ORDER BY item * 2654435761 % 4294967296, repeat LIMIT 5";

static const char *text_of(sqlite3_stmt *q, int column)
{
    const char *text = (const char *)sqlite3_column_text(q, column);
    return text == NULL ? "" : text;
}

/* The end of a text, where its answer is, on one line. */
static void put_end(const char *text, char out[REPORT_CELL])
{
    enum { SHOWN = 80 };
    size_t n = strlen(text), from = n > SHOWN ? n - SHOWN : 0;
    while (from > 0 && from < n && ((unsigned char)text[from] & 0xc0U) == 0x80U)
        from++;
    (void)snprintf(out, REPORT_CELL, "%s%s", from > 0 ? "…" : "", text + from);
    for (char *c = out; *c != '\0'; c++)
        if ((unsigned char)*c < ' ')
            *c = ' ';
}

static bal_status add_notes(report *r, report_table **t)
{
    static const char *const head[] = {"name", "task", "n", "empty %", "cut %", "nothing extracted %", "mean tokens"};
    sqlite3_stmt *q = NULL;
    bool row = false;
    bal_status status;
    BAL_TRY(bal_store_prepare(r->store, k_notes, &q));
    for (size_t i = 0; i < r->n_runs; i++) {
        (void)sqlite3_reset(q);
        (void)sqlite3_bind_int64(q, 1, r->runs[i].id);
        while ((status = bal_store_step(r->store, q, &row)) == BAL_OK && row) {
            char text[7][REPORT_CELL];
            const char *cells[7];
            if (*t == NULL) {
                *t = report_table_new(r, "outputs", "Outputs",
                                      "Empty outputs, outputs ended by the limit of tokens, outputs out of which "
                                      "nothing was read (under one filter), and their mean length.",
                                      7);
                BAL_TRY(*t == NULL ? bal_fail(BAL_ELIMIT, "too many tables") : report_table_row(*t, head));
            }
            (void)snprintf(text[0], REPORT_CELL, "%s", r->runs[i].name);
            (void)snprintf(text[1], REPORT_CELL, "%s", text_of(q, 0));
            (void)snprintf(text[2], REPORT_CELL, "%lld", (long long)sqlite3_column_int64(q, 1));
            for (int k = 2; k < 6; k++)
                (void)snprintf(text[k + 1], REPORT_CELL, "%.1f", sqlite3_column_double(q, k));
            for (size_t k = 0; k < 7; k++)
                cells[k] = text[k];
            BAL_TRY(report_table_row(*t, cells));
        }
        if (status != BAL_OK)
            goto out;
    }
out:
    (void)sqlite3_finalize(q);
    return status;
}

static bal_status add_samples(report *r, report_table **t, const report_run *run, const char *task, const char *sql,
                              const char *kind)
{
    static const char *const head[] = {"name", "task", "sample", "item", "score", "right", "read", "end of the output"};
    sqlite3_stmt *q = NULL;
    bool row = false;
    bal_status status;
    BAL_TRY(bal_store_prepare(r->store, sql, &q));
    (void)sqlite3_bind_int64(q, 1, run->id);
    (void)sqlite3_bind_text(q, 2, task, -1, SQLITE_TRANSIENT);
    while ((status = bal_store_step(r->store, q, &row)) == BAL_OK && row) {
        char text[4][REPORT_CELL], item[32], score[32];
        if (*t == NULL) {
            *t = report_table_new(r, "samples", "Samples",
                                  "The five worst outputs of each task (lowest score; then cut, then longest) and five "
                                  "random ones; `balora evaluate --log-samples` writes all of them whole.",
                                  8);
            BAL_TRY(*t == NULL ? bal_fail(BAL_ELIMIT, "too many tables") : report_table_row(*t, head));
        }
        (void)snprintf(item, sizeof item, "%lld", (long long)sqlite3_column_int64(q, 0));
        (void)snprintf(score, sizeof score, "%.3g", sqlite3_column_double(q, 1));
        for (int k = 2; k < 5; k++)
            put_end(text_of(q, k), text[k - 1]);
        const char *const cells[] = {run->name, task, kind, item, score, text[1], text[2], text[3]};
        BAL_TRY(report_table_row(*t, cells));
    }
out:
    (void)sqlite3_finalize(q);
    return status;
}

bal_status report_sample_table(report *r)
{
    report_table *notes = NULL, *samples = NULL;
    sqlite3_stmt *q = NULL;
    bool row = false;
    bal_status status;
    BAL_TRY(add_notes(r, &notes));
    if (notes != NULL)
        BAL_TRY(report_table_write(r, notes));
    BAL_TRY(bal_store_prepare(r->store, k_tasks, &q));
    for (size_t i = 0; i < r->n_runs; i++) {
        (void)sqlite3_reset(q);
        (void)sqlite3_bind_int64(q, 1, r->runs[i].id);
        while ((status = bal_store_step(r->store, q, &row)) == BAL_OK && row) {
            char task[128];
            (void)snprintf(task, sizeof task, "%s", text_of(q, 0));
            BAL_TRY(add_samples(r, &samples, &r->runs[i], task, k_worst, "worst"));
            BAL_TRY(add_samples(r, &samples, &r->runs[i], task, k_random, "random"));
        }
        if (status != BAL_OK)
            goto out;
    }
    if (samples != NULL)
        status = report_table_write(r, samples);
out:
    (void)sqlite3_finalize(q);
    return status;
}
