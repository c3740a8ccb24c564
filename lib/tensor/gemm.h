/* The one door to matrix products.  Row-major everywhere.  OpenBLAS behind it; a second backend (oneDNN) fits
 * behind the same functions.  Training promises the same bits for the same seed and thread count; inference,
 * which must not depend on the number of rows, uses lib/tensor/rowdot.h instead.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_GEMM_H
#define BAL_TENSOR_GEMM_H

#include "lib/tensor/real.h"
#include "lib/tensor/view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* C(M,N) = alpha op(A) op(B) + beta C; op(A) is M x K, op(B) K x N; ta: A is stored K x M; tb: B is stored N x K.
 * Inside a bal_parallel_for range it runs on that thread alone, else on all threads.  M, N or K may be 0. */
void bal_gemm(bool ta, bool tb, size_t M, size_t N, size_t K, real_t alpha, const real_t *A, size_t lda,
              const real_t *B, size_t ldb, real_t beta, real_t *C, size_t ldc);
/* The same in double, whatever real_t is. */
void bal_dgemm(bool ta, bool tb, size_t M, size_t N, size_t K, double alpha, const double *A, size_t lda,
               const double *B, size_t ldb, double beta, double *C, size_t ldc);

/* C(M,N) = A op(B) + beta C of bf16 operands with f32 sums, on oneDNN: only where bal_bf16_is_native(). */
void bal_gemm_bf16(bool tb, size_t M, size_t N, size_t K, const uint16_t *A, size_t lda, const uint16_t *B, size_t ldb,
                   float beta, float *C, size_t ldc);
/* Whether this machine multiplies bf16 itself (AVX512-BF16 or AMX, and oneDNN is there). */
bool bal_bf16_is_native(void);

/* How products with stored weights are computed.  bf16: both operands are rounded to bf16, sums are f32; on a machine
 * without such instructions the rounded operands are multiplied in f32, which gives the same up to the order of sums. */
typedef enum bal_compute { BAL_COMPUTE_F32, BAL_COMPUTE_BF16 } bal_compute;

/* Elements of scratch that the two functions below need for w and M rows (in f32 0 when w is dense). */
size_t bal_panel_size(bal_compute compute, const bal_view *w, size_t M);
/* Y(M, w.rows) = X(M, w.cols) W^T + beta Y.  panel: bal_panel_size() elements, overwritten. */
void bal_gemm_view_nt(bal_compute compute, size_t M, const real_t *X, size_t ldx, const bal_view *w, real_t beta,
                      real_t *Y, size_t ldy, real_t *panel);
/* dX(M, w.cols) = dY(M, w.rows) W + beta dX. */
void bal_gemm_view_nn(bal_compute compute, size_t M, const real_t *dY, size_t ldy, const bal_view *w, real_t beta,
                      real_t *dX, size_t ldx, real_t *panel);

/* BLAS itself runs one thread: bal_gemm() cuts a large product into tiles for our own pool, so that no second pool
 * competes with it.  bal_gemm_init() arranges that before the first product (each function here does it too);
 * name of core and version ("OpenBLAS 0.3.21") for --version. */
void bal_gemm_init(void);
/* LAPACK has no tiles of ours: between these two calls, outside a parallel range, BLAS uses as many threads as the
 * pool has. */
void bal_blas_threads_begin(void);
void bal_blas_threads_end(void);
/* The yardstick of benchmarks: seconds, best of `tries`, that the library's own threads (as many as the pool has)
 * need for C(M,N) = A(M,K) B(K,N), B stored N x K when tb.  Float in every build; all matrices contiguous. */
double bal_gemm_library_seconds(bool tb, size_t M, size_t N, size_t K, const float *A, const float *B, float *C,
                                size_t tries);
const char *bal_gemm_core(void);
const char *bal_gemm_version(void);

#endif
