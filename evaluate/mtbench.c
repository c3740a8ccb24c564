/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/mtbench.h"

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"

#include <stdio.h>
#include <string.h>

enum { ANSWER_TOKENS = 1024, JUDGE_TOKENS = 2048 };

double mt_temperature(const char *category)
{
    if (strcmp(category, "writing") == 0 || strcmp(category, "roleplay") == 0)
        return 0.7;
    return strcmp(category, "stem") == 0 || strcmp(category, "humanities") == 0 ? 0.1 : 0;
}

/* Categories that are judged beside a reference answer. */
static bool with_reference(const char *category)
{
    return strcmp(category, "math") == 0 || strcmp(category, "reasoning") == 0 || strcmp(category, "coding") == 0;
}

/* --- files --- */

static bal_status keep_row(mt_bench *m, cJSON *row)
{
    if (m->n_rows == m->cap_rows) {
        size_t cap = m->cap_rows == 0 ? 128 : 2 * m->cap_rows;
        cJSON **grown = bal_realloc(m->rows, cap, sizeof *grown);
        if (grown == NULL) {
            cJSON_Delete(row);
            return BAL_ENOMEM;
        }
        m->rows = grown;
        m->cap_rows = cap;
    }
    m->rows[m->n_rows++] = row;
    return BAL_OK;
}

static bal_status two_texts(const cJSON *list, const char *where, const char *key, const char *out[MT_TURNS])
{
    for (int t = 0; t < MT_TURNS; t++) {
        const cJSON *item = cJSON_GetArrayItem(list, t);
        if (!cJSON_IsArray(list) || !cJSON_IsString(item))
            return bal_fail(BAL_EFORMAT, "%s: key '%s' must be a list of two texts", where, key);
        out[t] = item->valuestring;
    }
    return BAL_OK;
}

typedef bal_status row_fn(void *context, const cJSON *row, const char *where);

/* Calls fn for each line of a file; the rows stay with m. */
static bal_status each_row(mt_bench *m, const char *path, row_fn *fn, void *context)
{
    bal_lines *lines = NULL;
    cJSON *row = NULL;
    char where[512];
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, path));
    for (;;) {
        BAL_TRY(bal_jsonl_next(lines, &row));
        if (row == NULL)
            break;
        (void)snprintf(where, sizeof where, "%.400s, line %zu", path, bal_lines_number(lines));
        BAL_TRY(keep_row(m, row));
        BAL_TRY(fn(context, row, where));
    }
out:
    bal_lines_close(lines);
    return status;
}

static bal_status add_question(void *context, const cJSON *row, const char *where)
{
    mt_bench *m = context;
    bool found = false;
    bal_status status;
    if (m->n == MT_MAX_QUESTIONS)
        return bal_fail(BAL_ELIMIT, "%s: more than %d questions", where, MT_MAX_QUESTIONS);
    mt_question *grown = bal_realloc(m->questions, m->n + 1, sizeof *grown);
    if (grown == NULL)
        return BAL_ENOMEM;
    m->questions = grown;
    mt_question *q = &m->questions[m->n];
    *q = (mt_question){0};
    BAL_TRY(bal_json_i64(row, where, "question_id", 0, (int64_t)1 << 50, &q->id, &found));
    if (found)
        BAL_TRY(bal_json_text(row, where, "category", &q->category, &found));
    if (!found) {
        status = bal_fail(BAL_EFORMAT, "%s: keys 'question_id' and 'category' are needed", where);
        goto out;
    }
    status = two_texts(bal_json_member(row, "turns"), where, "turns", q->turns);
    m->n_all = m->n += status == BAL_OK;
out:
    return status;
}

static mt_question *question_of(mt_bench *m, const cJSON *row)
{
    const cJSON *id = bal_json_member(row, "question_id");
    for (size_t i = 0; cJSON_IsNumber(id) && i < m->n_all; i++)
        if ((double)m->questions[i].id == id->valuedouble)
            return &m->questions[i];
    return NULL;
}

static const cJSON *turns_of(const cJSON *row)
{
    return bal_json_member(cJSON_GetArrayItem(bal_json_member(row, "choices"), 0), "turns");
}

static bal_status add_reference(void *context, const cJSON *row, const char *where)
{
    mt_question *q = question_of(context, row);
    return q == NULL ? BAL_OK : two_texts(turns_of(row), where, "choices[0].turns", q->reference);
}

static bal_status add_prompt(void *context, const cJSON *row, const char *where)
{
    mt_bench *m = context;
    const char *name = NULL, *text = NULL;
    bool found[3] = {false, false, false};
    bal_status status;
    BAL_TRY(bal_json_text(row, where, "name", &name, &found[0]));
    BAL_TRY(bal_json_text(row, where, "system_prompt", &text, &found[1]));
    BAL_TRY(bal_json_text(row, where, "prompt_template", &text, &found[2]));
    if (!found[0] || !found[1] || !found[2])
        return bal_fail(BAL_EFORMAT, "%s: keys 'name', 'system_prompt' and 'prompt_template' are needed", where);
    cJSON *copy = cJSON_Duplicate(row, true);
    if (copy == NULL || !cJSON_AddItemToObject(m->prompts, name, copy)) {
        cJSON_Delete(copy);
        status = bal_fail(BAL_ENOMEM, "out of memory");
    }
out:
    return status;
}

bal_status mt_bench_read(mt_bench *m, const char *data)
{
    static const struct {
        const char *file;
        row_fn *fn;
    } files[] = {{"question.jsonl", add_question},
                 {"reference_answer_gpt-4.jsonl", add_reference},
                 {"judge_prompts.jsonl", add_prompt}};
    bal_status status = BAL_OK;
    char path[600];
    *m = (mt_bench){.prompts = cJSON_CreateObject()};
    if (m->prompts == NULL)
        return bal_fail(BAL_ENOMEM, "out of memory");
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        (void)snprintf(path, sizeof path, "%.500s/mt_bench/%s", data, files[i].file);
        if (!bal_file_exists(path))
            return bal_fail(BAL_ENOENT,
                            "file mt_bench/%s missing in '%.400s' (from lm-sys/FastChat; --data names the folder)",
                            files[i].file, data);
        BAL_TRY(each_row(m, path, files[i].fn, m));
    }
out:
    return status;
}

void mt_bench_dispose(mt_bench *m)
{
    for (size_t i = 0; i < m->n_rows; i++)
        cJSON_Delete(m->rows[i]);
    bal_free(m->rows);
    bal_free(m->questions);
    cJSON_Delete(m->prompts);
    *m = (mt_bench){0};
}

/* --- answers --- */

bal_status mt_answers_init(mt_answers *a, const mt_bench *m)
{
    *a = (mt_answers){.n = m->n * MT_TURNS};
    a->texts = bal_alloc(a->n, sizeof *a->texts);
    return a->texts == NULL ? BAL_ENOMEM : BAL_OK;
}

void mt_answers_dispose(mt_answers *a)
{
    for (size_t i = 0; a->texts != NULL && i < a->n; i++)
        bal_free(a->texts[i]);
    bal_free(a->texts);
    *a = (mt_answers){0};
}

typedef struct reading {
    mt_answers *a;
    mt_bench *m;
} reading;

static bal_status add_answer(void *context, const cJSON *row, const char *where)
{
    reading *r = context;
    const char *turns[MT_TURNS], *model = NULL;
    bal_status status;
    mt_question *q = question_of(r->m, row);
    if (q == NULL)
        return bal_fail(BAL_EFORMAT, "%s: there is no such question_id", where);
    if ((size_t)(q - r->m->questions) >= r->m->n)
        return BAL_OK; /* beyond --limit */
    BAL_TRY(bal_json_text(row, where, "model_id", &model, NULL));
    if (model != NULL)
        (void)snprintf(r->a->model, sizeof r->a->model, "%.100s", model);
    BAL_TRY(two_texts(turns_of(row), where, "choices[0].turns", turns));
    for (int t = 0; t < MT_TURNS; t++) {
        char **slot = &r->a->texts[(size_t)(q - r->m->questions) * MT_TURNS + (size_t)t];
        bal_free(*slot);
        if ((*slot = bal_strdup(turns[t])) == NULL)
            status = BAL_ENOMEM;
    }
out:
    return status;
}

bal_status mt_answers_read(mt_answers *a, const mt_bench *m, const char *path)
{
    mt_bench scratch = *m; /* the rows of the answers are let go at once */
    scratch.rows = NULL;
    scratch.n_rows = scratch.cap_rows = 0;
    reading r = {a, &scratch};
    bal_status status = mt_answers_init(a, m);
    if (status == BAL_OK)
        status = each_row(&scratch, path, add_answer, &r);
    for (size_t i = 0; i < scratch.n_rows; i++)
        cJSON_Delete(scratch.rows[i]);
    bal_free(scratch.rows);
    return status;
}

bal_status mt_answers_write(const mt_answers *a, const mt_bench *m, const char *path)
{
    bal_buf out = {0};
    bal_status status = BAL_OK;
    for (size_t q = 0; q < m->n; q++) {
        if (a->texts[q * MT_TURNS] == NULL || a->texts[q * MT_TURNS + 1] == NULL)
            continue;
        BAL_TRY(bal_buf_printf(&out, "{\"question_id\": %lld, \"answer_id\": \"%lld\", \"model_id\": ",
                               (long long)m->questions[q].id, (long long)m->questions[q].id));
        BAL_TRY(bal_json_put_text(&out, a->model));
        BAL_TRY(bal_buf_text(&out, ", \"choices\": [{\"index\": 0, \"turns\": ["));
        BAL_TRY(bal_json_put_text(&out, a->texts[q * MT_TURNS]));
        BAL_TRY(bal_buf_text(&out, ", "));
        BAL_TRY(bal_json_put_text(&out, a->texts[q * MT_TURNS + 1]));
        BAL_TRY(bal_buf_printf(&out, "]}], \"tstamp\": %.3f}\n", (double)bal_clock_unix_ms() / 1000));
    }
    status = bal_file_replace(path, bal_buf_cstr(&out), out.len);
out:
    bal_buf_dispose(&out);
    return status;
}

bal_status mt_answers_ask(mt_answers *a, const mt_bench *m, api_client *c)
{
    bal_buf *bodies = bal_alloc(m->n, sizeof *bodies);
    char **texts = bal_alloc(m->n, sizeof *texts), **errors = bal_alloc(m->n, sizeof *errors);
    bal_status status = bodies == NULL || texts == NULL || errors == NULL ? BAL_ENOMEM : mt_answers_init(a, m);
    for (size_t t = 0; status == BAL_OK && t < MT_TURNS; t++) {
        size_t *which = bal_alloc(m->n, sizeof *which), n = 0;
        status = which == NULL ? BAL_ENOMEM : BAL_OK;
        for (size_t q = 0; status == BAL_OK && q < m->n; q++) {
            const mt_question *question = &m->questions[q];
            const chat_message messages[] = {
                {"user", question->turns[0]}, {"assistant", a->texts[q * MT_TURNS]}, {"user", question->turns[1]}};
            if (t == 1 && a->texts[q * MT_TURNS] == NULL)
                continue; /* the first turn failed */
            bal_buf_clear(&bodies[n]);
            status =
                chat_body(c, messages, t == 0 ? 1 : 3, mt_temperature(question->category), ANSWER_TOKENS, &bodies[n]);
            which[n++] = q;
        }
        if (status == BAL_OK)
            status = chat_complete(c, bodies, n, texts, errors);
        size_t failed = 0;
        for (size_t i = 0; i < n; i++)
            failed += errors[i] != NULL;
        if (status == BAL_OK && n > 0 && failed == n)
            status = bal_fail(BAL_EIO, "no question was answered: %s", errors[0]);
        for (size_t i = 0; i < n; i++) {
            a->texts[which[i] * MT_TURNS + t] = texts[i];
            bal_free(errors[i]);
            texts[i] = errors[i] = NULL;
        }
        bal_free(which);
    }
    (void)snprintf(a->model, sizeof a->model, "%.100s", c->model);
    for (size_t i = 0; bodies != NULL && i < m->n; i++)
        bal_buf_dispose(&bodies[i]);
    bal_free(bodies);
    bal_free(texts);
    bal_free(errors);
    return status;
}

/* --- judge prompts --- */

/* Appends template with each {name} replaced, once from left to right, so that braces in an answer stay. */
static bal_status fill(const char *template, const char *const (*values)[2], size_t n, bal_buf *out)
{
    bal_status status = BAL_OK;
    for (const char *p = template; *p != '\0';) {
        size_t i = 0, length = 0;
        for (; *p == '{' && i < n; i++) {
            length = strlen(values[i][0]);
            if (strncmp(p + 1, values[i][0], length) == 0 && p[1 + length] == '}')
                break;
        }
        if (*p != '{' || i == n) {
            size_t plain = 1 + strcspn(p + 1, "{");
            BAL_TRY(bal_buf_append(out, p, plain));
            p += plain;
        } else {
            BAL_TRY(bal_buf_text(out, values[i][1] == NULL ? "" : values[i][1]));
            p += length + 2;
        }
    }
out:
    return status;
}

bal_status mt_judge_body(const mt_bench *m, size_t q, size_t t, const mt_answers *a, const mt_answers *b,
                         const api_client *judge, bal_buf *body)
{
    const mt_question *x = &m->questions[q];
    const mt_answers *second = b != NULL ? b : a;
    const char *const *of_a = (const char *const *)&a->texts[q * MT_TURNS];
    const char *const *of_b = (const char *const *)&second->texts[q * MT_TURNS];
    const char *const values[][2] = {
        {"question", x->turns[0]},
        {"question_1", x->turns[0]},
        {"question_2", x->turns[1]},
        {"answer", of_a[0]},
        {"answer_1", of_a[0]},
        {"answer_2", of_a[1]},
        {"answer_a", of_a[0]},
        {"answer_a_1", of_a[0]},
        {"answer_a_2", of_a[1]},
        {"answer_b", of_b[0]},
        {"answer_b_1", of_b[0]},
        {"answer_b_2", of_b[1]},
        {"ref_answer_1", x->reference[0]},
        {"ref_answer_2", x->reference[1]},
    };
    char name[64];
    const char *system = NULL, *template = NULL;
    bool reference = with_reference(x->category);
    bal_buf user = {0};
    bal_status status;
    (void)snprintf(name, sizeof name, "%s%s%s", b != NULL ? "pair" : "single",
                   reference   ? "-math-v1"
                   : b != NULL ? "-v2"
                               : "-v1",
                   t == 1 ? "-multi-turn" : "");
    const cJSON *prompt = bal_json_member(m->prompts, name);
    if (prompt == NULL)
        return bal_fail(BAL_EFORMAT, "judge_prompts.jsonl: there is no prompt '%s'", name);
    if (reference && x->reference[0] == NULL)
        return bal_fail(BAL_EFORMAT, "question %lld has no reference answer", (long long)x->id);
    BAL_TRY(bal_json_text(prompt, name, "system_prompt", &system, NULL));
    BAL_TRY(bal_json_text(prompt, name, "prompt_template", &template, NULL));
    BAL_TRY(fill(template, values, sizeof values / sizeof values[0], &user));
    const chat_message messages[] = {{"system", system}, {"user", bal_buf_cstr(&user)}};
    status = chat_body(judge, messages, 2, 0, JUDGE_TOKENS, body);
out:
    bal_buf_dispose(&user);
    return status;
}

char mt_outcome(char first, char swapped)
{
    char second = swapped == 'A' ? 'B' : swapped == 'B' ? 'A' : swapped;
    if (first == 0 || swapped == 0)
        return 0;
    return first == second ? first : 'C';
}
