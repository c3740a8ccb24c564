/* balora bench FIGURE: speed as JSON.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/options.h"
#include "tools/bench.h"
#include "tools/commands.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

static const bal_option k_options[] = {
    {.name = "model",
     .type = BAL_OPTION_PATH,
     .offset = offsetof(bal_bench_config, model),
     .group = "Model",
     .help = "model folder or GGUF file"},
    {.name = "method",
     .type = BAL_OPTION_CHOICE,
     .offset = offsetof(bal_bench_config, method),
     .default_text = "lora",
     .choices = "lora|ba-lora-nlg",
     .group = "Step",
     .help = "ba-lora-nlg: with the teacher and the three terms of its preset"},
    {.name = "init",
     .type = BAL_OPTION_TEXT,
     .offset = offsetof(bal_bench_config, init),
     .default_text = "lora",
     .group = "Step",
     .help = "step, init: start of the adapter: lora, gaussian, pissa, pissa_niter_N"},
    {.name = "r",
     .type = BAL_OPTION_INT,
     .offset = offsetof(bal_bench_config, r),
     .default_text = "16",
     .min = 1,
     .max = 65536,
     .group = "Step",
     .help = "rank of the adapter, on all seven linear modules"},
    {.name = "checkpoint_activations",
     .type = BAL_OPTION_FLAG,
     .offset = offsetof(bal_bench_config, checkpoint_activations),
     .group = "Step",
     .help = "recompute the layers in backward"},
    {.name = "compute",
     .type = BAL_OPTION_CHOICE,
     .offset = offsetof(bal_bench_config, compute),
     .default_text = "f32",
     .choices = "f32|bf16",
     .group = "Step",
     .help = "step, prompt, decode: operands of the products with frozen weights"},
    {.name = "share_prefix",
     .type = BAL_OPTION_FLAG,
     .offset = offsetof(bal_bench_config, share_prefix),
     .default_text = "true",
     .group = "Step",
     .help = "compute once what all --rows begin with"},
    {.name = "teacher_cached",
     .type = BAL_OPTION_FLAG,
     .offset = offsetof(bal_bench_config, teacher_cached),
     .group = "Step",
     .help = "an epoch after the first with train --teacher-cache: the teacher's final rows are there"},
    {.name = "tokens",
     .type = BAL_OPTION_INT,
     .offset = offsetof(bal_bench_config, tokens),
     .default_text = "512",
     .min = 2,
     .max = 1048576,
     .group = "Data",
     .help = "length of a sequence (of --rows: at most so long)"},
    {.name = "new_tokens",
     .type = BAL_OPTION_INT,
     .offset = offsetof(bal_bench_config, new_tokens),
     .default_text = "128",
     .min = 1,
     .max = 1048576,
     .group = "Data",
     .help = "decode: tokens of a sequence"},
    {.name = "context",
     .type = BAL_OPTION_INT,
     .offset = offsetof(bal_bench_config, context),
     .default_text = "0",
     .min = 0,
     .max = 1048576,
     .group = "Data",
     .help = "decode: tokens of a sequence before the first new one"},
    {.name = "sequences",
     .type = BAL_OPTION_INT,
     .offset = offsetof(bal_bench_config, sequences),
     .default_text = "1",
     .min = 1,
     .max = 65536,
     .group = "Data",
     .help = "sequences in the batch"},
    {.name = "labelled",
     .type = BAL_OPTION_REAL,
     .offset = offsetof(bal_bench_config, labelled),
     .default_text = "1",
     .min = 0.01,
     .max = 1,
     .group = "Data",
     .help = "share of each sequence, at its end, that carries labels"},
    {.name = "rows",
     .type = BAL_OPTION_PATH,
     .offset = offsetof(bal_bench_config, rows),
     .group = "Data",
     .help = "JSON lines {\"input_ids\", \"labels\"}: a batch of real rows, all of them unless --sequences says fewer"},
    {.name = "text",
     .type = BAL_OPTION_PATH,
     .offset = offsetof(bal_bench_config, text),
     .group = "Data",
     .help = "tokenize: a file of plain text, encoded as one"},
    {.name = "repeat",
     .type = BAL_OPTION_INT,
     .offset = offsetof(bal_bench_config, repeat),
     .default_text = "3",
     .min = 1,
     .max = BAL_BENCH_MAX_REPEAT,
     .group = "Measurement",
     .help = "repetitions after one that is not counted"},
    {.name = "reference",
     .type = BAL_OPTION_FLAG,
     .offset = offsetof(bal_bench_config, reference),
     .default_text = "true",
     .group = "Measurement",
     .help = "measure sgemm 1024 before and after each repetition"},
};

static const bal_command k_command = {
    .name = "bench",
    .usage = "FIGURE [--model PATH] [options]",
    .summary = "speed of a training step, a prompt, decoding, loading, tokenizing",
    .description =
        "FIGURE is one of\n"
        "  gemm    matrix products of the shapes of a training step, beside the BLAS library's own threads\n"
        "  step    one optimiser step on a batch of made-up tokens, or of real --rows\n"
        "  prompt  a prompt of --tokens in one piece\n"
        "  decode  --new-tokens of each of --sequences after --context\n"
        "  init    the start of an adapter on all matrices, and the energy it captures\n"
        "  load    opening a model\n"
        "  tokenize  --text FILE to ids with the tokenizer of --model, on one thread\n"
        "The last line on standard output is one JSON object: value is the best rate in its unit, median the\n"
        "median, vs_sgemm the share of the sgemm 1024 rate (counted operations / time / that rate).\n\n"
        "  balora bench gemm --threads 2\n"
        "  balora bench step --model MODEL --method ba-lora-nlg --labelled 0.5 --repeat 5\n",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
    .max_positional = 1,
};

static bal_status run_figure(const char *name, cJSON *out, const bal_bench_config *c, const bal_options *o)
{
    static const char *const names[] = {"decode", "gemm", "init", "load", "prompt", "step", "tokenize"};
    enum { DECODE, GEMM, INIT, LOAD, PROMPT, STEP, TOKENIZE, N_NAMES };
    size_t figure = 0;
    while (figure < N_NAMES && strcmp(name, names[figure]) != 0)
        figure++;
    if (figure == N_NAMES) {
        const char *near = bal_nearest(name, names, N_NAMES);
        return bal_fail(BAL_EINVAL,
                        "bench knows decode, gemm, init, load, prompt, step and tokenize, not '%.60s'%s%s%s", name,
                        near == NULL ? "" : "; did you mean '", near == NULL ? "" : near, near == NULL ? "" : "'?");
    }
    if (figure != GEMM && c->model == NULL)
        return bal_fail(BAL_EINVAL, "bench %s needs --model PATH", name);
    switch (figure) {
    case DECODE:
        return bal_bench_decode(out, c);
    case GEMM:
        return bal_bench_gemm(out, c, &bal_options_common(o)->log);
    case INIT:
        return bal_bench_init(out, c);
    case LOAD:
        return bal_bench_load(out, c);
    case TOKENIZE:
        return bal_bench_tokenize(out, c);
    case PROMPT:
        return bal_bench_prompt(out, c);
    default:
        return bal_bench_step(out, c, bal_options_given(o, "sequences"));
    }
}

static bal_status bench(const bal_options *o, const bal_bench_config *c)
{
    size_t n;
    const char *const *words = bal_options_positional(o, &n);
    if (n != 1)
        return bal_fail(BAL_EINVAL, "a FIGURE is needed: decode, gemm, init, load, prompt, step or tokenize");
    bal_buf b = {0};
    cJSON *out = cJSON_CreateObject();
    bal_status status;
    BAL_TRY(out == NULL ? bal_fail(BAL_ENOMEM, "out of memory") : bal_options_start(o));
    (void)cJSON_AddStringToObject(out, "figure", words[0]);
    BAL_TRY(run_figure(words[0], out, c, o));
    BAL_TRY(bal_json_put(&b, out, false));
    (void)printf("%s\n", bal_buf_cstr(&b));
out:
    bal_buf_dispose(&b);
    cJSON_Delete(out);
    return status;
}

int cmd_bench(int argc, char **argv)
{
    bal_bench_config config = {0};
    bal_options *o = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&o, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help)
        status = bench(o, &config);
    bal_options_free(o);
    return bal_command_finish(&k_command, status);
}
