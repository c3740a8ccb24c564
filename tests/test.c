/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/test.h"

#include "lib/base/file.h"
#include "lib/base/threads.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static test_case *g_first;
static size_t g_failures;
static bool g_silent;
static const char *g_skipped;
static char g_folder[64];

void test_register(test_case *t)
{
    test_case **end = &g_first;
    while (*end != NULL)
        end = &(*end)->next;
    *end = t;
}

bool test_fail(const char *file, int line, const char *format, ...)
{
    g_failures++;
    if (!g_silent) {
        va_list args;
        va_start(args, format);
        printf("%s:%d: ", file, line);
        vprintf(format, args);
        printf("\n");
        va_end(args);
    }
    return false;
}

void test_skip(const char *why)
{
    g_skipped = why;
}

bool test_near(const char *file, int line, const char *what, double got, double want, double tolerance)
{
    if (fabs(got - want) <= tolerance || (isinf(want) && got == want)) // NaN fails
        return true;
    return test_fail(file, line, "%s is %.17g, not %.17g +- %g", what, got, want, tolerance);
}

bool test_text(const char *file, int line, const char *got, const char *want)
{
    if (got != NULL && want != NULL && strcmp(got, want) == 0)
        return true;
    return test_fail(file, line, "text is \"%s\", not \"%s\"", got == NULL ? "(null)" : got,
                     want == NULL ? "(null)" : want);
}

static void remove_folder(void)
{
    (void)bal_folder_remove(g_folder);
}

const char *test_folder(void)
{
    if (g_folder[0] == '\0') {
        (void)snprintf(g_folder, sizeof g_folder, "/tmp/balora-test-%ld", (long)getpid());
        if (bal_folder_make(g_folder) != BAL_OK)
            (void)test_fail(__FILE__, __LINE__, "%s", bal_error_message());
        (void)atexit(remove_folder);
    }
    return g_folder;
}

const char *test_shared(const char *name)
{
    static char path[8][512];
    static size_t turn;
    char *p = path[turn++ % 8];
    const char *root = getenv("BALORA_SHARED");
    (void)snprintf(p, sizeof path[0], "%s/%s", root != NULL ? root : "../shared", name);
    return access(p, R_OK) == 0 ? p : NULL;
}

size_t test_count_failures(void (*run)(void))
{
    size_t before = g_failures;
    bool was_silent = g_silent;
    g_silent = true;
    run();
    g_silent = was_silent;
    size_t n = g_failures - before;
    g_failures = before;
    return n;
}

int main(int argc, char **argv)
{
    (void)setenv("HF_HUB_OFFLINE", "1", 1); /* no test leaves this machine; those of the hub have their own server */
    const char *only = argc == 3 && strcmp(argv[1], "-k") == 0 ? argv[2] : "";
    size_t passed = 0, failed = 0, skipped = 0;
    if (bal_threads_start(2) != BAL_OK)
        return 1;
    for (const test_case *t = g_first; t != NULL; t = t->next) {
        if (strstr(t->name, only) == NULL)
            continue;
        size_t before = g_failures;
        g_skipped = NULL;
        t->run();
        if (g_failures != before) {
            failed++;
            printf("FAIL %s\n", t->name);
        } else if (g_skipped != NULL) {
            skipped++;
            printf("skip %s: %s\n", t->name, g_skipped);
        } else {
            passed++;
        }
        (void)fflush(stdout);
    }
    bal_threads_stop();
    printf("%zu passed, %zu failed, %zu skipped\n", passed, failed, skipped);
    return failed != 0 || fflush(stdout) != 0;
}
