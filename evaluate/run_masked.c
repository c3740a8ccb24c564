/* One task of masked tokens: an item's questions in one go, a row when they are answered.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/session.h"

#include "lib/base/clock.h"
#include "lib/base/mem.h"
#include "lib/model/masked.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* What an item's questions gave, for each of its texts. */
typedef struct sums {
    double ll, probability;
    size_t tokens;
} sums;

/* {"ll": [...], "probability": [...], "tokens": [...]}; the mean of no probabilities is 0. */
static bal_status put_sums(bal_buf *out, const sums *s, size_t n)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"ll\": ["));
    for (size_t k = 0; k < n; k++) {
        BAL_TRY(bal_buf_text(out, k == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_f64(out, s[k].ll));
    }
    BAL_TRY(bal_buf_text(out, "], \"probability\": ["));
    for (size_t k = 0; k < n; k++) {
        BAL_TRY(bal_buf_text(out, k == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_f64(out, s[k].tokens == 0 ? 0 : s[k].probability / (double)s[k].tokens));
    }
    BAL_TRY(bal_buf_text(out, "], \"tokens\": ["));
    for (size_t k = 0; k < n; k++)
        BAL_TRY(bal_buf_printf(out, "%s%zu", k == 0 ? "" : ", ", s[k].tokens));
    status = bal_buf_text(out, "]}");
out:
    return status;
}

/* The answers to the list, added up by text. */
static bal_status ask(bal_masked *m, const mask_list *list, int32_t mask, sums *out)
{
    bal_masked_query *q = bal_alloc(list->n + 1, sizeof *q);
    double *ll = bal_alloc(list->n + 1, sizeof *ll);
    bal_status status = BAL_ENOMEM;
    if (q == NULL || ll == NULL)
        goto out;
    for (size_t k = 0; k < list->n; k++) {
        const mask_query *from = &list->items[k];
        q[k] = (bal_masked_query){
            .ids = from->ids.data, .n = from->ids.n, .at = from->at, .put = mask, .target = from->target};
    }
    BAL_TRY(bal_masked_ask(m, q, list->n, ll));
    for (size_t k = 0; k < list->n; k++) {
        sums *s = &out[list->items[k].part];
        s->ll += ll[k];
        s->probability += exp(ll[k]);
        s->tokens++;
    }
out:
    bal_free(q);
    bal_free(ll);
    return status;
}

static bal_status run_item(session *s, task_run *r, size_t i, bal_masked *m, int32_t mask)
{
    const item_run *it = &r->items[i];
    double start = bal_clock_seconds();
    mask_list list = {0};
    bal_buf output = {0};
    bal_eval_item about = {.finish_reason = "score"};
    bal_status status;
    sums *sum = bal_alloc(it->pairs.n, sizeof *sum);
    if (sum == NULL)
        return BAL_ENOMEM;
    BAL_TRY(r->task.scorer->masks(&r->task, i, &it->pairs, s->bundle->tokenizer, mask, &list));
    BAL_TRY(ask(m, &list, mask, sum));
    BAL_TRY(put_sums(&output, sum, it->pairs.n));
    for (size_t k = 0; k < list.n; k++)
        about.prompt_tokens =
            (int64_t)list.items[k].ids.n > about.prompt_tokens ? (int64_t)list.items[k].ids.n : about.prompt_tokens;
    about.output_tokens = (int64_t)list.n;
    about.seconds = bal_clock_seconds() - start;
    status = session_store_output(s, r, i, 0, bal_buf_cstr(&output), &about);
out:
    mask_list_dispose(&list);
    bal_buf_dispose(&output);
    bal_free(sum);
    return status == BAL_OK ? status : bal_fail_note(status, "task '%s', item %zu", r->task.name, i);
}

bal_status session_run_masked(session *s, task_run *r)
{
    bal_compute compute = strcmp(s->c->compute, "bf16") == 0 ? BAL_COMPUTE_BF16 : BAL_COMPUTE_F32;
    int32_t mask = bal_tokenizer_mask(s->bundle->tokenizer);
    char note[64];
    bal_masked *m = NULL;
    bal_status status = BAL_OK;
    if (mask < 0)
        return bal_fail(BAL_EINVAL, "the tokenizer of '%s' has no token that masks", s->c->model);
    BAL_TRY(bal_masked_new(&m, s->bundle->model, 0, compute));
    for (size_t i = 0; i < r->n_items; i++) {
        if (!r->items[i].chosen || r->items[i].finished[0])
            continue;
        if (bal_interrupted())
            BAL_TRY(bal_fail(BAL_EINTERRUPT, "interrupted"));
        BAL_TRY(run_item(s, r, i, m, mask));
        (void)snprintf(note, sizeof note, "stereotype %.1f %%",
                       100 * (double)s->right / (double)(s->judged == 0 ? 1 : s->judged));
        bal_progress_update(&s->progress, ++s->done, s->judged > 0 ? note : NULL);
    }
out:
    bal_masked_free(m);
    return status;
}
