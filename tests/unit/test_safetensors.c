/* lib/io/safetensors: round trips, shards, and a table of bad files.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/safetensors.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *path_of(const char *name)
{
    static char path[4][300];
    static size_t turn;
    char *p = path[turn++ % 4];
    (void)snprintf(p, sizeof path[0], "%s/%s", test_folder(), name);
    return p;
}

static bal_status write_sample(const char *path)
{
    static const float a[] = {1, 2, 3, 4, 5, 6};
    static const uint16_t h[] = {0x3f80, 0x4000, 0xc000};
    static const double d[] = {0.1, -1e300};
    static const real_t r[] = {REAL(0.5), REAL(0.25)};
    bal_safetensors_writer *w = NULL;
    bal_status status;
    BAL_TRY(bal_safetensors_writer_new(&w));
    BAL_TRY(bal_safetensors_writer_metadata(w, "format", "pt"));
    BAL_TRY(bal_safetensors_writer_metadata(w, "note", "a \"quoted\" text\n"));
    BAL_TRY(bal_safetensors_writer_add(w, "half", BAL_DTYPE_BF16, 1, (const size_t[]){3}, h));
    BAL_TRY(bal_safetensors_writer_add(w, "model.a", BAL_DTYPE_F32, 2, (const size_t[]){2, 3}, a));
    BAL_TRY(bal_safetensors_writer_add(w, "wide", BAL_DTYPE_F64, 1, (const size_t[]){2}, d));
    BAL_TRY(bal_safetensors_writer_add_real(w, "real", 3, (const size_t[]){1, 2, 1}, r));
    BAL_TRY(bal_safetensors_writer_add(w, "scalar", BAL_DTYPE_F32, 0, NULL, a));
    BAL_TRY(bal_safetensors_writer_add(w, "none", BAL_DTYPE_F32, 2, (const size_t[]){0, 5}, NULL));
    status = bal_safetensors_writer_commit(w, path);
out:
    bal_safetensors_writer_free(w);
    return status;
}

TEST(what_is_written_is_read)
{
    bal_safetensors *s;
    const char *path = path_of("sample.safetensors");
    if (!CHECK_OK(write_sample(path)) || !CHECK_OK(bal_safetensors_open(&s, path)))
        return;
    CHECK(bal_safetensors_count(s) == 6);
    CHECK_TEXT(bal_safetensors_metadata(s, "format"), "pt");
    CHECK_TEXT(bal_safetensors_metadata(s, "note"), "a \"quoted\" text\n");
    CHECK(bal_safetensors_metadata(s, "other") == NULL);
    const bal_tensor *a = bal_safetensors_find(s, "model.a"), *half = bal_safetensors_find(s, "half");
    const bal_tensor *wide = bal_safetensors_find(s, "wide"), *real = bal_safetensors_find(s, "real");
    const bal_tensor *scalar = bal_safetensors_find(s, "scalar"), *none = bal_safetensors_find(s, "none");
    if (!CHECK(a != NULL && half != NULL && wide != NULL && real != NULL && scalar != NULL && none != NULL))
        return;
    float f[2];
    bal_view v;
    CHECK(a->n_dims == 2 && a->shape[0] == 2 && a->shape[1] == 3 && a->n_bytes == 24 && a->dtype == BAL_DTYPE_F32);
    CHECK(bal_tensor_view(a, &v) == BAL_OK && v.rows == 2 && v.cols == 3);
    bal_row_to_f32(v.dtype, bal_view_row(&v, 1), 2, f);
    CHECK(f[0] == 4 && f[1] == 5);
    CHECK(bal_tensor_view(half, &v) == BAL_OK && v.rows == 1 && v.cols == 3);
    bal_row_to_f32(v.dtype, v.data, 2, f);
    CHECK(f[0] == 1 && f[1] == 2);
    memcpy(f, real->data, sizeof f);
    CHECK(f[0] == 0.5F && f[1] == 0.25F && real->n_dims == 3);
    CHECK_STATUS(bal_tensor_view(real, &v), BAL_EFORMAT);
    CHECK(scalar->n_dims == 0 && scalar->n_elements == 1 && none->n_elements == 0 && none->n_bytes == 0);
    CHECK((uintptr_t)wide->data % 8 == 0 && (uintptr_t)a->data % 4 == 0);
    CHECK(bal_safetensors_find(s, "model.b") == NULL);
    bal_safetensors_close(s);
}

TEST(writer_refuses_what_it_cannot_write)
{
    bal_safetensors_writer *w;
    static const float data[4] = {0};
    if (!CHECK_OK(bal_safetensors_writer_new(&w)))
        return;
    CHECK_STATUS(bal_safetensors_writer_add(w, "q", BAL_DTYPE_Q4_1, 1, (const size_t[]){32}, data), BAL_EUNSUPPORTED);
    CHECK_STATUS(bal_safetensors_writer_add(w, "", BAL_DTYPE_F32, 1, (const size_t[]){4}, data), BAL_EFORMAT);
    CHECK_STATUS(bal_safetensors_writer_add(w, "big", BAL_DTYPE_F32, 2, (const size_t[]){SIZE_MAX / 2, 3}, data),
                 BAL_ELIMIT);
    CHECK_OK(bal_safetensors_writer_add(w, "a", BAL_DTYPE_F32, 1, (const size_t[]){4}, data));
    CHECK_OK(bal_safetensors_writer_add(w, "a", BAL_DTYPE_F32, 1, (const size_t[]){4}, data));
    CHECK_STATUS(bal_safetensors_writer_commit(w, path_of("twice.safetensors")), BAL_EFORMAT);
    CHECK(!bal_file_exists(path_of("twice.safetensors")));
    bal_safetensors_writer_free(w);
    CHECK(write_sample("/nowhere/x.safetensors") != BAL_OK);
}

static bal_status check_image(const char *header, uint64_t header_bytes, size_t n_data)
{
    bal_buf b = {0};
    static const unsigned char zeros[64];
    CHECK_OK(bal_buf_append(&b, &header_bytes, 8));
    CHECK_OK(bal_buf_text(&b, header));
    CHECK_OK(bal_buf_append(&b, zeros, n_data));
    unsigned char *copy = bal_alloc(b.len, 1);
    memcpy(copy, b.data, b.len);
    bal_status status = bal_safetensors_check(copy, b.len);
    bal_free(copy);
    bal_buf_dispose(&b);
    return status;
}

#define A4 "\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}"

TEST(bad_files_are_refused)
{
    static const struct {
        const char *what, *header;
        size_t n_data;
    } files[] = {
        {"begins at byte 20 of the data, the one before it ends at 16",
         "{" A4 ",\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[20,24]}}", 24},
        {"begins at byte 12 of the data, the one before it ends at 16",
         "{" A4 ",\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]}}", 20},
        {"begins at byte 4 of the data, the one before it ends at 0",
         "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12},
        {"cover 16 bytes, the file holds 20", "{" A4 "}", 20},
        {"ends at byte 16 of the data, but the file holds only 12", "{" A4 "}", 12},
        {"4 elements of type F32 but 8 bytes", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,8]}}", 8},
        {"begins at 16, behind its end 0", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,0]}}", 16},
        {"more elements than can be counted",
         "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,16]}}", 16},
        {"two whole numbers", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,18446744073709551612]}}",
         16},
        {"two whole numbers", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,1e300]}}", 16},
        {"two whole numbers", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16,32]}}", 16},
        {"two whole numbers", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4]}}", 16},
        {"dimension 0 is not a whole number", "{\"a\":{\"dtype\":\"F32\",\"shape\":[-4],\"data_offsets\":[0,16]}}", 16},
        {"dimension 1 is not a whole number", "{\"a\":{\"dtype\":\"F32\",\"shape\":[4,1.5],\"data_offsets\":[0,16]}}",
         16},
        {"no list \"shape\"", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,16]}}", 16},
        {"more than 8 dimensions", "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,4],\"data_offsets\":[0,16]}}",
         16},
        {"no \"dtype\"", "{\"a\":{\"shape\":[4],\"data_offsets\":[0,16]}}", 16},
        {"no \"dtype\"", "{\"a\":{\"dtype\":\"LONGERTHANANY\",\"shape\":[4],\"data_offsets\":[0,16]}}", 16},
        {"not described by an object", "{\"a\":[1,2]}", 0},
        {"not an object", "{\"__metadata__\":[1]}", 0},
        {"'n' is not a text", "{\"__metadata__\":{\"n\":1}}", 0},
        {"begin with '{'", "[1,2,3]", 0},
        {"begin with '{'", "", 4},
        {"", "{" A4, 16},
        {"", "{" A4 "," A4 "}", 16},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        bal_status status = check_image(files[i].header, strlen(files[i].header), files[i].n_data);
        CHECK_MSG(status < 0 && strstr(bal_error_message(), files[i].what) != NULL, "file %zu: status %d, \"%s\"", i,
                  (int)status, bal_error_message());
    }
    CHECK_STATUS(check_image("{" A4 "}", 1000, 16), BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "1000 bytes long, but only") != NULL);
    CHECK_STATUS(check_image("{" A4 "}", UINT64_MAX, 16), BAL_EFORMAT);
    CHECK(strstr(bal_error_message(), "18446744073709551615") != NULL);
    CHECK_STATUS(bal_safetensors_check("short", 5), BAL_EFORMAT);
    /* a type of the future is listed, without a check of its size; spaces behind the header are allowed */
    CHECK_OK(check_image("{\"a\":{\"dtype\":\"F4_X\",\"shape\":[5],\"data_offsets\":[0,3]}}   ", 58, 3));
    CHECK_OK(check_image("{}", 2, 0));
}

TEST(every_cut_is_refused)
{
    bal_buf b = {0};
    const char *path = path_of("whole.safetensors");
    CHECK_OK(write_sample(path));
    CHECK_OK(bal_file_read(path, 1 << 20, &b));
    CHECK_OK(bal_safetensors_check(b.data, b.len));
    for (size_t n = 0; n < b.len; n++) {
        unsigned char *copy = bal_alloc(n, 1);
        memcpy(copy, b.data, n);
        bool refused = bal_safetensors_check(copy, n) == BAL_EFORMAT;
        bal_free(copy);
        if (!CHECK_MSG(refused, "cut to %zu of %zu bytes", n, b.len))
            break;
    }
    bal_buf_dispose(&b);
}

static void write_one(const char *path, const char *name, float value)
{
    bal_safetensors_writer *w = NULL;
    CHECK_OK(bal_safetensors_writer_new(&w));
    CHECK_OK(bal_safetensors_writer_add(w, name, BAL_DTYPE_F32, 1, (const size_t[]){1}, &value));
    CHECK_OK(bal_safetensors_writer_commit(w, path));
    bal_safetensors_writer_free(w);
}

static void write_index(const char *text)
{
    CHECK_OK(bal_file_replace(path_of("shards/model.safetensors.index.json"), text, strlen(text)));
}

TEST(sharded_folders)
{
    bal_safetensors *s = NULL;
    const char *folder = path_of("shards");
    CHECK_OK(bal_folder_make(folder));
    CHECK_STATUS(bal_safetensors_open(&s, folder), BAL_ENOENT);
    write_one(path_of("shards/one.safetensors"), "a", 1);
    write_one(path_of("shards/two.safetensors"), "b", 2);
    write_index("{\"metadata\":{},\"weight_map\":{\"b\":\"two.safetensors\",\"a\":\"one.safetensors\"}}");
    if (CHECK_OK(bal_safetensors_open(&s, folder))) {
        const bal_tensor *b = bal_safetensors_find(s, "b");
        float value = 0;
        CHECK(bal_safetensors_count(s) == 2 && b != NULL);
        memcpy(&value, b->data, sizeof value);
        CHECK(value == 2 && bal_ends_with(b->file, "two.safetensors"));
        bal_safetensors_close(s);
    }
    static const struct {
        const char *index, *what;
    } bad[] = {
        {"{\"weight_map\":{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}}", "'c' should be in two.safetensors"},
        {"{\"weight_map\":{\"a\":\"two.safetensors\"}}", "'a' should be in two.safetensors"},
        {"{\"weight_map\":{\"a\":\"three.safetensors\"}}", "three.safetensors"},
        {"{\"weight_map\":{\"a\":\"../one.safetensors\"}}", "not '../one.safetensors'"},
        {"{\"weight_map\":{\"a\":\"sub/one.safetensors\"}}", "not 'sub/one.safetensors'"},
        {"{\"weight_map\":{\"a\":7}}", "(no text)"},
        {"{\"weight_map\":{}}", "no \"weight_map\""},
        {"[]", "no \"weight_map\""},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_index(bad[i].index);
        bal_status status = bal_safetensors_open(&s, folder);
        CHECK_MSG(status < 0 && s == NULL && strstr(bal_error_message(), bad[i].what) != NULL,
                  "index %zu: status %d, \"%s\"", i, (int)status, bal_error_message());
    }
}

TEST(short_memory_is_reported)
{
    const char *path = path_of("memory.safetensors");
    CHECK_OK(write_sample(path));
    bool ended = false;
    for (uint64_t nth = 1; nth < 400 && !ended; nth++) {
        bal_safetensors *s = NULL;
        uint64_t held = bal_mem_bytes();
        bal_mem_fail_nth(nth);
        bal_status written = write_sample(path_of("memory2.safetensors"));
        bal_status opened = bal_safetensors_open(&s, path);
        bal_mem_fail_nth(0);
        ended = written == BAL_OK && opened == BAL_OK;
        CHECK(ended || (written == BAL_ENOMEM) != (opened == BAL_ENOMEM));
        bal_safetensors_close(s);
        CHECK(bal_mem_bytes() == held);
    }
    CHECK(ended);
}
