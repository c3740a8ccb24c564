/* adapter_config.json of peft as we write it: the portable set of keys (old peft stops at a key it does not know, so only
 * long-lived ones are written).  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/peft.h"

#include "lib/adapter/adapter_impl.h"
#include "lib/adapter/method.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"

#include <stdlib.h>
#include <string.h>

static const char FEEDFORWARD[] = "feedforward_modules";

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The members of the file, written in the order of their names as peft does. */
typedef struct member {
    const char *name;
    bal_buf value;
} member;

enum { MAX_MEMBERS = 48 };

typedef struct members {
    member of[MAX_MEMBERS];
    size_t n;
} members;

/* A new member; *value receives where its value is written. */
static bal_buf *put(members *m, const char *name)
{
    m->of[m->n].name = name; /* their number is known */
    return &m->of[m->n++].value;
}

static bal_status put_text_or_null(members *m, const char *name, const char *text)
{
    bal_buf *b = put(m, name);
    return text != NULL && text[0] != '\0' ? bal_json_put_text(b, text) : bal_buf_text(b, "null");
}

static bal_status put_bool(members *m, const char *name, bool value)
{
    return bal_buf_text(put(m, name), value ? "true" : "false");
}

static bal_status put_null(members *m, const char *name)
{
    return bal_buf_text(put(m, name), "null");
}

static bal_status put_number(members *m, const char *name, double value)
{
    return bal_json_put_f64(put(m, name), value);
}

static bal_status put_list(members *m, const char *name, char *const *list, size_t n)
{
    bal_buf *b = put(m, name);
    bal_status status = bal_buf_text(b, "[");
    for (size_t i = 0; i < n && status == BAL_OK; i++) {
        status = bal_buf_text(b, i > 0 ? ",\n    " : "\n    ");
        if (status == BAL_OK)
            status = bal_json_put_text(b, list[i]);
    }
    return status == BAL_OK ? bal_buf_text(b, n > 0 ? "\n  ]" : "]") : status;
}

/* null, a list, or the expression. */
static bal_status put_names(members *m, const char *name, char *const *list, size_t n, const char *pattern)
{
    if (pattern != NULL)
        return put_text_or_null(m, name, pattern);
    return n == 0 ? put_null(m, name) : put_list(m, name, list, n);
}

/* What target_modules is written as: "all-linear" becomes the names it stood for, so that it means the same modules in
 * any peft; paths: the full paths of all sites.  The names belong to the adapter. */
static bal_status list_targets(const bal_adapter *a, bool paths, char ***out, size_t *n)
{
    const bal_adapter_config *c = &a->config;
    bool expand = paths || (c->n_target_modules == 1 && strcmp(c->target_modules[0], "all-linear") == 0);
    size_t most = expand ? a->n_sites : c->n_target_modules;
    char **names = bal_alloc(most, sizeof *names); // NOLINT(bugprone-sizeof-expression): an array of pointers
    *n = 0;
    *out = names;
    if (names == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < most; i++) {
        char *name = expand ? a->sites[i].module : c->target_modules[i], *dot = strrchr(name, '.');
        if (expand && !paths && dot != NULL)
            name = dot + 1;
        bool seen = false;
        for (size_t j = 0; j < *n && !seen; j++)
            seen = strcmp(names[j], name) == 0;
        if (!seen)
            names[(*n)++] = name;
    }
    qsort(names, *n, sizeof *names, compare_text);
    return BAL_OK;
}

/* The value of a key of its method; NULL: the method has no such key. */
static const bal_key_value *key_of(const bal_adapter *a, const char *name)
{
    const bal_method *m = bal_method_of(&a->config);
    for (size_t i = 0; i < BAL_METHOD_KEYS && m->keys[i].name != NULL; i++)
        if (strcmp(m->keys[i].name, name) == 0)
            return &a->config.keys[i];
    return NULL;
}

/* peft refuses feedforward_modules of which target_modules does not hold each as it stands: then both are written as the
 * paths of the modules they mean. */
static bal_status needs_paths(const bal_adapter *a, bool *paths)
{
    const bal_key_value *f = key_of(a, FEEDFORWARD);
    char **names = NULL;
    size_t n = 0;
    *paths = false;
    if (f == NULL || a->config.target_pattern != NULL)
        return BAL_OK;
    bal_status status = list_targets(a, false, &names, &n);
    for (size_t i = 0; status == BAL_OK && i < f->n_list; i++) {
        bool there = false;
        for (size_t j = 0; j < n && !there; j++)
            there = strcmp(names[j], f->list[i]) == 0;
        *paths = *paths || !there;
    }
    bal_free(names);
    return status;
}

/* Of the sites, those that feedforward_modules means: by their ends, as peft. */
static bal_status put_feedforward_paths(members *m, const bal_adapter *a)
{
    const bal_key_value *f = key_of(a, FEEDFORWARD);
    size_t n = 0;
    char **paths = bal_alloc(a->n_sites, sizeof *paths); // NOLINT(bugprone-sizeof-expression): an array of pointers
    if (paths == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < a->n_sites; i++) {
        bool is = false;
        for (size_t k = 0; k < f->n_list; k++)
            is = is || bal_ends_with(a->sites[i].module, f->list[k]);
        if (is)
            paths[n++] = a->sites[i].module;
    }
    bal_status status = put_list(m, FEEDFORWARD, paths, n);
    bal_free(paths);
    return status;
}

static bal_status put_targets(members *m, const bal_adapter *a, bool paths)
{
    char **names = NULL;
    size_t n = 0;
    if (a->config.target_pattern != NULL)
        return put_text_or_null(m, "target_modules", a->config.target_pattern);
    bal_status status = list_targets(a, paths, &names, &n);
    if (status == BAL_OK)
        status = put_list(m, "target_modules", names, n);
    bal_free(names);
    return status;
}

static bal_status put_layers(members *m, const bal_adapter_config *c)
{
    bal_buf *b = put(m, "layers_to_transform");
    if (c->n_layers_to_transform == 0)
        return bal_buf_text(b, "null");
    bal_status status = BAL_OK;
    for (size_t i = 0; i < c->n_layers_to_transform && status == BAL_OK; i++)
        status = bal_buf_printf(b, "%s%zu", i == 0 ? "[\n    " : ",\n    ", c->layers_to_transform[i]);
    return status == BAL_OK ? bal_buf_text(b, "\n  ]") : status;
}

static bal_status put_pattern(members *m, const char *name, const bal_pattern_value *v, size_t n)
{
    bal_status status = BAL_OK;
    if (n == 0)
        return BAL_OK;
    bal_buf *b = put(m, name);
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(bal_buf_text(b, i == 0 ? "{\n    " : ",\n    "));
        BAL_TRY(bal_json_put_text(b, v[i].pattern));
        BAL_TRY(bal_buf_text(b, ": "));
        BAL_TRY(bal_json_put_f64(b, v[i].value));
    }
    BAL_TRY(bal_buf_text(b, "\n  }"));
out:
    return status;
}

static bal_status put_kept(members *m, const bal_adapter_config *c)
{
    bal_status status = BAL_OK;
    bal_buf name = {0};
    if (c->n_kept == 0)
        return BAL_OK;
    bal_buf *b = put(m, "rank_pattern");
    for (size_t i = 0; i < c->n_kept; i++) {
        const bal_kept *k = &c->kept[i];
        name.len = 0;
        BAL_TRY(bal_buf_printf(&name, "%s.lora_E", k->module));
        BAL_TRY(bal_buf_text(b, i == 0 ? "{\n    " : ",\n    "));
        BAL_TRY(bal_json_put_text(b, bal_buf_cstr(&name)));
        for (size_t j = 0; j < k->n; j++)
            BAL_TRY(bal_buf_printf(b, "%s\n      %s", j == 0 ? ": [" : ",", k->kept[j] ? "true" : "false"));
        BAL_TRY(bal_buf_text(b, "\n    ]"));
    }
    BAL_TRY(bal_buf_text(b, "\n  }"));
out:
    bal_buf_dispose(&name);
    return status;
}

static bal_status put_keys(members *m, const bal_adapter *a, bool paths)
{
    const bal_adapter_config *c = &a->config;
    bal_status status = BAL_OK;
    const bal_method *method = bal_method_of(c);
    for (size_t i = 0; i < BAL_METHOD_KEYS && method->keys[i].name != NULL && status == BAL_OK; i++) {
        const char *name = method->keys[i].name;
        const bal_key_value *v = &c->keys[i];
        bool is_default = v->number == method->keys[i].number && v->text == NULL && v->list == NULL;
        if (method->keys[i].when_set && is_default)
            continue;
        switch (method->keys[i].type) {
        case BAL_KEY_NUMBER:
            status = put_number(m, name, v->number);
            break;
        case BAL_KEY_BOOL:
            status = put_bool(m, name, v->number != 0);
            break;
        case BAL_KEY_TEXT:
            status = put_text_or_null(m, name, v->text);
            break;
        case BAL_KEY_LIST:
            status = paths ? put_feedforward_paths(m, a) : put_list(m, name, v->list, v->n_list);
            break;
        }
    }
    return status;
}

static bal_status put_bias(members *m, const bal_method *method, bal_bias_mode mode)
{
    bool lora = strcmp(method->peft_type, "VERA") != 0;
    if (!method->biases || (!lora && mode == BAL_BIAS_NONE))
        return BAL_OK;
    return put_text_or_null(m, "bias", !lora && mode == BAL_BIAS_LORA_ONLY ? "vera_only" : bal_bias_name(mode));
}

static bool has_bias_of_b(const bal_adapter *a)
{
    const bal_key_value *bias = key_of(a, "lora_bias");
    return bias != NULL && bias->number != 0;
}

static bal_status put_config(members *m, const bal_adapter *a, bool initial)
{
    const bal_adapter_config *c = &a->config;
    const bal_method *method = initial ? bal_method_named("lora") : bal_method_of(c);
    const char *init = initial ? "lora" : c->init;
    bool paths = false;
    bal_status status = BAL_OK;
    BAL_TRY(put_null(m, "auto_mapping"));
    BAL_TRY(put_text_or_null(m, "base_model_name_or_path", c->base_model));
    BAL_TRY(put_bool(m, "inference_mode", true));
    BAL_TRY(put_text_or_null(m, "peft_type", method->peft_type));
    BAL_TRY(put_null(m, "revision"));
    BAL_TRY(put_names(m, "modules_to_save", c->modules_to_save, initial ? 0 : c->n_modules_to_save, NULL));
    BAL_TRY(needs_paths(a, &paths));
    BAL_TRY(method->no_sites ? put_null(m, "target_modules") : put_targets(m, a, paths));
    BAL_TRY(put_text_or_null(m, "task_type", c->task_type));
    if (strcmp(method->peft_type, "LORA") == 0 || strcmp(method->peft_type, "ADALORA") == 0)
        BAL_TRY(put_bool(m, "fan_in_fan_out", c->fan_in_fan_out));
    BAL_TRY(put_bias(m, method, initial ? BAL_BIAS_NONE : c->bias));
    if (c->ensure_weight_tying && !initial)
        BAL_TRY(put_bool(m, "ensure_weight_tying", true));
    if (!method->no_rank)
        BAL_TRY(bal_buf_printf(put(m, method->rank_key != NULL ? method->rank_key : "r"), "%zu", c->r));
    if (!method->no_rank || c->n_layers_to_transform > 0) {
        BAL_TRY(put_names(m, "layers_pattern", c->layers_pattern, c->n_layers_pattern, NULL));
        BAL_TRY(put_layers(m, c));
    }
    BAL_TRY(put_pattern(m, "rank_pattern", c->rank_pattern, c->n_rank_pattern));
    BAL_TRY(put_kept(m, c));
    BAL_TRY(put_pattern(m, "alpha_pattern", c->alpha_pattern, c->n_alpha_pattern));
    if (c->n_exclude_modules > 0 || c->exclude_pattern != NULL)
        BAL_TRY(put_names(m, "exclude_modules", c->exclude_modules, c->n_exclude_modules, c->exclude_pattern));
    /* how A was drawn no longer matters, and peft reads lora_bias only with true */
    bool plain = strcmp(init, "lora") == 0 || (a->initial == NULL && !initial && has_bias_of_b(a));
    if (method->init_key != NULL && plain)
        BAL_TRY(put_bool(m, method->init_key, true));
    else if (method->init_key != NULL)
        BAL_TRY(put_text_or_null(m, method->init_key, init));
    if (method->alpha_key != NULL)
        BAL_TRY(put_number(m, method->alpha_key, c->lora_alpha));
    if (method->dropout_key != NULL)
        BAL_TRY(put_number(m, method->dropout_key, c->lora_dropout));
    if (c->use_rslora)
        BAL_TRY(put_bool(m, "use_rslora", true));
    if (method->flag != NULL)
        BAL_TRY(put_bool(m, method->flag, true));
    if (!initial)
        BAL_TRY(put_keys(m, a, paths));
out:
    return status;
}

static int compare_members(const void *a, const void *b)
{
    return strcmp(((const member *)a)->name, ((const member *)b)->name);
}

bal_status bal_peft_config_write(const bal_adapter *a, bool initial, const char *path)
{
    bal_buf b = {0};
    members m = {0};
    bal_status status = put_config(&m, a, initial);
    qsort(m.of, m.n, sizeof *m.of, compare_members);
    for (size_t i = 0; i < m.n && status == BAL_OK; i++)
        status =
            bal_buf_printf(&b, "%s  \"%s\": %s", i > 0 ? ",\n" : "{\n", m.of[i].name, bal_buf_cstr(&m.of[i].value));
    if (status == BAL_OK)
        status = bal_buf_text(&b, "\n}\n");
    if (status == BAL_OK)
        status = bal_file_replace(path, b.data, b.len);
    for (size_t i = 0; i < m.n; i++)
        bal_buf_dispose(&m.of[i].value);
    bal_buf_dispose(&b);
    return status;
}
