/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/tensor_list.h"

#include "lib/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_NAME = 65535 };

static bal_status check_name(const char *name, size_t n, size_t index, const char *file)
{
    if (n == 0 || n > MAX_NAME)
        return bal_fail(BAL_EFORMAT, "%s: the name of tensor number %zu has %zu bytes; 1 to %d are possible", file,
                        index, n, MAX_NAME);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)name[i] < 32 || name[i] == 127)
            return bal_fail(BAL_EFORMAT, "%s: the name of tensor number %zu holds the control character %d", file,
                            index, name[i]);
    return BAL_OK;
}

bal_status bal_tensor_list_add(bal_tensor_list *list, const bal_tensor *t, const char *name, size_t n_name)
{
    bal_status status = check_name(name, n_name, list->n, t->file);
    if (status != BAL_OK)
        return status;
    if (list->n == list->cap) {
        size_t cap = list->cap == 0 ? 64 : 2 * list->cap;
        bal_tensor *items = bal_realloc(list->items, cap, sizeof *items);
        if (items == NULL)
            return BAL_ENOMEM;
        list->items = items;
        list->cap = cap;
    }
    char *copy = bal_strndup(name, n_name);
    if (copy == NULL)
        return BAL_ENOMEM;
    list->items[list->n] = *t;
    list->items[list->n++].name = copy;
    return BAL_OK;
}

static int compare_names(const void *a, const void *b, void *context)
{
    const bal_tensor *items = context;
    return strcmp(items[*(const size_t *)a].name, items[*(const size_t *)b].name);
}

bal_status bal_tensor_list_index(bal_tensor_list *list)
{
    bal_free(list->by_name);
    list->by_name = bal_alloc(list->n, sizeof *list->by_name);
    if (list->by_name == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < list->n; i++)
        list->by_name[i] = i;
    if (list->n > 1)
        qsort_r(list->by_name, list->n, sizeof *list->by_name, compare_names, list->items);
    for (size_t i = 1; i < list->n; i++) {
        const bal_tensor *a = &list->items[list->by_name[i - 1]], *b = &list->items[list->by_name[i]];
        if (strcmp(a->name, b->name) == 0)
            return bal_fail(BAL_EFORMAT, "%s: tensor '%s' is there twice", b->file, b->name);
    }
    return BAL_OK;
}

const bal_tensor *bal_tensor_list_find(const bal_tensor_list *list, const char *name)
{
    size_t low = 0, high = list->by_name == NULL ? 0 : list->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const bal_tensor *t = &list->items[list->by_name[middle]];
        int order = strcmp(name, t->name);
        if (order == 0)
            return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

void bal_tensor_list_dispose(bal_tensor_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        char *name;
        memcpy(&name, &list->items[i].name, sizeof name); /* the list's own copy, const only for readers */
        bal_free(name);
    }
    bal_free(list->items);
    bal_free(list->by_name);
    *list = (bal_tensor_list){0};
}

bool bal_tensor_count_elements(bal_tensor *t)
{
    t->n_elements = 1;
    for (size_t i = 0; i < t->n_dims; i++)
        if (!bal_mul_size(t->n_elements, t->shape[i], &t->n_elements))
            return false;
    return true;
}

bal_status bal_tensor_view(const bal_tensor *t, bal_view *out)
{
    if (t->n_dims < 1 || t->n_dims > 2)
        return bal_fail(BAL_EFORMAT, "%s: tensor '%s' has %zu dimensions; 1 or 2 are needed", t->file, t->name,
                        t->n_dims);
    if (t->dtype == BAL_DTYPE_COUNT)
        return bal_fail(BAL_EUNSUPPORTED, "%s: tensor '%s' has the type %s, which is not one to compute with", t->file,
                        t->name, t->dtype_name);
    *out = (bal_view){
        .dtype = t->dtype, .rows = t->n_dims == 1 ? 1 : t->shape[0], .cols = t->shape[t->n_dims - 1], .data = t->data};
    bal_status status = bal_dtype_row_bytes(t->dtype, out->cols, &out->row_bytes);
    return status == BAL_OK ? status : bal_fail_note(status, "%s: tensor '%s'", t->file, t->name);
}
