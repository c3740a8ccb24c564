/* What --method, and the options that are keys of one method, say of the adapter.  SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/adapter/method.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <stdio.h>
#include <string.h>

/* Options with the names of peft's keys, where they are kept. */
static const struct {
    const char *name;
    size_t offset;
    bool whole; /* of a number: an int64_t, else a double */
} k_keys[] = {
    {"lora_bias", offsetof(train_config, lora_bias), false},
    {"decompose_both", offsetof(train_config, decompose_both), false},
    {"decompose_factor", offsetof(train_config, decompose_factor), true},
    {"feedforward_modules", offsetof(train_config, feedforward_modules), false},
    {"d_initial", offsetof(train_config, d_initial), false},
    {"projection_prng_key", offsetof(train_config, projection_prng_key), true},
    {"save_projection", offsetof(train_config, save_projection), false},
    {"reduction_factor", offsetof(train_config, reduction_factor), false},
    {"non_linearity", offsetof(train_config, non_linearity), false},
    {"init_r", offsetof(train_config, init_r), true},
    {"target_r", offsetof(train_config, target_r), true},
    {"tinit", offsetof(train_config, tinit), true},
    {"tfinal", offsetof(train_config, tfinal), true},
    {"deltaT", offsetof(train_config, delta_t), true},
    {"beta1", offsetof(train_config, beta1), false},
    {"beta2", offsetof(train_config, beta2), false},
    {"orth_reg_weight", offsetof(train_config, orth_reg_weight), false},
    {"total_step", offsetof(train_config, total_step), true},
};
enum { KEYS = sizeof k_keys / sizeof *k_keys };

static bool has_key(const bal_method *m, const char *name)
{
    for (size_t i = 0; i < BAL_METHOD_KEYS && m->keys[i].name != NULL; i++)
        if (strcmp(m->keys[i].name, name) == 0)
            return true;
    return m->rank_key != NULL && strcmp(m->rank_key, name) == 0;
}

static bool is(const char *a, const char *b)
{
    return a != NULL && strcmp(a, b) == 0;
}

/* An option that would change nothing is a mistake in the recipe. */
static bal_status no_such_option(const train_config *c, const char *option)
{
    return bal_fail(BAL_EINVAL, "method %s has no %s; leave it out",
                    c->use_dora && !is(option, "use_dora") ? "dora" : c->method, option);
}

static bal_status check_options(const trainer *t, const train_config *c)
{
    static const char *const only_sites[] = {"target_modules", "exclude_modules", "layers_to_transform",
                                             "layers_pattern", "rank_pattern",    "alpha_pattern"};
    const bal_method *m = t->method;
    for (size_t i = 0; i < KEYS; i++)
        if (bal_options_given(t->options, k_keys[i].name) && !has_key(m, k_keys[i].name))
            return no_such_option(c, k_keys[i].name);
    static const struct {
        const char *option;
        unsigned lacked;
    } k_lacked[] = {{"layers_to_transform", BAL_NO_LAYERS}, {"layers_pattern", BAL_NO_LAYERS},
                    {"exclude_modules", BAL_NO_EXCLUDE},    {"rank_pattern", BAL_NO_PATTERNS},
                    {"alpha_pattern", BAL_NO_PATTERNS},     {"ensure_weight_tying", BAL_NO_TYING}};
    for (size_t i = 0; i < sizeof k_lacked / sizeof *k_lacked; i++)
        if ((m->lacks & k_lacked[i].lacked) != 0 && bal_options_given(t->options, k_lacked[i].option))
            return no_such_option(c, k_lacked[i].option);
    if ((m->no_rank || m->rank_key != NULL) && bal_options_given(t->options, "r"))
        return no_such_option(c, "r");
    if (m->alpha_key == NULL && bal_options_given(t->options, "lora_alpha"))
        return no_such_option(c, "lora_alpha");
    if (!is(m->alpha_key, "alpha") && bal_options_given(t->options, "alpha"))
        return no_such_option(c, "alpha");
    if (!is(m->dropout_key, "vera_dropout") && bal_options_given(t->options, "vera_dropout"))
        return no_such_option(c, "vera_dropout");
    if (m->dropout_key == NULL && c->lora_dropout > 0)
        return no_such_option(c, "lora_dropout");
    if (c->ensure_weight_tying && c->modules_to_save.n == 0 && c->adapter == NULL && c->init_adapter == NULL)
        return bal_fail(BAL_EINVAL, "ensure_weight_tying is for modules_to_save; name embedding or head there");
    if (m->no_sites && !is(c->bias, "none"))
        return bal_fail(BAL_EINVAL, "method %s trains all biases by itself; leave bias out", c->method);
    if (!m->biases && !is(c->bias, "none"))
        return no_such_option(c, "bias");
    for (size_t i = 0; m->no_sites && i < sizeof only_sites / sizeof *only_sites; i++)
        if (bal_options_given(t->options, only_sites[i]))
            return no_such_option(c, only_sites[i]);
    if (!m->low_rank && c->init != NULL)
        return no_such_option(c, "init");
    if (!m->low_rank && c->use_rslora)
        return no_such_option(c, "use_rslora");
    return BAL_OK;
}

bal_status train_resolve_row(trainer *t, train_config *c)
{
    static const char *const on_lora[] = {"rslora", "pissa", "ba-lora-nlg"};
    const char *row = c->method;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < sizeof on_lora / sizeof *on_lora; i++)
        if (is(c->method, on_lora[i]))
            row = "lora";
    if (c->use_dora && !is(row, "lora") && !is(row, "dora"))
        return no_such_option(c, "use_dora");
    t->method = bal_method_named(c->use_dora ? "dora" : row);
    if (t->method == NULL)
        return bal_fail(BAL_EINVAL, "method '%s' is unknown", c->method);
    BAL_TRY(check_options(t, c));
    if (t->method->rank_key != NULL)
        c->r = c->init_r;
    else if (t->method->default_r > 0 && !bal_options_given(t->options, "r")) {
        c->r = (int64_t)t->method->default_r;
        BAL_TRY(bal_options_resolved(t->options, "r"));
    }
    if (c->alpha > 0)
        c->lora_alpha = c->alpha;
    if (c->vera_dropout > 0)
        c->lora_dropout = c->vera_dropout;
out:
    return status;
}

static bal_status add_name(char ***list, size_t *n, const char *name, size_t len)
{
    char *copy = bal_alloc(len + 1, 1);
    if (copy == NULL)
        return BAL_ENOMEM;
    memcpy(copy, name, len);
    (*list)[(*n)++] = copy;
    return BAL_OK;
}

/* The names of an option, or those of `names` ("a,b"). */
static bal_status fill_list(const bal_text_list *given, const char *names, char ***list, size_t *n)
{
    size_t most = given->n;
    for (const char *p = names; given->n == 0 && p != NULL; p = strchr(p, ',') == NULL ? NULL : strchr(p, ',') + 1)
        most++;
    *n = 0;
    *list = bal_alloc(most, sizeof **list); // NOLINT(bugprone-sizeof-expression): an array of pointers
    if (*list == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < given->n; i++) {
        bal_status status = add_name(list, n, given->items[i], strlen(given->items[i]));
        if (status != BAL_OK)
            return status;
    }
    for (const char *p = names; given->n == 0 && p != NULL;) {
        const char *comma = strchr(p, ',');
        bal_status status = add_name(list, n, p, comma != NULL ? (size_t)(comma - p) : strlen(p));
        if (status != BAL_OK)
            return status;
        p = comma != NULL ? comma + 1 : NULL;
    }
    return BAL_OK;
}

static bal_status fill_key(const trainer *t, const bal_method_key *k, const void *field, bool whole, bal_key_value *v)
{
    const char *model_type = t->model->config.model_type;
    if (k->type == BAL_KEY_LIST)
        return fill_list(field, bal_feedforward_modules(model_type), &v->list, &v->n_list);
    if (!bal_options_given(t->options, k->name)) /* the method's own default */
        return BAL_OK;
    if (k->type == BAL_KEY_BOOL)
        v->number = *(const bool *)field;
    else if (k->type == BAL_KEY_TEXT)
        v->text = bal_strdup(*(const char *const *)field);
    else if (whole)
        v->number = (double)*(const int64_t *)field;
    else
        v->number = *(const double *)field;
    return k->type == BAL_KEY_TEXT && v->text == NULL ? BAL_ENOMEM : BAL_OK;
}

bal_status train_adapter_config(const trainer *t, bal_adapter_config *a)
{
    const train_config *c = t->config;
    const bal_method *m = t->method;
    const char *model_type = t->model->config.model_type;
    bal_status status = BAL_OK;
    *a = (bal_adapter_config){.method = m,
                              .r = m->no_rank ? 1 : (size_t)c->r,
                              .lora_alpha = c->lora_alpha,
                              .lora_dropout = c->lora_dropout,
                              .use_rslora = c->use_rslora};
    (void)snprintf(a->init, sizeof a->init, "%s", c->init);
    (void)snprintf(a->task_type, sizeof a->task_type, "CAUSAL_LM");
    bal_adapter_config_defaults(a);
    if ((a->base_model = bal_strdup(c->model)) == NULL)
        BAL_TRY(BAL_ENOMEM);
    bool named = bal_options_given(t->options, "target_modules");
    const char *targets = bal_method_targets(m, model_type);
    if (!named && targets == NULL)
        BAL_TRY(bal_fail(BAL_EINVAL,
                         "which modules method %s adapts in a %s model is not known; name them with "
                         "target_modules",
                         c->method, model_type));
    if (!named)
        BAL_TRY(fill_list(&(bal_text_list){NULL, 0}, targets, &a->target_modules, &a->n_target_modules));
    (void)bal_bias_parse(c->bias, &a->bias);
    BAL_TRY(train_adapter_selection(t, a));
    for (size_t i = 0; i < BAL_METHOD_KEYS && m->keys[i].name != NULL; i++)
        for (size_t k = 0; k < KEYS; k++)
            if (strcmp(m->keys[i].name, k_keys[k].name) == 0)
                BAL_TRY(fill_key(t, &m->keys[i], (const char *)c + k_keys[k].offset, k_keys[k].whole, &a->keys[i]));
out:
    return status;
}

/* A warm start goes on with the numbers of its file where none are given; its steps are those of this run. */
static void numbers_of_this_run(trainer *t)
{
    const bal_method *m = bal_method_of(&t->adapter->config);
    for (size_t i = 0; i < BAL_METHOD_KEYS && m->keys[i].name != NULL; i++)
        for (size_t k = 0; k < KEYS; k++) {
            const char *field = (const char *)t->config + k_keys[k].offset;
            if (strcmp(m->keys[i].name, k_keys[k].name) != 0 || m->keys[i].type != BAL_KEY_NUMBER)
                continue;
            if (bal_options_given(t->options, k_keys[k].name) || strcmp(k_keys[k].name, "total_step") == 0)
                t->adapter->config.keys[i].number = k_keys[k].whole ? (double)*(const int64_t *)(const void *)field
                                                                    : *(const double *)(const void *)field;
        }
}

bal_status train_begin_method(trainer *t)
{
    const bal_method *m = t->full ? NULL : bal_method_of(&t->adapter->config);
    t->step_config.adapter = t->adapter;
    if (m == NULL || m->begin == NULL)
        return BAL_OK;
    if (t->resume_from == NULL)
        numbers_of_this_run(t);
    return m->begin(t->adapter, (size_t)t->max_steps);
}

static bool same_list(const bal_key_value *a, const bal_key_value *b)
{
    bool same = a->n_list == b->n_list;
    for (size_t i = 0; same && i < a->n_list; i++)
        same = is(a->list[i], b->list[i]);
    return same;
}

/* Keys that a warm start has from its file; those of a method with a schedule are this run's (numbers_of_this_run()). */
static bal_status check_keys(const trainer *t, const char *dir)
{
    const bal_adapter_config *own = &t->adapter->config;
    const bal_method *m = bal_method_of(own);
    bal_adapter_config given = {.method = m};
    bal_status status = BAL_OK;
    bal_adapter_config_defaults(&given);
    for (size_t i = 0; m->begin == NULL && i < BAL_METHOD_KEYS && m->keys[i].name != NULL; i++)
        for (size_t k = 0; k < KEYS; k++) {
            bal_key_value *v = &given.keys[i];
            const char *name = m->keys[i].name;
            if (strcmp(name, k_keys[k].name) != 0 || !bal_options_given(t->options, name))
                continue;
            BAL_TRY(fill_key(t, &m->keys[i], (const char *)t->config + k_keys[k].offset, k_keys[k].whole, v));
            if (v->number != own->keys[i].number || (v->text != NULL && !is(v->text, own->keys[i].text)) ||
                !same_list(v, &own->keys[i]))
                BAL_TRY(bal_fail(BAL_EINVAL, "%s is given, but the adapter in %s has another one; leave it out", name,
                                 dir));
        }
out:
    bal_adapter_config_dispose(&given);
    return status;
}

bal_status train_check_method(const trainer *t, const char *dir)
{
    const bal_method *m = bal_method_of(&t->adapter->config);
    if (!bal_options_given(t->options, "method") || m == t->method)
        return check_keys(t, dir);
    return bal_fail(BAL_EINVAL, "method is %s, but the adapter in %s is of the method %s", t->config->method, dir,
                    m->name);
}
