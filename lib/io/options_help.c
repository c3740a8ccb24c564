/* --help: the table of options by group, with their defaults.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/options.h"

#include <string.h>

static void print_option(const bal_option *o, FILE *to)
{
    static const char *const kind[] = {"", " N", " X", " TEXT", " PATH", "", " A,B"};
    char left[128];
    size_t n = 0;
    int wrote = snprintf(left, sizeof left, "  %c%c%s--", o->letter != 0 ? '-' : ' ', o->letter != 0 ? o->letter : ' ',
                         o->letter != 0 ? ", " : "  ");
    n = wrote > 0 ? (size_t)wrote : 0;
    for (const char *c = o->name; *c != '\0' && n + 2 < sizeof left; c++)
        left[n++] = *c == '_' ? '-' : *c;
    left[n] = '\0';
    (void)snprintf(left + n, sizeof left - n, "%s%s", o->type == BAL_OPTION_CHOICE ? " " : kind[o->type],
                   o->type == BAL_OPTION_CHOICE ? o->choices : "");
    (void)fprintf(to, "%-34s", left);
    if (strlen(left) >= 34)
        (void)fprintf(to, "\n%-34s", "");
    (void)fprintf(to, " %s", o->help);
    if (o->default_text != NULL && o->default_text[0] != '\0' && o->type != BAL_OPTION_FLAG)
        (void)fprintf(to, " [%s]", o->default_text);
    else if (o->type == BAL_OPTION_FLAG && o->default_text != NULL && strcmp(o->default_text, "true") == 0)
        (void)fprintf(to, " [on; --no-%s turns it off]", o->name);
    (void)fputc('\n', to);
}

void bal_command_print_help(const bal_command *command, FILE *to)
{
    (void)fprintf(to, "usage: balora %s %s\n\n%s\n", command->name, command->usage, command->summary);
    if (command->description != NULL)
        (void)fprintf(to, "\n%s\n", command->description);
    for (size_t i = 0; i < command->n_options; i++) {
        const char *group = command->options[i].group != NULL ? command->options[i].group : "Options";
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++)
            seen = strcmp(command->options[j].group != NULL ? command->options[j].group : "Options", group) == 0;
        if (seen)
            continue;
        (void)fprintf(to, "\n%s:\n", group);
        for (size_t j = i; j < command->n_options; j++)
            if (strcmp(command->options[j].group != NULL ? command->options[j].group : "Options", group) == 0)
                print_option(&command->options[j], to);
    }
    if (command->n_presets > 0) {
        (void)fprintf(to, "\nPresets:\n      --preset NAME                sets several options together:\n");
        for (size_t i = 0; i < command->n_presets; i++)
            (void)fprintf(to, "        %-22s %s\n", command->presets[i].name, command->presets[i].values);
    }
    (void)fprintf(to, "\nFor all commands:\n"
                      "      --config FILE                JSON recipe of options (comments allowed); flags override it\n"
                      "      --json                       one JSON document on stdout\n"
                      "      --threads N                  threads; 0: all cores [0]\n"
                      "      --db FILE                    run database [runs.db, or $BALORA_DB]\n"
                      "  -q, --quiet                      errors only\n"
                      "  -v, --verbose                    more detail\n"
                      "      --no-progress                no progress bar\n"
                      "  -h, --help                       this text\n");
}
