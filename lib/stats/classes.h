/* Figures of a classifier, as scikit-learn computes them.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_STATS_CLASSES_H
#define BAL_STATS_CLASSES_H

#include <stddef.h>
#include <stdint.h>

/* Most classes of bal_class_mcc(). */
enum { BAL_MAX_CLASSES = 64 };

typedef struct bal_class_item {
    int gold, predicted;
} bal_class_item;

/* Both are bal_statistic functions (items: bal_class_item[]); index NULL: the items 0..n-1.
 * F1 of class 1: 2 TP / (2 TP + FP + FN), 0 when nothing is 1. */
double bal_class_f1(const void *items, const uint32_t *index, size_t n);
/* Matthews correlation of any number of classes (Gorodkin 2004), 0 where its denominator is; NaN for a class outside
 * 0 .. BAL_MAX_CLASSES - 1. */
double bal_class_mcc(const void *items, const uint32_t *index, size_t n);

#endif
