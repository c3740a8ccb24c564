/* balora data: what is known and what the hub has (known.c), a record as the model sees it, the generated world, a tokenizer.
 * SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"

#include "datasets/datasets.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/data/dataset.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "lib/io/options.h"
#include "lib/io/records.h"
#include "lib/model/batch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct data_config {
    const char *data, *model, *format, *template_, *target_suffix, *split, *out;
    int64_t item, n, seed, vocab, limit, first, model_max_length;
    bool train_on_prompt, refresh;
} data_config;

#define FIELD(name) offsetof(data_config, name)

static const bal_option k_options[] = {
    {.name = "data",
     .letter = 'd',
     .type = BAL_OPTION_PATH,
     .offset = FIELD(data),
     .aliases = "input",
     .group = "Input",
     .help = "show, tokenizer: records (JSON lines, JSON, CSV, TSV, .gz too, or .txt), or a name as train takes it"},
    {.name = "split",
     .type = BAL_OPTION_CHOICE,
     .offset = FIELD(split),
     .default_text = "auto",
     .choices = "auto|train|validation|test",
     .group = "Input",
     .help = "of a set of the hub; auto: get takes all, the others train"},
    {.name = "model",
     .letter = 'm',
     .type = BAL_OPTION_PATH,
     .offset = FIELD(model),
     .aliases = "tokenizer",
     .group = "Input",
     .help = "show: model folder, GGUF file or tokenizer.json"},
    {.name = "format",
     .type = BAL_OPTION_CHOICE,
     .offset = FIELD(format),
     .default_text = "auto",
     .choices = BAL_DATA_FORMATS,
     .group = "Input",
     .help = "of the records; auto looks at the fields of the first"},
    {.name = "template",
     .type = BAL_OPTION_CHOICE,
     .offset = FIELD(template_),
     .default_text = "auto",
     .choices = BAL_DATA_TEMPLATES,
     .group = "Input",
     .help = "text around a prompt; auto: by the format"},
    {.name = "target_suffix",
     .type = BAL_OPTION_CHOICE,
     .offset = FIELD(target_suffix),
     .default_text = "eos",
     .choices = BAL_DATA_SUFFIXES,
     .group = "Input",
     .help = "after a response; newline_eos as PiSSA's program"},
    {.name = "train_on_prompt",
     .type = BAL_OPTION_FLAG,
     .offset = FIELD(train_on_prompt),
     .default_text = "false",
     .group = "Input",
     .help = "label the prompt, too"},
    {.name = "model_max_length",
     .type = BAL_OPTION_INT,
     .offset = FIELD(model_max_length),
     .default_text = "512",
     .min = 2,
     .max = 1e7,
     .group = "Input",
     .help = "tokens of a record; longer ones are cut"},
    {.name = "item",
     .type = BAL_OPTION_INT,
     .offset = FIELD(item),
     .default_text = "0",
     .min = 0,
     .max = 1e12,
     .group = "Input",
     .help = "show: number of the record, from 0"},
    {.name = "limit",
     .type = BAL_OPTION_INT,
     .offset = FIELD(limit),
     .default_text = "0",
     .min = 0,
     .max = 1e12,
     .group = "Input",
     .help = "tokenizer: first records of the file; 0: all"},
    {.name = "n",
     .letter = 'n',
     .type = BAL_OPTION_INT,
     .offset = FIELD(n),
     .default_text = "1000",
     .min = 1,
     .max = 1e9,
     .group = "Output",
     .help = "world: problems to write"},
    {.name = "first",
     .type = BAL_OPTION_INT,
     .offset = FIELD(first),
     .default_text = "0",
     .min = 0,
     .max = 1e15,
     .group = "Output",
     .help = "world: number of the first problem (another stretch of the same world)"},
    {.name = "seed",
     .type = BAL_OPTION_INT,
     .offset = FIELD(seed),
     .default_text = "1",
     .min = 0,
     .max = 9007199254740991.0,
     .group = "Output",
     .help = "world: which world"},
    {.name = "vocab",
     .type = BAL_OPTION_INT,
     .offset = FIELD(vocab),
     .default_text = "1024",
     .min = 260,
     .max = 8192,
     .group = "Output",
     .help = "tokenizer: entries of the vocabulary"},
    {.name = "refresh",
     .type = BAL_OPTION_FLAG,
     .offset = FIELD(refresh),
     .default_text = "false",
     .group = "Output",
     .help = "get: ask the hub for the newest state even if one is in the cache"},
    {.name = "out",
     .letter = 'o',
     .type = BAL_OPTION_PATH,
     .offset = FIELD(out),
     .group = "Output",
     .help = "file to write; world: standard output without it"},
};

static const bal_command k_command = {
    .name = "data",
    .usage = "list | get NAME | show | world | tokenizer [options]",
    .summary = "data sets: what is known, from the hub, a record as the model sees it, generated problems",
    .description = "  balora data list\n"
                   "  balora data get yahma/alpaca-cleaned         (a set of the hub, into its cache: "
                   "org/name[:config][@revision])\n"
                   "  balora data get metamathqa                   (a name of the list)\n"
                   "  balora data show --data gsm8k/train.jsonl --format gsm8k_metamath --model SmolLM2.gguf --item 3\n"
                   "  balora data world --n 10000 --seed 1 --out world.jsonl\n"
                   "  balora data tokenizer --data world.jsonl --vocab 512 --out tokenizer.json",
    .options = k_options,
    .n_options = sizeof k_options / sizeof *k_options,
    .max_positional = 2,
};

static bal_status data_options(const data_config *c, bal_data_options *out)
{
    bal_status status = BAL_OK;
    *out = (bal_data_options){.train_on_prompt = c->train_on_prompt, .max_length = (size_t)c->model_max_length};
    BAL_TRY(bal_data_parse_format(c->format, &out->format));
    BAL_TRY(bal_data_parse_template(c->template_, &out->template));
    BAL_TRY(bal_data_parse_suffix(c->target_suffix, &out->suffix));
out:
    return status;
}

static bal_hub_options hub_options(const bal_options *o, const data_config *c)
{
    const bal_common *common = bal_options_common(o);
    return (bal_hub_options){.log = &common->log, .progress = common->progress, .refresh = c->refresh};
}

static const char *split_of(const data_config *c, const char *otherwise)
{
    return strcmp(c->split, "auto") == 0 ? otherwise : c->split;
}

/* ---- show ---- */

static bal_status stretch_text(const bal_tokenizer *t, const int32_t *ids, size_t n, bal_buf *text)
{
    bal_buf_clear(text);
    if (t != NULL)
        return bal_tokenizer_decode(t, ids, n, false, text);
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK; i++)
        status = bal_buf_printf(text, "%s%d", i > 0 ? " " : "", (int)ids[i]);
    return status;
}

/* Stretches of equal labelling are decoded as one, so that a character spread over several tokens stays whole. */
static bal_status print_stretches(const bal_tokenizer *t, const int32_t *ids, const int32_t *labels, size_t n)
{
    bool color = isatty(STDOUT_FILENO) != 0 && getenv("NO_COLOR") == NULL;
    const char *open = color ? "\033[1;32m" : "[", *close = color ? "\033[0m" : "]";
    bal_status status = BAL_OK;
    bal_buf text = {0};
    for (size_t i = 0; i < n && status == BAL_OK;) {
        bool labelled = labels[i] != BAL_LABEL_NONE;
        size_t end = i;
        while (end < n && (labels[end] != BAL_LABEL_NONE) == labelled)
            end++;
        status = stretch_text(t, ids + i, end - i, &text);
        if (status == BAL_OK)
            printf("%s%s%s", labelled ? open : "", bal_buf_cstr(&text), labelled ? close : "");
        i = end;
    }
    printf("\n");
    bal_buf_dispose(&text);
    return status;
}

static bal_status put_ints(bal_buf *b, const int32_t *x, size_t n)
{
    bal_status status = bal_buf_text(b, "[");
    for (size_t i = 0; i < n && status == BAL_OK; i++)
        status = bal_buf_printf(b, "%s%d", i > 0 ? "," : "", (int)x[i]);
    return status == BAL_OK ? bal_buf_text(b, "]") : status;
}

static bal_status put_sequence(bal_buf *b, const bal_tokenizer *t, const int32_t *ids, const int32_t *labels, size_t n)
{
    bal_status status = BAL_OK;
    bal_buf text = {0};
    if (t != NULL)
        BAL_TRY(bal_tokenizer_decode(t, ids, n, false, &text));
    BAL_TRY(bal_buf_text(b, "{\"input_ids\":"));
    BAL_TRY(put_ints(b, ids, n));
    BAL_TRY(bal_buf_text(b, ",\"labels\":"));
    BAL_TRY(put_ints(b, labels, n));
    BAL_TRY(bal_buf_text(b, ",\"text\":"));
    BAL_TRY(bal_json_put_text(b, bal_buf_cstr(&text)));
    BAL_TRY(bal_buf_text(b, "}"));
out:
    bal_buf_dispose(&text);
    return status;
}

static bal_status print_json(const bal_tokenizer *t, const bal_dataset *d, int64_t item)
{
    bal_buf b = {0};
    bal_status status =
        bal_buf_printf(&b, "{\"item\":%lld,\"format\":\"%s\",\"truncated\":%s,\"sequences\":[", (long long)item,
                       bal_data_format_name(d->format), d->n_truncated > 0 ? "true" : "false");
    for (size_t i = 0; i < d->n && status == BAL_OK; i++) {
        if (i > 0)
            status = bal_buf_text(&b, ",");
        if (status == BAL_OK)
            status = put_sequence(&b, t, d->ids + d->start[i], d->labels + d->start[i], bal_dataset_length(d, i));
    }
    if (status == BAL_OK)
        printf("%s]}\n", bal_buf_cstr(&b));
    bal_buf_dispose(&b);
    return status;
}

static bal_status show(const bal_options *o, const data_config *c)
{
    bal_status status = BAL_OK;
    bal_tokenizer *t = NULL;
    bal_dataset d = {0};
    bal_data_options data;
    if (c->data == NULL)
        return bal_fail(BAL_EINVAL, "--data FILE is needed");
    BAL_TRY(data_options(c, &data));
    if (c->model != NULL)
        BAL_TRY(bal_tokenizer_load(&t, c->model));
    data.skip = (size_t)c->item;
    data.limit = data.skip + 1;
    const bal_hub_options hub = hub_options(o, c);
    status = bal_dataset_load_named(&d, c->data, split_of(c, "train"), &hub, t, &data);
    if (status == BAL_EINVAL && t == NULL)
        BAL_TRY(bal_fail(BAL_EINVAL, "--model PATH is needed to tokenise records of text"));
    if (status == BAL_EFORMAT && bal_starts_with(bal_error_message(), c->data) &&
        strstr(bal_error_message(), "no record") != NULL)
        BAL_TRY(bal_fail_note(BAL_EFORMAT, "item %lld", (long long)c->item));
    BAL_TRY(status);
    if (bal_options_common(o)->json) {
        BAL_TRY(print_json(t, &d, c->item));
        goto out;
    }
    for (size_t i = 0; i < d.n; i++) {
        size_t n = bal_dataset_length(&d, i), labelled = 0;
        for (size_t j = 0; j < n; j++)
            labelled += d.labels[d.start[i] + j] != BAL_LABEL_NONE;
        printf("item %lld (%s): %zu tokens, %zu labelled%s\n", (long long)c->item, bal_data_format_name(d.format), n,
               labelled, d.n_truncated > 0 ? ", cut at --model-max-length" : "");
        BAL_TRY(print_stretches(t, d.ids + d.start[i], d.labels + d.start[i], n));
    }
out:
    bal_tokenizer_free(t);
    bal_dataset_dispose(&d);
    return status;
}

/* ---- world ---- */

static bal_status world(const data_config *c)
{
    bal_status status = BAL_OK;
    bal_buf line = {0};
    bal_writer w = {0};
    if (c->out != NULL)
        BAL_TRY(bal_writer_open(&w, c->out));
    for (int64_t i = 0; i < c->n; i++) {
        bal_buf_clear(&line);
        BAL_TRY(world_problem(&line, (uint64_t)c->seed, (uint64_t)(c->first + i)));
        if (c->out != NULL)
            BAL_TRY(bal_writer_write(&w, line.data, line.len));
        else if (fwrite(line.data, 1, line.len, stdout) != line.len)
            BAL_TRY(bal_fail(BAL_EIO, "standard output cannot be written"));
    }
    if (c->out != NULL)
        status = bal_writer_commit(&w);
out:
    bal_writer_abort(&w);
    bal_buf_dispose(&line);
    return status;
}

/* ---- tokenizer ---- */

static bal_status add_object(bpe_trainer *t, const cJSON *object, const char *where, bal_data_options *data,
                             bal_record *record)
{
    bal_status status = BAL_OK;
    if (data->format == BAL_DATA_AUTO)
        BAL_TRY(bal_record_detect(object, where, &data->format));
    if (data->format == BAL_DATA_TOKENS)
        BAL_TRY(bal_fail(BAL_EINVAL, "%s: already tokenised records have no text to learn from", where));
    BAL_TRY(bal_record_read(record, object, where, data->format, data->template, BAL_SUFFIX_NONE, "", NULL));
    BAL_TRY(bpe_trainer_add(t, bal_buf_cstr(&record->text), record->text.len));
out:
    return status;
}

static bal_status add_line(bpe_trainer *t, bal_lines *lines, bool *more)
{
    const char *text = NULL;
    size_t n = 0;
    bal_status status = bal_lines_next(lines, &text, &n);
    *more = status == BAL_OK && text != NULL;
    return *more ? bpe_trainer_add(t, text, n) : status;
}

/* The texts of one file; *n counts against --limit. */
static bal_status add_file(bpe_trainer *t, const data_config *c, const char *path, bal_record *record, int64_t *n)
{
    bal_lines *lines = NULL;
    bal_records *records = NULL;
    bal_data_options data;
    bool plain = bal_ends_with(path, ".txt") || bal_ends_with(path, ".txt.gz"), more = true;
    bal_status status;
    BAL_TRY(data_options(c, &data));
    BAL_TRY(plain ? bal_lines_open(&lines, path) : bal_records_open(&records, path));
    for (; more && (c->limit == 0 || *n < c->limit); (*n)++) {
        cJSON *object = NULL;
        if (plain) {
            BAL_TRY(add_line(t, lines, &more));
            continue;
        }
        BAL_TRY(bal_records_next(records, &object));
        more = object != NULL;
        if (more)
            status = add_object(t, object, bal_records_where(records), &data, record);
        cJSON_Delete(object);
        BAL_TRY(status);
    }
out:
    bal_lines_close(lines);
    bal_records_close(records);
    return status;
}

static bal_status tokenizer(const bal_options *o, const data_config *c)
{
    bal_status status = BAL_OK;
    bpe_trainer *t = NULL;
    bal_hub_files files = {0};
    bal_record *record = NULL;
    int64_t n = 0;
    bal_buf json = {0}, config = {0};
    char *folder = NULL, *beside = NULL;
    size_t size = 0;
    if (c->data == NULL || c->out == NULL)
        return bal_fail(BAL_EINVAL, "%s is needed", c->data == NULL ? "--data FILE" : "--out tokenizer.json");
    record = bal_alloc(1, sizeof *record);
    if (record == NULL)
        return BAL_ENOMEM;
    BAL_TRY(bpe_trainer_new(&t));
    const bal_hub_options hub = hub_options(o, c);
    BAL_TRY(bal_data_files(c->data, split_of(c, "train"), &hub, &files));
    for (size_t i = 0; i < files.n; i++)
        BAL_TRY(add_file(t, c, files.paths[i], record, &n));
    BAL_TRY(bpe_trainer_finish(t, (size_t)c->vocab, &json, &size));
    BAL_TRY(bal_file_replace(c->out, bal_buf_cstr(&json), json.len));
    folder = bal_path_dir(c->out);
    beside = folder == NULL ? NULL : bal_path_join(folder, "tokenizer_config.json");
    if (beside == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bpe_tokenizer_config(&config));
    BAL_TRY(bal_file_replace(beside, bal_buf_cstr(&config), config.len));
    if (bal_options_common(o)->json)
        printf("{\"vocab\":%zu}\n", size);
    else
        bal_log_line(&bal_options_common(o)->log, BAL_LOG_INFO, "%s: %zu entries; tokenizer_config.json beside it",
                     c->out, size);
out:
    bpe_trainer_free(t);
    bal_hub_files_dispose(&files);
    bal_record_dispose(record);
    bal_free(record);
    bal_buf_dispose(&json);
    bal_buf_dispose(&config);
    bal_free(folder);
    bal_free(beside);
    return status;
}

static bal_status run(const bal_options *o, const data_config *c)
{
    static const char *const names[] = {"list", "get", "show", "world", "tokenizer"};
    size_t n = 0;
    const char *const *words = bal_options_positional(o, &n);
    if (n == 0)
        return bal_fail(BAL_EINVAL, "say what: list, get, show, world or tokenizer");
    if (strcmp(words[0], "get") == 0) {
        const bal_hub_options hub = hub_options(o, c);
        if (n < 2)
            return bal_fail(BAL_EINVAL, "say which: balora data get NAME, or org/name of the hub");
        return data_get(words[1], split_of(c, NULL), &hub, bal_options_common(o)->json);
    }
    if (n > 1)
        return bal_fail(BAL_EINVAL, "one word too many: '%.80s'", words[1]);
    if (strcmp(words[0], "list") == 0)
        return data_list(bal_options_common(o)->json);
    if (strcmp(words[0], "show") == 0)
        return show(o, c);
    if (strcmp(words[0], "world") == 0)
        return world(c);
    if (strcmp(words[0], "tokenizer") == 0)
        return tokenizer(o, c);
    const char *near = bal_nearest(words[0], names, 5);
    return bal_fail(BAL_EINVAL, "'%.60s' is not list, get, show, world or tokenizer%s%s%s", words[0],
                    near != NULL ? "; did you mean '" : "", near != NULL ? near : "", near != NULL ? "'?" : "");
}

int cmd_data(int argc, char **argv)
{
    data_config config = {0};
    bal_options *o = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&o, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help)
        status = run(o, &config);
    int code = bal_command_finish(&k_command, status);
    bal_options_free(o);
    return code;
}
