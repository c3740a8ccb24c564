/* A few rows of x meet the packed weights as they are; for many the weights' rows are dequantised in small groups that
 * stay in the first cache while all rows of x pass by.  The bits are the same.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/tensor/rowdot.h"

#include "lib/base/threads.h"
#include "lib/tensor/rowdot_ops.h"

enum { GROUP = 16, GRAIN_PRODUCTS = 1 << 15 };

typedef struct rowdot_work {
    const bal_rowdot_job *jobs;
    size_t n_jobs, M, ldx, stride;
    const real_t *x;
    real_t *scratch;
} rowdot_work;

static size_t padded(size_t cols)
{
    return (cols + 15) / 16 * 16;
}

size_t bal_rowdot_scratch(size_t max_cols)
{
    return bal_threads_count() * GROUP * padded(max_cols);
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

/* The matrix's rows as the file has them, where the loops read its type. */
static bool packed_group(const rowdot_work *work, const bal_rowdot_job *j, bal_rowdot_block *b, size_t row0)
{
    const unsigned char *rows[GROUP];
    const bal_rowdot_ops *ops = BAL_ISA_PICK(bal_rowdot_ops);
    if (work->M > ops->packed_rows || b->K % 32 != 0 || ops->packed[j->w.dtype] == NULL)
        return false;
    for (size_t i = 0; i < b->N; i++)
        rows[i] = bal_view_row(&j->w, row0 + i);
    b->packed = rows;
    ops->packed[j->w.dtype](b);
    return true;
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
    if (dense != NULL) {
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

void bal_rowdot(const bal_rowdot_job *jobs, size_t n_jobs, size_t M, const real_t *x, size_t ldx, real_t *scratch)
{
    size_t groups = 0;
    if (M == 0 || n_jobs == 0)
        return;
    for (size_t i = 0; i < n_jobs; i++)
        groups += groups_of(&jobs[i]);
    size_t K = jobs[0].w.cols, products = M * GROUP * (K == 0 ? 1 : K);
    rowdot_work work = {.jobs = jobs, .n_jobs = n_jobs, .M = M, .ldx = ldx, .x = x, .scratch = scratch};
    work.stride = GROUP * padded(K);
    /* shared out evenly, or not at all: to wake a thread takes as long as GRAIN_PRODUCTS */
    bal_parallel_for(groups, groups * products >= 2 * GRAIN_PRODUCTS ? 1 : groups, run_groups, &work);
}
