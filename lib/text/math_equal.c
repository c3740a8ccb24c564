/* Answers with parts: tuples, intervals, sets, lists, unions, matrices, equations, texts.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/math_value.h"

#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/text/math_text.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { POINTS = 4, MAX_PARTS = 64, MAX_DEPTH = 8 };

/* Part of a text. */
typedef struct span {
    const char *at;
    size_t n;
} span;

static span trim(span s)
{
    while (s.n > 0 && strchr(" \n\t\r", s.at[0]) != NULL) {
        s.at++;
        s.n--;
    }
    while (s.n > 0 && strchr(" \n\t\r", s.at[s.n - 1]) != NULL)
        s.n--;
    return s;
}

static char *copy(span s)
{
    return bal_strndup(s.at, s.n);
}

/* Marks of layout, units and money are taken away. */
static bal_status clean(const char *text, bal_buf *out)
{
    static const char *const gone[] = {"\\left",   "\\right", "\\!",         "\\$",   "\\%", "$",   "\\displaystyle",
                                       "^\\circ",  "\\big",   "^{\\circ}",   "\\Big", "\\,", "\\;", "\\ ",
                                       "\\degree", "\\,",     "\\mathrm{~}", "%"};
    bal_status status = BAL_OK;
    for (const char *p = text; *p != '\0';) {
        size_t skip = 0, n = strncmp(p, "\\\\", 2) == 0 ? 2 : 1; /* the end of a row stays */
        const char *put = p;
        for (size_t i = 0; i < sizeof gone / sizeof gone[0] && skip == 0 && n == 1; i++) {
            size_t k = strlen(gone[i]);
            bool command = gone[i][0] == '\\' && strchr("tgeB", gone[i][1]) == NULL;
            bool arrow = strncmp(p, "\\leftarrow", 10) == 0 || strncmp(p, "\\rightarrow", 11) == 0;
            if (strncmp(p, gone[i], k) == 0 && !(command && arrow))
                skip = k;
        }
        if (strncmp(p, "\\text{", 6) == 0 || strncmp(p, "\\mbox{", 6) == 0) {
            const char *close = strchr(p, '}');
            bool unit = out->len > 0 && close != NULL && strncmp(p, "\\text{and}", 10) != 0; /* 5\text{ cm} */
            const char *inside = p + 6;
            if (close != NULL) {
                skip = (size_t)(close - p) + 1;
                if (!unit)
                    BAL_TRY(bal_buf_append(out, inside, (size_t)(close - inside)));
            }
        }
        if (skip == 0)
            BAL_TRY(bal_buf_append(out, put, n));
        p += skip > 0 ? skip : n;
    }
    while (out->len > 0 && (out->data[out->len - 1] == '.' || out->data[out->len - 1] == ' '))
        out->data[--out->len] = '\0';
out:
    return status;
}

/* Splits at a separator outside of brackets; a comma inside 1,000 does not count.  0 when there are too many parts. */
static size_t split(span s, const char *separator, span parts[MAX_PARTS])
{
    size_t n = 0, length = strlen(separator);
    int depth = 0;
    const char *from = s.at, *end = s.at + s.n;
    for (const char *p = s.at; p < end; p++) {
        if (*p == '(' || *p == '[' || *p == '{')
            depth++;
        else if (*p == ')' || *p == ']' || *p == '}')
            depth--;
        if (depth != 0 || (size_t)(end - p) < length || strncmp(p, separator, length) != 0)
            continue;
        if (*separator == ',' && p > s.at && p[-1] >= '0' && p[-1] <= '9' && strspn(p + 1, "0123456789") == 3)
            continue;
        if (n + 1 >= MAX_PARTS)
            return 0;
        parts[n++] = trim((span){from, (size_t)(p - from)});
        from = p + length;
        p = from - 1;
    }
    parts[n++] = trim((span){from, (size_t)(end - from)});
    return n;
}

static bool same_values(span a, span b, bal_math_notation notation, double tolerance)
{
    char *x = copy(a), *y = copy(b);
    bool equal = x != NULL && y != NULL && a.n > 0 && b.n > 0;
    for (unsigned point = 0; point < POINTS && equal; point++) {
        bal_math_value v, w;
        equal = bal_math_evaluate(x, notation, point, &v) && bal_math_evaluate(y, notation, point, &w);
        if (equal && v.exact && w.exact && tolerance < 1e-6)
            equal = v.num == w.num && v.den == w.den;
        else if (equal)
            equal = cabs(v.z - w.z) <= tolerance * fmax(cabs(v.z), cabs(w.z)) || cabs(v.z - w.z) == 0;
    }
    bal_free(x);
    bal_free(y);
    return equal;
}

static bool same(span a, span b, int depth);

/* Every part of one list has its own partner in the other. */
static bool same_set(const span *a, const span *b, size_t n, int depth)
{
    bool used[MAX_PARTS] = {false};
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < n && (used[k] || !same(a[i], b[k], depth)))
            k++;
        if (k == n)
            return false;
        used[k] = true;
    }
    return true;
}

/* "{a, b}" or "\{a, b\}" as the inside. */
static bool is_set(span s, span *inside)
{
    if (s.n >= 4 && strncmp(s.at, "\\{", 2) == 0 && strncmp(s.at + s.n - 2, "\\}", 2) == 0) {
        *inside = (span){s.at + 2, s.n - 4};
        return true;
    }
    return false;
}

static bool is_bracketed(span s, span *inside)
{
    int depth = 0;
    if (s.n < 3 || (s.at[0] != '(' && s.at[0] != '[') || (s.at[s.n - 1] != ')' && s.at[s.n - 1] != ']'))
        return false;
    for (size_t i = 0; i < s.n; i++) {
        depth += s.at[i] == '(' || s.at[i] == '[' || s.at[i] == '{' ? 1 : 0;
        depth -= s.at[i] == ')' || s.at[i] == ']' || s.at[i] == '}' ? 1 : 0;
        if (depth == 0 && i + 1 < s.n)
            return false;
    }
    *inside = (span){s.at + 1, s.n - 2};
    return true;
}

static bool is_matrix(span s, span *inside)
{
    static const char *const kinds[] = {"pmatrix", "bmatrix", "matrix", "vmatrix"};
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        size_t k = strlen(kinds[i]), head = k + 8, tail = k + 6; /* \begin{kind} \end{kind} */
        if (s.n > head + tail && strncmp(s.at, "\\begin{", 7) == 0 && strncmp(s.at + 7, kinds[i], k) == 0 &&
            strncmp(s.at + s.n - tail, "\\end{", 5) == 0) {
            *inside = (span){s.at + head, s.n - head - tail};
            return true;
        }
    }
    return false;
}

static bool same_matrix(span a, span b, int depth)
{
    span rows_a[MAX_PARTS], rows_b[MAX_PARTS], x[MAX_PARTS], y[MAX_PARTS];
    size_t n = split(a, "\\\\", rows_a), m = split(b, "\\\\", rows_b);
    if (n == 0 || n != m)
        return false;
    for (size_t i = 0; i < n; i++) {
        size_t c = split(rows_a[i], "&", x), d = split(rows_b[i], "&", y);
        if (c == 0 || c != d)
            return false;
        for (size_t k = 0; k < c; k++)
            if (!same(x[k], y[k], depth))
                return false;
    }
    return true;
}

/* The right side of "x = 3" and of "x \in A", where the left is one name. */
static span right_side(span s)
{
    static const char *const signs[] = {"=", "\\in "};
    span parts[MAX_PARTS];
    for (size_t i = 0; i < 2; i++) {
        size_t n = split(s, signs[i], parts);
        if (n == 2 && parts[0].n > 0 && parts[0].n <= 6 && parts[1].n > 0)
            return parts[1];
    }
    return s;
}

static bool same_text(span a, span b)
{
    size_t i = 0, k = 0;
    for (;;) {
        while (i < a.n && strchr(" \n\t", a.at[i]) != NULL)
            i++;
        while (k < b.n && strchr(" \n\t", b.at[k]) != NULL)
            k++;
        if (i == a.n || k == b.n)
            return i == a.n && k == b.n;
        char x = a.at[i++], y = b.at[k++];
        x = (char)(x >= 'A' && x <= 'Z' ? x - 'A' + 'a' : x);
        y = (char)(y >= 'A' && y <= 'Z' ? y - 'A' + 'a' : y);
        if (x != y)
            return false;
    }
}

/* Texts of words ("east") are compared without case; formulas ("A" and "a" differ) with it. */
static bool is_words(span s)
{
    size_t letters = 0;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.at[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && c != ' ' && c != '-')
            return false;
        letters += letter;
    }
    return letters >= 3;
}

/* a \pm b as two values. */
static bool expand_sign(span s, bal_buf out[2])
{
    span parts[MAX_PARTS];
    if (split(s, "\\pm", parts) != 2 || parts[1].n == 0)
        return false;
    for (size_t i = 0; i < 2; i++)
        if (bal_buf_printf(&out[i], "%.*s%s%.*s", (int)parts[0].n, parts[0].at, i == 0 ? "+" : "-", (int)parts[1].n,
                           parts[1].at) != BAL_OK)
            return false;
    return true;
}

static size_t list_of(span s, span parts[MAX_PARTS], bal_buf store[2])
{
    size_t n = split(s, ",", parts);
    if (n == 1 && expand_sign(s, store)) {
        for (size_t i = 0; i < 2; i++)
            parts[i] = (span){store[i].data, store[i].len};
        return 2;
    }
    return n;
}

static bool same_lists(span a, span b, int depth)
{
    span x[MAX_PARTS], y[MAX_PARTS];
    bal_buf store_a[2] = {{0}, {0}}, store_b[2] = {{0}, {0}};
    size_t n = list_of(a, x, store_a), m = list_of(b, y, store_b);
    bool equal = n > 1 && n == m && same_set(x, y, n, depth);
    for (size_t i = 0; i < 2; i++) {
        bal_buf_dispose(&store_a[i]);
        bal_buf_dispose(&store_b[i]);
    }
    return equal;
}

static bool same(span a, span b, int depth)
{
    span x[MAX_PARTS], y[MAX_PARTS], inside_a, inside_b;
    if (depth > MAX_DEPTH)
        return false;
    a = right_side(trim(a));
    b = right_side(trim(b));
    if (a.n == 0 || b.n == 0)
        return a.n == b.n;
    if (is_words(a) || is_words(b))
        return is_words(a) && is_words(b) && same_text(a, b);
    if (is_matrix(a, &inside_a) && is_matrix(b, &inside_b))
        return same_matrix(inside_a, inside_b, depth + 1);
    size_t n = split(a, "\\cup", x), m = split(b, "\\cup", y);
    if (n > 1 || m > 1)
        return n == m && same_set(x, y, n, depth + 1);
    if (is_set(a, &inside_a) && is_set(b, &inside_b)) {
        n = split(inside_a, ",", x);
        return n > 0 && n == split(inside_b, ",", y) && same_set(x, y, n, depth + 1);
    }
    bool bracket_a = is_bracketed(a, &inside_a), bracket_b = is_bracketed(b, &inside_b);
    n = bracket_a ? split(inside_a, ",", x) : 1;
    m = bracket_b ? split(inside_b, ",", y) : 1;
    if (n > 1 || m > 1) { /* a tuple or an interval: the same brackets, the parts in order */
        bool equal = n == m && a.at[0] == b.at[0] && a.at[a.n - 1] == b.at[b.n - 1];
        for (size_t i = 0; equal && i < n; i++)
            equal = same(x[i], y[i], depth + 1);
        return equal;
    }
    if (same_lists(a, b, depth + 1) || same_values(a, b, BAL_MATH_LATEX, 1e-9))
        return true;
    return a.n == b.n && memcmp(a.at, b.at, a.n) == 0;
}

bal_status bal_math_equal_value(const char *a, const char *b, bool *equal)
{
    bal_buf x = {0}, y = {0};
    bal_status status;
    BAL_TRY(bal_math_equal_text(a, b, BAL_MATH_HENDRYCKS, equal));
    if (*equal)
        goto out;
    BAL_TRY(clean(a, &x));
    BAL_TRY(clean(b, &y));
    *equal = x.len > 0 && y.len > 0 && same((span){x.data, x.len}, (span){y.data, y.len}, 0);
out:
    bal_buf_dispose(&x);
    bal_buf_dispose(&y);
    return status;
}

/* ---- math_equal of BA-LoRA ---- */

/* Python's float() of the text without commas. */
static bool read_float(const char *text, double *out)
{
    bal_buf b = {0};
    bool ok = true;
    for (const char *p = text; *p != '\0' && ok; p++)
        ok = *p == ',' || bal_buf_append(&b, p, 1) == BAL_OK;
    span s = trim((span){bal_buf_cstr(&b), b.len});
    char *copy_of = ok ? copy(s) : NULL, *end = NULL;
    ok = copy_of != NULL && s.n > 0 && strchr(copy_of, 'x') == NULL && strchr(copy_of, 'X') == NULL &&
         strchr(copy_of, '(') == NULL;
    if (ok) {
        *out = strtod(copy_of, &end);
        ok = *end == '\0';
    }
    bal_free(copy_of);
    bal_buf_dispose(&b);
    return ok;
}

static bool is_close(double a, double b, double tolerance)
{
    return a == b || fabs(a - b) <= tolerance * fmax(fabs(a), fabs(b));
}

static bool begins(span s, char open, char close)
{
    return s.n > 1 && s.at[0] == open && s.at[s.n - 1] == close;
}

/* Without [] at the ends where the reference strips them, and without {}() anywhere. */
static bal_status bare(span s, bool strip, bal_buf *out)
{
    bal_status status = BAL_OK;
    while (strip && s.n > 0 && strchr("[]()", s.at[0]) != NULL) {
        s.at++;
        s.n--;
    }
    while (strip && s.n > 0 && strchr("[]()", s.at[s.n - 1]) != NULL)
        s.n--;
    for (size_t i = 0; i < s.n; i++)
        if (strchr("{}()", s.at[i]) == NULL)
            BAL_TRY(bal_buf_append(out, s.at + i, 1));
out:
    return status;
}

static bool constant(span s, double *out)
{
    bal_math_value v, w;
    char *text = copy(s);
    bool ok = text != NULL && bal_math_evaluate(text, BAL_MATH_PYTHON, 0, &v) &&
              bal_math_evaluate(text, BAL_MATH_PYTHON, 1, &w) && v.z == w.z && cimag(v.z) == 0;
    if (ok)
        *out = creal(v.z);
    bal_free(text);
    return ok;
}

static bal_status equal_parts(span p, span r, bool *equal, int depth);

static bal_status equal_balora(const char *prediction, const char *reference, bool *equal, int depth)
{
    double x = 0, y = 0;
    bal_buf a = {0}, b = {0};
    bal_status status = BAL_OK;
    *equal = false;
    if (read_float(prediction, &x) && read_float(reference, &y)) {
        *equal = is_close(y / 100, x, 1e-4) || is_close(y, x, 1e-4) || is_close(y * 100, x, 1e-4);
        goto out;
    }
    if (*prediction == '\0' || depth > MAX_DEPTH)
        goto out;
    span p = trim((span){prediction, strlen(prediction)}), r = trim((span){reference, strlen(reference)});
    bool strip =
        (begins(p, '[', ']') && (r.n == 0 || r.at[0] != '(')) || (begins(p, '(', ')') && (r.n == 0 || r.at[0] != '['));
    BAL_TRY(bare(p, strip, &a));
    BAL_TRY(bare(r, strip, &b));
    *equal = strcmp(bal_buf_cstr(&a), bal_buf_cstr(&b)) == 0;
    bool tuples = (begins(p, '[', ']') && begins(r, '[', ']')) || (begins(p, '(', ')') && begins(r, '(', ')'));
    if (!*equal && tuples)
        BAL_TRY(equal_parts(p, r, equal, depth));
    if (!*equal)
        *equal = same_values(p, r, BAL_MATH_PYTHON, 1e-9);
    if (!*equal && constant(p, &x) && constant(r, &y))
        *equal = is_close(x, y, 1e-3);
out:
    bal_buf_dispose(&a);
    bal_buf_dispose(&b);
    return status;
}

/* The parts between commas, as Python's split(",") makes them. */
static bal_status equal_parts(span p, span r, bool *equal, int depth)
{
    const char *a = p.at + 1, *b = r.at + 1, *end_a = p.at + p.n - 1, *end_b = r.at + r.n - 1;
    bal_status status = BAL_OK;
    for (bool all = true;;) {
        const char *stop_a = memchr(a, ',', (size_t)(end_a - a)), *stop_b = memchr(b, ',', (size_t)(end_b - b));
        char *x = bal_strndup(a, (size_t)((stop_a == NULL ? end_a : stop_a) - a));
        char *y = bal_strndup(b, (size_t)((stop_b == NULL ? end_b : stop_b) - b));
        bool one = false;
        status = x == NULL || y == NULL ? BAL_ENOMEM : equal_balora(x, y, &one, depth + 1);
        bal_free(x);
        bal_free(y);
        all = all && one;
        if (status != BAL_OK || stop_a == NULL || stop_b == NULL) {
            *equal = all && stop_a == NULL && stop_b == NULL;
            return status;
        }
        a = stop_a + 1;
        b = stop_b + 1;
    }
}

bal_status bal_math_equal_balora(const char *prediction, const char *reference, bool *equal)
{
    return equal_balora(prediction, reference, equal, 0);
}
