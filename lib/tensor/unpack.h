/* One block of 32 weights of each packed type as vectors of f32, in the order of the elements; for the *_isa.c files
 * alone.  Every value takes at most one rounding, so that all instruction sets give the same bits.  Block layouts (GGUF,
 * little endian; f16 = IEEE half):
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
 *   NF4   64 elements in 36 bytes: f32 a, 32 bytes of two nibbles, 16 for each half of the block   w = table[q] a
 * A product of an integer below 2^13 and an f16 is exact in f32, so only the sums round.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_UNPACK_H
#define BAL_TENSOR_UNPACK_H

#include "lib/tensor/lanes.h"
#include "lib/tensor/nf4.h"

/* The 32 nibbles of 16 bytes: q[0 ..] of the low ones, then of the high ones. */
UNPACK_INLINE void nibbles_at(const unsigned char *p, ivec q[UNPACK_PARTS])
{
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS / 2; i++) {
        ivec both = bytes_at(p + i * UNPACK_LANES);
        q[i] = both & 15;
        q[UNPACK_PARTS / 2 + i] = both >> 4;
    }
}

/* Fifth bits: bit i of high belongs to element i. */
UNPACK_INLINE void add_fifth(uint32_t high, ivec q[UNPACK_PARTS])
{
    const ivec lane = lane_numbers();
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS; i++) {
        ivec word = (ivec){0} + (int32_t)(high >> (i * UNPACK_LANES));
        q[i] |= ((word >> lane) & 1) << 4;
    }
}

/* Elements 32 sub .. 32 sub + 31 of the block at p (sub is 0 where a block has 32). */
typedef void unpack_fn(const unsigned char *p, int sub, fvec w[UNPACK_PARTS]);

UNPACK_INLINE void unpack_q8_0(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    float d = half_at(p);
    (void)sub;
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS; i++)
        w[i] = floats(signed_bytes_at(p + 2 + i * UNPACK_LANES)) * d;
}

/* w = (q - zero) d + m for the nibbles q of 16 bytes.  Where a vector holds all 16 values they are looked up. */
UNPACK_INLINE void scaled_nibbles(const unsigned char *p, int zero, fvec d, fvec m, fvec w[UNPACK_PARTS])
{
#if defined(__AVX512F__)
    const fvec table = floats(lane_numbers() - zero) * d + m;
    ivec both = bytes_at(p);
    w[0] = choose(table, both); /* takes the low four bits */
    w[1] = choose(table, both >> 4);
#else
    ivec q[UNPACK_PARTS];
    nibbles_at(p, q);
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS; i++)
        w[i] = floats(q[i] - zero) * d + m;
#endif
}

UNPACK_INLINE void unpack_q4_0(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    (void)sub;
    scaled_nibbles(p + 2, 8, (fvec){0} + half_at(p), (fvec){0}, w);
}

UNPACK_INLINE void unpack_q4_1(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    fvec d, m;
    (void)sub;
    two_halves_at(p, &d, &m);
    scaled_nibbles(p + 4, 0, d, m, w);
}

/* w = table[q] a of the nibbles q of 16 bytes: one rounding, whether the table or the value is multiplied. */
UNPACK_INLINE void unpack_nf4(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    static const float table[BAL_NF4_LEVELS] = BAL_NF4_TABLE;
    const float a = float_of_bits(load32(p));
    const unsigned char *nibbles = p + 4 + 16 * (ptrdiff_t)sub;
#if defined(__AVX512F__)
    fvec scaled;
    memcpy(&scaled, table, sizeof scaled);
    scaled *= a;
    ivec both = bytes_at(nibbles);
    w[0] = choose(scaled, both);
    w[1] = choose(scaled, both >> 4);
#elif defined(__AVX2__)
    ivec q[UNPACK_PARTS];
    fvec low, high;
    memcpy(&low, table, sizeof low);
    memcpy(&high, table + UNPACK_LANES, sizeof high);
    low *= a;
    high *= a;
    nibbles_at(nibbles, q);
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS; i++)
        w[i] = choose_of_two(low, high, q[i]); /* of 16 values: four bits choose */
#else
    float part[UNPACK_BLOCK];
    for (int i = 0; i < 16; i++) {
        part[i] = table[nibbles[i] & 15] * a;
        part[16 + i] = table[nibbles[i] >> 4] * a;
    }
    memcpy(w, part, sizeof part);
#endif
}

UNPACK_INLINE void unpack_q5_0(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    float d = half_at(p);
    ivec q[UNPACK_PARTS];
    (void)sub;
    nibbles_at(p + 6, q);
    add_fifth(load32(p + 2), q);
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS; i++)
        w[i] = floats(q[i] - 16) * d;
}

UNPACK_INLINE void unpack_q5_1(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    fvec d, m;
    ivec q[UNPACK_PARTS];
    (void)sub;
    two_halves_at(p, &d, &m);
    nibbles_at(p + 8, q);
    add_fifth(load32(p + 4), q);
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS; i++)
        w[i] = floats(q[i]) * d + m;
}

/* Scale and minimum of sub-block j < 8: six bits each, the upper pairs of 4..7 over those of 0..3. */
UNPACK_INLINE void scale_and_minimum(const unsigned char *s, int j, float *scale, float *minimum)
{
    unsigned a = j < 4 ? s[j] & 63U : (s[j + 4] & 15U) | ((unsigned)(s[j - 4] >> 6) << 4);
    unsigned b = j < 4 ? s[j + 4] & 63U : (unsigned)(s[j + 4] >> 4) | ((unsigned)(s[j] >> 6) << 4);
    *scale = (float)a;
    *minimum = (float)b;
}

/* fifth: 32 bytes of fifth bits, or NULL. */
UNPACK_INLINE void super_block(const unsigned char *p, const unsigned char *fifth, const unsigned char *nibbles,
                               int sub, fvec w[UNPACK_PARTS])
{
    fvec d, e;
    float scale, minimum;
    two_halves_at(p, &d, &e);
    scale_and_minimum(p + 4, sub, &scale, &minimum);
    d *= scale;
    e *= minimum;
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS; i++) {
        ivec q = bytes_at(nibbles + sub / 2 * UNPACK_BLOCK + i * UNPACK_LANES) >> (sub % 2 * 4) & 15;
        if (fifth != NULL)
            q |= (bytes_at(fifth + i * UNPACK_LANES) >> sub & 1) << 4;
        w[i] = floats(q) * d - e;
    }
}

UNPACK_INLINE void unpack_q4_k(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    super_block(p, NULL, p + 16, sub, w);
}

UNPACK_INLINE void unpack_q5_k(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    super_block(p, p + 16, p + 16 + UNPACK_BLOCK, sub, w);
}

UNPACK_INLINE void unpack_q6_k(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    int half = sub / 4, part = sub % 4;
    float d = half_at(p + 208);
    const unsigned char *low = p + 64 * half + part % 2 * UNPACK_BLOCK, *high = p + 128 + 32 * half;
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS; i++) {
        signed char scale;
        memcpy(&scale, p + 192 + 8 * half + 2 * part + i * UNPACK_LANES / 16, 1);
        ivec q = (bytes_at(low + i * UNPACK_LANES) >> (part / 2 * 4) & 15) |
                 (bytes_at(high + i * UNPACK_LANES) >> (2 * part) & 3) << 4;
        w[i] = floats(q - 32) * ((float)scale * d);
    }
}

UNPACK_INLINE void unpack_bf16(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    (void)sub;
#pragma GCC unroll 8
    for (int i = 0; i < UNPACK_PARTS; i++) {
        ivec bits = pairs_at(p + (ptrdiff_t)2 * UNPACK_LANES * i) << 16;
        memcpy(&w[i], &bits, sizeof bits);
    }
}

UNPACK_INLINE void unpack_f16(const unsigned char *p, int sub, fvec w[UNPACK_PARTS])
{
    (void)sub;
#if defined(__AVX512F__)
    for (int i = 0; i < UNPACK_PARTS; i++)
        w[i] = (fvec)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p + i * 32)));
#elif defined(__F16C__)
    for (int i = 0; i < UNPACK_PARTS; i++)
        w[i] = (fvec)_mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + i * 16)));
#else
    float part[UNPACK_BLOCK];
    for (int i = 0; i < UNPACK_BLOCK; i++)
        part[i] = half_to_float(load16(p + (ptrdiff_t)2 * i));
    memcpy(w, part, sizeof part);
#endif
}

#endif
