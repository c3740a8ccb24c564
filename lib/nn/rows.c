/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/nn/rows.h"

#include "lib/base/threads.h"
#include "lib/nn/ops.h"

#include <string.h>

enum { ROWS = 16, COLUMNS = 64 }; /* least that a thread takes */

typedef struct rows_job {
    size_t M, n, ldx, ldy;
    const real_t *x, *v, *other;
    real_t *y;
    bool add;
    const bal_nn_ops *ops;
} rows_job;

void bal_rows_copy(size_t M, size_t n, const real_t *x, size_t ldx, real_t *y, size_t ldy)
{
    for (size_t t = 0; t < M; t++)
        memcpy(y + t * ldy, x + t * ldx, n * sizeof *y);
}

static void add_range(void *context, size_t begin, size_t end, size_t thread)
{
    const rows_job *j = context;
    (void)thread;
    for (size_t t = begin; t < end; t++)
        j->ops->add(j->v, j->y + t * j->ldy, j->n);
}

void bal_rows_add(size_t M, size_t n, const real_t *v, real_t *y, size_t ldy)
{
    rows_job j = {.n = n, .v = v, .y = y, .ldy = ldy, .ops = BAL_ISA_PICK(bal_nn_ops)};
    bal_parallel_for(M, ROWS, add_range, &j);
}

static void scale_range(void *context, size_t begin, size_t end, size_t thread)
{
    const rows_job *j = context;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const real_t *x = j->x + t * j->ldx;
        real_t *y = j->y + t * j->ldy;
        for (size_t i = 0; i < j->n; i++)
            y[i] = j->add ? y[i] + x[i] * j->v[i] : x[i] * j->v[i];
    }
}

void bal_rows_scale(size_t M, size_t n, const real_t *v, const real_t *x, size_t ldx, bool add, real_t *y, size_t ldy)
{
    rows_job j = {.n = n, .v = v, .x = x, .ldx = ldx, .y = y, .ldy = ldy, .add = add};
    bal_parallel_for(M, ROWS, scale_range, &j);
}

static void sum_range(void *context, size_t begin, size_t end, size_t thread)
{
    const rows_job *j = context;
    (void)thread;
    for (size_t t = 0; t < j->M; t++)
        for (size_t i = begin; i < end; i++)
            j->y[i] += j->x[t * j->ldx + i];
}

void bal_rows_sum(size_t M, size_t n, const real_t *x, size_t ldx, real_t *dv)
{
    rows_job j = {.M = M, .x = x, .ldx = ldx, .y = dv};
    bal_parallel_for(n, COLUMNS, sum_range, &j);
}

static void dot_range(void *context, size_t begin, size_t end, size_t thread)
{
    const rows_job *j = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        double sum = 0;
        for (size_t t = 0; t < j->M; t++)
            sum += (double)j->x[t * j->ldx + i] * (double)j->other[t * j->ldy + i];
        j->y[i] += (real_t)(j->v == NULL ? sum : sum * (double)j->v[i]);
    }
}

void bal_rows_dot(size_t M, size_t n, const real_t *x, size_t ldx, const real_t *y, size_t ldy, const real_t *factor,
                  real_t *dv)
{
    rows_job j = {.M = M, .x = x, .ldx = ldx, .other = y, .ldy = ldy, .v = factor, .y = dv};
    bal_parallel_for(n, COLUMNS, dot_range, &j);
}
