/* Several adapters over one model, side by side: the base and each adapter are asked the same, over the same weights.
 * SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/evaluate.h"
#include "lib/base/mem.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct entrant {
    const char *adapter; /* NULL: the base */
    bal_buf document;
    cJSON *json; /* of tasks and perplexity */
} entrant;

static const char *label(const entrant *e)
{
    return e->adapter == NULL ? "base" : e->adapter;
}

static bal_status put_adapter(bal_buf *out, const entrant *e)
{
    return e->adapter == NULL ? bal_buf_text(out, "null") : bal_json_put_text(out, e->adapter);
}

static bal_status run(const evaluate_config *c, const bal_common *common, const bal_bundle *base, entrant *e,
                      size_t index, int argc, char **argv)
{
    evaluate_config own = *c;
    bal_bundle view = {0};
    bal_buf name = {0}, samples = {0};
    const char *slash = e->adapter == NULL ? NULL : strrchr(e->adapter, '/');
    const char *last = slash != NULL && slash[1] != '\0' ? slash + 1 : label(e);
    bal_status status;
    own.adapter = e->adapter;
    own.document = &e->document;
    if (c->name != NULL) {
        BAL_TRY(bal_buf_printf(&name, "%s: %s", c->name, last));
        own.name = bal_buf_cstr(&name);
    }
    if (c->log_samples != NULL) { /* a folder each */
        BAL_TRY(bal_buf_printf(&samples, "%s/%zu-", c->log_samples, index));
        for (const char *p = last; *p != '\0'; p++)
            BAL_TRY(bal_buf_append(&samples, *p == '/' || *p == '.' ? "_" : p, 1));
        own.log_samples = bal_buf_cstr(&samples);
    }
    BAL_TRY(bal_bundle_view(&view, base, e->adapter));
    bal_log_line(&common->log, BAL_LOG_INFO, "== %s", label(e));
    if (view.note[0] != '\0')
        bal_log_line(&common->log, BAL_LOG_INFO, "%s", view.note);
    if (c->requests != NULL)
        status = evaluate_requests(&own, common, &view);
    else if (c->perplexity != NULL)
        status = evaluate_perplexity(&own, common, &view);
    else
        status = evaluate_tasks(&own, common, &view, argc, argv);
    if (status == BAL_OK && c->requests == NULL)
        status = bal_json_parse(&e->json, bal_buf_cstr(&e->document), e->document.len, "the figures");
out:
    bal_bundle_dispose(&view);
    bal_buf_dispose(&name);
    bal_buf_dispose(&samples);
    return status;
}

/* {"models": [{"adapter": null, ...document}, ...]} */
static bal_status put_documents(bal_buf *out, const entrant *e, size_t n)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, "{\"models\": ["));
    for (size_t i = 0; i < n; i++) {
        const char *body = strchr(bal_buf_cstr(&e[i].document), '{');
        BAL_TRY(bal_buf_text(out, i == 0 ? "\n{\"adapter\": " : ",\n{\"adapter\": "));
        BAL_TRY(put_adapter(out, &e[i]));
        BAL_TRY(bal_buf_printf(out, ", %s", body == NULL ? "}" : body + 1));
    }
    BAL_TRY(bal_buf_text(out, "]}\n"));
out:
    return status;
}

/* Line i of every entrant's answers as one: {"answers": [{"adapter": null, ...}, ...]}. */
static bal_status put_answers(bal_buf *out, const entrant *e, size_t n)
{
    bal_status status = BAL_OK;
    const char **at = bal_alloc(n, sizeof *at); // NOLINT(bugprone-sizeof-expression): pointers are meant
    if (at == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n; i++)
        at[i] = bal_buf_cstr(&e[i].document);
    while (*at[0] != '\0') {
        BAL_TRY(bal_buf_text(out, "{\"answers\": ["));
        for (size_t i = 0; i < n; i++) {
            size_t length = strcspn(at[i], "\n");
            BAL_TRY(bal_buf_text(out, i == 0 ? "{\"adapter\": " : ", {\"adapter\": "));
            BAL_TRY(put_adapter(out, &e[i]));
            BAL_TRY(bal_buf_printf(out, ", %.*s", length > 0 ? (int)length - 1 : 0, at[i] + 1));
            at[i] += length + (at[i][length] == '\n');
        }
        BAL_TRY(bal_buf_text(out, "]}\n"));
    }
out:
    bal_free(at);
    return status;
}

static bal_status put_head(bal_buf *out, const char *first, const entrant *e, size_t n)
{
    bal_status status;
    BAL_TRY(bal_buf_text(out, first));
    for (size_t i = 0; i < n; i++)
        BAL_TRY(bal_buf_printf(out, "%s|", label(&e[i])));
    BAL_TRY(bal_buf_text(out, "\n"));
    for (const char *p = first; *p != '\0'; p++)
        if (*p == '|')
            BAL_TRY(bal_buf_text(out, p == first ? "|" : "---|"));
    for (size_t i = 0; i < n; i++)
        BAL_TRY(bal_buf_text(out, "---:|"));
    BAL_TRY(bal_buf_text(out, "\n"));
out:
    return status;
}

static bal_status put_cell(bal_buf *out, const cJSON *value, const cJSON *error)
{
    if (!cJSON_IsNumber(value))
        return bal_buf_text(out, "-|");
    if (!cJSON_IsNumber(error))
        return bal_buf_printf(out, "%.4f|", value->valuedouble);
    return bal_buf_printf(out, "%.4f ± %.4f|", value->valuedouble, error->valuedouble);
}

/* One figure of all: the key "acc,none" of a task, whose error is "acc_stderr,none". */
static bal_status put_figure(bal_buf *out, const char *task, const char *key, const entrant *e, size_t n)
{
    const char *comma = strchr(key, ',');
    char error[256];
    bal_status status;
    (void)snprintf(error, sizeof error, "%.*s_stderr%s", (int)(comma - key), key, comma);
    BAL_TRY(bal_buf_printf(out, "|%s|%s|", task, key));
    for (size_t i = 0; i < n; i++) {
        const cJSON *of = bal_json_member(bal_json_member(e[i].json, "results"), task);
        BAL_TRY(put_cell(out, bal_json_member(of, key), bal_json_member(of, error)));
    }
    BAL_TRY(bal_buf_text(out, "\n"));
out:
    return status;
}

static bal_status put_tasks(bal_buf *out, const entrant *e, size_t n)
{
    const cJSON *task = NULL, *figure = NULL;
    bal_status status;
    BAL_TRY(put_head(out, "|Tasks|Figure|", e, n));
    cJSON_ArrayForEach(task, bal_json_member(e[0].json, "results"))
    {
        cJSON_ArrayForEach(figure, task)
        {
            const char *key = figure->string;
            if (cJSON_IsNumber(figure) && strchr(key, ',') != NULL && strstr(key, "_stderr,") == NULL)
                BAL_TRY(put_figure(out, task->string, key, e, n));
        }
    }
out:
    return status;
}

static bal_status put_perplexity(bal_buf *out, const entrant *e, size_t n)
{
    static const char *const keys[] = {"perplexity", "mean_nll", "scored"};
    bal_status status;
    BAL_TRY(put_head(out, "|Figure|", e, n));
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
        BAL_TRY(bal_buf_printf(out, "|%s|", keys[k]));
        for (size_t i = 0; i < n; i++) {
            const cJSON *value = bal_json_member(e[i].json, keys[k]);
            BAL_TRY(bal_buf_printf(out, "%.6g|", cJSON_IsNumber(value) ? value->valuedouble : (double)NAN));
        }
        BAL_TRY(bal_buf_text(out, "\n"));
    }
out:
    return status;
}

bal_status evaluate_several(const evaluate_config *c, const bal_common *common, const bal_bundle *b, int argc,
                            char **argv)
{
    size_t n = c->adapters.n + 1;
    bal_buf out = {0};
    bal_status status = BAL_OK;
    entrant *e = bal_alloc(n, sizeof *e);
    if (e == NULL)
        return BAL_ENOMEM;
    if (c->initial_adapter != NULL || (c->perplexity != NULL && c->out != NULL))
        BAL_TRY(bal_fail(BAL_EINVAL, "several adapters go neither with --initial-adapter nor with --perplexity --out"));
    for (size_t i = 0; i < n; i++) {
        e[i].adapter = i == 0 ? NULL : c->adapters.items[i - 1];
        for (size_t j = 1; j < i; j++)
            if (strcmp(e[i].adapter, e[j].adapter) == 0)
                BAL_TRY(bal_fail(BAL_EINVAL, "adapter %s is named twice", e[i].adapter));
    }
    BAL_TRY(bal_bundle_base(b, c->adapters.items, c->adapters.n));
    for (size_t i = 0; i < n; i++)
        BAL_TRY(run(c, common, b, &e[i], i, argc, argv));
    if (c->requests != NULL)
        status = put_answers(&out, e, n);
    else if (common->json)
        status = put_documents(&out, e, n);
    else
        status = c->perplexity != NULL ? put_perplexity(&out, e, n) : put_tasks(&out, e, n);
    BAL_TRY(status);
    status = evaluate_write(c->requests != NULL ? c->out : NULL, &out);
out:
    for (size_t i = 0; i < n; i++) {
        bal_buf_dispose(&e[i].document);
        cJSON_Delete(e[i].json);
    }
    bal_free(e);
    bal_buf_dispose(&out);
    return status;
}
