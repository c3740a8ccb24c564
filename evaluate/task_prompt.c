/* Prompts as lm-evaluation-harness assembles them: worked examples, the item, conversation turns.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/task.h"

#include "lib/base/mem.h"
#include "lib/text/chat.h"
#include "lib/text/spaces.h"

#include <string.h>

/* Whether a row of data.train is the item itself, which must not be its own example.  Rows of one file are compared by
 * what they hold, so that copies of the item are left out too; the rows of two files (GLUE), which the published sets
 * number, by their place as well. */
static bool is_itself(const task *t, size_t row, size_t i)
{
    return t->same_split && (t->one_file || row == i) && cJSON_Compare(t->train.items[row], t->test.items[i], true);
}

/* Draws as Python's random.Random(seed).sample: n of the pool; with same_split one more, the item itself is left out.
 * Where copies of it leave too few, they are drawn from the rows that are none. */
static void draw_random(task *t, size_t i)
{
    size_t n = t->num_fewshot + (t->same_split ? 1 : 0), pool = 0;
    bal_mt_sample(&t->shots, t->train.n, n, t->drawn, t->scratch);
    for (size_t k = 0; k < n && t->n_shots < t->num_fewshot; k++)
        if (!is_itself(t, t->drawn[k], i))
            t->shot_rows[t->n_shots++] = t->drawn[k];
    if (t->n_shots == t->num_fewshot)
        return;
    t->n_shots = 0;
    for (size_t row = 0; row < t->train.n; row++)
        if (!is_itself(t, row, i))
            t->pool[pool++] = (uint32_t)row;
    if (pool < t->num_fewshot)
        return;
    bal_mt_sample(&t->shots, pool, t->num_fewshot, t->drawn, t->scratch);
    for (; t->n_shots < t->num_fewshot; t->n_shots++)
        t->shot_rows[t->n_shots] = t->pool[t->drawn[t->n_shots]];
}

/* The first rows of data.train; with "shots_by" those that agree with the item in that field. */
static void draw_first(task *t, size_t i)
{
    const char *by = NULL;
    (void)bal_json_text(t->json, t->name, "shots_by", &by, NULL);
    const cJSON *want = by == NULL ? NULL : task_member(t->test.items[i], by);
    for (size_t k = 0; k < t->train.n && t->n_shots < t->num_fewshot; k++)
        if ((want == NULL || cJSON_Compare(task_member(t->train.items[k], by), want, true)) && !is_itself(t, k, i))
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
    if (t->n_shots < t->num_fewshot && bal_json_member(t->json, "shots_by") == NULL)
        return bal_fail(BAL_EINVAL, "task '%s': without item %zu itself there are %zu worked examples, not %zu",
                        t->name, i, t->n_shots, t->num_fewshot);
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

/* Two texts need something between them: there is a first one, and no white space where they meet. */
static bool need_delimiter(const bal_buf *a, const bal_buf *b)
{
    return a->len > 0 && b->len > 0 && bal_space_last(a->data, a->len) == 0 && bal_space_first(b->data, b->len) == 0;
}

/* Appends a and b, with the delimiter between them where they need one. */
static bal_status put_joined(const bal_buf *a, const bal_buf *b, const char *delimiter, bal_buf *out)
{
    bal_status status;
    BAL_TRY(bal_buf_append(out, bal_buf_cstr(a), a->len));
    if (need_delimiter(a, b))
        BAL_TRY(bal_buf_text(out, delimiter));
    status = bal_buf_append(out, bal_buf_cstr(b), b->len);
out:
    return status;
}

/* A question and what is known of its answer: of a worked example all of it, of the item what "gen_prefix" begins. */
typedef struct turn {
    bal_buf question, answer;
    const char *between; /* in plain text */
} turn;

static void turn_dispose(turn *u)
{
    bal_buf_dispose(&u->question);
    bal_buf_dispose(&u->answer);
}

static bal_status read_turn(const task *t, const cJSON *row, bool shot, turn *u)
{
    bal_buf prefix = {0}, answer = {0};
    bal_status status;
    BAL_TRY(put_question(t, row, &u->question));
    if (t->gen_prefix != NULL)
        BAL_TRY(task_render(t->gen_prefix, row, t->name, &prefix, NULL));
    if (shot)
        BAL_TRY(put_shot_answer(t, row, &answer));
    u->between = (prefix.len > 0 ? need_delimiter(&u->question, &prefix) : answer.len > 0) ? t->target_delimiter : "";
    status = put_joined(&prefix, &answer, " ", &u->answer);
out:
    bal_buf_dispose(&prefix);
    bal_buf_dispose(&answer);
    return status;
}

/* The system's words: the user's, then the task's description. */
static bal_status put_system(const task *t, const cJSON *row, const chat_form *form, bal_buf *out)
{
    bal_buf given = {0}, description = {0};
    bal_status status = BAL_OK;
    if (form->system != NULL)
        BAL_TRY(bal_buf_text(&given, form->system));
    if (t->description != NULL)
        BAL_TRY(task_render(t->description, row, t->name, &description, NULL));
    status = put_joined(&given, &description, t->fewshot_delimiter, out);
out:
    bal_buf_dispose(&given);
    bal_buf_dispose(&description);
    return status;
}

/* The worked examples in plain text. */
static bal_status put_shots(const task *t, bal_buf *out)
{
    turn u = {0};
    bal_status status = BAL_OK;
    for (size_t k = 0; k < t->n_shots; k++) {
        turn_dispose(&u);
        u = (turn){0};
        BAL_TRY(read_turn(t, shot_row(t, k), true, &u));
        BAL_TRY(bal_buf_append(out, bal_buf_cstr(&u.question), u.question.len));
        BAL_TRY(bal_buf_text(out, u.between));
        BAL_TRY(bal_buf_append(out, bal_buf_cstr(&u.answer), u.answer.len));
        if (u.answer.len > 0)
            BAL_TRY(bal_buf_text(out, t->fewshot_delimiter));
    }
out:
    turn_dispose(&u);
    return status;
}

static bal_status put_plain(const task *t, const cJSON *row, const chat_form *form, bal_buf *out)
{
    turn u = {0};
    bal_status status;
    BAL_TRY(put_system(t, row, form, out));
    BAL_TRY(put_shots(t, out));
    BAL_TRY(read_turn(t, row, false, &u));
    BAL_TRY(bal_buf_append(out, bal_buf_cstr(&u.question), u.question.len));
    BAL_TRY(bal_buf_text(out, u.between));
    status = bal_buf_append(out, bal_buf_cstr(&u.answer), u.answer.len);
out:
    turn_dispose(&u);
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

/* What a template makes of a conversation whose last message the model goes on with, as transformers cuts it: a mark is
 * put behind that message, and the text ends there. */
static bal_status render_begun(const bal_tokenizer *tokenizer, bal_message *messages, size_t n, bal_buf *out)
{
    static const char mark[] = "CONTINUE_FINAL_MESSAGE_TAG ";
    const size_t length = sizeof mark - 2; /* a template may take the space away */
    bal_buf text = {0}, last = {0};
    const char *given = messages[n - 1].content, *at = NULL;
    bal_status status;
    BAL_TRY(bal_buf_printf(&last, "%s%s", given, mark));
    messages[n - 1].content = bal_buf_cstr(&last);
    BAL_TRY(bal_chat_render(tokenizer, messages, n, false, &text));
    for (const char *p = bal_buf_cstr(&text); (p = memmem(p, strlen(p), mark, length)) != NULL; p++)
        at = p;
    if (at == NULL) {
        status = bal_fail(BAL_EUNSUPPORTED, "the chat template does not show the beginning of the answer as it is");
        goto out;
    }
    size_t kept = (size_t)(at - text.data);
    if (at[length] != ' ')
        bal_strip_right(text.data, &kept);
    status = bal_buf_append(out, text.data, kept);
out:
    messages[n - 1].content = given;
    bal_buf_dispose(&text);
    bal_buf_dispose(&last);
    return status;
}

static bal_status render(const chat_form *form, bal_message *messages, size_t n, bool begun, bal_buf *out)
{
    if (form->tokenizer == NULL)
        return put_messages(messages, n, out);
    return begun ? render_begun(form->tokenizer, messages, n, out)
                 : bal_chat_render(form->tokenizer, messages, n, true, out);
}

/* The messages of a conversation; texts holds what they point to. */
static bal_status put_chat(const task *t, const cJSON *row, const chat_form *form, bal_buf *out)
{
    size_t most = 2 * t->n_shots + 3, n = 0, before = out->len;
    bal_message *messages = bal_alloc(most, sizeof *messages);
    turn *turns = bal_alloc(t->n_shots + 1, sizeof *turns);
    bal_buf system = {0}, user = {0};
    bal_status status = BAL_ENOMEM;
    if (messages == NULL || turns == NULL)
        goto out;
    BAL_TRY(put_system(t, row, form, &system));
    if (system.len > 0)
        messages[n++] = (bal_message){"system", bal_buf_cstr(&system)};
    for (size_t k = 0; k < t->n_shots && form->multiturn; k++) {
        BAL_TRY(read_turn(t, shot_row(t, k), true, &turns[k]));
        messages[n++] = (bal_message){"user", bal_buf_cstr(&turns[k].question)};
        if (turns[k].answer.len > 0)
            messages[n++] = (bal_message){"assistant", bal_buf_cstr(&turns[k].answer)};
    }
    if (!form->multiturn)
        BAL_TRY(put_shots(t, &user));
    turn *own = &turns[t->n_shots];
    BAL_TRY(read_turn(t, row, false, own));
    BAL_TRY(bal_buf_append(&user, bal_buf_cstr(&own->question), own->question.len));
    messages[n++] = (bal_message){"user", bal_buf_cstr(&user)};
    bool begun = own->answer.len > 0;
    if (begun)
        messages[n++] = (bal_message){"assistant", bal_buf_cstr(&own->answer)};
    status = render(form, messages, n, begun, out);
    if (status != BAL_OK && status != BAL_ENOMEM && system.len > 0) { /* a template may refuse the system's words */
        out->len = before;
        status = render(form, messages + 1, n - 1, begun, out);
        if (status == BAL_OK && form->no_system != NULL)
            *form->no_system = true;
    }
out:
    for (size_t k = 0; turns != NULL && k <= t->n_shots; k++)
        turn_dispose(&turns[k]);
    bal_free(turns);
    bal_free(messages);
    bal_buf_dispose(&system);
    bal_buf_dispose(&user);
    return status;
}

bal_status task_prompt(const task *t, size_t i, const chat_form *form, bal_buf *out)
{
    const cJSON *row = t->test.items[i];
    return form->plain ? put_plain(t, row, form, out) : put_chat(t, row, form, out);
}

const char *task_choice_delimiter(const task *t, bool chat)
{
    const char *prefix = t->gen_prefix;
    bool begun = prefix != NULL && *prefix != '\0' && bal_space_last(prefix, strlen(prefix)) == 0;
    return chat && !begun ? "" : t->target_delimiter;
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
    if (t->target_after != NULL)
        bal_strip(&from, &n);
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
    if (cJSON_IsNumber(value) && value->valuedouble >= 0 && value->valuedouble < n &&
        value->valuedouble == (int)value->valuedouble)
        label = (int)value->valuedouble;
    if (cJSON_IsBool(value)) /* as Python counts it */
        label = cJSON_IsTrue(value) ? 1 : 0;
    if (!cJSON_IsString(value))
        return label < n ? label : -1;
    for (int k = 0; label < 0 && k < cJSON_GetArraySize(names); k++) {
        const cJSON *name = cJSON_GetArrayItem(names, k);
        if (cJSON_IsString(name) && strcmp(name->valuestring, value->valuestring) == 0)
            label = k;
    }
    size_t digits = strspn(value->valuestring, "0123456789");
    if (label < 0 && names == NULL && digits > 0 && digits < 9 && value->valuestring[digits] == '\0' &&
        bal_parse_i64(value->valuestring, 0, 1 << 30, &number) == BAL_OK)
        label = (int)number;
    for (int k = 0; label < 0 && names == NULL && k < n; k++) { /* the text of the right choice */
        const cJSON *choice = cJSON_GetArrayItem(choice_list(t, row), k);
        if (cJSON_IsString(choice) && strcmp(choice->valuestring, value->valuestring) == 0)
            label = k;
    }
    return label < n ? label : -1;
}
