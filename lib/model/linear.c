/* A linear module with its adapter: the order in which the functions of lib/adapter/method.h are called.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/threads.h"
#include "lib/model/pass_impl.h"
#include "lib/nn/rows.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/rowdot.h"

#include <string.h>

typedef struct row_job {
    size_t n;
    const real_t *in;
    real_t *out;
    uint64_t key, threshold;
    real_t scale;
} row_job;

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
    row_job job = {.n = c->l->w.cols, .in = in, .out = out};
    job.key = mix(p->dropout_key + (c->layer * BAL_SLOT_COUNT + (size_t)c->slot + 1) * 0xD1B54A32D192ED03ULL);
    job.threshold = (uint64_t)(rate * 9007199254740992.0); /* of 2^53 */
    job.scale = (real_t)(1 / (1 - rate));
    bal_parallel_for(p->T, 8, accumulate ? undrop_range : drop_range, &job);
}

/* Copies that are trained are f32 as adapters are: bf16 operands would round the update away. */
static bal_compute compute_of(const bal_pass *p, const bal_linear *l)
{
    return l->w.data != bal_linear_own_w(l)->data ? BAL_COMPUTE_F32 : p->options.compute;
}

void bal_pass_product(const bal_pass *p, const bal_linear *l, size_t M, const real_t *X, real_t beta, real_t *Y)
{
    if (p->options.alike) { /* beta is 0 or 1 */
        const bal_rowdot_job job = {.w = l->w, .y = Y, .ldy = l->w.rows, .add = beta != 0, .scale = 1};
        bal_rowdot(&job, 1, M, X, l->w.cols, p->row_scratch, p->half);
    } else {
        bal_gemm_view_nt(compute_of(p, l), M, X, l->w.cols, &l->w, beta, Y, l->w.rows, p->panel);
    }
    if (l->bias != NULL)
        bal_rows_add(M, l->w.rows, l->bias, Y, l->w.rows);
}

static void add_bias(const bal_linear_call *c, real_t *Y)
{
    if (c->l->bias != NULL)
        bal_rows_add(c->p->T, c->l->w.rows, c->l->bias, Y, c->l->w.rows);
}

/* The adapter's view of this application. */
static bal_site_call site_call(const bal_linear_call *c, const real_t *X)
{
    bal_pass *p = c->p;
    return (bal_site_call){.site = c->l->site,
                           .w = &c->l->w,
                           .M = p->T,
                           .x = X,
                           .xa = X,
                           .ldx = c->l->w.cols,
                           .ldy = c->l->w.rows,
                           .h = c->h,
                           .scratch = p->site_scratch,
                           .dropout = p->options.dropout > 0,
                           .backward_follows = p->options.backward,
                           .compute = p->options.compute,
                           .panel = p->panel};
}

static void adapted_forward(const bal_linear_call *c, const real_t *X, real_t beta, real_t *Y)
{
    bal_pass *p = c->p;
    const bal_linear *l = c->l;
    const bal_method *m = l->site->method;
    size_t T = p->T, in = l->w.cols, out = l->w.rows;
    bal_site_call k = site_call(c, X);
    bool apart = !m->additive && beta != 0; /* the method needs the output alone, and Y is a sum */
    k.y = apart ? p->alone : Y;
    if (m->input != NULL) {
        m->input(&k, p->dropped);
        X = p->dropped;
    }
    bal_gemm_view_nt(p->options.compute, T, X, in, &l->w, apart ? 0 : beta, k.y, out, p->panel);
    if (!m->output_without_bias)
        add_bias(c, k.y);
    if (m->forward != NULL) {
        if (k.dropout) {
            dropout(c, k.x, p->dropped, false);
            k.xa = p->dropped;
        }
        m->forward(&k);
    }
    if (m->output_without_bias)
        add_bias(c, k.y);
    if (apart)
        bal_pass_add(T * out, k.y, Y);
}

/* An adapter that works on the module itself. */
static bool has_adapter(const bal_linear_call *c)
{
    return c->adapted && c->l->site != NULL && !c->l->site->method->on_stream;
}

static bool has_stream_adapter(const bal_linear_call *c)
{
    return c->adapted && c->l->site != NULL && c->l->site->method->on_stream;
}

void bal_linear_stream_forward(const bal_linear_call *c, real_t *Y)
{
    bal_site_call k = site_call(c, NULL);
    k.y = Y;
    if (has_stream_adapter(c))
        c->l->site->method->forward(&k);
}

void bal_linear_stream_backward(const bal_linear_call *c, real_t *dY)
{
    bal_site_call k = site_call(c, NULL);
    if (!has_stream_adapter(c))
        return;
    k.dy = dY;
    c->l->site->method->backward_output(&k, c->p->alone);
    memcpy(dY, c->p->alone, k.M * c->l->w.rows * sizeof *dY);
}

void bal_linear_forward(const bal_linear_call *c, const real_t *X, real_t beta, real_t *Y)
{
    const bal_linear *l = c->l;
    bool adapted = has_adapter(c);
    if (!c->adapted && l->replaced) { /* the teacher has the model's own */
        bal_linear own = {.name = l->name, .w = l->own.w, .bias = l->own.bias};
        bal_linear_call as_own = *c;
        as_own.l = &own;
        bal_linear_forward(&as_own, X, beta, Y);
        return;
    }
    if (c->p->input_watch != NULL)
        c->p->input_watch(c->p->input_watch_context, l, X, c->p->T);
    if (adapted && bal_linear_uses_panel(c, false)) {
        bal_linear_panel_forward(c, X, beta, Y);
        add_bias(c, Y);
    } else if (adapted) {
        adapted_forward(c, X, beta, Y);
    } else {
        bal_pass_product(c->p, l, c->p->T, X, beta, Y);
    }
}

/* The adapter's share of dX and its gradients, with the input that the forward gave it. */
static void adapter_back(const bal_linear_call *c, bal_site_call *k, real_t *dX)
{
    bal_pass *p = c->p;
    size_t n = p->T * c->l->w.cols;
    k->dx = dX;
    if (!k->dropout) {
        c->l->site->method->backward(k);
        return;
    }
    dropout(c, k->x, p->dropped, false);
    memset(p->ddropped, 0, n * sizeof *p->ddropped);
    k->xa = p->dropped;
    k->dx = dX == NULL ? NULL : p->ddropped;
    c->l->site->method->backward(k);
    if (dX != NULL)
        dropout(c, p->ddropped, dX, true);
}

static void adapted_backward(const bal_linear_call *c, const real_t *X, const real_t *dY, real_t beta, real_t *dX)
{
    bal_pass *p = c->p;
    const bal_linear *l = c->l;
    const bal_method *m = l->site->method;
    size_t T = p->T, in = l->w.cols, out = l->w.rows;
    bal_site_call k = site_call(c, X);
    const real_t *dO = dY;
    k.dy = dY;
    if (m->backward_output != NULL) {
        m->backward_output(&k, p->alone);
        dO = p->alone;
    }
    if (m->input_back != NULL) {
        if (dX != NULL && beta == 0)
            memset(dX, 0, T * in * sizeof *dX);
        k.dx = dX;
        bal_gemm_view_nn(p->options.compute, T, dO, out, &l->w, 0, p->ddropped, in, p->panel);
        m->input_back(&k, p->ddropped);
    } else if (dX != NULL) {
        bal_gemm_view_nn(p->options.compute, T, dO, out, &l->w, beta, dX, in, p->panel);
    }
    if (m->backward != NULL)
        adapter_back(c, &k, dX);
}

void bal_linear_backward(const bal_linear_call *c, const real_t *X, const real_t *dY, real_t beta, real_t *dX)
{
    bal_pass *p = c->p;
    const bal_linear *l = c->l;
    size_t T = p->T, in = l->w.cols, out = l->w.rows;
    bool adapted = has_adapter(c);
    if (l->dw != NULL)
        bal_gemm(true, false, out, in, T, 1, dY, out, X, in, 1, l->dw, in);
    if (l->dbias != NULL)
        bal_rows_sum(T, out, dY, out, l->dbias);
    if (adapted && (l->site->method->dense || (dX != NULL && bal_linear_uses_panel(c, true))))
        bal_linear_panel_backward(c, X, dY, beta, dX);
    else if (adapted)
        adapted_backward(c, X, dY, beta, dX);
    else if (dX != NULL)
        bal_gemm_view_nn(compute_of(p, l), T, dY, out, &l->w, beta, dX, in, p->panel);
}
