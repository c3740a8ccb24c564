/* The commit that is checked out in a folder, read from git's own files: a repository, or a linked worktree whose .git is
 * a file; references of their own files or packed.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/store_impl.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_LINKS = 5 };

/* folder/name; false when it does not fit. */
static bool join(char out[PATH_MAX], const char *folder, const char *name)
{
    int n = name[0] == '/' ? snprintf(out, PATH_MAX, "%s", name) : snprintf(out, PATH_MAX, "%s/%s", folder, name);
    return n > 0 && n < PATH_MAX;
}

/* The first line of folder/name. */
static bool first_line(const char *folder, const char *name, char out[PATH_MAX])
{
    char path[PATH_MAX];
    struct stat s;
    if (!join(path, folder, name) || stat(path, &s) != 0 || !S_ISREG(s.st_mode))
        return false;
    FILE *f = fopen(path, "re");
    bool got = f != NULL && fgets(out, PATH_MAX, f) != NULL;
    if (f != NULL)
        (void)fclose(f);
    if (got)
        out[strcspn(out, "\n")] = '\0';
    return got;
}

static bool is_commit(const char *text, size_t n)
{
    return (n == 40 || n == 64) && strspn(text, "0123456789abcdef") == n;
}

/* The line "<commit> <name>" of packed-refs; lines that begin with # or ^ are of no reference. */
static bool packed(const char *common, const char *name, char out[PATH_MAX])
{
    char path[PATH_MAX], line[PATH_MAX];
    bool found = false;
    FILE *f = join(path, common, "packed-refs") ? fopen(path, "re") : NULL;
    while (f != NULL && !found && fgets(line, sizeof line, f) != NULL) {
        char *space = strchr(line, ' ');
        line[strcspn(line, "\n")] = '\0';
        found = space != NULL && strcmp(space + 1, name) == 0;
        if (found) {
            *space = '\0';
            (void)snprintf(out, PATH_MAX, "%s", line);
        }
    }
    if (f != NULL)
        (void)fclose(f);
    return found;
}

/* The folder of git's files for the nearest repository at or above `folder`. */
static bool find_git(const char *folder, char git[PATH_MAX])
{
    char here[PATH_MAX], line[PATH_MAX];
    struct stat s;
    if (snprintf(here, sizeof here, "%s", folder) >= (int)sizeof here)
        return false;
    for (;;) {
        if (join(git, here, ".git") && stat(git, &s) == 0) {
            if (S_ISDIR(s.st_mode))
                return true;
            return first_line(here, ".git", line) && strncmp(line, "gitdir: ", 8) == 0 && join(git, here, line + 8);
        }
        char *slash = strrchr(here, '/');
        if (slash == NULL)
            return false;
        *slash = '\0';
    }
}

bool bal_git_commit(const char *folder, char out[65])
{
    char git[PATH_MAX], common[PATH_MAX], line[PATH_MAX], name[PATH_MAX];
    if (!find_git(folder, git) || !first_line(git, "HEAD", line))
        return false;
    if (!first_line(git, "commondir", name)) /* only a linked worktree has one */
        (void)snprintf(common, sizeof common, "%s", git);
    else if (!join(common, git, name))
        return false;
    for (int i = 0; i < MAX_LINKS && strncmp(line, "ref: ", 5) == 0; i++) {
        (void)snprintf(name, sizeof name, "%s", line + 5);
        if (strstr(name, "..") != NULL ||
            (!first_line(git, name, line) && !first_line(common, name, line) && !packed(common, name, line)))
            return false;
    }
    if (!is_commit(line, strlen(line)))
        return false;
    (void)snprintf(out, 65, "%.64s", line);
    return true;
}
