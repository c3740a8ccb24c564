/* Forward, per block of queries and head, over blocks of keys with P = exp(S - m), S = scale Q K^T:
 *   m' = max(m, rowmax S),  l = l e^(m - m') + rowsum P,  O = O e^(m - m') + P V;  at the end O / l, lse = m + ln l.
 * Backward, with P = exp(S - lse) and delta = rowsum(dO o O):
 *   dV = P^T dO,  dS = P o (dO V^T - delta) (times 1 - (S / cap)^2 when S is capped),  dQ = scale dS K,  dK = scale dS^T Q.
 * dQ is shared out by blocks of queries, dK and dV by blocks of keys: each output has one writer, whatever the number
 * of threads.  The price is that S is formed twice.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/nn/attention.h"

#include "lib/base/threads.h"
#include "lib/nn/ops.h"
#include "lib/tensor/gemm.h"

#include <math.h>
#include <string.h>

enum { N = BAL_ATTENTION_BLOCK };

static size_t split(uint32_t begin, uint32_t end, bal_attention_block *out)
{
    size_t n = 0;
    for (uint32_t t = begin; t < end; t += N)
        out[n++] = (bal_attention_block){begin, end, t, end - t < N ? end - t : N};
    return n;
}

size_t bal_attention_split(const uint32_t *seq_start, size_t n_seqs, bal_attention_block *out)
{
    size_t n = split(0, n_seqs > 0 ? seq_start[0] : 0, out);
    for (size_t s = 0; s < n_seqs; s++)
        n += split(seq_start[s], seq_start[s + 1], out + n);
    return n;
}

size_t bal_attention_max_blocks(size_t max_tokens, size_t max_seqs)
{
    return max_tokens / N + max_seqs + 1;
}

size_t bal_attention_scratch(void)
{
    return 3 * (size_t)N * N + 2 * (size_t)N;
}

typedef struct job {
    const bal_attention *a;
    const bal_nn_ops *ops;
    const real_t *q, *k, *v, *o_in, *dout, *lse_in;
    real_t *o, *lse, *dq, *dk, *dv, *delta;
    size_t ldq, ldk; /* row lengths of q, o and of k, v */
} job;

static const bal_attention_block *query_blocks(const bal_attention *a)
{
    return a->queries != NULL ? a->queries : a->blocks;
}

static size_t n_query_blocks(const bal_attention *a)
{
    return a->queries != NULL ? a->n_queries : a->n_blocks;
}

/* Keys lo .. hi-1 of the block that starts at key k0 and holds nk, as seen by query t. */
static void visible(const bal_attention *a, size_t begin, size_t t, size_t k0, size_t nk, size_t *lo, size_t *hi)
{
    if (k0 < begin || a->both_ways) { /* of the shared beginning, or of the sequence: the block ends with it */
        *lo = 0;
        *hi = nk;
        return;
    }
    size_t oldest = a->window != 0 && t + 1 > begin + a->window ? t + 1 - a->window : begin;
    *lo = oldest > k0 ? oldest - k0 : 0;
    *hi = t + 1 > k0 ? t + 1 - k0 : 0;
    *hi = *hi < nk ? *hi : nk;
    *lo = *lo < *hi ? *lo : *hi;
}

/* First key that any query of the block sees, rounded down to a block border of the sequence. */
static size_t first_key(const bal_attention *a, const bal_attention_block *b)
{
    size_t t = b->first;
    size_t oldest = a->window != 0 && t + 1 > b->begin + a->window ? t + 1 - a->window : b->begin;
    return b->begin + (oldest - b->begin) / N * N;
}

/* The block of keys that a block of queries begins with, and the one after [*k0, *k0 + *nk): false when there is none.
 * What is shared comes first. */
static bool next_keys(const bal_attention *a, const bal_attention_block *b, size_t *k0, size_t *nk)
{
    size_t last = a->both_ways ? b->end : b->first + b->count, shared = b->begin >= a->shared ? a->shared : 0;
    if (*nk == 0)
        *k0 = shared > 0 ? 0 : first_key(a, b);
    else
        *k0 = *k0 < shared && *k0 + *nk >= shared ? b->begin : *k0 + *nk;
    if (*k0 >= last)
        return false;
    size_t end = *k0 < shared ? shared : last;
    *nk = end - *k0 < N ? end - *k0 : N;
    return true;
}

/* S(nq, nk) = scale Q K^T, leading dimension N, capped; slope (may be NULL): of the cap, when there is one. */
static void scores(const job *j, size_t head, size_t q0, size_t nq, size_t k0, size_t nk, real_t *S, real_t *slope)
{
    size_t d = j->a->d, kv = head / (j->a->n_heads / j->a->n_kv_heads);
    bal_gemm(false, true, nq, nk, d, (real_t)j->a->scale, j->q + q0 * j->ldq + head * d, j->ldq,
             j->k + k0 * j->ldk + kv * d, j->ldk, 0, S, N);
    for (size_t i = 0; i < nq && j->a->softcap > 0; i++)
        j->ops->softcap(S + i * N, nk, (real_t)j->a->softcap, slope == NULL ? NULL : slope + i * N);
}

/* P in place of S, from the saved sums; what a query does not see is 0. */
static void probabilities(const job *j, size_t begin, size_t head, size_t q0, size_t nq, size_t k0, size_t nk,
                          real_t *S)
{
    for (size_t i = 0; i < nq; i++) {
        real_t *row = S + i * N;
        size_t lo, hi;
        visible(j->a, begin, q0 + i, k0, nk, &lo, &hi);
        memset(row, 0, lo * sizeof *row);
        memset(row + hi, 0, (nk - hi) * sizeof *row);
        if (hi > lo)
            (void)j->ops->exp_sum(row + lo, hi - lo, j->lse_in[(q0 + i) * j->a->n_heads + head]);
    }
}

/* One block of keys of the online softmax: rescales O and turns S into P. */
static void online_softmax(const job *j, const bal_attention_block *b, real_t *O, size_t k0, size_t nk, real_t *S,
                           real_t *m, real_t *l)
{
    for (size_t i = 0; i < b->count; i++) {
        real_t *row = S + i * N;
        size_t lo, hi;
        visible(j->a, b->begin, b->first + i, k0, nk, &lo, &hi);
        memset(row, 0, lo * sizeof *row);
        memset(row + hi, 0, (nk - hi) * sizeof *row);
        if (hi == lo)
            continue;
        real_t top = j->ops->max(row + lo, hi - lo);
        if (top > m[i]) {
            real_t shrink = (real_t)exp((double)(m[i] - top)); /* 0 at first, when m is -infinity */
            l[i] *= shrink;
            j->ops->scale(O + i * j->ldq, j->a->d, shrink);
            m[i] = top;
        }
        l[i] += j->ops->exp_sum(row + lo, hi - lo, m[i]);
    }
}

static void forward_task(const job *j, const bal_attention_block *b, size_t head, real_t *scratch)
{
    size_t d = j->a->d, kv = head / (j->a->n_heads / j->a->n_kv_heads), H = j->a->n_heads;
    real_t *S = scratch, *m = scratch + 3 * (size_t)N * N, *l = m + N;
    real_t *O = j->o + b->first * j->ldq + head * d;
    size_t k0 = 0, nk = 0;
    for (size_t i = 0; i < b->count; i++) {
        m[i] = -(real_t)INFINITY;
        l[i] = 0;
        memset(O + i * j->ldq, 0, d * sizeof *O);
    }
    while (next_keys(j->a, b, &k0, &nk)) {
        scores(j, head, b->first, b->count, k0, nk, S, NULL);
        online_softmax(j, b, O, k0, nk, S, m, l);
        bal_gemm(false, false, b->count, d, nk, 1, S, N, j->v + k0 * j->ldk + kv * d, j->ldk, 1, O, j->ldq);
    }
    for (size_t i = 0; i < b->count; i++) {
        j->ops->scale(O + i * j->ldq, d, 1 / l[i]);
        j->lse[(b->first + i) * H + head] = m[i] + (real_t)log((double)l[i]);
    }
}

static void forward_range(void *context, size_t begin, size_t end, size_t thread)
{
    const job *j = context;
    real_t *scratch = j->a->scratch + thread * bal_attention_scratch();
    for (size_t i = begin; i < end; i++)
        forward_task(j, &query_blocks(j->a)[i / j->a->n_heads], i % j->a->n_heads, scratch);
}

void bal_attention_forward(const bal_attention *a, const real_t *q, const real_t *k, const real_t *v, real_t *o,
                           real_t *lse)
{
    job j = {.a = a,
             .ops = BAL_ISA_PICK(bal_nn_ops),
             .q = q,
             .k = k,
             .v = v,
             .o = o,
             .lse = lse,
             .ldq = a->n_heads * a->d,
             .ldk = a->n_kv_heads * a->d};
    bal_parallel_dynamic(n_query_blocks(a) * a->n_heads, 1, forward_range, &j);
}

static void delta_range(void *context, size_t begin, size_t end, size_t thread)
{
    const job *j = context;
    size_t d = j->a->d, H = j->a->n_heads;
    (void)thread;
    for (size_t t = begin; t < end; t++)
        for (size_t h = 0; h < H; h++)
            j->delta[t * H + h] = (real_t)j->ops->dot(j->o_in + t * j->ldq + h * d, j->dout + t * j->ldq + h * d, d);
}

/* P into S and dS into G (leading dimension N; the slope of the cap lies behind G); begin: of the queries' sequence. */
static void backward_scores(const job *j, size_t begin, size_t head, size_t q0, size_t nq, size_t k0, size_t nk,
                            real_t *S, real_t *G)
{
    size_t d = j->a->d, H = j->a->n_heads, kv = head / (H / j->a->n_kv_heads);
    real_t *slope = G + (size_t)N * N;
    scores(j, head, q0, nq, k0, nk, S, slope);
    probabilities(j, begin, head, q0, nq, k0, nk, S);
    bal_gemm(false, true, nq, nk, d, 1, j->dout + q0 * j->ldq + head * d, j->ldq, j->v + k0 * j->ldk + kv * d, j->ldk,
             0, G, N);
    for (size_t i = 0; i < nq; i++)
        j->ops->softmax_backward(S + i * N, G + i * N, nk, j->delta[(q0 + i) * H + head]);
    for (size_t i = 0; i < nq && j->a->softcap > 0; i++)
        j->ops->multiply(G + i * N, slope + i * N, nk);
}

static void query_task(const job *j, const bal_attention_block *b, size_t head, real_t *scratch)
{
    size_t d = j->a->d, kv = head / (j->a->n_heads / j->a->n_kv_heads), k0 = 0, nk = 0;
    real_t *S = scratch, *G = scratch + (size_t)N * N, beta = 0;
    while (next_keys(j->a, b, &k0, &nk)) {
        backward_scores(j, b->begin, head, b->first, b->count, k0, nk, S, G);
        bal_gemm(false, false, b->count, d, nk, (real_t)j->a->scale, G, N, j->k + k0 * j->ldk + kv * d, j->ldk, beta,
                 j->dq + b->first * j->ldq + head * d, j->ldq);
        beta = 1;
    }
}

static void query_range(void *context, size_t begin, size_t end, size_t thread)
{
    const job *j = context;
    real_t *scratch = j->a->scratch + thread * bal_attention_scratch();
    for (size_t i = begin; i < end; i++)
        query_task(j, &query_blocks(j->a)[i / j->a->n_heads], i % j->a->n_heads, scratch);
}

/* b is a block of keys here; all queries of its sequence that see one of them contribute (the later ones, or both ways
 * all), and for the shared beginning the queries of all sequences. */
static void key_task(const job *j, const bal_attention_block *b, size_t kv, real_t *scratch)
{
    size_t d = j->a->d, group = j->a->n_heads / j->a->n_kv_heads, end = b->end, nq;
    real_t *S = scratch, *G = scratch + (size_t)N * N, beta = 0;
    real_t *dk = j->dk + b->first * j->ldk + kv * d, *dv = j->dv + b->first * j->ldk + kv * d;
    if (j->a->window != 0 && b->first + b->count + j->a->window - 1 < end)
        end = b->first + b->count + j->a->window - 1;
    if (b->first < j->a->shared)
        end = j->a->blocks[j->a->n_blocks - 1].end;
    for (size_t head = kv * group; head < (kv + 1) * group; head++) {
        for (size_t q0 = j->a->both_ways ? b->begin : b->first; q0 < end; q0 += nq) {
            size_t border = b->first < j->a->shared && q0 < j->a->shared ? j->a->shared : end;
            nq = border - q0 < N ? border - q0 : N;
            backward_scores(j, q0 < b->end ? b->begin : b->end, head, q0, nq, b->first, b->count, S, G);
            bal_gemm(true, false, b->count, d, nq, 1, S, N, j->dout + q0 * j->ldq + head * d, j->ldq, beta, dv, j->ldk);
            bal_gemm(true, false, b->count, d, nq, (real_t)j->a->scale, G, N, j->q + q0 * j->ldq + head * d, j->ldq,
                     beta, dk, j->ldk);
            beta = 1;
        }
    }
}

static void key_range(void *context, size_t begin, size_t end, size_t thread)
{
    const job *j = context;
    real_t *scratch = j->a->scratch + thread * bal_attention_scratch();
    for (size_t i = begin; i < end; i++)
        key_task(j, &j->a->blocks[i / j->a->n_kv_heads], i % j->a->n_kv_heads, scratch);
}

void bal_attention_backward(const bal_attention *a, size_t T, const real_t *q, const real_t *k, const real_t *v,
                            const real_t *o, const real_t *lse, const real_t *dout, real_t *dq, real_t *dk, real_t *dv,
                            real_t *delta)
{
    job j = {.a = a,
             .ops = BAL_ISA_PICK(bal_nn_ops),
             .q = q,
             .k = k,
             .v = v,
             .o_in = o,
             .dout = dout,
             .lse_in = lse,
             .dq = dq,
             .dk = dk,
             .dv = dv,
             .delta = delta,
             .ldq = a->n_heads * a->d,
             .ldk = a->n_kv_heads * a->d};
    bal_parallel_for(T, 16, delta_range, &j);
    bal_parallel_dynamic(n_query_blocks(a) * a->n_heads, 1, query_range, &j);
    bal_parallel_dynamic(a->n_blocks * a->n_kv_heads, 1, key_range, &j);
}
