/* The table of scorers, and what they share.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/scorer.h"

#include "lib/base/mem.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double k_z95 = 1.959963984540054; /* 97.5 % of the normal distribution */

static const scorer *const k_scorers[] = {
    &k_scorer_exact_match, &k_scorer_choice,       &k_scorer_code,         &k_scorer_rolling,
    &k_scorer_crows,       &k_scorer_stereoset,    &k_scorer_winobias,     &k_scorer_winobias_pronoun,
    &k_scorer_bbq,         &k_scorer_bbq_generate, &k_scorer_crows_masked, &k_scorer_stereoset_masked};
enum { N_SCORERS = sizeof k_scorers / sizeof k_scorers[0] };

const scorer *scorer_find(const char *name)
{
    for (size_t i = 0; i < N_SCORERS; i++)
        if (strcmp(k_scorers[i]->name, name) == 0)
            return k_scorers[i];
    return NULL;
}

const char *scorer_name(size_t i)
{
    return i < N_SCORERS ? k_scorers[i]->name : NULL;
}

size_t scorer_n_filters(const task *t)
{
    size_t n = 0;
    while (t->scorer->filter(t, n) != NULL)
        n++;
    return n;
}

const char *scorer_filter_none(const task *t, size_t f)
{
    (void)t;
    return f == 0 ? "none" : NULL;
}

bal_status pair_add(pair_list *list, const char *context, const char *continuation)
{
    if (list->n == list->cap) {
        size_t cap = list->cap == 0 ? 4 : 2 * list->cap;
        pair *grown = bal_realloc(list->items, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        list->items = grown;
        list->cap = cap;
    }
    pair *p = &list->items[list->n++];
    *p = (pair){0};
    bal_status status = bal_buf_text(&p->context, context);
    return status == BAL_OK ? bal_buf_text(&p->continuation, continuation) : status;
}

void pair_list_dispose(pair_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        bal_buf_dispose(&list->items[i].context);
        bal_buf_dispose(&list->items[i].continuation);
    }
    bal_free(list->items);
    *list = (pair_list){0};
}

bal_status mask_add(mask_list *list, size_t part, const bal_ids *ids, size_t at, int32_t target)
{
    bal_status status = BAL_OK;
    if (list->n == list->cap) {
        size_t cap = list->cap == 0 ? 32 : 2 * list->cap;
        mask_query *grown = bal_realloc(list->items, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        list->items = grown;
        list->cap = cap;
    }
    mask_query *q = &list->items[list->n++];
    *q = (mask_query){.part = part, .at = at, .target = target};
    for (size_t i = 0; i < ids->n && status == BAL_OK; i++)
        status = bal_ids_append(&q->ids, ids->data[i]);
    return status;
}

void mask_list_dispose(mask_list *list)
{
    for (size_t i = 0; i < list->n; i++)
        bal_ids_dispose(&list->items[i].ids);
    bal_free(list->items);
    *list = (mask_list){0};
}

/* A name that may hold a value of the data, as it can stand in JSON, in a table and in the store's "task/name,filter";
 * cut between characters. */
static void put_name(char *out, size_t n_out, const char *name)
{
    size_t n = strlen(name);
    if (n >= n_out)
        for (n = n_out - 1; n > 0 && ((unsigned char)name[n] & 0xc0U) == 0x80U;)
            n--;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        out[i] = (char)(c <= ' ' || c == 0x7f || strchr("\"\\,|/", c) != NULL ? '_' : c);
    }
    out[n] = '\0';
}

bal_status metric_add(metric_list *list, const char *name, const char *filter, size_t n, double value,
                      double stderr_value, int direction)
{
    if (list->n == list->cap) {
        size_t cap = list->cap == 0 ? 8 : 2 * list->cap;
        metric *grown = bal_realloc(list->items, cap, sizeof *grown);
        if (grown == NULL)
            return BAL_ENOMEM;
        list->items = grown;
        list->cap = cap;
    }
    metric *m = &list->items[list->n++];
    *m = (metric){.value = value,
                  .stderr_value = stderr_value,
                  .low = (double)NAN,
                  .high = (double)NAN,
                  .higher_is_better = direction > 0,
                  .lower_is_better = direction < 0,
                  .n = n};
    put_name(m->name, sizeof m->name, name);
    put_name(m->filter, sizeof m->filter, filter);
    return BAL_OK;
}

bal_status metric_add_mean(metric_list *list, const char *name, const char *filter, const double *values, size_t n,
                           int direction)
{
    bool shares = n > 0;
    size_t ones = 0;
    for (size_t i = 0; i < n; i++) {
        shares = shares && (values[i] == 0 || values[i] == 1);
        ones += values[i] == 1;
    }
    bal_status status = metric_add(list, name, filter, n, n == 0 ? (double)NAN : bal_mean(values, n),
                                   n > 1 ? bal_mean_stderr(values, n) : (double)NAN, direction);
    if (status == BAL_OK && shares)
        bal_wilson(ones, n, k_z95, &list->items[list->n - 1].low, &list->items[list->n - 1].high);
    return status;
}

void metric_list_dispose(metric_list *list)
{
    bal_free(list->items);
    *list = (metric_list){0};
}

bal_status scorer_read_lls(const char *output, double **out, size_t *n)
{
    cJSON *json = NULL;
    const cJSON *item = NULL;
    bal_status status;
    *out = NULL;
    *n = 0;
    BAL_TRY(bal_json_parse(&json, output, strlen(output), "stored log-likelihoods"));
    const cJSON *list = bal_json_member(json, "ll");
    if (!cJSON_IsArray(list)) {
        status = bal_fail(BAL_EFORMAT, "a stored output holds no log-likelihoods");
        goto out;
    }
    *out = bal_alloc((size_t)cJSON_GetArraySize(list), sizeof **out);
    if (*out == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    cJSON_ArrayForEach(item, list)(*out)[(*n)++] = cJSON_IsNumber(item) ? item->valuedouble : (double)NAN;
out:
    cJSON_Delete(json);
    return status;
}

int scorer_argmax(const double *x, size_t n)
{
    int best = -1;
    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i]))
            return -1;
        if (best < 0 || x[i] > x[best])
            best = (int)i;
    }
    return best;
}
