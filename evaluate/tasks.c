/* Running tasks: reading them, prompts, the engine, figures.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"

#include "evaluate/report.h"
#include "evaluate/served.h"
#include "evaluate/session.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void task_run_dispose(task_run *r)
{
    for (size_t i = 0; r->items != NULL && i < r->n_items; i++) {
        item_run *it = &r->items[i];
        bal_buf_dispose(&it->prompt);
        pair_list_dispose(&it->pairs);
        bal_free(it->finished);
        bal_free(it->lls);
        bal_free(it->greedy);
        bal_free(it->tokens);
    }
    for (size_t i = 0; i < r->n_requests; i++)
        bal_ids_dispose(&r->of[i].ids);
    bal_free(r->items);
    bal_free(r->requests);
    bal_free(r->of);
    task_dispose(&r->task);
}

void session_dispose(session *s)
{
    for (size_t i = 0; i < s->n_tasks; i++)
        task_run_dispose(&s->tasks[i]);
    for (size_t i = 0; i < s->n_names; i++)
        bal_free(s->names[i]);
    bal_free(s->names);
    bal_tokenizer_free(s->tokenizer);
    equivalence_close(s->outside);
    served_close(s);
    bal_store_close(s->store);
}

static bal_status add_name(void *context, const char *name)
{
    session *s = context;
    if (s->n_names == SESSION_MAX_TASKS)
        return bal_fail(BAL_EINVAL, "more than %d tasks", SESSION_MAX_TASKS);
    for (size_t i = 0; i < s->n_names; i++)
        if (strcmp(s->names[i], name) == 0)
            return bal_fail(BAL_EINVAL, "task '%s' is named twice", name);
    s->names[s->n_names] = bal_strdup(name);
    return s->names[s->n_names++] == NULL ? BAL_ENOMEM : BAL_OK;
}

/* A task whose answers would not fit in the context is not run. */
static void check_context(const session *s, task_run *r, size_t context)
{
    if (s->c->max_length > 0 && (size_t)s->c->max_length < context)
        context = (size_t)s->c->max_length;
    if (r->not_run[0] == '\0' && r->task.scorer->kind == SCORER_GENERATE && r->task.max_gen_toks >= context)
        (void)snprintf(r->not_run, sizeof r->not_run,
                       "task '%.60s': an answer may take %zu tokens, but the context holds %zu with the prompt "
                       "(--max-gen-toks takes fewer)",
                       r->task.name, r->task.max_gen_toks, context);
}

/* A task for the other kind of model is not run. */
static void check_kind(const session *s, task_run *r)
{
    const bal_model *m = s->bundle == NULL ? NULL : s->bundle->model;
    bool wants = r->task.scorer->kind == SCORER_MASKED;
    if (m == NULL || wants == m->config.masked)
        return;
    (void)snprintf(
        r->not_run, sizeof r->not_run,
        wants ? "task '%.60s' needs a masked language model (BERT, RoBERTa ...), and '%.200s' (%s) is none"
              : "task '%.60s' needs a model that continues texts, and '%.200s' (%s) is a masked language model "
                "(it takes crows_pairs_masked, stereoset_masked)",
        r->task.name, m->path, m->config.model_type);
}

/* A task whose file is missing, or whose scorer cannot work here, does not stop the others. */
static bal_status read_task(session *s, const char *name, const char *data)
{
    task_run *r = &s->tasks[s->n_tasks++];
    const task_change change = {.num_fewshot = s->c->num_fewshot,
                                .max_gen_toks = s->c->max_gen_toks,
                                .repeats = s->c->repeats,
                                .seed = (uint64_t)s->c->seed,
                                .shot_seed = (uint64_t)s->c->fewshot_seed,
                                .outside = s->outside};
    bal_status status;
    BAL_TRY(task_read(&r->task, name, &change));
    for (size_t i = 0; i + 1 < s->n_tasks; i++)
        if (strcmp(s->tasks[i].task.name, r->task.name) == 0) {
            status = bal_fail(BAL_EINVAL, "task '%s' is named twice", r->task.name);
            goto out;
        }
    check_kind(s, r);
    if (r->not_run[0] != '\0')
        goto out;
    status = task_read_data(&r->task, data);
    if (status == BAL_OK && s->bundle != NULL && s->bundle->model != NULL)
        check_context(s, r, s->bundle->model->config.max_positions);
    if (status == BAL_ENOENT) {
        (void)snprintf(r->not_run, sizeof r->not_run, "%.590s", bal_error_message());
        status = BAL_OK;
    } else if (status == BAL_OK && r->not_run[0] == '\0' && r->task.scorer->available != NULL && s->c->rescore.n == 0 &&
               !r->task.scorer->available(&r->task, r->not_run, sizeof r->not_run) && r->not_run[0] == '\0') {
        (void)snprintf(r->not_run, sizeof r->not_run, "its scorer cannot work on this machine");
    }
out:
    return status;
}

bal_status session_read_tasks(session *s)
{
    const char *data = s->c->data != NULL ? s->c->data : getenv("BALORA_DATA");
    const suite_task *suite = NULL;
    size_t n_there = 0, n_suite = 0, n_outside = 0;
    bal_status status = BAL_OK;
    if (s->names == NULL && (s->names = bal_alloc(SESSION_MAX_TASKS, sizeof *s->names)) == NULL)
        return BAL_ENOMEM;
    if (s->c->equivalence_command != NULL)
        BAL_TRY(equivalence_open(&s->outside, s->c->equivalence_command, (double)s->c->equivalence_timeout));
    if (s->c->suite != NULL)
        BAL_TRY(suite_find(s->c->suite, &suite, &n_suite));
    for (size_t i = 0; i < n_suite; i++)
        BAL_TRY(add_name(s, suite[i].name));
    for (size_t i = 0; i < s->c->tasks.n; i++)
        BAL_TRY(task_expand(s->c->tasks.items[i], add_name, s));
    for (size_t i = 0; i < s->n_names; i++) {
        BAL_TRY(read_task(s, s->names[i], data));
        s->tasks[i].limit = i < n_suite ? suite[i].limit : 0;
        n_there += s->tasks[i].not_run[0] == '\0';
        n_outside += s->tasks[i].task.outside != NULL;
    }
    if (s->outside != NULL && n_outside == 0) {
        status = bal_fail(BAL_EINVAL, "--equivalence-command is for tasks judged by a rule of mathematics "
                                      "(hendrycks_math, math_pissa, math_numeric ...); none is named");
        goto out;
    }
    if (n_there == 0 && s->n_tasks == 1)
        status = bal_fail(BAL_ENOENT, "not run: %s", s->tasks[0].not_run);
    else if (n_there == 0)
        status = bal_fail(BAL_ENOENT, "none of the %zu tasks can run: %s", s->n_tasks, s->tasks[0].not_run);
out:
    return status;
}

/* "A:B": items A to B - 1; either may be left out. */
static bal_status read_range(const char *text, size_t n, size_t *from, size_t *to)
{
    char left[32];
    const char *colon = strchr(text, ':');
    int64_t a = 0, b = (int64_t)n;
    bal_status status = BAL_OK;
    if (colon == NULL || (size_t)(colon - text) >= sizeof left)
        return bal_fail(BAL_EINVAL, "--item-range must be FROM:TO, not '%.40s'", text);
    (void)snprintf(left, sizeof left, "%.*s", (int)(colon - text), text);
    if (left[0] != '\0')
        BAL_TRY(bal_parse_i64(left, 0, (int64_t)1 << 40, &a));
    if (colon[1] != '\0')
        BAL_TRY(bal_parse_i64(colon + 1, 0, (int64_t)1 << 40, &b));
    *from = (size_t)a;
    *to = (size_t)b < n ? (size_t)b : n;
out:
    return status == BAL_OK ? status : bal_fail_note(status, "--item-range");
}

/* "I/N": every N-th item, from I - 1 on. */
static bal_status read_shard(const char *text, size_t *index, size_t *count)
{
    char left[32];
    const char *slash = strchr(text, '/');
    int64_t i = 0, n = 0;
    bal_status status;
    if (slash == NULL || (size_t)(slash - text) >= sizeof left)
        return bal_fail(BAL_EINVAL, "--shard must be I/N with I from 1 to N, not '%.40s'", text);
    (void)snprintf(left, sizeof left, "%.*s", (int)(slash - text), text);
    BAL_TRY(bal_parse_i64(slash + 1, 1, 1 << 20, &n));
    BAL_TRY(bal_parse_i64(left, 1, n, &i));
    *index = (size_t)i - 1;
    *count = (size_t)n;
out:
    return status == BAL_OK ? status : bal_fail_note(status, "--shard");
}

static bal_status hash_item(item_run *it)
{
    bal_buf all = {0};
    bal_status status = BAL_OK;
    BAL_TRY(bal_buf_append(&all, bal_buf_cstr(&it->prompt), it->prompt.len));
    for (size_t k = 0; k < it->pairs.n; k++) { /* what another context or continuation would change */
        const pair *p = &it->pairs.items[k];
        BAL_TRY(bal_buf_append(&all, "\0", 1));
        BAL_TRY(bal_buf_append(&all, bal_buf_cstr(&p->context), p->context.len));
        BAL_TRY(bal_buf_append(&all, "\0", 1));
        BAL_TRY(bal_buf_append(&all, bal_buf_cstr(&p->continuation), p->continuation.len));
    }
    bal_sha256_hex(bal_buf_cstr(&all), all.len, it->hash);
out:
    bal_buf_dispose(&all);
    return status;
}

bal_status session_make_prompt(session *s, task_run *r, size_t i)
{
    item_run *it = &r->items[i];
    bal_status status = BAL_OK;
    if (r->task.scorer->kind != SCORER_ROLLING)
        BAL_TRY(task_prompt(&r->task, i, &s->chat, &it->prompt));
    if (r->task.scorer->kind != SCORER_GENERATE)
        BAL_TRY(r->task.scorer->requests(&r->task, i, bal_buf_cstr(&it->prompt), !s->chat.plain, &it->pairs));
    status = hash_item(it);
out:
    return status;
}

static bal_status prepare_item(session *s, task_run *r, size_t i)
{
    item_run *it = &r->items[i];
    bal_buf target = {0};
    bool found = false;
    bal_status status;
    BAL_TRY(task_target(&r->task, i, &target, &found));
    it->chosen = found;
    r->n_no_gold += !found;
    r->n_chosen += found;
    it->finished = bal_alloc(r->task.repeats, sizeof *it->finished);
    if (it->finished == NULL)
        status = BAL_ENOMEM;
    if (found && status == BAL_OK)
        status = session_make_prompt(s, r, i);
out:
    bal_buf_dispose(&target);
    return status;
}

bal_status session_prepare(session *s, task_run *r)
{
    size_t from = 0, to = r->task.test.n, shard = 0, shards = 1;
    bal_status status = BAL_OK;
    if (r->limit > 0 && r->limit < to)
        to = r->limit;
    if (s->c->limit > 0 && (size_t)s->c->limit < to)
        to = (size_t)s->c->limit;
    if (s->c->item_range != NULL)
        BAL_TRY(read_range(s->c->item_range, to, &from, &to));
    if (s->c->shard != NULL)
        BAL_TRY(read_shard(s->c->shard, &shard, &shards));
    r->n_items = to;
    r->items = bal_alloc(to, sizeof *r->items);
    if (r->items == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < to; i++) {
        BAL_TRY(task_draw(&r->task, i)); /* also for items that are left out: the draws go on */
        if (i >= from && i % shards == shard)
            BAL_TRY(prepare_item(s, r, i));
    }
    if (r->n_chosen == 0)
        status = bal_fail(BAL_EINVAL, "task '%s': no item is left (of %zu; --limit, --item-range, --shard%s)",
                          r->task.name, r->task.test.n, r->n_no_gold > 0 ? "; items without a right answer" : "");
out:
    return status;
}

static bal_status store_metrics(session *s, const task_result *r)
{
    char key[256];
    bal_status status = BAL_OK;
    for (size_t i = 0; i < r->metrics.n; i++) {
        const metric *m = &r->metrics.items[i];
        (void)snprintf(key, sizeof key, "%s/%s,%s", r->r->task.name, m->name, m->filter);
        BAL_TRY(bal_run_metric(s->store, s->run, key, 0, m->value));
        (void)snprintf(key, sizeof key, "%s/%s_stderr,%s", r->r->task.name, m->name, m->filter);
        BAL_TRY(bal_run_metric(s->store, s->run, key, 0, m->stderr_value));
    }
out:
    return status;
}

/* The folder and time stamp of lm-eval's output files: DIR/MODEL/results_TIME.json. */
static bal_status output_folder(const session *s, bal_buf *folder, char stamp[40])
{
    struct timespec now;
    struct tm utc;
    char date[32];
    bal_status status;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    (void)strftime(date, sizeof date, "%Y-%m-%dT%H-%M-%S", &utc);
    (void)snprintf(stamp, 40, "%s.%06ld", date, now.tv_nsec / 1000 % 1000000);
    BAL_TRY(bal_buf_printf(folder, "%s/", s->c->output_path));
    for (const char *p = s->c->model == NULL ? "rescored" : s->c->model; *p != '\0'; p++)
        BAL_TRY(bal_buf_append(folder, strchr("/\\:<>|?*\" ", *p) == NULL ? p : "_", 1));
    status = bal_folder_make(bal_buf_cstr(folder));
out:
    return status;
}

static bal_status write_samples(const session *s, const task_result *results, const char *folder, const char *stamp)
{
    bal_buf path = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < s->n_tasks; i++) {
        if (s->tasks[i].not_run[0] != '\0')
            continue;
        bal_buf_clear(&path);
        BAL_TRY(bal_buf_printf(&path, "%s/samples_%s%s%s.jsonl", folder, s->tasks[i].task.name,
                               stamp == NULL ? "" : "_", stamp == NULL ? "" : stamp));
        BAL_TRY(report_samples(bal_buf_cstr(&path), &results[i]));
    }
out:
    bal_buf_dispose(&path);
    return status;
}

static bal_status write_files(const session *s, const task_result *results, const bal_buf *document)
{
    bal_buf folder = {0}, path = {0};
    char stamp[40];
    bal_status status = BAL_OK;
    if (s->c->log_samples != NULL) {
        BAL_TRY(bal_folder_make(s->c->log_samples));
        BAL_TRY(write_samples(s, results, s->c->log_samples, NULL));
    }
    if (s->c->output_path == NULL)
        goto out;
    BAL_TRY(output_folder(s, &folder, stamp));
    BAL_TRY(bal_buf_printf(&path, "%s/results_%s.json", bal_buf_cstr(&folder), stamp));
    BAL_TRY(bal_file_replace(bal_buf_cstr(&path), bal_buf_cstr(document), document->len));
    status = write_samples(s, results, bal_buf_cstr(&folder), stamp);
out:
    bal_buf_dispose(&folder);
    bal_buf_dispose(&path);
    return status;
}

bal_status session_report(session *s, const char *config, double seconds)
{
    task_result *results = bal_alloc(s->n_tasks, sizeof *results);
    bal_buf out = {0}, document = {0};
    char uuid[33];
    bal_status status = BAL_ENOMEM;
    if (results == NULL)
        return status;
    for (size_t i = 0; i < s->n_tasks; i++) {
        results[i] = (task_result){.r = &s->tasks[i]};
        if (s->tasks[i].not_run[0] != '\0')
            continue;
        BAL_TRY(report_read(&results[i], s->store, s->run, &s->tasks[i]));
        BAL_TRY(store_metrics(s, &results[i]));
    }
    BAL_TRY(bal_run_uuid(s->store, s->run, uuid));
    BAL_TRY(report_json(&document, s, results, config, uuid, seconds));
    if (!s->common->json)
        BAL_TRY(report_table(&out, s, results));
    BAL_TRY(write_files(s, results, &document));
    if (s->c->document != NULL)
        status = bal_buf_append(s->c->document, bal_buf_cstr(&document), document.len);
    else
        status = evaluate_write(NULL, s->common->json ? &document : &out);
    BAL_TRY(status);
    if (!s->common->json)
        bal_log_line(&s->common->log, BAL_LOG_INFO, "run %lld (%s) in %s", (long long)s->run, uuid, s->common->db);
out:
    for (size_t i = 0; i < s->n_tasks; i++)
        task_result_dispose(&results[i]);
    bal_free(results);
    bal_buf_dispose(&out);
    bal_buf_dispose(&document);
    return status;
}

bal_status evaluate_tasks(const evaluate_config *c, const bal_common *common, const bal_bundle *b, int argc,
                          char **argv)
{
    double start = bal_clock_seconds();
    bal_buf config = {0};
    bal_status status;
    session *s = bal_alloc(1, sizeof *s);
    if (s == NULL)
        return BAL_ENOMEM;
    *s = (session){.c = c, .common = common, .bundle = b};
    if (!served_named(c))
        BAL_TRY(bal_bundle_need_tokenizer(b));
    bool no_system = false;
    s->chat = (chat_form){.plain = !c->apply_chat_template,
                          .tokenizer = served_named(c) ? NULL : b->tokenizer,
                          .system = c->system_instruction,
                          .multiturn = c->fewshot_as_multiturn,
                          .no_system = &no_system};
    BAL_TRY(session_read_tasks(s));
    if (served_named(c)) {
        BAL_TRY(served_check_tasks(s));
        BAL_TRY(served_open(s));
        for (size_t i = 0; i < s->n_tasks; i++)
            check_context(s, &s->tasks[i], s->served_length);
    }
    for (size_t i = 0; i < s->n_tasks; i++)
        if (s->tasks[i].not_run[0] == '\0')
            BAL_TRY(session_prepare(s, &s->tasks[i]));
    if (no_system)
        bal_log_line(&common->log, BAL_LOG_WARN,
                     "the chat template refuses a system message: conversations go without it");
    BAL_TRY(session_config(s, &config));
    BAL_TRY(session_open_run(s, bal_buf_cstr(&config), argc, argv));
    for (size_t i = 0; i < s->n_tasks; i++) {
        if (s->tasks[i].not_run[0] == '\0')
            BAL_TRY(session_run_task(s, &s->tasks[i]));
        else
            bal_log_line(&common->log, BAL_LOG_WARN, "%s: not run: %s", s->tasks[i].task.name, s->tasks[i].not_run);
    }
    status = session_report(s, bal_buf_cstr(&config), bal_clock_seconds() - start);
out:
    session_end_run(s, status);
    session_dispose(s);
    bal_free(s);
    bal_buf_dispose(&config);
    return status;
}
