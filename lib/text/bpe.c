/* Byte pair encoding of one piece: symbols in a linked list, candidate merges in a heap ordered by (rank, place), so
 * that a piece of n symbols takes O(n log n) whatever it holds.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <string.h>

typedef struct symbol {
    int32_t id; /* GONE: merged away; WHOLE_UNKNOWN */
    int32_t prev, next;
    uint32_t begin, n; /* bytes of the piece, for merges by score */
} symbol;

typedef struct candidate {
    double rank;    /* smaller first; by score: minus the score */
    uint32_t place; /* of the left symbol */
    int32_t left, right, id;
} candidate;

typedef struct work {
    symbol *symbols;
    candidate *heap;
    size_t n_symbols, n_heap;
} work;

enum { SMALL = 64, GONE = -1, WHOLE_UNKNOWN = -2 };

static bool before(const candidate *a, const candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->place < b->place;
}

static void heap_push(work *w, candidate c)
{
    size_t i = w->n_heap++;
    while (i > 0 && before(&c, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = c;
}

static candidate heap_pop(work *w)
{
    candidate top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->n_heap)
            break;
        if (child + 1 < w->n_heap && before(&w->heap[child + 1], &w->heap[child]))
            child++;
        if (!before(&w->heap[child], &last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return top;
}

static void consider(const bal_tokenizer *t, const char *piece, work *w, int32_t left, int32_t right)
{
    if (left < 0 || right < 0)
        return;
    const symbol *a = &w->symbols[left], *b = &w->symbols[right];
    candidate c = {0, (uint32_t)left, a->id, b->id, -1};
    if (t->by_score) {
        size_t n = (size_t)a->n + b->n;
        c.id = b->begin == a->begin + a->n ? bal_vocab_find(t, piece + a->begin, n) : -1;
        if (c.id < 0)
            return;
        c.rank = -(double)t->tokens[c.id].score;
    } else {
        const bal_merge *m = bal_merges_find(t, (uint32_t)a->id, (uint32_t)b->id);
        if (m == NULL)
            return;
        c.rank = m->rank;
        c.id = (int32_t)m->id;
    }
    heap_push(w, c);
}

static bool has_bytes(const bal_tokenizer *t, const char *text, size_t n)
{
    bool all = t->byte_fallback;
    for (size_t j = 0; all && j < n; j++)
        all = t->byte_ids[(unsigned char)text[j]] >= 0;
    return all;
}

/* A character as the vocabulary writes it inside a word, at its end. */
static size_t with_affixes(const bal_tokenizer *t, const char *text, size_t n, bool inside, bool last, char *out)
{
    size_t k = 0;
    if (inside) {
        memcpy(out, t->continuing_prefix, t->n_continuing);
        k = t->n_continuing;
    }
    memcpy(out + k, text, n);
    k += n;
    if (last) {
        memcpy(out + k, t->word_suffix, t->n_word_suffix);
        k += t->n_word_suffix;
    }
    return k;
}

/* One symbol per character; an unknown character becomes its bytes, or the unknown token.  By score an unknown character
 * stays whole, since a token may begin with it; it becomes bytes only if nothing took it in. */
static bal_status split_symbols(const bal_tokenizer *t, const char *piece, size_t n, work *w)
{
    symbol unknown = {0};
    bool pending = false; /* unknown tokens wait for the next known one, so that neighbours become one */
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        size_t len = bal_utf8_decode((const unsigned char *)piece + i, n - i, &cp);
        len = len == 0 ? 1 : len;
        const char *text = piece + i;
        size_t n_text = len;
        char affixed[4 + 2 * BAL_MAX_AFFIX];
        if (t->n_continuing + t->n_word_suffix > 0) {
            n_text = with_affixes(t, text, len, i > 0, i + len == n, affixed);
            text = affixed;
        }
        int32_t id = bal_vocab_known(t, text, n_text);
        bool bytes = id < 0 && !t->by_score && has_bytes(t, text, n_text);
        if (id >= 0 || t->by_score) {
            if (pending)
                w->symbols[w->n_symbols++] = unknown;
            pending = false;
            w->symbols[w->n_symbols++] = (symbol){id >= 0 ? id : WHOLE_UNKNOWN, 0, 0, (uint32_t)i, (uint32_t)len};
        } else if (bytes) {
            for (size_t j = 0; j < n_text; j++)
                w->symbols[w->n_symbols++] = (symbol){t->byte_ids[(unsigned char)text[j]], 0, 0, (uint32_t)(i + j), 1};
        } else if (t->unk >= 0) {
            if (pending && !t->fuse_unk)
                w->symbols[w->n_symbols++] = unknown;
            if (!pending || !t->fuse_unk)
                unknown = (symbol){t->unk, 0, 0, (uint32_t)i, (uint32_t)len};
            pending = true;
        } else if (t->unk_missing) {
            return bal_fail(BAL_EFORMAT, "a character is not in the vocabulary, nor is the tokenizer's unk_token");
        }
        i += len;
    }
    if (pending)
        w->symbols[w->n_symbols++] = unknown;
    for (size_t i = 0; i < w->n_symbols; i++) {
        w->symbols[i].prev = (int32_t)i - 1;
        w->symbols[i].next = i + 1 < w->n_symbols ? (int32_t)i + 1 : -1;
    }
    return BAL_OK;
}

static bal_status put_symbol(const bal_tokenizer *t, const char *piece, const symbol *s, bal_ids *out)
{
    bal_status status = BAL_OK;
    if (s->id != WHOLE_UNKNOWN)
        return bal_ids_append(out, s->id);
    if (!has_bytes(t, piece + s->begin, s->n))
        return t->unk >= 0 ? bal_ids_append(out, t->unk) : BAL_OK;
    for (size_t j = 0; j < s->n && status == BAL_OK; j++)
        status = bal_ids_append(out, t->byte_ids[(unsigned char)piece[s->begin + j]]);
    return status;
}

/* U+2581 stands for a space where SentencePiece is followed: whole texts are one piece.  No merge reaches over a place
 * between a character c and U+2581 if no token that a merge makes holds c and U+2581 one behind the other, since such a
 * token would have to come of the merge that first joins them.  What is left of the place and what is right of it then
 * merge as if each were alone, and each can be looked up as a word. */
#define WORD_MARK "\xE2\x96\x81"
enum { MARK_BYTES = 3, CODE_POINTS = 0x110000 };

static void note_token(bal_tokenizer *t, const bal_token *k)
{
    const char *at = k->text, *end = k->text + k->n, *hit;
    while (end - at >= MARK_BYTES && (hit = memmem(at, (size_t)(end - at), WORD_MARK, MARK_BYTES)) != NULL) {
        const char *c = hit;
        uint32_t cp = 0;
        while (c > k->text && ((unsigned char)*--c & 0xC0) == 0x80)
            ;
        if (hit > k->text && bal_utf8_decode((const unsigned char *)c, (size_t)(hit - c), &cp) > 0)
            t->joins_word_mark[cp / 8] |= (unsigned char)(1U << cp % 8);
        at = hit + MARK_BYTES;
    }
}

bal_status bal_bpe_find_cuts(bal_tokenizer *t)
{
    if (t->model != BAL_MODEL_BPE || t->ignore_merges || t->n_continuing + t->n_word_suffix > 0 ||
        bal_vocab_known(t, WORD_MARK, MARK_BYTES) < 0)
        return BAL_OK;
    t->joins_word_mark = bal_alloc(CODE_POINTS / 8, 1);
    if (t->joins_word_mark == NULL)
        return BAL_ENOMEM;
    memset(t->joins_word_mark, 0xFF, CODE_POINTS / 8); /* an unknown character has tokens of other texts: no cut */
    for (size_t i = 0; i < t->n_tokens; i++) {
        const bal_token *k = &t->tokens[i];
        uint32_t cp = 0;
        if (k->text != NULL && !k->outside && k->n > 0 && k->n <= 4 &&
            bal_utf8_decode((const unsigned char *)k->text, k->n, &cp) == k->n)
            t->joins_word_mark[cp / 8] &= (unsigned char)~(1U << cp % 8);
    }
    for (size_t i = 0; t->by_score && i < t->n_tokens; i++)
        if (t->tokens[i].text != NULL)
            note_token(t, &t->tokens[i]);
    for (size_t i = 0; !t->by_score && t->merges.slots != NULL && i <= t->merges.mask; i++)
        if (t->merges.slots[i].key != 0)
            note_token(t, &t->tokens[t->merges.slots[i].id]);
    return BAL_OK;
}

size_t bal_bpe_cut(const bal_tokenizer *t, const char *piece, size_t n)
{
    for (const char *at = piece + 1; n > MARK_BYTES;) {
        const char *hit = memmem(at, (size_t)(piece + n - at), WORD_MARK, MARK_BYTES), *c = hit;
        uint32_t cp = 0;
        if (hit == NULL)
            return n;
        while (c > piece && ((unsigned char)*--c & 0xC0) == 0x80)
            ;
        if (bal_utf8_decode((const unsigned char *)c, (size_t)(hit - c), &cp) > 0 &&
            (t->joins_word_mark[cp / 8] >> cp % 8 & 1) == 0)
            return (size_t)(hit - piece);
        at = hit + MARK_BYTES;
    }
    return n;
}

bal_status bal_bpe_encode(const bal_tokenizer *t, const char *piece, size_t n, bal_ids *out)
{
    symbol small_symbols[SMALL];
    candidate small_heap[3 * SMALL];
    work w = {small_symbols, small_heap, 0, 0};
    bal_status status = BAL_OK;
    if (n == 0)
        return BAL_OK;
    int32_t whole = t->ignore_merges ? bal_vocab_known(t, piece, n) : -1;
    if (whole >= 0)
        return bal_ids_append(out, whole);
    size_t most = n; /* symbols: a byte each, also those of what is put around a character */
    if (t->n_continuing + t->n_word_suffix > 0 && t->byte_fallback)
        most = n * (1 + t->n_continuing) + t->n_word_suffix;
    if (most > SMALL) { /* each merge puts at most two candidates in: n - 1 at first, 2 (n - 1) later */
        w.symbols = bal_alloc(most, sizeof *w.symbols);
        w.heap = bal_alloc(most, 3 * sizeof *w.heap);
        BAL_TRY(w.symbols == NULL || w.heap == NULL ? BAL_ENOMEM : BAL_OK);
    }
    BAL_TRY(split_symbols(t, piece, n, &w));
    for (size_t i = 0; i + 1 < w.n_symbols; i++)
        consider(t, piece, &w, (int32_t)i, (int32_t)i + 1);
    while (w.n_heap > 0) {
        candidate c = heap_pop(&w);
        symbol *a = &w.symbols[c.place];
        if (a->id == GONE || a->id != c.left || a->next < 0)
            continue;
        symbol *b = &w.symbols[a->next];
        if (b->id != c.right || (t->by_score && a->n + b->n != t->tokens[c.id].n))
            continue; /* a neighbour was merged meanwhile */
        a->id = c.id;
        a->n += b->n;
        b->id = GONE;
        a->next = b->next;
        if (a->next >= 0)
            w.symbols[a->next].prev = (int32_t)c.place;
        consider(t, piece, &w, a->prev, (int32_t)c.place);
        consider(t, piece, &w, (int32_t)c.place, a->next);
    }
    for (int32_t i = w.n_symbols > 0 ? 0 : -1; i >= 0 && status == BAL_OK; i = w.symbols[i].next)
        status = put_symbol(t, piece, &w.symbols[i], out);
out:
    if (w.symbols != small_symbols)
        bal_free(w.symbols);
    if (w.heap != small_heap)
        bal_free(w.heap);
    return status;
}
