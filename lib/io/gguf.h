/* GGUF version 2 and 3, little endian, read through a map.  Every length is checked against what remains.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_GGUF_H
#define BAL_IO_GGUF_H

#include "lib/base/status.h"
#include "lib/io/safetensors.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum bal_gguf_type {
    BAL_GGUF_U8,
    BAL_GGUF_I8,
    BAL_GGUF_U16,
    BAL_GGUF_I16,
    BAL_GGUF_U32,
    BAL_GGUF_I32,
    BAL_GGUF_F32,
    BAL_GGUF_BOOL,
    BAL_GGUF_TEXT,
    BAL_GGUF_ARRAY,
    BAL_GGUF_U64,
    BAL_GGUF_I64,
    BAL_GGUF_F64
} bal_gguf_type;

/* Text is not NUL-terminated in the file: pointer and length into the map. */
typedef struct bal_gguf_text {
    const char *data;
    size_t n;
} bal_gguf_text;

typedef struct bal_gguf_value {
    const char *key;    /* NUL-terminated copy */
    bal_gguf_type type; /* of the value, or of an array's elements */
    bool is_array;
    size_t n;                   /* elements; 1 for a scalar */
    const void *data;           /* raw little-endian scalars in the map (unaligned); NULL for texts */
    const bal_gguf_text *texts; /* for texts: n of them */
} bal_gguf_value;

typedef struct bal_gguf bal_gguf;

bal_status bal_gguf_open(bal_gguf **out, const char *path);
/* The same for a file image in memory (fuzzing); bytes must outlive the handle. */
bal_status bal_gguf_parse(bal_gguf **out, const void *bytes, size_t n_bytes);
/* The one .gguf file of a folder, allocated; NULL when there is none.  BAL_EINVAL, naming them, for several. */
bal_status bal_gguf_in_folder(char **out, const char *dir);
void bal_gguf_close(bal_gguf *g);
uint32_t bal_gguf_version(const bal_gguf *g);
size_t bal_gguf_count_values(const bal_gguf *g);
const bal_gguf_value *bal_gguf_value_at(const bal_gguf *g, size_t i);
const bal_gguf_value *bal_gguf_find(const bal_gguf *g, const char *key);
/* Scalars of any integer or float type; *found as in json.h; wrong type is BAL_EFORMAT. */
bal_status bal_gguf_i64(const bal_gguf *g, const char *key, int64_t *out, bool *found);
bal_status bal_gguf_f64(const bal_gguf *g, const char *key, double *out, bool *found);
/* NUL-terminated copy owned by g; NULL if absent or no text. */
const char *bal_gguf_text_of(const bal_gguf *g, const char *key);
double bal_gguf_element(const bal_gguf_value *v, size_t i); /* number i of a numeric value */

/* Tensors: shape is given in Hugging Face's order (rows first), so GGUF's ne = [in, out] is {out, in}. */
size_t bal_gguf_count_tensors(const bal_gguf *g);
const bal_tensor *bal_gguf_tensor_at(const bal_gguf *g, size_t i);
const bal_tensor *bal_gguf_tensor(const bal_gguf *g, const char *name);

#endif
