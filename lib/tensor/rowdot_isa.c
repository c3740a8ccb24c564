/* The sum over k of one output is always the same: lane l adds the products of k = l, l + LANES, ..., a last partial
 * step is filled with zeros, then the lanes are added in halves.  Tiles differ only in how many outputs share the
 * loads and in whether the weights are unpacked beforehand or on the way, which gives the same bits; rows that a tile
 * has too many repeat the last one and are dropped.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/rowdot_tile.h"
#include "lib/tensor/unpack.h"

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
        for (int n = 0; n < nt; n++) {
            wv[n] = load(w[n] + k);
            if (mt == 1)
                ask_for(w[n] + k);
        }
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

#if !BAL_REAL_IS_DOUBLE && defined(__AVX512F__)
#define TALL_ADD(r, i)                                                                                                 \
    {                                                                                                                  \
        const vec v = load(x[i] + k);                                                                                  \
        r##0 += v * w0;                                                                                                \
        r##1 += v * w1;                                                                                                \
        r##2 += v * w2;                                                                                                \
        r##3 += v * w3;                                                                                                \
    }
#define TALL_ADD_PART(r, i)                                                                                            \
    {                                                                                                                  \
        const vec v = load_part(x[i] + k, K - k);                                                                      \
        r##0 += v * w0;                                                                                                \
        r##1 += v * w1;                                                                                                \
        r##2 += v * w2;                                                                                                \
        r##3 += v * w3;                                                                                                \
    }

static void tile_tall(size_t K, const real_t *const *x, const real_t *const *w, real_t *out)
{
    size_t k = 0;
    TALL_ROWS(TALL_ZERO)
    for (; k + LANES <= K; k += LANES) {
        const vec w0 = load(w[0] + k), w1 = load(w[1] + k), w2 = load(w[2] + k), w3 = load(w[3] + k);
        TALL_ROWS(TALL_ADD)
    }
    if (k < K) {
        const vec w0 = load_part(w[0] + k, K - k), w1 = load_part(w[1] + k, K - k);
        const vec w2 = load_part(w[2] + k, K - k), w3 = load_part(w[3] + k, K - k);
        TALL_ROWS(TALL_ADD_PART)
    }
    TALL_SUMS(out);
}
#else
static void tile_tall(size_t K, const real_t *const *x, const real_t *const *w, real_t *out)
{
    tile(TALL, WIDE, K, x, w, out);
}
#endif

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
#define ROWDOT_X     float
#define ROWDOT_FIELD x
#define ROWDOT_TARGET
static inline __attribute__((always_inline)) void add_block(fvec *acc, const int mt, const int nt, const int n,
                                                            const float *const *x, size_t k, const fvec *wv)
{
#pragma GCC unroll 8
    for (int part = 0; part < UNPACK_PARTS; part++)
#pragma GCC unroll 8
        for (int m = 0; m < mt; m++)
            acc[m * nt + n] += load(x[m] + k + (size_t)part * UNPACK_LANES) * wv[part];
}
#include "lib/tensor/rowdot_packed.h"

const bal_rowdot_ops BAL_ISA_NAME(bal_rowdot_ops) = {block, PACKED_ROWS, ROWDOT_PACKED};
#endif
