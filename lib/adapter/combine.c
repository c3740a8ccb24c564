/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/combine.h"

#include "lib/adapter/adapter_impl.h"
#include "lib/adapter/method.h"
#include "lib/base/mem.h"
#include "lib/tensor/linalg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct combining {
    const bal_adapter *const *adapters;
    const double *weights;
    size_t n;
    bal_combination kind;
} combining;

bool bal_combination_parse(const char *name, bal_combination *out)
{
    static const char *const names[] = {"cat", "svd", "linear"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0) {
            *out = (bal_combination)i;
            return true;
        }
    return false;
}

static const bal_lora *part(const combining *c, size_t i, const char *module)
{
    return bal_adapter_find(c->adapters[i], module);
}

/* D(out, in) += w_i s_i B_i A_i over all adapters, in double. */
static void add_sum(const combining *c, const char *module, size_t in, size_t out, double *D)
{
    for (size_t i = 0; i < c->n; i++) {
        const bal_lora *l = part(c, i, module);
        for (size_t row = 0; l != NULL && row < out; row++)
            for (size_t k = 0; k < l->r; k++) {
                double b = c->weights[i] * l->scale * (double)l->b[row * l->r + k];
                for (size_t j = 0; j < in; j++)
                    D[row * in + j] += b * (double)l->a[k * in + j];
            }
    }
}

static void combine_cat(const combining *c, bal_lora *to)
{
    size_t at = 0;
    for (size_t i = 0; i < c->n; i++) {
        const bal_lora *l = part(c, i, to->module);
        for (size_t k = 0; l != NULL && k < l->r; k++, at++) {
            for (size_t j = 0; j < to->in; j++)
                to->a[at * to->in + j] = (real_t)(c->weights[i] * l->scale * (double)l->a[k * to->in + j]);
            for (size_t row = 0; row < to->out; row++)
                to->b[row * to->r + at] = l->b[row * l->r + k];
        }
    }
}

static void combine_linear(const combining *c, bal_lora *to)
{
    for (size_t i = 0; i < c->n; i++) {
        const bal_lora *l = part(c, i, to->module);
        double weight = l != NULL ? c->weights[i] * l->scale : 0, root = sqrt(fabs(weight));
        for (size_t k = 0; l != NULL && k < to->r * to->in; k++)
            to->a[k] += (real_t)((weight < 0 ? -root : root) * (double)l->a[k]);
        for (size_t k = 0; l != NULL && k < to->r * to->out; k++)
            to->b[k] += (real_t)(root * (double)l->b[k]);
    }
}

static bal_status combine_svd(const combining *c, bal_lora *to)
{
    size_t m = to->out, n = to->in, r = to->r;
    bal_status status;
    double *D = bal_alloc(m, n * sizeof *D), *U = bal_alloc(m, r * sizeof *U), *s = bal_alloc(r, sizeof *s);
    double *Vt = bal_alloc(r, n * sizeof *Vt);
    if (D == NULL || U == NULL || s == NULL || Vt == NULL)
        BAL_TRY(BAL_ENOMEM);
    add_sum(c, to->module, n, m, D);
    BAL_TRY(bal_svd_leading(m, n, D, r, U, s, Vt));
    for (size_t i = 0; i < r * n; i++)
        to->a[i] = (real_t)Vt[i];
    for (size_t i = 0; i < m * r; i++)
        to->b[i] = (real_t)(U[i] * s[i % r]);
out:
    bal_free(D);
    bal_free(U);
    bal_free(s);
    bal_free(Vt);
    return status;
}

/* || sum - B A || / || sum ||, row by row. */
static bal_status share_lost(const combining *c, const bal_lora *to, double *lost)
{
    double missed = 0, size = 0, *D = bal_alloc(to->out, to->in * sizeof *D);
    if (D == NULL)
        return BAL_ENOMEM;
    add_sum(c, to->module, to->in, to->out, D);
    for (size_t i = 0; i < to->out * to->in; i++)
        size += D[i] * D[i];
    for (size_t row = 0; row < to->out; row++)
        for (size_t k = 0; k < to->r; k++)
            for (size_t j = 0; j < to->in; j++)
                D[row * to->in + j] -= to->scale * (double)to->b[row * to->r + k] * (double)to->a[k * to->in + j];
    for (size_t i = 0; i < to->out * to->in; i++)
        missed += D[i] * D[i];
    bal_free(D);
    double share = size > 0 ? sqrt(missed / size) : missed > 0 ? (double)INFINITY : 0;
    *lost = share > *lost ? share : *lost;
    return BAL_OK;
}

/* The rank of the new adapter: one for all modules, as peft. */
static bal_status new_rank(const combining *c, size_t rank, size_t *out)
{
    size_t sum = 0, most = 0;
    for (size_t i = 0; i < c->n; i++) {
        size_t own = 0;
        for (size_t j = 0; j < c->adapters[i]->n_loras; j++)
            own = c->adapters[i]->loras[j].r > own ? c->adapters[i]->loras[j].r : own;
        sum += own;
        most = own > most ? own : most;
    }
    for (size_t i = 0; c->kind == BAL_COMBINE_LINEAR && i < c->n; i++)
        for (size_t j = 0; j < c->adapters[i]->n_loras; j++)
            if (c->adapters[i]->loras[j].r != most)
                return bal_fail(BAL_EINVAL,
                                "linear adds the factors themselves and needs equal ranks, not %zu and %zu (module "
                                "'%s'); use cat or svd",
                                most, c->adapters[i]->loras[j].r, c->adapters[i]->loras[j].module);
    *out = c->kind == BAL_COMBINE_CAT ? sum : c->kind == BAL_COMBINE_SVD && rank > 0 ? rank : most;
    return BAL_OK;
}

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL ? dot + 1 : name;
}

/* target_modules that name the picked modules and no others: kinds where all of a kind are adapted, else whole names. */
static bal_status name_targets(bal_adapter_config *to, const bal_module *modules, size_t n_modules, const bool *picked)
{
    to->target_modules = bal_alloc(n_modules, sizeof *to->target_modules);
    if (to->target_modules == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n_modules; i++) {
        const char *kind = last_part(modules[i].name), *name = kind;
        bool seen = !picked[i];
        for (size_t j = 0; j < n_modules; j++)
            if (!picked[j] && strcmp(last_part(modules[j].name), kind) == 0)
                name = modules[i].name;
        for (size_t j = 0; j < to->n_target_modules && !seen; j++)
            seen = strcmp(to->target_modules[j], name) == 0;
        if (seen)
            continue;
        if ((to->target_modules[to->n_target_modules] = bal_strdup(name)) == NULL)
            return BAL_ENOMEM;
        to->n_target_modules++;
    }
    return BAL_OK;
}

/* Nothing but factors: what else an adapter trains has no sum. */
static bool is_plain(const bal_adapter *a)
{
    if (a->initial != NULL || a->n_loras == 0 || a->n_shared > 0 || a->n_copies > 0)
        return false;
    for (size_t i = 0; i < a->n_sites; i++)
        if (a->sites[i].lora == NULL || a->sites[i].n_tensors != 2 || a->sites[i].embedding)
            return false;
    return true;
}

static bal_status check_parts(const combining *c, const bal_module *modules, size_t n_modules, bool *picked)
{
    for (size_t i = 0; i < c->n; i++) {
        if (!isfinite(c->weights[i]))
            return bal_fail(BAL_EINVAL, "the weight of adapter %zu is %g", i + 1, c->weights[i]);
        if (!is_plain(c->adapters[i]))
            return bal_fail(
                BAL_EUNSUPPORTED,
                "adapter %zu is no plain LoRA of linear modules (another method, biases, saved modules or an "
                "embedding); only those can be added",
                i + 1);
        size_t found = 0;
        for (size_t j = 0; j < n_modules; j++) {
            const bal_lora *l = part(c, i, modules[j].name);
            picked[j] = picked[j] || l != NULL;
            found += l != NULL && l->in == modules[j].w->cols && l->out == modules[j].w->rows;
        }
        if (found != c->adapters[i]->n_loras)
            return bal_fail(BAL_EINVAL, "adapter %zu does not fit the model: %zu of its %zu modules are there", i + 1,
                            found, c->adapters[i]->n_loras);
    }
    return BAL_OK;
}

static bal_status fill(const combining *c, bal_adapter *to, double *lost)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < to->n_loras; i++) {
        bal_lora *l = &to->loras[i];
        if (c->kind == BAL_COMBINE_CAT)
            combine_cat(c, l);
        else if (c->kind == BAL_COMBINE_LINEAR)
            combine_linear(c, l);
        else if (l->r > l->in || l->r > l->out)
            return bal_fail(BAL_EINVAL, "rank %zu is larger than the matrix of module '%s' (%zu x %zu) allows", l->r,
                            l->module, l->out, l->in);
        else
            BAL_TRY(combine_svd(c, l));
        if (c->kind != BAL_COMBINE_CAT)
            BAL_TRY(share_lost(c, l, lost));
    }
out:
    return status;
}

bal_status bal_adapter_combine(bal_adapter **out, const bal_adapter *const *adapters, const double *weights, size_t n,
                               bal_combination kind, size_t rank, const bal_module *modules, size_t n_modules,
                               double *lost)
{
    bal_status status;
    combining c = {adapters, weights, n, kind};
    bal_adapter *a = NULL;
    bal_adapter_config config = {.lora_dropout = 0};
    size_t n_picked = 0, *list = bal_alloc(n_modules, sizeof *list);
    bool *picked = bal_alloc(n_modules, sizeof *picked);
    *out = NULL;
    *lost = 0;
    if (n == 0)
        BAL_TRY(bal_fail(BAL_EINVAL, "no adapters are given"));
    if (list == NULL || picked == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(check_parts(&c, modules, n_modules, picked));
    BAL_TRY(new_rank(&c, rank, &config.r));
    for (size_t i = 0; i < n_modules; i++)
        if (picked[i])
            list[n_picked++] = i;
    for (size_t i = 0; i < n; i++)
        if (!bal_method_of(&adapters[i]->config)->low_rank || !bal_method_of(&adapters[i]->config)->additive)
            BAL_TRY(bal_fail(BAL_EUNSUPPORTED, "adapter %zu is a %s; a sum is taken of LoRA factors", i + 1,
                             bal_method_of(&adapters[i]->config)->title));
    config.lora_alpha = (double)config.r;
    (void)snprintf(config.init, sizeof config.init, "lora");
    (void)snprintf(config.task_type, sizeof config.task_type, "%s", adapters[0]->config.task_type);
    config.base_model = adapters[0]->config.base_model; /* copied by bal_adapter_build() */
    BAL_TRY(name_targets(&config, modules, n_modules, picked));
    BAL_TRY(bal_adapter_build(&a, &config, modules, list, n_picked, &(bal_copies){NULL, 0}, false));
    BAL_TRY(fill(&c, a, lost));
    *out = a;
    a = NULL;
out:
    bal_adapter_free(a);
    for (size_t i = 0; config.target_modules != NULL && i < config.n_target_modules; i++)
        bal_free(config.target_modules[i]);
    bal_free(config.target_modules);
    bal_free(list);
    bal_free(picked);
    return status;
}
