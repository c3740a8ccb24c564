/* lib/io/gguf: a good file, and a table of bad ones.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bal_buf g_image;

static void put(const void *p, size_t n)
{
    CHECK_OK(bal_buf_append(&g_image, p, n));
}

static void put_u32(uint32_t v)
{
    put(&v, 4);
}

static void put_u64(uint64_t v)
{
    put(&v, 8);
}

static void put_text(const char *s)
{
    put_u64(strlen(s));
    put(s, strlen(s));
}

static void put_head(uint32_t version, uint64_t n_tensors, uint64_t n_values)
{
    bal_buf_clear(&g_image);
    put("GGUF", 4);
    put_u32(version);
    put_u64(n_tensors);
    put_u64(n_values);
}

static void put_tensor(const char *name, uint32_t n_dims, uint64_t in, uint64_t out, uint32_t type, uint64_t offset)
{
    put_text(name);
    put_u32(n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        put_u64(i == 0 ? in : (i == 1 ? out : 1));
    put_u32(type);
    put_u64(offset);
}

/* Up to the next multiple of 32, then n bytes of data. */
static void put_data(size_t n)
{
    static const unsigned char zeros[4096];
    size_t pad = (32 - g_image.len % 32) % 32;
    put(zeros, pad);
    put(zeros, n);
}

static void good_file(void)
{
    float f = 0.5F;
    uint16_t u16 = 65535;
    int8_t i8 = -3;
    uint8_t yes = 1;
    double d = 1e-300;
    int64_t i64 = -5000000000;
    put_head(3, 3, 9);
    put_text("general.architecture"), put_u32(BAL_GGUF_TEXT), put_text("llama");
    put_text("a.float"), put_u32(BAL_GGUF_F32), put(&f, 4);
    put_text("a.u16"), put_u32(BAL_GGUF_U16), put(&u16, 2);
    put_text("a.i8"), put_u32(BAL_GGUF_I8), put(&i8, 1);
    put_text("a.bool"), put_u32(BAL_GGUF_BOOL), put(&yes, 1);
    put_text("a.double"), put_u32(BAL_GGUF_F64), put(&d, 8);
    put_text("a.i64"), put_u32(BAL_GGUF_I64), put(&i64, 8);
    put_text("a.texts"), put_u32(BAL_GGUF_ARRAY), put_u32(BAL_GGUF_TEXT), put_u64(2), put_text("one"), put_text("");
    put_text("a.numbers"), put_u32(BAL_GGUF_ARRAY), put_u32(BAL_GGUF_I32), put_u64(3), put_u32(7), put_u32(8),
        put_u32(9);
    put_tensor("w", 2, 64, 3, 3, 0);     /* Q4_1, 3 rows of 2 blocks: 120 bytes */
    put_tensor("k", 2, 256, 1, 11, 128); /* Q3_K, 110 bytes */
    put_tensor("norm", 1, 4, 0, 0, 288); /* F32 */
    put_data(304);
}

TEST(values_and_tensors)
{
    char path[256];
    bal_gguf *g;
    int64_t i = 0;
    double x = 0;
    bool found;
    bal_view v;
    good_file();
    (void)snprintf(path, sizeof path, "%s/good.gguf", test_folder());
    CHECK_OK(bal_file_replace(path, g_image.data, g_image.len));
    if (!CHECK_OK(bal_gguf_open(&g, path)))
        return;
    CHECK(bal_gguf_version(g) == 3 && bal_gguf_count_values(g) == 9 && bal_gguf_count_tensors(g) == 3);
    CHECK_TEXT(bal_gguf_text_of(g, "general.architecture"), "llama");
    CHECK(bal_gguf_text_of(g, "a.u16") == NULL && bal_gguf_text_of(g, "none") == NULL);
    CHECK(bal_gguf_i64(g, "a.u16", &i, &found) == BAL_OK && found && i == 65535);
    CHECK(bal_gguf_i64(g, "a.i8", &i, NULL) == BAL_OK && i == -3);
    CHECK(bal_gguf_i64(g, "a.bool", &i, NULL) == BAL_OK && i == 1);
    CHECK(bal_gguf_i64(g, "a.i64", &i, NULL) == BAL_OK && i == -5000000000);
    CHECK(bal_gguf_f64(g, "a.double", &x, NULL) == BAL_OK && x == 1e-300);
    CHECK(bal_gguf_f64(g, "a.float", &x, NULL) == BAL_OK && x == 0.5);
    CHECK_STATUS(bal_gguf_i64(g, "a.float", &i, NULL), BAL_EFORMAT);
    CHECK_STATUS(bal_gguf_i64(g, "a.numbers", &i, NULL), BAL_EFORMAT);
    CHECK_STATUS(bal_gguf_f64(g, "general.architecture", &x, NULL), BAL_EFORMAT);
    CHECK(bal_gguf_i64(g, "none", &i, &found) == BAL_OK && !found);
    const bal_gguf_value *texts = bal_gguf_find(g, "a.texts"), *numbers = bal_gguf_find(g, "a.numbers");
    CHECK(texts->is_array && texts->n == 2 && texts->texts[0].n == 3 && memcmp(texts->texts[0].data, "one", 3) == 0);
    CHECK(texts->texts[1].n == 0 && numbers->n == 3 && bal_gguf_element(numbers, 2) == 9);
    CHECK(isnan(bal_gguf_element(numbers, 3)));
    const bal_tensor *w = bal_gguf_tensor(g, "w"), *k = bal_gguf_tensor(g, "k"), *norm = bal_gguf_tensor_at(g, 2);
    CHECK(w->n_dims == 2 && w->shape[0] == 3 && w->shape[1] == 64 && w->n_bytes == 120 && w->dtype == BAL_DTYPE_Q4_1);
    CHECK(bal_tensor_view(w, &v) == BAL_OK && v.rows == 3 && v.cols == 64 && v.row_bytes == 40);
    CHECK_TEXT(k->dtype_name, "Q3_K");
    CHECK(k->dtype == BAL_DTYPE_COUNT && k->n_bytes == 110);
    CHECK_STATUS(bal_tensor_view(k, &v), BAL_EUNSUPPORTED);
    CHECK(norm->n_elements == 4 && bal_tensor_view(norm, &v) == BAL_OK && v.rows == 1 && v.cols == 4);
    CHECK(bal_gguf_tensor(g, "x") == NULL);
    bal_gguf_close(g);
    CHECK_STATUS(bal_gguf_open(&g, "/nowhere/file.gguf"), BAL_ENOENT);
    CHECK(g == NULL);
}

static bal_status parse_image(void)
{
    bal_gguf *g;
    uint64_t held = bal_mem_bytes();
    /* an exact copy, so that the sanitizer sees a read behind the end */
    unsigned char *copy = bal_alloc(g_image.len, 1);
    memcpy(copy, g_image.data, g_image.len);
    bal_status status = bal_gguf_parse(&g, copy, g_image.len);
    bal_gguf_close(g);
    bal_free(copy);
    CHECK(bal_mem_bytes() == held);
    return status;
}

TEST(every_cut_is_refused)
{
    good_file();
    CHECK_OK(parse_image());
    size_t whole = g_image.len;
    for (size_t n = 0; n < whole; n++) {
        g_image.len = n;
        if (!CHECK_MSG(parse_image() == BAL_EFORMAT, "cut to %zu of %zu bytes", n, whole))
            break;
    }
    g_image.len = whole;
}

typedef struct bad_file {
    const char *what; /* part of the message */
    bal_status status;
    void (*make)(void);
} bad_file;

static void not_gguf(void)
{
    bal_buf_clear(&g_image);
    put("GGML, not GGUF, and long enough to be a head", 44);
}
static void version_1(void)
{
    put_head(1, 0, 0);
}
static void big_endian(void)
{
    put_head(0x03000000, 0, 0);
}
static void many_values(void)
{
    put_head(3, 0, UINT64_MAX);
}
static void many_tensors(void)
{
    put_head(3, 1ULL << 61, 0);
    put_data(64);
}
static void long_key(void)
{
    put_head(3, 0, 1), put_u64(UINT64_MAX), put_data(64);
}
static void unknown_value_type(void)
{
    put_head(3, 0, 1), put_text("key"), put_u32(13), put_data(64);
}
static void nested_array(void)
{
    put_head(3, 0, 1), put_text("key"), put_u32(BAL_GGUF_ARRAY), put_u32(BAL_GGUF_ARRAY), put_u64(1), put_data(64);
}
static void long_array(void)
{
    put_head(3, 0, 1), put_text("key"), put_u32(BAL_GGUF_ARRAY), put_u32(BAL_GGUF_U64), put_u64(1ULL << 61),
        put_data(64);
}
static void long_text_array(void)
{
    put_head(3, 0, 1), put_text("key"), put_u32(BAL_GGUF_ARRAY), put_u32(BAL_GGUF_TEXT), put_u64(1ULL << 60),
        put_data(64);
}
static void two_equal_keys(void)
{
    put_head(3, 0, 2);
    for (int i = 0; i < 2; i++)
        put_text("key"), put_u32(BAL_GGUF_U32), put_u32(1);
}
static void odd_alignment(void)
{
    put_head(3, 0, 1), put_text("general.alignment"), put_u32(BAL_GGUF_U32), put_u32(24);
}
static void five_dims(void)
{
    put_head(3, 1, 0), put_tensor("w", 5, 1, 1, 0, 0), put_data(64);
}
static void overflowing_dims(void)
{
    put_head(3, 1, 0), put_tensor("w", 2, 1ULL << 33, 1ULL << 33, 0, 0), put_data(64);
}
static void overflowing_bytes(void)
{
    put_head(3, 1, 0), put_tensor("w", 2, 1ULL << 31, 1ULL << 32, 0, 0), put_data(64);
}
static void half_blocks(void)
{
    put_head(3, 1, 0), put_tensor("w", 2, 33, 2, 3, 0), put_data(64);
}
static void beyond_end(void)
{
    put_head(3, 1, 0), put_tensor("w", 2, 4, 5, 0, 0), put_data(64);
}
static void far_offset(void)
{
    put_head(3, 1, 0), put_tensor("w", 2, 4, 4, 0, UINT64_MAX - 31), put_data(64);
}
static void odd_offset(void)
{
    put_head(3, 1, 0), put_tensor("w", 2, 4, 2, 0, 16), put_data(64);
}
static void overlapping(void)
{
    put_head(3, 2, 0), put_tensor("a", 2, 4, 4, 0, 0), put_tensor("b", 2, 4, 2, 0, 32), put_data(64);
}
static void two_equal_names(void)
{
    put_head(3, 2, 0), put_tensor("a", 2, 4, 2, 0, 0), put_tensor("a", 2, 4, 2, 0, 32), put_data(64);
}
static void empty_name(void)
{
    put_head(3, 1, 0), put_tensor("", 2, 4, 2, 0, 0), put_data(64);
}
static void control_name(void)
{
    put_head(3, 1, 0), put_tensor("w\033[2J", 2, 4, 2, 0, 0), put_data(64);
}
static void wild_type(void)
{
    put_head(3, 1, 0), put_tensor("w", 2, 4, 2, 0x7fffffff, 0), put_data(64);
}

TEST(bad_files_are_refused)
{
    static const bad_file files[] = {
        {"does not begin with \"GGUF\"", BAL_EFORMAT, not_gguf},
        {"version 1", BAL_EUNSUPPORTED, version_1},
        {"big-endian", BAL_EUNSUPPORTED, big_endian},
        {"says 18446744073709551615 values", BAL_EFORMAT, many_values},
        {"says 2305843009213693952 tensors", BAL_EFORMAT, many_tensors},
        {"ends inside the key of a value", BAL_EFORMAT, long_key},
        {"'key' has the unknown type 13", BAL_EFORMAT, unknown_value_type},
        {"array of arrays", BAL_EUNSUPPORTED, nested_array},
        {"ends inside key", BAL_EFORMAT, long_array},
        {"'key' says 1152921504606846976 texts", BAL_EFORMAT, long_text_array},
        {"'key' is there twice", BAL_EFORMAT, two_equal_keys},
        {"general.alignment is 24", BAL_EFORMAT, odd_alignment},
        {"'w' has 5 dimensions", BAL_EFORMAT, five_dims},
        {"'w' has more elements", BAL_EFORMAT, overflowing_dims},
        {"'w' is too large", BAL_EFORMAT, overflowing_bytes},
        {"'w' has rows of 33 elements", BAL_EFORMAT, half_blocks},
        {"'w' (80 bytes at offset 0) goes beyond the 64", BAL_EFORMAT, beyond_end},
        {"'w' (64 bytes at offset 18446744073709551584)", BAL_EFORMAT, far_offset},
        {"'w' is at offset 16", BAL_EFORMAT, odd_offset},
        {"'a' and 'b' overlap", BAL_EFORMAT, overlapping},
        {"'a' is there twice", BAL_EFORMAT, two_equal_names},
        {"tensor number 0 has 0 bytes", BAL_EFORMAT, empty_name},
        {"control character 27", BAL_EFORMAT, control_name},
        {"impossible type 2147483647", BAL_EFORMAT, wild_type},
    };
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        files[i].make();
        bal_status status = parse_image();
        CHECK_MSG(status == files[i].status && strstr(bal_error_message(), files[i].what) != NULL,
                  "\"%s\": status %d, message \"%s\"", files[i].what, (int)status, bal_error_message());
    }
    put_head(2, 1, 0), put_tensor("w", 2, 4, 2, 77, 0), put_data(32); /* a type of the future is listed */
    CHECK_OK(parse_image());
    bal_buf_dispose(&g_image);
}

TEST(short_memory_is_reported)
{
    good_file();
    bool ended = false;
    for (uint64_t nth = 1; nth < 100 && !ended; nth++) {
        bal_gguf *g;
        uint64_t held = bal_mem_bytes();
        bal_mem_fail_nth(nth);
        bal_status status = bal_gguf_parse(&g, g_image.data, g_image.len);
        bal_mem_fail_nth(0);
        ended = status == BAL_OK;
        CHECK(ended || (status == BAL_ENOMEM && g == NULL));
        bal_gguf_close(g);
        CHECK(bal_mem_bytes() == held);
    }
    CHECK(ended);
    bal_buf_dispose(&g_image);
}
