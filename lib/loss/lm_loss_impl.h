/* What the files of lib/loss share; nobody else includes this.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_LOSS_LM_LOSS_IMPL_H
#define BAL_LOSS_LM_LOSS_IMPL_H

#include "lib/base/mem.h"
#include "lib/loss/lm_loss.h"
#include "lib/loss/rows.h"
#include "lib/loss/spectral.h"

/* One row of student and teacher logits, soft-capped already.  The terms wanted are those with a non-NULL scratch or
 * a flag; gradients are those with a non-zero strength. */
typedef struct row_request {
    const bal_row_ops *ops;
    size_t V, top_k; /* top_k 0: the whole vocabulary */
    double T, cap;
    bal_consistency form;
    bool task, consistency, diversity, entropy; /* entropy: the teacher's */
    bool gradient;                              /* z becomes dL/dz of task, diversity and (unless apart) consistency */
    bool apart;                                 /* zt becomes the consistency gradient at strength 1 / N */
    double a_task, a_consistency, a_diversity;  /* strength / N */
} row_request;

typedef struct row_result {
    double task, consistency, diversity, entropy;
} row_result;

/* Scratch of one thread: V values, and top_k values with their columns. */
typedef struct row_scratch {
    real_t *g, *top;
    uint32_t *column;
} row_scratch;

/* z, zt (NULL when no term needs the teacher) are overwritten, see row_request.  target < V. */
void bal_loss_row(const row_request *q, real_t *z, real_t *zt, int32_t target, const row_scratch *s, row_result *out);

/* The output layer, read panel by panel of the vocabulary when it is not stored as real_t. */
typedef struct head_layer {
    bal_linear_parts head; /* the adapter's copy or the model's own */
    const bal_site *site;  /* the student's adapter on it, NULL: none */
    bal_compute compute;
    size_t V, D, panel_rows;
    double cap;
} head_layer;

/* Whether the student's head is another matrix than the teacher's, and whether it is trained. */
bool bal_head_differs(const bal_model *m);
bool bal_head_trains(const bal_model *m, const bal_loss_config *c);
/* adapted: as the student has it. */
head_layer bal_head_of(const bal_model *m, bal_compute compute, bool adapted);
/* Elements of the panel that the functions below need for M rows. */
size_t bal_head_panel_size(const head_layer *h, size_t M);
/* Z(M, n) = X E[v0..v0+n)^T + bias, n <= V; capped when `capped`. */
void bal_head_logits(const head_layer *h, size_t M, const real_t *X, size_t v0, size_t n, real_t *Z, size_t ldz,
                     real_t *panel, bool capped);
/* dX(M, D) = beta dX + dZ(M, n) E[v0..v0+n). */
void bal_head_backward(const head_layer *h, size_t M, const real_t *dZ, size_t ldz, size_t v0, size_t n, real_t beta,
                       real_t *dX, real_t *panel);
/* The head's own gradients += dZ^T X, column sums of dZ; those of its adapter. */
void bal_head_weight_grad(const head_layer *h, size_t M, const real_t *dZ, size_t ldz, size_t v0, size_t n,
                          const real_t *X, real_t *panel);

#endif
