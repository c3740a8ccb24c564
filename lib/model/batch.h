/* A ragged batch: sequences end to end, no padding; a beginning that all of them share may be there once.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_BATCH_H
#define BAL_MODEL_BATCH_H

#include "lib/base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BAL_LABEL_NONE = -100 };

typedef struct bal_batch {
    size_t n_tokens, n_seqs, n_rows, n_reg_rows;
    int32_t *tokens;     /* [T] */
    int32_t *type;       /* [T] token types of an encoder; 0 when not said */
    int32_t *label;      /* [T] unshifted; BAL_LABEL_NONE = none */
    uint32_t *seq_start; /* [n_seqs + 1] */
    size_t n_shared;     /* tokens [0, n_shared) come before each sequence; seq_start[0] is n_shared then, else 0 */
    uint32_t *rows;      /* [M] token index t whose NEXT token in its sequence is labelled */
    int32_t *target;     /* [M] label[rows[m] + 1] */
    uint32_t *reg_rows;  /* [n_reg_rows] rows of the regularisers: as rows, or --compat llm172's unshifted rows */
    size_t max_tokens, max_seqs;
} bal_batch;

/* Capacity for so many tokens and sequences; refilled without allocating. */
bal_status bal_batch_init(bal_batch *b, size_t max_tokens, size_t max_seqs);
void bal_batch_dispose(bal_batch *b);
void bal_batch_clear(bal_batch *b);
/* Appends one sequence; labels may be NULL (none labelled).  BAL_ELIMIT when full, BAL_EFORMAT when empty. */
bal_status bal_batch_add(bal_batch *b, const int32_t *ids, const int32_t *labels, size_t n);
/* The token types of the sequence that was added last, one a token. */
void bal_batch_types(bal_batch *b, const int32_t *types);
/* Of an encoder: rows are the labelled tokens themselves, target their labels. */
void bal_batch_finish_masked(bal_batch *b);
/* Fills rows, target and reg_rows after the last add; unshifted: reg_rows are all t with label[t] != NONE. */
void bal_batch_finish(bal_batch *b, bool unshifted_regularisers);
/* Leaves one copy of the tokens that all sequences begin with, when they are at least `least`: the shared part ends
 * before the first row that predicts a label, and each sequence keeps a token of its own.  Before bal_batch_finish().
 * Every result is the same as without (DESIGN section 5.9); a second call changes nothing. */
void bal_batch_share(bal_batch *b, size_t least);
/* Tokens of all sequences at their full length. */
size_t bal_batch_text_tokens(const bal_batch *b);

#endif
