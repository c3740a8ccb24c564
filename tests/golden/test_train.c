/* `balora train` against traces of PyTorch, transformers and peft: every column of every step, and the final factors.
 * The real model's 20 steps take minutes and run with BALORA_SLOW=1; without it, its first 3 steps.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/program.h"
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "lib/io/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_PATH = 1024, MAX_STEPS = 64 };

static const char *const k_columns[][2] = {{"lr", "lr"},
                                           {"task", "loss/task"},
                                           {"consistency", "loss/consistency"},
                                           {"diversity", "loss/diversity"},
                                           {"spectral", "loss/spectral"},
                                           {"total", "loss/total"},
                                           {"grad_norm", "grad_norm"}};
enum { COLUMNS = sizeof k_columns / sizeof *k_columns };

static int run_balora(const char **words)
{
    words[0] = "balora";
    return test_wait(test_start(NULL, words, NULL, NULL));
}

static size_t read_trace(const char *path, cJSON *steps[MAX_STEPS])
{
    bal_lines *lines = NULL;
    size_t n = 0;
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return 0;
    while (n < MAX_STEPS && bal_jsonl_next(lines, &steps[n]) == BAL_OK && steps[n] != NULL)
        n++;
    bal_lines_close(lines);
    return n;
}

static double number(const cJSON *step, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(step, key);
    return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

static void tolerance_of(const cJSON *all, const char *kind, double *rel, double *abs)
{
    const cJSON *one = cJSON_GetObjectItemCaseSensitive(all, kind);
    *rel = number(one, "rel");
    *abs = number(one, "abs");
}

/* Terms whose weight is 0 may be missing from a program's trace. */
static void compare_column(const char *name, const cJSON *want, cJSON *const *got, size_t n, const char *const keys[2],
                           const cJSON *tolerance)
{
    double rel = 0, abs = 0, largest = 0;
    tolerance_of(tolerance, keys[0], &rel, &abs);
    if (!(rel > 0) || cJSON_GetObjectItemCaseSensitive(want->child, keys[0]) == NULL)
        return;
    for (const cJSON *s = want->child; s != NULL; s = s->next)
        largest = fmax(largest, fabs(number(s, keys[0])));
    size_t i = 0;
    for (const cJSON *s = want->child; s != NULL && i < n; s = s->next, i++) {
        double w = number(s, keys[0]), g = number(got[i], keys[1]);
        CHECK_MSG(fabs(g - w) <= rel * largest + abs, "%s, step %zu: %s is %.9g instead of %.9g", name, i + 1, keys[1],
                  g, w);
    }
}

static void compare_factors(const char *name, const char *dir, const char *out, double rel, double abs)
{
    char want_path[MAX_PATH], got_path[MAX_PATH];
    bal_safetensors *want = NULL, *got = NULL;
    (void)snprintf(want_path, sizeof want_path, "%.900s/expected.safetensors", dir);
    (void)snprintf(got_path, sizeof got_path, "%.900s/pissa", out);
    bool pair = bal_folder_exists(got_path);
    (void)snprintf(got_path, sizeof got_path, "%.900s/%sadapter_model.safetensors", out, pair ? "pissa/" : "");
    if (CHECK_OK(bal_safetensors_open(&want, want_path)) && CHECK_OK(bal_safetensors_open(&got, got_path))) {
        CHECK(bal_safetensors_count(want) == bal_safetensors_count(got));
        for (size_t i = 0; i < bal_safetensors_count(want); i++) {
            const bal_tensor *w = bal_safetensors_at(want, i), *g = bal_safetensors_find(got, w->name);
            if (!CHECK_MSG(g != NULL && g->n_elements == w->n_elements, "%s: %s is missing or of another shape", name,
                           w->name))
                continue;
            const float *x = w->data, *y = g->data;
            double largest = 0;
            bool near = true;
            for (size_t j = 0; j < w->n_elements; j++)
                largest = fmax(largest, fabs((double)x[j]));
            for (size_t j = 0; j < w->n_elements; j++)
                near = near && fabs((double)x[j] - (double)y[j]) <= rel * largest + abs;
            CHECK_MSG(near, "%s: final %s differs", name, w->name);
        }
    }
    bal_safetensors_close(want);
    bal_safetensors_close(got);
}

static void run_case(const char *name, const char *recipe)
{
    char part[256], dir[MAX_PATH], out[MAX_PATH], trace[MAX_PATH], db[MAX_PATH], file[5][MAX_PATH];
    (void)snprintf(part, sizeof part, "golden/decoder/%s", name);
    const char *shared = test_shared(part);
    if (shared == NULL)
        SKIP("../shared/golden is not there");
    (void)snprintf(dir, sizeof dir, "%s", shared);
    (void)snprintf(out, sizeof out, "%s/%s-%s", test_folder(), name, recipe);
    (void)snprintf(trace, sizeof trace, "%.900s.jsonl", out);
    (void)snprintf(db, sizeof db, "%s/runs.db", test_folder());
    static const char *const parts[] = {"model", "train.jsonl", "initial_adapter", "expected.json", "case.json"};
    for (size_t i = 0; i < 5; i++)
        (void)snprintf(file[i], sizeof file[i], "%.900s/%s", dir, parts[i]);
    (void)snprintf(part, sizeof part, "golden/decoder/%s/%s", name, recipe);
    const char *words[] = {NULL,
                           "train",
                           "--config",
                           test_shared(part),
                           "--model",
                           file[0],
                           "--data",
                           file[1],
                           "--out",
                           out,
                           "--init-adapter",
                           file[2],
                           "--metrics-out",
                           trace,
                           "--db",
                           db,
                           "-q",
                           "--threads",
                           "2",
                           NULL};
    cJSON *expected = NULL, *about = NULL, *steps[MAX_STEPS] = {NULL};
    double rel = 0, abs = 0;
    if (CHECK_MSG(run_balora(words) == 0, "%s with %s did not train", name, recipe) &&
        CHECK_OK(bal_json_read(&expected, file[3], 1 << 26)) && CHECK_OK(bal_json_read(&about, file[4], 1 << 20))) {
        const cJSON *want = cJSON_GetObjectItemCaseSensitive(expected, "steps");
        const cJSON *tolerance = cJSON_GetObjectItemCaseSensitive(about, "tolerance");
        size_t n = read_trace(trace, steps);
        CHECK(n == (size_t)cJSON_GetArraySize(want));
        for (size_t c = 0; c < COLUMNS; c++)
            compare_column(name, want, steps, n, k_columns[c], tolerance);
        tolerance_of(tolerance, "final_adapter", &rel, &abs);
        compare_factors(name, dir, out, rel, abs);
        for (size_t i = 0; i < n; i++)
            cJSON_Delete(steps[i]);
    }
    cJSON_Delete(expected);
    cJSON_Delete(about);
}

TEST(lora)
{
    run_case("train_lora", "recipe.json");
}
TEST(lora_in_micro_batches)
{
    run_case("train_lora", "recipe_accum.json");
}
TEST(pissa)
{
    run_case("train_pissa", "recipe.json");
}
TEST(balora)
{
    run_case("train_balora", "recipe.json");
}
TEST(balora_with_schedules)
{
    run_case("train_balora_schedules", "recipe.json");
}
TEST(balora_gemma2)
{
    run_case("train_balora_gemma2", "recipe.json");
}

static const char *const k_real[][2] = {{"lr", "lr"},
                                        {"rows", "rows"},
                                        {"tokens", "tokens"},
                                        {"loss_task", "loss/task"},
                                        {"loss_consistency", "loss/consistency"},
                                        {"loss_diversity", "loss/diversity"},
                                        {"loss_spectral", "loss/spectral"},
                                        {"loss_total", "loss/total"},
                                        {"grad_norm", "grad_norm"}};

static void compare_real(const char *method, const cJSON *want, const cJSON *got, size_t step)
{
    for (size_t c = 0; c < sizeof k_real / sizeof *k_real; c++) {
        const char *key = k_real[c][0];
        if (cJSON_GetObjectItemCaseSensitive(want, key) == NULL)
            continue;
        double w = number(want, key), g = number(got, k_real[c][1]);
        bool norm = strcmp(key, "grad_norm") == 0, early = step <= 3;
        double rel = norm ? (early ? 5e-4 : 0.02) : (early ? 1e-4 : 2e-3);
        if (strcmp(key, "lr") == 0 || strcmp(key, "rows") == 0 || strcmp(key, "tokens") == 0)
            rel = 1e-6;
        double abs = strcmp(key, "loss_consistency") == 0 ? 1e-6 : 1e-12; /* student = teacher: rounding around 0 */
        CHECK_MSG(fabs(g - w) <= rel * fabs(w) + abs, "%s, step %zu: %s is %.9g instead of %.9g", method, step, key, g,
                  w);
    }
}

static void run_real(const char *method, const char *r, const char *alpha, const char *lambda1, const char *lambda23,
                     bool init)
{
    const char *data = test_shared("golden/real/smollm2-train/batches.jsonl");
    const char *model = test_shared("models/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf");
    const char *start = test_shared("golden/real/smollm2-train/lora_init");
    char name[128], out[MAX_PATH], trace[MAX_PATH], db[MAX_PATH];
    (void)snprintf(name, sizeof name, "golden/real/smollm2-train/%s.jsonl", method);
    const char *expected = test_shared(name);
    if (data == NULL || model == NULL || start == NULL || expected == NULL)
        SKIP("../shared/golden/real or the model is not there");
    const char *slow = getenv("BALORA_SLOW");
    bool all = slow != NULL && strcmp(slow, "1") == 0;
    (void)snprintf(out, sizeof out, "%s/real-%s", test_folder(), method);
    (void)snprintf(trace, sizeof trace, "%.900s.jsonl", out);
    (void)snprintf(db, sizeof db, "%s/runs.db", test_folder());
    const char *words[48] = {NULL,
                             "train",
                             "--model",
                             model,
                             "--data",
                             data,
                             "--order",
                             "file",
                             "--method",
                             method,
                             "--r",
                             r,
                             "--lora-alpha",
                             alpha,
                             "--lr",
                             "2e-4",
                             "--batch-size",
                             "4",
                             "--micro-batch-size",
                             "4",
                             "--max-steps",
                             "20",
                             "--warmup-ratio",
                             "0.03",
                             "--lambda1",
                             lambda1,
                             "--lambda2",
                             lambda23,
                             "--lambda3",
                             lambda23,
                             "--out",
                             out,
                             "--metrics-out",
                             trace,
                             "--db",
                             db,
                             "-q",
                             "--save-seconds",
                             "0"};
    size_t n = 40;
    while (words[n - 1] == NULL)
        n--;
    if (init) {
        words[n++] = "--init-adapter";
        words[n++] = start;
    }
    if (!all) {
        words[n++] = "--stop-after";
        words[n++] = "3";
    }
    cJSON *want[MAX_STEPS] = {NULL}, *got[MAX_STEPS] = {NULL};
    if (!CHECK_MSG(run_balora(words) == 0, "%s did not train", method))
        return;
    size_t n_want = read_trace(expected, want), n_got = read_trace(trace, got);
    CHECK(n_want == 20 && n_got == (all ? 20U : 3U));
    for (size_t i = 0; i < n_got && i < n_want; i++)
        compare_real(method, want[i], got[i], i + 1);
    for (size_t i = 0; i < MAX_STEPS; i++) {
        cJSON_Delete(want[i]);
        cJSON_Delete(got[i]);
    }
}

TEST(real_lora)
{
    run_real("lora", "4", "8", "0", "0", true);
}
TEST(real_pissa)
{
    run_real("pissa", "16", "16", "0", "0", false);
}
TEST(real_balora)
{
    run_real("ba-lora-nlg", "16", "16", "0.025", "0.005", false);
}
