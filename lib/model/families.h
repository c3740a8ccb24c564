/* The table of model families: what a Hugging Face model_type or a GGUF architecture means.  A model of a known kind
 * is a row here and a golden test.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_FAMILIES_H
#define BAL_MODEL_FAMILIES_H

#include "lib/base/str.h"
#include "lib/model/model.h"

/* Names of the parts of a model in one kind of file; '#' stands for the number of the layer.  Matrices without
 * ".weight". */
typedef struct bal_family_names {
    const char *embed, *final_norm, *head;
    const char *attention_norm, *mlp_norm;
    const char *slot[BAL_SLOT_COUNT];
} bal_family_names;

typedef struct bal_family {
    const char *model_type;   /* config.json: model_type */
    const char *architecture; /* GGUF: general.architecture */
    const char *class_name;   /* config.json: architectures[0], when written */
    bal_norm_kind norm;
    bal_rope_kind rope;   /* BAL_ROPE_NONE: no rotary embedding */
    const char *act;      /* hidden_act when the configuration does not say */
    bool tied_head;       /* tie_word_embeddings when the configuration does not say */
    bool bias_keys;       /* attention_bias and mlp_bias are read; else always_bias alone counts */
    unsigned always_bias; /* bit per slot */
    bool gguf_permuted;   /* q and k rows of GGUF files are in the order of neighbouring pairs */
    bal_family_names hf, gguf;
} bal_family;

const bal_family *bal_family_by_model_type(const char *model_type);     /* NULL: not known */
const bal_family *bal_family_by_architecture(const char *architecture); /* NULL: not known */
/* "llama, ...": for messages; gguf: the names of GGUF architectures. */
bal_status bal_family_list(bal_buf *out, bool gguf);
/* pattern with '#' replaced by layer, then suffix; false if it does not fit. */
bool bal_family_name(char *out, size_t n_out, const char *pattern, size_t layer, const char *suffix);
/* Whether the matrix has a bias by family and configuration. */
bool bal_family_bias(const bal_family *f, const bal_model_config *c, bal_slot slot);
/* Rows (outputs) and columns (inputs) of a block's matrix. */
void bal_slot_shape(const bal_model_config *c, bal_slot slot, size_t *rows, size_t *cols);

#endif
