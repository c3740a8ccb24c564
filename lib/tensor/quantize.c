/* Layouts (little endian; d, m, dmin are halves):
 *   Q8_0  d, 32 x i8                                         w = d q
 *   Q4_0  d, 16 bytes: low nibbles 0..15, high 16..31        w = d (q - 8)
 *   Q4_1  d, m, 16 bytes                                     w = d q + m
 *   Q4_K  d, dmin, 12 bytes of 8 scales and 8 minima (6 bits each), 128 bytes: of every 64 elements the low nibbles
 *         are the first 32 and the high ones the next 32     w = d s q - dmin m
 *   Q6_K  128 bytes of low nibbles, 64 of upper pairs of bits, 16 scales i8, d; of every 128 elements byte l of the
 *         nibbles holds l and l + 64, byte 32 + l holds l + 32 and l + 96      w = d s (q - 32)
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/quantize.h"

#include "lib/tensor/view.h"

#include <math.h>
#include <string.h>
#include <strings.h>

enum { BLOCK = 32, SUPER = 256, ROUNDS = 3 };

static const bal_quant_info k_info[BAL_QUANT_COUNT] = {
    [BAL_QUANT_F32] = {"F32", 0, 0, 1, 4},         [BAL_QUANT_F16] = {"F16", 1, 1, 1, 2},
    [BAL_QUANT_BF16] = {"BF16", 30, 32, 1, 2},     [BAL_QUANT_Q8_0] = {"Q8_0", 8, 7, 32, 34},
    [BAL_QUANT_Q4_0] = {"Q4_0", 2, 2, 32, 18},     [BAL_QUANT_Q4_1] = {"Q4_1", 3, 3, 32, 20},
    [BAL_QUANT_Q4_K] = {"Q4_K", 12, 15, 256, 144}, [BAL_QUANT_Q6_K] = {"Q6_K", 14, 18, 256, 210},
};

const bal_quant_info *bal_quant_of(bal_quant q)
{
    return &k_info[q];
}

bool bal_quant_parse(const char *name, bal_quant *out)
{
    for (int i = 0; i < BAL_QUANT_COUNT; i++)
        if (strcasecmp(name, k_info[i].name) == 0) {
            *out = (bal_quant)i;
            return true;
        }
    return false;
}

static void put_half(unsigned char *p, float v)
{
    uint16_t h = bal_f32_to_f16(v);
    memcpy(p, &h, sizeof h);
}

static float through_half(float v)
{
    return bal_f16_to_f32(bal_f32_to_f16(v));
}

static int clamp_round(float v, int low, int high)
{
    float r = rintf(v);
    return r < (float)low ? low : r > (float)high ? high : (int)r;
}

static void block_q8_0(const float *x, unsigned char *out)
{
    float most = 0;
    for (int i = 0; i < BLOCK; i++)
        most = fmaxf(most, fabsf(x[i]));
    float d = most / 127, inverse = d > 0 ? 1 / d : 0;
    put_half(out, d);
    for (int i = 0; i < BLOCK; i++)
        out[2 + i] = (unsigned char)(signed char)clamp_round(x[i] * inverse, -127, 127);
}

/* w = d q + m with q in 0..levels, d and m as stored by `keep`; returns the squared error of the best d, m found. */
typedef struct affine {
    float d, m;
} affine;

static float affine_error(const float *x, int n, int levels, affine a, unsigned char *q)
{
    float error = 0, inverse = a.d != 0 ? 1 / a.d : 0; /* of a block without spread every q gives the same */
    for (int i = 0; i < n; i++) {
        q[i] = (unsigned char)clamp_round((x[i] - a.m) * inverse, 0, levels);
        float e = x[i] - (a.d * (float)q[i] + a.m);
        error += e * e;
    }
    return error;
}

/* Least squares of x on the rounded q: both coefficients, or d alone when m is 0 and stays so. */
static affine refit(const float *x, int n, const unsigned char *q, bool offset, affine old)
{
    float sq = 0, sqq = 0, sx = 0, sxq = 0;
    for (int i = 0; i < n; i++) {
        sq += (float)q[i];
        sqq += (float)q[i] * (float)q[i];
        sx += x[i];
        sxq += x[i] * (float)q[i];
    }
    float det = (float)n * sqq - sq * sq;
    if (!offset)
        return sqq > 0 ? (affine){sxq / sqq, 0} : old;
    if (!(det > 0))
        return old;
    float d = ((float)n * sxq - sx * sq) / det;
    return (affine){d, (sx - d * sq) / (float)n};
}

/* From several steps about that of the range, each refitted: the best of them. */
static affine best_affine(const float *x, int n, int levels, bool negative_only, bool halves, unsigned char *q)
{
    float low = x[0], high = x[0];
    unsigned char trial[BLOCK];
    for (int i = 1; i < n; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    if (negative_only && low > 0)
        low = 0;
    affine a = {(high - low) / (float)levels, low}, best = a;
    float least = INFINITY;
    for (int start = -2; start <= 2; start++) {
        float last = INFINITY;
        a = (affine){(high - low) / ((float)levels + 0.5F * (float)start), low};
        for (int round = 0; round <= ROUNDS; round++) {
            if (halves)
                a = (affine){through_half(a.d), through_half(a.m)};
            float error = affine_error(x, n, levels, a, trial);
            if (error < least) {
                least = error;
                best = a;
                memcpy(q, trial, (size_t)n);
            }
            if (!(error < last))
                break;
            last = error;
            a = refit(x, n, trial, true, a);
            if (negative_only && a.m > 0)
                a = refit(x, n, trial, false, a);
            if (!(a.d > 0))
                break;
        }
    }
    return best;
}

static void block_q4_1(const float *x, unsigned char *out)
{
    unsigned char q[BLOCK] = {0};
    affine a = best_affine(x, BLOCK, 15, false, true, q);
    put_half(out, a.d);
    put_half(out + 2, a.m);
    for (int i = 0; i < BLOCK / 2; i++)
        out[4 + i] = (unsigned char)(q[i] | q[i + BLOCK / 2] << 4);
}

/* q in low..high and w = d q: the scale that the range suggests, then least squares; returns d. */
static float best_scale(const float *x, int n, int low, int high, signed char *q)
{
    float most = 0, least = INFINITY, best = 0;
    signed char trial[BLOCK];
    if (n < 1 || n > BLOCK) /* no caller does; it lets the compiler see the bound */
        return 0;
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > fabsf(most))
            most = x[i];
    memset(q, 0, (size_t)n);
    if (most == 0)
        return 0;
    for (int start = 0; start < 2; start++) { /* the largest value at either end of the range */
        float d = start == 0 ? most / (float)low : most / (float)high;
        for (int round = 0; round <= ROUNDS; round++) {
            float error = 0, xq = 0, qq = 0;
            for (int i = 0; i < n; i++) {
                trial[i] = (signed char)clamp_round(x[i] / d, low, high);
                float e = x[i] - d * (float)trial[i];
                error += e * e;
                xq += x[i] * (float)trial[i];
                qq += (float)trial[i] * (float)trial[i];
            }
            if (error < least) {
                least = error;
                best = d;
                memcpy(q, trial, (size_t)n);
            }
            if (!(qq > 0) || xq / qq == d || xq == 0)
                break;
            d = xq / qq;
        }
    }
    return best;
}

static void block_q4_0(const float *x, unsigned char *out)
{
    signed char q[BLOCK];
    float d = through_half(best_scale(x, BLOCK, -8, 7, q)), inverse = d != 0 ? 1 / d : 0;
    put_half(out, d);
    for (int i = 0; i < BLOCK; i++)
        q[i] = (signed char)clamp_round(x[i] * inverse, -8, 7);
    for (int i = 0; i < BLOCK / 2; i++)
        out[2 + i] = (unsigned char)((q[i] + 8) | (q[i + BLOCK / 2] + 8) << 4);
}

static void block_q4_k(const float *x, unsigned char *out)
{
    unsigned char q[BLOCK] = {0}, scale[8], minimum[8], *packed = out + 4, *nibbles = out + 16;
    float d[8], m[8], most_d = 0, most_m = 0;
    for (int b = 0; b < 8; b++) {
        affine a = best_affine(x + b * BLOCK, BLOCK, 15, true, false, q);
        d[b] = a.d;
        m[b] = -a.m;
        most_d = fmaxf(most_d, d[b]);
        most_m = fmaxf(most_m, m[b]);
    }
    float D = through_half(most_d / 63), M = through_half(most_m / 63);
    put_half(out, D);
    put_half(out + 2, M);
    for (int b = 0; b < 8; b++) {
        scale[b] = (unsigned char)(D > 0 ? clamp_round(d[b] / D, 0, 63) : 0);
        minimum[b] = (unsigned char)(M > 0 ? clamp_round(m[b] / M, 0, 63) : 0);
    }
    for (int b = 0; b < 4; b++) {
        packed[b] = (unsigned char)(scale[b] | (scale[b + 4] >> 4) << 6);
        packed[b + 4] = (unsigned char)(minimum[b] | (minimum[b + 4] >> 4) << 6);
        packed[b + 8] = (unsigned char)((scale[b + 4] & 15) | (minimum[b + 4] & 15) << 4);
    }
    memset(nibbles, 0, 128);
    for (int b = 0; b < 8; b++) {
        affine a = {D * (float)scale[b], -M * (float)minimum[b]};
        (void)affine_error(x + b * BLOCK, BLOCK, 15, a, q);
        for (int i = 0; i < BLOCK; i++)
            nibbles[b / 2 * BLOCK + i] |= (unsigned char)(b % 2 == 0 ? q[i] : q[i] << 4);
    }
}

static void block_q6_k(const float *x, unsigned char *out)
{
    enum { GROUP = 16, GROUPS = SUPER / GROUP };
    unsigned char *low = out, *high = out + 128, *scales = out + 192, q[SUPER];
    signed char part[BLOCK];
    float d[GROUPS], most = 0;
    for (int g = 0; g < GROUPS; g++) {
        d[g] = best_scale(x + g * GROUP, GROUP, -32, 31, part);
        if (fabsf(d[g]) > fabsf(most))
            most = d[g];
    }
    float D = through_half(most / -128);
    for (int g = 0; g < GROUPS; g++) {
        int s = D != 0 ? clamp_round(d[g] / D, -128, 127) : 0;
        float step = D * (float)s, inverse = step != 0 ? 1 / step : 0;
        scales[g] = (unsigned char)(signed char)s;
        for (int i = 0; i < GROUP; i++)
            q[g * GROUP + i] = (unsigned char)(clamp_round(x[g * GROUP + i] * inverse, -32, 31) + 32);
    }
    for (int h = 0; h < 2; h++)
        for (int l = 0; l < 32; l++) {
            const unsigned char *p = q + h * 128 + l;
            low[h * 64 + l] = (unsigned char)((p[0] & 15) | (p[64] & 15) << 4);
            low[h * 64 + 32 + l] = (unsigned char)((p[32] & 15) | (p[96] & 15) << 4);
            high[h * 32 + l] = (unsigned char)(p[0] >> 4 | (p[32] >> 4) << 2 | (p[64] >> 4) << 4 | (p[96] >> 4) << 6);
        }
    put_half(out + 208, D);
}

void bal_quantize_row(bal_quant q, const float *x, size_t n, void *out)
{
    unsigned char *p = out;
    for (size_t i = 0; i < n; i += k_info[q].block, p += k_info[q].bytes) {
        uint16_t half;
        switch (q) {
        case BAL_QUANT_F16:
            put_half(p, x[i]);
            break;
        case BAL_QUANT_BF16:
            half = bal_f32_to_bf16(x[i]);
            memcpy(p, &half, sizeof half);
            break;
        case BAL_QUANT_Q8_0:
            block_q8_0(x + i, p);
            break;
        case BAL_QUANT_Q4_0:
            block_q4_0(x + i, p);
            break;
        case BAL_QUANT_Q4_1:
            block_q4_1(x + i, p);
            break;
        case BAL_QUANT_Q4_K:
            block_q4_k(x + i, p);
            break;
        case BAL_QUANT_Q6_K:
            block_q6_k(x + i, p);
            break;
        default:
            memcpy(p, x + i, sizeof *x);
        }
    }
}
