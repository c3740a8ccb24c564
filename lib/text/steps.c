/* Searching and replacing, and the pre-tokenizers.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <string.h>

typedef struct span {
    size_t begin, end;
    bool matched, from_match; /* counts as a match (inverted by the option); is one: may be empty */
} span;

typedef struct finder {
    const bal_step *step;
    const pcre2_code *regex;
    pcre2_match_data *data;
    const char *text;
    size_t n, at, last_end;
    bool any;
} finder;

/* The next character of the step's class is a match. */
static bal_status find_class(finder *f, bool *found, size_t *begin, size_t *end)
{
    while (f->at < f->n && !*found) {
        uint32_t cp = 0xFFFD;
        size_t len = bal_utf8_decode((const unsigned char *)f->text + f->at, f->n - f->at, &cp);
        *begin = f->at;
        *end = f->at += len == 0 ? 1 : len;
        *found = f->step->is_in(cp);
    }
    return BAL_OK;
}

/* The next match at or after f->at; false when there is none. */
static bal_status find_next(finder *f, bool *found, size_t *begin, size_t *end)
{
    *found = false;
    if (f->step->is_in != NULL)
        return find_class(f, found, begin, end);
    if (f->regex == NULL) {
        size_t m = strlen(f->step->literal);
        const char *hit = m == 0 || f->at > f->n ? NULL : memmem(f->text + f->at, f->n - f->at, f->step->literal, m);
        if (hit != NULL) {
            *found = true;
            *begin = (size_t)(hit - f->text);
            *end = *begin + m;
            f->at = *end;
        }
        return BAL_OK;
    }
    while (f->at <= f->n) {
        int rc = pcre2_match(f->regex, (PCRE2_SPTR)f->text, f->n, f->at, PCRE2_NO_UTF_CHECK, f->data, NULL);
        if (rc == PCRE2_ERROR_JIT_STACKLIMIT) /* the interpreter has its stack on the heap */
            rc = pcre2_match(f->regex, (PCRE2_SPTR)f->text, f->n, f->at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, f->data,
                             NULL);
        if (rc == PCRE2_ERROR_NOMATCH)
            return BAL_OK;
        if (rc < 0)
            return bal_fail(BAL_ELIMIT, "the tokenizer's pattern failed on this text (PCRE2 error %d)", rc);
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(f->data);
        bool empty = v[1] <= v[0], again = empty && f->any && v[1] == f->last_end;
        *begin = v[0];
        *end = v[1] < v[0] ? v[0] : v[1];
        f->at = *end + (empty ? 1 : 0);
        while (empty && f->at < f->n && ((unsigned char)f->text[f->at] & 0xC0) == 0x80)
            f->at++;
        if (again) /* an empty match right behind a match is none */
            continue;
        f->any = *found = true;
        f->last_end = *end;
        return BAL_OK;
    }
    return BAL_OK;
}

static bal_status finder_open(finder *f, const bal_step *step, const pcre2_code *regex, const char *text, size_t n)
{
    *f = (finder){.step = step, .regex = regex, .text = text, .n = n};
    if (regex == NULL)
        return BAL_OK;
    f->data = pcre2_match_data_create_from_pattern(regex, NULL);
    return f->data == NULL ? bal_fail(BAL_ENOMEM, "out of memory: match data") : BAL_OK;
}

bal_status bal_replace(const bal_step *s, const char *text, size_t n, bal_buf *out)
{
    finder f;
    size_t done = 0, begin = 0, end = 0;
    bool found = false;
    if (n == 0) /* no match, not even an empty one */
        return BAL_OK;
    bal_status status = finder_open(&f, s, s->regex, text, n);
    while (status == BAL_OK && (status = find_next(&f, &found, &begin, &end)) == BAL_OK && found) {
        status = bal_buf_append(out, text + done, begin - done);
        if (status == BAL_OK)
            status = bal_buf_text(out, s->content);
        done = end;
    }
    pcre2_match_data_free(f.data);
    return status == BAL_OK ? bal_buf_append(out, text + done, n - done) : status;
}

bal_status bal_replaces_first(const bal_step *s, const char *text, size_t n, bool *gone)
{
    finder f;
    size_t begin = 1, end = 0;
    bool found = false;
    bal_status status = s->content[0] != '\0' ? BAL_OK : finder_open(&f, s, s->regex, text, n);
    if (status != BAL_OK || s->content[0] != '\0')
        return status;
    status = find_next(&f, &found, &begin, &end);
    *gone |= status == BAL_OK && found && begin == 0 && end > 0;
    pcre2_match_data_free(f.data);
    return status;
}

/* ---- pre-tokenizers ---- */

static bal_status piece_add(bal_pieces *p, size_t begin, size_t end)
{
    if (end <= begin)
        return BAL_OK;
    if (p->n == p->cap) {
        size_t cap = p->cap == 0 ? 64 : 2 * p->cap;
        bal_piece *items = bal_realloc(p->items, cap, sizeof *items);
        if (items == NULL)
            return BAL_ENOMEM;
        p->items = items;
        p->cap = cap;
    }
    p->items[p->n++] = (bal_piece){begin, end - begin};
    return BAL_OK;
}

void bal_pieces_dispose(bal_pieces *p)
{
    bal_buf_dispose(&p->text);
    bal_free(p->items);
    *p = (bal_pieces){0};
}

typedef struct splitter {
    bal_pieces *out;
    bal_behavior behavior;
    size_t open, open_end; /* a piece not yet closed: [open, open_end) */
    bool last_matched, any;
} splitter;

static bal_status flush_open(splitter *s)
{
    bal_status status = piece_add(s->out, s->open, s->open_end);
    s->open = s->open_end;
    return status;
}

/* One stretch that the pattern matches, or that lies between matches, in order of the text. */
static bal_status take_span(splitter *s, span x)
{
    bal_status status = BAL_OK;
    bool joins = false;
    if (x.end <= x.begin && !x.from_match)
        return BAL_OK;
    switch (s->behavior) {
    case BAL_SPLIT_REMOVED:
        status = flush_open(s);
        if (x.matched) {
            s->open = s->open_end = x.end;
            return status;
        }
        break;
    case BAL_SPLIT_ISOLATED:
        break;
    case BAL_SPLIT_MERGED_WITH_PREVIOUS: /* a match joins what stands before it, unless that is a match too */
        joins = x.matched && s->any && !s->last_matched;
        break;
    case BAL_SPLIT_MERGED_WITH_NEXT: /* a match waits for what comes; another match closes it */
        joins = !x.matched && s->any && s->last_matched;
        break;
    case BAL_SPLIT_CONTIGUOUS:
        joins = s->any && x.matched == s->last_matched;
        break;
    }
    if (!joins) {
        if (status == BAL_OK)
            status = flush_open(s);
        s->open = x.begin;
    }
    s->open_end = x.end;
    s->last_matched = x.matched;
    s->any = true;
    return status;
}

/* Splits text[begin..begin+n) of p->text and adds the pieces to out (offsets into the same text). */
static bal_status split_piece(const bal_step *step, const pcre2_code *regex, const bal_pieces *p, bal_piece piece,
                              bal_pieces *out)
{
    finder f;
    splitter s = {out, step->behavior, piece.begin, piece.begin, false, false};
    size_t done = 0, begin = 0, end = 0;
    bool found = false;
    bal_status status = finder_open(&f, step, regex, p->text.data + piece.begin, piece.n);
    while (status == BAL_OK && (status = find_next(&f, &found, &begin, &end)) == BAL_OK && found) {
        status = take_span(&s, (span){piece.begin + done, piece.begin + begin, step->invert, false});
        if (status == BAL_OK)
            status = take_span(&s, (span){piece.begin + begin, piece.begin + end, !step->invert, true});
        done = end;
    }
    if (status == BAL_OK)
        status = take_span(&s, (span){piece.begin + done, piece.begin + piece.n, step->invert, false});
    pcre2_match_data_free(f.data);
    return status == BAL_OK ? flush_open(&s) : status;
}

/* Copies each piece through a change of alphabet into out. */
static bal_status to_byte_level(const bal_pieces *in, bal_pieces *out)
{
    out->at_zero = in->at_zero;
    enum { AT_ONCE = 256 };
    unsigned char c[2 * AT_ONCE];
    for (size_t i = 0; i < in->n; i++) {
        size_t begin = out->text.len, done = 0;
        while (done < in->items[i].n) {
            size_t len = 0, end = in->items[i].n - done < AT_ONCE ? in->items[i].n : done + AT_ONCE;
            for (; done < end; done++) /* two bytes at most */
                len += bal_byte_to_char((unsigned char)in->text.data[in->items[i].begin + done], c + len);
            bal_status status = bal_buf_append(&out->text, c, len);
            if (status != BAL_OK)
                return status;
        }
        bal_status status = piece_add(out, begin, out->text.len);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

/* Copies the pieces, with a mark put before those that do not begin with it (and spaces replaced by it). */
static bal_status mark_words(const bal_step *s, const bal_pieces *in, bool at_start, bal_pieces *out)
{
    bool bytes = s->kind == BAL_STEP_BYTE_LEVEL;
    const char *mark = bytes ? " " : s->content;
    size_t m = strlen(mark);
    out->at_zero = in->at_zero;
    for (size_t i = 0; i < in->n; i++) {
        const char *p = in->text.data + in->items[i].begin;
        size_t n = in->items[i].n, begin = out->text.len;
        bool has = p[0] == ' ' || (!bytes && n >= m && memcmp(p, mark, m) == 0);
        bool wanted =
            bytes ? s->add_prefix_space : s->prepend == 2 || (s->prepend == 1 && at_start && in->at_zero && i == 0);
        bal_status status = wanted && !has ? bal_buf_text(&out->text, mark) : BAL_OK;
        for (size_t j = 0; j < n && status == BAL_OK; j++)
            status = !bytes && p[j] == ' ' ? bal_buf_text(&out->text, mark) : bal_buf_append(&out->text, p + j, 1);
        if (status == BAL_OK)
            status = piece_add(out, begin, out->text.len);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static void pieces_swap(bal_pieces *a, bal_pieces *b)
{
    bal_pieces t = *a;
    *a = *b;
    *b = t;
    bal_buf_clear(&b->text);
    b->n = 0;
}

static bal_status split_all(const bal_step *s, const pcre2_code *regex, bal_pieces *now, bal_pieces *next)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < now->n && status == BAL_OK; i++)
        status = split_piece(s, regex, now, now->items[i], next);
    next->at_zero = now->at_zero && now->n > 0 && next->n > 0 && next->items[0].begin == now->items[0].begin;
    bal_buf keep = next->text; /* the offsets are into now's text */
    next->text = now->text;
    now->text = keep;
    pieces_swap(now, next);
    return status;
}

bal_status bal_pre_tokenize(const bal_tokenizer *t, const char *text, size_t n, bool at_start, bal_pieces *out)
{
    bal_pieces next = {0};
    bal_status status = BAL_OK;
    bal_buf_clear(&out->text);
    out->n = 0;
    out->text.limit = next.text.limit = bal_most_text(n);
    BAL_TRY(bal_buf_append(&out->text, text, n));
    BAL_TRY(piece_add(out, 0, n));
    out->at_zero = true;
    for (size_t i = 0; i < t->pre_tokenizers.n; i++) {
        const bal_step *s = &t->pre_tokenizers.items[i];
        if (s->kind == BAL_STEP_SPLIT) {
            BAL_TRY(split_all(s, s->regex, out, &next));
        } else if (s->kind == BAL_STEP_BYTE_LEVEL) {
            if (s->add_prefix_space) {
                BAL_TRY(mark_words(s, out, at_start, &next));
                pieces_swap(out, &next);
            }
            if (s->use_regex)
                BAL_TRY(split_all(s, t->byte_level_regex, out, &next));
            BAL_TRY(to_byte_level(out, &next));
            pieces_swap(out, &next);
        } else {
            BAL_TRY(mark_words(s, out, at_start, &next));
            pieces_swap(out, &next);
            bal_step by_mark = {.kind = BAL_STEP_SPLIT, .literal = s->content, .behavior = BAL_SPLIT_MERGED_WITH_NEXT};
            if (s->split)
                BAL_TRY(split_all(&by_mark, NULL, out, &next));
        }
    }
out:
    bal_pieces_dispose(&next);
    return status;
}
