/* Every row of the table of adapter methods on a whole model: gradients of every trainable number, and mutations that
 * must be noticed.  What a method holds constant on purpose (DoRA's norms) is checked in a file of its own.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/grad/model_grad.h"

static const char k_config[] =
    "{\"model_type\": \"llama\", \"num_hidden_layers\": 2, \"hidden_size\": 10, \"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"head_dim\": 6, \"intermediate_size\": 7, \"vocab_size\": 13, \"attention_bias\": "
    "true, \"mlp_bias\": true, \"tie_word_embeddings\": true, \"initializer_range\": 0.4, \"rms_norm_eps\": 0.01, "
    "\"max_position_embeddings\": 4}";

/* Segments whose gradient is not that of the loss; NULL: none. */
static const char *checked(const char *method)
{
    return strcmp(method, "dora") == 0 ? "lora_magnitude_vector" : NULL;
}

static void check_method(const char *method, const char *start, double dropout, bool checkpoint)
{
    const model_setup s = {k_config, start,      bal_method_named(method)->on_stream ? "down_proj" : "all-linear",
                           dropout,  checkpoint, method};
    if (CHECK_MSG(set_up_model(&s), "%s", method)) {
        g.only = checked(method);
        check_model();
        CHECK_MSG(g.only != NULL ? g.n_checked < g.params->n_segments : g.n_checked == g.params->n_segments,
                  "%s: %zu of %zu tensors were compared", method, g.n_checked, g.params->n_segments);
    }
    free_all();
}

TEST(every_method)
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    for (size_t i = 0; i < bal_method_count(); i++) {
        const bal_method *m = bal_method_at(i);
        check_method(m->name, "lora", 0, false);
        check_method(m->name, "lora", 0, true);
        if (m->dropout_key != NULL)
            check_method(m->name, "lora", 0.4, false);
        if (m->low_rank)
            check_method(m->name, "pissa", 0, false);
    }
}

/* On the embedding: A's columns and B (DoRA: the magnitudes), with tokens that occur more than once. */
static void check_embedding(const char *method, const char *only, size_t tensors)
{
    for (int checkpoint = 0; checkpoint < 2; checkpoint++) {
        const model_setup s = {k_config, "lora", "embed_tokens", 0, checkpoint == 1, method};
        if (CHECK(set_up_model(&s))) {
            g.only = only;
            check_model();
            CHECK(g.n_checked == tensors);
        }
        free_all();
    }
}

TEST(embedding)
{
    if (!BAL_REAL_IS_DOUBLE)
        SKIP("finite differences need MODE=f64");
    check_embedding("lora", NULL, 2);
    check_embedding("dora", checked("dora"), 1);
}
