/* Texts as word ids, and counts of n-grams.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ANALYZE_NGRAMS_H
#define BAL_ANALYZE_NGRAMS_H

#include "lib/base/status.h"

#include <stddef.h>
#include <stdint.h>

typedef enum word_rule {
    WORDS_AT_SPACE, /* split at white space, empty words dropped */
    WORDS_SINGLE,   /* split at each single space, empty words kept */
    WORDS_ALNUM     /* lower case; every run outside [a-z0-9] separates */
} word_rule;

/* Words of all texts, numbered by first occurrence; text i is words[start[i] .. start[i + 1]). */
typedef struct word_table {
    uint32_t *words;
    size_t *start;
    size_t n_texts, n_words, n_distinct;
} word_table;
bal_status words_build(word_table *w, const char *const *texts, size_t n, word_rule rule);
void words_dispose(word_table *w);

/* Counts of n-grams (n <= 4) in a hash table; an n-gram is its words' numbers. */
typedef struct ngram_entry {
    uint32_t words[4];
    uint32_t count, texts, last_text; /* texts: how many texts hold it (last_text is text index + 1) */
} ngram_entry;
typedef struct ngram_table {
    ngram_entry *slots;
    size_t mask, n_distinct, n;
    uint64_t total;
} ngram_table;
bal_status ngrams_init(ngram_table *t, size_t n, size_t capacity);
void ngrams_clear(ngram_table *t);
void ngrams_dispose(ngram_table *t);
/* Adds the n-grams of one text. */
void ngrams_add(ngram_table *t, const uint32_t *words, size_t n_words, uint32_t text);
const ngram_entry *ngrams_find(const ngram_table *t, const uint32_t *gram);

#endif
