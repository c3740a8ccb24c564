/* What the files of the run database share; not for others.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_STORE_IMPL_H
#define BAL_IO_STORE_IMPL_H

#include "lib/io/store.h"

enum { BAL_STORE_STATEMENTS = 64, BAL_STORE_METRIC_NAMES = 256 };

/* SQL text of a statement that is kept prepared. */
typedef struct bal_store_slot {
    const char *sql;
    sqlite3_stmt *statement;
} bal_store_slot;

struct bal_store {
    sqlite3 *db;
    char *path;
    bool write;
    int depth;   /* open transactions, of which the outermost is SQLite's */
    bool broken; /* an inner one failed: the outermost must not commit */
    bal_store_slot slots[BAL_STORE_STATEMENTS];
    size_t n_slots;
    struct bal_metric_name {
        char *name;
        int64_t id;
    } names[BAL_STORE_METRIC_NAMES]; /* most used metric keys */
    size_t n_names;
    int64_t heard_ms; /* when an item last told that its run goes on */
};

void bal_store_forget_names(bal_store *s);
/* text may be NULL; it is copied. */
void bal_store_bind_text(sqlite3_stmt *st, int at, const char *text);
/* The row of this machine. */
bal_status bal_store_host(bal_store *s, int64_t *id);
/* The checked-out commit of the git repository that folder lies in; false when it cannot be told. */
bool bal_git_commit(const char *folder, char out[65]);

#endif
