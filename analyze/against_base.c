/* SPDX-License-Identifier: Apache-2.0 */
#include "analyze/against_base.h"

#include "analyze/directions.h"
#include "lib/base/mem.h"
#include "lib/tensor/gemm.h"

#include <math.h>

enum { SEED = 1 };

const char *const base_names[BASE_N_NAMED] = {"base_frobenius",         "base_in_update_directions",
                                              "base_in_own_directions", "base_in_random_directions",
                                              "amplification",          "intruder_count",
                                              "intruder_count_right",   "intruder_energy_share",
                                              "intruder_base_energy",   "update_over_base"};

const char *const base_conventions[BASE_N_NAMED] = {
    "||W0||_F",
    "||U_k^T W0 V_k||_F, U, V of the update, k its numerical rank",
    "sqrt(sum of W0's k largest s^2)",
    "||U_k^T W0 V_k||_F in random orthonormal directions",
    "||update||_F / base_in_update_directions (LoRA, 7.3)",
    "u_i, i <= k, of W0 + update with max_j |u_i . u0_j| < eps (arXiv 2410.21228)",
    "the same for the right singular vectors",
    "sum s_i^2 over the intruders / over the k leading",
    "mean over i <= k of ||U0[:, :k]^T u_i||^2",
    "||update||_F / ||W0||_F"};

/* W0 as doubles, row by row. */
static bal_status dense(const bal_view *w, double *out)
{
    real_t *row = bal_alloc(w->cols, sizeof *row);
    if (row == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < w->rows; i++) {
        bal_view_dequant(w, i, 1, row, w->cols);
        for (size_t j = 0; j < w->cols; j++)
            out[i * w->cols + j] = (double)row[j];
    }
    bal_free(row);
    return BAL_OK;
}

static bal_status intruders(size_t m, size_t n, double *W, size_t r, const double *s, const double *U, const double *V,
                            size_t k, double eps, double *values)
{
    base_directions base = {0};
    tuned_directions t = {0};
    double *Us = bal_alloc(m * r, sizeof *Us);
    bal_status status = Us == NULL ? BAL_ENOMEM : base_directions_init(&base, m, n, W);
    if (status != BAL_OK)
        goto out;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < r; j++)
            Us[i * r + j] = s[j] > 0 ? U[i * r + j] * s[j] : 0; /* vectors of a zero value may be anything */
    bal_dgemm(false, true, m, n, r, 1, Us, r, V, r, 1, W, n);
    BAL_TRY(tuned_directions_init(&t, &base, W, k, k));
    values[0] = (double)intruder_count(&t, k, eps, true);
    values[1] = (double)intruder_count(&t, k, eps, false);
    values[2] = intruder_energy_share(&t, k, eps);
    values[3] = 0;
    for (size_t i = 0; i < t.count; i++)
        values[3] += t.base_energy[i] / (double)t.count;
out:
    bal_free(Us);
    base_directions_dispose(&base);
    tuned_directions_dispose(&t);
    return status;
}

bal_status base_named_values(const bal_view *w, size_t r, const double *s, const double *U, const double *V,
                             size_t numerical_rank, size_t k, double eps, double values[BASE_N_NAMED])
{
    size_t m = w->rows, n = w->cols;
    amplification_stats a = {0};
    bal_status status;
    double *W = bal_alloc(m * n, sizeof *W);
    for (size_t i = 0; i < BASE_N_NAMED; i++)
        values[i] = (double)NAN;
    BAL_TRY(W == NULL ? BAL_ENOMEM : dense(w, W));
    BAL_TRY(amplification_of(m, n, W, r, s, U, V, numerical_rank > 0 ? numerical_rank : 1, SEED, &a));
    values[0] = a.base;
    if (numerical_rank > 0) {
        values[1] = a.in_update;
        values[2] = a.in_own;
        values[3] = a.in_random;
        values[4] = a.factor;
    }
    values[9] = a.base > 0 ? a.update / a.base : (double)NAN;
    if (k > 0)
        BAL_TRY(intruders(m, n, W, r, s, U, V, k, eps, values + 5));
out:
    bal_free(W);
    return status;
}
