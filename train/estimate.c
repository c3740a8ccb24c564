/* Memory that a run will need, told and checked before it starts.  SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/base/clock.h"
#include "lib/base/mem.h"

static double mib(size_t bytes)
{
    return (double)bytes / 1048576.0;
}

/* What the process will hold at its peak: the mapped weights, once all are read; what is allocated by now; the step;
 * the program and its libraries. */
static size_t whole(const trainer *t)
{
    enum { PROGRAM = 32 << 20 };
    const bal_model *m = t->model;
    size_t bytes = t->bytes_needed + (size_t)bal_mem_bytes() + PROGRAM;
    if (m->params.values != NULL) /* trained as a whole: copies, allocated already */
        return bytes;
    if (m->config.tied_head) /* else a few rows of the embedding are read, and the head is among the modules */
        bytes += m->embed.w.rows * m->embed.w.row_bytes;
    for (size_t i = 0; i < m->n_modules; i++)
        if (m->modules[i].w->dtype != m->base.type && /* else packed, and allocated already */
            m->modules[i].kind == BAL_MODULE_LINEAR && !(m->config.tied_head && m->modules[i].is_head))
            bytes += m->modules[i].w->rows * m->modules[i].w->row_bytes;
    return bytes;
}

bal_status train_estimate(trainer *t)
{
    size_t batches = t->n_micro * t->step_config.pass.max_tokens * 5 * sizeof(int32_t);
    size_t step = bal_step_bytes(t->model, t->params, &t->step_config);
    t->bytes_needed = step + batches; /* model, adapter and data are in memory by now */
    t->bytes_whole = whole(t);
    int64_t free_bytes = bal_free_memory_bytes();
    if (!t->config->memory_check || free_bytes < 0 || t->bytes_needed <= (size_t)free_bytes)
        return BAL_OK;
    const char *what = t->micro_size > 1                    ? "a smaller micro_batch_size"
                       : !t->config->checkpoint_activations ? "checkpoint_activations"
                                                            : "a smaller model_max_length";
    return bal_fail(
        BAL_ENOMEM,
        "the step needs %.0f MiB (%zu tokens in a micro-batch of %zu sequences), and %.0f MiB are free; try %s%s",
        mib(t->bytes_needed), t->step_config.pass.max_tokens, t->micro_size, mib((size_t)free_bytes), what,
        t->micro_size > 1 && !t->config->checkpoint_activations ? " or checkpoint_activations" : "");
}
