/* The spectral term of the logits Z (M x V) of a micro-batch, and its gradient with respect to the hidden rows:
 * minus the sum of the k leading singular values over the Frobenius norm, or over the sum of all of them (nuclear).
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_LOSS_SPECTRAL_H
#define BAL_LOSS_SPECTRAL_H

#include "lib/base/mem.h"
#include "lib/loss/lm_loss.h"
#include "lib/tensor/eigen.h"

struct head_layer;

typedef struct bal_spectral {
    const bal_model *model;
    size_t k, D1, max_rows, max_n, max_q, chunk_cols;
    bal_svd_norm norm;
    bool gram, randomised, train_head;
    bal_eigen eigen;
    /* Gram path, double */
    double *G, *root; /* E^T E and its square root, D1 x D1 (root only when there may be more rows than D1) */
    double *H, *HG;   /* max_rows x D1 */
    double *W;        /* work: D1 x D1, twice, or max_q x D1 */
    /* both */
    double *K, *U; /* max_n x max_n; rows are the left singular vectors, max_q x max_rows */
    double *P, *sigma, *c;
    double *sketch; /* randomised: max_rows x max_q, twice */
    /* logits path */
    real_t *X, *dX, *Z, *dZ, *Ur, *Pr, *panel;
    double *Zd;
    size_t panel_size;
} bal_spectral;

typedef struct bal_spectral_result {
    double value, sigma[BAL_MAX_SIGMA];
    size_t n_sigma;
    bool undefined; /* fewer than two rows, or F <= 1e-8: value 0, no gradient */
} bal_spectral_result;

/* Chooses the path and carves the buffers (arena may be a measuring one); eigen workspace bytes are extra. */
void bal_spectral_plan(bal_spectral *s, const bal_model *m, const bal_loss_config *c, size_t max_rows);
void bal_spectral_carve(bal_spectral *s, bal_arena *a);
size_t bal_spectral_eigen_bytes(const bal_spectral *s);
/* Computes G (and its root). */
bal_status bal_spectral_start(bal_spectral *s);
void bal_spectral_dispose(bal_spectral *s);
/* rows[0..M) of final; with dfinal non-NULL, weight times the gradient is added to it (and to the head's dw when it
 * is trained). */
bal_status bal_spectral_run(bal_spectral *s, const real_t *final, const uint32_t *rows, size_t M, double weight,
                            real_t *dfinal, bal_spectral_result *out);

#endif
