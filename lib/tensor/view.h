/* A frozen matrix in its file's own layout, and its dequantisation.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_VIEW_H
#define BAL_TENSOR_VIEW_H

#include "lib/base/status.h"
#include "lib/tensor/real.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum bal_dtype {
    BAL_DTYPE_F32,
    BAL_DTYPE_F16,
    BAL_DTYPE_BF16,
    BAL_DTYPE_F64,
    BAL_DTYPE_Q8_0,
    BAL_DTYPE_Q4_0,
    BAL_DTYPE_Q4_1,
    BAL_DTYPE_Q5_0,
    BAL_DTYPE_Q5_1,
    BAL_DTYPE_Q4_K,
    BAL_DTYPE_Q5_K,
    BAL_DTYPE_Q6_K,
    BAL_DTYPE_NF4, /* in memory only: lib/tensor/nf4.h */
    BAL_DTYPE_COUNT
} bal_dtype;

const char *bal_dtype_name(bal_dtype t);
/* Elements in a block (1 for the float types) and bytes of a block. */
size_t bal_dtype_block(bal_dtype t);
size_t bal_dtype_block_bytes(bal_dtype t);
/* Bytes of one row of cols elements; BAL_EFORMAT if cols is not a multiple of the block. */
bal_status bal_dtype_row_bytes(bal_dtype t, size_t cols, size_t *bytes);

/* rows x cols (out x in), row-major; quantisation blocks run along a row.
 * rope_head_dim: 0, or the head size d of a GGUF q/k matrix, whose file order of rows differs: within each
 * head of d rows, row i < d/2 of Hugging Face is file row 2i, and row i + d/2 is file row 2i+1.  Everybody
 * outside this file sees Hugging Face's order.
 * low_r: 0, or the rank of a product that belongs to the matrix beside what is stored: its values are those of data
 * + low_scale low_b low_a (a base that was packed without its principal part). */
typedef struct bal_view {
    bal_dtype dtype;
    size_t rows, cols, row_bytes;
    const void *data;
    uint32_t rope_head_dim, low_r;
    real_t low_scale;
    const real_t *low_a, *low_b; /* low_r x cols, rows x low_r */
} bal_view;

/* Start of logical row r in the file's layout: without the product. */
const void *bal_view_row(const bal_view *v, size_t r);
/* The whole matrix as contiguous real_t if it is stored just so (no conversion, no permutation), else NULL. */
const real_t *bal_view_dense(const bal_view *v);
/* The view of rows row0 .. row0+n-1.  With rope_head_dim > 0, row0 and n must be multiples of it. */
bal_view bal_view_rows(const bal_view *v, size_t row0, size_t n);
/* out[i*ld + j] = element (row0 + i, j), i < n_rows, j < cols.  Serial. */
void bal_view_dequant(const bal_view *v, size_t row0, size_t n_rows, real_t *out, size_t ld);
/* The same with the thread pool. */
void bal_view_dequant_parallel(const bal_view *v, size_t row0, size_t n_rows, real_t *out, size_t ld);
/* One row to float (inference) and to double. */
void bal_row_to_f32(bal_dtype t, const void *row, size_t cols, float *out);

float bal_f16_to_f32(uint16_t h);
uint16_t bal_f32_to_f16(float f); /* round to nearest even */
float bal_bf16_to_f32(uint16_t h);
uint16_t bal_f32_to_bf16(float f); /* round to nearest even */
/* n of them. */
void bal_row_to_bf16(const float *x, size_t n, uint16_t *out);

#endif
