/* Answers of GSM8K: own cases, and all columns of the reference vectors when they are there.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/rng.h"
#include "lib/io/jsonl.h"
#include "lib/text/answer.h"
#include "tests/test.h"

#include <stdlib.h>
#include <string.h>

typedef bal_status extract_fn(const char *text, bal_buf *out);

static bool extracts(extract_fn *fn, const char *text, const char *want)
{
    bal_buf out = {0};
    bool ok = CHECK_OK(fn(text, &out)) && CHECK_TEXT(bal_buf_cstr(&out), want);
    bal_buf_dispose(&out);
    return ok;
}

static double judged(const char *scorer, size_t filter, const char *output, const char *gold)
{
    bal_buf out = {0};
    bal_verdict v = {0};
    const bal_scorer *s = bal_scorer_find(scorer);
    if (!CHECK(s != NULL && filter < s->n_filters))
        return -1;
    CHECK_OK(s->filters[filter].judge(output, gold, &out, &v));
    bal_buf_dispose(&out);
    return v.score;
}

TEST(extraction)
{
    extracts(bal_extract_strict, "a #### -1,2.3. b #### 4", "-1,2.3.");
    extracts(bal_extract_strict, "#### $4 #### - #### 7", "7");
    extracts(bal_extract_strict, "####5", "[invalid]");
    extracts(bal_extract_cot, "The answer is 5", "[invalid]"); /* needs one more character */
    extracts(bal_extract_cot, "The answer is 15", "1");
    extracts(bal_extract_cot, "The answer is 15\nThe answer is 7.", "1");
    extracts(bal_extract_cot, "The answer is -5 The answer is 7.", "-5");
    extracts(bal_extract_flexible, "3 - 4 is -$1.", "-$1.");
    extracts(bal_extract_flexible, "x-5-", "-5");
    extracts(bal_extract_flexible, "- . , $", "[invalid]");
    extracts(bal_extract_llama, "The final answer is 3. The final answer is $", "3.");
    extracts(bal_extract_self_consistency, "The answer is 1,000.", "1,000");
    extracts(bal_extract_self_consistency, "The answer is .,. The answer is -2.", "-2");
}

TEST(metamath_numbers)
{
    static const struct {
        const char *text, *want; /* NULL: none */
    } cases[] = {{"The answer is: 7/2", "4"},
                 {"The answer is: -5/2", "-2"},
                 {"The answer is: 3/0", "3"},
                 {"The answer is: 3/00", NULL},
                 {"The answer is: -/4", NULL},
                 {"The answer is: ,5", "5"},
                 {"The answer is: 1,450,000", "1450"},
                 {"The answer is: 3. The answer is: x", NULL},
                 {"The answer is: 5The answer is: 6.", "6"},
                 {"The answer is:\n4", NULL},
                 {"The answer is: +8", "8"},
                 {"The answer is: -0.4", "0"},
                 {"answer is: 4", NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bal_buf out = {0};
        double number = 0;
        bool found = bal_extract_metamath(cases[i].text, &number, &out);
        CHECK_MSG(found == (cases[i].want != NULL), "case %zu", i);
        CHECK_TEXT(bal_buf_cstr(&out), cases[i].want == NULL ? "" : cases[i].want);
        bal_buf_dispose(&out);
    }
}

TEST(verdicts)
{
    CHECK(judged("gsm8k", 0, "#### 1,450", "so\n#### 1450") == 1);
    CHECK(judged("gsm8k", 0, "#### 29.", "29") == 1);
    CHECK(judged("gsm8k", 0, "#### 29.00", "29") == 0);
    CHECK(judged("gsm8k", 1, "it is $29", "29") == 1);
    CHECK(judged("gsm8k", 1, "none", "29") == 0);
    CHECK(judged("gsm8k_cot", 0, "The answer is 29.", "#### 29") == 1);
    CHECK(judged("gsm8k_pissa", 0, "The answer is: 28.6", "x\n#### 29") == 1);
    CHECK(judged("gsm8k_pissa", 0, "The answer is: 1450", "#### 1,450") == 1);
    CHECK(judged("gsm8k_pissa", 0, "29", "29") == 0);
    CHECK(bal_scorer_find("gsm9k") == NULL);
    size_t n = 0;
    const char *const *names = bal_scorer_names(&n);
    for (size_t i = 0; i < n; i++)
        CHECK(bal_scorer_find(names[i]) != NULL);
}

static const char *text_of(const cJSON *line, const char *key)
{
    const cJSON *v = bal_json_member(line, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static void check_metamath(const cJSON *line, const char *text, const char *gold)
{
    bal_buf out = {0};
    double number = 0;
    const cJSON *want = bal_json_member(line, "metamath_number");
    bool found = bal_extract_metamath(text, &number, &out);
    CHECK_MSG(found == (want != NULL), "metamath_number of '%s'", text);
    if (found && want != NULL)
        CHECK_NEAR(number, cJSON_IsString(want) ? strtod(want->valuestring, NULL) : want->valuedouble, 0);
    bool right = judged("gsm8k_pissa", 0, text, gold) == 1;
    CHECK_MSG(right == (cJSON_IsTrue(bal_json_member(line, "metamath_correct")) != 0), "metamath_correct of '%s'",
              text);
    bal_buf_dispose(&out);
}

TEST(reference_vectors)
{
    static const struct {
        const char *key;
        extract_fn *fn;
    } columns[] = {{"lm_eval_strict", bal_extract_strict},
                   {"lm_eval_flexible", bal_extract_flexible},
                   {"lm_eval_cot_strict", bal_extract_cot},
                   {"lm_eval_selfconsistency", bal_extract_self_consistency},
                   {"lm_eval_llama_strict", bal_extract_llama}};
    const char *path = test_shared("vectors/gsm8k_extract.jsonl");
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    size_t n = 0;
    if (path == NULL)
        SKIP("../shared is not there");
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        const char *text = text_of(line, "text"), *gold = text_of(line, "gold");
        for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++)
            extracts(columns[c].fn, text, text_of(line, columns[c].key));
        CHECK_NEAR(judged("gsm8k", 0, text, gold), bal_json_member(line, "em_strict")->valuedouble, 0);
        CHECK_NEAR(judged("gsm8k", 1, text, gold), bal_json_member(line, "em_flexible")->valuedouble, 0);
        CHECK_NEAR(judged("gsm8k_cot", 0, text, gold), bal_json_member(line, "em_cot_strict")->valuedouble, 0);
        check_metamath(line, text, gold);
        n++;
        cJSON_Delete(line);
    }
    CHECK(n > 10);
    bal_lines_close(lines);
}

/* The draws of few-shot examples and of resamples (python_random.jsonl). */
TEST(reference_draws)
{
    enum { MAX_POOL = 100000 };
    static uint32_t scratch[MAX_POOL], got[64];
    const char *path = test_shared("vectors/python_random.jsonl");
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    if (path == NULL)
        SKIP("../shared is not there");
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        bal_mt19937 mt;
        const char *kind = text_of(line, "kind");
        const cJSON *call = NULL;
        bal_mt_init(&mt, (uint64_t)bal_json_member(line, "seed")->valuedouble);
        if (strcmp(kind, "sample") == 0) {
            size_t n = (size_t)bal_json_member(line, "population")->valuedouble;
            size_t k = (size_t)bal_json_member(line, "k")->valuedouble;
            cJSON_ArrayForEach(call, bal_json_member(line, "calls"))
            {
                if (!CHECK(n <= MAX_POOL && k <= 64))
                    break;
                bal_mt_sample(&mt, n, k, got, scratch);
                for (size_t i = 0; i < k; i++)
                    CHECK_NEAR(got[i], cJSON_GetArrayItem(call, (int)i)->valuedouble, 0);
            }
        } else if (strcmp(kind, "choices") == 0) {
            size_t n = (size_t)bal_json_member(line, "population")->valuedouble;
            size_t k = (size_t)bal_json_member(line, "k")->valuedouble;
            cJSON_ArrayForEach(call, bal_json_member(line, "calls"))
            {
                if (!CHECK(n > 0 && k <= 64))
                    break;
                bal_mt_choices(&mt, n, k, got);
                for (size_t i = 0; i < k; i++)
                    CHECK_NEAR(got[i], cJSON_GetArrayItem(call, (int)i)->valuedouble, 0);
            }
        } else if (strcmp(kind, "shuffle") == 0) {
            for (uint32_t i = 0; i < 10; i++)
                got[i] = i;
            bal_mt_shuffle(&mt, got, 10);
            for (int i = 0; i < 10; i++)
                CHECK_NEAR(got[i], cJSON_GetArrayItem(bal_json_member(line, "result"), i)->valuedouble, 0);
        } else if (strcmp(kind, "mt19937_getrandbits32") == 0) {
            cJSON_ArrayForEach(call, bal_json_member(line, "values"))
                CHECK_NEAR(bal_mt_next(&mt), call->valuedouble, 0);
        } else if (strcmp(kind, "random_float") == 0) {
            cJSON_ArrayForEach(call, bal_json_member(line, "values"))
                CHECK_NEAR(bal_mt_random(&mt), call->valuedouble, 0);
        } else {
            test_fail(__FILE__, __LINE__, "%s: nothing checks the kind '%s'", path, kind);
        }
        cJSON_Delete(line);
    }
    bal_lines_close(lines);
}
