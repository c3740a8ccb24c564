/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/chat.h"

#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <string.h>

static const char k_chatml[] = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + "
                               "message['content'] + '<|im_end|>' + '\\n' }}"
                               "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

static bal_status out_of_memory(void)
{
    return bal_fail(BAL_ENOMEM, "out of memory: a conversation");
}

static bal_status find_template(const bal_tokenizer *t, const bal_chat_options *o, const char **out)
{
    *out = o->chat_template != NULL                       ? o->chat_template
           : o->tools != NULL && t->tool_template != NULL ? t->tool_template
                                                          : bal_tokenizer_chat_template(t);
    if (*out == NULL && bal_tokenizer_id(t, "<|im_start|>") >= 0)
        *out = k_chatml;
    return *out != NULL ? BAL_OK
                        : bal_fail(BAL_EUNSUPPORTED, "the model has no chat template (tokenizer_config.json, "
                                                     "chat_template.jinja); give the prompt as plain text");
}

/* One message as the template sees it: reasoning under the names that templates read, without keys that say null. */
static cJSON *copy_message(const cJSON *m)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    cJSON *copy = cJSON_Duplicate(m, true);
    const cJSON *reasoning = NULL;
    for (cJSON *e = copy != NULL ? copy->child : NULL, *next; e != NULL; e = next) { /* null: as if it was not there */
        next = e->next;
        if (cJSON_IsObject(copy) && cJSON_IsNull(e))
            cJSON_Delete(cJSON_DetachItemViaPointer(copy, e));
    }
    for (size_t i = 0; i < 3 && reasoning == NULL && cJSON_IsObject(m); i++)
        reasoning = bal_json_member(m, names[i]);
    for (size_t i = 0; i < 2 && reasoning != NULL && copy != NULL; i++) {
        if (i == 1 && cJSON_GetObjectItemCaseSensitive(copy, names[i]) != NULL)
            continue;
        cJSON_DeleteItemFromObjectCaseSensitive(copy, names[i]);
        cJSON *value = cJSON_Duplicate(reasoning, true);
        if (value == NULL || !cJSON_AddItemToObject(copy, names[i], value)) {
            cJSON_Delete(value);
            cJSON_Delete(copy);
            return NULL;
        }
    }
    return copy;
}

static bool add(cJSON *context, const char *key, cJSON *value)
{
    if (value != NULL && cJSON_GetObjectItemCaseSensitive(context, key) != NULL)
        cJSON_DeleteItemFromObjectCaseSensitive(context, key);
    if (value != NULL && cJSON_AddItemToObject(context, key, value))
        return true;
    cJSON_Delete(value);
    return false;
}

/* The template's variables, with the first n messages. */
static cJSON *make_context(const bal_tokenizer *t, const cJSON *messages, size_t n, const bal_chat_options *o,
                           bool prompt)
{
    cJSON *context = cJSON_CreateObject(), *list = cJSON_CreateArray();
    bool ok = context != NULL && list != NULL;
    const cJSON *m = messages->child;
    for (size_t i = 0; i < n && m != NULL && ok; i++, m = m->next) {
        cJSON *copy = copy_message(m);
        ok = copy != NULL && cJSON_AddItemToArray(list, copy);
    }
    for (size_t i = 0; i < BAL_NAMED_TOKENS && ok; i++)
        if (t->named[i] != NULL)
            ok = add(context, bal_named_tokens[i], cJSON_CreateString(t->named[i]));
    for (const cJSON *e = o->extra != NULL ? o->extra->child : NULL; e != NULL && ok; e = e->next)
        ok = add(context, e->string, cJSON_Duplicate(e, true));
    ok = ok && add(context, "tools", o->tools != NULL ? cJSON_Duplicate(o->tools, true) : cJSON_CreateNull());
    ok = ok &&
         add(context, "documents", o->documents != NULL ? cJSON_Duplicate(o->documents, true) : cJSON_CreateNull());
    ok = ok && add(context, "add_generation_prompt", cJSON_CreateBool(prompt));
    if (ok && add(context, "messages", list))
        return context;
    if (!ok)
        cJSON_Delete(list);
    cJSON_Delete(context);
    return NULL;
}

static bal_status render(const bal_tokenizer *t, const cJSON *messages, size_t n, const bal_chat_options *o,
                         bool prompt, bal_buf *out, bal_stretches *generation)
{
    const char *template = NULL;
    bal_status status = find_template(t, o, &template);
    if (status != BAL_OK)
        return status;
    cJSON *context = make_context(t, messages, n, o, prompt);
    if (context == NULL)
        return out_of_memory();
    status = bal_jinja_render(template, strlen(template), context, o->now, out, generation);
    cJSON_Delete(context);
    return status;
}

static size_t common(const bal_buf *a, const char *b, size_t n)
{
    size_t i = 0;
    while (i < a->len && i < n && a->data[i] == b[i])
        i++;
    return i;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Behind the special token that closes the turn, when one follows text[at] after white space; else at. */
static size_t behind_close(const bal_tokenizer *t, const char *text, size_t at, size_t n)
{
    size_t i = at;
    while (i < n && is_blank(text[i]))
        i++;
    bal_added_scan scan = {.at = i, .done = i};
    const bal_added *a = i < n ? bal_added_find(&t->raw, text, n, &scan) : NULL;
    return a != NULL && scan.begin == i && t->tokens[a->id].special ? scan.done : at;
}

/* Where the assistant's turn m, the i-th message, stands in text[0..n). */
static bal_status turn_stretch(const bal_tokenizer *t, const cJSON *messages, size_t i, const cJSON *m,
                               const bal_chat_options *o, const char *text, size_t n, bal_stretches *out)
{
    bal_buf before = {0}, after = {0};
    const char *content = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "content"));
    size_t begin, end = 0, m_content = content != NULL ? strlen(content) : 0;
    bal_status status;
    BAL_TRY(render(t, messages, i, o, true, &before, NULL));
    begin = common(&before, text, n);
    while (m_content > 0 && is_blank(content[m_content - 1]))
        m_content--;
    while (m_content > 0 && is_blank(content[0])) {
        content++;
        m_content--;
    }
    const char *hit = content != NULL ? memmem(text + begin, n - begin, content, m_content) : NULL;
    for (const char *p = content;
         hit == NULL && p != NULL && p + 8 <= content + m_content;) { /* thoughts were cut off */
        p = memmem(p, (size_t)(content + m_content - p), "</think>", 8);
        if (p == NULL)
            break;
        p += 8;
        while (p < content + m_content && is_blank(*p))
            p++;
        m_content = (size_t)(content + m_content - p);
        content = p;
        hit = memmem(text + begin, n - begin, content, m_content);
    }
    if (hit != NULL) {
        begin = begin == before.len ? begin : (size_t)(hit - text);
        end = behind_close(t, text, (size_t)(hit - text) + m_content, n);
    } else { /* calls of tools, reasoning: the conversation up to this turn must be a beginning of the whole */
        BAL_TRY(render(t, messages, i + 1, o, false, &after, NULL));
        end = common(&after, text, n);
        if (end < after.len || begin < before.len)
            BAL_TRY(bal_fail(BAL_EUNSUPPORTED,
                             "the chat template rewrites the assistant's message %zu, so its labels cannot be placed; "
                             "use a template with {%% generation %%}, or another template",
                             i + 1));
        while (end > begin && is_blank(text[end - 1]))
            end--;
    }
    status = bal_stretches_add(out, begin, end);
out:
    bal_buf_dispose(&before);
    bal_buf_dispose(&after);
    return status;
}

bal_status bal_chat_apply(const bal_tokenizer *t, const cJSON *messages, const bal_chat_options *o, bal_buf *out,
                          bal_stretches *assistant)
{
    size_t n = (size_t)cJSON_GetArraySize(messages), from = out->len, i = 0;
    bal_stretches found = {0};
    bal_status status = BAL_OK;
    if (!cJSON_IsArray(messages))
        return bal_fail(BAL_EFORMAT, "a conversation must be a list of messages");
    BAL_TRY(render(t, messages, n, o, o->generation_prompt, out, assistant));
    if (assistant == NULL || assistant->n > 0)
        goto out;
    for (const cJSON *m = messages->child; m != NULL; m = m->next, i++) {
        const char *role = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "role"));
        if (role == NULL || strcmp(role, "assistant") != 0)
            continue;
        BAL_TRY(turn_stretch(t, messages, i, m, o, bal_buf_cstr(out) + from, out->len - from, &found));
        bal_stretch s = found.items[found.n - 1];
        size_t last = assistant->n > 0 ? assistant->items[assistant->n - 1].end : from;
        if (from + s.end > last && s.end > s.begin) /* turns side by side may share their opening */
            BAL_TRY(bal_stretches_add(assistant, from + s.begin > last ? from + s.begin : last, from + s.end));
    }
out:
    bal_stretches_dispose(&found);
    return status;
}

bal_status bal_chat_render(const bal_tokenizer *t, const bal_message *messages, size_t n, bool generation_prompt,
                           bal_buf *out)
{
    bal_chat_options o = {.generation_prompt = generation_prompt};
    cJSON *list = cJSON_CreateArray();
    bool ok = list != NULL;
    for (size_t i = 0; i < n && ok; i++) {
        cJSON *m = cJSON_CreateObject();
        ok = m != NULL && cJSON_AddStringToObject(m, "role", messages[i].role) != NULL &&
             cJSON_AddStringToObject(m, "content", messages[i].content) != NULL && cJSON_AddItemToArray(list, m);
        if (!ok)
            cJSON_Delete(m);
    }
    bal_status status = ok ? bal_chat_apply(t, list, &o, out, NULL) : out_of_memory();
    cJSON_Delete(list);
    return status;
}
