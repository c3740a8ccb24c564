/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/stats/stats.h"

#include <math.h>

#define UNDEFINED ((double)NAN)

double bal_mean(const double *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    return n > 0 ? sum / (double)n : UNDEFINED;
}

double bal_sample_sd(const double *x, size_t n)
{
    double mean = bal_mean(x, n), squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - mean) * (x[i] - mean);
    return n > 1 ? sqrt(squares / (double)(n - 1)) : UNDEFINED;
}

double bal_mean_stderr(const double *x, size_t n)
{
    return n > 1 ? bal_sample_sd(x, n) / sqrt((double)n) : UNDEFINED;
}

double bal_share_stderr(double p, size_t n)
{
    return n > 1 ? sqrt(p * (1 - p) / (double)(n - 1)) : UNDEFINED;
}

void bal_wilson(size_t k, size_t n, double z, double *low, double *high)
{
    *low = *high = UNDEFINED;
    if (n == 0)
        return;
    double count = (double)n, p = (double)k / count, z2 = z * z;
    double center = (p + z2 / (2 * count)) / (1 + z2 / count);
    double half = z / (1 + z2 / count) * sqrt(p * (1 - p) / count + z2 / (4 * count * count));
    *low = k == 0 ? 0 : center - half;
    *high = k == n ? 1 : center + half;
}

/* 1.959963984540054 + 0.841621233572914: the quantiles of 97.5 % and of 80 %. */
static const double k_power = 2.801585218112968;

double bal_detectable_difference(double p, size_t n)
{
    return n > 0 ? k_power * sqrt(2 * p * (1 - p) / (double)n) : UNDEFINED;
}

double bal_detectable_effect(double stderr_difference)
{
    return k_power * stderr_difference;
}

double bal_weighted_mean(const double *x, const double *sizes, size_t m)
{
    double sum = 0, total = 0;
    for (size_t i = 0; i < m; i++) {
        sum += sizes[i] * x[i];
        total += sizes[i];
    }
    return total > 0 ? sum / total : UNDEFINED;
}

double bal_pooled_stderr(const double *stderrs, const double *sizes, size_t m)
{
    double sum = 0, total = 0;
    for (size_t i = 0; i < m; i++) {
        sum += (sizes[i] - 1) * stderrs[i] * stderrs[i] * sizes[i];
        total += sizes[i];
    }
    return total > (double)m ? sqrt(sum / (total - (double)m) / total) : UNDEFINED;
}

double bal_clustered_stderr(const double *x, const uint32_t *cluster, size_t n, double *sums, size_t n_clusters)
{
    double mean = bal_mean(x, n), squares = 0, count = (double)n_clusters;
    if (sums == NULL || n_clusters < 2 || n < 2)
        return UNDEFINED;
    for (size_t c = 0; c < n_clusters; c++)
        sums[c] = 0;
    for (size_t i = 0; i < n; i++)
        sums[cluster[i]] += x[i] - mean;
    for (size_t c = 0; c < n_clusters; c++)
        squares += sums[c] * sums[c];
    return sqrt(count / (count - 1) * squares) / (double)n;
}

/* ln of the binomial probability of k in n at one half. */
static double log_half_binomial(uint64_t n, uint64_t k)
{
    int sign; /* lgamma() itself writes a global */
    return lgamma_r((double)n + 1, &sign) - lgamma_r((double)k + 1, &sign) - lgamma_r((double)(n - k) + 1, &sign) -
           (double)n * log(2);
}

static double tail(uint64_t b, uint64_t c, double *at)
{
    uint64_t n = b + c, k = b < c ? b : c;
    double sum = 0;
    for (uint64_t i = 0; i <= k; i++)
        sum += exp(log_half_binomial(n, i));
    *at = exp(log_half_binomial(n, k));
    return sum;
}

double bal_mcnemar_exact(uint64_t b, uint64_t c)
{
    double at, p = 2 * tail(b, c, &at);
    return b == c || p > 1 ? 1 : p;
}

double bal_mcnemar_mid(uint64_t b, uint64_t c)
{
    double at, p = 2 * tail(b, c, &at);
    return b + c == 0 ? 1 : b == c ? 1 - at : p - at;
}

double bal_mcnemar_chi2(uint64_t b, uint64_t c)
{
    double d = fabs((double)b - (double)c) - 1;
    return b + c > 0 ? d * d / (double)(b + c) : UNDEFINED;
}

double bal_chi2_tail(double x)
{
    return x > 0 ? erfc(sqrt(x / 2)) : x <= 0 ? 1 : UNDEFINED;
}

void bal_holm(const double *p, double *adjusted, size_t *order, size_t n)
{
    size_t m = 0;
    double so_far = 0;
    for (size_t i = 0; i < n; i++) { /* insertion: a handful of tests */
        size_t j = m;
        adjusted[i] = UNDEFINED;
        if (isnan(p[i]))
            continue;
        for (; j > 0 && p[order[j - 1]] > p[i]; j--)
            order[j] = order[j - 1];
        order[j] = i;
        m++;
    }
    for (size_t i = 0; i < m; i++) {
        double scaled = p[order[i]] * (double)(m - i);
        so_far = scaled > so_far ? scaled : so_far;
        adjusted[order[i]] = so_far < 1 ? so_far : 1;
    }
}

double bal_paired_stderr(const double *x, const double *y, size_t n)
{
    double mean = bal_mean(x, n) - bal_mean(y, n), squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - y[i] - mean) * (x[i] - y[i] - mean);
    return n > 1 ? sqrt(squares / (double)(n - 1) / (double)n) : UNDEFINED;
}

double bal_unpaired_stderr(const double *x, size_t nx, const double *y, size_t ny)
{
    double a = bal_mean_stderr(x, nx), b = bal_mean_stderr(y, ny);
    return sqrt(a * a + b * b);
}
