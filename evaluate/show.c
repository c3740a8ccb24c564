/* --list and --show: what there is, and exactly what a model would be asked.  SPDX-License-Identifier: Apache-2.0 */
#include "evaluate/session.h"

#include "lib/base/mem.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bal_status list_group(const cJSON *json, const char *name, bal_buf *out)
{
    const cJSON *item = NULL;
    bool first = true;
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "%-28s group:", name));
    cJSON_ArrayForEach(item, bal_json_member(json, "tasks"))
    {
        BAL_TRY(bal_buf_printf(out, "%s %s", first ? "" : ",", item->valuestring));
        first = false;
    }
    status = bal_buf_text(out, "\n");
out:
    return status;
}

static bal_status list_task(const char *name, const char *data, bal_buf *out)
{
    static const char *const kinds[] = {"generation", "likelihood", "rolling", "masked"};
    const task_change change = {.num_fewshot = -1};
    task t;
    bal_status status = task_read(&t, name, &change);
    char note[128] = "";
    if (status == BAL_OK && data != NULL) {
        t.num_fewshot = 0; /* the evaluated split is what counts here */
        bal_status there = task_read_data(&t, data);
        if (there == BAL_OK)
            (void)snprintf(note, sizeof note, "%zu items", t.test.n);
        else
            (void)snprintf(note, sizeof note, "data missing");
    }
    const cJSON *shots = bal_json_member(t.json, "num_fewshot"), *about = bal_json_member(t.json, "note");
    if (status == BAL_OK)
        status = bal_buf_printf(out, "%-28s %-10s v%-4g %2d shots%s%-14s%s%s", t.name, kinds[t.scorer->kind], t.version,
                                cJSON_IsNumber(shots) ? (int)shots->valuedouble : 0, note[0] == '\0' ? "" : "  ", note,
                                cJSON_IsString(about) ? " " : "", cJSON_IsString(about) ? about->valuestring : "");
    while (status == BAL_OK && out->len > 0 && out->data[out->len - 1] == ' ')
        out->data[--out->len] = '\0';
    if (status == BAL_OK)
        status = bal_buf_text(out, "\n");
    task_dispose(&t);
    return status;
}

bal_status evaluate_list(const evaluate_config *c, const bal_common *common)
{
    const char *data = c->data != NULL ? c->data : getenv("BALORA_DATA");
    bal_buf out = {0};
    cJSON *json = NULL;
    bal_status status = BAL_OK;
    if (common->json)
        BAL_TRY(bal_buf_text(&out, "["));
    for (size_t i = 0; i < k_n_task_files; i++) {
        if (common->json) {
            BAL_TRY(bal_buf_printf(&out, "%s\n%s", i == 0 ? "" : ",", k_task_files[i].text));
            continue;
        }
        BAL_TRY(bal_json_parse(&json, k_task_files[i].text, strlen(k_task_files[i].text), k_task_files[i].name));
        status = bal_json_member(json, "tasks") != NULL ? list_group(json, k_task_files[i].name, &out)
                                                        : list_task(k_task_files[i].name, data, &out);
        cJSON_Delete(json);
        json = NULL;
        if (status != BAL_OK)
            goto out;
    }
    if (common->json)
        BAL_TRY(bal_buf_text(&out, "]\n"));
    status = evaluate_write(NULL, &out);
out:
    cJSON_Delete(json);
    bal_buf_dispose(&out);
    return status;
}

static bal_status show_json(const task_run *r, size_t i, const bal_buf *target, bal_buf *out)
{
    const item_run *it = &r->items[i];
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "{\"task\": \"%s\", \"item\": %zu, \"doc\": ", r->task.name, i));
    BAL_TRY(bal_json_put(out, r->task.test.items[i], false));
    BAL_TRY(bal_buf_text(out, ", \"prompt\": "));
    BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(&it->prompt), it->prompt.len));
    BAL_TRY(bal_buf_text(out, ", \"target\": "));
    BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(target), target->len));
    BAL_TRY(bal_buf_text(out, ", \"requests\": ["));
    for (size_t k = 0; k < it->pairs.n; k++) {
        BAL_TRY(bal_buf_printf(out, "%s{\"context\": ", k == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_text(out, bal_buf_cstr(&it->pairs.items[k].context)));
        BAL_TRY(bal_buf_text(out, ", \"continuation\": "));
        BAL_TRY(bal_json_put_text(out, bal_buf_cstr(&it->pairs.items[k].continuation)));
        BAL_TRY(bal_buf_text(out, "}"));
    }
    BAL_TRY(bal_buf_text(out, "], \"until\": ["));
    for (size_t k = 0; k < r->task.n_until; k++) {
        BAL_TRY(bal_buf_text(out, k == 0 ? "" : ", "));
        BAL_TRY(bal_json_put_text(out, r->task.until[k]));
    }
    status = bal_buf_text(out, "]}\n");
out:
    return status;
}

/* The prompt's bytes as they are, then what is asked behind it. */
static bal_status show_text(const task_run *r, size_t i, const bal_buf *target, bal_buf *out)
{
    const item_run *it = &r->items[i];
    bal_status status;
    BAL_TRY(bal_buf_printf(out, "=== %s, item %zu: %s ===\n", r->task.name, i, it->pairs.n > 0 ? "context" : "prompt"));
    BAL_TRY(bal_buf_append(out, bal_buf_cstr(&it->prompt), it->prompt.len));
    BAL_TRY(bal_buf_text(out, "\n=== target ===\n"));
    BAL_TRY(bal_buf_append(out, bal_buf_cstr(target), target->len));
    BAL_TRY(bal_buf_text(out, "\n"));
    for (size_t k = 0; k < it->pairs.n; k++) {
        BAL_TRY(bal_buf_printf(out, "=== continuation %zu ===\n", k));
        if (strcmp(bal_buf_cstr(&it->pairs.items[k].context), bal_buf_cstr(&it->prompt)) != 0)
            BAL_TRY(bal_buf_printf(out, "(after) %s\n", bal_buf_cstr(&it->pairs.items[k].context)));
        BAL_TRY(bal_json_put_text(out, bal_buf_cstr(&it->pairs.items[k].continuation)));
        BAL_TRY(bal_buf_text(out, "\n"));
    }
out:
    return status;
}

bal_status evaluate_show(const evaluate_config *c, const bal_common *common)
{
    bal_buf out = {0}, target = {0};
    char range[64];
    evaluate_config one = *c;
    const char *name = c->show;
    bool found = false;
    bal_status status;
    session *s = bal_alloc(1, sizeof *s);
    if (s == NULL)
        return BAL_ENOMEM;
    (void)snprintf(range, sizeof range, "%lld:%lld", (long long)c->item, (long long)c->item + 1);
    one.item_range = range;
    one.shard = NULL;
    one.limit = 0;
    one.tasks = (bal_text_list){&name, 1};
    *s = (session){.c = &one, .common = common};
    if (c->apply_chat_template) {
        const char *path = c->tokenizer != NULL ? c->tokenizer : c->model;
        if (path == NULL) {
            status = bal_fail(BAL_EINVAL, "--apply-chat-template needs --tokenizer or --model");
            goto out;
        }
        BAL_TRY(bal_tokenizer_load(&s->tokenizer, path));
    }
    s->chat = (chat_form){.plain = !c->apply_chat_template,
                          .tokenizer = s->tokenizer,
                          .system = c->system_instruction,
                          .multiturn = c->fewshot_as_multiturn};
    BAL_TRY(session_read_tasks(s));
    if (s->n_tasks != 1) {
        status = bal_fail(BAL_EINVAL, "--show takes one task; '%s' is a group", c->show);
        goto out;
    }
    task_run *r = &s->tasks[0];
    if ((size_t)c->item >= r->task.test.n) {
        status = bal_fail(BAL_EINVAL, "task '%s' has items 0 to %zu, not %lld", r->task.name, r->task.test.n - 1,
                          (long long)c->item);
        goto out;
    }
    BAL_TRY(session_prepare(s, r));
    BAL_TRY(task_target(&r->task, (size_t)c->item, &target, &found));
    BAL_TRY(common->json ? show_json(r, (size_t)c->item, &target, &out) : show_text(r, (size_t)c->item, &target, &out));
    status = evaluate_write(NULL, &out);
out:
    session_dispose(s);
    bal_free(s);
    bal_buf_dispose(&out);
    bal_buf_dispose(&target);
    return status;
}
