/* With K = Z Z^T = U diag(sigma^2) U^T (M x M), F^2 = tr K, both forms of the term have the gradient
 *     dR/dZ = (U diag(c) U^T + f I) Z
 *   Frobenius  R = -S_k / F, S_k = sum_{i<=k} sigma_i:  c_i = -1 / (sigma_i F) for i <= k,  f = S_k / F^3
 *   nuclear    R = -S_k / S, S = sum sigma_i:           c_i = (-[i <= k] / S + S_k / S^2) / sigma_i,  f = 0
 * since U_k V_k^T = U_k diag(1/sigma_k) U_k^T Z.  No difference of singular values is divided by, so equal ones do no
 * harm; sigma <= TOLERANCE sigma_1 (repeated rows) leave the sums and the gradient.
 *
 * Gram path (linear frozen head, Z = H E^T): K = H G H^T with G = E^T E, and dR/dH = (U diag(c) U^T + f I) H G: the
 * vocabulary is never touched again.  With more rows than columns the eigenvalues come from G^1/2 H^T H G^1/2 =
 * V diag(sigma^2) V^T, U = H G^1/2 V / sigma.  A bias is a column of ones in H and a column in E.
 * Logits path (soft-capped, trained or adapted head): K is summed over chunks of the vocabulary, a second pass makes the
 * gradient.  Small matrices are in double: sigma_1 is about 30 sigma_10, and K holds squares.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/loss/lm_loss_impl.h"

#include "lib/base/rng.h"
#include "lib/base/threads.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <string.h>

#define TOLERANCE 1e-6
#define LEAST_F   1e-8
enum { CHUNK_BYTES = 64 << 20, LEAST_COLS = 256, G_ROWS = 512, G_COLS = 256, OVERSAMPLE = 5, POWER_STEPS = 2 };

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

void bal_spectral_plan(bal_spectral *s, const bal_model *m, const bal_loss_config *c, size_t max_rows)
{
    head_layer h = bal_head_of(m, BAL_COMPUTE_F32, true);
    *s = (bal_spectral){
        .model = m, .k = c->svd_top_k, .max_rows = max_rows, .norm = c->svd_norm, .train_head = bal_head_trains(m, c)};
    s->randomised = c->svd_solver == BAL_SVD_RANDOMISED;
    s->gram = h.cap <= 0 && !s->train_head && c->svd_solver != BAL_SVD_LOGITS;
    s->D1 = h.D + (h.head.bias != NULL ? 1 : 0);
    size_t rank = s->gram ? least(max_rows, s->D1) : least(max_rows, h.V);
    s->max_q = s->randomised ? least(s->k + OVERSAMPLE, rank) : s->norm == BAL_SVD_NUCLEAR ? rank : least(s->k, rank);
    s->max_n = s->randomised ? s->max_q : s->gram ? least(max_rows, s->D1) : max_rows;
    s->panel_size = bal_head_panel_size(&h, max_rows);
    size_t cols = CHUNK_BYTES / (sizeof(double) + 2 * sizeof(real_t)) / (max_rows > 0 ? max_rows : 1);
    s->chunk_cols = least(cols < LEAST_COLS ? LEAST_COLS : cols, h.V);
}

void bal_spectral_carve(bal_spectral *s, bal_arena *a)
{
    size_t M = s->max_rows, D = s->model->head.w.cols, D1 = s->D1, q = s->max_q;
    s->U = bal_arena_take(a, q * M, sizeof(double));
    s->sigma = bal_arena_take(a, q, sizeof(double));
    s->c = bal_arena_take(a, q, sizeof(double));
    s->P = bal_arena_take(a, q * (D1 > q ? D1 : q), sizeof(double));
    s->panel = bal_arena_take(a, s->panel_size > G_ROWS * D ? s->panel_size : G_ROWS * D, sizeof(real_t));
    if (s->randomised)
        s->sketch = bal_arena_take(a, 2 * q * M, sizeof(double));
    if (s->gram) {
        s->G = bal_arena_take(a, D1 * D1, sizeof(double));
        s->H = bal_arena_take(a, M * D1, sizeof(double));
        s->HG = bal_arena_take(a, M * D1, sizeof(double));
        s->K = bal_arena_take(a, s->max_n * s->max_n, sizeof(double));
        s->W = bal_arena_take(a, (D1 > G_ROWS ? D1 : G_ROWS) * D1, sizeof(double));
        if (M > D1)
            s->root = bal_arena_take(a, D1 * D1, sizeof(double));
        return;
    }
    s->K = bal_arena_take(a, M * M, sizeof(double));
    s->X = bal_arena_take(a, M * D, sizeof(real_t));
    s->dX = bal_arena_take(a, M * D, sizeof(real_t));
    s->Z = bal_arena_take(a, M * s->chunk_cols, sizeof(real_t));
    s->dZ = bal_arena_take(a, M * s->chunk_cols, sizeof(real_t));
    s->Zd = bal_arena_take(a, M * s->chunk_cols, sizeof(double));
    s->Ur = bal_arena_take(a, q * M, sizeof(real_t));
    s->Pr = bal_arena_take(a, q * s->chunk_cols, sizeof(real_t));
}

size_t bal_spectral_eigen_bytes(const bal_spectral *s)
{
    return bal_eigen_bytes(s->max_n, s->max_q);
}

void bal_spectral_dispose(bal_spectral *s)
{
    bal_eigen_dispose(&s->eigen);
}

/* G = E^T E, panel by panel of E in double; only blocks on and above the diagonal are multiplied. */
static void make_gram(bal_spectral *s)
{
    const bal_linear *head = &s->model->head;
    size_t D = head->w.cols, D1 = s->D1;
    memset(s->G, 0, D1 * D1 * sizeof *s->G);
    for (size_t v = 0; v < head->w.rows; v += G_ROWS) {
        size_t n = least(G_ROWS, head->w.rows - v);
        bal_view_dequant_parallel(&head->w, v, n, s->panel, D);
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j < D; j++)
                s->W[i * D1 + j] = (double)s->panel[i * D + j];
            if (D1 > D)
                s->W[i * D1 + D] = (double)head->bias[v + i];
        }
        for (size_t j = 0; j < D1; j += G_COLS)
            bal_dgemm(true, false, least(G_COLS, D1 - j), D1 - j, n, 1, s->W + j, D1, s->W + j, D1, 1,
                      s->G + j * D1 + j, D1);
    }
    for (size_t i = 0; i < D1; i++)
        for (size_t j = 0; j < i; j++)
            s->G[i * D1 + j] = s->G[j * D1 + i];
}

bal_status bal_spectral_start(bal_spectral *s)
{
    bal_status status = BAL_OK;
    size_t n = s->D1;
    double *w = NULL, *Q = NULL;
    BAL_TRY(bal_eigen_init(&s->eigen, s->max_n, s->max_q));
    if (!s->gram)
        goto out;
    make_gram(s);
    if (s->root == NULL)
        goto out;
    w = bal_alloc(n, sizeof *w);
    Q = bal_alloc(n * n, sizeof *Q);
    if (w == NULL || Q == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_eigh(n, s->G, w, Q));
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) /* Q diag(w^1/4), whose product with its own transpose is G^1/2 */
            Q[i * n + j] *= sqrt(sqrt(w[j] > 0 ? w[j] : 0));
    bal_dgemm(false, true, n, n, n, 1, Q, n, Q, n, 0, s->root, n);
out:
    bal_free(w);
    bal_free(Q);
    return status;
}

/* From the eigenvalues in sigma[0..n): singular values, the value of the term, and c, f of its gradient. */
static double judge(bal_spectral *s, size_t n, double F, double *f, bal_spectral_result *out)
{
    double leading = 0, all = 0;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        s->sigma[i] = sqrt(s->sigma[i] > 0 ? s->sigma[i] : 0);
        if (!(s->sigma[i] > TOLERANCE * s->sigma[0]))
            break;
        all += s->sigma[i];
        leading += i < s->k ? s->sigma[i] : 0;
        kept = i + 1;
    }
    for (size_t i = 0; i < n; i++)
        s->c[i] = 0;
    for (size_t i = 0; i < kept && i < BAL_MAX_SIGMA; i++)
        out->sigma[out->n_sigma++] = s->sigma[i];
    if (s->norm == BAL_SVD_NUCLEAR) {
        for (size_t i = 0; i < kept; i++)
            s->c[i] = ((i < s->k ? -1 / all : 0) + leading / (all * all)) / s->sigma[i];
        *f = 0;
        return -leading / all;
    }
    for (size_t i = 0; i < kept && i < s->k; i++)
        s->c[i] = -1 / (s->sigma[i] * F);
    *f = leading / (F * F * F);
    return -leading / F;
}

typedef struct gather_job {
    const bal_spectral *s;
    const real_t *final;
    const uint32_t *rows;
} gather_job;

static void gather_range(void *context, size_t begin, size_t end, size_t thread)
{
    const gather_job *job = context;
    size_t D = job->s->model->head.w.cols, D1 = job->s->D1;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const real_t *x = job->final + (size_t)job->rows[i] * D;
        for (size_t j = 0; j < D; j++)
            job->s->H[i * D1 + j] = (double)x[j];
        if (D1 > D)
            job->s->H[i * D1 + D] = 1;
    }
}

/* out(n, M) = Y(n, M) K. */
static void apply_k(const bal_spectral *s, size_t n, size_t M, const double *Y, double *out)
{
    if (!s->gram) {
        bal_dgemm(false, false, n, M, M, 1, Y, M, s->K, M, 0, out, M);
        return;
    }
    bal_dgemm(false, false, n, s->D1, M, 1, Y, M, s->H, s->D1, 0, s->P, s->D1);
    bal_dgemm(false, true, n, M, s->D1, 1, s->P, s->D1, s->HG, s->D1, 0, out, M);
}

/* Gram-Schmidt on the rows, twice for accuracy; a row that vanishes becomes 0. */
static void orthonormalise(size_t n, size_t M, double *Y)
{
    for (size_t i = 0; i < n; i++) {
        double *y = Y + i * M, start = 0, norm = 0;
        for (size_t j = 0; j < M; j++)
            start += y[j] * y[j];
        for (size_t t = 0; t < 2 * i; t++) {
            const double *x = Y + (t % i) * M;
            double dot = 0;
            for (size_t j = 0; j < M; j++)
                dot += x[j] * y[j];
            for (size_t j = 0; j < M; j++)
                y[j] -= dot * x[j];
        }
        for (size_t j = 0; j < M; j++)
            norm += y[j] * y[j];
        double scale = norm > 1e-24 * start ? 1 / sqrt(norm) : 0;
        for (size_t j = 0; j < M; j++)
            y[j] *= scale;
    }
}

/* Subspace iteration in the space of the rows (Halko, Martinsson, Tropp 2011), for comparison with codes that
 * approximate the term so; the draw is the same in every step.  n eigenvalues to sigma, rows of U. */
static bal_status sketch_pairs(bal_spectral *s, size_t n, size_t M)
{
    double *Y = s->sketch, *T = s->sketch + n * M, *B = s->P;
    bal_rng rng;
    bal_rng_init(&rng, 0, "loss/spectral");
    for (size_t i = 0; i < n * M; i++)
        Y[i] = bal_rng_normal(&rng);
    for (int step = 0; step <= POWER_STEPS; step++) {
        apply_k(s, n, M, Y, T);
        memcpy(Y, T, n * M * sizeof *Y);
        orthonormalise(n, M, Y);
    }
    apply_k(s, n, M, Y, T);
    double *small = s->U; /* free until the end; n x n fits, as n <= M */
    bal_dgemm(false, true, n, n, M, 1, T, M, Y, M, 0, small, n);
    bal_status status = bal_eigen_largest(&s->eigen, n, small, n, s->sigma, B);
    if (status == BAL_OK)
        bal_dgemm(false, false, n, M, n, 1, B, n, Y, M, 0, s->U, M);
    return status;
}

/* Eigenvalues (descending) to sigma, left singular vectors to the rows of U, *n of them. */
static bal_status gram_pairs(bal_spectral *s, size_t M, size_t *n)
{
    size_t D1 = s->D1;
    *n = least(s->max_q, least(M, D1));
    if (s->randomised)
        return sketch_pairs(s, *n, M);
    if (M <= D1) {
        bal_dgemm(false, true, M, M, D1, 1, s->HG, D1, s->H, D1, 0, s->K, M);
        return bal_eigen_largest(&s->eigen, M, s->K, *n, s->sigma, s->U);
    }
    bal_dgemm(true, false, D1, D1, M, 1, s->H, D1, s->H, D1, 0, s->K, D1);
    bal_dgemm(false, false, D1, D1, D1, 1, s->K, D1, s->root, D1, 0, s->W, D1);
    bal_dgemm(false, false, D1, D1, D1, 1, s->root, D1, s->W, D1, 0, s->K, D1);
    bal_status status = bal_eigen_largest(&s->eigen, D1, s->K, *n, s->sigma, s->P);
    if (status != BAL_OK)
        return status;
    bal_dgemm(false, false, *n, D1, D1, 1, s->P, D1, s->root, D1, 0, s->W, D1);
    bal_dgemm(false, true, *n, M, D1, 1, s->W, D1, s->H, D1, 0, s->U, M);
    for (size_t i = 0; i < *n; i++) {
        double scale = s->sigma[i] > TOLERANCE * TOLERANCE * s->sigma[0] ? 1 / sqrt(s->sigma[i]) : 0;
        for (size_t j = 0; j < M; j++)
            s->U[i * M + j] *= scale;
    }
    return BAL_OK;
}

static bal_status run_gram(bal_spectral *s, const real_t *final, const uint32_t *rows, size_t M, double weight,
                           real_t *dfinal, bal_spectral_result *out)
{
    size_t D = s->model->head.w.cols, D1 = s->D1, n = 0;
    gather_job job = {s, final, rows};
    bal_parallel_for(M, 16, gather_range, &job);
    bal_dgemm(false, false, M, D1, D1, 1, s->H, D1, s->G, D1, 0, s->HG, D1);
    double F = 0, f = 0;
    for (size_t i = 0; i < M * D1; i++)
        F += s->H[i] * s->HG[i];
    F = sqrt(F > 0 ? F : F != F ? F : 0); /* NaN goes on, to be named by the eigenvalues */
    out->undefined = F <= LEAST_F;
    if (out->undefined)
        return BAL_OK;
    bal_status status = gram_pairs(s, M, &n);
    if (status != BAL_OK)
        return bal_fail_note(status, "spectral term over %zu rows", M);
    out->value = judge(s, n, F, &f, out);
    if (dfinal == NULL)
        return BAL_OK;
    bal_dgemm(false, false, n, D1, M, 1, s->U, M, s->HG, D1, 0, s->P, D1);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < D1; j++)
            s->P[i * D1 + j] *= s->c[i];
    bal_dgemm(true, false, M, D1, n, 1, s->U, M, s->P, D1, f, s->HG, D1);
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < D; j++)
            dfinal[(size_t)rows[i] * D + j] += (real_t)(weight * s->HG[i * D1 + j]);
    return BAL_OK;
}

static void logits_chunk(const bal_spectral *s, const head_layer *h, size_t M, size_t v, size_t n)
{
    bal_head_logits(h, M, s->X, v, n, s->Z, n, s->panel, true);
}

static void sum_gram(bal_spectral *s, const head_layer *h, size_t M)
{
    memset(s->K, 0, M * M * sizeof *s->K);
    for (size_t v = 0; v < h->V; v += s->chunk_cols) {
        size_t n = least(s->chunk_cols, h->V - v);
        logits_chunk(s, h, M, v, n);
        for (size_t i = 0; i < M * n; i++)
            s->Zd[i] = (double)s->Z[i];
        bal_dgemm(false, true, M, M, n, 1, s->Zd, n, s->Zd, n, 1, s->K, M);
    }
}

/* dZ = (U diag(c) U^T + f I) Z chunk by chunk, through the cap, to the hidden rows. */
static void logits_gradient(bal_spectral *s, const head_layer *h, size_t M, size_t q, double f, double weight)
{
    for (size_t i = 0; i < q * M; i++)
        s->Ur[i] = (real_t)s->U[i];
    memset(s->dX, 0, M * h->D * sizeof *s->dX);
    for (size_t v = 0; v < h->V; v += s->chunk_cols) {
        size_t n = least(s->chunk_cols, h->V - v);
        logits_chunk(s, h, M, v, n);
        bal_gemm(false, false, q, n, M, 1, s->Ur, M, s->Z, n, 0, s->Pr, n);
        for (size_t i = 0; i < q; i++)
            for (size_t j = 0; j < n; j++)
                s->Pr[i * n + j] = (real_t)((double)s->Pr[i * n + j] * s->c[i] * weight);
        bal_gemm(true, false, M, n, q, 1, s->Ur, M, s->Pr, n, 0, s->dZ, n);
        for (size_t i = 0; i < M * n; i++) {
            double z = (double)s->Z[i], u = h->cap > 0 ? z / h->cap : 0;
            s->dZ[i] = (real_t)(((double)s->dZ[i] + weight * f * z) * (1 - u * u));
        }
        bal_head_backward(h, M, s->dZ, n, v, n, 1, s->dX, s->panel);
        if (s->train_head)
            bal_head_weight_grad(h, M, s->dZ, n, v, n, s->X, s->panel);
    }
}

static bal_status run_logits(bal_spectral *s, const real_t *final, const uint32_t *rows, size_t M, double weight,
                             real_t *dfinal, bal_spectral_result *out)
{
    head_layer h = bal_head_of(s->model, BAL_COMPUTE_F32, true);
    size_t n = least(s->max_q, M);
    bal_status status;
    for (size_t i = 0; i < M; i++)
        memcpy(s->X + i * h.D, final + (size_t)rows[i] * h.D, h.D * sizeof *s->X);
    sum_gram(s, &h, M);
    double F = 0, f = 0;
    for (size_t i = 0; i < M; i++)
        F += s->K[i * M + i];
    F = sqrt(F);
    out->undefined = F <= LEAST_F;
    if (out->undefined)
        return BAL_OK;
    if (s->randomised)
        status = sketch_pairs(s, n, M);
    else
        status = bal_eigen_largest(&s->eigen, M, s->K, n, s->sigma, s->U);
    if (status != BAL_OK)
        return bal_fail_note(status, "spectral term over %zu rows", M);
    out->value = judge(s, n, F, &f, out);
    if (dfinal == NULL)
        return BAL_OK;
    logits_gradient(s, &h, M, n, f, weight);
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < h.D; j++)
            dfinal[(size_t)rows[i] * h.D + j] += s->dX[i * h.D + j];
    return BAL_OK;
}

bal_status bal_spectral_run(bal_spectral *s, const real_t *final, const uint32_t *rows, size_t M, double weight,
                            real_t *dfinal, bal_spectral_result *out)
{
    *out = (bal_spectral_result){0};
    out->undefined = M < 2;
    if (out->undefined)
        return BAL_OK;
    return s->gram ? run_gram(s, final, rows, M, weight, dfinal, out)
                   : run_logits(s, final, rows, M, weight, dfinal, out);
}
