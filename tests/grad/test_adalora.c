/* The term of AdaLoRA that keeps its factors orthonormal: its gradient by central differences, and mutations that must
 * be noticed.  (The module itself is in test_methods.c.)  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"
#include "tests/unit/modules.h"

#include <string.h>

#define STEP 1e-6

static bal_adapter *g_adapter;
static int g_mutation; /* 0: none; else what is wrong with the gradient */

static double weighted(const bal_adapter *a)
{
    double weight = 0, value = bal_method_of(&a->config)->penalty(a, &weight);
    return weight * value;
}

static void mutate(bal_params *p)
{
    for (size_t i = 0; i < p->n; i++) {
        real_t d = p->grads[i] - (real_t)0.25;
        if (g_mutation == 1)
            p->grads[i] = (real_t)0.25 - d;
        else if (g_mutation == 2)
            p->grads[i] += (real_t)0.1 * d;
        else if (g_mutation == 3)
            p->grads[i] = d; /* not added to what was there */
        else if (g_mutation == 4 && i % 2 == 0)
            p->grads[i] = (real_t)0.25;
    }
}

static void compare(void)
{
    bal_params *p = &g_adapter->params;
    double difference = 0, size = 0;
    for (size_t i = 0; i < p->n; i++)
        p->grads[i] = (real_t)0.25;
    (void)weighted(g_adapter);
    mutate(p);
    real_t kept[1024];
    CHECK(p->n <= sizeof kept / sizeof *kept);
    memcpy(kept, p->grads, p->n * sizeof *kept);
    for (size_t i = 0; i < p->n; i++) {
        real_t value = p->values[i];
        p->values[i] = value + (real_t)STEP;
        double up = weighted(g_adapter);
        p->values[i] = value - (real_t)STEP;
        double down = weighted(g_adapter);
        p->values[i] = value;
        double want = (up - down) / (2 * STEP), have = (double)kept[i] - 0.25;
        difference += (have - want) * (have - want);
        size += have * have + want * want;
    }
    CHECK_MSG(sqrt(difference) <= 1e-7 * sqrt(size), "relative difference %g", sqrt(difference / size));
    CHECK(size > 1e-3);
}

TEST(orthogonality)
{
    static char q[] = "q_proj", down[] = "down_proj";
    static char *targets[] = {q, down};
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    make_modules();
    for (size_t r = 1; r <= 7; r += 3) { /* 7: more columns of B than it has rows in one module */
        bal_adapter_config c = config_of(targets, 2, "lora");
        c.method = bal_method_named("adalora");
        c.r = r;
        bal_adapter_config_defaults(&c);
        c.keys[bal_config_key(&c, "target_r") - c.keys].number = 1;
        if (!CHECK_OK(bal_adapter_new(&g_adapter, &c, g_modules, 3, 1, true)) ||
            !CHECK_OK(c.method->begin(g_adapter, 9)))
            return;
        disturb(g_adapter);
        compare();
        for (g_mutation = 1; g_mutation <= 4; g_mutation++)
            CHECK_MSG(test_count_failures(compare) > 0, "mutation %d was not noticed", g_mutation);
        g_mutation = 0;
        bal_adapter_free(g_adapter);
    }
}
