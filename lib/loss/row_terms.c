/* Cross entropy, consistency and diversity of one row, and their gradient with respect to its logits z
 * (DESIGN section 6; q is the softmax over the K largest logits, p_T the softmax of z / T):
 *   task         -ln p[target]                         p - y
 *   consistency  T^2 KL(p0_T || p_T)                   T (p_T - p0_T)
 *     or         mean_j (z/|z| - z0/|z0|)_j^2          2 / (V |z|) (c z/|z| - z0/|z0|), c their cosine
 *   diversity    -H(q)                                 q (ln q + H) on those K
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/loss/lm_loss_impl.h"

#include <math.h>
#include <string.h>

typedef struct row_sums {
    real_t max, teacher_max;
    double sum_1, sum_t;                  /* of exp(z - max), exp((z - max) / T) */
    double teacher[3];                    /* rows.h */
    double square, teacher_square, cross; /* for the normalised form */
} row_sums;

/* Keeps the smallest of the kept logits on top; among equal ones the later column goes first. */
static bool below(const row_scratch *s, size_t i, size_t j)
{
    return s->top[i] < s->top[j] || (s->top[i] == s->top[j] && s->column[i] > s->column[j]);
}

static void swap(const row_scratch *s, size_t i, size_t j)
{
    real_t t = s->top[i];
    uint32_t c = s->column[i];
    s->top[i] = s->top[j];
    s->column[i] = s->column[j];
    s->top[j] = t;
    s->column[j] = c;
}

static void sift_down(const row_scratch *s, size_t k, size_t i)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= k)
            return;
        if (child + 1 < k && below(s, child + 1, child))
            child++;
        if (!below(s, child, i))
            return;
        swap(s, i, child);
        i = child;
    }
}

/* The k largest of z, k < n; of equal ones the first. */
static void select_top(size_t n, const real_t *z, size_t k, const row_scratch *s)
{
    for (size_t j = 0; j < k; j++) {
        s->top[j] = z[j];
        s->column[j] = (uint32_t)j;
    }
    for (size_t i = k / 2; i-- > 0;)
        sift_down(s, k, i);
    for (size_t j = k; j < n; j++) {
        if (!(z[j] > s->top[0]))
            continue;
        s->top[0] = z[j];
        s->column[0] = (uint32_t)j;
        sift_down(s, k, 0);
    }
}

/* -H over the K largest, its gradient added to g. */
static double top_entropy(const row_request *q, const real_t *z, double max, const row_scratch *s, real_t *g)
{
    double sum = 0, moment = 0;
    select_top(q->V, z, q->top_k, s);
    for (size_t i = 0; i < q->top_k; i++) {
        double d = (double)s->top[i] - max, e = exp(d);
        sum += e;
        moment += e * d;
    }
    double log_sum = log(sum), H = log_sum - moment / sum;
    for (size_t i = 0; g != NULL && i < q->top_k; i++) {
        double log_q = (double)s->top[i] - max - log_sum;
        g[s->column[i]] += (real_t)(q->a_diversity * exp(log_q) * (log_q + H));
    }
    return -H;
}

static double full_entropy(const row_request *q, const real_t *z, const row_sums *r, real_t *g)
{
    double log_sum = log(r->sum_1), H = log_sum - q->ops->exp_moment(q->V, z, r->max) / r->sum_1;
    if (g != NULL)
        q->ops->add_entropy(q->V, z, r->max, log_sum, H, q->a_diversity, g);
    return -H;
}

/* Norms below this count as this, as torch's normalize() has it; such a row gets no gradient. */
#define LEAST_NORM 1e-12

static double mse_value(const row_request *q, const real_t *z, const real_t *zt, row_sums *r)
{
    double sums[3];
    q->ops->products(q->V, z, zt, sums);
    r->square = fmax(sqrt(sums[0]), LEAST_NORM);
    r->teacher_square = fmax(sqrt(sums[1]), LEAST_NORM);
    r->cross = sums[2];
    return q->ops->distance(q->V, z, 1 / r->square, zt, 1 / r->teacher_square) / (double)q->V;
}

static void mse_gradient(const row_request *q, const real_t *z, const real_t *zt, const row_sums *r, double a,
                         real_t *g)
{
    if (r->square <= LEAST_NORM)
        return;
    double scale = 2 * a / (double)q->V / r->square, cosine = r->cross / (r->square * r->teacher_square);
    q->ops->add_pair(q->V, z, scale * cosine / r->square, zt, -scale / r->teacher_square, g);
}

static void consistency_gradient(const row_request *q, const real_t *z, const real_t *zt, const row_sums *r, double a,
                                 real_t *g)
{
    if (q->form == BAL_CONSISTENCY_KL)
        q->ops->add_kl(q->V, z, r->max, q->T, a * q->T / r->sum_t, a * q->T / r->teacher[0], zt, g);
    else
        mse_gradient(q, z, zt, r, a, g);
}

/* Values of the terms with the teacher.  Afterwards zt holds exp((z0 - max) / T) (KL) or still z0 (normalised form). */
static void teacher_values(const row_request *q, const real_t *z, real_t *zt, row_sums *r, const row_scratch *s,
                           row_result *out)
{
    real_t *e = zt;
    r->teacher_max = q->ops->max(q->V, zt);
    if (q->form != BAL_CONSISTENCY_KL) {
        if (q->consistency)
            out->consistency = mse_value(q, z, zt, r);
        if (!q->entropy)
            return;
        memcpy(s->g, zt, q->V * sizeof *zt);
        e = s->g;
    }
    q->ops->teacher(q->V, z, e, r->teacher_max, q->T, r->teacher);
    double log_teacher = log(r->teacher[0]); /* of the sum with the maximum taken out */
    out->entropy = log_teacher - r->teacher[2] / r->teacher[0] / q->T;
    if (!q->consistency || q->form != BAL_CONSISTENCY_KL)
        return;
    /* sum p0 ((z0 - z) / T) - lse(z0 / T) + lse(z / T): exactly 0 when student and teacher are the same bits */
    double lse_gap = ((double)r->teacher_max - (double)r->max) / q->T + (log_teacher - log(r->sum_t));
    out->consistency = q->T * q->T * (r->teacher[1] / r->teacher[0] / q->T - lse_gap);
}

void bal_loss_row(const row_request *q, real_t *z, real_t *zt, int32_t target, const row_scratch *s, row_result *out)
{
    row_sums r = {0};
    size_t V = q->V;
    real_t *g = s->g;
    *out = (row_result){0};
    r.max = q->ops->max(V, z);
    q->ops->exp_sums(V, z, r.max, q->T, &r.sum_1, &r.sum_t);
    if (q->task)
        out->task = log(r.sum_1) + ((double)r.max - (double)z[target]);
    if (zt != NULL)
        teacher_values(q, z, zt, &r, s, out);
    bool own = q->gradient && q->a_diversity != 0;
    if (q->diversity && !own)
        out->diversity = q->top_k > 0 ? top_entropy(q, z, (double)r.max, s, NULL) : full_entropy(q, z, &r, NULL);
    if (q->apart && zt != NULL) {
        memset(g, 0, V * sizeof *g);
        consistency_gradient(q, z, zt, &r, q->a_consistency, g);
        for (size_t j = 0; j < V; j++) { /* zt is free now: it takes the gradient, through the cap of z */
            double u = q->cap > 0 ? (double)z[j] / q->cap : 0;
            zt[j] = (real_t)((double)g[j] * (1 - u * u));
        }
    }
    if (!q->gradient)
        return;
    if (q->task && q->a_task != 0) {
        q->ops->put_exp(V, z, r.max, 1, q->a_task / r.sum_1, g);
        g[target] -= (real_t)q->a_task;
    } else {
        memset(g, 0, V * sizeof *g);
    }
    if (q->diversity && own)
        out->diversity = q->top_k > 0 ? top_entropy(q, z, (double)r.max, s, g) : full_entropy(q, z, &r, g);
    if (q->consistency && zt != NULL && !q->apart && q->a_consistency != 0)
        consistency_gradient(q, z, zt, &r, q->a_consistency, g);
    q->ops->finish(V, z, g, q->cap);
}
