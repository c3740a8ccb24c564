/* Scores of evaluation runs with their errors.  SPDX-License-Identifier: Apache-2.0 */
#include "reports/report.h"

#include "lib/base/mem.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <string.h>

#define Z95 1.959963984540054

bal_status report_scores(report *r)
{
    static const char *const head[] = {
        "name", "task", "filter", "n", "score", "stderr", "95 % interval (Wilson)", "detectable difference"};
    sqlite3_stmt *q = NULL;
    bool row = false;
    report_table *t = NULL;
    bal_writer dat = {0}, gp = {0};
    size_t points = 0;
    bal_status status = BAL_OK;
    BAL_TRY(report_dat_open(r, &dat, "scores"));
    BAL_TRY(report_gp_open(r, &gp, "scores", 900, 480));
    BAL_TRY(
        bal_store_prepare(r->store,
                          "SELECT task, filter, count(*), sum(score), sum(score * score), min(score), max(score), "
                          "sum(score NOT IN (0, 1)) FROM (SELECT e.task AS task, e.filter AS filter, " BAL_ITEM_SCORE
                          " AS score FROM eval_item AS e WHERE e.run_id = ?1 AND e.score IS NOT NULL "
                          "GROUP BY e.task, e.filter, e.item) GROUP BY task, filter ORDER BY task, filter",
                          &q));
    BAL_TRY(bal_writer_printf(
        &gp, "set xlabel 'score, with its 95 %% Wilson interval'\nset xrange [0:*<1]\nset ytics noenhanced\nunset "
             "key\nset yrange [] reverse\nset offsets 0,0,0.5,0.5\n"
             "plot 'scores.dat' using 2:0:3:4:ytic(1) with xerrorbars pt 7 ps 0.9 lw 1.5 lc rgb '#0072B2'\n"));
    for (size_t i = 0; i < r->n_runs; i++) {
        (void)sqlite3_reset(q);
        (void)sqlite3_bind_int64(q, 1, r->runs[i].id);
        while ((status = bal_store_step(r->store, q, &row)) == BAL_OK && row) {
            size_t n = (size_t)sqlite3_column_int64(q, 2);
            double sum = sqlite3_column_double(q, 3), mean = sum / (double)n;
            double variance = n > 1 ? (sqlite3_column_double(q, 4) - sum * mean) / (double)(n - 1) : (double)NAN;
            bool share = sqlite3_column_int64(q, 7) == 0;
            double error = share ? bal_share_stderr(mean, n) : sqrt(fmax(variance, 0) / (double)n), low = (double)NAN,
                   high = (double)NAN;
            char text[8][REPORT_CELL];
            if (share)
                bal_wilson((size_t)(sum + 0.5), n, Z95, &low, &high);
            (void)snprintf(text[0], REPORT_CELL, "%s", r->runs[i].name);
            (void)snprintf(text[1], REPORT_CELL, "%s", (const char *)sqlite3_column_text(q, 0));
            (void)snprintf(text[2], REPORT_CELL, "%s", (const char *)sqlite3_column_text(q, 1));
            (void)snprintf(text[3], REPORT_CELL, "%zu", n);
            (void)snprintf(text[4], REPORT_CELL, "%.4f", mean);
            (void)snprintf(text[5], REPORT_CELL, isfinite(error) ? "%.4f" : "–", error);
            if (share)
                (void)snprintf(text[6], REPORT_CELL, "%.4f .. %.4f", low, high);
            else
                (void)snprintf(text[6], REPORT_CELL, "–");
            (void)snprintf(text[7], REPORT_CELL, share ? "%.4f" : "–",
                           bal_detectable_difference(fmin(fmax(mean, 0.05), 0.95), n));
            if (t == NULL) {
                t = report_table_new(
                    r, "scores", "Scores",
                    "Standard error as lm-eval has it. The detectable difference is what two unpaired runs of this "
                    "size tell apart with 80 % power at 5 %: smaller gaps in this table are no evidence.",
                    8);
                BAL_TRY(t == NULL ? bal_fail(BAL_ELIMIT, "too many tables") : report_table_row(t, head));
            }
            const char *cells[8];
            for (size_t k = 0; k < 8; k++)
                cells[k] = text[k];
            BAL_TRY(report_table_row(t, cells));
            if (share) {
                (void)bal_writer_printf(&dat, "%s: %s (%s)", text[0], text[1], text[2]);
                report_put_number(&dat, mean);
                report_put_number(&dat, low);
                report_put_number(&dat, high);
                (void)bal_writer_write(&dat, "\n", 1);
                points++;
            }
        }
        if (status != BAL_OK)
            goto out;
    }
    if (t != NULL)
        BAL_TRY(report_table_write(r, t));
    if (points > 0) {
        BAL_TRY(bal_writer_commit(&dat));
        BAL_TRY(bal_writer_commit(&gp));
        status =
            report_plot(r, "scores", "Scores", "Share of correct items with its 95 % Wilson interval, run by run.");
    }
out:
    (void)sqlite3_finalize(q);
    bal_writer_abort(&dat);
    bal_writer_abort(&gp);
    return status;
}
