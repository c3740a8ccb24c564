/* "perplexity": the log-likelihood of a whole text, over the words and bytes of the field that "count" names (the
 * text before it was made readable), as lm-evaluation-harness's wikitext has it.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/scorer.h"
#include "lib/base/mem.h"
#include "lib/text/pattern.h"

#include <math.h>
#include <string.h>

static bal_status rolling_requests(const task *t, size_t i, const char *context, bool chat, pair_list *out)
{
    bal_buf text = {0};
    bal_status status;
    (void)context;
    (void)chat;
    BAL_TRY(task_render(t->prompt, t->test.items[i], t->name, &text, NULL));
    if (text.len == 0) {
        status = bal_fail(BAL_EFORMAT, "task '%s': item %zu is an empty text", t->name, i);
        goto out;
    }
    status = pair_add(out, "", bal_buf_cstr(&text));
out:
    bal_buf_dispose(&text);
    return status;
}

static bal_status rolling_judge(const task *t, size_t i, size_t f, const char *output, bal_buf *extracted,
                                bal_verdict *v)
{
    double *lls = NULL;
    size_t n = 0;
    bal_status status;
    (void)f;
    BAL_TRY(scorer_read_lls(output, &lls, &n));
    if (n != 1 || isnan(lls[0])) {
        status = bal_fail(BAL_EFORMAT, "task '%s': the stored output of item %zu is broken", t->name, i);
        goto out;
    }
    v->found = true;
    v->score = lls[0];
    status = bal_buf_text(extracted, "");
out:
    bal_free(lls);
    return status;
}

/* len(re.split(r"\s+", text)) */
static bal_status count_words(const char *text, double *words)
{
    bal_pattern *spaces = NULL;
    bal_match m = {0};
    size_t n = strlen(text);
    bal_status status;
    BAL_TRY(bal_pattern_compile(&spaces, "\\s+", "words"));
    *words = 1;
    while (bal_pattern_next(spaces, text, n, m.end, &m))
        *words += 1;
out:
    bal_pattern_free(spaces);
    return status;
}

static bal_status rolling_measure(const task *t, size_t f, const record *r, size_t n, metric_list *out)
{
    const char *count = NULL;
    double ll = 0, words = 0, bytes = 0;
    bal_status status;
    (void)f;
    BAL_TRY(bal_json_text(t->json, t->name, "count", &count, NULL));
    for (size_t i = 0; i < n; i++) {
        const cJSON *text = task_member(t->test.items[r[i].item], count == NULL ? "text" : count);
        double own = 0;
        if (!cJSON_IsString(text)) {
            status = bal_fail(BAL_EFORMAT, "task '%s': item %zu has no text '%s' (key 'count')", t->name, r[i].item,
                              count == NULL ? "text" : count);
            goto out;
        }
        BAL_TRY(count_words(text->valuestring, &own));
        words += own;
        bytes += (double)strlen(text->valuestring);
        ll += r[i].score;
    }
    const double none = (double)NAN;
    BAL_TRY(metric_add(out, "word_perplexity", "none", n, exp(-ll / words), none, -1));
    BAL_TRY(metric_add(out, "byte_perplexity", "none", n, exp(-ll / bytes), none, -1));
    status = metric_add(out, "bits_per_byte", "none", n, -ll / bytes / log(2), none, -1);
out:
    return status;
}

static const char *const k_keys[] = {"count", NULL};

const scorer k_scorer_rolling = {.name = "perplexity",
                                 .item_metric = "loglikelihood",
                                 .kind = SCORER_ROLLING,
                                 .keys = k_keys,
                                 .requests = rolling_requests,
                                 .filter = scorer_filter_none,
                                 .judge = rolling_judge,
                                 .measure = rolling_measure};
