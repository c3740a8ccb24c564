/* A few rows of x meet the packed weights as they are; for many the weights' rows are dequantised in small groups that
 * stay in the first cache while all rows of x pass by.  The bits are the same.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/rowdot.h"

#include "lib/base/threads.h"
#include "lib/tensor/rowdot_ops.h"

#include <string.h>

enum { GROUP = 16, GRAIN_PRODUCTS = 1 << 15, HALF_STEP = 32 };

typedef struct rowdot_work {
    const bal_rowdot_job *jobs;
    size_t n_jobs, M, ldx, stride;
    const real_t *x;
    real_t *scratch;
    bool rounded;        /* weights are rounded to bf16; x is already */
    const uint16_t *x16; /* x as bf16, rows ldx apart; NULL: as rounded real_t */
} rowdot_work;

static size_t padded(size_t cols)
{
    return (cols + 15) / 16 * 16;
}

static size_t padded_half(size_t cols)
{
    return (cols + HALF_STEP - 1) / HALF_STEP * HALF_STEP;
}

size_t bal_rowdot_scratch(size_t max_cols)
{
    return bal_threads_count() * GROUP * padded_half(max_cols);
}

size_t bal_rowdot_half(size_t M, size_t max_cols)
{
    return M * padded_half(max_cols);
}

bool bal_rowdot_bf16_is_native(void)
{
#if defined(__x86_64__)
    return BAL_ISA_PICK(bal_rowdot16_ops)->block != NULL && __builtin_cpu_supports("avx512bf16") != 0;
#else
    return false;
#endif
}

/* n values of x as bf16, the rest of n_out zeros. */
static void row_to_half(const real_t *x, size_t n, size_t n_out, uint16_t *out)
{
#if BAL_REAL_IS_DOUBLE
    for (size_t i = 0; i < n; i++)
        out[i] = bal_f32_to_bf16((float)x[i]);
#else
    bal_row_to_bf16(x, n, out);
#endif
    memset(out + n, 0, (n_out - n) * sizeof *out);
}

/* x rounded, in place or from elsewhere. */
static void round_row(const real_t *x, size_t n, real_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (real_t)bal_bf16_to_f32(bal_f32_to_bf16((float)x[i]));
}

bal_view bal_view_of(const real_t *data, size_t rows, size_t cols)
{
    bal_dtype dtype = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32;
    return (bal_view){.dtype = dtype, .rows = rows, .cols = cols, .row_bytes = cols * sizeof(real_t), .data = data};
}

static size_t groups_of(const bal_rowdot_job *j)
{
    return (j->w.rows + GROUP - 1) / GROUP;
}

/* The matrix's rows as the file has them, where the loops read its type: up to twice as many rows of x as they take at
 * once (to unpack twice is cheaper than a panel there: 12 and 16 sequences 5 to 7 % faster, 24 slower). */
static bool packed_group(const rowdot_work *work, const bal_rowdot_job *j, bal_rowdot_block *b, size_t row0)
{
    const unsigned char *rows[GROUP];
    const bal_rowdot_ops *ops = BAL_ISA_PICK(bal_rowdot_ops);
    if (j->w.low_r != 0 || work->M > 2 * ops->packed_rows || b->K % 32 != 0 || ops->packed[j->w.dtype] == NULL)
        return false;
    for (size_t i = 0; i < b->N; i++)
        rows[i] = bal_view_row(&j->w, row0 + i);
    b->packed = rows;
    for (size_t left = work->M; left > 0; left -= b->M) {
        b->M = left < ops->packed_rows ? left : ops->packed_rows;
        ops->packed[j->w.dtype](b);
        b->x += b->M * b->ldx;
        b->y += b->M * b->ldy;
    }
    b->packed = NULL;
    return true;
}

/* The group's rows as bf16 in the panel, by way of its last row's place. */
static void half_group(const rowdot_work *work, const bal_rowdot_job *j, bal_rowdot_block *b, size_t row0,
                       real_t *panel)
{
    const bal_rowdot16_ops *ops = BAL_ISA_PICK(bal_rowdot16_ops);
    const unsigned char *rows[GROUP];
    size_t K = padded_half(b->K);
    uint16_t *half = (uint16_t *)panel;
    real_t *row = panel + (GROUP - 1) * K;
    b->x16 = work->x16;
    if (work->M <= ops->packed_rows && b->K == K && ops->packed[j->w.dtype] != NULL) {
        for (size_t i = 0; i < b->N; i++)
            rows[i] = bal_view_row(&j->w, row0 + i);
        b->packed = rows;
        ops->packed[j->w.dtype](b);
        return;
    }
    for (size_t i = 0; i < b->N; i++) {
        bal_view_dequant(&j->w, row0 + i, 1, row, b->K);
        row_to_half(row, b->K, K, half + i * K);
    }
    b->w16 = half;
    b->ldw = b->K = K;
    ops->block(b);
}

static void one_group(const rowdot_work *work, const bal_rowdot_job *j, size_t group, real_t *panel)
{
    size_t K = j->w.cols, row0 = group * GROUP, n = j->w.rows - row0 < GROUP ? j->w.rows - row0 : GROUP;
    const real_t *dense = bal_view_dense(&j->w);
    bal_rowdot_block b = {.M = work->M,
                          .N = n,
                          .K = K,
                          .x = work->x,
                          .bias = j->bias == NULL ? NULL : j->bias + row0,
                          .y = j->y + row0,
                          .ldx = work->ldx,
                          .ldw = padded(K),
                          .ldy = j->ldy,
                          .add = j->add,
                          .scale = j->scale};
    if (work->x16 != NULL) {
        half_group(work, j, &b, row0, panel);
        return;
    }
    if (work->rounded) {
        bal_view_dequant(&j->w, row0, n, panel, b.ldw);
        for (size_t i = 0; i < n; i++)
            round_row(panel + i * b.ldw, K, panel + i * b.ldw);
        b.w = panel;
    } else if (dense != NULL) {
        b.w = dense + row0 * K;
        b.ldw = K;
    } else {
        if (packed_group(work, j, &b, row0))
            return;
        bal_view_dequant(&j->w, row0, n, panel, b.ldw);
        b.w = panel;
    }
    BAL_ISA_PICK(bal_rowdot_ops)->block(&b);
}

static void run_groups(void *context, size_t begin, size_t end, size_t thread)
{
    const rowdot_work *work = context;
    const bal_rowdot_job *j = work->jobs;
    size_t first = 0;
    for (size_t g = begin; g < end; g++) {
        while (g - first >= groups_of(j)) {
            first += groups_of(j);
            j++;
        }
        one_group(work, j, g - first, work->scratch + thread * work->stride);
    }
}

typedef struct half_job {
    const real_t *x;
    size_t K, ldx;
    real_t *half;
    bool native;
} half_job;

static void half_range(void *context, size_t begin, size_t end, size_t thread)
{
    const half_job *j = context;
    size_t ld = padded_half(j->K);
    (void)thread;
    for (size_t m = begin; m < end; m++)
        if (j->native)
            row_to_half(j->x + m * j->ldx, j->K, ld, (uint16_t *)j->half + m * ld);
        else
            round_row(j->x + m * j->ldx, j->K, j->half + m * ld);
}

void bal_rowdot(const bal_rowdot_job *jobs, size_t n_jobs, size_t M, const real_t *x, size_t ldx, real_t *scratch,
                real_t *half)
{
    size_t groups = 0;
    if (M == 0 || n_jobs == 0)
        return;
    for (size_t i = 0; i < n_jobs; i++)
        groups += groups_of(&jobs[i]);
    size_t K = jobs[0].w.cols, products = M * GROUP * (K == 0 ? 1 : K);
    rowdot_work work = {.jobs = jobs, .n_jobs = n_jobs, .M = M, .ldx = ldx, .x = x, .scratch = scratch};
    work.stride = GROUP * padded_half(K);
    if (half != NULL) {
        half_job rows = {.x = x, .K = K, .ldx = ldx, .half = half, .native = bal_rowdot_bf16_is_native()};
        bal_parallel_for(M, 16, half_range, &rows);
        work.rounded = true;
        work.ldx = padded_half(K);
        work.x = half;
        work.x16 = rows.native ? (const uint16_t *)half : NULL;
    }
    /* shared out evenly, or not at all: to wake a thread takes as long as GRAIN_PRODUCTS */
    bal_parallel_for(groups, groups * products >= 2 * GRAIN_PRODUCTS ? 1 : groups, run_groups, &work);
}
