/* Functions of the environment, and the % of texts.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja_impl.h"

#include <inttypes.h>
#include <stdio.h>
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
    bal_jvalue out = bal_j_list(r, BAL_J_PLAIN);
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
    return out;
}

static bal_jvalue show_time(bal_jinja *r, const bal_jargs *args)
{
    time_t now = r->now != 0 ? (time_t)r->now : time(NULL);
    struct tm parts = {0};
    char text[256] = "";
    if (args->n != 1 || args->at[0].kind != BAL_J_TEXT || args->at[0].n > 100) {
        bal_j_fail(r, BAL_EFORMAT, "strftime_now asks for a format of at most 100 characters");
        return bal_j_none();
    }
    bal_jvalue format = bal_j_copy(r, args->at[0].u.text, args->at[0].n);
    if (localtime_r(&now, &parts) == NULL)
        bal_j_fail(r, BAL_EFORMAT, "the time cannot be shown");
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    size_t n = r->status == BAL_OK && format.n > 0 ? strftime(text, sizeof text, format.u.text, &parts) : 0;
#pragma GCC diagnostic pop
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

/* One conversion of a % pattern: its flags, width and precision are those of C. */
static void convert(bal_jinja *r, bal_buf *b, const char *spec, size_t n, char kind, bal_jvalue v)
{
    char format[24] = "", text[512];
    double x = 0;
    int len = 0;
    if (kind == 's' || kind == 'r') {
        bal_buf inner = {0};
        if (kind == 's')
            bal_j_write(r, &inner, v);
        else
            bal_j_repr(r, &inner, v);
        if (n == 1) {
            bal_j_append(r, b, bal_buf_cstr(&inner), inner.len);
        } else if (n < 12) {
            (void)snprintf(format, sizeof format, "%.*ss", (int)n, spec);
            bal_buf padded = {0};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            if (r->status == BAL_OK)
                r->status = bal_buf_printf(&padded, format, bal_buf_cstr(&inner));
#pragma GCC diagnostic pop
            bal_j_append(r, b, bal_buf_cstr(&padded), padded.len);
            bal_buf_dispose(&padded);
        }
        bal_buf_dispose(&inner);
        return;
    }
    bool whole = kind == 'd' || kind == 'i' || kind == 'x' || kind == 'X' || kind == 'o' || kind == 'u';
    if (!bal_j_number(v, &x) || (whole && !(x > -9e18 && x < 9e18))) {
        bal_j_fail(r, BAL_EFORMAT, "%%%c asks for a number, not %s", kind, bal_j_type(v));
        return;
    }
    (void)snprintf(format, sizeof format, "%.*s%s%c", (int)n, spec, whole ? "ll" : "", kind == 'u' ? 'd' : kind);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (whole)
        len = snprintf(text, sizeof text, format, v.kind == BAL_J_INT ? (long long)v.u.i : (long long)x);
    else
        len = snprintf(text, sizeof text, format, x);
#pragma GCC diagnostic pop
    if (len < 0 || (size_t)len >= sizeof text)
        bal_j_fail(r, BAL_ELIMIT, "a number in a %% pattern is longer than 511 characters");
    else
        bal_j_append(r, b, text, (size_t)len);
}

bal_jvalue bal_j_format(bal_jinja *r, bal_jvalue pattern, const bal_jlist *values)
{
    bal_buf b = {0};
    size_t used = 0;
    for (size_t i = 0; i < pattern.n && r->status == BAL_OK;) {
        const char *s = pattern.u.text + i;
        size_t n = 1;
        if (*s != '%') {
            bal_j_append(r, &b, s, 1);
            i++;
            continue;
        }
        while (i + n < pattern.n && n < 8 && s[n] != '\0' && strchr("-+ #0123456789.", s[n]) != NULL)
            n++;
        char kind = i + n < pattern.n ? s[n] : '\0';
        if (kind == '%' && n == 1) {
            bal_j_append(r, &b, "%", 1);
        } else if (kind == '\0' || strchr("srdiuxXofFeEgG", kind) == NULL) {
            bal_j_fail(r, BAL_EUNSUPPORTED, "the conversion '%.*s' of a %% pattern is not supported",
                       (int)(i + n < pattern.n ? n + 1 : n), s);
        } else if (used >= values->n) {
            bal_j_fail(r, BAL_EFORMAT, "a %% pattern has more conversions than values");
        } else {
            convert(r, &b, s, n, kind, values->items[used++]);
        }
        i += n + 1;
    }
    if (r->status == BAL_OK && used < values->n)
        bal_j_fail(r, BAL_EFORMAT, "a %% pattern has fewer conversions than values");
    return bal_j_take_buf(r, &b);
}
