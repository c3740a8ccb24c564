/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char k_letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
enum { MAX_NAME = 200 };

static const char *set(const char *variable)
{
    const char *value = getenv(variable);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static bal_status cache_folder(bal_buf *out)
{
    if (set("HF_HUB_CACHE") != NULL)
        return bal_buf_text(out, set("HF_HUB_CACHE"));
    if (set("HF_HOME") != NULL)
        return bal_buf_printf(out, "%s/hub", set("HF_HOME"));
    if (set("XDG_CACHE_HOME") != NULL)
        return bal_buf_printf(out, "%s/huggingface/hub", set("XDG_CACHE_HOME"));
    return bal_buf_printf(out, "%s/.cache/huggingface/hub", set("HOME") != NULL ? set("HOME") : "");
}

/* The commit that a branch or tag stands for; without a file of the name the revision is the commit itself. */
static bal_status read_reference(const char *repository, const char *revision, bal_buf *commit)
{
    bal_buf path = {0};
    bal_status status;
    BAL_TRY(bal_buf_printf(&path, "%s/refs/%s", repository, revision));
    if (!bal_file_exists(bal_buf_cstr(&path))) {
        status = bal_buf_text(commit, revision);
        goto out;
    }
    BAL_TRY(bal_file_read(bal_buf_cstr(&path), 200, commit));
    while (commit->len > 0 && (unsigned char)commit->data[commit->len - 1] <= ' ')
        commit->data[--commit->len] = '\0';
    if (commit->len == 0 || strspn(commit->data, k_letters) != commit->len || commit->data[0] == '.')
        status = bal_fail(BAL_EFORMAT, "'%s' holds no commit", bal_buf_cstr(&path));
out:
    bal_buf_dispose(&path);
    return status;
}

bal_status bal_hub_find(const char *name, char **folder)
{
    size_t org = strspn(name, k_letters), own = name[org] == '/' ? strspn(name + org + 1, k_letters) : 0;
    const char *behind = name + org + (own > 0 ? own + 1 : 0);
    const char *revision = behind[0] == '@' ? behind + 1 : "main";
    bal_buf cache = {0}, repository = {0}, commit = {0}, snapshot = {0};
    bal_status status;
    *folder = NULL;
    if (org == 0 || own == 0 || name[0] == '.' || name[org + 1] == '.' || strlen(name) > MAX_NAME ||
        (behind[0] != '\0' && (behind[0] != '@' || revision[0] == '\0' || revision[0] == '.')) ||
        strspn(revision, k_letters) != strlen(revision) || access(name, F_OK) == 0)
        return BAL_OK;
    BAL_TRY(cache_folder(&cache));
    BAL_TRY(bal_buf_printf(&repository, "%s/models--%.*s--%.*s", bal_buf_cstr(&cache), (int)org, name, (int)own,
                           name + org + 1));
    if (bal_folder_exists(bal_buf_cstr(&repository))) {
        BAL_TRY(read_reference(bal_buf_cstr(&repository), revision, &commit));
        BAL_TRY(bal_buf_printf(&snapshot, "%s/snapshots/%s", bal_buf_cstr(&repository), bal_buf_cstr(&commit)));
    }
    if (snapshot.len == 0 || !bal_folder_exists(bal_buf_cstr(&snapshot)))
        status = bal_fail(BAL_ENOENT,
                          "'%s' is neither a path here nor in the Hugging Face cache '%s'; download it first: "
                          "huggingface-cli download %.*s",
                          name, bal_buf_cstr(&cache), (int)(org + own + 1), name);
    else if ((*folder = bal_strdup(bal_buf_cstr(&snapshot))) == NULL)
        status = BAL_ENOMEM;
out:
    bal_buf_dispose(&cache);
    bal_buf_dispose(&repository);
    bal_buf_dispose(&commit);
    bal_buf_dispose(&snapshot);
    return status;
}
