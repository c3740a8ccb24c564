/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/math_text.h"

#include "lib/text/spaces.h"

#include <string.h>

static size_t occurrences(const char *text, const char *part)
{
    size_t n = 0;
    for (const char *p = strstr(text, part); p != NULL; p = strstr(p + strlen(part), part))
        n++;
    return n;
}

/* Bytes of the character at p (1 for a byte that is no UTF-8). */
static size_t width(const char *p)
{
    uint32_t cp = 0;
    size_t n = *p == '\0' ? 0 : bal_utf8_decode((const unsigned char *)p, strnlen(p, 4), &cp);
    return n == 0 && *p != '\0' ? 1 : n;
}

/* \sqrt2 -> \sqrt{2}: the next character is the argument; raises where there is none. */
static bal_status fix_sqrt(bal_buf *b, bool *raised)
{
    bal_buf out = {0};
    const char *p = bal_buf_cstr(b), *hit;
    bal_status status = BAL_OK;
    while ((hit = strstr(p, "\\sqrt")) != NULL) {
        BAL_TRY(bal_buf_append(&out, p, (size_t)(hit - p) + 5));
        p = hit + 5;
        size_t n = width(p);
        if (n == 0 || strncmp(p, "\\sqrt", 5) == 0) { /* nothing before the next one or the end */
            *raised = true;
            goto out;
        }
        if (*p != '{') {
            BAL_TRY(bal_buf_printf(&out, "{%.*s}", (int)n, p));
            p += n;
        }
    }
    BAL_TRY(bal_buf_text(&out, p));
    bal_buf old = *b;
    *b = out;
    out = old;
out:
    bal_buf_dispose(&out);
    return status;
}

/* \frac12 -> \frac{1}{2}, \frac1{72} -> \frac{1}{72}; unchanged as a whole where a \frac has one character only;
 * raises where it has none. */
static bal_status fix_fracs(bal_buf *b, bool *raised)
{
    bal_buf out = {0};
    const char *p = bal_buf_cstr(b), *hit;
    bal_status status = BAL_OK;
    while ((hit = strstr(p, "\\frac")) != NULL) {
        BAL_TRY(bal_buf_append(&out, p, (size_t)(hit - p) + 5));
        p = hit + 5;
        const char *next = strstr(p, "\\frac"), *end = next == NULL ? p + strlen(p) : next;
        if (p == end) {
            *raised = true;
            goto out;
        }
        if (*p == '{')
            continue;
        size_t first = width(p);
        if (p + first == end)
            goto out; /* as it was */
        size_t second = width(p + first);
        if (p[first] == '{')
            BAL_TRY(bal_buf_printf(&out, "{%.*s}", (int)first, p));
        else
            BAL_TRY(bal_buf_printf(&out, "{%.*s}{%.*s}", (int)first, p, (int)second, p + first));
        p += first + (p[first] == '{' ? 0 : second);
    }
    BAL_TRY(bal_buf_text(&out, p));
    bal_buf old = *b;
    *b = out;
    out = old;
out:
    bal_buf_dispose(&out);
    return status;
}

/* Whether Python's int() takes text[0..n): spaces around, a sign, digits with single underscores between; *plain:
 * whether it is also what str() writes. */
static bool is_int(const char *text, size_t n, bool *plain)
{
    size_t i = 0, digits = 0;
    while (n > 0 && (text[n - 1] == ' ' || (text[n - 1] >= '\t' && text[n - 1] <= '\r'))) {
        n--;
        *plain = false;
    }
    for (; i < n && (text[i] == ' ' || (text[i] >= '\t' && text[i] <= '\r')); i++)
        *plain = false;
    if (i < n && (text[i] == '-' || text[i] == '+')) {
        if (text[i] == '+')
            *plain = false;
        i++;
    }
    size_t start = i;
    for (; i < n; i++) {
        if (text[i] >= '0' && text[i] <= '9') {
            digits++;
        } else if (text[i] == '_' && i > start && text[i - 1] != '_' && i + 1 < n) {
            *plain = false;
        } else {
            return false;
        }
    }
    if (digits > 1 && text[start] == '0')
        *plain = false;
    if (digits == 1 && text[start] == '0' && start > 0 && text[start - 1] == '-')
        *plain = false;
    return digits > 0;
}

static bal_status fix_slash(bal_buf *b, bal_math_form form, bool *raised)
{
    const char *text = bal_buf_cstr(b), *slash = strchr(text, '/');
    bool plain = true;
    bal_buf out = {0};
    bal_status status = BAL_OK;
    if (slash == NULL || strchr(slash + 1, '/') != NULL)
        return BAL_OK;
    if (!is_int(text, (size_t)(slash - text), &plain) || !is_int(slash + 1, strlen(slash + 1), &plain)) {
        *raised = form == BAL_MATH_LM_EVAL;
        return BAL_OK;
    }
    if (!plain)
        return BAL_OK;
    BAL_TRY(bal_buf_printf(&out, "\\frac{%.*s}{%s}", (int)(slash - text), text, slash + 1));
    bal_buf old = *b;
    *b = out;
    out = old;
out:
    bal_buf_dispose(&out);
    return status;
}

/* "x=3" -> "3" when at most two characters stand before the only "=". */
static bal_status cut_equation(bal_buf *b)
{
    const char *text = bal_buf_cstr(b), *sign = strchr(text, '=');
    size_t characters = 0;
    bal_buf out = {0};
    if (sign == NULL || strchr(sign + 1, '=') != NULL)
        return BAL_OK;
    for (const char *p = text; p < sign; p += width(p))
        characters++;
    if (characters > 2)
        return BAL_OK;
    bal_status status = bal_buf_text(&out, sign + 1);
    bal_buf_dispose(b);
    *b = out;
    return status;
}

bal_status bal_math_strip(const char *text, bal_math_form form, bal_buf *out, bool *raised)
{
    static const char *const first[][2] = {{"\n", ""},        {"\\!", ""},    {"\\\\", "\\"},  {"tfrac", "frac"},
                                           {"dfrac", "frac"}, {"\\left", ""}, {"\\right", ""}, {"^{\\circ}", ""},
                                           {"^\\circ", ""},   {"\\$", ""}};
    static const char unit[] = "\\text{ ";
    bal_buf b = {0};
    bal_status status;
    *raised = false;
    BAL_TRY(bal_buf_text(&b, text));
    for (size_t i = 0; i < sizeof first / sizeof first[0]; i++)
        BAL_TRY(bal_buf_replace(&b, first[i][0], first[i][1]));
    size_t units = occurrences(bal_buf_cstr(&b), unit);
    if (units > 1) {
        *raised = true;
        goto out;
    }
    if (units == 1) {
        char *at = strstr(b.data, unit);
        b.len = (size_t)(at - b.data);
        *at = '\0';
    }
    BAL_TRY(bal_buf_replace(&b, "\\%", ""));
    BAL_TRY(bal_buf_replace(&b, " .", " 0."));
    BAL_TRY(bal_buf_replace(&b, "{.", "{0."));
    if (b.len == 0)
        goto out;
    if (b.data[0] == '.') {
        bal_buf with_zero = {0};
        BAL_TRY(bal_buf_printf(&with_zero, "0%s", b.data));
        bal_buf_dispose(&b);
        b = with_zero;
    }
    BAL_TRY(cut_equation(&b));
    BAL_TRY(fix_sqrt(&b, raised));
    if (*raised)
        goto out;
    BAL_TRY(bal_buf_replace(&b, " ", ""));
    BAL_TRY(fix_fracs(&b, raised));
    if (*raised)
        goto out;
    if (strcmp(bal_buf_cstr(&b), "0.5") == 0)
        BAL_TRY(bal_buf_replace(&b, "0.5", "\\frac{1}{2}"));
    BAL_TRY(fix_slash(&b, form, raised));
    if (!*raised)
        status = bal_buf_text(out, bal_buf_cstr(&b));
out:
    bal_buf_dispose(&b);
    return status;
}

bal_status bal_math_equal_text(const char *a, const char *b, bal_math_form form, bool *equal)
{
    bal_buf x = {0}, y = {0};
    bool raised_x = false, raised_y = false;
    bal_status status;
    BAL_TRY(bal_math_strip(a, form, &x, &raised_x));
    BAL_TRY(bal_math_strip(b, form, &y, &raised_y));
    *equal = raised_x || raised_y ? strcmp(a, b) == 0 : strcmp(bal_buf_cstr(&x), bal_buf_cstr(&y)) == 0;
out:
    bal_buf_dispose(&x);
    bal_buf_dispose(&y);
    return status;
}

static const char *last_of(const char *text, const char *part)
{
    const char *last = NULL;
    for (const char *p = strstr(text, part); p != NULL; p = strstr(p + 1, part))
        last = p;
    return last;
}

bal_status bal_math_last_boxed(const char *text, bool lm_eval, bal_buf *out, bool *found)
{
    const char *at = lm_eval ? last_of(text, "\\boxed ") : NULL;
    int open = 0;
    *found = true;
    if (at != NULL) {
        const char *rest = at + 7;
        return bal_buf_printf(out, "\\boxed %.*s", (int)strcspn(rest, "$"), rest);
    }
    at = last_of(text, "\\boxed");
    if (at == NULL)
        at = last_of(text, "\\fbox");
    for (const char *p = at; p != NULL && *p != '\0'; p++) {
        open += *p == '{' ? 1 : 0;
        if (*p == '}' && --open == 0)
            return bal_buf_append(out, at, (size_t)(p - at) + 1);
    }
    *found = false;
    return BAL_OK;
}

bal_status bal_math_remove_boxed(const char *boxed, bool lm_eval, bal_buf *out, bool *found)
{
    static const char space[] = "\\boxed ", brace[] = "\\boxed{";
    size_t n = strlen(boxed);
    *found = true;
    if (lm_eval && strstr(boxed, space) != NULL) {
        *found = bal_starts_with(boxed, space);
        return *found ? bal_buf_text(out, boxed + sizeof space - 1) : BAL_OK;
    }
    *found = bal_starts_with(boxed, brace) && n > sizeof brace - 1 && boxed[n - 1] == '}';
    return *found ? bal_buf_append(out, boxed + sizeof brace - 1, n - sizeof brace) : BAL_OK;
}

bal_status bal_math_extract_hendrycks(const char *output, bal_buf *out)
{
    const char *first = strchr(output, '$'), *last = strrchr(output, '$');
    if (first == last)
        return bal_buf_text(out, output);
    return bal_buf_append(out, first + 1, (size_t)(last - first) - 1);
}

bal_status bal_math_extract_pissa(const char *output, bal_buf *out, bool *found)
{
    static const char mark[] = "The answer is: ";
    const char *at = NULL;
    *found = false;
    for (const char *p = strstr(output, mark); p != NULL; p = strstr(p + sizeof mark - 1, mark))
        at = p + sizeof mark - 1;
    if (at == NULL)
        return BAL_OK;
    const char *stop = strstr(at, ".\n");
    size_t n = stop == NULL ? strlen(at) : (size_t)(stop - at);
    *found = true;
    bal_strip(&at, &n);
    if (n > 0 && at[n - 1] == '.')
        n--;
    bal_strip(&at, &n);
    return bal_buf_append(out, at, n);
}
