/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/packed_start.h"

#include "lib/base/mem.h"
#include "lib/tensor/linalg.h"
#include "lib/tensor/nf4.h"

#include <math.h>
#include <string.h>

/* Sums in double, rounded once: whoever packs again from the same factors gets the same bits, whatever the products of
 * the library do. */
static void rest_of_row(const real_t *w, size_t in, size_t r, double scale, const real_t *a, const real_t *b,
                        double *sum, float *out)
{
    for (size_t j = 0; j < in; j++)
        sum[j] = 0;
    for (size_t k = 0; a != NULL && k < r; k++)
        for (size_t j = 0; j < in; j++)
            sum[j] += (double)b[k] * (double)a[k * in + j];
    for (size_t j = 0; j < in; j++)
        out[j] = (float)((double)w[j] - scale * sum[j]);
}

bal_status bal_pack_matrix(const bal_view *w, bal_dtype type, size_t r, double scale, const real_t *a, const real_t *b,
                           void *packed)
{
    size_t in = w->cols, row_bytes;
    bal_status status;
    real_t *row = bal_alloc(in, sizeof *row);
    double *sum = bal_alloc(in, sizeof *sum);
    float *rest = bal_alloc(in, sizeof *rest);
    if (row == NULL || sum == NULL || rest == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_dtype_row_bytes(type, in, &row_bytes));
    for (size_t i = 0; i < w->rows; i++) {
        bal_view_dequant(w, i, 1, row, in);
        rest_of_row(row, in, r, scale, a, a == NULL ? NULL : b + i * r, sum, rest);
        for (size_t j = 0; j < in; j++)
            if (!isfinite(rest[j]))
                BAL_TRY(bal_fail(BAL_ENUMERIC, "element (%zu, %zu) is not finite and cannot be packed", i, j));
        bal_pack_row(type, rest, in, (unsigned char *)packed + i * row_bytes);
    }
out:
    bal_free(row);
    bal_free(sum);
    bal_free(rest);
    return status;
}

typedef struct work {
    const bal_view *w;
    bal_packed_job *job;
    size_t m, n, row_bytes;
    double *W, *rest, *U, *s, *Vt;
    real_t *a, *b, *shift_a, *shift_b, *row;
    void *packed;
    double norm;
} work;

/* rest = W - D(packed). */
static void unpack_rest(work *x, const void *packed)
{
    bal_view q = {.dtype = x->job->type, .rows = x->m, .cols = x->n, .row_bytes = x->row_bytes, .data = packed};
    for (size_t i = 0; i < x->m; i++) {
        bal_view_dequant(&q, i, 1, x->row, x->n);
        for (size_t j = 0; j < x->n; j++)
            x->rest[i * x->n + j] = x->W[i * x->n + j] - (double)x->row[j];
    }
}

static bal_status leading(work *x)
{
    size_t r = x->job->r;
    bal_status status = bal_svd_leading(x->m, x->n, x->rest, r, x->U, x->s, x->Vt);
    for (size_t k = 0; status == BAL_OK && k < r; k++) {
        double root = sqrt((x->s[k] > 0 ? x->s[k] : 0) / x->job->scale);
        for (size_t j = 0; j < x->n; j++)
            x->a[k * x->n + j] = (real_t)(root * x->Vt[k * x->n + j]);
        for (size_t i = 0; i < x->m; i++)
            x->b[i * r + k] = (real_t)(root * x->U[i * r + k]);
    }
    return status;
}

/* || rest - s B A || / || W ||. */
static double error_of(const work *x, bool factors)
{
    double sum = 0, *row = x->s + x->job->r; /* n values behind the r singular ones */
    size_t r = x->job->r;
    for (size_t i = 0; i < x->m; i++) {
        memset(row, 0, x->n * sizeof *row);
        for (size_t k = 0; factors && k < r; k++)
            for (size_t j = 0; j < x->n; j++)
                row[j] += (double)x->b[i * r + k] * (double)x->a[k * x->n + j];
        for (size_t j = 0; j < x->n; j++) {
            double e = x->rest[i * x->n + j] - x->job->scale * row[j];
            sum += e * e;
        }
    }
    return sqrt(sum) / x->norm;
}

/* The round as it stands is the best so far. */
static void keep(const work *x, size_t round, double error)
{
    bal_packed_job *job = x->job;
    size_t r = job->r;
    job->best = round;
    job->error = error;
    memcpy(job->a, x->a, r * x->n * sizeof *x->a);
    memcpy(job->b, x->b, r * x->m * sizeof *x->b);
    memcpy(job->shift_a, x->shift_a, r * x->n * sizeof *x->a);
    memcpy(job->shift_b, x->shift_b, r * x->m * sizeof *x->b);
    memcpy(job->packed, x->packed, x->m * x->row_bytes);
}

static bal_status one_round(work *x, size_t round)
{
    bal_packed_job *job = x->job;
    bool pissa = job->kind == BAL_PACKED_PISSA;
    bal_status status;
    if (pissa)
        BAL_TRY(leading(x));
    memcpy(x->shift_a, x->a, job->r * x->n * sizeof *x->a);
    memcpy(x->shift_b, x->b, job->r * x->m * sizeof *x->b);
    BAL_TRY(bal_pack_matrix(x->w, job->type, job->r, job->scale, x->shift_a, x->shift_b, x->packed));
    unpack_rest(x, x->packed);
    if (!pissa)
        BAL_TRY(leading(x));
    double error = error_of(x, true);
    if (round == 1 || error < job->error)
        keep(x, round, error);
out:
    return status;
}

static bal_status take(work *x)
{
    size_t m = x->m, n = x->n, r = x->job->r;
    x->W = bal_alloc(m, n * sizeof *x->W);
    x->rest = bal_alloc(m, n * sizeof *x->rest);
    x->U = bal_alloc(m, r * sizeof *x->U);
    x->s = bal_alloc(r + n, sizeof *x->s);
    x->Vt = bal_alloc(r, n * sizeof *x->Vt);
    x->a = bal_alloc(r, n * sizeof *x->a);
    x->b = bal_alloc(m, r * sizeof *x->b);
    x->shift_a = bal_alloc(r, n * sizeof *x->a);
    x->shift_b = bal_alloc(m, r * sizeof *x->b);
    x->row = bal_alloc(n, sizeof *x->row);
    x->packed = bal_alloc(m, x->row_bytes);
    return x->W != NULL && x->rest != NULL && x->U != NULL && x->s != NULL && x->Vt != NULL && x->a != NULL &&
                   x->b != NULL && x->shift_a != NULL && x->shift_b != NULL && x->row != NULL && x->packed != NULL
               ? BAL_OK
               : BAL_ENOMEM;
}

static void dispose(work *x)
{
    bal_free(x->W);
    bal_free(x->rest);
    bal_free(x->U);
    bal_free(x->s);
    bal_free(x->Vt);
    bal_free(x->a);
    bal_free(x->b);
    bal_free(x->shift_a);
    bal_free(x->shift_b);
    bal_free(x->row);
    bal_free(x->packed);
}

static void read_matrix(work *x)
{
    for (size_t i = 0; i < x->m; i++) {
        bal_view_dequant(x->w, i, 1, x->row, x->n);
        for (size_t j = 0; j < x->n; j++) {
            x->W[i * x->n + j] = (double)x->row[j];
            x->norm += (double)x->row[j] * (double)x->row[j];
        }
    }
    x->norm = x->norm > 0 ? sqrt(x->norm) : 1;
}

bal_status bal_packed_fixed(const bal_view *w, const bal_view *q, bal_packed_job *job)
{
    work x = {.w = w, .job = job, .m = w->rows, .n = w->cols, .row_bytes = 1};
    size_t least = x.m < x.n ? x.m : x.n;
    bal_status status;
    if (q->rows != x.m || q->cols != x.n)
        return bal_fail(BAL_EINVAL, "the matrix is %zu x %zu and its reference %zu x %zu", q->rows, q->cols, x.m, x.n);
    if (job->r == 0 || job->r > least || !(job->scale > 0))
        return bal_fail(BAL_EINVAL, "rank %zu is not possible for a matrix of %zu x %zu", job->r, x.m, x.n);
    BAL_TRY(take(&x));
    read_matrix(&x);
    for (size_t i = 0; i < x.m; i++) {
        bal_view_dequant(q, i, 1, x.row, x.n);
        for (size_t j = 0; j < x.n; j++)
            x.rest[i * x.n + j] = x.W[i * x.n + j] - (double)x.row[j];
    }
    job->plain = error_of(&x, false);
    BAL_TRY(leading(&x));
    job->error = error_of(&x, true);
    job->best = 1;
    memcpy(job->a, x.a, job->r * x.n * sizeof *x.a);
    memcpy(job->b, x.b, job->r * x.m * sizeof *x.b);
out:
    dispose(&x);
    return status;
}

bal_status bal_packed_start(const bal_view *w, bal_packed_job *job)
{
    work x = {.w = w, .job = job, .m = w->rows, .n = w->cols};
    size_t least = x.m < x.n ? x.m : x.n;
    bal_status status;
    if (job->r == 0 || job->r > least || job->rounds == 0 || !(job->scale > 0) || !bal_can_pack(job->type))
        return bal_fail(BAL_EINVAL, "a packed start of rank %zu in %zu rounds is not possible for %zu x %zu in %s",
                        job->r, job->rounds, x.m, x.n, bal_dtype_name(job->type));
    BAL_TRY(bal_dtype_row_bytes(job->type, x.n, &x.row_bytes));
    BAL_TRY(take(&x));
    read_matrix(&x);
    BAL_TRY(bal_pack_matrix(w, job->type, 0, 1, NULL, NULL, x.packed));
    unpack_rest(&x, x.packed);
    job->plain = error_of(&x, false);
    if (job->kind == BAL_PACKED_PISSA)
        memcpy(x.rest, x.W, x.m * x.n * sizeof *x.W);
    for (size_t round = 1; round <= job->rounds; round++)
        BAL_TRY(one_round(&x, round));
out:
    dispose(&x);
    return status;
}
