/* safetensors: reading one file or a sharded folder by maps, and writing.
 *   OFFSET  SIZE  DESCRIPTION
 *   0       8     u64 little endian: N, bytes of the header (<= 100,000,000)
 *   8       N     JSON object: name -> {"dtype","shape","data_offsets":[begin,end]}, and "__metadata__"
 *   8+N     ...   data; the tensors cover it without holes or overlap
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_SAFETENSORS_H
#define BAL_IO_SAFETENSORS_H

#include "lib/base/status.h"
#include "lib/tensor/view.h"

#include <cjson/cJSON.h>
#include <stddef.h>
#include <stdint.h>

enum { BAL_MAX_DIMS = 8 };

typedef struct bal_tensor {
    const char *name;
    char dtype_name[12]; /* as in the file: "F32", "BF16", "I64", "Q4_1" ... */
    bal_dtype dtype;     /* BAL_DTYPE_COUNT when it is not one that we compute with */
    size_t n_dims, shape[BAL_MAX_DIMS];
    size_t n_elements, n_bytes;
    const void *data; /* in the map */
    const char *file; /* path, for messages */
} bal_tensor;

typedef struct bal_safetensors bal_safetensors;

/* path: a .safetensors file, an index (*.index.json), or a folder holding model.safetensors[.index.json]
 * or adapter_model.safetensors. */
bal_status bal_safetensors_open(bal_safetensors **out, const char *path);
void bal_safetensors_close(bal_safetensors *s);
size_t bal_safetensors_count(const bal_safetensors *s);
const bal_tensor *bal_safetensors_at(const bal_safetensors *s, size_t i); /* in file order */
const bal_tensor *bal_safetensors_find(const bal_safetensors *s, const char *name);
/* "__metadata__" value, NULL if absent. */
const char *bal_safetensors_metadata(const bal_safetensors *s, const char *key);
/* All of it (of the first shard): an object of texts, or NULL. */
const cJSON *bal_safetensors_metadata_all(const bal_safetensors *s);
/* In-memory entry point for fuzzing: validates a whole file image. */
bal_status bal_safetensors_check(const void *bytes, size_t n_bytes);

/* A 1-D or 2-D tensor as a view (1-D: rows = 1). */
bal_status bal_tensor_view(const bal_tensor *t, bal_view *out);

/* Writing: declare all tensors, then commit; data is read at commit and must live until then.  Replaced
 * atomically.  dtype F32, F16, BF16 or F64; data is in that dtype. */
typedef struct bal_safetensors_writer bal_safetensors_writer;
bal_status bal_safetensors_writer_new(bal_safetensors_writer **out);
bal_status bal_safetensors_writer_add(bal_safetensors_writer *w, const char *name, bal_dtype dtype, size_t n_dims,
                                      const size_t *shape, const void *data);
/* The same for real_t data, written as F32 (converted at commit in f64 builds). */
bal_status bal_safetensors_writer_add_real(bal_safetensors_writer *w, const char *name, size_t n_dims,
                                           const size_t *shape, const real_t *data);
/* The same for a tensor that is made while it is written: fn fills n_rows x (elements of a row), row 0 first, in
 * blocks; a row is everything but the first dimension.  Converted to dtype.  context must live until commit. */
typedef bal_status bal_fill_fn(void *context, size_t row0, size_t n_rows, real_t *out);
bal_status bal_safetensors_writer_add_fill(bal_safetensors_writer *w, const char *name, bal_dtype dtype, size_t n_dims,
                                           const size_t *shape, bal_fill_fn *fn, void *context);
bal_status bal_safetensors_writer_metadata(bal_safetensors_writer *w, const char *key, const char *value);
bal_status bal_safetensors_writer_commit(bal_safetensors_writer *w, const char *path);
void bal_safetensors_writer_free(bal_safetensors_writer *w);

#endif
