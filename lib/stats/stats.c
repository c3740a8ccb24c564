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

double bal_detectable_difference(double p, size_t n)
{
    return n > 0 ? 2.8015852 * sqrt(2 * p * (1 - p) / (double)n) : UNDEFINED;
}

/* ln of the binomial probability of k in n at one half. */
static double log_half_binomial(uint64_t n, uint64_t k)
{
    return lgamma((double)n + 1) - lgamma((double)k + 1) - lgamma((double)(n - k) + 1) - (double)n * log(2);
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
