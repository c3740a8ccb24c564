/* One module's update seen against its base weight, as named values.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ANALYZE_AGAINST_BASE_H
#define BAL_ANALYZE_AGAINST_BASE_H

#include "lib/base/status.h"
#include "lib/tensor/view.h"

#include <stddef.h>

enum { BASE_N_NAMED = 10 };
extern const char *const base_names[BASE_N_NAMED];
extern const char *const base_conventions[BASE_N_NAMED];

/* w: the base weight (m, n); s[0..r), U (m, r), V (n, r) of the update.  The amplification is taken in the update's
 * numerical_rank leading directions; the intruders among the k leading directions of W0 + delta, cosines below eps
 * (k 0: those values stay NaN, and the full SVD of W0 is not computed). */
bal_status base_named_values(const bal_view *w, size_t r, const double *s, const double *U, const double *V,
                             size_t numerical_rank, size_t k, double eps, double values[BASE_N_NAMED]);

#endif
