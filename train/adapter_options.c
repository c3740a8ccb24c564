/* The options that say which modules an adapter is on.  SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/adapter/select.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <math.h>
#include <string.h>

enum { MAX_RANK = 65536, MAX_LAYER = 1000000 };

static bal_status copy_list(char ***to, size_t *n, const bal_text_list *from)
{
    *to = bal_alloc(from->n, sizeof **to); // NOLINT(bugprone-sizeof-expression): an array of pointers
    if (*to == NULL)
        return BAL_ENOMEM;
    for (; *n < from->n; ++*n)
        if (((*to)[*n] = bal_strdup(from->items[*n])) == NULL)
            return BAL_ENOMEM;
    return BAL_OK;
}

/* Names, or one expression: what was cut at its commas is put together again. */
static bal_status copy_names(char ***to, size_t *n, char **pattern, const bal_text_list *from)
{
    bool expression = false;
    bal_buf whole = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < from->n; i++)
        expression = expression || bal_targets_is_pattern(from->items[i]);
    if (!expression)
        return copy_list(to, n, from);
    for (size_t i = 0; i < from->n && status == BAL_OK; i++)
        status = bal_buf_printf(&whole, "%s%s", i > 0 ? "," : "", from->items[i]);
    if (status == BAL_OK && (*pattern = bal_strdup(bal_buf_cstr(&whole))) == NULL)
        status = BAL_ENOMEM;
    bal_buf_dispose(&whole);
    return status;
}

static bal_status copy_layers(bal_adapter_config *a, const bal_text_list *from)
{
    a->layers_to_transform = bal_alloc(from->n, sizeof *a->layers_to_transform);
    if (a->layers_to_transform == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < from->n; i++) {
        int64_t layer = 0;
        if (bal_parse_i64(from->items[i], 0, MAX_LAYER, &layer) != BAL_OK)
            return bal_fail(BAL_EINVAL, "layers_to_transform: '%s' is not the number of a layer", from->items[i]);
        a->layers_to_transform[a->n_layers_to_transform++] = (size_t)layer;
    }
    return BAL_OK;
}

/* "NAME=VALUE" each; a name may hold = signs itself. */
static bal_status copy_pattern(bal_pattern_value **to, size_t *n, const char *key, bool whole,
                               const bal_text_list *from)
{
    *to = bal_alloc(from->n, sizeof **to);
    if (*to == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < from->n; i++) {
        const char *item = from->items[i], *sign = strrchr(item, '=');
        bal_pattern_value *v = &(*to)[*n];
        int64_t rank = 0;
        if (sign == NULL || sign == item)
            return bal_fail(BAL_EINVAL, "%s: '%s' is not of the form NAME=%s", key, item, whole ? "RANK" : "ALPHA");
        if (whole && bal_parse_i64(sign + 1, 1, MAX_RANK, &rank) != BAL_OK)
            return bal_fail(BAL_EINVAL, "%s: '%s' is not a rank from 1 to %d", key, sign + 1, MAX_RANK);
        v->value = (double)rank;
        if (!whole && bal_parse_f64(sign + 1, 1e-9, 1e6, &v->value) != BAL_OK)
            return bal_fail(BAL_EINVAL, "%s: '%s' is not a number from 1e-9 to 1e6", key, sign + 1);
        if ((v->pattern = bal_strndup(item, (size_t)(sign - item))) == NULL)
            return BAL_ENOMEM;
        ++*n;
    }
    return BAL_OK;
}

bal_status train_adapter_selection(const trainer *t, bal_adapter_config *a)
{
    const train_config *c = t->config;
    bal_status status = BAL_OK;
    if (bal_options_given(t->options, "target_modules"))
        BAL_TRY(copy_names(&a->target_modules, &a->n_target_modules, &a->target_pattern, &c->target_modules));
    BAL_TRY(copy_names(&a->exclude_modules, &a->n_exclude_modules, &a->exclude_pattern, &c->exclude_modules));
    BAL_TRY(copy_layers(a, &c->layers_to_transform));
    BAL_TRY(copy_list(&a->layers_pattern, &a->n_layers_pattern, &c->layers_pattern));
    BAL_TRY(copy_list(&a->modules_to_save, &a->n_modules_to_save, &c->modules_to_save));
    a->ensure_weight_tying = c->ensure_weight_tying;
    BAL_TRY(copy_pattern(&a->rank_pattern, &a->n_rank_pattern, "rank_pattern", true, &c->rank_pattern));
    BAL_TRY(copy_pattern(&a->alpha_pattern, &a->n_alpha_pattern, "alpha_pattern", false, &c->alpha_pattern));
out:
    return status;
}

static void swap(void *a, void *b, size_t bytes)
{
    unsigned char kept[sizeof(size_t) + sizeof(void *)];
    memcpy(kept, a, bytes);
    memcpy(a, b, bytes);
    memcpy(b, kept, bytes);
}

/* The selection of the adapter, with what is given in the places of its own. */
static bal_status wanted_selection(const trainer *t, bal_adapter_config *a)
{
#define SWAP(field) swap(&a->field, &given.field, sizeof a->field)
    bal_adapter_config given = {.method = t->adapter->config.method};
    bal_status status = bal_adapter_config_copy(a, &t->adapter->config);
    BAL_TRY(status);
    BAL_TRY(train_adapter_selection(t, &given));
    if (bal_options_given(t->options, "target_modules")) {
        SWAP(target_modules);
        SWAP(n_target_modules);
        SWAP(target_pattern);
    }
    if (bal_options_given(t->options, "exclude_modules")) {
        SWAP(exclude_modules);
        SWAP(n_exclude_modules);
        SWAP(exclude_pattern);
    }
    if (bal_options_given(t->options, "layers_to_transform")) {
        SWAP(layers_to_transform);
        SWAP(n_layers_to_transform);
    }
    if (bal_options_given(t->options, "layers_pattern")) {
        SWAP(layers_pattern);
        SWAP(n_layers_pattern);
    }
    if (bal_options_given(t->options, "rank_pattern")) {
        SWAP(rank_pattern);
        SWAP(n_rank_pattern);
    }
    if (bal_options_given(t->options, "alpha_pattern")) {
        SWAP(alpha_pattern);
        SWAP(n_alpha_pattern);
    }
out:
    bal_adapter_config_dispose(&given);
    return status;
#undef SWAP
}

bal_status train_check_selection(const trainer *t, const char *dir)
{
    static const char *const options[] = {"target_modules", "exclude_modules", "layers_to_transform",
                                          "layers_pattern", "rank_pattern",    "alpha_pattern"};
    bal_status status = BAL_OK;
    bal_adapter_config a = {0};
    bal_selector *s = NULL;
    bool any = false;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        any = any || bal_options_given(t->options, options[i]);
    if (!any)
        return BAL_OK;
    BAL_TRY(wanted_selection(t, &a));
    BAL_TRY(bal_selector_new(&s, &a));
    for (size_t i = 0; i < t->model->n_modules; i++) {
        const bal_module *m = &t->model->modules[i];
        const bal_site *site = bal_adapter_site(t->adapter, m->name);
        if (bal_selector_targets(s, m) != (site != NULL))
            BAL_TRY(bal_fail(BAL_EINVAL,
                             "the adapter in %s is %s '%s', other than the options that choose modules say; leave "
                             "them out",
                             dir, site != NULL ? "on" : "not on", m->name));
        if (site == NULL)
            continue;
        double alpha = bal_selector_alpha(s, m->name), r = (double)site->r,
               scale = t->adapter->config.use_rslora ? alpha / sqrt(r) : alpha / r;
        if ((a.n_rank_pattern > 0 && bal_selector_rank(s, m->name) != site->r) ||
            (a.n_alpha_pattern > 0 && !(fabs(scale - site->scale) <= 1e-12 * scale)))
            BAL_TRY(bal_fail(BAL_EINVAL,
                             "the adapter in %s has rank %zu and scale %g on '%s', other than rank_pattern or "
                             "alpha_pattern says; leave them out",
                             dir, site->r, site->scale, m->name));
    }
out:
    bal_selector_free(s);
    bal_adapter_config_dispose(&a);
    return status;
}
