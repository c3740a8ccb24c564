/* With d the smaller side, the space is that of the d x d matrix S = A^T A (or A A^T).  Vectors are rows, so that a
 * block is contiguous.  S is formed where that costs less than two products with A a step.  Every new block is made
 * orthogonal to all before it (twice: "twice is enough"), and H = Q S Q^T is what the coefficients of the first pass
 * are.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/krylov.h"

#include "lib/base/mem.h"
#include "lib/tensor/gemm.h"

#include <cblas.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { EXPECTED_STEPS = 7, FIRST_CHECK = 6 };
#define STANDS_STILL 4e-3 /* growth of the energy over two steps, relative, that ends the search */
#define SHRINKS      0.2
#define LOST         1e-4 /* a row that orthogonalisation shortens to this share is noise */

#if BAL_REAL_IS_DOUBLE
#define bal_syevd dsyevd_
#define bal_syrk  cblas_dsyrk
#else
#define bal_syevd ssyevd_
#define bal_syrk  cblas_ssyrk
#endif
/* Fortran LAPACK: the hidden lengths of the character arguments come last. */
void bal_syevd(const char *jobz, const char *uplo, const int *n, real_t *a, const int *lda, real_t *w, real_t *work,
               const int *lwork, int *iwork, const int *liwork, int *info, size_t, size_t);

typedef struct krylov {
    size_t m, n, d, k, block, most; /* most: rows that Q may get */
    const real_t *A;
    real_t *S;     /* d x d, or NULL */
    real_t *half;  /* block x larger side, without S */
    real_t *Q;     /* most x d */
    real_t *P;     /* block x d: the block being made */
    real_t *C;     /* block x most */
    real_t *H, *G; /* most x most; a copy for the eigensolver */
    real_t *w, *Z; /* most; k x most */
    size_t rows;   /* of Q */
    size_t judged; /* rows at the last judgement */
    double energy, growth;
} krylov;

static void form_square(const krylov *y)
{
    bool tall = y->n <= y->m;
    bal_syrk(CblasRowMajor, CblasUpper, tall ? CblasTrans : CblasNoTrans, (int)y->d, (int)(tall ? y->m : y->n), 1, y->A,
             (int)y->n, 0, y->S, (int)y->d);
    for (size_t i = 1; i < y->d; i++)
        for (size_t j = 0; j < i; j++)
            y->S[i * y->d + j] = y->S[j * y->d + i];
}

/* out(count, d) = in(count, d) S. */
static void apply(const krylov *y, size_t count, const real_t *in, real_t *out)
{
    if (y->S != NULL)
        bal_gemm(false, false, count, y->d, y->d, 1, in, y->d, y->S, y->d, 0, out, y->d);
    else if (y->n <= y->m) {
        bal_gemm(false, true, count, y->m, y->n, 1, in, y->n, y->A, y->n, 0, y->half, y->m);
        bal_gemm(false, false, count, y->n, y->m, 1, y->half, y->m, y->A, y->n, 0, out, y->n);
    } else {
        bal_gemm(false, false, count, y->n, y->m, 1, in, y->m, y->A, y->n, 0, y->half, y->n);
        bal_gemm(false, true, count, y->m, y->n, 1, y->half, y->n, y->A, y->n, 0, out, y->m);
    }
}

static double norm(size_t n, const real_t *x)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* x -= (x Q^T) Q for `count` rows of x and the first `rows` rows of Q; C receives x Q^T. */
static void project_out(const krylov *y, size_t count, real_t *x, size_t rows, const real_t *Q, real_t *C)
{
    bal_gemm(false, true, count, rows, y->d, 1, x, y->d, Q, y->d, 0, C, rows);
    bal_gemm(false, false, count, y->d, rows, -1, C, rows, Q, y->d, 1, x, y->d);
}

/* Makes the `count` rows of P orthonormal among themselves and appends those that are more than noise to Q. */
static void append(krylov *y, size_t count, const double *length)
{
    size_t first = y->rows;
    for (size_t i = 0; i < count && y->rows < y->most; i++) {
        real_t *p = y->P + i * y->d, *q = y->Q + y->rows * y->d;
        size_t before = y->rows - first;
        for (int pass = 0; pass < 2 && before > 0; pass++)
            project_out(y, 1, p, before, y->Q + first * y->d, y->C);
        double left = norm(y->d, p);
        if (!(left > LOST * length[i]) || !(left > 0))
            continue;
        for (size_t j = 0; j < y->d; j++)
            q[j] = (real_t)((double)p[j] / left);
        y->rows++;
    }
    if (first > 0 && y->rows > first) /* what normalising a short row brought back of the older blocks */
        project_out(y, y->rows - first, y->Q + first * y->d, first, y->Q, y->C);
}

/* Applies S to the newest block: rows of H; P keeps what is new. */
static void expand(krylov *y, size_t first)
{
    size_t count = y->rows - first;
    apply(y, count, y->Q + first * y->d, y->P);
    bal_gemm(false, true, count, y->rows, y->d, 1, y->P, y->d, y->Q, y->d, 0, y->C, y->rows);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < y->rows; j++) {
            real_t v = y->C[i * y->rows + j];
            y->H[(first + i) * y->most + j] = v;
            y->H[j * y->most + first + i] = v;
        }
}

/* Eigenvalues (w, ascending) and, in place of a, the eigenvectors as rows of the symmetric n x n matrix a. */
static bal_status eigen(size_t n, real_t *a, real_t *w, bool with_vectors)
{
    int order = (int)n, lwork = -1, liwork = -1, isize = 0, info = 0;
    real_t size = 0;
    const char *job = with_vectors ? "V" : "N";
    bal_syevd(job, "L", &order, a, &order, w, &size, &lwork, &isize, &liwork, &info, 1, 1);
    lwork = (int)size + 1; /* float loses the last digits of a large number */
    liwork = isize;
    real_t *work = bal_alloc((size_t)lwork, sizeof *work);
    int *iwork = bal_alloc((size_t)liwork, sizeof *iwork);
    bool room = work != NULL && iwork != NULL;
    if (room)
        bal_syevd(job, "L", &order, a, &order, w, work, &lwork, iwork, &liwork, &info, 1, 1);
    bal_free(work);
    bal_free(iwork);
    if (!room)
        return BAL_ENOMEM;
    return info == 0 ? BAL_OK : bal_fail(BAL_ENUMERIC, "the eigenvalues of a %zu x %zu matrix do not converge", n, n);
}

/* The sum of the k leading eigenvalues of the first n rows and columns of H; with_vectors: their vectors, as rows of
 * Z. */
static bal_status energy_of(krylov *y, size_t n, bool with_vectors, double *sum)
{
    size_t k = y->k < n ? y->k : n;
    *sum = 0;
    if (n == 0)
        return BAL_OK;
    for (size_t i = 0; i < n; i++)
        memcpy(y->G + i * n, y->H + i * y->most, n * sizeof *y->G);
    bal_status status = eigen(n, y->G, y->w, with_vectors);
    for (size_t i = 0; status == BAL_OK && i < k; i++) {
        *sum += y->w[n - 1 - i] > 0 ? (double)y->w[n - 1 - i] : 0;
        if (with_vectors)
            memcpy(y->Z + i * n, y->G + (n - 1 - i) * n, n * sizeof *y->Z);
    }
    return status;
}

/* The leading triplets of H, and how much of their energy the last two blocks have brought. */
static bal_status judge(krylov *y)
{
    size_t n = y->rows, before = n > 3 * y->block ? n - 2 * y->block : y->block < n ? y->block : n;
    double old = 0;
    bal_status status = BAL_OK;
    if (before == y->judged) /* by the last judgement */
        old = y->energy;
    else
        status = energy_of(y, before, false, &old);
    if (status == BAL_OK)
        status = energy_of(y, n, true, &y->energy);
    y->judged = n;
    y->growth = y->energy > 0 ? (y->energy - old) / y->energy : 0;
    return status;
}

static bal_status search(krylov *y, size_t steps, bal_rng *rng)
{
    bal_status status = BAL_OK;
    double *length = bal_alloc(y->block, sizeof *length);
    size_t first = 0;
    if (length == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < y->block * y->d; i++)
        y->Q[i] = (real_t)bal_rng_normal(rng);
    apply(y, y->block, y->Q, y->P);
    for (size_t i = 0; i < y->block; i++)
        length[i] = norm(y->d, y->P + i * y->d);
    append(y, y->block, length);
    for (size_t step = 0;; step++) {
        size_t count = y->rows - first;
        expand(y, first);
        bool last = step == steps || y->rows == y->most || count == 0; /* 0: the space holds all that A has */
        bool check = step >= FIRST_CHECK && step % 2 == 0;
        if (last || check)
            BAL_TRY(judge(y));
        if (last || (check && y->growth <= STANDS_STILL))
            break;
        for (size_t i = 0; i < count; i++)
            length[i] = norm(y->d, y->P + i * y->d);
        project_out(y, count, y->P, y->rows, y->Q, y->C);
        project_out(y, count, y->P, y->rows, y->Q, y->C);
        first = y->rows;
        append(y, count, length);
    }
out:
    bal_free(length);
    return status;
}

/* What the leading values can have at most: the growth of two steps shrinks to less than a fifth in the next two
 * for the spectra of trained weights (a test holds the figure against exact ones). */
static double best_energy(const krylov *y)
{
    return y->rows == y->d || !(y->growth > 0) ? y->energy : y->energy * (1 + y->growth * SHRINKS);
}

static void triplets(const krylov *y, real_t *U, double *s, real_t *Vt, real_t *basis, real_t *image)
{
    size_t k = y->k, larger = y->m > y->n ? y->m : y->n;
    bool tall = y->n <= y->m;
    bal_gemm(false, false, k, y->d, y->rows, 1, y->Z, y->rows, y->Q, y->d, 0, basis, y->d);
    bal_gemm(false, tall, k, larger, y->d, 1, basis, y->d, y->A, y->n, 0, image, larger);
    for (size_t i = 0; i < k; i++) {
        double length = norm(larger, image + i * larger), scale = length > 0 ? 1 / length : 0;
        s[i] = length;
        for (size_t j = 0; j < larger; j++)
            image[i * larger + j] = (real_t)((double)image[i * larger + j] * scale);
    }
    memcpy(Vt, tall ? basis : image, k * y->n * sizeof *Vt);
    const real_t *u = tall ? image : basis;
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < y->m; j++)
            U[j * k + i] = u[i * y->m + j];
}

static bal_status check(size_t m, size_t n, const real_t *A, size_t k, size_t block)
{
    size_t d = m < n ? m : n;
    if (k == 0 || k > block || block > d)
        return bal_fail(BAL_EINVAL,
                        "%zu singular values by blocks of %zu of a %zu x %zu matrix: 1 <= values <= block "
                        "<= %zu is needed",
                        k, block, m, n, d);
    for (size_t i = 0; i < m * n; i++)
        if (!isfinite(A[i]))
            return bal_fail(BAL_ENUMERIC, "singular values of a %zu x %zu matrix: entry (%zu, %zu) is %g", m, n, i / n,
                            i % n, (double)A[i]);
    return BAL_OK;
}

static bal_status make_room(krylov *y, size_t steps)
{
    size_t larger = y->m > y->n ? y->m : y->n;
    double by_square = (double)y->d / (2 * EXPECTED_STEPS * (double)y->block) + (double)y->d / (double)larger;
    y->most = steps < y->d / y->block ? y->block * (steps + 1) : y->d;
    if (y->most > y->d)
        y->most = y->d;
    if (by_square < 2)
        y->S = bal_alloc(y->d, y->d * sizeof *y->S);
    else
        y->half = bal_alloc(y->block, larger * sizeof *y->half);
    y->Q = bal_alloc(y->most, y->d * sizeof *y->Q);
    y->P = bal_alloc(y->block, y->d * sizeof *y->P);
    y->C = bal_alloc(y->block, y->most * sizeof *y->C);
    y->H = bal_alloc(y->most, y->most * sizeof *y->H);
    y->G = bal_alloc(y->most, y->most * sizeof *y->G);
    y->w = bal_alloc(y->most, sizeof *y->w);
    y->Z = bal_alloc(y->k, y->most * sizeof *y->Z);
    if ((y->S == NULL && y->half == NULL) || y->Q == NULL || y->P == NULL || y->C == NULL || y->H == NULL ||
        y->G == NULL || y->w == NULL || y->Z == NULL)
        return BAL_ENOMEM;
    return BAL_OK;
}

bal_status bal_krylov_leading(size_t m, size_t n, const real_t *A, size_t k, size_t block, size_t steps, bal_rng *rng,
                              real_t *U, double *s, real_t *Vt, double *captured)
{
    krylov y = {.m = m, .n = n, .d = m < n ? m : n, .k = k, .block = block, .A = A};
    real_t *basis = NULL, *image = NULL;
    bal_status status;
    BAL_TRY(check(m, n, A, k, block));
    BAL_TRY(make_room(&y, steps));
    basis = bal_alloc(k, y.d * sizeof *basis);
    image = bal_alloc(k, (m > n ? m : n) * sizeof *image);
    if (basis == NULL || image == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (y.S != NULL)
        form_square(&y);
    BAL_TRY(search(&y, steps, rng));
    triplets(&y, U, s, Vt, basis, image);
    double got = 0, best = best_energy(&y);
    for (size_t i = 0; i < k; i++)
        got += s[i] * s[i];
    *captured = best > got && best > 0 ? got / best : 1;
out:
    bal_free(y.S);
    bal_free(y.half);
    bal_free(y.Q);
    bal_free(y.P);
    bal_free(y.C);
    bal_free(y.H);
    bal_free(y.G);
    bal_free(y.w);
    bal_free(y.Z);
    bal_free(basis);
    bal_free(image);
    return status;
}
