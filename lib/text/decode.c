/* Ids to text: the tokens run through the decoders one after the other.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <string.h>

/* Tokens of the output so far: pieces of one text. */
static bal_status put(bal_pieces *p, size_t begin)
{
    if (p->n == p->cap) {
        size_t cap = p->cap == 0 ? 64 : 2 * p->cap;
        bal_piece *items = bal_realloc(p->items, cap, sizeof *items);
        if (items == NULL)
            return BAL_ENOMEM;
        p->items = items;
        p->cap = cap;
    }
    p->items[p->n++] = (bal_piece){begin, p->text.len - begin};
    return BAL_OK;
}

static bal_status byte_level(const bal_pieces *in, bal_pieces *out)
{
    bal_buf bytes = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < in->n && status == BAL_OK; i++) {
        const char *p = in->text.data + in->items[i].begin;
        size_t n = in->items[i].n, mark = bytes.len;
        bool plain = false; /* a character outside the alphabet: the token stands for itself */
        for (size_t j = 0; j < n && !plain && status == BAL_OK;) {
            uint32_t cp = 0;
            size_t len = bal_utf8_decode((const unsigned char *)p + j, n - j, &cp);
            int byte = len > 0 ? bal_char_to_byte(cp) : -1;
            unsigned char b = (unsigned char)byte;
            plain = byte < 0;
            if (!plain)
                status = bal_buf_append(&bytes, &b, 1);
            j += len;
        }
        if (plain && status == BAL_OK) {
            bytes.len = mark;
            status = bal_buf_append(&bytes, p, n);
        }
    }
    if (status == BAL_OK)
        status = bal_utf8_lossy(bal_buf_cstr(&bytes), bytes.len, &out->text);
    bal_buf_dispose(&bytes);
    return status == BAL_OK ? put(out, 0) : status;
}

/* "<0xE2>" as a byte, -1 for anything else. */
static int byte_token(const char *p, size_t n)
{
    int value = 0;
    if (n != 6 || memcmp(p, "<0x", 3) != 0 || p[5] != '>')
        return -1;
    for (size_t i = 3; i < 5; i++) {
        int c = p[i] >= '0' && p[i] <= '9'   ? p[i] - '0'
                : p[i] >= 'A' && p[i] <= 'F' ? p[i] - 'A' + 10
                : p[i] >= 'a' && p[i] <= 'f' ? p[i] - 'a' + 10
                                             : -1;
        if (c < 0)
            return -1;
        value = value * 16 + c;
    }
    return value;
}

/* A run of byte tokens is one text if it is valid UTF-8, else one U+FFFD for each byte. */
static bal_status flush_bytes(bal_buf *bytes, bal_pieces *out)
{
    bool valid = true;
    size_t begin = out->text.len;
    bal_status status = BAL_OK;
    if (bytes->len == 0)
        return BAL_OK;
    for (size_t i = 0; i < bytes->len && valid;) {
        uint32_t cp;
        size_t len = bal_utf8_decode((const unsigned char *)bytes->data + i, bytes->len - i, &cp);
        valid = len > 0;
        i += len;
    }
    if (valid)
        status = bal_buf_append(&out->text, bytes->data, bytes->len);
    for (size_t i = 0; !valid && i < bytes->len && status == BAL_OK; i++)
        status = bal_buf_append(&out->text, "\xEF\xBF\xBD", 3);
    bal_buf_clear(bytes);
    return status == BAL_OK ? put(out, begin) : status;
}

static bal_status byte_fallback(const bal_pieces *in, bal_pieces *out)
{
    bal_buf bytes = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < in->n && status == BAL_OK; i++) {
        const char *p = in->text.data + in->items[i].begin;
        int byte = byte_token(p, in->items[i].n);
        unsigned char b = (unsigned char)byte;
        if (byte >= 0) {
            status = bal_buf_append(&bytes, &b, 1);
            continue;
        }
        status = flush_bytes(&bytes, out);
        size_t begin = out->text.len;
        if (status == BAL_OK)
            status = bal_buf_append(&out->text, p, in->items[i].n);
        if (status == BAL_OK)
            status = put(out, begin);
    }
    if (status == BAL_OK)
        status = flush_bytes(&bytes, out);
    bal_buf_dispose(&bytes);
    return status;
}

static bal_status per_token(const bal_step *s, const bal_pieces *in, bal_pieces *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < in->n && status == BAL_OK; i++) {
        const char *p = in->text.data + in->items[i].begin;
        size_t n = in->items[i].n, begin = out->text.len, m = s->content != NULL ? strlen(s->content) : 0;
        if (s->kind == BAL_STEP_REPLACE) {
            status = bal_replace(s, p, n, &out->text);
        } else if (s->kind == BAL_STEP_STRIP) {
            for (int k = 0; k < s->start && m > 0 && n >= m && memcmp(p, s->content, m) == 0; k++) {
                p += m;
                n -= m;
            }
            for (int k = 0; k < s->stop && m > 0 && n >= m && memcmp(p + n - m, s->content, m) == 0; k++)
                n -= m;
            status = bal_buf_append(&out->text, p, n);
        } else { /* METASPACE: marks become spaces; the first token loses its own */
            for (size_t j = 0; j < n && status == BAL_OK;) {
                bool mark = m > 0 && n - j >= m && memcmp(p + j, s->content, m) == 0;
                if (!(mark && i == 0 && s->prepend != 0))
                    status = mark ? bal_buf_text(&out->text, " ") : bal_buf_append(&out->text, p + j, 1);
                j += mark ? m : 1;
            }
        }
        if (status == BAL_OK)
            status = put(out, begin);
    }
    return status;
}

/* A text put before each character and at the end: what replacing the empty text does. */
static bal_status between_all(bal_buf *b, size_t begin, const char *to)
{
    bal_buf out = {0};
    bal_status status = BAL_OK;
    for (size_t i = begin; i <= b->len && status == BAL_OK; i++) {
        if (i == b->len || ((unsigned char)b->data[i] & 0xC0) != 0x80)
            status = bal_buf_text(&out, to);
        if (i < b->len && status == BAL_OK)
            status = bal_buf_append(&out, b->data + i, 1);
    }
    b->len = begin;
    if (status == BAL_OK)
        status = bal_buf_append(b, bal_buf_cstr(&out), out.len);
    bal_buf_dispose(&out);
    return status;
}

/* The text of b from begin on, with every `from` replaced by `to`. */
static bal_status replace_all(bal_buf *b, size_t begin, const char *from, const char *to)
{
    size_t n = strlen(from);
    bal_buf out = {0};
    bal_status status = BAL_OK;
    if (n == 0)
        return between_all(b, begin, to);
    if (begin >= b->len)
        return BAL_OK;
    const char *at = b->data + begin, *end = b->data + b->len, *hit = memmem(at, (size_t)(end - at), from, n);
    if (hit == NULL)
        return BAL_OK;
    for (; hit != NULL && status == BAL_OK; hit = memmem(at, (size_t)(end - at), from, n)) {
        status = bal_buf_append(&out, at, (size_t)(hit - at));
        if (status == BAL_OK)
            status = bal_buf_text(&out, to);
        at = hit + n;
    }
    if (status == BAL_OK)
        status = bal_buf_append(&out, at, (size_t)(end - at));
    b->len = begin;
    if (status == BAL_OK)
        status = bal_buf_append(b, bal_buf_cstr(&out), out.len);
    bal_buf_dispose(&out);
    return status;
}

/* Spaces that stand before punctuation and abbreviated words of English go. */
static bal_status clean_up(bal_buf *b, size_t begin)
{
    static const char *const pairs[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                           {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                           {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs && status == BAL_OK; i++)
        status = replace_all(b, begin, pairs[i][0], pairs[i][1]);
    return status;
}

/* WordPiece: a token that continues loses its mark, any other but the first gets a space before it. */
static bal_status wordpiece(const bal_step *s, const bal_pieces *in, bal_pieces *out)
{
    size_t m = strlen(s->content);
    bal_status status = BAL_OK;
    for (size_t i = 0; i < in->n && status == BAL_OK; i++) {
        const char *p = in->text.data + in->items[i].begin;
        size_t n = in->items[i].n, begin = out->text.len;
        bool continues = i > 0 && n >= m && memcmp(p, s->content, m) == 0;
        status = i > 0 && !continues ? bal_buf_text(&out->text, " ") : BAL_OK;
        if (status == BAL_OK)
            status = bal_buf_append(&out->text, p + (continues ? m : 0), n - (continues ? m : 0));
        if (status == BAL_OK && s->cleanup)
            status = clean_up(&out->text, begin);
        if (status == BAL_OK)
            status = put(out, begin);
    }
    return status;
}

/* BPEDecoder: the end of a word becomes a space, the last one nothing. */
static bal_status word_ends(const bal_step *s, const bal_pieces *in, bal_pieces *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < in->n && status == BAL_OK; i++) {
        size_t begin = out->text.len;
        status = bal_buf_append(&out->text, in->text.data + in->items[i].begin, in->items[i].n);
        if (status == BAL_OK)
            status = replace_all(&out->text, begin, s->content, i + 1 == in->n ? "" : " ");
        if (status == BAL_OK)
            status = put(out, begin);
    }
    return status;
}

/* CTC: repeated tokens count once, padding goes, the delimiter of words is a space. */
static bal_status ctc(const bal_step *s, const bal_pieces *in, bal_pieces *out)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < in->n && status == BAL_OK; i++) {
        const bal_piece *a = &in->items[i], *b = i > 0 ? a - 1 : a;
        size_t begin = out->text.len;
        if (i > 0 && a->n == b->n && memcmp(in->text.data + a->begin, in->text.data + b->begin, a->n) == 0)
            continue;
        status = bal_buf_append(&out->text, in->text.data + a->begin, a->n);
        if (status == BAL_OK)
            status = replace_all(&out->text, begin, s->literal, "");
        if (status == BAL_OK && s->cleanup)
            status = clean_up(&out->text, begin);
        if (status == BAL_OK && s->cleanup)
            status = replace_all(&out->text, begin, s->content, " ");
        if (status == BAL_OK && out->text.len > begin)
            status = put(out, begin);
    }
    return status;
}

static bal_status run_decoder(const bal_step *s, const bal_pieces *in, bal_pieces *out)
{
    bal_status status = BAL_OK;
    switch (s->kind) {
    case BAL_STEP_BYTE_LEVEL:
        return byte_level(in, out);
    case BAL_STEP_BYTE_FALLBACK:
        return byte_fallback(in, out);
    case BAL_STEP_WORDPIECE:
        return wordpiece(s, in, out);
    case BAL_STEP_BPE_SUFFIX:
        return word_ends(s, in, out);
    case BAL_STEP_CTC:
        return ctc(s, in, out);
    case BAL_STEP_FUSE:
        for (size_t i = 0; i < in->n && status == BAL_OK; i++)
            status = bal_buf_append(&out->text, in->text.data + in->items[i].begin, in->items[i].n);
        return status == BAL_OK ? put(out, 0) : status;
    default:
        return per_token(s, in, out);
    }
}

bal_status bal_tokenizer_decode(const bal_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, bal_buf *out)
{
    bal_pieces now = {0}, next = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n; i++) {
        const char *text = bal_tokenizer_token(t, ids[i]);
        if (ids[i] < 0)
            BAL_TRY(bal_fail(BAL_EFORMAT, "id %d is negative", (int)ids[i]));
        if (text == NULL)
            continue;
        if (skip_special &&
            (t->tokens[ids[i]].form != NULL ? t->tokens[ids[i]].special_form : t->tokens[ids[i]].special))
            continue;
        size_t begin = now.text.len;
        const bal_token *k = &t->tokens[ids[i]];
        BAL_TRY(k->form != NULL ? bal_buf_append(&now.text, k->form, k->n_form)
                                : bal_buf_append(&now.text, text, k->n));
        BAL_TRY(put(&now, begin));
    }
    now.text.limit = next.text.limit = bal_most_text(now.text.len);
    for (size_t i = 0; i < t->decoders.n && now.n > 0; i++) {
        BAL_TRY(run_decoder(&t->decoders.items[i], &now, &next));
        bal_pieces swap = now;
        now = next;
        next = swap;
        bal_buf_clear(&next.text);
        next.n = 0;
    }
    for (size_t i = 0; i < now.n; i++) {
        if (i > 0 && !t->has_decoder)
            BAL_TRY(bal_buf_text(out, " "));
        BAL_TRY(bal_buf_append(out, now.text.data + now.items[i].begin, now.items[i].n));
    }
out:
    bal_pieces_dispose(&now);
    bal_pieces_dispose(&next);
    return status;
}
