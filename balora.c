/* The dispatcher: a table of commands, each in its own cmd_*.c.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/status.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/tensor/gemm.h"
#include "lib/tensor/isa.h"
#include "tools/commands.h"

#include <curl/curl.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

typedef struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *summary;
} command;

/* In alphabetical order, one a line. */
static const command k_commands[] = {
    {"analyze", cmd_analyze, "statistics of an adapter's true update, or of generated texts"},
    {"bench", cmd_bench, "speed of a training step, a prompt, decoding, loading"},
    {"convert", cmd_convert, "an adapter in another form: PiSSA to plain LoRA of rank 2r"},
    {"data", cmd_data, "data sets: known ones, a record as the model sees it, generated problems"},
    {"demo", cmd_demo, "the whole pipeline, offline, on the embedded model"},
    {"evaluate", cmd_evaluate, "scores a model on tasks, requests or text"},
    {"forward", cmd_forward, "logits, hidden states, losses and gradients of given token ids"},
    {"generate", cmd_generate, "one prompt or a chat with a model and an adapter"},
    {"inspect", cmd_inspect, "what a model, adapter, tokenizer or data file holds"},
    {"judge", cmd_judge, "MT-Bench by a judge behind an OpenAI-compatible server"},
    {"merge", cmd_merge, "an adapter merged into its base model, as a Hugging Face folder"},
    {"pretrain", cmd_pretrain, "train a small model from scratch, all weights"},
    {"report", cmd_report, "plots and tables of runs, and one HTML page"},
    {"runs", cmd_runs, "list, show, diff, export, merge and remove runs"},
    {"score", cmd_score, "verdicts on stored outputs, without a model"},
    {"serve", cmd_serve, "an OpenAI-compatible server for a model and its adapters"},
    {"tokenize", cmd_tokenize, "text to token ids and back"},
    {"train", cmd_train, "fine-tune a model with LoRA, PiSSA or BA-LoRA"},
    {NULL, NULL, NULL}, /* the end */
};
enum { MAX_COMMANDS = 64 };

static void print_help(FILE *to)
{
    (void)fprintf(
        to, "usage: balora COMMAND [options]\n\nBA-LoRA in C: trains, evaluates and analyses low-rank adapters.\n\n");
    for (const command *c = k_commands; c->name != NULL; c++)
        (void)fprintf(to, "  %-10s  %s\n", c->name, c->summary);
    (void)fprintf(
        to,
        "\n  balora COMMAND --help shows the options of a command; balora --version what it was built with.\n"
        "  Exit status: 0 ok, 1 a gate failed, 2 usage, 3 bad input, 4 memory, disk or network, 130 interrupted.\n");
}

static void print_version(void)
{
    printf("balora %s\n", BAL_VERSION);
    printf("instruction set  %s\n", bal_isa_name());
    printf("BLAS             %s, core %s\n", bal_gemm_version(), bal_gemm_core());
    printf("SQLite           %s\n", sqlite3_libversion());
    printf("libcurl          %s\n", LIBCURL_VERSION); /* built with; opened when it is needed */
    printf("cJSON            %s\n", cJSON_Version());
    printf("compiler         %s\n", __VERSION__);
    printf("real_t           %s\n", BAL_REAL_IS_DOUBLE ? "double" : "float");
}

static const command *find(const char *name)
{
    for (const command *c = k_commands; c->name != NULL; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

static int unknown(const char *name)
{
    const char *names[MAX_COMMANDS] = {NULL};
    size_t n = 0;
    for (const command *c = k_commands; c->name != NULL && n < MAX_COMMANDS; c++)
        names[n++] = c->name;
    const char *near = bal_nearest(name, names, n);
    (void)fprintf(stderr, "balora: unknown command '%.60s'%s%s%s\n  (balora --help lists the commands)\n", name,
                  near != NULL ? "; did you mean '" : "", near != NULL ? near : "", near != NULL ? "'?" : "");
    return 2;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        print_help(stderr);
        return 2;
    }
    if (strcmp(argv[1], "--version") == 0) {
        print_version();
        return 0;
    }
    bool help = strcmp(argv[1], "help") == 0;
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || (help && argc == 2)) {
        print_help(stdout);
        return 0;
    }
    const char *name = help ? argv[2] : argv[1];
    const command *c = find(name);
    if (c == NULL)
        return unknown(name);
    if (help) {
        char flag[] = "--help";
        char *words[] = {argv[2], flag, NULL};
        return c->run(2, words);
    }
    return c->run(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
    (void)signal(SIGXFSZ, SIG_IGN); /* a file over the limit of ulimit -f is an error of write() like a full disk */
    int status = dispatch(argc, argv);
    if (fflush(stdout) != 0 || ferror(stdout) != 0) { /* a full disk behind stdout must not look like success */
        (void)fprintf(stderr, "balora: standard output cannot be written\n");
        return 4;
    }
    return status;
}
