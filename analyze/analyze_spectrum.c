/* balora analyze spectrum: the true update of every adapted module.  SPDX-License-Identifier: Apache-2.0 */
#include "analyze/analyze.h"

#include "analyze/against_base.h"
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

enum { MAX_VALUES = SPECTRUM_N_NAMED + BASE_N_NAMED };

/* What is known of one module's update: n singular values (r, or 2r with a residual start) and named statistics. */
typedef struct result {
    double *s, *U, *V; /* U, V only against a base */
    size_t n, n_values;
    spectrum_stats stats;
    double values[MAX_VALUES];
} result;

static void result_dispose(result *x)
{
    bal_free(x->s);
    bal_free(x->U);
    bal_free(x->V);
    *x = (result){0};
}

static const char *name_of(size_t i)
{
    return i < SPECTRUM_N_NAMED ? spectrum_names[i] : base_names[i - SPECTRUM_N_NAMED];
}

static const char *convention_of(size_t i)
{
    return i < SPECTRUM_N_NAMED ? spectrum_conventions[i] : base_conventions[i - SPECTRUM_N_NAMED];
}

/* base: the module's weight, or NULL. */
static bal_status update_spectrum(const analyze_config *c, const bal_lora *l, const bal_view *base, result *x)
{
    size_t r = bal_lora_hidden(l);
    bal_status status = BAL_OK;
    double *A = bal_alloc(r * l->in, sizeof *A), *B = bal_alloc(r * l->out, sizeof *B);
    size_t smaller = l->in < l->out ? l->in : l->out;
    x->n = r < smaller ? r : smaller;
    x->s = bal_alloc(r, sizeof *x->s);
    if (A == NULL || B == NULL || x->s == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (base != NULL) {
        x->U = bal_alloc(l->out * r, sizeof *x->U);
        x->V = bal_alloc(l->in * r, sizeof *x->V);
        if (x->U == NULL || x->V == NULL)
            BAL_TRY(BAL_ENOMEM);
    }
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
    BAL_TRY(spectrum_of_update(l->out, l->in, r, A, B, l->scale, x->s, x->U, x->V));
    BAL_TRY(spectrum_statistics(l->out, l->in, x->s, x->n, &x->stats));
    spectrum_named_values(&x->stats, x->values);
    x->n_values = SPECTRUM_N_NAMED;
    if (base != NULL) {
        BAL_TRY(base_named_values(base, r, x->s, x->U, x->V, (size_t)x->stats.numerical_rank, (size_t)c->intruders,
                                  c->intruder_eps, x->values + SPECTRUM_N_NAMED));
        x->n_values = MAX_VALUES;
    }
    bal_free(x->U); /* the vectors of many modules would fill the memory */
    bal_free(x->V);
    x->U = x->V = NULL;
out:
    bal_free(A);
    bal_free(B);
    return status;
}

typedef struct output {
    bal_buf json;
    bool first, table, base;
} output;

/* "-" for what is undefined. */
static void print_value(const char *format, int width, double value)
{
    if (isnan(value))
        printf(" %*s", width, "-");
    else if (format[0] == 'g')
        printf(" %*.4g", width, value);
    else
        printf(" %*.*f", width, format[0] - '0', value);
}

static bal_status put_module(output *o, const bal_lora *l, const result *x)
{
    const spectrum_stats *stats = &x->stats;
    bool first = true;
    bal_status status = BAL_OK;
    if (o->table) {
        printf("%-44s %10.4g %10.4g %8.2f %8.2f %8.2f %6.0f %6.0f", l->module, stats->frobenius, stats->spectral,
               stats->stable_rank, stats->effective_rank, stats->participation_ratio, stats->rank90, stats->rank99);
        if (o->base) {
            const double *v = x->values + SPECTRUM_N_NAMED;
            print_value("g", 10, v[4]);
            print_value("0", 9, v[5]);
            print_value("3", 7, v[7]);
        }
        printf("\n");
        return BAL_OK;
    }
    BAL_TRY(bal_buf_printf(&o->json, "%s{\"module\": ", o->first ? "" : ", "));
    o->first = false;
    BAL_TRY(bal_json_put_text(&o->json, l->module));
    BAL_TRY(bal_buf_printf(&o->json, ", \"m\": %zu, \"n\": %zu, \"r\": %zu, \"scaling\": ", l->out, l->in, l->r));
    BAL_TRY(bal_json_put_f64(&o->json, l->scale));
    BAL_TRY(bal_buf_printf(&o->json, ", \"status\": \"%s\", \"singular_values\": [", stats->status));
    for (size_t i = 0; i < x->n; i++) {
        BAL_TRY(bal_buf_text(&o->json, i > 0 ? ", " : ""));
        BAL_TRY(bal_json_put_f64(&o->json, x->s[i]));
    }
    BAL_TRY(bal_buf_text(&o->json, "], \"statistics\": ["));
    for (size_t i = 0; i < x->n_values; i++)
        BAL_TRY(analyze_put_number(&o->json, name_of(i), convention_of(i), x->values[i], stats->status, &first));
    BAL_TRY(bal_buf_text(&o->json, "]}"));
out:
    return status;
}

static bal_status keep_module(bal_store *store, int64_t run, int64_t step, const bal_lora *l, const result *x)
{
    const char *names[MAX_VALUES];
    for (size_t i = 0; i < x->n_values; i++)
        names[i] = name_of(i);
    bal_matrix_stat row = {.step = step,
                           .layer = layer_of(l->module),
                           .module = short_name(l->module),
                           .target = "delta",
                           .convention = l->a0 != NULL ? "s(BA - B0A0), QR route, f64" : "sBA, QR route, f64",
                           .dtype = "F32",
                           .status = x->stats.status,
                           .m = (int64_t)l->out,
                           .n = (int64_t)l->in,
                           .r = (int64_t)l->r,
                           .scaling = l->scale};
    return bal_run_matrix(store, run, &row, names, x->values, x->n_values, x->s, x->n);
}

static const bal_view *base_of(const bal_model *model, const char *module)
{
    for (size_t i = 0; model != NULL && i < model->n_modules; i++)
        if (strcmp(model->modules[i].name, module) == 0)
            return model->modules[i].w;
    return NULL;
}

static void print_head(bool base)
{
    printf("%-44s %10s %10s %8s %8s %8s %6s %6s", "update of", "Frobenius", "sigma 1", "stable", "effective",
           "particip", "rank90", "rank99");
    if (base)
        printf(" %10s %9s %7s", "amplific.", "intruders", "energy");
    printf("\n");
}

/* Everything is computed before anything is printed or written: the database is not held meanwhile. */
static bal_status compute_all(const analyze_config *c, const bal_common *common, const bal_adapter *adapter,
                              const bal_model *model, result *list)
{
    bal_progress bar;
    bal_status status = BAL_OK;
    bal_progress_start(&bar, &common->log, "spectrum", "modules", adapter->n_loras, common->progress && model != NULL);
    for (size_t i = 0; i < adapter->n_loras; i++) {
        const bal_lora *l = &adapter->loras[i];
        BAL_TRY(update_spectrum(c, l, base_of(model, l->module), &list[i]));
        bal_progress_update(&bar, i + 1, NULL);
    }
    bal_progress_done(&bar);
out:
    return status;
}

/* Over all modules. */
typedef struct whole {
    double frobenius, effective_rank; /* of the whole update; mean over the modules where it is defined */
} whole;

static whole whole_of(const result *list, size_t n)
{
    double squares = 0, effective = 0;
    size_t defined = 0;
    for (size_t i = 0; i < n; i++)
        if (!isnan(list[i].stats.effective_rank)) {
            squares += list[i].stats.frobenius * list[i].stats.frobenius;
            effective += list[i].stats.effective_rank;
            defined++;
        }
    return (whole){sqrt(squares), defined > 0 ? effective / (double)defined : (double)NAN};
}

static bal_status keep_all(const analyze_config *c, bal_store *store, int64_t run, const bal_adapter *adapter,
                           const result *list, const whole *w)
{
    bal_status status = bal_store_begin(store);
    if (status != BAL_OK)
        return status;
    BAL_TRY(bal_run_tag(store, run, "adapter", c->adapter));
    for (size_t i = 0; i < adapter->n_loras; i++)
        BAL_TRY(keep_module(store, run, c->step, &adapter->loras[i], &list[i]));
    BAL_TRY(bal_run_metric(store, run, "spectrum/frobenius", 0, w->frobenius));
    BAL_TRY(bal_run_metric(store, run, "spectrum/effective_rank", 0, w->effective_rank));
    return bal_store_commit(store);
out:
    bal_store_rollback(store);
    return status;
}

static bal_status print_all(output *o, const analyze_config *c, const bal_adapter *adapter, const result *list,
                            const whole *w)
{
    bal_status status = BAL_OK;
    if (o->table) {
        print_head(o->base);
    } else {
        BAL_TRY(bal_buf_text(&o->json, "{\"adapter\": "));
        BAL_TRY(bal_json_put_text(&o->json, c->adapter));
        BAL_TRY(bal_buf_printf(&o->json, ", \"update\": \"%s\", \"modules\": [",
                               adapter->initial != NULL ? "s(BA - B0A0)" : "sBA"));
    }
    for (size_t i = 0; i < adapter->n_loras; i++)
        BAL_TRY(put_module(o, &adapter->loras[i], &list[i]));
    if (o->table) {
        printf("%zu modules, whole update: Frobenius norm %.4g, mean effective rank %.2f\n", adapter->n_loras,
               w->frobenius, w->effective_rank);
        return BAL_OK;
    }
    BAL_TRY(bal_buf_text(&o->json, "], \"frobenius\": "));
    BAL_TRY(bal_json_put_f64(&o->json, w->frobenius));
    if (o->base)
        BAL_TRY(bal_buf_printf(&o->json, ", \"intruder_k\": %lld, \"intruder_eps\": %.17g", (long long)c->intruders,
                               c->intruder_eps));
    BAL_TRY(bal_buf_text(&o->json, "}\n"));
    if (fwrite(o->json.data, 1, o->json.len, stdout) != o->json.len)
        BAL_TRY(bal_fail(BAL_EIO, "standard output cannot be written"));
out:
    return status;
}

bal_status analyze_spectrum(const analyze_config *c, const bal_common *common, bal_store *store, int64_t run)
{
    own_modules own = {0};
    bal_model *model = NULL;
    bal_adapter *adapter = NULL;
    result *list = NULL;
    output o = {.first = true, .table = !common->json, .base = c->base != NULL};
    char note[512] = "";
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
    list = bal_alloc(adapter->n_loras + 1, sizeof *list);
    BAL_TRY(list == NULL ? BAL_ENOMEM : compute_all(c, common, adapter, model, list));
    const whole w = whole_of(list, adapter->n_loras);
    if (store != NULL && run != 0)
        BAL_TRY(keep_all(c, store, run, adapter, list, &w));
    status = print_all(&o, c, adapter, list, &w);
out:
    for (size_t i = 0; list != NULL && i < adapter->n_loras; i++)
        result_dispose(&list[i]);
    bal_free(list);
    bal_buf_dispose(&o.json);
    bal_adapter_free(adapter);
    bal_model_free(model);
    own_modules_dispose(&own);
    return status;
}
