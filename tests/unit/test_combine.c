/* Weighted sums of adapters: cat is the sum, svd the nearest of its rank, linear what peft computes.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/combine.h"
#include "lib/base/mem.h"
#include "lib/tensor/linalg.h"
#include "tests/unit/modules.h"

#include <string.h>

static char g_all[] = "all-linear", g_q[] = "q_proj";
static double g_wrong; /* the mutation: the second weight is off by so much */

static bal_adapter *part(char *target, size_t r, double alpha, uint64_t seed)
{
    bal_adapter *a = NULL;
    bal_adapter_config c = config_of(&target, 1, "lora");
    bal_rng rng;
    c.r = r;
    c.lora_alpha = alpha;
    CHECK_OK(bal_adapter_new(&a, &c, g_modules, 3, seed, false));
    bal_rng_init(&rng, seed, "values");
    for (size_t i = 0; a != NULL && i < a->params.n; i++)
        a->params.values[i] = (real_t)bal_rng_normal(&rng);
    return a;
}

static double sum_of(const bal_adapter *const *parts, const double *w, const char *module, size_t i, size_t j)
{
    double sum = 0;
    for (size_t p = 0; p < 2; p++) {
        const bal_lora *l = bal_adapter_find(parts[p], module);
        if (l != NULL)
            sum += (w[p] + (p == 1 ? g_wrong : 0)) * delta(l, i, j);
    }
    return sum;
}

static void check_cat(void)
{
    const double w[] = {0.5, -1.25};
    double lost = -1;
    bal_adapter *sum = NULL;
    make_modules();
    bal_adapter *a = part(g_all, 3, 6, 1), *b = part(g_q, 2, 8, 2);
    const bal_adapter *parts[] = {a, b};
    if (!CHECK_OK(bal_adapter_combine(&sum, parts, w, 2, BAL_COMBINE_CAT, 0, g_modules, 3, &lost)))
        return;
    CHECK(lost == 0 && sum->n_loras == 2 && sum->config.r == 5 && sum->loras[0].scale == 1);
    for (size_t m = 0; m < sum->n_loras; m++) {
        const bal_lora *l = &sum->loras[m];
        for (size_t i = 0; i < l->out; i++)
            for (size_t j = 0; j < l->in; j++)
                CHECK_NEAR(delta(l, i, j), sum_of(parts, w, l->module, i, j), 1e-5);
    }
    bal_adapter_free(a);
    bal_adapter_free(b);
    bal_adapter_free(sum);
}

TEST(cat_is_the_sum)
{
    check_cat();
}

TEST(another_weight_is_noticed)
{
    g_wrong = 0.01;
    CHECK(test_count_failures(check_cat) > 0);
    g_wrong = 0;
}

TEST(svd_is_the_nearest)
{
    static double D[OUT0 * IN0], U[OUT0 * IN0], s[IN0], Vt[IN0 * IN0];
    const double w[] = {2, 0.75};
    double lost = -1;
    bal_adapter *sum = NULL, *whole = NULL;
    make_modules();
    bal_adapter *a = part(g_q, 2, 3, 1), *b = part(g_q, 3, 2, 2);
    const bal_adapter *parts[] = {a, b};
    if (!CHECK_OK(bal_adapter_combine(&sum, parts, w, 2, BAL_COMBINE_SVD, 0, g_modules, 3, &lost)) ||
        !CHECK(sum->config.r == 3))
        return;
    for (size_t i = 0; i < OUT0 * IN0; i++)
        D[i] = sum_of(parts, w, g_modules[0].name, i / IN0, i % IN0);
    CHECK_OK(bal_svd(OUT0, IN0, D, U, s, Vt));
    double rest = 0, size = 0, missed = 0;
    for (size_t k = 0; k < IN0; k++) {
        size += s[k] * s[k];
        rest += k >= 3 ? s[k] * s[k] : 0;
    }
    for (size_t i = 0; i < OUT0 * IN0; i++)
        missed += pow(D[i] - delta(&sum->loras[0], i / IN0, i % IN0), 2);
    CHECK_NEAR(missed / size, rest / size, 1e-5); /* Eckart and Young */
    CHECK_NEAR(lost, sqrt(rest / size), 1e-5);
    CHECK_OK(bal_adapter_combine(&whole, parts, w, 2, BAL_COMBINE_SVD, 5, g_modules, 3, &lost));
    CHECK(lost < 1e-5); /* the sum has rank 5 */
    CHECK(whole != NULL && whole->config.n_target_modules == 1 &&
          strcmp(whole->config.target_modules[0], "q_proj") == 0);
    bal_adapter_free(a);
    bal_adapter_free(b);
    bal_adapter_free(sum);
    bal_adapter_free(whole);
}

/* peft: sqrt|w s| on both factors, the sign on A. */
TEST(linear_adds_the_factors)
{
    const double w[] = {0.5, -2};
    double lost = 0;
    bal_adapter *sum = NULL;
    make_modules();
    bal_adapter *a = part(g_q, 2, 4, 1), *b = part(g_q, 2, 3, 2), *c = part(g_q, 3, 3, 3);
    const bal_adapter *parts[] = {a, b}, *uneven[] = {a, c};
    if (!CHECK_OK(bal_adapter_combine(&sum, parts, w, 2, BAL_COMBINE_LINEAR, 0, g_modules, 3, &lost)))
        return;
    double wa = sqrt(0.5 * 2), wb = sqrt(2 * 1.5);
    for (size_t i = 0; i < 2 * IN0; i++)
        CHECK_NEAR(sum->loras[0].a[i], wa * (double)a->loras[0].a[i] - wb * (double)b->loras[0].a[i], 1e-6);
    for (size_t i = 0; i < 2 * OUT0; i++)
        CHECK_NEAR(sum->loras[0].b[i], wa * (double)a->loras[0].b[i] + wb * (double)b->loras[0].b[i], 1e-6);
    CHECK(lost > 0.1 && sum->loras[0].scale == 1);
    bal_adapter_free(sum);
    CHECK_STATUS(bal_adapter_combine(&sum, uneven, w, 2, BAL_COMBINE_LINEAR, 0, g_modules, 3, &lost), BAL_EINVAL);
    CHECK_STATUS(bal_adapter_combine(&sum, parts, w, 2, BAL_COMBINE_SVD, 9, g_modules, 3, &lost), BAL_EINVAL);
    CHECK_STATUS(bal_adapter_combine(&sum, parts, (const double[]){1, NAN}, 2, BAL_COMBINE_CAT, 0, g_modules, 3, &lost),
                 BAL_EINVAL);
    CHECK_STATUS(bal_adapter_combine(&sum, parts, w, 2, BAL_COMBINE_CAT, 0, g_modules + 1, 2, &lost), BAL_EINVAL);
    CHECK_STATUS(bal_adapter_combine(&sum, parts, w, 0, BAL_COMBINE_CAT, 0, g_modules, 3, &lost), BAL_EINVAL);
    bal_adapter_free(a);
    bal_adapter_free(b);
    bal_adapter_free(c);
}

/* Layer by layer: what names a whole kind would adapt modules that none of the parts has. */
TEST(targets_name_these_modules_only)
{
    static char whole[] = "model.layers.0.self_attn.q_proj";
    bal_module two[] = {{.name = "model.layers.0.self_attn.q_proj"}, {.name = "model.layers.1.self_attn.q_proj"}};
    double lost = 0;
    bal_adapter *sum = NULL;
    make_modules();
    two[0].w = two[1].w = &g_views[0];
    bal_adapter *a = part(whole, 2, 2, 1);
    const bal_adapter *parts[] = {a};
    if (CHECK_OK(bal_adapter_combine(&sum, parts, (const double[]){1}, 1, BAL_COMBINE_CAT, 0, two, 2, &lost)))
        CHECK(sum->config.n_target_modules == 1 && strcmp(sum->config.target_modules[0], whole) == 0);
    bal_adapter_free(sum);
    bal_adapter_free(a);
}
