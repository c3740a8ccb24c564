/* lib/stats against the vectors.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/io/jsonl.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <string.h>

static double get(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

static size_t list(const cJSON *o, const char *key, double *out)
{
    size_t n = 0;
    const cJSON *l = cJSON_GetObjectItemCaseSensitive(o, key);
    for (const cJSON *v = l != NULL ? l->child : NULL; v != NULL && n < 64; v = v->next)
        out[n++] = v->valuedouble;
    return n;
}

static bool check_line(const cJSON *v)
{
    const char *kind = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "kind"));
    double x[64], y[64], low, high;
    size_t n;
    if (strcmp(kind, "mean_stderr") == 0 && (n = list(v, "values", x)) > 0) {
        CHECK_NEAR(bal_mean(x, n), get(v, "mean"), 1e-12);
        return CHECK_NEAR(bal_mean_stderr(x, n), get(v, "stderr"), 1e-12) &&
               CHECK_NEAR(bal_share_stderr(bal_mean(x, n), n), get(v, "stderr"), 1e-12);
    }
    if (strcmp(kind, "mean_stderr") == 0)
        return CHECK_NEAR(bal_share_stderr(get(v, "n_correct") / get(v, "n"), (size_t)get(v, "n")), get(v, "stderr"),
                          1e-12);
    if (strcmp(kind, "mcnemar") == 0) {
        uint64_t b = (uint64_t)get(v, "b"), c = (uint64_t)get(v, "c");
        CHECK_NEAR(bal_mcnemar_exact(b, c), get(v, "exact_two_sided"), 1e-10);
        CHECK_NEAR(bal_mcnemar_chi2(b, c), get(v, "chi2_cc"), 1e-10);
        return CHECK_NEAR(bal_mcnemar_mid(b, c), get(v, "mid_p"), 1e-10);
    }
    if (strcmp(kind, "wilson95") == 0) {
        bal_wilson((size_t)get(v, "k"), (size_t)get(v, "n"), 1.959963984540054, &low, &high);
        return CHECK_NEAR(low, get(v, "lo"), 1e-10) && CHECK_NEAR(high, get(v, "hi"), 1e-10);
    }
    if (strcmp(kind, "paired_diff") == 0 && (n = list(v, "a", x)) == list(v, "b", y)) {
        CHECK_NEAR(bal_paired_stderr(x, y, n), get(v, "se_paired"), 1e-12);
        return CHECK_NEAR(bal_unpaired_stderr(x, n, y, n), get(v, "se_unpaired"), 1e-12);
    }
    if (strcmp(kind, "seeds_mean_std") == 0 && (n = list(v, "values", x)) > 0)
        return CHECK_NEAR(bal_sample_sd(x, n), get(v, "std_ddof1"), 1e-12);
    return false;
}

TEST(vectors)
{
    const char *path = test_shared("vectors/stats.jsonl");
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    size_t n = 0;
    if (path == NULL)
        SKIP("the shared vectors are not there");
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        n += check_line(line);
        cJSON_Delete(line);
    }
    CHECK_MSG(n >= 10, "only %zu lines were checked",
              n); /* pooled errors and bootstraps come with the evaluation suite */
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
}
