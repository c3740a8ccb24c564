/* Expressions of templates: recursive descent in Jinja's order of binding.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/jinja_parse.h"

#include <string.h>

bal_jnode *bal_j_node(bal_jparser *p, int kind)
{
    bal_jnode *e = bal_j_take(p->r, sizeof *e);
    if (e == NULL) {
        p->r->spare = (bal_jnode){.kind = BAL_JN_CONST};
        return &p->r->spare;
    }
    e->kind = (uint8_t)kind;
    e->line = p->at->line;
    return e;
}

static void next(bal_jparser *p)
{
    if (p->at->kind != BAL_JT_END)
        p->at++;
    p->r->line = p->at->line;
    (void)bal_j_charge(p->r, 0);
}

void bal_j_syntax(bal_jparser *p, const char *wanted)
{
    const bal_jtoken *t = p->at;
    static const char *const names[] = {"text", "{{", "}}", "{%", "%}", "", "a value", "", "the end of the template"};
    char op[3] = {(char)t->op, '\0', '\0'};
    static const char *const two[] = {"//", "**", "==", "!=", "<=", ">="};
    const char *found = t->kind == BAL_JT_OP ? (t->op >= 1 && t->op <= 6 ? two[t->op - 1] : op) : names[t->kind];
    if (t->kind == BAL_JT_NAME)
        bal_j_fail(p->r, BAL_EFORMAT, "syntax error: '%.*s' stands where %s should",
                   t->value.n > 60 ? 60 : (int)t->value.n, t->value.u.text, wanted);
    else
        bal_j_fail(p->r, BAL_EFORMAT, "syntax error: %s stands where %s should", found, wanted);
}

bool bal_j_at_op(const bal_jparser *p, int op)
{
    return p->at->kind == BAL_JT_OP && p->at->op == op && p->r->status == BAL_OK;
}

bool bal_j_at_name(const bal_jparser *p, const char *name)
{
    return p->at->kind == BAL_JT_NAME && bal_j_named(p->at->value.u.text, p->at->value.n, name) &&
           p->r->status == BAL_OK;
}

bool bal_j_skip_op(bal_jparser *p, int op)
{
    bool there = bal_j_at_op(p, op);
    if (there)
        next(p);
    return there;
}

bool bal_j_skip_name(bal_jparser *p, const char *name)
{
    bool there = bal_j_at_name(p, name);
    if (there)
        next(p);
    return there;
}

bool bal_j_need_op(bal_jparser *p, int op)
{
    char wanted[4] = {'\'', (char)op, '\'', '\0'};
    if (bal_j_skip_op(p, op))
        return true;
    bal_j_syntax(p, wanted);
    return false;
}

bool bal_j_need_name(bal_jparser *p, bal_jvalue *name)
{
    *name = bal_j_text("", 0);
    if (p->at->kind != BAL_JT_NAME) {
        bal_j_syntax(p, "a name");
        return false;
    }
    *name = p->at->value;
    next(p);
    return true;
}

static bal_jnode *with(bal_jparser *p, int kind, int op, bal_jnode *a, bal_jnode *b)
{
    bal_jnode *e = bal_j_node(p, kind);
    e->op = (uint8_t)op;
    e->a = a;
    e->b = b;
    return e;
}

bal_jnode *bal_j_call_args(bal_jparser *p) // NOLINT(misc-no-recursion): the depth is bounded by bal_j_enter
{
    bal_jnode *first = NULL, **end = &first;
    size_t n = 0;
    while (p->r->status == BAL_OK && !bal_j_at_op(p, ')')) {
        bal_jnode *e;
        if (bal_j_at_op(p, '*') || bal_j_at_op(p, BAL_J_POW))
            bal_j_fail(p->r, BAL_EUNSUPPORTED, "arguments by * and ** are not supported");
        if (p->at->kind == BAL_JT_NAME && p->at[1].kind == BAL_JT_OP && p->at[1].op == '=') {
            e = bal_j_node(p, BAL_JN_KEYWORD);
            e->value = p->at->value;
            next(p);
            next(p);
            e->a = bal_j_expression(p, true);
        } else {
            e = bal_j_node(p, BAL_JN_OPERAND);
            e->a = bal_j_expression(p, true);
        }
        if (p->r->status != BAL_OK)
            return NULL;
        *end = e;
        end = &e->next;
        if (++n > BAL_J_MAX_ARGS)
            bal_j_fail(p->r, BAL_ELIMIT, "a call has more than %d arguments", BAL_J_MAX_ARGS);
        if (!bal_j_skip_op(p, ','))
            break;
    }
    (void)bal_j_need_op(p, ')');
    return first;
}

static bal_jnode *list_literal(bal_jparser *p, int close) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = bal_j_node(p, BAL_JN_LIST), **end = &e->list;
    while (p->r->status == BAL_OK && !bal_j_at_op(p, close)) {
        bal_jnode *item = with(p, BAL_JN_OPERAND, 0, bal_j_expression(p, true), NULL);
        if (p->r->status != BAL_OK)
            return e;
        *end = item;
        end = &item->next;
        if (!bal_j_skip_op(p, ','))
            break;
    }
    (void)bal_j_need_op(p, close);
    return e;
}

static bal_jnode *dict_literal(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = bal_j_node(p, BAL_JN_DICT), **end = &e->list;
    while (p->r->status == BAL_OK && !bal_j_at_op(p, '}')) {
        bal_jnode *key = bal_j_expression(p, true);
        (void)bal_j_need_op(p, ':');
        bal_jnode *pair = with(p, BAL_JN_PAIR, 0, key, bal_j_expression(p, true));
        if (p->r->status != BAL_OK)
            return e;
        *end = pair;
        end = &pair->next;
        if (!bal_j_skip_op(p, ','))
            break;
    }
    (void)bal_j_need_op(p, '}');
    return e;
}

static bal_jnode *name_or_constant(bal_jparser *p)
{
    static const struct {
        const char *name;
        int kind;
        bool b;
    } k[] = {{"true", BAL_J_BOOL, true},   {"True", BAL_J_BOOL, true},  {"false", BAL_J_BOOL, false},
             {"False", BAL_J_BOOL, false}, {"none", BAL_J_NONE, false}, {"None", BAL_J_NONE, false}};
    bal_jnode *e = bal_j_node(p, BAL_JN_NAME);
    e->value = p->at->value;
    p->uses |= bal_j_at_name(p, "varargs")  ? BAL_J_USES_VARARGS
               : bal_j_at_name(p, "kwargs") ? BAL_J_USES_KWARGS
               : bal_j_at_name(p, "caller") ? BAL_J_USES_CALLER
                                            : 0;
    for (size_t i = 0; i < sizeof k / sizeof k[0]; i++)
        if (bal_j_at_name(p, k[i].name)) {
            e->kind = BAL_JN_CONST;
            e->value = k[i].kind == BAL_J_BOOL ? bal_j_bool(k[i].b) : bal_j_none();
        }
    next(p);
    return e;
}

static bal_jnode *primary(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jnode *e;
    if (p->at->kind == BAL_JT_NAME)
        return name_or_constant(p);
    if (p->at->kind == BAL_JT_VALUE) {
        e = bal_j_node(p, BAL_JN_CONST);
        e->value = p->at->value;
        next(p);
        while (e->value.kind == BAL_J_TEXT && p->at->kind == BAL_JT_VALUE && p->at->value.kind == BAL_J_TEXT) {
            bal_buf b = {0}; /* texts side by side are one */
            bal_j_append(p->r, &b, e->value.u.text, e->value.n);
            bal_j_append(p->r, &b, p->at->value.u.text, p->at->value.n);
            e->value = bal_j_take_buf(p->r, &b);
            next(p);
        }
        return e;
    }
    if (bal_j_skip_op(p, '(')) {
        if (bal_j_skip_op(p, ')')) {
            e = bal_j_node(p, BAL_JN_LIST);
            e->tuple = true;
            return e;
        }
        e = bal_j_tuple(p, true);
        (void)bal_j_need_op(p, ')');
        return e;
    }
    if (bal_j_skip_op(p, '['))
        return list_literal(p, ']');
    if (bal_j_skip_op(p, '{'))
        return dict_literal(p);
    bal_j_syntax(p, "a value");
    return bal_j_node(p, BAL_JN_CONST);
}

static bal_jnode *subscript(bal_jparser *p, bal_jnode *a) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = with(p, BAL_JN_ITEM, 0, a, NULL);
    bool slice = bal_j_at_op(p, ':');
    if (!slice)
        e->b = bal_j_tuple(p, true);
    if (bal_j_skip_op(p, ':')) {
        e->kind = BAL_JN_SLICE;
        if (!bal_j_at_op(p, ':') && !bal_j_at_op(p, ']'))
            e->c = bal_j_expression(p, true);
        if (bal_j_skip_op(p, ':') && !bal_j_at_op(p, ']'))
            e->d = bal_j_expression(p, true);
    }
    (void)bal_j_need_op(p, ']');
    return e;
}

static bal_jnode *call(bal_jparser *p, bal_jnode *a) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = with(p, BAL_JN_CALL, 0, a, NULL);
    e->list = bal_j_call_args(p);
    return e;
}

static bal_jnode *postfix(bal_jparser *p, bal_jnode *e) // NOLINT(misc-no-recursion)
{
    while (p->r->status == BAL_OK) {
        if (bal_j_skip_op(p, '.')) {
            bool number = p->at->kind == BAL_JT_VALUE && p->at->value.kind == BAL_J_INT;
            bal_jnode *a = e;
            e = with(p, number ? BAL_JN_ITEM : BAL_JN_ATTR, 0, a, NULL);
            if (number) {
                e->b = bal_j_node(p, BAL_JN_CONST);
                e->b->value = p->at->value;
                next(p);
            } else if (!bal_j_need_name(p, &e->value)) {
                break;
            }
        } else if (bal_j_skip_op(p, '[')) {
            e = subscript(p, e);
        } else if (bal_j_skip_op(p, '(')) {
            e = call(p, e);
        } else {
            break;
        }
    }
    return e;
}

static bal_jnode *one_filter(bal_jparser *p, bal_jnode *a) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = with(p, BAL_JN_FILTER, 0, a, NULL);
    if (bal_j_need_name(p, &e->value) && !bal_j_known_filter(e->value.u.text, e->value.n))
        bal_j_fail(p->r, BAL_EUNSUPPORTED, "the filter '%.*s' is not supported", e->value.n > 60 ? 60 : (int)e->value.n,
                   e->value.u.text);
    if (bal_j_skip_op(p, '('))
        e->list = bal_j_call_args(p);
    return e;
}

bal_jnode *bal_j_filters(bal_jparser *p, bal_jnode *a) // NOLINT(misc-no-recursion)
{
    while (bal_j_skip_op(p, '|'))
        a = one_filter(p, a);
    return a;
}

static bal_jnode *test(bal_jparser *p, bal_jnode *a) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = with(p, BAL_JN_TEST, 0, a, NULL);
    e->negated = bal_j_skip_name(p, "not");
    if (bal_j_need_name(p, &e->value) && !bal_j_known_test(e->value.u.text, e->value.n))
        bal_j_fail(p->r, BAL_EUNSUPPORTED, "the test 'is %.*s' is not supported",
                   e->value.n > 60 ? 60 : (int)e->value.n, e->value.u.text);
    bool word = p->at->kind == BAL_JT_NAME && !bal_j_at_name(p, "else") && !bal_j_at_name(p, "or") &&
                !bal_j_at_name(p, "and"); /* also `if`, `in` and `not`: Jinja, too, takes them for the argument */
    if (bal_j_at_name(p, "is"))
        bal_j_syntax(p, "something other than a second test");
    if (bal_j_skip_op(p, '(')) {
        e->list = bal_j_call_args(p);
    } else if (word || p->at->kind == BAL_JT_VALUE || bal_j_at_op(p, '[') || bal_j_at_op(p, '{')) {
        bal_jnode *arg = bal_j_node(p, BAL_JN_OPERAND);
        arg->a = postfix(p, primary(p));
        e->list = arg;
    }
    return e;
}

static bal_jnode *unary(bal_jparser *p, bool filters) // NOLINT(misc-no-recursion)
{
    bal_jnode *e;
    if (!bal_j_enter(p->r)) {
        bal_j_leave(p->r);
        return bal_j_node(p, BAL_JN_CONST);
    }
    if (bal_j_skip_op(p, '-'))
        e = with(p, BAL_JN_UNARY, '-', unary(p, false), NULL);
    else if (bal_j_skip_op(p, '+'))
        e = with(p, BAL_JN_UNARY, '+', unary(p, false), NULL);
    else
        e = primary(p);
    e = postfix(p, e);
    while (filters && p->r->status == BAL_OK) {
        if (bal_j_skip_op(p, '|'))
            e = one_filter(p, e);
        else if (bal_j_skip_name(p, "is"))
            e = test(p, e);
        else if (bal_j_skip_op(p, '('))
            e = call(p, e);
        else
            break;
    }
    bal_j_leave(p->r);
    return e;
}

/* The four levels of arithmetic, loosest first: + -, ~, * / // %, **. */
static bal_jnode *arithmetic(bal_jparser *p, int level) // NOLINT(misc-no-recursion)
{
    static const char ops[4][5] = {"+-", "~", {'*', '/', '%', BAL_J_FLOORDIV, 0}, {BAL_J_POW, 0}};
    if (level == 4)
        return unary(p, true);
    bal_jnode *a = arithmetic(p, level + 1);
    while (p->at->kind == BAL_JT_OP && p->at->op != 0 && strchr(ops[level], p->at->op) != NULL &&
           p->r->status == BAL_OK) {
        int op = p->at->op;
        next(p);
        a = with(p, BAL_JN_BINARY, op, a, arithmetic(p, level + 1));
    }
    return a;
}

static bal_jnode *comparison(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jnode *a = arithmetic(p, 0), *e = NULL, **end = NULL;
    while (p->r->status == BAL_OK) {
        int op = 0;
        if (p->at->kind == BAL_JT_OP && p->at->op != 0 &&
            (strchr("<>", p->at->op) != NULL || (p->at->op >= BAL_J_EQ && p->at->op <= BAL_J_GE))) {
            op = p->at->op;
            next(p);
        } else if (bal_j_skip_name(p, "in")) {
            op = BAL_J_IN;
        } else if (bal_j_at_name(p, "not") && p->at[1].kind == BAL_JT_NAME &&
                   bal_j_named(p->at[1].value.u.text, p->at[1].value.n, "in")) {
            next(p);
            next(p);
            op = BAL_J_NOT_IN;
        } else {
            break;
        }
        if (e == NULL) {
            e = with(p, BAL_JN_COMPARE, 0, a, NULL);
            end = &e->list;
        }
        bal_jnode *operand = with(p, BAL_JN_OPERAND, op, arithmetic(p, 0), NULL);
        if (p->r->status != BAL_OK)
            break;
        *end = operand;
        end = &operand->next;
    }
    return e != NULL ? e : a;
}

static bal_jnode *negation(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    if (!bal_j_skip_name(p, "not"))
        return comparison(p);
    bal_jnode *e = bal_j_node(p, BAL_JN_NOT);
    if (bal_j_enter(p->r))
        e->a = negation(p);
    bal_j_leave(p->r);
    return e;
}

static bal_jnode *logic(bal_jparser *p, bool is_or) // NOLINT(misc-no-recursion)
{
    bal_jnode *a = is_or ? logic(p, false) : negation(p);
    while (bal_j_skip_name(p, is_or ? "or" : "and"))
        a = with(p, is_or ? BAL_JN_OR : BAL_JN_AND, 0, a, is_or ? logic(p, false) : negation(p));
    return a;
}

bal_jnode *bal_j_expression(bal_jparser *p, bool with_cond) // NOLINT(misc-no-recursion)
{
    bal_jnode *a;
    if (!bal_j_enter(p->r)) {
        bal_j_leave(p->r);
        return bal_j_node(p, BAL_JN_CONST);
    }
    a = logic(p, true);
    while (with_cond && bal_j_skip_name(p, "if")) {
        bal_jnode *e = with(p, BAL_JN_COND, 0, a, logic(p, true));
        if (bal_j_skip_name(p, "else"))
            e->c = bal_j_expression(p, true);
        a = e;
    }
    bal_j_leave(p->r);
    return a;
}

bal_jnode *bal_j_tuple(bal_jparser *p, bool with_cond) // NOLINT(misc-no-recursion)
{
    bal_jnode *a = bal_j_expression(p, with_cond);
    if (!bal_j_at_op(p, ','))
        return a;
    bal_jnode *e = bal_j_node(p, BAL_JN_LIST), **end = &e->list;
    e->tuple = true;
    for (bal_jnode *item = a; p->r->status == BAL_OK;) {
        bal_jnode *operand = with(p, BAL_JN_OPERAND, 0, item, NULL);
        *end = operand;
        end = &operand->next;
        bool ends = !bal_j_skip_op(p, ',') || p->at->kind == BAL_JT_PRINT_END || p->at->kind == BAL_JT_TAG_END ||
                    bal_j_at_op(p, ')') || bal_j_at_op(p, ']') || bal_j_at_op(p, '=');
        if (ends)
            break;
        item = bal_j_expression(p, with_cond);
    }
    return e;
}

static bool is_constant(const bal_jparser *p)
{
    return bal_j_at_name(p, "true") || bal_j_at_name(p, "True") || bal_j_at_name(p, "false") ||
           bal_j_at_name(p, "False") || bal_j_at_name(p, "none") || bal_j_at_name(p, "None");
}

static bal_jnode *one_target(bal_jparser *p, bool attributes)
{
    bal_jnode *e = bal_j_node(p, BAL_JN_NAME);
    if (is_constant(p))
        bal_j_syntax(p, "a name that can be set");
    if (bal_j_need_name(p, &e->value) && attributes && bal_j_skip_op(p, '.')) {
        e = with(p, BAL_JN_ATTR, 0, e, NULL);
        (void)bal_j_need_name(p, &e->value);
    }
    return e;
}

bal_jnode *bal_j_target(bal_jparser *p, bool attributes)
{
    bool bracket = bal_j_skip_op(p, '(');
    bal_jnode *first = one_target(p, attributes && !bracket);
    if (bal_j_at_op(p, ',')) {
        bal_jnode *e = bal_j_node(p, BAL_JN_LIST), **end = &e->list;
        for (bal_jnode *item = first; p->r->status == BAL_OK;) {
            bal_jnode *operand = with(p, BAL_JN_OPERAND, 0, item, NULL);
            *end = operand;
            end = &operand->next;
            if (!bal_j_skip_op(p, ',') || p->at->kind != BAL_JT_NAME || bal_j_at_name(p, "in"))
                break;
            item = one_target(p, attributes);
        }
        first = e;
    }
    if (bracket)
        (void)bal_j_need_op(p, ')');
    return first;
}
