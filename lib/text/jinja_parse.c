/* Statements of templates.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/jinja_parse.h"

#include <stdio.h>
#include <string.h>

static bal_jnode *statements(bal_jparser *p, const char *const *ends);

static void next(bal_jparser *p)
{
    if (p->at->kind != BAL_JT_END)
        p->at++;
    p->r->line = p->at->line;
}

static void end_tag(bal_jparser *p)
{
    if (p->at->kind == BAL_JT_TAG_END)
        next(p);
    else
        bal_j_syntax(p, "%}");
}

/* {% word: at a tag that begins with this word. */
static bool at_tag(const bal_jparser *p, const char *word)
{
    return p->at->kind == BAL_JT_TAG && p->at[1].kind == BAL_JT_NAME && p->r->status == BAL_OK &&
           bal_j_named(p->at[1].value.u.text, p->at[1].value.n, word);
}

static bool skip_tag(bal_jparser *p, const char *word)
{
    bool there = at_tag(p, word);
    if (there) {
        next(p);
        next(p);
    }
    return there;
}

/* The statements up to {% end %}, which is taken. */
static bal_jnode *body_until(bal_jparser *p, const char *end) // NOLINT(misc-no-recursion): bounded by bal_j_enter
{
    const char *const ends[] = {end, NULL};
    end_tag(p);
    bal_jnode *body = statements(p, ends);
    if (skip_tag(p, end)) {
        end_tag(p);
    } else if (p->r->status == BAL_OK) {
        char wanted[40];
        (void)snprintf(wanted, sizeof wanted, "{%% %s %%}", end);
        bal_j_syntax(p, wanted);
    }
    return body;
}

static bal_jnode *parse_if(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    bal_jnode *first = bal_j_node(p, BAL_JN_IF), *e = first;
    for (;;) {
        e->a = bal_j_tuple(p, false);
        end_tag(p);
        e->body = statements(p, ends);
        if (!skip_tag(p, "elif"))
            break;
        bal_jnode *more = bal_j_node(p, BAL_JN_IF);
        if (p->r->status != BAL_OK)
            return first;
        e->other = more;
        e = more;
    }
    if (skip_tag(p, "else")) {
        e->other = body_until(p, "endif");
    } else if (skip_tag(p, "endif")) {
        end_tag(p);
    } else {
        bal_j_syntax(p, "{% endif %}");
    }
    return first;
}

static bal_jnode *parse_for(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    static const char *const ends[] = {"else", "endfor", NULL};
    bal_jnode *e = bal_j_node(p, BAL_JN_FOR);
    e->a = bal_j_target(p, false);
    for (const bal_jnode *t = e->a->kind == BAL_JN_NAME ? e->a : NULL, *o = e->a->list; t != NULL || o != NULL;) {
        const bal_jvalue *name = t != NULL ? &t->value : &o->a->value;
        if (bal_j_named(name->u.text, name->n, "loop"))
            bal_j_fail(p->r, BAL_EFORMAT, "syntax error: a loop cannot set the name loop");
        o = t != NULL ? NULL : o->next;
        t = NULL;
    }
    if (!bal_j_skip_name(p, "in"))
        bal_j_syntax(p, "'in'");
    e->b = bal_j_tuple(p, false);
    if (bal_j_skip_name(p, "if"))
        e->c = bal_j_expression(p, true);
    if (bal_j_at_name(p, "recursive"))
        bal_j_fail(p->r, BAL_EUNSUPPORTED, "recursive loops are not supported");
    end_tag(p);
    p->loops++;
    e->body = statements(p, ends);
    p->loops--;
    if (skip_tag(p, "else")) {
        e->other = body_until(p, "endfor");
    } else if (skip_tag(p, "endfor")) {
        end_tag(p);
    } else {
        bal_j_syntax(p, "{% endfor %}");
    }
    return e;
}

static bal_jnode *parse_set(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = bal_j_node(p, BAL_JN_SET);
    e->a = bal_j_target(p, true);
    if (bal_j_skip_op(p, '=')) {
        e->b = bal_j_tuple(p, true);
        end_tag(p);
    } else {
        e->c = bal_j_filters(p, bal_j_node(p, BAL_JN_INPUT));
        e->body = body_until(p, "endset");
    }
    return e;
}

/* name=default, ... behind the ( of a macro or a call. */
static bal_jnode *parameters(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jnode *first = NULL, **end = &first;
    size_t n = 0;
    bool defaults = false;
    while (p->r->status == BAL_OK && !bal_j_at_op(p, ')')) {
        bal_jnode *e = bal_j_node(p, BAL_JN_KEYWORD);
        if (!bal_j_need_name(p, &e->value))
            break;
        if (bal_j_skip_op(p, '='))
            e->a = bal_j_expression(p, true);
        else if (defaults)
            bal_j_syntax(p, "a default, as the parameter before has one,");
        defaults = e->a != NULL;
        if (++n > BAL_J_MAX_ARGS)
            bal_j_fail(p->r, BAL_ELIMIT, "a macro has more than %d parameters", BAL_J_MAX_ARGS);
        if (p->r->status != BAL_OK)
            break;
        *end = e;
        end = &e->next;
        if (!bal_j_skip_op(p, ','))
            break;
    }
    (void)bal_j_need_op(p, ')');
    return first;
}

/* The body of a macro or of a call, and which of the names that it may be given it reads. */
static void macro_body(bal_jparser *p, bal_jnode *e, const char *end) // NOLINT(misc-no-recursion)
{
    size_t loops = p->loops;
    uint8_t uses = p->uses;
    p->loops = 0;
    p->uses = 0;
    e->body = body_until(p, end);
    e->op = p->uses;
    p->uses |= uses;
    p->loops = loops;
}

static bal_jnode *parse_macro(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = bal_j_node(p, BAL_JN_MACRO);
    if (bal_j_need_name(p, &e->value) && bal_j_need_op(p, '('))
        e->list = parameters(p);
    macro_body(p, e, "endmacro");
    return e;
}

static bal_jnode *parse_call(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = bal_j_node(p, BAL_JN_CALLER);
    e->value = bal_j_text("caller", 6);
    if (bal_j_skip_op(p, '('))
        e->list = parameters(p);
    e->a = bal_j_expression(p, true);
    if (e->a->kind != BAL_JN_CALL)
        bal_j_syntax(p, "a call");
    macro_body(p, e, "endcall");
    return e;
}

static bal_jnode *parse_with(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = bal_j_node(p, BAL_JN_WITH), **end = &e->list;
    while (p->r->status == BAL_OK && p->at->kind != BAL_JT_TAG_END) {
        bal_jnode *set = bal_j_node(p, BAL_JN_SET);
        set->a = bal_j_target(p, false);
        (void)bal_j_need_op(p, '=');
        set->b = bal_j_expression(p, true);
        if (p->r->status != BAL_OK)
            break;
        *end = set;
        end = &set->next;
        if (!bal_j_skip_op(p, ','))
            break;
    }
    e->body = body_until(p, "endwith");
    return e;
}

static bal_jnode *parse_filter(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jnode *e = bal_j_node(p, BAL_JN_FILTERED);
    bal_jnode *f = bal_j_node(p, BAL_JN_FILTER);
    f->a = bal_j_node(p, BAL_JN_INPUT);
    if (bal_j_need_name(p, &f->value) && !bal_j_known_filter(f->value.u.text, f->value.n))
        bal_j_fail(p->r, BAL_EUNSUPPORTED, "the filter '%.*s' is not supported", f->value.n > 60 ? 60 : (int)f->value.n,
                   f->value.u.text);
    if (bal_j_skip_op(p, '('))
        f->list = bal_j_call_args(p);
    e->a = bal_j_filters(p, f);
    e->body = body_until(p, "endfilter");
    return e;
}

static bal_jnode *parse_jump(bal_jparser *p, int kind)
{
    bal_jnode *e = bal_j_node(p, kind);
    if (p->loops == 0)
        bal_j_fail(p->r, BAL_EFORMAT, "syntax error: break or continue outside of a loop");
    end_tag(p);
    return e;
}

static bal_jnode *parse_tag(bal_jparser *p) // NOLINT(misc-no-recursion)
{
    bal_jvalue word;
    next(p);
    bal_jnode *e = bal_j_node(p, BAL_JN_GENERATION);
    if (!bal_j_need_name(p, &word))
        return e;
    const char *w = word.u.text;
    if (bal_j_named(w, word.n, "if"))
        return parse_if(p);
    if (bal_j_named(w, word.n, "for"))
        return parse_for(p);
    if (bal_j_named(w, word.n, "set"))
        return parse_set(p);
    if (bal_j_named(w, word.n, "macro"))
        return parse_macro(p);
    if (bal_j_named(w, word.n, "call"))
        return parse_call(p);
    if (bal_j_named(w, word.n, "with"))
        return parse_with(p);
    if (bal_j_named(w, word.n, "filter"))
        return parse_filter(p);
    if (bal_j_named(w, word.n, "break") || bal_j_named(w, word.n, "continue"))
        return parse_jump(p, w[0] == 'b' ? BAL_JN_BREAK : BAL_JN_CONTINUE);
    if (bal_j_named(w, word.n, "generation")) {
        macro_body(p, e, "endgeneration"); /* Jinja makes it a call */
        return e;
    }
    bool stray = word.n > 3 && memcmp(w, "end", 3) == 0;
    stray = stray || bal_j_named(w, word.n, "else") || bal_j_named(w, word.n, "elif");
    if (stray)
        bal_j_fail(p->r, BAL_EFORMAT, "syntax error: {%% %.*s %%} has no beginning", word.n > 60 ? 60 : (int)word.n, w);
    else
        bal_j_fail(p->r, BAL_EUNSUPPORTED, "the tag {%% %.*s %%} is not supported", word.n > 60 ? 60 : (int)word.n, w);
    return e;
}

static bal_jnode *statements(bal_jparser *p, const char *const *ends) // NOLINT(misc-no-recursion)
{
    bal_jnode *first = NULL, **end = &first;
    if (!bal_j_enter(p->r)) {
        bal_j_leave(p->r);
        return NULL;
    }
    while (p->r->status == BAL_OK && p->at->kind != BAL_JT_END) {
        bal_jnode *e;
        bool stop = false;
        for (size_t i = 0; ends[i] != NULL && !stop; i++)
            stop = at_tag(p, ends[i]);
        if (stop)
            break;
        if (p->at->kind == BAL_JT_DATA) {
            e = bal_j_node(p, BAL_JN_DATA);
            e->value = p->at->value;
            next(p);
        } else if (p->at->kind == BAL_JT_PRINT) {
            next(p);
            e = bal_j_node(p, BAL_JN_PRINT);
            e->a = bal_j_tuple(p, true);
            if (p->at->kind == BAL_JT_PRINT_END)
                next(p);
            else
                bal_j_syntax(p, "}}");
        } else {
            e = parse_tag(p);
        }
        if (p->r->status != BAL_OK)
            break;
        *end = e;
        end = &e->next;
    }
    bal_j_leave(p->r);
    return first;
}

bal_jnode *bal_j_parse(bal_jinja *r, const char *text, size_t n)
{
    static const char *const none[] = {NULL};
    bal_jparser p = {.r = r, .at = bal_j_words(r, text, n)};
    return p.at != NULL ? statements(&p, none) : NULL;
}
