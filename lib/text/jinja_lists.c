/* Filters of lists and mappings.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/jinja_impl.h"

#include <string.h>

/* "a.b.0" of a value: attributes, mapping keys and places, as the filters that take a name have it. */
static bal_jvalue path_of(bal_jinja *r, bal_jvalue v, bal_jvalue path)
{
    if (path.kind != BAL_J_TEXT)
        return bal_j_item(r, v, path);
    for (size_t i = 0; i <= path.n && r->status == BAL_OK;) {
        const char *dot = memchr(path.u.text + i, '.', path.n - i);
        size_t end = dot != NULL ? (size_t)(dot - path.u.text) : path.n;
        const char *part = path.u.text + i;
        int64_t at = 0;
        bool digits = end > i;
        for (size_t k = i; k < end && digits; k++) {
            digits = path.u.text[k] >= '0' && path.u.text[k] <= '9' && end - i < 10;
            at = digits ? at * 10 + (path.u.text[k] - '0') : at;
        }
        v = bal_j_item(r, v, digits ? bal_j_int(at) : bal_j_text(part, end - i));
        i = end + 1;
        if (dot == NULL)
            break;
    }
    return v;
}

/* The arguments from `from` on, as those of an inner call. */
static void rest_of(const bal_jargs *args, size_t from, bal_jargs *out)
{
    out->n = 0;
    for (size_t i = from; i < args->n; i++) {
        out->at[out->n] = args->at[i];
        out->names[out->n] = args->names[i];
        out->n_names[out->n++] = args->n_names[i];
    }
}

static bal_jvalue map(bal_jinja *r, const bal_jlist *items, const bal_jargs *args)
{
    bal_jvalue out = bal_j_list(r, BAL_J_LAZY);
    const bal_jvalue *attribute = bal_j_arg(args, BAL_J_MAX_ARGS, "attribute"),
                     *otherwise = bal_j_arg(args, BAL_J_MAX_ARGS, "default");
    bal_jargs inner;
    rest_of(args, 1, &inner);
    otherwise = otherwise != NULL && otherwise->kind == BAL_J_NONE ? NULL : otherwise;
    bool by_name = args->n > 0 && args->names[0] == NULL;
    if (by_name && args->at[0].kind == BAL_J_TEXT)
        attribute = otherwise = NULL; /* its arguments are those of the filter */
    for (size_t i = 0; !by_name && i < args->n; i++)
        if (&args->at[i] != attribute && !bal_j_named(args->names[i], args->n_names[i], "default"))
            bal_j_fail(r, BAL_EFORMAT, "the filter map has no argument '%.*s'",
                       args->n_names[i] > 60 ? 60 : (int)args->n_names[i], args->names[i]);
    if (attribute == NULL && (args->n == 0 || args->names[0] != NULL || args->at[0].kind != BAL_J_TEXT)) {
        bal_j_fail(r, BAL_EFORMAT, "the filter map asks for a filter's name or attribute=");
        return out;
    }
    if (attribute == NULL && !bal_j_known_filter(args->at[0].u.text, args->at[0].n)) {
        bal_j_fail(r, BAL_EUNSUPPORTED, "the filter '%.*s' is not supported",
                   args->at[0].n > 60 ? 60 : (int)args->at[0].n, args->at[0].u.text);
        return out;
    }
    for (size_t i = 0; i < items->n && r->status == BAL_OK; i++) {
        bal_jvalue v = attribute != NULL ? path_of(r, items->items[i], *attribute)
                                         : bal_j_filter(r, args->at[0].u.text, args->at[0].n, items->items[i], &inner);
        v = v.kind == BAL_J_UNDEFINED && otherwise != NULL ? *otherwise : v;
        bal_j_push(r, out.u.list, v);
        if (r->status != BAL_OK)
            break;
    }
    return out;
}

static bal_jvalue choose(bal_jinja *r, const bal_jlist *items, const bal_jargs *args, bool by_attribute, bool keep)
{
    bal_jvalue out = bal_j_list(r, BAL_J_LAZY);
    size_t first = by_attribute ? 1 : 0;
    bal_jargs inner;
    rest_of(args, first + 1, &inner);
    if (by_attribute && args->n == 0) {
        bal_j_fail(r, BAL_EFORMAT, "selectattr and rejectattr ask for the name of an attribute");
        return out;
    }
    bool has_test = args->n > first;
    if (has_test &&
        (args->at[first].kind != BAL_J_TEXT || !bal_j_known_test(args->at[first].u.text, args->at[first].n))) {
        bal_j_fail(r, BAL_EUNSUPPORTED, "the test '%.*s' is not supported",
                   args->at[first].kind == BAL_J_TEXT && args->at[first].n < 60 ? (int)args->at[first].n : 0,
                   args->at[first].kind == BAL_J_TEXT ? args->at[first].u.text : "");
        return out;
    }
    for (size_t i = 0; i < items->n && r->status == BAL_OK; i++) {
        bal_jvalue v = by_attribute ? path_of(r, items->items[i], args->at[0]) : items->items[i];
        bool yes = has_test ? bal_j_test(r, args->at[first].u.text, args->at[first].n, v, &inner) : bal_j_truth(v);
        if (yes == keep)
            bal_j_push(r, out.u.list, items->items[i]);
    }
    return out;
}

static bal_jvalue join(bal_jinja *r, const bal_jlist *items, const bal_jargs *args)
{
    const bal_jvalue *between = bal_j_arg(args, 0, "d"), *attribute = bal_j_arg(args, 1, "attribute");
    bal_jvalue d = between != NULL ? bal_j_str(r, *between) : bal_j_text("", 0);
    bal_buf b = {0};
    for (size_t i = 0; i < items->n && r->status == BAL_OK; i++) {
        if (i > 0)
            bal_j_append(r, &b, d.u.text, d.n);
        bal_j_write(r, &b, attribute != NULL ? path_of(r, items->items[i], *attribute) : items->items[i]);
    }
    return bal_j_take_buf(r, &b);
}

/* What sorting compares: texts in lower case unless the case counts. */
static bal_jvalue sort_key(bal_jinja *r, bal_jvalue v, const bal_jvalue *attribute, bool by_case)
{
    v = attribute != NULL && attribute->kind != BAL_J_NONE ? path_of(r, v, *attribute) : v;
    return v.kind == BAL_J_TEXT && !by_case ? bal_j_case(r, v, 'l') : v;
}

/* Merge sort, which keeps the order of equals: places[0..n) by their keys. */
static void sort_places(bal_jinja *r, const bal_jvalue *keys, size_t *places, size_t *spare, size_t n, bool down)
{
    for (size_t width = 1; width < n && r->status == BAL_OK; width *= 2) {
        for (size_t at = 0; at < n; at += 2 * width) {
            size_t a = at, middle = at + width < n ? at + width : n, b = middle,
                   end = at + 2 * width < n ? at + 2 * width : n;
            for (size_t k = at; k < end; k++) {
                int order =
                    a < middle && b < end && bal_j_charge(r, 0) ? bal_j_order(r, keys[places[b]], keys[places[a]]) : 0;
                bool second = a >= middle || (b < end && (down ? order > 0 : order < 0));
                spare[k] = second ? places[b++] : places[a++];
            }
        }
        memcpy(places, spare, n * sizeof *places);
    }
}

/* The filter sort takes "a,b.c": several attributes, compared one after the other as lists are. */
static bal_jvalue sort_keys(bal_jinja *r, bal_jvalue v, const bal_jvalue *attribute, bool by_case)
{
    bal_jvalue keys = bal_j_list(r, BAL_J_PLAIN);
    bool text = attribute != NULL && attribute->kind == BAL_J_TEXT;
    for (size_t i = 0, end; i <= (text ? attribute->n : 0) && r->status == BAL_OK; i = end + 1) {
        const char *comma = text ? memchr(attribute->u.text + i, ',', attribute->n - i) : NULL;
        end = comma != NULL ? (size_t)(comma - attribute->u.text) : text ? attribute->n : 0;
        bal_jvalue part = text ? bal_j_text(attribute->u.text + i, end - i) : bal_j_none();
        bal_j_push(r, keys.u.list, sort_key(r, v, text ? &part : attribute, by_case));
    }
    return keys;
}

/* The items in the order of their keys; several: as the filter sort has them. */
static bal_jvalue sorted(bal_jinja *r, const bal_jlist *items, const bal_jvalue *attribute, bool several, bool by_case,
                         bool down)
{
    bal_jvalue out = bal_j_list(r, BAL_J_PLAIN);
    size_t n = items->n;
    bal_jvalue *keys = bal_j_take(r, n * sizeof *keys);
    size_t *places = bal_j_take(r, 2 * n * sizeof *places);
    if (keys == NULL || places == NULL)
        return out;
    for (size_t i = 0; i < n; i++) {
        keys[i] = several ? sort_keys(r, items->items[i], attribute, by_case)
                          : sort_key(r, items->items[i], attribute, by_case);
        places[i] = i;
    }
    sort_places(r, keys, places, places + n, n, down);
    for (size_t i = 0; i < n && r->status == BAL_OK; i++)
        bal_j_push(r, out.u.list, items->items[places[i]]);
    return out;
}

static bal_jvalue extreme(bal_jinja *r, const bal_jlist *items, const bal_jargs *args, bool largest)
{
    const bal_jvalue *by_case = bal_j_arg(args, 0, "case_sensitive"), *attribute = bal_j_arg(args, 1, "attribute");
    bool exact = by_case != NULL && bal_j_truth(*by_case);
    bal_jvalue best = bal_j_undefined("item of an empty list", 21), key = best;
    for (size_t i = 0; i < items->n && r->status == BAL_OK; i++) {
        bal_jvalue k = sort_key(r, items->items[i], attribute, exact);
        int order = i > 0 ? bal_j_order(r, k, key) : 0;
        if (i == 0 || (largest ? order > 0 : order < 0)) {
            best = items->items[i];
            key = k;
        }
    }
    return best;
}

static bal_jvalue unique(bal_jinja *r, const bal_jlist *items, const bal_jargs *args)
{
    const bal_jvalue *by_case = bal_j_arg(args, 0, "case_sensitive"), *attribute = bal_j_arg(args, 1, "attribute");
    bal_jvalue out = bal_j_list(r, BAL_J_LAZY), seen = bal_j_dict(r);
    for (size_t i = 0; i < items->n && r->status == BAL_OK; i++) {
        bal_jvalue key = sort_key(r, items->items[i], attribute, by_case != NULL && bal_j_truth(*by_case));
        if (bal_j_find(r, seen.u.dict, key) != NULL)
            continue;
        bal_j_put(r, seen.u.dict, key, bal_j_none());
        bal_j_push(r, out.u.list, items->items[i]);
    }
    return out;
}

static bal_jvalue total(bal_jinja *r, const bal_jlist *items, const bal_jargs *args)
{
    const bal_jvalue *attribute = bal_j_arg(args, 0, "attribute"), *start = bal_j_arg(args, 1, "start");
    bal_jvalue sum = start != NULL ? *start : bal_j_int(0);
    for (size_t i = 0; i < items->n && r->status == BAL_OK; i++)
        sum = bal_j_binary(r, '+', sum,
                           attribute != NULL && attribute->kind != BAL_J_NONE ? path_of(r, items->items[i], *attribute)
                                                                              : items->items[i]);
    return sum;
}

static bal_jvalue pairs(bal_jinja *r, bal_jvalue v)
{
    bal_jvalue out = bal_j_list(r, BAL_J_LAZY);
    if (v.kind != BAL_J_DICT && v.kind != BAL_J_UNDEFINED)
        bal_j_fail(r, BAL_EFORMAT, "the filter items asks for a mapping, not %s", bal_j_type(v));
    for (size_t i = 0; v.kind == BAL_J_DICT && i < v.u.dict->n && r->status == BAL_OK; i++) {
        bal_jvalue pair = bal_j_list(r, BAL_J_TUPLE);
        bal_j_push(r, pair.u.list, v.u.dict->items[i].key);
        bal_j_push(r, pair.u.list, v.u.dict->items[i].value);
        bal_j_push(r, out.u.list, pair);
    }
    return out;
}

static bal_jvalue dict_sort(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    const bal_jvalue *by_case = bal_j_arg(args, 0, "case_sensitive"), *by = bal_j_arg(args, 1, "by"),
                     *down = bal_j_arg(args, 2, "reverse");
    bal_jvalue at = bal_j_int(by != NULL && bal_j_is(*by, "value") ? 1 : 0);
    if (v.kind != BAL_J_DICT)
        bal_j_fail(r, BAL_EFORMAT, "the filter dictsort asks for a mapping, not %s", bal_j_type(v));
    if (by != NULL && !bal_j_is(*by, "value") && !bal_j_is(*by, "key"))
        bal_j_fail(r, BAL_EFORMAT, "the filter dictsort sorts by key or by value");
    return sorted(r, pairs(r, v).u.list, &at, false, by_case != NULL && bal_j_truth(*by_case),
                  down != NULL && bal_j_truth(*down));
}

static bal_jvalue reversed(bal_jinja *r, bal_jvalue v, const bal_jlist *items)
{
    bool lazy = v.kind == BAL_J_LIST && v.flavor == BAL_J_LAZY; /* what has no order of its own becomes a list */
    bal_jvalue out = bal_j_list(r, lazy ? BAL_J_PLAIN : BAL_J_LAZY);
    bal_buf b = {0};
    for (size_t i = items->n; i > 0 && r->status == BAL_OK; i--) {
        bal_j_push(r, out.u.list, items->items[i - 1]);
        if (v.kind == BAL_J_TEXT)
            bal_j_append(r, &b, items->items[i - 1].u.text, items->items[i - 1].n);
    }
    if (v.kind == BAL_J_TEXT)
        return bal_j_as(bal_j_take_buf(r, &b), v.flavor);
    bal_buf_dispose(&b);
    return out;
}

static bal_jvalue as_list(bal_jinja *r, const bal_jlist *items)
{
    bal_jvalue out = bal_j_list(r, BAL_J_PLAIN);
    for (size_t i = 0; i < items->n && r->status == BAL_OK; i++)
        bal_j_push(r, out.u.list, items->items[i]);
    return out;
}

static bal_jvalue batch(bal_jinja *r, const bal_jlist *items, const bal_jargs *args)
{
    const bal_jvalue *size = bal_j_arg(args, 0, "linecount"), *fill = bal_j_arg(args, 1, "fill_with");
    fill = fill != NULL && fill->kind == BAL_J_NONE ? NULL : fill;
    bal_jvalue out = bal_j_list(r, BAL_J_LAZY), row = bal_j_list(r, BAL_J_PLAIN);
    if (size == NULL || size->kind != BAL_J_INT || size->u.i < 1 || size->u.i > BAL_J_MAX_RANGE) {
        bal_j_fail(r, BAL_EFORMAT, "the filter batch asks for a size of 1 to %d", BAL_J_MAX_RANGE);
        return out;
    }
    for (size_t i = 0; i < items->n && r->status == BAL_OK; i++) {
        if ((int64_t)row.u.list->n == size->u.i) {
            bal_j_push(r, out.u.list, row);
            row = bal_j_list(r, BAL_J_PLAIN);
        }
        bal_j_push(r, row.u.list, items->items[i]);
    }
    while (fill != NULL && row.u.list->n > 0 && (int64_t)row.u.list->n < size->u.i && r->status == BAL_OK)
        bal_j_push(r, row.u.list, *fill);
    if (row.u.list->n > 0)
        bal_j_push(r, out.u.list, row);
    return out;
}

static bal_jvalue group(bal_jinja *r, const bal_jlist *items, const bal_jargs *args)
{
    const bal_jvalue *attribute = bal_j_arg(args, 0, "attribute"), *otherwise = bal_j_arg(args, 1, "default"),
                     *exact = bal_j_arg(args, 2, "case_sensitive");
    bool by_case = exact != NULL && bal_j_truth(*exact);
    bal_jvalue out = bal_j_list(r, BAL_J_PLAIN), last = bal_j_none(), members = out;
    if (attribute == NULL) {
        bal_j_fail(r, BAL_EFORMAT, "the filter groupby asks for an attribute");
        return out;
    }
    if (otherwise != NULL && otherwise->kind != BAL_J_NONE)
        bal_j_fail(r, BAL_EUNSUPPORTED, "the filter groupby knows no default");
    bal_jvalue all = sorted(r, items, attribute, false, by_case, false);
    for (size_t i = 0; i < all.u.list->n && r->status == BAL_OK; i++) {
        bal_jvalue key = sort_key(r, all.u.list->items[i], attribute, by_case);
        if (i == 0 || !bal_j_equal(r, key, last)) {
            bal_jvalue pair = bal_j_list(r, BAL_J_GROUP);
            members = bal_j_list(r, BAL_J_PLAIN);
            bal_j_push(r, pair.u.list, path_of(r, all.u.list->items[i], *attribute));
            bal_j_push(r, pair.u.list, members);
            bal_j_push(r, out.u.list, pair);
            last = key;
        }
        bal_j_push(r, members.u.list, all.u.list->items[i]);
    }
    return out;
}

bool bal_j_list_filter(bal_jinja *r, const char *name, size_t n, bal_jvalue v, const bal_jargs *args, bal_jvalue *out)
{
    if (bal_j_named(name, n, "items") || bal_j_named(name, n, "dictsort")) {
        *out = name[0] == 'i' ? pairs(r, v) : dict_sort(r, v, args);
        return true;
    }
    bool first = bal_j_named(name, n, "first"), last = bal_j_named(name, n, "last");
    bool lazy = v.kind == BAL_J_LIST && v.flavor == BAL_J_LAZY;
    if (first && (lazy || v.kind == BAL_J_TEXT)) {
        *out = lazy      ? bal_j_next(r, v.u.list)
               : v.n > 0 ? bal_j_text(v.u.text, bal_j_offset(v.u.text, v.n, 1))
                         : bal_j_undefined("item of an empty text", 21);
        return true;
    }
    if (last && lazy)
        bal_j_fail(r, BAL_EFORMAT, "a generator has no last item; use |list");
    const bal_jlist *items = bal_j_items(r, v);
    if (items == NULL)
        return true;
    const bal_jvalue *down = bal_j_arg(args, 0, "reverse"), *by_case = bal_j_arg(args, 1, "case_sensitive"),
                     *attribute = bal_j_arg(args, 2, "attribute");
    if (first)
        *out = items->n > 0 ? items->items[0] : bal_j_undefined("item of an empty list", 21);
    else if (last)
        *out = items->n > 0 ? items->items[items->n - 1] : bal_j_undefined("item of an empty list", 21);
    else if (bal_j_named(name, n, "list"))
        *out = as_list(r, items);
    else if (bal_j_named(name, n, "join"))
        *out = join(r, items, args);
    else if (bal_j_named(name, n, "map"))
        *out = map(r, items, args);
    else if (bal_j_named(name, n, "select") || bal_j_named(name, n, "selectattr"))
        *out = choose(r, items, args, n > 6, true);
    else if (bal_j_named(name, n, "reject") || bal_j_named(name, n, "rejectattr"))
        *out = choose(r, items, args, n > 6, false);
    else if (bal_j_named(name, n, "sort"))
        *out = sorted(r, items, attribute, true, by_case != NULL && bal_j_truth(*by_case),
                      down != NULL && bal_j_truth(*down));
    else if (bal_j_named(name, n, "max") || bal_j_named(name, n, "min"))
        *out = extreme(r, items, args, name[1] == 'a');
    else if (bal_j_named(name, n, "unique"))
        *out = unique(r, items, args);
    else if (bal_j_named(name, n, "sum"))
        *out = total(r, items, args);
    else if (bal_j_named(name, n, "reverse"))
        *out = reversed(r, v, items);
    else if (bal_j_named(name, n, "batch"))
        *out = batch(r, items, args);
    else if (bal_j_named(name, n, "groupby"))
        *out = group(r, items, args);
    else
        return false;
    return true;
}
