/* Functions of the environment.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja_impl.h"

#include <string.h>
#include <time.h>

bool bal_j_is_global(const char *name, size_t n)
{
    static const char *const names[] = {"range", "dict", "namespace", "raise_exception", "strftime_now"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (bal_j_named(name, n, names[i]))
            return true;
    return false;
}

static bal_jvalue range(bal_jinja *r, const bal_jargs *args)
{
    bal_jvalue out = bal_j_list(r, BAL_J_RANGE);
    int64_t v[3] = {0, 0, 1};
    for (size_t i = 0; i < args->n && i < 3; i++) {
        if (args->at[i].kind != BAL_J_INT || args->names[i] != NULL)
            bal_j_fail(r, BAL_EFORMAT, "range asks for whole numbers, not %s", bal_j_type(args->at[i]));
        v[args->n == 1 ? 1 : i] = args->at[i].u.i;
    }
    if (args->n == 0 || args->n > 3 || v[2] == 0)
        bal_j_fail(r, BAL_EFORMAT, "range asks for one to three numbers and a step that is not 0");
    size_t n = 0;
    for (int64_t i = v[0]; (v[2] > 0 ? i < v[1] : i > v[1]) && r->status == BAL_OK;) {
        if (++n > BAL_J_MAX_RANGE)
            bal_j_fail(r, BAL_ELIMIT, "a range is longer than %d", BAL_J_MAX_RANGE);
        bal_j_push(r, out.u.list, bal_j_int(i));
        if (__builtin_add_overflow(i, v[2], &i))
            break;
    }
    return out;
}

static bal_jvalue mapping(bal_jinja *r, const bal_jargs *args, bool namespaced)
{
    bal_jvalue out = bal_j_dict(r);
    out.kind = namespaced ? BAL_J_NAMESPACE : BAL_J_DICT;
    if (args->n > 1 && args->names[1] == NULL)
        bal_j_fail(r, BAL_EFORMAT, "dict and namespace ask for one mapping at most, and for names");
    for (size_t i = 0; i < args->n && r->status == BAL_OK; i++) {
        bal_jvalue v = args->at[i];
        if (args->names[i] != NULL) {
            bal_j_put(r, out.u.dict, bal_j_text(args->names[i], args->n_names[i]), v);
        } else if (v.kind == BAL_J_DICT) {
            for (size_t k = 0; k < v.u.dict->n && r->status == BAL_OK; k++)
                bal_j_put(r, out.u.dict, v.u.dict->items[k].key, v.u.dict->items[k].value);
        } else {
            const bal_jlist *pairs = bal_j_items(r, v);
            for (size_t k = 0; pairs != NULL && k < pairs->n && r->status == BAL_OK; k++) {
                const bal_jlist *pair = bal_j_items(r, pairs->items[k]);
                if (pair != NULL && pair->n == 2)
                    bal_j_put(r, out.u.dict, pair->items[0], pair->items[1]);
                else
                    bal_j_fail(r, BAL_EFORMAT, "dict asks for pairs of a key and a value");
            }
        }
    }
    for (size_t k = 0; namespaced && k < out.u.dict->n; k++) {
        bal_jvalue key = out.u.dict->items[k].key;
        if (key.kind == BAL_J_TEXT && key.n > 0 && key.u.text[0] == '_')
            bal_j_fail(r, BAL_EFORMAT, "a name of a namespace may not begin with _");
    }
    return out;
}

/* The format without what Python's datetime does itself: a time without a zone shows nothing for %z and %Z. */
static bal_jvalue time_format(bal_jinja *r, bal_jvalue v)
{
    bal_buf b = {0};
    for (size_t i = 0; i < v.n; i++) {
        char next = v.u.text[i] == '%' && i + 1 < v.n ? v.u.text[i + 1] : '\0';
        if (next == 'f' || next == ':')
            bal_j_fail(r, BAL_EUNSUPPORTED, "strftime_now does not know %%%c", next);
        if (next == '\0')
            bal_j_append(r, &b, v.u.text + i, 1);
        else if (next != 'z' && next != 'Z')
            bal_j_append(r, &b, v.u.text + i, 2);
        i += next != '\0';
    }
    return bal_j_take_buf(r, &b);
}

static bal_jvalue show_time(bal_jinja *r, const bal_jargs *args)
{
    time_t now = r->now != 0 ? (time_t)r->now : time(NULL);
    struct tm parts = {0};
    char text[4096] = "";
    if (args->n != 1 || args->at[0].kind != BAL_J_TEXT || args->at[0].n > 100) {
        bal_j_fail(r, BAL_EFORMAT, "strftime_now asks for a format of at most 100 characters");
        return bal_j_none();
    }
    bal_jvalue format = time_format(r, args->at[0]);
    if (localtime_r(&now, &parts) == NULL)
        bal_j_fail(r, BAL_EFORMAT, "the time cannot be shown");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = r->status == BAL_OK && format.n > 0 ? strftime(text, sizeof text, format.u.text, &parts) : 0;
#pragma GCC diagnostic pop
    if (n == 0 && format.n > 0)
        bal_j_fail(r, BAL_ELIMIT, "strftime_now makes more than %zu characters", sizeof text - 1);
    return bal_j_copy(r, text, n);
}

bal_jvalue bal_j_global(bal_jinja *r, const char *name, size_t n, const bal_jargs *args)
{
    if (bal_j_named(name, n, "range"))
        return range(r, args);
    if (bal_j_named(name, n, "dict") || bal_j_named(name, n, "namespace"))
        return mapping(r, args, name[0] == 'n');
    if (bal_j_named(name, n, "strftime_now"))
        return show_time(r, args);
    bal_jvalue message = args->n > 0 ? bal_j_str(r, args->at[0]) : bal_j_text("no reason given", 15);
    bal_j_fail(r, BAL_EFORMAT, "it refuses this conversation: %.*s", message.n > 400 ? 400 : (int)message.n,
               message.u.text);
    return bal_j_none();
}
