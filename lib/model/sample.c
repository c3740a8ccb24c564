/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/sample.h"

#include "lib/model/decode.h"

#include <math.h>
#include <stdlib.h>

static int by_weight(const void *a, const void *b)
{
    const bal_sample_item *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* Moves the k heaviest items of items[0..n) to the front, in no order: quickselect around a middle value. */
static void select_heaviest(bal_sample_item *items, size_t n, size_t k)
{
    size_t low = 0, high = n;
    while (high - low > 1) {
        bal_sample_item pivot = items[low + (high - low) / 2];
        size_t i = low, j = high - 1;
        for (;;) {
            while (by_weight(&items[i], &pivot) < 0)
                i++;
            while (by_weight(&items[j], &pivot) > 0)
                j--;
            if (i >= j)
                break;
            bal_sample_item swap = items[i];
            items[i] = items[j];
            items[j] = swap;
            i++;
            j--;
        }
        if (k <= j + 1 && j + 1 < high)
            high = j + 1;
        else if (k > j + 1)
            low = j + 1;
        else
            return;
    }
}

int32_t bal_sample(const real_t *logits, size_t vocab, const bal_sampling *s, bal_rng *rng, bal_sample_item *items)
{
    int32_t best = bal_logits_best(logits, vocab);
    size_t n = vocab;
    double total = 0;
    if (!(s->temperature > 0))
        return best;
    for (size_t i = 0; i < vocab; i++) {
        items[i].weight = exp(((double)logits[i] - (double)logits[best]) / s->temperature);
        items[i].token = (int32_t)i;
    }
    if (s->top_k > 0 && s->top_k < n) {
        select_heaviest(items, n, s->top_k);
        n = s->top_k;
        qsort(items, n, sizeof *items, by_weight); /* the order of selection must not matter */
    }
    for (size_t i = 0; i < n; i++)
        total += items[i].weight;
    if (s->top_p > 0 && s->top_p < 1) {
        double wanted = s->top_p * total, kept = 0;
        size_t m = 0;
        qsort(items, n, sizeof *items, by_weight);
        while (m < n && (m == 0 || kept < wanted))
            kept += items[m++].weight;
        n = m;
        total = kept;
    }
    double point = bal_rng_uniform(rng) * total, sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum += items[i].weight;
        if (point < sum)
            return items[i].token;
    }
    return n == vocab ? best : items[0].token; /* rounding left a rest */
}
