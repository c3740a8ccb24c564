/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/served.h"

#include "lib/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { AT_A_TIME = 1024, SENT_STOPS = 4, USUAL_LENGTH = 2048, NOT_FOR_TEXT = 2 };

bool served_named(const evaluate_config *c)
{
    return c->model != NULL && bal_starts_with(c->model, "openai:");
}

bal_status served_load(const evaluate_config *c, bal_bundle *b)
{
    *b = (bal_bundle){0};
    if (c->model[strlen("openai:")] == '\0')
        return bal_fail(BAL_EINVAL, "--model 'openai:' needs a name behind it");
    if (c->adapters.n > 0 || c->initial_adapter != NULL)
        return bal_fail(BAL_EINVAL, "--adapter is for a model here; a served one has a name of its own");
    if (c->requests != NULL || c->perplexity != NULL)
        return bal_fail(BAL_EINVAL, "--requests and --perplexity need a model here; a served one answers --tasks");
    bal_status status = api_check_url(c->base_url, c->key_env);
    if (status != BAL_OK || c->tokenizer == NULL)
        return status;
    return bal_tokenizer_load(&b->tokenizer, c->tokenizer);
}

/* --- the server --- */

/* /v1/models: the name must be there; max_model_len where it is given. */
static bal_status read_models(session *s, const bal_buf *body)
{
    const cJSON *list, *m = NULL;
    cJSON *json = NULL;
    bal_buf names = {0};
    bool found = false;
    int64_t length = 0;
    bal_status status;
    BAL_TRY(bal_json_parse(&json, bal_buf_cstr(body), body->len, "the server's list of models"));
    list = bal_json_member(json, "data");
    cJSON_ArrayForEach(m, list)
    {
        const cJSON *id = bal_json_member(m, "id");
        if (!cJSON_IsString(id))
            continue;
        if (names.len < 300)
            BAL_TRY(bal_buf_printf(&names, "%s%.100s", names.len == 0 ? "" : ", ", id->valuestring));
        if (strcmp(id->valuestring, s->served->model) != 0)
            continue;
        found = true;
        BAL_TRY(bal_json_i64(m, "the server's list of models", "max_model_len", 1, (int64_t)1 << 40, &length, NULL));
    }
    if (!found && cJSON_IsArray(list))
        status = bal_fail(BAL_ENOENT, "the server has no model '%.100s'; it has %.300s", s->served->model,
                          names.len == 0 ? "none" : bal_buf_cstr(&names));
    if (length > NOT_FOR_TEXT)
        s->served_length = (size_t)length;
out:
    cJSON_Delete(json);
    bal_buf_dispose(&names);
    return status;
}

bal_status served_open(session *s)
{
    const evaluate_config *c = s->c;
    const bal_http_options http = {.seconds = (double)c->timeout,
                                   .back_off = c->back_off,
                                   .tries = (int)c->tries,
                                   .at_once = (size_t)c->at_once,
                                   .log = &s->common->log};
    bal_http_reply models = {0};
    bal_status status;
    s->served_length = USUAL_LENGTH;
    if (s->store == NULL)
        BAL_TRY(bal_store_open(&s->store, s->common->db, true));
    if ((s->served = bal_alloc(1, sizeof *s->served)) == NULL)
        return BAL_ENOMEM;
    BAL_TRY(api_open(s->served, s->store, c->base_url, c->model + strlen("openai:"), c->key_env, &http));
    status = api_get(s->served, "/models", &models);
    if (status == BAL_OK)
        status = read_models(s, &models.body);
    else if (models.code == 404 || models.code == 405) /* not every server lists its models */
        status = BAL_OK;
    /* the last token of a continuation is not run here, but there, and with one more behind it */
    s->served_length -= NOT_FOR_TEXT;
    if (c->max_length > 0)
        s->served_length = (size_t)c->max_length;
out:
    bal_http_reply_dispose(&models);
    return status;
}

void served_close(session *s)
{
    if (s->served != NULL)
        api_close(s->served);
    bal_free(s->served);
    s->served = NULL;
}

/* The names of the tasks that are not of kind GENERATE (or, prefix: that begin the answer). */
static bal_status name_tasks(const session *s, bool prefix, bal_buf *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < s->n_tasks; i++) {
        const task *t = &s->tasks[i].task;
        bool named = prefix ? t->gen_prefix != NULL : t->scorer->kind != SCORER_GENERATE;
        if (s->tasks[i].not_run[0] == '\0' && named)
            BAL_TRY(bal_buf_printf(out, "%s%s", out->len == 0 ? "" : ", ", t->name));
    }
out:
    return status;
}

bal_status served_check_tasks(const session *s)
{
    bal_buf likelihood = {0}, prefix = {0};
    bool chat = s->c->apply_chat_template;
    bal_status status;
    BAL_TRY(name_tasks(s, false, &likelihood));
    BAL_TRY(name_tasks(s, true, &prefix));
    for (size_t i = 0; i < s->n_tasks; i++)
        if (s->tasks[i].task.scorer->kind == SCORER_MASKED)
            BAL_TRY(
                bal_fail(BAL_EUNSUPPORTED, "%s: a served model is not asked for masked tokens", s->tasks[i].task.name));
    if (likelihood.len > 0 && chat)
        status = bal_fail(BAL_EUNSUPPORTED,
                          "%.400s: log-likelihoods, which chat completions do not give; without --chat "
                          "they are asked for by completions",
                          likelihood.data);
    else if (likelihood.len > 0 && s->bundle->tokenizer == NULL)
        status = bal_fail(BAL_EINVAL,
                          "%.400s: log-likelihoods of a served model need its tokenizer here, to know where a "
                          "continuation begins: --tokenizer",
                          likelihood.data);
    else if (prefix.len > 0 && chat)
        status = bal_fail(BAL_EUNSUPPORTED,
                          "%.400s: the answer's beginning is given, which chat completions cannot "
                          "continue; leave out --chat",
                          prefix.data);
out:
    bal_buf_dispose(&likelihood);
    bal_buf_dispose(&prefix);
    return status;
}

/* --- requests --- */

typedef struct asking {
    session *s;
    task_run *r;
    size_t first; /* request of bodies[0] */
    bal_status (*answer)(void *context, size_t i, const bal_answer *a);
    bal_buf text;
} asking;

/* The last of ids[0..n) that fit in length. */
static const int32_t *last_of(const int32_t *ids, size_t n, size_t length, size_t *kept)
{
    *kept = n < length ? n : length;
    return ids + (n - *kept);
}

static bal_status put_ids(bal_buf *out, const int32_t *ids, size_t n, bool first)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n; i++)
        BAL_TRY(bal_buf_printf(out, "%s%d", first && i == 0 ? "" : ", ", (int)ids[i]));
out:
    return status;
}

/* A number for a server, whose seeds may have 31 bits: another one for each answer. */
static unsigned seed_of(const bal_request *q)
{
    uint64_t z = q->seed + (q->stream + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (unsigned)((z ^ (z >> 31)) & 0x7fffffff);
}

static bal_status put_sampling(const bal_request *q, bal_buf *out)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, ", \"max_tokens\": %zu, \"temperature\": ", q->max_new_tokens));
    BAL_TRY(bal_json_put_f64(out, q->sampling.temperature));
    if (q->sampling.temperature > 0) {
        BAL_TRY(bal_buf_printf(out, ", \"seed\": %u", seed_of(q)));
        if (q->sampling.top_p > 0 && q->sampling.top_p < 1) {
            BAL_TRY(bal_buf_text(out, ", \"top_p\": "));
            BAL_TRY(bal_json_put_f64(out, q->sampling.top_p));
        }
        if (q->sampling.top_k > 0) /* not of OpenAI's, but of many servers */
            BAL_TRY(bal_buf_printf(out, ", \"top_k\": %zu", q->sampling.top_k));
    }
    for (size_t i = 0; i < q->n_stops && i < SENT_STOPS; i++) { /* more are looked for in the answer */
        BAL_TRY(bal_buf_text(out, i == 0 ? ", \"stop\": [" : ", "));
        BAL_TRY(bal_json_put_text(out, q->stops[i]));
    }
    status = bal_buf_text(out, q->n_stops > 0 ? "]}" : "}");
out:
    return status;
}

static bal_status put_body(const asking *a, size_t i, bal_buf *out)
{
    const bal_request *q = &a->r->requests[i];
    const item_run *it = &a->r->items[a->r->of[i].item];
    size_t length = a->s->served_length, n = 0;
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"model\": "));
    BAL_TRY(bal_json_put_text(out, a->s->served->model));
    if (q->kind == BAL_REQUEST_SCORE) { /* as the engine cuts: the last length + 1 */
        if (q->n_continuation > length)
            return bal_fail(BAL_ELIMIT, "a continuation of %zu tokens is longer than the context of %zu",
                            q->n_continuation, length);
        const int32_t *prompt = last_of(q->prompt, q->n_prompt, length + 1 - q->n_continuation, &n);
        BAL_TRY(bal_buf_text(out, ", \"prompt\": ["));
        BAL_TRY(put_ids(out, prompt, n, true));
        BAL_TRY(put_ids(out, q->continuation, q->n_continuation, false));
        status = bal_buf_text(out, "], \"max_tokens\": 1, \"temperature\": 0, \"logprobs\": 1, \"echo\": true}");
    } else if (a->s->c->apply_chat_template) {
        BAL_TRY(bal_buf_printf(out, ", \"messages\": %s", bal_buf_cstr(&it->prompt)));
        status = put_sampling(q, out);
    } else if (q->n_prompt == 0) { /* no tokenizer here: the text */
        BAL_TRY(bal_buf_text(out, ", \"prompt\": "));
        BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(&it->prompt), it->prompt.len));
        status = put_sampling(q, out);
    } else {
        if (q->max_new_tokens >= length)
            return bal_fail(BAL_ELIMIT, "answers of %zu tokens do not fit in the context of %zu (--max-gen-toks)",
                            q->max_new_tokens, length);
        const int32_t *prompt = last_of(q->prompt, q->n_prompt, length - q->max_new_tokens, &n);
        BAL_TRY(bal_buf_text(out, ", \"prompt\": ["));
        BAL_TRY(put_ids(out, prompt, n, true));
        BAL_TRY(bal_buf_text(out, "]"));
        status = put_sampling(q, out);
    }
out:
    return status;
}

/* --- replies --- */

static size_t usage_of(const cJSON *json, const char *key)
{
    const cJSON *v = bal_json_member(bal_json_member(json, "usage"), key);
    return cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble < 1e15 ? (size_t)v->valuedouble : 0;
}

static double largest(const cJSON *top)
{
    const cJSON *v = NULL;
    double best = -(double)INFINITY;
    cJSON_ArrayForEach(v, top) if (cJSON_IsNumber(v) && v->valuedouble > best) best = v->valuedouble;
    return best;
}

/* Whether the i-th token is the likeliest: lm-eval's rule, its probability is the largest one named. */
static bool likeliest(const cJSON *tops, int i, double value)
{
    return !(largest(cJSON_GetArrayItem(tops, i)) > value);
}

static bal_status take_scores(const bal_request *q, size_t n_prompt, const cJSON *json, const cJSON *choice,
                              bal_answer *a)
{
    const cJSON *logprobs = bal_json_member(choice, "logprobs");
    const cJSON *values = bal_json_member(logprobs, "token_logprobs"),
                *tops = bal_json_member(logprobs, "top_logprobs");
    size_t n = n_prompt + q->n_continuation, counted = usage_of(json, "prompt_tokens");
    if (!cJSON_IsArray(values) || !cJSON_IsArray(tops))
        return bal_fail(BAL_EUNSUPPORTED,
                        "the server gives no log probabilities of a prompt (completions with echo and "
                        "logprobs)");
    if ((size_t)cJSON_GetArraySize(values) < n || (size_t)cJSON_GetArraySize(tops) < n ||
        (counted != 0 && counted != n))
        return bal_fail(BAL_EUNSUPPORTED,
                        "the server counts %zu tokens where %zu were sent, and gives probabilities of %d: it "
                        "does not echo the prompt as it is",
                        counted, n, cJSON_GetArraySize(values));
    a->is_greedy = true;
    for (size_t i = n_prompt; i < n; i++) {
        const cJSON *v = cJSON_GetArrayItem(values, (int)i);
        if (!cJSON_IsNumber(v))
            return bal_fail(BAL_EFORMAT, "the server's reply has no log probability of token %zu", i);
        a->log_likelihood += v->valuedouble;
        a->is_greedy = a->is_greedy && likeliest(tops, (int)i, v->valuedouble);
    }
    return BAL_OK;
}

/* The text of an answer, cut at the first stop: a server may know only some of them. */
static bal_status take_text(const asking *k, const bal_request *q, const cJSON *choice, bal_answer *a)
{
    const cJSON *text = k->s->c->apply_chat_template ? bal_json_member(bal_json_member(choice, "message"), "content")
                                                     : bal_json_member(choice, "text");
    const cJSON *reason = bal_json_member(choice, "finish_reason");
    if (!cJSON_IsString(text))
        return bal_fail(BAL_EFORMAT, "the server's reply has no text in choices[0]");
    a->text = text->valuestring;
    a->n_text = strlen(a->text);
    a->finish_reason = cJSON_IsString(reason) && strcmp(reason->valuestring, "length") == 0 ? "length" : "stop";
    for (size_t i = 0; i < q->n_stops; i++) {
        size_t m = strlen(q->stops[i]);
        const char *hit = m == 0 ? NULL : memmem(a->text, a->n_text, q->stops[i], m);
        if (hit != NULL) {
            a->n_text = (size_t)(hit - a->text);
            a->finish_reason = "stop";
        }
    }
    return BAL_OK;
}

static bal_status take_reply(void *context, size_t i, const char *reply, size_t n)
{
    asking *k = context;
    const bal_request *q = &k->r->requests[k->first + i];
    cJSON *json = NULL;
    const cJSON *choice = NULL;
    bal_answer a = {.finish_reason = "stop"};
    size_t n_prompt = 0;
    bal_status status = api_choice(reply, n, &json, &choice);
    if (status != BAL_OK)
        return status;
    a.n_prompt = usage_of(json, "prompt_tokens");
    a.n_ids = usage_of(json, "completion_tokens");
    if (q->kind == BAL_REQUEST_SCORE) {
        (void)last_of(q->prompt, q->n_prompt, k->s->served_length + 1 - q->n_continuation, &n_prompt);
        a.n_prompt = n_prompt;
        a.n_dropped = q->n_prompt - n_prompt;
        BAL_TRY(take_scores(q, n_prompt, json, choice, &a));
    } else {
        BAL_TRY(take_text(k, q, choice, &a));
    }
    status = k->answer(k->s, k->first + i, &a);
out:
    cJSON_Delete(json);
    return status;
}

/* --- sending --- */

static bal_status send_some(asking *k, size_t n, size_t *n_failed, char **why)
{
    const char *page = k->s->c->apply_chat_template ? "/chat/completions" : "/completions";
    bal_buf *bodies = bal_alloc(n, sizeof *bodies);
    char **errors = bal_alloc(n, sizeof *errors);
    bal_status status = bodies == NULL || errors == NULL ? BAL_ENOMEM : BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK; i++)
        status = put_body(k, k->first + i, &bodies[i]);
    if (status == BAL_OK)
        status = api_send(k->s->served, page, bodies, n, take_reply, k, errors);
    for (size_t i = 0; errors != NULL && i < n; i++) {
        *n_failed += errors[i] != NULL;
        if (*why == NULL) {
            *why = errors[i];
            errors[i] = NULL;
        }
        bal_free(errors[i]);
    }
    for (size_t i = 0; bodies != NULL && i < n; i++)
        bal_buf_dispose(&bodies[i]);
    bal_free(bodies);
    bal_free(errors);
    return status;
}

bal_status served_ask(session *s, task_run *r, bal_status (*answer)(void *context, size_t i, const bal_answer *a))
{
    asking k = {.s = s, .r = r, .answer = answer};
    size_t sent = s->served->n_sent, cached = s->served->n_cached, n_failed = 0;
    char *why = NULL;
    bal_status status = BAL_OK;
    for (k.first = 0; status == BAL_OK && k.first < r->n_requests;) { /* one alone: what it is refused, all are */
        size_t n = k.first == 0 ? 1 : r->n_requests - k.first < AT_A_TIME ? r->n_requests - k.first : AT_A_TIME;
        status = send_some(&k, n, &n_failed, &why);
        k.first += n;
        if (status == BAL_OK && n_failed == k.first)
            break;
    }
    bal_log_line(&s->common->log, BAL_LOG_INFO, "%s: %zu requests sent, %zu answered from the store", r->task.name,
                 s->served->n_sent - sent, s->served->n_cached - cached);
    if (status != BAL_OK && status != BAL_EINTERRUPT)
        status = bal_fail_note(status, "task '%s'", r->task.name);
    if (status == BAL_OK && n_failed > 0) /* the others are kept: the same command asks for these alone */
        status = bal_fail(
            BAL_EIO, "task '%s': %zu of %zu requests were not answered (the same command asks for these again): %.300s",
            r->task.name, n_failed, r->n_requests, why);
    bal_free(why);
    return status;
}
