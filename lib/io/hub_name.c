/* Names of repositories, and of the files in them.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub_impl.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"

/* A file of a name ending so is a file, never a repository. */
static const char *const k_file_endings[] = {".json", ".jsonl", ".ndjson", ".csv",         ".tsv",
                                             ".txt",  ".gz",    ".gguf",   ".safetensors", ".parquet"};

static bool copy(char *out, const char *text, size_t n)
{
    if (n >= HUB_MAX_NAME)
        return false;
    memcpy(out, text, n);
    out[n] = '\0';
    return true;
}

/* One or more words of the letters above, separated by '/'; none begins with a point. */
static bool is_way(const char *text)
{
    for (;;) {
        size_t n = strspn(text, LETTERS);
        if (n == 0 || text[0] == '.')
            return false;
        if (text[n] == '\0')
            return true;
        if (text[n] != '/')
            return false;
        text += n + 1;
    }
}

bool hub_parse_name(const char *text, hub_name *out)
{
    size_t org = strspn(text, LETTERS), own = text[org] == '/' ? strspn(text + org + 1, LETTERS) : 0;
    *out = (hub_name){.revision = "main"};
    if (org == 0 || own == 0 || text[0] == '.' || text[org + 1] == '.')
        return false;
    size_t id = org + 1 + own;
    const char *rest = text + id, *at = strchr(rest, '@');
    if (!copy(out->id, text, id))
        return false;
    if (at != NULL && (!copy(out->revision, at + 1, strlen(at + 1)) || !is_way(out->revision)))
        return false;
    size_t part = at != NULL ? (size_t)(at - rest) : strlen(rest);
    if (part == 0) {
        for (size_t i = 0; at == NULL && i < sizeof k_file_endings / sizeof *k_file_endings; i++)
            if (bal_ends_with(out->id, k_file_endings[i]))
                return false;
        return true;
    }
    return rest[0] == ':' && copy(out->part, rest + 1, part - 1) && is_way(out->part);
}

/* A folder of the first part's name here: then the name is a path with a slip of the pen, unless it says otherwise. */
static bool begins_with_folder(const char *name)
{
    char first[HUB_MAX_NAME];
    struct stat s;
    size_t n = strcspn(name, "/");
    return strpbrk(name, ":@") == NULL && copy(first, name, n < HUB_MAX_NAME ? n : 0) && stat(first, &s) == 0;
}

bool bal_hub_is_name(const char *name)
{
    hub_name parsed;
    return hub_parse_name(name, &parsed) && access(name, F_OK) != 0 && !begins_with_folder(name);
}

bool hub_path_is_safe(const char *path)
{
    size_t length = strlen(path), at = 0;
    if (length == 0 || length >= HUB_MAX_PATH || path[length - 1] == '/')
        return false;
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)path[i] < ' ' || path[i] == 127 || path[i] == '\\')
            return false;
    while (at < length) {
        size_t n = strcspn(path + at, "/");
        if (n == 0 || (n == 1 && path[at] == '.') || (n == 2 && strncmp(path + at, "..", 2) == 0) || n > 255)
            return false;
        at += n + 1;
    }
    return true;
}

bool hub_is_commit(const char *text)
{
    size_t n = strspn(text, "0123456789abcdef");
    return text[n] == '\0' && (n == 40 || n == 64);
}
