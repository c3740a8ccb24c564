/* Decoder models against the numbers of transformers and peft: the built program runs on every case of
 * golden/decoder, and on the real one.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"
#include "tests/golden/compare.h"
#include "tests/program.h"
#include "tests/test.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_WORDS = 64 };

/* The first n words; the exit status. */
static int run_words(const char *dir, const char *const *words, size_t n)
{
    const char *argv[MAX_WORDS] = {NULL};
    for (size_t i = 0; i < n && i < MAX_WORDS - 1; i++)
        argv[i] = words[i];
    return test_wait(test_start(dir, argv, NULL, NULL));
}

/* balora forward on a case; out receives the path of what it wrote. */
static bool forward_case(const char *dir, const char *name, const char *model, const cJSON *options, char out[MAX_PATH])
{
    const char *words[MAX_WORDS] = {"balora", "forward", "--model", model, "--input", "input.json", "--out", out};
    size_t n = 8;
    const cJSON *word = NULL;
    (void)snprintf(out, MAX_PATH, "%s/%s.safetensors", test_folder(), name);
    cJSON_ArrayForEach(word, options)
    {
        if (n < MAX_WORDS - 1 && cJSON_IsString(word))
            words[n++] = word->valuestring;
    }
    int status = run_words(dir, words, n);
    return CHECK_MSG(status == 0, "%s: balora forward ended with %d", name, status);
}

/* The adapter merged into the model by balora merge, against peft's merge_and_unload. */
static void merge_case(const char *dir, const char *name, const cJSON *tolerance)
{
    char want[MAX_PATH], merged[MAX_PATH], out[MAX_PATH];
    (void)snprintf(want, sizeof want, "%.900s/expected_merged.safetensors", dir);
    (void)snprintf(merged, sizeof merged, "%.900s/merged_%.60s", test_folder(), name);
    if (!bal_file_exists(want))
        return;
    const char *words[] = {"balora", "merge", "--model", "model",   "--adapter", "adapter",
                           "--out",  merged,  "--quiet", "--dtype", "f32"};
    int status = run_words(dir, words, sizeof words / sizeof words[0]);
    if (CHECK_MSG(status == 0, "%s: balora merge ended with %d", name, status) &&
        forward_case(dir, name, merged, NULL, out))
        (void)compare_some(name, want, out, NULL, tolerance);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Names of the folder's entries that begin with prefix, sorted; returns their number. */
static size_t list_cases(const char *dir, const char *prefix, char *names[128])
{
    size_t n = 0;
    DIR *d = opendir(dir);
    if (d == NULL)
        return 0;
    for (struct dirent *e = readdir(d); e != NULL && n < 128; e = readdir(d))
        if (bal_starts_with(e->d_name, prefix))
            names[n++] = bal_strdup(e->d_name);
    (void)closedir(d);
    qsort(names, n, sizeof *names, compare_names);
    return n;
}

static void run_cases_of(const char *root, const char *prefix)
{
    char *names[128], dir[MAX_PATH], out[MAX_PATH], want[MAX_PATH];
    size_t run = 0;
    size_t n = list_cases(root, prefix, names);
    CHECK(n > 0);
    for (size_t i = 0; i < n; i++) {
        (void)snprintf(dir, sizeof dir, "%.700s/%.200s", root, names[i]);
        (void)snprintf(want, sizeof want, "%.900s/expected.safetensors", dir);
        cJSON *info = read_json(dir, "case.json");
        if (forward_case(dir, names[i], "model", bal_json_member(info, "options"), out))
            (void)compare_some(names[i], want, out, NULL, bal_json_member(info, "tolerance"));
        merge_case(dir, names[i], bal_json_member(info, "tolerance"));
        cJSON_Delete(info);
        run++;
        bal_free(names[i]);
    }
    CHECK(run > 0);
}

static void run_cases(const char *prefix)
{
    char root[MAX_PATH];
    const char *shared = test_shared("golden/decoder");
    if (shared == NULL)
        SKIP("golden/decoder is not there");
    (void)snprintf(root, sizeof root, "%s", shared);
    run_cases_of(root, prefix);
}

/* Families and options that the shared cases lack, made by tests/peers/families.py --write. */
TEST(own_cases)
{
    char root[MAX_PATH];
    if (CHECK(realpath("tests/golden/decoder", root) != NULL))
        run_cases_of(root, "fwd_");
}

TEST(forward)
{
    run_cases("fwd_");
}

TEST(adapters)
{
    run_cases("adp_");
}

TEST(losses)
{
    run_cases("loss_");
}

/* ---- the real model ---- */

static bool real_case(const char *name, char dir[MAX_PATH], char model[MAX_PATH], cJSON **info)
{
    char part[128];
    const char *file = NULL;
    (void)snprintf(part, sizeof part, "golden/real/%s", name);
    const char *shared = test_shared(part);
    if (shared == NULL)
        return false;
    (void)snprintf(dir, MAX_PATH, "%s", shared);
    *info = read_json(dir, "case.json");
    if (bal_json_text(*info, "case.json", "model", &file, NULL) != BAL_OK || file == NULL)
        return false;
    shared = test_shared(file);
    return shared != NULL && realpath(shared, model) != NULL;
}

TEST(real_forward)
{
    char dir[MAX_PATH], model[MAX_PATH], out[MAX_PATH], want[MAX_PATH];
    cJSON *info = NULL;
    bal_safetensors *expected = NULL, *got = NULL;
    double logits = 0, hidden = 0, loss = 0;
    if (!real_case("smollm2-forward", dir, model, &info)) {
        cJSON_Delete(info);
        SKIP("golden/real or its model is not there");
    }
    const cJSON *tolerance = bal_json_member(info, "tolerance");
    CHECK_OK(bal_json_f64(tolerance, "case.json", "logits_abs", &logits, NULL));
    CHECK_OK(bal_json_f64(tolerance, "case.json", "hidden_rel_to_largest", &hidden, NULL));
    CHECK_OK(bal_json_f64(tolerance, "case.json", "loss_rel", &loss, NULL));
    (void)snprintf(want, sizeof want, "%.900s/expected.safetensors", dir);
    if (forward_case(dir, "smollm2-forward", model, bal_json_member(info, "options"), out) &&
        CHECK_OK(bal_safetensors_open(&expected, want)) && CHECK_OK(bal_safetensors_open(&got, out))) {
        for (size_t i = 0; i < bal_safetensors_count(expected); i++) {
            const bal_tensor *t = bal_safetensors_at(expected, i);
            bool is_logits = bal_starts_with(t->name, "logits");
            double rel = is_logits ? 0 : bal_starts_with(t->name, "hidden") ? hidden : loss;
            compare_tensor("smollm2-forward", t, bal_safetensors_find(got, t->name), rel, is_logits ? logits : 0);
        }
    }
    bal_safetensors_close(expected);
    bal_safetensors_close(got);
    cJSON_Delete(info);
}

/* One line of expected.jsonl against the row of logits that it speaks of. */
static void compare_position(const cJSON *line, const float *row, size_t vocab, double abs, double abs_lse,
                             double rel_l2)
{
    double top = -INFINITY, sum = 0, squares = 0, want_lse = NAN, want_l2 = NAN;
    const cJSON *ids = bal_json_member(line, "top_ids"), *values = bal_json_member(line, "top_logits"), *id = NULL;
    const cJSON *value = values == NULL ? NULL : values->child;
    CHECK_OK(bal_json_f64(line, "expected.jsonl", "logsumexp", &want_lse, NULL));
    CHECK_OK(bal_json_f64(line, "expected.jsonl", "l2", &want_l2, NULL));
    for (size_t i = 0; i < vocab; i++)
        top = fmax(top, (double)row[i]);
    for (size_t i = 0; i < vocab; i++) {
        sum += exp((double)row[i] - top);
        squares += (double)row[i] * (double)row[i];
    }
    CHECK_NEAR(top + log(sum), want_lse, abs_lse);
    CHECK_NEAR(sqrt(squares), want_l2, rel_l2 * want_l2);
    cJSON_ArrayForEach(id, ids)
    {
        if (!CHECK(value != NULL && id->valuedouble >= 0 && id->valuedouble < (double)vocab))
            return;
        CHECK_NEAR(row[(size_t)id->valuedouble], value->valuedouble, abs);
        value = value->next;
    }
}

/* The lines are in the order of the texts; positions count from the start of a text. */
static void compare_logits(const char *dir, const bal_tensor *logits, const cJSON *info)
{
    char path[MAX_PATH];
    bal_buf text = {0};
    double abs = 0, abs_lse = 0, rel_l2 = 0;
    size_t vocab = logits->shape[1], start = 0, lines = 0;
    const cJSON *tolerance = bal_json_member(info, "tolerance"), *name = bal_json_member(info, "texts")->child;
    const cJSON *length = bal_json_member(info, "lengths")->child;
    CHECK_OK(bal_json_f64(tolerance, "case.json", "logit_abs", &abs, NULL));
    CHECK_OK(bal_json_f64(tolerance, "case.json", "logsumexp_abs", &abs_lse, NULL));
    CHECK_OK(bal_json_f64(tolerance, "case.json", "l2_rel", &rel_l2, NULL));
    (void)snprintf(path, sizeof path, "%.900s/expected.jsonl", dir);
    CHECK_OK(bal_file_read(path, 1 << 26, &text));
    for (char *at = text.data; at != NULL && *at != '\0';) {
        size_t n = strcspn(at, "\n");
        cJSON *line = NULL;
        const char *label = "";
        double position = -1;
        CHECK_OK(bal_json_parse(&line, at, n, "expected.jsonl"));
        CHECK_OK(bal_json_text(line, "expected.jsonl", "text", &label, NULL));
        CHECK_OK(bal_json_f64(line, "expected.jsonl", "position", &position, NULL));
        while (name != NULL && length != NULL && strcmp(name->valuestring, label) != 0) {
            start += (size_t)length->valuedouble;
            name = name->next;
            length = length->next;
        }
        if (CHECK(name != NULL && position >= 0 && start + (size_t)position < logits->shape[0]))
            compare_position(line, (const float *)logits->data + (start + (size_t)position) * vocab, vocab, abs,
                             abs_lse, rel_l2);
        cJSON_Delete(line);
        lines++;
        at += n + (at[n] == '\n');
    }
    CHECK(lines == 36);
    bal_buf_dispose(&text);
}

TEST(real_logits)
{
    char dir[MAX_PATH], model[MAX_PATH], out[MAX_PATH];
    cJSON *info = NULL;
    bal_safetensors *got = NULL;
    if (!real_case("smollm2-logits", dir, model, &info)) {
        cJSON_Delete(info);
        SKIP("golden/real or its model is not there");
    }
    if (forward_case(dir, "smollm2-logits", model, NULL, out) && CHECK_OK(bal_safetensors_open(&got, out))) {
        const bal_tensor *logits = bal_safetensors_find(got, "logits");
        if (CHECK(logits != NULL && logits->n_dims == 2))
            compare_logits(dir, logits, info);
    }
    bal_safetensors_close(got);
    cJSON_Delete(info);
}
