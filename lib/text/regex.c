/* Patterns of tokenizer.json.  They are written for Oniguruma with Ruby's syntax and become patterns for PCRE2 that mean
 * the same; what has no such form is refused.  The differences: \s is the property White_Space (PCRE2 takes U+180E too),
 * \w has marks and letter-like numbers and \b goes by it, \h is a hexadecimal digit, \v one character, ^ $ are the ends
 * of lines, (?m) is PCRE2's (?s), {,n} counts, a set of the set's complement ([^\W]) may stand in a bracket.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/tokenizer_impl.h"
#include "lib/text/unicode_new.h"

#include <string.h>

#define SPACES "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
/* letters, letter-like numbers and symbols, marks, decimal digits, connectors: Alphabetic and the rest of a word */
#define WORDS                                                                                                          \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{"    \
    "1f189}" NEW_L NEW_M NEW_ND
#define LATIN_1 "\\xb2\\xb3\\xb9\\xbc-\\xbe" /* raised digits and fractions: \w outside of brackets has them */

const char bal_gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char bal_words_pattern[] = "[\\w\\x{200c}\\x{200d}]+|[^\\w\\x{200c}\\x{200d}\\s]+";

/* \name or \p{name} -> the contents of a bracket that mean the same. */
static const struct {
    const char *name, *inside;
} k_classes[] = {
    {"s", SPACES},
    {"w", WORDS},
    {"d", "\\p{Nd}" NEW_ND},
    {"h", "0-9A-Fa-f"},
    {"L", "\\p{L}" NEW_L},
    {"Lu", "\\p{Lu}" NEW_LU},
    {"Ll", "\\p{Ll}" NEW_LL},
    {"Lt", "\\p{Lt}"},
    {"Lm", "\\p{Lm}" NEW_LM},
    {"Lo", "\\p{Lo}" NEW_LO},
    {"M", "\\p{M}" NEW_M},
    {"Mn", "\\p{Mn}" NEW_MN},
    {"Mc", "\\p{Mc}" NEW_MC},
    {"Me", "\\p{Me}"},
    {"N", "\\p{N}" NEW_N},
    {"Nd", "\\p{Nd}" NEW_ND},
    {"Nl", "\\p{Nl}"},
    {"No", "\\p{No}" NEW_NO},
    {"P", "\\p{P}" NEW_P},
    {"Pc", "\\p{Pc}"},
    {"Pd", "\\p{Pd}" NEW_PD},
    {"Ps", "\\p{Ps}"},
    {"Pe", "\\p{Pe}"},
    {"Pi", "\\p{Pi}"},
    {"Pf", "\\p{Pf}"},
    {"Po", "\\p{Po}" NEW_PO},
    {"S", "\\p{S}" NEW_S},
    {"Sm", "\\p{Sm}" NEW_SM},
    {"Sc", "\\p{Sc}"},
    {"Sk", "\\p{Sk}"},
    {"So", "\\p{So}" NEW_SO},
    {"Z", "\\p{Z}"},
    {"Zs", "\\p{Zs}"},
    {"Zl", "\\p{Zl}"},
    {"Zp", "\\p{Zp}"},
    {"Cc", "\\p{Cc}"},
    {"Cf", "\\p{Cf}" NEW_CF},
    {"Co", "\\p{Co}"},
    {"Any", "\\x{0}-\\x{10ffff}"},
    /* PCRE2 takes the bare name of a script for its extensions */
    {"Han", "\\p{sc:Han}" NEW_HAN},
    {"Hiragana", "\\p{sc:Hiragana}" NEW_HIRAGANA},
    {"Katakana", "\\p{sc:Katakana}" NEW_KATAKANA},
    {"Hangul", "\\p{sc:Hangul}"},
    {"Latin", "\\p{sc:Latin}" NEW_LATIN},
    {"Greek", "\\p{sc:Greek}"},
    {"Cyrillic", "\\p{sc:Cyrillic}" NEW_CYRILLIC},
    {"Arabic", "\\p{sc:Arabic}" NEW_ARABIC},
    {"Hebrew", "\\p{sc:Hebrew}"},
    {"Thai", "\\p{sc:Thai}"},
    {"Devanagari", "\\p{sc:Devanagari}" NEW_DEVANAGARI},
    {"Bengali", "\\p{sc:Bengali}"},
    {"Tamil", "\\p{sc:Tamil}"},
    {"Armenian", "\\p{sc:Armenian}"},
    {"Georgian", "\\p{sc:Georgian}"},
};

enum { MAX_DEPTH = 64 };

typedef struct reader {
    const char *begin, *p;
    bal_buf *out;
    bool caseless[MAX_DEPTH + 1]; /* of each open group */
    size_t depth;
    char last; /* the literal letter before p, lower case; else 0 */
} reader;

static bal_status refuse(const char *what, size_t n)
{
    enum { MOST = 20 };
    if (n > MOST)
        for (n = MOST; ((unsigned char)what[n] & 0xC0) == 0x80; n--)
            ;
    return bal_fail(BAL_EUNSUPPORTED, "'%.*s' is not supported", (int)n, what);
}

static const char *class_named(const char *name, size_t n)
{
    for (size_t i = 0; i < sizeof k_classes / sizeof *k_classes; i++)
        if (strlen(k_classes[i].name) == n && memcmp(k_classes[i].name, name, n) == 0)
            return k_classes[i].inside;
    return NULL;
}

/* The set that the escape at p (its backslash) or the POSIX set at p names.  *length 0: p is no set. */
static bal_status read_class(const char *p, size_t *length, const char **inside, bool *negated)
{
    *length = 0;
    if (p[0] == '[') { /* [:name:] */
        const char *end = strstr(p, ":]");
        bool inverse = p[2] == '^';
        const char *name = p + 2 + inverse;
        if (end == NULL || end < name)
            return refuse(p, strlen(p));
        size_t n = (size_t)(end - name);
        *inside = n == 5 && memcmp(name, "digit", 5) == 0   ? class_named("d", 1)
                  : n == 5 && memcmp(name, "space", 5) == 0 ? class_named("s", 1)
                  : n == 4 && memcmp(name, "word", 4) == 0  ? class_named("w", 1)
                                                            : NULL;
        if (*inside == NULL)
            return refuse(p, (size_t)(end + 2 - p));
        *negated = inverse;
        *length = (size_t)(end + 2 - p);
        return BAL_OK;
    }
    if (p[1] == 'p' || p[1] == 'P') {
        const char *end = p[2] == '{' ? strchr(p, '}') : NULL;
        bool inverse = end != NULL && p[3] == '^';
        const char *name = p + 3 + inverse;
        *inside = end != NULL && end > name ? class_named(name, (size_t)(end - name)) : NULL;
        if (*inside == NULL)
            return refuse(p, end != NULL ? (size_t)(end + 1 - p) : 2);
        *negated = inverse != (p[1] == 'P');
        *length = (size_t)(end + 1 - p);
        return BAL_OK;
    }
    if (p[1] != '\0' && strchr("swdhSWDH", p[1]) != NULL) {
        char name = (char)(p[1] | 0x20);
        *inside = class_named(&name, 1);
        *negated = p[1] != name;
        *length = 2;
    }
    return BAL_OK;
}

static int hex_value(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 0x20) >= 'a' && (c | 0x20) <= 'f' ? (c | 0x20) - 'a' + 10 : -1;
}

/* An escape that stands for one character, or an anchor or back reference outside of brackets. */
static bal_status put_escape(reader *r, bool bracket)
{
    const char *p = r->p, *q = p + 2;
    uint32_t value = 0;
    char c = p[1];
    r->p = q;
    if (c == '\0')
        return bal_fail(BAL_EFORMAT, "it ends with a backslash");
    if (c == 'u' || c == 'x') {
        bool braces = c == 'x' && *q == '{';
        size_t most = braces ? 8 : c == 'u' ? 4 : 2, n = 0;
        for (q += braces; n < most && hex_value(*q) >= 0; n++)
            value = value * 16 + (uint32_t)hex_value(*q++);
        if ((c == 'u' && n < 4) || n == 0 || (braces && *q != '}') || (c == 'x' && !braces && value >= 0x80) ||
            value > 0x10FFFF || (value >= 0x80 && r->caseless[r->depth]))
            return refuse(p, (size_t)(q - p));
        r->p = q + braces;
        return bal_buf_printf(r->out, "\\x{%x}", (unsigned)value);
    }
    if (c == 'v' || (c == 'b' && bracket))
        return bal_buf_text(r->out, c == 'v' ? "\\x0b" : "\\x08");
    if ((c == 'b' || c == 'B') && !bracket) {
#define IN_WORD "[" WORDS LATIN_1 "]"
        return bal_buf_text(r->out, c == 'b' ? "(?:(?<=" IN_WORD ")(?!" IN_WORD ")|(?<!" IN_WORD ")(?=" IN_WORD "))"
                                             : "(?:(?<=" IN_WORD ")(?=" IN_WORD ")|(?<!" IN_WORD ")(?!" IN_WORD "))");
    }
    if (c == 'O' && !bracket)
        return bal_buf_text(r->out, "(?s:.)");
    bool letter = ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'), digit = c >= '0' && c <= '9';
    if (letter && strchr(bracket ? "nrtfae" : "nrtfaeAzZGRNk", c) == NULL)
        return refuse(p, 2);
    if (digit && (bracket || c == '0' || (*q >= '0' && *q <= '9')))
        return refuse(p, 2);
    if ((unsigned char)c >= 0x80 && r->caseless[r->depth])
        return refuse(p, 2);
    return bal_buf_append(r->out, p, 2);
}

/* The items of a bracket, up to its end: plain ones to r->out, sets of complements to `apart`, each as [^...]. */
static bal_status read_items(reader *r, bal_buf *apart)
{
    bal_status status = BAL_OK;
    bool first = true, after_class = false;
    for (; status == BAL_OK && (first || *r->p != ']'); first = false) {
        const char *p = r->p, *inside = NULL;
        bool negated = false, caseless = r->caseless[r->depth], set = *p == '\\' || (*p == '[' && p[1] == ':');
        size_t n = 0;
        if (*p == '\0')
            return bal_fail(BAL_EFORMAT, "a bracket is not closed");
        if (set && (status = read_class(p, &n, &inside, &negated)) != BAL_OK)
            return status;
        if (n > 0) {
            if (caseless && p[1] != '\0' &&
                (strncmp(inside, "\\p{Lu}", 6) == 0 || strncmp(inside, "\\p{Ll}", 6) == 0 ||
                 strncmp(inside, "\\p{Lt}", 6) == 0))
                return refuse(p, n);
            status = negated ? bal_buf_printf(apart, "%s[^%s]", apart->len > 0 ? "|" : "", inside)
                             : bal_buf_text(r->out, inside);
            r->p += n;
            after_class = true;
            continue;
        }
        if (*p == '[' || (*p == '&' && p[1] == '&'))
            return bal_fail(BAL_EUNSUPPORTED, "nested brackets and && are not supported");
        if (*p == '\\') {
            status = put_escape(r, true);
        } else if (*p == '-') { /* a range only between two characters */
            bool next_set = p[1] == '[';
            if (p[1] == '\\' && (status = read_class(p + 1, &n, &inside, &negated)) == BAL_OK)
                next_set = n > 0;
            if (p[1] == '-')
                return refuse(p, 2);
            if (status == BAL_OK)
                status = bal_buf_text(r->out, first || after_class || next_set || p[1] == ']' ? "\\-" : "-");
            r->p++;
        } else {
            if (caseless && (unsigned char)*p >= 0x80)
                return refuse(p, strlen(p));
            status = *p == ']' ? bal_buf_text(r->out, "\\]") : bal_buf_append(r->out, p, 1);
            r->p++;
        }
        after_class = false;
    }
    r->p++;
    return status;
}

static bal_status put_bracket(reader *r)
{
    bal_buf *out = r->out, plain = {0}, apart = {0};
    bool inverse = r->p[1] == '^';
    bal_status status;
    r->p += 1 + inverse;
    r->out = &plain;
    status = read_items(r, &apart);
    r->out = out;
    const char *in = bal_buf_cstr(&plain), *sets = bal_buf_cstr(&apart);
    bool one = apart.len > 0 && strstr(sets, "]|[") == NULL && plain.len == 0;
    if (status != BAL_OK)
        ;
    else if (apart.len == 0)
        status = bal_buf_printf(out, inverse ? "[^%s]" : "[%s]", in);
    else if (one) /* the complement of one set, or that set */
        status = inverse ? bal_buf_printf(out, "[%s", sets + 2) : bal_buf_text(out, sets);
    else if (inverse)
        status = bal_buf_printf(out, plain.len > 0 ? "(?:(?!%s)[^%s])" : "(?:(?!%s)(?s:.))", sets, in);
    else
        status = bal_buf_printf(out, plain.len > 0 ? "(?:%s|[%s])" : "(?:%s)", sets, in);
    bal_buf_dispose(&plain);
    bal_buf_dispose(&apart);
    return status;
}

/* "(" and what belongs to it; options: i, and m, which PCRE2 calls s. */
static bal_status open_group(reader *r)
{
    const char *p = r->p, *q = p + 2;
    bool caseless = r->caseless[r->depth], on = true;
    if (r->depth == MAX_DEPTH)
        return bal_fail(BAL_ELIMIT, "it has groups in groups, %d deep", (int)MAX_DEPTH);
    r->caseless[++r->depth] = caseless;
    r->p++;
    if (p[1] == '*')
        return refuse(p, 2);
    if (p[1] != '?')
        return bal_buf_text(r->out, "(");
    static const char *const plain[] = {":", "=", "!", ">", "<=", "<!"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strncmp(q, plain[i], strlen(plain[i])) == 0) {
            r->p = q + strlen(plain[i]);
            return bal_buf_printf(r->out, "(?%s", plain[i]);
        }
    if (*q == '<') { /* (?<name> */
        const char *end = strchr(q, '>');
        r->p = end != NULL ? end + 1 : q;
        return end != NULL ? bal_buf_append(r->out, p, (size_t)(end + 1 - p)) : refuse(p, 3);
    }
    bal_status status = bal_buf_text(r->out, "(?");
    for (; status == BAL_OK && *q != '\0' && strchr("im-", *q) != NULL; q++) {
        on = on && *q != '-';
        caseless = *q == 'i' ? on : caseless;
        status = bal_buf_text(r->out, *q == 'm' ? "s" : *q == 'i' ? "i" : "-");
    }
    bool whole = *q == ')' && p == r->begin; /* (?i) at the very beginning is for the whole pattern */
    if (status != BAL_OK || (*q != ':' && !whole))
        return status != BAL_OK ? status : refuse(p, (size_t)(q + (*q != '\0') - p));
    r->caseless[r->depth] = caseless;
    if (whole)
        r->caseless[--r->depth] = caseless;
    r->p = q + 1;
    return bal_buf_append(r->out, q, 1);
}

/* {n}, {n,}, {n,m}, {,m}; any other brace is itself. */
static bal_status put_interval(reader *r)
{
    const char *p = r->p, *low = p + 1, *high = low;
    while (*high >= '0' && *high <= '9')
        high++;
    bool comma = *high == ',';
    const char *end = high + comma;
    while (comma && *end >= '0' && *end <= '9')
        end++;
    if (*end != '}' || end == low || (comma && end == low + 1)) {
        r->p++;
        return bal_buf_text(r->out, "\\{");
    }
    r->p = end + 1;
    if (*r->p == '+' || (*r->p == '?' && !comma))
        return refuse(p, (size_t)(r->p + 1 - p));
    bal_status status = bal_buf_text(r->out, high == low ? "{0" : "{");
    return status == BAL_OK ? bal_buf_append(r->out, low, (size_t)(end + 1 - low)) : status;
}

/* A character that stands for itself, or an operator.  Regardless of case some letters match in pairs (ss and the sharp
 * s, fi and its ligature), and letters beyond ASCII in other ways than PCRE2 has them. */
static bal_status put_plain(reader *r)
{
    static const char *const pairs[] = {"ss", "ff", "fi", "fl", "st"};
    char c = *r->p, lower = (char)(c >= 'A' && c <= 'Z' ? c | 0x20 : c), last = r->last;
    r->last = lower >= 'a' && lower <= 'z' ? lower : '\0';
    if (r->caseless[r->depth]) {
        if ((unsigned char)c >= 0x80)
            return refuse(r->p, strlen(r->p));
        for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
            if (last == pairs[i][0] && r->last == pairs[i][1])
                return bal_fail(BAL_EUNSUPPORTED, "'%s' regardless of case is not supported", pairs[i]);
    }
    if (c == ')' && r->depth > 0)
        r->depth--;
    return bal_buf_append(r->out, r->p++, 1);
}

static bal_status translate(const char *pattern, bal_buf *out)
{
    reader r = {.begin = pattern, .p = pattern, .out = out};
    bal_status status = BAL_OK;
    while (*r.p != '\0' && status == BAL_OK) {
        const char *inside = NULL;
        bool negated = false;
        size_t n = 0;
        if (strchr("\\[({", *r.p) == NULL) {
            status = put_plain(&r);
            continue;
        }
        r.last = '\0';
        if (*r.p == '\\' && (status = read_class(r.p, &n, &inside, &negated)) != BAL_OK)
            break;
        if (n > 0) {
            bool cased = inside[0] == '\\' && inside[3] == 'L' && inside[4] != '}' && inside[5] == '}';
            if (cased && r.caseless[r.depth])
                return refuse(r.p, n);
            status = bal_buf_printf(out, "[%s%s%s]", negated ? "^" : "", inside, (r.p[1] | 0x20) == 'w' ? LATIN_1 : "");
            r.p += n;
        } else {
            status = *r.p == '\\'  ? put_escape(&r, false)
                     : *r.p == '[' ? put_bracket(&r)
                     : *r.p == '(' ? open_group(&r)
                                   : put_interval(&r);
        }
    }
    return status;
}

bal_status bal_regex_compile(pcre2_code **out, const char *pattern, const char *where)
{
    int error = 0;
    PCRE2_SIZE at = 0;
    bal_buf text = {0};
    *out = NULL;
    bal_status status = translate(pattern, &text);
    pcre2_compile_context *c = pcre2_compile_context_create(NULL);
    if (c != NULL) { /* whatever PCRE2 was built with */
        (void)pcre2_set_newline(c, PCRE2_NEWLINE_LF);
        (void)pcre2_set_bsr(c, PCRE2_BSR_UNICODE);
    }
    if (status != BAL_OK)
        (void)bal_fail_note(status, "%s: pattern '%.80s'", where, pattern);
    else
        *out = pcre2_compile((PCRE2_SPTR)bal_buf_cstr(&text), text.len, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error,
                             &at, c);
    pcre2_compile_context_free(c);
    bal_buf_dispose(&text);
    if (status == BAL_OK && *out == NULL) {
        PCRE2_UCHAR message[128] = {0};
        (void)pcre2_get_error_message(error, message, sizeof message);
        return bal_fail(BAL_EFORMAT, "%s: pattern '%.80s': %s", where, pattern, (const char *)message);
    }
    if (status == BAL_OK)
        (void)pcre2_jit_compile(*out, PCRE2_JIT_COMPLETE); /* without JIT the interpreter runs it */
    return status;
}
