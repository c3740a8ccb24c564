/* The table of row-product loops, one per instruction set (lib/tensor/isa.h).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_ROWDOT_OPS_H
#define BAL_TENSOR_ROWDOT_OPS_H

#include "lib/tensor/isa.h"
#include "lib/tensor/real.h"

#include <stdbool.h>
#include <stddef.h>

/* y(M, N) = x(M, K) w(N, K)^T + bias, or y += scale x w^T. */
typedef struct bal_rowdot_block {
    size_t M, N, K;
    const real_t *x, *w, *bias;
    real_t *y;
    size_t ldx, ldw, ldy;
    bool add;
    real_t scale;
} bal_rowdot_block;

typedef struct bal_rowdot_ops {
    void (*block)(const bal_rowdot_block *b);
} bal_rowdot_ops;

BAL_ISA_DECLARE(bal_rowdot_ops, bal_rowdot_ops);

#endif
