/* dsyevr with a workspace of its own.  A symmetric matrix reads the same in row-major and column-major order, and
 * the eigenvectors come back as columns in column-major order, which are rows here.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/eigen.h"

#include "lib/base/mem.h"
#include "lib/tensor/gemm.h"

#include <limits.h>
#include <math.h>
#include <string.h>

void dsyevr_(const char *jobz, const char *range, const char *uplo, const int *n, double *a, const int *lda,
             const double *vl, const double *vu, const int *il, const int *iu, const double *abstol, int *found,
             double *w, double *z, const int *ldz, int *isuppz, double *work, const int *lwork, int *iwork,
             const int *liwork, int *info, size_t, size_t, size_t);

/* dsyevr's own recommendation is (NB + 6) n with its block size NB, which is 32 in LAPACK's table; 64 leaves room. */
enum { WORK_PER_ROW = 64 + 6, IWORK_PER_ROW = 10, MAX_SIDE = 16384 };

size_t bal_eigen_bytes(size_t max_n, size_t max_k)
{
    return max_n * (WORK_PER_ROW + 1) * sizeof(double) + max_n * IWORK_PER_ROW * sizeof(int) + 2 * max_k * sizeof(int);
}

bal_status bal_eigen_init(bal_eigen *e, size_t max_n, size_t max_k)
{
    *e = (bal_eigen){.max_n = max_n, .max_k = max_k, .n_work = max_n * WORK_PER_ROW, .n_iwork = max_n * IWORK_PER_ROW};
    if (max_n > MAX_SIDE)
        return bal_fail(BAL_ELIMIT, "eigenvalues of a %zu x %zu matrix: at most %d rows are possible", max_n, max_n,
                        MAX_SIDE);
    e->work = bal_alloc(e->n_work, sizeof *e->work);
    e->w = bal_alloc(max_n, sizeof *e->w);
    e->iwork = bal_alloc(e->n_iwork, sizeof *e->iwork);
    e->support = bal_alloc(2 * max_k, sizeof *e->support);
    if (e->work != NULL && e->w != NULL && e->iwork != NULL && e->support != NULL)
        return BAL_OK;
    bal_eigen_dispose(e);
    return BAL_ENOMEM;
}

void bal_eigen_dispose(bal_eigen *e)
{
    bal_free(e->work);
    bal_free(e->w);
    bal_free(e->iwork);
    bal_free(e->support);
    *e = (bal_eigen){0};
}

static void reverse_rows(size_t k, size_t n, double *Z)
{
    for (size_t i = 0; i < k / 2; i++)
        for (size_t j = 0; j < n; j++) {
            double t = Z[i * n + j];
            Z[i * n + j] = Z[(k - 1 - i) * n + j];
            Z[(k - 1 - i) * n + j] = t;
        }
}

bal_status bal_eigen_largest(bal_eigen *e, size_t n, double *A, size_t k, double *w, double *Z)
{
    if (n > e->max_n || k > e->max_k || k > n)
        return bal_fail(BAL_ELIMIT,
                        "%zu eigenvalues of a %zu x %zu matrix were asked for; there is room for %zu of %zu", k, n, n,
                        e->max_k, e->max_n);
    if (k == 0)
        return BAL_OK;
    for (size_t i = 0; i < n * n; i++)
        if (!isfinite(A[i]))
            return bal_fail(BAL_ENUMERIC, "eigenvalues of a %zu x %zu matrix: entry (%zu, %zu) is %g", n, n, i / n,
                            i % n, A[i]);
    int order = (int)n, low = (int)(n - k) + 1, lwork = (int)e->n_work, liwork = (int)e->n_iwork, info = 0, found = 0;
    double none = 0, tolerance = 0;
    bal_blas_threads_begin();
    dsyevr_("V", k == n ? "A" : "I", "L", &order, A, &order, &none, &none, &low, &order, &tolerance, &found, e->w, Z,
            &order, e->support, e->work, &lwork, e->iwork, &liwork, &info, 1, 1, 1);
    bal_blas_threads_end();
    if (info != 0 || found != (int)k)
        return bal_fail(BAL_ENUMERIC,
                        "the eigenvalues of a %zu x %zu matrix do not converge (dsyevr %d, %d of %zu found)", n, n,
                        info, found, k);
    for (size_t i = 0; i < k; i++)
        w[i] = e->w[k - 1 - i];
    reverse_rows(k, n, Z);
    return BAL_OK;
}
