/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/tensor_list.h"

#include <stdlib.h>
#include <string.h>

/* Where the values of a tensor come from, when not from memory in the tensor's own type. */
typedef struct origin {
    bool is_real; /* data is real_t, whatever the dtype says */
    bal_fill_fn *fill;
    void *context;
} origin;

struct bal_safetensors_writer {
    bal_tensor_list tensors;
    origin *origins;
    size_t cap;
    bal_buf metadata; /* members of "__metadata__", comma-separated */
    bool no_metadata;
};

bal_status bal_safetensors_writer_new(bal_safetensors_writer **out)
{
    *out = bal_alloc(1, sizeof **out);
    if (*out == NULL)
        return BAL_ENOMEM;
    (*out)->no_metadata = true;
    return BAL_OK;
}

static bal_status add(bal_safetensors_writer *w, const char *name, bal_dtype dtype, size_t n_dims, const size_t *shape,
                      const void *data, origin from)
{
    bal_tensor t = {.dtype = dtype, .n_dims = n_dims, .data = data, .file = "output"};
    if (n_dims > BAL_MAX_DIMS)
        return bal_fail(BAL_EINVAL, "tensor '%s' has %zu dimensions; at most %d are possible", name, n_dims,
                        BAL_MAX_DIMS);
    if (dtype != BAL_DTYPE_F32 && dtype != BAL_DTYPE_F16 && dtype != BAL_DTYPE_BF16 && dtype != BAL_DTYPE_F64)
        return bal_fail(BAL_EUNSUPPORTED, "tensor '%s': type %s cannot be written to safetensors", name,
                        bal_dtype_name(dtype));
    if (n_dims > 0)
        memcpy(t.shape, shape, n_dims * sizeof *shape);
    if (!bal_tensor_count_elements(&t) || !bal_mul_size(t.n_elements, bal_dtype_block_bytes(dtype), &t.n_bytes))
        return bal_fail(BAL_ELIMIT, "tensor '%s' is too large", name);
    if (w->tensors.n == w->cap) {
        size_t cap = w->cap == 0 ? 64 : 2 * w->cap;
        origin *grown = bal_realloc(w->origins, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        w->origins = grown;
        w->cap = cap;
    }
    w->origins[w->tensors.n] = from;
    return bal_tensor_list_add(&w->tensors, &t, name, strlen(name));
}

bal_status bal_safetensors_writer_add(bal_safetensors_writer *w, const char *name, bal_dtype dtype, size_t n_dims,
                                      const size_t *shape, const void *data)
{
    return add(w, name, dtype, n_dims, shape, data, (origin){0});
}

bal_status bal_safetensors_writer_add_real(bal_safetensors_writer *w, const char *name, size_t n_dims,
                                           const size_t *shape, const real_t *data)
{
    return add(w, name, BAL_DTYPE_F32, n_dims, shape, data, (origin){.is_real = true});
}

bal_status bal_safetensors_writer_add_fill(bal_safetensors_writer *w, const char *name, bal_dtype dtype, size_t n_dims,
                                           const size_t *shape, bal_fill_fn *fn, void *context)
{
    return add(w, name, dtype, n_dims, shape, NULL, (origin){.fill = fn, .context = context});
}

bal_status bal_safetensors_writer_metadata(bal_safetensors_writer *w, const char *key, const char *value)
{
    bal_status status = bal_json_put_key(&w->metadata, key, &w->no_metadata);
    return status != BAL_OK ? status : bal_json_put_text(&w->metadata, value);
}

static bal_status put_tensor(bal_buf *b, const bal_tensor *t, size_t begin)
{
    bal_status status;
    BAL_TRY(bal_json_put_text(b, t->name));
    BAL_TRY(bal_buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[", bal_dtype_name(t->dtype)));
    for (size_t d = 0; d < t->n_dims; d++)
        BAL_TRY(bal_buf_printf(b, d == 0 ? "%zu" : ",%zu", t->shape[d]));
    status = bal_buf_printf(b, "],\"data_offsets\":[%zu,%zu]}", begin, begin + t->n_bytes);
out:
    return status;
}

/* Larger elements first, so that each tensor is aligned to its element; otherwise as declared. */
static int compare_order(const void *a, const void *b, void *context)
{
    const bal_tensor *items = context;
    size_t i = *(const size_t *)a, j = *(const size_t *)b;
    size_t x = bal_dtype_block_bytes(items[i].dtype), y = bal_dtype_block_bytes(items[j].dtype);
    if (x != y)
        return x > y ? -1 : 1;
    return i < j ? -1 : i > j;
}

/* The header with its length in front, padded so that the data begins at a multiple of 8. */
static bal_status put_header(const bal_safetensors_writer *w, const size_t *order, bal_buf *b)
{
    uint64_t n = 0;
    size_t at = 0;
    bool first = true;
    bal_status status;
    BAL_TRY(bal_buf_append(b, &n, sizeof n));
    BAL_TRY(bal_buf_text(b, "{"));
    if (!w->no_metadata) {
        BAL_TRY(bal_buf_printf(b, "\"__metadata__\":{%s}", bal_buf_cstr(&w->metadata)));
        first = false;
    }
    for (size_t i = 0; i < w->tensors.n; i++) {
        const bal_tensor *t = &w->tensors.items[order[i]];
        if (!first)
            BAL_TRY(bal_buf_text(b, ","));
        first = false;
        BAL_TRY(put_tensor(b, t, at));
        if (!bal_add_size(at, t->n_bytes, &at))
            return bal_fail(BAL_ELIMIT, "the tensors are too large for one file");
    }
    BAL_TRY(bal_buf_text(b, "}"));
    while (b->len % 8 != 0)
        BAL_TRY(bal_buf_text(b, " "));
    n = b->len - sizeof n;
    memcpy(b->data, &n, sizeof n);
out:
    return status;
}

/* n values as dtype, in place over a buffer of at least 8 n bytes. */
static void narrow(bal_dtype dtype, const real_t *in, size_t n, void *out)
{
    float *f32 = out;
    double *f64 = out;
    uint16_t *half = out;
    for (size_t i = 0; i < n; i++) {
        if (dtype == BAL_DTYPE_F64)
            f64[i] = (double)in[i];
        else if (dtype == BAL_DTYPE_F32)
            f32[i] = (float)in[i];
        else
            half[i] = dtype == BAL_DTYPE_F16 ? bal_f32_to_f16((float)in[i]) : bal_f32_to_bf16((float)in[i]);
    }
}

static bal_status write_converted(bal_writer *out, bal_dtype dtype, const real_t *data, size_t n)
{
    double part[1024];
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK; i += 1024) {
        size_t m = n - i < 1024 ? n - i : 1024;
        narrow(dtype, data + i, m, part);
        status = bal_writer_write(out, part, m * bal_dtype_block_bytes(dtype));
    }
    return status;
}

/* Blocks of about a million values, at least one row. */
static bal_status write_filled(bal_writer *out, const bal_tensor *t, const origin *from)
{
    size_t rows = t->n_dims == 0 ? 1 : t->shape[0], cols = rows == 0 ? 0 : t->n_elements / rows;
    if (t->n_elements == 0)
        return BAL_OK;
    size_t block = ((size_t)1 << 20) / (cols > 0 ? cols : 1) + 1;
    block = block < rows ? block : rows;
    bal_status status = BAL_OK;
    real_t *values = bal_alloc(block * cols, sizeof *values);
    if (values == NULL)
        return BAL_ENOMEM;
    for (size_t r = 0; r < rows && status == BAL_OK; r += block) {
        size_t n = rows - r < block ? rows - r : block;
        status = from->fill(from->context, r, n, values);
        if (status == BAL_OK)
            status = write_converted(out, t->dtype, values, n * cols);
    }
    bal_free(values);
    return status;
}

static bal_status write_data(bal_writer *out, const bal_tensor *t, const origin *from)
{
    if (from->fill != NULL)
        return write_filled(out, t, from);
    if (!BAL_REAL_IS_DOUBLE || !from->is_real)
        return bal_writer_write(out, t->data, t->n_bytes);
    return write_converted(out, t->dtype, t->data, t->n_elements);
}

bal_status bal_safetensors_writer_commit(bal_safetensors_writer *w, const char *path)
{
    bal_writer out = {0};
    bal_buf header = {0};
    bal_status status;
    size_t n = w->tensors.n, *order = bal_alloc(n, sizeof *order);
    if (order == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    if (n > 1)
        qsort_r(order, n, sizeof *order, compare_order, w->tensors.items);
    BAL_TRY(bal_tensor_list_index(&w->tensors)); /* refuses equal names */
    BAL_TRY(put_header(w, order, &header));
    BAL_TRY(bal_writer_open(&out, path));
    BAL_TRY(bal_writer_write(&out, header.data, header.len));
    for (size_t i = 0; i < n; i++)
        BAL_TRY(write_data(&out, &w->tensors.items[order[i]], &w->origins[order[i]]));
    status = bal_writer_commit(&out);
out:
    bal_writer_abort(&out);
    bal_buf_dispose(&header);
    bal_free(order);
    return status;
}

void bal_safetensors_writer_free(bal_safetensors_writer *w)
{
    if (w == NULL)
        return;
    bal_tensor_list_dispose(&w->tensors);
    bal_free(w->origins);
    bal_buf_dispose(&w->metadata);
    bal_free(w);
}
