/* Options and presets of `train` and `pretrain`, and what they mean together.  SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/adapter/method.h"
#include "lib/adapter/start.h"
#include "lib/tensor/nf4.h"

#include <math.h>
#include <string.h>

#define FIELD(name) offsetof(train_config, name)
#define TEXT(key, field, def, grp, hlp)                                                                                \
    {                                                                                                                  \
        .name = (key), .type = BAL_OPTION_TEXT, .offset = FIELD(field), .default_text = (def), .group = (grp),         \
        .help = (hlp)                                                                                                  \
    }
#define PATH(key, field, grp, hlp)                                                                                     \
    {                                                                                                                  \
        .name = (key), .type = BAL_OPTION_PATH, .offset = FIELD(field), .group = (grp), .help = (hlp)                  \
    }
#define FLAG(key, field, def, grp, hlp)                                                                                \
    {                                                                                                                  \
        .name = (key), .type = BAL_OPTION_FLAG, .offset = FIELD(field), .default_text = (def), .group = (grp),         \
        .help = (hlp)                                                                                                  \
    }
#define INT(key, field, def, lo, hi, grp, hlp)                                                                         \
    {                                                                                                                  \
        .name = (key), .type = BAL_OPTION_INT, .offset = FIELD(field), .default_text = (def), .min = (lo),             \
        .max = (hi), .group = (grp), .help = (hlp)                                                                     \
    }
#define REAL_(key, field, def, lo, hi, grp, hlp)                                                                       \
    {                                                                                                                  \
        .name = (key), .type = BAL_OPTION_REAL, .offset = FIELD(field), .default_text = (def), .min = (lo),            \
        .max = (hi), .group = (grp), .help = (hlp)                                                                     \
    }
#define CHOICE(key, field, def, list, grp, hlp)                                                                        \
    {                                                                                                                  \
        .name = (key), .type = BAL_OPTION_CHOICE, .offset = FIELD(field), .default_text = (def), .choices = (list),    \
        .group = (grp), .help = (hlp)                                                                                  \
    }

#define LIST(key, field, hlp)                                                                                          \
    {                                                                                                                  \
        .name = (key), .type = BAL_OPTION_LIST, .offset = FIELD(field), .group = G_ADAPTER, .help = (hlp)              \
    }

#define G_DATA    "Data"
#define G_OPT     "Optimiser"
#define G_RUN     "Run"
#define G_ADAPTER "Adapter"

#define DATA_ROWS                                                                                                      \
    PATH(                                                                                                              \
        "data", data, G_DATA,                                                                                          \
        "records: JSON lines, JSON, CSV, TSV (.gz too), .txt; or org/name of the hub, or a name of balora data list"), \
        CHOICE("format", format, "auto", BAL_DATA_FORMATS, G_DATA,                                                     \
               "of the records; auto looks at the fields of the first"),                                               \
        CHOICE("template", template_, "auto", BAL_DATA_TEMPLATES, G_DATA,                                              \
               "text around a prompt; auto: by the format"),                                                           \
        CHOICE("target_suffix", target_suffix, "eos", BAL_DATA_SUFFIXES, G_DATA,                                       \
               "after a response; newline_eos as PiSSA's program"),                                                    \
        FLAG("train_on_prompt", train_on_prompt, "false", G_DATA, "label the prompt, too"),                            \
        INT("model_max_length", model_max_length, "512", 2, 1e7, G_DATA, "tokens of a record; longer ones are cut"),   \
        INT("limit", limit, "0", 0, 1e12, G_DATA, "first records of the file; 0: all"),                                \
        CHOICE("order", order, "random", "file|random|length", G_DATA,                                                 \
               "of the records; length puts like lengths together"),                                                   \
        PATH("validation_data", validation_data, G_DATA, "records for the validation loss"),                           \
        REAL_("validation_split", validation_split, "0", 0, 0.9, G_DATA, "share of --data kept for validation")

#define STEP_ROWS                                                                                                      \
    REAL_("lr", lr, "2e-5", 0, 1e3, G_OPT, "peak learning rate"),                                                      \
        INT("batch_size", batch_size, "16", 1, 1e6, G_OPT, "sequences of an optimiser step"),                          \
        INT("micro_batch_size", micro_batch_size, "0", 0, 1e6, G_OPT,                                                  \
            "sequences computed at once; 0: as many as give about 4096 tokens"),                                       \
        INT("max_steps", max_steps, "0", 0, 1e9, G_OPT, "optimiser steps; 0: from --epochs"),                          \
        REAL_("epochs", epochs, "1", 0, 1e6, G_OPT, "passes over the data, when --max-steps is 0"),                    \
        INT("warmup_steps", warmup_steps, "0", 0, 1e9, G_OPT, "steps until the peak rate; 0: from --warmup-ratio"),    \
        REAL_("warmup_ratio", warmup_ratio, "0", 0, 1, G_OPT, "share of the steps until the peak rate"),               \
        CHOICE("lr_scheduler", lr_scheduler, "cosine", "cosine|linear|constant", G_OPT, "after the warm-up"),          \
        REAL_("weight_decay", weight_decay, "0", 0, 1e3, G_OPT, "decoupled, as AdamW"),                                \
        REAL_("adam_beta1", adam_beta1, "0.9", 0, 0.999999999, G_OPT, "decay of the first moment"),                    \
        REAL_("adam_beta2", adam_beta2, "0.999", 0, 0.999999999, G_OPT, "decay of the second moment"),                 \
        REAL_("adam_epsilon", adam_epsilon, "1e-8", 1e-30, 1, G_OPT, "added to the root of the second moment"),        \
        REAL_("max_grad_norm", max_grad_norm, "1", 0, 1e12, G_OPT, "clip the global gradient norm; 0: off")

#define RUN_ROWS                                                                                                       \
    {.name = "out",                                                                                                    \
     .letter = 'o',                                                                                                    \
     .type = BAL_OPTION_PATH,                                                                                          \
     .offset = FIELD(out),                                                                                             \
     .group = G_RUN,                                                                                                   \
     .help = "folder to write"},                                                                                       \
        FLAG("overwrite", overwrite, "false", G_RUN, "start anew in a folder that holds a run"),                       \
        INT("seed", seed, "42", 0, 9007199254740991.0, G_RUN, "of start, order, split and dropout"),                   \
        INT("eval_steps", eval_steps, "0", 0, 1e9, G_RUN, "steps between validation losses; 0: ten times in a run"),   \
        INT("early_stopping_patience", early_stopping_patience, "0", 0, 1e9, G_RUN,                                    \
            "stop after so many validations without a better loss; 0: never"),                                         \
        INT("save_steps", save_steps, "0", 0, 1e9, G_RUN, "steps between checkpoints; 0: by time alone"),              \
        REAL_("save_seconds", save_seconds, "60", 0, 1e9, G_RUN, "seconds between checkpoints; 0: by steps alone"),    \
        INT("save_total_limit", save_total_limit, "2", 1, 1e6, G_RUN, "checkpoints to keep"),                          \
        TEXT("resume", resume, "none", G_RUN,                                                                          \
             "auto: the newest checkpoint in --out if any; or a checkpoint folder; or none"),                          \
        PATH("metrics_out", metrics_out, G_RUN, "JSON lines, one a step"),                                             \
        INT("stop_after", stop_after, "0", 0, 1e9, G_RUN,                                                              \
            "stop after this step with a checkpoint, schedules as for all steps; 0: go to the end"),                   \
        INT("log_steps", log_steps, "0", 0, 1e9, G_RUN, "steps between lines of progress; 0: about twenty in a run"),  \
        FLAG("checkpoint_activations", checkpoint_activations, "false", G_RUN,                                         \
             "less memory: layers are computed again backwards"),                                                      \
        CHOICE("compute", compute, "f32", "f32|bf16", G_RUN,                                                           \
               "operands of the products with frozen weights; sums, adapters and losses are f32"),                     \
        FLAG("share_prefix", share_prefix, "true", G_RUN,                                                              \
             "compute once what all sequences of a micro-batch begin with; not with dropout"),                         \
        FLAG("memory_check", memory_check, "true", G_RUN, "refuse a run that needs more than the free memory"),        \
        FLAG("store", store, "true", G_RUN, "write the run into the database"),                                        \
        TEXT("name", name, NULL, G_RUN, "of the run in the database"),                                                 \
        TEXT("experiment", experiment, NULL, G_RUN, "of the run in the database")

static const bal_option k_train_options[] = {
    {.name = "model",
     .letter = 'm',
     .type = BAL_OPTION_PATH,
     .offset = FIELD(model),
     .group = "Model",
     .help = "Hugging Face folder or GGUF file"},
    PATH("tokenizer", tokenizer, "Model", "tokenizer.json, folder or GGUF; otherwise the model's own"),
    DATA_ROWS,
    CHOICE("method", method, "lora",
           "full|lora|rslora|dora|pissa|ba-lora-nlg|loha|lokr|ia3|vera|adalora|houlsby|pfeiffer|bitfit", G_ADAPTER,
           "what is trained"),
    TEXT("init", init, NULL, G_ADAPTER, "start of the adapter: " BAL_START_NAMES "; otherwise the method's"),
    INT("r", r, "16", 1, 65536, G_ADAPTER, "rank; when not given 8 with loha and lokr, 256 with vera"),
    REAL_("lora_alpha", lora_alpha, "0", 0, 1e6, G_ADAPTER, "scale = alpha / r; 0: alpha = r"),
    REAL_("lora_dropout", lora_dropout, "0", 0, 0.99, G_ADAPTER, "of the adapters' inputs"),
    {.name = "target_modules",
     .type = BAL_OPTION_LIST,
     .offset = FIELD(target_modules),
     .default_text = "all-linear",
     .group = G_ADAPTER,
     .help = "names of the adapted matrices, or one expression for whole paths; all-linear: all but the head; when not "
             "given, loha, lokr, ia3, vera, adalora adapt what peft does, houlsby and pfeiffer what ends attention and "
             "MLP, "
             "bitfit none"},
    REAL_("alpha", alpha, "0", 0, 1e6, G_ADAPTER, "loha, lokr: scale = alpha / r; 0: alpha = r"),
    FLAG("decompose_both", decompose_both, "false", G_ADAPTER, "lokr: the smaller factor has a rank, too"),
    INT("decompose_factor", decompose_factor, "-1", -1, 65536, G_ADAPTER,
        "lokr: one factor of each dimension; -1: near its square root"),
    {.name = "feedforward_modules",
     .type = BAL_OPTION_LIST,
     .offset = FIELD(feedforward_modules),
     .group = G_ADAPTER,
     .help = "ia3: modules whose inputs are scaled, not their outputs; otherwise peft's"},
    REAL_("vera_dropout", vera_dropout, "0", 0, 0.99, G_ADAPTER, "vera: of the adapters' inputs"),
    REAL_("d_initial", d_initial, "0.1", -1e6, 1e6, G_ADAPTER, "vera: first value of d"),
    INT("projection_prng_key", projection_prng_key, "0", 0, 4294967295.0, G_ADAPTER,
        "vera: seed of the shared matrices, which are peft's"),
    FLAG("save_projection", save_projection, "true", G_ADAPTER, "vera: write the shared matrices, too"),
    INT("init_r", init_r, "12", 1, 65536, G_ADAPTER, "adalora: rank of every module at the start"),
    INT("target_r", target_r, "8", 1, 65536, G_ADAPTER, "adalora: mean rank of the modules at the end"),
    INT("tinit", tinit, "0", 0, 1e9, G_ADAPTER, "adalora: first steps, in which all ranks stay"),
    INT("tfinal", tfinal, "0", 0, 1e9, G_ADAPTER, "adalora: last steps, in which the ranks that are off stay off"),
    INT("deltaT", delta_t, "1", 1, 1e9, G_ADAPTER, "adalora: steps between two choices of ranks"),
    REAL_("beta1", beta1, "0.85", 0, 1, G_ADAPTER, "adalora: decay of the mean sensitivity"),
    REAL_("beta2", beta2, "0.85", 0, 1, G_ADAPTER, "adalora: decay of its uncertainty"),
    REAL_("orth_reg_weight", orth_reg_weight, "0.5", 0, 1e6, G_ADAPTER,
          "adalora: weight of the term that keeps A's rows and B's columns orthonormal; 0: off"),
    INT("total_step", total_step, "0", 0, 1e9, G_ADAPTER, "adalora: steps of its schedule; 0: those of the run"),
    REAL_("reduction_factor", reduction_factor, "16", 1e-3, 1e6, G_ADAPTER,
          "houlsby, pfeiffer: width of the model over that of the bottleneck"),
    TEXT("non_linearity", non_linearity, NULL, G_ADAPTER,
         "houlsby, pfeiffer: swish, relu, gelu or gelu_new; otherwise swish and relu"),
    LIST("exclude_modules", exclude_modules, "names, or one expression, of matrices that are left as they are"),
    LIST("layers_to_transform", layers_to_transform, "numbers of the layers that are adapted; otherwise all"),
    LIST("layers_pattern", layers_pattern, "name of the list of layers, where a path has several numbers"),
    LIST("rank_pattern", rank_pattern, "own ranks, NAME=R; a name is an expression for the end of a path"),
    LIST("alpha_pattern", alpha_pattern, "own lora_alpha, NAME=ALPHA"),
    CHOICE("bias", bias, "none", "none|all|lora_only", G_ADAPTER,
           "lora, dora, vera: train the model's biases, too: all, or those of the adapted matrices"),
    LIST("modules_to_save", modules_to_save,
         "ends of paths (lm_head, embed_tokens, norm, mlp.down_proj) of modules that are trained in full beside the "
         "adapter"),
    FLAG("ensure_weight_tying", ensure_weight_tying, "false", G_ADAPTER,
         "modules_to_save: embedding and head of a tied model stay one matrix"),
    FLAG("use_dora", use_dora, "false", G_ADAPTER, "DoRA: a magnitude for each row beside its direction"),
    FLAG("lora_bias", lora_bias, "false", G_ADAPTER, "B has a bias"),
    FLAG("use_rslora", use_rslora, "false", G_ADAPTER, "scale = alpha / sqrt(r)"),
    PATH("init_adapter", init_adapter, G_ADAPTER, "PEFT folder whose factors are the start (A0, B0 of a PiSSA start)"),
    CHOICE("base_dtype", base_dtype, "file", "file|" BAL_PACK_NAMES, G_ADAPTER,
           "keep the frozen matrices in memory as nf4 (QLoRA) or a block type of GGUF; file: as they are"),
    INT("loftq_iter", loftq_iter, "0", 0, 1000, G_ADAPTER,
        "init loftq or pissa on a packed base: rounds of packing and decomposing; 0: 1 (loftq), 5 (pissa)"),
    PATH("reference_model", reference_model, G_ADAPTER,
         "init loftq on a GGUF file in blocks: the same model in full, whose lost part the start takes up"),
    CHOICE("corda_method", corda_method, "ipm", "kpm|ipm", G_ADAPTER,
           "init corda: train what the calibration data use most (ipm) or least, and so keep it (kpm)"),
    PATH("calibration_data", calibration_data, G_ADAPTER,
         "init corda: records whose inputs are looked at; else --data"),
    CHOICE("calibration_format", calibration_format, "auto", BAL_DATA_FORMATS, G_ADAPTER, "of --calibration-data"),
    INT("calibration_samples", calibration_samples, "256", 1, 1e9, G_ADAPTER, "init corda: its first so many records"),
    PATH("adapter", adapter, G_ADAPTER, "PEFT folder to go on from (warm start)"),
    PATH("initial_adapter", initial_adapter, G_ADAPTER, "with --adapter: PEFT folder with its A0, B0"),
    BAL_LOSS_OPTION_ROWS(FIELD(loss)),
    CHOICE("lambda1_schedule", lambda1_schedule, "none", "none|cosine", "Loss",
           "of the consistency weight: cosine to a tenth"),
    CHOICE("lambda_focus_schedule", lambda_focus_schedule, "none", "none|two_phase|linear_warmup|quadratic_warmup",
           "Loss", "of the diversity and spectral weights"),
    REAL_("lambda_warmup_ratio", lambda_warmup_ratio, "0.1", 0, 1, "Loss",
          "share of the steps of the focus schedule's start"),
    REAL_("lambda_ramp_up_ratio", lambda_ramp_up_ratio, "0.05", 0, 1, "Loss", "share of the steps of two_phase's ramp"),
    FLAG("use_adaptive_regularization", adaptive, "false", "Loss", "consistency weight from the teacher's entropy"),
    REAL_("lambda1_min", lambda1_min, "-1", -1, 1e6, "Loss",
          "of the adaptive weight; -1: a tenth of lambda_consistency"),
    REAL_("lambda1_max", lambda1_max, "-1", -1, 1e6, "Loss", "of the adaptive weight; -1: lambda_consistency"),
    PATH("teacher_cache", teacher_cache, "Loss",
         "file for the teacher's final hidden rows: later epochs pay only its head"),
    CHOICE("teacher_cache_dtype", teacher_cache_dtype, "f32", "f32|bf16", "Loss",
           "bf16: half the file; rows are used rounded from the first epoch on"),
    STEP_ROWS,
    REAL_("head_lr", head_lr, "0", 0, 1e3, G_OPT, "peak rate of a trained head; 0: as --lr"),
    REAL_("loraplus_lr_ratio", loraplus_lr_ratio, "0", 0, 1e6, G_OPT,
          "LoRA+: B's rate is so many times --lr (16 in the paper); 0: off"),
    REAL_("loraplus_lr_embedding", loraplus_lr_embedding, "1e-6", 0, 1e3, G_OPT,
          "LoRA+: peak rate of the factors of an embedding"),
    RUN_ROWS,
    CHOICE("dtype", dtype, "f32", "f32|f16|bf16", G_RUN, "of the model written by --method full"),
};

#define RECIPE                                                                                                         \
    "\"r\":128,\"lora_alpha\":128,\"lr\":2e-5,\"warmup_ratio\":0.03,\"lr_scheduler\":\"cosine\",\"weight_decay\":0"
static const bal_preset k_train_presets[] = {
    {"ba-lora-nlg",
     "{\"method\":\"ba-lora-nlg\"," RECIPE ",\"batch_size\":32," BAL_LOSS_PRESET_NLG
     ",\"lambda1_schedule\":\"cosine\",\"lambda_focus_schedule\":\"two_phase\",\"lambda_warmup_ratio\":0.2,"
     "\"lambda_ramp_up_ratio\":0.05}"},
    {"bias-aware-2024", "{\"method\":\"ba-lora-nlg\"," RECIPE ",\"batch_size\":32," BAL_LOSS_PRESET_BIAS_AWARE_2024
                        ",\"lambda1_schedule\":\"none\",\"lambda_focus_schedule\":\"none\"}"},
    {"pissa",
     "{\"method\":\"pissa\"," RECIPE ",\"batch_size\":128,\"target_suffix\":\"newline_eos\"," BAL_LOSS_PRESET_OFF "}"},
    {"lora",
     "{\"method\":\"lora\"," RECIPE ",\"batch_size\":128,\"target_suffix\":\"newline_eos\"," BAL_LOSS_PRESET_OFF "}"},
};

const bal_command train_command = {
    .name = "train",
    .usage = "--model PATH --data FILE --out DIR [options]",
    .summary = "fine-tune a model with BA-LoRA, LoRA and its kin, or bottleneck adapters; writes a PEFT folder",
    .description =
        "  balora train --model SmolLM2.gguf --data gsm8k/train.jsonl --format gsm8k_metamath --method ba-lora-nlg "
        "--out run1\n"
        "  balora train --config recipe.json --out run1 --resume auto\n\n"
        "The folder holds the adapter at the end, checkpoint-N folders while it runs, and best/ with a validation set.",
    .options = k_train_options,
    .n_options = sizeof k_train_options / sizeof *k_train_options,
    .presets = k_train_presets,
    .n_presets = sizeof k_train_presets / sizeof *k_train_presets,
};

static const bal_option k_pretrain_options[] = {
    PATH("model_config", model_config, "Model", "config.json of the new model (LLaMA family)"),
    PATH("tokenizer", tokenizer, "Model", "tokenizer.json, or a folder holding one; copied into --out"),
    DATA_ROWS,
    STEP_ROWS,
    RUN_ROWS,
    CHOICE("dtype", dtype, "f32", "f32|f16|bf16", G_RUN, "of the written weights"),
};

const bal_command pretrain_command = {
    .name = "pretrain",
    .usage = "--model-config config.json --tokenizer PATH --data FILE --out DIR [options]",
    .summary = "train a small model from scratch, all weights",
    .description =
        "  balora data world --n 20000 --seed 1 --out world.jsonl\n"
        "  balora data tokenizer --input world.jsonl --vocab 512 --out tokenizer.json\n"
        "  balora pretrain --model-config tiny.json --tokenizer tokenizer.json --data world.jsonl --out tiny --lr 1e-3",
    .options = k_pretrain_options,
    .n_options = sizeof k_pretrain_options / sizeof *k_pretrain_options,
};

static bool is(const char *a, const char *b)
{
    return a != NULL && strcmp(a, b) == 0;
}

static bal_status need(const char *value, const char *option)
{
    return value != NULL && value[0] != '\0' ? BAL_OK : bal_fail(BAL_EINVAL, "%s is needed", option);
}

static bal_status resolve_method(trainer *t, train_config *c)
{
    bool scratch = is(t->command, "pretrain");
    t->full = scratch || is(c->method, "full");
    if (t->full) {
        if (c->loss.lambda_consistency != 0 || c->adaptive)
            return bal_fail(
                BAL_EINVAL,
                "the consistency term needs the frozen model as its teacher, which method full does not keep; set "
                "lambda_consistency 0");
        if (c->adapter != NULL || c->init_adapter != NULL || c->init != NULL)
            return bal_fail(BAL_EINVAL, "method full trains no adapter: leave out adapter, init_adapter and init");
        if (!scratch && (!is(c->bias, "none") || c->modules_to_save.n > 0))
            return bal_fail(BAL_EINVAL, "method full trains everything: leave out bias and modules_to_save");
        if (c->loraplus_lr_ratio > 0)
            return bal_fail(BAL_EINVAL, "method full has no B whose rate loraplus_lr_ratio could set; leave it out");
        return BAL_OK;
    }
    bal_status status = train_resolve_row(t, c);
    if (status != BAL_OK)
        return status;
    bool residual_method = is(c->method, "pissa") || is(c->method, "ba-lora-nlg");
    if (c->init == NULL) {
        c->init = residual_method ? "pissa" : "lora";
        status = t->method->low_rank ? bal_options_resolved(t->options, "init") : BAL_OK;
        if (status != BAL_OK)
            return status;
    }
    bal_start start;
    if (!bal_start_parse(c->init, &start))
        return bal_fail(BAL_EINVAL, "init '%s' is not " BAL_START_NAMES, c->init);
    t->residual = bal_start_is_residual(start.kind);
    static const char *const only_corda[] = {"corda_method", "calibration_data", "calibration_format",
                                             "calibration_samples"};
    for (size_t i = 0; i < sizeof only_corda / sizeof *only_corda; i++)
        if (start.kind != BAL_START_CORDA && bal_options_given(t->options, only_corda[i]))
            return bal_fail(BAL_EINVAL, "%s is for --init corda, and the start is %s", only_corda[i], c->init);
    if (is(c->method, "lora") && (start.kind == BAL_START_PISSA || start.kind == BAL_START_PISSA_NITER))
        return bal_fail(BAL_EINVAL, "init %s with method lora is method pissa: say --method pissa --init %s", c->init,
                        c->init);
    if (is(c->method, "rslora"))
        c->use_rslora = true;
    if (c->adapter != NULL && c->init_adapter != NULL)
        return bal_fail(BAL_EINVAL, "adapter (a warm start) and init_adapter (a start) exclude each other");
    if (t->residual && c->lora_dropout > 0)
        return bal_fail(
            BAL_EINVAL,
            "a residual start needs lora_dropout 0, not %g: dropped inputs would also drop part of the original weight",
            c->lora_dropout);
    if (c->lora_alpha == 0) {
        c->lora_alpha = (double)c->r;
        if (t->method->alpha_key != NULL)
            return bal_options_resolved(t->options, "lora_alpha");
    }
    return BAL_OK;
}

static bal_status resolve_loss(trainer *t, train_config *c)
{
    static const char *const terms[] = {"lambda_consistency", "lambda_diversity", "lambda_svd"};
    bool given = false;
    for (size_t i = 0; i < 3; i++)
        given = given || bal_options_given(t->options, terms[i]);
    if (is(c->method, "ba-lora-nlg") && !given) {
        c->loss.lambda_consistency = 0.025;
        c->loss.lambda_diversity = c->loss.lambda_svd = 0.005;
        for (size_t i = 0; i < 3; i++) {
            bal_status status = bal_options_resolved(t->options, terms[i]);
            if (status != BAL_OK)
                return status;
        }
    }
    bal_step_config *s = &t->step_config;
    bool llm172 = false;
    if (is(t->command, "pretrain"))
        s->loss = (bal_loss_config){.temperature = 1};
    else
        bal_loss_options_resolve(&c->loss, &s->loss, &llm172);
    s->unshifted_regularisers = s->micro_batch_means = llm172;
    s->loss.train_head = t->full;
    s->adaptive = c->adaptive;
    if (c->adaptive) {
        s->adaptive_max = c->lambda1_max >= 0 ? c->lambda1_max : c->loss.lambda_consistency;
        s->adaptive_min = c->lambda1_min >= 0 ? c->lambda1_min : 0.1 * c->loss.lambda_consistency;
        if (s->adaptive_min > s->adaptive_max)
            return bal_fail(BAL_EINVAL, "lambda1_min %g is above lambda1_max %g", s->adaptive_min, s->adaptive_max);
        if (s->adaptive_max > 0 && s->loss.lambda_consistency == 0)
            s->loss.lambda_consistency = s->adaptive_max; /* the term is on, its strength comes from the entropy */
        s->adaptive = s->loss.lambda_consistency != 0;
    }
    t->lambda1_cosine = is(c->lambda1_schedule, "cosine");
    t->focus = is(c->lambda_focus_schedule, "two_phase")          ? BAL_FOCUS_TWO_PHASE
               : is(c->lambda_focus_schedule, "linear_warmup")    ? BAL_FOCUS_LINEAR
               : is(c->lambda_focus_schedule, "quadratic_warmup") ? BAL_FOCUS_QUADRATIC
                                                                  : BAL_FOCUS_NONE;
    return BAL_OK;
}

static bal_status check_needed(const trainer *t, const train_config *c)
{
    bal_status status = BAL_OK;
    if (is(t->command, "pretrain"))
        BAL_TRY(need(c->model_config, "--model-config FILE"));
    else
        BAL_TRY(need(c->model, "--model PATH"));
    BAL_TRY(need(c->data, "--data FILE"));
    BAL_TRY(need(c->out, "--out DIR"));
out:
    return status;
}

static bal_status check_plan(const train_config *c, bool validates)
{
    if (c->validation_data != NULL && c->validation_split > 0)
        return bal_fail(BAL_EINVAL, "validation_data and validation_split exclude each other");
    if (c->early_stopping_patience > 0 && !validates)
        return bal_fail(BAL_EINVAL, "early_stopping_patience needs validation_data or validation_split");
    if (c->micro_batch_size > c->batch_size)
        return bal_fail(BAL_EINVAL, "micro_batch_size %lld is above batch_size %lld", (long long)c->micro_batch_size,
                        (long long)c->batch_size);
    if (c->max_steps == 0 && !(c->epochs > 0))
        return bal_fail(BAL_EINVAL, "max_steps or epochs must be above 0");
    return BAL_OK;
}

bal_status train_resolve(trainer *t, train_config *c)
{
    bal_status status = BAL_OK;
    bool validates = c->validation_data != NULL || c->validation_split > 0;
    BAL_TRY(check_needed(t, c));
    BAL_TRY(resolve_method(t, c));
    if (is(t->command, "train"))
        BAL_TRY(train_check_base(t, c));
    BAL_TRY(resolve_loss(t, c));
    BAL_TRY(check_plan(c, validates));
    t->lr_schedule = is(c->lr_scheduler, "linear")     ? BAL_LR_LINEAR
                     : is(c->lr_scheduler, "constant") ? BAL_LR_CONSTANT
                                                       : BAL_LR_COSINE;
    t->step_config.adamw = (bal_adamw_config){c->adam_beta1, c->adam_beta2, c->adam_epsilon, c->weight_decay};
    t->step_config.max_grad_norm = c->max_grad_norm;
    t->step_config.validate = validates;
    if (!(c->head_lr > 0))
        c->head_lr = c->lr;
out:
    return status;
}
