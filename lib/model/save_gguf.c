/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/save_gguf.h"

#include "lib/adapter/method.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/gguf_write.h"
#include "lib/model/gguf_names.h"
#include "lib/model/model_impl.h"
#include "lib/text/tokenizer_gguf.h"

#include <stdio.h>
#include <string.h>

enum { MAX_NAME = 192 };

/* The origin of one tensor's values while it is written. */
typedef struct source {
    const bal_linear *linear;
    const real_t *vector;
    const bal_linear *owner; /* of a bias, whose adapter may change it */
    size_t turned;           /* head size when rows change places */
    real_t factor;           /* of the values, for what the file cannot say otherwise */
    real_t plus;             /* then added to a vector: the 1 of a norm, times the factor */
} source;

typedef struct saver {
    const bal_model *m;
    const bal_family *family;
    bal_gguf_writer *writer;
    source *sources;
    size_t n, capacity;
    bal_quant quant;
    bal_gguf_report *report;
} saver;

static void fill_matrix(const source *s, size_t row0, size_t n_rows, real_t *out)
{
    size_t cols = s->linear->w.cols;
    if (s->turned == 0) {
        bal_linear_merged(s->linear, row0, n_rows, out);
        return;
    }
    for (size_t i = 0; i < n_rows; i++)
        bal_linear_merged(s->linear, bal_gguf_row(row0 + i, s->turned), 1, out + i * cols);
}

static bal_status fill_tensor(void *context, size_t row0, size_t n_rows, real_t *out)
{
    const source *s = context;
    if (s->linear == NULL) {
        for (size_t i = 0; i < n_rows; i++) {
            bal_vector_merged(s->owner, s->vector, bal_gguf_row(row0 + i, s->turned), 1, &out[i]);
            out[i] = s->factor * out[i] + s->plus;
        }
        return BAL_OK;
    }
    fill_matrix(s, row0, n_rows, out);
    for (size_t i = 0; s->factor != 1 && i < n_rows * s->linear->w.cols; i++)
        out[i] *= s->factor;
    return BAL_OK;
}

static bal_status count_part(void *context, const bal_part *part)
{
    (void)part;
    ((saver *)context)->capacity++;
    return BAL_OK;
}

/* The type of a matrix: what was asked for, or the nearest that its rows allow. */
static bal_quant quant_for(const saver *s, const bal_part *part)
{
    bool outer = part->linear == &s->m->embed || part->linear == &s->m->head;
    bal_quant q = s->quant;
    if (outer && (q == BAL_QUANT_Q4_0 || q == BAL_QUANT_Q4_1 || q == BAL_QUANT_Q4_K))
        q = BAL_QUANT_Q6_K;
    if (part->cols % bal_quant_of(q)->block != 0)
        q = BAL_QUANT_Q8_0;
    return part->cols % bal_quant_of(q)->block == 0 ? q : BAL_QUANT_F16;
}

static bal_status add_part(void *context, const bal_part *part)
{
    saver *s = context;
    source *from = &s->sources[s->n++];
    char name[MAX_NAME];
    bool matrix = part->kind == BAL_PART_MATRIX;
    const size_t shape[2] = {part->rows, part->cols};
    if (!bal_gguf_name(s->family, part->name, name, sizeof name))
        return bal_fail(BAL_EUNSUPPORTED, "tensor '%s' has no name in GGUF files of the architecture %s", part->name,
                        s->family->architecture);
    double factor = bal_gguf_factor(s->m, s->family, part->name);
    *from = (source){.linear = matrix ? part->linear : NULL,
                     .vector = matrix ? NULL : *part->vector,
                     .owner = matrix ? NULL : part->linear,
                     .turned = bal_gguf_turned(s->m, s->family, part->name),
                     .factor = (real_t)factor,
                     .plus = part->kind == BAL_PART_NORM && s->family->gguf_norm_plus ? (real_t)factor : 0};
    bool whole = !matrix || part->linear == &s->m->positions; /* llama.cpp keeps learned positions in F32, too */
    bal_quant q = whole ? BAL_QUANT_F32 : quant_for(s, part);
    s->report->n_tensors++;
    if (!whole && part->cols % bal_quant_of(s->quant)->block != 0) {
        s->report->n_replaced++;
        (void)snprintf(s->report->replaced_by, sizeof s->report->replaced_by, "%s", bal_quant_of(q)->name);
    }
    return bal_gguf_writer_tensor(s->writer, name, q, matrix ? 2 : 1, matrix ? shape : shape + 1, fill_tensor, from);
}

/* All values of a GGUF source but those that say how its tensors were stored. */
static bal_status copy_values(const saver *s, const bal_gguf *g)
{
    static const char *const left_out[] = {"general.file_type", "general.quantization_version", "general.alignment"};
    for (size_t i = 0; i < bal_gguf_count_values(g); i++) {
        const bal_gguf_value *v = bal_gguf_value_at(g, i);
        bool copy = true;
        for (size_t j = 0; j < 3; j++)
            copy = copy && strcmp(v->key, left_out[j]) != 0;
        bal_status status = copy ? bal_gguf_writer_copy(s->writer, v) : BAL_OK;
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

/* The divisors of the rope frequencies, from the source or from Llama 3's configuration. */
static bal_status add_rope_factors(const saver *s, real_t **values)
{
    const bal_model_config *c = &s->m->config;
    size_t half = c->rotary_dim / 2;
    double plain[2048], scaled[2048];
    if (s->m->rope_factors == NULL && c->rope.kind != BAL_ROPE_LLAMA3)
        return BAL_OK;
    if (half > 2048 || (*values = bal_alloc(half, sizeof **values)) == NULL)
        return BAL_ENOMEM;
    bal_rope_config unscaled = c->rope;
    unscaled.kind = BAL_ROPE_DEFAULT;
    (void)bal_rope_frequencies(&unscaled, c->rotary_dim, 0, NULL, plain);
    (void)bal_rope_frequencies(&c->rope, c->rotary_dim, 0, NULL, scaled);
    for (size_t i = 0; i < half; i++)
        (*values)[i] = s->m->rope_factors != NULL ? (real_t)s->m->rope_factors[i] : (real_t)(plain[i] / scaled[i]);
    source *from = &s->sources[s->n];
    *from = (source){.vector = *values, .factor = 1};
    return bal_gguf_writer_tensor(s->writer, "rope_freqs.weight", BAL_QUANT_F32, 1, &half, fill_tensor, from);
}

/* LongRoPE's two lists. */
static bal_status add_longrope(const saver *s, real_t **values)
{
    static const char *const names[] = {"rope_factors_short.weight", "rope_factors_long.weight"};
    const bal_rope_config *r = &s->m->config.rope;
    size_t half = s->m->config.rotary_dim / 2;
    if (r->kind != BAL_ROPE_LONGROPE)
        return BAL_OK;
    if ((*values = bal_alloc(2 * half, sizeof **values)) == NULL)
        return BAL_ENOMEM;
    for (size_t k = 0; k < 2; k++) {
        source *from = &s->sources[s->n + k];
        for (size_t i = 0; i < half; i++)
            (*values)[k * half + i] = (real_t)(k == 0 ? r->short_factor : r->long_factor)[i];
        *from = (source){.vector = *values + k * half, .factor = 1};
        bal_status status = bal_gguf_writer_tensor(s->writer, names[k], BAL_QUANT_F32, 1, &half, fill_tensor, from);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status put_values(const saver *s)
{
    const bal_model_source *from = s->m->source;
    bal_status status;
    if (from != NULL && from->gguf != NULL) {
        BAL_TRY(copy_values(s, from->gguf));
    } else {
        BAL_TRY(bal_gguf_put_config(s->m, s->family, s->writer));
        BAL_TRY(bal_tokenizer_write_gguf(s->m->path, s->m->config.vocab, s->writer, s->report->note,
                                         sizeof s->report->note));
    }
    BAL_TRY(bal_gguf_writer_u32(s->writer, "general.quantization_version", 2));
    status = bal_gguf_writer_u32(s->writer, "general.file_type", bal_quant_of(s->quant)->file_type);
out:
    return status;
}

static const bal_family *family_of(const bal_model *m)
{
    return bal_family_by_model_type(m->config.model_type);
}

/* The window goes lost where the architecture has no word for it. */
static void note_window(const saver *s)
{
    size_t at = strlen(s->report->note);
    if (s->family->gguf_no_window && s->m->config.window != 0)
        (void)snprintf(s->report->note + at, sizeof s->report->note - at,
                       "%sGGUF files of the architecture %s cannot say the window of %zu tokens: readers of this one "
                       "attend to all tokens of longer texts",
                       at > 0 ? "; " : "", s->family->architecture, s->m->config.window);
}

bal_status bal_model_save_gguf(const bal_model *m, const char *path, bal_quant quant, bal_gguf_report *report)
{
    saver s = {.m = m, .family = family_of(m), .quant = quant, .report = report};
    real_t *factors = NULL, *lists = NULL;
    bal_status status;
    bool tied = false;
    union { /* the visitors here only read */
        const bal_model *in;
        bal_model *out;
    } model = {m};
    *report = (bal_gguf_report){0};
    BAL_TRY(bal_model_mergeable(m));
    BAL_TRY(bal_gguf_check(m, s.family));
    if (strcmp(path, m->path) == 0)
        BAL_TRY(bal_fail(BAL_EINVAL, "the model in '%s' is being read from there; write to another file", path));
    BAL_TRY(bal_gguf_writer_new(&s.writer));
    BAL_TRY(put_values(&s));
    tied = bal_model_untie(model.out); /* until the end */
    BAL_TRY(bal_model_visit(model.out, count_part, &s));
    s.sources = bal_alloc(s.capacity + 2, sizeof *s.sources);
    if (s.sources == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_model_visit(model.out, add_part, &s));
    BAL_TRY(add_rope_factors(&s, &factors));
    BAL_TRY(add_longrope(&s, &lists));
    note_window(&s);
    BAL_TRY(bal_gguf_writer_commit(s.writer, path));
out:
    model.out->config.tied_head = tied || m->config.tied_head;
    bal_gguf_writer_free(s.writer);
    bal_free(s.sources);
    bal_free(factors);
    bal_free(lists);
    return status;
}

/* One factor of an adapted module. */
typedef struct factor {
    const real_t *values;
    size_t cols, turned;
    double scale;
} factor;

static bal_status fill_factor(void *context, size_t row0, size_t n_rows, real_t *out)
{
    const factor *f = context;
    for (size_t i = 0; i < n_rows; i++) {
        const real_t *row = f->values + bal_gguf_row(row0 + i, f->turned) * f->cols;
        for (size_t j = 0; j < f->cols; j++)
            out[i * f->cols + j] = (real_t)(f->scale * (double)row[j]);
    }
    return BAL_OK;
}

static bal_status add_lora(bal_gguf_writer *w, const bal_model *m, const bal_family *f, const bal_lora *l, double alpha,
                           bal_quant quant, factor pair[2])
{
    char name[MAX_NAME], full[MAX_NAME + 24];
    const size_t a_shape[2] = {l->r, l->in}, b_shape[2] = {l->out, l->r};
    if (!bal_gguf_name(f, l->module, name, sizeof name))
        return bal_fail(BAL_EUNSUPPORTED, "module '%s' has no name in GGUF files of the architecture %s", l->module,
                        f->architecture);
    if (l->in % bal_quant_of(quant)->block != 0 || l->r % bal_quant_of(quant)->block != 0)
        return bal_fail(BAL_EINVAL,
                        "module '%s' (rank %zu) does not consist of whole %s blocks; write f32, f16 or bf16", l->module,
                        l->r, bal_quant_of(quant)->name);
    pair[0] = (factor){l->a, l->in, 0, 1};
    pair[1] = (factor){l->b, l->r, bal_gguf_turned(m, f, l->module),
                       l->scale * (double)l->r / alpha * bal_gguf_factor(m, f, l->module)};
    (void)snprintf(full, sizeof full, "%s.weight.lora_a", name);
    bal_status status = bal_gguf_writer_tensor(w, full, quant, 2, a_shape, fill_factor, &pair[0]);
    (void)snprintf(full, sizeof full, "%s.weight.lora_b", name);
    return status == BAL_OK ? bal_gguf_writer_tensor(w, full, quant, 2, b_shape, fill_factor, &pair[1]) : status;
}

bal_status bal_adapter_save_gguf(const bal_adapter *a, const bal_model *m, const char *path, bal_quant quant)
{
    const bal_family *f = family_of(m);
    bal_gguf_writer *w = NULL;
    factor *factors = bal_alloc(2 * a->n_loras, sizeof *factors);
    bal_status status;
    if (factors == NULL)
        return BAL_ENOMEM;
    BAL_TRY(bal_gguf_check(m, f));
    if (a->initial != NULL || a->n_loras == 0)
        BAL_TRY(bal_fail(BAL_EINVAL, "a GGUF adapter is a plain LoRA: convert the residual start first"));
    if (a->n_copies > 0)
        BAL_TRY(
            bal_fail(BAL_EUNSUPPORTED,
                     "a GGUF adapter holds the factors of linear modules alone, and this one also trains '%s': merge "
                     "it into its model instead (balora merge)",
                     a->copies[0].tensor));
    for (size_t i = 0; i < a->n_sites; i++)
        if (!a->sites[i].method->additive || a->sites[i].n_tensors > 2 || a->sites[i].embedding)
            BAL_TRY(bal_fail(BAL_EUNSUPPORTED,
                             "a GGUF adapter holds the factors of linear modules alone; '%s' of this %s adapter has "
                             "more: merge it into its model instead (balora merge)",
                             a->sites[i].module, a->sites[i].method->title));
    double alpha = a->loras[0].scale * (double)a->loras[0].r; /* with rsLoRA alpha sqrt r */
    BAL_TRY(bal_gguf_writer_new(&w));
    BAL_TRY(bal_gguf_writer_text(w, "general.architecture", f->architecture));
    BAL_TRY(bal_gguf_writer_text(w, "general.type", "adapter"));
    BAL_TRY(bal_gguf_writer_text(w, "adapter.type", "lora"));
    BAL_TRY(bal_gguf_writer_f32(w, "adapter.lora.alpha", alpha));
    BAL_TRY(bal_gguf_writer_u32(w, "general.file_type", bal_quant_of(quant)->file_type));
    for (size_t i = 0; i < a->n_loras; i++)
        BAL_TRY(add_lora(w, m, f, &a->loras[i], alpha, quant, factors + 2 * i));
    BAL_TRY(bal_gguf_writer_commit(w, path));
out:
    bal_gguf_writer_free(w);
    bal_free(factors);
    return status;
}
