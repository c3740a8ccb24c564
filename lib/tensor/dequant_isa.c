/* Dequantisation loops; lib/tensor/unpack.h has the layouts.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/dequant.h"

#include "lib/tensor/unpack.h"

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

/* Blocks of subs * 32 elements. */
UNPACK_INLINE void from_blocks(unpack_fn *unpack, const unsigned char *p, size_t bytes, int subs, size_t n, float *out)
{
    for (size_t done = 0; done < n; p += bytes)
        for (int sub = 0; sub < subs; sub++, done += UNPACK_BLOCK) {
            fvec w[UNPACK_PARTS];
            unpack(p, sub, w);
            memcpy(out + done, w, sizeof w);
        }
}

#define FROM_BLOCKS(name, bytes, subs)                                                                                 \
    static void from_##name(const void *row, size_t n, float *out)                                                     \
    {                                                                                                                  \
        from_blocks(unpack_##name, row, bytes, subs, n, out);                                                          \
    }
FROM_BLOCKS(q8_0, 34, 1)
FROM_BLOCKS(q4_0, 18, 1)
FROM_BLOCKS(q4_1, 20, 1)
FROM_BLOCKS(q5_0, 22, 1)
FROM_BLOCKS(q5_1, 24, 1)
FROM_BLOCKS(q4_k, 144, 8)
FROM_BLOCKS(q5_k, 176, 8)
FROM_BLOCKS(q6_k, 210, 8)
FROM_BLOCKS(nf4, 36, 2)

/* Without branches; a NaN keeps its sign and becomes quiet. */
static void to_bf16(const float *restrict x, size_t n, uint16_t *restrict out)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = bits_of_float(x[i]), up = bits >> 16;
        uint32_t rounded = (bits + 0x7fffU + (up & 1U)) >> 16;
        out[i] = (uint16_t)((bits & 0x7fffffffU) > 0x7f800000U ? up | 0x40U : rounded);
    }
}

const bal_dequant_ops BAL_ISA_NAME(bal_dequant_ops) = {.to_bf16 = to_bf16,
                                                       .to_f32 = {
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
                                                           [BAL_DTYPE_NF4] = from_nf4,
                                                       }};
