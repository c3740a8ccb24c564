/* Conversations as the text that a chat model was trained on: the model's chat template, rendered as transformers'
 * apply_chat_template does.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_CHAT_H
#define BAL_TEXT_CHAT_H

#include "lib/text/jinja.h"
#include "lib/text/tokenizer.h"

typedef struct bal_message {
    const char *role, *content;
} bal_message;

typedef struct bal_chat_options {
    const char *chat_template; /* NULL: the tokenizer's */
    const cJSON *tools;        /* a list of JSON schemas, NULL: none */
    const cJSON *documents;    /* a list of mappings, NULL: none */
    const cJSON *extra;        /* an object: more variables (chat_template_kwargs), NULL: none */
    bool generation_prompt;    /* adds the opening of the assistant's turn */
    int64_t now;               /* what strftime_now shows, seconds since 1970; 0: the present */
} bal_chat_options;

/* Appends the conversation messages[0..n).  A model without a template is given the plain ChatML form if its vocabulary
 * has <|im_start|>.  BAL_EUNSUPPORTED: no template, or one that needs what is not known here; BAL_EFORMAT: the template
 * is wrong, or refuses the conversation; BAL_ELIMIT: it does not end. */
bal_status bal_chat_render(const bal_tokenizer *t, const bal_message *messages, size_t n, bool generation_prompt,
                           bal_buf *out);

/* The same of a JSON list of messages, which may hold more than role and content (tool_calls, reasoning_content).
 * assistant (may be NULL): the stretches of out that the assistant wrote, for labels: those of {% generation %} if the
 * template has it; otherwise each assistant turn from where a generation prompt ends to the token that closes the turn,
 * this one included. */
bal_status bal_chat_apply(const bal_tokenizer *t, const cJSON *messages, const bal_chat_options *o, bal_buf *out,
                          bal_stretches *assistant);

#endif
