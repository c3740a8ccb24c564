/* An adapter on the output head, or a copy of it (modules_to_save): gradients of all loss terms with respect to its parameters and to the hidden rows, by
 * central differences, with an untied and a tied head, plain and soft-capped; mutations must be noticed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"
#include "lib/base/rng.h"
#include "lib/loss/lm_loss.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { TOKENS = 7, HIDDEN = 10, VOCAB = 13 };
#define STEP  1e-5
#define BOUND 2e-7

typedef enum mutation { NONE, SIGN, TENTH, DROPPED, NO_ADAPTER, MUTATIONS } mutation;

static struct {
    bal_model *model;
    bal_adapter *adapter;
    bal_lm_loss *loss;
    bal_batch batch;
    bal_loss_config config;
    real_t final[TOKENS * HIDDEN], teacher[TOKENS * HIDDEN], dfinal[TOKENS * HIDDEN];
    const char *only; /* segments whose gradient is that of the loss; NULL: all */
    mutation mutation;
} g;

static void free_all(void)
{
    bal_lm_loss_free(g.loss);
    bal_batch_dispose(&g.batch);
    bal_model_free(g.model);
    bal_adapter_free(g.adapter);
    memset(&g, 0, sizeof g);
}

static bool set_up(const char *method, const char *start, const char *tied, double cap)
{
    static const int32_t ids[TOKENS] = {1, 5, 12, 0, 7, 5, 2}, labels[TOKENS] = {-100, 5, 12, -100, 7, 5, 2};
    char text[512], head[] = "lm_head", other[] = "q_proj", *targets[] = {head}, *saved[] = {head};
    bool copy = strcmp(method, "copy") == 0;
    bal_rng rng;
    bal_adapter_config c = {.method = bal_method_named(copy ? "lora" : method),
                            .r = 2,
                            .lora_alpha = 3,
                            .target_modules = targets,
                            .n_target_modules = 1,
                            .task_type = "CAUSAL_LM"};
    if (copy) {
        targets[0] = other;
        c.modules_to_save = saved;
        c.n_modules_to_save = 1;
    }
    memset(&g, 0, sizeof g);
    bal_rng_init(&rng, 4, "head");
    (void)snprintf(text, sizeof text,
                   "{\"model_type\": \"llama\", \"num_hidden_layers\": 1, \"hidden_size\": %d, "
                   "\"num_attention_heads\": 2, \"num_key_value_heads\": 2, \"head_dim\": 6, \"intermediate_size\": 7, "
                   "\"vocab_size\": %d, "
                   "\"tie_word_embeddings\": %s, \"initializer_range\": 0.6, \"max_position_embeddings\": 16}",
                   HIDDEN, VOCAB, tied);
    (void)snprintf(c.init, sizeof c.init, "%s", start);
    bal_adapter_config_defaults(&c);
    if (!CHECK_OK(bal_model_new(&g.model, text, 5)) ||
        !CHECK_OK(bal_adapter_new(&g.adapter, &c, g.model->modules, g.model->n_modules, 3, true)) ||
        !CHECK_OK(bal_model_attach(g.model, g.adapter)))
        return false;
    g.model->config.logit_softcap = cap;
    for (size_t i = 0; i < g.adapter->params.n; i++)
        g.adapter->params.values[i] += (real_t)(0.3 * bal_rng_normal(&rng));
    for (size_t i = 0; i < TOKENS * HIDDEN; i++) {
        g.final[i] = (real_t)bal_rng_normal(&rng);
        g.teacher[i] = (real_t)bal_rng_normal(&rng);
    }
    g.config = (bal_loss_config){.lambda_consistency = 0.7,
                                 .lambda_diversity = 0.5,
                                 .lambda_svd = 0.9,
                                 .temperature = 2,
                                 .svd_top_k = 2,
                                 .chunk_rows = 3};
    bool made =
        CHECK_OK(bal_batch_init(&g.batch, TOKENS, 1)) && CHECK_OK(bal_lm_loss_new(&g.loss, g.model, &g.config, TOKENS));
    if (made) {
        bal_batch_clear(&g.batch);
        CHECK_OK(bal_batch_add(&g.batch, ids, labels, TOKENS));
        bal_batch_finish(&g.batch, false);
    }
    return made;
}

static double total(bool gradient)
{
    const bal_loss_weights w = {0.7, 0.5, 0.9};
    bal_loss_values v;
    bal_loss_values_zero(&v, &g.config);
    CHECK_OK(bal_lm_loss_run(g.loss, &g.batch, g.final, g.teacher, g.batch.n_rows, g.batch.n_reg_rows, &w, &v,
                             gradient ? g.dfinal : NULL, NULL));
    bal_loss_values_finish(&v, &w);
    return v.total;
}

/* Adds to the squares of a group of numbers what their differences say. */
static void compare(real_t *values, const real_t *grads, size_t n, double *difference, double *size)
{
    for (size_t i = 0; i < n; i++) {
        real_t keep = values[i];
        values[i] = keep + (real_t)STEP;
        double up = total(false);
        values[i] = keep - (real_t)STEP;
        double want = (up - total(false)) / (2 * STEP), got = (double)grads[i] - 0.25;
        values[i] = keep;
        *difference += (got - want) * (got - want);
        *size += got * got + want * want;
    }
}

static void check_head(void)
{
    bal_params *p = &g.adapter->params;
    double difference = 0, size = 0;
    for (size_t i = 0; i < p->n; i++)
        p->grads[i] = (real_t)0.25;
    for (size_t i = 0; i < TOKENS * HIDDEN; i++)
        g.dfinal[i] = (real_t)0.25;
    (void)total(true);
    for (size_t i = 0; i < p->n; i++) {
        if (g.mutation == SIGN)
            p->grads[i] = (real_t)0.5 - p->grads[i];
        else if (g.mutation == TENTH)
            p->grads[i] += (real_t)0.1 * (p->grads[i] - (real_t)0.25);
        else if (g.mutation == DROPPED && i % 2 == 0)
            p->grads[i] = (real_t)0.25;
    }
    if (g.mutation == NO_ADAPTER)
        g.model->head.site = NULL; /* the differences are those of the bare head */
    for (size_t i = 0; i < p->n_segments; i++)
        if (g.only == NULL || strstr(p->segments[i].name, g.only) != NULL)
            compare(p->values + p->segments[i].offset, p->grads + p->segments[i].offset, p->segments[i].n, &difference,
                    &size);
    CHECK_MSG(sqrt(difference) <= BOUND * sqrt(size), "parameters: off by %g", sqrt(difference / size));
    difference = size = 0;
    compare(g.final, g.dfinal, TOKENS * HIDDEN, &difference, &size);
    CHECK_MSG(sqrt(difference) <= BOUND * sqrt(size), "hidden rows: off by %g", sqrt(difference / size));
    CHECK_OK(bal_model_attach(g.model, g.adapter));
}

static void check(const char *method, const char *start, const char *tied, double cap, const char *only)
{
    if (set_up(method, start, tied, cap)) {
        g.only = only;
        for (g.mutation = NONE; g.mutation <= DROPPED; g.mutation++) {
            size_t failures = g.mutation == NONE ? (check_head(), 0) : test_count_failures(check_head);
            CHECK_MSG((failures > 0) == (g.mutation != NONE), "mutation %d gave %zu failures", (int)g.mutation,
                      failures);
        }
    }
    free_all();
}

TEST(lora)
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    check("lora", "lora", "false", 0, NULL);
    check("lora", "lora", "true", 0, NULL);
    check("lora", "pissa", "false", 0, NULL);
    check("lora", "lora", "false", 3, NULL);
}

TEST(adalora)
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    check("adalora", "lora", "false", 0, NULL);
    check("adalora", "lora", "true", 3, NULL);
}

TEST(copy)
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    check("copy", "lora", "false", 0, "lm_head.weight");
    check("copy", "lora", "true", 0, "lm_head.weight");
    check("copy", "pissa", "true", 3, "lm_head.weight");
}

/* Its norms are constants of the gradient: only the magnitudes' is that of the loss. */
TEST(dora)
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    check("dora", "lora", "false", 0, "lora_magnitude_vector");
    check("dora", "pissa", "true", 3, "lora_magnitude_vector");
}

/* A and B of a DoRA head get the gradient that a module of the model gets for the same dZ. */
TEST(dora_as_in_a_module)
{
    enum { M = 4 };
    static real_t x[M * HIDDEN], dz[M * VOCAB], y[M * VOCAB], dout[M * VOCAB], scratch[4 * M * (VOCAB + HIDDEN + 4)],
        h[M * (VOCAB + 4)], block[2 * VOCAB * HIDDEN], grads[512];
    bal_rng rng;
    if (!set_up("dora", "pissa", "false", 0))
        return;
    const bal_site *s = &g.adapter->sites[0];
    bal_params *p = &g.adapter->params;
    bal_rng_init(&rng, 8, "head");
    for (size_t i = 0; i < M * HIDDEN; i++)
        x[i] = (real_t)bal_rng_normal(&rng);
    for (size_t i = 0; i < M * VOCAB; i++)
        dz[i] = (real_t)bal_rng_normal(&rng);
    memset(p->grads, 0, p->n * sizeof(real_t));
    bal_site_call c = {.site = s, .w = &g.model->head.w, .M = M, .x = x, .xa = x, .ldx = HIDDEN, .y = y, .ldy = VOCAB};
    c.h = h;
    c.scratch = scratch;
    c.dy = dz;
    s->method->prepare(s, c.w, block);
    bal_site_base_product(&c, x, HIDDEN, 0, y, VOCAB);
    s->method->forward(&c);
    s->method->backward_output(&c, dout);
    s->method->backward(&c);
    if (!CHECK(p->n <= 512))
        return;
    memcpy(grads, p->grads, p->n * sizeof *grads);
    memset(p->grads, 0, p->n * sizeof(real_t));
    s->method->rows_back(s, c.w, M, x, dz + 0, VOCAB, 0, 5, block); /* in two parts */
    s->method->rows_back(s, c.w, M, x, dz + 5, VOCAB, 5, VOCAB - 5, block);
    for (size_t i = 0; i < p->n; i++)
        CHECK_NEAR((double)p->grads[i], (double)grads[i], BAL_REAL_IS_DOUBLE ? 1e-12 : 1e-4);
    free_all();
}
