/* balora runs: rows of the database as JSON and as text.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/runs.h"

#include "lib/base/mem.h"
#include "lib/io/json.h"

#include <stdio.h>
#include <string.h>

enum { MAX_COLUMNS = 32 };

static bal_status put_cell_json(bal_buf *out, sqlite3_stmt *st, int column)
{
    switch (sqlite3_column_type(st, column)) {
    case SQLITE_INTEGER:
        return bal_buf_printf(out, "%lld", (long long)sqlite3_column_int64(st, column));
    case SQLITE_FLOAT:
        return bal_json_put_f64(out, sqlite3_column_double(st, column));
    case SQLITE_NULL:
        return bal_buf_text(out, "null");
    default:
        return bal_json_put_textn(out, (const char *)sqlite3_column_text(st, column),
                                  (size_t)sqlite3_column_bytes(st, column));
    }
}

static bal_status put_row_object(bal_buf *out, sqlite3_stmt *st, int from)
{
    bool first = true;
    bal_status status = bal_buf_text(out, "{");
    for (int i = from; i < sqlite3_column_count(st) && status == BAL_OK; i++) {
        status = bal_json_put_key(out, sqlite3_column_name(st, i), &first);
        if (status == BAL_OK)
            status = put_cell_json(out, st, i);
    }
    return status == BAL_OK ? bal_buf_text(out, "}") : status;
}

static bal_status open_rows(runs_context *c, const char *sql, int64_t run, sqlite3_stmt **st)
{
    bal_status status = bal_store_prepare(c->store, sql, st);
    if (status == BAL_OK && sqlite3_bind_parameter_count(*st) > 0)
        (void)sqlite3_bind_int64(*st, 1, run);
    return status;
}

bal_status runs_put_rows(runs_context *c, bal_buf *out, const char *sql, int64_t run)
{
    sqlite3_stmt *st = NULL;
    bool row = false, first = true;
    bal_status status = BAL_OK;
    BAL_TRY(open_rows(c, sql, run, &st));
    BAL_TRY(bal_buf_text(out, "["));
    while ((status = bal_store_step(c->store, st, &row)) == BAL_OK && row) {
        BAL_TRY(bal_buf_text(out, first ? "" : ", "));
        first = false;
        BAL_TRY(put_row_object(out, st, 0));
    }
    if (status == BAL_OK)
        status = bal_buf_text(out, "]");
out:
    (void)sqlite3_finalize(st);
    return status;
}

bal_status runs_put_map(runs_context *c, bal_buf *out, const char *sql, int64_t run)
{
    sqlite3_stmt *st = NULL;
    bool row = false, first = true;
    bal_status status = BAL_OK;
    BAL_TRY(open_rows(c, sql, run, &st));
    BAL_TRY(bal_buf_text(out, "{"));
    while ((status = bal_store_step(c->store, st, &row)) == BAL_OK && row) {
        BAL_TRY(bal_json_put_key(out, (const char *)sqlite3_column_text(st, 0), &first));
        BAL_TRY(sqlite3_column_count(st) == 2 ? put_cell_json(out, st, 1) : put_row_object(out, st, 1));
    }
    if (status == BAL_OK)
        status = bal_buf_text(out, "}");
out:
    (void)sqlite3_finalize(st);
    return status;
}

bal_status runs_put_params(runs_context *c, bal_buf *out, int64_t run)
{
    sqlite3_stmt *st = NULL;
    bool row = false, first = true;
    bal_status status = BAL_OK;
    BAL_TRY(open_rows(c, "SELECT key, type, text FROM param WHERE run_id = ?1 ORDER BY key", run, &st));
    BAL_TRY(bal_buf_text(out, "{"));
    while ((status = bal_store_step(c->store, st, &row)) == BAL_OK && row) {
        const char *text = (const char *)sqlite3_column_text(st, 2);
        bool raw = text != NULL && strcmp((const char *)sqlite3_column_text(st, 1), "text") != 0;
        BAL_TRY(bal_json_put_key(out, (const char *)sqlite3_column_text(st, 0), &first));
        BAL_TRY(raw ? bal_buf_text(out, text) : bal_json_put_text(out, text));
    }
    if (status == BAL_OK)
        status = bal_buf_text(out, "}");
out:
    (void)sqlite3_finalize(st);
    return status;
}

/* Text of a cell for people: six significant digits, one line, at most 60 bytes. */
static void cell_text(sqlite3_stmt *st, int column, char out[64])
{
    int type = sqlite3_column_type(st, column);
    if (type == SQLITE_FLOAT) {
        (void)snprintf(out, 64, "%.6g", sqlite3_column_double(st, column));
        return;
    }
    const char *text = (const char *)sqlite3_column_text(st, column);
    size_t n = 0;
    for (; text != NULL && text[n] != '\0' && n < 60; n++)
        out[n] = (unsigned char)text[n] < ' ' ? ' ' : text[n];
    while (text != NULL && n > 0 && text[n] != '\0' && ((unsigned char)text[n] & 0xC0) == 0x80)
        n--; /* not within a character */
    out[n] = '\0';
}

static size_t shown_width(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xC0) != 0x80;
    return n;
}

static bal_status put_padded(bal_buf *out, const char *text, size_t width, bool last)
{
    size_t n = shown_width(text);
    bal_status status = bal_buf_text(out, text);
    if (!last && status == BAL_OK)
        status = bal_buf_printf(out, "%*s", (int)(width > n ? width - n : 0) + 2, "");
    return status;
}

/* First pass: widths; second pass: lines.  The statement is run twice rather than the rows kept. */
static bal_status measure(runs_context *c, sqlite3_stmt *st, size_t *width, size_t *n_rows)
{
    bool row = false;
    char cell[64];
    bal_status status = BAL_OK;
    int n = sqlite3_column_count(st);
    for (int i = 0; i < n; i++)
        width[i] = strlen(sqlite3_column_name(st, i));
    *n_rows = 0;
    while ((status = bal_store_step(c->store, st, &row)) == BAL_OK && row) {
        (*n_rows)++;
        for (int i = 0; i < n; i++) {
            cell_text(st, i, cell);
            size_t w = shown_width(cell);
            width[i] = w > width[i] ? w : width[i];
        }
    }
    (void)sqlite3_reset(st);
    return status;
}

bal_status runs_put_table(runs_context *c, const char *heading, const char *sql, int64_t run)
{
    sqlite3_stmt *st = NULL;
    size_t width[MAX_COLUMNS] = {0}, n_rows = 0;
    bool row = false;
    char cell[64];
    bal_status status = BAL_OK;
    BAL_TRY(open_rows(c, sql, run, &st));
    int n = sqlite3_column_count(st);
    if (n > MAX_COLUMNS)
        BAL_TRY(bal_fail(BAL_ELIMIT, "a table of %d columns is too wide", n));
    BAL_TRY(measure(c, st, width, &n_rows));
    if (n_rows == 0)
        goto out;
    if (heading != NULL)
        BAL_TRY(bal_buf_printf(&c->out, "\n%s\n", heading));
    bool named = sqlite3_column_name(st, 0)[0] != '\0'; /* a list of key and value has no line of names */
    for (int i = 0; i < n && named; i++)
        BAL_TRY(put_padded(&c->out, sqlite3_column_name(st, i), width[i], i + 1 == n));
    if (named)
        BAL_TRY(bal_buf_text(&c->out, "\n"));
    while ((status = bal_store_step(c->store, st, &row)) == BAL_OK && row) {
        for (int i = 0; i < n; i++) {
            cell_text(st, i, cell);
            BAL_TRY(put_padded(&c->out, cell, width[i], i + 1 == n));
        }
        BAL_TRY(bal_buf_text(&c->out, "\n"));
    }
out:
    (void)sqlite3_finalize(st);
    return status;
}
