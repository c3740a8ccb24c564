/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/batch.h"

#include "lib/base/mem.h"

#include <string.h>

bal_status bal_batch_init(bal_batch *b, size_t max_tokens, size_t max_seqs)
{
    *b = (bal_batch){0};
    if (max_tokens > UINT32_MAX - 1 || max_seqs > UINT32_MAX - 1)
        return bal_fail(BAL_ELIMIT, "a batch of %zu tokens in %zu sequences is too large", max_tokens, max_seqs);
    b->tokens = bal_alloc(max_tokens, sizeof *b->tokens);
    b->type = bal_alloc(max_tokens, sizeof *b->type);
    b->label = bal_alloc(max_tokens, sizeof *b->label);
    b->seq_start = bal_alloc(max_seqs + 1, sizeof *b->seq_start);
    b->rows = bal_alloc(max_tokens, sizeof *b->rows);
    b->target = bal_alloc(max_tokens, sizeof *b->target);
    b->reg_rows = bal_alloc(max_tokens, sizeof *b->reg_rows);
    if (b->tokens == NULL || b->type == NULL || b->label == NULL || b->seq_start == NULL || b->rows == NULL ||
        b->target == NULL || b->reg_rows == NULL) {
        bal_batch_dispose(b);
        return BAL_ENOMEM;
    }
    b->max_tokens = max_tokens;
    b->max_seqs = max_seqs;
    return BAL_OK;
}

void bal_batch_dispose(bal_batch *b)
{
    bal_free(b->tokens);
    bal_free(b->type);
    bal_free(b->label);
    bal_free(b->seq_start);
    bal_free(b->rows);
    bal_free(b->target);
    bal_free(b->reg_rows);
    *b = (bal_batch){0};
}

void bal_batch_clear(bal_batch *b)
{
    b->n_tokens = b->n_seqs = b->n_rows = b->n_reg_rows = b->n_shared = 0;
    b->seq_start[0] = 0;
}

bal_status bal_batch_add(bal_batch *b, const int32_t *ids, const int32_t *labels, size_t n)
{
    if (n == 0)
        return bal_fail(BAL_EFORMAT, "a sequence without tokens cannot be put into a batch");
    if (b->n_seqs >= b->max_seqs || n > b->max_tokens - b->n_tokens)
        return bal_fail(BAL_ELIMIT,
                        "a sequence of %zu tokens does not fit: the batch holds %zu of %zu tokens in %zu of "
                        "%zu sequences",
                        n, b->n_tokens, b->max_tokens, b->n_seqs, b->max_seqs);
    memcpy(b->tokens + b->n_tokens, ids, n * sizeof *ids);
    memset(b->type + b->n_tokens, 0, n * sizeof *b->type);
    for (size_t i = 0; i < n; i++)
        b->label[b->n_tokens + i] = labels == NULL ? BAL_LABEL_NONE : labels[i];
    b->n_tokens += n;
    b->seq_start[++b->n_seqs] = (uint32_t)b->n_tokens;
    return BAL_OK;
}

void bal_batch_types(bal_batch *b, const int32_t *types)
{
    size_t begin = b->seq_start[b->n_seqs - 1];
    memcpy(b->type + begin, types, (b->n_tokens - begin) * sizeof *types);
}

void bal_batch_finish_masked(bal_batch *b)
{
    b->n_rows = b->n_reg_rows = 0;
    for (uint32_t t = 0; t < b->n_tokens; t++) {
        if (b->label[t] == BAL_LABEL_NONE)
            continue;
        b->rows[b->n_rows] = t;
        b->target[b->n_rows++] = b->label[t];
    }
}

void bal_batch_finish(bal_batch *b, bool unshifted_regularisers)
{
    b->n_rows = b->n_reg_rows = 0;
    for (size_t s = 0; s < b->n_seqs; s++) {
        for (uint32_t t = b->seq_start[s]; t < b->seq_start[s + 1]; t++) {
            bool predicts = t + 1 < b->seq_start[s + 1] && b->label[t + 1] != BAL_LABEL_NONE;
            if (predicts) {
                b->rows[b->n_rows] = t;
                b->target[b->n_rows++] = b->label[t + 1];
            }
            if (unshifted_regularisers ? b->label[t] != BAL_LABEL_NONE : predicts)
                b->reg_rows[b->n_reg_rows++] = t;
        }
    }
}

/* How many tokens all sequences begin with and no row of them predicts a label. */
static size_t common_beginning(const bal_batch *b)
{
    size_t common = SIZE_MAX;
    for (size_t s = 0; s < b->n_seqs; s++) {
        size_t begin = b->seq_start[s], n = b->seq_start[s + 1] - begin, same = 0;
        while (same + 1 < n && same < common && b->tokens[begin + same] == b->tokens[same] &&
               b->label[begin + same] == BAL_LABEL_NONE && b->label[begin + same + 1] == BAL_LABEL_NONE)
            same++;
        common = same < common ? same : common;
    }
    return common;
}

void bal_batch_share(bal_batch *b, size_t least)
{
    if (b->n_seqs < 2 || b->n_shared != 0)
        return;
    size_t n = common_beginning(b);
    if (n < least || n == 0)
        return;
    size_t to = b->seq_start[1];
    for (size_t s = 1; s < b->n_seqs; s++) {
        size_t from = b->seq_start[s] + n, own = b->seq_start[s + 1] - from;
        memmove(b->tokens + to, b->tokens + from, own * sizeof *b->tokens);
        memmove(b->type + to, b->type + from, own * sizeof *b->type);
        memmove(b->label + to, b->label + from, own * sizeof *b->label);
        b->seq_start[s] = (uint32_t)to;
        to += own;
    }
    b->seq_start[0] = (uint32_t)n;
    b->seq_start[b->n_seqs] = (uint32_t)to;
    b->n_tokens = to;
    b->n_shared = n;
}

size_t bal_batch_text_tokens(const bal_batch *b)
{
    return b->n_tokens + (b->n_seqs > 1 ? (b->n_seqs - 1) * b->n_shared : 0);
}
