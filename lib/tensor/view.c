/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/view.h"

#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/tensor/dequant.h"
#include "lib/tensor/gemm.h"

#include <assert.h>
#include <string.h>

static const struct {
    const char *name;
    size_t block, bytes;
} k_dtypes[BAL_DTYPE_COUNT] = {
    [BAL_DTYPE_F32] = {"F32", 1, 4},       [BAL_DTYPE_F16] = {"F16", 1, 2},       [BAL_DTYPE_BF16] = {"BF16", 1, 2},
    [BAL_DTYPE_F64] = {"F64", 1, 8},       [BAL_DTYPE_Q8_0] = {"Q8_0", 32, 34},   [BAL_DTYPE_Q4_0] = {"Q4_0", 32, 18},
    [BAL_DTYPE_Q4_1] = {"Q4_1", 32, 20},   [BAL_DTYPE_Q5_0] = {"Q5_0", 32, 22},   [BAL_DTYPE_Q5_1] = {"Q5_1", 32, 24},
    [BAL_DTYPE_Q4_K] = {"Q4_K", 256, 144}, [BAL_DTYPE_Q5_K] = {"Q5_K", 256, 176}, [BAL_DTYPE_Q6_K] = {"Q6_K", 256, 210},
    [BAL_DTYPE_NF4] = {"NF4", 64, 36},
};

const char *bal_dtype_name(bal_dtype t)
{
    return (unsigned)t < BAL_DTYPE_COUNT ? k_dtypes[t].name : "unknown";
}

size_t bal_dtype_block(bal_dtype t)
{
    return (unsigned)t < BAL_DTYPE_COUNT ? k_dtypes[t].block : 1;
}

size_t bal_dtype_block_bytes(bal_dtype t)
{
    return (unsigned)t < BAL_DTYPE_COUNT ? k_dtypes[t].bytes : 0;
}

bal_status bal_dtype_row_bytes(bal_dtype t, size_t cols, size_t *bytes)
{
    if ((unsigned)t >= BAL_DTYPE_COUNT)
        return bal_fail(BAL_EUNSUPPORTED, "tensor type %d is not supported", (int)t);
    if (cols % k_dtypes[t].block != 0)
        return bal_fail(BAL_EFORMAT, "a row of %zu elements does not consist of whole %s blocks of %zu", cols,
                        k_dtypes[t].name, k_dtypes[t].block);
    if (!bal_mul_size(cols / k_dtypes[t].block, k_dtypes[t].bytes, bytes))
        return bal_fail(BAL_ELIMIT, "a row of %zu elements is too long", cols);
    return BAL_OK;
}

const void *bal_view_row(const bal_view *v, size_t r)
{
    size_t d = v->rope_head_dim;
    if (d != 0) {
        size_t i = r % d;
        r = r - i + (i < d / 2 ? 2 * i : 2 * (i - d / 2) + 1);
    }
    return (const unsigned char *)v->data + r * v->row_bytes;
}

bal_view bal_view_rows(const bal_view *v, size_t row0, size_t n)
{
    assert(row0 <= v->rows && n <= v->rows - row0);
    assert(v->rope_head_dim == 0 || (row0 % v->rope_head_dim == 0 && n % v->rope_head_dim == 0));
    bal_view part = *v;
    part.rows = n;
    part.data = (const unsigned char *)v->data + row0 * v->row_bytes;
    if (v->low_r != 0)
        part.low_b += row0 * v->low_r;
    return part;
}

const real_t *bal_view_dense(const bal_view *v)
{
    bool same = v->dtype == (BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32);
    if (!same || v->rope_head_dim != 0 || v->low_r != 0 || v->row_bytes != v->cols * sizeof(real_t) ||
        (uintptr_t)v->data % _Alignof(real_t) != 0)
        return NULL;
    return v->data;
}

void bal_row_to_f32(bal_dtype t, const void *row, size_t cols, float *out)
{
    BAL_ISA_PICK(bal_dequant_ops)->to_f32[t](row, cols, out);
}

/* One row to real_t.  In the double build a weight has the value that the product gives it in float, widened;
 * only F64 files keep more. */
static void row_to_real(bal_dtype t, const void *row, size_t cols, real_t *out)
{
#if BAL_REAL_IS_DOUBLE
    enum { CHUNK = 256 };
    const unsigned char *p = row;
    float part[CHUNK];
    if (t == BAL_DTYPE_F64) {
        memcpy(out, row, cols * sizeof *out);
        return;
    }
    for (size_t c = 0; c < cols; c += CHUNK) {
        size_t n = cols - c < CHUNK ? cols - c : CHUNK;
        bal_row_to_f32(t, p + c / bal_dtype_block(t) * bal_dtype_block_bytes(t), n, part);
        for (size_t i = 0; i < n; i++)
            out[c + i] = (real_t)part[i];
    }
#else
    bal_row_to_f32(t, row, cols, out);
#endif
}

void bal_view_dequant(const bal_view *v, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    for (size_t i = 0; i < n_rows; i++)
        row_to_real(v->dtype, bal_view_row(v, row0 + i), v->cols, out + i * ld);
    if (v->low_r != 0)
        bal_gemm(false, false, n_rows, v->cols, v->low_r, v->low_scale, v->low_b + row0 * v->low_r, v->low_r, v->low_a,
                 v->cols, 1, out, ld);
}

typedef struct dequant_job {
    const bal_view *v;
    size_t row0, ld;
    real_t *out;
} dequant_job;

static void dequant_range(void *context, size_t begin, size_t end, size_t thread)
{
    const dequant_job *job = context;
    (void)thread;
    bal_view_dequant(job->v, job->row0 + begin, end - begin, job->out + begin * job->ld, job->ld);
}

void bal_view_dequant_parallel(const bal_view *v, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    enum { GRAIN_ELEMENTS = 16384 }; /* below that the wake-up costs more than it saves */
    dequant_job job = {v, row0, ld, out};
    size_t grain = v->cols == 0 ? n_rows : GRAIN_ELEMENTS / v->cols + 1;
    bal_parallel_for(n_rows, grain, dequant_range, &job);
}

float bal_f16_to_f32(uint16_t h)
{
    float f;
    bal_row_to_f32(BAL_DTYPE_F16, &h, 1, &f);
    return f;
}

float bal_bf16_to_f32(uint16_t h)
{
    float f;
    bal_row_to_f32(BAL_DTYPE_BF16, &h, 1, &f);
    return f;
}

uint16_t bal_f32_to_bf16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffU) > 0x7f800000U) /* NaN: keep the sign, make it quiet */
        return (uint16_t)((bits >> 16) | 0x40U);
    return (uint16_t)((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

void bal_row_to_bf16(const float *x, size_t n, uint16_t *out)
{
    BAL_ISA_PICK(bal_dequant_ops)->to_bf16(x, n, out);
}

uint16_t bal_f32_to_f16(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = (bits >> 16) & 0x8000U, body = bits & 0x7fffffffU;
    if (body > 0x7f800000U)
        return (uint16_t)(sign | 0x7e00U);
    if (body >= 0x477ff000U) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00U);
    if (body < 0x38800000U) { /* below 2^-14: adding 0.5 leaves a multiple of 2^-24, rounded to nearest even */
        float magnitude, shifted;
        uint32_t result;
        memcpy(&magnitude, &body, sizeof magnitude);
        shifted = magnitude + 0.5F;
        memcpy(&result, &shifted, sizeof result);
        return (uint16_t)(sign | (result - 0x3f000000U));
    }
    uint32_t rounded = body + 0xfffU + ((body >> 13) & 1U);
    return (uint16_t)(sign | ((rounded - (112U << 23)) >> 13));
}
