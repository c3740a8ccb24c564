/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/nn/ops.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if BAL_REAL_IS_DOUBLE
static inline real_t exp_real(real_t x)
{
    return exp(x);
}
#else
/* e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln 2 / 2; the series to r^7 is within 1e-8 of e^r.  Adding 1.5 * 2^23
 * rounds to a whole number, whose low bits are then n: no conversion to integer, so that a NaN passes through.
 * Below -87 the result is 0, above 88 it is e^88. */
static inline float exp_real(float x)
{
    const float magic = 12582912.0F, top = x > 88.0F ? 88.0F : x;
    const float t = top * 1.44269504F + magic, n = t - magic;
    const float r = (top - n * 0.693359375F) + n * 2.12194440e-4F;
    float p = 1.0F / 5040, power;
    uint32_t bits;
    p = p * r + 1.0F / 720;
    p = p * r + 1.0F / 120;
    p = p * r + 1.0F / 24;
    p = p * r + 1.0F / 6;
    p = p * r + 0.5F;
    p = p * r + 1.0F;
    p = p * r + 1.0F;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits + 127U) << 23;
    memcpy(&power, &bits, sizeof power);
    return x < -87.0F ? 0.0F : p * power;
}
#endif

static real_t max_of(const real_t *x, size_t n)
{
    real_t m = x[0];
#pragma omp simd reduction(max : m)
    for (size_t i = 1; i < n; i++)
        m = x[i] > m ? x[i] : m;
    return m;
}

static real_t exp_sum(real_t *x, size_t n, real_t shift)
{
    real_t sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) {
        real_t e = exp_real(x[i] - shift);
        x[i] = e;
        sum += e;
    }
    return sum;
}

static void scale(real_t *x, size_t n, real_t factor)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= factor;
}

static double dot(const real_t *x, const real_t *y, size_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)y[i];
    return sum;
}

/* tanh x; *slope = 1 - tanh^2 x. */
static inline real_t tanh_real(real_t x, real_t *slope)
{
#if BAL_REAL_IS_DOUBLE
    const real_t y = tanh(x);
    *slope = 1 - y * y;
    return y;
#else
    /* tanh |x| = 1 - w, w = 2 / (e^2|x| + 1), loses digits near 0, where the series to x^7 is within 1e-8 of it; the
     * slope w (2 - w) loses none near 1 */
    const float a = x < 0 ? -x : x, s = x * x;
    const float near = a * (1.0F - s * (1.0F / 3 - s * (2.0F / 15 - s * (17.0F / 315))));
    const float w = 2.0F / (exp_real(2.0F * a) + 1.0F);
    const float y = a < 0.15F ? near : 1.0F - w;
    *slope = w * (2.0F - w);
    return x < 0 ? -y : y;
#endif
}

static void softcap(real_t *x, size_t n, real_t cap, real_t *slope)
{
    const real_t inverse = 1 / cap;
    real_t unused;
    if (slope == NULL) {
        for (size_t i = 0; i < n; i++)
            x[i] = cap * tanh_real(x[i] * inverse, &unused);
        return;
    }
    for (size_t i = 0; i < n; i++)
        x[i] = cap * tanh_real(x[i] * inverse, &slope[i]);
}

static void multiply(real_t *restrict x, const real_t *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] *= y[i];
}

static void softmax_backward(const real_t *restrict p, real_t *restrict dp, size_t n, real_t delta)
{
    for (size_t i = 0; i < n; i++)
        dp[i] = p[i] * (dp[i] - delta);
}

static void swiglu(const real_t *restrict gate, const real_t *restrict up, real_t *restrict out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = gate[i] / (1 + exp_real(-gate[i])) * up[i];
}

/* out = g s(g) u:  dg = dout u (s + g s (1 - s)),  du = dout g s. */
static void swiglu_backward(const real_t *gate, const real_t *up, const real_t *dout, real_t *dgate, real_t *dup,
                            size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        real_t g = gate[i], u = up[i], d = dout[i], s = 1 / (1 + exp_real(-g));
        dgate[i] = d * u * s * (1 + g * (1 - s));
        dup[i] = d * g * s;
    }
}

static void norm(const real_t *restrict x, const real_t *restrict w, real_t offset, real_t r, real_t *restrict y,
                 size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * r * (w[i] + offset);
}

static double norm_dot(const real_t *x, const real_t *w, real_t offset, const real_t *dy, size_t n)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)(dy[i] * (w[i] + offset));
    return sum;
}

static void norm_backward(const real_t *restrict x, const real_t *restrict w, real_t offset, const real_t *restrict dy,
                          real_t r, real_t c, real_t *restrict dx, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dx[i] += r * (dy[i] * (w[i] + offset) - x[i] * c);
}

static void add(const real_t *restrict x, real_t *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

const bal_nn_ops BAL_ISA_NAME(bal_nn_ops) = {
    .max = max_of,
    .exp_sum = exp_sum,
    .scale = scale,
    .dot = dot,
    .softcap = softcap,
    .multiply = multiply,
    .softmax_backward = softmax_backward,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .norm = norm,
    .norm_dot = norm_dot,
    .norm_backward = norm_backward,
    .add = add,
};
