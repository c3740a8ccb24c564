/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/nn/embedding.h"

#include "lib/base/threads.h"
#include "lib/nn/ops.h"

typedef struct embedding_job {
    const bal_view *table;
    size_t T, D;
    const int32_t *tokens;
    real_t scale, *out;
    const real_t *dout;
    const bal_nn_ops *ops;
} embedding_job;

/* A table of q or k rows never comes here: bal_view_dequant() takes any row of an unpermuted view. */
static void forward_range(void *context, size_t begin, size_t end, size_t thread)
{
    const embedding_job *j = context;
    (void)thread;
    for (size_t t = begin; t < end; t++) {
        real_t *out = j->out + t * j->D;
        bal_view_dequant(j->table, (size_t)j->tokens[t], 1, out, j->D);
        if (j->scale != 1)
            j->ops->scale(out, j->D, j->scale);
    }
}

void bal_embedding_forward(const bal_view *table, size_t T, const int32_t *tokens, real_t scale, real_t *out)
{
    embedding_job job = {.table = table,
                         .T = T,
                         .D = table->cols,
                         .tokens = tokens,
                         .scale = scale,
                         .out = out,
                         .ops = BAL_ISA_PICK(bal_nn_ops)};
    bal_parallel_for(T, 16, forward_range, &job);
}

/* A token may occur many times: columns are shared out, so that each element has one writer. */
static void backward_range(void *context, size_t begin, size_t end, size_t thread)
{
    const embedding_job *j = context;
    (void)thread;
    for (size_t t = 0; t < j->T; t++) {
        real_t *row = j->out + (size_t)j->tokens[t] * j->D;
        const real_t *d = j->dout + t * j->D;
        for (size_t i = begin; i < end; i++)
            row[i] += j->scale * d[i];
    }
}

void bal_embedding_backward(size_t T, size_t D, const int32_t *tokens, real_t scale, const real_t *dout, real_t *dtable)
{
    embedding_job job = {.T = T, .D = D, .tokens = tokens, .scale = scale, .dout = dout, .out = dtable};
    bal_parallel_for(D, 64, backward_range, &job);
}
