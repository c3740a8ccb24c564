/* Which record comes when.  The order of an epoch depends on seed, epoch and kind alone, so that a position in the
 * stream of records is all that a checkpoint has to keep.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_DATA_ORDER_H
#define BAL_DATA_ORDER_H

#include "lib/data/dataset.h"

typedef enum bal_order_kind {
    BAL_ORDER_FILE,
    BAL_ORDER_RANDOM,
    BAL_ORDER_LENGTH /* random, but sequences of like length meet in a batch */
} bal_order_kind;

typedef struct bal_order {
    bal_order_kind kind;
    uint64_t seed, epoch;
    size_t batch; /* sequences of an optimiser step, for BAL_ORDER_LENGTH */
    const bal_dataset *data;
    uint32_t *items; /* records that take part, in the order of the epoch */
    uint32_t *all;   /* the same in file order */
    size_t n;
    bool ready;
} bal_order;

/* items: indices into data (copied), NULL: all. */
bal_status bal_order_init(bal_order *o, bal_order_kind kind, uint64_t seed, size_t batch, const bal_dataset *data,
                          const uint32_t *items, size_t n);
void bal_order_dispose(bal_order *o);
/* The record at a position of the endless stream (position / n = epoch).  Allocates nothing. */
size_t bal_order_at(bal_order *o, uint64_t position);

/* Splits 0..n-1: validation gets a share (0..1) at random by seed, at least 1 and at most n - 1; both in file order. */
bal_status bal_split(size_t n, double share, uint64_t seed, uint32_t **train, size_t *n_train, uint32_t **validation,
                     size_t *n_validation);

#endif
