/* balora analyze spectrum: the true update of every adapted module.  SPDX-License-Identifier: Apache-2.0 */
#include "analyze/analyze.h"

#include "analyze/against_base.h"
#include "analyze/spectrum.h"
#include "analyze/update.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"

#include <math.h>

enum { MAX_VALUES = SPECTRUM_N_NAMED + BASE_N_NAMED };

/* What is known of one module's update: n singular values (r, or 2r with a residual start) and named statistics. */
typedef struct result {
    double *s;
    size_t n, n_values;
    spectrum_stats stats;
    double values[MAX_VALUES];
} result;

static void result_dispose(result *x)
{
    bal_free(x->s);
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
    size_t r = bal_lora_hidden(l), smaller = l->in < l->out ? l->in : l->out;
    bal_status status = BAL_OK;
    double *U = base != NULL ? bal_alloc(l->out * r, sizeof *U) : NULL,
           *V = base != NULL ? bal_alloc(l->in * r, sizeof *V) : NULL;
    x->n = r < smaller ? r : smaller;
    x->s = bal_alloc(r, sizeof *x->s);
    if (x->s == NULL || (base != NULL && (U == NULL || V == NULL)))
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(update_directions(l, x->s, U, V));
    BAL_TRY(spectrum_statistics(l->out, l->in, x->s, x->n, &x->stats));
    spectrum_named_values(&x->stats, x->values);
    x->n_values = SPECTRUM_N_NAMED;
    if (base != NULL) {
        BAL_TRY(base_named_values(base, r, x->s, U, V, (size_t)x->stats.numerical_rank, (size_t)c->intruders,
                                  c->intruder_eps, x->values + SPECTRUM_N_NAMED));
        x->n_values = MAX_VALUES;
    }
out:
    bal_free(U);
    bal_free(V);
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
                           .layer = module_layer(l->module),
                           .module = module_short(l->module),
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

static void print_head(bool base)
{
    printf("%-44s %10s %10s %8s %8s %8s %6s %6s", "update of", "Frobenius", "sigma 1", "stable", "effective",
           "particip", "rank90", "rank99");
    if (base)
        printf(" %10s %9s %7s", "amplific.", "intruders", "energy");
    printf("\n");
}

/* Everything is computed before anything is printed or written: the database is not held meanwhile. */
static bal_status compute_all(const analyze_config *c, const bal_common *common, const analyzed *a, result *list)
{
    bal_progress bar;
    bal_status status = BAL_OK;
    bal_progress_start(&bar, &common->log, "spectrum", "modules", a->adapter->n_loras,
                       common->progress && a->model != NULL);
    for (size_t i = 0; i < a->adapter->n_loras; i++) {
        const bal_lora *l = &a->adapter->loras[i];
        BAL_TRY(update_spectrum(c, l, analyzed_base(a, l->module), &list[i]));
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
    analyzed a = {0};
    result *list = NULL;
    output o = {.first = true, .table = !common->json, .base = c->base != NULL};
    bal_status status = BAL_OK;
    if (c->adapter == NULL)
        return bal_fail(BAL_EINVAL, "--adapter DIR is needed");
    BAL_TRY(analyzed_open(&a, c->adapter, c->initial_adapter, c->base, &common->log));
    list = bal_alloc(a.adapter->n_loras + 1, sizeof *list);
    BAL_TRY(list == NULL ? BAL_ENOMEM : compute_all(c, common, &a, list));
    const whole w = whole_of(list, a.adapter->n_loras);
    if (store != NULL && run != 0)
        BAL_TRY(keep_all(c, store, run, a.adapter, list, &w));
    status = print_all(&o, c, a.adapter, list, &w);
out:
    for (size_t i = 0; list != NULL && i < a.adapter->n_loras; i++)
        result_dispose(&list[i]);
    bal_free(list);
    bal_buf_dispose(&o.json);
    analyzed_close(&a);
    return status;
}
