/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/stats/calibration.h"

#include "lib/stats/stats.h"

#include <math.h>

/* Indices by falling confidence, equal ones in their order (heap sort on (value, index)). */
static bool before(const double *x, size_t a, size_t b)
{
    return x[a] > x[b] || (x[a] == x[b] && a < b);
}

static void sift(const double *x, size_t *order, size_t root, size_t n)
{
    for (size_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && before(x, order[child], order[child + 1]))
            child++;
        if (!before(x, order[root], order[child]))
            return;
        size_t swap = order[root];
        order[root] = order[child];
        order[child] = swap;
    }
}

static void sort_falling(const double *x, size_t *order, size_t n)
{
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n / 2; i-- > 0;)
        sift(x, order, i, n);
    for (size_t end = n; end-- > 1;) {
        size_t swap = order[0];
        order[0] = order[end];
        order[end] = swap;
        sift(x, order, 0, end);
    }
}

static double gap(double confidence, double correct, double n)
{
    return fabs(confidence - correct) / n;
}

double bal_ece(const double *confidence, const double *correct, size_t n, size_t bins)
{
    double total = 0;
    if (n == 0 || bins == 0)
        return (double)NAN;
    for (size_t b = 0; b < bins; b++) {
        double sum_p = 0, sum_y = 0, low = (double)b / (double)bins, high = (double)(b + 1) / (double)bins;
        for (size_t i = 0; i < n; i++)
            if ((confidence[i] > low || b == 0) && confidence[i] <= high) {
                sum_p += confidence[i];
                sum_y += correct[i];
            }
        total += gap(sum_p, sum_y, (double)n);
    }
    return total;
}

double bal_ece_equal_mass(const double *confidence, const double *correct, size_t n, size_t bins, size_t *order)
{
    double total = 0;
    if (n == 0 || bins == 0)
        return (double)NAN;
    sort_falling(confidence, order, n); /* the r-th smallest is order[n - 1 - r] */
    size_t done = 0, split = 0;
    for (size_t b = 0; b < bins; b++) {
        split += n / bins + (b < n % bins ? 1 : 0); /* parts as numpy.array_split makes them */
        double edge = b + 1 == bins || split == n || split == 0
                          ? (double)INFINITY
                          : 0.5 * (confidence[order[n - split]] + confidence[order[n - 1 - split]]);
        double sum_p = 0, sum_y = 0;
        while (done < n && confidence[order[n - 1 - done]] <= edge) {
            sum_p += confidence[order[n - 1 - done]];
            sum_y += correct[order[n - 1 - done]];
            done++;
        }
        total += gap(sum_p, sum_y, (double)n);
    }
    return total;
}

double bal_selective_area(const double *confidence, const double *correct, size_t n, size_t *order)
{
    double sum = 0, right = 0;
    sort_falling(confidence, order, n);
    for (size_t k = 0; k < n; k++) {
        right += correct[order[k]];
        sum += right / (double)(k + 1);
    }
    return n == 0 ? (double)NAN : sum / (double)n;
}

double bal_selective_at(const double *confidence, const double *correct, size_t n, double share, size_t *order)
{
    double right = 0;
    size_t take = (size_t)(share * (double)n);
    if (n == 0)
        return (double)NAN;
    if (take == 0)
        take = 1;
    sort_falling(confidence, order, n);
    for (size_t k = 0; k < take && k < n; k++)
        right += correct[order[k]];
    return right / (double)(take < n ? take : n);
}

double bal_brier_binary(const double *confidence, const double *correct, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (confidence[i] - correct[i]) * (confidence[i] - correct[i]);
    return n == 0 ? (double)NAN : sum / (double)n;
}

void bal_softmax(double *x, size_t n)
{
    double most = -(double)INFINITY, sum = 0;
    for (size_t i = 0; i < n; i++)
        most = x[i] > most ? x[i] : most;
    for (size_t i = 0; i < n; i++) {
        x[i] = exp(x[i] - most);
        sum += x[i];
    }
    for (size_t i = 0; i < n; i++)
        x[i] /= sum;
}

double bal_brier(const double *p, size_t n, int gold)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = p[i] - ((int)i == gold ? 1 : 0);
        sum += d * d;
    }
    return sum;
}

typedef struct counts {
    double both, gold, predicted;
} counts;

static counts count(const bal_class_item *items, size_t n, int c)
{
    counts k = {0};
    for (size_t i = 0; i < n; i++) {
        k.both += items[i].gold == c && items[i].predicted == c;
        k.gold += items[i].gold == c;
        k.predicted += items[i].predicted == c;
    }
    return k;
}

double bal_class_f1_of(const bal_class_item *items, size_t n, int c)
{
    counts k = count(items, n, c);
    return k.gold + k.predicted == 0 ? 0 : 2 * k.both / (k.gold + k.predicted);
}

double bal_class_recall(const bal_class_item *items, size_t n, int c)
{
    counts k = count(items, n, c);
    return k.gold == 0 ? (double)NAN : k.both / k.gold;
}

double bal_class_f1_macro(const bal_class_item *items, size_t n)
{
    double sum = 0, classes = 0;
    for (int c = 0; c < BAL_MAX_CLASSES; c++) {
        counts k = count(items, n, c);
        if (k.gold + k.predicted == 0)
            continue;
        sum += 2 * k.both / (k.gold + k.predicted);
        classes++;
    }
    return classes == 0 ? (double)NAN : sum / classes;
}

double bal_class_f1_weighted(const bal_class_item *items, size_t n)
{
    double sum = 0;
    for (int c = 0; c < BAL_MAX_CLASSES; c++) {
        counts k = count(items, n, c);
        if (k.gold > 0)
            sum += k.gold * 2 * k.both / (k.gold + k.predicted);
    }
    return n == 0 ? (double)NAN : sum / (double)n;
}

double bal_pearson(const double *x, const double *y, size_t n)
{
    double mx = bal_mean(x, n), my = bal_mean(y, n), xy = 0, xx = 0, yy = 0;
    for (size_t i = 0; i < n; i++) {
        xy += (x[i] - mx) * (y[i] - my);
        xx += (x[i] - mx) * (x[i] - mx);
        yy += (y[i] - my) * (y[i] - my);
    }
    if (n < 2 || xx == 0 || yy == 0)
        return (double)NAN;
    double r = xy / (sqrt(xx) * sqrt(yy));
    return r > 1 ? 1 : (r < -1 ? -1 : r);
}

static void average_ranks(const double *x, size_t n, double *ranks)
{
    for (size_t i = 0; i < n; i++) {
        size_t less = 0, equal = 0;
        for (size_t j = 0; j < n; j++) {
            less += x[j] < x[i];
            equal += x[j] == x[i];
        }
        ranks[i] = (double)less + ((double)equal + 1) / 2;
    }
}

double bal_spearman(const double *x, const double *y, size_t n, double *ranks)
{
    average_ranks(x, n, ranks);
    average_ranks(y, n, ranks + n);
    return bal_pearson(ranks, ranks + n, n);
}
