/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/out_folder.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool same_folder(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static bool is_empty(const char *dir)
{
    DIR *d = opendir(dir);
    const struct dirent *entry;
    bool empty = d != NULL;
    while (empty && (entry = readdir(d)) != NULL)
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    if (d != NULL)
        (void)closedir(d);
    return empty;
}

static bal_status check_target(const char *dir, const char *input, const char *marker, bool overwrite)
{
    if (bal_file_exists(dir))
        return bal_fail(BAL_EINVAL, "--out %s is a file; a folder is written", dir);
    if (!bal_folder_exists(dir) || is_empty(dir))
        return BAL_OK;
    if (same_folder(dir, input))
        return bal_fail(BAL_EINVAL, "--out %s is the folder that is read; give another one", dir);
    if (!overwrite)
        return bal_fail(BAL_EINVAL, "--out %s is there already; give another folder or --overwrite", dir);
    char *path = bal_path_join(dir, marker);
    bool known = path != NULL && bal_file_exists(path);
    bal_free(path);
    return known ? BAL_OK
                 : bal_fail(BAL_EINVAL, "--out %s holds files but no %s, so it is not overwritten; remove it yourself",
                            dir, marker);
}

bal_status bal_out_folder_begin(bal_out_folder *o, const char *dir, const char *input, const char *marker,
                                bool overwrite)
{
    bal_status status = BAL_OK;
    bal_buf beside = {0};
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/')
        n--;
    *o = (bal_out_folder){.dir = bal_strndup(dir, n)};
    if (o->dir == NULL)
        return BAL_ENOMEM;
    BAL_TRY(check_target(o->dir, input, marker, overwrite));
    BAL_TRY(bal_buf_printf(&beside, "%s.tmp", o->dir));
    o->beside = bal_strdup(bal_buf_cstr(&beside));
    if (o->beside == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_folder_remove(o->beside));
    BAL_TRY(bal_folder_make(o->beside));
out:
    bal_buf_dispose(&beside);
    if (status != BAL_OK)
        return bal_out_folder_end(o, status);
    return BAL_OK;
}

bal_status bal_out_folder_end(bal_out_folder *o, bal_status status)
{
    if (status == BAL_OK)
        status = bal_folder_replace(o->beside, o->dir);
    if (status != BAL_OK && o->beside != NULL) {
        char message[1024]; /* what removing says must not hide what went wrong */
        (void)snprintf(message, sizeof message, "%s", bal_error_message());
        (void)bal_folder_remove(o->beside);
        (void)bal_fail(status, "%s", message);
    }
    bal_free(o->dir);
    bal_free(o->beside);
    *o = (bal_out_folder){0};
    return status;
}
