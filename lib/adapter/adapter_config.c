/* The configuration of an adapter: what it owns, copied and freed.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter_impl.h"
#include "lib/base/mem.h"

#include <string.h>

static bal_status copy_list(char ***to, size_t *n_to, char *const *from, size_t n)
{
    *n_to = 0;
    *to = bal_alloc(n, sizeof **to); // NOLINT(bugprone-sizeof-expression): an array of pointers
    if (*to == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        if (((*to)[i] = bal_strdup(from[i])) == NULL)
            return BAL_ENOMEM;
        ++*n_to;
    }
    return BAL_OK;
}

static void free_list(char **list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bal_free(list[i]);
    bal_free(list);
}

static bal_status copy_text(char **to, const char *from)
{
    *to = from != NULL ? bal_strdup(from) : NULL;
    return from != NULL && *to == NULL ? BAL_ENOMEM : BAL_OK;
}

static bal_status copy_patterns(bal_pattern_value **to, size_t *n_to, const bal_pattern_value *from, size_t n)
{
    *to = bal_alloc(n, sizeof **to);
    if (*to == NULL)
        return BAL_ENOMEM;
    for (; *n_to < n; ++*n_to) {
        (*to)[*n_to] = (bal_pattern_value){bal_strdup(from[*n_to].pattern), from[*n_to].value};
        if ((*to)[*n_to].pattern == NULL)
            return BAL_ENOMEM;
    }
    return BAL_OK;
}

static void free_patterns(bal_pattern_value *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        bal_free(list[i].pattern);
    bal_free(list);
}

static bal_status copy_kept(bal_kept **to, size_t *n_to, const bal_kept *from, size_t n)
{
    *to = bal_alloc(n, sizeof **to);
    if (*to == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        bal_kept *k = &(*to)[(*n_to)++];
        k->n = from[i].n;
        k->module = bal_strdup(from[i].module);
        k->kept = bal_alloc(k->n, sizeof *k->kept);
        if (k->module == NULL || k->kept == NULL)
            return BAL_ENOMEM;
        memcpy(k->kept, from[i].kept, k->n * sizeof *k->kept);
    }
    return BAL_OK;
}

void bal_kept_dispose(bal_kept *list, size_t n)
{
    for (size_t i = 0; list != NULL && i < n; i++) {
        bal_free(list[i].module);
        bal_free(list[i].kept);
    }
    bal_free(list);
}

/* The values of c without what it owns. */
static bal_adapter_config values_of(const bal_adapter_config *c)
{
    bal_adapter_config v = {.method = c->method,
                            .r = c->r,
                            .lora_alpha = c->lora_alpha,
                            .lora_dropout = c->lora_dropout,
                            .use_rslora = c->use_rslora,
                            .fan_in_fan_out = c->fan_in_fan_out,
                            .bias = c->bias,
                            .ensure_weight_tying = c->ensure_weight_tying};
    memcpy(v.init, c->init, sizeof v.init);
    memcpy(v.task_type, c->task_type, sizeof v.task_type);
    for (size_t i = 0; i < BAL_METHOD_KEYS; i++)
        v.keys[i].number = c->keys[i].number;
    return v;
}

bal_status bal_adapter_config_copy(bal_adapter_config *to, const bal_adapter_config *from)
{
    bal_status status = BAL_OK;
    *to = values_of(from);
    BAL_TRY(copy_text(&to->base_model, from->base_model));
    BAL_TRY(copy_text(&to->target_pattern, from->target_pattern));
    BAL_TRY(copy_text(&to->exclude_pattern, from->exclude_pattern));
    BAL_TRY(copy_list(&to->target_modules, &to->n_target_modules, from->target_modules, from->n_target_modules));
    BAL_TRY(copy_list(&to->exclude_modules, &to->n_exclude_modules, from->exclude_modules, from->n_exclude_modules));
    BAL_TRY(copy_list(&to->layers_pattern, &to->n_layers_pattern, from->layers_pattern, from->n_layers_pattern));
    BAL_TRY(copy_list(&to->modules_to_save, &to->n_modules_to_save, from->modules_to_save, from->n_modules_to_save));
    BAL_TRY(copy_patterns(&to->rank_pattern, &to->n_rank_pattern, from->rank_pattern, from->n_rank_pattern));
    BAL_TRY(copy_patterns(&to->alpha_pattern, &to->n_alpha_pattern, from->alpha_pattern, from->n_alpha_pattern));
    BAL_TRY(copy_kept(&to->kept, &to->n_kept, from->kept, from->n_kept));
    to->layers_to_transform = bal_alloc(from->n_layers_to_transform, sizeof *to->layers_to_transform);
    if (to->layers_to_transform == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (; to->n_layers_to_transform < from->n_layers_to_transform; to->n_layers_to_transform++)
        to->layers_to_transform[to->n_layers_to_transform] = from->layers_to_transform[to->n_layers_to_transform];
    for (size_t i = 0; i < BAL_METHOD_KEYS; i++) {
        const bal_key_value *v = &from->keys[i];
        BAL_TRY(copy_text(&to->keys[i].text, v->text));
        if (v->list != NULL)
            BAL_TRY(copy_list(&to->keys[i].list, &to->keys[i].n_list, v->list, v->n_list));
    }
out:
    return status;
}

void bal_adapter_config_dispose(bal_adapter_config *c)
{
    bal_free(c->base_model);
    bal_free(c->target_pattern);
    bal_free(c->exclude_pattern);
    bal_free(c->layers_to_transform);
    free_list(c->target_modules, c->n_target_modules);
    free_list(c->exclude_modules, c->n_exclude_modules);
    free_list(c->layers_pattern, c->n_layers_pattern);
    free_list(c->modules_to_save, c->n_modules_to_save);
    free_patterns(c->rank_pattern, c->n_rank_pattern);
    free_patterns(c->alpha_pattern, c->n_alpha_pattern);
    bal_kept_dispose(c->kept, c->n_kept);
    for (size_t i = 0; i < BAL_METHOD_KEYS; i++) {
        bal_free(c->keys[i].text);
        free_list(c->keys[i].list, c->keys[i].n_list);
    }
    *c = (bal_adapter_config){0};
}

static const char *const BIAS_NAMES[] = {"none", "all", "lora_only"};

bool bal_bias_parse(const char *name, bal_bias_mode *out)
{
    for (size_t i = 0; i < 3; i++)
        if (strcmp(name, BIAS_NAMES[i]) == 0) {
            *out = (bal_bias_mode)i;
            return true;
        }
    return false;
}

const char *bal_bias_name(bal_bias_mode mode)
{
    return BIAS_NAMES[mode];
}
