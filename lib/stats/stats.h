/* Standard errors, intervals and exact tests.  lm-eval's conventions where it has them.  Undefined is NaN.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_STATS_STATS_H
#define BAL_STATS_STATS_H

#include <stddef.h>
#include <stdint.h>

double bal_mean(const double *x, size_t n);
/* Sample standard deviation (n - 1), and that over sqrt n: lm-eval's standard error of a mean. */
double bal_sample_sd(const double *x, size_t n);
double bal_mean_stderr(const double *x, size_t n);
/* sqrt(p (1 - p) / (n - 1)): the same for a share of n yes-or-no items. */
double bal_share_stderr(double p, size_t n);
/* Wilson score interval of k successes in n at the normal quantile z (1.959963984540054 for 95 %). */
void bal_wilson(size_t k, size_t n, double z, double *low, double *high);
/* Smallest true difference of two shares near p that two runs on n items each tell apart with 80 % power at 5 %
 * (unpaired, normal approximation): 2.8015852 sqrt(2 p (1 - p) / n). */
double bal_detectable_difference(double p, size_t n);
/* McNemar on b and c discordant pairs: two-sided exact binomial p, mid-p, and the chi-square statistic with continuity
 * correction (|b - c| - 1)^2 / (b + c). */
double bal_mcnemar_exact(uint64_t b, uint64_t c);
double bal_mcnemar_mid(uint64_t b, uint64_t c);
double bal_mcnemar_chi2(uint64_t b, uint64_t c);
/* Standard error of the mean difference of pairs, and of independent samples of the same sizes. */
double bal_paired_stderr(const double *x, const double *y, size_t n);
double bal_unpaired_stderr(const double *x, size_t nx, const double *y, size_t ny);

#endif
