/* The run database: opening, migration, transactions, prepared statements.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/store.h"

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/schema.sql.h"
#include "lib/io/store_impl.h"

#include <string.h>

enum { APPLICATION_ID = 0x42414C52 /* "BALR" */, BUSY_MS = 5000 };

/* migrations[i] takes a database of version i to i + 1. */
static const char *const migrations[] = {BAL_SCHEMA_1_RUNS BAL_SCHEMA_1_VALUES BAL_SCHEMA_1_VIEWS};

int bal_store_schema_version(void)
{
    return (int)(sizeof migrations / sizeof migrations[0]);
}

bal_status bal_store_fail(bal_store *s, const char *doing)
{
    int code = s->db == NULL ? SQLITE_NOMEM : sqlite3_errcode(s->db) & 0xFF;
    switch (code) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return bal_fail(BAL_EBUSY,
                        "%s: cannot %s: another process has locked the database for more than %d s; "
                        "wait for it, or use --db FILE",
                        s->path, doing, BUSY_MS / 1000);
    case SQLITE_FULL:
        return bal_fail(BAL_EIO, "%s: cannot %s: the disk is full", s->path, doing);
    case SQLITE_READONLY:
        return bal_fail(BAL_EIO, "%s: cannot %s: the file or its folder may not be written; use --db FILE", s->path,
                        doing);
    case SQLITE_CANTOPEN:
        return bal_fail(BAL_EIO, "%s: cannot %s: the file cannot be opened here", s->path, doing);
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return bal_fail(BAL_EFORMAT, "%s: cannot %s: %s", s->path, doing,
                        code == SQLITE_NOTADB ? "the file is no SQLite database" : "the database is damaged");
    case SQLITE_NOMEM:
        return bal_fail(BAL_ENOMEM, "%s: cannot %s: out of memory", s->path, doing);
    case SQLITE_IOERR:
        return bal_fail(BAL_EIO, "%s: cannot %s: reading or writing failed (%s)", s->path, doing,
                        sqlite3_errmsg(s->db));
    default:
        return bal_fail(code == SQLITE_CONSTRAINT || code == SQLITE_ERROR ? BAL_EFORMAT : BAL_EIO, "%s: cannot %s: %s",
                        s->path, doing, sqlite3_errmsg(s->db));
    }
}

bal_status bal_store_exec(bal_store *s, const char *sql)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? BAL_OK : bal_store_fail(s, "change it");
}

bal_status bal_store_prepare(bal_store *s, const char *sql, sqlite3_stmt **out)
{
    if (sqlite3_prepare_v2(s->db, sql, -1, out, NULL) != SQLITE_OK)
        return bal_store_fail(s, "read it");
    return BAL_OK;
}

bal_status bal_store_cached(bal_store *s, const char *sql, sqlite3_stmt **out)
{
    *out = NULL;
    for (size_t i = 0; i < s->n_slots; i++)
        if (s->slots[i].sql == sql)
            *out = s->slots[i].statement;
    if (*out != NULL) {
        (void)sqlite3_reset(*out);
        (void)sqlite3_clear_bindings(*out);
        return BAL_OK;
    }
    if (s->n_slots == BAL_STORE_STATEMENTS)
        return bal_fail(BAL_ELIMIT, "%s: more than %d kinds of statements", s->path, BAL_STORE_STATEMENTS);
    if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) != SQLITE_OK)
        return bal_store_fail(s, "use it");
    s->slots[s->n_slots++] = (bal_store_slot){sql, *out};
    return BAL_OK;
}

bal_status bal_store_run(bal_store *s, sqlite3_stmt *statement, const char *doing)
{
    int code = sqlite3_step(statement);
    bal_status status = code == SQLITE_DONE || code == SQLITE_ROW ? BAL_OK : bal_store_fail(s, doing);
    (void)sqlite3_reset(statement);
    return status;
}

bal_status bal_store_step(bal_store *s, sqlite3_stmt *statement, bool *row)
{
    int code = sqlite3_step(statement);
    *row = code == SQLITE_ROW;
    return code == SQLITE_ROW || code == SQLITE_DONE ? BAL_OK : bal_store_fail(s, "read it");
}

static bal_status read_number(bal_store *s, const char *sql, int64_t *out)
{
    sqlite3_stmt *statement = NULL;
    bool row = false;
    bal_status status = bal_store_prepare(s, sql, &statement);
    if (status == BAL_OK)
        status = bal_store_step(s, statement, &row);
    *out = status == BAL_OK && row ? sqlite3_column_int64(statement, 0) : 0;
    (void)sqlite3_finalize(statement);
    return status;
}

/* Whose database it is: another program's SQLite file must never be changed. */
static bal_status check_identity(bal_store *s, int64_t *version)
{
    int64_t id = 0, objects = 0;
    bal_status status = BAL_OK;
    BAL_TRY(read_number(s, "PRAGMA application_id", &id));
    BAL_TRY(read_number(s, "PRAGMA user_version", version));
    BAL_TRY(read_number(s, "SELECT count(*) FROM sqlite_master", &objects));
    if (id != APPLICATION_ID && (id != 0 || objects > 0 || *version != 0))
        return bal_fail(BAL_EFORMAT, "%s is a database of another program, not of balora's runs", s->path);
    if (*version < 0)
        return bal_fail(BAL_EFORMAT, "%s: schema version %lld is not possible", s->path, (long long)*version);
    if (*version > bal_store_schema_version() && s->write)
        return bal_fail(BAL_EUNSUPPORTED,
                        "%s was written by a newer balora (schema %lld, this one knows %d): it can be read but not "
                        "written; use the newer program, or --db FILE",
                        s->path, (long long)*version, bal_store_schema_version());
    if (*version == 0 && !s->write)
        return bal_fail(BAL_ENOENT, "%s holds no runs yet", s->path);
out:
    return status;
}

static bal_status migrate(bal_store *s)
{
    int64_t version = 0;
    char sql[96];
    bal_status status = bal_store_begin(s); /* immediate: of two processes one migrates, the other waits */
    if (status != BAL_OK)
        return status;
    BAL_TRY(check_identity(s, &version));
    for (int64_t i = version; i < bal_store_schema_version(); i++)
        BAL_TRY(bal_store_exec(s, migrations[i]));
    (void)snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %d;", APPLICATION_ID,
                   bal_store_schema_version());
    BAL_TRY(bal_store_exec(s, sql));
    return bal_store_commit(s);
out:
    bal_store_rollback(s);
    return status;
}

static bal_status open_database(bal_store *s)
{
    int64_t version = 0;
    bal_status status = BAL_OK;
    /* A reader opens for writing too, where it may: the last one to close can then tidy the -wal file away. */
    int flags = s->write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READWRITE;
    int code = sqlite3_open_v2(s->path, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code != SQLITE_OK && !s->write) {
        (void)sqlite3_close(s->db);
        s->db = NULL;
        code = sqlite3_open_v2(s->path, &s->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL);
    }
    if (code != SQLITE_OK)
        return bal_store_fail(s, s->write ? "open it for writing" : "open it");
    (void)sqlite3_busy_timeout(s->db, BUSY_MS);
    BAL_TRY(bal_store_exec(s, s->write ? "PRAGMA foreign_keys = ON" : "PRAGMA query_only = ON"));
    /* One transaction for its three reads: another process may be writing the first schema just now. */
    BAL_TRY(bal_store_exec(s, "BEGIN"));
    status = check_identity(s, &version);
    (void)sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    if (status != BAL_OK || !s->write)
        return status;
    /* On file systems without shared memory SQLite keeps its rollback journal: slower, but right. */
    BAL_TRY(bal_store_exec(s, "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"));
    if (version < bal_store_schema_version())
        BAL_TRY(migrate(s));
out:
    return status;
}

/* SQLite doesn't wait, whatever the time-out, where two processes could wait for each other: when a file changes to
 * the WAL journal, or is the first to be opened after a kill.  Letting go and opening again resolves it. */
static bal_status open_with_patience(bal_store *s)
{
    double until = bal_clock_seconds() + BUSY_MS / 1000.0;
    bal_status status = open_database(s);
    while (status == BAL_EBUSY && bal_clock_seconds() < until) {
        (void)sqlite3_close(s->db);
        s->db = NULL;
        s->depth = 0;
        (void)sqlite3_sleep(5);
        status = open_database(s);
    }
    return status;
}

static bal_status check_place(const char *path, bool write)
{
    if (bal_folder_exists(path))
        return bal_fail(BAL_ENOENT, "%s is a folder; the database of the runs is a file", path);
    if (bal_file_exists(path))
        return BAL_OK;
    if (!write)
        return bal_fail(BAL_ENOENT,
                        "there is no database %s; runs are written by train, evaluate and analyze, --db FILE "
                        "names another",
                        path);
    char *folder = bal_path_dir(path);
    if (folder == NULL)
        return BAL_ENOMEM;
    bool there = bal_folder_exists(folder);
    bal_free(folder);
    return there ? BAL_OK : bal_fail(BAL_ENOENT, "cannot create the database %s: its folder is not there", path);
}

bal_status bal_store_open(bal_store **out, const char *path, bool write)
{
    *out = NULL;
    bal_status status = check_place(path, write);
    if (status != BAL_OK)
        return status;
    bal_store *s = bal_alloc(1, sizeof *s);
    if (s == NULL)
        return BAL_ENOMEM;
    s->write = write;
    s->path = bal_strdup(path);
    status = s->path == NULL ? BAL_ENOMEM : open_with_patience(s);
    if (status != BAL_OK) {
        bal_store_close(s);
        return status;
    }
    *out = s;
    return BAL_OK;
}

void bal_store_forget_names(bal_store *s)
{
    for (size_t i = 0; i < s->n_names; i++)
        bal_free(s->names[i].name);
    s->n_names = 0;
}

void bal_store_close(bal_store *s)
{
    if (s == NULL)
        return;
    if (s->depth > 0) {
        s->depth = 1;
        bal_store_rollback(s);
    }
    for (size_t i = 0; i < s->n_slots; i++)
        (void)sqlite3_finalize(s->slots[i].statement);
    bal_store_forget_names(s);
    (void)sqlite3_close(s->db);
    bal_free(s->path);
    bal_free(s);
}

sqlite3 *bal_store_handle(bal_store *s)
{
    return s->db;
}

const char *bal_store_path(const bal_store *s)
{
    return s->path;
}

bal_status bal_store_begin(bal_store *s)
{
    if (s->depth == 0) {
        if (sqlite3_exec(s->db, "BEGIN IMMEDIATE", NULL, NULL, NULL) != SQLITE_OK)
            return bal_store_fail(s, "write to it");
        s->broken = false;
    }
    s->depth++;
    return BAL_OK;
}

bal_status bal_store_commit(bal_store *s)
{
    if (s->depth == 0)
        return bal_fail(BAL_EINVAL, "%s: no transaction to commit", s->path);
    if (s->depth > 1) {
        s->depth--;
        return BAL_OK;
    }
    if (s->broken) {
        bal_store_rollback(s);
        return bal_fail(BAL_EIO, "%s: an earlier change failed, nothing was written", s->path);
    }
    if (sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL) != SQLITE_OK) {
        bal_status status = bal_store_fail(s, "write to it");
        bal_store_rollback(s);
        return status;
    }
    s->depth = 0;
    return BAL_OK;
}

void bal_store_rollback(bal_store *s)
{
    if (s->depth > 1) {
        s->depth--;
        s->broken = true;
    } else if (s->depth == 1) {
        if (sqlite3_get_autocommit(s->db) == 0) /* SQLite itself may have rolled back */
            (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
        s->depth = 0;
        bal_store_forget_names(s); /* their rows may be gone */
    }
}
