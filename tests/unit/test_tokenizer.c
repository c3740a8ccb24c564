/* lib/text on a handmade tokenizer.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/text/tokenizer.h"

#include <stdio.h>
#include <string.h>

static const char k_head[] =
    "{\"added_tokens\": [{\"id\": 9, \"content\": \"<s>\", \"special\": true, \"normalized\": false}],"
    "\"normalizer\": %s, \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\s+\"}, \"behavior\": \"%s\"},"
    "\"post_processor\": null, \"decoder\": {\"type\": \"Fuse\"},"
    "\"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"abab\": 3, \" \": 4, \"?\": 5,"
    " \"\\uFFFD\": 6, \" a\": 7, \"aa\": 8}, \"merges\": [\"a b\", \"ab ab\", \"a a\", [\" \", \"a\"]]}}";

static bal_status load(bal_tokenizer **t, const char *normalizer, const char *behavior)
{
    char *path = bal_path_join(test_folder(), "tokenizer.json");
    bal_buf text = {0};
    char json[2048];
    (void)snprintf(json, sizeof json, k_head, normalizer, behavior); // NOLINT: the format is a constant above
    bal_status status = bal_file_replace(path, json, strlen(json));
    if (status == BAL_OK)
        status = bal_tokenizer_load(t, path);
    bal_buf_dispose(&text);
    bal_free(path);
    return status;
}

static void check_ids(const bal_tokenizer *t, const char *text, const char *want)
{
    bal_ids ids = {0};
    char got[256] = "";
    size_t at = 0;
    CHECK_OK(bal_tokenizer_encode(t, text, strlen(text), true, &ids));
    for (size_t i = 0; i < ids.n && at < sizeof got; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%d", i > 0 ? " " : "", (int)ids.data[i]);
    CHECK_TEXT(got, want);
    bal_ids_dispose(&ids);
}

TEST(merges_by_rank_and_splits)
{
    bal_tokenizer *t = NULL;
    if (!CHECK_OK(load(&t, "null", "MergedWithNext")))
        return;
    check_ids(t, "ababab", "3 2");
    check_ids(t, "aab", "0 2"); /* "a b" comes before "a a" */
    check_ids(t, "ab a", "2 7");
    check_ids(t, "a<s>b", "0 9 1");
    check_ids(t, "axb", "0 5 1");
    check_ids(t, "a\xF0\x9F\x98", "0 6");  /* a sequence cut short is one U+FFFD */
    check_ids(t, "\xFF\xC0\x80", "6 6 6"); /* three impossible bytes are three */
    check_ids(t, "", "");
    bal_tokenizer_free(t);
    if (!CHECK_OK(load(&t, "null", "Removed")))
        return;
    check_ids(t, "ab a", "2 0");
    bal_tokenizer_free(t);
    if (!CHECK_OK(load(&t, "{\"type\": \"Replace\", \"pattern\": {\"String\": \"x\"}, \"content\": \"ab\"}", "Isolated")))
        return;
    check_ids(t, "ax a", "0 2 4 0");
    bal_tokenizer_free(t);
}

TEST(unknown_components_are_refused)
{
    bal_tokenizer *t = NULL;
    CHECK_STATUS(load(&t, "{\"type\": \"Precompiled2\"}", "Isolated"), BAL_EUNSUPPORTED);
    CHECK(strstr(bal_error_message(), "normalizer 'Precompiled2' is not supported") != NULL);
    CHECK_STATUS(load(&t, "null", "Isolate"), BAL_EUNSUPPORTED);
    CHECK_STATUS(bal_tokenizer_load(&t, "/no/such/tokenizer.json"), BAL_ENOENT);
}

TEST(long_text_without_spaces)
{
    enum { N = 1 << 18 };
    bal_tokenizer *t = NULL;
    bal_ids small = {0}, large = {0};
    if (!CHECK_OK(load(&t, "null", "Isolated")))
        return;
    char *text = bal_alloc(N, 1);
    for (size_t i = 0; i < N; i++)
        text[i] = "ab"[i % 2];
    /* a quadratic path would take minutes here */
    CHECK_OK(bal_tokenizer_encode(t, text, N / 16, true, &small));
    CHECK_OK(bal_tokenizer_encode(t, text, N, true, &large));
    CHECK(small.n == N / 16 / 4 && large.n == N / 4);
    bal_free(text);
    bal_ids_dispose(&small);
    bal_ids_dispose(&large);
    bal_tokenizer_free(t);
}
