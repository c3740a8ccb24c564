/* lib/tensor/view: number formats, quantised blocks, row order.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/tensor/dequant.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/nf4.h"
#include "lib/tensor/rowdot.h"
#include "lib/tensor/view.h"

#include <math.h>
#include <string.h>

/* IEEE half by its definition. */
static double half_value(uint16_t h)
{
    int e = (h >> 10) & 31, m = h & 1023;
    double v = e == 0 ? ldexp(m, -24) : ldexp(1024 + m, e - 25);
    if (e == 31)
        v = m != 0 ? (double)NAN : (double)INFINITY;
    return h & 0x8000 ? -v : v;
}

TEST(every_half)
{
    for (uint32_t h = 0; h < 65536; h++) {
        float got = bal_f16_to_f32((uint16_t)h);
        double want = half_value((uint16_t)h);
        if (isnan(want)) {
            CHECK(isnan(got) && isnan(bal_f16_to_f32(bal_f32_to_f16(got))));
            continue;
        }
        if (!CHECK_MSG((double)got == want && !signbit(got) == !signbit(want), "half %04x is %g, not %g", (unsigned)h,
                       (double)got, want) ||
            !CHECK_MSG(bal_f32_to_f16(got) == h, "half %04x comes back as %04x", (unsigned)h, bal_f32_to_f16(got)))
            return;
    }
}

/* Halfway values between neighbours go to the even one, anything off the middle to the nearer one. */
TEST(rounding_to_half_and_bfloat16)
{
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double low = half_value((uint16_t)h), high = h == 0x7bff ? 65536.0 : half_value((uint16_t)(h + 1));
        float middle = (float)((low + high) / 2);
        uint16_t even = (uint16_t)(h + (h & 1));
        if (!CHECK(bal_f32_to_f16(middle) == even) || !CHECK(bal_f32_to_f16(nextafterf(middle, 0)) == h) ||
            !CHECK(bal_f32_to_f16(nextafterf(middle, INFINITY)) == h + 1) ||
            !CHECK(bal_f32_to_f16(-middle) == (even | 0x8000)))
            return;
    }
    CHECK(bal_f32_to_f16(1e30F) == 0x7c00 && bal_f32_to_f16(-INFINITY) == 0xfc00);
    for (uint32_t h = 0; h < 0x7f80; h += 13) {
        float low = bal_bf16_to_f32((uint16_t)h);
        uint32_t bits = h << 16;
        CHECK(memcmp(&low, &bits, 4) == 0);
        bits |= 0x8000;
        float middle;
        memcpy(&middle, &bits, 4);
        CHECK(bal_f32_to_bf16(middle) == h + (h & 1));
        CHECK(bal_f32_to_bf16(nextafterf(middle, 0)) == h);
        CHECK(bal_f32_to_bf16(nextafterf(middle, INFINITY)) == h + 1);
    }
    CHECK(bal_f32_to_bf16(NAN) > 0x7f80 && bal_f32_to_bf16(INFINITY) == 0x7f80);
}

/* A 6-bit scale (which 0) or minimum (1) of sub-block k + 4 high of a Q4_K or Q5_K block: 12 bytes in three rows of four. */
static int six_bits(const unsigned char *rows, size_t k, bool high, int which)
{
    int own = rows[4 * which + (int)k];
    if (!high)
        return own % 64;
    int last = rows[8 + k];
    return (which == 0 ? last % 16 : last / 16) + own / 64 * 16;
}

/* Element i of a block of 256. */
static double k_element(bal_dtype t, const unsigned char *p, size_t i)
{
    uint16_t h, h2;
    size_t sub = i / 32, l = i % 32;
    memcpy(&h, p + (t == BAL_DTYPE_Q6_K ? 208 : 0), 2);
    memcpy(&h2, p + 2, 2);
    if (t == BAL_DTYPE_Q6_K) {
        size_t half = i / 128, part = i % 128 / 32;
        int nibbles = p[64 * half + 32 * (part % 2) + l], pair = p[128 + 32 * half + l] >> (2 * part) & 3;
        int q = (part < 2 ? nibbles % 16 : nibbles / 16) + 16 * pair;
        return half_value(h) * (signed char)p[192 + i / 16] * (q - 32);
    }
    const unsigned char *nibbles = p + (t == BAL_DTYPE_Q5_K ? 48 : 16);
    int byte = nibbles[i / 64 * 32 + l], q = sub % 2 == 0 ? byte % 16 : byte / 16;
    if (t == BAL_DTYPE_Q5_K)
        q += 16 * (p[16 + l] >> sub & 1);
    double scale = six_bits(p + 4, sub % 4, sub >= 4, 0), minimum = six_bits(p + 4, sub % 4, sub >= 4, 1);
    return (double)(float)(half_value(h) * scale * q - half_value(h2) * minimum);
}

/* Element j of a row, straight from the format's description. */
static double element(bal_dtype t, const unsigned char *row, size_t j)
{
    const unsigned char *p = row + j / bal_dtype_block(t) * bal_dtype_block_bytes(t);
    size_t i = j % 32;
    uint16_t h, h2;
    float f;
    double d;
    memcpy(&h, p, 2);
    memcpy(&h2, p + 2, 2);
    switch (t) {
    case BAL_DTYPE_F32:
        memcpy(&f, p, 4);
        return (double)f;
    case BAL_DTYPE_F64:
        memcpy(&d, p, 8);
        return d;
    case BAL_DTYPE_F16:
        return half_value(h);
    case BAL_DTYPE_BF16:
        return (double)bal_bf16_to_f32(h);
    case BAL_DTYPE_Q8_0:
        return half_value(h) * (signed char)p[2 + i];
    case BAL_DTYPE_Q4_0:
        return half_value(h) * ((i < 16 ? p[2 + i] & 15 : p[2 + i - 16] >> 4) - 8);
    case BAL_DTYPE_Q4_1:
        return (double)(float)(half_value(h) * (i < 16 ? p[4 + i] & 15 : p[4 + i - 16] >> 4) + half_value(h2));
    case BAL_DTYPE_Q5_0:
    case BAL_DTYPE_Q5_1: {
        const unsigned char *high = p + (t == BAL_DTYPE_Q5_0 ? 2 : 4), *low = high + 4;
        int q = (i < 16 ? low[i] % 16 : low[i - 16] / 16) + 16 * (high[i / 8] >> i % 8 & 1);
        return t == BAL_DTYPE_Q5_0 ? half_value(h) * (q - 16) : (double)(float)(half_value(h) * q + half_value(h2));
    }
    case BAL_DTYPE_NF4: {
        static const float table[] = BAL_NF4_TABLE;
        const unsigned char *nibbles = p + 4 + j % 64 / 32 * 16;
        memcpy(&f, p, 4);
        return (double)(float)((double)table[i < 16 ? nibbles[i] % 16 : nibbles[i - 16] / 16] * (double)f);
    }
    case BAL_DTYPE_Q4_K:
    case BAL_DTYPE_Q5_K:
    case BAL_DTYPE_Q6_K:
        return k_element(t, p, j % 256);
    default:
        return (double)NAN;
    }
}

enum { ROWS = 6, COLS = 768 };

/* Random bytes that hold finite numbers, starting at an odd address. */
static unsigned char *random_rows(bal_dtype t, size_t row_bytes)
{
    static unsigned char store[ROWS * COLS * 8 + 1];
    bal_rng rng;
    bal_rng_init(&rng, 5, bal_dtype_name(t));
    for (size_t i = 0; i < sizeof store; i++)
        store[i] = (unsigned char)bal_rng_next(&rng);
    unsigned char *data = store + 1;
    for (size_t i = 0; i < ROWS * row_bytes; i += bal_dtype_block_bytes(t)) {
        uint16_t h = bal_f32_to_f16((float)bal_rng_normal(&rng)), m = bal_f32_to_f16((float)bal_rng_normal(&rng));
        double v = bal_rng_normal(&rng);
        float f = (float)v;
        if (t == BAL_DTYPE_F32 || t == BAL_DTYPE_NF4)
            memcpy(data + i, &f, 4);
        else if (t == BAL_DTYPE_F64)
            memcpy(data + i, &v, 8);
        else
            memcpy(data + i, &h, 2);
        if (t == BAL_DTYPE_Q4_1 || t == BAL_DTYPE_Q5_1 || t == BAL_DTYPE_Q4_K || t == BAL_DTYPE_Q5_K)
            memcpy(data + i + 2, &m, 2);
        if (t == BAL_DTYPE_Q6_K)
            memcpy(data + i + 208, &h, 2);
    }
    return data;
}

TEST(dequantisation_follows_the_format)
{
    for (int t = 0; t < BAL_DTYPE_COUNT; t++) {
        bal_view v = {.dtype = (bal_dtype)t, .rows = ROWS, .cols = COLS};
        if (!CHECK_OK(bal_dtype_row_bytes(v.dtype, COLS, &v.row_bytes)))
            return;
        v.data = random_rows(v.dtype, v.row_bytes);
        for (uint32_t head = 0; head <= ROWS; head += ROWS) {
            real_t out[ROWS * (COLS + 3)];
            memset(out, 0, sizeof out);
            v.rope_head_dim = head;
            bal_view_dequant_parallel(&v, 0, ROWS, out, COLS + 3);
            for (size_t r = 0; r < ROWS; r++) {
                size_t file_row = head == 0 ? r : (r < ROWS / 2 ? 2 * r : 2 * (r - ROWS / 2) + 1);
                for (size_t j = 0; j < COLS; j++) {
                    double want = element(v.dtype, (const unsigned char *)v.data + file_row * v.row_bytes, j);
                    real_t got = out[r * (COLS + 3) + j];
                    if (!CHECK_MSG(got == (real_t)want, "%s row %zu column %zu: %.9g, not %.9g",
                                   bal_dtype_name(v.dtype), r, j, (double)got, want))
                        return;
                }
                CHECK(out[r * (COLS + 3) + COLS] == 0);
            }
        }
        v.rope_head_dim = 0;
        bal_view part = bal_view_rows(&v, 2, 3);
        real_t a[COLS], b[COLS];
        bal_view_dequant(&v, 4, 1, a, COLS);
        bal_view_dequant(&part, 2, 1, b, COLS);
        CHECK(part.rows == 3 && memcmp(a, b, sizeof a) == 0);
    }
    size_t bytes;
    CHECK_STATUS(bal_dtype_row_bytes(BAL_DTYPE_Q4_1, 33, &bytes), BAL_EFORMAT);
    CHECK_STATUS(bal_dtype_row_bytes(BAL_DTYPE_COUNT, 32, &bytes), BAL_EUNSUPPORTED);
}

TEST(instruction_sets_agree)
{
    const bal_dequant_ops *base = &bal_dequant_ops_base, *best = BAL_ISA_PICK(bal_dequant_ops);
    const bal_dequant_ops *sets[] = {best, best};
#ifdef BAL_HAVE_ISA_avx512
    if (bal_isa_level() >= BAL_ISA_LEVEL_AVX2)
        sets[1] = &bal_dequant_ops_avx2;
#endif
    for (int t = 0; t < BAL_DTYPE_COUNT; t++) {
        size_t row_bytes;
        if (!CHECK_OK(bal_dtype_row_bytes((bal_dtype)t, COLS, &row_bytes)))
            return;
        const unsigned char *data = random_rows((bal_dtype)t, row_bytes);
        for (int s = 0; s < 2; s++) {
            float a[COLS], b[COLS];
            base->to_f32[t](data, COLS, a);
            sets[s]->to_f32[t](data, COLS, b);
            CHECK(memcmp(a, b, sizeof a) == 0);
        }
    }
}

TEST(rows_round_to_bf16_as_single_numbers_do)
{
    enum { N = 77 };
    float x[N] = {0.0F, -0.0F, INFINITY, -INFINITY, NAN, -NAN, 1e-42F, 3.4028235e38F, 1.00390625F, 1.01171875F};
    uint16_t a[N];
    bal_rng rng;
    bal_rng_init(&rng, 3, "bf16");
    for (int i = 10; i < N; i++)
        x[i] = (float)bal_rng_normal(&rng);
    const bal_dequant_ops *sets[] = {&bal_dequant_ops_base, BAL_ISA_PICK(bal_dequant_ops)};
    for (int s = 0; s < 2; s++) {
        sets[s]->to_bf16(x, N, a);
        for (int i = 0; i < N; i++)
            CHECK(a[i] == bal_f32_to_bf16(x[i]));
    }
    bal_row_to_bf16(x, N, a);
    CHECK(a[8] == 0x3f80 && a[9] == 0x3f82); /* ties go to even */
}

TEST(dense_means_usable_as_it_is)
{
    real_t data[8] = {0};
    bal_view v = {.dtype = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32,
                  .rows = 2,
                  .cols = 4,
                  .row_bytes = 4 * sizeof(real_t),
                  .data = data};
    CHECK(bal_view_dense(&v) == data);
    v.rope_head_dim = 2;
    CHECK(bal_view_dense(&v) == NULL);
    v.rope_head_dim = 0;
    v.data = (const unsigned char *)data + 1;
    CHECK(bal_view_dense(&v) == NULL);
    v.data = data;
    v.dtype = BAL_DTYPE_BF16;
    CHECK(bal_view_dense(&v) == NULL);
}

/* A matrix with a product beside what is stored: dequantised, in parts, and in every product. */
TEST(a_product_beside_the_matrix)
{
    enum { N = 37, K = 128, R = 3, M = 5 };
    static real_t a[R * K], b[N * R], want[N * K], got[N * K], x[M * K], y[M * N], dx[M * K], panel[N * K + M * K];
    static unsigned char rows[N * 2 * 36];
    static float row[K];
    bal_rng rng;
    bal_rng_init(&rng, 3, "low");
    for (size_t i = 0; i < R * K; i++)
        a[i] = (real_t)bal_rng_normal(&rng);
    for (size_t i = 0; i < N * R; i++)
        b[i] = (real_t)bal_rng_normal(&rng);
    for (size_t i = 0; i < M * K; i++)
        x[i] = (real_t)bal_rng_normal(&rng);
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < K; j++)
            row[j] = (float)bal_rng_normal(&rng);
        bal_nf4_quantize_row(row, K, rows + i * 72);
        bal_row_to_f32(BAL_DTYPE_NF4, rows + i * 72, K, row);
        for (size_t j = 0; j < K; j++) {
            double sum = (double)row[j];
            for (size_t k = 0; k < R; k++)
                sum += 0.5 * (double)b[i * R + k] * (double)a[k * K + j];
            want[i * K + j] = (real_t)sum;
        }
    }
    bal_view v = {.dtype = BAL_DTYPE_NF4, .rows = N, .cols = K, .row_bytes = 72, .data = rows};
    v.low_r = R;
    v.low_scale = REAL(0.5);
    v.low_a = a;
    v.low_b = b;
    CHECK(bal_view_dense(&v) == NULL);
    bal_view_dequant_parallel(&v, 0, N, got, K);
    for (size_t i = 0; i < N * K; i++)
        CHECK_NEAR(got[i], want[i], 1e-5);
    bal_view part = bal_view_rows(&v, 11, 7);
    bal_view_dequant(&part, 2, 3, got, K);
    for (size_t i = 0; i < 3 * K; i++)
        CHECK_NEAR(got[i], want[13 * K + i], 1e-5);
    bal_rowdot_job job = {.w = v, .y = y, .ldy = N};
    real_t *scratch = bal_alloc(bal_rowdot_scratch(K), sizeof *scratch);
    for (int way = 0; way < 3 && CHECK(scratch != NULL); way++) {
        double bound = way == 1 ? 0.3 : 1e-3; /* bf16 operands have 8 bits */
        if (way < 2)
            bal_gemm_view_nt(way == 0 ? BAL_COMPUTE_F32 : BAL_COMPUTE_BF16, M, x, K, &v, 0, y, N, panel);
        else
            bal_rowdot(&job, 1, M, x, K, scratch, NULL);
        for (size_t m = 0; m < M; m++)
            for (size_t i = 0; i < N; i++) {
                double sum = 0;
                for (size_t j = 0; j < K; j++)
                    sum += (double)x[m * K + j] * (double)want[i * K + j];
                CHECK_NEAR(y[m * N + i], sum, bound);
            }
    }
    bal_gemm_view_nn(BAL_COMPUTE_F32, 1, b, N, &v, 0, dx, K, panel); /* any N numbers */
    for (size_t j = 0; j < K; j++) {
        double sum = 0;
        for (size_t i = 0; i < N; i++)
            sum += (double)b[i] * (double)want[i * K + j];
        CHECK_NEAR(dx[j], sum, 1e-3);
    }
    bal_free(scratch);
}
