/* Entries of the document, and the table of tensors.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "tools/inspect.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

static cJSON *add(bal_inspection *i, cJSON *parent, const char *key, cJSON *item)
{
    cJSON_bool added = item != NULL && parent != NULL &&
                       (key == NULL ? cJSON_AddItemToArray(parent, item) : cJSON_AddItemToObject(parent, key, item));
    if (!added) {
        cJSON_Delete(item);
        i->short_memory = true;
        return NULL;
    }
    return item;
}

void bal_inspect_text(bal_inspection *i, cJSON *object, const char *key, const char *text)
{
    if (text != NULL)
        (void)add(i, object, key, cJSON_CreateString(text));
}

void bal_inspect_number(bal_inspection *i, cJSON *object, const char *key, double value)
{
    (void)add(i, object, key, isfinite(value) ? cJSON_CreateNumber(value) : cJSON_CreateNull());
}

void bal_inspect_bool(bal_inspection *i, cJSON *object, const char *key, bool value)
{
    (void)add(i, object, key, cJSON_CreateBool(value));
}

cJSON *bal_inspect_object(bal_inspection *i, cJSON *parent, const char *key)
{
    return add(i, parent, key, cJSON_CreateObject());
}

cJSON *bal_inspect_array(bal_inspection *i, cJSON *parent, const char *key)
{
    return add(i, parent, key, cJSON_CreateArray());
}

void bal_inspect_copy(bal_inspection *i, cJSON *object, const char *key, const cJSON *value)
{
    if (value != NULL)
        (void)add(i, object, key, cJSON_Duplicate(value, true));
}

/* A tensor of any shape as rows of its last dimension. */
static bal_status rows_of(const bal_tensor *t, bal_view *v)
{
    size_t cols = t->n_dims == 0 ? 1 : t->shape[t->n_dims - 1];
    *v = (bal_view){.dtype = t->dtype, .cols = cols, .rows = cols == 0 ? 0 : t->n_elements / cols, .data = t->data};
    return bal_dtype_row_bytes(t->dtype, cols, &v->row_bytes);
}

typedef struct scan {
    const bal_view *v;
    float *rows;             /* cols for each thread */
    atomic_size_t first_bad; /* smallest row found to hold NaN or infinity */
} scan;

static size_t first_bad_column(const float *row, size_t n)
{
    size_t j = 0;
    while (j < n && isfinite(row[j]))
        j++;
    return j;
}

static void scan_range(void *context, size_t begin, size_t end, size_t thread)
{
    scan *s = context;
    float *row = s->rows + thread * s->v->cols;
    for (size_t r = begin; r < end && r < atomic_load(&s->first_bad); r++) {
        bal_row_to_f32(s->v->dtype, bal_view_row(s->v, r), s->v->cols, row);
        if (first_bad_column(row, s->v->cols) == s->v->cols)
            continue;
        size_t known = atomic_load(&s->first_bad);
        while (r < known && !atomic_compare_exchange_weak(&s->first_bad, &known, r))
            ;
    }
}

static bal_status scan_tensor(const bal_tensor *t)
{
    bal_view v;
    bal_status status = rows_of(t, &v);
    if (status != BAL_OK || v.rows == 0)
        return status;
    scan s = {&v, bal_alloc(bal_threads_count(), v.cols * sizeof(float)), SIZE_MAX};
    if (s.rows == NULL)
        return BAL_ENOMEM;
    bal_parallel_for(v.rows, 65536 / v.cols + 1, scan_range, &s);
    size_t r = atomic_load(&s.first_bad);
    if (r != SIZE_MAX) {
        bal_row_to_f32(v.dtype, bal_view_row(&v, r), v.cols, s.rows);
        size_t j = first_bad_column(s.rows, v.cols);
        status = bal_fail(BAL_ENUMERIC, "%s: tensor '%s' holds %g at row %zu, column %zu (element %zu of %zu)", t->file,
                          t->name, (double)s.rows[j], r, j, r * v.cols + j, t->n_elements);
    }
    bal_free(s.rows);
    return status;
}

static void add_shape(bal_inspection *i, cJSON *row, const bal_tensor *t)
{
    cJSON *shape = bal_inspect_array(i, row, "shape");
    for (size_t d = 0; d < t->n_dims; d++)
        bal_inspect_number(i, shape, NULL, (double)t->shape[d]);
}

/* The line of t's type in the table of types, made when new. */
static cJSON *type_line(bal_inspection *i, cJSON *types, const char *name)
{
    cJSON *line = NULL;
    cJSON_ArrayForEach(line, types)
    {
        if (strcmp(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "type")), name) == 0)
            return line;
    }
    line = bal_inspect_object(i, types, NULL);
    bal_inspect_text(i, line, "type", name);
    bal_inspect_number(i, line, "tensors", 0);
    bal_inspect_number(i, line, "parameters", 0);
    bal_inspect_number(i, line, "bytes", 0);
    return line;
}

static void increase(cJSON *line, const char *key, double by)
{
    cJSON *item = cJSON_GetObjectItemCaseSensitive(line, key);
    if (item != NULL)
        (void)cJSON_SetNumberHelper(item, item->valuedouble + by);
}

bal_status bal_inspect_tensor_list(bal_inspection *i, size_t n, const bal_tensor *(*at)(const void *source, size_t k),
                                   const void *source, bool tied)
{
    double parameters = 0, bytes = 0;
    size_t unchecked = 0;
    cJSON *types = cJSON_CreateArray(), *table = i->tensors ? cJSON_CreateArray() : NULL;
    bal_status status = BAL_OK;
    for (size_t k = 0; k < n && status == BAL_OK; k++) {
        const bal_tensor *t = at(source, k);
        bool again = tied && (strcmp(t->name, "lm_head.weight") == 0);
        cJSON *line = type_line(i, types, t->dtype_name);
        increase(line, "tensors", 1);
        increase(line, "parameters", (double)t->n_elements);
        increase(line, "bytes", (double)t->n_bytes);
        parameters += again ? 0 : (double)t->n_elements;
        bytes += (double)t->n_bytes;
        if (table != NULL) {
            cJSON *row = bal_inspect_object(i, table, NULL);
            bal_inspect_text(i, row, "name", t->name);
            bal_inspect_text(i, row, "type", t->dtype_name);
            add_shape(i, row, t);
            bal_inspect_number(i, row, "bytes", (double)t->n_bytes);
        }
        if (i->check && t->dtype != BAL_DTYPE_COUNT)
            status = scan_tensor(t);
        else
            unchecked++;
    }
    bal_inspect_number(i, i->doc, "parameters", parameters);
    bal_inspect_number(i, i->doc, "tensor_bytes", bytes);
    bal_inspect_number(i, i->doc, "bits_per_parameter", parameters > 0 ? round(8000 * bytes / parameters) / 1000 : 0);
    if (i->check) {
        bal_inspect_text(i, i->doc, "check", "no NaN and no infinity");
        if (unchecked > 0)
            bal_inspect_number(i, i->doc, "tensors_not_checked", (double)unchecked);
    }
    (void)add(i, i->doc, "types", types);
    if (table != NULL)
        (void)add(i, i->doc, "tensors", table);
    return status;
}
