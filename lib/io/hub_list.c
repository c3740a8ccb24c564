/* What is in a repository: the server's answers, our record of them, a folder of the cache.  Nothing of it is trusted.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub_impl.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_DEPTH = 8, MAX_RECORD = 64 << 20 };
static const int64_t k_most_bytes = (int64_t)1 << 50;

void hub_list_dispose(hub_list *l)
{
    for (size_t i = 0; i < l->n; i++)
        bal_free(l->files[i].path);
    bal_free(l->files);
    *l = (hub_list){0};
}

bal_status hub_list_add(hub_list *l, const char *path, const char *hash, uint64_t size)
{
    if (l->n == HUB_MAX_FILES)
        return bal_fail(BAL_ELIMIT, "the repository has more than %d files", HUB_MAX_FILES);
    if (l->n == l->cap) {
        size_t cap = 2 * l->cap + 64;
        hub_file *grown = bal_realloc(l->files, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        l->files = grown;
        l->cap = cap;
    }
    hub_file *f = &l->files[l->n];
    *f = (hub_file){.path = bal_strdup(path), .size = size};
    if (f->path == NULL)
        return BAL_ENOMEM;
    (void)snprintf(f->hash, sizeof f->hash, "%s", hash);
    l->n++;
    return BAL_OK;
}

static int by_path(const void *a, const void *b)
{
    return strcmp(((const hub_file *)a)->path, ((const hub_file *)b)->path);
}

void hub_list_sort(hub_list *l)
{
    size_t kept = 0;
    if (l->n == 0)
        return;
    qsort(l->files, l->n, sizeof *l->files, by_path);
    for (size_t i = 1; i < l->n; i++) { /* of a file that is named twice the last stays out */
        if (strcmp(l->files[i].path, l->files[kept].path) == 0)
            bal_free(l->files[i].path);
        else
            l->files[++kept] = l->files[i];
    }
    l->n = kept + 1;
}

const hub_file *hub_list_find(const hub_list *l, const char *path)
{
    size_t low = 0, high = l->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcmp(l->files[middle].path, path);
        if (order == 0)
            return &l->files[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

/* One entry of the server's: key is where its path stands; git: where git's hash stands; sha: that of an LFS object. */
static bal_status add_entry(hub_list *l, const cJSON *entry, const char *where, const char *key, const char *git,
                            const char *sha)
{
    const char *path = NULL, *hash = NULL;
    int64_t size = -1;
    bal_status status = BAL_OK;
    if (!cJSON_IsObject(entry))
        return bal_fail(BAL_EFORMAT, "%s: a file must be an object", where);
    BAL_TRY(bal_json_text(entry, where, key, &path, NULL));
    if (path == NULL)
        return bal_fail(BAL_EFORMAT, "%s: a file without '%s'", where, key);
    if (!hub_path_is_safe(path))
        return bal_fail(BAL_EFORMAT,
                        "%s: the file name '%.80s' is refused, it leads out of the repository or is no name", where,
                        path);
    BAL_TRY(bal_json_i64(entry, where, "size", 0, k_most_bytes, &size, NULL));
    const cJSON *lfs = bal_json_member(entry, "lfs");
    if (lfs != NULL) {
        if (!cJSON_IsObject(lfs))
            return bal_fail(BAL_EFORMAT, "%s: '%.80s': key 'lfs' must be an object", where, path);
        BAL_TRY(bal_json_text(lfs, where, sha, &hash, NULL));
        BAL_TRY(bal_json_i64(lfs, where, "size", 0, k_most_bytes, &size, NULL));
        if (hash != NULL && strncmp(hash, "sha256:", 7) == 0)
            hash += 7;
    } else {
        BAL_TRY(bal_json_text(entry, where, git, &hash, NULL));
    }
    if (hash != NULL && (!hub_is_commit(hash) || strlen(hash) != (lfs != NULL ? 64 : 40)))
        return bal_fail(BAL_EFORMAT, "%s: '%.80s' has the hash '%.80s', which is none", where, path, hash);
    if (size < 0) /* without a size nothing can be checked before it is all there */
        hash = NULL;
    status = hub_list_add(l, path, hash != NULL ? hash : "", size < 0 ? 0 : (uint64_t)size);
out:
    return status;
}

bal_status hub_parse_info(hub_list *l, const char *text, size_t n, const char *host)
{
    cJSON *json = NULL;
    const char *commit = NULL;
    const cJSON *entry = NULL;
    bal_status status;
    BAL_TRY(bal_json_parse(&json, text, n, host));
    if (!cJSON_IsObject(json))
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: the answer is no description of a repository", host));
    BAL_TRY(bal_json_text(json, host, "sha", &commit, NULL));
    if (commit == NULL || !hub_is_commit(commit))
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: the answer names no commit", host));
    (void)snprintf(l->commit, sizeof l->commit, "%s", commit);
    const cJSON *siblings = bal_json_member(json, "siblings");
    if (siblings != NULL && !cJSON_IsArray(siblings))
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: key 'siblings' must be an array", host));
    cJSON_ArrayForEach(entry, siblings)
    {
        BAL_TRY(add_entry(l, entry, host, "rfilename", "blobId", "sha256"));
    }
    l->whole = true;
    hub_list_sort(l);
out:
    cJSON_Delete(json);
    return status;
}

bal_status hub_parse_tree(hub_list *l, const char *text, size_t n, const char *host)
{
    cJSON *json = NULL;
    const cJSON *entry = NULL;
    bal_status status;
    BAL_TRY(bal_json_parse(&json, text, n, host));
    if (!cJSON_IsArray(json))
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: the answer is no list of files", host));
    cJSON_ArrayForEach(entry, json)
    {
        const char *type = NULL;
        if (cJSON_IsObject(entry))
            BAL_TRY(bal_json_text(entry, host, "type", &type, NULL));
        if (type == NULL || strcmp(type, "file") == 0)
            BAL_TRY(add_entry(l, entry, host, "path", "oid", "oid"));
    }
out:
    cJSON_Delete(json);
    return status;
}

bal_status hub_list_save(const hub_list *l, const char *path)
{
    bal_buf b = {0};
    bool first = true;
    bal_status status = BAL_OK;
    char *folder = bal_path_dir(path);
    if (folder == NULL)
        return BAL_ENOMEM;
    BAL_TRY(bal_folder_make(folder));
    BAL_TRY(bal_buf_text(&b, "{\"format_version\":1,\"files\":{"));
    for (size_t i = 0; i < l->n; i++) {
        bool lfs = strlen(l->files[i].hash) == 64;
        BAL_TRY(bal_json_put_key(&b, l->files[i].path, &first));
        BAL_TRY(bal_buf_printf(&b, "{\"size\":%" PRIu64 ",\"%s\":\"%s\"}", l->files[i].size,
                               lfs ? "lfs_sha256" : "blob_id", l->files[i].hash));
    }
    BAL_TRY(bal_buf_text(&b, "}}\n"));
    BAL_TRY(bal_file_replace(path, b.data, b.len));
out:
    bal_free(folder);
    bal_buf_dispose(&b);
    return status;
}

/* Also what huggingface_hub keeps as trees/COMMIT.json. */
bal_status hub_list_load(hub_list *l, const char *path)
{
    cJSON *json = NULL;
    const cJSON *entry = NULL;
    bal_status status;
    if (!bal_file_exists(path))
        return bal_fail(BAL_ENOENT, "there is no %s", path);
    BAL_TRY(bal_json_read(&json, path, MAX_RECORD));
    const cJSON *files = bal_json_member(json, "files"), *version = bal_json_member(json, "format_version");
    if (!cJSON_IsNumber(version) || version->valuedouble != 1 || !cJSON_IsObject(files))
        BAL_TRY(bal_fail(BAL_ENOENT, "%s is of another form", path));
    cJSON_ArrayForEach(entry, files)
    {
        const cJSON *sha = bal_json_member(entry, "lfs_sha256"), *git = bal_json_member(entry, "blob_id");
        const cJSON *hash = sha != NULL ? sha : git, *size = bal_json_member(entry, "size");
        bool good = entry->string != NULL && hub_path_is_safe(entry->string) && cJSON_IsNumber(size) &&
                    size->valuedouble >= 0 && size->valuedouble < 1e15;
        if (!good ||
            (hash != NULL && (!cJSON_IsString(hash) || (*hash->valuestring && !hub_is_commit(hash->valuestring)))))
            BAL_TRY(bal_fail(BAL_ENOENT, "%s is broken", path));
        BAL_TRY(hub_list_add(l, entry->string, hash != NULL ? hash->valuestring : "", (uint64_t)size->valuedouble));
    }
    l->whole = true;
    hub_list_sort(l);
out:
    cJSON_Delete(json);
    return status;
}

/* Depth is bounded and links to folders are not followed, so recursion ends. */
static bal_status add_folder(hub_list *l, const char *root, const char *inside, int depth) // NOLINT(misc-no-recursion)
{
    bal_buf path = {0}, name = {0};
    bal_status status = BAL_OK;
    BAL_TRY(bal_buf_printf(&path, "%s/%s", root, inside));
    DIR *dir = opendir(bal_buf_cstr(&path));
    const struct dirent *entry = NULL;
    while (dir != NULL && status == BAL_OK && (entry = readdir(dir)) != NULL) {
        struct stat s, link;
        if (entry->d_name[0] == '.')
            continue;
        bal_buf_clear(&name);
        bal_buf_clear(&path);
        status = bal_buf_printf(&name, "%s%s%s", inside, inside[0] != '\0' ? "/" : "", entry->d_name);
        if (status == BAL_OK)
            status = bal_buf_printf(&path, "%s/%s", root, bal_buf_cstr(&name));
        if (status != BAL_OK || stat(path.data, &s) != 0 || lstat(path.data, &link) != 0)
            continue;
        if (S_ISREG(s.st_mode) && hub_path_is_safe(name.data))
            status = hub_list_add(l, name.data, "", (uint64_t)s.st_size);
        else if (S_ISDIR(link.st_mode) && depth < MAX_DEPTH)
            status = add_folder(l, root, name.data, depth + 1);
    }
    if (dir != NULL)
        (void)closedir(dir);
out:
    bal_buf_dispose(&path);
    bal_buf_dispose(&name);
    return status;
}

bal_status hub_list_folder(hub_list *l, const char *folder)
{
    bal_status status = add_folder(l, folder, "", 0);
    l->whole = false;
    hub_list_sort(l);
    return status;
}
