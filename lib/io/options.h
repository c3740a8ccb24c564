/* One table of options per command drives the command line, the recipe, --help, the resolved configuration and
 * the README.  Precedence: defaults < preset < recipe (--config) < flags.  '-' and '_' are the same.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_OPTIONS_H
#define BAL_IO_OPTIONS_H

#include "lib/base/log.h"
#include "lib/base/status.h"
#include "lib/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum bal_option_type {
    BAL_OPTION_FLAG,   /* bool field;   --x, --no-x, recipe true/false */
    BAL_OPTION_INT,    /* int64_t field */
    BAL_OPTION_REAL,   /* double field */
    BAL_OPTION_TEXT,   /* const char * field, NULL when unset */
    BAL_OPTION_PATH,   /* as TEXT; in a recipe relative to the recipe's folder */
    BAL_OPTION_CHOICE, /* as TEXT; one of choices */
    BAL_OPTION_LIST,   /* bal_text_list field; "a,b", repeated flags add, recipe array or text */
    BAL_OPTION_PATHS   /* as LIST, of paths, one a flag; in a recipe relative to the recipe's folder */
} bal_option_type;

typedef struct bal_text_list {
    const char **items;
    size_t n;
} bal_text_list;

typedef struct bal_option {
    const char *name; /* recipe key, e.g. "lora_alpha"; on the command line --lora-alpha */
    char letter;      /* short form, or 0 */
    bal_option_type type;
    size_t offset;            /* of the field in the command's config struct */
    const char *default_text; /* NULL: unset (0, false, NULL, empty) */
    double min, max;          /* INT, REAL; both 0: any */
    const char *choices;      /* "a|b|c" */
    const char *aliases;      /* "x|y": other accepted names */
    const char *group, *help; /* heading and one line in --help */
} bal_option;

typedef struct bal_preset {
    const char *name;
    const char *values; /* JSON object of option values */
} bal_preset;

typedef struct bal_command {
    const char *name;        /* "train" */
    const char *usage;       /* "--model PATH --data FILE [options]" */
    const char *summary;     /* one line */
    const char *description; /* a few lines with examples, shown by --help; may be NULL */
    const bal_option *options;
    size_t n_options;
    const bal_preset *presets; /* option --preset is added when there are any */
    size_t n_presets;
    size_t max_positional; /* words that are not options */
} bal_command;

/* Options every command has: --config FILE, --json, --threads N, --db FILE, --quiet/-q, --verbose/-v,
 * --[no-]progress, --help/-h. */
typedef struct bal_common {
    bool json, quiet, verbose, progress;
    int64_t threads; /* 0: all usable cores */
    const char *db;  /* --db, else BALORA_DB, else "runs.db" */
    bal_log log;
} bal_common;

typedef struct bal_options bal_options;

/* Fills config (a zeroed struct of the command).  argv[0] is the command's name.  *help is set when --help was
 * given (then it was printed on stdout and config is not usable).  BAL_EINVAL with one sentence otherwise; an
 * unknown name suggests the nearest.  Texts live until bal_options_free(). */
bal_status bal_options_parse(bal_options **out, const bal_command *command, int argc, char **argv, void *config,
                             bool *help);
const bal_common *bal_options_common(const bal_options *o);
const char *const *bal_options_positional(const bal_options *o, size_t *n);
/* true when the option was set by preset, recipe or flag (not by its default). */
bool bal_options_given(const bal_options *o, const char *name);
/* The resolved configuration as one JSON object (all options, defaults included). */
const char *bal_options_json(const bal_options *o);
/* The same as a recipe that gives this command again: what was given, by preset, recipe or flag, and what the command
 * worked out; paths in full, so that it may lie anywhere. */
const char *bal_options_recipe(const bal_options *o);
/* The command has worked out the value of an option that was not given and put it into its field: from here on it is
 * recorded as if it had been given (bal_options_given() does not change). */
bal_status bal_options_resolved(bal_options *o, const char *name);
/* Appends the default of an option as JSON; BAL_EINVAL for an unknown name. */
bal_status bal_options_default(bal_options *o, const char *name, bal_buf *out);
void bal_options_free(bal_options *o); /* accepts NULL */

void bal_command_print_help(const bal_command *command, FILE *to);

/* Starts the thread pool for --threads; bal_gemm_init() follows it where products are computed. */
bal_status bal_options_start(const bal_options *o);

/* What a cmd_*.c ends with: prints "balora COMMAND: message" and a hint for usage errors on stderr, and returns
 * the exit status.  For BAL_OK returns 0. */
int bal_command_finish(const bal_command *command, bal_status status);

#endif
