/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/nn/activations.h"

#include "lib/base/threads.h"
#include "lib/nn/ops.h"

#include <math.h>

/* act(x) and its derivative, in double; SiLU has its own fused loops. */
static double activation(bal_act_kind kind, double x, double *slope)
{
    const double a = 0.79788456080286535588, b = 0.044715; /* sqrt(2/pi) */
    switch (kind) {
    case BAL_ACT_GELU_TANH: {
        double t = tanh(a * (x + b * x * x * x));
        *slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * a * (1 + 3 * b * x * x);
        return 0.5 * x * (1 + t);
    }
    case BAL_ACT_GELU: {
        double phi = 0.5 * (1 + erf(x * 0.70710678118654752440));
        *slope = phi + x * exp(-0.5 * x * x) * 0.39894228040143267794;
        return x * phi;
    }
    case BAL_ACT_RELU:
        *slope = x > 0 ? 1 : 0;
        return x > 0 ? x : x * 0; /* NaN stays NaN */
    case BAL_ACT_SILU:
        break;
    }
    double s = 1 / (1 + exp(-x));
    *slope = s * (1 + x * (1 - s));
    return x * s;
}

typedef struct glu_job {
    bal_act_kind kind;
    const real_t *gate, *up, *dout;
    real_t *out, *dgate, *dup;
    const bal_nn_ops *ops;
} glu_job;

static void forward_range(void *context, size_t begin, size_t end, size_t thread)
{
    const glu_job *j = context;
    double slope;
    (void)thread;
    if (j->kind == BAL_ACT_SILU && j->up != NULL) {
        j->ops->swiglu(j->gate + begin, j->up + begin, j->out + begin, end - begin);
        return;
    }
    for (size_t i = begin; i < end; i++)
        j->out[i] = (real_t)activation(j->kind, (double)j->gate[i], &slope) * (j->up == NULL ? 1 : j->up[i]);
}

void bal_glu_forward(bal_act_kind kind, size_t n, const real_t *gate, const real_t *up, real_t *out)
{
    glu_job job = {.kind = kind, .gate = gate, .up = up, .out = out, .ops = BAL_ISA_PICK(bal_nn_ops)};
    bal_parallel_for(n, 4096, forward_range, &job);
}

static void backward_range(void *context, size_t begin, size_t end, size_t thread)
{
    const glu_job *j = context;
    (void)thread;
    if (j->kind == BAL_ACT_SILU && j->up != NULL) {
        j->ops->swiglu_backward(j->gate + begin, j->up + begin, j->dout + begin, j->dgate + begin, j->dup + begin,
                                end - begin);
        return;
    }
    for (size_t i = begin; i < end; i++) {
        double slope, value = activation(j->kind, (double)j->gate[i], &slope);
        real_t d = j->dout[i];
        j->dgate[i] = d * (j->up == NULL ? 1 : j->up[i]) * (real_t)slope;
        if (j->up != NULL)
            j->dup[i] = d * (real_t)value;
    }
}

void bal_glu_backward(bal_act_kind kind, size_t n, const real_t *gate, const real_t *up, const real_t *dout,
                      real_t *dgate, real_t *dup)
{
    glu_job job = {.kind = kind,
                   .gate = gate,
                   .up = up,
                   .dout = dout,
                   .dgate = dgate,
                   .dup = dup,
                   .ops = BAL_ISA_PICK(bal_nn_ops)};
    bal_parallel_for(n, 4096, backward_range, &job);
}
