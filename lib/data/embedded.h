/* Files that travel inside the program: the small model of `balora demo` and of the tests, made by `make embedded`.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_DATA_EMBEDDED_H
#define BAL_DATA_EMBEDDED_H

#include "lib/base/status.h"

#include <stddef.h>

typedef struct bal_embedded {
    const char *name; /* "model.safetensors" */
    const unsigned char *data;
    size_t bytes;
} bal_embedded;

/* The i-th file; name NULL past the last. */
bal_embedded bal_embedded_at(size_t i);
/* Writes all of them into dir (made if missing). */
bal_status bal_embedded_write(const char *dir);

#endif
