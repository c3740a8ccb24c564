/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/data/order.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { POOL_BATCHES = 50 }; /* batches in which lengths are sorted: long enough to group, short enough to stay random */

bal_status bal_order_init(bal_order *o, bal_order_kind kind, uint64_t seed, size_t batch, const bal_dataset *data,
                          const uint32_t *items, size_t n)
{
    *o = (bal_order){.kind = kind, .seed = seed, .batch = batch, .data = data, .n = items != NULL ? n : data->n};
    if (o->n == 0 || o->n > UINT32_MAX)
        return bal_fail(BAL_ELIMIT, "a data set of %zu records cannot be ordered", o->n);
    o->items = bal_alloc(o->n, sizeof *o->items);
    o->all = o->items != NULL ? bal_alloc(o->n, sizeof *o->all) : NULL;
    if (o->all == NULL) {
        bal_order_dispose(o);
        return BAL_ENOMEM;
    }
    for (size_t i = 0; i < o->n; i++)
        o->all[i] = items != NULL ? items[i] : (uint32_t)i;
    return BAL_OK;
}

void bal_order_dispose(bal_order *o)
{
    if (o == NULL)
        return;
    bal_free(o->items);
    bal_free(o->all);
    *o = (bal_order){0};
}

/* Heapsort by falling length, ties by place: no memory, and the same everywhere. */
static bool before(const bal_dataset *d, uint32_t a, uint32_t b)
{
    size_t la = bal_dataset_length(d, a), lb = bal_dataset_length(d, b);
    return la != lb ? la > lb : a < b;
}

static void sift(const bal_dataset *d, uint32_t *x, size_t root, size_t n)
{
    for (;;) {
        size_t child = 2 * root + 1;
        if (child >= n)
            return;
        if (child + 1 < n && before(d, x[child], x[child + 1]))
            child++;
        if (!before(d, x[root], x[child]))
            return;
        uint32_t t = x[root];
        x[root] = x[child];
        x[child] = t;
        root = child;
    }
}

static void sort_by_length(const bal_dataset *d, uint32_t *x, size_t n)
{
    for (size_t i = n / 2; i-- > 0;)
        sift(d, x, i, n);
    for (size_t end = n; end-- > 1;) {
        uint32_t t = x[0];
        x[0] = x[end];
        x[end] = t;
        sift(d, x, 0, end);
    }
}

static void arrange(bal_order *o, uint64_t epoch)
{
    memcpy(o->items, o->all, o->n * sizeof *o->items);
    if (o->kind != BAL_ORDER_FILE) {
        char stream[48];
        bal_rng rng;
        (void)snprintf(stream, sizeof stream, "order/%llu", (unsigned long long)epoch);
        bal_rng_init(&rng, o->seed, stream);
        bal_rng_shuffle(&rng, o->items, o->n);
        size_t pool = o->batch * POOL_BATCHES;
        for (size_t i = 0; o->kind == BAL_ORDER_LENGTH && i < o->n; i += pool)
            sort_by_length(o->data, o->items + i, o->n - i < pool ? o->n - i : pool);
    }
    o->epoch = epoch;
    o->ready = true;
}

size_t bal_order_at(bal_order *o, uint64_t position)
{
    uint64_t epoch = position / o->n;
    if (!o->ready || epoch != o->epoch)
        arrange(o, epoch);
    return o->items[position % o->n];
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

bal_status bal_split(size_t n, double share, uint64_t seed, uint32_t **train, size_t *n_train, uint32_t **validation,
                     size_t *n_validation)
{
    *train = *validation = NULL;
    if (n < 2 || n > UINT32_MAX)
        return bal_fail(BAL_EINVAL, "a set of %zu records cannot be split for validation", n);
    size_t k = (size_t)ceil(share * (double)n);
    k = k < 1 ? 1 : k > n - 1 ? n - 1 : k;
    uint32_t *mixed = bal_alloc(n, sizeof *mixed);
    *train = bal_alloc(n - k, sizeof **train);
    *validation = bal_alloc(k, sizeof **validation);
    if (mixed == NULL || *train == NULL || *validation == NULL) {
        bal_free(mixed);
        bal_free(*train);
        bal_free(*validation);
        *train = *validation = NULL;
        return BAL_ENOMEM;
    }
    for (size_t i = 0; i < n; i++)
        mixed[i] = (uint32_t)i;
    bal_rng rng;
    bal_rng_init(&rng, seed, "split");
    bal_rng_shuffle(&rng, mixed, n);
    memcpy(*validation, mixed, k * sizeof *mixed);
    memcpy(*train, mixed + k, (n - k) * sizeof *mixed);
    qsort(*validation, k, sizeof *mixed, by_value);
    qsort(*train, n - k, sizeof *mixed, by_value);
    *n_validation = k;
    *n_train = n - k;
    bal_free(mixed);
    return BAL_OK;
}
