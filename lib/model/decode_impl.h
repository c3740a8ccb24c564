/* The inside of a decoder, shared by decode.c and decode_head.c.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_DECODE_IMPL_H
#define BAL_MODEL_DECODE_IMPL_H

#include "lib/base/mem.h"
#include "lib/model/decode.h"
#include "lib/model/decode_ops.h"

#include <stdbool.h>

/* Vocabulary entries whose logits are there at a time while texts are scored; whole groups of bal_rowdot(). */
enum { BAL_SCORE_PIECE = 2048 };

/* What is known of a row of logits after some pieces. */
typedef struct bal_running_score {
    real_t max, target;
    double sum;
    int32_t best;
    bool finite;
} bal_running_score;

struct bal_decoder {
    const bal_model *m;
    bal_decoder_options o;
    bal_arena arena;
    size_t kv_stride;              /* real_t of one key/value head of one slot and layer */
    real_t *keys, *values;         /* [layer][slot][head][kv_stride] */
    real_t *cosines[2], *sines[2]; /* [capacity][rotary_dim / 2]; [1]: of the layers with a window */
    real_t *fused;                 /* [rows][the widest matrix that is several] */
    real_t *x, *h, *q, *k, *v, *att, *gate, *up, *low; /* [rows][...] */
    real_t *picked, *logits, *scores, *scratch;
    real_t *site_scratch, *changed, *dense; /* of the adapters; an input that a method changed; dense changes of W */
    real_t **dense_of;                      /* [site] where in dense */
    size_t low_cols, scores_stride, n_want; /* n_want: also the rows of x after a step */
    const bal_decode_row *rows;             /* of the running step */
    const uint32_t *want;                   /* its wanted rows */
    bal_decode_row *asking;                 /* what they are */
    bool narrow; /* in the last block, when other rows are there too: only they have queries */
    size_t layer;
    real_t *half;               /* with bf16 products: room for their input; else NULL */
    bal_running_score *running; /* [rows or logits] */
};

/* out (may be x) = norm(x), rows x cols. */
void bal_decoder_norm(const bal_decoder *d, const real_t *x, const bal_norm *w, real_t *out, size_t rows, size_t cols);
/* y[i] = the i-th linear of x; they share the input. */
void bal_decoder_linears(bal_decoder *d, const bal_linear *const *l, real_t *const *y, size_t n_linears,
                         const real_t *x, size_t n);

#endif
