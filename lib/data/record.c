/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/data/record.h"

#include "lib/base/mem.h"
#include "lib/text/chat.h"

#include <string.h>

static const char *const k_formats[] = {"auto",           "prompt", "alpaca", "gsm8k",
                                        "gsm8k_metamath", "chat",   "text",   "tokens"};
static const char *const k_templates[] = {"auto", "alpaca", "chat", "chatml", "question", "none"};
static const char *const k_suffixes[] = {"eos", "newline_eos", "none"};

static bal_status parse(const char *what, const char *text, const char *const *names, size_t n, size_t *out)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, names[i]) == 0) {
            *out = i;
            return BAL_OK;
        }
    const char *near = bal_nearest(text, names, n);
    return bal_fail(BAL_EINVAL, "'%s' is no %s%s%s%s", text, what, near != NULL ? "; did you mean '" : "",
                    near != NULL ? near : "", near != NULL ? "'?" : "");
}

bal_status bal_data_parse_format(const char *text, bal_data_format *out)
{
    size_t i = 0;
    bal_status status = parse("data format", text, k_formats, BAL_DATA_FORMAT_COUNT, &i);
    *out = (bal_data_format)i;
    return status;
}

bal_status bal_data_parse_template(const char *text, bal_data_template *out)
{
    size_t i = 0;
    bal_status status = parse("template", text, k_templates, sizeof k_templates / sizeof *k_templates, &i);
    *out = (bal_data_template)i;
    return status;
}

bal_status bal_data_parse_suffix(const char *text, bal_data_suffix *out)
{
    size_t i = 0;
    bal_status status = parse("target suffix", text, k_suffixes, 3, &i);
    *out = (bal_data_suffix)i;
    return status;
}

const char *bal_data_format_name(bal_data_format f)
{
    return k_formats[f];
}

void bal_record_dispose(bal_record *r)
{
    if (r == NULL)
        return;
    bal_buf_dispose(&r->text);
    r->n = 0;
}

static bool has(const cJSON *object, const char *key)
{
    return bal_json_member(object, key) != NULL;
}

static const char *const k_prompts[] = {"prompt", "query", "question", "instruction"};
static const char *const k_responses[] = {"response", "completion", "answer", "output"};

static const char *first_key(const cJSON *object, const char *const *keys, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (has(object, keys[i]))
            return keys[i];
    return NULL;
}

bal_status bal_record_detect(const cJSON *object, const char *where, bal_data_format *out)
{
    const cJSON *answer = bal_json_member(object, "answer");
    bool marked = cJSON_IsString(answer) && strstr(answer->valuestring, "####") != NULL;
    if (has(object, "input_ids"))
        *out = BAL_DATA_TOKENS;
    else if (has(object, "messages") || has(object, "conversations"))
        *out = BAL_DATA_CHAT;
    else if (has(object, "question") && marked)
        *out = BAL_DATA_GSM8K;
    else if (has(object, "instruction"))
        *out = BAL_DATA_ALPACA;
    else if (first_key(object, k_prompts, 3) != NULL)
        *out = BAL_DATA_PROMPT;
    else if (has(object, "text"))
        *out = BAL_DATA_TEXT;
    else
        return bal_fail(BAL_EFORMAT,
                        "%s: no known fields; a record has prompt and response, instruction and output, question and "
                        "answer, messages, text, or input_ids",
                        where);
    return BAL_OK;
}

static bal_status text_of(const cJSON *object, const char *where, const char *const *keys, size_t n, const char **out)
{
    const char *key = first_key(object, keys, n);
    if (key == NULL)
        return bal_fail(BAL_EFORMAT, "%s: key '%s' is missing", where, keys[0]);
    return bal_json_text(object, where, key, out, NULL);
}

static bal_status end_piece(bal_record *r, const char *where, bool labelled)
{
    if (r->n == BAL_MAX_PIECES)
        return bal_fail(BAL_ELIMIT, "%s: more than %d messages", where, BAL_MAX_PIECES / 2);
    r->pieces[r->n++] = (bal_piece){r->text.len, labelled};
    return BAL_OK;
}

bal_status bal_alpaca_prompt(bal_buf *out, const char *instruction, const char *input)
{
    if (input == NULL || input[0] == '\0')
        return bal_buf_printf(out,
                              "Below is an instruction that describes a task. Write a response that appropriately "
                              "completes the request.\n\n### Instruction:\n%s\n\n### Response:",
                              instruction);
    return bal_buf_printf(out,
                          "Below is an instruction that describes a task, paired with an input that provides further "
                          "context. Write a response that appropriately completes the request.\n\n### Instruction:\n%s"
                          "\n\n### Input:\n%s\n\n### Response:",
                          instruction, input);
}

bal_status bal_gsm8k_plain(bal_buf *out, const char *text, size_t n)
{
    bal_status status = BAL_OK;
    size_t from = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        if (text[i] != '<' || text[i + 1] != '<')
            continue;
        size_t end = i + 2;
        while (end + 1 < n && !(text[end] == '>' && text[end + 1] == '>') && text[end] != '\n')
            end++;
        if (end + 1 >= n || text[end] == '\n')
            continue; /* never closed: it is text */
        BAL_TRY(bal_buf_append(out, text + from, i - from));
        from = end + 2;
        i = from - 1;
    }
    BAL_TRY(bal_buf_append(out, text + from, n - from));
out:
    return status;
}

static bal_status metamath_answer(bal_buf *out, const char *answer, const char *where)
{
    bal_status status = BAL_OK;
    const char *mark = NULL;
    for (const char *p = strstr(answer, "####"); p != NULL; p = strstr(p + 4, "####"))
        mark = p;
    if (mark == NULL)
        return bal_fail(BAL_EFORMAT, "%s: the answer has no '#### N' line, which gsm8k_metamath needs", where);
    size_t n = (size_t)(mark - answer);
    while (n > 0 && strchr(" \n\r\t", answer[n - 1]) != NULL)
        n--;
    const char *value = mark + 4;
    while (*value == ' ')
        value++;
    size_t m = strlen(value);
    while (m > 0 && strchr(" \n\r\t", value[m - 1]) != NULL)
        m--;
    BAL_TRY(bal_gsm8k_plain(out, answer, n));
    BAL_TRY(bal_buf_text(out, n > 0 ? "\nThe answer is: " : "The answer is: "));
    BAL_TRY(bal_buf_append(out, value, m));
out:
    return status;
}

/* The default system message of a ChatML template: the literal between "<|im_start|>system\n" and "<|im_end|>". */
static bal_status default_system(bal_buf *out, const char *chat_template)
{
    bal_status status = BAL_OK;
    static const char open[] = "<|im_start|>system", close[] = "<|im_end|>";
    const char *from = chat_template != NULL ? strstr(chat_template, open) : NULL;
    const char *end = from != NULL ? strstr(from, close) : NULL;
    if (end == NULL)
        return BAL_OK;
    from += sizeof open - 1;
    for (const char *p = from; p < end; p++)
        if (*p == '{' || *p == '\'' || *p == '"' || *p == '+')
            return BAL_OK; /* an expression, not a literal */
    BAL_TRY(bal_buf_text(out, open));
    for (const char *p = from; p < end; p++) {
        bool newline = p[0] == '\\' && p[1] == 'n';
        BAL_TRY(bal_buf_append(out, newline ? "\n" : p, 1));
        p += newline;
    }
    BAL_TRY(bal_buf_printf(out, "%s\n", close));
out:
    return status;
}

static bal_status put_message(bal_record *r, const char *where, const char *role, const char *content)
{
    bal_status status = BAL_OK;
    bool answer = strcmp(role, "assistant") == 0;
    BAL_TRY(bal_buf_printf(&r->text, "<|im_start|>%s\n", role));
    if (answer)
        BAL_TRY(end_piece(r, where, false));
    BAL_TRY(bal_buf_printf(&r->text, "%s<|im_end|>", content));
    if (answer)
        BAL_TRY(end_piece(r, where, true));
    BAL_TRY(bal_buf_text(&r->text, "\n"));
out:
    return status;
}

static const char *chat_role(const char *role)
{
    static const char *const pairs[][2] = {{"human", "user"}, {"gpt", "assistant"}, {"bot", "assistant"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (strcmp(role, pairs[i][0]) == 0)
            return pairs[i][1];
    return role;
}

static bal_status read_chat(bal_record *r, const cJSON *object, const char *where, const bal_tokenizer *tokenizer)
{
    bal_status status = BAL_OK;
    const cJSON *list = bal_json_member(object, "messages");
    if (list == NULL)
        list = bal_json_member(object, "conversations");
    if (!cJSON_IsArray(list))
        return bal_fail(BAL_EFORMAT, "%s: key 'messages' must be an array of {role, content}", where);
    static const char *const roles[] = {"role", "from"}, *const contents[] = {"content", "value"};
    bool first = true;
    for (const cJSON *m = list->child; m != NULL; m = m->next) {
        const char *role = "", *content = "";
        if (!cJSON_IsObject(m))
            return bal_fail(BAL_EFORMAT, "%s: a message must be an object with role and content", where);
        BAL_TRY(text_of(m, where, roles, 2, &role));
        BAL_TRY(text_of(m, where, contents, 2, &content));
        role = chat_role(role);
        if (first && strcmp(role, "system") != 0 && tokenizer != NULL)
            BAL_TRY(default_system(&r->text, bal_tokenizer_chat_template(tokenizer)));
        first = false;
        BAL_TRY(put_message(r, where, role, content));
    }
    if (r->text.len > 0)
        BAL_TRY(end_piece(r, where, false));
out:
    return status;
}

/* A message with the keys role and content, whatever it calls them. */
static cJSON *plain_message(const cJSON *m)
{
    static const char *const names[][2] = {{"from", "role"}, {"value", "content"}};
    cJSON *copy = cJSON_Duplicate(m, true);
    for (size_t i = 0; i < 2 && cJSON_IsObject(copy); i++) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(copy, names[i][0]));
        if (text == NULL || has(copy, names[i][1]))
            continue;
        if (cJSON_AddStringToObject(copy, names[i][1], i == 0 ? chat_role(text) : text) == NULL) {
            cJSON_Delete(copy);
            return NULL;
        }
        cJSON_DeleteItemFromObjectCaseSensitive(copy, names[i][0]);
    }
    return copy;
}

/* A conversation through the model's chat template. */
static bal_status put_conversation(bal_record *r, const cJSON *list, const cJSON *object, const char *where,
                                   const bal_tokenizer *tokenizer)
{
    bal_chat_options o = {.tools = bal_json_member(object, "tools"), .documents = bal_json_member(object, "documents")};
    bal_stretches assistant = {0};
    bal_status status = bal_chat_apply(tokenizer, list, &o, &r->text, &assistant);
    r->whole = true;
    if (status == BAL_OK && 2 * assistant.n + 1 > BAL_MAX_PIECES)
        status = bal_fail(BAL_ELIMIT, "more than %d turns of the assistant", BAL_MAX_PIECES / 2 - 1);
    for (size_t i = 0; status == BAL_OK && i < assistant.n; i++) {
        r->pieces[r->n++] = (bal_piece){assistant.items[i].begin, false};
        r->pieces[r->n++] = (bal_piece){assistant.items[i].end, true};
    }
    bal_stretches_dispose(&assistant);
    return status == BAL_OK ? end_piece(r, where, false) : bal_fail_note(status, "%s", where);
}

static bal_status read_conversation(bal_record *r, const cJSON *object, const char *where,
                                    const bal_tokenizer *tokenizer)
{
    const cJSON *given = bal_json_member(object, "messages");
    given = given != NULL ? given : bal_json_member(object, "conversations");
    cJSON *list = cJSON_CreateArray();
    bal_status status = list != NULL ? BAL_OK : bal_fail(BAL_ENOMEM, "out of memory");
    if (!cJSON_IsArray(given))
        status = bal_fail(BAL_EFORMAT, "%s: key 'messages' must be an array of {role, content}", where);
    for (const cJSON *m = status == BAL_OK ? given->child : NULL; m != NULL && status == BAL_OK; m = m->next) {
        if (!cJSON_IsObject(m)) {
            status = bal_fail(BAL_EFORMAT, "%s: a message must be an object with role and content", where);
            break;
        }
        cJSON *copy = plain_message(m);
        if (copy == NULL || !cJSON_AddItemToArray(list, copy)) {
            cJSON_Delete(copy);
            status = bal_fail(BAL_ENOMEM, "out of memory");
        }
    }
    if (status == BAL_OK)
        status = put_conversation(r, list, object, where, tokenizer);
    cJSON_Delete(list);
    return status;
}

/* Prompt and response as the turns of a conversation. */
static bal_status read_two_turns(bal_record *r, const char *where, const char *user, const char *response,
                                 const bal_tokenizer *tokenizer)
{
    const char *const texts[2][2] = {{"user", user}, {"assistant", response}};
    cJSON *list = cJSON_CreateArray();
    bool ok = list != NULL;
    for (size_t i = 0; i < 2 && ok; i++) {
        cJSON *m = cJSON_CreateObject();
        ok = m != NULL && cJSON_AddStringToObject(m, "role", texts[i][0]) != NULL &&
             cJSON_AddStringToObject(m, "content", texts[i][1]) != NULL && cJSON_AddItemToArray(list, m);
        if (!ok)
            cJSON_Delete(m);
    }
    bal_status status = ok ? put_conversation(r, list, NULL, where, tokenizer) : bal_fail(BAL_ENOMEM, "out of memory");
    cJSON_Delete(list);
    return status;
}

static bal_status put_pair(bal_record *r, const char *where, const char *prompt, const char *response,
                           bal_data_suffix suffix, const char *eos)
{
    bal_status status = BAL_OK;
    BAL_TRY(bal_buf_text(&r->text, prompt));
    BAL_TRY(end_piece(r, where, false));
    BAL_TRY(bal_buf_text(&r->text, response));
    if (suffix != BAL_SUFFIX_NONE)
        BAL_TRY(bal_buf_printf(&r->text, "%s%s", suffix == BAL_SUFFIX_NEWLINE_EOS ? "\n" : "", eos));
    BAL_TRY(end_piece(r, where, true));
out:
    return status;
}

/* Prompt (and Alpaca input) and response of the formats that have them; scratch keeps a rewritten response. */
static bal_status read_pair(const cJSON *object, const char *where, bal_data_format format, const char **prompt,
                            const char **input, const char **response, bal_buf *scratch)
{
    bal_status status = BAL_OK;
    static const char *const instruction[] = {"instruction", "prompt"}, *const output[] = {"output", "response",
                                                                                           "completion"};
    static const char *const question[] = {"question"}, *const answer[] = {"answer"};
    bool alpaca = format == BAL_DATA_ALPACA, pair = format == BAL_DATA_PROMPT;
    *prompt = *response = "";
    *input = NULL;
    BAL_TRY(text_of(object, where,
                    alpaca ? instruction
                    : pair ? k_prompts
                           : question,
                    alpaca ? 2
                    : pair ? 4
                           : 1,
                    prompt));
    BAL_TRY(text_of(object, where, alpaca ? output : pair ? k_responses : answer, alpaca ? 3 : pair ? 4 : 1, response));
    if (alpaca)
        BAL_TRY(bal_json_text(object, where, "input", input, NULL));
    if (format == BAL_DATA_GSM8K_METAMATH) {
        BAL_TRY(metamath_answer(scratch, *response, where));
        *response = bal_buf_cstr(scratch);
    }
out:
    return status;
}

static bal_status read_turns(bal_record *r, const char *where, const char *prompt, const char *input,
                             const char *response, const bal_tokenizer *tokenizer, bool by_template)
{
    bal_status status = BAL_OK;
    bal_buf user = {0};
    BAL_TRY(bal_buf_text(&user, prompt));
    if (input != NULL && input[0] != '\0')
        BAL_TRY(bal_buf_printf(&user, "\n\n%s", input));
    if (by_template) {
        status = read_two_turns(r, where, bal_buf_cstr(&user), response, tokenizer);
        goto out;
    }
    if (tokenizer != NULL)
        BAL_TRY(default_system(&r->text, bal_tokenizer_chat_template(tokenizer)));
    BAL_TRY(put_message(r, where, "user", bal_buf_cstr(&user)));
    BAL_TRY(put_message(r, where, "assistant", response));
    BAL_TRY(end_piece(r, where, false));
out:
    bal_buf_dispose(&user);
    return status;
}

static bal_status read_text(bal_record *r, const cJSON *object, const char *where, bal_data_suffix suffix,
                            const char *eos)
{
    static const char *const keys[] = {"text", "content"};
    const char *text = "";
    bal_status status = text_of(object, where, keys, 2, &text);
    if (status == BAL_OK)
        status = bal_buf_printf(&r->text, "%s%s%s", text, suffix == BAL_SUFFIX_NEWLINE_EOS ? "\n" : "",
                                suffix == BAL_SUFFIX_NONE ? "" : eos);
    return status == BAL_OK ? end_piece(r, where, true) : status;
}

static bal_status wrap(bal_buf *out, bal_data_template template, const char *prompt, const char *input)
{
    if (template == BAL_TEMPLATE_ALPACA)
        return bal_alpaca_prompt(out, prompt, input);
    if (template == BAL_TEMPLATE_QUESTION)
        return bal_buf_printf(out, "Question: %s\nAnswer:", prompt);
    bool more = input != NULL && input[0] != '\0';
    return bal_buf_printf(out, "%s%s%s", prompt, more ? "\n" : "", more ? input : "");
}

bal_status bal_record_read(bal_record *r, const cJSON *object, const char *where, bal_data_format format,
                           bal_data_template template, bal_data_suffix suffix, const char *eos,
                           const bal_tokenizer *tokenizer)
{
    bal_status status = BAL_OK;
    bal_buf scratch = {0}, wrapped = {0}, spaced = {0};
    const char *prompt = NULL, *input = NULL, *response = NULL;
    bal_buf_clear(&r->text);
    r->n = 0;
    r->whole = false;
    if (format == BAL_DATA_TEXT)
        return read_text(r, object, where, suffix, eos);
    bool by_template = template == BAL_TEMPLATE_CHAT;
    if (format == BAL_DATA_CHAT && template == BAL_TEMPLATE_AUTO && tokenizer != NULL)
        by_template = bal_tokenizer_chat_template(tokenizer) != NULL;
    if (by_template && tokenizer == NULL)
        return bal_fail(BAL_EINVAL, "%s: the template 'chat' needs the model's tokenizer", where);
    if (format == BAL_DATA_CHAT)
        return by_template ? read_conversation(r, object, where, tokenizer) : read_chat(r, object, where, tokenizer);
    if (template == BAL_TEMPLATE_AUTO)
        template = format == BAL_DATA_PROMPT ? BAL_TEMPLATE_NONE : BAL_TEMPLATE_ALPACA;
    BAL_TRY(read_pair(object, where, format, &prompt, &input, &response, &scratch));
    if (by_template || template == BAL_TEMPLATE_CHATML) {
        BAL_TRY(read_turns(r, where, prompt, input, response, tokenizer, by_template));
    } else {
        BAL_TRY(wrap(&wrapped, template, prompt, input));
        if (template == BAL_TEMPLATE_QUESTION)
            BAL_TRY(bal_buf_printf(&spaced, " %s", response));
        response = template == BAL_TEMPLATE_QUESTION ? bal_buf_cstr(&spaced) : response;
        BAL_TRY(put_pair(r, where, bal_buf_cstr(&wrapped), response, suffix, eos));
    }
out:
    bal_buf_dispose(&scratch);
    bal_buf_dispose(&wrapped);
    bal_buf_dispose(&spaced);
    return status;
}
