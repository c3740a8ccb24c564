/* Perplexity of texts: every token but the first of each text is scored given what precedes it; a text longer than the
 * model's context is cut into windows of full length, whose first input is the last token before them.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const size_t k_max_text = (size_t)1 << 30;

typedef struct text_entry {
    bal_ids ids;
    double *nll; /* ids.n - 1 values */
} text_entry;

typedef struct window {
    size_t text, first; /* the first scored token */
} window;

typedef struct texts {
    text_entry *entries;
    size_t n, cap, n_windows;
    bal_request *requests;
    window *windows;
    bal_progress progress;
    size_t done;
} texts;

static bal_status next_entry(texts *t, text_entry **out)
{
    if (t->n == t->cap) {
        size_t cap = t->cap == 0 ? 16 : 2 * t->cap;
        text_entry *grown = bal_realloc(t->entries, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        t->entries = grown;
        t->cap = cap;
    }
    *out = &t->entries[t->n++];
    **out = (text_entry){0};
    return BAL_OK;
}

static bal_status add_object(texts *t, const bal_bundle *b, const cJSON *json, const char *where)
{
    const char *text = NULL;
    bool found = false;
    text_entry *e = NULL;
    const cJSON *ids = bal_json_member(json, "ids");
    bal_status status;
    if (ids == NULL)
        ids = bal_json_member(json, "input_ids");
    if (ids != NULL && cJSON_IsArray(ids->child)) { /* a list of texts */
        const cJSON *row = NULL;
        cJSON_ArrayForEach(row, ids)
        {
            BAL_TRY(next_entry(t, &e));
            BAL_TRY(evaluate_read_ids(row, where, "input_ids", &e->ids));
        }
        return BAL_OK;
    }
    BAL_TRY(next_entry(t, &e));
    if (ids != NULL) {
        status = evaluate_read_ids(ids, where, "ids", &e->ids);
        goto out;
    }
    BAL_TRY(bal_json_text(json, where, "text", &text, &found));
    if (!found) {
        status = bal_fail(BAL_EFORMAT, "%s: 'text', 'ids' or 'input_ids' is needed", where);
        goto out;
    }
    status = bal_bundle_prompt(b, text, strlen(text), &e->ids);
out:
    return status;
}

static bal_status read_lines(texts *t, const bal_bundle *b, const char *path)
{
    bal_lines *lines = NULL;
    cJSON *json = NULL;
    char where[512];
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, path));
    for (;;) {
        BAL_TRY(bal_jsonl_next(lines, &json));
        if (json == NULL)
            break;
        (void)snprintf(where, sizeof where, "%.400s, line %zu", path, bal_lines_number(lines));
        BAL_TRY(add_object(t, b, json, where));
        cJSON_Delete(json);
        json = NULL;
    }
out:
    cJSON_Delete(json);
    bal_lines_close(lines);
    return status;
}

/* .jsonl: a text or ids a line; .json: one object; anything else is one text. */
static bal_status read_texts(texts *t, const bal_bundle *b, const char *path)
{
    bal_buf text = {0};
    cJSON *json = NULL;
    text_entry *e = NULL;
    bal_status status;
    if (bal_ends_with(path, ".jsonl") || bal_ends_with(path, ".jsonl.gz"))
        return read_lines(t, b, path);
    if (bal_ends_with(path, ".json")) {
        BAL_TRY(bal_json_read(&json, path, k_max_text));
        status = add_object(t, b, json, path);
        goto out;
    }
    BAL_TRY(bal_file_read(path, k_max_text, &text));
    BAL_TRY(next_entry(t, &e));
    status = bal_bundle_prompt(b, bal_buf_cstr(&text), text.len, &e->ids);
out:
    cJSON_Delete(json);
    bal_buf_dispose(&text);
    return status;
}

static bal_status cut_windows(texts *t, size_t length)
{
    size_t n = 0;
    for (size_t i = 0; i < t->n; i++) {
        size_t scored = t->entries[i].ids.n == 0 ? 0 : t->entries[i].ids.n - 1;
        n += (scored + length - 1) / length;
        t->entries[i].nll = bal_alloc(scored + 1, sizeof *t->entries[i].nll);
        if (t->entries[i].nll == NULL)
            return BAL_ENOMEM;
    }
    t->requests = bal_alloc(n, sizeof *t->requests);
    t->windows = bal_alloc(n, sizeof *t->windows);
    if (t->requests == NULL || t->windows == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < t->n; i++) {
        const bal_ids *ids = &t->entries[i].ids;
        for (size_t first = 1; first < ids->n; first += length) {
            size_t count = ids->n - first < length ? ids->n - first : length;
            t->windows[t->n_windows] = (window){i, first};
            t->requests[t->n_windows++] = (bal_request){.kind = BAL_REQUEST_SCORE,
                                                        .prompt = ids->data + first - 1,
                                                        .n_prompt = 1,
                                                        .continuation = ids->data + first,
                                                        .n_continuation = count};
        }
    }
    return BAL_OK;
}

static bal_status on_answer(void *context, size_t i, const bal_answer *a)
{
    texts *t = context;
    const window *w = &t->windows[i];
    memcpy(t->entries[w->text].nll + w->first - 1, a->nll, t->requests[i].n_continuation * sizeof *a->nll);
    bal_progress_update(&t->progress, ++t->done, NULL);
    return BAL_OK;
}

/* "tokens": n, "scored": n - 1, "sum_nll", "mean_nll", "perplexity" */
static bal_status put_summary(bal_buf *out, size_t tokens, size_t scored, double sum)
{
    double mean = scored == 0 ? (double)NAN : sum / (double)scored;
    const double values[] = {sum, mean, exp(mean)};
    static const char *const names[] = {"sum_nll", "mean_nll", "perplexity"};
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "\"tokens\": %zu, \"scored\": %zu", tokens, scored));
    for (size_t i = 0; i < 3; i++) {
        BAL_TRY(bal_buf_printf(out, ", \"%s\": ", names[i]));
        BAL_TRY(bal_json_put_f64(out, values[i]));
    }
out:
    return status;
}

static bal_status report(const texts *t, const evaluate_config *c, const bal_common *common)
{
    bal_buf rows = {0}, out = {0};
    double total = 0;
    size_t tokens = 0, scored = 0;
    bal_status status;
    BAL_TRY(bal_buf_text(&out, "{\"texts\": ["));
    for (size_t i = 0; i < t->n; i++) {
        const text_entry *e = &t->entries[i];
        size_t n = e->ids.n == 0 ? 0 : e->ids.n - 1;
        double sum = 0;
        BAL_TRY(bal_buf_text(&rows, "{\"nll\": ["));
        for (size_t k = 0; k < n; k++) {
            sum += e->nll[k];
            BAL_TRY(bal_buf_text(&rows, k == 0 ? "" : ", "));
            BAL_TRY(bal_json_put_f64(&rows, e->nll[k]));
        }
        BAL_TRY(bal_buf_text(&rows, "], "));
        BAL_TRY(put_summary(&rows, e->ids.n, n, sum));
        BAL_TRY(bal_buf_text(&rows, "}\n"));
        BAL_TRY(bal_buf_text(&out, i == 0 ? "\n  {" : ",\n  {"));
        BAL_TRY(put_summary(&out, e->ids.n, n, sum));
        BAL_TRY(bal_buf_text(&out, "}"));
        total += sum;
        tokens += e->ids.n;
        scored += n;
    }
    BAL_TRY(bal_buf_text(&out, "\n], "));
    BAL_TRY(put_summary(&out, tokens, scored, total));
    BAL_TRY(bal_buf_text(&out, "}\n"));
    if (c->out != NULL)
        BAL_TRY(evaluate_write(c->out, &rows));
    if (c->document != NULL)
        status = bal_buf_append(c->document, out.data, out.len);
    else if (common->json)
        (void)fputs(out.data, stdout);
    else if (c->out == NULL || strcmp(c->out, "-") != 0)
        printf("perplexity %.6g (mean negative log-likelihood %.6g over %zu tokens of %zu texts)\n",
               exp(total / (double)(scored == 0 ? 1 : scored)), total / (double)(scored == 0 ? 1 : scored), scored,
               t->n);
out:
    bal_buf_dispose(&rows);
    bal_buf_dispose(&out);
    return status;
}

bal_status evaluate_perplexity(const evaluate_config *c, const bal_common *common, const bal_bundle *b)
{
    texts t = {0};
    bal_status status;
    bal_engine_options o = evaluate_engine(c, b);
    size_t length = b->model->config.max_positions;
    o.context = &t;
    o.answer = on_answer;
    if (o.max_length != 0 && o.max_length < length)
        length = o.max_length;
    BAL_TRY(read_texts(&t, b, c->perplexity));
    BAL_TRY(cut_windows(&t, length));
    if (t.n_windows == 0) {
        status = bal_fail(BAL_EFORMAT, "%s: there is no token to score; a text needs at least two", c->perplexity);
        goto out;
    }
    bal_progress_start(&t.progress, &common->log, "perplexity", "windows", t.n_windows, common->progress);
    BAL_TRY(bal_engine_run(b->model, &o, t.requests, t.n_windows, NULL));
    bal_progress_done(&t.progress);
    status = report(&t, c, common);
out:
    for (size_t i = 0; i < t.n; i++) {
        bal_ids_dispose(&t.entries[i].ids);
        bal_free(t.entries[i].nll);
    }
    bal_free(t.entries);
    bal_free(t.requests);
    bal_free(t.windows);
    return status;
}
