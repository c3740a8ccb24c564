/* Products for inference whose bits depend on the row alone: y[m][n] = x[m] . W[n], with one order of sums over the
 * columns whatever the number of rows, the row's place and the number of threads.  (A BLAS picks other kernels for
 * other row counts.)  Bits are the same within one instruction set.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_ROWDOT_H
#define BAL_TENSOR_ROWDOT_H

#include "lib/tensor/real.h"
#include "lib/tensor/view.h"

#include <stdbool.h>
#include <stddef.h>

/* One matrix of a group that shares its input.  y(M, w.rows) = x W^T + bias, or y += scale x W^T with add. */
typedef struct bal_rowdot_job {
    bal_view w;
    const real_t *bias; /* may be NULL; not used with add */
    real_t *y;
    size_t ldy;
    bool add;
    real_t scale;
} bal_rowdot_job;

/* real_t values of scratch that bal_rowdot() needs for matrices of at most max_cols columns, all threads together. */
size_t bal_rowdot_scratch(size_t max_cols);
/* All jobs have the same number of columns K; x is M x K with rows ldx apart.  Parallel over the rows of the
 * matrices; allocates nothing.  half: NULL, or bal_rowdot_half(M, K) values of scratch: then x and the weights are rounded
 * to bf16 first (sums stay f32), with instructions of the machine for it where it has them. */
void bal_rowdot(const bal_rowdot_job *jobs, size_t n_jobs, size_t M, const real_t *x, size_t ldx, real_t *scratch,
                real_t *half);
size_t bal_rowdot_half(size_t M, size_t max_cols);
bool bal_rowdot_bf16_is_native(void);
/* A dense matrix of real_t as a view. */
bal_view bal_view_of(const real_t *data, size_t rows, size_t cols);

#endif
