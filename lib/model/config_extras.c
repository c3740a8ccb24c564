/* What a family's configuration has beside LLaMA's parts: layers with a window, soft caps, the factor of the scores,
 * learned positions, layers without rotation.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/config.h"
#include "lib/model/config_impl.h"
#include "lib/model/gguf_names.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void bal_config_slide_by_period(bal_model_config *c, size_t period)
{
    for (size_t i = 0; i < c->n_layers; i++)
        bal_layer_put(&c->sliding, i, (i + 1) % period != 0);
}

static bal_status size_of(const cJSON *json, const char *where, const char *key, int64_t min, size_t *out, bool *found)
{
    int64_t value = (int64_t)*out;
    bal_status status = bal_json_i64(json, where, key, min, BAL_CONFIG_MAX_POSITIONS, &value, found);
    *out = (size_t)value;
    return status;
}

/* transformers 5 names the kind of each layer. */
static bal_status read_layer_types(bal_model_config *c, const cJSON *types, const char *where)
{
    const cJSON *item = NULL;
    size_t i = 0;
    cJSON_ArrayForEach(item, types)
    {
        const char *type = cJSON_IsString(item) ? item->valuestring : "";
        bool sliding = strcmp(type, "sliding_attention") == 0;
        if (i >= c->n_layers || (!sliding && strcmp(type, "full_attention") != 0))
            return bal_fail(BAL_EFORMAT,
                            "%s: element %zu of layer_types is '%.40s'; %zu of full_attention or sliding_attention "
                            "are expected",
                            where, i, type, c->n_layers);
        bal_layer_put(&c->sliding, i++, sliding);
    }
    if (i != c->n_layers)
        return bal_fail(BAL_EFORMAT, "%s: layer_types has %zu elements for %zu layers", where, i, c->n_layers);
    return BAL_OK;
}

static bal_status sliding_from_json(bal_model_config *c, const bal_family *f, const cJSON *json, const char *where)
{
    bal_status status = BAL_OK;
    size_t pattern = 6, from = 28;
    bool use = false;
    const cJSON *types = bal_json_member(json, "layer_types");
    const cJSON *window = cJSON_GetObjectItemCaseSensitive(json, "sliding_window");
    if (f->sliding == BAL_SLIDING_NONE)
        return BAL_OK;
    if (f->sliding == BAL_SLIDING_FROM_LAYER || f->sliding == BAL_SLIDING_UNROTATED) {
        BAL_TRY(bal_json_bool(json, where, "use_sliding_window", &use, NULL));
        if (!use && (types == NULL || f->sliding == BAL_SLIDING_FROM_LAYER)) /* else layer_types go first */
            return BAL_OK;
    }
    c->window = cJSON_IsNull(window) ? 0 : f->default_window;
    BAL_TRY(size_of(json, where, "sliding_window", 1, &c->window, NULL));
    BAL_TRY(size_of(json, where, "max_window_layers", 0, &from, NULL));
    if (f->sliding == BAL_SLIDING_UNROTATED)
        c->sliding = c->unrotated;
    if (c->window == 0)
        goto out;
    if (types != NULL && !f->longrope_alias) { /* Phi-3 does not read them */
        BAL_TRY(read_layer_types(c, types, where));
    } else if (f->sliding == BAL_SLIDING_EVEN) {
        bal_config_slide_by_period(c, 2);
    } else if (f->sliding == BAL_SLIDING_PATTERN) {
        BAL_TRY(size_of(json, where, "sliding_window_pattern", 1, &pattern, NULL));
        bal_config_slide_by_period(c, pattern);
    } else if (f->sliding != BAL_SLIDING_UNROTATED) {
        for (size_t i = f->sliding == BAL_SLIDING_FROM_LAYER ? from : 0; i < c->n_layers; i++)
            bal_layer_put(&c->sliding, i, true);
    }
out:
    return status;
}

/* A factor or cap: absent or null is *out; else above 0. */
static bal_status positive(const cJSON *json, const char *where, const char *key, double *out)
{
    bool found;
    bal_status status = bal_json_f64(json, where, key, out, &found);
    if (status == BAL_OK && found && !(*out > 0 && *out <= 1e9))
        return bal_fail(BAL_EFORMAT, "%s: %s is %g, not above 0 and at most 1e9", where, key, *out);
    return status;
}

static bal_status scores_from_json(bal_model_config *c, const bal_family *f, const cJSON *json, const char *where)
{
    bal_status status = BAL_OK;
    double scalar = f->score_scalar ? 256 : (double)c->head_dim;
    bool scaled = true;
    if (f->score_scalar)
        BAL_TRY(positive(json, where, "query_pre_attn_scalar", &scalar));
    c->attention_scale = 1 / sqrt(scalar);
    if (f->softcaps) {
        bool two = f->sliding == BAL_SLIDING_EVEN; /* gemma 2 has caps when nothing is said */
        c->attention_softcap = two && cJSON_GetObjectItemCaseSensitive(json, "attn_logit_softcapping") == NULL ? 50 : 0;
        c->logit_softcap = two && cJSON_GetObjectItemCaseSensitive(json, "final_logit_softcapping") == NULL ? 30 : 0;
        if (f->score_caps)
            BAL_TRY(positive(json, where, "attn_logit_softcapping", &c->attention_softcap));
        BAL_TRY(positive(json, where, "final_logit_softcapping", &c->logit_softcap));
    }
    if (!f->conv1d)
        goto out;
    BAL_TRY(bal_json_bool(json, where, "scale_attn_by_inverse_layer_idx", &c->scale_by_layer, NULL));
    BAL_TRY(bal_json_bool(json, where, "scale_attn_weights", &scaled, NULL));
    if (!scaled)
        c->attention_scale = 1;
out:
    return status;
}

/* Gemma 3's layers with the window have a rotary base of their own. */
static bal_status local_rope_from_json(bal_model_config *c, const bal_family *f, const cJSON *json, const char *where)
{
    bal_status status = BAL_OK;
    const cJSON *parameters = bal_json_member(json, "rope_parameters");
    const cJSON *local = parameters == NULL ? NULL : bal_json_member(parameters, "sliding_attention");
    const cJSON *global = parameters == NULL ? NULL : bal_json_member(parameters, "full_attention");
    bal_rope_place at;
    if (f->local_theta <= 0)
        return BAL_OK;
    BAL_TRY(bal_config_rope_place(&at, c, f, json, where));
    bal_rope_config start = c->rope;
    start.kind = BAL_ROPE_DEFAULT;
    start.factor = 1;
    c->local_rope = start;
    c->local_rope.theta = f->local_theta;
    BAL_TRY(positive(json, where, "rope_local_base_freq", &c->local_rope.theta));
    if (local == NULL && global == NULL)
        goto out;
    if (global != NULL) {
        c->rope = start; /* with rope_theta, when that is beside */
        BAL_TRY(bal_config_rope_from_json(&c->rope, &at, global, where));
    }
    if (local != NULL)
        BAL_TRY(bal_config_rope_from_json(&c->local_rope, &at, local, where));
    if (bal_rope_by_length(&c->local_rope) || bal_rope_by_length(&c->rope))
        status = bal_fail(BAL_EUNSUPPORTED,
                          "%s: rope scaling by the length (dynamic, longrope) is not supported with two rotary bases",
                          where);
out:
    return status;
}

/* SmolLM3: a layer whose entry is 0 is not rotated; without the list every interval-th one. */
static bal_status unrotated_from_json(bal_model_config *c, const cJSON *json, const char *where)
{
    size_t interval = 4, i = 0;
    const cJSON *list = bal_json_member(json, "no_rope_layers"), *item = NULL;
    bal_status status = size_of(json, where, "no_rope_layer_interval", 1, &interval, NULL);
    if (status != BAL_OK)
        return status;
    if (list == NULL) {
        for (i = 0; i < c->n_layers; i++)
            bal_layer_put(&c->unrotated, i, (i + 1) % interval == 0);
        return BAL_OK;
    }
    cJSON_ArrayForEach(item, list)
    {
        if (i == c->n_layers || !cJSON_IsNumber(item)) /* it may be of a deeper model */
            break;
        bal_layer_put(&c->unrotated, i++, item->valuedouble == 0);
    }
    if (i != c->n_layers)
        return bal_fail(BAL_EFORMAT, "%s: no_rope_layers must be %zu numbers, 0 or 1, one a layer", where, c->n_layers);
    return BAL_OK;
}

static bal_status opt_from_json(bal_model_config *c, const cJSON *json, const char *where)
{
    bal_status status;
    size_t width = c->hidden;
    bool before = true, biases = true, affine = true;
    BAL_TRY(size_of(json, where, "word_embed_proj_dim", 1, &width, NULL));
    BAL_TRY(bal_json_bool(json, where, "do_layer_norm_before", &before, NULL));
    BAL_TRY(bal_json_bool(json, where, "enable_bias", &biases, NULL));
    BAL_TRY(bal_json_bool(json, where, "layer_norm_elementwise_affine", &affine, NULL));
    BAL_TRY(bal_json_bool(json, where, "_remove_final_layer_norm", &c->no_final_norm, NULL));
    c->norm_after_add = !before;
    c->no_final_norm = c->no_final_norm || !before;
    c->no_biases = !biases;
    if (width != c->hidden)
        c->embed_width = width;
    if (width > BAL_CONFIG_MAX_HIDDEN)
        status = bal_fail(BAL_ELIMIT, "%s: word_embed_proj_dim %zu is above %d", where, width, BAL_CONFIG_MAX_HIDDEN);
    else if (!affine)
        status = bal_fail(BAL_EUNSUPPORTED,
                          "%s: norms without weights (layer_norm_elementwise_affine false) are not supported", where);
out:
    return status;
}

static bal_status stablelm_from_json(bal_model_config *c, const cJSON *json, const char *where)
{
    bool head_norms = false;
    bal_status status = bal_json_bool(json, where, "use_parallel_residual", &c->parallel, NULL);
    if (status == BAL_OK)
        status = bal_json_bool(json, where, "qk_layernorm", &head_norms, NULL);
    if (status == BAL_OK && head_norms)
        return bal_fail(BAL_EUNSUPPORTED, "%s: a norm of its own for each head (qk_layernorm true) is not supported",
                        where);
    return status;
}

bal_status bal_config_extras_from_json(bal_model_config *c, const bal_family *f, const cJSON *json, const char *where)
{
    bal_status status;
    bool both_ways = false;
    BAL_TRY(bal_json_bool(json, where, "use_bidirectional_attention", &both_ways, NULL));
    if (both_ways) {
        status = bal_fail(BAL_EUNSUPPORTED, "%s: use_bidirectional_attention true is not supported", where);
        goto out;
    }
    if (f->nope_keys)
        BAL_TRY(unrotated_from_json(c, json, where));
    BAL_TRY(sliding_from_json(c, f, json, where));
    BAL_TRY(scores_from_json(c, f, json, where));
    BAL_TRY(local_rope_from_json(c, f, json, where));
    if (f->parallel_key)
        BAL_TRY(stablelm_from_json(c, json, where));
    if (f->learned_offset != 0)
        BAL_TRY(opt_from_json(c, json, where));
    if (f->masked)
        BAL_TRY(bal_config_encoder_from_json(c, f, json, where));
out:
    return status;
}

static double f64_of(const bal_family *f, const bal_gguf *g, const char *key, double otherwise)
{
    char name[160];
    double value = otherwise;
    (void)snprintf(name, sizeof name, "%s.%s", f->architecture, key);
    return bal_gguf_f64(g, name, &value, NULL) == BAL_OK ? value : otherwise;
}

size_t bal_config_usual_period(const bal_family *f)
{
    return f->sliding == BAL_SLIDING_EVEN ? 2 : 6;
}

/* The layers with the window: all, all but every n-th, or as a list says. */
static bal_status sliding_from_gguf(bal_model_config *c, const bal_family *f, const bal_gguf *g, const char *where)
{
    char key[160];
    bool regular = f->sliding == BAL_SLIDING_EVEN || f->sliding == BAL_SLIDING_PATTERN;
    (void)snprintf(key, sizeof key, "%s.attention.sliding_window_pattern", f->architecture);
    const bal_gguf_value *list = bal_gguf_find(g, key);
    if (list != NULL && list->is_array && list->data != NULL) {
        if (list->n != c->n_layers)
            return bal_fail(BAL_EFORMAT, "%s: value '%s' has %zu elements for %zu layers", where, key, (size_t)list->n,
                            c->n_layers);
        for (size_t i = 0; i < c->n_layers; i++)
            bal_layer_put(&c->sliding, i, bal_gguf_element(list, i) != 0);
        return BAL_OK;
    }
    double period = f64_of(f, g, "attention.sliding_window_pattern", regular ? (double)bal_config_usual_period(f) : 0);
    if (!(period >= 0 && period <= BAL_MAX_LAYERS + 1))
        return bal_fail(BAL_EFORMAT, "%s: value '%s' is %g, not a number of layers", where, key, period);
    for (size_t i = 0; i < c->n_layers; i++) /* 0: all of them */
        bal_layer_put(&c->sliding, i, period < 1 || (i + 1) % (size_t)period != 0);
    return BAL_OK;
}

/* llama.cpp's rules for what its files do not say. */
bal_status bal_config_extras_from_gguf(bal_model_config *c, const bal_family *f, const bal_gguf *g, const char *where)
{
    double window = f64_of(f, g, "attention.sliding_window", 0);
    if (!(window >= 0 && window <= BAL_CONFIG_MAX_POSITIONS))
        return bal_fail(BAL_EFORMAT, "%s: attention.sliding_window is %g", where, window);
    c->window = f->sliding == BAL_SLIDING_EVEN && window == 0 ? f->default_window : (size_t)window;
    if (f->gguf_no_window || f->sliding == BAL_SLIDING_NONE)
        c->window = 0;
    if (c->window != 0) {
        bal_status status = sliding_from_gguf(c, f, g, where);
        if (status != BAL_OK)
            return status;
    }
    if (f->parallel_key) {
        char name[160];
        (void)bal_family_name(name, sizeof name, f->gguf.norm[BAL_NORM_MLP_IN], 0, ".weight");
        c->parallel = bal_gguf_tensor(g, name) == NULL;
    }
    c->attention_scale = bal_gguf_scale(f, c);
    if (f->softcaps) {
        bool two = f->sliding == BAL_SLIDING_EVEN;
        c->attention_softcap = f->score_caps ? f64_of(f, g, "attn_logit_softcapping", two ? 50 : 0) : 0;
        c->logit_softcap = f64_of(f, g, "final_logit_softcapping", two ? 30 : 0);
        if (!(c->attention_softcap >= 0 && c->logit_softcap >= 0))
            return bal_fail(BAL_EFORMAT, "%s: a soft cap is below 0 or not a number", where);
    }
    if (f->local_theta > 0) {
        c->local_rope = c->rope;
        c->local_rope.kind = BAL_ROPE_DEFAULT;
        c->local_rope.factor = 1;
        c->local_rope.theta = f64_of(f, g, "rope.freq_base_swa", f->local_theta);
        if (!(c->local_rope.theta > 0 && c->local_rope.theta <= 1e12))
            return bal_fail(BAL_EFORMAT, "%s: rope.freq_base_swa is %g", where, c->local_rope.theta);
    }
    if (f->nope_keys)
        for (size_t i = 0; i < c->n_layers; i++)
            bal_layer_put(&c->unrotated, i, (i + 1) % 4 == 0);
    return BAL_OK;
}
