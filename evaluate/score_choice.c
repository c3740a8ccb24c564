/* "multiple_choice": the choice with the largest log-likelihood.  metrics: acc, acc_norm (by characters), acc_bytes,
 * acc_mutual_info (less the log-likelihood after an empty context), mcc, f1, macro_f1, brier_score, ece, nll.
 *   merge: [0, 1, 1]  the class of each choice, where several mean the same (HANS)
 *   by: [fields]      acc also for each value of these fields of the rows
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/scorer.h"

#include "lib/base/mem.h"
#include "lib/stats/bootstrap.h"
#include "lib/stats/calibration.h"
#include "lib/stats/classes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { BOOTSTRAP = 100000, ECE_BINS = 15, MAX_CHOICES = 4096 };

static const char *const k_metrics[] = {
    "acc", "acc_norm", "acc_bytes", "acc_mutual_info", "mcc", "f1", "macro_f1", "brier_score", "ece", "nll"};
enum { N_METRICS = sizeof k_metrics / sizeof k_metrics[0] };

static bool wants(const task *t, const char *name)
{
    const cJSON *list = bal_json_member(t->json, "metrics"), *item = NULL;
    cJSON_ArrayForEach(item, list) if (cJSON_IsString(item) && strcmp(item->valuestring, name) == 0) return true;
    return list == NULL && strcmp(name, "acc") == 0;
}

/* The class of a choice. */
static int merged(const task *t, int choice)
{
    const cJSON *to = choice < 0 ? NULL : cJSON_GetArrayItem(bal_json_member(t->json, "merge"), choice);
    return cJSON_IsNumber(to) ? (int)to->valuedouble : choice;
}

static bal_status choice_prepare(task *t)
{
    const cJSON *list = bal_json_member(t->json, "metrics"), *item = NULL;
    const cJSON *merge = bal_json_member(t->json, "merge"), *by = bal_json_member(t->json, "by");
    if (t->choices == NULL)
        return bal_fail(BAL_EFORMAT, "task '%s': key 'choices' is missing", t->name);
    cJSON_ArrayForEach(item, list)
    {
        bool known = false;
        for (size_t i = 0; i < N_METRICS; i++)
            known = known || (cJSON_IsString(item) && strcmp(item->valuestring, k_metrics[i]) == 0);
        if (!known)
            return bal_fail(BAL_EFORMAT,
                            "task '%s': key 'metrics' holds '%.40s'; there are acc, acc_norm, acc_bytes, "
                            "acc_mutual_info, mcc, f1, macro_f1, brier_score, ece, nll",
                            t->name, cJSON_IsString(item) ? item->valuestring : "?");
    }
    cJSON_ArrayForEach(
        item, merge) if (!cJSON_IsNumber(item) || item->valuedouble < 0 ||
                         item->valuedouble >
                             MAX_CHOICES) return bal_fail(BAL_EFORMAT,
                                                          "task '%s': key 'merge' must be a list of class numbers",
                                                          t->name);
    cJSON_ArrayForEach(item, by) if (!cJSON_IsString(item)) return bal_fail(
        BAL_EFORMAT, "task '%s': key 'by' must be a list of field names", t->name);
    return BAL_OK;
}

static bal_status choice_requests(const task *t, size_t i, const char *context, bool chat, pair_list *out)
{
    const cJSON *row = t->test.items[i];
    size_t n = task_n_choices(t, row);
    bal_buf choice = {0};
    bal_status status = BAL_OK;
    if (n < 2 || n > MAX_CHOICES)
        return bal_fail(BAL_EFORMAT, "task '%s': item %zu has %zu choices", t->name, i, n);
    for (size_t pass = 0; pass < (wants(t, "acc_mutual_info") ? 2U : 1U); pass++)
        for (size_t k = 0; k < n; k++) {
            bal_buf_clear(&choice);
            BAL_TRY(bal_buf_text(&choice, task_choice_delimiter(t, chat)));
            BAL_TRY(task_choice(t, row, k, &choice));
            BAL_TRY(pair_add(out, pass == 0 ? context : "", bal_buf_cstr(&choice)));
        }
out:
    bal_buf_dispose(&choice);
    return status;
}

static bal_status choice_judge(const task *t, size_t i, size_t f, const char *output, bal_buf *extracted,
                               bal_verdict *v)
{
    const cJSON *row = t->test.items[i];
    double *lls = NULL;
    size_t n = 0;
    bal_status status;
    (void)f;
    BAL_TRY(scorer_read_lls(output, &lls, &n));
    size_t choices = task_n_choices(t, row);
    int best = scorer_argmax(lls, n < choices ? n : choices);
    v->found = best >= 0;
    v->score = best >= 0 && merged(t, best) == task_label(t, row) ? 1 : 0;
    if (best >= 0)
        status = task_choice(t, row, (size_t)best, extracted);
out:
    bal_free(lls);
    return status;
}

/* What the metrics need of the items. */
typedef struct columns {
    double *acc, *norm, *bytes, *mutual, *brier, *confidence, *nll;
    bal_class_item *classes;
} columns;

static bool columns_make(columns *c, size_t n)
{
    double **const at[] = {&c->acc, &c->norm, &c->bytes, &c->mutual, &c->brier, &c->confidence, &c->nll};
    for (size_t i = 0; i < sizeof at / sizeof at[0]; i++)
        if ((*at[i] = bal_alloc(n, sizeof **at[i])) == NULL)
            return false;
    return (c->classes = bal_alloc(n, sizeof *c->classes)) != NULL;
}

static void columns_dispose(columns *c)
{
    bal_free(c->acc);
    bal_free(c->norm);
    bal_free(c->bytes);
    bal_free(c->mutual);
    bal_free(c->brier);
    bal_free(c->confidence);
    bal_free(c->nll);
    bal_free(c->classes);
}

static size_t characters(const bal_buf *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->len; i++)
        n += ((unsigned char)text->data[i] & 0xc0U) != 0x80U;
    return n;
}

/* One item's values; n_all log-likelihoods, of which the first n are the choices'. */
static bal_status fill(const task *t, const record *r, double *lls, size_t n_all, columns *c, size_t at)
{
    const cJSON *row = t->test.items[r->item];
    size_t n = task_n_choices(t, row);
    int gold = task_label(t, row);
    bal_buf text = {0};
    double *by = bal_alloc(3 * n + 1, sizeof *by);
    bal_status status = BAL_OK;
    if (by == NULL)
        return BAL_ENOMEM;
    if (n_all < n || n == 0) {
        status = bal_fail(BAL_EFORMAT, "task '%s': item %zu has %zu choices and %zu stored log-likelihoods", t->name,
                          r->item, n, n_all);
        goto out;
    }
    for (size_t k = 0; k < n; k++) {
        bal_buf_clear(&text);
        BAL_TRY(task_choice(t, row, k, &text));
        by[k] = lls[k] / (double)characters(&text);
        by[n + k] = lls[k] / (double)text.len;
        by[2 * n + k] = n_all >= 2 * n ? lls[k] - lls[n + k] : (double)NAN;
    }
    int best = scorer_argmax(lls, n);
    c->acc[at] = merged(t, best) == gold ? 1 : 0;
    c->norm[at] = merged(t, scorer_argmax(by, n)) == gold ? 1 : 0;
    c->bytes[at] = merged(t, scorer_argmax(by + n, n)) == gold ? 1 : 0;
    c->mutual[at] = merged(t, scorer_argmax(by + 2 * n, n)) == gold ? 1 : 0;
    c->classes[at] = (bal_class_item){gold, merged(t, best)};
    bal_softmax(lls, n);
    c->brier[at] = bal_brier(lls, n, gold);
    c->confidence[at] = best < 0 ? (double)NAN : lls[best];
    c->nll[at] = gold < 0 ? (double)NAN : -log(lls[gold]);
out:
    bal_free(by);
    bal_buf_dispose(&text);
    return status;
}

static bal_status add_class_metric(const task *t, const char *name, bal_statistic *f, const columns *c, size_t n,
                                   metric_list *out)
{
    double error = (double)NAN;
    bal_status status;
    if (!wants(t, name))
        return BAL_OK;
    BAL_TRY(bal_bootstrap_stderr(f, c->classes, n, BOOTSTRAP, &error));
    status = metric_add(out, name, "none", n, f(c->classes, NULL, n), error, 1);
out:
    return status;
}

/* "acc_VALUE_VALUE" of an item's fields. */
static bal_status by_name(const task *t, const cJSON *row, const cJSON *by, char *out, size_t n_out)
{
    const cJSON *field = NULL;
    bal_buf name = {0};
    bal_status status;
    BAL_TRY(bal_buf_text(&name, "acc"));
    cJSON_ArrayForEach(field, by)
    {
        char template[80];
        BAL_TRY(bal_buf_text(&name, "_"));
        (void)snprintf(template, sizeof template, "{%.70s}", field->valuestring);
        BAL_TRY(task_render(template, row, t->name, &name, NULL));
    }
    (void)snprintf(out, n_out, "%s", bal_buf_cstr(&name));
out:
    bal_buf_dispose(&name);
    return status;
}

/* acc for each value of the fields of "by", in the order in which they are met. */
static bal_status measure_by(const task *t, const record *r, size_t n, const double *acc, metric_list *out)
{
    const cJSON *by = bal_json_member(t->json, "by");
    char(*names)[sizeof((metric *)0)->name] = NULL;
    double *values = NULL;
    bal_status status = BAL_OK;
    if (by == NULL)
        return BAL_OK;
    names = bal_alloc(n, sizeof *names);
    values = bal_alloc(n, sizeof *values);
    if (names == NULL || values == NULL)
        status = BAL_ENOMEM;
    for (size_t i = 0; i < n && status == BAL_OK; i++)
        status = by_name(t, t->test.items[r[i].item], by, names[i], sizeof names[i]);
    for (size_t i = 0; i < n && status == BAL_OK; i++) {
        size_t k = 0;
        if (names[i][0] == '\0')
            continue; /* counted with an earlier item */
        for (size_t j = n; j-- > i;)
            if (strcmp(names[j], names[i]) == 0) {
                values[k++] = acc[j];
                if (j > i)
                    names[j][0] = '\0';
            }
        status = metric_add_mean(out, names[i], "none", values, k, 1);
    }
    bal_free(names);
    bal_free(values);
    return status;
}

static bal_status choice_measure(const task *t, size_t f, const record *r, size_t n, metric_list *out)
{
    columns c = {0};
    double *lls = NULL;
    size_t n_lls = 0;
    bal_status status = BAL_ENOMEM;
    (void)f;
    if (!columns_make(&c, n))
        goto out;
    for (size_t i = 0; i < n; i++) {
        BAL_TRY(scorer_read_lls(r[i].output, &lls, &n_lls));
        BAL_TRY(fill(t, &r[i], lls, n_lls, &c, i));
        bal_free(lls);
        lls = NULL;
    }
    const struct {
        const char *name;
        const double *values;
        int direction;
    } means[] = {{"acc", c.acc, 1},
                 {"acc_norm", c.norm, 1},
                 {"acc_bytes", c.bytes, 1},
                 {"acc_mutual_info", c.mutual, 1},
                 {"brier_score", c.brier, -1},
                 {"nll", c.nll, -1}};
    for (size_t i = 0; i < sizeof means / sizeof means[0]; i++)
        if (wants(t, means[i].name))
            BAL_TRY(metric_add_mean(out, means[i].name, "none", means[i].values, n, means[i].direction));
    BAL_TRY(add_class_metric(t, "f1", bal_class_f1, &c, n, out));
    BAL_TRY(add_class_metric(t, "mcc", bal_class_mcc, &c, n, out));
    if (wants(t, "macro_f1"))
        BAL_TRY(metric_add(out, "macro_f1", "none", n, bal_class_f1_macro(c.classes, n), (double)NAN, 1));
    if (wants(t, "ece"))
        BAL_TRY(metric_add(out, "ece", "none", n, bal_ece(c.confidence, c.acc, n, ECE_BINS), (double)NAN, -1));
    status = measure_by(t, r, n, c.acc, out);
out:
    bal_free(lls);
    columns_dispose(&c);
    return status;
}

static const char *const k_keys[] = {"merge", "by", NULL};

const scorer k_scorer_choice = {.name = "multiple_choice",
                                .item_metric = "acc",
                                .kind = SCORER_CHOICE,
                                .prepare = choice_prepare,
                                .keys = k_keys,
                                .requests = choice_requests,
                                .filter = scorer_filter_none,
                                .judge = choice_judge,
                                .measure = choice_measure};
