/* adapter_config.json of peft: what we read and what we refuse (peft_config_write.c writes it).
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/peft.h"

#include "lib/adapter/adapter_impl.h"
#include "lib/adapter/method.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_RANK = 1 << 20, MAX_TARGETS = 100000 };

/* Features that change what the factors mean; a file that uses one of them must not be read as if it did not. */
static const char *const REFUSED[] = {
    "trainable_token_indices", "layer_replication", "target_parameters", "use_qalora",    "use_bdlora",
    "alora_invocation_tokens", "arrow_config",      "kasa_config",       "velora_config", "monteclora_config"};
/* Starts that leave the frozen weights as they are. */
static const char *const PLAIN_STARTS[] = {"gaussian", "eva", "orthogonal", "mica"};

static bool in_use(const cJSON *v)
{
    if (v == NULL || cJSON_IsNull(v) || cJSON_IsFalse(v))
        return false;
    return !((cJSON_IsObject(v) || cJSON_IsArray(v)) && cJSON_GetArraySize(v) == 0);
}

/* The method that a file is of: the row with its peft_type whose flag is set, else the one without a flag. */
static const bal_method *find_method(const cJSON *json, const char *type)
{
    const bal_method *plain = NULL;
    for (size_t i = 0; i < bal_method_count(); i++) {
        const bal_method *m = bal_method_at(i);
        if (strcmp(m->peft_type, type) != 0)
            continue;
        if (m->flag != NULL && cJSON_IsTrue(bal_json_member(json, m->flag)))
            return m;
        if (m->flag == NULL)
            plain = m;
    }
    return plain;
}

static bal_status unknown_type(const char *where, const char *type)
{
    bal_buf known = {0};
    for (size_t i = 0; i < bal_method_count(); i++)
        if (bal_method_at(i)->flag == NULL)
            (void)bal_buf_printf(&known, "%s%s", known.len > 0 ? ", " : "", bal_method_at(i)->peft_type);
    bal_status status = bal_fail(BAL_EUNSUPPORTED, "%s: peft_type is %.60s; adapters of these kinds are read: %s",
                                 where, type != NULL ? type : "missing", bal_buf_cstr(&known));
    bal_buf_dispose(&known);
    return status;
}

static bal_status check_features(const cJSON *json, const char *where, bal_adapter_config *c)
{
    const char *type = NULL, *bias = NULL;
    bal_status status = bal_json_text(json, where, "peft_type", &type, NULL);
    if (status != BAL_OK)
        return status;
    c->method = type != NULL ? find_method(json, type) : NULL;
    if (c->method == NULL)
        return unknown_type(where, type);
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++)
        if (in_use(bal_json_member(json, REFUSED[i])))
            return bal_fail(BAL_EUNSUPPORTED,
                            "%s uses '%s', which is not supported yet; merge the adapter with peft first", where,
                            REFUSED[i]);
    if (c->method->flag != NULL && in_use(bal_json_member(json, "lora_bias"))) /* as peft */
        return bal_fail(BAL_EUNSUPPORTED, "%s: lora_bias cannot go with %s", where, c->method->flag);
    if (c->method->biases) /* elsewhere peft knows no such key, and drops it */
        status = bal_json_text(json, where, "bias", &bias, NULL);
    if (status == BAL_OK && bias != NULL && bal_ends_with(bias, "_only")) /* lora_only, vera_only: peft takes any */
        bias = "lora_only";
    if (status == BAL_OK && bias != NULL && !bal_bias_parse(bias, &c->bias))
        return bal_fail(BAL_EFORMAT, "%s: bias is '%.60s'; it must be none, all or lora_only", where, bias);
    if (status == BAL_OK && (c->method->lacks & BAL_NO_TYING) == 0)
        status = bal_json_bool(json, where, "ensure_weight_tying", &c->ensure_weight_tying, NULL);
    return status;
}

/* A list of texts, or NULL and 0 for null. */
static bal_status read_list(const cJSON *json, const char *where, const char *key, char ***out, size_t *n_out)
{
    const cJSON *v = bal_json_member(json, key), *item;
    if (v == NULL || cJSON_IsNull(v))
        return BAL_OK;
    int n = cJSON_IsArray(v) ? cJSON_GetArraySize(v) : 0;
    if (!cJSON_IsArray(v) || n > MAX_TARGETS)
        return bal_fail(BAL_EFORMAT, "%s: key '%s' must be a list of at most %d names", where, key, MAX_TARGETS);
    *out = bal_alloc((size_t)n, sizeof **out); // NOLINT(bugprone-sizeof-expression): an array of pointers
    if (*out == NULL)
        return BAL_ENOMEM;
    for (item = v->child; item != NULL; item = item->next) {
        if (!cJSON_IsString(item))
            return bal_fail(BAL_EFORMAT, "%s: key '%s' must be a list of names", where, key);
        if (((*out)[*n_out] = bal_strdup(item->valuestring)) == NULL)
            return BAL_ENOMEM;
        ++*n_out;
    }
    return BAL_OK;
}

/* The method's own keys. */
static bal_status read_keys(const cJSON *json, const char *where, bal_adapter_config *c)
{
    bal_status status = BAL_OK;
    bal_adapter_config_defaults(c);
    for (size_t i = 0; i < BAL_METHOD_KEYS && c->method->keys[i].name != NULL; i++) {
        const bal_method_key *k = &c->method->keys[i];
        const char *text = NULL;
        bool is = c->keys[i].number != 0;
        switch (k->type) {
        case BAL_KEY_NUMBER:
            BAL_TRY(bal_json_f64(json, where, k->name, &c->keys[i].number, NULL));
            if (!(c->keys[i].number >= k->least && c->keys[i].number <= k->most))
                BAL_TRY(bal_fail(BAL_EFORMAT, "%s: key '%s' is %g; it must lie in [%g, %g]", where, k->name,
                                 c->keys[i].number, k->least, k->most));
            break;
        case BAL_KEY_BOOL:
            BAL_TRY(bal_json_bool(json, where, k->name, &is, NULL));
            c->keys[i].number = is;
            break;
        case BAL_KEY_TEXT:
            BAL_TRY(bal_json_text(json, where, k->name, &text, NULL));
            if (text != NULL && (c->keys[i].text = bal_strdup(text)) == NULL)
                BAL_TRY(BAL_ENOMEM);
            break;
        case BAL_KEY_LIST:
            BAL_TRY(read_list(json, where, k->name, &c->keys[i].list, &c->keys[i].n_list));
            break;
        }
    }
out:
    return status;
}

static bal_status read_start(const cJSON *json, const char *where, peft_config *out)
{
    const char *key = out->config.method->init_key;
    const cJSON *v = key != NULL ? bal_json_member(json, key) : NULL;
    const char *name = "lora";
    bal_start start;
    if (!out->config.method->low_rank) { /* how the values were drawn does not matter once they are read */
        (void)snprintf(out->config.init, sizeof out->config.init, "%s", name);
        return BAL_OK;
    }
    if (v != NULL && cJSON_IsString(v))
        name = v->valuestring;
    else if (v != NULL && !cJSON_IsBool(v))
        return bal_fail(BAL_EFORMAT, "%s: key '%s' must be true, false or a name", where, key);
    if (strlen(name) >= sizeof out->config.init)
        return bal_fail(BAL_EFORMAT, "%s: init_lora_weights '%.60s' is not a known start", where, name);
    (void)snprintf(out->config.init, sizeof out->config.init, "%s", name);
    out->residual = bal_start_parse(name, &start) && bal_start_is_residual(start.kind);
    out->redo = out->residual && bal_start_can_be_redone(start.kind);
    bool plain = strcmp(name, "lora") == 0 || strcmp(name, "true") == 0;
    for (size_t i = 0; i < sizeof PLAIN_STARTS / sizeof *PLAIN_STARTS; i++)
        plain = plain || strcmp(name, PLAIN_STARTS[i]) == 0;
    out->unknown_start = !plain && !out->residual;
    if (plain && strcmp(name, "gaussian") != 0) /* how A was drawn does not matter once it is read */
        (void)snprintf(out->config.init, sizeof out->config.init, "lora");
    return BAL_OK;
}

/* A list of names, or one text that is a regular expression. */
static bal_status read_names(const cJSON *json, const char *where, const char *key, char ***list, size_t *n,
                             char **pattern)
{
    const cJSON *v = bal_json_member(json, key);
    if (v == NULL || !cJSON_IsString(v))
        return read_list(json, where, key, list, n);
    *pattern = bal_strdup(v->valuestring);
    return *pattern == NULL ? BAL_ENOMEM : BAL_OK;
}

static bal_status read_layers(const cJSON *json, const char *where, bal_adapter_config *c)
{
    const cJSON *v = bal_json_member(json, "layers_to_transform");
    if (v == NULL)
        return BAL_OK;
    bool array = cJSON_IsArray(v);
    int n = array ? cJSON_GetArraySize(v) : 1;
    if (n > MAX_TARGETS)
        return bal_fail(BAL_ELIMIT, "%s: layers_to_transform has %d entries; at most %d are read", where, n,
                        MAX_TARGETS);
    c->layers_to_transform = bal_alloc((size_t)n, sizeof *c->layers_to_transform);
    if (c->layers_to_transform == NULL)
        return BAL_ENOMEM;
    for (const cJSON *item = array ? v->child : v; item != NULL; item = array ? item->next : NULL) {
        double d = cJSON_IsNumber(item) ? item->valuedouble : -1;
        if (!(d >= 0 && d < 1e6 && floor(d) == d))
            return bal_fail(BAL_EFORMAT, "%s: key 'layers_to_transform' must hold layer numbers", where);
        c->layers_to_transform[c->n_layers_to_transform++] = (size_t)d;
    }
    return BAL_OK;
}

/* layers_pattern: a text or a list, of names of the list of layers. */
static bal_status read_layers_pattern(const cJSON *json, const char *where, bal_adapter_config *c)
{
    const cJSON *v = bal_json_member(json, "layers_pattern");
    if (v == NULL || !cJSON_IsString(v))
        return read_list(json, where, "layers_pattern", &c->layers_pattern, &c->n_layers_pattern);
    c->layers_pattern = bal_alloc(1, sizeof *c->layers_pattern); // NOLINT(bugprone-sizeof-expression): of pointers
    if (c->layers_pattern == NULL || (c->layers_pattern[0] = bal_strdup(v->valuestring)) == NULL)
        return BAL_ENOMEM;
    c->n_layers_pattern = 1;
    return BAL_OK;
}

static bal_status read_pattern(const cJSON *json, const char *where, const char *key, bool whole,
                               bal_pattern_value **out, size_t *n_out)
{
    const cJSON *v = bal_json_member(json, key);
    if (v == NULL)
        return BAL_OK;
    int n = cJSON_IsObject(v) ? cJSON_GetArraySize(v) : MAX_TARGETS + 1;
    if (n > MAX_TARGETS)
        return bal_fail(BAL_EFORMAT, "%s: key '%s' must be an object of at most %d numbers", where, key, MAX_TARGETS);
    *out = bal_alloc((size_t)n, sizeof **out);
    if (*out == NULL)
        return BAL_ENOMEM;
    for (const cJSON *item = v->child; item != NULL; item = item->next) {
        double d = cJSON_IsNumber(item) ? item->valuedouble : 0;
        if (!(d > 0 && d <= MAX_RANK && (!whole || floor(d) == d)))
            return bal_fail(BAL_EFORMAT, "%s: key '%s' holds no %s for '%.200s'", where, key,
                            whole ? "rank" : "positive number", item->string);
        if (((*out)[*n_out].pattern = bal_strdup(item->string)) == NULL)
            return BAL_ENOMEM;
        (*out)[(*n_out)++].value = d;
    }
    return BAL_OK;
}

/* AdaLoRA's rank_pattern: "<module>.lora_E" (old files: with the adapter's name behind it) and a list of truths. */
static bal_status read_kept(const cJSON *json, const char *where, bal_adapter_config *c)
{
    static const char tail[] = ".lora_E";
    const cJSON *v = bal_json_member(json, "rank_pattern");
    if (v == NULL)
        return BAL_OK;
    int n = cJSON_IsObject(v) ? cJSON_GetArraySize(v) : 0;
    if (!cJSON_IsObject(v) || n > MAX_TARGETS)
        return bal_fail(BAL_EFORMAT, "%s: key 'rank_pattern' must be an object of at most %d members", where,
                        MAX_TARGETS);
    c->kept = bal_alloc((size_t)n, sizeof *c->kept);
    if (c->kept == NULL)
        return BAL_ENOMEM;
    for (const cJSON *item = v->child; item != NULL; item = item->next) {
        const char *end = strstr(item->string, tail);
        int size = cJSON_IsArray(item) ? cJSON_GetArraySize(item) : 0;
        bal_kept *k = &c->kept[c->n_kept];
        if (end == NULL || (end[sizeof tail - 1] != '\0' && end[sizeof tail - 1] != '.') || size == 0 ||
            size > MAX_RANK)
            return bal_fail(BAL_EFORMAT, "%s: rank_pattern '%.200s' must be <module>.lora_E with a list of truths",
                            where, item->string);
        c->n_kept++;
        k->module = bal_strndup(item->string, (size_t)(end - item->string));
        k->kept = bal_alloc((size_t)size, sizeof *k->kept);
        if (k->module == NULL || k->kept == NULL)
            return BAL_ENOMEM;
        for (const cJSON *b = item->child; b != NULL; b = b->next) {
            if (!cJSON_IsBool(b))
                return bal_fail(BAL_EFORMAT, "%s: rank_pattern '%.200s' must hold true and false alone", where,
                                item->string);
            k->kept[k->n++] = cJSON_IsTrue(b);
        }
    }
    return BAL_OK;
}

static bal_status read_targets(const cJSON *json, const char *where, peft_config *out)
{
    bal_adapter_config *c = &out->config;
    bal_status status;
    BAL_TRY(read_names(json, where, "target_modules", &c->target_modules, &c->n_target_modules, &c->target_pattern));
    if (c->target_pattern != NULL && strcmp(c->target_pattern, "all-linear") == 0) { /* peft writes names for it */
        c->target_modules = bal_alloc(1, sizeof *c->target_modules); // NOLINT(bugprone-sizeof-expression): of pointers
        if (c->target_modules == NULL)
            BAL_TRY(BAL_ENOMEM);
        c->target_modules[c->n_target_modules++] = c->target_pattern;
        c->target_pattern = NULL;
    }
    out->exact_targets = c->target_pattern != NULL || c->n_target_modules > 0;
    unsigned lacks = c->method->lacks;
    if ((lacks & BAL_NO_EXCLUDE) == 0)
        BAL_TRY(read_names(json, where, "exclude_modules", &c->exclude_modules, &c->n_exclude_modules,
                           &c->exclude_pattern));
    if ((lacks & BAL_NO_LAYERS) == 0) {
        BAL_TRY(read_layers(json, where, c));
        BAL_TRY(read_layers_pattern(json, where, c));
    }
    BAL_TRY(read_list(json, where, "modules_to_save", &c->modules_to_save, &c->n_modules_to_save));
    if (c->method->finished != NULL) /* the ranks that were left, not a choice */
        BAL_TRY(read_kept(json, where, c));
    if ((lacks & BAL_NO_PATTERNS) != 0)
        return BAL_OK;
    BAL_TRY(read_pattern(json, where, "rank_pattern", true, &c->rank_pattern, &c->n_rank_pattern));
    BAL_TRY(read_pattern(json, where, "alpha_pattern", false, &c->alpha_pattern, &c->n_alpha_pattern));
out:
    return status;
}

static bal_status read_numbers(const cJSON *json, const char *where, bal_adapter_config *c)
{
    bal_status status = BAL_OK;
    const bal_method *m = c->method;
    int64_t r = m->no_rank ? 1 : m->default_r > 0 ? (int64_t)m->default_r : 8; /* peft's defaults for absent keys */
    c->lora_alpha = 8;
    if (!m->no_rank)
        BAL_TRY(bal_json_i64(json, where, m->rank_key != NULL ? m->rank_key : "r", 1, MAX_RANK, &r, NULL));
    if (m->alpha_key != NULL)
        BAL_TRY(bal_json_f64(json, where, m->alpha_key, &c->lora_alpha, NULL));
    if (m->dropout_key != NULL)
        BAL_TRY(bal_json_f64(json, where, m->dropout_key, &c->lora_dropout, NULL));
    if ((m->lacks & BAL_NO_RSLORA) == 0)
        BAL_TRY(bal_json_bool(json, where, "use_rslora", &c->use_rslora, NULL));
    c->r = (size_t)r;
    if (m->rank_key != NULL && c->lora_alpha <= 0) /* as peft's AdaLoRA */
        c->lora_alpha = (double)r;
    if (!(isfinite(c->lora_alpha) && c->lora_alpha > 0))
        status = bal_fail(BAL_EFORMAT, "%s: %s is %g; it must be a positive number", where,
                          m->alpha_key != NULL ? m->alpha_key : "alpha", c->lora_alpha);
    else if (!(c->lora_dropout >= 0 && c->lora_dropout < 1))
        status = bal_fail(BAL_EFORMAT, "%s: lora_dropout is %g; it must lie in [0, 1)", where, c->lora_dropout);
out:
    return status;
}

static bal_status read_texts(const cJSON *json, const char *where, bal_adapter_config *c)
{
    const char *task = NULL, *model = NULL;
    bal_status status = bal_json_text(json, where, "task_type", &task, NULL);
    if (status == BAL_OK)
        status = bal_json_text(json, where, "base_model_name_or_path", &model, NULL);
    (void)snprintf(c->task_type, sizeof c->task_type, "%.15s", task != NULL ? task : "");
    if (status == BAL_OK && model != NULL && (c->base_model = bal_strdup(model)) == NULL)
        status = BAL_ENOMEM;
    return status;
}

bal_status bal_peft_config_read(peft_config *out, const char *dir)
{
    bal_status status = BAL_OK;
    cJSON *json = NULL;
    *out = (peft_config){0};
    char *path = bal_path_join(dir, "adapter_config.json");
    if (path == NULL)
        return BAL_ENOMEM;
    BAL_TRY(bal_json_read(&json, path, MAX_CONFIG_BYTES));
    if (!cJSON_IsObject(json))
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s is not a JSON object", path));
    BAL_TRY(check_features(json, path, &out->config));
    BAL_TRY(read_keys(json, path, &out->config));
    BAL_TRY(read_numbers(json, path, &out->config));
    BAL_TRY(read_texts(json, path, &out->config));
    BAL_TRY(read_start(json, path, out));
    BAL_TRY(read_targets(json, path, out));
out:
    cJSON_Delete(json);
    bal_free(path);
    if (status != BAL_OK)
        bal_peft_config_dispose(out);
    return status;
}

void bal_peft_config_dispose(peft_config *c)
{
    bal_adapter_config_dispose(&c->config);
    *c = (peft_config){0};
}
