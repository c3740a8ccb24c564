/* DoRA on an embedding, as peft: the table W (vocabulary x hidden) is seen as the matrix W^T of a linear module whose
 * inputs are the tokens, so that a magnitude belongs to a column of W.
 *   V = W + s (B A)^T,  n = |V| of each column, over all tokens,  y_t = c (m / n) o V_t,  c the model's factor
 * n is a constant for the gradient.  With u = c dy o (m / n), h_t = column t of A:
 *   dm += sum_t c dy o V_t / n,  dB += s u^T h,  dA_t += s B^T u
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/dora.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/nn/rows.h"

#include <math.h>

enum { LANES = 16 };

static size_t block_rows(const bal_site *s)
{
    return s->in < DORA_NORM_ROWS ? s->in : DORA_NORM_ROWS;
}

size_t bal_dora_embed_prepare_scratch(const bal_site *s)
{
    return block_rows(s) * s->out;
}

typedef struct squares_job {
    const real_t *rows;
    size_t n, cols;
    real_t *sum, *rest; /* a sum in two parts, since a vocabulary is long */
} squares_job;

static void squares_range(void *context, size_t begin, size_t end, size_t thread)
{
    const squares_job *j = context;
    (void)thread;
    for (size_t first = begin, lanes; first < end; first += lanes) {
        double sum[LANES] = {0};
        lanes = end - first < LANES ? end - first : LANES;
        for (size_t i = 0; i < j->n; i++)
            for (size_t k = 0; k < lanes; k++) {
                double v = (double)j->rows[i * j->cols + first + k];
                sum[k] += v * v;
            }
        for (size_t k = 0; k < lanes; k++) {
            double all = sum[k] + (double)j->sum[first + k] + (double)j->rest[first + k];
            j->sum[first + k] = (real_t)all;
            j->rest[first + k] = (real_t)(all - (double)j->sum[first + k]);
        }
    }
}

/* state = n, then what rounding took from its square. */
static void norms(const bal_site *s, const bal_view *w, real_t *rows)
{
    real_t *n = s->state, *rest = n + s->out;
    for (size_t o = 0; o < 2 * s->out; o++)
        s->state[o] = 0;
    for (size_t row0 = 0, count; row0 < s->in; row0 += count) {
        count = s->in - row0 < block_rows(s) ? s->in - row0 : block_rows(s);
        bal_view_dequant_parallel(w, row0, count, rows, s->out);
        bal_lora_embedding_rows(s->lora, row0, count, rows, s->out);
        squares_job j = {rows, count, s->out, n, rest};
        bal_parallel_for(s->out, LANES, squares_range, &j);
    }
    for (size_t o = 0; o < s->out; o++)
        n[o] = (real_t)sqrt((double)n[o] + (double)rest[o]);
}

void bal_dora_embed_prepare(const bal_site *s, const bal_view *w, real_t *scratch)
{
    norms(s, w, scratch);
    for (size_t o = 0; o < s->out; o++) {
        double n = (double)s->state[o], inverse = n == 0 ? 0 : 1 / n;
        s->state[o] = (real_t)((double)s->tensor[DORA_MAGNITUDE].v[o] * inverse);
        s->state[s->out + o] = (real_t)inverse;
    }
}

/* m = n, so that the start changes nothing. */
bal_status bal_dora_embed_init(bal_site *s, const bal_view *w, bal_rng *rng)
{
    real_t *rows = bal_alloc(bal_dora_embed_prepare_scratch(s), sizeof *rows);
    if (rows == NULL)
        return BAL_ENOMEM;
    bal_lora_embedding_init(s->lora, rng);
    norms(s, w, rows);
    for (size_t o = 0; o < s->out; o++)
        s->tensor[DORA_MAGNITUDE].v[o] = s->state[o];
    bal_free(rows);
    return BAL_OK;
}

size_t bal_dora_embed_scratch(const bal_site *s, size_t M)
{
    return 2 * M * (s->r + s->out);
}

void bal_dora_embed(const bal_site_call *c, const int32_t *tokens, real_t scale)
{
    const bal_site *s = c->site;
    const bal_lora *l = s->lora;
    bal_lora_look_up(l, c->M, tokens, c->scratch);
    bal_site_product(c, l->out, l->r, scale * (real_t)l->scale, c->scratch, l->r, l->b, 1, c->y, c->ldy);
    bal_rows_scale(c->M, s->out, s->state, c->y, c->ldy, false, c->y, c->ldy);
}

void bal_dora_embed_back(const bal_site_call *c, const int32_t *tokens, real_t scale)
{
    const bal_site *s = c->site;
    const bal_lora *l = s->lora;
    size_t r = l->r, M = c->M, out = s->out;
    real_t *h = c->scratch, *g = h + M * r, *V = g + M * r, *u = V + M * out, all = scale * (real_t)l->scale;
    bal_lora_look_up(l, M, tokens, h);
    if (s->tensor[DORA_MAGNITUDE].d != NULL) {
        for (size_t t = 0; t < M; t++) {
            bal_view_dequant(c->w, (size_t)tokens[t], 1, V + t * out, out);
            for (size_t o = 0; o < out; o++)
                V[t * out + o] *= scale;
        }
        bal_gemm(false, true, M, out, r, all, h, r, l->b, r, 1, V, out);
        bal_rows_dot(M, out, V, out, c->dy, c->ldy, s->state + out, s->tensor[DORA_MAGNITUDE].d);
    }
    bal_rows_scale(M, out, s->state, c->dy, c->ldy, false, u, out);
    if (l->db != NULL)
        bal_gemm(true, false, out, r, M, all, u, out, h, r, 1, l->db, r);
    if (l->da == NULL)
        return;
    bal_gemm(false, false, M, r, out, all, u, out, l->b, r, 0, g, r);
    bal_lora_add_columns(l, M, tokens, g);
}

void bal_dora_embed_effective(const bal_site *s, size_t row0, size_t n_rows, real_t *out, size_t ld)
{
    bal_lora_embedding_rows(s->lora, row0, n_rows, out, ld);
    for (size_t i = 0; i < n_rows; i++)
        for (size_t o = 0; o < s->out; o++)
            out[i * ld + o] *= s->state[o];
}
