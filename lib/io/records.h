/* The records of a data file as JSON objects, one after the other:
 *   .csv .tsv             a table whose first row names the columns; all values are texts
 *   begins with '['       one JSON array of objects, read piece by piece
 *   anything else         JSON lines
 * each also with .gz.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_RECORDS_H
#define BAL_IO_RECORDS_H

#include "lib/base/status.h"
#include "lib/io/json.h"

#include <stddef.h>

typedef struct bal_records bal_records;

/* path "-": JSON lines of standard input. */
bal_status bal_records_open(bal_records **out, const char *path);
/* The next record, which the caller deletes; *out = NULL at the end.  BAL_EFORMAT names the place; BAL_ELIMIT: a record
 * above 16 MiB. */
bal_status bal_records_next(bal_records *r, cJSON **out);
/* "data.jsonl, line 7" or "data.json, record 7": of the record last returned, valid until the next call. */
const char *bal_records_where(const bal_records *r);
void bal_records_close(bal_records *r); /* accepts NULL */

#endif
