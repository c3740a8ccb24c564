/* A weighted sum of adapters as a new one.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_COMBINE_H
#define BAL_ADAPTER_COMBINE_H

#include "lib/adapter/adapter.h"

/* As peft's add_weighted_adapter(); w_i the weights, s_i the scales.  The new adapter has alpha = r.
 *   cat     A = rows of w_i s_i A_i one below the other, B = [B_1 B_2 ...]: the sum itself, rank r_1 + r_2 + ...
 *   svd     the leading triplets of the sum, A = V^T, B = U S: the nearest of its rank (0: the largest r_i)
 *   linear  A = sum of +-sqrt|w_i s_i| A_i, B = sum of sqrt|w_i s_i| B_i: not the sum (it has products A_i with B_j),
 *           but small; ranks must be equal */
typedef enum bal_combination { BAL_COMBINE_CAT, BAL_COMBINE_SVD, BAL_COMBINE_LINEAR } bal_combination;
#define BAL_COMBINATIONS "cat|svd|linear"

bool bal_combination_parse(const char *name, bal_combination *out);

/* adapters: plain ones (bal_adapter_to_plain()) of one model, whose modules are modules[0..n_modules).  A module that
 * one of them leaves alone counts as 0 there.  *lost: the largest share of the sum (Frobenius norm, by module) that the
 * new adapter misses: 0 for cat, may be large for linear.  BAL_EINVAL: ranks that differ (linear), a rank above
 * min(in, out) (svd), an adapter that is no plain LoRA. */
bal_status bal_adapter_combine(bal_adapter **out, const bal_adapter *const *adapters, const double *weights, size_t n,
                               bal_combination kind, size_t rank, const bal_module *modules, size_t n_modules,
                               double *lost);

#endif
