/* balora runs on a database made here: what is shown, exported, merged and removed.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "lib/io/store.h"
#include "tools/commands.h"
#include "tools/runs.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const runs_config defaults = {.table = "runs", .csv = true, .limit = 50};

static void add_run(bal_store *s, const char *name, const char *config, double loss)
{
    static const char *const names[] = {"stable_rank"};
    char word[] = "train";
    char *argv[] = {word};
    int64_t run = 0;
    double value = 1.25, sv[] = {2, 1.0 / 3};
    bal_run_spec spec = {.kind = "train", .name = name, .config_json = config, .argc = 1, .argv = argv, .seed = 1};
    bal_eval_item item = {
        .task = "gsm8k", .filter = "none", .gold = "4", .extracted = "4,\"x\"\n", .score = 1, .correct = 1};
    bal_matrix_stat m = {.step = -1, .layer = 0, .module = "q_proj", .target = "delta", .m = 2, .n = 2, .r = 2};
    CHECK_OK(bal_run_begin(s, &spec, &run));
    for (int64_t step = 1; step <= 3; step++)
        CHECK_OK(bal_run_metric(s, run, "loss/total", step, loss / (double)step));
    CHECK_OK(bal_run_metric(s, run, "only", 1, (double)NAN));
    CHECK_OK(bal_run_item(s, run, &item));
    CHECK_OK(bal_run_matrix(s, run, &m, names, &value, 1, sv, 2));
    CHECK_OK(bal_run_tag(s, run, "note", "a, b"));
    CHECK_OK(bal_run_artifact(s, run, "out/adapter", "adapter"));
    CHECK_OK(bal_run_end(s, run, "finished", 0, NULL));
}

static bal_store *make_store(const char *file)
{
    char path[200];
    bal_store *s = NULL;
    (void)snprintf(path, sizeof path, "%s/%s", test_folder(), file);
    if (!CHECK_OK(bal_store_open(&s, path, true)))
        return NULL;
    add_run(s, "one", "{\"method\": \"lora\", \"r\": 8, \"lr\": 0.1, \"only_a\": [1, 2]}", 0.3);
    add_run(s, "two", "{\"method\": \"pissa\", \"r\": 8, \"lr\": 0.1}", 0.6);
    return s;
}

static bal_status call(bal_store *s, bal_status (*verb)(runs_context *), const runs_config *config, bool json,
                       const char *a, const char *b, bal_buf *out)
{
    const char *words[] = {a, b};
    runs_context c = {.store = s, .config = config, .json = json, .words = words, .n_words = (a != NULL) + (b != NULL)};
    bal_status status = verb(&c);
    *out = c.out;
    return status;
}

static cJSON *call_json(bal_store *s, bal_status (*verb)(runs_context *), const char *a, const char *b)
{
    bal_buf out = {0};
    cJSON *json = NULL;
    CHECK_OK(call(s, verb, &defaults, true, a, b, &out));
    CHECK_OK(bal_json_parse(&json, bal_buf_cstr(&out), out.len, "answer"));
    bal_buf_dispose(&out);
    return json;
}

/* Value at a path of member names and list places, e.g. "runs.1.metrics". */
static const cJSON *at(const cJSON *json, const char *path)
{
    char part[64];
    for (; json != NULL && *path != '\0'; path += strspn(path, ".")) {
        size_t n = strcspn(path, ".");
        (void)snprintf(part, sizeof part, "%.*s", (int)n, path);
        int64_t index = 0;
        json = cJSON_IsArray(json) && bal_parse_i64(part, 0, 1000, &index) == BAL_OK
                   ? cJSON_GetArrayItem(json, (int)index)
                   : cJSON_GetObjectItemCaseSensitive(json, part);
        path += n;
    }
    return json;
}

TEST(list_and_show)
{
    bal_store *s = make_store("show.db");
    bal_buf out = {0};
    if (s == NULL)
        return;
    CHECK_OK(call(s, runs_list, &defaults, false, NULL, NULL, &out));
    const char *two = strstr(bal_buf_cstr(&out), " two "), *one = strstr(bal_buf_cstr(&out), " one ");
    CHECK(two != NULL && one != NULL && two < one); /* newest first */
    CHECK(strstr(bal_buf_cstr(&out), "loss/total=0.2") != NULL);
    bal_buf_dispose(&out);
    cJSON *json = call_json(s, runs_list, NULL, NULL);
    CHECK(cJSON_GetArraySize(at(json, "runs")) == 2);
    CHECK_TEXT(cJSON_GetStringValue(at(json, "runs.1.name")), "one");
    cJSON_Delete(json);
    json = call_json(s, runs_show, "one", NULL);
    CHECK_NEAR(cJSON_GetNumberValue(at(json, "params.lr")), 0.1, 0);
    CHECK_NEAR(cJSON_GetNumberValue(at(json, "params.only_a.1")), 2, 0);
    CHECK_NEAR(cJSON_GetNumberValue(at(json, "metrics.loss/total.last")), 0.3 / 3, 0);
    CHECK_NEAR(cJSON_GetNumberValue(at(json, "metrics.loss/total.max_step")), 1, 0);
    CHECK(cJSON_IsNull(at(json, "metrics.only.last")));
    CHECK_TEXT(cJSON_GetStringValue(at(json, "metrics.only.kind")), "nan");
    CHECK_NEAR(cJSON_GetNumberValue(at(json, "items.0.correct")), 1, 0);
    CHECK_TEXT(cJSON_GetStringValue(at(json, "artifacts.0.path")), "out/adapter");
    CHECK_TEXT(cJSON_GetStringValue(at(json, "argv.0")), "train");
    CHECK_NEAR(cJSON_GetNumberValue(at(json, "matrices.0.spectra")), 1, 0);
    cJSON_Delete(json);
    CHECK_OK(call(s, runs_show, &defaults, false, "two", NULL, &out));
    CHECK(strstr(bal_buf_cstr(&out), "\nParameters\n") != NULL && strstr(bal_buf_cstr(&out), "pissa") != NULL);
    bal_buf_dispose(&out);
    CHECK_STATUS(call(s, runs_show, &defaults, false, "three", NULL, &out), BAL_ENOENT);
    bal_buf_dispose(&out);
    CHECK_STATUS(call(s, runs_show, &defaults, false, NULL, NULL, &out), BAL_EINVAL);
    bal_buf_dispose(&out);
    bal_store_close(s);
}

TEST(diff_names_what_differs)
{
    bal_store *s = make_store("diff.db");
    if (s == NULL)
        return;
    cJSON *json = call_json(s, runs_diff, "one", "two");
    CHECK(cJSON_GetArraySize(at(json, "params")) == 2);
    CHECK_TEXT(cJSON_GetStringValue(at(json, "params.0.a")), "lora");
    CHECK(cJSON_IsNull(at(json, "params.1.b"))); /* only_a */
    CHECK_NEAR(cJSON_GetNumberValue(at(json, "metrics.0.b - a")), 0.6 / 3 - 0.3 / 3, 0);
    cJSON_Delete(json);
    bal_buf out = {0};
    CHECK_OK(call(s, runs_diff, &defaults, false, "one", "one", &out));
    CHECK(strstr(bal_buf_cstr(&out), "The parameters are the same.") != NULL);
    bal_buf_dispose(&out);
    bal_store_close(s);
}

static const char *cell(const bal_table *t, size_t row, const char *column)
{
    for (size_t i = 0; i < t->n_cols; i++)
        if (strcmp(t->cells[i], column) == 0)
            return t->cells[row * t->n_cols + i];
    return NULL;
}

TEST(exported_tables_come_back)
{
    char folder[200], path[260];
    bal_table t;
    bal_buf out = {0};
    double value = 0;
    bal_store *s = make_store("export.db");
    if (s == NULL)
        return;
    (void)snprintf(folder, sizeof folder, "%s/csv", test_folder());
    runs_config config = defaults;
    config.out = folder;
    CHECK_OK(call(s, runs_export, &config, false, NULL, NULL, &out));
    bal_buf_dispose(&out);
    (void)snprintf(path, sizeof path, "%s/runs.csv", folder);
    if (CHECK_OK(bal_table_read(&t, path, ','))) {
        CHECK(t.n_rows == 3);
        CHECK_TEXT(cell(&t, 1, "params.method"), "lora");
        CHECK_TEXT(cell(&t, 2, "params.only_a"), "");
        CHECK_TEXT(cell(&t, 1, "tags.note"), "a, b");
        CHECK_OK(bal_parse_f64(cell(&t, 2, "metrics.loss/total"), 0, 1, &value));
        CHECK_NEAR(value, 0.6 / 3, 0);
        CHECK(cell(&t, 1, "run_id") != NULL && strlen(cell(&t, 1, "run_id")) == 32);
        CHECK_TEXT(cell(&t, 1, "metrics.only"), "");
    }
    bal_table_dispose(&t);
    (void)snprintf(path, sizeof path, "%s/spectra.csv", folder);
    if (CHECK_OK(bal_table_read(&t, path, ','))) {
        CHECK(t.n_rows == 5);
        CHECK_OK(bal_parse_f64(cell(&t, 2, "value"), 0, 1, &value));
        CHECK_NEAR(value, 1.0 / 3, 0);
        CHECK_TEXT(cell(&t, 2, "i"), "2");
    }
    bal_table_dispose(&t);
    (void)snprintf(path, sizeof path, "%s/items.csv", folder);
    if (CHECK_OK(bal_table_read(&t, path, ','))) {
        CHECK(t.n_rows == 3);
        CHECK_TEXT(cell(&t, 1, "extracted"), "4,\"x\"\n");
    }
    bal_table_dispose(&t);
    config = defaults;
    config.table = "metrics";
    CHECK_OK(call(s, runs_export, &config, false, "two", NULL, &out));
    CHECK(strstr(bal_buf_cstr(&out), ",two,only,1,") != NULL && strstr(bal_buf_cstr(&out), ",,nan\n") != NULL);
    CHECK(strstr(bal_buf_cstr(&out), ",one,") == NULL);
    bal_buf_dispose(&out);
    cJSON *json = call_json(s, runs_export, "one", NULL);
    CHECK(cJSON_GetArraySize(at(json, "runs.0.curves")) == 4);
    cJSON_Delete(json);
    bal_store_close(s);
}

TEST(merging_is_idempotent)
{
    bal_store *a = make_store("merge_a.db"), *b = make_store("merge_b.db");
    char path[200];
    bal_buf out = {0};
    if (a == NULL || b == NULL)
        return;
    (void)snprintf(path, sizeof path, "%s", bal_store_path(b));
    CHECK_OK(call(a, runs_merge, &defaults, true, path, NULL, &out));
    CHECK_TEXT(bal_buf_cstr(&out), "{\"added\": 2, \"updated\": 0, \"unchanged\": 0}\n");
    bal_buf_dispose(&out);
    CHECK_OK(call(a, runs_merge, &defaults, true, path, NULL, &out));
    CHECK_TEXT(bal_buf_cstr(&out), "{\"added\": 0, \"updated\": 0, \"unchanged\": 2}\n");
    bal_buf_dispose(&out);
    usleep(5000);
    CHECK_OK(bal_run_metric(b, 1, "late", 9, 5));
    CHECK_OK(bal_run_heartbeat(b, 1));
    CHECK_OK(call(a, runs_merge, &defaults, true, path, NULL, &out));
    CHECK_TEXT(bal_buf_cstr(&out), "{\"added\": 0, \"updated\": 1, \"unchanged\": 1}\n");
    bal_buf_dispose(&out);
    char uuid[33];
    CHECK_OK(bal_run_uuid(b, 1, uuid));
    cJSON *theirs = call_json(b, runs_show, uuid, NULL), *ours = call_json(a, runs_show, uuid, NULL);
    static const char *const same[] = {"params",    "metrics",  "items", "matrices", "tags",
                                       "artifacts", "start_ms", "name",  "cpu"};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        CHECK_MSG(cJSON_Compare(at(ours, same[i]), at(theirs, same[i]), 1), "%s differs", same[i]);
    cJSON_Delete(theirs);
    cJSON_Delete(ours);
    cJSON *list = call_json(a, runs_list, NULL, NULL);
    CHECK(cJSON_GetArraySize(at(list, "runs")) == 4);
    cJSON_Delete(list);
    CHECK_STATUS(call(a, runs_merge, &defaults, true, "/nonexistent.db", NULL, &out), BAL_ENOENT);
    bal_buf_dispose(&out);
    bal_store_close(a);
    bal_store_close(b);
}

TEST(removal_is_all_or_none)
{
    bal_store *s = make_store("rm.db");
    bal_buf out = {0};
    int64_t run = 0;
    if (s == NULL)
        return;
    CHECK_STATUS(call(s, runs_remove, &defaults, false, "one", "three", &out), BAL_ENOENT);
    bal_buf_dispose(&out);
    CHECK_OK(bal_run_find(s, "one", &run));
    CHECK_OK(call(s, runs_remove, &defaults, true, "one", NULL, &out));
    CHECK_TEXT(bal_buf_cstr(&out), "{\"removed\": 1}\n");
    bal_buf_dispose(&out);
    CHECK_STATUS(bal_run_find(s, "one", &run), BAL_ENOENT);
    CHECK_OK(bal_run_find(s, "two", &run));
    bal_store_close(s);
}
