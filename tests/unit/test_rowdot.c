/* The products of inference: values against sums in double, and the same bits for any number of rows, place and
 * threads.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/threads.h"
#include "lib/tensor/rowdot.h"
#include "tests/test.h"

#include <math.h>
#include <string.h>

enum { MAX_M = 33, MAX_N = 70, MAX_K = 96, MAX_PACKED_M = 18, MAX_PACKED_N = 24, MAX_PACKED_K = 512 };

typedef struct data {
    real_t x[MAX_PACKED_M * MAX_PACKED_K], w[MAX_N * MAX_K], bias[MAX_N], y[MAX_M * MAX_N], z[MAX_M * MAX_N];
    unsigned char packed[2 * MAX_PACKED_N * MAX_PACKED_K];
    real_t scratch[16 * 16 * MAX_K];
} data;

static void fill(real_t *p, size_t n, bal_rng *r)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (real_t)bal_rng_normal(r);
}

static void one_shape(data *d, size_t M, size_t N, size_t K, bool bias)
{
    bal_rng r;
    bal_rng_init(&r, M * 1000 + N * 10 + K, "rowdot");
    fill(d->x, M * K, &r);
    fill(d->w, N * K, &r);
    fill(d->bias, N, &r);
    bal_rowdot_job j = {.w = bal_view_of(d->w, N, K), .bias = bias ? d->bias : NULL, .y = d->y, .ldy = N};
    bal_rowdot(&j, 1, M, d->x, K, d->scratch, NULL);
    for (size_t m = 0; m < M; m++) {
        for (size_t n = 0; n < N; n++) {
            double sum = bias ? (double)d->bias[n] : 0;
            for (size_t k = 0; k < K; k++)
                sum += (double)d->x[m * K + k] * (double)d->w[n * K + k];
            CHECK_NEAR(d->y[m * N + n], sum, 1e-5 * sqrt((double)K) + 1e-6);
        }
    }
    j.y = d->z; /* one row at a time: the same bits */
    for (size_t m = 0; m < M; m++) {
        j.y = d->z + m * N;
        bal_rowdot(&j, 1, 1, d->x + m * K, K, d->scratch, NULL);
    }
    CHECK(memcmp(d->y, d->z, M * N * sizeof(real_t)) == 0);
}

TEST(rowdot_values_and_rows)
{
    data *d = bal_alloc(1, sizeof *d);
    if (!CHECK(d != NULL))
        return;
    for (size_t threads = 1; threads <= 2; threads++) {
        CHECK_OK(bal_threads_start(threads));
        for (size_t M = 1; M <= MAX_M; M += M < 9 ? 1 : 8)
            for (size_t K = 1; K <= MAX_K; K += 19)
                one_shape(d, M, K % 2 == 0 ? 37 : MAX_N, K, M % 2 == 0);
    }
    bal_threads_stop();
    bal_free(d);
}

TEST(rowdot_add_scaled_and_several)
{
    data *d = bal_alloc(1, sizeof *d);
    if (!CHECK(d != NULL))
        return;
    bal_rng r;
    bal_rng_init(&r, 1, "rowdot");
    fill(d->x, 3 * 40, &r);
    fill(d->w, 50 * 40, &r);
    bal_rowdot_job j[2] = {{.w = bal_view_of(d->w, 20, 40), .y = d->y, .ldy = 50},
                           {.w = bal_view_of(d->w + 20 * 40, 30, 40), .y = d->y + 20, .ldy = 50}};
    bal_rowdot_job whole = {.w = bal_view_of(d->w, 50, 40), .y = d->z, .ldy = 50};
    bal_rowdot(j, 2, 3, d->x, 40, d->scratch, NULL);
    bal_rowdot(&whole, 1, 3, d->x, 40, d->scratch, NULL);
    CHECK(memcmp(d->y, d->z, 3 * 50 * sizeof(real_t)) == 0);
    whole.add = true;
    whole.scale = REAL(-0.5);
    bal_rowdot(&whole, 1, 3, d->x, 40, d->scratch, NULL);
    for (size_t i = 0; i < 150; i++)
        CHECK_NEAR(d->z[i], 0.5 * (double)d->y[i], 1e-6);
    bal_free(d);
}

/* A packed matrix gives the bits of its dequantised copy, whether its weights are unpacked on the way (few rows of x)
 * or beforehand (more), rows in any file order, also where the last tile is not full. */
static double rounded(double x, bool half)
{
    return half ? (double)bal_bf16_to_f32(bal_f32_to_bf16((float)x)) : x;
}

static void packed_and_dense(data *d, const bal_view *v, size_t M, real_t *half)
{
    static real_t w[MAX_PACKED_N * MAX_PACKED_K], scratch[16 * 16 * MAX_PACKED_K];
    const size_t n = v->rows, K = v->cols;
    const real_t *bias = M % 2 == 0 ? d->bias : NULL;
    bal_view_dequant(v, 0, n, w, K);
    bal_rowdot_job packed = {.w = *v, .y = d->y, .ldy = n, .bias = bias}, dense = packed;
    dense.w = bal_view_of(w, n, K);
    dense.y = d->z;
    for (int add = 0; add < 2; add++) {
        packed.add = dense.add = add == 1;
        packed.scale = dense.scale = REAL(0.5);
        bal_rowdot(&packed, 1, M, d->x, K, scratch, half);
        bal_rowdot(&dense, 1, M, d->x, K, scratch, half);
        CHECK_MSG(memcmp(d->y, d->z, M * n * sizeof(real_t)) == 0, "%s: %zu rows, %zu columns",
                  bal_dtype_name(v->dtype), M, K);
    }
    for (size_t m = 0; m < M; m++) { /* a row alone: the same bits */
        bal_rowdot_job one = packed;
        real_t *row = d->z + m * n;
        one.y = row;
        one.add = false;
        bal_rowdot(&one, 1, 1, d->x + m * K, K, scratch, half);
        one.add = true;
        bal_rowdot(&one, 1, 1, d->x + m * K, K, scratch, half);
        CHECK_MSG(memcmp(d->y + m * n, row, n * sizeof *row) == 0, "%s: row %zu of %zu alone, %zu columns",
                  bal_dtype_name(v->dtype), m, M, K);
    }
    for (size_t m = 0; m < M; m++)
        for (size_t i = 0; i < n; i++) {
            double sum = 0, size = 0;
            for (size_t k = 0; k < K; k++) {
                double term =
                    rounded((double)d->x[m * K + k], half != NULL) * rounded((double)w[i * K + k], half != NULL);
                sum += term;
                size += fabs(term);
            }
            CHECK_NEAR(d->y[m * n + i], 1.5 * sum + (bias != NULL ? (double)bias[i] : 0), 1e-5 * size + 1e-5);
        }
}

TEST(rowdot_packed)
{
    static const bal_dtype types[] = {BAL_DTYPE_Q8_0, BAL_DTYPE_Q4_0, BAL_DTYPE_Q4_1, BAL_DTYPE_Q5_0,
                                      BAL_DTYPE_Q5_1, BAL_DTYPE_Q4_K, BAL_DTYPE_Q5_K, BAL_DTYPE_Q6_K,
                                      BAL_DTYPE_F16,  BAL_DTYPE_BF16, BAL_DTYPE_NF4};
    static const size_t widths[] = {32, 40, 96, 160, 256, 512};
    data *d = bal_alloc(1, sizeof *d);
    real_t *halves = bal_alloc(bal_rowdot_half(MAX_PACKED_M, MAX_PACKED_K), sizeof *halves);
    if (!CHECK(d != NULL && halves != NULL))
        return;
    bal_rng r;
    bal_rng_init(&r, 2, "rowdot");
    fill(d->x, sizeof d->x / sizeof *d->x, &r);
    fill(d->bias, MAX_N, &r);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t c = 0; c < sizeof widths / sizeof *widths; c++) {
            bal_view v = {.dtype = types[t], .rows = t % 2 == 0 ? 24 : 21, .cols = widths[c], .data = d->packed};
            if (v.cols % bal_dtype_block(v.dtype) != 0)
                continue;
            v.rope_head_dim = t % 2 == 0 ? 8 : 0;
            CHECK_OK(bal_dtype_row_bytes(v.dtype, v.cols, &v.row_bytes));
            for (size_t i = 0; i < v.rows * v.row_bytes; i++)
                d->packed[i] = (unsigned char)(bal_rng_next(&r) & 0x3b); /* no half with an exponent of all ones */
            for (size_t M = 1; M <= MAX_PACKED_M; M++)
                for (int half = 0; half < 2; half++)
                    packed_and_dense(d, &v, M, half == 0 ? NULL : halves);
        }
    bal_free(halves);
    bal_free(d);
}
