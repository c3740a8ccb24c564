/* LoHa (FedPara; Hyeon-Woo et al. 2021, 2108.06098, as in LyCORIS and peft): Delta = s P o Q with P = w1a w1b and
 * Q = w2a w2b, o elementwise.  A Hadamard product of two matrices of rank r is a product of rank r^2,
 *   Delta = s C K,  C_o,(k,l) = w1a_ok w2a_ol (out x r^2),  K_(k,l),j = w1b_kj w2b_lj (r^2 x in),
 * which is cheaper than Delta itself while r^2 (in + out) < in out.  With h = x K^T, g = s dy C:
 *   y += s h C^T,  dC = s dy^T h,  dK = g^T x,  dx += g K, and
 *   dw1a_ok = sum_l dC_o,(k,l) w2a_ol,  dw2a_ol = sum_k dC_o,(k,l) w1a_ok,  the same for w1b, w2b and dK.
 * For larger r blocks of rows of Delta are formed; with G = dy^T x:
 *   dP = s G o Q,  dw1a = dP w1b^T,  dw1b = w1a^T dP,  and for w2 with P and Q exchanged.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/methods.h"
#include "lib/base/threads.h"

enum { BLOCK = 128, W1A = 0, W1B, W2A, W2B, EXPANDED = 0, DENSE };

static bal_status describe(bal_site *s)
{
    size_t r2 = s->r * s->r;
    bal_site_add(s, "hada_w1_a", 2, s->out, s->r);
    bal_site_add(s, "hada_w1_b", 2, s->r, s->in);
    bal_site_add(s, "hada_w2_a", 2, s->out, s->r);
    bal_site_add(s, "hada_w2_b", 2, s->r, s->in);
    s->variant =
        r2 / s->r == s->r && (double)r2 * (double)(s->in + s->out) < (double)s->in * (double)s->out ? EXPANDED : DENSE;
    return BAL_OK;
}

/* kaiming_uniform with a = sqrt 5 for all but w2b, which is 0, so that the update is. */
static bal_status init(bal_site *s, const bal_view *w, bal_rng *rng)
{
    (void)w;
    for (size_t i = W1A; i <= W2A; i++)
        bal_site_fill_uniform(&s->tensor[i], rng);
    return BAL_OK;
}

typedef struct product_job {
    size_t cols, ld_out;
    real_t s;
    const real_t *p, *q;
    real_t *out;
    bool add;
} product_job;

static void product_rows(void *context, size_t begin, size_t end, size_t thread)
{
    const product_job *j = context;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        const real_t *p = j->p + i * j->cols, *q = j->q + i * j->cols;
        real_t *out = j->out + i * j->ld_out;
        if (j->add)
            for (size_t k = 0; k < j->cols; k++)
                out[k] += j->s * p[k] * q[k];
        else
            for (size_t k = 0; k < j->cols; k++)
                out[k] = j->s * p[k] * q[k];
    }
}

/* out (n x cols, rows ld apart) (+)= s p o q. */
static void hadamard(size_t n, size_t cols, double s, const real_t *p, const real_t *q, bool add, real_t *out,
                     size_t ld)
{
    product_job j = {cols, ld, (real_t)s, p, q, out, add};
    bal_parallel_for(n, 4, product_rows, &j);
}

typedef struct expand_job {
    size_t r, n;
    const real_t *a, *b; /* n x r (C), or r x n (K) */
    real_t *out;
} expand_job;

static void expand_c(void *context, size_t begin, size_t end, size_t thread)
{
    const expand_job *j = context;
    size_t r = j->r;
    (void)thread;
    for (size_t o = begin; o < end; o++)
        for (size_t k = 0; k < r; k++)
            for (size_t l = 0; l < r; l++)
                j->out[(o * r + k) * r + l] = j->a[o * r + k] * j->b[o * r + l];
}

static void expand_k(void *context, size_t begin, size_t end, size_t thread)
{
    const expand_job *j = context;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        for (size_t c = 0; c < j->n; c++)
            j->out[i * j->n + c] = j->a[i / j->r * j->n + c] * j->b[i % j->r * j->n + c];
}

static void expand(const bal_site *s, real_t *C, real_t *K)
{
    expand_job c = {s->r, s->out, s->tensor[W1A].v, s->tensor[W2A].v, C};
    expand_job k = {s->r, s->in, s->tensor[W1B].v, s->tensor[W2B].v, K};
    if (C != NULL)
        bal_parallel_for(s->out, 16, expand_c, &c);
    if (K != NULL)
        bal_parallel_for(s->r * s->r, 1, expand_k, &k);
}

static size_t hidden(const bal_site *s)
{
    return s->variant == EXPANDED ? s->r * s->r : 0;
}

static size_t scratch(const bal_site *s, size_t M)
{
    size_t r2 = s->r * s->r;
    return s->variant == EXPANDED ? 2 * r2 * (s->in + s->out) + M * r2 : 4 * (s->out < BLOCK ? s->out : BLOCK) * s->in;
}

static size_t block_rows(const bal_site *s, size_t row0)
{
    return s->out - row0 < BLOCK ? s->out - row0 : BLOCK;
}

/* Rows row0 .. row0 + n of P and of Q. */
static void products(const bal_site *s, size_t row0, size_t n, real_t *P, real_t *Q)
{
    size_t r = s->r, in = s->in;
    bal_gemm(false, false, n, in, r, 1, s->tensor[W1A].v + row0 * r, r, s->tensor[W1B].v, in, 0, P, in);
    bal_gemm(false, false, n, in, r, 1, s->tensor[W2A].v + row0 * r, r, s->tensor[W2B].v, in, 0, Q, in);
}

static void forward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    size_t in = s->in, out = s->out, r2 = s->r * s->r;
    if (s->variant == EXPANDED) {
        real_t *C = c->scratch, *K = C + r2 * out;
        expand(s, C, K);
        bal_site_product(c, r2, in, 1, c->xa, c->ldx, K, 0, c->h, r2);
        bal_site_product(c, out, r2, (real_t)s->scale, c->h, r2, C, 1, c->y, c->ldy);
        return;
    }
    for (size_t o = 0; o < out; o += BLOCK) {
        size_t n = block_rows(s, o);
        real_t *P = c->scratch, *Q = P + n * in;
        products(s, o, n, P, Q);
        hadamard(n, in, s->scale, P, Q, false, P, in);
        bal_site_product(c, n, in, 1, c->xa, c->ldx, P, 1, c->y + o, c->ldy);
    }
}

typedef struct back_job {
    const bal_site *s;
    const real_t *d; /* dC (out x r^2) or dK (r^2 x in) */
} back_job;

static void c_back(void *context, size_t begin, size_t end, size_t thread)
{
    const back_job *j = context;
    const bal_site_tensor *a = &j->s->tensor[W1A], *b = &j->s->tensor[W2A];
    size_t r = j->s->r;
    (void)thread;
    for (size_t o = begin; o < end; o++)
        for (size_t k = 0; k < r; k++)
            for (size_t l = 0; l < r; l++) {
                real_t d = j->d[(o * r + k) * r + l];
                a->d[o * r + k] += d * b->v[o * r + l];
                b->d[o * r + l] += d * a->v[o * r + k];
            }
}

static void k_back(void *context, size_t begin, size_t end, size_t thread)
{
    const back_job *j = context;
    const bal_site_tensor *a = &j->s->tensor[W1B], *b = &j->s->tensor[W2B];
    size_t r = j->s->r, in = j->s->in;
    (void)thread;
    for (size_t k = 0; k < r; k++)
        for (size_t l = 0; l < r; l++)
            for (size_t c = begin; c < end; c++) {
                real_t d = j->d[(k * r + l) * in + c];
                a->d[k * in + c] += d * b->v[l * in + c];
                b->d[l * in + c] += d * a->v[k * in + c];
            }
}

static void backward_expanded(const bal_site_call *c)
{
    const bal_site *s = c->site;
    size_t in = s->in, out = s->out, r2 = s->r * s->r;
    real_t *C = c->scratch, *K = C + r2 * out, *dC = K + r2 * in, *dK = dC + r2 * out, *g = dK + r2 * in;
    real_t scale = (real_t)s->scale;
    expand(s, C, c->dx != NULL ? K : NULL);
    bal_gemm(false, false, c->M, r2, out, scale, c->dy, c->ldy, C, r2, 0, g, r2);
    if (bal_site_trains(s)) {
        back_job jc = {s, dC}, jk = {s, dK};
        bal_gemm(true, false, out, r2, c->M, scale, c->dy, c->ldy, c->h, r2, 0, dC, r2);
        bal_parallel_for(out, 16, c_back, &jc);
        bal_gemm(true, false, r2, in, c->M, 1, g, r2, c->xa, c->ldx, 0, dK, in);
        bal_parallel_for(in, 16, k_back, &jk);
    }
    if (c->dx != NULL)
        bal_gemm(false, false, c->M, in, r2, 1, g, r2, K, in, 1, c->dx, c->ldx);
}

/* The gradients of one pair of factors from T, that of rows row0 .. of their product. */
static void pair_back(const bal_site *s, size_t row0, size_t n, const real_t *T, size_t a, size_t b)
{
    size_t r = s->r, in = s->in;
    bal_gemm(false, true, n, r, in, 1, T, in, s->tensor[b].v, in, 1, s->tensor[a].d + row0 * r, r);
    bal_gemm(true, false, r, in, n, 1, s->tensor[a].v + row0 * r, r, T, in, 1, s->tensor[b].d, in);
}

static void backward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    size_t in = s->in;
    if (s->variant == EXPANDED) {
        backward_expanded(c);
        return;
    }
    for (size_t o = 0; o < s->out; o += BLOCK) {
        size_t n = block_rows(s, o);
        real_t *P = c->scratch, *Q = P + n * in, *G = Q + n * in, *T = G + n * in;
        products(s, o, n, P, Q);
        if (bal_site_trains(s)) {
            bal_gemm(true, false, n, in, c->M, 1, c->dy + o, c->ldy, c->xa, c->ldx, 0, G, in);
            hadamard(n, in, s->scale, G, Q, false, T, in);
            pair_back(s, o, n, T, W1A, W1B);
            hadamard(n, in, s->scale, G, P, false, T, in);
            pair_back(s, o, n, T, W2A, W2B);
        }
        if (c->dx == NULL)
            continue;
        hadamard(n, in, s->scale, P, Q, false, P, in);
        bal_gemm(false, false, c->M, in, n, 1, c->dy + o, c->ldy, P, in, 1, c->dx, c->ldx);
    }
}

/* Rows of Delta one by one, without room for P and Q. */
static void effective(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    size_t r = s->r, in = s->in;
    for (size_t i = 0; i < n_rows; i++)
        for (size_t c = 0; c < in; c++) {
            real_t p = 0, q = 0;
            for (size_t k = 0; k < r; k++) {
                p += s->tensor[W1A].v[(row0 + i) * r + k] * s->tensor[W1B].v[k * in + c];
                q += s->tensor[W2A].v[(row0 + i) * r + k] * s->tensor[W2B].v[k * in + c];
            }
            out[i * ld + c] += (real_t)s->scale * p * q;
        }
}

const bal_method bal_method_loha = {
    .name = "loha",
    .title = "LoHa",
    .peft_type = "LOHA",
    .lacks = BAL_NO_TYING | BAL_NO_RSLORA,
    .alpha_key = "alpha",
    .init_key = "init_weights",
    .additive = true,
    .targets = BAL_TARGETS_ATTENTION,
    .default_r = 8,
    .describe = describe,
    .init = init,
    .hidden = hidden,
    .scratch = scratch,
    .forward = forward,
    .backward = backward,
    .effective = effective,
};
