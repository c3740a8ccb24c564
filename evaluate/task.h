/* Tasks are data: evaluate/tasks/NAME.json (inside the program) or a file of the user, over the scorers of scorer.h.
 * The keys are listed in evaluate/README.md; an unknown or wrong one is an error that names it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_TASK_H
#define BAL_EVALUATE_TASK_H

#include "lib/base/rng.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/text/answer.h"
#include "lib/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct task_file {
    const char *name, *text;
} task_file;
extern const task_file k_task_files[];
extern const size_t k_n_task_files;

/* The rows of a split. */
typedef struct rows {
    cJSON **items;
    size_t n, cap;
} rows;

struct scorer;
struct equivalence;

typedef struct task {
    cJSON *json; /* owns the texts below */
    const char *name, *description, *prompt, *target, *target_after, *shot_target, *target_delimiter;
    const char *fewshot_delimiter, *gen_prefix, *prompt_transform, *choice_transform;
    const cJSON *choices, *label, *labels; /* of multiple choice */
    const struct scorer *scorer;
    const bal_scorer *rules;     /* of the scorers of lib/text/answer.h, else NULL */
    void *state;                 /* the scorer's own */
    struct equivalence *outside; /* asked about each answer too (--equivalence-command), or NULL; not owned */
    double version, temperature, top_p;
    size_t num_fewshot, max_gen_toks, n_until, n_samples, repeats, top_k;
    uint64_t seed; /* of sampled answers */
    const char **until;
    bool draws;      /* sampler "default" */
    bool same_split; /* shots are drawn as from the evaluated split: one more, the item itself left out */
    bool one_file;   /* data.test and data.train are the same rows */
    rows test, train;
    char *folder;         /* data is looked for here too: the folder of the user's task file, or NULL */
    char test_sha256[65]; /* of the files */
    bal_buf missing;      /* files of a list that are not there, for a note */
    uint32_t *drawn, *scratch, *pool;
    size_t *shot_rows, n_shots; /* rows of the item's examples */
    bal_mt19937 shots;
    uint64_t shot_seed;
} task;

/* What --num-fewshot and the like change in a task. */
typedef struct task_change {
    int64_t num_fewshot, max_gen_toks; /* < 0, 0: the task's own */
    int64_t repeats;                   /* 0: the task's own */
    uint64_t seed, shot_seed;
    struct equivalence *outside; /* for tasks judged by rules of mathematics; may be NULL */
} task_change;

/* The form of a prompt: plain text, or a conversation. */
typedef struct chat_form {
    bool plain;
    const bal_tokenizer *tokenizer; /* of a conversation; NULL: the messages as JSON, for a served model */
    const char *system;             /* may be NULL */
    bool multiturn;                 /* worked examples are turns of their own */
    bool *no_system; /* set when the template refuses the system's words, which are left out; may be NULL */
} chat_form;

/* The names that --tasks takes: those of the files, and of groups ("glue"), as their tasks.  Appends to names. */
bal_status task_expand(const char *name, bal_status (*add)(void *context, const char *name), void *context);
/* Reads a task: a name, or the path of a .json file.  Without its data. */
bal_status task_read(task *t, const char *name, const task_change *change);
/* Reads its data.  data: the folder.  BAL_ENOENT "file X missing ..." when a file is not there. */
bal_status task_read_data(task *t, const char *data);
void task_dispose(task *t);

/* The examples of the next item are drawn; to be called for i = 0, 1, ... in order, since the draws go on. */
bal_status task_draw(task *t, size_t i);
/* Appends the prompt of item i, for which task_draw() was called last. */
bal_status task_prompt(const task *t, size_t i, const chat_form *form, bal_buf *out);
/* What stands between the prompt and a choice. */
const char *task_choice_delimiter(const task *t, bool chat);
/* Appends what item i should be answered with; false in *found if the row has none. */
bal_status task_target(const task *t, size_t i, bal_buf *out, bool *found);
/* Multiple choice: the number of choices, choice k as text, and the right one (-1: none). */
size_t task_n_choices(const task *t, const cJSON *row);
bal_status task_choice(const task *t, const cJSON *row, size_t k, bal_buf *out);
int task_label(const task *t, const cJSON *row);

/* task_data.c: the member of a row by a path ("choices.text", "answers.0"), NULL if there is none. */
const cJSON *task_member(const cJSON *row, const char *path);
bal_status task_read_split(task *t, const char *data, const char *split, rows *out, char *hash);
void task_rows_dispose(rows *r);
/* task_text.c: template with {field}, {field|transform|...} and {{ }} of a row. */
bal_status task_render(const char *template, const cJSON *row, const char *where, bal_buf *out, bool *found);
/* A transform by name on text; BAL_EINVAL for an unknown name. */
bal_status task_transform(const char *name, const char *text, size_t n, bal_buf *out);
bool task_transform_known(const char *name);

#endif
