/* lib/base: memory, strings, random numbers, files, threads.  SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/hash.h"
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/base/str.h"
#include "lib/base/threads.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TEST(alloc_is_aligned_zeroed_and_checked)
{
    unsigned char *p = bal_alloc(3, 7);
    if (!CHECK(p != NULL))
        return;
    CHECK((uintptr_t)p % 64 == 0);
    for (int i = 0; i < 21; i++)
        CHECK(p[i] == 0);
    memcpy(p, "twenty-one bytes here", 21);
    p = bal_realloc(p, 1000, 1);
    CHECK(p != NULL && memcmp(p, "twenty-one bytes here", 21) == 0);
    bal_free(p);
    CHECK(bal_alloc(SIZE_MAX / 2, 3) == NULL);
    bal_mem_fail_nth(2);
    void *a = bal_alloc(1, 1), *b = bal_alloc(1, 1), *c = bal_alloc(1, 1);
    CHECK(a != NULL && b == NULL && c != NULL);
    bal_free(a);
    bal_free(c);
}

TEST(nearest_name)
{
    static const char *const names[] = {"lora_alpha", "lora_dropout", "max_steps"};
    CHECK_TEXT(bal_nearest("lora_alhpa", names, 3), "lora_alpha");
    CHECK(bal_nearest("xyz", names, 3) == NULL);
}

TEST(texts_are_replaced_from_left_to_right)
{
    static const char *const cases[][4] = {{"aaa", "aa", "b", "ba"},
                                           {"a-b-", "-", "--", "a--b--"},
                                           {"x", "y", "z", "x"},
                                           {"", "y", "z", ""},
                                           {"yy", "y", "", ""}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bal_buf b = {0}, out = {0};
        CHECK_OK(bal_buf_text(&b, cases[i][0]));
        CHECK_OK(bal_buf_put_replaced(&out, cases[i][0], strlen(cases[i][0]), cases[i][1], cases[i][2]));
        CHECK_OK(bal_buf_replace(&b, cases[i][1], cases[i][2]));
        CHECK_MSG(strcmp(bal_buf_cstr(&b), cases[i][3]) == 0 && strcmp(bal_buf_cstr(&out), cases[i][3]) == 0,
                  "%s: %s, %s", cases[i][0], bal_buf_cstr(&b), bal_buf_cstr(&out));
        bal_buf_dispose(&b);
        bal_buf_dispose(&out);
    }
}

TEST(numbers_are_parsed_whole)
{
    int64_t i;
    double d;
    CHECK(bal_parse_i64("12", 0, 20, &i) == BAL_OK && i == 12);
    CHECK_STATUS(bal_parse_i64("12x", 0, 20, &i), BAL_EINVAL);
    CHECK_STATUS(bal_parse_i64("21", 0, 20, &i), BAL_EINVAL);
    CHECK_STATUS(bal_parse_f64("nan", 0, 1, &d), BAL_EINVAL);
    CHECK(bal_parse_f64("2.5e-1", 0, 1, &d) == BAL_OK && d == 0.25);
}

TEST(utf8)
{
    uint32_t cp = 0;
    unsigned char out[4];
    CHECK(bal_utf8_decode((const unsigned char *)"\xe2\x82\xac", 3, &cp) == 3 && cp == 0x20AC);
    CHECK(bal_utf8_encode(cp, out) == 3 && memcmp(out, "\xe2\x82\xac", 3) == 0);
    CHECK(bal_utf8_decode((const unsigned char *)"\xc0\x80", 2, &cp) == 0);
    CHECK(bal_utf8_decode((const unsigned char *)"\xed\xa0\x80", 3, &cp) == 0);
    CHECK(bal_utf8_decode((const unsigned char *)"\xe2\x82", 2, &cp) == 0);
}

TEST(mt19937_is_cpythons)
{
    /* lm-eval's first GSM8K draw: random.Random(1234).sample(range(7473), 5) */
    static const uint32_t want[] = {6374, 3610, 957, 61, 742};
    static uint32_t scratch[7473];
    bal_mt19937 m;
    uint32_t got[5];
    bal_mt_init(&m, 1234);
    bal_mt_sample(&m, 7473, 5, got, scratch);
    for (int i = 0; i < 5; i++)
        CHECK(got[i] == want[i]);
}

/* "abc" and a million 'a' of FIPS 180; git hash-object of "hello\n" and of an empty file; fed in pieces of every size. */
TEST(hashes)
{
    bal_hash h;
    char hex[BAL_HASH_HEX], whole[BAL_HASH_HEX], text[1000];
    bal_sha1_start(&h);
    bal_hash_add(&h, "abc", 3);
    bal_hash_finish(&h, hex);
    CHECK_TEXT(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
    memset(text, 'a', sizeof text);
    bal_sha1_start(&h);
    for (int i = 0; i < 1000; i++)
        bal_hash_add(&h, text, sizeof text);
    bal_hash_finish(&h, hex);
    CHECK_TEXT(hex, "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    bal_sha256_start(&h);
    for (int i = 0; i < 1000; i++)
        bal_hash_add(&h, text, sizeof text);
    bal_hash_finish(&h, hex);
    CHECK_TEXT(hex, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    bal_git_blob_start(&h, 6);
    bal_hash_add(&h, "hello\n", 6);
    bal_hash_finish(&h, hex);
    CHECK_TEXT(hex, "ce013625030ba8dba906f756967f9e9ca394464a");
    bal_git_blob_start(&h, 0);
    bal_hash_finish(&h, hex);
    CHECK_TEXT(hex, "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391");
    for (size_t n = 0; n < 200; n++) { /* every way that a block can fill up */
        bal_sha256_hex(text, n, whole);
        bal_sha256_start(&h);
        bal_hash_add(&h, text, n / 3);
        bal_hash_add(&h, text, n - n / 3);
        bal_hash_finish(&h, hex);
        CHECK_TEXT(hex, whole);
    }
}

TEST(sha256)
{
    char hex[65];
    bal_sha256_hex("abc", 3, hex);
    CHECK_TEXT(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(replacement_is_complete_or_absent)
{
    char *path = bal_path_join(test_folder(), "file.txt");
    bal_buf text = {0};
    bal_writer w;
    CHECK_OK(bal_file_replace(path, "old", 3));
    CHECK_OK(bal_writer_open(&w, path));
    CHECK_OK(bal_writer_write(&w, "new text", 8));
    bal_writer_abort(&w);
    CHECK_OK(bal_file_read(path, 100, &text));
    CHECK_TEXT(bal_buf_cstr(&text), "old");
    bal_buf_clear(&text);
    CHECK_STATUS(bal_file_read(path, 2, &text), BAL_ELIMIT);
    CHECK_STATUS(bal_file_read("/no/such/file", 2, &text), BAL_ENOENT);
    bal_buf_dispose(&text);
    bal_free(path);
}

/* A pipe cannot be replaced and stays a pipe; a link stays a link, and the file behind it is replaced. */
TEST(what_is_no_file_is_not_replaced)
{
    char *pipe_path = bal_path_join(test_folder(), "pipe"), *link_path = bal_path_join(test_folder(), "link");
    char *target = bal_path_join(test_folder(), "target.txt"), got[8] = "";
    bal_buf text = {0};
    struct stat s;
    if (CHECK(mkfifo(pipe_path, 0600) == 0)) {
        int fd = open(pipe_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        CHECK_OK(bal_file_replace(pipe_path, "through", 7));
        CHECK(read(fd, got, 7) == 7 && memcmp(got, "through", 7) == 0);
        CHECK(stat(pipe_path, &s) == 0 && S_ISFIFO(s.st_mode));
        (void)close(fd);
    }
    CHECK_OK(bal_file_replace(target, "old", 3));
    CHECK(symlink("target.txt", link_path) == 0);
    CHECK_OK(bal_file_replace(link_path, "new", 3));
    CHECK(lstat(link_path, &s) == 0 && S_ISLNK(s.st_mode));
    CHECK_OK(bal_file_read(target, 100, &text));
    CHECK_TEXT(bal_buf_cstr(&text), "new");
    bal_buf_dispose(&text);
    bal_free(pipe_path);
    bal_free(link_path);
    bal_free(target);
}

static void add_range(void *context, size_t begin, size_t end, size_t thread)
{
    (void)thread;
    atomic_uint_fast64_t *sum = context;
    for (size_t i = begin; i < end; i++)
        (void)atomic_fetch_add(sum, i);
}

TEST(parallel_for_covers_each_item_once)
{
    for (size_t n = 0; n < 40; n += 13) {
        atomic_uint_fast64_t a = 0, b = 0;
        bal_parallel_for(n, 4, add_range, &a);
        bal_parallel_dynamic(n, 3, add_range, &b);
        CHECK(a == n * (n - (n > 0)) / 2);
        CHECK(b == n * (n - (n > 0)) / 2);
    }
}
