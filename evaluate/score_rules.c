/* Texts judged by the rules of lib/text/answer.h ("gsm8k", "gsm8k_pissa", "math_hendrycks" ...).
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/scorer.h"

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
static bal_status rules_measure(const task *t, size_t f, const record *r, size_t n, metric_list *out)
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
    bal_status status = metric_add_mean(out, "exact_match", rules_filter(t, f), values, items, 1);
    bal_free(values);
    return status;
}

const scorer k_scorer_rules = {.name = "rules",
                               .item_metric = "exact_match",
                               .kind = SCORER_GENERATE,
                               .filter = rules_filter,
                               .judge = rules_judge,
                               .measure = rules_measure};
