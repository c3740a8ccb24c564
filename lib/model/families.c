/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/families.h"

#include <stdio.h>
#include <string.h>

static const bal_family k_families[] = {
    {
        .model_type = "llama",
        .architecture = "llama",
        .class_name = "LlamaForCausalLM",
        .norm = BAL_NORM_RMS,
        .rope = BAL_ROPE_DEFAULT,
        .act = "silu",
        .tied_head = false,
        .bias_keys = true,
        .always_bias = 0,
        .gguf_permuted = true,
        .hf = {.embed = "model.embed_tokens",
               .final_norm = "model.norm",
               .head = "lm_head",
               .attention_norm = "model.layers.#.input_layernorm",
               .mlp_norm = "model.layers.#.post_attention_layernorm",
               .slot = {[BAL_SLOT_Q] = "model.layers.#.self_attn.q_proj",
                        [BAL_SLOT_K] = "model.layers.#.self_attn.k_proj",
                        [BAL_SLOT_V] = "model.layers.#.self_attn.v_proj",
                        [BAL_SLOT_O] = "model.layers.#.self_attn.o_proj",
                        [BAL_SLOT_GATE] = "model.layers.#.mlp.gate_proj",
                        [BAL_SLOT_UP] = "model.layers.#.mlp.up_proj",
                        [BAL_SLOT_DOWN] = "model.layers.#.mlp.down_proj"}},
        .gguf = {.embed = "token_embd",
                 .final_norm = "output_norm",
                 .head = "output",
                 .attention_norm = "blk.#.attn_norm",
                 .mlp_norm = "blk.#.ffn_norm",
                 .slot = {[BAL_SLOT_Q] = "blk.#.attn_q",
                          [BAL_SLOT_K] = "blk.#.attn_k",
                          [BAL_SLOT_V] = "blk.#.attn_v",
                          [BAL_SLOT_O] = "blk.#.attn_output",
                          [BAL_SLOT_GATE] = "blk.#.ffn_gate",
                          [BAL_SLOT_UP] = "blk.#.ffn_up",
                          [BAL_SLOT_DOWN] = "blk.#.ffn_down"}},
    },
};

enum { N_FAMILIES = sizeof k_families / sizeof k_families[0] };

const bal_family *bal_family_by_model_type(const char *model_type)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (strcmp(k_families[i].model_type, model_type) == 0)
            return &k_families[i];
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
    for (size_t i = 0; i < N_FAMILIES; i++) {
        const char *name = gguf ? k_families[i].architecture : k_families[i].model_type;
        if (name != NULL)
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
        return true;
    return f->bias_keys && (slot <= BAL_SLOT_O ? c->attention_bias : c->mlp_bias);
}

void bal_slot_shape(const bal_model_config *c, bal_slot slot, size_t *rows, size_t *cols)
{
    size_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    switch (slot) {
    case BAL_SLOT_Q:
        *rows = q, *cols = c->hidden;
        break;
    case BAL_SLOT_K:
    case BAL_SLOT_V:
        *rows = kv, *cols = c->hidden;
        break;
    case BAL_SLOT_O:
        *rows = c->hidden, *cols = q;
        break;
    case BAL_SLOT_GATE:
    case BAL_SLOT_UP:
        *rows = c->intermediate, *cols = c->hidden;
        break;
    case BAL_SLOT_DOWN:
    case BAL_SLOT_COUNT:
        *rows = c->hidden, *cols = c->intermediate;
        break;
    }
}
