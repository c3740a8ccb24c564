/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/judge.h"

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number between brackets at s, which begins behind them: \d+\.?\d* followed by close. */
static bool number_at(const char *s, const char *close, double *out)
{
    size_t whole = strspn(s, "0123456789"), n = whole;
    if (whole == 0)
        return false;
    bool point = s[n] == '.';
    if (point) {
        n++;
        n += strspn(s + n, "0123456789");
    }
    if (strncmp(s + n, close, strlen(close)) != 0)
        return false;
    *out = strtod(s, NULL);
    if (!point && s[0] == '0' && *out != 0)
        *out = -1; /* 08: no number of Python's */
    return true;
}

double judge_rating(const char *judgement)
{
    double value = -1;
    for (const char *p = strstr(judgement, "[["); p != NULL; p = strstr(p + 1, "[["))
        if (number_at(p + 2, "]]", &value))
            return value;
    for (const char *p = strchr(judgement, '['); p != NULL; p = strchr(p + 1, '['))
        if (number_at(p + 1, "]", &value))
            return value;
    return -1;
}

char judge_winner(const char *judgement)
{
    return strstr(judgement, "[[A]]") != NULL   ? 'A'
           : strstr(judgement, "[[B]]") != NULL ? 'B'
           : strstr(judgement, "[[C]]") != NULL ? 'C'
                                                : 0;
}

bal_status chat_check_url(const char *base_url, const char *key_env)
{
    if (!bal_starts_with(base_url, "http://") && !bal_starts_with(base_url, "https://"))
        return bal_fail(BAL_EINVAL, "the base URL '%.100s' must begin with http:// or https://", base_url);
    const char *host = strstr(base_url, "://") + 3;
    if (memchr(host, '@', strcspn(host, "/?#")) != NULL)
        return bal_fail(BAL_EINVAL, "the base URL holds a user's name or password; give the key by %s",
                        key_env != NULL ? key_env : "the environment");
    return BAL_OK;
}

bal_status chat_client_open(chat_client *c, bal_store *store, const char *base_url, const char *model,
                            const char *key_env, const bal_http_options *options)
{
    bal_http_options o = options != NULL ? *options : (bal_http_options){0};
    bal_buf url = {0};
    bal_status status;
    *c = (chat_client){.store = store, .model = model};
    BAL_TRY(chat_check_url(base_url, key_env));
    size_t n = strlen(base_url);
    while (n > 0 && base_url[n - 1] == '/')
        n--;
    o.key = key_env != NULL ? getenv(key_env) : NULL;
    o.key_name = key_env;
    BAL_TRY(bal_buf_append(&url, base_url, n));
    BAL_TRY(bal_buf_text(&url, "/chat/completions"));
    c->url = url.data;
    url = (bal_buf){0};
    BAL_TRY(bal_http_open(&c->http, &o));
    if (store != NULL)
        status = bal_store_exec(store, "CREATE TABLE IF NOT EXISTS api_reply(request_sha256 TEXT PRIMARY KEY, "
                                       "model TEXT NOT NULL, reply TEXT NOT NULL, time_ms INTEGER NOT NULL) STRICT");
out:
    bal_buf_dispose(&url);
    if (status != BAL_OK)
        chat_client_close(c);
    return status;
}

void chat_client_close(chat_client *c)
{
    bal_http_close(c->http);
    bal_free(c->url);
    c->http = NULL;
    c->url = NULL;
}

bal_status chat_body(const chat_client *c, const chat_message *messages, size_t n, double temperature, int max_tokens,
                     bal_buf *body)
{
    bal_status status;
    BAL_TRY(bal_buf_text(body, "{\"model\": "));
    BAL_TRY(bal_json_put_text(body, c->model));
    BAL_TRY(bal_buf_text(body, ", \"messages\": ["));
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(bal_buf_printf(body, "%s{\"role\": \"%s\", \"content\": ", i == 0 ? "" : ", ", messages[i].role));
        BAL_TRY(bal_json_put_text(body, messages[i].content));
        BAL_TRY(bal_buf_text(body, "}"));
    }
    BAL_TRY(bal_buf_text(body, "], \"n\": 1, \"temperature\": "));
    BAL_TRY(bal_json_put_f64(body, temperature));
    status = bal_buf_printf(body, ", \"max_tokens\": %d}", max_tokens);
out:
    return status;
}

bal_status chat_content(const char *reply, size_t n, const char *where, char **out)
{
    cJSON *json = NULL;
    *out = NULL;
    bal_status status = bal_json_parse(&json, reply, n, where);
    if (status != BAL_OK)
        return status;
    const cJSON *choices = bal_json_member(json, "choices");
    const cJSON *message = bal_json_member(cJSON_GetArrayItem(choices, 0), "message");
    const cJSON *content = bal_json_member(message, "content");
    if (!cJSON_IsArray(choices) || !cJSON_IsString(content))
        status = bal_fail(BAL_EFORMAT, "%s: the reply has no choices[0].message.content", where);
    else if ((*out = bal_strdup(content->valuestring)) == NULL)
        status = BAL_ENOMEM;
    cJSON_Delete(json);
    return status;
}

/* --- the store --- */

/* The address belongs to the request: two servers may give one name to different models. */
static bal_status hash_of(const chat_client *c, const bal_buf *body, char hex[65])
{
    bal_buf text = {0};
    bal_status status;
    BAL_TRY(bal_buf_text(&text, c->url));
    BAL_TRY(bal_buf_text(&text, "\n"));
    BAL_TRY(bal_buf_append(&text, bal_buf_cstr(body), body->len));
    bal_sha256_hex(text.data, text.len, hex);
out:
    bal_buf_dispose(&text);
    return status;
}

static bal_status look_up(const chat_client *c, const char *hex, char **text)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status;
    if (c->store == NULL)
        return BAL_OK;
    BAL_TRY(bal_store_cached(c->store, "SELECT reply FROM api_reply WHERE request_sha256 = ?1", &st));
    (void)sqlite3_bind_text(st, 1, hex, -1, SQLITE_TRANSIENT);
    BAL_TRY(bal_store_step(c->store, st, &row));
    if (row) {
        const char *reply = (const char *)sqlite3_column_text(st, 0);
        status = chat_content(reply == NULL ? "" : reply, reply == NULL ? 0 : strlen(reply), "stored reply", text);
    }
    (void)sqlite3_reset(st);
out:
    return status;
}

static bal_status keep(const chat_client *c, const char *hex, const bal_buf *reply)
{
    sqlite3_stmt *st = NULL;
    bal_status status;
    if (c->store == NULL)
        return BAL_OK;
    BAL_TRY(bal_store_cached(c->store, "INSERT OR REPLACE INTO api_reply VALUES(?1, ?2, ?3, ?4)", &st));
    (void)sqlite3_bind_text(st, 1, hex, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_text(st, 2, c->model, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_text(st, 3, bal_buf_cstr(reply), (int)reply->len, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(st, 4, bal_clock_unix_ms());
    status = bal_store_run(c->store, st, "keep a reply");
out:
    return status;
}

/* --- sending --- */

typedef struct sending {
    chat_client *c;
    bal_http_reply *replies;
    const size_t *which; /* request -> body */
    char (*hex)[65];
    char **texts, **errors;
    bal_status status;
    char message[512];
} sending;

/* Each answer is kept as soon as it is there. */
static void received(void *context, size_t i)
{
    sending *s = context;
    bal_http_reply *r = &s->replies[i];
    size_t k = s->which[i];
    bal_status status = r->status;
    s->c->n_sent++;
    if (status == BAL_OK) {
        status = chat_content(bal_buf_cstr(&r->body), r->body.len, "the server's reply", &s->texts[k]);
        if (status == BAL_OK && (status = keep(s->c, s->hex[k], &r->body)) != BAL_OK && s->status == BAL_OK) {
            s->status = status;
            (void)snprintf(s->message, sizeof s->message, "%.500s", bal_error_message());
        }
        if (status != BAL_OK)
            (void)snprintf(r->message, sizeof r->message, "%.500s", bal_error_message());
    }
    if (status != BAL_OK && s->texts[k] == NULL)
        s->errors[k] = bal_strdup(r->message);
    bal_buf_dispose(&r->body);
    /* a wrong key, name or address will not become right */
    if ((r->code == 401 || r->code == 403 || r->code == 404) && s->status == BAL_OK) {
        s->status = r->status;
        (void)snprintf(s->message, sizeof s->message, "%.500s", r->message);
    }
}

bal_status chat_complete(chat_client *c, const bal_buf *bodies, size_t n, char **texts, char **errors)
{
    bal_http_request *requests = bal_alloc(n, sizeof *requests);
    bal_http_reply *replies = bal_alloc(n, sizeof *replies);
    size_t *which = bal_alloc(n, sizeof *which), n_send = 0;
    char(*hex)[65] = bal_alloc(n, sizeof *hex);
    bal_status status = BAL_ENOMEM;
    if (requests == NULL || replies == NULL || which == NULL || hex == NULL)
        goto out;
    status = BAL_OK;
    for (size_t i = 0; i < n; i++) {
        texts[i] = errors[i] = NULL;
        BAL_TRY(hash_of(c, &bodies[i], hex[i]));
        BAL_TRY(look_up(c, hex[i], &texts[i]));
        if (texts[i] != NULL) {
            c->n_cached++;
            continue;
        }
        which[n_send] = i;
        requests[n_send++] = (bal_http_request){c->url, bal_buf_cstr(&bodies[i])};
    }
    sending s = {c, replies, which, hex, texts, errors, BAL_OK, ""};
    if (n_send > 0) { /* the first alone: if the key is wrong, one refusal is enough */
        BAL_TRY(bal_http_send_all(c->http, requests, 1, replies, received, &s));
        if (s.status == BAL_OK && n_send > 1) {
            s.replies = replies + 1;
            s.which = which + 1;
            BAL_TRY(bal_http_send_all(c->http, requests + 1, n_send - 1, replies + 1, received, &s));
        }
    }
    if (s.status != BAL_OK)
        status = bal_fail(s.status, "%s", s.message);
out:
    bal_free(requests);
    bal_free(replies);
    bal_free(which);
    bal_free(hex);
    return status;
}
