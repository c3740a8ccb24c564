/* balora convert: a PiSSA adapter to a plain LoRA of twice the rank.  SPDX-License-Identifier: Apache-2.0 */
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

typedef struct convert_config {
    const char *adapter, *initial_adapter, *model, *to, *out;
    bool overwrite;
} convert_config;

#define FIELD(name) offsetof(convert_config, name)

static const bal_option k_options[] = {
    {.name = "adapter",
     .type = BAL_OPTION_PATH,
     .offset = FIELD(adapter),
     .group = "Input",
     .help = "PEFT folder to convert"},
    {.name = "model",
     .letter = 'm',
     .type = BAL_OPTION_PATH,
     .offset = FIELD(model),
     .group = "Input",
     .help = "base model: folder or GGUF file (names, shapes, and the SVD when the start is not stored)"},
    {.name = "initial_adapter",
     .type = BAL_OPTION_PATH,
     .offset = FIELD(initial_adapter),
     .group = "Input",
     .help = "PEFT folder with PiSSA's initial factors, when the adapter's folder does not hold them"},
    {.name = "to",
     .type = BAL_OPTION_CHOICE,
     .offset = FIELD(to),
     .default_text = "lora",
     .choices = "lora",
     .group = "Output",
     .help = "lora: plain LoRA that peft loads on the original base"},
    {.name = "out",
     .letter = 'o',
     .type = BAL_OPTION_PATH,
     .offset = FIELD(out),
     .group = "Output",
     .help = "folder to write"},
    {.name = "overwrite",
     .type = BAL_OPTION_FLAG,
     .offset = FIELD(overwrite),
     .group = "Output",
     .help = "replace an adapter folder that is there"},
};

static const bal_command k_command = {
    .name = "convert",
    .usage = "--adapter DIR --model PATH --to lora --out DIR",
    .summary = "an adapter in another form: PiSSA to plain LoRA of rank 2r",
    .description =
        "The converted adapter gives the same outputs on the original base model in any program that reads LoRA:\n"
        "A' = [A; A0], B' = [B, -B0], alpha doubled (with rsLoRA: times sqrt 2).\n\n"
        "  balora convert --adapter runs/pissa/pissa --model SmolLM2-135M-Instruct --to lora --out plain",
    .options = k_options,
    .n_options = sizeof k_options / sizeof *k_options,
};

static bal_status report(const bal_options *o, const convert_config *c, const bal_adapter *from, const bal_adapter *to)
{
    if (!bal_options_common(o)->json) {
        printf("%s: LoRA of rank %zu, alpha %g, on %zu modules%s\n", c->out, to->config.r, to->config.lora_alpha,
               to->n_loras, from->initial == NULL ? " (was plain already)" : "");
        return BAL_OK;
    }
    bal_status status = BAL_OK;
    bal_buf b = {0};
    BAL_TRY(bal_buf_text(&b, "{\"out\":"));
    BAL_TRY(bal_json_put_text(&b, c->out));
    BAL_TRY(bal_buf_printf(&b, ",\"r\":%zu,\"lora_alpha\":", to->config.r));
    BAL_TRY(bal_json_put_f64(&b, to->config.lora_alpha));
    BAL_TRY(bal_buf_printf(&b, ",\"modules\":%zu,\"from_r\":%zu,\"residual_start\":%s}", to->n_loras, from->config.r,
                           from->initial != NULL ? "true" : "false"));
    printf("%s\n", bal_buf_cstr(&b));
out:
    bal_buf_dispose(&b);
    return status;
}

static bal_status convert(const bal_options *o, const convert_config *c)
{
    bal_status status = BAL_OK;
    bal_model *model = NULL;
    bal_adapter *from = NULL, *to = NULL;
    bal_out_folder out = {0};
    char note[256] = "";
    if (c->adapter == NULL || c->model == NULL || c->out == NULL)
        return bal_fail(BAL_EINVAL, "%s is needed",
                        c->adapter == NULL ? "--adapter DIR"
                        : c->model == NULL ? "--model PATH"
                                           : "--out DIR");
    BAL_TRY(bal_options_start(o));
    bal_gemm_init();
    BAL_TRY(bal_out_folder_begin(&out, c->out, c->adapter, "adapter_config.json", c->overwrite));
    status = bal_model_load(&model, c->model);
    if (status == BAL_OK)
        status = bal_adapter_load(&from, c->adapter, c->initial_adapter, model->modules, model->n_modules, false, note,
                                  sizeof note);
    if (status == BAL_OK && note[0] != '\0')
        bal_log_line(&bal_options_common(o)->log, BAL_LOG_WARN, "%s", note);
    if (status == BAL_OK)
        status = bal_adapter_to_plain(&to, from);
    if (status == BAL_OK)
        status = bal_adapter_save(to, out.beside);
    status = bal_out_folder_end(&out, status);
    if (status == BAL_OK && from != NULL && to != NULL)
        status = report(o, c, from, to);
out:
    bal_adapter_free(to);
    bal_adapter_free(from);
    bal_model_free(model);
    return status;
}

int cmd_convert(int argc, char **argv)
{
    convert_config config = {0};
    bal_options *o = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&o, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help)
        status = convert(o, &config);
    bal_options_free(o);
    return bal_command_finish(&k_command, status);
}
