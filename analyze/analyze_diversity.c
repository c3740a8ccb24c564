/* balora analyze diversity: stored outputs, or a file of texts.  SPDX-License-Identifier: Apache-2.0 */
#include "analyze/analyze.h"

#include "analyze/diversity.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct text_list {
    char **items;
    size_t n, cap;
} text_list;

static bal_status add_text(text_list *l, const char *text)
{
    if (l->n == l->cap) {
        size_t cap = l->cap == 0 ? 256 : 2 * l->cap;
        char **items = bal_realloc(l->items, cap, sizeof *items);
        if (items == NULL)
            return BAL_ENOMEM;
        l->items = items;
        l->cap = cap;
    }
    l->items[l->n] = bal_strdup(text);
    return l->items[l->n] == NULL ? BAL_ENOMEM : (l->n++, BAL_OK);
}

static bal_status read_file(text_list *l, const char *path, const char *field)
{
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    bal_status status = bal_lines_open(&lines, path);
    while (status == BAL_OK && (status = bal_jsonl_next(lines, &line)) == BAL_OK && line != NULL) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, field));
        status = text != NULL ? add_text(l, text)
                              : bal_fail(BAL_EFORMAT, "%s, line %zu: no text under the key '%s' (--field names it)",
                                         path, bal_lines_number(lines), field);
        cJSON_Delete(line);
    }
    bal_lines_close(lines);
    return status;
}

/* One output an item: the rows of further filters repeat it. */
static bal_status read_run(text_list *l, bal_store *store, int64_t of, const char *task)
{
    sqlite3_stmt *q = NULL;
    bool row = false;
    bal_status status =
        bal_store_prepare(store,
                          "SELECT output FROM eval_item WHERE run_id = ?1 AND output IS NOT NULL AND "
                          "(?2 IS NULL OR task = ?2) GROUP BY task, item, repeat ORDER BY task, item, repeat",
                          &q);
    if (status != BAL_OK)
        return status;
    (void)sqlite3_bind_int64(q, 1, of);
    if (task != NULL)
        (void)sqlite3_bind_text(q, 2, task, -1, SQLITE_STATIC);
    while ((status = bal_store_step(store, q, &row)) == BAL_OK && row) {
        const char *text = (const char *)sqlite3_column_text(q, 0);
        status = add_text(l, text != NULL ? text : "");
        if (status != BAL_OK)
            break;
    }
    (void)sqlite3_finalize(q);
    return status;
}

static bal_status print_result(const bal_common *common, const diversity_stats *s, const double *values)
{
    bal_buf b = {0};
    bool first = true;
    bal_status status = BAL_OK;
    if (!common->json) {
        printf("%zu texts, %zu bytes\n", s->n_texts, s->joined_bytes);
        for (size_t i = 0; i < DIVERSITY_N_NAMED; i++)
            if (isnan(values[i]))
                printf("  %-24s %12s   %s\n", diversity_names[i], "undefined", diversity_conventions[i]);
            else
                printf("  %-24s %12.5g   %s\n", diversity_names[i], values[i], diversity_conventions[i]);
        return BAL_OK;
    }
    BAL_TRY(bal_buf_printf(&b, "{\"texts\": %zu, \"bytes\": %zu, \"statistics\": [", s->n_texts, s->joined_bytes));
    for (size_t i = 0; i < DIVERSITY_N_NAMED; i++)
        BAL_TRY(analyze_put_number(&b, diversity_names[i], diversity_conventions[i], values[i], "undefined", &first));
    BAL_TRY(bal_buf_text(&b, "]}\n"));
    if (fwrite(b.data, 1, b.len, stdout) != b.len)
        BAL_TRY(bal_fail(BAL_EIO, "standard output cannot be written"));
out:
    bal_buf_dispose(&b);
    return status;
}

bal_status analyze_diversity(const analyze_config *c, const bal_common *common, bal_store *store, int64_t run,
                             int64_t of)
{
    text_list texts = {0};
    diversity_stats stats;
    double values[DIVERSITY_N_NAMED];
    char uuid[33];
    bal_status status = BAL_OK;
    if ((c->run == NULL) == (c->input == NULL))
        BAL_TRY(bal_fail(BAL_EINVAL, "give either --run RUN or --input FILE"));
    if (c->run != NULL) {
        BAL_TRY(bal_run_uuid(store, of, uuid));
        BAL_TRY(read_run(&texts, store, of, c->task));
    } else {
        BAL_TRY(read_file(&texts, c->input, c->field));
    }
    if (texts.n == 0)
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s holds no outputs", c->run != NULL ? c->run : c->input));
    BAL_TRY(diversity_statistics((const char *const *)texts.items, texts.n, (size_t)c->vocab, (size_t)c->max_pairs,
                                 &stats));
    diversity_named_values(&stats, values);
    if (store != NULL && run != 0) {
        BAL_TRY(bal_store_begin(store));
        if (of != 0)
            BAL_TRY(bal_run_tag(store, run, "of_run", uuid));
        for (size_t i = 0; i < DIVERSITY_N_NAMED; i++) {
            char name[64];
            (void)snprintf(name, sizeof name, "diversity/%s", diversity_names[i]);
            BAL_TRY(bal_run_metric(store, run, name, 0, values[i]));
        }
        BAL_TRY(bal_store_commit(store));
    }
    BAL_TRY(print_result(common, &stats, values));
out:
    if (status != BAL_OK && store != NULL && run != 0)
        bal_store_rollback(store);
    for (size_t i = 0; i < texts.n; i++)
        bal_free(texts.items[i]);
    bal_free(texts.items);
    return status;
}
