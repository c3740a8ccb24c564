/* Requests from a file: generation and log-likelihood, as text or as token ids.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"
#include "lib/model/decode.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { DEFAULT_NEW_TOKENS = 256, MAX_STOPS = 64 };

/* A request with the memory it points to. */
typedef struct entry {
    bal_ids ids; /* context and continuation, or prompt */
    size_t n_context;
    cJSON *json; /* holds the stop texts */
    const char **stops;
    bal_buf answer;
} entry;

typedef struct queue {
    entry *entries;
    bal_request *requests;
    size_t n, cap;
    const bal_bundle *bundle;
    bal_progress progress;
    size_t done, dropped;
} queue;

bal_engine_options evaluate_engine(const evaluate_config *c, const bal_bundle *b)
{
    size_t bytes = (size_t)c->cache_mib << 20;
    /* a served model has no memory here */
    size_t position = b->model == NULL ? 0 : bal_decoder_position_bytes(b->model);
    size_t of_tokens = (size_t)c->max_batch_tokens * position;
    if (of_tokens > 0 && (bytes == 0 || of_tokens < bytes))
        bytes = of_tokens;
    return (bal_engine_options){.tokenizer = b->tokenizer,
                                .batch = (size_t)c->batch_size,
                                .cache_bytes = bytes,
                                .max_length = (size_t)c->max_length,
                                .compute = strcmp(c->compute, "bf16") == 0 ? BAL_COMPUTE_BF16 : BAL_COMPUTE_F32};
}

bal_status evaluate_read_ids(const cJSON *list, const char *where, const char *key, bal_ids *out)
{
    const cJSON *item = NULL;
    if (!cJSON_IsArray(list))
        return bal_fail(BAL_EFORMAT, "%s: key '%s' must be a list of token ids", where, key);
    cJSON_ArrayForEach(item, list)
    {
        double v = item->valuedouble;
        if (!cJSON_IsNumber(item) || !(v >= 0 && v < 2147483648.0) || v != floor(v))
            return bal_fail(BAL_EFORMAT, "%s: key '%s' holds something else than token ids", where, key);
        bal_status status = bal_ids_append(out, (int32_t)v);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

bal_status evaluate_write(const char *path, const bal_buf *text)
{
    if (path != NULL && strcmp(path, "-") != 0)
        return bal_file_replace(path, bal_buf_cstr(text), text->len);
    (void)fwrite(bal_buf_cstr(text), 1, text->len, stdout);
    return BAL_OK;
}

static bal_status grow(queue *q)
{
    size_t cap = q->cap == 0 ? 64 : 2 * q->cap;
    entry *entries = bal_realloc(q->entries, cap, sizeof *entries);
    if (entries == NULL)
        return BAL_ENOMEM;
    q->entries = entries;
    bal_request *requests = bal_realloc(q->requests, cap, sizeof *requests);
    if (requests == NULL)
        return BAL_ENOMEM;
    q->requests = requests;
    q->cap = cap;
    return BAL_OK;
}

/* The text under key (or ids under key_ids) appended to ids; *text is set for a text. */
static bal_status text_or_ids(const entry *e, const char *where, const char *key, const char *key_ids,
                              const char **text, bal_ids *ids)
{
    bool found = false;
    const cJSON *list = bal_json_member(e->json, key_ids);
    bal_status status = bal_json_text(e->json, where, key, text, &found);
    if (status != BAL_OK)
        return status;
    if (found == (list != NULL))
        return bal_fail(BAL_EFORMAT, "%s: either '%s' or '%s' is needed", where, key, key_ids);
    return list == NULL ? BAL_OK : evaluate_read_ids(list, where, key_ids, ids);
}

static bal_status read_score(const queue *q, entry *e, const char *where, bal_request *r)
{
    const char *context = NULL, *continuation = NULL;
    bal_ids tail = {0};
    bal_status status;
    BAL_TRY(text_or_ids(e, where, "context", "context_ids", &context, &e->ids));
    BAL_TRY(text_or_ids(e, where, "continuation", "continuation_ids", &continuation, &tail));
    if ((context == NULL) != (continuation == NULL)) {
        status = bal_fail(BAL_EFORMAT, "%s: context and continuation must both be texts or both be ids", where);
        goto out;
    }
    e->n_context = e->ids.n;
    if (context != NULL)
        BAL_TRY(bal_bundle_split(q->bundle, context, continuation, &e->ids, &e->n_context));
    for (size_t i = 0; i < tail.n; i++)
        BAL_TRY(bal_ids_append(&e->ids, tail.data[i]));
    *r = (bal_request){.kind = BAL_REQUEST_SCORE,
                       .prompt = e->ids.data,
                       .n_prompt = e->n_context,
                       .continuation = e->ids.data + e->n_context,
                       .n_continuation = e->ids.n - e->n_context};
out:
    bal_ids_dispose(&tail);
    return status;
}

static bal_status read_stops(entry *e, const char *where, bal_request *r)
{
    const cJSON *until = bal_json_member(e->json, "until"), *item = NULL;
    size_t n = 0;
    if (until == NULL)
        return BAL_OK;
    e->stops = bal_alloc(MAX_STOPS, sizeof *e->stops);
    if (e->stops == NULL)
        return BAL_ENOMEM;
    if (cJSON_IsString(until))
        e->stops[n++] = until->valuestring;
    else if (!cJSON_IsArray(until))
        return bal_fail(BAL_EFORMAT, "%s: key 'until' must be a text or a list of texts", where);
    if (cJSON_IsArray(until))
        cJSON_ArrayForEach(item, until)
        {
            if (!cJSON_IsString(item) || n == MAX_STOPS)
                return bal_fail(BAL_EFORMAT, "%s: key 'until' must be at most %d texts", where, MAX_STOPS);
            e->stops[n++] = item->valuestring;
        }
    r->stops = e->stops;
    r->n_stops = n;
    return BAL_OK;
}

static bal_status read_generate(const queue *q, entry *e, const char *where, bal_request *r)
{
    const char *prompt = NULL;
    int64_t max_new = DEFAULT_NEW_TOKENS, seed = 0, top_k = 0;
    double temperature = 0, top_p = 1;
    bal_status status;
    BAL_TRY(text_or_ids(e, where, "prompt", "prompt_ids", &prompt, &e->ids));
    if (prompt != NULL)
        BAL_TRY(bal_bundle_prompt(q->bundle, prompt, strlen(prompt), &e->ids));
    BAL_TRY(bal_json_i64(e->json, where, "max_new_tokens", 0, 1 << 24, &max_new, NULL));
    BAL_TRY(bal_json_i64(e->json, where, "seed", 0, (int64_t)1 << 53, &seed, NULL));
    BAL_TRY(bal_json_i64(e->json, where, "top_k", 0, 1 << 30, &top_k, NULL));
    BAL_TRY(bal_json_f64(e->json, where, "temperature", &temperature, NULL));
    BAL_TRY(bal_json_f64(e->json, where, "top_p", &top_p, NULL));
    *r = (bal_request){.kind = BAL_REQUEST_GENERATE,
                       .prompt = e->ids.data,
                       .n_prompt = e->ids.n,
                       .max_new_tokens = (size_t)max_new,
                       .sampling = {temperature, (size_t)top_k, top_p},
                       .seed = (uint64_t)seed};
    BAL_TRY(bal_json_bool(e->json, where, "ignore_eos", &r->ignore_eos, NULL));
    BAL_TRY(read_stops(e, where, r));
    if (r->n_stops > 0)
        status = bal_bundle_need_tokenizer(q->bundle);
out:
    return status;
}

static bal_status read_queue(queue *q, const char *path)
{
    bal_lines *lines = NULL;
    char where[512];
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, path));
    for (;;) {
        cJSON *json = NULL;
        BAL_TRY(bal_jsonl_next(lines, &json));
        if (json == NULL)
            break;
        if (q->n == q->cap && (status = grow(q)) != BAL_OK) {
            cJSON_Delete(json);
            goto out;
        }
        entry *e = &q->entries[q->n];
        bal_request *r = &q->requests[q->n];
        *e = (entry){.json = json};
        q->n++;
        (void)snprintf(where, sizeof where, "%.400s, line %zu", path, bal_lines_number(lines));
        bool score = bal_json_member(json, "continuation") != NULL || bal_json_member(json, "continuation_ids") != NULL;
        BAL_TRY(score ? read_score(q, e, where, r) : read_generate(q, e, where, r));
        r->stream = q->n - 1;
    }
out:
    bal_lines_close(lines);
    return status;
}

static bal_status put_score(bal_buf *out, const bal_answer *a, size_t n)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"loglikelihood\": "));
    BAL_TRY(bal_json_put_f64(out, a->log_likelihood));
    BAL_TRY(bal_buf_printf(out, ", \"is_greedy\": %s, \"tokens\": %zu, \"token_logprobs\": [",
                           a->is_greedy ? "true" : "false", n));
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(bal_buf_text(out, i == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_f64(out, -a->nll[i]));
    }
    BAL_TRY(bal_buf_text(out, "]}\n"));
out:
    return status;
}

static bal_status put_generated(bal_buf *out, const bal_answer *a, bool has_text)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"text\": "));
    if (has_text)
        BAL_TRY(bal_json_put_textn(out, a->text, a->n_text));
    else
        BAL_TRY(bal_buf_text(out, "null"));
    BAL_TRY(bal_buf_text(out, ", \"ids\": ["));
    for (size_t i = 0; i < a->n_ids; i++)
        BAL_TRY(bal_buf_printf(out, "%s%d", i == 0 ? "" : ", ", (int)a->ids[i]));
    BAL_TRY(bal_buf_printf(out, "], \"finish_reason\": \"%s\"}\n", a->finish_reason));
out:
    return status;
}

static bal_status on_answer(void *context, size_t i, const bal_answer *a)
{
    queue *q = context;
    bal_progress_update(&q->progress, ++q->done, NULL);
    q->dropped += a->n_dropped > 0;
    if (q->requests[i].kind == BAL_REQUEST_SCORE)
        return put_score(&q->entries[i].answer, a, q->requests[i].n_continuation);
    return put_generated(&q->entries[i].answer, a, q->bundle->tokenizer != NULL);
}

/* --json with the answers in a file: the work and its rate as one document.  Tokens a second are all that were read or
 * written; loading the model is not in the seconds. */
static bal_status print_stats(const queue *q, const bal_engine_stats *s)
{
    bal_buf out = {0};
    size_t all = s->prompt_tokens + s->continuation_tokens + s->new_tokens;
    double seconds = s->seconds > 0 ? s->seconds : 1e-9;
    bal_status status;
    BAL_TRY(
        bal_buf_printf(&out,
                       "{\"requests\": %zu, \"prompt_tokens\": %zu, \"shared_tokens\": %zu, "
                       "\"continuation_tokens\": %zu, \"new_tokens\": %zu, \"sequences_at_once\": %zu, \"seconds\": ",
                       q->n, s->prompt_tokens, s->shared_tokens, s->continuation_tokens, s->new_tokens, s->slots));
    BAL_TRY(bal_json_put_f64(&out, s->seconds));
    BAL_TRY(bal_buf_text(&out, ", \"tokens_per_second\": "));
    BAL_TRY(bal_json_put_f64(&out, (double)all / seconds));
    BAL_TRY(bal_buf_text(&out, ", \"new_tokens_per_second\": "));
    BAL_TRY(bal_json_put_f64(&out, (double)s->new_tokens / seconds));
    BAL_TRY(bal_buf_text(&out, "}\n"));
    status = evaluate_write(NULL, &out);
out:
    bal_buf_dispose(&out);
    return status;
}

bal_status evaluate_requests(const evaluate_config *c, const bal_common *common, const bal_bundle *b)
{
    queue q = {.bundle = b};
    bal_buf out = {0};
    bal_engine_stats stats = {0};
    bal_status status;
    bal_engine_options o = evaluate_engine(c, b);
    o.context = &q;
    o.answer = on_answer;
    BAL_TRY(read_queue(&q, c->requests));
    bal_progress_start(&q.progress, &common->log, "requests", "requests", q.n, common->progress);
    BAL_TRY(bal_engine_run(b->model, &o, q.requests, q.n, &stats));
    bal_progress_done(&q.progress);
    for (size_t i = 0; i < q.n; i++)
        BAL_TRY(bal_buf_append(&out, bal_buf_cstr(&q.entries[i].answer), q.entries[i].answer.len));
    if (c->document != NULL)
        status = bal_buf_append(c->document, bal_buf_cstr(&out), out.len);
    else
        status = evaluate_write(c->out, &out);
    BAL_TRY(status);
    if (common->json && c->document == NULL && c->out != NULL && strcmp(c->out, "-") != 0)
        BAL_TRY(print_stats(&q, &stats));
    if (q.dropped > 0)
        bal_log_line(&common->log, BAL_LOG_WARN,
                     "%zu of %zu requests were longer than the context and lost tokens at their left", q.dropped, q.n);
    bal_log_line(&common->log, BAL_LOG_INFO,
                 "%zu requests, %zu prompt tokens (%zu shared), %zu new tokens, %.1f s, up to %zu at a time", q.n,
                 stats.prompt_tokens, stats.shared_tokens, stats.new_tokens, stats.seconds, stats.slots);
out:
    for (size_t i = 0; i < q.n; i++) {
        bal_ids_dispose(&q.entries[i].ids);
        bal_buf_dispose(&q.entries[i].answer);
        bal_free(q.entries[i].stops);
        cJSON_Delete(q.entries[i].json);
    }
    bal_free(q.entries);
    bal_free(q.requests);
    bal_buf_dispose(&out);
    return status;
}
