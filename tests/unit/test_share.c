/* A beginning that all sequences share is computed once: losses and gradients are those of the whole batch.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/optim/step.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { VOCAB = 61, LONGEST = 220, SEQS = 4, MOST = SEQS * LONGEST };

static const char k_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":24,\"intermediate_size\":40,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":61,\"rms_norm_eps\":1e-5,"
    "\"max_position_embeddings\":512,\"initializer_range\":0.3,\"tie_word_embeddings\":true}";

typedef struct world {
    bal_model *model;
    bal_adapter *adapter;
    bal_params *params;
    bal_step step;
    bal_batch batch;
} world;

static int g_wrong; /* the mutation: the second sequence loses one token more than it shares */

/* Sequences that share `common` tokens, each with own[s] of its own; those from own / 2 on are labelled. */
static bool fill(bal_batch *b, size_t common, const size_t own[SEQS])
{
    int32_t ids[LONGEST], labels[LONGEST];
    bal_rng rng;
    bal_rng_init(&rng, 4, "text");
    for (size_t i = 0; i < common; i++)
        ids[i] = (int32_t)bal_rng_below(&rng, VOCAB);
    bal_batch_clear(b);
    for (size_t s = 0; s < SEQS; s++) {
        size_t n = common + own[s];
        for (size_t i = 0; i < n; i++) {
            if (i >= common)
                ids[i] = (int32_t)((bal_rng_below(&rng, VOCAB / SEQS) * SEQS) + s); /* the first ones differ */
            labels[i] = i > common && i >= common + own[s] / 2 ? ids[i] : BAL_LABEL_NONE;
        }
        if (!CHECK_OK(bal_batch_add(b, ids, labels, n)))
            return false;
    }
    return true;
}

static bool build(world *w, bool lora, bool share, bool checkpoint)
{
    static char all[] = "all-linear";
    char *targets[] = {all};
    bal_adapter_config a = {.r = 3, .lora_alpha = 6, .target_modules = targets, .n_target_modules = 1};
    bal_step_config c = {
        .loss = {.lambda_consistency = lora ? 0.3 : 0,
                 .lambda_diversity = 0.1,
                 .lambda_svd = 0.1,
                 .temperature = 2,
                 .top_k_entropy = 10,
                 .svd_top_k = 3,
                 .train_head = !lora},
        .adamw = {0.9, 0.999, 1e-8, 0},
        .pass = {.max_tokens = MOST, .max_seqs = SEQS, .max_seq_len = LONGEST, .checkpoint_activations = checkpoint},
        .share_prefix = share};
    bal_rng rng;
    bal_rng_init(&rng, 9, "factors");
    (void)snprintf(a.init, sizeof a.init, "pissa");
    *w = (world){0};
    if (!CHECK_OK(bal_model_new(&w->model, k_config, 3)) || !CHECK_OK(bal_batch_init(&w->batch, MOST, SEQS)))
        return false;
    w->params = &w->model->params;
    if (lora) {
        if (!CHECK_OK(bal_adapter_new(&w->adapter, &a, w->model->modules, w->model->n_modules, 5, true)) ||
            !CHECK_OK(bal_model_attach(w->model, w->adapter)))
            return false;
        w->params = &w->adapter->params;
    }
    for (size_t i = 0; i < w->params->n; i++)
        w->params->values[i] += (real_t)(0.1 * bal_rng_normal(&rng));
    return CHECK_OK(bal_step_init(&w->step, w->model, w->params, &c));
}

static void destroy(world *w)
{
    bal_step_dispose(&w->step);
    bal_batch_dispose(&w->batch);
    if (w->model != NULL)
        (void)bal_model_attach(w->model, NULL);
    bal_adapter_free(w->adapter);
    bal_model_free(w->model);
}

static double relative_difference(const bal_params *a, const bal_params *b)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < a->n; i++) {
        double d = (double)a->grads[i] - (double)b->grads[i];
        difference += d * d;
        size += (double)a->grads[i] * (double)a->grads[i];
    }
    return sqrt(difference / size);
}

static bool g_lora, g_checkpoint;
static size_t g_common;

static void check_equal(void)
{
    static const size_t own[SEQS] = {5, 100, 2, 66};
    const double lr[2] = {0, 0}, bound = BAL_REAL_IS_DOUBLE ? 1e-10 : 2e-4;
    const bal_loss_weights weights = {g_lora ? 0.3 : 0, 0.1, 0.1};
    bal_step_result whole, shared;
    world a = {0}, b = {0};
    if (build(&a, g_lora, false, g_checkpoint) && build(&b, g_lora, true, g_checkpoint) &&
        fill(&a.batch, g_common, own) && fill(&b.batch, g_common, own)) {
        if (g_wrong != 0) {
            bal_batch_share(&b.batch, 8);
            b.batch.tokens[g_common / 2] ^= 1;
        }
        bal_batch *la[] = {&a.batch}, *lb[] = {&b.batch};
        CHECK_OK(bal_step_run(&a.step, la, 1, 1, lr, &weights, &whole));
        CHECK_OK(bal_step_run(&b.step, lb, 1, 1, lr, &weights, &shared));
        CHECK(a.batch.n_shared == 0 && b.batch.n_shared == g_common);
        CHECK(b.batch.n_tokens + (SEQS - 1) * g_common == a.batch.n_tokens);
        CHECK(whole.tokens == shared.tokens && whole.rows == shared.rows);
        CHECK_NEAR(shared.values.total, whole.values.total, bound);
        CHECK_NEAR(shared.values.spectral, whole.values.spectral, bound);
        CHECK_NEAR(relative_difference(a.params, b.params), 0, bound);
    }
    destroy(&a);
    destroy(&b);
}

TEST(losses_and_gradients_are_those_of_the_whole_batch)
{
    static const size_t commons[] = {8, 64, 65, 100};
    for (size_t i = 0; i < sizeof commons / sizeof *commons; i++) {
        g_common = commons[i];
        for (int form = 0; form < 3; form++) {
            g_lora = form != 1;
            g_checkpoint = form == 2;
            check_equal();
        }
    }
    g_wrong = 1;
    CHECK(test_count_failures(check_equal) > 0);
    g_wrong = 0;
}

TEST(what_is_shared)
{
    bal_batch b;
    static const int32_t ids[6] = {1, 2, 3, 4, 5, 6}, none[6] = {-100, -100, -100, -100, -100, -100},
                         late[6] = {-100, -100, -100, -100, 5, 6}, early[6] = {-100, -100, 3, 4, 5, 6};
    if (!CHECK_OK(bal_batch_init(&b, 64, 8)))
        return;
    bal_batch_clear(&b);
    CHECK_OK(bal_batch_add(&b, ids, late, 6));
    bal_batch_share(&b, 1);
    CHECK(b.n_shared == 0); /* one sequence shares with nobody */
    CHECK_OK(bal_batch_add(&b, ids, late, 6));
    bal_batch_share(&b, 4);
    CHECK(b.n_shared == 0); /* token 3 predicts the label at 4: it stays */
    bal_batch_share(&b, 3);
    CHECK(b.n_shared == 3 && b.seq_start[0] == 3 && b.seq_start[1] == 6 && b.seq_start[2] == 9 && b.n_tokens == 9);
    CHECK(bal_batch_text_tokens(&b) == 12 && b.tokens[3] == 4 && b.tokens[6] == 4 && b.label[7] == 5);
    bal_batch_share(&b, 1);
    CHECK(b.n_shared == 3 && b.n_tokens == 9);
    bal_batch_finish(&b, false);
    CHECK(b.n_rows == 4 && b.rows[0] == 3 && b.target[0] == 5 && b.rows[2] == 6);
    bal_batch_clear(&b);
    CHECK_OK(bal_batch_add(&b, ids, none, 3));
    CHECK_OK(bal_batch_add(&b, ids, early, 6));
    bal_batch_share(&b, 1);
    CHECK(b.n_shared == 1);
    bal_batch_clear(&b);
    CHECK_OK(bal_batch_add(&b, ids, none, 6));
    CHECK_OK(bal_batch_add(&b, ids, none, 3));
    bal_batch_share(&b, 1);
    CHECK(b.n_shared == 2); /* the shorter one keeps a token */
    bal_batch_clear(&b);
    CHECK(b.n_shared == 0 && b.seq_start[0] == 0);
    CHECK_OK(bal_batch_add(&b, ids, none, 6));
    CHECK_OK(bal_batch_add(&b, ids + 1, none, 5));
    bal_batch_share(&b, 1);
    CHECK(b.n_shared == 0);
    bal_batch_dispose(&b);
}
