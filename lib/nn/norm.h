/* Root mean square norm (Zhang, Sennrich 2019, arXiv 1910.07467): y = x / sqrt(mean(x^2) + eps) * (w + offset);
 * offset 1 for gemma's kind, else 0.  x, y: T x D.  Sums in double.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NN_NORM_H
#define BAL_NN_NORM_H

#include "lib/tensor/real.h"

#include <stddef.h>

void bal_rms_forward(size_t T, size_t D, const real_t *x, const real_t *w, real_t offset, double eps, real_t *y);
/* dx += (may be NULL), dw += (may be NULL).  reciprocal: T values of scratch. */
void bal_rms_backward(size_t T, size_t D, const real_t *x, const real_t *w, real_t offset, double eps, const real_t *dy,
                      real_t *dx, real_t *dw, real_t *reciprocal);

#endif
