/* pass@k of code generation (Chen et al. 2021, arXiv 2107.03374, eq. 1).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_STATS_PASS_AT_K_H
#define BAL_STATS_PASS_AT_K_H

#include <stddef.h>

/* The unbiased estimate that at least one of k samples passes, when c of n did: 1 - C(n-c, k) / C(n, k), as the product
 * 1 - prod_{i=n-c+1..n} (1 - k/i), which neither overflows nor cancels.  NaN unless c <= n and 1 <= k <= n. */
double bal_pass_at_k(size_t n, size_t c, size_t k);

#endif
