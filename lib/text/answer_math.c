/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/answer_math.h"

#include "lib/text/math_text.h"
#include "lib/text/math_value.h"

#include <string.h>

/* The right answer: what is boxed in a solution, or the text itself. */
static bal_status bare_gold(const char *gold, bal_buf *out)
{
    bal_buf boxed = {0};
    bool found = false;
    bal_status status;
    if (strstr(gold, "\\boxed") == NULL && strstr(gold, "\\fbox") == NULL)
        return bal_buf_text(out, gold);
    BAL_TRY(bal_math_last_boxed(gold, true, &boxed, &found));
    if (found)
        BAL_TRY(bal_math_remove_boxed(bal_buf_cstr(&boxed), true, out, &found));
    if (!found)
        status = bal_buf_text(out, gold);
out:
    bal_buf_dispose(&boxed);
    return status;
}

static bal_status judge_hendrycks(const char *output, const char *gold, bal_buf *extracted, bal_verdict *v)
{
    bal_buf right = {0};
    bool equal = false;
    bal_status status;
    BAL_TRY(bare_gold(gold, &right));
    BAL_TRY(bal_math_extract_hendrycks(output, extracted));
    BAL_TRY(bal_math_equal_text(bal_buf_cstr(extracted), bal_buf_cstr(&right), BAL_MATH_LM_EVAL, &equal));
    v->found = extracted->len > 0;
    v->score = equal ? 1 : 0;
out:
    bal_buf_dispose(&right);
    return status;
}

static bal_status judge_pissa(const char *output, const char *gold, bal_buf *extracted, bal_verdict *v)
{
    bal_buf right = {0};
    bool equal = false;
    bal_status status;
    BAL_TRY(bare_gold(gold, &right));
    BAL_TRY(bal_math_extract_pissa(output, extracted, &v->found));
    if (v->found)
        BAL_TRY(bal_math_equal_text(bal_buf_cstr(extracted), bal_buf_cstr(&right), BAL_MATH_LM_EVAL, &equal));
    v->score = equal ? 1 : 0;
out:
    bal_buf_dispose(&right);
    return status;
}

static bal_status compare_minerva(bal_status (*normalize)(const char *text, bal_buf *out), const char *output,
                                  const char *gold, bal_buf *extracted, bal_verdict *v)
{
    bal_buf right = {0}, raw = {0}, normal = {0};
    bal_status status;
    BAL_TRY(bare_gold(gold, &right));
    BAL_TRY(normalize(bal_buf_cstr(&right), &normal));
    BAL_TRY(bal_math_extract_minerva(output, &raw));
    BAL_TRY(normalize(bal_buf_cstr(&raw), extracted));
    v->found = strcmp(bal_buf_cstr(&raw), "[invalidanswer]") != 0;
    v->score = v->found && strcmp(bal_buf_cstr(extracted), bal_buf_cstr(&normal)) == 0 ? 1 : 0;
out:
    bal_buf_dispose(&right);
    bal_buf_dispose(&raw);
    bal_buf_dispose(&normal);
    return status;
}

static bal_status judge_minerva(const char *output, const char *gold, bal_buf *extracted, bal_verdict *v)
{
    return compare_minerva(bal_math_normalize_minerva, output, gold, extracted, v);
}

static bal_status judge_minerva_31(const char *output, const char *gold, bal_buf *extracted, bal_verdict *v)
{
    return compare_minerva(bal_math_normalize_minerva_31, output, gold, extracted, v);
}

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* text[0..n) without white space, colons, stars and full stops around it. */
static bal_status put_trimmed(const char *text, size_t n, bal_buf *out, bool *found)
{
    while (n > 0 && (is_space(*text) || *text == ':' || *text == '*')) {
        text++;
        n--;
    }
    while (n > 0 && (is_space(text[n - 1]) || text[n - 1] == '.' || text[n - 1] == '*'))
        n--;
    *found = n > 0;
    return bal_buf_append(out, text, n);
}

bal_status bal_math_extract_numeric(const char *output, bal_buf *out, bool *found)
{
    static const char *const phrases[] = {"answer is", "Answer:", "answer:"};
    bal_buf boxed = {0};
    const char *at = NULL;
    bal_status status;
    BAL_TRY(bal_math_last_boxed(output, true, &boxed, found));
    if (*found)
        BAL_TRY(bal_math_remove_boxed(bal_buf_cstr(&boxed), true, out, found));
    if (*found)
        goto out;
    for (size_t i = 0; i < sizeof phrases / sizeof phrases[0]; i++)
        for (const char *p = strstr(output, phrases[i]); p != NULL; p = strstr(p + 1, phrases[i]))
            if (at == NULL || p + strlen(phrases[i]) > at)
                at = p + strlen(phrases[i]);
    if (at != NULL) {
        while (is_space(*at) || *at == ':' || *at == '*')
            at++;
        const char *close = *at == '$' ? strchr(at + 1, '$') : NULL, *stop = strstr(at, ". ");
        size_t n = close != NULL ? (size_t)(close - at) + 1 : strcspn(at, "\n");
        if (close == NULL && stop != NULL && (size_t)(stop - at) < n)
            n = (size_t)(stop - at);
        status = put_trimmed(at, n, out, found);
        goto out;
    }
    const char *last = strrchr(output, '$'), *open = NULL;
    for (const char *p = output; last != NULL && p < last; p++)
        if (*p == '$')
            open = p;
    if (open != NULL) {
        status = put_trimmed(open + 1, (size_t)(last - open) - 1, out, found);
        goto out;
    }
    size_t n = strlen(output);
    while (n > 0 && is_space(output[n - 1]))
        n--;
    size_t from = n;
    while (from > 0 && output[from - 1] != '\n')
        from--;
    status = put_trimmed(output + from, n - from, out, found);
out:
    bal_buf_dispose(&boxed);
    return status;
}

static bal_status judge_numeric(const char *output, const char *gold, bal_buf *extracted, bal_verdict *v)
{
    bal_buf right = {0};
    bool equal = false;
    bal_status status;
    BAL_TRY(bare_gold(gold, &right));
    BAL_TRY(bal_math_extract_numeric(output, extracted, &v->found));
    if (v->found)
        BAL_TRY(bal_math_equal_value(bal_buf_cstr(extracted), bal_buf_cstr(&right), &equal));
    v->score = equal ? 1 : 0;
out:
    bal_buf_dispose(&right);
    return status;
}

const bal_filter bal_filter_math_hendrycks = {"none", judge_hendrycks};
const bal_filter bal_filter_math_pissa = {"none", judge_pissa};
const bal_filter bal_filter_math_minerva[2] = {{"none", judge_minerva}, {"v3.1", judge_minerva_31}};
const bal_filter bal_filter_math_numeric = {"none", judge_numeric};
