/* The generated world and the tokenizer trained on it.  SPDX-License-Identifier: Apache-2.0 */
#include "datasets/datasets.h"
#include "lib/base/file.h"
#include "lib/io/json.h"
#include "tests/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each <<a+b=c>> must be true, and the last c be the answer. */
static void check_answer(const char *answer)
{
    double result = 0;
    size_t n = 0;
    for (const char *p = strstr(answer, "<<"); p != NULL; p = strstr(p + 2, "<<"), n++) {
        char *end = NULL;
        double a = strtod(p + 2, &end);
        char op = *end;
        double b = strtod(end + 1, &end);
        result = strtod(end + 1, &end);
        double want = op == '+' ? a + b : op == '-' ? a - b : op == '*' ? a * b : a / b;
        CHECK_MSG(result == want && strncmp(end, ">>", 2) == 0, "wrong sum in: %s", answer);
    }
    const char *mark = strstr(answer, "\n#### ");
    CHECK(n > 0 && mark != NULL && strtod(mark + 6, NULL) == result && result >= 0);
}

TEST(problems_are_right_and_repeatable)
{
    bool kinds[64] = {false};
    size_t n_kinds = 0;
    for (uint64_t i = 0; i < 400; i++) {
        bal_buf a = {0}, b = {0};
        cJSON *json = NULL;
        const char *question = NULL, *answer = NULL, *kind = NULL;
        CHECK_OK(world_problem(&a, 7, i));
        CHECK_OK(world_problem(&b, 7, i));
        CHECK_TEXT(bal_buf_cstr(&a), bal_buf_cstr(&b));
        if (CHECK_OK(bal_json_parse(&json, a.data, a.len, "problem")) &&
            CHECK_OK(bal_json_text(json, "problem", "question", &question, NULL)) &&
            CHECK_OK(bal_json_text(json, "problem", "answer", &answer, NULL)) &&
            CHECK_OK(bal_json_text(json, "problem", "kind", &kind, NULL))) {
            check_answer(answer);
            CHECK(question[strlen(question) - 1] == '?');
            size_t slot = (strlen(kind) * 7 + (size_t)kind[0] + (size_t)kind[1]) % 64;
            n_kinds += !kinds[slot];
            kinds[slot] = true;
        }
        cJSON_Delete(json);
        bal_buf_dispose(&a);
        bal_buf_dispose(&b);
    }
    CHECK(n_kinds >= world_kinds() - 3); /* a slot may be shared */
    bal_buf a = {0}, b = {0};
    CHECK_OK(world_problem(&a, 7, 0));
    CHECK_OK(world_problem(&b, 8, 0));
    CHECK(strcmp(bal_buf_cstr(&a), bal_buf_cstr(&b)) != 0);
    bal_buf_dispose(&a);
    bal_buf_dispose(&b);
}

TEST(trained_tokenizer_reads_back)
{
    static const char *const texts[] = {"Anna has 12 apples. Anna has apples.", "the apples, the boxes",
                                        " apples and\n\napples  x", "grüße apples \xe2\x82\xac 100"};
    bpe_trainer *t = NULL;
    bal_tokenizer *tokenizer = NULL;
    bal_buf json = {0}, text = {0};
    size_t size = 0;
    char path[256];
    (void)snprintf(path, sizeof path, "%s/tokenizer.json", test_folder());
    if (!CHECK_OK(bpe_trainer_new(&t)))
        return;
    for (size_t i = 0; i < 4; i++)
        CHECK_OK(bpe_trainer_add(t, texts[i], strlen(texts[i])));
    CHECK_STATUS(bpe_trainer_finish(t, 100, &json, &size), BAL_EINVAL);
    CHECK_OK(bpe_trainer_finish(t, 300, &json, &size));
    CHECK(size > 260 && size <= 300);
    CHECK_OK(bal_file_replace(path, json.data, json.len));
    if (CHECK_OK(bal_tokenizer_load(&tokenizer, path))) {
        CHECK(bal_tokenizer_vocab_size(tokenizer) == size);
        CHECK(bal_tokenizer_id(tokenizer, "<|endoftext|>") == 0);
        for (size_t i = 0; i < 4; i++) {
            bal_ids ids = {0};
            bal_buf_clear(&text);
            CHECK_OK(bal_tokenizer_encode(tokenizer, texts[i], strlen(texts[i]), true, &ids));
            CHECK_OK(bal_tokenizer_decode(tokenizer, ids.data, ids.n, false, &text));
            CHECK_TEXT(bal_buf_cstr(&text), texts[i]);
            CHECK(ids.n < strlen(texts[i]));
            bal_ids_dispose(&ids);
        }
        bal_ids one = {0};
        CHECK_OK(bal_tokenizer_encode(tokenizer, " apples", 7, true, &one));
        CHECK(one.n == 1); /* the most frequent word became one token */
        bal_ids_dispose(&one);
    }
    bal_tokenizer_free(tokenizer);
    bpe_trainer_free(t);
    bal_buf_dispose(&json);
    bal_buf_dispose(&text);
}
