/* Tasks: data (evaluate/tasks/NAME.json, inside the program) over the scorers of lib/text/answer.h.
 *   task, version, scorer         its names
 *   data.test, data.train         JSON lines, relative to the data folder
 *   prompt, target                texts with {field} of a row; target_after: only what follows this mark counts
 *   shot_target, samples, sampler worked examples: "default" draws them from data.train as Python's
 *                                 random.Random(1234).sample does, once per item in order; "first_n" takes samples
 *   target_delimiter, fewshot_delimiter, num_fewshot, until, max_gen_toks     as in lm-evaluation-harness
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_TASK_H
#define BAL_EVALUATE_TASK_H

#include "lib/base/rng.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/text/answer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct task_file {
    const char *name, *text;
} task_file;
extern const task_file k_task_files[];
extern const size_t k_n_task_files;

typedef struct rows {
    cJSON **items;
    size_t n, cap;
} rows;

typedef struct task {
    cJSON *json; /* owns the texts below */
    const char *name, *prompt, *target, *target_after, *shot_target, *target_delimiter, *fewshot_delimiter;
    const bal_scorer *scorer;
    double version;
    size_t num_fewshot, max_gen_toks, n_until, n_samples;
    const char **until;
    bool draws; /* sampler "default" */
    rows test, train;
    char test_sha256[65]; /* of the file */
    uint32_t *drawn, *scratch;
    bal_mt19937 shots;
} task;

/* Reads the task and its data.  data: the folder.  num_fewshot < 0 and max_gen_toks 0: the task's own. */
bal_status task_load(task *t, const char *name, const char *data, int64_t num_fewshot, int64_t max_gen_toks);
void task_dispose(task *t);
/* Appends the prompt of item i; called for i = 0, 1, ... in order, since the draws of examples go on. */
bal_status task_prompt(task *t, size_t i, bal_buf *out);
/* Appends what item i should be answered with. */
bal_status task_target(const task *t, size_t i, bal_buf *out);

#endif
