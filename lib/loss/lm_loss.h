/* The head and the losses of a causal language model on the labelled rows: cross entropy and BA-LoRA's three terms
 * for generation (Chang, Chang, Wu, arXiv 2408.04556; formulas and gradients: DESIGN section 6).  Rows are
 * processed in chunks: logits of all rows are never stored.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_LOSS_LM_LOSS_H
#define BAL_LOSS_LM_LOSS_H

#include "lib/model/batch.h"
#include "lib/model/model.h"
#include "lib/tensor/gemm.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum bal_svd_norm { BAL_SVD_FROBENIUS, BAL_SVD_NUCLEAR } bal_svd_norm;
typedef enum bal_consistency { BAL_CONSISTENCY_KL, BAL_CONSISTENCY_NORMALIZED_MSE } bal_consistency;
/* auto: through G = E^T E when the head is linear and frozen, else over the logits in chunks. */
typedef enum bal_svd_solver { BAL_SVD_AUTO, BAL_SVD_GRAM, BAL_SVD_LOGITS, BAL_SVD_RANDOMISED } bal_svd_solver;

typedef struct bal_loss_config {
    double lambda_consistency, lambda_diversity, lambda_svd; /* base values; 0: the term is off and costs nothing */
    bal_consistency consistency;
    double temperature;
    size_t top_k_entropy; /* 0, or >= vocabulary: the whole vocabulary */
    size_t svd_top_k;
    bal_svd_norm svd_norm;
    bal_svd_solver svd_solver;
    bool need_teacher;   /* teacher entropy is wanted even with lambda_consistency 0 (adaptive lambda1) */
    bal_compute compute; /* of the head's products */
    size_t chunk_rows;   /* 0: chosen */
    bool train_head;     /* also accumulate the head's dw (full fine-tuning) */
} bal_loss_config;

/* Strength of the terms now (base value times schedule).  With base != 0 and current 0 the value is computed, the
 * gradient is not. */
typedef struct bal_loss_weights {
    double consistency, diversity, svd;
} bal_loss_weights;

enum { BAL_MAX_SIGMA = 16 };

typedef struct bal_loss_values { /* before lambda; NaN for a term that is off */
    double task, consistency, diversity, spectral, total;
    double teacher_entropy;      /* mean over regulariser rows at temperature T; NaN without teacher */
    double sigma[BAL_MAX_SIGMA]; /* leading singular values of the logits, as far as computed */
    size_t n_sigma;
    size_t n_rows, n_reg_rows;
    size_t spectral_undefined; /* micro-batches whose spectral term was 0 by rule (M < 2 or F <= 1e-8) */
} bal_loss_values;

typedef struct bal_lm_loss bal_lm_loss;

size_t bal_lm_loss_bytes(const bal_model *m, const bal_loss_config *c, size_t max_tokens);
bal_status bal_lm_loss_new(bal_lm_loss **out, const bal_model *m, const bal_loss_config *c, size_t max_tokens);
void bal_lm_loss_free(bal_lm_loss *l); /* accepts NULL */

/* Adds this micro-batch's share of the step's losses to *values (start from bal_loss_values_zero()) and the gradient
 * of the total to dfinal (T x hidden).  final, teacher: T x hidden after the final norm; teacher may be NULL when no
 * term needs it.  step_rows, step_reg_rows: N of the whole optimiser step (for one micro-batch: its own counts);
 * task, consistency and diversity are divided by N, the spectral term is weighted by M/N (DESIGN section 6).
 * dfinal NULL: values only.  dconsistency (T x hidden) non-NULL: the gradient of the consistency term, at strength 1,
 * is added there instead, for the caller to scale when the step's teacher entropy is known (adaptive lambda1). */
bal_status bal_lm_loss_run(bal_lm_loss *l, const bal_batch *b, const real_t *final, const real_t *teacher,
                           size_t step_rows, size_t step_reg_rows, const bal_loss_weights *w, bal_loss_values *values,
                           real_t *dfinal, real_t *dconsistency);
void bal_loss_values_zero(bal_loss_values *v, const bal_loss_config *c);
/* total = task + lambda_i * term_i, after the last micro-batch. */
void bal_loss_values_finish(bal_loss_values *v, const bal_loss_weights *w);

/* Logits of rows[0..n) (n x vocab) of final, for `forward`; adapted: of the student.  Also of an encoder, by its head for
 * masked tokens. */
bal_status bal_lm_logits(const bal_model *m, const real_t *final, const uint32_t *rows, size_t n, bool adapted,
                         real_t *logits);

#endif
