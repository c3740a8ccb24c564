/* The end of a decoding step: final norm, head, and what the logits say.  Texts are scored with a running log-sum-exp over
 * pieces of the vocabulary, with m the largest so far and s the sum of e^(z - m):
 *   m' = max(m, max z),  s' = s e^(m - m') + sum e^(z - m')
 * The pieces are the same for every row, so that a row's score has the same bits however it is made.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/threads.h"
#include "lib/model/decode_impl.h"
#include "lib/tensor/rowdot.h"

#include <math.h>
#include <string.h>

static bal_status check_wanted(const bal_decoder *d, size_t first, size_t n)
{
    if (first > d->n_want || n > d->n_want - first)
        return bal_fail(BAL_EINVAL, "rows %zu to %zu were not among the %zu wanted of the last step", first, first + n,
                        d->n_want);
    return BAL_OK;
}

static bal_status not_finite(const bal_decoder *d)
{
    return bal_fail(BAL_ENUMERIC, "the model '%s' gives logits that are not finite", d->m->path);
}

/* rows final norms into out. */
static void final_rows(const bal_decoder *d, size_t first, size_t n, real_t *out)
{
    size_t width = d->m->config.hidden;
    const real_t *x = d->x + first * width;
    if (d->m->final_norm.w != NULL)
        bal_decoder_norm(d, x, &d->m->final_norm, out, n, width);
    else
        memcpy(out, x, n * width * sizeof *x);
}

/* Caps the logits of a row, if the model does; false if one is no number. */
static bool cap_row(double cap, real_t *z, size_t n)
{
    for (size_t i = 0; cap != 0 && i < n; i++)
        z[i] = (real_t)(cap * tanh((double)z[i] / cap));
    return BAL_ISA_PICK(bal_decode_ops)->all_finite(z, n);
}

typedef struct rows_job {
    real_t *z;
    size_t n, v0; /* vocabulary entries v0 .. v0 + n - 1 */
    double cap;
    const int32_t *token;
    bal_token_score *score;
    bal_running_score *rows;
} rows_job;

static void cap_range(void *context, size_t begin, size_t end, size_t thread)
{
    const rows_job *j = context;
    (void)thread;
    for (size_t r = begin; r < end; r++)
        j->rows[r].finite = cap_row(j->cap, j->z + r * j->n, j->n);
}

bal_status bal_decoder_logits(bal_decoder *d, size_t first, size_t n, const real_t **out)
{
    const bal_model_config *c = &d->m->config;
    bal_status status = check_wanted(d, first, n);
    if (status != BAL_OK)
        return status;
    if (n > d->o.logits)
        return bal_fail(BAL_ELIMIT, "%zu rows of logits do not fit in %zu", n, d->o.logits);
    final_rows(d, first, n, d->picked);
    bal_decoder_linears(d, (const bal_linear *[]){&d->m->head}, (real_t *[]){d->logits}, 1, d->picked, n);
    rows_job job = {.z = d->logits, .n = c->vocab, .cap = c->logit_softcap, .rows = d->running};
    bal_parallel_for(n, 1, cap_range, &job);
    for (size_t i = 0; i < n; i++)
        if (!d->running[i].finite)
            return not_finite(d);
    *out = d->logits;
    return BAL_OK;
}

/* r becomes that of the entries before v0 and of z[0 .. n), which come next. */
static void add_piece(bal_running_score *r, const real_t *z, size_t v0, size_t n, int32_t token)
{
    const bal_decode_ops *ops = BAL_ISA_PICK(bal_decode_ops);
    real_t max = ops->max(z, n);
    if (v0 == 0 || max > r->max) {
        r->sum = v0 == 0 ? 0 : r->sum * exp((double)r->max - (double)max);
        r->max = max;
        r->best = (int32_t)v0 + bal_logits_best(z, n);
    }
    r->sum += ops->sum_exp(z, n, r->max);
    if (token >= 0 && (size_t)token >= v0 && (size_t)token < v0 + n)
        r->target = z[(size_t)token - v0];
}

static void piece_range(void *context, size_t begin, size_t end, size_t thread)
{
    const rows_job *j = context;
    (void)thread;
    for (size_t r = begin; r < end; r++) {
        real_t *z = j->z + r * j->n;
        bool finite = cap_row(j->cap, z, j->n);
        j->rows[r].finite = finite && (j->v0 == 0 || j->rows[r].finite);
        if (finite)
            add_piece(&j->rows[r], z, j->v0, j->n, j->token[r]);
    }
}

static bal_token_score score_of(const bal_running_score *r)
{
    return (bal_token_score){.log_probability = (double)(r->target - r->max) - log(r->sum), .best = r->best};
}

bal_status bal_decoder_scores(bal_decoder *d, size_t first, size_t n, const int32_t *token, bal_token_score *out)
{
    const bal_model_config *c = &d->m->config;
    const bal_linear *head = &d->m->head;
    bal_status status = check_wanted(d, first, n);
    if (status != BAL_OK)
        return status;
    if (head->site != NULL) { /* its outputs are not made in pieces */
        for (size_t i = 0; i < n; i++) {
            const real_t *logits = NULL;
            status = bal_decoder_logits(d, first + i, 1, &logits);
            if (status != BAL_OK)
                return status;
            out[i] = bal_logits_score(logits, c->vocab, token[i]);
        }
        return BAL_OK;
    }
    final_rows(d, first, n, d->h);
    for (size_t v0 = 0; v0 < c->vocab; v0 += BAL_SCORE_PIECE) {
        size_t part = c->vocab - v0 < BAL_SCORE_PIECE ? c->vocab - v0 : BAL_SCORE_PIECE;
        bal_rowdot_job product = {.w = bal_view_rows(&head->w, v0, part),
                                  .bias = head->bias == NULL ? NULL : head->bias + v0,
                                  .y = d->logits,
                                  .ldy = part};
        bal_rowdot(&product, 1, n, d->h, c->hidden, d->scratch, d->half);
        rows_job job = {
            .z = d->logits, .n = part, .v0 = v0, .cap = c->logit_softcap, .token = token, .rows = d->running};
        bal_parallel_for(n, 1, piece_range, &job);
    }
    for (size_t i = 0; i < n; i++) {
        if (!d->running[i].finite)
            return not_finite(d);
        out[i] = score_of(&d->running[i]);
    }
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

static bal_running_score whole_row(const real_t *logits, size_t vocab, int32_t token)
{
    bal_running_score r = {.target = logits[0]};
    for (size_t v0 = 0; v0 < vocab; v0 += BAL_SCORE_PIECE)
        add_piece(&r, logits + v0, v0, vocab - v0 < BAL_SCORE_PIECE ? vocab - v0 : BAL_SCORE_PIECE, token);
    return r;
}

bal_token_score bal_logits_score(const real_t *logits, size_t vocab, int32_t token)
{
    bal_running_score r = whole_row(logits, vocab, token);
    return score_of(&r);
}

void bal_logits_top(const real_t *logits, size_t vocab, size_t k, int32_t *ids, double *log_probabilities)
{
    const bal_running_score r = whole_row(logits, vocab, -1);
    double log_sum = log(r.sum);
    size_t n = 0;
    for (size_t v = 0; k > 0 && v < vocab; v++) {
        if (n == k && !(logits[v] > logits[ids[n - 1]]))
            continue;
        size_t at = n < k ? n++ : n - 1;
        for (; at > 0 && logits[v] > logits[ids[at - 1]]; at--)
            ids[at] = ids[at - 1];
        ids[at] = (int32_t)v;
    }
    for (size_t i = 0; i < n; i++)
        log_probabilities[i] = (double)(logits[ids[i]] - r.max) - log_sum;
}
