/* JSON over cJSON, with the bounds and messages that files from outside need: depth <= 64, no duplicate keys,
 * position of an error as line and column.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_JSON_H
#define BAL_IO_JSON_H

#include "lib/base/status.h"
#include "lib/base/str.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parses text[0..n); name is used in messages.  Free with cJSON_Delete().  Case-sensitive look-ups only:
 * cJSON_GetObjectItemCaseSensitive() or the helpers below. */
bal_status bal_json_parse(cJSON **out, const char *text, size_t n, const char *name);
/* The same, with // and # comments to the end of a line and comma before a closing bracket allowed (recipes). */
bal_status bal_json_parse_relaxed(cJSON **out, const char *text, size_t n, const char *name);
/* Reads a file (also .gz) of at most max_bytes and parses it. */
bal_status bal_json_read(cJSON **out, const char *path, size_t max_bytes);

/* A text with the escape \u0000 is held with the bytes C0 80 in its place, since cJSON's texts end at a NUL.  Turns
 * them into NUL bytes in place and returns the length in bytes: for texts that may hold anything (prompts, tokens). */
size_t bal_json_text_bytes(char *text);

/* How the text wrote a number: with a point or an exponent (1.0), which counts for who shows it again; and the digits of
 * a whole number of more than 15, which a double may not hold, else NULL. */
bool bal_json_is_real(const cJSON *number);
const char *bal_json_digits(const cJSON *number);

/* Member of an object, NULL if absent or JSON null. */
const cJSON *bal_json_member(const cJSON *object, const char *key);
/* Typed members.  *found (may be NULL) tells presence; a present member of another type, or out of range, is
 * BAL_EFORMAT ("<where>: key 'k' must be a number, not a string"); *out is left alone when absent. */
bal_status bal_json_f64(const cJSON *object, const char *where, const char *key, double *out, bool *found);
bal_status bal_json_i64(const cJSON *object, const char *where, const char *key, int64_t min, int64_t max, int64_t *out,
                        bool *found);
bal_status bal_json_bool(const cJSON *object, const char *where, const char *key, bool *out, bool *found);
bal_status bal_json_text(const cJSON *object, const char *where, const char *key, const char **out, bool *found);

/* Writing: appends to a buffer.  A number keeps 17 significant digits (as few as round-trip; whole ones up to 2^53 have no
 * exponent); NaN and infinities become null. */
bal_status bal_json_put_text(bal_buf *b, const char *text); /* quoted and escaped; invalid UTF-8 -> U+FFFD */
bal_status bal_json_put_textn(bal_buf *b, const char *text, size_t n);
bal_status bal_json_put_f64(bal_buf *b, double value);
bal_status bal_json_put_real(bal_buf *b, double value);                /* 30 as 30.0 */
bal_status bal_json_put_key(bal_buf *b, const char *key, bool *first); /* [,]"key": */
bal_status bal_json_put(bal_buf *b, const cJSON *value, bool pretty);
/* Numbers of what was just parsed from `text` are written by bal_json_put() as they stand there (30.0 stays 30.0); they
 * are no numbers to look-ups any more. */
bal_status bal_json_keep_numbers(cJSON *json, const char *text);

#endif
