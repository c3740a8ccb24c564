/* What the readers of safetensors and GGUF share: a list of tensors that is found by name.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_TENSOR_LIST_H
#define BAL_IO_TENSOR_LIST_H

#include "lib/io/safetensors.h"

#include <stdbool.h>

typedef struct bal_tensor_list {
    bal_tensor *items; /* names are owned by the list */
    size_t n, cap;
    size_t *by_name; /* indices in the order of names; made by bal_tensor_list_index() */
} bal_tensor_list;

/* Appends a copy of *t with its own copy of the name (n_name bytes).  The name must not be empty, longer than 65535
 * bytes, or hold control characters (BAL_EFORMAT, message with t->file). */
bal_status bal_tensor_list_add(bal_tensor_list *list, const bal_tensor *t, const char *name, size_t n_name);
/* Once all are in: allows bal_tensor_list_find().  BAL_EFORMAT when a name occurs twice. */
bal_status bal_tensor_list_index(bal_tensor_list *list);
const bal_tensor *bal_tensor_list_find(const bal_tensor_list *list, const char *name);
void bal_tensor_list_dispose(bal_tensor_list *list);

/* t->n_elements from its shape; false when the product overflows. */
bool bal_tensor_count_elements(bal_tensor *t);

#endif
