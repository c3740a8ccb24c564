/* With r = (var + eps)^-1/2, n = (x - mean) r and g = dy w:
 *   dx = r (g - mean(g) - n mean(g n)),   dw = sum over tokens of dy n,   db = sum of dy.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/nn/layer_norm.h"

#include "lib/base/threads.h"

#include <math.h>

typedef struct job {
    size_t T, D;
    const real_t *x, *w, *b, *dy;
    real_t *y, *dx, *dw, *db, *moments;
    double eps;
} job;

static void row_moments(const job *j, const real_t *x, double *mean, double *r)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < j->D; i++)
        sum += (double)x[i];
    *mean = sum / (double)j->D;
    for (size_t i = 0; i < j->D; i++)
        squares += ((double)x[i] - *mean) * ((double)x[i] - *mean);
    *r = 1 / sqrt(squares / (double)j->D + j->eps);
}

static void forward_range(void *context, size_t begin, size_t end, size_t thread)
{
    const job *j = context;
    double mean, r;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const real_t *x = j->x + t * j->D;
        real_t *y = j->y + t * j->D;
        row_moments(j, x, &mean, &r);
        for (size_t i = 0; i < j->D; i++)
            y[i] = (real_t)(((double)x[i] - mean) * r) * j->w[i] + j->b[i];
    }
}

void bal_layer_norm_forward(size_t T, size_t D, const real_t *x, const real_t *w, const real_t *b, double eps,
                            real_t *y)
{
    job j = {.T = T, .D = D, .x = x, .w = w, .b = b, .y = y, .eps = eps};
    bal_parallel_for(T, 8, forward_range, &j);
}

static void backward_range(void *context, size_t begin, size_t end, size_t thread)
{
    const job *j = context;
    double mean, r;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const real_t *x = j->x + t * j->D, *dy = j->dy + t * j->D;
        double sum = 0, along = 0;
        row_moments(j, x, &mean, &r);
        j->moments[2 * t] = (real_t)mean;
        j->moments[2 * t + 1] = (real_t)r;
        if (j->dx == NULL)
            continue;
        for (size_t i = 0; i < j->D; i++) {
            double g = (double)dy[i] * (double)j->w[i];
            sum += g;
            along += g * ((double)x[i] - mean) * r;
        }
        sum /= (double)j->D;
        along /= (double)j->D;
        for (size_t i = 0; i < j->D; i++)
            j->dx[t * j->D + i] +=
                (real_t)(r * ((double)dy[i] * (double)j->w[i] - sum - ((double)x[i] - mean) * r * along));
    }
}

/* Columns are shared out, so that each element has one writer and one order of summation. */
static void weight_range(void *context, size_t begin, size_t end, size_t thread)
{
    const job *j = context;
    (void)thread;
    for (size_t t = 0; t < j->T; t++) {
        const real_t *x = j->x + t * j->D, *dy = j->dy + t * j->D;
        for (size_t i = begin; i < end && j->dw != NULL; i++)
            j->dw[i] += dy[i] * (x[i] - j->moments[2 * t]) * j->moments[2 * t + 1];
        for (size_t i = begin; i < end && j->db != NULL; i++)
            j->db[i] += dy[i];
    }
}

void bal_layer_norm_backward(size_t T, size_t D, const real_t *x, const real_t *w, double eps, const real_t *dy,
                             real_t *dx, real_t *dw, real_t *db, real_t *moments)
{
    job j = {.T = T, .D = D, .x = x, .w = w, .dy = dy, .dx = dx, .dw = dw, .db = db, .moments = moments, .eps = eps};
    bal_parallel_for(T, 8, backward_range, &j);
    if (dw != NULL || db != NULL)
        bal_parallel_for(D, 64, weight_range, &j);
}
