/* Words of a template and the parser over them.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_JINJA_PARSE_H
#define BAL_TEXT_JINJA_PARSE_H

#include "lib/text/jinja_impl.h"

typedef enum bal_jtoken_kind {
    BAL_JT_DATA,
    BAL_JT_PRINT,     /* {{ */
    BAL_JT_PRINT_END, /* }} */
    BAL_JT_TAG,       /* {% */
    BAL_JT_TAG_END,   /* %} */
    BAL_JT_NAME,
    BAL_JT_VALUE, /* a text or a number */
    BAL_JT_OP,
    BAL_JT_END
} bal_jtoken_kind;

typedef struct bal_jtoken {
    uint8_t kind, op; /* op as in bal_jnode */
    uint32_t line;
    bal_jvalue value; /* data and name: their text */
} bal_jtoken;

typedef struct bal_jparser {
    bal_jinja *r;
    const bal_jtoken *at; /* the last one is an END */
    size_t loops;         /* {% for %} around this place, for break and continue */
    uint8_t uses;         /* BAL_J_USES_*: names that the macro read so far reads */
} bal_jparser;

/* jinja_lex.c: the words of text; NULL: the error is set. */
const bal_jtoken *bal_j_words(bal_jinja *r, const char *text, size_t n);

/* jinja_expr.c */
bal_jnode *bal_j_node(bal_jparser *p, int kind);
bal_jnode *bal_j_expression(bal_jparser *p, bool with_cond);
/* a, b, c without brackets is a tuple, as in {% for a, b in ... %}. */
bal_jnode *bal_j_tuple(bal_jparser *p, bool with_cond);
bal_jnode *bal_j_target(bal_jparser *p, bool attributes); /* of an assignment */
bal_jnode *bal_j_filters(bal_jparser *p, bal_jnode *a);   /* |name(...) after a */
bal_jnode *bal_j_call_args(bal_jparser *p);               /* behind the ( */
bool bal_j_at_op(const bal_jparser *p, int op);
bool bal_j_at_name(const bal_jparser *p, const char *name);
bool bal_j_skip_op(bal_jparser *p, int op);
bool bal_j_skip_name(bal_jparser *p, const char *name);
bool bal_j_need_op(bal_jparser *p, int op);
bool bal_j_need_name(bal_jparser *p, bal_jvalue *name);
void bal_j_syntax(bal_jparser *p, const char *wanted);

#endif
