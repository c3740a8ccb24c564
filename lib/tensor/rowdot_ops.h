/* The table of row-product loops, one per instruction set (lib/tensor/isa.h).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_ROWDOT_OPS_H
#define BAL_TENSOR_ROWDOT_OPS_H

#include "lib/tensor/isa.h"
#include "lib/tensor/real.h"
#include "lib/tensor/view.h"

#include <stdbool.h>
#include <stddef.h>

/* y(M, N) = x(M, K) w(N, K)^T + bias, or y += scale x w^T. */
typedef struct bal_rowdot_block {
    size_t M, N, K;
    const real_t *x, *w, *bias;
    const unsigned char *const *packed; /* instead of w: N rows of a packed type */
    real_t *y;
    size_t ldx, ldw, ldy;
    bool add;
    real_t scale;
    const uint16_t *x16, *w16; /* instead of x and w: bf16, K a multiple of 32 */
} bal_rowdot_block;

typedef struct bal_rowdot_ops {
    void (*block)(const bal_rowdot_block *b);
    /* Rows of x up to which the weights are unpacked on the way; for more, unpacking once beforehand is cheaper. */
    size_t packed_rows;
    /* By type, NULL where there is none.  1 <= M <= packed_rows, K a multiple of 32; the bits of block(). */
    void (*packed[BAL_DTYPE_COUNT])(const bal_rowdot_block *b);
} bal_rowdot_ops;

BAL_ISA_DECLARE(bal_rowdot_ops, bal_rowdot_ops);

/* The same of bf16 operands with f32 sums: x16 meets w16, or packed weights that are rounded on the way.  NULL in a set
 * that has no such instructions; where it has, the machine may still lack them (bal_rowdot_bf16_is_native()). */
typedef struct bal_rowdot16_ops {
    void (*block)(const bal_rowdot_block *b);
    size_t packed_rows;
    void (*packed[BAL_DTYPE_COUNT])(const bal_rowdot_block *b);
} bal_rowdot16_ops;

BAL_ISA_DECLARE(bal_rowdot16_ops, bal_rowdot16_ops);

#endif
