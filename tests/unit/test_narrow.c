/* The last block on the wanted rows alone: their final rows and all gradients are those of the whole batch.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter.h"
#include "lib/base/rng.h"
#include "lib/model/pass.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { VOCAB = 29, HIDDEN = 10, LONG = 150, SHORT = 9, TOKENS = LONG + 2 * SHORT };

#define SIZES                                                                                                          \
    "\"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "          \
    "\"head_dim\": 6, \"intermediate_size\": 7, \"vocab_size\": 29, \"initializer_range\": 0.4, "                      \
    "\"rms_norm_eps\": 0.01, \"max_position_embeddings\": 200"
#define OLD_SIZES "\"vocab_size\": 29, \"init_std\": 0.4, \"initializer_range\": 0.4, "

static const char *const k_models[] = {
    "{\"model_type\": \"llama\", " SIZES "}",
    "{\"model_type\": \"mistral\", " SIZES ", \"sliding_window\": 40}",
    "{\"model_type\": \"qwen3\", " SIZES ", \"attention_bias\": true}",
    "{\"model_type\": \"phi3\", " SIZES ", \"pad_token_id\": 0}", /* q, k and v, gate and up are one matrix each */
    "{\"model_type\": \"gemma2\", " SIZES
    ", \"sliding_window\": 30, \"attn_logit_softcapping\": 0.8, \"query_pre_attn_scalar\": 3}",
    "{\"model_type\": \"gpt2\", " OLD_SIZES
    "\"n_layer\": 2, \"n_embd\": 10, \"n_head\": 2, \"n_inner\": 7, \"n_positions\": 200}",
    "{\"model_type\": \"opt\", " OLD_SIZES "\"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 2, "
    "\"ffn_dim\": 7, \"max_position_embeddings\": 200, \"do_layer_norm_before\": false}", /* norms after the sums */
};

typedef struct world {
    bal_model *model;
    bal_adapter *adapter;
    bal_params *params;
    bal_pass *pass;
    bal_batch batch;
} world;

static const char *g_config;
static bool g_lora, g_checkpoint, g_unshifted;
static int g_wrong; /* the mutation: a row that counts is left out */

static bool build(world *w, bool narrow)
{
    static char all[] = "all-linear";
    char *targets[] = {all};
    bal_adapter_config a = {.r = 2, .lora_alpha = 3, .init = "lora", .target_modules = targets, .n_target_modules = 1};
    const bal_pass_options o = {.max_tokens = TOKENS,
                                .max_seqs = 3,
                                .backward = true,
                                .teacher = true,
                                .checkpoint_activations = g_checkpoint,
                                .labelled_rows_only = narrow};
    bal_rng rng;
    bal_rng_init(&rng, 9, "factors");
    *w = (world){0};
    if (!CHECK_OK(bal_model_new(&w->model, g_config, 3)) || !CHECK_OK(bal_batch_init(&w->batch, TOKENS, 3)))
        return false;
    w->params = &w->model->params;
    if (g_lora) {
        if (!CHECK_OK(bal_adapter_new(&w->adapter, &a, w->model->modules, w->model->n_modules, 5, true)) ||
            !CHECK_OK(bal_model_attach(w->model, w->adapter)))
            return false;
        w->params = &w->adapter->params;
    }
    for (size_t i = 0; i < w->params->n; i++) {
        w->params->values[i] += (real_t)(0.2 * bal_rng_normal(&rng));
        w->params->grads[i] = (real_t)0.25;
    }
    return CHECK_OK(bal_pass_new(&w->pass, w->model, &o));
}

static void destroy(world *w)
{
    bal_pass_free(w->pass);
    bal_batch_dispose(&w->batch);
    if (w->model != NULL)
        (void)bal_model_attach(w->model, NULL);
    bal_adapter_free(w->adapter);
    bal_model_free(w->model);
}

/* The end of the long text and one place near its begin are labelled, of the short ones all and nothing. */
static bool fill(bal_batch *b)
{
    int32_t ids[LONG], labels[LONG], none[SHORT];
    bal_rng rng;
    bal_rng_init(&rng, 4, "text");
    for (int i = 0; i < LONG; i++) {
        ids[i] = (int32_t)bal_rng_below(&rng, VOCAB);
        labels[i] = i == 5 || i >= LONG - 12 ? ids[i] : BAL_LABEL_NONE;
    }
    for (int i = 0; i < SHORT; i++)
        none[i] = BAL_LABEL_NONE;
    bal_batch_clear(b);
    if (!CHECK_OK(bal_batch_add(b, ids, labels, LONG)) || !CHECK_OK(bal_batch_add(b, ids + 3, ids + 3, SHORT)) ||
        !CHECK_OK(bal_batch_add(b, ids + 11, none, SHORT)))
        return false;
    bal_batch_finish(b, g_unshifted);
    return true;
}

/* Final rows of student and teacher and the gradients of a random weighting of the student's wanted rows. */
static bool run(world *w)
{
    bal_rng rng;
    bal_rng_init(&rng, 7, "weights");
    if (!CHECK_OK(bal_pass_forward(w->pass, &w->batch, BAL_STUDENT)) ||
        !CHECK_OK(bal_pass_forward(w->pass, &w->batch, BAL_TEACHER)))
        return false;
    bal_pass_clear_dfinal(w->pass, TOKENS);
    real_t *dfinal = bal_pass_dfinal(w->pass);
    for (size_t i = 0; i < w->batch.n_rows; i++)
        for (size_t k = 0; k < HIDDEN; k++)
            dfinal[w->batch.rows[i] * HIDDEN + k] += (real_t)bal_rng_normal(&rng);
    for (size_t i = 0; i < w->batch.n_reg_rows; i++)
        for (size_t k = 0; k < HIDDEN; k++)
            dfinal[w->batch.reg_rows[i] * HIDDEN + k] += (real_t)bal_rng_normal(&rng);
    return CHECK_OK(bal_pass_backward(w->pass, &w->batch));
}

static double distance(const real_t *a, const real_t *b, size_t n)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        size += (double)a[i] * (double)a[i];
    }
    return sqrt(difference / size);
}

static void check_equal(void)
{
    const double bound = BAL_REAL_IS_DOUBLE ? 1e-11 : 1e-4;
    world a = {0}, b = {0};
    if (build(&a, false) && build(&b, true) && fill(&a.batch) && fill(&b.batch)) {
        if (g_wrong != 0)
            b.batch.rows[0] = b.batch.reg_rows[0] = 40;
        if (run(&a) && run(&b)) {
            for (int role = 0; role < 2; role++)
                for (size_t i = 0; i < a.batch.n_rows + a.batch.n_reg_rows; i++) {
                    size_t row = i < a.batch.n_rows ? a.batch.rows[i] : a.batch.reg_rows[i - a.batch.n_rows];
                    CHECK_NEAR(distance(bal_pass_final(a.pass, (bal_role)role) + row * HIDDEN,
                                        bal_pass_final(b.pass, (bal_role)role) + row * HIDDEN, HIDDEN),
                               0, bound);
                }
            CHECK(g_wrong != 0 || bal_pass_final(b.pass, BAL_STUDENT)[100 * HIDDEN] == 0); /* is not computed */
            CHECK_NEAR(distance(a.params->grads, b.params->grads, a.params->n), 0, bound);
        }
    }
    destroy(&a);
    destroy(&b);
}

TEST(final_rows_and_gradients_are_those_of_the_whole_batch)
{
    for (size_t i = 0; i < sizeof k_models / sizeof *k_models; i++) {
        g_config = k_models[i];
        for (int form = 0; form < 4; form++) {
            g_lora = form != 1;
            g_checkpoint = form == 2;
            g_unshifted = form == 3;
            check_equal();
        }
        g_wrong = 1;
        CHECK_MSG(test_count_failures(check_equal) > 0, "a row left out was not noticed in model %zu", i);
        g_wrong = 0;
    }
}
