/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/json.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 64, IS_REAL = 1 << 12 /* of a cJSON's type: cJSON looks at its low bits only */ };

static void position_of(const char *text, size_t offset, size_t *line, size_t *column)
{
    *line = 1;
    *column = 1;
    for (size_t i = 0; i < offset; i++) {
        (*column)++;
        if (text[i] == '\n') {
            (*line)++;
            *column = 1;
        }
    }
}

/* cJSON parses recursively: the depth is bounded before it runs.  Brackets inside strings do not count. */
static bal_status check_depth(const char *text, size_t n, const char *name)
{
    size_t depth = 0;
    bool inside = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (inside) {
            if (c == '\\')
                i++;
            else if (c == '"')
                inside = false;
        } else if (c == '"') {
            inside = true;
        } else if (c == '[' || c == '{') {
            if (++depth > MAX_DEPTH)
                return bal_fail(BAL_EFORMAT, "%s: JSON is nested deeper than %d", name, MAX_DEPTH);
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
    }
    return BAL_OK;
}

enum { DUPLICATE_CHECK_MAX = 256 };

/* The depth is bounded by check_depth().  Very wide objects (vocabularies) are not checked: quadratic. */
static const char *find_duplicate(const cJSON *item) // NOLINT(misc-no-recursion)
{
    const char *found = NULL;
    if (cJSON_IsObject(item) && cJSON_GetArraySize(item) <= DUPLICATE_CHECK_MAX)
        for (const cJSON *a = item->child; a != NULL; a = a->next)
            for (const cJSON *b = a->next; b != NULL; b = b->next)
                if (strcmp(a->string, b->string) == 0)
                    return a->string;
    for (const cJSON *c = item->child; c != NULL && found == NULL; c = c->next)
        if (c->child != NULL)
            found = find_duplicate(c);
    return found;
}

/* cJSON's texts end at a NUL, so the escape \u0000 would cut them: it is parsed as the two bytes C0 80, which occur in
 * no valid UTF-8.  Blanks after the text keep the positions.  *copy = NULL when there is none. */
static bal_status protect_nul(char **copy, const char *text, size_t n)
{
    bool inside = false;
    *copy = NULL;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == '"')
            inside = !inside;
        if (!inside || text[i] != '\\')
            continue;
        if (n - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0) {
            if (*copy == NULL && (*copy = bal_strndup(text, n)) == NULL)
                return BAL_ENOMEM;
            memcpy(*copy + i, "\xC0\x80\x01\x01\x01\x01", 6);
        }
        i++;
    }
    if (*copy == NULL)
        return BAL_OK;
    size_t write = 0;
    for (size_t read = 0; read < n; read++) {
        bool mark = n - read >= 6 && memcmp(*copy + read, "\xC0\x80\x01\x01\x01\x01", 6) == 0;
        (*copy)[write++] = (*copy)[read];
        if (mark) {
            (*copy)[write++] = (*copy)[read + 1];
            read += 5;
        }
    }
    memset(*copy + write, ' ', n - write);
    return BAL_OK;
}

size_t bal_json_text_bytes(char *text)
{
    size_t n = 0;
    for (const char *p = text; *p != '\0'; p++) {
        bool nul = (unsigned char)p[0] == 0xC0 && (unsigned char)p[1] == 0x80;
        text[n++] = nul ? '\0' : *p;
        p += nul;
    }
    text[n] = '\0';
    return n;
}

bool bal_json_is_real(const cJSON *number)
{
    return cJSON_IsNumber(number) && (number->type & IS_REAL) != 0;
}

const char *bal_json_digits(const cJSON *number)
{
    return cJSON_IsNumber(number) ? number->valuestring : NULL;
}

/* The number that begins at *at or after it, outside of texts; *at moves behind it.  NULL: there is none. */
static const char *next_number(const char **at, const char *end, size_t *n)
{
    bool inside = false;
    for (const char *p = *at; p < end; p++) {
        if (inside && *p == '\\')
            p++;
        else if (*p == '"')
            inside = !inside;
        else if (!inside && (*p == '-' || (*p >= '0' && *p <= '9'))) {
            for (*n = 1; p + *n < end && p[*n] != '\0' && strchr("+-.0123456789eE", p[*n]) != NULL; ++*n)
                ;
            *at = p + *n;
            return p;
        }
    }
    return NULL;
}

/* cJSON keeps a number's value only.  The numbers of the tree stand in the order of the text, so the two are gone
 * through together.  The depth is bounded by check_depth(). */
static bal_status note_numbers(cJSON *item, const char **at, const char *end) // NOLINT(misc-no-recursion)
{
    enum { SURE = 15 };
    bal_status status = BAL_OK;
    for (; item != NULL && status == BAL_OK; item = item->next) {
        if (item->child != NULL)
            status = note_numbers(item->child, at, end);
        if (!cJSON_IsNumber(item))
            continue;
        size_t n = 0;
        const char *p = next_number(at, end, &n);
        if (p == NULL)
            continue;
        if (memchr(p, '.', n) != NULL || memchr(p, 'e', n) != NULL || memchr(p, 'E', n) != NULL) {
            item->type |= IS_REAL;
        } else if (n > SURE) {
            item->valuestring = cJSON_malloc(n + 1);
            if (item->valuestring == NULL)
                return BAL_ENOMEM;
            memcpy(item->valuestring, p, n);
            item->valuestring[n] = '\0';
        }
    }
    return status;
}

static bal_status parse_safe(cJSON **out, const char *text, size_t n, const char *name)
{
    const char *end = NULL;
    cJSON *json = cJSON_ParseWithLengthOpts(text, n, &end, 0);
    size_t at = end != NULL && end >= text ? (size_t)(end - text) : 0;
    if (json != NULL) /* nothing but white space may follow */
        while (at < n && (text[at] == ' ' || text[at] == '\n' || text[at] == '\r' || text[at] == '\t'))
            at++;
    if (json == NULL || at < n) {
        size_t line, column;
        bool one_line = memchr(text, '\n', n) == NULL;
        position_of(text, at < n ? at : n, &line, &column);
        cJSON_Delete(json);
        if (one_line) /* of JSON lines: the name tells the line */
            return bal_fail(BAL_EFORMAT, "%s: not valid JSON at column %zu", name, column);
        return bal_fail(BAL_EFORMAT, "%s: not valid JSON at line %zu, column %zu", name, line, column);
    }
    const char *twice = find_duplicate(json);
    if (twice != NULL) {
        bal_status status = bal_fail(BAL_EFORMAT, "%s: key '%.80s' occurs twice in one JSON object", name, twice);
        cJSON_Delete(json);
        return status;
    }
    const char *from = text;
    if (note_numbers(json, &from, text + n) != BAL_OK) {
        cJSON_Delete(json);
        return bal_fail(BAL_ENOMEM, "out of memory: JSON");
    }
    *out = json;
    return BAL_OK;
}

bal_status bal_json_parse(cJSON **out, const char *text, size_t n, const char *name)
{
    char *safe = NULL;
    *out = NULL;
    bal_status status = check_depth(text, n, name);
    if (status == BAL_OK && memchr(text, '\0', n) != NULL) /* cJSON would cut a text there */
        status = bal_fail(BAL_EFORMAT, "%s: not valid JSON: it holds a NUL byte", name);
    if (status == BAL_OK)
        status = protect_nul(&safe, text, n);
    if (status == BAL_OK)
        status = parse_safe(out, safe != NULL ? safe : text, n, name);
    bal_free(safe);
    return status;
}

bal_status bal_json_parse_relaxed(cJSON **out, const char *text, size_t n, const char *name)
{
    *out = NULL;
    char *copy = bal_strndup(text, n);
    if (copy == NULL)
        return BAL_ENOMEM;
    size_t comma = SIZE_MAX; /* place of a comma after which only white space and comments came */
    bool inside = false;
    for (size_t i = 0; i < n; i++) {
        char c = copy[i];
        if (inside) {
            if (c == '\\')
                i++;
            else if (c == '"')
                inside = false;
            continue;
        }
        if (c == '#' || (c == '/' && i + 1 < n && copy[i + 1] == '/')) {
            for (; i < n && copy[i] != '\n'; i++)
                copy[i] = ' '; /* blanks keep the positions of errors */
            continue;
        }
        if ((c == ']' || c == '}') && comma != SIZE_MAX)
            copy[comma] = ' ';
        if (c == ',')
            comma = i;
        else if (c != ' ' && c != '\n' && c != '\r' && c != '\t')
            comma = SIZE_MAX;
        inside = c == '"';
    }
    bal_status status = bal_json_parse(out, copy, n, name);
    bal_free(copy);
    return status;
}

bal_status bal_json_read(cJSON **out, const char *path, size_t max_bytes)
{
    bal_buf text = {.limit = max_bytes + 1};
    *out = NULL;
    bal_status status = bal_file_read(path, max_bytes, &text);
    if (status == BAL_OK)
        status = bal_json_parse(out, bal_buf_cstr(&text), text.len, path);
    bal_buf_dispose(&text);
    return status;
}

const cJSON *bal_json_member(const cJSON *object, const char *key)
{
    const cJSON *m = cJSON_GetObjectItemCaseSensitive(object, key);
    return m == NULL || cJSON_IsNull(m) ? NULL : m;
}

static const char *type_name(const cJSON *v)
{
    if (cJSON_IsString(v))
        return "a text";
    if (cJSON_IsNumber(v))
        return "a number";
    if (cJSON_IsBool(v))
        return "true or false";
    return cJSON_IsArray(v) ? "a list" : "an object";
}

static bal_status wrong_type(const char *where, const char *key, const char *wanted, const cJSON *v)
{
    return bal_fail(BAL_EFORMAT, "%s: key '%s' must be %s, not %s", where, key, wanted, type_name(v));
}

bal_status bal_json_f64(const cJSON *object, const char *where, const char *key, double *out, bool *found)
{
    const cJSON *v = bal_json_member(object, key);
    if (found != NULL)
        *found = v != NULL;
    if (v == NULL)
        return BAL_OK;
    if (!cJSON_IsNumber(v))
        return wrong_type(where, key, "a number", v);
    *out = v->valuedouble;
    return BAL_OK;
}

bal_status bal_json_i64(const cJSON *object, const char *where, const char *key, int64_t min, int64_t max, int64_t *out,
                        bool *found)
{
    const cJSON *v = bal_json_member(object, key);
    if (found != NULL)
        *found = v != NULL;
    if (v == NULL)
        return BAL_OK;
    if (!cJSON_IsNumber(v))
        return wrong_type(where, key, "a whole number", v);
    if (!(v->valuedouble >= (double)min && v->valuedouble <= (double)max) || v->valuedouble != floor(v->valuedouble))
        return bal_fail(BAL_EFORMAT, "%s: key '%s' is %.17g, not a whole number in %lld .. %lld", where, key,
                        v->valuedouble, (long long)min, (long long)max);
    *out = (int64_t)v->valuedouble;
    return BAL_OK;
}

bal_status bal_json_bool(const cJSON *object, const char *where, const char *key, bool *out, bool *found)
{
    const cJSON *v = bal_json_member(object, key);
    if (found != NULL)
        *found = v != NULL;
    if (v == NULL)
        return BAL_OK;
    if (!cJSON_IsBool(v))
        return wrong_type(where, key, "true or false", v);
    *out = cJSON_IsTrue(v) != 0;
    return BAL_OK;
}

bal_status bal_json_text(const cJSON *object, const char *where, const char *key, const char **out, bool *found)
{
    const cJSON *v = bal_json_member(object, key);
    if (found != NULL)
        *found = v != NULL;
    if (v == NULL)
        return BAL_OK;
    if (!cJSON_IsString(v))
        return wrong_type(where, key, "a text", v);
    *out = v->valuestring;
    return BAL_OK;
}

bal_status bal_json_put_textn(bal_buf *b, const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    bal_status status = bal_buf_append(b, "\"", 1);
    size_t plain = 0; /* start of the run that needs no escape */
    for (size_t i = 0; i < n && status == BAL_OK;) {
        uint32_t cp = 0;
        size_t len = bal_utf8_decode(s + i, n - i, &cp);
        if (len > 0 && cp >= 0x20 && cp != '"' && cp != '\\' && cp != 0x7F) {
            i += len;
            continue;
        }
        status = bal_buf_append(b, text + plain, i - plain);
        if (status != BAL_OK)
            break;
        if (len == 0)
            status = bal_buf_text(b, "\xEF\xBF\xBD");
        else if (cp == '"' || cp == '\\')
            status = bal_buf_printf(b, "\\%c", (int)cp);
        else if (cp == '\n')
            status = bal_buf_text(b, "\\n");
        else if (cp == '\t')
            status = bal_buf_text(b, "\\t");
        else if (cp == '\r')
            status = bal_buf_text(b, "\\r");
        else
            status = bal_buf_printf(b, "\\u%04x", (unsigned)cp);
        i += len > 0 ? len : 1;
        plain = i;
    }
    if (status == BAL_OK)
        status = bal_buf_append(b, text + plain, n - plain);
    if (status == BAL_OK)
        status = bal_buf_append(b, "\"", 1);
    return status;
}

bal_status bal_json_put_text(bal_buf *b, const char *text)
{
    return text == NULL ? bal_buf_text(b, "null") : bal_json_put_textn(b, text, strlen(text));
}

bal_status bal_json_put_f64(bal_buf *b, double value)
{
    char text[40];
    if (!isfinite(value))
        return bal_buf_text(b, "null");
    if (fabs(value) < 0x1p53 && value == floor(value)) /* 1e+06 is no whole number to typed readers */
        return bal_buf_printf(b, "%.0f", value);
    for (int digits = 6; digits <= 17; digits++) {
        (void)snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    return bal_buf_text(b, text);
}

bal_status bal_json_put_real(bal_buf *b, double value)
{
    size_t before = b->len;
    bal_status status = bal_json_put_f64(b, value);
    if (status == BAL_OK && isfinite(value) && strpbrk(bal_buf_cstr(b) + before, ".e") == NULL)
        status = bal_buf_text(b, ".0");
    return status;
}

static bal_status keep_numbers(cJSON *v, const char **at, const char *end) // NOLINT(misc-no-recursion): as deep as JSON
{
    bal_status status = BAL_OK;
    size_t n = 0;
    if (cJSON_IsNumber(v)) {
        const char *from = next_number(at, end, &n);
        char *text = from != NULL ? cJSON_malloc(n + 1) : NULL;
        if (text == NULL)
            return BAL_ENOMEM;
        memcpy(text, from, n);
        text[n] = '\0';
        cJSON_free(v->valuestring); /* bal_json_digits() */
        v->valuestring = text;      /* cJSON_Delete() frees it */
        v->type = (v->type & ~0xFF) | cJSON_Raw;
    }
    for (cJSON *c = cJSON_IsArray(v) || cJSON_IsObject(v) ? v->child : NULL; c != NULL && status == BAL_OK; c = c->next)
        status = keep_numbers(c, at, end);
    return status;
}

bal_status bal_json_keep_numbers(cJSON *json, const char *text)
{
    return keep_numbers(json, &text, text + strlen(text));
}

bal_status bal_json_put_key(bal_buf *b, const char *key, bool *first)
{
    bal_status status = *first ? BAL_OK : bal_buf_text(b, ", ");
    *first = false;
    if (status == BAL_OK)
        status = bal_json_put_text(b, key);
    return status == BAL_OK ? bal_buf_text(b, ": ") : status;
}

static bal_status put_indent(bal_buf *b, bool pretty, int depth)
{
    static const char blanks[] = "\n                                                                ";
    if (!pretty)
        return BAL_OK;
    size_t n = 1 + 2 * (size_t)depth;
    return bal_buf_append(b, blanks, n < sizeof blanks ? n : sizeof blanks - 1);
}

/* A text that was parsed: its NULs, see protect_nul(), become escapes again. */
static bal_status put_parsed_text(bal_buf *b, const char *text)
{
    if (strstr(text, "\xC0\x80") == NULL)
        return bal_json_put_text(b, text);
    char *copy = bal_strdup(text);
    if (copy == NULL)
        return BAL_ENOMEM;
    bal_status status = bal_json_put_textn(b, copy, bal_json_text_bytes(copy));
    bal_free(copy);
    return status;
}

static bal_status put_scalar(bal_buf *b, const cJSON *v)
{
    if (cJSON_IsString(v))
        return put_parsed_text(b, v->valuestring);
    if (cJSON_IsNumber(v))
        return bal_json_put_f64(b, v->valuedouble);
    if (cJSON_IsBool(v))
        return bal_buf_text(b, cJSON_IsTrue(v) ? "true" : "false");
    if (cJSON_IsRaw(v))
        return bal_buf_text(b, v->valuestring);
    return bal_buf_text(b, "null");
}

/* What stands before a member's value: line break and key. */
static bal_status put_head(bal_buf *b, const cJSON *parent, const cJSON *v, bool pretty, int depth)
{
    bal_status status = put_indent(b, pretty, depth);
    if (status == BAL_OK && cJSON_IsObject(parent))
        status = put_parsed_text(b, v->string);
    if (status == BAL_OK && cJSON_IsObject(parent))
        status = bal_buf_text(b, ": ");
    return status;
}

static bal_status put_value(bal_buf *b, const cJSON *v, bool pretty, int depth) // NOLINT(misc-no-recursion)
{
    if (depth > MAX_DEPTH)
        return bal_fail(BAL_ELIMIT, "JSON to be written is nested deeper than %d", MAX_DEPTH);
    if (!cJSON_IsArray(v) && !cJSON_IsObject(v))
        return put_scalar(b, v);
    bool object = cJSON_IsObject(v) != 0;
    bal_status status = bal_buf_text(b, object ? "{" : "[");
    for (const cJSON *c = v->child; c != NULL && status == BAL_OK; c = c->next) {
        status = put_head(b, v, c, pretty, depth + 1);
        if (status == BAL_OK)
            status = put_value(b, c, pretty, depth + 1);
        if (status == BAL_OK && c->next != NULL)
            status = bal_buf_text(b, pretty ? "," : ", ");
    }
    if (status == BAL_OK && v->child != NULL)
        status = put_indent(b, pretty, depth);
    return status == BAL_OK ? bal_buf_text(b, object ? "}" : "]") : status;
}

bal_status bal_json_put(bal_buf *b, const cJSON *value, bool pretty)
{
    return put_value(b, value, pretty, 0);
}
