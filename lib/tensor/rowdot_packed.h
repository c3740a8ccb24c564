/* A few rows of x with rows of packed weights, unpacked in registers on the way: what rowdot_isa.c (f32 operands) and
 * rowdot16_isa.c (bf16 operands) share.  Included by each of them after it has defined
 *   ROWDOT_X       type of an element of x
 *   ROWDOT_FIELD   where a bal_rowdot_block has x
 *   ROWDOT_TARGET  attributes of functions that need more than the file's instruction set; may be empty
 * and add_block(), which adds the products of 32 columns to the mt x nt sums:
 *   acc[m * nt + n] += x[m][k ...] * wv   for every m, lane by lane.
 * Gives packed_TYPE(block) and ROWDOT_PACKED, the rows of the table by type.  SPDX-License-Identifier: Apache-2.0 */
#define ROWDOT_INLINE static inline __attribute__((always_inline)) ROWDOT_TARGET

/* mt rows of x and nt packed rows of weights; blocks of subs * 32 elements in `bytes` bytes. */
ROWDOT_INLINE void packed_tile(unpack_fn *unpack, size_t bytes, int subs, const int mt, const int nt, size_t K,
                               const ROWDOT_X *const *x, const unsigned char *const *w, float *out)
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
                    ask_for(w[n] + at);
                unpack(w[n] + at, sub, wv);
                add_block(acc, mt, nt, n, x, k, wv);
            }
        }
    lane_sums(acc, mt * nt, out);
}

/* Rows that a tile has too many repeat the last one and are dropped. */
ROWDOT_INLINE void packed(unpack_fn *unpack, size_t bytes, int subs, const bal_rowdot_block *b)
{
    float out[2 * SINGLE];
    const ROWDOT_X *x[PACKED_ROWS];
    const unsigned char *w[SINGLE];
    const size_t height = b->M > 4 ? PACKED_ROWS : b->M > 2 ? 4 : b->M, width = height > 4 ? 2 : SINGLE / height;
    for (size_t m = 0; m < height; m++)
        x[m] = b->ROWDOT_FIELD + (m < b->M ? m : b->M - 1) * b->ldx;
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

/* Type, its name here, bytes of a block, blocks of 32 in it. */
#define ROWDOT_TYPES(row)                                                                                              \
    row(BAL_DTYPE_Q8_0, q8_0, 34, 1) row(BAL_DTYPE_Q4_0, q4_0, 18, 1) row(BAL_DTYPE_Q4_1, q4_1, 20, 1)                 \
        row(BAL_DTYPE_Q5_0, q5_0, 22, 1) row(BAL_DTYPE_Q5_1, q5_1, 24, 1) row(BAL_DTYPE_Q4_K, q4_k, 144, 8)            \
            row(BAL_DTYPE_Q5_K, q5_k, 176, 8) row(BAL_DTYPE_Q6_K, q6_k, 210, 8) row(BAL_DTYPE_NF4, nf4, 36, 2)         \
                row(BAL_DTYPE_F16, f16, 64, 1) row(BAL_DTYPE_BF16, bf16, 64, 1)

#define ROWDOT_DEFINE(type, name, bytes, subs)                                                                         \
    ROWDOT_TARGET static void packed_##name(const bal_rowdot_block *b)                                                 \
    {                                                                                                                  \
        packed(unpack_##name, bytes, subs, b);                                                                         \
    }
ROWDOT_TYPES(ROWDOT_DEFINE)

#define ROWDOT_ENTRY(type, name, bytes, subs) [type] = packed_##name,
#define ROWDOT_PACKED                                                                                                  \
    {                                                                                                                  \
        ROWDOT_TYPES(ROWDOT_ENTRY)                                                                                     \
    }
