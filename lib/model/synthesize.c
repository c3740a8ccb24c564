/* Random models of any size: what a run will need can be tried before the weights are fetched.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/model/config.h"
#include "lib/model/gguf_names.h"
#include "lib/model/model_impl.h"
#include "lib/model/save_gguf.h"

#include <math.h>
#include <string.h>

enum { MAX_NAME = 192, Q4_BLOCK = 18 };

typedef struct source {
    bal_rng rng;
    size_t cols;
    bal_quant quant;
    double sd;
    real_t value; /* of a vector */
} source;

typedef struct synthesis {
    const bal_model *m;
    const bal_family *family;
    bal_gguf_writer *writer;
    source *sources;
    size_t n;
    bal_quant quant;
    uint64_t seed;
} synthesis;

/* Uniform numbers of the wanted standard deviation: sixteen bits a number in bf16; in Q4_0 every nibble is random, and
 * q - 8 has the variance (16^2 - 1) / 12 around -0.5; the sign of a block's scale is random too, so that the mean of a
 * row is near 0 (a common part of all weights would let gradients vanish into subnormal numbers, which are slow). */
static bal_status fill_random(void *context, size_t row0, size_t n_rows, unsigned char *out)
{
    source *s = context;
    size_t n = n_rows * s->cols;
    uint64_t bits = 0;
    (void)row0;
    if (s->quant == BAL_QUANT_Q4_0) {
        uint16_t d = bal_f32_to_f16((float)(s->sd / sqrt(255.0 / 12)));
        for (size_t b = 0; b < n / 32; b++, out += Q4_BLOCK) {
            uint64_t nibbles[2] = {bal_rng_next(&s->rng), bal_rng_next(&s->rng)};
            uint16_t signed_d = (uint16_t)(d | (bal_rng_next(&s->rng) >> 63) << 15);
            memcpy(out, &signed_d, sizeof signed_d);
            memcpy(out + sizeof d, nibbles, sizeof nibbles);
        }
        return BAL_OK;
    }
    float width = (float)(s->sd * sqrt(12.0));
    for (size_t i = 0; i < n; i++) {
        bits = i % 4 == 0 ? bal_rng_next(&s->rng) : bits >> 16;
        uint16_t half = bal_f32_to_bf16(width * ((float)(bits & 65535) / 65536 - 0.5F));
        memcpy(out + 2 * i, &half, sizeof half);
    }
    return BAL_OK;
}

static bal_status fill_vector(void *context, size_t row0, size_t n_rows, real_t *out)
{
    const source *s = context;
    (void)row0;
    for (size_t i = 0; i < n_rows; i++)
        out[i] = s->value;
    return BAL_OK;
}

static bal_status count_part(void *context, const bal_part *part)
{
    (void)part;
    ((synthesis *)context)->n++;
    return BAL_OK;
}

static bal_status add_part(void *context, const bal_part *part)
{
    synthesis *s = context;
    source *from = &s->sources[s->n++];
    const size_t shape[2] = {part->rows, part->cols};
    char name[MAX_NAME];
    if (!bal_gguf_name(s->family, part->name, name, sizeof name))
        return bal_fail(BAL_EUNSUPPORTED, "tensor '%s' has no name in GGUF files of the architecture %s", part->name,
                        s->family->architecture);
    *from = (source){.cols = part->cols,
                     .quant = s->quant,
                     .sd = s->m->config.initializer_range,
                     .value = part->kind == BAL_PART_NORM ? 1 : 0};
    bal_rng_init(&from->rng, s->seed, part->name);
    if (part->kind != BAL_PART_MATRIX)
        return bal_gguf_writer_tensor(s->writer, name, BAL_QUANT_F32, 1, shape + 1, fill_vector, from);
    return bal_gguf_writer_bytes(s->writer, name, s->quant, 2, shape, fill_random, from);
}

bal_status bal_model_synthesize(const char *config_json, const char *path, bal_quant quant, uint64_t seed)
{
    bal_model_config config;
    bal_model *m = NULL;
    cJSON *json = NULL;
    synthesis s = {.quant = quant, .seed = seed};
    bal_status status;
    if (quant != BAL_QUANT_BF16 && quant != BAL_QUANT_Q4_0)
        return bal_fail(BAL_EINVAL, "random weights are written as bf16 or q4_0, not as %s", bal_quant_of(quant)->name);
    BAL_TRY(bal_json_parse(&json, config_json, strlen(config_json), "the model's configuration"));
    BAL_TRY(bal_config_from_json(&config, &s.family, json, "the model's configuration"));
    if (config.embed_width != 0)
        BAL_TRY(bal_fail(BAL_EUNSUPPORTED, "a new model has word_embed_proj_dim equal to hidden_size (%zu, %zu)",
                         config.embed_width, config.hidden));
    if (s.family->architecture == NULL || s.family->norm != BAL_NORM_RMS || config.window != 0 ||
        config.rope.kind == BAL_ROPE_LLAMA3)
        BAL_TRY(bal_fail(BAL_EUNSUPPORTED,
                         "random models of the type %s%s are not written; take a llama without scaling",
                         config.model_type, config.rope.kind == BAL_ROPE_LLAMA3 ? " with Llama 3's rope bands" : ""));
    BAL_TRY(bal_model_allocate(&m, &config, s.family, ""));
    s.m = m;
    BAL_TRY(bal_gguf_writer_new(&s.writer));
    BAL_TRY(bal_gguf_put_config(m, s.family, s.writer));
    BAL_TRY(bal_gguf_writer_u32(s.writer, "general.file_type", bal_quant_of(quant)->file_type));
    BAL_TRY(bal_model_visit(m, count_part, &s));
    s.sources = bal_alloc(s.n, sizeof *s.sources);
    if (s.sources == NULL)
        BAL_TRY(BAL_ENOMEM);
    s.n = 0;
    BAL_TRY(bal_model_visit(m, add_part, &s));
    BAL_TRY(bal_gguf_writer_commit(s.writer, path));
out:
    bal_gguf_writer_free(s.writer);
    bal_free(s.sources);
    bal_model_free(m);
    cJSON_Delete(json);
    return status;
}
