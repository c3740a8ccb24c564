/* Vectors of f32 and of the integers that become them, and IEEE halves; for the *_isa.c files alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_LANES_H
#define BAL_TENSOR_LANES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX2__) || defined(__F16C__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
enum { UNPACK_BYTES = 64 };
#elif defined(__AVX2__)
enum { UNPACK_BYTES = 32 };
#else
enum { UNPACK_BYTES = 16 };
#endif
enum { UNPACK_BLOCK = 32, UNPACK_SUPER = 256, UNPACK_LANES = UNPACK_BYTES / 4, UNPACK_PARTS = 32 / UNPACK_LANES };

typedef float fvec __attribute__((vector_size(UNPACK_BYTES)));
typedef int32_t ivec __attribute__((vector_size(UNPACK_BYTES)));
#if !defined(__AVX2__)
typedef unsigned char bvec __attribute__((vector_size(UNPACK_LANES)));
typedef signed char cvec __attribute__((vector_size(UNPACK_LANES)));
typedef uint16_t hvec __attribute__((vector_size(2 * UNPACK_LANES)));
#endif

#define UNPACK_INLINE static inline __attribute__((always_inline))

UNPACK_INLINE float float_of_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

UNPACK_INLINE uint32_t bits_of_float(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

UNPACK_INLINE uint16_t load16(const unsigned char *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

UNPACK_INLINE uint32_t load32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* Without branches, so that a loop over a row is vectorised.  A subnormal half is made by a subtraction of
 * normal numbers (2^-14 (1 + m/1024) - 2^-14), which never meets the slow path for subnormal floats. */
UNPACK_INLINE float half_to_float(uint16_t h)
{
    uint32_t body = (uint32_t)(h & 0x7fffU) << 13, sign = (uint32_t)(h & 0x8000U) << 16;
    uint32_t normal = body + (112U << 23);
    uint32_t tiny = bits_of_float(float_of_bits(body + 0x38800000U) - float_of_bits(0x38800000U));
    uint32_t special = body + (224U << 23); /* exponent 31 becomes 255; NaN keeps its payload */
    uint32_t bits = body < (1U << 23) ? tiny : (body < (31U << 23) ? normal : special);
    return float_of_bits(bits | sign);
}

/* The f16 at p, alone. */
UNPACK_INLINE float half_at(const unsigned char *p)
{
#if defined(__F16C__)
    return _cvtsh_ss(load16(p));
#else
    return half_to_float(load16(p));
#endif
}

/* The two f16 at p, each in all lanes. */
UNPACK_INLINE void two_halves_at(const unsigned char *p, fvec *a, fvec *b)
{
#if defined(__AVX512F__)
    __m512 both = _mm512_cvtph_ps(_mm256_set1_epi32((int)load32(p)));
    *a = (fvec)_mm512_moveldup_ps(both);
    *b = (fvec)_mm512_movehdup_ps(both);
#elif defined(__F16C__)
    __m256 both = _mm256_cvtph_ps(_mm_set1_epi32((int)load32(p)));
    *a = (fvec)_mm256_moveldup_ps(both);
    *b = (fvec)_mm256_movehdup_ps(both);
#else
    *a = (fvec){0} + half_to_float(load16(p));
    *b = (fvec){0} + half_to_float(load16(p + 2));
#endif
}

/* UNPACK_LANES bytes, or pairs of bytes, as integers.  (GCC 12 takes __builtin_convertvector of bytes apart.) */
UNPACK_INLINE ivec bytes_at(const unsigned char *p)
{
#if defined(__AVX512F__)
    return (ivec)_mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
#elif defined(__AVX2__)
    return (ivec)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
#else
    bvec b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, ivec);
#endif
}

UNPACK_INLINE ivec signed_bytes_at(const unsigned char *p)
{
#if defined(__AVX512F__)
    return (ivec)_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p));
#elif defined(__AVX2__)
    return (ivec)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p));
#else
    cvec b;
    memcpy(&b, p, sizeof b);
    return __builtin_convertvector(b, ivec);
#endif
}

UNPACK_INLINE ivec pairs_at(const unsigned char *p)
{
#if defined(__AVX512F__)
    return (ivec)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
#elif defined(__AVX2__)
    return (ivec)_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
#else
    hvec h;
    memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, ivec);
#endif
}

UNPACK_INLINE fvec floats(ivec q)
{
    return __builtin_convertvector(q, fvec);
}

/* out[i] = table[from[i] modulo the number of lanes]. */
UNPACK_INLINE fvec choose(fvec table, ivec from)
{
#if !defined(__clang__)
    return __builtin_shuffle(table, from);
#elif defined(__AVX512F__)
    return (fvec)_mm512_permutexvar_ps((__m512i)from, (__m512)table);
#elif defined(__AVX2__)
    return (fvec)_mm256_permutevar8x32_ps((__m256)table, (__m256i)from);
#else
    fvec out;
    for (int i = 0; i < UNPACK_LANES; i++)
        out[i] = table[from[i] & (UNPACK_LANES - 1)];
    return out;
#endif
}

/* The same from two vectors, the lanes of b behind those of a. */
UNPACK_INLINE fvec choose_of_two(fvec a, fvec b, ivec from)
{
#if !defined(__clang__)
    return __builtin_shuffle(a, b, from);
#elif defined(__AVX512F__)
    return (fvec)_mm512_permutex2var_ps((__m512)a, (__m512i)from, (__m512)b);
#elif defined(__AVX2__)
    return (fvec)_mm256_blendv_ps((__m256)choose(a, from), (__m256)choose(b, from), (__m256)(from << 28));
#else
    fvec out;
    for (int i = 0; i < UNPACK_LANES; i++)
        out[i] = (from[i] & UNPACK_LANES ? b : a)[from[i] & (UNPACK_LANES - 1)];
    return out;
#endif
}

UNPACK_INLINE ivec lane_numbers(void)
{
    ivec lane;
#pragma GCC unroll 16
    for (int i = 0; i < UNPACK_LANES; i++)
        lane[i] = i;
    return lane;
}

#endif
