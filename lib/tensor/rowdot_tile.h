/* What the tiles of rowdot_isa.c and rowdot16_isa.c share: sizes, sums over lanes, writing outputs; for these files alone.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_ROWDOT_TILE_H
#define BAL_TENSOR_ROWDOT_TILE_H

#include "lib/tensor/lanes.h"
#include "lib/tensor/real.h"
#include "lib/tensor/rowdot_ops.h"

#include <string.h>

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, WIDE = 4, SINGLE = 8, TALL = 6 };
#elif defined(__AVX2__)
enum { VECTOR_BYTES = 32, WIDE = 2, SINGLE = 8, TALL = 4 };
#else
enum { VECTOR_BYTES = 16, WIDE = 2, SINGLE = 8, TALL = 4 };
#endif
enum { LANES = VECTOR_BYTES / sizeof(real_t), PACKED_ROWS = VECTOR_BYTES == 64 ? 8 : 4 };

typedef real_t vec __attribute__((vector_size(VECTOR_BYTES)));

/* Weights are asked for this many bytes before they are needed, into the second cache: eight short rows read side by
 * side are more streams than the machine's own prefetching follows (a row at a time it reads twice as fast), and into the
 * first cache fewer lines can be under way.  One thread, SmolLM2-135M: Q8_0 54 -> 96 tokens/s, BF16 31 -> 70; 9 to 16 KB
 * are alike.  Past the end it is ignored. */
enum { AHEAD = 12288 };
static inline __attribute__((always_inline)) void ask_for(const void *weights)
{
    __builtin_prefetch((const void *)((uintptr_t)weights + AHEAD), 0, 2);
}

static inline __attribute__((always_inline)) vec load(const real_t *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline __attribute__((always_inline)) vec load_part(const real_t *p, size_t n)
{
    real_t part[LANES] = {0};
    for (size_t i = 0; i < n; i++)
        part[i] = p[i];
    return load(part);
}

static inline __attribute__((always_inline)) real_t lane_sum(vec v)
{
    real_t lane[LANES];
    memcpy(lane, &v, sizeof lane);
#pragma GCC unroll 8
    for (int half = LANES / 2; half > 0; half /= 2)
#pragma GCC unroll 8
        for (int i = 0; i < half; i++)
            lane[i] += lane[i + half];
    return lane[0];
}

#if !BAL_REAL_IS_DOUBLE && (defined(__AVX512F__) || defined(__AVX2__))
/* Pairs of vectors are folded into one that holds the halves' sums of each segment of both, until a lane is a sum:
 * the same additions as lane_sum()'s. */
#if defined(__AVX512F__)
static const ivec k_low[] = {{0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
                             {0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27},
                             {0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29},
                             {0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30}};
enum { LEVELS = 4 };
#else
static const ivec k_low[] = {{0, 1, 2, 3, 8, 9, 10, 11}, {0, 1, 4, 5, 8, 9, 12, 13}, {0, 2, 4, 6, 8, 10, 12, 14}};
enum { LEVELS = 3 };
#endif

/* out[i] = the sum of acc[i]'s lanes, n of them, a power of two up to LANES. */
static inline __attribute__((always_inline)) void lane_sums(vec *acc, int n, real_t *out)
{
    int left = n;
#pragma GCC unroll 4
    for (int level = 0; level < LEVELS; level++) {
        const ivec low = k_low[level], high = low + (LANES >> (level + 1));
        const int pairs = left > 1 ? left / 2 : 1, step = left > 1 ? 1 : 0;
#pragma GCC unroll 8
        for (int i = 0; i < pairs; i++) {
            vec a = acc[2 * i * step], b = acc[2 * i * step + step];
            acc[i] = choose_of_two(a, b, low) + choose_of_two(a, b, high);
        }
        left = pairs;
    }
    const vec sums = acc[0]; /* a copy: acc itself stays in registers */
    memcpy(out, &sums, (size_t)n * sizeof *out);
}
#else
static inline __attribute__((always_inline)) void lane_sums(vec *acc, int n, real_t *out)
{
#pragma GCC unroll 32
    for (int i = 0; i < n; i++)
        out[i] = lane_sum(acc[i]);
}
#endif

#if !BAL_REAL_IS_DOUBLE && defined(__AVX512F__)
/* The tile of six rows and four columns with a name for each of its 24 sums: GCC keeps an array of them in memory around
 * the loop, which costs as much as half a row of products. */
#define TALL_ROWS(F)    F(a, 0) F(b, 1) F(c, 2) F(d, 3) F(e, 4) F(f, 5)
#define TALL_ZERO(r, i) vec r##0 = {0}, r##1 = {0}, r##2 = {0}, r##3 = {0};

static inline __attribute__((always_inline)) vec fold(const int level, vec a, vec b)
{
    const ivec low = k_low[level], high = low + (LANES >> (level + 1));
    return choose_of_two(a, b, low) + choose_of_two(a, b, high);
}

/* The sums of 24 vectors' lanes: the same additions as lane_sum()'s. */
#define TALL_SUMS(out)                                                                                                 \
    do {                                                                                                               \
        const vec ab = fold(2, fold(1, fold(0, a0, a1), fold(0, a2, a3)), fold(1, fold(0, b0, b1), fold(0, b2, b3)));  \
        const vec cd = fold(2, fold(1, fold(0, c0, c1), fold(0, c2, c3)), fold(1, fold(0, d0, d1), fold(0, d2, d3)));  \
        const vec ef = fold(2, fold(1, fold(0, e0, e1), fold(0, e2, e3)), fold(1, fold(0, f0, f1), fold(0, f2, f3)));  \
        const vec four = fold(3, ab, cd), two = fold(3, ef, ef);                                                       \
        memcpy((out), &four, sizeof four);                                                                             \
        memcpy((out) + LANES, &two, sizeof two / 2);                                                                   \
    } while (0)
#endif

/* Writes the outputs (m0 .., n0 ..) of a tile with nt columns. */
static inline __attribute__((always_inline)) void put_row(const bal_rowdot_block *b, size_t m, size_t n0, size_t nt,
                                                          const real_t *from)
{
    real_t *y = b->y + m * b->ldy + n0;
    if (b->add)
        for (size_t n = 0; n < nt; n++)
            y[n] += b->scale * from[n];
    else if (b->bias != NULL)
        for (size_t n = 0; n < nt; n++)
            y[n] = from[n] + b->bias[n0 + n];
    else
        for (size_t n = 0; n < nt; n++)
            y[n] = from[n];
}

static inline __attribute__((always_inline)) void put(const bal_rowdot_block *b, size_t m0, size_t n0, size_t mt,
                                                      size_t nt, size_t width, const real_t *out)
{
    for (size_t m = 0; m < mt; m++)
        if (nt == WIDE) /* a constant: without a loop */
            put_row(b, m0 + m, n0, WIDE, out + m * width);
        else
            put_row(b, m0 + m, n0, nt, out + m * width);
}

#endif
