/* Curves over the steps of training runs.  SPDX-License-Identifier: Apache-2.0 */
#include "reports/report.h"

#include "lib/base/mem.h"

#include <math.h>
#include <string.h>

enum { MANY = 40 }; /* points from which on a line needs no marks, and a noisy one a moving average */

typedef struct panel {
    const char *metric, *label;
    bool scheduled; /* what a schedule says, not a measurement: drawn as it is, an average would be another schedule */
} panel;

/* Writes "step value smoothed" of every run that has the metric; which[i] marks them.  Returns how many. */
static bal_status write_series(report *r, const char *stem, const char *metric, bool *which, size_t *n_series,
                               size_t *n_points)
{
    bal_writer w = {0};
    sqlite3_stmt *q = NULL;
    bal_status status = BAL_OK;
    *n_series = *n_points = 0;
    BAL_TRY(report_dat_open(r, &w, stem));
    BAL_TRY(bal_store_prepare(r->store,
                              "SELECT step, value FROM metric JOIN metric_key ON metric_key.id = metric.key_id "
                              "WHERE run_id = ?1 AND metric_key.name = ?2 ORDER BY step",
                              &q));
    for (size_t i = 0; i < r->n_runs; i++) {
        bool row = false, any = false;
        double smooth = (double)NAN;
        (void)sqlite3_reset(q);
        (void)sqlite3_bind_int64(q, 1, r->runs[i].id);
        (void)sqlite3_bind_text(q, 2, metric, -1, SQLITE_STATIC);
        which[i] = false;
        size_t points = 0;
        while ((status = bal_store_step(r->store, q, &row)) == BAL_OK && row) {
            double value = sqlite3_column_type(q, 1) == SQLITE_NULL ? (double)NAN : sqlite3_column_double(q, 1);
            if (!any)
                (void)bal_writer_printf(&w, "# %s of run %lld\n", metric, (long long)r->runs[i].id);
            any = true;
            if (isfinite(value)) {
                smooth = isfinite(smooth) ? 0.9 * smooth + 0.1 * value : value;
                points++;
            }
            (void)bal_writer_printf(&w, "%lld", (long long)sqlite3_column_int64(q, 0));
            report_put_number(&w, value);
            report_put_number(&w, smooth);
            (void)bal_writer_write(&w, "\n", 1);
        }
        if (status != BAL_OK)
            goto out;
        which[i] = points > 0;
        *n_points = points > *n_points ? points : *n_points;
        if (any)
            BAL_TRY(bal_writer_printf(&w, "\n\n")); /* gnuplot: the next index */
        else
            BAL_TRY(bal_writer_printf(&w, "# run %lld has none\n0\t?\t?\n\n\n", (long long)r->runs[i].id));
        *n_series += which[i];
    }
    status = bal_writer_commit(&w);
out:
    (void)sqlite3_finalize(q);
    bal_writer_abort(&w);
    return status;
}

/* One panel's plot command: raw values faint, smoothed ones strong when there are enough of them. */
static bal_status put_panel(report *r, bal_writer *w, const char *dat, const panel *p, const bool *which, size_t points,
                            bool keys)
{
    bool first = true, smooth = points >= MANY && !p->scheduled;
    bal_status status = bal_writer_printf(w, "set ylabel '%s'\nplot ", p->label);
    for (int pass = smooth ? 0 : 1; pass < 2; pass++)
        for (size_t i = 0, drawn = 0; i < r->n_runs && status == BAL_OK; i++) {
            if (!which[i])
                continue;
            drawn++;
            status = bal_writer_printf(w, "%s'%s.dat' index %zu using 1:%d with %s lc rgb '%s%s' lw %s dt %zu",
                                       first ? "" : ", \\\n  ", dat, i,
                                       pass == 0 ? 2
                                       : smooth  ? 3
                                                 : 2,
                                       points >= MANY ? "lines" : "linespoints pt 7 ps 0.4", pass == 0 ? "#70" : "#",
                                       report_color(r->runs[i].color) + 1, pass == 0 ? "1" : "2",
                                       pass == 0 ? (size_t)1 : report_dash(drawn - 1));
            first = false;
            if (status == BAL_OK && pass == 1 && keys) {
                status = bal_writer_printf(w, " title ");
                if (status == BAL_OK)
                    status = report_gp_text(w, r->runs[i].name);
            } else if (status == BAL_OK) {
                status = bal_writer_printf(w, " notitle");
            }
        }
    return status == BAL_OK ? bal_writer_printf(w, "\n") : status;
}

/* A figure of panels one below the other; panels without data are left out, a figure without panels too. */
static bal_status figure(report *r, const char *stem, const char *title, const char *caption, const panel *panels,
                         size_t n)
{
    bool which[8][REPORT_MAX_RUNS];
    size_t series[8], points[8], used = 0, drawn = 0;
    char dat[8][64];
    bal_writer w = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && i < 8; i++) {
        (void)snprintf(dat[i], sizeof dat[i], "%s-%zu", stem, i + 1);
        BAL_TRY(write_series(r, dat[i], panels[i].metric, which[i], &series[i], &points[i]));
        used += series[i] > 0;
    }
    if (used == 0)
        return BAL_OK;
    BAL_TRY(report_gp_open(r, &w, stem, 900, 60 + 260 * (int)used));
    BAL_TRY(bal_writer_printf(&w, "set multiplot layout %zu,1\nset lmargin 12\nset rmargin 24\n", used));
    for (size_t i = 0; i < n && i < 8; i++) {
        if (series[i] == 0)
            continue;
        drawn++;
        BAL_TRY(bal_writer_printf(&w, "%s\n", drawn == used ? "set xlabel 'optimiser step'" : "unset xlabel"));
        BAL_TRY(put_panel(r, &w, dat[i], &panels[i], which[i], points[i], drawn == 1 || used <= 3));
    }
    BAL_TRY(bal_writer_printf(&w, "unset multiplot\n"));
    BAL_TRY(bal_writer_commit(&w));
    status = report_plot(r, stem, title, caption);
out:
    bal_writer_abort(&w);
    return status;
}

bal_status report_curves(report *r)
{
    static const panel loss[] = {{"loss/task", "task loss (nats a token)", false},
                                 {"loss/validation", "validation loss", false}};
    static const panel terms[] = {{"loss/consistency", "consistency (before its weight)", false},
                                  {"loss/diversity", "diversity", false},
                                  {"loss/spectral", "spectral", false}};
    static const panel strengths[] = {{"lambda/consistency", "lambda consistency", true},
                                      {"lambda/diversity", "lambda diversity", true},
                                      {"lambda/svd", "lambda svd", true}};
    static const panel optimiser[] = {{"lr", "learning rate", true}, {"grad_norm", "gradient norm", false}};
    bal_status status = figure(r, "loss", "Training loss",
                               "Mean cross entropy of the labelled tokens of each step. Faint: each step; strong: "
                               "moving average (weight 0.1).",
                               loss, 2);
    if (status == BAL_OK)
        status = figure(
            r, "regularisers", "The three terms",
            "Values before their weights: consistency is T² KL to the frozen model, diversity minus the entropy of the "
            "largest logits, spectral minus the share of the leading singular values. All three are being minimised, "
            "so "
            "they show that training works, not that inheritance is reduced.",
            terms, 3);
    if (status == BAL_OK)
        status = figure(r, "strengths", "Strength of the terms", "Weights after their schedules.", strengths, 3);
    if (status == BAL_OK)
        status = figure(r, "optimiser", "Optimiser", "Learning rate, and gradient norm before clipping.", optimiser, 2);
    return status;
}
