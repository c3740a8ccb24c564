/* The code tasks: which rule, which checks.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/code.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PROBLEMS = 100000 };

static const char *const k_humaneval_stops[] = {"\nclass", "\ndef", "\n#", "\nif", "\nprint", NULL};
static const char *const k_mbpp_stops[] = {"[DONE]", NULL};
#define HUMANEVAL "humaneval/HumanEval.jsonl"
#define MBPP      "mbpp/mbpp.jsonl"

static const code_task k_tasks[] = {
    {"humaneval", HUMANEVAL, NULL, k_humaneval_stops, true},
    {"humaneval_64", HUMANEVAL, NULL, k_humaneval_stops, true},
    {"humaneval_instruct", HUMANEVAL, code_rule_before_fence, NULL, true},
    {"humaneval_pissa", HUMANEVAL, code_rule_pissa, NULL, true},
    {"humaneval_balora", HUMANEVAL, code_rule_balora, NULL, true},
    {"mbpp", MBPP, NULL, k_mbpp_stops, false},
    {"mbpp_instruct", MBPP, code_rule_block, NULL, false},
    {"mbpp_pissa", MBPP, code_rule_pissa, NULL, false},
    {"mbpp_sanitized", "mbpp/sanitized-mbpp.json", NULL, k_mbpp_stops, false},
};
enum { N_TASKS = sizeof k_tasks / sizeof k_tasks[0] };

const code_task *code_task_find(const char *name)
{
    for (size_t i = 0; i < N_TASKS; i++)
        if (strcmp(k_tasks[i].name, name) == 0)
            return &k_tasks[i];
    return NULL;
}

const char *code_task_name(size_t i)
{
    return i < N_TASKS ? k_tasks[i].name : NULL;
}

static bal_status need_text(const cJSON *row, const char *where, const char *key, const char **out)
{
    bool found = false;
    bal_status status = bal_json_text(row, where, key, out, &found);
    return status != BAL_OK || found ? status : bal_fail(BAL_EFORMAT, "%s: key '%s' is missing", where, key);
}

/* Appends the texts of a list, a line each. */
static bal_status put_lines(const cJSON *row, const char *where, const char *key, bool needed, bal_buf *out)
{
    const cJSON *list = bal_json_member(row, key), *item = NULL;
    bal_status status = BAL_OK;
    if (list == NULL && !needed)
        return BAL_OK;
    if (!cJSON_IsArray(list) || (needed && cJSON_GetArraySize(list) == 0))
        return bal_fail(BAL_EFORMAT, "%s: key '%s' must be a list of texts", where, key);
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item))
            return bal_fail(BAL_EFORMAT, "%s: key '%s' must be a list of texts", where, key);
        BAL_TRY(bal_buf_text(out, item->valuestring));
        BAL_TRY(bal_buf_text(out, "\n"));
    }
out:
    return status;
}

/* HumanEval's check(): defined by "test", called with the function that the prompt begins. */
static bal_status put_check(const cJSON *row, const char *where, bal_buf *out)
{
    const char *test = NULL, *name = NULL;
    bal_status status;
    BAL_TRY(need_text(row, where, "test", &test));
    BAL_TRY(need_text(row, where, "entry_point", &name));
    status = bal_buf_printf(out, "%s\ncheck(%s)\n", test, name);
out:
    return status;
}

bal_status code_program(const code_task *t, const cJSON *row, const char *where, const char *answer, size_t n,
                        bal_buf *program, bal_buf *checks)
{
    bal_buf cut = {0};
    const char *prompt = NULL;
    bal_status status;
    if (t->with_prompt) {
        BAL_TRY(need_text(row, where, "prompt", &prompt));
        BAL_TRY(bal_buf_text(program, prompt));
    }
    BAL_TRY(code_cut(answer, n, t->stops, &cut));
    if (t->rule != NULL)
        BAL_TRY(t->rule(bal_buf_cstr(&cut), cut.len, program));
    else
        BAL_TRY(bal_buf_append(program, bal_buf_cstr(&cut), cut.len));
    BAL_TRY(bal_buf_text(program, "\n"));
    if (t->with_prompt) {
        status = put_check(row, where, checks);
    } else {
        BAL_TRY(put_lines(row, where, "test_imports", false, checks)); /* of the sanitized set */
        status = put_lines(row, where, "test_list", true, checks);
    }
out:
    bal_buf_dispose(&cut);
    return status;
}

/* --- problems --- */

static bal_status add_row(code_problems *p, size_t *cap, cJSON *row)
{
    if (p->n == MAX_PROBLEMS)
        return bal_fail(BAL_ELIMIT, "'%s' holds more than %d problems", p->path, MAX_PROBLEMS);
    if (p->n == *cap) {
        size_t more = *cap == 0 ? 256 : 2 * *cap;
        cJSON **grown = bal_realloc(p->rows, more, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        p->rows = grown;
        *cap = more;
    }
    p->rows[p->n++] = row;
    return BAL_OK;
}

static bal_status read_list(code_problems *p, size_t *cap)
{
    cJSON *list = NULL;
    bal_status status = bal_json_read(&list, p->path, (size_t)64 << 20);
    if (status == BAL_OK && !cJSON_IsArray(list))
        status = bal_fail(BAL_EFORMAT, "'%s' must be a list of problems", p->path);
    while (status == BAL_OK && cJSON_GetArraySize(list) > 0) {
        cJSON *row = cJSON_DetachItemViaPointer(list, list->child); /* at the front: constant time */
        status = add_row(p, cap, row);
        if (status != BAL_OK)
            cJSON_Delete(row);
    }
    cJSON_Delete(list);
    return status;
}

static bal_status read_rows(code_problems *p, size_t *cap)
{
    bal_lines *lines = NULL;
    cJSON *row = NULL;
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, p->path));
    for (;;) {
        BAL_TRY(bal_jsonl_next(lines, &row));
        if (row == NULL)
            break;
        BAL_TRY(add_row(p, cap, row));
        row = NULL;
    }
out:
    cJSON_Delete(row);
    bal_lines_close(lines);
    return status;
}

bal_status code_problems_read(code_problems *p, const code_task *t, const char *data)
{
    size_t cap = 0;
    *p = (code_problems){0};
    if (snprintf(p->path, sizeof p->path, "%s/%s", data, t->file) >= (int)sizeof p->path)
        return bal_fail(BAL_EINVAL, "the path of --data is too long");
    if (!bal_file_exists(p->path))
        return bal_fail(BAL_ENOENT, "file %s missing in '%s' (--data names the folder that holds it)", t->file, data);
    return bal_ends_with(t->file, ".jsonl") ? read_rows(p, &cap) : read_list(p, &cap);
}

const cJSON *code_problems_find(const code_problems *p, const char *id)
{
    char text[64];
    for (size_t i = 0; i < p->n; i++) {
        const cJSON *own = bal_json_member(p->rows[i], "task_id");
        if (cJSON_IsNumber(own))
            (void)snprintf(text, sizeof text, "%.0f", own->valuedouble);
        if (cJSON_IsNumber(own) ? strcmp(text, id) == 0
                                : cJSON_IsString(own) && (strcmp(own->valuestring, id) == 0 ||
                                                          (strrchr(own->valuestring, '/') != NULL &&
                                                           strcmp(strrchr(own->valuestring, '/') + 1, id) == 0)))
            return p->rows[i];
    }
    return NULL;
}

void code_problems_dispose(code_problems *p)
{
    for (size_t i = 0; i < p->n; i++)
        cJSON_Delete(p->rows[i]);
    bal_free(p->rows);
    *p = (code_problems){0};
}
