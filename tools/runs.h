/* balora runs: what its parts share.  Each verb writes into c->out, which the command prints when all went well.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TOOLS_RUNS_H
#define BAL_TOOLS_RUNS_H

#include "lib/base/str.h"
#include "lib/io/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct runs_config {
    const char *kind, *status, *table, *out;
    bool csv, exit_code;
    int64_t limit;
} runs_config;

typedef struct runs_context {
    bal_store *store;
    const runs_config *config;
    bool json;
    const char *const *words; /* after the verb */
    size_t n_words;
    bal_buf out;
    bool differs; /* diff found a difference */
} runs_context;

bal_status runs_list(runs_context *c);
bal_status runs_show(runs_context *c);
bal_status runs_diff(runs_context *c);
bal_status runs_export(runs_context *c);
bal_status runs_merge(runs_context *c);
bal_status runs_remove(runs_context *c);

/* Rows of sql (with ?1 = run when it has that) as a JSON list of objects named by the columns. */
bal_status runs_put_rows(runs_context *c, bal_buf *out, const char *sql, int64_t run);
/* The same as one object: the first column is the key; with two columns the second is the value, else an object. */
bal_status runs_put_map(runs_context *c, bal_buf *out, const char *sql, int64_t run);
/* Parameters with their types: numbers and lists as they were in the configuration. */
bal_status runs_put_params(runs_context *c, bal_buf *out, int64_t run);
/* All that is known of one run as a JSON object; curves: every point of every metric too. */
bal_status runs_put_run(runs_context *c, bal_buf *out, int64_t run, bool curves);
/* Rows as text in aligned columns, under a heading line when heading is not NULL; nothing when there are no rows. */
bal_status runs_put_table(runs_context *c, const char *heading, const char *sql, int64_t run);

#define RUNS_TIME(column) "strftime('%Y-%m-%d %H:%M:%S', " column " / 1000, 'unixepoch')"

#endif
