/* balora merge: a model with an adapter's update added to its weights.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"

#include "lib/adapter/adapter.h"
#include "lib/base/log.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/options.h"
#include "lib/model/model.h"
#include "lib/tensor/gemm.h"
#include "tools/out_folder.h"

#include <stdio.h>
#include <string.h>

typedef struct merge_config {
    const char *model, *adapter, *initial_adapter, *out, *dtype;
    bool overwrite;
} merge_config;

#define FIELD(name) offsetof(merge_config, name)

static const bal_option k_options[] = {
    {.name = "model",
     .letter = 'm',
     .type = BAL_OPTION_PATH,
     .offset = FIELD(model),
     .group = "Input",
     .help = "base model: folder or GGUF file"},
    {.name = "adapter",
     .type = BAL_OPTION_PATH,
     .offset = FIELD(adapter),
     .group = "Input",
     .help = "PEFT folder to merge"},
    {.name = "initial_adapter",
     .type = BAL_OPTION_PATH,
     .offset = FIELD(initial_adapter),
     .group = "Input",
     .help = "PEFT folder with PiSSA's initial factors, when the adapter's folder does not hold them"},
    {.name = "out",
     .letter = 'o',
     .type = BAL_OPTION_PATH,
     .offset = FIELD(out),
     .group = "Output",
     .help = "folder to write"},
    {.name = "dtype",
     .type = BAL_OPTION_CHOICE,
     .offset = FIELD(dtype),
     .default_text = "f32",
     .choices = "f32|f16|bf16",
     .group = "Output",
     .help = "element type of the merged weights"},
    {.name = "overwrite",
     .type = BAL_OPTION_FLAG,
     .offset = FIELD(overwrite),
     .group = "Output",
     .help = "replace a model folder that is there"},
};

static const bal_command k_command = {
    .name = "merge",
    .usage = "--model PATH --adapter DIR --out DIR [--dtype f32|f16|bf16]",
    .summary = "an adapter merged into its base model, as a Hugging Face folder",
    .description = "Writes config.json, model.safetensors and the tokenizer files of the base; W + s(BA - B0A0) is "
                   "formed in f32.\n"
                   "f16 and bf16 round the sum: a small update can be lost in bf16.\n\n"
                   "  balora merge --model SmolLM2-135M-Instruct --adapter runs/lora --out merged",
    .options = k_options,
    .n_options = sizeof k_options / sizeof *k_options,
};

static bal_dtype dtype_of(const char *name)
{
    return strcmp(name, "f16") == 0 ? BAL_DTYPE_F16 : strcmp(name, "bf16") == 0 ? BAL_DTYPE_BF16 : BAL_DTYPE_F32;
}

static bal_status report(const bal_options *o, const merge_config *c, const bal_adapter *a)
{
    if (!bal_options_common(o)->json) {
        printf("%s: %zu modules merged, written as %s\n", c->out, a->n_loras, c->dtype);
        return BAL_OK;
    }
    bal_status status = BAL_OK;
    bal_buf b = {0};
    BAL_TRY(bal_buf_text(&b, "{\"out\":"));
    BAL_TRY(bal_json_put_text(&b, c->out));
    BAL_TRY(bal_buf_printf(&b, ",\"modules\":%zu,\"dtype\":\"%s\"}", a->n_loras, c->dtype));
    printf("%s\n", bal_buf_cstr(&b));
out:
    bal_buf_dispose(&b);
    return status;
}

static bal_status merge(const bal_options *o, const merge_config *c)
{
    bal_status status = BAL_OK;
    bal_model *model = NULL;
    bal_adapter *a = NULL;
    bal_out_folder out = {0};
    char note[256] = "";
    if (c->model == NULL || c->adapter == NULL || c->out == NULL)
        return bal_fail(BAL_EINVAL, "%s is needed",
                        c->model == NULL     ? "--model PATH"
                        : c->adapter == NULL ? "--adapter DIR"
                                             : "--out DIR");
    BAL_TRY(bal_options_start(o));
    bal_gemm_init();
    BAL_TRY(bal_out_folder_begin(&out, c->out, c->model, "config.json", c->overwrite));
    status = bal_model_load(&model, c->model);
    if (status == BAL_OK)
        status = bal_adapter_load(&a, c->adapter, c->initial_adapter, model->modules, model->n_modules, false, note,
                                  sizeof note);
    if (status == BAL_OK && note[0] != '\0')
        bal_log_line(&bal_options_common(o)->log, BAL_LOG_WARN, "%s", note);
    if (status == BAL_OK)
        status = bal_model_attach(model, a);
    if (status == BAL_OK)
        status = bal_model_save(model, out.beside, dtype_of(c->dtype));
    status = bal_out_folder_end(&out, status);
    if (status == BAL_OK && a != NULL)
        status = report(o, c, a);
out:
    bal_model_free(model);
    bal_adapter_free(a);
    return status;
}

int cmd_merge(int argc, char **argv)
{
    merge_config config = {0};
    bal_options *o = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&o, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help)
        status = merge(o, &config);
    bal_options_free(o);
    return bal_command_finish(&k_command, status);
}
