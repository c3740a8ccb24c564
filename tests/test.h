/* The test harness: one process per test file; every failed check is counted and makes the exit status 1.
 *   TEST(name) { CHECK(...); CHECK_NEAR(got, want, tolerance); }
 *   int main(int argc, char **argv) { return test_main(argc, argv); }   -- already in tests/test.c
 * A test that cannot run says SKIP("why").  Run one with -k PART_OF_NAME.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TESTS_TEST_H
#define BAL_TESTS_TEST_H

#include "lib/base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct test_case {
    const char *name, *file;
    void (*run)(void);
    struct test_case *next;
} test_case;

void test_register(test_case *t);
bool test_fail(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void test_skip(const char *why);
/* |got - want| <= tolerance, written so that NaN fails. */
bool test_near(const char *file, int line, const char *what, double got, double want, double tolerance);
bool test_text(const char *file, int line, const char *got, const char *want);
/* A scratch folder of this process, removed at its end. */
const char *test_folder(void);
/* "../shared/" + name if it is there (BALORA_SHARED overrides the folder), else NULL: then SKIP. */
const char *test_shared(const char *name);
/* Silences the failures of `run` and returns how many there were: for tests of the tests (mutations). */
size_t test_count_failures(void (*run)(void));

#define TEST(NAME)                                                                                                     \
    static void test_##NAME(void);                                                                                     \
    __attribute__((constructor)) static void register_##NAME(void)                                                     \
    {                                                                                                                  \
        static test_case t = {#NAME, __FILE__, test_##NAME, NULL};                                                     \
        test_register(&t);                                                                                             \
    }                                                                                                                  \
    static void test_##NAME(void)

/* These are expressions: true when the check passed, so that a test can return early. */
#define CHECK(cond)                ((cond) ? true : test_fail(__FILE__, __LINE__, "%s", #cond))
#define CHECK_MSG(cond, ...)       ((cond) ? true : test_fail(__FILE__, __LINE__, __VA_ARGS__))
#define CHECK_NEAR(got, want, tol) test_near(__FILE__, __LINE__, #got, (double)(got), (double)(want), (double)(tol))
#define CHECK_TEXT(got, want)      test_text(__FILE__, __LINE__, (got), (want))
#define CHECK_OK(expr)             ((expr) == BAL_OK ? true : test_fail(__FILE__, __LINE__, "%s: %s", #expr, bal_error_message()))
#define CHECK_STATUS(expr, want)   ((expr) == (want) ? true : test_fail(__FILE__, __LINE__, "%s is not %s", #expr, #want))
#define SKIP(why)                                                                                                      \
    do {                                                                                                               \
        test_skip(why);                                                                                                \
        return;                                                                                                        \
    } while (0)

#endif
