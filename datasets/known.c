/* balora data list, balora data get: the data sets that have names, and those of the hub.  SPDX-License-Identifier: Apache-2.0 */
#include "datasets/datasets.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/data/registry.h"
#include "lib/io/json.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *fields;
} k_formats[] = {
    {"prompt", "prompt|query|question, response|completion|answer|output"},
    {"alpaca", "instruction, input, output"},
    {"gsm8k", "question, answer (as it is, ends '#### N')"},
    {"gsm8k_metamath", "question, answer (marks <<...>> removed, ends 'The answer is: N')"},
    {"chat", "messages [{role, content}] or conversations [{from, value}]"},
    {"text", "text (or a .txt file: records end at empty lines)"},
    {"tokens", "input_ids, labels"},
};
enum { N_FORMATS = sizeof k_formats / sizeof *k_formats, MAX_CACHED = 10000 };

/* The sets of the cache as "org/name", in the order of their names. */
typedef struct cached {
    char **names;
    size_t n;
} cached;

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bal_status find_cached(cached *c)
{
    static const char start[] = "datasets--";
    const struct dirent *entry = NULL;
    char *folder = NULL;
    bal_status status = bal_hub_cache(&folder);
    DIR *dir = status == BAL_OK ? opendir(folder) : NULL;
    bal_free(folder);
    if (dir == NULL)
        return status;
    c->names = bal_alloc(MAX_CACHED, sizeof *c->names);
    status = c->names == NULL ? BAL_ENOMEM : BAL_OK;
    while (status == BAL_OK && c->n < MAX_CACHED && (entry = readdir(dir)) != NULL) {
        const char *middle =
            bal_starts_with(entry->d_name, start) ? strstr(entry->d_name + sizeof start - 1, "--") : NULL;
        if (middle == NULL)
            continue;
        char *name = bal_strdup(entry->d_name + sizeof start - 1);
        if (name == NULL) {
            status = BAL_ENOMEM;
            break;
        }
        size_t org = (size_t)(middle - entry->d_name) - (sizeof start - 1);
        name[org] = '/';
        memmove(name + org + 1, name + org + 2, strlen(name + org + 2) + 1);
        c->names[c->n++] = name;
    }
    (void)closedir(dir);
    if (c->n > 0)
        qsort(c->names, c->n, sizeof *c->names, by_name);
    return status;
}

static void cached_dispose(cached *c)
{
    for (size_t i = 0; i < c->n; i++)
        bal_free(c->names[i]);
    bal_free(c->names);
}

/* What stands where a name is registered: its file under BALORA_DATA or its repository in the cache. */
static const char *where_is(const bal_data_entry *e, const cached *c)
{
    const char *folder = getenv("BALORA_DATA");
    char path[1024];
    size_t id = strcspn(e->hub, ":@");
    folder = folder != NULL && folder[0] != '\0' ? folder : "data";
    if (e->file != NULL) {
        size_t n = strcspn(e->file, "%");
        (void)snprintf(path, sizeof path, "%s/%.*strain%s", folder, (int)n, e->file, e->file + n + 2);
        if (bal_file_exists(path))
            return "file";
    }
    for (size_t i = 0; i < c->n; i++)
        if (strlen(c->names[i]) == id && strncmp(c->names[i], e->hub, id) == 0)
            return "cache";
    return NULL;
}

static bal_status list_json(const cached *c)
{
    bal_buf b = {0};
    size_t n = 0;
    const bal_data_entry *entries = bal_data_registry(&n);
    bal_status status = bal_buf_text(&b, "{\"formats\":[");
    for (size_t i = 0; i < N_FORMATS && status == BAL_OK; i++)
        status = bal_buf_printf(&b, "%s{\"name\":\"%s\",\"fields\":\"%s\"}", i > 0 ? "," : "", k_formats[i].name,
                                k_formats[i].fields);
    if (status == BAL_OK)
        status = bal_buf_text(&b, "],\"sets\":[");
    for (size_t i = 0; i < n && status == BAL_OK; i++) {
        const bal_data_entry *e = &entries[i];
        status = bal_buf_printf(
            &b,
            "{\"name\":\"%s\",\"hub\":\"%s\",\"format\":\"%s\",\"licence\":\"%s\",\"about\":\"%s\",\"present\":%s},",
            e->name, e->hub, e->format, e->licence, e->about, where_is(e, c) != NULL ? "true" : "false");
    }
    if (status == BAL_OK)
        status = bal_buf_text(&b, "{\"name\":\"world\",\"hub\":null,\"format\":\"gsm8k\",\"licence\":null,\"about\":"
                                  "\"generated: balora data world\",\"present\":false}],\"cached\":[");
    for (size_t i = 0; i < c->n && status == BAL_OK; i++) {
        if (i > 0)
            status = bal_buf_text(&b, ",");
        if (status == BAL_OK)
            status = bal_json_put_text(&b, c->names[i]);
    }
    if (status == BAL_OK)
        printf("%s]}\n", bal_buf_cstr(&b));
    bal_buf_dispose(&b);
    return status;
}

bal_status data_list(bool json)
{
    cached c = {0};
    size_t n = 0;
    const bal_data_entry *entries = bal_data_registry(&n);
    bal_status status;
    BAL_TRY(find_cached(&c));
    if (json) {
        status = list_json(&c);
        goto out;
    }
    printf("Formats (--format)\n");
    for (size_t i = 0; i < N_FORMATS; i++)
        printf("  %-19s %s\n", k_formats[i].name, k_formats[i].fields);
    printf("\nData sets (--data NAME, balora data get NAME)\n");
    for (size_t i = 0; i < n; i++) {
        const char *where = where_is(&entries[i], &c);
        printf("  %-19s %s; %s (%s)%s%s%s\n", entries[i].name, entries[i].hub, entries[i].about, entries[i].licence,
               where != NULL ? "  [in the " : "", where != NULL ? where : "", where != NULL ? "]" : "");
    }
    printf("  %-19s generated: balora data world\n", "world");
    printf("\nAny other set of the hub: org/name[:config][@revision], in JSON, CSV, TSV or text\n");
    if (c.n > 0)
        printf("\nIn the cache\n");
    for (size_t i = 0; i < c.n; i++)
        printf("  %s\n", c.names[i]);
out:
    cached_dispose(&c);
    return status;
}

bal_status data_get(const char *name, const char *split, const bal_hub_options *hub, bool json)
{
    bal_hub_files files = {0};
    bal_buf b = {0};
    bal_status status;
    if (bal_data_entry_find(name) == NULL && !bal_hub_is_name(name) && !bal_file_exists(name)) {
        const char *names[64] = {NULL};
        size_t n = 0;
        const bal_data_entry *entries = bal_data_registry(&n);
        for (size_t i = 0; i < n && i < 64; i++)
            names[i] = entries[i].name;
        const char *near = bal_nearest(name, names, n < 64 ? n : 64);
        return bal_fail(BAL_EINVAL, "'%.80s' is neither a name of balora data list nor org/name of the hub%s%s%s", name,
                        near != NULL ? "; did you mean '" : "", near != NULL ? near : "", near != NULL ? "'?" : "");
    }
    BAL_TRY(bal_data_files(name, split, hub, &files));
    BAL_TRY(bal_buf_printf(&b, "{\"name\":"));
    BAL_TRY(bal_json_put_text(&b, name));
    BAL_TRY(bal_buf_printf(&b, ",\"commit\":%s%s%s,\"files\":[", files.commit[0] != '\0' ? "\"" : "",
                           files.commit[0] != '\0' ? files.commit : "null", files.commit[0] != '\0' ? "\"" : ""));
    for (size_t i = 0; i < files.n; i++) {
        uint64_t bytes = 0;
        BAL_TRY(bal_file_size(files.paths[i], &bytes));
        if (!json)
            printf("%s\n", files.paths[i]);
        BAL_TRY(bal_buf_printf(&b, "%s{\"path\":", i > 0 ? "," : ""));
        BAL_TRY(bal_json_put_text(&b, files.paths[i]));
        BAL_TRY(bal_buf_printf(&b, ",\"bytes\":%" PRIu64 "}", bytes));
    }
    if (json)
        printf("%s]}\n", bal_buf_cstr(&b));
out:
    bal_hub_files_dispose(&files);
    bal_buf_dispose(&b);
    return status;
}
