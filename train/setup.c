/* The parts of a run: model, adapter, data, batches, step.  SPDX-License-Identifier: Apache-2.0 */
#include "train/calibrate.h"
#include "train/teacher_cache.h"
#include "train/train.h"

#include "lib/adapter/method.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { AUTO_MICRO_TOKENS = 4096, DEFAULT_EVALUATIONS = 10, CONFIG_MAX_BYTES = 1 << 20 };

static bool is(const char *a, const char *b)
{
    return a != NULL && strcmp(a, b) == 0;
}

static bal_status load_model(trainer *t)
{
    const train_config *c = t->config;
    bal_status status = BAL_OK;
    bal_buf json = {0};
    if (is(t->command, "pretrain")) {
        BAL_TRY(bal_file_read(c->model_config, CONFIG_MAX_BYTES, &json));
        status = bal_model_new(&t->model, bal_buf_cstr(&json), (uint64_t)c->seed);
        if (status != BAL_OK)
            status = bal_fail_note(status, "%s", c->model_config);
        goto out;
    }
    BAL_TRY(bal_model_load(&t->model, c->model));
    if (t->full)
        BAL_TRY(bal_model_make_trainable(t->model));
out:
    bal_buf_dispose(&json);
    if (status == BAL_OK && t->full)
        t->params = &t->model->params;
    return status;
}

/* A start from given factors must be of the shape that the recipe names. */
static bal_status check_start(const trainer *t, const char *dir)
{
    const train_config *c = t->config;
    const bal_adapter_config *a = &t->adapter->config;
    const char *rank = t->method->rank_key != NULL ? t->method->rank_key : "r";
    if (bal_options_given(t->options, rank) && a->r != (size_t)c->r)
        return bal_fail(BAL_EINVAL, "%s is %lld, but the adapter in %s has rank %zu", rank, (long long)c->r, dir, a->r);
    if (bal_options_given(t->options, "lora_alpha") && a->lora_alpha != c->lora_alpha)
        return bal_fail(BAL_EINVAL, "lora_alpha is %g, but the adapter in %s has %g", c->lora_alpha, dir,
                        a->lora_alpha);
    if (bal_options_given(t->options, "bias") && !is(c->bias, bal_bias_name(a->bias)))
        return bal_fail(BAL_EINVAL, "bias is %s, but the adapter in %s has %s", c->bias, dir, bal_bias_name(a->bias));
    if (c->modules_to_save.n > 0)
        return bal_fail(BAL_EINVAL,
                        "which modules are saved whole is said by the adapter in %s; leave modules_to_save out", dir);
    if (c->use_rslora && !a->use_rslora)
        return bal_fail(BAL_EINVAL, "rsLoRA is asked for, but the adapter in %s is not scaled so", dir);
    return BAL_OK;
}

/* From --calibration-data, else from the first of the records that are trained on. */
static bal_status calibrated_adapter(trainer *t, const bal_adapter_config *a)
{
    const train_config *c = t->config;
    bool own = t->calibration.n > 0;
    size_t there = own ? t->calibration.n : t->n_train, asked = (size_t)c->calibration_samples;
    return train_calibrated_adapter(&t->adapter, a, t->model, own ? &t->calibration : &t->data,
                                    own ? NULL : t->train_items, asked < there ? asked : there,
                                    is(c->corda_method, "kpm"), (uint64_t)c->seed, t->log,
                                    bal_options_common(t->options)->progress);
}

static bal_status new_adapter(trainer *t)
{
    const train_config *c = t->config;
    bal_adapter_config a;
    bal_status status = train_adapter_config(t, &a);
    if (status == BAL_OK && train_packs_with_start(c))
        status = train_packed_adapter(t, &a);
    else if (status == BAL_OK && is(c->init, "corda"))
        status = calibrated_adapter(t, &a);
    else if (status == BAL_OK)
        status = bal_adapter_new(&t->adapter, &a, t->model->modules, t->model->n_modules, (uint64_t)c->seed, true);
    bal_adapter_config_dispose(&a);
    return status;
}

/* The adapter of --init-adapter or --adapter. */
static bal_status given_adapter(trainer *t, char *note, size_t note_bytes)
{
    const train_config *c = t->config;
    const char *dir = c->init_adapter != NULL ? c->init_adapter : c->adapter;
    const char *initial = c->init_adapter == NULL ? c->initial_adapter : t->residual ? dir : NULL;
    bal_status status =
        bal_adapter_load(&t->adapter, dir, initial, t->model->modules, t->model->n_modules, true, note, note_bytes);
    if (status == BAL_OK)
        status = train_check_method(t, dir);
    if (status == BAL_OK)
        status = train_check_selection(t, dir);
    return status == BAL_OK ? check_start(t, dir) : status;
}

static bal_status name_base(trainer *t)
{
    bal_adapter_config *a = &t->adapter->config;
    if (a->base_model != NULL && a->base_model[0] != '\0')
        return BAL_OK;
    bal_free(a->base_model);
    a->base_model = bal_strdup(t->config->model);
    return a->base_model != NULL ? BAL_OK : BAL_ENOMEM;
}

static bal_status make_adapter(trainer *t)
{
    const train_config *c = t->config;
    bal_status status = BAL_OK;
    char note[256] = "";
    BAL_TRY(train_load_base(t));
    if (t->resume_from != NULL)
        status = bal_adapter_load(&t->adapter, t->resume_from, NULL, t->model->modules, t->model->n_modules, true, note,
                                  sizeof note);
    else
        status = c->init_adapter != NULL || c->adapter != NULL ? given_adapter(t, note, sizeof note) : new_adapter(t);
    BAL_TRY(status);
    if (t->resume_from == NULL && c->lora_dropout > 0)
        t->adapter->config.lora_dropout = c->lora_dropout;
    BAL_TRY(name_base(t));
    t->residual = t->adapter->initial != NULL;
    if (note[0] != '\0')
        bal_log_line(t->log, BAL_LOG_WARN, "%s", note);
    BAL_TRY(bal_model_attach(t->model, t->adapter));
    if (t->model->head.site != NULL && t->adapter->config.lora_dropout > 0)
        BAL_TRY(bal_fail(BAL_EINVAL,
                         "lora_dropout %g does not reach an adapter on the output head ('%s'), whose weight is made "
                         "whole; leave one of them out",
                         t->adapter->config.lora_dropout, t->model->head.site->module));
    if (t->model->config.tied_head && t->model->head.w.data != t->model->embed.w.data)
        bal_log_line(t->log, BAL_LOG_WARN,
                     "the model's embedding is its head, too, and modules_to_save parts them: merging writes both "
                     "(--ensure-weight-tying keeps them one)");
    if (t->adapter->config.bias != BAL_BIAS_NONE && t->adapter->n_copies == 0)
        bal_log_line(t->log, BAL_LOG_WARN, "bias %s: %s has no biases, so that only the factors are trained",
                     bal_bias_name(t->adapter->config.bias),
                     t->adapter->config.bias == BAL_BIAS_ALL ? "this model" : "none of the adapted matrices");
    if (t->adapter->config.fan_in_fan_out && (is(t->config->method, "loha") || is(t->config->method, "lokr")))
        bal_log_line(t->log, BAL_LOG_WARN,
                     "peft has no %s for the Conv1D modules of a %s model: it cannot load this adapter",
                     bal_method_of(&t->adapter->config)->title, t->model->config.model_type);
    t->params = &t->adapter->params;
    if (c->loraplus_lr_ratio > 0 && bal_loraplus_groups(t->params) == 0)
        BAL_TRY(
            bal_fail(BAL_EINVAL, "method %s has no B whose rate loraplus_lr_ratio could set; leave it out", c->method));
out:
    return status;
}

/* Already tokenised data need no tokenizer, so one that is missing is an error only when text comes. */
static bal_status load_tokenizer(trainer *t, char *why, size_t why_bytes)
{
    const train_config *c = t->config;
    const char *path = c->tokenizer != NULL ? c->tokenizer : c->model;
    why[0] = '\0';
    if (path == NULL || (is(c->format, "tokens") && c->calibration_data == NULL))
        return BAL_OK;
    bal_status status = bal_tokenizer_load(&t->tokenizer, path);
    if (status != BAL_OK && c->tokenizer == NULL) {
        (void)snprintf(why, why_bytes, "%s", bal_error_message());
        t->tokenizer = NULL;
        return BAL_OK;
    }
    return status;
}

static bal_status load_set(trainer *t, bal_dataset *d, const char *path, const char *split, const bal_data_options *o,
                           const char *why)
{
    const bal_hub_options hub = {.log = t->log, .progress = bal_options_common(t->options)->progress};
    bal_status status = bal_dataset_load_named(d, path, split, &hub, t->tokenizer, o);
    if (status == BAL_EINVAL && t->tokenizer == NULL && why[0] != '\0')
        return bal_fail(BAL_ENOENT, "%s has records of text, and the model's tokenizer cannot be read: %s", path, why);
    return status;
}

static bal_status load_data(trainer *t)
{
    const train_config *c = t->config;
    bal_status status = BAL_OK;
    char why[512];
    size_t context = t->model->config.max_positions;
    bal_data_options o = {.train_on_prompt = c->train_on_prompt,
                          .max_length = (size_t)c->model_max_length,
                          .limit = (size_t)c->limit,
                          .vocab = t->model->config.vocab};
    if (context > 0 && o.max_length > context) {
        if (bal_options_given(t->options, "model_max_length"))
            return bal_fail(BAL_EINVAL, "model_max_length %zu is above the model's context of %zu tokens", o.max_length,
                            context);
        o.max_length = context;
    }
    BAL_TRY(bal_data_parse_format(c->format, &o.format));
    BAL_TRY(bal_data_parse_template(c->template_, &o.template));
    BAL_TRY(bal_data_parse_suffix(c->target_suffix, &o.suffix));
    BAL_TRY(load_tokenizer(t, why, sizeof why));
    BAL_TRY(load_set(t, &t->data, c->data, "train", &o, why));
    t->n_train = t->data.n;
    if (c->calibration_data != NULL && t->resume_from == NULL) {
        bal_data_options samples = o;
        samples.limit = (size_t)c->calibration_samples;
        BAL_TRY(bal_data_parse_format(c->calibration_format, &samples.format));
        BAL_TRY(load_set(t, &t->calibration, c->calibration_data, "train", &samples, why));
    }
    if (c->validation_data != NULL) {
        o.limit = 0;
        BAL_TRY(load_set(t, &t->validation_data, c->validation_data, "validation", &o, why));
        t->validation = &t->validation_data;
        t->n_validation = t->validation_data.n;
    } else if (c->validation_split > 0) {
        BAL_TRY(bal_split(t->data.n, c->validation_split, (uint64_t)c->seed, &t->train_items, &t->n_train,
                          &t->validation_items, &t->n_validation));
        t->validation = &t->data;
    }
out:
    return status;
}

static bal_status plan_steps(trainer *t)
{
    const train_config *c = t->config;
    size_t batch = (size_t)c->batch_size;
    if (c->max_steps > 0) {
        t->max_steps = (uint64_t)c->max_steps;
    } else {
        double steps = ceil(c->epochs * (double)t->n_train / (double)batch);
        if (!(steps < 1e9))
            return bal_fail(BAL_EINVAL, "%g epochs of %zu records are %g steps, more than 1e9", c->epochs, t->n_train,
                            steps);
        t->max_steps = steps < 1 ? 1 : (uint64_t)steps;
    }
    t->warmup =
        c->warmup_steps > 0 ? (uint64_t)c->warmup_steps : (uint64_t)ceil(c->warmup_ratio * (double)t->max_steps);
    t->micro_size = (size_t)c->micro_batch_size;
    if (t->micro_size == 0) {
        t->micro_size = AUTO_MICRO_TOKENS / t->data.longest;
        t->micro_size = t->micro_size < 1 ? 1 : t->micro_size > batch ? batch : t->micro_size;
    }
    t->n_micro = (batch + t->micro_size - 1) / t->micro_size;
    bal_order_kind kind = is(c->order, "file")     ? BAL_ORDER_FILE
                          : is(c->order, "length") ? BAL_ORDER_LENGTH
                                                   : BAL_ORDER_RANDOM;
    return bal_order_init(&t->order, kind, (uint64_t)c->seed, batch, &t->data, t->train_items, t->n_train);
}

/* The largest micro-batch that will come: the order is known, so the buffers need not be made for the worst case. */
static size_t largest_micro(trainer *t)
{
    size_t largest = 0, batch = (size_t)t->config->batch_size;
    for (uint64_t s = 0; s < t->max_steps; s++) {
        size_t tokens = 0;
        for (size_t i = 0; i < batch; i++) {
            if (i % t->micro_size == 0)
                tokens = 0;
            tokens += bal_dataset_length(&t->data, bal_order_at(&t->order, s * batch + i));
            largest = tokens > largest ? tokens : largest;
        }
        bool whole_epochs = t->order.kind == BAL_ORDER_FILE && s * batch >= t->n_train * batch;
        if (whole_epochs)
            break; /* the file's order repeats after n_train steps at the latest */
    }
    return largest;
}

static size_t largest_validation(const trainer *t)
{
    size_t largest = 0, tokens = 0;
    for (size_t i = 0; i < t->n_validation; i++) {
        if (i % t->micro_size == 0)
            tokens = 0;
        tokens += bal_dataset_length(t->validation, t->validation_items != NULL ? t->validation_items[i] : i);
        largest = tokens > largest ? tokens : largest;
    }
    return largest;
}

static bal_status make_batches(trainer *t)
{
    bal_status status = BAL_OK;
    size_t tokens = largest_micro(t), quiet = largest_validation(t), longest = t->data.longest;
    if (t->validation_data.longest > longest)
        longest = t->validation_data.longest;
    t->step_config.pass = (bal_pass_options){.max_tokens = tokens > quiet ? tokens : quiet,
                                             .max_seqs = t->micro_size,
                                             .max_seq_len = longest,
                                             .checkpoint_activations = t->config->checkpoint_activations,
                                             .dropout = t->full ? 0 : t->adapter->config.lora_dropout,
                                             .seed = (uint64_t)t->config->seed};
    t->step_config.share_prefix = t->config->share_prefix;
    t->step_config.pass.compute = t->step_config.loss.compute =
        is(t->config->compute, "bf16") ? BAL_COMPUTE_BF16 : BAL_COMPUTE_F32;
    t->micro = bal_alloc(t->n_micro, sizeof *t->micro);
    t->micro_list =
        bal_alloc(t->n_micro, sizeof(bal_batch *)); // NOLINT(bugprone-sizeof-expression): pointers are meant
    t->micro_records = bal_alloc(t->n_micro * t->micro_size, sizeof *t->micro_records);
    if (t->micro == NULL || t->micro_list == NULL || t->micro_records == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < t->n_micro; i++) {
        BAL_TRY(bal_batch_init(&t->micro[i], tokens, t->micro_size));
        t->micro_list[i] = &t->micro[i];
    }
    if (t->validation != NULL)
        BAL_TRY(bal_batch_init(&t->quiet_batch, quiet, t->micro_size));
out:
    return status;
}

static bal_status load_teacher(void *context, size_t index, const bal_batch *b, real_t *final, bool *found)
{
    const trainer *t = context;
    return teacher_cache_load(t->cache, t->micro_records + index * t->micro_size, b, final, found);
}

static bal_status save_teacher(void *context, size_t index, const bal_batch *b, real_t *final)
{
    const trainer *t = context;
    return teacher_cache_save(t->cache, t->micro_records + index * t->micro_size, b, final);
}

static bal_status open_teacher_cache(trainer *t)
{
    const train_config *c = t->config;
    if (c->teacher_cache == NULL)
        return BAL_OK;
    if (t->full || (t->step_config.loss.lambda_consistency == 0 && !t->step_config.adaptive))
        return bal_fail(BAL_EINVAL, "teacher_cache is given, but this recipe has no teacher (lambda_consistency is 0)");
    t->step_config.teacher_rows = (bal_teacher_store){t, load_teacher, save_teacher};
    return teacher_cache_open(&t->cache, c->teacher_cache, t->model, &t->data, t->step_config.unshifted_regularisers,
                              is(c->teacher_cache_dtype, "bf16"));
}

bal_status train_setup(trainer *t)
{
    bal_status status = BAL_OK;
    BAL_TRY(load_model(t));
    BAL_TRY(load_data(t));
    if (!t->full)
        BAL_TRY(make_adapter(t));
    BAL_TRY(plan_steps(t));
    BAL_TRY(train_begin_method(t));
    BAL_TRY(make_batches(t));
    BAL_TRY(train_estimate(t));
    BAL_TRY(open_teacher_cache(t));
    train_announce(t);
    BAL_TRY(bal_step_init(&t->step, t->model, t->params, &t->step_config));
    if (t->resume_from != NULL)
        BAL_TRY(checkpoint_read_tensors(t));
out:
    return status;
}

void train_dispose(trainer *t)
{
    bal_step_dispose(&t->step);
    for (size_t i = 0; t->micro != NULL && i < t->n_micro; i++)
        bal_batch_dispose(&t->micro[i]);
    bal_free(t->micro);
    bal_free(t->micro_list);
    bal_free(t->micro_records);
    teacher_cache_close(t->cache);
    bal_batch_dispose(&t->quiet_batch);
    bal_order_dispose(&t->order);
    bal_free(t->train_items);
    bal_free(t->validation_items);
    bal_dataset_dispose(&t->data);
    bal_dataset_dispose(&t->validation_data);
    bal_dataset_dispose(&t->calibration);
    bal_tokenizer_free(t->tokenizer);
    if (t->model != NULL && t->adapter != NULL)
        (void)bal_model_attach(t->model, NULL);
    bal_adapter_free(t->adapter);
    bal_model_free(t->model);
    bal_free(t->resume_from);
}
