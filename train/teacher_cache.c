/* File: a header of HEADER_BYTES, one 8-byte entry a record (0: absent, else 2^32 + CRC-32 of its rows), the rows of
 * all records end to end.  Written with pwrite: a full disk is an error and not a signal, and what a kill left half
 * written fails its sum.  SPDX-License-Identifier: Apache-2.0 */
#include "train/teacher_cache.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { HEADER_BYTES = 128, SAMPLE_BYTES = 4096 };
#define PRESENT ((uint64_t)1 << 32)

struct teacher_cache {
    int fd;
    char *path;
    size_t hidden, n;
    bool bf16;
    size_t *first_row; /* [n + 1] */
    uint64_t *entry;   /* [n] as in the file */
    unsigned char *buffer;
};

static size_t row_bytes(const teacher_cache *c)
{
    return c->hidden * (c->bf16 ? sizeof(uint16_t) : sizeof(real_t));
}

/* Regulariser rows of a record, as bal_batch_finish() counts them. */
static size_t count_rows(const bal_dataset *d, size_t record, bool unshifted)
{
    size_t rows = 0;
    for (size_t i = d->start[record] + (unshifted ? 0 : 1); i < d->start[record + 1]; i++)
        rows += d->labels[i] != BAL_LABEL_NONE;
    return rows;
}

static bal_status add_view(bal_buf *b, const bal_view *v)
{
    size_t bytes = v->rows * v->row_bytes, sample = bytes < SAMPLE_BYTES ? bytes : SAMPLE_BYTES;
    bal_status status = bal_buf_printf(b, "%s %zu %zu ", bal_dtype_name(v->dtype), v->rows, v->cols);
    if (status == BAL_OK)
        status = bal_buf_append(b, (const char *)v->data, sample);
    if (status == BAL_OK && bytes > 2 * (size_t)SAMPLE_BYTES) /* and from the middle, where no padding is */
        status = bal_buf_append(b, (const char *)v->data + bytes / 2, sample);
    return status;
}

/* What the rows depend on: the model (a sample of each matrix), the tokens, their labels, the form. */
static bal_status fingerprint(const teacher_cache *c, const bal_model *m, const bal_dataset *d, bool unshifted,
                              char out[65])
{
    bal_status status;
    bal_buf b = {0};
    char hash[65];
    BAL_TRY(bal_buf_printf(&b, "%d %d %zu %zu ", unshifted, c->bf16, c->n, sizeof(real_t)));
    BAL_TRY(add_view(&b, bal_linear_own_w(&m->embed)));
    for (size_t i = 0; i < m->config.n_layers; i++)
        for (size_t s = 0; s < BAL_SLOT_COUNT; s++)
            if (bal_linear_there(&m->blocks[i].linear[s]))
                BAL_TRY(add_view(&b, bal_linear_own_w(&m->blocks[i].linear[s])));
    bal_sha256_hex(d->ids, d->n_tokens * sizeof *d->ids, hash);
    BAL_TRY(bal_buf_append(&b, hash, 64));
    bal_sha256_hex(d->labels, d->n_tokens * sizeof *d->labels, hash);
    BAL_TRY(bal_buf_append(&b, hash, 64));
    BAL_TRY(bal_buf_append(&b, (const char *)d->start, (d->n + 1) * sizeof *d->start));
    bal_sha256_hex(b.data, b.len, out);
out:
    bal_buf_dispose(&b);
    return status;
}

static bal_status write_at(const teacher_cache *c, const void *data, size_t bytes, size_t offset)
{
    const unsigned char *p = data;
    while (bytes > 0) {
        ssize_t n = pwrite(c->fd, p, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return bal_fail(BAL_EIO,
                            "the teacher cache %s cannot be written: %s; free space or leave teacher_cache out",
                            c->path, strerror(n < 0 ? errno : ENOSPC));
        p += n;
        bytes -= (size_t)n;
        offset += (size_t)n;
    }
    return BAL_OK;
}

/* false: fewer bytes are there. */
static bool read_at(const teacher_cache *c, void *data, size_t bytes, size_t offset)
{
    unsigned char *p = data;
    while (bytes > 0) {
        ssize_t n = pread(c->fd, p, bytes, (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        p += n;
        bytes -= (size_t)n;
        offset += (size_t)n;
    }
    return true;
}

static bal_status check_header(teacher_cache *c, const char *print)
{
    char want[HEADER_BYTES] = {0}, got[HEADER_BYTES] = {0};
    struct stat s;
    (void)snprintf(want, sizeof want, "balora teacher rows 1\n%s\n", print);
    if (fstat(c->fd, &s) != 0 || !S_ISREG(s.st_mode))
        return bal_fail(BAL_EINVAL, "the teacher cache %s is not a regular file", c->path);
    if (s.st_size == 0) {
        bal_status status = write_at(c, want, sizeof want, 0);
        return status != BAL_OK ? status : write_at(c, c->entry, c->n * sizeof *c->entry, HEADER_BYTES);
    }
    if (!read_at(c, got, sizeof got, 0) || memcmp(got, want, sizeof got) != 0)
        return bal_fail(BAL_EFORMAT,
                        "%s holds the teacher's rows of another model, data set or form (or something else); remove it "
                        "or name another file",
                        c->path);
    if (!read_at(c, c->entry, c->n * sizeof *c->entry, HEADER_BYTES))
        memset(c->entry, 0, c->n * sizeof *c->entry);
    return BAL_OK;
}

bal_status teacher_cache_open(teacher_cache **out, const char *path, const bal_model *m, const bal_dataset *data,
                              bool unshifted, bool bf16)
{
    bal_status status = BAL_ENOMEM;
    char print[65];
    size_t most = 0;
    teacher_cache *c = bal_alloc(1, sizeof *c);
    *out = NULL;
    if (c == NULL)
        return BAL_ENOMEM;
    *c = (teacher_cache){.fd = -1, .path = bal_strdup(path), .hidden = m->config.hidden, .n = data->n, .bf16 = bf16};
    c->first_row = bal_alloc(c->n + 1, sizeof *c->first_row);
    c->entry = bal_alloc(c->n, sizeof *c->entry);
    if (c->path == NULL || c->first_row == NULL || c->entry == NULL)
        goto out;
    for (size_t i = 0; i < c->n; i++) {
        size_t rows = count_rows(data, i, unshifted);
        c->first_row[i + 1] = c->first_row[i] + rows;
        most = rows > most ? rows : most;
    }
    c->buffer = bal_alloc(most, row_bytes(c));
    if (c->buffer == NULL)
        goto out;
    c->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (c->fd < 0)
        BAL_TRY(bal_fail(BAL_EIO, "the teacher cache %s cannot be opened: %s", path, strerror(errno)));
    if (flock(c->fd, LOCK_EX | LOCK_NB) != 0)
        BAL_TRY(bal_fail(BAL_EBUSY, "the teacher cache %s is in use by another run; name another file", path));
    BAL_TRY(fingerprint(c, m, data, unshifted, print));
    BAL_TRY(check_header(c, print));
    *out = c;
    c = NULL;
out:
    teacher_cache_close(c);
    return status;
}

void teacher_cache_close(teacher_cache *c)
{
    if (c == NULL)
        return;
    if (c->fd >= 0)
        (void)close(c->fd);
    bal_free(c->path);
    bal_free(c->first_row);
    bal_free(c->entry);
    bal_free(c->buffer);
    bal_free(c);
}

static size_t offset_of(const teacher_cache *c, size_t record)
{
    return HEADER_BYTES + c->n * sizeof *c->entry + c->first_row[record] * row_bytes(c);
}

static uint64_t sum_of(const teacher_cache *c, size_t bytes)
{
    return PRESENT | crc32_z(crc32_z(0, NULL, 0), c->buffer, bytes);
}

/* One row from the buffer to final, or back (rounding both). */
static void row_out(const teacher_cache *c, size_t i, real_t *row)
{
    uint16_t half;
    if (!c->bf16) {
        memcpy(row, c->buffer + i * row_bytes(c), row_bytes(c));
        return;
    }
    for (size_t j = 0; j < c->hidden; j++) {
        memcpy(&half, c->buffer + (i * c->hidden + j) * sizeof half, sizeof half);
        row[j] = (real_t)bal_bf16_to_f32(half);
    }
}

static void row_in(const teacher_cache *c, size_t i, real_t *row)
{
    if (!c->bf16) {
        memcpy(c->buffer + i * row_bytes(c), row, row_bytes(c));
        return;
    }
    for (size_t j = 0; j < c->hidden; j++) {
        uint16_t half = bal_f32_to_bf16((float)row[j]);
        memcpy(c->buffer + (i * c->hidden + j) * sizeof half, &half, sizeof half);
        row[j] = (real_t)bal_bf16_to_f32(half);
    }
}

bal_status teacher_cache_load(teacher_cache *c, const uint32_t *records, const bal_batch *b, real_t *final, bool *found)
{
    size_t m = 0;
    *found = false;
    for (size_t s = 0; s < b->n_seqs; s++)
        if (c->entry[records[s]] == 0)
            return BAL_OK;
    for (size_t s = 0; s < b->n_seqs; s++) {
        size_t rows = c->first_row[records[s] + 1] - c->first_row[records[s]], bytes = rows * row_bytes(c);
        if (m + rows > b->n_reg_rows || !read_at(c, c->buffer, bytes, offset_of(c, records[s])) ||
            sum_of(c, bytes) != c->entry[records[s]]) {
            c->entry[records[s]] = 0; /* damaged: it is made again */
            return BAL_OK;
        }
        for (size_t i = 0; i < rows; i++)
            row_out(c, i, final + (size_t)b->reg_rows[m++] * c->hidden);
    }
    *found = m == b->n_reg_rows;
    return BAL_OK;
}

bal_status teacher_cache_save(teacher_cache *c, const uint32_t *records, const bal_batch *b, real_t *final)
{
    bal_status status = BAL_OK;
    size_t m = 0;
    for (size_t s = 0; s < b->n_seqs; s++) {
        size_t record = records[s], rows = c->first_row[record + 1] - c->first_row[record], bytes = rows * row_bytes(c);
        if (m + rows > b->n_reg_rows)
            return bal_fail(BAL_EINVAL, "record %zu has %zu rows for the teacher cache, more than its batch", record,
                            rows);
        for (size_t i = 0; i < rows; i++)
            row_in(c, i, final + (size_t)b->reg_rows[m++] * c->hidden);
        BAL_TRY(write_at(c, c->buffer, bytes, offset_of(c, record)));
        c->entry[record] = sum_of(c, bytes);
        BAL_TRY(write_at(c, &c->entry[record], sizeof *c->entry, HEADER_BYTES + record * sizeof *c->entry));
    }
out:
    return status;
}
