/* Minerva's extraction and normal form of answers, as two versions of lm-evaluation-harness have it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/math_text.h"

#include "lib/text/pattern.h"
#include "lib/text/spaces.h"

#include <stdio.h>
#include <string.h>

bal_status bal_math_extract_minerva(const char *output, bal_buf *out)
{
    static const char pattern[] = "Final Answer: The final answer is(.*?). I hope it is correct.";
    bal_pattern *p = NULL;
    bal_buf text = {0};
    bal_match m;
    bal_status status;
    BAL_TRY(bal_pattern_compile(&p, pattern, "minerva"));
    BAL_TRY(bal_buf_printf(&text, "%sI hope it is correct.", output));
    if (!bal_pattern_next(p, text.data, text.len, 0, &m)) {
        status = bal_buf_text(out, "[invalidanswer]");
        goto out;
    }
    const char *at = text.data + m.group_start;
    size_t n = m.group_end - m.group_start;
    bal_strip(&at, &n);
    status = bal_buf_append(out, at, n);
out:
    bal_pattern_free(p);
    bal_buf_dispose(&text);
    return status;
}

static const char *const k_changes[][2] = {
    {"an ", ""}, {"a ", ""},       {".$", "$"},           {"\\$", ""},          {"\\ ", ""},
    {" ", ""},   {"mbox", "text"}, {",\\text{and}", ","}, {"\\text{and}", ","}, {"\\text{m}", "\\text{}"}};
static const char *const k_removed[] = {"square",       "ways",
                                        "integers",     "dollars",
                                        "mph",          "inches",
                                        "ft",           "hours",
                                        "km",           "units",
                                        "\\ldots",      "sue",
                                        "points",       "feet",
                                        "minutes",      "digits",
                                        "cents",        "degrees",
                                        "cm",           "gm",
                                        "pounds",       "meters",
                                        "meals",        "edges",
                                        "students",     "childrentickets",
                                        "multiples",    "\\text{s}",
                                        "\\text{.}",    "\\text{\ns}",
                                        "\\text{}^2",   "\\text{}^3",
                                        "\\text{\n}",   "\\text{}",
                                        "\\mathrm{th}", "^\\circ",
                                        "^{\\circ}",    "\\;",
                                        ",\\!",         "{,}",
                                        "\"",           "\\dots"};
static const char *const k_patterns[][2] = {
    {"(.*?)(\\$)(.*?)(\\$)(.*)", "$$$3$$"}, {"(\\\\text\\{)(.*?)(\\})", "$2"}, {"(\\\\textbf\\{)(.*?)(\\})", "$2"},
    {"(\\\\overline\\{)(.*?)(\\})", "$2"},  {"(\\\\boxed\\{)(.*)(\\})", "$2"}, {"(frac)([^{])(.)", "frac{$2}{$3}"}};
/* The same with sqrt, whose degree 3.1 keeps apart. */
static const char *const k_root[2] = {"(sqrt)([^{])", "sqrt{$2}"};
static const char *const k_roots_31[][2] = {{"(sqrt)(\\[[^\\]]*\\])(\\w)", "$1$2{$3}"},
                                            {"(sqrt)(?!\\[)([^{])", "sqrt{$2}"}};

#define COUNT(LIST) (sizeof(LIST) / sizeof(LIST)[0])

static bal_status replace(bal_buf *b, const char *pattern, const char *replacement)
{
    bal_buf next = {0};
    bal_pattern *p = NULL;
    bal_status status;
    BAL_TRY(bal_pattern_compile(&p, pattern, "minerva"));
    status = bal_pattern_replace(p, bal_buf_cstr(b), b->len, replacement, &next);
    bal_buf old = *b;
    *b = next;
    next = old;
out:
    bal_pattern_free(p);
    bal_buf_dispose(&next);
    return status;
}

static bool is_word(const char *text)
{
    return strspn(text, "abcdefghijklmnopqrstuvwxyz") == strlen(text);
}

/* Takes a word out of b, but not out of the names of LaTeX's commands. */
static bal_status remove_outside_commands(bal_buf *b, const char *word)
{
    bal_buf out = {0};
    size_t n = strlen(word);
    const char *p = bal_buf_cstr(b);
    bal_status status = BAL_OK;
    while (*p != '\0') {
        size_t name = *p == '\\' ? strspn(p + 1, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") : 0;
        if (name > 0) {
            BAL_TRY(bal_buf_append(&out, p, name + 1));
            p += name + 1;
        } else if (strncmp(p, word, n) == 0) {
            p += n;
        } else {
            BAL_TRY(bal_buf_append(&out, p, 1));
            p++;
        }
    }
    bal_buf old = *b;
    *b = out;
    out = old;
out:
    bal_buf_dispose(&out);
    return status;
}

/* Commas between groups of three digits. */
static bool is_grouped(const char *text)
{
    size_t n = strspn(text += *text == '-', "0123456789");
    if (n < 1 || n > 3 || text[n] != ',')
        return false;
    for (text += n; *text == ','; text += 4)
        if (strspn(text + 1, "0123456789") != 3)
            return false;
    return *text == '\0';
}

static bal_status remove_units(bal_buf *b, bool now)
{
    char pattern[64];
    bal_status status = BAL_OK;
    for (size_t i = 0; i < COUNT(k_removed) && now; i++)
        if (is_word(k_removed[i])) { /* while white space still stands around them */
            (void)snprintf(pattern, sizeof pattern, "(?<!\\\\)\\b%s\\b", k_removed[i]);
            BAL_TRY(replace(b, pattern, ""));
        }
    for (size_t i = 0; i < COUNT(k_changes); i++)
        BAL_TRY(bal_buf_replace(b, k_changes[i][0], k_changes[i][1]));
    for (size_t i = 0; i < COUNT(k_removed); i++)
        BAL_TRY(now && is_word(k_removed[i]) ? remove_outside_commands(b, k_removed[i])
                                             : bal_buf_replace(b, k_removed[i], ""));
out:
    return status;
}

static bal_status normalize(const char *text, bool now, bal_buf *out)
{
    bal_buf b = {0};
    const char *sign = strrchr(text, '=');
    bal_status status;
    BAL_TRY(bal_buf_text(&b, sign == NULL ? text : sign + 1));
    BAL_TRY(remove_units(&b, now));
    for (size_t i = 0; i < COUNT(k_patterns); i++)
        BAL_TRY(replace(&b, k_patterns[i][0], k_patterns[i][1]));
    for (size_t i = 0; i < COUNT(k_roots_31) && now; i++)
        BAL_TRY(replace(&b, k_roots_31[i][0], k_roots_31[i][1]));
    if (!now)
        BAL_TRY(replace(&b, k_root[0], k_root[1]));
    BAL_TRY(bal_buf_replace(&b, "$", ""));
    size_t digits = 0, commas = 0;
    for (const char *c = bal_buf_cstr(&b); *c != '\0'; c++) {
        digits += *c >= '0' && *c <= '9';
        commas += *c == ',';
    }
    if (now ? is_grouped(bal_buf_cstr(&b)) : digits > 0 && digits + commas == b.len)
        BAL_TRY(bal_buf_replace(&b, ",", ""));
    status = bal_buf_text(out, bal_buf_cstr(&b));
out:
    bal_buf_dispose(&b);
    return status;
}

bal_status bal_math_normalize_minerva(const char *text, bal_buf *out)
{
    return normalize(text, false, out);
}

bal_status bal_math_normalize_minerva_31(const char *text, bal_buf *out)
{
    return normalize(text, true, out);
}
