/* The thread that runs the engines: one engine for each model of the list, all over the same weights; each step of one
 * moves every request in it.  SPDX-License-Identifier: Apache-2.0 */
#include "serve/serve.h"

#include "lib/base/clock.h"
#include "lib/base/mem.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

enum { LOOK_SECONDS_TENTHS = 2, MAX_CACHE_MIB = 2048 };

void serve_job_free(job *j)
{
    if (j == NULL)
        return;
    for (size_t i = 0; j->parts != NULL && i < j->n_parts; i++) {
        bal_ids_dispose(&j->parts[i].ids);
        bal_buf_dispose(&j->parts[i].text);
        bal_free(j->parts[i].log_probability);
        bal_free(j->parts[i].top);
        bal_free(j->parts[i].top_log_probability);
    }
    for (size_t i = 0; i < j->n_prompts; i++) {
        bal_ids_dispose(&j->prompts[i]);
        bal_buf_dispose(&j->prompt_texts[i]);
    }
    bal_free(j->parts);
    bal_free(j->prompts);
    bal_free(j->prompt_texts);
    cJSON_Delete(j->json);
    bal_buf_dispose(&j->body);
    bal_buf_dispose(&j->out);
    bal_free(j);
}

/* --- the lock's other side --- */

bool serve_submit(job *j)
{
    server *s = j->s;
    (void)pthread_mutex_lock(&s->lock);
    bool full = s->n_parts + j->n_parts > (size_t)s->c->max_waiting;
    if (s->stopping) {
        serve_refuse(&j->error, 503, NULL, "the server is stopping");
    } else if (full) {
        serve_refuse(&j->error, 429, NULL, "%zu answers are being made or waited for; try again later", s->n_parts);
    } else {
        job **last = &s->jobs;
        while (*last != NULL)
            last = &(*last)->next;
        *last = j;
        j->in_work = true;
        s->n_parts += j->n_parts;
        if (!j->stream) {
            MHD_suspend_connection(j->connection);
            j->suspended = true;
        }
        (void)pthread_cond_signal(&s->work);
    }
    (void)pthread_mutex_unlock(&s->lock);
    return j->error.code == 0;
}

/* Under the lock: lets the HTTP side look at the job. */
static void wake(job *j)
{
    if (j->suspended) {
        j->suspended = false;
        MHD_resume_connection(j->connection);
    }
}

/* --- what the engines say --- */

/* The part that an engine calls id. */
static part *find_part(server *s, const served *m, size_t id, job **of)
{
    for (job *j = s->jobs; j != NULL; j = j->next)
        for (size_t i = 0; j->model == m && i < j->n_parts; i++)
            if (j->parts[i].added && !j->parts[i].done && j->parts[i].id == id) {
                *of = j;
                return &j->parts[i];
            }
    return NULL;
}

static void fail(job *j, bal_status status)
{
    if (j->error.code == 0 && status != BAL_OK)
        serve_refuse(&j->error, 500, NULL, "%s", bal_error_message());
}

static bal_status keep_probabilities(const job *j, part *p, const bal_answer *a)
{
    size_t n = a->n_prompt + a->n_ids, k = j->n_top;
    p->log_probability = bal_alloc(n, sizeof *p->log_probability);
    p->top = bal_alloc(n * k, sizeof *p->top);
    p->top_log_probability = bal_alloc(n * k, sizeof *p->top_log_probability);
    if (p->log_probability == NULL || p->top == NULL || p->top_log_probability == NULL)
        return BAL_ENOMEM;
    for (size_t i = j->echo ? 0 : a->n_prompt; i < n; i++) {
        p->log_probability[i] = a->probabilities.log_probability[i];
        memcpy(p->top + i * k, a->probabilities.top + i * a->probabilities.stride, k * sizeof *p->top);
        memcpy(p->top_log_probability + i * k, a->probabilities.top_log_probability + i * a->probabilities.stride,
               k * sizeof *p->top_log_probability);
    }
    return BAL_OK;
}

static bal_status keep_answer(const job *j, part *p, const bal_answer *a)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < a->n_ids; i++)
        BAL_TRY(bal_ids_append(&p->ids, a->ids[i]));
    BAL_TRY(bal_buf_append(&p->text, a->text, a->n_text));
    p->reason = a->finish_reason;
    if (j->logprobs && !j->stream)
        status = keep_probabilities(j, p, a);
out:
    return status;
}

/* Adds an event to the stream. */
static void show(job *j, const part *p, const bal_answer *a, bool finished)
{
    bal_buf event = {0};
    bal_status status = serve_write_event(j, (size_t)(p - j->parts), a, finished, &event);
    (void)pthread_mutex_lock(&j->s->lock);
    if (status == BAL_OK && event.len > 0)
        status = bal_buf_append(&j->out, event.data, event.len);
    fail(j, status);
    wake(j);
    (void)pthread_mutex_unlock(&j->s->lock);
    bal_buf_dispose(&event);
}

typedef struct desk { /* what a callback needs */
    server *s;
    served *m;
} desk;

static void on_progress(void *context, size_t id, const bal_answer *a)
{
    const desk *d = context;
    job *j = NULL;
    const part *p = find_part(d->s, d->m, id, &j);
    if (p != NULL && j->stream && j->error.code == 0)
        show(j, p, a, false);
}

static bal_status on_answer(void *context, size_t id, const bal_answer *a)
{
    const desk *d = context;
    job *j = NULL;
    part *p = find_part(d->s, d->m, id, &j);
    if (p == NULL)
        return BAL_OK;
    d->m->n_parts--;
    p->done = true;
    j->n_done++;
    fail(j, keep_answer(j, p, a));
    if (j->stream && j->error.code == 0)
        show(j, p, a, true);
    return BAL_OK; /* one job's trouble is not the others' */
}

/* --- engines --- */

static bal_status open_engine(server *s, served *m)
{
    const serve_config *c = s->c;
    int64_t free_bytes = bal_free_memory_bytes();
    size_t budget = (size_t)c->cache_mib << 20;
    bal_status status;
    if (budget == 0) {
        budget = free_bytes < 0 ? (size_t)512 << 20 : (size_t)free_bytes / 4;
        budget = budget > ((size_t)MAX_CACHE_MIB << 20) ? (size_t)MAX_CACHE_MIB << 20 : budget;
    }
    desk *d = bal_alloc(1, sizeof *d);
    if (d == NULL)
        return BAL_ENOMEM;
    *d = (desk){s, m};
    const bal_engine_options o = {.tokenizer = s->base.tokenizer,
                                  .batch = (size_t)c->batch_size,
                                  .cache_bytes = budget / s->n_models + 1,
                                  .max_length = (size_t)c->max_length,
                                  .top = SERVE_MAX_TOP,
                                  .context = d,
                                  .answer = on_answer,
                                  .progress = on_progress};
    BAL_TRY(bal_engine_open(&m->engine, m->model, &o, (size_t)c->max_waiting));
    m->desk = d;
    d = NULL;
    m->n_parts = 0;
out:
    bal_free(d);
    return status;
}

static void close_engine(served *m)
{
    bal_engine_close(m->engine);
    bal_free(m->desk);
    m->engine = NULL;
    m->desk = NULL;
}

bal_status serve_open_engines(server *s)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < s->n_models; i++)
        BAL_TRY(open_engine(s, &s->models[i]));
out:
    return status;
}

void serve_close_engines(server *s)
{
    for (size_t i = 0; s->models != NULL && i < s->n_models; i++)
        close_engine(&s->models[i]);
}

/* --- the loop --- */

static void add_parts(job *j)
{
    for (size_t i = 0; i < j->n_parts && j->error.code == 0; i++) {
        part *p = &j->parts[i];
        const bal_ids *prompt = &j->prompts[p->prompt];
        if (p->added)
            continue;
        const bal_request r = {.kind = BAL_REQUEST_GENERATE,
                               .prompt = prompt->data,
                               .n_prompt = prompt->n,
                               .max_new_tokens = j->max_tokens,
                               .sampling = j->sampling,
                               .seed = j->seed,
                               .stream = i % j->n,
                               .stops = j->stops,
                               .n_stops = j->n_stops,
                               .ignore_eos = j->ignore_eos,
                               .probabilities = j->logprobs,
                               .prompt_probabilities = j->logprobs && j->echo,
                               .n_top = j->n_top};
        bal_status status = bal_engine_add(j->model->engine, &r, &p->id);
        if (status == BAL_EBUSY) /* cannot be: the engine has a place for each answer that the server takes */
            return;
        fail(j, status);
        p->added = status == BAL_OK;
        j->model->n_parts += p->added;
    }
}

/* Takes back what the engine has not answered. */
static void withdraw(job *j)
{
    for (size_t i = 0; i < j->n_parts; i++) {
        part *p = &j->parts[i];
        if (p->added && !p->done) {
            bal_engine_cancel(j->model->engine, p->id);
            j->model->n_parts--;
        }
        p->done = p->added = true;
    }
    j->n_done = j->n_parts;
}

/* The client has gone. */
static bool hung_up(const job *j)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(j->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    char byte;
    if (info == NULL)
        return false;
    ssize_t n = recv(info->connect_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

/* Under the lock: whether nobody wants job j any longer, or has waited too long. */
static void look_after(job *j, double now)
{
    if (!j->closed && j->suspended && hung_up(j))
        serve_refuse(&j->error, 499, NULL, "the client has gone");
    else if (j->closed)
        serve_refuse(&j->error, 499, NULL, "the client has gone");
    else if (now - j->start > (double)j->s->c->answer_timeout && j->error.code == 0)
        serve_refuse(&j->error, 503, "timeout", "no answer within %lld seconds", (long long)j->s->c->answer_timeout);
    else if (j->s->stopping && j->error.code == 0)
        serve_refuse(&j->error, 503, NULL, "the server is stopping");
}

/* Under the lock: the end of a job. */
static void end_job(job *j)
{
    bal_status status = BAL_OK;
    if (j->error.code == 0)
        status = j->stream ? serve_write_end(j, &j->out) : serve_write_reply(j, &j->out);
    fail(j, status);
    if (j->error.code != 0 && j->stream) {
        bal_buf text = {0};
        if (serve_write_error(&j->error, &text) == BAL_OK)
            (void)bal_buf_printf(&j->out, "data: %s\n", bal_buf_cstr(&text));
        bal_buf_dispose(&text);
    } else if (j->error.code != 0) {
        bal_buf_clear(&j->out);
    }
    j->finished = true;
    j->in_work = false;
    wake(j);
    if (j->closed)
        serve_job_free(j);
}

/* Under the lock: takes finished and unwanted jobs out of the list, gives new ones to the engines. */
static void tend(server *s)
{
    double now = bal_clock_seconds();
    for (job **at = &s->jobs; *at != NULL;) {
        job *j = *at;
        look_after(j, now);
        if (j->error.code != 0)
            withdraw(j);
        else
            add_parts(j);
        if (j->error.code != 0)
            withdraw(j);
        if (j->n_done < j->n_parts) {
            at = &j->next;
            continue;
        }
        *at = j->next;
        s->n_parts -= j->n_parts;
        end_job(j);
    }
}

/* An engine that fails (a model whose logits are no numbers) fails what is in it and begins anew. */
static bal_status step(server *s, served *m)
{
    bool idle = false;
    bal_status status = bal_engine_step(m->engine, &idle);
    if (status == BAL_OK)
        return status;
    bal_log_line(&s->common->log, BAL_LOG_ERROR, "%s: %s", m->name, bal_error_message());
    (void)pthread_mutex_lock(&s->lock);
    for (job *j = s->jobs; j != NULL; j = j->next)
        if (j->model == m)
            fail(j, status);
    for (job *j = s->jobs; j != NULL; j = j->next)
        if (j->model == m)
            withdraw(j);
    (void)pthread_mutex_unlock(&s->lock);
    close_engine(m);
    return open_engine(s, m);
}

static void wait_for_work(server *s)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += LOOK_SECONDS_TENTHS * 100000000L;
    if (until.tv_nsec >= 1000000000L) {
        until.tv_nsec -= 1000000000L;
        until.tv_sec++;
    }
    (void)pthread_cond_timedwait(&s->work, &s->lock, &until);
}

bal_status serve_work(server *s)
{
    bal_status status = BAL_OK;
    while (!bal_interrupted()) {
        size_t busy = 0;
        (void)pthread_mutex_lock(&s->lock);
        tend(s);
        for (size_t i = 0; i < s->n_models; i++)
            busy += s->models[i].n_parts;
        if (busy == 0)
            wait_for_work(s);
        (void)pthread_mutex_unlock(&s->lock);
        for (size_t i = 0; i < s->n_models; i++)
            if (s->models[i].n_parts > 0)
                BAL_TRY(step(s, &s->models[i]));
    }
out:
    (void)pthread_mutex_lock(&s->lock);
    s->stopping = true;
    tend(s);
    (void)pthread_mutex_unlock(&s->lock);
    return status;
}
