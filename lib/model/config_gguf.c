/* The configuration from the metadata of a GGUF file.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/config.h"
#include "lib/model/config_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* "<architecture>.<key>" */
typedef struct metadata {
    const bal_gguf *g;
    const char *architecture, *where;
    char key[160];
} metadata;

static const char *full_key(metadata *m, const char *key)
{
    (void)snprintf(m->key, sizeof m->key, "%s.%s", m->architecture, key);
    return m->key;
}

const char *bal_config_norm_key(const bal_model_config *c)
{
    return c->norm == BAL_NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
}

/* Leaves *out alone when the value is absent; *found may be NULL. */
static bal_status get_size(metadata *m, const char *key, size_t max, size_t *out, bool *found)
{
    int64_t value = 0;
    bool there;
    bal_status status = bal_gguf_i64(m->g, full_key(m, key), &value, &there);
    if (found != NULL)
        *found = there;
    if (status != BAL_OK || !there)
        return status;
    if (value < 1 || (uint64_t)value > max)
        return bal_fail(BAL_EFORMAT, "%s: value '%s' is %lld, not in 1 .. %zu", m->where, m->key, (long long)value,
                        max);
    *out = (size_t)value;
    return BAL_OK;
}

static bal_status need_size(metadata *m, const char *key, size_t max, size_t *out)
{
    bool found;
    bal_status status = get_size(m, key, max, out, &found);
    if (status == BAL_OK && !found)
        return bal_fail(BAL_EFORMAT, "%s: value '%s' is missing", m->where, m->key);
    return status;
}

static bal_status rope_from_gguf(bal_model_config *c, const bal_family *f, metadata *m)
{
    bal_status status;
    bal_rope_config *r = &c->rope;
    size_t turned = c->head_dim;
    bool whole = f->gguf_permuted, has_factor;
    double old_scale = 0, attention = 1;
    BAL_TRY(get_size(m, "rope.dimension_count", BAL_CONFIG_MAX_HEAD_DIM, &turned, NULL));
    c->rotary_dim = turned;
    if (whole && turned != c->head_dim) {
        status = bal_fail(BAL_EUNSUPPORTED, "%s: only %zu of %zu elements of a head are rotated; all must be", m->where,
                          turned, c->head_dim);
        goto out;
    }
    BAL_TRY(bal_gguf_f64(m->g, full_key(m, "rope.freq_base"), &r->theta, NULL));
    r->original_max_positions = (double)c->max_positions;
    const char *type = bal_gguf_text_of(m->g, full_key(m, "rope.scaling.type"));
    BAL_TRY(bal_gguf_f64(m->g, full_key(m, "rope.scaling.factor"), &r->factor, &has_factor));
    BAL_TRY(bal_gguf_f64(m->g, full_key(m, "rope.scaling.original_context_length"), &r->original_max_positions, NULL));
    BAL_TRY(bal_gguf_f64(m->g, full_key(m, "rope.scaling.attn_factor"), &attention, NULL));
    BAL_TRY(bal_gguf_f64(m->g, full_key(m, "rope.scaling.yarn_beta_fast"), &r->beta_fast, NULL));
    BAL_TRY(bal_gguf_f64(m->g, full_key(m, "rope.scaling.yarn_beta_slow"), &r->beta_slow, NULL));
    BAL_TRY(bal_gguf_f64(m->g, full_key(m, "rope.scale_linear"), &old_scale, NULL));
    if (type == NULL && old_scale != 0 && !has_factor)
        r->factor = old_scale;
    if (r->factor == 0) /* says nothing */
        r->factor = 1;
    if (bal_gguf_tensor(m->g, "rope_factors_short.weight") != NULL || (type != NULL && strcmp(type, "longrope") == 0)) {
        r->kind = BAL_ROPE_LONGROPE; /* the divisors are read with the weights */
        r->factor = (double)c->max_positions / r->original_max_positions;
        r->attention_factor = attention;
    } else if (type == NULL ? r->factor == 1 : strcmp(type, "none") == 0) {
        r->kind = BAL_ROPE_DEFAULT;
        r->factor = 1;
    } else if (type == NULL || strcmp(type, "linear") == 0) { /* which llama.cpp takes when only a factor is said */
        r->kind = BAL_ROPE_LINEAR;
    } else if (strcmp(type, "yarn") == 0) {
        r->kind = BAL_ROPE_YARN;
        if (attention != 1) /* llama.cpp multiplies YaRN's own factor by it */
            r->attention_factor = attention * (r->factor <= 1 ? 1 : 0.1 * log(r->factor) + 1);
    } else {
        status = bal_fail(BAL_EUNSUPPORTED, "%s: rope scaling '%s' is not one of none, linear, yarn, longrope",
                          m->where, type);
    }
out:
    return status;
}

static bal_status tokens_from_gguf(bal_model_config *c, metadata *m)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};
    int64_t id = -1;
    bal_status status;
    BAL_TRY(bal_gguf_i64(m->g, "tokenizer.ggml.bos_token_id", &id, NULL));
    if (id >= 0 && (uint64_t)id < c->vocab)
        c->bos = (int32_t)id;
    id = -1;
    BAL_TRY(bal_gguf_i64(m->g, "tokenizer.ggml.padding_token_id", &id, NULL));
    if (id >= 0 && (uint64_t)id < c->vocab)
        c->pad = (int32_t)id;
    for (size_t i = 0; i < 2; i++) {
        id = -1;
        BAL_TRY(bal_gguf_i64(m->g, ends[i], &id, NULL));
        if (id >= 0 && (uint64_t)id < c->vocab && (c->n_eos == 0 || c->eos[0] != id))
            c->eos[c->n_eos++] = (int32_t)id;
    }
out:
    return status;
}

/* Biases and the head are told by the tensors that are there. */
static void read_tensor_facts(bal_model_config *c, const bal_family *f, const bal_gguf *g)
{
    char name[128];
    c->attention_bias = c->mlp_bias = false;
    if (f->bias_keys || f->qkv_bias_key != NULL)
        c->attention_bias = bal_family_name(name, sizeof name, f->gguf.slot[BAL_SLOT_Q], 0, ".bias") &&
                            bal_gguf_tensor(g, name) != NULL;
    if (f->mlp_bias_key)
        c->mlp_bias = bal_family_name(name, sizeof name, f->gguf.slot[BAL_SLOT_UP], 0, ".bias") &&
                      bal_gguf_tensor(g, name) != NULL;
    c->tied_head = bal_family_name(name, sizeof name, f->gguf.head, 0, ".weight") && bal_gguf_tensor(g, name) == NULL;
}

/* Rows of the embedding, or the metadata's count. */
static bal_status find_vocab(bal_model_config *c, const bal_family *f, metadata *m)
{
    char name[128];
    const bal_tensor *t = NULL;
    if (bal_family_name(name, sizeof name, f->gguf.embed, 0, ".weight"))
        t = bal_gguf_tensor(m->g, name);
    if (t == NULL || t->n_dims != 2)
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' is missing or not a matrix", m->where, name);
    if (t->shape[0] < 1 || t->shape[0] > BAL_CONFIG_MAX_VOCAB)
        return bal_fail(BAL_ELIMIT, "%s: tensor '%s' has %zu rows; a vocabulary has 1 to %d", m->where, name,
                        t->shape[0], BAL_CONFIG_MAX_VOCAB);
    c->vocab = t->shape[0];
    return BAL_OK;
}

/* What would change the numbers, or says that this is not all of the model. */
static bal_status refuse_gguf(metadata *m)
{
    int64_t parts = 1;
    const bal_gguf_value *causal = bal_gguf_find(m->g, full_key(m, "attention.causal"));
    bal_status status = bal_gguf_i64(m->g, "split.count", &parts, NULL);
    if (status == BAL_OK && parts > 1)
        return bal_fail(BAL_EUNSUPPORTED,
                        "%s is one of %lld parts of a model (split.count); join them with llama-gguf-split --merge",
                        m->where, (long long)parts);
    if (status == BAL_OK && causal != NULL && !causal->is_array && bal_gguf_element(causal, 0) == 0)
        return bal_fail(BAL_EUNSUPPORTED, "%s: %s.attention.causal false (attention both ways) is not supported",
                        m->where, m->architecture);
    return status;
}

static bal_status find_architecture(metadata *m, const bal_family **family)
{
    bal_buf known = {0};
    bal_status status = BAL_OK;
    m->architecture = bal_gguf_text_of(m->g, "general.architecture");
    if (m->architecture == NULL) {
        status = bal_fail(BAL_EFORMAT, "%s: value 'general.architecture' is missing", m->where);
        goto out;
    }
    *family = bal_family_by_architecture(m->architecture);
    if (*family == NULL) {
        BAL_TRY(bal_family_list(&known, true));
        status = bal_fail(BAL_EUNSUPPORTED, "%s: architecture '%.64s' is not supported; supported: %s", m->where,
                          m->architecture, bal_buf_cstr(&known));
    }
out:
    bal_buf_dispose(&known);
    return status;
}

bal_status bal_config_from_gguf(bal_model_config *c, const bal_family **family, const bal_gguf *g, const char *where)
{
    metadata m = {.g = g, .where = where};
    bal_status status;
    size_t experts = 0, value_dim;
    bool has_experts;
    BAL_TRY(find_architecture(&m, family));
    BAL_TRY(refuse_gguf(&m));
    bal_config_defaults(c, *family);
    BAL_TRY(bal_config_act((*family)->act, where, &c->act));
    BAL_TRY(need_size(&m, "block_count", BAL_CONFIG_MAX_LAYERS, &c->n_layers));
    BAL_TRY(need_size(&m, "embedding_length", BAL_CONFIG_MAX_HIDDEN, &c->hidden));
    BAL_TRY(need_size(&m, "feed_forward_length", BAL_CONFIG_MAX_INTERMEDIATE, &c->intermediate));
    BAL_TRY(need_size(&m, "attention.head_count", BAL_CONFIG_MAX_HEADS, &c->n_heads));
    BAL_TRY(get_size(&m, "context_length", BAL_CONFIG_MAX_POSITIONS, &c->max_positions, NULL));
    c->n_kv_heads = c->n_heads;
    BAL_TRY(get_size(&m, "attention.head_count_kv", BAL_CONFIG_MAX_HEADS, &c->n_kv_heads, NULL));
    BAL_TRY(get_size(&m, "attention.key_length", BAL_CONFIG_MAX_HEAD_DIM, &c->head_dim, NULL));
    if (c->head_dim == 0 && c->hidden % c->n_heads != 0) {
        status = bal_fail(BAL_EFORMAT, "%s: width %zu is not a multiple of %zu heads and key_length is not given",
                          where, c->hidden, c->n_heads);
        goto out;
    }
    if (c->head_dim == 0)
        c->head_dim = c->hidden / c->n_heads;
    value_dim = c->head_dim;
    BAL_TRY(get_size(&m, "attention.value_length", BAL_CONFIG_MAX_HEAD_DIM, &value_dim, NULL));
    if (value_dim != c->head_dim) {
        status =
            bal_fail(BAL_EUNSUPPORTED, "%s: key size %zu and value size %zu differ", where, c->head_dim, value_dim);
        goto out;
    }
    BAL_TRY(get_size(&m, "expert_count", 1 << 20, &experts, &has_experts));
    if (has_experts && experts > 0) {
        status = bal_fail(BAL_EUNSUPPORTED, "%s: a mixture of %zu experts is not supported", where, experts);
        goto out;
    }
    BAL_TRY(bal_gguf_f64(g, full_key(&m, bal_config_norm_key(c)), &c->norm_eps, NULL));
    BAL_TRY(find_vocab(c, *family, &m));
    if (c->rope.kind != BAL_ROPE_NONE)
        BAL_TRY(rope_from_gguf(c, *family, &m));
    if ((*family)->scaled_embed)
        c->embed_scale = sqrt((double)c->hidden);
    if ((*family)->gguf.positions != NULL)
        c->position_rows = c->max_positions;
    BAL_TRY(bal_config_extras_from_gguf(c, *family, g, where));
    BAL_TRY(tokens_from_gguf(c, &m));
    read_tensor_facts(c, *family, g);
    status = bal_config_check(c, where);
out:
    return status;
}
