/* The elementwise loops of the layers, one table per instruction set (lib/tensor/isa.h).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NN_OPS_H
#define BAL_NN_OPS_H

#include "lib/tensor/isa.h"
#include "lib/tensor/real.h"

#include <stddef.h>

typedef struct bal_nn_ops {
    /* Largest of n > 0 values. */
    real_t (*max)(const real_t *x, size_t n);
    /* x[i] = e^(x[i] - shift); returns their sum.  Needs x[i] - shift <= 88. */
    real_t (*exp_sum)(real_t *x, size_t n, real_t shift);
    void (*scale)(real_t *x, size_t n, real_t factor);
    double (*dot)(const real_t *x, const real_t *y, size_t n);
    /* x[i] = cap tanh(x[i] / cap); slope[i] (may be NULL) = 1 - tanh(x[i] / cap)^2. */
    void (*softcap)(real_t *x, size_t n, real_t cap, real_t *slope);
    /* x[i] *= y[i] */
    void (*multiply)(real_t *x, const real_t *y, size_t n);
    /* p[i] = p[i] (dp[i] - delta), into dp. */
    void (*softmax_backward)(const real_t *p, real_t *dp, size_t n, real_t delta);
    /* out = silu(gate) * up. */
    void (*swiglu)(const real_t *gate, const real_t *up, real_t *out, size_t n);
    /* dgate, dup from dout; dup may be dout. */
    void (*swiglu_backward)(const real_t *gate, const real_t *up, const real_t *dout, real_t *dgate, real_t *dup,
                            size_t n);
    /* y = x r (w + offset) */
    void (*norm)(const real_t *x, const real_t *w, real_t offset, real_t r, real_t *y, size_t n);
    /* sum of x dy (w + offset), in double */
    double (*norm_dot)(const real_t *x, const real_t *w, real_t offset, const real_t *dy, size_t n);
    /* dx += r (dy (w + offset) - x c) */
    void (*norm_backward)(const real_t *x, const real_t *w, real_t offset, const real_t *dy, real_t r, real_t c,
                          real_t *dx, size_t n);
    /* y += x */
    void (*add)(const real_t *x, real_t *y, size_t n);
} bal_nn_ops;

BAL_ISA_DECLARE(bal_nn_ops, bal_nn_ops);

#endif
