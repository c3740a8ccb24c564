/* The rules for MATH, for the table of answer.c.  gold: the bare answer, or a solution with \boxed{}.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_ANSWER_MATH_H
#define BAL_TEXT_ANSWER_MATH_H

#include "lib/text/answer.h"

extern const bal_filter bal_filter_math_hendrycks;  /* lm-eval's hendrycks_math */
extern const bal_filter bal_filter_math_pissa;      /* PiSSA, BA-LoRA, MetaMath */
extern const bal_filter bal_filter_math_minerva[2]; /* Minerva's extraction and normal form, 3.0 and 3.1; no sympy */
extern const bal_filter bal_filter_math_numeric;    /* own: the last box or final phrase, compared by value */

/* What math_numeric reads as the answer: the last \boxed{}, else what follows the last "answer is", else the last
 * formula in $, else the last line. */
bal_status bal_math_extract_numeric(const char *output, bal_buf *out, bool *found);

#endif
