/* One task through the engine: requests, answers, rows.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/served.h"
#include "evaluate/session.h"

#include "lib/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bal_status next_request(task_run *r, size_t item, size_t part, bal_request **q, request_of **of)
{
    if (r->n_requests == r->cap_requests) {
        size_t cap = r->cap_requests == 0 ? 256 : 2 * r->cap_requests;
        bal_request *requests = bal_realloc(r->requests, cap, sizeof *requests);
        if (requests == NULL)
            return BAL_ENOMEM;
        r->requests = requests;
        request_of *grown = bal_realloc(r->of, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        r->of = grown;
        r->cap_requests = cap;
    }
    *q = &r->requests[r->n_requests];
    *of = &r->of[r->n_requests++];
    **q = (bal_request){0};
    **of = (request_of){.item = item, .part = part};
    return BAL_OK;
}

static bal_status add_generate(session *s, task_run *r, size_t i)
{
    const task *t = &r->task;
    bal_request *q = NULL;
    request_of *of = NULL;
    bal_ids ids = {0};
    /* a served model is sent messages, or the text when its tokenizer is not here */
    bool kept = false, encode = s->served == NULL || (s->bundle->tokenizer != NULL && !s->c->apply_chat_template);
    bal_status status = BAL_OK;
    for (size_t k = 0; k < t->repeats; k++) {
        if (r->items[i].finished[k])
            continue;
        if (ids.n == 0 && encode)
            BAL_TRY(bal_bundle_prompt(s->bundle, bal_buf_cstr(&r->items[i].prompt), r->items[i].prompt.len, &ids));
        BAL_TRY(next_request(r, i, k, &q, &of));
        if (!kept) /* the first request of the item owns the ids */
            of->ids = ids;
        kept = true;
        *q = (bal_request){.kind = BAL_REQUEST_GENERATE,
                           .prompt = ids.data,
                           .n_prompt = ids.n,
                           .max_new_tokens = t->max_gen_toks,
                           .sampling = {t->temperature, t->top_k, t->top_p},
                           .seed = t->seed,
                           .stream = i * t->repeats + k,
                           .stops = t->until,
                           .n_stops = t->n_until};
    }
out:
    if (!kept)
        bal_ids_dispose(&ids);
    return status;
}

static bal_status add_choices(session *s, task_run *r, size_t i)
{
    item_run *it = &r->items[i];
    bal_request *q = NULL;
    request_of *of = NULL;
    bal_status status = BAL_OK;
    for (size_t k = 0; k < it->pairs.n; k++) {
        size_t n_context = 0;
        BAL_TRY(next_request(r, i, k, &q, &of));
        BAL_TRY(bal_bundle_split(s->bundle, bal_buf_cstr(&it->pairs.items[k].context),
                                 bal_buf_cstr(&it->pairs.items[k].continuation), &of->ids, &n_context));
        *q = (bal_request){.kind = BAL_REQUEST_SCORE,
                           .prompt = of->ids.data,
                           .n_prompt = n_context,
                           .continuation = of->ids.data + n_context,
                           .n_continuation = of->ids.n - n_context};
    }
    it->waiting = it->pairs.n;
out:
    return status;
}

/* lm-eval's rolling windows: each token is predicted once; the first window begins with the prefix token, the last one
 * is moved left until it is full. */
static bal_status add_rolling(session *s, task_run *r, size_t i)
{
    item_run *it = &r->items[i];
    const char *text = bal_buf_cstr(&it->pairs.items[0].continuation);
    size_t length = s->served != NULL ? s->served_length : s->bundle->model->config.max_positions, n_context = 0;
    bal_request *q = NULL;
    request_of *of = NULL;
    bal_ids ids = {0};
    bool kept = false;
    bal_status status;
    if (s->c->max_length > 0 && (size_t)s->c->max_length < length)
        length = (size_t)s->c->max_length;
    BAL_TRY(bal_bundle_split(s->bundle, "", text, &ids, &n_context)); /* ids[0] is the prefix token */
    size_t n = ids.n - 1;
    for (size_t done = 0; done < n;) {
        size_t count = n - done < length ? n - done : length, end = done + count;
        size_t start = end > length ? end - length : 0; /* ids[start] precedes token `start` */
        BAL_TRY(next_request(r, i, 0, &q, &of));
        if (!kept)
            of->ids = ids;
        kept = true;
        *q = (bal_request){.kind = BAL_REQUEST_SCORE,
                           .prompt = ids.data + start,
                           .n_prompt = done + 1 - start,
                           .continuation = ids.data + done + 1,
                           .n_continuation = count};
        it->waiting++;
        done = end;
    }
out:
    if (!kept)
        bal_ids_dispose(&ids);
    return status;
}

static bal_status add_requests(session *s, task_run *r)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < r->n_items; i++) {
        item_run *it = &r->items[i];
        if (!it->chosen)
            continue;
        if (r->task.scorer->kind == SCORER_GENERATE) {
            BAL_TRY(add_generate(s, r, i));
            continue;
        }
        if (it->finished[0])
            continue;
        it->lls = bal_alloc(it->pairs.n, sizeof *it->lls);
        it->greedy = bal_alloc(it->pairs.n, sizeof *it->greedy);
        it->tokens = bal_alloc(it->pairs.n, sizeof *it->tokens);
        if (it->lls == NULL || it->greedy == NULL || it->tokens == NULL)
            return BAL_ENOMEM;
        for (size_t k = 0; k < it->pairs.n; k++)
            it->greedy[k] = true;
        it->first = r->n_requests;
        status = r->task.scorer->kind == SCORER_CHOICE ? add_choices(s, r, i) : add_rolling(s, r, i);
        it->n = r->n_requests - it->first;
        if (status != BAL_OK) {
            status = bal_fail_note(status, "task '%s', item %zu", r->task.name, i);
            goto out;
        }
    }
out:
    return status;
}

/* {"ll": [...], "greedy": [...], "tokens": [...]} */
static bal_status put_lls(const item_run *it, bal_buf *out)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"ll\": ["));
    for (size_t k = 0; k < it->pairs.n; k++) {
        BAL_TRY(bal_buf_text(out, k == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_f64(out, it->lls[k]));
    }
    BAL_TRY(bal_buf_text(out, "], \"greedy\": ["));
    for (size_t k = 0; k < it->pairs.n; k++)
        BAL_TRY(bal_buf_printf(out, "%s%s", k == 0 ? "" : ", ", it->greedy[k] ? "true" : "false"));
    BAL_TRY(bal_buf_text(out, "], \"tokens\": ["));
    for (size_t k = 0; k < it->pairs.n; k++)
        BAL_TRY(bal_buf_printf(out, "%s%zu", k == 0 ? "" : ", ", it->tokens[k]));
    status = bal_buf_text(out, "]}");
out:
    return status;
}

static bal_status on_score(session *s, task_run *r, request_of *of, const bal_request *q, const bal_answer *a)
{
    item_run *it = &r->items[of->item];
    bal_buf output = {0};
    bal_status status = BAL_OK;
    of->ll = a->log_likelihood;
    it->greedy[of->part] = it->greedy[of->part] && a->is_greedy;
    it->tokens[of->part] += q->n_continuation;
    it->seconds += a->seconds;
    it->n_context = a->n_prompt > it->n_context ? a->n_prompt : it->n_context;
    if (--it->waiting > 0)
        return BAL_OK;
    size_t tokens = 0;
    for (size_t k = it->first; k < it->first + it->n; k++)
        it->lls[r->of[k].part] += r->of[k].ll;
    for (size_t k = 0; k < it->pairs.n; k++)
        tokens += it->tokens[k];
    BAL_TRY(put_lls(it, &output));
    const bal_eval_item about = {.prompt_tokens = (int64_t)it->n_context,
                                 .output_tokens = (int64_t)tokens,
                                 .seconds = it->seconds,
                                 .finish_reason = "score"};
    BAL_TRY(session_store_output(s, r, of->item, 0, bal_buf_cstr(&output), &about));
    s->done++;
out:
    bal_buf_dispose(&output);
    return status;
}

static bal_status on_text(session *s, task_run *r, const request_of *of, const bal_answer *a)
{
    bal_buf output = {0};
    bal_status status;
    const bal_eval_item about = {.prompt_tokens = (int64_t)a->n_prompt,
                                 .output_tokens = (int64_t)a->n_ids,
                                 .seconds = a->seconds,
                                 .finish_reason = a->finish_reason};
    for (size_t i = 0; i < a->n_text; i++) /* the store's texts end at a NUL: U+FFFD stands for one */
        BAL_TRY(a->text[i] == '\0' ? bal_buf_text(&output, "\xef\xbf\xbd") : bal_buf_append(&output, a->text + i, 1));
    BAL_TRY(session_store_output(s, r, of->item, of->part, bal_buf_cstr(&output), &about));
    s->done++;
out:
    bal_buf_dispose(&output);
    return status;
}

static bal_status on_answer(void *context, size_t i, const bal_answer *a)
{
    session *s = context;
    task_run *r = s->current;
    char note[64];
    r->n_dropped += a->n_dropped > 0;
    bal_status status = r->requests[i].kind == BAL_REQUEST_SCORE ? on_score(s, r, &r->of[i], &r->requests[i], a)
                                                                 : on_text(s, r, &r->of[i], a);
    (void)snprintf(note, sizeof note, "right %.1f %%",
                   100 * (double)s->right / (double)(s->judged == 0 ? 1 : s->judged));
    bal_progress_update(&s->progress, s->done, s->judged > 0 ? note : NULL);
    return status;
}

bal_status session_run_task(session *s, task_run *r)
{
    bal_engine_options o = evaluate_engine(s->c, s->bundle);
    size_t there = 0, all = 0, units = r->task.scorer->kind == SCORER_GENERATE ? r->task.repeats : 1;
    bal_status status;
    BAL_TRY(session_read_finished(s, r));
    for (size_t i = 0; i < r->n_items; i++)
        for (size_t k = 0; r->items[i].chosen && k < units; k++) {
            there += r->items[i].finished[k];
            all++;
        }
    bool masked = r->task.scorer->kind == SCORER_MASKED;
    if (!masked)
        BAL_TRY(add_requests(s, r));
    s->current = r;
    s->done = s->right = s->judged = 0;
    o.context = s;
    o.answer = on_answer;
    if (there > 0)
        bal_log_line(&s->common->log, BAL_LOG_INFO, "%s: %zu of %zu items are there already", r->task.name, there, all);
    bal_progress_start(&s->progress, &s->common->log, r->task.name, "items", all - there, s->common->progress);
    BAL_TRY(masked              ? session_run_masked(s, r)
            : s->served != NULL ? served_ask(s, r, on_answer)
                                : bal_engine_run(s->bundle->model, &o, r->requests, r->n_requests, NULL));
    bal_progress_done(&s->progress);
    if (r->n_dropped > 0)
        bal_log_line(&s->common->log, BAL_LOG_WARN,
                     "%s: %zu of %zu requests were longer than the context and lost tokens at their left", r->task.name,
                     r->n_dropped, r->n_requests);
    if (r->task.scorer->judge_late != NULL)
        status = session_judge_late(s, r);
out:
    return status;
}
