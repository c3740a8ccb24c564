/* What is kept of a command's options: all of them for the record of a run, and a recipe that makes the same run.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/io/options_impl.h"

#include <string.h>
#include <unistd.h>

/* The common options that change what is computed are part of the resolved configuration, the rest is not. */
static bool is_recorded(const bal_options *o, const bal_option_entry *e)
{
    return (size_t)(e - o->entries) < o->n_own || strcmp(e->option->name, "preset") == 0 ||
           strcmp(e->option->name, "threads") == 0;
}

static bal_status put_all(const bal_options *o, bool recipe, bal_buf *out)
{
    bool first = true;
    bal_status status = bal_buf_text(out, "{");
    for (size_t i = 0; i < o->n_entries && status == BAL_OK; i++) {
        const bal_option_entry *e = &o->entries[i];
        if (!is_recorded(o, e) || (recipe && e->source == BAL_FROM_DEFAULT && !e->resolved))
            continue;
        status = bal_json_put_key(out, e->option->name, &first);
        if (status == BAL_OK)
            status = bal_buf_text(out, recipe && e->placed != NULL ? e->placed : e->recorded);
    }
    return status == BAL_OK ? bal_buf_text(out, "}") : status;
}

/* A relative path stands in a recipe for one beside it, wherever the recipe lies; a name of the hub is none. */
static bal_status put_placed(const char *option, const char *text, bal_buf *out)
{
    char here[4096];
    if (text[0] == '\0' || text[0] == '/' || strcmp(text, "-") == 0 || getcwd(here, sizeof here) == NULL ||
        bal_option_is_name(option, text, text))
        return bal_json_put_text(out, text);
    char *path = bal_path_join(here, text);
    bal_status status = path == NULL ? BAL_ENOMEM : bal_json_put_text(out, path);
    bal_free(path);
    return status;
}

static bal_status place(const bal_option_entry *e, bal_buf *out)
{
    const bal_text_list *list = e->field;
    if (e->option->type == BAL_OPTION_PATH)
        return put_placed(e->option->name, *(const char *const *)e->field, out);
    bal_status status = bal_buf_text(out, "[");
    for (size_t i = 0; i < list->n && status == BAL_OK; i++) {
        if (i > 0)
            status = bal_buf_text(out, ", ");
        if (status == BAL_OK)
            status = put_placed(e->option->name, list->items[i], out);
    }
    return status == BAL_OK ? bal_buf_text(out, "]") : status;
}

static bal_status keep_text(bal_buf *b, char **out)
{
    char *text = bal_strdup(bal_buf_cstr(b));
    bal_buf_dispose(b);
    if (text == NULL)
        return BAL_ENOMEM;
    bal_free(*out);
    *out = text;
    return BAL_OK;
}

static bal_status record_one(bal_option_entry *e)
{
    bal_buf b = {0}, placed = {0};
    bool path = e->option->type == BAL_OPTION_PATH || e->option->type == BAL_OPTION_PATHS;
    bal_status status = bal_option_put_json(e, &b);
    if (status == BAL_OK)
        status = keep_text(&b, &e->recorded);
    if (status == BAL_OK && path && e->set && e->source != BAL_FROM_DEFAULT) {
        status = place(e, &placed);
        if (status == BAL_OK)
            status = keep_text(&placed, &e->placed);
    }
    bal_buf_dispose(&b);
    bal_buf_dispose(&placed);
    return status;
}

static bal_status write_both(bal_options *o)
{
    bal_buf_clear(&o->json);
    bal_buf_clear(&o->recipe);
    bal_status status = put_all(o, false, &o->json);
    return status == BAL_OK ? put_all(o, true, &o->recipe) : status;
}

bal_status bal_options_record(bal_options *o)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < o->n_entries && status == BAL_OK; i++)
        status = record_one(&o->entries[i]);
    return status == BAL_OK ? write_both(o) : status;
}

bal_status bal_options_resolved(bal_options *o, const char *name)
{
    bal_option_entry *e = bal_options_find(o, name, strlen(name));
    if (e == NULL)
        return bal_fail(BAL_EINVAL, "there is no option '%s'", name);
    e->resolved = e->set = true;
    bal_status status = record_one(e);
    return status == BAL_OK ? write_both(o) : status;
}

const char *bal_options_json(const bal_options *o)
{
    return bal_buf_cstr(&o->json);
}

const char *bal_options_recipe(const bal_options *o)
{
    return bal_buf_cstr(&o->recipe);
}

/* The entry's own field is lent for it: bal_option_reset() knows all types. */
bal_status bal_options_default(bal_options *o, const char *name, bal_buf *out)
{
    bal_option_entry *e = bal_options_find(o, name, strlen(name)), probe;
    union {
        bool flag;
        int64_t whole;
        double real;
        const char *text;
        bal_text_list list;
    } value;
    if (e == NULL)
        return bal_fail(BAL_EINVAL, "there is no option '%s'", name);
    memset(&value, 0, sizeof value);
    probe = (bal_option_entry){.option = e->option, .field = &value};
    bal_status status = bal_option_reset(o, &probe);
    if (status == BAL_OK)
        status = bal_option_put_json(&probe, out);
    bal_free(probe.items);
    return status;
}
