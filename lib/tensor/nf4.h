/* NF4: sixteen levels where a normal distribution has equal mass, per block of 64 a magnitude (Dettmers et al. 2023,
 * arXiv 2305.14314, QLoRA).  Values and blocks are those of bitsandbytes; only the order of the nibbles in memory is
 * ours (lib/tensor/unpack.h), since no file holds them.
 *
 * The levels: with o = 0.9677083 the normal quantiles of eight equal steps from o down to 1/2 (without it), 0, and minus
 * those of seven such steps, all over the largest.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_NF4_H
#define BAL_TENSOR_NF4_H

#include "lib/base/status.h"
#include "lib/tensor/view.h"

#include <stdbool.h>
#include <stddef.h>

enum { BAL_NF4_LEVELS = 16, BAL_NF4_BLOCK = 64, BAL_NF4_BYTES = 36 };

#define BAL_NF4_TABLE                                                                                                  \
    {                                                                                                                  \
        -1.0F, -0.6961928009986877F, -0.5250730514526367F, -0.39491748809814453F, -0.28444138169288635F,               \
            -0.18477343022823334F, -0.09105003625154495F, 0.0F, 0.07958029955625534F, 0.16093020141124725F,            \
            0.24611230194568634F, 0.33791524171829224F, 0.44070982933044434F, 0.5626170039176941F,                     \
            0.7229568362236023F, 1.0F                                                                                  \
    }

/* n finite values (a multiple of 64) to n / 64 * 36 bytes: a = the largest magnitude of the block, then the nearest
 * level of x / a (of two as near the lower). */
void bal_nf4_quantize_row(const float *x, size_t n, void *out);

/* Which types a matrix can be packed into in memory: NF4 and those of lib/tensor/quantize.h that hold several elements
 * in a block. */
bool bal_can_pack(bal_dtype t);
/* One row of n finite values (whole blocks) into such a type. */
void bal_pack_row(bal_dtype t, const float *x, size_t n, void *out);
/* "nf4", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k" in any case; false for others. */
bool bal_pack_parse(const char *name, bal_dtype *out);
#define BAL_PACK_NAMES "nf4|q8_0|q4_0|q4_1|q4_k|q6_k"

#endif
