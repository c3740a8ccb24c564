/* Gradients of a whole model: of sum(w * final hidden), w random, with respect to every trainable number, by central
 * differences, and mutations that must be noticed.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TESTS_GRAD_MODEL_GRAD_H
#define BAL_TESTS_GRAD_MODEL_GRAD_H

#include "lib/adapter/method.h"
#include "lib/base/rng.h"
#include "lib/model/pass.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define STEP  3e-6 /* at 1e-5 the third derivative is 1e-7 of some slopes; below 1e-6 rounding is */
#define BOUND 1e-7
#define FLOOR 1e-8 /* rounding of the differences; a bias of k without rotation has no gradient at all */

enum { TOKENS = 10, HIDDEN = 10 };

typedef enum mutation { NONE, SIGN, TENTH, DROPPED, OVERWRITTEN, MUTATIONS } mutation;

static struct {
    bal_model *model;
    bal_adapter *adapter;
    bal_pass *pass;
    bal_batch batch;
    bal_params *params;
    bal_rng start; /* of the dropout stream, for each forward the same */
    real_t weight[TOKENS * HIDDEN];
    mutation mutation;
    const char *only;                   /* check these segments alone; NULL: all */
    size_t n_checked;                   /* segments that the last check_gradients() compared */
    void (*spoil)(bal_model_config *c); /* makes the backward that of another model; may be NULL */
} g;

typedef struct model_setup {
    const char *config, *init, *targets; /* init NULL: all weights are trained */
    double dropout;
    bool checkpoint;
    const char *method; /* NULL: lora */
} model_setup;

static void (*g_configure)(bal_adapter_config *c); /* method, rank and keys of the next set_up(); may be NULL */
static bal_adapter_path g_path;                    /* how the next set_up() applies adapters */

static void free_all(void)
{
    bal_pass_free(g.pass);
    bal_batch_dispose(&g.batch);
    bal_model_free(g.model);
    bal_adapter_free(g.adapter);
    memset(&g, 0, sizeof g);
}

static bool make_adapter(const model_setup *s)
{
    char target[64], *targets[] = {target};
    bal_adapter_config c = {
        .r = 2, .lora_alpha = 3, .target_modules = targets, .n_target_modules = 1, .task_type = "CAUSAL_LM"};
    (void)snprintf(c.init, sizeof c.init, "%s", s->init);
    c.method = bal_method_named(s->method != NULL ? s->method : "lora");
    if (!CHECK(c.method != NULL))
        return false;
    bal_adapter_config_defaults(&c);
    if (g_configure != NULL)
        g_configure(&c);
    (void)snprintf(target, sizeof target, "%s", s->targets);
    return CHECK_OK(bal_adapter_new(&g.adapter, &c, g.model->modules, g.model->n_modules, 3, true)) &&
           CHECK_OK(bal_model_attach(g.model, g.adapter));
}

static bool set_up_model(const model_setup *s)
{
    static const int32_t ids[TOKENS] = {1, 5, 12, 0, 7, 5, 5, 2, 11, 3};
    bal_rng rng;
    memset(&g, 0, sizeof g);
    bal_rng_init(&rng, 3, "test");
    if (!CHECK_OK(bal_model_new(&g.model, s->config, 5)))
        return false;
    for (size_t i = 0; i < g.model->params.n; i++) /* norms and biases away from 1 and 0 */
        g.model->params.values[i] += (real_t)(0.2 * bal_rng_normal(&rng));
    if (s->init != NULL && !make_adapter(s))
        return false;
    g.params = s->init != NULL ? &g.adapter->params : &g.model->params;
    for (size_t i = 0; s->init != NULL && i < g.params->n; i++)
        g.params->values[i] += (real_t)(0.3 * bal_rng_normal(&rng));
    const bal_pass_options o = {.max_tokens = TOKENS,
                                .max_seqs = 3,
                                .backward = true,
                                .teacher = true,
                                .checkpoint_activations = s->checkpoint,
                                .dropout = s->dropout,
                                .adapter_path = g_path,
                                .seed = 9};
    if (!CHECK_OK(bal_pass_new(&g.pass, g.model, &o)) || !CHECK_OK(bal_batch_init(&g.batch, TOKENS, 3)))
        return false;
    bal_batch_clear(&g.batch);
    CHECK_OK(bal_batch_add(&g.batch, ids, NULL, 3));
    CHECK_OK(bal_batch_add(&g.batch, ids + 3, NULL, 1));
    CHECK_OK(bal_batch_add(&g.batch, ids + 4, NULL, 6));
    bal_batch_finish(&g.batch, false);
    g.start = *bal_pass_rng(g.pass);
    for (size_t i = 0; i < TOKENS * HIDDEN; i++)
        g.weight[i] = (real_t)bal_rng_normal(&rng);
    return true;
}

static double projection(void)
{
    double sum = 0;
    *bal_pass_rng(g.pass) = g.start;
    CHECK_OK(bal_pass_forward(g.pass, &g.batch, BAL_STUDENT));
    for (size_t i = 0; i < TOKENS * HIDDEN; i++)
        sum += (double)bal_pass_final(g.pass, BAL_STUDENT)[i] * (double)g.weight[i];
    return sum;
}

static void mutate(void)
{
    for (size_t i = 0; i < g.params->n; i++) {
        if (g.mutation == SIGN)
            g.params->grads[i] = (real_t)0.5 - g.params->grads[i];
        else if (g.mutation == TENTH)
            g.params->grads[i] += (real_t)0.1 * (g.params->grads[i] - (real_t)0.25);
        else if (g.mutation == DROPPED && i % 2 == 0)
            g.params->grads[i] = (real_t)0.25;
        else if (g.mutation == OVERWRITTEN)
            g.params->grads[i] -= (real_t)0.25;
    }
}

static void check_segment(const bal_segment *s)
{
    double difference = 0, size = 0;
    for (size_t i = s->offset; i < s->offset + s->n; i++) {
        real_t keep = g.params->values[i];
        g.params->values[i] = keep + (real_t)STEP;
        double up = projection();
        g.params->values[i] = keep - (real_t)STEP;
        double down = projection();
        g.params->values[i] = keep;
        double want = (up - down) / (2 * STEP), got = (double)g.params->grads[i] - 0.25;
        difference += (got - want) * (got - want);
        size += got * got + want * want;
    }
    CHECK_MSG(sqrt(difference) <= BOUND * sqrt(size) + FLOOR, "%s: relative difference %g", s->name,
              sqrt(difference / size));
}

static void check_gradients(void)
{
    for (size_t i = 0; i < g.params->n; i++)
        g.params->grads[i] = (real_t)0.25;
    (void)projection();
    CHECK_OK(bal_pass_forward(g.pass, &g.batch, BAL_TEACHER)); /* must not disturb what the student keeps */
    bal_pass_clear_dfinal(g.pass, TOKENS);
    memcpy(bal_pass_dfinal(g.pass), g.weight, sizeof g.weight);
    const bal_model_config keep = g.model->config;
    if (g.spoil != NULL)
        g.spoil(&g.model->config);
    CHECK_OK(bal_pass_backward(g.pass, &g.batch));
    g.model->config = keep;
    mutate();
    g.n_checked = 0;
    for (size_t i = 0; i < g.params->n_segments; i++)
        if (strcmp(g.params->segments[i].name, "lm_head.weight") != 0 && /* the head is the losses' */
            (g.only == NULL || strstr(g.params->segments[i].name, g.only) != NULL)) {
            check_segment(&g.params->segments[i]);
            g.n_checked++;
        }
    CHECK_MSG(g.n_checked > 0, "no tensor was compared");
}

/* The gradients are right, and wrong ones are seen. */
static void check_model(void)
{
    check_gradients();
    for (g.mutation = SIGN; g.mutation < MUTATIONS; g.mutation++)
        CHECK_MSG(test_count_failures(check_gradients) > 0, "mutation %d was not noticed", (int)g.mutation);
    g.mutation = NONE;
}

#endif
