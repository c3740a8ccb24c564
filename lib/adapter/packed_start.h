/* Starts of low-rank factors for a matrix that is kept in a packed type (NF4, Q4_0 ...): the factors take up a part of
 * what packing loses.  W (out x in) in full, Q the packed matrix that stands for it, D(Q) its values.
 *   loftq  Q = pack(W - s B A), s B A = the r leading triplets of W - D(Q); again from s B A = 0 (Li et al. 2023,
 *          arXiv 2310.08659)
 *   pissa  s B A = the r leading triplets of W - D(Q), Q = pack(W - s B A); again, from D(Q) = 0 (QPiSSA, Meng et al.
 *          2024, arXiv 2404.02948, section 4: the factors hold the principal part, Q the rest)
 * Both keep the best round, so that more rounds never make the error || W - D(Q) - s B A || larger.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_ADAPTER_PACKED_START_H
#define BAL_ADAPTER_PACKED_START_H

#include "lib/base/status.h"
#include "lib/tensor/real.h"
#include "lib/tensor/view.h"

#include <stddef.h>

typedef enum bal_packed_kind { BAL_PACKED_LOFTQ, BAL_PACKED_PISSA } bal_packed_kind;

typedef struct bal_packed_job {
    bal_packed_kind kind;
    bal_dtype type; /* bal_can_pack() */
    size_t r, rounds;
    double scale;              /* s */
    real_t *a, *b;             /* out: A (r, in), B (out, r) */
    real_t *shift_a, *shift_b; /* out: the factors that Q was made with, Q = pack(W - s shift_b shift_a); 0 for none */
    void *packed;              /* out: rows of bal_dtype_row_bytes(type, in) */
    double plain, error;       /* out: || W - D(pack(W)) || and || W - D(Q) - s B A ||, over || W || */
    size_t best;               /* out: the round that was kept, from 1 */
} bal_packed_job;

/* Serial.  BAL_EINVAL: r above min(out, in), a row that is no whole number of blocks. */
bal_status bal_packed_start(const bal_view *w, bal_packed_job *job);

/* A and B as the r leading triplets of W - D(Q) for a Q that stays as it is (a file's own): LoftQ's one round.  packed,
 * shift_a, shift_b and type are not used. */
bal_status bal_packed_fixed(const bal_view *w, const bal_view *q, bal_packed_job *job);

/* packed (rows of the type) = pack(W - s B A); a NULL: pack(W).  What bal_packed_start() leaves as Q, made again from its
 * shift: the same bits. */
bal_status bal_pack_matrix(const bal_view *w, bal_dtype type, size_t r, double scale, const real_t *a, const real_t *b,
                           void *packed);

#endif
