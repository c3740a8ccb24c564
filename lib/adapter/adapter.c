/* Layout of an adapter in memory and the choice of the modules that it adapts.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter.h"

#include "lib/adapter/adapter_impl.h"
#include "lib/adapter/method.h"
#include "lib/adapter/select.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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

/* What would be ignored, here and by peft (which reads no such file). */
static bal_status check_layers(const bal_adapter_config *c)
{
    if (c->n_layers_pattern > 0 && c->n_layers_to_transform == 0)
        return bal_fail(BAL_EINVAL,
                        "layers_pattern says where the numbers of layers_to_transform stand; name the layers, too");
    if (c->target_pattern != NULL && c->n_layers_to_transform > 0)
        return bal_fail(BAL_EINVAL,
                        "target_modules is an expression for whole paths (%.100s), which layers_to_transform does not "
                        "narrow; write the layers into the expression",
                        c->target_pattern);
    return BAL_OK;
}

/* ---- memory of an adapter: what the method describes, carved from a few blocks ---- */

static bal_status add_segment(bal_adapter *a, const char *module, const bal_site_tensor *t, size_t *offset)
{
    bal_segment *s = &a->params.segments[a->params.n_segments];
    bal_buf name = {0};
    bal_status status =
        module != NULL ? bal_buf_printf(&name, "base_model.model.%s%s%s", module, module[0] != '\0' ? "." : "", t->key)
                       : bal_buf_printf(&name, "base_model.%s", t->key);
    if (status == BAL_OK) {
        s->name = bal_strdup(bal_buf_cstr(&name));
        status = s->name == NULL ? BAL_ENOMEM : BAL_OK;
    }
    bal_buf_dispose(&name);
    if (status != BAL_OK)
        return status;
    a->params.n_segments++;
    s->offset = *offset;
    s->n = t->rows * t->cols; /* bounded by the caller */
    s->rows = t->rows;
    s->cols = t->cols;
    s->vector = t->n_dims == 1;
    s->decay = !t->no_decay;
    s->group = BAL_GROUP_BASE;
    *offset += s->n;
    return BAL_OK;
}

static bal_status add_site(bal_adapter *a, const bal_selector *selector, const bal_module *m)
{
    const bal_adapter_config *c = &a->config;
    bal_site *s = &a->sites[a->n_sites];
    *s = (bal_site){.method = bal_method_of(c),
                    .adapter = a,
                    .out = m->w->rows,
                    .in = m->w->cols,
                    .r = bal_selector_rank(selector, m->name),
                    .embedding = m->kind == BAL_MODULE_EMBEDDING};
    double alpha = bal_selector_alpha(selector, m->name);
    size_t sum, n;
    if (s->embedding) { /* peft's view: a token is a column of the identity */
        s->out = m->w->cols;
        s->in = m->w->rows;
    }
    if (!bal_add_size(s->out, s->in, &sum) || !bal_mul_size(sum, s->r, &n))
        return bal_fail(BAL_ELIMIT, "an adapter of rank %zu on module '%s' is too large", s->r, m->name);
    s->module = bal_strdup(m->name);
    if (s->module == NULL)
        return BAL_ENOMEM;
    a->n_sites++;
    s->scale = c->use_rslora ? alpha / sqrt((double)s->r) : alpha / (double)s->r;
    return s->method->describe(s);
}

/* Values of all tensors that are (not) frozen, without the copies. */
static bal_status count_values(const bal_adapter *a, bool frozen, size_t *total, size_t *n_tensors)
{
    *total = *n_tensors = 0;
    for (size_t i = 0; i <= a->n_sites; i++) {
        const bal_site_tensor *t = i < a->n_sites ? a->sites[i].tensor : a->shared;
        size_t n = i < a->n_sites ? a->sites[i].n_tensors : a->n_shared, size;
        for (size_t k = 0; k < n; k++) {
            if (t[k].frozen != frozen)
                continue;
            if (!bal_mul_size(t[k].rows, t[k].cols, &size) || !bal_add_size(*total, size, total))
                return bal_fail(BAL_ELIMIT, "tensor '%s' of an adapter on %zu modules is too large (%zu x %zu)",
                                t[k].key, a->n_sites, t[k].rows, t[k].cols);
            ++*n_tensors;
        }
    }
    return BAL_OK;
}

static bal_status allocate(bal_adapter *a, bool train)
{
    size_t n_tensors, n_states = 0, frozen_tensors, size;
    bal_status status;
    BAL_TRY(count_values(a, true, &a->n_frozen, &frozen_tensors));
    BAL_TRY(count_values(a, false, &a->n_own, &n_tensors));
    a->params.n = a->n_own;
    for (size_t i = 0; i < a->n_copies; i++)
        if (!bal_mul_size(a->copies[i].rows, a->copies[i].cols, &size) ||
            !bal_add_size(a->params.n, size, &a->params.n))
            BAL_TRY(bal_fail(BAL_ELIMIT, "a copy of '%s' is too large", a->copies[i].tensor));
    for (size_t i = 0; i < a->n_sites; i++)
        if (!bal_add_size(n_states, a->sites[i].n_state, &n_states))
            BAL_TRY(bal_fail(BAL_ELIMIT, "the adapter is too large"));
    a->params.segments = bal_alloc(n_tensors + a->n_copies, sizeof *a->params.segments);
    a->params.values = bal_alloc(a->params.n, sizeof(real_t));
    if (a->params.segments == NULL || a->params.values == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (train && (a->params.grads = bal_alloc(a->params.n, sizeof(real_t))) == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (a->n_frozen > 0 && (a->frozen = bal_alloc(a->n_frozen, sizeof(real_t))) == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (n_states > 0 && (a->states = bal_alloc(n_states, sizeof(real_t))) == NULL)
        BAL_TRY(BAL_ENOMEM);
out:
    return status;
}

static bal_status place_tensors(bal_adapter *a, const char *module, bal_site_tensor *t, size_t n, size_t *offset,
                                size_t *frozen)
{
    for (size_t k = 0; k < n; k++) {
        if (t[k].frozen) {
            t[k].v = a->frozen + *frozen;
            *frozen += t[k].rows * t[k].cols;
            continue;
        }
        t[k].v = a->params.values + *offset;
        t[k].d = a->params.grads != NULL ? a->params.grads + *offset : NULL;
        bal_status status = add_segment(a, module, &t[k], offset);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status place_copy(bal_adapter *a, bal_copy *c, size_t *offset)
{
    const bal_site_tensor as_tensor = {.key = c->key,
                                       .n_dims = c->vector ? 1 : 2,
                                       .rows = c->vector ? 1 : c->rows,
                                       .cols = c->vector ? c->rows : c->cols,
                                       .no_decay = c->vector};
    c->v = a->params.values + *offset;
    c->d = a->params.grads != NULL ? a->params.grads + *offset : NULL;
    bal_status status = add_segment(a, "", &as_tensor, offset);
    if (status != BAL_OK)
        return status;
    bal_segment *s = &a->params.segments[a->params.n_segments - 1];
    s->turned = c->turned;
    s->group = c->head ? BAL_GROUP_HEAD : BAL_GROUP_BASE;
    return BAL_OK;
}

static void set_lora(bal_site *s, bal_lora *l)
{
    const bal_site_tensor *A = &s->tensor[0], *B = &s->tensor[1];
    *l = (bal_lora){.module = s->module,
                    .in = s->in,
                    .out = s->out,
                    .r = s->r,
                    .scale = s->scale,
                    .a = A->v,
                    .b = B->v,
                    .da = A->d,
                    .db = B->d};
    s->lora = l;
}

bal_status bal_adapter_build(bal_adapter **out, const bal_adapter_config *config, const bal_module *modules,
                             const size_t *picked, size_t n_picked, const bal_copies *copies, bool train)
{
    bal_status status = BAL_OK;
    size_t offset = 0, frozen = 0, state = 0;
    bal_selector *selector = NULL;
    bal_adapter *a = bal_alloc(1, sizeof *a);
    *out = NULL;
    if (a == NULL)
        return BAL_ENOMEM;
    a->captured_energy = 1;
    BAL_TRY(check_config(config));
    BAL_TRY(bal_adapter_config_copy(&a->config, config));
    BAL_TRY(bal_selector_new(&selector, &a->config));
    const bal_method *m = bal_method_of(&a->config);
    a->sites = bal_alloc(n_picked, sizeof *a->sites);
    a->loras = bal_alloc(m->low_rank ? n_picked : 0, sizeof *a->loras);
    if (a->sites == NULL || a->loras == NULL)
        BAL_TRY(BAL_ENOMEM);
    a->config.fan_in_fan_out = false;
    for (size_t i = 0; i < n_picked; i++) {
        BAL_TRY(add_site(a, selector, &modules[picked[i]]));
        a->config.fan_in_fan_out = a->config.fan_in_fan_out || modules[picked[i]].fan_in_fan_out;
    }
    if (m->describe_shared != NULL)
        BAL_TRY(m->describe_shared(a));
    bal_copies own;
    status = bal_copies_duplicate(&own, copies);
    a->copies = own.of;
    a->n_copies = own.n;
    BAL_TRY(status);
    BAL_TRY(allocate(a, train));
    for (size_t i = 0; i < a->n_sites; i++) {
        bal_site *s = &a->sites[i];
        BAL_TRY(place_tensors(a, s->module, s->tensor, s->n_tensors, &offset, &frozen));
        s->state = s->n_state > 0 ? a->states + state : NULL;
        state += s->n_state;
        if (m->low_rank)
            set_lora(s, &a->loras[a->n_loras++]);
    }
    BAL_TRY(place_tensors(a, NULL, a->shared, a->n_shared, &offset, &frozen));
    for (size_t i = 0; i < a->n_copies; i++)
        BAL_TRY(place_copy(a, &a->copies[i], &offset));
    *out = a;
    a = NULL;
out:
    bal_selector_free(selector);
    bal_adapter_free(a);
    return status;
}

bal_status bal_adapter_make_initial(bal_adapter *a)
{
    if (a->initial == NULL && (a->initial = bal_alloc(a->n_own, sizeof(real_t))) == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < a->n_loras; i++) {
        bal_lora *l = &a->loras[i];
        if (a->sites[i].embedding) /* has an ordinary start always */
            continue;
        l->a0 = a->initial + (l->a - a->params.values);
        l->b0 = a->initial + (l->b - a->params.values);
    }
    return BAL_OK;
}

bal_status bal_adapter_start_here(bal_adapter *a, const char *init)
{
    bal_status status = bal_adapter_make_initial(a);
    if (status != BAL_OK)
        return status;
    memcpy(a->initial, a->params.values, a->n_own * sizeof(real_t));
    (void)snprintf(a->config.init, sizeof a->config.init, "%s", init);
    return BAL_OK;
}

void bal_adapter_free(bal_adapter *a)
{
    if (a == NULL)
        return;
    bal_copies copies = {a->copies, a->n_copies};
    bal_adapter_config_dispose(&a->config);
    bal_copies_dispose(&copies);
    for (size_t i = 0; i < a->n_sites; i++)
        bal_free(a->sites[i].module);
    bal_free(a->sites);
    bal_free(a->loras);
    bal_free(a->frozen);
    bal_free(a->states);
    bal_free(a->history);
    bal_free(a->work);
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

bal_site *bal_adapter_site(const bal_adapter *a, const char *module)
{
    for (size_t i = 0; i < a->n_sites; i++)
        if (strcmp(a->sites[i].module, module) == 0)
            return &a->sites[i];
    return NULL;
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

/* The targets as one word of a message. */
static const char *targets_text(const bal_adapter_config *c)
{
    if (c->target_pattern != NULL)
        return c->target_pattern;
    return c->n_target_modules > 0 ? c->target_modules[0] : "(empty)";
}

/* Whether there would be targets if nothing were saved whole. */
static bool all_saved(const bal_adapter_config *c, const bal_module *modules, size_t n)
{
    bal_adapter_config without = *c;
    bal_selector *s = NULL;
    bool any = false;
    without.n_modules_to_save = 0;
    if (c->n_modules_to_save == 0 || bal_selector_new(&s, &without) != BAL_OK)
        return false;
    for (size_t i = 0; i < n && !any; i++)
        any = bal_selector_targets(s, &modules[i]);
    bal_selector_free(s);
    return any;
}

/* First values of what the starts of low-rank factors leave out. */
static bal_status start_rest(bal_adapter *a, const bal_view *const *views, uint64_t seed)
{
    const bal_method *m = bal_method_of(&a->config);
    bal_status status = BAL_OK;
    bal_rng rng;
    for (size_t i = 0; m->init != NULL && i < a->n_sites; i++) {
        bal_adapter_stream(&rng, seed, "init", a->sites[i].module);
        BAL_TRY(m->init(&a->sites[i], views[i], &rng));
    }
    bal_adapter_stream(&rng, seed, "init", "shared");
    if (m->init_shared != NULL)
        BAL_TRY(m->init_shared(a, &rng));
out:
    return status;
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
    bal_selector *selector = NULL;
    bal_start start;
    bal_copies copies = {NULL, 0};
    size_t n_picked = 0, *picked = bal_alloc(n, sizeof *picked);
    const bal_view **views = bal_alloc(n, sizeof *views);   // NOLINT(bugprone-sizeof-expression): an array of pointers
    const double **moments = bal_alloc(n, sizeof *moments); // NOLINT(bugprone-sizeof-expression): an array of pointers
    *out = NULL;
    if (picked == NULL || views == NULL || moments == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(check_config(config));
    BAL_TRY(check_layers(config));
    BAL_TRY(bal_selector_new(&selector, config));
    for (size_t i = 0; i < n; i++)
        if (bal_selector_targets(selector, &modules[i])) {
            if (bal_method_of(config)->low_rank)
                BAL_TRY(check_rank(bal_selector_rank(selector, modules[i].name), &modules[i]));
            views[n_picked] = modules[i].w;
            moments[n_picked] = data != NULL ? data->covariances[i] : NULL;
            picked[n_picked++] = i;
        }
    if (n_picked == 0 && all_saved(config, modules, n))
        BAL_TRY(bal_fail(BAL_EINVAL,
                         "modules_to_save holds every module that target_modules (%s) names: none is left to adapt",
                         targets_text(config)));
    if (n_picked == 0 && !bal_method_of(config)->no_sites)
        BAL_TRY(bal_targets_no_match("target_modules", targets_text(config), modules, n));
    BAL_TRY(bal_copies_choose(&copies, config, modules, n, picked, n_picked, true));
    if (n_picked == 0 && copies.n == 0)
        BAL_TRY(bal_fail(BAL_EINVAL, "this model has no biases, so that %s has nothing to train",
                         bal_method_of(config)->title));
    BAL_TRY(bal_adapter_build(&a, config, modules, picked, n_picked, &copies, train));
    bal_copies_start(a, modules);
    BAL_TRY(bal_selector_check(selector, modules, n, a));
    const bal_method *m = bal_method_of(config);
    if (m->low_rank && bal_start_parse(config->init, &start) && bal_start_is_residual(start.kind)) {
        BAL_TRY(bal_adapter_make_initial(a));
        BAL_TRY(bal_adapter_init_residual(a, start, views, data != NULL ? moments : NULL,
                                          data != NULL && data->knowledge_preserved, seed, a->initial));
        memcpy(a->params.values, a->initial, a->n_own * sizeof(real_t));
    } else if (m->low_rank) {
        BAL_TRY(bal_adapter_init_plain(a, seed));
    }
    BAL_TRY(start_rest(a, views, seed));
    *out = a;
    a = NULL;
out:
    bal_selector_free(selector);
    bal_copies_dispose(&copies);
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

static void double_ranks(bal_adapter_config *c)
{
    double alpha = c->use_rslora ? sqrt(2.0) : 2;
    c->r *= 2;
    c->lora_alpha *= alpha;
    for (size_t i = 0; i < c->n_rank_pattern; i++)
        c->rank_pattern[i].value *= 2;
    for (size_t i = 0; i < c->n_alpha_pattern; i++)
        c->alpha_pattern[i].value *= alpha;
}

bal_status bal_adapter_rebuild(bal_adapter **out, const bal_adapter *a, const bal_adapter_config *c, bool without_rank)
{
    bal_status status;
    size_t n = a->n_sites, n_picked = 0, *picked = bal_alloc(n, sizeof *picked);
    bal_view *views = bal_alloc(n, sizeof *views);
    bal_module *modules = bal_alloc(n, sizeof *modules);
    *out = NULL;
    if (picked == NULL || views == NULL || modules == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < n; i++) {
        const bal_site *s = &a->sites[i];
        views[i] = (bal_view){.rows = s->embedding ? s->in : s->out, .cols = s->embedding ? s->out : s->in};
        modules[i] = (bal_module){.name = s->module,
                                  .w = &views[i],
                                  .fan_in_fan_out = a->config.fan_in_fan_out,
                                  .kind = s->embedding ? BAL_MODULE_EMBEDDING : BAL_MODULE_LINEAR};
        if (without_rank || s->r > 0)
            picked[n_picked++] = i;
    }
    const bal_copies copies = {a->copies, a->n_copies};
    BAL_TRY(bal_adapter_build(out, c, modules, picked, n_picked, &copies, false));
    for (size_t i = 0; i < a->n_copies; i++)
        memcpy((*out)->copies[i].v, a->copies[i].v, a->copies[i].rows * a->copies[i].cols * sizeof(real_t));
out:
    bal_free(picked);
    bal_free(views);
    bal_free(modules);
    return status;
}

/* Of a method that can say its factors: LoRAs of scale 1, each of its own rank, on the modules that have one. */
static bal_status plain_config(const bal_adapter *a, bal_adapter_config *c)
{
    bal_status status = BAL_OK;
    size_t most = 0, n = a->n_sites;
    *c = (bal_adapter_config){.method = bal_method_named("lora"), .base_model = NULL};
    memcpy(c->init, "lora", 5);
    memcpy(c->task_type, a->config.task_type, sizeof c->task_type);
    bal_adapter_config_defaults(c);
    c->target_modules = bal_alloc(n, sizeof *c->target_modules); // NOLINT(bugprone-sizeof-expression): of pointers
    c->rank_pattern = bal_alloc(n, sizeof *c->rank_pattern);
    c->alpha_pattern = bal_alloc(n, sizeof *c->alpha_pattern);
    if (c->target_modules == NULL || c->rank_pattern == NULL || c->alpha_pattern == NULL)
        BAL_TRY(BAL_ENOMEM);
    c->bias = a->config.bias;
    c->ensure_weight_tying = a->config.ensure_weight_tying;
    c->modules_to_save = bal_alloc(a->config.n_modules_to_save,
                                   sizeof *c->modules_to_save); // NOLINT(bugprone-sizeof-expression): of pointers
    if (c->modules_to_save == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (; c->n_modules_to_save < a->config.n_modules_to_save; c->n_modules_to_save++)
        if ((c->modules_to_save[c->n_modules_to_save] = bal_strdup(a->config.modules_to_save[c->n_modules_to_save])) ==
            NULL)
            BAL_TRY(BAL_ENOMEM);
    if (a->config.base_model != NULL && (c->base_model = bal_strdup(a->config.base_model)) == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < n; i++)
        most = a->sites[i].r > most ? a->sites[i].r : most;
    if (most == 0)
        BAL_TRY(bal_fail(BAL_EINVAL, "no module of the adapter has a rank left: it changes nothing"));
    c->r = most;
    c->lora_alpha = (double)most;
    for (size_t i = 0; i < n; i++) {
        const bal_site *s = &a->sites[i];
        if (s->r == 0 && c->bias == BAL_BIAS_LORA_ONLY)
            BAL_TRY(
                bal_fail(BAL_EUNSUPPORTED,
                         "the biases of adapted modules are trained (bias lora_only), and '%s' has no rank left: as "
                         "a LoRA its bias would be lost; merge the adapter instead",
                         s->module));
        if (s->r == 0)
            continue;
        if ((c->target_modules[c->n_target_modules++] = bal_strdup(s->module)) == NULL)
            BAL_TRY(BAL_ENOMEM);
        if (s->r == most)
            continue;
        bal_pattern_value *rank = &c->rank_pattern[c->n_rank_pattern++],
                          *alpha = &c->alpha_pattern[c->n_alpha_pattern++];
        *rank = (bal_pattern_value){bal_strdup(s->module), (double)s->r};
        *alpha = (bal_pattern_value){bal_strdup(s->module), (double)s->r};
        if (rank->pattern == NULL || alpha->pattern == NULL)
            BAL_TRY(BAL_ENOMEM);
    }
out:
    return status;
}

static bal_status factors_to_plain(bal_adapter **out, const bal_adapter *a)
{
    bal_status status;
    bal_adapter_config c;
    BAL_TRY(plain_config(a, &c));
    BAL_TRY(bal_adapter_rebuild(out, a, &c, false));
    for (size_t i = 0, k = 0; i < a->n_sites; i++)
        if (a->sites[i].r > 0) {
            bal_method_of(&a->config)->plain(&a->sites[i], (*out)->loras[k].a, (*out)->loras[k].b);
            k++;
        }
out:
    bal_adapter_config_dispose(&c);
    return status;
}

bal_status bal_adapter_to_plain(bal_adapter **out, const bal_adapter *a)
{
    bal_status status = BAL_OK;
    bal_adapter *p = NULL;
    bal_adapter_config c = {0};
    const bal_method *m = bal_method_of(&a->config);
    *out = NULL;
    if (m->plain != NULL)
        return factors_to_plain(out, a);
    if (!m->low_rank)
        return bal_fail(BAL_EINVAL, "a %s adapter has no form as low-rank factors; merge it into its model instead",
                        m->title);
    BAL_TRY(bal_adapter_config_copy(&c, &a->config));
    if (a->initial != NULL)
        double_ranks(&c);
    if (a->initial != NULL)
        (void)snprintf(c.init, sizeof c.init, "lora");
    BAL_TRY(bal_adapter_rebuild(&p, a, &c, true));
    for (size_t i = 0; i < a->n_loras; i++) {
        stack_factors(&a->loras[i], &p->loras[i]);
        for (size_t k = 2; k < a->sites[i].n_tensors; k++) { /* DoRA's magnitudes belong to the same sum */
            const bal_site_tensor *from = &a->sites[i].tensor[k];
            memcpy(p->sites[i].tensor[k].v, from->v, from->rows * from->cols * sizeof(real_t));
        }
    }
    *out = p;
    p = NULL;
out:
    bal_adapter_config_dispose(&c);
    bal_adapter_free(p);
    return status;
}
