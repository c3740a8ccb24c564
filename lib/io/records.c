/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/records.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

enum { RECORD_MAX_BYTES = 16 << 20, CHUNK = 1 << 16 };

struct bal_records {
    char *path, where[320];
    size_t number;
    bal_lines *lines; /* JSON lines */
    bal_table table;  /* CSV, TSV */
    gzFile array;     /* a JSON array */
    bal_buf record;
    size_t begin, end;
    bool ended;
    char chunk[CHUNK];
};

/* -1 at the end of the file, -2 when it cannot be read. */
static int next_byte(bal_records *r)
{
    if (r->begin == r->end) {
        int n = gzread(r->array, r->chunk, CHUNK);
        if (n <= 0)
            return n < 0 ? -2 : -1;
        r->begin = 0;
        r->end = (size_t)n;
    }
    return (unsigned char)r->chunk[r->begin++];
}

static int next_visible(bal_records *r)
{
    int c;
    do
        c = next_byte(r);
    while (c == ' ' || c == '\t' || c == '\n' || c == '\r');
    return c;
}

static bal_status cannot_read(const bal_records *r)
{
    return bal_fail(BAL_EIO, "cannot read %s after record %zu: broken file or compressed data cut short", r->path,
                    r->number);
}

/* *array tells whether the file begins with '['; then the reader stands behind it. */
static bal_status begin_array(bal_records *r, bool *array)
{
    *array = false;
    if (bal_folder_exists(r->path) || (r->array = gzopen(r->path, "rbe")) == NULL)
        return BAL_OK; /* whoever reads lines says why */
    int c = next_visible(r);
    if (c == 0xEF) { /* a byte order mark */
        (void)next_byte(r);
        (void)next_byte(r);
        c = next_visible(r);
    }
    *array = c == '[';
    if (*array)
        return BAL_OK;
    (void)gzclose_r(r->array);
    r->array = NULL;
    return BAL_OK;
}

static bool has_ending(const char *path, const char *ending)
{
    char with_gz[16];
    (void)snprintf(with_gz, sizeof with_gz, "%s.gz", ending);
    return bal_ends_with(path, ending) || bal_ends_with(path, with_gz);
}

bal_status bal_records_open(bal_records **out, const char *path)
{
    bal_status status = BAL_OK;
    bool array = false;
    *out = NULL;
    bal_records *r = bal_alloc(1, sizeof *r);
    if (r == NULL)
        return BAL_ENOMEM;
    r->record.limit = RECORD_MAX_BYTES;
    r->path = bal_strdup(path);
    if (r->path == NULL)
        status = BAL_ENOMEM;
    else if (has_ending(path, ".csv") || has_ending(path, ".tsv"))
        status = bal_table_read(&r->table, path, has_ending(path, ".csv") ? ',' : '\t');
    else if (strcmp(path, "-") != 0)
        status = begin_array(r, &array);
    if (status == BAL_OK && r->table.cells == NULL && !array)
        status = bal_lines_open(&r->lines, path);
    if (status == BAL_OK)
        *out = r;
    else
        bal_records_close(r);
    return status;
}

void bal_records_close(bal_records *r)
{
    if (r == NULL)
        return;
    if (r->array != NULL)
        (void)gzclose_r(r->array);
    bal_lines_close(r->lines);
    bal_table_dispose(&r->table);
    bal_buf_dispose(&r->record);
    bal_free(r->path);
    bal_free(r);
}

const char *bal_records_where(const bal_records *r)
{
    return r->where;
}

/* The bytes of one object, whose '{' was read. */
static bal_status collect(bal_records *r)
{
    size_t depth = 1;
    bool inside = false, escaped = false;
    bal_status status = bal_buf_append(&r->record, "{", 1);
    while (status == BAL_OK && depth > 0) {
        int c = next_byte(r);
        if (c == -2)
            return cannot_read(r);
        if (c == -1)
            return bal_fail(BAL_EFORMAT, "%s: the array ends in the middle of a record", r->where);
        char byte = (char)c;
        status = bal_buf_append(&r->record, &byte, 1);
        if (inside) {
            inside = escaped || byte != '"';
            escaped = !escaped && byte == '\\';
        } else {
            inside = byte == '"';
            depth += byte == '{' || byte == '[';
            depth -= byte == '}' || byte == ']';
        }
    }
    return status == BAL_ELIMIT
               ? bal_fail(BAL_ELIMIT, "%s: the record is longer than %d bytes", r->where, RECORD_MAX_BYTES)
               : status;
}

static bal_status next_of_array(bal_records *r, cJSON **out)
{
    bal_status status;
    int c = r->ended ? -1 : next_visible(r);
    if (r->ended)
        return BAL_OK;
    (void)snprintf(r->where, sizeof r->where, "%.240s, record %zu", r->path, r->number + 1);
    if (c == ',' && r->number > 0)
        c = next_visible(r);
    else if (c != ']' && c >= 0 && r->number > 0)
        return bal_fail(BAL_EFORMAT, "%s: a comma or ']' is needed before it", r->where);
    if (c == ']') {
        r->ended = true;
        return next_visible(r) == -1 ? BAL_OK : bal_fail(BAL_EFORMAT, "%s: something stands behind the array", r->path);
    }
    if (c == -2)
        return cannot_read(r);
    if (c != '{')
        return c == -1 ? bal_fail(BAL_EFORMAT, "%s: the array has no end", r->where)
                       : bal_fail(BAL_EFORMAT, "%s: a JSON object is needed", r->where);
    bal_buf_clear(&r->record);
    BAL_TRY(collect(r));
    BAL_TRY(bal_json_parse(out, r->record.data, r->record.len, r->where));
    r->number++;
out:
    return status;
}

static bal_status next_of_table(bal_records *r, cJSON **out)
{
    const bal_table *t = &r->table;
    char *const *names = t->cells, *const *cells = t->cells + (r->number + 1) * t->n_cols;
    if (r->number + 1 >= t->n_rows)
        return BAL_OK;
    (void)snprintf(r->where, sizeof r->where, "%.240s, row %zu", r->path, ++r->number + 1);
    cJSON *object = cJSON_CreateObject();
    bool good = object != NULL;
    for (size_t i = 0; good && i < t->n_cols; i++) {
        if (cJSON_GetObjectItemCaseSensitive(object, names[i]) != NULL) {
            cJSON_Delete(object);
            return bal_fail(BAL_EFORMAT, "%s: two columns are called '%.80s'", r->path, names[i]);
        }
        good = cJSON_AddStringToObject(object, names[i], cells[i]) != NULL;
    }
    if (!good) {
        cJSON_Delete(object);
        return bal_fail(BAL_ENOMEM, "out of memory");
    }
    *out = object;
    return BAL_OK;
}

bal_status bal_records_next(bal_records *r, cJSON **out)
{
    *out = NULL;
    if (r->array != NULL)
        return next_of_array(r, out);
    if (r->lines == NULL)
        return next_of_table(r, out);
    bal_status status = bal_jsonl_next(r->lines, out);
    (void)snprintf(r->where, sizeof r->where, "%.240s, line %zu", bal_lines_path(r->lines), bal_lines_number(r->lines));
    return status;
}
