/* Where `merge` and `convert` write a model: a Hugging Face folder, or a GGUF file by its name.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TOOLS_WRITE_MODEL_H
#define BAL_TOOLS_WRITE_MODEL_H

#include "lib/base/log.h"
#include "lib/io/options.h"
#include "lib/model/model.h"
#include "lib/tensor/quantize.h"
#include "tools/out_folder.h"

#include <stdbool.h>
#include <stdint.h>

/* Rows of an option table; CONFIG has the members dtype, shard_mib and overwrite. */
#define WRITE_MODEL_OPTIONS(CONFIG)                                                                                    \
    {.name = "dtype",                                                                                                  \
     .type = BAL_OPTION_CHOICE,                                                                                        \
     .offset = offsetof(CONFIG, dtype),                                                                                \
     .default_text = "auto",                                                                                           \
     .choices = "auto|f32|f16|bf16|q8_0|q4_0|q4_1|q4_k|q6_k",                                                          \
     .group = "Output",                                                                                                \
     .help = "type of the weights; auto: the model's own (f32 of a quantised one); q...: GGUF files only"},            \
        {.name = "max_shard_mib",                                                                                      \
         .type = BAL_OPTION_INT,                                                                                       \
         .offset = offsetof(CONFIG, shard_mib),                                                                        \
         .default_text = "4768",                                                                                       \
         .min = 1,                                                                                                     \
         .max = 1048576,                                                                                               \
         .group = "Output",                                                                                            \
         .help = "a folder's weights are cut into files of at most this size (4768 MiB: 5 GB)"},                       \
    {                                                                                                                  \
        .name = "overwrite", .type = BAL_OPTION_FLAG, .offset = offsetof(CONFIG, overwrite), .group = "Output",        \
        .help = "replace a model or adapter that is there"                                                             \
    }

typedef struct write_model_target {
    bal_out_folder folder;
    const char *file; /* a GGUF file, else NULL */
    bal_quant quant;
    bool keep; /* --dtype auto */
    uint64_t shard_bytes;
    const char *dtype; /* what was written, for the report ("f32") */
} write_model_target;

/* Checks the target before anything is read: BAL_EINVAL when it is there and not to be replaced, or is the input. */
bal_status write_model_begin(write_model_target *t, const char *out, const char *input, const char *dtype,
                             int64_t shard_mib, bool overwrite);
bal_status write_model(write_model_target *t, const bal_model *m, const bal_log *log);
/* Moves the folder into place when status is BAL_OK, else removes it; returns the final status. */
bal_status write_model_end(write_model_target *t, bal_status status);
/* The same check for any file that is written whole. */
bal_status write_file_check(const char *out, const char *input, bool overwrite);

#endif
