/* An outside program that says whether two answers are the same (--equivalence-command), e.g. one over sympy.
 *
 * The command is run by /bin/sh once and asked again and again.  It reads one JSON line a question on its standard input,
 *   {"prediction": "\\frac12", "gold": "0.5", "output": "... whole output ...", "doc": {the row of the data}}
 * and answers each with one JSON line on its standard output, in order: {"equal": true} or {"equal": false}.
 * What it says on standard error goes to ours.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_EVALUATE_EQUIVALENCE_H
#define BAL_EVALUATE_EQUIVALENCE_H

#include "lib/base/str.h"
#include "lib/io/json.h"

#include <stdbool.h>

typedef struct equivalence equivalence;

/* seconds: most for one answer.  Nothing is started yet. */
bal_status equivalence_open(equivalence **out, const char *command, double seconds);
void equivalence_close(equivalence *e); /* accepts NULL */
/* Asks.  *answered false: no usable answer (too late, the program ended, not such a line); *why says which, the program
 * is started anew, and the caller counts the pair as not equal.  BAL_EIO after eight such answers in a row: then the
 * command itself is wrong. */
bal_status equivalence_ask(equivalence *e, const char *prediction, const char *gold, const char *output,
                           const cJSON *doc, bool *equal, bool *answered, bal_buf *why);
/* How many questions had no usable answer so far. */
size_t equivalence_unanswered(const equivalence *e);

#endif
