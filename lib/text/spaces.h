/* Python's str.isspace(), str.strip() and str.lower() on UTF-8.  Bytes that are no UTF-8 are characters like others.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_SPACES_H
#define BAL_TEXT_SPACES_H

#include "lib/base/status.h"
#include "lib/base/str.h"

#include <stddef.h>

/* Bytes of the first, the last character of s[0..n) if it is white space, else 0. */
size_t bal_space_first(const char *s, size_t n);
size_t bal_space_last(const char *s, size_t n);
/* Takes white space off an end, or both ends. */
void bal_strip_left(const char **s, size_t *n);
void bal_strip_right(const char *s, size_t *n);
void bal_strip(const char **s, size_t *n);
/* Appends s[0..n) in small letters; a sigma at the end of a word becomes the final one. */
bal_status bal_lower(const char *s, size_t n, bal_buf *out);

#endif
