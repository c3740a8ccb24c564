/* Quantisation of rows into GGUF's block types: what dequant_isa.c describes, the other way.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_QUANTIZE_H
#define BAL_TENSOR_QUANTIZE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum bal_quant {
    BAL_QUANT_F32,
    BAL_QUANT_F16,
    BAL_QUANT_BF16,
    BAL_QUANT_Q8_0,
    BAL_QUANT_Q4_0,
    BAL_QUANT_Q4_1,
    BAL_QUANT_Q4_K,
    BAL_QUANT_Q6_K,
    BAL_QUANT_COUNT
} bal_quant;

/* Name ("Q4_K"), number of the type in a GGUF file, its general.file_type, elements and bytes of a block. */
typedef struct bal_quant_info {
    const char *name;
    uint32_t id, file_type;
    size_t block, bytes;
} bal_quant_info;

const bal_quant_info *bal_quant_of(bal_quant q);
/* By name in any case; false if there is none. */
bool bal_quant_parse(const char *name, bal_quant *out);

/* n finite values (a multiple of the block) to n / block * bytes bytes at out.  The scales are chosen to make the sum
 * of squared errors small: the range of the block first, then least squares on the rounded values. */
void bal_quantize_row(bal_quant q, const float *x, size_t n, void *out);

#endif
