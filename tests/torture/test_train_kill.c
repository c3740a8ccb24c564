/* kill -9 at any moment, then --resume auto: the adapter and the curve equal those of a run that was left alone.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/program.h"
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/model/model.h"
#include "lib/tensor/real.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PATH = 512, RECORDS = 40 };

static const char k_config[] =
    "{\"model_type\":\"llama\",\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":97,\"rms_norm_eps\":1e-5,"
    "\"max_position_embeddings\":64,\"tie_word_embeddings\":true}";

static void in_folder(const char *name, char out[MAX_PATH])
{
    (void)snprintf(out, MAX_PATH, "%.60s/%.440s", test_folder(), name);
}

static bool prepare(void)
{
    char model[MAX_PATH], data[MAX_PATH];
    in_folder("model", model);
    in_folder("data.jsonl", data);
    bal_model *m = NULL;
    bool ok = CHECK_OK(bal_model_new(&m, k_config, 1)) && CHECK_OK(bal_folder_make(model)) &&
              CHECK_OK(bal_model_save(m, model, BAL_DTYPE_F32));
    bal_model_free(m);
    bal_buf b = {0};
    bal_rng rng;
    bal_rng_init(&rng, 2, "data");
    for (size_t i = 0; i < RECORDS; i++) {
        (void)bal_buf_text(&b, "{\"input_ids\":[");
        size_t n = 6 + bal_rng_below(&rng, 20);
        for (size_t j = 0; j < n; j++)
            (void)bal_buf_printf(&b, "%s%d", j > 0 ? "," : "", (int)bal_rng_below(&rng, 97));
        (void)bal_buf_text(&b, "]}\n");
    }
    ok = ok && CHECK_OK(bal_file_replace(data, b.data, b.len));
    bal_buf_dispose(&b);
    return ok;
}

static pid_t start(const char *name, const char *method)
{
    char model[MAX_PATH], data[MAX_PATH], out[MAX_PATH], curve[MAX_PATH], db[MAX_PATH];
    in_folder("model", model);
    in_folder("data.jsonl", data);
    in_folder(name, out);
    (void)snprintf(curve, sizeof curve, "%.500s.jsonl", out);
    in_folder("runs.db", db);
    const char *words[] = {"balora",
                           "train",
                           "--model",
                           model,
                           "--data",
                           data,
                           "--out",
                           out,
                           "--method",
                           method,
                           "--r",
                           "4",
                           "--lr",
                           "5e-3",
                           "--batch-size",
                           "4",
                           "--micro-batch-size",
                           "2",
                           "--max-steps",
                           "60",
                           "--save-steps",
                           "5",
                           "--save-seconds",
                           "0",
                           "--validation-split",
                           "0.1",
                           "--eval-steps",
                           "7",
                           "--resume",
                           "auto",
                           "--metrics-out",
                           curve,
                           "--db",
                           db,
                           "-q",
                           "--threads",
                           "2",
                           "--order",
                           "random",
                           "--lambda2",
                           "0.01",
                           "--lambda3",
                           "0.01",
                           strcmp(method, "lora") == 0 ? "--lora-dropout" : "--temperature",
                           strcmp(method, "lora") == 0 ? "0.1" : "2",
                           NULL};
    size_t count = sizeof words / sizeof *words;
    if (strcmp(method, "full") == 0) { /* no terms there */
        words[count - 7] = NULL;
    }
    return test_start(NULL, words, NULL, NULL);
}

static void same_file(const char *a, const char *b, const char *file)
{
    char pa[MAX_PATH], pb[MAX_PATH], part[MAX_PATH];
    bal_buf x = {0}, y = {0};
    (void)snprintf(part, sizeof part, "%.200s/%.200s", a, file);
    in_folder(part, pa);
    (void)snprintf(part, sizeof part, "%.200s/%.200s", b, file);
    in_folder(part, pb);
    if (CHECK_OK(bal_file_read(pa, 1 << 26, &x)) && CHECK_OK(bal_file_read(pb, 1 << 26, &y)))
        CHECK_MSG(x.len == y.len && memcmp(x.data, y.data, x.len) == 0, "%s differs between %s and %s", file, a, b);
    bal_buf_dispose(&x);
    bal_buf_dispose(&y);
}

/* Each line without what the clock says. */
static void read_curve(const char *name, bal_buf *out)
{
    char path[MAX_PATH], file[MAX_PATH];
    bal_buf text = {0};
    (void)snprintf(file, sizeof file, "%.200s.jsonl", name);
    in_folder(file, path);
    if (!CHECK_OK(bal_file_read(path, 1 << 26, &text)))
        return;
    for (const char *line = bal_buf_cstr(&text); *line != '\0';) {
        size_t n = strcspn(line, "\n");
        const char *clock = strstr(line, ",\"tokens_per_second\"");
        size_t keep = clock != NULL && clock < line + n ? (size_t)(clock - line) : n;
        (void)bal_buf_append(out, line, keep);
        (void)bal_buf_append(out, "\n", 1);
        line += n + (line[n] == '\n');
    }
    bal_buf_dispose(&text);
}

static void torture(const char *method, const char *file, int kills)
{
    char killed[64], whole[64];
    if (BAL_REAL_IS_DOUBLE)
        SKIP("files hold f32, so only the product goes on bit for bit");
    (void)snprintf(whole, sizeof whole, "%s-whole", method);
    (void)snprintf(killed, sizeof killed, "%s-killed", method);
    if (!prepare() || !CHECK(test_wait(start(whole, method)) == 0))
        return;
    bal_rng rng;
    bal_rng_init(&rng, 9, "kill");
    for (int i = 0; i < kills; i++) {
        pid_t pid = start(killed, method);
        struct timespec wait = {0, 15000000 + (long)bal_rng_below(&rng, 120000000)};
        (void)nanosleep(&wait, NULL);
        (void)kill(pid, SIGKILL);
        int status = 0;
        (void)waitpid(pid, &status, 0);
        if (WIFEXITED(status)) { /* it was quicker */
            CHECK(WEXITSTATUS(status) == 0);
            break;
        }
    }
    CHECK(test_wait(start(killed, method)) == 0);
    same_file(whole, killed, file);
    bal_buf a = {0}, b = {0};
    read_curve(whole, &a);
    read_curve(killed, &b);
    CHECK_TEXT(bal_buf_cstr(&b), bal_buf_cstr(&a));
    bal_buf_dispose(&a);
    bal_buf_dispose(&b);
}

TEST(lora_with_dropout)
{
    torture("lora", "adapter_model.safetensors", 6);
}

TEST(balora)
{
    torture("ba-lora-nlg", "pissa/adapter_model.safetensors", 6);
}

TEST(full)
{
    torture("full", "model.safetensors", 4);
}

TEST(interrupt_saves_and_ends_with_130)
{
    if (!prepare())
        return;
    pid_t pid = start("stopped", "ba-lora-nlg");
    char path[MAX_PATH];
    in_folder("stopped/checkpoint-5", path);
    for (int i = 0; i < 500 && !bal_folder_exists(path); i++) {
        struct timespec wait = {0, 2000000};
        (void)nanosleep(&wait, NULL);
    }
    (void)kill(pid, SIGINT);
    int code = test_wait(pid);
    CHECK(code == 130 || code == 0); /* 0: it had just finished */
    CHECK(test_wait(start("stopped", "ba-lora-nlg")) == 0);
}
