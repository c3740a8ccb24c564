/* Reading a task: its file, checked key by key, then its data.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/task.h"

#include "evaluate/scorer.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <stdio.h>
#include <string.h>

enum { MAX_SHOTS = 1000, MAX_STOPS = 64, MAX_REPEATS = 1024, MAX_KEYS = 96, MAX_NAME = 100 };
static const char k_name_characters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.";
static const size_t k_max_task = (size_t)16 << 20;

static const char *const k_keys[] = {"task",        "version",         "note",    "scorer",       "data",
                                     "description", "prompt",          "target",  "target_after", "target_delimiter",
                                     "shot_target", "samples",         "sampler", "shots_by",     "fewshot_delimiter",
                                     "num_fewshot", "same_split",      "until",   "gen_prefix",   "max_gen_toks",
                                     "temperature", "top_p",           "top_k",   "repeats",      "choices",
                                     "label",       "labels",          "metrics", "group_by",     "prompt_transform",
                                     "filters",     "choice_transform"};
enum { N_KEYS = sizeof k_keys / sizeof k_keys[0] };

static const char *find_text(const char *name)
{
    for (size_t i = 0; i < k_n_task_files; i++)
        if (strcmp(k_task_files[i].name, name) == 0)
            return k_task_files[i].text;
    return NULL;
}

static bal_status unknown_task(const char *name)
{
    const char **names = bal_alloc(k_n_task_files, sizeof *names);
    if (names == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < k_n_task_files; i++)
        names[i] = k_task_files[i].name;
    const char *near = bal_nearest(name, names, k_n_task_files);
    bal_status status = bal_fail(
        BAL_EINVAL, "task '%.60s' is not known%s%s%s; 'balora evaluate --list' names all, a file ends in .json", name,
        near == NULL ? "" : "; did you mean '", near == NULL ? "" : near, near == NULL ? "" : "'?");
    bal_free(names);
    return status;
}

bal_status task_expand(const char *name, bal_status (*add)(void *context, const char *name), void *context)
{
    const char *text = bal_ends_with(name, ".json") ? NULL : find_text(name);
    cJSON *json = NULL;
    const cJSON *item = NULL;
    bal_status status;
    if (bal_ends_with(name, ".json"))
        return add(context, name);
    if (text == NULL)
        return unknown_task(name);
    BAL_TRY(bal_json_parse(&json, text, strlen(text), name));
    const cJSON *list = bal_json_member(json, "tasks");
    if (list == NULL) {
        status = add(context, name);
        goto out;
    }
    cJSON_ArrayForEach(item, list) BAL_TRY(add(context, item->valuestring));
out:
    cJSON_Delete(json);
    return status;
}

/* Every key must be one of the format or of the scorer. */
static bal_status check_keys(const task *t)
{
    const char *known[MAX_KEYS];
    size_t n = 0;
    const cJSON *key = NULL;
    for (size_t i = 0; i < N_KEYS; i++)
        known[n++] = k_keys[i];
    for (size_t i = 0; t->scorer->keys != NULL && t->scorer->keys[i] != NULL && n < MAX_KEYS; i++)
        known[n++] = t->scorer->keys[i];
    cJSON_ArrayForEach(key, t->json)
    {
        bool found = false;
        for (size_t i = 0; i < n; i++)
            found = found || strcmp(known[i], key->string) == 0;
        if (!found) {
            const char *near = bal_nearest(key->string, known, n);
            return bal_fail(BAL_EFORMAT, "task '%s': key '%.40s' is not known%s%s%s", t->name, key->string,
                            near == NULL ? "" : "; did you mean '", near == NULL ? "" : near, near == NULL ? "" : "'?");
        }
    }
    return BAL_OK;
}

static bal_status read_until(task *t)
{
    const cJSON *list = bal_json_member(t->json, "until"), *item = NULL;
    if (list == NULL)
        return BAL_OK;
    if (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > MAX_STOPS)
        return bal_fail(BAL_EFORMAT, "task '%s': key 'until' must be a list of at most %d texts", t->name, MAX_STOPS);
    t->until = bal_alloc((size_t)cJSON_GetArraySize(list) + 1, sizeof *t->until);
    if (t->until == NULL)
        return BAL_ENOMEM;
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsString(item) || item->valuestring[0] == '\0')
            return bal_fail(BAL_EFORMAT, "task '%s': key 'until' must be a list of texts that are not empty", t->name);
        t->until[t->n_until++] = item->valuestring;
    }
    return BAL_OK;
}

static bal_status wrong(const task *t, const char *key, const char *what)
{
    return bal_fail(BAL_EFORMAT, "task '%s': key '%s' %s", t->name, key, what);
}

/* What depends on the scorer: a question, and what is right. */
static bal_status check_form(const task *t)
{
    const cJSON *item = NULL;
    if (t->prompt == NULL)
        return wrong(t, "prompt", "is missing");
    if (t->choices != NULL) {
        if (!cJSON_IsString(t->choices) && !cJSON_IsArray(t->choices))
            return wrong(t, "choices", "must be a list of texts or the name of a field that holds one");
        cJSON_ArrayForEach(item, t->choices) if (cJSON_IsArray(t->choices) && !cJSON_IsString(item)) return wrong(
            t, "choices", "must be a list of texts or the name of a field that holds one");
        if (!cJSON_IsString(t->label) && !cJSON_IsNumber(t->label))
            return wrong(t, "label", "must be the name of the field with the right answer, or a number");
        if (t->labels != NULL && !cJSON_IsString(t->labels) && !cJSON_IsArray(t->labels))
            return wrong(t, "labels", "must be a list of texts or the name of a field that holds one");
    } else if (t->scorer->kind == SCORER_GENERATE && t->target == NULL && t->rules != NULL) {
        return wrong(t, "target", "is missing");
    }
    if (t->scorer->kind == SCORER_CHOICE && t->scorer->requests == NULL && t->choices == NULL)
        return wrong(t, "choices", "is missing");
    if (t->prompt_transform != NULL && !task_transform_known(t->prompt_transform))
        return wrong(t, "prompt_transform", "names no transform");
    if (t->choice_transform != NULL && !task_transform_known(t->choice_transform))
        return wrong(t, "choice_transform", "names no transform");
    return BAL_OK;
}

static bal_status read_scorer(task *t)
{
    const char *name = NULL, *names[64];
    size_t n = 0, n_rules = 0;
    bal_status status;
    BAL_TRY(bal_json_text(t->json, t->name, "scorer", &name, NULL));
    if (name == NULL) {
        status = wrong(t, "scorer", "is missing");
        goto out;
    }
    t->scorer = scorer_find(name);
    t->rules = t->scorer == NULL ? bal_scorer_find(name) : NULL;
    if (t->rules != NULL)
        t->scorer = &k_scorer_rules;
    if (t->scorer != NULL)
        goto out;
    const char *const *rules = bal_scorer_names(&n_rules);
    for (size_t i = 0; scorer_name(i) != NULL && n < 64; i++)
        names[n++] = scorer_name(i);
    for (size_t i = 0; i < n_rules && n < 64; i++)
        names[n++] = rules[i];
    const char *near = bal_nearest(name, names, n);
    status = bal_fail(BAL_EFORMAT, "task '%s': key 'scorer' names '%.40s', which is none%s%s%s", t->name, name,
                      near == NULL ? "" : "; did you mean '", near == NULL ? "" : near, near == NULL ? "" : "'?");
out:
    return status;
}

static bal_status read_fields(task *t)
{
    const char *sampler = NULL, *name = NULL;
    int64_t shots = 0, tokens = 256, repeats = 1, top_k = 0;
    bal_status status;
    const struct {
        const char *key, **at;
    } texts[] = {{"task", &name},
                 {"description", &t->description},
                 {"prompt", &t->prompt},
                 {"target", &t->target},
                 {"target_after", &t->target_after},
                 {"shot_target", &t->shot_target},
                 {"target_delimiter", &t->target_delimiter},
                 {"fewshot_delimiter", &t->fewshot_delimiter},
                 {"gen_prefix", &t->gen_prefix},
                 {"prompt_transform", &t->prompt_transform},
                 {"choice_transform", &t->choice_transform},
                 {"sampler", &sampler}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        BAL_TRY(bal_json_text(t->json, t->name, texts[i].key, texts[i].at, NULL));
    if (name != NULL) { /* it stands in names of files, keys and tables */
        size_t n = strlen(name);
        if (n == 0 || n > MAX_NAME || strspn(name, k_name_characters) < n || *name == '.')
            return wrong(t, "task", "must be of letters, digits, '_', '-' and '.', at most 100");
        t->name = name;
    } else if (t->folder != NULL) {
        return wrong(t, "task", "is missing: the name of the task");
    }
    BAL_TRY(read_scorer(t));
    BAL_TRY(check_keys(t));
    BAL_TRY(bal_json_f64(t->json, t->name, "version", &t->version, NULL));
    BAL_TRY(bal_json_f64(t->json, t->name, "temperature", &t->temperature, NULL));
    BAL_TRY(bal_json_f64(t->json, t->name, "top_p", &t->top_p, NULL));
    BAL_TRY(bal_json_i64(t->json, t->name, "top_k", 0, 1 << 30, &top_k, NULL));
    BAL_TRY(bal_json_i64(t->json, t->name, "num_fewshot", 0, MAX_SHOTS, &shots, NULL));
    BAL_TRY(bal_json_i64(t->json, t->name, "max_gen_toks", 1, 1 << 20, &tokens, NULL));
    BAL_TRY(bal_json_i64(t->json, t->name, "repeats", 1, MAX_REPEATS, &repeats, NULL));
    BAL_TRY(bal_json_bool(t->json, t->name, "same_split", &t->same_split, NULL));
    t->num_fewshot = (size_t)shots;
    t->max_gen_toks = (size_t)tokens;
    t->repeats = (size_t)repeats;
    t->top_k = (size_t)top_k;
    t->choices = bal_json_member(t->json, "choices");
    t->label = bal_json_member(t->json, "label");
    t->labels = bal_json_member(t->json, "labels");
    t->n_samples = (size_t)cJSON_GetArraySize(bal_json_member(t->json, "samples"));
    t->draws = sampler == NULL ? bal_json_member(bal_json_member(t->json, "data"), "train") != NULL
                               : strcmp(sampler, "default") == 0;
    if (sampler != NULL && !t->draws && strcmp(sampler, "first_n") != 0) {
        status = wrong(t, "sampler", "must be 'default' or 'first_n'");
        goto out;
    }
    BAL_TRY(check_form(t));
    status = read_until(t);
out:
    return status;
}

bal_status task_read(task *t, const char *name, const task_change *change)
{
    const char *text = find_text(name);
    bal_buf file = {0};
    bal_status status;
    *t = (task){.name = name,
                .target_delimiter = " ",
                .fewshot_delimiter = "\n\n",
                .top_p = 1,
                .seed = change->seed,
                .shot_seed = change->shot_seed};
    if (bal_ends_with(name, ".json")) {
        BAL_TRY(bal_file_read(name, k_max_task, &file));
        t->folder = bal_path_dir(name);
        if (t->folder == NULL) {
            status = BAL_ENOMEM;
            goto out;
        }
        BAL_TRY(bal_json_parse_relaxed(&t->json, bal_buf_cstr(&file), file.len, name));
        if (!cJSON_IsObject(t->json)) {
            status = bal_fail(BAL_EFORMAT, "%s is not a task: it must be one JSON object", name);
            goto out;
        }
    } else if (text == NULL) {
        return unknown_task(name);
    } else {
        BAL_TRY(bal_json_parse(&t->json, text, strlen(text), t->name));
    }
    BAL_TRY(read_fields(t));
    if (change->num_fewshot >= 0)
        t->num_fewshot = (size_t)change->num_fewshot;
    if (change->max_gen_toks > 0)
        t->max_gen_toks = (size_t)change->max_gen_toks;
    if (change->repeats > 0)
        t->repeats = (size_t)change->repeats;
    if (change->outside != NULL && t->rules != NULL && strncmp(t->rules->name, "math", 4) == 0) {
        t->outside = change->outside;
        t->scorer = &k_scorer_rules_outside;
    }
    if (t->scorer->prepare != NULL)
        status = t->scorer->prepare(t);
out:
    bal_buf_dispose(&file);
    return status;
}

bal_status task_read_data(task *t, const char *data)
{
    bool from_file = bal_json_member(bal_json_member(t->json, "data"), "train") != NULL;
    bal_status status;
    BAL_TRY(task_read_split(t, data, "test", &t->test, t->test_sha256));
    if (from_file && t->num_fewshot > 0)
        BAL_TRY(task_read_split(t, data, "train", &t->train, NULL));
    size_t pool = from_file ? t->train.n : t->n_samples, need = t->num_fewshot + (t->draws && t->same_split ? 1 : 0);
    if (t->num_fewshot > 0 && need > pool) {
        status =
            bal_fail(BAL_EINVAL, "task '%s' has %zu worked examples, not %zu (--num-fewshot)", t->name, pool, need);
        goto out;
    }
    t->drawn = bal_alloc(need + 1, sizeof *t->drawn);
    t->shot_rows = bal_alloc(need + 1, sizeof *t->shot_rows);
    t->scratch = bal_alloc(t->train.n + 1, sizeof *t->scratch);
    t->pool = bal_alloc(t->train.n + 1, sizeof *t->pool);
    if (t->drawn == NULL || t->scratch == NULL || t->shot_rows == NULL || t->pool == NULL)
        status = BAL_ENOMEM;
    const cJSON *splits = bal_json_member(t->json, "data");
    t->one_file = from_file && cJSON_Compare(bal_json_member(splits, "test"), bal_json_member(splits, "train"), true);
    bal_mt_init(&t->shots, t->shot_seed);
out:
    return status;
}

void task_dispose(task *t)
{
    if (t->scorer != NULL && t->scorer->dispose != NULL)
        t->scorer->dispose(t);
    task_rows_dispose(&t->test);
    task_rows_dispose(&t->train);
    bal_free(t->until);
    bal_free(t->drawn);
    bal_free(t->shot_rows);
    bal_free(t->scratch);
    bal_free(t->pool);
    bal_free(t->folder);
    bal_buf_dispose(&t->missing);
    cJSON_Delete(t->json);
    *t = (task){0};
}
