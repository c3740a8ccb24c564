/* HumanEval and MBPP: the program inside an answer by each harness's rule, its checks, and their verdict.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_CODE_H
#define BAL_EVALUATE_CODE_H

#include "evaluate/sandbox.h"
#include "lib/base/str.h"
#include "lib/io/json.h"

#include <stddef.h>

/* Appends what a rule keeps of an answer. */
typedef bal_status code_rule(const char *text, size_t n, bal_buf *out);

/* PiSSA's and BA-LoRA's code_process: from the first "```python" to the next fence, cut before a main block, before
 * "# Example usage" and before the first "assert" anywhere. */
bal_status code_rule_pissa(const char *text, size_t n, bal_buf *out);
/* BA-LoRA's post_process for HumanEval: no fences, docstrings or blank lines; each width of indentation becomes a level
 * of four spaces, the widths up to the first line with "def" level 0. */
bal_status code_rule_balora(const char *text, size_t n, bal_buf *out);
/* lm-eval's humaneval_instruct: what comes before the first fence. */
bal_status code_rule_before_fence(const char *text, size_t n, bal_buf *out);
/* lm-eval's mbpp_instruct: the first fenced block of "```" + text, nothing if it is not closed. */
bal_status code_rule_block(const char *text, size_t n, bal_buf *out);
/* Before the earliest of the stops (NULL-terminated). */
bal_status code_cut(const char *text, size_t n, const char *const *stops, bal_buf *out);

/* One way to score answers. */
typedef struct code_task {
    const char *name, *file; /* file: of the problems, below the data folder */
    code_rule *rule;         /* NULL: the answer as it is */
    const char *const *stops;
    bool with_prompt; /* HumanEval: the problem's prompt stands before the answer, its check() behind */
} code_task;

/* NULL if there is none of the name.  The i-th name: code_task_name(), NULL behind the last. */
const code_task *code_task_find(const char *name);
const char *code_task_name(size_t i);

/* Appends the program and its checks for an answer to a problem (a row of the task's file; where: for messages). */
bal_status code_program(const code_task *t, const cJSON *row, const char *where, const char *answer, size_t n,
                        bal_buf *program, bal_buf *checks);

/* The problems of a task: rows with "task_id". */
typedef struct code_problems {
    cJSON **rows;
    size_t n;
    char path[512];
} code_problems;
bal_status code_problems_read(code_problems *p, const code_task *t, const char *data);
/* By "HumanEval/7" or 7, as text; NULL if there is none. */
const cJSON *code_problems_find(const code_problems *p, const char *id);
void code_problems_dispose(code_problems *p);

#endif
