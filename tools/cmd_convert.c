/* balora convert: adapters and models in another form.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"

#include "lib/adapter/adapter.h"
#include "lib/adapter/method.h"
#include "lib/base/log.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/options.h"
#include "lib/model/model.h"
#include "lib/model/save_gguf.h"
#include "lib/tensor/gemm.h"
#include "tools/write_model.h"

#include <stdio.h>
#include <string.h>

typedef struct convert_config {
    const char *adapter, *initial_adapter, *model, *to, *out, *dtype;
    int64_t shard_mib;
    bool overwrite;
} convert_config;

#define FIELD(name) offsetof(convert_config, name)

static const bal_option k_options[] = {
    {.name = "adapter",
     .type = BAL_OPTION_PATH,
     .offset = FIELD(adapter),
     .group = "Input",
     .help = "PEFT folder to convert; without it the model itself is converted"},
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
     .choices = "lora|gguf|hf",
     .group = "Output",
     .help = "lora: plain LoRA that peft loads on the original base (of PiSSA and its like, of AdaLoRA); gguf: an "
             "adapter or model file for llama.cpp; "
             "hf: the model as a Hugging Face folder"},
    {.name = "out",
     .letter = 'o',
     .type = BAL_OPTION_PATH,
     .offset = FIELD(out),
     .group = "Output",
     .help = "folder to write; for gguf a file"},
    WRITE_MODEL_OPTIONS(convert_config),
};

static const bal_command k_command = {
    .name = "convert",
    .usage = "[--adapter DIR] --model PATH --to lora|gguf|hf --out PATH",
    .summary = "PiSSA to plain LoRA of rank 2r, an adapter to GGUF, a model between GGUF and Hugging Face",
    .description =
        "The converted adapter gives the same outputs on the original base model in any program that reads LoRA:\n"
        "A' = [A; A0], B' = [B, -B0], alpha doubled (with rsLoRA: times sqrt 2).\n\n"
        "  balora convert --adapter runs/pissa/pissa --model SmolLM2-135M-Instruct --to lora --out plain\n"
        "  balora convert --adapter runs/lora --model SmolLM2-135M-Instruct --to gguf --out lora.gguf\n"
        "  balora convert --model SmolLM2.gguf --to hf --out SmolLM2\n"
        "  balora convert --model SmolLM2 --to gguf --dtype q4_0 --out SmolLM2.gguf",
    .options = k_options,
    .n_options = sizeof k_options / sizeof *k_options,
};

static bal_status report(const bal_options *o, const convert_config *c, const bal_adapter *from, const bal_adapter *to)
{
    if (!bal_options_common(o)->json) {
        printf("%s: LoRA of rank %zu, alpha %g, on %zu modules%s\n", c->out, to->config.r, to->config.lora_alpha,
               to->n_loras,
               bal_method_of(&from->config) != bal_method_of(&to->config) ? " (of another method before)"
               : from->initial == NULL                                    ? " (was plain already)"
                                                                          : "");
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

/* One line, or one JSON object, for what was written besides a plain LoRA. */
static bal_status report_file(const bal_options *o, const convert_config *c, const char *what, size_t n,
                              const char *dtype)
{
    bal_status status = BAL_OK;
    bal_buf b = {0};
    if (!bal_options_common(o)->json) {
        printf("%s: %s of %zu modules, written as %s\n", c->out, what, n, dtype);
        return BAL_OK;
    }
    BAL_TRY(bal_buf_text(&b, "{\"out\":"));
    BAL_TRY(bal_json_put_text(&b, c->out));
    BAL_TRY(bal_buf_printf(&b, ",\"kind\":\"%s\",\"modules\":%zu,\"dtype\":\"%s\"}", what, n, dtype));
    printf("%s\n", bal_buf_cstr(&b));
out:
    bal_buf_dispose(&b);
    return status;
}

static bal_status load(const bal_options *o, const convert_config *c, bal_model **model, bal_adapter **from)
{
    char note[256] = "";
    bal_status status = bal_model_load(model, c->model);
    if (status == BAL_OK && c->adapter != NULL)
        status = bal_adapter_load(from, c->adapter, c->initial_adapter, (*model)->modules, (*model)->n_modules, false,
                                  note, sizeof note);
    if (status == BAL_OK && note[0] != '\0')
        bal_log_line(&bal_options_common(o)->log, BAL_LOG_WARN, "%s", note);
    return status;
}

static bal_status convert_lora(const bal_options *o, const convert_config *c)
{
    bal_model *model = NULL;
    bal_adapter *from = NULL, *to = NULL;
    bal_out_folder out = {0};
    bal_status status = bal_out_folder_begin(&out, c->out, c->adapter, "adapter_config.json", c->overwrite);
    if (status != BAL_OK)
        return status;
    status = load(o, c, &model, &from);
    if (status == BAL_OK)
        status = bal_adapter_to_plain(&to, from);
    if (status == BAL_OK)
        status = bal_adapter_save(to, out.beside);
    status = bal_out_folder_end(&out, status);
    if (status == BAL_OK && from != NULL && to != NULL)
        status = report(o, c, from, to);
    bal_adapter_free(to);
    bal_adapter_free(from);
    bal_model_free(model);
    return status;
}

static bal_status convert_adapter_gguf(const bal_options *o, const convert_config *c)
{
    bal_model *model = NULL;
    bal_adapter *from = NULL, *plain = NULL;
    bal_quant quant = BAL_QUANT_F32;
    bal_status status = BAL_OK;
    if (strcmp(c->dtype, "auto") != 0)
        (void)bal_quant_parse(c->dtype, &quant);
    if (quant > BAL_QUANT_Q8_0)
        return bal_fail(BAL_EINVAL, "--dtype %s: an adapter is written as f32, f16, bf16 or q8_0", c->dtype);
    BAL_TRY(write_file_check(c->out, c->model, c->overwrite));
    BAL_TRY(load(o, c, &model, &from));
    BAL_TRY(bal_adapter_to_plain(&plain, from));
    BAL_TRY(bal_adapter_save_gguf(plain, model, c->out, quant));
    status = report_file(o, c, "adapter", plain->n_loras, quant == BAL_QUANT_F32 ? "f32" : c->dtype);
out:
    bal_adapter_free(plain);
    bal_adapter_free(from);
    bal_model_free(model);
    return status;
}

static size_t count_matrices(const bal_model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < m->n_modules; i++)
        n += m->modules[i].kind == BAL_MODULE_LINEAR || m->modules[i].kind == BAL_MODULE_EMBEDDING;
    return n;
}

static bal_status convert_model(const bal_options *o, const convert_config *c)
{
    bal_model *model = NULL;
    write_model_target out = {0};
    bool gguf = strcmp(c->to, "gguf") == 0;
    if (gguf != bal_ends_with(c->out, ".gguf"))
        return bal_fail(BAL_EINVAL,
                        gguf ? "--to gguf writes a file: --out %s must end in .gguf"
                             : "--to hf writes a folder: --out %s must not end in .gguf",
                        c->out);
    bal_status status = write_model_begin(&out, c->out, c->model, c->dtype, c->shard_mib, c->overwrite);
    if (status != BAL_OK)
        return status;
    status = load(o, c, &model, NULL);
    if (status == BAL_OK)
        status = write_model(&out, model, &bal_options_common(o)->log);
    status = write_model_end(&out, status);
    if (status == BAL_OK && model != NULL)
        status = report_file(o, c, "model", count_matrices(model), out.dtype);
    bal_model_free(model);
    return status;
}

static bal_status convert(const bal_options *o, const convert_config *c)
{
    bool lora = strcmp(c->to, "lora") == 0, hf = strcmp(c->to, "hf") == 0;
    bal_status status = BAL_OK;
    if ((c->adapter == NULL && lora) || c->model == NULL || c->out == NULL)
        return bal_fail(BAL_EINVAL, "%s is needed",
                        c->adapter == NULL && lora ? "--adapter DIR"
                        : c->model == NULL         ? "--model PATH"
                                                   : "--out PATH");
    if (hf && c->adapter != NULL)
        return bal_fail(BAL_EINVAL, "--to hf converts a model; balora merge puts an adapter into it");
    BAL_TRY(bal_options_start(o));
    bal_gemm_init();
    status = lora ? convert_lora(o, c) : c->adapter != NULL ? convert_adapter_gguf(o, c) : convert_model(o, c);
out:
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
