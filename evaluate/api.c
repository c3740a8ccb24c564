/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/api.h"

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bal_status api_check_url(const char *base_url, const char *key_env)
{
    if (!bal_starts_with(base_url, "http://") && !bal_starts_with(base_url, "https://"))
        return bal_fail(BAL_EINVAL, "the base URL '%.100s' must begin with http:// or https://", base_url);
    const char *host = strstr(base_url, "://") + 3;
    if (memchr(host, '@', strcspn(host, "/?#")) != NULL)
        return bal_fail(BAL_EINVAL, "the base URL holds a user's name or password; give the key by %s",
                        key_env != NULL ? key_env : "the environment");
    return BAL_OK;
}

bal_status api_open(api_client *c, bal_store *store, const char *base_url, const char *model, const char *key_env,
                    const bal_http_options *options)
{
    bal_http_options o = options != NULL ? *options : (bal_http_options){0};
    bal_buf url = {0};
    bal_status status;
    *c = (api_client){.store = store, .model = model};
    BAL_TRY(api_check_url(base_url, key_env));
    size_t n = strlen(base_url);
    while (n > 0 && base_url[n - 1] == '/')
        n--;
    o.key = key_env != NULL ? getenv(key_env) : NULL;
    o.key_name = key_env;
    BAL_TRY(bal_buf_append(&url, base_url, n));
    c->base = url.data;
    url = (bal_buf){0};
    BAL_TRY(bal_http_open(&c->http, &o));
    if (store != NULL)
        status = bal_store_exec(store, "CREATE TABLE IF NOT EXISTS api_reply(request_sha256 TEXT PRIMARY KEY, "
                                       "model TEXT NOT NULL, reply TEXT NOT NULL, time_ms INTEGER NOT NULL) STRICT");
out:
    bal_buf_dispose(&url);
    if (status != BAL_OK)
        api_close(c);
    return status;
}

void api_close(api_client *c)
{
    bal_http_close(c->http);
    bal_free(c->base);
    c->http = NULL;
    c->base = NULL;
}

/* --- the store --- */

/* The address belongs to the request: two servers may give one name to different models. */
static bal_status hash_of(const api_client *c, const char *page, const bal_buf *body, char hex[65])
{
    bal_buf text = {0};
    bal_status status;
    BAL_TRY(bal_buf_text(&text, c->base));
    BAL_TRY(bal_buf_text(&text, page));
    BAL_TRY(bal_buf_text(&text, "\n"));
    BAL_TRY(bal_buf_append(&text, bal_buf_cstr(body), body->len));
    bal_sha256_hex(text.data, text.len, hex);
out:
    bal_buf_dispose(&text);
    return status;
}

/* The kept reply to a request, *reply NULL for none. */
static bal_status look_up(const api_client *c, const char *hex, char **reply)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status;
    *reply = NULL;
    if (c->store == NULL)
        return BAL_OK;
    BAL_TRY(bal_store_cached(c->store, "SELECT reply FROM api_reply WHERE request_sha256 = ?1", &st));
    (void)sqlite3_bind_text(st, 1, hex, -1, SQLITE_TRANSIENT);
    BAL_TRY(bal_store_step(c->store, st, &row));
    const char *text = row ? (const char *)sqlite3_column_text(st, 0) : NULL;
    if (row && (*reply = bal_strdup(text == NULL ? "" : text)) == NULL)
        status = BAL_ENOMEM;
    (void)sqlite3_reset(st);
out:
    return status;
}

static bal_status keep(const api_client *c, const char *hex, const bal_buf *reply)
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
    api_client *c;
    api_take *take;
    void *context;
    bal_http_reply *replies;
    const size_t *which; /* request -> body */
    char (*hex)[65];
    char **errors;
    bal_status status;
    char message[512];
} sending;

static void end_sending(sending *s, bal_status status, const char *message)
{
    if (s->status != BAL_OK)
        return;
    s->status = status;
    (void)snprintf(s->message, sizeof s->message, "%.500s", message);
}

/* Each reply is taken and kept as soon as it is there. */
static void received(void *context, size_t i)
{
    sending *s = context;
    bal_http_reply *r = &s->replies[i];
    size_t k = s->which[i];
    bal_status status = r->status;
    s->c->n_sent++;
    if (status == BAL_OK && s->status == BAL_OK) {
        status = s->take(s->context, k, bal_buf_cstr(&r->body), r->body.len);
        bool format = status == BAL_EFORMAT;
        if (status == BAL_OK)
            status = keep(s->c, s->hex[k], &r->body);
        if (status != BAL_OK)
            (void)snprintf(r->message, sizeof r->message, "%.500s", bal_error_message());
        if (status != BAL_OK && !format)
            end_sending(s, status, r->message);
    }
    if (status != BAL_OK)
        s->errors[k] = bal_strdup(r->message);
    bal_buf_dispose(&r->body);
    /* a wrong key, name or address will not become right */
    if (r->code == 401 || r->code == 403 || r->code == 404)
        end_sending(s, r->status, r->message);
}

/* What is in the store is taken at once; *found. */
static bal_status take_kept(const api_client *c, const char *hex, size_t i, api_take *take, void *context, bool *found)
{
    char *reply = NULL;
    bal_status status;
    *found = false;
    BAL_TRY(look_up(c, hex, &reply));
    if (reply == NULL)
        return BAL_OK;
    status = take(context, i, reply, strlen(reply));
    *found = status == BAL_OK;
    if (status == BAL_EFORMAT) /* a kept reply that is no good is asked for again */
        status = BAL_OK;
out:
    bal_free(reply);
    return status;
}

bal_status api_send(api_client *c, const char *page, const bal_buf *bodies, size_t n, api_take *take, void *context,
                    char **errors)
{
    bal_http_request *requests = bal_alloc(n, sizeof *requests);
    bal_http_reply *replies = bal_alloc(n, sizeof *replies);
    size_t *which = bal_alloc(n, sizeof *which), n_send = 0;
    char(*hex)[65] = bal_alloc(n, sizeof *hex);
    bal_buf url = {0};
    bal_status status = BAL_ENOMEM;
    for (size_t i = 0; i < n; i++)
        errors[i] = NULL;
    if (requests == NULL || replies == NULL || which == NULL || hex == NULL)
        goto out;
    BAL_TRY(bal_buf_text(&url, c->base));
    BAL_TRY(bal_buf_text(&url, page));
    for (size_t i = 0; i < n; i++) {
        bool found = false;
        BAL_TRY(hash_of(c, page, &bodies[i], hex[i]));
        BAL_TRY(take_kept(c, hex[i], i, take, context, &found));
        if (found) {
            c->n_cached++;
            continue;
        }
        which[n_send] = i;
        requests[n_send++] = (bal_http_request){bal_buf_cstr(&url), bal_buf_cstr(&bodies[i])};
    }
    sending s = {c, take, context, replies, which, hex, errors, BAL_OK, ""};
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
    bal_buf_dispose(&url);
    return status;
}

bal_status api_get(api_client *c, const char *page, bal_http_reply *reply)
{
    bal_buf url = {0};
    bal_status status;
    BAL_TRY(bal_buf_text(&url, c->base));
    BAL_TRY(bal_buf_text(&url, page));
    const bal_http_request q = {bal_buf_cstr(&url), NULL};
    status = bal_http_send(c->http, &q, reply);
out:
    bal_buf_dispose(&url);
    return status;
}

bal_status api_choice(const char *reply, size_t n, cJSON **json, const cJSON **choice)
{
    *choice = NULL;
    bal_status status = bal_json_parse(json, reply, n, "the server's reply");
    if (status != BAL_OK)
        return BAL_EFORMAT;
    const cJSON *choices = bal_json_member(*json, "choices");
    if (cJSON_IsArray(choices))
        *choice = cJSON_GetArrayItem(choices, 0);
    if (cJSON_IsObject(*choice))
        return BAL_OK;
    cJSON_Delete(*json);
    *json = NULL;
    return bal_fail(BAL_EFORMAT, "the server's reply has no choices[0]");
}
