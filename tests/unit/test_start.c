/* lib/adapter: the starts by their closed-form properties; lib/tensor/krylov.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/adapter/adapter.h"
#include "lib/adapter/start.h"
#include "lib/base/mem.h"
#include "lib/tensor/krylov.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { OUT = 40, IN = 28, LEAST = 28, R = 6 };
static real_t g_w[OUT * IN];
static double g_d[OUT * IN], g_cov[IN * IN];
static bal_view g_view;
static bal_module g_module = {.name = "layer.q_proj", .w = &g_view};
static char g_target[] = "q_proj";

/* A matrix of falling singular values, and the second moments of inputs with unequal directions. */
static void make_matrix(void)
{
    static double G[OUT * OUT], Q[OUT * OUT], R0[OUT * OUT], P[IN * IN], S[IN * IN];
    bal_rng rng;
    bal_rng_init(&rng, 5, "start");
    for (size_t i = 0; i < OUT * OUT; i++)
        G[i] = bal_rng_normal(&rng);
    CHECK_OK(bal_qr(OUT, OUT, G, Q, R0));
    for (size_t i = 0; i < IN * IN; i++)
        G[i] = bal_rng_normal(&rng);
    CHECK_OK(bal_qr(IN, IN, G, P, S));
    for (size_t i = 0; i < OUT; i++)
        for (size_t j = 0; j < IN; j++) {
            double sum = 0;
            for (size_t k = 0; k < LEAST; k++)
                sum += Q[i * OUT + k] * 3 * pow(0.8, (double)k) * P[j * IN + k];
            g_w[i * IN + j] = (real_t)sum;
            g_d[i * IN + j] = (double)g_w[i * IN + j];
        }
    for (size_t i = 0; i < IN; i++)
        for (size_t j = 0; j < IN; j++) {
            g_cov[i * IN + j] = 0;
            for (size_t k = 0; k < IN; k++)
                g_cov[i * IN + j] +=
                    (1 + (double)(k * k)) * sin((double)(i * IN + k + 1)) * sin((double)(j * IN + k + 1));
        }
    g_view = (bal_view){.dtype = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32,
                        .rows = OUT,
                        .cols = IN,
                        .row_bytes = IN * sizeof(real_t),
                        .data = g_w};
}

static bal_adapter *start(const char *init, const bal_calibration *data)
{
    bal_adapter *a = NULL;
    static char *targets[] = {g_target};
    bal_adapter_config c = {.r = R, .lora_alpha = 3 * R, .target_modules = targets, .n_target_modules = 1};
    (void)snprintf(c.init, sizeof c.init, "%s", init);
    make_matrix();
    if (!CHECK_OK(bal_adapter_new_calibrated(&a, &c, &g_module, 1, data, 7, true)))
        return NULL;
    return a;
}

/* (B0 A0)[i][j] with the scale. */
static double product(const bal_lora *l, size_t i, size_t j)
{
    double sum = 0;
    for (size_t k = 0; k < l->r; k++)
        sum += (double)l->b[i * l->r + k] * (double)l->a[k * l->in + j];
    return l->scale * sum;
}

/* W = (W - s B0 A0) + s B A at the start: the update is 0 whatever the residual start. */
static void check_residual(const bal_adapter *a)
{
    static real_t D[OUT * IN];
    const bal_lora *l = &a->loras[0];
    if (!CHECK(a->initial != NULL && l->a0 != NULL))
        return;
    memset(D, 0, sizeof D);
    bal_lora_add_delta(l, 0, OUT, D, IN);
    for (size_t i = 0; i < OUT * IN; i++)
        CHECK_NEAR(D[i], 0, 1e-5);
    CHECK(l->a[0] != 0 && l->a[0] == l->a0[0]);
}

TEST(olora_is_the_qr)
{
    static double Q[OUT * IN], R0[IN * IN];
    bal_adapter *a = start("olora", NULL);
    if (a == NULL)
        return;
    const bal_lora *l = &a->loras[0];
    check_residual(a);
    CHECK_OK(bal_qr(OUT, IN, g_d, Q, R0));
    for (size_t k = 0; k < R; k++) {
        for (size_t j = 0; j < IN; j++)
            CHECK_NEAR(l->a[k * IN + j], R0[k * IN + j], 1e-5);
        for (size_t i = 0; i < OUT; i++)
            CHECK_NEAR(l->b[i * R + k], Q[i * IN + k], 1e-5);
    }
    bal_adapter_free(a);
}

/* What a start takes out of W is the triplets first .. first + R of it. */
static void check_triplets(const char *init, size_t first, double tolerance)
{
    static double U[OUT * LEAST], s[LEAST], Vt[LEAST * IN];
    bal_adapter *a = start(init, NULL);
    if (a == NULL)
        return;
    check_residual(a);
    CHECK_OK(bal_svd(OUT, IN, g_d, U, s, Vt));
    for (size_t i = 0; i < OUT; i++)
        for (size_t j = 0; j < IN; j++) {
            double want = 0;
            for (size_t k = first; k < first + R; k++)
                want += U[i * LEAST + k] * s[k] * Vt[k * IN + j];
            CHECK_NEAR(product(&a->loras[0], i, j), want, tolerance);
        }
    bal_adapter_free(a);
}

TEST(pissa_takes_the_leading_triplets)
{
    check_triplets("pissa", 0, 1e-5);
    check_triplets("pissa_niter_16", 0, 1e-4);
}

TEST(milora_takes_the_minor_triplets)
{
    check_triplets("milora", LEAST - R, 1e-5);
}

static void mutated_triplets(void)
{
    check_triplets("milora", LEAST - R - 1, 1e-5);
}

TEST(a_shift_of_the_triplets_fails)
{
    CHECK(test_count_failures(mutated_triplets) > 0);
}

/* s B0 A0 C is the leading (ipm) or the trailing (kpm) part of the decomposition of W C; all of it would be W. */
static void check_corda(bool knowledge_preserved)
{
    static double C[IN * IN], WC[OUT * IN], U[OUT * LEAST], s[LEAST], Vt[LEAST * IN];
    const double *covariances[] = {g_cov};
    bal_calibration data = {covariances, knowledge_preserved};
    bal_adapter *a = start("corda", &data);
    if (a == NULL)
        return;
    double mean = 0;
    for (size_t i = 0; i < IN; i++)
        mean += g_cov[i * IN + i] / IN;
    for (size_t i = 0; i < IN * IN; i++)
        C[i] = g_cov[i] + (i % (IN + 1) == 0 ? 0.01 * mean : 0);
    for (size_t i = 0; i < OUT; i++)
        for (size_t j = 0; j < IN; j++) {
            WC[i * IN + j] = 0;
            for (size_t k = 0; k < IN; k++)
                WC[i * IN + j] += g_d[i * IN + k] * C[k * IN + j];
        }
    CHECK_OK(bal_svd(OUT, IN, WC, U, s, Vt));
    check_residual(a);
    size_t first = knowledge_preserved ? LEAST - R : 0;
    for (size_t i = 0; i < OUT; i++)
        for (size_t j = 0; j < IN; j++) {
            double want = 0, got = 0;
            for (size_t k = first; k < first + R; k++)
                want += U[i * LEAST + k] * s[k] * Vt[k * IN + j];
            for (size_t k = 0; k < IN; k++)
                got += product(&a->loras[0], i, k) * C[k * IN + j];
            CHECK_NEAR(got / s[0], want / s[0], 1e-5);
        }
    bal_adapter_free(a);
}

TEST(corda_is_oriented_by_the_inputs)
{
    check_corda(false);
    check_corda(true);
    bal_adapter *a = NULL;
    static char *targets[] = {g_target};
    bal_adapter_config c = {.r = R, .lora_alpha = R, .target_modules = targets, .n_target_modules = 1, .init = "corda"};
    CHECK_STATUS(bal_adapter_new(&a, &c, &g_module, 1, 7, true), BAL_EINVAL);
    CHECK(strstr(bal_error_message(), "calibration") != NULL);
}

TEST(orthogonal_start_changes_nothing_and_is_not_zero)
{
    bal_adapter *a = start("orthogonal", NULL);
    if (a == NULL)
        return;
    const bal_lora *l = &a->loras[0];
    CHECK(a->initial == NULL);
    for (size_t i = 0; i < OUT * IN; i++)
        CHECK_NEAR(product(l, i / IN, i % IN), 0, 1e-5);
    double aa = 0, bb = 0;
    for (size_t i = 0; i < R * IN; i++)
        aa += (double)l->a[i] * (double)l->a[i];
    for (size_t i = 0; i < R * OUT; i++)
        bb += (double)l->b[i] * (double)l->b[i];
    CHECK_NEAR(aa / (R / 2 * IN), 0.01, 0.004); /* r/2 in normal numbers of variance 1/100 */
    CHECK_NEAR(bb / (R / 2 * OUT), 0.01, 0.004);
    bal_adapter_free(a);
}

TEST(start_names)
{
    bal_start s;
    CHECK(bal_start_parse("pissa_niter_4", &s) && s.kind == BAL_START_PISSA_NITER && s.niter == 4);
    CHECK(bal_start_parse("olora", &s) && bal_start_is_residual(s.kind) && bal_start_can_be_redone(s.kind));
    CHECK(bal_start_parse("corda", &s) && !bal_start_can_be_redone(s.kind));
    CHECK(bal_start_parse("gaussian", &s) && !bal_start_is_residual(s.kind));
    CHECK(!bal_start_parse("pissa_niter_0", &s) && !bal_start_parse("pissa_niter_x", &s) && !bal_start_parse("", &s));
}

/* A of m x n with singular values value(i), in random bases. */
static void matrix_of(size_t m, size_t n, size_t rank, double fall, real_t *A)
{
    size_t least = m < n ? m : n;
    double *G = bal_alloc(m * m + n * n, sizeof *G), *U = bal_alloc(m, m * sizeof *U), *V = bal_alloc(n, n * sizeof *V);
    double *T = bal_alloc(m * m + n * n, sizeof *T);
    bal_rng rng;
    bal_rng_init(&rng, 3, "krylov matrix");
    for (size_t i = 0; i < m * m + n * n; i++)
        G[i] = bal_rng_normal(&rng);
    CHECK_OK(bal_qr(m, m, G, U, T));
    CHECK_OK(bal_qr(n, n, G + m * m, V, T));
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t k = 0; k < (rank < least ? rank : least); k++)
                sum += U[i * m + k] * pow(1 + (double)k, -fall) * V[j * n + k];
            A[i * n + j] = (real_t)sum;
        }
    bal_free(G);
    bal_free(U);
    bal_free(V);
    bal_free(T);
}

static void check_krylov(size_t m, size_t n, size_t k, size_t rank, double fall, size_t steps, double least_share)
{
    real_t *A = bal_alloc(m, n * sizeof *A), *U = bal_alloc(m, k * sizeof *U), *Vt = bal_alloc(k, n * sizeof *Vt);
    double *s = bal_alloc(k, sizeof *s), captured = 0, got = 0, best = 0, worst = 0;
    size_t least = m < n ? m : n, block = k + 10 < least ? k + 10 : least;
    bal_rng rng;
    bal_rng_init(&rng, 9, "krylov");
    matrix_of(m, n, rank, fall, A);
    CHECK_OK(bal_krylov_leading(m, n, A, k, block, steps, &rng, U, s, Vt, &captured));
    for (size_t i = 0; i < k; i++) {
        got += s[i] * s[i];
        best += i < rank ? pow(1 + (double)i, -2 * fall) : 0;
        CHECK(s[i] >= 0);
    }
    CHECK_MSG(got / best >= least_share && got / best <= 1 + 1e-5, "%zu x %zu: %g of the energy", m, n, got / best);
    CHECK_MSG(captured <= 1 && captured < got / best + 1e-3 && captured > 1 - 60 * (1 - got / best) - 1e-3,
              "%zu x %zu: says %g, has %g", m, n, captured, got / best);
    for (size_t a = 0; a < k && a < rank; a++) /* U s = A V */
        for (size_t i = 0; i < m; i++) {
            double sum = 0;
            for (size_t j = 0; j < n; j++)
                sum += (double)A[i * n + j] * (double)Vt[a * n + j];
            worst = fmax(worst, fabs(sum - s[a] * (double)U[i * k + a]));
        }
    CHECK_NEAR(worst, 0, 2e-4);
    bal_free(A);
    bal_free(U);
    bal_free(Vt);
    bal_free(s);
}

TEST(krylov_captures_the_leading_energy)
{
    check_krylov(120, 90, 8, 90, 0.3, 16, 0.999); /* a flat spectrum, tall */
    check_krylov(90, 120, 8, 90, 0.3, 16, 0.999);
    check_krylov(300, 200, 8, 200, 0.25, 2, 0.85);
    check_krylov(60, 60, 4, 60, 1, 3, 0.9999);
    check_krylov(50, 400, 16, 50, 0.5, 8, 0.9999); /* blocks fill the space */
    check_krylov(40, 30, 6, 3, 0.5, 4, 0.9999);    /* rank below k */
    check_krylov(5, 3, 3, 3, 0.5, 2, 0.9999);
}

TEST(krylov_refuses)
{
    real_t A[6] = {1, 2, 3, 4, 5, 6}, U[6], Vt[6];
    double s[2], captured;
    bal_rng rng;
    bal_rng_init(&rng, 1, "x");
    CHECK_STATUS(bal_krylov_leading(2, 3, A, 2, 3, 2, &rng, U, s, Vt, &captured), BAL_EINVAL);
    A[4] = (real_t)NAN;
    CHECK_STATUS(bal_krylov_leading(2, 3, A, 1, 2, 2, &rng, U, s, Vt, &captured), BAL_ENUMERIC);
    memset(A, 0, sizeof A);
    CHECK_OK(bal_krylov_leading(2, 3, A, 1, 2, 2, &rng, U, s, Vt, &captured));
    CHECK(s[0] == 0 && captured == 1);
}
