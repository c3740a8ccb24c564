/* balora analyze spectrum: the true update of every adapted module.  SPDX-License-Identifier: Apache-2.0 */
#include "analyze/analyze.h"

#include "analyze/spectrum.h"
#include "lib/adapter/adapter.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"
#include "lib/model/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_MAX_BYTES = 1 << 20 };

/* The adapted modules as the adapter's own file names them: names and shapes, no weights. */
typedef struct own_modules {
    bal_module *modules;
    bal_view *views;
    char **names;
    size_t n;
} own_modules;

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
    static const char prefix[] = "base_model.model.", suffix_a[] = ".lora_A.weight", suffix_b[] = ".lora_B.weight";
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
        if (!bal_starts_with(a->name, prefix) || !bal_ends_with(a->name, suffix_a) || a->n_dims != 2)
            continue;
        size_t stem = strlen(a->name) - (sizeof suffix_a - 1);
        (void)snprintf(other, sizeof other, "%.*s%s", stem < 480 ? (int)stem : 480, a->name, suffix_b);
        const bal_tensor *b = bal_safetensors_find(file, other);
        if (b == NULL || b->n_dims != 2)
            BAL_TRY(bal_fail(BAL_EFORMAT, "%s: %s has no matching lora_B.weight", path, a->name));
        o->names[o->n] = bal_strndup(a->name + sizeof prefix - 1, stem - (sizeof prefix - 1));
        if (o->names[o->n] == NULL)
            BAL_TRY(BAL_ENOMEM);
        o->views[o->n] = (bal_view){.dtype = BAL_DTYPE_F32, .rows = b->shape[0], .cols = a->shape[1]};
        o->modules[o->n] = (bal_module){o->names[o->n], &o->views[o->n]};
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
static bal_status check_start(const analyze_config *c)
{
    char *path = bal_path_join(c->adapter, "adapter_config.json");
    char *own = bal_path_join(c->adapter, "balora/initial/adapter_model.safetensors");
    cJSON *config = NULL;
    bal_status status = path == NULL || own == NULL ? BAL_ENOMEM : bal_json_read(&config, path, CONFIG_MAX_BYTES);
    const char *init =
        status == BAL_OK ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(config, "init_lora_weights")) : NULL;
    if (init != NULL && strncmp(init, "pissa", 5) == 0 && c->initial_adapter == NULL && c->base == NULL &&
        !bal_file_exists(own))
        status = bal_fail(BAL_EINVAL,
                          "%s is a PiSSA adapter without its initial factors, so B A is not its update; give "
                          "--initial-adapter DIR, or --base MODEL to compute an exact start again",
                          c->adapter);
    cJSON_Delete(config);
    bal_free(path);
    bal_free(own);
    return status;
}

static int64_t layer_of(const char *module)
{
    const char *at = strstr(module, "layers.");
    return at != NULL ? (int64_t)strtol(at + 7, NULL, 10) : -1;
}

static const char *short_name(const char *module)
{
    const char *dot = strrchr(module, '.');
    return dot != NULL ? dot + 1 : module;
}

/* Singular values of one module's update; *n of them (r, or 2r with a residual start). */
static bal_status update_spectrum(const bal_lora *l, double **s, size_t *n, spectrum_stats *stats)
{
    size_t r = bal_lora_hidden(l);
    bal_status status = BAL_OK;
    double *A = bal_alloc(r * l->in, sizeof *A), *B = bal_alloc(r * l->out, sizeof *B);
    size_t smaller = l->in < l->out ? l->in : l->out;
    *n = r < smaller ? r : smaller;
    *s = bal_alloc(r, sizeof **s);
    if (A == NULL || B == NULL || *s == NULL)
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
    BAL_TRY(spectrum_of_update(l->out, l->in, r, A, B, l->scale, *s, NULL, NULL));
    BAL_TRY(spectrum_statistics(l->out, l->in, *s, *n, stats));
out:
    bal_free(A);
    bal_free(B);
    return status;
}

typedef struct output {
    bal_buf json;
    bool first, table;
} output;

static bal_status put_module(output *o, const bal_lora *l, const double *s, size_t n, const spectrum_stats *stats)
{
    double values[SPECTRUM_N_NAMED];
    bool first = true;
    bal_status status = BAL_OK;
    spectrum_named_values(stats, values);
    if (o->table) {
        printf("%-44s %10.4g %10.4g %8.2f %8.2f %8.2f %6.0f %6.0f\n", l->module, stats->frobenius, stats->spectral,
               stats->stable_rank, stats->effective_rank, stats->participation_ratio, stats->rank90, stats->rank99);
        return BAL_OK;
    }
    BAL_TRY(bal_buf_printf(&o->json, "%s{\"module\": ", o->first ? "" : ", "));
    o->first = false;
    BAL_TRY(bal_json_put_text(&o->json, l->module));
    BAL_TRY(bal_buf_printf(&o->json, ", \"m\": %zu, \"n\": %zu, \"r\": %zu, \"scaling\": ", l->out, l->in, l->r));
    BAL_TRY(bal_json_put_f64(&o->json, l->scale));
    BAL_TRY(bal_buf_printf(&o->json, ", \"status\": \"%s\", \"singular_values\": [", stats->status));
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(bal_buf_text(&o->json, i > 0 ? ", " : ""));
        BAL_TRY(bal_json_put_f64(&o->json, s[i]));
    }
    BAL_TRY(bal_buf_text(&o->json, "], \"statistics\": ["));
    for (size_t i = 0; i < SPECTRUM_N_NAMED; i++)
        BAL_TRY(
            analyze_put_number(&o->json, spectrum_names[i], spectrum_conventions[i], values[i], stats->status, &first));
    BAL_TRY(bal_buf_text(&o->json, "]}"));
out:
    return status;
}

static bal_status keep_module(bal_store *store, int64_t run, int64_t step, const bal_lora *l, const double *s, size_t n,
                              const spectrum_stats *stats)
{
    double values[SPECTRUM_N_NAMED];
    spectrum_named_values(stats, values);
    bal_matrix_stat row = {.step = step,
                           .layer = layer_of(l->module),
                           .module = short_name(l->module),
                           .target = "delta",
                           .convention = l->a0 != NULL ? "s(BA - B0A0), QR route, f64" : "sBA, QR route, f64",
                           .dtype = "F32",
                           .status = stats->status,
                           .m = (int64_t)l->out,
                           .n = (int64_t)l->in,
                           .r = (int64_t)l->r,
                           .scaling = l->scale};
    return bal_run_matrix(store, run, &row, spectrum_names, values, SPECTRUM_N_NAMED, s, n);
}

bal_status analyze_spectrum(const analyze_config *c, const bal_common *common, bal_store *store, int64_t run)
{
    own_modules own = {0};
    bal_model *model = NULL;
    bal_adapter *adapter = NULL;
    output o = {.first = true, .table = !common->json};
    char note[512] = "";
    double squares = 0, effective = 0;
    size_t defined = 0;
    bal_status status = BAL_OK;
    if (c->adapter == NULL)
        BAL_TRY(bal_fail(BAL_EINVAL, "--adapter DIR is needed"));
    BAL_TRY(check_start(c));
    if (c->base != NULL)
        BAL_TRY(bal_model_load(&model, c->base));
    else
        BAL_TRY(own_modules_read(&own, c->adapter));
    BAL_TRY(bal_adapter_load(&adapter, c->adapter, c->initial_adapter, model != NULL ? model->modules : own.modules,
                             model != NULL ? model->n_modules : own.n, false, note, sizeof note));
    if (note[0] != '\0')
        bal_log_line(&common->log, BAL_LOG_INFO, "%s", note);
    if (o.table)
        printf("%-44s %10s %10s %8s %8s %8s %6s %6s\n", "update of", "Frobenius", "sigma 1", "stable", "effective",
               "particip", "rank90", "rank99");
    else
        BAL_TRY(bal_buf_text(&o.json, "{\"adapter\": "));
    if (!o.table) {
        BAL_TRY(bal_json_put_text(&o.json, c->adapter));
        BAL_TRY(bal_buf_printf(&o.json, ", \"update\": \"%s\", \"modules\": [",
                               adapter->initial != NULL ? "s(BA - B0A0)" : "sBA"));
    }
    if (store != NULL && run != 0) {
        BAL_TRY(bal_store_begin(store));
        BAL_TRY(bal_run_tag(store, run, "adapter", c->adapter));
    }
    for (size_t i = 0; i < adapter->n_loras; i++) {
        double *s = NULL;
        size_t n = 0;
        spectrum_stats stats;
        status = update_spectrum(&adapter->loras[i], &s, &n, &stats);
        if (status == BAL_OK)
            status = put_module(&o, &adapter->loras[i], s, n, &stats);
        if (status == BAL_OK && store != NULL && run != 0)
            status = keep_module(store, run, c->step, &adapter->loras[i], s, n, &stats);
        if (status == BAL_OK && !isnan(stats.effective_rank)) {
            squares += stats.frobenius * stats.frobenius;
            effective += stats.effective_rank;
            defined++;
        }
        bal_free(s);
        BAL_TRY(status);
    }
    if (store != NULL && run != 0) {
        BAL_TRY(bal_run_metric(store, run, "spectrum/frobenius", 0, sqrt(squares)));
        BAL_TRY(bal_run_metric(store, run, "spectrum/effective_rank", 0,
                               defined > 0 ? effective / (double)defined : (double)NAN));
        BAL_TRY(bal_store_commit(store));
    }
    if (o.table) {
        printf("%zu modules, whole update: Frobenius norm %.4g, mean effective rank %.2f\n", adapter->n_loras,
               sqrt(squares), defined > 0 ? effective / (double)defined : (double)NAN);
    } else {
        BAL_TRY(bal_buf_text(&o.json, "], \"frobenius\": "));
        BAL_TRY(bal_json_put_f64(&o.json, sqrt(squares)));
        BAL_TRY(bal_buf_text(&o.json, "}\n"));
        if (fwrite(o.json.data, 1, o.json.len, stdout) != o.json.len)
            BAL_TRY(bal_fail(BAL_EIO, "standard output cannot be written"));
    }
out:
    if (status != BAL_OK && store != NULL && run != 0)
        bal_store_rollback(store);
    bal_buf_dispose(&o.json);
    bal_adapter_free(adapter);
    bal_model_free(model);
    own_modules_dispose(&own);
    return status;
}
