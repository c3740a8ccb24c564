/* --compute bf16: operands are rounded, sums are f32, and what an adapter adds is not rounded away.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter.h"
#include "lib/base/rng.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/gemm_dnnl.h"
#include "tests/lora_call.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

enum { M = 33, IN = 96, OUT = 70, R = 4 };

static real_t g_x[M * IN], g_w[OUT * IN], g_y[M * IN], g_panel[OUT * IN + M * IN];
static double g_spoil = 1;
static bool g_transposed;

static bal_view weights(const real_t *w)
{
    return (bal_view){.dtype = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32,
                      .rows = OUT,
                      .cols = IN,
                      .row_bytes = IN * sizeof(real_t),
                      .data = w};
}

static void fill(real_t *p, size_t n, double scale, const char *stream)
{
    bal_rng rng;
    bal_rng_init(&rng, 5, stream);
    for (size_t i = 0; i < n; i++)
        p[i] = (real_t)(scale * bal_rng_normal(&rng));
}

/* Rounded to 8 bits of mantissa, ties to even; written apart from the library's way. */
static double to_bf16(double x)
{
    int e = 0;
    double m = frexp(x, &e);
    return ldexp(nearbyint(ldexp(m, 8)), e - 8);
}

static void product_is_right(void)
{
    size_t K = g_transposed ? IN : OUT, N = g_transposed ? OUT : IN;
    bal_view w = weights(g_w);
    if (g_transposed)
        bal_gemm_view_nt(BAL_COMPUTE_BF16, M, g_x, K, &w, 0, g_y, N, g_panel);
    else
        bal_gemm_view_nn(BAL_COMPUTE_BF16, M, g_x, K, &w, 0, g_y, N, g_panel);
    for (size_t i = 0; i < M; i++) {
        for (size_t j = 0; j < N; j++) {
            double sum = 0, size = 0;
            for (size_t k = 0; k < K; k++) {
                double v = (double)(float)(g_transposed ? g_w[j * IN + k] : g_w[k * IN + j]);
                double t = to_bf16((double)(float)g_x[i * K + k]) * to_bf16(v);
                sum += t;
                size += fabs(t);
            }
            if (!CHECK_NEAR((double)g_y[i * N + j] * g_spoil, sum, 1e-6 * size))
                return;
        }
    }
}

TEST(operands_are_rounded)
{
    fill(g_x, M * IN, 1, "x");
    fill(g_w, OUT * IN, 0.1, "w");
    bal_view w = weights(g_w);
    CHECK(bal_panel_size(BAL_COMPUTE_BF16, &w, M) == OUT * IN + M * IN);
    for (int t = 0; t < 2; t++) {
        g_transposed = t == 1;
        product_is_right();
        g_spoil = 1.0001;
        CHECK(test_count_failures(product_is_right) > 0);
        g_spoil = 1;
    }
}

/* The library's product of bf16, which a machine with such instructions uses, is the same sum. */
TEST(the_library_agrees)
{
    static uint16_t x[M * IN], w[OUT * IN];
    static float y[M * OUT];
    if (!bal_dnnl_has_bf16())
        SKIP("oneDNN (libdnnl) with bf16 products is not installed");
    fill(g_x, M * IN, 1, "x");
    fill(g_w, OUT * IN, 0.1, "w");
    for (size_t i = 0; i < M * IN; i++)
        x[i] = bal_f32_to_bf16((float)g_x[i]);
    for (size_t i = 0; i < OUT * IN; i++)
        w[i] = bal_f32_to_bf16((float)g_w[i]);
    bal_gemm_bf16(true, M, OUT, IN, x, IN, w, IN, 0, y, OUT);
    bal_view view = weights(g_w);
    bal_gemm_view_nt(BAL_COMPUTE_BF16, M, g_x, IN, &view, 0, g_y, OUT, g_panel);
    for (size_t i = 0; i < (size_t)M * OUT; i++)
        if (!CHECK_NEAR(y[i], g_y[i], 1e-5))
            return;
}

/* |what the adapter changed - what it should change| / |what it should change|. */
static double error_of(const real_t *with, const real_t *without, const real_t *want)
{
    double error = 0, size = 0;
    for (size_t i = 0; i < (size_t)M * OUT; i++) {
        double d = (double)with[i] - (double)without[i] - (double)want[i];
        error += d * d;
        size += (double)want[i] * (double)want[i];
    }
    return sqrt(error / size);
}

TEST(an_update_of_a_thousandth_survives)
{
    static real_t a[R * IN], b[OUT * R], h[M * R], without[M * OUT], with[M * OUT], want[M * OUT], merged[OUT * IN];
    bal_lora lora = {.a = a, .b = b, .r = R, .in = IN, .out = OUT, .scale = 1};
    bal_view w = weights(g_w), sum = weights(merged);
    fill(g_x, M * IN, 1, "x");
    fill(g_w, OUT * IN, 0.1, "w");
    fill(a, R * IN, 0.01, "a");
    fill(b, OUT * R, 0.005, "b"); /* |BA| is about 1e-3 |W| */
    bal_gemm_view_nt(BAL_COMPUTE_BF16, M, g_x, IN, &w, 0, without, OUT, g_panel);
    memcpy(with, without, sizeof with);
    lora_forward(&lora, M, g_x, IN, with, OUT, h, BAL_COMPUTE_BF16); /* in f32 beside the rounded product */
    lora_forward(&lora, M, g_x, IN, want, OUT, h, BAL_COMPUTE_F32);
    CHECK_NEAR(error_of(with, without, want), 0, 2e-3);
    memcpy(merged, g_w, sizeof merged); /* added to the weight before the rounding, most of it is lost */
    bal_lora_add_delta(&lora, 0, OUT, merged, IN);
    bal_gemm_view_nt(BAL_COMPUTE_BF16, M, g_x, IN, &sum, 0, with, OUT, g_panel);
    CHECK(error_of(with, without, want) > 0.3);
}
