/* adapter_config.json of peft: what we read, what we refuse, and the portable set of keys that we write (old peft
 * stops at a key it does not know, so only long-lived ones are written).  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/peft.h"

#include "lib/adapter/adapter_impl.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CONFIG_BYTES = 16 << 20, MAX_RANK = 1 << 20, MAX_TARGETS = 100000 };

/* Features that change what the factors mean; a file that uses one of them must not be read as if it did not. */
static const char *const REFUSED[] = {"use_dora",
                                      "lora_bias",
                                      "rank_pattern",
                                      "alpha_pattern",
                                      "modules_to_save",
                                      "trainable_token_indices",
                                      "layer_replication",
                                      "target_parameters",
                                      "use_qalora",
                                      "use_bdlora",
                                      "alora_invocation_tokens",
                                      "arrow_config",
                                      "kasa_config",
                                      "velora_config",
                                      "monteclora_config"};
/* Starts that leave the frozen weights as they are. */
static const char *const PLAIN_STARTS[] = {"gaussian", "eva", "orthogonal", "mica"};

static bool in_use(const cJSON *v)
{
    if (v == NULL || cJSON_IsNull(v) || cJSON_IsFalse(v))
        return false;
    return !((cJSON_IsObject(v) || cJSON_IsArray(v)) && cJSON_GetArraySize(v) == 0);
}

static bal_status check_features(const cJSON *json, const char *where)
{
    const char *type = NULL, *bias = NULL;
    bal_status status = bal_json_text(json, where, "peft_type", &type, NULL);
    if (status != BAL_OK)
        return status;
    if (type == NULL || strcmp(type, "LORA") != 0)
        return bal_fail(BAL_EUNSUPPORTED, "%s: peft_type is %s; only LORA adapters are supported", where,
                        type != NULL ? type : "missing");
    for (size_t i = 0; i < sizeof REFUSED / sizeof *REFUSED; i++)
        if (in_use(bal_json_member(json, REFUSED[i])))
            return bal_fail(BAL_EUNSUPPORTED,
                            "%s uses '%s', which is not supported yet; merge the adapter with peft first", where,
                            REFUSED[i]);
    status = bal_json_text(json, where, "bias", &bias, NULL);
    if (status == BAL_OK && bias != NULL && strcmp(bias, "none") != 0)
        return bal_fail(BAL_EUNSUPPORTED, "%s: bias '%s' is not supported; only \"none\" is", where, bias);
    return status;
}

static bal_status read_start(const cJSON *json, const char *where, peft_config *out)
{
    const cJSON *v = bal_json_member(json, "init_lora_weights");
    const char *name = "lora";
    bal_start start;
    if (v != NULL && cJSON_IsString(v))
        name = v->valuestring;
    else if (v != NULL && !cJSON_IsBool(v))
        return bal_fail(BAL_EFORMAT, "%s: key 'init_lora_weights' must be true, false or a name", where);
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

static bal_status add_target(bal_adapter_config *c, const char *name)
{
    c->target_modules[c->n_target_modules] = bal_strdup(name);
    if (c->target_modules[c->n_target_modules] == NULL)
        return BAL_ENOMEM;
    c->n_target_modules++;
    return BAL_OK;
}

static bal_status read_targets(const cJSON *json, const char *where, peft_config *out)
{
    const cJSON *v = bal_json_member(json, "target_modules"), *item;
    bal_adapter_config *c = &out->config;
    out->exact_targets = v != NULL && cJSON_IsArray(v) && !in_use(bal_json_member(json, "layers_to_transform")) &&
                         !in_use(bal_json_member(json, "exclude_modules"));
    if (v == NULL || cJSON_IsString(v)) /* a regular expression, or peft's default: the tensors say what is adapted */
        return BAL_OK;
    if (!cJSON_IsArray(v))
        return bal_fail(BAL_EFORMAT, "%s: key 'target_modules' must be a list of names", where);
    int n = cJSON_GetArraySize(v);
    if (n > MAX_TARGETS)
        return bal_fail(BAL_ELIMIT, "%s: target_modules has %d entries; at most %d are read", where, n, MAX_TARGETS);
    c->target_modules = bal_alloc((size_t)n, sizeof *c->target_modules);
    if (c->target_modules == NULL)
        return BAL_ENOMEM;
    for (item = v->child; item != NULL; item = item->next) {
        if (!cJSON_IsString(item))
            return bal_fail(BAL_EFORMAT, "%s: key 'target_modules' must be a list of names", where);
        bal_status status = add_target(c, item->valuestring);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status read_numbers(const cJSON *json, const char *where, bal_adapter_config *c)
{
    bal_status status = BAL_OK;
    int64_t r = 8;
    c->lora_alpha = 8; /* peft's defaults for absent keys */
    BAL_TRY(bal_json_i64(json, where, "r", 1, MAX_RANK, &r, NULL));
    BAL_TRY(bal_json_f64(json, where, "lora_alpha", &c->lora_alpha, NULL));
    BAL_TRY(bal_json_f64(json, where, "lora_dropout", &c->lora_dropout, NULL));
    BAL_TRY(bal_json_bool(json, where, "use_rslora", &c->use_rslora, NULL));
    c->r = (size_t)r;
    if (!(isfinite(c->lora_alpha) && c->lora_alpha > 0))
        status = bal_fail(BAL_EFORMAT, "%s: lora_alpha is %g; it must be a positive number", where, c->lora_alpha);
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
    BAL_TRY(check_features(json, path));
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
    for (size_t i = 0; i < c->config.n_target_modules; i++)
        bal_free(c->config.target_modules[i]);
    bal_free(c->config.target_modules);
    bal_free(c->config.base_model);
    *c = (peft_config){0};
}

static int compare_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* "all-linear" is written as the names it stood for, so that it means the same modules in any peft. */
static bal_status put_targets(bal_buf *b, const bal_adapter *a)
{
    const bal_adapter_config *c = &a->config;
    bool expand = c->n_target_modules == 1 && strcmp(c->target_modules[0], "all-linear") == 0;
    size_t n = 0, most = expand ? a->n_loras : c->n_target_modules;
    const char **names = bal_alloc(most, sizeof *names);
    if (names == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < most; i++) {
        const char *name = expand ? a->loras[i].module : c->target_modules[i], *dot = strrchr(name, '.');
        if (expand && dot != NULL)
            name = dot + 1;
        bool seen = false;
        for (size_t j = 0; j < n && !seen; j++)
            seen = strcmp(names[j], name) == 0;
        if (!seen)
            names[n++] = name;
    }
    qsort(names, n, sizeof *names, compare_text);
    bal_status status = bal_buf_text(b, "[");
    for (size_t i = 0; i < n && status == BAL_OK; i++) {
        status = bal_buf_text(b, i > 0 ? ",\n    " : "\n    ");
        if (status == BAL_OK)
            status = bal_json_put_text(b, names[i]);
    }
    if (status == BAL_OK)
        status = bal_buf_text(b, n > 0 ? "\n  ]" : "]");
    bal_free(names);
    return status;
}

static bal_status put_text_or_null(bal_buf *b, const char *text)
{
    return text != NULL && text[0] != '\0' ? bal_json_put_text(b, text) : bal_buf_text(b, "null");
}

static bal_status put_start(bal_buf *b, const char *init)
{
    return strcmp(init, "lora") == 0 ? bal_buf_text(b, "true") : bal_json_put_text(b, init);
}

static bal_status put_number(bal_buf *b, const char *before, double value)
{
    bal_status status = bal_buf_text(b, before);
    return status == BAL_OK ? bal_json_put_f64(b, value) : status;
}

static bal_status put_config(bal_buf *b, const bal_adapter *a, const char *init)
{
    const bal_adapter_config *c = &a->config;
    bal_status status = BAL_OK;
    BAL_TRY(bal_buf_text(b, "{\n  \"auto_mapping\": null,\n  \"base_model_name_or_path\": "));
    BAL_TRY(put_text_or_null(b, c->base_model));
    BAL_TRY(bal_buf_text(b, ",\n  \"bias\": \"none\",\n  \"fan_in_fan_out\": "));
    BAL_TRY(bal_buf_text(b, c->fan_in_fan_out ? "true" : "false"));
    BAL_TRY(bal_buf_text(b, ",\n  \"inference_mode\": true,\n  \"init_lora_weights\": "));
    BAL_TRY(put_start(b, init));
    BAL_TRY(put_number(
        b, ",\n  \"layers_pattern\": null,\n  \"layers_to_transform\": null,\n  \"lora_alpha\": ", c->lora_alpha));
    BAL_TRY(put_number(b, ",\n  \"lora_dropout\": ", c->lora_dropout));
    BAL_TRY(bal_buf_printf(b,
                           ",\n  \"modules_to_save\": null,\n  \"peft_type\": \"LORA\",\n  \"r\": %zu,\n"
                           "  \"revision\": null,\n  \"target_modules\": ",
                           c->r));
    BAL_TRY(put_targets(b, a));
    BAL_TRY(bal_buf_text(b, ",\n  \"task_type\": "));
    BAL_TRY(put_text_or_null(b, c->task_type));
    BAL_TRY(bal_buf_text(b, c->use_rslora ? ",\n  \"use_rslora\": true\n}\n" : "\n}\n"));
out:
    return status;
}

bal_status bal_peft_config_write(const bal_adapter *a, const char *init, const char *path)
{
    bal_buf b = {0};
    bal_status status = put_config(&b, a, init);
    if (status == BAL_OK)
        status = bal_file_replace(path, b.data, b.len);
    bal_buf_dispose(&b);
    return status;
}
