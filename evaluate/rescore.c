/* --rescore: the stored outputs of one run, or of several that hold parts of the items (shards), judged again as a new
 * run, without a model.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/session.h"

#include "lib/base/clock.h"
#include "lib/base/mem.h"

#include <stdio.h>
#include <string.h>

typedef struct source {
    int64_t run;
    cJSON *config;
} source;

static bal_status read_source(session *s, const char *name, source *out)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status;
    BAL_TRY(bal_run_find(s->store, name, &out->run));
    BAL_TRY(bal_store_prepare(s->store, "SELECT config, kind FROM run WHERE id = ?1", &st));
    (void)sqlite3_bind_int64(st, 1, out->run);
    BAL_TRY(bal_store_step(s->store, st, &row));
    const char *text = row ? (const char *)sqlite3_column_text(st, 0) : NULL;
    const char *kind = row ? (const char *)sqlite3_column_text(st, 1) : NULL;
    if (text == NULL || kind == NULL || strcmp(kind, "evaluate") != 0) {
        status = bal_fail(BAL_EINVAL, "run '%.60s' is not an evaluation of tasks", name);
        goto out;
    }
    BAL_TRY(bal_json_parse(&out->config, text, strlen(text), "the run's configuration"));
    if (!cJSON_IsObject(bal_json_member(out->config, "tasks")))
        status = bal_fail(BAL_EINVAL, "run '%.60s' holds no tasks", name);
out:
    (void)sqlite3_finalize(st);
    return status;
}

/* What of the configuration decides how outputs are read. */
static bal_status take_config(evaluate_config *c, const cJSON *config)
{
    static const char where[] = "the run's configuration";
    bal_status status;
    BAL_TRY(bal_json_i64(config, where, "fewshot_seed", 0, UINT32_MAX, &c->fewshot_seed, NULL));
    BAL_TRY(bal_json_text(config, where, "tokenizer", &c->tokenizer, NULL));
    BAL_TRY(bal_json_text(config, where, "system_instruction", &c->system_instruction, NULL));
    BAL_TRY(bal_json_bool(config, where, "fewshot_as_multiturn", &c->fewshot_as_multiturn, NULL));
    BAL_TRY(bal_json_text(config, where, "model", &c->model, NULL));
    BAL_TRY(bal_json_text(config, where, "adapter", &c->adapter, NULL));
    BAL_TRY(bal_json_i64(config, where, "num_fewshot", -1, 1 << 20, &c->num_fewshot, NULL));
    BAL_TRY(bal_json_i64(config, where, "max_gen_toks", 0, 1 << 30, &c->max_gen_toks, NULL));
    BAL_TRY(bal_json_i64(config, where, "repeats", 0, 1 << 20, &c->repeats, NULL));
    BAL_TRY(bal_json_i64(config, where, "seed", 0, (int64_t)1 << 53, &c->seed, NULL));
    status = bal_json_bool(config, where, "apply_chat_template", &c->apply_chat_template, NULL);
out:
    return status;
}

/* The tasks of the first run that ran, as --tasks would name them. */
static bal_status take_tasks(evaluate_config *c, const cJSON *config, const char **names, size_t most)
{
    const cJSON *item = NULL;
    size_t n = 0;
    if (c->tasks.n > 0)
        return BAL_OK;
    cJSON_ArrayForEach(item, bal_json_member(config, "tasks"))
    {
        const cJSON *given = bal_json_member(item, "given");
        if (cJSON_IsObject(item) && bal_json_member(item, "data_sha256") == NULL)
            continue; /* not run then */
        if (n < most)
            names[n++] = cJSON_IsString(given) ? given->valuestring : item->string;
    }
    c->tasks = (bal_text_list){names, n};
    return n > 0 ? BAL_OK : bal_fail(BAL_EINVAL, "the run holds no task that was run");
}

static bal_status check_data(const task_run *r, const cJSON *config)
{
    const char *hash = NULL;
    const cJSON *entry = bal_json_member(bal_json_member(config, "tasks"), r->task.name);
    if (!cJSON_IsObject(entry))
        return BAL_OK;
    bal_status status = bal_json_text(entry, r->task.name, "data_sha256", &hash, NULL);
    if (status == BAL_OK && hash != NULL && strcmp(hash, r->task.test_sha256) != 0)
        status = bal_fail(BAL_EINVAL,
                          "task '%s': the data file is not the one that the run used (SHA-256 %.12s..., now "
                          "%.12s...)",
                          r->task.name, hash, r->task.test_sha256);
    return status;
}

static bal_status alloc_items(task_run *r)
{
    r->n_items = r->task.test.n;
    r->items = bal_alloc(r->n_items, sizeof *r->items);
    if (r->items == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < r->n_items; i++)
        if ((r->items[i].finished = bal_alloc(r->task.repeats, sizeof(bool))) == NULL)
            return BAL_ENOMEM;
    return BAL_OK;
}

/* The same item from a second run must have the same output. */
static bal_status check_same(session *s, const task *t, size_t item, size_t repeat, const char *output)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status;
    BAL_TRY(bal_store_cached(s->store,
                             "SELECT output IS ?5 FROM eval_item WHERE run_id = ?1 AND task = ?2 AND item = ?3 AND "
                             "repeat = ?4 LIMIT 1",
                             &st));
    (void)sqlite3_bind_int64(st, 1, s->run);
    (void)sqlite3_bind_text(st, 2, t->name, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(st, 3, (int64_t)item);
    (void)sqlite3_bind_int64(st, 4, (int64_t)repeat);
    (void)sqlite3_bind_text(st, 5, output, -1, SQLITE_TRANSIENT);
    BAL_TRY(bal_store_step(s->store, st, &row));
    if (row && sqlite3_column_int(st, 0) == 0)
        status = bal_fail(BAL_EINVAL, "task '%s', item %zu: the runs have different outputs; they are not parts of one",
                          t->name, item);
out:
    if (st != NULL)
        (void)sqlite3_reset(st);
    return status;
}

static bal_status judge_row(session *s, task_run *r, sqlite3_stmt *st)
{
    size_t item = (size_t)sqlite3_column_int64(st, 0), repeat = (size_t)sqlite3_column_int64(st, 1);
    const char *output = (const char *)sqlite3_column_text(st, 2), *hash = (const char *)sqlite3_column_text(st, 3);
    bal_status status;
    if (item >= r->n_items || repeat >= r->task.repeats || output == NULL)
        return bal_fail(BAL_EFORMAT, "task '%s': the store holds item %zu, repeat %zu, which the task has not",
                        r->task.name, item, repeat);
    item_run *it = &r->items[item];
    if (it->finished[repeat]) {
        BAL_TRY(check_same(s, &r->task, item, repeat, output));
        return BAL_OK;
    }
    (void)snprintf(it->hash, sizeof it->hash, "%s", hash == NULL ? "" : hash);
    const bal_eval_item about = {.prompt_tokens = sqlite3_column_int64(st, 4),
                                 .output_tokens = sqlite3_column_int64(st, 5),
                                 .seconds = sqlite3_column_double(st, 6),
                                 .finish_reason = (const char *)sqlite3_column_text(st, 7)};
    BAL_TRY(session_store_output(s, r, item, repeat, output, &about));
    it->finished[repeat] = true;
    r->n_chosen += !it->chosen;
    it->chosen = true;
out:
    return status;
}

static bal_status rescore_task(session *s, task_run *r, int64_t run)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status;
    BAL_TRY(bal_store_prepare(s->store,
                              "SELECT item, repeat, output, prompt_sha256, prompt_tokens, output_tokens, seconds, "
                              "finish_reason, min(filter) FROM eval_item WHERE run_id = ?1 AND task = ?2 "
                              "GROUP BY item, repeat ORDER BY item, repeat",
                              &st));
    (void)sqlite3_bind_int64(st, 1, run);
    (void)sqlite3_bind_text(st, 2, r->task.name, -1, SQLITE_TRANSIENT);
    for (;;) {
        BAL_TRY(bal_store_step(s->store, st, &row));
        if (!row)
            break;
        BAL_TRY(judge_row(s, r, st));
    }
out:
    (void)sqlite3_finalize(st);
    return status;
}

/* How the run asked: the conversation's template is the tokenizer's, where that is still there. */
static bool open_form(session *s)
{
    const evaluate_config *c = s->c;
    const char *path = c->tokenizer != NULL ? c->tokenizer : c->model;
    bool served = c->model != NULL && bal_starts_with(c->model, "openai:");
    s->chat = (chat_form){
        .plain = !c->apply_chat_template, .system = c->system_instruction, .multiturn = c->fewshot_as_multiturn};
    if (s->chat.plain || served)
        return true;
    if (path == NULL || bal_tokenizer_load(&s->tokenizer, path) != BAL_OK)
        return false;
    s->chat.tokenizer = s->tokenizer;
    return true;
}

/* The prompts of the items, for their sample lines.  A prompt that is not the one that was asked (the task file, the data
 * of the examples or the template are others now) is not shown. */
static bal_status make_prompts(session *s, task_run *r)
{
    char hash[sizeof((item_run *)0)->hash];
    size_t n_other = 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < r->n_items; i++) {
        item_run *it = &r->items[i];
        BAL_TRY(task_draw(&r->task, i));
        if (!it->chosen)
            continue;
        memcpy(hash, it->hash, sizeof hash);
        status = session_make_prompt(s, r, i);
        if (status == BAL_ENOMEM)
            goto out;
        if (status == BAL_OK && strcmp(it->hash, hash) == 0)
            continue;
        n_other++;
        bal_buf_dispose(&it->prompt);
        pair_list_dispose(&it->pairs);
        memcpy(it->hash, hash, sizeof hash);
        status = BAL_OK;
    }
    if (n_other > 0)
        bal_log_line(&s->common->log, BAL_LOG_WARN,
                     "%s: the prompts of %zu items cannot be made again as they were; their sample lines lack them",
                     r->task.name, n_other);
out:
    return status;
}

bal_status evaluate_rescore(const evaluate_config *c, const bal_common *common, int argc, char **argv)
{
    double start = bal_clock_seconds();
    evaluate_config own = *c;
    const char *names[SESSION_MAX_TASKS];
    bal_buf config = {0};
    bal_status status = BAL_ENOMEM;
    source *sources = bal_alloc(c->rescore.n, sizeof *sources);
    session *s = bal_alloc(1, sizeof *s);
    if (s == NULL || sources == NULL)
        goto out;
    *s = (session){.c = &own, .common = common};
    BAL_TRY(bal_store_open(&s->store, common->db, true));
    for (size_t i = 0; i < c->rescore.n; i++)
        BAL_TRY(read_source(s, c->rescore.items[i], &sources[i]));
    BAL_TRY(take_config(&own, sources[0].config));
    BAL_TRY(take_tasks(&own, sources[0].config, names, SESSION_MAX_TASKS));
    BAL_TRY(session_read_tasks(s));
    BAL_TRY(session_config(s, &config));
    own.resume = "never";
    bool form = open_form(s);
    if (!form)
        bal_log_line(&common->log, BAL_LOG_WARN, "the prompts are not made again: %s", bal_error_message());
    BAL_TRY(session_open_run(s, bal_buf_cstr(&config), argc, argv));
    for (size_t k = 0; k < s->n_tasks; k++) {
        task_run *r = &s->tasks[k];
        if (r->not_run[0] != '\0')
            continue;
        BAL_TRY(alloc_items(r));
        for (size_t i = 0; i < c->rescore.n; i++) {
            BAL_TRY(check_data(r, sources[i].config));
            BAL_TRY(rescore_task(s, r, sources[i].run));
        }
        if (r->n_chosen == 0) {
            status = bal_fail(BAL_EINVAL, "the runs hold no output of task '%s'", r->task.name);
            goto out;
        }
        if (r->task.scorer->judge_late != NULL)
            BAL_TRY(session_judge_late(s, r));
        if (form)
            BAL_TRY(make_prompts(s, r));
    }
    status = session_report(s, bal_buf_cstr(&config), bal_clock_seconds() - start);
out:
    if (s != NULL) {
        session_end_run(s, status);
        session_dispose(s);
    }
    for (size_t i = 0; sources != NULL && i < c->rescore.n; i++)
        cJSON_Delete(sources[i].config);
    bal_free(sources);
    bal_free(s);
    bal_buf_dispose(&config);
    return status;
}
