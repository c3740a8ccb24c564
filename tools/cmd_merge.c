/* balora merge: a model with an adapter's update added to its weights.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"

#include "lib/adapter/adapter.h"
#include "lib/base/log.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/options.h"
#include "lib/model/model.h"
#include "lib/tensor/gemm.h"
#include "tools/write_model.h"

#include <stdio.h>

typedef struct merge_config {
    const char *model, *adapter, *initial_adapter, *out, *dtype;
    int64_t shard_mib;
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
     .help = "folder to write, or a file whose name ends in .gguf"},
    WRITE_MODEL_OPTIONS(merge_config),
};

static const bal_command k_command = {
    .name = "merge",
    .usage = "--model PATH --adapter DIR --out DIR|FILE.gguf [--dtype TYPE]",
    .summary = "an adapter merged into its base model, as a Hugging Face folder or a GGUF file",
    .description = "Writes config.json, safetensors and the tokenizer files of the base, or one GGUF file; "
                   "W + s(BA - B0A0) is formed in f32.\n"
                   "f16 and bf16 round the sum: a small update can be lost in bf16, and more so in the block types.\n\n"
                   "  balora merge --model SmolLM2-135M-Instruct --adapter runs/lora --out merged\n"
                   "  balora merge --model SmolLM2-135M-Instruct --adapter runs/lora --out merged.gguf --dtype q8_0",
    .options = k_options,
    .n_options = sizeof k_options / sizeof *k_options,
};

static bal_status report(const bal_options *o, const merge_config *c, const bal_adapter *a, const char *dtype)
{
    if (!bal_options_common(o)->json) {
        printf("%s: %zu modules merged, written as %s\n", c->out, a->n_loras, dtype);
        return BAL_OK;
    }
    bal_status status = BAL_OK;
    bal_buf b = {0};
    BAL_TRY(bal_buf_text(&b, "{\"out\":"));
    BAL_TRY(bal_json_put_text(&b, c->out));
    BAL_TRY(bal_buf_printf(&b, ",\"modules\":%zu,\"dtype\":\"%s\"}", a->n_loras, dtype));
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
    write_model_target out = {0};
    char note[256] = "";
    if (c->model == NULL || c->adapter == NULL || c->out == NULL)
        return bal_fail(BAL_EINVAL, "%s is needed",
                        c->model == NULL     ? "--model PATH"
                        : c->adapter == NULL ? "--adapter DIR"
                                             : "--out DIR");
    BAL_TRY(bal_options_start(o));
    bal_gemm_init();
    BAL_TRY(write_model_begin(&out, c->out, c->model, c->dtype, c->shard_mib, c->overwrite));
    status = bal_model_load(&model, c->model);
    if (status == BAL_OK)
        status = bal_adapter_load(&a, c->adapter, c->initial_adapter, model->modules, model->n_modules, false, note,
                                  sizeof note);
    if (status == BAL_OK && note[0] != '\0')
        bal_log_line(&bal_options_common(o)->log, BAL_LOG_WARN, "%s", note);
    if (status == BAL_OK)
        status = bal_model_attach(model, a);
    if (status == BAL_OK)
        status = write_model(&out, model, &bal_options_common(o)->log);
    status = write_model_end(&out, status);
    if (status == BAL_OK && a != NULL)
        status = report(o, c, a, out.dtype);
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
