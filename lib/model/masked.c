/* Sequences go end to end through one pass until it is full; then the head of the wanted rows:
 *   h = norm(act(T x + t)),  logits = E h + b
 * with E the token table in most files.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/masked.h"

#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/model/batch.h"
#include "lib/model/decode.h"
#include "lib/model/pass.h"
#include "lib/nn/activations.h"
#include "lib/nn/layer_norm.h"
#include "lib/tensor/rowdot.h"

#include <math.h>

enum { USUAL_TOKENS = 1024, MAX_SEQS = 128, LOGITS = 1 << 22, MOST_ROWS = 64 };

struct bal_masked {
    bal_model *m;
    bal_pass *pass;
    bal_batch batch;
    size_t width, rows; /* of the head's input; rows of logits at a time */
    real_t *x, *h, *logits, *scratch, *half;
    double *score; /* [rows] */
};

bal_status bal_masked_new(bal_masked **out, bal_model *m, size_t max_tokens, bal_compute compute)
{
    const bal_model_config *c = &m->config;
    bal_status status = BAL_OK;
    bal_masked *s = NULL;
    *out = NULL;
    if (!c->masked)
        return bal_fail(BAL_EUNSUPPORTED, "'%s' (%s) is not a masked language model", m->path, c->model_type);
    if (max_tokens == 0)
        max_tokens = c->max_positions > USUAL_TOKENS ? c->max_positions : USUAL_TOKENS;
    BAL_TRY(bal_model_need_head(m));
    s = bal_alloc(1, sizeof *s);
    if (s == NULL)
        return BAL_ENOMEM;
    const bal_pass_options o = {
        .max_tokens = max_tokens, .max_seqs = MAX_SEQS, .labelled_rows_only = true, .alike = true, .compute = compute};
    s->m = m;
    s->width = bal_embed_size(c);
    s->rows = LOGITS / c->vocab;
    s->rows = s->rows == 0 ? 1 : s->rows > MOST_ROWS ? MOST_ROWS : s->rows;
    size_t widest = s->width > c->hidden ? s->width : c->hidden;
    BAL_TRY(bal_pass_new(&s->pass, m, &o));
    BAL_TRY(bal_batch_init(&s->batch, max_tokens, MAX_SEQS));
    s->x = bal_alloc(s->rows, c->hidden * sizeof *s->x);
    s->h = bal_alloc(s->rows, s->width * sizeof *s->h);
    s->logits = bal_alloc(s->rows, c->vocab * sizeof *s->logits);
    s->scratch = bal_alloc(bal_rowdot_scratch(widest), sizeof *s->scratch);
    s->half = compute == BAL_COMPUTE_BF16 ? bal_alloc(bal_rowdot_half(s->rows, widest), sizeof *s->half) : NULL;
    s->score = bal_alloc(s->rows, sizeof *s->score);
    if (s->x == NULL || s->h == NULL || s->logits == NULL || s->scratch == NULL || s->score == NULL ||
        (compute == BAL_COMPUTE_BF16 && s->half == NULL)) {
        status = BAL_ENOMEM;
        goto out;
    }
    *out = s;
    s = NULL;
out:
    bal_masked_free(s);
    return status;
}

void bal_masked_free(bal_masked *s)
{
    if (s == NULL)
        return;
    bal_pass_free(s->pass);
    bal_batch_dispose(&s->batch);
    bal_free(s->x);
    bal_free(s->h);
    bal_free(s->logits);
    bal_free(s->scratch);
    bal_free(s->half);
    bal_free(s->score);
    bal_free(s);
}

typedef struct row_job {
    const bal_masked *s;
    const int32_t *target;
} row_job;

static void score_range(void *context, size_t begin, size_t end, size_t thread)
{
    const row_job *j = context;
    size_t V = j->s->m->config.vocab;
    (void)thread;
    for (size_t i = begin; i < end; i++)
        j->s->score[i] = bal_logits_score(j->s->logits + i * V, V, j->target[i]).log_probability;
}

/* Scores of the n <= s->rows rows of the batch from `first` on, into s->score. */
static void score_rows(bal_masked *s, size_t first, size_t n)
{
    const bal_model *m = s->m;
    const bal_model_config *c = &m->config;
    const real_t *final = bal_pass_final(s->pass, BAL_STUDENT);
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < c->hidden; k++)
            s->x[i * c->hidden + k] = final[s->batch.rows[first + i] * c->hidden + k];
    const bal_rowdot_job transform = {.w = m->transform.w, .bias = m->transform.bias, .y = s->h, .ldy = s->width};
    bal_rowdot(&transform, 1, n, s->x, c->hidden, s->scratch, s->half);
    bal_glu_forward(c->head_act, n * s->width, s->h, NULL, s->h);
    bal_layer_norm_forward(n, s->width, s->h, m->transform_norm.w, m->transform_norm.b, c->norm_eps, s->h);
    const bal_rowdot_job head = {.w = m->head.w, .bias = m->head.bias, .y = s->logits, .ldy = c->vocab};
    bal_rowdot(&head, 1, n, s->h, s->width, s->scratch, s->half);
    row_job job = {s, s->batch.target + first};
    bal_parallel_for(n, 1, score_range, &job);
}

/* Runs what the batch holds: one row a sequence, so that the answers come in the order of the questions. */
static bal_status flush(bal_masked *s, double *out)
{
    bal_batch *b = &s->batch;
    bal_status status = BAL_OK;
    bal_batch_finish_masked(b);
    BAL_TRY(bal_pass_forward(s->pass, b, BAL_STUDENT));
    for (size_t first = 0; first < b->n_rows; first += s->rows) {
        size_t n = b->n_rows - first < s->rows ? b->n_rows - first : s->rows;
        score_rows(s, first, n);
        for (size_t i = 0; i < n; i++) {
            out[first + i] = s->score[i];
            if (!isfinite(s->score[i]))
                BAL_TRY(bal_fail(BAL_ENUMERIC, "the model '%s' gives logits that are not finite", s->m->path));
        }
    }
out:
    bal_batch_clear(b);
    return status;
}

static bal_status add(bal_masked *s, const bal_masked_query *q)
{
    const bal_model_config *c = &s->m->config;
    bal_batch *b = &s->batch;
    bal_status status;
    if (q->n > s->batch.max_tokens || q->n > c->max_positions)
        return bal_fail(BAL_ELIMIT, "a text of %zu tokens is longer than the model's context of %zu", q->n,
                        c->max_positions);
    if (q->at >= q->n || q->target < 0 || (size_t)q->target >= c->vocab)
        return bal_fail(BAL_EFORMAT, "token %d at place %zu of %zu is not one of the vocabulary's %zu", q->target,
                        q->at, q->n, c->vocab);
    size_t begin = b->n_tokens;
    BAL_TRY(bal_batch_add(b, q->ids, NULL, q->n));
    if (q->types != NULL)
        bal_batch_types(b, q->types);
    b->tokens[begin + q->at] = q->put;
    b->label[begin + q->at] = q->target;
out:
    return status;
}

/* What is waiting is run when the next sequence of n tokens would not fit. */
static bal_status make_room(bal_masked *s, size_t n, double *out, size_t *done)
{
    const bal_batch *b = &s->batch;
    size_t waiting = b->n_seqs;
    if (waiting == 0 || (waiting < b->max_seqs && n <= b->max_tokens - b->n_tokens))
        return BAL_OK;
    bal_status status = flush(s, out + *done);
    *done += waiting;
    return status;
}

bal_status bal_masked_ask(bal_masked *s, const bal_masked_query *q, size_t n, double *out)
{
    size_t done = 0;
    bal_status status = BAL_OK;
    bal_batch_clear(&s->batch);
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(make_room(s, q[i].n, out, &done));
        BAL_TRY(add(s, &q[i]));
    }
    if (s->batch.n_seqs > 0)
        status = flush(s, out + done);
out:
    return status;
}

bal_status bal_masked_pll(bal_masked *s, const int32_t *ids, const int32_t *types, size_t n, const uint32_t *at,
                          size_t n_at, int32_t mask, double *out)
{
    size_t done = 0;
    bal_status status = BAL_OK;
    bal_batch_clear(&s->batch);
    for (size_t i = 0; i < (at == NULL ? n : n_at); i++) {
        size_t place = at == NULL ? i : at[i];
        const bal_masked_query q = {
            .ids = ids, .types = types, .n = n, .at = place, .put = mask, .target = place < n ? ids[place] : -1};
        BAL_TRY(make_room(s, n, out, &done));
        BAL_TRY(add(s, &q));
    }
    if (s->batch.n_seqs > 0)
        status = flush(s, out + done);
out:
    return status;
}
