/* Attention of one query over cached keys: scores for 16 keys at a time (a lane is a key), softmax, then the values
 * added in the order of their positions.  Nothing depends on what else is in the batch.  exp() is a polynomial after
 * reduction by ln 2 (Cody and Waite 1980), relative error below 2e-7.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/decode_ops.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64 };
#elif defined(__AVX2__)
enum { VECTOR_BYTES = 32 };
#else
enum { VECTOR_BYTES = 16 };
#endif
enum { LANES = VECTOR_BYTES / sizeof(real_t), PARTS = BAL_KEY_BLOCK / LANES, CHUNK = 4 };

typedef real_t vec __attribute__((vector_size(VECTOR_BYTES)));

static inline __attribute__((always_inline)) vec load(const real_t *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __attribute__((always_inline)) real_t exp_below(real_t x) /* x <= 0 */
{
#if BAL_REAL_IS_DOUBLE
    return exp(x);
#else
    const float magic = 12582912.0F; /* 1.5 * 2^23: adding it rounds to a whole number */
    x = x < -87.0F ? -87.0F : x;
    float n = (x * 1.44269504F + magic) - magic;
    float r = x - n * 0.693359375F;
    r -= n * -2.12194440e-4F;
    float p = 1.9875691500e-4F;
    p = p * r + 1.3981999507e-3F;
    p = p * r + 8.3334519073e-3F;
    p = p * r + 4.1665795894e-2F;
    p = p * r + 1.6666665459e-1F;
    p = p * r + 5.0000001201e-1F;
    p = p * r * r + r + 1.0F;
    int32_t bits = ((int32_t)n + 127) * (1 << 23);
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
#endif
}

static real_t largest(const real_t *x, size_t n)
{
    real_t lane[BAL_KEY_BLOCK], m = x[0];
    size_t i = 0;
    for (int l = 0; l < BAL_KEY_BLOCK; l++)
        lane[l] = x[0];
    for (; i + BAL_KEY_BLOCK <= n; i += BAL_KEY_BLOCK)
        for (int l = 0; l < BAL_KEY_BLOCK; l++)
            lane[l] = x[i + (size_t)l] > lane[l] ? x[i + (size_t)l] : lane[l];
    for (; i < n; i++)
        m = x[i] > m ? x[i] : m;
    for (int l = 0; l < BAL_KEY_BLOCK; l++)
        m = lane[l] > m ? lane[l] : m;
    return m;
}

static bool all_finite(const real_t *x, size_t n)
{
    int bad = 0;
#pragma omp simd reduction(| : bad)
    for (size_t i = 0; i < n; i++)
        bad |= !(x[i] - x[i] == 0);
    return bad == 0;
}

static double sum_exp(const real_t *x, size_t n, real_t max)
{
    enum { STRETCH = 1024 }; /* short sums in real_t, their sum in double */
    double total = 0;
    for (size_t begin = 0; begin < n; begin += STRETCH) {
        size_t end = n - begin < STRETCH ? n : begin + STRETCH, i = begin;
        real_t lane[BAL_KEY_BLOCK] = {0};
        for (; i + BAL_KEY_BLOCK <= end; i += BAL_KEY_BLOCK)
            for (int l = 0; l < BAL_KEY_BLOCK; l++)
                lane[l] += exp_below(x[i + (size_t)l] - max);
        for (; i < end; i++)
            total += (double)exp_below(x[i] - max);
        for (int l = 0; l < BAL_KEY_BLOCK; l++)
            total += (double)lane[l];
    }
    return total;
}

/* scores of one block of keys; four sums over the elements, added at the end, hide the latency. */
static inline __attribute__((always_inline)) void block_scores(const real_t *q, const real_t *keys, size_t d,
                                                               real_t scale, real_t *scores)
{
    vec acc[4][PARTS];
    size_t i = 0;
    for (int a = 0; a < 4; a++)
        for (int p = 0; p < PARTS; p++)
            acc[a][p] = (vec){0};
    for (; i + 4 <= d; i += 4)
#pragma GCC unroll 4
        for (int a = 0; a < 4; a++)
#pragma GCC unroll 8
            for (int p = 0; p < PARTS; p++)
                acc[a][p] += load(keys + (i + (size_t)a) * BAL_KEY_BLOCK + (size_t)p * LANES) * q[i + (size_t)a];
    for (; i < d; i++)
        for (int p = 0; p < PARTS; p++)
            acc[0][p] += load(keys + i * BAL_KEY_BLOCK + (size_t)p * LANES) * q[i];
#pragma GCC unroll 8
    for (int p = 0; p < PARTS; p++) {
        vec sum = ((acc[0][p] + acc[1][p]) + (acc[2][p] + acc[3][p])) * scale;
        memcpy(scores + (size_t)p * LANES, &sum, sizeof sum);
    }
}

static void add_values(const real_t *weights, const real_t *values, size_t n, size_t d, real_t inverse, real_t *out)
{
    size_t i = 0;
    for (; i + CHUNK * LANES <= d; i += CHUNK * LANES) {
        vec acc[CHUNK];
        for (int c = 0; c < CHUNK; c++)
            acc[c] = (vec){0};
        for (size_t t = 0; t < n; t++)
#pragma GCC unroll 4
            for (int c = 0; c < CHUNK; c++)
                acc[c] += load(values + t * d + i + (size_t)c * LANES) * weights[t];
        for (int c = 0; c < CHUNK; c++) {
            acc[c] *= inverse;
            memcpy(out + i + (size_t)c * LANES, &acc[c], sizeof acc[c]);
        }
    }
    if (i == d)
        return;
    for (size_t j = i; j < d; j++)
        out[j] = 0;
    for (size_t t = 0; t < n; t++)
        for (size_t j = i; j < d; j++)
            out[j] += weights[t] * values[t * d + j];
    for (size_t j = i; j < d; j++)
        out[j] *= inverse;
}

static inline real_t tanh_exact(real_t x)
{
#if BAL_REAL_IS_DOUBLE
    return tanh(x);
#else
    return tanhf(x);
#endif
}

static void attend(const real_t *q, const real_t *keys, const real_t *values, size_t first, size_t n, size_t d,
                   real_t scale, real_t cap, real_t *scores, real_t *out)
{
    size_t blocks = (n + BAL_KEY_BLOCK - 1) / BAL_KEY_BLOCK, start = first / BAL_KEY_BLOCK;
    size_t begin = start * BAL_KEY_BLOCK, end = blocks * BAL_KEY_BLOCK;
    for (size_t b = start; b < blocks; b++)
        block_scores(q, keys + b * d * BAL_KEY_BLOCK, d, scale, scores + b * BAL_KEY_BLOCK);
    for (size_t i = first; cap > 0 && i < n; i++)
        scores[i] = cap * tanh_exact(scores[i] / cap);
    real_t max = largest(scores + first, n - first);
    real_t lane[BAL_KEY_BLOCK] = {0}, sum = 0;
    for (size_t i = begin; i < first; i++)
        scores[i] = max; /* places outside of the window or without a key: any finite value */
    for (size_t i = n; i < end; i++)
        scores[i] = max;
    for (size_t i = begin; i < end; i++)
        scores[i] = exp_below(scores[i] - max);
    for (size_t i = begin; i < first; i++)
        scores[i] = 0;
    for (size_t i = n; i < end; i++)
        scores[i] = 0;
    for (size_t b = start; b < blocks; b++)
        for (int l = 0; l < BAL_KEY_BLOCK; l++)
            lane[l] += scores[b * BAL_KEY_BLOCK + (size_t)l];
    for (int l = 0; l < BAL_KEY_BLOCK; l++)
        sum += lane[l];
    add_values(scores + first, values + first * d, n - first, d, 1 / sum, out);
}

static void swiglu(real_t *restrict gate, const real_t *restrict up, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++) {
        real_t x = gate[i], e = exp_below(x < 0 ? x : -x);
        gate[i] = x * (x < 0 ? e : 1) / (1 + e) * up[i];
    }
}

const bal_decode_ops BAL_ISA_NAME(bal_decode_ops) = {attend, sum_exp, largest, all_finite, swiglu};
