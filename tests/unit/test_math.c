/* Answers of MATH against the reference vectors: every column that needs no computer algebra.  Out of scope:
 * minerva_sympy, minerva_exact and math_verify need sympy; math_equal_with_antlr needs sympy's reader of LaTeX.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/str.h"
#include "lib/io/jsonl.h"
#include "lib/text/answer.h"
#include "lib/text/answer_math.h"
#include "lib/text/math_text.h"
#include "lib/text/math_value.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *member(const cJSON *line, const char *key)
{
    const cJSON *v = bal_json_member(line, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static bool truth(const cJSON *line, const char *key)
{
    const cJSON *v = bal_json_member(line, key);
    CHECK_MSG(cJSON_IsBool(v) || cJSON_IsNumber(v), "column %s is missing", key);
    return cJSON_IsTrue(v) || (cJSON_IsNumber(v) && v->valuedouble != 0);
}

/* Runs check over the lines of a vector file; false: it is not there. */
static bool each(const char *name, void (*check)(const cJSON *line))
{
    const char *path = test_shared(name);
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    size_t n = 0;
    if (path == NULL)
        return false;
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return true;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        check(line);
        cJSON_Delete(line);
        n++;
    }
    bal_lines_close(lines);
    CHECK(n > 0);
    return true;
}

/* want: the text, NULL or "EXC:..." where the reference raises. */
static void strips(const char *input, bal_math_form form, const char *want)
{
    bal_buf out = {0};
    bool raised = false;
    CHECK_OK(bal_math_strip(input, form, &out, &raised));
    if (want == NULL || strncmp(want, "EXC:", 4) == 0)
        CHECK_MSG(raised, "'%s' does not raise but gives '%s'", input, bal_buf_cstr(&out));
    else if (CHECK_MSG(!raised, "'%s' raises", input))
        CHECK_TEXT(bal_buf_cstr(&out), want);
    bal_buf_dispose(&out);
}

static void check_strip(const cJSON *line)
{
    strips(member(line, "input"), BAL_MATH_LM_EVAL, member(line, "lm_eval"));
    strips(member(line, "input"), BAL_MATH_HENDRYCKS, member(line, "hendrycks_orig"));
}

TEST(strip)
{
    if (!each("vectors/math_strip.jsonl", check_strip))
        SKIP("../shared is not there");
}

static void boxed(const char *text, bool lm_eval, const char *want_box, const char *want_inside)
{
    bal_buf box = {0}, inside = {0};
    bool found = false;
    CHECK_OK(bal_math_last_boxed(text, lm_eval, &box, &found));
    CHECK(found == (want_box != NULL));
    if (want_box != NULL)
        CHECK_TEXT(bal_buf_cstr(&box), want_box);
    if (found)
        CHECK_OK(bal_math_remove_boxed(bal_buf_cstr(&box), lm_eval, &inside, &found));
    bool none = want_inside == NULL || strncmp(want_inside, "EXC:", 4) == 0;
    CHECK_MSG(found != none, "'%s': %s", text, bal_buf_cstr(&inside));
    if (!none)
        CHECK_TEXT(bal_buf_cstr(&inside), want_inside);
    bal_buf_dispose(&box);
    bal_buf_dispose(&inside);
}

static void check_boxed(const cJSON *line)
{
    boxed(member(line, "text"), true, member(line, "lm_eval_last_boxed"), member(line, "lm_eval_remove_boxed"));
    boxed(member(line, "text"), false, member(line, "metamath_last_boxed"), member(line, "metamath_remove_boxed"));
}

TEST(boxes)
{
    if (!each("vectors/math_boxed.jsonl", check_boxed))
        SKIP("../shared is not there");
}

static bool equal_text(const char *a, const char *b, bal_math_form form)
{
    bool equal = false;
    CHECK_OK(bal_math_equal_text(a, b, form, &equal));
    return equal;
}

static void normalizes(const char *input, const char *want)
{
    bal_buf out = {0};
    CHECK_OK(bal_math_normalize_minerva(input, &out));
    CHECK_TEXT(bal_buf_cstr(&out), want);
    bal_buf_dispose(&out);
}

static void check_equiv(const cJSON *line)
{
    const char *pred = member(line, "pred"), *gold = member(line, "gold");
    if (pred == NULL || gold == NULL) /* None against a text: the comparison is of the caller */
        return;
    CHECK_MSG(equal_text(pred, gold, BAL_MATH_HENDRYCKS) == truth(line, "hendrycks_orig"), "%s | %s", pred, gold);
    CHECK_MSG(equal_text(pred, gold, BAL_MATH_LM_EVAL) == truth(line, "lm_eval_hendrycks"), "%s | %s", pred, gold);
    CHECK_MSG(equal_text(pred, gold, BAL_MATH_LM_EVAL) == truth(line, "metamath_util"), "%s | %s", pred, gold);
    strips(pred, BAL_MATH_LM_EVAL, member(line, "strip_pred"));
    strips(gold, BAL_MATH_LM_EVAL, member(line, "strip_gold"));
    normalizes(pred, member(line, "minerva_norm_pred"));
    normalizes(gold, member(line, "minerva_norm_gold"));
}

TEST(equivalence)
{
    if (!each("vectors/math_equiv.jsonl", check_equiv))
        SKIP("../shared is not there");
}

static void check_minerva(const cJSON *line)
{
    normalizes(member(line, "input"), member(line, "normalized"));
}

TEST(minerva)
{
    if (!each("vectors/minerva_normalize.jsonl", check_minerva))
        SKIP("../shared is not there");
}

static double judged(const char *scorer, const char *output, const char *gold)
{
    bal_buf out = {0};
    bal_verdict v = {0};
    const bal_scorer *s = bal_scorer_find(scorer);
    if (!CHECK(s != NULL && s->n_filters == 1))
        return -1;
    CHECK_OK(s->filters[0].judge(output, gold, &out, &v));
    bal_buf_dispose(&out);
    return v.score;
}

static void check_extract(const cJSON *line)
{
    const char *completion = member(line, "completion"), *gold = member(line, "gold");
    bal_buf out = {0};
    CHECK_MSG((judged("math_pissa", completion, gold) == 1) == truth(line, "pissa_correct"), "pissa: %s", completion);
    CHECK_MSG((judged("math_hendrycks", completion, gold) == 1) == truth(line, "lm_eval_hendrycks"), "lm-eval: %s",
              completion);
    CHECK_OK(bal_math_extract_minerva(completion, &out));
    CHECK_TEXT(bal_buf_cstr(&out), member(line, "minerva_raw"));
    bal_buf_dispose(&out);
}

TEST(extraction)
{
    if (!each("vectors/math_extract.jsonl", check_extract))
        SKIP("../shared is not there");
}

/* Numbers of the file as Python's str() writes them. */
static void as_text(const cJSON *line, const char *key, char out[64])
{
    const cJSON *v = bal_json_member(line, key);
    if (cJSON_IsNumber(v))
        (void)snprintf(out, 64, "%.15g", v->valuedouble);
    else
        (void)snprintf(out, 64, "%s", cJSON_IsString(v) ? v->valuestring : "");
}

static void check_balora(const cJSON *line)
{
    char pred[64], ref[64];
    bool equal = false;
    as_text(line, "pred", pred);
    as_text(line, "ref", ref);
    CHECK_OK(bal_math_equal_balora(pred, ref, &equal));
    CHECK_MSG(equal == truth(line, "math_equal_no_antlr"), "%s | %s: %d", pred, ref, equal);
}

TEST(math_equal)
{
    bool equal = true;
    CHECK_OK(bal_math_equal_balora("[1,2]", "[3,2]", &equal)); /* the first part counts, too */
    CHECK(!equal);
    if (!each("vectors/balora_math_equal.jsonl", check_balora))
        SKIP("../shared is not there");
}

static bool equal_value(const char *a, const char *b)
{
    bool x = false, y = false;
    CHECK_OK(bal_math_equal_value(a, b, &x));
    CHECK_OK(bal_math_equal_value(b, a, &y));
    CHECK_MSG(x == y, "'%s' and '%s': not the same both ways", a, b);
    return x;
}

TEST(by_value)
{
    static const char *const same[][2] = {
        {"\\frac{1}{2}", "0.5"},
        {"\\frac12", "\\dfrac{2}{4}"},
        {"1\\frac{1}{2}", "3/2"},
        {"\\sqrt{8}", "2\\sqrt2"},
        {"\\frac{1}{\\sqrt{2}}", "\\frac{\\sqrt{2}}{2}"},
        {"(x+1)^2", "x^2+2x+1"},
        {"\\left(1,\\frac{1}{2}\\right)", "(1, 0.5)"},
        {"[2,5)", "\\left[2,5\\right)"},
        {"\\{1,2,3\\}", "\\{3, 1, 2\\}"},
        {"1,-2", "-2, 1"},
        {"1 \\pm \\sqrt{5}", "1-\\sqrt5, 1+\\sqrt5"},
        {"x=5", "5"},
        {"10,080", "10080"},
        {"5\\text{ cm}", "5"},
        {"90^\\circ", "90"},
        {"\\$18.90", "18.9"},
        {"3\\pi", "\\pi \\cdot 3"},
        {"2^{10}", "1024"},
        {"\\log_2 8", "3"},
        {"\\sin \\frac{\\pi}{6}", "\\frac12"},
        {"3!", "6"},
        {"\\binom{5}{2}", "10"},
        {"(-\\infty,2)\\cup(3,4)", "(3,4)\\cup(-\\infty,2)"},
        {"\\begin{pmatrix} 1 & 0.5 \\\\ 2 & 3 \\end{pmatrix}", "\\begin{pmatrix}1&\\frac12\\\\2&3\\end{pmatrix}"},
        {"\\text{Evelyn}", "evelyn"},
        {"|-3|", "3"},
        {"6 - 5i", "6-5i"},
        {"-\\frac{2}{3}", "\\frac{-2}{3}"},
        {"x^{-1}", "\\frac1x"},
        {"\\sqrt[3]{27}", "3"},
        {"11\\sqrt2", "\\sqrt{242}"},
        {"\\frac{1}{2}-\\frac{1}{3}", "\\frac{1}{6}"},
        {"2^{-1}", "0.5"},
        {"\\frac{10}{2}\\text{cm}", "5"}};
    static const char *const differ[][2] = {{"1/3", "0.3333"},
                                            {"(1,2)", "[1,2]"},
                                            {"(1,2)", "(2,1)"},
                                            {"x", "y"},
                                            {"2", "-2"},
                                            {"\\frac{1}{2}", "\\frac{2}{1}"},
                                            {"1011_2", "1011"},
                                            {"x^2", "2x"},
                                            {"", "0"},
                                            {"1,2", "1,2,3"},
                                            {"\\{1,1\\}", "\\{1,2\\}"},
                                            {"east", "west"},
                                            {"\\sqrt{2}", "1.41"},
                                            {"(2,3]", "(2,3)"},
                                            {"1/2", "1/3"},
                                            {"\\frac{0}{0}", "1"},
                                            {"\\frac{1}{0}", "\\frac{2}{0}"}};
    for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
        CHECK_MSG(equal_value(same[i][0], same[i][1]), "'%s' and '%s' are the same", same[i][0], same[i][1]);
    for (size_t i = 0; i < sizeof differ / sizeof differ[0]; i++)
        CHECK_MSG(!equal_value(differ[i][0], differ[i][1]), "'%s' and '%s' are not the same", differ[i][0],
                  differ[i][1]);
    CHECK(judged("math_numeric", "So the answer is $\\frac{2}{4}$.", "0.5") == 1);
    CHECK(judged("math_numeric", "thus \\[ \\boxed{\\frac{2}{4}} \\]", "we get \\boxed{0.5}.") == 1);
    CHECK(judged("math_numeric", "x $1$ and $7$ dogs", "7") == 1);
    CHECK(judged("math_numeric", "no idea\n12", "12") == 1);
    CHECK(judged("math_numeric", "", "12") == 0);
}

/* Deep and broken texts end, without a value. */
TEST(hostile)
{
    static char deep[20000];
    bal_math_value v;
    const char *const broken[] = {"(",
                                  "\\frac",
                                  "\\frac{1}",
                                  "\\sqrt",
                                  "^",
                                  "1^",
                                  "((1)",
                                  "|",
                                  "\\",
                                  "_",
                                  "x_",
                                  "1__2",
                                  "9999999999999999999999!",
                                  "1/0",
                                  "\\log_",
                                  "\\binom{1}",
                                  "2^{2^{2^{2^{2^{2}}}}}"};
    memset(deep, '(', sizeof deep - 1);
    CHECK(!bal_math_evaluate(deep, BAL_MATH_LATEX, 0, &v));
    memset(deep, '-', sizeof deep - 1);
    CHECK(!bal_math_evaluate(deep, BAL_MATH_LATEX, 0, &v));
    CHECK(!equal_value(deep, "1"));
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
        CHECK_MSG(!bal_math_evaluate(broken[i], BAL_MATH_LATEX, 0, &v), "%s", broken[i]);
}

/* Every gold answer of the test set equals itself, and what its solution boxes. */
TEST(golds)
{
    const char *path = test_shared("data/math/MATH_test.jsonl");
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    size_t n = 0, read = 0, pissa = 0, other = 0;
    if (path == NULL)
        SKIP("../shared holds no MATH");
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        const char *gold = member(line, "answer"), *solution = member(line, "solution");
        bal_math_value v;
        bal_buf output = {0};
        n++;
        read += bal_math_evaluate(gold, BAL_MATH_LATEX, 0, &v);
        CHECK_MSG(equal_value(gold, gold), "%s", gold);
        other += judged("math_numeric", solution, gold) != 1;
        CHECK_OK(bal_buf_printf(&output, "The answer is: %s", gold));
        pissa += judged("math_pissa", bal_buf_cstr(&output), gold) != 1;
        bal_buf_dispose(&output);
        cJSON_Delete(line);
    }
    bal_lines_close(lines);
    CHECK(n == 5000);
    CHECK_MSG(other == 1, "%zu golds are not what is boxed last", other); /* a box of another kind, around a 12 */
    CHECK_MSG(pissa == 1, "%zu golds are refused by math_pissa", pissa);  /* one ends in a full stop */
    CHECK_MSG(read >= 4100, "only %zu of %zu golds are read as values", read, n);
}

/* Values of lm-evaluation-harness 0.4.13, whose minerva_math is 3.1. */
TEST(minerva_31)
{
    static const char *const cases[][2] = {
        {"\\left[2, 5\\right)", "\\left[2,5\\right)"},
        {"(-\\infty, 3)", "(-\\infty,3)"},
        {"2\\pi cm", "2\\pi"},
        {"\\pi cmx", "\\picmx"},
        {"12 ft", "12"},
        {"12ft", "12"},
        {"\\sqrt[3]2", "\\sqrt[3]{2}"},
        {"\\sqrt[3]{8}", "\\sqrt[3]{8}"},
        {"\\sqrt2", "\\sqrt{2}"},
        {"0,1", "0,1"},
        {"1,000", "1000"},
        {"12,345,678", "12345678"},
        {"1234,567", "1234,567"},
        {"-1,000", "-1000"},
        {"1,00", "1,00"},
        {"\\frac12", "\\frac{1}{2}"},
        {"x = 5 \\text{ square units}", "5"},
        {"3 ways", "3"},
        {"always 3", "al3"},
        {"\\cm 3", "\\cm3"},
        {"10\\text{m}^2", "10"},
        {"\\mbox{10 students}", "10"},
        {"5^\\circ", "5"},
        {"$\\boxed{7}$", "7"},
        {"a 2 an 3", "23"},
        {"\\textbf{4} degrees", "4"},
    };
    bal_buf out = {0};
    bal_verdict v = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bal_buf_clear(&out);
        CHECK_OK(bal_math_normalize_minerva_31(cases[i][0], &out));
        CHECK_TEXT(bal_buf_cstr(&out), cases[i][1]);
    }
    const bal_scorer *s = bal_scorer_find("math_minerva");
    static const char answer[] = "Final Answer: The final answer is $0,1$. I hope it is correct.";
    bool both = s != NULL && s->n_filters == 2;
    if (CHECK(both)) { /* 3.0 makes the number 01 of the pair */
        bal_buf_clear(&out);
        CHECK_OK(s->filters[0].judge(answer, "\\boxed{01}", &out, &v));
        CHECK(v.score == 1);
        bal_buf_clear(&out);
        CHECK_OK(s->filters[1].judge(answer, "\\boxed{01}", &out, &v));
        CHECK(v.score == 0);
        CHECK_TEXT(s->filters[1].name, "v3.1");
    }
    bal_buf_dispose(&out);
}
