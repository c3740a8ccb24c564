/* For targets whose reader takes a path: the input as a file of a folder in memory that is removed at the end.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_FUZZ_FILE_H
#define BAL_FUZZ_FILE_H

#include "lib/base/file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char fuzz_dir[100];

static void fuzz_remove(void)
{
    (void)bal_folder_remove(fuzz_dir);
}

/* The folder; the file `name` in it holds the bytes. */
static inline const char *fuzz_folder(const char *name, const unsigned char *data, size_t n)
{
    char path[200];
    if (fuzz_dir[0] == '\0') {
        struct stat s;
        (void)snprintf(fuzz_dir, sizeof fuzz_dir, "%s/balora-fuzz-%ld", stat("/dev/shm", &s) == 0 ? "/dev/shm" : "/tmp",
                       (long)getpid());
        if (mkdir(fuzz_dir, 0700) != 0 || atexit(fuzz_remove) != 0)
            abort();
    }
    (void)snprintf(path, sizeof path, "%s/%s", fuzz_dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || (n > 0 && write(fd, data, n) != (ssize_t)n) || close(fd) != 0)
        abort();
    return fuzz_dir;
}

#endif
