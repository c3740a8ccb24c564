/* The bootstrap: resamples of items with replacement, drawn as CPython's random.choices() draws them, so that a
 * standard error equals lm-eval's to the last digit.  Results do not depend on the number of threads.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_STATS_BOOTSTRAP_H
#define BAL_STATS_BOOTSTRAP_H

#include "lib/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* The statistic of the items index[0..n). */
typedef double bal_statistic(const void *items, const uint32_t *index, size_t n);

/* lm-eval's bootstrap standard error: chunks of min(1000, iterations) resamples, chunk i drawn by random.Random(i),
 * sample standard deviation of all of them (a rest that fills no chunk is dropped).  *out is NaN for n <= 1, as
 * lm-eval reports none.  BAL_EINVAL for fewer than 2 iterations, BAL_ENOMEM. */
bal_status bal_bootstrap_stderr(bal_statistic *f, const void *items, size_t n, size_t iterations, double *out);

/* Percentile interval of a difference of means of pairs, mean(x) - mean(y). */
typedef struct bal_paired_bootstrap {
    double difference, low, high; /* low, high: the 2.5 % and 97.5 % quantiles (linear between order statistics) */
    double p; /* two-sided: share of resamples, moved to mean 0, that are as far from 0 as the difference is;
               * (1 + count) / (1 + resamples), never 0 (Davison, Hinkley 1997, 4.2) */
} bal_paired_bootstrap;
/* Items are resampled; with cluster not NULL (cluster[i] < n_clusters, every one in use) whole clusters are, and the
 * difference is that of all items drawn.  n > 0, resamples > 0. */
bal_status bal_bootstrap_paired(const double *x, const double *y, const uint32_t *cluster, size_t n, size_t n_clusters,
                                size_t resamples, uint64_t seed, bal_paired_bootstrap *out);

#endif
