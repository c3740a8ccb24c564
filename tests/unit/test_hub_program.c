/* The program with names of a hub: what it does, says and keeps.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/str.h"
#include "tests/hub_loopback.h"
#include "tests/program.h"
#include "tests/test.h"

static bal_buf g_config, g_weights;
static char g_records[4000];

static const char *in_folder(const char *name)
{
    static char path[4][400];
    static int turn;
    char *p = path[turn++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", test_folder(), name);
    return p;
}

static void point_at(const hub_test *h)
{
    char endpoint[100];
    (void)snprintf(endpoint, sizeof endpoint, "http://127.0.0.1:%d", h->server.port);
    (void)setenv("HF_ENDPOINT", endpoint, 1);
    (void)setenv("HF_HOME", in_folder("hf"), 1);
    (void)unsetenv("HF_HUB_CACHE");
    (void)unsetenv("HF_TOKEN_PATH");
    (void)unsetenv("HF_HUB_OFFLINE");
    (void)setenv("HF_TOKEN", "hf_secret", 1);
}

static bool start_model(hub_test *h)
{
    const char *folder = "tests/cli/data/model/";
    char path[200];
    if (g_config.len == 0) {
        (void)snprintf(path, sizeof path, "%sconfig.json", folder);
        CHECK_OK(bal_file_read(path, 1 << 20, &g_config));
        (void)snprintf(path, sizeof path, "%smodel.safetensors", folder);
        CHECK_OK(bal_file_read(path, 1 << 20, &g_weights));
    }
    if (!CHECK(hub_test_start(h, "acme/tiny", false)))
        return false;
    hub_test_add(h, "config.json", g_config.data, g_config.len, false);
    hub_test_add(h, "model.safetensors", g_weights.data, g_weights.len, true);
    hub_test_add(h, "README.md", "x", 1, false);
    h->redirects = true;
    h->token = "hf_secret";
    point_at(h);
    return true;
}

static bool start_data(hub_test *h)
{
    g_records[0] = '\0';
    for (int i = 0; i < 12; i++)
        hub_test_put(g_records, sizeof g_records, "{\"input_ids\": [1, 2, 3, 4], \"labels\": [-100, 2, 3, 4]}\n");
    if (!CHECK(hub_test_start(h, "acme/sums", true)))
        return false;
    hub_test_add(h, "README.md", "x", 1, false);
    hub_test_add(h, "data/test.jsonl", g_records, strlen(g_records) / 2, false);
    hub_test_add(h, "data/train.jsonl", g_records, strlen(g_records), true);
    h->redirects = true;
    h->token = "hf_secret";
    point_at(h);
    return true;
}

static const char *text_of(const char *name)
{
    static bal_buf text[2];
    static int turn;
    bal_buf *b = &text[turn++ % 2];
    bal_buf_clear(b);
    (void)bal_file_read(in_folder(name), 1 << 20, b);
    return bal_buf_cstr(b);
}

/* Exit status; standard output and error are in the files "out" and "err". */
static int run(const char *const *words)
{
    char out[400], err[400];
    (void)snprintf(out, sizeof out, "%s", in_folder("out"));
    (void)snprintf(err, sizeof err, "%s", in_folder("err"));
    return test_wait(test_start(test_folder(), words, out, err));
}

static const char *const k_train[] = {
    "balora", "train",        "--model", "acme/tiny", "--data", "acme/sums", "--out",   "ba", "--max-steps",
    "2",      "--batch-size", "2",       "--r",       "2",      "--db",      "runs.db", NULL};

/* A model and data by name train; nothing that stays holds the token. */
TEST(trains)
{
    static const char *const get[] = {"balora", "data", "get", "acme/sums", NULL};
    static const char *const files[] = {"ba/adapter_config.json", "ba/balora/recipe.json", "runs.db", "out", "err"};
    hub_test m, d;
    if (!start_data(&d))
        return;
    CHECK_MSG(run(get) == 0, "%s", text_of("err"));
    CHECK(strstr(text_of("out"), "/data/test.jsonl\n") != NULL &&
          strstr(text_of("out"), "/data/train.jsonl\n") != NULL);
    CHECK(strstr(text_of("err"), "fetching  2 files of acme/sums") != NULL);
    hub_test_stop(&d);
    if (!start_model(&m))
        return;
    m.fault = HUB_GATED;
    CHECK_MSG(run(k_train) == 0, "%s", text_of("err"));
    CHECK(atomic_load(&m.fetched) == 2 && atomic_load(&m.cdn.requests) == 1 && atomic_load(&m.cdn.with_key) == 0);
    CHECK(strstr(text_of("ba/balora/recipe.json"), "\"acme/tiny\"") != NULL);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        bal_buf b = {0};
        CHECK_OK(bal_file_read(in_folder(files[i]), 1 << 24, &b));
        CHECK_MSG(b.len > 0 || i == 3, "%s is empty", files[i]);
        CHECK_MSG(b.len == 0 || memmem(b.data, b.len, "hf_secret", 9) == NULL, "the token is in %s", files[i]);
        bal_buf_dispose(&b);
    }
    hub_test_stop(&m);
}

/* Exit status and one line on standard error. */
static void refused(hub_fault fault, int want, const char *says)
{
    static const char *const words[] = {"balora", "train", "--model", "acme/tiny", "--data",
                                        "x",      "--out", "no",      "-q",        NULL};
    hub_test h;
    if (!start_model(&h))
        return;
    (void)bal_folder_remove(in_folder("hf"));
    h.fault = fault;
    h.cut = 100;
    if (fault == HUB_GATED)
        (void)unsetenv("HF_TOKEN");
    int status = run(words);
    const char *err = text_of("err");
    CHECK_MSG(status == want && strstr(err, says) != NULL, "fault %d: %d, %s", (int)fault, status, err);
    CHECK_MSG(strstr(err, "balora train: ") != NULL && strstr(err, "hf_secret") == NULL, "fault %d: %s", (int)fault,
              err);
    CHECK_MSG(text_of("out")[0] == '\0', "fault %d writes to standard output", (int)fault);
    hub_test_stop(&h);
}

TEST(exit_statuses)
{
    refused(HUB_NO_REPOSITORY, 3, "has no model 'acme/tiny'");
    refused(HUB_GATED, 3, "asks for its terms to be accepted");
    refused(HUB_NO_FILE, 3, "has no file 'model.safetensors'");
    refused(HUB_WRONG, 3, "was changed on its way");
    refused(HUB_UP_NAME, 3, "is refused");
    refused(HUB_CIRCLE, 4, "redirects");
    (void)setenv("HF_HUB_OFFLINE", "1", 1);
}

TEST(parquet_and_several_sets)
{
    static const char *const get[] = {"balora", "data", "get", "acme/sums", NULL};
    hub_test h;
    if (!CHECK(hub_test_start(&h, "acme/sums", true)))
        return;
    point_at(&h);
    (void)bal_folder_remove(in_folder("hf"));
    hub_test_add(&h, "main/train-00000-of-00001.parquet", "PAR1", 4, true);
    CHECK(run(get) == 3 &&
          strstr(text_of("err"), "only as Parquet, which is not read; convert it: python3 -c") != NULL);
    hub_test_add(&h, "a/train.csv", "x", 1, false);
    hub_test_add(&h, "b/train.csv", "y", 1, false);
    CHECK(run(get) == 2 && strstr(text_of("err"), "name one, as 'acme/sums:") != NULL);
    CHECK(atomic_load(&h.fetched) == 0);
    hub_test_stop(&h);
}
