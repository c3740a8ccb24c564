/* How an adapter starts.
 *   lora      A = U(-1/sqrt(in), 1/sqrt(in)) (kaiming_uniform with a = sqrt 5), B = 0
 *   gaussian  A = N(0, (1/r)^2), B = 0
 *   pissa     W = U S V^T; A0 = S_r^1/2 V_r^T / sqrt s, B0 = U_r S_r^1/2 / sqrt s, so that s B0 A0 = U_r S_r V_r^T
 * (Meng et al. 2024, eq. 2-3, with the scale s divided out as peft does).  Each module draws from a stream of its
 * own name, so the start does not depend on the other modules or on the number of threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter_impl.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/str.h"
#include "lib/base/threads.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { OVERSAMPLE = 10, MAX_NITER = 1000, MAX_JUDGED = 2048 };

bool bal_adapter_parse_pissa(const char *init, size_t *niter)
{
    int64_t n = 0;
    *niter = 0;
    if (strcmp(init, "pissa") == 0)
        return true;
    if (!bal_starts_with(init, "pissa_niter_") ||
        bal_parse_i64(init + strlen("pissa_niter_"), 1, MAX_NITER, &n) != BAL_OK)
        return false;
    *niter = (size_t)n;
    return true;
}

static void module_stream(bal_rng *rng, uint64_t seed, const char *use, const char *module)
{
    char name[512];
    (void)snprintf(name, sizeof name, "adapter/%s/%s", use, module);
    bal_rng_init(rng, seed, name);
}

bal_status bal_adapter_init_plain(bal_adapter *a, uint64_t seed)
{
    bool gaussian = strcmp(a->config.init, "gaussian") == 0;
    if (!gaussian && strcmp(a->config.init, "lora") != 0)
        return bal_fail(BAL_EINVAL,
                        "adapter start '%s' is unknown; use lora, gaussian, pissa or pissa_niter_N (N from 1 to %d)",
                        a->config.init, MAX_NITER);
    for (size_t i = 0; i < a->n_loras; i++) {
        bal_lora *l = &a->loras[i];
        bal_rng rng;
        module_stream(&rng, seed, "init", l->module);
        double bound = 1 / sqrt((double)l->in), sd = 1 / (double)l->r;
        for (size_t j = 0; j < l->r * l->in; j++)
            l->a[j] = (real_t)(gaussian ? sd * bal_rng_normal(&rng) : bound * (2 * bal_rng_uniform(&rng) - 1));
    }
    return BAL_OK;
}

typedef struct pissa_job {
    bal_adapter *a;
    const bal_view *const *views;
    size_t niter;
    uint64_t seed;
    real_t *out;
    double *captured;     /* per module */
    pthread_mutex_t lock; /* for the failure: messages belong to the thread that failed */
    bal_status status;
    size_t failed;
    char message[512];
} pissa_job;

/* The frozen matrix in double. */
static double *matrix_f64(const bal_view *w, real_t *row)
{
    double *d = bal_alloc(w->rows * w->cols, sizeof *d); /* the product was checked when the view was made */
    for (size_t i = 0; d != NULL && i < w->rows; i++) {
        bal_view_dequant(w, i, 1, row, w->cols);
        for (size_t j = 0; j < w->cols; j++)
            d[i * w->cols + j] = (double)row[j];
    }
    return d;
}

/* Energy of the k leading singular values, exactly: the largest eigenvalues of the smaller Gram matrix. */
static bal_status best_energy(size_t m, size_t n, const double *W, size_t k, double *out)
{
    bal_status status = BAL_OK;
    size_t d = m < n ? m : n;
    double *G = bal_alloc(d * d, sizeof *G), *w = bal_alloc(d, sizeof *w);
    if (G == NULL || w == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (m < n)
        bal_dgemm(false, true, m, m, n, 1, W, n, W, n, 0, G, m);
    else
        bal_dgemm(true, false, n, n, m, 1, W, n, W, n, 0, G, n);
    BAL_TRY(bal_eigh(d, G, w, NULL));
    *out = 0;
    for (size_t i = 0; i < k; i++)
        *out += w[d - 1 - i] > 0 ? w[d - 1 - i] : 0;
out:
    bal_free(G);
    bal_free(w);
    return status;
}

/* The r leading triplets of W, exact or randomised as the job asks, and the energy captured. */
static bal_status leading_triplets(pissa_job *job, size_t index, size_t m, size_t n, const double *W, double *U,
                                   double *s, double *Vt)
{
    const bal_lora *l = &job->a->loras[index];
    size_t r = l->r, least = m < n ? m : n;
    if (r > least)
        return bal_fail(BAL_EINVAL, "rank %zu is larger than the matrix (%zu x %zu) allows", r, m, n);
    if (job->niter == 0)
        return bal_svd_leading(m, n, W, r, U, s, Vt);
    bal_rng rng;
    double captured = 0, best = 0;
    module_stream(&rng, job->seed, "pissa", l->module);
    bal_status status =
        bal_rsvd(m, n, W, r, least - r < OVERSAMPLE ? least - r : OVERSAMPLE, job->niter, &rng, U, s, Vt);
    if (status != BAL_OK ||
        least > MAX_JUDGED) /* the best energy of a very large matrix would cost more than the start */
        return status;
    for (size_t i = 0; i < r; i++)
        captured += s[i] * s[i];
    status = best_energy(m, n, W, r, &best);
    job->captured[index] = best > 0 ? captured / best : 1;
    return status;
}

static bal_status start_module(pissa_job *job, size_t index)
{
    bal_status status = BAL_OK;
    const bal_lora *l = &job->a->loras[index];
    const bal_view *w = job->views[index];
    size_t m = w->rows, n = w->cols, r = l->r;
    real_t *row = bal_alloc(n, sizeof *row);
    double *W = row == NULL ? NULL : matrix_f64(w, row);
    double *U = bal_alloc(m * r, sizeof *U), *s = bal_alloc(r, sizeof *s), *Vt = bal_alloc(r * n, sizeof *Vt);
    if (W == NULL || U == NULL || s == NULL || Vt == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(leading_triplets(job, index, m, n, W, U, s, Vt));
    real_t *A = job->out + (l->a - job->a->params.values), *B = job->out + (l->b - job->a->params.values);
    for (size_t k = 0; k < r; k++) {
        double root = sqrt((s[k] > 0 ? s[k] : 0) / l->scale);
        for (size_t j = 0; j < n; j++)
            A[k * n + j] = (real_t)(root * Vt[k * n + j]);
        for (size_t i = 0; i < m; i++)
            B[i * r + k] = (real_t)(root * U[i * r + k]);
    }
out:
    bal_free(row);
    bal_free(W);
    bal_free(U);
    bal_free(s);
    bal_free(Vt);
    return status;
}

static void start_range(void *context, size_t begin, size_t end, size_t thread)
{
    pissa_job *job = context;
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

bal_status bal_adapter_init_pissa(bal_adapter *a, const bal_view *const *views, size_t niter, uint64_t seed,
                                  real_t *out)
{
    pissa_job job = {.a = a, .views = views, .niter = niter, .seed = seed, .status = BAL_OK};
    job.out = out;
    job.captured = bal_alloc(a->n_loras, sizeof *job.captured);
    if (job.captured == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < a->n_loras; i++)
        job.captured[i] = niter == 0 ? 1 : NAN;
    (void)pthread_mutex_init(&job.lock, NULL);
    bal_parallel_dynamic(a->n_loras, 1, start_range, &job);
    (void)pthread_mutex_destroy(&job.lock);
    a->captured_energy = niter == 0 ? 1 : NAN;
    for (size_t i = 0; i < a->n_loras; i++)
        if (!(a->captured_energy <= job.captured[i]) && !isnan(job.captured[i]))
            a->captured_energy = job.captured[i];
    bal_free(job.captured);
    if (job.status != BAL_OK)
        return bal_fail(job.status, "PiSSA start of module '%s': %s", a->loras[job.failed].module, job.message);
    return BAL_OK;
}
