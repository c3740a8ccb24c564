/* LoRA (Hu et al. 2021, arXiv 2106.09685): y += s (x A^T) B^T, and its gradients.
 *   h = x A^T,  y += s h B^T
 *   dB += s dy^T h,  g = dy B,  dA += s g^T x,  dx += s g A
 * With a residual start the same product of (A0, B0) is taken off; these two have no gradient.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/lora.h"

size_t bal_lora_hidden(const bal_lora *l)
{
    return l->a0 != NULL ? 2 * l->r : l->r;
}

void bal_lora_backward(const bal_lora *l, size_t M, const real_t *Xa, size_t ldx, const real_t *dY, size_t ldy,
                       const real_t *H, real_t *dX, size_t lddx, real_t *scratch)
{
    size_t r = l->r, ldh = bal_lora_hidden(l);
    real_t s = (real_t)l->scale, *G = scratch;
    if (l->db != NULL)
        bal_gemm(true, false, l->out, r, M, s, dY, ldy, H, ldh, 1, l->db, r);
    if (l->da != NULL || dX != NULL)
        bal_gemm(false, false, M, r, l->out, 1, dY, ldy, l->b, r, 0, G, ldh);
    if (l->da != NULL)
        bal_gemm(true, false, r, l->in, M, s, G, ldh, Xa, ldx, 1, l->da, l->in);
    if (dX == NULL)
        return;
    bal_gemm(false, false, M, l->in, r, s, G, ldh, l->a, l->in, 1, dX, lddx);
    if (l->a0 == NULL)
        return;
    bal_gemm(false, false, M, r, l->out, 1, dY, ldy, l->b0, r, 0, G + r, ldh);
    bal_gemm(false, false, M, l->in, r, -s, G + r, ldh, l->a0, l->in, 1, dX, lddx);
}

void bal_lora_add_delta(const bal_lora *l, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    size_t r = l->r;
    real_t s = (real_t)l->scale;
    bal_gemm(false, false, n_rows, l->in, r, s, l->b + row0 * r, r, l->a, l->in, 1, out, ld);
    if (l->a0 != NULL)
        bal_gemm(false, false, n_rows, l->in, r, -s, l->b0 + row0 * r, r, l->a0, l->in, 1, out, ld);
}

/* ---- the row of the table ---- */

bal_status bal_lora_describe(bal_site *s)
{
    bal_site_add(s, "lora_A.weight", 2, s->r, s->in);
    bal_site_add(s, "lora_B.weight", 2, s->out, s->r);
    return BAL_OK;
}

static bal_status describe(bal_site *s)
{
    if (s->embedding) {
        bal_site_add(s, "lora_embedding_A", 2, s->r, s->in);
        bal_site_add(s, "lora_embedding_B", 2, s->out, s->r);
        return BAL_OK;
    }
    bal_status status = bal_lora_describe(s);
    if (bal_config_key(&s->adapter->config, "lora_bias")->number != 0)
        bal_site_add(s, "lora_B.bias", 1, s->out, 1);
    return status;
}

/* The bias of B, which some adapters have: y += s b. */
static bal_site_tensor bias_of(const bal_site *s)
{
    return s->n_tensors > 2 ? s->tensor[2] : (bal_site_tensor){0};
}

static size_t hidden(const bal_site *s)
{
    return bal_lora_hidden(s->lora);
}

static size_t scratch(const bal_site *s, size_t M)
{
    return s->embedding ? 2 * M * s->r : M * bal_lora_hidden(s->lora);
}

/* It is B's rows that are looked up. */
void bal_lora_embedding_init(const bal_lora *l, bal_rng *rng)
{
    for (size_t i = 0; i < l->r * l->in; i++)
        l->a[i] = 0;
    for (size_t i = 0; i < l->r * l->out; i++)
        l->b[i] = (real_t)bal_rng_normal(rng);
}

static bal_status init(bal_site *s, const bal_view *w, bal_rng *rng)
{
    (void)w;
    if (s->embedding && bal_config_key(&s->adapter->config, "lora_bias")->number != 0) /* as peft */
        return bal_fail(BAL_EINVAL, "lora_bias cannot go with an adapter on an embedding ('%s')", s->module);
    if (s->embedding)
        bal_lora_embedding_init(s->lora, rng);
    return BAL_OK;
}

void bal_lora_look_up(const bal_lora *l, size_t M, const int32_t *tokens, real_t *h)
{
    for (size_t t = 0; t < M; t++)
        for (size_t k = 0; k < l->r; k++)
            h[t * l->r + k] = l->a[k * l->in + (size_t)tokens[t]];
}

void bal_lora_add_columns(const bal_lora *l, size_t M, const int32_t *tokens, const real_t *g)
{
    for (size_t t = 0; t < M; t++)
        for (size_t k = 0; k < l->r; k++)
            l->da[k * l->in + (size_t)tokens[t]] += g[t * l->r + k];
}

void bal_lora_embedding_rows(const bal_lora *l, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    bal_gemm(true, true, n_rows, l->out, l->r, (real_t)l->scale, l->a + row0, l->in, l->b, l->r, 1, out, ld);
}

static void embed(const bal_site_call *c, const int32_t *tokens, real_t scale)
{
    const bal_lora *l = c->site->lora;
    bal_lora_look_up(l, c->M, tokens, c->scratch);
    bal_site_product(c, l->out, l->r, scale * (real_t)l->scale, c->scratch, l->r, l->b, 1, c->y, c->ldy);
}

static void embed_back(const bal_site_call *c, const int32_t *tokens, real_t scale)
{
    const bal_lora *l = c->site->lora;
    size_t r = l->r, M = c->M;
    real_t *h = c->scratch, *g = h + M * r, s = scale * (real_t)l->scale;
    bal_lora_look_up(l, M, tokens, h);
    if (l->db != NULL)
        bal_gemm(true, false, l->out, r, M, s, c->dy, c->ldy, h, r, 1, l->db, r);
    if (l->da == NULL)
        return;
    bal_gemm(false, false, M, r, l->out, s, c->dy, c->ldy, l->b, r, 0, g, r);
    bal_lora_add_columns(l, M, tokens, g);
}

static size_t rows_back_scratch(const bal_site *s, size_t M)
{
    return 2 * M * s->r;
}

static void rows_back(const bal_site *s, const bal_view *w, size_t M, const real_t *X, const real_t *dZ, size_t ldz,
                      size_t row0, size_t n, real_t *h)
{
    const bal_lora *l = s->lora;
    size_t r = l->r;
    real_t *g = h + M * r, scale = (real_t)l->scale;
    (void)w;
    if (l->db != NULL) {
        bal_gemm(false, true, M, r, l->in, 1, X, l->in, l->a, l->in, 0, h, r);
        bal_gemm(true, false, n, r, M, scale, dZ, ldz, h, r, 1, l->db + row0 * r, r);
    }
    if (l->da != NULL) {
        bal_gemm(false, false, M, r, n, scale, dZ, ldz, l->b + row0 * r, r, 0, g, r);
        bal_gemm(true, false, r, l->in, M, 1, g, r, X, l->in, 1, l->da, l->in);
    }
}

void bal_lora_site_forward(const bal_site_call *c, real_t *y, size_t ldy)
{
    const bal_lora *l = c->site->lora;
    size_t r = l->r, ldh = bal_lora_hidden(l);
    real_t s = (real_t)l->scale;
    bal_site_product(c, r, l->in, 1, c->xa, c->ldx, l->a, 0, c->h, ldh);
    bal_site_product(c, l->out, r, s, c->h, ldh, l->b, 1, y, ldy);
    if (l->a0 == NULL)
        return;
    bal_site_product(c, r, l->in, 1, c->xa, c->ldx, l->a0, 0, c->h + r, ldh);
    bal_site_product(c, l->out, r, -s, c->h + r, ldh, l->b0, 1, y, ldy);
}

static void forward(const bal_site_call *c)
{
    const bal_site_tensor b = bias_of(c->site);
    real_t s = (real_t)c->site->scale;
    bal_lora_site_forward(c, c->y, c->ldy);
    for (size_t t = 0; b.v != NULL && t < c->M; t++)
        for (size_t o = 0; o < c->site->out; o++)
            c->y[t * c->ldy + o] += s * b.v[o];
}

static void backward(const bal_site_call *c)
{
    const bal_site_tensor b = bias_of(c->site);
    real_t s = (real_t)c->site->scale;
    for (size_t t = 0; b.d != NULL && t < c->M; t++)
        for (size_t o = 0; o < c->site->out; o++)
            b.d[o] += s * c->dy[t * c->ldy + o];
    bal_lora_backward(c->site->lora, c->M, c->xa, c->ldx, c->dy, c->ldy, c->h, c->dx, c->ldx, c->scratch);
}

static void effective(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    if (s->embedding)
        bal_lora_embedding_rows(s->lora, row0, n_rows, out, ld);
    else
        bal_lora_add_delta(s->lora, row0, n_rows, out, ld);
}

static void effective_bias(const bal_site *s, size_t from, size_t n, real_t *bias)
{
    const bal_site_tensor b = bias_of(s);
    for (size_t i = 0; b.v != NULL && i < n; i++)
        bias[i] += (real_t)s->scale * b.v[from + i];
}

const bal_method bal_method_lora = {
    .name = "lora",
    .title = "LoRA",
    .peft_type = "LORA",
    .alpha_key = "lora_alpha",
    .biases = true,
    .dropout_key = "lora_dropout",
    .init_key = "init_lora_weights",
    .low_rank = true,
    .additive = true,
    .panel = true,
    .embeddings = true,
    .keys = {{.name = "lora_bias", .type = BAL_KEY_BOOL, .when_set = true}},
    .describe = describe,
    .init = init,
    .embed = embed,
    .embed_back = embed_back,
    .rows_back = rows_back,
    .rows_back_scratch = rows_back_scratch,
    .hidden = hidden,
    .scratch = scratch,
    .forward = forward,
    .backward = backward,
    .effective = effective,
    .effective_bias = effective_bias,
};
