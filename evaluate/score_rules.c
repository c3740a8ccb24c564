/* Texts judged by the rules of lib/text/answer.h ("gsm8k", "gsm8k_pissa", "math_hendrycks" ...).
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/scorer.h"

#include "evaluate/equivalence.h"
#include "lib/base/mem.h"

static const char *rules_filter(const task *t, size_t f)
{
    return f < t->rules->n_filters ? t->rules->filters[f].name : NULL;
}

static bal_status rules_judge(const task *t, size_t i, size_t f, const char *output, bal_buf *extracted, bal_verdict *v)
{
    bal_buf gold = {0};
    bool found = false;
    bal_status status = task_target(t, i, &gold, &found);
    if (status == BAL_OK)
        status = t->rules->filters[f].judge(output, bal_buf_cstr(&gold), extracted, v);
    bal_buf_dispose(&gold);
    return status;
}

/* exact_match: the mean over items of their repeats' mean. */
static bal_status measure(const char *filter, const record *r, size_t n, metric_list *out)
{
    double *values = bal_alloc(n, sizeof *values);
    size_t items = 0;
    if (values == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n;) {
        size_t k = 0;
        double sum = 0;
        for (; i + k < n && r[i + k].item == r[i].item; k++)
            sum += r[i + k].score;
        values[items++] = sum / (double)k;
        i += k;
    }
    bal_status status = metric_add_mean(out, "exact_match", filter, values, items, 1);
    bal_free(values);
    return status;
}

static bal_status rules_measure(const task *t, size_t f, const record *r, size_t n, metric_list *out)
{
    return measure(rules_filter(t, f), r, n, out);
}

const scorer k_scorer_rules = {.name = "rules",
                               .item_metric = "exact_match",
                               .kind = SCORER_GENERATE,
                               .filter = rules_filter,
                               .judge = rules_judge,
                               .measure = rules_measure};

/* --- with an outside program's verdict beside the rules' --- */

static const char *outside_filter(const task *t, size_t f)
{
    return f == t->rules->n_filters ? "equivalence" : rules_filter(t, f);
}

/* The outside program compares what the first rule extracts; where that finds nothing there is nothing to compare. */
static bal_status ask_outside(const task *t, late_item *it)
{
    bal_buf gold = {0}, why = {0};
    bal_verdict rule = {0};
    bool found = false, equal = false, answered = false;
    bal_status status;
    BAL_TRY(task_target(t, it->item, &gold, &found));
    BAL_TRY(t->rules->filters[0].judge(it->output, bal_buf_cstr(&gold), &it->extracted, &rule));
    it->verdict = (bal_verdict){0, rule.found};
    if (!rule.found)
        goto out;
    BAL_TRY(equivalence_ask(t->outside, bal_buf_cstr(&it->extracted), bal_buf_cstr(&gold), it->output,
                            t->test.items[it->item], &equal, &answered, &why));
    it->verdict.score = equal ? 1 : 0;
    if (answered)
        goto out;
    it->verdict.found = false;
    bal_buf_clear(&it->extracted);
    status = bal_buf_printf(&it->extracted, "[no verdict: %s]", bal_buf_cstr(&why));
out:
    bal_buf_dispose(&gold);
    bal_buf_dispose(&why);
    return status;
}

static bal_status outside_judge(const task *t, size_t f, late_item *items, size_t n)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK; i++)
        status = f < t->rules->n_filters
                     ? rules_judge(t, items[i].item, f, items[i].output, &items[i].extracted, &items[i].verdict)
                     : ask_outside(t, &items[i]);
    return status;
}

static bal_status outside_measure(const task *t, size_t f, const record *r, size_t n, metric_list *out)
{
    return measure(outside_filter(t, f), r, n, out);
}

const scorer k_scorer_rules_outside = {.name = "rules",
                                       .item_metric = "exact_match",
                                       .kind = SCORER_GENERATE,
                                       .filter = outside_filter,
                                       .judge_late = outside_judge,
                                       .measure = outside_measure};
