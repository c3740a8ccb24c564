/* What the files of the HTTP client share; not for others.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NET_HTTP_IMPL_H
#define BAL_NET_HTTP_IMPL_H

#include "lib/net/curl_open.h"
#include "lib/net/http.h"

struct bal_http {
    bal_http_options o;
    char *key, *key_name;
};

/* What one try came to. */
typedef struct bal_http_outcome {
    CURLcode curl;
    long code;
    double retry_after; /* seconds, 0: not said */
    bool too_long;
} bal_http_outcome;

/* The request's own headers, with the key; to be freed by curl_slist_free_all(). */
bal_status bal_http_headers(const bal_http *h, bool posts, struct curl_slist **out);
/* What every request has; false when libcurl refuses an option: bal_http_fail_option(). */
bool bal_http_prepare(const bal_http *h, CURL *c, const char *url, struct curl_slist *headers);
/* libcurl keeps an Authorization header from another host, port or protocol. */
bool bal_http_follow(CURL *c);
bal_status bal_http_fail_option(void);
/* The one sentence for a try that failed; body: the start of what the server said. */
bal_status bal_http_failure(const bal_http *h, const char *url, const bal_http_outcome *got, const bal_buf *body,
                            int tries);
bool bal_http_worth_another(const bal_http_outcome *got);
/* Sleeps in small steps; false after Ctrl-C. */
bool bal_http_wait(double seconds);
/* Says that it waits, waits, and doubles *wait; BAL_EINTERRUPT after Ctrl-C. */
bal_status bal_http_pause(const bal_http *h, const char *url, const bal_http_outcome *got, double *wait);

#endif
