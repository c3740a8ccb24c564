/* Methods of texts and mappings, as Python has them; those that would change a value are refused, as in transformers'
 * sandbox.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja_impl.h"

#include <stdio.h>
#include <string.h>

static const char *const k_text[] = {
    "strip",   "lstrip",  "rstrip",  "split",      "rsplit",       "splitlines",   "startswith", "endswith",
    "upper",   "lower",   "title",   "capitalize", "swapcase",     "casefold",     "replace",    "find",
    "rfind",   "index",   "count",   "join",       "removeprefix", "removesuffix", "partition",  "rpartition",
    "isdigit", "isalpha", "isalnum", "isspace",    "isupper",      "islower",      "isdecimal",  "isnumeric",
    "zfill",   "ljust",   "rjust",   "format",     "center",       "rindex",       "isascii"};
static const char *const k_dict[] = {"get",    "items", "keys",       "values", "copy",
                                     "update", "pop",   "setdefault", "clear",  "popitem"};
static const char *const k_list[] = {"index",  "count", "copy", "append",  "extend", "insert",
                                     "remove", "pop",   "sort", "reverse", "clear"};
static const char *const k_places[] = {"index", "count"}; /* of tuples and ranges */
static const char *const k_loop[] = {"cycle", "changed"};

bool bal_j_has_method(bal_jvalue v, const char *name, size_t n)
{
    const char *const *list = v.kind == BAL_J_TEXT   ? k_text
                              : v.kind == BAL_J_DICT ? k_dict
                              : v.kind == BAL_J_LIST ? (v.flavor == BAL_J_PLAIN ? k_list : k_places)
                                                     : k_loop;
    size_t count = v.kind == BAL_J_TEXT                              ? sizeof k_text / sizeof *k_text
                   : v.kind == BAL_J_DICT                            ? sizeof k_dict / sizeof *k_dict
                   : v.kind == BAL_J_LIST && v.flavor == BAL_J_PLAIN ? sizeof k_list / sizeof *k_list
                   : bal_j_has_places(v)                             ? sizeof k_places / sizeof *k_places
                   : v.kind == BAL_J_LOOP                            ? sizeof k_loop / sizeof *k_loop
                                                                     : 0;
    for (size_t i = 0; i < count; i++)
        if (bal_j_named(name, n, list[i]))
            return true;
    return false;
}

static bool in_set(const bal_jvalue *chars, const char *c, size_t n)
{
    uint32_t cp = 0;
    if (chars == NULL)
        return bal_utf8_decode((const unsigned char *)c, n, &cp) > 0 && bal_j_space(cp);
    for (size_t i = 0, m; i < chars->n; i += m) {
        m = bal_j_offset(chars->u.text + i, chars->n - i, 1);
        if (m == n && memcmp(chars->u.text + i, c, n) == 0)
            return true;
    }
    return false;
}

bal_jvalue bal_j_strip(bal_jinja *r, bal_jvalue v, const bal_jvalue *chars, bool left, bool right)
{
    size_t begin = 0, end = v.n;
    if (chars != NULL && chars->kind != BAL_J_TEXT) {
        bal_j_fail(r, BAL_EFORMAT, "strip asks for a text, not %s", bal_j_type(*chars));
        return v;
    }
    while (left && begin < end && bal_j_charge(r, chars != NULL ? chars->n : 0)) {
        size_t m = bal_j_offset(v.u.text + begin, end - begin, 1);
        if (!in_set(chars, v.u.text + begin, m))
            break;
        begin += m;
    }
    while (right && end > begin && bal_j_charge(r, chars != NULL ? chars->n : 0)) {
        size_t at = end - 1;
        while (at > begin && ((unsigned char)v.u.text[at] & 0xC0) == 0x80)
            at--;
        if (!in_set(chars, v.u.text + at, end - at))
            break;
        end = at;
    }
    return bal_j_as(bal_j_text(v.u.text + begin, end - begin), v.flavor);
}

bal_jvalue bal_j_replace(bal_jinja *r, bal_jvalue v, bal_jvalue from, bal_jvalue to, int64_t most)
{
    bal_buf b = {0};
    size_t done = 0, at = 0;
    (void)bal_j_charge(r, v.n);
    while (at <= v.n && most != 0 && r->status == BAL_OK) {
        const char *hit = memmem(v.u.text + at, v.n - at, from.u.text, from.n);
        if (hit == NULL)
            break;
        size_t begin = (size_t)(hit - v.u.text);
        bal_j_append(r, &b, v.u.text + done, begin - done);
        bal_j_append(r, &b, to.u.text, to.n);
        done = begin + from.n;
        at = from.n > 0 ? done : begin + (begin < v.n ? bal_j_offset(v.u.text + begin, v.n - begin, 1) : 1);
        most -= most > 0;
    }
    bal_j_append(r, &b, v.u.text + done, v.n - done);
    return bal_j_take_buf(r, &b);
}

static bal_jvalue cut(bal_jinja *r, bal_jvalue v, const bal_jargs *args, bool from_right)
{
    bal_jvalue out = bal_j_list(r, BAL_J_PLAIN);
    const bal_jvalue *by = bal_j_arg(args, 0, "sep"), *limit = bal_j_arg(args, 1, "maxsplit");
    int64_t most = limit != NULL && limit->kind == BAL_J_INT && limit->u.i >= 0 ? limit->u.i : INT64_MAX;
    by = by != NULL && by->kind == BAL_J_NONE ? NULL : by;
    if (by != NULL && (by->kind != BAL_J_TEXT || by->n == 0)) {
        bal_j_fail(r, BAL_EFORMAT, "split asks for a text that is not empty");
        return out;
    }
    (void)bal_j_charge(r, v.n);
    size_t begin = 0, end = v.n;
    while (r->status == BAL_OK) {
        if (by == NULL) { /* white space at the cut goes */
            bal_jvalue rest = bal_j_strip(r, bal_j_text(v.u.text + begin, end - begin), NULL, !from_right, from_right);
            begin = (size_t)(rest.u.text - v.u.text);
            end = begin + rest.n;
            if (begin == end)
                break;
        }
        size_t at = end, width = 0;
        bool found = false;
        if (most > 0 && by != NULL) {
            const char *hit = NULL;
            if (!from_right) {
                hit = memmem(v.u.text + begin, end - begin, by->u.text, by->n);
            } else {
                for (size_t k = end - begin >= by->n ? end - by->n + 1 : begin; k > begin && hit == NULL; k--)
                    hit = memcmp(v.u.text + k - 1, by->u.text, by->n) == 0 ? v.u.text + k - 1 : NULL;
            }
            found = hit != NULL;
            at = found ? (size_t)(hit - v.u.text) : end;
            width = by->n;
        } else if (most > 0) {
            for (size_t k = 0; k < end - begin && !found;) {
                size_t where = from_right ? end - 1 - k : begin + k;
                uint32_t cp = 0;
                size_t m = bal_utf8_decode((const unsigned char *)v.u.text + where, v.n - where, &cp);
                found = m > 0 && bal_j_space(cp);
                at = where;
                width = m;
                k += m > 0 && !from_right ? m : 1;
            }
        }
        if (!found) {
            bal_j_push(r, out.u.list, bal_j_text(v.u.text + begin, end - begin));
            break;
        }
        size_t p = from_right ? at + width : begin, q = from_right ? end : at;
        bal_j_push(r, out.u.list, bal_j_text(v.u.text + p, q - p));
        begin = from_right ? begin : at + width;
        end = from_right ? at : end;
        most--;
    }
    if (from_right) {
        bal_jvalue back = bal_j_list(r, BAL_J_PLAIN);
        for (size_t i = out.u.list->n; i > 0 && r->status == BAL_OK; i--)
            bal_j_push(r, back.u.list, out.u.list->items[i - 1]);
        return back;
    }
    return out;
}

bal_jvalue bal_j_lines(bal_jinja *r, bal_jvalue v, bal_jvalue keep)
{
    bal_jvalue out = bal_j_list(r, BAL_J_PLAIN);
    size_t begin = 0;
    for (size_t i = 0; i < v.n && bal_j_charge(r, 0);) {
        uint32_t cp = 0;
        size_t m = bal_utf8_decode((const unsigned char *)v.u.text + i, v.n - i, &cp);
        m = m == 0 ? 1 : m;
        bool ends =
            (cp >= 0x0A && cp <= 0x0D) || (cp >= 0x1C && cp <= 0x1E) || cp == 0x85 || cp == 0x2028 || cp == 0x2029;
        size_t at = i;
        i += m + (cp == '\r' && i + 1 < v.n && v.u.text[i + 1] == '\n');
        if (ends) {
            bal_j_push(r, out.u.list, bal_j_text(v.u.text + begin, (bal_j_truth(keep) ? i : at) - begin));
            begin = i;
        }
    }
    if (begin < v.n)
        bal_j_push(r, out.u.list, bal_j_text(v.u.text + begin, v.n - begin));
    return out;
}

static bool has_affix(bal_jvalue v, bal_jvalue a, bool front)
{
    return a.kind == BAL_J_TEXT && a.n <= v.n && memcmp(v.u.text + (front ? 0 : v.n - a.n), a.u.text, a.n) == 0;
}

static bal_jvalue affix(bal_jinja *r, bal_jvalue v, const bal_jargs *args, bool front)
{
    bool good = args->n == 1 && (args->at[0].kind == BAL_J_TEXT || bal_j_is_tuple(args->at[0]));
    for (size_t i = 0; good && args->at[0].kind == BAL_J_LIST && i < args->at[0].u.list->n; i++)
        good = args->at[0].u.list->items[i].kind == BAL_J_TEXT;
    if (!good) {
        bal_j_fail(r, BAL_EFORMAT, "startswith and endswith ask for a text or a tuple of texts");
        return v;
    }
    if (args->at[0].kind == BAL_J_TEXT)
        return bal_j_bool(has_affix(v, args->at[0], front));
    for (size_t i = 0; i < args->at[0].u.list->n; i++)
        if (has_affix(v, args->at[0].u.list->items[i], front))
            return bal_j_bool(true);
    return bal_j_bool(false);
}

/* how: f find, r rfind, i index, x rindex, c count */
static bal_jvalue find(bal_jinja *r, bal_jvalue v, const bal_jargs *args, char how)
{
    if (args->n != 1 || args->at[0].kind != BAL_J_TEXT) {
        bal_j_fail(r, BAL_EFORMAT, "find, index and count ask for one text");
        return v;
    }
    bal_jvalue part = args->at[0];
    const char *hit = NULL;
    int64_t count = 0;
    (void)bal_j_charge(r, v.n);
    for (size_t at = 0; at <= v.n && r->status == BAL_OK;) {
        const char *next = memmem(v.u.text + at, v.n - at, part.u.text, part.n);
        if (next == NULL)
            break;
        hit = next;
        count++;
        if (how == 'f' || how == 'i' || !bal_j_charge(r, 0))
            break;
        at = (size_t)(next - v.u.text) + (how == 'r' || how == 'x' || part.n == 0 ? 1 : part.n);
        while (at < v.n && ((unsigned char)v.u.text[at] & 0xC0) == 0x80)
            at++;
    }
    if (how == 'c')
        return bal_j_int(count);
    if (hit == NULL && (how == 'i' || how == 'x'))
        bal_j_fail(r, BAL_EFORMAT, "index: the text is not found");
    return bal_j_int(hit != NULL ? (int64_t)bal_j_chars(v.u.text, (size_t)(hit - v.u.text)) : -1);
}

static bal_jvalue partition(bal_jinja *r, bal_jvalue v, const bal_jargs *args, bool last)
{
    bal_jvalue out = bal_j_list(r, BAL_J_TUPLE), empty = bal_j_text("", 0);
    if (args->n != 1 || args->at[0].kind != BAL_J_TEXT || args->at[0].n == 0) {
        bal_j_fail(r, BAL_EFORMAT, "partition asks for a text that is not empty");
        return out;
    }
    bal_jvalue by = args->at[0];
    const char *hit = NULL;
    (void)bal_j_charge(r, v.n);
    for (size_t at = 0; at < v.n && bal_j_charge(r, 0);) {
        const char *next = memmem(v.u.text + at, v.n - at, by.u.text, by.n);
        if (next == NULL)
            break;
        hit = next;
        if (!last)
            break;
        at = (size_t)(next - v.u.text) + 1;
    }
    size_t at = hit != NULL ? (size_t)(hit - v.u.text) : 0;
    bal_jvalue before = bal_j_text(v.u.text, at),
               after = bal_j_text(v.u.text + at + by.n, hit != NULL ? v.n - at - by.n : 0);
    bal_j_push(r, out.u.list, hit != NULL ? before : last ? empty : v);
    bal_j_push(r, out.u.list, hit != NULL ? by : empty);
    bal_j_push(r, out.u.list, hit != NULL ? after : last ? v : empty);
    return out;
}

/* isdigit and the like: every character, and at least one. */
static bal_jvalue all_are(bal_jvalue v, const char *name, size_t n)
{
    bool yes = v.n > 0 || bal_j_named(name, n, "isascii"), cased = false;
    for (size_t i = 0; i < v.n && yes;) {
        uint32_t cp = 0;
        size_t m = bal_utf8_decode((const unsigned char *)v.u.text + i, v.n - i, &cp);
        bool up = bal_j_is_class(cp, 'u'), low = bal_j_is_class(cp, 'l'), both = bal_j_is_class(cp, 't');
        cased = cased || (name[2] == 'u' ? up : low);
        if (bal_j_named(name, n, "isdigit"))
            yes = bal_j_is_class(cp, 'D');
        else if (bal_j_named(name, n, "isdecimal"))
            yes = bal_j_is_class(cp, 'd');
        else if (bal_j_named(name, n, "isnumeric"))
            yes = bal_j_is_class(cp, 'n');
        else if (bal_j_named(name, n, "isalpha"))
            yes = bal_j_is_class(cp, 'a');
        else if (bal_j_named(name, n, "isalnum"))
            yes = bal_j_is_class(cp, 'w');
        else if (bal_j_named(name, n, "isspace"))
            yes = bal_j_space(cp);
        else if (bal_j_named(name, n, "isascii"))
            yes = cp < 0x80;
        else
            yes = !both && (name[2] == 'u' ? !low : !up);
        i += m == 0 ? 1 : m;
    }
    bool by_case = bal_j_named(name, n, "isupper") || bal_j_named(name, n, "islower");
    return bal_j_bool(yes && (cased || !by_case));
}

static bal_jvalue pad(bal_jinja *r, bal_jvalue v, const bal_jargs *args, char how)
{
    bool good = args->n > 0 && args->at[0].kind == BAL_J_INT && args->n <= (how == 'z' ? 1U : 2U);
    bal_jvalue fill = how == 'z' ? bal_j_text("0", 1) : args->n > 1 ? args->at[1] : bal_j_text(" ", 1);
    if (!good || fill.kind != BAL_J_TEXT || bal_j_chars(fill.u.text, fill.n) != 1) {
        bal_j_fail(r, BAL_EFORMAT, "zfill, ljust, rjust and center ask for a width%s",
                   how == 'z' ? "" : " and perhaps for one character");
        return v;
    }
    int64_t width = args->at[0].u.i, left = width - (int64_t)bal_j_chars(v.u.text, v.n);
    left = left > 0 ? left : 0;
    if (how == 'c') {
        int64_t before = left / 2 + (left & width & 1);
        bal_jvalue side = bal_j_binary(r, '*', fill, bal_j_int(before));
        side = bal_j_binary(r, '+', side, v);
        return bal_j_binary(r, '+', side, bal_j_binary(r, '*', fill, bal_j_int(left - before)));
    }
    bal_jvalue more = bal_j_binary(r, '*', fill, bal_j_int(left));
    bool sign = how == 'z' && v.n > 0 && (v.u.text[0] == '-' || v.u.text[0] == '+');
    bal_jvalue head = bal_j_text(v.u.text, sign ? 1 : 0), rest = bal_j_text(v.u.text + head.n, v.n - head.n);
    if (how == 'l')
        return bal_j_binary(r, '+', v, more);
    return bal_j_binary(r, '+', bal_j_binary(r, '+', head, more), rest);
}

static size_t most_args(const char *name, size_t n)
{
    static const struct {
        const char *name;
        size_t most;
    } k[] = {{"strip", 1},      {"lstrip", 1},       {"rstrip", 1},       {"splitlines", 1}, {"partition", 1},
             {"rpartition", 1}, {"removeprefix", 1}, {"removesuffix", 1}, {"join", 1},       {"zfill", 1},
             {"split", 2},      {"rsplit", 2},       {"ljust", 2},        {"rjust", 2},      {"center", 2},
             {"replace", 3},    {"find", 3},         {"rfind", 3},        {"index", 3},      {"rindex", 3},
             {"count", 3},      {"startswith", 3},   {"endswith", 3}};
    for (size_t i = 0; i < sizeof k / sizeof *k; i++)
        if (bal_j_named(name, n, k[i].name))
            return k[i].most;
    return 0;
}

/* Arguments with names: only where Python's methods have them. */
static bool names_fit(bal_jinja *r, const char *name, size_t n, const bal_jargs *args)
{
    static const char *const split[] = {"sep", "maxsplit", NULL}, *const lines_[] = {"keepends", NULL},
                             *const none[] = {NULL};
    if (bal_j_named(name, n, "format"))
        return true;
    char what[40];
    (void)snprintf(what, sizeof what, "the method %.*s", (int)(n < 20 ? n : 20), name);
    bool splits = bal_j_named(name, n, "split") || bal_j_named(name, n, "rsplit");
    return bal_j_expect(r, args, what, most_args(name, n),
                        splits                               ? split
                        : bal_j_named(name, n, "splitlines") ? lines_
                                                             : none);
}

static bal_jvalue text_method(bal_jinja *r, bal_jvalue v, const char *name, size_t n, const bal_jargs *args)
{
    if (!names_fit(r, name, n, args))
        return v;
    const bal_jvalue *a = args->n > 0 && args->names[0] == NULL && args->at[0].kind != BAL_J_NONE ? &args->at[0] : NULL;
    if (bal_j_named(name, n, "strip") || bal_j_named(name, n, "lstrip") || bal_j_named(name, n, "rstrip"))
        return bal_j_strip(r, v, a, name[0] != 'r', name[0] != 'l');
    if (bal_j_named(name, n, "split") || bal_j_named(name, n, "rsplit"))
        return cut(r, v, args, name[0] == 'r');
    if (bal_j_named(name, n, "splitlines")) {
        const bal_jvalue *keep = bal_j_arg(args, 0, "keepends");
        return bal_j_lines(r, v, keep != NULL ? *keep : bal_j_none());
    }
    if (bal_j_named(name, n, "startswith") || bal_j_named(name, n, "endswith"))
        return affix(r, v, args, name[0] == 's');
    if (bal_j_named(name, n, "upper") || bal_j_named(name, n, "lower") || bal_j_named(name, n, "title") ||
        bal_j_named(name, n, "swapcase"))
        return bal_j_case(r, v, name[0]);
    if (bal_j_named(name, n, "casefold"))
        return bal_j_case(r, v, 'f');
    if (bal_j_named(name, n, "capitalize"))
        return bal_j_case(r, v, 'c');
    if (bal_j_named(name, n, "find") || bal_j_named(name, n, "rfind") || bal_j_named(name, n, "index") ||
        bal_j_named(name, n, "count") || bal_j_named(name, n, "rindex"))
        return find(r, v, args, n == 6 ? 'x' : name[0]);
    if (bal_j_named(name, n, "partition") || bal_j_named(name, n, "rpartition"))
        return partition(r, v, args, name[0] == 'r');
    if (bal_j_named(name, n, "zfill") || bal_j_named(name, n, "ljust") || bal_j_named(name, n, "rjust") ||
        bal_j_named(name, n, "center"))
        return pad(r, v, args, name[0]);
    if (bal_j_named(name, n, "format"))
        return bal_j_braces(r, v, args);
    if (name[0] == 'i')
        return all_are(v, name, n);
    if (a == NULL) {
        bal_j_fail(r, BAL_EFORMAT, "%.*s asks for an argument", (int)n, name);
        return v;
    }
    bool cuts = bal_j_named(name, n, "removeprefix") || bal_j_named(name, n, "removesuffix");
    if (cuts && a->kind != BAL_J_TEXT)
        bal_j_fail(r, BAL_EFORMAT, "%.*s asks for a text, not %s", (int)n, name, bal_j_type(*a));
    if (bal_j_named(name, n, "removeprefix"))
        return has_affix(v, *a, true) ? bal_j_text(v.u.text + a->n, v.n - a->n) : v;
    if (bal_j_named(name, n, "removesuffix"))
        return has_affix(v, *a, false) ? bal_j_text(v.u.text, v.n - a->n) : v;
    if (bal_j_named(name, n, "join")) {
        const bal_jlist *items = bal_j_items(r, *a);
        bal_buf b = {0};
        for (size_t i = 0; items != NULL && i < items->n && r->status == BAL_OK; i++) {
            if (items->items[i].kind != BAL_J_TEXT)
                bal_j_fail(r, BAL_EFORMAT, "join asks for texts, not %s", bal_j_type(items->items[i]));
            bal_j_append(r, &b, v.u.text, i > 0 ? v.n : 0);
            bal_j_write(r, &b, items->items[i]);
        }
        return bal_j_take_buf(r, &b);
    }
    bool two = args->n >= 2 && a->kind == BAL_J_TEXT && args->at[1].kind == BAL_J_TEXT;
    if (!two)
        bal_j_fail(r, BAL_EFORMAT, "replace asks for two texts");
    const bal_jvalue *most = bal_j_arg(args, 2, "count");
    return two ? bal_j_replace(r, v, *a, args->at[1], most != NULL && most->kind == BAL_J_INT ? most->u.i : -1) : v;
}

static bal_jvalue dict_method(bal_jinja *r, bal_jvalue v, const char *name, size_t n, const bal_jargs *args)
{
    bal_jvalue out = bal_j_list(r, BAL_J_VIEW);
    if (bal_j_named(name, n, "get")) {
        const bal_jvalue *found = args->n > 0 ? bal_j_find(r, v.u.dict, args->at[0]) : NULL;
        static const char *const none[] = {NULL};
        if (!bal_j_expect(r, args, "the method get", 2, none))
            return out;
        if (args->n == 0 || args->n > 2)
            bal_j_fail(r, BAL_EFORMAT, "get asks for a key and perhaps a default");
        return found != NULL ? *found : args->n > 1 ? args->at[1] : bal_j_none();
    }
    if (args->n > 0)
        bal_j_fail(r, BAL_EFORMAT, "%.*s asks for nothing", (int)n, name);
    if (bal_j_named(name, n, "copy"))
        return v;
    for (size_t i = 0; i < v.u.dict->n && r->status == BAL_OK; i++) {
        bal_jvalue pair = bal_j_list(r, BAL_J_TUPLE);
        bal_j_push(r, pair.u.list, v.u.dict->items[i].key);
        bal_j_push(r, pair.u.list, v.u.dict->items[i].value);
        bal_j_push(r, out.u.list,
                   name[0] == 'i'   ? pair
                   : name[0] == 'k' ? v.u.dict->items[i].key
                                    : v.u.dict->items[i].value);
    }
    return out;
}

static bal_jvalue list_method(bal_jinja *r, bal_jvalue v, const char *name, size_t n, const bal_jargs *args)
{
    int64_t count = 0;
    if (bal_j_named(name, n, "copy"))
        return v;
    if (args->n != 1) {
        bal_j_fail(r, BAL_EFORMAT, "%.*s asks for one value", (int)n, name);
        return v;
    }
    for (size_t i = 0; i < v.u.list->n && r->status == BAL_OK; i++)
        if (bal_j_equal(r, v.u.list->items[i], args->at[0])) {
            if (name[0] == 'i')
                return bal_j_int((int64_t)i);
            count++;
        }
    if (name[0] == 'i')
        bal_j_fail(r, BAL_EFORMAT, "index: the value is not in the list");
    return bal_j_int(count);
}

static bal_jvalue loop_method(bal_jinja *r, bal_jloop *loop, const char *name, const bal_jargs *args)
{
    if (name[1] == 'y') {
        if (args->n == 0)
            bal_j_fail(r, BAL_EFORMAT, "loop.cycle asks for values");
        return args->n > 0 ? args->at[loop->at % args->n] : bal_j_none();
    }
    bal_jvalue now = bal_j_list(r, BAL_J_TUPLE);
    for (size_t i = 0; i < args->n; i++)
        bal_j_push(r, now.u.list, args->at[i]);
    bool changed = !loop->was || !bal_j_equal(r, now, loop->last);
    loop->was = true;
    loop->last = now;
    return bal_j_bool(changed);
}

/* Of a text that counts as escaped: what comes out counts so, too. */
static bal_jvalue markup_method(bal_jinja *r, bal_jvalue v, const bal_jmethod *m, const bal_jargs *args)
{
    static const char *const escaping[] = {"replace", "join", "format", "ljust", "rjust", "center"};
    for (size_t i = 0; i < sizeof escaping / sizeof *escaping; i++)
        if (bal_j_named(m->name, m->n, escaping[i]))
            bal_j_fail(r, BAL_EUNSUPPORTED, "%s of a text that counts as escaped is not supported", escaping[i]);
    bal_jvalue out = text_method(r, bal_j_as(v, BAL_J_PLAIN), m->name, m->n, args);
    for (size_t i = 0; out.kind == BAL_J_LIST && i < out.u.list->n; i++)
        out.u.list->items[i] = bal_j_as(out.u.list->items[i], BAL_J_MARKUP);
    return bal_j_as(out, BAL_J_MARKUP);
}

bal_jvalue bal_j_method(bal_jinja *r, const bal_jmethod *m, const bal_jargs *args)
{
    static const char *const changing[] = {"update", "pop",    "setdefault", "clear", "popitem", "append",
                                           "extend", "insert", "remove",     "sort",  "reverse"};
    bal_jvalue v = m->self;
    for (size_t i = 0; i < sizeof changing / sizeof changing[0]; i++)
        if (bal_j_named(m->name, m->n, changing[i])) {
            bal_j_fail(r, BAL_EFORMAT, "%s of %s would change it, which a chat template may not do", changing[i],
                       bal_j_type(v));
            return v;
        }
    if (v.kind == BAL_J_TEXT)
        return v.flavor == BAL_J_MARKUP ? markup_method(r, v, m, args) : text_method(r, v, m->name, m->n, args);
    if (v.kind == BAL_J_DICT)
        return dict_method(r, v, m->name, m->n, args);
    if (v.kind == BAL_J_LIST)
        return list_method(r, v, m->name, m->n, args);
    return loop_method(r, v.u.loop, m->name, args);
}
