/* "exact_match": filters written in the task file, as lm-evaluation-harness has them.
 *   filters: [{"name", "regex", "select": 0 or -1, "first": k repeats, "vote": true}]; none: the whole text
 *   ignore: patterns removed from both sides; ignore_case, ignore_punctuation, ignore_digits
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/scorer.h"

#include "lib/base/mem.h"
#include "lib/text/pattern.h"
#include "lib/text/spaces.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { MAX_FILTERS = 16, MAX_IGNORED = 16 };
static const char k_invalid[] = "[invalid]";

typedef struct regex_filter {
    const char *name;
    char own_name[32]; /* "maj@4" where the file has maj@64 and an item has 4 answers */
    bal_pattern *pattern;
    int64_t select, first;
    bool vote;
} regex_filter;

typedef struct regex_state {
    regex_filter filters[MAX_FILTERS];
    size_t n_filters, n_ignored;
    bal_pattern *ignored[MAX_IGNORED];
    bool ignore_case, ignore_punctuation, ignore_digits;
} regex_state;

static void regex_dispose(task *t)
{
    regex_state *s = t->state;
    if (s == NULL)
        return;
    for (size_t i = 0; i < s->n_filters; i++)
        bal_pattern_free(s->filters[i].pattern);
    for (size_t i = 0; i < s->n_ignored; i++)
        bal_pattern_free(s->ignored[i]);
    bal_free(s);
    t->state = NULL;
}

static bal_status read_filter(const task *t, regex_state *s, const cJSON *spec)
{
    static const char *const keys[] = {"name", "regex", "select", "first", "vote"};
    char where[128];
    const char *regex = NULL;
    const cJSON *key = NULL;
    bal_status status;
    (void)snprintf(where, sizeof where, "task '%.60s', filters[%zu]", t->name, s->n_filters);
    if (!cJSON_IsObject(spec) || s->n_filters == MAX_FILTERS)
        return bal_fail(BAL_EFORMAT, "task '%s': key 'filters' must be a list of at most %d objects", t->name,
                        MAX_FILTERS);
    regex_filter *f = &s->filters[s->n_filters++];
    cJSON_ArrayForEach(key, spec)
    {
        bool known = false;
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            known = known || strcmp(keys[i], key->string) == 0;
        if (!known)
            return bal_fail(BAL_EFORMAT, "%s: key '%.40s' is not known (name, regex, select, first, vote)", where,
                            key->string);
    }
    BAL_TRY(bal_json_text(spec, where, "name", &f->name, NULL));
    BAL_TRY(bal_json_text(spec, where, "regex", &regex, NULL));
    BAL_TRY(bal_json_i64(spec, where, "select", -1, 0, &f->select, NULL));
    BAL_TRY(bal_json_i64(spec, where, "first", 1, 1 << 20, &f->first, NULL));
    BAL_TRY(bal_json_bool(spec, where, "vote", &f->vote, NULL));
    if (f->name == NULL) {
        status = bal_fail(BAL_EFORMAT, "%s: key 'name' is missing", where);
        goto out;
    }
    size_t n = strlen(f->name);
    if (n == 0 || n > 31 || strcspn(f->name, " \"\\,|/\t\n") < n) { /* it stands in keys and tables */
        status = bal_fail(BAL_EFORMAT,
                          "%s: key 'name' must have 1 to 31 bytes, without spaces, quotes and any of \\,|/", where);
        goto out;
    }
    if (f->vote && (size_t)f->first > t->repeats) { /* a majority of fewer answers is not called by the larger number */
        (void)snprintf(f->own_name, sizeof f->own_name, "maj@%zu", t->repeats);
        f->name = f->own_name;
        for (size_t i = 0; i + 1 < s->n_filters; i++)
            if (strcmp(s->filters[i].name, f->name) == 0) {
                s->n_filters--;
                *f = (regex_filter){0};
                goto out;
            }
    }
    if (regex != NULL)
        status = bal_pattern_compile(&f->pattern, regex, where);
out:
    return status;
}

static bal_status regex_prepare(task *t)
{
    const cJSON *filters = bal_json_member(t->json, "filters"), *ignore = bal_json_member(t->json, "ignore"),
                *item = NULL;
    regex_state *s = bal_alloc(1, sizeof *s);
    bal_status status = BAL_ENOMEM;
    t->state = s;
    if (s == NULL)
        return status;
    if (t->target == NULL)
        return bal_fail(BAL_EFORMAT, "task '%s': key 'target' is missing", t->name);
    BAL_TRY(bal_json_bool(t->json, t->name, "ignore_case", &s->ignore_case, NULL));
    BAL_TRY(bal_json_bool(t->json, t->name, "ignore_punctuation", &s->ignore_punctuation, NULL));
    BAL_TRY(bal_json_bool(t->json, t->name, "ignore_digits", &s->ignore_digits, NULL));
    cJSON_ArrayForEach(item, filters) BAL_TRY(read_filter(t, s, item));
    if (s->n_filters == 0)
        s->filters[s->n_filters++].name = "none";
    cJSON_ArrayForEach(item, ignore)
    {
        if (!cJSON_IsString(item) || s->n_ignored == MAX_IGNORED) {
            status = bal_fail(BAL_EFORMAT, "task '%s': key 'ignore' must be a list of at most %d patterns", t->name,
                              MAX_IGNORED);
            goto out;
        }
        BAL_TRY(bal_pattern_compile(&s->ignored[s->n_ignored], item->valuestring, t->name));
        s->n_ignored++;
    }
out:
    return status;
}

static const char *regex_filter_name(const task *t, size_t f)
{
    const regex_state *s = t->state;
    return f < s->n_filters ? s->filters[f].name : NULL;
}

/* Patterns removed one after the other, then case, punctuation, digits: the order of exact_match. */
static bal_status normalise(const regex_state *s, const char *text, bal_buf *out)
{
    bal_buf next = {0};
    size_t kept = 0;
    bal_status status;
    BAL_TRY(bal_buf_text(out, text));
    for (size_t i = 0; i < s->n_ignored; i++) {
        bal_buf_clear(&next);
        BAL_TRY(bal_pattern_replace(s->ignored[i], bal_buf_cstr(out), out->len, "", &next));
        bal_buf swap = *out;
        *out = next;
        next = swap;
    }
    if (s->ignore_case) {
        bal_buf_clear(&next);
        BAL_TRY(bal_lower(bal_buf_cstr(out), out->len, &next));
        bal_buf swap = *out;
        *out = next;
        next = swap;
    }
    for (size_t i = 0; i < out->len; i++) {
        unsigned char c = (unsigned char)out->data[i];
        if ((s->ignore_punctuation && c < 128 && ispunct(c)) || (s->ignore_digits && c >= '0' && c <= '9'))
            continue;
        out->data[kept++] = (char)c;
    }
    if (out->data != NULL)
        out->data[kept] = '\0';
    out->len = kept;
out:
    bal_buf_dispose(&next);
    return status;
}

static bal_status equal(const task *t, size_t i, const char *extracted, double *score)
{
    bal_buf gold = {0}, a = {0}, b = {0};
    bool found = false;
    bal_status status;
    BAL_TRY(task_target(t, i, &gold, &found));
    BAL_TRY(normalise(t->state, extracted, &a));
    BAL_TRY(normalise(t->state, bal_buf_cstr(&gold), &b));
    *score = strcmp(bal_buf_cstr(&a), bal_buf_cstr(&b)) == 0 ? 1 : 0;
out:
    bal_buf_dispose(&gold);
    bal_buf_dispose(&a);
    bal_buf_dispose(&b);
    return status;
}

static bal_status regex_judge(const task *t, size_t i, size_t f, const char *output, bal_buf *extracted, bal_verdict *v)
{
    const regex_filter *filter = &((const regex_state *)t->state)->filters[f];
    bal_match m;
    bal_status status;
    v->found = true;
    if (filter->pattern == NULL) {
        BAL_TRY(bal_buf_text(extracted, output));
    } else if (bal_pattern_select(filter->pattern, output, strlen(output), (int)filter->select, &m) && !m.all_empty) {
        const char *at = output + m.group_start;
        size_t n = m.group_end - m.group_start;
        bal_strip(&at, &n);
        BAL_TRY(bal_buf_append(extracted, at, n));
    } else {
        v->found = false;
        BAL_TRY(bal_buf_text(extracted, k_invalid));
    }
    status = equal(t, i, bal_buf_cstr(extracted), &v->score);
out:
    return status;
}

/* The most frequent of n extracted texts; the first seen of equally frequent ones. */
static size_t majority(const record *r, size_t n)
{
    size_t best = 0, most = 0;
    for (size_t i = 0; i < n; i++) {
        size_t votes = 0;
        for (size_t j = 0; j < n; j++)
            votes +=
                strcmp(r[i].extracted == NULL ? "" : r[i].extracted, r[j].extracted == NULL ? "" : r[j].extracted) == 0;
        if (votes > most) {
            most = votes;
            best = i;
        }
    }
    return best;
}

static bal_status regex_measure(const task *t, size_t f, const record *r, size_t n, metric_list *out)
{
    const regex_filter *filter = &((const regex_state *)t->state)->filters[f];
    double *values = bal_alloc(n, sizeof *values);
    size_t items = 0;
    bal_status status = BAL_OK;
    if (values == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n;) {
        size_t k = 0;
        while (i + k < n && r[i + k].item == r[i].item)
            k++;
        size_t use = filter->first > 0 && (size_t)filter->first < k ? (size_t)filter->first : k;
        values[items++] = r[i + (filter->vote ? majority(r + i, use) : 0)].score;
        i += k;
    }
    status = metric_add_mean(out, "exact_match", filter->name, values, items, 1);
    bal_free(values);
    return status;
}

/* The first answer counts, or the one that most of the first `first` agree upon. */
static size_t regex_votes(const task *t, size_t f)
{
    const regex_filter *filter = &((const regex_state *)t->state)->filters[f];
    if (!filter->vote)
        return 1;
    return filter->first > 0 && (size_t)filter->first < t->repeats ? (size_t)filter->first : t->repeats;
}

static const char *const k_keys[] = {"filters", "ignore", "ignore_case", "ignore_punctuation", "ignore_digits", NULL};

const scorer k_scorer_exact_match = {.name = "exact_match",
                                     .item_metric = "exact_match",
                                     .kind = SCORER_GENERATE,
                                     .prepare = regex_prepare,
                                     .dispose = regex_dispose,
                                     .keys = k_keys,
                                     .filter = regex_filter_name,
                                     .judge = regex_judge,
                                     .votes = regex_votes,
                                     .measure = regex_measure};
