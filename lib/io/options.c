/* Options: the command line, presets and recipes.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/options.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/io/hub.h"
#include "lib/io/options_impl.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RECIPE_MAX_BYTES = 1 << 20, MAX_NAME = 80, MAX_OPTIONS = 256 };

#define FIELD(name) offsetof(bal_common_values, name)
const bal_option bal_common_options[] = {
    {"config", 0, BAL_OPTION_PATH, FIELD(config), NULL, 0, 0, NULL, NULL, "Common",
     "recipe: a JSON file of option values; flags win over it"},
    {"preset", 0, BAL_OPTION_TEXT, FIELD(preset), NULL, 0, 0, NULL, NULL, "Common", "named set of values"},
    {"json", 0, BAL_OPTION_FLAG, FIELD(json), NULL, 0, 0, NULL, NULL, "Common",
     "print exactly one JSON document on standard output"},
    {"threads", 0, BAL_OPTION_INT, FIELD(threads), "0", 0, 1024, NULL, NULL, "Common",
     "threads to use; 0: all usable cores"},
    {"db", 0, BAL_OPTION_PATH, FIELD(db), "runs.db", 0, 0, NULL, NULL, "Common",
     "database of the runs (or BALORA_DB in the environment)"},
    {"quiet", 'q', BAL_OPTION_FLAG, FIELD(quiet), NULL, 0, 0, NULL, NULL, "Common", "warnings and errors only"},
    {"verbose", 'v', BAL_OPTION_FLAG, FIELD(verbose), NULL, 0, 0, NULL, NULL, "Common", "say more"},
    {"progress", 0, BAL_OPTION_FLAG, FIELD(progress), NULL, 0, 0, NULL, NULL, "Common",
     "progress bar; without the option: when standard error is a terminal"},
    {"help", 'h', BAL_OPTION_FLAG, FIELD(help), NULL, 0, 0, NULL, NULL, "Common", "this text"},
};
const size_t bal_n_common_options = sizeof bal_common_options / sizeof bal_common_options[0];
#undef FIELD

bool bal_common_option_applies(const bal_option *option, const bal_command *command)
{
    return strcmp(option->name, "preset") != 0 || command->n_presets > 0;
}

bool bal_option_name_equal(const char *a, size_t n_a, const char *b, size_t n_b)
{
    if (n_a != n_b)
        return false;
    for (size_t i = 0; i < n_a; i++)
        if ((a[i] == '_' ? '-' : a[i]) != (b[i] == '_' ? '-' : b[i]))
            return false;
    return true;
}

bal_option_entry *bal_options_find(const bal_options *o, const char *name, size_t n_name)
{
    for (size_t i = 0; i < o->n_entries; i++) {
        const bal_option *option = o->entries[i].option;
        if (bal_option_name_equal(option->name, strlen(option->name), name, n_name))
            return &o->entries[i];
        for (const char *a = option->aliases; a != NULL && *a != '\0';) {
            size_t len = strcspn(a, "|");
            if (bal_option_name_equal(a, len, name, n_name))
                return &o->entries[i];
            a += len + (a[len] == '|');
        }
    }
    return NULL;
}

static bal_option_entry *find_name(const bal_options *o, const char *name)
{
    return bal_options_find(o, name, strlen(name));
}

/* The name as it is typed: with '-' on the command line, with '_' in a recipe. */
static const char *spell(const char *name, bool flag, char out[MAX_NAME])
{
    size_t n = 0;
    for (; name[n] != '\0' && n + 1 < MAX_NAME; n++) {
        bool mark = name[n] == '_' || name[n] == '-';
        out[n] = mark ? (flag ? '-' : '_') : name[n];
    }
    out[n] = '\0';
    return out;
}

bal_status bal_options_unknown(const bal_options *o, const char *name, bool flag)
{
    const char *names[MAX_OPTIONS] = {0};
    char typed[MAX_NAME], plain[MAX_NAME], shown[MAX_NAME];
    size_t n = 0;
    const char *mark = flag ? "--" : "";
    for (size_t i = 0; i < o->n_entries && n < MAX_OPTIONS; i++)
        names[n++] = o->entries[i].option->name;
    (void)snprintf(typed, sizeof typed, "%s", name);
    const char *near = bal_nearest(spell(name, false, plain), names, n);
    if (near != NULL)
        return bal_fail(BAL_EINVAL, "unknown option '%s%s'; did you mean '%s%s'?", mark, typed, mark,
                        spell(near, flag, shown));
    return bal_fail(BAL_EINVAL, "unknown option '%s%s'", mark, typed);
}

/* One flag of the command line, found but not yet applied. */
typedef struct flag_word {
    bal_option_entry *entry;
    const char *value;
} flag_word;

typedef struct word_list {
    flag_word *words;
    size_t n, cap;
} word_list;

static bal_status add_word(word_list *list, bal_option_entry *entry, const char *value)
{
    char name[MAX_NAME];
    for (size_t i = 0; i < list->n; i++)
        if (list->words[i].entry == entry && entry->option->type != BAL_OPTION_LIST &&
            entry->option->type != BAL_OPTION_PATHS)
            return bal_fail(BAL_EINVAL, "--%s is given twice", spell(entry->option->name, true, name));
    if (list->n == list->cap) {
        size_t cap = 2 * list->cap + 16;
        flag_word *grown = bal_realloc(list->words, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        list->words = grown;
        list->cap = cap;
    }
    list->words[list->n++] = (flag_word){entry, value};
    return BAL_OK;
}

static bal_status take_value(bal_option_entry *e, const char *attached, int argc, char **argv, int *at, word_list *list)
{
    char name[MAX_NAME];
    const char *value = attached;
    if (value == NULL && e->option->type == BAL_OPTION_FLAG)
        value = "true";
    if (value == NULL) {
        if (*at + 1 >= argc || strncmp(argv[*at + 1], "--", 2) == 0)
            return bal_fail(BAL_EINVAL, "--%s needs a value", spell(e->option->name, true, name));
        value = argv[++*at];
    }
    return add_word(list, e, value);
}

static bal_status take_long(const bal_options *o, int argc, char **argv, int *at, word_list *list)
{
    const char *name = argv[*at] + 2;
    size_t n = strcspn(name, "=");
    const char *attached = name[n] == '=' ? name + n + 1 : NULL;
    bal_option_entry *e = bal_options_find(o, name, n);
    if (e != NULL)
        return take_value(e, attached, argc, argv, at, list);
    if (n > 3 && (strncmp(name, "no-", 3) == 0 || strncmp(name, "no_", 3) == 0)) {
        e = bal_options_find(o, name + 3, n - 3);
        if (e != NULL && e->option->type == BAL_OPTION_FLAG && attached == NULL)
            return add_word(list, e, "false");
        if (e != NULL)
            return bal_fail(BAL_EINVAL, "--%s cannot be used: --%s takes a value, it is no switch", name, name + 3);
    }
    char *copy = bal_strndup(name, n);
    if (copy == NULL)
        return BAL_ENOMEM;
    bal_status status = bal_options_unknown(o, copy, true);
    bal_free(copy);
    return status;
}

static bal_option_entry *find_letter(const bal_options *o, char letter)
{
    for (size_t i = 0; i < o->n_entries; i++)
        if (o->entries[i].option->letter == letter && letter != '\0')
            return &o->entries[i];
    return NULL;
}

static bal_status take_letters(const bal_options *o, int argc, char **argv, int *at, word_list *list)
{
    const char *letters = argv[*at] + 1;
    for (size_t i = 0; letters[i] != '\0'; i++) {
        bal_option_entry *e = find_letter(o, letters[i]);
        if (e == NULL)
            return bal_fail(BAL_EINVAL, "unknown option '-%c'", letters[i]);
        if (e->option->type != BAL_OPTION_FLAG) /* the rest of the word, or the next word, is its value */
            return take_value(e, letters[i + 1] != '\0' ? letters + i + 1 : NULL, argc, argv, at, list);
        bal_status status = add_word(list, e, "true");
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status scan_words(bal_options *o, int argc, char **argv, word_list *list, bool *help)
{
    bool only_words = false;
    const bal_option_entry *help_entry = find_name(o, "help");
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        bal_status status = BAL_OK;
        if (only_words || word[0] != '-' || word[1] == '\0') {
            if (o->n_positional == o->command->max_positional)
                return o->command->max_positional == 0
                           ? bal_fail(BAL_EINVAL, "unexpected word '%.80s'; options begin with --", word)
                           : bal_fail(BAL_EINVAL, "one word too many: '%.80s' (at most %zu are taken)", word,
                                      o->command->max_positional);
            o->positional[o->n_positional++] = word;
        } else if (strcmp(word, "--") == 0) {
            only_words = true;
        } else {
            status = word[1] == '-' ? take_long(o, argc, argv, &i, list) : take_letters(o, argc, argv, &i, list);
        }
        if (status != BAL_OK)
            return status;
        if (list->n > 0 && list->words[list->n - 1].entry == help_entry) {
            *help = true;
            return BAL_OK;
        }
    }
    return BAL_OK;
}

static bal_status apply_preset(bal_options *o, const char *name)
{
    const bal_command *c = o->command;
    const char *names[MAX_OPTIONS] = {0};
    const bal_preset *preset = NULL;
    cJSON *json = NULL;
    bal_status status = BAL_OK;
    size_t n = 0;
    for (size_t i = 0; i < c->n_presets; i++) {
        if (n < MAX_OPTIONS)
            names[n++] = c->presets[i].name;
        if (strcmp(c->presets[i].name, name) == 0)
            preset = &c->presets[i];
    }
    if (preset == NULL) {
        const char *near = bal_nearest(name, names, n);
        return bal_fail(BAL_EINVAL, "no preset '%.60s'; did you mean '%s'? (--help lists them)", name,
                        near != NULL ? near : c->presets[0].name);
    }
    BAL_TRY(bal_json_parse(&json, preset->values, strlen(preset->values), name));
    for (const cJSON *v = json->child; v != NULL; v = v->next) {
        bal_option_entry *e = find_name(o, v->string);
        status =
            e == NULL ? bal_options_unknown(o, v->string, false) : bal_option_set_json(o, e, v, NULL, BAL_FROM_PRESET);
        if (status != BAL_OK) {
            (void)bal_fail_note(status, "preset %s: %s", name, v->string);
            goto out;
        }
    }
out:
    cJSON_Delete(json);
    return status;
}

static bal_status apply_recipe(bal_options *o, const char *path, const cJSON *json)
{
    char *folder = bal_path_dir(path);
    bal_status status = folder == NULL ? BAL_ENOMEM : BAL_OK;
    for (const cJSON *v = json->child; v != NULL && status == BAL_OK; v = v->next) {
        bal_option_entry *e = find_name(o, v->string);
        if (e == NULL) {
            status = bal_fail_note(bal_options_unknown(o, v->string, false), "%s", path);
        } else if (strcmp(e->option->name, "config") == 0 || strcmp(e->option->name, "help") == 0) {
            status = bal_fail(BAL_EINVAL, "%s: key '%s' cannot stand in a recipe", path, v->string);
        } else if (e->source == BAL_FROM_RECIPE) { /* the same option by an alias, or with '-' and with '_' */
            status = bal_fail(BAL_EINVAL, "%s: option '%s' is set twice", path, e->option->name);
        } else {
            status = bal_option_set_json(o, e, v, folder, BAL_FROM_RECIPE);
            if (status != BAL_OK)
                (void)bal_fail_note(status, "%s: %s", path, v->string);
        }
    }
    bal_free(folder);
    return status;
}

static bal_status read_recipe(const char *path, cJSON **json)
{
    bal_buf text = {.limit = RECIPE_MAX_BYTES + 1};
    bal_status status = bal_file_read(path, RECIPE_MAX_BYTES, &text);
    if (status == BAL_OK) {
        status = bal_json_parse_relaxed(json, bal_buf_cstr(&text), text.len, path);
        if (status == BAL_OK && !cJSON_IsObject(*json))
            status = bal_fail(BAL_EINVAL, "%s: a recipe is one JSON object of option names and values", path);
        if (status == BAL_EFORMAT) /* a recipe is part of the usage: exit status 2 */
            status = BAL_EINVAL;
    }
    bal_buf_dispose(&text);
    return status;
}

static const char *word_value(const word_list *list, const char *name)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->words[i].entry->option->name, name) == 0)
            return list->words[i].value;
    return NULL;
}

static bal_status apply_all(bal_options *o, const word_list *list)
{
    const char *path = word_value(list, "config");
    const char *preset = word_value(list, "preset");
    cJSON *json = NULL;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < o->n_entries; i++)
        BAL_TRY(bal_option_reset(o, &o->entries[i]));
    if (path != NULL)
        BAL_TRY(read_recipe(path, &json));
    if (preset == NULL && json != NULL && o->command->n_presets > 0)
        preset = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "preset"));
    if (preset != NULL)
        BAL_TRY(apply_preset(o, preset));
    if (json != NULL)
        BAL_TRY(apply_recipe(o, path, json));
    for (size_t i = 0; i < list->n; i++) {
        const flag_word *w = &list->words[i];
        status = bal_option_set_text(o, w->entry, w->value, BAL_FROM_FLAG);
        if (status != BAL_OK) {
            char name[MAX_NAME];
            (void)bal_fail_note(status, "--%s", spell(w->entry->option->name, true, name));
            goto out;
        }
    }
out:
    cJSON_Delete(json);
    return status;
}

static bal_status resolve(bal_options *o)
{
    const char *from_environment = getenv("BALORA_DB");
    bal_status status = bal_options_record(o);
    const bal_common_values *v = &o->values;
    bal_common *c = &o->common;
    c->json = v->json;
    c->quiet = v->quiet;
    c->verbose = v->verbose;
    c->threads = v->threads;
    c->db = v->db;
    if (!bal_options_given(o, "db") && from_environment != NULL && from_environment[0] != '\0')
        c->db = from_environment;
    c->progress = bal_options_given(o, "progress") ? v->progress : !v->quiet && isatty(STDERR_FILENO) != 0;
    bal_log_init(&c->log, v->verbose ? BAL_LOG_DEBUG : v->quiet ? BAL_LOG_WARN : BAL_LOG_INFO);
    return status;
}

/* One text that may be a name of the hub becomes the path of what it names. */
static bal_status find_one(bal_options *o, bal_hub_kind kind, const char **text)
{
    const bal_hub_options how = {.log = &o->common.log, .progress = o->common.progress};
    char *path = NULL;
    bal_status status = *text != NULL ? bal_hub_find(*text, kind, &how, &path) : BAL_OK;
    if (status == BAL_OK && path != NULL)
        status = bal_option_keep(o, path, text);
    bal_free(path);
    return status;
}

/* --model org/name: what is in the cache of the hub, or comes into it, is what the command sees; what is recorded stays
 * the name. */
static bal_status find_in_hub(bal_options *o)
{
    static const struct {
        const char *name;
        bal_hub_kind kind;
    } searched[] = {{"model", BAL_HUB_MODEL}, {"tokenizer", BAL_HUB_TOKENIZER}, {"adapter", BAL_HUB_ADAPTER}};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < sizeof searched / sizeof searched[0]; i++)
        for (size_t k = 0; k < o->n_own && status == BAL_OK; k++) {
            const bal_option_entry *e = &o->entries[k];
            if (strcmp(e->option->name, searched[i].name) != 0) /* the option itself, not an alias */
                continue;
            /* where "tokenizer" is another name of the option, the weights are not wanted */
            bool only_text = e->option->aliases != NULL && strstr(e->option->aliases, "tokenizer") != NULL;
            if (e->option->type == BAL_OPTION_PATH)
                status = find_one(o, only_text ? BAL_HUB_TOKENIZER : searched[i].kind, e->field);
            const bal_text_list *list = e->option->type == BAL_OPTION_PATHS ? e->field : NULL;
            for (size_t j = 0; list != NULL && status == BAL_OK && j < list->n; j++)
                status = find_one(o, searched[i].kind, &list->items[j]);
        }
    return status;
}

static bal_status options_new(bal_options **out, const bal_command *command, void *config)
{
    bal_options *o = bal_alloc(1, sizeof *o);
    if (o == NULL)
        return BAL_ENOMEM;
    o->command = command;
    o->entries = bal_alloc(command->n_options + bal_n_common_options, sizeof *o->entries);
    o->positional = bal_alloc(command->max_positional, sizeof *o->positional);
    if (o->entries == NULL || o->positional == NULL) {
        bal_options_free(o);
        return BAL_ENOMEM;
    }
    for (size_t i = 0; i < command->n_options; i++) {
        const bal_option *option = &command->options[i];
        o->entries[o->n_entries++] = (bal_option_entry){.option = option, .field = (char *)config + option->offset};
    }
    o->n_own = o->n_entries;
    for (size_t i = 0; i < bal_n_common_options; i++) {
        const bal_option *option = &bal_common_options[i];
        if (bal_common_option_applies(option, command))
            o->entries[o->n_entries++] =
                (bal_option_entry){.option = option, .field = (char *)&o->values + option->offset};
    }
    *out = o;
    return BAL_OK;
}

bal_status bal_options_parse(bal_options **out, const bal_command *command, int argc, char **argv, void *config,
                             bool *help)
{
    bal_options *o = NULL;
    word_list list = {0};
    *out = NULL;
    *help = false;
    bal_status status = options_new(&o, command, config);
    if (status == BAL_OK)
        status = scan_words(o, argc, argv, &list, help);
    if (status == BAL_OK && *help)
        bal_command_print_help(command, stdout);
    if (status == BAL_OK && !*help) {
        status = apply_all(o, &list);
        if (status == BAL_OK)
            status = resolve(o);
        if (status == BAL_OK)
            status = find_in_hub(o);
    }
    bal_free(list.words);
    if (status == BAL_OK && !*help) {
        *out = o;
        return BAL_OK;
    }
    bal_options_free(o);
    return status;
}

const bal_common *bal_options_common(const bal_options *o)
{
    return &o->common;
}

const char *const *bal_options_positional(const bal_options *o, size_t *n)
{
    *n = o->n_positional;
    return o->positional;
}

bool bal_options_given(const bal_options *o, const char *name)
{
    const bal_option_entry *e = find_name(o, name);
    return e != NULL && e->source != BAL_FROM_DEFAULT;
}

void bal_options_free(bal_options *o)
{
    if (o == NULL)
        return;
    for (size_t i = 0; o->entries != NULL && i < o->n_entries; i++) {
        bal_free(o->entries[i].items);
        bal_free(o->entries[i].recorded);
        bal_free(o->entries[i].placed);
    }
    for (size_t i = 0; o->owned != NULL && i < o->n_owned; i++)
        bal_free(o->owned[i]);
    bal_free(o->owned);
    bal_free(o->entries);
    bal_free(o->positional);
    bal_buf_dispose(&o->json);
    bal_buf_dispose(&o->recipe);
    bal_free(o);
}

bal_status bal_options_start(const bal_options *o)
{
    return bal_threads_start((size_t)o->common.threads); /* BLAS follows the pool at its first product */
}
