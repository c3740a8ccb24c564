/* VeRA (Kopiczko et al. 2023, 2310.11454; as peft): random A (r x most inputs) and B (most outputs x r), frozen and
 * shared by all modules, which use their first columns and rows; each module trains two vectors, b and d.
 *   h = A x,  u = B (d o h),  y += b o u
 *   db = sum_t dy o u,  g = B^T (b o dy),  dd = sum_t h o g,  dx += A^T (d o g)
 * u is made again in the backward.  A and B are those of peft for the same projection_prng_key: uniform in +-sqrt(6 /
 * columns), by the generator of PyTorch.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/methods.h"
#include "lib/nn/rows.h"

#include <math.h>
#include <string.h>

enum { LAMBDA_B, LAMBDA_D };

static bal_status describe(bal_site *s)
{
    bal_site_add(s, "vera_lambda_b", 1, s->out, 1);
    bal_site_add(s, "vera_lambda_d", 1, s->r, 1);
    s->tensor[LAMBDA_B].no_decay = s->tensor[LAMBDA_D].no_decay = true;
    return BAL_OK;
}

static bal_status describe_shared(bal_adapter *a)
{
    size_t in = 0, out = 0;
    for (size_t i = 0; i < a->n_sites; i++) {
        in = a->sites[i].in > in ? a->sites[i].in : in;
        out = a->sites[i].out > out ? a->sites[i].out : out;
    }
    bool saved = bal_config_key(&a->config, "save_projection")->number != 0;
    a->shared[0] = (bal_site_tensor){
        .key = "vera_A", .n_dims = 2, .rows = a->config.r, .cols = in, .frozen = true, .not_saved = !saved};
    a->shared[1] = (bal_site_tensor){
        .key = "vera_B", .n_dims = 2, .rows = out, .cols = a->config.r, .frozen = true, .not_saved = !saved};
    a->n_shared = 2;
    return BAL_OK;
}

/* As torch.Tensor.uniform_(-bound, bound) of floats: 24 bits of each word, and one rounding. */
static void fill(bal_mt19937 *m, const bal_site_tensor *t)
{
    double bound = sqrt(3.0) * (sqrt(2.0) / sqrt((double)t->cols));
    float from = (float)-bound, width = (float)bound - from;
    for (size_t i = 0; i < t->rows * t->cols; i++) {
        float x = (float)(bal_mt_next(m) & 0xFFFFFFU) * 0x1p-24F;
        t->v[i] = (real_t)fmaf(x, width, from);
    }
}

static void project(const bal_adapter *a)
{
    bal_mt19937 m;
    bal_mt_seed(&m, (uint32_t)bal_config_key(&a->config, "projection_prng_key")->number);
    fill(&m, &a->shared[0]);
    fill(&m, &a->shared[1]);
}

static bal_status init(bal_site *s, const bal_view *w, bal_rng *rng)
{
    real_t d = (real_t)bal_config_key(&s->adapter->config, "d_initial")->number;
    (void)w;
    (void)rng;
    for (size_t i = 0; i < s->r; i++)
        s->tensor[LAMBDA_D].v[i] = d;
    return BAL_OK;
}

static bal_status init_shared(bal_adapter *a, bal_rng *rng)
{
    (void)rng;
    project(a);
    return BAL_OK;
}

/* A file without the matrices says by its key which they are. */
static bal_status loaded(bal_adapter *a)
{
    if (a->shared[0].not_saved)
        project(a);
    return BAL_OK;
}

static size_t hidden(const bal_site *s)
{
    return s->r;
}

/* A's first columns, d o h or g, and u or b o dy. */
static size_t scratch(const bal_site *s, size_t M)
{
    return s->r * s->in + M * (s->r + s->out);
}

typedef struct space {
    real_t *A, *low, *wide;
} space;

/* Products want their matrix without gaps. */
static space carve(const bal_site_call *c)
{
    const bal_site *s = c->site;
    const bal_site_tensor *A = &s->adapter->shared[0];
    space p = {.A = A->v, .low = c->scratch + s->r * s->in};
    p.wide = p.low + c->M * s->r;
    if (A->cols == s->in)
        return p;
    p.A = c->scratch;
    for (size_t k = 0; k < s->r; k++)
        memcpy(p.A + k * s->in, A->v + k * A->cols, s->in * sizeof *p.A);
    return p;
}

/* p.wide = B (d o h); h is there. */
static void outputs(const bal_site_call *c, const space *p)
{
    const bal_site *s = c->site;
    bal_rows_scale(c->M, s->r, s->tensor[LAMBDA_D].v, c->h, s->r, false, p->low, s->r);
    bal_site_product(c, s->out, s->r, 1, p->low, s->r, s->adapter->shared[1].v, 0, p->wide, s->out);
}

static void forward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    space p = carve(c);
    bal_site_product(c, s->r, s->in, 1, c->xa, c->ldx, p.A, 0, c->h, s->r);
    outputs(c, &p);
    bal_rows_scale(c->M, s->out, s->tensor[LAMBDA_B].v, p.wide, s->out, true, c->y, c->ldy);
}

static void backward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    const real_t *B = s->adapter->shared[1].v;
    space p = carve(c);
    if (s->tensor[LAMBDA_B].d != NULL) {
        outputs(c, &p);
        bal_rows_dot(c->M, s->out, p.wide, s->out, c->dy, c->ldy, NULL, s->tensor[LAMBDA_B].d);
    }
    bal_rows_scale(c->M, s->out, s->tensor[LAMBDA_B].v, c->dy, c->ldy, false, p.wide, s->out);
    bal_gemm(false, false, c->M, s->r, s->out, 1, p.wide, s->out, B, s->r, 0, p.low, s->r);
    if (s->tensor[LAMBDA_D].d != NULL)
        bal_rows_dot(c->M, s->r, c->h, s->r, p.low, s->r, NULL, s->tensor[LAMBDA_D].d);
    if (c->dx == NULL)
        return;
    bal_rows_scale(c->M, s->r, s->tensor[LAMBDA_D].v, p.low, s->r, false, p.low, s->r);
    bal_gemm(false, false, c->M, s->in, s->r, 1, p.low, s->r, p.A, s->in, 1, c->dx, c->ldx);
}

static void effective(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    const bal_site_tensor *A = &s->adapter->shared[0], *B = &s->adapter->shared[1];
    for (size_t i = 0; i < n_rows; i++)
        for (size_t k = 0; k < s->r; k++) {
            real_t f = s->tensor[LAMBDA_B].v[row0 + i] * B->v[(row0 + i) * s->r + k] * s->tensor[LAMBDA_D].v[k];
            for (size_t j = 0; j < s->in; j++)
                out[i * ld + j] += f * A->v[k * A->cols + j];
        }
}

const bal_method bal_method_vera = {
    .name = "vera",
    .title = "VeRA",
    .peft_type = "VERA",
    .lacks = BAL_NO_EXCLUDE | BAL_NO_PATTERNS | BAL_NO_TYING | BAL_NO_RSLORA,
    .dropout_key = "vera_dropout",
    .biases = true,
    .init_key = "init_weights",
    .additive = true,
    .targets = BAL_TARGETS_ATTENTION,
    .default_r = 256,
    .keys = {{.name = "d_initial", .type = BAL_KEY_NUMBER, .number = 0.1, .least = -1e6, .most = 1e6},
             {.name = "projection_prng_key", .type = BAL_KEY_NUMBER, .number = 0, .least = 0, .most = 4294967295.0},
             {.name = "save_projection", .type = BAL_KEY_BOOL, .number = 1}},
    .describe = describe,
    .describe_shared = describe_shared,
    .init = init,
    .init_shared = init_shared,
    .loaded = loaded,
    .hidden = hidden,
    .scratch = scratch,
    .forward = forward,
    .backward = backward,
    .effective = effective,
};
