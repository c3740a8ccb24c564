/* Grouped-query attention over a ragged batch, block by block: no T x T matrix is formed.
 *   o_i = sum_j softmax_j(scale q_i . k_j) v_j   over the keys j <= i of the same sequence (and j > i - window), or,
 * both ways, over all keys of the sequence.
 * Online softmax (Milakov, Gimelshein 2018, arXiv 1805.02867); the backward recomputes the probabilities from the
 * logarithm of each row's sum (Dao et al. 2022, arXiv 2205.14135).  q, o: T x n_heads*d; k, v: T x n_kv_heads*d; head h
 * uses key/value head h / (n_heads / n_kv_heads).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_NN_ATTENTION_H
#define BAL_NN_ATTENTION_H

#include "lib/tensor/real.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BAL_ATTENTION_BLOCK = 64 };

/* At most BAL_ATTENTION_BLOCK tokens of one sequence. */
typedef struct bal_attention_block {
    uint32_t begin, end; /* of the sequence, in the batch */
    uint32_t first, count;
} bal_attention_block;

typedef struct bal_attention {
    size_t n_heads, n_kv_heads, d;
    size_t window;  /* 0: all keys before */
    size_t shared;  /* tokens [0, shared) come before every other sequence; only without a window */
    bool both_ways; /* a query sees the keys behind it too; then neither a window nor a shared beginning */
    double scale;   /* usually d^-1/2 */
    double softcap; /* 0: none; else scores are softcap tanh(scale q.k / softcap) */
    const bal_attention_block *blocks;
    size_t n_blocks;
    const bal_attention_block *queries; /* the blocks whose queries are wanted; NULL: all */
    size_t n_queries;
    real_t *scratch; /* bal_attention_scratch() values for each thread */
} bal_attention;

/* Blocks of n_seqs sequences, before them those of what they share, [0, seq_start[0]); out has room for
 * bal_attention_max_blocks().  Returns their number. */
size_t bal_attention_split(const uint32_t *seq_start, size_t n_seqs, bal_attention_block *out);
size_t bal_attention_max_blocks(size_t max_tokens, size_t max_seqs);
size_t bal_attention_scratch(void);

/* o is set, and lse (T x n_heads): the logarithm of each row's sum.  Rows of blocks that are not wanted stay as they are:
 * before the backward their q, lse and dout must be 0, so that they give nothing to dk and dv; their dq is not set. */
void bal_attention_forward(const bal_attention *a, const real_t *q, const real_t *k, const real_t *v, real_t *o,
                           real_t *lse);
/* dq, dk, dv are set.  delta: T x n_heads of scratch. */
void bal_attention_backward(const bal_attention *a, size_t T, const real_t *q, const real_t *k, const real_t *v,
                            const real_t *o, const real_t *lse, const real_t *dout, real_t *dq, real_t *dk, real_t *dv,
                            real_t *delta);

#endif
