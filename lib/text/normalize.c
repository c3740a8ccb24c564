/* Normalizers: the text before it is cut into pieces.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static bal_status put_code_point(bal_buf *out, uint32_t cp)
{
    unsigned char bytes[8];
    return bal_buf_append(out, bytes, bal_utf8_encode(cp, bytes));
}

enum { LONG_RUN = 32 };

/* The class by which a mark is put in order; three marks of class 0 come apart into marks that have one. */
static unsigned class_of(uint32_t cp)
{
    return cp < 0x300                                  ? 0
           : cp == 0xF73 || cp == 0xF75 || cp == 0xF81 ? 129
                                                       : utf8proc_get_property((utf8proc_int32_t)cp)->combining_class;
}

/* Normal forms put each run of marks in order, which utf8proc does by exchanging neighbours.  A long run is put in order
 * here first, class by class: that changes no normal form, and the work grows with the length, not its square. */
static bal_status put_run(const char *text, size_t n, bal_buf *out)
{
    bool has[256] = {false};
    bal_status status = BAL_OK;
    for (unsigned pass = 0; pass < 256 && status == BAL_OK; pass++) {
        if (pass > 0 && !has[pass])
            continue;
        for (size_t i = 0; i < n && status == BAL_OK;) {
            uint32_t cp = 0xFFFD, parts[2];
            i += bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
            bool apart = cp == 0xF73 || cp == 0xF75 || cp == 0xF81;
            parts[0] = apart ? 0xF71 : cp;
            parts[1] = cp == 0xF73 ? 0xF72 : cp == 0xF75 ? 0xF74 : 0xF80;
            for (size_t k = 0; k < 1U + apart && status == BAL_OK; k++) {
                unsigned class = class_of(parts[k]);
                has[class] = true;
                if (pass > 0 && class == pass)
                    status = put_code_point(out, parts[k]);
            }
        }
    }
    return status;
}

static bal_status order_long_runs(const char *text, size_t n, bal_buf *out)
{
    size_t begin = 0, marks = 0, done = 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i <= n && status == BAL_OK;) {
        uint32_t cp = 0;
        size_t len = i < n ? bal_utf8_decode((const unsigned char *)text + i, n - i, &cp) : 1;
        if (i < n && class_of(cp) != 0) {
            begin = marks++ == 0 ? i : begin;
        } else {
            if (marks > LONG_RUN) {
                status = bal_buf_append(out, text + done, begin - done);
                if (status == BAL_OK)
                    status = put_run(text + begin, i - begin, out);
                done = i;
            }
            marks = 0;
        }
        i += len == 0 ? 1 : len;
    }
    return status == BAL_OK ? bal_buf_append(out, text + done, n - done) : status;
}

static bal_status normal_form(bal_step_kind kind, const char *text, size_t n, bal_buf *out)
{
    bal_buf ordered = {0};
    bal_status status = BAL_OK;
    int options =
        UTF8PROC_STABLE | (kind == BAL_STEP_NFC || kind == BAL_STEP_NFKC ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
    if (n == 0)
        return BAL_OK;
    if (kind == BAL_STEP_NFKC || kind == BAL_STEP_NFKD)
        options |= UTF8PROC_COMPAT;
    if (n > 2 * LONG_RUN) {
        BAL_TRY(order_long_runs(text, n, &ordered));
        text = bal_buf_cstr(&ordered);
        n = ordered.len;
    }
    utf8proc_uint8_t *mapped = NULL;
    utf8proc_ssize_t got =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &mapped, (utf8proc_option_t)options);
    if (got < 0)
        BAL_TRY(bal_fail(BAL_EFORMAT, "text cannot be normalised: %s", utf8proc_errmsg(got)));
    status = bal_buf_append(out, mapped, (size_t)got);
    free(mapped);
out:
    bal_buf_dispose(&ordered);
    return status;
}

/* A stretch without ASCII but for its first character.  Characters that take no part in it stand between runs. */
static bal_status stretch_form(bal_step_kind kind, const char *text, size_t n, bal_buf *out)
{
    size_t done = 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK;) {
        uint32_t cp = 0xFFFD;
        size_t len = bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        len = len == 0 ? 1 : len;
        if (bal_has_no_normal_form(cp)) {
            status = normal_form(kind, text + done, i - done, out);
            if (status == BAL_OK)
                status = bal_buf_append(out, text + i, len);
            done = i + len;
        }
        i += len;
    }
    return status == BAL_OK ? normal_form(kind, text + done, n - done, out) : status;
}

/* ASCII is in every normal form already, and only its last character before others may join with what follows; so are,
 * for NFC, the characters below U+0300. */
static bal_status unicode_form(bal_step_kind kind, const char *text, size_t n, bal_buf *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK;) {
        size_t begin = i, from;
        unsigned char most = 0;
        while (i < n && (unsigned char)text[i] < 0x80)
            i++;
        from = i > begin && i < n ? i - 1 : i;
        for (; i < n && (unsigned char)text[i] >= 0x80; i++)
            most = (unsigned char)text[i] > most ? (unsigned char)text[i] : most;
        bool plain = kind == BAL_STEP_NFC && most < 0xCC; /* the first byte of U+0300 */
        status = bal_buf_append(out, text + begin, (plain ? i : from) - begin);
        if (!plain && status == BAL_OK)
            status = stretch_form(kind, text + from, i - from, out);
    }
    return status;
}

/* What the Nmt normalizer takes for a space. */
static bool is_nmt_space(uint32_t cp)
{
    return cp == 9 || cp == 0xA || cp == 0xC || cp == 0xD || cp == 0x1680 || (cp >= 0x200B && cp <= 0x200F) ||
           cp == 0x2028 || cp == 0x2029 || cp == 0x2581 || cp == 0xFEFF || cp == 0xFFFD;
}

/* What one character becomes: BAL_STEP_LOWERCASE, _STRIP_ACCENTS, _NMT. */
static bal_status put_changed(bal_step_kind kind, uint32_t cp, bal_buf *out)
{
    unsigned char bytes[8];
    switch (kind) {
    case BAL_STEP_LOWERCASE:
        return bal_buf_append(out, bytes, bal_put_lower(cp, bytes));
    case BAL_STEP_STRIP_ACCENTS:
        return bal_is_mark(cp) ? BAL_OK : put_code_point(out, cp);
    case BAL_STEP_NMT: /* control characters go, white space and invisible ones become spaces */
        if ((cp >= 1 && cp <= 8) || cp == 0xB || (cp >= 0xE && cp <= 0x1F) || cp == 0x7F || cp == 0x8F || cp == 0x9F)
            return BAL_OK;
        return put_code_point(out, is_nmt_space(cp) ? ' ' : cp);
    default:
        return put_code_point(out, cp);
    }
}

static bal_status per_character(bal_step_kind kind, const char *text, size_t n, bal_buf *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK;) {
        uint32_t cp = 0xFFFD;
        size_t len = bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        status = put_changed(kind, cp, out);
        i += len == 0 ? 1 : len;
    }
    return status;
}

/* BertNormalizer's first half: control characters go, white space becomes spaces, spaces around ideographs. */
static bal_status bert_clean(const bal_step *s, const char *text, size_t n, bal_buf *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK;) {
        uint32_t cp = 0xFFFD;
        size_t len = bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        i += len == 0 ? 1 : len;
        if (s->clean_text && (cp == 0xFFFD || bal_is_other(cp)))
            continue;
        bool cjk = s->handle_cjk && bal_is_cjk(cp);
        if (cjk)
            status = bal_buf_append(out, " ", 1);
        if (status == BAL_OK)
            status = put_code_point(out, s->clean_text && bal_is_space(cp) ? ' ' : cp);
        if (cjk && status == BAL_OK)
            status = bal_buf_append(out, " ", 1);
    }
    return status;
}

/* Its second half: accents off, then lower case. */
static bal_status bert_fold(const bal_step *s, const char *text, size_t n, bal_buf *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK;) {
        uint32_t cp = 0xFFFD;
        unsigned char bytes[8];
        size_t len = bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        i += len == 0 ? 1 : len;
        if (s->strip_accents && bal_is_mark_nonspacing(cp))
            continue;
        size_t k = s->lowercase ? bal_put_lower(cp, bytes) : bal_utf8_encode(cp, bytes);
        status = bal_buf_append(out, bytes, k);
    }
    return status;
}

static bal_status bert(const bal_step *s, const char *text, size_t n, bal_buf *out)
{
    bal_buf clean = {0}, apart = {0};
    bal_status status;
    BAL_TRY(bert_clean(s, text, n, &clean));
    if (s->strip_accents)
        BAL_TRY(unicode_form(BAL_STEP_NFD, bal_buf_cstr(&clean), clean.len, &apart));
    const bal_buf *now = s->strip_accents ? &apart : &clean;
    status = bert_fold(s, bal_buf_cstr(now), now->len, out);
out:
    bal_buf_dispose(&clean);
    bal_buf_dispose(&apart);
    return status;
}

static bal_status byte_level(const char *text, size_t n, bal_buf *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK; i++) {
        unsigned char c[4];
        status = bal_buf_append(out, c, bal_byte_to_char((unsigned char)text[i], c));
    }
    return status;
}

size_t bal_space_at(const char *text, size_t n)
{
    uint32_t cp = 0;
    size_t len = bal_utf8_decode((const unsigned char *)text, n, &cp);
    return len > 0 && bal_is_space(cp) ? len : 0;
}

static bal_status strip(const bal_step *s, const char *text, size_t n, bal_buf *out)
{
    size_t begin = 0, end = 0, len;
    while (s->left && begin < n && (len = bal_space_at(text + begin, n - begin)) > 0)
        begin += len;
    end = s->right ? begin : n;
    for (size_t i = begin; s->right && i < n;) {
        uint32_t cp;
        size_t space = bal_space_at(text + i, n - i);
        len = space > 0 ? space : bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        i += len == 0 ? 1 : len;
        if (space == 0)
            end = i;
    }
    return bal_buf_append(out, text + begin, end - begin);
}

/* Appends what the step makes of text[0..n). */
static bal_status run_step(const bal_step *s, const char *text, size_t n, bal_buf *out)
{
    bal_status status = BAL_OK;
    switch (s->kind) {
    case BAL_STEP_REPLACE:
        return bal_replace(s, text, n, out);
    case BAL_STEP_PREPEND:
        status = n == 0 ? BAL_OK : bal_buf_text(out, s->content);
        return status == BAL_OK ? bal_buf_append(out, text, n) : status;
    case BAL_STEP_LOWERCASE:
    case BAL_STEP_STRIP_ACCENTS:
    case BAL_STEP_NMT:
        return per_character(s->kind, text, n, out);
    case BAL_STEP_STRIP:
        return strip(s, text, n, out);
    case BAL_STEP_BERT:
        return bert(s, text, n, out);
    case BAL_STEP_BYTE_LEVEL:
        return byte_level(text, n, out);
    case BAL_STEP_PRECOMPILED:
        return bal_charsmap_apply(s->charsmap, text, n, out);
    default:
        return unicode_form(s->kind, text, n, out);
    }
}

/* Whether the step takes away the first character of a text.  What it makes of that character alone tells it, but for
 * REPLACE, where a longer match may begin there, and STRIP, which may look at its right side only. */
static bal_status cuts(const bal_step *s, const char *text, size_t n, bal_buf *scratch, bool *cut)
{
    uint32_t cp;
    if (n == 0)
        return BAL_OK;
    if (s->kind == BAL_STEP_REPLACE)
        return bal_replaces_first(s, text, n, cut);
    size_t first = bal_utf8_decode((const unsigned char *)text, n, &cp);
    bal_buf_clear(scratch);
    bal_status status = BAL_OK;
    if (s->kind != BAL_STEP_STRIP || s->left)
        status = run_step(s, text, first == 0 ? 1 : first, scratch);
    *cut |= status == BAL_OK && scratch->len == 0 && (s->kind != BAL_STEP_STRIP || s->left);
    return status;
}

bal_status bal_normalize(const bal_tokenizer *t, const char *text, size_t n, bal_buf *out, bool *cut)
{
    bal_buf other = {.limit = bal_most_text(n)};
    bal_buf_clear(out);
    out->limit = other.limit;
    bal_status status = bal_buf_append(out, text, n);
    for (size_t i = 0; i < t->normalizers.n && status == BAL_OK; i++) {
        const bal_step *s = &t->normalizers.items[i];
        const char *in = bal_buf_cstr(out);
        if (cut != NULL)
            status = cuts(s, in, out->len, &other, cut);
        bal_buf_clear(&other);
        if (status == BAL_OK)
            status = run_step(s, in, out->len, &other);
        bal_buf swap = *out;
        *out = other;
        other = swap;
    }
    bal_buf_dispose(&other);
    return status;
}
