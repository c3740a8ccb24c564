/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/optim/step.h"

#include "lib/adapter/method.h"
#include "lib/base/mem.h"

#include <math.h>

/* A shorter common beginning is not worth its own block of attention. */
enum { LEAST_SHARED = 8 };

static bool wants_teacher(const bal_step_config *c)
{
    return c->loss.lambda_consistency != 0 || c->adaptive || c->loss.need_teacher;
}

static bal_pass_options pass_options(const bal_step_config *c)
{
    bal_pass_options o = c->pass;
    o.backward = o.labelled_rows_only = true;
    o.teacher = wants_teacher(c);
    return o;
}

static bal_pass_options quiet_options(const bal_step_config *c)
{
    bal_pass_options o = c->pass;
    o.backward = o.teacher = o.checkpoint_activations = false;
    o.labelled_rows_only = true;
    o.dropout = 0;
    return o;
}

static bal_loss_config task_config(const bal_step_config *c)
{
    bal_loss_config l = c->loss;
    l.lambda_consistency = l.lambda_diversity = l.lambda_svd = 0;
    l.need_teacher = l.train_head = false;
    return l;
}

size_t bal_step_bytes(const bal_model *m, const bal_params *p, const bal_step_config *c)
{
    bal_pass_options full = pass_options(c), quiet = quiet_options(c);
    bal_loss_config task = task_config(c);
    size_t bytes = bal_pass_bytes(m, &full) + bal_lm_loss_bytes(m, &c->loss, c->pass.max_tokens);
    if (c->validate)
        bytes += bal_pass_bytes(m, &quiet) + bal_lm_loss_bytes(m, &task, c->pass.max_tokens);
    if (c->adaptive)
        bytes += c->pass.max_tokens * m->config.hidden * sizeof(real_t);
    return bytes + 2 * p->n * sizeof(real_t);
}

bal_status bal_step_init(bal_step *s, bal_model *m, bal_params *params, const bal_step_config *c)
{
    bal_status status;
    *s = (bal_step){.config = *c, .model = m, .params = params, .teacher = wants_teacher(c)};
    s->config.loss.need_teacher = c->loss.need_teacher || c->adaptive;
    bal_pass_options full = pass_options(c);
    BAL_TRY(bal_pass_new(&s->pass, m, &full));
    BAL_TRY(bal_lm_loss_new(&s->loss, m, &s->config.loss, c->pass.max_tokens));
    if (c->validate) {
        bal_pass_options quiet = quiet_options(c);
        bal_loss_config task = task_config(c);
        BAL_TRY(bal_pass_new(&s->quiet, m, &quiet));
        BAL_TRY(bal_lm_loss_new(&s->task, m, &task, c->pass.max_tokens));
    }
    if (c->adaptive) {
        s->dconsistency = bal_alloc(c->pass.max_tokens, m->config.hidden * sizeof(real_t));
        if (s->dconsistency == NULL) {
            status = BAL_ENOMEM;
            goto out;
        }
    }
    BAL_TRY(bal_adamw_init(&s->adamw, &c->adamw, params->n));
    return BAL_OK;
out:
    bal_step_dispose(s);
    return status;
}

void bal_step_dispose(bal_step *s)
{
    if (s == NULL)
        return;
    bal_pass_free(s->pass);
    bal_pass_free(s->quiet);
    bal_lm_loss_free(s->loss);
    bal_lm_loss_free(s->task);
    bal_adamw_dispose(&s->adamw);
    bal_free(s->dconsistency);
    *s = (bal_step){0};
}

static bool off_or_finite(double value, double lambda)
{
    return lambda == 0 || isfinite(value);
}

/* The name of what is not finite in the losses, NULL if all is well. */
static const char *broken_loss(const bal_loss_values *v, const bal_loss_config *c)
{
    if (!isfinite(v->task))
        return "loss/task";
    if (!off_or_finite(v->consistency, c->lambda_consistency))
        return "loss/consistency";
    if (!off_or_finite(v->diversity, c->lambda_diversity))
        return "loss/diversity";
    if (!off_or_finite(v->spectral, c->lambda_svd))
        return "loss/spectral";
    return NULL;
}

static bal_status fail_loss(bal_step *s, const bal_batch *b, size_t step, size_t index, const char *what)
{
    const real_t *final = bal_pass_final(s->pass, BAL_STUDENT);
    size_t d = s->model->config.hidden;
    for (size_t i = 0; i < b->n_tokens * d; i++)
        if (!isfinite(final[i]))
            return bal_fail(BAL_ENUMERIC,
                            "step %zu: %s is not finite in micro-batch %zu, nor is the final hidden state of its token "
                            "%zu (id %d); lower the learning rate, or look at that record",
                            step, what, index + 1, i / d, (int)b->tokens[i / d]);
    return bal_fail(
        BAL_ENUMERIC,
        "step %zu: %s is not finite in micro-batch %zu (%zu sequences, %zu labelled rows) though the hidden "
        "states are; lower the learning rate or the weight of the term",
        step, what, index + 1, b->n_seqs, b->n_rows);
}

static bal_status fail_gradient(const bal_params *p, size_t step)
{
    for (size_t i = 0; i < p->n_segments; i++) {
        const bal_segment *seg = &p->segments[i];
        for (size_t j = 0; j < seg->n; j++)
            if (!isfinite(p->grads[seg->offset + j]))
                return bal_fail(BAL_ENUMERIC,
                                "step %zu: the gradient of %s is not finite at element %zu; lower the learning rate",
                                step, seg->name, j);
    }
    return bal_fail(BAL_ENUMERIC, "step %zu: the gradient norm overflows; lower the learning rate", step);
}

/* The teacher's final rows of a micro-batch, from the store or by its forward pass. */
static bal_status run_teacher(bal_step *s, const bal_batch *b, size_t index)
{
    const bal_teacher_store *t = &s->config.teacher_rows;
    real_t *final = bal_pass_final(s->pass, BAL_TEACHER);
    bool found = false;
    bal_status status = t->context != NULL ? t->load(t->context, index, b, final, &found) : BAL_OK;
    if (status != BAL_OK || found)
        return status;
    status = bal_pass_forward(s->pass, b, BAL_TEACHER);
    if (status == BAL_OK && t->context != NULL)
        status = t->save(t->context, index, b, final);
    return status;
}

/* Entropy of the teacher over all micro-batches, before the step: several micro-batches need lambda1 before the first
 * backward. */
static bal_status teacher_entropy(bal_step *s, bal_batch *const *micro, size_t n, size_t rows, size_t reg_rows,
                                  const bal_loss_weights *w, double *entropy)
{
    bal_status status = BAL_OK;
    bal_loss_values v;
    bal_loss_values_zero(&v, &s->config.loss);
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(run_teacher(s, micro[i], i));
        const real_t *teacher = bal_pass_final(s->pass, BAL_TEACHER);
        BAL_TRY(bal_lm_loss_run(s->loss, micro[i], teacher, teacher, rows, reg_rows, w, &v, NULL, NULL));
    }
    *entropy = v.teacher_entropy;
out:
    return status;
}

static double adaptive_lambda(const bal_step *s, double entropy)
{
    return bal_lambda1_adaptive(s->config.adaptive_min, s->config.adaptive_max, entropy, s->model->config.vocab);
}

static bal_status run_micro(bal_step *s, const bal_batch *b, size_t step, size_t index, bool late, size_t rows,
                            size_t reg_rows, bal_step_result *r)
{
    bal_status status = BAL_OK;
    BAL_TRY(bal_pass_forward(s->pass, b, BAL_STUDENT));
    const real_t *teacher = NULL;
    if (s->teacher) {
        BAL_TRY(run_teacher(s, b, index));
        teacher = bal_pass_final(s->pass, BAL_TEACHER);
    }
    bal_pass_clear_dfinal(s->pass, b->n_tokens);
    real_t *dfinal = bal_pass_dfinal(s->pass);
    size_t n = b->n_tokens * s->model->config.hidden;
    if (late)
        for (size_t i = 0; i < n; i++)
            s->dconsistency[i] = 0;
    BAL_TRY(bal_lm_loss_run(s->loss, b, bal_pass_final(s->pass, BAL_STUDENT), teacher, rows, reg_rows, &r->weights,
                            &r->values, dfinal, late ? s->dconsistency : NULL));
    const char *broken = broken_loss(&r->values, &s->config.loss);
    if (broken != NULL)
        return fail_loss(s, b, step, index, broken);
    if (late) {
        r->weights.consistency = adaptive_lambda(s, r->values.teacher_entropy);
        real_t lambda = (real_t)r->weights.consistency;
        for (size_t i = 0; i < n; i++)
            dfinal[i] += lambda * s->dconsistency[i];
    }
    BAL_TRY(bal_pass_backward(s->pass, b));
out:
    return status;
}

/* compat llm172 divides each micro-batch by its own rows; the mean over micro-batches is taken by telling the loss
 * that the step has n times as many rows. */
static size_t divisor(const bal_step *s, size_t own, size_t n, size_t all)
{
    return s->config.micro_batch_means ? own * n : all;
}

/* What the adapter's method adds to the loss. */
static bal_status add_penalty(bal_step *s, size_t step, bal_step_result *r)
{
    const bal_adapter *a = s->config.adapter;
    double weight = 0;
    if (a == NULL || bal_method_of(&a->config)->penalty == NULL)
        return BAL_OK;
    r->penalty = bal_method_of(&a->config)->penalty(a, &weight);
    if (weight == 0)
        return BAL_OK;
    if (!isfinite(r->penalty))
        return bal_fail(BAL_ENUMERIC, "step %zu: loss/orthogonality is not finite; lower the learning rate", step);
    r->values.total += weight * r->penalty;
    return BAL_OK;
}

static void finish_update(bal_step *s, size_t step, bal_step_result *r)
{
    bal_adapter *a = s->config.adapter;
    if (a != NULL && bal_method_of(&a->config)->after_step != NULL)
        r->ranks = (double)bal_method_of(&a->config)->after_step(a, step);
}

bal_status bal_step_run(bal_step *s, bal_batch *const *micro, size_t n, size_t step, const double *lr,
                        const bal_loss_weights *weights, bal_step_result *r)
{
    bal_status status = BAL_OK;
    *r = (bal_step_result){.weights = *weights, .grad_norm = NAN, .penalty = NAN, .ranks = NAN};
    bal_loss_values_zero(&r->values, &s->config.loss);
    size_t reg_rows = 0;
    for (size_t i = 0; i < n; i++) {
        if (s->config.share_prefix && bal_pass_can_share(s->pass))
            bal_batch_share(micro[i], LEAST_SHARED);
        bal_batch_finish(micro[i], s->config.unshifted_regularisers);
        r->tokens += bal_batch_text_tokens(micro[i]);
        r->rows += micro[i]->n_rows;
        reg_rows += micro[i]->n_reg_rows;
    }
    if (r->rows == 0) {
        r->skipped = true;
        return BAL_OK;
    }
    bool late = s->config.adaptive && n == 1 && s->model->head.site == NULL && !s->model->head.replaced;
    if (s->config.adaptive && !late) {
        double entropy;
        BAL_TRY(teacher_entropy(s, micro, n, r->rows, reg_rows, &r->weights, &entropy));
        r->weights.consistency = adaptive_lambda(s, entropy);
    }
    bal_grad_zero(s->params);
    for (size_t i = 0; i < n; i++) {
        if (micro[i]->n_rows == 0 && micro[i]->n_reg_rows == 0)
            continue; /* nothing labelled: no loss, no gradient */
        BAL_TRY(run_micro(s, micro[i], step, i, late, divisor(s, micro[i]->n_rows, n, r->rows),
                          divisor(s, micro[i]->n_reg_rows, n, reg_rows), r));
    }
    bal_loss_values_finish(&r->values, &r->weights);
    BAL_TRY(add_penalty(s, step, r));
    r->grad_norm = bal_grad_norm(s->params);
    if (!isfinite(r->grad_norm))
        return fail_gradient(s->params, step);
    bal_grad_clip(s->params, r->grad_norm, s->config.max_grad_norm);
    bal_adamw_step(&s->adamw, s->params, lr);
    finish_update(s, step, r);
out:
    return status;
}

bal_status bal_step_loss(bal_step *s, const bal_batch *b, double *sum, size_t *rows)
{
    bal_status status = BAL_OK;
    bal_loss_config task = task_config(&s->config);
    bal_loss_values v;
    bal_loss_values_zero(&v, &task);
    *sum = 0;
    *rows = b->n_rows;
    if (b->n_rows == 0)
        return BAL_OK;
    BAL_TRY(bal_pass_forward(s->quiet, b, BAL_STUDENT));
    bal_loss_weights none = {0};
    BAL_TRY(bal_lm_loss_run(s->task, b, bal_pass_final(s->quiet, BAL_STUDENT), NULL, b->n_rows, b->n_rows, &none, &v,
                            NULL, NULL));
    *sum = v.task * (double)b->n_rows;
out:
    return status;
}
