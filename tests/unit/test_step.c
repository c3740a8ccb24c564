/* The optimiser step: no allocation inside, micro-batches equal one batch, what is not finite is named.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/optim/step.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SEQS = 4, LENGTH = 7, VOCAB = 61 };

static const char k_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"vocab_size\":61,\"rms_norm_eps\":1e-5,"
    "\"max_position_embeddings\":64,\"initializer_range\":0.3,\"tie_word_embeddings\":false}";

typedef struct world {
    bal_model *model;
    bal_adapter *adapter;
    bal_step step;
    bal_batch batches[2];
    bal_batch *list[2];
    size_t n;
} world;

static char k_all[] = "all-linear";

/* micro: sequences in a micro-batch, SEQS or SEQS / 2. */
static bool build(world *w, size_t micro, bal_step_config c, const char *init)
{
    char *targets[] = {k_all};
    bal_adapter_config a = {.r = 2, .lora_alpha = 4, .target_modules = targets, .n_target_modules = 1};
    (void)snprintf(a.init, sizeof a.init, "%s", init);
    *w = (world){.n = SEQS / micro};
    c.adamw = (bal_adamw_config){0.9, 0.999, 1e-8, 0.01};
    c.max_grad_norm = 1;
    c.pass = (bal_pass_options){.max_tokens = micro * LENGTH, .max_seqs = micro, .max_seq_len = LENGTH};
    if (!CHECK_OK(bal_model_new(&w->model, k_config, 3)) ||
        !CHECK_OK(bal_adapter_new(&w->adapter, &a, w->model->modules, w->model->n_modules, 5, true)) ||
        !CHECK_OK(bal_model_attach(w->model, w->adapter)) ||
        !CHECK_OK(bal_step_init(&w->step, w->model, &w->adapter->params, &c)))
        return false;
    bal_rng rng;
    bal_rng_init(&rng, 11, "test");
    for (size_t s = 0; s < SEQS; s++) {
        bal_batch *b = &w->batches[s / micro];
        int32_t ids[LENGTH], labels[LENGTH];
        size_t n = LENGTH - s % 3;
        for (size_t i = 0; i < LENGTH; i++) {
            ids[i] = (int32_t)bal_rng_below(&rng, VOCAB);
            labels[i] = i < 2 ? BAL_LABEL_NONE : ids[i];
        }
        if (s % micro == 0 && !CHECK_OK(bal_batch_init(b, micro * LENGTH, micro)))
            return false;
        w->list[s / micro] = b;
        if (!CHECK_OK(bal_batch_add(b, ids, labels, n)))
            return false;
    }
    return true;
}

static void destroy(world *w)
{
    bal_step_dispose(&w->step);
    for (size_t i = 0; i < 2; i++)
        bal_batch_dispose(&w->batches[i]);
    if (w->model != NULL)
        (void)bal_model_attach(w->model, NULL);
    bal_adapter_free(w->adapter);
    bal_model_free(w->model);
}

static const bal_step_config k_all_terms = {.loss = {.lambda_consistency = 0.3,
                                                     .lambda_diversity = 0.1,
                                                     .lambda_svd = 0.1,
                                                     .temperature = 2,
                                                     .top_k_entropy = 10,
                                                     .svd_top_k = 3}};

static const bal_loss_weights k_weights = {0.3, 0.1, 0.1};

TEST(a_step_allocates_nothing)
{
    world w;
    double lr[2] = {1e-3, 1e-3};
    bal_step_result r;
    if (build(&w, SEQS / 2, k_all_terms, "pissa")) {
        CHECK_OK(bal_step_run(&w.step, w.list, w.n, 1, lr, &k_weights, &r));
        uint64_t before = bal_mem_count();
        for (size_t i = 2; i < 6; i++)
            CHECK_OK(bal_step_run(&w.step, w.list, w.n, i, lr, &k_weights, &r));
        CHECK(bal_mem_count() == before);
        CHECK(isfinite(r.values.total) && r.rows == r.values.n_rows);
    }
    destroy(&w);
}

TEST(micro_batches_are_the_batch)
{
    bal_step_config c = k_all_terms;
    c.loss.lambda_svd = 0; /* the spectral term is defined on a micro-batch */
    bal_loss_weights weights = {0.3, 0.1, 0};
    double lr[2] = {1e-2, 1e-2};
    world one, two;
    if (build(&one, SEQS, c, "lora") && build(&two, SEQS / 2, c, "lora")) {
        for (size_t step = 1; step < 5; step++) {
            bal_step_result a, b;
            CHECK_OK(bal_step_run(&one.step, one.list, one.n, step, lr, &weights, &a));
            CHECK_OK(bal_step_run(&two.step, two.list, two.n, step, lr, &weights, &b));
            CHECK_NEAR(b.values.task, a.values.task, 1e-5);
            CHECK_NEAR(b.values.diversity, a.values.diversity, 1e-5);
            CHECK_NEAR(b.grad_norm, a.grad_norm, 1e-4);
            CHECK(a.rows == b.rows && a.tokens == b.tokens);
        }
    }
    destroy(&one);
    destroy(&two);
}

/* The adaptive weight follows the teacher's entropy, the same for one micro-batch (known late) and two (known early). */
TEST(adaptive_weight)
{
    bal_step_config c = k_all_terms;
    c.loss.lambda_svd = 0;
    c.adaptive = true;
    c.adaptive_min = 0.1;
    c.adaptive_max = 1;
    bal_loss_weights weights = {0.3, 0.1, 0};
    double lr[2] = {1e-2, 1e-2};
    world one, two;
    if (build(&one, SEQS, c, "lora") && build(&two, SEQS / 2, c, "lora")) {
        for (size_t step = 1; step < 4; step++) {
            bal_step_result a, b;
            CHECK_OK(bal_step_run(&one.step, one.list, one.n, step, lr, &weights, &a));
            CHECK_OK(bal_step_run(&two.step, two.list, two.n, step, lr, &weights, &b));
            double want = bal_lambda1_adaptive(0.1, 1, a.values.teacher_entropy, VOCAB);
            CHECK_NEAR(a.weights.consistency, want, 1e-9);
            CHECK(want > 0.1 && want < 1);
            CHECK_NEAR(b.weights.consistency, want, 1e-6);
            CHECK_NEAR(b.values.total, a.values.total, 1e-5);
            CHECK_NEAR(b.grad_norm, a.grad_norm, 1e-4);
        }
    }
    destroy(&one);
    destroy(&two);
}

TEST(what_is_not_finite_is_named)
{
    world w;
    double lr[2] = {1e-3, 1e-3};
    bal_step_result r;
    bal_step_config c = {.loss = {.temperature = 1}};
    bal_loss_weights none = {0};
    if (build(&w, SEQS, c, "lora")) {
        w.adapter->loras[0].b[0] = (real_t)INFINITY;
        uint64_t t = w.step.adamw.t;
        CHECK_STATUS(bal_step_run(&w.step, w.list, w.n, 7, lr, &none, &r), BAL_ENUMERIC);
        CHECK(strstr(bal_error_message(), "step 7") != NULL && strstr(bal_error_message(), "loss/task") != NULL);
        CHECK(w.step.adamw.t == t);
    }
    destroy(&w);
}

TEST(a_step_without_labels_is_skipped)
{
    world w;
    double lr[2] = {1e-3, 1e-3};
    bal_step_result r;
    bal_step_config c = {.loss = {.temperature = 1}};
    bal_loss_weights none = {0};
    if (build(&w, SEQS, c, "lora")) {
        for (size_t i = 0; i < w.batches[0].n_tokens; i++)
            w.batches[0].label[i] = BAL_LABEL_NONE;
        CHECK_OK(bal_step_run(&w.step, w.list, w.n, 1, lr, &none, &r));
        CHECK(r.skipped && r.rows == 0 && isnan(r.grad_norm) && w.step.adamw.t == 0);
    }
    destroy(&w);
}
