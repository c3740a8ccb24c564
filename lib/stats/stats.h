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
/* lm-eval's figures of a group of m tasks with sizes n_i: sum n_i x_i / sum n_i, and the pooled error
 * sqrt(sum (n_i - 1) se_i^2 n_i / (sum n_i - m) / sum n_i). */
double bal_weighted_mean(const double *x, const double *sizes, size_t m);
double bal_pooled_stderr(const double *stderrs, const double *sizes, size_t m);
/* Standard error of the mean of items that come in clusters (templates, a shared text), cluster[i] < n_clusters = G:
 * sqrt(G / (G - 1) sum_c (sum_{i in c} (x_i - mean))^2) / n, the usual cluster-robust one; clusters of one item give
 * bal_mean_stderr().  NaN for G < 2, or when sums, of n_clusters entries, is NULL. */
double bal_clustered_stderr(const double *x, const uint32_t *cluster, size_t n, double *sums, size_t n_clusters);
/* Smallest true difference of two shares near p that two runs on n items each tell apart with 80 % power at 5 %
 * (unpaired, normal approximation): 2.8015852 sqrt(2 p (1 - p) / n). */
double bal_detectable_difference(double p, size_t n);
/* The same for any estimate with this standard error: 2.8015852 stderr. */
double bal_detectable_effect(double stderr_difference);
/* McNemar on b and c discordant pairs: two-sided exact binomial p, mid-p, and the chi-square statistic with continuity
 * correction (|b - c| - 1)^2 / (b + c). */
double bal_mcnemar_exact(uint64_t b, uint64_t c);
double bal_mcnemar_mid(uint64_t b, uint64_t c);
double bal_mcnemar_chi2(uint64_t b, uint64_t c);
/* P(X >= x) of the chi-square distribution with one degree of freedom. */
double bal_chi2_tail(double x);
/* Holm's step-down adjusted p of n tests (Holm 1979): the i-th smallest times n - i + 1, made monotone, at most 1.
 * order: n entries of scratch.  NaN among p stays NaN and does not count as a test. */
void bal_holm(const double *p, double *adjusted, size_t *order, size_t n);
/* Standard error of the mean difference of pairs, and of independent samples of the same sizes. */
double bal_paired_stderr(const double *x, const double *y, size_t n);
double bal_unpaired_stderr(const double *x, size_t nx, const double *y, size_t ny);

#endif
