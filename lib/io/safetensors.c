/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/safetensors.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/tensor_list.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEAD = 8, MAX_HEADER = 100000000, MAX_SHARDS = 4096 };

/* Element sizes of the format's types; those that we do not compute with are listed all the same. */
static const struct {
    const char *name;
    bal_dtype dtype;
    size_t bytes;
} k_types[] = {
    {"F32", BAL_DTYPE_F32, 4},       {"F16", BAL_DTYPE_F16, 2},       {"BF16", BAL_DTYPE_BF16, 2},
    {"F64", BAL_DTYPE_F64, 8},       {"I64", BAL_DTYPE_COUNT, 8},     {"I32", BAL_DTYPE_COUNT, 4},
    {"I16", BAL_DTYPE_COUNT, 2},     {"I8", BAL_DTYPE_COUNT, 1},      {"U64", BAL_DTYPE_COUNT, 8},
    {"U32", BAL_DTYPE_COUNT, 4},     {"U16", BAL_DTYPE_COUNT, 2},     {"U8", BAL_DTYPE_COUNT, 1},
    {"BOOL", BAL_DTYPE_COUNT, 1},    {"F8_E4M3", BAL_DTYPE_COUNT, 1}, {"F8_E5M2", BAL_DTYPE_COUNT, 1},
    {"F8_E8M0", BAL_DTYPE_COUNT, 1}, {"C64", BAL_DTYPE_COUNT, 8},
};

typedef struct shard {
    char *path;
    bal_map map;
    cJSON *header; /* kept for "__metadata__" */
} shard;

struct bal_safetensors {
    shard *shards;
    size_t n_shards;
    bal_tensor_list tensors;
};

/* A number that is a whole one below 2^53. */
static bool whole_number(const cJSON *item, size_t *out)
{
    double v = cJSON_IsNumber(item) ? item->valuedouble : -1;
    if (!(v >= 0 && v <= 9007199254740992.0) || v != floor(v))
        return false;
    *out = (size_t)v;
    return true;
}

static bal_status read_shape(const cJSON *item, bal_tensor *t)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape"), *dim = NULL;
    if (!cJSON_IsArray(shape))
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' has no list \"shape\"", t->file, item->string);
    cJSON_ArrayForEach(dim, shape)
    {
        if (t->n_dims == BAL_MAX_DIMS)
            return bal_fail(BAL_ELIMIT, "%s: tensor '%s' has more than %d dimensions", t->file, item->string,
                            BAL_MAX_DIMS);
        if (!whole_number(dim, &t->shape[t->n_dims]))
            return bal_fail(BAL_EFORMAT, "%s: tensor '%s': dimension %zu is not a whole number", t->file, item->string,
                            t->n_dims);
        t->n_dims++;
    }
    if (!bal_tensor_count_elements(t))
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' has more elements than can be counted", t->file, item->string);
    return BAL_OK;
}

/* Sets dtype and name; *bytes: of an element, 0 for a type that is not in the table. */
static bal_status read_dtype(const cJSON *item, bal_tensor *t, size_t *bytes)
{
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    size_t n = cJSON_IsString(dtype) ? strlen(dtype->valuestring) : 0;
    if (n == 0 || n >= sizeof t->dtype_name)
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' has no \"dtype\" that could be the name of a type", t->file,
                        item->string);
    memcpy(t->dtype_name, dtype->valuestring, n + 1);
    t->dtype = BAL_DTYPE_COUNT;
    *bytes = 0;
    for (size_t i = 0; i < sizeof k_types / sizeof k_types[0]; i++)
        if (strcmp(k_types[i].name, t->dtype_name) == 0) {
            t->dtype = k_types[i].dtype;
            *bytes = k_types[i].bytes;
        }
    return BAL_OK;
}

static bal_status read_entry(const cJSON *item, const unsigned char *data, size_t n_data, const char *file,
                             bal_tensor_list *list)
{
    bal_tensor t = {.file = file};
    size_t begin = 0, end = 0, element = 0, wanted;
    bal_status status;
    if (!cJSON_IsObject(item))
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' is not described by an object", file, item->string);
    BAL_TRY(read_dtype(item, &t, &element));
    BAL_TRY(read_shape(item, &t));
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !whole_number(cJSON_GetArrayItem(offsets, 0), &begin) || !whole_number(cJSON_GetArrayItem(offsets, 1), &end))
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' needs \"data_offsets\" of two whole numbers", file, item->string);
    if (begin > end)
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' begins at %zu, behind its end %zu", file, item->string, begin,
                        end);
    if (end > n_data)
        return bal_fail(BAL_EFORMAT,
                        "%s: tensor '%s' ends at byte %zu of the data, but the file holds only %zu (cut "
                        "short?)",
                        file, item->string, end, n_data);
    t.n_bytes = end - begin;
    t.data = data + begin;
    if (element != 0 && (!bal_mul_size(t.n_elements, element, &wanted) || wanted != t.n_bytes))
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' has %zu elements of type %s but %zu bytes of data", file,
                        item->string, t.n_elements, t.dtype_name, t.n_bytes);
    status = bal_tensor_list_add(list, &t, item->string, strlen(item->string));
out:
    return status;
}

static int compare_places(const void *a, const void *b)
{
    const bal_tensor *x = a, *y = b;
    uintptr_t px = (uintptr_t)x->data, py = (uintptr_t)y->data;
    if (px != py)
        return px < py ? -1 : 1;
    if (x->n_bytes != y->n_bytes)
        return x->n_bytes < y->n_bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Puts the tensors in file order and checks that they cover the data without holes or overlap. */
static bal_status check_cover(bal_tensor_list *list, const unsigned char *data, size_t n_data, const char *file)
{
    size_t at = 0;
    if (list->n > 1)
        qsort(list->items, list->n, sizeof *list->items, compare_places);
    for (size_t i = 0; i < list->n; i++) {
        const bal_tensor *t = &list->items[i];
        size_t begin = (size_t)((const unsigned char *)t->data - data);
        if (begin != at)
            return bal_fail(BAL_EFORMAT,
                            "%s: tensor '%s' begins at byte %zu of the data, the one before it ends at %zu", file,
                            t->name, begin, at);
        at += t->n_bytes;
    }
    if (at != n_data)
        return bal_fail(BAL_EFORMAT, "%s: the tensors cover %zu bytes, the file holds %zu bytes of data", file, at,
                        n_data);
    return BAL_OK;
}

static bal_status check_metadata(const cJSON *item, const char *file)
{
    const cJSON *value = NULL;
    if (!cJSON_IsObject(item))
        return bal_fail(BAL_EFORMAT, "%s: \"__metadata__\" is not an object", file);
    cJSON_ArrayForEach(value, item)
    {
        if (!cJSON_IsString(value))
            return bal_fail(BAL_EFORMAT, "%s: the \"__metadata__\" value '%s' is not a text", file, value->string);
    }
    return BAL_OK;
}

/* One whole file.  The list is empty before; names are not indexed yet.  *header is the caller's to delete. */
static bal_status parse_image(const unsigned char *bytes, size_t n, const char *file, bal_tensor_list *list,
                              cJSON **header)
{
    uint64_t n_header = 0;
    bal_status status;
    const cJSON *item = NULL;
    *header = NULL;
    if (n < HEAD)
        return bal_fail(BAL_EFORMAT, "%s is not a safetensors file: it has only %zu bytes", file, n);
    memcpy(&n_header, bytes, HEAD);
    if (n_header > MAX_HEADER)
        return bal_fail(BAL_EFORMAT,
                        "%s is not a safetensors file, or broken: its header would be %llu bytes long; at "
                        "most %d are possible",
                        file, (unsigned long long)n_header, MAX_HEADER);
    if (n_header > n - HEAD)
        return bal_fail(BAL_EFORMAT, "%s: the header should be %llu bytes long, but only %zu follow (cut short?)", file,
                        (unsigned long long)n_header, n - HEAD);
    if (n_header < 2 || bytes[HEAD] != '{')
        return bal_fail(BAL_EFORMAT, "%s is not a safetensors file: its header does not begin with '{'", file);
    BAL_TRY(bal_json_parse(header, (const char *)bytes + HEAD, n_header, file));
    const unsigned char *data = bytes + HEAD + n_header;
    size_t n_data = n - HEAD - n_header;
    cJSON_ArrayForEach(item, *header)
    {
        if (strcmp(item->string, "__metadata__") == 0)
            BAL_TRY(check_metadata(item, file));
        else
            BAL_TRY(read_entry(item, data, n_data, file, list));
    }
    status = check_cover(list, data, n_data, file);
out:
    return status;
}

bal_status bal_safetensors_check(const void *bytes, size_t n_bytes)
{
    bal_tensor_list list = {0};
    cJSON *header = NULL;
    bal_status status = parse_image(bytes, n_bytes, "memory", &list, &header);
    if (status == BAL_OK)
        status = bal_tensor_list_index(&list);
    cJSON_Delete(header);
    bal_tensor_list_dispose(&list);
    return status;
}

/* Opens shard i of s, whose path is set, into *list. */
static bal_status open_shard(shard *sh, bal_tensor_list *list)
{
    bal_status status = bal_map_open(&sh->map, sh->path);
    return status != BAL_OK ? status : parse_image(sh->map.data, sh->map.bytes, sh->path, list, &sh->header);
}

/* One line of an index: tensor name and shard file. */
typedef struct place {
    const char *name, *file;
    bool found;
} place;

static int compare_place_names(const void *a, const void *b)
{
    return strcmp(((const place *)a)->name, ((const place *)b)->name);
}

static int compare_place_files(const void *a, const void *b)
{
    return strcmp(((const place *)a)->file, ((const place *)b)->file);
}

static bal_status read_places(const cJSON *json, const char *path, place **places, size_t *n)
{
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(json, "weight_map"), *item = NULL;
    if (map == NULL || !cJSON_IsObject(map) || map->child == NULL)
        return bal_fail(BAL_EFORMAT, "%s has no \"weight_map\"", path);
    *places = bal_alloc((size_t)cJSON_GetArraySize(map), sizeof **places);
    if (*places == NULL)
        return BAL_ENOMEM;
    cJSON_ArrayForEach(item, map)
    {
        const char *file = cJSON_GetStringValue(item);
        if (file == NULL || file[0] == '\0' || file[0] == '.' || strchr(file, '/') != NULL)
            return bal_fail(BAL_EFORMAT, "%s: tensor '%s' must be in a file of the same folder, not '%s'", path,
                            item->string, file == NULL ? "(no text)" : file);
        (*places)[(*n)++] = (place){item->string, file, false};
    }
    return BAL_OK;
}

/* Allocates the shards that the places name, each once, with their paths. */
static bal_status list_shards(bal_safetensors *s, place *places, size_t n, const char *index_path)
{
    size_t count = 0;
    bal_status status = BAL_OK;
    if (places == NULL || n == 0)
        return bal_fail(BAL_EFORMAT, "%s names no tensors", index_path);
    qsort(places, n, sizeof *places, compare_place_files);
    for (size_t i = 0; i < n; i++)
        count += i == 0 || strcmp(places[i].file, places[i - 1].file) != 0;
    if (count > MAX_SHARDS)
        return bal_fail(BAL_ELIMIT, "%s names %zu files; at most %d are possible", index_path, count, MAX_SHARDS);
    char *folder = bal_path_dir(index_path);
    s->shards = bal_alloc(count, sizeof *s->shards);
    if (folder == NULL || s->shards == NULL)
        status = BAL_ENOMEM;
    for (size_t i = 0; i < n && status == BAL_OK; i++) {
        if (i > 0 && strcmp(places[i].file, places[i - 1].file) == 0)
            continue;
        shard *sh = &s->shards[s->n_shards++];
        sh->path = bal_path_join(folder, places[i].file);
        if (sh->path == NULL)
            status = BAL_ENOMEM;
    }
    bal_free(folder);
    return status;
}

/* Takes over those tensors of the shard that the index places there. */
static bal_status take_shard(bal_safetensors *s, shard *sh, place *places, size_t n)
{
    bal_tensor_list list = {0};
    bal_status status = open_shard(sh, &list);
    const char *base = strrchr(sh->path, '/');
    base = base == NULL ? sh->path : base + 1;
    for (size_t i = 0; i < list.n && status == BAL_OK; i++) {
        const bal_tensor *t = &list.items[i];
        place key = {t->name, NULL, false};
        place *p = bsearch(&key, places, n, sizeof *places, compare_place_names);
        if (p == NULL || strcmp(p->file, base) != 0)
            continue;
        p->found = true;
        status = bal_tensor_list_add(&s->tensors, t, t->name, strlen(t->name));
    }
    bal_tensor_list_dispose(&list);
    return status;
}

static bal_status open_index(bal_safetensors *s, const char *path)
{
    cJSON *json = NULL;
    place *places = NULL;
    size_t n = 0;
    bal_status status;
    BAL_TRY(bal_json_read(&json, path, MAX_HEADER));
    BAL_TRY(read_places(json, path, &places, &n));
    BAL_TRY(list_shards(s, places, n, path));
    qsort(places, n, sizeof *places, compare_place_names); // NOLINT(clang-analyzer-core.NonNullParamChecker)
    for (size_t i = 0; i < s->n_shards; i++)
        BAL_TRY(take_shard(s, &s->shards[i], places, n));
    for (size_t i = 0; i < n; i++)
        if (!places[i].found) {
            status = bal_fail(BAL_EFORMAT, "%s: tensor '%s' should be in %s, but is not", path, places[i].name,
                              places[i].file);
            goto out;
        }
out:
    bal_free(places);
    cJSON_Delete(json);
    return status;
}

static bal_status open_single(bal_safetensors *s, const char *path)
{
    s->shards = bal_alloc(1, sizeof *s->shards);
    if (s->shards == NULL || (s->shards[0].path = bal_strdup(path)) == NULL)
        return BAL_ENOMEM;
    s->n_shards = 1;
    return open_shard(&s->shards[0], &s->tensors);
}

/* The file or index to open for a path that may be a folder. */
static bal_status find_file(const char *path, char **out)
{
    static const char *const names[] = {"model.safetensors", "model.safetensors.index.json",
                                        "adapter_model.safetensors"};
    *out = NULL;
    if (!bal_folder_exists(path)) {
        *out = bal_strdup(path);
        return *out == NULL ? BAL_ENOMEM : BAL_OK;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        char *candidate = bal_path_join(path, names[i]);
        if (candidate == NULL)
            return BAL_ENOMEM;
        if (bal_file_exists(candidate)) {
            *out = candidate;
            return BAL_OK;
        }
        bal_free(candidate);
    }
    return bal_fail(BAL_ENOENT,
                    "%s holds neither model.safetensors nor model.safetensors.index.json (weights in "
                    "another form, such as .bin, must be converted first)",
                    path);
}

bal_status bal_safetensors_open(bal_safetensors **out, const char *path)
{
    char *file = NULL;
    bal_status status;
    *out = bal_alloc(1, sizeof **out);
    if (*out == NULL)
        return BAL_ENOMEM;
    BAL_TRY(find_file(path, &file));
    BAL_TRY(bal_ends_with(file, ".json") ? open_index(*out, file) : open_single(*out, file));
    status = bal_tensor_list_index(&(*out)->tensors);
out:
    bal_free(file);
    if (status != BAL_OK) {
        bal_safetensors_close(*out);
        *out = NULL;
    }
    return status;
}

void bal_safetensors_close(bal_safetensors *s)
{
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n_shards; i++) {
        bal_map_close(&s->shards[i].map);
        cJSON_Delete(s->shards[i].header);
        bal_free(s->shards[i].path);
    }
    bal_free(s->shards);
    bal_tensor_list_dispose(&s->tensors);
    bal_free(s);
}

size_t bal_safetensors_count(const bal_safetensors *s)
{
    return s->tensors.n;
}

const bal_tensor *bal_safetensors_at(const bal_safetensors *s, size_t i)
{
    return &s->tensors.items[i];
}

const bal_tensor *bal_safetensors_find(const bal_safetensors *s, const char *name)
{
    return bal_tensor_list_find(&s->tensors, name);
}

const cJSON *bal_safetensors_metadata_all(const bal_safetensors *s)
{
    return s->n_shards == 0 ? NULL : cJSON_GetObjectItemCaseSensitive(s->shards[0].header, "__metadata__");
}

const char *bal_safetensors_metadata(const bal_safetensors *s, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(bal_safetensors_metadata_all(s), key));
}
