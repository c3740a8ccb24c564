/* The table of dequantisation loops, one per instruction set (lib/tensor/isa.h).  All sets give the same bits:
 * each value takes at most one rounding, with or without fused multiply-add.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_DEQUANT_H
#define BAL_TENSOR_DEQUANT_H

#include "lib/tensor/isa.h"
#include "lib/tensor/view.h"

/* n elements (a multiple of the block) from row, at any alignment, to out. */
typedef void bal_to_f32_fn(const void *row, size_t n, float *out);

typedef struct bal_dequant_ops {
    bal_to_f32_fn *to_f32[BAL_DTYPE_COUNT];
    void (*to_bf16)(const float *x, size_t n, uint16_t *out); /* as bal_f32_to_bf16() */
} bal_dequant_ops;

BAL_ISA_DECLARE(bal_dequant_ops, bal_dequant_ops);

#endif
