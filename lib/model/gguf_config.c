/* The configuration of a model as the values of a GGUF file, and what cannot be said there.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/config_impl.h"
#include "lib/model/gguf_names.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct target {
    const bal_model_config *c;
    const bal_family *family;
    bal_gguf_writer *writer;
} target;

static bal_status put_u32(const target *t, const char *key, size_t value)
{
    char full[96];
    (void)snprintf(full, sizeof full, "%s.%s", t->family->architecture, key);
    return bal_gguf_writer_u32(t->writer, full, (uint32_t)value);
}

static bal_status put_f32(const target *t, const char *key, double value)
{
    char full[96];
    (void)snprintf(full, sizeof full, "%s.%s", t->family->architecture, key);
    return bal_gguf_writer_f32(t->writer, full, value);
}

/* Llama 3's bands are a tensor of divisors; linear and YaRN scaling are values. */
static bal_status put_rope(const target *t)
{
    const bal_rope_config *r = &t->c->rope;
    bal_status status;
    char key[96];
    BAL_TRY(put_u32(t, "rope.dimension_count", t->c->rotary_dim));
    BAL_TRY(put_f32(t, "rope.freq_base", r->theta));
    if (t->c->local_rope.kind != BAL_ROPE_NONE)
        BAL_TRY(put_f32(t, "rope.freq_base_swa", t->c->local_rope.theta));
    if (r->kind == BAL_ROPE_LONGROPE) {
        (void)snprintf(key, sizeof key, "%s.rope.scaling.type", t->family->architecture);
        BAL_TRY(bal_gguf_writer_text(t->writer, key, "longrope"));
        BAL_TRY(put_u32(t, "rope.scaling.original_context_length", (size_t)r->original_max_positions));
        BAL_TRY(put_f32(t, "rope.scaling.attn_factor", bal_rope_frequencies(r, 0, 0, NULL, NULL)));
    }
    if (r->kind != BAL_ROPE_LINEAR && r->kind != BAL_ROPE_YARN)
        goto out;
    (void)snprintf(key, sizeof key, "%s.rope.scaling.type", t->family->architecture);
    BAL_TRY(bal_gguf_writer_text(t->writer, key, r->kind == BAL_ROPE_LINEAR ? "linear" : "yarn"));
    BAL_TRY(put_f32(t, "rope.scaling.factor", r->factor));
    if (r->original_max_positions > 0)
        BAL_TRY(put_u32(t, "rope.scaling.original_context_length", (size_t)r->original_max_positions));
    if (r->kind == BAL_ROPE_YARN) {
        BAL_TRY(put_f32(t, "rope.scaling.yarn_beta_fast", r->beta_fast));
        BAL_TRY(put_f32(t, "rope.scaling.yarn_beta_slow", r->beta_slow));
        if (r->attention_factor > 0 && r->factor > 0)
            BAL_TRY(put_f32(t, "rope.scaling.attn_factor",
                            r->attention_factor / (r->factor <= 1 ? 1 : 0.1 * log(r->factor) + 1)));
    }
out:
    return status;
}

/* The n of "all layers but every n-th have the window", the usual one first; 0: there is none. */
static size_t period_of(const target *t)
{
    const bal_model_config *c = t->c;
    for (size_t i = 0; i <= c->n_layers + 1; i++) {
        size_t period = i == 0 ? bal_config_usual_period(t->family) : i;
        bool fits = true;
        for (size_t layer = 0; layer < c->n_layers; layer++)
            fits = fits && bal_layer_in(&c->sliding, layer) == ((layer + 1) % period != 0);
        if (fits)
            return period;
    }
    return 0;
}

static bool has_pattern(const bal_family *f)
{
    return f->sliding == BAL_SLIDING_EVEN || f->sliding == BAL_SLIDING_PATTERN;
}

static bal_status put_window(const target *t)
{
    bal_status status;
    if (t->c->window == 0 || t->family->gguf_no_window)
        return BAL_OK;
    BAL_TRY(put_u32(t, "attention.sliding_window", t->c->window));
    if (has_pattern(t->family) && period_of(t) != bal_config_usual_period(t->family))
        BAL_TRY(put_u32(t, "attention.sliding_window_pattern", period_of(t)));
out:
    return status;
}

static bal_status put_config(const target *t)
{
    const bal_model_config *c = t->c;
    bal_status status;
    BAL_TRY(bal_gguf_writer_text(t->writer, "general.architecture", t->family->architecture));
    BAL_TRY(bal_gguf_writer_text(t->writer, "general.type", "model"));
    if (c->max_positions > 0)
        BAL_TRY(put_u32(t, "context_length", c->max_positions));
    BAL_TRY(put_u32(t, "embedding_length", c->hidden));
    BAL_TRY(put_u32(t, "block_count", c->n_layers));
    BAL_TRY(put_u32(t, "feed_forward_length", c->intermediate));
    BAL_TRY(put_u32(t, "attention.head_count", c->n_heads));
    BAL_TRY(put_u32(t, "attention.head_count_kv", c->n_kv_heads));
    BAL_TRY(put_u32(t, "attention.key_length", c->head_dim));
    BAL_TRY(put_u32(t, "attention.value_length", c->head_dim));
    BAL_TRY(put_f32(t, bal_config_norm_key(c), c->norm_eps));
    BAL_TRY(put_u32(t, "vocab_size", c->vocab));
    BAL_TRY(put_window(t));
    if (c->attention_softcap > 0)
        BAL_TRY(put_f32(t, "attn_logit_softcapping", c->attention_softcap));
    if (c->logit_softcap > 0)
        BAL_TRY(put_f32(t, "final_logit_softcapping", c->logit_softcap));
    if (c->rope.kind != BAL_ROPE_NONE)
        BAL_TRY(put_rope(t));
    if (t->family->parallel_key) {
        char key[96];
        (void)snprintf(key, sizeof key, "%s.use_parallel_residual", t->family->architecture);
        BAL_TRY(bal_gguf_writer_bool(t->writer, key, c->parallel));
    }
out:
    return status;
}

bal_status bal_gguf_put_config(const bal_model *m, const bal_family *f, bal_gguf_writer *w)
{
    return put_config(&(target){.c = &m->config, .family = f, .writer = w});
}

double bal_gguf_scale(const bal_family *f, const bal_model_config *c)
{
    /* the 27B models scale by the width of a head of the residual stream */
    bool large = f->score_scalar && c->n_layers == (f->sliding == BAL_SLIDING_EVEN ? 46 : 62);
    return 1 / sqrt(large ? floor((double)c->hidden / (double)c->n_heads) : (double)c->head_dim);
}

/* What the form cannot say; NULL when all is well. */
static const char *unsaid(const bal_model *m, const bal_family *f)
{
    const bal_model_config *c = &m->config;
    const target t = {.c = c, .family = f};
    bal_act_kind act = BAL_ACT_SILU;
    bool usual_layers = true;
    if (bal_config_act(f->act, "", &act) != BAL_OK || act != c->act)
        return "another activation than its family's";
    if (c->rope.kind == BAL_ROPE_DYNAMIC)
        return "dynamic rope scaling";
    if (c->rope.kind == BAL_ROPE_YARN && c->rope.exact_ramp)
        return "YaRN without whole dimensions (truncate false)";
    if (f->gguf_permuted && c->rotary_dim != c->head_dim)
        return "heads of which only a part turns (partial_rotary_factor)";
    if (c->scale_by_layer)
        return "scores scaled by the layer (scale_attn_by_inverse_layer_idx)";
    if (c->window != 0 && has_pattern(f) && period_of(&t) == 0)
        return "layers with the window at irregular places";
    if (f->score_scalar ? c->attention_scale * sqrt((double)c->head_dim) <= 0
                        : fabs(c->attention_scale / bal_gguf_scale(f, c) - 1) > 1e-6)
        return "scores that are not scaled by the head size (scale_attn_weights false)";
    if (f->softcaps && f->sliding == BAL_SLIDING_EVEN && (c->attention_softcap <= 0 || c->logit_softcap <= 0))
        return "a soft cap of null";
    if (f->softcaps && f->sliding != BAL_SLIDING_EVEN && c->attention_softcap > 0)
        return "capped scores";
    if (f->sliding == BAL_SLIDING_EVEN && c->window == 0)
        return "no window";
    if (c->local_rope.kind != BAL_ROPE_NONE && c->local_rope.kind != BAL_ROPE_DEFAULT)
        return "scaled rotary positions in layers with the window";
    for (size_t i = 0; f->nope_keys && i < c->n_layers; i++)
        usual_layers = usual_layers && bal_layer_in(&c->unrotated, i) == ((i + 1) % 4 == 0);
    return usual_layers ? NULL : "layers without rotation at other places than every fourth";
}

bal_status bal_gguf_check(const bal_model *m, const bal_family *f)
{
    if (f == NULL || f->architecture == NULL)
        return bal_fail(BAL_EUNSUPPORTED, "models of the type %s are not written as GGUF; write a folder instead",
                        m->config.model_type);
    const char *what = unsaid(m, f);
    if (what != NULL)
        return bal_fail(BAL_EUNSUPPORTED,
                        "the model has %s, which GGUF files of the architecture %s cannot say; write "
                        "a folder instead",
                        what, f->architecture);
    return BAL_OK;
}
