/* A set of trainable numbers: one flat array of values and one of gradients, cut into named segments.  Adapters,
 * heads and full fine-tuning all hand one of these to the optimiser.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TENSOR_PARAMS_H
#define BAL_TENSOR_PARAMS_H

#include "lib/tensor/real.h"

#include <stdbool.h>
#include <stddef.h>

/* Which learning rate a segment gets. */
typedef enum bal_group {
    BAL_GROUP_BASE,
    BAL_GROUP_HEAD,      /* head_lr */
    BAL_GROUP_LORA_B,    /* LoRA+: B and vectors */
    BAL_GROUP_EMBEDDING, /* LoRA+: factors of an embedding */
    BAL_GROUP_COUNT
} bal_group;

typedef struct bal_segment {
    char *name;        /* tensor name in the file it is saved to (owned) */
    size_t offset, n;  /* in values and grads */
    size_t rows, cols; /* cols * rows = n */
    bool vector;       /* saved with one dimension */
    bool turned;       /* saved as its transpose */
    bool decay;        /* weight decay applies (matrices yes; norms and biases no) */
    bal_group group;
} bal_segment;

typedef struct bal_params {
    real_t *values, *grads; /* grads accumulate; NULL when nothing is trained */
    size_t n;
    bal_segment *segments;
    size_t n_segments;
} bal_params;

#endif
