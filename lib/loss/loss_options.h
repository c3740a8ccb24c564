/* The loss options that `forward` and `train` share: rows for their option tables, presets, and the way from texts to
 * a bal_loss_config.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_LOSS_LOSS_OPTIONS_H
#define BAL_LOSS_LOSS_OPTIONS_H

#include "lib/io/options.h"
#include "lib/loss/lm_loss.h"

/* A member of a command's config struct. */
typedef struct bal_loss_options {
    double lambda_consistency, lambda_diversity, lambda_svd, temperature;
    int64_t top_k_entropy, svd_top_k;
    const char *consistency, *svd_norm, *svd_solver, *compat;
} bal_loss_options;

#define BAL_LOSS_FIELD(base, name) ((base) + offsetof(bal_loss_options, name))
/* Rows of a bal_option table; base: offsetof(config, the bal_loss_options member). */
#define BAL_LOSS_OPTION_ROWS(base)                                                                                     \
    {.name = "lambda_consistency",                                                                                     \
     .type = BAL_OPTION_REAL,                                                                                          \
     .offset = BAL_LOSS_FIELD(base, lambda_consistency),                                                               \
     .default_text = "0",                                                                                              \
     .min = 0,                                                                                                         \
     .max = 1e6,                                                                                                       \
     .aliases = "lambda1|lambda_1",                                                                                    \
     .group = "Loss",                                                                                                  \
     .help = "weight of the consistency term (KL to the frozen model); 0: off"},                                       \
        {.name = "lambda_diversity",                                                                                   \
         .type = BAL_OPTION_REAL,                                                                                      \
         .offset = BAL_LOSS_FIELD(base, lambda_diversity),                                                             \
         .default_text = "0",                                                                                          \
         .min = 0,                                                                                                     \
         .max = 1e6,                                                                                                   \
         .aliases = "lambda2|lambda_2",                                                                                \
         .group = "Loss",                                                                                              \
         .help = "weight of the diversity term (minus entropy over the top K); 0: off"},                               \
        {.name = "lambda_svd",                                                                                         \
         .type = BAL_OPTION_REAL,                                                                                      \
         .offset = BAL_LOSS_FIELD(base, lambda_svd),                                                                   \
         .default_text = "0",                                                                                          \
         .min = 0,                                                                                                     \
         .max = 1e6,                                                                                                   \
         .aliases = "lambda3|lambda_3|lambda_spectral",                                                                \
         .group = "Loss",                                                                                              \
         .help = "weight of the spectral term (minus leading singular values over the norm); 0: off"},                 \
        {.name = "temperature",                                                                                        \
         .type = BAL_OPTION_REAL,                                                                                      \
         .offset = BAL_LOSS_FIELD(base, temperature),                                                                  \
         .default_text = "2",                                                                                          \
         .min = 1e-3,                                                                                                  \
         .max = 1e3,                                                                                                   \
         .aliases = "distill_temp",                                                                                    \
         .group = "Loss",                                                                                              \
         .help = "temperature T of the consistency term"},                                                             \
        {.name = "top_k_entropy",                                                                                      \
         .type = BAL_OPTION_INT,                                                                                       \
         .offset = BAL_LOSS_FIELD(base, top_k_entropy),                                                                \
         .default_text = "20",                                                                                         \
         .min = 0,                                                                                                     \
         .max = 1e9,                                                                                                   \
         .group = "Loss",                                                                                              \
         .help = "logits K of a row in the diversity term; 0: the whole vocabulary"},                                  \
        {.name = "svd_top_k",                                                                                          \
         .type = BAL_OPTION_INT,                                                                                       \
         .offset = BAL_LOSS_FIELD(base, svd_top_k),                                                                    \
         .default_text = "10",                                                                                         \
         .min = 1,                                                                                                     \
         .max = 1e6,                                                                                                   \
         .aliases = "svd_k",                                                                                           \
         .group = "Loss",                                                                                              \
         .help = "singular values k of the spectral term"},                                                            \
        {.name = "svd_norm",                                                                                           \
         .type = BAL_OPTION_CHOICE,                                                                                    \
         .offset = BAL_LOSS_FIELD(base, svd_norm),                                                                     \
         .default_text = "frobenius",                                                                                  \
         .choices = "frobenius|nuclear",                                                                               \
         .group = "Loss",                                                                                              \
         .help = "what the singular values are divided by"},                                                           \
        {.name = "svd_solver",                                                                                         \
         .type = BAL_OPTION_CHOICE,                                                                                    \
         .offset = BAL_LOSS_FIELD(base, svd_solver),                                                                   \
         .default_text = "auto",                                                                                       \
         .choices = "auto|gram|logits|randomised",                                                                     \
         .group = "Loss",                                                                                              \
         .help = "auto is exact; randomised exists for comparison"},                                                   \
        {.name = "consistency",                                                                                        \
         .type = BAL_OPTION_CHOICE,                                                                                    \
         .offset = BAL_LOSS_FIELD(base, consistency),                                                                  \
         .default_text = "kl",                                                                                         \
         .choices = "kl|normalized_mse",                                                                               \
         .group = "Loss",                                                                                              \
         .help = "form of the consistency term"},                                                                      \
    {                                                                                                                  \
        .name = "compat", .type = BAL_OPTION_CHOICE, .offset = BAL_LOSS_FIELD(base, compat), .default_text = "none",   \
        .choices = "none|llm172", .group = "Loss",                                                                     \
        .help = "llm172: the official code's unshifted mask, micro-batch means and Frobenius norm"                     \
    }

/* The loss part of the presets, without braces, to be put into a preset's JSON object. */
#define BAL_LOSS_PRESET_NLG                                                                                            \
    "\"lambda_consistency\":0.025,\"lambda_diversity\":0.005,\"lambda_svd\":0.005,\"temperature\":2,"                  \
    "\"top_k_entropy\":20,\"svd_top_k\":10,\"svd_norm\":\"frobenius\",\"consistency\":\"kl\""
#define BAL_LOSS_PRESET_BIAS_AWARE_2024                                                                                \
    "\"lambda_consistency\":1e-4,\"lambda_diversity\":3e-4,\"lambda_svd\":1e-4,\"top_k_entropy\":0,\"svd_top_k\":3,"   \
    "\"svd_norm\":\"nuclear\",\"consistency\":\"normalized_mse\""
#define BAL_LOSS_PRESET_OFF "\"lambda_consistency\":0,\"lambda_diversity\":0,\"lambda_svd\":0"

/* The config that the options say; *llm172 (may be NULL) tells whether the official code's mask and means are wanted. */
void bal_loss_options_resolve(const bal_loss_options *o, bal_loss_config *out, bool *llm172);

#endif
