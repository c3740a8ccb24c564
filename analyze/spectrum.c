/* SPDX-License-Identifier: Apache-2.0 */
#include "analyze/spectrum.h"

#include "lib/base/mem.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/linalg.h"

#include <float.h>
#include <math.h>

/* -sum p ln p for p_i = w_i / sum w, w descending: summed from the smallest; the largest p is 1 minus the others, so
 * that entropies near 0 keep their digits. */
static double entropy(const double *w, size_t n, double sum)
{
    double h = 0, others = 0;
    for (size_t i = n; i-- > 1;) {
        double p = w[i] / sum;
        others += p;
        if (p > 0)
            h -= p * log(p);
    }
    double first = w[0] / sum;
    return h - (first > 0.5 ? first * log1p(-others) : first > 0 ? first * log(first) : 0);
}

static double sum_from_smallest(const double *w, size_t n)
{
    double sum = 0;
    for (size_t i = n; i-- > 0;)
        sum += w[i];
    return sum;
}

static double rank_for_energy(const double *e, size_t n, double share)
{
    double total = sum_from_smallest(e, n), sum = 0;
    for (size_t k = 0; k < n; k++) {
        sum += e[k];
        if (sum >= share * total)
            return (double)(k + 1);
    }
    return (double)n;
}

/* Everything that is a ratio is taken on s / s_1, so that 1e160 and 1e-170 neither overflow nor vanish. */
static void ratios(const double *t, const double *e, size_t n, size_t smaller, spectrum_stats *o)
{
    double sum = sum_from_smallest(t, n), energy = sum_from_smallest(e, n), fourth = 0, rankme = 0;
    for (size_t i = n; i-- > 0;) {
        double q = t[i] / sum + 1e-7;
        fourth += e[i] * e[i];
        rankme -= q * log(q);
    }
    double rest = sum_from_smallest(t + 1, n - 1) / sum;
    o->stable_rank = energy;
    o->sve = entropy(t, n, sum);
    o->sve_normalized = smaller > 1 ? o->sve / log((double)smaller) : (double)NAN;
    o->effective_rank = exp(o->sve);
    o->lsvr = rest < 0.5 ? -log1p(-rest) : log(sum);
    o->energy_entropy = entropy(e, n, energy);
    o->effective_rank_energy = exp(o->energy_entropy);
    o->participation_ratio = energy * energy / fourth;
    o->participation_ratio_sigma = sum * sum / energy;
    o->rankme = exp(rankme);
    o->rank90 = rank_for_energy(e, n, 0.90);
    o->rank99 = rank_for_energy(e, n, 0.99);
}

bal_status spectrum_statistics(size_t m, size_t n, const double *s, size_t k, spectrum_stats *out)
{
    const double undefined = (double)NAN;
    size_t larger = m > n ? m : n, smaller = m < n ? m : n;
    *out = (spectrum_stats){.status = "ok"};
    if (k == 0)
        return bal_fail(BAL_EINVAL, "a spectrum of no values has no statistics");
    for (size_t i = 0; i < k; i++) {
        if (!isfinite(s[i]))
            return bal_fail(BAL_ENUMERIC, "singular value %zu is %g", i, s[i]);
        if (s[i] < 0 || (i > 0 && s[i] > s[i - 1]))
            return bal_fail(BAL_EINVAL, "singular values must not be negative and must descend; number %zu is %g", i,
                            s[i]);
    }
    out->spectral = s[0];
    out->nuclear = sum_from_smallest(s, k);
    out->rank_tolerance = s[0] * (double)larger * DBL_EPSILON;
    for (size_t i = 0; i < k; i++)
        out->numerical_rank += s[i] > out->rank_tolerance ? 1 : 0;
    if (!(s[0] > 0)) {
        out->status = "zero";
        out->stable_rank = out->sve = out->sve_normalized = out->effective_rank = out->lsvr = undefined;
        out->energy_entropy = out->effective_rank_energy = out->participation_ratio = undefined;
        out->participation_ratio_sigma = out->rankme = out->condition_number = out->rank90 = out->rank99 = undefined;
        return BAL_OK;
    }
    double *t = bal_alloc(2 * k, sizeof *t);
    if (t == NULL)
        return BAL_ENOMEM;
    double *e = t + k;
    for (size_t i = 0; i < k; i++) {
        t[i] = s[i] / s[0];
        e[i] = t[i] * t[i];
    }
    ratios(t, e, k, smaller, out);
    out->frobenius = s[0] * sqrt(out->stable_rank);
    if (out->numerical_rank < (double)smaller)
        out->status = "rank_deficient";
    bool singular = k < smaller || !(s[k - 1] > out->rank_tolerance); /* below the tolerance a value is rounding */
    out->condition_number = singular ? (double)INFINITY : s[0] / s[k - 1];
    bal_free(t);
    return BAL_OK;
}

static double top_sum(const double *s, size_t n, size_t k)
{
    return sum_from_smallest(s, k < n ? k : n);
}

double spectrum_top_share(const double *s, size_t n, size_t k)
{
    double all = sum_from_smallest(s, n);
    return all > 0 ? top_sum(s, n, k) / all : (double)NAN;
}

static double energy_of(const double *s, size_t n, size_t k)
{
    double sum = 0;
    for (size_t i = k < n ? k : n; i-- > 0;)
        sum += (s[i] / s[0]) * (s[i] / s[0]);
    return sum;
}

double spectrum_top_over_frobenius(const double *s, size_t n, size_t k)
{
    return n > 0 && s[0] > 0 ? top_sum(s, n, k) / s[0] / sqrt(energy_of(s, n, n)) : (double)NAN;
}

double spectrum_top_energy(const double *s, size_t n, size_t k)
{
    return n > 0 && s[0] > 0 ? energy_of(s, n, k) / energy_of(s, n, n) : (double)NAN;
}

/* The same for a rank above the smaller side: by the SVD of the product. */
static bal_status spectrum_of_product(size_t m, size_t n, size_t r, const double *A, const double *B, double scale,
                                      double *s, double *U, double *V)
{
    size_t p = m < n ? m : n;
    double *W = bal_alloc(m * n, sizeof *W), *Uw = bal_alloc(m * p, sizeof *Uw), *Vt = bal_alloc(p * n, sizeof *Vt);
    bal_status status = W == NULL || Uw == NULL || Vt == NULL ? BAL_ENOMEM : BAL_OK;
    if (status != BAL_OK)
        goto out;
    bal_dgemm(false, false, m, n, r, scale, B, r, A, n, 0, W, n);
    BAL_TRY(bal_svd(m, n, W, Uw, s, Vt));
    for (size_t j = p; j < r; j++)
        s[j] = 0;
    for (size_t i = 0; U != NULL && i < m; i++)
        for (size_t j = 0; j < r; j++)
            U[i * r + j] = j < p ? Uw[i * p + j] : 0;
    for (size_t i = 0; V != NULL && i < n; i++)
        for (size_t j = 0; j < r; j++)
            V[i * r + j] = j < p ? Vt[j * n + i] : 0;
out:
    bal_free(W);
    bal_free(Uw);
    bal_free(Vt);
    return status;
}

bal_status spectrum_of_update(size_t out_rows, size_t in_cols, size_t r, const double *A, const double *B, double scale,
                              double *s, double *U, double *V)
{
    bal_status status = BAL_OK;
    bool vectors = U != NULL && V != NULL;
    if (r > in_cols || r > out_rows)
        return spectrum_of_product(out_rows, in_cols, r, A, B, scale, s, vectors ? U : NULL, vectors ? V : NULL);
    double *At = bal_alloc(in_cols * r, sizeof *At), *Ra = bal_alloc(r * r, sizeof *Ra),
           *Rb = bal_alloc(r * r, sizeof *Rb);
    double *core = bal_alloc(r * r, sizeof *core), *X = bal_alloc(r * r, sizeof *X), *Yt = bal_alloc(r * r, sizeof *Yt);
    double *Qa = vectors ? bal_alloc(in_cols * r, sizeof *Qa) : NULL,
           *Qb = vectors ? bal_alloc(out_rows * r, sizeof *Qb) : NULL;
    if (At == NULL || Ra == NULL || Rb == NULL || core == NULL || X == NULL || Yt == NULL ||
        (vectors && (Qa == NULL || Qb == NULL)))
        BAL_TRY(BAL_ENOMEM);
    if (r == 0)
        BAL_TRY(bal_fail(BAL_EINVAL, "rank %zu does not fit a %zu x %zu matrix", r, out_rows, in_cols));
    for (size_t i = 0; i < r; i++)
        for (size_t j = 0; j < in_cols; j++)
            At[j * r + i] = A[i * in_cols + j];
    BAL_TRY(bal_qr(in_cols, r, At, Qa, Ra));
    BAL_TRY(bal_qr(out_rows, r, B, Qb, Rb));
    bal_dgemm(false, true, r, r, r, scale, Rb, r, Ra, r, 0, core, r);
    BAL_TRY(bal_svd_graded(r, core, X, s, Yt));
    if (vectors) {
        bal_dgemm(false, false, out_rows, r, r, 1, Qb, r, X, r, 0, U, r);
        bal_dgemm(false, true, in_cols, r, r, 1, Qa, r, Yt, r, 0, V, r);
    }
out:
    bal_free(At);
    bal_free(Ra);
    bal_free(Rb);
    bal_free(core);
    bal_free(X);
    bal_free(Yt);
    bal_free(Qa);
    bal_free(Qb);
    return status;
}

const char *const spectrum_names[SPECTRUM_N_NAMED] = {"frobenius",
                                                      "nuclear",
                                                      "spectral",
                                                      "numerical_rank",
                                                      "stable_rank",
                                                      "sve",
                                                      "sve_normalized",
                                                      "effective_rank",
                                                      "lsvr",
                                                      "energy_entropy",
                                                      "effective_rank_energy",
                                                      "participation_ratio",
                                                      "participation_ratio_sigma",
                                                      "rankme",
                                                      "condition_number",
                                                      "rank90",
                                                      "rank99",
                                                      "rank_tolerance"};

const char *const spectrum_conventions[SPECTRUM_N_NAMED] = {"sqrt(sum s^2)",
                                                            "sum s",
                                                            "s_1",
                                                            "count of s_i > s_1 max(m,n) eps",
                                                            "sum s^2 / s_1^2",
                                                            "-sum p ln p, p = s/sum s",
                                                            "sve / ln min(m,n)",
                                                            "exp(sve) (Roy, Vetterli 2007)",
                                                            "-ln(s_1/sum s): rises when the first direction weakens",
                                                            "-sum e ln e, e = s^2/sum s^2",
                                                            "exp(energy entropy)",
                                                            "(sum s^2)^2/sum s^4",
                                                            "(sum s)^2/sum s^2",
                                                            "exp(-sum q ln q), q = p + 1e-7",
                                                            "s_1/s_min, inf below the rank tolerance",
                                                            "smallest k with energy >= 0.90",
                                                            "smallest k with energy >= 0.99",
                                                            "s_1 max(m,n) eps"};

void spectrum_named_values(const spectrum_stats *s, double v[SPECTRUM_N_NAMED])
{
    const double all[SPECTRUM_N_NAMED] = {s->frobenius,
                                          s->nuclear,
                                          s->spectral,
                                          s->numerical_rank,
                                          s->stable_rank,
                                          s->sve,
                                          s->sve_normalized,
                                          s->effective_rank,
                                          s->lsvr,
                                          s->energy_entropy,
                                          s->effective_rank_energy,
                                          s->participation_ratio,
                                          s->participation_ratio_sigma,
                                          s->rankme,
                                          s->condition_number,
                                          s->rank90,
                                          s->rank99,
                                          s->rank_tolerance};
    for (size_t i = 0; i < SPECTRUM_N_NAMED; i++)
        v[i] = all[i];
}
