/* --compare A B: two runs on the same items, pair by pair.  An item's score is its mean over repeats, or what the task's
 * filter makes of them (a majority).
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"

#include "lib/base/mem.h"
#include "lib/io/store.h"
#include "lib/stats/bootstrap.h"
#include "lib/stats/stats.h"

#include <math.h>
#include <string.h>

static const double k_z95 = 1.959963984540054;
enum { SEED = 1234 };

/* One task under one filter. */
typedef struct comparison {
    char *task, *filter;
    size_t n, only[2], n_clusters; /* pairs, items of one run alone, clusters (0: every item by itself) */
    size_t n_prompts;              /* pairs whose prompts differ */
    bool binary;                   /* every score is 0 or 1 */
    uint64_t won[2];               /* binary: right in A alone, in B alone */
    double mean[2], low[2], high[2], stderr_difference;
    bal_paired_bootstrap bootstrap; /* of B - A */
    double exact, mid, p, p_holm;
} comparison;

/* The pairs of one comparison. */
typedef struct pairs {
    double *a, *b, *sums;
    uint32_t *cluster;
    size_t cap;
    char *last_group;
} pairs;

typedef struct compare_state {
    bal_store *store;
    int64_t run[2];
    const char *word[2];
    comparison *list;
    size_t n;
    pairs pairs;
    size_t resamples;
} compare_state;

#define SIDE(N)                                                                                                        \
    "(SELECT e.item AS item, " BAL_ITEM_SCORE " AS score, min(e.gold) AS gold, min(e.group_id) AS grp, "               \
    "min(e.prompt_sha256) AS prompt FROM eval_item AS e WHERE e.run_id = ?" #N " AND e.task = ?3 AND e.filter = ?4 "   \
    "GROUP BY e.item)"
static const char k_pairs_sql[] =
    "SELECT a.item, a.score, b.score, a.grp, a.gold, b.gold, a.gold IS NOT b.gold, "
    "a.prompt IS NOT b.prompt FROM " SIDE(1) " AS a JOIN " SIDE(2) " AS b USING (item) ORDER BY a.grp, a.item";
static const char k_tasks_sql[] =
    "SELECT task, filter, sum(in_a AND NOT in_b), sum(in_b AND NOT in_a), sum(in_a AND in_b) FROM (SELECT task, "
    "filter, item, max(run_id = ?1) AS in_a, max(run_id = ?2) AS in_b FROM eval_item WHERE run_id IN (?1, ?2) "
    "GROUP BY task, filter, item) GROUP BY task, filter ORDER BY task, filter";

static bal_status find_tasks(compare_state *s)
{
    sqlite3_stmt *st = NULL;
    bool row = false;
    size_t cap = 0;
    bal_status status;
    BAL_TRY(bal_store_prepare(s->store, k_tasks_sql, &st));
    (void)sqlite3_bind_int64(st, 1, s->run[0]);
    (void)sqlite3_bind_int64(st, 2, s->run[1]);
    for (;;) {
        BAL_TRY(bal_store_step(s->store, st, &row));
        if (!row)
            break;
        if (sqlite3_column_int64(st, 4) == 0)
            continue;
        if (s->n == cap) {
            comparison *more = bal_realloc(s->list, cap = cap * 2 + 16, sizeof *more);
            if (more == NULL)
                BAL_TRY(BAL_ENOMEM);
            s->list = more;
        }
        comparison *c = &s->list[s->n++];
        *c = (comparison){.task = bal_strdup((const char *)sqlite3_column_text(st, 0)),
                          .filter = bal_strdup((const char *)sqlite3_column_text(st, 1)),
                          .only = {(size_t)sqlite3_column_int64(st, 2), (size_t)sqlite3_column_int64(st, 3)}};
        if (c->task == NULL || c->filter == NULL)
            BAL_TRY(BAL_ENOMEM);
    }
    if (s->n == 0)
        status = bal_fail(BAL_EINVAL,
                          "runs '%s' and '%s' have no item of the same task and filter in common; 'balora runs show' "
                          "tells what they hold",
                          s->word[0], s->word[1]);
out:
    (void)sqlite3_finalize(st);
    return status;
}

static bal_status grow(pairs *p)
{
    size_t cap = p->cap * 2 + 256;
    double *a = bal_realloc(p->a, cap, sizeof *a);
    p->a = a != NULL ? a : p->a;
    double *b = bal_realloc(p->b, cap, sizeof *b);
    p->b = b != NULL ? b : p->b;
    double *sums = bal_realloc(p->sums, cap, sizeof *sums);
    p->sums = sums != NULL ? sums : p->sums;
    uint32_t *cluster = bal_realloc(p->cluster, cap, sizeof *cluster);
    p->cluster = cluster != NULL ? cluster : p->cluster;
    if (a == NULL || b == NULL || sums == NULL || cluster == NULL)
        return BAL_ENOMEM;
    p->cap = cap;
    return BAL_OK;
}

/* The cluster of the next pair: rows come ordered by group; an item without one stands alone. */
static bal_status next_cluster(pairs *p, comparison *c, const char *group)
{
    bool same = c->n > 0 && group != NULL && p->last_group != NULL && strcmp(p->last_group, group) == 0;
    if (!same) {
        bal_free(p->last_group);
        p->last_group = group == NULL ? NULL : bal_strdup(group);
        if (group != NULL && p->last_group == NULL)
            return BAL_ENOMEM;
        c->n_clusters++;
    }
    p->cluster[c->n] = (uint32_t)(c->n_clusters - 1);
    return BAL_OK;
}

static bal_status read_pairs(compare_state *s, comparison *c)
{
    sqlite3_stmt *st = NULL;
    pairs *p = &s->pairs;
    bool row = false;
    bal_status status;
    c->binary = true;
    BAL_TRY(bal_store_cached(s->store, k_pairs_sql, &st));
    (void)sqlite3_bind_int64(st, 1, s->run[0]);
    (void)sqlite3_bind_int64(st, 2, s->run[1]);
    (void)sqlite3_bind_text(st, 3, c->task, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_text(st, 4, c->filter, -1, SQLITE_TRANSIENT);
    for (;;) {
        BAL_TRY(bal_store_step(s->store, st, &row));
        if (!row)
            break;
        if (sqlite3_column_int(st, 6) != 0)
            BAL_TRY(bal_fail(BAL_EINVAL,
                             "item %lld of task '%s' has the answer '%.40s' in run '%s' and '%.40s' in run '%s': not "
                             "the same data",
                             (long long)sqlite3_column_int64(st, 0), c->task, (const char *)sqlite3_column_text(st, 4),
                             s->word[0], (const char *)sqlite3_column_text(st, 5), s->word[1]));
        if (sqlite3_column_type(st, 1) == SQLITE_NULL || sqlite3_column_type(st, 2) == SQLITE_NULL)
            continue; /* without a score in one of them */
        if (c->n == p->cap)
            BAL_TRY(grow(p));
        double a = p->a[c->n] = sqlite3_column_double(st, 1), b = p->b[c->n] = sqlite3_column_double(st, 2);
        BAL_TRY(next_cluster(p, c, (const char *)sqlite3_column_text(st, 3)));
        c->n_prompts += (size_t)sqlite3_column_int(st, 7);
        c->binary = c->binary && (a == 0 || a == 1) && (b == 0 || b == 1);
        c->won[0] += a > b;
        c->won[1] += b > a;
        c->n++;
    }
    if (c->n == 0)
        status =
            bal_fail(BAL_EINVAL, "no item of task '%s', filter '%s', has a score in both runs", c->task, c->filter);
out:
    if (st != NULL)
        (void)sqlite3_reset(st);
    return status;
}

static bal_status compute(compare_state *s, comparison *c)
{
    pairs *p = &s->pairs;
    const double *x[2] = {p->a, p->b};
    bool clustered = c->n_clusters < c->n && c->n_clusters > 1;
    bal_status status;
    BAL_TRY(bal_bootstrap_paired(p->b, p->a, clustered ? p->cluster : NULL, c->n, c->n_clusters, s->resamples, SEED,
                                 &c->bootstrap));
    for (int i = 0; i < 2; i++) {
        c->mean[i] = bal_mean(x[i], c->n);
        c->low[i] = c->high[i] = (double)NAN;
        if (c->binary)
            bal_wilson((size_t)(c->mean[i] * (double)c->n + 0.5), c->n, k_z95, &c->low[i], &c->high[i]);
    }
    c->stderr_difference = bal_paired_stderr(p->b, p->a, c->n);
    if (clustered) {
        for (size_t i = 0; i < c->n; i++)
            p->b[i] -= p->a[i];
        c->stderr_difference = bal_clustered_stderr(p->b, p->cluster, c->n, p->sums, c->n_clusters);
    } else {
        c->n_clusters = 0;
    }
    c->exact = c->binary ? bal_mcnemar_exact(c->won[0], c->won[1]) : (double)NAN;
    c->mid = c->binary ? bal_mcnemar_mid(c->won[0], c->won[1]) : (double)NAN;
    /* McNemar takes the items as independent: with clusters the bootstrap over clusters decides. */
    c->p = c->binary && !clustered ? c->mid : c->bootstrap.p;
out:
    return status;
}

static bal_status adjust(compare_state *s)
{
    double *p = bal_alloc(s->n, 2 * sizeof *p);
    size_t *order = bal_alloc(s->n, sizeof *order);
    bool ok = p != NULL && order != NULL;
    for (size_t i = 0; ok && i < s->n; i++)
        p[i] = s->list[i].p;
    if (ok)
        bal_holm(p, p + s->n, order, s->n);
    for (size_t i = 0; ok && i < s->n; i++)
        s->list[i].p_holm = p[s->n + i];
    bal_free(p);
    bal_free(order);
    return ok ? BAL_OK : BAL_ENOMEM;
}

/* "0.1234|", or "N/A|" for NaN. */
static bal_status cell(bal_buf *out, const char *format, double value)
{
    bal_status status = BAL_OK;
    if (isnan(value))
        return bal_buf_text(out, "N/A|");
    if (strcmp(format, "p") == 0)
        return value < 0.0001 ? bal_buf_text(out, "<0.0001|") : bal_buf_printf(out, "%.4f|", value);
    status = strcmp(format, "+") == 0 ? bal_buf_printf(out, "%+.4f|", value) : bal_buf_printf(out, "%.4f|", value);
    return status;
}

static bal_status put_table(const compare_state *s, bal_buf *out)
{
    bal_status status;
    BAL_TRY(
        bal_buf_printf(out,
                       "A is '%s', B is '%s'; p: McNemar's mid-p, or the bootstrap's where scores are not 0 and 1 "
                       "or items come in groups\n\n"
                       "|Task|Filter|n|A|B|B - A|Stderr|Bootstrap 95 %%|A alone|B alone|Exact p|p|Holm|Detectable|\n"
                       "|---|---|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|---:|---:|\n",
                       s->word[0], s->word[1]));
    for (size_t i = 0; i < s->n; i++) {
        const comparison *c = &s->list[i];
        BAL_TRY(bal_buf_printf(out, "|%s|%s|%zu|", c->task, c->filter, c->n));
        BAL_TRY(cell(out, "", c->mean[0]));
        BAL_TRY(cell(out, "", c->mean[1]));
        BAL_TRY(cell(out, "+", c->bootstrap.difference));
        BAL_TRY(cell(out, "", c->stderr_difference));
        BAL_TRY(bal_buf_printf(out, "[%+.4f, %+.4f]|%llu|%llu|", c->bootstrap.low, c->bootstrap.high,
                               (unsigned long long)c->won[0], (unsigned long long)c->won[1]));
        BAL_TRY(cell(out, "p", c->exact));
        BAL_TRY(cell(out, "p", c->p));
        BAL_TRY(cell(out, "p", c->p_holm));
        BAL_TRY(cell(out, "", bal_detectable_effect(c->stderr_difference)));
        BAL_TRY(bal_buf_text(out, "\n"));
    }
    BAL_TRY(bal_buf_text(out, "\n"));
    for (size_t i = 0; i < s->n; i++) {
        const comparison *c = &s->list[i];
        if (c->only[0] + c->only[1] > 0)
            BAL_TRY(bal_buf_printf(out, "%s, %s: left out %zu items of A alone and %zu of B alone\n", c->task,
                                   c->filter, c->only[0], c->only[1]));
        if (c->n_prompts > 0)
            BAL_TRY(bal_buf_printf(out, "%s, %s: the prompts of %zu items differ\n", c->task, c->filter, c->n_prompts));
        if (c->n_clusters > 0)
            BAL_TRY(bal_buf_printf(out, "%s, %s: errors are clustered over %zu groups\n", c->task, c->filter,
                                   c->n_clusters));
    }
    BAL_TRY(bal_buf_text(out, "Detectable: the smallest true difference found with 80 % power at 5 %.\n"));
out:
    return status;
}

static bal_status put_number(bal_buf *out, const char *key, double value)
{
    bal_status status = bal_buf_printf(out, ", \"%s\": ", key);
    return status == BAL_OK ? bal_json_put_f64(out, value) : status;
}

static bal_status put_comparison(bal_buf *out, const comparison *c)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"task\": "));
    BAL_TRY(bal_json_put_text(out, c->task));
    BAL_TRY(bal_buf_text(out, ", \"filter\": "));
    BAL_TRY(bal_json_put_text(out, c->filter));
    BAL_TRY(
        bal_buf_printf(out,
                       ", \"n\": %zu, \"only_a\": %zu, \"only_b\": %zu, \"prompts_differ\": %zu, \"clusters\": %zu, "
                       "\"a_better\": %llu, \"b_better\": %llu",
                       c->n, c->only[0], c->only[1], c->n_prompts, c->n_clusters, (unsigned long long)c->won[0],
                       (unsigned long long)c->won[1]));
    BAL_TRY(put_number(out, "mean_a", c->mean[0]));
    BAL_TRY(put_number(out, "mean_b", c->mean[1]));
    BAL_TRY(put_number(out, "wilson_low_a", c->low[0]));
    BAL_TRY(put_number(out, "wilson_high_a", c->high[0]));
    BAL_TRY(put_number(out, "wilson_low_b", c->low[1]));
    BAL_TRY(put_number(out, "wilson_high_b", c->high[1]));
    BAL_TRY(put_number(out, "difference", c->bootstrap.difference));
    BAL_TRY(put_number(out, "difference_stderr", c->stderr_difference));
    BAL_TRY(put_number(out, "bootstrap_low", c->bootstrap.low));
    BAL_TRY(put_number(out, "bootstrap_high", c->bootstrap.high));
    BAL_TRY(put_number(out, "bootstrap_p", c->bootstrap.p));
    BAL_TRY(put_number(out, "mcnemar_exact_p", c->exact));
    BAL_TRY(put_number(out, "mcnemar_mid_p", c->mid));
    BAL_TRY(put_number(out, "p", c->p));
    BAL_TRY(put_number(out, "p_holm", c->p_holm));
    BAL_TRY(put_number(out, "minimum_detectable_effect", bal_detectable_effect(c->stderr_difference)));
    BAL_TRY(bal_buf_text(out, "}"));
out:
    return status;
}

static bal_status put_json(const compare_state *s, bal_buf *out)
{
    char uuid[33];
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"runs\": ["));
    for (int i = 0; i < 2; i++) {
        BAL_TRY(bal_run_uuid(s->store, s->run[i], uuid));
        BAL_TRY(bal_buf_printf(out, "%s{\"id\": %lld, \"run_id\": \"%s\", \"given\": ", i == 0 ? "" : ", ",
                               (long long)s->run[i], uuid));
        BAL_TRY(bal_json_put_text(out, s->word[i]));
        BAL_TRY(bal_buf_text(out, "}"));
    }
    BAL_TRY(bal_buf_printf(out, "], \"resamples\": %zu, \"seed\": %d, \"comparisons\": [", s->resamples, SEED));
    for (size_t i = 0; i < s->n; i++) {
        BAL_TRY(bal_buf_text(out, i == 0 ? "\n  " : ",\n  "));
        BAL_TRY(put_comparison(out, &s->list[i]));
    }
    BAL_TRY(bal_buf_text(out, "\n]}\n"));
out:
    return status;
}

bal_status evaluate_compare(bal_store *store, const char *a, const char *b, size_t resamples, bool json, bal_buf *out)
{
    compare_state s = {.store = store, .word = {a, b}, .resamples = resamples};
    bal_status status;
    for (int i = 0; i < 2; i++)
        BAL_TRY(bal_run_find(s.store, s.word[i], &s.run[i]));
    if (s.run[0] == s.run[1])
        BAL_TRY(bal_fail(BAL_EINVAL, "'%s' and '%s' are the same run", a, b));
    BAL_TRY(find_tasks(&s));
    for (size_t i = 0; i < s.n; i++) {
        BAL_TRY(read_pairs(&s, &s.list[i]));
        BAL_TRY(compute(&s, &s.list[i]));
    }
    BAL_TRY(adjust(&s));
    status = json ? put_json(&s, out) : put_table(&s, out);
out:
    for (size_t i = 0; i < s.n; i++) {
        bal_free(s.list[i].task);
        bal_free(s.list[i].filter);
    }
    bal_free(s.list);
    bal_free(s.pairs.a);
    bal_free(s.pairs.b);
    bal_free(s.pairs.sums);
    bal_free(s.pairs.cluster);
    bal_free(s.pairs.last_group);
    return status;
}
