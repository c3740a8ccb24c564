/* lib/tensor/linalg: decompositions rebuild their matrix from orthonormal factors.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/mem.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <string.h>

enum { MAX = 80 * 80 };
static double g_A[MAX], g_U[MAX], g_V[MAX], g_s[80], g_T[MAX], g_R[MAX];

static void random_matrix(size_t n, double *A, const char *stream)
{
    bal_rng rng;
    bal_rng_init(&rng, 17, stream);
    for (size_t i = 0; i < n; i++)
        A[i] = bal_rng_normal(&rng);
}

/* max |Q^T Q - I| for the columns (rows_are_vectors: the rows) of Q(m,n). */
static double orthonormal_error(size_t m, size_t n, const double *Q, bool rows_are_vectors)
{
    size_t count = rows_are_vectors ? m : n, length = rows_are_vectors ? n : m;
    double worst = 0;
    for (size_t a = 0; a < count; a++)
        for (size_t b = 0; b < count; b++) {
            double sum = a == b ? -1 : 0;
            for (size_t i = 0; i < length; i++)
                sum += rows_are_vectors ? Q[a * n + i] * Q[b * n + i] : Q[i * n + a] * Q[i * n + b];
            if (!(fabs(sum) <= worst))
                worst = fabs(sum);
        }
    return worst;
}

/* max |A - U diag(s) Vt|. */
static double rebuild_error(size_t m, size_t n, size_t k, const double *A, const double *U, const double *s,
                            const double *Vt)
{
    double worst = 0;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = -A[i * n + j];
            for (size_t t = 0; t < k; t++)
                sum += U[i * k + t] * s[t] * Vt[t * n + j];
            if (!(fabs(sum) <= worst))
                worst = fabs(sum);
        }
    return worst;
}

static const size_t k_shapes[][2] = {{1, 1},   {1, 5},   {5, 1},   {7, 3},  {3, 7},
                                     {33, 31}, {31, 33}, {64, 64}, {80, 9}, {9, 80}};
enum { N_SHAPES = sizeof k_shapes / sizeof k_shapes[0] };

TEST(svd_rebuilds_the_matrix)
{
    for (size_t t = 0; t < N_SHAPES; t++) {
        size_t m = k_shapes[t][0], n = k_shapes[t][1], k = m < n ? m : n;
        double values[80];
        random_matrix(m * n, g_A, "svd");
        memcpy(g_T, g_A, m * n * sizeof *g_A);
        if (!CHECK_OK(bal_svd(m, n, g_A, g_U, g_s, g_V)) || !CHECK_OK(bal_svd(m, n, g_A, NULL, values, NULL)))
            return;
        CHECK(memcmp(g_T, g_A, m * n * sizeof *g_A) == 0);
        CHECK_NEAR(rebuild_error(m, n, k, g_A, g_U, g_s, g_V), 0, 1e-12);
        CHECK_NEAR(orthonormal_error(m, k, g_U, false), 0, 1e-13);
        CHECK_NEAR(orthonormal_error(k, n, g_V, true), 0, 1e-13);
        for (size_t i = 0; i < k; i++) {
            CHECK_NEAR(values[i], g_s[i], 1e-12);
            CHECK(g_s[i] >= 0 && (i == 0 || g_s[i] <= g_s[i - 1]));
        }
    }
    const double known[] = {3, 0, 4, 5}; /* singular values sqrt(45), sqrt(5) */
    CHECK_OK(bal_svd(2, 2, known, NULL, g_s, NULL));
    CHECK_NEAR(g_s[0], sqrt(45), 1e-14);
    CHECK_NEAR(g_s[1], sqrt(5), 1e-14);
    CHECK_OK(bal_svd(0, 3, known, g_U, g_s, g_V));
}

TEST(eigenvectors_of_symmetric_matrices)
{
    static const size_t sizes[] = {1, 2, 9, 40, 77};
    for (size_t t = 0; t < 5; t++) {
        size_t n = sizes[t];
        double values[80];
        random_matrix(n * n, g_T, "eigh");
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++)
                g_A[i * n + j] = g_T[i * n + j] + g_T[j * n + i];
        if (!CHECK_OK(bal_eigh(n, g_A, g_s, g_U)) || !CHECK_OK(bal_eigh(n, g_A, values, NULL)))
            return;
        CHECK_NEAR(orthonormal_error(n, n, g_U, false), 0, 1e-12);
        for (size_t j = 0; j < n; j++) {
            CHECK_NEAR(values[j], g_s[j], 1e-11);
            CHECK(j == 0 || g_s[j] >= g_s[j - 1]);
            for (size_t i = 0; i < n; i++) { /* A q_j = w_j q_j */
                double sum = 0;
                for (size_t l = 0; l < n; l++)
                    sum += g_A[i * n + l] * g_U[l * n + j];
                CHECK_NEAR(sum, g_s[j] * g_U[i * n + j], 1e-11);
            }
        }
    }
}

TEST(qr_rebuilds_the_matrix)
{
    for (size_t t = 0; t < N_SHAPES; t++) {
        size_t m = k_shapes[t][0], n = k_shapes[t][1];
        random_matrix(m * n, g_A, "qr");
        if (m < n) {
            CHECK_STATUS(bal_qr(m, n, g_A, g_U, g_R), BAL_EINVAL);
            continue;
        }
        if (!CHECK_OK(bal_qr(m, n, g_A, g_U, g_R)))
            return;
        CHECK_NEAR(orthonormal_error(m, n, g_U, false), 0, 1e-13);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < i; j++)
                CHECK(g_R[i * n + j] == 0);
        bal_dgemm(false, false, m, n, n, 1, g_U, n, g_R, n, 0, g_T, n);
        for (size_t i = 0; i < m * n; i++)
            CHECK_NEAR(g_T[i], g_A[i], 1e-13);
        memcpy(g_T, g_A, m * n * sizeof *g_A); /* in place */
        CHECK_OK(bal_qr(m, n, g_T, g_T, g_R));
        CHECK(memcmp(g_T, g_U, m * n * sizeof *g_T) == 0);
    }
}

/* Singular values 1, q, q^2 ... with random orthonormal factors. */
static void decaying_matrix(size_t m, size_t n, double q, double *A)
{
    size_t k = m < n ? m : n;
    random_matrix(m * k, g_U, "left");
    random_matrix(n * k, g_V, "right");
    if (!CHECK_OK(bal_qr(m, k, g_U, g_U, g_R)) || !CHECK_OK(bal_qr(n, k, g_V, g_V, g_R)))
        return;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < k; j++)
            g_U[i * k + j] *= pow(q, (double)j);
    bal_dgemm(false, true, m, n, k, 1, g_U, k, g_V, k, 0, A, n);
}

TEST(leading_triplets)
{
    for (size_t t = 3; t < N_SHAPES; t++) {
        size_t m = k_shapes[t][0], n = k_shapes[t][1], side = m < n ? m : n;
        decaying_matrix(m, n, 0.7, g_A);
        for (size_t k = 1; k <= side && k <= 12; k += 2) {
            bal_rng rng;
            if (!CHECK_OK(bal_svd_leading(m, n, g_A, k, g_U, g_s, g_V)))
                return;
            CHECK_NEAR(orthonormal_error(m, k, g_U, false), 0, 1e-12);
            CHECK_NEAR(orthonormal_error(k, n, g_V, true), 0, 1e-12);
            for (size_t i = 0; i < k; i++)
                CHECK_NEAR(g_s[i], pow(0.7, (double)i), 1e-13);
            /* what is left has the spectral norm s_{k+1}, so no entry exceeds it */
            CHECK(rebuild_error(m, n, k, g_A, g_U, g_s, g_V) <= pow(0.7, (double)k) + 1e-12);
            bal_rng_init(&rng, 1, "rsvd");
            if (!CHECK_OK(bal_rsvd(m, n, g_A, k, 8, 12, &rng, g_U, g_s, g_V)))
                return;
            CHECK_NEAR(orthonormal_error(m, k, g_U, false), 0, 1e-12);
            CHECK_NEAR(orthonormal_error(k, n, g_V, true), 0, 1e-12);
            for (size_t i = 0; i < k; i++)
                CHECK_NEAR(g_s[i], pow(0.7, (double)i), 1e-7);
        }
    }
}

TEST(degenerate_matrices_stay_finite)
{
    static const double zero[12] = {0};
    const double huge[] = {3e200, 0, 0, 1e200, 0, 0}, equal[] = {2, 0, 0, 0, 2, 0, 0, 0, 2};
    bal_rng rng;
    bal_rng_init(&rng, 1, "zero");
    CHECK_OK(bal_svd_leading(4, 3, zero, 2, g_U, g_s, g_V));
    CHECK(g_s[0] == 0 && g_s[1] == 0 && orthonormal_error(4, 2, g_U, false) < 1e-12);
    CHECK_OK(bal_rsvd(4, 3, zero, 2, 5, 2, &rng, g_U, g_s, g_V));
    CHECK(g_s[0] == 0 && isfinite(g_U[0]) && isfinite(g_V[0]));
    CHECK_OK(bal_svd_leading(3, 2, huge, 2, g_U, g_s, g_V));
    CHECK_NEAR(g_s[0] / 3e200, 1, 1e-12);
    CHECK_OK(bal_svd_leading(3, 3, equal, 2, g_U, g_s, g_V));
    CHECK_NEAR(g_s[0], 2, 1e-14);
    CHECK_NEAR(g_s[1], 2, 1e-14);
    CHECK_STATUS(bal_svd_leading(3, 3, equal, 4, g_U, g_s, g_V), BAL_EINVAL);
    CHECK_STATUS(bal_rsvd(3, 3, equal, 4, 0, 0, &rng, g_U, g_s, g_V), BAL_EINVAL);
}

TEST(bad_numbers_are_refused)
{
    double A[6] = {1, 2, 3, 4, 5, 6};
    bal_rng rng;
    bal_rng_init(&rng, 1, "bad");
    A[4] = (double)NAN;
    CHECK_STATUS(bal_svd(3, 2, A, g_U, g_s, g_V), BAL_ENUMERIC);
    CHECK(strstr(bal_error_message(), "(2, 0)") != NULL);
    CHECK_STATUS(bal_qr(3, 2, A, g_U, g_R), BAL_ENUMERIC);
    CHECK_STATUS(bal_svd_leading(3, 2, A, 1, g_U, g_s, g_V), BAL_ENUMERIC);
    CHECK_STATUS(bal_rsvd(3, 2, A, 1, 1, 1, &rng, g_U, g_s, g_V), BAL_ENUMERIC);
    A[3] = (double)INFINITY;
    CHECK_STATUS(bal_eigh(2, A, g_s, g_U), BAL_ENUMERIC);
    CHECK_STATUS(bal_svd(100000, 100000, A, g_U, g_s, g_V), BAL_ELIMIT);
}

TEST(short_memory_is_reported)
{
    random_matrix(60, g_A, "memory");
    for (uint64_t nth = 1; nth < 30; nth++) {
        uint64_t held = bal_mem_bytes();
        bal_rng rng;
        bal_rng_init(&rng, 1, "memory");
        bal_mem_fail_nth(nth);
        bal_status a = bal_svd_leading(10, 6, g_A, 3, g_U, g_s, g_V);
        bal_status b = bal_rsvd(6, 10, g_A, 3, 2, 1, &rng, g_U, g_s, g_V);
        bal_mem_fail_nth(0);
        CHECK((a == BAL_OK || a == BAL_ENOMEM) && (b == BAL_OK || b == BAL_ENOMEM) && bal_mem_bytes() == held);
    }
}
