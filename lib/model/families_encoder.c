/* Encoders that fill in masked tokens (BERT and its kin): attention both ways, a norm after each sum and after the
 * embeddings, learned positions.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/families.h"

static const bal_family_keys k_bert_keys = {.layers = "num_hidden_layers",
                                            .hidden = "hidden_size",
                                            .heads = "num_attention_heads",
                                            .intermediate = "intermediate_size",
                                            .positions = "max_position_embeddings",
                                            .norm_eps = "layer_norm_eps",
                                            .act = "hidden_act",
                                            .initializer = "initializer_range"};
static const bal_family_keys k_distilbert_keys = {.layers = "n_layers",
                                                  .hidden = "dim",
                                                  .heads = "n_heads",
                                                  .intermediate = "hidden_dim",
                                                  .positions = "max_position_embeddings",
                                                  .norm_eps = NULL,
                                                  .act = "activation",
                                                  .initializer = "initializer_range"};

enum { ALL_BITS = (1U << BAL_SLOT_COUNT) - 1 };

#define ENCODER_KIND                                                                                                   \
    .norm = BAL_NORM_LAYER, .norm_eps = 1e-12, .act = "gelu", .tied_head = true, .always_bias = ALL_BITS, .masked = true

/* The names that BERT, RoBERTa and ELECTRA share.  The norms are named as if before the halves: bal_family_norm(). */
#define ENCODER_NAMES(PREFIX)                                                                                          \
    .base_prefix = PREFIX, .embed = PREFIX "embeddings.word_embeddings",                                               \
    .positions = PREFIX "embeddings.position_embeddings", .types = PREFIX "embeddings.token_type_embeddings",          \
    .embed_norm = PREFIX "embeddings.LayerNorm",                                                                       \
    .norm = {[BAL_NORM_ATTENTION_IN] = PREFIX "encoder.layer.#.attention.output.LayerNorm",                            \
             [BAL_NORM_MLP_IN] = PREFIX "encoder.layer.#.output.LayerNorm"},                                           \
    .slot = {[BAL_SLOT_Q] = PREFIX "encoder.layer.#.attention.self.query",                                             \
             [BAL_SLOT_K] = PREFIX "encoder.layer.#.attention.self.key",                                               \
             [BAL_SLOT_V] = PREFIX "encoder.layer.#.attention.self.value",                                             \
             [BAL_SLOT_O] = PREFIX "encoder.layer.#.attention.output.dense",                                           \
             [BAL_SLOT_UP] = PREFIX "encoder.layer.#.intermediate.dense",                                              \
             [BAL_SLOT_DOWN] = PREFIX "encoder.layer.#.output.dense"}

const bal_family k_bal_encoder_families[] = {
    {.model_type = "bert",
     .class_name = "BertForMaskedLM",
     .keys = &k_bert_keys,
     ENCODER_KIND,
     .hf = {ENCODER_NAMES("bert."), .transform = "cls.predictions.transform.dense",
            .transform_norm = "cls.predictions.transform.LayerNorm", .head = "cls.predictions.decoder",
            .head_bias = "cls.predictions"}},
    {.model_type = "roberta",
     .class_name = "RobertaForMaskedLM",
     .keys = &k_bert_keys,
     ENCODER_KIND,
     .positions_skip_pad = true,
     .head_gelu = true,
     .hf = {ENCODER_NAMES("roberta."), .transform = "lm_head.dense", .transform_norm = "lm_head.layer_norm",
            .head = "lm_head.decoder", .head_bias = "lm_head"}},
    {.model_type = "distilbert",
     .class_name = "DistilBertForMaskedLM",
     .keys = &k_distilbert_keys,
     ENCODER_KIND,
     .hf = {.base_prefix = "distilbert.",
            .embed = "distilbert.embeddings.word_embeddings",
            .positions = "distilbert.embeddings.position_embeddings",
            .embed_norm = "distilbert.embeddings.LayerNorm",
            .norm = {[BAL_NORM_ATTENTION_IN] = "distilbert.transformer.layer.#.sa_layer_norm",
                     [BAL_NORM_MLP_IN] = "distilbert.transformer.layer.#.output_layer_norm"},
            .slot = {[BAL_SLOT_Q] = "distilbert.transformer.layer.#.attention.q_lin",
                     [BAL_SLOT_K] = "distilbert.transformer.layer.#.attention.k_lin",
                     [BAL_SLOT_V] = "distilbert.transformer.layer.#.attention.v_lin",
                     [BAL_SLOT_O] = "distilbert.transformer.layer.#.attention.out_lin",
                     [BAL_SLOT_UP] = "distilbert.transformer.layer.#.ffn.lin1",
                     [BAL_SLOT_DOWN] = "distilbert.transformer.layer.#.ffn.lin2"},
            .transform = "vocab_transform",
            .transform_norm = "vocab_layer_norm",
            .head = "vocab_projector",
            .head_bias = "vocab_projector"}},
    {.model_type = "electra",
     .class_name = "ElectraForMaskedLM",
     .keys = &k_bert_keys,
     ENCODER_KIND,
     .head_gelu = true,
     .hf = {ENCODER_NAMES("electra."), .project = "electra.embeddings_project",
            .transform = "generator_predictions.dense", .transform_norm = "generator_predictions.LayerNorm",
            .head = "generator_lm_head", .head_bias = "generator_lm_head"}},
};
const size_t k_bal_n_encoder_families = sizeof k_bal_encoder_families / sizeof k_bal_encoder_families[0];
