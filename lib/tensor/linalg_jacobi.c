/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <string.h>

extern void dgesvj_(const char *joba, const char *jobu, const char *jobv, const int *m, const int *n, double *a,
                    const int *lda, double *sva, const int *mv, double *v, const int *ldv, double *work,
                    const int *lwork, int *info);

enum { MAX_N = 8192 };

bal_status bal_svd_graded(size_t n, const double *A, double *U, double *s, double *Vt)
{
    int in = (int)n, zero = 0, info = 0, lwork = 2 * (int)n > 6 ? 2 * (int)n : 6;
    bal_status status = BAL_OK;
    if (n == 0 || n > MAX_N)
        return bal_fail(BAL_EINVAL, "a %zu x %zu matrix has no small SVD (1 .. %d)", n, n, MAX_N);
    for (size_t i = 0; i < n * n; i++)
        if (!isfinite(A[i]))
            return bal_fail(BAL_ENUMERIC, "matrix of %zu x %zu has %g at row %zu, column %zu", n, n, A[i], i / n,
                            i % n);
    double *V = bal_alloc(n * n, sizeof *V), *work = bal_alloc((size_t)lwork, sizeof *work);
    if (V == NULL || work == NULL)
        BAL_TRY(BAL_ENOMEM);
    /* Row-major A is column-major A^T = U' S V'^T, so A = V' S U'^T. */
    memcpy(Vt, A, n * n * sizeof *A);
    dgesvj_("G", "U", "V", &in, &in, Vt, &in, s, &zero, V, &in, work, &lwork, &info);
    if (info > 0)
        BAL_TRY(bal_fail(BAL_ENUMERIC, "the Jacobi SVD of a %zu x %zu matrix did not converge", n, n));
    for (size_t i = 0; i < n; i++) {
        s[i] *= work[0]; /* dgesvj scales matrices that would overflow */
        for (size_t j = 0; j < n; j++)
            U[j * n + i] = V[i * n + j];
    }
out:
    bal_free(V);
    bal_free(work);
    return status;
}
