/* What a batch begins with: rows of the token table, learned positions, token types; of an encoder also the norm of their
 * sum and its projection.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/pass_impl.h"
#include "lib/nn/embedding.h"
#include "lib/nn/rows.h"

/* The row of the learned positions of each token of a sequence. */
static void place_sequence(const bal_pass *p, const bal_batch *b, size_t begin, size_t end)
{
    const bal_model_config *m = &p->m->config;
    int32_t next = (int32_t)m->position_offset;
    for (size_t t = begin; t < end; t++)
        p->position[t] = m->skip_pad && b->tokens[t] == m->pad ? m->pad : next++;
}

void bal_pass_place_learned(bal_pass *p, const bal_batch *b)
{
    for (size_t s = 0; s < b->n_seqs && p->position != NULL; s++)
        place_sequence(p, b, b->seq_start[s], b->seq_start[s + 1]);
}

bal_status bal_pass_check_types(const bal_pass *p, const bal_batch *b)
{
    const bal_model_config *m = &p->m->config;
    size_t rows = m->type_rows == 0 ? 1 : m->type_rows; /* without types every token is of type 0 */
    for (size_t t = 0; t < b->n_tokens && m->masked; t++)
        if (b->type[t] < 0 || (size_t)b->type[t] >= rows)
            return bal_fail(BAL_EFORMAT, "token type %d at position %zu of the batch is not below %zu", b->type[t], t,
                            rows);
    return BAL_OK;
}

/* The adapter of the embedding on the rows x of the tokens, or its gradients from dx. */
static void adapt(const bal_pass *p, const bal_batch *b, real_t *x, const real_t *dx)
{
    const bal_site *s = p->m->embed.site;
    const bal_site_call c = {.site = s,
                             .w = &p->m->embed.w,
                             .M = p->T,
                             .y = x,
                             .dy = dx,
                             .ldy = p->m->config.hidden,
                             .scratch = p->site_scratch};
    if (dx == NULL)
        s->method->embed(&c, b->tokens, (real_t)p->m->config.embed_scale);
    else
        s->method->embed_back(&c, b->tokens, (real_t)p->m->config.embed_scale);
}

static const bal_view *table_of(const bal_linear *l, bool adapted)
{
    return adapted ? &l->w : bal_linear_own_w(l);
}

static void add_rows(const bal_pass *p, const bal_view *table, const int32_t *rows, real_t *x)
{
    bal_embedding_forward(table, p->T, rows, 1, p->normed);
    bal_pass_add(p->T * table->cols, p->normed, x);
}

void bal_pass_embed(bal_pass *p, const bal_batch *b, bool adapted, real_t *x)
{
    const bal_model *m = p->m;
    real_t *sum = p->narrow != NULL ? p->narrow : x;
    bal_embedding_forward(table_of(&m->embed, adapted), p->T, b->tokens, (real_t)m->config.embed_scale, sum);
    if (adapted && m->embed.site != NULL)
        adapt(p, b, sum, NULL);
    if (p->position != NULL)
        add_rows(p, table_of(&m->positions, adapted), p->position, sum);
    if (m->config.type_rows != 0)
        add_rows(p, table_of(&m->types, adapted), b->type, sum);
    if (m->embed_norm.w != NULL)
        bal_pass_norm(p, &m->embed_norm, adapted, p->T, bal_embed_size(&m->config), sum, sum);
    if (p->narrow != NULL)
        bal_pass_product(p, &m->project, p->T, sum, 0, x);
}

void bal_pass_embed_back(bal_pass *p, const bal_batch *b)
{
    bal_model *m = p->m;
    if (m->embed.site != NULL && bal_site_trains(m->embed.site))
        adapt(p, b, NULL, p->back.dx);
    if (m->positions.dw != NULL)
        bal_embedding_backward(p->T, m->config.hidden, p->position, 1, p->back.dx, m->positions.dw);
    if (m->embed.dw != NULL)
        bal_embedding_backward(p->T, m->config.hidden, b->tokens, (real_t)m->config.embed_scale, p->back.dx,
                               m->embed.dw);
}
