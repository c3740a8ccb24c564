/* The second library behind lib/tensor/gemm: oneDNN, opened at the first product when it is installed.  It is opened
 * and not linked because its loading takes longer than most commands of balora.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_GEMM_DNNL_H
#define BAL_TENSOR_GEMM_DNNL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Opens the library (once; later calls only answer).  BALORA_GEMM=openblas in the environment keeps it closed.
 * false: not there, or a product that was tried is wrong. */
bool bal_dnnl_open(void);
/* Whether this library is the faster one for a tile (measured on AVX-512 and AVX2: it is, but for small squares). */
bool bal_dnnl_wanted(bool ta, bool tb, size_t M, size_t N, size_t K);
/* C = alpha op(A) op(B) + beta C, row-major, on the calling thread alone; false: the library refused. */
bool bal_dnnl_sgemm(bool ta, bool tb, size_t M, size_t N, size_t K, float alpha, const float *A, size_t lda,
                    const float *B, size_t ldb, float beta, float *C, size_t ldc);
/* Puts it aside, or takes it up again: for comparisons, at a time when nobody multiplies. */
void bal_dnnl_use(bool use);
/* C = A op(B) + beta C of bf16 operands with f32 sums; only where bal_dnnl_has_bf16(). */
void bal_dnnl_bf16gemm(bool tb, size_t M, size_t N, size_t K, const uint16_t *A, size_t lda, const uint16_t *B,
                       size_t ldb, float beta, float *C, size_t ldc);
/* Whether the library has that product; without the machine's own instructions it is slow. */
bool bal_dnnl_has_bf16(void);
/* "oneDNN 2.6.3", or NULL when it is not in use. */
const char *bal_dnnl_version(void);

#endif
