/* Results as lm-evaluation-harness's document and as a Markdown table.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/report.h"

#include "lib/stats/stats.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FEW_ITEMS = 500 };

/* "key,filter": value */
static bal_status put_metric(bal_buf *out, const char *key, const char *filter, double value)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, ", \"%s,%s\": ", key, filter));
    BAL_TRY(bal_json_put_f64(out, value));
out:
    return status;
}

static bal_status put_results(bal_buf *out, const task_result *r)
{
    char key[80];
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "{\"name\": \"%s\", \"alias\": \"%s\", \"sample_len\": %zu", r->r->task.name,
                           r->r->task.name, r->r->n_chosen));
    for (size_t i = 0; i < r->metrics.n; i++) {
        const metric *m = &r->metrics.items[i];
        (void)snprintf(key, sizeof key, "%s_stderr", m->name);
        BAL_TRY(put_metric(out, m->name, m->filter, m->value));
        if (isfinite(m->stderr_value))
            BAL_TRY(put_metric(out, key, m->filter, m->stderr_value));
        else
            BAL_TRY(bal_buf_printf(out, ", \"%s,%s\": \"N/A\"", key, m->filter));
    }
    BAL_TRY(bal_buf_text(out, "}"));
out:
    return status;
}

static bal_status put_key(bal_buf *out, const char *key, const char *text)
{
    bal_status status;
    if (text == NULL)
        return BAL_OK;
    BAL_TRY(bal_buf_printf(out, ", \"%s\": ", key));
    BAL_TRY(bal_json_put_text(out, text));
out:
    return status;
}

static bal_status put_config(bal_buf *out, const task_result *r)
{
    static const char *const kinds[] = {"generate_until", "multiple_choice", "loglikelihood_rolling", "loglikelihood"};
    const task *t = &r->r->task;
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "{\"task\": \"%s\", \"output_type\": \"%s\", \"num_fewshot\": %zu, \"repeats\": %zu",
                           t->name, kinds[t->scorer->kind], t->num_fewshot, t->repeats));
    BAL_TRY(put_key(out, "doc_to_text", t->prompt));
    BAL_TRY(put_key(out, "doc_to_target", t->target));
    BAL_TRY(put_key(out, "description", t->description == NULL ? "" : t->description));
    BAL_TRY(put_key(out, "target_delimiter", t->target_delimiter));
    BAL_TRY(put_key(out, "fewshot_delimiter", t->fewshot_delimiter));
    if (t->choices != NULL) {
        BAL_TRY(bal_buf_text(out, ", \"doc_to_choice\": "));
        BAL_TRY(bal_json_put(out, t->choices, false));
    }
    if (t->scorer->kind == SCORER_GENERATE) {
        BAL_TRY(bal_buf_text(out, ", \"generation_kwargs\": {\"until\": ["));
        for (size_t i = 0; i < t->n_until; i++) {
            BAL_TRY(bal_buf_text(out, i == 0 ? "" : ", "));
            BAL_TRY(bal_json_put_text(out, t->until[i]));
        }
        BAL_TRY(bal_buf_printf(out, "], \"do_sample\": %s, \"temperature\": %.17g, \"max_gen_toks\": %zu}",
                               t->temperature > 0 ? "true" : "false", t->temperature, t->max_gen_toks));
    }
    BAL_TRY(bal_buf_printf(out, ", \"metadata\": {\"version\": %.1f}}", t->version));
out:
    return status;
}

static bal_status put_version(bal_buf *out, const task_result *r)
{
    return bal_buf_printf(out, "%.1f", r->r->task.version);
}

static bal_status put_shots(bal_buf *out, const task_result *r)
{
    return bal_buf_printf(out, "%zu", r->r->task.num_fewshot);
}

static bool is_first(const metric_list *l, size_t i)
{
    for (size_t k = 0; k < i; k++)
        if (strcmp(l->items[k].name, l->items[i].name) == 0)
            return false;
    return true;
}

static bal_status put_better(bal_buf *out, const task_result *r)
{
    bool first = true;
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{"));
    for (size_t i = 0; i < r->metrics.n; i++)
        if (is_first(&r->metrics, i)) {
            BAL_TRY(bal_buf_printf(out, "%s\"%s\": %s", first ? "" : ", ", r->metrics.items[i].name,
                                   r->metrics.items[i].higher_is_better  ? "true"
                                   : r->metrics.items[i].lower_is_better ? "false"
                                                                         : "null"));
            first = false;
        }
    BAL_TRY(bal_buf_text(out, "}"));
out:
    return status;
}

static bal_status put_samples(bal_buf *out, const task_result *r)
{
    return bal_buf_printf(out, "{\"original\": %zu, \"effective\": %zu}", r->r->task.test.n, r->r->n_chosen);
}

static double share(size_t k, size_t n)
{
    return n == 0 ? (double)NAN : (double)k / (double)n;
}

/* What lm-eval has no place for. */
static bal_status put_more(bal_buf *out, const task_result *r)
{
    const task *t = &r->r->task;
    const output_notes *o = &r->notes;
    char key[96];
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "{\"data_sha256\": \"%s\", \"without_gold\": %zu", t->test_sha256, r->r->n_no_gold));
    if (t->scorer->kind == SCORER_GENERATE) {
        const struct {
            const char *key;
            double value;
        } shares[] = {{"empty_share", share(o->n_empty, o->n)},
                      {"truncated_share", share(o->n_cut, o->n)},
                      {"repeated_share", share(o->n_repeated, o->n)},
                      {"mean_output_tokens", o->mean_tokens}};
        for (size_t i = 0; i < sizeof shares / sizeof shares[0]; i++) {
            BAL_TRY(bal_buf_printf(out, ", \"%s\": ", shares[i].key));
            BAL_TRY(bal_json_put_f64(out, shares[i].value));
        }
    }
    for (size_t f = 0; f < r->n_filters; f++)
        BAL_TRY(put_metric(out, "extraction_failure_share", t->scorer->filter(t, f),
                           share(r->n_failed[f], r->n_records[f])));
    for (size_t i = 0; i < r->metrics.n; i++) {
        const metric *m = &r->metrics.items[i];
        if (isnan(m->low))
            continue;
        (void)snprintf(key, sizeof key, "%s_wilson_low", m->name);
        BAL_TRY(put_metric(out, key, m->filter, m->low));
        (void)snprintf(key, sizeof key, "%s_wilson_high", m->name);
        BAL_TRY(put_metric(out, key, m->filter, m->high));
    }
    if (t->missing.len > 0)
        BAL_TRY(put_key(out, "missing_files", bal_buf_cstr(&t->missing)));
    BAL_TRY(bal_buf_text(out, "}"));
out:
    return status;
}

bal_status report_json(bal_buf *out, const session *s, const task_result *r, const char *config, const char *run_uuid,
                       double seconds)
{
    static const struct {
        const char *key;
        bal_status (*put)(bal_buf *out, const task_result *r);
    } parts[] = {{"results", put_results}, {"configs", put_config},          {"versions", put_version},
                 {"n-shot", put_shots},    {"higher_is_better", put_better}, {"n-samples", put_samples},
                 {"balora", put_more}};
    bool first;
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{"));
    for (size_t p = 0; p < sizeof parts / sizeof parts[0]; p++) {
        BAL_TRY(bal_buf_printf(out, "%s\n\"%s\": {", p == 0 ? "" : ",", parts[p].key));
        first = true;
        for (size_t i = 0; i < s->n_tasks; i++) {
            if (s->tasks[i].not_run[0] != '\0')
                continue;
            BAL_TRY(bal_buf_printf(out, "%s\n  \"%s\": ", first ? "" : ",", s->tasks[i].task.name));
            BAL_TRY(parts[p].put(out, &r[i]));
            first = false;
        }
        BAL_TRY(bal_buf_text(out, "\n}"));
    }
    BAL_TRY(bal_buf_text(out, ",\n\"not_run\": {"));
    first = true;
    for (size_t i = 0; i < s->n_tasks; i++) {
        if (s->tasks[i].not_run[0] == '\0')
            continue;
        BAL_TRY(bal_buf_printf(out, "%s\"%s\": ", first ? "" : ", ", s->tasks[i].task.name));
        BAL_TRY(bal_json_put_text(out, s->tasks[i].not_run));
        first = false;
    }
    BAL_TRY(bal_buf_text(out, "},\n\"model_source\": \"balora\", \"model_name\": "));
    BAL_TRY(bal_json_put_text(out, s->c->model == NULL ? "" : s->c->model));
    BAL_TRY(bal_buf_printf(out,
                           ",\n\"config\": %s,\n\"run_id\": \"%s\",\n\"total_evaluation_time_seconds\": \"%.3f\"\n}\n",
                           config, run_uuid, seconds));
out:
    return status;
}

static bal_status table_row(bal_buf *out, const task *t, const metric *m, bool first)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "|%s|", first ? t->name : ""));
    if (first)
        BAL_TRY(bal_buf_printf(out, "%g|", t->version));
    else
        BAL_TRY(bal_buf_text(out, "|"));
    BAL_TRY(bal_buf_printf(out, "%s|%zu|%s|%s|%.4f|\xc2\xb1|", m->filter, t->num_fewshot, m->name,
                           m->higher_is_better ? "\xe2\x86\x91" : (m->lower_is_better ? "\xe2\x86\x93" : " "),
                           m->value));
    if (isfinite(m->stderr_value))
        BAL_TRY(bal_buf_printf(out, "%.4f|", m->stderr_value));
    else
        BAL_TRY(bal_buf_text(out, "N/A|"));
    if (isnan(m->low))
        BAL_TRY(bal_buf_text(out, "|"));
    else
        BAL_TRY(bal_buf_printf(out, "[%.4f, %.4f]|", m->low, m->high));
    BAL_TRY(bal_buf_printf(out, "%zu|", m->n));
    if (!isnan(m->low) && m->n < FEW_ITEMS)
        BAL_TRY(bal_buf_printf(out, "%.4f|\n", bal_detectable_difference(fmin(fmax(m->value, 0.05), 0.95), m->n)));
    else if (isfinite(m->stderr_value) && m->stderr_value > 0 && m->n < FEW_ITEMS) /* of two runs: sqrt 2 */
        BAL_TRY(bal_buf_printf(out, "%.4f|\n", bal_detectable_effect(sqrt(2) * m->stderr_value)));
    else
        BAL_TRY(bal_buf_text(out, "|\n"));
out:
    return status;
}

static bal_status table_notes(bal_buf *out, const task_result *r)
{
    const task *t = &r->r->task;
    const output_notes *o = &r->notes;
    bal_status status = BAL_OK;
    if (t->scorer->kind == SCORER_GENERATE) {
        BAL_TRY(bal_buf_printf(out,
                               "%s: %.1f %% of the outputs empty, %.1f %% ended by the limit of %zu tokens, %.1f %% "
                               "ending in repetition, %.1f tokens on average; nothing extracted:",
                               t->name, 100 * share(o->n_empty, o->n), 100 * share(o->n_cut, o->n), t->max_gen_toks,
                               100 * share(o->n_repeated, o->n), o->mean_tokens));
        for (size_t f = 0; f < r->n_filters; f++)
            BAL_TRY(bal_buf_printf(out, "%s %.1f %% (%s)", f == 0 ? "" : ",",
                                   100 * share(r->n_failed[f], r->n_records[f]), t->scorer->filter(t, f)));
        BAL_TRY(bal_buf_text(out, "\n"));
    }
    if (t->scorer->judge_late != NULL && t->scorer->kind == SCORER_GENERATE && r->n_timed_out + r->n_outside > 0)
        BAL_TRY(bal_buf_printf(out, "%s: of the programs %zu ran out of time, %zu were killed from outside\n", t->name,
                               r->n_timed_out, r->n_outside));
    if (r->r->n_no_gold > 0)
        BAL_TRY(bal_buf_printf(out, "%s: %zu item%s without a right answer left out\n", t->name, r->r->n_no_gold,
                               r->r->n_no_gold == 1 ? "" : "s"));
    if (t->missing.len > 0)
        BAL_TRY(bal_buf_printf(out, "%s: not run in part: missing %s\n", t->name, bal_buf_cstr(&t->missing)));
out:
    return status;
}

bal_status report_table(bal_buf *out, const session *s, const task_result *r)
{
    size_t n_rows = 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < s->n_tasks; i++)
        n_rows += r[i].metrics.n;
    if (n_rows > 0)
        BAL_TRY(bal_buf_text(out, "|Tasks|Version|Filter|n-shot|Metric| |Value| |Stderr|Wilson 95 %|n|detectable|\n"
                                  "|---|---:|---|---:|---|---|---:|---|---:|---|---:|---:|\n"));
    for (size_t i = 0; i < s->n_tasks; i++)
        for (size_t m = 0; m < r[i].metrics.n; m++)
            BAL_TRY(table_row(out, &s->tasks[i].task, &r[i].metrics.items[m], m == 0));
    BAL_TRY(bal_buf_text(out, n_rows > 0 ? "\n" : ""));
    for (size_t i = 0; i < s->n_tasks; i++) {
        if (s->tasks[i].not_run[0] != '\0')
            BAL_TRY(bal_buf_printf(out, "%s: not run: %s\n", s->tasks[i].task.name, s->tasks[i].not_run));
        else
            BAL_TRY(table_notes(out, &r[i]));
    }
out:
    return status;
}
