/* One block of a decoder:
 *   m = x + f(O(attention(rope(g(Q n1)), rope(g(K n1)), V n1))),  n1 = norm(x)
 *   y = m + f(Down(act(Gate n2) * Up n2)),                        n2 = norm(m)
 * g (a norm of each head) and f (a norm) are there in some families only; an MLP without a gate is Down(act(Up n2)).
 * With norm_after_add there is no norm before, and m = f(x + O(...)), y = f(m + Down(...)).  The backward makes n1, n2
 * and the activation again; the rest is in the cache.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/pass_impl.h"
#include "lib/nn/activations.h"
#include "lib/nn/rope.h"

#include <string.h>

/* What most functions here need. */
typedef struct block_job {
    bal_pass *p;
    const bal_model_config *m;
    bal_block *b;
    bal_block_cache *c;
    size_t layer, q_width, kv_width;
    bool adapted;
} block_job;

static block_job job_of(bal_pass *p, size_t layer, bal_block_cache *c, bool adapted)
{
    const bal_model_config *m = &p->m->config;
    return (block_job){p,      m, &p->m->blocks[layer], c, layer, m->n_heads * m->head_dim, m->n_kv_heads * m->head_dim,
                       adapted};
}

static bool there(const block_job *j, bal_slot slot)
{
    return bal_linear_there(&j->b->linear[slot]);
}

static const bal_norm *norm_at(const block_job *j, bal_norm_place place)
{
    return j->b->norm[place].w == NULL ? NULL : &j->b->norm[place];
}

static void apply(const block_job *j, bal_slot slot, const real_t *X, real_t beta, real_t *Y)
{
    bal_linear_call k = {j->p, &j->b->linear[slot], j->layer, slot, j->adapted, j->c->h[slot]};
    bal_linear_forward(&k, X, beta, Y);
}

static void apply_back(const block_job *j, bal_slot slot, const real_t *X, const real_t *dY, real_t beta, real_t *dX)
{
    bal_linear_call k = {j->p, &j->b->linear[slot], j->layer, slot, true, j->c->h[slot]};
    bal_linear_backward(&k, X, dY, beta, dX);
}

/* The input of a half block: norm(x) in p->normed, or x itself. */
static const real_t *normed_input(const block_job *j, bal_norm_place place, const real_t *x)
{
    const bal_norm *n = norm_at(j, place);
    if (n == NULL)
        return x;
    bal_pass_norm(j->p, n, j->p->T, j->m->hidden, x, j->p->normed);
    return j->p->normed;
}

static void rotate(const block_job *j, real_t *q, real_t *k, bool inverse)
{
    const bal_model_config *m = j->m;
    const bal_pass *p = j->p;
    bool local = m->local_rope.kind != BAL_ROPE_NONE && bal_layer_in(&m->sliding, j->layer);
    if (m->rope.kind == BAL_ROPE_NONE || bal_layer_in(&m->unrotated, j->layer))
        return;
    bal_rope_apply(q, j->q_width, p->T, m->n_heads, m->head_dim, p->cosines[local], p->sines[local], p->rope_row,
                   inverse);
    bal_rope_apply(k, j->kv_width, p->T, m->n_kv_heads, m->head_dim, p->cosines[local], p->sines[local], p->rope_row,
                   inverse);
}

static bal_attention attention_of(const block_job *j)
{
    bal_attention a = j->p->attention;
    a.window = bal_layer_in(&j->m->sliding, j->layer) ? j->m->window : 0;
    return a;
}

/* q, k and v of n1, before the rotation. */
static void project(const block_job *j, const real_t *n1)
{
    bal_block_cache *c = j->c;
    const bal_norm *qn = norm_at(j, BAL_NORM_Q), *kn = norm_at(j, BAL_NORM_K);
    real_t *q = qn == NULL ? c->q : c->q_raw, *k = kn == NULL ? c->k : c->k_raw;
    apply(j, BAL_SLOT_Q, n1, 0, there(j, BAL_SLOT_K) ? q : j->p->fused);
    if (there(j, BAL_SLOT_K)) {
        apply(j, BAL_SLOT_K, n1, 0, k);
        apply(j, BAL_SLOT_V, n1, 0, c->v);
    } else {
        bal_pass_parts(j->p->T, j->p->fused, (real_t *[]){q, k, c->v}, (size_t[]){j->q_width, j->kv_width, j->kv_width},
                       3, false);
    }
    if (qn != NULL)
        bal_pass_norm(j->p, qn, j->p->T * j->m->n_heads, j->m->head_dim, q, c->q);
    if (kn != NULL)
        bal_pass_norm(j->p, kn, j->p->T * j->m->n_kv_heads, j->m->head_dim, k, c->k);
}

/* out = x + f(slot X), with the norm f when there is one; raw: where its input is kept. */
static void add_half(const block_job *j, bal_slot slot, bal_norm_place place, const real_t *X, const real_t *x,
                     real_t *raw, real_t *out)
{
    const bal_norm *n = norm_at(j, place);
    size_t elements = j->p->T * j->m->hidden;
    if (n == NULL || j->m->norm_after_add) {
        real_t *sum = n == NULL ? out : raw;
        memcpy(sum, x, elements * sizeof *sum);
        apply(j, slot, X, 1, sum);
        if (n != NULL)
            bal_pass_norm(j->p, n, j->p->T, j->m->hidden, raw, out);
        return;
    }
    apply(j, slot, X, 0, raw);
    bal_pass_norm(j->p, n, j->p->T, j->m->hidden, raw, out);
    bal_pass_add(elements, x, out);
}

void bal_block_forward(bal_pass *p, size_t layer, bal_block_cache *c, bool adapted, real_t *out)
{
    const block_job j = job_of(p, layer, c, adapted);
    const bal_attention attention = attention_of(&j);
    bool gated = there(&j, BAL_SLOT_GATE);
    project(&j, normed_input(&j, BAL_NORM_ATTENTION_IN, c->x));
    rotate(&j, c->q, c->k, false);
    bal_attention_forward(&attention, c->q, c->k, c->v, c->o, c->lse);
    add_half(&j, BAL_SLOT_O, BAL_NORM_ATTENTION_OUT, c->o, c->x, c->attention_raw, c->middle);
    const real_t *n2 = normed_input(&j, BAL_NORM_MLP_IN, c->middle);
    if (gated && !there(&j, BAL_SLOT_UP)) {
        apply(&j, BAL_SLOT_GATE, n2, 0, p->fused);
        bal_pass_parts(p->T, p->fused, (real_t *[]){c->gate, c->up}, (size_t[]){j.m->intermediate, j.m->intermediate},
                       2, false);
    } else {
        if (gated)
            apply(&j, BAL_SLOT_GATE, n2, 0, c->gate);
        apply(&j, BAL_SLOT_UP, n2, 0, gated ? c->up : c->gate);
    }
    bal_glu_forward(j.m->act, p->T * j.m->intermediate, c->gate, c->up, p->act);
    add_half(&j, BAL_SLOT_DOWN, BAL_NORM_MLP_OUT, p->act, c->middle, c->mlp_raw, out);
}

/* From the gradient s->dx of x + f(b): returns that of b; s->dx becomes the residual's share of that of x. */
static const real_t *branch_back(const block_job *j, bal_norm_place place, const real_t *raw)
{
    bal_block_scratch *s = &j->p->back;
    const bal_norm *n = norm_at(j, place);
    size_t bytes = j->p->T * j->m->hidden * sizeof *raw;
    if (n == NULL)
        return s->dx;
    memset(s->dbranch, 0, bytes);
    bal_pass_norm_back(j->p, n, j->p->T, j->m->hidden, raw, s->dx, s->dbranch);
    if (!j->m->norm_after_add)
        return s->dbranch;
    memcpy(s->dx, s->dbranch, bytes);
    return s->dx;
}

static void mlp_back(const block_job *j)
{
    bal_pass *p = j->p;
    bal_block_cache *c = j->c;
    bal_block_scratch *s = &p->back;
    size_t I = j->m->intermediate;
    real_t *dup = s->dact;
    bool gated = there(j, BAL_SLOT_GATE), inside = norm_at(j, BAL_NORM_MLP_IN) != NULL;
    const real_t *dbranch = branch_back(j, BAL_NORM_MLP_OUT, c->mlp_raw);
    bal_glu_forward(j->m->act, p->T * I, c->gate, c->up, p->act);
    apply_back(j, BAL_SLOT_DOWN, p->act, dbranch, 0, s->dact);
    bal_glu_backward(j->m->act, p->T * I, c->gate, c->up, s->dact, s->dgate, dup);
    const real_t *n2 = normed_input(j, BAL_NORM_MLP_IN, c->middle);
    real_t *dn2 = inside ? s->dnormed : s->dx, beta = inside ? 0 : 1;
    if (gated && !there(j, BAL_SLOT_UP)) {
        bal_pass_parts(p->T, p->fused, (real_t *[]){s->dgate, dup}, (size_t[]){I, I}, 2, true);
        apply_back(j, BAL_SLOT_GATE, n2, p->fused, beta, dn2);
    } else if (gated) {
        apply_back(j, BAL_SLOT_GATE, n2, s->dgate, beta, dn2);
        apply_back(j, BAL_SLOT_UP, n2, dup, 1, dn2);
    } else {
        apply_back(j, BAL_SLOT_UP, n2, s->dgate, beta, dn2);
    }
    if (inside)
        bal_pass_norm_back(p, norm_at(j, BAL_NORM_MLP_IN), p->T, j->m->hidden, c->middle, s->dnormed, s->dx);
}

/* The gradient d of q (or k) after its norm becomes that before it. */
static real_t *head_norm_back(const block_job *j, bal_norm_place place, size_t heads, const real_t *raw, real_t *d,
                              real_t *out)
{
    const bal_norm *n = norm_at(j, place);
    size_t rows = j->p->T * heads;
    if (n == NULL)
        return d;
    memset(out, 0, rows * j->m->head_dim * sizeof *out);
    bal_pass_norm_back(j->p, n, rows, j->m->head_dim, raw, d, out);
    return out;
}

static void project_back(const block_job *j, const real_t *n1, real_t beta, real_t *dn1)
{
    bal_block_scratch *s = &j->p->back;
    real_t *dq = head_norm_back(j, BAL_NORM_Q, j->m->n_heads, j->c->q_raw, s->dq, s->dq_raw);
    real_t *dk = head_norm_back(j, BAL_NORM_K, j->m->n_kv_heads, j->c->k_raw, s->dk, s->dk_raw);
    if (!there(j, BAL_SLOT_K)) {
        bal_pass_parts(j->p->T, j->p->fused, (real_t *[]){dq, dk, s->dv},
                       (size_t[]){j->q_width, j->kv_width, j->kv_width}, 3, true);
        apply_back(j, BAL_SLOT_Q, n1, j->p->fused, beta, dn1);
        return;
    }
    apply_back(j, BAL_SLOT_Q, n1, dq, beta, dn1);
    apply_back(j, BAL_SLOT_K, n1, dk, 1, dn1);
    apply_back(j, BAL_SLOT_V, n1, s->dv, 1, dn1);
}

void bal_block_backward(bal_pass *p, size_t layer, bal_block_cache *c, bool need_dx)
{
    const block_job j = job_of(p, layer, c, true);
    const bal_attention attention = attention_of(&j);
    const bal_norm *in = norm_at(&j, BAL_NORM_ATTENTION_IN);
    bal_block_scratch *s = &p->back;
    mlp_back(&j);
    const real_t *dbranch = branch_back(&j, BAL_NORM_ATTENTION_OUT, c->attention_raw);
    apply_back(&j, BAL_SLOT_O, c->o, dbranch, 0, s->dattention);
    bal_attention_backward(&attention, p->T, c->q, c->k, c->v, c->o, c->lse, s->dattention, s->dq, s->dk, s->dv,
                           s->delta);
    rotate(&j, s->dq, s->dk, true);
    const real_t *n1 = normed_input(&j, BAL_NORM_ATTENTION_IN, c->x);
    if (in == NULL) {
        project_back(&j, n1, 1, need_dx ? s->dx : NULL);
        return;
    }
    bool need_dnormed = need_dx || in->dw != NULL;
    project_back(&j, n1, 0, need_dnormed ? s->dnormed : NULL);
    if (need_dnormed)
        bal_pass_norm_back(p, in, p->T, j.m->hidden, c->x, s->dnormed, need_dx ? s->dx : NULL);
}
