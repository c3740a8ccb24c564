/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/str.h"

#include "lib/base/mem.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bal_status buf_reserve(bal_buf *b, size_t more)
{
    size_t limit = b->limit != 0 ? b->limit : (size_t)1 << 31;
    size_t need;
    if (!bal_add_size(b->len, more, &need) || need > limit)
        return bal_fail(BAL_ELIMIT, "text of more than %zu bytes", limit);
    if (need + 1 <= b->cap)
        return BAL_OK;
    size_t cap = b->cap < 64 ? 64 : b->cap;
    while (cap < need + 1)
        cap *= 2;
    char *data = bal_realloc(b->data, cap, 1);
    if (data == NULL)
        return BAL_ENOMEM;
    b->data = data;
    b->cap = cap;
    return BAL_OK;
}

bal_status bal_buf_append(bal_buf *b, const void *bytes, size_t n_bytes)
{
    bal_status status = buf_reserve(b, n_bytes);
    if (status != BAL_OK)
        return status;
    if (n_bytes > 0)
        memcpy(b->data + b->len, bytes, n_bytes);
    b->len += n_bytes;
    b->data[b->len] = '\0';
    return BAL_OK;
}

bal_status bal_buf_text(bal_buf *b, const char *text)
{
    return bal_buf_append(b, text, strlen(text));
}

bal_status bal_buf_put_replaced(bal_buf *b, const char *text, size_t n, const char *from, const char *to)
{
    size_t skip = strlen(from);
    const char *end = text + n, *hit;
    bal_status status;
    while ((hit = memmem(text, (size_t)(end - text), from, skip)) != NULL) {
        BAL_TRY(bal_buf_append(b, text, (size_t)(hit - text)));
        BAL_TRY(bal_buf_text(b, to));
        text = hit + skip;
    }
    status = bal_buf_append(b, text, (size_t)(end - text));
out:
    return status;
}

bal_status bal_buf_replace(bal_buf *b, const char *from, const char *to)
{
    bal_buf next = {.limit = b->limit};
    if (strstr(bal_buf_cstr(b), from) == NULL)
        return BAL_OK;
    bal_status status = bal_buf_put_replaced(&next, b->data, b->len, from, to);
    if (status == BAL_OK) {
        bal_buf old = *b;
        *b = next;
        next = old;
    }
    bal_buf_dispose(&next);
    return status;
}

bal_status bal_buf_printf(bal_buf *b, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    bal_status status = n < 0 ? bal_fail(BAL_EINVAL, "text cannot be formatted") : buf_reserve(b, (size_t)n);
    if (status == BAL_OK) {
        (void)vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return status;
}

void bal_buf_clear(bal_buf *b)
{
    b->len = 0;
    if (b->data != NULL)
        b->data[0] = '\0';
}

void bal_buf_dispose(bal_buf *b)
{
    bal_free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}

const char *bal_buf_cstr(const bal_buf *b)
{
    return b->data == NULL ? "" : b->data;
}

bal_status bal_parse_i64(const char *text, int64_t min, int64_t max, int64_t *out)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno == ERANGE)
        return bal_fail(BAL_EINVAL, "'%.60s' is not a whole number", text);
    if (value < min || value > max)
        return bal_fail(BAL_EINVAL, "%lld is outside %lld .. %lld", value, (long long)min, (long long)max);
    *out = value;
    return BAL_OK;
}

bal_status bal_parse_f64(const char *text, double min, double max, double *out)
{
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || *end != '\0')
        return bal_fail(BAL_EINVAL, "'%.60s' is not a number", text);
    if (!(value >= min && value <= max))
        return bal_fail(BAL_EINVAL, "%g is outside %g .. %g", value, min, max);
    *out = value;
    return BAL_OK;
}

static size_t min3(size_t a, size_t b, size_t c)
{
    size_t m = a < b ? a : b;
    return m < c ? m : c;
}

static size_t edit_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    size_t la = strlen(a), lb = strlen(b);
    size_t row[MAX + 1];
    if (la > MAX || lb > MAX)
        return MAX;
    for (size_t j = 0; j <= lb; j++)
        row[j] = j;
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t up = row[j];
            row[j] = min3(up + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1]));
            diagonal = up;
        }
    }
    return row[lb];
}

const char *bal_nearest(const char *name, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t best_distance = strlen(name) / 3 + 2;
    for (size_t i = 0; i < n; i++) {
        size_t d = edit_distance(name, names[i]);
        if (d < best_distance) {
            best_distance = d;
            best = names[i];
        }
    }
    return best;
}

char *bal_path_join(const char *dir, const char *name)
{
    if (dir == NULL || dir[0] == '\0' || name[0] == '/')
        return bal_strdup(name);
    size_t bytes = strlen(dir) + strlen(name) + 2;
    char *path = bal_alloc(bytes, 1);
    if (path != NULL)
        (void)snprintf(path, bytes, "%s%s%s", dir, bal_ends_with(dir, "/") ? "" : "/", name);
    return path;
}

char *bal_path_dir(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return bal_strdup(".");
    return bal_strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

bool bal_starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

bool bal_ends_with(const char *text, const char *suffix)
{
    size_t lt = strlen(text), ls = strlen(suffix);
    return lt >= ls && memcmp(text + lt - ls, suffix, ls) == 0;
}

size_t bal_utf8_decode(const unsigned char *s, size_t n, uint32_t *cp)
{
    if (n == 0)
        return 0;
    if (s[0] < 0x80) {
        *cp = s[0];
        return 1;
    }
    size_t len = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
    if (s[0] < 0xC2 || s[0] > 0xF4 || len > n)
        return 0;
    uint32_t value = s[0] & (0xFFU >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80)
            return 0;
        value = value << 6 | (s[i] & 0x3FU);
    }
    if ((len == 3 && (value < 0x800 || (value >= 0xD800 && value <= 0xDFFF))) ||
        (len == 4 && (value < 0x10000 || value > 0x10FFFF)))
        return 0;
    *cp = value;
    return len;
}

size_t bal_utf8_encode(uint32_t cp, unsigned char out[4])
{
    if (cp < 0x80) {
        out[0] = (unsigned char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (unsigned char)(0xC0 | cp >> 6);
        out[1] = (unsigned char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (unsigned char)(0xE0 | cp >> 12);
        out[1] = (unsigned char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (unsigned char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (unsigned char)(0xF0 | cp >> 18);
    out[1] = (unsigned char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (unsigned char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (unsigned char)(0x80 | (cp & 0x3F));
    return 4;
}
