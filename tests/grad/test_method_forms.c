/* Adapter methods in whole models: gradients of every trained value by central differences; wrong gradients, and the
 * backward of an adapter with other values, are noticed.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"
#include "tests/grad/model_grad.h"

#define SIZES                                                                                                          \
    "\"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "          \
    "\"head_dim\": 6, \"intermediate_size\": 7, \"vocab_size\": 13, \"initializer_range\": 0.4, "                      \
    "\"rms_norm_eps\": 0.01, \"max_position_embeddings\": 8"

static const char k_llama[] =
    "{\"model_type\": \"llama\", \"attention_bias\": true, \"mlp_bias\": true, \"tie_word_embeddings\": true, " SIZES
    "}";
static const char k_gemma2[] = "{\"model_type\": \"gemma2\", \"sliding_window\": 2, \"attn_logit_softcapping\": 0.8, "
                               "\"query_pre_attn_scalar\": 3, " SIZES "}";
static const char k_opt[] =
    "{\"model_type\": \"opt\", \"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 5, \"ffn_dim\": "
    "7, "
    "\"vocab_size\": 13, \"max_position_embeddings\": 8, \"do_layer_norm_before\": false, \"word_embed_proj_dim\": 10}";

static real_t g_kept[4096];

/* The backward sees other values than the forward did. */
static void other_values(bal_model_config *c)
{
    (void)c;
    for (size_t i = 0; i < g.params->n; i++)
        g.params->values[i] *= (real_t)1.01;
}

static void check_spoiled(void)
{
    memcpy(g_kept, g.params->values, g.params->n * sizeof(real_t));
    g.spoil = other_values;
    check_gradients();
    g.spoil = NULL;
    memcpy(g.params->values, g_kept, g.params->n * sizeof(real_t));
}

static void check(const char *config, const char *targets, double dropout, bool checkpoint,
                  void (*configure)(bal_adapter_config *c))
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    g_configure = configure;
    if (set_up_model(&(model_setup){config, "lora", targets, dropout, checkpoint, NULL}) &&
        CHECK(g.params->n <= sizeof g_kept / sizeof *g_kept)) {
        check_model();
        CHECK_MSG(test_count_failures(check_spoiled) > 0, "a backward of other values was not noticed");
    }
    free_all();
}

static void use(bal_adapter_config *c, const char *method, size_t r)
{
    c->method = bal_method_named(method);
    c->r = r;
    bal_adapter_config_defaults(c);
}

static size_t key(const bal_adapter_config *c, const char *name)
{
    return (size_t)(bal_config_key(c, name) - c->keys);
}

static void loha_expanded(bal_adapter_config *c)
{
    use(c, "loha", 2);
}

static void loha_dense(bal_adapter_config *c)
{
    use(c, "loha", 4);
}

TEST(loha)
{
    check(k_llama, "all-linear", 0, false, loha_expanded);
    check(k_llama, "all-linear", 0, true, loha_dense);
    check(k_gemma2, "down_proj", 0, false, loha_expanded);
}

static void lokr_whole(bal_adapter_config *c)
{
    use(c, "lokr", 4);
}

static void lokr_split(bal_adapter_config *c)
{
    use(c, "lokr", 2);
}

static void lokr_both(bal_adapter_config *c)
{
    use(c, "lokr", 1);
    c->keys[key(c, "decompose_both")].number = 1;
}

static void lokr_factor(bal_adapter_config *c)
{
    use(c, "lokr", 1);
    c->keys[key(c, "decompose_factor")].number = 2;
}

TEST(lokr)
{
    check(k_llama, "all-linear", 0, false, lokr_whole);
    check(k_llama, "all-linear", 0, true, lokr_split);
    check(k_llama, "all-linear", 0, false, lokr_both);
    check(k_llama, "q_proj", 0, false, lokr_factor);
}

static char g_down[] = "down_proj", g_q[] = "q_proj";
static char *g_forward[] = {g_down, g_q};

static void ia3_mixed(bal_adapter_config *c)
{
    use(c, "ia3", 1);
    c->keys[key(c, "feedforward_modules")].list = g_forward;
    c->keys[key(c, "feedforward_modules")].n_list = 2;
}

TEST(ia3)
{
    check(k_llama, "all-linear", 0, false, ia3_mixed);
    check(k_llama, "down_proj", 0, true, ia3_mixed);
    check(k_gemma2, "all-linear", 0, false, ia3_mixed);
}

static void vera_plain(bal_adapter_config *c)
{
    use(c, "vera", 3);
}

TEST(vera)
{
    check(k_llama, "all-linear", 0, false, vera_plain);
    check(k_llama, "all-linear", 0.3, true, vera_plain);
    check(k_gemma2, "v_proj", 0, false, vera_plain);
}

static void houlsby_small(bal_adapter_config *c)
{
    use(c, "houlsby", 1);
    c->keys[key(c, "reduction_factor")].number = 3;
}

static void pfeiffer_small(bal_adapter_config *c)
{
    static char act[] = "gelu_new"; /* smooth: relu has no derivative where a difference may step over 0 */
    use(c, "pfeiffer", 1);
    c->keys[key(c, "reduction_factor")].number = 3;
    c->keys[key(c, "non_linearity")].text = act;
}

static void pfeiffer_relu(bal_adapter_config *c)
{
    use(c, "pfeiffer", 1);
    c->keys[key(c, "reduction_factor")].number = 3;
}

TEST(bottlenecks)
{
    check(k_llama, "o_proj", 0, false, houlsby_small);
    check(k_llama, "down_proj", 0, true, houlsby_small);
    check(k_gemma2, "down_proj", 0, false, houlsby_small);
    check(k_llama, "down_proj", 0, false, pfeiffer_small);
    check(k_llama, "o_proj", 0, true, pfeiffer_small);
    check(k_llama, "down_proj", 0, false, pfeiffer_relu);
    check(k_gemma2, "down_proj", 0, false, pfeiffer_small);
    check(k_opt, "fc2", 0, false, pfeiffer_small);
    check(k_opt, "out_proj", 0, false, houlsby_small);
}
