/* Writing models and adapters as GGUF files.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_SAVE_GGUF_H
#define BAL_MODEL_SAVE_GGUF_H

#include "lib/model/model.h"
#include "lib/tensor/quantize.h"

#include <stddef.h>

typedef struct bal_gguf_report {
    size_t n_tensors, n_replaced; /* n_replaced: matrices of another type, since their rows are no whole blocks */
    char replaced_by[12];
    char note[512]; /* why the file holds no tokenizer, or "" */
} bal_gguf_report;

/* The model with the deltas of an attached adapter merged in.  Matrices as `quant`; with 4 bits the embedding and the
 * head get Q6_K (as llama.cpp does); rows that are no whole blocks get Q8_0, and F16 when that does not fit either;
 * norms and biases stay F32.  The tokenizer comes from the GGUF source or from the tokenizer.json beside the model.
 * BAL_EUNSUPPORTED for a family without a GGUF form. */
bal_status bal_model_save_gguf(const bal_model *m, const char *path, bal_quant quant, bal_gguf_report *report);
/* A model of the shape of a config.json with random weights, for trying how much memory and time it takes: row block by
 * row block, so that it needs no memory itself.  quant: BF16 or Q4_0; BAL_EINVAL for another.  No tokenizer. */
bal_status bal_model_synthesize(const char *config_json, const char *path, bal_quant quant, uint64_t seed);
/* A plain adapter (bal_adapter_to_plain()) in the layout that llama.cpp reads: adapter.lora.alpha with
 * scale = alpha / rank of each module (other scales go into B), q and k rows of B in the file's order. */
bal_status bal_adapter_save_gguf(const bal_adapter *a, const bal_model *m, const char *path, bal_quant quant);

#endif
