/* Repetitions, reference rate and report of a benchmark.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/threads.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/gemm_dnnl.h"
#include "lib/tensor/isa.h"
#include "tools/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SIDE = 1024, TRIES = 5 };

bal_status bal_bench_reference_init(bal_bench_reference *r, bool on)
{
    bal_rng rng;
    *r = (bal_bench_reference){NULL, NULL, NULL};
    if (!on)
        return BAL_OK;
    float *block = bal_alloc((size_t)3 * SIDE * SIDE, sizeof *block);
    if (block == NULL)
        return BAL_ENOMEM;
    *r = (bal_bench_reference){block, block + (size_t)SIDE * SIDE, block + (size_t)2 * SIDE * SIDE};
    bal_rng_init(&rng, 0, "bench");
    for (size_t i = 0; i < (size_t)2 * SIDE * SIDE; i++)
        block[i] = (float)bal_rng_uniform(&rng) - 0.5F;
    return BAL_OK;
}

void bal_bench_reference_dispose(bal_bench_reference *r)
{
    bal_free(r->a);
    *r = (bal_bench_reference){NULL, NULL, NULL};
}

double bal_bench_reference_gflops(const bal_bench_reference *r)
{
    /* the library's threads spin for a while after a product; then they would compete with what is measured next */
    static const struct timespec pause = {.tv_nsec = 60000000};
    if (r->a == NULL)
        return 0;
    double seconds = bal_gemm_library_seconds(false, SIDE, SIDE, SIDE, r->a, r->b, r->c, TRIES);
    (void)nanosleep(&pause, NULL);
    return 2.0 * SIDE * SIDE * SIDE / seconds / 1e9;
}

/* Linux: lets the peak of resident memory start again from what is resident now. */
static void reset_peak(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (f == NULL)
        return;
    (void)fputs("5", f);
    (void)fclose(f);
}

bal_status bal_bench_measure(bal_bench_times *t, const bal_bench_config *c, bal_bench_fn *fn, void *context)
{
    bal_bench_reference reference;
    bal_status status = bal_bench_reference_init(&reference, c->reference);
    t->n = 0;
    if (status != BAL_OK)
        return status;
    BAL_TRY(fn(context));
    reset_peak();
    while (t->n < (size_t)c->repeat) {
        t->gflops[t->n] = bal_bench_reference_gflops(&reference);
        double start = bal_clock_seconds();
        BAL_TRY(fn(context));
        t->seconds[t->n] = bal_clock_seconds() - start;
        t->gflops_after[t->n] = bal_bench_reference_gflops(&reference);
        t->n++;
        if (bal_interrupted()) {
            status = bal_fail(BAL_EINTERRUPT, "stopped after %zu repetitions", t->n);
            goto out;
        }
    }
out:
    bal_bench_reference_dispose(&reference);
    return status;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *values, size_t n)
{
    double sorted[BAL_BENCH_MAX_REPEAT];
    memcpy(sorted, values, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare);
    return n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

/* To five digits: more would be noise. */
static void put(cJSON *out, const char *key, double value)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%.5g", value);
    (void)cJSON_AddRawToObject(out, key, text);
}

void bal_bench_report(cJSON *out, const bal_bench_times *t, double amount, const char *unit, const char *key,
                      double counted)
{
    double best = t->seconds[0], rate = 0, share = 0, before = 0, after = 0;
    for (size_t i = 0; i < t->n; i++) {
        double g = t->gflops[i] > t->gflops_after[i] ? t->gflops[i] : t->gflops_after[i];
        best = t->seconds[i] < best ? t->seconds[i] : best;
        rate = g > rate ? g : rate;
        before = t->gflops[i] > before ? t->gflops[i] : before;
        after = t->gflops_after[i] > after ? t->gflops_after[i] : after;
        double s = g > 0 ? counted / t->seconds[i] / 1e9 / g : 0;
        share = s > share ? s : share;
    }
    double middle = median(t->seconds, t->n);
    put(out, "value", amount / best);
    put(out, "median", amount / middle);
    (void)cJSON_AddStringToObject(out, "unit", unit);
    put(out, key, amount / best);
    put(out, "seconds", best);
    put(out, "seconds_median", middle);
    (void)cJSON_AddNumberToObject(out, "repetitions", (double)t->n);
    if (counted > 0)
        put(out, "counted_gflop", counted / 1e9);
    if (rate > 0) {
        put(out, "sgemm_gflops", rate);
        put(out, "sgemm_gflops_before", before);
        put(out, "sgemm_gflops_after", after);
        if (counted > 0)
            put(out, "vs_sgemm", share);
    }
    (void)cJSON_AddNumberToObject(out, "peak_rss_bytes", (double)bal_peak_rss_bytes());
    (void)cJSON_AddNumberToObject(out, "threads", (double)bal_threads_count());
    (void)cJSON_AddStringToObject(out, "isa", bal_isa_name());
    (void)cJSON_AddStringToObject(out, "blas", bal_gemm_version());
    (void)cJSON_AddStringToObject(out, "blas_core", bal_gemm_core());
    if (bal_dnnl_version() != NULL)
        (void)cJSON_AddStringToObject(out, "onednn", bal_dnnl_version());
}
