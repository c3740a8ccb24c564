/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/config.h"
#include "lib/model/config_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    bal_act_kind kind;
} k_acts[] = {{"silu", BAL_ACT_SILU},          {"swish", BAL_ACT_SILU}, {"gelu_pytorch_tanh", BAL_ACT_GELU_TANH},
              {"gelu_new", BAL_ACT_GELU_TANH}, {"gelu", BAL_ACT_GELU},  {"relu", BAL_ACT_RELU},
              {"gelu_fast", BAL_ACT_GELU_TANH}};

static const struct {
    const char *name;
    bal_rope_kind kind;
} k_ropes[] = {{"default", BAL_ROPE_DEFAULT}, {"linear", BAL_ROPE_LINEAR}, {"dynamic", BAL_ROPE_DYNAMIC},
               {"yarn", BAL_ROPE_YARN},       {"llama3", BAL_ROPE_LLAMA3}, {"longrope", BAL_ROPE_LONGROPE}};

enum { N_ACTS = sizeof k_acts / sizeof k_acts[0], N_ROPES = sizeof k_ropes / sizeof k_ropes[0] };

void bal_config_defaults(bal_model_config *c, const bal_family *f)
{
    *c = (bal_model_config){0};
    (void)snprintf(c->model_type, sizeof c->model_type, "%s", f->model_type);
    c->norm = f->norm;
    c->norm_eps = f->norm_eps > 0 ? f->norm_eps : f->norm == BAL_NORM_LAYER ? 1e-5 : 1e-6;
    c->max_positions = f->positions != 0 ? f->positions : f->masked ? 512 : 2048;
    c->tied_head = f->tied_head;
    c->embed_scale = 1;
    c->bos = c->pad = -1;
    c->initializer_range = 0.02;
    c->rope = (bal_rope_config){.kind = f->rope,
                                .theta = f->theta > 0 ? f->theta : 10000,
                                .factor = 1,
                                .low_freq_factor = 1,
                                .high_freq_factor = 4,
                                .beta_fast = 32,
                                .beta_slow = 1};
}

/* A positive number that is not absurd; NaN fails. */
static bal_status check_positive(const char *where, const char *key, double value, double max)
{
    if (!(value > 0 && value <= max))
        return bal_fail(BAL_EFORMAT, "%s: %s is %g, not above 0 and at most %g", where, key, value, max);
    return BAL_OK;
}

static bal_status check_rope(const bal_rope_config *r, const char *where)
{
    bal_status status = check_positive(where, "rope theta", r->theta, 1e12);
    if (status == BAL_OK && r->kind != BAL_ROPE_DEFAULT)
        status = check_positive(where, "the factor of the rope scaling", r->factor, 1e6);
    if (status == BAL_OK)
        status = check_positive(where, "original_max_position_embeddings", r->original_max_positions,
                                BAL_CONFIG_MAX_POSITIONS);
    if (status != BAL_OK)
        return status;
    if (r->kind == BAL_ROPE_LLAMA3 && !(r->low_freq_factor > 0 && r->high_freq_factor > r->low_freq_factor))
        return bal_fail(BAL_EFORMAT, "%s: rope scaling llama3 needs 0 < low_freq_factor (%g) < high_freq_factor (%g)",
                        where, r->low_freq_factor, r->high_freq_factor);
    if (r->kind == BAL_ROPE_LONGROPE && !(r->original_max_positions > 1 && r->attention_factor >= 0))
        return bal_fail(BAL_EFORMAT, "%s: rope scaling longrope has an original length of %g, attention_factor %g",
                        where, r->original_max_positions, r->attention_factor);
    if (r->kind == BAL_ROPE_YARN && !(r->beta_fast > 0 && r->beta_slow > 0 && r->attention_factor >= 0))
        return bal_fail(BAL_EFORMAT, "%s: rope scaling yarn has beta_fast %g, beta_slow %g, attention_factor %g", where,
                        r->beta_fast, r->beta_slow, r->attention_factor);
    return BAL_OK;
}

bal_status bal_config_check(const bal_model_config *c, const char *where)
{
    if (c->n_heads % c->n_kv_heads != 0)
        return bal_fail(BAL_EFORMAT, "%s: %zu attention heads cannot share %zu key/value heads evenly", where,
                        c->n_heads, c->n_kv_heads);
    if (c->rope.kind != BAL_ROPE_NONE && (c->rotary_dim % 2 != 0 || c->rotary_dim > c->head_dim || c->rotary_dim == 0))
        return bal_fail(BAL_EFORMAT, "%s: %zu of the %zu elements of a head turn, not an even number of them", where,
                        c->rotary_dim, c->head_dim);
    if (c->rope.kind == BAL_ROPE_LONGROPE && c->rotary_dim / 2 > BAL_LONGROPE_MAX)
        return bal_fail(BAL_ELIMIT, "%s: longrope turns %zu pairs; at most %d are supported", where, c->rotary_dim / 2,
                        BAL_LONGROPE_MAX);
    if (c->n_heads * c->head_dim > 4 * (size_t)BAL_CONFIG_MAX_HIDDEN)
        return bal_fail(BAL_ELIMIT, "%s: %zu heads of %zu are more than %d in all", where, c->n_heads, c->head_dim,
                        4 * BAL_CONFIG_MAX_HIDDEN);
    bal_status status = check_positive(where, "the epsilon of the norms", c->norm_eps, 1);
    if (status == BAL_OK && c->rope.kind != BAL_ROPE_NONE)
        status = check_rope(&c->rope, where);
    if (status == BAL_OK && c->local_rope.kind != BAL_ROPE_NONE)
        status = check_rope(&c->local_rope, where);
    return status;
}

/* ---- config.json ---- */

static bal_status need_size(const cJSON *json, const char *where, const char *key, int64_t max, size_t *out)
{
    int64_t value = 0;
    bool found;
    bal_status status = bal_json_i64(json, where, key, 1, max, &value, &found);
    if (status != BAL_OK)
        return status;
    if (!found)
        return bal_fail(BAL_EFORMAT, "%s: key '%s' is missing", where, key);
    *out = (size_t)value;
    return BAL_OK;
}

static bal_status maybe_size(const cJSON *json, const char *where, const char *key, int64_t max, size_t *out)
{
    int64_t value = (int64_t)*out;
    bal_status status = bal_json_i64(json, where, key, 1, max, &value, NULL);
    *out = (size_t)value;
    return status;
}

bal_status bal_config_act(const char *name, const char *where, bal_act_kind *out)
{
    for (size_t i = 0; i < N_ACTS; i++) {
        if (strcmp(k_acts[i].name, name) == 0) {
            *out = k_acts[i].kind;
            return BAL_OK;
        }
    }
    return bal_fail(BAL_EUNSUPPORTED, "%s: hidden_act '%s' is not one of silu, gelu, gelu_new, gelu_pytorch_tanh, relu",
                    where, name);
}

static bal_status find_rope(const char *name, const char *where, bal_rope_kind *out)
{
    for (size_t i = 0; i < N_ROPES; i++) {
        if (strcmp(k_ropes[i].name, name) == 0) {
            *out = k_ropes[i].kind;
            return BAL_OK;
        }
    }
    return bal_fail(BAL_EUNSUPPORTED,
                    "%s: rope scaling '%s' is not one of default, linear, dynamic, yarn, llama3, longrope", where,
                    name);
}

/* YaRN's factor of cos and sin from DeepSeek's two keys, when attention_factor is absent. */
static double yarn_scale(double factor, double mscale)
{
    return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1;
}

static bal_status read_divisors(const cJSON *scaling, const char *where, const char *key, size_t n, float *out)
{
    const cJSON *list = bal_json_member(scaling, key), *item = NULL;
    size_t i = 0;
    cJSON_ArrayForEach(item, list)
    {
        if (i >= n || i >= BAL_LONGROPE_MAX || !cJSON_IsNumber(item) ||
            !(item->valuedouble > 0 && item->valuedouble < 1e9))
            break;
        out[i++] = (float)item->valuedouble;
    }
    if (item != NULL || i != n)
        return bal_fail(BAL_EFORMAT, "%s: rope scaling longrope needs %s, a list of %zu numbers above 0", where, key,
                        n);
    return BAL_OK;
}

static bal_status longrope_from_json(bal_rope_config *r, const bal_rope_place *at, const cJSON *scaling,
                                     const char *where, bool has_factor)
{
    bal_status status;
    if (!has_factor)
        r->factor = (double)at->max_positions / r->original_max_positions;
    BAL_TRY(read_divisors(scaling, where, "short_factor", at->rotary_dim / 2, r->short_factor));
    BAL_TRY(read_divisors(scaling, where, "long_factor", at->rotary_dim / 2, r->long_factor));
out:
    return status;
}

/* One place and one form: transformers takes rope_scaling where both are given, with the rotary base of neither, and
 * reads one set of values where a model has one rotary base, two where it has two. */
static bal_status check_rope_form(const bal_family *f, const cJSON *json, const char *where)
{
    const cJSON *parameters = bal_json_member(json, "rope_parameters");
    if (parameters == NULL)
        return BAL_OK;
    bool nested = bal_json_member(parameters, "full_attention") != NULL ||
                  bal_json_member(parameters, "sliding_attention") != NULL;
    const cJSON *scaling = bal_json_member(json, "rope_scaling");
    if (scaling != NULL && scaling->child != NULL)
        return bal_fail(BAL_EUNSUPPORTED, "%s: rope_parameters and rope_scaling are both given; leave one of them",
                        where);
    if (nested != (f->local_theta > 0))
        return bal_fail(
            BAL_EUNSUPPORTED,
            nested ? "%s: rope_parameters differ by kind of layer (full_attention, sliding_attention), which a "
                     "%s has not"
                   : "%s: rope_parameters of a %s need full_attention and sliding_attention",
            where, f->model_type);
    return BAL_OK;
}

bal_status bal_config_rope_place(bal_rope_place *at, bal_model_config *c, const bal_family *f, const cJSON *json,
                                 const char *where)
{
    double part = f->rotary_part > 0 ? f->rotary_part : 1;
    const cJSON *scaling = bal_json_member(json, "rope_parameters");
    bal_status status;
    if (f->rotary_part > 0)
        BAL_TRY(bal_json_f64(json, where, "partial_rotary_factor", &part, NULL));
    if (scaling == NULL)
        scaling = bal_json_member(json, "rope_scaling");
    if (f->rotary_part > 0 && cJSON_IsObject(scaling))
        BAL_TRY(bal_json_f64(scaling, where, "partial_rotary_factor", &part, NULL));
    if (!(part > 0 && part <= 1)) {
        status = bal_fail(BAL_EFORMAT, "%s: partial_rotary_factor is %g, not above 0 and at most 1", where, part);
        goto out;
    }
    c->rotary_dim = (size_t)((double)c->head_dim * part);
    *at = (bal_rope_place){c->max_positions, c->rotary_dim, 0, f->longrope_alias};
    if (f->longrope_alias)
        at->original = 4096; /* Phi-3 has it beside the values of the rope */
    BAL_TRY(bal_json_f64(json, where, "original_max_position_embeddings", &at->original, NULL));
out:
    return status;
}

bal_status bal_config_rope_from_json(bal_rope_config *r, const bal_rope_place *at, const cJSON *json, const char *where)
{
    bal_status status;
    const char *kind = "default";
    bool truncate = true, has_original, has_factor, has_attention;
    double mscale = 0, mscale_all = 0;
    size_t max_positions = at->max_positions;
    const cJSON *scaling = bal_json_member(json, "rope_parameters");
    BAL_TRY(bal_json_f64(json, where, "rope_theta", &r->theta, NULL));
    if (scaling == NULL)
        scaling = bal_json_member(json, "rope_scaling");
    if (scaling == NULL && bal_json_member(json, "rope_type") != NULL)
        scaling = json; /* the parameters of one kind of layer */
    r->original_max_positions = (double)max_positions;
    if (scaling != NULL) {
        if (!cJSON_IsObject(scaling)) {
            status = bal_fail(BAL_EFORMAT, "%s: rope_parameters (or rope_scaling) must be an object", where);
            goto out;
        }
        BAL_TRY(bal_json_text(scaling, where, "type", &kind, NULL));
        BAL_TRY(bal_json_text(scaling, where, "rope_type", &kind, NULL));
        if (at->longrope_alias && (strcmp(kind, "su") == 0 || strcmp(kind, "yarn") == 0))
            kind = "longrope";
        BAL_TRY(find_rope(kind, where, &r->kind));
        BAL_TRY(bal_json_f64(scaling, where, "rope_theta", &r->theta, NULL));
        BAL_TRY(bal_json_f64(scaling, where, "factor", &r->factor, &has_factor));
        BAL_TRY(bal_json_f64(scaling, where, "low_freq_factor", &r->low_freq_factor, NULL));
        BAL_TRY(bal_json_f64(scaling, where, "high_freq_factor", &r->high_freq_factor, NULL));
        BAL_TRY(bal_json_f64(scaling, where, "beta_fast", &r->beta_fast, NULL));
        BAL_TRY(bal_json_f64(scaling, where, "beta_slow", &r->beta_slow, NULL));
        BAL_TRY(bal_json_bool(scaling, where, "truncate", &truncate, NULL));
        BAL_TRY(bal_json_f64(scaling, where, "original_max_position_embeddings", &r->original_max_positions,
                             &has_original));
        BAL_TRY(bal_json_f64(scaling, where, "attention_factor", &r->attention_factor, &has_attention));
        BAL_TRY(bal_json_f64(scaling, where, "mscale", &mscale, NULL));
        BAL_TRY(bal_json_f64(scaling, where, "mscale_all_dim", &mscale_all, NULL));
        if (at->original != 0 &&
            (r->kind == BAL_ROPE_LONGROPE || r->kind == BAL_ROPE_YARN || r->kind == BAL_ROPE_LLAMA3)) {
            r->original_max_positions = at->original; /* which goes first, as in transformers */
            has_original = true;
        }
        if (r->kind == BAL_ROPE_LONGROPE) {
            BAL_TRY(longrope_from_json(r, at, scaling, where, has_factor));
            goto out;
        }
        if (r->kind == BAL_ROPE_DYNAMIC) /* transformers compares with max_position_embeddings only */
            r->original_max_positions = (double)max_positions;
        if (r->kind == BAL_ROPE_YARN && !has_factor && has_original)
            r->factor = (double)max_positions / r->original_max_positions;
        else if (r->kind != BAL_ROPE_DEFAULT && !has_factor) {
            status = bal_fail(BAL_EFORMAT, "%s: rope scaling '%s' has no factor", where, kind);
            goto out;
        }
        if (r->kind == BAL_ROPE_YARN && !has_attention && mscale != 0 && mscale_all != 0)
            r->attention_factor = yarn_scale(r->factor, mscale) / yarn_scale(r->factor, mscale_all);
        r->exact_ramp = !truncate;
    }
    status = BAL_OK;
out:
    return status;
}

static bal_status tokens_from_json(bal_model_config *c, const cJSON *json, const char *where)
{
    int64_t bos = -1, pad = -1, id;
    bal_status status;
    const cJSON *eos = bal_json_member(json, "eos_token_id"), *list = NULL, *item = NULL;
    if (cJSON_IsNumber(bal_json_member(json, "bos_token_id")))
        BAL_TRY(bal_json_i64(json, where, "bos_token_id", -1, BAL_CONFIG_MAX_VOCAB, &bos, NULL));
    c->bos = (int32_t)bos;
    if (!c->masked) { /* an encoder has read it */
        if (cJSON_IsNumber(bal_json_member(json, "pad_token_id")))
            BAL_TRY(bal_json_i64(json, where, "pad_token_id", -1, BAL_CONFIG_MAX_VOCAB, &pad, NULL));
        c->pad = pad < (int64_t)c->vocab ? (int32_t)pad : -1;
    }
    if (cJSON_IsArray(eos))
        list = eos;
    if (cJSON_IsNumber(eos)) {
        BAL_TRY(bal_json_i64(json, where, "eos_token_id", -1, BAL_CONFIG_MAX_VOCAB, &id, NULL));
        if (id >= 0)
            c->eos[c->n_eos++] = (int32_t)id;
    }
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble < BAL_CONFIG_MAX_VOCAB) ||
            c->n_eos >= sizeof c->eos / sizeof c->eos[0]) {
            status = bal_fail(BAL_EFORMAT, "%s: eos_token_id must be at most %zu token ids", where,
                              sizeof c->eos / sizeof c->eos[0]);
            goto out;
        }
        c->eos[c->n_eos++] = (int32_t)item->valuedouble;
    }
    status = BAL_OK;
out:
    return status;
}

static bal_status find_family(const cJSON *json, const char *where, const bal_family **family)
{
    bal_buf known = {0};
    const char *type = NULL;
    bal_status status;
    if (!cJSON_IsObject(json)) {
        status = bal_fail(BAL_EFORMAT, "%s: the configuration must be a JSON object", where);
        goto out;
    }
    BAL_TRY(bal_json_text(json, where, "model_type", &type, NULL));
    if (type == NULL) {
        status = bal_fail(BAL_EFORMAT, "%s: key 'model_type' is missing", where);
        goto out;
    }
    *family = bal_family_by_model_type(type);
    if (*family == NULL) {
        BAL_TRY(bal_family_list(&known, false));
        status = bal_fail(BAL_EUNSUPPORTED, "%s: model type '%s' is not supported; supported: %s", where, type,
                          bal_buf_cstr(&known));
    }
out:
    bal_buf_dispose(&known);
    return status;
}

bal_status bal_config_from_json(bal_model_config *c, const bal_family **family, const cJSON *json, const char *where)
{
    bal_status status;
    const char *act;
    BAL_TRY(find_family(json, where, family));
    const bal_family_keys *keys = (*family)->keys;
    bal_config_defaults(c, *family);
    if (bal_json_member(json, "quantization_config") != NULL) {
        status = bal_fail(BAL_EUNSUPPORTED,
                          "%s: quantised Hugging Face weights (quantization_config) are not supported; "
                          "use the original weights or a GGUF file",
                          where);
        goto out;
    }
    BAL_TRY(need_size(json, where, keys->layers, BAL_CONFIG_MAX_LAYERS, &c->n_layers));
    BAL_TRY(need_size(json, where, keys->hidden, BAL_CONFIG_MAX_HIDDEN, &c->hidden));
    BAL_TRY(need_size(json, where, keys->heads, BAL_CONFIG_MAX_HEADS, &c->n_heads));
    c->intermediate = 4 * c->hidden;
    if ((*family)->conv1d) /* GPT-2's n_inner may be null */
        BAL_TRY(maybe_size(json, where, keys->intermediate, BAL_CONFIG_MAX_INTERMEDIATE, &c->intermediate));
    else
        BAL_TRY(need_size(json, where, keys->intermediate, BAL_CONFIG_MAX_INTERMEDIATE, &c->intermediate));
    BAL_TRY(need_size(json, where, "vocab_size", BAL_CONFIG_MAX_VOCAB, &c->vocab));
    c->n_kv_heads = c->n_heads;
    if ((*family)->kv_heads != 0 && cJSON_GetObjectItemCaseSensitive(json, "num_key_value_heads") == NULL)
        c->n_kv_heads = (*family)->kv_heads;
    if (c->rope.kind != BAL_ROPE_NONE) { /* others do not know these keys */
        BAL_TRY(maybe_size(json, where, "num_key_value_heads", BAL_CONFIG_MAX_HEADS, &c->n_kv_heads));
        BAL_TRY(maybe_size(json, where, "head_dim", BAL_CONFIG_MAX_HEAD_DIM, &c->head_dim));
    }
    if (c->head_dim == 0 && cJSON_GetObjectItemCaseSensitive(json, "head_dim") == NULL)
        c->head_dim = (*family)->head_dim;
    if (c->head_dim == 0 && c->hidden % c->n_heads != 0) {
        status = bal_fail(BAL_EFORMAT, "%s: hidden_size %zu is not a multiple of %zu heads and head_dim is not given",
                          where, c->hidden, c->n_heads);
        goto out;
    }
    if (c->head_dim == 0)
        c->head_dim = c->hidden / c->n_heads;
    BAL_TRY(maybe_size(json, where, keys->positions, BAL_CONFIG_MAX_POSITIONS, &c->max_positions));
    if ((*family)->hf.positions != NULL) {
        c->position_offset = (*family)->learned_offset;
        c->position_rows = c->max_positions + c->position_offset;
    }
    if (keys->norm_eps != NULL)
        BAL_TRY(bal_json_f64(json, where, keys->norm_eps, &c->norm_eps, NULL));
    BAL_TRY(bal_json_bool(json, where, "tie_word_embeddings", &c->tied_head, NULL));
    if ((*family)->bias_keys)
        BAL_TRY(bal_json_bool(json, where, "attention_bias", &c->attention_bias, NULL));
    if ((*family)->mlp_bias_key)
        BAL_TRY(bal_json_bool(json, where, "mlp_bias", &c->mlp_bias, NULL));
    if ((*family)->qkv_bias_key != NULL)
        BAL_TRY(bal_json_bool(json, where, (*family)->qkv_bias_key, &c->attention_bias, NULL));
    BAL_TRY(bal_json_f64(json, where, keys->initializer, &c->initializer_range, NULL));
    BAL_TRY(check_positive(where, keys->initializer, c->initializer_range, 10));
    act = (*family)->act;
    BAL_TRY(bal_json_text(json, where, keys->act, &act, NULL));
    BAL_TRY(bal_config_act(act, where, &c->act));
    if ((*family)->gelu_is_tanh && c->act == BAL_ACT_GELU)
        c->act = BAL_ACT_GELU_TANH;
    if ((*family)->scaled_embed)
        c->embed_scale = sqrt((double)c->hidden);
    if (c->rope.kind != BAL_ROPE_NONE) {
        bal_rope_place at;
        BAL_TRY(check_rope_form(*family, json, where));
        BAL_TRY(bal_config_rope_place(&at, c, *family, json, where));
        BAL_TRY(bal_config_rope_from_json(&c->rope, &at, json, where));
    }
    BAL_TRY(bal_config_extras_from_json(c, *family, json, where));
    BAL_TRY(tokens_from_json(c, json, where));
    status = bal_config_check(c, where);
out:
    return status;
}
