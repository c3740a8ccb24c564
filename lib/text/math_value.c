/* A recursive descent over the text; every rule evaluates as it reads.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/math_value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifndef CMPLX /* glibc defines it for GCC alone */
#define CMPLX(re, im) __builtin_complex((double)(re), (double)(im))
#endif

enum { MAX_DEPTH = 64, NAME_BYTES = 32 };

typedef bal_math_value value;

typedef struct reader {
    const char *p;
    bal_math_notation notation;
    unsigned point;
    int depth;
    bool failed, in_bars;
} reader;

static value expression(reader *r);

static value fail(reader *r)
{
    r->failed = true;
    return (value){.z = (double)NAN};
}

static value inexact(double complex z)
{
    return (value){.z = z};
}

static value fraction(int64_t num, int64_t den)
{
    int64_t a = num < 0 ? -num : num, b = den < 0 ? -den : den;
    while (b != 0) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    if (den < 0)
        a = -a;
    return (value){.exact = true, .num = num / a, .den = den / a, .z = (double)num / (double)den};
}

static bool small(const value *v)
{
    return v->exact && llabs(v->num) < ((int64_t)1 << 31) && v->den < ((int64_t)1 << 31);
}

static value add(value a, value b, int sign)
{
    int64_t x, y, sum, den;
    if (a.exact && b.exact && !__builtin_mul_overflow(a.num, b.den, &x) &&
        !__builtin_mul_overflow(b.num * sign, a.den, &y) && !__builtin_add_overflow(x, y, &sum) &&
        !__builtin_mul_overflow(a.den, b.den, &den) && sum != INT64_MIN)
        return fraction(sum, den);
    return inexact(a.z + (double)sign * b.z);
}

static value multiply(value a, value b)
{
    if (small(&a) && small(&b))
        return fraction(a.num * b.num, a.den * b.den);
    return inexact(a.z * b.z);
}

static value divide(reader *r, value a, value b)
{
    if (cabs(b.z) == 0)
        return fail(r);
    if (small(&a) && small(&b))
        return fraction(a.num * b.den, a.den * b.num);
    return inexact(a.z / b.z);
}

static value power(reader *r, value a, value b)
{
    if (b.exact && b.den == 1 && llabs(b.num) <= 64 && a.exact) {
        value result = {.exact = true, .num = 1, .den = 1, .z = 1};
        for (int64_t i = 0; i < llabs(b.num); i++)
            result = multiply(result, a);
        if (b.num < 0)
            return divide(r, (value){.exact = true, .num = 1, .den = 1, .z = 1}, result);
        return result;
    }
    if (cabs(a.z) == 0)
        return creal(b.z) > 0 ? fraction(0, 1) : fail(r);
    return inexact(cpow(a.z, b.z));
}

static value root(value a, value n)
{
    double degree = creal(n.z);
    if (a.exact && n.exact && n.den == 1 && n.num > 1 && n.num < 64 && (a.num >= 0 || n.num % 2 == 1)) {
        double x = pow((double)llabs(a.num), 1 / degree), y = pow((double)a.den, 1 / degree);
        int64_t num = llround(x), den = llround(y);
        double back_num = pow((double)num, degree), back_den = pow((double)den, degree);
        if (back_num == (double)llabs(a.num) && back_den == (double)a.den && back_num < 1e15 && back_den < 1e15)
            return fraction(a.num < 0 ? -num : num, den);
        if (a.num < 0)
            return inexact(-pow((double)-a.num / (double)a.den, 1 / degree));
    }
    return inexact(n.exact && n.num == 2 && n.den == 1 ? csqrt(a.z) : cpow(a.z, 1 / n.z));
}

static void skip(reader *r)
{
    static const char *const blanks[] = {"\\,", "\\;", "\\:", "\\!", "\\ ", "~", "\\quad", "\\displaystyle"};
    for (bool more = true; more;) {
        more = false;
        while (*r->p == ' ' || *r->p == '\n' || *r->p == '\t' || *r->p == '\r') {
            r->p++;
            more = true;
        }
        for (size_t i = 0; r->notation == BAL_MATH_LATEX && i < sizeof blanks / sizeof blanks[0]; i++)
            if (strncmp(r->p, blanks[i], strlen(blanks[i])) == 0) {
                r->p += strlen(blanks[i]);
                more = true;
            }
    }
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* A word at p ("\cdot": not the beginning of a longer command); consumed if it is there. */
static bool take(reader *r, const char *word)
{
    size_t n = strlen(word);
    skip(r);
    if (strncmp(r->p, word, n) != 0 || (word[0] == '\\' && is_letter(word[n - 1]) && is_letter(r->p[n])))
        return false;
    r->p += n;
    return true;
}

/* Any value in a fixed ring around 0 for a name, another at each point. */
static value variable(const reader *r, const char *name)
{
    uint64_t h = 1469598103934665603U + r->point * 0x9e3779b97f4a7c15U;
    for (const char *p = name; *p != '\0'; p++)
        h = (h ^ (unsigned char)*p) * 1099511628211U;
    h ^= h >> 29;
    h *= 0xbf58476d1ce4e5b9U;
    h ^= h >> 32;
    double radius = 0.6 + (double)(h & 0xffffU) / 65536.0,
           angle = (double)(h >> 16 & 0xffffU) / 65536.0 * 6.283185307179586;
    return inexact(radius * cexp(CMPLX(0, angle)));
}

static value number(reader *r)
{
    double z = 0, scale = 1;
    int64_t num = 0, den = 1;
    bool exact = true, digits = false, point = false;
    for (;; r->p++) {
        /* 1,000 and 1{,}000: a comma before exactly three digits */
        if (!point && digits && r->notation == BAL_MATH_LATEX) {
            size_t comma = r->p[0] == ',' ? 1 : (strncmp(r->p, "{,}", 3) == 0 ? 3 : 0);
            if (comma > 0 && strspn(r->p + comma, "0123456789") == 3)
                r->p += comma;
        }
        if (*r->p == '.' && !point && (digits || (r->p[1] >= '0' && r->p[1] <= '9'))) {
            point = true;
            continue;
        }
        if (*r->p < '0' || *r->p > '9')
            break;
        int64_t d = *r->p - '0';
        digits = true;
        z = z * 10 + (double)d;
        exact = exact && !__builtin_mul_overflow(num, (int64_t)10, &num) && !__builtin_add_overflow(num, d, &num);
        if (point) {
            scale *= 10;
            exact = exact && !__builtin_mul_overflow(den, (int64_t)10, &den);
        }
    }
    if (!digits)
        return fail(r);
    if (r->notation == BAL_MATH_PYTHON && (*r->p == 'e' || *r->p == 'E')) {
        char *end = NULL;
        double ten = strtod(r->p + 1, &end);
        if (end == r->p + 1)
            return fail(r);
        r->p = end;
        return inexact(z / scale * pow(10, ten));
    }
    return exact ? fraction(num, den) : inexact(z / scale);
}

static value bracketed(reader *r, const char *close)
{
    bool bars = r->in_bars;
    r->in_bars = false;
    value v = expression(r);
    r->in_bars = bars;
    return take(r, close) ? v : fail(r);
}

/* An argument of a command: a group in braces, or one character or command. */
static value primary(reader *r);
static value argument(reader *r)
{
    skip(r);
    if (*r->p == '{') {
        r->p++;
        return bracketed(r, "}");
    }
    if (*r->p >= '0' && *r->p <= '9')
        return fraction(*r->p++ - '0', 1);
    return primary(r);
}

static value factorial(reader *r, value v)
{
    if (!v.exact || v.den != 1 || v.num < 0 || v.num > 170)
        return fail(r);
    value out = fraction(1, 1);
    for (int64_t i = 2; i <= v.num; i++)
        out = multiply(out, fraction(i, 1));
    return out;
}

static value binomial(reader *r, value n, value k)
{
    value out = fraction(1, 1);
    if (!n.exact || !k.exact || n.den != 1 || k.den != 1 || k.num < 0 || k.num > 1000)
        return fail(r);
    for (int64_t i = 1; i <= k.num; i++)
        out = divide(r, multiply(out, fraction(n.num - k.num + i, 1)), fraction(i, 1));
    return out;
}

static double complex c_log(double complex z)
{
    return clog(z);
}

static double complex c_cot(double complex z)
{
    return 1 / ctan(z);
}

static double complex c_sec(double complex z)
{
    return 1 / ccos(z);
}

static double complex c_csc(double complex z)
{
    return 1 / csin(z);
}

static const struct {
    const char *name;
    double complex (*call)(double complex z);
} k_functions[] = {{"arcsin", casin}, {"arccos", cacos}, {"arctan", catan}, {"sin", csin},  {"cos", ccos},
                   {"tan", ctan},     {"cot", c_cot},    {"sec", c_sec},    {"csc", c_csc}, {"ln", c_log},
                   {"exp", cexp},     {"asin", casin},   {"acos", cacos},   {"atan", catan}};

/* Powers as in \sin^2 x, then the argument: a bracket, or what follows up to the next sign. */
static value function(reader *r, double complex (*call)(double complex z))
{
    value exponent = fraction(1, 1);
    bool raised = r->notation == BAL_MATH_LATEX && take(r, "^");
    if (raised)
        exponent = argument(r);
    skip(r);
    value v = primary(r);
    while (*r->p != '\0' && !r->failed && *r->p != '(' && r->notation == BAL_MATH_LATEX) { /* \sin 2x */
        skip(r);
        if (!is_letter(*r->p) && strncmp(r->p, "\\pi", 3) != 0 && strncmp(r->p, "\\theta", 6) != 0)
            break;
        v = multiply(v, primary(r));
    }
    value out = inexact(call(v.z));
    return raised ? power(r, out, exponent) : out;
}

static value logarithm(reader *r)
{
    value base = {.exact = true, .num = 10, .den = 1, .z = 10};
    if (r->notation == BAL_MATH_PYTHON)
        return function(r, c_log);
    if (take(r, "_"))
        base = argument(r);
    skip(r);
    value v = primary(r);
    if (v.exact && base.exact && base.den == 1 && v.den == 1 && base.num > 1 && v.num > 0) { /* log_2 8 is 3 */
        int64_t left = v.num, k = 0;
        for (; left % base.num == 0; left /= base.num)
            k++;
        if (left == 1)
            return fraction(k, 1);
    }
    return cabs(v.z) == 0 ? fail(r) : inexact(clog(v.z) / clog(base.z));
}

/* "\name" of a Greek letter or a variable; with its index. */
static value named(reader *r, const char *name, size_t n)
{
    char full[2 * NAME_BYTES];
    if (n >= NAME_BYTES)
        return fail(r);
    memcpy(full, name, n);
    full[n] = '\0';
    if (r->notation == BAL_MATH_LATEX && *r->p == '_') {
        const char *from = ++r->p;
        size_t m = *from == '{' ? strcspn(from, "}") + (strchr(from, '}') != NULL) : (*from == '\0' ? 0 : 1);
        if (m == 0 || m >= NAME_BYTES || (*from != '{' && !is_letter(*from) && (*from < '0' || *from > '9')))
            return fail(r);
        full[n++] = '_';
        for (size_t i = 0; i < m; i++)
            if (from[i] != '{' && from[i] != '}')
                full[n++] = from[i];
        full[n] = '\0';
        r->p = from + m;
    }
    return variable(r, full);
}

static value command(reader *r)
{
    static const char *const fracs[] = {"\\frac", "\\dfrac", "\\tfrac", "\\cfrac"};
    static const char *const unknown[] = {"\\begin", "\\end",   "\\pm",  "\\mp",       "\\cup", "\\cap",
                                          "\\in",    "\\le",    "\\leq", "\\ge",       "\\geq", "\\lt",
                                          "\\gt",    "\\infty", "\\mid", "\\emptyset", "\\ne"};
    for (size_t i = 0; i < sizeof fracs / sizeof fracs[0]; i++)
        if (strncmp(r->p, fracs[i], strlen(fracs[i])) == 0) { /* also \frac12 and \fracab */
            r->p += strlen(fracs[i]);
            value a = argument(r), b = argument(r);
            return divide(r, a, b);
        }
    if (strncmp(r->p, "\\sqrt", 5) == 0) {
        value degree = {.exact = true, .num = 2, .den = 1, .z = 2};
        r->p += 5;
        if (take(r, "["))
            degree = bracketed(r, "]");
        return root(argument(r), degree);
    }
    if (take(r, "\\binom") || take(r, "\\dbinom")) {
        value n = argument(r), k = argument(r);
        return binomial(r, n, k);
    }
    if (take(r, "\\pi"))
        return inexact(3.14159265358979323846);
    if (take(r, "\\lfloor")) {
        value v = bracketed(r, "\\rfloor");
        return v.exact ? fraction((int64_t)floor((double)v.num / (double)v.den), 1) : inexact(floor(creal(v.z)));
    }
    if (take(r, "\\lceil")) {
        value v = bracketed(r, "\\rceil");
        return v.exact ? fraction((int64_t)ceil((double)v.num / (double)v.den), 1) : inexact(ceil(creal(v.z)));
    }
    if (take(r, "\\{"))
        return bracketed(r, "\\}");
    if (take(r, "\\log") || take(r, "\\lg"))
        return logarithm(r);
    for (size_t i = 0; i < sizeof k_functions / sizeof k_functions[0]; i++) {
        size_t n = strlen(k_functions[i].name);
        if (strncmp(r->p + 1, k_functions[i].name, n) == 0 && !is_letter(r->p[1 + n])) {
            r->p += 1 + n;
            return function(r, k_functions[i].call);
        }
    }
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        if (take(r, unknown[i]))
            return fail(r);
    const char *name = r->p++;
    while (is_letter(*r->p))
        r->p++;
    return r->p == name + 1 ? fail(r) : named(r, name, (size_t)(r->p - name));
}

static value python_name(reader *r)
{
    const char *name = r->p;
    while (is_letter(*r->p) || (*r->p >= '0' && *r->p <= '9') || *r->p == '_')
        r->p++;
    size_t n = (size_t)(r->p - name);
    if (n == 2 && strncmp(name, "pi", 2) == 0)
        return inexact(3.14159265358979323846);
    if (n == 1 && *name == 'E')
        return inexact(2.71828182845904523536);
    if (n == 1 && *name == 'I')
        return inexact(CMPLX(0, 1));
    if (*r->p == '(') {
        if (n == 4 && strncmp(name, "sqrt", 4) == 0)
            return root(primary(r), fraction(2, 1));
        if (n == 3 && strncmp(name, "log", 3) == 0)
            return logarithm(r);
        for (size_t i = 0; i < sizeof k_functions / sizeof k_functions[0]; i++)
            if (strlen(k_functions[i].name) == n && strncmp(k_functions[i].name, name, n) == 0)
                return function(r, k_functions[i].call);
        return fail(r);
    }
    if (n == 3 && (strncmp(name, "nan", 3) == 0 || strncmp(name, "inf", 3) == 0))
        return fail(r);
    return named(r, name, n);
}

static value primary(reader *r)
{
    value v;
    skip(r);
    if (++r->depth > MAX_DEPTH || r->failed) {
        v = fail(r);
    } else if ((*r->p >= '0' && *r->p <= '9') || *r->p == '.') {
        const char *from = r->p;
        v = number(r);
        if (*r->p == '_' && r->notation == BAL_MATH_LATEX) /* a number in another base is a name */
            v = named(r, from, (size_t)(r->p - from));
    } else if (*r->p == '(' || *r->p == '[' || *r->p == '{') {
        static const char *const closes[] = {")", "]", "}"};
        const char *close = closes[*r->p == '(' ? 0 : (*r->p == '[' ? 1 : 2)];
        r->p++;
        v = bracketed(r, close);
    } else if (*r->p == '|' && !r->in_bars && r->notation == BAL_MATH_LATEX) {
        r->p++;
        r->in_bars = true;
        v = expression(r);
        r->in_bars = false;
        v = take(r, "|") ? (v.exact ? fraction(llabs(v.num), v.den) : inexact(cabs(v.z))) : fail(r);
    } else if (*r->p == '\\' && r->notation == BAL_MATH_LATEX) {
        v = command(r);
    } else if (is_letter(*r->p) && r->notation == BAL_MATH_PYTHON) {
        v = python_name(r);
    } else if (is_letter(*r->p)) {
        const char *name = r->p++;
        v = *name == 'i' && *r->p != '_'   ? inexact(CMPLX(0, 1))
            : *name == 'e' && *r->p != '_' ? inexact(2.71828182845904523536)
                                           : named(r, name, 1);
    } else {
        v = fail(r);
    }
    r->depth--;
    return v;
}

static value signed_power(reader *r);

static value powered(reader *r)
{
    value v = primary(r);
    for (skip(r); !r->failed; skip(r)) {
        bool python = r->notation == BAL_MATH_PYTHON;
        if (python ? strncmp(r->p, "**", 2) == 0 : *r->p == '^') {
            r->p += python ? 2 : 1;
            skip(r);
            v = power(r, v, python || *r->p == '-' ? signed_power(r) : argument(r));
        } else if (*r->p == '!' && !python) {
            r->p++;
            v = factorial(r, v);
        } else {
            break;
        }
    }
    return v;
}

static value signed_power(reader *r)
{
    skip(r);
    if (*r->p == '-' || *r->p == '+') {
        int sign = *r->p++ == '-' ? -1 : 1;
        if (++r->depth > MAX_DEPTH)
            return fail(r);
        value v = signed_power(r);
        r->depth--;
        return sign < 0 ? multiply(fraction(-1, 1), v) : v;
    }
    return powered(r);
}

/* Whether a factor follows without a sign between: 2x, 3\pi, (a)(b). */
static bool factor_follows(const reader *r)
{
    char c = *r->p;
    if (r->notation == BAL_MATH_PYTHON || r->failed)
        return false;
    if (c == '|')
        return !r->in_bars;
    if (c == '\\')
        return strncmp(r->p, "\\rfloor", 7) != 0 && strncmp(r->p, "\\rceil", 6) != 0 && strncmp(r->p, "\\}", 2) != 0;
    return is_letter(c) || c == '(' || c == '[' || c == '{' || (c >= '0' && c <= '9');
}

static value term(reader *r)
{
    const char *start = (skip(r), r->p);
    value v = signed_power(r);
    bool whole = v.exact && v.den == 1 && strspn(start, "-0123456789") == (size_t)(r->p - start);
    for (skip(r); !r->failed; skip(r)) {
        if (take(r, "\\cdot") || take(r, "\\times") || take(r, "*")) {
            v = multiply(v, signed_power(r));
        } else if (take(r, "\\div") || take(r, "/")) {
            v = divide(r, v, signed_power(r));
        } else if (factor_follows(r)) {
            bool mixed = whole && (strncmp(r->p, "\\frac", 5) == 0 || strncmp(r->p, "\\dfrac", 6) == 0 ||
                                   strncmp(r->p, "\\tfrac", 6) == 0);
            value w = powered(r);
            mixed = mixed && w.exact && w.num > 0 && w.num < w.den; /* 1\frac{1}{2} is one and a half */
            v = mixed ? add(v, w, v.num < 0 || *start == '-' ? -1 : 1) : multiply(v, w);
        } else {
            break;
        }
        whole = false;
    }
    return v;
}

static value expression(reader *r)
{
    if (++r->depth > MAX_DEPTH)
        return fail(r);
    value v = term(r);
    for (skip(r); !r->failed && (*r->p == '+' || *r->p == '-'); skip(r)) {
        int sign = *r->p++ == '-' ? -1 : 1;
        v = add(v, term(r), sign);
    }
    r->depth--;
    return v;
}

bool bal_math_evaluate(const char *text, bal_math_notation notation, unsigned point, bal_math_value *out)
{
    reader r = {.p = text, .notation = notation, .point = point};
    *out = expression(&r);
    skip(&r);
    return !r.failed && *r.p == '\0' && isfinite(creal(out->z)) && isfinite(cimag(out->z));
}
