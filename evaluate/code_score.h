/* balora score for the code tasks.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_CODE_SCORE_H
#define BAL_EVALUATE_CODE_SCORE_H

#include "lib/io/options.h"

#include <stdio.h>

typedef struct code_score_config {
    const char *task, *input, *data, *sandbox; /* sandbox: NULL for the first kind that works */
    int64_t timeout;                           /* seconds of processor time a program */
} code_score_config;

/* Judges each line {"task_id", "output"} of the input; verdicts as lines to `to`, pass@k to the log.
 * BAL_EUNSUPPORTED "not run: ..." when there is no sandbox. */
bal_status code_score(const code_score_config *c, const bal_common *common, FILE *to);

#endif
