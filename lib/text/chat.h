/* Conversations as the text that a chat model was trained on.  Only ChatML templates are rendered (SmolLM2, Qwen);
 * others are refused by name.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_CHAT_H
#define BAL_TEXT_CHAT_H

#include "lib/text/tokenizer.h"

typedef struct bal_message {
    const char *role, *content;
} bal_message;

/* Appends the conversation; generation_prompt adds the opening of the assistant's turn.  The default system message
 * of the template is put first when the conversation does not begin with one. */
bal_status bal_chat_render(const bal_tokenizer *t, const bal_message *messages, size_t n, bool generation_prompt,
                           bal_buf *out);

#endif
