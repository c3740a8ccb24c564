/* Judges: models behind an OpenAI-compatible server that grade answers, as FastChat's llm_judge does for MT-Bench.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_JUDGE_H
#define BAL_EVALUATE_JUDGE_H

#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/store.h"
#include "lib/net/http.h"

#include <stdbool.h>
#include <stddef.h>

/* The rating in a judgement: the first [[x]], else the first [x]; -1 if there is none.  A number that Python does not
 * read ("08") counts as none. */
double judge_rating(const char *judgement);
/* 'A', 'B', 'C' (a tie) or 0 for none: the first of "[[A]]", "[[B]]", "[[C]]" in this order that occurs. */
char judge_winner(const char *judgement);

/* One conversation to be completed. */
typedef struct chat_message {
    const char *role, *content;
} chat_message;

/* A client of one model: answers come from the store when the same request was answered before. */
typedef struct chat_client {
    bal_http *http;
    bal_store *store; /* NULL: nothing is kept */
    char *url;        /* .../chat/completions */
    const char *model;
    size_t n_sent, n_cached;
} chat_client;

/* A base URL is http or https and holds no password: it is kept with the run. */
bal_status chat_check_url(const char *base_url, const char *key_env);
/* base_url: "https://host/v1".  The key is read from the environment variable key_env. */
bal_status chat_client_open(chat_client *c, bal_store *store, const char *base_url, const char *model,
                            const char *key_env, const bal_http_options *options);
void chat_client_close(chat_client *c);
/* Appends the body of a request. */
bal_status chat_body(const chat_client *c, const chat_message *messages, size_t n, double temperature, int max_tokens,
                     bal_buf *body);
/* Sends n bodies; texts[i] is the answer to bodies[i], NULL (errors[i] says why) where the server failed for good.  The
 * caller frees both by bal_free().  A refused key or a wrong address ends it at once. */
bal_status chat_complete(chat_client *c, const bal_buf *bodies, size_t n, char **texts, char **errors);
/* choices[0].message.content of a reply. */
bal_status chat_content(const char *reply, size_t n, const char *where, char **out);

#endif
