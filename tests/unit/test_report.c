/* reports: what a run's name may hold.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/mem.h"
#include "reports/report.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char k_evil[] = "a'b`touch pwned`\"<script>alert(1)</script>&_x^{2}";

static int64_t add_run(bal_store *s, const char *kind)
{
    int64_t run = 0;
    char word[] = "test", *argv[] = {word, NULL};
    bal_run_spec spec = {
        .kind = kind, .name = k_evil, .config_json = "{\"method\": \"lora\", \"r\": 4}", .argc = 1, .argv = argv};
    CHECK_OK(bal_run_begin(s, &spec, &run));
    return run;
}

static bool contains(const char *dir, const char *name, const char *text)
{
    bal_buf b = {0};
    char *path = bal_path_join(dir, name);
    bool found = bal_file_read(path, 16 << 20, &b) == BAL_OK && strstr(bal_buf_cstr(&b), text) != NULL;
    bal_buf_dispose(&b);
    bal_free(path);
    return found;
}

TEST(names_are_escaped_and_tables_right)
{
    char db[256], out[256];
    bal_store *s = NULL;
    const double sv[] = {2, 1}, values[] = {2.236, 1.9};
    const char *const names[] = {"frobenius", "effective_rank"};
    (void)snprintf(db, sizeof db, "%s/runs.db", test_folder());
    (void)snprintf(out, sizeof out, "%s/report", test_folder());
    if (!CHECK_OK(bal_store_open(&s, db, true)) || !CHECK_OK(bal_folder_make(out)))
        return;
    int64_t run = add_run(s, "train");
    for (int64_t i = 1; i <= 50; i++) {
        CHECK_OK(bal_run_metric(s, run, "loss/task", i, 3.0 / (double)i));
        CHECK_OK(bal_run_metric(s, run, "lr", i, 1e-3 / (double)i));
    }
    bal_matrix_stat m = {.step = -1,
                         .layer = 0,
                         .module = "q_proj",
                         .target = "delta",
                         .convention = "x",
                         .dtype = "F32",
                         .status = "ok",
                         .m = 2,
                         .n = 2,
                         .r = 2,
                         .scaling = 1};
    CHECK_OK(bal_run_matrix(s, run, &m, names, values, 2, sv, 2));
    for (int64_t i = 0; i < 4; i++) {
        bal_eval_item item = {.task = "t",
                              .filter = "f",
                              .item = i,
                              .output = "a line\nbreak",
                              .finish_reason = "stop",
                              .score = i < 3 ? 1 : 0,
                              .correct = i < 3};
        CHECK_OK(bal_run_item(s, run, &item));
    }
    CHECK_OK(bal_run_end(s, run, "finished", 0, NULL));
    report *r = bal_alloc(1, sizeof *r);
    r->store = s;
    r->out = out;
    r->n_runs = 1;
    r->runs[0].id = run;
    (void)snprintf(r->runs[0].name, sizeof r->runs[0].name, "%s", k_evil);
    r->have_gnuplot = false; /* scripts and data only: the pictures are looked at by people */
    CHECK_OK(report_scores(r));
    CHECK_OK(report_curves(r));
    CHECK_OK(report_spectra(r));
    CHECK_OK(report_sample_table(r));
    CHECK_OK(report_run_table(r));
    CHECK_OK(report_html(r));
    CHECK(contains(out, "scores.csv", "0.7500"));
    CHECK(contains(out, "scores.csv", "0.2500")); /* sqrt(p (1 - p) / (n - 1)) */
    CHECK(contains(out, "spectra.dat", "1\t2\t2\t2"));
    CHECK(contains(out, "loss.gp", "'a''b`touch pwned`\"<script>"));
    CHECK(contains(out, "loss.gp", "'loss-1.dat' index 0 using 1:3")); /* a moving average of what is measured ... */
    CHECK(contains(out, "optimiser.gp", "'optimiser-1.dat' index 0 using 1:2"));
    CHECK(!contains(out, "optimiser.gp", "'optimiser-1.dat' index 0 using 1:3")); /* ... and none of a schedule */
    CHECK(!contains(out, "samples.csv", "line\nbreak") && contains(out, "samples.csv", "line break"));
    CHECK(!contains(out, "report.html", "<script>"));
    CHECK(contains(out, "report.html", "a&#39;b`touch pwned`&quot;&lt;script&gt;"));
    report_dispose(r);
    bal_free(r);
    bal_store_close(s);
}
