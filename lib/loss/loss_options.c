/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/loss/loss_options.h"

#include <string.h>

static bool is(const char *text, const char *want)
{
    return text != NULL && strcmp(text, want) == 0;
}

void bal_loss_options_resolve(const bal_loss_options *o, bal_loss_config *out, bool *llm172)
{
    bool official = is(o->compat, "llm172");
    *out = (bal_loss_config){.lambda_consistency = o->lambda_consistency,
                             .lambda_diversity = o->lambda_diversity,
                             .lambda_svd = o->lambda_svd,
                             .temperature = o->temperature,
                             .top_k_entropy = (size_t)o->top_k_entropy,
                             .svd_top_k = (size_t)o->svd_top_k};
    out->consistency = is(o->consistency, "normalized_mse") ? BAL_CONSISTENCY_NORMALIZED_MSE : BAL_CONSISTENCY_KL;
    /* the official code ignores its own flag for vocabularies above 4096 and takes the Frobenius norm */
    out->svd_norm = is(o->svd_norm, "nuclear") && !official ? BAL_SVD_NUCLEAR : BAL_SVD_FROBENIUS;
    out->svd_solver = is(o->svd_solver, "gram")         ? BAL_SVD_GRAM
                      : is(o->svd_solver, "logits")     ? BAL_SVD_LOGITS
                      : is(o->svd_solver, "randomised") ? BAL_SVD_RANDOMISED
                                                        : BAL_SVD_AUTO;
    if (llm172 != NULL)
        *llm172 = official;
}
