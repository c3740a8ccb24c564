/* Sets of characters that components of tokenizers name.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/char_sets.h"
#include "lib/text/tokenizer_impl.h"

#include <utf8proc.h>

static bool is_in(const char_range *r, size_t n, uint32_t cp)
{
    size_t low = 0, high = n;
    while (low < high) { /* the first range that ends at cp or behind it */
        size_t mid = low + (high - low) / 2;
        if (r[mid].last < cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low < n && r[low].first <= cp;
}
#define IN(SET, CP) is_in(SET, sizeof(SET) / sizeof *(SET), CP)

bool bal_is_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || cp == 0x20 || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F ||
           cp == 0x3000;
}

bool bal_is_other(uint32_t cp)
{
    return cp == 0 || IN(k_other, cp);
}

bool bal_is_punctuation(uint32_t cp)
{
    return IN(k_punctuation, cp);
}

bool bal_is_mark(uint32_t cp)
{
    return cp >= 0x300 && IN(k_marks, cp);
}

bool bal_is_mark_nonspacing(uint32_t cp)
{
    return cp >= 0x300 && IN(k_marks_nonspacing, cp);
}

bool bal_has_no_normal_form(uint32_t cp)
{
    return cp >= 0x7FD && IN(k_no_normal_form, cp);
}

bool bal_is_numeric(uint32_t cp)
{
    static const char_range added[] = {{0x10D40, 0x10D49}, {0x116D0, 0x116E3}, {0x11BF0, 0x11BF9},
                                       {0x11DE0, 0x11DE9}, {0x16130, 0x16139}, {0x16D70, 0x16D79},
                                       {0x16FF4, 0x16FF6}, {0x1CCF0, 0x1CCF9}, {0x1E5F1, 0x1E5FA}};
    if (cp < 0x80)
        return cp >= '0' && cp <= '9';
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return (c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO) || IN(added, cp);
}

bool bal_is_cjk(uint32_t cp)
{
    return (cp >= 0x4E00 && cp <= 0x9FFF) || (cp >= 0x3400 && cp <= 0x4DBF) || (cp >= 0x20000 && cp <= 0x2A6DF) ||
           (cp >= 0x2A700 && cp <= 0x2B81F) || (cp >= 0x2B920 && cp <= 0x2CEAF) || (cp >= 0xF900 && cp <= 0xFAFF) ||
           (cp >= 0x2F800 && cp <= 0x2FA1F);
}

size_t bal_put_lower(uint32_t cp, unsigned char out[8])
{
    if (cp < 0x80) {
        out[0] = (unsigned char)(cp >= 'A' && cp <= 'Z' ? cp + 32 : cp);
        return 1;
    }
    if (cp == 0x130) { /* the one letter whose lower case is two characters */
        out[0] = 'i';
        return 1 + bal_utf8_encode(0x307, out + 1);
    }
    for (size_t i = 0; i < sizeof k_new_capitals / sizeof *k_new_capitals; i++)
        if (cp >= k_new_capitals[i].first && cp <= k_new_capitals[i].last)
            return bal_utf8_encode((uint32_t)((int32_t)cp + k_new_capitals[i].shift), out);
    return bal_utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), out);
}
