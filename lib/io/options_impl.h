/* What the files of the option parser share; not for others.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_IO_OPTIONS_IMPL_H
#define BAL_IO_OPTIONS_IMPL_H

#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/options.h"

/* Where a value came from; a later one wins. */
typedef enum bal_option_source {
    BAL_FROM_DEFAULT = 0,
    BAL_FROM_PRESET = 1,
    BAL_FROM_RECIPE = 2,
    BAL_FROM_FLAG = 3
} bal_option_source;

/* Values of the options that every command has. */
typedef struct bal_common_values {
    bool json, quiet, verbose, progress, help;
    int64_t threads;
    const char *config, *preset, *db;
} bal_common_values;

typedef struct bal_option_entry {
    const bal_option *option;
    void *field;
    bal_option_source source;
    bool set;           /* has a value: from its default or from any source */
    const char **items; /* of a list: owned here, shown through the field */
    size_t cap;
    bool resolved;           /* the command worked it out: bal_options_resolved() */
    char *recorded, *placed; /* as JSON: the value, and a path as it stands in a recipe (else NULL) */
} bal_option_entry;

struct bal_options {
    const bal_command *command;
    bal_common_values values;
    bal_common common;
    bal_option_entry *entries; /* the command's options, then the common ones */
    size_t n_entries, n_own;   /* n_own: the command's */
    char **owned;              /* texts that the fields point to */
    size_t n_owned, cap_owned;
    const char **positional;
    size_t n_positional;
    bal_buf json, recipe;
};

extern const bal_option bal_common_options[];
extern const size_t bal_n_common_options;
/* --preset is offered only by commands that have presets. */
bool bal_common_option_applies(const bal_option *option, const bal_command *command);

/* '-' and '_' are the same. */
bool bal_option_name_equal(const char *a, size_t n_a, const char *b, size_t n_b);
/* By name or alias; NULL if there is none. */
bal_option_entry *bal_options_find(const bal_options *o, const char *name, size_t n_name);
/* "no option 'x'; did you mean 'y'?" */
bal_status bal_options_unknown(const bal_options *o, const char *name, bool flag);

/* Sets the field.  A list is replaced, unless the flag was given before: then it grows. */
bal_status bal_option_set_text(bal_options *o, bal_option_entry *e, const char *text, bal_option_source source);
/* folder: that of the recipe, NULL for presets. */
bal_status bal_option_set_json(bal_options *o, bal_option_entry *e, const cJSON *value, const char *folder,
                               bal_option_source source);
/* Whether a value of this option names something of the hub, there being no such path. */
bool bal_option_is_name(const char *option, const char *text, const char *path);
/* Makes the texts of bal_options_json() and bal_options_recipe() from the values as they are. */
bal_status bal_options_record(bal_options *o);
/* *out becomes a copy of text that lives as long as the options. */
bal_status bal_option_keep(bal_options *o, const char *text, const char **out);
bal_status bal_option_reset(bal_options *o, bal_option_entry *e); /* to its default */
/* Appends the value as JSON. */
bal_status bal_option_put_json(const bal_option_entry *e, bal_buf *b);

#endif
