/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/stats/pass_at_k.h"

#include <math.h>

double bal_pass_at_k(size_t n, size_t c, size_t k)
{
    double none = 1; /* probability that all k fail */
    if (c > n || k < 1 || k > n)
        return (double)NAN;
    if (n - c < k)
        return 1;
    for (size_t i = n - c + 1; i <= n; i++)
        none *= 1 - (double)k / (double)i;
    return 1 - none;
}
