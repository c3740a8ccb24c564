/* Prompts as lm-evaluation-harness assembles them: worked examples, the item, conversation turns.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/task.h"

#include "lib/base/mem.h"
#include "lib/text/chat.h"

#include <string.h>

/* Draws as Python's random.Random(1234).sample: n of the pool; with same_split one more, the item itself is left out. */
static void draw_random(task *t, size_t i)
{
    size_t n = t->num_fewshot + (t->same_split ? 1 : 0);
    bal_mt_sample(&t->shots, t->train.n, n, t->drawn, t->scratch);
    for (size_t k = 0; k < n && t->n_shots < t->num_fewshot; k++) {
        size_t row = t->drawn[k];
        bool itself = t->same_split && row == i && cJSON_Compare(t->train.items[row], t->test.items[i], true);
        if (!itself)
            t->shot_rows[t->n_shots++] = row;
    }
}

/* The first rows of data.train; with "shots_by" those that agree with the item in that field. */
static void draw_first(task *t, size_t i)
{
    const char *by = NULL;
    (void)bal_json_text(t->json, t->name, "shots_by", &by, NULL);
    const cJSON *want = by == NULL ? NULL : task_member(t->test.items[i], by);
    for (size_t k = 0; k < t->train.n && t->n_shots < t->num_fewshot; k++)
        if (want == NULL || cJSON_Compare(task_member(t->train.items[k], by), want, true))
            t->shot_rows[t->n_shots++] = k;
}

bal_status task_draw(task *t, size_t i)
{
    t->n_shots = 0;
    if (t->num_fewshot == 0)
        return BAL_OK;
    if (t->draws)
        draw_random(t, i);
    else if (t->train.n > 0)
        draw_first(t, i);
    else
        for (; t->n_shots < t->num_fewshot; t->n_shots++)
            t->shot_rows[t->n_shots] = t->n_shots;
    return BAL_OK;
}

static const cJSON *shot_row(const task *t, size_t k)
{
    if (t->train.n > 0)
        return t->train.items[t->shot_rows[k]];
    return cJSON_GetArrayItem(bal_json_member(t->json, "samples"), (int)t->shot_rows[k]);
}

/* The question's text of a row. */
static bal_status put_question(const task *t, const cJSON *row, bal_buf *out)
{
    bal_buf plain = {0};
    bal_status status;
    if (t->prompt_transform == NULL)
        return task_render(t->prompt, row, t->name, out, NULL);
    BAL_TRY(task_render(t->prompt, row, t->name, &plain, NULL));
    status = task_transform(t->prompt_transform, bal_buf_cstr(&plain), plain.len, out);
out:
    bal_buf_dispose(&plain);
    return status;
}

/* The answer of a worked example. */
static bal_status put_shot_answer(const task *t, const cJSON *row, bal_buf *out)
{
    if (t->shot_target != NULL)
        return task_render(t->shot_target, row, t->name, out, NULL);
    if (t->choices != NULL) {
        int label = task_label(t, row);
        if (label < 0)
            return bal_fail(BAL_EFORMAT, "%s: a worked example has no right answer", t->name);
        return task_choice(t, row, (size_t)label, out);
    }
    return task_render(t->target, row, t->name, out, NULL);
}

static bal_status put_plain(const task *t, const cJSON *row, bal_buf *out)
{
    bal_status status;
    if (t->description != NULL)
        BAL_TRY(task_render(t->description, row, t->name, out, NULL));
    for (size_t k = 0; k < t->n_shots; k++) {
        BAL_TRY(put_question(t, shot_row(t, k), out));
        BAL_TRY(bal_buf_text(out, t->target_delimiter));
        BAL_TRY(put_shot_answer(t, shot_row(t, k), out));
        BAL_TRY(bal_buf_text(out, t->fewshot_delimiter));
    }
    BAL_TRY(put_question(t, row, out));
    if (t->gen_prefix != NULL) {
        BAL_TRY(bal_buf_text(out, t->target_delimiter));
        BAL_TRY(task_render(t->gen_prefix, row, t->name, out, NULL));
    }
out:
    return status;
}

/* As JSON, for a server that has the template. */
static bal_status put_messages(const bal_message *messages, size_t n, bal_buf *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(bal_buf_printf(out, "%s{\"role\": \"%s\", \"content\": ", i == 0 ? "[" : ", ", messages[i].role));
        BAL_TRY(bal_json_put_text(out, messages[i].content));
        BAL_TRY(bal_buf_text(out, "}"));
    }
    status = bal_buf_text(out, "]");
out:
    return status;
}

/* The messages of a conversation; texts holds what they point to. */
static bal_status put_chat(const task *t, const cJSON *row, const chat_form *chat, bal_buf *out)
{
    size_t most = 2 * t->n_shots + 2, n = 0;
    bal_message *messages = bal_alloc(most, sizeof *messages);
    bal_buf *texts = bal_alloc(most, sizeof *texts);
    bal_status status = BAL_ENOMEM;
    if (messages == NULL || texts == NULL)
        goto out;
    bal_buf *system = &texts[n];
    if (chat->system != NULL)
        BAL_TRY(bal_buf_text(system, chat->system));
    if (t->description != NULL)
        BAL_TRY(task_render(t->description, row, t->name, system, NULL));
    if (system->len > 0) {
        messages[n] = (bal_message){"system", bal_buf_cstr(system)};
        n++;
    }
    for (size_t k = 0; k < t->n_shots && chat->multiturn; k++) {
        BAL_TRY(put_question(t, shot_row(t, k), &texts[n]));
        messages[n] = (bal_message){"user", bal_buf_cstr(&texts[n])};
        n++;
        BAL_TRY(put_shot_answer(t, shot_row(t, k), &texts[n]));
        messages[n] = (bal_message){"assistant", bal_buf_cstr(&texts[n])};
        n++;
    }
    for (size_t k = 0; k < t->n_shots && !chat->multiturn; k++) {
        BAL_TRY(put_question(t, shot_row(t, k), &texts[n]));
        BAL_TRY(bal_buf_text(&texts[n], t->target_delimiter));
        BAL_TRY(put_shot_answer(t, shot_row(t, k), &texts[n]));
        BAL_TRY(bal_buf_text(&texts[n], t->fewshot_delimiter));
    }
    BAL_TRY(put_question(t, row, &texts[n]));
    messages[n] = (bal_message){"user", bal_buf_cstr(&texts[n])};
    n++;
    if (chat->tokenizer == NULL) {
        status = put_messages(messages, n, out);
        goto out;
    }
    BAL_TRY(bal_chat_render(chat->tokenizer, messages, n, true, out));
    if (t->gen_prefix != NULL)
        BAL_TRY(task_render(t->gen_prefix, row, t->name, out, NULL));
out:
    for (size_t i = 0; texts != NULL && i < most; i++)
        bal_buf_dispose(&texts[i]);
    bal_free(texts);
    bal_free(messages);
    return status;
}

bal_status task_prompt(const task *t, size_t i, const chat_form *chat, bal_buf *out)
{
    const cJSON *row = t->test.items[i];
    return chat == NULL ? put_plain(t, row, out) : put_chat(t, row, chat, out);
}

bal_status task_target(const task *t, size_t i, bal_buf *out, bool *found)
{
    const cJSON *row = t->test.items[i];
    bal_buf whole = {0};
    bal_status status;
    *found = true;
    if (t->choices != NULL) {
        int label = task_label(t, row);
        *found = label >= 0;
        return label < 0 ? BAL_OK : task_choice(t, row, (size_t)label, out);
    }
    if (t->target == NULL)
        return BAL_OK;
    BAL_TRY(task_render(t->target, row, t->name, &whole, found));
    const char *from = bal_buf_cstr(&whole), *mark;
    while (t->target_after != NULL && (mark = strstr(from, t->target_after)) != NULL)
        from = mark + strlen(t->target_after);
    size_t n = strlen(from);
    if (t->target_after != NULL) {
        while (n > 0 && (*from == ' ' || *from == '\n')) {
            from++;
            n--;
        }
        while (n > 0 && (from[n - 1] == ' ' || from[n - 1] == '\n'))
            n--;
    }
    *found = *found && n > 0;
    status = bal_buf_append(out, from, n);
out:
    bal_buf_dispose(&whole);
    return status;
}

/* The list of choices in the row, if the task names a field. */
static const cJSON *choice_list(const task *t, const cJSON *row)
{
    return cJSON_IsString(t->choices) ? task_member(row, t->choices->valuestring) : t->choices;
}

size_t task_n_choices(const task *t, const cJSON *row)
{
    const cJSON *list = choice_list(t, row);
    return cJSON_IsArray(list) ? (size_t)cJSON_GetArraySize(list) : 0;
}

bal_status task_choice(const task *t, const cJSON *row, size_t k, bal_buf *out)
{
    const cJSON *choice = cJSON_GetArrayItem(choice_list(t, row), (int)k);
    bal_buf plain = {0};
    bal_status status;
    if (!cJSON_IsString(choice))
        return bal_fail(BAL_EFORMAT, "%s: choice %zu of an item is not a text", t->name, k);
    if (cJSON_IsString(t->choices)) /* texts of the data are no templates */
        BAL_TRY(bal_buf_text(&plain, choice->valuestring));
    else
        BAL_TRY(task_render(choice->valuestring, row, t->name, &plain, NULL));
    status = t->choice_transform == NULL ? bal_buf_append(out, bal_buf_cstr(&plain), plain.len)
                                         : task_transform(t->choice_transform, bal_buf_cstr(&plain), plain.len, out);
out:
    bal_buf_dispose(&plain);
    return status;
}

int task_label(const task *t, const cJSON *row)
{
    const cJSON *value = cJSON_IsString(t->label) ? task_member(row, t->label->valuestring) : t->label;
    const cJSON *names = cJSON_IsString(t->labels) ? task_member(row, t->labels->valuestring) : t->labels;
    int n = (int)task_n_choices(t, row), label = -1;
    int64_t number = -1;
    if (cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < n)
        label = (int)value->valuedouble;
    if (!cJSON_IsString(value))
        return label;
    for (int k = 0; label < 0 && k < cJSON_GetArraySize(names); k++) {
        const cJSON *name = cJSON_GetArrayItem(names, k);
        if (cJSON_IsString(name) && strcmp(name->valuestring, value->valuestring) == 0)
            label = k;
    }
    size_t digits = strspn(value->valuestring, "0123456789");
    if (label < 0 && names == NULL && digits > 0 && digits < 9 && value->valuestring[digits] == '\0' &&
        bal_parse_i64(value->valuestring, 0, 1 << 30, &number) == BAL_OK)
        label = (int)number;
    return label < n ? label : -1;
}
