/* Bodies that are handed on as they come, and that go on where they broke.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/net/http_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { MOST_OF_ERROR = 4096, MAX_LITTLE = 1000 };
static const uint64_t k_much = 1 << 20; /* bytes after which a try was worth it */

/* One try. */
typedef struct stream {
    bal_http_download *d;
    CURL *c;
    bal_buf error; /* the start of a body that is not the file */
    uint64_t from; /* what the server's answer begins with, by Content-Range */
    bool ranged;   /* the answer has a Content-Range */
    bool begun;    /* the first bytes have come */
    bool too_long;
    bal_status status; /* of the caller's function, or of what the server sends */
} stream;

static void keep_header(const bal_http_download *d, const char *line, size_t n)
{
    for (size_t i = 0; d->names != NULL && d->names[i] != NULL; i++) {
        size_t name = strlen(d->names[i]);
        if (n <= name || line[name] != ':' || strncasecmp(line, d->names[i], name) != 0 || d->values[i][0] != '\0')
            continue;
        size_t at = name + 1, used = 0;
        while (at < n && (line[at] == ' ' || line[at] == '\t'))
            at++;
        while (n > at && (unsigned char)line[n - 1] <= ' ')
            n--;
        for (; at < n && used + 1 < BAL_HTTP_VALUE_BYTES; at++)
            d->values[i][used++] = line[at];
        d->values[i][used] = '\0';
    }
}

static size_t see_header(char *data, size_t size, size_t n, void *context)
{
    static const char range[] = "content-range: bytes ";
    stream *s = context;
    size_t bytes = size * n, name = sizeof range - 1;
    if (bytes > 5 && strncmp(data, "HTTP/", 5) == 0)
        s->ranged = false; /* another answer, after a redirect */
    if (bytes > name && strncasecmp(data, range, name) == 0) {
        char number[24];
        size_t digits = 0;
        for (; digits + 1 < sizeof number && name + digits < bytes && data[name + digits] >= '0' &&
               data[name + digits] <= '9';
             digits++)
            number[digits] = data[name + digits];
        number[digits] = '\0';
        s->ranged = digits > 0;
        s->from = strtoull(number, NULL, 10);
    }
    keep_header(s->d, data, bytes);
    return bytes;
}

/* The answer begins where we asked, or from the beginning: then what is there is given up. */
static bal_status begin(stream *s)
{
    bal_http_download *d = s->d;
    s->begun = true;
    if (s->ranged && s->from == d->have)
        return BAL_OK;
    if (s->ranged && s->from != 0) {
        char host[200];
        bal_http_host(d->url, host, sizeof host);
        return bal_fail(BAL_EFORMAT, "%s sends bytes from %" PRIu64 " on where %" PRIu64 " was asked for", host,
                        s->from, d->have);
    }
    if (d->have == 0)
        return BAL_OK;
    d->have = 0;
    return d->restart != NULL ? d->restart(d->context) : BAL_OK;
}

static size_t take(char *data, size_t size, size_t n, void *context)
{
    stream *s = context;
    bal_http_download *d = s->d;
    size_t bytes = size * n;
    (void)curl_easy_getinfo(s->c, CURLINFO_RESPONSE_CODE, &d->code);
    if (d->code < 200 || d->code >= 300) { /* what the server has to say about a failure */
        size_t room = s->error.len < MOST_OF_ERROR ? MOST_OF_ERROR - s->error.len : 0;
        (void)bal_buf_append(&s->error, data, bytes < room ? bytes : room);
        return bytes;
    }
    s->status = s->begun ? BAL_OK : begin(s);
    if (s->status == BAL_OK && d->size > 0 && bytes > d->size - d->have)
        s->too_long = true;
    else if (s->status == BAL_OK)
        s->status = d->take(d->context, data, bytes);
    if (s->too_long || s->status != BAL_OK)
        return 0;
    d->have += bytes;
    return bytes;
}

static bal_status try_once(const bal_http *h, stream *s, bal_http_outcome *got)
{
    bal_http_download *d = s->d;
    struct curl_slist *headers = NULL;
    curl_off_t wait = 0;
    char range[40];
    bal_buf_clear(&s->error);
    s->ranged = s->begun = s->too_long = false;
    d->code = 0;
    for (size_t i = 0; d->names != NULL && d->names[i] != NULL; i++)
        d->values[i][0] = '\0';
    bal_status status = bal_http_headers(h, false, &headers);
    bool bad = !bal_http_prepare(h, s->c, d->url, headers) || !bal_http_follow(s->c);
    bad |= curl_easy_setopt(s->c, CURLOPT_LOW_SPEED_LIMIT, 1L) != CURLE_OK;
    bad |= curl_easy_setopt(s->c, CURLOPT_LOW_SPEED_TIME, (long)(h->o.silent_seconds + 0.999)) != CURLE_OK;
    bad |= curl_easy_setopt(s->c, CURLOPT_HEADERFUNCTION, see_header) != CURLE_OK;
    bad |= curl_easy_setopt(s->c, CURLOPT_HEADERDATA, (void *)s) != CURLE_OK;
    bad |= curl_easy_setopt(s->c, CURLOPT_WRITEFUNCTION, take) != CURLE_OK;
    bad |= curl_easy_setopt(s->c, CURLOPT_WRITEDATA, (void *)s) != CURLE_OK;
    if (d->have > 0) {
        (void)snprintf(range, sizeof range, "%" PRIu64 "-", d->have);
        bad |= curl_easy_setopt(s->c, CURLOPT_RANGE, range) != CURLE_OK;
    }
    if (bad && status == BAL_OK)
        status = bal_http_fail_option();
    if (status == BAL_OK) {
        *got = (bal_http_outcome){.curl = curl_easy_perform(s->c)};
        (void)curl_easy_getinfo(s->c, CURLINFO_RESPONSE_CODE, &got->code);
        (void)curl_easy_getinfo(s->c, CURLINFO_RETRY_AFTER, &wait);
        got->retry_after = (double)wait;
        d->code = got->code;
    }
    curl_slist_free_all(headers);
    return status;
}

static bal_status too_long(const bal_http_download *d)
{
    char host[200];
    bal_http_host(d->url, host, sizeof host);
    return bal_fail(BAL_EFORMAT, "%s sends more than the %" PRIu64 " bytes that it announced", host, d->size);
}

/* BAL_OK with *again when the try is to be repeated. */
static bal_status judge(bal_http *h, stream *s, bal_http_outcome *got, uint64_t before, bool *again)
{
    bal_http_download *d = s->d;
    bool fine = got->curl == CURLE_OK && got->code >= 200 && got->code < 300;
    *again = false;
    if (bal_interrupted())
        return bal_fail(BAL_EINTERRUPT, "stopped");
    if (s->too_long)
        return too_long(d);
    if (s->status != BAL_OK)
        return s->status;
    if (fine && (d->size == 0 || d->have == d->size))
        return BAL_OK;
    if (got->curl == CURLE_OK && got->code == 416 && d->have > 0) { /* what is there does not fit: from the start */
        d->have = 0;
        *again = true;
        d->tries++;
        return d->restart != NULL ? d->restart(d->context) : BAL_OK;
    }
    if (fine)
        got->curl = CURLE_PARTIAL_FILE;
    if (d->have > before && d->have - before >= k_much)
        d->tries = 0;
    bool nobody = got->curl == CURLE_COULDNT_RESOLVE_HOST || got->curl == CURLE_COULDNT_CONNECT;
    *again = bal_http_worth_another(got) && d->tries < (d->soon && nobody && h->o.tries > 2 ? 2 : h->o.tries);
    if (*again)
        return BAL_OK;
    bal_status status = bal_http_failure(h, d->url, got, &s->error, d->tries);
    if (got->curl == CURLE_PARTIAL_FILE && d->size > 0)
        (void)bal_fail_note(status, "the file ends after %" PRIu64 " of %" PRIu64 " bytes", d->have, d->size);
    return status;
}

bal_status bal_http_download_run(bal_http *h, bal_http_download *d)
{
    stream s = {.d = d, .c = curl_easy_init()};
    bal_http_outcome got = {0};
    double wait = h->o.back_off;
    bool again = true;
    if (s.c == NULL)
        return bal_fail(BAL_ENOMEM, "out of memory");
    bal_status status = BAL_OK;
    d->tries = 0;
    for (int n = 0; again && status == BAL_OK; n++) {
        uint64_t before = d->have;
        d->tries++;
        status = try_once(h, &s, &got);
        if (status == BAL_OK)
            status = judge(h, &s, &got, before, &again);
        if (status == BAL_OK && d->tries == 0)
            wait = h->o.back_off;
        if (status == BAL_OK && again && n >= MAX_LITTLE)
            status = bal_http_failure(h, d->url, &got, &s.error, n);
        else if (status == BAL_OK && again && got.code != 416)
            status = bal_http_pause(h, d->url, &got, &wait);
    }
    curl_easy_cleanup(s.c);
    bal_buf_dispose(&s.error);
    return status;
}
