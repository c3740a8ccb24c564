/* Line-oriented readers: JSON lines, and TSV/CSV tables.  Also .gz.  A broken line is one error that names file
 * and line.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_JSONL_H
#define BAL_IO_JSONL_H

#include "lib/base/status.h"
#include "lib/io/json.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct bal_lines bal_lines;

/* path "-" is standard input. */
bal_status bal_lines_open(bal_lines **out, const char *path);
/* Next line without its end (LF or CRLF), NUL-terminated, valid until the next call; *text = NULL at the end.
 * A line above 16 MiB is BAL_ELIMIT. */
bal_status bal_lines_next(bal_lines *l, const char **text, size_t *n);
size_t bal_lines_number(const bal_lines *l); /* of the line last returned, from 1 */
const char *bal_lines_path(const bal_lines *l);
void bal_lines_close(bal_lines *l); /* accepts NULL */

/* Next non-empty line as a JSON object; *out = NULL at the end; the caller deletes it. */
bal_status bal_jsonl_next(bal_lines *l, cJSON **out);

/* A whole table of text cells: separator ',' (RFC 4180 quotes) or '\t' (no quotes, as GLUE's files). */
typedef struct bal_table {
    size_t n_rows, n_cols; /* n_cols of the first row; shorter rows are filled with "" */
    char **cells;          /* n_rows * n_cols, row-major */
    char *text;
} bal_table;
bal_status bal_table_read(bal_table *t, const char *path, char separator);
void bal_table_dispose(bal_table *t);

#endif
