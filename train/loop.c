/* The loop: batch, step, metrics, validation, checkpoint.  SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/base/clock.h"

#include <math.h>
#include <stdio.h>

enum { LINES_IN_A_RUN = 20, EVALUATIONS_IN_A_RUN = 10 };

static bal_status add_record(bal_batch *b, const bal_dataset *d, size_t i)
{
    return bal_batch_add(b, d->ids + d->start[i], d->labels + d->start[i], bal_dataset_length(d, i));
}

static bal_status fill(trainer *t)
{
    size_t batch = (size_t)t->config->batch_size;
    for (size_t i = 0; i < t->n_micro; i++)
        bal_batch_clear(&t->micro[i]);
    for (size_t i = 0; i < batch; i++) {
        size_t record = bal_order_at(&t->order, t->state.position + i);
        bal_status status = add_record(&t->micro[i / t->micro_size], &t->data, record);
        t->micro_records[i] = (uint32_t)record;
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

bal_status train_validate(trainer *t, double *loss)
{
    bal_status status = BAL_OK;
    double total = 0;
    size_t rows = 0;
    for (size_t i = 0; i < t->n_validation;) {
        bal_batch_clear(&t->quiet_batch);
        for (size_t j = 0; j < t->micro_size && i < t->n_validation; j++, i++)
            BAL_TRY(
                add_record(&t->quiet_batch, t->validation, t->validation_items != NULL ? t->validation_items[i] : i));
        bal_batch_finish(&t->quiet_batch, false);
        double sum = 0;
        size_t n = 0;
        BAL_TRY(bal_step_loss(&t->step, &t->quiet_batch, &sum, &n));
        total += sum;
        rows += n;
    }
    *loss = total / (double)rows;
out:
    return status;
}

static bal_status evaluate(trainer *t, double *loss, bool *stop)
{
    bal_status status = BAL_OK;
    train_state *s = &t->state;
    BAL_TRY(train_validate(t, loss));
    if (!isfinite(*loss))
        return bal_fail(BAL_ENUMERIC, "step %llu: the validation loss is not finite; lower the learning rate",
                        (unsigned long long)s->step);
    BAL_TRY(metrics_validation(t, *loss));
    if (!(s->best_validation <= *loss)) { /* also the first one, when the best is NaN */
        s->best_validation = *loss;
        s->best_step = s->step;
        s->evaluations_without_gain = 0;
        BAL_TRY(checkpoint_write_best(t));
    } else {
        s->evaluations_without_gain++;
    }
    bal_log_line(t->log, BAL_LOG_INFO, "step %llu: validation loss %.4f (best %.4f after step %llu)",
                 (unsigned long long)s->step, *loss, s->best_validation, (unsigned long long)s->best_step);
    int64_t patience = t->config->early_stopping_patience;
    *stop = patience > 0 && s->evaluations_without_gain >= (uint64_t)patience;
    if (*stop)
        bal_log_line(t->log, BAL_LOG_INFO, "stopped early: no better validation loss in %lld evaluations",
                     (long long)patience);
out:
    return status;
}

static void strengths(const trainer *t, bal_loss_weights *w, double lr[BAL_GROUP_COUNT])
{
    const train_config *c = t->config;
    const bal_loss_config *l = &t->step_config.loss;
    uint64_t now = t->state.step;
    double focus = bal_focus_factor(t->focus, now, t->max_steps, c->lambda_warmup_ratio, c->lambda_ramp_up_ratio);
    *w = (bal_loss_weights){l->lambda_consistency * bal_lambda1_factor(t->lambda1_cosine, now, t->max_steps),
                            l->lambda_diversity * focus, l->lambda_svd * focus};
    double factor = bal_lr_factor(t->lr_schedule, now, t->warmup, t->max_steps);
    bool plus = c->loraplus_lr_ratio > 0;
    lr[BAL_GROUP_BASE] = c->lr * factor;
    lr[BAL_GROUP_HEAD] = c->head_lr * factor;
    lr[BAL_GROUP_LORA_B] = (plus ? c->lr * c->loraplus_lr_ratio : c->lr) * factor;
    lr[BAL_GROUP_EMBEDDING] = (plus ? c->loraplus_lr_embedding : c->lr) * factor;
}

static bal_status one_step(trainer *t, bal_step_result *r)
{
    bal_status status = BAL_OK;
    bal_loss_weights w;
    double lr[BAL_GROUP_COUNT], began = bal_clock_seconds();
    strengths(t, &w, lr);
    BAL_TRY(fill(t));
    status = bal_step_run(&t->step, t->micro_list, t->n_micro, t->state.step + 1, lr, &w, r);
    if (status == BAL_ENUMERIC)
        status = bal_fail_note(status, "records %llu to %llu of the order", (unsigned long long)t->state.position,
                               (unsigned long long)(t->state.position + (uint64_t)t->config->batch_size - 1));
    BAL_TRY(status);
    double seconds = bal_clock_seconds() - began;
    train_state *s = &t->state;
    s->step++;
    s->position += (uint64_t)t->config->batch_size;
    s->skipped_steps += r->skipped;
    s->undefined_spectral += r->values.spectral_undefined;
    s->tokens += r->tokens;
    s->rows += r->rows;
    s->seconds += seconds;
    BAL_TRY(metrics_add(t, r, lr, seconds));
    BAL_TRY(metrics_flush(t, false));
out:
    return status;
}

static void say_step(const trainer *t, const bal_step_result *r, bool bar)
{
    uint64_t every = t->config->log_steps > 0 ? (uint64_t)t->config->log_steps : t->max_steps / LINES_IN_A_RUN;
    every = every < 1 ? 1 : every;
    if (bar || (t->state.step % every != 0 && t->state.step != t->max_steps))
        return;
    double rate = t->state.seconds > 0 ? (double)t->state.tokens / t->state.seconds : 0;
    bal_log_line(t->log, BAL_LOG_INFO, "step %llu/%llu  loss %.4f  gradient %.3g  %.0f tokens/s",
                 (unsigned long long)t->state.step, (unsigned long long)t->max_steps, r->values.task, r->grad_norm,
                 rate);
}

static bool save_due(const trainer *t)
{
    const train_config *c = t->config;
    if (t->state.step == t->max_steps)
        return false; /* the end of the run writes its own */
    bool by_steps = c->save_steps > 0 && t->state.step % (uint64_t)c->save_steps == 0;
    return by_steps || (c->save_seconds > 0 && bal_clock_seconds() - t->last_save >= c->save_seconds);
}

static bal_status run(trainer *t, bal_progress *bar, double *validation)
{
    bal_status status = BAL_OK;
    bool stop = false;
    uint64_t every = t->config->eval_steps > 0 ? (uint64_t)t->config->eval_steps : t->max_steps / EVALUATIONS_IN_A_RUN;
    every = every < 1 ? 1 : every;
    while (t->state.step < t->max_steps && !stop) {
        bal_step_result r;
        BAL_TRY(one_step(t, &r));
        char note[96];
        (void)snprintf(note, sizeof note, "loss %.4f  %.0f tokens/s", r.values.task,
                       (double)t->state.tokens / t->state.seconds);
        bal_progress_update(bar, t->state.step, note);
        say_step(t, &r, bar->on);
        if (t->validation != NULL && (t->state.step % every == 0 || t->state.step == t->max_steps))
            BAL_TRY(evaluate(t, validation, &stop));
        if (bal_interrupted()) {
            BAL_TRY(checkpoint_write(t));
            BAL_TRY(bal_fail(BAL_EINTERRUPT,
                             "interrupted after step %llu; --resume auto goes on from the checkpoint in %s",
                             (unsigned long long)t->state.step, t->config->out));
        }
        stop = stop || (t->config->stop_after > 0 && t->state.step >= (uint64_t)t->config->stop_after);
        if (save_due(t) && !stop)
            BAL_TRY(checkpoint_write(t));
    }
out:
    return status;
}

bal_status train_loop(trainer *t)
{
    bal_progress bar;
    double validation = (double)NAN;
    t->last_save = bal_clock_seconds();
    bal_progress_start(&bar, t->log, "training", "steps", t->max_steps, bal_options_common(t->options)->progress);
    bal_status status = run(t, &bar, &validation);
    bal_progress_done(&bar);
    if (status != BAL_OK)
        return status;
    BAL_TRY(checkpoint_write(t));
    BAL_TRY(checkpoint_finish(t));
    BAL_TRY(train_summary(t, validation));
out:
    return status;
}
