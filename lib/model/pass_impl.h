/* The inside of a pass, shared by pass.c, block.c and linear.c.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_PASS_IMPL_H
#define BAL_MODEL_PASS_IMPL_H

#include "lib/adapter/method.h"
#include "lib/base/mem.h"
#include "lib/model/pass.h"
#include "lib/nn/attention.h"

/* What the forward of one block leaves for its backward; T rows each. */
typedef struct bal_block_cache {
    real_t *x;                   /* the block's input, D */
    real_t *q, *k, *v, *o, *lse; /* q and k after the rotation */
    real_t *q_raw, *k_raw;       /* before the norm of each head, when there is one */
    real_t *attention_raw;       /* inputs of the norms after attention and MLP, D, when there are such */
    real_t *mlp_raw;
    real_t *middle;            /* residual stream after attention, D */
    real_t *gate, *up;         /* before the activation, I; without a gate `gate` is that of the one matrix */
    real_t *h[BAL_SLOT_COUNT]; /* the adapters' inner values */
    size_t h_width[BAL_SLOT_COUNT];
} bal_block_cache;

/* Buffers of the backward of one block. */
typedef struct bal_block_scratch {
    real_t *dx, *dnormed; /* T x D */
    real_t *dbranch;      /* T x D, with norms after attention and MLP or parallel branches */
    real_t *dq_raw, *dk_raw;
    real_t *dq, *dk, *dv, *dattention;
    real_t *dact, *dgate; /* T x I */
    real_t *delta;
    real_t *moments; /* what the backward of a norm keeps of each row, at most two values */
} bal_block_scratch;

/* What the attached adapters want of a pass's buffers, beside the inner values of each. */
typedef struct bal_site_needs {
    bool input;             /* a method changes the input */
    size_t output, scratch; /* widest output that a method changes; values of scratch */
} bal_site_needs;

struct bal_pass {
    bal_model *m;
    bal_pass_options options;
    bal_arena arena;
    size_t T;              /* tokens of the batch in work */
    bal_block_cache *kept; /* one a layer, when there is a backward */
    bal_block_cache work;  /* of the layer in work, when nothing is kept */
    real_t *stream[2];     /* input and output of the layer in work, when nothing is kept */
    real_t *last;          /* the student's input of the final norm, when there is a backward */
    real_t *final[2], *dfinal;
    real_t *narrow;               /* T x the width of an encoder's embeddings, when it is another */
    real_t *normed, *act, *panel; /* scratch of a block */
    real_t *row_scratch, *half;   /* of products whose bits depend on the row alone */
    size_t panel_elements;
    real_t *dropped, *ddropped;  /* T x widest input, with dropout or methods that change the input */
    real_t *alone;               /* T x widest output, with methods that change it */
    real_t *site_scratch;        /* of the adapters' methods */
    struct bal_site_needs needs; /* what the buffers were made for */
    bal_block_scratch back;
    real_t *fused;                 /* T x the widest matrix that is several */
    real_t *cosines[2], *sines[2]; /* [1]: of the layers with a window, when their base is another */
    int32_t *position;             /* rows of the learned positions */
    uint32_t *rope_row;
    double *frequencies;
    bal_attention attention;
    bal_attention_block *blocks, *query_blocks;
    uint32_t *want; /* rows of the batch whose final rows are wanted, ascending */
    size_t n_want;  /* 0: all */
    bal_hidden_fn *watch;
    void *watch_context;
    bal_input_fn *input_watch;
    void *input_watch_context;
    bal_rng rng;
    uint64_t dropout_key;  /* of this step: forward and backward make the same masks from it */
    size_t forward_tokens; /* of the student's last forward, 0: none */
};

/* One application of a linear module. */
typedef struct bal_linear_call {
    bal_pass *p;
    bal_linear *l;
    size_t layer;
    bal_slot slot;
    bool adapted; /* student: with the adapter */
    real_t *h;    /* T x hidden width of the adapter */
} bal_linear_call;

/* Y = X W^T + bias + adapter(X) + beta Y. */
void bal_linear_forward(const bal_linear_call *c, const real_t *X, real_t beta, real_t *Y);
/* dX = dY W + adapter's share + beta dX (dX may be NULL); gradients of weights, bias and adapter accumulate. */
void bal_linear_backward(const bal_linear_call *c, const real_t *X, const real_t *dY, real_t beta, real_t *dX);

/* Y(M, l->w.rows) = X W^T + bias + beta Y, without the adapter. */
void bal_pass_product(const bal_pass *p, const bal_linear *l, size_t M, const real_t *X, real_t beta, real_t *Y);

/* embed.c.  x: T x hidden, the input of the first block; and back from p->back.dx. */
void bal_pass_embed(bal_pass *p, const bal_batch *b, bool adapted, real_t *x);
void bal_pass_embed_back(bal_pass *p, const bal_batch *b);
void bal_pass_place_learned(bal_pass *p, const bal_batch *b);
bal_status bal_pass_check_types(const bal_pass *p, const bal_batch *b);

/* An adapter of c->l that works on the residual stream after the half block that c->l ends: on Y, and on its gradient. */
void bal_linear_stream_forward(const bal_linear_call *c, real_t *Y);
void bal_linear_stream_backward(const bal_linear_call *c, real_t *dY);

/* linear_panel.c: the same products with the adapter added to the weight; where it takes fewer operations. */
bool bal_linear_uses_panel(const bal_linear_call *c, bool backward);
size_t bal_linear_panel_size(const bal_linear *l, const bal_pass_options *o); /* elements of p->panel that l wants */
void bal_linear_panel_forward(const bal_linear_call *c, const real_t *X, real_t beta, real_t *Y);
void bal_linear_panel_backward(const bal_linear_call *c, const real_t *X, const real_t *dY, real_t beta, real_t *dX);

/* pieces.c.  y = norm(x), rows x D, with the adapter's copies or not; the backward adds to dx (may be NULL) and the
 * norm's gradients. */
void bal_pass_norm(const bal_pass *p, const bal_norm *n, bool adapted, size_t rows, size_t D, const real_t *x,
                   real_t *y);
void bal_pass_norm_back(const bal_pass *p, const bal_norm *n, size_t rows, size_t D, const real_t *x, const real_t *dy,
                        real_t *dx);
/* Copies whole (T x the sum of the widths) into its parts, or the parts into it. */
void bal_pass_parts(size_t T, real_t *whole, real_t *const *part, const size_t *width, size_t n_parts, bool join);
void bal_pass_add(size_t n, const real_t *x, real_t *y); /* y += x */

/* rows.c: the wanted rows, one below the other, from a buffer of all rows and back.  In the last block the second half
 * runs on them alone. */
bool bal_pass_narrows(const bal_pass *p, size_t layer); /* whether this is such a block, for this batch */
void bal_pass_choose_rows(bal_pass *p, const bal_batch *b);
/* to (may be x): n_want rows of x, which has all. */
void bal_pass_gather(const bal_pass *p, const real_t *x, size_t width, real_t *to);
/* In place: n_want rows become all, the others 0. */
void bal_pass_spread(const bal_pass *p, size_t T, real_t *x, size_t width);
void bal_pass_add_rows(const bal_pass *p, const real_t *rows, size_t width, real_t *x); /* x (all rows) += rows */

/* out(T, D) = the block on cache->x. */
void bal_block_forward(bal_pass *p, size_t layer, bal_block_cache *c, bool adapted, real_t *out);
/* p->back.dx: gradient of the block's output, becomes that of its input (if need_dx). */
void bal_block_backward(bal_pass *p, size_t layer, bal_block_cache *c, bool need_dx);

#endif
