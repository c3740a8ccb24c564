/* Values as Python's str(), repr() and json.dumps() write them.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void bal_j_append(bal_jinja *r, bal_buf *out, const char *text, size_t n)
{
    if (!bal_j_charge(r, n))
        return;
    if (n > BAL_J_MAX_OUTPUT || out->len > BAL_J_MAX_OUTPUT - n || r->captured > (size_t)BAL_J_MAX_OUTPUT * 2)
        bal_j_fail(r, BAL_ELIMIT, "it writes more than %d MB", BAL_J_MAX_OUTPUT >> 20);
    else if (n > 0)
        r->status = bal_buf_append(out, text, n);
}

static void append_text(bal_jinja *r, bal_buf *out, const char *text)
{
    bal_j_append(r, out, text, strlen(text));
}

/* The shortest digits that read back as the same number; an exponent below 1e-4 and from 1e16 on. */
void bal_j_format_float(double f, char out[40])
{
    char digits[40], *end = NULL;
    if (isnan(f) || isinf(f)) {
        (void)snprintf(out, 40, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    int precision = 1;
    do
        (void)snprintf(digits, sizeof digits, "%.*e", precision - 1, f);
    while (strtod(digits, &end) != f && ++precision <= 17);
    int exponent = (int)strtol(strchr(digits, 'e') + 1, &end, 10);
    if (exponent < -4 || exponent >= 16) {
        (void)snprintf(out, 40, "%s", digits);
        return;
    }
    int decimals = precision - 1 - exponent;
    (void)snprintf(out, 40, "%.*f%s", decimals > 0 ? decimals : 0, f, decimals > 0 ? "" : ".0");
}

/* Python writes a text in its quotes, with the double ones if it holds single ones only. */
static void repr_text(bal_jinja *r, bal_buf *out, const char *text, size_t n)
{
    char quote = memchr(text, '\'', n) != NULL && memchr(text, '"', n) == NULL ? '"' : '\'';
    bal_j_append(r, out, &quote, 1);
    for (size_t i = 0; i < n && r->status == BAL_OK;) {
        uint32_t cp = 0;
        size_t m = bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        char escape[16] = "";
        m = m == 0 ? 1 : m;
        utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
        if (cp == '\\' || cp == (uint32_t)quote)
            (void)snprintf(escape, sizeof escape, "\\%c", (char)cp);
        else if (cp == '\n' || cp == '\r' || cp == '\t')
            (void)snprintf(escape, sizeof escape, "\\%c", cp == '\n' ? 'n' : cp == '\r' ? 'r' : 't');
        else if (cp != ' ' && (c == UTF8PROC_CATEGORY_CN || c >= UTF8PROC_CATEGORY_ZS))
            (void)snprintf(escape, sizeof escape,
                           cp < 0x100     ? "\\x%02x"
                           : cp < 0x10000 ? "\\u%04x"
                                          : "\\U%08x",
                           (unsigned)cp);
        if (escape[0] != '\0')
            append_text(r, out, escape);
        else
            bal_j_append(r, out, text + i, m);
        i += m;
    }
    bal_j_append(r, out, &quote, 1);
}

static void repr_list(bal_jinja *r, bal_buf *out, bal_jvalue v) // NOLINT(misc-no-recursion)
{
    bool tuple = bal_j_is_tuple(v);
    if (!tuple && v.flavor != BAL_J_PLAIN)
        bal_j_fail(r, BAL_EUNSUPPORTED, "%s cannot be written as text; use |list",
                   v.flavor == BAL_J_LAZY   ? "a generator"
                   : v.flavor == BAL_J_VIEW ? "keys, values or items of a mapping"
                                            : "a range");
    append_text(r, out, tuple ? "(" : "[");
    for (size_t i = 0; i < v.u.list->n && r->status == BAL_OK; i++) {
        append_text(r, out, i > 0 ? ", " : "");
        bal_j_repr(r, out, v.u.list->items[i]);
    }
    append_text(r, out, tuple ? (v.u.list->n == 1 ? ",)" : ")") : "]");
}

void bal_j_repr(bal_jinja *r, bal_buf *out, bal_jvalue v) // NOLINT(misc-no-recursion): bounded by bal_j_enter
{
    if (!bal_j_enter(r) || v.kind == BAL_J_TEXT) {
        append_text(r, out, v.flavor == BAL_J_MARKUP ? "Markup(" : "");
        if (r->status == BAL_OK)
            repr_text(r, out, v.u.text, v.n);
        append_text(r, out, v.flavor == BAL_J_MARKUP ? ")" : "");
    } else if (v.kind == BAL_J_UNDEFINED) {
        append_text(r, out, "Undefined");
    } else if (v.kind == BAL_J_LIST) {
        repr_list(r, out, v);
    } else if (v.kind == BAL_J_DICT) {
        append_text(r, out, "{");
        for (size_t i = 0; i < v.u.dict->n && r->status == BAL_OK; i++) {
            append_text(r, out, i > 0 ? ", " : "");
            bal_j_repr(r, out, v.u.dict->items[i].key);
            append_text(r, out, ": ");
            bal_j_repr(r, out, v.u.dict->items[i].value);
        }
        append_text(r, out, "}");
    } else {
        bal_j_write(r, out, v);
    }
    bal_j_leave(r);
}

void bal_j_write(bal_jinja *r, bal_buf *out, bal_jvalue v) // NOLINT(misc-no-recursion)
{
    char number[40];
    switch ((bal_jkind)v.kind) {
    case BAL_J_UNDEFINED:
        break;
    case BAL_J_NONE:
        append_text(r, out, "None");
        break;
    case BAL_J_BOOL:
        append_text(r, out, v.u.b ? "True" : "False");
        break;
    case BAL_J_INT:
        (void)snprintf(number, sizeof number, "%" PRId64, v.u.i);
        append_text(r, out, number);
        break;
    case BAL_J_FLOAT:
        bal_j_format_float(v.u.f, number);
        append_text(r, out, number);
        break;
    case BAL_J_TEXT:
        bal_j_append(r, out, v.u.text, v.n);
        break;
    case BAL_J_LIST:
    case BAL_J_DICT:
        bal_j_repr(r, out, v);
        break;
    default:
        bal_j_fail(r, BAL_EFORMAT, "%s cannot be written as text", bal_j_type(v));
    }
}

bal_jvalue bal_j_str(bal_jinja *r, bal_jvalue v)
{
    bal_buf b = {0};
    if (v.kind == BAL_J_TEXT)
        return v;
    bal_j_write(r, &b, v);
    return bal_j_take_buf(r, &b);
}

/* ---- JSON ---- */

static void dump_text(bal_jinja *r, bal_buf *out, const char *text, size_t n, bool ascii)
{
    static const char special[] = "\"\\\b\f\n\r\t";
    append_text(r, out, "\"");
    for (size_t i = 0; i < n && r->status == BAL_OK;) {
        uint32_t cp = 0;
        size_t m = bal_utf8_decode((const unsigned char *)text + i, n - i, &cp);
        char escape[16] = "";
        const char *at = cp > 0 && cp < 0x80 ? strchr(special, (int)cp) : NULL;
        m = m == 0 ? 1 : m;
        if (at != NULL)
            (void)snprintf(escape, sizeof escape, "\\%c", "\"\\bfnrt"[at - special]);
        else if (cp < 0x20 || (ascii && cp > 0x7E && cp < 0x10000))
            (void)snprintf(escape, sizeof escape, "\\u%04x", (unsigned)cp);
        else if (ascii && cp >= 0x10000)
            (void)snprintf(escape, sizeof escape, "\\u%04x\\u%04x", 0xD7C0U + (unsigned)(cp >> 10),
                           0xDC00U + (unsigned)(cp & 0x3FF));
        if (escape[0] != '\0')
            append_text(r, out, escape);
        else
            bal_j_append(r, out, text + i, m);
        i += m;
    }
    append_text(r, out, "\"");
}

static void new_line(bal_jinja *r, bal_buf *out, const bal_jdump *o, size_t level)
{
    if (o->indent == NULL)
        return;
    append_text(r, out, "\n");
    for (size_t i = 0; i < level && r->status == BAL_OK; i++)
        append_text(r, out, o->indent);
}

static void dump_dict(bal_jinja *r, bal_buf *out, const bal_jdict *dict,
                      const bal_jdump *o, // NOLINT(misc-no-recursion)
                      size_t level)
{
    bal_jvalue keys = bal_j_list(r, BAL_J_PLAIN);
    for (size_t i = 0; i < dict->n; i++)
        bal_j_push(r, keys.u.list, dict->items[i].key);
    if (o->sort) {
        bal_jargs exact = {.n = 1};
        exact.at[0] = bal_j_bool(true);
        exact.names[0] = "case_sensitive";
        exact.n_names[0] = strlen(exact.names[0]);
        (void)bal_j_list_filter(r, "sort", 4, keys, &exact, &keys);
    }
    append_text(r, out, "{");
    for (size_t i = 0; r->status == BAL_OK && i < dict->n; i++) {
        bal_jvalue key = keys.u.list->items[i];
        const bal_jvalue *value = bal_j_find(r, dict, key);
        bool quoted =
            key.kind == BAL_J_INT || key.kind == BAL_J_FLOAT || key.kind == BAL_J_BOOL || key.kind == BAL_J_NONE;
        if (key.kind != BAL_J_TEXT && !quoted)
            bal_j_fail(r, BAL_EFORMAT, "%s cannot be a key in JSON", bal_j_type(key));
        if (i > 0)
            append_text(r, out, o->item);
        new_line(r, out, o, level + 1);
        if (quoted)
            append_text(r, out, "\"");
        bal_j_dump(r, out, key, o, level + 1);
        append_text(r, out, quoted ? "\"" : "");
        append_text(r, out, o->key);
        if (value != NULL)
            bal_j_dump(r, out, *value, o, level + 1);
    }
    if (dict->n > 0)
        new_line(r, out, o, level);
    append_text(r, out, "}");
}

void bal_j_dump(bal_jinja *r, bal_buf *out, bal_jvalue v, const bal_jdump *o, size_t level) // NOLINT(misc-no-recursion)
{
    if (!bal_j_enter(r)) {
        bal_j_leave(r);
        return;
    }
    if (v.kind == BAL_J_TEXT) {
        dump_text(r, out, v.u.text, v.n, o->ascii);
    } else if (v.kind == BAL_J_NONE) {
        append_text(r, out, "null");
    } else if (v.kind == BAL_J_BOOL) {
        append_text(r, out, v.u.b ? "true" : "false");
    } else if (v.kind == BAL_J_FLOAT && !isfinite(v.u.f)) {
        append_text(r, out, isnan(v.u.f) ? "NaN" : v.u.f < 0 ? "-Infinity" : "Infinity");
    } else if (v.kind == BAL_J_INT || v.kind == BAL_J_FLOAT) {
        bal_j_write(r, out, v);
    } else if (v.kind == BAL_J_DICT) {
        dump_dict(r, out, v.u.dict, o, level);
    } else if (v.kind == BAL_J_LIST && (v.flavor == BAL_J_PLAIN || bal_j_is_tuple(v))) {
        append_text(r, out, "[");
        for (size_t i = 0; i < v.u.list->n && r->status == BAL_OK; i++) {
            if (i > 0)
                append_text(r, out, o->item);
            new_line(r, out, o, level + 1);
            bal_j_dump(r, out, v.u.list->items[i], o, level + 1);
        }
        if (v.u.list->n > 0)
            new_line(r, out, o, level);
        append_text(r, out, "]");
    } else {
        bal_j_fail(r, BAL_EFORMAT, "%s cannot be written as JSON", bal_j_type(v));
    }
    bal_j_leave(r);
}
