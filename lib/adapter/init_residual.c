/* Starts whose factors come from W, and whose product is taken out of it (y = Wx + s(BA - B0A0)x).
 *   pissa   W = U S V^T; A0 = S_r^1/2 V_r^T / sqrt s, B0 = U_r S_r^1/2 / sqrt s, so that s B0 A0 = U_r S_r V_r^T
 *           (Meng et al. 2024, 2404.02948, eq. 2-3, with the scale s divided out as peft does)
 *   milora  the same with the r smallest triplets (Wang et al. 2024, 2406.09044)
 *   olora   W = Q R: B0 = Q[:, :r], A0 = R[:r] (Buyukakyuz 2024, 2406.01775; s B0 A0 is what is taken out)
 *   corda   W C = U S V^T with C the damped second moments of the inputs; A0 = S^1/2 V^T C^-1 / sqrt s,
 *           B0 = U S^1/2 / sqrt s over the r first triplets (instruction-previewed) or the r last ones
 *           (knowledge-preserved; Yang et al. 2024, 2406.05223)
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter_impl.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/krylov.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { OVERSAMPLE = 10, MAX_DAMPINGS = 40 };

typedef struct start_job {
    bal_adapter *a;
    bal_start start;
    bool minor; /* CorDA: knowledge-preserved */
    const bal_view *const *views;
    const double *const *covariances;
    uint64_t seed;
    real_t *out;
    double *captured;     /* per module */
    pthread_mutex_t lock; /* for the failure: messages belong to the thread that failed */
    bal_status status;
    size_t failed;
    char message[512];
} start_job;

static real_t *matrix_real(const bal_view *w)
{
    real_t *d = bal_alloc(w->rows * w->cols, sizeof *d); /* the product was checked when the view was made */
    if (d != NULL)
        bal_view_dequant(w, 0, w->rows, d, w->cols);
    return d;
}

static double *matrix_f64(const bal_view *w)
{
    double *d = bal_alloc(w->rows * w->cols, sizeof *d);
    real_t *row = bal_alloc(w->cols, sizeof *row);
    for (size_t i = 0; d != NULL && row != NULL && i < w->rows; i++) {
        bal_view_dequant(w, i, 1, row, w->cols);
        for (size_t j = 0; j < w->cols; j++)
            d[i * w->cols + j] = (double)row[j];
    }
    if (row == NULL) {
        bal_free(d);
        d = NULL;
    }
    bal_free(row);
    return d;
}

/* Where the factors of a module go. */
typedef struct factors {
    const bal_lora *l;
    real_t *A, *B;
} factors;

static factors factors_of(const start_job *job, size_t index)
{
    const bal_lora *l = &job->a->loras[index];
    const real_t *base = job->a->params.values;
    return (factors){l, job->out + (l->a - base), job->out + (l->b - base)};
}

static double share(const bal_lora *l, double s)
{
    return sqrt((s > 0 ? s : 0) / l->scale);
}

/* A0 = root V^T, B0 = U root for the triplets first .. first + r of a decomposition with `count` of them. */
static void set_factors(const factors *f, size_t count, size_t first, const double *U, const double *s,
                        const double *Vt)
{
    size_t r = f->l->r, in = f->l->in;
    for (size_t k = 0; k < r; k++) {
        double root = share(f->l, s[first + k]);
        for (size_t j = 0; j < in; j++)
            f->A[k * in + j] = (real_t)(root * Vt[(first + k) * in + j]);
        for (size_t i = 0; i < f->l->out; i++)
            f->B[i * r + k] = (real_t)(root * U[i * count + first + k]);
    }
}

static bal_status start_niter(start_job *job, size_t index)
{
    factors f = factors_of(job, index);
    const bal_view *w = job->views[index];
    size_t m = w->rows, n = w->cols, r = f.l->r, least = m < n ? m : n;
    bal_rng rng;
    bal_status status = BAL_OK;
    real_t *W = matrix_real(w);
    double *s = bal_alloc(r, sizeof *s);
    if (W == NULL || s == NULL)
        BAL_TRY(BAL_ENOMEM);
    bal_adapter_stream(&rng, job->seed, "pissa", f.l->module);
    BAL_TRY(bal_krylov_leading(m, n, W, r, least - r < OVERSAMPLE ? least : r + OVERSAMPLE, job->start.niter, &rng, f.B,
                               s, f.A, &job->captured[index]));
    for (size_t k = 0; k < r; k++) {
        double root = share(f.l, s[k]);
        for (size_t j = 0; j < n; j++)
            f.A[k * n + j] = (real_t)(root * (double)f.A[k * n + j]);
        for (size_t i = 0; i < m; i++)
            f.B[i * r + k] = (real_t)(root * (double)f.B[i * r + k]);
    }
out:
    bal_free(W);
    bal_free(s);
    return status;
}

/* PiSSA (exact) and MiLoRA. */
static bal_status start_triplets(start_job *job, size_t index)
{
    factors f = factors_of(job, index);
    const bal_view *w = job->views[index];
    bool minor = job->start.kind == BAL_START_MILORA;
    size_t m = w->rows, n = w->cols, r = f.l->r, least = m < n ? m : n, count = minor ? least : r;
    bal_status status = BAL_OK;
    double *W = matrix_f64(w), *U = bal_alloc(m, count * sizeof *U), *s = bal_alloc(count, sizeof *s);
    double *Vt = bal_alloc(n, count * sizeof *Vt);
    if (W == NULL || U == NULL || s == NULL || Vt == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(minor ? bal_svd(m, n, W, U, s, Vt) : bal_svd_leading(m, n, W, r, U, s, Vt));
    set_factors(&f, count, count - r, U, s, Vt);
out:
    bal_free(W);
    bal_free(U);
    bal_free(s);
    bal_free(Vt);
    return status;
}

/* The first r columns of Q depend on the first r columns of W alone, and R[:r] = Q_r^T W. */
static bal_status start_olora(start_job *job, size_t index)
{
    factors f = factors_of(job, index);
    const bal_view *w = job->views[index];
    size_t m = w->rows, n = w->cols, r = f.l->r;
    bal_status status = BAL_OK;
    double *W = matrix_f64(w), *Q = bal_alloc(m, r * sizeof *Q), *R = bal_alloc(r, r * sizeof *R);
    double *A = bal_alloc(r, n * sizeof *A);
    if (W == NULL || Q == NULL || R == NULL || A == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < m; i++)
        memcpy(Q + i * r, W + i * n, r * sizeof *Q);
    BAL_TRY(bal_qr(m, r, Q, Q, R));
    bal_dgemm(true, false, r, n, m, 1, Q, r, W, n, 0, A, n);
    for (size_t i = 0; i < r * n; i++)
        f.A[i] = (real_t)(i / n > i % n ? 0 : A[i]); /* R is upper triangular */
    for (size_t i = 0; i < m * r; i++)
        f.B[i] = (real_t)Q[i];
out:
    bal_free(W);
    bal_free(Q);
    bal_free(R);
    bal_free(A);
    return status;
}

/* C + damp mean(diag C) I and its inverse, damp doubled from 0.01 until || C C^-1 - I || < 0.05 (as peft). */
static bal_status damped_inverse(size_t n, const double *covariance, double *C, double *inverse)
{
    bal_status status = BAL_OK;
    double mean = 0, damp = 0.01, *w = bal_alloc(n, sizeof *w), *Q = bal_alloc(n, n * sizeof *Q);
    double *scaled = bal_alloc(n, n * sizeof *scaled);
    if (w == NULL || Q == NULL || scaled == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < n; i++)
        mean += covariance[i * n + i] / (double)n;
    if (!(mean > 0))
        BAL_TRY(bal_fail(BAL_ENUMERIC, "the inputs of the calibration data are all 0"));
    BAL_TRY(bal_eigh(n, covariance, w, Q));
    for (int round = 0; round < MAX_DAMPINGS; round++, damp *= 2) {
        double shift = damp * mean, error = 0;
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n; j++) {
                scaled[i * n + j] = Q[i * n + j] / (w[j] + shift);
                C[i * n + j] = covariance[i * n + j] + (i == j ? shift : 0);
            }
        bal_dgemm(false, true, n, n, n, 1, scaled, n, Q, n, 0, inverse, n);
        bal_dgemm(false, false, n, n, n, 1, C, n, inverse, n, 0, scaled, n);
        for (size_t i = 0; i < n * n; i++) {
            double e = scaled[i] - (i % (n + 1) == 0 ? 1 : 0);
            error += e * e;
        }
        if (sqrt(error) < 0.05)
            goto out;
    }
    status = bal_fail(BAL_ENUMERIC, "the covariance of the calibration data cannot be inverted");
out:
    bal_free(w);
    bal_free(Q);
    bal_free(scaled);
    return status;
}

static bal_status start_corda(start_job *job, size_t index)
{
    factors f = factors_of(job, index);
    const bal_view *w = job->views[index];
    size_t m = w->rows, n = w->cols, r = f.l->r, least = m < n ? m : n;
    bal_status status = BAL_OK;
    double *W = matrix_f64(w), *C = bal_alloc(n, n * sizeof *C), *inverse = bal_alloc(n, n * sizeof *inverse);
    double *WC = bal_alloc(m, n * sizeof *WC), *U = bal_alloc(m, least * sizeof *U), *s = bal_alloc(least, sizeof *s);
    double *Vt = bal_alloc(least, n * sizeof *Vt);
    if (W == NULL || C == NULL || inverse == NULL || WC == NULL || U == NULL || s == NULL || Vt == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(damped_inverse(n, job->covariances[index], C, inverse));
    bal_dgemm(false, false, m, n, n, 1, W, n, C, n, 0, WC, n);
    BAL_TRY(bal_svd(m, n, WC, U, s, Vt));
    bal_dgemm(false, false, least, n, n, 1, Vt, n, inverse, n, 0, WC, n); /* V^T C^-1: fits, least <= m */
    set_factors(&f, least, job->minor ? least - r : 0, U, s, WC);
out:
    bal_free(W);
    bal_free(C);
    bal_free(inverse);
    bal_free(WC);
    bal_free(U);
    bal_free(s);
    bal_free(Vt);
    return status;
}

static bal_status start_module(start_job *job, size_t index)
{
    const bal_view *w = job->views[index];
    if (job->a->sites[index].embedding) /* starts as any LoRA does */
        return BAL_OK;
    size_t r = job->a->loras[index].r, least = w->rows < w->cols ? w->rows : w->cols;
    if (r > least)
        return bal_fail(BAL_EINVAL, "rank %zu is larger than the matrix (%zu x %zu) allows", r, w->rows, w->cols);
    switch (job->start.kind) {
    case BAL_START_PISSA_NITER:
        return start_niter(job, index);
    case BAL_START_OLORA:
        return start_olora(job, index);
    case BAL_START_CORDA:
        return start_corda(job, index);
    default:
        return start_triplets(job, index);
    }
}

static void start_range(void *context, size_t begin, size_t end, size_t thread)
{
    start_job *job = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        bal_status status = start_module(job, i);
        if (status == BAL_OK)
            continue;
        (void)pthread_mutex_lock(&job->lock);
        if (job->status == BAL_OK || i < job->failed) {
            job->status = status;
            job->failed = i;
            (void)snprintf(job->message, sizeof job->message, "%s", bal_error_message());
        }
        (void)pthread_mutex_unlock(&job->lock);
    }
}

bal_status bal_adapter_init_residual(bal_adapter *a, bal_start start, const bal_view *const *views,
                                     const double *const *covariances, bool minor, uint64_t seed, real_t *out)
{
    start_job job = {.a = a,
                     .start = start,
                     .minor = minor,
                     .views = views,
                     .covariances = covariances,
                     .seed = seed,
                     .out = out,
                     .status = BAL_OK};
    if (start.kind == BAL_START_CORDA && covariances == NULL)
        return bal_fail(BAL_EINVAL, "the start corda needs calibration data");
    if (start.kind == BAL_START_LOFTQ)
        return bal_fail(BAL_EINVAL, "the start loftq is made together with a packed base");
    job.captured = bal_alloc(a->n_loras, sizeof *job.captured);
    if (job.captured == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < a->n_loras; i++)
        job.captured[i] = 1;
    (void)pthread_mutex_init(&job.lock, NULL);
    bal_parallel_dynamic(a->n_loras, 1, start_range, &job);
    (void)pthread_mutex_destroy(&job.lock);
    a->captured_energy = 1;
    for (size_t i = 0; i < a->n_loras; i++)
        if (!(a->captured_energy <= job.captured[i]))
            a->captured_energy = job.captured[i];
    bal_free(job.captured);
    if (job.status != BAL_OK)
        return bal_fail(job.status, "start '%s' of module '%s': %s", a->config.init, a->loras[job.failed].module,
                        job.message);
    return BAL_OK;
}
