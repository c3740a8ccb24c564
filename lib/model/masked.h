/* Scores of a masked language model: the log-probability of a token at a place that is masked.  Bits depend on the asked
 * sequence alone, not on what is asked beside it or the number of threads (without an adapter).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_MASKED_H
#define BAL_MODEL_MASKED_H

#include "lib/model/model.h"
#include "lib/tensor/gemm.h"

#include <stddef.h>
#include <stdint.h>

typedef struct bal_masked bal_masked;

/* One sequence with the token at one place replaced, and the token whose probability there is asked for. */
typedef struct bal_masked_query {
    const int32_t *ids, *types; /* n token ids and, unless NULL (all 0), token types; the caller's until the answer */
    size_t n, at;
    int32_t put, target; /* ids[at] is read as put */
} bal_masked_query;

/* max_tokens: of a pass, and so of the longest sequence; 0: 1024, but at least the model's context.  BAL_EUNSUPPORTED for a
 * model without a head for masked tokens.  The model (with what is attached to it) must outlive the scorer. */
bal_status bal_masked_new(bal_masked **out, bal_model *m, size_t max_tokens, bal_compute compute);
void bal_masked_free(bal_masked *s); /* accepts NULL */

/* out[i] = ln P(q[i].target at q[i].at), i < n; only these rows go through the last block and the head.  Allocates nothing.
 * BAL_EFORMAT for an id outside the vocabulary, BAL_ELIMIT for a sequence that is too long, BAL_ENUMERIC for logits that
 * are not finite. */
bal_status bal_masked_ask(bal_masked *s, const bal_masked_query *q, size_t n, double *out);
/* Pseudo-log-likelihoods (Salazar et al. 2020, arXiv 1910.14659): out[i] = ln P(ids[at[i]]) with this token alone replaced
 * by mask; at NULL: every place. */
bal_status bal_masked_pll(bal_masked *s, const int32_t *ids, const int32_t *types, size_t n, const uint32_t *at,
                          size_t n_at, int32_t mask, double *out);

#endif
