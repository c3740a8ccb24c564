/* Matrix products of the shapes of a training step, ours (tiled by the pool) beside the library's own threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/threads.h"
#include "lib/tensor/gemm.h"
#include "tools/bench.h"

#include <math.h>
#include <time.h>

/* times: how often it occurs in one LoRA step of SmolLM2-135M on 512 tokens; tb: times a stored weight transposed. */
static const struct {
    const char *name;
    bool tb;
    size_t m, n, k, times;
} k_shapes[] = {
    {"sq1024", false, 1024, 1024, 1024, 0},  {"fwd_qo", true, 512, 576, 576, 60},
    {"fwd_kv", true, 512, 192, 576, 60},     {"fwd_gateup", true, 512, 1536, 576, 60},
    {"fwd_down", true, 512, 576, 1536, 30},  {"bwd_qo", false, 512, 576, 576, 60},
    {"bwd_kv", false, 512, 576, 192, 60},    {"bwd_gateup", false, 512, 576, 1536, 60},
    {"bwd_down", false, 512, 1536, 576, 30}, {"fwd_head", true, 512, 49152, 576, 1},
    {"bwd_head", false, 512, 576, 49152, 1}, {"xA_576", true, 512, 16, 576, 0},
    {"xA_1536", true, 512, 16, 1536, 0},     {"hB_576", true, 512, 576, 16, 0},
    {"hB_1536", true, 512, 1536, 16, 0},
};
enum { N_SHAPES = sizeof k_shapes / sizeof k_shapes[0], LARGEST = 49152 * 576 }; /* elements of any operand */

typedef struct rates {
    double ours, library; /* GFLOP/s, best */
} rates;

#if BAL_REAL_IS_DOUBLE
static double best_seconds(size_t s, const float *a, const float *b, float *c, size_t tries)
{
    return bal_gemm_library_seconds(k_shapes[s].tb, k_shapes[s].m, k_shapes[s].n, k_shapes[s].k, a, b, c, tries);
}
#else
static double best_seconds(size_t s, const float *a, const float *b, float *c, size_t tries)
{
    double best = HUGE_VAL;
    for (size_t i = 0; i <= tries; i++) {
        double start = bal_clock_seconds();
        bal_gemm(false, k_shapes[s].tb, k_shapes[s].m, k_shapes[s].n, k_shapes[s].k, 1, a, k_shapes[s].k, b,
                 k_shapes[s].tb ? k_shapes[s].k : k_shapes[s].n, 0, c, k_shapes[s].n);
        double seconds = bal_clock_seconds() - start;
        best = i > 0 && seconds < best ? seconds : best;
    }
    return best;
}
#endif

static void measure_shape(size_t s, const bal_bench_config *c, float *const *buffers, rates *r)
{
    static const struct timespec pause = {.tv_nsec = 60000000}; /* until the library's threads sleep */
    double work = 2.0 * (double)k_shapes[s].m * (double)k_shapes[s].n * (double)k_shapes[s].k;
    size_t tries = (size_t)(1e9 / work);
    tries = (tries < 2 ? 2 : (tries > 50 ? 50 : tries)) * (size_t)c->repeat;
    r->ours = work / best_seconds(s, buffers[0], buffers[1], buffers[2], tries) / 1e9;
    r->library = work / 1e9 /
                 bal_gemm_library_seconds(k_shapes[s].tb, k_shapes[s].m, k_shapes[s].n, k_shapes[s].k, buffers[0],
                                          buffers[1], buffers[2], tries);
    (void)nanosleep(&pause, NULL);
}

bal_status bal_bench_gemm(cJSON *out, const bal_bench_config *c, const bal_log *log)
{
    rates r[N_SHAPES] = {{0, 0}};
    float *buffers[3] = {NULL, NULL, NULL};
    bal_status status = BAL_OK;
    bal_rng rng;
    double work = 0, ours = 0, library = 0;
    if (BAL_REAL_IS_DOUBLE)
        return bal_fail(BAL_EUNSUPPORTED, "bench gemm measures float; this program was built with real_t = double");
    bal_rng_init(&rng, 0, "bench");
    for (size_t k = 0; k < 3; k++) {
        if ((buffers[k] = bal_alloc(LARGEST, sizeof(float))) == NULL) {
            status = BAL_ENOMEM;
            goto out;
        }
        for (size_t i = 0; i < LARGEST && k < 2; i++)
            buffers[k][i] = (float)(bal_rng_next(&rng) >> 40) * 0x1p-24F - 0.5F;
    }
    cJSON *a = cJSON_AddObjectToObject(out, "rates"), *b = cJSON_AddObjectToObject(out, "library_rates");
    for (size_t s = 0; s < N_SHAPES; s++) {
        measure_shape(s, c, buffers, &r[s]);
        bal_log_line(log, BAL_LOG_INFO, "%-11s %4zu x %5zu x %5zu %s  %7.1f GFLOP/s, library alone %7.1f",
                     k_shapes[s].name, k_shapes[s].m, k_shapes[s].n, k_shapes[s].k, k_shapes[s].tb ? "NT" : "NN",
                     r[s].ours, r[s].library);
        (void)cJSON_AddNumberToObject(a, k_shapes[s].name, round(10 * r[s].ours) / 10);
        (void)cJSON_AddNumberToObject(b, k_shapes[s].name, round(10 * r[s].library) / 10);
        double part =
            2e-9 * (double)k_shapes[s].m * (double)k_shapes[s].n * (double)k_shapes[s].k * (double)k_shapes[s].times;
        work += part;
        ours += part / r[s].ours;
        library += part / r[s].library;
    }
    (void)cJSON_AddStringToObject(out, "unit", "GFLOP/s");
    (void)cJSON_AddNumberToObject(out, "value", round(10 * r[0].ours) / 10);
    (void)cJSON_AddNumberToObject(out, "step_gflop", round(10 * work) / 10);
    (void)cJSON_AddNumberToObject(out, "step_gflops", round(10 * work / ours) / 10);
    (void)cJSON_AddNumberToObject(out, "library_step_gflops", round(10 * work / library) / 10);
    (void)cJSON_AddNumberToObject(out, "threads", (double)bal_threads_count());
out:
    for (size_t k = 0; k < 3; k++)
        bal_free(buffers[k]);
    return status;
}
