/* The second way to apply an adapter: the effective weight is written into the panel, and one product does what four to
 * six would.  For LoRA, W + s (B A - B0 A0) costs 2 r in out whatever the rows and the side path 2 r rows (in + out), so
 * the panel pays for many rows (DESIGN section 5.1).  Not with dropout, whose adapter sees another input, nor with bf16
 * operands, which would round the update away.  A method whose change of W is a dense matrix has no other way; its
 * product is in f32 always.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/pass_impl.h"
#include "lib/tensor/gemm.h"

static bool possible(const bal_linear *l, const bal_pass_options *o)
{
    return l->site != NULL && l->site->method->panel && l->site->n_tensors == 2 && o->dropout <= 0 &&
           o->compute == BAL_COMPUTE_F32 && o->adapter_path != BAL_ADAPTER_SIDE;
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
    const bal_pass_options *o = &c->p->options;
    if (c->l->site->method->dense)
        return true;
    if (!possible(c->l, o) || c->l->w.rows * c->l->w.cols > c->p->panel_elements)
        return false;
    return o->adapter_path == BAL_ADAPTER_PANEL || pays(c->l->site->lora, c->p->T, backward);
}

size_t bal_linear_panel_size(const bal_linear *l, const bal_pass_options *o)
{
    size_t stored = bal_panel_size(o->compute, &l->w, o->max_tokens), whole = l->w.rows * l->w.cols;
    bool panel = possible(l, o) && (o->adapter_path == BAL_ADAPTER_PANEL || pays(l->site->lora, o->max_tokens, false) ||
                                    pays(l->site->lora, o->max_tokens, true));
    panel = panel || (l->site != NULL && l->site->method->dense);
    return panel && whole > stored ? whole : stored;
}

static const real_t *effective(const bal_linear_call *c)
{
    const bal_view *w = &c->l->w;
    real_t *panel = c->p->panel;
    bal_view_dequant_parallel(w, 0, w->rows, panel, w->cols);
    c->l->site->method->effective(c->l->site, 0, w->rows, panel, w->cols);
    return panel;
}

void bal_linear_panel_forward(const bal_linear_call *c, const real_t *X, real_t beta, real_t *Y)
{
    const bal_site *s = c->l->site;
    size_t T = c->p->T;
    bal_gemm(false, true, T, s->out, s->in, 1, X, s->in, effective(c), s->in, beta, Y, s->out);
    if (c->p->options.backward && s->lora != NULL)
        bal_gemm(false, true, T, s->r, s->in, 1, X, s->in, s->lora->a, s->in, 0, c->h, bal_lora_hidden(s->lora));
}

void bal_linear_panel_backward(const bal_linear_call *c, const real_t *X, const real_t *dY, real_t beta, real_t *dX)
{
    const bal_site *s = c->l->site;
    bal_pass *p = c->p;
    if (dX != NULL)
        bal_gemm(false, false, p->T, s->in, s->out, 1, dY, s->out, effective(c), s->in, beta, dX, s->in);
    if (!s->method->dense) {
        bal_lora_backward(s->lora, p->T, X, s->in, dY, s->out, c->h, NULL, s->in, p->site_scratch);
    } else if (bal_site_trains(s)) {
        real_t *G = p->site_scratch; /* gradient of the whole matrix */
        bal_gemm(true, false, s->out, s->in, p->T, 1, dY, s->out, X, s->in, 0, G, s->in);
        s->method->dense_back(s, G, G + s->out * s->in);
    }
}
