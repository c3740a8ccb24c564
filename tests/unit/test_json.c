/* JSON, JSON lines and tables: what is accepted, what is refused and where, and writing.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

static bal_status parse(cJSON **out, const char *text)
{
    return bal_json_parse(out, text, strlen(text), "x.json");
}

static const char *write_file(const char *name, const char *text, size_t n)
{
    static char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    CHECK_OK(bal_file_replace(path, text, n));
    return path;
}

TEST(broken_documents_are_placed)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"{\"a\": 1,\n \"b\" 2}", "x.json: not valid JSON at line 2, column 6"},
        {"[1, 2] x", "x.json: not valid JSON at column 8"},
        {"{\"a\": {\"k\": 1, \"k\": 2}}", "x.json: key 'k' occurs twice in one JSON object"},
    };
    cJSON *json = NULL;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_STATUS(parse(&json, cases[i].text), BAL_EFORMAT);
        CHECK_TEXT(bal_error_message(), cases[i].message);
        CHECK(json == NULL);
    }
    CHECK_STATUS(parse(&json, ""), BAL_EFORMAT);
    CHECK_STATUS(parse(&json, "{\"a\": 1"), BAL_EFORMAT);
    char deep[300];
    memset(deep, '[', 140);
    memset(deep + 140, ']', 140);
    CHECK_STATUS(bal_json_parse(&json, deep, 280, "deep"), BAL_EFORMAT);
    CHECK_TEXT(bal_error_message(), "deep: JSON is nested deeper than 64");
    CHECK_OK(parse(&json, "\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\""));
    cJSON_Delete(json);
}

TEST(relaxed_allows_comments_and_last_commas)
{
    static const char text[] = "{ // one\n \"a\": [1, 2, /* not */],\n}";
    static const char good[] = "{ // one\n \"url\": \"http://x#y\", # two\n \"a\": [1, 2,],\n}";
    cJSON *json = NULL;
    CHECK_STATUS(bal_json_parse_relaxed(&json, text, sizeof text - 1, "r"), BAL_EFORMAT);
    if (CHECK_OK(bal_json_parse_relaxed(&json, good, sizeof good - 1, "r"))) {
        CHECK_TEXT(cJSON_GetStringValue(bal_json_member(json, "url")), "http://x#y");
        CHECK(cJSON_GetArraySize(bal_json_member(json, "a")) == 2);
    }
    cJSON_Delete(json);
    CHECK_STATUS(bal_json_parse(&json, good, sizeof good - 1, "r"), BAL_EFORMAT);
}

TEST(typed_members)
{
    cJSON *json = NULL;
    double f = 7;
    int64_t i = 7;
    bool b = true, found = true;
    const char *t = "kept";
    if (!CHECK_OK(parse(&json, "{\"f\": 0.5, \"i\": 12, \"b\": false, \"t\": \"x\", \"n\": null, \"F\": 9}")))
        return;
    CHECK_OK(bal_json_f64(json, "w", "f", &f, NULL));
    CHECK_OK(bal_json_i64(json, "w", "i", 0, 100, &i, &found));
    CHECK_OK(bal_json_bool(json, "w", "b", &b, NULL));
    CHECK(f == 0.5 && i == 12 && !b && found);
    CHECK_OK(bal_json_text(json, "w", "n", &t, &found));
    CHECK(!found && strcmp(t, "kept") == 0);
    CHECK_STATUS(bal_json_f64(json, "w", "t", &f, NULL), BAL_EFORMAT);
    CHECK_TEXT(bal_error_message(), "w: key 't' must be a number, not a text");
    CHECK_STATUS(bal_json_i64(json, "w", "f", 0, 9, &i, NULL), BAL_EFORMAT);
    CHECK_STATUS(bal_json_i64(json, "w", "i", 0, 9, &i, NULL), BAL_EFORMAT);
    CHECK_TEXT(bal_error_message(), "w: key 'i' is 12, not a whole number in 0 .. 9");
    cJSON_Delete(json);
}

TEST(how_numbers_were_written)
{
    static const struct {
        const char *key, *digits;
        bool real;
    } cases[] = {{"a", NULL, false},
                 {"b", NULL, true},
                 {"c", NULL, true},
                 {"d", "9223372036854775807", false},
                 {"e", "-9007199254740993", false},
                 {"f", NULL, true}};
    cJSON *json = NULL, *copy;
    if (!CHECK_OK(parse(&json,
                        "{\"a\": 1, \"x 1\\\"2.5\": [\"-3.5\", {}, [7]], \"b\": 1.0, \"c\": -2E1, "
                        "\"d\":9223372036854775807, \"e\" :-9007199254740993 , \"t\\\\\": \"\\\\\", \"f\": 1e+3}")))
        return;
    copy = cJSON_Duplicate(json, true);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int k = 0; k < 2; k++) {
            const cJSON *v = bal_json_member(k == 0 ? json : copy, cases[i].key);
            const char *digits = bal_json_digits(v);
            CHECK_MSG(bal_json_is_real(v) == cases[i].real, "%s", cases[i].key);
            CHECK_MSG(digits != NULL ? cases[i].digits != NULL && strcmp(digits, cases[i].digits) == 0
                                     : cases[i].digits == NULL,
                      "%s: %s", cases[i].key, digits != NULL ? digits : "none");
        }
    cJSON_Delete(copy);
    cJSON_Delete(json);
}

TEST(writing_round_trips)
{
    bal_buf b = {0};
    bool first = true;
    CHECK_OK(bal_json_put_text(&b, "a\"\\\n\t\x01\xFF\xC3\xA4"));
    CHECK_TEXT(bal_buf_cstr(&b), "\"a\\\"\\\\\\n\\t\\u0001\xEF\xBF\xBD\xC3\xA4\"");
    bal_buf_clear(&b);
    CHECK_OK(bal_json_put_key(&b, "k", &first));
    CHECK_OK(bal_json_put_f64(&b, 0.1));
    CHECK_OK(bal_json_put_key(&b, "l", &first));
    CHECK_OK(bal_json_put_f64(&b, (double)NAN));
    CHECK_TEXT(bal_buf_cstr(&b), "\"k\": 0.1, \"l\": null");
    bal_buf_clear(&b);
    CHECK_OK(bal_json_put_f64(&b, 3123456700)); /* a seed, to readers that tell 3.1e+09 from a whole number */
    CHECK_TEXT(bal_buf_cstr(&b), "3123456700");
    static const double values[] = {0.1 + 0.2, 1e-320, 1.0 / 3, 5e22, -0.0, 123456789.125};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        double back = 1;
        bal_buf_clear(&b);
        CHECK_OK(bal_json_put_f64(&b, values[i]));
        CHECK_OK(bal_parse_f64(bal_buf_cstr(&b), -1e300, 1e300, &back));
        CHECK(memcmp(&back, &values[i], sizeof back) == 0);
    }
    cJSON *json = NULL, *again = NULL;
    CHECK_OK(parse(&json, "{\"a\": [1, {\"b\": []}, null, true], \"c\": {}}"));
    for (int pretty = 0; pretty < 2; pretty++) {
        bal_buf_clear(&b);
        CHECK_OK(bal_json_put(&b, json, pretty == 1));
        if (CHECK_OK(parse(&again, bal_buf_cstr(&b))))
            CHECK(cJSON_Compare(json, again, 1));
        cJSON_Delete(again);
    }
    cJSON_Delete(json);
    bal_buf_dispose(&b);
}

/* Readers with types tell 30 from 30.0. */
TEST(numbers_keep_their_text)
{
    static const char text[] =
        "{\"a-1\": 30.0, \"b\": [1, -2e3, {\"c\\\"5\": \"7\\\\\", \"d\": 0.50}], \"e\": true, \"f\": 4}";
    bal_buf b = {0};
    cJSON *json = NULL;
    CHECK_OK(parse(&json, text));
    CHECK_OK(bal_json_keep_numbers(json, text));
    CHECK_OK(bal_json_put(&b, json, false));
    CHECK_TEXT(bal_buf_cstr(&b), text);
    cJSON_Delete(json);
    bal_buf_clear(&b);
    static const double values[] = {30, 0.5, 1e30, -2};
    for (size_t i = 0; i < 4; i++) {
        CHECK_OK(bal_buf_text(&b, "0.5e "));
        CHECK_OK(bal_json_put_real(&b, values[i]));
    }
    CHECK_TEXT(bal_buf_cstr(&b), "0.5e 30.00.5e 0.50.5e 1e+300.5e -2.0");
    bal_buf_dispose(&b);
}

TEST(a_nul_in_a_text_is_kept)
{
    cJSON *json = NULL;
    bal_buf b = {0};
    uint64_t held = bal_mem_bytes();
    if (CHECK_OK(parse(&json, "{\"a\\u0000b\": \"\\u0000\"}")))
        CHECK_OK(bal_json_put(&b, json, false));
    CHECK_TEXT(bal_buf_cstr(&b), "{\"a\\u0000b\": \"\\u0000\"}");
    cJSON_Delete(json);
    bal_buf_dispose(&b);
    CHECK_STATUS(parse(&json, "{\"a\\u0000b\": "), BAL_EFORMAT);
    CHECK(bal_mem_bytes() == held);
    CHECK_STATUS(bal_json_parse(&json, "\"a\0b\"", 5, "x"), BAL_EFORMAT);
    CHECK_TEXT(bal_error_message(), "x: not valid JSON: it holds a NUL byte");
}

TEST(lines_of_all_kinds)
{
    static const char text[] = "{\"a\": 1}\r\n\n  \n{\"a\": 2}\n[3]\n";
    bal_lines *l = NULL;
    cJSON *json = NULL;
    if (!CHECK_OK(bal_lines_open(&l, write_file("x.jsonl", text, sizeof text - 1))))
        return;
    for (int i = 1; i <= 2; i++) {
        double a = 0;
        CHECK_OK(bal_jsonl_next(l, &json));
        CHECK_OK(bal_json_f64(json, "w", "a", &a, NULL));
        CHECK(a == i);
        cJSON_Delete(json);
    }
    CHECK(bal_lines_number(l) == 4);
    CHECK_STATUS(bal_jsonl_next(l, &json), BAL_EFORMAT);
    CHECK(bal_ends_with(bal_error_message(), "x.jsonl, line 5: a JSON object is needed"));
    CHECK_OK(bal_jsonl_next(l, &json));
    CHECK(json == NULL);
    bal_lines_close(l);
    CHECK_STATUS(bal_lines_open(&l, "/nonexistent.jsonl"), BAL_ENOENT);
    CHECK_STATUS(bal_lines_open(&l, test_folder()), BAL_ENOENT);
}

TEST(compressed_lines)
{
    char path[256];
    const char *text;
    size_t n;
    bal_lines *l = NULL;
    (void)snprintf(path, sizeof path, "%s/x.gz", test_folder());
    gzFile f = gzopen(path, "wb");
    CHECK(f != NULL && gzputs(f, "one\ntwo") == 7 && gzclose(f) == Z_OK);
    if (!CHECK_OK(bal_lines_open(&l, path)))
        return;
    CHECK_OK(bal_lines_next(l, &text, &n));
    CHECK_TEXT(text, "one");
    CHECK_OK(bal_lines_next(l, &text, &n));
    CHECK_TEXT(text, "two");
    CHECK_OK(bal_lines_next(l, &text, &n));
    CHECK(text == NULL);
    bal_lines_close(l);
}

TEST(a_line_has_a_limit)
{
    enum { BYTES = (16 << 20) + 10 };
    char *big = bal_alloc(BYTES, 1);
    const char *text;
    size_t n;
    bal_lines *l = NULL;
    if (!CHECK(big != NULL))
        return;
    memset(big, 'x', BYTES);
    if (CHECK_OK(bal_lines_open(&l, write_file("long.jsonl", big, BYTES)))) {
        CHECK_STATUS(bal_lines_next(l, &text, &n), BAL_ELIMIT);
        CHECK(strstr(bal_error_message(), "line 1 is longer than 16777216 bytes") != NULL);
    }
    bal_lines_close(l);
    bal_free(big);
}

TEST(tables)
{
    static const char csv[] = "\xEF\xBB\xBFid,text,n\r\n1,\"a \"\"b\"\", c\nd\",2\r\n3,x\n4,y,\n5,,";
    static const char tsv[] = "a\t\"b\nc\td\te\n";
    bal_table t;
    if (CHECK_OK(bal_table_read(&t, write_file("t.csv", csv, sizeof csv - 1), ','))) {
        CHECK(t.n_rows == 5 && t.n_cols == 3);
        CHECK_TEXT(t.cells[0], "id");
        CHECK_TEXT(t.cells[2], "n");
        CHECK_TEXT(t.cells[4], "a \"b\", c\nd");
        CHECK_TEXT(t.cells[8], ""); /* a short row */
        CHECK_TEXT(t.cells[12], "5");
        CHECK_TEXT(t.cells[14], "");
    }
    bal_table_dispose(&t);
    if (CHECK_OK(bal_table_read(&t, write_file("t.tsv", tsv, sizeof tsv - 1), '\t'))) {
        CHECK(t.n_rows == 2 && t.n_cols == 2);
        CHECK_TEXT(t.cells[1], "\"b"); /* quotes mean nothing in TSV */
        CHECK_TEXT(t.cells[3], "d");
    }
    bal_table_dispose(&t);
    CHECK_STATUS(bal_table_read(&t, write_file("nul.csv", "a\0b", 3), ','), BAL_EFORMAT);
    CHECK_STATUS(bal_table_read(&t, "/nonexistent.csv", ','), BAL_ENOENT);
}
