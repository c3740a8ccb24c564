/* Generation, log-likelihoods, perplexity and GSM8K through the program, against transformers and
 * lm-evaluation-harness; the same bits for any batch and threads; an evaluation that is killed goes on.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/program.h"
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "lib/io/store.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PATH = 1024, MAX_LINES = 128 };

/* A path in the scratch folder; four can be in use. */
static const char *scratch(const char *name)
{
    static char paths[4][MAX_PATH];
    static int next;
    char *path = paths[next++ % 4];
    (void)snprintf(path, MAX_PATH, "%s/%s", test_folder(), name);
    return path;
}

static bool run_balora(const char **words, const char *out)
{
    words[0] = "balora";
    int status = test_wait(test_start(NULL, words, out, "/dev/null"));
    return CHECK_MSG(status == 0, "balora %s: status %d", words[1], status);
}

static size_t read_lines(const char *path, cJSON *lines[MAX_LINES])
{
    bal_lines *l = NULL;
    size_t n = 0;
    if (!CHECK_OK(bal_lines_open(&l, path)))
        return 0;
    while (n < MAX_LINES && CHECK_OK(bal_jsonl_next(l, &lines[n])) && lines[n] != NULL)
        n++;
    bal_lines_close(l);
    return n;
}

static void free_lines(cJSON **lines, size_t n)
{
    for (size_t i = 0; i < n; i++)
        cJSON_Delete(lines[i]);
}

static double number(const cJSON *object, const char *key)
{
    const cJSON *v = bal_json_member(object, key);
    return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

static const char *text(const cJSON *object, const char *key)
{
    const cJSON *v = bal_json_member(object, key);
    return cJSON_IsString(v) ? v->valuestring : "(none)";
}

/* The first n ids of got and want are the same (n < 0: all, and as many). */
static bool same_ids(const cJSON *got, const cJSON *want, int n)
{
    if (n < 0 && cJSON_GetArraySize(got) != cJSON_GetArraySize(want))
        return false;
    for (int i = 0; i < (n < 0 ? cJSON_GetArraySize(want) : n); i++) {
        const cJSON *a = cJSON_GetArrayItem(got, i), *b = cJSON_GetArrayItem(want, i);
        if (a == NULL || b == NULL || a->valuedouble != b->valuedouble)
            return false;
    }
    return true;
}

static void put(bal_buf *b, cJSON *line)
{
    CHECK_OK(bal_json_put(b, line, false));
    CHECK_OK(bal_buf_text(b, "\n"));
    cJSON_Delete(line);
}

static bool evaluate(const char *model, const char *requests, const char *answers, const char *batch,
                     const char *threads)
{
    const char *words[] = {NULL,    "evaluate", "--model",   model,   "--requests",   requests, "--out",
                           answers, "--quiet",  "--threads", threads, "--batch-size", batch,    NULL};
    return run_balora(words, scratch("stdout"));
}

static void check_generation(const char *name)
{
    char folder[256];
    (void)snprintf(folder, sizeof folder, "golden/decoder/%s", name);
    const char *shared = test_shared(folder);
    char model[MAX_PATH], path[MAX_PATH];
    cJSON *input = NULL, *want = NULL, *got[MAX_LINES];
    const cJSON *row = NULL, *item = NULL;
    bal_buf b = {0};
    if (shared == NULL)
        SKIP("../shared is not there");
    (void)snprintf(model, sizeof model, "%s/model", shared);
    (void)snprintf(path, sizeof path, "%s/input.json", shared);
    CHECK_OK(bal_json_read(&input, path, 1 << 20));
    (void)snprintf(path, sizeof path, "%s/expected.json", shared);
    if (!CHECK_OK(bal_json_read(&want, path, 1 << 20)))
        return;
    cJSON_ArrayForEach(row, bal_json_member(input, "input_ids"))
    {
        cJSON *line = cJSON_CreateObject();
        (void)cJSON_AddItemToObject(line, "prompt_ids", cJSON_Duplicate(row, true));
        (void)cJSON_AddNumberToObject(line, "max_new_tokens", number(want, "max_new_tokens"));
        (void)cJSON_AddBoolToObject(line, "ignore_eos", true);
        put(&b, line);
    }
    cJSON_ArrayForEach(item, bal_json_member(want, "loglikelihood"))
    {
        cJSON *line = cJSON_CreateObject();
        (void)cJSON_AddItemToObject(line, "context_ids", cJSON_Duplicate(bal_json_member(item, "context"), true));
        (void)cJSON_AddItemToObject(line, "continuation_ids",
                                    cJSON_Duplicate(bal_json_member(item, "continuation"), true));
        put(&b, line);
    }
    CHECK_OK(bal_file_replace(scratch("gen.jsonl"), b.data, b.len));
    if (evaluate(model, scratch("gen.jsonl"), scratch("gen_out.jsonl"), "0", "2")) {
        size_t n = read_lines(scratch("gen_out.jsonl"), got), i = 0;
        CHECK(n == 6);
        cJSON_ArrayForEach(item, bal_json_member(want, "generate"))
            CHECK(i < n && same_ids(bal_json_member(got[i++], "ids"), bal_json_member(item, "ids"), -1));
        cJSON_ArrayForEach(item, bal_json_member(want, "loglikelihood"))
        {
            if (!CHECK(i < n))
                break;
            CHECK_NEAR(number(got[i], "loglikelihood"), number(item, "sum_logprob"), 1e-4);
            CHECK(cJSON_IsTrue(bal_json_member(got[i++], "is_greedy")) ==
                  cJSON_IsTrue(bal_json_member(item, "is_greedy")));
        }
        free_lines(got, n);
    }
    bal_buf_dispose(&b);
    cJSON_Delete(input);
    cJSON_Delete(want);
}

TEST(gen_llama)
{
    check_generation("gen_llama");
}

TEST(gen_mistral)
{
    check_generation("gen_mistral");
}

TEST(gen_gemma2)
{
    check_generation("gen_gemma2");
}

static bool real_model(char model[MAX_PATH])
{
    const char *path = test_shared("models/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf");
    (void)snprintf(model, MAX_PATH, "%s", path == NULL ? "" : path);
    return path != NULL;
}

/* Requests of both kinds from the real-model files; log-likelihoods first. */
static bool write_real_requests(const cJSON *const *scores, size_t n_scores, const cJSON *const *greedy,
                                size_t n_greedy)
{
    bal_buf b = {0};
    for (size_t i = 0; i < n_scores; i++) {
        cJSON *line = cJSON_CreateObject();
        (void)cJSON_AddStringToObject(line, "context", text(scores[i], "context"));
        (void)cJSON_AddStringToObject(line, "continuation", text(scores[i], "continuation"));
        put(&b, line);
    }
    for (size_t i = 0; i < 2 * n_greedy; i++) { /* each also sampled */
        cJSON *line = cJSON_CreateObject();
        (void)cJSON_AddStringToObject(line, "prompt", text(greedy[i / 2], "prompt"));
        (void)cJSON_AddNumberToObject(line, "max_new_tokens", i % 2 == 0 ? 64 : 12);
        (void)cJSON_AddBoolToObject(line, "ignore_eos", i % 2 == 0);
        if (i % 2 == 1) {
            (void)cJSON_AddNumberToObject(line, "temperature", 0.9);
            (void)cJSON_AddNumberToObject(line, "top_p", 0.95);
            (void)cJSON_AddNumberToObject(line, "seed", 7);
        }
        put(&b, line);
    }
    bool ok = CHECK_OK(bal_file_replace(scratch("real.jsonl"), b.data, b.len));
    bal_buf_dispose(&b);
    return ok;
}

/* The answers to the real-model requests lie within the tolerances of case.json. */
static void check_real(cJSON **scores, size_t n_scores, cJSON **greedy, size_t n_greedy)
{
    cJSON *got[MAX_LINES];
    size_t n = read_lines(scratch("answers.jsonl"), got);
    if (CHECK(n == n_scores + 2 * n_greedy)) {
        for (size_t i = 0; i < n_scores; i++) {
            CHECK_NEAR(number(got[i], "loglikelihood"), number(scores[i], "logprob"), 2.287e-4);
            CHECK(number(got[i], "tokens") == cJSON_GetArraySize(bal_json_member(scores[i], "continuation_ids")));
            CHECK(cJSON_IsTrue(bal_json_member(got[i], "is_greedy")) ==
                  cJSON_IsTrue(bal_json_member(scores[i], "is_greedy")));
        }
        for (size_t i = 0; i < n_greedy; i++) {
            const cJSON *answer = got[n_scores + 2 * i], *gaps = bal_json_member(greedy[i], "top1_minus_top2"), *gap;
            int sure = 0;
            cJSON_ArrayForEach(gap, gaps)
            {
                if (gap->valuedouble < 1.783e-4)
                    break;
                sure++;
            }
            CHECK_MSG(same_ids(bal_json_member(answer, "ids"), bal_json_member(greedy[i], "generated_ids"), sure),
                      "greedy ids of prompt %zu", i);
            if (sure == cJSON_GetArraySize(gaps))
                CHECK_TEXT(text(answer, "text"), text(greedy[i], "text"));
        }
    }
    free_lines(got, n);
}

TEST(real_model_and_same_bits)
{
    char model[MAX_PATH], path[MAX_PATH];
    static const char *const settings[][2] = {{"3", "2"}, {"1", "1"}};
    cJSON *scores[MAX_LINES], *greedy[MAX_LINES];
    bal_buf first = {0}, other = {0};
    if (!real_model(model))
        SKIP("../shared is not there");
    (void)snprintf(path, sizeof path, "%s", test_shared("golden/real/smollm2-loglikelihood/expected.jsonl"));
    size_t n_scores = read_lines(path, scores);
    (void)snprintf(path, sizeof path, "%s", test_shared("golden/real/smollm2-greedy/expected.jsonl"));
    size_t n_greedy = read_lines(path, greedy);
    if (write_real_requests((const cJSON *const *)scores, n_scores, (const cJSON *const *)greedy, n_greedy) &&
        evaluate(model, scratch("real.jsonl"), scratch("answers.jsonl"), "32", "2")) {
        check_real(scores, n_scores, greedy, n_greedy);
        CHECK_OK(bal_file_read(scratch("answers.jsonl"), 1 << 24, &first));
        for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
            bal_buf_clear(&other);
            if (!evaluate(model, scratch("real.jsonl"), scratch("other.jsonl"), settings[i][0], settings[i][1]))
                break;
            CHECK_OK(bal_file_read(scratch("other.jsonl"), 1 << 24, &other));
            CHECK_MSG(first.len == other.len && memcmp(first.data, other.data, first.len) == 0,
                      "batch %s, threads %s: other bits", settings[i][0], settings[i][1]);
        }
    }
    free_lines(scores, n_scores);
    free_lines(greedy, n_greedy);
    bal_buf_dispose(&first);
    bal_buf_dispose(&other);
}

TEST(real_perplexity)
{
    char model[MAX_PATH], input[MAX_PATH], path[MAX_PATH];
    cJSON *want = NULL, *rows[MAX_LINES];
    if (!real_model(model))
        SKIP("../shared is not there");
    (void)snprintf(input, sizeof input, "%s", test_shared("golden/real/smollm2-perplexity/input.json"));
    (void)snprintf(path, sizeof path, "%s", test_shared("golden/real/smollm2-perplexity/expected.json"));
    const char *out = scratch("ppl.jsonl");
    const char *words[] = {NULL, "evaluate", "--model", model, "--perplexity", input, "--out", out, "--quiet", NULL};
    if (!CHECK_OK(bal_json_read(&want, path, 1 << 20)) || !run_balora(words, scratch("stdout")))
        return;
    size_t n = read_lines(out, rows);
    CHECK(n == (size_t)cJSON_GetArraySize(want));
    for (size_t i = 0; i < n; i++) {
        const cJSON *w = cJSON_GetArrayItem(want, (int)i);
        CHECK_NEAR(number(rows[i], "mean_nll"), number(w, "mean_nll"), 1e-5);
        CHECK_NEAR(number(rows[i], "perplexity"), number(w, "perplexity"), 1e-4);
        CHECK(number(rows[i], "tokens") == 1024 && cJSON_GetArraySize(bal_json_member(rows[i], "nll")) == 1023);
    }
    free_lines(rows, n);
    cJSON_Delete(want);
}

/* Prompts, outputs, extraction and verdicts of the first items. */
static void check_task(const char *task, const char *limit)
{
    char model[MAX_PATH], data[MAX_PATH], name[64];
    cJSON *want[MAX_LINES], *got[MAX_LINES];
    size_t compared = 0;
    if (!real_model(model))
        SKIP("../shared is not there");
    (void)snprintf(data, sizeof data, "%s", test_shared("data"));
    const char *db = scratch("task.db"), *samples = scratch("samples");
    const char *words[] = {
        NULL,   "evaluate", "--model", model,     "--tasks",       task,    "--data",         data,  "--limit", limit,
        "--db", db,         "--json",  "--quiet", "--log-samples", samples, "--max-gen-toks", "128", NULL};
    if (!run_balora(words, scratch("results.json")))
        return;
    (void)snprintf(name, sizeof name, "golden/lmeval/%s.jsonl", task);
    size_t n_want = read_lines(test_shared(name), want);
    (void)snprintf(name, sizeof name, "samples/samples_%s.jsonl", task);
    size_t n_got = read_lines(scratch(name), got);
    for (size_t i = 0; i < n_got; i++)
        for (size_t k = 0; k < n_want; k++) {
            const cJSON *g = got[i], *w = want[k];
            if (number(g, "doc_id") != number(w, "doc"))
                continue;
            compared++;
            const cJSON *arguments = bal_json_member(bal_json_member(g, "arguments"), "gen_args_0");
            CHECK_TEXT(text(arguments, "arg_0"), text(w, "prompt"));
            CHECK_TEXT(text(g, "target"), text(w, "target"));
            if (cJSON_IsNumber(bal_json_member(w, "first_step_gap_below_0.01")))
                continue; /* another text is no error */
            const cJSON *filter = bal_json_member(bal_json_member(w, "filters"), text(g, "filter"));
            const cJSON *reply = cJSON_GetArrayItem(cJSON_GetArrayItem(bal_json_member(g, "resps"), 0), 0);
            CHECK_TEXT(cJSON_IsString(reply) ? reply->valuestring : "", text(w, "output"));
            if (strcmp(task, "hendrycks_math500") != 0) /* there lm-eval logs the whole output, we what is compared */
                CHECK_TEXT(cJSON_GetStringValue(cJSON_GetArrayItem(bal_json_member(g, "filtered_resps"), 0)),
                           text(filter, "filtered"));
            CHECK_NEAR(number(g, "exact_match"), number(filter, "exact_match"), 0);
        }
    CHECK(compared >= 2);
    free_lines(want, n_want);
    free_lines(got, n_got);
}

TEST(gsm8k)
{
    check_task("gsm8k", getenv("BALORA_SLOW") != NULL ? "40" : "1");
}

TEST(hendrycks_math500)
{
    check_task("hendrycks_math500", getenv("BALORA_SLOW") != NULL ? "16" : "3");
}

TEST(gsm8k_cot)
{
    check_task("gsm8k_cot", getenv("BALORA_SLOW") != NULL ? "16" : "3");
}

static int64_t count_items(const char *db)
{
    bal_store *s = NULL;
    sqlite3_stmt *st = NULL;
    int64_t n = 0;
    if (!bal_file_exists(db) || bal_store_open(&s, db, false) != BAL_OK)
        return 0;
    if (bal_store_prepare(s, "SELECT count(*) FROM eval_item", &st) == BAL_OK && sqlite3_step(st) == SQLITE_ROW)
        n = sqlite3_column_int64(st, 0);
    (void)sqlite3_finalize(st);
    bal_store_close(s);
    return n;
}

/* Text of "results" in an answer to --json. */
static void results_of(const char *path, bal_buf *out)
{
    cJSON *json = NULL;
    if (CHECK_OK(bal_json_read(&json, path, 1 << 20)))
        CHECK_OK(bal_json_put(out, bal_json_member(json, "results"), false));
    cJSON_Delete(json);
}

TEST(killed_evaluation_goes_on)
{
    char model[MAX_PATH], data[MAX_PATH], db[2][MAX_PATH];
    bal_buf results[2] = {{0}, {0}};
    if (!real_model(model))
        SKIP("../shared is not there");
    (void)snprintf(data, sizeof data, "%s", test_shared("data"));
    for (int i = 0; i < 2; i++)
        (void)snprintf(db[i], MAX_PATH, "%s/kill%d.db", test_folder(), i);
    const char *words[] = {"balora", "evaluate", "--model",      model, "--tasks",        "gsm8k_cot_zeroshot",
                           "--data", data,       "--limit",      "12",  "--max-gen-toks", "24",
                           "--json", "--quiet",  "--batch-size", "2",   "--db",           db[0],
                           NULL};
    pid_t pid = test_start(NULL, words, scratch("killed"), "/dev/null");
    for (int i = 0; pid > 0 && i < 3000 && count_items(db[0]) < 4; i++)
        (void)nanosleep(&(struct timespec){0, 20000000}, NULL);
    (void)kill(pid, SIGKILL);
    CHECK(test_wait(pid) == 128 + SIGKILL);
    int64_t before = count_items(db[0]);
    CHECK(before >= 4 && before < 24);
    if (run_balora(words, scratch("resumed.json"))) {
        CHECK(count_items(db[0]) == 24); /* in the same run: no item twice */
        results_of(scratch("resumed.json"), &results[0]);
    }
    words[17] = db[1];
    if (run_balora(words, scratch("whole.json")))
        results_of(scratch("whole.json"), &results[1]);
    CHECK_TEXT(bal_buf_cstr(&results[0]), bal_buf_cstr(&results[1]));
    bal_buf_dispose(&results[0]);
    bal_buf_dispose(&results[1]);
}
