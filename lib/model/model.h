/* A language model, a decoder or (config.masked) an encoder that fills in masked tokens: configuration, weights in their
 * file's layout, and what is attached to them.
 * Reading: a Hugging Face folder (config.json + safetensors) or a GGUF file; weights are mapped, not copied.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_MODEL_H
#define BAL_MODEL_MODEL_H

#include "lib/adapter/adapter.h"
#include "lib/base/status.h"
#include "lib/nn/kinds.h"
#include "lib/nn/rope.h"
#include "lib/tensor/params.h"
#include "lib/tensor/view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BAL_MAX_LAYERS = 1024 };

/* A bit for each layer. */
typedef struct bal_layer_set {
    uint64_t bits[BAL_MAX_LAYERS / 64];
} bal_layer_set;

static inline bool bal_layer_in(const bal_layer_set *s, size_t layer)
{
    return layer < BAL_MAX_LAYERS && (s->bits[layer / 64] >> (layer % 64) & 1) != 0;
}

static inline void bal_layer_put(bal_layer_set *s, size_t layer, bool in)
{
    uint64_t bit = (uint64_t)1 << (layer % 64);
    s->bits[layer / 64] = in ? s->bits[layer / 64] | bit : s->bits[layer / 64] & ~bit;
}

typedef struct bal_model_config {
    char model_type[32]; /* Hugging Face's name: "llama" */
    size_t n_layers, hidden, n_heads, n_kv_heads, head_dim, intermediate, vocab, max_positions;
    size_t rotary_dim; /* elements of a head that turn: all head_dim, or the first of them */
    double norm_eps;
    bal_norm_kind norm;
    bal_act_kind act;
    bal_rope_config rope;
    bal_rope_config local_rope; /* of the layers with a window; kind BAL_ROPE_NONE: as the others */
    bal_layer_set sliding;      /* layers with the window */
    bal_layer_set unrotated;    /* layers without a rotary embedding */
    size_t window;              /* keys that a query sees in a sliding layer, itself included; 0: all */
    size_t position_rows;       /* of the table of learned positions, 0: none */
    size_t position_offset;     /* row of position 0 */
    double attention_scale;     /* factor of q . k */
    bool scale_by_layer;        /* ... divided by the number of the layer, from 1 (GPT-2's option) */
    bool parallel;              /* x + attention(n) + mlp(n) with one norm n (StableLM's option) */
    bool no_biases;             /* of the matrices, where the family has them else (OPT's option) */
    bool no_final_norm;
    size_t embed_width;       /* of the file's embeddings when projections lead to hidden and back (OPT), else 0 */
    double attention_softcap; /* 0: none */
    bool norm_after_add;      /* OPT's do_layer_norm_before false: norm(x + f(x)), and no final norm */
    bool tied_head, attention_bias, mlp_bias;
    double embed_scale;   /* 1: none */
    double logit_softcap; /* 0: none */
    int32_t bos, eos[32]; /* bos -1: none */
    size_t n_eos;
    double initializer_range;
    bool masked;           /* an encoder: attention goes both ways, and the head says what a masked token was */
    size_t narrow;         /* width of its embeddings and of its head, when another than hidden (ELECTRA), else 0 */
    size_t type_rows;      /* token types, 0: none */
    bool skip_pad;         /* positions are counted over tokens other than pad, whose position is pad */
    int32_t pad;           /* pad_token_id; -1: none */
    bal_act_kind head_act; /* between the two matrices of its head */
} bal_model_config;

/* Width of the embeddings and of the head's input. */
static inline size_t bal_embed_size(const bal_model_config *c)
{
    return c->narrow != 0 ? c->narrow : c->hidden;
}

/* Factor of q . k in a layer. */
static inline double bal_layer_scale(const bal_model_config *c, size_t layer)
{
    return c->scale_by_layer ? c->attention_scale / (double)(layer + 1) : c->attention_scale;
}

/* The linear modules of a block, in this order everywhere.  A family with one matrix for q, k and v has it as Q, one
 * with gate and up in one has it as GATE, an MLP without a gate has UP; the others are absent then: no name, no
 * view. */
typedef enum bal_slot {
    BAL_SLOT_Q,
    BAL_SLOT_K,
    BAL_SLOT_V,
    BAL_SLOT_O,
    BAL_SLOT_GATE,
    BAL_SLOT_UP,
    BAL_SLOT_DOWN,
    BAL_SLOT_COUNT
} bal_slot;

typedef struct bal_linear_parts {
    bal_view w;
    real_t *bias;       /* out values, NULL if none */
    real_t *dw, *dbias; /* gradients of what is trained, else NULL */
} bal_linear_parts;

/* With an adapter's copies (bal_copy) w and bias are those, and `own` is what the model has: the teacher's. */
typedef struct bal_linear {
    char *name; /* Hugging Face path without ".weight" */
    bal_view w;
    real_t *bias;
    bal_site *site; /* NULL when not adapted */
    real_t *dw, *dbias;
    bool replaced; /* own is set */
    bal_linear_parts own;
} bal_linear;

/* Norms of a block: before and after attention and MLP, and of each head of q and k.  Absent: w is NULL. */
typedef enum bal_norm_place {
    BAL_NORM_ATTENTION_IN,
    BAL_NORM_Q,
    BAL_NORM_K,
    BAL_NORM_ATTENTION_OUT,
    BAL_NORM_MLP_IN,
    BAL_NORM_MLP_OUT,
    BAL_NORM_PLACES
} bal_norm_place;

typedef struct bal_norm {
    real_t *w, *b;   /* b: of a LayerNorm, else NULL */
    real_t *dw, *db; /* gradients, NULL when frozen */
    char *name;      /* Hugging Face path without ".weight" */
    bal_view view;   /* of its own w, n x 1, for the list of modules */
    bool replaced;   /* as a linear's */
    real_t *own_w, *own_b, *own_dw, *own_db;
} bal_norm;

static inline bool bal_norm_trains(const bal_norm *n)
{
    return n->dw != NULL || n->db != NULL;
}

typedef struct bal_block {
    bal_linear linear[BAL_SLOT_COUNT];
    bal_norm norm[BAL_NORM_PLACES];
} bal_block;

static inline bool bal_linear_there(const bal_linear *l)
{
    return l->name != NULL;
}

/* The matrix and the bias that the model has without its adapter. */
static inline const bal_view *bal_linear_own_w(const bal_linear *l)
{
    return l->replaced ? &l->own.w : &l->w;
}

static inline const real_t *bal_linear_own_bias(const bal_linear *l)
{
    return l->replaced ? l->own.bias : l->bias;
}

/* How the matrices of the blocks are kept, when not as the file has them (lib/model/pack.h). */
typedef struct bal_model_base {
    bal_dtype type;     /* packed into; BAL_DTYPE_COUNT: not packed */
    const char *start;  /* "pissa" or "loftq" when initial factors belong to them, else NULL */
    bal_adapter *shift; /* what was taken off before packing, when not those factors, else NULL (owned) */
} bal_model_base;

typedef struct bal_model {
    bal_model_config config;
    bal_block *blocks;
    bal_linear embed;     /* vocab x hidden; never adapted here */
    bal_linear positions; /* position_rows x hidden, when there are learned positions */
    bal_linear head;      /* vocab x hidden; view (and dw) equal embed's when tied */
    bal_norm final_norm;
    /* Of an encoder.  x = project(embed_norm(embed + positions + types)); logits = head(transform_norm(act(transform))). */
    bal_linear types;     /* type_rows x embeddings' width, when there are token types */
    bal_linear project;   /* hidden x embeddings' width, when narrow */
    bal_linear transform; /* embeddings' width x hidden; no data: the files have no head for masked tokens */
    bal_norm embed_norm, transform_norm;
    bal_params params; /* all weights as trainable f32 (bal_model_make_trainable), else empty */
    char *path;
    bal_module *modules; /* all linears of all blocks, head, embedding; learned positions, norms */
    size_t n_modules;
    size_t n_parameters;
    double *rope_factors; /* head_dim / 2 divisors of the rope frequencies (GGUF's rope_freqs), or NULL */
    void *source;         /* the open files */
    void **owned;         /* n_owned of them: matrices that had to be turned when read (GPT-2's), or were packed */
    bal_model_base base;
    size_t n_owned;
    bool shared; /* of bal_model_share(): all but the linears of the blocks is another model's */
} bal_model;

/* Errors: architecture not supported (names the supported ones), tensor missing, shape not matching config (both
 * shapes), NaN or infinity in norms and biases (tensor and index); bal_model_check() scans all weights. */
bal_status bal_model_load(bal_model **out, const char *path);
/* The same for encoders too (config.masked), which only lib/model/pass.h and masked.h can run; bal_model_load() refuses
 * them in one sentence. */
bal_status bal_model_load_any(bal_model **out, const char *path);
/* BAL_EUNSUPPORTED when the files of an encoder have no head for masked tokens. */
bal_status bal_model_need_head(const bal_model *m);
void bal_model_free(bal_model *m); /* accepts NULL; does not free an attached adapter */
bal_status bal_model_check(const bal_model *m);
/* A new model with random weights (normal, sd initializer_range, default 0.02), trainable; config_json as in
 * config.json. */
bal_status bal_model_new(bal_model **out, const char *config_json, uint64_t seed);
/* Copies all weights to f32 and gives them gradients (full fine-tuning). */
bal_status bal_model_make_trainable(bal_model *m);
/* Points the linears at the adapter's sites, and puts its copies in the places of the model's own tensors (NULL takes
 * both away). */
bal_status bal_model_attach(bal_model *m, bal_adapter *a);
/* The same weights under another adapter (NULL: none), so that several can be used at once: m must outlive it, and not be
 * made trainable. */
bal_status bal_model_share(bal_model **out, const bal_model *m, bal_adapter *a);
/* Writes config.json and model.safetensors (dtype F32, F16 or BF16; the deltas of an attached adapter merged in), and
 * copies the tokenizer files that lie beside the source.  Row block by row block: no second copy in memory. */
bal_status bal_model_save(const bal_model *m, const char *dir, bal_dtype dtype);
/* The same with the weights cut into model-0000i-of-0000n.safetensors of at most shard_bytes (one tensor at least) and
 * an index, when they are more; a GGUF source's tokenizer is written as tokenizer.json, or note says why not. */
#define BAL_SHARD_BYTES UINT64_C(5000000000)
bal_status bal_model_save_sharded(const bal_model *m, const char *dir, bal_dtype dtype, uint64_t shard_bytes,
                                  char *note, size_t note_bytes);
/* F16 or BF16 when the weights are, else F32. */
bal_dtype bal_model_dtype(const bal_model *m);

#endif
