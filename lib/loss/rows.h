/* Loops over one row of logits, compiled per instruction set.  Sums are in double.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_LOSS_ROWS_H
#define BAL_LOSS_ROWS_H

#include "lib/tensor/isa.h"
#include "lib/tensor/real.h"

#include <stddef.h>

typedef struct bal_row_ops {
    real_t (*max)(size_t n, const real_t *z);
    /* *sum_t = sum_j e_j, *sum_1 = sum_j exp(z_j - m), e_j = exp((z_j - m) / T); for T = 1 both are the same.  */
    void (*exp_sums)(size_t n, const real_t *z, real_t m, double T, double *sum_1, double *sum_t);
    /* zt_j becomes e_j = exp((zt_j - m) / T); sums[0] = sum e_j, [1] = sum e_j (zt_j - z_j), [2] = sum e_j (zt_j - m). */
    void (*teacher)(size_t n, const real_t *z, real_t *zt, real_t m, double T, double sums[3]);
    /* sum_j exp(z_j - m) (z_j - m) */
    double (*exp_moment)(size_t n, const real_t *z, real_t m);
    /* g_j = a exp((z_j - m) / T) */
    void (*put_exp)(size_t n, const real_t *z, real_t m, double T, double a, real_t *g);
    /* g_j += a exp((z_j - m) / T) - b e_j */
    void (*add_kl)(size_t n, const real_t *z, real_t m, double T, double a, double b, const real_t *e, real_t *g);
    /* g_j += a p (ln p + H), p = exp(z_j - m) / sum, ln p = z_j - m - log_sum */
    void (*add_entropy)(size_t n, const real_t *z, real_t m, double log_sum, double H, double a, real_t *g);
    /* sums[0] = z z, [1] = zt zt, [2] = z zt */
    void (*products)(size_t n, const real_t *z, const real_t *zt, double sums[3]);
    /* sum_j (a z_j - b zt_j)^2 */
    double (*distance)(size_t n, const real_t *z, double a, const real_t *zt, double b);
    /* g_j += a z_j + b zt_j */
    void (*add_pair)(size_t n, const real_t *z, double a, const real_t *zt, double b, real_t *g);
    /* z_j = g_j, times the derivative 1 - (z_j / cap)^2 of the soft cap when cap > 0 */
    void (*finish)(size_t n, real_t *z, const real_t *g, double cap);
} bal_row_ops;

BAL_ISA_DECLARE(bal_row_ops, bal_row_ops);

#endif
