/* Filters: one value, and those of texts and numbers.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char *const k_filters[] = {
    "abs",        "attr",    "batch",   "capitalize", "center",   "count",       "d",          "default",   "dictsort",
    "e",          "escape",  "first",   "float",      "format",   "forceescape", "indent",     "int",       "items",
    "join",       "last",    "length",  "list",       "lower",    "map",         "max",        "min",       "reject",
    "rejectattr", "replace", "reverse", "round",      "safe",     "select",      "selectattr", "sort",      "string",
    "sum",        "title",   "tojson",  "trim",       "truncate", "unique",      "upper",      "wordcount", "groupby"};

/* What filters take, in their order; those that are not named here take nothing. */
static const struct {
    const char *name, *args[5];
} k_args[] = {{"attr", {"name"}},
              {"batch", {"linecount", "fill_with"}},
              {"center", {"width"}},
              {"d", {"default_value", "boolean"}},
              {"default", {"default_value", "boolean"}},
              {"dictsort", {"case_sensitive", "by", "reverse"}},
              {"float", {"default"}},
              {"groupby", {"attribute", "default", "case_sensitive"}},
              {"indent", {"width", "first", "blank"}},
              {"int", {"default", "base"}},
              {"join", {"d", "attribute"}},
              {"max", {"case_sensitive", "attribute"}},
              {"min", {"case_sensitive", "attribute"}},
              {"replace", {"old", "new", "count"}},
              {"round", {"precision", "method"}},
              {"sort", {"reverse", "case_sensitive", "attribute"}},
              {"sum", {"attribute", "start"}},
              {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}},
              {"trim", {"chars"}},
              {"truncate", {"length", "killwords", "end", "leeway"}},
              {"unique", {"case_sensitive", "attribute"}}};

/* Other arguments than a filter takes are an error; those that take the name of another filter or test ask that. */
static bool args_fit(bal_jinja *r, const char *name, size_t n, const bal_jargs *args)
{
    static const char *const free[] = {"format", "map", "select", "reject", "selectattr", "rejectattr"};
    static const char *const none[] = {NULL};
    const char *const *names = none;
    char what[60];
    size_t most = 0;
    for (size_t i = 0; i < sizeof free / sizeof *free; i++)
        if (bal_j_named(name, n, free[i]))
            return true;
    for (size_t i = 0; i < sizeof k_args / sizeof *k_args; i++)
        if (bal_j_named(name, n, k_args[i].name))
            names = k_args[i].args;
    while (names[most] != NULL)
        most++;
    (void)snprintf(what, sizeof what, "the filter %.*s", (int)(n < 40 ? n : 40), name);
    return bal_j_expect(r, args, what, most, names);
}

bool bal_j_known_filter(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof k_filters / sizeof k_filters[0]; i++)
        if (bal_j_named(name, n, k_filters[i]))
            return true;
    return false;
}

static int64_t whole_arg(bal_jinja *r, const bal_jargs *args, size_t at, const char *name, int64_t otherwise)
{
    const bal_jvalue *v = bal_j_arg(args, at, name);
    if (v == NULL || v->kind == BAL_J_NONE)
        return otherwise;
    if (v->kind != BAL_J_INT && v->kind != BAL_J_BOOL)
        bal_j_fail(r, BAL_EFORMAT, "the argument '%s' must be a whole number, not %s", name, bal_j_type(*v));
    return v->kind == BAL_J_INT ? v->u.i : v->u.b;
}

static bool flag_arg(const bal_jargs *args, size_t at, const char *name, bool otherwise)
{
    const bal_jvalue *v = bal_j_arg(args, at, name);
    return v != NULL ? bal_j_truth(*v) : otherwise;
}

static bal_jvalue default_filter(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    const bal_jvalue *other = bal_j_arg(args, 0, "default_value");
    (void)r;
    if (v.kind == BAL_J_UNDEFINED || (flag_arg(args, 1, "boolean", false) && !bal_j_truth(v)))
        return other != NULL ? *other : bal_j_text("", 0);
    return v;
}

static bal_jvalue length(bal_jinja *r, bal_jvalue v)
{
    if (v.kind == BAL_J_UNDEFINED)
        return bal_j_int(0);
    if (v.kind == BAL_J_TEXT)
        return bal_j_int((int64_t)bal_j_chars(v.u.text, bal_j_charge(r, v.n) ? v.n : 0));
    if (v.kind == BAL_J_DICT)
        return bal_j_int((int64_t)v.u.dict->n);
    if (v.kind == BAL_J_LIST && v.flavor != BAL_J_LAZY)
        return bal_j_int((int64_t)v.u.list->n);
    if (v.kind == BAL_J_LOOP)
        return bal_j_int((int64_t)v.u.loop->list->n);
    bal_j_fail(r, BAL_EFORMAT, "%s has no length", v.kind == BAL_J_LIST ? "a generator (use |list)" : bal_j_type(v));
    return bal_j_none();
}

static bal_jvalue no_number(bal_jinja *r, bal_jvalue v)
{
    bal_j_fail(r, BAL_EFORMAT, "'%.*s' is undefined", v.n > 80 ? 80 : (int)v.n, v.u.text != NULL ? v.u.text : "");
    return bal_j_none();
}

/* Without white space around it, and without a _ between two digits; others stay and spoil the number. */
static bal_jvalue without_underscores(bal_jinja *r, bal_jvalue v)
{
    bal_jvalue bare = bal_j_strip(r, bal_j_as(v, BAL_J_PLAIN), NULL, true, true);
    bal_buf b = {0};
    for (size_t i = 0; i < bare.n; i++) {
        const char *s = bare.u.text + i;
        bool between = i > 0 && i + 1 < bare.n && s[-1] >= '0' && s[-1] <= '9' && s[1] >= '0' && s[1] <= '9';
        uint32_t cp = 0;
        bool wide = (unsigned char)*s >= 0x80 && bal_utf8_decode((const unsigned char *)s, bare.n - i, &cp) > 0;
        if (wide && bal_j_is_class(cp, 'd'))
            bal_j_fail(r, BAL_EUNSUPPORTED, "digits other than 0 to 9 are not read");
        if (*s == '\0')
            bal_j_append(r, &b, "_", 1); /* no number holds it */
        else if (*s != '_' || !between)
            bal_j_append(r, &b, s, 1);
    }
    return bal_j_take_buf(r, &b);
}

/* As float() of Python: also inf, infinity and nan, but no hexadecimal digits. */
static bool parse_real(const char *text, double *x)
{
    const char *s = text + (text[0] == '+' || text[0] == '-');
    char *end = NULL;
    bool digit = (s[0] >= '0' && s[0] <= '9') || (s[0] == '.' && s[1] >= '0' && s[1] <= '9');
    bool word = strcasecmp(s, "inf") == 0 || strcasecmp(s, "infinity") == 0 || strcasecmp(s, "nan") == 0;
    if ((!digit && !word) || strpbrk(s, "xX") != NULL)
        return false;
    *x = strtod(text, &end);
    return *end == '\0';
}

static bal_jvalue to_int(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    const bal_jvalue *other = bal_j_arg(args, 0, "default");
    double x = 0;
    int64_t i = 0;
    bal_jvalue otherwise = other != NULL ? *other : bal_j_int(0);
    if (v.kind == BAL_J_UNDEFINED)
        return no_number(r, v);
    if (v.kind == BAL_J_INT || v.kind == BAL_J_BOOL)
        return bal_j_int(v.kind == BAL_J_INT ? v.u.i : v.u.b);
    if (whole_arg(r, args, 1, "base", 10) != 10 && v.kind == BAL_J_TEXT)
        bal_j_fail(r, BAL_EUNSUPPORTED, "the filter int knows the base 10 only");
    if (v.kind == BAL_J_TEXT) {
        bal_jvalue bare = without_underscores(r, v);
        if (r->status != BAL_OK)
            return otherwise;
        if (bal_parse_i64(bare.u.text, INT64_MIN, INT64_MAX, &i) == BAL_OK)
            return bal_j_int(i);
        if (!parse_real(bare.u.text, &x) || !isfinite(x))
            return otherwise;
    } else if (!bal_j_number(v, &x) || !isfinite(x)) {
        return otherwise;
    }
    if (!(fabs(x) < 9.2e18))
        bal_j_fail(r, BAL_ELIMIT, "a whole number leaves 64 bits");
    return r->status == BAL_OK ? bal_j_int((int64_t)x) : otherwise;
}

static bal_jvalue to_float(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    const bal_jvalue *other = bal_j_arg(args, 0, "default");
    double x = 0;
    if (v.kind == BAL_J_UNDEFINED)
        return no_number(r, v);
    if (bal_j_number(v, &x))
        return bal_j_float(x);
    bal_jvalue bare = v.kind == BAL_J_TEXT ? without_underscores(r, v) : v;
    if (v.kind == BAL_J_TEXT && r->status == BAL_OK && parse_real(bare.u.text, &x))
        return bal_j_float(x);
    return other != NULL ? *other : bal_j_float(0);
}

/* As Python's round(): the decimal digits nearest, a tie to the even one. */
static bal_jvalue round_filter(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    int64_t digits = whole_arg(r, args, 0, "precision", 0);
    const bal_jvalue *how = bal_j_arg(args, 1, "method");
    double x = 0;
    char text[400], *end = NULL;
    if (!bal_j_number(v, &x) || digits < -300 || digits > 300 || !isfinite(x)) {
        bal_j_fail(r, BAL_EFORMAT, "the filter round does not go with %s and %lld digits", bal_j_type(v),
                   (long long)digits);
        return v;
    }
    if (how != NULL && !bal_j_is(*how, "common") && !bal_j_is(*how, "ceil") && !bal_j_is(*how, "floor"))
        bal_j_fail(r, BAL_EFORMAT, "the filter round knows common, ceil and floor");
    if (how != NULL && (bal_j_is(*how, "ceil") || bal_j_is(*how, "floor"))) {
        double scale = pow(10, (double)digits);
        return bal_j_float((bal_j_is(*how, "ceil") ? ceil(x * scale) : floor(x * scale)) / scale);
    }
    if (v.kind != BAL_J_FLOAT && digits >= 0)
        return bal_j_int((int64_t)(v.kind == BAL_J_INT ? v.u.i : v.u.b));
    if (v.kind == BAL_J_INT && fabs(x) > 9e15)
        bal_j_fail(r, BAL_EUNSUPPORTED, "the filter round does not take whole numbers above 9e15 to powers of ten");
    if (digits >= 0 && digits < 60 && fabs(x) < 1e300) {
        (void)snprintf(text, sizeof text, "%.*f", (int)digits, x);
        return bal_j_float(strtod(text, &end));
    }
    double scale = pow(10, (double)-digits);
    double y = digits < 0 ? rint(x / scale) * scale : x;
    return v.kind != BAL_J_FLOAT ? bal_j_int((int64_t)y) : bal_j_float(y);
}

static bal_jvalue tojson(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    const bal_jvalue *indent = bal_j_arg(args, 1, "indent"), *separators = bal_j_arg(args, 2, "separators");
    char spaces[65] = "";
    bal_jdump o = {.item = ", ",
                   .key = ": ",
                   .ascii = flag_arg(args, 0, "ensure_ascii", false),
                   .sort = flag_arg(args, 3, "sort_keys", false)};
    bal_buf b = {0};
    if (indent != NULL && indent->kind == BAL_J_TEXT) {
        o.indent = bal_j_copy(r, indent->u.text, indent->n).u.text;
    } else if (indent != NULL && indent->kind != BAL_J_NONE) {
        int64_t n = whole_arg(r, args, 1, "indent", 0);
        if (n > 64)
            bal_j_fail(r, BAL_ELIMIT, "tojson indents by at most 64 spaces");
        memset(spaces, ' ', n < 0 ? 0 : n > 64 ? 64 : (size_t)n);
        o.indent = spaces;
    }
    o.item = o.indent != NULL ? "," : o.item;
    if (separators != NULL && separators->kind == BAL_J_LIST && separators->u.list->n == 2 &&
        separators->u.list->items[0].kind == BAL_J_TEXT && separators->u.list->items[1].kind == BAL_J_TEXT) {
        const bal_jvalue *s = separators->u.list->items;
        o.item = bal_j_copy(r, s[0].u.text, s[0].n).u.text;
        o.key = bal_j_copy(r, s[1].u.text, s[1].n).u.text;
    } else if (separators != NULL && separators->kind != BAL_J_NONE) {
        bal_j_fail(r, BAL_EFORMAT, "separators of tojson must be two texts");
    }
    bal_j_dump(r, &b, v, &o, 0);
    return bal_j_take_buf(r, &b);
}

/* Lines behind the first (and it, on request) begin with `width` spaces or a text; blank lines only on request.  Every
 * end of a line that Python's splitlines() knows becomes a newline. */
static bal_jvalue indent(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    const bal_jvalue *width = bal_j_arg(args, 0, "width");
    bool first = flag_arg(args, 1, "first", false), blank = flag_arg(args, 2, "blank", false);
    bal_jvalue text = bal_j_str(r, v), by, none = bal_j_none();
    bal_buf b = {0};
    if (v.kind != BAL_J_TEXT)
        bal_j_fail(r, BAL_EFORMAT, "the filter indent asks for a text, not %s", bal_j_type(v));
    if (width != NULL && width->kind == BAL_J_NONE)
        bal_j_fail(r, BAL_EFORMAT, "the filter indent asks for a width or a text");
    bal_jvalue lines = bal_j_lines(r, bal_j_binary(r, '+', bal_j_as(text, BAL_J_PLAIN), bal_j_text("\n", 1)), none);
    if (width != NULL && width->kind == BAL_J_TEXT)
        by = *width;
    else
        by = bal_j_binary(r, '*', bal_j_text(" ", 1), bal_j_int(whole_arg(r, args, 0, "width", 4)));
    for (size_t i = 0; r->status == BAL_OK && i < lines.u.list->n; i++) {
        bal_jvalue line = lines.u.list->items[i];
        bal_j_append(r, &b, "\n", i > 0);
        if (i == 0 ? first : blank || line.n > 0)
            bal_j_append(r, &b, by.u.text, by.n);
        bal_j_append(r, &b, line.u.text, line.n);
    }
    return bal_j_as(bal_j_take_buf(r, &b), text.flavor);
}

bal_jvalue bal_j_escape(bal_jinja *r, bal_jvalue v)
{
    bal_jvalue text = bal_j_str(r, v);
    bal_buf b = {0};
    if (text.flavor == BAL_J_MARKUP)
        return text;
    for (size_t i = 0; i < text.n && r->status == BAL_OK; i++) {
        static const char special[] = "&<>'\"";
        static const char *const means[] = {"&amp;", "&lt;", "&gt;", "&#39;", "&#34;"};
        const char *at = text.u.text[i] != '\0' ? strchr(special, text.u.text[i]) : NULL;
        if (at != NULL)
            bal_j_append(r, &b, means[at - special], strlen(means[at - special]));
        else
            bal_j_append(r, &b, text.u.text + i, 1);
    }
    return bal_j_as(bal_j_take_buf(r, &b), BAL_J_MARKUP);
}

static bal_jvalue truncate_text(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    int64_t most = whole_arg(r, args, 0, "length", 255), leeway = whole_arg(r, args, 3, "leeway", 5);
    const bal_jvalue *given = bal_j_arg(args, 2, "end");
    bal_jvalue text = bal_j_str(r, v), end = given != NULL ? *given : bal_j_text("...", 3);
    if (v.kind != BAL_J_TEXT)
        bal_j_fail(r, BAL_EFORMAT, "the filter truncate asks for a text, not %s", bal_j_type(v));
    if (end.kind != BAL_J_TEXT || most < (int64_t)bal_j_chars(end.u.text, end.n) || leeway < 0)
        bal_j_fail(r, BAL_EFORMAT, "the filter truncate asks for a length of at least that of its end");
    if (r->status != BAL_OK || (int64_t)bal_j_chars(text.u.text, text.n) <= most + leeway)
        return text;
    size_t n = bal_j_offset(text.u.text, text.n, (size_t)most - bal_j_chars(end.u.text, end.n));
    if (!flag_arg(args, 1, "killwords", false)) {
        const char *space = memrchr(text.u.text, ' ', n);
        n = space != NULL ? (size_t)(space - text.u.text) : n;
    }
    return bal_j_binary(r, '+', bal_j_as(bal_j_text(text.u.text, n), text.flavor), end);
}

static bal_jvalue center(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    bal_jvalue text = bal_j_str(r, v);
    int64_t width = whole_arg(r, args, 0, "width", 80), n = (int64_t)bal_j_chars(text.u.text, text.n);
    int64_t left = width > n ? (width - n) / 2 + ((width - n) & width & 1) : 0;
    bal_jvalue space = bal_j_text(" ", 1);
    bal_jvalue a = bal_j_binary(r, '*', space, bal_j_int(left));
    bal_jvalue b = bal_j_binary(r, '*', space, bal_j_int(width > n ? width - n - left : 0));
    return bal_j_binary(r, '+', bal_j_binary(r, '+', a, text), b);
}

static bal_jvalue word_count(bal_jinja *r, bal_jvalue v)
{
    bal_jvalue text = bal_j_str(r, v);
    int64_t words = 0;
    bool inside = false;
    for (size_t i = 0; i < text.n;) {
        uint32_t cp = 0;
        size_t m = bal_utf8_decode((const unsigned char *)text.u.text + i, text.n - i, &cp);
        bool word = bal_j_is_class(cp, 'w') || cp == '_';
        words += word && !inside;
        inside = word;
        i += m == 0 ? 1 : m;
    }
    return bal_j_int(words);
}

bool bal_j_text_filter(bal_jinja *r, const char *name, size_t n, bal_jvalue v, const bal_jargs *args, bal_jvalue *out)
{
    const bal_jvalue *a = bal_j_arg(args, 0, "chars"), *from = bal_j_arg(args, 0, "old"),
                     *to = bal_j_arg(args, 1, "new");
    if (bal_j_named(name, n, "trim")) {
        bal_jvalue text = bal_j_str(r, v);
        (void)bal_j_charge(r, text.n);
        *out = bal_j_strip(r, text, a != NULL && a->kind != BAL_J_NONE ? a : NULL, true, true);
    } else if (bal_j_named(name, n, "upper") || bal_j_named(name, n, "lower") || bal_j_named(name, n, "title") ||
               bal_j_named(name, n, "capitalize")) {
        bal_jvalue text = bal_j_str(r, v);
        *out =
            bal_j_as(bal_j_case(r, text, name[0] == 't' ? 'T' : name[0]), name[0] == 't' ? BAL_J_PLAIN : text.flavor);
    } else if (bal_j_named(name, n, "replace")) {
        if (from == NULL || to == NULL)
            bal_j_fail(r, BAL_EFORMAT, "the filter replace asks for two texts");
        else
            *out = bal_j_replace(r, bal_j_str(r, v), bal_j_str(r, *from), bal_j_str(r, *to),
                                 whole_arg(r, args, 2, "count", -1));
    } else if (bal_j_named(name, n, "indent")) {
        *out = indent(r, v, args);
    } else if (bal_j_named(name, n, "e") || bal_j_named(name, n, "escape") || bal_j_named(name, n, "forceescape")) {
        *out = bal_j_escape(r, name[0] == 'f' ? bal_j_as(v, BAL_J_PLAIN) : v);
    } else if (bal_j_named(name, n, "truncate")) {
        *out = truncate_text(r, v, args);
    } else if (bal_j_named(name, n, "center")) {
        *out = center(r, v, args);
    } else if (bal_j_named(name, n, "wordcount")) {
        *out = word_count(r, v);
    } else if (bal_j_named(name, n, "string") || bal_j_named(name, n, "safe")) {
        bal_jvalue text = bal_j_str(r, v);
        *out = name[1] == 'a' ? bal_j_as(text, BAL_J_MARKUP) : text;
    } else if (bal_j_named(name, n, "format")) {
        bal_jvalue values = bal_j_list(r, BAL_J_TUPLE);
        for (size_t i = 0; i < args->n; i++) {
            if (args->names[i] != NULL)
                bal_j_fail(r, BAL_EUNSUPPORTED, "the filter format knows no names");
            bal_j_push(r, values.u.list, args->at[i]);
        }
        *out = bal_j_format(r, bal_j_str(r, v), values);
    } else {
        return false;
    }
    return true;
}

bal_jvalue bal_j_filter(bal_jinja *r, const char *name, size_t n, bal_jvalue v, const bal_jargs *args)
{
    bal_jvalue out = bal_j_none();
    double x = 0;
    if (!args_fit(r, name, n, args))
        return out;
    if (bal_j_named(name, n, "default") || bal_j_named(name, n, "d"))
        return default_filter(r, v, args);
    if (bal_j_named(name, n, "tojson"))
        return tojson(r, v, args);
    if (bal_j_named(name, n, "length") || bal_j_named(name, n, "count"))
        return length(r, v);
    if (bal_j_named(name, n, "int"))
        return to_int(r, v, args);
    if (bal_j_named(name, n, "float"))
        return to_float(r, v, args);
    if (bal_j_named(name, n, "round"))
        return round_filter(r, v, args);
    if (bal_j_named(name, n, "attr")) {
        if (args->n != 1 || args->at[0].kind != BAL_J_TEXT)
            bal_j_fail(r, BAL_EFORMAT, "the filter attr asks for a name");
        bool key =
            v.kind == BAL_J_DICT && r->status == BAL_OK && !bal_j_has_method(v, args->at[0].u.text, args->at[0].n);
        return r->status == BAL_OK && !key ? bal_j_attr(r, v, args->at[0].u.text, args->at[0].n)
                                           : bal_j_undefined("attr", 4);
    }
    if (bal_j_named(name, n, "abs")) {
        if (!bal_j_number(v, &x))
            bal_j_fail(r, BAL_EFORMAT, "the filter abs does not go with %s", bal_j_type(v));
        return v.kind == BAL_J_FLOAT ? bal_j_float(fabs(x)) : bal_j_binary(r, '*', v, bal_j_int(x < 0 ? -1 : 1));
    }
    if (bal_j_text_filter(r, name, n, v, args, &out) || bal_j_list_filter(r, name, n, v, args, &out))
        return r->status == BAL_OK ? out : bal_j_none();
    bal_j_fail(r, BAL_EUNSUPPORTED, "the filter '%.*s' is not supported", n > 60 ? 60 : (int)n, name);
    return out;
}
