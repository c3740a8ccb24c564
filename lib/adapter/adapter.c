/* Layout of an adapter in memory and the choice of the modules that it adapts.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter.h"

#include "lib/adapter/adapter_impl.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL ? dot + 1 : name;
}

static bool is_all_linear(const bal_adapter_config *c)
{
    return c->n_target_modules == 1 && strcmp(c->target_modules[0], "all-linear") == 0;
}

bool bal_adapter_targets(const bal_adapter_config *c, const char *name)
{
    if (is_all_linear(c))
        return strcmp(last_part(name), "lm_head") != 0;
    size_t len = strlen(name);
    for (size_t i = 0; i < c->n_target_modules; i++) {
        const char *target = c->target_modules[i];
        size_t n = strlen(target);
        if (n == len ? strcmp(name, target) == 0
                     : n > 0 && n < len && name[len - n - 1] == '.' && strcmp(name + len - n, target) == 0)
            return true;
    }
    return false;
}

static bal_status copy_config(bal_adapter_config *to, const bal_adapter_config *from)
{
    *to = *from;
    to->target_modules = NULL;
    to->n_target_modules = 0;
    to->base_model = NULL;
    if (from->base_model != NULL && (to->base_model = bal_strdup(from->base_model)) == NULL)
        return BAL_ENOMEM;
    to->target_modules = bal_alloc(from->n_target_modules, sizeof *to->target_modules);
    if (to->target_modules == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < from->n_target_modules; i++) {
        to->target_modules[i] = bal_strdup(from->target_modules[i]);
        if (to->target_modules[i] == NULL)
            return BAL_ENOMEM;
        to->n_target_modules++;
    }
    return BAL_OK;
}

static bal_status check_config(const bal_adapter_config *c)
{
    if (c->r == 0)
        return bal_fail(BAL_EINVAL, "the adapter's rank r is 0; it must be at least 1");
    if (!(isfinite(c->lora_alpha) && c->lora_alpha > 0))
        return bal_fail(BAL_EINVAL, "lora_alpha is %g; it must be a positive number", c->lora_alpha);
    if (!(c->lora_dropout >= 0 && c->lora_dropout < 1))
        return bal_fail(BAL_EINVAL, "lora_dropout is %g; it must lie in [0, 1)", c->lora_dropout);
    return BAL_OK;
}

static bal_status add_segment(bal_adapter *a, const bal_lora *l, char which, size_t rows, size_t cols, size_t *offset)
{
    bal_segment *s = &a->params.segments[a->params.n_segments];
    bal_buf name = {0};
    bal_status status = bal_buf_printf(&name, "base_model.model.%s.lora_%c.weight", l->module, which);
    if (status == BAL_OK) {
        s->name = bal_strdup(bal_buf_cstr(&name));
        status = s->name == NULL ? BAL_ENOMEM : BAL_OK;
    }
    bal_buf_dispose(&name);
    if (status != BAL_OK)
        return status;
    a->params.n_segments++;
    s->offset = *offset;
    s->n = rows * cols; /* bounded by the caller */
    s->rows = rows;
    s->cols = cols;
    s->decay = true;
    s->group = BAL_GROUP_BASE;
    *offset += s->n;
    return BAL_OK;
}

static bal_status add_lora(bal_adapter *a, const bal_module *m, size_t *total)
{
    const bal_adapter_config *c = &a->config;
    bal_lora *l = &a->loras[a->n_loras];
    size_t out = m->w->rows, in = m->w->cols, sum, n;
    if (!bal_add_size(out, in, &sum) || !bal_mul_size(sum, c->r, &n) || !bal_add_size(*total, n, total))
        return bal_fail(BAL_ELIMIT, "an adapter of rank %zu on module '%s' is too large", c->r, m->name);
    l->module = bal_strdup(m->name);
    if (l->module == NULL)
        return BAL_ENOMEM;
    a->n_loras++;
    l->in = in;
    l->out = out;
    l->r = c->r;
    l->scale = c->use_rslora ? c->lora_alpha / sqrt((double)c->r) : c->lora_alpha / (double)c->r;
    return BAL_OK;
}

bal_status bal_adapter_build(bal_adapter **out, const bal_adapter_config *config, const bal_module *modules,
                             const size_t *picked, size_t n_picked, bool train)
{
    bal_status status = BAL_OK;
    size_t total = 0, offset = 0;
    bal_adapter *a = bal_alloc(1, sizeof *a);
    *out = NULL;
    if (a == NULL)
        return BAL_ENOMEM;
    a->captured_energy = 1;
    BAL_TRY(check_config(config));
    BAL_TRY(copy_config(&a->config, config));
    a->loras = bal_alloc(n_picked, sizeof *a->loras);
    a->params.segments = bal_alloc(2 * n_picked, sizeof *a->params.segments);
    if (a->loras == NULL || a->params.segments == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < n_picked; i++)
        BAL_TRY(add_lora(a, &modules[picked[i]], &total));
    a->config.fan_in_fan_out = false;
    for (size_t i = 0; i < n_picked; i++)
        a->config.fan_in_fan_out = a->config.fan_in_fan_out || modules[picked[i]].fan_in_fan_out;
    a->params.n = total;
    a->params.values = bal_alloc(total, sizeof(real_t));
    if (a->params.values == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (train && (a->params.grads = bal_alloc(total, sizeof(real_t))) == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < n_picked; i++) {
        bal_lora *l = &a->loras[i];
        l->a = a->params.values + offset;
        l->da = train ? a->params.grads + offset : NULL;
        BAL_TRY(add_segment(a, l, 'A', l->r, l->in, &offset));
        l->b = a->params.values + offset;
        l->db = train ? a->params.grads + offset : NULL;
        BAL_TRY(add_segment(a, l, 'B', l->out, l->r, &offset));
    }
    *out = a;
    a = NULL;
out:
    bal_adapter_free(a);
    return status;
}

bal_status bal_adapter_make_initial(bal_adapter *a)
{
    if (a->initial == NULL && (a->initial = bal_alloc(a->params.n, sizeof(real_t))) == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < a->n_loras; i++) {
        bal_lora *l = &a->loras[i];
        l->a0 = a->initial + (l->a - a->params.values);
        l->b0 = a->initial + (l->b - a->params.values);
    }
    return BAL_OK;
}

void bal_adapter_free(bal_adapter *a)
{
    if (a == NULL)
        return;
    for (size_t i = 0; i < a->config.n_target_modules; i++)
        bal_free(a->config.target_modules[i]);
    bal_free(a->config.target_modules);
    bal_free(a->config.base_model);
    for (size_t i = 0; i < a->n_loras; i++)
        bal_free(a->loras[i].module);
    bal_free(a->loras);
    for (size_t i = 0; a->params.segments != NULL && i < a->params.n_segments; i++)
        bal_free(a->params.segments[i].name);
    bal_free(a->params.segments);
    bal_free(a->params.values);
    bal_free(a->params.grads);
    bal_free(a->initial);
    bal_free(a);
}

bal_lora *bal_adapter_find(const bal_adapter *a, const char *module)
{
    for (size_t i = 0; i < a->n_loras; i++)
        if (strcmp(a->loras[i].module, module) == 0)
            return &a->loras[i];
    return NULL;
}

/* "q_proj, k_proj, ...": the kinds of modules there are, for the message when no target matches. */
static void list_kinds(const bal_module *modules, size_t n, bal_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++)
            seen = strcmp(last_part(modules[i].name), last_part(modules[j].name)) == 0;
        if (!seen && out->len < 400)
            (void)bal_buf_printf(out, "%s%s", out->len > 0 ? ", " : "", last_part(modules[i].name));
    }
}

static bal_status no_match(const bal_adapter_config *c, const bal_module *modules, size_t n)
{
    bal_buf kinds = {0}, targets = {0};
    list_kinds(modules, n, &kinds);
    for (size_t i = 0; i < c->n_target_modules && targets.len < 200; i++)
        (void)bal_buf_printf(&targets, "%s%s", i > 0 ? ", " : "", c->target_modules[i]);
    bal_status status = bal_fail(BAL_EINVAL, "no module of the model matches target_modules %s; the model has %s",
                                 c->n_target_modules > 0 ? bal_buf_cstr(&targets) : "(empty)", bal_buf_cstr(&kinds));
    bal_buf_dispose(&kinds);
    bal_buf_dispose(&targets);
    return status;
}

/* A target that matches nothing is a mistake in the recipe, even when another one matches. */
static bal_status check_targets(const bal_adapter_config *c, const bal_module *modules, size_t n)
{
    for (size_t t = 0; t < c->n_target_modules; t++) {
        bal_adapter_config one = *c;
        one.target_modules = &c->target_modules[t];
        one.n_target_modules = 1;
        bool found = false;
        for (size_t i = 0; i < n && !found; i++)
            found = bal_adapter_targets(&one, modules[i].name);
        if (!found)
            return no_match(&one, modules, n);
    }
    return BAL_OK;
}

/* Of new adapters only: the plain form of a PiSSA adapter may have a rank 2r above min(in, out). */
static bal_status check_rank(size_t r, const bal_module *m)
{
    size_t out = m->w->rows, in = m->w->cols, least = out < in ? out : in;
    if (r > least)
        return bal_fail(BAL_EINVAL,
                        "rank %zu is larger than the matrix of module '%s' (%zu x %zu) allows; use r %zu or less", r,
                        m->name, out, in, least);
    return BAL_OK;
}

bal_status bal_adapter_new(bal_adapter **out, const bal_adapter_config *config, const bal_module *modules, size_t n,
                           uint64_t seed, bool train)
{
    return bal_adapter_new_calibrated(out, config, modules, n, NULL, seed, train);
}

bal_status bal_adapter_new_calibrated(bal_adapter **out, const bal_adapter_config *config, const bal_module *modules,
                                      size_t n, const bal_calibration *data, uint64_t seed, bool train)
{
    bal_status status = BAL_OK;
    bal_adapter *a = NULL;
    bal_start start;
    size_t n_picked = 0, *picked = bal_alloc(n, sizeof *picked);
    const bal_view **views = bal_alloc(n, sizeof *views);   // NOLINT(bugprone-sizeof-expression): an array of pointers
    const double **moments = bal_alloc(n, sizeof *moments); // NOLINT(bugprone-sizeof-expression): an array of pointers
    *out = NULL;
    if (picked == NULL || views == NULL || moments == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < n; i++)
        if (bal_adapter_targets(config, modules[i].name)) {
            BAL_TRY(check_rank(config->r, &modules[i]));
            views[n_picked] = modules[i].w;
            moments[n_picked] = data != NULL ? data->covariances[i] : NULL;
            picked[n_picked++] = i;
        }
    if (n_picked == 0)
        BAL_TRY(no_match(config, modules, n));
    BAL_TRY(check_targets(config, modules, n));
    BAL_TRY(bal_adapter_build(&a, config, modules, picked, n_picked, train));
    if (bal_start_parse(config->init, &start) && bal_start_is_residual(start.kind)) {
        BAL_TRY(bal_adapter_make_initial(a));
        BAL_TRY(bal_adapter_init_residual(a, start, views, data != NULL ? moments : NULL,
                                          data != NULL && data->knowledge_preserved, seed, a->initial));
        memcpy(a->params.values, a->initial, a->params.n * sizeof(real_t));
    } else {
        BAL_TRY(bal_adapter_init_plain(a, seed));
    }
    *out = a;
    a = NULL;
out:
    bal_adapter_free(a);
    bal_free(picked);
    bal_free(views);
    bal_free(moments);
    return status;
}

/* The values of the plain adapter of twice the rank: A' = [A; A0] and B' = [B, -B0]. */
static void stack_factors(const bal_lora *l, bal_lora *plain)
{
    size_t r = l->r, n = r * l->in;
    memcpy(plain->a, l->a, n * sizeof(real_t));
    if (l->a0 != NULL)
        memcpy(plain->a + n, l->a0, n * sizeof(real_t));
    for (size_t i = 0; i < l->out; i++)
        for (size_t j = 0; j < r; j++) {
            plain->b[i * plain->r + j] = l->b[i * r + j];
            if (l->b0 != NULL)
                plain->b[i * plain->r + r + j] = -l->b0[i * r + j];
        }
}

bal_status bal_adapter_to_plain(bal_adapter **out, const bal_adapter *a)
{
    bal_status status = BAL_OK;
    bal_adapter *p = NULL;
    bal_adapter_config c = a->config;
    size_t n = a->n_loras, *picked = bal_alloc(n, sizeof *picked);
    bal_view *views = bal_alloc(n, sizeof *views);
    bal_module *modules = bal_alloc(n, sizeof *modules);
    *out = NULL;
    if (picked == NULL || views == NULL || modules == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < n; i++) {
        views[i] = (bal_view){.rows = a->loras[i].out, .cols = a->loras[i].in};
        modules[i] =
            (bal_module){.name = a->loras[i].module, .w = &views[i], .fan_in_fan_out = a->config.fan_in_fan_out};
        picked[i] = i;
    }
    if (a->initial != NULL) {
        c.r *= 2;
        c.lora_alpha *= c.use_rslora ? sqrt(2.0) : 2;
    }
    if (a->initial != NULL)
        (void)snprintf(c.init, sizeof c.init, "lora");
    BAL_TRY(bal_adapter_build(&p, &c, modules, picked, n, false));
    for (size_t i = 0; i < n; i++)
        stack_factors(&a->loras[i], &p->loras[i]);
    *out = p;
    p = NULL;
out:
    bal_adapter_free(p);
    bal_free(picked);
    bal_free(views);
    bal_free(modules);
    return status;
}
