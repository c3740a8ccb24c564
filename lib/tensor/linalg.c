/* Row-major A(m,n) is column-major A^T(n,m) with the same leading dimension.  So LAPACK is asked for the
 * decomposition of A^T and the roles of its factors are swapped: A^T = V S U^T gives V where it writes "U" (read
 * row-major: V^T) and U^T where it writes "VT" (read row-major: U); an LQ of A^T is a QR of A.  Nothing is
 * transposed.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/linalg.h"

#include "lib/base/mem.h"
#include "lib/tensor/gemm.h"

#include <cblas.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

/* Fortran LAPACK of OpenBLAS, 32-bit integers; the hidden lengths of the character arguments come last. */
void dgesdd_(const char *jobz, const int *m, const int *n, double *a, const int *lda, double *s, double *u,
             const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork, int *iwork, int *info,
             size_t);
void dgesvd_(const char *jobu, const char *jobvt, const int *m, const int *n, double *a, const int *lda, double *s,
             double *u, const int *ldu, double *vt, const int *ldvt, double *work, const int *lwork, int *info, size_t,
             size_t);
void dsyevd_(const char *jobz, const char *uplo, const int *n, double *a, const int *lda, double *w, double *work,
             const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);
void dsyevr_(const char *jobz, const char *range, const char *uplo, const int *n, double *a, const int *lda,
             const double *vl, const double *vu, const int *il, const int *iu, const double *abstol, int *found,
             double *w, double *z, const int *ldz, int *isuppz, double *work, const int *lwork, int *iwork,
             const int *liwork, int *info, size_t, size_t, size_t);
void dgelqf_(const int *m, const int *n, double *a, const int *lda, double *tau, double *work, const int *lwork,
             int *info);
void dorglq_(const int *m, const int *n, const int *k, double *a, const int *lda, const double *tau, double *work,
             const int *lwork, int *info);

/* LAPACK counts its workspaces, up to 7 n^2, in int. */
enum { MAX_SIDE = 16384 };

static bal_status check_matrix(const char *what, size_t m, size_t n, const double *A)
{
    size_t count;
    if (m > MAX_SIDE && n > MAX_SIDE)
        return bal_fail(BAL_ELIMIT, "%s of a %zu x %zu matrix: the smaller side must be at most %d", what, m, n,
                        MAX_SIDE);
    if (m > INT_MAX / 64 || n > INT_MAX / 64 || !bal_mul_size(m, n, &count))
        return bal_fail(BAL_ELIMIT, "%s of a %zu x %zu matrix: a side is too long", what, m, n);
    for (size_t i = 0; i < count; i++)
        if (!isfinite(A[i]))
            return bal_fail(BAL_ENUMERIC, "%s of a %zu x %zu matrix: entry (%zu, %zu) is %g", what, m, n, i / n, i % n,
                            A[i]);
    return BAL_OK;
}

static double *copy_matrix(size_t n, const double *A)
{
    double *copy = bal_alloc(n, sizeof *copy);
    if (copy != NULL && n > 0)
        memcpy(copy, A, n * sizeof *copy);
    return copy;
}

static bal_status lapack_fail(const char *routine, size_t m, size_t n, int info)
{
    return bal_fail(BAL_ENUMERIC, "%s of a %zu x %zu matrix did not converge (LAPACK info %d)", routine, m, n, info);
}

/* One attempt at the SVD of column-major a(m,n), which is overwritten; *info as LAPACK's. */
static bal_status svd_attempt(bool divide, int m, int n, double *a, double *s, double *u, double *vt, int *info)
{
    int k = m < n ? m : n, lwork = -1, ldvt = k > 0 ? k : 1;
    const char *job = u != NULL ? "S" : "N";
    double size = 0, none = 0;
    double *work = NULL;
    int *iwork = NULL;
    bal_status status = BAL_ENOMEM;
    if (u == NULL)
        u = vt = &none;
    if (divide && (iwork = bal_alloc((size_t)k, 8 * sizeof *iwork)) == NULL)
        goto out;
    for (int pass = 0; pass < 2; pass++) { /* first the size of the workspace */
        double *w = pass == 0 ? &size : work;
        if (divide)
            dgesdd_(job, &m, &n, a, &m, s, u, &m, vt, &ldvt, w, &lwork, iwork, info, 1);
        else
            dgesvd_(job, job, &m, &n, a, &m, s, u, &m, vt, &ldvt, w, &lwork, info, 1, 1);
        if (pass == 1 || *info != 0)
            break;
        if (!(size < (double)INT_MAX)) {
            status = bal_fail(BAL_ELIMIT, "singular values of a %d x %d matrix: the workspace is too large", n, m);
            goto out;
        }
        lwork = (int)size;
        if ((work = bal_alloc((size_t)lwork, sizeof *work)) == NULL)
            goto out;
    }
    status = BAL_OK;
out:
    bal_free(work);
    bal_free(iwork);
    return status;
}

bal_status bal_svd(size_t m, size_t n, const double *A, double *U, double *s, double *Vt)
{
    bal_status status = check_matrix("singular values", m, n, A);
    if (status != BAL_OK || m == 0 || n == 0)
        return status;
    double *a = copy_matrix(m * n, A);
    int info = 0;
    if (a == NULL)
        return BAL_ENOMEM;
    bal_blas_threads_begin();
    status = svd_attempt(true, (int)n, (int)m, a, s, Vt, U, &info);
    if (status == BAL_OK && info != 0) {
        memcpy(a, A, m * n * sizeof *a);
        status = svd_attempt(false, (int)n, (int)m, a, s, Vt, U, &info);
    }
    bal_blas_threads_end();
    if (status == BAL_OK && info != 0)
        status = lapack_fail("singular values", m, n, info);
    bal_free(a);
    return status;
}

static void transpose_square(size_t n, double *A)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++) {
            double t = A[i * n + j];
            A[i * n + j] = A[j * n + i];
            A[j * n + i] = t;
        }
}

bal_status bal_eigh(size_t n, const double *A, double *w, double *Q)
{
    bal_status status = check_matrix("eigenvalues", n, n, A);
    if (status != BAL_OK || n == 0)
        return status;
    double *a = copy_matrix(n * n, A), *work = NULL, size = 0;
    int *iwork = NULL, order = (int)n, lwork = -1, liwork = -1, isize = 0, info = 0;
    const char *job = Q != NULL ? "V" : "N";
    if (a == NULL)
        return BAL_ENOMEM;
    dsyevd_(job, "L", &order, a, &order, w, &size, &lwork, &isize, &liwork, &info, 1, 1);
    if (!(size < (double)INT_MAX)) {
        status = bal_fail(BAL_ELIMIT, "eigenvalues of a %zu x %zu matrix: the workspace is too large", n, n);
        goto out;
    }
    lwork = (int)size;
    liwork = isize;
    work = bal_alloc((size_t)lwork, sizeof *work);
    iwork = bal_alloc((size_t)liwork, sizeof *iwork);
    if (work == NULL || iwork == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    bal_blas_threads_begin();
    dsyevd_(job, "L", &order, a, &order, w, work, &lwork, iwork, &liwork, &info, 1, 1);
    bal_blas_threads_end();
    if (info != 0)
        status = lapack_fail("eigenvalues", n, n, info);
    else if (Q != NULL) {
        memcpy(Q, a, n * n * sizeof *Q);
        transpose_square(n, Q);
    }
out:
    bal_free(a);
    bal_free(work);
    bal_free(iwork);
    return status;
}

/* The k largest eigenvalues of symmetric A(n,n), ascending in w[0..k), and their eigenvectors as the rows of Z(k,n).
 * Of A the upper triangle is read and all is overwritten; w holds n. */
static bal_status eigh_largest(size_t n, double *A, size_t k, double *w, double *Z)
{
    int order = (int)n, low = (int)(n - k) + 1, lwork = -1, liwork = -1, isize = 0, info = 0, found = 0;
    double none = 0, tolerance = 0, size = 0, *work = NULL;
    int *iwork = NULL, *support = bal_alloc(2 * k, sizeof *support);
    bal_status status = BAL_ENOMEM;
    if (support == NULL)
        return status;
    dsyevr_("V", "I", "L", &order, A, &order, &none, &none, &low, &order, &tolerance, &found, w, Z, &order, support,
            &size, &lwork, &isize, &liwork, &info, 1, 1, 1);
    lwork = (int)size;
    liwork = isize;
    work = bal_alloc((size_t)lwork, sizeof *work);
    iwork = bal_alloc((size_t)liwork, sizeof *iwork);
    if (work != NULL && iwork != NULL) {
        bal_blas_threads_begin();
        dsyevr_("V", "I", "L", &order, A, &order, &none, &none, &low, &order, &tolerance, &found, w, Z, &order, support,
                work, &lwork, iwork, &liwork, &info, 1, 1, 1);
        bal_blas_threads_end();
        status = info != 0 || (size_t)found != k ? lapack_fail("leading eigenvalues", n, n, info) : BAL_OK;
    }
    bal_free(support);
    bal_free(work);
    bal_free(iwork);
    return status;
}

bal_status bal_qr(size_t m, size_t n, const double *A, double *Q, double *R)
{
    bal_status status = check_matrix("QR", m, n, A);
    if (status != BAL_OK || n == 0)
        return status;
    if (m < n)
        return bal_fail(BAL_EINVAL, "QR of a %zu x %zu matrix: it has fewer rows than columns", m, n);
    int rows = (int)n, cols = (int)m, lwork = -1, info = 0;
    double size[2] = {0, 0}, *work = NULL, *tau = NULL, *a = copy_matrix(m * n, A);
    status = BAL_ENOMEM;
    if (a == NULL || (tau = bal_alloc(n, sizeof *tau)) == NULL)
        goto out;
    dgelqf_(&rows, &cols, a, &rows, tau, &size[0], &lwork, &info);
    dorglq_(&rows, &cols, &rows, a, &rows, tau, &size[1], &lwork, &info);
    lwork = (int)(size[0] > size[1] ? size[0] : size[1]);
    if ((work = bal_alloc((size_t)lwork, sizeof *work)) == NULL)
        goto out;
    bal_blas_threads_begin();
    dgelqf_(&rows, &cols, a, &rows, tau, work, &lwork, &info);
    for (size_t i = 0; i < n; i++) /* column-major lower L is row-major upper R */
        for (size_t j = 0; j < n; j++)
            R[i * n + j] = j < i ? 0 : a[i * n + j];
    if (Q != NULL) {
        dorglq_(&rows, &cols, &rows, a, &rows, tau, work, &lwork, &info);
        memcpy(Q, a, m * n * sizeof *Q);
    }
    bal_blas_threads_end();
    status = BAL_OK;
out:
    bal_free(a);
    bal_free(tau);
    bal_free(work);
    return status;
}

bal_status bal_rsvd(size_t m, size_t n, const double *A, size_t k, size_t oversample, size_t niter, bal_rng *rng,
                    double *U, double *s, double *Vt)
{
    size_t side = m < n ? m : n, l = oversample < side - (k < side ? k : side) ? k + oversample : side;
    bal_status status = check_matrix("randomised singular values", m, n, A);
    double *Y = NULL, *Z = NULL, *B = NULL, *Ub = NULL, *sb = NULL, *Vb = NULL, *R = NULL;
    if (status != BAL_OK)
        return status;
    if (k > side)
        return bal_fail(BAL_EINVAL, "%zu singular values were asked for; a %zu x %zu matrix has %zu", k, m, n, side);
    if (k == 0)
        return BAL_OK;
    Y = bal_alloc(m, l * sizeof *Y);
    Z = bal_alloc(n, l * sizeof *Z);
    B = bal_alloc(l, n * sizeof *B);
    Ub = bal_alloc(l, l * sizeof *Ub);
    Vb = bal_alloc(l, n * sizeof *Vb);
    sb = bal_alloc(l, sizeof *sb);
    R = bal_alloc(l, l * sizeof *R);
    if (Y == NULL || Z == NULL || B == NULL || Ub == NULL || Vb == NULL || sb == NULL || R == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    for (size_t i = 0; i < n * l; i++)
        Z[i] = bal_rng_normal(rng);
    bal_dgemm(false, false, m, l, n, 1, A, n, Z, l, 0, Y, l);
    BAL_TRY(bal_qr(m, l, Y, Y, R));
    for (size_t step = 0; step < niter; step++) {
        bal_dgemm(true, false, n, l, m, 1, A, n, Y, l, 0, Z, l);
        BAL_TRY(bal_qr(n, l, Z, Z, R));
        bal_dgemm(false, false, m, l, n, 1, A, n, Z, l, 0, Y, l);
        BAL_TRY(bal_qr(m, l, Y, Y, R));
    }
    bal_dgemm(true, false, l, n, m, 1, Y, l, A, n, 0, B, n);
    BAL_TRY(bal_svd(l, n, B, Ub, sb, Vb));
    bal_dgemm(false, false, m, k, l, 1, Y, l, Ub, l, 0, U, k);
    memcpy(s, sb, k * sizeof *s);
    memcpy(Vt, Vb, k * n * sizeof *Vt);
out:
    bal_free(Y);
    bal_free(Z);
    bal_free(B);
    bal_free(Ub);
    bal_free(Vb);
    bal_free(sb);
    bal_free(R);
    return status;
}

/* With n <= m: the k leading eigenvectors V of A^T A span the wanted space; the SVD of the small A V (m x k) =
 * U s W^T then gives the triplets (Rayleigh-Ritz), so that s is as accurate as the space, not as its squares. */
static bal_status leading_of_tall(size_t m, size_t n, const double *A, bool transposed, size_t k, double *U, double *s,
                                  double *Vt)
{
    size_t lda = transposed ? m : n;
    double *G = bal_alloc(n, n * sizeof *G), *w = bal_alloc(n, sizeof *w), *Z = bal_alloc(k, n * sizeof *Z);
    double *B = bal_alloc(m, k * sizeof *B), *W = bal_alloc(k, k * sizeof *W);
    bal_status status = BAL_ENOMEM;
    if (G == NULL || w == NULL || Z == NULL || B == NULL || W == NULL)
        goto out;
    bal_blas_threads_begin(); /* one triangle: what eigh_largest() reads */
    cblas_dsyrk(CblasRowMajor, CblasUpper, transposed ? CblasNoTrans : CblasTrans, (int)n, (int)m, 1.0, A, (int)lda,
                0.0, G, (int)n);
    bal_blas_threads_end();
    BAL_TRY(eigh_largest(n, G, k, w, Z));
    bal_dgemm(transposed, true, m, k, n, 1, A, lda, Z, n, 0, B, k);
    BAL_TRY(bal_svd(m, k, B, U, s, W));
    bal_dgemm(false, false, k, n, k, 1, W, k, Z, n, 0, Vt, n);
out:
    bal_free(G);
    bal_free(w);
    bal_free(Z);
    bal_free(B);
    bal_free(W);
    return status;
}

/* The Gram matrix must neither overflow nor vanish. */
static bool squares_are_safe(size_t n, const double *A)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++)
        largest = fabs(A[i]) > largest ? fabs(A[i]) : largest;
    return largest > 1e-140 && largest < 1e140;
}

static void transpose(size_t m, size_t n, const double *A, double *At)
{
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++)
            At[j * m + i] = A[i * n + j];
}

/* The leading part of the whole decomposition. */
static bal_status leading_of_full(size_t m, size_t n, const double *A, size_t k, double *U, double *s, double *Vt)
{
    size_t side = m < n ? m : n;
    double *Uf = bal_alloc(m, side * sizeof *Uf), *sf = bal_alloc(side, sizeof *sf);
    double *Vf = bal_alloc(side, n * sizeof *Vf);
    bal_status status = Uf == NULL || sf == NULL || Vf == NULL ? BAL_ENOMEM : bal_svd(m, n, A, Uf, sf, Vf);
    if (status == BAL_OK) {
        for (size_t i = 0; i < m; i++)
            memcpy(U + i * k, Uf + i * side, k * sizeof *U);
        memcpy(s, sf, k * sizeof *s);
        memcpy(Vt, Vf, k * n * sizeof *Vt);
    }
    bal_free(Uf);
    bal_free(sf);
    bal_free(Vf);
    return status;
}

bal_status bal_svd_leading(size_t m, size_t n, const double *A, size_t k, double *U, double *s, double *Vt)
{
    size_t side = m < n ? m : n;
    bal_status status = check_matrix("leading singular values", m, n, A);
    if (status != BAL_OK)
        return status;
    if (k > side)
        return bal_fail(BAL_EINVAL, "%zu singular values were asked for; a %zu x %zu matrix has %zu", k, m, n, side);
    if (k == 0)
        return BAL_OK;
    if (!squares_are_safe(m * n, A))
        return leading_of_full(m, n, A, k, U, s, Vt);
    if (n <= m)
        return leading_of_tall(m, n, A, false, k, U, s, Vt);
    /* The transpose is tall: A^T = V s U^T. */
    double *V = bal_alloc(n, k * sizeof *V), *Ut = bal_alloc(k, m * sizeof *Ut);
    status = V == NULL || Ut == NULL ? BAL_ENOMEM : leading_of_tall(n, m, A, true, k, V, s, Ut);
    if (status == BAL_OK) {
        transpose(n, k, V, Vt);
        transpose(k, m, Ut, U);
    }
    bal_free(V);
    bal_free(Ut);
    return status;
}
