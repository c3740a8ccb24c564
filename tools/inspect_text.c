/* Tokenizers and data files.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "tools/inspect.h"

#include <string.h>

enum { MAX_JSON = 512 << 20, SHOWN = 12 };

/* "Sequence(Split, ByteLevel)" for a component of tokenizer.json. */
static void put_component(bal_buf *b, const cJSON *c)
{
    static const char *const lists[] = {"normalizers", "pretokenizers", "processors", "decoders"};
    const char *type = cJSON_GetStringValue(bal_json_member(c, "type"));
    (void)bal_buf_text(b, type == NULL ? "none" : type);
    for (size_t k = 0; type != NULL && k < sizeof lists / sizeof lists[0]; k++) {
        const cJSON *list = bal_json_member(c, lists[k]), *item = NULL;
        if (!cJSON_IsArray(list))
            continue;
        (void)bal_buf_text(b, "(");
        cJSON_ArrayForEach(item, list)
        {
            const char *name = cJSON_GetStringValue(bal_json_member(item, "type"));
            (void)bal_buf_printf(b, "%s%s", item == list->child ? "" : ", ", name == NULL ? "?" : name);
        }
        (void)bal_buf_text(b, ")");
    }
}

static void add_added_tokens(bal_inspection *i, const cJSON *list)
{
    const cJSON *token = NULL;
    size_t n = 0;
    bal_inspect_number(i, i->doc, "added_tokens", (double)cJSON_GetArraySize(list));
    cJSON *special = bal_inspect_array(i, i->doc, "special_tokens");
    cJSON_ArrayForEach(token, list)
    {
        if (cJSON_IsTrue(bal_json_member(token, "special")) && n < SHOWN) {
            bal_inspect_text(i, special, NULL, cJSON_GetStringValue(bal_json_member(token, "content")));
            n++;
        }
    }
}

static void add_tokenizer_json(bal_inspection *i, const cJSON *json)
{
    static const char *const parts[] = {"normalizer", "pre_tokenizer", "post_processor", "decoder"};
    const cJSON *model = bal_json_member(json, "model"), *vocab = bal_json_member(model, "vocab");
    bal_inspect_copy(i, i->doc, "model", bal_json_member(model, "type"));
    bal_inspect_number(i, i->doc, "vocabulary", (double)cJSON_GetArraySize(vocab));
    if (bal_json_member(model, "merges") != NULL)
        bal_inspect_number(i, i->doc, "merges", (double)cJSON_GetArraySize(bal_json_member(model, "merges")));
    bal_inspect_copy(i, i->doc, "byte_fallback", bal_json_member(model, "byte_fallback"));
    for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
        bal_buf b = {0};
        put_component(&b, bal_json_member(json, parts[k]));
        bal_inspect_text(i, i->doc, parts[k], bal_buf_cstr(&b));
        bal_buf_dispose(&b);
    }
    add_added_tokens(i, bal_json_member(json, "added_tokens"));
}

/* tokenizer_config.json beside it, if there. */
static bal_status add_tokenizer_config(bal_inspection *i, const char *dir)
{
    static const char *const keys[] = {"tokenizer_class", "bos_token",        "eos_token",    "unk_token",
                                       "pad_token",       "model_max_length", "chat_template"};
    cJSON *json = NULL;
    char *path = bal_path_join(dir, "tokenizer_config.json");
    if (path == NULL)
        return BAL_ENOMEM;
    bal_status status = bal_file_exists(path) ? bal_json_read(&json, path, MAX_JSON) : BAL_OK;
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        const cJSON *value = bal_json_member(json, keys[k]), *content = bal_json_member(value, "content");
        bal_inspect_copy(i, i->doc, keys[k], content != NULL ? content : value);
    }
    cJSON_Delete(json);
    bal_free(path);
    return status;
}

bal_status bal_inspect_tokenizer(bal_inspection *i, const char *path)
{
    cJSON *json = NULL;
    bool folder = bal_folder_exists(path);
    char *file = folder ? bal_path_join(path, "tokenizer.json") : bal_strdup(path), *dir = NULL;
    bal_status status = BAL_ENOMEM;
    if (file == NULL)
        return status;
    if (folder && !bal_file_exists(file)) {
        bal_free(file);
        if ((file = bal_path_join(path, "tokenizer.json.gz")) == NULL)
            return status;
    }
    if ((dir = bal_path_dir(file)) == NULL)
        goto out;
    BAL_TRY(bal_json_read(&json, file, MAX_JSON));
    if (!cJSON_IsObject(bal_json_member(json, "model"))) {
        status = bal_fail(BAL_EFORMAT, "%s is not a tokenizer: it has no object \"model\"", file);
        goto out;
    }
    bal_inspect_text(i, i->doc, "kind", "tokenizer");
    bal_inspect_text(i, i->doc, "format", "tokenizer.json");
    add_tokenizer_json(i, json);
    status = add_tokenizer_config(i, dir);
out:
    cJSON_Delete(json);
    bal_free(file);
    bal_free(dir);
    return status;
}

/* What is known of one key of the records. */
typedef struct column {
    char *name;
    const char *type;
    double rows, min, max, sum; /* lengths: bytes of texts, elements of lists */
} column;

enum { MAX_KEYS = 64 };

typedef struct columns {
    column items[MAX_KEYS];
    size_t n, dropped;
    double rows;
} columns;

static const char *type_of(const cJSON *v)
{
    if (cJSON_IsString(v))
        return "text";
    if (cJSON_IsNumber(v))
        return "number";
    if (cJSON_IsBool(v))
        return "bool";
    if (cJSON_IsArray(v))
        return "list";
    return cJSON_IsObject(v) ? "object" : "null";
}

static bal_status count_record(columns *c, const cJSON *record)
{
    c->rows++;
    for (const cJSON *v = record->child; v != NULL; v = v->next) {
        size_t k = 0;
        while (k < c->n && strcmp(c->items[k].name, v->string) != 0)
            k++;
        if (k == MAX_KEYS) {
            c->dropped++;
            continue;
        }
        if (k == c->n) {
            if ((c->items[k].name = bal_strdup(v->string)) == NULL)
                return BAL_ENOMEM;
            c->items[k].type = type_of(v);
            c->n++;
        } else if (strcmp(c->items[k].type, type_of(v)) != 0) {
            c->items[k].type = "mixed";
        }
        column *col = &c->items[k];
        double length = cJSON_IsString(v) ? (double)strlen(v->valuestring) : (double)cJSON_GetArraySize(v);
        col->min = col->rows == 0 || length < col->min ? length : col->min;
        col->max = length > col->max ? length : col->max;
        col->sum += length;
        col->rows++;
    }
    return BAL_OK;
}

static bool has_key(const columns *c, const char *name)
{
    for (size_t k = 0; k < c->n; k++)
        if (strcmp(c->items[k].name, name) == 0)
            return true;
    return false;
}

/* The record forms that `train --data` knows. */
static const char *form_of(const columns *c)
{
    if (has_key(c, "input_ids"))
        return "pretokenised";
    if (has_key(c, "messages"))
        return "chat messages";
    if (has_key(c, "instruction") && has_key(c, "output"))
        return "Alpaca fields";
    if (has_key(c, "prompt") && (has_key(c, "response") || has_key(c, "completion")))
        return "prompt and response";
    if (has_key(c, "question") && has_key(c, "answer"))
        return "question and answer";
    return has_key(c, "text") ? "plain text" : "other records";
}

static void add_columns(bal_inspection *i, const columns *c, const cJSON *first)
{
    bal_inspect_number(i, i->doc, "records", c->rows);
    bal_inspect_text(i, i->doc, "form", form_of(c));
    if (c->dropped > 0)
        bal_inspect_text(i, i->doc, "note", "only the first 64 keys are listed");
    cJSON *table = bal_inspect_array(i, i->doc, "keys");
    for (size_t k = 0; k < c->n; k++) {
        const column *col = &c->items[k];
        cJSON *row = bal_inspect_object(i, table, NULL);
        bal_inspect_text(i, row, "key", col->name);
        bal_inspect_text(i, row, "type", col->type);
        bal_inspect_number(i, row, "records", col->rows);
        bal_inspect_number(i, row, "shortest", col->min);
        bal_inspect_number(i, row, "mean", col->rows > 0 ? (double)(long long)(col->sum / col->rows + 0.5) : 0);
        bal_inspect_number(i, row, "longest", col->max);
    }
    bal_inspect_copy(i, i->doc, "first_record", first);
}

static void dispose_columns(columns *c)
{
    for (size_t k = 0; k < c->n; k++)
        bal_free(c->items[k].name);
}

static bal_status inspect_jsonl(bal_inspection *i, const char *path)
{
    columns c = {.n = 0};
    bal_lines *lines = NULL;
    cJSON *record = NULL, *first = NULL;
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, path));
    for (;;) {
        BAL_TRY(bal_jsonl_next(lines, &record));
        if (record == NULL)
            break;
        BAL_TRY(count_record(&c, record));
        if (first == NULL)
            first = record;
        else
            cJSON_Delete(record);
        record = NULL;
    }
    bal_inspect_text(i, i->doc, "kind", "data");
    bal_inspect_text(i, i->doc, "format", "JSON lines");
    add_columns(i, &c, first);
out:
    if (record != first)
        cJSON_Delete(record);
    cJSON_Delete(first);
    bal_lines_close(lines);
    dispose_columns(&c);
    return status;
}

/* A JSON document: a list of records, or a tokenizer, or something else. */
static bal_status inspect_json(bal_inspection *i, const char *path)
{
    columns c = {.n = 0};
    cJSON *json = NULL;
    const cJSON *record = NULL;
    bal_status status = bal_json_read(&json, path, MAX_JSON);
    if (status != BAL_OK)
        return status;
    bal_inspect_text(i, i->doc, "kind", "data");
    bal_inspect_text(i, i->doc, "format", "JSON");
    if (cJSON_IsArray(json)) {
        cJSON_ArrayForEach(record, json) BAL_TRY(count_record(&c, record));
        add_columns(i, &c, json->child);
    } else {
        bal_inspect_copy(i, i->doc, "content", json);
    }
out:
    cJSON_Delete(json);
    dispose_columns(&c);
    return status;
}

static bal_status inspect_table(bal_inspection *i, const char *path, char separator)
{
    bal_table t;
    bal_status status = bal_table_read(&t, path, separator);
    if (status != BAL_OK)
        return status;
    bal_inspect_text(i, i->doc, "kind", "data");
    bal_inspect_text(i, i->doc, "format", separator == ',' ? "CSV" : "TSV");
    bal_inspect_number(i, i->doc, "rows", (double)t.n_rows);
    bal_inspect_number(i, i->doc, "columns", (double)t.n_cols);
    for (size_t r = 0; r < t.n_rows && r < 2; r++) {
        cJSON *row = bal_inspect_array(i, i->doc, r == 0 ? "first_row" : "second_row");
        for (size_t k = 0; k < t.n_cols; k++)
            bal_inspect_text(i, row, NULL, t.cells[r * t.n_cols + k]);
    }
    bal_table_dispose(&t);
    return BAL_OK;
}

static bal_status inspect_plain(bal_inspection *i, const char *path)
{
    bal_lines *lines = NULL;
    const char *text = NULL;
    size_t n = 0, longest = 0;
    double count = 0, bytes = 0;
    char *first = NULL;
    bal_status status;
    BAL_TRY(bal_lines_open(&lines, path));
    for (;;) {
        BAL_TRY(bal_lines_next(lines, &text, &n));
        if (text == NULL)
            break;
        if (memchr(text, '\0', n) != NULL) {
            status = bal_fail(BAL_EFORMAT,
                              "%s is not a file that balora knows: neither GGUF, safetensors, JSON nor text", path);
            goto out;
        }
        if (count == 0 && (first = bal_strdup(text)) == NULL) {
            status = BAL_ENOMEM;
            goto out;
        }
        count++;
        bytes += (double)n;
        longest = n > longest ? n : longest;
    }
    bal_inspect_text(i, i->doc, "kind", "data");
    bal_inspect_text(i, i->doc, "format", "text");
    bal_inspect_number(i, i->doc, "lines", count);
    bal_inspect_number(i, i->doc, "text_bytes", bytes);
    bal_inspect_number(i, i->doc, "longest_line_bytes", (double)longest);
    bal_inspect_text(i, i->doc, "first_line", first);
out:
    bal_free(first);
    bal_lines_close(lines);
    return status;
}

bal_status bal_inspect_data(bal_inspection *i, const char *path)
{
    size_t n = strlen(path);
    char *name = bal_strndup(path, bal_ends_with(path, ".gz") ? n - 3 : n);
    bal_status status;
    if (name == NULL)
        return BAL_ENOMEM;
    if (bal_ends_with(name, ".jsonl") || bal_ends_with(name, ".ndjson"))
        status = inspect_jsonl(i, path);
    else if (bal_ends_with(name, ".json"))
        status = inspect_json(i, path);
    else if (bal_ends_with(name, ".csv") || bal_ends_with(name, ".tsv"))
        status = inspect_table(i, path, bal_ends_with(name, ".csv") ? ',' : '\t');
    else
        status = inspect_plain(i, path);
    bal_free(name);
    return status;
}
