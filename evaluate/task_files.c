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
    extern const char bal_task_file_##NAME[]

TASK_FILE(gsm8k);
TASK_FILE(gsm8k_balora);
TASK_FILE(gsm8k_cot);
TASK_FILE(gsm8k_cot_zeroshot);
TASK_FILE(gsm8k_metamath);
TASK_FILE(gsm8k_pissa);

const task_file k_task_files[] = {
    {"gsm8k", bal_task_file_gsm8k},
    {"gsm8k_balora", bal_task_file_gsm8k_balora},
    {"gsm8k_cot", bal_task_file_gsm8k_cot},
    {"gsm8k_cot_zeroshot", bal_task_file_gsm8k_cot_zeroshot},
    {"gsm8k_metamath", bal_task_file_gsm8k_metamath},
    {"gsm8k_pissa", bal_task_file_gsm8k_pissa},
};
const size_t k_n_task_files = sizeof k_task_files / sizeof k_task_files[0];
