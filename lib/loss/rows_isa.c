/* The loops of rows.h.  exp() in f32 is a polynomial of our own, so that the loops are vectorised: exp(x) =
 * 2^k exp(f), k = round(x / ln 2), |f| <= ln 2 / 2, Taylor to the 7th power (truncation below 6e-9 relative); below
 * -87 it stays at exp(-87).  Arguments here are never above 0.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/loss/rows.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if BAL_REAL_IS_DOUBLE
static inline real_t exp_of(real_t x)
{
    return exp(x);
}
#else
static inline real_t exp_of(real_t x)
{
    const float round = 12582912.0f; /* 1.5 * 2^23: adding it leaves the integer part in the low bits */
    x = x < -87.0f ? -87.0f : x;     /* NaN stays */
    float t = x * 1.44269504f + round, k = t - round;
    float f = x - k * 0.693145752f - k * 1.42860677e-6f;
    float p = 1.0f / 5040;
    p = p * f + 1.0f / 720;
    p = p * f + 1.0f / 120;
    p = p * f + 1.0f / 24;
    p = p * f + 1.0f / 6;
    p = p * f + 0.5f;
    p = p * f * f + f + 1.0f;
    uint32_t bits;
    memcpy(&bits, &t, sizeof bits);
    bits = (bits + 127U) << 23; /* the upper bits of t fall out */
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}
#endif

static real_t row_max(size_t n, const real_t *z)
{
    real_t m = -INFINITY;
#pragma omp simd reduction(max : m)
    for (size_t j = 0; j < n; j++)
        m = z[j] > m ? z[j] : m;
    return m;
}

static void exp_sums(size_t n, const real_t *z, real_t m, double T, double *sum_1, double *sum_t)
{
    const real_t inv = (real_t)(1 / T);
    double one = 0, tempered = 0;
    if (T == 1) {
#pragma omp simd reduction(+ : one)
        for (size_t j = 0; j < n; j++)
            one += (double)exp_of(z[j] - m);
        tempered = one;
    } else if (T == 2) { /* exp(x) is the square of exp(x / 2) */
#pragma omp simd reduction(+ : one, tempered)
        for (size_t j = 0; j < n; j++) {
            double e = (double)exp_of((z[j] - m) * inv);
            one += e * e;
            tempered += e;
        }
    } else {
#pragma omp simd reduction(+ : one, tempered)
        for (size_t j = 0; j < n; j++) {
            one += (double)exp_of(z[j] - m);
            tempered += (double)exp_of((z[j] - m) * inv);
        }
    }
    *sum_1 = one;
    *sum_t = tempered;
}

static void teacher(size_t n, const real_t *restrict z, real_t *restrict zt, real_t m, double T, double sums[3])
{
    const real_t inv = (real_t)(1 / T);
    double s0 = 0, s1 = 0, s2 = 0;
#pragma omp simd reduction(+ : s0, s1, s2)
    for (size_t j = 0; j < n; j++) {
        real_t e = exp_of((zt[j] - m) * inv);
        s0 += (double)e;
        s1 += (double)e * (double)(zt[j] - z[j]);
        s2 += (double)e * (double)(zt[j] - m);
        zt[j] = e;
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
}

static double exp_moment(size_t n, const real_t *z, real_t m)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < n; j++)
        sum += (double)exp_of(z[j] - m) * (double)(z[j] - m);
    return sum;
}

static void put_exp(size_t n, const real_t *restrict z, real_t m, double T, double a, real_t *restrict g)
{
    const real_t inv = (real_t)(1 / T), scale = (real_t)a;
    for (size_t j = 0; j < n; j++)
        g[j] = scale * exp_of((z[j] - m) * inv);
}

static void add_kl(size_t n, const real_t *restrict z, real_t m, double T, double a, double b, const real_t *restrict e,
                   real_t *restrict g)
{
    const real_t inv = (real_t)(1 / T), own = (real_t)a, other = (real_t)b;
    for (size_t j = 0; j < n; j++)
        g[j] += own * exp_of((z[j] - m) * inv) - other * e[j];
}

static void add_entropy(size_t n, const real_t *restrict z, real_t m, double log_sum, double H, double a,
                        real_t *restrict g)
{
    const real_t scale = (real_t)(a * exp(-log_sum)), shift = (real_t)(H - log_sum);
    for (size_t j = 0; j < n; j++)
        g[j] += scale * exp_of(z[j] - m) * (z[j] - m + shift);
}

static void products(size_t n, const real_t *z, const real_t *zt, double sums[3])
{
    double s0 = 0, s1 = 0, s2 = 0;
#pragma omp simd reduction(+ : s0, s1, s2)
    for (size_t j = 0; j < n; j++) {
        s0 += (double)z[j] * (double)z[j];
        s1 += (double)zt[j] * (double)zt[j];
        s2 += (double)z[j] * (double)zt[j];
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
}

static double distance(size_t n, const real_t *z, double a, const real_t *zt, double b)
{
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t j = 0; j < n; j++) {
        double d = a * (double)z[j] - b * (double)zt[j];
        sum += d * d;
    }
    return sum;
}

static void add_pair(size_t n, const real_t *restrict z, double a, const real_t *restrict zt, double b,
                     real_t *restrict g)
{
    for (size_t j = 0; j < n; j++)
        g[j] += (real_t)(a * (double)z[j] + b * (double)zt[j]);
}

static void finish(size_t n, real_t *restrict z, const real_t *restrict g, double cap)
{
    if (cap <= 0) {
        memcpy(z, g, n * sizeof *z);
        return;
    }
    const real_t inv = (real_t)(1 / cap);
    for (size_t j = 0; j < n; j++) {
        real_t u = z[j] * inv;
        z[j] = g[j] * (1 - u * u);
    }
}

const bal_row_ops BAL_ISA_NAME(bal_row_ops) = {row_max,     exp_sums, teacher,  exp_moment, put_exp, add_kl,
                                               add_entropy, products, distance, add_pair,   finish};
