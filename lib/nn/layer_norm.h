/* Layer norm (Ba, Kiros, Hinton 2016, arXiv 1607.06450): y = (x - mean) / sqrt(var + eps) * w + b, var the mean of the
 * squared deviations.  x, y: T x D.  Sums in double.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NN_LAYER_NORM_H
#define BAL_NN_LAYER_NORM_H

#include "lib/tensor/real.h"

#include <stddef.h>

/* y may be x. */
void bal_layer_norm_forward(size_t T, size_t D, const real_t *x, const real_t *w, const real_t *b, double eps,
                            real_t *y);
/* dx +=, dw +=, db += (each may be NULL).  moments: 2 T values of scratch. */
void bal_layer_norm_backward(size_t T, size_t D, const real_t *x, const real_t *w, double eps, const real_t *dy,
                             real_t *dx, real_t *dw, real_t *db, real_t *moments);

#endif
