/* The pieces that the families add, in whole models: windows, biases, norms of heads, norms after, 1 + w, soft caps, two
 * rotary bases, fused matrices, learned positions, layer norms, norms after the sum.  Each with an adapter and with all
 * weights trained; a backward of a slightly different model must be noticed.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/grad/model_grad.h"

#define SIZES                                                                                                          \
    "\"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "          \
    "\"head_dim\": 6, \"intermediate_size\": 7, \"vocab_size\": 13, \"initializer_range\": 0.4, "                      \
    "\"rms_norm_eps\": 0.01, \"max_position_embeddings\": 8, "

typedef void spoil(bal_model_config *c);

static void check_family(const char *config, const char *targets, spoil *const *spoils)
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    const model_setup setups[] = {{config, "lora", targets, 0, false, NULL},
                                  {config, "pissa", "all-linear", 0.3, true, NULL},
                                  {config, NULL, NULL, 0, false, NULL}};
    for (size_t i = 0; i < 3; i++) {
        if (set_up_model(&setups[i])) {
            if (i == 0)
                check_model();
            else
                check_gradients();
            for (size_t j = 0; i == 0 && spoils[j] != NULL; j++) {
                g.spoil = spoils[j];
                CHECK_MSG(test_count_failures(check_gradients) > 0, "wrong backward %zu was not noticed", j);
            }
        }
        free_all();
    }
}

static void wider_window(bal_model_config *c)
{
    c->window++;
}

static void every_layer_slides(bal_model_config *c)
{
    for (size_t i = 0; i < c->n_layers; i++)
        bal_layer_put(&c->sliding, i, true);
}

static void other_epsilon(bal_model_config *c)
{
    c->norm_eps *= 1.01;
}

static void no_plus_one(bal_model_config *c)
{
    c->norm = BAL_NORM_RMS;
}

static void exact_gelu(bal_model_config *c)
{
    c->act = BAL_ACT_GELU;
}

static void norm_elsewhere(bal_model_config *c)
{
    c->norm_after_add = !c->norm_after_add;
}

static void one_base(bal_model_config *c)
{
    c->local_rope.kind = BAL_ROPE_NONE;
}

TEST(mistral)
{
    check_family("{\"model_type\": \"mistral\", " SIZES "\"sliding_window\": 2}", "v_proj",
                 (spoil *const[]){wider_window, NULL});
}

TEST(qwen2)
{
    check_family("{\"model_type\": \"qwen2\", " SIZES
                 "\"use_sliding_window\": true, \"max_window_layers\": 1, \"sliding_window\": 2}",
                 "k_proj", (spoil *const[]){wider_window, every_layer_slides, NULL});
}

TEST(qwen3)
{
    check_family("{\"model_type\": \"qwen3\", " SIZES "\"attention_bias\": true}", "q_proj",
                 (spoil *const[]){other_epsilon, NULL});
}

TEST(phi3)
{
    static const char config[] = "{\"model_type\": \"phi3\", " SIZES "\"sliding_window\": 3, \"pad_token_id\": 0}";
    check_family(config, "qkv_proj", (spoil *const[]){wider_window, NULL});
    check_family(config, "gate_up_proj", (spoil *const[]){other_epsilon, NULL});
}

TEST(gemma)
{
    check_family("{\"model_type\": \"gemma\", " SIZES "\"hidden_activation\": null}", "down_proj",
                 (spoil *const[]){no_plus_one, exact_gelu, NULL});
}

TEST(gemma2)
{
    check_family("{\"model_type\": \"gemma2\", " SIZES
                 "\"sliding_window\": 2, \"attn_logit_softcapping\": 0.8, \"query_pre_attn_scalar\": 3}",
                 "q_proj", (spoil *const[]){wider_window, every_layer_slides, no_plus_one, exact_gelu, NULL});
}

TEST(gemma3)
{
    check_family("{\"model_type\": \"gemma3_text\", " SIZES
                 "\"sliding_window\": 3, \"sliding_window_pattern\": 2, \"rope_theta\": 50, "
                 "\"rope_local_base_freq\": 5, \"query_pre_attn_scalar\": 3}",
                 "k_proj", (spoil *const[]){wider_window, every_layer_slides, one_base, other_epsilon, NULL});
}

TEST(gpt2)
{
    check_family("{\"model_type\": \"gpt2\", \"n_layer\": 2, \"n_embd\": 10, \"n_head\": 2, \"n_inner\": 7, "
                 "\"vocab_size\": 13, \"n_positions\": 6, \"initializer_range\": 0.4}",
                 "c_attn", (spoil *const[]){exact_gelu, NULL});
}

#define OPT                                                                                                            \
    "{\"model_type\": \"opt\", \"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 2, "            \
    "\"ffn_dim\": 7, \"vocab_size\": 13, \"max_position_embeddings\": 6, \"init_std\": 0.4, "

TEST(opt)
{
    check_family(OPT "\"do_layer_norm_before\": true}", "fc1", (spoil *const[]){exact_gelu, NULL});
    check_family(OPT "\"do_layer_norm_before\": false}", "out_proj", (spoil *const[]){norm_elsewhere, NULL});
}

static void scaled_alike(bal_model_config *c)
{
    c->scale_by_layer = false;
}

static void all_turned(bal_model_config *c)
{
    for (size_t i = 0; i < c->n_layers; i++)
        bal_layer_put(&c->unrotated, i, false);
}

static void other_bands(bal_model_config *c)
{
    c->rope.short_factor[1] *= 1.05F;
    c->rope.long_factor[1] *= 1.05F;
}

TEST(gpt2_by_layer)
{
    check_family("{\"model_type\": \"gpt2\", \"n_layer\": 2, \"n_embd\": 10, \"n_head\": 2, \"n_inner\": 7, "
                 "\"vocab_size\": 13, \"n_positions\": 6, \"initializer_range\": 0.4, "
                 "\"scale_attn_by_inverse_layer_idx\": true}",
                 "c_attn", (spoil *const[]){scaled_alike, NULL});
}

TEST(opt_bare)
{
    check_family(OPT "\"enable_bias\": false, \"_remove_final_layer_norm\": true}", "fc2",
                 (spoil *const[]){exact_gelu, NULL});
}

TEST(smollm3)
{
    check_family("{\"model_type\": \"smollm3\", " SIZES
                 "\"no_rope_layer_interval\": 2, \"use_sliding_window\": true, \"sliding_window\": 3}",
                 "k_proj", (spoil *const[]){all_turned, wider_window, NULL});
}

TEST(stablelm)
{
    static const char config[] =
        "{\"model_type\": \"stablelm\", " SIZES "\"partial_rotary_factor\": 0.67, \"use_qkv_bias\": true}";
    check_family(config, "q_proj", (spoil *const[]){other_epsilon, NULL});
    check_family("{\"model_type\": \"stablelm\", " SIZES
                 "\"partial_rotary_factor\": 0.67, \"use_parallel_residual\": true}",
                 "gate_proj", (spoil *const[]){other_epsilon, NULL});
}

TEST(longrope)
{
    check_family("{\"model_type\": \"phi3\", " SIZES
                 "\"original_max_position_embeddings\": 3, \"rope_scaling\": {\"type\": \"su\", "
                 "\"partial_rotary_factor\": 0.7, "
                 "\"short_factor\": [1, 2], \"long_factor\": [1.5, 4]}}",
                 "qkv_proj", (spoil *const[]){other_bands, NULL});
}

/* Each piece changes what the model gives: none is read and forgotten. */
TEST(pieces_count)
{
    static const char *const pairs[][2] = {
        {"{\"model_type\": \"mistral\", " SIZES "\"sliding_window\": 2}",
         "{\"model_type\": \"mistral\", " SIZES "\"sliding_window\": null}"},
        {"{\"model_type\": \"gemma2\", " SIZES "\"attn_logit_softcapping\": 0.5}",
         "{\"model_type\": \"gemma2\", " SIZES "\"attn_logit_softcapping\": null}"},
        {"{\"model_type\": \"gemma2\", " SIZES "\"query_pre_attn_scalar\": 3}",
         "{\"model_type\": \"gemma2\", " SIZES "\"query_pre_attn_scalar\": 4}"},
        {"{\"model_type\": \"gemma3_text\", " SIZES "\"sliding_window_pattern\": 2, \"rope_local_base_freq\": 5}",
         "{\"model_type\": \"gemma3_text\", " SIZES "\"sliding_window_pattern\": 2, \"rope_local_base_freq\": 50}"},
        {"{\"model_type\": \"stablelm\", " SIZES "\"partial_rotary_factor\": 0.67}",
         "{\"model_type\": \"stablelm\", " SIZES "\"partial_rotary_factor\": 1}"},
        {"{\"model_type\": \"smollm3\", " SIZES "\"no_rope_layers\": [0, 1]}",
         "{\"model_type\": \"smollm3\", " SIZES "\"no_rope_layers\": [1, 1]}"},
        {OPT "\"activation_function\": \"relu\"}", OPT "\"activation_function\": \"gelu\"}"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        double value[2] = {0, 0};
        for (size_t k = 0; k < 2; k++) {
            if (set_up_model(&(model_setup){pairs[i][k], NULL, NULL, 0, false, NULL}))
                value[k] = projection();
            free_all();
        }
        CHECK_MSG(fabs(value[0] - value[1]) > 1e-4, "pair %zu: %g and %g", i, value[0], value[1]);
    }
}
