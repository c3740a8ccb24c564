/* One optimiser step: forward of student and teacher, losses, backward over the micro-batches, clipping, AdamW.
 * All memory is taken when the step is made; nothing is allocated while it runs.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_OPTIM_STEP_H
#define BAL_OPTIM_STEP_H

#include "lib/loss/lm_loss.h"
#include "lib/model/pass.h"
#include "lib/optim/optim.h"

#include <stdbool.h>
#include <stddef.h>

/* Where the teacher's final rows may come from instead of its forward pass.  index: which micro-batch of the step. */
typedef struct bal_teacher_store {
    void *context; /* NULL: no store */
    /* Fills the regulariser rows of final (T x hidden); *found false: not all of them are there. */
    bal_status (*load)(void *context, size_t index, const bal_batch *b, real_t *final, bool *found);
    /* Keeps the regulariser rows of final; may round them in place. */
    bal_status (*save)(void *context, size_t index, const bal_batch *b, real_t *final);
} bal_teacher_store;

typedef struct bal_step_config {
    bal_loss_config loss;
    bal_adamw_config adamw;
    bal_pass_options pass;       /* max_*, dropout, seed, checkpoint_activations; backward and teacher are set here */
    double max_grad_norm;        /* 0: no clipping */
    bool unshifted_regularisers; /* --compat llm172 */
    bool micro_batch_means;      /* --compat llm172: every micro-batch counts the same, whatever its rows */
    bool adaptive;               /* lambda of the consistency term from the teacher's entropy */
    double adaptive_min, adaptive_max;
    bal_teacher_store teacher_rows;
    bool share_prefix;    /* the tokens that all sequences of a micro-batch begin with are computed once */
    bal_adapter *adapter; /* that which is trained, whose method may do more in a step; NULL: none */
    bool validate;        /* a second set of buffers for bal_step_loss(): no dropout, no gradient */
} bal_step_config;

typedef struct bal_step {
    bal_step_config config;
    bal_model *model;
    bal_params *params;
    bal_pass *pass, *quiet;   /* quiet: for validation */
    bal_lm_loss *loss, *task; /* task: cross entropy alone */
    bal_adamw adamw;
    real_t *dconsistency; /* T x hidden when adaptive */
    bool teacher;         /* the teacher runs in every step */
} bal_step;

typedef struct bal_step_result {
    bal_loss_values values;
    bal_loss_weights weights; /* in force, the adaptive one resolved */
    double grad_norm;         /* before clipping; NaN for a skipped step */
    double penalty;           /* of the adapter's method, before its weight; in values.total.  NaN: none */
    double ranks;             /* left in all modules, of a method that takes some away; NaN otherwise */
    size_t tokens, rows;
    bool skipped; /* no labelled row: nothing was updated */
} bal_step_result;

/* Bytes that bal_step_init() will allocate (pass, losses, moments); an upper estimate for the user. */
size_t bal_step_bytes(const bal_model *m, const bal_params *p, const bal_step_config *c);
/* params: the adapter's or, for full fine-tuning, the model's.  The adapter is already attached. */
bal_status bal_step_init(bal_step *s, bal_model *m, bal_params *params, const bal_step_config *c);
void bal_step_dispose(bal_step *s); /* accepts a zeroed struct */

/* Runs step number `step` (from 1, for messages) over micro[0..n).  weights: base lambda times schedule (consistency
 * is overridden when adaptive).  lr[BAL_GROUP_COUNT].  BAL_ENUMERIC names step, micro-batch and tensor when something is not
 * finite; parameters and moments are then as before the step. */
bal_status bal_step_run(bal_step *s, bal_batch *const *micro, size_t n, size_t step, const double *lr,
                        const bal_loss_weights *weights, bal_step_result *result);
/* Sum of the cross entropy over the labelled rows of b, and their number: for validation. */
bal_status bal_step_loss(bal_step *s, const bal_batch *b, double *sum, size_t *rows);

#endif
