/* Judges: models behind an OpenAI-compatible server that grade answers, as FastChat's llm_judge does for MT-Bench.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_JUDGE_H
#define BAL_EVALUATE_JUDGE_H

#include "evaluate/api.h"

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

/* Appends the body of a request. */
bal_status chat_body(const api_client *c, const chat_message *messages, size_t n, double temperature, int max_tokens,
                     bal_buf *body);
/* Sends n bodies; texts[i] is the answer to bodies[i], NULL (errors[i] says why) where the server failed for good.  The
 * caller frees both by bal_free().  A refused key or a wrong address ends it at once. */
bal_status chat_complete(api_client *c, const bal_buf *bodies, size_t n, char **texts, char **errors);
#endif
