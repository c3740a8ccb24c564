/* The cache's folders, links and locks.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub_impl.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *set(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

bal_status bal_hub_cache(char **folder)
{
    bal_buf b = {0};
    bal_status status;
    if (set("HF_HUB_CACHE") != NULL)
        status = bal_buf_text(&b, set("HF_HUB_CACHE"));
    else if (set("HF_HOME") != NULL)
        status = bal_buf_printf(&b, "%s/hub", set("HF_HOME"));
    else if (set("XDG_CACHE_HOME") != NULL)
        status = bal_buf_printf(&b, "%s/huggingface/hub", set("XDG_CACHE_HOME"));
    else
        status = bal_buf_printf(&b, "%s/.cache/huggingface/hub", set("HOME") != NULL ? set("HOME") : "");
    *folder = status == BAL_OK ? bal_strdup(bal_buf_cstr(&b)) : NULL;
    bal_buf_dispose(&b);
    return status == BAL_OK && *folder == NULL ? BAL_ENOMEM : status;
}

bal_status hub_place_open(hub_place *p, const hub_name *name, bal_hub_kind kind)
{
    bal_buf b = {0}, locks = {0};
    bal_status status;
    const char *own = strchr(name->id, '/') + 1, *sort = kind == BAL_HUB_DATA ? "datasets" : "models";
    int org = (int)(own - 1 - name->id);
    *p = (hub_place){0};
    BAL_TRY(bal_hub_cache(&p->cache));
    BAL_TRY(bal_buf_printf(&b, "%s/%s--%.*s--%s", p->cache, sort, org, name->id, own));
    BAL_TRY(bal_buf_printf(&locks, "%s/.locks/%s--%.*s--%s", p->cache, sort, org, name->id, own));
    p->folder = bal_strdup(bal_buf_cstr(&b));
    p->locks = bal_strdup(bal_buf_cstr(&locks));
    if (p->folder == NULL || p->locks == NULL)
        status = BAL_ENOMEM;
out:
    bal_buf_dispose(&b);
    bal_buf_dispose(&locks);
    if (status != BAL_OK)
        hub_place_dispose(p);
    return status;
}

void hub_place_dispose(hub_place *p)
{
    bal_free(p->folder);
    bal_free(p->locks);
    bal_free(p->cache);
    *p = (hub_place){0};
}

bal_status hub_place_commit(const hub_place *p, const char *revision, char commit[HUB_MAX_COMMIT + 1])
{
    bal_buf text = {0};
    bal_status status = BAL_OK;
    char *path = hub_place_path(p, "refs", revision, NULL);
    if (path == NULL)
        return BAL_ENOMEM;
    commit[0] = '\0';
    if (!bal_file_exists(path)) { /* the revision may be the commit itself */
        if (strlen(revision) <= HUB_MAX_COMMIT)
            (void)snprintf(commit, HUB_MAX_COMMIT + 1, "%s", revision);
        goto out;
    }
    BAL_TRY(bal_file_read(path, 200, &text));
    while (text.len > 0 && (unsigned char)text.data[text.len - 1] <= ' ')
        text.data[--text.len] = '\0';
    if (text.len == 0 || text.len > HUB_MAX_COMMIT || strspn(text.data, "0123456789abcdefABCDEF") != text.len)
        status = bal_fail(BAL_EFORMAT, "'%s' holds no commit", path);
    else
        (void)snprintf(commit, HUB_MAX_COMMIT + 1, "%s", text.data);
out:
    bal_free(path);
    bal_buf_dispose(&text);
    return status;
}

char *hub_place_path(const hub_place *p, const char *kind, const char *commit, const char *file)
{
    bal_buf b = {0};
    bal_status status =
        bal_buf_printf(&b, "%s/%s/%s%s%s", p->folder, kind, commit, file != NULL ? "/" : "", file != NULL ? file : "");
    char *path = status == BAL_OK ? bal_strdup(bal_buf_cstr(&b)) : NULL;
    bal_buf_dispose(&b);
    return path;
}

bool hub_place_has(const hub_place *p, const char *commit, const hub_file *f)
{
    struct stat s;
    char *path = hub_place_path(p, "snapshots", commit, f->path);
    bool there = path != NULL && stat(path, &s) == 0 && S_ISREG(s.st_mode) &&
                 (f->hash[0] == '\0' || (uint64_t)s.st_size == f->size);
    bal_free(path);
    return there;
}

/* A link beside its place, then renamed: whoever looks sees the old or the new one. */
static bal_status link_at(const char *target, const char *blob, const char *path)
{
    bal_buf temporary = {0};
    bal_status status;
    BAL_TRY(bal_buf_printf(&temporary, "%s.link%ld", path, (long)getpid()));
    (void)unlink(temporary.data);
    /* a file system without symbolic links may have hard ones */
    if ((symlink(target, temporary.data) != 0 && link(blob, temporary.data) != 0) ||
        rename(temporary.data, path) != 0) {
        status = bal_fail(BAL_EIO, "cannot make the link %s: %s", path, strerror(errno));
        (void)unlink(temporary.data);
    }
    (void)unlink(temporary.data); /* rename() of two names of one file does nothing */
out:
    bal_buf_dispose(&temporary);
    return status;
}

bal_status hub_place_link(const hub_place *p, const char *commit, const hub_file *f)
{
    bal_buf target = {0};
    char *path = hub_place_path(p, "snapshots", commit, f->path), *blob = hub_place_path(p, "blobs", f->hash, NULL);
    char *folder = path != NULL ? bal_path_dir(path) : NULL;
    bal_status status = path == NULL || blob == NULL || folder == NULL ? BAL_ENOMEM : BAL_OK;
    if (status != BAL_OK || hub_place_has(p, commit, f))
        goto out;
    BAL_TRY(bal_folder_make(folder));
    BAL_TRY(bal_buf_text(&target, "../../"));
    for (const char *c = f->path; *c != '\0'; c++)
        if (*c == '/')
            BAL_TRY(bal_buf_text(&target, "../"));
    BAL_TRY(bal_buf_printf(&target, "blobs/%s", f->hash));
    status = link_at(target.data, blob, path);
out:
    bal_free(path);
    bal_free(blob);
    bal_free(folder);
    bal_buf_dispose(&target);
    return status;
}

/* A small file with its folders; content may be "". */
static bal_status put(const hub_place *p, const char *kind, const char *a, const char *b, const char *content)
{
    char *path = hub_place_path(p, kind, a, b), *folder = path != NULL ? bal_path_dir(path) : NULL;
    bal_status status = folder == NULL ? BAL_ENOMEM : bal_folder_make(folder);
    if (status == BAL_OK)
        status = bal_file_replace(path, content, strlen(content));
    bal_free(path);
    bal_free(folder);
    return status;
}

bal_status hub_place_refer(const hub_place *p, const char *revision, const char *commit)
{
    char now[HUB_MAX_COMMIT + 1];
    if (strcmp(revision, commit) == 0 || (hub_place_commit(p, revision, now) == BAL_OK && strcmp(now, commit) == 0))
        return BAL_OK;
    return put(p, "refs", revision, NULL, commit);
}

bal_status hub_place_note_absent(const hub_place *p, const char *commit, const char *file)
{
    char *path = hub_place_path(p, ".no_exist", commit, file);
    bal_status status = path == NULL ? BAL_ENOMEM : BAL_OK;
    if (status == BAL_OK && !bal_file_exists(path))
        status = put(p, ".no_exist", commit, file, "");
    bal_free(path);
    return status;
}

/* Whoever held the lock may have removed its file: a lock on that is none. */
static bool is_at(int fd, const char *path)
{
    struct stat own, there;
    return fstat(fd, &own) == 0 && stat(path, &there) == 0 && own.st_ino == there.st_ino && own.st_dev == there.st_dev;
}

bal_status hub_place_lock(const hub_place *p, const hub_file *f, const bal_log *log, int *fd)
{
    static const struct timespec pause = {0, 100000000};
    bal_buf path = {0};
    bal_status status;
    bool said = false;
    *fd = -1;
    BAL_TRY(bal_folder_make(p->locks));
    BAL_TRY(bal_buf_printf(&path, "%s/%s.lock", p->locks, f->hash));
    for (;;) {
        int lock = open(path.data, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (lock < 0) {
            status = bal_fail(BAL_EIO, "cannot write %s: %s", path.data, strerror(errno));
            break;
        }
        errno = 0;
        if (flock(lock, LOCK_EX | LOCK_NB) == 0 && is_at(lock, path.data)) {
            *fd = lock;
            break;
        }
        int e = errno;
        (void)close(lock);
        if (e == ENOLCK || e == ENOSYS ||
            e == EOPNOTSUPP) /* no locks here: the file's name is the process's own then */
            break;
        if (!said)
            bal_log_line(log, BAL_LOG_INFO, "waiting for another process that fetches %s", f->path);
        said = true;
        if (bal_interrupted()) {
            status = bal_fail(BAL_EINTERRUPT, "stopped");
            break;
        }
        (void)nanosleep(&pause, NULL);
    }
out:
    bal_buf_dispose(&path);
    return status;
}

void hub_place_unlock(int fd)
{
    if (fd >= 0)
        (void)close(fd);
}
