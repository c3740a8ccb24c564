/* Patterns of tokenizer.json.  They are written for Oniguruma, whose Unicode classes differ from PCRE2's: \s is the
 * property White_Space (PCRE2 takes U+180E too), \w has marks and letter-like numbers, \h is a hexadecimal digit, and
 * ^ $ are the ends of lines.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/tokenizer_impl.h"
#include "lib/text/unicode_new.h"

#include <string.h>

#define SPACES "\\x09-\\x0d\\x20\\x85\\xa0\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
/* letters, letter-like numbers and symbols, marks, decimal digits, connectors: Alphabetic and the rest of a word */
#define WORDS                                                                                                          \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}\\x{1f170}-\\x{"    \
    "1f189}" NEW_L NEW_M NEW_ND
#define LATIN_1 "\\xb2\\xb3\\xb9\\xbc-\\xbe" /* raised digits and fractions of Latin-1: \w of Oniguruma only */

const char bal_gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char bal_words_pattern[] = "[" WORDS "\\x{200c}\\x{200d}]+|[^" WORDS "\\x{200c}\\x{200d}" SPACES "]+";

/* name (after \, or \p{name}) -> the contents of a bracket that mean the same. */
static const struct {
    const char *name, *inside;
} k_classes[] = {
    {"s", SPACES},
    {"w", WORDS LATIN_1},
    {"d", "\\p{Nd}" NEW_ND},
    {"h", "0-9A-Fa-f"},
    {"p{L}", "\\p{L}" NEW_L},
    {"p{Lu}", "\\p{Lu}" NEW_LU},
    {"p{Ll}", "\\p{Ll}" NEW_LL},
    {"p{Lm}", "\\p{Lm}" NEW_LM},
    {"p{Lo}", "\\p{Lo}" NEW_LO},
    {"p{M}", "\\p{M}" NEW_M},
    {"p{N}", "\\p{N}" NEW_N},
    {"p{Nd}", "\\p{Nd}" NEW_ND},
    {"p{P}", "\\p{P}" NEW_P},
    /* PCRE2 takes the name of a script for its extensions */
    {"p{Han}", "\\p{sc:Han}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"},
    {"p{Hiragana}", "\\p{sc:Hiragana}\\x{1b132}"},
    {"p{Katakana}", "\\p{sc:Katakana}\\x{1b155}"},
    {"p{Hangul}", "\\p{sc:Hangul}"},
};

/* The escape at p (behind the backslash): its length, and in *out what replaces it; 0: it is left as it is. */
static bal_status put_escape(const char *p, bool bracket, bal_buf *out, size_t *length)
{
    *length = 0;
    for (size_t i = 0; i < sizeof k_classes / sizeof k_classes[0]; i++) {
        const char *name = k_classes[i].name;
        size_t n = strlen(name);
        bool negated = *p == (char)(name[0] - 'a' + 'A');
        if ((*p != name[0] && !negated) || strncmp(p + 1, name + 1, n - 1) != 0)
            continue;
        if (negated && bracket) { /* cannot be written as a list; the plain class is right but for new characters */
            if (*p != 'S')
                return BAL_OK;
            *length = n;
            return bal_buf_text(out, "\\P{White_Space}");
        }
        *length = n;
        return bal_buf_printf(out, "%s%s%s",
                              bracket   ? ""
                              : negated ? "[^"
                                        : "[",
                              k_classes[i].inside, bracket ? "" : "]");
    }
    return BAL_OK;
}

static bal_status translate(const char *pattern, bal_buf *out)
{
    bool bracket = false;
    bal_status status = BAL_OK;
    for (const char *p = pattern; *p != '\0' && status == BAL_OK;) {
        size_t n = 1;
        if (*p == '\\' && p[1] != '\0') {
            status = put_escape(p + 1, bracket, out, &n);
            if (n == 0 && status == BAL_OK)
                status = bal_buf_append(out, p, 2);
            p += 1 + (n == 0 ? 1 : n);
            continue;
        }
        if (bracket && *p == '[' && p[1] == ':' && strstr(p, ":]") != NULL) { /* [:alpha:] */
            n = (size_t)(strstr(p, ":]") + 2 - p);
        } else if (bracket && (*p == '[' || (*p == '&' && p[1] == '&'))) {
            return bal_fail(BAL_EUNSUPPORTED, "nested brackets and && are not supported");
        } else if (!bracket && *p == '[') {
            bracket = true;
            n = p[1] == '^' ? 2 : 1;
            n += p[n] == ']' ? 1 : 0; /* a ] in the first place is a plain character */
        } else {
            bracket = bracket && *p != ']';
        }
        status = bal_buf_append(out, p, n);
        p += n;
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
    if (status != BAL_OK)
        (void)bal_fail_note(status, "%s: pattern '%.80s'", where, pattern);
    else
        *out = pcre2_compile((PCRE2_SPTR)bal_buf_cstr(&text), text.len, PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE, &error,
                             &at, NULL);
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
