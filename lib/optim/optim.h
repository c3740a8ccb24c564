/* AdamW with decoupled decay, global-norm clipping, and the schedules of learning rate and of BA-LoRA's lambdas.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_OPTIM_OPTIM_H
#define BAL_OPTIM_OPTIM_H

#include "lib/base/status.h"
#include "lib/tensor/params.h"

#include <stddef.h>
#include <stdint.h>

typedef struct bal_adamw_config {
    double beta1, beta2, epsilon, weight_decay;
} bal_adamw_config;

/* First and second moments, f32 (real_t), laid out like the params; t = updates done. */
typedef struct bal_adamw {
    bal_adamw_config config;
    real_t *m, *v;
    size_t n;
    uint64_t t;
} bal_adamw;

bal_status bal_adamw_init(bal_adamw *o, const bal_adamw_config *c, size_t n);
void bal_adamw_dispose(bal_adamw *o);
/* One update as torch.optim.AdamW; lr[BAL_GROUP_COUNT], per segment group.  Elementwise, parallel, same bits for any thread count. */
void bal_adamw_step(bal_adamw *o, bal_params *p, const double *lr);
/* Puts the segments into LoRA+'s groups by their names, as peft's create_loraplus_optimizer: factors of embeddings, B
 * and vectors (biases, magnitudes), and all others, which keep the group that they have (a head its own).  Returns the
 * number of B's.  Hayou, Ghosh, Yu 2024, arXiv 2402.12354: B's rate is a multiple of A's. */
size_t bal_loraplus_groups(bal_params *p);
/* Euclidean norm of all gradients, summed in double. */
double bal_grad_norm(const bal_params *p);
/* grads *= min(1, max_norm / (norm + 1e-6)), as torch.nn.utils.clip_grad_norm_; max_norm 0: off. */
void bal_grad_clip(bal_params *p, double norm, double max_norm);
void bal_grad_zero(bal_params *p);

typedef enum bal_lr_schedule { BAL_LR_CONSTANT, BAL_LR_COSINE, BAL_LR_LINEAR } bal_lr_schedule;
/* Factor of the learning rate at update t (from 0): t/warmup for t < warmup, then the schedule to 0 at max_steps. */
double bal_lr_factor(bal_lr_schedule s, uint64_t t, uint64_t warmup, uint64_t max_steps);

typedef enum bal_focus_schedule {
    BAL_FOCUS_NONE,
    BAL_FOCUS_TWO_PHASE,
    BAL_FOCUS_LINEAR,
    BAL_FOCUS_QUADRATIC
} bal_focus_schedule;
/* Factor of lambda2 and lambda3 after t finished steps (DESIGN section 6). */
double bal_focus_factor(bal_focus_schedule s, uint64_t t, uint64_t max_steps, double warmup_ratio, double ramp_ratio);
/* Factor of lambda1: 1, or cosine from 1 to 0.1. */
double bal_lambda1_factor(int cosine, uint64_t t, uint64_t max_steps);
/* Adaptive lambda1: minimum + (maximum - minimum) (1 - H / ln V), H the teacher's mean entropy (nats), clamped to
 * [0, ln V]: the surer the teacher, the stronger the pull. */
double bal_lambda1_adaptive(double minimum, double maximum, double entropy, size_t vocab);

#endif
