/* Records of data files in every form, whole and broken.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/records.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "tests/test.h"

#include <stdio.h>
#include <string.h>
#include <zlib.h>

static const char *path_of(const char *name)
{
    static char path[300];
    (void)snprintf(path, sizeof path, "%s/%s", test_folder(), name);
    return path;
}

static const char *write_file(const char *name, const char *text)
{
    const char *path = path_of(name);
    if (bal_ends_with(name, ".gz")) {
        gzFile f = gzopen(path, "wb");
        CHECK(f != NULL && gzwrite(f, text, (unsigned)strlen(text)) == (int)strlen(text) && gzclose(f) == Z_OK);
    } else {
        CHECK_OK(bal_file_replace(path, text, strlen(text)));
    }
    return path;
}

/* All records as one text, "|" between them; a failure ends it with its message. */
static const char *read_all(const char *path)
{
    static char all[4000];
    bal_records *r = NULL;
    bal_buf b = {0};
    bal_status status = bal_records_open(&r, path);
    for (cJSON *o = NULL; status == BAL_OK; o = NULL) {
        status = bal_records_next(r, &o);
        if (o == NULL)
            break;
        char *text = cJSON_PrintUnformatted(o);
        CHECK_OK(bal_buf_printf(&b, "%s|", text != NULL ? text : "no memory"));
        cJSON_free(text);
        cJSON_Delete(o);
    }
    if (status != BAL_OK) {
        const char *slash = strrchr(bal_error_message(), '/');
        CHECK_OK(bal_buf_printf(&b, "%d %s", status, slash != NULL ? slash + 1 : bal_error_message()));
    }
    bal_records_close(r);
    (void)snprintf(all, sizeof all, "%s", bal_buf_cstr(&b));
    bal_buf_dispose(&b);
    return all;
}

static void reads(const char *name, const char *text, const char *want)
{
    CHECK_TEXT(read_all(write_file(name, text)), want);
}

TEST(every_form)
{
    static const char *const want = "{\"a\":\"1\",\"b\":\"x y\"}|{\"a\":\"2\",\"b\":\"\"}|";
    reads("d.jsonl", "{\"a\":\"1\",\"b\":\"x y\"}\n\n{\"a\":\"2\",\"b\":\"\"}", want);
    reads("d.json", "{\"a\":\"1\",\"b\":\"x y\"}\n{\"a\":\"2\",\"b\":\"\"}\n", want);
    reads("d.json", "[{\"a\":\"1\",\"b\":\"x y\"},{\"a\":\"2\",\"b\":\"\"}]", want);
    reads("d.json", "\xEF\xBB\xBF \n[\n {\"a\": \"1\",\n \"b\": \"x y\"} ,\n{\"a\":\"2\",\"b\":\"\"}\n ]\n\n", want);
    reads("d.json.gz", "[{\"a\":\"1\",\"b\":\"x y\"},{\"a\":\"2\",\"b\":\"\"}]", want);
    reads("d.csv", "a,b\r\n1,x y\r\n2,\r\n", want);
    reads("d.csv", "a,b\n1,\"x y\"\n\"2\"", want);
    reads("d.tsv", "a\tb\n1\tx y\n2\t\n", want);
    reads("d.csv.gz", "a,b\n1,x y\n2,\n", want);
    reads("d.csv", "a\n\"line\none, \"\"two\"\"\"\n", "{\"a\":\"line\\none, \\\"two\\\"\"}|");
    reads("d.json", "[]", "");
    reads("d.csv", "a,b\n", "");
    /* brackets, quotes and escapes in texts; arrays and objects in a record */
    reads("d.json", "[{\"a\":\"]}\\\"{[\\\\\",\"b\":[[1],{\"c\":{}}]} , {}]",
          "{\"a\":\"]}\\\"{[\\\\\",\"b\":[[1],{\"c\":{}}]}|{}|");
}

TEST(broken)
{
    reads("d.json", "[{\"a\":1},", "{\"a\":1}|-4 d.json, record 2: the array has no end");
    reads("d.json", "[{\"a\":1}", "{\"a\":1}|-4 d.json, record 2: the array has no end");
    reads("d.json", "[{\"a\":1} {\"a\":2}]", "{\"a\":1}|-4 d.json, record 2: a comma or ']' is needed before it");
    reads("d.json", "[{\"a\":1}, 7]", "{\"a\":1}|-4 d.json, record 2: a JSON object is needed");
    reads("d.json", "[{\"a\":1}] x", "{\"a\":1}|-4 d.json: something stands behind the array");
    reads("d.json", "[{\"a\":[1}", "-4 d.json, record 1: the array ends in the middle of a record");
    reads("d.json", "[{\"a\":[1}]", "-4 d.json, record 1: not valid JSON at column 8");
    reads("d.json", "[{\"a\":}]", "-4 d.json, record 1: not valid JSON at column 6");
    reads("d.csv", "a,a\n1,2\n", "-4 d.csv: two columns are called 'a'");
    reads("d.jsonl", "{\"a\":1}\n[2]\n", "{\"a\":1}|-4 d.jsonl, line 2: a JSON object is needed");
    bal_records *r = NULL;
    CHECK_STATUS(bal_records_open(&r, path_of("nothing.json")), BAL_ENOENT);
    CHECK_STATUS(bal_records_open(&r, path_of("nothing.csv")), BAL_ENOENT);
    CHECK_STATUS(bal_records_open(&r, test_folder()), BAL_ENOENT);
    CHECK(r == NULL);
}

/* A record of the array is bounded, the array is not. */
TEST(large)
{
    bal_buf b = {0};
    cJSON *o = NULL;
    bal_records *r = NULL;
    CHECK_OK(bal_buf_text(&b, "["));
    for (int i = 0; i < 50000; i++)
        CHECK_OK(bal_buf_printf(&b, "%s{\"i\":%d,\"text\":\"%0200d\"}", i > 0 ? ",\n" : "", i, i));
    CHECK_OK(bal_buf_text(&b, ",{\"long\":\""));
    size_t most = ((size_t)16 << 20) + 10;
    char *text = bal_alloc(most, 1);
    if (!CHECK(text != NULL))
        return;
    memset(text, 'x', most);
    CHECK_OK(bal_buf_append(&b, text, most));
    CHECK_OK(bal_buf_text(&b, "\"}]"));
    bal_free(text);
    CHECK_OK(bal_file_replace(path_of("large.json"), b.data, b.len));
    bal_buf_dispose(&b);
    if (!CHECK_OK(bal_records_open(&r, path_of("large.json"))))
        return;
    uint64_t before = bal_mem_bytes();
    for (int i = 0; i < 50000; i++) {
        if (!CHECK_OK(bal_records_next(r, &o)) || !CHECK(o != NULL))
            break;
        const cJSON *number = bal_json_member(o, "i");
        CHECK(cJSON_IsNumber(number) && number->valueint == i);
        cJSON_Delete(o);
    }
    CHECK(bal_mem_bytes() < before + 100000);
    CHECK_STATUS(bal_records_next(r, &o), BAL_ELIMIT);
    bal_records_close(r);
}
