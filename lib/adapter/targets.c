/* Which modules a method adapts when none are named, by Hugging Face model_type: peft's defaults, and for bottleneck
 * adapters the modules that end attention and MLP.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"

#include <string.h>

static const struct {
    const char *model_type;
    const char *of[BAL_TARGETS_COUNT]; /* names of peft, comma between; phi3, which peft has not, as its likes */
    const char *feedforward;           /* of the (IA)^3 ones, those whose inputs are scaled */
} k_defaults[] = {
    {"llama",
     {"all-linear", "q_proj,v_proj", "q_proj,v_proj", "k_proj,v_proj,down_proj", "o_proj,down_proj", "down_proj"},
     "down_proj"},
    {"mistral",
     {"all-linear", "q_proj,v_proj", "q_proj,v_proj", "k_proj,v_proj,down_proj", "o_proj,down_proj", "down_proj"},
     "down_proj"},
    {"qwen2",
     {"all-linear", "q_proj,v_proj", "q_proj,v_proj", "q_proj,v_proj,down_proj", "o_proj,down_proj", "down_proj"},
     "down_proj"},
    {"qwen3",
     {"all-linear", "q_proj,v_proj", "q_proj,v_proj", "q_proj,v_proj,down_proj", "o_proj,down_proj", "down_proj"},
     "down_proj"},
    {"gemma",
     {"all-linear", "q_proj,v_proj", "q_proj,v_proj", "q_proj,v_proj,down_proj", "o_proj,down_proj", "down_proj"},
     "down_proj"},
    {"gemma2",
     {"all-linear", "q_proj,v_proj", "q_proj,v_proj", "q_proj,v_proj,down_proj", "o_proj,down_proj", "down_proj"},
     "down_proj"},
    {"gemma3_text",
     {"all-linear", "q_proj,v_proj", "q_proj,v_proj", "q_proj,v_proj,down_proj", "o_proj,down_proj", "down_proj"},
     "down_proj"},
    {"phi3",
     {"all-linear", "qkv_proj", "qkv_proj", "qkv_proj,down_proj", "o_proj,down_proj", "down_proj"},
     "down_proj"},
    {"gpt2",
     {"all-linear", "c_attn", "c_attn", "c_attn,mlp.c_proj", "attn.c_proj,mlp.c_proj", "mlp.c_proj"},
     "mlp.c_proj"},
    {"opt",
     {"all-linear", "q_proj,v_proj", "q_proj,k_proj,v_proj,out_proj,fc1,fc2", "q_proj,k_proj,fc2", "out_proj,fc2",
      "fc2"},
     "fc2"},
};

static size_t row_of(const char *model_type)
{
    size_t i = 0, n = sizeof k_defaults / sizeof *k_defaults;
    while (i < n && strcmp(k_defaults[i].model_type, model_type) != 0)
        i++;
    return i;
}

const char *bal_method_targets(const bal_method *m, const char *model_type)
{
    size_t i = row_of(model_type);
    if (m->targets == BAL_TARGETS_ALL)
        return "all-linear";
    return i < sizeof k_defaults / sizeof *k_defaults ? k_defaults[i].of[m->targets] : NULL;
}

const char *bal_feedforward_modules(const char *model_type)
{
    size_t i = row_of(model_type);
    return i < sizeof k_defaults / sizeof *k_defaults ? k_defaults[i].feedforward : NULL;
}
