/* An adapter's copies of tensors in the places of the model's own, so that whatever computes with the model has them;
 * what must not (the teacher) finds the model's own beside them.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/model_impl.h"
#include "lib/tensor/rowdot.h"

#include <string.h>

/* The i-th matrix of a model in the order of its blocks, then head, embedding, positions; NULL after them. */
static bal_linear *linear_at(bal_model *m, size_t i)
{
    size_t n = m->config.n_layers * BAL_SLOT_COUNT;
    if (i < n)
        return &m->blocks[i / BAL_SLOT_COUNT].linear[i % BAL_SLOT_COUNT];
    return i == n ? &m->head : i == n + 1 ? &m->embed : i == n + 2 ? &m->positions : NULL;
}

/* The same of the norms. */
static bal_norm *norm_at(bal_model *m, size_t i)
{
    size_t n = m->config.n_layers * BAL_NORM_PLACES;
    if (i < n)
        return &m->blocks[i / BAL_NORM_PLACES].norm[i % BAL_NORM_PLACES];
    return i == n ? &m->final_norm : NULL;
}

static void restore_linear(bal_linear *l)
{
    if (!l->replaced)
        return;
    l->w = l->own.w;
    l->bias = l->own.bias;
    l->dw = l->own.dw;
    l->dbias = l->own.dbias;
    l->replaced = false;
}

static void restore_norm(bal_norm *n)
{
    if (!n->replaced)
        return;
    n->w = n->own_w;
    n->b = n->own_b;
    n->dw = n->own_dw;
    n->db = n->own_db;
    n->replaced = false;
}

void bal_model_point_modules(bal_model *m)
{
    if (m->shared) /* the list is that of the model whose weights these are */
        return;
    for (size_t k = 0; k < m->n_modules; k++) {
        bal_module *to = &m->modules[k];
        bal_linear *l;
        bal_norm *n;
        for (size_t i = 0; to->kind != BAL_MODULE_NORM && (l = linear_at(m, i)) != NULL; i++)
            if (l->name == to->name) {
                to->w = bal_linear_own_w(l);
                to->bias = bal_linear_own_bias(l);
            }
        for (size_t i = 0; to->kind == BAL_MODULE_NORM && (n = norm_at(m, i)) != NULL; i++)
            if (n->name == to->name) {
                real_t *own = n->replaced ? n->own_w : n->w;
                n->view = bal_view_of(own, to->w->rows, 1);
                to->bias = n->replaced ? n->own_b : n->b;
            }
    }
}

void bal_model_restore(bal_model *m)
{
    bal_linear *l;
    bal_norm *n;
    for (size_t i = 0; m->blocks != NULL && (l = linear_at(m, i)) != NULL; i++)
        restore_linear(l);
    for (size_t i = 0; m->blocks != NULL && (n = norm_at(m, i)) != NULL; i++)
        restore_norm(n);
}

static void into_linear(const bal_copy *c, bal_linear *l)
{
    if (!l->replaced)
        l->own = (bal_linear_parts){.w = l->w, .bias = l->bias, .dw = l->dw, .dbias = l->dbias};
    l->replaced = true;
    if (c->is_bias) {
        l->bias = c->v;
        l->dbias = c->d;
    } else {
        l->w = bal_view_of(c->v, c->rows, c->cols);
        l->dw = c->d;
    }
}

static void into_norm(const bal_copy *c, bal_norm *n)
{
    if (!n->replaced) {
        n->own_w = n->w;
        n->own_b = n->b;
        n->own_dw = n->dw;
        n->own_db = n->db;
    }
    n->replaced = true;
    if (c->is_bias) {
        n->b = c->v;
        n->db = c->d;
    } else {
        n->w = c->v;
        n->dw = c->d;
    }
}

/* Whether `tensor` is the weight or bias of the module. */
static bool is_of(const char *tensor, const char *module, bool bias)
{
    size_t len = module != NULL ? strlen(module) : 0;
    return len > 0 && strncmp(tensor, module, len) == 0 && strcmp(tensor + len, bias ? ".bias" : ".weight") == 0;
}

static bool put(bal_model *m, const bal_copy *c, const char *tensor)
{
    bal_linear *l;
    bal_norm *n;
    for (size_t i = 0; (l = linear_at(m, i)) != NULL; i++)
        if (is_of(tensor, l->name, c->is_bias) && l->w.rows == c->rows && (c->vector || l->w.cols == c->cols) &&
            (!c->is_bias || l->bias != NULL)) {
            into_linear(c, l);
            return true;
        }
    for (size_t i = 0; c->vector && (n = norm_at(m, i)) != NULL; i++)
        if (is_of(tensor, n->name, c->is_bias) && n->view.rows == c->rows && (!c->is_bias || n->b != NULL)) {
            into_norm(c, n);
            return true;
        }
    return false;
}

bal_status bal_model_replace(bal_model *m, const bal_adapter *a)
{
    for (size_t i = 0; i < a->n_copies; i++) {
        const bal_copy *c = &a->copies[i];
        if (!put(m, c, c->tensor) || (c->twin != NULL && !put(m, c, c->twin)))
            return bal_fail(BAL_EINVAL, "the adapter's copy of '%s' (%zu x %zu) fits no tensor of the model '%s'",
                            c->tensor, c->rows, c->cols, m->path);
    }
    return BAL_OK;
}
