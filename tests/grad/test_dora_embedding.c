/* DoRA on an embedding against its definition in double: y_t = c (m / n) o V_t, V = W + s (B A)^T, n the norms of V's
 * columns held constant in the gradient (as peft); by central differences, and mutations that must be noticed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"
#include "lib/base/rng.h"
#include "lib/tensor/rowdot.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { M = 6, VOCAB = 300, HIDDEN = 19, R = 2, VALUES = R * VOCAB + HIDDEN * R + HIDDEN }; /* two blocks of rows */
#define STEP  1e-5
#define BOUND (BAL_REAL_IS_DOUBLE ? 1e-7 : 1e-4)
#define SCALE 1.7

typedef enum mutation { NONE, NORM_MOVES, ROW_NORM, NO_SCALE, OVERWRITTEN, MUTATIONS } mutation;

static const int32_t k_tokens[M] = {3, 299, 3, 260, 0, 17}; /* one twice */

static struct {
    bal_adapter *a;
    bal_view w;
    real_t values[VOCAB * HIDDEN], y[M * HIDDEN], dy[M * HIDDEN], scratch[VOCAB * HIDDEN];
    double V[VOCAB][HIDDEN], n[HIDDEN]; /* n: where the gradient is taken */
    mutation mutation;
} g;

static void set_up(void)
{
    bal_rng rng;
    char target[] = "e", *targets[] = {target};
    bal_adapter_config c = {
        .method = bal_method_named("dora"), .r = R, .lora_alpha = 3, .target_modules = targets, .n_target_modules = 1};
    memset(&g, 0, sizeof g);
    bal_rng_init(&rng, 5, "dora");
    (void)snprintf(c.init, sizeof c.init, "lora");
    for (size_t i = 0; i < VOCAB * HIDDEN; i++)
        g.values[i] = (real_t)bal_rng_normal(&rng);
    g.w = bal_view_of(g.values, VOCAB, HIDDEN);
    const bal_module module = {.name = "e", .w = &g.w, .kind = BAL_MODULE_EMBEDDING};
    if (!CHECK_OK(bal_adapter_new(&g.a, &c, &module, 1, 1, true)))
        return;
    for (size_t i = 0; i < M * HIDDEN; i++)
        g.dy[i] = (real_t)bal_rng_normal(&rng);
}

static void disturb(void)
{
    bal_rng rng;
    bal_rng_init(&rng, 6, "disturb");
    for (size_t i = 0; i < g.a->params.n; i++)
        g.a->params.values[i] += (real_t)(0.3 * bal_rng_normal(&rng));
}

static void matrix(const double *v)
{
    for (size_t t = 0; t < VOCAB; t++)
        for (size_t o = 0; o < HIDDEN; o++) {
            double sum = 0;
            for (size_t k = 0; k < R; k++)
                sum += v[R * VOCAB + o * R + k] * v[k * VOCAB + t];
            g.V[t][o] = (double)g.values[t * HIDDEN + o] + g.a->loras[0].scale * sum;
        }
}

static void norms(double n[HIDDEN])
{
    for (size_t o = 0; o < HIDDEN; o++) {
        n[o] = 0;
        for (size_t t = 0; t < VOCAB; t++)
            n[o] += g.V[t][o] * g.V[t][o];
        n[o] = sqrt(n[o]);
    }
}

/* y_t of a token, as V has it. */
static double output(const double *m, size_t token, size_t o)
{
    double n = g.n[o], row = 0;
    for (size_t k = 0; k < HIDDEN; k++)
        row += g.V[token][k] * g.V[token][k];
    return (g.mutation == NO_SCALE ? 1 : SCALE) * m[o] / (g.mutation == ROW_NORM ? sqrt(row) : n) * g.V[token][o];
}

static double reference(const double *v)
{
    double sum = 0;
    matrix(v);
    if (g.mutation == NORM_MOVES)
        norms(g.n);
    for (size_t i = 0; i < M * HIDDEN; i++)
        sum += (double)g.dy[i] * output(v + R * VOCAB + HIDDEN * R, (size_t)k_tokens[i / HIDDEN], i % HIDDEN);
    return sum;
}

static void run(void)
{
    const bal_site *s = &g.a->sites[0];
    const bal_site_call c = {.site = s, .w = &g.w, .M = M, .y = g.y, .ldy = HIDDEN, .scratch = g.scratch, .dy = g.dy};
    CHECK(s->method->scratch(s, M) <= sizeof g.scratch / sizeof *g.scratch);
    CHECK(s->method->prepare_scratch(s) <= sizeof g.scratch / sizeof *g.scratch);
    s->method->prepare(s, &g.w, g.scratch);
    for (size_t i = 0; i < M * HIDDEN; i++)
        g.y[i] = (real_t)(SCALE * (double)g.values[(size_t)k_tokens[i / HIDDEN] * HIDDEN + i % HIDDEN]);
    s->method->embed(&c, k_tokens, (real_t)SCALE);
    s->method->embed_back(&c, k_tokens, (real_t)SCALE);
}

static void check(void)
{
    static double v[VALUES];
    double d = 0, size = 0, start = g.mutation == OVERWRITTEN ? 0 : 0.25;
    CHECK(g.a->params.n == VALUES);
    for (size_t i = 0; i < VALUES; i++) {
        g.a->params.grads[i] = (real_t)0.25;
        v[i] = (double)g.a->params.values[i];
    }
    matrix(v);
    norms(g.n);
    run();
    for (size_t i = 0; i < M * HIDDEN; i++)
        CHECK_NEAR(g.y[i], output(v + R * VOCAB + HIDDEN * R, (size_t)k_tokens[i / HIDDEN], i % HIDDEN),
                   BAL_REAL_IS_DOUBLE ? 1e-13 : 1e-5);
    for (size_t i = 0; i < VALUES; i++) {
        double keep = v[i], got = (double)g.a->params.grads[i] - start;
        v[i] = keep + STEP;
        double up = reference(v);
        v[i] = keep - STEP;
        double want = (up - reference(v)) / (2 * STEP);
        v[i] = keep;
        d += (want - got) * (want - got);
        size += want * want + got * got;
    }
    CHECK_MSG(sqrt(d) <= BOUND * sqrt(size), "gradient is off by %g", sqrt(d / size));
}

TEST(gradients)
{
    set_up();
    disturb();
    check();
    bal_adapter_free(g.a);
}

TEST(mutations_are_noticed)
{
    for (int i = 0; i < MUTATIONS; i++) {
        set_up();
        disturb();
        g.mutation = (mutation)i;
        size_t failures = test_count_failures(check);
        CHECK_MSG((failures > 0) == (i != NONE), "mutation %d gave %zu failures", i, failures);
        bal_adapter_free(g.a);
    }
}

/* The start changes nothing, and the merged rows are what is looked up. */
TEST(start_and_merge)
{
    static real_t W[VOCAB * HIDDEN];
    for (int turn = 0; turn < 2; turn++) {
        set_up();
        if (turn == 1)
            disturb();
        run();
        memcpy(W, g.values, sizeof W);
        g.a->sites[0].method->effective(&g.a->sites[0], 0, 100, W, HIDDEN);
        g.a->sites[0].method->effective(&g.a->sites[0], 100, VOCAB - 100, W + 100 * HIDDEN, HIDDEN);
        for (size_t i = 0; i < VOCAB * HIDDEN && turn == 0; i++)
            CHECK_NEAR(W[i], g.values[i], BAL_REAL_IS_DOUBLE ? 1e-13 : 1e-5);
        for (size_t i = 0; i < M * HIDDEN; i++)
            CHECK_NEAR(g.y[i], SCALE * (double)W[(size_t)k_tokens[i / HIDDEN] * HIDDEN + i % HIDDEN],
                       BAL_REAL_IS_DOUBLE ? 1e-13 : 1e-5);
        bal_adapter_free(g.a);
    }
}
