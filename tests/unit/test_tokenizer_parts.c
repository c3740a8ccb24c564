/* Corners of tokenizer.json's components that tests/peers/tokenizer_parts.py found beside the reference library.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/text/chat.h"
#include "lib/text/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

/* A file of parts: each NULL is null. */
typedef struct parts {
    const char *added, *normalizer, *pre_tokenizer, *decoder, *model;
} parts;

#define LETTERS                                                                                                        \
    "{\"type\": \"BPE\", \"unk_token\": \"?\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"?\": 3, \" \": 4, \"_\": " \
    "5}, \"merges\": [\"a b\"]}"

static bal_status parse(bal_tokenizer **t, parts p)
{
    bal_buf text = {0};
    bal_status status =
        bal_buf_printf(&text,
                       "{\"truncation\": {\"max_length\": 2, \"strategy\": \"LongestFirst\", \"stride\": 0, "
                       "\"direction\": \"Right\"}, \"padding\": {\"strategy\": {\"Fixed\": 9}}, "
                       "\"added_tokens\": [%s], \"normalizer\": %s, \"pre_tokenizer\": %s, \"post_processor\": null, "
                       "\"decoder\": %s, \"model\": %s}",
                       p.added != NULL ? p.added : "", p.normalizer != NULL ? p.normalizer : "null",
                       p.pre_tokenizer != NULL ? p.pre_tokenizer : "null", p.decoder != NULL ? p.decoder : "null",
                       p.model != NULL ? p.model : LETTERS);
    if (status == BAL_OK)
        status = bal_tokenizer_parse(t, text.data, text.len, "handmade");
    bal_buf_dispose(&text);
    return status;
}

/* The ids of a text, "a b c"; "error" when it cannot be encoded. */
static void ids_of(parts p, const char *text, const char *want)
{
    bal_tokenizer *t = NULL;
    bal_ids ids = {0};
    char got[256] = "";
    size_t at = 0;
    if (!CHECK_OK(parse(&t, p)))
        return;
    bal_status status = bal_tokenizer_encode(t, text, strlen(text), true, &ids);
    for (size_t i = 0; i < ids.n && at < sizeof got; i++)
        at += (size_t)snprintf(got + at, sizeof got - at, "%s%d", i > 0 ? " " : "", (int)ids.data[i]);
    CHECK_MSG(strcmp(status == BAL_OK ? got : "error", want) == 0, "'%s' gives %s, not %s", text, got, want);
    bal_ids_dispose(&ids);
    bal_tokenizer_free(t);
}

static void text_of(parts p, const int32_t *ids, size_t n, bool skip, const char *want)
{
    bal_tokenizer *t = NULL;
    bal_buf text = {0};
    if (CHECK_OK(parse(&t, p)) && CHECK_OK(bal_tokenizer_decode(t, ids, n, skip, &text)))
        CHECK_TEXT(bal_buf_cstr(&text), want);
    bal_buf_dispose(&text);
    bal_tokenizer_free(t);
}

/* The file's parts "truncation" and "padding" are left alone, as transformers leaves them unless it is told otherwise. */
TEST(nothing_is_cut_or_padded)
{
    ids_of((parts){0}, "ababa", "2 2 0");
}

#define ADDED(ID, TEXT, MORE) "{\"id\": " #ID ", \"content\": \"" TEXT "\", \"special\": true" MORE "}"

TEST(added_tokens_are_numbered_as_the_reference_does)
{
    ids_of((parts){.added = ADDED(100, "x", "") "," ADDED(90, "y", "")}, "axy", "0 6 7");
    ids_of((parts){.added = ADDED(100, "a", "") "," ADDED(100, "", "") "," ADDED(90, "y", "")}, "aby", "0 1 6");
    ids_of((parts){.added = ADDED(6, "x", "") "," ADDED(7, "x", "") "," ADDED(8, "y", "")}, "xy", "6 7");
    bal_tokenizer *t = NULL;
    CHECK_STATUS(parse(&t, (parts){.added = ADDED(-1, "x", "")}), BAL_EFORMAT);
    CHECK_STATUS(parse(&t, (parts){.added = ADDED(6, " ", ", \"normalized\": true"),
                                   .normalizer = "{\"type\": \"Strip\", \"strip_left\": true, \"strip_right\": true}"}),
                 BAL_EUNSUPPORTED);
    CHECK(t == NULL);
}

TEST(white_space_beside_added_tokens)
{
    static const char both[] = ADDED(6, "x", ", \"rstrip\": true") "," ADDED(7, "\\t", ", \"lstrip\": true");
    ids_of((parts){.added = both}, "x\ta", "6 0"); /* the tab went with x: no token is left of it */
    ids_of((parts){.added = both}, "a\ta", "0 7 0");
}

TEST(tokens_only_the_file_knows)
{
    /* "c" is no token of the model, and the added one is searched for as "_c" */
    ids_of((parts){.added = ADDED(6, "c", ", \"normalized\": true"),
                   .normalizer = "{\"type\": \"Prepend\", \"prepend\": \"_\"}"},
           "ac", "5 0 3");
    /* decoding sees "_c", which is not the text of a special token */
    text_of((parts){.added = ADDED(6, "c", ", \"normalized\": true"),
                    .normalizer = "{\"type\": \"Prepend\", \"prepend\": \"_\"}",
                    .decoder = "{\"type\": \"Fuse\"}"},
            (const int32_t[]){0, 6}, 2, true, "a_c");
    text_of((parts){.added = ADDED(6, "c", ", \"normalized\": false"), .decoder = "{\"type\": \"Fuse\"}"},
            (const int32_t[]){0, 6}, 2, true, "a");
}

#define AFFIXED                                                                                                        \
    "{\"type\": \"BPE\", \"unk_token\": \"?\", \"continuing_subword_prefix\": \"##\", \"end_of_word_suffix\": \"$\", " \
    "\"vocab\": {\"?\": 0, \"a\": 1, \"##b\": 2, \"##b$\": 3, \"ab\": 4, \"abb$\": 5, \"a$\": 6, \"##c$\": 7}, "       \
    "\"merges\": [[\"a\", \"##b\"], [\"ab\", \"##b$\"]]}"

TEST(prefixes_and_suffixes_of_bpe)
{
    parts p = {.model = AFFIXED, .pre_tokenizer = "{\"type\": \"WhitespaceSplit\"}"};
    ids_of(p, "a ab abb", "6 1 3 5");
    ids_of(p, "abc b", "4 7 0");
    bal_tokenizer *t = NULL;
    p.model = "{\"type\": \"BPE\", \"continuing_subword_prefix\": \"####\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": "
              "2}, \"merges\": [\"a b\"]}";
    CHECK_STATUS(parse(&t, p), BAL_EFORMAT);
}

#define BPE(MERGES, UNK)                                                                                               \
    "{\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": 1, \"ab\": 2, \"ba\": 3}, \"merges\": [" MERGES "]" UNK "}"

TEST(merges_and_unknown_tokens)
{
    ids_of((parts){.model = BPE("\"#version: 0.2\", \"a b\", \"b a\"", "")}, "aba", "2 0");
    ids_of((parts){.model = BPE("\"a b\", \"b a\", \"a b\"", "")}, "aba", "0 3");   /* the last rank of a pair counts */
    ids_of((parts){.model = BPE("\"a b\"", ", \"unk_token\": \"no\"")}, "ab", "2"); /* an error when it is needed */
    ids_of((parts){.model = BPE("\"a b\"", ", \"unk_token\": \"no\"")}, "abx", "error");
    ids_of((parts){.model = BPE("\"a b\"", "")}, "abxb", "2 1");
    static const char unigram[] = "{\"type\": \"Unigram\", \"unk_id\": null, \"vocab\": [[\"a\", -1.0], [\"xa\", "
                                  "-2.0], [\"ax\", -3.0]]}";
    ids_of((parts){.model = unigram}, "axa", "0 1"); /* no error where x begins: it is reached already */
    ids_of((parts){.model = unigram}, "xa", "error");
}

TEST(pieces)
{
    ids_of((parts){.pre_tokenizer = "{\"type\": \"FixedLength\", \"length\": 2}"},
           "abab\xC3\xA9"
           "ab",
           "2 2 3 0 1");
    ids_of((parts){.pre_tokenizer = "{\"type\": \"Split\", \"pattern\": {\"String\": \"\"}, \"behavior\": "
                                    "\"Isolated\", \"invert\": false}"},
           "abab", "0 1 0 1");
#define FIRST "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"first\", \"split\": true}"
    static const char sequence[] =
        "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"WhitespaceSplit\"}, " FIRST "]}";
    ids_of((parts){.pre_tokenizer = sequence}, "a b", "5 0 1");
    ids_of((parts){.pre_tokenizer = sequence}, " a b", "0 1"); /* the first piece does not begin the text */
    ids_of((parts){.pre_tokenizer = FIRST, .normalizer = "{\"type\": \"Nmt\"}"}, "ab", "5 2");
    ids_of((parts){.pre_tokenizer = FIRST, .normalizer = "{\"type\": \"Nmt\"}"},
           "\x01"
           "ab",
           "2");
#define CUT_A "{\"type\": \"Replace\", \"pattern\": {\"String\": \"a\"}, \"content\": \"\"}"
    ids_of((parts){.pre_tokenizer = FIRST, .normalizer = CUT_A}, "ab", "1");
    ids_of((parts){.pre_tokenizer = FIRST, .normalizer = CUT_A}, "ba", "5 1");
}

TEST(normal_forms_are_of_unicode_9)
{
    /* U+32FF came with Unicode 12; U+33FF is older */
    static const char model[] = "{\"type\": \"WordLevel\", \"unk_token\": \"?\", \"vocab\": {\"?\": 0, \"\\u32FF\": 1, "
                                "\"gal\": 2, \"e\\u0301\\u08CAz\": 3, \"e\\u08CA\\u0316\": 4}}";
    parts p = {.model = model, .normalizer = "{\"type\": \"NFKD\"}"};
    ids_of(p, "\xE3\x8B\xBF", "1");
    ids_of(p, "\xE3\x8F\xBF", "2");
    ids_of(p,
           "\xC3\xA9\xE0\xA3\x8A"
           "z",
           "3");
    ids_of(p, "e\xE0\xA3\x8A\xCC\x96", "4"); /* a mark of Unicode 14 keeps its place */
}

TEST(decoders_of_nothing)
{
    static const int32_t ids[] = {0, 1};
    text_of((parts){0}, ids, 2, false, "a b");
    text_of((parts){.decoder = "{\"type\": \"Sequence\", \"decoders\": []}"}, ids, 2, false, "ab");
    text_of((parts){.decoder = "{\"type\": \"BPEDecoder\", \"suffix\": \"\"}"}, ids, 2, false, " a b");
    text_of((parts){.decoder = "{\"type\": \"Replace\", \"pattern\": {\"String\": \"\"}, \"content\": \"-\"}"}, ids, 2,
            false, "-a--b-");
}

#define PATTERN(TEXT)                                                                                                  \
    (parts)                                                                                                            \
    {                                                                                                                  \
        .normalizer = "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"" TEXT "\"}, \"content\": \"_\"}"            \
    }

TEST(patterns_are_rubys)
{
    ids_of(PATTERN("a{,2}b"), "aaabb", "0 5 5");
    ids_of(PATTERN("(?m:a.)"), "a\n", "5");
    ids_of(PATTERN("(?i)A"), "ab", "5 1");
    ids_of(PATTERN("\\\\u0061|\\\\x62"), "ab ", "5 5 4");
    ids_of(PATTERN("[^\\\\S ]"), "a \n", "0 4 5");
    ids_of(PATTERN("[\\\\W_]"), "a b", "0 5 1");
    ids_of(PATTERN("[^\\\\W]"), "a b", "5 4 5");
    ids_of(PATTERN("[^a\\\\W]"), "a b", "0 4 5");
    ids_of(PATTERN("[\\\\P{L}b]"), "a b", "0 5 5");
    ids_of(PATTERN("[\\\\s-b]"), "a- b", "0 5 5 5");
    ids_of(PATTERN("\\\\w"), "\xC2\xB2 ", "5 4"); /* a raised two is \w outside of brackets only */
    ids_of(PATTERN("[\\\\w]"), "\xC2\xB2 ", "3 4");
    ids_of(PATTERN("b\\\\b"), "b\xCC\x81 b", "1 3 4 5"); /* a mark belongs to the word */
    ids_of(PATTERN("\\\\v"), "\n", "3");
    ids_of(PATTERN("[[:space:]]"), "a b", "0 5 1");
    ids_of(PATTERN("a{x"), "a{x", "5");
    static const char *const refused[] = {"\\\\X", "\\\\Qa",    "(?i:ss)",     "(?i)\\\\u00df",   "(?x)a",  "a(?i)b",
                                          "(?~a)", "(?>a{2}+)", "[[:alpha:]]", "\\\\p{Emoji}",    "\\\\pL", "[a[b]]",
                                          "(*F)",  "a{2}?",     "\\\\xe9",     "(?i:[\\\\p{Lu}])"};
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        bal_tokenizer *t = NULL;
        bal_buf step = {0};
        CHECK_OK(bal_buf_printf(&step, "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \"%s\"}, \"content\": \"_\"}",
                                refused[i]));
        CHECK_MSG(parse(&t, (parts){.normalizer = bal_buf_cstr(&step)}) == BAL_EUNSUPPORTED, "%s is not refused: %s",
                  refused[i], bal_error_message());
        CHECK(t == NULL);
        bal_tokenizer_free(t);
        bal_buf_dispose(&step);
    }
}

/* A text is cut before U+2581 where no token reaches over: "a_" is one, "b_" is none (_ for U+2581). */
TEST(cuts_change_no_ids)
{
    static const char model[] = "{\"type\": \"BPE\", \"unk_token\": \"?\", \"vocab\": {\"?\": 0, \"a\": 1, \"b\": 2, "
                                "\"\\u2581\": 3, \"a\\u2581\": "
                                "4, \"a\\u2581b\": 5, \"\\u2581b\": 6, \"?\\u2581\": 7}, \"merges\": [[\"a\", "
                                "\"\\u2581\"], [\"a\\u2581\", \"b\"], "
                                "[\"\\u2581\", \"b\"], [\"?\", \"\\u2581\"]]}";
    static const char underscore[] =
        "{\"type\": \"Replace\", \"pattern\": {\"String\": \"_\"}, \"content\": \"\\u2581\"}";
    parts p = {.model = model, .normalizer = underscore};
    bal_tokenizer *t = NULL;
    ids_of(p, "a_bb_b_b", "5 2 6 6");
    ids_of(p, "_a__b", "3 4 6");
    ids_of(p, "x_a", "7 1"); /* the unknown token joins, so an unknown character is no place to cut */
    if (!CHECK_OK(parse(&t, p)))
        return;
#define W "\xE2\x96\x81"
    CHECK(bal_bpe_cut(t, "b" W "b", 5) == 1 && bal_bpe_cut(t, "a" W "b", 5) == 5 &&
          bal_bpe_cut(t, "a" W "b" W, 8) == 5);
    CHECK(bal_bpe_cut(t, W W "b", 7) == 3 && bal_bpe_cut(t, "x" W "b", 5) == 5 && bal_bpe_cut(t, W, 3) == 3);
    bal_tokenizer_free(t);
}

/* What the reference library refuses, too, or what would be read otherwise than it is meant. */
TEST(wrong_options_are_refused)
{
    static const struct {
        parts p;
        const char *says;
    } cases[] = {
        {{.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"sometimes\"}"},
         "prepend_scheme 'sometimes' is not supported"},
        {{.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":3}"}, "prepend_scheme"},
        {{.pre_tokenizer = "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}"}, "must be one character, not 'ab'"},
        {{.pre_tokenizer = "{\"type\":\"CharDelimiterSplit\",\"delimiter\":\"\"}"}, "must be one character"},
        {{.pre_tokenizer = "{\"type\":\"ByteLevel\",\"use_regex\":\"false\"}"}, "'use_regex' must be true or false"},
        {{.decoder = "{\"type\":\"Strip\",\"content\":\"xy\",\"start\":1,\"stop\":0}"}, "must be one character"},
        {{.added = "{\"id\":9,\"content\":\"x\",\"special\":1}"}, "'special' must be true or false"},
        {{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":\"0.5\"}"}, "dropout"},
        {{.model = "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b c\":1,\"ab c\":2},\"merges\":[\"a b c\"]}"}, "is no pair"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bal_tokenizer *t = NULL;
        CHECK_MSG(parse(&t, cases[i].p) != BAL_OK && strstr(bal_error_message(), cases[i].says) != NULL, "%s: %s",
                  cases[i].says, t != NULL ? "read" : bal_error_message());
        bal_tokenizer_free(t);
    }
}

static bal_status parse_processor(const char *processor)
{
    char text[600];
    bal_tokenizer *t = NULL;
    (void)snprintf(text, sizeof text, "{\"model\":%s,\"post_processor\":%s}", LETTERS, processor);
    bal_status status = bal_tokenizer_parse(&t, text, strlen(text), "handmade");
    bal_tokenizer_free(t);
    return status;
}

TEST(ids_of_post_processors)
{
#define TEMPLATE(IDS)                                                                                                  \
    "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"a\"}},{\"Sequence\":{\"id\":\"A\"}}],"   \
    "\"special_tokens\":{\"a\":{\"ids\":" IDS "}}}"
    CHECK_OK(parse_processor(TEMPLATE("[1]")));
    CHECK_STATUS(parse_processor(TEMPLATE("[\"x\"]")), BAL_EFORMAT);
    CHECK_STATUS(parse_processor(TEMPLATE("[1.5]")), BAL_EFORMAT);
    CHECK_STATUS(parse_processor(TEMPLATE("[6]")), BAL_EFORMAT);
    CHECK_OK(parse_processor("{\"type\":\"BertProcessing\",\"cls\":[\"a\",0],\"sep\":[\"b\",1]}"));
    CHECK_STATUS(parse_processor("{\"type\":\"BertProcessing\",\"cls\":[\"a\",\"0\"],\"sep\":[\"b\",1]}"), BAL_EFORMAT);
}

/* 64 steps that each double the text: an end, not 2^64 bytes. */
TEST(steps_that_grow)
{
    char steps[64 * 80] = "";
    size_t n = 0;
    static const char one[] = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"aa\"}";
    for (int i = 0; i < 64; i++)
        n += (size_t)snprintf(steps + n, sizeof steps - n, "%s%s", i > 0 ? "," : "", one);
    for (int decoding = 0; decoding < 2; decoding++) {
        char list[sizeof steps + 60];
        (void)snprintf(list, sizeof list, "{\"type\":\"Sequence\",\"%s\":[%s]}", decoding ? "decoders" : "normalizers",
                       steps);
        bal_tokenizer *t = NULL;
        bal_ids ids = {0};
        bal_buf text = {0};
        static const int32_t a = 0;
        if (CHECK_OK(parse(&t, decoding ? (parts){.decoder = list} : (parts){.normalizer = list})))
            CHECK_STATUS(decoding ? bal_tokenizer_decode(t, &a, 1, false, &text)
                                  : bal_tokenizer_encode(t, "a", 1, false, &ids),
                         BAL_ELIMIT);
        CHECK(text.cap < (size_t)1 << 24);
        bal_ids_dispose(&ids);
        bal_buf_dispose(&text);
        bal_tokenizer_free(t);
    }
}

/* A key of a message that says null counts as absent, as in transformers. */
TEST(null_in_a_message)
{
    static const char k[] = "[{\"role\":\"assistant\",\"content\":null,\"calls\":[null],\"n\":1.0,\"thinking\":\"t\"}]";
    bal_tokenizer *t = NULL;
    cJSON *messages = NULL;
    bal_buf out = {0};
    bal_chat_options o = {.chat_template = "{{ messages[0].content is defined }}{{ messages[0].calls }}"
                                           "{{ messages[0].n }}{{ messages[0].reasoning_content }}"};
    const char *file = "{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0},\"unk_token\":\"a\"}}";
    if (CHECK_OK(bal_tokenizer_parse(&t, file, strlen(file), "t")) &&
        CHECK_OK(bal_json_parse(&messages, k, strlen(k), "m")) && CHECK_OK(bal_chat_apply(t, messages, &o, &out, NULL)))
        CHECK_TEXT(bal_buf_cstr(&out), "False[None]1.0t");
    bal_buf_dispose(&out);
    cJSON_Delete(messages);
    bal_tokenizer_free(t);
}
