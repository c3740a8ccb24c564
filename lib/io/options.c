/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/options.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/base/threads.h"
#include "lib/io/json.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

enum { RECIPE_MAX_BYTES = 1 << 20, MAX_NAMES = 512, NAME_BYTES = 96, MAX_LIST = 65536 };

typedef enum source { SOURCE_DEFAULT, SOURCE_PRESET, SOURCE_RECIPE, SOURCE_FLAG } source;

/* Texts are kept in a chain until bal_options_free(): fields of the command's config point at them. */
typedef struct text_node {
    struct text_node *next;
    char text[];
} text_node;

struct bal_options {
    const bal_command *command;
    void *config;
    bal_common common;
    const char *config_path, *preset;
    bool help;
    source *from;          /* per option of the command */
    source *common_from;
    void **lists;          /* arrays of BAL_OPTION_LIST fields, to be freed; per option */
    size_t *list_cap;
    const char **positional;
    size_t n_positional;
    text_node *texts;
    bal_buf json;
};

static const bal_option k_common[] = {
    {"config", 0, BAL_OPTION_PATH, offsetof(struct bal_options, config_path), NULL, 0, 0, NULL, NULL, NULL, ""},
    {"preset", 0, BAL_OPTION_TEXT, offsetof(struct bal_options, preset), NULL, 0, 0, NULL, NULL, NULL, ""},
    {"json", 0, BAL_OPTION_FLAG, offsetof(struct bal_options, common.json), NULL, 0, 0, NULL, NULL, NULL, ""},
    {"threads", 0, BAL_OPTION_INT, offsetof(struct bal_options, common.threads), "0", 0, 256, NULL, NULL, NULL, ""},
    {"db", 0, BAL_OPTION_PATH, offsetof(struct bal_options, common.db), NULL, 0, 0, NULL, NULL, NULL, ""},
    {"quiet", 'q', BAL_OPTION_FLAG, offsetof(struct bal_options, common.quiet), NULL, 0, 0, NULL, NULL, NULL, ""},
    {"verbose", 'v', BAL_OPTION_FLAG, offsetof(struct bal_options, common.verbose), NULL, 0, 0, NULL, NULL, NULL, ""},
    {"progress", 0, BAL_OPTION_FLAG, offsetof(struct bal_options, common.progress), "true", 0, 0, NULL, NULL, NULL, ""},
    {"help", 'h', BAL_OPTION_FLAG, offsetof(struct bal_options, help), NULL, 0, 0, NULL, NULL, NULL, ""},
};
enum { N_COMMON = sizeof k_common / sizeof k_common[0] };

static const char *keep_text(bal_options *o, const char *text)
{
    size_t n = strlen(text) + 1;
    text_node *node = bal_alloc(1, sizeof *node + n);
    if (node == NULL)
        return NULL;
    memcpy(node->text, text, n);
    node->next = o->texts;
    o->texts = node;
    return node->text;
}

/* true if a equals the name b, '-' and '_' being the same; b ends at '|' or NUL. */
static bool name_equal(const char *a, size_t n, const char *b)
{
    size_t i = 0;
    for (; i < n && b[i] != '\0' && b[i] != '|'; i++)
        if ((a[i] == '-' ? '_' : a[i]) != (b[i] == '-' ? '_' : b[i]))
            return false;
    return i == n && (b[i] == '\0' || b[i] == '|');
}

static bool option_named(const bal_option *op, const char *name, size_t n)
{
    if (name_equal(name, n, op->name))
        return true;
    for (const char *a = op->aliases; a != NULL && *a != '\0'; a = strchr(a, '|') != NULL ? strchr(a, '|') + 1 : NULL)
        if (name_equal(name, n, a))
            return true;
    return false;
}

/* The option with that name, and whether it is a common one; NULL if unknown. */
static const bal_option *find_option(const bal_options *o, const char *name, size_t n, bool *common)
{
    for (size_t i = 0; i < o->command->n_options; i++)
        if (option_named(&o->command->options[i], name, n)) {
            *common = false;
            return &o->command->options[i];
        }
    for (size_t i = 0; i < N_COMMON; i++)
        if (option_named(&k_common[i], name, n) && (i != 1 || o->command->n_presets > 0)) {
            *common = true;
            return &k_common[i];
        }
    return NULL;
}

static bal_status unknown_name(const bal_options *o, const char *name, const char *where)
{
    const char *names[MAX_NAMES];
    char plain[NAME_BYTES];
    size_t n = 0;
    for (size_t i = 0; i < o->command->n_options && n < MAX_NAMES; i++)
        names[n++] = o->command->options[i].name;
    for (size_t i = 0; i < N_COMMON && n < MAX_NAMES; i++)
        if (i != 1 || o->command->n_presets > 0)
            names[n++] = k_common[i].name;
    (void)snprintf(plain, sizeof plain, "%s", name);
    for (char *c = plain; *c != '\0'; c++)
        *c = *c == '-' ? '_' : *c;
    const char *near = bal_nearest(plain, names, n);
    return bal_fail(BAL_EINVAL, "%sunknown option '%.60s'%s%s%s", where, name, near != NULL ? "; did you mean '" : "",
                    near != NULL ? near : "", near != NULL ? "'?" : "");
}

static bal_status check_choice(const bal_option *op, const char *text)
{
    for (const char *c = op->choices; c != NULL && *c != '\0'; c = strchr(c, '|') != NULL ? strchr(c, '|') + 1 : NULL)
        if (name_equal(text, strlen(text), c))
            return BAL_OK;
    return bal_fail(BAL_EINVAL, "%s: '%.60s' is none of %s", op->name, text, op->choices);
}

static bal_status list_add(bal_options *o, size_t index, bal_text_list *list, const char *text, size_t n)
{
    char *copy = bal_strndup(text, n);
    const char *kept = copy == NULL ? NULL : keep_text(o, copy);
    bal_free(copy);
    if (kept == NULL)
        return BAL_ENOMEM;
    if (list->n >= MAX_LIST)
        return bal_fail(BAL_ELIMIT, "a list of more than %d entries", MAX_LIST);
    if (list->n == o->list_cap[index]) {
        size_t cap = list->n == 0 ? 8 : 2 * list->n;
        void *items = bal_realloc(o->lists[index], cap, sizeof(char *));
        if (items == NULL)
            return BAL_ENOMEM;
        o->lists[index] = items;
        o->list_cap[index] = cap;
        list->items = items;
    }
    list->items[list->n++] = kept;
    return BAL_OK;
}

static bal_status set_list(bal_options *o, const bal_option *op, bal_text_list *list, const char *text, bool fresh)
{
    size_t index = (size_t)(op - o->command->options);
    if (fresh)
        list->n = 0;
    bal_status status = BAL_OK;
    for (const char *p = text; status == BAL_OK && *p != '\0';) {
        size_t n = strcspn(p, ",");
        if (n > 0)
            status = list_add(o, index, list, p, n);
        p += n + (p[n] == ',');
    }
    return status;
}

/* Stores a text value.  fresh: a list starts anew.  base: folder that a relative path belongs to, or NULL. */
static bal_status set_text(bal_options *o, const bal_option *op, bool common, const char *text, bool fresh, const char *base)
{
    unsigned char *field = (unsigned char *)(common ? (void *)o : o->config) + op->offset;
    bool ranged = op->min != 0 || op->max != 0;
    bal_status status = BAL_OK;
    switch (op->type) {
    case BAL_OPTION_FLAG:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
            return bal_fail(BAL_EINVAL, "%s: '%.60s' is neither true nor false", op->name, text);
        *(bool *)(void *)field = text[0] == 't';
        return BAL_OK;
    case BAL_OPTION_INT:
        status = bal_parse_i64(text, ranged ? (int64_t)op->min : INT64_MIN, ranged ? (int64_t)op->max : INT64_MAX,
                               (int64_t *)(void *)field);
        break;
    case BAL_OPTION_REAL:
        status = bal_parse_f64(text, ranged ? op->min : -DBL_MAX, ranged ? op->max : DBL_MAX, (double *)(void *)field);
        break;
    case BAL_OPTION_CHOICE:
        status = check_choice(op, text);
        if (status != BAL_OK)
            return status;
        *(const char **)(void *)field = keep_text(o, text);
        return *(const char **)(void *)field == NULL ? BAL_ENOMEM : BAL_OK;
    case BAL_OPTION_TEXT:
    case BAL_OPTION_PATH: {
        char *joined = op->type == BAL_OPTION_PATH && base != NULL && strcmp(text, "-") != 0 ? bal_path_join(base, text)
                                                                                             : bal_strdup(text);
        const char *kept = joined == NULL ? NULL : keep_text(o, joined);
        bal_free(joined);
        *(const char **)(void *)field = kept;
        return kept == NULL ? BAL_ENOMEM : BAL_OK;
    }
    case BAL_OPTION_LIST:
        return set_list(o, op, (bal_text_list *)(void *)field, text, fresh);
    }
    return status == BAL_OK ? BAL_OK : bal_fail_note(status, "%s", op->name);
}

static bal_status set_json(bal_options *o, const bal_option *op, bool common, const cJSON *v, const char *base)
{
    char number[40];
    if (cJSON_IsString(v))
        return set_text(o, op, common, v->valuestring, true, base);
    if (cJSON_IsBool(v) && op->type == BAL_OPTION_FLAG)
        return set_text(o, op, common, cJSON_IsTrue(v) ? "true" : "false", true, base);
    if (cJSON_IsNumber(v) && (op->type == BAL_OPTION_INT || op->type == BAL_OPTION_REAL)) {
        bool whole = v->valuedouble > -9e15 && v->valuedouble < 9e15 && v->valuedouble == (double)(int64_t)v->valuedouble;
        if (op->type == BAL_OPTION_INT && whole)
            (void)snprintf(number, sizeof number, "%lld", (long long)v->valuedouble);
        else
            (void)snprintf(number, sizeof number, "%.17g", v->valuedouble);
        return set_text(o, op, common, number, true, base);
    }
    if (cJSON_IsArray(v) && op->type == BAL_OPTION_LIST) {
        bal_text_list *list = (bal_text_list *)(void *)((unsigned char *)o->config + op->offset);
        list->n = 0;
        for (const cJSON *e = v->child; e != NULL; e = e->next) {
            if (!cJSON_IsString(e))
                return bal_fail(BAL_EINVAL, "%s: a list of texts is needed", op->name);
            bal_status status = list_add(o, (size_t)(op - o->command->options), list, e->valuestring, strlen(e->valuestring));
            if (status != BAL_OK)
                return status;
        }
        return BAL_OK;
    }
    return bal_fail(BAL_EINVAL, "%s: a value of another type is needed", op->name);
}

static void mark(bal_options *o, const bal_option *op, bool common, source from)
{
    if (common)
        o->common_from[op - k_common] = from;
    else
        o->from[op - o->command->options] = from;
}

static source marked(const bal_options *o, const bal_option *op, bool common)
{
    return common ? o->common_from[op - k_common] : o->from[op - o->command->options];
}

/* Applies an object of option values, except to options already set by a stronger source. */
static bal_status apply_object(bal_options *o, const cJSON *object, source from, const char *where, const char *base)
{
    for (const cJSON *v = object->child; v != NULL; v = v->next) {
        bool common = false;
        const bal_option *op = find_option(o, v->string, strlen(v->string), &common);
        bal_status status = op == NULL ? unknown_name(o, v->string, "") : BAL_OK;
        if (status == BAL_OK && !cJSON_IsNull(v) && marked(o, op, common) < from) {
            status = set_json(o, op, common, v, base);
            mark(o, op, common, from);
        }
        if (status != BAL_OK)
            return bal_fail_note(status == BAL_EFORMAT ? BAL_EINVAL : status, "%s", where);
    }
    return BAL_OK;
}

static bal_status apply_recipe(bal_options *o)
{
    bal_buf text = {0};
    cJSON *json = NULL;
    char *dir = bal_path_dir(o->config_path);
    bal_status status = dir == NULL ? BAL_ENOMEM : bal_file_read(o->config_path, RECIPE_MAX_BYTES, &text);
    if (status == BAL_OK) {
        status = bal_json_parse_relaxed(&json, bal_buf_cstr(&text), text.len, o->config_path);
        if (status == BAL_OK && !cJSON_IsObject(json))
            status = bal_fail(BAL_EINVAL, "%s: a recipe is one JSON object of options", o->config_path);
        if (status == BAL_EFORMAT)
            status = BAL_EINVAL;
    }
    /* a preset named in the recipe applies before the recipe's other values: taken by the caller */
    if (status == BAL_OK)
        status = apply_object(o, json, SOURCE_RECIPE, o->config_path, dir);
    cJSON_Delete(json);
    bal_buf_dispose(&text);
    bal_free(dir);
    return status;
}

static bal_status apply_preset(bal_options *o)
{
    const char *names[64] = {NULL};
    size_t n = 0;
    for (size_t i = 0; i < o->command->n_presets; i++) {
        const bal_preset *p = &o->command->presets[i];
        if (name_equal(o->preset, strlen(o->preset), p->name)) {
            cJSON *json = NULL;
            bal_status status = bal_json_parse(&json, p->values, strlen(p->values), p->name);
            if (status == BAL_OK)
                status = apply_object(o, json, SOURCE_PRESET, p->name, NULL);
            cJSON_Delete(json);
            return status;
        }
        if (n < 64)
            names[n++] = p->name;
    }
    const char *near = bal_nearest(o->preset, names, n);
    return bal_fail(BAL_EINVAL, "unknown preset '%.60s'; %s '%s'", o->preset, near != NULL ? "did you mean" : "one is",
                    near != NULL ? near : n > 0 ? names[0] : "none");
}

static bal_status set_defaults(bal_options *o)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < o->command->n_options && status == BAL_OK; i++)
        if (o->command->options[i].default_text != NULL)
            status = set_text(o, &o->command->options[i], false, o->command->options[i].default_text, true, NULL);
    for (size_t i = 0; i < N_COMMON && status == BAL_OK; i++)
        if (k_common[i].default_text != NULL)
            status = set_text(o, &k_common[i], true, k_common[i].default_text, true, NULL);
    const char *db = getenv("BALORA_DB");
    o->common.db = db != NULL && db[0] != '\0' ? db : "runs.db";
    return status;
}

/* One word of the command line that begins with '-'; *i moves past its value. */
static bal_status parse_flag(bal_options *o, int argc, char **argv, int *i)
{
    const char *word = argv[*i];
    const char *name = word[1] == '-' ? word + 2 : word + 1;
    const char *equals = strchr(name, '=');
    size_t n = equals != NULL ? (size_t)(equals - name) : strlen(name);
    bool common = false, negated = false;
    const bal_option *op = NULL;
    if (word[1] == '-') {
        op = find_option(o, name, n, &common);
        if (op == NULL && n > 3 && memcmp(name, "no-", 3) == 0) {
            op = find_option(o, name + 3, n - 3, &common);
            negated = op != NULL && op->type == BAL_OPTION_FLAG;
            op = negated ? op : NULL;
        }
    } else if (n == 1) {
        for (size_t j = 0; j < o->command->n_options && op == NULL; j++)
            op = o->command->options[j].letter == name[0] ? &o->command->options[j] : NULL;
        for (size_t j = 0; j < N_COMMON && op == NULL; j++)
            if (k_common[j].letter == name[0]) {
                op = &k_common[j];
                common = true;
            }
    }
    if (op == NULL)
        return unknown_name(o, name, "");
    bool again = marked(o, op, common) == SOURCE_FLAG;
    if (again && op->type != BAL_OPTION_LIST)
        return bal_fail(BAL_EINVAL, "option '%s' is given twice", word);
    mark(o, op, common, SOURCE_FLAG);
    if (op->type == BAL_OPTION_FLAG && equals == NULL)
        return set_text(o, op, common, negated ? "false" : "true", true, NULL);
    const char *value = equals != NULL ? equals + 1 : NULL;
    if (value == NULL) {
        if (*i + 1 >= argc)
            return bal_fail(BAL_EINVAL, "option '%s' needs a value", word);
        value = argv[++*i];
    }
    return set_text(o, op, common, value, !again, NULL);
}

static bal_status parse_words(bal_options *o, int argc, char **argv)
{
    bool only_positional = false;
    for (int i = 1; i < argc; i++) {
        if (!only_positional && strcmp(argv[i], "--") == 0) {
            only_positional = true;
        } else if (!only_positional && argv[i][0] == '-' && argv[i][1] != '\0') {
            bal_status status = parse_flag(o, argc, argv, &i);
            if (status != BAL_OK)
                return status;
        } else {
            if (o->n_positional >= o->command->max_positional)
                return bal_fail(BAL_EINVAL, "'%.60s' is one word too many", argv[i]);
            o->positional[o->n_positional++] = argv[i];
        }
    }
    return BAL_OK;
}

static bal_status put_option(bal_buf *b, const bal_option *op, const unsigned char *field)
{
    switch (op->type) {
    case BAL_OPTION_FLAG:
        return bal_buf_text(b, *(const bool *)(const void *)field ? "true" : "false");
    case BAL_OPTION_INT:
        return bal_buf_printf(b, "%lld", (long long)*(const int64_t *)(const void *)field);
    case BAL_OPTION_REAL:
        return bal_json_put_f64(b, *(const double *)(const void *)field);
    case BAL_OPTION_LIST: {
        const bal_text_list *list = (const bal_text_list *)(const void *)field;
        bal_status status = bal_buf_text(b, "[");
        for (size_t i = 0; i < list->n && status == BAL_OK; i++) {
            if (i > 0)
                status = bal_buf_text(b, ", ");
            if (status == BAL_OK)
                status = bal_json_put_text(b, list->items[i]);
        }
        return status == BAL_OK ? bal_buf_text(b, "]") : status;
    }
    case BAL_OPTION_TEXT:
    case BAL_OPTION_PATH:
    case BAL_OPTION_CHOICE:
        break;
    }
    return bal_json_put_text(b, *(const char *const *)(const void *)field);
}

static bal_status resolve_json(bal_options *o)
{
    bool first = true;
    bal_status status = BAL_OK;
    BAL_TRY(bal_buf_text(&o->json, "{"));
    if (o->preset != NULL) {
        BAL_TRY(bal_json_put_key(&o->json, "preset", &first));
        BAL_TRY(bal_json_put_text(&o->json, o->preset));
    }
    for (size_t i = 0; i < o->command->n_options; i++) {
        const bal_option *op = &o->command->options[i];
        BAL_TRY(bal_json_put_key(&o->json, op->name, &first));
        BAL_TRY(put_option(&o->json, op, (const unsigned char *)o->config + op->offset));
    }
    BAL_TRY(bal_buf_text(&o->json, "}"));
out:
    return status;
}

bal_status bal_options_parse(bal_options **out, const bal_command *command, int argc, char **argv, void *config, bool *help)
{
    bal_status status = BAL_OK;
    *out = NULL;
    *help = false;
    bal_options *o = bal_alloc(1, sizeof *o);
    if (o == NULL)
        return BAL_ENOMEM;
    *out = o; /* the caller frees it, whatever happens */
    o->command = command;
    o->config = config;
    o->from = bal_alloc(command->n_options + 1, sizeof *o->from);
    o->common_from = bal_alloc(N_COMMON, sizeof *o->common_from);
    o->lists = bal_alloc(command->n_options + 1, sizeof *o->lists);
    o->list_cap = bal_alloc(command->n_options + 1, sizeof *o->list_cap);
    o->positional = bal_alloc(command->max_positional + 1, sizeof *o->positional);
    if (o->from == NULL || o->common_from == NULL || o->lists == NULL || o->list_cap == NULL || o->positional == NULL)
        return BAL_ENOMEM;
    BAL_TRY(set_defaults(o));
    BAL_TRY(parse_words(o, argc, argv));
    bal_log_init(&o->common.log, o->common.quiet ? BAL_LOG_ERROR : o->common.verbose ? BAL_LOG_DEBUG : BAL_LOG_INFO);
    if (o->help) {
        *help = true;
        bal_command_print_help(command, stdout);
        return BAL_OK;
    }
    if (o->config_path != NULL)
        BAL_TRY(apply_recipe(o));
    if (o->preset != NULL)
        BAL_TRY(apply_preset(o));
    bal_log_init(&o->common.log, o->common.quiet ? BAL_LOG_ERROR : o->common.verbose ? BAL_LOG_DEBUG : BAL_LOG_INFO);
    BAL_TRY(resolve_json(o));
out:
    return status;
}

bal_status bal_options_start(const bal_options *o)
{
    return bal_threads_start((size_t)o->common.threads);
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
    bool common = false;
    const bal_option *op = find_option(o, name, strlen(name), &common);
    return op != NULL && marked(o, op, common) != SOURCE_DEFAULT;
}

const char *bal_options_json(const bal_options *o)
{
    return bal_buf_cstr(&o->json);
}

void bal_options_free(bal_options *o)
{
    if (o == NULL)
        return;
    for (size_t i = 0; o->lists != NULL && i < o->command->n_options; i++)
        bal_free(o->lists[i]);
    for (text_node *t = o->texts; t != NULL;) {
        text_node *next = t->next;
        bal_free(t);
        t = next;
    }
    bal_free(o->from);
    bal_free(o->common_from);
    bal_free(o->lists);
    bal_free(o->list_cap);
    bal_free(o->positional);
    bal_buf_dispose(&o->json);
    bal_free(o);
}

int bal_command_finish(const bal_command *command, bal_status status)
{
    if (status == BAL_OK)
        return 0;
    (void)fprintf(stderr, "balora %s: %s\n", command->name, bal_error_message());
    if (status == BAL_EINVAL)
        (void)fprintf(stderr, "  (balora %s --help shows the options)\n", command->name);
    return bal_exit_status(status);
}
