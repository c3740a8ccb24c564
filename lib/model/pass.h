/* Forward and backward of a whole model over a ragged batch, up to the final norm; the head and the losses are
 * lib/loss.  All buffers are allocated once, for the largest batch; nothing is allocated in a pass.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_PASS_H
#define BAL_MODEL_PASS_H

#include "lib/model/batch.h"
#include "lib/model/model.h"
#include "lib/tensor/gemm.h"

#include <stdbool.h>
#include <stddef.h>

/* How an adapter is applied: beside its matrix, or added to it in a panel; auto: what takes fewer operations. */
typedef enum bal_adapter_path { BAL_ADAPTER_AUTO, BAL_ADAPTER_SIDE, BAL_ADAPTER_PANEL } bal_adapter_path;

typedef struct bal_pass_options {
    size_t max_tokens, max_seqs, max_seq_len;
    bool backward;               /* keep what bal_pass_backward() needs */
    bool teacher;                /* a second result buffer, for BAL_TEACHER */
    bool checkpoint_activations; /* keep block inputs only, recompute in backward */
    bool labelled_rows_only;     /* the final rows are wanted where the batch has rows or reg_rows: of the last block's
                                  * queries, attention output, MLP and final norm nothing else is computed, and the other
                                  * final rows are 0.  Not with dropout or a watcher, which see all rows. */
    bal_compute compute;         /* of products with the frozen weights; adapters are always f32 */
    bool alike;                  /* for scores: without adapters the bits of a sequence's result depend on the sequence
                                  * alone, not on the batch or the number of threads (lib/tensor/rowdot.h) */
    bal_adapter_path adapter_path;
    double dropout; /* of the adapters' inputs */
    uint64_t seed;  /* of the dropout stream */
} bal_pass_options;

typedef enum bal_role { BAL_STUDENT, BAL_TEACHER } bal_role; /* teacher: adapters off, no dropout, nothing kept */

typedef struct bal_pass bal_pass;

/* Bytes that bal_pass_new() will allocate. */
size_t bal_pass_bytes(const bal_model *m, const bal_pass_options *o);
bal_status bal_pass_new(bal_pass **out, bal_model *m, const bal_pass_options *o);
void bal_pass_free(bal_pass *p);

/* Called with the residual stream after the embedding (layer 0) and after each block (layer i), T x hidden. */
typedef void bal_hidden_fn(void *context, size_t layer, const real_t *hidden, size_t n_tokens);
void bal_pass_watch(bal_pass *p, bal_hidden_fn *fn, void *context);

/* Called with the input X (T x l->w.cols) of each linear module of the blocks before its product, in forward passes of
 * the student.  Modules with the same input are called one after the other with the same X. */
typedef void bal_input_fn(void *context, const bal_linear *l, const real_t *X, size_t n_tokens);
void bal_pass_watch_inputs(bal_pass *p, bal_input_fn *fn, void *context);

/* Runs the batch; BAL_EFORMAT for a token id >= vocabulary, BAL_ELIMIT for more than the options allow.  The result
 * (T x hidden, after the final norm) is bal_pass_final(). */
bal_status bal_pass_forward(bal_pass *p, const bal_batch *b, bal_role role);
real_t *bal_pass_final(bal_pass *p, bal_role role);
/* The gradient buffer with respect to bal_pass_final(p, BAL_STUDENT), T x hidden: clear it, fill it, then run
 * backward; gradients accumulate into lora da/db and, for a trainable model, into dw, dbias, norms and embedding.
 * The head's own dw is the loss's business. */
real_t *bal_pass_dfinal(bal_pass *p);
void bal_pass_clear_dfinal(bal_pass *p, size_t n_tokens);
bal_status bal_pass_backward(bal_pass *p, const bal_batch *b);
/* Whether a batch may hold a shared beginning (bal_batch_share()): not with dropout, whose masks differ from place to
 * place, nor with a window or rotations that depend on a sequence's length. */
bool bal_pass_can_share(const bal_pass *p);
/* Dropout stream, for checkpoints. */
bal_rng *bal_pass_rng(bal_pass *p);

#endif
