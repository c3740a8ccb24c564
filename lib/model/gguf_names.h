/* How a model's tensors are called and ordered in a GGUF file.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_GGUF_NAMES_H
#define BAL_MODEL_GGUF_NAMES_H

#include "lib/io/gguf_write.h"
#include "lib/model/families.h"

/* The GGUF name of a tensor or module by its Hugging Face name (".weight" and ".bias" stay as they are); false when
 * the family has none or out is too small. */
bool bal_gguf_name(const bal_family *f, const char *hf, char *out, size_t n_out);
/* The head size when the file keeps the rows of this module in the order of neighbouring pairs, else 0. */
size_t bal_gguf_turned(const bal_model *m, const bal_family *f, const char *hf);
/* The Hugging Face row that is row `file_row` of the file: of each head of d rows, 2i holds i and 2i + 1 holds
 * i + d/2. */
size_t bal_gguf_row(size_t file_row, size_t head_dim);
/* What the values of a tensor or module are multiplied by in the file: 1, but where the factor of the scores is not the
 * one that readers of the architecture take (their rule is bal_gguf_scale()), q or its norm carries the rest. */
double bal_gguf_factor(const bal_model *m, const bal_family *f, const char *hf);
double bal_gguf_scale(const bal_family *f, const bal_model_config *c);
/* BAL_EUNSUPPORTED when the family has no GGUF form, or the model has what its form cannot say. */
bal_status bal_gguf_check(const bal_model *m, const bal_family *f);
/* Adds general.architecture and the sizes of the configuration. */
bal_status bal_gguf_put_config(const bal_model *m, const bal_family *f, bal_gguf_writer *w);

#endif
