/* Spectra and heat maps of updates.  SPDX-License-Identifier: Apache-2.0 */
#include "reports/report.h"

#include "lib/base/mem.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_INDEX = 512, MAX_MODULES = 4096, MAX_KINDS = 16 };

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(const double *sorted, size_t n, double q)
{
    double at = q * (double)(n - 1);
    size_t i = (size_t)at;
    return i + 1 < n ? sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

/* Over the modules of a run: lower decile, median, upper decile of the i-th singular value. */
static bal_status write_quantiles(report *r, bal_writer *w, int64_t run, size_t *n_modules)
{
    sqlite3_stmt *q = NULL;
    bool row = false;
    double *values = bal_alloc((size_t)MAX_INDEX * MAX_MODULES, sizeof *values);
    size_t *count = bal_alloc(MAX_INDEX, sizeof *count);
    bal_status status = BAL_OK;
    *n_modules = 0;
    if (values == NULL || count == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_store_prepare(
        r->store,
        "SELECT sv FROM spectrum JOIN matrix_stat ON matrix_stat.id = matrix_stat_id WHERE run_id = ?1 "
        "AND target = 'delta' ORDER BY layer, module",
        &q));
    (void)sqlite3_bind_int64(q, 1, run);
    while ((status = bal_store_step(r->store, q, &row)) == BAL_OK && row && *n_modules < MAX_MODULES) {
        const void *blob = sqlite3_column_blob(q, 0);
        size_t n = blob != NULL ? (size_t)sqlite3_column_bytes(q, 0) / sizeof(double) : 0;
        for (size_t i = 0; i < n && i < MAX_INDEX; i++)
            memcpy(&values[i * MAX_MODULES + count[i]++], (const char *)blob + i * sizeof(double), sizeof(double));
        (*n_modules)++;
    }
    if (status != BAL_OK)
        goto out;
    double floor_at = 0; /* what lies 1e-12 below the largest value is rounding and would stretch the axis */
    for (size_t i = 0; i < MAX_INDEX && count[i] > 0; i++) {
        double *v = values + i * MAX_MODULES;
        qsort(v, count[i], sizeof *v, by_value);
        if (i == 0)
            floor_at = 1e-9 * v[count[0] - 1];
        double median = quantile(v, count[i], 0.5);
        if (!(median > floor_at))
            break;
        (void)bal_writer_printf(w, "%zu", i + 1);
        report_put_number(w, fmax(quantile(v, count[i], 0.1), floor_at));
        report_put_number(w, median);
        report_put_number(w, quantile(v, count[i], 0.9));
        (void)bal_writer_write(w, "\n", 1);
    }
    status = bal_writer_printf(w, "\n\n");
out:
    (void)sqlite3_finalize(q);
    bal_free(values);
    bal_free(count);
    return status;
}

static bal_status spectrum_figure(report *r, size_t *drawn)
{
    bal_writer dat = {0}, gp = {0};
    bool which[REPORT_MAX_RUNS] = {false};
    bal_status status = BAL_OK;
    *drawn = 0;
    BAL_TRY(report_dat_open(r, &dat, "spectra"));
    for (size_t i = 0; i < r->n_runs; i++) {
        size_t n = 0;
        BAL_TRY(bal_writer_printf(&dat, "# run %lld: index, lower decile, median, upper decile over modules\n",
                                  (long long)r->runs[i].id));
        BAL_TRY(write_quantiles(r, &dat, r->runs[i].id, &n));
        if (n == 0)
            BAL_TRY(bal_writer_printf(&dat, "1\t?\t?\t?\n\n\n")); /* keeps the numbering of the data sets */
        which[i] = n > 0;
        *drawn += n > 0;
    }
    BAL_TRY(bal_writer_commit(&dat));
    if (*drawn == 0)
        return BAL_OK;
    BAL_TRY(report_gp_open(r, &gp, "spectra", 900, 480));
    BAL_TRY(bal_writer_printf(&gp,
                              "set logscale y\nset format y '10^{%%L}'\nset xlabel 'index i of the singular value'\n"
                              "set ylabel 'singular value of the update'\nplot "));
    bool first = true;
    for (size_t i = 0, n = 0; i < r->n_runs; i++)
        if (which[i]) {
            /* an empty run still fills data set i, but write_quantiles ends each with two blank lines */
            BAL_TRY(bal_writer_printf(
                &gp,
                "%s'spectra.dat' index %zu using 1:2:4 with filledcurves fs transparent solid "
                "0.15 noborder lc rgb '%s' notitle, \\\n"
                "  '' index %zu using 1:3 with linespoints pt %zu ps 0.6 lw 2 dt %zu lc rgb '%s' title ",
                first ? "" : ", \\\n  ", i, report_color(r->runs[i].color), i, 4 + i % 8, report_dash(n++),
                report_color(r->runs[i].color)));
            BAL_TRY(report_gp_text(&gp, r->runs[i].name));
            first = false;
        }
    BAL_TRY(bal_writer_printf(&gp, "\n"));
    BAL_TRY(bal_writer_commit(&gp));
    status = report_plot(
        r, "spectra", "Singular values of the update",
        "The true update of each adapted matrix (for PiSSA and BA-LoRA the difference from the start, of rank 2r). "
        "Line: median over "
        "the matrices; band: first to ninth decile. A steep fall means that few directions carry the update.");
out:
    bal_writer_abort(&dat);
    bal_writer_abort(&gp);
    return status;
}

/* Kinds of modules in the order of a block, then others as they come. */
static bal_status module_kinds(report *r, char kinds[MAX_KINDS][48], size_t *n)
{
    sqlite3_stmt *q = NULL;
    bool row = false;
    *n = 0;
    bal_status status = bal_store_prepare(
        r->store,
        "SELECT module FROM matrix_stat WHERE target = 'delta' GROUP BY module ORDER BY "
        "CASE module WHEN 'q_proj' THEN 1 WHEN 'k_proj' THEN 2 WHEN 'v_proj' THEN 3 WHEN 'o_proj' THEN 4 "
        "WHEN 'gate_proj' THEN 5 WHEN 'up_proj' THEN 6 WHEN 'down_proj' THEN 7 ELSE 8 END, module",
        &q);
    while (status == BAL_OK && (status = bal_store_step(r->store, q, &row)) == BAL_OK && row && *n < MAX_KINDS)
        (void)snprintf(kinds[(*n)++], 48, "%s", (const char *)sqlite3_column_text(q, 0));
    (void)sqlite3_finalize(q);
    return status;
}

/* The matrix of one run: a row for each layer, a column for each kind; range of the values in *low, *high. */
static bal_status write_heat(report *r, size_t i, const char *value, char kinds[MAX_KINDS][48], size_t n_kinds,
                             double *low, double *high, int64_t *layers, bool *any)
{
    bal_writer w = {0};
    sqlite3_stmt *q = NULL;
    char stem[64];
    bool row = false;
    bal_status status = BAL_OK;
    *any = false;
    (void)snprintf(stem, sizeof stem, "heat-%s-%zu", value, i + 1);
    BAL_TRY(report_dat_open(r, &w, stem));
    BAL_TRY(
        bal_store_prepare(r->store,
                          "SELECT layer, module, matrix_value.value FROM matrix_stat JOIN matrix_value ON "
                          "matrix_stat.id = matrix_stat_id "
                          "WHERE run_id = ?1 AND target = 'delta' AND matrix_value.name = ?2 ORDER BY layer, module",
                          &q));
    (void)sqlite3_bind_int64(q, 1, r->runs[i].id);
    (void)sqlite3_bind_text(q, 2, value, -1, SQLITE_STATIC);
    while ((status = bal_store_step(r->store, q, &row)) == BAL_OK && row) {
        const char *module = (const char *)sqlite3_column_text(q, 1);
        size_t k = 0;
        while (k < n_kinds && strcmp(kinds[k], module) != 0)
            k++;
        double v = sqlite3_column_type(q, 2) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(q, 2);
        if (k == n_kinds)
            continue;
        (void)bal_writer_printf(&w, "%zu\t%lld", k, (long long)sqlite3_column_int64(q, 0));
        report_put_number(&w, v);
        (void)bal_writer_write(&w, "\n", 1);
        if (sqlite3_column_int64(q, 0) > *layers)
            *layers = sqlite3_column_int64(q, 0);
        if (isfinite(v)) {
            *low = fmin(*low, v);
            *high = fmax(*high, v);
            *any = true;
        }
    }
    if (status == BAL_OK)
        status = bal_writer_commit(&w);
out:
    (void)sqlite3_finalize(q);
    bal_writer_abort(&w);
    return status;
}

static bal_status heat_figure(report *r, const char *value, const char *label, const char *title, const char *caption)
{
    char kinds[MAX_KINDS][48], stem[48];
    bool which[REPORT_MAX_RUNS] = {false};
    size_t n_kinds = 0, panels = 0;
    int64_t layers = 0;
    double low = (double)INFINITY, high = -(double)INFINITY;
    bal_writer w = {0};
    bal_status status = BAL_OK;
    BAL_TRY(module_kinds(r, kinds, &n_kinds));
    for (size_t i = 0; i < r->n_runs; i++) {
        BAL_TRY(write_heat(r, i, value, kinds, n_kinds, &low, &high, &layers, &which[i]));
        panels += which[i];
    }
    if (panels == 0)
        return BAL_OK;
    (void)snprintf(stem, sizeof stem, "heat-%s", value);
    size_t columns = panels < 3 ? panels : 3, rows = (panels + 2) / 3;
    BAL_TRY(report_gp_open(r, &w, stem, 120 + 300 * (int)columns, 60 + 420 * (int)rows));
    BAL_TRY(bal_writer_printf(&w,
                              "set multiplot layout %zu,%zu\nset palette defined (0 '#440154', 0.25 '#3b528b', 0.5 "
                              "'#21918c', 0.75 '#5ec962', 1 '#fde725')\n"
                              "set cbrange [%.9g:%.9g]\nunset key\nunset grid\nset border 15\nset cblabel '%s'\nset "
                              "yrange [-0.5:%lld.5]\nset ytics %d\n"
                              "set xrange [-0.5:%zu.5]\nset ylabel 'layer'\nset xtics rotate by -45 noenhanced (",
                              rows, columns, low, high > low ? high : low + 1, label, (long long)layers,
                              layers > 12 ? 5 : 1, n_kinds - 1));
    for (size_t k = 0; k < n_kinds; k++) {
        if (k > 0)
            BAL_TRY(bal_writer_printf(&w, ", "));
        BAL_TRY(report_gp_text(&w, kinds[k]));
        BAL_TRY(bal_writer_printf(&w, " %zu", k));
    }
    BAL_TRY(bal_writer_printf(&w, ")\n"));
    for (size_t i = 0; i < r->n_runs; i++)
        if (which[i]) {
            BAL_TRY(bal_writer_printf(&w, "set title "));
            BAL_TRY(report_gp_text(&w, r->runs[i].name));
            BAL_TRY(bal_writer_printf(&w,
                                      " noenhanced\nplot 'heat-%s-%zu.dat' using 1:2:(0.5):(0.5):3 with boxxyerror fs "
                                      "solid noborder lc palette\n",
                                      value, i + 1));
        }
    BAL_TRY(bal_writer_printf(&w, "unset multiplot\n"));
    BAL_TRY(bal_writer_commit(&w));
    status = report_plot(r, stem, title, caption);
out:
    bal_writer_abort(&w);
    return status;
}

bal_status report_spectra(report *r)
{
    size_t drawn = 0;
    bal_status status = spectrum_figure(r, &drawn);
    if (status != BAL_OK || drawn == 0)
        return status;
    status = heat_figure(r, "frobenius", "Frobenius norm", "Size of the update by layer and module",
                         "Frobenius norm of each update; the colour scale is the same for all runs.");
    if (status == BAL_OK)
        status = heat_figure(r, "effective_rank", "effective rank", "Effective rank of the update by layer and module",
                             "exp of the entropy of the normalised singular values (Roy, Vetterli 2007); at most r for "
                             "LoRA, 2r for PiSSA and BA-LoRA.");
    return status;
}
