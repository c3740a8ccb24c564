/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/program.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static bool program(char out[TEST_PATH])
{
    ssize_t n = readlink("/proc/self/exe", out, TEST_PATH - 1);
    if (n <= 0)
        return false;
    out[n] = '\0';
    char *tests = NULL;
    for (char *at = strstr(out, "/tests/"); at != NULL; at = strstr(at + 1, "/tests/"))
        tests = at; /* the last: the repository may lie in a folder of that name */
    if (tests != NULL)
        (void)snprintf(tests, 8, "/balora"); /* as long as what it replaces, and the rest is longer */
    return tests != NULL;
}

static bool redirect(const char *path, int to)
{
    if (path == NULL)
        return true;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    return fd >= 0 && dup2(fd, to) == to;
}

pid_t test_start(const char *dir, const char *const *words, const char *out, const char *err)
{
    char path[TEST_PATH];
    char *const *args = NULL;
    if (!program(path))
        return -1;
    memcpy(&args, &words, sizeof args); /* execv's type says char *, it does not write */
    pid_t pid = fork();
    if (pid == 0) {
        if (redirect(out, STDOUT_FILENO) && redirect(err, STDERR_FILENO) && (dir == NULL || chdir(dir) == 0))
            (void)execv(path, args);
        _exit(127);
    }
    return pid;
}

int test_wait(pid_t pid)
{
    int status = 0;
    if (pid <= 0 || waitpid(pid, &status, 0) != pid)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
