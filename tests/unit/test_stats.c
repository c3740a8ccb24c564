/* lib/stats against the vectors, closed forms, and numbers of scipy 1.17 and statsmodels 0.15.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/threads.h"
#include "lib/io/jsonl.h"
#include "lib/stats/bootstrap.h"
#include "lib/stats/classes.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <string.h>

enum { MAX_LIST = 256 };

static double get(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

static size_t list(const cJSON *o, const char *key, double *out)
{
    size_t n = 0;
    const cJSON *l = cJSON_GetObjectItemCaseSensitive(o, key);
    for (const cJSON *v = l != NULL ? l->child : NULL; v != NULL && n < MAX_LIST; v = v->next)
        out[n++] = v->valuedouble;
    return n;
}

static void check_mean(const cJSON *v)
{
    double x[MAX_LIST];
    size_t n = list(v, "values", x);
    if (n > 0) {
        CHECK_NEAR(bal_mean(x, n), get(v, "mean"), 1e-12);
        CHECK_NEAR(bal_mean_stderr(x, n), get(v, "stderr"), 1e-12);
        return;
    }
    double p = get(v, "n_correct") / get(v, "n");
    CHECK_NEAR(p, get(v, "mean"), 1e-12);
    CHECK_NEAR(bal_share_stderr(p, (size_t)get(v, "n")), get(v, "stderr"), 1e-12);
}

static void check_pooled(const cJSON *v)
{
    double x[MAX_LIST], sizes[MAX_LIST];
    size_t n = list(v, "stderrs", x);
    CHECK(n > 0 && n == list(v, "sizes", sizes));
    CHECK_NEAR(bal_pooled_stderr(x, sizes, n), get(v, "value"), 1e-15);
}

static void check_weighted(const cJSON *v)
{
    double x[MAX_LIST], sizes[MAX_LIST];
    size_t n = list(v, "metrics", x);
    CHECK(n > 0 && n == list(v, "sizes", sizes));
    CHECK_NEAR(bal_weighted_mean(x, sizes, n), get(v, "value"), 1e-14);
}

static size_t class_items(const cJSON *v, bal_class_item *items)
{
    const cJSON *pair = NULL;
    size_t n = 0;
    cJSON_ArrayForEach(pair, cJSON_GetObjectItemCaseSensitive(v, "items"))
    {
        if (n == MAX_LIST || cJSON_GetArraySize(pair) != 2)
            return 0;
        items[n].gold = cJSON_GetArrayItem(pair, 0)->valueint;
        items[n++].predicted = cJSON_GetArrayItem(pair, 1)->valueint;
    }
    return n;
}

static void check_bootstrap(const cJSON *v, bal_statistic *f)
{
    bal_class_item items[MAX_LIST];
    double value = 0;
    size_t n = class_items(v, items);
    CHECK(n > 0);
    CHECK_OK(bal_bootstrap_stderr(f, items, n, (size_t)get(v, "iters"), &value));
    CHECK_NEAR(value, get(v, "value"), 1e-12);
}

static void check_f1(const cJSON *v)
{
    check_bootstrap(v, bal_class_f1);
}

static void check_mcc(const cJSON *v)
{
    check_bootstrap(v, bal_class_mcc);
}

static void check_mcnemar(const cJSON *v)
{
    uint64_t b = (uint64_t)get(v, "b"), c = (uint64_t)get(v, "c");
    CHECK_NEAR(bal_mcnemar_exact(b, c), get(v, "exact_two_sided"), 1e-10);
    CHECK_NEAR(bal_mcnemar_mid(b, c), get(v, "mid_p"), 1e-10);
    CHECK_NEAR(bal_mcnemar_chi2(b, c), get(v, "chi2_cc"), 1e-10);
    CHECK_NEAR(bal_chi2_tail(bal_mcnemar_chi2(b, c)), get(v, "p_chi2_cc"), 1e-12);
    double d = (double)b - (double)c;
    CHECK_NEAR(bal_chi2_tail(d * d / (double)(b + c)), get(v, "p_chi2_uncorrected"), 1e-12);
}

static void check_wilson(const cJSON *v)
{
    double low, high;
    bal_wilson((size_t)get(v, "k"), (size_t)get(v, "n"), 1.959963984540054, &low, &high);
    CHECK_NEAR(low, get(v, "lo"), 1e-10);
    CHECK_NEAR(high, get(v, "hi"), 1e-10);
}

static void check_paired(const cJSON *v)
{
    double x[MAX_LIST], y[MAX_LIST];
    size_t n = list(v, "a", x);
    CHECK(n > 0 && n == list(v, "b", y));
    CHECK_NEAR(bal_mean(x, n) - bal_mean(y, n), get(v, "mean_diff"), 1e-12);
    CHECK_NEAR(bal_paired_stderr(x, y, n), get(v, "se_paired"), 1e-12);
    CHECK_NEAR(bal_unpaired_stderr(x, n, y, n), get(v, "se_unpaired"), 1e-12);
}

static void check_seeds(const cJSON *v)
{
    double x[MAX_LIST];
    size_t n = list(v, "values", x);
    CHECK_NEAR(bal_mean(x, n), get(v, "mean"), 1e-12);
    CHECK_NEAR(bal_sample_sd(x, n), get(v, "std_ddof1"), 1e-12);
}

TEST(vectors)
{
    static const struct {
        const char *kind;
        void (*check)(const cJSON *v);
    } kinds[] = {
        {"mean_stderr", check_mean},         {"pooled_sample_stderr", check_pooled},
        {"bootstrap_stderr_f1", check_f1},   {"weighted_group_mean", check_weighted},
        {"bootstrap_stderr_mcc", check_mcc}, {"mcnemar", check_mcnemar},
        {"wilson95", check_wilson},          {"paired_diff", check_paired},
        {"seeds_mean_std", check_seeds},
    };
    const char *path = test_shared("vectors/stats.jsonl");
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    size_t n = 0;
    if (path == NULL)
        SKIP("the shared vectors are not there");
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "kind"));
        size_t k = 0, n_kinds = sizeof kinds / sizeof kinds[0];
        while (k < n_kinds && (kind == NULL || strcmp(kinds[k].kind, kind) != 0))
            k++;
        if (CHECK_MSG(k < n_kinds, "%s: nothing checks the kind '%s'", path, kind == NULL ? "" : kind))
            kinds[k].check(line);
        n++;
        cJSON_Delete(line);
    }
    CHECK(n > 0);
    bal_lines_close(lines);
}

TEST(by_hand)
{
    double low, high;
    CHECK_NEAR(bal_share_stderr(0.5, 5), 0.25, 1e-15);
    bal_wilson(0, 0, 1.96, &low, &high);
    CHECK(isnan(low) && isnan(high));
    CHECK_NEAR(bal_mcnemar_exact(3, 3), 1, 0);
    CHECK(isnan(bal_mean_stderr(&low, 1)));
    CHECK(isnan(bal_chi2_tail((double)NAN)));
    CHECK_NEAR(bal_detectable_difference(0.5, 164), 0.154691666, 1e-8);
    CHECK_NEAR(bal_detectable_effect(1), 2.801585218112968, 1e-15);
    CHECK(isnan(bal_pooled_stderr(&(double){0.1}, &(double){1}, 1)));
}

/* statsmodels: multipletests(p, method="holm"). */
TEST(holm)
{
    static const double p[] = {0.01, 0.04, 0.03, 0.005, 0.8};
    static const double want[] = {0.04, 0.09, 0.09, 0.025, 0.8};
    const double with_nan[] = {0.01, (double)NAN, 0.03};
    double got[5];
    size_t order[5];
    bal_holm(p, got, order, 5);
    for (int i = 0; i < 5; i++)
        CHECK_NEAR(got[i], want[i], 1e-12);
    bal_holm(with_nan, got, order, 3);
    CHECK_NEAR(got[0], 0.02, 1e-15);
    CHECK(isnan(got[1]));
    CHECK_NEAR(got[2], 0.03, 1e-15);
}

/* statsmodels: OLS(x, ones).fit(cov_type="cluster", groups=...).bse. */
TEST(clusters)
{
    static const double x[] = {1, 0, 1, 1, 0, 0, 1, 1, 0.5, 0.25};
    static const uint32_t templates[] = {0, 0, 0, 1, 1, 2, 2, 2, 3, 3}, alone[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    double sums[10];
    CHECK_NEAR(bal_clustered_stderr(x, templates, 10, sums, 4), 0.06670832032063165, 1e-12);
    CHECK_NEAR(bal_clustered_stderr(x, alone, 10, sums, 10), bal_mean_stderr(x, 10), 1e-15);
    CHECK(isnan(bal_clustered_stderr(x, templates, 10, sums, 1)));
    CHECK(isnan(bal_clustered_stderr(x, templates, 10, NULL, 4)));
}

TEST(classes)
{
    static const bal_class_item three[] = {{0, 0}, {0, 1}, {1, 1}, {2, 2}, {2, 0}, {2, 2}, {1, 2}};
    static const bal_class_item zeros[] = {{0, 0}, {0, 0}}, outside[] = {{0, BAL_MAX_CLASSES}, {0, -1}};
    static const uint32_t some[] = {2, 2, 3, 0};
    CHECK_NEAR(bal_class_mcc(three, NULL, 7), 0.34375, 1e-12); /* sklearn's matthews_corrcoef */
    CHECK_NEAR(bal_class_mcc(three, some, 4), 1, 1e-15);
    CHECK_NEAR(bal_class_f1(three, NULL, 7), 0.5, 1e-15);
    CHECK_NEAR(bal_class_f1(zeros, NULL, 2), 0, 0);
    CHECK_NEAR(bal_class_mcc(zeros, NULL, 2), 0, 0);
    CHECK(isnan(bal_class_mcc(outside, NULL, 2)));
}

static double mean_of(const void *items, const uint32_t *index, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += ((const double *)items)[index[i]];
    return sum / (double)n;
}

TEST(bootstrap)
{
    double x[200], y[200], value = 0, again = 0;
    uint32_t cluster[200];
    bal_paired_bootstrap b = {0}, c = {0};
    for (uint32_t i = 0; i < 200; i++) {
        x[i] = i * 7 % 10 < 6;
        y[i] = i * 7 % 10 < 5;
        cluster[i] = i / 10;
    }
    /* the closed form, (1 - 1/n) apart, within the noise of 5000 resamples */
    CHECK_OK(bal_bootstrap_stderr(mean_of, x, 200, 5000, &value));
    CHECK_NEAR(value, bal_mean_stderr(x, 200), 0.002);
    CHECK_OK(bal_threads_start(3));
    CHECK_OK(bal_bootstrap_stderr(mean_of, x, 200, 5000, &again));
    bal_threads_stop();
    CHECK_NEAR(again, value, 0);
    CHECK_OK(bal_bootstrap_stderr(mean_of, x, 1, 100, &value));
    CHECK(isnan(value));
    CHECK_STATUS(bal_bootstrap_stderr(mean_of, x, 200, 1, &value), BAL_EINVAL);

    CHECK_OK(bal_bootstrap_paired(x, y, NULL, 200, 0, 4000, 1, &b));
    CHECK_NEAR(b.difference, 0.1, 1e-12);
    double se = bal_paired_stderr(x, y, 200);
    CHECK_NEAR(b.low, 0.1 - 1.96 * se, 0.01);
    CHECK_NEAR(b.high, 0.1 + 1.96 * se, 0.01);
    CHECK_NEAR(b.p, 1 / 4001.0, 1e-12);
    /* each cluster has the same difference: nothing varies between them */
    CHECK_OK(bal_bootstrap_paired(x, y, cluster, 200, 20, 500, 1, &c));
    CHECK_NEAR(c.low, 0.1, 1e-12);
    CHECK_NEAR(c.high, 0.1, 1e-12);
    CHECK_OK(bal_bootstrap_paired(x, x, NULL, 200, 0, 100, 1, &b));
    CHECK_NEAR(b.p, 1, 0);
    CHECK_STATUS(bal_bootstrap_paired(x, y, NULL, 0, 0, 100, 1, &b), BAL_EINVAL);
}
