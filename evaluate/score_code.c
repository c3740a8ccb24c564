/* Programs judged in the sandbox: HumanEval and MBPP.  The key "program" of the task file names the harness's rule
 * (code.h).  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/code.h"
#include "evaluate/scorer.h"
#include "lib/base/mem.h"
#include "lib/stats/pass_at_k.h"

#include <stdio.h>
#include <string.h>

typedef struct code_state {
    const code_task *how;
    sandbox *box; /* opened when it is first needed */
} code_state;

static bal_status code_prepare(task *t)
{
    const char *name = NULL, *names[64];
    size_t n = 0;
    bool found = false;
    bal_status status = bal_json_text(t->json, t->name, "program", &name, &found);
    if (status != BAL_OK)
        return status;
    if (!found)
        return bal_fail(BAL_EFORMAT, "%s: key 'program' is missing: it names the rule (humaneval, mbpp ...)", t->name);
    const code_task *how = code_task_find(name);
    if (how == NULL) {
        for (size_t i = 0; code_task_name(i) != NULL && n < 64; i++)
            names[n++] = code_task_name(i);
        const char *near = bal_nearest(name, names, n);
        return bal_fail(BAL_EFORMAT, "%s: key 'program': '%.60s' is not known%s%s%s", t->name, name,
                        near != NULL ? "; did you mean '" : "", near != NULL ? near : "", near != NULL ? "'?" : "");
    }
    code_state *s = bal_alloc(1, sizeof *s);
    if (s == NULL)
        return BAL_ENOMEM;
    s->how = how;
    t->state = s;
    return BAL_OK;
}

static void code_dispose(task *t)
{
    code_state *s = t->state;
    if (s != NULL)
        sandbox_close(s->box);
    bal_free(s);
    t->state = NULL;
}

static bool code_available(const task *t, char *why, size_t n_why)
{
    code_state *s = t->state;
    if (s->box != NULL || sandbox_open(&s->box, NULL, NULL) == BAL_OK)
        return true;
    (void)snprintf(why, n_why, "%.500s", bal_error_message());
    return false;
}

static const char *code_filter(const task *t, size_t f)
{
    const code_state *s = t->state;
    return f > 0 ? NULL : s->how->with_prompt ? "create_test" : "none";
}

static bal_status code_judge_late(const task *t, size_t f, late_item *items, size_t n)
{
    code_state *s = t->state;
    sandbox_job *jobs = bal_alloc(n, sizeof *jobs);
    sandbox_result *results = bal_alloc(n, sizeof *results);
    bal_status status = BAL_ENOMEM;
    (void)f;
    if (jobs == NULL || results == NULL)
        goto out;
    status = s->box != NULL ? BAL_OK : sandbox_open(&s->box, NULL, NULL);
    if (status != BAL_OK) {
        status = bal_fail_note(status, "task '%s' is not judged", t->name);
        goto out;
    }
    for (size_t i = 0; i < n; i++) {
        bal_buf program = {0}, checks = {0};
        status = code_program(s->how, t->test.items[items[i].item], t->name, items[i].output, strlen(items[i].output),
                              &program, &checks);
        jobs[i] = (sandbox_job){program.data, checks.data, program.len, checks.len};
        if (status != BAL_OK)
            goto out;
    }
    BAL_TRY(sandbox_run(s->box, jobs, n, results, NULL, NULL));
    for (size_t i = 0; i < n; i++) {
        bool passed = results[i].verdict == SANDBOX_PASSED;
        items[i].verdict = (bal_verdict){passed ? 1 : 0, true};
        BAL_TRY(bal_buf_printf(&items[i].extracted, "%s%s%s", sandbox_verdict_name(results[i].verdict),
                               passed ? "" : ": ", results[i].message));
    }
out:
    for (size_t i = 0; jobs != NULL && i < n; i++) {
        bal_free((char *)(uintptr_t)jobs[i].program);
        bal_free((char *)(uintptr_t)jobs[i].checks);
    }
    bal_free(jobs);
    bal_free(results);
    return status;
}

/* pass@k for the k of human-eval's usual list that every item has answers for. */
static bal_status code_measure(const task *t, size_t f, const record *r, size_t n, metric_list *out)
{
    static const size_t ks[] = {1, 2, 4, 5, 8, 10, 16, 32, 64, 100};
    const code_state *s = t->state;
    double *values = bal_alloc(n, sizeof *values);
    bal_status status = values == NULL ? BAL_ENOMEM : BAL_OK;
    char name[32];
    for (size_t j = 0; status == BAL_OK && j < sizeof ks / sizeof ks[0]; j++) {
        size_t items = 0;
        bool enough = n > 0;
        for (size_t i = 0; i < n && enough;) {
            size_t k = 0, right = 0;
            for (; i + k < n && r[i + k].item == r[i].item; k++)
                right += r[i + k].score == 1;
            enough = k >= ks[j];
            values[items++] = enough ? bal_pass_at_k(k, right, ks[j]) : 0;
            i += k;
        }
        (void)snprintf(name, sizeof name, s->how->with_prompt ? "pass@%zu" : "pass_at_%zu", ks[j]);
        if (enough)
            status = metric_add_mean(out, name, code_filter(t, f), values, items, 1);
    }
    bal_free(values);
    return status;
}

static const char *const k_keys[] = {"program", NULL};

const scorer k_scorer_code = {.name = "code",
                              .item_metric = "pass@1",
                              .kind = SCORER_GENERATE,
                              .prepare = code_prepare,
                              .dispose = code_dispose,
                              .keys = k_keys,
                              .available = code_available,
                              .filter = code_filter,
                              .judge_late = code_judge_late,
                              .measure = code_measure};
