/* With r = (mean(x^2) + eps)^-1/2 and g = dy (w + offset):
 *   dx = r (g - x r^2 / D sum(g x)),   dw = sum over tokens of dy x r.   SPDX-License-Identifier: Apache-2.0 */
#include "lib/nn/norm.h"

#include "lib/base/threads.h"
#include "lib/nn/ops.h"

#include <math.h>

typedef struct rms_job {
    size_t T, D;
    const real_t *x, *w, *dy;
    real_t *y, *dx, *dw, *reciprocal;
    real_t offset;
    double eps;
    const bal_nn_ops *ops;
} rms_job;

static double row_reciprocal(const rms_job *j, const real_t *x)
{
    return 1 / sqrt(j->ops->dot(x, x, j->D) / (double)j->D + j->eps);
}

static void forward_range(void *context, size_t begin, size_t end, size_t thread)
{
    const rms_job *j = context;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const real_t *x = j->x + t * j->D;
        j->ops->norm(x, j->w, j->offset, (real_t)row_reciprocal(j, x), j->y + t * j->D, j->D);
    }
}

void bal_rms_forward(size_t T, size_t D, const real_t *x, const real_t *w, real_t offset, double eps, real_t *y)
{
    rms_job job = {
        .T = T, .D = D, .x = x, .w = w, .y = y, .offset = offset, .eps = eps, .ops = BAL_ISA_PICK(bal_nn_ops)};
    bal_parallel_for(T, 8, forward_range, &job);
}

static void backward_range(void *context, size_t begin, size_t end, size_t thread)
{
    const rms_job *j = context;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const real_t *x = j->x + t * j->D, *dy = j->dy + t * j->D;
        double r = row_reciprocal(j, x);
        j->reciprocal[t] = (real_t)r;
        if (j->dx == NULL)
            continue;
        double c = j->ops->norm_dot(x, j->w, j->offset, dy, j->D) * r * r / (double)j->D;
        j->ops->norm_backward(x, j->w, j->offset, dy, (real_t)r, (real_t)c, j->dx + t * j->D, j->D);
    }
}

/* Columns are shared out, so that each element of dw has one writer and one order of summation. */
static void weight_range(void *context, size_t begin, size_t end, size_t thread)
{
    const rms_job *j = context;
    (void)thread;
    for (size_t t = 0; t < j->T; t++) {
        const real_t *x = j->x + t * j->D, *dy = j->dy + t * j->D;
        real_t r = j->reciprocal[t];
        for (size_t i = begin; i < end; i++)
            j->dw[i] += dy[i] * x[i] * r;
    }
}

void bal_rms_backward(size_t T, size_t D, const real_t *x, const real_t *w, real_t offset, double eps, const real_t *dy,
                      real_t *dx, real_t *dw, real_t *reciprocal)
{
    rms_job job = {.T = T,
                   .D = D,
                   .x = x,
                   .w = w,
                   .dy = dy,
                   .dx = dx,
                   .dw = dw,
                   .reciprocal = reciprocal,
                   .offset = offset,
                   .eps = eps,
                   .ops = BAL_ISA_PICK(bal_nn_ops)};
    bal_parallel_for(T, 8, backward_range, &job);
    if (dw != NULL)
        bal_parallel_for(D, 64, weight_range, &job);
}
