/* config.json of a configuration.  The older keys (rope_theta, rope_scaling, torch_dtype) are written, which every
 * version of transformers reads.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/config.h"
#include "lib/model/config_impl.h"

#include <math.h>

static const char *act_name(bal_act_kind kind)
{
    switch (kind) {
    case BAL_ACT_GELU_TANH:
        return "gelu_pytorch_tanh";
    case BAL_ACT_GELU:
        return "gelu";
    case BAL_ACT_RELU:
        return "relu";
    case BAL_ACT_SILU:
        break;
    }
    return "silu";
}

/* ,"key":value */
static bal_status put_number(bal_buf *out, const char *key, double value)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, ",\n  \"%s\": ", key));
    BAL_TRY(bal_json_put_f64(out, value));
out:
    return status;
}

/* The same of what is no count: readers of today tell 30 from 30.0. */
static bal_status put_real(bal_buf *out, const char *key, double value)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, ",\n  \"%s\": ", key));
    BAL_TRY(bal_json_put_real(out, value));
out:
    return status;
}

static bal_status put_divisors(bal_buf *out, const char *key, const float *values, size_t n)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, ",\n  \"%s\": [", key));
    for (size_t i = 0; i < n && i < BAL_LONGROPE_MAX; i++) {
        BAL_TRY(bal_buf_text(out, i == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_f64(out, (double)values[i]));
    }
    BAL_TRY(bal_buf_text(out, "]"));
out:
    return status;
}

static bal_status put_rope(bal_buf *out, const bal_rope_config *r, size_t rotary_dim)
{
    bal_status status;
    static const char *const names[] = {
        [BAL_ROPE_NONE] = "default",     [BAL_ROPE_DEFAULT] = "default", [BAL_ROPE_LINEAR] = "linear",
        [BAL_ROPE_DYNAMIC] = "dynamic",  [BAL_ROPE_YARN] = "yarn",       [BAL_ROPE_LLAMA3] = "llama3",
        [BAL_ROPE_LONGROPE] = "longrope"};
    const char *kind = names[r->kind];
    BAL_TRY(bal_buf_printf(out, "\n  \"rope_type\": \"%s\"", kind));
    if (r->kind == BAL_ROPE_DEFAULT)
        goto out;
    BAL_TRY(put_real(out, "factor", r->factor));
    if (r->kind == BAL_ROPE_YARN || r->kind == BAL_ROPE_LLAMA3 || r->kind == BAL_ROPE_LONGROPE)
        BAL_TRY(put_number(out, "original_max_position_embeddings", r->original_max_positions));
    if (r->kind == BAL_ROPE_LLAMA3) {
        BAL_TRY(put_real(out, "low_freq_factor", r->low_freq_factor));
        BAL_TRY(put_real(out, "high_freq_factor", r->high_freq_factor));
    }
    if (r->kind == BAL_ROPE_YARN) {
        BAL_TRY(put_real(out, "beta_fast", r->beta_fast));
        BAL_TRY(put_real(out, "beta_slow", r->beta_slow));
        if (r->attention_factor != 0)
            BAL_TRY(put_real(out, "attention_factor", r->attention_factor));
        if (r->exact_ramp)
            BAL_TRY(bal_buf_text(out, ",\n  \"truncate\": false"));
    }
    if (r->kind == BAL_ROPE_LONGROPE) {
        BAL_TRY(put_divisors(out, "short_factor", r->short_factor, rotary_dim / 2));
        BAL_TRY(put_divisors(out, "long_factor", r->long_factor, rotary_dim / 2));
        if (r->attention_factor != 0)
            BAL_TRY(put_real(out, "attention_factor", r->attention_factor));
    }
out:
    return status;
}

/* ,"key":value or null when it is 0 */
static bal_status put_or_null(bal_buf *out, const char *key, double value)
{
    return value > 0 ? put_real(out, key, value) : bal_buf_printf(out, ",\n  \"%s\": null", key);
}

static bal_status put_bool(bal_buf *out, const char *key, bool value)
{
    return bal_buf_printf(out, ",\n  \"%s\": %s", key, value ? "true" : "false");
}

static bal_status put_sizes(bal_buf *out, const bal_family *f, const bal_model_config *c)
{
    bal_status status;
    const bal_family_keys *k = f->keys;
    BAL_TRY(put_number(out, k->layers, (double)c->n_layers));
    BAL_TRY(put_number(out, k->hidden, (double)c->hidden));
    BAL_TRY(put_number(out, k->heads, (double)c->n_heads));
    BAL_TRY(put_number(out, k->intermediate, (double)c->intermediate));
    BAL_TRY(put_number(out, "vocab_size", (double)c->vocab));
    BAL_TRY(put_number(out, k->positions, (double)c->max_positions));
    if (k->norm_eps != NULL)
        BAL_TRY(put_real(out, k->norm_eps, c->norm_eps));
    BAL_TRY(put_real(out, k->initializer, c->initializer_range));
    if (f->rope != BAL_ROPE_NONE) {
        BAL_TRY(put_number(out, "num_key_value_heads", (double)c->n_kv_heads));
        BAL_TRY(put_number(out, "head_dim", (double)c->head_dim));
    }
out:
    return status;
}

static bal_status put_sliding(bal_buf *out, const bal_family *f, const bal_model_config *c)
{
    bal_status status = BAL_OK;
    if (f->sliding == BAL_SLIDING_NONE)
        return BAL_OK;
    bool patterned = f->sliding == BAL_SLIDING_EVEN || f->sliding == BAL_SLIDING_PATTERN, all = true;
    /* transformers cannot run Gemma without a window: one that no layer has */
    size_t window = patterned && c->window == 0 ? c->max_positions : c->window;
    BAL_TRY(window > 0 ? put_number(out, "sliding_window", (double)window)
                       : bal_buf_text(out, ",\n  \"sliding_window\": null"));
    if (f->sliding == BAL_SLIDING_FROM_LAYER || f->sliding == BAL_SLIDING_UNROTATED)
        BAL_TRY(put_bool(out, "use_sliding_window", c->window != 0));
    for (size_t i = 0; i < c->n_layers; i++)
        all = all && bal_layer_in(&c->sliding, i);
    if (window == 0 ||
        (f->sliding == BAL_SLIDING_ALL && all)) /* transformers takes a Mistral with layer_types for another type */
        goto out;
    size_t last_full = 0;
    for (size_t i = 0; i < c->n_layers; i++) {
        bool slides = c->window != 0 && bal_layer_in(&c->sliding, i);
        if (!slides)
            last_full = i + 1;
        BAL_TRY(bal_buf_printf(out, "%s\"%s\"%s", i == 0 ? ",\n  \"layer_types\": [" : ", ",
                               slides ? "sliding_attention" : "full_attention", i + 1 == c->n_layers ? "]" : ""));
    }
    if (f->sliding == BAL_SLIDING_FROM_LAYER)
        BAL_TRY(put_number(out, "max_window_layers", (double)last_full));
    if (f->sliding == BAL_SLIDING_PATTERN) { /* the first layer without a window ends the first period */
        size_t period = 0;
        while (period < c->n_layers && c->window != 0 && bal_layer_in(&c->sliding, period))
            period++;
        BAL_TRY(put_number(out, "sliding_window_pattern", (double)period + 1));
    }
out:
    return status;
}

/* What rounding has taken from a whole number. */
static double whole(double v)
{
    return fabs(v - round(v)) <= 1e-9 * v ? round(v) : v;
}

static bal_status put_extras(bal_buf *out, const bal_family *f, const bal_model_config *c)
{
    bal_status status;
    BAL_TRY(put_sliding(out, f, c));
    if (f->score_scalar)
        BAL_TRY(put_number(out, "query_pre_attn_scalar", whole(1 / (c->attention_scale * c->attention_scale))));
    if (f->softcaps) {
        BAL_TRY(put_or_null(out, "attn_logit_softcapping", c->attention_softcap));
        BAL_TRY(put_or_null(out, "final_logit_softcapping", c->logit_softcap));
    }
    if (f->local_theta > 0)
        BAL_TRY(put_real(out, "rope_local_base_freq", c->local_rope.theta));
    for (size_t i = 0; f->nope_keys && i < c->n_layers; i++)
        BAL_TRY(bal_buf_printf(out, "%s%d%s", i == 0 ? ",\n  \"no_rope_layers\": [" : ", ",
                               bal_layer_in(&c->unrotated, i) ? 0 : 1, i + 1 == c->n_layers ? "]" : ""));
    if (f->learned_offset != 0) {
        BAL_TRY(put_bool(out, "do_layer_norm_before", !c->norm_after_add));
        BAL_TRY(put_number(out, "word_embed_proj_dim", (double)c->hidden));
        BAL_TRY(put_bool(out, "enable_bias", !c->no_biases));
        BAL_TRY(put_bool(out, "_remove_final_layer_norm", c->no_final_norm && !c->norm_after_add));
    }
    if (f->conv1d) {
        double plain = 1 / sqrt((double)c->head_dim);
        BAL_TRY(put_bool(out, "scale_attn_weights", fabs(c->attention_scale - plain) <= 1e-9 * plain));
        BAL_TRY(put_bool(out, "scale_attn_by_inverse_layer_idx", c->scale_by_layer));
    }
    if (f->parallel_key)
        BAL_TRY(put_bool(out, "use_parallel_residual", c->parallel));
    if (f->rotary_part > 0 || c->rotary_dim != c->head_dim)
        BAL_TRY(put_real(out, "partial_rotary_factor", (double)c->rotary_dim / (double)c->head_dim));
    if (f->longrope_alias)
        BAL_TRY(put_number(out, "original_max_position_embeddings", c->rope.original_max_positions));
out:
    return status;
}

bal_status bal_config_to_json(bal_buf *out, const bal_model_config *c, const char *dtype)
{
    const bal_family *f = bal_family_by_model_type(c->model_type);
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\"", f->class_name,
                           c->model_type));
    BAL_TRY(
        bal_buf_printf(out, ",\n  \"%s\": \"%s\",\n  \"torch_dtype\": \"%s\"", f->keys->act, act_name(c->act), dtype));
    BAL_TRY(put_sizes(out, f, c));
    BAL_TRY(put_extras(out, f, c));
    if (f->rope != BAL_ROPE_NONE)
        BAL_TRY(put_real(out, "rope_theta", c->rope.theta));
    if (c->rope.kind == BAL_ROPE_NONE) {
        status = BAL_OK;
    } else if (c->rope.kind == BAL_ROPE_DEFAULT) {
        BAL_TRY(bal_buf_text(out, ",\n  \"rope_scaling\": null"));
    } else {
        BAL_TRY(bal_buf_text(out, ",\n  \"rope_scaling\": {"));
        BAL_TRY(put_rope(out, &c->rope, c->rotary_dim));
        BAL_TRY(bal_buf_text(out, "\n  }"));
    }
    BAL_TRY(bal_buf_printf(out, ",\n  \"tie_word_embeddings\": %s", c->tied_head ? "true" : "false"));
    if (f->bias_keys)
        BAL_TRY(put_bool(out, "attention_bias", c->attention_bias));
    if (f->mlp_bias_key)
        BAL_TRY(put_bool(out, "mlp_bias", c->mlp_bias));
    if (f->qkv_bias_key != NULL)
        BAL_TRY(put_bool(out, f->qkv_bias_key, c->attention_bias));
    if (c->bos >= 0)
        BAL_TRY(put_number(out, "bos_token_id", c->bos));
    /* always: where it is absent some classes take one that a smaller vocabulary has not */
    BAL_TRY(c->pad >= 0 ? put_number(out, "pad_token_id", c->pad) : bal_buf_text(out, ",\n  \"pad_token_id\": null"));
    if (c->n_eos == 1)
        BAL_TRY(put_number(out, "eos_token_id", c->eos[0]));
    for (size_t i = 0; c->n_eos > 1 && i < c->n_eos; i++)
        BAL_TRY(bal_buf_printf(out, "%s%d%s", i == 0 ? ",\n  \"eos_token_id\": [" : ", ", c->eos[i],
                               i + 1 == c->n_eos ? "]" : ""));
    BAL_TRY(bal_buf_text(out, "\n}\n"));
out:
    return status;
}
