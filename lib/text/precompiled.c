/* The normalizer that SentencePiece compiles into a table: a double-array trie of byte strings (as Darts-clone lays it
 * out) whose values are offsets into a list of NUL-terminated replacements.  File: bytes of the trie, 4 bytes
 * little-endian; its units, 4 bytes each; the replacements.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <string.h>
#include <utf8proc.h>

struct bal_charsmap {
    uint32_t *units;
    char *texts; /* ends with a NUL */
    size_t n_units, n_texts;
};

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+'             ? 62
           : c == '/'             ? 63
                                  : -1;
}

static bal_status read_base64(const char *text, size_t n, unsigned char *out, size_t *n_out)
{
    uint32_t bits = 0;
    unsigned have = 0;
    *n_out = 0;
    while (n > 0 && text[n - 1] == '=')
        n--;
    for (size_t i = 0; i < n; i++) {
        int v = base64_value(text[i]);
        if (v < 0)
            return bal_fail(BAL_EFORMAT, "precompiled_charsmap is no base64 at character %zu", i + 1);
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[(*n_out)++] = (unsigned char)(bits >> have);
        }
    }
    return BAL_OK;
}

static uint32_t unit_at(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

bal_status bal_charsmap_read(bal_charsmap **out, const unsigned char *bytes, size_t n)
{
    bal_status status = BAL_OK;
    size_t trie = n >= 4 ? unit_at(bytes) : 0;
    *out = NULL;
    if (n < 4 || trie > n - 4 || trie % 4 != 0)
        return bal_fail(BAL_EFORMAT, "precompiled_charsmap names a trie of %zu bytes, but holds %zu bytes", trie, n);
    bal_charsmap *m = bal_alloc(1, sizeof *m);
    if (m == NULL)
        return BAL_ENOMEM;
    m->n_units = trie / 4;
    m->n_texts = n - 4 - trie;
    m->units = bal_alloc(m->n_units, sizeof *m->units);
    m->texts = bal_alloc(m->n_texts + 1, 1);
    BAL_TRY(m->units == NULL || m->texts == NULL ? BAL_ENOMEM : BAL_OK);
    for (size_t i = 0; i < m->n_units; i++)
        m->units[i] = unit_at(bytes + 4 + 4 * i);
    if (m->n_texts > 0)
        memcpy(m->texts, bytes + 4 + trie, m->n_texts);
    *out = m;
    m = NULL;
out:
    bal_charsmap_free(m);
    return status;
}

bal_status bal_charsmap_read_base64(bal_charsmap **out, const char *text)
{
    size_t n = strlen(text), got = 0;
    unsigned char *bytes = bal_alloc(n + 1, 1);
    *out = NULL;
    bal_status status = bytes == NULL ? BAL_ENOMEM : read_base64(text, n, bytes, &got);
    if (status == BAL_OK)
        status = bal_charsmap_read(out, bytes, got);
    bal_free(bytes);
    return status;
}

void bal_charsmap_free(bal_charsmap *m)
{
    if (m == NULL)
        return;
    bal_free(m->units);
    bal_free(m->texts);
    bal_free(m);
}

/* A unit: bit 8 "a key ends here", bits 0..7 and 31 the label, the rest the (scaled) offset of its children. */
static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & (1U << 9)) >> 6);
}

/* What the shortest key that text[0..n) begins with stands for; NULL: there is none. */
static const char *lookup(const bal_charsmap *m, const char *text, size_t n)
{
    size_t at = m->n_units > 0 ? offset_of(m->units[0]) : 0;
    for (size_t i = 0; i < n && text[i] != '\0'; i++) {
        unsigned char c = (unsigned char)text[i];
        at ^= c;
        if (at >= m->n_units || (m->units[at] & (1U << 31 | 0xFF)) != c)
            return NULL;
        uint32_t unit = m->units[at];
        at ^= offset_of(unit);
        if (at >= m->n_units)
            return NULL;
        if ((unit >> 8 & 1) != 0) {
            size_t value = m->units[at] & ~(1U << 31);
            return value < m->n_texts ? m->texts + value : NULL;
        }
    }
    return NULL;
}

/* A short cluster of characters may have an entry of its own; otherwise each character is looked up. */
static bal_status put_cluster(const bal_charsmap *m, const char *text, size_t n, bal_buf *out)
{
    const char *whole = n < 6 ? lookup(m, text, n) : NULL;
    bal_status status = BAL_OK;
    if (whole != NULL)
        return bal_buf_text(out, whole);
    for (size_t i = 0; i < n && status == BAL_OK;) {
        uint32_t cp;
        size_t len = bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        len = len == 0 ? 1 : len;
        const char *one = lookup(m, text + i, len);
        status = one != NULL ? bal_buf_text(out, one) : bal_buf_append(out, text + i, len);
        i += len;
    }
    return status;
}

bal_status bal_charsmap_apply(const bal_charsmap *m, const char *text, size_t n, bal_buf *out)
{
    size_t begin = 0;
    utf8proc_int32_t last = 0, state = 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK;) {
        uint32_t cp = 0xFFFD;
        size_t len = bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        if (i > 0 && utf8proc_grapheme_break_stateful(last, (utf8proc_int32_t)cp, &state)) {
            status = put_cluster(m, text + begin, i - begin, out);
            begin = i;
        }
        last = (utf8proc_int32_t)cp;
        i += len == 0 ? 1 : len;
    }
    return status == BAL_OK ? put_cluster(m, text + begin, n - begin, out) : status;
}
