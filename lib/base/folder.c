/* Replacing a whole folder.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MAX_DEPTH = 16 };

static bal_status fail_errno(const char *what, const char *path)
{
    return bal_fail(BAL_EIO, "cannot %s %s: %s", what, path, strerror(errno));
}

static bal_status sync_entry(int parent, const char *name, int depth);

/* Takes over fd. */
static bal_status sync_folder(int fd, const char *name, int depth) // NOLINT(misc-no-recursion): depth is bounded
{
    int copy = dup(fd);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (dir == NULL) {
        if (copy >= 0)
            (void)close(copy);
        (void)close(fd);
        return fail_errno("read folder", name);
    }
    bal_status status = depth > MAX_DEPTH ? bal_fail(BAL_ELIMIT, "folder %s is nested too deep", name) : BAL_OK;
    const struct dirent *entry;
    while (status == BAL_OK && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = sync_entry(fd, entry->d_name, depth);
    (void)closedir(dir);
    if (status == BAL_OK && fsync(fd) != 0 && errno != EINVAL)
        status = fail_errno("sync folder", name);
    (void)close(fd);
    return status;
}

static bal_status sync_entry(int parent, const char *name, int depth) // NOLINT(misc-no-recursion)
{
    struct stat s;
    if (fstatat(parent, name, &s, AT_SYMLINK_NOFOLLOW) != 0)
        return fail_errno("read", name);
    if (!S_ISDIR(s.st_mode) && !S_ISREG(s.st_mode))
        return BAL_OK;
    int fd = openat(parent, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fail_errno("open", name);
    if (S_ISDIR(s.st_mode))
        return sync_folder(fd, name, depth + 1);
    bal_status status = fsync(fd) == 0 || errno == EINVAL ? BAL_OK : fail_errno("sync", name);
    (void)close(fd);
    return status;
}

/* File systems without an exchange of two names: the old folder is moved aside first. */
static bal_status move_aside(const char *from, const char *to)
{
    bal_buf aside = {0};
    bal_status status = bal_buf_printf(&aside, "%s.old", to);
    if (status == BAL_OK)
        status = bal_folder_remove(bal_buf_cstr(&aside));
    if (status == BAL_OK && rename(to, bal_buf_cstr(&aside)) != 0)
        status = fail_errno("replace folder", to);
    if (status == BAL_OK && rename(from, to) != 0) {
        status = fail_errno("replace folder", to);
        (void)rename(bal_buf_cstr(&aside), to);
    } else if (status == BAL_OK) {
        status = bal_folder_remove(bal_buf_cstr(&aside));
    }
    bal_buf_dispose(&aside);
    return status;
}

bal_status bal_folder_replace(const char *from, const char *to)
{
    if (bal_file_exists(to))
        return bal_fail(BAL_EIO, "cannot make folder %s: a file of that name is there", to);
    int fd = open(from, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return fail_errno("open folder", from);
    bal_status status = sync_folder(fd, from, 0);
    if (status != BAL_OK)
        return status;
    if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) != 0) {
        if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE) == 0)
            status = bal_folder_remove(from);
        else if (bal_folder_exists(to))
            status = move_aside(from, to);
        else if (rename(from, to) != 0)
            status = fail_errno("make folder", to);
    }
    char *parent = bal_path_dir(to);
    if (status == BAL_OK)
        status = parent == NULL ? BAL_ENOMEM : bal_folder_sync(parent);
    bal_free(parent);
    return status;
}
