/* HumanEval and MBPP: rules against the reference vectors, pass@k, and a few problems of each set; all of them with
 * BALORA_SLOW=1.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/code.h"
#include "lib/base/mem.h"
#include "lib/base/threads.h"
#include "lib/io/jsonl.h"
#include "lib/stats/pass_at_k.h"
#include "tests/test.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bal_status rule_lm_stops(const char *text, size_t n, bal_buf *out)
{
    return code_cut(text, n, code_task_find("humaneval")->stops, out);
}

static void keeps(code_rule *rule, const char *text, const char *want, const char *what)
{
    bal_buf out = {0};
    CHECK_OK(rule(text, strlen(text), &out));
    CHECK_MSG(strcmp(bal_buf_cstr(&out), want) == 0, "%s: \"%s\", not \"%s\"", what, bal_buf_cstr(&out), want);
    bal_buf_dispose(&out);
}

TEST(rules)
{
    keeps(code_rule_pissa, "a```python\nx=1\n```\nassert", "x=1", "a block");
    keeps(code_rule_pissa, "```python\nx\n```python\ny\n```", "x\n\ny", "two openings");
    keeps(code_rule_pissa, "x\r\ny # Example usage\nz", "x\ny", "an example");
    keeps(code_rule_pissa, " x \n", " x \n", "nothing to cut");
    keeps(code_rule_balora, "  def f():\n\n      \"\"\"doc\n\"\"\"\n      if 1:\n       return '''x''' 2\n",
          "def f():\n    if 1:\n        return  2", "levels");
    keeps(code_rule_balora, "'''a\"\"\"b''' c \"\"\"d", "    c \"\"\"d", "quotes of both kinds");
    keeps(code_rule_balora, "", "", "nothing");
    keeps(code_rule_before_fence, "a\n```b", "a\n", "a fence");
    keeps(code_rule_block, "python\nx\n\n```y```", "x\n", "a block that goes on");
    keeps(code_rule_block, "python\n```", "", "an empty block");
    keeps(code_rule_block, "no end", "", "no end");
    keeps(rule_lm_stops, "a\n#\ndef", "a", "the earliest stop");
    CHECK(code_task_find("humaneval_nothing") == NULL);
}

TEST(rules_vectors)
{
    static const struct {
        const char *key;
        code_rule *rule;
    } columns[] = {{"pissa_code_process", code_rule_pissa},
                   {"balora_humaneval_post", code_rule_balora},
                   {"lm_eval_mbpp_instruct", code_rule_block},
                   {"lm_eval_humaneval_instruct", code_rule_before_fence},
                   {"lm_eval_humaneval_stops", rule_lm_stops}};
    const char *path = test_shared("vectors/code_postprocess.jsonl");
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    size_t n = 0;
    if (path == NULL)
        SKIP("../shared is not there");
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        for (size_t c = 0; c < sizeof columns / sizeof columns[0]; c++) {
            const cJSON *want = bal_json_member(line, columns[c].key);
            if (cJSON_IsString(want) && strncmp(want->valuestring, "EXC:", 4) != 0)
                keeps(columns[c].rule, bal_json_member(line, "text")->valuestring, want->valuestring, columns[c].key);
        }
        n++;
        cJSON_Delete(line);
    }
    CHECK(n >= 10);
    bal_lines_close(lines);
}

TEST(pass_at_k)
{
    CHECK_NEAR(bal_pass_at_k(5, 2, 1), 0.4, 1e-15);
    CHECK_NEAR(bal_pass_at_k(5, 2, 2), 0.7, 1e-15); /* 1 - 3/10 */
    CHECK_NEAR(bal_pass_at_k(4, 1, 4), 1, 0);
    CHECK_NEAR(bal_pass_at_k(100000, 0, 50), 0, 0);
    CHECK(isnan(bal_pass_at_k(3, 4, 1)) && isnan(bal_pass_at_k(3, 1, 4)) && isnan(bal_pass_at_k(3, 1, 0)));
}

TEST(pass_at_k_vectors)
{
    const char *path = test_shared("vectors/pass_at_k.jsonl");
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    size_t rows = 0;
    if (path == NULL)
        SKIP("../shared is not there");
    if (!CHECK_OK(bal_lines_open(&lines, path)))
        return;
    while (CHECK_OK(bal_jsonl_next(lines, &line)) && line != NULL) {
        const cJSON *n = bal_json_member(line, "n_list"), *c = bal_json_member(line, "c_list");
        size_t k = (size_t)bal_json_member(line, "k")->valuedouble;
        double sum = 0;
        int count = n != NULL ? cJSON_GetArraySize(n) : 1;
        for (int i = 0; i < count; i++)
            sum += bal_pass_at_k(
                (size_t)(n != NULL ? cJSON_GetArrayItem(n, i) : bal_json_member(line, "n"))->valuedouble,
                (size_t)(c != NULL ? cJSON_GetArrayItem(c, i) : bal_json_member(line, "c"))->valuedouble, k);
        CHECK_NEAR(sum / count, bal_json_member(line, "value")->valuedouble, 1e-12);
        rows++;
        cJSON_Delete(line);
    }
    CHECK(rows >= 10);
    bal_lines_close(lines);
}

/* Judges the published solutions of a set, every step-th; `never`: problems that cannot pass, -1 at the end. */
static void published(const char *task, const char *key, const int *never, size_t step)
{
    const code_task *t = code_task_find(task);
    code_problems p = {0};
    static sandbox_job jobs[2000];
    static sandbox_result results[2000];
    static const cJSON *rows[2000];
    static char why[600];
    size_t n = 0;
    sandbox *s = NULL;
    const sandbox_limits limits = {.cpu_seconds = 3, .wall_seconds = 60}; /* the machine may be crowded */
    const char *data = test_shared("data");
    if (data == NULL)
        SKIP("../shared is not there");
    bal_status status = sandbox_open(&s, NULL, &limits);
    if (status == BAL_EUNSUPPORTED) {
        (void)snprintf(why, sizeof why, "%.500s", bal_error_message());
        SKIP(why);
    }
    if (!CHECK_OK(status) || !CHECK_OK(code_problems_read(&p, t, data)))
        return;
    (void)bal_threads_start(2);
    for (size_t i = 0; i < p.n && n < 2000; i += step) {
        bal_buf program = {0}, checks = {0};
        const char *text = bal_json_member(p.rows[i], key)->valuestring;
        CHECK_OK(code_program(t, p.rows[i], task, text, strlen(text), &program, &checks));
        rows[n] = p.rows[i];
        jobs[n++] = (sandbox_job){program.data, checks.data, program.len, checks.len};
    }
    CHECK(n > 5);
    CHECK_OK(sandbox_run(s, jobs, n, results, NULL, NULL));
    for (size_t i = 0; i < n; i++) {
        const cJSON *id = bal_json_member(rows[i], "task_id");
        bool excused = false;
        for (size_t k = 0; never[k] >= 0; k++)
            excused = excused || (cJSON_IsNumber(id) && id->valueint == never[k]);
        CHECK_MSG(results[i].verdict == SANDBOX_PASSED || excused, "%s %s%d: %s", task,
                  cJSON_IsString(id) ? id->valuestring : "", id->valueint, results[i].message);
        bal_free((char *)(uintptr_t)jobs[i].program);
        bal_free((char *)(uintptr_t)jobs[i].checks);
    }
    code_problems_dispose(&p);
    sandbox_close(s);
    bal_threads_stop();
}

static size_t step_of(size_t step)
{
    return getenv("BALORA_SLOW") != NULL ? 1 : step;
}

TEST(humaneval_solutions)
{
    static const int never[] = {-1};
    published("humaneval", "canonical_solution", never, step_of(12));
}

/* 367 and 927 need the setup code, which is not run; 123 may take longer than its 3 seconds. */
TEST(mbpp_solutions)
{
    static const int never[] = {123, 367, 927, -1};
    published("mbpp", "code", never, step_of(80));
}

TEST(mbpp_sanitized_solutions)
{
    static const int never[] = {123, -1};
    published("mbpp_sanitized", "code", never, step_of(40));
}
