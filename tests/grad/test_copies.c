/* Tensors of the model that an adapter trains copies of: gradients of every trained number by central differences, wrong
 * ones noticed, and the teacher as if there were no adapter.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/grad/model_grad.h"

#define SIZES                                                                                                          \
    "\"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "          \
    "\"head_dim\": 6, \"intermediate_size\": 7, \"vocab_size\": 13, \"initializer_range\": 0.4, "                      \
    "\"rms_norm_eps\": 0.01, \"max_position_embeddings\": 12"

static const char k_llama[] =
    "{\"model_type\": \"llama\", \"attention_bias\": true, \"mlp_bias\": true, \"tie_word_embeddings\": true, " SIZES
    "}";
/* norms after the sum, with biases */
static const char k_opt[] =
    "{\"model_type\": \"opt\", \"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 5, \"ffn_dim\": "
    "7, \"vocab_size\": 13, \"max_position_embeddings\": 8, \"do_layer_norm_before\": false, \"word_embed_proj_dim\": "
    "10, \"init_std\": 0.4}";
/* one matrix for q, k and v; norms with biases; learned positions */
static const char k_gpt2[] =
    "{\"model_type\": \"gpt2\", \"n_layer\": 2, \"n_embd\": 10, \"n_head\": 5, \"n_inner\": 7, \"vocab_size\": 13, "
    "\"n_positions\": 12, \"initializer_range\": 0.4}";

static real_t g_own[TOKENS * HIDDEN];

/* The teacher has none of the copies: what the model alone gives, bit for bit. */
static void check_teacher(void)
{
    CHECK_OK(bal_pass_forward(g.pass, &g.batch, BAL_TEACHER));
    memcpy(g_own, bal_pass_final(g.pass, BAL_TEACHER), sizeof g_own);
    double moved = 0;
    CHECK_OK(bal_pass_forward(g.pass, &g.batch, BAL_STUDENT));
    for (size_t i = 0; i < TOKENS * HIDDEN; i++)
        moved += fabs((double)g_own[i] - (double)bal_pass_final(g.pass, BAL_STUDENT)[i]);
    CHECK_MSG(moved > 0.1, "student and teacher differ by %g", moved);
    CHECK_OK(bal_model_attach(g.model, NULL));
    CHECK_OK(bal_pass_forward(g.pass, &g.batch, BAL_STUDENT));
    CHECK(memcmp(g_own, bal_pass_final(g.pass, BAL_STUDENT), sizeof g_own) == 0);
    CHECK_OK(bal_model_attach(g.model, g.adapter));
}

static void check(const char *config, const char *targets, const char *method, bool checkpoint,
                  void (*configure)(bal_adapter_config *c))
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    g_configure = configure;
    if (set_up_model(&(model_setup){config, "lora", targets, 0, checkpoint, method})) {
        CHECK(g.adapter->n_copies > 0);
        check_teacher();
        g.only = strcmp(method, "dora") == 0 ? ".bias" : NULL; /* else DoRA's norms are constants on purpose */
        check_model();
        CHECK_MSG(g.only != NULL ? g.n_checked == g.adapter->n_copies : g.n_checked == g.params->n_segments,
                  "%zu of %zu tensors were compared", g.n_checked, g.params->n_segments);
    }
    free_all();
}

static void all_biases(bal_adapter_config *c)
{
    c->bias = BAL_BIAS_ALL;
}

static void adapted_biases(bal_adapter_config *c)
{
    c->bias = BAL_BIAS_LORA_ONLY;
}

static void nothing_more(bal_adapter_config *c)
{
    (void)c;
}

static char *g_names[4];

static void save(bal_adapter_config *c)
{
    c->modules_to_save = g_names;
    while (c->n_modules_to_save < 4 && g_names[c->n_modules_to_save] != NULL)
        c->n_modules_to_save++;
}

static void save_with_biases(bal_adapter_config *c)
{
    save(c);
    c->bias = BAL_BIAS_ALL;
}

static void saves(char *a, char *b, char *c)
{
    g_names[0] = a;
    g_names[1] = b;
    g_names[2] = c;
}

TEST(modules_to_save)
{
    char embed[] = "embed_tokens", norm[] = "norm", down[] = "down_proj", q[] = "q_proj", attn[] = "attn",
         wpe[] = "wpe", ln[] = "final_layer_norm", fc[] = "layers.0.fc1";
    saves(embed, NULL, NULL);
    check(k_llama, "v_proj", "lora", false, save);
    saves(norm, down, NULL);
    check(k_llama, "all-linear", "lora", true, save);
    check(k_llama, "v_proj", "loha", false, save);
    saves(embed, norm, q);
    check(k_llama, "down_proj", "lora", true, save_with_biases);
    saves(ln, fc, embed);
    check(k_opt, "v_proj", "lora", false, save_with_biases);
    saves(attn, wpe, NULL);
    check(k_gpt2, "c_fc", "lora", true, save);
    check(k_gpt2, "c_fc", "vera", false, save_with_biases);
}

TEST(bitfit)
{
    check(k_llama, "all-linear", "bitfit", false, nothing_more);
    check(k_opt, "all-linear", "bitfit", true, nothing_more);
    check(k_gpt2, "all-linear", "bitfit", false, nothing_more);
}

TEST(biases)
{
    check(k_llama, "v_proj", "lora", false, all_biases);
    check(k_llama, "all-linear", "lora", true, all_biases);
    check(k_llama, "down_proj", "vera", false, adapted_biases);
    check(k_llama, "o_proj", "dora", false, adapted_biases);
    check(k_opt, "v_proj", "lora", false, all_biases);
    check(k_opt, "fc1", "lora", true, adapted_biases);
    check(k_gpt2, "c_attn", "lora", false, all_biases);
    check(k_gpt2, "c_attn", "dora", true, all_biases);
}
