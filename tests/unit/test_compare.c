/* balora evaluate --compare on runs whose items are written here.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "evaluate/evaluate.h"
#include "lib/base/mem.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <string.h>

static bal_store *open_store(const char *name)
{
    bal_store *s = NULL;
    char *path = bal_path_join(test_folder(), name);
    if (path != NULL)
        CHECK_OK(bal_store_open(&s, path, true));
    bal_free(path);
    return s;
}

static int64_t begin(bal_store *s, const char *name)
{
    bal_run_spec spec = {.kind = "evaluate", .name = name, .config_json = "{}"};
    int64_t run = 0;
    CHECK_OK(bal_run_begin(s, &spec, &run));
    return run;
}

static void put(bal_store *s, int64_t run, const char *task, int64_t item, double score, const char *group)
{
    bal_eval_item row = {.task = task,
                         .filter = "strict",
                         .item = item,
                         .prompt_sha256 = "00",
                         .output = "x",
                         .gold = item == 0 ? "zero" : "other",
                         .group = group,
                         .score = score,
                         .correct = score == 1};
    CHECK_OK(bal_run_item(s, run, &row));
}

/* The comparisons of runs "a" and "b", NULL when it failed. */
static cJSON *compare(bal_store *s, bal_status want)
{
    bal_buf out = {0};
    cJSON *doc = NULL;
    bal_status status = evaluate_compare(s, "a", "b", 2000, true, &out);
    CHECK_MSG(status == want, "status %d: %s", (int)status, bal_error_message());
    if (status == BAL_OK)
        CHECK_OK(bal_json_parse(&doc, bal_buf_cstr(&out), out.len, "comparison"));
    bal_buf_dispose(&out);
    return doc;
}

static double number(const cJSON *doc, int i, const char *key)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(doc, "comparisons");
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(cJSON_GetArrayItem(list, i), key);
    return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

TEST(pairs_by_item)
{
    bal_store *s = open_store("pairs.db");
    if (s == NULL)
        return;
    int64_t a = begin(s, "a"), b = begin(s, "b");
    /* 10 right in A alone, 3 in B alone, 20 in both, 7 in neither: McNemar's vector; A has 2 items more */
    for (int64_t i = 0; i < 40; i++) {
        put(s, a, "maths", i, i < 10 || (i >= 13 && i < 33), NULL);
        put(s, b, "maths", i, i >= 10 && i < 33, NULL);
    }
    put(s, a, "maths", 40, 1, NULL);
    put(s, a, "maths", 41, 1, NULL);
    put(s, a, "alone", 0, 1, NULL);
    for (int64_t i = 0; i < 12; i++) { /* four templates of three items, scores that are not 0 and 1 */
        static const char *const groups[] = {"t1", "t2", "t3", "t4"};
        put(s, a, "rated", i, 0.5, groups[i % 4]);
        put(s, b, "rated", i, 0.5 + 0.125 * (double)(i % 4), groups[i % 4]);
    }
    cJSON *doc = compare(s, BAL_OK);
    CHECK(cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(doc, "comparisons")) == 2);
    CHECK_NEAR(number(doc, 0, "n"), 40, 0);
    CHECK_NEAR(number(doc, 0, "only_a"), 2, 0);
    CHECK_NEAR(number(doc, 0, "mean_a"), 0.75, 1e-15);
    CHECK_NEAR(number(doc, 0, "mean_b"), 0.575, 1e-15);
    CHECK_NEAR(number(doc, 0, "difference"), -0.175, 1e-12);
    CHECK_NEAR(number(doc, 0, "a_better"), 10, 0);
    CHECK_NEAR(number(doc, 0, "b_better"), 3, 0);
    CHECK_NEAR(number(doc, 0, "mcnemar_exact_p"), 0.09228515625, 1e-12);
    CHECK_NEAR(number(doc, 0, "p"), 0.05737304687500002, 1e-12);
    /* variance of the differences: (13 - 40 * 0.175^2) / 39 / 40 */
    CHECK_NEAR(number(doc, 0, "difference_stderr"), sqrt((13 - 40 * 0.175 * 0.175) / 39 / 40), 1e-12);
    CHECK_NEAR(number(doc, 0, "bootstrap_low"), -0.175 - 1.96 * 0.0867, 0.03);
    CHECK_NEAR(number(doc, 0, "bootstrap_high"), -0.175 + 1.96 * 0.0867, 0.03);
    CHECK_NEAR(number(doc, 0, "minimum_detectable_effect"), bal_detectable_effect(number(doc, 0, "difference_stderr")),
               1e-15);
    /* the groups' differences are 0, 1/8, 2/8, 3/8: their own standard error */
    static const double means[] = {0, 0.125, 0.25, 0.375};
    CHECK_NEAR(number(doc, 1, "clusters"), 4, 0);
    CHECK_NEAR(number(doc, 1, "difference_stderr"), bal_mean_stderr(means, 4), 1e-12);
    CHECK(isnan(number(doc, 1, "mcnemar_mid_p")));
    CHECK_NEAR(number(doc, 1, "p"), number(doc, 1, "bootstrap_p"), 0);
    double small = fmin(number(doc, 0, "p"), number(doc, 1, "p")),
           large = fmax(number(doc, 0, "p"), number(doc, 1, "p"));
    CHECK_NEAR(fmin(number(doc, 0, "p_holm"), number(doc, 1, "p_holm")), fmin(2 * small, fmax(2 * small, large)),
               1e-12);
    cJSON_Delete(doc);
    bal_store_close(s);
}

TEST(what_cannot_be_compared)
{
    bal_store *s = open_store("other.db");
    bal_buf out = {0};
    if (s == NULL)
        return;
    int64_t a = begin(s, "a"), b = begin(s, "b");
    put(s, a, "maths", 1, 1, NULL);
    put(s, b, "code", 1, 1, NULL);
    cJSON_Delete(compare(s, BAL_EINVAL)); /* nothing in common */
    bal_eval_item row = {.task = "maths", .filter = "strict", .item = 1, .prompt_sha256 = "00", .gold = "another"};
    CHECK_OK(bal_run_item(s, b, &row));
    cJSON_Delete(compare(s, BAL_EINVAL)); /* the same item, another answer */
    CHECK(strstr(bal_error_message(), "not the same data") != NULL);
    CHECK_STATUS(evaluate_compare(s, "a", "a", 10, true, &out), BAL_EINVAL);
    CHECK_STATUS(evaluate_compare(s, "a", "no such run", 10, true, &out), BAL_ENOENT);
    CHECK(out.len == 0);
    bal_store_close(s);
}
