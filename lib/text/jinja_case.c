/* The cases of letters, and what characters are, as Python's str has them.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/case_sets.h"
#include "lib/text/jinja_impl.h"

#include <string.h>
#include <utf8proc.h>

static bool is_in(const case_range *set, size_t n, uint32_t cp)
{
    for (size_t i = 0; i < n && set[i].first <= cp; i++)
        if (cp <= set[i].last)
            return true;
    return false;
}
#define IN(SET, CP) is_in(SET, sizeof(SET) / sizeof *(SET), CP)

static utf8proc_category_t category(uint32_t cp)
{
    return utf8proc_category((utf8proc_int32_t)cp);
}

static bool is_small(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_LL || IN(k_small, cp);
}

static bool is_large(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_LU || IN(k_large, cp);
}

static bool is_cased(uint32_t cp)
{
    return category(cp) == UTF8PROC_CATEGORY_LT || is_small(cp) || is_large(cp);
}

static bool is_letter(uint32_t cp)
{
    return category(cp) >= UTF8PROC_CATEGORY_LU && category(cp) <= UTF8PROC_CATEGORY_LO;
}

bool bal_j_is_class(uint32_t cp, char class)
{
    utf8proc_category_t c = category(cp);
    bool decimal = c == UTF8PROC_CATEGORY_ND;
    bool number = decimal || c == UTF8PROC_CATEGORY_NL || c == UTF8PROC_CATEGORY_NO || IN(k_numbers, cp);
    switch (class) {
    case 'd':
        return decimal;
    case 'D':
        return decimal || IN(k_digits, cp);
    case 'n':
        return number;
    case 'a':
        return is_letter(cp);
    case 'l':
        return is_small(cp);
    case 'u':
        return is_large(cp);
    case 't':
        return c == UTF8PROC_CATEGORY_LT;
    default: /* w: of a word */
        return is_letter(cp) || number;
    }
}

static void put_code_point(bal_jinja *r, bal_buf *b, uint32_t cp)
{
    unsigned char bytes[4];
    bal_j_append(r, b, (const char *)bytes, bal_utf8_encode(cp, bytes));
}

static void put_large(bal_jinja *r, bal_buf *b, uint32_t cp, bool title)
{
    for (size_t i = 0; cp >= 0xDF && i < sizeof k_long_capitals / sizeof *k_long_capitals; i++)
        if (k_long_capitals[i].cp == cp) {
            const char *text = title ? k_long_capitals[i].title : k_long_capitals[i].upper;
            bal_j_append(r, b, text, strlen(text));
            return;
        }
    utf8proc_int32_t c = (utf8proc_int32_t)cp;
    put_code_point(r, b, (uint32_t)(title ? utf8proc_totitle(c) : utf8proc_toupper(c)));
}

static bool is_ignorable(uint32_t cp)
{
    utf8proc_category_t c = category(cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF ||
           c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK || IN(k_ignorable, cp);
}

/* Whether the sigma at text[at] ends a word of text[begin..end): a letter with case stands before it and none behind
 * it, marks and the like apart. */
static bool sigma_is_final(bal_jinja *r, const char *text, size_t begin, size_t at, size_t end)
{
    uint32_t cp = 0;
    size_t i = at;
    bool before = false;
    while (i > begin && bal_j_charge(r, 0)) {
        while (((unsigned char)text[--i] & 0xC0) == 0x80 && i > begin)
            ;
        (void)bal_utf8_decode((const unsigned char *)text + i, at - i, &cp);
        if (!is_ignorable(cp)) {
            before = is_cased(cp);
            break;
        }
    }
    for (i = at + 2; before && i < end && bal_j_charge(r, 0);) {
        size_t m = bal_utf8_decode((const unsigned char *)text + i, end - i, &cp);
        if (!is_ignorable(cp))
            return !is_cased(cp);
        i += m == 0 ? 1 : m;
    }
    return before;
}

/* The small letter of the one at text[at]; its word lies in text[begin..end). */
static void put_small(bal_jinja *r, bal_buf *b, uint32_t cp, const char *text, size_t begin, size_t at, size_t end)
{
    if (cp == 0x130)
        bal_j_append(r, b, "i\xCC\x87", 3);
    else if (cp == 0x3A3)
        put_code_point(r, b, sigma_is_final(r, text, begin, at, end) ? 0x3C2 : 0x3C3);
    else
        put_code_point(r, b, (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp));
}

static void put_folded(bal_jinja *r, bal_buf *b, uint32_t cp)
{
    utf8proc_int32_t parts[8];
    int bound = 0;
    utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)cp, parts, 8, UTF8PROC_CASEFOLD, &bound);
    for (utf8proc_ssize_t i = 0; i < n && i < 8; i++)
        put_code_point(r, b, (uint32_t)parts[i]);
}

static size_t char_at(bal_jvalue v, size_t at, uint32_t *cp)
{
    size_t m = bal_utf8_decode((const unsigned char *)v.u.text + at, v.n - at, cp);
    return m == 0 ? 1 : m;
}

/* The filter title: stretches of white space, - ( [ { < stand for themselves, what is between them is a word. */
static bool parts_words(uint32_t cp)
{
    return bal_j_space(cp) || (cp > 0 && cp < 0x80 && strchr("-([{<", (int)cp) != NULL);
}

static void title_words(bal_jinja *r, bal_buf *b, bal_jvalue v)
{
    uint32_t cp = 0;
    for (size_t i = 0; i < v.n && r->status == BAL_OK;) {
        size_t first = i + char_at(v, i, &cp), end = first;
        bool apart = parts_words(cp);
        uint32_t begin = cp;
        while (end < v.n) {
            size_t m = char_at(v, end, &cp);
            if (parts_words(cp) != apart)
                break;
            end += m;
        }
        put_large(r, b, begin, false);
        for (i = first; i < end && r->status == BAL_OK;) {
            size_t m = char_at(v, i, &cp);
            put_small(r, b, cp, v.u.text, first, i, end);
            i += m;
        }
    }
}

bal_jvalue bal_j_case(bal_jinja *r, bal_jvalue v, char how)
{
    bal_buf b = {0};
    bool in_word = false;
    if (how == 'T')
        title_words(r, &b, v);
    for (size_t i = 0; how != 'T' && i < v.n && r->status == BAL_OK;) {
        uint32_t cp = 0xFFFD;
        size_t m = char_at(v, i, &cp);
        bool large = how == 'u' || (how == 's' ? is_small(cp) : how != 'l' && !in_word);
        if (how == 'f')
            put_folded(r, &b, cp);
        else if (how == 's' && !large && !is_large(cp))
            put_code_point(r, &b, cp);
        else if (large)
            put_large(r, &b, cp, how == 't' || how == 'c');
        else
            put_small(r, &b, cp, v.u.text, 0, i, v.n);
        in_word = how == 't' ? is_cased(cp) : true;
        i += m;
    }
    return bal_j_take_buf(r, &b);
}
