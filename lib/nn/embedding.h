/* Rows of the token table.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NN_EMBEDDING_H
#define BAL_NN_EMBEDDING_H

#include "lib/tensor/view.h"

/* out[t] = scale * table[tokens[t]], T x table.cols.  All tokens must be below table.rows. */
void bal_embedding_forward(const bal_view *table, size_t T, const int32_t *tokens, real_t scale, real_t *out);
/* dtable[tokens[t]] += scale * dout[t]; dtable: rows of D. */
void bal_embedding_backward(size_t T, size_t D, const int32_t *tokens, real_t scale, const real_t *dout,
                            real_t *dtable);

#endif
