/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/data/dataset.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/jsonl.h"
#include "lib/io/records.h"
#include "lib/model/batch.h"

#include <stdio.h>
#include <string.h>

void bal_dataset_dispose(bal_dataset *d)
{
    if (d == NULL)
        return;
    bal_free(d->ids);
    bal_free(d->labels);
    bal_free(d->start);
    *d = (bal_dataset){0};
}

static bal_status reserve(bal_dataset *d, size_t tokens)
{
    if (d->n + 2 > d->cap_records) {
        size_t cap = d->cap_records < 256 ? 256 : d->cap_records * 2;
        size_t *start = bal_realloc(d->start, cap, sizeof *start);
        if (start == NULL)
            return BAL_ENOMEM;
        d->start = start;
        d->cap_records = cap;
        if (d->n == 0)
            d->start[0] = 0;
    }
    size_t need = 0;
    if (!bal_add_size(d->n_tokens, tokens, &need))
        return bal_fail(BAL_ELIMIT, "the data set is too large");
    if (need > d->cap_tokens) {
        size_t cap = need + need / 2 + 4096;
        int32_t *ids = bal_realloc(d->ids, cap, sizeof *ids);
        if (ids == NULL)
            return BAL_ENOMEM;
        d->ids = ids;
        int32_t *labels = bal_realloc(d->labels, cap, sizeof *labels);
        if (labels == NULL)
            return BAL_ENOMEM;
        d->labels = labels;
        d->cap_tokens = cap;
    }
    return BAL_OK;
}

bal_status bal_dataset_add(bal_dataset *d, const int32_t *ids, const int32_t *labels, size_t n)
{
    size_t rows = 0;
    for (size_t i = 1; i < n; i++)
        rows += labels[i] != BAL_LABEL_NONE;
    if (rows == 0) {
        d->n_skipped++;
        return BAL_OK;
    }
    bal_status status = reserve(d, n);
    if (status != BAL_OK)
        return status;
    memcpy(d->ids + d->n_tokens, ids, n * sizeof *ids);
    memcpy(d->labels + d->n_tokens, labels, n * sizeof *labels);
    d->n_tokens += n;
    d->n_rows += rows;
    d->start[++d->n] = d->n_tokens;
    d->longest = n > d->longest ? n : d->longest;
    return BAL_OK;
}

/* Prompt and prompt + response are tokenised as texts, and the length of the former is masked: the convention of
 * PiSSA's and BA-LoRA's programs.  A merge across the boundary may thus mask one token too many or too few. */
bal_status bal_record_tokens(const bal_record *r, const bal_tokenizer *t, bool train_on_prompt, bal_ids *ids,
                             bal_ids *labels)
{
    bal_status status = BAL_OK;
    bal_ids part = {0};
    const char *text = bal_buf_cstr(&r->text);
    bal_ids_clear(ids);
    bal_ids_clear(labels);
    BAL_TRY(bal_tokenizer_encode(t, text, r->text.len, !r->whole, ids));
    size_t done = 0;
    for (size_t i = 0; i < r->n; i++) {
        size_t end = ids->n;
        if (i + 1 < r->n) {
            bal_ids_clear(&part);
            BAL_TRY(bal_tokenizer_encode(t, text, r->pieces[i].end, !r->whole, &part));
            end = part.n < ids->n ? part.n : ids->n;
        }
        for (; done < end; done++)
            BAL_TRY(
                bal_ids_append(labels, r->pieces[i].labelled || train_on_prompt ? ids->data[done] : BAL_LABEL_NONE));
    }
    for (; done < ids->n; done++)
        BAL_TRY(bal_ids_append(labels, BAL_LABEL_NONE));
out:
    bal_ids_dispose(&part);
    return status;
}

static bal_status check_ids(const bal_ids *ids, size_t vocab, const char *where)
{
    for (size_t i = 0; vocab > 0 && i < ids->n; i++)
        if (ids->data[i] < 0 || (size_t)ids->data[i] >= vocab)
            return bal_fail(BAL_EFORMAT, "%s: token id %d at position %zu lies outside the model's vocabulary of %zu",
                            where, (int)ids->data[i], i, vocab);
    return BAL_OK;
}

/* Cuts to max_length, or splits text into sequences of at most that. */
static bal_status add_cut(bal_dataset *d, const bal_ids *ids, const bal_ids *labels, const bal_data_options *o)
{
    size_t n = ids->n;
    if (o->max_length == 0 || n <= o->max_length)
        return bal_dataset_add(d, ids->data, labels->data, n);
    if (d->format != BAL_DATA_TEXT) {
        d->n_truncated++;
        return bal_dataset_add(d, ids->data, labels->data, o->max_length);
    }
    for (size_t from = 0; from < n; from += o->max_length) {
        size_t len = n - from < o->max_length ? n - from : o->max_length;
        if (from > 0 && len < 2)
            break; /* one token alone predicts nothing */
        bal_status status = bal_dataset_add(d, ids->data + from, labels->data + from, len);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status read_ints(const cJSON *array, const char *where, const char *key, bal_ids *out)
{
    bal_ids_clear(out);
    if (!cJSON_IsArray(array))
        return bal_fail(BAL_EFORMAT, "%s: key '%s' must be an array of integers", where, key);
    size_t i = 0;
    for (const cJSON *e = array->child; e != NULL; e = e->next, i++) {
        double v = cJSON_IsNumber(e) ? e->valuedouble : 0.5;
        if (!(v >= -2147483648.0 && v <= 2147483647.0) || (double)(int32_t)v != v)
            return bal_fail(BAL_EFORMAT, "%s: element %zu of '%s' is not an integer", where, i, key);
        bal_status status = bal_ids_append(out, (int32_t)v);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status add_row(bal_dataset *d, const cJSON *row, const cJSON *label_row, const char *where,
                          const bal_data_options *o, bal_ids *ids, bal_ids *labels)
{
    bal_status status = BAL_OK;
    BAL_TRY(read_ints(row, where, "input_ids", ids));
    BAL_TRY(check_ids(ids, o->vocab, where));
    BAL_TRY(read_ints(label_row != NULL ? label_row : row, where, label_row != NULL ? "labels" : "input_ids", labels));
    if (labels->n != ids->n)
        return bal_fail(BAL_EFORMAT, "%s: %zu labels for %zu input_ids", where, labels->n, ids->n);
    for (size_t i = 0; i < labels->n; i++) {
        if (labels->data[i] == BAL_LABEL_NONE && o->train_on_prompt)
            labels->data[i] = ids->data[i];
        if (labels->data[i] != BAL_LABEL_NONE &&
            (labels->data[i] < 0 || (o->vocab > 0 && (size_t)labels->data[i] >= o->vocab)))
            return bal_fail(BAL_EFORMAT,
                            "%s: label %d at position %zu is neither -100 nor in the model's vocabulary of %zu", where,
                            (int)labels->data[i], i, o->vocab);
    }
    BAL_TRY(add_cut(d, ids, labels, o));
out:
    return status;
}

static bal_status add_tokens(bal_dataset *d, const cJSON *object, const char *where, const bal_data_options *o,
                             bal_ids *ids, bal_ids *labels)
{
    bal_status status = BAL_OK;
    const cJSON *rows = bal_json_member(object, "input_ids"), *label_rows = bal_json_member(object, "labels");
    if (!cJSON_IsArray(rows))
        return bal_fail(BAL_EFORMAT, "%s: key 'input_ids' must be an array", where);
    if (!cJSON_IsArray(rows->child))
        return add_row(d, rows, label_rows, where, o, ids, labels);
    if (label_rows != NULL &&
        (!cJSON_IsArray(label_rows) || cJSON_GetArraySize(label_rows) != cJSON_GetArraySize(rows)))
        return bal_fail(BAL_EFORMAT, "%s: 'labels' must have as many rows as 'input_ids'", where);
    const cJSON *l = label_rows != NULL ? label_rows->child : NULL;
    for (const cJSON *r = rows->child; r != NULL; r = r->next) {
        BAL_TRY(add_row(d, r, l, where, o, ids, labels));
        l = l != NULL ? l->next : NULL;
    }
out:
    return status;
}

typedef struct reading {
    bal_dataset *d;
    const bal_data_options *o;
    const bal_tokenizer *tokenizer;
    const char *eos;
    bal_record *record;
    bal_ids ids, labels;
} reading;

static bal_status add_object(reading *x, const cJSON *object, const char *where)
{
    bal_status status = BAL_OK;
    if (x->d->format == BAL_DATA_AUTO)
        BAL_TRY(bal_record_detect(object, where, &x->d->format));
    if (x->d->n_read++ < x->o->skip)
        return BAL_OK;
    if (x->d->format == BAL_DATA_TOKENS)
        return add_tokens(x->d, object, where, x->o, &x->ids, &x->labels);
    if (x->tokenizer == NULL)
        return bal_fail(BAL_EINVAL, "%s: records of text need a tokenizer beside the model", where);
    BAL_TRY(
        bal_record_read(x->record, object, where, x->d->format, x->o->template, x->o->suffix, x->eos, x->tokenizer));
    BAL_TRY(bal_record_tokens(x->record, x->tokenizer, x->o->train_on_prompt, &x->ids, &x->labels));
    BAL_TRY(check_ids(&x->ids, x->o->vocab, where));
    BAL_TRY(add_cut(x->d, &x->ids, &x->labels, x->o));
out:
    return status;
}

static bal_status add_plain(reading *x, bal_lines *lines)
{
    bal_status status = BAL_OK;
    bal_buf text = {0};
    x->d->format = BAL_DATA_TEXT;
    for (bool more = true; more && (x->o->limit == 0 || x->d->n_read < x->o->limit);) {
        const char *line = NULL;
        size_t n = 0;
        BAL_TRY(bal_lines_next(lines, &line, &n));
        more = line != NULL;
        if (more && n > 0) {
            BAL_TRY(bal_buf_append(&text, line, n));
            BAL_TRY(bal_buf_append(&text, "\n", 1));
            continue;
        }
        if (text.len == 0)
            continue;
        cJSON *object = cJSON_CreateObject();
        bool made = object != NULL && cJSON_AddStringToObject(object, "text", bal_buf_cstr(&text)) != NULL;
        status = made ? add_object(x, object, bal_lines_path(lines)) : bal_fail(BAL_ENOMEM, "out of memory");
        cJSON_Delete(object);
        BAL_TRY(status);
        bal_buf_clear(&text);
    }
out:
    bal_buf_dispose(&text);
    return status;
}

static bal_status add_objects(reading *x, bal_records *records)
{
    bal_status status = BAL_OK;
    while (x->o->limit == 0 || x->d->n_read < x->o->limit) {
        cJSON *object = NULL;
        BAL_TRY(bal_records_next(records, &object));
        if (object == NULL)
            break;
        status = add_object(x, object, bal_records_where(records));
        cJSON_Delete(object);
        BAL_TRY(status);
    }
out:
    return status;
}

static bal_status add_file(reading *x, const char *path)
{
    bal_lines *lines = NULL;
    bal_records *records = NULL;
    bal_status status;
    if (bal_ends_with(path, ".txt") || bal_ends_with(path, ".txt.gz")) {
        BAL_TRY(bal_lines_open(&lines, path));
        status = add_plain(x, lines);
    } else {
        BAL_TRY(bal_records_open(&records, path));
        status = add_objects(x, records);
    }
out:
    bal_lines_close(lines);
    bal_records_close(records);
    return status;
}

bal_status bal_dataset_load(bal_dataset *d, const char *path, const bal_tokenizer *tokenizer, const bal_data_options *o)
{
    return bal_dataset_load_files(d, &path, 1, tokenizer, o);
}

bal_status bal_dataset_load_files(bal_dataset *d, const char *const *paths, size_t n, const bal_tokenizer *tokenizer,
                                  const bal_data_options *o)
{
    bal_status status = BAL_OK;
    bal_record *record = NULL;
    *d = (bal_dataset){.format = o->format};
    reading x = {.d = d, .o = o, .tokenizer = tokenizer, .eos = ""};
    int32_t eos = tokenizer != NULL ? bal_tokenizer_eos(tokenizer) : -1;
    if (eos >= 0 && bal_tokenizer_token(tokenizer, eos) != NULL)
        x.eos = bal_tokenizer_token(tokenizer, eos);
    record = bal_alloc(1, sizeof *record);
    if (record == NULL)
        return BAL_ENOMEM;
    x.record = record;
    for (size_t i = 0; i < n; i++)
        BAL_TRY(add_file(&x, paths[i]));
    if (d->n == 0)
        status = bal_fail(BAL_EFORMAT,
                          d->n_read == 0 ? "%s: no record in the data set"
                                         : "%s: no record with a labelled token is left (%zu were read)",
                          paths[0], d->n_read);
out:
    bal_ids_dispose(&x.ids);
    bal_ids_dispose(&x.labels);
    bal_record_dispose(record);
    bal_free(record);
    if (status != BAL_OK)
        bal_dataset_dispose(d);
    return status;
}

bal_status bal_dataset_load_named(bal_dataset *d, const char *what, const char *split, const bal_hub_options *hub,
                                  const bal_tokenizer *tokenizer, const bal_data_options *o)
{
    bal_hub_files files = {0};
    *d = (bal_dataset){0};
    bal_status status = bal_data_files(what, split, hub, &files);
    if (status == BAL_OK)
        status = bal_dataset_load_files(d, (const char *const *)files.paths, files.n, tokenizer, o);
    bal_hub_files_dispose(&files);
    return status;
}
