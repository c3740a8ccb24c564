/* balora merge: a model with the updates of adapters added to its weights, or their weighted sum as a new adapter.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"

#include "lib/adapter/combine.h"
#include "lib/base/log.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/options.h"
#include "lib/model/pack.h"
#include "lib/tensor/gemm.h"
#include "tools/out_folder.h"
#include "tools/write_model.h"

#include <stdio.h>
#include <string.h>

typedef struct merge_config {
    const char *model, *initial_adapter, *out, *dtype, *combination;
    bal_text_list adapters, weights;
    int64_t shard_mib, rank;
    bool overwrite, base_only;
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
     .type = BAL_OPTION_PATHS,
     .offset = FIELD(adapters),
     .group = "Input",
     .help = "PEFT folder to merge; several: their weighted sum"},
    {.name = "weights",
     .type = BAL_OPTION_LIST,
     .offset = FIELD(weights),
     .group = "Input",
     .help = "a number for each --adapter, e.g. 0.5,0.5; otherwise 1 each"},
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
    {.name = "combination",
     .type = BAL_OPTION_CHOICE,
     .offset = FIELD(combination),
     .choices = BAL_COMBINATIONS,
     .group = "Output",
     .help = "write the sum as an adapter, as peft's add_weighted_adapter: cat (exact, ranks add up), svd (nearest of "
             "--rank), linear (sums of the factors: not the sum)"},
    {.name = "rank",
     .type = BAL_OPTION_INT,
     .offset = FIELD(rank),
     .default_text = "0",
     .max = 65536,
     .group = "Output",
     .help = "of --combination svd; 0: the largest of the adapters'"},
    {.name = "base_only",
     .type = BAL_OPTION_FLAG,
     .offset = FIELD(base_only),
     .group = "Output",
     .help = "write what the adapter was trained on, without it: for a base that was packed (train --base-dtype), so "
             "that peft can load the adapter over it"},
    WRITE_MODEL_OPTIONS(merge_config),
};

static const bal_command k_command = {
    .name = "merge",
    .usage = "--model PATH --adapter DIR [--adapter DIR --weights W,W] --out DIR|FILE.gguf [--dtype TYPE]",
    .summary = "an adapter merged into its base model, as a Hugging Face folder or a GGUF file; or a sum of adapters",
    .description = "Writes config.json, safetensors and the tokenizer files of the base, or one GGUF file; "
                   "W + s(BA - B0A0) is formed in f32.\n"
                   "f16 and bf16 round the sum: a small update can be lost in bf16, and more so in the block types.\n\n"
                   "  balora merge --model SmolLM2-135M-Instruct --adapter runs/lora --out merged\n"
                   "  balora merge --model SmolLM2-135M-Instruct --adapter runs/lora --out merged.gguf --dtype q8_0\n"
                   "  balora merge --model SmolLM2-135M-Instruct --adapter A --adapter B --weights 0.7,0.3 "
                   "--combination cat --out C",
    .options = k_options,
    .n_options = sizeof k_options / sizeof *k_options,
};

static bal_status report(const bal_options *o, const merge_config *c, const bal_adapter *a, const char *dtype)
{
    if (!bal_options_common(o)->json) {
        char copies[48] = "";
        if (a->n_copies > 0)
            (void)snprintf(copies, sizeof copies, " and %zu whole tensors", a->n_copies);
        printf("%s: %zu modules%s merged, written as %s\n", c->out, a->n_sites, copies, dtype);
        return BAL_OK;
    }
    bal_status status = BAL_OK;
    bal_buf b = {0};
    BAL_TRY(bal_buf_text(&b, "{\"out\":"));
    BAL_TRY(bal_json_put_text(&b, c->out));
    BAL_TRY(bal_buf_printf(&b, ",\"modules\":%zu", a->n_sites));
    if (a->n_copies > 0)
        BAL_TRY(bal_buf_printf(&b, ",\"tensors\":%zu", a->n_copies));
    BAL_TRY(bal_buf_printf(&b, ",\"dtype\":\"%s\"}", dtype));
    printf("%s\n", bal_buf_cstr(&b));
out:
    bal_buf_dispose(&b);
    return status;
}

/* The adapters of a run, and their sum. */
typedef struct parts {
    bal_adapter **each; /* as read, then plain when there are several */
    double *weights;
    size_t n;
    bal_adapter *sum; /* of several, or when an adapter is written; else NULL */
    double lost;
} parts;

static void parts_dispose(parts *p)
{
    for (size_t i = 0; p->each != NULL && i < p->n; i++)
        bal_adapter_free(p->each[i]);
    bal_free(p->each);
    bal_free(p->weights);
    bal_adapter_free(p->sum);
}

static bal_status read_part(const bal_options *o, const merge_config *c, const bal_model *m, size_t i, parts *p)
{
    char note[256] = "";
    bal_adapter *plain = NULL;
    bal_status status = bal_adapter_load(&p->each[i], c->adapters.items[i], c->initial_adapter, m->modules,
                                         m->n_modules, false, note, sizeof note);
    if (status != BAL_OK)
        return status;
    if (note[0] != '\0')
        bal_log_line(&bal_options_common(o)->log, BAL_LOG_WARN, "%s", note);
    p->weights[i] = 1;
    if (c->weights.n > 0 && bal_parse_f64(c->weights.items[i], -1e6, 1e6, &p->weights[i]) != BAL_OK)
        return bal_fail(BAL_EINVAL, "weights: '%s' is not a number between -1e6 and 1e6", c->weights.items[i]);
    if (p->n == 1 && c->combination == NULL && c->weights.n == 0)
        return BAL_OK;
    status = bal_adapter_to_plain(&plain, p->each[i]);
    if (status == BAL_OK) {
        bal_adapter_free(p->each[i]);
        p->each[i] = plain;
    }
    return status;
}

static bal_status read_parts(const bal_options *o, const merge_config *c, bal_model *m, parts *p)
{
    bal_status status = BAL_OK;
    bal_combination kind = BAL_COMBINE_CAT;
    p->n = c->adapters.n;
    p->each = bal_alloc(p->n, sizeof(bal_adapter *)); // NOLINT(bugprone-sizeof-expression): pointers are meant
    p->weights = bal_alloc(p->n, sizeof *p->weights);
    if (p->each == NULL || p->weights == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < 2 * p->n; i++) /* the second time all must agree with what the first left */
        BAL_TRY(bal_model_load_base(m, c->adapters.items[i % p->n], NULL, 0));
    for (size_t i = 0; i < p->n; i++)
        BAL_TRY(read_part(o, c, m, i, p));
    if (p->n == 1 && c->combination == NULL && c->weights.n == 0)
        goto out;
    if (c->combination != NULL)
        (void)bal_combination_parse(c->combination, &kind);
    BAL_TRY(bal_adapter_combine(&p->sum, (const bal_adapter *const *)p->each, p->weights, p->n, kind, (size_t)c->rank,
                                m->modules, m->n_modules, &p->lost));
    if (p->lost > 0.01)
        bal_log_line(&bal_options_common(o)->log, BAL_LOG_WARN,
                     "the new adapter misses up to %.1f %% of the sum (%s); --combination cat is exact", 100 * p->lost,
                     c->combination);
out:
    return status;
}

static bal_status check_config(const merge_config *c)
{
    if (c->model == NULL || c->adapters.n == 0 || c->out == NULL)
        return bal_fail(BAL_EINVAL, "%s is needed",
                        c->model == NULL     ? "--model PATH"
                        : c->adapters.n == 0 ? "--adapter DIR"
                                             : "--out DIR");
    if (c->weights.n > 0 && c->weights.n != c->adapters.n)
        return bal_fail(BAL_EINVAL, "%zu weights are given for %zu adapters", c->weights.n, c->adapters.n);
    if (c->adapters.n > 1 && c->initial_adapter != NULL)
        return bal_fail(BAL_EINVAL, "initial_adapter goes with one adapter, not with %zu", c->adapters.n);
    if (c->rank > 0 && (c->combination == NULL || strcmp(c->combination, "svd") != 0))
        return bal_fail(BAL_EINVAL, "rank is for --combination svd");
    return BAL_OK;
}

static bal_status report_sum(const merge_config *c, const parts *p)
{
    bal_status status;
    bal_buf b = {0};
    BAL_TRY(bal_buf_text(&b, "{\"out\":"));
    BAL_TRY(bal_json_put_text(&b, c->out));
    BAL_TRY(bal_buf_printf(&b, ",\"combination\":\"%s\",\"adapters\":%zu,\"modules\":%zu,\"r\":%zu,\"lost\":",
                           c->combination, p->n, p->sum->n_loras, p->sum->config.r));
    BAL_TRY(bal_json_put_f64(&b, p->lost));
    printf("%s}\n", bal_buf_cstr(&b));
out:
    bal_buf_dispose(&b);
    return status;
}

/* The sum as a PEFT folder. */
static bal_status combine(const bal_options *o, const merge_config *c)
{
    bal_model *model = NULL;
    parts p = {0};
    bal_out_folder out = {0};
    bal_status status = bal_out_folder_begin(&out, c->out, c->adapters.items[0], "adapter_config.json", c->overwrite);
    if (status != BAL_OK)
        return status;
    status = bal_model_load(&model, c->model);
    if (status == BAL_OK)
        status = read_parts(o, c, model, &p);
    if (status == BAL_OK)
        status = bal_adapter_save(p.sum, out.beside);
    status = bal_out_folder_end(&out, status);
    if (status == BAL_OK && !bal_options_common(o)->json)
        printf("%s: %zu adapters by %s, r %zu\n", c->out, p.n, c->combination, p.sum->config.r);
    else if (status == BAL_OK)
        status = report_sum(c, &p);
    parts_dispose(&p);
    bal_model_free(model);
    return status;
}

static bal_status merge(const bal_options *o, const merge_config *c)
{
    bal_status status = BAL_OK;
    bal_model *model = NULL;
    parts p = {0};
    bal_adapter *a = NULL;
    write_model_target out = {0};
    BAL_TRY(check_config(c));
    BAL_TRY(bal_options_start(o));
    bal_gemm_init();
    if (c->combination != NULL)
        return combine(o, c);
    BAL_TRY(write_model_begin(&out, c->out, c->model, c->dtype, c->shard_mib, c->overwrite));
    status = bal_model_load(&model, c->model);
    if (status == BAL_OK)
        status = read_parts(o, c, model, &p);
    a = p.sum != NULL ? p.sum : p.n > 0 ? p.each[0] : NULL;
    if (status == BAL_OK && c->base_only && model->base.type == BAL_DTYPE_COUNT && model->base.start == NULL)
        status = bal_fail(BAL_EINVAL, "base_only: the adapter was trained on the weights as the file has them");
    if (status == BAL_OK && !c->base_only)
        status = bal_model_attach(model, a);
    if (status == BAL_OK)
        status = write_model(&out, model, &bal_options_common(o)->log);
    status = write_model_end(&out, status);
    if (status == BAL_OK && a != NULL)
        status = report(o, c, a, out.dtype);
out:
    bal_model_free(model);
    parts_dispose(&p);
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
