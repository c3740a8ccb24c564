/* A client of one model behind an OpenAI-compatible server: judges, and models under test.  Replies are kept in the run
 * database by the hash of their request, so that a request is sent once.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_API_H
#define BAL_EVALUATE_API_H

#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/store.h"
#include "lib/net/http.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct api_client {
    bal_http *http;
    bal_store *store; /* NULL: nothing is kept */
    char *base;       /* ".../v1" */
    const char *model;
    size_t n_sent, n_cached;
} api_client;

/* A base URL is http or https and holds no password: it is kept with the run. */
bal_status api_check_url(const char *base_url, const char *key_env);
/* base_url: "https://host/v1".  The key is read from the environment variable key_env. */
bal_status api_open(api_client *c, bal_store *store, const char *base_url, const char *model, const char *key_env,
                    const bal_http_options *options);
void api_close(api_client *c);

/* Takes reply[0..n) (NUL-terminated) to request i, by one thread at a time.  BAL_EFORMAT: it is not what was asked for, and
 * not kept; any other failure ends the sending. */
typedef bal_status api_take(void *context, size_t i, const char *reply, size_t n);
/* Sends n bodies to base + page ("/chat/completions"), or takes what is in the store.  errors[i]: why request i failed for
 * good, else NULL; the caller frees by bal_free().  A refused key or a wrong address ends it at once. */
bal_status api_send(api_client *c, const char *page, const bal_buf *bodies, size_t n, api_take *take, void *context,
                    char **errors);
/* GET base + page, never kept. */
bal_status api_get(api_client *c, const char *page, bal_http_reply *reply);
/* choices[0] of a reply in *choice, the reply itself in *json (to be freed by cJSON_Delete()).  BAL_EFORMAT. */
bal_status api_choice(const char *reply, size_t n, cJSON **json, const cJSON **choice);

#endif
