/* Row products of bf16 operands: one instruction adds the products of two neighbouring columns to each lane's f32 sum, so
 * lane l holds the columns k = 2 l, 2 l + 1, 2 l + 32, ...; then as in rowdot_isa.c.  One order of sums for every tile.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/rowdot_tile.h"

#if defined(__AVX512F__) && defined(__x86_64__) && !BAL_REAL_IS_DOUBLE
#include "lib/tensor/unpack.h"

#define BF16        __attribute__((target("avx512bf16")))
#define BF16_INLINE static inline __attribute__((always_inline, target("avx512bf16")))
enum { STEP = 32 };

BF16_INLINE fvec add_products(fvec sum, const uint16_t *x, __m512bh w)
{
    __m512bh v;
    memcpy(&v, x, sizeof v);
    return (fvec)_mm512_dpbf16_ps((__m512)sum, v, w);
}

BF16_INLINE void tile(const int mt, const int nt, size_t K, const uint16_t *const *x, const uint16_t *const *w,
                      float *out)
{
    fvec acc[TALL * SINGLE];
#pragma GCC unroll 32
    for (int i = 0; i < mt * nt; i++)
        acc[i] = (fvec){0};
    for (size_t k = 0; k < K; k += STEP) {
        __m512bh wv[SINGLE];
#pragma GCC unroll 8
        for (int n = 0; n < nt; n++)
            memcpy(&wv[n], w[n] + k, sizeof wv[n]);
#pragma GCC unroll 8
        for (int m = 0; m < mt; m++)
#pragma GCC unroll 8
            for (int n = 0; n < nt; n++)
                acc[m * nt + n] = add_products(acc[m * nt + n], x[m] + k, wv[n]);
    }
#pragma GCC unroll 8
    for (int i = 0; i < mt * nt; i += LANES)
        lane_sums(acc + i, mt * nt - i < LANES ? mt * nt - i : LANES, out + i);
}

BF16_INLINE __m512bh load_half(const uint16_t *p)
{
    __m512bh v;
    memcpy(&v, p, sizeof v);
    return v;
}

#define TALL_ADD(r, i)                                                                                                 \
    r##0 = add_products(r##0, x[i] + k, w0);                                                                           \
    r##1 = add_products(r##1, x[i] + k, w1);                                                                           \
    r##2 = add_products(r##2, x[i] + k, w2);                                                                           \
    r##3 = add_products(r##3, x[i] + k, w3);

BF16 static void tile_tall(size_t K, const uint16_t *const *x, const uint16_t *const *w, float *out)
{
    TALL_ROWS(TALL_ZERO)
    for (size_t k = 0; k < K; k += STEP) {
        const __m512bh w0 = load_half(w[0] + k), w1 = load_half(w[1] + k);
        const __m512bh w2 = load_half(w[2] + k), w3 = load_half(w[3] + k);
        TALL_ROWS(TALL_ADD)
    }
    TALL_SUMS(out);
}

BF16 static void tile_four(size_t K, const uint16_t *const *x, const uint16_t *const *w, float *out)
{
    tile(4, WIDE, K, x, w, out);
}

BF16 static void tile_single(size_t K, const uint16_t *const *x, const uint16_t *const *w, float *out)
{
    tile(1, SINGLE, K, x, w, out);
}

/* Rows that a tile has too many repeat the last one and are dropped. */
static void block(const bal_rowdot_block *b)
{
    float out[TALL * SINGLE];
    const uint16_t *x[TALL], *w[SINGLE];
    for (size_t m0 = 0; m0 < b->M;) {
        size_t left = b->M - m0, height = left > 4 ? TALL : left > 1 ? 4 : 1, width = height == 1 ? SINGLE : WIDE;
        size_t mt = left < height ? left : height;
        for (size_t m = 0; m < height; m++)
            x[m] = b->x16 + (m0 + (m < mt ? m : mt - 1)) * b->ldx;
        for (size_t n0 = 0; n0 < b->N; n0 += width) {
            size_t nt = b->N - n0 < width ? b->N - n0 : width;
            for (size_t n = 0; n < width; n++)
                w[n] = b->w16 + (n0 + (n < nt ? n : nt - 1)) * b->ldw;
            if (height == TALL)
                tile_tall(b->K, x, w, out);
            else if (height == 4)
                tile_four(b->K, x, w, out);
            else
                tile_single(b->K, x, w, out);
            put(b, m0, n0, mt, nt, width, out);
        }
        m0 += mt;
    }
}

#define ROWDOT_X      uint16_t
#define ROWDOT_FIELD  x16
#define ROWDOT_TARGET BF16
BF16_INLINE void add_block(fvec *acc, const int mt, const int nt, const int n, const uint16_t *const *x, size_t k,
                           const fvec *wv)
{
    const __m512bh both = _mm512_cvtne2ps_pbh((__m512)wv[1], (__m512)wv[0]);
#pragma GCC unroll 8
    for (int m = 0; m < mt; m++)
        acc[m * nt + n] = add_products(acc[m * nt + n], x[m] + k, both);
}
#include "lib/tensor/rowdot_packed.h"

const bal_rowdot16_ops BAL_ISA_NAME(bal_rowdot16_ops) = {block, PACKED_ROWS, ROWDOT_PACKED};
#else
const bal_rowdot16_ops BAL_ISA_NAME(bal_rowdot16_ops) = {NULL, 0, {NULL}};
#endif
