/* Added tokens: looked for in the text before anything else is done to it.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static int by_text(const void *a, const void *b)
{
    const bal_added *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    if (order != 0)
        return order;
    return x->n != y->n ? (x->n < y->n ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

void bal_added_index(bal_added_set *s)
{
    if (s->n > 0)
        qsort(s->items, s->n, sizeof *s->items, by_text);
    size_t i = 0;
    for (unsigned b = 0; b < 256; b++) {
        s->first[b] = (uint32_t)i;
        while (i < s->n && (unsigned char)s->items[i].text[0] == b)
            i++;
    }
    s->first[256] = (uint32_t)i;
}

/* First item of [low, high), all equal in their first `depth` bytes, whose byte there is at least b; items that end
 * before that byte come first. */
static size_t lower(const bal_added_set *s, size_t low, size_t high, size_t depth, unsigned b)
{
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        const bal_added *a = &s->items[mid];
        if (a->n <= depth || (unsigned char)a->text[depth] < b)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* The longest item that text[0..n) begins with; NULL: none.  The sorted list is narrowed byte by byte, so the work does
 * not grow with the number of tokens that begin alike. */
static const bal_added *longest(const bal_added_set *s, const char *text, size_t n)
{
    const bal_added *best = NULL;
    size_t low = s->first[(unsigned char)text[0]], high = s->first[(unsigned char)text[0] + 1];
    for (size_t depth = 1; low < high; depth++) {
        if (s->items[low].n == depth)
            best = &s->items[low];
        if (depth >= n)
            break;
        unsigned b = (unsigned char)text[depth];
        low = lower(s, low, high, depth, b);
        high = lower(s, low, high, depth, b + 1);
    }
    return best;
}

/* Letters, marks, decimal digits, letter-like numbers and symbols, connectors, joiners. */
static bool is_word(uint32_t cp)
{
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if ((cp >= 0x24B6 && cp <= 0x24E9) || (cp >= 0x1F130 && cp <= 0x1F149) || (cp >= 0x1F150 && cp <= 0x1F169) ||
        (cp >= 0x1F170 && cp <= 0x1F189) || cp == 0x200C || cp == 0x200D)
        return true;
    return (c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_NL) || c == UTF8PROC_CATEGORY_PC;
}

/* The character that ends at text[at), its length; 0 at the beginning. */
static size_t char_before(const char *text, size_t at, uint32_t *cp)
{
    size_t i = at;
    while (i > 0 && ((unsigned char)text[--i] & 0xC0) == 0x80)
        ;
    return at > 0 ? bal_utf8_decode((const unsigned char *)text + i, at - i, cp) : 0;
}

static bool word_before(const char *text, size_t at)
{
    uint32_t cp = 0;
    return char_before(text, at, &cp) > 0 && is_word(cp);
}

static bool word_after(const char *text, size_t n, size_t at)
{
    uint32_t cp = 0;
    return bal_utf8_decode((const unsigned char *)text + at, n - at, &cp) > 0 && is_word(cp);
}

const bal_added *bal_added_find(const bal_added_set *s, const char *text, size_t n, bal_added_scan *scan)
{
    for (size_t i = scan->at; s->n > 0 && i < n; i++) {
        unsigned char b = (unsigned char)text[i];
        if (s->first[b] == s->first[b + 1])
            continue;
        const bal_added *a = longest(s, text + i, n - i);
        if (a == NULL)
            continue;
        size_t begin = i, end = i + a->n, len;
        i = end - 1; /* the next search begins behind the token, also when it is refused here */
        if (a->single_word && (word_before(text, begin) || word_after(text, n, end)))
            continue;
        scan->at = end;
        uint32_t cp = 0;
        while (a->lstrip && begin > scan->done && (len = char_before(text, begin, &cp)) > 0 && bal_is_space(cp))
            begin -= len;
        if (a->rstrip && end < scan->done) /* white space that the token before took in */
            end = scan->done;
        while (a->rstrip && (len = bal_space_at(text + end, n - end)) > 0)
            end += len;
        if (a->lstrip && begin <= scan->done) {
            begin = scan->done;
            if (begin >= end) { /* the token before took all of it as white space beside it */
                scan->done = end;
                continue;
            }
        }
        scan->from = scan->done;
        scan->begin = begin > scan->done ? begin : scan->done;
        scan->done = end;
        return a;
    }
    scan->from = scan->done < n ? scan->done : n;
    scan->begin = n;
    return NULL;
}
