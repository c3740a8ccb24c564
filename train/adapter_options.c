/* The options that say which modules an adapter is on.  SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/adapter/select.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

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
