/* Dequantisation loops.  Block layouts (GGUF, little endian; f16 = IEEE half):
 *   Q8_0  32 elements in 34 bytes: f16 d, 32 x i8 q                      w = q d
 *   Q4_0  32 elements in 18 bytes: f16 d, 16 bytes of two nibbles        w = (q - 8) d
 *   Q4_1  32 elements in 20 bytes: f16 d, f16 m, 16 bytes of two nibbles w = q d + m
 *   Q5_0  32 elements in 22 bytes: f16 d, 32 fifth bits, 16 bytes of nibbles          w = (q - 16) d
 *   Q5_1  32 elements in 24 bytes: f16 d, f16 m, 32 fifth bits, 16 bytes of nibbles   w = q d + m
 * Low nibbles are the elements 0..15 of the block, high nibbles the elements 16..31.
 *   Q4_K  256 elements in 144 bytes: f16 d, f16 e, 12 bytes of 8 scales s and 8 minima m of 6 bits, 128 bytes of
 *         nibbles: of each 32 bytes the low ones are 32 elements, the high ones the next 32    w = q s d - m e
 *   Q5_K  176 bytes: as Q4_K, with 32 bytes of fifth bits before the nibbles: bit j of byte l is that of element 32 j + l
 *   Q6_K  210 bytes: 128 of low nibbles, 64 of upper pairs of bits, 16 scales i8, f16 d; in each half of 128 elements
 *         nibble bytes l and l + 32 and pair byte l make the elements l, l + 32, l + 64, l + 96 w = (q - 32) s d
 * A product of an integer below
 * 2^13 and an f16 is exact in f32, so only the sums round.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/dequant.h"

#include <string.h>

enum { BLOCK = 32, HALF = 16, SUPER = 256, SCALES = 12 };

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

static inline uint32_t load32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* The 32 numbers of 5 bits at p: their upper bits, then their nibbles. */
static inline void five_bits(const unsigned char *p, float q[BLOCK])
{
    uint32_t high = load32(p);
    for (int i = 0; i < HALF; i++) {
        q[i] = (float)((p[4 + i] & 15U) | ((high >> i & 1U) << 4));
        q[HALF + i] = (float)((unsigned)(p[4 + i] >> 4) | ((high >> (HALF + i) & 1U) << 4));
    }
}

static void from_q5_0(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t b = 0; b < n / BLOCK; b++, p += 6 + HALF, out += BLOCK) {
        float d = half_to_float(load16(p)), q[BLOCK];
        five_bits(p + 2, q);
        for (int i = 0; i < BLOCK; i++)
            out[i] = (q[i] - 16) * d;
    }
}

static void from_q5_1(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t b = 0; b < n / BLOCK; b++, p += 8 + HALF, out += BLOCK) {
        float d = half_to_float(load16(p)), m = half_to_float(load16(p + 2)), q[BLOCK];
        five_bits(p + 4, q);
        for (int i = 0; i < BLOCK; i++)
            out[i] = q[i] * d + m;
    }
}

/* Scale and minimum of sub-block j < 8: six bits each, the upper pairs of 4..7 over those of 0..3. */
static inline void scale_and_minimum(const unsigned char *s, int j, float *scale, float *minimum)
{
    unsigned a = j < 4 ? s[j] & 63U : (s[j + 4] & 15U) | ((unsigned)(s[j - 4] >> 6) << 4);
    unsigned b = j < 4 ? s[j + 4] & 63U : (unsigned)(s[j + 4] >> 4) | ((unsigned)(s[j] >> 6) << 4);
    *scale = (float)a;
    *minimum = (float)b;
}

/* fifth: 32 bytes of fifth bits, or NULL. */
static inline void super_block(const unsigned char *p, const unsigned char *fifth, const unsigned char *nibbles,
                               float *out)
{
    float d = half_to_float(load16(p)), e = half_to_float(load16(p + 2));
    for (int j = 0; j < SUPER / BLOCK; j++) {
        const unsigned char *q = nibbles + j / 2 * BLOCK;
        int shift = j % 2 * 4;
        float scale, minimum;
        scale_and_minimum(p + 4, j, &scale, &minimum);
        scale *= d;
        minimum *= e;
        for (int i = 0; i < BLOCK; i++) {
            unsigned v = (unsigned)(q[i] >> shift) & 15U;
            if (fifth != NULL)
                v |= ((unsigned)(fifth[i] >> j) & 1U) << 4;
            out[j * BLOCK + i] = (float)v * scale - minimum;
        }
    }
}

static void from_q4_k(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t b = 0; b < n / SUPER; b++, p += 4 + SCALES + SUPER / 2, out += SUPER)
        super_block(p, NULL, p + 4 + SCALES, out);
}

static void from_q5_k(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t b = 0; b < n / SUPER; b++, p += 4 + SCALES + BLOCK + SUPER / 2, out += SUPER)
        super_block(p, p + 4 + SCALES, p + 4 + SCALES + BLOCK, out);
}

static void from_q6_k(const void *row, size_t n, float *out)
{
    const unsigned char *p = row;
    for (size_t b = 0; b < n / SUPER; b++, p += 210) {
        float d = half_to_float(load16(p + 208));
        for (int half = 0; half < 2; half++, out += SUPER / 2) {
            const unsigned char *low = p + 64 * half, *high = p + 128 + 32 * half;
            signed char scales[8];
            memcpy(scales, p + 192 + 8 * half, sizeof scales);
            for (int part = 0; part < 4; part++) {
                const unsigned char *q = low + part % 2 * BLOCK;
                for (int i = 0; i < BLOCK; i++) {
                    unsigned v = ((unsigned)(q[i] >> part / 2 * 4) & 15U) | ((unsigned)(high[i] >> 2 * part) & 3U) << 4;
                    out[part * BLOCK + i] = (float)((int)v - 32) * ((float)scales[2 * part + i / 16] * d);
                }
            }
        }
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
    [BAL_DTYPE_Q5_0] = from_q5_0,
    [BAL_DTYPE_Q5_1] = from_q5_1,
    [BAL_DTYPE_Q4_K] = from_q4_k,
    [BAL_DTYPE_Q5_K] = from_q5_k,
    [BAL_DTYPE_Q6_K] = from_q6_k,
}};
