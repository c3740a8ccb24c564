/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/stats/bootstrap.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/threads.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <stdlib.h>

enum { CHUNK = 1000 };

typedef struct chunks {
    bal_statistic *f;
    const void *items;
    size_t n, per_chunk;
    uint32_t *index; /* [threads][n] */
    double *values;  /* [chunks][per_chunk] */
} chunks;

static void run_chunks(void *context, size_t begin, size_t end, size_t thread)
{
    const chunks *c = context;
    uint32_t *index = c->index + thread * c->n;
    for (size_t i = begin; i < end; i++) {
        bal_mt19937 m;
        bal_mt_init(&m, i);
        for (size_t j = 0; j < c->per_chunk; j++) {
            bal_mt_choices(&m, c->n, c->n, index);
            c->values[i * c->per_chunk + j] = c->f(c->items, index, c->n);
        }
    }
}

bal_status bal_bootstrap_stderr(bal_statistic *f, const void *items, size_t n, size_t iterations, double *out)
{
    size_t per_chunk = iterations < CHUNK ? iterations : CHUNK;
    chunks c = {.f = f, .items = items, .n = n, .per_chunk = per_chunk};
    *out = (double)NAN;
    if (iterations < 2)
        return bal_fail(BAL_EINVAL, "a bootstrap of %zu resamples has no spread; ask for at least 2", iterations);
    if (n <= 1)
        return BAL_OK;
    if (n > UINT32_MAX)
        return bal_fail(BAL_ELIMIT, "a bootstrap over %zu items is more than 2^32 - 1", n);
    size_t n_chunks = iterations / per_chunk;
    c.index = bal_alloc(bal_threads_count() * n, sizeof *c.index);
    c.values = bal_alloc(n_chunks * per_chunk, sizeof *c.values);
    bal_status status = c.index == NULL || c.values == NULL ? BAL_ENOMEM : BAL_OK;
    if (status == BAL_OK) {
        bal_parallel_dynamic(n_chunks, 1, run_chunks, &c);
        *out = bal_sample_sd(c.values, n_chunks * per_chunk);
    }
    bal_free(c.index);
    bal_free(c.values);
    return status;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Between the order statistics around q (n - 1). */
static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1), low = floor(at);
    size_t i = (size_t)low;
    return i + 1 < n ? sorted[i] + (at - low) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

bal_status bal_bootstrap_paired(const double *x, const double *y, const uint32_t *cluster, size_t n, size_t n_clusters,
                                size_t resamples, uint64_t seed, bal_paired_bootstrap *out)
{
    size_t units = cluster == NULL ? n : n_clusters, far = 0;
    if (n == 0 || units == 0 || resamples == 0 || n > UINT32_MAX)
        return bal_fail(BAL_EINVAL, "a paired bootstrap needs items and resamples, not %zu and %zu", n, resamples);
    double *sums = bal_alloc(units, sizeof *sums), *sizes = bal_alloc(units, sizeof *sizes);
    double *values = bal_alloc(resamples, sizeof *values);
    bal_status status = sums == NULL || sizes == NULL || values == NULL ? BAL_ENOMEM : BAL_OK;
    if (status != BAL_OK)
        goto out;
    for (size_t i = 0; i < n; i++) {
        size_t unit = cluster == NULL ? i : cluster[i];
        sums[unit] += x[i] - y[i];
        sizes[unit] += 1;
    }
    bal_mt19937 m;
    bal_mt_init(&m, seed);
    for (size_t r = 0; r < resamples; r++) {
        double sum = 0, size = 0;
        for (size_t i = 0; i < units; i++) {
            uint32_t unit;
            bal_mt_choices(&m, units, 1, &unit);
            sum += sums[unit];
            size += sizes[unit];
        }
        values[r] = sum / size;
    }
    out->difference = bal_mean(x, n) - bal_mean(y, n);
    for (size_t r = 0; r < resamples; r++) /* a resample at the same distance counts, whatever its rounding */
        far += fabs(values[r] - out->difference) >= fabs(out->difference) * (1 - 1e-12);
    qsort(values, resamples, sizeof *values, by_value);
    out->low = quantile(values, resamples, 0.025);
    out->high = quantile(values, resamples, 0.975);
    out->p = (1 + (double)far) / (1 + (double)resamples);
out:
    bal_free(sums);
    bal_free(sizes);
    bal_free(values);
    return status;
}
