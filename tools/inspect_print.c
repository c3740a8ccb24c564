/* A JSON document as text: scalars as aligned lines, objects as sections, arrays of objects as tables.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/str.h"
#include "tools/inspect.h"

#include <math.h>
#include <string.h>

enum { MAX_TEXT = 96, MAX_COLUMNS = 12, INDENT = 2 };

/* Columns that a text takes on a terminal: its code points. */
static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text != '\0'; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

/* One line of at most MAX_TEXT characters; control characters are shown, not sent to the terminal. */
static void put_line_text(bal_buf *b, const char *text)
{
    size_t n = 0, left = strlen(text);
    const unsigned char *p = (const unsigned char *)text;
    for (; left > 0 && n < MAX_TEXT; n++) {
        uint32_t cp = 0;
        size_t k = bal_utf8_decode(p, left, &cp);
        if (k == 0 || cp < 32 || (cp >= 127 && cp < 160)) {
            (void)bal_buf_text(b, k == 1 && cp == '\n' ? "\\n" : (k == 1 && cp == '\t' ? "\\t" : "?"));
            k = k == 0 ? 1 : k;
        } else {
            (void)bal_buf_append(b, p, k);
        }
        p += k;
        left -= k;
    }
    if (left > 0)
        (void)bal_buf_printf(b, " … (%zu bytes)", strlen(text));
}

/* 134515008 as 134,515,008. */
static void put_grouped(bal_buf *b, double value)
{
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%.0f", value);
    for (int i = 0; i < n; i++) {
        (void)bal_buf_append(b, &digits[i], 1);
        if (i + 1 < n && (n - 1 - i) % 3 == 0 && digits[i] != '-')
            (void)bal_buf_text(b, ",");
    }
}

static void put_scaled(bal_buf *b, double value, double step, const char *const *units)
{
    size_t u = 0;
    while (value >= step && units[u + 1] != NULL) {
        value /= step;
        u++;
    }
    (void)bal_buf_printf(b, u == 0 ? "%.0f%s" : "%.1f%s", value, units[u]);
}

static void put_number(bal_buf *b, const char *key, double value)
{
    static const char *const sizes[] = {" bytes", " KiB", " MiB", " GiB", " TiB", NULL};
    static const char *const counts[] = {"", " k", " M", " G", " T", NULL};
    bool counted = key != NULL && strcmp(key, "parameters") == 0;
    if (key != NULL && bal_ends_with(key, "bytes")) {
        put_scaled(b, value, 1024, sizes);
    } else if (counted && value >= 1000) {
        put_scaled(b, value, 1000, counts);
        (void)bal_buf_text(b, " (");
        put_grouped(b, value);
        (void)bal_buf_text(b, ")");
    } else {
        (void)bal_buf_printf(b, value == floor(value) && fabs(value) < 1e15 ? "%.0f" : "%.7g", value);
    }
}

static void put_value(bal_buf *b, const cJSON *item)
{
    if (cJSON_IsString(item))
        put_line_text(b, item->valuestring);
    else if (cJSON_IsNumber(item))
        put_number(b, item->string, item->valuedouble);
    else if (cJSON_IsBool(item))
        (void)bal_buf_text(b, cJSON_IsTrue(item) ? "yes" : "no");
    else if (cJSON_IsNull(item))
        (void)bal_buf_text(b, "none");
    else if (item->child == NULL)
        (void)bal_buf_text(b, "none");
    else if (cJSON_IsArray(item)) { /* of scalars; a shape is written 576 x 1536 */
        bool shape = item->string != NULL && strcmp(item->string, "shape") == 0;
        for (const cJSON *c = item->child; c != NULL; c = c->next) {
            put_value(b, c);
            if (c->next != NULL)
                (void)bal_buf_text(b, shape ? " x " : ", ");
        }
    } else { /* an object in a line: key value, key value */
        for (const cJSON *c = item->child; c != NULL; c = c->next) {
            (void)bal_buf_printf(b, "%s ", c->string);
            put_value(b, c);
            if (c->next != NULL)
                (void)bal_buf_text(b, ", ");
        }
    }
}

/* Our own keys are shown with spaces; those of a file's metadata (verbatim) as they are. */
static void print_key(FILE *to, const char *key, size_t width, bool verbatim)
{
    (void)fprintf(to, "%*s", INDENT, "");
    for (const char *c = key; *c != '\0'; c++)
        (void)fputc(*c == '_' && !verbatim ? ' ' : *c, to);
    (void)fprintf(to, "%*s", (int)(width - width_of(key)) + 2, "");
}

static bool is_table(const cJSON *item)
{
    return cJSON_IsArray(item) && cJSON_IsObject(item->child);
}

/* Objects of one level are sections when they are members of the document, and lines further inside. */
static bool is_section(const cJSON *item)
{
    return is_table(item) || cJSON_IsObject(item);
}

static void print_lines(const cJSON *object, bool top, FILE *to)
{
    size_t width = 0;
    for (const cJSON *c = object->child; c != NULL; c = c->next)
        if (!(top && is_section(c)) && width_of(c->string) > width)
            width = width_of(c->string);
    for (const cJSON *c = object->child; c != NULL; c = c->next) {
        bal_buf b = {0};
        if (top && (is_section(c) || strcmp(c->string, "path") == 0))
            continue;
        put_value(&b, c);
        print_key(to, c->string, width, object->string != NULL && strcmp(object->string, "metadata") == 0);
        (void)fprintf(to, "%s\n", bal_buf_cstr(&b));
        bal_buf_dispose(&b);
    }
}

static void print_table(const cJSON *table, FILE *to)
{
    size_t width[MAX_COLUMNS] = {0}, n = 0;
    const cJSON *row = NULL;
    bal_buf cell = {0};
    for (const cJSON *c = table->child->child; c != NULL && n < MAX_COLUMNS; c = c->next)
        width[n++] = width_of(c->string);
    cJSON_ArrayForEach(row, table)
    {
        size_t k = 0;
        for (const cJSON *c = row->child; c != NULL && k < n; c = c->next, k++) {
            bal_buf_clear(&cell);
            put_value(&cell, c);
            size_t w = width_of(bal_buf_cstr(&cell));
            width[k] = w > width[k] ? w : width[k];
        }
    }
    for (const cJSON *line = NULL; line != table;
         line = line == NULL ? table->child : (line->next == NULL ? table : line->next)) {
        const cJSON *cells = line == NULL ? table->child : line;
        size_t k = 0;
        for (const cJSON *c = cells->child; c != NULL && k < n; c = c->next, k++) {
            bal_buf_clear(&cell);
            if (line == NULL)
                (void)bal_buf_text(&cell, c->string);
            else
                put_value(&cell, c);
            size_t pad = width[k] - width_of(bal_buf_cstr(&cell));
            bool right = cJSON_IsNumber(c), last = k + 1 == n || c->next == NULL;
            (void)fprintf(to, "%*s%s%*s", (int)(INDENT + (right ? pad : 0)), "", bal_buf_cstr(&cell),
                          right || last ? 0 : (int)pad, "");
        }
        (void)fputc('\n', to);
    }
    bal_buf_dispose(&cell);
}

void bal_inspect_print(const cJSON *doc, FILE *to)
{
    const cJSON *path = cJSON_GetObjectItemCaseSensitive(doc, "path"), *item = NULL;
    (void)fprintf(to, "%s\n", cJSON_IsString(path) ? path->valuestring : "");
    print_lines(doc, true, to);
    cJSON_ArrayForEach(item, doc)
    {
        if (!is_section(item) || item->child == NULL)
            continue;
        (void)fprintf(to, "\n%s\n", item->string);
        if (is_table(item))
            print_table(item, to);
        else
            print_lines(item, false, to);
    }
}
