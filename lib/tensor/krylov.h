/* Leading singular triplets by a block Krylov space.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_KRYLOV_H
#define BAL_TENSOR_KRYLOV_H

#include "lib/base/rng.h"
#include "lib/base/status.h"
#include "lib/tensor/real.h"

#include <stddef.h>

/* The k leading triplets of A(m,n), to the accuracy that the space of a random block of `block` >= k columns and its
 * images under `steps` power steps allows (Musco and Musco 2015, alg. 2): it holds the space that as many randomised
 * power iterations end in, so it captures at least as much.  Ends before `steps` when the captured energy stands
 * still.  U(m,k) and Vt(k,n): V has orthonormal rows, U[:,i] s[i] = A V_i; a value of 0 has a column of zeros.
 * captured: sum of s^2 over what the k leading values can have at most, the latter extrapolated from the growth of
 * the last steps.  Errors: BAL_EINVAL (k or block out of range), BAL_ENUMERIC (NaN or infinity), BAL_ENOMEM. */
bal_status bal_krylov_leading(size_t m, size_t n, const real_t *A, size_t k, size_t block, size_t steps, bal_rng *rng,
                              real_t *U, double *s, real_t *Vt, double *captured);

#endif
