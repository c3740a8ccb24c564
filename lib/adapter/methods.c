/* The table of adapter methods, and what every method uses.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/methods.h"

#include "lib/adapter/select.h"
#include "lib/tensor/rowdot.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define ADDRESS(name) &bal_method_##name,
static const bal_method *const k_methods[] = {BAL_METHODS(ADDRESS)};

size_t bal_method_count(void)
{
    return sizeof k_methods / sizeof *k_methods;
}

const bal_method *bal_method_at(size_t i)
{
    return k_methods[i];
}

const bal_method *bal_method_named(const char *name)
{
    for (size_t i = 0; i < bal_method_count(); i++)
        if (strcmp(k_methods[i]->name, name) == 0)
            return k_methods[i];
    return NULL;
}

const bal_method *bal_method_of(const bal_adapter_config *c)
{
    return c->method != NULL ? c->method : k_methods[0];
}

void bal_site_add(bal_site *s, const char *key, size_t n_dims, size_t rows, size_t cols)
{
    assert(s->n_tensors < BAL_SITE_TENSORS);
    s->tensor[s->n_tensors++] = (bal_site_tensor){.key = key, .n_dims = n_dims, .rows = rows, .cols = cols};
}

const bal_key_value *bal_config_key(const bal_adapter_config *c, const char *name)
{
    const bal_method *m = bal_method_of(c);
    size_t i = 0;
    while (i < BAL_METHOD_KEYS - 1 && m->keys[i].name != NULL && strcmp(m->keys[i].name, name) != 0)
        i++;
    assert(m->keys[i].name != NULL && strcmp(m->keys[i].name, name) == 0);
    return &c->keys[i];
}

size_t bal_site_hidden(const bal_site *s)
{
    return s->method->hidden != NULL ? s->method->hidden(s) : 0;
}

size_t bal_site_scratch(const bal_site *s, size_t M)
{
    return s->method->scratch != NULL ? s->method->scratch(s, M) : 0;
}

bool bal_site_trains(const bal_site *s)
{
    for (size_t i = 0; i < s->n_tensors; i++)
        if (s->tensor[i].d != NULL)
            return true;
    return false;
}

void bal_site_fill_uniform(const bal_site_tensor *t, bal_rng *rng)
{
    double bound = 1 / sqrt((double)t->cols);
    for (size_t i = 0; i < t->rows * t->cols; i++)
        t->v[i] = (real_t)(bound * (2 * bal_rng_uniform(rng) - 1));
}

void bal_site_product(const bal_site_call *c, size_t n, size_t k, real_t scale, const real_t *x, size_t ldx,
                      const real_t *P, real_t beta, real_t *y, size_t ldy)
{
    if (c->rowwise == NULL) {
        bal_gemm(false, true, c->M, n, k, scale, x, ldx, P, k, beta, y, ldy);
        return;
    }
    assert(beta == 1 || (beta == 0 && scale == 1));
    bal_rowdot_job job = {.w = bal_view_of(P, n, k), .y = y, .ldy = ldy, .add = beta == 1, .scale = scale};
    bal_rowdot(&job, 1, c->M, x, ldx, c->rowwise, NULL);
}

void bal_site_base_product(const bal_site_call *c, const real_t *x, size_t ldx, real_t beta, real_t *y, size_t ldy)
{
    if (c->rowwise == NULL) {
        bal_gemm_view_nt(c->compute, c->M, x, ldx, c->w, beta, y, ldy, c->panel);
        return;
    }
    bal_rowdot_job job = {.w = *c->w, .y = y, .ldy = ldy, .add = beta == 1, .scale = 1};
    bal_rowdot(&job, 1, c->M, x, ldx, c->rowwise, NULL);
}

void bal_site_base_back(const bal_site_call *c, const real_t *dy, size_t ldy, real_t beta, real_t *dx)
{
    bal_gemm_view_nn(c->compute, c->M, dy, ldy, c->w, beta, dx, c->ldx, c->panel);
}

void bal_adapter_config_defaults(bal_adapter_config *c)
{
    const bal_method *m = bal_method_of(c);
    for (size_t i = 0; i < BAL_METHOD_KEYS && m->keys[i].name != NULL; i++)
        c->keys[i].number = m->keys[i].number;
}

bool bal_module_adaptable(const bal_adapter_config *c, const bal_module *m)
{
    if (bal_method_of(c)->no_sites)
        return false;
    return m->kind == BAL_MODULE_LINEAR || (m->kind == BAL_MODULE_EMBEDDING && bal_method_of(c)->embeddings);
}
