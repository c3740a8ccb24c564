/* The task files, put into the program as they are (paths are relative to the root of the repository, where the
 * compiler runs).  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/task.h"

/* A text of the section ends with a NUL after the file. */
#define TASK_FILE(NAME)                                                                                                \
    __asm__(".section .rodata\n"                                                                                       \
            ".global bal_task_file_" #NAME "\n"                                                                        \
            "bal_task_file_" #NAME ":\n"                                                                               \
            ".incbin \"evaluate/tasks/" #NAME ".json\"\n"                                                              \
            ".byte 0\n"                                                                                                \
            ".previous\n");                                                                                            \
    extern const char bal_task_file_##NAME[];

#define TASK(NAME) TASK_FILE(NAME)
#include "evaluate/task_list.def"
#undef TASK

#define TASK(NAME) {#NAME, bal_task_file_##NAME},
const task_file k_task_files[] = {
#include "evaluate/task_list.def"
};
const size_t k_n_task_files = sizeof k_task_files / sizeof k_task_files[0];
