/* SPDX-License-Identifier: Apache-2.0 */
#include "analyze/ngrams.h"

#include "lib/base/mem.h"

#include <stdbool.h>
#include <string.h>

static bool is_space(unsigned char c)
{
    return c == ' ' || (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x1F);
}

static bool is_alnum(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

static bool separates(unsigned char c, word_rule rule)
{
    return rule == WORDS_AT_SPACE ? is_space(c) : rule == WORDS_SINGLE ? c == ' ' : !is_alnum(c);
}

static unsigned char folded(unsigned char c, word_rule rule)
{
    return rule == WORDS_ALNUM && c >= 'A' && c <= 'Z' ? (unsigned char)(c + 32) : c;
}

typedef struct word_slot {
    const char *text;
    size_t n;
    uint32_t id;
} word_slot;

static bool same_word(const word_slot *s, const char *text, size_t n, word_rule rule)
{
    if (s->n != n)
        return false;
    for (size_t i = 0; i < n; i++)
        if (folded((unsigned char)s->text[i], rule) != folded((unsigned char)text[i], rule))
            return false;
    return true;
}

static uint32_t word_id(word_slot *slots, size_t mask, const char *text, size_t n, word_rule rule, size_t *n_distinct)
{
    uint64_t h = 0xCBF29CE484222325ULL;
    for (size_t i = 0; i < n; i++)
        h = (h ^ folded((unsigned char)text[i], rule)) * 0x100000001B3ULL;
    size_t at = (size_t)(h ^ (h >> 32)) & mask;
    while (slots[at].text != NULL && !same_word(&slots[at], text, n, rule))
        at = (at + 1) & mask;
    if (slots[at].text == NULL)
        slots[at] = (word_slot){text, n, (uint32_t)(*n_distinct)++};
    return slots[at].id;
}

/* Walks over the words of one text; word NULL: counts only. */
static size_t scan(const char *text, word_rule rule, word_slot *slots, size_t mask, size_t *n_distinct, uint32_t *words)
{
    size_t n = 0;
    const char *p = text;
    for (;;) {
        size_t len = 0;
        while (p[len] != '\0' && !separates((unsigned char)p[len], rule))
            len++;
        if (len > 0 || rule == WORDS_SINGLE) {
            if (words != NULL)
                words[n] = word_id(slots, mask, p, len, rule, n_distinct);
            n++;
        }
        if (p[len] == '\0')
            return n;
        p += len + 1;
    }
}

bal_status words_build(word_table *w, const char *const *texts, size_t n, word_rule rule)
{
    size_t mask = 15;
    bal_status status = BAL_OK;
    word_slot *slots = NULL;
    *w = (word_table){.n_texts = n};
    w->start = bal_alloc(n + 1, sizeof *w->start);
    if (w->start == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n; i++)
        w->start[i + 1] = w->start[i] + scan(texts[i], rule, NULL, 0, NULL, NULL);
    w->n_words = w->start[n];
    while (mask < 2 * w->n_words + 16)
        mask = 2 * mask + 1;
    slots = bal_alloc(mask + 1, sizeof *slots);
    w->words = bal_alloc(w->n_words + 1, sizeof *w->words);
    if (slots == NULL || w->words == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < n; i++)
        (void)scan(texts[i], rule, slots, mask, &w->n_distinct, w->words + w->start[i]);
out:
    bal_free(slots);
    if (status != BAL_OK)
        words_dispose(w);
    return status;
}

void words_dispose(word_table *w)
{
    bal_free(w->words);
    bal_free(w->start);
    *w = (word_table){0};
}

bal_status ngrams_init(ngram_table *t, size_t n, size_t capacity)
{
    size_t size = 16;
    while (size < 2 * capacity + 2)
        size *= 2;
    *t = (ngram_table){.mask = size - 1, .n = n};
    t->slots = bal_alloc(size, sizeof *t->slots);
    return t->slots == NULL ? BAL_ENOMEM : BAL_OK;
}

void ngrams_clear(ngram_table *t)
{
    memset(t->slots, 0, (t->mask + 1) * sizeof *t->slots);
    t->n_distinct = 0;
    t->total = 0;
}

void ngrams_dispose(ngram_table *t)
{
    bal_free(t->slots);
    *t = (ngram_table){0};
}

static ngram_entry *slot_of(const ngram_table *t, const uint32_t *gram)
{
    uint64_t h = 0;
    for (size_t i = 0; i < t->n; i++) {
        h = (h ^ gram[i]) * 0x9E3779B97F4A7C15ULL;
        h ^= h >> 29;
    }
    size_t at = (size_t)h & t->mask;
    while (t->slots[at].count > 0 && memcmp(t->slots[at].words, gram, t->n * sizeof *gram) != 0)
        at = (at + 1) & t->mask;
    return &t->slots[at];
}

void ngrams_add(ngram_table *t, const uint32_t *words, size_t n_words, uint32_t text)
{
    for (size_t i = 0; i + t->n <= n_words; i++) {
        ngram_entry *e = slot_of(t, words + i);
        if (e->count == 0) {
            memcpy(e->words, words + i, t->n * sizeof *words);
            t->n_distinct++;
        }
        e->count++;
        t->total++;
        if (e->last_text != text + 1) {
            e->last_text = text + 1;
            e->texts++;
        }
    }
}

const ngram_entry *ngrams_find(const ngram_table *t, const uint32_t *gram)
{
    const ngram_entry *e = slot_of(t, gram);
    return e->count > 0 ? e : NULL;
}
