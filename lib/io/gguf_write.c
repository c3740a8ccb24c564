/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/gguf_write.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/tensor_list.h"

#include <math.h>
#include <string.h>

enum { ALIGNMENT = 32, BLOCK_VALUES = 1 << 20 };

static const unsigned char k_bytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}; /* by bal_gguf_type */

typedef struct pending { /* a tensor to write */
    bal_quant quant;
    bal_fill_fn *fill;
    bal_fill_bytes_fn *bytes;
    void *context;
} pending;

struct bal_gguf_writer {
    bal_buf values;
    uint64_t n_values;
    bal_tensor_list tensors;
    pending *pending;
    size_t cap;
};

bal_status bal_gguf_writer_new(bal_gguf_writer **out)
{
    *out = bal_alloc(1, sizeof **out);
    return *out != NULL ? BAL_OK : BAL_ENOMEM;
}

void bal_gguf_writer_free(bal_gguf_writer *w)
{
    if (w == NULL)
        return;
    bal_buf_dispose(&w->values);
    bal_tensor_list_dispose(&w->tensors);
    bal_free(w->pending);
    bal_free(w);
}

static bal_status put_u32(bal_buf *b, uint32_t v)
{
    return bal_buf_append(b, &v, sizeof v);
}

static bal_status put_u64(bal_buf *b, uint64_t v)
{
    return bal_buf_append(b, &v, sizeof v);
}

static bal_status put_text(bal_buf *b, const char *text, size_t n)
{
    bal_status status = put_u64(b, n);
    return status == BAL_OK ? bal_buf_append(b, text, n) : status;
}

/* Key and type; an array also has the type of its elements and their number. */
static bal_status begin_value(bal_gguf_writer *w, const char *key, bal_gguf_type type, bool array, size_t n)
{
    bal_status status;
    BAL_TRY(put_text(&w->values, key, strlen(key)));
    if (array)
        BAL_TRY(put_u32(&w->values, BAL_GGUF_ARRAY));
    BAL_TRY(put_u32(&w->values, (uint32_t)type));
    if (array)
        BAL_TRY(put_u64(&w->values, n));
    w->n_values++;
out:
    return status;
}

static bal_status put_scalar(bal_gguf_writer *w, const char *key, bal_gguf_type type, const void *bytes)
{
    bal_status status = begin_value(w, key, type, false, 1);
    return status == BAL_OK ? bal_buf_append(&w->values, bytes, k_bytes[type]) : status;
}

bal_status bal_gguf_writer_text(bal_gguf_writer *w, const char *key, const char *text)
{
    bal_status status = begin_value(w, key, BAL_GGUF_TEXT, false, 1);
    return status == BAL_OK ? put_text(&w->values, text, strlen(text)) : status;
}

bal_status bal_gguf_writer_u32(bal_gguf_writer *w, const char *key, uint32_t value)
{
    return put_scalar(w, key, BAL_GGUF_U32, &value);
}

bal_status bal_gguf_writer_f32(bal_gguf_writer *w, const char *key, double value)
{
    float v = (float)value;
    return put_scalar(w, key, BAL_GGUF_F32, &v);
}

bal_status bal_gguf_writer_bool(bal_gguf_writer *w, const char *key, bool value)
{
    unsigned char v = value ? 1 : 0;
    return put_scalar(w, key, BAL_GGUF_BOOL, &v);
}

bal_status bal_gguf_writer_i32s(bal_gguf_writer *w, const char *key, const int32_t *values, size_t n)
{
    bal_status status = begin_value(w, key, BAL_GGUF_I32, true, n);
    return status == BAL_OK ? bal_buf_append(&w->values, values, n * sizeof *values) : status;
}

bal_status bal_gguf_writer_texts(bal_gguf_writer *w, const char *key, const bal_gguf_text *texts, size_t n)
{
    bal_status status = begin_value(w, key, BAL_GGUF_TEXT, true, n);
    for (size_t i = 0; i < n && status == BAL_OK; i++)
        status = put_text(&w->values, texts[i].data, texts[i].n);
    return status;
}

bal_status bal_gguf_writer_copy(bal_gguf_writer *w, const bal_gguf_value *v)
{
    bal_status status = begin_value(w, v->key, v->type, v->is_array, v->n);
    if (status == BAL_OK && v->type != BAL_GGUF_TEXT)
        return bal_buf_append(&w->values, v->data, v->n * k_bytes[v->type]);
    for (size_t i = 0; i < v->n && status == BAL_OK; i++)
        status = put_text(&w->values, v->texts[i].data, v->texts[i].n);
    return status;
}

static bal_status add(bal_gguf_writer *w, const char *name, bal_quant quant, size_t n_dims, const size_t *shape,
                      pending how)
{
    const bal_quant_info *info = bal_quant_of(quant);
    bal_tensor t = {.dtype = BAL_DTYPE_COUNT, .n_dims = n_dims, .file = "output"};
    if (n_dims < 1 || n_dims > 2)
        return bal_fail(BAL_EINVAL, "tensor '%s' has %zu dimensions; 1 or 2 are written", name, n_dims);
    memcpy(t.shape, shape, n_dims * sizeof *shape);
    if (shape[n_dims - 1] % info->block != 0)
        return bal_fail(BAL_EINVAL, "tensor '%s': rows of %zu do not consist of whole %s blocks of %zu", name,
                        shape[n_dims - 1], info->name, info->block);
    if (!bal_tensor_count_elements(&t) || !bal_mul_size(t.n_elements / info->block, info->bytes, &t.n_bytes))
        return bal_fail(BAL_ELIMIT, "tensor '%s' is too large", name);
    if (w->tensors.n == w->cap) {
        size_t cap = w->cap == 0 ? 64 : 2 * w->cap;
        pending *grown = bal_realloc(w->pending, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        w->pending = grown;
        w->cap = cap;
    }
    w->pending[w->tensors.n] = how;
    return bal_tensor_list_add(&w->tensors, &t, name, strlen(name));
}

bal_status bal_gguf_writer_tensor(bal_gguf_writer *w, const char *name, bal_quant quant, size_t n_dims,
                                  const size_t *shape, bal_fill_fn *fn, void *context)
{
    return add(w, name, quant, n_dims, shape, (pending){quant, fn, NULL, context});
}

bal_status bal_gguf_writer_bytes(bal_gguf_writer *w, const char *name, bal_quant quant, size_t n_dims,
                                 const size_t *shape, bal_fill_bytes_fn *fn, void *context)
{
    return add(w, name, quant, n_dims, shape, (pending){quant, NULL, fn, context});
}

static size_t aligned(size_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static bal_status put_entry(const bal_tensor *t, const pending *p, size_t at, bal_buf *b)
{
    bal_status status;
    BAL_TRY(put_text(b, t->name, strlen(t->name)));
    BAL_TRY(put_u32(b, (uint32_t)t->n_dims));
    for (size_t d = t->n_dims; d-- > 0;) /* innermost first */
        BAL_TRY(put_u64(b, t->shape[d]));
    BAL_TRY(put_u32(b, bal_quant_of(p->quant)->id));
    status = put_u64(b, at);
out:
    return status;
}

static bal_status put_table(const bal_gguf_writer *w, bal_buf *b)
{
    bal_status status;
    size_t at = 0;
    BAL_TRY(bal_buf_append(b, "GGUF", 4));
    BAL_TRY(put_u32(b, 3));
    BAL_TRY(put_u64(b, w->tensors.n));
    BAL_TRY(put_u64(b, w->n_values));
    BAL_TRY(bal_buf_append(b, w->values.data, w->values.len));
    for (size_t i = 0; i < w->tensors.n; i++) {
        BAL_TRY(put_entry(&w->tensors.items[i], &w->pending[i], at, b));
        at += aligned(w->tensors.items[i].n_bytes);
    }
    while (b->len % ALIGNMENT != 0)
        BAL_TRY(bal_buf_append(b, "", 1));
out:
    return status;
}

static bal_status quantize_rows(const bal_tensor *t, const pending *p, const real_t *values, size_t n_rows, size_t cols,
                                float *row, unsigned char *out)
{
    size_t bytes = cols / bal_quant_of(p->quant)->block * bal_quant_of(p->quant)->bytes;
    bool halves = p->quant != BAL_QUANT_F32 && p->quant != BAL_QUANT_BF16; /* values, or scales of blocks */
    for (size_t r = 0; r < n_rows; r++) {
        for (size_t i = 0; i < cols; i++) {
            row[i] = (float)values[r * cols + i];
            if (!isfinite(row[i]))
                return bal_fail(BAL_ENUMERIC, "tensor '%s' holds a value that is not finite", t->name);
            if (halves && !(fabsf(row[i]) < 65520))
                return bal_fail(BAL_ENUMERIC, "tensor '%s' holds %g, too large for %s: write bf16 or f32", t->name,
                                (double)row[i], bal_quant_of(p->quant)->name);
        }
        bal_quantize_row(p->quant, row, cols, out + r * bytes);
    }
    return BAL_OK;
}

/* Rows r..r+n of a tensor as the file holds them.  A vector is one row here and n elements for its filler. */
static bal_status fill_rows(const bal_tensor *t, const pending *p, size_t r, size_t n, real_t *values, float *row,
                            unsigned char *bytes)
{
    size_t cols = t->shape[t->n_dims - 1];
    bool vector = t->n_dims == 1;
    if (p->bytes != NULL)
        return p->bytes(p->context, r, n, bytes);
    bal_status status = p->fill(p->context, vector ? 0 : r, vector ? cols : n, values);
    return status != BAL_OK ? status : quantize_rows(t, p, values, n, cols, row, bytes);
}

static bal_status write_filled(bal_writer *out, const bal_tensor *t, const pending *p)
{
    const bal_quant_info *info = bal_quant_of(p->quant);
    size_t cols = t->shape[t->n_dims - 1], some = cols > 0 ? cols : 1, rows = t->n_elements / some;
    size_t block = BLOCK_VALUES / some + 1;
    block = block < rows ? block : rows;
    bal_status status = BAL_OK;
    real_t *values = bal_alloc(block * cols, sizeof *values);
    float *row = bal_alloc(cols, sizeof *row);
    unsigned char *bytes = bal_alloc(block * (cols / info->block), info->bytes);
    if (values == NULL || row == NULL || bytes == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t r = 0; r < rows; r += block) {
        size_t n = rows - r < block ? rows - r : block;
        BAL_TRY(fill_rows(t, p, r, n, values, row, bytes));
        BAL_TRY(bal_writer_write(out, bytes, n * (cols / info->block) * info->bytes));
    }
out:
    bal_free(values);
    bal_free(row);
    bal_free(bytes);
    return status;
}

bal_status bal_gguf_writer_commit(bal_gguf_writer *w, const char *path)
{
    static const unsigned char zeros[ALIGNMENT] = {0};
    bal_writer out = {0};
    bal_buf table = {0};
    bal_status status;
    BAL_TRY(bal_tensor_list_index(&w->tensors)); /* refuses equal names */
    BAL_TRY(put_table(w, &table));
    BAL_TRY(bal_writer_open(&out, path));
    BAL_TRY(bal_writer_write(&out, table.data, table.len));
    for (size_t i = 0; i < w->tensors.n; i++) {
        const bal_tensor *t = &w->tensors.items[i];
        BAL_TRY(write_filled(&out, t, &w->pending[i]));
        BAL_TRY(bal_writer_write(&out, zeros, aligned(t->n_bytes) - t->n_bytes));
    }
    status = bal_writer_commit(&out);
out:
    bal_writer_abort(&out);
    bal_buf_dispose(&table);
    return status;
}
