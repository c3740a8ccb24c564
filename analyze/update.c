/* SPDX-License-Identifier: Apache-2.0 */
#include "analyze/update.h"

#include "analyze/spectrum.h"
#include "lib/adapter/method.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_MAX_BYTES = 1 << 20 };

static void own_modules_dispose(own_modules *o)
{
    for (size_t i = 0; i < o->n; i++)
        bal_free(o->names[i]);
    bal_free(o->names);
    bal_free(o->views);
    bal_free(o->modules);
}

static bal_status own_modules_read(own_modules *o, const char *dir)
{
    static const char prefix[] = "base_model.model.", mark[] = ".lora_A"; /* then ".weight", in AdaLoRA nothing */
    bal_safetensors *file = NULL;
    char *path = bal_path_join(dir, "adapter_model.safetensors");
    bal_status status = path == NULL ? BAL_ENOMEM : bal_safetensors_open(&file, path);
    size_t count = status == BAL_OK ? bal_safetensors_count(file) : 0;
    if (status != BAL_OK)
        goto out;
    o->modules = bal_alloc(count + 1, sizeof *o->modules);
    o->views = bal_alloc(count + 1, sizeof *o->views);
    o->names = bal_alloc(count + 1, sizeof *o->names);
    if (o->modules == NULL || o->views == NULL || o->names == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < count; i++) {
        const bal_tensor *a = bal_safetensors_at(file, i);
        char other[512];
        const char *rest = strstr(a->name, mark);
        if (!bal_starts_with(a->name, prefix) || rest == NULL || a->n_dims != 2 ||
            (strcmp(rest, ".lora_A.weight") != 0 && strcmp(rest, mark) != 0))
            continue;
        size_t stem = (size_t)(rest - a->name);
        (void)snprintf(other, sizeof other, "%.*s.lora_B%s", stem < 480 ? (int)stem : 480, a->name,
                       rest + sizeof mark - 1);
        const bal_tensor *b = bal_safetensors_find(file, other);
        if (b == NULL || b->n_dims != 2)
            BAL_TRY(bal_fail(BAL_EFORMAT, "%s: %s has no matching lora_B", path, a->name));
        o->names[o->n] = bal_strndup(a->name + sizeof prefix - 1, stem - (sizeof prefix - 1));
        if (o->names[o->n] == NULL)
            BAL_TRY(BAL_ENOMEM);
        o->views[o->n] = (bal_view){.dtype = BAL_DTYPE_F32, .rows = b->shape[0], .cols = a->shape[1]};
        o->modules[o->n] = (bal_module){.name = o->names[o->n], .w = &o->views[o->n]};
        o->n++;
    }
    if (o->n == 0)
        BAL_TRY(bal_fail(BAL_EFORMAT,
                         "%s: no tensor named ...lora_A.weight; only LoRA-like adapters have a spectrum here", path));
out:
    bal_safetensors_close(file);
    bal_free(path);
    return status;
}

/* Without the base's weights a PiSSA start cannot be computed again: it must be at hand. */
static bal_status check_start(const char *dir, const char *initial, const char *base)
{
    char *path = bal_path_join(dir, "adapter_config.json");
    char *own = bal_path_join(dir, "balora/initial/adapter_model.safetensors");
    cJSON *config = NULL;
    bal_status status = path == NULL || own == NULL ? BAL_ENOMEM : bal_json_read(&config, path, CONFIG_MAX_BYTES);
    const char *init =
        status == BAL_OK ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(config, "init_lora_weights")) : NULL;
    if (init != NULL && strncmp(init, "pissa", 5) == 0 && initial == NULL && base == NULL && !bal_file_exists(own))
        status = bal_fail(BAL_EINVAL,
                          "%s is a PiSSA adapter without its initial factors, so B A is not its update; give "
                          "--initial-adapter DIR, or --base MODEL to compute an exact start again",
                          dir);
    cJSON_Delete(config);
    bal_free(path);
    bal_free(own);
    return status;
}

bal_status analyzed_open(analyzed *a, const char *dir, const char *initial, const char *base, const bal_log *log)
{
    char note[512] = "";
    bal_status status;
    *a = (analyzed){0};
    BAL_TRY(check_start(dir, initial, base));
    if (base != NULL)
        BAL_TRY(bal_model_load(&a->model, base));
    else
        BAL_TRY(own_modules_read(&a->own, dir));
    BAL_TRY(bal_adapter_load(&a->adapter, dir, initial, base != NULL ? a->model->modules : a->own.modules,
                             base != NULL ? a->model->n_modules : a->own.n, false, note, sizeof note));
    if (bal_method_of(&a->adapter->config)->plain != NULL) {
        bal_adapter *plain = NULL;
        BAL_TRY(bal_adapter_to_plain(&plain, a->adapter));
        bal_adapter_free(a->adapter);
        a->adapter = plain;
    }
    if (!bal_method_of(&a->adapter->config)->low_rank || !bal_method_of(&a->adapter->config)->additive)
        BAL_TRY(
            bal_fail(BAL_EUNSUPPORTED,
                     "%s is a %s adapter, whose update has no low-rank factors to analyse; merge it and compare the "
                     "models",
                     dir, bal_method_of(&a->adapter->config)->title));
    if (note[0] != '\0')
        bal_log_line(log, BAL_LOG_INFO, "%s", note);
out:
    if (status != BAL_OK)
        analyzed_close(a);
    return status;
}

void analyzed_close(analyzed *a)
{
    bal_adapter_free(a->adapter);
    bal_model_free(a->model);
    own_modules_dispose(&a->own);
    *a = (analyzed){0};
}

const bal_view *analyzed_base(const analyzed *a, const char *module)
{
    for (size_t i = 0; a->model != NULL && i < a->model->n_modules; i++)
        if (a->model->modules[i].kind == BAL_MODULE_LINEAR && /* an embedding lies the other way round */
            strcmp(a->model->modules[i].name, module) == 0)
            return a->model->modules[i].w;
    return NULL;
}

int64_t module_layer(const char *module)
{
    const char *at = strstr(module, "layers.");
    return at != NULL ? (int64_t)strtol(at + 7, NULL, 10) : -1;
}

const char *module_short(const char *module)
{
    const char *dot = strrchr(module, '.');
    return dot != NULL ? dot + 1 : module;
}

bal_status update_directions(const bal_lora *l, double *s, double *U, double *V)
{
    size_t r = bal_lora_hidden(l);
    bal_status status = BAL_OK;
    double *A = bal_alloc(r * l->in, sizeof *A), *B = bal_alloc(r * l->out, sizeof *B);
    if (A == NULL || B == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < l->r * l->in; i++) {
        A[i] = (double)l->a[i];
        if (l->a0 != NULL)
            A[l->r * l->in + i] = (double)l->a0[i];
    }
    for (size_t i = 0; i < l->out; i++)
        for (size_t j = 0; j < l->r; j++) {
            B[i * r + j] = (double)l->b[i * l->r + j];
            if (l->b0 != NULL)
                B[i * r + l->r + j] = -(double)l->b0[i * l->r + j];
        }
    for (size_t i = 0; i < r * l->in; i++)
        if (!isfinite(A[i]))
            BAL_TRY(bal_fail(BAL_ENUMERIC, "%s: lora_A holds %g at element %zu", l->module, A[i], i));
    for (size_t i = 0; i < r * l->out; i++)
        if (!isfinite(B[i]))
            BAL_TRY(bal_fail(BAL_ENUMERIC, "%s: lora_B holds %g at element %zu", l->module, B[i], i));
    BAL_TRY(spectrum_of_update(l->out, l->in, r, A, B, l->scale, s, U, V));
out:
    bal_free(A);
    bal_free(B);
    return status;
}
