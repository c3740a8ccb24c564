/* Dequantisation loops.  Block layouts (GGUF, little endian; f16 = IEEE half):
 *   Q8_0  32 elements in 34 bytes: f16 d, 32 x i8 q                      w = q d
 *   Q4_0  32 elements in 18 bytes: f16 d, 16 bytes of two nibbles        w = (q - 8) d
 *   Q4_1  32 elements in 20 bytes: f16 d, f16 m, 16 bytes of two nibbles w = q d + m
 * Low nibbles are the elements 0..15 of the block, high nibbles the elements 16..31.  A product of an integer below
 * 2^8 and an f16 is exact in f32, so only the sum with m rounds.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/dequant.h"

#include <string.h>

enum { BLOCK = 32, HALF = 16 };

static inline float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline uint16_t load16(const unsigned char *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Without branches, so that the loop over a row is vectorised.  A subnormal half is made by a subtraction of
 * normal numbers (2^-14 (1 + m/1024) - 2^-14), which never meets the slow path for subnormal floats. */
static inline float half_to_float(uint16_t h)
{
    uint32_t body = (uint32_t)(h & 0x7fffU) << 13, sign = (uint32_t)(h & 0x8000U) << 16;
    uint32_t normal = body + (112U << 23);
    uint32_t tiny = bits_of_float(float_of_bits(body + 0x38800000U) - float_of_bits(0x38800000U));
    uint32_t special = body + (224U << 23); /* exponent 31 becomes 255; NaN keeps its payload */
    uint32_t bits = body < (1U << 23) ? tiny : (body < (31U << 23) ? normal : special);
    return float_of_bits(bits | sign);
}

static void from_f32(const void *row, size_t n, float *out)
{
    memcpy(out, row, n * sizeof *out);
}

static void from_f64(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t i = 0; i < n; i++) {
        double v;
        memcpy(&v, p + i * sizeof v, sizeof v);
        out[i] = (float)v;
    }
}

static void from_f16(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t i = 0; i < n; i++)
        out[i] = half_to_float(load16(p + 2 * i));
}

static void from_bf16(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t i = 0; i < n; i++)
        out[i] = float_of_bits((uint32_t)load16(p + 2 * i) << 16);
}

static void from_q8_0(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t b = 0; b < n / BLOCK; b++, p += 2 + BLOCK, out += BLOCK) {
        float d = half_to_float(load16(p));
        signed char q[BLOCK];
        memcpy(q, p + 2, sizeof q);
        for (int i = 0; i < BLOCK; i++)
            out[i] = (float)q[i] * d;
    }
}

static void from_q4_0(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t b = 0; b < n / BLOCK; b++, p += 2 + HALF, out += BLOCK) {
        float d = half_to_float(load16(p));
        unsigned char q[HALF];
        memcpy(q, p + 2, sizeof q);
        for (int i = 0; i < HALF; i++)
            out[i] = (float)((int)(q[i] & 15) - 8) * d;
        for (int i = 0; i < HALF; i++)
            out[HALF + i] = (float)((int)(q[i] >> 4) - 8) * d;
    }
}

static void from_q4_1(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t b = 0; b < n / BLOCK; b++, p += 4 + HALF, out += BLOCK) {
        float d = half_to_float(load16(p)), m = half_to_float(load16(p + 2));
        unsigned char q[HALF];
        memcpy(q, p + 4, sizeof q);
        for (int i = 0; i < HALF; i++)
            out[i] = (float)(q[i] & 15) * d + m;
        for (int i = 0; i < HALF; i++)
            out[HALF + i] = (float)(q[i] >> 4) * d + m;
    }
}

const bal_dequant_ops BAL_ISA_NAME(bal_dequant_ops) = {{
    [BAL_DTYPE_F32] = from_f32,
    [BAL_DTYPE_F16] = from_f16,
    [BAL_DTYPE_BF16] = from_bf16,
    [BAL_DTYPE_F64] = from_f64,
    [BAL_DTYPE_Q8_0] = from_q8_0,
    [BAL_DTYPE_Q4_0] = from_q4_0,
    [BAL_DTYPE_Q4_1] = from_q4_1,
}};
