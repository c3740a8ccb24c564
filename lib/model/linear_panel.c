/* The second way to apply an adapter: the effective weight W + s (B A - B0 A0) is written into the panel, and one
 * product does what four to six would.  The update of the panel costs 2 r in out whatever the rows; the side path costs
 * 2 r rows (in + out), so the panel pays for many rows (DESIGN section 5.1).  Not with dropout, whose adapter sees
 * another input, nor with bf16 operands, which would round the update away.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/pass_impl.h"
#include "lib/tensor/gemm.h"

static bool possible(const bal_linear_call *c)
{
    const bal_pass_options *o = &c->p->options;
    return c->adapted && c->l->lora != NULL && o->dropout <= 0 && o->compute == BAL_COMPUTE_F32;
}

/* The rows above which the panel needs fewer operations.  Forward: the products with B, A0 and B0 fall away (that with A
 * stays, dB wants it); backward: those with A, B0 and A0. */
static bool pays(const bal_lora *l, size_t rows, bool backward)
{
    double in = (double)l->in, out = (double)l->out, saved = backward ? in : out, update = in * out;
    if (l->a0 != NULL) {
        saved += in + out;
        update *= 2;
    }
    return (double)rows * saved > update;
}

bool bal_linear_uses_panel(const bal_linear_call *c, bool backward)
{
    bal_adapter_path path = c->p->options.adapter_path;
    if (!possible(c) || path == BAL_ADAPTER_SIDE || c->l->w.rows * c->l->w.cols > c->p->panel_elements)
        return false;
    return path == BAL_ADAPTER_PANEL || pays(c->l->lora, c->p->T, backward);
}

size_t bal_linear_panel_size(const bal_linear *l, const bal_pass_options *o)
{
    size_t stored = bal_panel_size(o->compute, &l->w, o->max_tokens), whole = l->w.rows * l->w.cols;
    bool panel = l->lora != NULL && o->dropout <= 0 && o->compute == BAL_COMPUTE_F32 &&
                 o->adapter_path != BAL_ADAPTER_SIDE &&
                 (o->adapter_path == BAL_ADAPTER_PANEL || pays(l->lora, o->max_tokens, false) ||
                  pays(l->lora, o->max_tokens, true));
    return panel && whole > stored ? whole : stored;
}

static const real_t *effective(const bal_linear_call *c)
{
    const bal_view *w = &c->l->w;
    real_t *panel = c->p->panel;
    bal_view_dequant_parallel(w, 0, w->rows, panel, w->cols);
    bal_lora_add_delta(c->l->lora, 0, w->rows, panel, w->cols);
    return panel;
}

void bal_linear_panel_forward(const bal_linear_call *c, const real_t *X, real_t beta, real_t *Y)
{
    const bal_lora *l = c->l->lora;
    size_t T = c->p->T;
    bal_gemm(false, true, T, l->out, l->in, 1, X, l->in, effective(c), l->in, beta, Y, l->out);
    if (c->p->options.backward)
        bal_gemm(false, true, T, l->r, l->in, 1, X, l->in, l->a, l->in, 0, c->h, bal_lora_hidden(l));
}

void bal_linear_panel_backward(const bal_linear_call *c, const real_t *X, const real_t *dY, real_t beta, real_t *dX)
{
    const bal_lora *l = c->l->lora;
    bal_pass *p = c->p;
    bal_gemm(false, false, p->T, l->in, l->out, 1, dY, l->out, effective(c), l->in, beta, dX, l->in);
    bal_lora_backward(l, p->T, X, l->in, dY, l->out, c->h, NULL, l->in, p->back.lora);
}
