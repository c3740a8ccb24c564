/* The side path of an adapter: gradients of sum(W * Y) with random W by central differences, with and without a residual
 * start, and mutations that must be noticed.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/lora_call.h"
#include "tests/test.h"

#include "lib/adapter/adapter.h"
#include "lib/base/rng.h"

#include <math.h>
#include <string.h>

enum { M = 5, IN = 7, OUT = 6, R = 3, LDX = IN + 2, LDY = OUT + 3 };
#define STEP  1e-5
#define BOUND (BAL_REAL_IS_DOUBLE ? 1e-7 : 1e-4)

typedef enum mutation { NONE, SCALE, NO_START, START_SIGN, TRANSPOSED, OVERWRITTEN, MUTATIONS } mutation;

static struct {
    real_t a[R * IN], b[OUT * R], a0[R * IN], b0[OUT * R], da[R * IN], db[OUT * R], x[M * LDX], y[M * LDY], dy[M * LDY],
        dx[M * LDX], h[M * 2 * R], scratch[M * 2 * R];
    bool residual;
    mutation mutation;
} g;

static void fill(real_t *x, size_t n, bal_rng *rng)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (real_t)bal_rng_normal(rng);
}

static void set_up(bool residual)
{
    bal_rng rng;
    bal_rng_init(&rng, 5, "lora");
    memset(&g, 0, sizeof g);
    fill(g.a, R * IN, &rng);
    fill(g.b, OUT * R, &rng);
    fill(g.a0, R * IN, &rng);
    fill(g.b0, OUT * R, &rng);
    fill(g.x, M * LDX, &rng);
    fill(g.dy, M * LDY, &rng); /* the random projection */
    g.residual = residual;
}

enum { VALUES = R * IN + OUT * R + M * IN };

/* sum dy * y by the definition, as a function of all of A, B and x in double. */
static double reference(const double *v)
{
    const double *a = v, *b = v + R * IN, *x = b + OUT * R;
    double scale = g.mutation == SCALE ? 1.65 : 1.5, sum = 0;
    for (size_t t = 0; t < M; t++)
        for (size_t o = 0; o < OUT; o++) {
            double y = 0;
            for (size_t k = 0; k < R; k++) {
                double h = 0, h0 = 0;
                for (size_t i = 0; i < IN; i++) {
                    h += x[t * IN + i] * a[g.mutation == TRANSPOSED ? (i * R + k) : (k * IN + i)];
                    h0 += x[t * IN + i] * (double)g.a0[k * IN + i];
                }
                y += b[o * R + k] * h;
                if (g.residual && g.mutation != NO_START)
                    y += (g.mutation == START_SIGN ? 1 : -1) * (double)g.b0[o * R + k] * h0;
            }
            sum += (double)g.dy[t * LDY + o] * scale * y;
        }
    return sum;
}

static void check_lora(void)
{
    static double v[VALUES], num[VALUES], ana[VALUES];
    bal_lora l = {.in = IN, .out = OUT, .r = R, .scale = 1.5, .a = g.a, .b = g.b, .da = g.da, .db = g.db};
    if (g.residual) {
        l.a0 = g.a0;
        l.b0 = g.b0;
    }
    double start = g.mutation == OVERWRITTEN ? 0 : 0.25, sum = 0, scale = 0;
    for (size_t i = 0; i < R * IN; i++)
        g.da[i] = (real_t)0.25;
    for (size_t i = 0; i < OUT * R; i++)
        g.db[i] = (real_t)0.25;
    for (size_t i = 0; i < M * LDX; i++)
        g.dx[i] = (real_t)0.25;
    memset(g.y, 0, sizeof g.y);
    lora_forward(&l, M, g.x, LDX, g.y, LDY, g.h, BAL_COMPUTE_F32);
    bal_lora_backward(&l, M, g.x, LDX, g.dy, LDY, g.h, g.dx, LDX, g.scratch);
    for (size_t i = 0; i < R * IN; i++) {
        v[i] = (double)g.a[i];
        ana[i] = (double)g.da[i] - start;
    }
    for (size_t i = 0; i < OUT * R; i++) {
        v[R * IN + i] = (double)g.b[i];
        ana[R * IN + i] = (double)g.db[i] - start;
    }
    for (size_t i = 0; i < M * IN; i++) {
        size_t at = i / IN * LDX + i % IN;
        v[R * IN + OUT * R + i] = (double)g.x[at];
        ana[R * IN + OUT * R + i] = (double)g.dx[at] - start;
    }
    for (size_t i = 0; i < M * OUT; i++) {
        sum += (double)g.y[i / OUT * LDY + i % OUT] * (double)g.dy[i / OUT * LDY + i % OUT];
        scale += fabs((double)g.y[i / OUT * LDY + i % OUT]);
    }
    CHECK_NEAR(sum, reference(v), (BAL_REAL_IS_DOUBLE ? 1e-13 : 1e-5) * scale);
    double d = 0, na = 0, nb = 0;
    for (size_t i = 0; i < VALUES; i++) {
        double keep = v[i], up;
        v[i] = keep + STEP;
        up = reference(v);
        v[i] = keep - STEP;
        num[i] = (up - reference(v)) / (2 * STEP);
        v[i] = keep;
        d += (num[i] - ana[i]) * (num[i] - ana[i]);
        na += num[i] * num[i];
        nb += ana[i] * ana[i];
    }
    d = sqrt(d) / (sqrt(na) + sqrt(nb));
    CHECK_MSG(d <= BOUND, "gradient is off by %g", d);
    for (size_t t = 0; t < M; t++) /* nothing beyond the columns */
        CHECK(g.y[t * LDY + OUT] == 0 && g.dx[t * LDX + IN] == (real_t)0.25);
}

TEST(plain)
{
    set_up(false);
    check_lora();
}

TEST(residual_start)
{
    set_up(true);
    check_lora();
}

TEST(frozen_factors_pass_the_gradient_on)
{
    bal_lora l = {.in = IN, .out = OUT, .r = R, .scale = 1.5, .a = g.a, .b = g.b};
    static real_t dx[M * LDX];
    set_up(false);
    check_lora();
    bal_lora_backward(&l, M, g.x, LDX, g.dy, LDY, g.h, dx, LDX, g.scratch);
    for (size_t i = 0; i < M * IN; i++)
        CHECK_NEAR(dx[i / IN * LDX + i % IN], (double)g.dx[i / IN * LDX + i % IN] - 0.25, 1e-5);
}

TEST(mutations_are_noticed)
{
    for (int i = 0; i < MUTATIONS; i++) {
        set_up(true);
        g.mutation = (mutation)i;
        size_t failures = test_count_failures(check_lora);
        CHECK_MSG((failures > 0) == (i != NONE), "mutation %d gave %zu failures", i, failures);
    }
}
