/* What a run says about itself.  SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/adapter/method.h"
#include "lib/base/clock.h"
#include "lib/io/json.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *plural(size_t n)
{
    return n == 1 ? "" : "s";
}

static void say_data(const trainer *t)
{
    const bal_dataset *d = &t->data;
    bal_log_line(t->log, BAL_LOG_INFO, "data      %s: %zu record%s (%s), %zu tokens, %zu labelled; longest %zu",
                 t->config->data, d->n, plural(d->n), bal_data_format_name(d->format), d->n_tokens, d->n_rows,
                 d->longest);
    if (d->n_truncated > 0)
        bal_log_line(t->log, BAL_LOG_WARN, "%zu of %zu records are longer than %zu tokens and were cut", d->n_truncated,
                     d->n_read, d->longest);
    if (d->n_skipped > 0)
        bal_log_line(t->log, BAL_LOG_WARN, "%zu of %zu records have no labelled token and are left out", d->n_skipped,
                     d->n_read);
    if (t->validation != NULL)
        bal_log_line(t->log, BAL_LOG_INFO, "validate  %zu record%s%s", t->n_validation, plural(t->n_validation),
                     t->config->validation_data != NULL ? "" : ", kept out of the training data");
}

static const char *const k_focus[] = {"", ", two_phase", ", linear warm-up", ", quadratic warm-up"};

static void say_loss(const trainer *t)
{
    const bal_loss_config *l = &t->step_config.loss;
    if (l->lambda_consistency == 0 && l->lambda_diversity == 0 && l->lambda_svd == 0)
        return;
    if (t->step_config.adaptive)
        bal_log_line(t->log, BAL_LOG_INFO, "terms     consistency adaptive %g..%g, diversity %g, spectral %g%s",
                     t->step_config.adaptive_min, t->step_config.adaptive_max, l->lambda_diversity, l->lambda_svd,
                     k_focus[t->focus]);
    else
        bal_log_line(t->log, BAL_LOG_INFO,
                     "terms     consistency %g%s (T %g), diversity %g (K %zu), spectral %g (k %zu)%s",
                     l->lambda_consistency, t->lambda1_cosine ? ", cosine to a tenth" : "", l->temperature,
                     l->lambda_diversity, l->top_k_entropy, l->lambda_svd, l->svd_top_k, k_focus[t->focus]);
    if (t->step_config.unshifted_regularisers)
        bal_log_line(t->log, BAL_LOG_INFO,
                     "compat    llm172: unshifted rows in the terms, means by micro-batch, Frobenius norm");
    size_t smallest =
        t->model->config.hidden < t->model->config.vocab ? t->model->config.hidden : t->model->config.vocab;
    if (l->lambda_svd != 0 && l->svd_norm == BAL_SVD_NUCLEAR && l->svd_top_k >= smallest)
        bal_log_line(
            t->log, BAL_LOG_WARN,
            "the spectral term is constant: svd_top_k %zu takes all of at most %zu singular values; it has no gradient",
            l->svd_top_k, smallest);
    if (l->lambda_diversity != 0 && l->top_k_entropy == 1)
        bal_log_line(t->log, BAL_LOG_WARN, "the diversity term is constant: the entropy over 1 logit is 0");
    bool other_head = t->model->head.site != NULL || t->model->head.replaced;
    if (l->lambda_svd != 0 && (other_head || t->model->config.logit_softcap > 0))
        bal_log_line(t->log, BAL_LOG_INFO,
                     "          the spectral term goes over the vocabulary in chunks, since the head is %s",
                     t->model->head.site != NULL ? "adapted"
                     : t->model->head.replaced   ? "trained"
                                                 : "soft-capped");
    if (l->lambda_svd != 0 && t->n_micro > 1)
        bal_log_line(t->log, BAL_LOG_INFO,
                     "          the spectral term is taken over each of %zu micro-batches, weighted by its rows",
                     t->n_micro);
}

static void say_adapter(const trainer *t)
{
    const train_config *c = t->config;
    const bal_adapter_config *a = &t->adapter->config;
    const bal_method *m = bal_method_of(a);
    char scale[80] = "", start[300] = "", copies[120] = "";
    size_t biases = 0;
    for (size_t i = 0; i < t->adapter->n_copies; i++)
        biases += t->adapter->copies[i].is_bias;
    if (biases > 0)
        (void)snprintf(copies, sizeof copies, " %zu biases,", biases);
    if (biases < t->adapter->n_copies)
        (void)snprintf(copies + strlen(copies), sizeof copies - strlen(copies), " %zu whole tensors,",
                       t->adapter->n_copies - biases);
    if (m->alpha_key != NULL)
        (void)snprintf(scale, sizeof scale, " %s %zu, alpha %g%s,", m->rank_key != NULL ? m->rank_key : "r", a->r,
                       a->lora_alpha, a->use_rslora ? " (rsLoRA)" : "");
    else if (!m->no_rank)
        (void)snprintf(scale, sizeof scale, " r %zu,", a->r);
    if (c->init_adapter != NULL || c->adapter != NULL)
        (void)snprintf(start, sizeof start, " start %s,", c->init_adapter != NULL ? c->init_adapter : c->adapter);
    else if (m->low_rank)
        (void)snprintf(start, sizeof start, " start %s,", a->init);
    bal_log_line(t->log, BAL_LOG_INFO, "method    %s:%s%s %zu matrices,%s %.3f M trainable (%.3f %%)", c->method, scale,
                 start, t->adapter->n_sites, copies, (double)t->params->n / 1e6,
                 100.0 * (double)t->params->n / (double)t->model->n_parameters);
}

static size_t ranks_of(const bal_adapter *a)
{
    size_t n = 0;
    for (size_t i = 0; i < a->n_sites; i++)
        n += a->sites[i].r;
    return n;
}

/* The schedule of a method that takes ranks away. */
static void say_ranks(const trainer *t)
{
    const bal_adapter *a = t->adapter;
    if (a == NULL || bal_method_of(&a->config)->after_step == NULL)
        return;
    double target = bal_config_key(&a->config, "target_r")->number * (double)a->n_sites;
    double total = bal_config_key(&a->config, "total_step")->number,
           close = total - bal_config_key(&a->config, "tfinal")->number;
    bal_log_line(t->log, BAL_LOG_INFO, "ranks     %zu in all, after step %g fewer until step %g leaves %g", ranks_of(a),
                 bal_config_key(&a->config, "tinit")->number, close, target);
    if ((double)ranks_of(a) <= target)
        bal_log_line(t->log, BAL_LOG_WARN, "no rank will be taken away: target_r is not below what there is");
    else if (close > (double)t->max_steps)
        bal_log_line(t->log, BAL_LOG_WARN,
                     "the run ends after %llu steps, before step %g at which the ranks reach target_r",
                     (unsigned long long)t->max_steps, close);
}

void train_announce(const trainer *t)
{
    const train_config *c = t->config;
    const bal_model_config *m = &t->model->config;
    if (t->metrics.uuid[0] != '\0' && t->resume_from != NULL)
        bal_log_line(t->log, BAL_LOG_INFO, "resume    %s, %llu of %llu steps done", t->resume_from,
                     (unsigned long long)t->state.step, (unsigned long long)t->max_steps);
    bal_log_line(t->log, BAL_LOG_INFO, "model     %s: %s, %zu layers, %.1f M parameters",
                 c->model != NULL ? c->model : c->model_config, m->model_type, m->n_layers,
                 (double)t->model->n_parameters / 1e6);
    if (t->full)
        bal_log_line(t->log, BAL_LOG_INFO, "method    full: all %.3f M parameters are trained",
                     (double)t->params->n / 1e6);
    else
        say_adapter(t);
    if (t->residual && t->resume_from == NULL && bal_starts_with(t->adapter->config.init, "pissa"))
        bal_log_line(t->log, BAL_LOG_INFO,
                     "          the start holds %.2f %% of the energy of an exact one in every matrix%s",
                     100 * t->adapter->captured_energy, t->adapter->captured_energy < 1 ? ", or more" : "");
    if (c->loraplus_lr_ratio > 0)
        bal_log_line(t->log, BAL_LOG_INFO, "LoRA+     B's rate is %g, %g times A's", c->lr * c->loraplus_lr_ratio,
                     c->loraplus_lr_ratio);
    say_ranks(t);
    say_data(t);
    say_loss(t);
    bal_log_line(t->log, BAL_LOG_INFO,
                 "steps     %llu of %lld sequences in %zu micro-batch%s of %zu; lr %g, %s, warm-up %llu",
                 (unsigned long long)t->max_steps, (long long)c->batch_size, t->n_micro, t->n_micro == 1 ? "" : "es",
                 t->micro_size, c->lr, c->lr_scheduler, (unsigned long long)t->warmup);
    int64_t free_bytes = bal_free_memory_bytes();
    bal_log_line(t->log, BAL_LOG_INFO, "memory    about %.0f MiB in all, %.0f MiB of it for the step; %.0f MiB free",
                 (double)t->bytes_whole / 1048576.0, (double)t->bytes_needed / 1048576.0,
                 (double)free_bytes / 1048576.0);
}

static bal_status put_text(bal_buf *b, const char *key, const char *value, bool *first)
{
    bal_status status = bal_json_put_key(b, key, first);
    return status == BAL_OK ? bal_json_put_text(b, value) : status;
}

static bal_status print_summary(const trainer *t, double validation, double rate)
{
    const train_state *s = &t->state;
    const struct {
        const char *key;
        double value;
    } numbers[] = {{"steps", (double)s->step},
                   {"tokens", (double)s->tokens},
                   {"rows", (double)s->rows},
                   {"seconds", s->seconds},
                   {"tokens_per_second", rate},
                   {"trainable_parameters", (double)t->params->n},
                   {"records", (double)t->n_train},
                   {"truncated", (double)t->data.n_truncated},
                   {"skipped_records", (double)t->data.n_skipped},
                   {"skipped_steps", (double)s->skipped_steps},
                   {"loss/validation", validation},
                   {"best_validation", s->best_validation},
                   {"peak_rss_bytes", (double)bal_peak_rss_bytes()},
                   {"estimated_bytes", (double)t->bytes_whole},
                   {"captured_energy", t->adapter != NULL ? t->adapter->captured_energy : (double)NAN}};
    bal_buf b = {0};
    bool first = true;
    bal_status status = bal_buf_text(&b, "{");
    if (status == BAL_OK)
        status = put_text(&b, "out", t->config->out, &first);
    if (status == BAL_OK && t->metrics.uuid[0] != '\0')
        status = put_text(&b, "run", t->metrics.uuid, &first);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers && status == BAL_OK; i++) {
        status = bal_json_put_key(&b, numbers[i].key, &first);
        if (status == BAL_OK)
            status = bal_json_put_f64(&b, numbers[i].value);
    }
    if (status == BAL_OK)
        printf("%s}\n", bal_buf_cstr(&b));
    bal_buf_dispose(&b);
    return status;
}

bal_status train_summary(const trainer *t, double validation)
{
    const train_state *s = &t->state;
    double rate = s->seconds > 0 ? (double)s->tokens / s->seconds : (double)NAN;
    bal_log_line(t->log, BAL_LOG_INFO,
                 "done      %llu steps, %llu tokens in %.1f s (%.0f tokens/s), peak memory %.0f MiB -> %s",
                 (unsigned long long)s->step, (unsigned long long)s->tokens, s->seconds, rate,
                 (double)bal_peak_rss_bytes() / 1048576.0, t->config->out);
    if (isfinite(validation))
        bal_log_line(t->log, BAL_LOG_INFO, "          validation loss %.4f; best %.4f after step %llu (%s/best)",
                     validation, s->best_validation, (unsigned long long)s->best_step, t->config->out);
    if (s->skipped_steps > 0)
        bal_log_line(t->log, BAL_LOG_WARN, "%llu steps had no labelled token and were skipped",
                     (unsigned long long)s->skipped_steps);
    if (s->undefined_spectral > 0)
        bal_log_line(t->log, BAL_LOG_WARN,
                     "the spectral term was 0 in %llu micro-batches (fewer than 2 rows, or logits of 0)",
                     (unsigned long long)s->undefined_spectral);
    return bal_options_common(t->options)->json ? print_summary(t, validation, rate) : BAL_OK;
}
