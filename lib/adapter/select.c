/* SPDX-License-Identifier: Apache-2.0 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "lib/adapter/select.h"

#include "lib/adapter/method.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <pcre2.h>
#include <stdio.h>
#include <string.h>

enum { MATCH_LIMIT = 1000000 };

typedef struct regex {
    pcre2_code *code;
    pcre2_match_data *data;
} regex;

struct bal_selector {
    const bal_adapter_config *c;
    regex target, exclude, any_layer; /* code NULL: none */
    regex *layers, *ranks, *alphas;   /* of layers_pattern, rank_pattern, alpha_pattern */
    size_t n_layers, n_ranks, n_alphas;
    pcre2_match_context *limits;
};

static bal_status compile(regex *out, const char *key, const char *before, const char *expression, const char *after)
{
    bal_buf text = {0};
    int code = 0;
    PCRE2_SIZE at = 0;
    bal_status status = bal_buf_printf(&text, "%s%s%s", before, expression, after);
    if (status == BAL_OK) {
        out->code = pcre2_compile((PCRE2_SPTR)bal_buf_cstr(&text), text.len, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
        if (out->code == NULL) {
            char message[128] = "";
            (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)message, sizeof message);
            status = bal_fail(BAL_EINVAL, "%s: '%.200s' is no regular expression: %s", key, expression, message);
        } else if ((out->data = pcre2_match_data_create_from_pattern(out->code, NULL)) == NULL) {
            status = bal_fail(BAL_ENOMEM, "out of memory while a pattern of %s was compiled", key);
        }
    }
    bal_buf_dispose(&text);
    return status;
}

static void regex_dispose(regex *r)
{
    pcre2_match_data_free(r->data);
    pcre2_code_free(r->code);
}

static bool matches(const bal_selector *s, const regex *r, const char *text)
{
    return r->code != NULL &&
           pcre2_match(r->code, (PCRE2_SPTR)text, strlen(text), 0, PCRE2_ANCHORED, r->data, s->limits) >= 0;
}

static bal_status compile_values(regex **out, size_t *n_out, const char *key, const bal_pattern_value *v, size_t n)
{
    *out = bal_alloc(n, sizeof **out);
    if (*out == NULL)
        return BAL_ENOMEM;
    for (; *n_out < n; ++*n_out) {
        bal_status status = compile(&(*out)[*n_out], key, "(?:.*\\.)?(?:", v[*n_out].pattern, ")$");
        if (status != BAL_OK) {
            regex_dispose(&(*out)[*n_out]);
            return status;
        }
    }
    return BAL_OK;
}

bal_status bal_selector_new(bal_selector **out, const bal_adapter_config *c)
{
    bal_status status = BAL_OK;
    bal_selector *s = bal_alloc(1, sizeof *s);
    *out = NULL;
    if (s == NULL)
        return BAL_ENOMEM;
    s->c = c;
    s->limits = pcre2_match_context_create(NULL);
    s->layers = bal_alloc(c->n_layers_pattern, sizeof *s->layers);
    if (s->limits == NULL || s->layers == NULL)
        BAL_TRY(bal_fail(BAL_ENOMEM, "out of memory while the targets of an adapter were read"));
    (void)pcre2_set_match_limit(s->limits, MATCH_LIMIT);
    if (c->target_pattern != NULL)
        BAL_TRY(compile(&s->target, "target_modules", "(?:", c->target_pattern, ")$"));
    if (c->exclude_pattern != NULL)
        BAL_TRY(compile(&s->exclude, "exclude_modules", "(?:", c->exclude_pattern, ")$"));
    BAL_TRY(compile(&s->any_layer, "layers_pattern", "", ".*?\\.[^.]*\\.(\\d+)\\.", ""));
    for (size_t i = 0; i < c->n_layers_pattern; i++) {
        s->n_layers++;
        BAL_TRY(compile(&s->layers[i], "layers_pattern", "(?:^|.*?\\.)(?:", c->layers_pattern[i], ")\\.(\\d+)\\."));
    }
    BAL_TRY(compile_values(&s->ranks, &s->n_ranks, "rank_pattern", c->rank_pattern, c->n_rank_pattern));
    BAL_TRY(compile_values(&s->alphas, &s->n_alphas, "alpha_pattern", c->alpha_pattern, c->n_alpha_pattern));
    *out = s;
    s = NULL;
out:
    bal_selector_free(s);
    return status;
}

void bal_selector_free(bal_selector *s)
{
    if (s == NULL)
        return;
    regex_dispose(&s->target);
    regex_dispose(&s->exclude);
    regex_dispose(&s->any_layer);
    for (size_t i = 0; i < s->n_layers; i++)
        regex_dispose(&s->layers[i]);
    for (size_t i = 0; i < s->n_ranks; i++)
        regex_dispose(&s->ranks[i]);
    for (size_t i = 0; i < s->n_alphas; i++)
        regex_dispose(&s->alphas[i]);
    bal_free(s->layers);
    bal_free(s->ranks);
    bal_free(s->alphas);
    pcre2_match_context_free(s->limits);
    bal_free(s);
}

/* The whole path, or its end after a dot. */
static bool named(const char *name, const char *target)
{
    size_t len = strlen(name), n = strlen(target);
    return n == len ? strcmp(name, target) == 0
                    : n > 0 && n < len && name[len - n - 1] == '.' && strcmp(name + len - n, target) == 0;
}

static bool in_list(char *const *list, size_t n, const char *name, bool whole)
{
    for (size_t i = 0; i < n; i++)
        if (whole ? strcmp(list[i], name) == 0 : named(name, list[i]))
            return true;
    return false;
}

static bool is_all_linear(const bal_adapter_config *c)
{
    return c->n_target_modules == 1 && strcmp(c->target_modules[0], "all-linear") == 0;
}

/* The number of the layer that a module is in, as layers_pattern finds it; false: in none. */
static bool layer_of(const bal_selector *s, const char *name, size_t *layer)
{
    const regex *found = NULL;
    if (s->n_layers == 0 && matches(s, &s->any_layer, name))
        found = &s->any_layer;
    for (size_t i = 0; found == NULL && i < s->n_layers; i++)
        if (matches(s, &s->layers[i], name))
            found = &s->layers[i];
    if (found == NULL)
        return false;
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(found->data);
    uint32_t last = pcre2_get_ovector_count(found->data) - 1; /* of the digits, whatever groups the pattern has */
    int64_t value = 0;
    char digits[24];
    (void)snprintf(digits, sizeof digits, "%.*s", (int)(at[2 * last + 1] - at[2 * last]), name + at[2 * last]);
    if (bal_parse_i64(digits, 0, INT64_MAX, &value) != BAL_OK)
        return false;
    *layer = (size_t)value;
    return true;
}

static bool in_layers(const bal_selector *s, const char *name)
{
    size_t layer = 0;
    if (s->c->n_layers_to_transform == 0)
        return true;
    if (!layer_of(s, name, &layer))
        return false;
    for (size_t i = 0; i < s->c->n_layers_to_transform; i++)
        if (s->c->layers_to_transform[i] == layer)
            return true;
    return false;
}

static bool excluded(const bal_selector *s, const char *name)
{
    const bal_adapter_config *c = s->c;
    return matches(s, &s->exclude, name) || in_list(c->exclude_modules, c->n_exclude_modules, name, false);
}

/* Whether the path, or one that it lies in, ends with the name. */
static bool saved_by(const char *module, const char *name)
{
    size_t n = strlen(name);
    for (size_t end = strlen(module); n > 0 && end > 0; end--)
        if ((module[end] == '.' || module[end] == '\0') && end >= n && memcmp(module + end - n, name, n) == 0)
            return true;
    return false;
}

bool bal_config_saves(const bal_adapter_config *c, const char *module)
{
    for (size_t i = 0; i < c->n_modules_to_save; i++)
        if (saved_by(module, c->modules_to_save[i]))
            return true;
    return false;
}

bool bal_selector_targets(const bal_selector *s, const bal_module *m)
{
    const bal_adapter_config *c = s->c;
    if (!bal_module_adaptable(c, m) || excluded(s, m->name) || bal_config_saves(c, m->name))
        return false;
    if (c->target_pattern != NULL)
        return matches(s, &s->target, m->name);
    if (is_all_linear(c))
        return m->kind == BAL_MODULE_LINEAR && !m->is_head && !named(m->name, "lm_head") && in_layers(s, m->name);
    return in_list(c->target_modules, c->n_target_modules, m->name, true) ||
           (in_list(c->target_modules, c->n_target_modules, m->name, false) && in_layers(s, m->name));
}

size_t bal_selector_rank(const bal_selector *s, const char *module)
{
    for (size_t i = 0; i < s->n_ranks; i++)
        if (matches(s, &s->ranks[i], module))
            return (size_t)s->c->rank_pattern[i].value;
    return s->c->r;
}

double bal_selector_alpha(const bal_selector *s, const char *module)
{
    for (size_t i = 0; i < s->n_alphas; i++)
        if (matches(s, &s->alphas[i], module))
            return s->c->alpha_pattern[i].value;
    return s->c->lora_alpha;
}

/* ---- messages ---- */

static const char *last_part(const char *name)
{
    const char *dot = strrchr(name, '.');
    return dot != NULL ? dot + 1 : name;
}

/* "q_proj, k_proj, ...": the kinds of modules there are; all: also those that no adapter can be on. */
static void list_kinds(const bal_module *modules, size_t n, bool all, bal_buf *out)
{
    for (size_t i = 0; i < n; i++) {
        bool seen = !all && (modules[i].kind == BAL_MODULE_NORM || modules[i].kind == BAL_MODULE_TABLE);
        for (size_t j = 0; j < i && !seen; j++)
            seen = strcmp(last_part(modules[i].name), last_part(modules[j].name)) == 0;
        if (!seen && out->len < 400)
            (void)bal_buf_printf(out, "%s%s", out->len > 0 ? ", " : "", last_part(modules[i].name));
    }
}

bal_status bal_targets_no_match(const char *key, const char *what, const bal_module *modules, size_t n)
{
    bal_buf kinds = {0};
    list_kinds(modules, n, strcmp(key, "modules_to_save") == 0, &kinds);
    bal_status status = bal_fail(BAL_EINVAL, "no module of the model matches %s %.200s; the model has %s", key, what,
                                 bal_buf_cstr(&kinds));
    bal_buf_dispose(&kinds);
    return status;
}

static bool any_named(const bal_adapter_config *c, const bal_module *modules, size_t n, const char *target)
{
    for (size_t i = 0; i < n; i++)
        if (named(modules[i].name, target) && bal_module_adaptable(c, &modules[i]))
            return true;
    return false;
}

static bool any_saved(const bal_module *modules, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (saved_by(modules[i].name, name))
            return true;
    return false;
}

static bal_status check_values(const bal_selector *s, const char *key, const bal_pattern_value *v, const regex *r,
                               size_t n, const bal_adapter *a)
{
    for (size_t i = 0; i < n; i++) {
        bool found = false;
        for (size_t k = 0; k < a->n_sites && !found; k++)
            found = matches(s, &r[i], a->sites[k].module);
        if (!found)
            return bal_fail(BAL_EINVAL, "%s names '%.200s', which is none of the %zu adapted modules", key,
                            v[i].pattern, a->n_sites);
    }
    return BAL_OK;
}

bal_status bal_selector_check_patterns(const bal_selector *s, const bal_adapter *a)
{
    const bal_adapter_config *c = s->c;
    bal_status status = check_values(s, "rank_pattern", c->rank_pattern, s->ranks, s->n_ranks, a);
    return status != BAL_OK ? status : check_values(s, "alpha_pattern", c->alpha_pattern, s->alphas, s->n_alphas, a);
}

bal_status bal_selector_check(const bal_selector *s, const bal_module *modules, size_t n, const bal_adapter *a)
{
    const bal_adapter_config *c = s->c;
    bal_status status = BAL_OK;
    for (size_t t = 0; t < c->n_target_modules && !is_all_linear(c); t++)
        if (!any_named(c, modules, n, c->target_modules[t]))
            BAL_TRY(bal_targets_no_match("target_modules", c->target_modules[t], modules, n));
    for (size_t t = 0; t < c->n_modules_to_save; t++)
        if (!any_saved(modules, n, c->modules_to_save[t]))
            BAL_TRY(bal_targets_no_match("modules_to_save", c->modules_to_save[t], modules, n));
    BAL_TRY(bal_selector_check_patterns(s, a));
out:
    return status;
}

bool bal_targets_is_pattern(const char *text)
{
    return strpbrk(text, "*+?[](){}|^$\\") != NULL;
}
