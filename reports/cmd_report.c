/* balora report: plots and tables of runs, and one HTML page.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"

#include "lib/base/mem.h"
#include "lib/io/options.h"
#include "reports/report.h"

#include <stddef.h>
#include <string.h>

typedef struct report_config {
    bal_text_list runs;
    bool all;
    const char *out;
} report_config;

static const bal_option k_options[] = {
    {"runs", 0, BAL_OPTION_LIST, offsetof(report_config, runs), NULL, 0, 0, NULL, NULL, "What",
     "runs by id, uuid or name; a name takes all runs of that name"},
    {"all", 0, BAL_OPTION_FLAG, offsetof(report_config, all), NULL, 0, 0, NULL, NULL, "What",
     "all runs of the database"},
    {"out", 'o', BAL_OPTION_PATH, offsetof(report_config, out), "report", 0, 0, NULL, NULL, "Where",
     "folder for the page, the pictures and their data"},
};

static const bal_command k_command = {
    .name = "report",
    .usage = "--runs A,B | --all [--out DIR]",
    .summary = "plots and tables of runs, and one HTML page",
    .description = "Training, evaluation and analysis runs of the same name are shown as one method.  Each picture "
                   "keeps its .dat and .gp\n"
                   "files beside it: change the script and run gnuplot again.",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
};

/* Adds the rows of a statement that selects id, name, kind; a run is taken once. */
static bal_status take_rows(report *r, sqlite3_stmt *q)
{
    bool row = false;
    bal_status status;
    while ((status = bal_store_step(r->store, q, &row)) == BAL_OK && row) {
        int64_t id = sqlite3_column_int64(q, 0);
        bool seen = false;
        for (size_t i = 0; i < r->n_runs && !seen; i++)
            seen = r->runs[i].id == id;
        if (seen)
            continue;
        if (r->n_runs == REPORT_MAX_RUNS)
            return bal_fail(BAL_ELIMIT, "a report shows at most %d runs; name some with --runs", REPORT_MAX_RUNS);
        report_run *x = &r->runs[r->n_runs];
        const char *name = (const char *)sqlite3_column_text(q, 1), *kind = (const char *)sqlite3_column_text(q, 2);
        x->id = id;
        (void)snprintf(x->name, sizeof x->name, "%s", name != NULL ? name : "");
        (void)snprintf(x->kind, sizeof x->kind, "%s", kind != NULL ? kind : "");
        r->n_runs++;
    }
    return status;
}

static bal_status select_runs(report *r, const report_config *c)
{
    sqlite3_stmt *q = NULL;
    bal_status status =
        bal_store_prepare(r->store,
                          "SELECT id, name, kind || coalesce((SELECT '/' || value FROM tag WHERE run_id = run.id AND "
                          "key = 'analysis'), '') "
                          "FROM run WHERE (?1 IS NULL OR name = ?1) AND (?2 = 0 OR id = ?2) ORDER BY id",
                          &q);
    if (status == BAL_OK && c->all) {
        (void)sqlite3_bind_int64(q, 2, 0);
        status = take_rows(r, q);
    }
    for (size_t i = 0; i < c->runs.n && status == BAL_OK; i++) {
        int64_t id = 0;
        size_t before = r->n_runs;
        (void)sqlite3_reset(q);
        (void)sqlite3_bind_text(q, 1, c->runs.items[i], -1, SQLITE_STATIC);
        (void)sqlite3_bind_int64(q, 2, 0);
        status = take_rows(r, q);
        if (status != BAL_OK || r->n_runs > before)
            continue;
        status = bal_run_find(r->store, c->runs.items[i], &id);
        if (status != BAL_OK)
            break;
        (void)sqlite3_reset(q);
        (void)sqlite3_bind_null(q, 1);
        (void)sqlite3_bind_int64(q, 2, id);
        status = take_rows(r, q);
    }
    (void)sqlite3_finalize(q);
    if (status == BAL_OK && r->n_runs == 0)
        status = bal_fail(BAL_ENOENT, "%s holds no runs to report", bal_store_path(r->store));
    return status;
}

/* Two runs of one kind and name get their number behind the name; then each name has one colour. */
static void name_and_color(report *r)
{
    bool twice[REPORT_MAX_RUNS] = {false};
    for (size_t i = 0; i < r->n_runs; i++)
        for (size_t j = 0; j < r->n_runs && !twice[i]; j++)
            twice[i] = i != j && strcmp(r->runs[i].name, r->runs[j].name) == 0 &&
                       strcmp(r->runs[i].kind, r->runs[j].kind) == 0;
    for (size_t i = 0; i < r->n_runs; i++) {
        report_run *x = &r->runs[i];
        size_t n = strlen(x->name);
        if (twice[i])
            (void)snprintf(x->name + n, sizeof x->name - n, " #%lld", (long long)x->id);
    }
    for (size_t i = 0; i < r->n_runs; i++) {
        int next = 0;
        size_t j = 0;
        while (j < i && strcmp(r->runs[j].name, r->runs[i].name) != 0)
            j++;
        for (size_t k = 0; k < i; k++)
            next = r->runs[k].color >= next ? r->runs[k].color + 1 : next;
        r->runs[i].color = j < i ? r->runs[j].color : next;
    }
}

static bal_status make_report(const report_config *c, const bal_common *common)
{
    report *r = bal_alloc(1, sizeof *r);
    bal_status status = BAL_OK;
    if (r == NULL)
        return BAL_ENOMEM;
    if (!c->all && c->runs.n == 0)
        BAL_TRY(bal_fail(BAL_EINVAL, "which runs? give --runs A,B or --all"));
    r->log = &common->log;
    r->out = c->out;
    r->have_gnuplot = true;
    BAL_TRY(bal_store_open(&r->store, common->db, false));
    BAL_TRY(select_runs(r, c));
    name_and_color(r);
    BAL_TRY(bal_folder_make(c->out));
    BAL_TRY(report_scores(r));
    BAL_TRY(report_sample_table(r));
    BAL_TRY(report_curves(r));
    BAL_TRY(report_spectra(r));
    BAL_TRY(report_diversity_table(r));
    BAL_TRY(report_update_table(r));
    BAL_TRY(report_run_table(r));
    BAL_TRY(report_html(r));
    if (common->json) {
        printf("{\"out\": \"%s\", \"page\": \"%s/report.html\", \"runs\": %zu, \"figures\": %zu, \"tables\": %zu, "
               "\"drawn\": %s}\n",
               c->out, c->out, r->n_runs, r->n_figures, r->n_tables, r->have_gnuplot ? "true" : "false");
        goto out;
    }
    for (size_t i = 0; i < r->n_tables; i++) {
        const report_table *t = &r->tables[i];
        if (strcmp(t->stem, "runs") == 0)
            continue;
        printf("\n%s\n", t->title);
        for (size_t j = 0; j < t->n_rows; j++) {
            for (size_t k = 0; k < t->n_columns; k++) {
                size_t width = 0;
                for (size_t m = 0; m < t->n_rows; m++)
                    width =
                        strlen(t->cells[m * t->n_columns + k]) > width ? strlen(t->cells[m * t->n_columns + k]) : width;
                printf(k == 0 ? "  %-*s" : "  %*s", (int)width, t->cells[j * t->n_columns + k]);
            }
            printf("\n");
        }
    }
    printf("\n%zu figures, %zu tables of %zu runs: %s/report.html\n", r->n_figures, r->n_tables, r->n_runs, c->out);
out:
    report_dispose(r);
    bal_store_close(r->store);
    bal_free(r);
    return status;
}

int cmd_report(int argc, char **argv)
{
    report_config config = {0};
    bal_options *options = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&options, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help)
        status = make_report(&config, bal_options_common(options));
    bal_options_free(options);
    return bal_command_finish(&k_command, status);
}
