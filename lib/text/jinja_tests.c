/* Tests: `is` something.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/jinja_impl.h"

#include <string.h>

static const char *const k_tests[] = {"defined",  "undefined", "none",   "boolean", "true",        "false",
                                      "integer",  "float",     "number", "string",  "mapping",     "sequence",
                                      "iterable", "callable",  "odd",    "even",    "divisibleby", "eq",
                                      "equalto",  "==",        "ne",     "!=",      "lt",          "lessthan",
                                      "<",        "le",        "<=",     "gt",      "greaterthan", ">",
                                      "ge",       ">=",        "in",     "sameas",  "lower",       "upper",
                                      "filter",   "test",      "escaped"};

/* Those that ask for one argument; the others for none. */
static const char *const k_with_one[] = {
    "divisibleby", "eq", "equalto", "==",          "ne", "!=", "lt", "lessthan", "<",
    "le",          "<=", "gt",      "greaterthan", ">",  "ge", ">=", "in",       "sameas"};

/* Filters that Jinja has and this interpreter does not. */
static bool is_other_filter(bal_jvalue v)
{
    static const char *const names[] = {"filesizeformat", "pprint", "random",   "slice",  "striptags",
                                        "urlencode",      "urlize", "wordwrap", "xmlattr"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (bal_j_is(v, names[i]))
            return true;
    return false;
}

bool bal_j_known_test(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof k_tests / sizeof k_tests[0]; i++)
        if (bal_j_named(name, n, k_tests[i]))
            return true;
    return false;
}

static bool is_type(const char *name, size_t n, bal_jvalue v, bool *answer)
{
    const struct {
        const char *name;
        bool yes;
    } k[] = {
        {"defined", v.kind != BAL_J_UNDEFINED},
        {"undefined", v.kind == BAL_J_UNDEFINED},
        {"none", v.kind == BAL_J_NONE},
        {"boolean", v.kind == BAL_J_BOOL},
        {"true", v.kind == BAL_J_BOOL && v.u.b},
        {"false", v.kind == BAL_J_BOOL && !v.u.b},
        {"integer", v.kind == BAL_J_INT},
        {"float", v.kind == BAL_J_FLOAT},
        {"number", v.kind == BAL_J_INT || v.kind == BAL_J_FLOAT || v.kind == BAL_J_BOOL},
        {"string", v.kind == BAL_J_TEXT},
        {"mapping", v.kind == BAL_J_DICT},
        {"sequence", v.kind == BAL_J_TEXT || v.kind == BAL_J_DICT || v.kind == BAL_J_UNDEFINED || bal_j_has_places(v)},
        {"iterable", v.kind == BAL_J_TEXT || v.kind == BAL_J_DICT || v.kind == BAL_J_LIST ||
                         v.kind == BAL_J_UNDEFINED || v.kind == BAL_J_LOOP},
        {"callable", v.kind == BAL_J_MACRO || v.kind == BAL_J_GLOBAL || v.kind == BAL_J_METHOD ||
                         v.kind == BAL_J_UNDEFINED || v.kind == BAL_J_LOOP},
        {"escaped", v.kind == BAL_J_TEXT && v.flavor == BAL_J_MARKUP}};
    for (size_t i = 0; i < sizeof k / sizeof k[0]; i++)
        if (bal_j_named(name, n, k[i].name)) {
            *answer = k[i].yes;
            return true;
        }
    return false;
}

static bool in_case(bal_jinja *r, bal_jvalue v, char how)
{
    bal_jvalue text = bal_j_str(r, v), same = bal_j_case(r, text, how);
    bal_jvalue other = bal_j_case(r, text, how == 'u' ? 'l' : 'u');
    return bal_j_equal(r, text, same) && !bal_j_equal(r, text, other);
}

static bool same(bal_jinja *r, bal_jvalue a, bal_jvalue b)
{
    if (a.kind != b.kind)
        return false;
    return a.kind == BAL_J_LIST || a.kind == BAL_J_DICT ? a.u.list == b.u.list : bal_j_equal(r, a, b);
}

/* v % by == wanted */
static bool leaves(bal_jinja *r, bal_jvalue v, bal_jvalue by, double wanted)
{
    double x = 0;
    bal_jvalue rest = bal_j_binary(r, '%', v, by);
    return v.kind != BAL_J_TEXT && bal_j_number(rest, &x) && x == wanted;
}

bool bal_j_test(bal_jinja *r, const char *name, size_t n, bal_jvalue v, const bal_jargs *args)
{
    static const struct {
        const char *names[3];
        char op; /* = ! < > l (<=) g (>=) */
    } compare[] = {{{"eq", "equalto", "=="}, '='},    {{"ne", "!=", "!="}, '!'}, {{"lt", "lessthan", "<"}, '<'},
                   {{"gt", "greaterthan", ">"}, '>'}, {{"le", "<=", "<="}, 'l'}, {{"ge", ">=", ">="}, 'g'}};
    bool answer = false;
    bool one = false;
    for (size_t i = 0; i < sizeof k_with_one / sizeof *k_with_one; i++)
        one = one || bal_j_named(name, n, k_with_one[i]);
    if (args->n != (one ? 1U : 0U) || (one && args->names[0] != NULL)) {
        bal_j_fail(r, BAL_EFORMAT, "the test 'is %.*s' asks for %s", n > 60 ? 60 : (int)n, name,
                   one ? "one argument" : "no argument");
        return false;
    }
    if (is_type(name, n, v, &answer))
        return answer;
    if (bal_j_named(name, n, "odd") || bal_j_named(name, n, "even"))
        return leaves(r, v, bal_j_int(2), name[0] == 'o');
    if (bal_j_named(name, n, "lower") || bal_j_named(name, n, "upper"))
        return in_case(r, v, name[0]);
    if (bal_j_named(name, n, "filter") || bal_j_named(name, n, "test")) {
        if (v.kind == BAL_J_DICT || (v.kind == BAL_J_LIST && v.flavor == BAL_J_PLAIN))
            bal_j_fail(r, BAL_EFORMAT, "the test 'is %.*s' asks for a name", (int)n, name);
        return v.kind == BAL_J_TEXT && (name[0] == 'f' ? bal_j_known_filter(v.u.text, v.n) || is_other_filter(v)
                                                       : bal_j_known_test(v.u.text, v.n));
    }
    bal_jvalue a = args->at[0];
    if (bal_j_named(name, n, "in"))
        return bal_j_contains(r, v, a);
    if (bal_j_named(name, n, "sameas"))
        return same(r, v, a);
    if (bal_j_named(name, n, "divisibleby"))
        return leaves(r, v, a, 0);
    for (size_t i = 0; i < sizeof compare / sizeof compare[0]; i++)
        for (size_t k = 0; k < 3; k++)
            if (bal_j_named(name, n, compare[i].names[k])) {
                char op = compare[i].op;
                if (op == '=' || op == '!')
                    return bal_j_equal(r, v, a) == (op == '=');
                int order = bal_j_order(r, v, a);
                return r->status == BAL_OK && (op == '<'   ? order < 0
                                               : op == '>' ? order > 0
                                               : op == 'l' ? order <= 0
                                                           : order >= 0);
            }
    bal_j_fail(r, BAL_EUNSUPPORTED, "the test 'is %.*s' is not supported", n > 60 ? 60 : (int)n, name);
    return false;
}
