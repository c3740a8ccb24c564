/* Choosing the next token from its logits.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_SAMPLE_H
#define BAL_MODEL_SAMPLE_H

#include "lib/base/rng.h"
#include "lib/tensor/real.h"

#include <stddef.h>
#include <stdint.h>

typedef struct bal_sampling {
    double temperature; /* 0: the first largest logit */
    size_t top_k;       /* only the k most likely; 0: all */
    double top_p;       /* the smallest set of most likely tokens whose probability reaches p; 1 (or 0): all */
} bal_sampling;

typedef struct bal_sample_item {
    double weight;
    int32_t token;
} bal_sample_item;

/* One token; items: room for vocab entries.  Uses one number of the stream unless temperature is 0.  Equal logits
 * are ordered by id. */
int32_t bal_sample(const real_t *logits, size_t vocab, const bal_sampling *s, bal_rng *rng, bal_sample_item *items);

#endif
