/* Values of templates.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja_impl.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void bal_j_fail(bal_jinja *r, bal_status code, const char *format, ...)
{
    char message[600];
    va_list args;
    if (r->status != BAL_OK)
        return;
    va_start(args, format);
    (void)vsnprintf(message, sizeof message, format, args);
    va_end(args);
    r->status = bal_fail(code, "chat template, line %u: %s", (unsigned)r->line, message);
}

void *bal_j_take(bal_jinja *r, size_t bytes)
{
    enum { CHUNK = 64 << 10 };
    if (r->status != BAL_OK)
        return NULL;
    if (bytes > BAL_J_MAX_MEMORY - r->memory) {
        bal_j_fail(r, BAL_ELIMIT, "it makes values of more than %d MB", BAL_J_MAX_MEMORY >> 20);
        return NULL;
    }
    bytes = (bytes + 15) & ~(size_t)15;
    if (r->chunks == NULL || r->chunks->size - r->chunks->used < bytes) {
        size_t head = (sizeof(bal_jchunk) + 15) & ~(size_t)15, size = head + (bytes > CHUNK ? bytes : CHUNK);
        bal_jchunk *c = bal_alloc(size, 1);
        if (c == NULL) {
            r->status = BAL_ENOMEM;
            return NULL;
        }
        *c = (bal_jchunk){r->chunks, head, size};
        r->chunks = c;
    }
    void *p = (char *)r->chunks + r->chunks->used;
    r->chunks->used += bytes;
    r->memory += bytes;
    return p;
}

bool bal_j_charge(bal_jinja *r, size_t bytes)
{
    r->steps += 1 + bytes / 64;
    if (r->steps > BAL_J_MAX_STEPS)
        bal_j_fail(r, BAL_ELIMIT, "it does not end within %d steps", BAL_J_MAX_STEPS);
    return r->status == BAL_OK;
}

bool bal_j_enter(bal_jinja *r)
{
    if (++r->depth > BAL_J_MAX_DEPTH)
        bal_j_fail(r, BAL_ELIMIT, "it is nested deeper than %d levels", BAL_J_MAX_DEPTH);
    return r->status == BAL_OK;
}

void bal_j_leave(bal_jinja *r)
{
    r->depth--;
}

bal_jvalue bal_j_undefined(const char *what, size_t n)
{
    return (bal_jvalue){.kind = BAL_J_UNDEFINED, .u.text = what, .n = n};
}

bal_jvalue bal_j_none(void)
{
    return (bal_jvalue){.kind = BAL_J_NONE};
}

bal_jvalue bal_j_bool(bool b)
{
    return (bal_jvalue){.kind = BAL_J_BOOL, .u.b = b};
}

bal_jvalue bal_j_int(int64_t i)
{
    return (bal_jvalue){.kind = BAL_J_INT, .u.i = i};
}

bal_jvalue bal_j_float(double f)
{
    return (bal_jvalue){.kind = BAL_J_FLOAT, .u.f = f};
}

bal_jvalue bal_j_text(const char *text, size_t n)
{
    return (bal_jvalue){.kind = BAL_J_TEXT, .u.text = text, .n = n};
}

bal_jvalue bal_j_copy(bal_jinja *r, const char *text, size_t n)
{
    char *copy = bal_j_take(r, n + 1);
    if (copy == NULL || !bal_j_charge(r, n))
        return bal_j_text("", 0);
    if (n > 0)
        memcpy(copy, text, n);
    copy[n] = '\0';
    return bal_j_text(copy, n);
}

bal_jvalue bal_j_as(bal_jvalue v, int flavor)
{
    v.flavor = v.kind == BAL_J_TEXT ? (uint8_t)flavor : v.flavor;
    return v;
}

bal_jvalue bal_j_take_buf(bal_jinja *r, bal_buf *b)
{
    bal_jvalue v = bal_j_copy(r, bal_buf_cstr(b), b->len);
    bal_buf_dispose(b);
    return v;
}

bal_jvalue bal_j_list(bal_jinja *r, int flavor)
{
    static bal_jlist none;
    bal_jlist *list = bal_j_take(r, sizeof *list);
    return (bal_jvalue){.kind = BAL_J_LIST, .flavor = (uint8_t)flavor, .u.list = list != NULL ? list : &none};
}

void bal_j_push(bal_jinja *r, bal_jlist *list, bal_jvalue v)
{
    if (!bal_j_charge(r, 0))
        return;
    if (list->n == list->cap) {
        size_t cap = list->cap == 0 ? 4 : 2 * list->cap;
        bal_jvalue *items = bal_j_take(r, cap * sizeof *items);
        if (items == NULL)
            return;
        if (list->n > 0)
            memcpy(items, list->items, list->n * sizeof *items);
        list->items = items;
        list->cap = cap;
    }
    list->items[list->n++] = v;
}

bal_jvalue bal_j_dict(bal_jinja *r)
{
    static bal_jdict none;
    bal_jdict *dict = bal_j_take(r, sizeof *dict);
    return (bal_jvalue){.kind = BAL_J_DICT, .u.dict = dict != NULL ? dict : &none};
}

static uint64_t hash_of(bal_jvalue v)
{
    double number = 0;
    uint64_t h = 0xCBF29CE484222325ULL;
    if (v.kind == BAL_J_TEXT)
        for (size_t i = 0; i < v.n; i++)
            h = (h ^ (unsigned char)v.u.text[i]) * 0x100000001B3ULL;
    else if (bal_j_number(v, &number))
        h ^= (uint64_t)(int64_t)(fabs(number) < 1e18 ? number : 0);
    return h;
}

const bal_jvalue *bal_j_find(bal_jinja *r, const bal_jdict *dict, bal_jvalue key)
{
    uint64_t h = hash_of(key);
    (void)bal_j_charge(r, 16 * dict->n);
    for (size_t i = 0; i < dict->n && r->status == BAL_OK; i++)
        if (dict->items[i].hash == h && bal_j_equal(r, dict->items[i].key, key))
            return &dict->items[i].value;
    return NULL;
}

void bal_j_put(bal_jinja *r, bal_jdict *dict, bal_jvalue key, bal_jvalue value)
{
    const bal_jvalue *old = bal_j_find(r, dict, key);
    if (key.kind == BAL_J_LIST ? !bal_j_is_tuple(key) : key.kind > BAL_J_LIST)
        bal_j_fail(r, BAL_EFORMAT, "%s cannot be the key of a mapping", bal_j_type(key));
    if (r->status != BAL_OK)
        return;
    if (old != NULL) {
        dict->items[(size_t)((const bal_jpair *)(const void *)((const char *)old - offsetof(bal_jpair, value)) -
                             dict->items)]
            .value = value;
        return;
    }
    if (dict->n == dict->cap) {
        size_t cap = dict->cap == 0 ? 4 : 2 * dict->cap;
        bal_jpair *items = bal_j_take(r, cap * sizeof *items);
        if (items == NULL)
            return;
        if (dict->n > 0)
            memcpy(items, dict->items, dict->n * sizeof *items);
        dict->items = items;
        dict->cap = cap;
    }
    dict->items[dict->n++] = (bal_jpair){key, value, hash_of(key)};
}

static bal_jvalue json_text(bal_jinja *r, const char *text)
{
    bal_jvalue v = bal_j_copy(r, text, strlen(text));
    char *copy = v.n > 0 && strstr(v.u.text, "\xC0\x80") != NULL ? bal_j_take(r, v.n + 1) : NULL;
    if (copy == NULL)
        return v;
    memcpy(copy, v.u.text, v.n + 1);
    size_t n = bal_json_text_bytes(copy);
    return bal_j_text(copy, n);
}

bal_jvalue bal_j_from_json(bal_jinja *r, const cJSON *v) // NOLINT(misc-no-recursion): the depth of JSON is bounded
{
    if (cJSON_IsBool(v))
        return bal_j_bool(cJSON_IsTrue(v) != 0);
    if (cJSON_IsNumber(v)) {
        int64_t i = 0;
        const char *digits = bal_json_digits(v);
        if (digits != NULL && bal_parse_i64(digits, INT64_MIN, INT64_MAX, &i) != BAL_OK)
            bal_j_fail(r, BAL_ELIMIT, "a whole number of the context leaves 64 bits");
        if (digits != NULL)
            return bal_j_int(i);
        bool whole = v->valuedouble == floor(v->valuedouble) && fabs(v->valuedouble) < 9e15;
        return whole && !bal_json_is_real(v) ? bal_j_int((int64_t)v->valuedouble) : bal_j_float(v->valuedouble);
    }
    if (cJSON_IsString(v))
        return json_text(r, v->valuestring);
    if (cJSON_IsArray(v)) {
        bal_jvalue list = bal_j_list(r, BAL_J_PLAIN);
        for (const cJSON *e = v->child; e != NULL && r->status == BAL_OK; e = e->next)
            bal_j_push(r, list.u.list, bal_j_from_json(r, e));
        return list;
    }
    if (cJSON_IsObject(v)) {
        bal_jvalue dict = bal_j_dict(r);
        for (const cJSON *e = v->child; e != NULL && r->status == BAL_OK; e = e->next)
            bal_j_put(r, dict.u.dict, json_text(r, e->string), bal_j_from_json(r, e));
        return dict;
    }
    return bal_j_none();
}

bool bal_j_truth(bal_jvalue v)
{
    switch ((bal_jkind)v.kind) {
    case BAL_J_UNDEFINED:
    case BAL_J_NONE:
        return false;
    case BAL_J_BOOL:
        return v.u.b;
    case BAL_J_INT:
        return v.u.i != 0;
    case BAL_J_FLOAT:
        return v.u.f != 0;
    case BAL_J_TEXT:
        return v.n > 0;
    case BAL_J_LIST:
        return v.flavor == BAL_J_LAZY || v.u.list->n > 0;
    case BAL_J_DICT:
        return v.u.dict->n > 0;
    default:
        return true;
    }
}

bool bal_j_named(const char *name, size_t n, const char *text)
{
    return strlen(text) == n && memcmp(name, text, n) == 0;
}

bool bal_j_is_tuple(bal_jvalue v)
{
    return v.kind == BAL_J_LIST && (v.flavor == BAL_J_TUPLE || v.flavor == BAL_J_GROUP);
}

bool bal_j_has_places(bal_jvalue v)
{
    return v.kind == BAL_J_LIST && v.flavor != BAL_J_LAZY && v.flavor != BAL_J_VIEW;
}

bool bal_j_is(bal_jvalue v, const char *text)
{
    return v.kind == BAL_J_TEXT && bal_j_named(v.u.text, v.n, text);
}

const char *bal_j_type(bal_jvalue v)
{
    static const char *const names[] = {
        "an undefined value", "none",        "a boolean", "an integer", "a number",   "a text",  "a list",
        "a mapping",          "a namespace", "the loop",  "a macro",    "a function", "a method"};
    return names[v.kind];
}

bool bal_j_number(bal_jvalue v, double *out)
{
    *out = v.kind == BAL_J_FLOAT ? v.u.f : v.kind == BAL_J_INT ? (double)v.u.i : v.kind == BAL_J_BOOL ? v.u.b : 0;
    return v.kind == BAL_J_FLOAT || v.kind == BAL_J_INT || v.kind == BAL_J_BOOL;
}

static bool equal_dicts(bal_jinja *r, const bal_jdict *a, const bal_jdict *b) // NOLINT(misc-no-recursion)
{
    bool same = a->n == b->n;
    for (size_t i = 0; i < a->n && same; i++) {
        const bal_jvalue *other = bal_j_find(r, b, a->items[i].key);
        same = other != NULL && bal_j_equal(r, a->items[i].value, *other);
    }
    return same;
}

/* Both lists, both tuples or both ranges. */
static bool same_class(bal_jvalue a, bal_jvalue b)
{
    return bal_j_is_tuple(a) ? bal_j_is_tuple(b) : a.flavor == b.flavor;
}

bool bal_j_equal(bal_jinja *r, bal_jvalue a, bal_jvalue b) // NOLINT(misc-no-recursion)
{
    double x = 0, y = 0;
    bool same = false;
    if (bal_j_number(a, &x) && bal_j_number(b, &y))
        return a.kind == BAL_J_INT && b.kind == BAL_J_INT ? a.u.i == b.u.i : x == y;
    if (a.kind != b.kind || !bal_j_charge(r, a.kind == BAL_J_TEXT ? a.n : 0))
        return false;
    switch ((bal_jkind)a.kind) {
    case BAL_J_UNDEFINED:
    case BAL_J_NONE:
        return true;
    case BAL_J_TEXT:
        return a.n == b.n && memcmp(a.u.text, b.u.text, a.n) == 0;
    case BAL_J_LIST:
        if (a.flavor == BAL_J_LAZY || b.flavor == BAL_J_LAZY)
            return a.u.list == b.u.list;
        if (a.flavor == BAL_J_VIEW || b.flavor == BAL_J_VIEW)
            bal_j_fail(r, BAL_EUNSUPPORTED, "keys, values and items are not compared; use |list");
        same = a.u.list->n == b.u.list->n && same_class(a, b) && r->status == BAL_OK;
        if (!same || !bal_j_enter(r))
            return false;
        for (size_t i = 0; i < a.u.list->n && same; i++)
            same = bal_j_equal(r, a.u.list->items[i], b.u.list->items[i]);
        bal_j_leave(r);
        return same;
    case BAL_J_DICT:
        same = bal_j_enter(r) && equal_dicts(r, a.u.dict, b.u.dict);
        bal_j_leave(r);
        return same;
    default:
        return a.u.dict == b.u.dict;
    }
}

int bal_j_order(bal_jinja *r, bal_jvalue a, bal_jvalue b) // NOLINT(misc-no-recursion)
{
    double x = 0, y = 0;
    int order = 0;
    if (a.kind == BAL_J_INT && b.kind == BAL_J_INT)
        return (a.u.i > b.u.i) - (a.u.i < b.u.i);
    if (bal_j_number(a, &x) && bal_j_number(b, &y))
        return (x > y) - (x < y);
    if (a.kind == BAL_J_TEXT && b.kind == BAL_J_TEXT) { /* the order of UTF-8 is that of the characters */
        order = memcmp(a.u.text, b.u.text, a.n < b.n ? a.n : b.n);
        return order != 0 ? order : (a.n > b.n) - (a.n < b.n);
    }
    bool have_order = a.kind == BAL_J_LIST && b.kind == BAL_J_LIST && same_class(a, b) &&
                      (bal_j_is_tuple(a) || a.flavor == BAL_J_PLAIN);
    if (have_order && bal_j_enter(r)) {
        size_t n = a.u.list->n < b.u.list->n ? a.u.list->n : b.u.list->n, i = 0;
        while (i < n && bal_j_charge(r, 0) && bal_j_equal(r, a.u.list->items[i], b.u.list->items[i]))
            i++;
        order = i < n ? bal_j_order(r, a.u.list->items[i], b.u.list->items[i])
                      : (a.u.list->n > b.u.list->n) - (a.u.list->n < b.u.list->n);
        bal_j_leave(r);
        return order;
    }
    bal_j_fail(r, BAL_EFORMAT, "%s and %s have no order", bal_j_type(a), bal_j_type(b));
    return 0;
}

size_t bal_j_chars(const char *text, size_t n)
{
    size_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += ((unsigned char)text[i] & 0xC0) != 0x80;
    return chars;
}

size_t bal_j_offset(const char *text, size_t n, size_t chars)
{
    size_t i = 0;
    for (; i < n; i++)
        if (((unsigned char)text[i] & 0xC0) != 0x80 && chars-- == 0)
            break;
    return i;
}

bool bal_j_space(uint32_t cp)
{
    return (cp >= 9 && cp <= 13) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 || cp == 0x1680 ||
           (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 || cp == 0x202F || cp == 0x205F ||
           cp == 0x3000;
}

const bal_jlist *bal_j_items(bal_jinja *r, bal_jvalue v)
{
    if (v.kind == BAL_J_LIST && v.flavor != BAL_J_LAZY)
        return v.u.list;
    bal_jlist *list = bal_j_list(r, BAL_J_PLAIN).u.list;
    if (v.kind == BAL_J_LIST && v.u.list->left_open)
        bal_j_fail(r, BAL_EUNSUPPORTED, "a generator is used again behind the loop that was broken off");
    if (r->status != BAL_OK)
        return NULL;
    if (v.kind == BAL_J_LIST) {
        *list = *v.u.list;
        *v.u.list = (bal_jlist){0};
    } else if (v.kind == BAL_J_TEXT) {
        for (size_t i = 0, m; i < v.n && r->status == BAL_OK; i += m) {
            m = bal_j_offset(v.u.text + i, v.n - i, 1);
            bal_j_push(r, list, bal_j_text(v.u.text + i, m));
        }
    } else if (v.kind == BAL_J_DICT) {
        for (size_t i = 0; i < v.u.dict->n; i++)
            bal_j_push(r, list, v.u.dict->items[i].key);
    } else if (v.kind != BAL_J_UNDEFINED) {
        bal_j_fail(r, BAL_EFORMAT, "%s cannot be gone through", bal_j_type(v));
    }
    return r->status == BAL_OK ? list : NULL;
}

bal_jvalue bal_j_next(bal_jinja *r, bal_jlist *generator)
{
    if (generator->left_open)
        bal_j_fail(r, BAL_EUNSUPPORTED, "a generator is used again behind the loop that was broken off");
    if (generator->n == 0 || r->status != BAL_OK)
        return bal_j_undefined("item of an empty list", 21);
    generator->n--;
    generator->cap--;
    return *generator->items++;
}

bool bal_j_contains(bal_jinja *r, bal_jvalue part, bal_jvalue whole)
{
    if (whole.kind == BAL_J_TEXT) {
        if (part.kind != BAL_J_TEXT) {
            bal_j_fail(r, BAL_EFORMAT, "'in' a text asks for a text, not %s", bal_j_type(part));
            return false;
        }
        return bal_j_charge(r, whole.n) && memmem(whole.u.text, whole.n, part.u.text, part.n) != NULL;
    }
    if (whole.kind == BAL_J_DICT) {
        if (part.kind == BAL_J_DICT || (part.kind == BAL_J_LIST && part.flavor == BAL_J_PLAIN))
            bal_j_fail(r, BAL_EFORMAT, "%s cannot be the key of a mapping", bal_j_type(part));
        return bal_j_find(r, whole.u.dict, part) != NULL;
    }
    if (whole.kind == BAL_J_LIST && whole.flavor == BAL_J_LAZY) { /* up to the one that is found */
        bool found = false;
        while (!found && whole.u.list->n > 0 && bal_j_charge(r, 0))
            found = bal_j_equal(r, bal_j_next(r, whole.u.list), part);
        return found;
    }
    const bal_jlist *items = bal_j_items(r, whole);
    for (size_t i = 0; items != NULL && i < items->n && bal_j_charge(r, 0); i++)
        if (bal_j_equal(r, items->items[i], part))
            return true;
    return false;
}
