/* SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/task.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"

#include <stdio.h>
#include <string.h>

enum { SHOT_SEED = 1234, MAX_SHOTS = 1000 };
static const size_t k_max_data = (size_t)1 << 30;

static const char *find_text(const char *name)
{
    for (size_t i = 0; i < k_n_task_files; i++)
        if (strcmp(k_task_files[i].name, name) == 0)
            return k_task_files[i].text;
    return NULL;
}

static bal_status unknown_task(const char *name)
{
    bal_buf all = {0};
    for (size_t i = 0; i < k_n_task_files; i++)
        (void)bal_buf_printf(&all, "%s%s", i == 0 ? "" : ", ", k_task_files[i].name);
    bal_status status = bal_fail(BAL_EINVAL, "task '%.60s' is not known; there are %s", name, bal_buf_cstr(&all));
    bal_buf_dispose(&all);
    return status;
}

static bal_status read_rows(rows *out, const char *path)
{
    bal_lines *lines = NULL;
    cJSON *json = NULL;
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, path));
    for (;;) {
        BAL_TRY(bal_jsonl_next(lines, &json));
        if (json == NULL)
            break;
        if (out->n == out->cap) {
            size_t cap = out->cap == 0 ? 256 : 2 * out->cap;
            cJSON **grown = bal_realloc(out->items, cap, sizeof(cJSON *));
            if (grown == NULL) {
                cJSON_Delete(json);
                status = BAL_ENOMEM;
                goto out;
            }
            out->items = grown;
            out->cap = cap;
        }
        out->items[out->n++] = json;
    }
    if (out->n == 0)
        status = bal_fail(BAL_EFORMAT, "%s holds no items", path);
out:
    bal_lines_close(lines);
    return status;
}

/* One split; hash (may be NULL) receives the file's SHA-256. */
static bal_status read_split(const task *t, const char *data, const char *split, rows *out, char *hash)
{
    const char *name = NULL;
    char *path = NULL;
    bal_buf bytes = {0};
    bal_status status;
    BAL_TRY(bal_json_text(bal_json_member(t->json, "data"), t->name, split, &name, NULL));
    if (name == NULL) {
        status = bal_fail(BAL_EFORMAT, "task '%s' names no data.%s", t->name, split);
        goto out;
    }
    if (data == NULL) {
        status = bal_fail(BAL_ENOENT,
                          "task '%s' needs %s: give the folder that holds it with --data DIR or BALORA_DATA=DIR "
                          "(JSON lines with question and answer, from openai/grade-school-math)",
                          t->name, name);
        goto out;
    }
    path = bal_path_join(data, name);
    if (path == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    if (!bal_file_exists(path)) {
        status = bal_fail(BAL_ENOENT,
                          "task '%s': '%s' is not there; put the %s split there (JSON lines with question and answer, "
                          "from openai/grade-school-math)",
                          t->name, path, split);
        goto out;
    }
    BAL_TRY(read_rows(out, path));
    if (hash != NULL) {
        BAL_TRY(bal_file_read(path, k_max_data, &bytes));
        bal_sha256_hex(bal_buf_cstr(&bytes), bytes.len, hash);
    }
out:
    bal_free(path);
    bal_buf_dispose(&bytes);
    return status;
}

static bal_status read_until(task *t)
{
    const cJSON *list = bal_json_member(t->json, "until"), *item = NULL;
    t->until = bal_alloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *t->until);
    if (t->until == NULL)
        return BAL_ENOMEM;
    cJSON_ArrayForEach(item, list) if (cJSON_IsString(item)) t->until[t->n_until++] = item->valuestring;
    return BAL_OK;
}

static bal_status read_fields(task *t, const char *text)
{
    const char *scorer = NULL, *sampler = "";
    int64_t shots = 0, tokens = 0;
    bal_status status;
    BAL_TRY(bal_json_parse(&t->json, text, strlen(text), t->name));
    const struct {
        const char *key, **at;
    } texts[] = {{"prompt", &t->prompt},
                 {"target", &t->target},
                 {"target_after", &t->target_after},
                 {"shot_target", &t->shot_target},
                 {"target_delimiter", &t->target_delimiter},
                 {"fewshot_delimiter", &t->fewshot_delimiter},
                 {"scorer", &scorer},
                 {"sampler", &sampler}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        BAL_TRY(bal_json_text(t->json, t->name, texts[i].key, texts[i].at, NULL));
    BAL_TRY(bal_json_f64(t->json, t->name, "version", &t->version, NULL));
    BAL_TRY(bal_json_i64(t->json, t->name, "num_fewshot", 0, MAX_SHOTS, &shots, NULL));
    BAL_TRY(bal_json_i64(t->json, t->name, "max_gen_toks", 1, 1 << 20, &tokens, NULL));
    t->num_fewshot = (size_t)shots;
    t->max_gen_toks = (size_t)tokens;
    t->draws = strcmp(sampler, "default") == 0;
    t->n_samples = (size_t)cJSON_GetArraySize(bal_json_member(t->json, "samples"));
    t->scorer = scorer == NULL ? NULL : bal_scorer_find(scorer);
    if (t->scorer == NULL || t->prompt == NULL || t->target == NULL) {
        status = bal_fail(BAL_EFORMAT, "the file of task '%s' lacks scorer, prompt or target", t->name);
        goto out;
    }
    status = read_until(t);
out:
    return status;
}

bal_status task_load(task *t, const char *name, const char *data, int64_t num_fewshot, int64_t max_gen_toks)
{
    const char *text = find_text(name);
    bal_status status;
    *t = (task){.name = name, .target_delimiter = " ", .fewshot_delimiter = "\n\n"};
    if (text == NULL)
        return unknown_task(name);
    BAL_TRY(read_fields(t, text));
    if (num_fewshot >= 0)
        t->num_fewshot = (size_t)num_fewshot;
    if (max_gen_toks > 0)
        t->max_gen_toks = (size_t)max_gen_toks;
    BAL_TRY(read_split(t, data, "test", &t->test, t->test_sha256));
    if (t->draws && t->num_fewshot > 0)
        BAL_TRY(read_split(t, data, "train", &t->train, NULL));
    size_t pool = t->draws ? t->train.n : t->n_samples;
    if (t->num_fewshot > pool) {
        status = bal_fail(BAL_EINVAL, "task '%s' has %zu worked examples, not %zu (--num-fewshot)", name, pool,
                          t->num_fewshot);
        goto out;
    }
    t->drawn = bal_alloc(t->num_fewshot + 1, sizeof *t->drawn);
    t->scratch = bal_alloc(t->train.n + 1, sizeof *t->scratch);
    if (t->drawn == NULL || t->scratch == NULL)
        status = BAL_ENOMEM;
    bal_mt_init(&t->shots, SHOT_SEED);
out:
    return status;
}

static void rows_dispose(rows *r)
{
    for (size_t i = 0; i < r->n; i++)
        cJSON_Delete(r->items[i]);
    bal_free(r->items);
}

void task_dispose(task *t)
{
    rows_dispose(&t->test);
    rows_dispose(&t->train);
    bal_free(t->until);
    bal_free(t->drawn);
    bal_free(t->scratch);
    cJSON_Delete(t->json);
    *t = (task){0};
}

/* Appends the template with each {field} replaced by the row's text. */
static bal_status render(const char *template, const cJSON *row, const char *where, bal_buf *out)
{
    bal_status status = BAL_OK;
    for (const char *p = template; *p != '\0';) {
        const char *open = strchr(p, '{'), *close = open == NULL ? NULL : strchr(open, '}');
        char field[64];
        if (close == NULL || (size_t)(close - open) > sizeof field)
            return bal_buf_text(out, p);
        BAL_TRY(bal_buf_append(out, p, (size_t)(open - p)));
        (void)snprintf(field, sizeof field, "%.*s", (int)(close - open - 1), open + 1);
        const cJSON *value = bal_json_member(row, field);
        if (!cJSON_IsString(value)) {
            status = bal_fail(BAL_EFORMAT, "%s: an item has no text '%s'", where, field);
            goto out;
        }
        BAL_TRY(bal_buf_text(out, value->valuestring));
        p = close + 1;
    }
out:
    return status;
}

bal_status task_prompt(task *t, size_t i, bal_buf *out)
{
    bal_status status = BAL_OK;
    if (t->draws && t->num_fewshot > 0)
        bal_mt_sample(&t->shots, t->train.n, t->num_fewshot, t->drawn, t->scratch);
    for (size_t k = 0; k < t->num_fewshot; k++) {
        const cJSON *shot =
            t->draws ? t->train.items[t->drawn[k]] : cJSON_GetArrayItem(bal_json_member(t->json, "samples"), (int)k);
        BAL_TRY(render(t->prompt, shot, t->name, out));
        BAL_TRY(bal_buf_text(out, t->target_delimiter));
        BAL_TRY(render(t->shot_target, shot, t->name, out));
        BAL_TRY(bal_buf_text(out, t->fewshot_delimiter));
    }
    status = render(t->prompt, t->test.items[i], t->name, out);
out:
    return status;
}

bal_status task_target(const task *t, size_t i, bal_buf *out)
{
    bal_buf whole = {0};
    bal_status status;
    BAL_TRY(render(t->target, t->test.items[i], t->name, &whole));
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
    status = bal_buf_append(out, from, n);
out:
    bal_buf_dispose(&whole);
    return status;
}
