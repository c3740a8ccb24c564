/* The run database (SQLite, WAL, STRICT tables): every long command is one row of `run`, with its metrics, items,
 * spectra and artifacts.  Schema: lib/io/schema.sql.h; migrations by user_version; a database of a newer version
 * is read but never written.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_STORE_H
#define BAL_IO_STORE_H

#include "lib/base/status.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bal_store bal_store;

/* write: created when missing (folder must exist), migrated when older.  BAL_EBUSY when locked for 5 s. */
bal_status bal_store_open(bal_store **out, const char *path, bool write);
void bal_store_close(bal_store *s); /* accepts NULL */
sqlite3 *bal_store_handle(bal_store *s);
const char *bal_store_path(const bal_store *s);
/* Transactions nest: only the outermost commits. */
bal_status bal_store_begin(bal_store *s);
bal_status bal_store_commit(bal_store *s);
void bal_store_rollback(bal_store *s);
/* One sentence for SQLite's last error: "<path>: cannot <doing>: ..."; returns BAL_EBUSY, BAL_EIO, BAL_EFORMAT ... */
bal_status bal_store_fail(bal_store *s, const char *doing);
/* Prepares sql for the caller, who finalizes it. */
bal_status bal_store_prepare(bal_store *s, const char *sql, sqlite3_stmt **out);
/* The same from the store's cache (sql is a literal, compared by address): reset and without bindings, not to be
 * finalized. */
bal_status bal_store_cached(bal_store *s, const char *sql, sqlite3_stmt **out);
/* Steps a statement that gives no rows, and resets it. */
bal_status bal_store_run(bal_store *s, sqlite3_stmt *statement, const char *doing);
/* Steps once: *row tells whether there is one.  The caller resets or finalizes. */
bal_status bal_store_step(bal_store *s, sqlite3_stmt *statement, bool *row);
bal_status bal_store_exec(bal_store *s, const char *sql);
/* The newest schema that this program knows. */
int bal_store_schema_version(void);

typedef struct bal_run_spec {
    const char *kind;        /* "train", "evaluate", "analyze", "pretrain", "demo" */
    const char *name;        /* may be NULL: made from kind and time */
    const char *experiment;  /* may be NULL: "default" */
    const char *config_json; /* resolved options; flattened into param rows */
    int argc;
    char **argv;
    int64_t seed;
    int64_t parent_run; /* 0: none */
} bal_run_spec;

bal_status bal_run_begin(bal_store *s, const bal_run_spec *spec, int64_t *run);
/* status: "finished", "failed", "interrupted". */
bal_status bal_run_end(bal_store *s, int64_t run, const char *status, int exit_code, const char *error);
/* Makes this process the one that the run goes on in, and the run "running"; *claimed is false, and nothing changed, when
 * another process that lives has it. */
bal_status bal_run_claim(bal_store *s, int64_t run, bool *claimed);
bal_status bal_run_heartbeat(bal_store *s, int64_t run);
/* 32 hex digits; out[33]. */
bal_status bal_run_uuid(bal_store *s, int64_t run, char out[33]);
/* "12", "last", a uuid or its prefix, or a name (the newest of that name); BAL_ENOENT with the nearest names. */
bal_status bal_run_find(bal_store *s, const char *text, int64_t *run);

bal_status bal_run_tag(bal_store *s, int64_t run, const char *key, const char *text);
/* One point of a curve; NaN and infinities are kept by kind.  A second value of the same step replaces the first. */
bal_status bal_run_metric(bal_store *s, int64_t run, const char *name, int64_t step, double value);
/* Removes metric rows of steps after `step` (resume from a checkpoint). */
bal_status bal_run_truncate_metrics(bal_store *s, int64_t run, int64_t step);
bal_status bal_run_artifact(bal_store *s, int64_t run, const char *path, const char *role);

typedef struct bal_eval_item {
    const char *task, *filter;
    int64_t item, repeat;
    const char *prompt_sha256, *output, *extracted, *gold, *group;
    double score; /* NaN: none */
    int correct;  /* 1, 0, -1 none */
    int64_t prompt_tokens, output_tokens;
    double seconds;
    const char *finish_reason;
} bal_eval_item;
bal_status bal_run_item(bal_store *s, int64_t run, const bal_eval_item *item);
/* SQL: the score of an item under a filter, over rows of `eval_item AS e` that are grouped by task, filter and item.  It is
 * the mean of its answers; where the run's configuration holds tasks.TASK.items.FILTER = k, the score of the answer that
 * most of the first k give (of equally frequent ones the first). */
#define BAL_ITEM_VOTES                                                                                                 \
    "coalesce((SELECT CASE WHEN json_valid(config) THEN json_extract(config, '$.tasks.\"' || e.task || '\".items.\"'"  \
    " || e.filter || '\"') END FROM run WHERE id = e.run_id), 0)"
#define BAL_ITEM_SCORE                                                                                                 \
    "CASE WHEN " BAL_ITEM_VOTES " > 0 THEN (SELECT v.score FROM eval_item AS v WHERE v.run_id = e.run_id AND v.task "  \
    "= e.task AND v.filter = e.filter AND v.item = e.item AND v.extracted IS (SELECT x.extracted FROM eval_item AS x " \
    "WHERE x.run_id = e.run_id AND x.task = e.task AND x.filter = e.filter AND x.item = e.item AND x.repeat "          \
    "< " BAL_ITEM_VOTES                                                                                                \
    " GROUP BY x.extracted ORDER BY count(*) DESC, min(x.repeat) LIMIT 1) ORDER BY v.repeat LIMIT 1) "                 \
    "ELSE avg(e.score) END"

typedef struct bal_matrix_stat {
    int64_t step;  /* checkpoint step, -1: final */
    int64_t layer; /* -1: none */
    const char *module, *target, *convention, *dtype, *status;
    int64_t m, n, r, n_nonfinite;
    double scaling;
} bal_matrix_stat;
/* One row of matrix_stat (replaced when the same exists), its named values (NaN = undefined), and its spectrum
 * (sv may be NULL). */
bal_status bal_run_matrix(bal_store *s, int64_t run, const bal_matrix_stat *stat, const char *const *names,
                          const double *values, size_t n_values, const double *sv, size_t n_sv);

#endif
