/* The rows of a batch whose final rows are wanted.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/pass_impl.h"

#include <string.h>

bool bal_pass_narrows(const bal_pass *p, size_t layer)
{
    return p->n_want != 0 && layer + 1 == p->m->config.n_layers;
}

/* The two ascending lists become one. */
static size_t merge(const bal_batch *b, uint32_t *out)
{
    size_t n = 0, i = 0, j = 0;
    while (i < b->n_rows || j < b->n_reg_rows) {
        uint32_t row = i < b->n_rows ? b->rows[i] : b->reg_rows[j];
        if (j < b->n_reg_rows && b->reg_rows[j] < row)
            row = b->reg_rows[j];
        i += i < b->n_rows && b->rows[i] == row;
        j += j < b->n_reg_rows && b->reg_rows[j] == row;
        out[n++] = row;
    }
    return n;
}

void bal_pass_choose_rows(bal_pass *p, const bal_batch *b)
{
    size_t at = 0;
    p->n_want = 0;
    p->attention.queries = NULL;
    if (!p->options.labelled_rows_only || p->options.dropout > 0 || p->watch != NULL || p->m->config.parallel)
        return;
    size_t n = merge(b, p->want);
    if (n == b->n_tokens)
        return;
    p->n_want = n;
    p->attention.n_queries = 0;
    for (size_t i = 0; i < p->attention.n_blocks; i++) {
        const bal_attention_block *block = &p->blocks[i];
        while (at < n && p->want[at] < block->first)
            at++;
        if (at < n && p->want[at] < block->first + block->count)
            p->query_blocks[p->attention.n_queries++] = *block;
    }
}

void bal_pass_gather(const bal_pass *p, const real_t *x, size_t width, real_t *to)
{
    for (size_t i = 0; i < p->n_want; i++) /* want[i] >= i: a row is read before its place is written */
        memmove(to + i * width, x + (size_t)p->want[i] * width, width * sizeof *x);
}

void bal_pass_spread(const bal_pass *p, size_t T, real_t *x, size_t width)
{
    size_t end = T; /* rows from here on are in place */
    for (size_t i = p->n_want; i-- > 0;) {
        size_t row = p->want[i];
        memmove(x + row * width, x + i * width, width * sizeof *x);
        memset(x + (row + 1) * width, 0, (end - row - 1) * width * sizeof *x);
        end = row;
    }
    memset(x, 0, end * width * sizeof *x);
}

void bal_pass_add_rows(const bal_pass *p, const real_t *rows, size_t width, real_t *x)
{
    for (size_t i = 0; i < p->n_want; i++)
        for (size_t k = 0; k < width; k++)
            x[(size_t)p->want[i] * width + k] += rows[i * width + k];
}
