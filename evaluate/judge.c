/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/judge.h"

#include "lib/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number between brackets at s, which begins behind them: \d+\.?\d* followed by close. */
static bool number_at(const char *s, const char *close, double *out)
{
    size_t whole = strspn(s, "0123456789"), n = whole;
    if (whole == 0)
        return false;
    bool point = s[n] == '.';
    if (point) {
        n++;
        n += strspn(s + n, "0123456789");
    }
    if (strncmp(s + n, close, strlen(close)) != 0)
        return false;
    *out = strtod(s, NULL);
    if (!point && s[0] == '0' && *out != 0)
        *out = -1; /* 08: no number of Python's */
    return true;
}

double judge_rating(const char *judgement)
{
    double value = -1;
    for (const char *p = strstr(judgement, "[["); p != NULL; p = strstr(p + 1, "[["))
        if (number_at(p + 2, "]]", &value))
            return value;
    for (const char *p = strchr(judgement, '['); p != NULL; p = strchr(p + 1, '['))
        if (number_at(p + 1, "]", &value))
            return value;
    return -1;
}

char judge_winner(const char *judgement)
{
    return strstr(judgement, "[[A]]") != NULL   ? 'A'
           : strstr(judgement, "[[B]]") != NULL ? 'B'
           : strstr(judgement, "[[C]]") != NULL ? 'C'
                                                : 0;
}

bal_status chat_body(const api_client *c, const chat_message *messages, size_t n, double temperature, int max_tokens,
                     bal_buf *body)
{
    bal_status status;
    BAL_TRY(bal_buf_text(body, "{\"model\": "));
    BAL_TRY(bal_json_put_text(body, c->model));
    BAL_TRY(bal_buf_text(body, ", \"messages\": ["));
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(bal_buf_printf(body, "%s{\"role\": \"%s\", \"content\": ", i == 0 ? "" : ", ", messages[i].role));
        BAL_TRY(bal_json_put_text(body, messages[i].content));
        BAL_TRY(bal_buf_text(body, "}"));
    }
    BAL_TRY(bal_buf_text(body, "], \"n\": 1, \"temperature\": "));
    BAL_TRY(bal_json_put_f64(body, temperature));
    status = bal_buf_printf(body, ", \"max_tokens\": %d}", max_tokens);
out:
    return status;
}

/* choices[0].message.content of each reply. */
typedef struct contents {
    char **texts;
} contents;

static bal_status take_content(void *context, size_t i, const char *reply, size_t n)
{
    const contents *c = context;
    cJSON *json = NULL;
    const cJSON *choice = NULL;
    bal_status status = api_choice(reply, n, &json, &choice);
    if (status != BAL_OK)
        return status;
    const cJSON *content = bal_json_member(bal_json_member(choice, "message"), "content");
    if (!cJSON_IsString(content))
        status = bal_fail(BAL_EFORMAT, "the server's reply has no choices[0].message.content");
    else if ((c->texts[i] = bal_strdup(content->valuestring)) == NULL)
        status = BAL_ENOMEM;
    cJSON_Delete(json);
    return status;
}

bal_status chat_complete(api_client *c, const bal_buf *bodies, size_t n, char **texts, char **errors)
{
    contents kept = {texts};
    for (size_t i = 0; i < n; i++)
        texts[i] = NULL;
    return api_send(c, "/chat/completions", bodies, n, take_content, &kept, errors);
}
