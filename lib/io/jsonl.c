/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/jsonl.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum { LINE_MAX_BYTES = 16 << 20, CHUNK = 1 << 16, TABLE_MAX_BYTES = 1 << 30, MAX_COLUMNS = 4096 };

struct bal_lines {
    gzFile file;
    char *path;
    bal_buf line;
    size_t number;
    size_t begin, end; /* unread part of chunk */
    bool at_end;
    char chunk[CHUNK];
};

bal_status bal_lines_open(bal_lines **out, const char *path)
{
    bool standard = strcmp(path, "-") == 0;
    *out = NULL;
    if (!standard && bal_folder_exists(path))
        return bal_fail(BAL_ENOENT, "%s is a folder, a file is needed", path);
    bal_lines *l = bal_alloc(1, sizeof *l);
    if (l == NULL)
        return BAL_ENOMEM;
    l->line.limit = LINE_MAX_BYTES;
    l->path = bal_strdup(standard ? "standard input" : path);
    errno = 0;
    int fd = standard ? dup(STDIN_FILENO) : -1;
    l->file = standard ? gzdopen(fd, "rb") : gzopen(path, "rbe");
    if (l->path == NULL || l->file == NULL) {
        bal_status status = l->path == NULL ? BAL_ENOMEM
                                            : bal_fail(errno == ENOENT || errno == ENOTDIR ? BAL_ENOENT : BAL_EIO,
                                                       "cannot read %s: %s", path, strerror(errno));
        bal_lines_close(l);
        return status;
    }
    *out = l;
    return BAL_OK;
}

void bal_lines_close(bal_lines *l)
{
    if (l == NULL)
        return;
    if (l->file != NULL)
        (void)gzclose_r(l->file);
    bal_buf_dispose(&l->line);
    bal_free(l->path);
    bal_free(l);
}

size_t bal_lines_number(const bal_lines *l)
{
    return l->number;
}

const char *bal_lines_path(const bal_lines *l)
{
    return l->path;
}

bal_status bal_lines_next(bal_lines *l, const char **text, size_t *n)
{
    bool any = false;
    *text = NULL;
    *n = 0;
    bal_buf_clear(&l->line);
    for (;;) {
        if (l->begin == l->end) {
            int got = l->at_end ? 0 : gzread(l->file, l->chunk, CHUNK);
            if (got < 0)
                return bal_fail(BAL_EIO, "cannot read %s after line %zu: broken file or compressed data cut short",
                                l->path, l->number);
            l->begin = 0;
            l->end = (size_t)got;
            l->at_end = got == 0;
            if (got == 0)
                break;
        }
        const char *start = l->chunk + l->begin;
        const char *newline = memchr(start, '\n', l->end - l->begin);
        size_t take = newline != NULL ? (size_t)(newline - start) : l->end - l->begin;
        any = true;
        bal_status status = bal_buf_append(&l->line, start, take);
        if (status != BAL_OK)
            return bal_fail(status, "%s: line %zu is longer than %d bytes", l->path, l->number + 1, LINE_MAX_BYTES);
        l->begin += take + (newline != NULL);
        if (newline != NULL)
            break;
    }
    if (!any)
        return BAL_OK;
    l->number++;
    if (l->line.len > 0 && l->line.data[l->line.len - 1] == '\r')
        l->line.data[--l->line.len] = '\0';
    *text = bal_buf_cstr(&l->line);
    *n = l->line.len;
    return BAL_OK;
}

bal_status bal_jsonl_next(bal_lines *l, cJSON **out)
{
    const char *text;
    char where[240];
    size_t n;
    *out = NULL;
    for (;;) {
        bal_status status = bal_lines_next(l, &text, &n);
        if (status != BAL_OK || text == NULL)
            return status;
        size_t blank = strspn(text, " \t");
        if (blank == n)
            continue;
        (void)snprintf(where, sizeof where, "%.180s, line %zu", l->path, l->number);
        status = bal_json_parse(out, text, n, where);
        if (status == BAL_OK && !cJSON_IsObject(*out)) {
            cJSON_Delete(*out);
            *out = NULL;
            status = bal_fail(BAL_EFORMAT, "%s: a JSON object is needed", where);
        }
        return status;
    }
}

/* Cuts the line at `separator` in place; quoted cells (CSV) may span lines, so text is the whole file. */
static char *next_cell(char *p, char separator, char **cell, bool *row_ends)
{
    char *write = p;
    *cell = p;
    if (separator == ',' && *p == '"') {
        for (p++; *p != '\0'; p++) {
            if (*p == '"' && p[1] != '"')
                break;
            if (*p == '"')
                p++;
            *write++ = *p;
        }
        if (*p == '"')
            p++;
    }
    while (*p != separator && *p != '\n' && *p != '\0')
        *write++ = *p++;
    *row_ends = *p != separator;
    char *next = *p == '\0' ? p : p + 1;
    if (*row_ends && write > *cell && write[-1] == '\r')
        write--;
    *write = '\0';
    return next;
}

typedef struct table_reader {
    bal_table *table;
    const char *path;
    size_t cap, row, col;
} table_reader;

static bal_status put_cell(table_reader *r, char *cell)
{
    bal_table *t = r->table;
    if (r->row == 0) {
        t->n_cols = r->col + 1;
        if (t->n_cols > MAX_COLUMNS)
            return bal_fail(BAL_EFORMAT, "%s: more than %d columns", r->path, MAX_COLUMNS);
    }
    size_t at = r->row * t->n_cols + r->col;
    if (r->col < t->n_cols && at + t->n_cols >= r->cap) { /* room for the rest of the row too */
        size_t cap = 2 * r->cap + t->n_cols + 1024;
        char **cells = bal_realloc(t->cells, cap, sizeof *cells);
        if (cells == NULL)
            return BAL_ENOMEM;
        t->cells = cells;
        r->cap = cap;
    }
    if (r->col < t->n_cols)
        t->cells[at] = cell;
    r->col++;
    return BAL_OK;
}

static void end_row(table_reader *r)
{
    static char empty[] = "";
    for (; r->col < r->table->n_cols; r->col++)
        r->table->cells[r->row * r->table->n_cols + r->col] = empty;
    r->row++;
    r->col = 0;
}

bal_status bal_table_read(bal_table *t, const char *path, char separator)
{
    bal_buf text = {.limit = TABLE_MAX_BYTES};
    table_reader reader = {.table = t, .path = path};
    *t = (bal_table){0};
    bal_status status = bal_file_read(path, TABLE_MAX_BYTES, &text);
    if (status == BAL_OK && text.data != NULL && memchr(text.data, '\0', text.len) != NULL)
        status = bal_fail(BAL_EFORMAT, "%s: holds a NUL byte, so it is no table of text", path);
    t->text = text.data; /* the cells point into it */
    char *p = t->text;
    if (p != NULL && bal_starts_with(p, "\xEF\xBB\xBF"))
        p += 3;
    while (status == BAL_OK && p != NULL && (*p != '\0' || reader.col > 0)) {
        char *cell;
        bool ends;
        p = next_cell(p, separator, &cell, &ends);
        status = put_cell(&reader, cell);
        if (status == BAL_OK && ends)
            end_row(&reader);
    }
    t->n_rows = reader.row;
    if (status != BAL_OK)
        bal_table_dispose(t);
    return status;
}

void bal_table_dispose(bal_table *t)
{
    bal_free(t->cells);
    bal_free(t->text);
    *t = (bal_table){0};
}
