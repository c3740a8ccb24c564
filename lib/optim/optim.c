/* AdamW (Loshchilov, Hutter 2019, arXiv 1711.05101, as torch.optim.AdamW computes it), clipping and schedules.
 * Elementwise loops are split over the threads in fixed blocks; sums go through a fixed number of partial sums, so
 * neither depends on the thread count.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/optim/optim.h"

#include "lib/base/mem.h"
#include "lib/base/threads.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { GRAIN = 16384, PARTIALS = 256 };

static const double pi = 3.14159265358979323846;

bal_status bal_adamw_init(bal_adamw *o, const bal_adamw_config *c, size_t n)
{
    *o = (bal_adamw){.config = *c, .n = n};
    if (!(c->beta1 >= 0 && c->beta1 < 1) || !(c->beta2 >= 0 && c->beta2 < 1))
        return bal_fail(BAL_EINVAL, "AdamW needs betas in [0, 1), not %g and %g", c->beta1, c->beta2);
    if (!(c->epsilon > 0) || !(c->weight_decay >= 0))
        return bal_fail(BAL_EINVAL, "AdamW needs epsilon > 0 and weight decay >= 0, not %g and %g", c->epsilon,
                        c->weight_decay);
    o->m = bal_alloc(n, sizeof *o->m);
    o->v = o->m != NULL ? bal_alloc(n, sizeof *o->v) : NULL;
    if (o->v == NULL) {
        bal_adamw_dispose(o);
        return BAL_ENOMEM;
    }
    return BAL_OK;
}

void bal_adamw_dispose(bal_adamw *o)
{
    if (o == NULL)
        return;
    bal_free(o->m);
    bal_free(o->v);
    *o = (bal_adamw){0};
}

typedef struct adam_range {
    real_t *p, *m, *v;
    const real_t *g;
    /* fresh = 1 - beta, taken in double: 1 - 0.999f is 1.3e-5 off.  keep = 1 - lr wd, rate = lr / (1 - beta1^t),
     * root = 1 / sqrt(1 - beta2^t) */
    real_t fresh1, fresh2, keep, rate, root, epsilon;
} adam_range;

static void adam_block(void *context, size_t begin, size_t end, size_t thread)
{
    (void)thread;
    const adam_range *a = context;
    real_t *restrict p = a->p, *restrict m = a->m, *restrict v = a->v;
    const real_t *restrict g = a->g;
    const real_t f1 = a->fresh1, f2 = a->fresh2, keep = a->keep, rate = a->rate, root = a->root, eps = a->epsilon;
    for (size_t i = begin; i < end; i++) {
        real_t gi = g[i];
        real_t mi = m[i] + f1 * (gi - m[i]);
        real_t vi = v[i] + f2 * (gi * gi - v[i]);
        m[i] = mi;
        v[i] = vi;
#if BAL_REAL_IS_DOUBLE
        real_t d = sqrt(vi) * root + eps;
#else
        real_t d = sqrtf(vi) * root + eps;
#endif
        p[i] = p[i] * keep - rate * mi / d;
    }
}

void bal_adamw_step(bal_adamw *o, bal_params *p, const double *lr)
{
    const bal_adamw_config *c = &o->config;
    o->t++;
    double correct1 = 1 - pow(c->beta1, (double)o->t), correct2 = 1 - pow(c->beta2, (double)o->t);
    for (size_t s = 0; s < p->n_segments; s++) {
        const bal_segment *seg = &p->segments[s];
        double rate = lr[seg->group];
        adam_range a = {.p = p->values + seg->offset,
                        .m = o->m + seg->offset,
                        .v = o->v + seg->offset,
                        .g = p->grads + seg->offset,
                        .fresh1 = (real_t)(1 - c->beta1),
                        .fresh2 = (real_t)(1 - c->beta2),
                        .keep = (real_t)(1 - (seg->decay ? rate * c->weight_decay : 0)),
                        .rate = (real_t)(rate / correct1),
                        .root = (real_t)(1 / sqrt(correct2)),
                        .epsilon = (real_t)c->epsilon};
        bal_parallel_for(seg->n, GRAIN, adam_block, &a);
    }
}

/* One-dimensional tensors of adapters, by the names of peft; A of rank 1 is not one. */
static bool is_vector(const bal_segment *s)
{
    return s->rows == 1 &&
           (!s->decay || strstr(s->name, ".lora_magnitude_vector") != NULL || strstr(s->name, ".vera_lambda_") != NULL);
}

size_t bal_loraplus_groups(bal_params *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_segments; i++) {
        bal_segment *s = &p->segments[i];
        if (strstr(s->name, ".lora_embedding_") != NULL) {
            s->group = BAL_GROUP_EMBEDDING;
        } else if (strstr(s->name, ".lora_B") != NULL) {
            s->group = BAL_GROUP_LORA_B;
            n++;
        } else if (is_vector(s) && s->group == BAL_GROUP_BASE) {
            s->group = BAL_GROUP_LORA_B;
        }
    }
    return n;
}

typedef struct norm_range {
    const real_t *g;
    size_t n;
    double *partial;
} norm_range;

static void norm_block(void *context, size_t begin, size_t end, size_t thread)
{
    (void)thread;
    const norm_range *r = context;
    for (size_t k = begin; k < end; k++) {
        size_t from = r->n / PARTIALS * k + (k < r->n % PARTIALS ? k : r->n % PARTIALS);
        size_t to = from + r->n / PARTIALS + (k < r->n % PARTIALS);
        double lane[8] = {0};
        size_t i = from;
        for (; i + 8 <= to; i += 8)
            for (size_t j = 0; j < 8; j++)
                lane[j] += (double)r->g[i + j] * (double)r->g[i + j];
        for (; i < to; i++)
            lane[0] += (double)r->g[i] * (double)r->g[i];
        r->partial[k] = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    }
}

double bal_grad_norm(const bal_params *p)
{
    double partial[PARTIALS] = {0};
    norm_range r = {p->grads, p->n, partial};
    bal_parallel_for(PARTIALS, 1, norm_block, &r);
    double sum = 0;
    for (size_t k = 0; k < PARTIALS; k++)
        sum += partial[k];
    return sqrt(sum);
}

typedef struct scale_range {
    real_t *g, factor;
} scale_range;

static void scale_block(void *context, size_t begin, size_t end, size_t thread)
{
    (void)thread;
    const scale_range *r = context;
    for (size_t i = begin; i < end; i++)
        r->g[i] *= r->factor;
}

static void zero_block(void *context, size_t begin, size_t end, size_t thread)
{
    (void)thread;
    real_t *g = context;
    for (size_t i = begin; i < end; i++)
        g[i] = 0;
}

void bal_grad_clip(bal_params *p, double norm, double max_norm)
{
    if (!(max_norm > 0))
        return;
    double factor = max_norm / (norm + 1e-6);
    if (!(factor < 1))
        return;
    scale_range r = {p->grads, (real_t)factor};
    bal_parallel_for(p->n, GRAIN, scale_block, &r);
}

void bal_grad_zero(bal_params *p)
{
    bal_parallel_for(p->n, GRAIN, zero_block, p->grads);
}

double bal_lr_factor(bal_lr_schedule s, uint64_t t, uint64_t warmup, uint64_t max_steps)
{
    if (t < warmup)
        return (double)t / (double)warmup;
    if (s == BAL_LR_CONSTANT)
        return 1;
    double span = max_steps > warmup ? (double)(max_steps - warmup) : 1;
    double x = (double)(t - warmup) / span;
    if (s == BAL_LR_LINEAR)
        return x < 1 ? 1 - x : 0;
    double f = 0.5 * (1 + cos(pi * x));
    return f > 0 ? f : 0;
}

double bal_focus_factor(bal_focus_schedule s, uint64_t t, uint64_t max_steps, double warmup_ratio, double ramp_ratio)
{
    double now = (double)t;
    if (s == BAL_FOCUS_TWO_PHASE) {
        double w = floor(warmup_ratio * (double)max_steps), r = floor(ramp_ratio * (double)max_steps);
        if (r < 1)
            r = 1;
        if (now < w)
            return 0;
        return now < w + r ? (now - w) / r : 1;
    }
    if (s == BAL_FOCUS_LINEAR || s == BAL_FOCUS_QUADRATIC) {
        double w = warmup_ratio * (double)max_steps;
        double f = w > 0 && now < w ? now / w : 1;
        return s == BAL_FOCUS_LINEAR ? f : f * f;
    }
    return 1;
}

double bal_lambda1_factor(int cosine, uint64_t t, uint64_t max_steps)
{
    if (!cosine || max_steps == 0)
        return 1;
    double x = (double)t / (double)max_steps;
    return 0.1 + 0.45 * (1 + cos(pi * (x < 1 ? x : 1)));
}

double bal_lambda1_adaptive(double minimum, double maximum, double entropy, size_t vocab)
{
    double h = vocab > 1 ? entropy / log((double)vocab) : 0;
    h = h < 0 ? 0 : h > 1 ? 1 : h;
    return minimum + (maximum - minimum) * (1 - h);
}
