/* The sum over k of one output is always the same: lane l adds the products of k = l, l + LANES, ..., a last partial
 * step is filled with zeros, then the lanes are added in halves.  Tiles differ only in how many outputs share the
 * loads; rows that a tile has too many repeat the last one and are dropped.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/rowdot_ops.h"

#include <string.h>

#if defined(__AVX512F__)
enum { VECTOR_BYTES = 64, WIDE = 4, SINGLE = 8 };
#elif defined(__AVX2__)
enum { VECTOR_BYTES = 32, WIDE = 2, SINGLE = 8 };
#else
enum { VECTOR_BYTES = 16, WIDE = 2, SINGLE = 8 };
#endif
enum { LANES = VECTOR_BYTES / sizeof(real_t), TALL = 4 };

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
#pragma GCC unroll 32
    for (int i = 0; i < mt * nt; i++)
        out[i] = lane_sum(acc[i]);
}

static void tile_tall(size_t K, const real_t *const *x, const real_t *const *w, real_t *out)
{
    tile(TALL, WIDE, K, x, w, out);
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
static void put(const bal_rowdot_block *b, size_t m0, size_t n0, size_t mt, size_t nt, size_t width, const real_t *out)
{
    for (size_t m = 0; m < mt; m++) {
        real_t *y = b->y + (m0 + m) * b->ldy + n0;
        const real_t *from = out + m * width;
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
}

static void block(const bal_rowdot_block *b)
{
    real_t out[TALL * SINGLE];
    const real_t *x[TALL], *w[SINGLE];
    for (size_t m0 = 0; m0 < b->M;) {
        size_t left = b->M - m0, height = left >= 3 ? TALL : left, width = height == 1 ? SINGLE : WIDE;
        size_t mt = left < height ? left : height;
        for (size_t m = 0; m < height; m++)
            x[m] = b->x + (m0 + (m < mt ? m : mt - 1)) * b->ldx;
        for (size_t n0 = 0; n0 < b->N; n0 += width) {
            size_t nt = b->N - n0 < width ? b->N - n0 : width;
            for (size_t n = 0; n < width; n++)
                w[n] = b->w + (n0 + (n < nt ? n : nt - 1)) * b->ldw;
            if (height == TALL)
                tile_tall(b->K, x, w, out);
            else if (height == 2)
                tile_two(b->K, x, w, out);
            else
                tile_single(b->K, x, w, out);
            put(b, m0, n0, mt, nt, width, out);
        }
        m0 += mt;
    }
}

const bal_rowdot_ops BAL_ISA_NAME(bal_rowdot_ops) = {block};
