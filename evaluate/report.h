/* Results of tasks from the rows in the store: lm-eval's document, a Markdown table, sample logs.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_REPORT_H
#define BAL_EVALUATE_REPORT_H

#include "evaluate/session.h"

enum { REPORT_MAX_FILTERS = 16 };

/* How outputs went wrong, over all outputs of a task. */
typedef struct output_notes {
    size_t n, n_empty, n_cut, n_repeated; /* empty; ended by the token limit; ending in the same piece over and over */
    double mean_tokens;
} output_notes;

typedef struct task_result {
    const task_run *r;
    record *records[REPORT_MAX_FILTERS];                                /* by filter, ordered by item and repeat */
    size_t n_records[REPORT_MAX_FILTERS], n_failed[REPORT_MAX_FILTERS]; /* n_failed: nothing was extracted */
    size_t n_filters, n_timed_out, n_outside;                           /* of judged programs */
    metric_list metrics;
    output_notes notes;
} task_result;

/* true if the text's end is one piece three times or more, over at least 48 bytes. */
bool report_is_repeated(const char *text);
/* Reads the rows of the chosen items and computes the figures; BAL_EIO if one is missing. */
bal_status report_read(task_result *out, bal_store *s, int64_t run, const task_run *r);
void task_result_dispose(task_result *r);
/* lm-evaluation-harness's document; config: JSON of the run's configuration. */
bal_status report_json(bal_buf *out, const session *s, const task_result *r, const char *config, const char *run_uuid,
                       double seconds);
bal_status report_table(bal_buf *out, const session *s, const task_result *r);
/* path: a line per item and filter, as lm-eval logs them. */
bal_status report_samples(const char *path, const task_result *r);

#endif
