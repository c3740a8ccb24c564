/* Reading a checkpoint back.  SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STATE_MAX_BYTES = 1 << 20 };

/* Options that may differ when a run goes on: they say where and how often, not what. */
static bool may_differ(const char *key)
{
    static const char *const free_keys[] = {"resume",
                                            "stop_after",
                                            "out",
                                            "metrics_out",
                                            "overwrite",
                                            "save_steps",
                                            "save_seconds",
                                            "log_steps",
                                            "store",
                                            "db",
                                            "threads",
                                            "memory_check",
                                            "save_total_limit",
                                            "name",
                                            "experiment",
                                            "quiet",
                                            "verbose",
                                            "progress",
                                            "json",
                                            "config",
                                            "preset",
                                            "model",
                                            "data",
                                            "tokenizer",
                                            "model_config",
                                            "dtype",
                                            "adapter",
                                            "init_adapter",
                                            "initial_adapter",
                                            "validation_data",
                                            "calibration_data",
                                            "reference_model",
                                            "teacher_cache",
                                            "checkpoint_activations"};
    for (size_t i = 0; i < sizeof free_keys / sizeof *free_keys; i++)
        if (strcmp(key, free_keys[i]) == 0)
            return true;
    return false;
}

/* As bal_json_put() writes it. */
static bal_status put_default(const trainer *t, const char *name, bal_buf *out)
{
    bal_buf text = {0};
    cJSON *json = NULL;
    bal_status status;
    BAL_TRY(bal_options_default(t->options, name, &text));
    BAL_TRY(bal_json_parse(&json, bal_buf_cstr(&text), text.len, name));
    status = bal_json_put(out, json, false);
out:
    cJSON_Delete(json);
    bal_buf_dispose(&text);
    return status;
}

static bal_status compare_recipes(const trainer *t, const cJSON *then, const cJSON *now)
{
    for (const cJSON *v = now->child; v != NULL; v = v->next) {
        const cJSON *old = cJSON_GetObjectItemCaseSensitive(then, v->string);
        bal_buf a = {0}, b = {0};
        bal_status status = may_differ(v->string) ? BAL_OK : bal_json_put(&b, v, false);
        if (status == BAL_OK && !may_differ(v->string)) /* what the recipe leaves out has its default */
            status = old != NULL ? bal_json_put(&a, old, false) : put_default(t, v->string, &a);
        if (status == BAL_OK && strcmp(bal_buf_cstr(&a), bal_buf_cstr(&b)) != 0)
            status = bal_fail(BAL_EINVAL,
                              "cannot resume from %s: %s was %.80s and is %.80s now; give the same value, or --resume "
                              "none",
                              t->resume_from, v->string, bal_buf_cstr(&a), bal_buf_cstr(&b));
        bal_buf_dispose(&a);
        bal_buf_dispose(&b);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status check_recipe(const trainer *t)
{
    bal_status status = BAL_OK;
    cJSON *then = NULL, *now = NULL;
    const char *text = bal_options_json(t->options);
    char *path = bal_path_join(t->resume_from, "balora/recipe.json");
    if (path == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_json_read(&then, path, STATE_MAX_BYTES));
    BAL_TRY(bal_json_parse(&now, text, strlen(text), "options"));
    BAL_TRY(compare_recipes(t, then, now));
out:
    cJSON_Delete(then);
    cJSON_Delete(now);
    bal_free(path);
    return status;
}

static bal_status read_count(const cJSON *state, const char *path, const char *key, uint64_t *out)
{
    int64_t value = 0;
    bool found = false;
    bal_status status = bal_json_i64(state, path, key, 0, INT64_C(9007199254740991), &value, &found);
    if (status == BAL_OK && !found)
        status = bal_fail(BAL_EFORMAT, "%s: key '%s' is missing", path, key);
    *out = (uint64_t)value;
    return status;
}

static bal_status read_rng(const cJSON *state, const char *path, bal_rng *out)
{
    const char *text = NULL;
    bal_status status = bal_json_text(state, path, "dropout", &text, NULL);
    if (status != BAL_OK)
        return status;
    const char *at = text != NULL ? text : "";
    for (size_t i = 0; i < 4; i++) {
        char *end = NULL;
        out->s[i] = strtoull(at, &end, 16);
        if (end != at + (i > 0) + 16) /* "0123456789abcdef" four times, a space between */
            return bal_fail(BAL_EFORMAT, "%s: key 'dropout' must hold four hexadecimal numbers", path);
        at = end;
    }
    return BAL_OK;
}

static bal_status open_state(const trainer *t, cJSON **out, char **path)
{
    *path = bal_path_join(t->resume_from, "balora/state.json");
    return *path == NULL ? BAL_ENOMEM : bal_json_read(out, *path, STATE_MAX_BYTES);
}

bal_status checkpoint_read_state(trainer *t)
{
    bal_status status = BAL_OK;
    cJSON *state = NULL;
    char *path = NULL;
    const char *uuid = NULL;
    train_state *s = &t->state;
    s->best_validation = (double)NAN;
    if (t->resume_from == NULL)
        return BAL_OK;
    BAL_TRY(check_recipe(t));
    BAL_TRY(open_state(t, &state, &path));
    const struct {
        const char *key;
        uint64_t *value;
    } counts[] = {{"step", &s->step},
                  {"position", &s->position},
                  {"skipped_steps", &s->skipped_steps},
                  {"undefined_spectral", &s->undefined_spectral},
                  {"tokens", &s->tokens},
                  {"rows", &s->rows},
                  {"best_step", &s->best_step},
                  {"evaluations_without_gain", &s->evaluations_without_gain}};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        BAL_TRY(read_count(state, path, counts[i].key, counts[i].value));
    BAL_TRY(bal_json_f64(state, path, "seconds", &s->seconds, NULL));
    BAL_TRY(bal_json_f64(state, path, "best_validation", &s->best_validation, NULL));
    BAL_TRY(read_rng(state, path, &s->dropout));
    BAL_TRY(bal_json_text(state, path, "run", &uuid, NULL));
    if (uuid != NULL && strlen(uuid) == 32)
        memcpy(t->metrics.uuid, uuid, 33);
out:
    cJSON_Delete(state);
    bal_free(path);
    return status;
}

static bal_status read_values(const bal_safetensors *f, const char *name, size_t n, real_t *out)
{
    const bal_tensor *x = bal_safetensors_find(f, name);
    bal_view v;
    if (x == NULL || x->n_elements != n)
        return bal_fail(BAL_EFORMAT, "the checkpoint's trainer_state.safetensors has no '%s' of %zu values", name, n);
    bal_status status = bal_tensor_view(x, &v);
    if (status == BAL_OK)
        bal_view_dequant(&v, 0, v.rows, out, v.cols);
    return status;
}

/* The run must be the same that the checkpoint was written in: parameters, micro-batches, records. */
static bal_status check_same(trainer *t)
{
    bal_status status = BAL_OK;
    cJSON *state = NULL;
    char *path = NULL;
    const char *hash = NULL;
    char now[65];
    uint64_t parameters = 0, micro = 0, max_steps = 0;
    BAL_TRY(open_state(t, &state, &path));
    BAL_TRY(read_count(state, path, "parameters", &parameters));
    BAL_TRY(read_count(state, path, "micro_batch_size", &micro));
    BAL_TRY(read_count(state, path, "max_steps", &max_steps));
    BAL_TRY(read_count(state, path, "updates", &t->step.adamw.t));
    BAL_TRY(bal_json_text(state, path, "data_sha256", &hash, NULL));
    bal_sha256_hex(t->data.ids, t->data.n_tokens * sizeof *t->data.ids, now);
    if (parameters != t->params->n)
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s was written with %" PRIu64 " trainable parameters, this run has %zu",
                         t->resume_from, parameters, t->params->n));
    if (hash == NULL || strcmp(hash, now) != 0 || micro != t->micro_size || max_steps != t->max_steps)
        BAL_TRY(bal_fail(
            BAL_EINVAL,
            "%s was written with other records (%s) or another plan of batches; give the same data and tokenizer, or "
            "--resume none",
            t->resume_from, t->config->data));
out:
    cJSON_Delete(state);
    bal_free(path);
    return status;
}

bal_status checkpoint_read_tensors(trainer *t)
{
    bal_status status = BAL_OK;
    bal_safetensors *f = NULL;
    bal_adamw *o = &t->step.adamw;
    char *path = bal_path_join(t->resume_from, "balora/trainer_state.safetensors");
    if (path == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(check_same(t));
    BAL_TRY(bal_safetensors_open(&f, path));
    BAL_TRY(read_values(f, "adamw.m", o->n, o->m));
    BAL_TRY(read_values(f, "adamw.v", o->n, o->v));
    if (t->adapter != NULL && t->adapter->n_history > 0)
        BAL_TRY(read_values(f, "method", t->adapter->n_history, t->adapter->history));
    if (t->full)
        BAL_TRY(read_values(f, "values", t->params->n, t->params->values));
    *bal_pass_rng(t->step.pass) = t->state.dropout;
out:
    bal_safetensors_close(f);
    bal_free(path);
    return status;
}
