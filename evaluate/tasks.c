/* Running tasks: prompts, the engine, verdicts, one row per item and filter in the store as soon as it is known.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"

#include "evaluate/report.h"
#include "evaluate/task.h"
#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/store.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TASKS = 32 };
static const size_t k_max_adapter = (size_t)4 << 30;

/* One task while it runs. */
typedef struct task_run {
    task task;
    size_t n;         /* items */
    bal_buf *prompts; /* [n] */
    bal_ids *ids;     /* [n] */
    bool *finished;   /* [n] in the store already */
    size_t *pending;  /* item of each request */
    bal_request *requests;
    size_t n_pending;
} task_run;

typedef struct session {
    const evaluate_config *c;
    const bal_common *common;
    const bal_bundle *bundle;
    bal_store *store;
    int64_t run;
    task_run tasks[MAX_TASKS];
    size_t n_tasks;
    task_run *current;
    bal_progress progress;
    size_t done, right, judged;
} session;

static void task_run_dispose(task_run *r)
{
    for (size_t i = 0; i < r->n; i++) {
        if (r->prompts != NULL)
            bal_buf_dispose(&r->prompts[i]);
        if (r->ids != NULL)
            bal_ids_dispose(&r->ids[i]);
    }
    bal_free(r->prompts);
    bal_free(r->ids);
    bal_free(r->finished);
    bal_free(r->pending);
    bal_free(r->requests);
    task_dispose(&r->task);
}

static bal_status prepare_task(session *s, const char *name, const char *data)
{
    bal_status status;
    if (s->n_tasks == MAX_TASKS)
        return bal_fail(BAL_EINVAL, "more than %d tasks", MAX_TASKS);
    for (size_t i = 0; i < s->n_tasks; i++)
        if (strcmp(s->tasks[i].task.name, name) == 0)
            return bal_fail(BAL_EINVAL, "task '%s' is named twice", name);
    task_run *r = &s->tasks[s->n_tasks++];
    BAL_TRY(task_load(&r->task, name, data, s->c->num_fewshot, s->c->max_gen_toks));
    size_t n = r->task.test.n;
    if (s->c->limit > 0 && (size_t)s->c->limit < n)
        n = (size_t)s->c->limit;
    r->prompts = bal_alloc(n, sizeof *r->prompts);
    r->ids = bal_alloc(n, sizeof *r->ids);
    r->finished = bal_alloc(n, sizeof *r->finished);
    r->pending = bal_alloc(n, sizeof *r->pending);
    r->requests = bal_alloc(n, sizeof *r->requests);
    if (r->prompts == NULL || r->ids == NULL || r->finished == NULL || r->pending == NULL || r->requests == NULL)
        return BAL_ENOMEM;
    r->n = n;
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(task_prompt(&r->task, i, &r->prompts[i]));
        BAL_TRY(bal_bundle_prompt(s->bundle, bal_buf_cstr(&r->prompts[i]), r->prompts[i].len, &r->ids[i]));
    }
out:
    return status;
}

/* ,"key": "text" or null */
static bal_status put_text(bal_buf *out, const char *key, const char *text)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "%s\"%s\": ", out->len > 1 ? ", " : "", key));
    status = text == NULL ? bal_buf_text(out, "null") : bal_json_put_text(out, text);
out:
    return status;
}

/* What tells a file from a later one of the same name without reading gigabytes: its size; for an adapter its hash. */
static bal_status put_identity(bal_buf *out, const evaluate_config *c)
{
    bal_buf bytes = {0};
    char hex[65] = "";
    uint64_t size = 0;
    bal_status status = BAL_OK;
    char *weights = bal_folder_exists(c->model) ? bal_path_join(c->model, "model.safetensors") : bal_strdup(c->model);
    char *factors = c->adapter == NULL ? NULL : bal_path_join(c->adapter, "adapter_model.safetensors");
    if (weights != NULL && bal_file_exists(weights))
        BAL_TRY(bal_file_size(weights, &size));
    BAL_TRY(bal_buf_printf(out, ", \"model_bytes\": %llu", (unsigned long long)size));
    if (factors != NULL && bal_file_exists(factors)) {
        BAL_TRY(bal_file_read(factors, k_max_adapter, &bytes));
        bal_sha256_hex(bal_buf_cstr(&bytes), bytes.len, hex);
        BAL_TRY(put_text(out, "adapter_sha256", hex));
    }
out:
    bal_free(weights);
    bal_free(factors);
    bal_buf_dispose(&bytes);
    return status;
}

/* The configuration that decides the results, as JSON: what does not (batch, threads, output files) is left out, so that
 * a run is continued under other settings of these. */
static bal_status make_config(const session *s, bal_buf *out)
{
    const evaluate_config *c = s->c;
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{"));
    BAL_TRY(put_text(out, "model", c->model));
    BAL_TRY(put_text(out, "adapter", c->adapter));
    BAL_TRY(put_text(out, "initial_adapter", c->initial_adapter));
    BAL_TRY(put_text(out, "tokenizer", c->tokenizer));
    BAL_TRY(put_identity(out, c));
    BAL_TRY(bal_buf_printf(out,
                           ", \"limit\": %lld, \"num_fewshot\": %lld, \"max_gen_toks\": %lld, \"max_length\": %lld, "
                           "\"tasks\": {",
                           (long long)c->limit, (long long)c->num_fewshot, (long long)c->max_gen_toks,
                           (long long)c->max_length));
    for (size_t i = 0; i < s->n_tasks; i++)
        BAL_TRY(bal_buf_printf(out, "%s\"%s\": \"%s\"", i == 0 ? "" : ", ", s->tasks[i].task.name,
                               s->tasks[i].task.test_sha256));
    BAL_TRY(bal_buf_text(out, "}}"));
out:
    return status;
}

/* The newest unfinished run of the same configuration that no other process is at, 0 if there is none. */
static bal_status find_unfinished(session *s, const char *config)
{
    sqlite3_stmt *st = NULL;
    bool row = true, claimed = false;
    bal_status status;
    s->run = 0;
    BAL_TRY(bal_store_prepare(s->store,
                              "SELECT id FROM run WHERE kind = 'evaluate' AND config = ?1 AND status <> 'finished' "
                              "ORDER BY id DESC",
                              &st));
    (void)sqlite3_bind_text(st, 1, config, -1, SQLITE_TRANSIENT);
    while (s->run == 0) {
        BAL_TRY(bal_store_step(s->store, st, &row));
        if (!row)
            break;
        int64_t run = sqlite3_column_int64(st, 0);
        BAL_TRY(bal_run_claim(s->store, run, &claimed));
        s->run = claimed ? run : 0;
    }
out:
    (void)sqlite3_finalize(st);
    return status;
}

/* In one transaction, so that of two commands at once only one takes a run. */
static bal_status find_run(session *s, const char *config, int argc, char **argv)
{
    bool claimed = false;
    bal_status status = BAL_OK;
    if (strcmp(s->c->resume, "auto") == 0)
        BAL_TRY(find_unfinished(s, config));
    if (s->run != 0) {
        bal_log_line(&s->common->log, BAL_LOG_INFO, "going on with run %lld", (long long)s->run);
        goto out;
    }
    bal_run_spec spec = {.kind = "evaluate",
                         .name = s->c->name,
                         .experiment = s->c->experiment,
                         .config_json = config,
                         .argc = argc,
                         .argv = argv};
    BAL_TRY(bal_run_begin(s->store, &spec, &s->run));
    status = bal_run_claim(s->store, s->run, &claimed);
out:
    return status;
}

static bal_status open_run(session *s, const char *config, int argc, char **argv)
{
    bal_status status;
    BAL_TRY(bal_store_open(&s->store, s->common->db, true));
    BAL_TRY(bal_store_begin(s->store));
    status = find_run(s, config, argc, argv);
    if (status == BAL_OK)
        return bal_store_commit(s->store);
    bal_store_rollback(s->store);
    s->run = 0;
out:
    return status;
}

/* Marks the items whose rows are in the store with the prompt that they would get now. */
static bal_status read_finished(session *s, task_run *r)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    char hex[65];
    bal_status status;
    BAL_TRY(
        bal_store_prepare(s->store,
                          "SELECT item, count(*), min(prompt_sha256) FROM eval_item WHERE run_id = ?1 AND task = ?2 "
                          "AND repeat = 0 GROUP BY item",
                          &st));
    (void)sqlite3_bind_int64(st, 1, s->run);
    (void)sqlite3_bind_text(st, 2, r->task.name, -1, SQLITE_TRANSIENT);
    for (;;) {
        BAL_TRY(bal_store_step(s->store, st, &row));
        if (!row)
            break;
        int64_t item = sqlite3_column_int64(st, 0);
        const unsigned char *hash = sqlite3_column_text(st, 2);
        if (item < 0 || (size_t)item >= r->n || hash == NULL ||
            (size_t)sqlite3_column_int64(st, 1) != r->task.scorer->n_filters)
            continue;
        bal_sha256_hex(bal_buf_cstr(&r->prompts[item]), r->prompts[item].len, hex);
        r->finished[item] = strcmp((const char *)hash, hex) == 0;
    }
out:
    (void)sqlite3_finalize(st);
    return status;
}

static bal_status store_item(session *s, size_t item, const bal_answer *a)
{
    task_run *r = s->current;
    char hex[65];
    bal_buf gold = {0}, extracted = {0}, output = {0};
    bool begun = false;
    bal_status status;
    bal_sha256_hex(bal_buf_cstr(&r->prompts[item]), r->prompts[item].len, hex);
    BAL_TRY(task_target(&r->task, item, &gold));
    BAL_TRY(bal_buf_append(&output, a->text, a->n_text));
    BAL_TRY(bal_store_begin(s->store));
    begun = true;
    for (size_t f = 0; f < r->task.scorer->n_filters; f++) {
        const bal_filter *filter = &r->task.scorer->filters[f];
        bal_verdict v = {0};
        bal_buf_clear(&extracted);
        BAL_TRY(filter->judge(bal_buf_cstr(&output), bal_buf_cstr(&gold), &extracted, &v));
        s->right += v.score == 1;
        s->judged++;
        bal_eval_item row = {.task = r->task.name,
                             .filter = filter->name,
                             .item = (int64_t)item,
                             .prompt_sha256 = hex,
                             .output = bal_buf_cstr(&output),
                             .extracted = !v.found && extracted.len == 0 ? NULL : bal_buf_cstr(&extracted),
                             .gold = bal_buf_cstr(&gold),
                             .score = v.score,
                             .correct = v.score == 1,
                             .prompt_tokens = (int64_t)a->n_prompt,
                             .output_tokens = (int64_t)a->n_ids,
                             .seconds = a->seconds,
                             .finish_reason = a->finish_reason};
        BAL_TRY(bal_run_item(s->store, s->run, &row));
    }
    status = bal_store_commit(s->store);
    begun = status != BAL_OK;
out:
    if (begun)
        bal_store_rollback(s->store);
    bal_buf_dispose(&gold);
    bal_buf_dispose(&extracted);
    bal_buf_dispose(&output);
    return status;
}

static bal_status on_answer(void *context, size_t i, const bal_answer *a)
{
    session *s = context;
    char note[64];
    bal_status status = store_item(s, s->current->pending[i], a);
    s->done++;
    (void)snprintf(note, sizeof note, "right %.1f %%",
                   100 * (double)s->right / (double)(s->judged == 0 ? 1 : s->judged));
    bal_progress_update(&s->progress, s->done, note);
    return status;
}

static bal_status run_task(session *s, task_run *r)
{
    bal_engine_options o = evaluate_engine(s->c, s->bundle);
    bal_status status;
    BAL_TRY(read_finished(s, r));
    for (size_t i = 0; i < r->n; i++) {
        if (r->finished[i])
            continue;
        r->pending[r->n_pending] = i;
        r->requests[r->n_pending++] = (bal_request){.kind = BAL_REQUEST_GENERATE,
                                                    .prompt = r->ids[i].data,
                                                    .n_prompt = r->ids[i].n,
                                                    .max_new_tokens = r->task.max_gen_toks,
                                                    .stops = r->task.until,
                                                    .n_stops = r->task.n_until};
    }
    s->current = r;
    s->done = s->right = s->judged = 0;
    o.context = s;
    o.answer = on_answer;
    if (r->n_pending < r->n)
        bal_log_line(&s->common->log, BAL_LOG_INFO, "%s: %zu of %zu items are there already", r->task.name,
                     r->n - r->n_pending, r->n);
    bal_progress_start(&s->progress, &s->common->log, r->task.name, "items", r->n_pending, s->common->progress);
    BAL_TRY(bal_engine_run(s->bundle->model, &o, r->requests, r->n_pending, NULL));
    bal_progress_done(&s->progress);
out:
    return status;
}

static bal_status store_metrics(session *s, const task_result *r)
{
    char key[128];
    bal_status status = BAL_OK;
    for (size_t f = 0; f < r->n_filters; f++) {
        const filter_result *x = &r->filters[f];
        (void)snprintf(key, sizeof key, "%s/exact_match,%s", r->task->name, x->filter);
        BAL_TRY(bal_run_metric(s->store, s->run, key, 0, x->mean));
        (void)snprintf(key, sizeof key, "%s/exact_match_stderr,%s", r->task->name, x->filter);
        BAL_TRY(bal_run_metric(s->store, s->run, key, 0, x->stderr_mean));
    }
out:
    return status;
}

static bal_status finish(session *s, const char *config, double seconds)
{
    task_result results[MAX_TASKS];
    bal_buf out = {0};
    char uuid[33];
    bal_status status;
    for (size_t i = 0; i < s->n_tasks; i++) {
        BAL_TRY(report_read(&results[i], s->store, s->run, &s->tasks[i].task, s->tasks[i].n));
        BAL_TRY(store_metrics(s, &results[i]));
        if (s->c->log_samples != NULL)
            BAL_TRY(report_samples(s->c->log_samples, &results[i], s->store, s->run, s->tasks[i].prompts));
    }
    BAL_TRY(bal_run_uuid(s->store, s->run, uuid));
    if (s->common->json)
        BAL_TRY(report_json(&out, results, s->n_tasks, config, uuid, seconds));
    else
        BAL_TRY(report_table(&out, results, s->n_tasks));
    BAL_TRY(evaluate_write(NULL, &out));
    if (!s->common->json)
        bal_log_line(&s->common->log, BAL_LOG_INFO, "run %lld (%s) in %s", (long long)s->run, uuid, s->common->db);
out:
    bal_buf_dispose(&out);
    return status;
}

static void end_run(session *s, bal_status status)
{
    char message[1024];
    const char *word = status == BAL_OK ? "finished" : (status == BAL_EINTERRUPT ? "interrupted" : "failed");
    if (s->run == 0)
        return;
    (void)snprintf(message, sizeof message, "%s", bal_error_message());
    (void)bal_run_end(s->store, s->run, word, bal_exit_status(status), status == BAL_OK ? NULL : message);
    if (status != BAL_OK)
        (void)bal_fail(status, "%s", message); /* what went wrong first is what is said */
}

bal_status evaluate_tasks(const evaluate_config *c, const bal_common *common, const bal_bundle *b, int argc,
                          char **argv)
{
    const char *data = c->data != NULL ? c->data : getenv("BALORA_DATA");
    double start = bal_clock_seconds();
    bal_buf config = {0};
    bal_status status;
    session *s = bal_alloc(1, sizeof *s);
    if (s == NULL)
        return BAL_ENOMEM;
    *s = (session){.c = c, .common = common, .bundle = b};
    BAL_TRY(bal_bundle_need_tokenizer(b));
    for (size_t i = 0; i < c->tasks.n; i++)
        BAL_TRY(prepare_task(s, c->tasks.items[i], data));
    BAL_TRY(make_config(s, &config));
    BAL_TRY(open_run(s, bal_buf_cstr(&config), argc, argv));
    for (size_t i = 0; i < s->n_tasks; i++)
        BAL_TRY(run_task(s, &s->tasks[i]));
    status = finish(s, bal_buf_cstr(&config), bal_clock_seconds() - start);
out:
    end_run(s, status);
    for (size_t i = 0; i < s->n_tasks; i++)
        task_run_dispose(&s->tasks[i]);
    bal_store_close(s->store);
    bal_free(s);
    bal_buf_dispose(&config);
    return status;
}
