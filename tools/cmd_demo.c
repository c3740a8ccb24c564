/* balora demo: the whole pipeline on the embedded model and generated data.  Each step is an ordinary command of
 * this program, run as a child process and printed before it runs, so that the demo teaches the commands.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/data/embedded.h"
#include "lib/io/options.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct demo_config {
    const char *out, *write_model;
    int64_t train_items, test_items, steps;
} demo_config;

static const bal_option k_options[] = {
    {"out", 'o', BAL_OPTION_PATH, offsetof(demo_config, out), "demo-out", 0, 0, NULL, NULL, "Demo",
     "folder for the model, the adapters, the database and the report"},
    {"train_items", 0, BAL_OPTION_INT, offsetof(demo_config, train_items), "2000", 16, 100000, NULL, NULL, "Demo",
     "generated word problems to fine-tune on"},
    {"test_items", 0, BAL_OPTION_INT, offsetof(demo_config, test_items), "200", 2, 10000, NULL, NULL, "Demo",
     "other generated problems to score on"},
    {"steps", 0, BAL_OPTION_INT, offsetof(demo_config, steps), "80", 1, 100000, NULL, NULL, "Demo",
     "optimiser steps of each fine-tuning run"},
    {"write_model", 0, BAL_OPTION_PATH, offsetof(demo_config, write_model), NULL, 0, 0, NULL, NULL, "Demo",
     "only write the embedded model into this folder"},
};

static const bal_command k_command = {
    .name = "demo",
    .usage = "[--out DIR]",
    .summary = "the whole pipeline, offline, on the embedded model, in about a minute and a half",
    .description =
        "Fine-tunes the embedded model with LoRA, PiSSA and BA-LoRA on generated word problems, scores it before\n"
        "and after, analyses the updates and draws one HTML page.  Every command is printed as it runs.",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
};

/* lm-eval's GSM8K prompt without shots; the answers of the generated world are short. */
#define EVALUATE "--tasks gsm8k --num-fewshot 0 --max-gen-toks 96"

enum { MAX_WORDS = 64, MAX_COMMAND = 4096 };

/* Runs this program with the words of the formatted line (separated by spaces; the demo's own paths hold none).  Its
 * stdout and stderr are ours. */
__attribute__((format(printf, 2, 3))) static bal_status run(const bal_common *common, const char *format, ...)
{
    char line[MAX_COMMAND], text[MAX_COMMAND];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (length < 0 || (size_t)length >= sizeof line)
        return bal_fail(BAL_ELIMIT, "a command of the demo is longer than %d bytes", MAX_COMMAND);
    char *words[MAX_WORDS + 4];
    size_t n = 0;
    char *save = NULL;
    memcpy(text, line, (size_t)length + 1);
    char program[] = "balora", quiet[] = "--quiet";
    words[n++] = program;
    for (char *w = strtok_r(text, " ", &save); w != NULL && n < MAX_WORDS; w = strtok_r(NULL, " ", &save))
        words[n++] = w;
    if (common->quiet)
        words[n++] = quiet;
    words[n] = NULL;
    if (!common->quiet && !common->json) {
        printf("\n$ balora %s\n", line);
        (void)fflush(stdout);
    }
    pid_t child = fork();
    if (child < 0)
        return bal_fail(BAL_ENOMEM, "cannot start 'balora %s': %s", words[1], strerror(errno));
    if (child == 0) {
        if (common->json)
            (void)dup2(STDERR_FILENO, STDOUT_FILENO); /* stdout holds one JSON document of the demo's own */
        (void)execv("/proc/self/exe", words);
        _exit(4);
    }
    int state = 0;
    while (waitpid(child, &state, 0) < 0)
        if (errno != EINTR)
            return bal_fail(BAL_EIO, "waiting for 'balora %s' failed: %s", words[1], strerror(errno));
    if (WIFEXITED(state) && WEXITSTATUS(state) == 130)
        return bal_fail(BAL_EINTERRUPT, "interrupted during 'balora %s'", words[1]);
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
        return bal_fail(BAL_EIO, "'balora %s' ended with status %d; see its message above", words[1],
                        WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state));
    return BAL_OK;
}

static bal_status demo_run(const demo_config *c, const bal_common *common)
{
    static const struct {
        const char *name, *lr, *terms;
    } methods[] = {
        {"lora", "5e-3", ""},
        {"pissa", "2e-3", ""},
        {"ba-lora-nlg", "2e-3", " --lambda-consistency 0.025 --lambda-diversity 0.005 --lambda-svd 0.005"},
    };
    char dir[MAX_COMMAND / 8];
    bal_status status = BAL_OK;
    if (strpbrk(c->out, " \t\n") != NULL || strlen(c->out) >= sizeof dir - 16)
        return bal_fail(BAL_EINVAL, "--out '%s': the demo's folder must be short and without spaces", c->out);
    (void)snprintf(dir, sizeof dir, "%s/model", c->out);
    BAL_TRY(bal_embedded_write(dir));
    (void)snprintf(dir, sizeof dir, "%s/data/gsm8k", c->out);
    BAL_TRY(bal_folder_make(dir));
    const char *o = c->out;
    BAL_TRY(run(common, "data world --n %lld --seed 21 --out %s/data/train.jsonl", (long long)c->train_items, o));
    BAL_TRY(run(common, "data world --n %lld --seed 22 --out %s/data/gsm8k/test.jsonl", (long long)c->test_items, o));
    BAL_TRY(run(common, "evaluate --model %s/model " EVALUATE " --data %s/data --name base --db %s/runs.db", o, o, o));
    BAL_TRY(run(common, "analyze diversity --run last --name base --db %s/runs.db", o));
    for (size_t i = 0; i < 3; i++) {
        const char *m = methods[i].name;
        BAL_TRY(run(common,
                    "train --model %s/model --data %s/data/train.jsonl --format gsm8k --template question --method %s "
                    "--r 8 --lr %s "
                    "--batch-size 16 --max-steps %lld --warmup-ratio 0.03 --seed 1 --validation-split 0.05%s --name %s "
                    "--out %s/%s --overwrite --db %s/runs.db",
                    o, o, m, methods[i].lr, (long long)c->steps, methods[i].terms, m, o, m, o));
        BAL_TRY(run(common,
                    "evaluate --model %s/model --adapter %s/%s " EVALUATE " --data %s/data --name %s --db %s/runs.db",
                    o, o, m, o, m, o));
        BAL_TRY(run(common, "analyze diversity --run last --name %s --db %s/runs.db", m, o));
        BAL_TRY(run(common, "analyze spectrum --adapter %s/%s --name %s --db %s/runs.db", o, m, m, o));
    }
    BAL_TRY(run(common, "report --all --db %s/runs.db --out %s/report", o, o));
out:
    return status;
}

int cmd_demo(int argc, char **argv)
{
    demo_config config = {0};
    bal_options *options = NULL;
    bool help = false;
    double start = bal_clock_seconds();
    bal_status status = bal_options_parse(&options, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help) {
        const bal_common *common = bal_options_common(options);
        status = config.write_model != NULL ? bal_embedded_write(config.write_model) : demo_run(&config, common);
        double seconds = bal_clock_seconds() - start;
        if (status == BAL_OK && config.write_model != NULL)
            bal_log_line(&common->log, BAL_LOG_INFO, "the embedded model is in %s", config.write_model);
        else if (status == BAL_OK && common->json)
            printf("{\"out\": \"%s\", \"report\": \"%s/report/report.html\", \"seconds\": %.1f}\n", config.out,
                   config.out, seconds);
        else if (status == BAL_OK)
            printf("\nThe report is %s/report/report.html (%.0f s in all).\n", config.out, seconds);
    }
    bal_options_free(options);
    return bal_command_finish(&k_command, status);
}
