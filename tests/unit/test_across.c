/* --across: means and deviations of stored figures.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void add_run(bal_store *s, const char *name, const char *config, double value, double error, const char *status)
{
    const bal_run_spec spec = {.kind = "evaluate", .name = name, .config_json = config, .seed = 1};
    int64_t run = 0;
    CHECK_OK(bal_run_begin(s, &spec, &run));
    CHECK_OK(bal_run_metric(s, run, "gsm8k/exact_match,strict-match", 0, value));
    CHECK_OK(bal_run_metric(s, run, "gsm8k/exact_match_stderr,strict-match", 0, error));
    CHECK_OK(bal_run_metric(s, run, "gsm8k/f1,none", 0, isnan(value) ? value : 2 * value));
    CHECK_OK(bal_run_end(s, run, status, 0, NULL));
}

static bal_status ask(bal_store *s, const char *a, const char *b, const char *c, bool json, bal_buf *out)
{
    const char *words[] = {a, b, c};
    const bal_text_list list = {words, c == NULL ? 2 : 3};
    bal_buf_clear(out);
    return evaluate_across(s, &list, json, out);
}

TEST(mean_and_deviation)
{
    static const char config[] = "{\"tasks\": {\"gsm8k\": {\"data_sha256\": \"x\"}}, \"limit\": 0, \"seed\": 1}";
    static const char other[] = "{\"tasks\": {\"gsm8k\": {\"data_sha256\": \"y\"}}, \"limit\": 0, \"seed\": 1}";
    char path[300];
    bal_store *s = NULL;
    bal_buf out = {0};
    (void)snprintf(path, sizeof path, "%s/runs.db", test_folder());
    if (!CHECK_OK(bal_store_open(&s, path, true)))
        return;
    add_run(s, "a", config, 0.5, 0.1, "finished");
    add_run(s, "b", config, 0.6, 0.2, "finished");
    add_run(s, "c", config, 0.8, 0.3, "finished");
    add_run(s, "nan", config, (double)NAN, 0.3, "finished");
    add_run(s, "data", other, 0.8, 0.3, "finished");
    add_run(s, "cut", config, 0.8, 0.3, "interrupted");
    CHECK_OK(ask(s, "a", "b", "c", false, &out));
    /* 0.6333, sd sqrt((0.01778 + 0.00111 + 0.02778) / 2) = 0.15275; by 3 it would be 0.1247 */
    CHECK(
        strstr(bal_buf_cstr(&out), "|gsm8k|strict-match|exact_match|3|0.6333|\xc2\xb1|0.1528|0.5000|0.8000|0.2000|\n"));
    CHECK(strstr(bal_buf_cstr(&out), "|gsm8k|none|f1|3|1.2667|\xc2\xb1|0.3055|1.0000|1.6000|N/A|\n"));
    CHECK(strstr(bal_buf_cstr(&out), "_stderr") == NULL);
    CHECK_OK(ask(s, "a", "c", NULL, true, &out));
    cJSON *json = NULL;
    CHECK_OK(bal_json_parse(&json, bal_buf_cstr(&out), out.len, "the document"));
    const cJSON *first = cJSON_GetArrayItem(bal_json_member(json, "figures"), 0);
    double mean = 0, sd = 0;
    CHECK_OK(bal_json_f64(first, "figure", "mean", &mean, NULL));
    CHECK_OK(bal_json_f64(first, "figure", "sd", &sd, NULL));
    CHECK_NEAR(mean, 0.65, 1e-15);
    CHECK_NEAR(sd, 0.21213203435596426, 1e-15);
    cJSON_Delete(json);
    CHECK_OK(ask(s, "a", "nan", NULL, false, &out)); /* a figure that one run has not is none of all */
    CHECK(strstr(bal_buf_cstr(&out), "|exact_match|2|N/A|\xc2\xb1|N/A|") != NULL);
    CHECK_STATUS(ask(s, "a", "data", NULL, false, &out), BAL_EINVAL);
    CHECK_STATUS(ask(s, "a", "cut", NULL, false, &out), BAL_EINVAL);
    CHECK_STATUS(ask(s, "a", "b", "a", false, &out), BAL_EINVAL);
    CHECK_STATUS(ask(s, "a", "none", NULL, false, &out), BAL_ENOENT);
    bal_buf_dispose(&out);
    bal_store_close(s);
}
