/* balora runs: looks at and tends the database of runs.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/options.h"
#include "tools/commands.h"
#include "tools/runs.h"

#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(runs_config, field)
static const bal_option k_options[] = {
    {"kind", 0, BAL_OPTION_CHOICE, AT(kind), NULL, 0, 0, "train|pretrain|evaluate|analyze|demo", NULL, "list",
     "only runs of this kind"},
    {"status", 0, BAL_OPTION_CHOICE, AT(status), NULL, 0, 0, "running|finished|failed|interrupted|lost", NULL, "list",
     "only runs in this state; lost: not heard of for 15 minutes"},
    {"limit", 'n', BAL_OPTION_INT, AT(limit), "50", 0, 1e9, NULL, NULL, "list", "newest runs to show; 0: all"},
    {"exit_code", 0, BAL_OPTION_FLAG, AT(exit_code), NULL, 0, 0, NULL, NULL, "diff",
     "exit status 1 when parameters differ"},
    {"csv", 0, BAL_OPTION_FLAG, AT(csv), "true", 0, 0, NULL, NULL, "export", "CSV (the default; --json for JSON)"},
    {"table", 0, BAL_OPTION_CHOICE, AT(table), "runs", 0, 0, "runs|params|metrics|items|matrices|spectra", NULL,
     "export", "which table goes to standard output"},
    {"out", 'o', BAL_OPTION_PATH, AT(out), NULL, 0, 0, NULL, NULL, "export",
     "write all tables as files into this folder"},
};
#undef AT

static const bal_command k_command = {
    .name = "runs",
    .usage = "list | show RUN | diff A B | export [RUN...] | merge OTHER.db... | rm RUN...  [options]",
    .summary = "looks at and tends the database of runs",
    .description = "RUN is the number or name of a run, its uuid or the beginning of it, or 'last'.\n"
                   "  balora runs list --kind train\n"
                   "  balora runs diff lora pissa\n"
                   "  balora runs export --csv --out csv          every table as a file\n"
                   "  balora runs export --table metrics last     one table, one run, to standard output\n",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
    .max_positional = 1000,
};

typedef struct runs_verb {
    const char *name;
    bal_status (*run)(runs_context *c);
    bool write;
} runs_verb;

static const runs_verb verbs[] = {
    {"diff", runs_diff, false},  {"export", runs_export, false}, {"list", runs_list, false},
    {"merge", runs_merge, true}, {"rm", runs_remove, true},      {"show", runs_show, false},
};
enum { N_VERBS = sizeof verbs / sizeof verbs[0] };

static bal_status find_verb(const char *name, const runs_verb **verb)
{
    const char *names[N_VERBS] = {NULL};
    for (size_t i = 0; i < N_VERBS; i++) {
        names[i] = verbs[i].name;
        if (strcmp(verbs[i].name, name) == 0) {
            *verb = &verbs[i];
            return BAL_OK;
        }
    }
    const char *near = bal_nearest(name, names, N_VERBS);
    if (near != NULL)
        return bal_fail(BAL_EINVAL, "'%.60s' is none of list, show, diff, export, merge, rm; did you mean '%s'?", name,
                        near);
    return bal_fail(BAL_EINVAL, "'%.60s' is none of list, show, diff, export, merge, rm", name);
}

static bal_status execute(const bal_options *options, const runs_config *config)
{
    const runs_verb *verb = NULL;
    runs_context c = {.config = config, .json = bal_options_common(options)->json};
    bal_status status = BAL_OK;
    c.words = bal_options_positional(options, &c.n_words);
    if (c.n_words == 0)
        return bal_fail(BAL_EINVAL, "one of list, show, diff, export, merge, rm is needed");
    BAL_TRY(find_verb(c.words[0], &verb));
    c.words++;
    c.n_words--;
    if (!config->csv && !c.json && verb->run == runs_export)
        BAL_TRY(bal_fail(BAL_EINVAL, "--no-csv leaves no format to export; give --json"));
    BAL_TRY(bal_store_open(&c.store, bal_options_common(options)->db, verb->write));
    BAL_TRY(verb->run(&c));
    if (c.out.len > 0)
        (void)fwrite(c.out.data, 1, c.out.len, stdout); /* the dispatcher checks the stream */
    if (c.differs && config->exit_code)
        status = bal_fail(BAL_EGATE, "the parameters differ");
out:
    bal_buf_dispose(&c.out);
    bal_store_close(c.store);
    return status;
}

int cmd_runs(int argc, char **argv)
{
    runs_config config = {0};
    bal_options *options = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&options, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help)
        status = execute(options, &config);
    bal_options_free(options);
    return bal_command_finish(&k_command, status);
}
