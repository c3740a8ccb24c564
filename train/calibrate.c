/* SPDX-License-Identifier: Apache-2.0 */
#include "train/calibrate.h"

#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/model/batch.h"
#include "lib/model/pass.h"
#include "lib/tensor/gemm.h"

#include <math.h>
#include <stdio.h>

/* What the pass calls back into.  Modules that share an input come one after the other with the same X. */
typedef struct collector {
    calibration *out;
    const bal_model *m;
    const bool *wanted;
    const real_t *last_x;
    size_t owner;   /* whose sums hold the input last_x; n_modules: nobody's */
    real_t *scaled; /* tokens x widest input */
    real_t *product;
    bal_status status;
} collector;

typedef struct add_job {
    const real_t *from;
    double *to;
    size_t n;
} add_job;

static void add_rows(void *context, size_t begin, size_t end, size_t thread)
{
    const add_job *j = context;
    (void)thread;
    for (size_t i = begin * j->n; i < end * j->n; i++)
        j->to[i] += (double)j->from[i];
}

static size_t module_of(const bal_model *m, const bal_view *w)
{
    size_t i = 0;
    while (i < m->n_modules && m->modules[i].w != w)
        i++;
    return i;
}

/* peft divides by |max X|, the largest element with its sign, not by max |X|; the sums are compared with its own. */
static bal_status add_input(collector *c, size_t module, const real_t *X, size_t rows, size_t in)
{
    double largest = -INFINITY;
    double *sum = c->out->covariances[module];
    for (size_t i = 0; i < rows * in; i++) {
        if (!isfinite(X[i]))
            return bal_fail(BAL_ENUMERIC, "calibration: an input of module '%s' is not finite",
                            c->m->modules[module].name);
        largest = (double)X[i] > largest ? (double)X[i] : largest;
    }
    if (!(fabs(largest) > 0))
        return BAL_OK; /* nothing but zeros and less: peft would divide by 0 */
    for (size_t i = 0; i < rows * in; i++)
        c->scaled[i] = (real_t)((double)X[i] / largest);
    bal_gemm(true, false, in, in, rows, 1, c->scaled, in, c->scaled, in, 0, c->product, in);
    add_job job = {c->product, sum, in};
    bal_parallel_for(in, 16, add_rows, &job);
    return BAL_OK;
}

static void see_input(void *context, const bal_linear *l, const real_t *X, size_t rows)
{
    collector *c = context;
    calibration *out = c->out;
    size_t module = module_of(c->m, &l->w), in = l->w.cols;
    if (X != c->last_x)
        c->owner = out->n_modules;
    c->last_x = X;
    if (c->status != BAL_OK || module == out->n_modules || !c->wanted[module])
        return;
    if (c->owner != out->n_modules) {
        out->covariances[module] = out->covariances[c->owner];
        out->shared[module] = true;
        return;
    }
    c->owner = module;
    if (out->covariances[module] == NULL && (out->covariances[module] = bal_alloc(in, in * sizeof(double))) == NULL)
        c->status = BAL_ENOMEM;
    else
        c->status = add_input(c, module, X, rows, in);
}

/* An upper bound: what is shared is not known before the first record. */
static bal_status check_memory(const bal_model *m, const bool *wanted, size_t *widest)
{
    double bytes = 0;
    *widest = 0;
    for (size_t i = 0; i < m->n_modules; i++) {
        size_t in = m->modules[i].w->cols;
        bool again = i > 0 && wanted[i - 1] && m->modules[i - 1].w->cols == in;
        if (!wanted[i])
            continue;
        bytes += again ? 0 : (double)in * (double)in * sizeof(double);
        *widest = in > *widest ? in : *widest;
    }
    int64_t free_bytes = bal_free_memory_bytes();
    if (free_bytes >= 0 && bytes > (double)free_bytes)
        return bal_fail(BAL_ENOMEM,
                        "the second moments of the inputs need about %.0f MiB, and %.0f MiB are free; name fewer "
                        "target_modules",
                        bytes / 1048576.0, (double)free_bytes / 1048576.0);
    return BAL_OK;
}

static void finish(calibration *c, const bal_model *m)
{
    for (size_t i = 0; i < c->n_modules; i++) {
        size_t in = m->modules[i].w->cols;
        for (size_t j = 0; c->covariances[i] != NULL && !c->shared[i] && j < in * in; j++)
            c->covariances[i][j] /= (double)c->n_samples;
    }
}

/* The head is no part of the pass: its input is the pass's result. */
static const bal_linear *wanted_head(const bal_model *m, const bool *wanted)
{
    size_t module = module_of(m, &m->head.w);
    return module < m->n_modules && wanted[module] ? &m->head : NULL;
}

static bal_status run(collector *c, bal_pass *pass, bal_batch *batch, const bal_dataset *d, size_t record)
{
    bal_status status;
    const bal_linear *head = wanted_head(c->m, c->wanted);
    bal_batch_clear(batch);
    BAL_TRY(bal_batch_add(batch, d->ids + d->start[record], NULL, bal_dataset_length(d, record)));
    bal_batch_finish(batch, false);
    c->last_x = NULL;
    BAL_TRY(bal_pass_forward(pass, batch, BAL_STUDENT));
    if (head != NULL)
        see_input(c, head, bal_pass_final(pass, BAL_STUDENT), batch->n_tokens);
    status = c->status;
    c->out->n_samples++;
    c->out->n_tokens += batch->n_tokens;
out:
    return status;
}

bal_status train_calibrate(calibration *out, bal_model *m, const bool *wanted, const bal_dataset *d,
                           const uint32_t *items, size_t n, const bal_log *log, bool progress)
{
    bal_status status;
    bal_pass *pass = NULL;
    bal_batch batch = {0};
    bal_progress bar;
    size_t widest;
    collector c = {.out = out, .m = m, .wanted = wanted, .status = BAL_OK};
    bal_pass_options o = {.max_tokens = d->longest, .max_seqs = 1};
    *out = (calibration){.n_modules = m->n_modules};
    bal_progress_start(&bar, log, "calibrating", "records", n, progress);
    BAL_TRY(check_memory(m, wanted, &widest));
    out->covariances = bal_alloc(m->n_modules, sizeof(double *)); // NOLINT(bugprone-sizeof-expression): pointers
    out->shared = bal_alloc(m->n_modules, sizeof *out->shared);
    c.scaled = bal_alloc(d->longest, widest * sizeof *c.scaled);
    c.product = bal_alloc(widest, widest * sizeof *c.product);
    if (out->covariances == NULL || out->shared == NULL || c.scaled == NULL || c.product == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_batch_init(&batch, d->longest, 1));
    BAL_TRY(bal_pass_new(&pass, m, &o));
    bal_pass_watch_inputs(pass, see_input, &c);
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(run(&c, pass, &batch, d, items != NULL ? items[i] : i));
        bal_progress_update(&bar, i + 1, NULL);
        if (bal_interrupted())
            BAL_TRY(bal_fail(BAL_EINTERRUPT, "interrupted while calibrating, before the first step"));
    }
    finish(out, m);
out:
    bal_progress_done(&bar);
    bal_pass_free(pass);
    bal_batch_dispose(&batch);
    bal_free(c.scaled);
    bal_free(c.product);
    if (status != BAL_OK)
        calibration_dispose(out);
    return status;
}

void calibration_dispose(calibration *c)
{
    for (size_t i = 0; c->covariances != NULL && c->shared != NULL && i < c->n_modules; i++)
        if (!c->shared[i])
            bal_free(c->covariances[i]);
    bal_free(c->covariances);
    bal_free(c->shared);
    *c = (calibration){0};
}

/* Which modules the configuration names: those of an adapter without a start by data. */
static bal_status list_wanted(bool *wanted, const bal_adapter_config *config, const bal_model *m)
{
    bal_adapter *probe = NULL;
    bal_adapter_config plain = *config;
    (void)snprintf(plain.init, sizeof plain.init, "lora");
    bal_status status = bal_adapter_new(&probe, &plain, m->modules, m->n_modules, 0, false);
    for (size_t i = 0; status == BAL_OK && i < m->n_modules; i++)
        wanted[i] = bal_adapter_find(probe, m->modules[i].name) != NULL;
    for (size_t i = 0; status == BAL_OK && i < m->n_modules; i++)
        if (wanted[i] && m->modules[i].w == &m->embed.w && m->modules[i].w != &m->head.w)
            status = bal_fail(BAL_EINVAL, "init corda is for linear modules: leave '%s' out of target_modules",
                              m->modules[i].name);
    bal_adapter_free(probe);
    return status;
}

bal_status train_calibrated_adapter(bal_adapter **out, const bal_adapter_config *config, bal_model *m,
                                    const bal_dataset *d, const uint32_t *items, size_t n, bool minor, uint64_t seed,
                                    const bal_log *log, bool progress)
{
    bal_status status;
    calibration c = {0};
    bool *wanted = bal_alloc(m->n_modules, sizeof *wanted);
    double began = bal_clock_seconds();
    *out = NULL;
    if (wanted == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(list_wanted(wanted, config, m));
    BAL_TRY(train_calibrate(&c, m, wanted, d, items, n, log, progress));
    bal_calibration moments = {(const double *const *)c.covariances, minor};
    double middle = bal_clock_seconds();
    BAL_TRY(bal_adapter_new_calibrated(out, config, m->modules, m->n_modules, &moments, seed, true));
    bal_log_line(log, BAL_LOG_INFO, "calibrate %zu record%s, %zu tokens (%.1f s); start of the factors %.1f s",
                 c.n_samples, c.n_samples == 1 ? "" : "s", c.n_tokens, middle - began, bal_clock_seconds() - middle);
out:
    calibration_dispose(&c);
    bal_free(wanted);
    return status;
}
