/* A template cut into words, with its white-space control: a newline behind a block tag or a comment goes, so does the
 * white space that begins the line of one; - strips on its side, + keeps.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja_parse.h"

#include <stdlib.h>
#include <string.h>

typedef struct lexer {
    bal_jinja *r;
    const char *s;
    size_t n, at;
    bool line_starts; /* what was taken last ended its line */
    bal_jtoken *tokens;
    size_t n_tokens, cap;
} lexer;

static void put(lexer *x, int kind, int op, bal_jvalue value)
{
    if (!bal_j_charge(x->r, 0))
        return;
    if (x->n_tokens == x->cap) {
        size_t cap = x->cap == 0 ? 256 : 2 * x->cap;
        bal_jtoken *tokens = bal_j_take(x->r, cap * sizeof *tokens);
        if (tokens == NULL)
            return;
        if (x->n_tokens > 0)
            memcpy(tokens, x->tokens, x->n_tokens * sizeof *tokens);
        x->tokens = tokens;
        x->cap = cap;
    }
    x->tokens[x->n_tokens++] = (bal_jtoken){(uint8_t)kind, (uint8_t)op, x->r->line, value};
}

static void go(lexer *x, size_t to)
{
    for (; x->at < to; x->at++)
        x->r->line += x->s[x->at] == '\n';
}

static size_t space_len(const char *s, size_t n)
{
    uint32_t cp = 0;
    size_t m = bal_utf8_decode((const unsigned char *)s, n, &cp);
    return m > 0 && bal_j_space(cp) ? m : 0;
}

static void skip_space(lexer *x)
{
    size_t m, to = x->at;
    while (to < x->n && (m = space_len(x->s + to, x->n - to)) > 0)
        to += m;
    go(x, to);
}

/* Text [from, to) before a tag that begins with `sign`; lstrip: block tags and comments. */
static void put_data(lexer *x, size_t from, size_t to, char sign, bool lstrip)
{
    if (sign == '-') {
        size_t end = from;
        for (size_t i = from; i < to;) {
            size_t m = space_len(x->s + i, to - i);
            uint32_t cp = 0;
            size_t len = m > 0 ? m : bal_utf8_decode((const unsigned char *)x->s + i, to - i, &cp);
            i += len == 0 ? 1 : len;
            end = m > 0 ? end : i;
        }
        to = end;
    } else if (sign != '+' && lstrip) {
        size_t line = to;
        while (line > from && x->s[line - 1] != '\n')
            line--;
        bool blank = line > from || x->line_starts;
        for (size_t i = line, m; i < to && blank; i += m) {
            m = space_len(x->s + i, to - i);
            blank = m > 0;
        }
        to = blank ? line : to;
    }
    if (to > from)
        put(x, BAL_JT_DATA, 0, bal_j_text(x->s + from, to - from));
}

/* Behind the end of a tag: sign - strips, and a newline goes unless the sign is + or the tag prints. */
static void after_tag(lexer *x, char sign, bool trim)
{
    size_t from = x->at;
    if (sign == '-')
        skip_space(x);
    else if (trim && sign != '+' && x->at < x->n && x->s[x->at] == '\n')
        go(x, x->at + 1);
    x->line_starts = x->at > from && x->s[x->at - 1] == '\n';
}

static char sign_at(const lexer *x, size_t at)
{
    return at < x->n && (x->s[at] == '-' || x->s[at] == '+') ? x->s[at] : '\0';
}

static void comment(lexer *x)
{
    const char *end = memmem(x->s + x->at + 2, x->n - x->at - 2, "#}", 2);
    if (end == NULL) {
        bal_j_fail(x->r, BAL_EFORMAT, "the comment {# has no end #}");
        return;
    }
    size_t close = (size_t)(end - x->s);
    char sign = close > x->at + 2 && (end[-1] == '-' || end[-1] == '+') ? end[-1] : '\0';
    go(x, close + 2);
    after_tag(x, sign, true);
}

/* {% raw %} ... {% endraw %} at x->at: true if it was one. */
static bool word_tag(lexer *x, size_t at, const char *word, char *open, char *close, size_t *end)
{
    size_t i = at + 2, n = strlen(word), m;
    if (at + 2 > x->n || memcmp(x->s + at, "{%", 2) != 0)
        return false;
    *open = sign_at(x, i);
    i += *open != '\0';
    while (i < x->n && (m = space_len(x->s + i, x->n - i)) > 0)
        i += m;
    if (x->n - i < n || memcmp(x->s + i, word, n) != 0)
        return false;
    i += n;
    while (i < x->n && (m = space_len(x->s + i, x->n - i)) > 0)
        i += m;
    *close = sign_at(x, i);
    if (*close == '+' && word[0] == 'r') /* Jinja has {% raw +%} for no tag of this kind */
        return false;
    i += *close != '\0';
    if (x->n - i < 2 || memcmp(x->s + i, "%}", 2) != 0)
        return false;
    *end = i + 2;
    return true;
}

static bool raw(lexer *x)
{
    char open = 0, close = 0;
    size_t end = 0, from;
    if (!word_tag(x, x->at, "raw", &open, &close, &end))
        return false;
    go(x, end);
    after_tag(x, close, false);
    from = x->at;
    for (size_t i = from; i + 1 < x->n && bal_j_charge(x->r, 0); i++)
        if (x->s[i] == '{' && word_tag(x, i, "endraw", &open, &close, &end)) {
            put_data(x, from, i, open, true);
            go(x, end);
            after_tag(x, close, true);
            return true;
        }
    bal_j_fail(x->r, BAL_EFORMAT, "{%% raw %%} has no {%% endraw %%}");
    return true;
}

static void put_escape(lexer *x, bal_buf *b, const char *s, size_t n, size_t *i)
{
    static const char plain[] = "abfnrtv\\'\"", means[] = "\a\b\f\n\r\t\v\\'\"";
    char c = s[*i];
    const char *at = c != '\0' ? strchr(plain, c) : NULL;
    size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0, k = 0;
    uint32_t cp = 0;
    unsigned char bytes[4];
    if (at != NULL) {
        bal_j_append(x->r, b, means + (at - plain), 1);
        *i += 1;
    } else if (c == '\n') { /* the line goes on */
        *i += 1;
    } else if (digits > 0 || (c >= '0' && c <= '7')) {
        size_t most = digits > 0 ? digits : 3, from = *i + (digits > 0);
        for (; k < most && from + k < n; k++) {
            char d = s[from + k];
            int value = d >= '0' && d <= '9'   ? d - '0'
                        : d >= 'a' && d <= 'f' ? d - 'a' + 10
                        : d >= 'A' && d <= 'F' ? d - 'A' + 10
                                               : 99;
            if (value >= (digits > 0 ? 16 : 8))
                break;
            cp = cp * (digits > 0 ? 16 : 8) + (uint32_t)value;
        }
        if ((digits > 0 && k < digits) || cp > 0x10FFFF || (cp >= 0xD800 && cp <= 0xDFFF))
            bal_j_fail(x->r, BAL_EFORMAT, "\\%c... in a text is no character", c);
        else
            bal_j_append(x->r, b, (const char *)bytes, bal_utf8_encode(cp, bytes));
        *i = from + k;
    } else if (c == 'N') {
        bal_j_fail(x->r, BAL_EUNSUPPORTED, "\\N{...} in a text is not supported");
    } else {
        bal_j_append(x->r, b, "\\", 1);
    }
}

static void string(lexer *x, char quote)
{
    size_t end = x->at + 1;
    bal_buf b = {0};
    while (end < x->n && x->s[end] != quote)
        end += x->s[end] == '\\' && end + 1 < x->n ? 2 : 1;
    if (end >= x->n) {
        bal_j_fail(x->r, BAL_EFORMAT, "a text has no closing %c", quote);
        return;
    }
    for (size_t i = x->at + 1; i < end && x->r->status == BAL_OK;) {
        size_t from = i;
        while (i < end && x->s[i] != '\\')
            i++;
        bal_j_append(x->r, &b, x->s + from, i - from);
        if (i < end) {
            i++;
            put_escape(x, &b, x->s, end, &i);
        }
    }
    put(x, BAL_JT_VALUE, 0, bal_j_take_buf(x->r, &b));
    go(x, end + 1);
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static void number(lexer *x)
{
    char digits[64];
    size_t n = 0, i = x->at;
    bool real = false;
    int64_t whole = 0;
    double f = 0;
    for (; i < x->n && n + 1 < sizeof digits; i++) {
        char c = x->s[i];
        bool exponent = (c == 'e' || c == 'E') && i + 1 < x->n &&
                        (is_digit(x->s[i + 1]) ||
                         (i + 2 < x->n && (x->s[i + 1] == '-' || x->s[i + 1] == '+') && is_digit(x->s[i + 2])));
        bool point = c == '.' && !real && i + 1 < x->n && is_digit(x->s[i + 1]);
        if (c == '_' && i + 1 < x->n && is_digit(x->s[i + 1]))
            continue;
        if (!is_digit(c) && !exponent && !point)
            break;
        digits[n++] = c;
        if (exponent)
            digits[n++] = x->s[++i];
        real = real || exponent || point;
    }
    digits[n] = '\0';
    bal_status status = real ? bal_parse_f64(digits, -1e308, 1e308, &f) : bal_parse_i64(digits, 0, INT64_MAX, &whole);
    if (status != BAL_OK)
        bal_j_fail(x->r, BAL_EFORMAT, "the number %s is not supported", digits);
    put(x, BAL_JT_VALUE, 0, real ? bal_j_float(f) : bal_j_int(whole));
    go(x, i);
}

static bool is_name(char c, bool first)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (unsigned char)c >= 0x80 ||
           (!first && is_digit(c));
}

static int operator_at(const char *s, size_t n, size_t *len)
{
    static const struct {
        char text[3];
        int op;
    } two[] = {{"//", BAL_J_FLOORDIV}, {"**", BAL_J_POW}, {"==", BAL_J_EQ},
               {"!=", BAL_J_NE},       {"<=", BAL_J_LE},  {">=", BAL_J_GE}};
    for (size_t i = 0; i < sizeof two / sizeof two[0] && n > 1; i++)
        if (memcmp(s, two[i].text, 2) == 0) {
            *len = 2;
            return two[i].op;
        }
    *len = 1;
    return s[0] != '\0' && strchr("+-*/%~<>=()[]{}.,:|;", s[0]) != NULL ? s[0] : 0;
}

/* The words of one tag, up to its end. */
static void tag(lexer *x, bool prints)
{
    const char *close = prints ? "}}" : "%}";
    char open[BAL_J_MAX_DEPTH];
    size_t depth = 0;
    while (bal_j_charge(x->r, 0)) {
        skip_space(x);
        if (x->at >= x->n) {
            bal_j_fail(x->r, BAL_EFORMAT, "a tag has no end %s", close);
            return;
        }
        const char *s = x->s + x->at;
        size_t left = x->n - x->at, len = 0;
        char sign = s[0] == '-' || s[0] == '+' ? s[0] : '\0';
        size_t skip = sign != '\0' && !(prints && sign == '+') ? 1 : 0;
        if (depth == 0 && left >= skip + 2 && memcmp(s + skip, close, 2) == 0) {
            put(x, prints ? BAL_JT_PRINT_END : BAL_JT_TAG_END, 0, bal_j_none());
            go(x, x->at + skip + 2);
            after_tag(x, skip > 0 ? sign : '\0', !prints);
            return;
        }
        if (is_name(s[0], true)) {
            while (len < left && is_name(s[len], false))
                len++;
            put(x, BAL_JT_NAME, 0, bal_j_text(s, len));
            go(x, x->at + len);
        } else if (is_digit(s[0])) {
            number(x);
        } else if (s[0] == '\'' || s[0] == '"') {
            string(x, s[0]);
        } else {
            int op = operator_at(s, left, &len);
            bool opens = op == '(' || op == '[' || op == '{', closes = op == ')' || op == ']' || op == '}';
            if (op == 0 || (opens && depth == sizeof open) ||
                (closes && (depth == 0 || open[--depth] != (op == ')'   ? '('
                                                            : op == ']' ? '['
                                                                        : '{')))) {
                bal_j_fail(x->r, BAL_EFORMAT, "unexpected '%.*s'", (int)bal_j_offset(s, left, 1), s);
                return;
            }
            if (opens)
                open[depth++] = (char)op;
            put(x, BAL_JT_OP, op, bal_j_none());
            go(x, x->at + len);
        }
    }
}

const bal_jtoken *bal_j_words(bal_jinja *r, const char *text, size_t n)
{
    lexer x = {.r = r, .s = text, .n = n, .line_starts = true};
    r->line = 1;
    while (x.at < n && bal_j_charge(r, 0)) {
        size_t from = x.at, i = from;
        while (i < n &&
               !(text[i] == '{' && i + 1 < n && (text[i + 1] == '{' || text[i + 1] == '%' || text[i + 1] == '#')))
            i++;
        char kind = i < n ? text[i + 1] : '\0', sign = i < n ? sign_at(&x, i + 2) : '\0';
        if (kind == '{' && sign == '+') /* {{+1}} is the number */
            sign = '\0';
        put_data(&x, from, i, sign, kind == '%' || kind == '#');
        go(&x, i);
        if (i >= n)
            break;
        x.line_starts = false;
        if (kind == '#') {
            comment(&x);
        } else if (kind == '{' || !raw(&x)) {
            put(&x, kind == '{' ? BAL_JT_PRINT : BAL_JT_TAG, 0, bal_j_none());
            go(&x, i + 2 + (sign != '\0'));
            tag(&x, kind == '{');
        }
    }
    put(&x, BAL_JT_END, 0, bal_j_none());
    return r->status == BAL_OK ? x.tokens : NULL;
}
