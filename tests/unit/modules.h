/* Three small modules, and adapters on them, for the tests of lib/adapter.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TESTS_MODULES_H
#define BAL_TESTS_MODULES_H

#include "tests/test.h"

#include "lib/adapter/adapter.h"
#include "lib/base/rng.h"

#include <math.h>
#include <stdio.h>

enum { OUT0 = 12, IN0 = 8, OUT1 = 6, IN1 = 10 };

static real_t g_w0[OUT0 * IN0], g_w1[OUT1 * IN1], g_head[20 * IN0];
static bal_view g_views[3];
static bal_module g_modules[3];

static inline void make_modules(void)
{
    bal_rng rng;
    bal_rng_init(&rng, 7, "test");
    for (size_t i = 0; i < OUT0 * IN0; i++)
        g_w0[i] = (real_t)bal_rng_normal(&rng);
    for (size_t i = 0; i < OUT1 * IN1; i++)
        g_w1[i] = (real_t)bal_rng_normal(&rng);
    bal_dtype t = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32;
    g_views[0] = (bal_view){.dtype = t, .rows = OUT0, .cols = IN0, .row_bytes = IN0 * sizeof(real_t), .data = g_w0};
    g_views[1] = (bal_view){.dtype = t, .rows = OUT1, .cols = IN1, .row_bytes = IN1 * sizeof(real_t), .data = g_w1};
    g_views[2] = (bal_view){.dtype = t, .rows = 20, .cols = IN0, .row_bytes = IN0 * sizeof(real_t), .data = g_head};
    g_modules[0] = (bal_module){.name = "model.layers.0.self_attn.q_proj", .w = &g_views[0]};
    g_modules[1] = (bal_module){.name = "model.layers.0.mlp.down_proj", .w = &g_views[1]};
    g_modules[2] = (bal_module){.name = "lm_head", .w = &g_views[2]};
}

static inline bal_adapter_config config_of(char **targets, size_t n, const char *init)
{
    bal_adapter_config c = {
        .r = 3, .lora_alpha = 6, .target_modules = targets, .n_target_modules = n, .task_type = "CAUSAL_LM"};
    (void)snprintf(c.init, sizeof c.init, "%s", init);
    return c;
}

static inline bal_adapter *new_adapter(char **targets, size_t n, const char *init)
{
    bal_adapter *a = NULL;
    bal_adapter_config c = config_of(targets, n, init);
    make_modules();
    CHECK_OK(bal_adapter_new(&a, &c, g_modules, 3, 1, true));
    return a;
}

static inline void disturb(bal_adapter *a)
{
    bal_rng rng;
    bal_rng_init(&rng, 3, "disturb");
    for (size_t i = 0; i < a->params.n; i++)
        a->params.values[i] += (real_t)(0.1 * bal_rng_normal(&rng));
}

/* s (B A - B0 A0) of a lora by its definition. */
static inline double delta(const bal_lora *l, size_t row, size_t col)
{
    double sum = 0;
    for (size_t k = 0; k < l->r; k++) {
        sum += (double)l->b[row * l->r + k] * (double)l->a[k * l->in + col];
        if (l->a0 != NULL)
            sum -= (double)l->b0[row * l->r + k] * (double)l->a0[k * l->in + col];
    }
    return l->scale * sum;
}

static inline double largest_difference(const bal_adapter *a, const bal_adapter *b)
{
    double worst = 0;
    for (size_t m = 0; m < a->n_loras; m++) {
        const bal_lora *x = &a->loras[m], *y = bal_adapter_find(b, x->module);
        if (y == NULL || y->in != x->in || y->out != x->out)
            return INFINITY;
        for (size_t i = 0; i < x->out; i++)
            for (size_t j = 0; j < x->in; j++)
                worst = fmax(worst, fabs(delta(x, i, j) - delta(y, i, j)));
    }
    return worst;
}

#endif
