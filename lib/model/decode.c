/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/decode.h"

#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/model/decode_ops.h"
#include "lib/nn/rope.h"
#include "lib/tensor/rowdot.h"

#include <math.h>
#include <string.h>

struct bal_decoder {
    const bal_model *m;
    bal_decoder_options o;
    bal_arena arena;
    size_t kv_stride;                                  /* real_t of one key/value head of one slot and layer */
    real_t *keys, *values;                             /* [layer][slot][head][kv_stride] */
    real_t *cosines, *sines;                           /* [capacity][head_dim / 2] */
    real_t *x, *h, *q, *k, *v, *att, *gate, *up, *low; /* [rows][...] */
    real_t *picked, *logits, *scores, *scratch;
    size_t low_cols, scores_stride, n_last;
    const bal_decode_row *rows; /* of the running step */
    size_t layer;
};

static size_t round_up(size_t n)
{
    return (n + BAL_KEY_BLOCK - 1) / BAL_KEY_BLOCK * BAL_KEY_BLOCK;
}

size_t bal_decoder_position_bytes(const bal_model *m)
{
    const bal_model_config *c = &m->config;
    return 2 * c->n_layers * c->n_kv_heads * c->head_dim * sizeof(real_t);
}

static size_t widest_lora(const bal_model *m)
{
    size_t widest = 1;
    for (size_t i = 0; i < m->config.n_layers; i++)
        for (bal_slot s = 0; s < BAL_SLOT_COUNT; s++) {
            const bal_lora *l = m->blocks[i].linear[s].lora;
            if (l != NULL && bal_lora_hidden(l) > widest)
                widest = bal_lora_hidden(l);
        }
    if (m->head.lora != NULL && bal_lora_hidden(m->head.lora) > widest)
        widest = bal_lora_hidden(m->head.lora);
    return widest;
}

/* Carves all buffers from the arena (or counts them). */
static bool carve(bal_decoder *d, bal_arena *a)
{
    const bal_model_config *c = &d->m->config;
    size_t rows = d->o.rows, q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim, half = c->head_dim / 2;
    size_t heads = c->n_layers * d->o.slots * c->n_kv_heads, real = sizeof(real_t), widest = c->hidden;
    if (q > widest)
        widest = q;
    if (c->intermediate > widest)
        widest = c->intermediate;
    d->kv_stride = d->o.capacity * c->head_dim;
    d->low_cols = widest_lora(d->m);
    d->scores_stride = d->o.capacity;
    if (d->low_cols > widest)
        widest = d->low_cols;
    struct {
        real_t **at;
        size_t n, size;
    } parts[] = {
        {&d->keys, heads, d->kv_stride * real},
        {&d->values, heads, d->kv_stride * real},
        {&d->cosines, d->o.capacity, (half + 1) * real},
        {&d->sines, d->o.capacity, (half + 1) * real},
        {&d->x, rows, c->hidden * real},
        {&d->h, rows, c->hidden * real},
        {&d->q, rows, q * real},
        {&d->k, rows, kv * real},
        {&d->v, rows, kv * real},
        {&d->att, rows, q * real},
        {&d->gate, rows, c->intermediate * real},
        {&d->up, rows, c->intermediate * real},
        {&d->low, rows > d->o.logits ? rows : d->o.logits, d->low_cols * real},
        {&d->picked, d->o.logits, c->hidden * real},
        {&d->logits, d->o.logits, c->vocab * real},
        {&d->scores, bal_threads_count(), d->scores_stride * real},
        {&d->scratch, bal_rowdot_scratch(widest), real},
    };
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        *parts[i].at = bal_arena_take(a, parts[i].n, parts[i].size);
        if (a->base != NULL && *parts[i].at == NULL)
            return false;
    }
    return true;
}

size_t bal_decoder_bytes(const bal_model *m, const bal_decoder_options *o)
{
    bal_decoder d = {.m = m, .o = *o};
    bal_arena a;
    d.o.capacity = round_up(o->capacity);
    bal_arena_measure(&a);
    (void)carve(&d, &a);
    return a.peak;
}

static bal_status fill_rope(bal_decoder *d)
{
    const bal_model_config *c = &d->m->config;
    size_t half = c->head_dim / 2;
    if (c->rope.kind == BAL_ROPE_NONE)
        return BAL_OK;
    double *frequencies = bal_alloc(half + 1, sizeof *frequencies);
    if (frequencies == NULL)
        return BAL_ENOMEM;
    double scale = bal_rope_frequencies(&c->rope, c->head_dim, 0, d->m->rope_factors, frequencies);
    bal_rope_table(frequencies, half, scale, 0, d->o.capacity, d->cosines, d->sines);
    bal_free(frequencies);
    return BAL_OK;
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
    if (m->config.norm == BAL_NORM_LAYER) {
        status = bal_fail(BAL_EUNSUPPORTED, "generation with a model of type '%s' (LayerNorm) is not supported",
                          m->config.model_type);
        goto out;
    }
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

static void norm(const bal_decoder *d, const real_t *x, const real_t *weight, real_t *out, size_t rows)
{
    const bal_model_config *c = &d->m->config;
    real_t plus = c->norm == BAL_NORM_RMS_PLUS_ONE ? 1 : 0;
    norm_job j = {.x = x, .weight = weight, .out = out, .n = c->hidden, .eps = c->norm_eps, .plus = plus};
    bal_parallel_for(rows, 8, norm_rows, &j);
}

/* y += s (x A^T) B^T, and minus the initial factors of a residual start. */
static void side_path(bal_decoder *d, const bal_lora *l, size_t n, const real_t *x, real_t *y)
{
    size_t r = l->r, ld = bal_lora_hidden(l);
    real_t s = (real_t)l->scale;
    bal_rowdot_job down[2] = {{.w = bal_view_of(l->a, r, l->in), .y = d->low, .ldy = ld}};
    size_t n_down = 1;
    if (l->a0 != NULL)
        down[n_down++] = (bal_rowdot_job){.w = bal_view_of(l->a0, r, l->in), .y = d->low + r, .ldy = ld};
    bal_rowdot(down, n_down, n, x, l->in, d->scratch);
    bal_rowdot_job plus = {.w = bal_view_of(l->b, l->out, r), .y = y, .ldy = l->out, .add = true, .scale = s};
    bal_rowdot(&plus, 1, n, d->low, ld, d->scratch);
    if (l->a0 == NULL)
        return;
    bal_rowdot_job minus = {.w = bal_view_of(l->b0, l->out, r), .y = y, .ldy = l->out, .add = true, .scale = -s};
    bal_rowdot(&minus, 1, n, d->low + r, ld, d->scratch);
}

/* y[i] = the i-th linear of x; they share the input. */
static void linears(bal_decoder *d, const bal_linear *const *l, real_t *const *y, size_t n_linears, const real_t *x,
                    size_t n)
{
    bal_rowdot_job jobs[3] = {{.y = NULL}};
    for (size_t i = 0; i < n_linears; i++)
        jobs[i] = (bal_rowdot_job){.w = l[i]->w, .bias = l[i]->bias, .y = y[i], .ldy = l[i]->w.rows};
    bal_rowdot(jobs, n_linears, n, x, l[0]->w.cols, d->scratch);
    for (size_t i = 0; i < n_linears; i++)
        if (l[i]->lora != NULL)
            side_path(d, l[i]->lora, n, x, y[i]);
}

/* Turns q and k by their positions and stores k and v. */
static void place_rows(void *context, size_t begin, size_t end, size_t thread)
{
    bal_decoder *d = context;
    const bal_model_config *c = &d->m->config;
    size_t hd = c->head_dim, q_cols = c->n_heads * hd, kv_cols = c->n_kv_heads * hd;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        size_t p = d->rows[r].position;
        real_t *q = d->q + r * q_cols, *k = d->k + r * kv_cols;
        const real_t *v = d->v + r * kv_cols;
        if (c->rope.kind != BAL_ROPE_NONE) {
            bal_rope_apply(q, q_cols, 1, c->n_heads, hd, d->cosines, d->sines, &d->rows[r].position, false);
            bal_rope_apply(k, kv_cols, 1, c->n_kv_heads, hd, d->cosines, d->sines, &d->rows[r].position, false);
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
    real_t scale = (real_t)(1 / sqrt((double)hd));
    for (size_t i = begin; i < end; i++) {
        size_t row = i / c->n_kv_heads, head = i % c->n_kv_heads;
        size_t at = cache_at(d, d->layer, d->rows[row].slot, head), n = (size_t)d->rows[row].position + 1;
        for (size_t g = 0; g < group; g++) {
            size_t offset = (row * c->n_heads + head * group + g) * hd;
            ops->attend(d->q + offset, d->keys + at, d->values + at, n, hd, scale,
                        d->scores + thread * d->scores_stride, d->att + offset);
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
    for (size_t i = begin * j->n; i < end * j->n; i++)
        j->gate[i] = activate(j->kind, j->gate[i]) * j->up[i];
}

static void add_into(real_t *x, const real_t *y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += y[i];
}

static void run_block(bal_decoder *d, const bal_block *b, size_t n)
{
    const bal_model_config *c = &d->m->config;
    norm(d, d->x, b->attention_norm, d->h, n);
    linears(d, (const bal_linear *[]){&b->linear[BAL_SLOT_Q], &b->linear[BAL_SLOT_K], &b->linear[BAL_SLOT_V]},
            (real_t *[]){d->q, d->k, d->v}, 3, d->h, n);
    bal_parallel_for(n, 8, place_rows, d);
    bal_parallel_dynamic(n * c->n_kv_heads, 1, attend_items, d);
    linears(d, (const bal_linear *[]){&b->linear[BAL_SLOT_O]}, (real_t *[]){d->h}, 1, d->att, n);
    add_into(d->x, d->h, n * c->hidden);
    norm(d, d->x, b->mlp_norm, d->h, n);
    linears(d, (const bal_linear *[]){&b->linear[BAL_SLOT_GATE], &b->linear[BAL_SLOT_UP]}, (real_t *[]){d->gate, d->up},
            2, d->h, n);
    act_job act = {.gate = d->gate, .up = d->up, .n = c->intermediate, .kind = c->act};
    bal_parallel_for(n, 4, act_rows, &act);
    linears(d, (const bal_linear *[]){&b->linear[BAL_SLOT_DOWN]}, (real_t *[]){d->h}, 1, d->gate, n);
    add_into(d->x, d->h, n * c->hidden);
}

bal_status bal_decoder_step(bal_decoder *d, const bal_decode_row *rows, size_t n)
{
    const bal_model_config *c = &d->m->config;
    d->n_last = 0;
    if (n > d->o.rows)
        return bal_fail(BAL_ELIMIT, "%zu tokens do not fit in a step of %zu", n, d->o.rows);
    for (size_t i = 0; i < n; i++) {
        if (rows[i].token < 0 || (size_t)rows[i].token >= c->vocab)
            return bal_fail(BAL_EFORMAT, "token id %d is outside the model's vocabulary of %zu", (int)rows[i].token,
                            c->vocab);
        if (rows[i].slot >= d->o.slots || rows[i].position >= d->o.capacity)
            return bal_fail(BAL_ELIMIT, "position %u does not fit in a cache of %zu", rows[i].position, d->o.capacity);
        bal_view_dequant(&d->m->embed.w, (size_t)rows[i].token, 1, d->x + i * c->hidden, c->hidden);
    }
    if (c->embed_scale != 1)
        for (size_t i = 0; i < n * c->hidden; i++)
            d->x[i] *= (real_t)c->embed_scale;
    d->rows = rows;
    for (d->layer = 0; d->layer < c->n_layers; d->layer++)
        run_block(d, &d->m->blocks[d->layer], n);
    d->rows = NULL;
    d->n_last = n;
    return BAL_OK;
}

bal_status bal_decoder_logits(bal_decoder *d, const uint32_t *which, size_t n, const real_t **out)
{
    const bal_model_config *c = &d->m->config;
    if (n > d->o.logits)
        return bal_fail(BAL_ELIMIT, "%zu rows of logits do not fit in %zu", n, d->o.logits);
    for (size_t i = 0; i < n; i++) {
        if (which[i] >= d->n_last)
            return bal_fail(BAL_EINVAL, "row %u was not in the last step of %zu", which[i], d->n_last);
        memcpy(d->picked + i * c->hidden, d->x + which[i] * c->hidden, c->hidden * sizeof *d->x);
    }
    norm(d, d->picked, d->m->final_norm, d->picked, n);
    linears(d, (const bal_linear *[]){&d->m->head}, (real_t *[]){d->logits}, 1, d->picked, n);
    for (size_t i = 0; c->logit_softcap != 0 && i < n * c->vocab; i++)
        d->logits[i] = (real_t)(c->logit_softcap * tanh((double)d->logits[i] / c->logit_softcap));
    for (size_t i = 0; i < n; i++) {
        double sum = 0; /* one NaN or infinity makes the sum no number */
        for (size_t k = 0; k < c->vocab; k++)
            sum += (double)d->logits[i * c->vocab + k];
        if (!isfinite(sum))
            return bal_fail(BAL_ENUMERIC, "the model '%s' gives logits that are not finite", d->m->path);
    }
    *out = d->logits;
    return BAL_OK;
}

int32_t bal_logits_best(const real_t *logits, size_t vocab)
{
    real_t max = BAL_ISA_PICK(bal_decode_ops)->max(logits, vocab);
    size_t i = 0;
    while (i + 1 < vocab && !(logits[i] == max))
        i++;
    return (int32_t)i;
}

bal_token_score bal_logits_score(const real_t *logits, size_t vocab, int32_t token)
{
    bal_token_score s = {.best = bal_logits_best(logits, vocab)};
    real_t max = logits[s.best];
    s.log_probability = (double)(logits[token] - max) - log(BAL_ISA_PICK(bal_decode_ops)->sum_exp(logits, vocab, max));
    return s;
}
