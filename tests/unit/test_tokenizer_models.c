/* WordPiece, WordLevel and Unigram on handmade vocabularies, and the compiled normalizer of SentencePiece.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/text/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

static bal_status parse(bal_tokenizer **t, const char *json)
{
    return bal_tokenizer_parse(t, json, strlen(json), "handmade");
}

static void check_ids(const bal_tokenizer *t, const char *text, const char *want)
{
    bal_ids ids = {0};
    char got[256] = "";
    size_t at = 0;
    CHECK_OK(bal_tokenizer_encode(t, text, strlen(text), true, &ids));
    for (size_t i = 0; i < ids.n && at < sizeof got; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%d", i > 0 ? " " : "", (int)ids.data[i]);
    CHECK_MSG(strcmp(got, want) == 0, "'%s' gives %s, not %s", text, got, want);
    bal_ids_dispose(&ids);
}

static void check_text(const bal_tokenizer *t, const int32_t *ids, size_t n, const char *want)
{
    bal_buf text = {0};
    if (CHECK_OK(bal_tokenizer_decode(t, ids, n, true, &text)))
        CHECK_TEXT(bal_buf_cstr(&text), want);
    bal_buf_dispose(&text);
}

TEST(wordpiece_takes_the_longest)
{
    static const char json[] =
        "{\"added_tokens\": [{\"id\": 1, \"content\": \"[CLS]\", \"special\": true}],"
        "\"normalizer\": {\"type\": \"BertNormalizer\", \"clean_text\": true, \"handle_chinese_chars\": true,"
        " \"strip_accents\": null, \"lowercase\": true}, \"pre_tokenizer\": {\"type\": \"BertPreTokenizer\"},"
        "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [{\"SpecialToken\": {\"id\": \"[CLS]\","
        " \"type_id\": 0}}, {\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}], \"special_tokens\": {\"[CLS]\": {\"id\": "
        "\"[CLS]\", \"ids\": [1], \"tokens\": [\"[CLS]\"]}}},"
        "\"decoder\": {\"type\": \"WordPiece\", \"prefix\": \"##\", \"cleanup\": true},"
        "\"model\": {\"type\": \"WordPiece\", \"unk_token\": \"[UNK]\", \"continuing_subword_prefix\": \"##\","
        " \"max_input_chars_per_word\": 6, \"vocab\": {\"[UNK]\": 0, \"[CLS]\": 1, \"un\": 2, \"##aff\": 3, \"##a\": 4,"
        " \"##able\": 5, \"e\": 6, \"!\": 7, \"\xE4\xB8\x80\": 8, \"u\": 9, \"n't\": 10}}}";
    bal_tokenizer *t = NULL;
    if (!CHECK_OK(parse(&t, json)))
        return;
    CHECK_TEXT(bal_tokenizer_kind(t), "WordPiece");
    check_ids(t, "unable", "1 2 5");
    check_ids(t, "UNaff!", "1 2 3 7");
    check_ids(t, "unaffx", "1 0");           /* one part is missing: the whole word is unknown */
    check_ids(t, "unablea", "1 0");          /* 7 characters */
    check_ids(t, "\xC3\xA9\xC3\x89", "1 0"); /* accents go: "ee", and there is no ##e */
    check_ids(t, "\xC3\xA9 \xC3\x89", "1 6 6");
    check_ids(t,
              "e\xE4\xB8\x80"
              "e",
              "1 6 8 6");                        /* an ideograph is a word */
    check_ids(t, "e\x01\xE2\x80\x8B!", "1 6 7"); /* control characters go */
    check_text(t, (const int32_t[]){1, 2, 5, 7, 6, 10}, 6, "unable! en't");
    bal_tokenizer_free(t);
}

#define UNIGRAM(FALLBACK)                                                                                              \
    "{\"added_tokens\": [], \"normalizer\": null, \"pre_tokenizer\": null, \"post_processor\": null, \"decoder\": "    \
    "null, \"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"byte_fallback\": " FALLBACK                             \
    ", \"vocab\": [[\"<unk>\", "                                                                                       \
    "0.0], [\"a\", -1.0], [\"b\", -1.5], [\"ab\", -2.0], [\"abc\", -9.0], [\"c\", -3.0], [\"<0xC3>\", -20.0], "        \
    "[\"<0xA9>\", -20.0]]}}"

TEST(unigram_takes_the_best_sum)
{
    bal_tokenizer *t = NULL;
    if (!CHECK_OK(parse(&t, UNIGRAM("false"))))
        return;
    CHECK_TEXT(bal_tokenizer_kind(t), "Unigram");
    check_ids(t, "abc", "3 5"); /* -2 - 3 beats -9 and -1 - 1.5 - 3 */
    check_ids(t, "aba", "3 1");
    check_ids(t, "axyb", "1 0 2"); /* unknown neighbours are one */
    check_ids(t,
              "x\xC3\xA9"
              "a",
              "0 1");
    check_ids(t, "", "");
    bal_tokenizer_free(t);
    t = NULL;
    if (!CHECK_OK(parse(&t, UNIGRAM("true"))))
        return;
    check_ids(t,
              "a\xC3\xA9"
              "b",
              "1 6 7 2");
    check_ids(t,
              "\xC3\xA9"
              "x",
              "0"); /* x has no byte token: the whole run is unknown */
    bal_tokenizer_free(t);
    t = NULL;
    CHECK_STATUS(parse(&t, "{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\"]]}}"), BAL_EFORMAT);
    CHECK_STATUS(parse(&t, "{\"model\": {\"type\": \"Unigram\", \"unk_id\": 5, \"vocab\": [[\"a\", 0]]}}"),
                 BAL_EFORMAT);
    CHECK_STATUS(parse(&t, "{\"model\": {\"type\": \"Unigram\", \"vocab\": {\"a\": 0}}}"), BAL_EFORMAT);
    CHECK_STATUS(parse(&t, "{\"model\": {\"type\": \"Other\", \"vocab\": {\"a\": 0}}}"), BAL_EUNSUPPORTED);
    CHECK(t == NULL);
    if (!CHECK_OK(parse(&t, "{\"model\": {\"type\": \"Unigram\", \"vocab\": [[\"a\", 0]]}}")))
        return;
    bal_ids ids = {0};
    CHECK_STATUS(bal_tokenizer_encode(t, "b", 1, true, &ids), BAL_EFORMAT); /* unknown, and no token for that */
    bal_ids_dispose(&ids);
    bal_tokenizer_free(t);
}

/* A double-array trie with the one key "A" -> "bc": the root's children at 1 ^ byte, the value at 0x40 ^ 1. */
TEST(charsmap_replaces_keys)
{
    unsigned char bytes[4 + 4 * 0x42 + 3] = {0};
    static const struct {
        size_t at;
        uint32_t unit;
    } units[] = {{0, 1U << 10}, {0x40, 1U << 10 | 1U << 8 | 0x41}, {0x41, 1U << 31}};
    bal_charsmap *m = NULL;
    bal_buf out = {0};
    bytes[0] = 0x08;
    bytes[1] = 0x01;
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < 4; j++)
            bytes[4 + 4 * units[i].at + j] = (unsigned char)(units[i].unit >> (8 * j));
    memcpy(bytes + sizeof bytes - 3, "bc", 3);
    if (!CHECK_OK(bal_charsmap_read(&m, bytes, sizeof bytes)))
        return;
    CHECK_OK(bal_charsmap_apply(m,
                                "xAA\xC3\xA9"
                                "A",
                                6, &out));
    CHECK_TEXT(bal_buf_cstr(&out), "xbcbc\xC3\xA9"
                                   "bc");
    bal_buf_clear(&out);
    CHECK_OK(bal_charsmap_apply(m, "A\xCC\x81", 3, &out)); /* the key begins the cluster: it stands for all of it */
    CHECK_TEXT(bal_buf_cstr(&out), "bc");
    bal_buf_dispose(&out);
    bal_charsmap_free(m);
    m = NULL;
    bytes[2] = 1; /* a trie longer than the data */
    CHECK_STATUS(bal_charsmap_read(&m, bytes, sizeof bytes), BAL_EFORMAT);
    CHECK_STATUS(bal_charsmap_read_base64(&m, "a*"), BAL_EFORMAT);
    CHECK(m == NULL);
}
