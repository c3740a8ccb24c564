/* LoKr (Yeh et al. 2023, 2309.14859, as in LyCORIS and peft): Delta = s w1 (x) w2, a Kronecker product, with out = a b,
 * in = c d, w1 a x c, w2 b x d; each whole, or a product of two factors of rank r.  A row x seen as c x d and y as
 * a x b:   Z = x w2^T (c x b),  y += s w1 Z.   Over M rows the first is one product of M c rows; for the second Z is
 * turned (M b rows of c), and its result (M b rows of a) is turned back.  Backward, with E = dy turned (M b x a):
 *   dw1 = s E^T Z,  dZ = s E w1,  dw2 = dZ^T x,  dx += dZ w2,  and through w = wa wb: dwa = dw wb^T, dwb = wa^T dw.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/methods.h"
#include "lib/base/threads.h"

#include <string.h>

/* variant: a bit for each whole matrix, and a times the rest: the shapes follow from it and the site's. */
enum { WHOLE1 = 1, WHOLE2 = 2 };

typedef struct shape {
    size_t a, b, c, d, r;
    const bal_site_tensor *w1, *w2; /* the whole one, or the first of two */
    bool whole1, whole2;
} shape;

/* Cuts a dimension as peft's LoKr: the factor itself when it divides it, else the divisors nearest to the square root
 * with the smaller one at most the factor (-1: no bound). */
static void factorize(size_t dimension, double factor, size_t *m, size_t *n)
{
    size_t bound = factor < 0 ? dimension : (size_t)factor;
    *m = 1;
    if (factor > 0 && dimension % bound == 0)
        *m = bound;
    else
        for (size_t next = 2; next <= bound && next <= dimension / next; next++)
            if (dimension % next == 0)
                *m = next;
    *n = dimension / *m;
}

static shape shape_of(const bal_site *s)
{
    shape k = {.r = s->r, .whole1 = (s->variant & WHOLE1) != 0, .whole2 = (s->variant & WHOLE2) != 0};
    double factor = bal_config_key(&s->adapter->config, "decompose_factor")->number;
    factorize(s->out, factor, &k.a, &k.b);
    factorize(s->in, factor, &k.c, &k.d);
    k.w1 = &s->tensor[0];
    k.w2 = &s->tensor[k.whole1 ? 1 : 2];
    return k;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static bal_status describe(bal_site *s)
{
    double factor = bal_config_key(&s->adapter->config, "decompose_factor")->number;
    bool both = bal_config_key(&s->adapter->config, "decompose_both")->number != 0;
    if (factor != -1 && factor < 1)
        return bal_fail(BAL_EINVAL, "decompose_factor is %g; it must be -1 or at least 1", factor);
    shape k = shape_of(s);
    bool whole1 = !(both && 2 * s->r < larger(k.a, k.c)), whole2 = !(2 * s->r < larger(k.b, k.d));
    s->variant = (whole1 ? WHOLE1 : 0) | (whole2 ? WHOLE2 : 0);
    if (whole1) {
        bal_site_add(s, "lokr_w1", 2, k.a, k.c);
    } else {
        bal_site_add(s, "lokr_w1_a", 2, k.a, s->r);
        bal_site_add(s, "lokr_w1_b", 2, s->r, k.c);
    }
    if (whole2) {
        bal_site_add(s, "lokr_w2", 2, k.b, k.d);
    } else {
        bal_site_add(s, "lokr_w2_a", 2, k.b, s->r);
        bal_site_add(s, "lokr_w2_b", 2, s->r, k.d);
    }
    return BAL_OK;
}

/* The first tensor is 0, the others kaiming_uniform with a = sqrt 5. */
static bal_status init(bal_site *s, const bal_view *w, bal_rng *rng)
{
    (void)w;
    for (size_t i = 1; i < s->n_tensors; i++)
        bal_site_fill_uniform(&s->tensor[i], rng);
    return BAL_OK;
}

/* Both matrices whole, their gradients, Z in both orders, and y turned. */
typedef struct space {
    real_t *w1, *w2, *dw1, *dw2, *Z, *turned, *E;
} space;

static size_t scratch(const bal_site *s, size_t M)
{
    shape k = shape_of(s);
    return 2 * (k.a * k.c + k.b * k.d) + M * (2 * k.c * k.b + s->out);
}

static space carve(const shape *k, size_t M, real_t *scratch)
{
    space p;
    p.w1 = scratch;
    p.w2 = p.w1 + k->a * k->c;
    p.dw1 = p.w2 + k->b * k->d;
    p.dw2 = p.dw1 + k->a * k->c;
    p.Z = p.dw2 + k->b * k->d;
    p.turned = p.Z + M * k->c * k->b;
    p.E = p.turned + M * k->c * k->b;
    return p;
}

/* w itself, or wa wb in room: in inference with sums in one order, too, since the matrices do not depend on rows. */
static const real_t *whole(const bal_site_tensor *w, bool is_whole, size_t r, real_t *room)
{
    if (is_whole)
        return w->v;
    bal_gemm(false, false, w[0].rows, w[1].cols, r, 1, w[0].v, r, w[1].v, w[1].cols, 0, room, w[1].cols);
    return room;
}

typedef struct turn_job {
    size_t outer, inner, ld_in, ld_out; /* per row: in (outer x inner) -> out (inner x outer) */
    const real_t *in;
    real_t *out;
    real_t s;
    bool add;
} turn_job;

static void turn_range(void *context, size_t begin, size_t end, size_t thread)
{
    const turn_job *j = context;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const real_t *in = j->in + t * j->ld_in;
        real_t *out = j->out + t * j->ld_out;
        for (size_t i = 0; i < j->inner; i++)
            for (size_t o = 0; o < j->outer; o++) {
                real_t v = in[o * j->inner + i] * j->s;
                out[i * j->outer + o] = j->add ? out[i * j->outer + o] + v : v;
            }
    }
}

/* Each row of in (M x outer x inner, rows ld_in apart) transposed, into out or added to it. */
static void turn(size_t M, size_t outer, size_t inner, const real_t *in, size_t ld_in, bool add, real_t *out,
                 size_t ld_out)
{
    turn_job j = {outer, inner, ld_in, ld_out, in, out, 1, add};
    bal_parallel_for(M, 4, turn_range, &j);
}

/* Z turned: M b rows of c.  The rows of x must be next to each other. */
static void make_inner(const bal_site_call *c, const shape *k, const space *p, const real_t *w2)
{
    bal_site_call rows = *c;
    rows.M = c->M * k->c;
    bal_site_product(&rows, k->b, k->d, 1, c->xa, k->d, w2, 0, p->Z, k->b);
    turn(c->M, k->c, k->b, p->Z, k->c * k->b, false, p->turned, k->c * k->b);
}

static void forward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    shape k = shape_of(s);
    space p = carve(&k, c->M, c->scratch);
    bal_site_call rows = *c;
    rows.M = c->M * k.b;
    make_inner(c, &k, &p, whole(k.w2, k.whole2, s->r, p.w2));
    bal_site_product(&rows, k.a, k.c, 1, p.turned, k.c, whole(k.w1, k.whole1, s->r, p.w1), 0, p.E, k.a);
    turn_job j = {k.b, k.a, s->out, c->ldy, p.E, c->y, (real_t)s->scale, true};
    bal_parallel_for(c->M, 4, turn_range, &j);
}

/* From dw, the gradient of w: those of its factors. */
static void factors_back(const bal_site_tensor *w, size_t r, const real_t *dw)
{
    size_t rows = w[0].rows, cols = w[1].cols;
    bal_gemm(false, true, rows, r, cols, 1, dw, cols, w[1].v, cols, 1, w[0].d, r);
    bal_gemm(true, false, r, cols, rows, 1, w[0].v, r, dw, cols, 1, w[1].d, cols);
}

static void backward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    shape k = shape_of(s);
    space p = carve(&k, c->M, c->scratch);
    real_t scale = (real_t)s->scale;
    size_t rows = c->M * k.b;
    bool trains = bal_site_trains(s);
    const real_t *w1 = whole(k.w1, k.whole1, s->r, p.w1), *w2 = whole(k.w2, k.whole2, s->r, p.w2);
    turn(c->M, k.a, k.b, c->dy, c->ldy, false, p.E, s->out);
    if (trains) {
        real_t *dw1 = k.whole1 ? k.w1->d : p.dw1;
        make_inner(c, &k, &p, w2);
        bal_gemm(true, false, k.a, k.c, rows, scale, p.E, k.a, p.turned, k.c, k.whole1 ? 1 : 0, dw1, k.c);
        if (!k.whole1)
            factors_back(k.w1, s->r, dw1);
    }
    bal_gemm(false, false, rows, k.c, k.a, scale, p.E, k.a, w1, k.c, 0, p.turned, k.c);
    turn(c->M, k.b, k.c, p.turned, k.c * k.b, false, p.Z, k.c * k.b);
    if (trains) {
        real_t *dw2 = k.whole2 ? k.w2->d : p.dw2;
        bal_gemm(true, false, k.b, k.d, c->M * k.c, 1, p.Z, k.b, c->xa, k.d, k.whole2 ? 1 : 0, dw2, k.d);
        if (!k.whole2)
            factors_back(k.w2, s->r, dw2);
    }
    if (c->dx != NULL)
        bal_gemm(false, false, c->M * k.c, k.d, k.b, 1, p.Z, k.b, w2, k.d, 1, c->dx, k.d);
}

/* One value of w. */
static real_t value(const bal_site_tensor *w, bool is_whole, size_t r, size_t i, size_t j)
{
    if (is_whole)
        return w->v[i * w->cols + j];
    real_t sum = 0;
    for (size_t k = 0; k < r; k++)
        sum += w[0].v[i * r + k] * w[1].v[k * w[1].cols + j];
    return sum;
}

static void effective(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    shape k = shape_of(s);
    for (size_t i = 0; i < n_rows; i++)
        for (size_t q = 0; q < k.d; q++) {
            real_t w2 = (real_t)s->scale * value(k.w2, k.whole2, s->r, (row0 + i) % k.b, q);
            for (size_t j = 0; j < k.c; j++)
                out[i * ld + j * k.d + q] += w2 * value(k.w1, k.whole1, s->r, (row0 + i) / k.b, j);
        }
}

const bal_method bal_method_lokr = {
    .name = "lokr",
    .title = "LoKr",
    .peft_type = "LOKR",
    .lacks = BAL_NO_TYING | BAL_NO_RSLORA,
    .alpha_key = "alpha",
    .init_key = "init_weights",
    .additive = true,
    .targets = BAL_TARGETS_ATTENTION,
    .default_r = 8,
    .keys = {{.name = "decompose_both", .type = BAL_KEY_BOOL},
             {.name = "decompose_factor", .type = BAL_KEY_NUMBER, .number = -1, .least = -1, .most = 1e9}},
    .describe = describe,
    .init = init,
    .scratch = scratch,
    .forward = forward,
    .backward = backward,
    .effective = effective,
};
