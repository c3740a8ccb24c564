/* Plain work on rows, shared out over the threads: biases, factors by column, and the gradients of both.  X: M rows of n
 * values, ldx apart; a column's sum has one order whatever the threads.  Nothing fails, nothing is allocated.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NN_ROWS_H
#define BAL_NN_ROWS_H

#include "lib/tensor/real.h"

#include <stdbool.h>
#include <stddef.h>

void bal_rows_copy(size_t M, size_t n, const real_t *x, size_t ldx, real_t *y, size_t ldy);
/* Every row of Y += v[n], a bias. */
void bal_rows_add(size_t M, size_t n, const real_t *v, real_t *y, size_t ldy);
/* Every row of Y = the row of X times v[n], element by element; `add`: Y += that.  Y may be X. */
void bal_rows_scale(size_t M, size_t n, const real_t *v, const real_t *x, size_t ldx, bool add, real_t *y, size_t ldy);
/* dv[n] += the sums of X's columns: the gradient of v in Y += v. */
void bal_rows_sum(size_t M, size_t n, const real_t *x, size_t ldx, real_t *dv);
/* dv[i] += factor[i] sum_t X[t, i] Y[t, i] (factor NULL: 1), summed in double: the gradient of v in X v, Y being that of
 * the result. */
void bal_rows_dot(size_t M, size_t n, const real_t *x, size_t ldx, const real_t *y, size_t ldy, const real_t *factor,
                  real_t *dv);

#endif
