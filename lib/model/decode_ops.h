/* The loops of attention with a cache and of the vocabulary, one table per instruction set (lib/tensor/isa.h).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_DECODE_OPS_H
#define BAL_MODEL_DECODE_OPS_H

#include "lib/tensor/isa.h"
#include "lib/tensor/real.h"

#include <stdbool.h>
#include <stddef.h>

enum { BAL_KEY_BLOCK = 16 }; /* keys lie in blocks of 16 positions, [block][element][position in the block] */

typedef struct bal_decode_ops {
    /* out(d) = softmax(scale q . keys) values over the positions first .. n-1, always in their order; scores: room for n
     * rounded up to a block.  values: n x d.  cap: soft cap of the scores, 0: none. */
    void (*attend)(const real_t *q, const real_t *keys, const real_t *values, size_t first, size_t n, size_t d,
                   real_t scale, real_t cap, real_t *scores, real_t *out);
    /* sum of exp(x[i] - max). */
    double (*sum_exp)(const real_t *x, size_t n, real_t max);
    real_t (*max)(const real_t *x, size_t n);
    bool (*all_finite)(const real_t *x, size_t n); /* no NaN, no infinity */
    /* gate[i] = silu(gate[i]) up[i]. */
    void (*swiglu)(real_t *restrict gate, const real_t *restrict up, size_t n);
} bal_decode_ops;

BAL_ISA_DECLARE(bal_decode_ops, bal_decode_ops);

#endif
