/* One block of a decoder:
 *   m = x + f(O(attention(rope(g(Q n1)), rope(g(K n1)), V n1))),  n1 = norm(x)
 *   y = m + f(Down(act(Gate n2) * Up n2)),                        n2 = norm(m)
 * g (a norm of each head) and f (a norm) are there in some families only; an MLP without a gate is Down(act(Up n2)).
 * With norm_after_add there is no norm before, and m = f(x + O(...)), y = f(m + Down(...)).  In a parallel block n2 = n1,
 * and there is no f.  The backward makes n1, n2
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
    bool adapted, narrow; /* narrow: what follows the keys and values is computed for the wanted rows alone */
} block_job;

static block_job job_of(bal_pass *p, size_t layer, bal_block_cache *c, bool adapted)
{
    const bal_model_config *m = &p->m->config;
    return (block_job){p,
                       m,
                       &p->m->blocks[layer],
                       c,
                       layer,
                       m->n_heads * m->head_dim,
                       m->n_kv_heads * m->head_dim,
                       adapted,
                       bal_pass_narrows(p, layer)};
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
    bal_pass_norm(j->p, n, j->adapted, j->p->T, j->m->hidden, x, j->p->normed);
    return j->p->normed;
}

static void rotate(const block_job *j, real_t *q, real_t *k, bool inverse)
{
    const bal_model_config *m = j->m;
    const bal_pass *p = j->p;
    bool local = m->local_rope.kind != BAL_ROPE_NONE && bal_layer_in(&m->sliding, j->layer);
    if (m->rope.kind == BAL_ROPE_NONE || bal_layer_in(&m->unrotated, j->layer))
        return;
    bal_rope_apply(q, j->q_width, p->T, m->n_heads, m->head_dim, m->rotary_dim, p->cosines[local], p->sines[local],
                   p->rope_row, inverse);
    bal_rope_apply(k, j->kv_width, p->T, m->n_kv_heads, m->head_dim, m->rotary_dim, p->cosines[local], p->sines[local],
                   p->rope_row, inverse);
}

/* A matrix that makes q, k and v at once makes all q. */
static bool narrow_queries(const block_job *j)
{
    return j->narrow && there(j, BAL_SLOT_K);
}

static bal_attention attention_of(const block_job *j)
{
    bal_attention a = j->p->attention;
    a.scale = bal_layer_scale(j->m, j->layer);
    a.window = bal_layer_in(&j->m->sliding, j->layer) ? j->m->window : 0;
    if (!narrow_queries(j))
        a.queries = NULL;
    return a;
}

/* q, k and v of n1, before the rotation. */
static void project(const block_job *j, const real_t *n1)
{
    bal_block_cache *c = j->c;
    const bal_norm *qn = norm_at(j, BAL_NORM_Q), *kn = norm_at(j, BAL_NORM_K);
    real_t *q = qn == NULL ? c->q : c->q_raw, *k = kn == NULL ? c->k : c->k_raw;
    size_t T = j->p->T, q_rows = narrow_queries(j) ? j->p->n_want : T;
    const real_t *nq = n1;
    if (narrow_queries(j)) {
        bal_pass_gather(j->p, n1, j->m->hidden, j->p->act);
        nq = j->p->act;
    }
    j->p->T = q_rows;
    apply(j, BAL_SLOT_Q, nq, 0, there(j, BAL_SLOT_K) ? q : j->p->fused);
    j->p->T = T;
    if (there(j, BAL_SLOT_K)) {
        apply(j, BAL_SLOT_K, n1, 0, k);
        apply(j, BAL_SLOT_V, n1, 0, c->v);
    } else {
        bal_pass_parts(j->p->T, j->p->fused, (real_t *[]){q, k, c->v}, (size_t[]){j->q_width, j->kv_width, j->kv_width},
                       3, false);
    }
    if (qn != NULL)
        bal_pass_norm(j->p, qn, j->adapted, q_rows * j->m->n_heads, j->m->head_dim, q, c->q);
    if (narrow_queries(j))
        bal_pass_spread(j->p, T, c->q, j->q_width);
    if (kn != NULL)
        bal_pass_norm(j->p, kn, j->adapted, j->p->T * j->m->n_kv_heads, j->m->head_dim, k, c->k);
}

/* out = x + f(slot X), with the norm f when there is one; raw: where its input is kept. */
static void sum_half(const block_job *j, bal_slot slot, bal_norm_place place, const real_t *X, const real_t *x,
                     real_t *raw, real_t *out)
{
    const bal_norm *n = norm_at(j, place);
    size_t elements = j->p->T * j->m->hidden;
    if (n == NULL || j->m->norm_after_add) {
        real_t *sum = n == NULL ? out : raw;
        memcpy(sum, x, elements * sizeof *sum);
        apply(j, slot, X, 1, sum);
        if (n != NULL)
            bal_pass_norm(j->p, n, j->adapted, j->p->T, j->m->hidden, raw, out);
        return;
    }
    apply(j, slot, X, 0, raw);
    bal_pass_norm(j->p, n, j->adapted, j->p->T, j->m->hidden, raw, out);
    bal_pass_add(elements, x, out);
}

static void add_half(const block_job *j, bal_slot slot, bal_norm_place place, const real_t *X, const real_t *x,
                     real_t *raw, real_t *out)
{
    bal_linear_call k = {j->p, &j->b->linear[slot], j->layer, slot, j->adapted, j->c->h[slot]};
    sum_half(j, slot, place, X, x, raw, out);
    bal_linear_stream_forward(&k, out);
}

static const real_t *mlp_input(const block_job *j)
{
    return j->m->parallel ? normed_input(j, BAL_NORM_ATTENTION_IN, j->c->x)
                          : normed_input(j, BAL_NORM_MLP_IN, j->c->middle);
}

void bal_block_forward(bal_pass *p, size_t layer, bal_block_cache *c, bool adapted, real_t *out)
{
    const block_job j = job_of(p, layer, c, adapted);
    const bal_attention attention = attention_of(&j);
    bool gated = there(&j, BAL_SLOT_GATE);
    const real_t *o = c->o, *x = c->x;
    size_t T = p->T;
    project(&j, normed_input(&j, BAL_NORM_ATTENTION_IN, c->x));
    rotate(&j, c->q, c->k, false);
    if (narrow_queries(&j)) { /* blocks that are skipped: see bal_attention_forward() */
        memset(c->o, 0, T * j.q_width * sizeof *c->o);
        memset(c->lse, 0, T * j.m->n_heads * sizeof *c->lse);
    }
    bal_attention_forward(&attention, c->q, c->k, c->v, c->o, c->lse);
    if (j.narrow) {
        bal_pass_gather(p, c->o, j.q_width, p->act);
        bal_pass_gather(p, c->x, j.m->hidden, p->normed);
        o = p->act;
        x = p->normed;
        p->T = p->n_want;
    }
    add_half(&j, BAL_SLOT_O, BAL_NORM_ATTENTION_OUT, o, x, c->attention_raw, c->middle);
    const real_t *n2 = mlp_input(&j);
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
    p->T = T;
}

/* From the gradient s->dx of x + f(b): returns that of b; s->dx becomes the residual's share of that of x.  Of a
 * parallel block the MLP's branch comes first: s->dbranch keeps the gradient of the sum until the attention's branch adds
 * it to s->dx. */
static const real_t *branch_back(const block_job *j, bal_slot slot, bal_norm_place place, const real_t *raw)
{
    bal_block_scratch *s = &j->p->back;
    bal_linear_call k = {j->p, &j->b->linear[slot], j->layer, slot, true, j->c->h[slot]};
    const bal_norm *n = norm_at(j, place);
    size_t elements = j->p->T * j->m->hidden, bytes = elements * sizeof(real_t);
    if (j->m->parallel) {
        bal_linear_stream_backward(&k, slot == BAL_SLOT_DOWN ? s->dx : s->dbranch);
        if (slot == BAL_SLOT_DOWN) {
            memcpy(s->dbranch, s->dx, bytes);
            memset(s->dx, 0, bytes);
        } else {
            bal_pass_add(elements, s->dbranch, s->dx);
        }
        return s->dbranch;
    }
    bal_linear_stream_backward(&k, s->dx);
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
    bal_norm_place place = j->m->parallel ? BAL_NORM_ATTENTION_IN : BAL_NORM_MLP_IN;
    bool gated = there(j, BAL_SLOT_GATE), inside = norm_at(j, place) != NULL;
    const real_t *dbranch = branch_back(j, BAL_SLOT_DOWN, BAL_NORM_MLP_OUT, c->mlp_raw);
    bal_glu_forward(j->m->act, p->T * I, c->gate, c->up, p->act);
    apply_back(j, BAL_SLOT_DOWN, p->act, dbranch, 0, s->dact);
    bal_glu_backward(j->m->act, p->T * I, c->gate, c->up, s->dact, s->dgate, dup);
    const real_t *n2 = mlp_input(j);
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
        bal_pass_norm_back(p, norm_at(j, place), p->T, j->m->hidden, j->m->parallel ? c->x : c->middle, s->dnormed,
                           s->dx);
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
    size_t T = j->p->T;
    if (narrow_queries(j)) {
        bal_pass_gather(j->p, s->dq, j->q_width, s->dq);
        j->p->T = j->p->n_want;
    }
    real_t *dq = head_norm_back(j, BAL_NORM_Q, j->m->n_heads, j->c->q_raw, s->dq, s->dq_raw);
    j->p->T = T;
    real_t *dk = head_norm_back(j, BAL_NORM_K, j->m->n_kv_heads, j->c->k_raw, s->dk, s->dk_raw);
    if (!there(j, BAL_SLOT_K)) {
        bal_pass_parts(j->p->T, j->p->fused, (real_t *[]){dq, dk, s->dv},
                       (size_t[]){j->q_width, j->kv_width, j->kv_width}, 3, true);
        apply_back(j, BAL_SLOT_Q, n1, j->p->fused, beta, dn1);
        return;
    }
    if (!j->narrow)
        apply_back(j, BAL_SLOT_Q, n1, dq, beta, dn1);
    apply_back(j, BAL_SLOT_K, n1, dk, j->narrow ? beta : 1, dn1);
    apply_back(j, BAL_SLOT_V, n1, s->dv, 1, dn1);
    if (!j->narrow)
        return;
    bal_pass_gather(j->p, n1, j->m->hidden, j->p->act);
    j->p->T = j->p->n_want;
    apply_back(j, BAL_SLOT_Q, j->p->act, dq, 0, dn1 == NULL ? NULL : s->dact);
    j->p->T = T;
    if (dn1 != NULL)
        bal_pass_add_rows(j->p, s->dact, j->m->hidden, dn1);
}

/* Whether anything before the second half wants a gradient. */
static bool attention_trains(const bal_block *b)
{
    static const bal_slot slots[] = {BAL_SLOT_Q, BAL_SLOT_K, BAL_SLOT_V, BAL_SLOT_O};
    static const bal_norm_place places[] = {BAL_NORM_ATTENTION_IN, BAL_NORM_Q, BAL_NORM_K, BAL_NORM_ATTENTION_OUT};
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++) {
        const bal_linear *l = &b->linear[slots[i]];
        if (l->site != NULL || l->dw != NULL || l->dbias != NULL)
            return true;
    }
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (bal_norm_trains(&b->norm[places[i]]))
            return true;
    return false;
}

void bal_block_backward(bal_pass *p, size_t layer, bal_block_cache *c, bool need_dx)
{
    const block_job j = job_of(p, layer, c, true);
    const bal_attention attention = attention_of(&j);
    const bal_norm *in = norm_at(&j, BAL_NORM_ATTENTION_IN);
    bal_block_scratch *s = &p->back;
    const real_t *o = c->o;
    size_t T = p->T;
    if (j.narrow)
        p->T = p->n_want;
    mlp_back(&j);
    if (!need_dx && !attention_trains(j.b)) {
        p->T = T;
        return;
    }
    const real_t *dbranch = branch_back(&j, BAL_SLOT_O, BAL_NORM_ATTENTION_OUT, c->attention_raw);
    if (j.narrow) {
        bal_pass_gather(p, c->o, j.q_width, p->act);
        o = p->act;
    }
    apply_back(&j, BAL_SLOT_O, o, dbranch, 0, s->dattention);
    p->T = T;
    if (j.narrow) {
        bal_pass_spread(p, T, s->dattention, j.q_width);
        bal_pass_spread(p, T, s->dx, j.m->hidden);
    }
    if (narrow_queries(&j))
        memset(s->dq, 0, T * j.q_width * sizeof *s->dq);
    bal_attention_backward(&attention, p->T, c->q, c->k, c->v, c->o, c->lse, s->dattention, s->dq, s->dk, s->dv,
                           s->delta);
    rotate(&j, s->dq, s->dk, true);
    const real_t *n1 = normed_input(&j, BAL_NORM_ATTENTION_IN, c->x);
    if (in == NULL) {
        project_back(&j, n1, 1, need_dx ? s->dx : NULL);
        return;
    }
    bool need_dnormed = need_dx || bal_norm_trains(in);
    project_back(&j, n1, 0, need_dnormed ? s->dnormed : NULL);
    if (need_dnormed)
        bal_pass_norm_back(p, in, p->T, j.m->hidden, c->x, s->dnormed, need_dx ? s->dx : NULL);
}
