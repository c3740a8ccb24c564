/* Running the program under test: build/MODE/balora, beside the test's own build/MODE/tests/...
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TESTS_PROGRAM_H
#define BAL_TESTS_PROGRAM_H

#include <stdbool.h>
#include <sys/types.h>

enum { TEST_PATH = 1024 };

/* Starts it with words[1..], up to NULL (words[0] is its name), in the folder dir (NULL: here); standard output and
 * error go to the files out and err ("/dev/null" for none; NULL: where the test's own go).  Its process, or -1. */
pid_t test_start(const char *dir, const char *const *words, const char *out, const char *err);
/* Its exit status, 128 + the signal that ended it, or -1. */
int test_wait(pid_t pid);

#endif
