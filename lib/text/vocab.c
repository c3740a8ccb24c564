/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_text(const char *text, size_t n)
{
    uint64_t h = 0xCBF29CE484222325ULL ^ n;
    for (size_t i = 0; i < n; i++)
        h = (h ^ (unsigned char)text[i]) * 0x100000001B3ULL;
    return h ^ (h >> 29);
}

static uint64_t hash_key(uint64_t k)
{
    k = (k ^ (k >> 31)) * 0x9E3779B97F4A7C15ULL;
    return k ^ (k >> 32);
}

static size_t table_size(size_t n)
{
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

bal_status bal_vocab_reserve(bal_tokenizer *t, size_t n_tokens, size_t n_bytes)
{
    t->tokens = bal_alloc(n_tokens + 1, sizeof *t->tokens);
    t->texts = bal_alloc(n_bytes + n_tokens + 1, 1);
    t->n_tokens = n_tokens;
    t->cap_texts = n_bytes + n_tokens + 1;
    return t->tokens == NULL || t->texts == NULL ? BAL_ENOMEM : BAL_OK;
}

bal_status bal_vocab_add(bal_tokenizer *t, int32_t id, const char *text, size_t n)
{
    if (id < 0 || (size_t)id >= t->n_tokens || n > BAL_MAX_TOKEN_BYTES || t->n_texts + n + 1 > t->cap_texts)
        return bal_fail(BAL_EFORMAT, "token '%.40s' has id %d, outside the vocabulary of %zu", text, (int)id,
                        t->n_tokens);
    if (t->tokens[id].text != NULL) {
        if (t->tokens[id].n == n && memcmp(t->tokens[id].text, text, n) == 0)
            return BAL_OK;
        return bal_fail(BAL_EFORMAT, "id %d belongs to two tokens, '%.40s' and '%.40s'", (int)id, t->tokens[id].text,
                        text);
    }
    char *copy = t->texts + t->n_texts;
    memcpy(copy, text, n);
    copy[n] = '\0';
    t->n_texts += n + 1;
    t->tokens[id].text = copy;
    t->tokens[id].n = (uint32_t)n;
    return BAL_OK;
}

void bal_vocab_index_one(bal_tokenizer *t, int32_t id)
{
    const bal_token *k = &t->tokens[id];
    if (bal_vocab_find(t, k->text, k->n) >= 0) /* the first of equal texts is found */
        return;
    size_t at = hash_text(k->text, k->n) & t->by_text.mask;
    while (t->by_text.slots[at] != 0)
        at = (at + 1) & t->by_text.mask;
    t->by_text.slots[at] = (uint32_t)id + 1;
}

bal_status bal_vocab_index(bal_tokenizer *t)
{
    size_t size = table_size(t->n_tokens);
    bal_free(t->by_text.slots);
    t->by_text.slots = bal_alloc(size, sizeof *t->by_text.slots);
    t->by_text.mask = size - 1;
    if (t->by_text.slots == NULL)
        return BAL_ENOMEM;
    for (size_t id = 0; id < t->n_tokens; id++)
        if (t->tokens[id].text != NULL)
            bal_vocab_index_one(t, (int32_t)id);
    return BAL_OK;
}

int32_t bal_vocab_find(const bal_tokenizer *t, const char *text, size_t n)
{
    for (size_t at = hash_text(text, n) & t->by_text.mask; t->by_text.slots[at] != 0; at = (at + 1) & t->by_text.mask) {
        uint32_t id = t->by_text.slots[at] - 1;
        if (t->tokens[id].n == n && memcmp(t->tokens[id].text, text, n) == 0)
            return (int32_t)id;
    }
    return -1;
}

int32_t bal_vocab_known(const bal_tokenizer *t, const char *text, size_t n)
{
    int32_t id = bal_vocab_find(t, text, n);
    return id >= 0 && !t->tokens[id].outside ? id : -1;
}

void bal_vocab_find_bytes(bal_tokenizer *t)
{
    for (int b = 0; b < 256; b++) {
        char name[8];
        (void)snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        t->byte_ids[b] = bal_vocab_known(t, name, 6);
    }
}

bal_status bal_merges_reserve(bal_tokenizer *t, size_t n)
{
    size_t size = table_size(n);
    t->merges.slots = bal_alloc(size, sizeof *t->merges.slots);
    t->merges.mask = size - 1;
    return t->merges.slots == NULL ? BAL_ENOMEM : BAL_OK;
}

static uint64_t merge_key(uint32_t left, uint32_t right)
{
    return ((uint64_t)left << 32 | right) + 1; /* 0 marks an empty slot; ids stay far below 2^32 */
}

bal_status bal_merges_add(bal_tokenizer *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t id, bool last)
{
    uint64_t key = merge_key(left, right);
    size_t at = hash_key(key) & t->merges.mask;
    for (size_t tries = 0; t->merges.slots[at].key != 0; at = (at + 1) & t->merges.mask) {
        if (t->merges.slots[at].key == key) {
            t->merges.slots[at].rank = last ? rank : t->merges.slots[at].rank;
            return BAL_OK;
        }
        if (++tries > t->merges.mask)
            return bal_fail(BAL_ELIMIT, "table of merges is full");
    }
    t->merges.slots[at] = (bal_merge){key, rank, id};
    return BAL_OK;
}

const bal_merge *bal_merges_find(const bal_tokenizer *t, uint32_t left, uint32_t right)
{
    uint64_t key = merge_key(left, right);
    if (t->merges.slots == NULL)
        return NULL;
    for (size_t at = hash_key(key) & t->merges.mask; t->merges.slots[at].key != 0; at = (at + 1) & t->merges.mask)
        if (t->merges.slots[at].key == key)
            return &t->merges.slots[at];
    return NULL;
}
