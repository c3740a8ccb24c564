/* Bottleneck adapters, with the names, defaults and first values of AdapterHub (init_weights "bert": N(0, 0.02^2), biases
 * 0).  A(v) = U act(D v + d) + u with inner = width / reduction_factor; the input v is kept beside (not mergeable).
 *   houlsby   f <- f + A(f), f the output of attention and of the MLP, before the residual sum and any norm
 *             (Houlsby et al. 2019, 1902.00751; swish)
 *   pfeiffer  h <- h + A(h), h the residual stream after the MLP (Pfeiffer et al. 2020, 2005.00247; relu)
 * Backward, with p = D v + d, a = act(p), g = act'(p) o (U^T dv'):
 *   dU = dv' a^T, du = dv', dD = g v^T, dd = g, dv = dv' + D^T g
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/methods.h"
#include "lib/nn/activations.h"
#include "lib/nn/rows.h"

#include <math.h>
#include <string.h>

enum { DOWN, DOWN_BIAS, UP, UP_BIAS };

static const struct {
    const char *name;
    bal_act_kind kind;
} k_acts[] = {{"swish", BAL_ACT_SILU}, {"silu", BAL_ACT_SILU},          {"relu", BAL_ACT_RELU},
              {"gelu", BAL_ACT_GELU},  {"gelu_new", BAL_ACT_GELU_TANH}, {"gelu_pytorch_tanh", BAL_ACT_GELU_TANH}};

static bal_status describe(bal_site *s)
{
    const bal_adapter_config *c = &s->adapter->config;
    const char *act = bal_config_key(c, "non_linearity")->text;
    if (act == NULL)
        act = s->method->on_stream ? "relu" : "swish";
    size_t i = 0, n = sizeof k_acts / sizeof *k_acts;
    while (i < n && strcmp(k_acts[i].name, act) != 0)
        i++;
    if (i == n)
        return bal_fail(BAL_EINVAL, "non_linearity '%.40s' is unknown; use swish, relu, gelu or gelu_new", act);
    double inner = floor((double)s->out / bal_config_key(c, "reduction_factor")->number);
    s->r = inner < 1 ? 1 : (size_t)inner;
    s->variant = (int)k_acts[i].kind;
    bal_site_add(s, "adapter_down.0.weight", 2, s->r, s->out);
    bal_site_add(s, "adapter_down.0.bias", 1, s->r, 1);
    bal_site_add(s, "adapter_up.weight", 2, s->out, s->r);
    bal_site_add(s, "adapter_up.bias", 1, s->out, 1);
    s->tensor[DOWN_BIAS].no_decay = s->tensor[UP_BIAS].no_decay = true;
    return BAL_OK;
}

static bal_status init(bal_site *s, const bal_view *w, bal_rng *rng)
{
    (void)w;
    for (size_t k = DOWN; k <= UP; k += UP - DOWN)
        for (size_t i = 0; i < s->r * s->out; i++)
            s->tensor[k].v[i] = (real_t)(0.02 * bal_rng_normal(rng));
    return BAL_OK;
}

/* v, and p. */
static size_t hidden(const bal_site *s)
{
    return s->out + s->r;
}

static size_t scratch(const bal_site *s, size_t M)
{
    return 2 * M * s->r;
}

/* In inference row by row: the lane of an element, and so its bits, then depend on its column alone. */
static void activate(const bal_site_call *c, const real_t *p, real_t *a)
{
    const bal_site *s = c->site;
    size_t n = c->rowwise != NULL ? s->r : c->M * s->r;
    for (size_t i = 0; i < c->M * s->r; i += n)
        bal_glu_forward((bal_act_kind)s->variant, n, p + i, NULL, a + i);
}

static void forward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    size_t r = s->r, out = s->out;
    real_t *v = c->h, *p = c->h + c->M * out, *a = c->scratch;
    bal_rows_copy(c->M, out, c->y, c->ldy, v, out);
    bal_site_product(c, r, out, 1, v, out, s->tensor[DOWN].v, 0, p, r);
    bal_rows_add(c->M, r, s->tensor[DOWN_BIAS].v, p, r);
    activate(c, p, a);
    bal_site_product(c, out, r, 1, a, r, s->tensor[UP].v, 1, c->y, c->ldy);
    bal_rows_add(c->M, out, s->tensor[UP_BIAS].v, c->y, c->ldy);
}

static void backward_output(const bal_site_call *c, real_t *dout)
{
    const bal_site *s = c->site;
    size_t r = s->r, out = s->out, M = c->M;
    const real_t *v = c->h, *p = c->h + M * out;
    real_t *a = c->scratch, *g = a + M * r;
    bal_gemm(false, false, M, r, out, 1, c->dy, c->ldy, s->tensor[UP].v, r, 0, g, r);
    bal_glu_backward((bal_act_kind)s->variant, M * r, p, NULL, g, g, NULL);
    if (bal_site_trains(s)) {
        bal_glu_forward((bal_act_kind)s->variant, M * r, p, NULL, a);
        bal_gemm(true, false, out, r, M, 1, c->dy, c->ldy, a, r, 1, s->tensor[UP].d, r);
        bal_gemm(true, false, r, out, M, 1, g, r, v, out, 1, s->tensor[DOWN].d, out);
        bal_rows_sum(M, out, c->dy, c->ldy, s->tensor[UP_BIAS].d);
        bal_rows_sum(M, r, g, r, s->tensor[DOWN_BIAS].d);
    }
    bal_rows_copy(M, out, c->dy, c->ldy, dout, out);
    bal_gemm(false, false, M, out, r, 1, g, r, s->tensor[DOWN].v, out, 1, dout, out);
}

#define KEYS                                                                                                           \
    {                                                                                                                  \
        {.name = "reduction_factor", .type = BAL_KEY_NUMBER, .number = 16, .least = 1e-3, .most = 1e6},                \
        {                                                                                                              \
            .name = "non_linearity", .type = BAL_KEY_TEXT                                                              \
        }                                                                                                              \
    }

/* What differs: after which sublayers, and on what. */
#define BOTTLENECK(word, heading, type, modules, stream)                                                               \
    {                                                                                                                  \
        .name = (word), .title = (heading), .peft_type = (type), .no_rank = true, .not_in_peft = true,                 \
        .lacks = BAL_NO_PATTERNS | BAL_NO_RSLORA, .targets = (modules), .on_stream = (stream), .keys = KEYS,           \
        .describe = describe, .init = init, .hidden = hidden, .scratch = scratch, .forward = forward,                  \
        .backward_output = backward_output,                                                                            \
    }
const bal_method bal_method_houlsby = BOTTLENECK("houlsby", "Houlsby bottleneck", "HOULSBY", BAL_TARGETS_HALVES, false);
const bal_method bal_method_pfeiffer = BOTTLENECK("pfeiffer", "Pfeiffer bottleneck", "PFEIFFER", BAL_TARGETS_MLP, true);
