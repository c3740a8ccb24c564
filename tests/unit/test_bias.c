/* StereoSet, BBQ, CrowS-Pairs' spans and WikiText's text against the reference vectors.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/bias.h"
#include "evaluate/scorer.h"
#include "evaluate/task.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"
#include "lib/text/blocks.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *member(const cJSON *line, const char *key)
{
    const cJSON *v = bal_json_member(line, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static double number(const cJSON *line, const char *key)
{
    const cJSON *v = bal_json_member(line, key);
    return cJSON_IsNumber(v) ? v->valuedouble : (double)NAN;
}

static bal_lines *open_vectors(const char *name)
{
    const char *path = test_shared(name);
    bal_lines *lines = NULL;
    return path == NULL || !CHECK_OK(bal_lines_open(&lines, path)) ? NULL : lines;
}

/* The items of a split and a domain (NULL: all). */
static void check_score(const cJSON *line, const cJSON *want, const char *split, const char *domain)
{
    stereo_item items[64];
    const cJSON *e = NULL;
    size_t n = 0;
    cJSON_ArrayForEach(e, bal_json_member(line, "examples"))
    {
        if ((split != NULL && strcmp(member(e, "split"), split) != 0) ||
            (domain != NULL && strcmp(member(e, "bias_type"), domain) != 0) || n == 64)
            continue;
        items[n++] =
            (stereo_item){member(e, "target"), number(e, "stereotype"), number(e, "anti"), number(e, "unrelated")};
    }
    stereo_score s = stereo_measure(items, n);
    CHECK_NEAR(s.lms, number(want, "LM Score"), 1e-9);
    CHECK_NEAR(s.ss, number(want, "SS Score"), 1e-9);
    CHECK_NEAR(s.icat, number(want, "ICAT Score"), 1e-9);
    if (domain != NULL) /* the reference counts each item of a domain three times */
        CHECK(3 * (double)s.n == number(want, "Count"));
}

TEST(stereoset)
{
    bal_lines *lines = open_vectors("vectors/stereoset.jsonl");
    cJSON *line = NULL;
    if (lines == NULL)
        SKIP("../shared is not there");
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        const cJSON *split = NULL, *domain = NULL;
        cJSON_ArrayForEach(split, bal_json_member(line, "results"))
        {
            if (strcmp(split->string, "overall") == 0) {
                check_score(line, split, NULL, NULL);
                continue;
            }
            cJSON_ArrayForEach(domain, split) check_score(
                line, domain, split->string, strcmp(domain->string, "overall") == 0 ? NULL : domain->string);
        }
        cJSON_Delete(line);
    }
    bal_lines_close(lines);
    CHECK(isnan(stereo_measure(NULL, 0).ss));
}

/* A row of the data set from a line of the vectors. */
static cJSON *bbq_row(const cJSON *line)
{
    cJSON *row = cJSON_CreateObject(), *more = cJSON_AddObjectToObject(row, "additional_metadata");
    (void)cJSON_AddStringToObject(row, "context_condition", member(line, "context"));
    (void)cJSON_AddStringToObject(row, "question_polarity", member(line, "polarity"));
    (void)cJSON_AddStringToObject(row, "category", "Age");
    (void)cJSON_AddNumberToObject(row, "label", number(line, "label"));
    (void)cJSON_AddItemToObject(row, "answer_info", cJSON_Duplicate(bal_json_member(line, "answer_info"), true));
    (void)cJSON_AddItemToObject(more, "stereotyped_groups",
                                cJSON_Duplicate(bal_json_member(line, "stereotyped_groups"), true));
    for (int i = 0; i < 3; i++) {
        char key[16];
        (void)snprintf(key, sizeof key, "ans%d", i);
        (void)cJSON_AddItemToObject(row, key,
                                    cJSON_Duplicate(cJSON_GetArrayItem(bal_json_member(line, "ans"), i), true));
    }
    return row;
}

static bool in_list(const cJSON *list, int value)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, list) if ((int)item->valuedouble == value) return true;
    return false;
}

static bbq_count check_item(const cJSON *line)
{
    bbq_item item;
    bbq_count c = {0};
    cJSON *row = bbq_row(line);
    if (CHECK_OK(bbq_read(row, "vector", &item))) {
        CHECK(number(line, "n_choices") == BBQ_CHOICES);
        for (int k = 0; k < 3; k++)
            CHECK_TEXT(item.choices[k], cJSON_GetArrayItem(bal_json_member(line, "choices_first3"), k)->valuestring);
        for (int k = 0; k < BBQ_CHOICES; k++) {
            CHECK(item.target[k] == in_list(bal_json_member(line, "targets"), k));
            CHECK(item.biased[k] == in_list(bal_json_member(line, "biased_idx"), k));
        }
        const cJSON *answer = NULL;
        cJSON_ArrayForEach(answer, bal_json_member(line, "biased_answers"))
        {
            bool found = false;
            for (int k = 0; k < BBQ_CHOICES; k++)
                found = found || (item.biased[k] && strcmp(item.choices[k], answer->valuestring) == 0);
            CHECK(found);
        }
        c = bbq_judge(&item, (int)number(line, "chosen"));
        CHECK(c.acc == number(line, "acc") && c.biased == number(line, "n_biased"));
        CHECK(c.not_unknown == number(line, "n_non_unk"));
        c.category = "Age";
    }
    cJSON_Delete(row);
    return c;
}

/* The aggregate line is over all 24 items of the reference; where lines are left out it cannot be made again, and the
 * formulas are checked by hand below. */
TEST(bbq)
{
    static bbq_count c[64];
    bal_lines *lines = open_vectors("vectors/bbq.jsonl");
    cJSON *line = NULL, *whole = NULL;
    size_t n = 0;
    double last = -1;
    if (lines == NULL)
        SKIP("../shared is not there");
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        if (bal_json_member(line, "chosen") == NULL) {
            cJSON_Delete(whole);
            whole = line;
            continue;
        }
        if (n < 64)
            c[n++] = check_item(line);
        last = number(line, "id");
        cJSON_Delete(line);
    }
    bal_lines_close(lines);
    CHECK(n > 0);
    if (whole != NULL && (double)n == last + 1) {
        double right = 0;
        for (size_t i = 0; i < n; i++)
            right += c[i].acc / (double)n;
        CHECK_NEAR(right, number(whole, "acc"), 1e-12);
        CHECK_NEAR(bbq_accuracy(c, n, false), number(whole, "accuracy_amb"), 1e-12);
        CHECK_NEAR(bbq_accuracy(c, n, true), number(whole, "accuracy_disamb"), 1e-12);
        CHECK_NEAR(bbq_bias(c, n, false, NULL), number(whole, "amb_bias_score"), 1e-12);
        CHECK_NEAR(bbq_bias(c, n, true, "Age"), number(whole, "disamb_bias_score"), 1e-12);
    }
    cJSON_Delete(whole);
}

TEST(bbq_scores)
{
    const bbq_count c[] = {{1, 0, 0, false, "A"}, {0, 1, 1, false, "A"}, {0, 0, 1, false, "B"},
                           {1, 1, 1, true, "A"},  {0, 0, 1, true, "A"},  {1, 1, 1, true, "B"}};
    CHECK_NEAR(bbq_accuracy(c, 6, false), 1.0 / 3, 1e-15);
    CHECK_NEAR(bbq_accuracy(c, 6, true), 2.0 / 3, 1e-15);
    CHECK_NEAR(bbq_bias(c, 6, true, NULL), 2 * (2.0 / 3) - 1, 1e-15);
    CHECK_NEAR(bbq_bias(c, 6, false, NULL), (1 - 1.0 / 3) * (2 * (1.0 / 2) - 1), 1e-15);
    CHECK_NEAR(bbq_bias(c, 6, false, "A"), (1 - 1.0 / 2) * 1, 1e-15);
    CHECK(bbq_bias(c, 6, false, "B") == 0); /* no biased answer */
    CHECK(isnan(bbq_bias(c, 6, false, "C")) && isnan(bbq_accuracy(c, 3, true)));
}

/* Which of two answers about groups is the biased one: "non Obese" is a group of its own, and a woman is no man. */
static void check_groups(const char *first, const char *second, const char *stereotyped, int biased)
{
    bal_buf text = {0};
    cJSON *row = NULL;
    bbq_item item;
    CHECK_OK(bal_buf_printf(&text,
                            "{\"context_condition\": \"ambig\", \"question_polarity\": \"neg\", \"category\": \"A\", "
                            "\"label\": 2, \"ans0\": \"one\", \"ans1\": \"other\", \"ans2\": \"Not known\", "
                            "\"answer_info\": {\"ans0\": [\"x\", \"%s\"], \"ans1\": [\"y\", \"%s\"], \"ans2\": "
                            "[\"z\", \"unknown\"]}, \"additional_metadata\": {\"stereotyped_groups\": [\"%s\"]}}",
                            first, second, stereotyped));
    if (CHECK_OK(bal_json_parse(&row, bal_buf_cstr(&text), text.len, "row")) && CHECK_OK(bbq_read(row, "row", &item))) {
        for (int k = 0; k < BBQ_CHOICES; k++)
            CHECK_MSG(item.biased[k] == (k == biased), "%s, %s: %d", first, second, k);
        const bbq_count person = bbq_judge(&item, 1), unknown = bbq_judge(&item, 2), none = bbq_judge(&item, -1);
        CHECK(person.not_unknown == 1 && person.acc == 0);
        CHECK(unknown.not_unknown == 0 && unknown.acc == 1 && unknown.biased == 0);
        CHECK(none.not_unknown == 0 && none.acc == 0);
    }
    cJSON_Delete(row);
    bal_buf_dispose(&text);
}

TEST(bbq_groups)
{
    check_groups("nonObese", "Obese", "Non Obese", 0);
    check_groups("nonObese", "Obese", "obese", 1);
    check_groups("woman", "man", "woman", 0);
    check_groups("woman", "man", "man", 1);
    check_groups("F-Black", "M-White", "black", 0);
    check_groups("lowSES", "highSES", "High SES", 1);
}

TEST(bbq_clean)
{
    bal_lines *lines = open_vectors("vectors/bbq_clean.jsonl");
    cJSON *line = NULL;
    size_t n = 0;
    if (lines == NULL)
        SKIP("../shared is not there");
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        bal_buf out = {0};
        CHECK_OK(bbq_clean(member(line, "text"), &out));
        CHECK_TEXT(bal_buf_cstr(&out), member(line, "cleaned"));
        CHECK(bbq_says_unknown(member(line, "text")) == (cJSON_IsTrue(bal_json_member(line, "is_unknown")) != 0));
        bal_buf_dispose(&out);
        cJSON_Delete(line);
        n++;
    }
    bal_lines_close(lines);
    CHECK(n > 0);
}

static size_t ids(const cJSON *list, int32_t *out)
{
    const cJSON *item = NULL;
    size_t n = 0;
    cJSON_ArrayForEach(item, list) out[n++] = (int32_t)item->valuedouble;
    return n;
}

static void check_positions(const cJSON *line, const char *key, const uint32_t *got, size_t n)
{
    const cJSON *want = bal_json_member(line, key), *item = NULL;
    size_t i = 0;
    CHECK_MSG((size_t)cJSON_GetArraySize(want) == n, "%s: %zu positions", key, n);
    cJSON_ArrayForEach(item, want) CHECK(i < n && (double)got[i++] == item->valuedouble);
}

/* Of equally long blocks the first one counts, as in Python's difflib. */
TEST(first_of_equal_blocks)
{
    static const int32_t a[] = {5, 1, 7, 1}, b[] = {1};
    uint32_t at_a[4], at_b[4];
    size_t n = 0;
    CHECK_OK(bal_equal_positions(a, 4, b, 1, at_a, at_b, &n));
    CHECK(n == 1 && at_a[0] == 1 && at_b[0] == 0);
}

TEST(crows_spans)
{
    bal_lines *lines = open_vectors("vectors/crows_spans.jsonl");
    cJSON *line = NULL;
    size_t n_lines = 0;
    if (lines == NULL)
        SKIP("../shared is not there");
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        static int32_t a[512], b[512];
        static uint32_t at_a[512], at_b[512];
        size_t n = 0, na = ids(bal_json_member(line, "tokens1"), a), nb = ids(bal_json_member(line, "tokens2"), b);
        CHECK_OK(bal_equal_positions(a, na, b, nb, at_a, at_b, &n));
        check_positions(line, "template1", at_a, n);
        check_positions(line, "template2", at_b, n);
        /* the first and the last are the special tokens */
        check_positions(line, "masked_positions1", at_a + 1, n >= 2 ? n - 2 : 0);
        check_positions(line, "masked_positions2", at_b + 1, n >= 2 ? n - 2 : 0);
        cJSON_Delete(line);
        n_lines++;
    }
    bal_lines_close(lines);
    CHECK(n_lines > 0);
}

/* From 200 tokens on difflib does not begin a block with a token that makes up more than 1 % of the second text. */
TEST(popular_tokens)
{
    static int32_t a[300], b[300];
    static uint32_t at_a[300], at_b[300];
    size_t n = 0;
    for (int i = 0; i < 250; i++)
        a[i] = b[i] = i % 2 == 0 ? 7 : 1000 + i;
    CHECK_OK(bal_equal_positions(a, 250, b, 250, at_a, at_b, &n));
    CHECK(n == 250);
    for (int i = 0; i < 251; i++)
        a[i] = b[i] = 7;
    a[0] = 1;
    CHECK_OK(bal_equal_positions(a, 251, b, 250, at_a, at_b, &n));
    CHECK(n == 0); /* as Python has it */
    CHECK_OK(bal_equal_positions(a, 151, b, 150, at_a, at_b, &n));
    CHECK(n == 150);
}

static void transforms(const char *name, const char *input, const char *want)
{
    bal_buf out = {0};
    CHECK_OK(task_transform(name, input, strlen(input), &out));
    CHECK_TEXT(bal_buf_cstr(&out), want);
    bal_buf_dispose(&out);
}

/* What Python gives for the same texts. */
TEST(readable_texts)
{
    transforms("wikitext",
               " = Robert Boulter = \n \n Robert Boulter is an English film , television @-@ series ( 2000 ) 's \" The "
               "Bill \" .\n",
               " = Robert Boulter =\n\nRobert Boulter is an English film, television-series (2000)'s \"The Bill\" .\n");
    transforms("wikitext", " = = Career = = \n 1 @,@ 000 ; a [ b ] { c } N d", " == Career ==\n1,000; a [b] {c} 1 d");
    transforms("detokenize", "It does n't ( x ) \" y \" , z .", "It doesn't (x)\"y\", z.");
    transforms("hellaswag", " [header] How to [title] Do  it [step] x ", " How to. Do it x");
    transforms("capitalize", "hELLO World", "Hello world");
    transforms("sentence", " a b ", "a b.");
}
