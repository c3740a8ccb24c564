/* The tokens of a vocabulary as a tree of bytes: which of them a text begins with is found in one walk.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <stdlib.h>
#include <string.h>

typedef struct range {
    uint32_t low, high, depth; /* tokens [low, high) of the sorted list, equal in their first `depth` bytes */
} range;

typedef struct entry {
    const char *text;
    uint32_t n;
    int32_t id;
} entry;

static int by_text(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->n < y->n ? x->n : y->n);
    if (order != 0)
        return order;
    return x->n != y->n ? (x->n < y->n ? -1 : 1) : (x->id > y->id) - (x->id < y->id);
}

/* Nodes in order of depth: the children of a node are neighbours, those of node i are first[i] .. first[i + 1]. */
static void grow(bal_trie *trie, const entry *list, range *ranges, size_t n_entries)
{
    size_t n = 1;
    ranges[0] = (range){0, (uint32_t)n_entries, 0};
    for (size_t i = 0; i < n; i++) {
        range r = ranges[i];
        trie->ids[i] = -1;
        trie->first[i] = (uint32_t)n;
        for (; r.low < r.high && list[r.low].n == r.depth; r.low++)
            trie->ids[i] = list[r.low].id; /* of equal texts the last counts */
        while (r.low < r.high) {
            char label = list[r.low].text[r.depth];
            uint32_t end = r.low + 1;
            while (end < r.high && list[end].text[r.depth] == label)
                end++;
            trie->labels[n] = (unsigned char)label;
            ranges[n++] = (range){r.low, end, r.depth + 1};
            r.low = end;
        }
    }
    trie->first[n] = (uint32_t)n;
    trie->n = n;
}

bal_status bal_trie_build(bal_trie *trie, const bal_token *tokens, size_t n_tokens)
{
    size_t n = 0, bytes = 0;
    range *ranges = NULL;
    bal_status status = BAL_OK;
    entry *list = bal_alloc(n_tokens, sizeof *list);
    BAL_TRY(list == NULL ? BAL_ENOMEM : BAL_OK);
    for (size_t i = 0; i < n_tokens; i++) {
        if (tokens[i].text == NULL || tokens[i].outside || tokens[i].n == 0)
            continue;
        list[n++] = (entry){tokens[i].text, tokens[i].n, (int32_t)i};
        bytes += tokens[i].n;
    }
    if (bytes >= UINT32_MAX)
        BAL_TRY(bal_fail(BAL_ELIMIT, "the vocabulary has %zu bytes of text", bytes));
    if (n > 0)
        qsort(list, n, sizeof *list, by_text);
    ranges = bal_alloc(bytes + 1, sizeof *ranges);
    trie->first = bal_alloc(bytes + 2, sizeof *trie->first);
    trie->ids = bal_alloc(bytes + 1, sizeof *trie->ids);
    trie->labels = bal_alloc(bytes + 1, 1);
    BAL_TRY(ranges == NULL || trie->first == NULL || trie->ids == NULL || trie->labels == NULL ? BAL_ENOMEM : BAL_OK);
    grow(trie, list, ranges, n);
out:
    bal_free(list);
    bal_free(ranges);
    return status;
}

void bal_trie_dispose(bal_trie *trie)
{
    bal_free(trie->first);
    bal_free(trie->ids);
    bal_free(trie->labels);
    *trie = (bal_trie){0};
}

uint32_t bal_trie_step(const bal_trie *trie, uint32_t node, unsigned char byte)
{
    uint32_t low = trie->first[node], high = trie->first[node + 1];
    while (high - low > 8) {
        uint32_t mid = low + (high - low) / 2;
        if (trie->labels[mid] <= byte)
            low = mid;
        else
            high = mid;
    }
    for (; low < high; low++)
        if (trie->labels[low] == byte)
            return low;
    return 0;
}

int32_t bal_trie_find(const bal_trie *trie, const char *text, size_t n)
{
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++)
        if ((node = bal_trie_step(trie, node, (unsigned char)text[i])) == 0)
            return -1;
    return n > 0 ? trie->ids[node] : -1;
}
