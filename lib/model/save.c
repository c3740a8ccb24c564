/* Writing a model as a Hugging Face folder: weights first, config.json last, so that an interrupted save is not taken
 * for a model.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/model/config.h"
#include "lib/model/model_impl.h"
#include "lib/text/tokenizer_gguf.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_SIDE_FILE = 1 << 28 };

/* What is copied when it lies beside the source. */
static const char *const k_side_files[] = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",      "vocab.json",
    "merges.txt",     "tokenizer.model",       "chat_template.jinja",     "generation_config.json",
};

/* The origin of one tensor's values while it is written. */
typedef struct tensor_source {
    const bal_linear *linear; /* of a matrix */
    const real_t *vector;     /* of a bias or norm */
    const bal_linear *owner;  /* of a bias, whose adapter may change it */
    bal_dtype dtype;
    char *name;
    bool turned;   /* the file has the matrix the other way round */
    real_t *whole; /* while a turned matrix is written */
} tensor_source;

/* Rows of the file are columns of the matrix: it is made whole once, with the adapter's change. */
static bal_status fill_turned(tensor_source *s, size_t row0, size_t n_rows, real_t *out)
{
    const bal_linear *l = s->linear;
    size_t rows = l->w.rows, cols = l->w.cols;
    if (s->whole == NULL) {
        s->whole = bal_alloc(rows * cols, sizeof *s->whole);
        if (s->whole == NULL)
            return BAL_ENOMEM;
        bal_linear_merged(l, 0, rows, s->whole);
    }
    for (size_t c = 0; c < n_rows; c++)
        for (size_t r = 0; r < rows; r++)
            out[c * rows + r] = s->whole[r * cols + row0 + c];
    if (row0 + n_rows == cols) {
        bal_free(s->whole);
        s->whole = NULL;
    }
    return BAL_OK;
}

static bal_status fill_tensor(void *context, size_t row0, size_t n_rows, real_t *out)
{
    tensor_source *s = context;
    size_t cols = s->linear == NULL ? 1 : s->turned ? s->linear->w.rows : s->linear->w.cols;
    if (s->turned) {
        bal_status status = fill_turned(s, row0, n_rows, out);
        if (status != BAL_OK)
            return status;
    } else if (s->linear != NULL) {
        bal_linear_merged(s->linear, row0, n_rows, out);
    } else {
        bal_vector_merged(s->owner, s->vector, row0, n_rows, out);
    }
    for (size_t i = 0; i < n_rows * cols; i++) {
        if (!isfinite(out[i]))
            return bal_fail(BAL_ENUMERIC, "element (%zu, %zu) of '%s' is not finite", row0 + i / cols, i % cols,
                            s->name);
        if (s->dtype == BAL_DTYPE_F16 && !(fabs((double)out[i]) < 65520))
            return bal_fail(BAL_ENUMERIC, "element (%zu, %zu) of '%s' is %g, too large for F16: write BF16 or F32",
                            row0 + i / cols, i % cols, s->name, (double)out[i]);
    }
    return BAL_OK;
}

typedef struct saver {
    bal_safetensors_writer *writer;
    tensor_source *sources;
    size_t *shards; /* of each part */
    size_t n, capacity, shard, n_shards;
    uint64_t in_shard, total, most; /* bytes */
    bal_buf *map;                   /* members of weight_map */
    bal_dtype dtype;
    const bal_model *m;
    bool conv1d;
} saver;

static bool is_turned(const saver *s, const bal_part *part)
{
    return s->conv1d && part->kind == BAL_PART_MATRIX && part->linear != &s->m->embed &&
           part->linear != &s->m->positions && part->linear != &s->m->head;
}

static bal_status count_part(void *context, const bal_part *part)
{
    saver *s = context;
    uint64_t bytes = (uint64_t)part->rows * part->cols * bal_dtype_block_bytes(s->dtype);
    if (s->in_shard > 0 && s->in_shard + bytes > s->most) {
        s->n_shards++;
        s->in_shard = 0;
    }
    s->in_shard += bytes;
    s->total += bytes;
    if (s->shards != NULL)
        s->shards[s->n] = s->n_shards;
    s->n++;
    return BAL_OK;
}

static void shard_name(const saver *s, size_t shard, char out[64])
{
    if (s->n_shards == 1)
        (void)snprintf(out, 64, "model.safetensors");
    else
        (void)snprintf(out, 64, "model-%05zu-of-%05zu.safetensors", shard, s->n_shards);
}

static bal_status add_part(void *context, const bal_part *part)
{
    saver *s = context;
    if (s->shards[s->n++] != s->shard)
        return BAL_OK;
    tensor_source *source = &s->sources[s->n - 1];
    bool turned = is_turned(s, part);
    const size_t shape[2] = {turned ? part->cols : part->rows, turned ? part->rows : part->cols};
    bool matrix = part->kind == BAL_PART_MATRIX;
    char file[64];
    *source = (tensor_source){.linear = matrix ? part->linear : NULL,
                              .vector = matrix ? NULL : *part->vector,
                              .owner = matrix ? NULL : part->linear,
                              .dtype = s->dtype,
                              .turned = turned,
                              .name = bal_strdup(part->name)};
    if (source->name == NULL)
        return BAL_ENOMEM;
    shard_name(s, s->shard, file);
    bal_status status = bal_buf_printf(s->map, "%s    \"%s\": \"%s\"", s->map->len > 0 ? ",\n" : "", part->name, file);
    if (status != BAL_OK)
        return status;
    return bal_safetensors_writer_add_fill(s->writer, part->name, s->dtype, matrix ? 2 : 1, matrix ? shape : shape + 1,
                                           fill_tensor, source);
}

static bal_status save_shard(saver *s, bal_model *m, const char *dir)
{
    char name[64];
    bal_status status;
    char *path = NULL;
    s->n = 0;
    s->writer = NULL;
    shard_name(s, s->shard, name);
    BAL_TRY(bal_safetensors_writer_new(&s->writer));
    BAL_TRY(bal_safetensors_writer_metadata(s->writer, "format", "pt"));
    BAL_TRY(bal_model_visit(m, add_part, s));
    path = bal_path_join(dir, name);
    if (path == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_safetensors_writer_commit(s->writer, path));
out:
    bal_safetensors_writer_free(s->writer);
    bal_free(path);
    return status;
}

static bal_status save_index(const saver *s, const char *dir)
{
    bal_buf text = {0};
    char *path = bal_path_join(dir, "model.safetensors.index.json");
    bal_status status = path == NULL ? BAL_ENOMEM
                                     : bal_buf_printf(&text,
                                                      "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n"
                                                      "  \"weight_map\": {\n",
                                                      (unsigned long long)s->total);
    if (status == BAL_OK)
        status = bal_buf_append(&text, s->map->data, s->map->len);
    if (status == BAL_OK)
        status = bal_buf_text(&text, "\n  }\n}\n");
    if (status == BAL_OK)
        status = bal_file_replace(path, text.data, text.len);
    bal_buf_dispose(&text);
    bal_free(path);
    return status;
}

static bal_status save_weights(const bal_model *m, const char *dir, bal_dtype dtype, uint64_t most)
{
    bal_buf map = {0};
    saver s = {.m = m,
               .conv1d = bal_family_by_model_type(m->config.model_type)->conv1d,
               .dtype = dtype,
               .most = most,
               .n_shards = 1,
               .map = &map};
    bal_status status;
    union { /* the visitors here only read */
        const bal_model *in;
        bal_model *out;
    } model = {m};
    BAL_TRY(bal_model_visit(model.out, count_part, &s));
    s.capacity = s.n;
    s.sources = bal_alloc(s.capacity, sizeof *s.sources);
    s.shards = bal_alloc(s.capacity, sizeof *s.shards);
    if (s.sources == NULL || s.shards == NULL)
        BAL_TRY(BAL_ENOMEM);
    s.n = s.in_shard = s.total = 0;
    s.n_shards = 1;
    BAL_TRY(bal_model_visit(model.out, count_part, &s));
    for (s.shard = 1; s.shard <= s.n_shards; s.shard++)
        BAL_TRY(save_shard(&s, model.out, dir));
    if (s.n_shards > 1)
        status = save_index(&s, dir);
out:
    for (size_t i = 0; s.sources != NULL && i < s.capacity; i++) {
        bal_free(s.sources[i].name);
        bal_free(s.sources[i].whole);
    }
    bal_free(s.sources);
    bal_free(s.shards);
    bal_buf_dispose(&map);
    return status;
}

/* A GGUF file has Llama 3's bands as a tensor of divisors; config.json needs the numbers that they came from. */
static bal_status recover_bands(const bal_model *m, bal_model_config *c)
{
    double want[2048], got[2048];
    size_t half = c->rotary_dim / 2;
    if (m->rope_factors == NULL)
        return BAL_OK;
    (void)bal_rope_frequencies(&m->config.rope, c->rotary_dim, 0, m->rope_factors, want);
    c->rope.kind = BAL_ROPE_LLAMA3;
    c->rope.factor = m->rope_factors[half - 1];
    c->rope.low_freq_factor = 1;
    c->rope.high_freq_factor = 4;
    for (c->rope.original_max_positions = 16; c->rope.original_max_positions <= 1 << 20;
         c->rope.original_max_positions *= 2) {
        bool same = true;
        (void)bal_rope_frequencies(&c->rope, c->rotary_dim, 0, NULL, got);
        for (size_t i = 0; i < half; i++)
            same = same && fabs(got[i] - want[i]) <= 1e-5 * want[i];
        if (same)
            return BAL_OK;
    }
    return bal_fail(BAL_EUNSUPPORTED,
                    "'%s': the rope frequencies of 'rope_freqs.weight' are not those of a known scaling, so that no "
                    "config.json can say them",
                    m->path);
}

static const char *dtype_word(bal_dtype dtype)
{
    return dtype == BAL_DTYPE_F16 ? "float16" : dtype == BAL_DTYPE_BF16 ? "bfloat16" : "float32";
}

/* The source's own config.json with what may have changed, or a new one. */
static bal_status config_text(const bal_model *m, bal_dtype dtype, bal_buf *out)
{
    const bal_model_source *source = m->source;
    bal_model_config c = m->config;
    cJSON *json = NULL;
    bal_status status;
    if (source == NULL || source->config_text == NULL) {
        BAL_TRY(recover_bands(m, &c));
        BAL_TRY(bal_config_to_json(out, &c, dtype_word(dtype)));
        goto out;
    }
    BAL_TRY(bal_json_parse(&json, source->config_text, strlen(source->config_text), "config.json"));
    BAL_TRY(bal_json_keep_numbers(json, source->config_text));
    const char *key = cJSON_GetObjectItemCaseSensitive(json, "dtype") != NULL ? "dtype" : "torch_dtype";
    cJSON_DeleteItemFromObjectCaseSensitive(json, key);
    cJSON_DeleteItemFromObjectCaseSensitive(json, "tie_word_embeddings");
    if (m->config.embed_width != 0) /* the projections are in embedding and head */
        cJSON_DeleteItemFromObjectCaseSensitive(json, "word_embed_proj_dim");
    if (cJSON_AddStringToObject(json, key, dtype_word(dtype)) == NULL ||
        cJSON_AddBoolToObject(json, "tie_word_embeddings", m->config.tied_head) == NULL) {
        status = bal_fail(BAL_ENOMEM, "out of memory while config.json was written");
        goto out;
    }
    BAL_TRY(bal_json_put(out, json, true));
    BAL_TRY(bal_buf_text(out, "\n"));
out:
    cJSON_Delete(json);
    return status;
}

static bal_status copy_file(const char *from_dir, const char *to_dir, const char *name)
{
    bal_buf content = {.limit = MAX_SIDE_FILE};
    bal_status status = BAL_OK;
    char *from = bal_path_join(from_dir, name), *to = bal_path_join(to_dir, name);
    if (from == NULL || to == NULL)
        status = BAL_ENOMEM;
    else if (bal_file_exists(from) && strcmp(from, to) != 0) {
        BAL_TRY(bal_file_read(from, MAX_SIDE_FILE, &content));
        BAL_TRY(bal_file_replace(to, bal_buf_cstr(&content), content.len));
    }
out:
    bal_buf_dispose(&content);
    bal_free(from);
    bal_free(to);
    return status;
}

static bal_status copy_side_files(const bal_model *m, const char *dir)
{
    bal_status status = BAL_OK;
    if (m->path[0] == '\0')
        return BAL_OK;
    char *from = bal_folder_exists(m->path) ? bal_strdup(m->path) : bal_path_dir(m->path);
    if (from == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < sizeof k_side_files / sizeof k_side_files[0]; i++)
        BAL_TRY(copy_file(from, dir, k_side_files[i]));
out:
    bal_free(from);
    return status;
}

/* A GGUF source has its tokenizer inside; files that lay beside it go first. */
static bal_status export_tokenizer(const bal_model *m, const char *dir, char *note, size_t note_bytes)
{
    const bal_model_source *source = m->source;
    char *path = bal_path_join(dir, "tokenizer.json");
    if (path == NULL)
        return BAL_ENOMEM;
    bool there = bal_file_exists(path);
    bal_free(path);
    note[0] = '\0';
    return there || source == NULL || source->gguf == NULL ? BAL_OK
                                                           : bal_tokenizer_export(source->gguf, dir, note, note_bytes);
}

/* config.json's text and the weights. */
static bal_status save_untied(const bal_model *m, const char *dir, bal_dtype dtype, uint64_t shard_bytes,
                              bal_buf *config)
{
    union { /* is put back as it was */
        const bal_model *in;
        bal_model *out;
    } model = {m};
    bool tied = bal_model_untie(model.out);
    bal_status status = config_text(m, dtype, config);
    if (status == BAL_OK)
        status = save_weights(m, dir, dtype, shard_bytes);
    model.out->config.tied_head = tied || m->config.tied_head;
    return status;
}

bal_dtype bal_model_dtype(const bal_model *m)
{
    bal_dtype t = bal_linear_own_w(&m->blocks[0].linear[BAL_SLOT_Q])->dtype;
    return t == BAL_DTYPE_F16 || t == BAL_DTYPE_BF16 ? t : BAL_DTYPE_F32;
}

bal_status bal_model_save(const bal_model *m, const char *dir, bal_dtype dtype)
{
    char note[512];
    return bal_model_save_sharded(m, dir, dtype, BAL_SHARD_BYTES, note, sizeof note);
}

bal_status bal_model_save_sharded(const bal_model *m, const char *dir, bal_dtype dtype, uint64_t shard_bytes,
                                  char *note, size_t note_bytes)
{
    bal_buf config = {0};
    bal_status status;
    char *json = bal_path_join(dir, "config.json");
    note[0] = '\0';
    if (json == NULL)
        return BAL_ENOMEM;
    if (dtype != BAL_DTYPE_F32 && dtype != BAL_DTYPE_F16 && dtype != BAL_DTYPE_BF16) {
        status = bal_fail(BAL_EINVAL, "a model is written as F32, F16 or BF16, not as %s", bal_dtype_name(dtype));
        goto out;
    }
    if (strcmp(dir, m->path) == 0) {
        status = bal_fail(BAL_EINVAL, "the model in '%s' is being read from there; write to another folder", dir);
        goto out;
    }
    BAL_TRY(bal_model_mergeable(m));
    BAL_TRY(bal_folder_make(dir));
    BAL_TRY(save_untied(m, dir, dtype, shard_bytes, &config));
    BAL_TRY(copy_side_files(m, dir));
    BAL_TRY(export_tokenizer(m, dir, note, note_bytes));
    BAL_TRY(bal_file_replace(json, bal_buf_cstr(&config), config.len));
out:
    bal_buf_dispose(&config);
    bal_free(json);
    return status;
}
