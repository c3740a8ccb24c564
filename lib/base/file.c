/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"

#include "lib/base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static bal_status errno_fail(const char *what, const char *path)
{
    int e = errno;
    bal_status code = e == ENOENT || e == ENOTDIR ? BAL_ENOENT : BAL_EIO;
    return bal_fail(code, "%s %s: %s", what, path, strerror(e));
}

bool bal_file_exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISREG(s.st_mode);
}

bool bal_folder_exists(const char *path)
{
    struct stat s;
    return stat(path, &s) == 0 && S_ISDIR(s.st_mode);
}

bal_status bal_file_size(const char *path, uint64_t *bytes)
{
    struct stat s;
    if (stat(path, &s) != 0)
        return errno_fail("cannot read", path);
    *bytes = (uint64_t)s.st_size;
    return BAL_OK;
}

bal_status bal_file_read(const char *path, size_t max_bytes, bal_buf *out)
{
    char chunk[65536];
    if (bal_folder_exists(path))
        return bal_fail(BAL_ENOENT, "%s is a folder, a file is needed", path);
    if (!bal_file_exists(path) && access(path, R_OK) != 0)
        return errno_fail("cannot read", path);
    gzFile f = gzopen(path, "rbe"); /* also reads files that are not compressed */
    if (f == NULL)
        return errno_fail("cannot read", path);
    bal_status status = BAL_OK;
    size_t total = 0;
    int n = 0;
    while (status == BAL_OK && (n = gzread(f, chunk, sizeof chunk)) > 0) {
        total += (size_t)n;
        status = total > max_bytes ? bal_fail(BAL_ELIMIT, "%s is larger than %zu bytes", path, max_bytes)
                                   : bal_buf_append(out, chunk, (size_t)n);
    }
    if (status == BAL_OK && n < 0)
        status = bal_fail(BAL_EIO, "cannot read %s: broken file or compressed data cut short", path);
    (void)gzclose_r(f);
    return status;
}

bal_status bal_folder_make(const char *path)
{
    char *copy = bal_strdup(path);
    if (copy == NULL)
        return BAL_ENOMEM;
    bal_status status = BAL_OK;
    for (char *c = copy + 1; status == BAL_OK; c++) {
        if (*c != '/' && *c != '\0')
            continue;
        char keep = *c;
        *c = '\0';
        if (mkdir(copy, 0777) != 0 && !(errno == EEXIST && bal_folder_exists(copy)))
            status = bal_fail(BAL_EIO, "cannot make folder %s: %s", copy,
                              errno == EEXIST ? "a file of that name is there" : strerror(errno));
        *c = keep;
        if (keep == '\0')
            break;
    }
    bal_free(copy);
    return status;
}

enum { MAX_DEPTH = 16 };

/* Depth is bounded and links are not followed, so recursion over a folder tree ends. */
static bal_status remove_at(int parent, const char *name, int depth) // NOLINT(misc-no-recursion)
{
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT)
        return BAL_OK;
    if (errno != EISDIR && errno != EPERM)
        return errno_fail("cannot remove", name);
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno_fail("cannot remove", name);
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        (void)close(fd);
        return errno_fail("cannot remove", name);
    }
    bal_status status = depth > MAX_DEPTH ? bal_fail(BAL_ELIMIT, "folder %s is nested too deep", name) : BAL_OK;
    const struct dirent *entry;
    while (status == BAL_OK && (entry = readdir(dir)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            status = remove_at(fd, entry->d_name, depth + 1);
    (void)closedir(dir);
    if (status == BAL_OK && unlinkat(parent, name, AT_REMOVEDIR) != 0)
        status = errno_fail("cannot remove folder", name);
    return status;
}

bal_status bal_folder_remove(const char *path)
{
    return remove_at(AT_FDCWD, path, 0);
}

bal_status bal_folder_sync(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno_fail("cannot open folder", path);
    bal_status status = fsync(fd) == 0 || errno == EINVAL ? BAL_OK : errno_fail("cannot sync folder", path);
    (void)close(fd);
    return status;
}

bal_status bal_map_open(bal_map *m, const char *path)
{
    *m = (bal_map){0};
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno_fail("cannot read", path);
    struct stat s;
    bal_status status = BAL_OK;
    if (fstat(fd, &s) != 0)
        status = errno_fail("cannot read", path);
    else if (!S_ISREG(s.st_mode))
        status = bal_fail(BAL_ENOENT, "%s is not a regular file", path);
    else if (s.st_size > 0) {
        void *p = mmap(NULL, (size_t)s.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            status = errno_fail("cannot map", path);
        else
            *m = (bal_map){p, (size_t)s.st_size};
    }
    (void)close(fd);
    return status;
}

void bal_map_close(bal_map *m)
{
    if (m->data != NULL)
        (void)munmap((void *)(uintptr_t)m->data, m->bytes);
    *m = (bal_map){0};
}

/* A device or a pipe cannot be replaced: it is written as it is. */
static bal_status open_special(bal_writer *w)
{
    w->file = fopen(w->path, "wbe");
    if (w->file != NULL)
        return BAL_OK;
    bal_status status = errno_fail("cannot write", w->path);
    bal_writer_abort(w);
    return status == BAL_ENOENT ? BAL_EIO : status;
}

/* A file without a name in the folder of path: of a process that is killed nothing stays behind.  NULL where the file
 * system has none, or /proc, by which it gets its name, is not there. */
static FILE *open_nameless(const char *path)
{
    char *folder = bal_path_dir(path);
    int fd = folder == NULL || access("/proc/self/fd", X_OK) != 0
                 ? -1
                 : open(folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "wb");
    if (fd >= 0 && file == NULL)
        (void)close(fd);
    bal_free(folder);
    return file;
}

/* Gives a file without a name the temporary one. */
static bool name_file(bal_writer *w)
{
    char link[64];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fileno(w->file));
    if (linkat(AT_FDCWD, link, AT_FDCWD, w->temporary, AT_SYMLINK_FOLLOW) != 0 &&
        (errno != EEXIST || unlink(w->temporary) != 0 ||
         linkat(AT_FDCWD, link, AT_FDCWD, w->temporary, AT_SYMLINK_FOLLOW) != 0))
        return false;
    w->nameless = false;
    return true;
}

bal_status bal_writer_open(bal_writer *w, const char *path)
{
    char target[PATH_MAX];
    struct stat s;
    *w = (bal_writer){0};
    if (stat(path, &s) == 0 && !S_ISREG(s.st_mode) && !S_ISDIR(s.st_mode)) {
        w->path = bal_strdup(path);
        return w->path == NULL ? BAL_ENOMEM : open_special(w);
    }
    if (lstat(path, &s) == 0 && S_ISLNK(s.st_mode) && realpath(path, target) != NULL)
        path = target; /* the link stays, the file behind it is replaced */
    size_t bytes = strlen(path) + 32;
    w->path = bal_strdup(path);
    w->temporary = bal_alloc(bytes, 1);
    if (w->path == NULL || w->temporary == NULL) {
        bal_writer_abort(w);
        return BAL_ENOMEM;
    }
    (void)snprintf(w->temporary, bytes, "%s.tmp%ld", path, (long)getpid());
    w->file = open_nameless(path);
    w->nameless = w->file != NULL;
    if (w->file == NULL)
        w->file = fopen(w->temporary, "wbe");
    if (w->file == NULL) {
        bal_status status = errno_fail("cannot write", path);
        bal_free(w->temporary);
        w->temporary = NULL;
        bal_writer_abort(w);
        return status == BAL_ENOENT ? BAL_EIO : status;
    }
    return BAL_OK;
}

bal_status bal_writer_write(bal_writer *w, const void *data, size_t bytes)
{
    if (w->failed != BAL_OK)
        return w->failed;
    if (bytes > 0 && fwrite(data, 1, bytes, w->file) != bytes)
        w->failed = errno_fail("cannot write", w->path);
    w->bytes += bytes;
    return w->failed;
}

bal_status bal_writer_printf(bal_writer *w, const char *format, ...)
{
    if (w->failed != BAL_OK)
        return w->failed;
    va_list args;
    va_start(args, format);
    int n = vfprintf(w->file, format, args);
    va_end(args);
    if (n < 0)
        w->failed = errno_fail("cannot write", w->path);
    else
        w->bytes += (uint64_t)n;
    return w->failed;
}

bal_status bal_writer_commit(bal_writer *w)
{
    bal_status status = w->failed;
    if (status == BAL_OK &&
        (fflush(w->file) != 0 || (w->temporary != NULL && fsync(fileno(w->file)) != 0 && errno != EINVAL)))
        status = errno_fail("cannot write", w->path);
    if (status == BAL_OK && w->nameless && !name_file(w))
        status = errno_fail("cannot write", w->path);
    if (fclose(w->file) != 0 && status == BAL_OK)
        status = errno_fail("cannot write", w->path);
    w->file = NULL;
    if (status == BAL_OK && w->temporary != NULL && rename(w->temporary, w->path) != 0)
        status = errno_fail("cannot replace", w->path);
    if (status == BAL_OK) {
        bal_free(w->temporary);
        w->temporary = NULL;
    }
    bal_writer_abort(w);
    return status;
}

void bal_writer_abort(bal_writer *w)
{
    if (w->file != NULL)
        (void)fclose(w->file);
    if (w->temporary != NULL && !w->nameless)
        (void)unlink(w->temporary);
    bal_free(w->temporary);
    bal_free(w->path);
    *w = (bal_writer){0};
}

bal_status bal_file_replace(const char *path, const void *data, size_t bytes)
{
    bal_writer w;
    bal_status status = bal_writer_open(&w, path);
    if (status != BAL_OK)
        return status;
    (void)bal_writer_write(&w, data, bytes);
    return bal_writer_commit(&w);
}
