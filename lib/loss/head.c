/* The output layer: logits = X E^T (+ bias), soft-capped where the model says so: cap tanh(logits / cap).
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/loss/lm_loss_impl.h"

#include "lib/adapter/method.h"
#include "lib/base/threads.h"
#include "lib/tensor/gemm.h"

#include <math.h>
#include <tgmath.h>

/* A panel of about this many elements stays in the cache of a core between its making and its use. */
enum { PANEL_ELEMENTS = 1 << 21, PANEL_LEAST_ROWS = 256 };

bool bal_head_differs(const bal_model *m)
{
    return m->head.site != NULL || m->head.replaced;
}

bool bal_head_trains(const bal_model *m, const bal_loss_config *c)
{
    return c->train_head || m->head.site != NULL || (m->head.replaced && (m->head.dw != NULL || m->head.dbias != NULL));
}

head_layer bal_head_of(const bal_model *m, bal_compute compute, bool adapted)
{
    const bal_linear *l = &m->head;
    head_layer h = {.head = {.w = l->w, .bias = l->bias, .dw = l->dw, .dbias = l->dbias},
                    .compute = compute,
                    .V = l->w.rows,
                    .D = l->w.cols,
                    .cap = m->config.logit_softcap};
    if (!adapted && l->replaced)
        h.head = (bal_linear_parts){.w = l->own.w, .bias = l->own.bias};
    h.panel_rows = h.V;
    h.site = adapted ? l->site : NULL;
    if (h.site != NULL || h.head.w.data != bal_linear_own_w(l)->data) /* f32: bf16 would round the adapter away */
        h.compute = BAL_COMPUTE_F32;
    if (h.site != NULL || h.compute == BAL_COMPUTE_BF16 || bal_view_dense(&h.head.w) == NULL) {
        size_t rows = PANEL_ELEMENTS / (h.D > 0 ? h.D : 1);
        rows = rows < PANEL_LEAST_ROWS ? PANEL_LEAST_ROWS : rows;
        h.panel_rows = rows < h.V ? rows : h.V;
    }
    return h;
}

size_t bal_head_panel_size(const head_layer *h, size_t M)
{
    bal_view part = h->head.w;
    part.rows = h->panel_rows;
    if (h->site == NULL)
        return bal_panel_size(h->compute, &part, M);
    size_t rows = h->panel_rows * h->D,
           back = h->site->method->rows_back != NULL ? h->site->method->rows_back_scratch(h->site, M) : 0;
    return rows > back ? rows : back;
}

/* Rows v0.. of E, as many of n as a panel takes. */
static bal_view part_of(const head_layer *h, size_t v0, size_t n)
{
    return bal_view_rows(&h->head.w, v0, n < h->panel_rows ? n : h->panel_rows);
}

/* Rows v0.. of the adapted weight, as many as `part` has. */
static const real_t *adapted_rows(const head_layer *h, size_t v0, const bal_view *part, real_t *panel)
{
    bal_view_dequant_parallel(part, 0, part->rows, panel, h->D);
    h->site->method->effective(h->site, v0, part->rows, panel, h->D);
    return panel;
}

typedef struct cap_job {
    real_t *Z;
    size_t n, ld;
    const real_t *bias;
    double cap;
} cap_job;

static void cap_range(void *context, size_t begin, size_t end, size_t thread)
{
    const cap_job *job = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        real_t *z = job->Z + i * job->ld;
        for (size_t j = 0; job->bias != NULL && j < job->n; j++)
            z[j] += job->bias[j];
        const real_t cap = (real_t)job->cap;
        for (size_t j = 0; job->cap > 0 && j < job->n; j++)
            z[j] = cap * tanh(z[j] / cap);
    }
}

void bal_head_logits(const head_layer *h, size_t M, const real_t *X, size_t v0, size_t n, real_t *Z, size_t ldz,
                     real_t *panel, bool capped)
{
    for (size_t v = 0; v < n;) {
        bal_view part = part_of(h, v0 + v, n - v);
        if (h->site != NULL)
            bal_gemm(false, true, M, part.rows, h->D, 1, X, h->D, adapted_rows(h, v0 + v, &part, panel), h->D, 0, Z + v,
                     ldz);
        else
            bal_gemm_view_nt(h->compute, M, X, h->D, &part, 0, Z + v, ldz, panel);
        v += part.rows;
    }
    cap_job job = {Z, n, ldz, h->head.bias != NULL ? h->head.bias + v0 : NULL, capped ? h->cap : 0};
    if (job.bias != NULL || job.cap > 0)
        bal_parallel_for(M, 1, cap_range, &job);
}

void bal_head_backward(const head_layer *h, size_t M, const real_t *dZ, size_t ldz, size_t v0, size_t n, real_t beta,
                       real_t *dX, real_t *panel)
{
    for (size_t v = 0; v < n;) {
        bal_view part = part_of(h, v0 + v, n - v);
        real_t factor = v == 0 ? beta : 1;
        if (h->site != NULL)
            bal_gemm(false, false, M, h->D, part.rows, 1, dZ + v, ldz, adapted_rows(h, v0 + v, &part, panel), h->D,
                     factor, dX, h->D);
        else
            bal_gemm_view_nn(h->compute, M, dZ + v, ldz, &part, factor, dX, h->D, panel);
        v += part.rows;
    }
}

void bal_head_weight_grad(const head_layer *h, size_t M, const real_t *dZ, size_t ldz, size_t v0, size_t n,
                          const real_t *X, real_t *panel)
{
    if (h->site != NULL && bal_site_trains(h->site))
        h->site->method->rows_back(h->site, &h->head.w, M, X, dZ, ldz, v0, n, panel);
    if (h->head.dw != NULL)
        bal_gemm(true, false, n, h->D, M, 1, dZ, ldz, X, h->D, 1, h->head.dw + v0 * h->D, h->D);
    if (h->head.dbias == NULL)
        return;
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < n; j++)
            h->head.dbias[v0 + j] += dZ[i * ldz + j];
}
