/* Configurations, batches and loading of models.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/model/batch.h"
#include "lib/model/config.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bal_status parse(const char *text, bal_model_config *c)
{
    cJSON *json = NULL;
    const bal_family *family = NULL;
    bal_status status = bal_json_parse(&json, text, strlen(text), "config.json");
    if (status == BAL_OK)
        status = bal_config_from_json(c, &family, json, "config.json");
    cJSON_Delete(json);
    return status;
}

#define SIZES                                                                                                          \
    "\"num_hidden_layers\": 2, \"hidden_size\": 32, \"num_attention_heads\": 4, \"intermediate_size\": 24, "           \
    "\"vocab_size\": 97"

TEST(config_of_both_spellings)
{
    bal_model_config a, b;
    CHECK_OK(parse("{\"model_type\": \"llama\", " SIZES ", \"rope_parameters\": {\"rope_theta\": 25000.0, "
                   "\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                   "\"original_max_position_embeddings\": 32}, \"eos_token_id\": [2, 5]}",
                   &a));
    CHECK_OK(parse("{\"model_type\": \"llama\", " SIZES ", \"rope_theta\": 25000.0, \"rope_scaling\": {\"type\": "
                   "\"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, \"high_freq_factor\": 4.0, "
                   "\"original_max_position_embeddings\": 32}, \"eos_token_id\": [2, 5]}",
                   &b));
    CHECK(memcmp(&a.rope, &b.rope, sizeof a.rope) == 0);
    CHECK(a.rope.kind == BAL_ROPE_LLAMA3 && a.rope.theta == 25000);
    CHECK(a.n_kv_heads == 4 && a.head_dim == 8 && a.n_eos == 2 && a.eos[1] == 5 && a.bos == -1);
    bal_buf text = {0};
    CHECK_OK(bal_config_to_json(&text, &a, "float32"));
    CHECK_OK(parse(bal_buf_cstr(&text), &b));
    CHECK(memcmp(&a.rope, &b.rope, sizeof a.rope) == 0);
    CHECK(a.hidden == b.hidden && a.n_eos == b.n_eos && a.norm_eps == b.norm_eps && a.tied_head == b.tied_head);
    bal_buf_dispose(&text);
}

/* What a key that is left out means differs from family to family (transformers' configuration classes). */
TEST(absent_keys)
{
    static const struct {
        const char *type;
        size_t head_dim, kv, rotary, window, positions;
        double theta, eps;
        bool tied;
    } cases[] = {{"llama", 2, 32, 2, 0, 2048, 1e4, 1e-6, false},
                 {"mistral", 2, 8, 2, 4096, 131072, 1e4, 1e-6, false},
                 {"qwen2", 2, 32, 2, 0, 32768, 1e4, 1e-6, false},
                 {"qwen3", 128, 32, 128, 0, 32768, 1e4, 1e-6, false},
                 {"phi3", 2, 32, 2, 0, 4096, 1e4, 1e-5, false},
                 {"gemma", 256, 16, 256, 0, 8192, 1e4, 1e-6, true},
                 {"gemma2", 256, 4, 256, 4096, 8192, 1e4, 1e-6, true},
                 {"gemma3_text", 256, 4, 256, 4096, 131072, 1e6, 1e-6, true},
                 {"smollm3", 2, 4, 2, 0, 32768, 2e6, 1e-6, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        cJSON *json = NULL;
        const bal_family *f = NULL;
        bal_model_config c;
        (void)snprintf(text, sizeof text,
                       "{\"model_type\": \"%s\", \"num_hidden_layers\": 1, \"hidden_size\": 64, "
                       "\"num_attention_heads\": 32, \"intermediate_size\": 8, \"vocab_size\": 9}",
                       cases[i].type);
        if (CHECK_OK(bal_json_parse(&json, text, strlen(text), "text")) &&
            CHECK_OK(bal_config_from_json(&c, &f, json, "text")))
            CHECK_MSG(c.head_dim == cases[i].head_dim && c.n_kv_heads == cases[i].kv &&
                          c.rotary_dim == cases[i].rotary && c.window == cases[i].window &&
                          c.max_positions == cases[i].positions && fabs(c.rope.theta - cases[i].theta) < 1e-9 &&
                          fabs(c.norm_eps - cases[i].eps) < 1e-12 && c.tied_head == cases[i].tied,
                      "%s: head_dim %zu, kv %zu, rotary %zu, window %zu, positions %zu, theta %g, eps %g, tied %d",
                      cases[i].type, c.head_dim, c.n_kv_heads, c.rotary_dim, c.window, c.max_positions, c.rope.theta,
                      c.norm_eps, c.tied_head);
        cJSON_Delete(json);
    }
}

/* Keys that mean something in some families only. */
TEST(keys_of_other_families)
{
    bal_model_config c;
    CHECK_OK(parse("{\"model_type\": \"llama\", " SIZES ", \"scale_attn_weights\": false, "
                   "\"scale_attn_by_inverse_layer_idx\": true}",
                   &c));
    CHECK_NEAR(c.attention_scale, 1 / sqrt(8), 1e-12);
    CHECK(!c.scale_by_layer);
    /* "gelu" of the first Gemma means the tanh form, that of the others what it says */
    CHECK_OK(parse("{\"model_type\": \"gemma\", " SIZES ", \"num_key_value_heads\": 4, \"hidden_act\": \"gelu\"}", &c));
    CHECK(c.act == BAL_ACT_GELU_TANH);
    CHECK_OK(parse("{\"model_type\": \"gemma2\", " SIZES ", \"hidden_activation\": \"gelu\"}", &c));
    CHECK(c.act == BAL_ACT_GELU);
    CHECK_OK(parse("{\"model_type\": \"gemma3_text\", " SIZES ", \"hidden_activation\": \"gelu\"}", &c));
    CHECK(c.act == BAL_ACT_GELU);
    CHECK_OK(parse("{\"model_type\": \"bert\", " SIZES ", \"num_key_value_heads\": 1, \"head_dim\": 2}", &c));
    CHECK(c.n_kv_heads == 4 && c.head_dim == 8);
    CHECK_OK(parse("{\"model_type\": \"phi3\", " SIZES ", \"sliding_window\": 3, \"layer_types\": "
                   "[\"full_attention\", \"full_attention\"]}",
                   &c));
    CHECK(c.window == 3 && bal_layer_in(&c.sliding, 0) && bal_layer_in(&c.sliding, 1));
    /* a window that is not used may be anything */
    CHECK_OK(parse("{\"model_type\": \"qwen2\", " SIZES ", \"num_key_value_heads\": 4, \"sliding_window\": 0}", &c));
    CHECK(c.window == 0);
    /* transformers writes it and does not read it */
    CHECK_OK(parse("{\"model_type\": \"gemma3_text\", " SIZES ", \"_sliding_window_pattern\": 2}", &c));
    CHECK(bal_layer_in(&c.sliding, 0) && bal_layer_in(&c.sliding, 1));
    CHECK_OK(parse("{\"model_type\": \"llama\", " SIZES
                   ", \"rope_parameters\": {\"rope_theta\": 7}, \"rope_scaling\": {}, "
                   "\"eos_token_id\": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}",
                   &c));
    CHECK(c.rope.theta == 7 && c.n_eos == 11);
    CHECK_OK(parse("{\"model_type\": \"smollm3\", " SIZES ", \"no_rope_layers\": [0, 1, 0]}", &c));
    CHECK(bal_layer_in(&c.unrotated, 0) && !bal_layer_in(&c.unrotated, 1));
    /* layer_types of SmolLM3 count without use_sliding_window */
    CHECK_OK(parse("{\"model_type\": \"smollm3\", " SIZES ", \"use_sliding_window\": false, \"sliding_window\": 5, "
                   "\"layer_types\": [\"sliding_attention\", \"full_attention\"]}",
                   &c));
    CHECK(c.window == 5 && bal_layer_in(&c.sliding, 0) && !bal_layer_in(&c.sliding, 1));
}

/* Where it is absent transformers takes 32000 for Phi-3, which the vocabulary need not have. */
TEST(padding_is_always_said)
{
    static const struct {
        const char *key, *written;
        int32_t pad;
    } cases[] = {{"", "\"pad_token_id\": null", -1},
                 {", \"pad_token_id\": null", "\"pad_token_id\": null", -1},
                 {", \"pad_token_id\": 5", "\"pad_token_id\": 5", 5},
                 {", \"pad_token_id\": 97", "\"pad_token_id\": null", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bal_model_config c;
        bal_buf text = {0};
        char json[400];
        (void)snprintf(json, sizeof json, "{\"model_type\": \"phi3\", " SIZES "%s}", cases[i].key);
        CHECK_OK(parse(json, &c));
        CHECK(c.pad == cases[i].pad);
        CHECK_OK(bal_config_to_json(&text, &c, "float32"));
        CHECK_MSG(strstr(bal_buf_cstr(&text), cases[i].written) != NULL, "case %zu: %s", i, bal_buf_cstr(&text));
        bal_buf_dispose(&text);
    }
}

/* What stands beside the two sets of values of Gemma 3. */
TEST(two_rotary_bases)
{
    bal_model_config c;
    CHECK_OK(parse("{\"model_type\": \"gemma3_text\", " SIZES ", \"rope_theta\": 300, \"rope_local_base_freq\": 70, "
                   "\"rope_parameters\": {\"full_attention\": {\"rope_type\": \"linear\", \"factor\": 2}}}",
                   &c));
    CHECK(c.rope.kind == BAL_ROPE_LINEAR && c.rope.theta == 300 && c.local_rope.theta == 70);
}

TEST(config_errors)
{
    static const struct {
        const char *text, *part;
        bal_status status;
    } cases[] = {
        {"{\"model_type\": \"mamba\"}", "'mamba' is not supported; supported: llama", BAL_EUNSUPPORTED},
        {"{}", "model_type", BAL_EFORMAT},
        {"{\"model_type\": \"llama\"}", "'num_hidden_layers' is missing", BAL_EFORMAT},
        {"{\"model_type\": \"llama\", " SIZES ", \"num_key_value_heads\": 3}", "4 attention heads", BAL_EFORMAT},
        {"{\"model_type\": \"llama\", " SIZES ", \"head_dim\": 7}", "7 of the 7 elements of a head turn", BAL_EFORMAT},
        {"{\"model_type\": \"llama\", " SIZES ", \"rope_scaling\": {\"type\": \"longrope\"}}", "short_factor",
         BAL_EFORMAT},
        {"{\"model_type\": \"llama\", " SIZES ", \"rope_scaling\": {\"type\": \"ntk\"}}", "'ntk' is not one of",
         BAL_EUNSUPPORTED},
        {"{\"model_type\": \"stablelm\", " SIZES ", \"num_key_value_heads\": 4, \"qk_layernorm\": true}",
         "qk_layernorm", BAL_EUNSUPPORTED},
        {"{\"model_type\": \"phi3\", " SIZES ", \"partial_rotary_factor\": 1.5}", "partial_rotary_factor", BAL_EFORMAT},
        {"{\"model_type\": \"llama\", " SIZES ", \"rope_scaling\": {\"type\": \"linear\"}}", "no factor", BAL_EFORMAT},
        {"{\"model_type\": \"llama\", " SIZES ", \"rms_norm_eps\": 0}", "epsilon", BAL_EFORMAT},
        {"{\"model_type\": \"llama\", " SIZES ", \"rope_parameters\": {\"full_attention\": {\"rope_theta\": 5}}}",
         "differ by kind of layer", BAL_EUNSUPPORTED},
        {"{\"model_type\": \"gemma3_text\", " SIZES
         ", \"num_key_value_heads\": 4, \"rope_parameters\": {\"rope_theta\": 5}}",
         "need full_attention and sliding_attention", BAL_EUNSUPPORTED},
        {"{\"model_type\": \"llama\", " SIZES
         ", \"rope_parameters\": {\"rope_theta\": 5}, \"rope_scaling\": {\"type\": "
         "\"linear\", \"factor\": 2}}",
         "rope_parameters and rope_scaling", BAL_EUNSUPPORTED},
        {"{\"model_type\": \"llama\", " SIZES ", \"hidden_act\": \"mish\"}", "mish", BAL_EUNSUPPORTED},
        {"{\"model_type\": \"llama\", \"num_hidden_layers\": 1025}", "num_hidden_layers", BAL_EFORMAT},
    };
    bal_model_config c;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bal_status got = parse(cases[i].text, &c);
        CHECK_MSG(got == cases[i].status, "case %zu: status %d", i, (int)got);
        CHECK_MSG(strstr(bal_error_message(), cases[i].part) != NULL, "case %zu: '%s'", i, bal_error_message());
    }
}

TEST(batch_rows)
{
    bal_batch b;
    int32_t ids[] = {1, 2, 3, 4}, labels[] = {7, -100, 3, 4};
    if (!CHECK_OK(bal_batch_init(&b, 10, 3)))
        return;
    bal_batch_clear(&b);
    CHECK_OK(bal_batch_add(&b, ids, labels, 4));
    CHECK_OK(bal_batch_add(&b, ids, NULL, 2));
    CHECK_OK(bal_batch_add(&b, ids, labels, 3));
    CHECK_STATUS(bal_batch_add(&b, ids, labels, 1), BAL_ELIMIT);
    CHECK_STATUS(bal_batch_add(&b, ids, labels, 0), BAL_EFORMAT);
    bal_batch_finish(&b, false);
    CHECK(b.n_tokens == 9 && b.n_seqs == 3 && b.n_rows == 3 && b.n_reg_rows == 3);
    CHECK(b.rows[0] == 1 && b.rows[1] == 2 && b.rows[2] == 7 && b.target[0] == 3 && b.target[1] == 4);
    bal_batch_finish(&b, true); /* the positions of the labels themselves, the first one included */
    CHECK(b.n_rows == 3 && b.n_reg_rows == 5 && b.reg_rows[0] == 0 && b.reg_rows[1] == 2 && b.reg_rows[3] == 6);
    bal_batch_dispose(&b);
}

TEST(load_errors)
{
    bal_model *m = NULL;
    CHECK_STATUS(bal_model_load(&m, "no/such/model"), BAL_ENOENT);
    CHECK_STATUS(bal_model_load(&m, test_folder()), BAL_ENOENT);
    CHECK(strstr(bal_error_message(), "config.json") != NULL && m == NULL);
}

TEST(load_golden)
{
    static const char *const names[] = {"fwd_llama_gqa",      "fwd_llama_tied",         "fwd_llama_biases",
                                        "fwd_llama_head_dim", "fwd_llama_bf16_sharded", "fwd_llama_f16"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char path[128];
        bal_model *m = NULL;
        (void)snprintf(path, sizeof path, "golden/decoder/%s/model", names[i]);
        const char *shared = test_shared(path);
        if (shared == NULL)
            SKIP("the larger golden sets are not there");
        if (!CHECK_OK(bal_model_load(&m, shared)))
            continue;
        CHECK_OK(bal_model_check(m));
        size_t matrices = m->config.n_layers * BAL_SLOT_COUNT + 2, norms = m->config.n_layers * 2 + 1;
        CHECK(m->n_modules == matrices + norms && m->modules[matrices].kind == BAL_MODULE_NORM);
        CHECK_TEXT(m->modules[matrices].name, "model.layers.0.input_layernorm");
        CHECK((m->blocks[0].linear[BAL_SLOT_Q].bias != NULL) == (i == 2));
        CHECK_TEXT(m->modules[0].name, "model.layers.0.self_attn.q_proj");
        bal_model_free(m);
    }
}

TEST(load_gguf)
{
    const char *path = test_shared("models/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf");
    bal_model *m = NULL;
    if (path == NULL)
        SKIP("the model is not there");
    if (!CHECK_OK(bal_model_load(&m, path)))
        return;
    CHECK(m->config.n_layers == 30 && m->config.n_heads == 9 && m->config.n_kv_heads == 3 && m->config.tied_head);
    CHECK(m->n_parameters == 134515008 && m->config.eos[0] == 2 && m->config.rope.theta == 100000);
    CHECK(m->blocks[3].linear[BAL_SLOT_K].w.rope_head_dim == 64 &&
          m->blocks[3].linear[BAL_SLOT_V].w.rope_head_dim == 0);
    bal_model_free(m);
}
