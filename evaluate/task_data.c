/* The rows of a task: JSON lines, a JSON list, tables, lines of text, articles.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/task.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COLUMNS = 64, MAX_FILES = 256 };
static const size_t k_max_data = (size_t)1 << 30;

/* How a split is read: the members of data.SPLIT. */
typedef struct split_form {
    const char *where; /* "task 'x', data.test" */
    const char *reader, *list;
    const cJSON *columns, *filter;
    bool header;
    int64_t first, count;
} split_form;

const cJSON *task_member(const cJSON *row, const char *path)
{
    const cJSON *at = row;
    char name[64];
    while (at != NULL) {
        const char *dot = strchr(path, '.');
        size_t n = dot == NULL ? strlen(path) : (size_t)(dot - path);
        if (n >= sizeof name)
            return NULL;
        (void)snprintf(name, sizeof name, "%.*s", (int)n, path);
        if (cJSON_IsArray(at)) {
            int64_t i = -1;
            at = n > 0 && n < 9 && strspn(name, "0123456789") == n && bal_parse_i64(name, 0, 1 << 30, &i) == BAL_OK
                     ? cJSON_GetArrayItem(at, (int)i)
                     : NULL;
        } else {
            at = bal_json_member(at, name);
        }
        if (dot == NULL)
            return at;
        path = dot + 1;
    }
    return NULL;
}

void task_rows_dispose(rows *r)
{
    for (size_t i = 0; i < r->n; i++)
        cJSON_Delete(r->items[i]);
    bal_free(r->items);
    *r = (rows){0};
}

/* Takes the row over, also when it fails. */
static bal_status add_row(rows *out, cJSON *row)
{
    if (row == NULL)
        return bal_fail(BAL_ENOMEM, "no memory for the rows of a task");
    if (out->n == out->cap) {
        size_t cap = out->cap == 0 ? 256 : 2 * out->cap;
        cJSON **grown = bal_realloc(out->items, cap, sizeof(cJSON *));
        if (grown == NULL) {
            cJSON_Delete(row);
            return BAL_ENOMEM;
        }
        out->items = grown;
        out->cap = cap;
    }
    out->items[out->n++] = row;
    return BAL_OK;
}

static bal_status read_jsonl(rows *out, const char *path)
{
    bal_lines *lines = NULL;
    cJSON *json = NULL;
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, path));
    for (;;) {
        BAL_TRY(bal_jsonl_next(lines, &json));
        if (json == NULL)
            break;
        BAL_TRY(add_row(out, json));
    }
out:
    bal_lines_close(lines);
    return status;
}

static bal_status read_json(rows *out, const char *path, const split_form *f)
{
    cJSON *json = NULL;
    const cJSON *row = NULL;
    bal_status status;
    BAL_TRY(bal_json_read(&json, path, k_max_data));
    const cJSON *list = f->list == NULL ? json : task_member(json, f->list);
    if (!cJSON_IsArray(list)) {
        status = bal_fail(BAL_EFORMAT, "%s: %s%s%s is not a list of items", path, f->list == NULL ? "the file" : "'",
                          f->list == NULL ? "" : f->list, f->list == NULL ? "" : "'");
        goto out;
    }
    cJSON_ArrayForEach(row, list) BAL_TRY(add_row(out, cJSON_Duplicate(row, true)));
out:
    cJSON_Delete(json);
    return status;
}

static bal_status read_table(rows *out, const char *path, const split_form *f, char separator)
{
    bal_table t = {0};
    const char *names[MAX_COLUMNS];
    size_t n = 0, first = f->columns == NULL || f->header ? 1 : 0;
    const cJSON *name = NULL;
    bal_status status;
    BAL_TRY(bal_table_read(&t, path, separator));
    cJSON_ArrayForEach(name, f->columns) if (n < MAX_COLUMNS) names[n++] = name->valuestring;
    for (size_t c = 0; f->columns == NULL && t.n_rows > 0 && c < t.n_cols && c < MAX_COLUMNS; c++) {
        names[n++] = t.cells[c];
        if (c == 0 && strncmp(names[0], "\xef\xbb\xbf", 3) == 0) /* a byte-order mark */
            names[0] += 3;
    }
    if (n > t.n_cols) {
        status = bal_fail(BAL_EFORMAT, "%s has %zu columns, %s names %zu", path, t.n_cols, f->where, n);
        goto out;
    }
    for (size_t r = first; r < t.n_rows; r++) {
        cJSON *row = cJSON_CreateObject();
        for (size_t c = 0; row != NULL && c < n; c++)
            (void)cJSON_AddStringToObject(row, names[c], t.cells[r * t.n_cols + c]);
        BAL_TRY(add_row(out, row));
    }
out:
    bal_table_dispose(&t);
    return status;
}

/* One row {"line": text, "file": name} for every line that is not empty. */
static bal_status read_lines(rows *out, const char *path)
{
    bal_lines *lines = NULL;
    const char *text = NULL;
    size_t n = 0;
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, path));
    for (;;) {
        BAL_TRY(bal_lines_next(lines, &text, &n));
        if (text == NULL)
            break;
        if (strspn(text, " \t\r") == n)
            continue;
        cJSON *row = cJSON_CreateObject();
        if (row != NULL)
            (void)cJSON_AddStringToObject(row, "line", text);
        if (row != NULL)
            (void)cJSON_AddStringToObject(row, "file", strrchr(path, '/') == NULL ? path : strrchr(path, '/') + 1);
        BAL_TRY(add_row(out, row));
    }
out:
    bal_lines_close(lines);
    return status;
}

static bal_status add_page(rows *out, const char *text, size_t n)
{
    char *page = bal_strndup(text, n);
    cJSON *row = page == NULL ? NULL : cJSON_CreateObject();
    if (row != NULL)
        (void)cJSON_AddStringToObject(row, "page", page);
    bal_free(page);
    return add_row(out, row);
}

/* " = Title = " begins an article; " = = Section = = " does not. */
static bool is_title(const char *line, size_t n)
{
    while (n > 0 && (line[n - 1] == ' ' || line[n - 1] == '\r'))
        n--;
    while (n > 0 && *line == ' ') {
        line++;
        n--;
    }
    return n >= 5 && line[0] == '=' && line[1] == ' ' && line[2] != '=' && line[n - 1] == '=' && line[n - 2] == ' ' &&
           line[n - 3] != '=';
}

/* WikiText: a row {"page": text} for each article, as EleutherAI/wikitext_document_level cuts them. */
static bal_status read_pages(rows *out, const char *path)
{
    bal_buf text = {0};
    bal_status status;
    BAL_TRY(bal_file_read(path, k_max_data, &text));
    const char *start = bal_buf_cstr(&text), *end = start + text.len;
    for (const char *line = start; line < end;) {
        const char *stop = memchr(line, '\n', (size_t)(end - line));
        const char *next = stop == NULL ? end : stop + 1;
        if (line > start && is_title(line, (size_t)((stop == NULL ? end : stop) - line))) {
            size_t n = (size_t)(line - start);
            if (strspn(start, " \n\r\t") < n)
                BAL_TRY(add_page(out, start, n - 1)); /* without the line end before the title */
            start = line;
        }
        line = next;
    }
    if (start < end)
        status = add_page(out, start, (size_t)(end - start));
out:
    bal_buf_dispose(&text);
    return status;
}

static const char *reader_of(const char *path)
{
    char name[1024];
    (void)snprintf(name, sizeof name, "%s", path);
    size_t n = strlen(name);
    if (n > 3 && strcmp(name + n - 3, ".gz") == 0)
        name[n - 3] = '\0';
    static const char *const kinds[] = {"jsonl", "json", "tsv", "csv"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        char end[16];
        (void)snprintf(end, sizeof end, ".%s", kinds[i]);
        if (bal_ends_with(name, end))
            return kinds[i];
    }
    return "";
}

static bal_status read_file(rows *out, const char *path, const split_form *f)
{
    const char *reader = f->reader != NULL ? f->reader : reader_of(path);
    if (strcmp(reader, "jsonl") == 0)
        return read_jsonl(out, path);
    if (strcmp(reader, "json") == 0)
        return read_json(out, path, f);
    if (strcmp(reader, "tsv") == 0 || strcmp(reader, "csv") == 0)
        return read_table(out, path, f, *reader == 't' ? '\t' : ',');
    if (strcmp(reader, "lines") == 0)
        return read_lines(out, path);
    if (strcmp(reader, "pages") == 0)
        return read_pages(out, path);
    return bal_fail(BAL_EINVAL, "%s: 'reader' must be jsonl, json, tsv, csv, lines or pages, not '%.40s'", f->where,
                    reader);
}

static bool value_is(const cJSON *value, const cJSON *want)
{
    const cJSON *one = NULL;
    if (cJSON_IsArray(want)) {
        cJSON_ArrayForEach(one, want) if (value_is(value, one)) return true;
        return false;
    }
    return value != NULL && cJSON_Compare(value, want, true);
}

/* Keeps the rows of "where", then those from "first" on, at most "count". */
static void select_rows(rows *r, size_t from, const split_form *f)
{
    size_t kept = from, seen = 0;
    for (size_t i = from; i < r->n; i++) {
        const cJSON *want = NULL;
        bool keep = true;
        cJSON_ArrayForEach(want, f->filter) keep = keep && value_is(task_member(r->items[i], want->string), want);
        if (keep)
            seen++;
        keep = keep && (int64_t)seen > f->first && (f->count < 0 || (int64_t)seen <= f->first + f->count);
        if (keep)
            r->items[kept++] = r->items[i];
        else
            cJSON_Delete(r->items[i]);
    }
    r->n = kept;
}

/* The path of a file: under data, or beside the user's task file, also with .gz; NULL if it is nowhere. */
static char *find_file(const task *t, const char *data, const char *name)
{
    const char *const folders[] = {data, t->folder};
    for (size_t i = 0; i < 2; i++) {
        char with_gz[1100];
        if (folders[i] == NULL && *name != '/')
            continue;
        char *path = bal_path_join(folders[i], name);
        if (path == NULL || bal_file_exists(path))
            return path;
        (void)snprintf(with_gz, sizeof with_gz, "%s.gz", path);
        bal_free(path);
        if (bal_file_exists(with_gz))
            return bal_strdup(with_gz);
    }
    return NULL;
}

static bal_status fail_missing(const task *t, const char *data, const char *split, const char *name)
{
    const char *source = NULL;
    (void)bal_json_text(bal_json_member(t->json, "data"), t->name, "source", &source, NULL);
    if (data == NULL && t->folder == NULL)
        return bal_fail(
            BAL_ENOENT, "task '%s' needs %s: give the folder that holds it with --data DIR or BALORA_DATA=DIR%s%s%s",
            t->name, name, source == NULL ? "" : " (", source == NULL ? "" : source, source == NULL ? "" : ")");
    return bal_fail(BAL_ENOENT, "task '%s': file %s%s%s missing (the %s split%s%s)", t->name, data == NULL ? "" : data,
                    data == NULL ? "" : "/", name, split, source == NULL ? "" : "; ", source == NULL ? "" : source);
}

static bal_status read_form(const task *t, const char *split, split_form *f, const cJSON **files, char *where,
                            size_t n_where)
{
    static const char *const keys[] = {"file", "reader", "list", "columns", "header", "where", "first", "count"};
    const cJSON *data = bal_json_member(t->json, "data"), *spec = bal_json_member(data, split), *key = NULL;
    bal_status status;
    (void)snprintf(where, n_where, "task '%.60s', data.%s", t->name, split);
    *f = (split_form){.where = where, .count = -1};
    *files = cJSON_IsObject(spec) ? bal_json_member(spec, "file") : spec;
    if (!cJSON_IsString(*files) && (!cJSON_IsArray(*files) || cJSON_GetArraySize(*files) == 0))
        return bal_fail(BAL_EFORMAT, "%s must name a file: a text, a list of texts, or an object with 'file'", where);
    if (!cJSON_IsObject(spec))
        return BAL_OK;
    cJSON_ArrayForEach(key, spec)
    {
        bool known = false;
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            known = known || strcmp(keys[i], key->string) == 0;
        if (!known) {
            const char *near = bal_nearest(key->string, keys, sizeof keys / sizeof keys[0]);
            return bal_fail(BAL_EFORMAT, "%s: key '%.40s' is not known%s%s%s", where, key->string,
                            near == NULL ? "" : "; did you mean '", near == NULL ? "" : near, near == NULL ? "" : "'?");
        }
    }
    f->columns = bal_json_member(spec, "columns");
    f->filter = bal_json_member(spec, "where");
    cJSON_ArrayForEach(
        key, f->columns) if (!cJSON_IsString(key) ||
                             cJSON_GetArraySize(f->columns) >
                                 MAX_COLUMNS) return bal_fail(BAL_EFORMAT, "%s: key 'columns' must be at most %d texts",
                                                              where, MAX_COLUMNS);
    BAL_TRY(bal_json_text(spec, where, "reader", &f->reader, NULL));
    BAL_TRY(bal_json_text(spec, where, "list", &f->list, NULL));
    BAL_TRY(bal_json_bool(spec, where, "header", &f->header, NULL));
    BAL_TRY(bal_json_i64(spec, where, "first", 0, (int64_t)1 << 40, &f->first, NULL));
    BAL_TRY(bal_json_i64(spec, where, "count", 0, (int64_t)1 << 40, &f->count, NULL));
out:
    return status;
}

bal_status task_read_split(task *t, const char *data, const char *split, rows *out, char *hash)
{
    char where[128];
    split_form f;
    const cJSON *files = NULL;
    bal_buf bytes = {0};
    char *path = NULL;
    bal_status status;
    BAL_TRY(read_form(t, split, &f, &files, where, sizeof where));
    int n = cJSON_IsArray(files) ? cJSON_GetArraySize(files) : 1;
    for (int i = 0; i < n && i < MAX_FILES; i++) {
        const cJSON *file = cJSON_IsArray(files) ? cJSON_GetArrayItem(files, i) : files;
        if (!cJSON_IsString(file)) {
            status = bal_fail(BAL_EFORMAT, "%s: 'file' must be texts", where);
            goto out;
        }
        path = find_file(t, data, file->valuestring);
        if (path == NULL && (n == 1 || (i == n - 1 && out->n == 0))) { /* nothing is there */
            status = fail_missing(t, data, split, file->valuestring);
            goto out;
        }
        if (path == NULL) {
            BAL_TRY(bal_buf_printf(&t->missing, "%s%s", t->missing.len == 0 ? "" : ", ", file->valuestring));
            continue;
        }
        size_t from = out->n;
        BAL_TRY(read_file(out, path, &f));
        select_rows(out, from, &f);
        if (hash != NULL)
            BAL_TRY(bal_file_read(path, k_max_data, &bytes));
        bal_free(path);
        path = NULL;
    }
    if (out->n == 0)
        status = bal_fail(BAL_EFORMAT, "%s holds no items", where);
    if (hash != NULL)
        bal_sha256_hex(bal_buf_cstr(&bytes), bytes.len, hash);
out:
    bal_free(path);
    bal_buf_dispose(&bytes);
    return status;
}
