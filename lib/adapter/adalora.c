/* AdaLoRA (Zhang et al. 2023, 2303.10512; with peft's scale and start): a change of W in the form of an SVD,
 *   h = A x,  y += s B (E o h),  s = alpha / (ranknum + 1e-5),
 * with ranknum the rank at the start, whatever is cut off later.  With g = dy B:
 *   dB += s dy^T (E o h),  dE += s sum_t h o g,  dA += s (E o g)^T x,  dx += s (E o g) A.
 * That the rows of A and the columns of B stay nearly orthonormal is a term of the loss, over all N = 2 n_sites factors,
 *   R = 1/N sum_A |A A^T - I|_F + 1/N sum_B |B^T B - I|_F,
 * whose gradient is 2 M A / (N |M|) with M = A A^T - I, and 2 B M / (N |M|) with M = B^T B - I.
 * Which triplets (row of A, element of E, column of B) stay is ranks.c.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adalora.h"

#include "lib/nn/rows.h"

#include <math.h>

static const double START = 0.02;

static void set_scale(bal_site *s, double ranknum)
{
    s->scale = s->adapter->config.lora_alpha / (ranknum + 1e-5);
}

static bal_status describe(bal_site *s)
{
    const bal_adapter_config *c = &s->adapter->config;
    s->r = bal_kept_rank(c, s->module);
    bal_site_add(s, "lora_A", 2, s->r, s->in);
    bal_site_add(s, "lora_B", 2, s->out, s->r);
    bal_site_add(s, "lora_E", 2, s->r, 1);
    bal_site_add(s, "ranknum", 1, 1, 1);
    s->tensor[ADALORA_RANKNUM].frozen = s->tensor[ADALORA_RANKNUM].not_saved = true;
    set_scale(s, (double)c->r);
    return BAL_OK;
}

static bal_status init(bal_site *s, const bal_view *w, bal_rng *rng)
{
    (void)w;
    for (size_t k = ADALORA_A; k <= ADALORA_B; k++)
        for (size_t i = 0; i < s->tensor[k].rows * s->tensor[k].cols; i++)
            s->tensor[k].v[i] = (real_t)(START * bal_rng_normal(rng));
    s->tensor[ADALORA_RANKNUM].v[0] = (real_t)s->adapter->config.r;
    return BAL_OK;
}

/* peft writes no ranknum, since it is init_r always; a file that has one all the same says how it was scaled. */
static bal_status loaded(bal_adapter *a)
{
    bal_status status = BAL_OK;
    BAL_TRY(bal_kept_check(a));
    for (size_t i = 0; i < a->n_sites; i++) {
        bal_site *s = &a->sites[i];
        real_t *ranknum = s->tensor[ADALORA_RANKNUM].v;
        if (*ranknum < 0)
            BAL_TRY(bal_fail(BAL_EFORMAT, "ranknum of '%s' is %g; it must be positive", s->module, (double)*ranknum));
        if (*ranknum == 0)
            *ranknum = (real_t)a->config.r;
        set_scale(s, (double)*ranknum);
    }
out:
    return status;
}

static size_t hidden(const bal_site *s)
{
    return s->r;
}

static size_t scratch(const bal_site *s, size_t M)
{
    return 2 * M * s->r;
}

static void forward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    size_t r = s->r;
    if (r == 0)
        return;
    bal_site_product(c, r, s->in, 1, c->xa, c->ldx, s->tensor[ADALORA_A].v, 0, c->h, r);
    bal_rows_scale(c->M, r, s->tensor[ADALORA_E].v, c->h, r, false, c->scratch, r);
    bal_site_product(c, s->out, r, (real_t)s->scale, c->scratch, r, s->tensor[ADALORA_B].v, 1, c->y, c->ldy);
}

/* The gradients from dy(M, n), that of outputs row0.. ; h(M, r) = x A^T.  Leaves s E o g in g; low: M x r of scratch. */
static void gradients(const bal_site *s, size_t M, const real_t *x, size_t ldx, const real_t *h, const real_t *dy,
                      size_t ldy, size_t row0, size_t n, real_t *low, real_t *g)
{
    const bal_site_tensor *A = &s->tensor[ADALORA_A], *B = &s->tensor[ADALORA_B], *E = &s->tensor[ADALORA_E];
    size_t r = s->r;
    bal_gemm(false, false, M, r, n, (real_t)s->scale, dy, ldy, B->v + row0 * r, r, 0, g, r);
    if (B->d != NULL) {
        bal_rows_scale(M, r, E->v, h, r, false, low, r);
        bal_gemm(true, false, n, r, M, (real_t)s->scale, dy, ldy, low, r, 1, B->d + row0 * r, r);
        bal_rows_dot(M, r, h, r, g, r, NULL, E->d);
    }
    bal_rows_scale(M, r, E->v, g, r, false, g, r);
    if (A->d != NULL)
        bal_gemm(true, false, r, s->in, M, 1, g, r, x, ldx, 1, A->d, s->in);
}

static void backward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    real_t *low = c->scratch, *g = low + c->M * s->r;
    if (s->r == 0)
        return;
    gradients(s, c->M, c->xa, c->ldx, c->h, c->dy, c->ldy, 0, s->out, low, g);
    if (c->dx != NULL)
        bal_gemm(false, false, c->M, s->in, s->r, 1, g, s->r, s->tensor[ADALORA_A].v, s->in, 1, c->dx, c->ldx);
}

static size_t rows_back_scratch(const bal_site *s, size_t M)
{
    return 3 * M * s->r;
}

static void rows_back(const bal_site *s, const bal_view *w, size_t M, const real_t *X, const real_t *dZ, size_t ldz,
                      size_t row0, size_t n, real_t *h)
{
    size_t r = s->r;
    real_t *low = h + M * r, *g = low + M * r;
    (void)w;
    if (r == 0)
        return;
    bal_gemm(false, true, M, r, s->in, 1, X, s->in, s->tensor[ADALORA_A].v, s->in, 0, h, r);
    gradients(s, M, X, s->in, h, dZ, ldz, row0, n, low, g);
}

static void effective(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    const real_t *A = s->tensor[ADALORA_A].v, *B = s->tensor[ADALORA_B].v, *E = s->tensor[ADALORA_E].v;
    for (size_t i = 0; i < n_rows; i++)
        for (size_t k = 0; k < s->r; k++) {
            real_t f = (real_t)s->scale * B[(row0 + i) * s->r + k] * E[k];
            for (size_t j = 0; j < s->in; j++)
                out[i * ld + j] += f * A[k * s->in + j];
        }
}

static void plain(const bal_site *s, real_t *a, real_t *b)
{
    for (size_t i = 0; i < s->r * s->in; i++)
        a[i] = s->tensor[ADALORA_A].v[i];
    for (size_t i = 0; i < s->out * s->r; i++)
        b[i] = (real_t)(s->scale * (double)s->tensor[ADALORA_B].v[i] * (double)s->tensor[ADALORA_E].v[i % s->r]);
}

/* |M - I|_F; M becomes M - I. */
static double off_identity(size_t r, real_t *M)
{
    double sum = 0;
    for (size_t i = 0; i < r; i++)
        M[i * r + i] -= 1;
    for (size_t i = 0; i < r * r; i++)
        sum += (double)M[i] * (double)M[i];
    return sqrt(sum);
}

static double penalty(const bal_adapter *a, double *weight)
{
    double sum = 0, n = 2 * (double)a->n_sites;
    *weight = bal_config_key(&a->config, "orth_reg_weight")->number;
    if (*weight == 0)
        return (double)NAN;
    for (size_t i = 0; i < a->n_sites; i++) {
        const bal_site *s = &a->sites[i];
        const bal_site_tensor *A = &s->tensor[ADALORA_A], *B = &s->tensor[ADALORA_B];
        size_t r = s->r;
        real_t *M = a->work;
        if (r == 0)
            continue;
        bal_gemm(false, true, r, r, s->in, 1, A->v, s->in, A->v, s->in, 0, M, r);
        double size = off_identity(r, M);
        if (size > 0) /* at 0 the norm has no slope */
            bal_gemm(false, false, r, s->in, r, (real_t)(*weight * 2 / (n * size)), M, r, A->v, s->in, 1, A->d, s->in);
        sum += size;
        bal_gemm(true, false, r, r, s->out, 1, B->v, r, B->v, r, 0, M, r);
        size = off_identity(r, M);
        if (size > 0)
            bal_gemm(false, false, s->out, r, r, (real_t)(*weight * 2 / (n * size)), B->v, r, M, r, 1, B->d, r);
        sum += size;
    }
    return sum / n;
}

#define WHOLE(key, value, from)                                                                                        \
    {                                                                                                                  \
        .name = (key), .type = BAL_KEY_NUMBER, .number = (value), .least = (from), .most = 1e9                         \
    }
#define SHARE(key, value)                                                                                              \
    {                                                                                                                  \
        .name = (key), .type = BAL_KEY_NUMBER, .number = (value), .least = 0, .most = 1                                \
    }

const bal_method bal_method_adalora = {
    .name = "adalora",
    .title = "AdaLoRA",
    .peft_type = "ADALORA",
    .lacks = BAL_NO_PATTERNS | BAL_NO_RSLORA, /* its rank_pattern is what was left */
    .rank_key = "init_r",
    .alpha_key = "lora_alpha",
    .dropout_key = "lora_dropout",
    .biases = true,
    .init_key = "init_lora_weights",
    .additive = true,
    .targets = BAL_TARGETS_ADALORA,
    .default_r = 12,
    .keys = {WHOLE("target_r", 8, 1),
             WHOLE("tinit", 0, 0),
             WHOLE("tfinal", 0, 0),
             WHOLE("deltaT", 1, 1),
             SHARE("beta1", 0.85),
             SHARE("beta2", 0.85),
             {.name = "orth_reg_weight", .type = BAL_KEY_NUMBER, .number = 0.5, .least = 0, .most = 1e6},
             WHOLE("total_step", 0, 0)},
    .describe = describe,
    .init = init,
    .loaded = loaded,
    .hidden = hidden,
    .scratch = scratch,
    .forward = forward,
    .backward = backward,
    .rows_back = rows_back,
    .rows_back_scratch = rows_back_scratch,
    .effective = effective,
    .plain = plain,
    .penalty = penalty,
    .begin = bal_ranks_begin,
    .after_step = bal_ranks_after_step,
    .finished = bal_ranks_finished,
};
