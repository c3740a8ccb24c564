/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/blocks.h"

#include "lib/base/mem.h"

#include <stdbool.h>
#include <string.h>

typedef struct matcher {
    const int32_t *a, *b;
    bool *popular;           /* [n_b] */
    uint32_t *length, *last; /* [n_b + 1] of the block that ends at a[i] and b[j - 1] */
    uint32_t *at_a, *at_b;
    size_t n;
} matcher;

typedef struct block {
    size_t i, j, size;
} block;

static void mark_popular(matcher *m, size_t n_b)
{
    for (size_t j = 0; n_b >= 200 && j < n_b; j++) {
        size_t count = 0;
        for (size_t k = 0; k < n_b; k++)
            count += m->b[k] == m->b[j];
        m->popular[j] = count > n_b / 100 + 1;
    }
}

/* The longest block within the limits, the first in a and then in b of equal ones; grown by equal neighbours. */
static block longest(matcher *m, size_t a0, size_t a1, size_t b0, size_t b1)
{
    block best = {a0, b0, 0};
    memset(m->last + b0, 0, (b1 - b0 + 1) * sizeof *m->last);
    for (size_t i = a0; i < a1; i++) {
        memset(m->length + b0, 0, (b1 - b0 + 1) * sizeof *m->length);
        for (size_t j = b0; j < b1; j++) {
            if (m->a[i] != m->b[j] || m->popular[j])
                continue;
            uint32_t k = (j > b0 ? m->last[j] : 0) + 1;
            m->length[j + 1] = k;
            if (k > best.size)
                best = (block){i + 1 - k, j + 1 - k, k};
        }
        uint32_t *swap = m->last;
        m->last = m->length;
        m->length = swap;
    }
    while (best.i > a0 && best.j > b0 && m->a[best.i - 1] == m->b[best.j - 1])
        best = (block){best.i - 1, best.j - 1, best.size + 1};
    while (best.i + best.size < a1 && best.j + best.size < b1 && m->a[best.i + best.size] == m->b[best.j + best.size])
        best.size++;
    return best;
}

static void blocks_between(matcher *m, size_t a0, size_t a1, size_t b0, size_t b1)
{
    while (a0 < a1 && b0 < b1) {
        block x = longest(m, a0, a1, b0, b1);
        if (x.size == 0)
            return;
        blocks_between(m, a0, x.i, b0, x.j); /* the left part; each is shorter, the depth is bounded by the length */
        for (size_t k = 0; k < x.size; k++) {
            m->at_a[m->n] = (uint32_t)(x.i + k);
            m->at_b[m->n++] = (uint32_t)(x.j + k);
        }
        a0 = x.i + x.size;
        b0 = x.j + x.size;
    }
}

bal_status bal_equal_positions(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b, uint32_t *at_a,
                               uint32_t *at_b, size_t *n)
{
    matcher m = {.a = a, .b = b, .at_a = at_a, .at_b = at_b};
    bal_status status = BAL_OK;
    m.popular = bal_alloc(n_b + 1, sizeof *m.popular);
    m.length = bal_alloc(n_b + 1, sizeof *m.length);
    m.last = bal_alloc(n_b + 1, sizeof *m.last);
    if (m.popular == NULL || m.length == NULL || m.last == NULL) {
        status = BAL_ENOMEM;
    } else {
        mark_popular(&m, n_b);
        blocks_between(&m, 0, n_a, 0, n_b);
    }
    *n = m.n;
    bal_free(m.popular);
    bal_free(m.length);
    bal_free(m.last);
    return status;
}
