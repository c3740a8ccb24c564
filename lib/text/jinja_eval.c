/* Evaluation of expressions.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/jinja_impl.h"

#include <math.h>
#include <string.h>

static bal_jvalue name_of(bal_jinja *r, const bal_jvalue *name)
{
    for (const bal_jframe *f = r->frame; f != NULL && r->status == BAL_OK; f = f->up)
        for (const bal_jbinding *b = f->first; b != NULL && bal_j_charge(r, 0); b = b->next)
            if (b->n == name->n && memcmp(b->name, name->u.text, b->n) == 0)
                return b->value;
    static const char *const others[] = {"cycler", "joiner", "lipsum"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (bal_j_named(name->u.text, name->n, others[i]))
            bal_j_fail(r, BAL_EUNSUPPORTED, "the function '%s' is not supported", others[i]);
    if (bal_j_is_global(name->u.text, name->n))
        return (bal_jvalue){.kind = BAL_J_GLOBAL, .u.text = name->u.text, .n = name->n};
    return bal_j_undefined(name->u.text, name->n);
}

/* Names that the variable `loop` answers to. */
static bal_jvalue loop_attr(bal_jinja *r, const bal_jloop *loop, const char *name, size_t n)
{
    int64_t at = (int64_t)loop->at, count = (int64_t)loop->list->n;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {{"index", at + 1},
                   {"index0", at},
                   {"revindex", count - at},
                   {"revindex0", count - at - 1},
                   {"length", count},
                   {"depth", (int64_t)loop->depth},
                   {"depth0", (int64_t)loop->depth - 1}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (bal_j_named(name, n, numbers[i].name))
            return bal_j_int(numbers[i].value);
    if (bal_j_named(name, n, "first") || bal_j_named(name, n, "last"))
        return bal_j_bool(name[0] == 'f' ? at == 0 : at + 1 == count);
    if (bal_j_named(name, n, "previtem"))
        return at > 0 ? loop->list->items[at - 1] : bal_j_undefined(name, n);
    if (bal_j_named(name, n, "nextitem"))
        return at + 1 < count ? loop->list->items[at + 1] : bal_j_undefined(name, n);
    (void)r;
    return bal_j_undefined(name, n);
}

static bal_jvalue bound(bal_jinja *r, bal_jvalue self, const char *name, size_t n)
{
    bal_jmethod *m = bal_j_take(r, sizeof *m);
    if (m == NULL)
        return bal_j_none();
    *m = (bal_jmethod){self, name, n};
    return (bal_jvalue){.kind = BAL_J_METHOD, .u.method = m};
}

static bal_jvalue undefined_use(bal_jinja *r, bal_jvalue v)
{
    bal_j_fail(r, BAL_EFORMAT, "'%.*s' is undefined", v.n > 80 ? 80 : (int)v.n, v.u.text != NULL ? v.u.text : "");
    return bal_j_none();
}

/* Names that values of Python have and those here lack: they would count as undefined. */
static void refuse_others(bal_jinja *r, bal_jvalue v, const char *name, size_t n)
{
    static const char *const text[] = {
        "encode", "expandtabs", "format_map", "isidentifier", "isprintable", "istitle", "maketrans", "translate", NULL};
    static const char *const markup[] = {"escape", "striptags", "unescape", NULL};
    static const char *const number[] = {"as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
                                         "from_bytes",       "fromhex",   "hex",        "imag",      "is_integer",
                                         "numerator",        "real",      "to_bytes",   NULL};
    static const char *const range[] = {"start", "stop", "step", NULL}, *const view[] = {"isdisjoint", "mapping", NULL},
                             *const dict[] = {"fromkeys", NULL}, *const none[] = {NULL},
                             *const macro[] = {
                                 "arguments", "caller", "catch_kwargs", "catch_varargs", "explicit_caller",
                                 "name",      NULL};
    const char *const *list = v.kind == BAL_J_TEXT                                                   ? text
                              : v.kind == BAL_J_DICT || v.kind == BAL_J_GLOBAL                       ? dict
                              : v.kind == BAL_J_MACRO                                                ? macro
                              : v.kind == BAL_J_LIST && v.flavor == BAL_J_RANGE                      ? range
                              : v.kind == BAL_J_LIST && v.flavor == BAL_J_VIEW                       ? view
                              : v.kind == BAL_J_BOOL || v.kind == BAL_J_INT || v.kind == BAL_J_FLOAT ? number
                                                                                                     : none;
    for (int i = 0; i < 2; i++) {
        for (; *list != NULL; list++)
            if (bal_j_named(name, n, *list))
                bal_j_fail(r, BAL_EUNSUPPORTED, "'%s' of %s is not supported", *list, bal_j_type(v));
        list = v.kind == BAL_J_TEXT && v.flavor == BAL_J_MARKUP ? markup : none;
    }
}

bal_jvalue bal_j_attr(bal_jinja *r, bal_jvalue v, const char *name, size_t n)
{
    const bal_jvalue *found = NULL;
    if (v.kind == BAL_J_UNDEFINED)
        return undefined_use(r, v);
    if (v.kind == BAL_J_LIST && v.flavor == BAL_J_GROUP)
        for (size_t i = 0; i < 2; i++)
            if (bal_j_named(name, n, i == 0 ? "grouper" : "list"))
                return v.u.list->items[i];
    refuse_others(r, v, name, n);
    if (v.kind == BAL_J_LOOP)
        return bal_j_has_method(v, name, n) ? bound(r, v, name, n) : loop_attr(r, v.u.loop, name, n);
    if (v.kind != BAL_J_NAMESPACE && bal_j_has_method(v, name, n))
        return bound(r, v, name, n);
    if (v.kind == BAL_J_DICT || v.kind == BAL_J_NAMESPACE)
        found = bal_j_find(r, v.u.dict, bal_j_text(name, n));
    return found != NULL ? *found : bal_j_undefined(name, n);
}

bal_jvalue bal_j_item(bal_jinja *r, bal_jvalue v, bal_jvalue key)
{
    if (v.kind == BAL_J_UNDEFINED)
        return undefined_use(r, v);
    if (v.kind == BAL_J_DICT) {
        const bal_jvalue *found = bal_j_find(r, v.u.dict, key);
        if (found != NULL)
            return *found;
    }
    if ((v.kind == BAL_J_LIST || v.kind == BAL_J_TEXT) && (key.kind == BAL_J_INT || key.kind == BAL_J_BOOL)) {
        if (v.kind == BAL_J_LIST && !bal_j_has_places(v))
            return bal_j_undefined("item of a generator", 19);
        size_t n = v.kind == BAL_J_LIST ? v.u.list->n : bal_j_chars(v.u.text, v.n);
        int64_t at = key.kind == BAL_J_INT ? key.u.i : key.u.b;
        at += at < 0 ? (int64_t)n : 0;
        (void)bal_j_charge(r, v.kind == BAL_J_TEXT ? v.n : 0);
        if (at < 0 || (uint64_t)at >= n)
            return bal_j_undefined("item outside of the list", 24);
        if (v.kind == BAL_J_LIST)
            return v.u.list->items[at];
        size_t from = bal_j_offset(v.u.text, v.n, (size_t)at);
        return bal_j_as(bal_j_text(v.u.text + from, bal_j_offset(v.u.text + from, v.n - from, 1)), v.flavor);
    }
    if (key.kind == BAL_J_TEXT)
        return bal_j_attr(r, v, key.u.text, key.n);
    return bal_j_undefined("item", 4);
}

/* Start, stop and step of a slice as Python takes them. */
static bool slice_bound(bal_jinja *r, const bal_jnode *e, int64_t *out, bool *whole)
{
    if (e == NULL)
        return false;
    bal_jvalue v = bal_j_eval(r, e);
    if (v.kind == BAL_J_NONE)
        return false;
    *whole &= v.kind == BAL_J_INT || v.kind == BAL_J_BOOL;
    *out = v.kind == BAL_J_INT ? v.u.i : v.kind == BAL_J_BOOL ? v.u.b : 1;
    return r->status == BAL_OK;
}

static bal_jvalue slice(bal_jinja *r, const bal_jnode *e, bal_jvalue v)
{
    int64_t start = 0, stop = 0, step = 1;
    bool whole = true;
    bool has_start = slice_bound(r, e->b, &start, &whole), has_stop = slice_bound(r, e->c, &stop, &whole);
    (void)slice_bound(r, e->d, &step, &whole);
    if (v.kind == BAL_J_UNDEFINED)
        return undefined_use(r, v);
    bool has_places = v.kind == BAL_J_TEXT || bal_j_has_places(v);
    if (!has_places || !whole || step == 0 || step == INT64_MIN) {
        bal_j_fail(r, BAL_EFORMAT,
                   !has_places ? "%s has no slices"
                   : !whole    ? "a slice of %s asks for whole numbers"
                               : "the step of a slice of %s is 0 or out of range",
                   bal_j_type(v));
        return v;
    }
    bool part = v.kind == BAL_J_TEXT && step == 1; /* a stretch of the text, not its characters one by one */
    const bal_jlist *items = part ? NULL : bal_j_items(r, v);
    if (!bal_j_charge(r, part ? v.n : 0) || (!part && items == NULL))
        return v;
    int64_t n = (int64_t)(part ? bal_j_chars(v.u.text, v.n) : items->n), low = step < 0 ? -1 : 0,
            high = step < 0 ? n - 1 : n;
    start = !has_start ? (step < 0 ? high : low) : start < 0 ? start + n : start;
    stop = !has_stop ? (step < 0 ? low : high) : stop < 0 ? stop + n : stop;
    start = start < low ? low : start > high ? high : start;
    stop = stop < low ? low : stop > high ? high : stop;
    if (part) {
        size_t from = bal_j_offset(v.u.text, v.n, (size_t)start);
        size_t chars = stop > start ? (size_t)(stop - start) : 0;
        return bal_j_as(bal_j_text(v.u.text + from, bal_j_offset(v.u.text + from, v.n - from, chars)), v.flavor);
    }
    bal_jvalue out = bal_j_list(r, v.kind != BAL_J_LIST ? BAL_J_PLAIN : bal_j_is_tuple(v) ? BAL_J_TUPLE : v.flavor);
    for (int64_t i = start; (step > 0 ? i < stop : i > stop) && r->status == BAL_OK;) {
        bal_j_push(r, out.u.list, items->items[i]);
        if (step > 0 ? step >= stop - i : step <= stop - i)
            break;
        i += step;
    }
    if (v.kind == BAL_J_LIST)
        return out;
    bal_buf b = {0};
    for (size_t i = 0; i < out.u.list->n && r->status == BAL_OK; i++)
        bal_j_append(r, &b, out.u.list->items[i].u.text, out.u.list->items[i].n);
    return bal_j_as(bal_j_take_buf(r, &b), v.flavor);
}

static bal_jvalue too_large(bal_jinja *r)
{
    bal_j_fail(r, BAL_ELIMIT, "a whole number leaves 64 bits");
    return bal_j_none();
}

static int64_t floor_div(int64_t a, int64_t b)
{
    int64_t q = a / b;
    return q - ((a % b != 0) && ((a < 0) != (b < 0)));
}

static bal_jvalue whole_op(bal_jinja *r, int op, int64_t a, int64_t b)
{
    int64_t c = 1;
    switch (op) {
    case '+':
        return __builtin_add_overflow(a, b, &c) ? too_large(r) : bal_j_int(c);
    case '-':
        return __builtin_sub_overflow(a, b, &c) ? too_large(r) : bal_j_int(c);
    case '*':
        return __builtin_mul_overflow(a, b, &c) ? too_large(r) : bal_j_int(c);
    case BAL_J_FLOORDIV:
        return a == INT64_MIN && b == -1 ? too_large(r) : bal_j_int(floor_div(a, b));
    case '%':
        return bal_j_int(b == -1 ? 0 : a - b * floor_div(a, b));
    default:
        if (b < 0)
            return bal_j_float(pow((double)a, (double)b));
        for (; b > 0; b--) {
            if (a == 0 || a == 1)
                return bal_j_int(a);
            if (__builtin_mul_overflow(c, a, &c) || !bal_j_charge(r, 0))
                return too_large(r);
        }
        return bal_j_int(c);
    }
}

/* x % y and x // y of Python's floating-point numbers, y not 0: they go together, so that 1 // 0.1 is 9. */
static double modulo(double x, double y)
{
    double m = fmod(x, y);
    return m == 0 ? copysign(0, y) : (m < 0) != (y < 0) ? m + y : m;
}

static double whole_part(double x, double y)
{
    double m = fmod(x, y), q = (x - m) / y;
    q -= m != 0 && (m < 0) != (y < 0) ? 1 : 0;
    if (q == 0)
        return copysign(0, x / y);
    double down = floor(q);
    return q - down > 0.5 ? down + 1 : down;
}

static bal_jvalue number_op(bal_jinja *r, int op, bal_jvalue a, bal_jvalue b)
{
    double x = 0, y = 0;
    bool whole = a.kind != BAL_J_FLOAT && b.kind != BAL_J_FLOAT && op != '/';
    (void)bal_j_number(a, &x);
    (void)bal_j_number(b, &y);
    if (y == 0 && (op == '/' || op == '%' || op == BAL_J_FLOORDIV || (op == BAL_J_POW && x == 0 && y < 0))) {
        bal_j_fail(r, BAL_EFORMAT, "division by zero");
        return bal_j_none();
    }
    if (whole)
        return whole_op(r, op, a.kind == BAL_J_INT ? a.u.i : a.u.b, b.kind == BAL_J_INT ? b.u.i : b.u.b);
    if (op == '%' || op == BAL_J_FLOORDIV)
        return bal_j_float(op == '%' ? modulo(x, y) : whole_part(x, y));
    double z = op == '+' ? x + y : op == '-' ? x - y : op == '*' ? x * y : op == '/' ? x / y : pow(x, y);
    if (op == BAL_J_POW && !isfinite(z) && isfinite(x) && isfinite(y))
        bal_j_fail(r, BAL_EFORMAT, "a power is no number, or too large");
    return bal_j_float(z);
}

static bal_jvalue join_two(bal_jinja *r, bal_jvalue a, bal_jvalue b)
{
    char *text = bal_j_take(r, a.n + b.n + 1);
    if (text == NULL || !bal_j_charge(r, a.n + b.n))
        return bal_j_text("", 0);
    if (a.n > 0)
        memcpy(text, a.u.text, a.n);
    if (b.n > 0)
        memcpy(text + a.n, b.u.text, b.n);
    return bal_j_text(text, a.n + b.n);
}

static bal_jvalue repeat(bal_jinja *r, bal_jvalue v, int64_t times)
{
    if (v.kind == BAL_J_TEXT) {
        bal_buf b = {0};
        for (int64_t i = 0; i < times && v.n > 0 && r->status == BAL_OK; i++)
            bal_j_append(r, &b, v.u.text, v.n);
        return bal_j_as(bal_j_take_buf(r, &b), v.flavor);
    }
    bal_jvalue out = bal_j_list(r, bal_j_is_tuple(v) ? BAL_J_TUPLE : v.flavor);
    for (int64_t i = 0; i < times && v.u.list->n > 0 && r->status == BAL_OK; i++)
        for (size_t j = 0; j < v.u.list->n && r->status == BAL_OK; j++)
            bal_j_push(r, out.u.list, v.u.list->items[j]);
    return out;
}

bal_jvalue bal_j_binary(bal_jinja *r, int op, bal_jvalue a, bal_jvalue b)
{
    double x, y;
    if (op == '~')
        return join_two(r, bal_j_str(r, a), bal_j_str(r, b));
    if (op == '%' && a.kind == BAL_J_TEXT)
        return bal_j_format(r, a, b);
    if (a.kind == BAL_J_UNDEFINED || b.kind == BAL_J_UNDEFINED)
        return undefined_use(r, a.kind == BAL_J_UNDEFINED ? a : b);
    if (bal_j_number(a, &x) && bal_j_number(b, &y))
        return number_op(r, op, a, b);
    if (op == '+' && a.kind == BAL_J_TEXT && b.kind == BAL_J_TEXT) {
        if (a.flavor != BAL_J_MARKUP && b.flavor != BAL_J_MARKUP)
            return join_two(r, a, b);
        return bal_j_as(join_two(r, bal_j_escape(r, a), bal_j_escape(r, b)), BAL_J_MARKUP);
    }
    bool both = a.kind == BAL_J_LIST && b.kind == BAL_J_LIST;
    if (op == '+' && both &&
        (a.flavor == BAL_J_PLAIN ? b.flavor == BAL_J_PLAIN : bal_j_is_tuple(a) && bal_j_is_tuple(b))) {
        bal_jvalue out = bal_j_list(r, a.flavor == BAL_J_PLAIN ? BAL_J_PLAIN : BAL_J_TUPLE);
        for (size_t i = 0; i < a.u.list->n + b.u.list->n && r->status == BAL_OK; i++)
            bal_j_push(r, out.u.list, i < a.u.list->n ? a.u.list->items[i] : b.u.list->items[i - a.u.list->n]);
        return out;
    }
    bool a_repeats = a.kind == BAL_J_TEXT || (bal_j_has_places(a) && a.flavor != BAL_J_RANGE);
    bool b_repeats = b.kind == BAL_J_TEXT || (bal_j_has_places(b) && b.flavor != BAL_J_RANGE);
    if (op == '*' && a_repeats && (b.kind == BAL_J_INT || b.kind == BAL_J_BOOL))
        return repeat(r, a, b.kind == BAL_J_INT ? b.u.i : b.u.b);
    if (op == '*' && b_repeats && (a.kind == BAL_J_INT || a.kind == BAL_J_BOOL))
        return repeat(r, b, a.kind == BAL_J_INT ? a.u.i : a.u.b);
    char sign[3] = {op == BAL_J_FLOORDIV ? '/' : op == BAL_J_POW ? '*' : (char)op, '\0', '\0'};
    sign[1] = op == BAL_J_FLOORDIV || op == BAL_J_POW ? sign[0] : '\0';
    bal_j_fail(r, BAL_EFORMAT, "'%s' does not go with %s and %s", sign, bal_j_type(a), bal_j_type(b));
    return bal_j_none();
}

static bool compare_two(bal_jinja *r, int op, bal_jvalue a, bal_jvalue b)
{
    switch (op) {
    case BAL_J_EQ:
        return bal_j_equal(r, a, b);
    case BAL_J_NE:
        return !bal_j_equal(r, a, b);
    case BAL_J_IN:
        return bal_j_contains(r, a, b);
    case BAL_J_NOT_IN:
        return !bal_j_contains(r, a, b);
    default:
        break;
    }
    if (a.kind == BAL_J_UNDEFINED || b.kind == BAL_J_UNDEFINED) {
        (void)undefined_use(r, a.kind == BAL_J_UNDEFINED ? a : b);
        return false;
    }
    double x = 0, y = 0;
    if (bal_j_number(a, &x) && bal_j_number(b, &y) && (x != x || y != y))
        return false;
    int order = bal_j_order(r, a, b);
    return op == '<' ? order < 0 : op == '>' ? order > 0 : op == BAL_J_LE ? order <= 0 : order >= 0;
}

static bal_jvalue compare(bal_jinja *r, const bal_jnode *e)
{
    bal_jvalue a = bal_j_eval(r, e->a);
    for (const bal_jnode *o = e->list; o != NULL && r->status == BAL_OK; o = o->next) {
        bal_jvalue b = bal_j_eval(r, o->a);
        if (!compare_two(r, o->op, a, b))
            return bal_j_bool(false);
        a = b;
    }
    return bal_j_bool(r->status == BAL_OK);
}

void bal_j_args(bal_jinja *r, const bal_jnode *list, bal_jargs *args)
{
    args->n = 0;
    for (const bal_jnode *e = list; e != NULL && r->status == BAL_OK && args->n < BAL_J_MAX_ARGS; e = e->next) {
        bool named = e->kind == BAL_JN_KEYWORD;
        if (!named && args->n > 0 && args->names[args->n - 1] != NULL)
            bal_j_fail(r, BAL_EFORMAT, "an argument without a name stands behind one with a name");
        args->names[args->n] = named ? e->value.u.text : NULL;
        args->n_names[args->n] = named ? e->value.n : 0;
        for (size_t i = 0; named && i < args->n; i++)
            if (args->names[i] != NULL && args->n_names[i] == e->value.n &&
                memcmp(args->names[i], e->value.u.text, e->value.n) == 0)
                bal_j_fail(r, BAL_EFORMAT, "an argument is given twice");
        args->at[args->n] = bal_j_eval(r, e->a);
        args->n++;
    }
}

const bal_jvalue *bal_j_arg(const bal_jargs *args, size_t at, const char *name)
{
    for (size_t i = 0; i < args->n; i++)
        if (args->names[i] != NULL && bal_j_named(args->names[i], args->n_names[i], name))
            return &args->at[i];
    return at < args->n && args->names[at] == NULL ? &args->at[at] : NULL;
}

bool bal_j_expect(bal_jinja *r, const bal_jargs *args, const char *what, size_t most, const char *const *names)
{
    for (size_t i = 0; i < args->n && r->status == BAL_OK; i++) {
        bool known = args->names[i] == NULL && i < most;
        for (size_t k = 0; args->names[i] != NULL && names != NULL && names[k] != NULL && !known; k++)
            known = bal_j_named(args->names[i], args->n_names[i], names[k]);
        if (!known && args->names[i] != NULL)
            bal_j_fail(r, BAL_EFORMAT, "%s has no argument '%.*s'", what,
                       args->n_names[i] > 60 ? 60 : (int)args->n_names[i], args->names[i]);
        else if (!known)
            bal_j_fail(r, BAL_EFORMAT, "%s takes at most %zu arguments", what, most);
    }
    return r->status == BAL_OK;
}

static bal_jvalue call(bal_jinja *r, const bal_jnode *e)
{
    bal_jargs args;
    bal_jvalue f = bal_j_eval(r, e->a);
    bal_j_args(r, e->list, &args);
    r->line = e->line;
    if (r->status != BAL_OK)
        return bal_j_none();
    if (f.kind == BAL_J_GLOBAL)
        return bal_j_global(r, f.u.text, f.n, &args);
    if (f.kind == BAL_J_METHOD)
        return bal_j_method(r, f.u.method, &args);
    if (f.kind == BAL_J_MACRO)
        return bal_j_call_macro(r, f.u.macro, &args);
    if (f.kind == BAL_J_UNDEFINED)
        return undefined_use(r, f);
    bal_j_fail(r, BAL_EFORMAT, "%s cannot be called", bal_j_type(f));
    return bal_j_none();
}

static bal_jvalue collection(bal_jinja *r, const bal_jnode *e)
{
    if (e->kind == BAL_JN_LIST) {
        bal_jvalue list = bal_j_list(r, e->tuple ? BAL_J_TUPLE : BAL_J_PLAIN);
        for (const bal_jnode *i = e->list; i != NULL && r->status == BAL_OK; i = i->next)
            bal_j_push(r, list.u.list, bal_j_eval(r, i->a));
        return list;
    }
    bal_jvalue dict = bal_j_dict(r);
    for (const bal_jnode *i = e->list; i != NULL && r->status == BAL_OK; i = i->next) {
        bal_jvalue key = bal_j_eval(r, i->a);
        bal_j_put(r, dict.u.dict, key, bal_j_eval(r, i->b));
    }
    return dict;
}

static bal_jvalue negate(bal_jinja *r, const bal_jnode *e)
{
    bal_jvalue v = bal_j_eval(r, e->a);
    double x = 0;
    if (v.kind == BAL_J_UNDEFINED)
        return undefined_use(r, v);
    if (!bal_j_number(v, &x)) {
        bal_j_fail(r, BAL_EFORMAT, "'%c' does not go with %s", (char)e->op, bal_j_type(v));
        return v;
    }
    if (v.kind == BAL_J_FLOAT)
        return bal_j_float(e->op == '-' ? -x : x);
    return whole_op(r, '*', v.kind == BAL_J_INT ? v.u.i : v.u.b, e->op == '-' ? -1 : 1);
}

static bal_jvalue filter_or_test(bal_jinja *r, const bal_jnode *e)
{
    bal_jargs args;
    bal_jvalue v = bal_j_eval(r, e->a);
    bal_j_args(r, e->list, &args);
    r->line = e->line;
    if (r->status != BAL_OK)
        return bal_j_none();
    if (e->kind == BAL_JN_FILTER)
        return bal_j_filter(r, e->value.u.text, e->value.n, v, &args);
    return bal_j_bool(bal_j_test(r, e->value.u.text, e->value.n, v, &args) != e->negated);
}

static bal_jvalue eval_node(bal_jinja *r, const bal_jnode *e)
{
    bal_jvalue v;
    switch ((bal_jnode_kind)e->kind) {
    case BAL_JN_CONST:
        return e->value;
    case BAL_JN_NAME:
        return name_of(r, &e->value);
    case BAL_JN_INPUT:
        return r->input;
    case BAL_JN_LIST:
    case BAL_JN_DICT:
        return collection(r, e);
    case BAL_JN_UNARY:
        return negate(r, e);
    case BAL_JN_BINARY:
        v = bal_j_eval(r, e->a);
        return bal_j_binary(r, e->op, v, bal_j_eval(r, e->b));
    case BAL_JN_AND:
    case BAL_JN_OR:
        v = bal_j_eval(r, e->a);
        return bal_j_truth(v) == (e->kind == BAL_JN_OR) ? v : bal_j_eval(r, e->b);
    case BAL_JN_NOT:
        return bal_j_bool(!bal_j_truth(bal_j_eval(r, e->a)));
    case BAL_JN_COMPARE:
        return compare(r, e);
    case BAL_JN_COND:
        if (bal_j_truth(bal_j_eval(r, e->b)))
            return bal_j_eval(r, e->a);
        return e->c != NULL ? bal_j_eval(r, e->c) : bal_j_undefined("if without else", 15);
    case BAL_JN_ATTR:
        return bal_j_attr(r, bal_j_eval(r, e->a), e->value.u.text, e->value.n);
    case BAL_JN_ITEM:
        v = bal_j_eval(r, e->a);
        return bal_j_item(r, v, bal_j_eval(r, e->b));
    case BAL_JN_SLICE:
        return slice(r, e, bal_j_eval(r, e->a));
    case BAL_JN_CALL:
        return call(r, e);
    default:
        return filter_or_test(r, e);
    }
}

bal_jvalue bal_j_eval(bal_jinja *r, const bal_jnode *e)
{
    bal_jvalue v = bal_j_none();
    r->line = e->line;
    if (bal_j_enter(r) && bal_j_charge(r, 0))
        v = eval_node(r, e);
    bal_j_leave(r);
    return r->status == BAL_OK ? v : bal_j_none();
}
