/* DoRA (Liu et al. 2024, arXiv 2402.09353): a magnitude for each row of W + s B A, whose direction LoRA changes.
 *   V = W + s (B A - B0 A0),  n = |V| of each row,  y = (m / n) V x + b
 * n is a constant for the gradient (section 4.3 of the paper, as peft):
 *   dm = sum_t dy (V x) / n;  B, A and x see dy m / n
 * With dropout peft lets the base see the whole input once: y = W x + (m/n) V x' - W x', x' after dropout.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/dora.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/nn/rows.h"

#include <math.h>
#include <string.h>

static bal_status describe(bal_site *s)
{
    bal_status status = BAL_OK;
    if (s->embedding) {
        bal_site_add(s, "lora_embedding_A", 2, s->r, s->in);
        bal_site_add(s, "lora_embedding_B", 2, s->out, s->r);
    } else {
        status = bal_lora_describe(s);
    }
    bal_site_add(s, "lora_magnitude_vector", 1, s->out, 1);
    s->n_state = 2 * s->out; /* m / n, and 1 / n */
    return status;
}

static const real_t *factor_of(const bal_site *s)
{
    return s->state;
}

static double norm_of(const real_t *row, size_t n)
{
    double sum[4] = {0};
    for (size_t i = 0; i < n; i++)
        sum[i % 4] += (double)row[i] * (double)row[i];
    return sqrt((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

/* A row of zeros (the padding token's of a tied head) has no direction, and stays 0. */
static double inverse(double n)
{
    return n == 0 ? 0 : 1 / n;
}

typedef struct norm_job {
    const real_t *rows;
    const bal_site *s;
    size_t row0;
} norm_job;

static void norm_range(void *context, size_t begin, size_t end, size_t thread)
{
    const norm_job *j = context;
    const bal_site *s = j->s;
    (void)thread;
    for (size_t i = begin; i < end; i++) {
        double n = norm_of(j->rows + i * s->in, s->in);
        size_t o = j->row0 + i;
        s->state[o] = (real_t)((double)s->tensor[2].v[o] * inverse(n));
        s->state[s->out + o] = (real_t)inverse(n);
    }
}

static size_t norm_rows(const bal_site *s)
{
    return s->out < DORA_NORM_ROWS ? s->out : DORA_NORM_ROWS;
}

static size_t prepare_scratch(const bal_site *s)
{
    return s->embedding ? bal_dora_embed_prepare_scratch(s) : norm_rows(s) * s->in;
}

static void prepare(const bal_site *s, const bal_view *w, real_t *scratch)
{
    if (s->embedding) {
        bal_dora_embed_prepare(s, w, scratch);
        return;
    }
    for (size_t row0 = 0, n; row0 < s->out; row0 += n) {
        n = s->out - row0 < norm_rows(s) ? s->out - row0 : norm_rows(s);
        bal_view_dequant_parallel(w, row0, n, scratch, s->in);
        bal_lora_add_delta(s->lora, row0, n, scratch, s->in);
        norm_job j = {scratch, s, row0};
        bal_parallel_for(n, 16, norm_range, &j);
    }
}

/* m = |W + s(BA - B0A0)|, so that the start changes nothing. */
static bal_status init(bal_site *s, const bal_view *w, bal_rng *rng)
{
    if (s->embedding)
        return bal_dora_embed_init(s, w, rng);
    real_t *row = bal_alloc(s->in, sizeof *row);
    if (row == NULL)
        return BAL_ENOMEM;
    for (size_t o = 0; o < s->out; o++) {
        bal_view_dequant(w, o, 1, row, s->in);
        bal_lora_add_delta(s->lora, o, 1, row, s->in);
        s->tensor[2].v[o] = (real_t)norm_of(row, s->in);
    }
    bal_free(row);
    return BAL_OK;
}

static size_t hidden(const bal_site *s)
{
    return s->embedding ? 0 : bal_lora_hidden(s->lora) + s->out; /* (V x) after LoRA's part: dm needs it */
}

static size_t scratch(const bal_site *s, size_t M)
{
    return s->embedding ? bal_dora_embed_scratch(s, M) : M * (bal_lora_hidden(s->lora) + s->out);
}

typedef struct scale_job {
    const real_t *x, *factor, *less; /* x(M, n) times factor - shift, minus less */
    real_t *y;
    size_t ldx, ldy, n;
    real_t shift;
    bool add;
} scale_job;

static void scale_range(void *context, size_t begin, size_t end, size_t thread)
{
    const scale_job *j = context;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        const real_t *x = j->x + t * j->ldx, *less = j->less == NULL ? NULL : j->less + t * j->n;
        real_t *y = j->y + t * j->ldy;
        for (size_t o = 0; o < j->n; o++) {
            real_t v = x[o] * (j->factor[o] - j->shift);
            if (less != NULL)
                v -= less[o];
            y[o] = j->add ? y[o] + v : v;
        }
    }
}

static void forward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    size_t out = s->out;
    real_t *v = c->h + c->M * bal_lora_hidden(s->lora); /* M x out */
    scale_job j = {.x = v, .ldx = out, .factor = factor_of(s), .y = c->y, .ldy = c->ldy, .n = out};
    if (c->dropout) {
        bal_site_base_product(c, c->xa, c->ldx, 0, c->scratch, out);
        memcpy(v, c->scratch, c->M * out * sizeof *v);
        j.less = c->scratch;
        j.add = true;
    } else {
        bal_rows_copy(c->M, out, c->y, c->ldy, v, out);
    }
    bal_lora_site_forward(c, v, out);
    bal_parallel_for(c->M, 16, scale_range, &j);
}

static void backward_output(const bal_site_call *c, real_t *dout)
{
    const bal_site *s = c->site;
    scale_job j = {.x = c->dy, .ldx = c->ldy, .factor = factor_of(s), .y = dout, .ldy = s->out, .n = s->out};
    if (s->tensor[2].d != NULL)
        bal_rows_dot(c->M, s->out, c->h + c->M * bal_lora_hidden(s->lora), s->out, c->dy, c->ldy, s->state + s->out,
                     s->tensor[2].d);
    if (!c->dropout)
        bal_parallel_for(c->M, 16, scale_range, &j);
    else
        bal_rows_copy(c->M, s->out, c->dy, c->ldy, dout, s->out);
}

static void backward(const bal_site_call *c)
{
    const bal_site *s = c->site;
    real_t *g = c->scratch, *rest = c->scratch + c->M * s->out;
    scale_job j = {.x = c->dy, .ldx = c->ldy, .factor = factor_of(s), .y = g, .ldy = s->out, .n = s->out};
    bal_parallel_for(c->M, 16, scale_range, &j);
    bal_lora_backward(s->lora, c->M, c->xa, c->ldx, g, s->out, c->h, c->dx, c->ldx, rest);
    if (!c->dropout || c->dx == NULL)
        return;
    j.shift = 1; /* the (m/n) W x' - W x' of the forward */
    bal_parallel_for(c->M, 16, scale_range, &j);
    bal_site_base_back(c, g, s->out, 1, c->dx);
}

static void effective(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    if (s->embedding) {
        bal_dora_embed_effective(s, row0, n_rows, out, ld);
        return;
    }
    bal_lora_add_delta(s->lora, row0, n_rows, out, ld);
    for (size_t i = 0; i < n_rows; i++) {
        double f = (double)s->tensor[2].v[row0 + i] * inverse(norm_of(out + i * ld, s->in));
        for (size_t k = 0; k < s->in; k++)
            out[i * ld + k] = (real_t)((double)out[i * ld + k] * f);
    }
}

static size_t rows_back_scratch(const bal_site *s, size_t M)
{
    (void)M;
    return 2 * norm_rows(s) * s->in;
}

/* With G = dZ^T x:  dm = G . V / n,  dB = s (m/n) G A^T,  dA = s B^T (m/n) G. */
static void rows_back(const bal_site *s, const bal_view *w, size_t M, const real_t *X, const real_t *dZ, size_t ldz,
                      size_t row0, size_t n, real_t *scratch)
{
    const bal_lora *l = s->lora;
    size_t in = s->in, block = norm_rows(s);
    real_t *V = scratch, *G = scratch + block * in;
    for (size_t first = 0, rows; first < n; first += rows) {
        rows = n - first < block ? n - first : block;
        bal_view_dequant_parallel(w, row0 + first, rows, V, in);
        bal_lora_add_delta(l, row0 + first, rows, V, in);
        bal_gemm(true, false, rows, in, M, 1, dZ + first, ldz, X, in, 0, G, in);
        for (size_t i = 0; i < rows; i++) {
            double part = inverse(norm_of(V + i * in, in)), dot = 0;
            size_t o = row0 + first + i;
            for (size_t k = 0; k < in; k++) {
                dot += (double)V[i * in + k] * (double)G[i * in + k];
                G[i * in + k] = (real_t)((double)G[i * in + k] * (double)s->tensor[2].v[o] * part);
            }
            if (s->tensor[2].d != NULL)
                s->tensor[2].d[o] += (real_t)(dot * part);
        }
        if (l->db != NULL)
            bal_gemm(false, true, rows, l->r, in, (real_t)l->scale, G, in, l->a, in, 1, l->db + (row0 + first) * l->r,
                     l->r);
        if (l->da != NULL)
            bal_gemm(true, false, l->r, in, rows, (real_t)l->scale, l->b + (row0 + first) * l->r, l->r, G, in, 1, l->da,
                     in);
    }
}

const bal_method bal_method_dora = {
    .name = "dora",
    .title = "DoRA",
    .peft_type = "LORA",
    .flag = "use_dora",
    .alpha_key = "lora_alpha",
    .biases = true,
    .dropout_key = "lora_dropout",
    .init_key = "init_lora_weights",
    .low_rank = true,
    .embeddings = true,
    .output_without_bias = true,
    .describe = describe,
    .init = init,
    .hidden = hidden,
    .scratch = scratch,
    .embed = bal_dora_embed,
    .embed_back = bal_dora_embed_back,
    .prepare = prepare,
    .prepare_scratch = prepare_scratch,
    .forward = forward,
    .backward_output = backward_output,
    .backward = backward,
    .effective = effective,
    .rows_back = rows_back,
    .rows_back_scratch = rows_back_scratch,
};
