/* Options: --help, and the end of a command.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/options_impl.h"

#include <math.h>
#include <string.h>

enum { HELP_COLUMN = 34, HELP_WIDTH = 110 };

static const char *value_word(const bal_option *o)
{
    switch (o->type) {
    case BAL_OPTION_FLAG:
        return "";
    case BAL_OPTION_INT:
        return " N";
    case BAL_OPTION_REAL:
        return " X";
    case BAL_OPTION_TEXT:
        return " TEXT";
    case BAL_OPTION_PATH:
        return " PATH";
    case BAL_OPTION_CHOICE:
        return " WORD";
    case BAL_OPTION_PATHS:
        return " PATH";
    case BAL_OPTION_LIST:
        return " A,B,...";
    }
    return "";
}

/* Words of text, broken at HELP_WIDTH, going on at HELP_COLUMN. */
static void print_wrapped(FILE *to, const char *text, size_t column)
{
    while (*text != '\0') {
        size_t n = strcspn(text, " ");
        if (column > HELP_COLUMN && column + 1 + n > HELP_WIDTH) {
            (void)fprintf(to, "\n%*s", HELP_COLUMN, "");
            column = HELP_COLUMN;
        } else if (column > HELP_COLUMN) {
            (void)fputc(' ', to);
            column++;
        }
        (void)fprintf(to, "%.*s", (int)n, text);
        column += n;
        text += n;
        text += strspn(text, " ");
    }
}

static void describe_range(const bal_option *o, char *out, size_t n)
{
    out[0] = '\0';
    if ((o->type != BAL_OPTION_INT && o->type != BAL_OPTION_REAL) || (o->min == 0 && o->max == 0))
        return;
    if (o->max >= 1e9)
        (void)snprintf(out, n, "at least %.15g", o->min);
    else
        (void)snprintf(out, n, "%.15g .. %.15g", o->min, o->max);
}

static void print_option(FILE *to, const bal_option *o)
{
    char head[160], note[400], range[80], name[80];
    size_t n = 0;
    for (; o->name[n] != '\0' && n + 1 < sizeof name; n++)
        name[n] = o->name[n] == '_' ? '-' : o->name[n];
    name[n] = '\0';
    bool negated = o->type == BAL_OPTION_FLAG && o->default_text != NULL && strcmp(o->default_text, "true") == 0;
    if (o->letter != 0)
        (void)snprintf(head, sizeof head, "  -%c, --%s%s", o->letter, name, value_word(o));
    else
        (void)snprintf(head, sizeof head, "      --%s%s%s", negated ? "[no-]" : "", name, value_word(o));
    (void)fprintf(to, "%-*s", HELP_COLUMN, head);
    if (strlen(head) + 1 > HELP_COLUMN)
        (void)fprintf(to, "\n%*s", HELP_COLUMN, "");
    describe_range(o, range, sizeof range);
    bool has_default = o->default_text != NULL && (o->type != BAL_OPTION_FLAG || negated);
    if (has_default || range[0] != '\0' || o->type == BAL_OPTION_CHOICE)
        (void)snprintf(note, sizeof note, "%s (%s%s%s%s%s%s)", o->help, o->type == BAL_OPTION_CHOICE ? o->choices : "",
                       range, (o->type == BAL_OPTION_CHOICE || range[0] != '\0') && has_default ? "; " : "",
                       has_default ? "default " : "",
                       !has_default                 ? ""
                       : o->default_text[0] == '\0' ? "empty"
                                                    : o->default_text,
                       "");
    else
        (void)snprintf(note, sizeof note, "%s", o->help);
    print_wrapped(to, note, HELP_COLUMN);
    (void)fputc('\n', to);
}

static const char *group_of(const bal_option *o)
{
    return o->group != NULL ? o->group : "Options";
}

static bool group_seen(const bal_command *c, size_t before)
{
    for (size_t i = 0; i < before; i++)
        if (strcmp(group_of(&c->options[i]), group_of(&c->options[before])) == 0)
            return true;
    return false;
}

/* {"r":128,"lr":2e-5} as r 128, lr 2e-5: words that can be wrapped. */
static void print_preset(FILE *to, const char *values)
{
    char text[1024];
    size_t n = 0;
    for (const char *c = values; *c != '\0' && n + 3 < sizeof text; c++) {
        if (*c == ':' || *c == ',') {
            if (*c == ',')
                text[n++] = ',';
            text[n++] = ' ';
        } else if (strchr("{}\" ", *c) == NULL) {
            text[n++] = *c;
        }
    }
    text[n] = '\0';
    print_wrapped(to, text, HELP_COLUMN);
}

void bal_command_print_help(const bal_command *command, FILE *to)
{
    const bal_command *c = command;
    (void)fprintf(to, "usage: balora %s %s\n\n%s\n", c->name, c->usage, c->summary);
    if (c->description != NULL)
        (void)fprintf(to, "\n%s%s", c->description, bal_ends_with(c->description, "\n") ? "" : "\n");
    for (size_t i = 0; i < c->n_options; i++) {
        if (group_seen(c, i))
            continue;
        (void)fprintf(to, "\n%s:\n", group_of(&c->options[i]));
        for (size_t j = i; j < c->n_options; j++)
            if (strcmp(group_of(&c->options[j]), group_of(&c->options[i])) == 0)
                print_option(to, &c->options[j]);
    }
    (void)fputs("\nCommon:\n", to);
    for (size_t i = 0; i < bal_n_common_options; i++)
        if (bal_common_option_applies(&bal_common_options[i], c))
            print_option(to, &bal_common_options[i]);
    if (c->n_presets > 0)
        (void)fputs("\nPresets (--preset NAME):\n", to);
    for (size_t i = 0; i < c->n_presets; i++) {
        (void)fprintf(to, "  %-*s", HELP_COLUMN - 2, c->presets[i].name);
        print_preset(to, c->presets[i].values);
        (void)fputc('\n', to);
    }
}

int bal_command_finish(const bal_command *command, bal_status status)
{
    if (status == BAL_OK)
        return 0;
    bal_progress_break();
    (void)fprintf(stderr, "balora %s: %s\n", command->name, bal_error_message());
    if (status == BAL_EINVAL)
        (void)fprintf(stderr, "Try 'balora %s --help'.\n", command->name);
    return bal_exit_status(status);
}
