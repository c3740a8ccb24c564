/* The parts of a report: figures and tables, each from the run database.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_REPORTS_REPORT_H
#define BAL_REPORTS_REPORT_H

#include "lib/base/file.h"
#include "lib/base/log.h"
#include "lib/io/store.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    REPORT_MAX_RUNS = 256,
    REPORT_MAX_FIGURES = 32,
    REPORT_MAX_TABLES = 16,
    REPORT_CELL = 96,
    REPORT_MAX_COLUMNS = 16
};

typedef struct report_run {
    int64_t id;
    char name[80], kind[32]; /* kind: "train", "evaluate", "analyze/spectrum" ... */
    int color;               /* by name: the same method has the same colour everywhere */
} report_run;

typedef struct report_figure {
    char stem[48]; /* file name without ending */
    const char *title, *caption;
} report_figure;

/* Rows of text cells, header first. */
typedef struct report_table {
    const char *stem, *title, *caption;
    size_t n_columns, n_rows;
    char (*cells)[REPORT_CELL];
} report_table;

typedef struct report {
    bal_store *store;
    const bal_log *log;
    const char *out;
    report_run runs[REPORT_MAX_RUNS];
    size_t n_runs;
    report_figure figures[REPORT_MAX_FIGURES];
    size_t n_figures;
    report_table tables[REPORT_MAX_TABLES];
    size_t n_tables;
    bool have_gnuplot;
} report;

/* gnuplot.c: a .gp file that begins with the common style; report_plot() runs it for PNG and SVG. */
bal_status report_gp_open(const report *r, bal_writer *w, const char *stem, int width, int height);
bal_status report_plot(report *r, const char *stem, const char *title, const char *caption);
/* text as a single-quoted gnuplot string: quotes doubled, line ends and backquotes are harmless there. */
bal_status report_gp_text(bal_writer *w, const char *text);
/* Colour of a run, "#rrggbb". */
const char *report_color(int i);
/* Dash type of the n-th line of a picture: the first is solid, what lies over it has gaps, so that both are seen. */
size_t report_dash(size_t n);
bal_status report_dat_open(const report *r, bal_writer *w, const char *stem);
void report_put_number(bal_writer *w, double value); /* NaN as gnuplot's missing mark "?" */

/* curves.c, spectra.c, scores.c, samples.c, tables.c */
bal_status report_curves(report *r);
bal_status report_spectra(report *r);
bal_status report_scores(report *r);
bal_status report_sample_table(report *r);
bal_status report_run_table(report *r);
bal_status report_diversity_table(report *r);
bal_status report_update_table(report *r);

report_table *report_table_new(report *r, const char *stem, const char *title, const char *caption, size_t n_columns);
/* Appends one row of n_columns texts. */
bal_status report_table_row(report_table *t, const char *const *cells);
bal_status report_table_write(const report *r, const report_table *t); /* .md, .csv, .tex */
void report_dispose(report *r);

/* html.c */
bal_status report_html(const report *r);
bal_status report_put_html(bal_writer *w, const char *text); /* escaped */

#endif
