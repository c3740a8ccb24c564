/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/stats/classes.h"

#include <math.h>

static const bal_class_item *at(const void *items, const uint32_t *index, size_t i)
{
    const bal_class_item *list = items;
    return &list[index == NULL ? i : index[i]];
}

double bal_class_f1(const void *items, const uint32_t *index, size_t n)
{
    size_t both = 0, either = 0; /* TP, and 2 TP + FP + FN */
    for (size_t i = 0; i < n; i++) {
        const bal_class_item *x = at(items, index, i);
        both += x->gold == 1 && x->predicted == 1;
        either += (size_t)(x->gold == 1) + (x->predicted == 1);
    }
    return either > 0 ? 2 * (double)both / (double)either : 0;
}

double bal_class_mcc(const void *items, const uint32_t *index, size_t n)
{
    double gold[BAL_MAX_CLASSES] = {0}, predicted[BAL_MAX_CLASSES] = {0}, right = 0, count = (double)n;
    double both = 0, golds = 0, predictions = 0;
    for (size_t i = 0; i < n; i++) {
        const bal_class_item *x = at(items, index, i);
        if (x->gold < 0 || x->gold >= BAL_MAX_CLASSES || x->predicted < 0 || x->predicted >= BAL_MAX_CLASSES)
            return (double)NAN;
        gold[x->gold] += 1;
        predicted[x->predicted] += 1;
        right += x->gold == x->predicted;
    }
    for (size_t k = 0; k < BAL_MAX_CLASSES; k++) {
        both += gold[k] * predicted[k];
        golds += gold[k] * gold[k];
        predictions += predicted[k] * predicted[k];
    }
    double denominator = sqrt((count * count - golds) * (count * count - predictions));
    return denominator > 0 ? (right * count - both) / denominator : 0;
}
