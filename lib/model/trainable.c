/* All weights of a model as one set of trainable numbers: a copy of a loaded model, or a new random one.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/model/config.h"
#include "lib/model/model_impl.h"

#include <string.h>

static bal_status visit_matrix(bal_linear *l, size_t rows, size_t cols, bool bias, bal_part_fn *fn, void *context)
{
    bal_part part = {.kind = BAL_PART_MATRIX, .rows = rows, .cols = cols, .linear = l};
    if (!bal_family_name(part.name, sizeof part.name, l->name, 0, ".weight"))
        return bal_fail(BAL_ELIMIT, "the name of module '%s' is too long", l->name);
    bal_status status = fn(context, &part);
    if (status != BAL_OK || !bias)
        return status;
    part = (bal_part){
        .kind = BAL_PART_BIAS, .rows = 1, .cols = rows, .linear = l, .vector = &l->bias, .dvector = &l->dbias};
    (void)bal_family_name(part.name, sizeof part.name, l->name, 0, ".bias");
    return fn(context, &part);
}

static bal_status visit_norm(const bal_model *m, const char *pattern, size_t layer, size_t n, bal_norm *norm,
                             bal_part_fn *fn, void *context)
{
    bal_part part = {.kind = BAL_PART_NORM, .rows = 1, .cols = n, .vector = &norm->w, .dvector = &norm->dw};
    if (pattern == NULL)
        return BAL_OK;
    if (!bal_family_name(part.name, sizeof part.name, pattern, layer, ".weight"))
        return bal_fail(BAL_ELIMIT, "the name of norm '%s' is too long", pattern);
    bal_status status = fn(context, &part);
    if (status != BAL_OK || m->config.norm != BAL_NORM_LAYER)
        return status;
    part = (bal_part){.kind = BAL_PART_BIAS, .rows = 1, .cols = n, .vector = &norm->b, .dvector = &norm->db};
    (void)bal_family_name(part.name, sizeof part.name, pattern, layer, ".bias");
    return fn(context, &part);
}

bal_status bal_model_visit(bal_model *m, bal_part_fn *fn, void *context)
{
    const bal_model_config *c = &m->config;
    const bal_family *f = bal_family_by_model_type(c->model_type);
    bal_status status;
    BAL_TRY(visit_matrix(&m->embed, c->vocab, c->hidden, false, fn, context));
    if (c->position_rows != 0)
        BAL_TRY(visit_matrix(&m->positions, c->position_rows, c->hidden, false, fn, context));
    for (size_t i = 0; i < c->n_layers; i++) {
        bal_block *b = &m->blocks[i];
        for (bal_norm_place p = 0; p < BAL_NORM_PLACES; p++)
            BAL_TRY(visit_norm(m, bal_family_norm(&f->hf, c, p), i, bal_norm_size(c, p), &b->norm[p], fn, context));
        for (bal_slot s = 0; s < BAL_SLOT_COUNT; s++) {
            size_t rows, cols;
            if (!bal_linear_there(&b->linear[s]))
                continue;
            bal_slot_shape(f, c, s, &rows, &cols);
            BAL_TRY(visit_matrix(&b->linear[s], rows, cols, bal_family_bias(f, c, s), fn, context));
        }
    }
    if (!c->no_final_norm)
        BAL_TRY(visit_norm(m, f->hf.final_norm, 0, c->hidden, &m->final_norm, fn, context));
    if (!c->tied_head)
        BAL_TRY(visit_matrix(&m->head, c->vocab, c->hidden, false, fn, context));
out:
    return status;
}

typedef struct builder {
    bal_params params;
    size_t next;  /* segment */
    bal_rng *rng; /* new model; NULL: copy what is there */
    double sd;
    real_t norm_start;
} builder;

static bal_status count_part(void *context, const bal_part *part)
{
    builder *b = context;
    size_t n;
    if (!bal_mul_size(part->rows, part->cols, &n) || !bal_add_size(b->params.n, n, &b->params.n))
        return bal_fail(BAL_ELIMIT, "the model is too large: '%s' is %zu x %zu", part->name, part->rows, part->cols);
    b->params.n_segments++;
    return BAL_OK;
}

static bal_status name_part(void *context, const bal_part *part)
{
    builder *b = context;
    bal_segment *s = &b->params.segments[b->next++];
    s->offset = b->params.n;
    s->rows = part->rows;
    s->cols = part->cols;
    s->n = s->rows * s->cols;
    s->decay = part->kind == BAL_PART_MATRIX;
    s->vector = !s->decay;
    s->name = bal_strdup(part->name);
    b->params.n += s->n;
    return s->name == NULL ? BAL_ENOMEM : BAL_OK;
}

static void fill_part(const builder *b, const bal_part *part, real_t *values)
{
    size_t n = part->rows * part->cols;
    if (b->rng == NULL && part->kind == BAL_PART_MATRIX)
        bal_view_dequant_parallel(&part->linear->w, 0, part->rows, values, part->cols);
    else if (b->rng == NULL)
        memcpy(values, *part->vector, n * sizeof *values);
    for (size_t i = 0; b->rng != NULL && i < n; i++)
        values[i] = part->kind == BAL_PART_MATRIX ? (real_t)(b->sd * bal_rng_normal(b->rng))
                    : part->kind == BAL_PART_NORM ? b->norm_start
                                                  : 0;
}

/* Cannot fail: from here on the model is rebuilt piece by piece. */
static bal_status move_part(void *context, const bal_part *part)
{
    builder *b = context;
    const bal_segment *s = &b->params.segments[b->next++];
    real_t *values = b->params.values + s->offset, *grads = b->params.grads + s->offset;
    fill_part(b, part, values);
    if (part->kind == BAL_PART_MATRIX) {
        part->linear->w = (bal_view){.dtype = BAL_REAL_IS_DOUBLE ? BAL_DTYPE_F64 : BAL_DTYPE_F32,
                                     .rows = part->rows,
                                     .cols = part->cols,
                                     .row_bytes = part->cols * sizeof *values,
                                     .data = values};
        part->linear->dw = grads;
    } else {
        bal_free(*part->vector);
        *part->vector = values;
        *part->dvector = grads;
    }
    return BAL_OK;
}

static void params_dispose(bal_params *p)
{
    for (size_t i = 0; p->segments != NULL && i < p->n_segments; i++)
        bal_free(p->segments[i].name);
    bal_free(p->segments);
    bal_free(p->values);
    bal_free(p->grads);
    *p = (bal_params){0};
}

static bal_status build(bal_model *m, bal_rng *rng)
{
    builder b = {.rng = rng, .sd = m->config.initializer_range, .norm_start = m->config.norm != BAL_NORM_RMS_PLUS_ONE};
    bal_status status;
    BAL_TRY(bal_model_visit(m, count_part, &b));
    b.params.values = bal_alloc(b.params.n, sizeof *b.params.values);
    b.params.grads = bal_alloc(b.params.n, sizeof *b.params.grads);
    b.params.segments = bal_alloc(b.params.n_segments, sizeof *b.params.segments);
    if (b.params.values == NULL || b.params.grads == NULL || b.params.segments == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    b.params.n = 0;
    BAL_TRY(bal_model_visit(m, name_part, &b));
    b.next = 0;
    BAL_TRY(bal_model_visit(m, move_part, &b));
    if (m->config.tied_head) {
        m->head.w = m->embed.w;
        m->head.dw = m->embed.dw;
    }
    m->params = b.params;
    b.params = (bal_params){0};
    bal_model_point_modules(m);
out:
    params_dispose(&b.params);
    return status;
}

bal_status bal_model_make_trainable(bal_model *m)
{
    return m->params.values != NULL ? BAL_OK : build(m, NULL);
}

bal_status bal_model_new(bal_model **out, const char *config_json, uint64_t seed)
{
    bal_model_config config;
    const bal_family *family = NULL;
    bal_status status;
    bal_rng rng;
    cJSON *json = NULL;
    *out = NULL;
    bal_rng_init(&rng, seed, "init");
    BAL_TRY(bal_json_parse(&json, config_json, strlen(config_json), "the model's configuration"));
    BAL_TRY(bal_config_from_json(&config, &family, json, "the model's configuration"));
    if (config.masked)
        BAL_TRY(bal_fail(BAL_EUNSUPPORTED,
                         "a new model of the type %s, which fills in masked tokens, is not trained here",
                         config.model_type));
    if (config.embed_width != 0)
        BAL_TRY(bal_fail(BAL_EUNSUPPORTED, "a new model has word_embed_proj_dim equal to hidden_size (%zu, %zu)",
                         config.embed_width, config.hidden));
    BAL_TRY(bal_model_allocate(out, &config, family, ""));
    BAL_TRY(build(*out, &rng));
    BAL_TRY(bal_model_list_modules(*out));
out:
    cJSON_Delete(json);
    if (status != BAL_OK) {
        bal_model_free(*out);
        *out = NULL;
    }
    return status;
}
