/* Figures of class predictions, calibration and multiple choice against the reference vectors: every column.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/scorer.h"
#include "lib/io/jsonl.h"
#include "lib/stats/calibration.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 4096 };

static size_t numbers(const cJSON *line, const char *key, double *out)
{
    const cJSON *list = bal_json_member(line, key), *item = NULL;
    size_t n = 0;
    cJSON_ArrayForEach(item, list) if (n < MOST) out[n++] = item->valuedouble;
    return n;
}

static double number(const cJSON *line, const char *key)
{
    const cJSON *v = bal_json_member(line, key);
    return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

/* A null stands for NaN. */
static void same(double got, const cJSON *line, const char *key)
{
    double want = number(line, key);
    if (isnan(want))
        CHECK_MSG(isnan(got), "%s: %g is not NaN", key, got);
    else
        CHECK_NEAR(got, want, 1e-12);
}

static bal_lines *open_vectors(const char *name)
{
    const char *path = test_shared(name);
    bal_lines *lines = NULL;
    return path == NULL || !CHECK_OK(bal_lines_open(&lines, path)) ? NULL : lines;
}

static void check_classes(const cJSON *line, const double *gold, const double *predicted, size_t n)
{
    static bal_class_item items[MOST];
    const cJSON *recall = NULL;
    double right = 0;
    for (size_t i = 0; i < n; i++) {
        items[i] = (bal_class_item){(int)gold[i], (int)predicted[i]};
        right += gold[i] == predicted[i];
    }
    same(right / (double)n, line, "accuracy");
    if (bal_json_member(line, "f1_binary_pos1") != NULL) { /* null: more than two classes */
        same(bal_class_f1_of(items, n, 1), line, "f1_binary_pos1");
        same(bal_class_f1(items, NULL, n), line, "f1_binary_pos1");
    }
    same(bal_class_f1_macro(items, n), line, "f1_macro");
    same(bal_class_f1_weighted(items, n), line, "f1_weighted");
    same(bal_class_mcc(items, NULL, n), line, "mcc");
    cJSON_ArrayForEach(recall, bal_json_member(line, "recall_per_class"))
    {
        double value = bal_class_recall(items, n, (int)strtol(recall->string, NULL, 10));
        CHECK_NEAR(isnan(value) ? 0 : value, recall->valuedouble,
                   1e-12); /* scikit-learn has 0 for a class not in gold */
    }
}

TEST(metrics)
{
    static double a[MOST], b[MOST], ranks[2 * MOST];
    bal_lines *lines = open_vectors("vectors/metrics.jsonl");
    cJSON *line = NULL;
    size_t n_lines = 0;
    if (lines == NULL)
        SKIP("../shared is not there");
    while (bal_jsonl_next(lines, &line) == BAL_OK && line != NULL) {
        bool classes = bal_json_member(line, "y_true") != NULL;
        size_t n = numbers(line, classes ? "y_true" : "ref", a), m = numbers(line, classes ? "y_pred" : "pred", b);
        n_lines++;
        if (CHECK(n == m && n > 0) && classes) {
            check_classes(line, a, b, n);
        } else {
            same(bal_pearson(a, b, n), line, "pearson");
            same(bal_spearman(a, b, n, ranks), line, "spearman");
            for (size_t i = 0; i < n; i++) { /* as Hugging Face's metric casts them */
                a[i] = (double)(float)a[i];
                b[i] = (double)(float)b[i];
            }
            same(bal_pearson(a, b, n), line, "pearson_float32_inputs");
        }
        cJSON_Delete(line);
    }
    bal_lines_close(lines);
    CHECK(n_lines > 0);
}

TEST(calibration)
{
    static double confidence[MOST], correct[MOST];
    static size_t order[MOST];
    bal_lines *lines = open_vectors("vectors/calibration.jsonl");
    cJSON *line = NULL;
    size_t n_lines = 0;
    if (lines == NULL)
        SKIP("../shared is not there");
    while (bal_jsonl_next(lines, &line) == BAL_OK && line != NULL) {
        size_t n = numbers(line, "conf", confidence);
        n_lines++;
        CHECK(n > 0 && numbers(line, "correct", correct) == n);
        same(bal_ece(confidence, correct, n, 10), line, "ece10_equal_width");
        same(bal_ece(confidence, correct, n, 10), line, "guo10");
        same(bal_ece(confidence, correct, n, 15), line, "ece15_equal_width");
        same(bal_ece(confidence, correct, n, 15), line, "guo15");
        same(bal_ece(confidence, correct, n, 1), line, "ece1");
        same(bal_ece_equal_mass(confidence, correct, n, 10, order), line, "ece10_equal_mass");
        same(bal_selective_area(confidence, correct, n, order), line, "selective_cov_acc_area");
        same(bal_selective_at(confidence, correct, n, 0.1, order), line, "selective_acc_at_10");
        same(bal_brier_binary(confidence, correct, n), line, "brier_binary");
        cJSON_Delete(line);
    }
    bal_lines_close(lines);
    CHECK(n_lines > 0);
    CHECK(isnan(bal_ece(confidence, correct, 0, 10)) && isnan(bal_brier_binary(confidence, correct, 0)));
}

/* Bins that the items do not fill evenly, and shares between two items. */
TEST(calibration_by_hand)
{
    static const double confidence[] = {0.1, 0.2, 0.3, 0.4, 0.5}, correct[] = {0, 0, 1, 1, 1};
    static const double falling[] = {0.9, 0.8, 0.7, 0.6}, right[] = {1, 0, 0, 1};
    size_t order[5];
    /* three and two: (|.6 - 1| + |.9 - 2|) / 5 */
    CHECK_NEAR(bal_ece_equal_mass(confidence, correct, 5, 2, order), 0.3, 1e-12);
    CHECK_NEAR(bal_selective_at(falling, right, 4, 0.5, order), 0.5, 0);
    CHECK_NEAR(bal_selective_at(falling, right, 4, 0.9, order), 1.0 / 3, 1e-15);
}

/* A task of one item, as --tasks my.json would give it, through the scorer of multiple choice. */
static double choice_metric(const cJSON *line, const char *name)
{
    double value = (double)NAN;
    bal_buf output = {0};
    cJSON *file = cJSON_CreateObject(), *row = cJSON_CreateObject(), *items[1] = {row}, *wanted = NULL;
    (void)cJSON_AddItemToObject(row, "choices", cJSON_Duplicate(bal_json_member(line, "choices"), true));
    (void)cJSON_AddItemToObject(row, "gold", cJSON_Duplicate(bal_json_member(line, "gold"), true));
    (void)cJSON_AddStringToObject(file, "choices", "choices");
    (void)cJSON_AddStringToObject(file, "label", "gold");
    wanted = cJSON_AddArrayToObject(file, "metrics");
    (void)cJSON_AddItemToArray(wanted, cJSON_CreateString(name));
    task t = {.json = file,
              .name = "vector",
              .choices = bal_json_member(file, "choices"),
              .label = bal_json_member(file, "label"),
              .scorer = &k_scorer_choice,
              .test = {items, 1, 1}};
    metric_list list = {0};
    CHECK_OK(bal_buf_text(&output, "{\"ll\": "));
    CHECK_OK(bal_json_put(&output, bal_json_member(line, "lls"), false));
    CHECK_OK(bal_buf_text(&output, "}"));
    record r = {.output = output.data};
    if (CHECK_OK(t.scorer->prepare(&t)) && CHECK_OK(t.scorer->measure(&t, 0, &r, 1, &list)) && CHECK(list.n == 1))
        value = list.items[0].value;
    metric_list_dispose(&list);
    bal_buf_dispose(&output);
    cJSON_Delete(row);
    cJSON_Delete(file);
    return value;
}

static void check_choice(const cJSON *line)
{
    double p[16], want[16], brier = 0;
    static const char *const names[] = {"acc", "acc_norm", "acc_bytes"}, *const keys[] = {"pred", "pred_norm",
                                                                                          "pred_bytes"};
    size_t n = numbers(line, "lls", p);
    int gold = (int)number(line, "gold");
    if (!CHECK(n <= 16 && numbers(line, "prob", want) == n))
        return;
    for (size_t m = 0; m < 3; m++)
        CHECK(choice_metric(line, names[m]) == (number(line, keys[m]) == gold ? 1 : 0));
    bal_softmax(p, n);
    for (size_t k = 0; k < n; k++) {
        CHECK_NEAR(p[k], want[k], 1e-12);
        brier += (want[k] - ((int)k == gold)) * (want[k] - ((int)k == gold));
    }
    CHECK_NEAR(choice_metric(line, "brier_score"), brier, 1e-12);
}

/* The last line: Brier's score of several items. */
static void check_brier(const cJSON *line)
{
    const cJSON *item = NULL;
    double p[16], gold[16], sum = 0;
    size_t n = 0, items = numbers(line, "gold", gold);
    cJSON_ArrayForEach(item, bal_json_member(line, "lls"))
    {
        size_t k = 0;
        const cJSON *x = NULL;
        cJSON_ArrayForEach(x, item) p[k++] = x->valuedouble;
        bal_softmax(p, k);
        sum += bal_brier(p, k, (int)gold[n++]);
    }
    CHECK(n == items && n > 0);
    CHECK_NEAR(sum / (double)n, number(line, "brier_score"), 1e-12);
}

TEST(multiple_choice)
{
    bal_lines *lines = open_vectors("vectors/multiple_choice.jsonl");
    cJSON *line = NULL;
    size_t n = 0;
    if (lines == NULL)
        SKIP("../shared is not there");
    while (bal_jsonl_next(lines, &line) == BAL_OK && line != NULL) {
        if (bal_json_member(line, "brier_score") != NULL)
            check_brier(line);
        else
            check_choice(line);
        n++;
        cJSON_Delete(line);
    }
    bal_lines_close(lines);
    CHECK(n > 0);
}

/* "\xc3\xa9" has one character and two bytes, "ab" two of both: every way of normalising has its own winner. */
TEST(normalised_choices)
{
    static const char text[] = "{\"choices\": [\"\xc3\xa9\", \"ab\"], \"gold\": 1, \"lls\": [-1.0, -1.5, -3.0, -0.1]}";
    static const char output[] = "{\"ll\": [-1.0, -1.5, -3.0, -0.1], \"greedy\": [], \"tokens\": []}";
    static const struct {
        const char *name;
        double value;
    } want[] = {{"acc", 0}, {"acc_norm", 1}, {"acc_bytes", 0}, {"acc_mutual_info", 0}};
    cJSON *row = NULL, *file = NULL, *items[1];
    metric_list out = {0};
    record r = {.item = 0, .output = (char *)(uintptr_t)output};
    static const char task_text[] =
        "{\"choices\": \"choices\", \"label\": \"gold\", \"metrics\": [\"acc\", \"acc_norm\", \"acc_bytes\", "
        "\"acc_mutual_info\"]}";
    CHECK_OK(bal_json_parse(&row, text, sizeof text - 1, "row"));
    CHECK_OK(bal_json_parse(&file, task_text, sizeof task_text - 1, "task"));
    items[0] = row;
    task t = {.json = file, .name = "t", .target_delimiter = " ", .test = {items, 1, 1}, .scorer = &k_scorer_choice};
    t.choices = bal_json_member(file, "choices");
    t.label = bal_json_member(file, "label");
    CHECK_OK(k_scorer_choice.measure(&t, 0, &r, 1, &out));
    for (size_t i = 0; i < sizeof want / sizeof want[0] && CHECK(i < out.n); i++) {
        CHECK_TEXT(out.items[i].name, want[i].name);
        CHECK_NEAR(out.items[i].value, want[i].value, 0);
    }
    metric_list_dispose(&out);
    cJSON_Delete(row);
    cJSON_Delete(file);
}
