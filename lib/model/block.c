/* One block of a decoder:
 *   m = x + O(attention(rope(Q n1), rope(K n1), V n1)),  n1 = norm(x)
 *   y = m + Down(act(Gate n2) * Up n2),                  n2 = norm(m)
 * The backward makes n1, n2 and the activation again; the rest is in the cache.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/pass_impl.h"
#include "lib/nn/activations.h"
#include "lib/nn/norm.h"
#include "lib/nn/rope.h"

#include <string.h>

static bal_linear_call call(bal_pass *p, size_t layer, bal_block_cache *c, bool adapted, bal_slot slot)
{
    return (bal_linear_call){p, &p->m->blocks[layer].linear[slot], layer, slot, adapted, c->h[slot]};
}

static void apply(bal_pass *p, size_t layer, bal_block_cache *c, bool adapted, bal_slot slot, const real_t *X,
                  real_t beta, real_t *Y)
{
    bal_linear_call k = call(p, layer, c, adapted, slot);
    bal_linear_forward(&k, X, beta, Y);
}

static void apply_back(bal_pass *p, size_t layer, bal_block_cache *c, bal_slot slot, const real_t *X, const real_t *dY,
                       real_t beta, real_t *dX)
{
    bal_linear_call k = call(p, layer, c, true, slot);
    bal_linear_backward(&k, X, dY, beta, dX);
}

static void normalise(const bal_pass *p, const real_t *x, const real_t *w, real_t *y)
{
    const bal_model_config *m = &p->m->config;
    bal_rms_forward(p->T, m->hidden, x, w, m->norm == BAL_NORM_RMS_PLUS_ONE, m->norm_eps, y);
}

static void rotate(const bal_pass *p, real_t *q, real_t *k, bool inverse)
{
    const bal_model_config *m = &p->m->config;
    if (m->rope.kind == BAL_ROPE_NONE)
        return;
    bal_rope_apply(q, m->n_heads * m->head_dim, p->T, m->n_heads, m->head_dim, p->cosines, p->sines, p->rope_row,
                   inverse);
    bal_rope_apply(k, m->n_kv_heads * m->head_dim, p->T, m->n_kv_heads, m->head_dim, p->cosines, p->sines, p->rope_row,
                   inverse);
}

void bal_block_forward(bal_pass *p, size_t layer, bal_block_cache *c, bool adapted, real_t *out)
{
    const bal_model_config *m = &p->m->config;
    const bal_block *b = &p->m->blocks[layer];
    size_t stream = p->T * m->hidden * sizeof *out;
    normalise(p, c->x, b->attention_norm, p->normed);
    apply(p, layer, c, adapted, BAL_SLOT_Q, p->normed, 0, c->q);
    apply(p, layer, c, adapted, BAL_SLOT_K, p->normed, 0, c->k);
    apply(p, layer, c, adapted, BAL_SLOT_V, p->normed, 0, c->v);
    rotate(p, c->q, c->k, false);
    bal_attention_forward(&p->attention, c->q, c->k, c->v, c->o, c->lse);
    memcpy(c->middle, c->x, stream);
    apply(p, layer, c, adapted, BAL_SLOT_O, c->o, 1, c->middle);
    normalise(p, c->middle, b->mlp_norm, p->normed);
    apply(p, layer, c, adapted, BAL_SLOT_GATE, p->normed, 0, c->gate);
    apply(p, layer, c, adapted, BAL_SLOT_UP, p->normed, 0, c->up);
    bal_glu_forward(m->act, p->T * m->intermediate, c->gate, c->up, p->act);
    memcpy(out, c->middle, stream);
    apply(p, layer, c, adapted, BAL_SLOT_DOWN, p->act, 1, out);
}

void bal_block_backward(bal_pass *p, size_t layer, bal_block_cache *c, bool need_dx)
{
    const bal_model_config *m = &p->m->config;
    const bal_block *b = &p->m->blocks[layer];
    bal_block_scratch *s = &p->back;
    real_t plus_one = m->norm == BAL_NORM_RMS_PLUS_ONE, *dup = s->dact;
    /* y = m + Down(act): dx stays as the residual's share of dm */
    bal_glu_forward(m->act, p->T * m->intermediate, c->gate, c->up, p->act);
    apply_back(p, layer, c, BAL_SLOT_DOWN, p->act, s->dx, 0, s->dact);
    /* act = f(gate) up */
    bal_glu_backward(m->act, p->T * m->intermediate, c->gate, c->up, s->dact, s->dgate, dup);
    normalise(p, c->middle, b->mlp_norm, p->normed);
    apply_back(p, layer, c, BAL_SLOT_GATE, p->normed, s->dgate, 0, s->dnormed);
    apply_back(p, layer, c, BAL_SLOT_UP, p->normed, dup, 1, s->dnormed);
    bal_rms_backward(p->T, m->hidden, c->middle, b->mlp_norm, plus_one, m->norm_eps, s->dnormed, s->dx, b->dmlp_norm,
                     s->reciprocal);
    /* m = x + O(attention) */
    apply_back(p, layer, c, BAL_SLOT_O, c->o, s->dx, 0, s->dattention);
    bal_attention_backward(&p->attention, p->T, c->q, c->k, c->v, c->o, c->lse, s->dattention, s->dq, s->dk, s->dv,
                           s->delta);
    rotate(p, s->dq, s->dk, true);
    normalise(p, c->x, b->attention_norm, p->normed);
    bool need_dnormed = need_dx || b->dattention_norm != NULL;
    real_t *dnormed = need_dnormed ? s->dnormed : NULL;
    apply_back(p, layer, c, BAL_SLOT_Q, p->normed, s->dq, 0, dnormed);
    apply_back(p, layer, c, BAL_SLOT_K, p->normed, s->dk, 1, dnormed);
    apply_back(p, layer, c, BAL_SLOT_V, p->normed, s->dv, 1, dnormed);
    if (need_dnormed)
        bal_rms_backward(p->T, m->hidden, c->x, b->attention_norm, plus_one, m->norm_eps, s->dnormed,
                         need_dx ? s->dx : NULL, b->dattention_norm, s->reciprocal);
}
