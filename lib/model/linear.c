/* A linear module with its adapter: y = x W^T + b + s drop(x) A^T B^T.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/threads.h"
#include "lib/model/pass_impl.h"
#include "lib/nn/ops.h"
#include "lib/tensor/gemm.h"

#include <string.h>

typedef struct row_job {
    size_t n_rows, n;
    const real_t *in;
    real_t *out;
    uint64_t key, threshold;
    real_t scale;
    const bal_nn_ops *ops;
} row_job;

static void bias_range(void *context, size_t begin, size_t end, size_t thread)
{
    const row_job *j = context;
    (void)thread;
    for (size_t t = begin; t < end; t++)
        j->ops->add(j->in, j->out + t * j->n, j->n);
}

/* Columns are shared out, so that each sum has one order. */
static void dbias_range(void *context, size_t begin, size_t end, size_t thread)
{
    const row_job *j = context;
    (void)thread;
    for (size_t t = 0; t < j->n_rows; t++)
        for (size_t i = begin; i < end; i++)
            j->out[i] += j->in[t * j->n + i];
}

/* A well mixed 64-bit function of the counter (the finaliser of splitmix64). */
static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

/* out (+)= in / (1 - p) where the element's own random number says keep.  The mask is a function of the step's key,
 * the module and the element: the backward makes it again instead of storing it. */
static void dropout_range(void *context, size_t begin, size_t end, size_t thread, bool accumulate)
{
    const row_job *j = context;
    (void)thread;
    for (size_t i = begin * j->n; i < end * j->n; i++) {
        bool keep = (mix(j->key + i * 0x9E3779B97F4A7C15ULL) >> 11) >= j->threshold;
        real_t value = keep ? j->in[i] * j->scale : 0;
        j->out[i] = accumulate ? j->out[i] + value : value;
    }
}

static void drop_range(void *context, size_t begin, size_t end, size_t thread)
{
    dropout_range(context, begin, end, thread, false);
}

static void undrop_range(void *context, size_t begin, size_t end, size_t thread)
{
    dropout_range(context, begin, end, thread, true);
}

static void dropout(const bal_linear_call *c, const real_t *in, real_t *out, bool accumulate)
{
    const bal_pass *p = c->p;
    double rate = p->options.dropout;
    row_job job = {.n_rows = p->T, .n = c->l->w.cols, .in = in, .out = out};
    job.key = mix(p->dropout_key + (c->layer * BAL_SLOT_COUNT + (size_t)c->slot + 1) * 0xD1B54A32D192ED03ULL);
    job.threshold = (uint64_t)(rate * 9007199254740992.0); /* of 2^53 */
    job.scale = (real_t)(1 / (1 - rate));
    bal_parallel_for(p->T, 8, accumulate ? undrop_range : drop_range, &job);
}

void bal_linear_forward(const bal_linear_call *c, const real_t *X, real_t beta, real_t *Y)
{
    const bal_linear *l = c->l;
    size_t T = c->p->T, in = l->w.cols, out = l->w.rows;
    bool panel = bal_linear_uses_panel(c, false);
    if (c->p->input_watch != NULL)
        c->p->input_watch(c->p->input_watch_context, l, X, T);
    if (panel)
        bal_linear_panel_forward(c, X, beta, Y);
    else
        bal_gemm_view_nt(c->p->options.compute, T, X, in, &l->w, beta, Y, out, c->p->panel);
    if (l->bias != NULL) {
        row_job job = {.n = out, .in = l->bias, .out = Y, .ops = BAL_ISA_PICK(bal_nn_ops)};
        bal_parallel_for(T, 32, bias_range, &job);
    }
    if (panel || !c->adapted || l->lora == NULL)
        return;
    if (c->p->options.dropout > 0) {
        dropout(c, X, c->p->dropped, false);
        X = c->p->dropped;
    }
    bal_lora_forward(l->lora, T, X, in, Y, out, c->h);
}

void bal_linear_backward(const bal_linear_call *c, const real_t *X, const real_t *dY, real_t beta, real_t *dX)
{
    bal_pass *p = c->p;
    const bal_linear *l = c->l;
    size_t T = p->T, in = l->w.cols, out = l->w.rows;
    if (l->dw != NULL)
        bal_gemm(true, false, out, in, T, 1, dY, out, X, in, 1, l->dw, in);
    if (l->dbias != NULL) {
        row_job job = {.n_rows = T, .n = out, .in = dY, .out = l->dbias};
        bal_parallel_for(out, 64, dbias_range, &job);
    }
    if (dX != NULL && bal_linear_uses_panel(c, true)) {
        bal_linear_panel_backward(c, X, dY, beta, dX);
        return;
    }
    if (dX != NULL)
        bal_gemm_view_nn(p->options.compute, T, dY, out, &l->w, beta, dX, in, p->panel);
    if (!c->adapted || l->lora == NULL)
        return;
    if (p->options.dropout <= 0) {
        bal_lora_backward(l->lora, T, X, in, dY, out, c->h, dX, in, p->back.lora);
        return;
    }
    dropout(c, X, p->dropped, false);
    memset(p->ddropped, 0, T * in * sizeof *p->ddropped);
    bal_lora_backward(l->lora, T, p->dropped, in, dY, out, c->h, dX == NULL ? NULL : p->ddropped, in, p->back.lora);
    if (dX != NULL)
        dropout(c, p->ddropped, dX, true);
}
