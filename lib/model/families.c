/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/families.h"

#include <stdio.h>
#include <string.h>

/* The parts that most families share. */
static const bal_family_keys k_keys = {.layers = "num_hidden_layers",
                                       .hidden = "hidden_size",
                                       .heads = "num_attention_heads",
                                       .intermediate = "intermediate_size",
                                       .positions = "max_position_embeddings",
                                       .norm_eps = "rms_norm_eps",
                                       .act = "hidden_act",
                                       .initializer = "initializer_range"};
static const bal_family_keys k_gemma2_keys = {.layers = "num_hidden_layers",
                                              .hidden = "hidden_size",
                                              .heads = "num_attention_heads",
                                              .intermediate = "intermediate_size",
                                              .positions = "max_position_embeddings",
                                              .norm_eps = "rms_norm_eps",
                                              .act = "hidden_activation",
                                              .initializer = "initializer_range"};
static const bal_family_keys k_gpt2_keys = {.layers = "n_layer",
                                            .hidden = "n_embd",
                                            .heads = "n_head",
                                            .intermediate = "n_inner",
                                            .positions = "n_positions",
                                            .norm_eps = "layer_norm_epsilon",
                                            .act = "activation_function",
                                            .initializer = "initializer_range"};
static const bal_family_keys k_opt_keys = {.layers = "num_hidden_layers",
                                           .hidden = "hidden_size",
                                           .heads = "num_attention_heads",
                                           .intermediate = "ffn_dim",
                                           .positions = "max_position_embeddings",
                                           .norm_eps = NULL,
                                           .act = "activation_function",
                                           .initializer = "init_std"};

static const bal_family_keys k_layer_norm_keys = {.layers = "num_hidden_layers",
                                                  .hidden = "hidden_size",
                                                  .heads = "num_attention_heads",
                                                  .intermediate = "intermediate_size",
                                                  .positions = "max_position_embeddings",
                                                  .norm_eps = "layer_norm_eps",
                                                  .act = "hidden_act",
                                                  .initializer = "initializer_range"};

#define HF_ENDS .base_prefix = "model.", .embed = "model.embed_tokens", .final_norm = "model.norm", .head = "lm_head"
#define HF_NORMS                                                                                                       \
    [BAL_NORM_ATTENTION_IN] = "model.layers.#.input_layernorm", [BAL_NORM_MLP_IN] =                                    \
                                                                    "model.layers.#.post_attention_layernorm"
#define HF_POST_NORMS                                                                                                  \
    [BAL_NORM_ATTENTION_IN] = "model.layers.#.input_layernorm",                                                        \
    [BAL_NORM_ATTENTION_OUT] = "model.layers.#.post_attention_layernorm",                                              \
    [BAL_NORM_MLP_IN] = "model.layers.#.pre_feedforward_layernorm",                                                    \
    [BAL_NORM_MLP_OUT] = "model.layers.#.post_feedforward_layernorm"
#define HF_HEAD_NORMS [BAL_NORM_Q] = "model.layers.#.self_attn.q_norm", [BAL_NORM_K] = "model.layers.#.self_attn.k_norm"
#define HF_QKV                                                                                                         \
    [BAL_SLOT_Q] = "model.layers.#.self_attn.q_proj", [BAL_SLOT_K] = "model.layers.#.self_attn.k_proj",                \
    [BAL_SLOT_V] = "model.layers.#.self_attn.v_proj"
#define HF_SLOTS                                                                                                       \
    HF_QKV, [BAL_SLOT_O] = "model.layers.#.self_attn.o_proj", [BAL_SLOT_GATE] = "model.layers.#.mlp.gate_proj",        \
            [BAL_SLOT_UP] = "model.layers.#.mlp.up_proj", [BAL_SLOT_DOWN] = "model.layers.#.mlp.down_proj"

#define GGUF_ENDS  .embed = "token_embd", .final_norm = "output_norm", .head = "output"
#define GGUF_NORMS [BAL_NORM_ATTENTION_IN] = "blk.#.attn_norm", [BAL_NORM_MLP_IN] = "blk.#.ffn_norm"
#define GGUF_POST_NORMS                                                                                                \
    [BAL_NORM_ATTENTION_OUT] = "blk.#.post_attention_norm", [BAL_NORM_MLP_OUT] = "blk.#.post_ffw_norm"
#define GGUF_HEAD_NORMS [BAL_NORM_Q] = "blk.#.attn_q_norm", [BAL_NORM_K] = "blk.#.attn_k_norm"
#define GGUF_SLOTS                                                                                                     \
    [BAL_SLOT_Q] = "blk.#.attn_q", [BAL_SLOT_K] = "blk.#.attn_k", [BAL_SLOT_V] = "blk.#.attn_v",                       \
    [BAL_SLOT_O] = "blk.#.attn_output", [BAL_SLOT_GATE] = "blk.#.ffn_gate", [BAL_SLOT_UP] = "blk.#.ffn_up",            \
    [BAL_SLOT_DOWN] = "blk.#.ffn_down"

enum { QKV_BITS = 1U << BAL_SLOT_Q | 1U << BAL_SLOT_K | 1U << BAL_SLOT_V, ALL_BITS = (1U << BAL_SLOT_COUNT) - 1 };

static const bal_family k_families[] = {
    {.model_type = "llama",
     .architecture = "llama",
     .class_name = "LlamaForCausalLM",
     .keys = &k_keys,
     .norm = BAL_NORM_RMS,
     .rope = BAL_ROPE_DEFAULT,
     .act = "silu",
     .bias_keys = true,
     .gguf_permuted = true,
     .mlp_bias_key = true,
     .hf = {HF_ENDS, .norm = {HF_NORMS}, .slot = {HF_SLOTS}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS}, .slot = {GGUF_SLOTS}}},
    /* GGUF files of Mistral models say "llama", which is read as the row above */
    {.model_type = "mistral",
     .architecture = "llama",
     .class_name = "MistralForCausalLM",
     .positions = 131072,
     .keys = &k_keys,
     .norm = BAL_NORM_RMS,
     .rope = BAL_ROPE_DEFAULT,
     .act = "silu",
     .sliding = BAL_SLIDING_ALL,
     .default_window = 4096,
     .gguf_permuted = true,
     .gguf_no_window = true,
     .kv_heads = 8,
     .hf = {HF_ENDS, .norm = {HF_NORMS}, .slot = {HF_SLOTS}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS}, .slot = {GGUF_SLOTS}}},
    {.model_type = "qwen2",
     .architecture = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .positions = 32768,
     .keys = &k_keys,
     .norm = BAL_NORM_RMS,
     .rope = BAL_ROPE_DEFAULT,
     .act = "silu",
     .always_bias = QKV_BITS,
     .sliding = BAL_SLIDING_FROM_LAYER,
     .default_window = 4096,
     .gguf_no_window = true,
     .kv_heads = 32,
     .hf = {HF_ENDS, .norm = {HF_NORMS}, .slot = {HF_SLOTS}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS}, .slot = {GGUF_SLOTS}}},
    {.model_type = "qwen3",
     .architecture = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .positions = 32768,
     .keys = &k_keys,
     .norm = BAL_NORM_RMS,
     .rope = BAL_ROPE_DEFAULT,
     .act = "silu",
     .bias_keys = true,
     .sliding = BAL_SLIDING_FROM_LAYER,
     .default_window = 4096,
     .gguf_no_window = true,
     .kv_heads = 32,
     .head_dim = 128,
     .hf = {HF_ENDS, .norm = {HF_NORMS, HF_HEAD_NORMS}, .slot = {HF_SLOTS}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS, GGUF_HEAD_NORMS}, .slot = {GGUF_SLOTS}}},
    {.model_type = "phi3",
     .architecture = "phi3",
     .class_name = "Phi3ForCausalLM",
     .positions = 4096,
     .keys = &k_keys,
     .norm = BAL_NORM_RMS,
     .rope = BAL_ROPE_DEFAULT,
     .act = "silu",
     .fused_qkv = true,
     .fused_gate_up = true,
     .sliding = BAL_SLIDING_ALL,
     .norm_eps = 1e-5,
     .longrope_alias = true,
     .rotary_part = 1,
     .hf = {HF_ENDS, .norm = {HF_NORMS},
            .slot = {[BAL_SLOT_Q] = "model.layers.#.self_attn.qkv_proj",
                     [BAL_SLOT_O] = "model.layers.#.self_attn.o_proj",
                     [BAL_SLOT_GATE] = "model.layers.#.mlp.gate_up_proj",
                     [BAL_SLOT_DOWN] = "model.layers.#.mlp.down_proj"}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS},
              .slot = {[BAL_SLOT_Q] = "blk.#.attn_qkv",
                       [BAL_SLOT_O] = "blk.#.attn_output",
                       [BAL_SLOT_GATE] = "blk.#.ffn_up",
                       [BAL_SLOT_DOWN] = "blk.#.ffn_down"}}},
    {.model_type = "gemma",
     .architecture = "gemma",
     .class_name = "GemmaForCausalLM",
     .positions = 8192,
     .keys = &k_keys,
     .norm = BAL_NORM_RMS_PLUS_ONE,
     .rope = BAL_ROPE_DEFAULT,
     .act = "gelu_pytorch_tanh",
     .gelu_is_tanh = true,
     .tied_head = true,
     .bias_keys = true,
     .scaled_embed = true,
     .gguf_norm_plus = true,
     .head_dim = 256,
     .kv_heads = 16,
     .hf = {HF_ENDS, .norm = {HF_NORMS}, .slot = {HF_SLOTS}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS}, .slot = {GGUF_SLOTS}}},
    {.model_type = "gemma2",
     .architecture = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .positions = 8192,
     .keys = &k_gemma2_keys,
     .norm = BAL_NORM_RMS_PLUS_ONE,
     .rope = BAL_ROPE_DEFAULT,
     .act = "gelu_pytorch_tanh",
     .tied_head = true,
     .bias_keys = true,
     .scaled_embed = true,
     .score_scalar = true,
     .softcaps = true,
     .sliding = BAL_SLIDING_EVEN,
     .default_window = 4096,
     .gguf_norm_plus = true,
     .head_dim = 256,
     .kv_heads = 4,
     .score_caps = true,
     .hf = {HF_ENDS, .norm = {HF_POST_NORMS}, .slot = {HF_SLOTS}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS, GGUF_POST_NORMS}, .slot = {GGUF_SLOTS}}},
    {.model_type = "gemma3_text",
     .architecture = "gemma3",
     .class_name = "Gemma3ForCausalLM",
     .positions = 131072,
     .keys = &k_gemma2_keys,
     .norm = BAL_NORM_RMS_PLUS_ONE,
     .rope = BAL_ROPE_DEFAULT,
     .theta = 1e6,
     .local_theta = 1e4,
     .act = "gelu_pytorch_tanh",
     .tied_head = true,
     .bias_keys = true,
     .scaled_embed = true,
     .score_scalar = true,
     .softcaps = true,
     .sliding = BAL_SLIDING_PATTERN,
     .default_window = 4096,
     .gguf_norm_plus = true,
     .head_dim = 256,
     .kv_heads = 4,
     .hf = {HF_ENDS, .norm = {HF_POST_NORMS, HF_HEAD_NORMS}, .slot = {HF_SLOTS}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS, GGUF_POST_NORMS, GGUF_HEAD_NORMS}, .slot = {GGUF_SLOTS}}},
    {.model_type = "gpt2",
     .architecture = "gpt2",
     .class_name = "GPT2LMHeadModel",
     .positions = 1024,
     .keys = &k_gpt2_keys,
     .norm = BAL_NORM_LAYER,
     .rope = BAL_ROPE_NONE,
     .act = "gelu_new",
     .tied_head = true,
     .always_bias = ALL_BITS,
     .fused_qkv = true,
     .conv1d = true,
     .hf = {.base_prefix = "transformer.",
            .embed = "transformer.wte",
            .positions = "transformer.wpe",
            .final_norm = "transformer.ln_f",
            .head = "lm_head",
            .norm = {[BAL_NORM_ATTENTION_IN] = "transformer.h.#.ln_1", [BAL_NORM_MLP_IN] = "transformer.h.#.ln_2"},
            .slot = {[BAL_SLOT_Q] = "transformer.h.#.attn.c_attn",
                     [BAL_SLOT_O] = "transformer.h.#.attn.c_proj",
                     [BAL_SLOT_UP] = "transformer.h.#.mlp.c_fc",
                     [BAL_SLOT_DOWN] = "transformer.h.#.mlp.c_proj"}},
     .gguf = {GGUF_ENDS, .positions = "position_embd", .norm = {GGUF_NORMS},
              .slot = {[BAL_SLOT_Q] = "blk.#.attn_qkv",
                       [BAL_SLOT_O] = "blk.#.attn_output",
                       [BAL_SLOT_UP] = "blk.#.ffn_up",
                       [BAL_SLOT_DOWN] = "blk.#.ffn_down"}}},
    {.model_type = "opt",
     .class_name = "OPTForCausalLM",
     .keys = &k_opt_keys,
     .norm = BAL_NORM_LAYER,
     .rope = BAL_ROPE_NONE,
     .act = "relu",
     .tied_head = true,
     .always_bias = ALL_BITS,
     .learned_offset = 2,
     .hf = {.base_prefix = "model.",
            .embed = "model.decoder.embed_tokens",
            .positions = "model.decoder.embed_positions",
            .final_norm = "model.decoder.final_layer_norm",
            .head = "lm_head",
            .norm = {[BAL_NORM_ATTENTION_IN] = "model.decoder.layers.#.self_attn_layer_norm",
                     [BAL_NORM_MLP_IN] = "model.decoder.layers.#.final_layer_norm"},
            .slot = {[BAL_SLOT_Q] = "model.decoder.layers.#.self_attn.q_proj",
                     [BAL_SLOT_K] = "model.decoder.layers.#.self_attn.k_proj",
                     [BAL_SLOT_V] = "model.decoder.layers.#.self_attn.v_proj",
                     [BAL_SLOT_O] = "model.decoder.layers.#.self_attn.out_proj",
                     [BAL_SLOT_UP] = "model.decoder.layers.#.fc1",
                     [BAL_SLOT_DOWN] = "model.decoder.layers.#.fc2"}}},
    {.model_type = "smollm3",
     .architecture = "smollm3",
     .class_name = "SmolLM3ForCausalLM",
     .positions = 32768,
     .keys = &k_keys,
     .norm = BAL_NORM_RMS,
     .rope = BAL_ROPE_DEFAULT,
     .theta = 2e6,
     .kv_heads = 4,
     .act = "silu",
     .tied_head = true,
     .bias_keys = true,
     .mlp_bias_key = true,
     .nope_keys = true,
     .sliding = BAL_SLIDING_UNROTATED,
     .gguf_permuted = true,
     .gguf_no_window = true,
     .hf = {HF_ENDS, .norm = {HF_NORMS}, .slot = {HF_SLOTS}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS}, .slot = {GGUF_SLOTS}}},
    {.model_type = "stablelm",
     .architecture = "stablelm",
     .class_name = "StableLmForCausalLM",
     .positions = 4096,
     .keys = &k_layer_norm_keys,
     .norm = BAL_NORM_LAYER,
     .rope = BAL_ROPE_DEFAULT,
     .rotary_part = 0.25,
     .kv_heads = 32,
     .act = "silu",
     .qkv_bias_key = "use_qkv_bias",
     .parallel_key = true,
     .hf = {HF_ENDS, .norm = {HF_NORMS}, .slot = {HF_SLOTS}},
     .gguf = {GGUF_ENDS, .norm = {GGUF_NORMS}, .slot = {GGUF_SLOTS}}},
};

enum { N_FAMILIES = sizeof k_families / sizeof k_families[0] };

/* Decoders, then encoders; NULL behind the last one. */
static const bal_family *family_at(size_t i)
{
    return i < N_FAMILIES                              ? &k_families[i]
           : i - N_FAMILIES < k_bal_n_encoder_families ? &k_bal_encoder_families[i - N_FAMILIES]
                                                       : NULL;
}

const bal_family *bal_family_by_model_type(const char *model_type)
{
    const bal_family *f;
    for (size_t i = 0; (f = family_at(i)) != NULL; i++)
        if (strcmp(f->model_type, model_type) == 0)
            return f;
    return NULL;
}

const bal_family *bal_family_by_architecture(const char *architecture)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (k_families[i].architecture != NULL && strcmp(k_families[i].architecture, architecture) == 0)
            return &k_families[i];
    return NULL;
}

bal_status bal_family_list(bal_buf *out, bool gguf)
{
    bal_status status = BAL_OK;
    const bal_family *f;
    for (size_t i = 0; (f = family_at(i)) != NULL; i++) {
        const char *name = gguf ? f->architecture : f->model_type;
        bool again = gguf && name != NULL && bal_family_by_architecture(name) != f;
        if (name != NULL && !again)
            BAL_TRY(bal_buf_printf(out, "%s%s", out->len == 0 ? "" : ", ", name));
    }
out:
    return status;
}

bool bal_family_name(char *out, size_t n_out, const char *pattern, size_t layer, const char *suffix)
{
    const char *mark = strchr(pattern, '#');
    int n;
    if (mark == NULL)
        n = snprintf(out, n_out, "%s%s", pattern, suffix);
    else
        n = snprintf(out, n_out, "%.*s%zu%s%s", (int)(mark - pattern), pattern, layer, mark + 1, suffix);
    return n >= 0 && (size_t)n < n_out;
}

bool bal_family_bias(const bal_family *f, const bal_model_config *c, bal_slot slot)
{
    if ((f->always_bias >> slot & 1U) != 0)
        return !c->no_biases;
    if (f->qkv_bias_key != NULL)
        return c->attention_bias && slot <= BAL_SLOT_V;
    return f->bias_keys && (slot <= BAL_SLOT_O ? c->attention_bias : c->mlp_bias);
}

void bal_slot_shape(const bal_family *f, const bal_model_config *c, bal_slot slot, size_t *rows, size_t *cols)
{
    size_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    *cols = slot == BAL_SLOT_O ? q : slot == BAL_SLOT_DOWN ? c->intermediate : c->hidden;
    switch (slot) {
    case BAL_SLOT_Q:
        *rows = f->fused_qkv ? q + 2 * kv : q;
        break;
    case BAL_SLOT_K:
    case BAL_SLOT_V:
        *rows = kv;
        break;
    case BAL_SLOT_GATE:
        *rows = f->fused_gate_up ? 2 * c->intermediate : c->intermediate;
        break;
    case BAL_SLOT_UP:
        *rows = c->intermediate;
        break;
    case BAL_SLOT_O:
    case BAL_SLOT_DOWN:
    case BAL_SLOT_COUNT:
        *rows = c->hidden;
        break;
    }
}

size_t bal_norm_size(const bal_model_config *c, bal_norm_place place)
{
    return place == BAL_NORM_Q || place == BAL_NORM_K ? c->head_dim : c->hidden;
}

const char *bal_family_norm(const bal_family_names *n, const bal_model_config *c, bal_norm_place place)
{
    if (c->parallel && place == BAL_NORM_MLP_IN)
        return NULL;
    if (!c->norm_after_add)
        return n->norm[place];
    if (place == BAL_NORM_ATTENTION_OUT || place == BAL_NORM_MLP_OUT)
        return n->norm[place - 1 == BAL_NORM_K ? BAL_NORM_ATTENTION_IN : BAL_NORM_MLP_IN];
    return NULL;
}
