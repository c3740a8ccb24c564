/* The body of a request, checked in all its parts.  SPDX-License-Identifier: Apache-2.0 */
#include "serve/serve.h"

#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/text/chat.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

void serve_refuse(serve_error *e, int code, const char *name, const char *format, ...)
{
    va_list args;
    e->code = code;
    e->name = name;
    e->type = code == 401   ? "authentication_error"
              : code == 429 ? "rate_limit_error"
              : code >= 500 ? "server_error"
                            : "invalid_request_error";
    va_start(args, format);
    (void)vsnprintf(e->message, sizeof e->message, format, args);
    va_end(args);
}

/* A failure of the library as an answer of the server. */
static void refuse_status(serve_error *e, bal_status status)
{
    bool ours = status == BAL_ENOMEM || status == BAL_EIO || status == BAL_ENUMERIC;
    serve_refuse(e, ours ? 500 : 400, NULL, "%s", bal_error_message());
}

/* Keys by which a request asks for more than this server does, with the values that ask for nothing. */
static const struct {
    const char *key;
    double neutral; /* of a number; NaN: only null (or an empty list or object, or false) */
} k_unsupported[] = {{"presence_penalty", 0},
                     {"frequency_penalty", 0},
                     {"logit_bias", NAN},
                     {"suffix", NAN},
                     {"tools", NAN},
                     {"tool_choice", NAN},
                     {"functions", NAN},
                     {"function_call", NAN},
                     {"min_p", 0},
                     {"repetition_penalty", 1},
                     {"min_tokens", 0},
                     {"guided_json", NAN},
                     {"guided_regex", NAN},
                     {"use_beam_search", NAN},
                     {"best_of", 1},
                     {"audio", NAN},
                     {"modalities", NAN},
                     {"parallel_tool_calls", NAN},
                     {"prediction", NAN},
                     {"web_search_options", NAN}};
static const char *const k_ignored[] = {"user",         "metadata",          "store",
                                        "service_tier", "safety_identifier", "prompt_cache_key"};
static const char *const k_both[] = {"model",       "n",     "seed",  "stop",       "stream",     "stream_options",
                                     "temperature", "top_p", "top_k", "max_tokens", "ignore_eos", "logprobs"};
static const char *const k_completion[] = {"prompt", "echo"};
static const char *const k_chat[] = {"messages", "max_completion_tokens", "top_logprobs", "response_format",
                                     "chat_template_kwargs"};

static bool is_among(const char *key, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(list[i], key) == 0)
            return true;
    return false;
}

#define AMONG(KEY, LIST) is_among(KEY, LIST, sizeof(LIST) / sizeof(LIST)[0])

static bool asks_nothing(const cJSON *v, double neutral)
{
    if (cJSON_IsNull(v) || cJSON_IsFalse(v))
        return true;
    if (cJSON_IsNumber(v))
        return v->valuedouble == neutral;
    if (cJSON_IsString(v))
        return strcmp(v->valuestring, "none") == 0 || strcmp(v->valuestring, "auto") == 0;
    return (cJSON_IsArray(v) || cJSON_IsObject(v)) && v->child == NULL;
}

/* A key that is not known could change the answer: it is not passed over. */
static bool check_keys(job *j)
{
    const cJSON *v = NULL;
    cJSON_ArrayForEach(v, j->json)
    {
        const char *key = v->string;
        bool known =
            AMONG(key, k_both) || AMONG(key, k_ignored) || (j->chat ? AMONG(key, k_chat) : AMONG(key, k_completion));
        for (size_t i = 0; !known && i < sizeof k_unsupported / sizeof k_unsupported[0]; i++)
            if (strcmp(k_unsupported[i].key, key) == 0) {
                if (!asks_nothing(v, k_unsupported[i].neutral)) {
                    serve_refuse(&j->error, 400, "unsupported_parameter", "'%s' is not supported here", key);
                    return false;
                }
                known = true;
            }
        if (!known) {
            serve_refuse(&j->error, 400, "unknown_parameter", "the key '%.60s' is not known", key);
            return false;
        }
    }
    return true;
}

static served *find_model(server *s, const char *name)
{
    for (size_t i = 0; i < s->n_models; i++)
        if (strcmp(s->models[i].name, name) == 0)
            return &s->models[i];
    return NULL;
}

static bal_status read_number(const job *j, const char *key, double min, double max, double *out)
{
    bool found = false;
    double v = 0;
    bal_status status;
    BAL_TRY(bal_json_f64(j->json, "the request", key, &v, &found));
    if (found && !(v >= min && v <= max))
        return bal_fail(BAL_EINVAL, "'%s' must be from %g to %g, not %g", key, min, max, v);
    if (found)
        *out = v;
out:
    return status;
}

static bal_status read_whole(const job *j, const char *key, int64_t min, int64_t max, size_t *out, bool *found)
{
    int64_t v = 0;
    bool there = false;
    bal_status status = bal_json_i64(j->json, "the request", key, min, max, &v, &there);
    if (status == BAL_OK && there)
        *out = (size_t)v;
    if (found != NULL && there)
        *found = true;
    return status;
}

static bal_status read_stops(job *j)
{
    const cJSON *stop = bal_json_member(j->json, "stop"), *item = NULL;
    bal_status status = BAL_OK;
    if (stop == NULL)
        return BAL_OK;
    if (!cJSON_IsString(stop) && !cJSON_IsArray(stop))
        return bal_fail(BAL_EINVAL, "'stop' must be a text or a list of texts");
    if (cJSON_IsString(stop))
        j->stops[j->n_stops++] = stop->valuestring;
    cJSON_ArrayForEach(item, stop)
    {
        if (!cJSON_IsString(item) || j->n_stops == SERVE_MAX_STOPS)
            return bal_fail(BAL_EINVAL, "'stop' must be at most %d texts", SERVE_MAX_STOPS);
        j->stops[j->n_stops++] = item->valuestring;
    }
    for (size_t i = 0; i < j->n_stops; i++)
        if (j->stops[i][0] == '\0' || strlen(j->stops[i]) > SERVE_MAX_STOP_BYTES)
            return bal_fail(BAL_EINVAL, "a text of 'stop' must have from 1 to %d bytes", SERVE_MAX_STOP_BYTES);
    return status;
}

static bal_status read_logprobs(job *j)
{
    const cJSON *v = bal_json_member(j->json, "logprobs");
    bal_status status = BAL_OK;
    if (j->chat) {
        BAL_TRY(bal_json_bool(j->json, "the request", "logprobs", &j->logprobs, NULL));
        BAL_TRY(read_whole(j, "top_logprobs", 0, SERVE_MAX_TOP, &j->n_top, NULL));
        if (j->n_top > 0 && !j->logprobs)
            status = bal_fail(BAL_EINVAL, "'top_logprobs' needs 'logprobs': true");
        return status;
    }
    if (v == NULL || cJSON_IsFalse(v))
        return BAL_OK;
    j->logprobs = true;
    status = read_whole(j, "logprobs", 0, SERVE_MAX_TOP, &j->n_top, NULL);
out:
    return status;
}

/* A seed that nobody chose. */
static uint64_t any_seed(void)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
        seed = (uint64_t)bal_clock_unix_ms();
    return seed >> 11;
}

static bal_status read_sampling(job *j, bool *has_max)
{
    double temperature = 1, top_p = 1;
    int64_t seed = 0, top_k = 0;
    bool seeded = false;
    bal_status status;
    j->n = 1;
    j->max_tokens = 16;
    BAL_TRY(read_number(j, "temperature", 0, 100, &temperature));
    BAL_TRY(read_number(j, "top_p", 0, 1, &top_p));
    BAL_TRY(bal_json_i64(j->json, "the request", "top_k", -1, 1 << 30, &top_k, NULL));
    BAL_TRY(bal_json_i64(j->json, "the request", "seed", -((int64_t)1 << 53), (int64_t)1 << 53, &seed, &seeded));
    BAL_TRY(read_whole(j, "n", 1, SERVE_MAX_N, &j->n, NULL));
    BAL_TRY(read_whole(j, "max_tokens", 0, (int64_t)1 << 31, &j->max_tokens, has_max));
    if (j->chat)
        BAL_TRY(read_whole(j, "max_completion_tokens", 0, (int64_t)1 << 31, &j->max_tokens, has_max));
    BAL_TRY(bal_json_bool(j->json, "the request", "ignore_eos", &j->ignore_eos, NULL));
    BAL_TRY(bal_json_bool(j->json, "the request", "stream", &j->stream, NULL));
    if (!j->chat)
        BAL_TRY(bal_json_bool(j->json, "the request", "echo", &j->echo, NULL));
    const cJSON *options = bal_json_member(j->json, "stream_options");
    if (options != NULL && !cJSON_IsObject(options))
        return bal_fail(BAL_EINVAL, "'stream_options' must be an object");
    BAL_TRY(bal_json_bool(options, "stream_options", "include_usage", &j->include_usage, NULL));
    j->sampling = (bal_sampling){temperature, top_k < 0 ? 0 : (size_t)top_k, top_p};
    j->seed = seeded ? (uint64_t)seed : any_seed();
out:
    return status;
}

static bal_status put_ids(const cJSON *list, const bal_model *m, bal_ids *out)
{
    const cJSON *item = NULL;
    bal_status status = BAL_OK;
    cJSON_ArrayForEach(item, list)
    {
        double v = item->valuedouble;
        if (!cJSON_IsNumber(item) || v != floor(v) || !(v >= 0 && v < (double)m->config.vocab))
            return bal_fail(BAL_EINVAL, "'prompt' holds something else than token ids below %zu", m->config.vocab);
        BAL_TRY(bal_ids_append(out, (int32_t)v));
    }
    if (out->n == 0)
        status = bal_fail(BAL_EINVAL, "a prompt of token ids is empty");
out:
    return status;
}

static bal_status put_prompt(job *j, cJSON *given)
{
    bal_ids *ids = &j->prompts[j->n_prompts];
    bal_buf *text = &j->prompt_texts[j->n_prompts++];
    bal_status status;
    if (!cJSON_IsString(given))
        return put_ids(given, j->model->model, ids);
    size_t n = bal_json_text_bytes(given->valuestring);
    if (j->echo)
        BAL_TRY(bal_buf_append(text, given->valuestring, n));
    status = bal_bundle_prompt(&j->s->base, given->valuestring, n, ids);
out:
    return status;
}

/* A text, a list of texts, a list of ids, or a list of lists of ids. */
static bal_status read_prompts(job *j)
{
    cJSON *prompt = cJSON_GetObjectItemCaseSensitive(j->json, "prompt"), *item = NULL;
    bool many = cJSON_IsArray(prompt) && (cJSON_IsString(prompt->child) || cJSON_IsArray(prompt->child));
    size_t n = many ? (size_t)cJSON_GetArraySize(prompt) : 1, most = (size_t)j->s->c->max_waiting;
    bal_status status = BAL_OK;
    if (!cJSON_IsString(prompt) && !cJSON_IsArray(prompt))
        return bal_fail(BAL_EINVAL, "'prompt' must be a text, a list of texts, token ids or a list of these");
    if (n * j->n > most)
        return bal_fail(BAL_ELIMIT, "%zu answers are asked for at once; at most %zu are given", n * j->n, most);
    j->prompts = bal_alloc(n, sizeof *j->prompts);
    j->prompt_texts = bal_alloc(n, sizeof *j->prompt_texts);
    if (j->prompts == NULL || j->prompt_texts == NULL)
        return BAL_ENOMEM;
    if (!many)
        return put_prompt(j, prompt);
    cJSON_ArrayForEach(item, prompt)
    {
        if (!cJSON_IsString(item) && !cJSON_IsArray(item))
            return bal_fail(BAL_EINVAL, "'prompt' must be a list of texts or of lists of token ids");
        BAL_TRY(put_prompt(j, item));
    }
out:
    return status;
}

/* Content that is a list of {"type": "text"} becomes one text. */
static bal_status join_content(cJSON *message)
{
    cJSON *content = cJSON_GetObjectItemCaseSensitive(message, "content"), *item = NULL;
    bal_buf text = {0};
    bal_status status = BAL_OK;
    if (!cJSON_IsArray(content))
        return BAL_OK;
    cJSON_ArrayForEach(item, content)
    {
        const cJSON *piece = bal_json_member(item, "text"), *type = bal_json_member(item, "type");
        if (!cJSON_IsString(piece) || !cJSON_IsString(type) || strcmp(type->valuestring, "text") != 0) {
            status = bal_fail(BAL_EINVAL, "a message's content must be a text, or parts of type 'text'");
            goto out;
        }
        BAL_TRY(bal_buf_text(&text, piece->valuestring));
    }
    if (!cJSON_ReplaceItemInObjectCaseSensitive(message, "content", cJSON_CreateString(bal_buf_cstr(&text))))
        status = bal_fail(BAL_ENOMEM, "out of memory");
out:
    bal_buf_dispose(&text);
    return status;
}

static bal_status read_messages(job *j)
{
    cJSON *messages = cJSON_GetObjectItemCaseSensitive(j->json, "messages"), *m = NULL;
    const cJSON *format = bal_json_member(j->json, "response_format"),
                *extra = bal_json_member(j->json, "chat_template_kwargs");
    const cJSON *type = bal_json_member(format, "type");
    bal_buf text = {0};
    bal_status status;
    if (!cJSON_IsArray(messages) || messages->child == NULL)
        return bal_fail(BAL_EINVAL, "'messages' must be a list of messages");
    if (format != NULL && (!cJSON_IsString(type) || strcmp(type->valuestring, "text") != 0))
        return bal_fail(BAL_EINVAL, "'response_format' may only be {\"type\": \"text\"} here");
    if (extra != NULL && !cJSON_IsObject(extra))
        return bal_fail(BAL_EINVAL, "'chat_template_kwargs' must be an object");
    cJSON_ArrayForEach(m, messages)
    {
        if (!cJSON_IsString(bal_json_member(m, "role")))
            return bal_fail(BAL_EINVAL, "a message has no 'role'");
        BAL_TRY(join_content(m));
        if (!cJSON_IsString(bal_json_member(m, "content")))
            return bal_fail(BAL_EINVAL, "a message has no 'content'");
    }
    const bal_chat_options o = {.extra = extra, .generation_prompt = true};
    j->prompts = bal_alloc(1, sizeof *j->prompts);
    j->prompt_texts = bal_alloc(1, sizeof *j->prompt_texts);
    if (j->prompts == NULL || j->prompt_texts == NULL)
        return BAL_ENOMEM;
    j->n_prompts = 1;
    BAL_TRY(bal_chat_apply(j->s->base.tokenizer, messages, &o, &text, NULL));
    /* the template has written the special tokens */
    BAL_TRY(bal_tokenizer_encode(j->s->base.tokenizer, bal_buf_cstr(&text), text.len, false, &j->prompts[0]));
    if (j->prompts[0].n == 0)
        status = bal_fail(BAL_EINVAL, "the conversation is empty");
out:
    bal_buf_dispose(&text);
    return status;
}

/* Whether prompts and answers fit; a chat without a limit gets what is left. */
static void check_lengths(job *j, bool has_max)
{
    size_t length = bal_engine_max_length(j->model->engine), most = (size_t)j->s->c->max_tokens, longest = 0;
    for (size_t i = 0; i < j->n_prompts; i++)
        longest = j->prompts[i].n > longest ? j->prompts[i].n : longest;
    if (j->chat && !has_max)
        j->max_tokens = longest < length && length - longest < most ? length - longest : most;
    if (j->max_tokens > most && has_max)
        serve_refuse(&j->error, 400, NULL, "'max_tokens' is %zu; this server gives at most %zu", j->max_tokens, most);
    else if (longest > length || j->max_tokens > length - longest)
        serve_refuse(&j->error, 400, "context_length_exceeded",
                     "the context holds %zu tokens, but the prompt has %zu and %zu are asked for", length, longest,
                     j->max_tokens);
    else if (j->chat && j->max_tokens == 0)
        serve_refuse(&j->error, 400, NULL, "at least one token must be asked for");
}

static bal_status make_parts(job *j)
{
    j->n_parts = j->n_prompts * j->n;
    j->parts = bal_alloc(j->n_parts, sizeof *j->parts);
    if (j->parts == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < j->n_parts; i++)
        j->parts[i].prompt = i / j->n;
    return BAL_OK;
}

void serve_read(job *j, const char *body, size_t n)
{
    const char *name = NULL;
    bool found = false, has_max = false;
    bal_status status = bal_json_parse(&j->json, body, n, "the request's body");
    if (status != BAL_OK) {
        refuse_status(&j->error, status);
        return;
    }
    if (!cJSON_IsObject(j->json)) {
        serve_refuse(&j->error, 400, NULL, "the request's body must be a JSON object");
        return;
    }
    BAL_TRY(bal_json_text(j->json, "the request", "model", &name, &found));
    if (!found) {
        serve_refuse(&j->error, 400, NULL, "'model' is missing");
        return;
    }
    if ((j->model = find_model(j->s, name)) == NULL) {
        serve_refuse(&j->error, 404, "model_not_found",
                     "the model '%.100s' is not served here (GET /v1/models lists them)", name);
        return;
    }
    if (!check_keys(j))
        return;
    BAL_TRY(read_sampling(j, &has_max));
    BAL_TRY(read_stops(j));
    BAL_TRY(read_logprobs(j));
    BAL_TRY(j->chat ? read_messages(j) : read_prompts(j));
    check_lengths(j, has_max);
    if (j->error.code == 0)
        BAL_TRY(make_parts(j));
    uint64_t random = any_seed() ^ (uint64_t)(uintptr_t)j;
    (void)snprintf(j->id, sizeof j->id, "%s-%016llx", j->chat ? "chatcmpl" : "cmpl", (unsigned long long)random);
    j->created = bal_clock_unix_ms() / 1000;
out:
    if (status != BAL_OK)
        refuse_status(&j->error, status);
}
