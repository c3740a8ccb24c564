/* What the files of lib/model share about a model.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_MODEL_IMPL_H
#define BAL_MODEL_MODEL_IMPL_H

#include "lib/io/gguf.h"
#include "lib/io/safetensors.h"
#include "lib/model/families.h"

/* The open files of a model: one of the two, or neither for a new model. */
typedef struct bal_model_source {
    bal_safetensors *tensors;
    bal_gguf *gguf;
    char *config_text; /* config.json as it was, NULL for GGUF */
} bal_model_source;

/* A model whose config is set: blocks, names of all linears, the list of modules' space; no weights yet. */
bal_status bal_model_allocate(bal_model **out, const bal_model_config *c, const bal_family *f, const char *path);
/* Fills modules and n_parameters once the views are set. */
bal_status bal_model_list_modules(bal_model *m);
/* replace.c: the model's own tensors in the list of modules again, where they have moved. */
void bal_model_point_modules(bal_model *m);
/* The copies of an adapter in the places of the model's own tensors; restore undoes it, whatever became of the adapter.
 * BAL_EINVAL: a copy fits no tensor. */
bal_status bal_model_replace(bal_model *m, const bal_adapter *a);
void bal_model_restore(bal_model *m);

/* Rows of the linear's weight with its adapter: what a merged model holds.  A method that cannot be merged is refused
 * by bal_model_mergeable(). */
void bal_linear_merged(const bal_linear *l, size_t row0, size_t n_rows, real_t *out);
/* Values from.. of a vector; of: the linear whose bias it is, or NULL for a norm. */
void bal_vector_merged(const bal_linear *of, const real_t *vector, size_t from, size_t n, real_t *out);
/* While a model is written: a tied head whose weight is no longer the embedding's is written on its own (and the model
 * has to be tied again when this was true). */
bool bal_model_untie(bal_model *m);
bal_status bal_model_mergeable(const bal_model *m);

/* A tensor of a model, as it is called in a Hugging Face file. */
typedef enum bal_part_kind { BAL_PART_MATRIX, BAL_PART_BIAS, BAL_PART_NORM } bal_part_kind;
typedef struct bal_part {
    bal_part_kind kind;
    char name[192];
    size_t rows, cols;          /* vectors: 1 x n */
    bal_linear *linear;         /* of a matrix or bias */
    real_t **vector, **dvector; /* where the pointers to a bias or norm (and its gradient) are kept */
} bal_part;
typedef bal_status bal_part_fn(void *context, const bal_part *part);
/* All tensors in order: embedding, blocks, final norm, and the head unless it is tied. */
bal_status bal_model_visit(bal_model *m, bal_part_fn *fn, void *context);

#endif
