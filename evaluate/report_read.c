/* The rows of a task, its figures, and what is noteworthy about its outputs.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/report.h"

#include "lib/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEAT_TIMES = 3, REPEAT_BYTES = 48 };

bool report_is_repeated(const char *text)
{
    size_t n = strlen(text);
    bool repeated = false;
    while (n > 0 && strchr(" \n\r\t", text[n - 1]) != NULL)
        n--;
    if (n > 65536) { /* the end decides */
        text += n - 65536;
        n = 65536;
    }
    if (n < REPEAT_BYTES)
        return false;
    /* Border lengths of the reversed text (Knuth, Morris, Pratt): its prefix of length k has the period k - border. */
    uint32_t *border = bal_alloc(n + 1, sizeof *border);
    for (size_t k = 1, b = 0; border != NULL && k < n && !repeated; k++) {
        while (b > 0 && text[n - 1 - k] != text[n - 1 - b])
            b = border[b];
        if (text[n - 1 - k] == text[n - 1 - b])
            b++;
        border[k + 1] = (uint32_t)b;
        size_t length = k + 1, period = length - b;
        repeated = length >= REPEAT_BYTES && length >= REPEAT_TIMES * period;
    }
    bal_free(border);
    return repeated;
}

static char *copy(sqlite3_stmt *st, int column)
{
    const char *text = (const char *)sqlite3_column_text(st, column);
    return text == NULL ? NULL : bal_strdup(text);
}

static bal_status read_filter(task_result *out, bal_store *s, int64_t run, size_t f, const char *filter, size_t want)
{
    const task_run *r = out->r;
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status;
    out->records[f] = bal_alloc(want, sizeof *out->records[f]);
    if (out->records[f] == NULL)
        return BAL_ENOMEM;
    BAL_TRY(bal_store_prepare(s,
                              "SELECT item, repeat, output, extracted, score, finish_reason, prompt_tokens, "
                              "output_tokens FROM eval_item WHERE run_id = ?1 AND task = ?2 AND filter = ?3 "
                              "ORDER BY item, repeat",
                              &st));
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_text(st, 2, r->task.name, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_text(st, 3, filter, -1, SQLITE_TRANSIENT);
    for (;;) {
        BAL_TRY(bal_store_step(s, st, &row));
        if (!row)
            break;
        size_t item = (size_t)sqlite3_column_int64(st, 0), repeat = (size_t)sqlite3_column_int64(st, 1);
        if (item >= r->n_items || !r->items[item].chosen || repeat >= r->task.repeats || out->n_records[f] == want)
            continue;
        record *x = &out->records[f][out->n_records[f]++];
        *x = (record){.item = item,
                      .repeat = repeat,
                      .output = copy(st, 2),
                      .extracted = copy(st, 3),
                      .finish_reason = copy(st, 5),
                      .score = sqlite3_column_double(st, 4),
                      .prompt_tokens = (size_t)sqlite3_column_int64(st, 6),
                      .output_tokens = (size_t)sqlite3_column_int64(st, 7)};
        out->n_timed_out += x->extracted != NULL && strncmp(x->extracted, "timed out", 9) == 0;
        out->n_outside += x->extracted != NULL && strncmp(x->extracted, "failed: killed from outside", 27) == 0;
        if (x->output == NULL && (x->output = bal_strdup("")) == NULL)
            status = BAL_ENOMEM;
        out->n_failed[f] += x->extracted == NULL || strcmp(x->extracted, "[invalid]") == 0 ||
                            strncmp(x->extracted, "[no verdict", 11) == 0;
        if (status != BAL_OK)
            goto out;
    }
    if (out->n_records[f] != want)
        status =
            bal_fail(BAL_EIO, "task '%s' has %zu of %zu outputs in the store", r->task.name, out->n_records[f], want);
out:
    (void)sqlite3_finalize(st);
    return status;
}

static void note_outputs(task_result *out)
{
    output_notes *o = &out->notes;
    double tokens = 0;
    o->n = out->n_records[0];
    for (size_t i = 0; i < o->n; i++) {
        const record *x = &out->records[0][i];
        o->n_empty += x->output[strspn(x->output, " \n\r\t")] == '\0';
        o->n_cut += x->finish_reason != NULL && strcmp(x->finish_reason, "length") == 0;
        o->n_repeated += report_is_repeated(x->output);
        tokens += (double)x->output_tokens;
    }
    o->mean_tokens = o->n == 0 ? 0 : tokens / (double)o->n;
}

bal_status report_read(task_result *out, bal_store *s, int64_t run, const task_run *r)
{
    size_t want = r->n_chosen * (r->task.scorer->kind == SCORER_GENERATE ? r->task.repeats : 1);
    const scorer *how = r->task.scorer;
    bal_status status = BAL_OK;
    *out = (task_result){.r = r};
    for (size_t f = 0; f < REPORT_MAX_FILTERS && how->filter(&r->task, f) != NULL; f++) {
        out->n_filters = f + 1;
        BAL_TRY(read_filter(out, s, run, f, how->filter(&r->task, f), want));
        BAL_TRY(how->measure(&r->task, f, out->records[f], out->n_records[f], &out->metrics));
    }
    if (how->kind == SCORER_GENERATE)
        note_outputs(out);
out:
    return status;
}

void task_result_dispose(task_result *r)
{
    for (size_t f = 0; f < r->n_filters; f++) {
        for (size_t i = 0; r->records[f] != NULL && i < r->n_records[f]; i++) {
            bal_free(r->records[f][i].output);
            bal_free(r->records[f][i].extracted);
            bal_free(r->records[f][i].finish_reason);
        }
        bal_free(r->records[f]);
    }
    metric_list_dispose(&r->metrics);
    *r = (task_result){0};
}
