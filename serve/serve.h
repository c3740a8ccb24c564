/* balora serve: an OpenAI-compatible server.  Two threads: libmicrohttpd's reads requests and writes replies, the main
 * one runs the engines; a job is what they hand each other under one lock.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_SERVE_SERVE_H
#define BAL_SERVE_SERVE_H

#include "lib/io/json.h"
#include "lib/io/options.h"
#include "lib/model/bundle.h"
#include "lib/model/engine.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SERVE_MAX_TOP = 20, SERVE_MAX_STOPS = 16, SERVE_MAX_N = 128, SERVE_MAX_STOP_BYTES = 1024, SERVE_MESSAGE = 600 };

typedef struct serve_config {
    const char *model, *tokenizer, *name, *host, *api_key_env;
    bal_text_list adapter;
    int64_t port, max_length, max_tokens, max_waiting, max_body_kib, connections, idle_timeout, answer_timeout;
    int64_t batch_size, cache_mib;
} serve_config;

/* What a request calls "model": the base, or an adapter over it, with an engine of its own. */
typedef struct served {
    char *name;
    bal_model *model; /* the bundle's, or shared with it */
    bal_adapter *adapter;
    bal_engine *engine;
    size_t n_parts; /* in the engine */
    void *desk;     /* what its callbacks are given */
} served;

/* A refusal in OpenAI's form. */
typedef struct serve_error {
    int code;                /* HTTP's; 0: none */
    const char *type, *name; /* "invalid_request_error"; "model_not_found" or NULL */
    char message[SERVE_MESSAGE];
} serve_error;

/* One choice of a reply. */
typedef struct part {
    size_t prompt, id;
    bool added, done;
    bal_ids ids;             /* the answer */
    bal_buf text;            /* of the answer, cut at a stop */
    const char *reason;      /* finish_reason */
    double *log_probability; /* as bal_probabilities, with stride n_top, of all tokens; NULL: not asked */
    int32_t *top;
    double *top_log_probability;
    size_t sent, n_sent; /* bytes and tokens that a stream has shown */
    bool begun;
} part;

typedef struct server server;

/* A request from its body to its reply. */
typedef struct job {
    server *s;
    served *model;
    bool chat, stream, include_usage, echo, logprobs, ignore_eos;
    size_t n_top, n, max_tokens;
    bal_sampling sampling;
    uint64_t seed;
    cJSON *json; /* owns the stop texts */
    const char *stops[SERVE_MAX_STOPS];
    size_t n_stops;
    bal_ids *prompts;
    bal_buf *prompt_texts; /* as they were given, for echo; empty where ids were */
    size_t n_prompts;
    part *parts; /* prompt by prompt, n each */
    size_t n_parts, n_done;
    char id[48];
    int64_t created;
    double start;
    /* under the lock */
    struct MHD_Connection *connection;
    bool suspended, in_work, closed; /* closed: nobody waits for the reply any more */
    bool finished;
    serve_error error;
    bal_buf out; /* the reply, or the part of the stream that is not sent yet */
    size_t out_sent;
    struct job *next; /* in the list of jobs at work */
    /* of the HTTP side alone */
    bal_buf body;
    bool begun, too_large;
    int log_code;
    char log_line[160];
} job;

struct server {
    const serve_config *c;
    const bal_common *common;
    const char *key; /* NULL: none is asked for */
    bool loopback;
    bal_bundle base;
    served *models;
    size_t n_models;
    pthread_mutex_t lock;
    pthread_cond_t work;
    job *jobs;      /* at work, in the order they came */
    size_t n_parts; /* of them */
    bool stopping;
    int64_t started;
    struct MHD_Daemon *daemon;
};

/* serve_read.c: the body of a request into a job: everything is checked here, so that the engine accepts it. */
void serve_read(job *j, const char *body, size_t n);
/* Sets j's (or any) error; for bal_status codes the code of HTTP is chosen by it. */
void serve_refuse(serve_error *e, int code, const char *name, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* serve_write.c: replies. */
bal_status serve_write_reply(const job *j, bal_buf *out);
/* The next event of a stream: what is new in part i (finished: the last of it). */
bal_status serve_write_event(job *j, size_t i, const bal_answer *a, bool finished, bal_buf *out);
/* Usage and [DONE]. */
bal_status serve_write_end(const job *j, bal_buf *out);
bal_status serve_write_error(const serve_error *e, bal_buf *out);
bal_status serve_write_models(const server *s, const char *only, bal_buf *out);

/* serve_work.c: runs the engines until Ctrl-C; then ends the jobs that are there. */
bal_status serve_open_engines(server *s);
void serve_close_engines(server *s);
bal_status serve_work(server *s);
/* Hands a job over, suspending its connection unless it streams; false (and j->error) when too much is waiting. */
bool serve_submit(job *j);
void serve_job_free(job *j);

/* serve_http.c: is --host an address that may be used?  Start, stop. */
bal_status serve_http_check(server *s);
bal_status serve_http_start(server *s, int *port);
void serve_http_stop(server *s);

#endif
