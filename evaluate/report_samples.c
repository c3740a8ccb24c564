/* Sample lines as lm-evaluation-harness logs them: one per item and filter.  Its hashes are SHA-256 of the record as
 * Python's json.dumps(record, indent=2, ensure_ascii=False) writes it, of the first request's context, and of the
 * target as text.  (A whole number that the data file writes with a point loses it here.)
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/report.h"

#include "lib/base/file.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bal_status put_hash(bal_buf *out, const char *key, const char *text, size_t n)
{
    char hex[65];
    bal_sha256_hex(text, n, hex);
    return bal_buf_printf(out, ", \"%s\": \"%s\"", key, hex);
}

/* Whole numbers of a parsed record as texts without an exponent. */
static bal_status write_whole_numbers(cJSON *v)
{
    const double most = 9007199254740992.0; /* 2^53 */
    char text[32];
    for (; v != NULL; v = v->next) {
        if (cJSON_IsNumber(v) && fabs(v->valuedouble) < most && floor(v->valuedouble) == v->valuedouble) {
            (void)snprintf(text, sizeof text, "%.0f", v->valuedouble);
            cJSON *raw = cJSON_CreateRaw(text);
            if (raw == NULL)
                return BAL_ENOMEM;
            v->type = cJSON_Raw;
            v->valuestring = raw->valuestring; /* its owner is v now */
            raw->valuestring = NULL;
            cJSON_Delete(raw);
        }
        bal_status status = v->child != NULL ? write_whole_numbers(v->child) : BAL_OK;
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status put_doc_hash(bal_buf *out, const cJSON *doc)
{
    cJSON *copy = cJSON_Duplicate(doc, true);
    bal_buf text = {0};
    bal_status status;
    if (copy == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(write_whole_numbers(copy));
    BAL_TRY(bal_json_put(&text, copy, true));
    status = put_hash(out, "doc_hash", bal_buf_cstr(&text), text.len);
out:
    cJSON_Delete(copy);
    bal_buf_dispose(&text);
    return status;
}

/* The right answer: its number among the choices, else a text. */
static bal_status put_target(bal_buf *out, bal_buf *target, const task *t, size_t item)
{
    bool found = false;
    if (t->choices == NULL) {
        bal_status status = task_target(t, item, target, &found);
        return status == BAL_OK ? bal_json_put_textn(out, bal_buf_cstr(target), target->len) : status;
    }
    bal_status status = bal_buf_printf(target, "%d", task_label(t, t->test.items[item]));
    return status == BAL_OK ? bal_buf_text(out, bal_buf_cstr(target)) : status;
}

static bal_status put_arguments(bal_buf *out, const task_run *r, size_t item)
{
    const task *t = &r->task;
    const item_run *it = &r->items[item];
    bal_status status;
    BAL_TRY(bal_buf_text(out, ", \"arguments\": {"));
    for (size_t k = 0; k < it->pairs.n; k++) {
        BAL_TRY(bal_buf_printf(out, "%s\"gen_args_%zu\": {\"arg_0\": ", k == 0 ? "" : ", ", k));
        BAL_TRY(bal_json_put_text(out, bal_buf_cstr(&it->pairs.items[k].context)));
        BAL_TRY(bal_buf_text(out, ", \"arg_1\": "));
        BAL_TRY(bal_json_put_text(out, bal_buf_cstr(&it->pairs.items[k].continuation)));
        BAL_TRY(bal_buf_text(out, "}"));
    }
    if (t->scorer->kind == SCORER_GENERATE) {
        BAL_TRY(bal_buf_text(out, "\"gen_args_0\": {\"arg_0\": "));
        BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(&it->prompt), it->prompt.len));
        BAL_TRY(bal_buf_text(out, ", \"arg_1\": {\"until\": ["));
        for (size_t i = 0; i < t->n_until; i++) {
            BAL_TRY(bal_buf_text(out, i == 0 ? "" : ", "));
            BAL_TRY(bal_json_put_text(out, t->until[i]));
        }
        BAL_TRY(bal_buf_printf(out, "], \"do_sample\": %s, \"temperature\": %.17g, \"max_gen_toks\": %zu}}",
                               t->temperature > 0 ? "true" : "false", t->temperature, t->max_gen_toks));
    }
    status = bal_buf_text(out, "}");
out:
    return status;
}

/* "resps" and "filtered_resps" of log-likelihoods: [["-1.5", "False"]] a request, and the same without the list. */
static bal_status put_likelihoods(bal_buf *out, const char *output)
{
    cJSON *json = NULL;
    bal_buf number = {0};
    bal_status status;
    BAL_TRY(bal_json_parse(&json, output, strlen(output), "stored log-likelihoods"));
    const cJSON *lls = bal_json_member(json, "ll"), *greedy = bal_json_member(json, "greedy");
    for (int pass = 0; pass < 2; pass++) {
        BAL_TRY(bal_buf_text(out, pass == 0 ? ", \"resps\": [" : "], \"filtered_resps\": ["));
        for (int k = 0; k < cJSON_GetArraySize(lls); k++) {
            const cJSON *ll = cJSON_GetArrayItem(lls, k);
            bal_buf_clear(&number);
            BAL_TRY(bal_json_put_f64(&number, cJSON_IsNumber(ll) ? ll->valuedouble : 0));
            BAL_TRY(bal_buf_printf(
                out, "%s%s[\"%s\", \"%s\"]%s", k == 0 ? "" : ", ", pass == 0 ? "[" : "", bal_buf_cstr(&number),
                cJSON_IsTrue(cJSON_GetArrayItem(greedy, k)) != 0 ? "True" : "False", pass == 0 ? "]" : ""));
        }
    }
    status = bal_buf_text(out, "]");
out:
    cJSON_Delete(json);
    bal_buf_dispose(&number);
    return status;
}

static bal_status put_texts(bal_buf *out, const record *x, size_t n)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, ", \"resps\": [["));
    for (size_t k = 0; k < n; k++) {
        BAL_TRY(bal_buf_text(out, k == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_text(out, x[k].output));
    }
    BAL_TRY(bal_buf_text(out, "]], \"filtered_resps\": ["));
    for (size_t k = 0; k < n; k++) {
        BAL_TRY(bal_buf_text(out, k == 0 ? "" : ", "));
        if (x[k].extracted == NULL)
            BAL_TRY(bal_buf_text(out, "null"));
        else
            BAL_TRY(bal_json_put_text(out, x[k].extracted));
    }
    status = bal_buf_text(out, "]");
out:
    return status;
}

/* The line of n repeats of one item. */
static bal_status sample_line(bal_buf *out, const task_run *r, const char *filter, const record *x, size_t n)
{
    const task *t = &r->task;
    const item_run *it = &r->items[x->item];
    const bal_buf *context = it->pairs.n > 0 ? &it->pairs.items[0].context : &it->prompt;
    bal_buf target = {0}, doc = {0};
    bal_status status;
    BAL_TRY(bal_json_put(&doc, t->test.items[x->item], false));
    BAL_TRY(bal_buf_printf(out, "{\"doc_id\": %zu, \"doc\": %s, \"target\": ", x->item, bal_buf_cstr(&doc)));
    BAL_TRY(put_target(out, &target, t, x->item));
    BAL_TRY(put_arguments(out, r, x->item));
    BAL_TRY(t->scorer->kind == SCORER_GENERATE ? put_texts(out, x, n) : put_likelihoods(out, x->output));
    BAL_TRY(bal_buf_printf(out, ", \"filter\": \"%s\", \"metrics\": [\"%s\"]", filter, t->scorer->item_metric));
    BAL_TRY(put_doc_hash(out, t->test.items[x->item]));
    if (context->len > 0 || it->pairs.n > 0)
        BAL_TRY(put_hash(out, "prompt_hash", bal_buf_cstr(context), context->len));
    else /* rescored: the prompts are not made again; the store's hash is of the continuations as well */
        BAL_TRY(bal_buf_printf(out, ", \"prompt_hash\": \"%s\"", it->hash));
    BAL_TRY(put_hash(out, "target_hash", bal_buf_cstr(&target), target.len));
    BAL_TRY(bal_buf_printf(out, ", \"finish_reason\": \"%s\", \"output_tokens\": %zu, \"%s\": ",
                           x->finish_reason == NULL ? "" : x->finish_reason, x->output_tokens, t->scorer->item_metric));
    BAL_TRY(bal_json_put_f64(out, x->score));
    status = bal_buf_text(out, "}\n");
out:
    bal_buf_dispose(&target);
    bal_buf_dispose(&doc);
    return status;
}

bal_status report_samples(const char *path, const task_result *r)
{
    bal_writer w = {0};
    bal_buf line = {0};
    bal_status status;
    BAL_TRY(bal_writer_open(&w, path));
    for (size_t i = 0; i < r->n_records[0];) {
        size_t n = 1;
        while (i + n < r->n_records[0] && r->records[0][i + n].item == r->records[0][i].item)
            n++;
        for (size_t f = 0; f < r->n_filters; f++) {
            bal_buf_clear(&line);
            BAL_TRY(sample_line(&line, r->r, r->r->task.scorer->filter(&r->r->task, f), &r->records[f][i], n));
            BAL_TRY(bal_writer_write(&w, line.data, line.len));
        }
        i += n;
    }
    status = bal_writer_commit(&w);
out:
    bal_writer_abort(&w);
    bal_buf_dispose(&line);
    return status;
}
