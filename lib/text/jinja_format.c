/* "%s" % values and "{}".format(values) as Python has them.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/jinja_impl.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_WIDTH = 1 << 20, MAX_PRECISION = 400, MAX_NUMBER = 1024 };

/* How a value is laid out: both kinds of pattern come down to this. */
typedef struct layout {
    const char *fill; /* one character */
    size_t n_fill;
    char align; /* < > ^ =, the last: between the sign and the digits */
    char sign;  /* + or space before what is not negative, else 0 */
    bool alt, comma;
    int64_t width, precision; /* precision -1: none */
    char type;
} layout;

static void repeat_fill(bal_jinja *r, bal_buf *out, const layout *l, int64_t times)
{
    for (int64_t i = 0; i < times && r->status == BAL_OK; i++)
        bal_j_append(r, out, l->fill, l->n_fill);
}

/* head: the sign and 0x.  Widths count characters. */
static void put_laid_out(bal_jinja *r, bal_buf *out, const layout *l, const char *head, bal_jvalue body)
{
    int64_t chars = (int64_t)(strlen(head) + bal_j_chars(body.u.text, body.n));
    int64_t pad = l->width > chars ? l->width - chars : 0;
    int64_t before = l->align == '>' ? pad : l->align == '^' ? pad / 2 : 0, between = l->align == '=' ? pad : 0;
    repeat_fill(r, out, l, before);
    bal_j_append(r, out, head, strlen(head));
    repeat_fill(r, out, l, between);
    bal_j_append(r, out, body.u.text, body.n);
    repeat_fill(r, out, l, pad - before - between);
}

static void put_text(bal_jinja *r, bal_buf *out, const layout *l, bal_jvalue text)
{
    if (l->precision >= 0)
        text.n = bal_j_offset(text.u.text, text.n, (size_t)l->precision);
    put_laid_out(r, out, l, "", text);
}

/* Commas behind each three digits from the right of digits[0..n). */
static void group_digits(char *digits, size_t room)
{
    char grouped[MAX_NUMBER];
    size_t n = strspn(digits, "0123456789"), k = 0;
    for (size_t i = 0; i < n && k + 2 < sizeof grouped; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            grouped[k++] = ',';
        grouped[k++] = digits[i];
    }
    grouped[k] = '\0';
    if (k + strlen(digits + n) < room) {
        memmove(digits + k, digits + n, strlen(digits + n) + 1);
        memcpy(digits, grouped, k);
    }
}

static void put_whole(bal_jinja *r, bal_buf *out, const layout *l, int64_t value)
{
    char digits[MAX_NUMBER] = "", head[4] = "";
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    unsigned base = l->type == 'x' || l->type == 'X' ? 16 : l->type == 'o' ? 8 : l->type == 'b' ? 2 : 10;
    size_t at = sizeof digits - 1, n_head = 0, least = l->precision > 0 ? (size_t)l->precision : 1;
    do
        digits[--at] = (l->type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[left % base];
    while ((left /= base) > 0 || sizeof digits - 1 - at < least);
    memmove(digits, digits + at, sizeof digits - at);
    if (l->comma)
        group_digits(digits, sizeof digits);
    if (value < 0 || l->sign != '\0')
        head[n_head++] = value < 0 ? '-' : l->sign;
    if (l->alt && base != 10) {
        head[n_head++] = '0';
        head[n_head++] = l->type;
    }
    put_laid_out(r, out, l, head, bal_j_text(digits, strlen(digits)));
}

static void put_real(bal_jinja *r, bal_buf *out, const layout *l, double value)
{
    char digits[MAX_NUMBER] = "", head[2] = "";
    bool percent = l->type == '%', upper = l->type == 'E' || l->type == 'F' || l->type == 'G';
    int precision = l->precision >= 0 ? (int)l->precision : 6, n = 0;
    double size = fabs(value) * (percent ? 100 : 1);
    if (signbit(value) && !isnan(value))
        head[0] = '-';
    else
        head[0] = l->sign;
    if (!isfinite(size))
        n = snprintf(digits, sizeof digits, "%s%s", isnan(size) ? (upper ? "NAN" : "nan") : (upper ? "INF" : "inf"),
                     percent ? "%" : "");
    else if (l->type == '\0')
        bal_j_format_float(size, digits);
    else if (l->type == 'e' || l->type == 'E')
        n = snprintf(digits, sizeof digits, upper ? "%.*E" : "%.*e", precision, size);
    else if (l->type == 'g' || l->type == 'G')
        n = snprintf(digits, sizeof digits, upper ? "%.*G" : "%.*g", precision, size);
    else
        n = snprintf(digits, sizeof digits, percent ? "%.*f%%" : "%.*f", precision, size);
    if (n < 0 || (size_t)n >= sizeof digits)
        bal_j_fail(r, BAL_ELIMIT, "a number of a pattern has more than %d characters", MAX_NUMBER - 1);
    if (l->comma)
        group_digits(digits, sizeof digits);
    put_laid_out(r, out, l, head, bal_j_text(digits, strlen(digits)));
}

static bool read_number(const char *s, size_t n, size_t *at, int64_t most, int64_t *out)
{
    *out = 0;
    for (; *at < n && s[*at] >= '0' && s[*at] <= '9'; ++*at)
        if ((*out = *out * 10 + (s[*at] - '0')) > most)
            return false;
    return true;
}

static void too_wide(bal_jinja *r)
{
    bal_j_fail(r, BAL_ELIMIT, "the width of a pattern is above %d, or its precision above %d", MAX_WIDTH,
               MAX_PRECISION);
}

/* ---- "%s" % ... ---- */

/* One conversion: %, flags, width, precision, at s[0..n); returns its length without the letter at its end. */
static size_t read_conversion(bal_jinja *r, const char *s, size_t n, layout *l)
{
    size_t i = 1;
    bool left = false, zero = false;
    *l = (layout){.fill = " ", .n_fill = 1, .precision = -1};
    for (; i < n && s[i] != '\0' && strchr("-+ #0", s[i]) != NULL; i++) {
        left |= s[i] == '-';
        zero |= s[i] == '0';
        l->alt |= s[i] == '#';
        if (s[i] == '+' || (s[i] == ' ' && l->sign == '\0'))
            l->sign = s[i];
    }
    bool fits = read_number(s, n, &i, MAX_WIDTH, &l->width);
    if (i < n && s[i] == '.') {
        i++;
        fits &= read_number(s, n, &i, MAX_PRECISION, &l->precision);
    }
    if (!fits)
        too_wide(r);
    l->type = i < n ? s[i] : '\0';
    l->align = left ? '<' : '>';
    if (zero && !left && l->type != 's' && l->type != 'r') {
        l->align = '=';
        l->fill = "0";
    }
    return i;
}

static void convert(bal_jinja *r, bal_buf *out, const layout *l, bal_jvalue v)
{
    bool whole = strchr("dixXou", l->type) != NULL, plain = strchr("diu", l->type) != NULL;
    double x = 0;
    if (l->type == 's' || l->type == 'r') {
        bal_buf inner = {0};
        if (l->type == 's')
            bal_j_write(r, &inner, v);
        else
            bal_j_repr(r, &inner, v);
        put_text(r, out, l, bal_j_text(bal_buf_cstr(&inner), inner.len));
        bal_buf_dispose(&inner);
    } else if (!bal_j_number(v, &x) || (whole && !plain && v.kind == BAL_J_FLOAT) ||
               (whole && v.kind == BAL_J_FLOAT && !(fabs(x) < 9e18))) {
        bal_j_fail(r, BAL_EFORMAT, "%%%c asks for a number, not %s", l->type, bal_j_type(v));
    } else if (whole) {
        put_whole(r, out, l, v.kind == BAL_J_INT ? v.u.i : (int64_t)x);
    } else if (l->alt) {
        bal_j_fail(r, BAL_EUNSUPPORTED, "the conversion %%#%c is not supported", l->type);
    } else {
        put_real(r, out, l, x);
    }
}

bal_jvalue bal_j_format(bal_jinja *r, bal_jvalue pattern, bal_jvalue values)
{
    bal_jlist one = {.items = &values, .n = 1, .cap = 1};
    const bal_jlist *list = bal_j_is_tuple(values) ? values.u.list : &one;
    /* of what has keys or places all may be left over, as with %(name)s */
    bool all = values.kind != BAL_J_DICT && (bal_j_is_tuple(values) || !bal_j_has_places(values));
    bal_buf b = {0};
    size_t used = 0;
    if (pattern.flavor == BAL_J_MARKUP)
        bal_j_fail(r, BAL_EUNSUPPORTED, "a %% pattern that counts as escaped is not supported");
    for (size_t i = 0; i < pattern.n && r->status == BAL_OK;) {
        const char *s = pattern.u.text + i, *next = memchr(s, '%', pattern.n - i);
        layout l;
        if (s != next) {
            size_t n = next != NULL ? (size_t)(next - s) : pattern.n - i;
            bal_j_append(r, &b, s, n);
            i += n;
            continue;
        }
        size_t n = read_conversion(r, s, pattern.n - i, &l);
        if (l.type == '%' && n == 1) {
            bal_j_append(r, &b, "%", 1);
        } else if (l.type == '\0' || strchr("srdiuxXofFeEgG", l.type) == NULL) {
            bal_j_fail(r, BAL_EUNSUPPORTED, "the conversion '%.*s' of a %% pattern is not supported",
                       (int)(n > 20 ? 20 : bal_j_offset(s, pattern.n - i, n + 1)), s);
        } else if (used >= list->n) {
            bal_j_fail(r, BAL_EFORMAT, "a %% pattern has more conversions than values");
        } else {
            convert(r, &b, &l, list->items[used++]);
        }
        i += n + 1;
    }
    if (r->status == BAL_OK && used < list->n && all)
        bal_j_fail(r, BAL_EFORMAT, "a %% pattern has fewer conversions than values");
    return bal_j_take_buf(r, &b);
}

/* ---- "{}".format(...) ---- */

static bool is_align(char c)
{
    return c == '<' || c == '>' || c == '^' || c == '=';
}

/* [[fill]align][sign][#][0][width][,][.precision][type]; false: not supported. */
static bool read_layout(bal_jinja *r, const char *s, size_t n, layout *l)
{
    size_t i = 0, first = n > 0 ? bal_j_offset(s, n, 1) : 0;
    *l = (layout){.fill = " ", .n_fill = 1, .precision = -1};
    if (n > first && first > 0 && is_align(s[first])) {
        l->fill = s;
        l->n_fill = first;
        l->align = s[first];
        i = first + 1;
    } else if (n > 0 && is_align(s[0])) {
        l->align = s[i++];
    }
    if (i < n && (s[i] == '+' || s[i] == '-' || s[i] == ' ')) {
        l->sign = s[i] == '-' ? '\0' : s[i];
        i++;
    }
    if (i < n && s[i] == '#') {
        l->alt = true;
        i++;
    }
    if (i < n && s[i] == '0') {
        if (l->align != '\0')
            return false;
        l->fill = "0";
        l->align = '=';
        i++;
    }
    bool fits = read_number(s, n, &i, MAX_WIDTH, &l->width);
    if (i < n && s[i] == ',') {
        l->comma = true;
        i++;
    }
    if (i < n && s[i] == '.') {
        size_t digits = ++i;
        fits &= read_number(s, n, &i, MAX_PRECISION, &l->precision);
        if (digits == i)
            return false;
    }
    if (!fits)
        too_wide(r);
    l->type = i < n ? s[i++] : '\0';
    return i == n && !(l->comma && l->fill[0] == '0');
}

/* False: such a value does not go with the layout, or not here. */
static bool put_field(bal_jinja *r, bal_buf *out, layout *l, bal_jvalue v)
{
    bool real = l->type != '\0' && strchr("eEfFgG%", l->type) != NULL;
    double x = 0;
    if (v.kind == BAL_J_TEXT) {
        if ((l->type != 's' && l->type != '\0') || l->sign != '\0' || l->alt || l->comma || l->align == '=')
            return false;
        l->align = l->align == '\0' ? '<' : l->align;
        put_text(r, out, l, v);
        return true;
    }
    if (!bal_j_number(v, &x))
        return false;
    l->align = l->align == '\0' ? '>' : l->align;
    if (v.kind == BAL_J_FLOAT || real) {
        if ((!real && l->type != '\0') || (l->type == '\0' && l->precision >= 0) || l->alt)
            return false;
        put_real(r, out, l, x);
        return true;
    }
    bool decimal = l->type == '\0' || l->type == 'd';
    if ((!decimal && strchr("boxX", l->type) == NULL) || l->precision >= 0 || (l->comma && !decimal))
        return false;
    put_whole(r, out, l, v.kind == BAL_J_INT ? v.u.i : (int64_t)x);
    return true;
}

/* The value of a field's name: "" counts on, digits are places, the rest names; NULL: there is none. */
static const bal_jvalue *field_value(const bal_jargs *args, const char *name, size_t n, size_t *next, int *numbered)
{
    size_t at = 0, digits = 0;
    while (digits < n && name[digits] >= '0' && name[digits] <= '9' && at < BAL_J_MAX_ARGS)
        at = at * 10 + (size_t)(name[digits++] - '0');
    if (digits == n) { /* either all count on or all are numbered */
        bool mixed = *numbered >= 0 && *numbered != (n > 0);
        *numbered = n > 0;
        at = n == 0 ? (*next)++ : at;
        return !mixed && at < args->n && args->names[at] == NULL ? &args->at[at] : NULL;
    }
    for (size_t k = 0; k < args->n; k++)
        if (args->names[k] != NULL && args->n_names[k] == n && memcmp(args->names[k], name, n) == 0)
            return &args->at[k];
    return NULL;
}

bal_jvalue bal_j_braces(bal_jinja *r, bal_jvalue v, const bal_jargs *args)
{
    bal_buf b = {0};
    size_t next = 0;
    int numbered = -1;
    for (size_t i = 0; i < v.n && r->status == BAL_OK; i++) {
        const char *s = v.u.text + i;
        if ((*s == '{' || *s == '}') && i + 1 < v.n && s[1] == *s) {
            bal_j_append(r, &b, s, 1);
            i++;
            continue;
        }
        if (*s != '{') {
            if (*s == '}')
                bal_j_fail(r, BAL_EFORMAT, "format: a single } stands in the pattern");
            bal_j_append(r, &b, s, 1);
            continue;
        }
        const char *end = memchr(s + 1, '}', v.n - i - 1);
        size_t n = end != NULL ? (size_t)(end - s) - 1 : 0;
        const char *colon = memchr(s + 1, ':', n);
        size_t n_name = colon != NULL ? (size_t)(colon - s) - 1 : n;
        const bal_jvalue *a = end != NULL ? field_value(args, s + 1, n_name, &next, &numbered) : NULL;
        layout l;
        bool good = a != NULL && (colon == NULL || read_layout(r, colon + 1, n - n_name - 1, &l));
        if (good && (colon == NULL || colon + 1 == end))
            bal_j_write(r, &b, *a);
        else if (good)
            good = put_field(r, &b, &l, *a);
        if (!good)
            bal_j_fail(r, BAL_EUNSUPPORTED, "format: the field {%.*s} is not supported or has no value",
                       n > 40 ? 40 : (int)n, s + 1);
        i += n + 1;
    }
    return bal_j_take_buf(r, &b);
}
