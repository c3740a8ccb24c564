/* Memory that a run will need, told and checked before it starts.  SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/base/clock.h"

static double mib(size_t bytes)
{
    return (double)bytes / 1048576.0;
}

bal_status train_estimate(trainer *t)
{
    size_t batches = t->n_micro * t->step_config.pass.max_tokens * 5 * sizeof(int32_t);
    size_t step = bal_step_bytes(t->model, t->params, &t->step_config);
    t->bytes_needed = step + batches; /* model, adapter and data are in memory by now */
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
