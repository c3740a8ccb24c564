/* What an answer's text says, and whether that is right: the extraction rules and comparisons of public evaluations,
 * by the names of lm-evaluation-harness.  A scorer has one or more filters; each gives its own verdict.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_ANSWER_H
#define BAL_TEXT_ANSWER_H

#include "lib/base/status.h"
#include "lib/base/str.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct bal_verdict {
    double score; /* 1 right, 0 wrong */
    bool found;   /* something was extracted */
} bal_verdict;

/* Judges output against gold (a bare answer, or the data set's own answer text); extracted receives what was compared
 * ("[invalid]" or "" when nothing was found). */
typedef bal_status bal_judge_fn(const char *output, const char *gold, bal_buf *extracted, bal_verdict *verdict);

typedef struct bal_filter {
    const char *name;
    bal_judge_fn *judge;
} bal_filter;

typedef struct bal_scorer {
    const char *name;
    const bal_filter *filters;
    size_t n_filters;
} bal_scorer;

/* The scorer of a name ("gsm8k", "gsm8k_cot", "gsm8k_pissa", ...), NULL if there is none. */
const bal_scorer *bal_scorer_find(const char *name);
/* All names, for messages; n entries. */
const char *const *bal_scorer_names(size_t *n);

/* The single rules, for tests and for other scorers. */
/* First "#### " followed by a run over [0-9.,] with an optional sign; "[invalid]" if none. */
bal_status bal_extract_strict(const char *text, bal_buf *out);
/* Last number-like run: (-?[$0-9.,]{2,})|(-?[0-9]+). */
bal_status bal_extract_flexible(const char *text, bal_buf *out);
/* First "The answer is " + (-?[0-9.,]+) and one more character. */
bal_status bal_extract_cot(const char *text, bal_buf *out);
/* Last "The final answer is " + ((-?[$0-9.,]{2,})|(-?[0-9]+)). */
bal_status bal_extract_llama(const char *text, bal_buf *out);
/* First "The answer is " + (-?[0-9.,]*[0-9]+). */
bal_status bal_extract_self_consistency(const char *text, bal_buf *out);
/* The number after the last "The answer is: ", as MetaMath, PiSSA and BA-LoRA read it, rounded half to even; false if
 * there is none. */
bool bal_extract_metamath(const char *text, double *number, bal_buf *out);
/* exact_match of lm-eval's gsm8k: "," "\$" "(?s).*#### " "\.$" removed from both sides, lower case, then equality. */
bal_status bal_gsm8k_match(const char *extracted, const char *gold, bool *equal);

#endif
