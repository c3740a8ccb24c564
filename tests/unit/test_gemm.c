/* lib/tensor/gemm against plain loops in double.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/threads.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/gemm_dnnl.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const double k_eps = BAL_REAL_IS_DOUBLE ? DBL_EPSILON : (double)FLT_EPSILON;

static double g_spoil = 1; /* results are multiplied with it: the mutation that the check must notice */

static real_t *random_matrix(size_t n, const char *stream)
{
    real_t *p = bal_alloc(n, sizeof *p);
    bal_rng rng;
    bal_rng_init(&rng, 11, stream);
    for (size_t i = 0; p != NULL && i < n; i++)
        p[i] = (real_t)bal_rng_normal(&rng);
    return p;
}

/* |C - reference| <= 8 eps sum |a||b| for each element, and nothing outside of C's M x N is touched. */
static bool product_is_right(bool ta, bool tb, size_t M, size_t N, size_t K, size_t pad, double alpha, double beta)
{
    size_t lda = (ta ? M : K) + pad, ldb = (tb ? K : N) + pad, ldc = N + pad;
    real_t *A = random_matrix((ta ? K : M) * lda + 1, "A"), *B = random_matrix((tb ? N : K) * ldb + 1, "B");
    real_t *C = random_matrix(M * ldc + 1, "C"), *C0 = random_matrix(M * ldc + 1, "C");
    bool good = A != NULL && B != NULL && C != NULL && C0 != NULL;
    if (good) {
        if (beta == 0) /* what was there must not matter, even NaN */
            for (size_t i = 0; i < M; i++)
                for (size_t j = 0; j < N; j++)
                    C[i * ldc + j] = (real_t)NAN;
        bal_gemm(ta, tb, M, N, K, (real_t)alpha, A, lda, B, ldb, (real_t)beta, C, ldc);
    }
    for (size_t i = 0; good && i < M; i++)
        for (size_t j = 0; j < N && g_spoil != 1; j++)
            C[i * ldc + j] *= (real_t)g_spoil;
    for (size_t i = 0; good && i < M; i++) {
        for (size_t j = 0; good && j < ldc; j++) {
            double c0 = (double)C0[i * ldc + j], sum = 0, size = 0, got = (double)C[i * ldc + j];
            if (j >= N) {
                good = CHECK_MSG(got == c0, "written outside");
                continue;
            }
            for (size_t k = 0; k < K; k++) {
                double t = (double)A[ta ? k * lda + i : i * lda + k] * (double)B[tb ? j * ldb + k : k * ldb + j];
                sum += t;
                size += fabs(t);
            }
            double want = alpha * sum + beta * c0, bound = 8 * k_eps * (fabs(alpha) * size + fabs(beta * c0));
            good = CHECK_MSG(fabs(got - want) <= bound, "%d%d %zux%zux%zu (%zu,%zu): %.9g, not %.9g", ta, tb, M, N, K,
                             i, j, got, want);
        }
    }
    bal_free(A);
    bal_free(B);
    bal_free(C);
    bal_free(C0);
    return good;
}

TEST(products_of_all_sizes)
{
    static const size_t sizes[] = {0, 1, 7, 8, 9, 31, 33, 257};
    for (size_t a = 0; a < 8; a++)
        for (size_t b = 0; b < 8; b++)
            for (size_t c = 0; c < 8; c++) {
                size_t turn = a + b + c;
                if (sizes[a] * sizes[b] * sizes[c] > 3000000 && turn != 21)
                    continue;
                if (!product_is_right(turn & 1, turn & 2, sizes[a], sizes[b], sizes[c], turn % 4 == 0 ? 0 : 3,
                                      turn % 5 == 0 ? 1 : 0.5, turn % 3 == 0 ? 0 : (turn % 3 == 1 ? 1 : -2)))
                    return;
            }
}

static void spoiled_product(void)
{
    (void)product_is_right(false, true, 9, 31, 7, 1, 1, 0);
}

TEST(a_wrong_product_is_noticed)
{
    CHECK(test_count_failures(spoiled_product) == 0);
    g_spoil = 1 + 100 * k_eps;
    CHECK(test_count_failures(spoiled_product) > 0);
    g_spoil = (double)NAN;
    CHECK(test_count_failures(spoiled_product) > 0);
    g_spoil = 1;
}

/* All transposes where the work is shared among threads, for several thread counts. */
TEST(products_on_several_threads)
{
    for (size_t threads = 1; threads <= 6; threads++) {
        if (!CHECK_OK(bal_threads_start(threads)))
            break;
        for (int t = 0; t < 4; t++)
            (void)(product_is_right(t & 1, t & 2, 257, 131, 65, 5, 1, 1) &&
                   product_is_right(t & 1, t & 2, 3, 4099, 200, 1, 2, 0));
    }
    (void)bal_threads_start(2);
}

/* What the default leaves to one library is asked of the other. */
TEST(products_of_each_library)
{
    if (!bal_dnnl_open())
        SKIP("oneDNN (libdnnl) is not installed: OpenBLAS alone was tested");
    CHECK(strncmp(bal_dnnl_version(), "oneDNN ", 7) == 0);
    bal_dnnl_use(false);
    CHECK(bal_dnnl_version() == NULL);
    for (int t = 0; t < 4; t++)
        (void)(product_is_right(t & 1, t & 2, 257, 131, 65, 5, 1, 1) &&
               product_is_right(t & 1, t & 2, 96, 16, 128, 0, 2, 0));
    bal_dnnl_use(true);
    float a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 0, -1, 2, 1, 0.25F}, c[4] = {1, 1, 1, 1};
    CHECK(bal_dnnl_sgemm(false, false, 2, 2, 3, 2, a, 3, b, 2, 1, c, 2));
    CHECK(c[0] == 1 + 2 * 2.0F && c[1] == 1 + 2 * 4.75F && c[2] == 1 + 2 * 5.0F && c[3] == 1 + 2 * 11.5F);
}

static void inner_product(void *context, size_t begin, size_t end, size_t thread)
{
    bool *good = context;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        good[i] = product_is_right(i & 1, i & 2, 130, 140, 150, i, 1, 0);
}

TEST(products_inside_a_parallel_loop)
{
    bool good[8] = {false};
    bal_parallel_for(8, 1, inner_product, good);
    for (int i = 0; i < 8; i++)
        CHECK(good[i]);
}

TEST(double_products)
{
    const double A[] = {1, 2, 3, 4, 5, 6}, B[] = {1, 0, -1, 2, 1, 0.25};
    double C[4] = {1, 1, 1, 1};
    bal_dgemm(false, false, 2, 2, 3, 2, A, 3, B, 2, 1, C, 2);
    CHECK(C[0] == 1 + 2 * 2.0 && C[1] == 1 + 2 * 4.75 && C[2] == 1 + 2 * 5.0 && C[3] == 1 + 2 * 11.5);
    bal_dgemm(true, true, 2, 2, 2, 1, A, 2, B, 2, 0, C, 2);
    CHECK(C[0] == 1 && C[1] == 5 && C[2] == 2 && C[3] == 6);
}

TEST(products_with_stored_weights)
{
    enum { ROWS = 48, COLS = 64, M = 21 };
    static unsigned char data[ROWS * COLS * 2];
    static real_t panel[ROWS * COLS], W[ROWS * COLS], X[M * COLS], Y[M * ROWS], want[M * ROWS], dX[M * COLS],
        dwant[M * COLS];
    bal_rng rng;
    bal_rng_init(&rng, 3, "weights");
    for (size_t i = 0; i < ROWS * COLS; i++) {
        uint16_t h = bal_f32_to_bf16((float)bal_rng_normal(&rng));
        memcpy(data + 2 * i, &h, 2);
    }
    for (size_t i = 0; i < M * COLS; i++)
        X[i] = (real_t)bal_rng_normal(&rng);
    bal_view w = {
        .dtype = BAL_DTYPE_BF16, .rows = ROWS, .cols = COLS, .row_bytes = 2 * COLS, .data = data, .rope_head_dim = 16};
    CHECK(bal_panel_size(BAL_COMPUTE_F32, &w, M) == ROWS * COLS);
    bal_view_dequant(&w, 0, ROWS, W, COLS);
    bal_gemm(false, true, M, ROWS, COLS, 1, X, COLS, W, COLS, 0, want, ROWS);
    bal_gemm_view_nt(BAL_COMPUTE_F32, M, X, COLS, &w, 0, Y, ROWS, panel);
    CHECK(memcmp(Y, want, sizeof Y) == 0);
    bal_gemm(false, false, M, COLS, ROWS, 1, Y, ROWS, W, COLS, 0, dwant, COLS);
    bal_gemm_view_nn(BAL_COMPUTE_F32, M, Y, ROWS, &w, 0, dX, COLS, panel);
    CHECK(memcmp(dX, dwant, sizeof dX) == 0);
    bal_view dense = {.dtype = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32,
                      .rows = ROWS,
                      .cols = COLS,
                      .row_bytes = COLS * sizeof(real_t),
                      .data = W};
    CHECK(bal_panel_size(BAL_COMPUTE_F32, &dense, M) == 0);
    memcpy(Y, want, sizeof Y);
    bal_gemm_view_nt(BAL_COMPUTE_F32, M, X, COLS, &dense, 1, Y, ROWS, NULL);
    for (size_t i = 0; i < M * ROWS; i++)
        CHECK_NEAR(Y[i], 2 * want[i], 1e-4);
    CHECK(strncmp(bal_gemm_version(), "OpenBLAS ", 9) == 0 && bal_gemm_core()[0] != '\0');
}
