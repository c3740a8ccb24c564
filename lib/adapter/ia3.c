/* (IA)^3 (Liu et al. 2022, 2205.05638; as peft): a learned factor of each output, or of each input of the modules that
 * feedforward_modules names; 1 at the start.
 *   outputs  y = l o (W x + b):  dl = sum_t dy o (W x + b),  what W sees is dy o l
 *   inputs   y = W (l o x) + b:  dl = sum_t x o dx',  dx += l o dx',  dx' the gradient of l o x
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/methods.h"
#include "lib/base/str.h"
#include "lib/nn/rows.h"

enum { OUTPUTS, INPUTS };

/* peft asks only whether the module's path ends so. */
static bool is_feedforward(const bal_site *s)
{
    const bal_key_value *names = bal_config_key(&s->adapter->config, "feedforward_modules");
    for (size_t i = 0; i < names->n_list; i++)
        if (bal_ends_with(s->module, names->list[i]))
            return true;
    return false;
}

static bal_status describe(bal_site *s)
{
    s->variant = is_feedforward(s) ? INPUTS : OUTPUTS;
    if (s->variant == INPUTS)
        bal_site_add(s, "ia3_l", 2, 1, s->in);
    else
        bal_site_add(s, "ia3_l", 2, s->out, 1);
    s->tensor[0].no_decay = true;
    return BAL_OK;
}

static bal_status init(bal_site *s, const bal_view *w, bal_rng *rng)
{
    size_t n = s->variant == INPUTS ? s->in : s->out;
    (void)w;
    (void)rng;
    for (size_t i = 0; i < n; i++)
        s->tensor[0].v[i] = 1;
    return BAL_OK;
}

static size_t hidden(const bal_site *s)
{
    return s->variant == OUTPUTS ? s->out : 0;
}

static void input(const bal_site_call *c, real_t *out)
{
    const bal_site *s = c->site;
    if (s->variant == INPUTS)
        bal_rows_scale(c->M, s->in, s->tensor[0].v, c->x, c->ldx, false, out, s->in);
    else
        bal_rows_copy(c->M, s->in, c->x, c->ldx, out, s->in);
}

static void input_back(const bal_site_call *c, const real_t *dout)
{
    const bal_site *s = c->site;
    if (s->variant == INPUTS) {
        if (s->tensor[0].d != NULL)
            bal_rows_dot(c->M, s->in, c->x, c->ldx, dout, s->in, NULL, s->tensor[0].d);
        if (c->dx != NULL)
            bal_rows_scale(c->M, s->in, s->tensor[0].v, dout, s->in, true, c->dx, c->ldx);
        return;
    }
    for (size_t t = 0; c->dx != NULL && t < c->M; t++)
        for (size_t i = 0; i < s->in; i++)
            c->dx[t * c->ldx + i] += dout[t * s->in + i];
}

static void forward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    if (s->variant == INPUTS)
        return;
    if (c->backward_follows)
        bal_rows_copy(c->M, s->out, c->y, c->ldy, c->h, s->out);
    bal_rows_scale(c->M, s->out, s->tensor[0].v, c->y, c->ldy, false, c->y, c->ldy);
}

static void backward_output(const bal_site_call *c, real_t *dout)
{
    const bal_site *s = c->site;
    if (s->variant == OUTPUTS) {
        if (s->tensor[0].d != NULL)
            bal_rows_dot(c->M, s->out, c->h, s->out, c->dy, c->ldy, NULL, s->tensor[0].d);
        bal_rows_scale(c->M, s->out, s->tensor[0].v, c->dy, c->ldy, false, dout, s->out);
        return;
    }
    bal_rows_copy(c->M, s->out, c->dy, c->ldy, dout, s->out);
}

static void effective(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    const real_t *l = s->tensor[0].v;
    for (size_t i = 0; i < n_rows; i++)
        for (size_t k = 0; k < s->in; k++)
            out[i * ld + k] *= s->variant == INPUTS ? l[k] : l[row0 + i];
}

static void effective_bias(const bal_site *s, size_t row0, size_t n, real_t *bias)
{
    for (size_t i = 0; s->variant == OUTPUTS && i < n; i++)
        bias[i] *= s->tensor[0].v[row0 + i];
}

const bal_method bal_method_ia3 = {
    .name = "ia3",
    .title = "(IA)^3",
    .peft_type = "IA3",
    .lacks = BAL_NO_LAYERS | BAL_NO_PATTERNS | BAL_NO_TYING | BAL_NO_RSLORA,
    .init_key = "init_ia3_weights",
    .no_rank = true,
    .targets = BAL_TARGETS_IA3,
    .keys = {{.name = "feedforward_modules", .type = BAL_KEY_LIST}},
    .describe = describe,
    .init = init,
    .hidden = hidden,
    .input = input,
    .input_back = input_back,
    .forward = forward,
    .backward_output = backward_output,
    .effective = effective,
    .effective_bias = effective_bias,
};
