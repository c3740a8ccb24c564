/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/net/http.h"

#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/net/http_impl.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { MAX_THREADS = 64, MAX_REDIRECTS = 5, MAX_TRIES = 100 };
static const double k_longest_wait = 60;

bal_status bal_http_open(bal_http **out, const bal_http_options *options)
{
    *out = NULL;
    bal_status status = bal_curl_open();
    if (status != BAL_OK)
        return status;
    bal_http *h = bal_alloc(1, sizeof *h);
    if (h == NULL)
        return BAL_ENOMEM;
    if (options != NULL)
        h->o = *options;
    bal_http_options *o = &h->o;
    o->connect_seconds = o->connect_seconds > 0 ? o->connect_seconds : 20;
    o->seconds = o->seconds > 0 ? o->seconds : 300;
    o->silent_seconds = o->silent_seconds > 0 ? o->silent_seconds : 30;
    o->back_off = o->back_off > 0 ? o->back_off : 1;
    o->tries = o->tries <= 0 ? 6 : o->tries > MAX_TRIES ? MAX_TRIES : o->tries;
    o->max_bytes = o->max_bytes > 0 ? o->max_bytes : (size_t)64 << 20;
    o->at_once = o->at_once == 0 ? 4 : o->at_once > MAX_THREADS ? MAX_THREADS : o->at_once;
    if (o->key != NULL && o->key[0] != '\0') {
        const char *name = o->key_name != NULL ? o->key_name : "the key";
        if (strpbrk(o->key, "\r\n") != NULL) {
            bal_free(h);
            return bal_fail(BAL_EINVAL, "%s holds a line end", name);
        }
        h->key = bal_strdup(o->key);
        h->key_name = bal_strdup(name);
        if (h->key == NULL || h->key_name == NULL) {
            bal_http_close(h);
            return BAL_ENOMEM;
        }
    }
    *out = h;
    return BAL_OK;
}

void bal_http_close(bal_http *h)
{
    if (h == NULL)
        return;
    if (h->key != NULL)
        memset(h->key, 0, strlen(h->key));
    bal_free(h->key);
    bal_free(h->key_name);
    bal_free(h);
}

void bal_http_reply_dispose(bal_http_reply *r)
{
    bal_buf_dispose(&r->body);
}

/* --- one try --- */

typedef struct sink {
    bal_buf *body;
    size_t most;
    bool too_long;
} sink;

static size_t take(char *data, size_t size, size_t n, void *context)
{
    sink *s = context;
    size_t bytes = size * n;
    if (bytes > s->most - s->body->len || bal_buf_append(s->body, data, bytes) != BAL_OK) {
        s->too_long = true;
        return 0;
    }
    return bytes;
}

static int watch(void *context, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    (void)context, (void)a, (void)b, (void)c, (void)d;
    return bal_interrupted() ? 1 : 0;
}

bal_status bal_http_headers(const bal_http *h, bool posts, struct curl_slist **out)
{
    bal_buf line = {0};
    struct curl_slist *list = NULL, *more;
    bal_status status = BAL_OK;
    if (posts && (more = curl_slist_append(list, "Content-Type: application/json")) != NULL)
        list = more;
    if (h->key != NULL) {
        status = bal_buf_printf(&line, "Authorization: Bearer %s", h->key);
        if (status == BAL_OK && (more = curl_slist_append(list, bal_buf_cstr(&line))) != NULL)
            list = more;
        else
            status = BAL_ENOMEM;
        if (line.data != NULL)
            memset(line.data, 0, line.len);
    }
    bal_buf_dispose(&line);
    *out = list;
    return status;
}

bool bal_http_prepare(const bal_http *h, CURL *c, const char *url, struct curl_slist *headers)
{
    bool bad = false;
    curl_easy_reset(c);
    bad |= curl_easy_setopt(c, CURLOPT_URL, url) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, "http,https") != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_HTTPHEADER, headers) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_USERAGENT, "balora/" BAL_VERSION) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)(h->o.connect_seconds * 1000)) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, watch) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L) != CURLE_OK;
    return !bad;
}

bool bal_http_follow(CURL *c)
{
    return curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L) == CURLE_OK &&
           curl_easy_setopt(c, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS) == CURLE_OK;
}

static bal_status try_once(const bal_http *h, CURL *c, const bal_http_request *q, bal_buf *body, bal_http_outcome *got)
{
    struct curl_slist *headers = NULL;
    sink s = {body, h->o.max_bytes, false};
    curl_off_t wait = 0;
    bal_status status = bal_http_headers(h, q->body != NULL, &headers);
    bal_buf_clear(body);
    bool bad = !bal_http_prepare(h, c, q->url, headers);
    bad |= curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)(h->o.seconds * 1000)) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, take) != CURLE_OK;
    bad |= curl_easy_setopt(c, CURLOPT_WRITEDATA, (void *)&s) != CURLE_OK;
    if (q->body != NULL) { /* a POST is not sent again elsewhere */
        bad |= curl_easy_setopt(c, CURLOPT_POSTFIELDS, q->body) != CURLE_OK;
        bad |= curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(q->body)) != CURLE_OK;
    } else {
        bad |= !bal_http_follow(c);
    }
    if (bad && status == BAL_OK)
        status = bal_http_fail_option();
    if (status == BAL_OK) {
        *got = (bal_http_outcome){.curl = curl_easy_perform(c)};
        (void)curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &got->code);
        (void)curl_easy_getinfo(c, CURLINFO_RETRY_AFTER, &wait);
        got->retry_after = (double)wait;
        got->too_long = s.too_long;
    }
    curl_slist_free_all(headers);
    return status;
}

/* --- what it means --- */

bal_status bal_http_fail_option(void)
{
    return bal_fail(BAL_EIO, "libcurl refuses an option (is it older than 7.85?)");
}

void bal_http_host(const char *url, char *out, size_t n)
{
    const char *from = strstr(url, "://");
    from = from == NULL ? url : from + 3;
    size_t length = strcspn(from, "/?#");
    const char *at = memchr(from, '@', length);
    if (at != NULL) {
        length -= (size_t)(at + 1 - from);
        from = at + 1;
    }
    (void)snprintf(out, n, "%.*s", (int)(length < n ? length : n - 1), from);
}

/* The start of a body as one line of printable ASCII, without the key. */
static void excerpt(const bal_http *h, const bal_buf *body, char *out, size_t n)
{
    size_t used = 0, key = h->key == NULL ? 0 : strlen(h->key);
    const char *text = bal_buf_cstr(body);
    for (size_t i = 0; i < body->len && used + 4 < n; i++) {
        if (key > 0 && i + key <= body->len && memcmp(text + i, h->key, key) == 0) {
            (void)memcpy(out + used, "***", 3);
            used += 3;
            i += key - 1;
        } else {
            out[used++] = text[i] >= ' ' && text[i] < 127 ? text[i] : ' ';
        }
    }
    out[used] = '\0';
}

bal_status bal_http_failure(const bal_http *h, const char *url, const bal_http_outcome *got, const bal_buf *body,
                            int tries)
{
    char host[200], said[200];
    bal_http_host(url, host, sizeof host);
    excerpt(h, body, said, sizeof said);
    if (got->too_long)
        return bal_fail(BAL_ELIMIT, "the answer of %s is longer than %zu bytes", host, h->o.max_bytes);
    if (got->curl == CURLE_UNSUPPORTED_PROTOCOL && (bal_starts_with(url, "http://") || got->code >= 300))
        return got->code >= 300 ? bal_fail(BAL_EINVAL, "%s leads to an address that is not http or https", host)
                                : bal_fail(BAL_EIO, "%s does not answer as an HTTP server does", host);
    if (got->curl == CURLE_URL_MALFORMAT || got->curl == CURLE_UNSUPPORTED_PROTOCOL)
        return bal_fail(BAL_EINVAL, "'%.100s' is not an http or https address", host);
    if (got->curl != CURLE_OK)
        return bal_fail(BAL_EIO, "%s: %s (tried %d times)", host, curl_easy_strerror(got->curl), tries);
    if (got->code == 401 || got->code == 403)
        return bal_fail(BAL_EINVAL, "%s refuses the key (%ld)%s%s: %s", host, got->code,
                        h->key_name != NULL ? "; it came from " : "; none was given",
                        h->key_name != NULL ? h->key_name : "", said);
    if (got->code == 404)
        return bal_fail(BAL_ENOENT, "%s does not have this (404): %s", host, said);
    if (got->code == 429 || got->code >= 500)
        return bal_fail(BAL_EIO, "%s is busy or broken (%ld, tried %d times): %s", host, got->code, tries, said);
    return bal_fail(BAL_EINVAL, "%s refuses the request (%ld): %s", host, got->code, said);
}

bool bal_http_worth_another(const bal_http_outcome *got)
{
    switch (got->curl) {
    case CURLE_OK:
        return got->code == 408 || got->code == 429 || got->code >= 500;
    case CURLE_COULDNT_CONNECT:
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_OPERATION_TIMEDOUT:
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_HTTP2:
    case CURLE_HTTP2_STREAM:
        return true;
    default:
        return false;
    }
}

bool bal_http_wait(double seconds)
{
    double until = bal_clock_seconds() + seconds;
    for (;;) {
        double left = until - bal_clock_seconds();
        if (bal_interrupted())
            return false;
        if (left <= 0)
            return true;
        left = left > 0.1 ? 0.1 : left;
        struct timespec t = {0, (long)(left * 1e9)};
        (void)nanosleep(&t, NULL);
    }
}

bal_status bal_http_pause(const bal_http *h, const char *url, const bal_http_outcome *got, double *wait)
{
    char host[200];
    double seconds = got->retry_after > 0 ? got->retry_after : *wait;
    bal_http_host(url, host, sizeof host);
    seconds = seconds > k_longest_wait ? k_longest_wait : seconds;
    *wait *= 2;
    bal_log_line(h->o.log, BAL_LOG_WARN, "%s: %s%ld; trying again in %.1f s", host,
                 got->curl == CURLE_OK ? "status " : "no answer, error ",
                 got->curl == CURLE_OK ? got->code : (long)got->curl, seconds);
    return bal_http_wait(seconds) ? BAL_OK : bal_fail(BAL_EINTERRUPT, "stopped");
}

static bal_status send_with(bal_http *h, CURL *c, const bal_http_request *q, bal_http_reply *r)
{
    bal_http_outcome got = {0};
    double wait = h->o.back_off;
    for (r->tries = 1;; r->tries++) {
        bal_status status = try_once(h, c, q, &r->body, &got);
        if (status != BAL_OK)
            return status;
        r->code = got.code;
        if (bal_interrupted())
            return bal_fail(BAL_EINTERRUPT, "stopped");
        if (got.curl == CURLE_OK && got.code >= 200 && got.code < 300)
            return BAL_OK;
        if (got.too_long || !bal_http_worth_another(&got) || r->tries >= h->o.tries)
            return bal_http_failure(h, q->url, &got, &r->body, r->tries);
        status = bal_http_pause(h, q->url, &got, &wait);
        if (status != BAL_OK)
            return status;
    }
}

bal_status bal_http_send(bal_http *h, const bal_http_request *request, bal_http_reply *reply)
{
    CURL *c = curl_easy_init();
    if (c == NULL)
        return bal_fail(BAL_ENOMEM, "out of memory");
    bal_status status = send_with(h, c, request, reply);
    curl_easy_cleanup(c);
    return status;
}

/* --- many --- */

typedef struct batch {
    bal_http *h;
    const bal_http_request *requests;
    bal_http_reply *replies;
    size_t n, next;
    pthread_mutex_t lock;
    void (*done)(void *context, size_t i);
    void *context;
} batch;

static void *work(void *context)
{
    batch *b = context;
    CURL *c = curl_easy_init(); /* connections are used again */
    for (;;) {
        (void)pthread_mutex_lock(&b->lock);
        size_t i = b->next < b->n ? b->next++ : b->n;
        (void)pthread_mutex_unlock(&b->lock);
        if (i == b->n)
            break;
        bal_http_reply *r = &b->replies[i];
        r->status = c == NULL ? bal_fail(BAL_ENOMEM, "out of memory") : send_with(b->h, c, &b->requests[i], r);
        if (r->status != BAL_OK)
            (void)snprintf(r->message, sizeof r->message, "%.500s", bal_error_message());
        (void)pthread_mutex_lock(&b->lock);
        if (b->done != NULL)
            b->done(b->context, i);
        (void)pthread_mutex_unlock(&b->lock);
    }
    curl_easy_cleanup(c);
    return NULL;
}

bal_status bal_http_send_all(bal_http *h, const bal_http_request *requests, size_t n, bal_http_reply *replies,
                             void (*done)(void *context, size_t i), void *context)
{
    batch b = {h, requests, replies, n, 0, PTHREAD_MUTEX_INITIALIZER, done, context};
    pthread_t threads[MAX_THREADS];
    size_t started = 0, wanted = h->o.at_once < n ? h->o.at_once : n;
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, work, &b) == 0)
        started++;
    (void)work(&b); /* this thread too */
    for (size_t i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
    (void)pthread_mutex_destroy(&b.lock);
    return bal_interrupted() ? bal_fail(BAL_EINTERRUPT, "stopped") : BAL_OK;
}
