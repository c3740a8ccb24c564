/* DoRA against its definition in double: y = (m / n) V x, V = W + s(BA - B0A0), n the row norms of V held constant in
 * the gradient (as peft), with and without dropout; by central differences, and mutations that must be noticed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"
#include "lib/base/rng.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { M = 5, IN = 7, OUT = 6, R = 2, VALUES = R * IN + OUT * R + OUT + M * IN };
#define STEP  1e-5
#define BOUND (BAL_REAL_IS_DOUBLE ? 1e-7 : 1e-4)

typedef enum mutation { NONE, NORM_MOVES, NO_START, WHOLE_WEIGHT, OTHER_NORM, OVERWRITTEN, MUTATIONS } mutation;

static struct {
    bal_adapter *a;
    bal_view w;
    real_t values[OUT * IN], x[M * IN], xa[M * IN], y[M * OUT], dy[M * OUT], dx[M * IN], dout[M * OUT],
        scratch[4 * M * (OUT + 2 * R + IN)], h[M * (OUT + 2 * R)], panel[OUT * IN];
    double n[OUT]; /* norms where the gradient is taken */
    bool dropout;
    mutation mutation;
} g;

static void set_up(const char *init, bool dropout)
{
    bal_rng rng;
    char target[] = "q", *targets[] = {target};
    bal_adapter_config c = {
        .method = bal_method_named("dora"), .r = R, .lora_alpha = 3, .target_modules = targets, .n_target_modules = 1};
    memset(&g, 0, sizeof g);
    bal_rng_init(&rng, 5, "dora");
    (void)snprintf(c.init, sizeof c.init, "%s", init);
    for (size_t i = 0; i < OUT * IN; i++)
        g.values[i] = (real_t)bal_rng_normal(&rng);
    g.w = (bal_view){.dtype = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32,
                     .rows = OUT,
                     .cols = IN,
                     .row_bytes = IN * sizeof(real_t),
                     .data = g.values};
    const bal_module module = {.name = "q", .w = &g.w};
    if (!CHECK_OK(bal_adapter_new(&g.a, &c, &module, 1, 1, true)))
        return;
    for (size_t i = 0; i < g.a->params.n; i++)
        g.a->params.values[i] += (real_t)(0.3 * bal_rng_normal(&rng));
    for (size_t i = 0; i < M * IN; i++) {
        g.x[i] = (real_t)bal_rng_normal(&rng);
        g.xa[i] = dropout && bal_rng_uniform(&rng) < 0.4 ? 0 : g.x[i];
    }
    for (size_t i = 0; i < M * OUT; i++)
        g.dy[i] = (real_t)bal_rng_normal(&rng);
    g.dropout = dropout;
}

/* V of A and B. */
static void matrix(const double *v, double V[OUT][IN])
{
    const bal_lora *l = &g.a->loras[0];
    for (size_t o = 0; o < OUT; o++)
        for (size_t i = 0; i < IN; i++) {
            double sum = 0;
            for (size_t k = 0; k < R; k++) {
                sum += v[R * IN + o * R + k] * v[k * IN + i];
                if (l->a0 != NULL && g.mutation != NO_START)
                    sum -= (double)l->b0[o * R + k] * (double)l->a0[k * IN + i];
            }
            V[o][i] = (double)g.values[o * IN + i] + l->scale * sum;
        }
}

static void norms(const double *v, double n[OUT])
{
    double V[OUT][IN];
    matrix(v, V);
    for (size_t o = 0; o < OUT; o++) {
        n[o] = 0;
        for (size_t i = 0; i < IN; i++)
            n[o] += g.mutation == OTHER_NORM ? fabs(V[o][i]) : V[o][i] * V[o][i];
        n[o] = g.mutation == OTHER_NORM ? n[o] : sqrt(n[o]);
    }
}

/* sum dy y.  v: A, B, m, then x; what dropout takes away of x stays away in xa. */
static double reference(const double *v)
{
    const double *m = v + R * IN + OUT * R, *x = m + OUT;
    double V[OUT][IN], n[OUT], sum = 0;
    matrix(v, V);
    memcpy(n, g.n, sizeof n);
    if (g.mutation == NORM_MOVES)
        norms(v, n);
    for (size_t t = 0; t < M; t++)
        for (size_t o = 0; o < OUT; o++) {
            double y = 0;
            for (size_t i = 0; i < IN; i++) {
                double w = (double)g.values[o * IN + i], all = x[t * IN + i];
                double kept = (double)g.xa[t * IN + i] == (double)g.x[t * IN + i] ? all : 0;
                if (g.dropout && g.mutation != WHOLE_WEIGHT)
                    y += w * (all - kept);
                y += m[o] / n[o] * V[o][i] * (g.mutation == WHOLE_WEIGHT ? all : kept);
            }
            sum += (double)g.dy[t * OUT + o] * y;
        }
    return sum;
}

/* What lib/model/linear.c does with one module; dx gets both shares (the mask of dropout is 0 or 1 here). */
static void run(void)
{
    const bal_site *s = &g.a->sites[0];
    bal_site_call c = {.site = s,
                       .w = &g.w,
                       .M = M,
                       .x = g.x,
                       .xa = g.dropout ? g.xa : g.x,
                       .ldx = IN,
                       .y = g.y,
                       .ldy = OUT,
                       .h = g.h,
                       .scratch = g.scratch,
                       .dropout = g.dropout,
                       .backward_follows = true,
                       .panel = g.panel,
                       .dy = g.dy};
    static real_t dxa[M * IN];
    CHECK(s->method->hidden(s) <= OUT + 2 * R && s->method->scratch(s, M) <= sizeof g.scratch / sizeof *g.scratch);
    s->method->prepare(s, &g.w, g.scratch);
    bal_site_base_product(&c, g.x, IN, 0, g.y, OUT);
    s->method->forward(&c);
    s->method->backward_output(&c, g.dout);
    bal_site_base_back(&c, g.dout, OUT, 1, g.dx);
    memset(dxa, 0, sizeof dxa);
    c.dx = dxa;
    s->method->backward(&c);
    for (size_t i = 0; i < M * IN; i++)
        g.dx[i] += (real_t)((double)g.xa[i] == (double)g.x[i] ? (double)dxa[i] : 0);
}

static void check_dora(void)
{
    static double v[VALUES];
    const bal_adapter *a = g.a;
    double start = g.mutation == OVERWRITTEN ? 0 : 0.25, sum = 0, scale = 0, d = 0, size = 0;
    size_t n = a->params.n;
    for (size_t i = 0; i < n; i++) {
        a->params.grads[i] = (real_t)0.25;
        v[i] = (double)a->params.values[i];
    }
    for (size_t i = 0; i < M * IN; i++) {
        g.dx[i] = (real_t)0.25;
        v[n + i] = (double)g.x[i];
    }
    CHECK(n + M * IN == VALUES);
    norms(v, g.n);
    run();
    for (size_t i = 0; i < M * OUT; i++) {
        sum += (double)g.y[i] * (double)g.dy[i];
        scale += fabs((double)g.y[i]);
    }
    CHECK_NEAR(sum, reference(v), (BAL_REAL_IS_DOUBLE ? 1e-13 : 1e-5) * scale);
    for (size_t i = 0; i < VALUES; i++) {
        double keep = v[i], got = (i < n ? (double)a->params.grads[i] : (double)g.dx[i - n]) - start;
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
    static const char *const starts[] = {"lora", "pissa"};
    for (int i = 0; i < 4; i++) {
        set_up(starts[i / 2], i % 2 == 1);
        check_dora();
        bal_adapter_free(g.a);
    }
}

TEST(mutations_are_noticed)
{
    for (int i = 0; i < MUTATIONS; i++) {
        set_up("pissa", true);
        g.mutation = (mutation)i;
        size_t failures = test_count_failures(check_dora);
        CHECK_MSG((failures > 0) == (i != NONE), "mutation %d gave %zu failures", i, failures);
        bal_adapter_free(g.a);
    }
}

/* A row of zeros has no norm: it stays 0 and is no NaN. */
TEST(rows_of_zeros)
{
    set_up("lora", false);
    for (size_t i = 0; i < IN; i++)
        g.values[2 * IN + i] = 0;
    for (size_t k = 0; k < R; k++)
        g.a->loras[0].b[2 * R + k] = 0;
    run();
    for (size_t i = 0; i < M * OUT; i++)
        CHECK(isfinite(g.y[i]) && (i % OUT != 2 || (double)g.y[i] == 0));
    for (size_t i = 0; i < g.a->params.n; i++)
        CHECK(isfinite(g.a->params.grads[i]));
    g.a->sites[0].method->effective(&g.a->sites[0], 2, 1, g.values + 2 * IN, IN);
    for (size_t i = 0; i < IN; i++)
        CHECK((double)g.values[2 * IN + i] == 0);
    bal_adapter_free(g.a);
}

/* The start changes nothing, and the merged weight computes what the adapter does. */
TEST(start_and_merge)
{
    static real_t W[OUT * IN];
    set_up("pissa", false);
    run();
    memcpy(W, g.values, sizeof W);
    g.a->sites[0].method->effective(&g.a->sites[0], 0, OUT, W, IN);
    for (size_t t = 0; t < M; t++)
        for (size_t o = 0; o < OUT; o++) {
            double y = 0;
            for (size_t i = 0; i < IN; i++)
                y += (double)W[o * IN + i] * (double)g.x[t * IN + i];
            CHECK_NEAR((double)g.y[t * OUT + o], y, BAL_REAL_IS_DOUBLE ? 1e-13 : 1e-5);
        }
    memcpy(g.a->params.values, g.a->initial, (R * IN + OUT * R) * sizeof(real_t));
    CHECK_OK(g.a->sites[0].method->init(&g.a->sites[0], &g.w, NULL));
    memcpy(W, g.values, sizeof W);
    g.a->sites[0].method->effective(&g.a->sites[0], 0, OUT, W, IN);
    for (size_t i = 0; i < OUT * IN; i++)
        CHECK_NEAR((double)W[i], (double)g.values[i], BAL_REAL_IS_DOUBLE ? 1e-13 : 1e-5);
    bal_adapter_free(g.a);
}
