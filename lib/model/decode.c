/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/decode_impl.h"

#include "lib/adapter/method.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/nn/layer_norm.h"
#include "lib/nn/rope.h"
#include "lib/tensor/rowdot.h"

#include <math.h>
#include <string.h>

static size_t round_up(size_t n)
{
    return (n + BAL_KEY_BLOCK - 1) / BAL_KEY_BLOCK * BAL_KEY_BLOCK;
}

size_t bal_decoder_position_bytes(const bal_model *m)
{
    const bal_model_config *c = &m->config;
    return 2 * c->n_layers * c->n_kv_heads * c->head_dim * sizeof(real_t);
}

/* The i-th linear of all blocks, then head and embedding; NULL after them. */
static const bal_linear *linear_at(const bal_model *m, size_t i)
{
    size_t n = m->config.n_layers * BAL_SLOT_COUNT;
    return i < n        ? &m->blocks[i / BAL_SLOT_COUNT].linear[i % BAL_SLOT_COUNT]
           : i == n     ? &m->head
           : i == n + 1 ? &m->embed
                        : NULL;
}

/* What the attached adapters want of the buffers. */
typedef struct site_needs {
    size_t hidden, scratch, input, sites, dense; /* dense: values of all dense changes */
} site_needs;

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static site_needs needs_of(const bal_model *m, size_t rows)
{
    site_needs n = {.hidden = 1, .scratch = 1, .input = 1, .sites = 1, .dense = 1};
    const bal_linear *l;
    for (size_t i = 0; (l = linear_at(m, i)) != NULL; i++) {
        const bal_site *s = l->site;
        if (s == NULL)
            continue;
        n.hidden = larger(n.hidden, bal_site_hidden(s));
        n.scratch = larger(n.scratch, bal_site_scratch(s, rows));
        if (s->method->prepare_scratch != NULL)
            n.scratch = larger(n.scratch, s->method->prepare_scratch(s));
        if (s->method->input != NULL)
            n.input = larger(n.input, rows * s->in);
        n.sites = s->adapter->n_sites;
        if (s->method->dense)
            n.dense += s->out * s->in;
    }
    return n;
}

/* Carves all buffers from the arena (or counts them). */
static bool carve(bal_decoder *d, bal_arena *a)
{
    const bal_model_config *c = &d->m->config;
    size_t rows = d->o.rows, q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim, half = c->rotary_dim / 2;
    size_t heads = c->n_layers * d->o.slots * c->n_kv_heads, real = sizeof(real_t), widest = c->hidden;
    if (q > widest)
        widest = q;
    if (c->intermediate > widest)
        widest = c->intermediate;
    d->kv_stride = d->o.capacity * c->head_dim;
    const site_needs needs = needs_of(d->m, larger(rows, d->o.logits));
    d->low_cols = needs.hidden;
    d->scores_stride = d->o.capacity;
    if (d->low_cols > widest)
        widest = d->low_cols;
    size_t most = rows > d->o.logits ? rows : d->o.logits; /* of anything */
    size_t inner = c->intermediate > c->hidden ? c->intermediate : c->hidden;
    size_t piece = rows * (c->vocab < BAL_SCORE_PIECE ? c->vocab : BAL_SCORE_PIECE), whole = d->o.logits * c->vocab;
    const bal_linear *l = d->m->blocks[0].linear;
    bool local = c->local_rope.kind != BAL_ROPE_NONE;
    size_t fused = bal_linear_there(&l[BAL_SLOT_K]) ? 1 : l[BAL_SLOT_Q].w.rows;
    if (!bal_linear_there(&l[BAL_SLOT_UP]) && l[BAL_SLOT_GATE].w.rows > fused)
        fused = l[BAL_SLOT_GATE].w.rows;
    struct {
        real_t **at;
        size_t n, size;
    } parts[] = {
        {&d->keys, heads, d->kv_stride * real},
        {&d->values, heads, d->kv_stride * real},
        {&d->cosines[0], d->o.capacity, (half + 1) * real},
        {&d->sines[0], d->o.capacity, (half + 1) * real},
        {&d->cosines[1], local ? d->o.capacity : 1, (half + 1) * real},
        {&d->sines[1], local ? d->o.capacity : 1, (half + 1) * real},
        {&d->fused, rows, fused * real},
        {&d->x, rows, c->hidden * real},
        {&d->h, rows, c->hidden * real},
        {&d->q, rows, q * real},
        {&d->k, rows, kv * real},
        {&d->v, rows, kv * real},
        {&d->att, rows, q * real},
        {&d->gate, rows, inner * real},
        {&d->up, rows, c->intermediate * real},
        {&d->low, most, d->low_cols * real},
        {&d->picked, d->o.logits, c->hidden * real},
        {&d->logits, whole > piece ? whole : piece, real},
        {&d->scores, bal_threads_count(), d->scores_stride * real},
        {&d->scratch, bal_rowdot_scratch(widest), real},
        {&d->site_scratch, needs.scratch, real},
        {&d->changed, needs.input, real},
        {&d->dense, needs.dense, real},
        {&d->half, d->o.compute == BAL_COMPUTE_BF16 ? bal_rowdot_half(most, widest) : 0, real},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        *parts[i].at = bal_arena_take(a, parts[i].n, parts[i].size);
        if (a->base != NULL && *parts[i].at == NULL)
            return false;
    }
    if (d->o.compute != BAL_COMPUTE_BF16)
        d->half = NULL;
    d->asking = bal_arena_take(a, rows, sizeof *d->asking);
    d->running = bal_arena_take(a, most, sizeof *d->running);
    d->dense_of = bal_arena_take(a, needs.sites, sizeof *d->dense_of); // NOLINT(bugprone-sizeof-expression)
    return a->base == NULL || (d->asking != NULL && d->running != NULL && d->dense_of != NULL);
}

static bal_status fill_rope(bal_decoder *d)
{
    const bal_model_config *c = &d->m->config;
    size_t half = c->rotary_dim / 2;
    if (c->rope.kind == BAL_ROPE_NONE)
        return BAL_OK;
    double *frequencies = bal_alloc(half + 1, sizeof *frequencies);
    if (frequencies == NULL)
        return BAL_ENOMEM;
    double scale = bal_rope_frequencies(&c->rope, c->rotary_dim, 0, d->m->rope_factors, frequencies);
    bal_rope_table(frequencies, half, scale, 0, d->o.capacity, d->cosines[0], d->sines[0]);
    if (c->local_rope.kind != BAL_ROPE_NONE) {
        scale = bal_rope_frequencies(&c->local_rope, c->rotary_dim, 0, NULL, frequencies);
        bal_rope_table(frequencies, half, scale, 0, d->o.capacity, d->cosines[1], d->sines[1]);
    }
    bal_free(frequencies);
    return BAL_OK;
}

/* What the adapters derive from their parameters, once: they do not change while a decoder lives. */
static void prepare_sites(bal_decoder *d)
{
    const bal_linear *l;
    real_t *next = d->dense;
    for (size_t i = 0; (l = linear_at(d->m, i)) != NULL; i++) {
        const bal_site *s = l->site;
        if (s != NULL && s->method->prepare != NULL)
            s->method->prepare(s, &l->w, d->site_scratch);
        if (s == NULL || !s->method->dense)
            continue;
        memset(next, 0, s->out * s->in * sizeof *next);
        s->method->effective(s, 0, s->out, next, s->in);
        d->dense_of[s - s->adapter->sites] = next;
        next += s->out * s->in;
    }
}

bal_status bal_decoder_new(bal_decoder **out, const bal_model *m, const bal_decoder_options *o)
{
    bal_status status;
    bal_arena measure;
    bal_decoder *d = bal_alloc(1, sizeof *d);
    *out = NULL;
    if (d == NULL)
        return BAL_ENOMEM;
    d->m = m;
    d->o = *o;
    d->o.capacity = round_up(o->capacity);
    if (o->slots == 0 || o->rows == 0 || o->logits == 0 || o->capacity == 0 || o->rows < o->slots) {
        status = bal_fail(BAL_EINVAL, "a decoder of %zu slots, %zu rows and %zu positions cannot be made", o->slots,
                          o->rows, o->capacity);
        goto out;
    }
    bal_arena_measure(&measure);
    (void)carve(d, &measure);
    BAL_TRY(bal_arena_init(&d->arena, measure.peak));
    if (!carve(d, &d->arena)) {
        status = BAL_ENOMEM;
        goto out;
    }
    /* a last block of keys is read whole: what no key has filled yet must be a number */
    memset(d->keys, 0, m->config.n_layers * o->slots * m->config.n_kv_heads * d->kv_stride * sizeof *d->keys);
    BAL_TRY(fill_rope(d));
    prepare_sites(d);
    *out = d;
    d = NULL;
out:
    bal_decoder_free(d);
    return status;
}

void bal_decoder_free(bal_decoder *d)
{
    if (d == NULL)
        return;
    bal_arena_dispose(&d->arena);
    bal_free(d);
}

static size_t cache_at(const bal_decoder *d, size_t layer, size_t slot, size_t head)
{
    return ((layer * d->o.slots + slot) * d->m->config.n_kv_heads + head) * d->kv_stride;
}

void bal_decoder_copy(bal_decoder *d, size_t from, size_t to, size_t n)
{
    size_t bytes = round_up(n) * d->m->config.head_dim * sizeof(real_t);
    if (from == to || n == 0)
        return;
    for (size_t layer = 0; layer < d->m->config.n_layers; layer++)
        for (size_t head = 0; head < d->m->config.n_kv_heads; head++) {
            size_t a = cache_at(d, layer, from, head), b = cache_at(d, layer, to, head);
            memcpy(d->keys + b, d->keys + a, bytes);
            memcpy(d->values + b, d->values + a, bytes);
        }
}

typedef struct norm_job {
    const real_t *x, *weight;
    real_t *out;
    size_t n;
    double eps;
    real_t plus;
} norm_job;

static void norm_rows(void *context, size_t begin, size_t end, size_t thread)
{
    const norm_job *j = context;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        const real_t *x = j->x + r * j->n;
        real_t *out = j->out + r * j->n;
        double sum[4] = {0};
        for (size_t i = 0; i < j->n; i++)
            sum[i % 4] += (double)x[i] * (double)x[i];
        real_t inverse = (real_t)(1 / sqrt(((sum[0] + sum[1]) + (sum[2] + sum[3])) / (double)j->n + j->eps));
        for (size_t i = 0; i < j->n; i++)
            out[i] = x[i] * inverse * (j->weight[i] + j->plus);
    }
}

void bal_decoder_norm(const bal_decoder *d, const real_t *x, const bal_norm *w, real_t *out, size_t rows, size_t cols)
{
    const bal_model_config *c = &d->m->config;
    if (c->norm == BAL_NORM_LAYER) {
        bal_layer_norm_forward(rows, cols, x, w->w, w->b, c->norm_eps, out);
        return;
    }
    real_t plus = c->norm == BAL_NORM_RMS_PLUS_ONE ? 1 : 0;
    norm_job j = {.x = x, .weight = w->w, .out = out, .n = cols, .eps = c->norm_eps, .plus = plus};
    bal_parallel_for(rows, 8, norm_rows, &j);
}

/* y = the adapted linear of x, when base is not computed yet; else y holds it (additive methods). */
static void adapted(bal_decoder *d, const bal_linear *l, size_t n, const real_t *x, real_t *y, bool base)
{
    const bal_site *s = l->site;
    const bal_method *m = s->method;
    bal_site_call c = {.site = s,
                       .w = &l->w,
                       .M = n,
                       .x = x,
                       .xa = x,
                       .ldx = s->in,
                       .y = y,
                       .ldy = s->out,
                       .h = d->low,
                       .scratch = d->site_scratch,
                       .rowwise = d->scratch};
    if (base) {
        bal_rowdot_job job = {.w = l->w, .bias = m->output_without_bias ? NULL : l->bias, .y = y, .ldy = s->out};
        if (m->input != NULL)
            m->input(&c, d->changed);
        bal_rowdot(&job, 1, n, m->input != NULL ? d->changed : x, s->in, d->scratch, d->half);
    }
    if (m->dense)
        bal_site_product(&c, s->out, s->in, 1, x, s->in, d->dense_of[s - s->adapter->sites], 1, y, s->out);
    if (m->forward != NULL)
        m->forward(&c);
    for (size_t i = 0; base && m->output_without_bias && l->bias != NULL && i < n * s->out; i++)
        y[i] += l->bias[i % s->out];
}

/* The linear's base product can be computed together with others of the same input. */
static bool plain_base(const bal_linear *l)
{
    return l->site == NULL || (l->site->method->input == NULL && !l->site->method->output_without_bias);
}

void bal_decoder_linears(bal_decoder *d, const bal_linear *const *l, real_t *const *y, size_t n_linears,
                         const real_t *x, size_t n)
{
    bal_rowdot_job jobs[3] = {{.y = NULL}};
    size_t n_jobs = 0;
    for (size_t i = 0; i < n_linears; i++)
        if (plain_base(l[i]))
            jobs[n_jobs++] = (bal_rowdot_job){.w = l[i]->w, .bias = l[i]->bias, .y = y[i], .ldy = l[i]->w.rows};
    bal_rowdot(jobs, n_jobs, n, x, l[0]->w.cols, d->scratch, d->half);
    for (size_t i = 0; i < n_linears; i++)
        if (l[i]->site != NULL && !l[i]->site->method->on_stream)
            adapted(d, l[i], n, x, y[i], !plain_base(l[i]));
}

static const bal_decode_row *query_rows(const bal_decoder *d)
{
    return d->narrow ? d->asking : d->rows;
}

/* Turns q and k by their positions and stores k and v. */
static void place_rows(void *context, size_t begin, size_t end, size_t thread)
{
    bal_decoder *d = context;
    const bal_model_config *c = &d->m->config;
    size_t hd = c->head_dim, q_cols = c->n_heads * hd, kv_cols = c->n_kv_heads * hd;
    bool local = c->local_rope.kind != BAL_ROPE_NONE && bal_layer_in(&c->sliding, d->layer);
    bool rotated = c->rope.kind != BAL_ROPE_NONE && !bal_layer_in(&c->unrotated, d->layer);
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        size_t p = d->rows[r].position;
        real_t *k = d->k + r * kv_cols;
        const real_t *v = d->v + r * kv_cols;
        if (rotated) {
            if (!d->narrow || r < d->n_want)
                bal_rope_apply(d->q + r * q_cols, q_cols, 1, c->n_heads, hd, c->rotary_dim, d->cosines[local],
                               d->sines[local], &query_rows(d)[r].position, false);
            bal_rope_apply(k, kv_cols, 1, c->n_kv_heads, hd, c->rotary_dim, d->cosines[local], d->sines[local],
                           &d->rows[r].position, false);
        }
        for (size_t head = 0; head < c->n_kv_heads; head++) {
            size_t at = cache_at(d, d->layer, d->rows[r].slot, head);
            real_t *key = d->keys + at + p / BAL_KEY_BLOCK * BAL_KEY_BLOCK * hd + p % BAL_KEY_BLOCK;
            for (size_t i = 0; i < hd; i++)
                key[i * BAL_KEY_BLOCK] = k[head * hd + i];
            memcpy(d->values + at + p * hd, v + head * hd, hd * sizeof *v);
        }
    }
}

/* One item is one (row, key/value head), with all query heads that share it. */
static void attend_items(void *context, size_t begin, size_t end, size_t thread)
{
    bal_decoder *d = context;
    const bal_model_config *c = &d->m->config;
    const bal_decode_ops *ops = BAL_ISA_PICK(bal_decode_ops);
    size_t hd = c->head_dim, group = c->n_heads / c->n_kv_heads;
    size_t window = bal_layer_in(&c->sliding, d->layer) ? c->window : 0;
    for (size_t i = begin; i < end; i++) {
        size_t row = i / c->n_kv_heads, head = i % c->n_kv_heads;
        const bal_decode_row *of = &query_rows(d)[row];
        size_t at = cache_at(d, d->layer, of->slot, head), n = (size_t)of->position + 1;
        size_t first = window != 0 && n > window ? n - window : 0;
        for (size_t g = 0; g < group; g++) {
            size_t offset = (row * c->n_heads + head * group + g) * hd;
            ops->attend(d->q + offset, d->keys + at, d->values + at, first, n, hd, (real_t)bal_layer_scale(c, d->layer),
                        (real_t)c->attention_softcap, d->scores + thread * d->scores_stride, d->att + offset);
        }
    }
}

typedef struct act_job {
    real_t *gate;
    const real_t *up;
    size_t n;
    bal_act_kind kind;
} act_job;

static inline real_t activate(bal_act_kind kind, real_t x)
{
    switch (kind) {
    case BAL_ACT_SILU:
#if BAL_REAL_IS_DOUBLE
        return x / (1 + exp(-x));
#else
        return x / (1 + expf(-x));
#endif
    case BAL_ACT_GELU_TANH:
        return (real_t)(0.5 * (double)x *
                        (1 + tanh(0.7978845608028654 * ((double)x + 0.044715 * (double)x * (double)x * (double)x))));
    case BAL_ACT_GELU:
        return (real_t)(0.5 * (double)x * (1 + erf((double)x * 0.7071067811865476)));
    case BAL_ACT_RELU:
        return x > 0 ? x : 0;
    }
    return x;
}

static void act_rows(void *context, size_t begin, size_t end, size_t thread)
{
    const act_job *j = context;
    (void)thread;
    if (j->kind == BAL_ACT_SILU && j->up != NULL) { /* row by row: an element's lane depends on its column alone */
        for (size_t r = begin; r < end; r++)
            BAL_ISA_PICK(bal_decode_ops)->swiglu(j->gate + r * j->n, j->up + r * j->n, j->n);
        return;
    }
    for (size_t i = begin * j->n; i < end * j->n; i++)
        j->gate[i] = activate(j->kind, j->gate[i]) * (j->up == NULL ? 1 : j->up[i]);
}

static void add_into(real_t *x, const real_t *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

/* Columns [from, from + cols) of the rows of x into y. */
static void take_columns(const real_t *x, size_t ld, size_t from, size_t cols, size_t n, real_t *y)
{
    for (size_t r = 0; r < n; r++)
        memcpy(y + r * cols, x + r * ld + from, cols * sizeof *y);
}

/* The input of a half block: norm(x) in d->h, or x itself. */
static const real_t *half_input(bal_decoder *d, const bal_norm *w, size_t n)
{
    if (w->w == NULL)
        return d->x;
    bal_decoder_norm(d, d->x, w, d->h, n, d->m->config.hidden);
    return d->h;
}

/* x = x + f(l in), with the norm f when there is one. */
static void half_output(bal_decoder *d, const bal_linear *l, const bal_norm *w, const real_t *in, size_t n)
{
    size_t width = d->m->config.hidden;
    bal_decoder_linears(d, (const bal_linear *[]){l}, (real_t *[]){d->h}, 1, in, n);
    if (w->w != NULL && !d->m->config.norm_after_add)
        bal_decoder_norm(d, d->h, w, d->h, n, width);
    add_into(d->x, d->h, n * width);
    if (w->w != NULL && d->m->config.norm_after_add)
        bal_decoder_norm(d, d->x, w, d->x, n, width);
    if (l->site != NULL && l->site->method->on_stream)
        adapted(d, l, n, NULL, d->x, false);
}

/* The wanted rows of x into y, which may be x. */
static void take_rows(const bal_decoder *d, const real_t *x, size_t cols, real_t *y)
{
    for (size_t i = 0; i < d->n_want; i++)
        memmove(y + i * cols, x + (size_t)d->want[i] * cols, cols * sizeof *x);
}

static void project(bal_decoder *d, const bal_block *b, size_t n)
{
    const bal_model_config *c = &d->m->config;
    const bal_linear *l = b->linear;
    size_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    const real_t *in = half_input(d, &b->norm[BAL_NORM_ATTENTION_IN], n);
    size_t n_q = d->narrow ? d->n_want : n;
    if (bal_linear_there(&l[BAL_SLOT_K]) && d->narrow) {
        bal_decoder_linears(d, (const bal_linear *[]){&l[BAL_SLOT_K], &l[BAL_SLOT_V]}, (real_t *[]){d->k, d->v}, 2, in,
                            n);
        take_rows(d, in, c->hidden, d->gate);
        bal_decoder_linears(d, (const bal_linear *[]){&l[BAL_SLOT_Q]}, (real_t *[]){d->q}, 1, d->gate, n_q);
    } else if (bal_linear_there(&l[BAL_SLOT_K])) {
        bal_decoder_linears(d, (const bal_linear *[]){&l[BAL_SLOT_Q], &l[BAL_SLOT_K], &l[BAL_SLOT_V]},
                            (real_t *[]){d->q, d->k, d->v}, 3, in, n);
    } else {
        bal_decoder_linears(d, (const bal_linear *[]){&l[BAL_SLOT_Q]}, (real_t *[]){d->fused}, 1, in, n);
        take_columns(d->fused, q + 2 * kv, 0, q, n, d->q);
        take_columns(d->fused, q + 2 * kv, q, kv, n, d->k);
        take_columns(d->fused, q + 2 * kv, q + kv, kv, n, d->v);
        if (d->narrow)
            take_rows(d, d->q, q, d->q);
    }
    if (b->norm[BAL_NORM_Q].w != NULL)
        bal_decoder_norm(d, d->q, &b->norm[BAL_NORM_Q], d->q, n_q * c->n_heads, c->head_dim);
    if (b->norm[BAL_NORM_K].w != NULL)
        bal_decoder_norm(d, d->k, &b->norm[BAL_NORM_K], d->k, n * c->n_kv_heads, c->head_dim);
}

/* d->gate = act(Gate in) * Up in. */
static void mlp(bal_decoder *d, const bal_block *b, const real_t *in, size_t n)
{
    const bal_model_config *c = &d->m->config;
    const bal_linear *gate = &b->linear[BAL_SLOT_GATE], *up = &b->linear[BAL_SLOT_UP];
    size_t I = c->intermediate;
    act_job act = {.gate = d->gate, .up = d->up, .n = I, .kind = c->act};
    if (!bal_linear_there(gate)) {
        act.up = NULL;
        bal_decoder_linears(d, (const bal_linear *[]){up}, (real_t *[]){d->gate}, 1, in, n);
    } else if (!bal_linear_there(up)) {
        bal_decoder_linears(d, (const bal_linear *[]){gate}, (real_t *[]){d->fused}, 1, in, n);
        take_columns(d->fused, 2 * I, 0, I, n, d->gate);
        take_columns(d->fused, 2 * I, I, I, n, d->up);
    } else {
        bal_decoder_linears(d, (const bal_linear *[]){gate, up}, (real_t *[]){d->gate, d->up}, 2, in, n);
    }
    bal_parallel_for(n, 4, act_rows, &act);
}

static void run_block(bal_decoder *d, const bal_block *b, size_t n)
{
    const bal_model_config *c = &d->m->config;
    project(d, b, n);
    bal_parallel_for(n, 8, place_rows, d);
    if (d->narrow) { /* from here on there are no other rows */
        take_rows(d, d->x, c->hidden, d->x);
        n = d->n_want;
    }
    bal_parallel_dynamic(n * c->n_kv_heads, 1, attend_items, d);
    if (c->parallel) { /* the attention's share is added after the MLP has read its input */
        mlp(d, b, half_input(d, &b->norm[BAL_NORM_ATTENTION_IN], n), n);
        half_output(d, &b->linear[BAL_SLOT_O], &b->norm[BAL_NORM_ATTENTION_OUT], d->att, n);
    } else {
        half_output(d, &b->linear[BAL_SLOT_O], &b->norm[BAL_NORM_ATTENTION_OUT], d->att, n);
        mlp(d, b, half_input(d, &b->norm[BAL_NORM_MLP_IN], n), n);
    }
    half_output(d, &b->linear[BAL_SLOT_DOWN], &b->norm[BAL_NORM_MLP_OUT], d->gate, n);
}

static bal_status check_rows(const bal_decoder *d, const bal_decode_row *rows, size_t n, const uint32_t *want,
                             size_t n_want)
{
    const bal_model_config *c = &d->m->config;
    if (n > d->o.rows)
        return bal_fail(BAL_ELIMIT, "%zu tokens do not fit in a step of %zu", n, d->o.rows);
    for (size_t i = 0; i < n_want; i++)
        if (want[i] >= n || (i > 0 && want[i] <= want[i - 1]))
            return bal_fail(BAL_EINVAL, "wanted row %u is not one of the step's %zu, in rising order", want[i], n);
    for (size_t i = 0; i < n; i++) {
        if (rows[i].token < 0 || (size_t)rows[i].token >= c->vocab)
            return bal_fail(BAL_EFORMAT, "token id %d is outside the model's vocabulary of %zu", (int)rows[i].token,
                            c->vocab);
        if (rows[i].slot >= d->o.slots || rows[i].position >= d->o.capacity)
            return bal_fail(BAL_ELIMIT, "position %u does not fit in a cache of %zu", rows[i].position, d->o.capacity);
        if (c->position_rows != 0 && rows[i].position + c->position_offset >= c->position_rows)
            return bal_fail(BAL_ELIMIT, "position %u is beyond the %zu that the model has learned", rows[i].position,
                            c->position_rows - c->position_offset);
    }
    return BAL_OK;
}

bal_status bal_decoder_step(bal_decoder *d, const bal_decode_row *rows, size_t n, const uint32_t *want, size_t n_want)
{
    const bal_model_config *c = &d->m->config;
    d->n_want = 0;
    d->narrow = false;
    bal_status status = check_rows(d, rows, n, want, n_want);
    if (status != BAL_OK)
        return status;
    for (size_t i = 0; i < n; i++)
        bal_view_dequant(&d->m->embed.w, (size_t)rows[i].token, 1, d->x + i * c->hidden, c->hidden);
    if (c->embed_scale != 1)
        for (size_t i = 0; i < n * c->hidden; i++)
            d->x[i] *= (real_t)c->embed_scale;
    for (size_t i = 0; d->m->embed.site != NULL && i < n; i++) {
        const bal_site_call call = {.site = d->m->embed.site,
                                    .w = &d->m->embed.w,
                                    .M = 1,
                                    .y = d->x + i * c->hidden,
                                    .ldy = c->hidden,
                                    .scratch = d->site_scratch,
                                    .rowwise = d->scratch};
        call.site->method->embed(&call, &rows[i].token, (real_t)c->embed_scale);
    }
    for (size_t i = 0; i < n && c->position_rows != 0; i++)
        bal_view_dequant(&d->m->positions.w, rows[i].position + c->position_offset, 1, d->h + i * c->hidden, c->hidden);
    if (c->position_rows != 0)
        add_into(d->x, d->h, n * c->hidden);
    d->rows = rows;
    d->want = want;
    d->n_want = n_want;
    for (size_t i = 0; i < n_want; i++)
        d->asking[i] = rows[want[i]];
    for (d->layer = 0; d->layer < c->n_layers; d->layer++) {
        d->narrow = d->layer + 1 == c->n_layers && n_want < n;
        run_block(d, &d->m->blocks[d->layer], n);
    }
    d->rows = NULL;
    d->want = NULL;
    return BAL_OK;
}
