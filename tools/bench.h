/* `balora bench`: each figure is one JSON object, the last line on stdout.  Definitions are those of the peers that
 * it is compared with: the reference rate is OpenBLAS sgemm 1024 x 1024 x 1024 with the same thread count, best of
 * five, before and after each repetition; vs_sgemm = counted operations / (time x that rate); one multiply-add is two
 * operations.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TOOLS_BENCH_H
#define BAL_TOOLS_BENCH_H

#include "lib/base/log.h"
#include "lib/base/status.h"
#include "lib/model/model.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bal_bench_config {
    const char *model, *method, *init, *rows, *compute, *text;
    int64_t tokens, new_tokens, context, sequences, r, repeat;
    double labelled;
    bool checkpoint_activations, share_prefix, teacher_cached, reference;
} bal_bench_config;

/* The reference rate. */
typedef struct bal_bench_reference {
    float *a, *b, *c; /* NULL: not measured */
} bal_bench_reference;
bal_status bal_bench_reference_init(bal_bench_reference *r, bool on);
void bal_bench_reference_dispose(bal_bench_reference *r);
double bal_bench_reference_gflops(const bal_bench_reference *r); /* now; 0 when off */

/* Seconds and reference rates of the repetitions of one figure. */
enum { BAL_BENCH_MAX_REPEAT = 1000 };
typedef struct bal_bench_times {
    double seconds[BAL_BENCH_MAX_REPEAT], gflops[BAL_BENCH_MAX_REPEAT], gflops_after[BAL_BENCH_MAX_REPEAT];
    size_t n;
} bal_bench_times;

/* Calls fn once to warm up, resets the peak of memory, and then calls it `repeat` times. */
typedef bal_status bal_bench_fn(void *context);
bal_status bal_bench_measure(bal_bench_times *t, const bal_bench_config *c, bal_bench_fn *fn, void *context);

/* Adds value (best), median, unit, seconds, repetitions, rates and memory; `amount` units of work and `counted`
 * operations a call (0: not counted).  key: a second name of the best value, e.g. "tokens_per_second". */
void bal_bench_report(cJSON *out, const bal_bench_times *t, double amount, const char *unit, const char *key,
                      double counted);

/* The figures. */
bal_status bal_bench_gemm(cJSON *out, const bal_bench_config *c, const bal_log *log);
bal_status bal_bench_load(cJSON *out, const bal_bench_config *c);
bal_status bal_bench_tokenize(cJSON *out, const bal_bench_config *c);
bal_status bal_bench_init(cJSON *out, const bal_bench_config *c);
/* sequences_given: --sequences was set, and bounds the rows of --rows. */
bal_status bal_bench_step(cJSON *out, const bal_bench_config *c, bool sequences_given);

bal_status bal_bench_prompt(cJSON *out, const bal_bench_config *c);
bal_status bal_bench_decode(cJSON *out, const bal_bench_config *c);

/* Linear weights of all blocks and the head, which is what one token is multiplied with. */
double bal_bench_matrix_parameters(const bal_model *m);

#endif
