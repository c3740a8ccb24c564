/* The Jinja subset of chat templates, as transformers sets it up: trim_blocks and lstrip_blocks on, loop controls,
 * {% generation %}, no autoescape, values cannot be changed in place.
 * A template is a foreign program: it reads nothing but its context, and its steps, depth, memory and output are
 * bounded.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_JINJA_H
#define BAL_TEXT_JINJA_H

#include "lib/base/status.h"
#include "lib/base/str.h"
#include "lib/io/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Stretches of a text, in bytes. */
typedef struct bal_stretch {
    size_t begin, end;
} bal_stretch;
typedef struct bal_stretches {
    bal_stretch *items;
    size_t n, cap;
} bal_stretches;

bal_status bal_stretches_add(bal_stretches *s, size_t begin, size_t end);
void bal_stretches_dispose(bal_stretches *s);

/* Appends to out what the template text[0..n) makes of the context (a JSON object: its members are the template's
 * variables).  now: what strftime_now shows, seconds since 1970; 0: the present.  generation (may be NULL): where in
 * out the {% generation %} blocks stand.
 * Syntax, a wrong value, raise_exception: BAL_EFORMAT; a tag, filter, test or method that is not known:
 * BAL_EUNSUPPORTED; too many steps, too deep, too much: BAL_ELIMIT.  The message names the line. */
bal_status bal_jinja_render(const char *text, size_t n, const cJSON *context, int64_t now, bal_buf *out,
                            bal_stretches *generation);

#endif
