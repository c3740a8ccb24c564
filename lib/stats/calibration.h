/* How well probabilities of being right agree with being right, and quality figures of class predictions.
 * Undefined is NaN.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_STATS_CALIBRATION_H
#define BAL_STATS_CALIBRATION_H

#include "lib/base/status.h"
#include "lib/stats/classes.h"

#include <stdbool.h>
#include <stddef.h>

/* Expected calibration error over bins of equal width, (lo, hi] (Guo et al. 2017): sum_b n_b/n |mean correct - mean
 * confidence|.  correct is 0 or 1. */
double bal_ece(const double *confidence, const double *correct, size_t n, size_t bins);
/* Over bins of equal mass, whose edges lie half-way between neighbouring sorted values (HELM's ece_10_bin).  order: n
 * entries of scratch. */
double bal_ece_equal_mass(const double *confidence, const double *correct, size_t n, size_t bins, size_t *order);
/* HELM's selective accuracy: the mean over k of the accuracy of the k most confident items, and the accuracy of the
 * most confident share (at least one item). */
double bal_selective_area(const double *confidence, const double *correct, size_t n, size_t *order);
double bal_selective_at(const double *confidence, const double *correct, size_t n, double share, size_t *order);
/* mean (confidence - correct)^2. */
double bal_brier_binary(const double *confidence, const double *correct, size_t n);
/* Softmax of log-likelihoods, in place; and lm-eval's brier score of one item, sum_c (p_c - [c = gold])^2. */
void bal_softmax(double *x, size_t n);
double bal_brier(const double *p, size_t n, int gold);

/* F1 of class c, 0 where it is undefined; mean over the classes that occur in gold or predictions (macro), and weighted
 * by their share in gold (scikit-learn's averages); recall of a class (NaN: not in gold). */
double bal_class_f1_of(const bal_class_item *items, size_t n, int c);
double bal_class_f1_macro(const bal_class_item *items, size_t n);
double bal_class_f1_weighted(const bal_class_item *items, size_t n);
double bal_class_recall(const bal_class_item *items, size_t n, int c);

/* Pearson's and Spearman's correlation (average ranks); NaN for a constant vector.  ranks: 2 n entries of scratch. */
double bal_pearson(const double *x, const double *y, size_t n);
double bal_spearman(const double *x, const double *y, size_t n, double *ranks);

#endif
