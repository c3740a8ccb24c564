/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/pass.h"

#include "lib/base/threads.h"
#include "lib/model/pass_impl.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/rowdot.h"

#include <math.h>
#include <string.h>

static real_t *take(bal_arena *a, size_t rows, size_t cols)
{
    return bal_arena_take(a, rows * cols, sizeof(real_t));
}

static size_t adapter_width(const bal_model *m, size_t layer, size_t slot)
{
    const bal_site *site = m->blocks[layer].linear[slot].site;
    return site == NULL ? 0 : bal_site_hidden(site);
}

static bal_site_needs needs_of(const bal_model *m, size_t max_tokens)
{
    bal_site_needs n = {0};
    for (size_t i = 0; i < m->config.n_layers; i++)
        for (size_t slot = 0; slot < BAL_SLOT_COUNT; slot++) {
            const bal_site *s = m->blocks[i].linear[slot].site;
            if (s == NULL)
                continue;
            size_t scratch = bal_site_scratch(s, max_tokens) + (s->method->dense ? s->out * s->in : 0);
            size_t prepare = s->method->prepare_scratch != NULL ? s->method->prepare_scratch(s) : 0;
            bool output = !s->method->additive && !s->method->dense;
            scratch = prepare > scratch ? prepare : scratch;
            n.scratch = scratch > n.scratch ? scratch : n.scratch;
            n.output = output && s->out > n.output ? s->out : n.output;
            n.input = n.input || s->method->input != NULL;
        }
    if (m->embed.site != NULL) {
        const bal_site *s = m->embed.site;
        size_t scratch = bal_site_scratch(s, max_tokens);
        size_t prepare = s->method->prepare_scratch != NULL ? s->method->prepare_scratch(s) : 0;
        scratch = prepare > scratch ? prepare : scratch;
        n.scratch = scratch > n.scratch ? scratch : n.scratch;
    }
    return n;
}

/* All but x of a cache; widths: of the adapters' inner values. */
static void carve_cache(bal_block_cache *c, bal_arena *a, const bal_model *model, size_t T,
                        const size_t widths[BAL_SLOT_COUNT])
{
    const bal_model_config *m = &model->config;
    const bal_block *b = &model->blocks[0]; /* all blocks have the same parts */
    c->q = take(a, T, m->n_heads * m->head_dim);
    c->k = take(a, T, m->n_kv_heads * m->head_dim);
    c->v = take(a, T, m->n_kv_heads * m->head_dim);
    c->o = take(a, T, m->n_heads * m->head_dim);
    c->lse = take(a, T, m->n_heads);
    c->middle = take(a, T, m->hidden);
    if (b->norm[BAL_NORM_Q].w != NULL)
        c->q_raw = take(a, T, m->n_heads * m->head_dim);
    if (b->norm[BAL_NORM_K].w != NULL)
        c->k_raw = take(a, T, m->n_kv_heads * m->head_dim);
    if (b->norm[BAL_NORM_ATTENTION_OUT].w != NULL)
        c->attention_raw = take(a, T, m->hidden);
    if (b->norm[BAL_NORM_MLP_OUT].w != NULL)
        c->mlp_raw = take(a, T, m->hidden);
    c->gate = take(a, T, m->intermediate);
    if (bal_linear_there(&b->linear[BAL_SLOT_GATE]))
        c->up = take(a, T, m->intermediate);
    for (size_t s = 0; s < BAL_SLOT_COUNT; s++) {
        c->h_width[s] = widths[s];
        c->h[s] = take(a, T, widths[s]);
    }
}

/* The widest of all layers, for buffers that serve any of them. */
static void widest_adapters(const bal_model *m, size_t widths[BAL_SLOT_COUNT])
{
    for (size_t s = 0; s < BAL_SLOT_COUNT; s++) {
        widths[s] = 0;
        for (size_t i = 0; i < m->config.n_layers; i++) {
            size_t w = adapter_width(m, i, s);
            widths[s] = w > widths[s] ? w : widths[s];
        }
    }
}

static void carve_kept(bal_pass *p, bal_arena *a, size_t T)
{
    const bal_model *m = p->m;
    p->kept = bal_arena_take(a, m->config.n_layers, sizeof *p->kept);
    for (size_t i = 0; i < m->config.n_layers; i++) {
        bal_block_cache c = {0};
        size_t widths[BAL_SLOT_COUNT];
        for (size_t s = 0; s < BAL_SLOT_COUNT; s++)
            widths[s] = adapter_width(m, i, s);
        c.x = take(a, T, m->config.hidden);
        if (!p->options.checkpoint_activations)
            carve_cache(&c, a, m, T, widths);
        if (p->kept != NULL)
            p->kept[i] = c;
    }
    p->last = take(a, T, m->config.hidden);
}

static void carve_work(bal_pass *p, bal_arena *a, size_t T, const size_t widths[BAL_SLOT_COUNT])
{
    carve_cache(&p->work, a, p->m, T, widths);
    p->stream[0] = take(a, T, p->m->config.hidden);
    p->stream[1] = take(a, T, p->m->config.hidden);
}

static size_t widest_input(const bal_model_config *m)
{
    size_t attention = m->n_heads * m->head_dim, widest = m->hidden > m->intermediate ? m->hidden : m->intermediate;
    return attention > widest ? attention : widest;
}

static void carve_back(bal_pass *p, bal_arena *a, size_t T)
{
    const bal_model_config *m = &p->m->config;
    const bal_block *b = &p->m->blocks[0];
    bal_block_scratch *s = &p->back;
    s->dx = take(a, T, m->hidden);
    s->dnormed = take(a, T, m->hidden);
    s->dq = take(a, T, m->n_heads * m->head_dim);
    s->dk = take(a, T, m->n_kv_heads * m->head_dim);
    s->dv = take(a, T, m->n_kv_heads * m->head_dim);
    s->dattention = take(a, T, m->n_heads * m->head_dim);
    s->dact = take(a, T, widest_input(m));
    s->dgate = take(a, T, m->intermediate);
    s->delta = take(a, T, m->n_heads);
    s->moments = take(a, T, m->n_heads > 2 ? m->n_heads : 2);
    if (b->norm[BAL_NORM_Q].w != NULL)
        s->dq_raw = take(a, T, m->n_heads * m->head_dim);
    if (b->norm[BAL_NORM_K].w != NULL)
        s->dk_raw = take(a, T, m->n_kv_heads * m->head_dim);
    if (b->norm[BAL_NORM_ATTENTION_OUT].w != NULL || b->norm[BAL_NORM_MLP_OUT].w != NULL || m->parallel)
        s->dbranch = take(a, T, m->hidden);
}

static size_t widest_panel(const bal_model *m, const bal_pass_options *o)
{
    size_t widest = 0;
    for (size_t i = 0; i < m->config.n_layers; i++) {
        for (size_t s = 0; s < BAL_SLOT_COUNT; s++) {
            const bal_linear *l = &m->blocks[i].linear[s];
            size_t n = bal_linear_panel_size(l, o),
                   own = bal_panel_size(o->compute, bal_linear_own_w(l), o->max_tokens);
            n = bal_linear_there(l) && own > n ? own : n;
            widest = n > widest ? n : widest;
        }
    }
    return widest;
}

/* Rows of the widest matrix that stands for several. */
static size_t widest_fused(const bal_model *m)
{
    const bal_linear *l = m->blocks[0].linear;
    size_t qkv = bal_linear_there(&l[BAL_SLOT_K]) ? 0 : l[BAL_SLOT_Q].w.rows;
    size_t gate_up = bal_linear_there(&l[BAL_SLOT_UP]) ? 0 : l[BAL_SLOT_GATE].w.rows;
    return qkv > gate_up ? qkv : gate_up;
}

static void carve_rope(bal_pass *p, bal_arena *a)
{
    const bal_model_config *m = &p->m->config;
    size_t rows = p->options.max_seq_len, half = m->rotary_dim / 2;
    if (m->rope.kind == BAL_ROPE_NONE)
        return;
    if (bal_rope_by_length(&m->rope)) /* long sequences have tables of their own, behind the common one */
        rows += p->options.max_tokens;
    for (size_t i = 0; i < (m->local_rope.kind != BAL_ROPE_NONE ? 2 : 1); i++) {
        p->cosines[i] = take(a, rows, half);
        p->sines[i] = take(a, rows, half);
    }
    p->rope_row = bal_arena_take(a, p->options.max_tokens, sizeof *p->rope_row);
    p->frequencies = bal_arena_take(a, half, sizeof *p->frequencies);
}

/* Run on a measuring arena to learn the size, then on the real one. */
static void carve(bal_pass *p, bal_arena *a)
{
    const bal_pass_options *o = &p->options;
    const bal_model_config *m = &p->m->config;
    size_t T = o->max_tokens, widths[BAL_SLOT_COUNT];
    widest_adapters(p->m, widths);
    p->needs = needs_of(p->m, T);
    for (size_t role = 0; role < (o->teacher ? 2 : 1); role++)
        p->final[role] = take(a, T, m->hidden);
    p->normed = take(a, T, m->narrow > m->hidden ? m->narrow : m->hidden);
    if (m->narrow != 0)
        p->narrow = take(a, T, m->narrow);
    p->act = take(a, T, widest_input(m)); /* of a narrow block also its gathered inputs */
    p->fused = take(a, T, widest_fused(p->m));
    if (m->position_rows != 0)
        p->position = bal_arena_take(a, T, sizeof *p->position);
    p->panel_elements = widest_panel(p->m, o);
    if (m->narrow != 0) {
        size_t n = bal_panel_size(o->compute, &p->m->project.w, T);
        p->panel_elements = n > p->panel_elements ? n : p->panel_elements;
    }
    if (o->alike) {
        size_t widest = m->narrow > widest_input(m) ? m->narrow : widest_input(m);
        p->row_scratch = take(a, bal_rowdot_scratch(widest), 1);
        if (o->compute == BAL_COMPUTE_BF16)
            p->half = take(a, bal_rowdot_half(T, widest), 1);
    }
    p->panel = take(a, p->panel_elements, 1);
    carve_rope(p, a);
    p->blocks = bal_arena_take(a, bal_attention_max_blocks(T, o->max_seqs), sizeof *p->blocks);
    if (o->labelled_rows_only) {
        p->query_blocks = bal_arena_take(a, bal_attention_max_blocks(T, o->max_seqs), sizeof *p->query_blocks);
        p->want = bal_arena_take(a, T, sizeof *p->want);
    }
    p->attention.scratch = take(a, bal_threads_count(), bal_attention_scratch());
    bool changed_input = o->dropout > 0 || p->needs.input;
    if (changed_input)
        p->dropped = take(a, T, widest_input(m));
    p->alone = take(a, T, p->needs.output);
    p->site_scratch = take(a, p->needs.scratch, 1);
    if (!o->backward) {
        carve_work(p, a, T, widths);
        return;
    }
    carve_kept(p, a, T);
    p->dfinal = take(a, T, m->hidden);
    if (changed_input)
        p->ddropped = take(a, T, widest_input(m));
    size_t mark = a->used, used = mark;
    if (o->teacher || o->checkpoint_activations)
        carve_work(p, a, T, widths);
    if (!o->checkpoint_activations) { /* the teacher's forward and the student's backward never overlap in time */
        used = a->used;
        a->used = mark;
    }
    carve_back(p, a, T);
    if (a->used < used)
        a->used = used;
}

static bal_pass_options complete(const bal_pass_options *o)
{
    bal_pass_options c = *o;
    if (c.max_seq_len == 0 || c.max_seq_len > c.max_tokens)
        c.max_seq_len = c.max_tokens;
    if (c.max_seqs == 0)
        c.max_seqs = 1;
    return c;
}

static size_t arena_bytes(const bal_model *m, const bal_pass_options *o)
{
    bal_pass p = {.options = complete(o)};
    bal_arena a;
    union { /* carving does not write to the model */
        const bal_model *in;
        bal_model *out;
    } model = {m};
    p.m = model.out;
    bal_arena_measure(&a);
    carve(&p, &a);
    return a.peak;
}

size_t bal_pass_bytes(const bal_model *m, const bal_pass_options *o)
{
    return sizeof(bal_pass) + arena_bytes(m, o);
}

bal_status bal_pass_new(bal_pass **out, bal_model *m, const bal_pass_options *o)
{
    bal_status status;
    *out = NULL;
    if (o->max_tokens == 0 || o->max_tokens > UINT32_MAX / 2 || !(o->dropout >= 0 && o->dropout < 1))
        return bal_fail(BAL_EINVAL, "a pass of %zu tokens with dropout %g is not possible", o->max_tokens, o->dropout);
    if (m->config.masked && o->backward)
        return bal_fail(BAL_EUNSUPPORTED, "gradients of an encoder ('%s') are not computed", m->path);
    bal_pass *p = bal_alloc(1, sizeof *p);
    if (p == NULL)
        return BAL_ENOMEM;
    p->m = m;
    p->options = complete(o);
    bal_rng_init(&p->rng, o->seed, "dropout");
    BAL_TRY(bal_arena_init(&p->arena, arena_bytes(m, o)));
    carve(p, &p->arena);
    p->attention.n_heads = m->config.n_heads;
    p->attention.n_kv_heads = m->config.n_kv_heads;
    p->attention.d = m->config.head_dim;
    p->attention.scale = m->config.attention_scale;
    p->attention.softcap = m->config.attention_softcap;
    p->attention.blocks = p->blocks;
    p->attention.both_ways = m->config.masked;
    for (size_t i = 0; i < 2 && p->cosines[i] != NULL; i++) {
        const bal_rope_config *rope = i == 0 ? &m->config.rope : &m->config.local_rope;
        double scale =
            bal_rope_frequencies(rope, m->config.rotary_dim, 0, i == 0 ? m->rope_factors : NULL, p->frequencies);
        bal_rope_table(p->frequencies, m->config.rotary_dim / 2, scale, 0, p->options.max_seq_len, p->cosines[i],
                       p->sines[i]);
    }
    *out = p;
    p = NULL;
out:
    bal_pass_free(p);
    return status;
}

void bal_pass_free(bal_pass *p)
{
    if (p == NULL)
        return;
    bal_arena_dispose(&p->arena);
    bal_free(p);
}

void bal_pass_watch(bal_pass *p, bal_hidden_fn *fn, void *context)
{
    p->watch = fn;
    p->watch_context = context;
}

void bal_pass_watch_inputs(bal_pass *p, bal_input_fn *fn, void *context)
{
    p->input_watch = fn;
    p->input_watch_context = context;
}

static void watch(const bal_pass *p, size_t layer, const real_t *x)
{
    if (p->watch != NULL)
        p->watch(p->watch_context, layer, x, p->T);
}

bool bal_pass_can_share(const bal_pass *p)
{
    const bal_model_config *m = &p->m->config;
    return p->options.dropout <= 0 && m->window == 0 && m->rope.kind != BAL_ROPE_NONE && !bal_rope_by_length(&m->rope);
}

static bal_status check_batch(const bal_pass *p, const bal_batch *b)
{
    const bal_pass_options *o = &p->options;
    if (b->n_tokens == 0 || b->n_tokens > o->max_tokens || b->n_seqs > o->max_seqs)
        return bal_fail(BAL_ELIMIT, "a batch of %zu tokens in %zu sequences does not fit the pass, made for %zu in %zu",
                        b->n_tokens, b->n_seqs, o->max_tokens, o->max_seqs);
    for (size_t s = 0; s < b->n_seqs; s++)
        if (b->n_shared + b->seq_start[s + 1] - b->seq_start[s] > o->max_seq_len)
            return bal_fail(BAL_ELIMIT, "sequence %zu has %zu tokens; the pass was made for %zu", s,
                            b->n_shared + b->seq_start[s + 1] - b->seq_start[s], o->max_seq_len);
    for (size_t s = 0; s < b->n_seqs && p->m->config.position_rows != 0; s++)
        if (b->seq_start[s + 1] - b->seq_start[s] + p->m->config.position_offset > p->m->config.position_rows)
            return bal_fail(BAL_ELIMIT, "sequence %zu has %u tokens; the model has learned %zu positions", s,
                            b->seq_start[s + 1] - b->seq_start[s],
                            p->m->config.position_rows - p->m->config.position_offset);
    if (b->n_shared != 0 && !bal_pass_can_share(p))
        return bal_fail(BAL_EINVAL, "this model cannot compute a shared beginning of %zu tokens once", b->n_shared);
    for (size_t t = 0; t < b->n_tokens; t++)
        if (b->tokens[t] < 0 || (size_t)b->tokens[t] >= p->m->config.vocab)
            return bal_fail(BAL_EFORMAT,
                            "token id %d at position %zu of the batch is not below the vocabulary's size %zu",
                            b->tokens[t], t, p->m->config.vocab);
    return bal_pass_check_types(p, b);
}

/* The adapters must be those that the buffers were made for. */
static bal_status check_adapters(const bal_pass *p)
{
    const bal_site_needs now = needs_of(p->m, p->options.max_tokens);
    if ((now.input && !p->needs.input) || now.output > p->needs.output || now.scratch > p->needs.scratch)
        return bal_fail(BAL_EINVAL, "the model has an adapter of another kind than the pass was made for");
    for (size_t i = 0; i < p->m->config.n_layers; i++) {
        const bal_block_cache *c = p->options.backward && !p->options.checkpoint_activations ? &p->kept[i] : &p->work;
        for (size_t s = 0; s < BAL_SLOT_COUNT; s++)
            if (adapter_width(p->m, i, s) > c->h_width[s])
                return bal_fail(BAL_EINVAL, "module '%s' has an adapter of rank %zu, but the pass was made for %zu",
                                p->m->blocks[i].linear[s].name, adapter_width(p->m, i, s), c->h_width[s]);
    }
    return BAL_OK;
}

/* Which row of the rotary table each token uses; long sequences may have rows of their own. */
static void place_tokens(bal_pass *p, const bal_batch *b)
{
    const bal_model_config *m = &p->m->config;
    size_t half = m->rotary_dim / 2;
    p->attention.n_blocks = bal_attention_split(b->seq_start, b->n_seqs, p->blocks);
    p->attention.shared = b->n_shared;
    bal_pass_choose_rows(p, b);
    bal_pass_place_learned(p, b);
    if (m->rope.kind == BAL_ROPE_NONE)
        return;
    for (size_t i = 0; i < b->n_shared; i++)
        p->rope_row[i] = (uint32_t)i;
    for (size_t s = 0; s < b->n_seqs; s++) {
        size_t begin = b->seq_start[s], n = b->seq_start[s + 1] - begin, row = b->n_shared;
        if (bal_rope_by_length(&m->rope) && (double)n > m->rope.original_max_positions) {
            row = p->options.max_seq_len + begin;
            double scale = bal_rope_frequencies(&m->rope, m->rotary_dim, n, p->m->rope_factors, p->frequencies);
            bal_rope_table(p->frequencies, half, scale, 0, n, p->cosines[0] + row * half, p->sines[0] + row * half);
        }
        for (size_t i = 0; i < n; i++)
            p->rope_row[begin + i] = (uint32_t)(row + i);
    }
}

/* What the methods derive from their parameters, which may have changed since the last forward. */
static void prepare_adapters(const bal_pass *p)
{
    for (size_t i = 0; i < p->m->config.n_layers; i++)
        for (size_t slot = 0; slot < BAL_SLOT_COUNT; slot++) {
            const bal_linear *l = &p->m->blocks[i].linear[slot];
            if (l->site != NULL && l->site->method->prepare != NULL)
                l->site->method->prepare(l->site, &l->w, p->site_scratch);
        }
    const bal_site *s = p->m->embed.site;
    if (s != NULL && s->method->prepare != NULL)
        s->method->prepare(s, &p->m->embed.w, p->site_scratch);
}

static void final_norm(const bal_pass *p, bool adapted, const real_t *x, real_t *y)
{
    size_t rows = p->n_want != 0 ? p->n_want : p->T, D = p->m->config.hidden;
    if (p->m->final_norm.w != NULL)
        bal_pass_norm(p, &p->m->final_norm, adapted, rows, D, x, y);
    else
        memcpy(y, x, rows * D * sizeof *y);
    if (p->n_want != 0)
        bal_pass_spread(p, p->T, y, D);
}

/* p->back.dx: the gradient of the last block's output (of the wanted rows alone, when there are such). */
static void final_norm_back(bal_pass *p)
{
    size_t rows = p->n_want != 0 ? p->n_want : p->T, D = p->m->config.hidden;
    const real_t *dfinal = p->dfinal;
    if (p->n_want != 0) {
        bal_pass_gather(p, p->dfinal, D, p->normed);
        dfinal = p->normed;
    }
    if (p->m->final_norm.w != NULL) {
        memset(p->back.dx, 0, rows * D * sizeof *p->back.dx);
        bal_pass_norm_back(p, &p->m->final_norm, rows, D, p->last, dfinal, p->back.dx);
    } else {
        memcpy(p->back.dx, dfinal, rows * D * sizeof *p->back.dx);
    }
}

bal_status bal_pass_forward(bal_pass *p, const bal_batch *b, bal_role role)
{
    const bal_model_config *m = &p->m->config;
    bool student = role == BAL_STUDENT, keep = student && p->options.backward;
    bool whole = keep && !p->options.checkpoint_activations;
    bal_status status = check_batch(p, b);
    if (status == BAL_OK && student)
        status = check_adapters(p);
    if (status != BAL_OK)
        return status;
    if (!student && !p->options.teacher)
        return bal_fail(BAL_EINVAL, "the pass was made without a teacher");
    p->T = b->n_tokens;
    place_tokens(p, b);
    if (student) {
        prepare_adapters(p);
        p->dropout_key = bal_rng_next(&p->rng);
        p->forward_tokens = keep ? p->T : 0;
    }
    real_t *x = keep ? p->kept[0].x : p->stream[0];
    bal_pass_embed(p, b, student, x);
    watch(p, 0, x);
    for (size_t i = 0; i < m->n_layers; i++) {
        bal_block_cache *c = whole ? &p->kept[i] : &p->work;
        real_t *next = p->stream[(i + 1) % 2];
        if (keep)
            next = i + 1 < m->n_layers ? p->kept[i + 1].x : p->last;
        c->x = x;
        bal_block_forward(p, i, c, student, next);
        x = next;
        watch(p, i + 1, x);
    }
    final_norm(p, student, x, p->final[role]);
    return BAL_OK;
}

real_t *bal_pass_final(bal_pass *p, bal_role role)
{
    return p->final[role];
}

real_t *bal_pass_dfinal(bal_pass *p)
{
    return p->dfinal;
}

void bal_pass_clear_dfinal(bal_pass *p, size_t n_tokens)
{
    memset(p->dfinal, 0, n_tokens * p->m->config.hidden * sizeof *p->dfinal);
}

static bool layer_trains(const bal_block *b)
{
    for (size_t n = 0; n < BAL_NORM_PLACES; n++)
        if (bal_norm_trains(&b->norm[n]))
            return true;
    for (size_t s = 0; s < BAL_SLOT_COUNT; s++) {
        const bal_linear *l = &b->linear[s];
        if (l->dw != NULL || l->dbias != NULL || (l->site != NULL && bal_site_trains(l->site)))
            return true;
    }
    return false;
}

bal_status bal_pass_backward(bal_pass *p, const bal_batch *b)
{
    const bal_model_config *m = &p->m->config;
    size_t lowest = 0;
    bool adapted = p->m->embed.site != NULL && bal_site_trains(p->m->embed.site);
    bool embedding = adapted || p->m->embed.dw != NULL || p->m->positions.dw != NULL;
    if (!p->options.backward || p->forward_tokens == 0 || p->forward_tokens != b->n_tokens)
        return bal_fail(BAL_EINVAL, "a backward pass needs the student's forward pass of the same batch before it");
    p->T = b->n_tokens;
    place_tokens(p, b);
    while (!embedding && lowest < m->n_layers && !layer_trains(&p->m->blocks[lowest]))
        lowest++; /* nothing below this layer wants a gradient */
    final_norm_back(p);
    for (size_t i = m->n_layers; i-- > lowest;) {
        bal_block_cache *c = &p->kept[i];
        if (p->options.checkpoint_activations) {
            p->work.x = c->x;
            c = &p->work;
            bal_block_forward(p, i, c, true, p->stream[0]);
        }
        bal_block_backward(p, i, c, embedding || i > lowest);
    }
    bal_pass_embed_back(p, b);
    p->forward_tokens = 0;
    return BAL_OK;
}

bal_rng *bal_pass_rng(bal_pass *p)
{
    return &p->rng;
}
