/* Regular expressions with the meaning that Python's re gives them on text (Unicode classes, lines end with \n), over
 * PCRE2.  Invalid UTF-8 in a subject never matches anything: the text is passed on as it is.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_PATTERN_H
#define BAL_TEXT_PATTERN_H

#include "lib/base/status.h"
#include "lib/base/str.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct bal_pattern bal_pattern;

/* where: for messages.  BAL_EINVAL with the position for a pattern that cannot be compiled. */
bal_status bal_pattern_compile(bal_pattern **out, const char *pattern, const char *where);
void bal_pattern_free(bal_pattern *p); /* accepts NULL */

typedef struct bal_match {
    size_t start, end;             /* of the whole match, bytes */
    size_t group_start, group_end; /* of the first group that took part and is not empty; else of group 1, or all */
    bool all_empty;                /* there are several groups, and none holds anything */
} bal_match;

/* The next match at or after byte `from`; false if there is none. */
bool bal_pattern_next(const bal_pattern *p, const char *text, size_t n, size_t from, bal_match *m);
/* select 0: the first match, -1: the last (as lm-eval's group_select); false if there is none. */
bool bal_pattern_select(const bal_pattern *p, const char *text, size_t n, int select, bal_match *m);
/* Appends text with every match replaced; $1, $2 in replacement are groups, $$ is a dollar sign. */
bal_status bal_pattern_replace(const bal_pattern *p, const char *text, size_t n, const char *replacement, bal_buf *out);

#endif
