/* A training run: its options, its parts, and what the files of this room do to it.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TRAIN_TRAIN_H
#define BAL_TRAIN_TRAIN_H

#include "lib/data/dataset.h"
#include "lib/data/order.h"
#include "lib/io/options.h"
#include "lib/io/store.h"
#include "lib/loss/loss_options.h"
#include "lib/optim/step.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The options, as in the tables of train_options.c; `pretrain` leaves some at their defaults. */
typedef struct train_config {
    const char *model, *model_config, *tokenizer, *data, *format, *template_, *target_suffix, *out, *method, *init;
    const char *init_adapter, *adapter, *initial_adapter, *order, *lr_scheduler, *lambda1_schedule,
        *lambda_focus_schedule;
    const char *validation_data, *resume, *metrics_out, *name, *experiment, *dtype, *teacher_cache,
        *teacher_cache_dtype, *compute;
    const char *base_dtype, *reference_model, *corda_method, *calibration_data, *calibration_format;
    const char *non_linearity;
    bal_text_list target_modules, feedforward_modules, exclude_modules, layers_to_transform, layers_pattern,
        rank_pattern, alpha_pattern, modules_to_save;
    const char *bias;
    bool use_dora, lora_bias, ensure_weight_tying;
    bal_loss_options loss;
    bool decompose_both, save_projection;
    int64_t decompose_factor, projection_prng_key, init_r, target_r, tinit, tfinal, delta_t, total_step;
    double beta1, beta2, orth_reg_weight;
    double alpha, vera_dropout, d_initial, reduction_factor;
    bool train_on_prompt, use_rslora, adaptive, checkpoint_activations, share_prefix, overwrite, store, memory_check;
    int64_t r, batch_size, micro_batch_size, max_steps, warmup_steps, seed, limit, model_max_length, eval_steps;
    int64_t early_stopping_patience, save_steps, save_total_limit, log_steps, stop_after, calibration_samples,
        loftq_iter;
    double lora_alpha, lora_dropout, lr, head_lr, loraplus_lr_ratio, loraplus_lr_embedding, epochs, warmup_ratio,
        weight_decay, adam_beta1, adam_beta2, adam_epsilon;
    double max_grad_norm, lambda_warmup_ratio, lambda_ramp_up_ratio, lambda1_min, lambda1_max, validation_split,
        save_seconds;
} train_config;

extern const bal_command train_command, pretrain_command;

/* Where a run stands after `step` finished optimiser steps: what a checkpoint keeps besides parameters and moments. */
typedef struct train_state {
    uint64_t step, position; /* position: records taken from the stream */
    uint64_t skipped_steps, undefined_spectral;
    double best_validation; /* NaN: none yet */
    uint64_t best_step, evaluations_without_gain;
    bal_rng dropout;
    uint64_t tokens, rows;
    double seconds; /* of training, over all starts */
} train_state;

enum { TRAIN_COLUMNS = 17, TRAIN_BUFFERED = 256, TRAIN_MAX_BUFFERED = 1 << 16 };

typedef struct train_row { /* of the metrics, kept until the next write into the store */
    uint64_t step;
    double value[TRAIN_COLUMNS];
    double validation;
    bool validated;
} train_row;

typedef struct train_metrics {
    FILE *file;
    const char *path;
    bal_store *store;
    int64_t run;
    char uuid[33];
    train_row *rows;
    size_t n_rows, cap; /* cap grows while another process holds the database */
    double last_flush;
} train_metrics;

typedef struct trainer {
    const train_config *config;
    bal_options *options;
    const bal_log *log;
    const char *command; /* "train" or "pretrain" */
    int argc;
    char **argv;
    bool full, residual;             /* residual: PiSSA start */
    const struct bal_method *method; /* of the adapter; NULL for full */
    bool made_out;                   /* --out was not there before */
    bal_model *model;
    bal_adapter *adapter; /* NULL for full */
    bal_params *params;
    bal_tokenizer *tokenizer;
    bal_dataset data, validation_data, calibration;
    const bal_dataset *validation; /* NULL: none */
    uint32_t *train_items, *validation_items;
    size_t n_train, n_validation;
    bal_order order;
    bal_batch *micro; /* [n_micro] */
    bal_batch **micro_list;
    uint32_t *micro_records;     /* [n_micro * micro_size] which records they hold */
    struct teacher_cache *cache; /* NULL: none */
    size_t n_micro, micro_size;
    bal_batch quiet_batch; /* for validation */
    bal_step_config step_config;
    bal_step step;
    uint64_t max_steps, warmup;
    bal_lr_schedule lr_schedule;
    bal_focus_schedule focus;
    bool lambda1_cosine;
    size_t bytes_needed; /* by the step */
    size_t bytes_whole;  /* by the process, at its peak */
    char *resume_from;   /* checkpoint folder, NULL: from the start */
    train_state state;
    train_metrics metrics;
    double started, last_save;
    bool memory_estimated;
} trainer;

/* train_options.c: what the options mean together; fills the resolved parts of t that need no model. */
bal_status train_resolve(trainer *t, train_config *c);

/* method.c: t->method of config.method, and what its options may be; the adapter's configuration once the model is
 * loaded (the caller disposes of it); a given adapter must be of the method that the recipe names. */
bal_status train_resolve_row(trainer *t, train_config *c);
bal_status train_adapter_config(const trainer *t, bal_adapter_config *a);
bal_status train_check_method(const trainer *t, const char *dir);
/* What the method does at each step: its beginning, once the number of steps is known. */
bal_status train_begin_method(trainer *t);
/* adapter_options.c: which modules it is on, with which ranks and scales (target_modules only when given). */
bal_status train_adapter_selection(const trainer *t, bal_adapter_config *a);
/* A warm start from dir: BAL_EINVAL when options that choose modules, ranks or scales are given and say other ones than the
 * adapter has (they would change nothing). */
bal_status train_check_selection(const trainer *t, const char *dir);

/* setup.c: model, adapter, data, batches; then the step (buffers), after the memory estimate. */
bal_status train_setup(trainer *t);
void train_dispose(trainer *t);
/* base.c: a base that is packed in memory (--base-dtype), and starts that are made together with it. */
bool train_packs_with_start(const train_config *c);
bal_status train_check_base(const trainer *t, const train_config *c);
bal_status train_load_base(trainer *t); /* before the adapter */
bal_status train_packed_adapter(trainer *t, const bal_adapter_config *config);
/* What the adapter in dir was trained on; with a packed start also the pair over the packed matrices, dir/over_base. */
bal_status train_save_base(const trainer *t, const char *dir);
/* estimate.c */
bal_status train_estimate(trainer *t);

/* announce.c: what is said at the start and at the end. */
void train_announce(const trainer *t);
bal_status train_summary(const trainer *t, double validation);

/* checkpoint.c */
/* Sets t->resume_from by --resume; BAL_ENOENT when the named folder is no checkpoint. */
bal_status checkpoint_find(trainer *t);
/* Reads state and checks that the recipe is the same (before the model is loaded: t->state and metrics.uuid). */
bal_status checkpoint_read_state(trainer *t);
/* Parameters (full) and moments, once the step exists. */
bal_status checkpoint_read_tensors(trainer *t);
bal_status checkpoint_write(trainer *t);
/* Writes the finished model or adapter into --out. */
bal_status checkpoint_finish(trainer *t);
/* The best adapter so far, in out/best. */
bal_status checkpoint_write_best(trainer *t);
/* Refuses an --out that cannot be written, or holds a run that is not to be continued. */
bal_status checkpoint_prepare_out(trainer *t);

/* metrics.c */
/* The run row; before the model is loaded, so that a locked database is known at once and a failed start is recorded. */
bal_status metrics_open_store(trainer *t);
/* --metrics-out; after all that can be wrong with the data. */
bal_status metrics_open_file(trainer *t);
bal_status metrics_add(trainer *t, const bal_step_result *r, const double *lr, double seconds);
bal_status metrics_validation(trainer *t, double loss);
/* force: now; else when enough has gathered or time has passed. */
bal_status metrics_flush(trainer *t, bool force);
bal_status metrics_close(trainer *t, bal_status status);

/* loop.c */
bal_status train_loop(trainer *t);
/* Mean loss over the validation set. */
bal_status train_validate(trainer *t, double *loss);

/* cmd_train.c: the whole run of both commands. */
int train_main(const bal_command *command, int argc, char **argv);

#endif
