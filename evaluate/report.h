/* Results of tasks from the rows in the store: lm-eval's document, a Markdown table, sample logs.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_REPORT_H
#define BAL_EVALUATE_REPORT_H

#include "evaluate/task.h"
#include "lib/io/store.h"

/* Results under one filter of a task. */
typedef struct filter_result {
    const char *filter;
    size_t n, n_failed;       /* nothing was extracted */
    double mean, stderr_mean; /* sqrt(p (1 - p) / (n - 1)); NaN for n = 1 */
    double low, high;         /* Wilson, 95 % */
} filter_result;

enum { MAX_FILTERS = 4 };

typedef struct task_result {
    const task *task;
    size_t n_items, n_original, n_empty, n_cut; /* empty outputs; ended by the token limit */
    filter_result filters[MAX_FILTERS];
    size_t n_filters;
} task_result;

/* Reads the rows of the first n_items items of a run's task. */
bal_status report_read(task_result *r, bal_store *s, int64_t run, const task *t, size_t n_items);
/* lm-evaluation-harness's document; config: JSON of the run's configuration. */
bal_status report_json(bal_buf *out, const task_result *r, size_t n, const char *config, const char *run_uuid,
                       double seconds);
bal_status report_table(bal_buf *out, const task_result *r, size_t n);
/* dir/samples_TASK.jsonl: a line per item and filter; prompts[i] of item i. */
bal_status report_samples(const char *dir, const task_result *r, bal_store *s, int64_t run, const bal_buf *prompts);

#endif
