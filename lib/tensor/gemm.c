/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/gemm.h"

#include "lib/base/clock.h"
#include "lib/base/threads.h"
#include "lib/tensor/blas_core.h"
#include "lib/tensor/gemm_dnnl.h"

#include <assert.h>
#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* Products of fewer operations than this stay on one thread: waking the pool would take as long. */
#define SERIAL_WORK 4e6
/* Tile borders are multiples of this, the largest register block of the library's kernels. */
enum { TILE_STEP = 16 };

static pthread_once_t g_blas_once = PTHREAD_ONCE_INIT;

static void blas_start(void)
{
    bal_blas_core_select();
    openblas_set_num_threads(1);
}

static void blas_serial(void)
{
    (void)pthread_once(&g_blas_once, blas_start);
}

void bal_gemm_init(void)
{
    blas_serial();
}

void bal_blas_threads_begin(void)
{
    blas_serial();
#ifndef __SANITIZE_THREAD__ /* the sanitizer cannot see how an uninstrumented library synchronises its threads */
    if (!bal_threads_inside())
        openblas_set_num_threads((int)bal_threads_count());
#endif
}

void bal_blas_threads_end(void)
{
    if (!bal_threads_inside())
        openblas_set_num_threads(1);
}

double bal_gemm_library_seconds(bool tb, size_t M, size_t N, size_t K, const float *A, const float *B, float *C,
                                size_t tries)
{
    double best = HUGE_VAL;
    bal_blas_threads_begin();
    for (size_t i = 0; i <= tries; i++) { /* the first wakes the threads and is not counted */
        double start = bal_clock_seconds();
        cblas_sgemm(CblasRowMajor, CblasNoTrans, tb ? CblasTrans : CblasNoTrans, (int)M, (int)N, (int)K, 1.0F, A,
                    (int)K, B, (int)(tb ? K : N), 0.0F, C, (int)N);
        double seconds = bal_clock_seconds() - start;
        best = i > 0 && seconds < best ? seconds : best;
    }
    bal_blas_threads_end();
    return best;
}

const char *bal_gemm_core(void)
{
    blas_serial();
    return openblas_get_corename();
}

const char *bal_gemm_version(void)
{
    static char text[32];
    const char *config = openblas_get_config(); /* "OpenBLAS 0.3.21 NO_LAPACKE ..." */
    const char *space = strchr(config, ' ');
    size_t n = space == NULL ? strlen(config) : (size_t)(space - config) + 1 + strcspn(space + 1, " ");
    (void)snprintf(text, sizeof text, "%.*s", n < sizeof text ? (int)n : (int)sizeof text - 1, config);
    return text;
}

typedef enum product_kind { KIND_FLOAT, KIND_DOUBLE, KIND_BF16 } product_kind;

/* A product in any precision; A, B, C are advanced in bytes. */
typedef struct product {
    bool ta, tb;
    product_kind kind;
    size_t M, N, K, lda, ldb, ldc;
    size_t in_size, size; /* of an element of A and B, of C */
    double alpha, beta;
    const unsigned char *A, *B;
    unsigned char *C;
    size_t tiles_m, tiles_n;
} product;

/* Rows m0..m0+m and columns n0..n0+n of C. */
static void multiply_tile(const product *p, size_t m0, size_t m, size_t n0, size_t n)
{
    const void *A = p->A + (p->ta ? m0 : m0 * p->lda) * p->in_size;
    const void *B = p->B + (p->tb ? n0 * p->ldb : n0) * p->in_size;
    void *C = p->C + (m0 * p->ldc + n0) * p->size;
    enum CBLAS_TRANSPOSE ta = p->ta ? CblasTrans : CblasNoTrans, tb = p->tb ? CblasTrans : CblasNoTrans;
    if (p->kind == KIND_BF16)
        bal_dnnl_bf16gemm(p->tb, m, n, p->K, A, p->lda, B, p->ldb, (float)p->beta, C, p->ldc);
    else if (p->kind == KIND_DOUBLE)
        cblas_dgemm(CblasRowMajor, ta, tb, (int)m, (int)n, (int)p->K, p->alpha, A, (int)p->lda, B, (int)p->ldb, p->beta,
                    C, (int)p->ldc);
    else if (!bal_dnnl_wanted(p->ta, p->tb, m, n, p->K) ||
             !bal_dnnl_sgemm(p->ta, p->tb, m, n, p->K, (float)p->alpha, A, p->lda, B, p->ldb, (float)p->beta, C,
                             p->ldc))
        cblas_sgemm(CblasRowMajor, ta, tb, (int)m, (int)n, (int)p->K, (float)p->alpha, A, (int)p->lda, B, (int)p->ldb,
                    (float)p->beta, C, (int)p->ldc);
}

/* Border i of `tiles` nearly equal pieces of [0, n). */
static size_t tile_border(size_t n, size_t tiles, size_t i)
{
    size_t steps = (n + TILE_STEP - 1) / TILE_STEP, border = steps * i / tiles * TILE_STEP;
    return border < n ? border : n;
}

static void multiply_range(void *context, size_t begin, size_t end, size_t thread)
{
    const product *p = context;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        size_t i = t / p->tiles_n, j = t % p->tiles_n;
        size_t m0 = tile_border(p->M, p->tiles_m, i), m1 = tile_border(p->M, p->tiles_m, i + 1);
        size_t n0 = tile_border(p->N, p->tiles_n, j), n1 = tile_border(p->N, p->tiles_n, j + 1);
        if (m0 < m1 && n0 < n1)
            multiply_tile(p, m0, m1 - m0, n0, n1 - n0);
    }
}

/* C = beta C, for an empty sum: the library wants no leading dimension of 0. */
static void scale_result(const product *p)
{
    for (size_t i = 0; i < p->M; i++) {
        for (size_t j = 0; j < p->N; j++) {
            void *c = p->C + (i * p->ldc + j) * p->size;
            if (p->kind == KIND_DOUBLE)
                *(double *)c = p->beta == 0 ? 0 : *(double *)c * p->beta;
            else
                *(float *)c = p->beta == 0 ? 0 : *(float *)c * (float)p->beta;
        }
    }
}

/* As many tiles as threads.  Each tile packs its share of A and of B again, so the grid with the smallest
 * M/tiles_m + N/tiles_n wins. */
static void choose_tiles(product *p)
{
    size_t threads = bal_threads_count();
    double best = 0;
    p->tiles_m = p->tiles_n = 1;
    if (bal_threads_inside() || 2.0 * (double)p->M * (double)p->N * (double)p->K < SERIAL_WORK)
        return;
    for (size_t m = 1; m <= threads; m++) {
        double cost = (double)p->M / (double)m + (double)p->N * (double)m / (double)threads;
        if (threads % m == 0 && (best == 0 || cost < best)) {
            best = cost;
            p->tiles_m = m;
            p->tiles_n = threads / m;
        }
    }
}

static void multiply(product *p)
{
    if (p->M == 0 || p->N == 0)
        return;
    if (p->K == 0) {
        scale_result(p);
        return;
    }
    assert(p->M <= INT_MAX && p->N <= INT_MAX && p->K <= INT_MAX);
    assert(p->lda <= INT_MAX && p->ldb <= INT_MAX && p->ldc <= INT_MAX);
    blas_serial();
    choose_tiles(p);
    bal_parallel_for(p->tiles_m * p->tiles_n, 1, multiply_range, p);
}

void bal_dgemm(bool ta, bool tb, size_t M, size_t N, size_t K, double alpha, const double *A, size_t lda,
               const double *B, size_t ldb, double beta, double *C, size_t ldc)
{
    product p = {.ta = ta,
                 .tb = tb,
                 .kind = KIND_DOUBLE,
                 .M = M,
                 .N = N,
                 .K = K,
                 .lda = lda,
                 .ldb = ldb,
                 .ldc = ldc,
                 .in_size = sizeof(double),
                 .size = sizeof(double),
                 .alpha = alpha,
                 .beta = beta,
                 .A = (const unsigned char *)A,
                 .B = (const unsigned char *)B,
                 .C = (unsigned char *)C};
    multiply(&p);
}

void bal_gemm(bool ta, bool tb, size_t M, size_t N, size_t K, real_t alpha, const real_t *A, size_t lda,
              const real_t *B, size_t ldb, real_t beta, real_t *C, size_t ldc)
{
    product p = {.ta = ta,
                 .tb = tb,
                 .kind = BAL_REAL_IS_DOUBLE ? KIND_DOUBLE : KIND_FLOAT,
                 .M = M,
                 .N = N,
                 .K = K,
                 .lda = lda,
                 .ldb = ldb,
                 .ldc = ldc,
                 .in_size = sizeof(real_t),
                 .size = sizeof(real_t),
                 .alpha = (double)alpha,
                 .beta = (double)beta,
                 .A = (const unsigned char *)A,
                 .B = (const unsigned char *)B,
                 .C = (unsigned char *)C};
    multiply(&p);
}

void bal_gemm_bf16(bool tb, size_t M, size_t N, size_t K, const uint16_t *A, size_t lda, const uint16_t *B, size_t ldb,
                   float beta, float *C, size_t ldc)
{
    product p = {.tb = tb,
                 .kind = KIND_BF16,
                 .M = M,
                 .N = N,
                 .K = K,
                 .lda = lda,
                 .ldb = ldb,
                 .ldc = ldc,
                 .in_size = sizeof(uint16_t),
                 .size = sizeof(float),
                 .alpha = 1,
                 .beta = (double)beta,
                 .A = (const unsigned char *)A,
                 .B = (const unsigned char *)B,
                 .C = (unsigned char *)C};
    multiply(&p);
}
