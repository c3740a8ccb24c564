/* One HTTP client, over libcurl: time limits, retries with back-off and Retry-After, bounded bodies, one clear sentence
 * for each way a server fails.  A key goes to the host it was given for and nowhere else: not to a host that is
 * redirected to, not into a message.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NET_HTTP_H
#define BAL_NET_HTTP_H

#include "lib/base/log.h"
#include "lib/base/status.h"
#include "lib/base/str.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct bal_http bal_http;

/* 0 or NULL: the value in brackets. */
typedef struct bal_http_options {
    const char *key;        /* sent as "Authorization: Bearer"; NULL: none */
    const char *key_name;   /* the environment variable that it came from, for messages */
    double connect_seconds; /* [20] */
    double seconds;         /* of one try [300] */
    double back_off;        /* before the second try; doubled each time, at most 60 [1]; Retry-After comes first */
    int tries;              /* [6] */
    size_t max_bytes;       /* of a body [64 MiB] */
    size_t at_once;         /* requests at a time in bal_http_send_all() [4] */
    const bal_log *log;     /* says when it waits; NULL: silent */
} bal_http_options;

bal_status bal_http_open(bal_http **out, const bal_http_options *options);
void bal_http_close(bal_http *h); /* accepts NULL */

typedef struct bal_http_request {
    const char *url;  /* http:// or https:// */
    const char *body; /* JSON to POST; NULL: GET */
} bal_http_request;

typedef struct bal_http_reply {
    long code; /* 200 ... */
    bal_buf body;
    int tries;
    bal_status status; /* of bal_http_send_all() */
    char message[512]; /* of a status that is not BAL_OK */
} bal_http_reply;

/* One request, tried until it is answered.  BAL_OK only for 2xx.  400, 404, 422: BAL_EINVAL or BAL_ENOENT at once;
 * 401, 403: BAL_EINVAL naming the key's variable; 429, 5xx, time-outs, broken connections: tried again, then BAL_EIO;
 * a body over max_bytes BAL_ELIMIT; Ctrl-C BAL_EINTERRUPT.  The message names the host, never the key. */
bal_status bal_http_send(bal_http *h, const bal_http_request *request, bal_http_reply *reply);
/* n requests, at_once at a time; replies[i] of requests[i] with its status.  done, if not NULL, is called after each,
 * by one thread at a time.  BAL_OK when all were tried, also if some failed. */
bal_status bal_http_send_all(bal_http *h, const bal_http_request *requests, size_t n, bal_http_reply *replies,
                             void (*done)(void *context, size_t i), void *context);
void bal_http_reply_dispose(bal_http_reply *r);

#endif
