/* The model's pieces that LLaMA has: LoRA, residual start, dropout, recomputed activations and full weights.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/grad/model_grad.h"

static const char k_config[] =
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"head_dim\": 6, \"intermediate_size\": 7, \"vocab_size\": 13, \"attention_bias\": "
    "true, "
    "\"mlp_bias\": true, \"tie_word_embeddings\": %s, \"initializer_range\": 0.4, \"rms_norm_eps\": 0.01, "
    "\"max_position_embeddings\": 4, \"rope_scaling\": %s}";

typedef struct setup {
    const char *tied, *rope, *init, *targets; /* init NULL: all weights are trained */
    double dropout;
    bool checkpoint;
} setup;

static bool set_up(const setup *s)
{
    char text[512];
    (void)snprintf(text, sizeof text, k_config, s->tied, s->rope);
    return set_up_model(&(model_setup){text, s->init, s->targets, s->dropout, s->checkpoint, NULL});
}

static void check_setup(const setup *s)
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    if (set_up(s))
        check_model();
    free_all();
}

TEST(lora)
{
    check_setup(&(setup){"true", "null", "lora", "all-linear", 0, false});
}

TEST(some_modules)
{
    check_setup(&(setup){"true", "null", "gaussian", "layers.1.mlp.down_proj", 0, false});
    check_setup(&(setup){"true", "null", "lora", "v_proj", 0, true});
}

TEST(residual_start)
{
    check_setup(&(setup){"false", "null", "pissa", "all-linear", 0, false});
}

TEST(added_to_the_weight)
{
    g_path = BAL_ADAPTER_PANEL;
    check_setup(&(setup){"true", "null", "lora", "all-linear", 0, false});
    check_setup(&(setup){"false", "null", "pissa", "all-linear", 0, true});
    check_setup(&(setup){"true", "null", "gaussian", "layers.1.mlp.down_proj", 0, false});
    g_path = BAL_ADAPTER_AUTO;
}

/* Both ways to apply an adapter give the same. */
TEST(beside_or_in_the_panel)
{
    static const char *const starts[] = {"lora", "pissa"};
    for (size_t i = 0; i < 2; i++) {
        double value[2] = {0, 0};
        for (int path = 0; path < 2; path++) {
            const setup s = {"true", "null", starts[i], "all-linear", 0, false};
            g_path = path == 0 ? BAL_ADAPTER_SIDE : BAL_ADAPTER_PANEL;
            if (set_up(&s))
                value[path] = projection();
            if (path == 1) { /* the two are not the same code: without the adapter the value is another one */
                for (size_t j = 0; j < g.params->n; j++)
                    g.params->values[j] = 0;
                CHECK(fabs(projection() - value[0]) > 1e-3);
            }
            free_all();
        }
        CHECK_NEAR(value[1], value[0], BAL_REAL_IS_DOUBLE ? 1e-11 : 1e-3);
    }
    g_path = BAL_ADAPTER_AUTO;
}

TEST(dropout)
{
    check_setup(&(setup){"false", "null", "lora", "all-linear", 0.4, false});
}

TEST(recomputed)
{
    check_setup(&(setup){"true", "null", "pissa", "all-linear", 0.3, true});
}

TEST(dynamic_rope)
{
    check_setup(&(setup){"true", "{\"rope_type\": \"dynamic\", \"factor\": 2.0}", "lora", "all-linear", 0, false});
}

TEST(all_weights)
{
    check_setup(&(setup){"false", "null", NULL, NULL, 0, false});
    check_setup(&(setup){"true", "{\"rope_type\": \"yarn\", \"factor\": 2.0, \"original_max_position_embeddings\": 3}",
                         NULL, NULL, 0, true});
}

/* Dropout switches elements off: two draws differ, one draw repeats, the expectation is that of no dropout. */
TEST(dropout_masks)
{
    const setup s = {"true", "null", "lora", "all-linear", 0.5, false};
    if (set_up(&s)) {
        double first = projection(), again = projection();
        CHECK(first == again);
        CHECK_OK(bal_pass_forward(g.pass, &g.batch, BAL_STUDENT)); /* the stream moves on */
        double next = 0;
        for (size_t i = 0; i < TOKENS * HIDDEN; i++)
            next += (double)bal_pass_final(g.pass, BAL_STUDENT)[i] * (double)g.weight[i];
        CHECK(next != first);
        for (size_t i = 0; i < g.params->n; i++)
            g.params->values[i] = 0; /* no adapter, no dropout */
        double off = projection();
        CHECK_OK(bal_pass_forward(g.pass, &g.batch, BAL_TEACHER));
        double teacher = 0;
        for (size_t i = 0; i < TOKENS * HIDDEN; i++)
            teacher += (double)bal_pass_final(g.pass, BAL_TEACHER)[i] * (double)g.weight[i];
        CHECK_NEAR(off, teacher, BAL_REAL_IS_DOUBLE ? 1e-12 : 1e-4);
    }
    free_all();
}
