/* Answers of MATH as text: the string rules of Hendrycks et al. 2021 (in the forms of its own code, of
 * lm-evaluation-harness and of MetaMath, PiSSA and BA-LoRA) and of Lewkowycz et al. 2022 (Minerva).
 * "raises" means that the reference stops with an exception there.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_MATH_TEXT_H
#define BAL_TEXT_MATH_TEXT_H

#include "lib/base/status.h"
#include "lib/base/str.h"

#include <stdbool.h>

typedef enum bal_math_form {
    BAL_MATH_LM_EVAL,  /* a/b whose sides are not whole numbers raises; MetaMath, PiSSA, BA-LoRA too */
    BAL_MATH_HENDRYCKS /* the original leaves it as it is */
} bal_math_form;

/* Appends the normal form of an answer; *raised instead of a result where the reference raises. */
bal_status bal_math_strip(const char *text, bal_math_form form, bal_buf *out, bool *raised);
/* Equality of the normal forms; of the texts themselves where either raises. */
bal_status bal_math_equal_text(const char *a, const char *b, bal_math_form form, bool *equal);

/* The last \boxed{...} or \fbox{...} with its braces; *found false if there is none.  lm-eval also knows
 * "\boxed 7", which reaches to the next "$". */
bal_status bal_math_last_boxed(const char *text, bool lm_eval, bal_buf *out, bool *found);
/* What is inside such a text; *found false where lm-eval raises or MetaMath gives none. */
bal_status bal_math_remove_boxed(const char *boxed, bool lm_eval, bal_buf *out, bool *found);

/* What an output answers.  hendrycks: between its first and its last "$", or all of it. */
bal_status bal_math_extract_hendrycks(const char *output, bal_buf *out);
/* Behind the last "The answer is: ", up to ".\n", without a final "."; *found false without that mark. */
bal_status bal_math_extract_pissa(const char *output, bal_buf *out, bool *found);
/* Behind "Final Answer: The final answer is", before "I hope it is correct."; "[invalidanswer]" if there is none. */
bal_status bal_math_extract_minerva(const char *output, bal_buf *out);
/* Minerva's normal form (lm-evaluation-harness's minerva_math 3.0; _31: its version 3.1, which leaves the names of LaTeX's
 * commands, roots of a degree and tuples of digits as they are). */
bal_status bal_math_normalize_minerva(const char *text, bal_buf *out);
bal_status bal_math_normalize_minerva_31(const char *text, bal_buf *out);

#endif
