/* The regular expressions are scanned by hand; each comment has the one it stands for.  Where a greedy run has to give
 * back a character, as a backtracking matcher would, it is said.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/answer.h"

#include "lib/text/answer_math.h"
#include "lib/text/math_value.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char k_invalid[] = "[invalid]";

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_number_char(char c)
{
    return is_digit(c) || c == '.' || c == ',';
}

static bool is_money_char(char c)
{
    return is_number_char(c) || c == '$';
}

/* The first match of prefix + (-?[0-9.,]+) + more; the group is put in *at, *n.  more: one further character that is
 * not a line end, for which the run gives one back if it must. */
static bool find_run(const char *text, const char *prefix, bool more, const char **at, size_t *n)
{
    size_t skip = strlen(prefix);
    for (const char *p = strstr(text, prefix); p != NULL; p = strstr(p + 1, prefix)) {
        const char *start = p + skip, *run = *start == '-' ? start + 1 : start, *end = run;
        while (is_number_char(*end))
            end++;
        if (more && end > run && (*end == '\0' || *end == '\n'))
            end--;
        if (end > run) {
            *at = start;
            *n = (size_t)(end - start);
            return true;
        }
    }
    return false;
}

/* (-?[$0-9.,]{2,})|(-?[0-9]+) at p: its length, 0 if it does not match. */
static size_t money_length(const char *p)
{
    const char *run = *p == '-' ? p + 1 : p, *end = run;
    while (is_money_char(*end))
        end++;
    if (end - run >= 2 || (end - run == 1 && is_digit(*run)))
        return (size_t)(end - p);
    return 0;
}

static bal_status put(bal_buf *out, const char *at, size_t n)
{
    return at == NULL ? bal_buf_text(out, k_invalid) : bal_buf_append(out, at, n);
}

bal_status bal_extract_strict(const char *text, bal_buf *out)
{
    const char *at = NULL;
    size_t n = 0;
    bool found = find_run(text, "#### ", false, &at, &n);
    return put(out, found ? at : NULL, n);
}

bal_status bal_extract_cot(const char *text, bal_buf *out)
{
    const char *at = NULL;
    size_t n = 0;
    bool found = find_run(text, "The answer is ", true, &at, &n);
    return put(out, found ? at : NULL, n);
}

bal_status bal_extract_flexible(const char *text, bal_buf *out)
{
    const char *at = NULL;
    size_t n = 0;
    for (const char *p = text; *p != '\0';) {
        size_t length = money_length(p);
        if (length > 0) {
            at = p;
            n = length;
        }
        p += length > 0 ? length : 1;
    }
    return put(out, at, n);
}

bal_status bal_extract_llama(const char *text, bal_buf *out)
{
    static const char prefix[] = "The final answer is ";
    const char *at = NULL;
    size_t n = 0;
    for (const char *p = strstr(text, prefix); p != NULL; p = strstr(p + 1, prefix)) {
        size_t length = money_length(p + sizeof prefix - 1);
        if (length > 0) {
            at = p + sizeof prefix - 1;
            n = length;
        }
    }
    return put(out, at, n);
}

bal_status bal_extract_self_consistency(const char *text, bal_buf *out)
{
    static const char prefix[] = "The answer is ";
    for (const char *p = strstr(text, prefix); p != NULL; p = strstr(p + 1, prefix)) {
        const char *start = p + sizeof prefix - 1, *run = *start == '-' ? start + 1 : start, *end = run;
        while (is_number_char(*end))
            end++;
        while (end > run && !is_digit(end[-1])) /* it has to end with a digit */
            end--;
        if (end > run)
            return put(out, start, (size_t)(end - start));
    }
    return put(out, NULL, 0);
}

/* The first match of [\-+]?\d*[\.,/]?\d+ in text. */
static bool find_metamath(const char *text, const char **at, size_t *n)
{
    for (const char *p = text; *p != '\0'; p++) {
        const char *digits = *p == '-' || *p == '+' ? p + 1 : p, *end = digits;
        while (is_digit(*end))
            end++;
        if ((*end == '.' || *end == ',' || *end == '/') && is_digit(end[1]))
            for (end++; is_digit(*end); end++)
                continue;
        if (end > digits) {
            *at = p;
            *n = (size_t)(end - p);
            return true;
        }
    }
    return false;
}

/* The number without its commas; a text of digits, sign and point only.  NaN if it is none. */
static double read_number(const char *text, size_t n)
{
    char digits[400];
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        if (text[i] == ',')
            continue;
        if (used + 1 >= sizeof digits)
            return (double)INFINITY;
        digits[used++] = text[i];
    }
    digits[used] = '\0';
    char *end = digits;
    double value = strtod(digits, &end);
    return used == 0 || *end != '\0' ? (double)NAN : value;
}

bool bal_extract_metamath(const char *text, double *number, bal_buf *out)
{
    static const char marker[] = "The answer is: ";
    const char *last = NULL, *at = NULL;
    size_t n = 0;
    for (const char *p = strstr(text, marker); p != NULL; p = strstr(p + sizeof marker - 1, marker))
        last = p + sizeof marker - 1;
    if (last == NULL || !find_metamath(last, &at, &n))
        return false;
    const char *slash = memchr(at, '/', n);
    double value;
    if (slash != NULL) {
        size_t left = (size_t)(slash - at), right = n - left - 1;
        double numerator = read_number(at, left), denominator = read_number(slash + 1, right);
        if (left == 0 || (left == 1 && !is_digit(*at)) || isnan(numerator) || isnan(denominator))
            return false;
        if (denominator == 0 && !(right == 1))
            return false; /* "00": Python's Fraction refuses it */
        value = denominator == 0 ? numerator : numerator / denominator;
    } else {
        value = read_number(at, n);
    }
    if (!isfinite(value))
        return false;
    *number = nearbyint(value) + 0.0; /* to nearest, halves to even; + 0.0 makes -0 a 0 */
    return bal_buf_printf(out, "%.0f", *number) == BAL_OK;
}

/* Removes "," and "$", what comes before and with the last "#### ", and one final dot (also before a last line end). */
static bal_status normalise(const char *text, bal_buf *out)
{
    bal_buf kept = {0};
    bal_status status = BAL_OK;
    for (const char *p = text; *p != '\0'; p++)
        if (*p != ',' && *p != '$')
            BAL_TRY(bal_buf_append(&kept, p, 1));
    const char *from = bal_buf_cstr(&kept), *mark;
    while ((mark = strstr(from, "#### ")) != NULL)
        from = mark + 5;
    size_t n = strlen(from);
    bool line_end = n > 0 && from[n - 1] == '\n';
    size_t dot = line_end ? n - 1 : n;
    if (dot > 0 && from[dot - 1] == '.') {
        BAL_TRY(bal_buf_append(out, from, dot - 1));
        if (line_end)
            BAL_TRY(bal_buf_text(out, "\n"));
    } else {
        BAL_TRY(bal_buf_append(out, from, n));
    }
    for (size_t i = 0; i < out->len; i++)
        if (out->data[i] >= 'A' && out->data[i] <= 'Z')
            out->data[i] = (char)(out->data[i] - 'A' + 'a');
out:
    bal_buf_dispose(&kept);
    return status;
}

bal_status bal_gsm8k_match(const char *extracted, const char *gold, bool *equal)
{
    bal_buf a = {0}, b = {0};
    bal_status status;
    BAL_TRY(normalise(extracted, &a));
    BAL_TRY(normalise(gold, &b));
    *equal = strcmp(bal_buf_cstr(&a), bal_buf_cstr(&b)) == 0;
out:
    bal_buf_dispose(&a);
    bal_buf_dispose(&b);
    return status;
}

static bal_status judge_by(bal_status (*extract)(const char *text, bal_buf *out), const char *output, const char *gold,
                           bal_buf *extracted, bal_verdict *verdict)
{
    bool equal = false;
    bal_status status;
    BAL_TRY(extract(output, extracted));
    BAL_TRY(bal_gsm8k_match(bal_buf_cstr(extracted), gold, &equal));
    verdict->score = equal ? 1 : 0;
    verdict->found = strcmp(bal_buf_cstr(extracted), k_invalid) != 0;
out:
    return status;
}

static bal_status judge_strict(const char *output, const char *gold, bal_buf *extracted, bal_verdict *verdict)
{
    return judge_by(bal_extract_strict, output, gold, extracted, verdict);
}

static bal_status judge_flexible(const char *output, const char *gold, bal_buf *extracted, bal_verdict *verdict)
{
    return judge_by(bal_extract_flexible, output, gold, extracted, verdict);
}

static bal_status judge_cot(const char *output, const char *gold, bal_buf *extracted, bal_verdict *verdict)
{
    return judge_by(bal_extract_cot, output, gold, extracted, verdict);
}

static bal_status judge_llama(const char *output, const char *gold, bal_buf *extracted, bal_verdict *verdict)
{
    return judge_by(bal_extract_llama, output, gold, extracted, verdict);
}

/* Right if the rounded number equals the gold number. */
static bal_status judge_metamath(const char *output, const char *gold, bal_buf *extracted, bal_verdict *verdict)
{
    double number = 0;
    const char *bare = gold, *mark;
    while ((mark = strstr(bare, "#### ")) != NULL)
        bare = mark + 5;
    while (*bare == ' ' || *bare == '\n')
        bare++;
    size_t n = strlen(bare);
    while (n > 0 && (bare[n - 1] == ' ' || bare[n - 1] == '\n'))
        n--;
    verdict->found = bal_extract_metamath(output, &number, extracted);
    verdict->score = verdict->found && number == read_number(bare, n) ? 1 : 0;
    return BAL_OK;
}

/* The same, or equal in the sense of math_equal: BA-LoRA's inference scripts of 2024. */
static bal_status judge_balora_2024(const char *output, const char *gold, bal_buf *extracted, bal_verdict *verdict)
{
    bal_status status = judge_metamath(output, gold, extracted, verdict);
    bool equal = false;
    const char *bare = strstr(gold, "#### ") == NULL ? gold : strstr(gold, "#### ") + 5;
    if (status != BAL_OK || !verdict->found || verdict->score == 1)
        return status;
    status = bal_math_equal_balora(bal_buf_cstr(extracted), bare, &equal);
    verdict->score = equal ? 1 : 0;
    return status;
}

static bal_status judge_self_consistency(const char *output, const char *gold, bal_buf *extracted, bal_verdict *verdict)
{
    return judge_by(bal_extract_self_consistency, output, gold, extracted, verdict);
}

static const bal_filter k_gsm8k_balora_2024[] = {{"none", judge_balora_2024}};
static const bal_filter k_gsm8k_self_consistency[] = {{"score-first", judge_self_consistency}};
static const bal_filter k_gsm8k[] = {{"strict-match", judge_strict}, {"flexible-extract", judge_flexible}};
static const bal_filter k_gsm8k_cot[] = {{"strict-match", judge_cot}, {"flexible-extract", judge_flexible}};
static const bal_filter k_gsm8k_llama[] = {{"strict-match", judge_llama}, {"flexible-extract", judge_flexible}};
static const bal_filter k_gsm8k_pissa[] = {{"none", judge_metamath}};

static const bal_scorer k_scorers[] = {
    {"gsm8k", k_gsm8k, 2},
    {"gsm8k_cot", k_gsm8k_cot, 2},
    {"gsm8k_cot_zeroshot", k_gsm8k_cot, 2},
    {"gsm8k_cot_llama", k_gsm8k_llama, 2},
    {"gsm8k_pissa", k_gsm8k_pissa, 1},
    {"gsm8k_metamath", k_gsm8k_pissa, 1},
    {"gsm8k_balora", k_gsm8k_pissa, 1},
    {"gsm8k_balora_2024", k_gsm8k_balora_2024, 1},
    {"gsm8k_cot_self_consistency", k_gsm8k_self_consistency, 1},
    {"math_hendrycks", &bal_filter_math_hendrycks, 1},
    {"math_pissa", &bal_filter_math_pissa, 1},
    {"math_numeric", &bal_filter_math_numeric, 1},
    {"math_minerva", bal_filter_math_minerva, 2},
};
enum { N_SCORERS = sizeof k_scorers / sizeof k_scorers[0] };

const bal_scorer *bal_scorer_find(const char *name)
{
    for (size_t i = 0; i < N_SCORERS; i++)
        if (strcmp(k_scorers[i].name, name) == 0)
            return &k_scorers[i];
    return NULL;
}

const char *const *bal_scorer_names(size_t *n)
{
    static const char *names[N_SCORERS];
    for (size_t i = 0; i < N_SCORERS; i++)
        names[i] = k_scorers[i].name;
    *n = N_SCORERS;
    return names;
}
