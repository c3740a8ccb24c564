/* The run's row in the store, and the rows of its items.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/session.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FEWSHOT_SEED = 1234 }; /* the usual one is not written: runs of older programs are continued */
static const size_t k_max_adapter = (size_t)4 << 30;

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
    if (c->model == NULL)
        return BAL_OK;
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

/* ,"items": {filter: number}: how the answers of one item make its score (BAL_ITEM_SCORE). */
static bal_status put_votes(bal_buf *out, const task *t)
{
    bal_status status;
    if (t->scorer->votes == NULL || t->repeats == 1)
        return BAL_OK;
    BAL_TRY(bal_buf_text(out, ", \"items\": {"));
    for (size_t f = 0; t->scorer->filter(t, f) != NULL; f++)
        BAL_TRY(
            bal_buf_printf(out, "%s\"%s\": %zu", f == 0 ? "" : ", ", t->scorer->filter(t, f), t->scorer->votes(t, f)));
    status = bal_buf_text(out, "}");
out:
    return status;
}

/* "name": {"file": as --tasks has it, "data": hash, "task": hash}, or the reason it does not run. */
static bal_status put_task(bal_buf *out, const char *given, const task_run *r)
{
    bal_buf text = {0};
    char hex[65];
    bal_status status;
    BAL_TRY(bal_json_put_text(out, r->task.name));
    BAL_TRY(bal_buf_text(out, ": {\"given\": "));
    BAL_TRY(bal_json_put_text(out, given));
    if (r->not_run[0] == '\0') {
        BAL_TRY(bal_json_put(&text, r->task.json, false));
        bal_sha256_hex(bal_buf_cstr(&text), text.len, hex);
        BAL_TRY(bal_buf_printf(out, ", \"data_sha256\": \"%s\", \"task_sha256\": \"%s\"", r->task.test_sha256, hex));
        BAL_TRY(put_votes(out, &r->task));
    }
    status = bal_buf_text(out, "}");
out:
    bal_buf_dispose(&text);
    return status;
}

/* The configuration that decides the results, as JSON: what does not (batch, threads, output files) is left out, so that
 * a run is continued under other settings of these. */
bal_status session_config(const session *s, bal_buf *out)
{
    const evaluate_config *c = s->c;
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{"));
    BAL_TRY(put_text(out, "model", c->model));
    BAL_TRY(put_text(out, "adapter", c->adapter));
    BAL_TRY(put_text(out, "initial_adapter", c->initial_adapter));
    BAL_TRY(put_text(out, "tokenizer", c->tokenizer));
    if (s->served != NULL)
        BAL_TRY(put_text(out, "base_url", c->base_url));
    BAL_TRY(put_identity(out, c));
    BAL_TRY(put_text(out, "suite", c->suite));
    BAL_TRY(put_text(out, "item_range", c->item_range));
    BAL_TRY(put_text(out, "shard", c->shard));
    BAL_TRY(put_text(out, "system_instruction", c->system_instruction));
    if (c->fewshot_seed != FEWSHOT_SEED)
        BAL_TRY(bal_buf_printf(out, ", \"fewshot_seed\": %lld", (long long)c->fewshot_seed));
    if (c->equivalence_command != NULL)
        BAL_TRY(put_text(out, "equivalence_command", c->equivalence_command));
    for (size_t i = 0; i < c->rescore.n; i++) {
        char key[32];
        (void)snprintf(key, sizeof key, "rescored_%zu", i);
        BAL_TRY(put_text(out, key, c->rescore.items[i]));
    }
    BAL_TRY(bal_buf_printf(
        out,
        ", \"apply_chat_template\": %s, \"fewshot_as_multiturn\": %s, \"limit\": %lld, "
        "\"num_fewshot\": %lld, \"max_gen_toks\": %lld, \"max_length\": %lld, \"repeats\": %lld, \"compute\": \"%s\", "
        "\"seed\": %lld, \"tasks\": {",
        c->apply_chat_template ? "true" : "false", c->fewshot_as_multiturn ? "true" : "false", (long long)c->limit,
        (long long)c->num_fewshot, (long long)c->max_gen_toks, (long long)c->max_length, (long long)c->repeats,
        c->compute, (long long)c->seed));
    for (size_t i = 0; i < s->n_tasks; i++) {
        BAL_TRY(bal_buf_text(out, i == 0 ? "" : ", "));
        BAL_TRY(put_task(out, s->names[i], &s->tasks[i]));
    }
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
                         .seed = s->c->seed,
                         .argc = argc,
                         .argv = argv};
    BAL_TRY(bal_run_begin(s->store, &spec, &s->run));
    status = bal_run_claim(s->store, s->run, &claimed);
out:
    return status;
}

bal_status session_open_run(session *s, const char *config, int argc, char **argv)
{
    bal_status status;
    if (s->store == NULL)
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

void session_end_run(session *s, bal_status status)
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

/* Marks the items whose rows are in the store with the prompt that they would get now. */
bal_status session_read_finished(session *s, task_run *r)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    size_t n_filters = scorer_n_filters(&r->task);
    bal_status status;
    BAL_TRY(bal_store_prepare(s->store,
                              "SELECT item, repeat, count(*), min(prompt_sha256), max(prompt_sha256) FROM eval_item "
                              "WHERE run_id = ?1 AND task = ?2 GROUP BY item, repeat",
                              &st));
    (void)sqlite3_bind_int64(st, 1, s->run);
    (void)sqlite3_bind_text(st, 2, r->task.name, -1, SQLITE_TRANSIENT);
    for (;;) {
        BAL_TRY(bal_store_step(s->store, st, &row));
        if (!row)
            break;
        int64_t item = sqlite3_column_int64(st, 0), repeat = sqlite3_column_int64(st, 1);
        const char *low = (const char *)sqlite3_column_text(st, 3), *high = (const char *)sqlite3_column_text(st, 4);
        if (item < 0 || (size_t)item >= r->n_items || repeat < 0 || (size_t)repeat >= r->task.repeats || low == NULL ||
            (size_t)sqlite3_column_int64(st, 2) < n_filters || !r->items[item].chosen)
            continue;
        const char *hash = r->items[item].hash;
        r->items[item].finished[repeat] = strcmp(low, hash) == 0 && strcmp(high, hash) == 0;
    }
out:
    (void)sqlite3_finalize(st);
    return status;
}

/* The item's category: the scorer's, or the field that group_by names. */
static const char *group_of(const task *t, size_t item)
{
    const char *by = NULL;
    if (t->scorer->group != NULL)
        return t->scorer->group(t, item);
    if (bal_json_text(t->json, t->name, "group_by", &by, NULL) != BAL_OK || by == NULL)
        return NULL;
    const cJSON *value = task_member(t->test.items[item], by);
    return cJSON_IsString(value) ? value->valuestring : NULL;
}

bal_status session_store_output(session *s, task_run *r, size_t item, size_t repeat, const char *output,
                                const bal_eval_item *about)
{
    const task *t = &r->task;
    bal_buf gold = {0}, extracted = {0};
    bool begun = false, found = false;
    bal_status status;
    BAL_TRY(task_target(t, item, &gold, &found));
    BAL_TRY(bal_store_begin(s->store));
    begun = true;
    for (size_t f = 0; t->scorer->filter(t, f) != NULL; f++) {
        bal_verdict v = {0};
        bool late = t->scorer->judge_late != NULL;
        bal_buf_clear(&extracted);
        if (!late) {
            BAL_TRY(t->scorer->judge(t, item, f, output, &extracted, &v));
            s->right += v.score == 1;
            s->judged++;
        }
        bal_eval_item row = *about;
        row.task = t->name;
        row.filter = t->scorer->filter(t, f);
        row.item = (int64_t)item;
        row.repeat = (int64_t)repeat;
        row.prompt_sha256 = r->items[item].hash;
        row.output = output;
        row.extracted = late || (!v.found && extracted.len == 0) ? NULL : bal_buf_cstr(&extracted);
        row.gold = found ? bal_buf_cstr(&gold) : NULL;
        row.group = group_of(t, item);
        row.score = late ? (double)NAN : v.score;
        row.correct = late ? -1 : (v.score == 1 ? 1 : (v.score == 0 ? 0 : -1));
        BAL_TRY(bal_run_item(s->store, s->run, &row));
    }
    status = bal_store_commit(s->store);
    begun = status != BAL_OK;
out:
    if (begun)
        bal_store_rollback(s->store);
    bal_buf_dispose(&gold);
    bal_buf_dispose(&extracted);
    return status;
}

static bal_status update_verdict(session *s, const task *t, size_t f, const late_item *it)
{
    sqlite3_stmt *st = NULL;
    bal_status status;
    BAL_TRY(bal_store_cached(s->store,
                             "UPDATE eval_item SET score = ?6, correct = ?7, extracted = ?8 WHERE run_id = ?1 AND "
                             "task = ?2 AND item = ?3 AND repeat = ?4 AND filter = ?5",
                             &st));
    (void)sqlite3_bind_int64(st, 1, s->run);
    (void)sqlite3_bind_text(st, 2, t->name, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(st, 3, (int64_t)it->item);
    (void)sqlite3_bind_int64(st, 4, (int64_t)it->repeat);
    (void)sqlite3_bind_text(st, 5, t->scorer->filter(t, f), -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_double(st, 6, it->verdict.score);
    (void)sqlite3_bind_int(st, 7, it->verdict.score == 1);
    if (it->verdict.found || it->extracted.len > 0)
        (void)sqlite3_bind_text(st, 8, bal_buf_cstr(&it->extracted), -1, SQLITE_TRANSIENT);
    status = bal_store_run(s->store, st, "write a verdict");
out:
    return status;
}

static void free_late(late_item *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char *output = NULL;
        memcpy(&output, &items[i].output, sizeof output); /* a copy of bal_strdup() */
        bal_free(output);
        bal_buf_dispose(&items[i].extracted);
        items[i] = (late_item){0};
    }
}

enum { LATE_BATCH = 64 };

/* Up to LATE_BATCH outputs of filter f that have no verdict. */
static bal_status read_late(session *s, const task *t, size_t f, late_item *items, size_t *n)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    bal_status status;
    *n = 0;
    BAL_TRY(bal_store_prepare(s->store,
                              "SELECT item, repeat, output FROM eval_item WHERE run_id = ?1 AND task = ?2 AND "
                              "filter = ?3 AND score IS NULL ORDER BY item, repeat LIMIT 64", /* LATE_BATCH */
                              &st));
    (void)sqlite3_bind_int64(st, 1, s->run);
    (void)sqlite3_bind_text(st, 2, t->name, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_text(st, 3, t->scorer->filter(t, f), -1, SQLITE_TRANSIENT);
    while (*n < LATE_BATCH) {
        BAL_TRY(bal_store_step(s->store, st, &row));
        if (!row)
            break;
        const char *output = (const char *)sqlite3_column_text(st, 2);
        items[*n] = (late_item){.item = (size_t)sqlite3_column_int64(st, 0),
                                .repeat = (size_t)sqlite3_column_int64(st, 1),
                                .output = bal_strdup(output == NULL ? "" : output)};
        if (items[*n].output == NULL || items[*n].item >= t->test.n) {
            status = items[*n].output == NULL ? BAL_ENOMEM
                                              : bal_fail(BAL_EFORMAT, "task '%s': the store holds item %zu of %zu",
                                                         t->name, items[*n].item, t->test.n);
            (*n)++;
            goto out;
        }
        (*n)++;
    }
out:
    (void)sqlite3_finalize(st);
    return status;
}

bal_status session_judge_late(session *s, task_run *r)
{
    late_item items[LATE_BATCH];
    size_t n = 0, before = s->outside == NULL ? 0 : equivalence_unanswered(s->outside);
    bal_status status = BAL_OK;
    memset(items, 0, sizeof items);
    for (size_t f = 0; r->task.scorer->filter(&r->task, f) != NULL; f++)
        for (;;) {
            BAL_TRY(read_late(s, &r->task, f, items, &n));
            if (n == 0)
                break;
            BAL_TRY(r->task.scorer->judge_late(&r->task, f, items, n));
            BAL_TRY(bal_store_begin(s->store));
            for (size_t i = 0; i < n && status == BAL_OK; i++) {
                if (!isfinite(items[i].verdict.score))
                    status = bal_fail(BAL_ENUMERIC, "task '%s', item %zu has no verdict", r->task.name, items[i].item);
                else
                    status = update_verdict(s, &r->task, f, &items[i]);
            }
            if (status != BAL_OK) {
                bal_store_rollback(s->store);
                goto out;
            }
            BAL_TRY(bal_store_commit(s->store));
            free_late(items, n);
        }
    if (s->outside != NULL && equivalence_unanswered(s->outside) > before)
        bal_log_line(&s->common->log, BAL_LOG_WARN,
                     "%s: %zu answers have no verdict of --equivalence-command and count as wrong", r->task.name,
                     equivalence_unanswered(s->outside) - before);
out:
    free_late(items, n);
    return status;
}
