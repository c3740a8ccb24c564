/* Options, the values: text or JSON into a field of the configuration, and back as JSON.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/io/hub.h"
#include "lib/io/options_impl.h"

#include <float.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

static bal_status own_text(bal_options *o, const char *text, size_t n, const char **out)
{
    if (o->n_owned == o->cap_owned) {
        size_t cap = 2 * o->cap_owned + 16;
        char **grown = bal_realloc(o->owned, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        o->owned = grown;
        o->cap_owned = cap;
    }
    char *copy = bal_strndup(text, n);
    if (copy == NULL)
        return BAL_ENOMEM;
    o->owned[o->n_owned++] = copy;
    *out = copy;
    return BAL_OK;
}

static bool any_range(const bal_option *option)
{
    return option->min == 0 && option->max == 0;
}

static int64_t whole_bound(double bound)
{
    if (bound >= 9.2e18)
        return INT64_MAX;
    return bound <= -9.2e18 ? INT64_MIN : (int64_t)bound;
}

static bal_status set_int(bal_option_entry *e, const char *text)
{
    const bal_option *option = e->option;
    int64_t min = any_range(option) ? INT64_MIN : whole_bound(option->min);
    int64_t max = any_range(option) ? INT64_MAX : whole_bound(option->max);
    int64_t *field = e->field;
    return bal_parse_i64(text, min, max, field);
}

static bal_status check_real(const bal_option *option, double value, double *field)
{
    double min = any_range(option) ? -DBL_MAX : option->min;
    double max = any_range(option) ? DBL_MAX : option->max;
    if (!(value >= min && value <= max)) {
        if (any_range(option))
            return bal_fail(BAL_EINVAL, "%g is not a finite number", value);
        return bal_fail(BAL_EINVAL, "%g is outside %g .. %g", value, min, max);
    }
    *field = value;
    return BAL_OK;
}

static bal_status set_real(bal_option_entry *e, const char *text)
{
    double value = 0;
    double *field = e->field;
    bal_status status = bal_parse_f64(text, -(double)INFINITY, (double)INFINITY, &value);
    if (status != BAL_OK) /* not a number at all, or nan */
        return bal_fail(BAL_EINVAL, "'%.60s' is not a number", text);
    return check_real(e->option, value, field);
}

static bal_status set_flag(bal_option_entry *e, const char *text)
{
    bool *field = e->field;
    bool yes = strcmp(text, "true") == 0 || strcmp(text, "1") == 0 || strcmp(text, "yes") == 0;
    bool no = strcmp(text, "false") == 0 || strcmp(text, "0") == 0 || strcmp(text, "no") == 0;
    if (!yes && !no)
        return bal_fail(BAL_EINVAL, "'%.60s' is neither true nor false", text);
    *field = yes;
    return BAL_OK;
}

static bal_status set_choice(bal_options *o, bal_option_entry *e, const char *text)
{
    const char *field = NULL;
    size_t n = strlen(text);
    for (const char *c = e->option->choices; c != NULL && *c != '\0';) {
        size_t len = strcspn(c, "|");
        if (bal_option_name_equal(c, len, text, n)) { /* stored as the table spells it */
            bal_status status = own_text(o, c, len, &field);
            if (status == BAL_OK)
                *(const char **)e->field = field;
            return status;
        }
        c += len + (c[len] == '|');
    }
    return bal_fail(BAL_EINVAL, "'%.60s' is not one of %s", text, e->option->choices);
}

static bal_status list_add(bal_options *o, bal_option_entry *e, const char *text, size_t n)
{
    bal_text_list *list = e->field;
    if (list->n == e->cap) {
        size_t cap = 2 * e->cap + 8;
        const char **grown = bal_realloc(e->items, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        e->items = grown;
        e->cap = cap;
        list->items = grown;
    }
    bal_status status = own_text(o, text, n, &e->items[list->n]);
    if (status == BAL_OK)
        list->n++;
    return status;
}

static bal_status list_add_commas(bal_options *o, bal_option_entry *e, const char *text)
{
    bal_status status = BAL_OK;
    while (status == BAL_OK && *text != '\0') {
        size_t n = strcspn(text, ",");
        if (n > 0) /* "a,,b" and a comma at the end name nothing */
            status = list_add(o, e, text, n);
        text += n + (text[n] == ',');
    }
    return status;
}

static void list_clear_before(bal_option_entry *e, bal_option_source source)
{
    bal_text_list *list = e->field;
    if (e->source != BAL_FROM_FLAG || source != BAL_FROM_FLAG)
        list->n = 0;
}

static bal_status set_by_type(bal_options *o, bal_option_entry *e, const char *text, bal_option_source source)
{
    switch (e->option->type) {
    case BAL_OPTION_FLAG:
        return set_flag(e, text);
    case BAL_OPTION_INT:
        return set_int(e, text);
    case BAL_OPTION_REAL:
        return set_real(e, text);
    case BAL_OPTION_TEXT:
    case BAL_OPTION_PATH:
        return own_text(o, text, strlen(text), e->field);
    case BAL_OPTION_CHOICE:
        return set_choice(o, e, text);
    case BAL_OPTION_LIST:
        list_clear_before(e, source);
        return list_add_commas(o, e, text);
    case BAL_OPTION_PATHS: /* a path may hold a comma */
        list_clear_before(e, source);
        return list_add(o, e, text, strlen(text));
    }
    return bal_fail(BAL_EINVAL, "option '%s' has no type", e->option->name);
}

bal_status bal_option_set_text(bal_options *o, bal_option_entry *e, const char *text, bal_option_source source)
{
    bal_status status = set_by_type(o, e, text, source);
    if (status == BAL_OK) {
        e->source = source;
        e->set = true;
    }
    return status;
}

static const char *json_kind(const cJSON *v)
{
    if (cJSON_IsString(v))
        return "a text";
    if (cJSON_IsNumber(v))
        return "a number";
    if (cJSON_IsBool(v))
        return "true or false";
    return cJSON_IsArray(v) ? "a list" : "an object";
}

static bal_status wrong_kind(const char *wanted, const cJSON *v)
{
    return bal_fail(BAL_EINVAL, "%s is needed, not %s", wanted, json_kind(v));
}

static bal_status set_json_int(bal_option_entry *e, const cJSON *v)
{
    char text[32];
    double value = v->valuedouble;
    /* cJSON keeps doubles: whole numbers are exact up to 2^53, seeds beyond are given as flags. */
    if (!(fabs(value) <= 9007199254740992.0) || value != floor(value))
        return bal_fail(BAL_EINVAL, "%.17g is not a whole number of at most 2^53", value);
    (void)snprintf(text, sizeof text, "%.0f", value);
    return set_int(e, text);
}

/* "model": "org/name" of a recipe names a repository of the hub, "data": "gsm8k" a data set, when there is neither such a
 * path nor its first folder beside the recipe. */
bool bal_option_is_name(const char *option, const char *text, const char *path)
{
    char first[512];
    size_t n = strlen(path) - strlen(text) + strcspn(text, "/");
    static const char *const named[] = {"data", "validation_data", "calibration_data", "model", "tokenizer", "adapter"};
    size_t i = 0;
    while (i < sizeof named / sizeof *named && strcmp(option, named[i]) != 0)
        i++;
    if (i == sizeof named / sizeof *named || access(path, F_OK) == 0 || n >= sizeof first)
        return false;
    (void)snprintf(first, sizeof first, "%.*s", (int)n, path);
    if (access(first, F_OK) == 0 && strpbrk(text, ":@") == NULL)
        return false;
    return bal_hub_is_name(text) || (i < 3 && strpbrk(text, "/.") == NULL);
}

/* text is copied before *out, which may hold it, changes. */
static bal_status own_path(bal_options *o, const char *option, const char *text, const char *folder, const char **out)
{
    if (folder == NULL || text[0] == '\0' || strcmp(text, "-") == 0)
        return own_text(o, text, strlen(text), out);
    char *path = bal_path_join(strcmp(folder, ".") == 0 ? NULL : folder, text);
    if (path == NULL)
        return BAL_ENOMEM;
    const char *value = bal_option_is_name(option, text, path) ? text : path;
    bal_status status = own_text(o, value, strlen(value), out);
    bal_free(path);
    return status;
}

bal_status bal_option_keep(bal_options *o, const char *text, const char **out)
{
    return own_text(o, text, strlen(text), out);
}

static bal_status set_json_text(bal_options *o, bal_option_entry *e, const char *text, const char *folder)
{
    if (e->option->type == BAL_OPTION_CHOICE)
        return set_choice(o, e, text);
    return e->option->type == BAL_OPTION_PATH ? own_path(o, e->option->name, text, folder, e->field)
                                              : own_text(o, text, strlen(text), e->field);
}

/* Paths in a recipe are relative to it. */
static bal_status paths_of_recipe(bal_options *o, const bal_option_entry *e, const char *folder)
{
    const bal_text_list *list = e->field;
    bal_status status = BAL_OK;
    for (size_t i = 0; e->option->type == BAL_OPTION_PATHS && status == BAL_OK && i < list->n; i++)
        status = own_path(o, e->option->name, list->items[i], folder, &list->items[i]);
    return status;
}

/* {"name": value}: "name=value" each. */
static bal_status set_json_pairs(bal_options *o, bal_option_entry *e, const cJSON *v)
{
    bal_status status = BAL_OK;
    bal_buf pair = {0};
    for (const cJSON *c = v->child; c != NULL && status == BAL_OK; c = c->next) {
        if (!cJSON_IsNumber(c) && !cJSON_IsString(c)) {
            status = wrong_kind("numbers or texts by name", c);
            break;
        }
        pair.len = 0;
        status = cJSON_IsNumber(c) ? bal_buf_printf(&pair, "%s=%.17g", c->string, c->valuedouble)
                                   : bal_buf_printf(&pair, "%s=%s", c->string, c->valuestring);
        if (status == BAL_OK)
            status = list_add(o, e, bal_buf_cstr(&pair), pair.len);
    }
    bal_buf_dispose(&pair);
    return status;
}

static bal_status set_json_list(bal_options *o, bal_option_entry *e, const cJSON *v, bal_option_source source)
{
    list_clear_before(e, source);
    if (cJSON_IsString(v) && e->option->type == BAL_OPTION_PATHS)
        return list_add(o, e, v->valuestring, strlen(v->valuestring));
    if (cJSON_IsString(v))
        return list_add_commas(o, e, v->valuestring);
    if (cJSON_IsObject(v))
        return set_json_pairs(o, e, v);
    if (!cJSON_IsArray(v))
        return wrong_kind("a list of texts", v);
    for (const cJSON *c = v->child; c != NULL; c = c->next) {
        char number[40];
        const char *text = c->valuestring;
        if (cJSON_IsNumber(c)) {
            (void)snprintf(number, sizeof number, "%.17g", c->valuedouble);
            text = number;
        } else if (!cJSON_IsString(c)) {
            return wrong_kind("a list of texts", c);
        }
        bal_status status = list_add(o, e, text, strlen(text));
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status set_json_by_type(bal_options *o, bal_option_entry *e, const cJSON *v, const char *folder,
                                   bal_option_source source)
{
    switch (e->option->type) {
    case BAL_OPTION_FLAG:
        if (!cJSON_IsBool(v))
            return wrong_kind("true or false", v);
        *(bool *)e->field = cJSON_IsTrue(v) != 0;
        return BAL_OK;
    case BAL_OPTION_INT:
        return cJSON_IsNumber(v) ? set_json_int(e, v) : wrong_kind("a whole number", v);
    case BAL_OPTION_REAL:
        return cJSON_IsNumber(v) ? check_real(e->option, v->valuedouble, e->field) : wrong_kind("a number", v);
    case BAL_OPTION_TEXT:
    case BAL_OPTION_PATH:
    case BAL_OPTION_CHOICE:
        return cJSON_IsString(v) ? set_json_text(o, e, v->valuestring, folder) : wrong_kind("a text", v);
    case BAL_OPTION_LIST:
    case BAL_OPTION_PATHS: {
        bal_status status = set_json_list(o, e, v, source);
        return status == BAL_OK ? paths_of_recipe(o, e, folder) : status;
    }
    }
    return bal_fail(BAL_EINVAL, "option '%s' has no type", e->option->name);
}

bal_status bal_option_set_json(bal_options *o, bal_option_entry *e, const cJSON *value, const char *folder,
                               bal_option_source source)
{
    if (cJSON_IsNull(value))
        return bal_option_reset(o, e);
    bal_status status = set_json_by_type(o, e, value, folder, source);
    if (status == BAL_OK) {
        e->source = source;
        e->set = true;
    }
    return status;
}

bal_status bal_option_reset(bal_options *o, bal_option_entry *e)
{
    const char *text = e->option->default_text;
    e->set = false;
    e->source = BAL_FROM_DEFAULT;
    switch (e->option->type) {
    case BAL_OPTION_FLAG:
        *(bool *)e->field = false;
        break;
    case BAL_OPTION_INT:
        *(int64_t *)e->field = 0;
        break;
    case BAL_OPTION_REAL:
        *(double *)e->field = 0;
        break;
    case BAL_OPTION_TEXT:
    case BAL_OPTION_PATH:
    case BAL_OPTION_CHOICE:
        *(const char **)e->field = NULL;
        break;
    case BAL_OPTION_LIST:
    case BAL_OPTION_PATHS:
        ((bal_text_list *)e->field)->n = 0;
        break;
    }
    if (text == NULL)
        return BAL_OK;
    bal_status status = bal_option_set_text(o, e, text, BAL_FROM_DEFAULT);
    return status == BAL_OK ? BAL_OK : bal_fail_note(status, "default of option '%s'", e->option->name);
}

bal_status bal_option_put_json(const bal_option_entry *e, bal_buf *b)
{
    if (e->option->type == BAL_OPTION_FLAG)
        return bal_buf_text(b, *(const bool *)e->field ? "true" : "false");
    if (!e->set)
        return bal_buf_text(b, "null");
    if (e->option->type == BAL_OPTION_INT)
        return bal_buf_printf(b, "%lld", (long long)*(const int64_t *)e->field);
    if (e->option->type == BAL_OPTION_REAL)
        return bal_json_put_f64(b, *(const double *)e->field);
    if (e->option->type != BAL_OPTION_LIST && e->option->type != BAL_OPTION_PATHS)
        return bal_json_put_text(b, *(const char *const *)e->field);
    const bal_text_list *list = e->field;
    bal_status status = bal_buf_text(b, "[");
    for (size_t i = 0; i < list->n && status == BAL_OK; i++) {
        if (i > 0)
            status = bal_buf_text(b, ", ");
        if (status == BAL_OK)
            status = bal_json_put_text(b, list->items[i]);
    }
    return status == BAL_OK ? bal_buf_text(b, "]") : status;
}
