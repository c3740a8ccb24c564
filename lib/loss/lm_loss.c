/* The loss of a micro-batch.  Per chunk of rows: hidden rows of student and teacher are gathered one below the other,
 * one product gives both logits, each row turns its logits into their gradient in place (row_terms.c), one product
 * takes that back to the hidden rows.  Values are summed in row order, so they do not depend on the threads.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/loss/lm_loss_impl.h"

#include "lib/adapter/method.h"
#include "lib/base/threads.h"
#include "lib/nn/activations.h"
#include "lib/nn/layer_norm.h"
#include "lib/nn/rows.h"
#include "lib/tensor/gemm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK_BYTES = 48 << 20, MOST_ROWS = 512, LEAST_ROWS = 8 };

struct bal_lm_loss {
    const bal_model *model;
    bal_loss_config config;
    head_layer head, student; /* the teacher's, and with the adapter on it, if any */
    bal_arena arena;
    bal_spectral spectral;
    bool with_teacher, with_spectral, trained; /* trained: the head */
    size_t max_tokens, chunk, top_k, n_threads;
    real_t *Z, *X, *dX, *panel, *g, *top;
    uint32_t *column;
    row_result *results;
};

static bool on(double lambda)
{
    return lambda != 0;
}

static void plan(bal_lm_loss *l, const bal_model *m, const bal_loss_config *c, size_t max_tokens)
{
    l->model = m;
    l->config = *c;
    l->head = bal_head_of(m, c->compute, false);
    l->student = bal_head_of(m, c->compute, true);
    l->trained = bal_head_trains(m, c);
    l->max_tokens = max_tokens;
    l->with_teacher = on(c->lambda_consistency) || c->need_teacher;
    l->with_spectral = on(c->lambda_svd);
    l->top_k = c->top_k_entropy < l->head.V ? c->top_k_entropy : 0;
    l->n_threads = bal_threads_count();
    size_t row_bytes = l->head.V * sizeof(real_t) * (l->with_teacher ? 2 : 1);
    size_t rows = CHUNK_BYTES / (row_bytes > 0 ? row_bytes : 1);
    rows = rows < LEAST_ROWS ? LEAST_ROWS : rows > MOST_ROWS ? MOST_ROWS : rows;
    l->chunk = c->chunk_rows > 0 ? c->chunk_rows : rows;
    if (l->chunk > max_tokens)
        l->chunk = max_tokens > 0 ? max_tokens : 1;
    if (l->with_spectral)
        bal_spectral_plan(&l->spectral, m, c, max_tokens);
}

static void carve(bal_lm_loss *l, bal_arena *a)
{
    size_t stacked = l->chunk * (l->with_teacher ? 2 : 1), D = l->head.D, V = l->head.V;
    l->Z = bal_arena_take(a, stacked * V, sizeof(real_t));
    l->X = bal_arena_take(a, stacked * D, sizeof(real_t));
    l->dX = bal_arena_take(a, stacked * D, sizeof(real_t));
    size_t panel = bal_head_panel_size(&l->head, stacked), own = bal_head_panel_size(&l->student, stacked);
    l->panel = bal_arena_take(a, own > panel ? own : panel, sizeof(real_t));
    l->g = bal_arena_take(a, l->n_threads * V, sizeof(real_t));
    l->top = bal_arena_take(a, l->n_threads * l->top_k, sizeof(real_t));
    l->column = bal_arena_take(a, l->n_threads * l->top_k, sizeof(uint32_t));
    l->results = bal_arena_take(a, l->chunk, sizeof(row_result));
    if (l->with_spectral)
        bal_spectral_carve(&l->spectral, a);
}

static bal_status check(const bal_model *m, const bal_loss_config *c)
{
    bool any_teacher = on(c->lambda_consistency) || c->need_teacher;
    const bal_site *site = m->head.site;
    if (site != NULL && (site->method->rows_back == NULL || site->method->effective == NULL))
        return bal_fail(BAL_EUNSUPPORTED,
                        "a %s adapter on the output head ('%s') cannot be trained or scored; leave it out of "
                        "target_modules",
                        site->method->title, site->module);
    if (site != NULL && site->lora != NULL && site->method->additive && site->n_tensors > 2)
        return bal_fail(BAL_EUNSUPPORTED, "a bias of B (lora_bias) on the output head ('%s') is not supported",
                        site->module);
    if (any_teacher && !(c->temperature > 0 && isfinite(c->temperature)))
        return bal_fail(BAL_EINVAL, "temperature is %g; it must be positive", c->temperature);
    if (!on(c->lambda_svd))
        return BAL_OK;
    if (c->svd_top_k == 0)
        return bal_fail(BAL_EINVAL, "svd_top_k is 0; it must be at least 1 (or lambda_svd 0)");
    if (c->svd_solver == BAL_SVD_RANDOMISED && c->svd_norm == BAL_SVD_NUCLEAR)
        return bal_fail(
            BAL_EINVAL,
            "the randomised svd_solver finds only the leading values; the nuclear norm needs all of them: use "
            "svd_norm frobenius or the exact solver");
    if (c->svd_solver == BAL_SVD_GRAM && (m->config.logit_softcap > 0 || bal_head_trains(m, c)))
        return bal_fail(BAL_EINVAL,
                        "the gram svd_solver needs a linear, frozen head; this one is %s: use auto or logits",
                        site != NULL            ? "adapted"
                        : bal_head_trains(m, c) ? "trained"
                                                : "soft-capped");
    return BAL_OK;
}

size_t bal_lm_loss_bytes(const bal_model *m, const bal_loss_config *c, size_t max_tokens)
{
    bal_lm_loss l = {0};
    bal_arena a;
    plan(&l, m, c, max_tokens);
    bal_arena_measure(&a);
    carve(&l, &a);
    return sizeof l + a.peak + (l.with_spectral ? bal_spectral_eigen_bytes(&l.spectral) : 0);
}

bal_status bal_lm_loss_new(bal_lm_loss **out, const bal_model *m, const bal_loss_config *c, size_t max_tokens)
{
    bal_status status = BAL_OK;
    bal_arena measured;
    bal_lm_loss *l = bal_alloc(1, sizeof *l);
    *out = NULL;
    if (l == NULL)
        return BAL_ENOMEM;
    BAL_TRY(check(m, c));
    plan(l, m, c, max_tokens);
    bal_arena_measure(&measured);
    carve(l, &measured);
    BAL_TRY(bal_arena_init(&l->arena, measured.peak));
    carve(l, &l->arena);
    if (l->with_spectral)
        BAL_TRY(bal_spectral_start(&l->spectral));
    *out = l;
    l = NULL;
out:
    bal_lm_loss_free(l);
    return status;
}

void bal_lm_loss_free(bal_lm_loss *l)
{
    if (l == NULL)
        return;
    bal_spectral_dispose(&l->spectral);
    bal_arena_dispose(&l->arena);
    bal_free(l);
}

void bal_loss_values_zero(bal_loss_values *v, const bal_loss_config *c)
{
    *v = (bal_loss_values){0};
    v->consistency = on(c->lambda_consistency) ? 0 : NAN;
    v->diversity = on(c->lambda_diversity) ? 0 : NAN;
    v->spectral = on(c->lambda_svd) ? 0 : NAN;
    v->teacher_entropy =
        c->need_teacher || (on(c->lambda_consistency) && c->consistency == BAL_CONSISTENCY_KL) ? 0 : NAN;
}

void bal_loss_values_finish(bal_loss_values *v, const bal_loss_weights *w)
{
    v->total = v->task;
    if (w->consistency != 0 && !isnan(v->consistency))
        v->total += w->consistency * v->consistency;
    if (w->diversity != 0 && !isnan(v->diversity))
        v->total += w->diversity * v->diversity;
    if (w->svd != 0 && !isnan(v->spectral))
        v->total += w->svd * v->spectral;
}

typedef struct chunk_job {
    const bal_lm_loss *l;
    row_request request;
    size_t n;
    const int32_t *target;
} chunk_job;

static void chunk_range(void *context, size_t begin, size_t end, size_t thread)
{
    const chunk_job *job = context;
    const bal_lm_loss *l = job->l;
    size_t V = l->head.V;
    row_scratch scratch = {l->g + thread * V, l->top + thread * l->top_k, l->column + thread * l->top_k};
    bool teacher = job->request.consistency || job->request.entropy;
    for (size_t i = begin; i < end; i++)
        bal_loss_row(&job->request, l->Z + i * V, teacher ? l->Z + (job->n + i) * V : NULL,
                     job->target != NULL ? job->target[i] : 0, &scratch, &l->results[i]);
}

static void add_rows(real_t *to, const uint32_t *rows, size_t n, size_t D, const real_t *from)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < D; j++)
            to[(size_t)rows[i] * D + j] += from[i * D + j];
}

/* A pass over rows: what is asked of each of them, and where the gradients go (NULL: nowhere). */
typedef struct rows_pass {
    row_request request;
    const real_t *final, *teacher;
    const uint32_t *rows;
    const int32_t *target;
    size_t n_rows;
    double step_rows, step_reg_rows;
    real_t *dfinal, *dconsistency;
} rows_pass;

static void run_chunk(bal_lm_loss *l, const rows_pass *p, size_t first, size_t n, bal_loss_values *v)
{
    const row_request *q = &p->request;
    size_t D = l->head.D, V = l->head.V;
    bool teacher = q->consistency || q->entropy;
    const uint32_t *rows = p->rows + first;
    for (size_t i = 0; i < n; i++) {
        memcpy(l->X + i * D, p->final + (size_t)rows[i] * D, D * sizeof(real_t));
        if (teacher)
            memcpy(l->X + (n + i) * D, p->teacher + (size_t)rows[i] * D, D * sizeof(real_t));
    }
    if (!bal_head_differs(l->model)) {
        bal_head_logits(&l->head, teacher ? 2 * n : n, l->X, 0, V, l->Z, V, l->panel, true);
    } else {
        bal_head_logits(&l->student, n, l->X, 0, V, l->Z, V, l->panel, true);
        if (teacher)
            bal_head_logits(&l->head, n, l->X + n * D, 0, V, l->Z + n * V, V, l->panel, true);
    }
    chunk_job job = {l, *q, n, p->target != NULL ? p->target + first : NULL};
    bal_parallel_for(n, 1, chunk_range, &job);
    for (size_t i = 0; i < n; i++) {
        const row_result *r = &l->results[i];
        if (q->task)
            v->task += r->task / p->step_rows;
        if (q->consistency)
            v->consistency += r->consistency / p->step_reg_rows;
        if (q->diversity)
            v->diversity += r->diversity / p->step_reg_rows;
        if (teacher && !isnan(v->teacher_entropy))
            v->teacher_entropy += r->entropy / p->step_reg_rows;
    }
    if (!q->gradient && !q->apart)
        return;
    /* the two gradients lie one below the other, as the two logits did */
    size_t skip = q->gradient ? 0 : n, count = (q->gradient ? n : 0) + (q->apart ? n : 0);
    bal_head_backward(&l->student, count, l->Z + skip * V, V, 0, V, 0, l->dX, l->panel);
    if (q->gradient)
        add_rows(p->dfinal, rows, n, D, l->dX);
    if (q->apart)
        add_rows(p->dconsistency, rows, n, D, l->dX + (count - n) * D);
    if (q->gradient && l->trained)
        bal_head_weight_grad(&l->student, n, l->Z, V, 0, V, l->X, l->panel);
}

static void run_rows(bal_lm_loss *l, rows_pass *p, bal_loss_values *v)
{
    row_request *q = &p->request;
    q->gradient = p->dfinal != NULL && ((q->task && q->a_task != 0) || (q->diversity && q->a_diversity != 0) ||
                                        (q->consistency && !q->apart && q->a_consistency != 0));
    for (size_t i = 0; i < p->n_rows; i += l->chunk)
        run_chunk(l, p, i, p->n_rows - i < l->chunk ? p->n_rows - i : l->chunk, v);
}

static bal_status check_batch(const bal_lm_loss *l, const bal_batch *b, const real_t *teacher,
                              const real_t *dconsistency)
{
    if (b->n_tokens > l->max_tokens)
        return bal_fail(BAL_ELIMIT, "a batch of %zu tokens does not fit the loss, made for %zu", b->n_tokens,
                        l->max_tokens);
    if (l->with_teacher && teacher == NULL)
        return bal_fail(BAL_EINVAL, "the consistency term needs the teacher's hidden states");
    if (dconsistency != NULL && l->trained)
        return bal_fail(BAL_EUNSUPPORTED,
                        "the adaptive consistency weight needs a frozen head, and this one is trained; use a fixed "
                        "lambda_consistency");
    for (size_t i = 0; i < b->n_rows; i++)
        if (b->target[i] < 0 || (size_t)b->target[i] >= l->head.V)
            return bal_fail(BAL_EFORMAT, "the label after token %u is %d, but the vocabulary has %zu entries",
                            (unsigned)b->rows[i], (int)b->target[i], l->head.V);
    return BAL_OK;
}

static bal_status add_spectral(bal_lm_loss *l, const bal_batch *b, const real_t *final, double step_reg_rows,
                               double strength, bal_loss_values *v, real_t *dfinal)
{
    bal_spectral_result r;
    double share = (double)b->n_reg_rows / step_reg_rows;
    bal_status status = bal_spectral_run(&l->spectral, final, b->reg_rows, b->n_reg_rows, strength * share,
                                         strength != 0 ? dfinal : NULL, &r);
    if (status != BAL_OK)
        return status;
    v->spectral += share * r.value;
    v->spectral_undefined += r.undefined ? 1 : 0;
    memcpy(v->sigma, r.sigma, sizeof v->sigma);
    v->n_sigma = r.n_sigma;
    return BAL_OK;
}

bal_status bal_lm_loss_run(bal_lm_loss *l, const bal_batch *b, const real_t *final, const real_t *teacher,
                           size_t step_rows, size_t step_reg_rows, const bal_loss_weights *w, bal_loss_values *values,
                           real_t *dfinal, real_t *dconsistency)
{
    const bal_loss_config *c = &l->config;
    bal_status status = check_batch(l, b, teacher, dconsistency);
    if (status != BAL_OK)
        return status;
    double N = step_rows > 0 ? (double)step_rows : 1, R = step_reg_rows > 0 ? (double)step_reg_rows : 1;
    bool consistency = on(c->lambda_consistency), diversity = on(c->lambda_diversity);
    bool regularised = consistency || diversity || c->need_teacher;
    bool same = b->n_rows == b->n_reg_rows && memcmp(b->rows, b->reg_rows, b->n_rows * sizeof *b->rows) == 0;
    rows_pass task = {.final = final,
                      .teacher = teacher,
                      .rows = b->rows,
                      .target = b->target,
                      .n_rows = b->n_rows,
                      .step_rows = N,
                      .step_reg_rows = R,
                      .dfinal = dfinal};
    task.request = (row_request){.ops = BAL_ISA_PICK(bal_row_ops),
                                 .V = l->head.V,
                                 .top_k = l->top_k,
                                 .T = 1,
                                 .cap = l->head.cap,
                                 .form = c->consistency,
                                 .task = true,
                                 .a_task = 1 / N};
    rows_pass both = task;
    both.dconsistency = dconsistency;
    both.request.T = l->with_teacher ? c->temperature : 1;
    both.request.consistency = consistency;
    both.request.diversity = diversity;
    both.request.entropy = l->with_teacher && (c->need_teacher || c->consistency == BAL_CONSISTENCY_KL);
    both.request.apart = consistency && dconsistency != NULL;
    both.request.a_consistency = (both.request.apart ? 1 : w->consistency) / R;
    both.request.a_diversity = w->diversity / R;
    if (regularised && same) {
        run_rows(l, &both, values);
    } else {
        run_rows(l, &task, values);
        if (regularised) { /* --compat llm172: other rows than the task's */
            both.rows = b->reg_rows;
            both.n_rows = b->n_reg_rows;
            both.target = NULL;
            both.request.task = false;
            run_rows(l, &both, values);
        }
    }
    values->n_rows += b->n_rows;
    values->n_reg_rows += b->n_reg_rows;
    return l->with_spectral ? add_spectral(l, b, final, R, w->svd, values, dfinal) : BAL_OK;
}

/* Y(M, head's width) = norm(act(X T^T + t)): what comes before the head for masked tokens. */
static void transform_rows(const bal_model *m, size_t M, const real_t *X, real_t *Y, real_t *panel)
{
    size_t width = m->transform.w.rows;
    bal_gemm_view_nt(BAL_COMPUTE_F32, M, X, m->config.hidden, &m->transform.w, 0, Y, width, panel);
    bal_rows_add(M, width, m->transform.bias, Y, width);
    bal_glu_forward(m->config.head_act, M * width, Y, NULL, Y);
    bal_layer_norm_forward(M, width, Y, m->transform_norm.w, m->transform_norm.b, m->config.norm_eps, Y);
}

bal_status bal_lm_logits(const bal_model *m, const real_t *final, const uint32_t *rows, size_t n, bool adapted,
                         real_t *logits)
{
    bal_status status = BAL_OK;
    head_layer h = bal_head_of(m, BAL_COMPUTE_F32, adapted);
    size_t step = n < MOST_ROWS ? n : MOST_ROWS, D = m->config.hidden;
    size_t transform = m->config.masked ? bal_panel_size(BAL_COMPUTE_F32, &m->transform.w, step) : 0;
    size_t elements = bal_head_panel_size(&h, step);
    real_t *panel = bal_alloc(elements > transform ? elements : transform, sizeof *panel);
    real_t *X = bal_alloc(step * D, sizeof *X), *inner = m->config.masked ? bal_alloc(step * h.D, sizeof *inner) : NULL;
    if (panel == NULL || X == NULL || (m->config.masked && inner == NULL))
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_model_need_head(m));
    if (h.site != NULL && h.site->method->effective == NULL)
        BAL_TRY(bal_fail(BAL_EUNSUPPORTED, "a %s adapter on the output head ('%s') is not supported",
                         h.site->method->title, h.site->module));
    for (size_t i = 0; i < n; i += step) {
        size_t count = n - i < step ? n - i : step;
        for (size_t j = 0; j < count; j++)
            memcpy(X + j * D, final + (size_t)rows[i + j] * D, D * sizeof *X);
        if (m->config.masked)
            transform_rows(m, count, X, inner, panel);
        bal_head_logits(&h, count, inner != NULL ? inner : X, 0, h.V, logits + i * h.V, h.V, panel, true);
    }
out:
    bal_free(panel);
    bal_free(X);
    bal_free(inner);
    return status;
}
