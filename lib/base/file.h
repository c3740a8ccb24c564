/* Files: whole reads with a bound, read-only maps, and replacement that is complete or absent.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_BASE_FILE_H
#define BAL_BASE_FILE_H

#include "lib/base/status.h"
#include "lib/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

bool bal_file_exists(const char *path); /* a regular file */
bool bal_folder_exists(const char *path);
bal_status bal_file_size(const char *path, uint64_t *bytes);
/* Appends the file to *out; BAL_ELIMIT above max_bytes.  A name ending in .gz is decompressed. */
bal_status bal_file_read(const char *path, size_t max_bytes, bal_buf *out);
/* mkdir -p. */
bal_status bal_folder_make(const char *path);
/* rm -r; BAL_OK if it is not there. */
bal_status bal_folder_remove(const char *path);
/* fsync of a folder, after renames in it. */
bal_status bal_folder_sync(const char *path);

/* Makes the folder `from`, written beside the target, take the name `to`: everything in it is fsynced, then renamed;
 * a folder that is there already is exchanged with it in one step and then removed.  After a crash `to` is the whole
 * old or the whole new one. */
bal_status bal_folder_replace(const char *from, const char *to);

/* A read-only map of a whole file. */
typedef struct bal_map {
    const unsigned char *data;
    size_t bytes;
} bal_map;
bal_status bal_map_open(bal_map *m, const char *path);
void bal_map_close(bal_map *m);

/* Writing beside the target (behind a symbolic link beside what it names; a device or pipe is written itself); bal_writer_commit() flushes, fsyncs and renames, bal_writer_abort() removes
 * the temporary file.  bal_writer_write() remembers the first failure; commit reports it. */
typedef struct bal_writer {
    FILE *file;
    char *path, *temporary;
    bool
        nameless; /* until it is committed, where the file system can: a process that is killed leaves nothing behind */
    uint64_t bytes;
    bal_status failed;
} bal_writer;
bal_status bal_writer_open(bal_writer *w, const char *path);
bal_status bal_writer_write(bal_writer *w, const void *data, size_t bytes);
bal_status bal_writer_printf(bal_writer *w, const char *format, ...) __attribute__((format(printf, 2, 3)));
bal_status bal_writer_commit(bal_writer *w);
void bal_writer_abort(bal_writer *w); /* accepts a writer that was never opened or is committed */
/* All of it in one call. */
bal_status bal_file_replace(const char *path, const void *data, size_t bytes);

/* Lower-case hexadecimal SHA-256 of bytes. */
void bal_sha256_hex(const void *data, size_t bytes, char out[65]);

#endif
