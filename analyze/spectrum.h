/* Statistics of a list of singular values, and the singular values of an adapter's true update.
 * Definitions: Roy, Vetterli 2007 (effective rank); Chen et al. 2024, arXiv 2309.17002 (SVE, LSVR); Garrido et al. 2023
 * (RankMe).  Logarithms are natural.  Undefined is NaN, which becomes null; never 0.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ANALYZE_SPECTRUM_H
#define BAL_ANALYZE_SPECTRUM_H

#include "lib/base/status.h"

#include <stddef.h>

/* p_i = s_i / sum s, e_i = s_i^2 / sum s^2. */
typedef struct spectrum_stats {
    const char *status; /* "ok", "rank_deficient", "zero" */
    double frobenius, nuclear, spectral;
    double rank_tolerance; /* s_1 max(m, n) eps, numpy's matrix_rank */
    double numerical_rank;
    double stable_rank;                           /* sum s^2 / s_1^2 */
    double sve, sve_normalized;                   /* -sum p ln p; divided by ln min(m, n) */
    double effective_rank;                        /* exp(sve) */
    double lsvr;                                  /* -ln(s_1 / sum s): rises when the first direction weakens */
    double energy_entropy, effective_rank_energy; /* -sum e ln e, its exp */
    double participation_ratio, participation_ratio_sigma; /* (sum s^2)^2 / sum s^4; (sum s)^2 / sum s^2 */
    double rankme, condition_number;
    double rank90, rank99; /* smallest k with cumulative energy of at least 0.90, 0.99 */
} spectrum_stats;

/* s[0..k) descending, of an m x n matrix.  BAL_ENUMERIC if one is not finite, BAL_EINVAL if k is 0 or the order is
 * wrong. */
bal_status spectrum_statistics(size_t m, size_t n, const double *s, size_t k, spectrum_stats *out);

/* (sum of the k largest) / sum of all; / Frobenius norm; energy share. */
double spectrum_top_share(const double *s, size_t n, size_t k);
double spectrum_top_over_frobenius(const double *s, size_t n, size_t k);
double spectrum_top_energy(const double *s, size_t n, size_t k);

/* Singular values (r of them, descending) of scale * B A, with A (r, in) and B (out, r), without forming the product:
 * B = Qb Rb, A^T = Qa Ra, SVD of scale Rb Ra^T.  U (out, r) and V (in, r) are the singular vectors, or both NULL.
 * For a difference s(B A - B0 A0) stack the factors: [A; A0], [B, -B0].  Where r > min(in, out) the product is formed, and
 * the values (and columns of U and V) after the first min(in, out) are 0. */
bal_status spectrum_of_update(size_t out_rows, size_t in_cols, size_t r, const double *A, const double *B, double scale,
                              double *s, double *U, double *V);

/* The statistics by name, in a fixed order, for storing and printing. */
enum { SPECTRUM_N_NAMED = 18 };
extern const char *const spectrum_names[SPECTRUM_N_NAMED];
extern const char *const spectrum_conventions[SPECTRUM_N_NAMED];
void spectrum_named_values(const spectrum_stats *s, double values[SPECTRUM_N_NAMED]);

#endif
