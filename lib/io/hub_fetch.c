/* Files into the cache: several at a time, each held by a lock, going on where it broke, and visible only when its size
 * and hash are right.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub_impl.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum { MAX_AT_ONCE = 16, CHUNK = 1 << 17, MESSAGE = 1024 };

typedef struct batch {
    hub_server *server;
    const hub_place *place;
    const hub_name *name;
    bal_hub_kind kind;
    const char *commit;
    const hub_choice *choice;
    pthread_mutex_t lock; /* all below */
    size_t next;
    int64_t done, unit; /* bytes; bytes that the bar counts as one */
    bal_progress bar;
    bal_status status; /* the first failure, with its message */
    char message[MESSAGE];
    atomic_bool failed;
} batch;

/* One file on its way. */
typedef struct part {
    batch *b;
    const hub_file *file;
    char *path; /* of the incomplete file */
    int fd;
    uint64_t have;
    bal_hash hash;
} part;

static void count(batch *b, int64_t bytes)
{
    (void)pthread_mutex_lock(&b->lock);
    b->done += bytes;
    bal_progress_update(&b->bar, (uint64_t)(b->done > 0 ? b->done / b->unit : 0), NULL);
    (void)pthread_mutex_unlock(&b->lock);
}

static void start_hash(part *p)
{
    if (strlen(p->file->hash) == 64)
        bal_sha256_start(&p->hash);
    else
        bal_git_blob_start(&p->hash, p->file->size);
}

static bal_status write_failed(const part *p)
{
    return bal_fail(BAL_EIO,
                    "cannot write %s: %s (%" PRIu64 " of %" PRIu64 " bytes are there; the same command goes on)",
                    p->path, strerror(errno), p->have, p->file->size);
}

static bal_status take(void *context, const void *data, size_t n)
{
    part *p = context;
    const char *at = data;
    if (atomic_load(&p->b->failed))
        return bal_fail(BAL_EBUSY, "another file failed");
    for (size_t left = n; left > 0;) {
        ssize_t wrote = write(p->fd, at, left);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return write_failed(p);
        bal_hash_add(&p->hash, at, (size_t)wrote);
        p->have += (uint64_t)wrote;
        at += wrote;
        left -= (size_t)wrote;
    }
    count(p->b, (int64_t)n);
    return BAL_OK;
}

static bal_status from_the_start(void *context)
{
    part *p = context;
    count(p->b, -(int64_t)p->have);
    p->have = 0;
    start_hash(p);
    if (ftruncate(p->fd, 0) != 0 || lseek(p->fd, 0, SEEK_SET) != 0)
        return write_failed(p);
    return BAL_OK;
}

/* What an earlier try left counts, once its hash is known. */
static bal_status read_what_is_there(part *p)
{
    static _Thread_local unsigned char chunk[CHUNK];
    struct stat s;
    start_hash(p);
    if (fstat(p->fd, &s) != 0 || (uint64_t)s.st_size > p->file->size)
        return from_the_start(p);
    for (;;) {
        ssize_t n = read(p->fd, chunk, CHUNK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return bal_fail(BAL_EIO, "cannot read %s: %s", p->path, strerror(errno));
        if (n == 0)
            break;
        bal_hash_add(&p->hash, chunk, (size_t)n);
        p->have += (uint64_t)n;
        if (bal_interrupted())
            return bal_fail(BAL_EINTERRUPT, "stopped");
    }
    if (p->have > p->file->size) /* it grew meanwhile */
        p->have = p->file->size + 1;
    count(p->b, (int64_t)p->have);
    return p->have > p->file->size ? from_the_start(p) : BAL_OK;
}

static bal_status receive(part *p)
{
    static const char *const names[] = {"X-Error-Code", "X-Repo-Commit", "X-Linked-Size", NULL};
    char values[3][BAL_HTTP_VALUE_BYTES] = {{0}};
    const batch *b = p->b;
    hub_server *s = b->server;
    bal_buf url = {0};
    bal_status status;
    BAL_TRY(hub_server_url(s, b->name, b->kind, false, "resolve", b->commit, p->file->path, &url));
    bal_http_download d = {.url = bal_buf_cstr(&url),
                           .have = p->have,
                           .size = p->file->size,
                           .take = take,
                           .restart = from_the_start,
                           .context = p,
                           .names = names,
                           .values = values};
    status = bal_http_download_run(s->http, &d);
    if (status == BAL_OK && values[1][0] != '\0' && strcmp(values[1], b->commit) != 0)
        status = bal_fail(BAL_EFORMAT, "%s sent '%s' of the commit %.64s, not of %s", s->host, p->file->path, values[1],
                          b->commit);
    else if (status == BAL_EFORMAT)
        (void)bal_fail_note(status, "'%s' of '%s'", p->file->path, b->name->id);
    else if (status != BAL_OK && (d.code < 200 || d.code >= 300) && d.code != 0)
        status = hub_server_refusal(s, b->name, b->kind, p->file->path, d.code, values[0], status);
out:
    bal_buf_dispose(&url);
    return status;
}

/* The content is all there: is it what was announced? */
static bal_status check(part *p, bool *right)
{
    char hex[BAL_HASH_HEX];
    bal_hash_finish(&p->hash, hex);
    *right = p->have == p->file->size && strcmp(hex, p->file->hash) == 0;
    return *right ? BAL_OK
                  : bal_fail(BAL_EFORMAT,
                             "'%s' of '%s' has the %s %s, not %s as %s says: it was changed on its way; try again",
                             p->file->path, p->b->name->id, strlen(p->file->hash) == 64 ? "SHA-256" : "git hash", hex,
                             p->file->hash, p->b->server->host);
}

static bal_status receive_checked(part *p)
{
    bool right = false;
    bal_status status;
    BAL_TRY(read_what_is_there(p));
    bool resumed = p->have > 0;
    if (p->have < p->file->size)
        BAL_TRY(receive(p));
    status = check(p, &right);
    if (!right && resumed) { /* what was there may have been the wrong part: once more, all of it */
        BAL_TRY(from_the_start(p));
        BAL_TRY(receive(p));
        status = check(p, &right);
    }
    if (!right)
        (void)unlink(p->path);
out:
    return status;
}

static bal_status into_place(part *p, const char *blob)
{
    if (fsync(p->fd) != 0 && errno != EINVAL)
        return write_failed(p);
    if (rename(p->path, blob) != 0)
        return bal_fail(BAL_EIO, "cannot make %s: %s", blob, strerror(errno));
    char *folder = bal_path_dir(blob);
    bal_status status = folder == NULL ? BAL_ENOMEM : bal_folder_sync(folder);
    bal_free(folder);
    return status;
}

static bool blob_is_there(const char *blob, const hub_file *f)
{
    uint64_t bytes = 0;
    return bal_file_exists(blob) && bal_file_size(blob, &bytes) == BAL_OK && bytes == f->size;
}

static bal_status fetch_blob(batch *b, const hub_file *f, const char *blob, bool locked)
{
    part p = {.b = b, .file = f, .fd = -1};
    bal_buf path = {0};
    bal_status status = locked ? bal_buf_printf(&path, "%s.incomplete", blob)
                               : bal_buf_printf(&path, "%s.%ld.incomplete", blob, (long)getpid());
    if (status != BAL_OK)
        return status;
    p.path = path.data;
    p.fd = open(p.path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    status = p.fd < 0 ? bal_fail(BAL_EIO, "cannot write %s: %s", p.path, strerror(errno)) : receive_checked(&p);
    if (status == BAL_OK)
        status = into_place(&p, blob);
    if (p.fd >= 0)
        (void)close(p.fd);
    if (status != BAL_OK && !locked)
        (void)unlink(p.path);
    bal_buf_dispose(&path);
    return status;
}

static bal_status fetch_one(batch *b, const hub_file *f)
{
    char *blob = hub_place_path(b->place, "blobs", f->hash, NULL);
    bal_status status = BAL_OK;
    int lock = -1;
    if (blob == NULL)
        return BAL_ENOMEM;
    if (f->hash[0] == '\0')
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s does not say the size and the hash of '%s', so it cannot be checked",
                         b->server->host, f->path));
    if (!blob_is_there(blob, f)) {
        BAL_TRY(hub_place_lock(b->place, f, b->server->o.log, &lock));
        if (!blob_is_there(blob, f)) /* another process may have brought it */
            status = fetch_blob(b, f, blob, lock >= 0);
        else
            count(b, (int64_t)f->size);
    }
    if (status == BAL_OK)
        status = hub_place_link(b->place, b->commit, f);
out:
    hub_place_unlock(lock);
    bal_free(blob);
    return status;
}

static void *work(void *context)
{
    batch *b = context;
    for (;;) {
        (void)pthread_mutex_lock(&b->lock);
        size_t i = atomic_load(&b->failed) || b->next == b->choice->n ? SIZE_MAX : b->next++;
        (void)pthread_mutex_unlock(&b->lock);
        if (i == SIZE_MAX)
            return NULL;
        if (hub_place_has(b->place, b->commit, b->choice->files[i]))
            continue;
        bal_status status = fetch_one(b, b->choice->files[i]);
        if (status == BAL_OK)
            continue;
        (void)pthread_mutex_lock(&b->lock);
        if (b->status == BAL_OK) {
            b->status = status;
            (void)snprintf(b->message, sizeof b->message, "%s", bal_error_message());
        }
        atomic_store(&b->failed, true);
        (void)pthread_mutex_unlock(&b->lock);
    }
}

/* Bytes to come, and whether the disk has room for what is not there in part. */
static bal_status measure(const batch *b, uint64_t *bytes, size_t *files)
{
    uint64_t need = 0;
    struct statvfs disk;
    *bytes = 0;
    *files = 0;
    for (size_t i = 0; i < b->choice->n; i++) {
        const hub_file *f = b->choice->files[i];
        struct stat s;
        bal_buf path = {0};
        char *blob = hub_place_path(b->place, "blobs", f->hash, NULL);
        if (blob == NULL)
            return BAL_ENOMEM;
        bal_status status = bal_buf_printf(&path, "%s.incomplete", blob);
        bool there = blob_is_there(blob, f);
        bal_free(blob);
        if (status == BAL_OK && !there && !hub_place_has(b->place, b->commit, f)) {
            uint64_t begun = stat(path.data, &s) == 0 && (uint64_t)s.st_size <= f->size ? (uint64_t)s.st_size : 0;
            *bytes += f->size;
            *files += 1;
            need += f->size - begun;
        }
        bal_buf_dispose(&path);
        if (status != BAL_OK)
            return status;
    }
    if (statvfs(b->place->folder, &disk) == 0 && disk.f_frsize > 0 && need / disk.f_frsize > disk.f_bavail)
        return bal_fail(
            BAL_EIO, "'%s' needs %.1f MB more, and %s has room for %.1f MB; HF_HUB_CACHE names another place",
            b->name->id, (double)need / 1e6, b->place->folder, (double)disk.f_bavail * (double)disk.f_frsize / 1e6);
    return BAL_OK;
}

bal_status hub_server_fetch(hub_server *s, const hub_place *p, const hub_name *name, bal_hub_kind kind,
                            const char *commit, const hub_choice *c)
{
    batch b = {.server = s, .place = p, .name = name, .kind = kind, .commit = commit, .choice = c, .unit = 1000000};
    pthread_t threads[MAX_AT_ONCE];
    size_t started = 0, files = 0, at_once = s->o.at_once < MAX_AT_ONCE ? s->o.at_once : MAX_AT_ONCE;
    uint64_t bytes = 0;
    bal_status status;
    char *blobs = hub_place_path(p, "blobs", "", NULL);
    if (blobs == NULL)
        return BAL_ENOMEM;
    BAL_TRY(bal_folder_make(blobs));
    BAL_TRY(measure(&b, &bytes, &files));
    if (bytes < 10000000)
        b.unit = 1000;
    if (files > 0)
        bal_log_line(s->o.log, BAL_LOG_INFO, "fetching  %zu file%s of %s, %.1f MB, from %s", files,
                     files == 1 ? "" : "s", name->id, (double)bytes / 1e6, s->host);
    bal_progress_start(&b.bar, s->o.log, name->id, b.unit == 1000 ? "kB" : "MB", bytes / (uint64_t)b.unit,
                       s->o.progress && files > 0);
    (void)pthread_mutex_init(&b.lock, NULL);
    while (started + 1 < at_once && started + 1 < c->n && pthread_create(&threads[started], NULL, work, &b) == 0)
        started++;
    (void)work(&b); /* this thread too */
    for (size_t i = 0; i < started; i++)
        (void)pthread_join(threads[i], NULL);
    (void)pthread_mutex_destroy(&b.lock);
    bal_progress_done(&b.bar);
    status = b.status == BAL_OK ? BAL_OK : bal_fail(b.status, "%s", b.message);
out:
    bal_free(blobs);
    return status;
}
