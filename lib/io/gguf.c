/*   SIZE   DESCRIPTION (all little endian)
 *   4      "GGUF"
 *   4      u32 version (2 or 3)
 *   8, 8   u64 number of tensors, u64 number of values
 *   ...    values: text key, u32 type, content; text = u64 length and bytes; array = u32 type, u64 count, elements
 *   ...    tensors: text name, u32 number of dimensions, u64 each (innermost first), u32 type, u64 offset in data
 *   ...    zeros up to a multiple of general.alignment (32), then the data
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/gguf.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/tensor_list.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_COUNT = 1 << 20, MAX_KEY = 65535, GGUF_DIMS = 4, N_TYPES = BAL_GGUF_F64 + 1 };

static const unsigned char k_scalar_bytes[N_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
static const char *const k_scalar_names[N_TYPES] = {"u8",   "i8",   "u16",   "i16", "u32", "i32", "f32",
                                                    "bool", "text", "array", "u64", "i64", "f64"};

/* Tensor types by their number in the file; those that we do not compute with are listed all the same. */
static const struct {
    uint32_t id;
    bal_dtype dtype;
    const char *name;
    uint16_t block, bytes;
} k_types[] = {
    {0, BAL_DTYPE_F32, "F32", 1, 4},           {1, BAL_DTYPE_F16, "F16", 1, 2},
    {2, BAL_DTYPE_Q4_0, "Q4_0", 32, 18},       {3, BAL_DTYPE_Q4_1, "Q4_1", 32, 20},
    {6, BAL_DTYPE_Q5_0, "Q5_0", 32, 22},       {7, BAL_DTYPE_Q5_1, "Q5_1", 32, 24},
    {8, BAL_DTYPE_Q8_0, "Q8_0", 32, 34},       {9, BAL_DTYPE_COUNT, "Q8_1", 32, 36},
    {10, BAL_DTYPE_COUNT, "Q2_K", 256, 84},    {11, BAL_DTYPE_COUNT, "Q3_K", 256, 110},
    {12, BAL_DTYPE_Q4_K, "Q4_K", 256, 144},    {13, BAL_DTYPE_Q5_K, "Q5_K", 256, 176},
    {14, BAL_DTYPE_Q6_K, "Q6_K", 256, 210},    {15, BAL_DTYPE_COUNT, "Q8_K", 256, 292},
    {16, BAL_DTYPE_COUNT, "IQ2_XXS", 256, 66}, {17, BAL_DTYPE_COUNT, "IQ2_XS", 256, 74},
    {18, BAL_DTYPE_COUNT, "IQ3_XXS", 256, 98}, {19, BAL_DTYPE_COUNT, "IQ1_S", 256, 50},
    {20, BAL_DTYPE_COUNT, "IQ4_NL", 32, 18},   {21, BAL_DTYPE_COUNT, "IQ3_S", 256, 110},
    {22, BAL_DTYPE_COUNT, "IQ2_S", 256, 82},   {23, BAL_DTYPE_COUNT, "IQ4_XS", 256, 136},
    {24, BAL_DTYPE_COUNT, "I8", 1, 1},         {25, BAL_DTYPE_COUNT, "I16", 1, 2},
    {26, BAL_DTYPE_COUNT, "I32", 1, 4},        {27, BAL_DTYPE_COUNT, "I64", 1, 8},
    {28, BAL_DTYPE_F64, "F64", 1, 8},          {29, BAL_DTYPE_COUNT, "IQ1_M", 256, 56},
    {30, BAL_DTYPE_BF16, "BF16", 1, 2},        {34, BAL_DTYPE_COUNT, "TQ1_0", 256, 54},
    {35, BAL_DTYPE_COUNT, "TQ2_0", 256, 66},   {39, BAL_DTYPE_COUNT, "MXFP4", 32, 17},
};

typedef struct entry {
    bal_gguf_value value;
    char *key, *text; /* text: NUL-terminated copy of a scalar text */
    bal_gguf_text *texts;
} entry;

struct bal_gguf {
    bal_map map;
    char *path;
    uint32_t version;
    entry *entries;
    size_t n_entries;
    bal_tensor_list tensors;
};

/* What remains of the file. */
typedef struct reader {
    const unsigned char *p, *start;
    size_t left;
    const char *file;
} reader;

static bal_status take(reader *r, size_t n, const char *what, const unsigned char **out)
{
    *out = r->p;
    if (n > r->left)
        return bal_fail(BAL_EFORMAT, "%s: the file ends inside %s (at byte %zu, %zu more needed, %zu left)", r->file,
                        what, (size_t)(r->p - r->start), n, r->left);
    r->p += n;
    r->left -= n;
    return BAL_OK;
}

static bal_status take_u32(reader *r, const char *what, uint32_t *out)
{
    const unsigned char *p;
    *out = 0;
    bal_status status = take(r, sizeof *out, what, &p);
    if (status == BAL_OK)
        memcpy(out, p, sizeof *out);
    return status;
}

static bal_status take_u64(reader *r, const char *what, uint64_t *out)
{
    const unsigned char *p;
    *out = 0;
    bal_status status = take(r, sizeof *out, what, &p);
    if (status == BAL_OK)
        memcpy(out, p, sizeof *out);
    return status;
}

static bal_status take_text(reader *r, const char *what, bal_gguf_text *out)
{
    uint64_t n;
    const unsigned char *p = NULL;
    bal_status status = take_u64(r, what, &n);
    if (status == BAL_OK)
        status = take(r, n, what, &p);
    *out = (bal_gguf_text){(const char *)p, status == BAL_OK ? n : 0};
    return status;
}

static bal_status take_content(reader *r, entry *e)
{
    bal_gguf_value *v = &e->value;
    bal_status status;
    if (v->type != BAL_GGUF_TEXT) {
        size_t bytes;
        const unsigned char *p;
        if (!bal_mul_size(v->n, k_scalar_bytes[v->type], &bytes))
            bytes = SIZE_MAX;
        status = take(r, bytes, e->key, &p);
        v->data = p;
        return status;
    }
    if (v->n > r->left / sizeof(uint64_t))
        return bal_fail(BAL_EFORMAT, "%s: value '%s' says %zu texts, more than the rest of the file can hold", r->file,
                        e->key, v->n);
    e->texts = bal_alloc(v->n, sizeof *e->texts);
    if (e->texts == NULL)
        return BAL_ENOMEM;
    v->texts = e->texts;
    for (size_t i = 0; i < v->n; i++)
        if ((status = take_text(r, e->key, &e->texts[i])) != BAL_OK)
            return status;
    if (!v->is_array && (e->text = bal_strndup(e->texts[0].data, e->texts[0].n)) == NULL)
        return BAL_ENOMEM;
    return BAL_OK;
}

static bal_status take_value(reader *r, entry *e)
{
    bal_status status;
    bal_gguf_text key;
    uint32_t type;
    uint64_t n = 1;
    BAL_TRY(take_text(r, "the key of a value", &key));
    if (key.n == 0 || key.n > MAX_KEY || memchr(key.data, '\0', key.n) != NULL)
        return bal_fail(BAL_EFORMAT, "%s: the key of %zu bytes before byte %zu is not a name", r->file, key.n,
                        (size_t)(r->p - r->start));
    if ((e->key = bal_strndup(key.data, key.n)) == NULL)
        return BAL_ENOMEM;
    e->value.key = e->key;
    BAL_TRY(take_u32(r, e->key, &type));
    if (type == BAL_GGUF_ARRAY) {
        e->value.is_array = true;
        BAL_TRY(take_u32(r, e->key, &type));
        BAL_TRY(take_u64(r, e->key, &n));
        if (type == BAL_GGUF_ARRAY)
            return bal_fail(BAL_EUNSUPPORTED, "%s: value '%s' is an array of arrays", r->file, e->key);
    }
    if (type >= N_TYPES)
        return bal_fail(BAL_EFORMAT, "%s: value '%s' has the unknown type %u", r->file, e->key, type);
    e->value.type = (bal_gguf_type)type;
    e->value.n = n;
    status = take_content(r, e);
out:
    return status;
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bal_status check_keys_differ(const bal_gguf *g)
{
    const char **keys = bal_alloc(g->n_entries, sizeof *keys);
    bal_status status = BAL_OK;
    if (keys == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < g->n_entries; i++)
        keys[i] = g->entries[i].key;
    if (g->n_entries > 1)
        qsort(keys, g->n_entries, sizeof *keys, compare_keys);
    for (size_t i = 1; i < g->n_entries && status == BAL_OK; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            status = bal_fail(BAL_EFORMAT, "%s: value '%s' is there twice", g->path, keys[i]);
    bal_free(keys);
    return status;
}

/* Name, block and size of the type; a type that is not in the table gets no size. */
static bal_status describe_type(bal_tensor *t, uint32_t id, const char *name, int n_name)
{
    t->dtype = BAL_DTYPE_COUNT;
    for (size_t i = 0; i < sizeof k_types / sizeof k_types[0]; i++) {
        if (k_types[i].id != id)
            continue;
        size_t cols = t->n_dims == 0 ? 1 : t->shape[t->n_dims - 1];
        if (cols % k_types[i].block != 0)
            return bal_fail(BAL_EFORMAT, "%s: tensor '%.*s' has rows of %zu elements, not whole %s blocks of %d",
                            t->file, n_name, name, cols, k_types[i].name, k_types[i].block);
        t->dtype = k_types[i].dtype;
        memcpy(t->dtype_name, k_types[i].name, strlen(k_types[i].name) + 1);
        if (!bal_mul_size(t->n_elements / k_types[i].block, k_types[i].bytes, &t->n_bytes))
            return bal_fail(BAL_EFORMAT, "%s: tensor '%.*s' is too large", t->file, n_name, name);
        return BAL_OK;
    }
    const char digits[] = "0123456789";
    memcpy(t->dtype_name, "type ", 6);
    if (id < 1000) {
        size_t at = 5;
        if (id >= 100)
            t->dtype_name[at++] = digits[id / 100];
        if (id >= 10)
            t->dtype_name[at++] = digits[id / 10 % 10];
        t->dtype_name[at++] = digits[id % 10];
        t->dtype_name[at] = '\0';
        return BAL_OK;
    }
    return bal_fail(BAL_EFORMAT, "%s: tensor '%.*s' has the impossible type %u", t->file, n_name, name, id);
}

/* One tensor of the table; t->data is set later, *offset is what the table says. */
static bal_status take_tensor(reader *r, bal_tensor *t, bal_gguf_text *name, uint64_t *offset)
{
    bal_status status;
    uint32_t n_dims, type;
    *t = (bal_tensor){.file = r->file};
    BAL_TRY(take_text(r, "the table of tensors", name));
    int shown = name->n < 128 ? (int)name->n : 128;
    BAL_TRY(take_u32(r, "the table of tensors", &n_dims));
    if (n_dims > GGUF_DIMS)
        return bal_fail(BAL_EFORMAT, "%s: tensor '%.*s' has %u dimensions; at most %d are possible", r->file, shown,
                        name->data, n_dims, GGUF_DIMS);
    t->n_dims = n_dims;
    for (size_t i = 0; i < n_dims; i++) {
        uint64_t n;
        BAL_TRY(take_u64(r, "the table of tensors", &n));
        t->shape[n_dims - 1 - i] = n;
    }
    BAL_TRY(take_u32(r, "the table of tensors", &type));
    BAL_TRY(take_u64(r, "the table of tensors", offset));
    if (!bal_tensor_count_elements(t))
        return bal_fail(BAL_EFORMAT, "%s: tensor '%.*s' has more elements than can be counted", r->file, shown,
                        name->data);
    status = describe_type(t, type, name->data, shown);
out:
    return status;
}

static int compare_places(const void *a, const void *b, void *context)
{
    const bal_tensor *items = context, *x = &items[*(const size_t *)a], *y = &items[*(const size_t *)b];
    uintptr_t px = (uintptr_t)x->data, py = (uintptr_t)y->data;
    if (px != py)
        return px < py ? -1 : 1;
    return (x->n_bytes > y->n_bytes) - (x->n_bytes < y->n_bytes);
}

static bal_status check_overlap(const bal_tensor_list *list)
{
    size_t *order = bal_alloc(list->n, sizeof *order);
    bal_status status = BAL_OK;
    if (order == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < list->n; i++)
        order[i] = i;
    if (list->n > 1)
        qsort_r(order, list->n, sizeof *order, compare_places, list->items);
    for (size_t i = 1; i < list->n && status == BAL_OK; i++) {
        const bal_tensor *a = &list->items[order[i - 1]], *b = &list->items[order[i]];
        if ((uintptr_t)a->data + a->n_bytes > (uintptr_t)b->data)
            status = bal_fail(BAL_EFORMAT, "%s: tensors '%s' and '%s' overlap", b->file, a->name, b->name);
    }
    bal_free(order);
    return status;
}

static bal_status read_alignment(const bal_gguf *g, size_t *alignment)
{
    int64_t n = 32;
    *alignment = 32;
    bal_status status = bal_gguf_i64(g, "general.alignment", &n, NULL);
    if (status == BAL_OK && (n < 1 || n > 1 << 20 || (n & (n - 1)) != 0))
        return bal_fail(BAL_EFORMAT, "%s: general.alignment is %lld; it must be a power of two up to %d", g->path,
                        (long long)n, 1 << 20);
    *alignment = (size_t)n;
    return status;
}

/* The data section begins at the next multiple of the alignment after the table; checks each tensor's place. */
static bal_status place_tensors(bal_gguf *g, const reader *r, const uint64_t *offsets)
{
    size_t alignment, at = (size_t)(r->p - r->start), total = at + r->left;
    bal_status status = read_alignment(g, &alignment);
    if (status != BAL_OK)
        return status;
    size_t begin = (at + alignment - 1) / alignment * alignment;
    size_t data_bytes = begin < total ? total - begin : 0;
    for (size_t i = 0; i < g->tensors.n; i++) {
        bal_tensor *t = &g->tensors.items[i];
        if (offsets[i] % alignment != 0)
            return bal_fail(BAL_EFORMAT, "%s: tensor '%s' is at offset %llu, not a multiple of the alignment %zu",
                            r->file, t->name, (unsigned long long)offsets[i], alignment);
        if (offsets[i] > data_bytes || t->n_bytes > data_bytes - offsets[i])
            return bal_fail(BAL_EFORMAT,
                            "%s: tensor '%s' (%zu bytes at offset %llu) goes beyond the %zu bytes of data (cut short?)",
                            r->file, t->name, t->n_bytes, (unsigned long long)offsets[i], data_bytes);
        t->data = t->n_bytes == 0 ? r->start + total : r->start + begin + offsets[i];
    }
    return check_overlap(&g->tensors);
}

static bal_status take_tensors(bal_gguf *g, reader *r, size_t n)
{
    uint64_t *offsets = bal_alloc(n, sizeof *offsets);
    bal_status status = BAL_OK;
    if (offsets == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        bal_tensor t;
        bal_gguf_text name;
        BAL_TRY(take_tensor(r, &t, &name, &offsets[i]));
        BAL_TRY(bal_tensor_list_add(&g->tensors, &t, name.data, name.n));
    }
    BAL_TRY(bal_tensor_list_index(&g->tensors));
    status = place_tensors(g, r, offsets);
out:
    bal_free(offsets);
    return status;
}

static bal_status check_head(bal_gguf *g, reader *r, uint64_t *n_tensors, uint64_t *n_values)
{
    bal_status status;
    const unsigned char *magic;
    BAL_TRY(take(r, 4, "the head", &magic));
    if (memcmp(magic, "GGUF", 4) != 0)
        return bal_fail(BAL_EFORMAT, "%s is not a GGUF file: it does not begin with \"GGUF\"", r->file);
    BAL_TRY(take_u32(r, "the head", &g->version));
    if ((g->version & 0xffffU) == 0)
        return bal_fail(BAL_EUNSUPPORTED, "%s is a big-endian GGUF file; only little-endian ones are read", r->file);
    if (g->version != 2 && g->version != 3)
        return bal_fail(BAL_EUNSUPPORTED, "%s has the GGUF version %u; 2 and 3 are read", r->file, g->version);
    BAL_TRY(take_u64(r, "the head", n_tensors));
    BAL_TRY(take_u64(r, "the head", n_values));
    if (*n_values > MAX_COUNT || *n_values > r->left / 13)
        return bal_fail(BAL_EFORMAT, "%s: the head says %llu values, more than the file can hold", r->file,
                        (unsigned long long)*n_values);
    if (*n_tensors > MAX_COUNT || *n_tensors > r->left / 25)
        return bal_fail(BAL_EFORMAT, "%s: the head says %llu tensors, more than the file can hold", r->file,
                        (unsigned long long)*n_tensors);
out:
    return status;
}

static bal_status parse(bal_gguf *g, const void *bytes, size_t n_bytes)
{
    bal_status status;
    uint64_t n_tensors = 0, n_values = 0;
    reader r = {bytes, bytes, n_bytes, g->path};
    BAL_TRY(check_head(g, &r, &n_tensors, &n_values));
    if ((g->entries = bal_alloc(n_values, sizeof *g->entries)) == NULL)
        return BAL_ENOMEM;
    while (g->n_entries < n_values)
        BAL_TRY(take_value(&r, &g->entries[g->n_entries++]));
    BAL_TRY(check_keys_differ(g));
    status = take_tensors(g, &r, n_tensors);
out:
    return status;
}

static bal_status gguf_new(bal_gguf **out, const char *path)
{
    *out = NULL;
    bal_gguf *g = bal_alloc(1, sizeof *g);
    if (g == NULL || (g->path = bal_strdup(path)) == NULL) {
        bal_free(g);
        return BAL_ENOMEM;
    }
    *out = g;
    return BAL_OK;
}

static bal_status gguf_finish(bal_gguf **out, bal_status status)
{
    if (status != BAL_OK) {
        bal_gguf_close(*out);
        *out = NULL;
    }
    return status;
}

bal_status bal_gguf_parse(bal_gguf **out, const void *bytes, size_t n_bytes)
{
    bal_status status = gguf_new(out, "memory");
    return status != BAL_OK ? status : gguf_finish(out, parse(*out, bytes, n_bytes));
}

bal_status bal_gguf_open(bal_gguf **out, const char *path)
{
    bal_status status = gguf_new(out, path);
    if (status != BAL_OK)
        return status;
    status = bal_map_open(&(*out)->map, path);
    if (status == BAL_OK)
        status = parse(*out, (*out)->map.data, (*out)->map.bytes);
    return gguf_finish(out, status);
}

void bal_gguf_close(bal_gguf *g)
{
    if (g == NULL)
        return;
    for (size_t i = 0; i < g->n_entries; i++) {
        bal_free(g->entries[i].key);
        bal_free(g->entries[i].text);
        bal_free(g->entries[i].texts);
    }
    bal_free(g->entries);
    bal_tensor_list_dispose(&g->tensors);
    bal_map_close(&g->map);
    bal_free(g->path);
    bal_free(g);
}

uint32_t bal_gguf_version(const bal_gguf *g)
{
    return g->version;
}

size_t bal_gguf_count_values(const bal_gguf *g)
{
    return g->n_entries;
}

const bal_gguf_value *bal_gguf_value_at(const bal_gguf *g, size_t i)
{
    return &g->entries[i].value;
}

static const entry *find_entry(const bal_gguf *g, const char *key)
{
    for (size_t i = 0; i < g->n_entries; i++)
        if (strcmp(g->entries[i].key, key) == 0)
            return &g->entries[i];
    return NULL;
}

const bal_gguf_value *bal_gguf_find(const bal_gguf *g, const char *key)
{
    const entry *e = find_entry(g, key);
    return e == NULL ? NULL : &e->value;
}

#define ELEMENT(TYPE)                                                                                                  \
    {                                                                                                                  \
        TYPE x;                                                                                                        \
        memcpy(&x, p, sizeof x);                                                                                       \
        return (double)x;                                                                                              \
    }

double bal_gguf_element(const bal_gguf_value *v, size_t i)
{
    if (v->data == NULL || i >= v->n)
        return (double)NAN;
    const unsigned char *p = (const unsigned char *)v->data + i * k_scalar_bytes[v->type];
    switch (v->type) {
    case BAL_GGUF_U8:
        return *p;
    case BAL_GGUF_BOOL:
        return *p != 0;
    case BAL_GGUF_I8:
        ELEMENT(int8_t)
    case BAL_GGUF_U16:
        ELEMENT(uint16_t)
    case BAL_GGUF_I16:
        ELEMENT(int16_t)
    case BAL_GGUF_U32:
        ELEMENT(uint32_t)
    case BAL_GGUF_I32:
        ELEMENT(int32_t)
    case BAL_GGUF_F32:
        ELEMENT(float)
    case BAL_GGUF_U64:
        ELEMENT(uint64_t)
    case BAL_GGUF_I64:
        ELEMENT(int64_t)
    case BAL_GGUF_F64:
        ELEMENT(double)
    default:
        return (double)NAN;
    }
}

bal_status bal_gguf_f64(const bal_gguf *g, const char *key, double *out, bool *found)
{
    const bal_gguf_value *v = bal_gguf_find(g, key);
    if (found != NULL)
        *found = v != NULL;
    if (v == NULL)
        return BAL_OK;
    if (v->is_array || v->type == BAL_GGUF_TEXT)
        return bal_fail(BAL_EFORMAT, "%s: value '%s' must be a number, not %s%s", g->path, key,
                        v->is_array ? "an array of " : "a ", k_scalar_names[v->type]);
    *out = bal_gguf_element(v, 0);
    return BAL_OK;
}

bal_status bal_gguf_i64(const bal_gguf *g, const char *key, int64_t *out, bool *found)
{
    double number = 0;
    bool there;
    bal_status status = bal_gguf_f64(g, key, &number, &there);
    if (found != NULL)
        *found = there;
    if (status != BAL_OK || !there)
        return status;
    if (!(fabs(number) <= 9007199254740992.0) || number != floor(number))
        return bal_fail(BAL_EFORMAT, "%s: value '%s' is %g; a whole number below 2^53 is needed", g->path, key, number);
    *out = (int64_t)number;
    return BAL_OK;
}

const char *bal_gguf_text_of(const bal_gguf *g, const char *key)
{
    const entry *e = find_entry(g, key);
    return e == NULL ? NULL : e->text;
}

size_t bal_gguf_count_tensors(const bal_gguf *g)
{
    return g->tensors.n;
}

const bal_tensor *bal_gguf_tensor_at(const bal_gguf *g, size_t i)
{
    return &g->tensors.items[i];
}

const bal_tensor *bal_gguf_tensor(const bal_gguf *g, const char *name)
{
    return bal_tensor_list_find(&g->tensors, name);
}
