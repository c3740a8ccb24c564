/* The sum over k of one output is always the same: lane l adds the products of k = l, l + LANES, ..., a last partial
 * step is filled with zeros, then the lanes are added in halves.  Tiles differ only in how many outputs share the
 * loads and in whether the weights are unpacked beforehand or on the way, which gives the same bits; rows that a tile
 * has too many repeat the last one and are dropped.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/rowdot_ops.h"

#include "lib/tensor/unpack.h"

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
            acc[i] = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
        }
        left = pairs;
    }
    memcpy(out, acc, (size_t)n * sizeof *out);
}
#else
static inline __attribute__((always_inline)) void lane_sums(vec *acc, int n, real_t *out)
{
#pragma GCC unroll 32
    for (int i = 0; i < n; i++)
        out[i] = lane_sum(acc[i]);
}
#endif

static inline __attribute__((always_inline)) void tile(const int mt, const int nt, size_t K, const real_t *const *x,
                                                       const real_t *const *w, real_t *out)
{
    vec acc[TALL * SINGLE];
    size_t k = 0;
#pragma GCC unroll 32
    for (int i = 0; i < mt * nt; i++)
        acc[i] = (vec){0};
    for (; k + LANES <= K; k += LANES) {
        vec wv[SINGLE];
#pragma GCC unroll 8
        for (int n = 0; n < nt; n++)
            wv[n] = load(w[n] + k);
#pragma GCC unroll 8
        for (int m = 0; m < mt; m++) {
            vec xv = load(x[m] + k);
#pragma GCC unroll 8
            for (int n = 0; n < nt; n++)
                acc[m * nt + n] += xv * wv[n];
        }
    }
    if (k < K) {
        vec wv[SINGLE];
#pragma GCC unroll 8
        for (int n = 0; n < nt; n++)
            wv[n] = load_part(w[n] + k, K - k);
#pragma GCC unroll 8
        for (int m = 0; m < mt; m++) {
            vec xv = load_part(x[m] + k, K - k);
#pragma GCC unroll 8
            for (int n = 0; n < nt; n++)
                acc[m * nt + n] += xv * wv[n];
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < mt * nt; i += LANES)
        lane_sums(acc + i, mt * nt - i < LANES ? mt * nt - i : LANES, out + i);
}

static void tile_tall(size_t K, const real_t *const *x, const real_t *const *w, real_t *out)
{
    tile(TALL, WIDE, K, x, w, out);
}

static void tile_four(size_t K, const real_t *const *x, const real_t *const *w, real_t *out)
{
    tile(4, WIDE, K, x, w, out);
}

static void tile_two(size_t K, const real_t *const *x, const real_t *const *w, real_t *out)
{
    tile(2, WIDE, K, x, w, out);
}

static void tile_single(size_t K, const real_t *const *x, const real_t *const *w, real_t *out)
{
    tile(1, SINGLE, K, x, w, out);
}

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

static void block(const bal_rowdot_block *b)
{
    real_t out[TALL * SINGLE];
    const real_t *x[TALL], *w[SINGLE];
    for (size_t m0 = 0; m0 < b->M;) {
        size_t left = b->M - m0, height = left > 4 ? TALL : left > 2 ? 4 : left, width = height == 1 ? SINGLE : WIDE;
        size_t mt = left < height ? left : height;
        for (size_t m = 0; m < height; m++)
            x[m] = b->x + (m0 + (m < mt ? m : mt - 1)) * b->ldx;
        for (size_t n0 = 0; n0 < b->N; n0 += width) {
            size_t nt = b->N - n0 < width ? b->N - n0 : width;
            for (size_t n = 0; n < width; n++)
                w[n] = b->w + (n0 + (n < nt ? n : nt - 1)) * b->ldw;
            if (height == TALL)
                tile_tall(b->K, x, w, out);
            else if (height == 4)
                tile_four(b->K, x, w, out);
            else if (height == 2)
                tile_two(b->K, x, w, out);
            else
                tile_single(b->K, x, w, out);
            put(b, m0, n0, mt, nt, width, out);
        }
        m0 += mt;
    }
}

#if BAL_REAL_IS_DOUBLE
/* The double build unpacks in floats and widens: lib/tensor/view.c. */
const bal_rowdot_ops BAL_ISA_NAME(bal_rowdot_ops) = {block, 0, {NULL}};
#else
/* Bytes by which weights are asked for before they are needed: rows are too short for the machine to see where reading
 * goes on.  (One sequence of SmolLM2-135M: 1.35 times as fast; 4 to 9 KB are alike.)  Past the end it is ignored. */
enum { AHEAD = 6144 };

/* mt rows of x and nt packed rows of weights; blocks of subs * 32 elements in `bytes` bytes. */
static inline __attribute__((always_inline)) void packed_tile(unpack_fn *unpack, size_t bytes, int subs, const int mt,
                                                              const int nt, size_t K, const float *const *x,
                                                              const unsigned char *const *w, float *out)
{
    fvec acc[2 * SINGLE];
#pragma GCC unroll 16
    for (int i = 0; i < mt * nt; i++)
        acc[i] = (fvec){0};
    for (size_t k = 0, at = 0; k < K; at += bytes)
        for (int sub = 0; sub < subs; sub++, k += UNPACK_BLOCK) {
#pragma GCC unroll 8
            for (int n = 0; n < nt; n++) {
                fvec wv[UNPACK_PARTS];
                if (sub % 2 == 0)
                    __builtin_prefetch((const void *)((uintptr_t)w[n] + at + AHEAD));
                unpack(w[n] + at, sub, wv);
#pragma GCC unroll 8
                for (int part = 0; part < UNPACK_PARTS; part++)
#pragma GCC unroll 8
                    for (int m = 0; m < mt; m++)
                        acc[m * nt + n] += load(x[m] + k + (size_t)part * UNPACK_LANES) * wv[part];
            }
        }
    lane_sums(acc, mt * nt, out);
}

static inline __attribute__((always_inline)) void packed(unpack_fn *unpack, size_t bytes, int subs,
                                                         const bal_rowdot_block *b)
{
    float out[2 * SINGLE];
    const float *x[PACKED_ROWS];
    const unsigned char *w[SINGLE];
    const size_t height = b->M > 4 ? PACKED_ROWS : b->M > 2 ? 4 : b->M, width = height > 4 ? 2 : SINGLE / height;
    for (size_t m = 0; m < height; m++)
        x[m] = b->x + (m < b->M ? m : b->M - 1) * b->ldx;
    for (size_t n0 = 0; n0 < b->N; n0 += width) {
        size_t nt = b->N - n0 < width ? b->N - n0 : width;
        for (size_t n = 0; n < width; n++)
            w[n] = b->packed[n0 + (n < nt ? n : nt - 1)];
        if (height > 4)
            packed_tile(unpack, bytes, subs, PACKED_ROWS, 2, b->K, x, w, out);
        else if (height == 4)
            packed_tile(unpack, bytes, subs, 4, SINGLE / 4, b->K, x, w, out);
        else if (height == 2)
            packed_tile(unpack, bytes, subs, 2, SINGLE / 2, b->K, x, w, out);
        else
            packed_tile(unpack, bytes, subs, 1, SINGLE, b->K, x, w, out);
        put(b, 0, n0, b->M, nt, width, out);
    }
}

#define PACKED(name, bytes, subs)                                                                                      \
    static void packed_##name(const bal_rowdot_block *b)                                                               \
    {                                                                                                                  \
        packed(unpack_##name, bytes, subs, b);                                                                         \
    }
PACKED(q8_0, 34, 1)
PACKED(q4_0, 18, 1)
PACKED(q4_1, 20, 1)
PACKED(q5_0, 22, 1)
PACKED(q5_1, 24, 1)
PACKED(q4_k, 144, 8)
PACKED(q5_k, 176, 8)
PACKED(q6_k, 210, 8)
PACKED(nf4, 36, 2)
PACKED(f16, 64, 1)
PACKED(bf16, 64, 1)

const bal_rowdot_ops BAL_ISA_NAME(bal_rowdot_ops) = {block,
                                                     PACKED_ROWS,
                                                     {
                                                         [BAL_DTYPE_Q8_0] = packed_q8_0,
                                                         [BAL_DTYPE_Q4_0] = packed_q4_0,
                                                         [BAL_DTYPE_Q4_1] = packed_q4_1,
                                                         [BAL_DTYPE_Q5_0] = packed_q5_0,
                                                         [BAL_DTYPE_Q5_1] = packed_q5_1,
                                                         [BAL_DTYPE_Q4_K] = packed_q4_k,
                                                         [BAL_DTYPE_Q5_K] = packed_q5_k,
                                                         [BAL_DTYPE_Q6_K] = packed_q6_k,
                                                         [BAL_DTYPE_NF4] = packed_nf4,
                                                         [BAL_DTYPE_F16] = packed_f16,
                                                         [BAL_DTYPE_BF16] = packed_bf16,
                                                     }};
#endif
