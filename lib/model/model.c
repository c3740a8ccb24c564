/* A model in memory: allocation, attachment of adapters, checks.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/model.h"

#include "lib/adapter/method.h"
#include "lib/base/mem.h"
#include "lib/model/model_impl.h"
#include "lib/tensor/rowdot.h"

#include <math.h>
#include <string.h>

enum { MAX_NAME = 192 };

static bal_status set_name(char **out, const char *pattern, size_t layer)
{
    char name[MAX_NAME];
    if (!bal_family_name(name, sizeof name, pattern, layer, ""))
        return bal_fail(BAL_ELIMIT, "the name of module '%s' is too long", pattern);
    *out = bal_strdup(name);
    return *out == NULL ? BAL_ENOMEM : BAL_OK;
}

bal_status bal_model_allocate(bal_model **out, const bal_model_config *c, const bal_family *f, const char *path)
{
    bal_status status = BAL_OK;
    bal_model *m = bal_alloc(1, sizeof *m);
    *out = m;
    if (m == NULL)
        return BAL_ENOMEM;
    m->config = *c;
    m->path = bal_strdup(path);
    m->blocks = bal_alloc(c->n_layers, sizeof *m->blocks);
    m->base.type = BAL_DTYPE_COUNT;
    m->owned = bal_alloc(c->n_layers * BAL_SLOT_COUNT + 2, sizeof *m->owned);
    if (m->path == NULL || m->blocks == NULL || m->owned == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < c->n_layers; i++)
        for (bal_slot s = 0; s < BAL_SLOT_COUNT; s++)
            if (f->hf.slot[s] != NULL)
                BAL_TRY(set_name(&m->blocks[i].linear[s].name, f->hf.slot[s], i));
    BAL_TRY(set_name(&m->embed.name, f->hf.embed, 0));
    BAL_TRY(set_name(&m->head.name, f->hf.head, 0));
    if (c->position_rows != 0)
        BAL_TRY(set_name(&m->positions.name, f->hf.positions, 0));
    if (c->type_rows != 0)
        BAL_TRY(set_name(&m->types.name, f->hf.types, 0));
    if (c->narrow != 0)
        BAL_TRY(set_name(&m->project.name, f->hf.project, 0));
    if (c->masked)
        BAL_TRY(set_name(&m->transform.name, f->hf.transform, 0));
out:
    return status;
}

bal_status bal_model_need_head(const bal_model *m)
{
    if (!m->config.masked || m->transform.w.data != NULL)
        return BAL_OK;
    return bal_fail(BAL_EUNSUPPORTED,
                    "'%s' is an encoder without a head for masked tokens (tensor '%s.weight' is missing)", m->path,
                    m->transform.name);
}

static size_t count_linear(const bal_linear *l)
{
    return l->w.rows * l->w.cols + (l->bias != NULL ? l->w.rows : 0);
}

static size_t count_values(const bal_norm *n, size_t size)
{
    return (n->w != NULL ? size : 0) + (n->b != NULL ? size : 0);
}

static size_t count_norm(const bal_model *m, const bal_norm *n, bal_norm_place place)
{
    return count_values(n, bal_norm_size(&m->config, place));
}

/* What an encoder has before and behind its blocks. */
static size_t count_encoder(const bal_model *m)
{
    size_t bias = m->head.bias != NULL ? m->config.vocab : 0, width = bal_embed_size(&m->config);
    return count_linear(&m->types) + count_linear(&m->project) + count_linear(&m->transform) +
           count_values(&m->embed_norm, width) + count_values(&m->transform_norm, width) +
           (m->config.tied_head ? bias : 0);
}

static bal_status list_norm(bal_model *m, bal_norm *norm, const char *pattern, size_t layer, size_t size)
{
    if (norm->w == NULL)
        return BAL_OK;
    bal_status status = set_name(&norm->name, pattern, layer);
    norm->view = bal_view_of(norm->w, size, 1);
    if (status == BAL_OK)
        m->modules[m->n_modules++] = (bal_module){.name = norm->name, .w = &norm->view, .kind = BAL_MODULE_NORM};
    return status;
}

/* What no adapter can be on, but perhaps a copy be made of. */
static bal_status list_rest(bal_model *m, const bal_family *f)
{
    bal_status status = BAL_OK;
    if (m->config.masked) /* is not trained */
        return BAL_OK;
    if (bal_linear_there(&m->positions))
        m->modules[m->n_modules++] =
            (bal_module){.name = m->positions.name, .w = &m->positions.w, .kind = BAL_MODULE_TABLE};
    for (size_t i = 0; i < m->config.n_layers; i++)
        for (bal_norm_place p = 0; p < BAL_NORM_PLACES; p++)
            BAL_TRY(list_norm(m, &m->blocks[i].norm[p], bal_family_norm(&f->hf, &m->config, p), i,
                              bal_norm_size(&m->config, p)));
    BAL_TRY(list_norm(m, &m->final_norm, f->hf.final_norm, 0, m->config.hidden));
    bal_model_point_modules(m);
out:
    return status;
}

bal_status bal_model_list_modules(bal_model *m)
{
    size_t n = 0;
    const bal_family *f = bal_family_by_model_type(m->config.model_type);
    bool projected = m->config.embed_width != 0;
    m->modules = bal_alloc(m->config.n_layers * (BAL_SLOT_COUNT + BAL_NORM_PLACES) + 4, sizeof *m->modules);
    if (m->modules == NULL)
        return BAL_ENOMEM;
    m->n_parameters =
        count_linear(&m->embed) + count_linear(&m->positions) + count_norm(m, &m->final_norm, 0) + count_encoder(m);
    for (size_t i = 0; i < m->config.n_layers; i++) {
        for (bal_slot s = 0; s < BAL_SLOT_COUNT; s++) {
            const bal_linear *l = &m->blocks[i].linear[s];
            if (!bal_linear_there(l))
                continue;
            m->modules[n++] = (bal_module){.name = l->name, .w = &l->w, .fan_in_fan_out = f->conv1d};
            m->n_parameters += count_linear(l);
        }
        for (bal_norm_place p = 0; p < BAL_NORM_PLACES; p++)
            m->n_parameters += count_norm(m, &m->blocks[i].norm[p], p);
    }
    if (!m->config.masked) {
        /* a tied head may have an adapter of its own: its output is another one, not its weight */
        m->modules[n++] = (bal_module){.name = m->head.name, .w = &m->head.w, .is_head = true, .projected = projected};
        m->modules[n++] =
            (bal_module){.name = m->embed.name, .w = &m->embed.w, .kind = BAL_MODULE_EMBEDDING, .projected = projected};
    }
    if (!m->config.tied_head)
        m->n_parameters += count_linear(&m->head);
    m->n_modules = n;
    return list_rest(m, f);
}

static bal_status check_linear(const bal_linear *l, real_t *row)
{
    for (size_t r = 0; r < l->w.rows; r++) {
        bal_view_dequant(&l->w, r, 1, row, l->w.cols);
        for (size_t i = 0; i < l->w.cols; i++)
            if (!isfinite(row[i]))
                return bal_fail(BAL_ENUMERIC, "element (%zu, %zu) of '%s.weight' is not finite", r, i, l->name);
    }
    return BAL_OK;
}

bal_status bal_model_check(const bal_model *m)
{
    size_t widest = m->config.hidden;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < m->n_modules; i++)
        widest = m->modules[i].w->cols > widest ? m->modules[i].w->cols : widest;
    real_t *row = bal_alloc(widest, sizeof *row);
    if (row == NULL)
        return BAL_ENOMEM;
    BAL_TRY(check_linear(&m->embed, row));
    BAL_TRY(check_linear(&m->positions, row));
    for (size_t i = 0; i < m->config.n_layers; i++)
        for (bal_slot s = 0; s < BAL_SLOT_COUNT; s++)
            BAL_TRY(check_linear(&m->blocks[i].linear[s], row));
    if (!m->config.tied_head)
        BAL_TRY(check_linear(&m->head, row));
out:
    bal_free(row);
    return status;
}

void bal_linear_merged(const bal_linear *l, size_t row0, size_t n_rows, real_t *out)
{
    if (n_rows > 1)
        bal_view_dequant_parallel(&l->w, row0, n_rows, out, l->w.cols);
    else
        bal_view_dequant(&l->w, row0, n_rows, out, l->w.cols);
    if (l->site != NULL)
        l->site->method->effective(l->site, row0, n_rows, out, l->w.cols);
}

void bal_vector_merged(const bal_linear *of, const real_t *vector, size_t from, size_t n, real_t *out)
{
    memcpy(out, vector + from, n * sizeof *out);
    if (of != NULL && of->site != NULL && of->site->method->effective_bias != NULL)
        of->site->method->effective_bias(of->site, from, n, out);
}

bool bal_model_untie(bal_model *m)
{
    bool was =
        m->config.tied_head && (m->head.site != NULL || m->embed.site != NULL || m->head.w.data != m->embed.w.data);
    if (was)
        m->config.tied_head = false;
    return was;
}

bal_status bal_model_mergeable(const bal_model *m)
{
    for (size_t i = 0; i <= m->config.n_layers * BAL_SLOT_COUNT; i++) {
        const bal_site *s = i < m->config.n_layers * BAL_SLOT_COUNT
                                ? m->blocks[i / BAL_SLOT_COUNT].linear[i % BAL_SLOT_COUNT].site
                                : m->head.site;
        const bal_linear *l = i < m->config.n_layers * BAL_SLOT_COUNT
                                  ? &m->blocks[i / BAL_SLOT_COUNT].linear[i % BAL_SLOT_COUNT]
                                  : &m->head;
        if (s != NULL && l->bias == NULL && s->lora != NULL && s->method->additive && s->n_tensors > 2)
            return bal_fail(BAL_EUNSUPPORTED,
                            "the adapter has a bias (lora_bias) for '%s', and that module has none to merge it into; "
                            "use it with --adapter",
                            s->module);
        if (s != NULL && s->method->effective == NULL)
            return bal_fail(BAL_EUNSUPPORTED,
                            "a %s adapter computes what no weight of the model does, so that it cannot be merged; use "
                            "it with --adapter",
                            s->method->title);
    }
    const bal_site *e = m->embed.site;
    if (e == NULL || e->method->prepare == NULL)
        return BAL_OK;
    real_t *scratch =
        bal_alloc(e->method->prepare_scratch(e), sizeof *scratch); /* an embedding is merged by what it holds */
    if (scratch == NULL)
        return BAL_ENOMEM;
    e->method->prepare(e, &m->embed.w, scratch);
    bal_free(scratch);
    return BAL_OK;
}

bal_status bal_model_attach(bal_model *m, bal_adapter *a)
{
    bal_model_restore(m);
    for (size_t i = 0; i < m->config.n_layers; i++) {
        for (bal_slot s = 0; s < BAL_SLOT_COUNT; s++) {
            bal_linear *l = &m->blocks[i].linear[s];
            l->site = a == NULL || !bal_linear_there(l) ? NULL : bal_adapter_site(a, l->name);
        }
    }
    m->head.site = a == NULL ? NULL : bal_adapter_site(a, m->head.name);
    m->embed.site = a == NULL ? NULL : bal_adapter_site(a, m->embed.name);
    for (size_t i = 0; a != NULL && i < m->config.n_layers; i++)
        for (bal_slot s = 0; s < BAL_SLOT_COUNT; s++) {
            const bal_linear *l = m->blocks[i].linear;
            if (l[s].site == NULL || !l[s].site->method->on_stream || s == BAL_SLOT_O || s == BAL_SLOT_DOWN)
                continue;
            bal_status status =
                bal_fail(BAL_EINVAL,
                         "a %s adapter comes after attention or MLP: target_modules may name '%s' and "
                         "'%s', not '%s'",
                         l[s].site->method->title, l[BAL_SLOT_O].name, l[BAL_SLOT_DOWN].name, l[s].name);
            (void)bal_model_attach(m, NULL);
            return status;
        }
    for (size_t i = 0; a != NULL && i < a->n_sites; i++) {
        const bal_site *site = &a->sites[i];
        bool found = false;
        for (size_t j = 0; j < m->n_modules && !found; j++)
            found = strcmp(m->modules[j].name, site->module) == 0 &&
                    m->modules[j].w->rows == (site->embedding ? site->in : site->out) &&
                    m->modules[j].w->cols == (site->embedding ? site->out : site->in);
        if (!found) {
            (void)bal_model_attach(m, NULL);
            return bal_fail(BAL_EINVAL, "the adapter of '%s' (%zu x %zu) fits no module of the model '%s'",
                            site->module, site->out, site->in, m->path);
        }
    }
    bal_status status = a != NULL ? bal_model_replace(m, a) : BAL_OK;
    if (status != BAL_OK)
        (void)bal_model_attach(m, NULL);
    bal_model_point_modules(m);
    return status;
}

bal_status bal_model_share(bal_model **out, const bal_model *m, bal_adapter *a)
{
    bal_status status;
    bal_model *copy = bal_alloc(1, sizeof *copy);
    *out = NULL;
    if (copy == NULL)
        return BAL_ENOMEM;
    *copy = *m;
    copy->shared = true;
    copy->blocks = bal_alloc(m->config.n_layers, sizeof *copy->blocks);
    if (copy->blocks == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    memcpy(copy->blocks, m->blocks, m->config.n_layers * sizeof *copy->blocks);
    BAL_TRY(bal_model_attach(copy, a));
    *out = copy;
    copy = NULL;
out:
    bal_model_free(copy);
    return status;
}
