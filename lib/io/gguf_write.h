/* Writing GGUF version 3: values and tensors are declared, then all is written in one go.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_GGUF_WRITE_H
#define BAL_IO_GGUF_WRITE_H

#include "lib/io/gguf.h"
#include "lib/tensor/quantize.h"

typedef struct bal_gguf_writer bal_gguf_writer;

bal_status bal_gguf_writer_new(bal_gguf_writer **out);
void bal_gguf_writer_free(bal_gguf_writer *w); /* accepts NULL */
/* Values, in this order. */
bal_status bal_gguf_writer_text(bal_gguf_writer *w, const char *key, const char *text);
bal_status bal_gguf_writer_u32(bal_gguf_writer *w, const char *key, uint32_t value);
bal_status bal_gguf_writer_f32(bal_gguf_writer *w, const char *key, double value);
bal_status bal_gguf_writer_bool(bal_gguf_writer *w, const char *key, bool value);
bal_status bal_gguf_writer_i32s(bal_gguf_writer *w, const char *key, const int32_t *values, size_t n);
bal_status bal_gguf_writer_texts(bal_gguf_writer *w, const char *key, const bal_gguf_text *texts, size_t n);
/* A value of another file as it is. */
bal_status bal_gguf_writer_copy(bal_gguf_writer *w, const bal_gguf_value *value);
/* A tensor in Hugging Face's order of dimensions (rows first; 1 or 2 of them), made while it is written: fn fills
 * rows in order.  A row that does not consist of whole blocks of `quant` is BAL_EINVAL.  context lives until commit. */
bal_status bal_gguf_writer_tensor(bal_gguf_writer *w, const char *name, bal_quant quant, size_t n_dims,
                                  const size_t *shape, bal_fill_fn *fn, void *context);
/* The same with the bytes of the rows themselves: fn fills n_rows rows, in order. */
typedef bal_status bal_fill_bytes_fn(void *context, size_t row0, size_t n_rows, unsigned char *out);
bal_status bal_gguf_writer_bytes(bal_gguf_writer *w, const char *name, bal_quant quant, size_t n_dims,
                                 const size_t *shape, bal_fill_bytes_fn *fn, void *context);
/* Writes beside path and renames.  BAL_ENUMERIC for a value that is not finite. */
bal_status bal_gguf_writer_commit(bal_gguf_writer *w, const char *path);

#endif
