/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/gguf.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_SHOWN = 8, MAX_NAMES = 4096 };

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Adds the name if it is that of a regular file. */
static bal_status add(char **names, size_t *n, const char *dir, const char *name)
{
    if (!bal_ends_with(name, ".gguf") || *n == MAX_NAMES)
        return BAL_OK;
    char *path = bal_path_join(dir, name);
    if (path == NULL)
        return BAL_ENOMEM;
    bool file = bal_file_exists(path);
    bal_free(path);
    if (!file)
        return BAL_OK;
    names[*n] = bal_strdup(name);
    return names[(*n)++] == NULL ? BAL_ENOMEM : BAL_OK;
}

/* In the order of the alphabet, so that the message does not depend on the disk. */
static bal_status several(const char *dir, char **names, size_t n)
{
    bal_buf list = {0};
    bal_status status = BAL_OK;
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n && i < MAX_SHOWN; i++)
        BAL_TRY(bal_buf_printf(&list, "%s%.80s", i == 0 ? "" : ", ", names[i]));
    if (n > MAX_SHOWN)
        BAL_TRY(bal_buf_text(&list, ", ..."));
    status = bal_fail(BAL_EINVAL, "'%s' holds %zu .gguf files (%s); name one of them", dir, n, bal_buf_cstr(&list));
out:
    bal_buf_dispose(&list);
    return status;
}

bal_status bal_gguf_in_folder(char **out, const char *dir)
{
    size_t n = 0;
    bal_status status = BAL_OK;
    const struct dirent *entry = NULL;
    *out = NULL;
    DIR *d = opendir(dir);
    if (d == NULL) /* who opens the model says what is wrong */
        return BAL_OK;
    char **names = bal_alloc(MAX_NAMES, sizeof *names);
    if (names == NULL)
        BAL_TRY(BAL_ENOMEM);
    while ((entry = readdir(d)) != NULL)
        BAL_TRY(add(names, &n, dir, entry->d_name));
    if (n > 1)
        BAL_TRY(several(dir, names, n));
    if (n == 1) {
        *out = bal_path_join(dir, names[0]);
        status = *out == NULL ? BAL_ENOMEM : BAL_OK;
    }
out:
    (void)closedir(d);
    for (size_t i = 0; i < n; i++)
        bal_free(names[i]);
    bal_free(names);
    return status;
}
