/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/chat.h"

#include <string.h>

static const char k_open[] = "<|im_start|>", k_close[] = "<|im_end|>";

/* The system message that a ChatML template writes by itself: the text after the literal opening of a system turn in
 * the template, up to its close. */
static bool default_system(const char *chat_template, const char **text, size_t *n)
{
    static const char lead[] = "<|im_start|>system";
    const char *at = strstr(chat_template, lead);
    if (at == NULL)
        return false;
    at += sizeof lead - 1;
    if (strncmp(at, "\\n", 2) == 0) /* templates quote it in a Jinja string */
        at += 2;
    else if (*at == '\n')
        at++;
    else
        return false;
    const char *end = strstr(at, k_close);
    if (end == NULL || memchr(at, '\'', (size_t)(end - at)) != NULL) /* an expression, not a plain text */
        return false;
    *text = at;
    *n = (size_t)(end - at);
    return true;
}

static bal_status put_turn(const char *role, const char *content, size_t n, bal_buf *out)
{
    bal_status status = bal_buf_printf(out, "%s%s\n", k_open, role);
    if (status == BAL_OK)
        status = bal_buf_append(out, content, n);
    return status == BAL_OK ? bal_buf_printf(out, "%s\n", k_close) : status;
}

bal_status bal_chat_render(const bal_tokenizer *t, const bal_message *messages, size_t n, bool generation_prompt,
                           bal_buf *out)
{
    const char *template = bal_tokenizer_chat_template(t);
    const char *system = NULL;
    size_t n_system = 0;
    bal_status status = BAL_OK;
    if (template != NULL ? strstr(template, k_open) == NULL : bal_tokenizer_id(t, k_open) < 0)
        return bal_fail(
            BAL_EUNSUPPORTED,
            "the model's chat template is not ChatML (<|im_start|> ... <|im_end|>); give the prompt as plain text");
    if (n > 0 && strcmp(messages[0].role, "system") != 0 && template != NULL &&
        default_system(template, &system, &n_system))
        status = put_turn("system", system, n_system, out);
    for (size_t i = 0; i < n && status == BAL_OK; i++)
        status = put_turn(messages[i].role, messages[i].content, strlen(messages[i].content), out);
    if (generation_prompt && status == BAL_OK)
        status = bal_buf_printf(out, "%sassistant\n", k_open);
    return status;
}
