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
#include <stdint.h>

typedef struct bal_http bal_http;

/* 0 or NULL: the value in brackets. */
typedef struct bal_http_options {
    const char *key;        /* sent as "Authorization: Bearer"; NULL: none */
    const char *key_name;   /* the environment variable that it came from, for messages */
    double connect_seconds; /* [20] */
    double seconds;         /* of one try [300] */
    double silent_seconds;  /* of a download: without a byte for so long the connection counts as broken [30] */
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

enum { BAL_HTTP_VALUE_BYTES = 512 };

/* A GET whose body is handed on as it comes, and which goes on where it broke. */
typedef struct bal_http_download {
    const char *url;
    uint64_t have; /* bytes that are there: the rest is asked for (Range); grows with what comes */
    uint64_t size; /* announced size of the whole; 0: not known */
    bal_status (*take)(void *context, const void *data, size_t n);
    bal_status (*restart)(void *context); /* the body comes from byte 0 again: what was taken does not count */
    void *context;
    const char *const *names;             /* headers to keep, ended by NULL; may be NULL */
    char (*values)[BAL_HTTP_VALUE_BYTES]; /* what the first answer that has it says (before redirects); "" without */
    long code;                            /* of the last answer, 0: none */
    bool soon;                            /* a server that cannot be reached is tried only twice */
    int tries;                            /* of those that brought little */
} bal_http_download;

/* Redirects are followed, without the key to another host, port or scheme.  A try that brought more than 1 MiB does not
 * count as one.  Failures as of bal_http_send(), and: a body over `size` BAL_EFORMAT, one that ends before it BAL_EIO
 * when the tries are used up; a failure of take or restart is passed on. */
bal_status bal_http_download_run(bal_http *h, bal_http_download *d);
/* host:port of an address: no user, path or query. */
void bal_http_host(const char *url, char *out, size_t n);

#endif
