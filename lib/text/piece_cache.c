/* The ids of pieces that were encoded before, within one text: words come back.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <string.h>

enum { MOST_ENTRIES = 1 << 15, BYTES_AN_ENTRY = 16, MAX_TEXT = 31, MAX_IDS = 8 };

/* A table without chains: a piece drives out the one that was in its place. */
typedef struct entry {
    int32_t ids[MAX_IDS];
    unsigned char n_ids, n; /* n 0: empty */
    char text[MAX_TEXT + 1];
} entry;

struct bal_piece_cache {
    size_t mask;
    entry entries[];
};

bal_piece_cache *bal_piece_cache_new(size_t n_text)
{
    size_t n = 256;
    while (n < MOST_ENTRIES && n < n_text / BYTES_AN_ENTRY)
        n *= 2;
    bal_piece_cache *c = bal_alloc(1, sizeof *c + n * sizeof(entry));
    if (c != NULL)
        c->mask = n - 1;
    return c;
}

void bal_piece_cache_free(bal_piece_cache *c)
{
    bal_free(c);
}

static entry *place(bal_piece_cache *c, const char *piece, size_t n)
{
    uint64_t h = n * 0x9E3779B97F4A7C15ULL, part;
    for (; n >= sizeof part; n -= sizeof part, piece += sizeof part) {
        memcpy(&part, piece, sizeof part);
        h = (h ^ part) * 0xD1B54A32D192ED03ULL;
        h ^= h >> 32;
    }
    part = 0;
    memcpy(&part, piece, n);
    h = (h ^ part) * 0xD1B54A32D192ED03ULL;
    return &c->entries[(h ^ h >> 29) >> 20 & c->mask];
}

bool bal_piece_cache_get(bal_piece_cache *c, const char *piece, size_t n, bal_ids *out, bal_status *status)
{
    if (n == 0 || n > MAX_TEXT)
        return false;
    const entry *e = place(c, piece, n);
    if (e->n != n || memcmp(e->text, piece, n) != 0)
        return false;
    *status = BAL_OK;
    for (size_t i = 0; i < e->n_ids && *status == BAL_OK; i++)
        *status = bal_ids_append(out, e->ids[i]);
    return true;
}

void bal_piece_cache_put(bal_piece_cache *c, const char *piece, size_t n, const int32_t *ids, size_t n_ids)
{
    if (n == 0 || n > MAX_TEXT || n_ids > MAX_IDS)
        return;
    entry *e = place(c, piece, n);
    e->n = (unsigned char)n;
    e->n_ids = (unsigned char)n_ids;
    memcpy(e->text, piece, n);
    memcpy(e->ids, ids, n_ids * sizeof *ids);
}
