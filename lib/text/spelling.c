/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/spelling.h"

#include <string.h>

enum { LONGEST_WINDOW = 8, BEFORE_FIRST = 4 };

/* n without the replacement characters at the end. */
static size_t without_broken(const char *text, size_t n)
{
    while (n >= 3 && memcmp(text + n - 3, "\xef\xbf\xbd", 3) == 0)
        n -= 3;
    return n;
}

size_t bal_text_settled(const char *text, size_t n, const char *const *stops, size_t n_stops, bool *stopped)
{
    size_t end = n;
    *stopped = false;
    for (size_t i = 0; i < n_stops; i++) {
        size_t m = strlen(stops[i]);
        const char *hit = m == 0 ? NULL : memmem(text, end, stops[i], m);
        if (hit != NULL) {
            end = (size_t)(hit - text);
            *stopped = true;
        }
    }
    if (*stopped)
        return end;
    end = without_broken(text, end);
    size_t whole = end;
    for (size_t i = 0; i < n_stops; i++) {
        size_t m = strlen(stops[i]);
        for (size_t k = m > 1 ? m - 1 : 0; k > 0; k--)
            if (k <= whole && memcmp(text + whole - k, stops[i], k) == 0) {
                end = whole - k < end ? whole - k : end;
                break;
            }
    }
    return end;
}

void bal_spelling_start(bal_spelling *p, const bal_tokenizer *t, const int32_t *ids, size_t n, size_t first)
{
    *p = (bal_spelling){.tokenizer = t, .ids = ids, .n = n, .next = first, .window = first, .unit = first};
    p->window -= first < BEFORE_FIRST ? first : BEFORE_FIRST;
}

/* The text of the window with id behind it, from where it is not that of the window alone; *broken: its end is an
 * incomplete character. */
static bal_status tail(bal_spelling *p, int32_t id, const char **text, size_t *n, bool *broken)
{
    bal_status status;
    bal_buf_clear(&p->before);
    bal_buf_clear(&p->with);
    BAL_TRY(bal_tokenizer_decode(p->tokenizer, p->ids + p->window, p->next - p->window, false, &p->before));
    int32_t few[LONGEST_WINDOW + 1];
    size_t m = p->next - p->window;
    if (m > 0)
        memcpy(few, p->ids + p->window, m * sizeof *few);
    few[m] = id;
    BAL_TRY(bal_tokenizer_decode(p->tokenizer, few, m + 1, false, &p->with));
    size_t same = without_broken(bal_buf_cstr(&p->before), p->before.len);
    if (same > p->with.len || memcmp(bal_buf_cstr(&p->before), bal_buf_cstr(&p->with), same) != 0) {
        bal_buf_clear(&p->with); /* its text depends on more: alone, then */
        same = 0;
        BAL_TRY(bal_tokenizer_decode(p->tokenizer, &id, 1, false, &p->with));
    }
    *text = bal_buf_cstr(&p->with) + same;
    *n = p->with.len - same;
    *broken = without_broken(*text, *n) != *n;
out:
    return status;
}

bal_status bal_spelling_try(bal_spelling *p, int32_t id, bal_buf *out)
{
    const char *text = NULL;
    size_t n = 0;
    bool broken = false;
    bal_buf_clear(out);
    bal_status status = tail(p, id, &text, &n, &broken);
    return status == BAL_OK ? bal_buf_append(out, text, n) : status;
}

bal_status bal_spelling_next(bal_spelling *p, bal_buf *out)
{
    const char *text = NULL;
    size_t n = 0;
    bool broken = false;
    bal_buf_clear(out);
    if (p->next >= p->n)
        return BAL_OK;
    bal_status status = tail(p, p->ids[p->next], &text, &n, &broken);
    if (status != BAL_OK)
        return status;
    bool last = p->next + 1 == p->n;
    p->next++;
    if (!broken) { /* the next token is decoded behind the whole of this character */
        p->window = p->unit;
        p->unit = p->next;
    } else if (!last) {
        n = without_broken(text, n);
    }
    if (p->next - p->window > LONGEST_WINDOW - 1)
        p->window = p->unit = p->next - 1;
    return bal_buf_append(out, text, n);
}

void bal_spelling_dispose(bal_spelling *p)
{
    bal_buf_dispose(&p->before);
    bal_buf_dispose(&p->with);
}
