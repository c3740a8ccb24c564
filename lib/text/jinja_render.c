/* Statements at work, and the door.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja_impl.h"

#include <string.h>

bal_status bal_stretches_add(bal_stretches *s, size_t begin, size_t end)
{
    if (s->n == s->cap) {
        size_t cap = s->cap == 0 ? 8 : 2 * s->cap;
        bal_stretch *items = bal_realloc(s->items, cap, sizeof *items);
        if (items == NULL)
            return BAL_ENOMEM;
        s->items = items;
        s->cap = cap;
    }
    s->items[s->n++] = (bal_stretch){begin, end};
    return BAL_OK;
}

void bal_stretches_dispose(bal_stretches *s)
{
    bal_free(s->items);
    *s = (bal_stretches){0};
}

void bal_j_bind(bal_jinja *r, bal_jframe *frame, const char *name, size_t n, bal_jvalue value)
{
    for (bal_jbinding *b = frame->first; b != NULL && bal_j_charge(r, 0); b = b->next)
        if (b->n == n && memcmp(b->name, name, n) == 0) {
            b->value = value;
            return;
        }
    bal_jbinding *b = bal_j_take(r, sizeof *b);
    if (b == NULL)
        return;
    *b = (bal_jbinding){name, n, value, frame->first};
    frame->first = b;
}

/* A new frame over the present one: its names end with it. */
static bal_jframe *open_frame(bal_jinja *r, bal_jframe *up)
{
    bal_jframe *f = bal_j_take(r, sizeof *f);
    if (f != NULL)
        f->up = up;
    return f;
}

void bal_j_assign(bal_jinja *r, const bal_jnode *target, bal_jvalue value) // NOLINT(misc-no-recursion): two levels
{
    if (target->kind == BAL_JN_NAME) {
        bal_j_bind(r, r->frame, target->value.u.text, target->value.n, value);
    } else if (target->kind == BAL_JN_ATTR) {
        bal_jvalue space = bal_j_eval(r, target->a);
        const char *name = target->value.u.text;
        if (space.kind != BAL_J_NAMESPACE)
            bal_j_fail(r, BAL_EFORMAT, "a value can be set in a namespace only, not in %s", bal_j_type(space));
        else if (name[0] == '_')
            bal_j_fail(r, BAL_EFORMAT, "a name of a namespace may not begin with _");
        else
            bal_j_put(r, space.u.dict, target->value, value);
    } else {
        const bal_jlist *items = bal_j_items(r, value);
        size_t i = 0;
        for (const bal_jnode *t = target->list; t != NULL && items != NULL && r->status == BAL_OK; t = t->next, i++)
            if (i < items->n)
                bal_j_assign(r, t->a, items->items[i]);
        if (items != NULL && i != items->n)
            bal_j_fail(r, BAL_EFORMAT, "%zu values for %zu names", items->n, i);
    }
}

/* The text that the statements write. */
static bal_jvalue capture(bal_jinja *r, const bal_jnode *body) // NOLINT(misc-no-recursion): bounded by bal_j_enter
{
    bal_buf b = {0}, *out = r->out;
    r->out = &b;
    bal_j_run(r, body);
    r->out = out;
    r->captured += b.len;
    return bal_j_take_buf(r, &b);
}

static bal_jvalue macro_value(bal_jinja *r, const bal_jnode *node)
{
    bal_jmacro *m = bal_j_take(r, sizeof *m);
    if (m == NULL)
        return bal_j_none();
    *m = (bal_jmacro){node, r->frame};
    return (bal_jvalue){.kind = BAL_J_MACRO, .u.macro = m};
}

/* Names that a macro's body knows besides its parameters, if it reads them: caller, varargs, kwargs.  Arguments that
 * would go to one that it does not read are an error. */
static void bind_rest(bal_jinja *r, const bal_jargs *args, const bool *used, int uses)
{
    bal_jvalue rest = bal_j_list(r, BAL_J_TUPLE), named = bal_j_dict(r), caller = bal_j_undefined("caller", 6);
    for (size_t i = 0; i < args->n && r->status == BAL_OK; i++) {
        const char *name = args->names[i];
        size_t n = args->n_names[i];
        if (used[i])
            continue;
        if (name == NULL && (uses & BAL_J_USES_VARARGS) == 0)
            bal_j_fail(r, BAL_EFORMAT, "the macro takes at most %zu arguments", i);
        else if (name == NULL)
            bal_j_push(r, rest.u.list, args->at[i]);
        else if (bal_j_named(name, n, "caller") && (uses & BAL_J_USES_CALLER) != 0)
            caller = args->at[i];
        else if ((uses & BAL_J_USES_KWARGS) == 0)
            bal_j_fail(r, BAL_EFORMAT, "the macro has no argument '%.*s' left", n > 60 ? 60 : (int)n, name);
        else
            bal_j_put(r, named.u.dict, bal_j_text(name, n), args->at[i]);
    }
    if ((uses & BAL_J_USES_CALLER) != 0)
        bal_j_bind(r, r->frame, "caller", 6, caller);
    if ((uses & BAL_J_USES_VARARGS) != 0)
        bal_j_bind(r, r->frame, "varargs", 7, rest);
    if ((uses & BAL_J_USES_KWARGS) != 0)
        bal_j_bind(r, r->frame, "kwargs", 6, named);
}

bal_jvalue bal_j_call_macro(bal_jinja *r, const bal_jmacro *m, const bal_jargs *args) // NOLINT(misc-no-recursion)
{
    bal_jframe *frame = r->frame, *own = open_frame(r, m->frame);
    bool used[BAL_J_MAX_ARGS] = {false};
    bal_jvalue text = bal_j_text("", 0);
    size_t at = 0, loops = r->loops;
    int uses = m->node->op;
    if (own == NULL || !bal_j_enter(r)) {
        bal_j_leave(r);
        return text;
    }
    r->frame = own;
    for (const bal_jnode *p = m->node->list; p != NULL && r->status == BAL_OK; p = p->next, at++) {
        bal_jvalue v = bal_j_undefined(p->value.u.text, p->value.n);
        bool given = false;
        for (size_t i = 0; i < args->n && !given; i++) {
            given = args->names[i] != NULL
                        ? args->n_names[i] == p->value.n && memcmp(args->names[i], p->value.u.text, p->value.n) == 0
                        : i == at;
            used[i] = used[i] || given;
            v = given ? args->at[i] : v;
        }
        if (!given && p->a != NULL)
            v = bal_j_eval(r, p->a);
        bal_j_bind(r, own, p->value.u.text, p->value.n, v);
        uses &= bal_j_named(p->value.u.text, p->value.n, "caller") ? ~BAL_J_USES_CALLER : ~0;
    }
    bind_rest(r, args, used, uses);
    r->loops = 0;
    text = capture(r, m->node->body);
    r->loops = loops;
    r->frame = frame;
    bal_j_leave(r);
    return text;
}

/* The items that pass `if`, which sees the loop's names. */
static const bal_jlist *chosen(bal_jinja *r, const bal_jnode *e, const bal_jlist *items)
{
    bal_jlist *kept = bal_j_list(r, BAL_J_PLAIN).u.list;
    bal_jframe *outside = r->frame;
    for (size_t i = 0; i < items->n && r->status == BAL_OK; i++) {
        bal_jframe *own = open_frame(r, outside);
        if (own == NULL)
            break;
        r->frame = own;
        bal_jvalue item = items->items[i];
        bal_j_assign(r, e->a, item);
        if (r->status == BAL_OK && e->a->kind == BAL_JN_LIST) { /* Jinja's filter puts the names together again */
            const bal_jlist *parts = bal_j_items(r, item);
            item = bal_j_list(r, BAL_J_TUPLE);
            for (size_t k = 0; parts != NULL && k < parts->n; k++)
                bal_j_push(r, item.u.list, parts->items[k]);
        }
        if (bal_j_truth(bal_j_eval(r, e->c)))
            bal_j_push(r, kept, item);
    }
    r->frame = outside;
    return kept;
}

static void run_for(bal_jinja *r, const bal_jnode *e) // NOLINT(misc-no-recursion)
{
    bal_jframe *outside = r->frame;
    bal_jvalue over = bal_j_eval(r, e->b);
    const bal_jlist *items = bal_j_items(r, over);
    bal_jloop *loop = bal_j_take(r, sizeof *loop);
    bool came_through = false; /* a body was left at its end */
    if (items != NULL && e->c != NULL)
        items = chosen(r, e, items);
    if (items == NULL || loop == NULL || r->status != BAL_OK)
        return;
    r->loops++;
    *loop = (bal_jloop){.list = items, .depth = 1}; /* the depth of recursive loops, which there are none */
    for (size_t i = 0; i < items->n && r->status == BAL_OK && r->flow != BAL_J_BROKEN; i++) {
        bal_jframe *own = open_frame(r, outside);
        if (own == NULL)
            break;
        r->frame = own;
        loop->at = i;
        bal_j_bind(r, own, "loop", 4, (bal_jvalue){.kind = BAL_J_LOOP, .u.loop = loop});
        bal_j_assign(r, e->a, items->items[i]);
        bal_j_run(r, e->body);
        came_through |= r->flow == BAL_J_ON;
        if (r->flow == BAL_J_CONTINUED)
            r->flow = BAL_J_ON;
    }
    if (r->flow == BAL_J_BROKEN && over.kind == BAL_J_LIST && over.flavor == BAL_J_LAZY)
        over.u.list->left_open = true;
    r->flow = BAL_J_ON;
    r->frame = outside;
    r->loops--;
    if (!came_through) { /* Jinja's else: also when break or continue ended every body */
        bal_jframe *own = open_frame(r, outside);
        r->frame = own != NULL ? own : outside;
        bal_j_run(r, e->other);
        r->frame = outside;
    }
}

static void run_scoped(bal_jinja *r, const bal_jnode *body, const bal_jnode *sets) // NOLINT(misc-no-recursion)
{
    bal_jframe *outside = r->frame, *own = open_frame(r, outside);
    for (const bal_jnode *s = sets; s != NULL && own != NULL && r->status == BAL_OK; s = s->next) {
        r->frame = outside; /* the values are those of outside */
        bal_jvalue v = bal_j_eval(r, s->b);
        r->frame = own;
        bal_j_assign(r, s->a, v);
    }
    if (own != NULL) {
        r->frame = own;
        bal_j_run(r, body);
    }
    r->frame = outside;
}

static bal_jvalue captured_in_scope(bal_jinja *r, const bal_jnode *body) // NOLINT(misc-no-recursion)
{
    bal_jframe *outside = r->frame, *own = open_frame(r, outside);
    if (own != NULL)
        r->frame = own;
    bal_jvalue v = capture(r, body);
    r->frame = outside;
    return v;
}

static bal_jvalue through_filters(bal_jinja *r, const bal_jnode *filters, bal_jvalue input) // NOLINT(misc-no-recursion)
{
    bal_jvalue before = r->input;
    r->input = input;
    bal_jvalue v = filters != NULL ? bal_j_eval(r, filters) : input;
    r->input = before;
    return v;
}

static void run_generation(bal_jinja *r, const bal_jnode *e) // NOLINT(misc-no-recursion)
{
    size_t begin = r->out->len;
    const bal_jargs nothing = {.n = 0};
    bal_jframe *outside = r->frame, *own = open_frame(r, outside);
    if (own == NULL)
        return;
    r->frame = own;
    bind_rest(r, &nothing, NULL, e->op);
    bal_j_run(r, e->body);
    r->frame = outside;
    if (r->generation != NULL && r->out == r->main_out && r->status == BAL_OK)
        r->status = bal_stretches_add(r->generation, begin, r->out->len);
}

static void run_call(bal_jinja *r, const bal_jnode *e) // NOLINT(misc-no-recursion)
{
    bal_jargs args;
    bal_jvalue f = bal_j_eval(r, e->a->a);
    bal_j_args(r, e->a->list, &args);
    if (f.kind != BAL_J_MACRO || args.n == BAL_J_MAX_ARGS)
        bal_j_fail(r, BAL_EFORMAT, "{%% call %%} asks for a macro, not %s", bal_j_type(f));
    if (r->status != BAL_OK)
        return;
    args.names[args.n] = "caller";
    args.n_names[args.n] = 6;
    args.at[args.n++] = macro_value(r, e);
    bal_j_write(r, r->out, bal_j_call_macro(r, f.u.macro, &args));
}

static void run_one(bal_jinja *r, const bal_jnode *e) // NOLINT(misc-no-recursion)
{
    bal_jvalue v;
    switch ((bal_jnode_kind)e->kind) {
    case BAL_JN_DATA:
        bal_j_append(r, r->out, e->value.u.text, e->value.n);
        break;
    case BAL_JN_PRINT:
        v = bal_j_eval(r, e->a);
        if (r->status == BAL_OK)
            bal_j_write(r, r->out, v);
        break;
    case BAL_JN_IF:
        while (e != NULL && e->kind == BAL_JN_IF && r->status == BAL_OK) {
            if (bal_j_truth(bal_j_eval(r, e->a))) {
                bal_j_run(r, e->body);
                return;
            }
            const bal_jnode *other = e->other;
            bool more = other != NULL && other->kind == BAL_JN_IF && other->next == NULL;
            if (!more)
                bal_j_run(r, other);
            e = more ? other : NULL;
        }
        break;
    case BAL_JN_FOR:
        run_for(r, e);
        break;
    case BAL_JN_SET:
        v = e->b != NULL ? bal_j_eval(r, e->b) : through_filters(r, e->c, captured_in_scope(r, e->body));
        if (r->status == BAL_OK)
            bal_j_assign(r, e->a, v);
        break;
    case BAL_JN_MACRO:
        bal_j_bind(r, r->frame, e->value.u.text, e->value.n, macro_value(r, e));
        break;
    case BAL_JN_CALLER:
        run_call(r, e);
        break;
    case BAL_JN_FILTERED:
        bal_j_write(r, r->out, through_filters(r, e->a, captured_in_scope(r, e->body)));
        break;
    case BAL_JN_WITH:
        run_scoped(r, e->body, e->list);
        break;
    case BAL_JN_BREAK:
    case BAL_JN_CONTINUE:
        r->flow = e->kind == BAL_JN_BREAK ? BAL_J_BROKEN : BAL_J_CONTINUED;
        break;
    default:
        run_generation(r, e);
    }
}

void bal_j_run(bal_jinja *r, const bal_jnode *statements) // NOLINT(misc-no-recursion): bounded by bal_j_enter
{
    if (bal_j_enter(r))
        for (const bal_jnode *e = statements; e != NULL && r->status == BAL_OK && r->flow == BAL_J_ON; e = e->next) {
            r->line = e->line;
            if (bal_j_charge(r, 0))
                run_one(r, e);
        }
    bal_j_leave(r);
}

/* The source with \n for every kind of line end, without the last one. */
static const char *source(bal_jinja *r, const char *text, size_t *n)
{
    char *copy = bal_j_take(r, *n + 1);
    size_t m = 0;
    if (copy == NULL)
        return NULL;
    for (size_t i = 0; i < *n; i++) {
        bool both = text[i] == '\r' && i + 1 < *n && text[i + 1] == '\n';
        copy[m++] = text[i] == '\r' ? '\n' : text[i];
        i += both;
    }
    m -= m > 0 && copy[m - 1] == '\n';
    *n = m;
    return copy;
}

bal_status bal_jinja_render(const char *text, size_t n, const cJSON *context, int64_t now, bal_buf *out,
                            bal_stretches *generation)
{
    bal_jframe globals = {0};
    bal_jinja r = {.line = 1, .frame = &globals, .out = out, .main_out = out, .generation = generation, .now = now};
    if (n > BAL_J_MAX_SOURCE)
        bal_j_fail(&r, BAL_ELIMIT, "it is longer than %d MB", BAL_J_MAX_SOURCE >> 20);
    for (const cJSON *v = context != NULL ? context->child : NULL; v != NULL && r.status == BAL_OK; v = v->next)
        bal_j_bind(&r, &globals, v->string, strlen(v->string), bal_j_from_json(&r, v));
    r.steps = 0; /* the context is the caller's */
    const char *copy = source(&r, text, &n);
    const bal_jnode *statements = copy != NULL ? bal_j_parse(&r, copy, n) : NULL;
    if (r.status == BAL_OK)
        bal_j_run(&r, statements);
    while (r.chunks != NULL) {
        bal_jchunk *c = r.chunks;
        r.chunks = c->next;
        bal_free(c);
    }
    return r.status;
}
