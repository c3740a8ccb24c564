/* Reading a model: views into the mapped files for the matrices, copies of the small vectors (norms, biases).
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/model/config.h"
#include "lib/model/config_impl.h"
#include "lib/model/model_impl.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/rowdot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_NAME = 192, MAX_CONFIG_BYTES = 1 << 24 };

typedef struct loader {
    bal_model *m;
    const bal_family *family;
    const bal_model_source *source;
} loader;

static const bal_tensor *find_raw(const bal_model_source *s, const char *name)
{
    return s->gguf != NULL ? bal_gguf_tensor(s->gguf, name) : bal_safetensors_find(s->tensors, name);
}

/* The tensor of a part; files of a bare base model lack the prefix "model.".  name receives what was looked for. */
static const bal_tensor *find_tensor(const loader *l, const char *pattern, size_t layer, const char *suffix,
                                     char name[MAX_NAME])
{
    if (!bal_family_name(name, MAX_NAME, pattern, layer, suffix))
        return NULL;
    const bal_tensor *t = find_raw(l->source, name);
    const char *prefix = l->family->hf.base_prefix;
    if (t == NULL && l->source->tensors != NULL && bal_starts_with(name, prefix))
        t = find_raw(l->source, name + strlen(prefix));
    return t;
}

static const char *shape_text(const bal_tensor *t, char out[128])
{
    size_t at = 0;
    out[0] = '\0';
    for (size_t i = 0; i < t->n_dims && at < 100; i++)
        at += (size_t)snprintf(out + at, 128 - at, "%s%zu", i == 0 ? "" : " x ", t->shape[i]);
    return t->n_dims == 0 ? "a scalar" : out;
}

static bal_status missing(const loader *l, const char *name)
{
    return bal_fail(BAL_EFORMAT, "%s: tensor '%s' is missing", l->m->path, name);
}

static bal_status check_dtype(const bal_tensor *t)
{
    if (t->dtype == BAL_DTYPE_COUNT)
        return bal_fail(BAL_EUNSUPPORTED,
                        "%s: tensor '%s' has type %s, which is not supported (F32, F16, BF16, F64, "
                        "Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K are)",
                        t->file, t->name, t->dtype_name);
    return BAL_OK;
}

static bal_status read_matrix(const bal_tensor *t, size_t rows, size_t cols, bal_view *out)
{
    char text[128];
    bal_status status = check_dtype(t);
    if (status != BAL_OK)
        return status;
    if (t->n_dims != 2 || t->shape[0] != rows || t->shape[1] != cols)
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' is %s, but the configuration needs %zu x %zu", t->file, t->name,
                        shape_text(t, text), rows, cols);
    return bal_tensor_view(t, out);
}

/* n values as real_t; order: as the rows of a view with that rope_head_dim. */
static bal_status read_vector(const bal_tensor *t, size_t n, uint32_t rope_head_dim, real_t **out)
{
    char text[128];
    bal_view v;
    bal_status status = check_dtype(t);
    if (status != BAL_OK)
        return status;
    if (t->n_elements != n || t->n_dims == 0 || t->shape[t->n_dims - 1] != n)
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' is %s, but the configuration needs %zu", t->file, t->name,
                        shape_text(t, text), n);
    if (bal_dtype_block(t->dtype) != 1)
        return bal_fail(BAL_EUNSUPPORTED, "%s: tensor '%s' is a quantised vector (%s)", t->file, t->name,
                        t->dtype_name);
    v = (bal_view){.dtype = t->dtype,
                   .rows = n,
                   .cols = 1,
                   .row_bytes = bal_dtype_block_bytes(t->dtype),
                   .data = t->data,
                   .rope_head_dim = rope_head_dim};
    *out = bal_alloc(n, sizeof **out);
    if (*out == NULL)
        return BAL_ENOMEM;
    bal_view_dequant(&v, 0, n, *out, 1);
    for (size_t i = 0; i < n; i++)
        if (!isfinite((*out)[i]))
            return bal_fail(BAL_ENUMERIC, "%s: element %zu of tensor '%s' is not finite", t->file, i, t->name);
    return BAL_OK;
}

static const bal_family_names *names_of(const loader *l)
{
    return l->source->gguf != NULL ? &l->family->gguf : &l->family->hf;
}

/* The matrix the other way round, in memory: Conv1D of GPT-2 is stored as inputs x outputs. */
static bal_status turn(bal_model *m, bal_view *v)
{
    size_t size = bal_dtype_block_bytes(v->dtype), rows = v->cols, cols = v->rows;
    unsigned char *to = bal_alloc(rows * cols, size);
    const unsigned char *from = v->data;
    if (to == NULL)
        return BAL_ENOMEM;
    m->owned[m->n_owned++] = to;
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++)
            memcpy(to + (r * cols + c) * size, from + c * v->row_bytes + r * size, size);
    *v = (bal_view){.dtype = v->dtype, .rows = rows, .cols = cols, .row_bytes = cols * size, .data = to};
    return BAL_OK;
}

static bal_status load_slot(const loader *l, size_t layer, bal_slot slot)
{
    const bal_model_config *c = &l->m->config;
    bal_linear *linear = &l->m->blocks[layer].linear[slot];
    const char *pattern = names_of(l)->slot[slot];
    bool permuted = l->source->gguf != NULL && l->family->gguf_permuted && (slot == BAL_SLOT_Q || slot == BAL_SLOT_K);
    uint32_t rope_head_dim = permuted ? (uint32_t)c->head_dim : 0;
    char name[MAX_NAME];
    size_t rows, cols;
    bool turned = l->family->conv1d && l->source->gguf == NULL;
    if (pattern == NULL)
        return BAL_OK;
    bal_slot_shape(l->family, c, slot, &rows, &cols);
    const bal_tensor *t = find_tensor(l, pattern, layer, ".weight", name);
    if (t == NULL)
        return missing(l, name);
    bal_status status = read_matrix(t, turned ? cols : rows, turned ? rows : cols, &linear->w);
    if (status == BAL_OK && turned)
        status = turn(l->m, &linear->w);
    if (status != BAL_OK)
        return status;
    linear->w.rope_head_dim = rope_head_dim;
    if (!bal_family_bias(l->family, c, slot))
        return BAL_OK;
    t = find_tensor(l, pattern, layer, ".bias", name);
    return t == NULL ? missing(l, name) : read_vector(t, rows, rope_head_dim, &linear->bias);
}

static bal_status load_norm(const loader *l, const char *pattern, size_t layer, size_t n, bal_norm *out)
{
    char name[MAX_NAME];
    if (pattern == NULL)
        return BAL_OK;
    bool old_names = false; /* of TensorFlow, in the first files of BERT */
    const bal_tensor *t = find_tensor(l, pattern, layer, ".weight", name);
    if (t == NULL && l->m->config.masked)
        old_names = (t = find_tensor(l, pattern, layer, ".gamma", name)) != NULL;
    if (t == NULL)
        (void)bal_family_name(name, sizeof name, pattern, layer, ".weight");
    bal_status status = t == NULL ? missing(l, name) : read_vector(t, n, 0, &out->w);
    if (status != BAL_OK)
        return status;
    for (size_t i = 0; l->source->gguf != NULL && l->family->gguf_norm_plus && i < n; i++)
        out->w[i] -= 1;
    if (l->m->config.norm != BAL_NORM_LAYER)
        return BAL_OK;
    t = find_tensor(l, pattern, layer, old_names ? ".beta" : ".bias", name);
    return t == NULL ? missing(l, name) : read_vector(t, n, 0, &out->b);
}

static bool same_bytes(const bal_view *a, const bal_view *b)
{
    return a->dtype == b->dtype && (a->data == b->data || memcmp(a->data, b->data, a->rows * a->row_bytes) == 0);
}

/* The head.  A configuration that ties it may still come with a lm_head.weight: if that equals the embedding it
 * changes nothing, if it differs both are used, as transformers 5 does. */
static bal_status load_head(const loader *l)
{
    bal_model *m = l->m;
    bal_model_config *c = &m->config;
    char name[MAX_NAME];
    const bal_tensor *t = find_tensor(l, names_of(l)->head, 0, ".weight", name);
    if (t == NULL && !c->tied_head)
        return bal_fail(BAL_EFORMAT,
                        "%s: tensor '%s' is missing, and the configuration does not tie the head to the "
                        "embedding (tie_word_embeddings)",
                        m->path, name);
    m->head.w = m->embed.w;
    if (t == NULL)
        return BAL_OK;
    bal_status status = read_matrix(t, c->vocab, bal_embed_size(c), &m->head.w);
    if (status != BAL_OK)
        return status;
    if (c->tied_head && same_bytes(&m->head.w, &m->embed.w))
        m->head.w = m->embed.w;
    else
        c->tied_head = false;
    return BAL_OK;
}

/* GGUF files of Llama 3 carry their frequency bands as one tensor of divisors. */
static bal_status load_rope_factors(const loader *l)
{
    const bal_tensor *t = l->source->gguf == NULL ? NULL : bal_gguf_tensor(l->source->gguf, "rope_freqs.weight");
    size_t half = l->m->config.rotary_dim / 2;
    real_t *values = NULL;
    if (t == NULL)
        return BAL_OK;
    bal_status status = read_vector(t, half, 0, &values);
    double *factors = status == BAL_OK ? bal_alloc(half, sizeof *factors) : NULL;
    if (status == BAL_OK && factors == NULL)
        status = BAL_ENOMEM;
    l->m->rope_factors = factors;
    for (size_t i = 0; status == BAL_OK && i < half; i++) {
        factors[i] = (double)values[i];
        if (!(factors[i] > 0))
            status = bal_fail(BAL_EFORMAT, "%s: element %zu of tensor '%s' is %g, not above 0", t->file, i, t->name,
                              factors[i]);
    }
    bal_free(values);
    return status;
}

/* LongRoPE's two lists, in GGUF files. */
static bal_status load_longrope(const loader *l)
{
    static const char *const names[] = {"rope_factors_short.weight", "rope_factors_long.weight"};
    bal_model_config *c = &l->m->config;
    size_t half = c->rotary_dim / 2;
    if (l->source->gguf == NULL || c->rope.kind != BAL_ROPE_LONGROPE)
        return BAL_OK;
    for (size_t k = 0; k < 2; k++) {
        float *out = k == 0 ? c->rope.short_factor : c->rope.long_factor;
        const bal_tensor *t = bal_gguf_tensor(l->source->gguf, names[k]);
        real_t *values = NULL;
        bal_status status = t == NULL ? missing(l, names[k]) : read_vector(t, half, 0, &values);
        for (size_t i = 0; status == BAL_OK && i < half; i++) {
            out[i] = (float)values[i];
            if (!(out[i] > 0))
                status = bal_fail(BAL_EFORMAT, "%s: element %zu of tensor '%s' is not above 0", t->file, i, t->name);
        }
        bal_free(values);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

/* OPT's smaller embeddings and their projections are multiplied into one matrix each, in f32: E P_in^T gives the
 * inputs, and the head (h P_out^T) E^T = h (E P_out)^T has E P_out.  The model is then one without projections and
 * with a head of its own, and is saved as that. */
static bal_status load_projected(const loader *l)
{
    static const char *const parts[] = {"model.decoder.embed_tokens", "model.decoder.project_in",
                                        "model.decoder.project_out"};
    bal_model *m = l->m;
    bal_model_config *c = &m->config;
    size_t V = c->vocab, W = c->embed_width, D = c->hidden;
    const size_t rows[] = {V, D, W}, cols[] = {W, W, D};
    real_t *values[3] = {NULL}, *in = NULL, *out = NULL;
    bal_status status = BAL_OK;
    char name[MAX_NAME];
    if (!c->tied_head)
        return bal_fail(BAL_EUNSUPPORTED,
                        "%s: projected embeddings (word_embed_proj_dim %zu of %zu) with a head of its own are not "
                        "supported",
                        m->path, W, D);
    for (size_t k = 0; k < 3; k++) {
        bal_view view;
        const bal_tensor *t = find_tensor(l, parts[k], 0, ".weight", name);
        if (t == NULL)
            BAL_TRY(missing(l, name));
        BAL_TRY(read_matrix(t, rows[k], cols[k], &view));
        values[k] = bal_alloc(rows[k] * cols[k], sizeof *values[k]);
        if (values[k] == NULL)
            BAL_TRY(BAL_ENOMEM);
        bal_view_dequant_parallel(&view, 0, rows[k], values[k], cols[k]);
    }
    m->owned[m->n_owned++] = in = bal_alloc(V * D, sizeof *in);
    m->owned[m->n_owned++] = out = bal_alloc(V * D, sizeof *out);
    if (in == NULL || out == NULL)
        BAL_TRY(BAL_ENOMEM);
    bal_gemm(false, true, V, D, W, 1, values[0], W, values[1], W, 0, in, D);
    bal_gemm(false, false, V, D, W, 1, values[0], W, values[2], D, 0, out, D);
    m->embed.w = bal_view_of(in, V, D);
    m->head.w = bal_view_of(out, V, D);
    c->tied_head = false;
out:
    for (size_t k = 0; k < 3; k++)
        bal_free(values[k]);
    return status;
}

/* A matrix outside the blocks with its bias. */
static bal_status load_linear(const loader *l, bal_linear *out, size_t rows, size_t cols, bool bias)
{
    char name[MAX_NAME];
    const bal_tensor *t = find_tensor(l, out->name, 0, ".weight", name);
    bal_status status = t == NULL ? missing(l, name) : read_matrix(t, rows, cols, &out->w);
    if (status != BAL_OK || !bias)
        return status;
    t = find_tensor(l, out->name, 0, ".bias", name);
    return t == NULL ? missing(l, name) : read_vector(t, rows, 0, &out->bias);
}

/* Transformation and bias of the head for masked tokens; files of an encoder alone have none of it. */
static bal_status load_masked_head(const loader *l)
{
    bal_model *m = l->m;
    const bal_family_names *names = names_of(l);
    size_t width = bal_embed_size(&m->config);
    char name[MAX_NAME];
    bal_status status;
    if (find_tensor(l, names->transform, 0, ".weight", name) == NULL)
        return BAL_OK;
    BAL_TRY(load_linear(l, &m->transform, width, m->config.hidden, true));
    BAL_TRY(load_norm(l, names->transform_norm, 0, width, &m->transform_norm));
    /* a head of its own has a bias of its own, under its name; a tied one that of the other name, when there are both */
    bool tied = m->config.tied_head;
    BAL_TRY(load_head(l));
    const bal_tensor *t = find_tensor(l, tied ? names->head_bias : names->head, 0, ".bias", name);
    if (t == NULL)
        t = find_tensor(l, tied ? names->head : names->head_bias, 0, ".bias", name);
    status = t == NULL ? missing(l, name) : read_vector(t, m->config.vocab, 0, &m->head.bias);
out:
    return status;
}

static bal_status load_encoder(const loader *l)
{
    bal_model *m = l->m;
    const bal_model_config *c = &m->config;
    size_t width = bal_embed_size(c);
    bal_status status;
    if (c->type_rows != 0)
        BAL_TRY(load_linear(l, &m->types, c->type_rows, width, false));
    BAL_TRY(load_norm(l, names_of(l)->embed_norm, 0, width, &m->embed_norm));
    if (c->narrow != 0)
        BAL_TRY(load_linear(l, &m->project, c->hidden, width, true));
    status = load_masked_head(l);
out:
    return status;
}

static bal_status load_weights(const loader *l)
{
    bal_model *m = l->m;
    const bal_family_names *names = names_of(l);
    char name[MAX_NAME];
    bal_status status;
    const bal_tensor *t = find_tensor(l, names->embed, 0, ".weight", name);
    if (t == NULL)
        return missing(l, name);
    if (m->config.embed_width != 0)
        BAL_TRY(load_projected(l));
    else
        BAL_TRY(read_matrix(t, m->config.vocab, bal_embed_size(&m->config), &m->embed.w));
    if (m->config.position_rows != 0) {
        t = find_tensor(l, names->positions, 0, ".weight", name);
        if (t == NULL)
            return missing(l, name);
        BAL_TRY(read_matrix(t, m->config.position_rows, bal_embed_size(&m->config), &m->positions.w));
    }
    for (size_t i = 0; i < m->config.n_layers; i++) {
        for (bal_norm_place p = 0; p < BAL_NORM_PLACES; p++)
            BAL_TRY(load_norm(l, bal_family_norm(names, &m->config, p), i, bal_norm_size(&m->config, p),
                              &m->blocks[i].norm[p]));
        for (bal_slot s = 0; s < BAL_SLOT_COUNT; s++)
            BAL_TRY(load_slot(l, i, s));
    }
    if (!m->config.no_final_norm)
        BAL_TRY(load_norm(l, names->final_norm, 0, m->config.hidden, &m->final_norm));
    BAL_TRY(load_rope_factors(l));
    BAL_TRY(load_longrope(l));
    if (m->config.masked)
        BAL_TRY(load_encoder(l));
    else if (m->config.embed_width == 0)
        BAL_TRY(load_head(l));
    status = bal_model_list_modules(m);
out:
    return status;
}

static bal_status read_folder_config(const char *path, bal_model_source *s, bal_model_config *c,
                                     const bal_family **family)
{
    bal_buf text = {0};
    cJSON *json = NULL;
    bal_status status;
    char *file = bal_path_join(path, "config.json");
    if (file == NULL)
        return BAL_ENOMEM;
    if (!bal_file_exists(file)) {
        status = bal_fail(BAL_ENOENT, "'%s' holds neither config.json nor a .gguf file: it is no model", path);
        goto out;
    }
    BAL_TRY(bal_file_read(file, MAX_CONFIG_BYTES, &text));
    BAL_TRY(bal_json_parse(&json, bal_buf_cstr(&text), text.len, file));
    BAL_TRY(bal_config_from_json(c, family, json, file));
    s->config_text = bal_strdup(bal_buf_cstr(&text));
    if (s->config_text == NULL)
        status = BAL_ENOMEM;
out:
    cJSON_Delete(json);
    bal_buf_dispose(&text);
    bal_free(file);
    return status;
}

static void source_free(bal_model_source *s)
{
    if (s == NULL)
        return;
    bal_safetensors_close(s->tensors);
    bal_gguf_close(s->gguf);
    bal_free(s->config_text);
    bal_free(s);
}

/* The .gguf file of a folder that is no Hugging Face folder, else NULL. */
static bal_status lone_gguf(char **out, const char *path)
{
    bal_status status = BAL_OK;
    char *config = bal_path_join(path, "config.json");
    if (config == NULL)
        return BAL_ENOMEM;
    if (bal_folder_exists(path) && !bal_file_exists(config))
        status = bal_gguf_in_folder(out, path);
    bal_free(config);
    return status;
}

/* Weights that only Python can unpickle: one sentence with the command that converts them. */
static bal_status check_pickle(const char *path, bool masked)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                                        "pytorch_model.bin.index.json"};
    bool there[4];
    for (size_t i = 0; i < 4; i++) {
        char *file = bal_path_join(path, names[i]);
        if (file == NULL)
            return BAL_ENOMEM;
        there[i] = bal_file_exists(file);
        bal_free(file);
    }
    if (there[0] || there[1] || !(there[2] || there[3]))
        return BAL_OK;
    return bal_fail(BAL_EUNSUPPORTED,
                    "%s holds %s, which is not read; convert it: python3 -c \"from transformers import "
                    "AutoModelFor%sLM as M; M.from_pretrained('%s').save_pretrained('%s-safetensors')\"",
                    path, names[there[2] ? 2 : 3], masked ? "Masked" : "Causal", path, path);
}

static bal_status load(bal_model **out, const char *path, bool any)
{
    bal_model_config config;
    const bal_family *family = NULL;
    bal_status status;
    *out = NULL;
    char *inside = NULL;
    bal_model_source *source = bal_alloc(1, sizeof *source);
    if (source == NULL)
        return BAL_ENOMEM;
    BAL_TRY(lone_gguf(&inside, path));
    path = inside == NULL ? path : inside;
    if (bal_folder_exists(path)) {
        BAL_TRY(read_folder_config(path, source, &config, &family));
        if (config.masked && !any) {
            status = bal_fail(BAL_EUNSUPPORTED,
                              "'%s' is a masked language model (%s), which is not trained, served or asked for texts "
                              "here; balora forward and the masked tasks of balora evaluate take it",
                              path, config.model_type);
            goto out;
        }
        BAL_TRY(check_pickle(path, config.masked));
        BAL_TRY(bal_safetensors_open(&source->tensors, path));
    } else if (bal_file_exists(path)) {
        BAL_TRY(bal_gguf_open(&source->gguf, path));
        BAL_TRY(bal_config_from_gguf(&config, &family, source->gguf, path));
    } else {
        status = bal_fail(BAL_ENOENT, "model '%s' is neither a folder nor a file", path);
        goto out;
    }
    BAL_TRY(bal_model_allocate(out, &config, family, path));
    (*out)->source = source;
    source = NULL;
    status = load_weights(&(loader){*out, family, (*out)->source});
out:
    source_free(source);
    bal_free(inside);
    if (status != BAL_OK) {
        bal_model_free(*out);
        *out = NULL;
    }
    return status;
}

bal_status bal_model_load(bal_model **out, const char *path)
{
    return load(out, path, false);
}

bal_status bal_model_load_any(bal_model **out, const char *path)
{
    return load(out, path, true);
}

static void linear_dispose(bal_linear *l, bool owned)
{
    bal_free(l->name);
    if (owned)
        bal_free(l->bias);
}

static void norm_dispose(bal_norm *n, bool owned)
{
    bal_free(n->name);
    if (owned) {
        bal_free(n->w);
        bal_free(n->b);
    }
}

void bal_model_free(bal_model *m)
{
    if (m == NULL)
        return;
    if (m->shared) {
        bal_free(m->blocks);
        bal_free(m);
        return;
    }
    bal_model_restore(m);
    bool owned = m->params.values == NULL; /* else norms and biases lie in the params */
    for (size_t i = 0; m->blocks != NULL && i < m->config.n_layers; i++) {
        for (bal_slot s = 0; s < BAL_SLOT_COUNT; s++)
            linear_dispose(&m->blocks[i].linear[s], owned);
        for (bal_norm_place p = 0; p < BAL_NORM_PLACES; p++)
            norm_dispose(&m->blocks[i].norm[p], owned);
    }
    norm_dispose(&m->final_norm, owned);
    norm_dispose(&m->embed_norm, true);
    norm_dispose(&m->transform_norm, true);
    for (size_t i = 0; i < m->n_owned; i++)
        bal_free(m->owned[i]);
    bal_free(m->owned);
    bal_adapter_free(m->base.shift);
    linear_dispose(&m->embed, owned);
    linear_dispose(&m->positions, owned);
    linear_dispose(&m->head, owned);
    linear_dispose(&m->types, owned);
    linear_dispose(&m->project, owned);
    linear_dispose(&m->transform, owned);
    for (size_t i = 0; m->params.segments != NULL && i < m->params.n_segments; i++)
        bal_free(m->params.segments[i].name);
    bal_free(m->params.segments);
    bal_free(m->params.values);
    bal_free(m->params.grads);
    bal_free(m->blocks);
    bal_free(m->modules);
    bal_free(m->rope_factors);
    bal_free(m->path);
    source_free(m->source);
    bal_free(m);
}
