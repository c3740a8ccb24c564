/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/spaces.h"

#include "lib/text/tokenizer_impl.h"

#include <stdbool.h>
#include <stdint.h>
#include <utf8proc.h>

/* White_Space of Unicode and the four separators of ASCII. */
static bool is_space(uint32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

size_t bal_space_first(const char *s, size_t n)
{
    uint32_t c = 0;
    size_t k = bal_utf8_decode((const unsigned char *)s, n, &c);
    return k > 0 && is_space(c) ? k : 0;
}

/* Bytes of the last character of s[0..n), n > 0; *c: the character, or a number that is none. */
static size_t last(const char *s, size_t n, uint32_t *c)
{
    size_t k = 1;
    while (k < n && k < 4 && ((unsigned char)s[n - k] & 0xc0U) == 0x80U)
        k++;
    if (bal_utf8_decode((const unsigned char *)s + (n - k), k, c) == k)
        return k;
    *c = UINT32_MAX;
    return 1;
}

size_t bal_space_last(const char *s, size_t n)
{
    uint32_t c = 0;
    size_t k = n == 0 ? 0 : last(s, n, &c);
    return k > 0 && is_space(c) ? k : 0;
}

void bal_strip_left(const char **s, size_t *n)
{
    for (size_t k; (k = bal_space_first(*s, *n)) > 0; *n -= k)
        *s += k;
}

void bal_strip_right(const char *s, size_t *n)
{
    for (size_t k; (k = bal_space_last(s, *n)) > 0;)
        *n -= k;
}

void bal_strip(const char **s, size_t *n)
{
    bal_strip_left(s, n);
    bal_strip_right(*s, n);
}

/* Letters with case, and the characters that case passes over (CPython's rule for the final sigma). */
static bool has_case(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_LU || k == UTF8PROC_CATEGORY_LL || k == UTF8PROC_CATEGORY_LT;
}

static bool is_passed_over(uint32_t c)
{
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK || c == '\'' || c == '.' || c == ':' || c == 0xb7 ||
           c == 0x387 || c == 0x55f || c == 0x5f4 || c == 0x2018 || c == 0x2019 || c == 0x2024 || c == 0x2027 ||
           c == 0xfe13 || c == 0xfe52 || c == 0xfe55 || c == 0xff07 || c == 0xff0e || c == 0xff1a;
}

static bool ends_word(const char *s, size_t n, size_t at, size_t width)
{
    uint32_t c = UINT32_MAX;
    size_t i = at, k;
    while (i > 0) {
        i -= last(s, i, &c);
        if (c == UINT32_MAX || !is_passed_over(c))
            break;
        c = UINT32_MAX;
    }
    if (c == UINT32_MAX || !has_case(c))
        return false;
    for (i = at + width; i < n; i += k) {
        k = bal_utf8_decode((const unsigned char *)s + i, n - i, &c);
        if (k == 0 || !is_passed_over(c))
            return k == 0 || !has_case(c);
    }
    return true;
}

bal_status bal_lower(const char *s, size_t n, bal_buf *out)
{
    unsigned char bytes[8];
    bal_status status = BAL_OK;
    for (size_t i = 0, k; i < n && status == BAL_OK; i += k) {
        uint32_t c = 0;
        k = bal_utf8_decode((const unsigned char *)s + i, n - i, &c);
        if (k == 0) {
            k = 1;
            status = bal_buf_append(out, s + i, 1);
        } else if (c == 0x3a3) {
            status = bal_buf_text(out, ends_word(s, n, i, k) ? "\xcf\x82" : "\xcf\x83");
        } else {
            status = bal_buf_append(out, bytes, bal_put_lower(c, bytes));
        }
    }
    return status;
}
