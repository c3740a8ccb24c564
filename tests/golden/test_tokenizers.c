/* Every golden line of the tokenizers that are supported.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/io/jsonl.h"
#include "lib/text/chat.h"
#include "lib/text/tokenizer.h"

#include <stdio.h>
#include <string.h>

static bool same_ids(const bal_ids *got, const cJSON *want)
{
    size_t i = 0;
    for (const cJSON *v = want != NULL ? want->child : NULL; v != NULL; v = v->next, i++)
        if (i >= got->n || (double)got->data[i] != v->valuedouble)
            return false;
    return want != NULL && i == got->n;
}

static void check_encode(const bal_tokenizer *t, const cJSON *line, const char *key, bool special, const char *name,
                         size_t number)
{
    char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "text"));
    const cJSON *want = cJSON_GetObjectItemCaseSensitive(line, key);
    char copy[1 << 16];
    bal_ids ids = {0};
    if (want == NULL || !CHECK(strlen(text) < sizeof copy))
        return;
    memcpy(copy, text, strlen(text) + 1);
    if (CHECK_OK(bal_tokenizer_encode(t, copy, bal_json_text_bytes(copy), special, &ids)))
        CHECK_MSG(same_ids(&ids, want), "%s, line %zu: %s differ for '%.60s'", name, number, key, text);
    bal_ids_dispose(&ids);
}

static void check_decode(const bal_tokenizer *t, const cJSON *line, const char *key, bool skip, const char *name,
                         size_t number)
{
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(line, "ids");
    char *want = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, key));
    size_t n = want != NULL ? bal_json_text_bytes(want) : 0;
    bal_ids ids = {0};
    bal_buf text = {0};
    for (const cJSON *v = list != NULL ? list->child : NULL; v != NULL; v = v->next)
        CHECK_OK(bal_ids_append(&ids, (int32_t)v->valuedouble));
    if (want != NULL && CHECK_OK(bal_tokenizer_decode(t, ids.data, ids.n, skip, &text)))
        CHECK_MSG(text.len == n && memcmp(bal_buf_cstr(&text), want, n) == 0, "%s, line %zu: %s is '%s', not '%s'",
                  name, number, key, bal_buf_cstr(&text), want);
    bal_ids_dispose(&ids);
    bal_buf_dispose(&text);
}

static void check_file(const char *tokenizer, const char *golden, const char *name)
{
    bal_tokenizer *t = NULL;
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    size_t n = 0;
    if (CHECK_OK(bal_tokenizer_load(&t, tokenizer)) && CHECK_OK(bal_lines_open(&lines, golden))) {
        while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
            check_encode(t, line, "ids", false, name, bal_lines_number(lines));
            check_encode(t, line, "ids_special", true, name, bal_lines_number(lines));
            check_decode(t, line, "decoded", false, name, bal_lines_number(lines));
            check_decode(t, line, "decoded_skip", true, name, bal_lines_number(lines));
            check_decode(t, line, "decoded_skip_special", true, name, bal_lines_number(lines));
            cJSON_Delete(line);
            n++;
        }
        CHECK(n >= 10);
    }
    bal_lines_close(lines);
    bal_tokenizer_free(t);
}

static void check_folder(const char *name)
{
    char folder[64], golden[96];
    (void)snprintf(folder, sizeof folder, "tokenizers/%s", name);
    (void)snprintf(golden, sizeof golden, "tokenizers/%s/golden.jsonl", name);
    const char *f = test_shared(folder), *g = test_shared(golden);
    if (f == NULL || g == NULL)
        SKIP("the shared tokenizers are not there");
    check_file(f, g, name);
}

TEST(llama2)
{
    check_folder("llama2");
}
TEST(mistral)
{
    check_folder("mistral");
}
TEST(llama3)
{
    check_folder("llama3");
}
TEST(gemma3)
{
    check_folder("gemma3");
}
TEST(qwen3)
{
    check_folder("qwen3");
}
TEST(gpt2)
{
    check_folder("gpt2");
}
TEST(roberta)
{
    check_folder("roberta");
}
TEST(bert)
{
    check_folder("bert");
}
TEST(t5)
{
    check_folder("t5");
}

#define SMOLLM2 "models/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"

TEST(smollm2_gguf)
{
    const char *model = test_shared(SMOLLM2), *golden = test_shared("golden/real/smollm2-tokens/tokens.jsonl");
    if (model == NULL || golden == NULL)
        SKIP("the shared model is not there");
    check_file(model, golden, "smollm2");
}

TEST(smollm2_chat)
{
    const char *model = test_shared(SMOLLM2), *golden = test_shared("golden/real/smollm2-tokens/chat.jsonl");
    bal_tokenizer *t = NULL;
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    if (model == NULL || golden == NULL)
        SKIP("the shared model is not there");
    if (!CHECK_OK(bal_tokenizer_load(&t, model)) || !CHECK_OK(bal_lines_open(&lines, golden)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(line, "messages");
        bal_message messages[16];
        size_t n = 0;
        for (const cJSON *m = list != NULL ? list->child : NULL; m != NULL && n < 16; m = m->next)
            messages[n++] = (bal_message){cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "role")),
                                          cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(m, "content"))};
        CHECK(n > 0);
        const char *want = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "rendered"));
        bool prompt = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(line, "add_generation_prompt")) != 0;
        bal_buf got = {0};
        bal_ids ids = {0};
        if (CHECK(want != NULL) && CHECK_OK(bal_chat_render(t, messages, n, prompt, &got)) &&
            CHECK_TEXT(bal_buf_cstr(&got), want) && CHECK_OK(bal_tokenizer_encode(t, got.data, got.len, true, &ids)))
            CHECK(same_ids(&ids, cJSON_GetObjectItemCaseSensitive(line, "ids")));
        bal_buf_dispose(&got);
        bal_ids_dispose(&ids);
        cJSON_Delete(line);
    }
    bal_lines_close(lines);
    bal_tokenizer_free(t);
}
