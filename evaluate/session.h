/* A run of tasks: what its files share.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_SESSION_H
#define BAL_EVALUATE_SESSION_H

#include "evaluate/equivalence.h"
#include "evaluate/evaluate.h"
#include "evaluate/scorer.h"
#include "evaluate/task.h"
#include "lib/io/store.h"

enum { SESSION_MAX_TASKS = 128 };

/* A task of a suite, and how many of its items (0: all). */
typedef struct suite_task {
    const char *name;
    size_t limit;
} suite_task;
/* suites.c: the tasks of --suite. */
bal_status suite_find(const char *name, const suite_task **tasks, size_t *n);

/* What an item asks and what has come back of it. */
typedef struct item_run {
    bool chosen;     /* in the limit, range and shard, with a right answer */
    bal_buf prompt;  /* GENERATE: the prompt; else the context */
    pair_list pairs; /* CHOICE, ROLLING */
    char hash[65];   /* of the prompt, and the continuations */
    bool *finished;  /* [repeats] in the store already */
    size_t waiting;  /* requests of CHOICE and ROLLING that are not answered */
    size_t first, n; /* its requests: they are summed up in their own order, whichever is answered first */
    double *lls, seconds;
    bool *greedy;
    size_t *tokens, n_context;
} item_run;

/* Which item a request belongs to. */
typedef struct request_of {
    size_t item, part; /* part: the repeat, or the pair */
    bal_ids ids;       /* of this request; empty when it uses another's */
    double ll;         /* its answer */
} request_of;

typedef struct task_run {
    task task;
    char not_run[600]; /* why the task cannot run here, or "" */
    size_t limit;      /* of its suite; 0: none */
    size_t n_items;    /* the rows of the split within the limit */
    size_t n_chosen, n_no_gold, n_dropped;
    item_run *items;
    bal_request *requests;
    request_of *of;
    size_t n_requests, cap_requests;
} task_run;

typedef struct session {
    const evaluate_config *c;
    const bal_common *common;
    const bal_bundle *bundle; /* NULL: judged again, without a model */
    bal_tokenizer *tokenizer; /* of --show without a model */
    chat_form chat;
    equivalence *outside;      /* of --equivalence-command, or NULL */
    struct api_client *served; /* of --model openai:NAME, else NULL */
    size_t served_length;      /* of its context */
    bal_store *store;
    int64_t run;
    char **names;
    size_t n_names;
    task_run tasks[SESSION_MAX_TASKS];
    size_t n_tasks;
    task_run *current;
    bal_progress progress;
    size_t done, right, judged;
} session;

/* tasks.c: the names of --tasks with groups replaced; reading them all (a missing data file: not_run). */
bal_status session_read_tasks(session *s);
/* The prompt, requests and hash of item i, for which task_draw() was called last. */
bal_status session_make_prompt(session *s, task_run *r, size_t i);
/* The chosen items and their prompts. */
bal_status session_prepare(session *s, task_run *r);
void session_dispose(session *s);
/* run_store.c: the run's row; items that are there. */
bal_status session_config(const session *s, bal_buf *out);
bal_status session_open_run(session *s, const char *config, int argc, char **argv);
bal_status session_read_finished(session *s, task_run *r);
void session_end_run(session *s, bal_status status);
/* Writes the rows of one output under every filter: judged now, or (late scorers) to be judged. */
bal_status session_store_output(session *s, task_run *r, size_t item, size_t repeat, const char *output,
                                const bal_eval_item *about);
/* Verdicts of the late scorers. */
bal_status session_judge_late(session *s, task_run *r);
/* run_task.c: asks the model. */
bal_status session_run_task(session *s, task_run *r);
/* run_masked.c: asks a masked language model. */
bal_status session_run_masked(session *s, task_run *r);
/* tasks.c: figures, tables, files. */
bal_status session_report(session *s, const char *config, double seconds);

#endif
