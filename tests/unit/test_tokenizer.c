/* lib/text on a handmade tokenizer.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/text/tokenizer.h"

#include <stdio.h>
#include <string.h>

static const char k_head[] =
    "{\"added_tokens\": [{\"id\": 9, \"content\": \"<s>\", \"special\": true, \"normalized\": false}],"
    "\"normalizer\": %s, \"pre_tokenizer\": {\"type\": \"Split\", \"pattern\": {\"Regex\": \"\\\\s+\"}, \"behavior\": "
    "\"%s\"},"
    "\"post_processor\": null, \"decoder\": {\"type\": \"Fuse\"},"
    "\"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"abab\": 3, \" "
    "\": 4, \"?\": 5,"
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
    if (!CHECK_OK(
            load(&t, "{\"type\": \"Replace\", \"pattern\": {\"String\": \"x\"}, \"content\": \"ab\"}", "Isolated")))
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

/* The handmade vocabulary with other parts around it. */
static bal_status parse(bal_tokenizer **t, const char *added, const char *normalizer, const char *pre_tokenizer)
{
    bal_buf text = {0};
    bal_status status = bal_buf_printf(&text,
                                       "{\"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s, "
                                       "\"post_processor\": null, \"decoder\": {\"type\": \"Fuse\"},"
                                       "\"model\": {\"type\": \"BPE\", \"unk_token\": \"?\", \"vocab\": {\"a\": 0, "
                                       "\"b\": 1, \"ab\": 2, \"A\": 3, \" \": 4, \"?\": 5, \"_\": 6},"
                                       "\"merges\": [\"a b\"]}}",
                                       added, normalizer, pre_tokenizer);
    if (status == BAL_OK)
        status = bal_tokenizer_parse(t, text.data, text.len, "handmade");
    bal_buf_dispose(&text);
    return status;
}

static void check_text(const bal_tokenizer *t, const int32_t *ids, size_t n, bool skip, const char *want)
{
    bal_buf text = {0};
    if (CHECK_OK(bal_tokenizer_decode(t, ids, n, skip, &text)))
        CHECK_TEXT(bal_buf_cstr(&text), want);
    bal_buf_dispose(&text);
}

#define ADDED(ID, TEXT, MORE) "{\"id\": " #ID ", \"content\": \"" TEXT "\", \"special\": false" MORE "}"

TEST(added_tokens_are_cut_out_first)
{
    bal_tokenizer *t = NULL;
    static const char added[] = ADDED(7, "<x>", ", \"normalized\": false, \"lstrip\": true") "," ADDED(
        8, "<x", ", \"normalized\": false, \"rstrip\": true") "," ADDED(9, "bb",
                                                                        ", \"normalized\": false, \"single_word\": "
                                                                        "true") "," ADDED(10, "b",
                                                                                          ", \"normalized\": "
                                                                                          "false, \"single_word\": "
                                                                                          "true") "," ADDED(11, "<y>",
                                                                                                            ", "
                                                                                                            "\"norm"
                                                                                                            "alized"
                                                                                                            "\": "
                                                                                                            "true");
    if (!CHECK_OK(parse(&t, added, "{\"type\": \"Prepend\", \"prepend\": \"_\"}", "null")))
        return;
    check_ids(t, "a<x>a", "6 0 7 6 0");
    check_ids(t, "a \xE3\x80\x80<x>", "6 0 7"); /* lstrip takes any white space, U+3000 too */
    check_ids(t, "<x \na", "8 6 0");
    check_ids(t, "<x>", "7"); /* the longest */
    check_ids(t, "a bb a", "6 0 4 9 6 4 0");
    check_ids(t, "abb", "6 2 1");              /* refused inside a word; its parts are not tried */
    check_ids(t, "bb\xC2\xBD", "9 6 5");       /* a fraction is no part of a word */
    check_ids(t, "bb\xE2\x92\xB6", "6 1 1 5"); /* a circled letter is */
    check_ids(
        t, "<y>a",
        "10 0"); /* b is a token of the model, so the next id is 10; searched for as the normalizer leaves it: _<y> */
    check_text(t, (const int32_t[]){0, 10, 2}, 3, false, "a_<y>ab");
    check_text(t, (const int32_t[]){0, 500, 2}, 3, false, "aab"); /* a row without a token */
    bal_tokenizer_free(t);
}

#define SPLIT(PATTERN, MORE)                                                                                           \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" PATTERN "\"}, \"behavior\": \"Isolated\"" MORE "}"

/* Whether "ab" is one piece (id 2) tells where a pattern cuts. */
TEST(patterns_mean_what_oniguruma_means)
{
    bal_tokenizer *t = NULL;
    if (!CHECK_OK(parse(&t, "", "null", SPLIT("(?=b)", ""))))
        return;
    check_ids(t, "aab", "0 0 1"); /* an empty match cuts too */
    bal_tokenizer_free(t);
    if (!CHECK_OK(
            parse(&t, "", "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"\\\\s\"}, \"content\": \"\"}", "null")))
        return;
    check_ids(t,
              "a\xE2\x80\x83\xE2\x80\xA8"
              "b",
              "2");
    check_ids(t,
              "a\xE1\xA0\x8E"
              "b",
              "0 5 1"); /* U+180E is no white space */
    bal_tokenizer_free(t);
    if (!CHECK_OK(parse(&t, "",
                        "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"[^\\\\p{L}]|\\\\h\"}, \"content\": \"_\"}",
                        "null")))
        return;
    check_ids(t, "a\xF0\xB1\x8D\x90 ", "6 5 6"); /* U+31350, a letter of Unicode 15; a is a hexadecimal digit */
    bal_tokenizer_free(t);
    t = NULL;
    CHECK_STATUS(parse(&t, "", "null", SPLIT("[a&&b]", "")), BAL_EUNSUPPORTED);
    CHECK_STATUS(parse(&t, "", "null", SPLIT("[a", "")), BAL_EFORMAT);
    CHECK(t == NULL);
}

TEST(broken_files_are_refused)
{
    bal_tokenizer *t = NULL;
    CHECK_STATUS(parse(&t, "{\"id\": \"7\", \"content\": \"zz\"}", "null", "null"), BAL_EFORMAT);
    CHECK_STATUS(parse(&t, ADDED(99999999, "zz", ""), "null", "null"), BAL_EFORMAT);
    CHECK_STATUS(parse(&t, ADDED(-1, "zz", ""), "null", "null"), BAL_EFORMAT);
    CHECK_STATUS(bal_tokenizer_parse(&t, "{}", 2, "x"), BAL_EFORMAT);
    CHECK(t == NULL);
}

/* A long text keeps the ids of its words: it must have the ids of its words one by one. */
TEST(words_that_come_back)
{
    enum { WORDS = 6000, MOST = 40 };
    bal_tokenizer *t = NULL;
    bal_ids whole = {0}, parts = {0};
    bal_buf text = {0};
    uint32_t state = 7;
    if (!CHECK_OK(load(&t, "null", "Isolated")))
        return;
    for (size_t i = 0; i < WORDS; i++) {
        char word[MOST + 2];
        size_t n = 1 + (state = state * 1664525U + 1013904223U) / 65536 % (i % 50 == 0 ? MOST : 9);
        for (size_t k = 0; k < n; k++)
            word[k] = "abax"[(state = state * 1664525U + 1013904223U) >> 30];
        word[n] = '\0';
        CHECK_OK(bal_tokenizer_encode(t, word, n, true, &parts));
        CHECK_OK(bal_tokenizer_encode(t, " ", 1, true, &parts));
        word[n++] = ' ';
        CHECK_OK(bal_buf_append(&text, word, n));
    }
    CHECK_OK(bal_tokenizer_encode(t, text.data, text.len, true, &whole));
    CHECK(text.len > 20000 && whole.n == parts.n);
    CHECK(whole.n == parts.n && memcmp(whole.data, parts.data, whole.n * sizeof *whole.data) == 0);
    bal_ids_dispose(&whole);
    bal_ids_dispose(&parts);
    bal_buf_dispose(&text);
    bal_tokenizer_free(t);
}
