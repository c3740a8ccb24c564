/* Spectra and diversity against the vectors, and by hand.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "analyze/diversity.h"
#include "analyze/spectrum.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/tensor/linalg.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static double number(const cJSON *v)
{
    if (cJSON_IsNumber(v))
        return v->valuedouble;
    if (cJSON_IsString(v) && strcmp(v->valuestring, "inf") == 0)
        return (double)INFINITY;
    return (double)NAN;
}

static cJSON *vectors(const char *name)
{
    const char *path = test_shared(name);
    cJSON *json = NULL;
    if (path == NULL) {
        test_skip("the shared vectors are not there");
        return NULL;
    }
    CHECK_OK(bal_json_read(&json, path, 64 << 20));
    return json;
}

/* null in the vectors is undefined here: NaN on both sides. */
static void check_value(const char *where, const char *name, double got, const cJSON *want, double rel)
{
    double w = number(want);
    if (isnan(w))
        CHECK_MSG(isnan(got), "%s: %s is %.17g, not undefined", where, name, got);
    else
        CHECK_MSG(got == w || fabs(got - w) <= rel * fabs(w) + 1e-300, "%s: %s is %.17g, not %.17g", where, name, got,
                  w);
}

static double *matrix(const cJSON *rows, size_t *m, size_t *n)
{
    *m = (size_t)cJSON_GetArraySize(rows);
    *n = *m > 0 ? (size_t)cJSON_GetArraySize(rows->child) : 0;
    double *a = bal_alloc(*m * *n + 1, sizeof *a);
    size_t i = 0;
    for (const cJSON *r = rows->child; r != NULL; r = r->next)
        for (const cJSON *v = r->child; v != NULL; v = v->next)
            a[i++] = number(v);
    return a;
}

static void check_statistics(const char *name, const cJSON *want, size_t m, size_t n, const double *s, size_t k)
{
    static const char *const keys[][2] = {{"frobenius", "frobenius"},
                                          {"nuclear", "nuclear"},
                                          {"spectral", "spectral"},
                                          {"numerical_rank", "numerical_rank"},
                                          {"stable_rank", "stable_rank"},
                                          {"sve", "sve"},
                                          {"sve_normalized", "sve_normalized_by_log_min_dim"},
                                          {"effective_rank", "effective_rank_roy_vetterli"},
                                          {"lsvr", "lsvr"},
                                          {"energy_entropy", "energy_entropy"},
                                          {"effective_rank_energy", "effective_rank_energy"},
                                          {"participation_ratio", "participation_ratio_energy"},
                                          {"participation_ratio_sigma", "participation_ratio_sigma"},
                                          {"rankme", "rankme_eps1e-7"},
                                          {"condition_number", "condition_number"},
                                          {"rank90", "rank90_energy"},
                                          {"rank99", "rank99_energy"},
                                          {"rank_tolerance", "rank_tol_max_dim_eps_s1"}};
    spectrum_stats stats;
    double values[SPECTRUM_N_NAMED];
    if (!CHECK_OK(spectrum_statistics(m, n, s, k, &stats)))
        return;
    spectrum_named_values(&stats, values);
    for (size_t i = 0; i < SPECTRUM_N_NAMED; i++) {
        CHECK_TEXT(spectrum_names[i], keys[i][0]);
        /* the smallest values of a graded matrix are known to eps s_1 only */
        double rel = strcmp(keys[i][0], "condition_number") == 0 && strncmp(name, "graded_4", 8) == 0 ? 1e-2 : 1e-10;
        check_value(name, keys[i][1], values[i], cJSON_GetObjectItemCaseSensitive(want, keys[i][1]), rel);
    }
    for (size_t top = 1; top <= 5; top += top == 3 ? 2 : 1) {
        char key[4];
        (void)snprintf(key, sizeof key, "%zu", top);
        check_value(name, "topk_sigma_ratio", spectrum_top_share(s, k, top),
                    cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(want, "topk_sigma_ratio"), key),
                    1e-10);
        check_value(
            name, "topk_over_frobenius", spectrum_top_over_frobenius(s, k, top),
            cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(want, "topk_over_frobenius"), key),
            1e-10);
        check_value(name, "topk_energy", spectrum_top_energy(s, k, top),
                    cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(want, "topk_energy"), key),
                    1e-10);
    }
}

TEST(spectrum_vectors)
{
    cJSON *json = vectors("vectors/analyze_spectrum.json");
    if (json == NULL)
        return;
    const cJSON *cases = cJSON_GetObjectItemCaseSensitive(json, "cases");
    size_t seen = 0;
    for (const cJSON *c = cases->child; c != NULL; c = c->next, seen++) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(c, "name"));
        const cJSON *want = cJSON_GetObjectItemCaseSensitive(c, "expected");
        const cJSON *sv = cJSON_GetObjectItemCaseSensitive(want, "singular_values");
        size_t m, n, k = (size_t)cJSON_GetArraySize(sv), i = 0;
        double *a = matrix(cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(c, "input"), "W"), &m, &n);
        double *s = bal_alloc(2 * (m < n ? m : n), sizeof *s), *exact = s + (m < n ? m : n);
        if (CHECK(k == (m < n ? m : n)) && CHECK_OK(bal_svd(m, n, a, NULL, s, NULL))) {
            for (const cJSON *v = sv->child; v != NULL; v = v->next, i++) {
                exact[i] = number(v);
                CHECK_NEAR(s[i], exact[i], 8 * DBL_EPSILON * s[0] * (double)(m > n ? m : n));
            }
            check_statistics(name, want, m, n, exact, k);
        }
        bal_free(s);
        bal_free(a);
    }
    CHECK(seen == 13);
    cJSON_Delete(json);
}

TEST(bad_spectra_are_refused)
{
    const double nan_value[] = {1, (double)NAN}, inf_value[] = {(double)INFINITY, 1}, rising[] = {1, 2};
    const double a[] = {1, (double)NAN, 0, 1};
    double s[2];
    spectrum_stats o;
    CHECK_STATUS(spectrum_statistics(2, 2, nan_value, 2, &o), BAL_ENUMERIC);
    CHECK_STATUS(spectrum_statistics(2, 2, inf_value, 2, &o), BAL_ENUMERIC);
    CHECK_STATUS(spectrum_statistics(2, 2, rising, 2, &o), BAL_EINVAL);
    CHECK_STATUS(spectrum_statistics(0, 0, rising, 0, &o), BAL_EINVAL);
    CHECK_STATUS(bal_svd(2, 2, a, NULL, s, NULL), BAL_ENUMERIC);
}

/* Factors of one case: A, B and scale, or the stacked difference of PiSSA. */
static void check_update(const cJSON *c)
{
    const cJSON *in = cJSON_GetObjectItemCaseSensitive(c, "input"),
                *want = cJSON_GetObjectItemCaseSensitive(c, "expected");
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(c, "name"));
    bool pissa = cJSON_HasObjectItem(in, "A0") != 0;
    const cJSON *sv = cJSON_GetObjectItemCaseSensitive(want, pissa ? "singular_values" : "singular_values_top_r");
    if (sv == NULL)
        return;
    size_t r, n, m, rb;
    double *A = matrix(cJSON_GetObjectItemCaseSensitive(in, pissa ? "A1" : "A"), &r, &n);
    double *B = matrix(cJSON_GetObjectItemCaseSensitive(in, pissa ? "B1" : "B"), &m, &rb);
    double scale = pissa ? number(cJSON_GetObjectItemCaseSensitive(in, "scaling"))
                         : number(cJSON_GetObjectItemCaseSensitive(want, "scaling"));
    if (pissa) {
        size_t x, y;
        double *A0 = matrix(cJSON_GetObjectItemCaseSensitive(in, "A0"), &x, &y);
        double *B0 = matrix(cJSON_GetObjectItemCaseSensitive(in, "B0"), &x, &y);
        double *A2 = bal_alloc(2 * r * n, sizeof *A2), *B2 = bal_alloc(2 * r * m, sizeof *B2);
        memcpy(A2, A, r * n * sizeof *A);
        memcpy(A2 + r * n, A0, r * n * sizeof *A);
        for (size_t i = 0; i < m; i++)
            for (size_t j = 0; j < r; j++) {
                B2[i * 2 * r + j] = B[i * r + j];
                B2[i * 2 * r + r + j] = -B0[i * r + j];
            }
        bal_free(A);
        bal_free(B);
        bal_free(A0);
        bal_free(B0);
        A = A2;
        B = B2;
        r *= 2;
    }
    double *s = bal_alloc(r, sizeof *s), *U = bal_alloc(m * r, sizeof *U), *V = bal_alloc(n * r, sizeof *V);
    if (CHECK_OK(spectrum_of_update(m, n, r, A, B, scale, s, U, V))) {
        size_t i = 0;
        for (const cJSON *v = sv->child; v != NULL && CHECK(i < r); v = v->next, i++)
            CHECK_MSG(fabs(s[i] - number(v)) <= 16 * DBL_EPSILON * s[0], "%s: singular value %zu is %.17g, not %.17g",
                      name, i, s[i], number(v));
        const cJSON *delta = cJSON_GetObjectItemCaseSensitive(want, "delta_w"); /* U diag(s) V^T is the update itself */
        size_t dm, dn;
        double *d = matrix(delta, &dm, &dn);
        for (size_t p = 0; p < m * n && CHECK(dm == m && dn == n); p++) {
            double sum = 0;
            for (size_t k = 0; k < r; k++)
                sum += s[k] > 0 ? U[p / n * r + k] * s[k] * V[p % n * r + k] : 0;
            CHECK_NEAR(sum, d[p], 1e-13 * (s[0] + 1e-300));
        }
        bal_free(d);
    }
    bal_free(s);
    bal_free(U);
    bal_free(V);
    bal_free(A);
    bal_free(B);
}

TEST(update_vectors)
{
    cJSON *json = vectors("vectors/analyze_lora_delta.json");
    if (json == NULL)
        return;
    const cJSON *cases = cJSON_GetObjectItemCaseSensitive(json, "cases");
    for (const cJSON *c = cases->child; c != NULL; c = c->next)
        check_update(c);
    cJSON_Delete(json);
}

TEST(diversity_vectors)
{
    static const char *const keys[DIVERSITY_N_NAMED] = {"distinct_1",
                                                        "distinct_2",
                                                        "distinct_3",
                                                        "distinct_4",
                                                        "ngram_entropy_1",
                                                        "ngram_entropy_2",
                                                        "ngram_entropy_3",
                                                        "ngram_entropy_4",
                                                        "ead_1_V50",
                                                        "seq_rep_2_mean_over_defined",
                                                        "self_bleu_4",
                                                        "self_bleu_3",
                                                        "ngram_diversity_sum_1_4_joined",
                                                        "self_repetition_4",
                                                        "homogenization_rougeL",
                                                        "compression_ratio_gzip9",
                                                        "yule_k",
                                                        NULL,
                                                        NULL,
                                                        NULL};
    cJSON *json = vectors("vectors/analyze_text.json");
    if (json == NULL)
        return;
    for (const cJSON *c = cJSON_GetObjectItemCaseSensitive(json, "cases")->child; c != NULL; c = c->next) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(c, "name"));
        const cJSON *want = cJSON_GetObjectItemCaseSensitive(c, "expected");
        const char *texts[64];
        size_t n = 0;
        for (const cJSON *t =
                 cJSON_GetObjectItemCaseSensitive(cJSON_GetObjectItemCaseSensitive(c, "input"), "texts")->child;
             t != NULL && n < 64; t = t->next)
            texts[n++] = t->valuestring;
        diversity_stats stats;
        double values[DIVERSITY_N_NAMED];
        if (!CHECK_OK(diversity_statistics(texts, n, 50, 0, &stats)))
            continue;
        diversity_named_values(&stats, values);
        for (size_t i = 0; i < DIVERSITY_N_NAMED; i++) {
            const cJSON *v = keys[i] != NULL ? cJSON_GetObjectItemCaseSensitive(want, keys[i]) : NULL;
            if (cJSON_IsObject(v))
                v = cJSON_GetObjectItemCaseSensitive(v, "mean");
            if (v != NULL) /* other deflate libraries differ by some bytes */
                check_value(name, keys[i], values[i], v,
                            strcmp(keys[i], "compression_ratio_gzip9") == 0 ? 0.05 : 1e-10);
        }
    }
    cJSON_Delete(json);
}

TEST(by_hand)
{
    const double s[] = {2, 2, 1};
    spectrum_stats o;
    CHECK_OK(spectrum_statistics(3, 3, s, 3, &o));
    CHECK_NEAR(o.stable_rank, 9.0 / 4, 1e-15);
    CHECK_NEAR(o.sve, -(0.8 * log(0.4) + 0.2 * log(0.2)), 1e-15);
    CHECK_NEAR(o.lsvr, -log(0.4), 1e-15);
    CHECK_NEAR(o.rank90, 3, 0);
    CHECK_NEAR(o.frobenius, 3, 1e-15);
    static const char *const texts[] = {"a b a b", "a b c"};
    diversity_stats d;
    CHECK_OK(diversity_statistics(texts, 2, 0, 0, &d));
    CHECK_NEAR(d.distinct[0], 3.0 / 7, 1e-15);
    CHECK_NEAR(d.seq_rep_2, (1.0 / 3 + 0) / 2, 1e-15);
    CHECK(isnan(d.ead));
}
