/* Parts of the template interpreter.  One arena holds the tree and all values of a rendering and is freed as a whole.
 * The first error sticks in bal_jinja.status: whatever runs after it returns at once, so that only loops and builders
 * ask for it.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_JINJA_IMPL_H
#define BAL_TEXT_JINJA_IMPL_H

#include "lib/text/jinja.h"

enum {
    BAL_J_MAX_STEPS = 20000000,   /* node visits, characters worked on / 64 */
    BAL_J_MAX_MEMORY = 256 << 20, /* of values */
    BAL_J_MAX_OUTPUT = 64 << 20,  /* of text */
    BAL_J_MAX_DEPTH = 200,        /* of nesting, in the source and of calls */
    BAL_J_MAX_RANGE = 100000,     /* as the sandbox of Jinja */
    BAL_J_MAX_SOURCE = 16 << 20,
    BAL_J_MAX_ARGS = 32
};

typedef enum bal_jkind {
    BAL_J_UNDEFINED,
    BAL_J_NONE,
    BAL_J_BOOL,
    BAL_J_INT,
    BAL_J_FLOAT,
    BAL_J_TEXT,
    BAL_J_LIST, /* flavor: what Python has: a list, a tuple ... */
    BAL_J_DICT,
    BAL_J_NAMESPACE, /* a dict that {% set ns.x = ... %} changes */
    BAL_J_LOOP,      /* the variable `loop` */
    BAL_J_MACRO,
    BAL_J_GLOBAL, /* a function of the environment: its name */
    BAL_J_METHOD  /* a method of a value: its name and the value */
} bal_jkind;

enum {
    BAL_J_PLAIN,
    BAL_J_TUPLE,
    BAL_J_GROUP, /* a tuple of groupby, whose items have the names grouper and list */
    BAL_J_LAZY,  /* a generator: always true, without a length, gone through once */
    BAL_J_VIEW,  /* keys, values, items of a mapping: a length, but no places */
    BAL_J_RANGE,
    BAL_J_MARKUP /* a text that counts as escaped: what is added to it is escaped first */
};

typedef struct bal_jvalue {
    uint8_t kind, flavor;
    union {
        bool b;
        int64_t i;
        double f;
        const char *text; /* BAL_J_TEXT; BAL_J_UNDEFINED: what is undefined, for messages */
        struct bal_jlist *list;
        struct bal_jdict *dict; /* DICT, NAMESPACE */
        struct bal_jloop *loop;
        const struct bal_jmacro *macro;
        const struct bal_jmethod *method;
    } u;
    size_t n; /* bytes of text */
} bal_jvalue;

typedef struct bal_jlist {
    bal_jvalue *items;
    size_t n, cap;
    bool left_open; /* a generator whose rest is not known: a loop over it was broken off */
} bal_jlist;

typedef struct bal_jpair {
    bal_jvalue key, value;
    uint64_t hash;
} bal_jpair;

typedef struct bal_jdict {
    bal_jpair *items;
    size_t n, cap;
} bal_jdict;

typedef struct bal_jloop {
    const bal_jlist *list;
    size_t at, depth;
    bool was;        /* loop.changed was called */
    bal_jvalue last; /* with this */
} bal_jloop;

typedef enum bal_jnode_kind {
    /* expressions */
    BAL_JN_CONST,
    BAL_JN_NAME,
    BAL_JN_LIST,
    BAL_JN_DICT,   /* list: PAIR */
    BAL_JN_PAIR,   /* a: b */
    BAL_JN_UNARY,  /* op a */
    BAL_JN_BINARY, /* a op b */
    BAL_JN_AND,
    BAL_JN_OR,
    BAL_JN_NOT,
    BAL_JN_COMPARE, /* a, then list of OPERAND */
    BAL_JN_OPERAND, /* op a */
    BAL_JN_COND,    /* a if b else c */
    BAL_JN_ATTR,    /* a.name */
    BAL_JN_ITEM,    /* a[b] */
    BAL_JN_SLICE,   /* a[b:c:d] */
    BAL_JN_CALL,    /* a(list) */
    BAL_JN_KEYWORD, /* name=a */
    BAL_JN_FILTER,  /* a|name(list) */
    BAL_JN_TEST,    /* a is [not] name(list) */
    BAL_JN_INPUT,   /* the text of a filter block */
    /* statements */
    BAL_JN_DATA,
    BAL_JN_PRINT,
    BAL_JN_IF,       /* a, body, other */
    BAL_JN_FOR,      /* a in b if c, body, other */
    BAL_JN_SET,      /* a = b; without b: the body, through the filters c */
    BAL_JN_MACRO,    /* name, list of KEYWORD, body */
    BAL_JN_CALLER,   /* call a with list and body */
    BAL_JN_FILTERED, /* filters a of the body */
    BAL_JN_WITH,     /* list of SET, body */
    BAL_JN_BREAK,
    BAL_JN_CONTINUE,
    BAL_JN_GENERATION
} bal_jnode_kind;

/* Operators are their first character, but: */
enum { BAL_J_FLOORDIV = 1, BAL_J_POW, BAL_J_EQ, BAL_J_NE, BAL_J_LE, BAL_J_GE, BAL_J_IN, BAL_J_NOT_IN };

/* Names that a macro's body knows if it reads them: the op of MACRO and CALLER. */
enum { BAL_J_USES_VARARGS = 1, BAL_J_USES_KWARGS = 2, BAL_J_USES_CALLER = 4 };

typedef struct bal_jnode {
    uint8_t kind, op;
    bool negated, tuple;
    uint32_t line;
    bal_jvalue value; /* a constant, or a name as its text */
    struct bal_jnode *a, *b, *c, *d, *list, *body, *other;
    struct bal_jnode *next;
} bal_jnode;

/* Variables: a chain of frames, each a list. */
typedef struct bal_jbinding {
    const char *name;
    size_t n;
    bal_jvalue value;
    struct bal_jbinding *next;
} bal_jbinding;
typedef struct bal_jframe {
    bal_jbinding *first;
    struct bal_jframe *up;
} bal_jframe;

typedef struct bal_jmacro {
    const bal_jnode *node; /* MACRO or CALLER */
    bal_jframe *frame;     /* where it was written */
} bal_jmacro;

typedef struct bal_jmethod {
    bal_jvalue self;
    const char *name;
    size_t n;
} bal_jmethod;

typedef enum bal_jflow { BAL_J_ON, BAL_J_BROKEN, BAL_J_CONTINUED } bal_jflow;

typedef struct bal_jchunk {
    struct bal_jchunk *next;
    size_t used, size;
} bal_jchunk;

typedef struct bal_jinja {
    bal_status status;
    uint32_t line; /* of the node at work, for messages */
    size_t steps, depth, memory, loops;
    bal_jchunk *chunks;
    bal_jframe *frame;
    bal_buf *out;      /* where text goes */
    bal_buf *main_out; /* the caller's: generation stretches count there only */
    size_t captured;   /* bytes in the buffers of macros and block sets */
    bal_stretches *generation;
    bal_jvalue input;
    bal_jnode spare; /* stands in for nodes once an error is set */
    bal_jflow flow;
    int64_t now;
} bal_jinja;

/* Arguments of a call: positional, then named. */
typedef struct bal_jargs {
    bal_jvalue at[BAL_J_MAX_ARGS];
    const char *names[BAL_J_MAX_ARGS]; /* NULL: positional */
    size_t n_names[BAL_J_MAX_ARGS], n;
} bal_jargs;

/* jinja_value.c */
void bal_j_fail(bal_jinja *r, bal_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));
void *bal_j_take(bal_jinja *r, size_t bytes);  /* zeroed; NULL: the error is set */
bool bal_j_charge(bal_jinja *r, size_t bytes); /* work on so many bytes; false: too many steps */
bool bal_j_enter(bal_jinja *r);                /* one level deeper, with bal_j_leave() at its end; false: too deep */
void bal_j_leave(bal_jinja *r);
bal_jvalue bal_j_undefined(const char *what, size_t n);
bal_jvalue bal_j_none(void);
bal_jvalue bal_j_bool(bool b);
bal_jvalue bal_j_int(int64_t i);
bal_jvalue bal_j_float(double f);
bal_jvalue bal_j_text(const char *text, size_t n);               /* not copied */
bal_jvalue bal_j_copy(bal_jinja *r, const char *text, size_t n); /* copied */
bal_jvalue bal_j_as(bal_jvalue v, int flavor);                   /* a text: BAL_J_PLAIN or _MARKUP */
bal_jvalue bal_j_take_buf(bal_jinja *r, bal_buf *b);             /* copied, b disposed */
bal_jvalue bal_j_list(bal_jinja *r, int flavor);
void bal_j_push(bal_jinja *r, bal_jlist *list, bal_jvalue v);
bal_jvalue bal_j_dict(bal_jinja *r);
void bal_j_put(bal_jinja *r, bal_jdict *dict, bal_jvalue key, bal_jvalue value);
const bal_jvalue *bal_j_find(bal_jinja *r, const bal_jdict *dict, bal_jvalue key); /* NULL: none */
bal_jvalue bal_j_from_json(bal_jinja *r, const cJSON *v);
bool bal_j_truth(bal_jvalue v);
bool bal_j_is(bal_jvalue v, const char *text); /* a text equal to this one */
bool bal_j_named(const char *name, size_t n, const char *text);
bool bal_j_is_tuple(bal_jvalue v);
bool bal_j_has_places(bal_jvalue v);  /* a list, a tuple, a range: v[0], v[1:] */
const char *bal_j_type(bal_jvalue v); /* for messages */
bool bal_j_equal(bal_jinja *r, bal_jvalue a, bal_jvalue b);
int bal_j_order(bal_jinja *r, bal_jvalue a, bal_jvalue b); /* < 0, 0, > 0; fails for what has no order */
bool bal_j_number(bal_jvalue v, double *out);              /* int, float, bool */
/* The items that a loop over v visits; NULL: the error is set.  A generator is empty afterwards. */
const bal_jlist *bal_j_items(bal_jinja *r, bal_jvalue v);
/* The first item of a generator, which loses it; undefined: there is none. */
bal_jvalue bal_j_next(bal_jinja *r, bal_jlist *generator);
size_t bal_j_chars(const char *text, size_t n);                /* characters */
size_t bal_j_offset(const char *text, size_t n, size_t chars); /* bytes of so many characters */
bool bal_j_space(uint32_t cp);
bool bal_j_contains(bal_jinja *r, bal_jvalue part, bal_jvalue whole);

/* jinja_print.c: str(), repr(), json.dumps() of Python. */
bal_jvalue bal_j_str(bal_jinja *r, bal_jvalue v);
void bal_j_write(bal_jinja *r, bal_buf *out, bal_jvalue v);
void bal_j_repr(bal_jinja *r, bal_buf *out, bal_jvalue v);
typedef struct bal_jdump {
    const char *indent; /* of one level, NULL: one line */
    const char *item, *key;
    bool ascii, sort;
} bal_jdump;
void bal_j_dump(bal_jinja *r, bal_buf *out, bal_jvalue v, const bal_jdump *o, size_t level);
void bal_j_append(bal_jinja *r, bal_buf *out, const char *text, size_t n);
void bal_j_format_float(double f, char out[40]);

/* jinja_lex.c, jinja_parse.c, jinja_expr.c */
bal_jnode *bal_j_parse(bal_jinja *r, const char *text, size_t n);

/* jinja_eval.c */
bal_jvalue bal_j_eval(bal_jinja *r, const bal_jnode *e);
bal_jvalue bal_j_item(bal_jinja *r, bal_jvalue v, bal_jvalue key);
bal_jvalue bal_j_attr(bal_jinja *r, bal_jvalue v, const char *name, size_t n);
bal_jvalue bal_j_binary(bal_jinja *r, int op, bal_jvalue a, bal_jvalue b);
void bal_j_args(bal_jinja *r, const bal_jnode *list, bal_jargs *args);
/* The argument `name`, or the positional one `at`; NULL: not given. */
const bal_jvalue *bal_j_arg(const bal_jargs *args, size_t at, const char *name);
/* More arguments, or other names, than these: an error. */
bool bal_j_expect(bal_jinja *r, const bal_jargs *args, const char *what, size_t most, const char *const *names);
void bal_j_bind(bal_jinja *r, bal_jframe *frame, const char *name, size_t n, bal_jvalue value);

/* jinja_render.c */
void bal_j_run(bal_jinja *r, const bal_jnode *statements);
bal_jvalue bal_j_call_macro(bal_jinja *r, const bal_jmacro *m, const bal_jargs *args);
void bal_j_assign(bal_jinja *r, const bal_jnode *target, bal_jvalue value);

/* jinja_filters.c, jinja_lists.c, jinja_tests.c, jinja_methods.c, jinja_globals.c, jinja_format.c, jinja_case.c */
bal_jvalue bal_j_filter(bal_jinja *r, const char *name, size_t n, bal_jvalue v, const bal_jargs *args);
bool bal_j_list_filter(bal_jinja *r, const char *name, size_t n, bal_jvalue v, const bal_jargs *args, bal_jvalue *out);
bool bal_j_text_filter(bal_jinja *r, const char *name, size_t n, bal_jvalue v, const bal_jargs *args, bal_jvalue *out);
bool bal_j_known_filter(const char *name, size_t n);
bool bal_j_test(bal_jinja *r, const char *name, size_t n, bal_jvalue v, const bal_jargs *args);
bool bal_j_known_test(const char *name, size_t n);
bool bal_j_has_method(bal_jvalue v, const char *name, size_t n);
bal_jvalue bal_j_method(bal_jinja *r, const bal_jmethod *m, const bal_jargs *args);
bool bal_j_is_global(const char *name, size_t n);
bal_jvalue bal_j_global(bal_jinja *r, const char *name, size_t n, const bal_jargs *args);
bal_jvalue bal_j_format(bal_jinja *r, bal_jvalue pattern, bal_jvalue values);     /* "%s" % values */
bal_jvalue bal_j_braces(bal_jinja *r, bal_jvalue pattern, const bal_jargs *args); /* "{}".format(args) */
bal_jvalue bal_j_escape(bal_jinja *r, bal_jvalue v);                              /* & < > ' " of HTML */
/* splitlines(); keep: with the ends of lines */
bal_jvalue bal_j_lines(bal_jinja *r, bal_jvalue v, bal_jvalue keep);
bal_jvalue bal_j_strip(bal_jinja *r, bal_jvalue v, const bal_jvalue *chars, bool left, bool right);
bal_jvalue bal_j_replace(bal_jinja *r, bal_jvalue v, bal_jvalue from, bal_jvalue to, int64_t most);
/* u upper, l lower, c capitalize, t title, s swapcase, f casefold; T: the filter title, whose words are others. */
bal_jvalue bal_j_case(bal_jinja *r, bal_jvalue v, char how);
/* d decimal, D digit, n numeric, a letter, w letter or number, l lower, u upper, t title case */
bool bal_j_is_class(uint32_t cp, char class);

#endif
