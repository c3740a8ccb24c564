/* Strings: a growing buffer with a limit, strict number parsing, and the nearest name for error messages.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_BASE_STR_H
#define BAL_BASE_STR_H

#include "lib/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* data is NUL-terminated whenever len > 0 (the NUL is not counted); data may be NULL when empty. */
typedef struct bal_buf {
    char *data;
    size_t len, cap, limit; /* limit 0: 2 GiB */
} bal_buf;

bal_status bal_buf_append(bal_buf *b, const void *bytes, size_t n_bytes);
bal_status bal_buf_text(bal_buf *b, const char *text);
bal_status bal_buf_printf(bal_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Appends text[0..n) with `to` in the place of every `from` (not empty), found from left to right. */
bal_status bal_buf_put_replaced(bal_buf *b, const char *text, size_t n, const char *from, const char *to);
/* The same with the content itself. */
bal_status bal_buf_replace(bal_buf *b, const char *from, const char *to);
void bal_buf_clear(bal_buf *b);   /* keeps the memory */
void bal_buf_dispose(bal_buf *b); /* frees it */
/* The content, "" when empty; valid until the next change. */
const char *bal_buf_cstr(const bal_buf *b);

/* The whole text must be the number, and lie in [min, max]; BAL_EINVAL otherwise (message names the text). */
bal_status bal_parse_i64(const char *text, int64_t min, int64_t max, int64_t *out);
bal_status bal_parse_f64(const char *text, double min, double max, double *out);

/* The entry of names[0..n) nearest to name by edit distance, NULL if none is near (more than a third off). */
const char *bal_nearest(const char *name, const char *const *names, size_t n);

/* dir + "/" + name, allocated.  An absolute name, or dir NULL or "", gives a copy of name. */
char *bal_path_join(const char *dir, const char *name);
/* The folder part of path ("." if none), allocated. */
char *bal_path_dir(const char *path);

bool bal_starts_with(const char *text, const char *prefix);
bool bal_ends_with(const char *text, const char *suffix);

/* Length in bytes (1..4) of the valid UTF-8 sequence at s[0..n), code point in *cp; 0 if invalid or cut. */
size_t bal_utf8_decode(const unsigned char *s, size_t n, uint32_t *cp);
/* Writes cp as UTF-8 (at most 4 bytes), returns the number of bytes. */
size_t bal_utf8_encode(uint32_t cp, unsigned char out[4]);

#endif
