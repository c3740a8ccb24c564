/* balora generate: one prompt, or a chat, with a model and perhaps an adapter.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/options.h"
#include "lib/model/bundle.h"
#include "lib/model/engine.h"
#include "lib/text/chat.h"
#include "lib/text/spelling.h"
#include "tools/commands.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_INPUT_BYTES = 1 << 26, MAX_LINE = 1 << 16 };

typedef struct config {
    const char *model, *initial_adapter, *tokenizer, *prompt, *input, *system;
    bool chat, raw, greedy, ignore_eos;
    int64_t max_new_tokens, top_k, seed;
    double temperature, top_p;
    bal_text_list stop, adapters;
} config;

#define AT(FIELD) offsetof(config, FIELD)
static const bal_option k_options[] = {
    {"model", 'm', BAL_OPTION_PATH, AT(model), NULL, 0, 0, NULL, NULL, "Model", "Hugging Face folder or GGUF file"},
    {"adapter", 'a', BAL_OPTION_PATHS, AT(adapters), NULL, 0, 0, NULL, NULL, "Model",
     "adapter folder (PEFT); several: the model's own answer and that of each"},
    {"initial_adapter", 0, BAL_OPTION_PATH, AT(initial_adapter), NULL, 0, 0, NULL, NULL, "Model",
     "initial factors of a PiSSA adapter that lacks them"},
    {"tokenizer", 0, BAL_OPTION_PATH, AT(tokenizer), NULL, 0, 0, NULL, NULL, "Model",
     "tokenizer.json, its folder or a GGUF file (default: the model's)"},
    {"prompt", 'p', BAL_OPTION_TEXT, AT(prompt), NULL, 0, 0, NULL, NULL, "Prompt", "the text to continue"},
    {"input", 'i', BAL_OPTION_PATH, AT(input), NULL, 0, 0, NULL, NULL, "Prompt",
     "prompts as token ids: JSON {\"input_ids\": [[...], ...]}; answers as JSON"},
    {"chat", 0, BAL_OPTION_FLAG, AT(chat), NULL, 0, 0, NULL, NULL, "Prompt",
     "the model's chat template; without --prompt a conversation, one line a turn"},
    {"raw", 0, BAL_OPTION_FLAG, AT(raw), NULL, 0, 0, NULL, NULL, "Prompt", "the text as it is (the default)"},
    {"system", 0, BAL_OPTION_TEXT, AT(system), NULL, 0, 0, NULL, NULL, "Prompt", "system message of the chat"},
    {"max_new_tokens", 'n', BAL_OPTION_INT, AT(max_new_tokens), "256", 1, 1e6, NULL, NULL, "Answer",
     "most tokens to generate"},
    {"greedy", 0, BAL_OPTION_FLAG, AT(greedy), NULL, 0, 0, NULL, NULL, "Answer",
     "always the most likely token, whatever the temperature"},
    {"temperature", 0, BAL_OPTION_REAL, AT(temperature), "0", 0, 100, NULL, NULL, "Answer",
     "of the sampling; 0: the most likely token"},
    {"top_k", 0, BAL_OPTION_INT, AT(top_k), "0", 0, 1e9, NULL, NULL, "Answer", "sample from the k most likely; 0: all"},
    {"top_p", 0, BAL_OPTION_REAL, AT(top_p), "1", 0, 1, NULL, NULL, "Answer",
     "sample from the most likely whose probability reaches p"},
    {"seed", 0, BAL_OPTION_INT, AT(seed), "0", 0, 9e15, NULL, NULL, "Answer", "of the sampling"},
    {"stop", 0, BAL_OPTION_LIST, AT(stop), NULL, 0, 0, NULL, NULL, "Answer", "texts that end the answer"},
    {"ignore_eos", 0, BAL_OPTION_FLAG, AT(ignore_eos), NULL, 0, 0, NULL, NULL, "Answer",
     "go on after the end-of-sequence token"},
};

static const bal_command k_command = {
    .name = "generate",
    .usage = "--model PATH [--adapter DIR ...] --prompt TEXT | --chat [options]",
    .summary = "one prompt or a chat with a model",
    .description = "  balora generate --model M --prompt 'The capital of France is' --max-new-tokens 20\n"
                   "  balora generate --model M --adapter A --chat --prompt 'Name three rivers.'\n"
                   "  balora generate --model M --adapter A --adapter B --prompt 'Name three rivers.'\n"
                   "  balora generate --model M --chat --temperature 0.7 --top-p 0.9\n"
                   "The text goes to standard output as it is made, the speed to standard error.",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
    .max_positional = 0,
};

typedef struct job {
    const config *config;
    bal_bundle *bundle;
    bool stream, json;
    size_t printed;     /* bytes of the answer on standard output */
    bal_buf text;       /* of the answer so far */
    bal_buf *documents; /* [n] JSON of each answer */
    bal_buf *sink;      /* for the JSON of all; NULL: standard output */
    bal_buf answer;     /* text of the last answer */
    size_t n_dropped;   /* tokens at the left of prompts that were longer than the context */
} job;

static void print_from(job *j, const char *text, size_t n)
{
    if (n <= j->printed)
        return;
    (void)fwrite(text + j->printed, 1, n - j->printed, stdout);
    (void)fflush(stdout);
    j->printed = n;
}

static void on_token(void *context, size_t i, const int32_t *ids, size_t n)
{
    job *j = context;
    bool stopped = false;
    (void)i;
    bal_buf_clear(&j->text);
    if (bal_tokenizer_decode(j->bundle->tokenizer, ids, n, !j->config->ignore_eos, &j->text) == BAL_OK &&
        j->text.len > 0)
        print_from(j, j->text.data,
                   bal_text_settled(j->text.data, j->text.len, j->config->stop.items, j->config->stop.n, &stopped));
}

static bal_status on_answer(void *context, size_t i, const bal_answer *a)
{
    job *j = context;
    bal_buf *out = &j->documents[i];
    bal_status status;
    if (j->stream)
        print_from(j, a->text, a->n_text);
    j->n_dropped += a->n_dropped;
    bal_buf_clear(&j->answer);
    BAL_TRY(bal_buf_append(&j->answer, a->text, a->n_text));
    BAL_TRY(
        bal_buf_printf(out, "{\"prompt_tokens\": %zu, \"dropped_tokens\": %zu, \"ids\": [", a->n_prompt, a->n_dropped));
    for (size_t k = 0; k < a->n_ids; k++)
        BAL_TRY(bal_buf_printf(out, "%s%d", k == 0 ? "" : ", ", (int)a->ids[k]));
    BAL_TRY(bal_buf_text(out, "], \"text\": "));
    if (j->bundle->tokenizer == NULL)
        BAL_TRY(bal_buf_text(out, "null"));
    else
        BAL_TRY(bal_json_put_textn(out, a->text, a->n_text));
    BAL_TRY(bal_buf_printf(out, ", \"finish_reason\": \"%s\"}", a->finish_reason));
out:
    return status;
}

static bal_status run(job *j, const bal_request *requests, size_t n, const bal_common *common, bal_engine_stats *stats)
{
    bal_engine_options o = {.tokenizer = j->bundle->tokenizer, .context = j, .answer = on_answer};
    bal_status status;
    o.token = j->stream ? on_token : NULL;
    j->printed = 0;
    BAL_TRY(bal_engine_run(j->bundle->model, &o, requests, n, stats));
    double rate = stats->seconds > 0 ? (double)stats->new_tokens / stats->seconds : 0;
    if (j->stream) {
        (void)fputc('\n', stdout);
        (void)fflush(stdout);
    }
    if (j->n_dropped > 0)
        bal_log_line(&common->log, BAL_LOG_WARN,
                     "prompt and answer are longer than the context of %zu tokens: %zu at the left were left out",
                     j->bundle->model->config.max_positions, j->n_dropped);
    j->n_dropped = 0;
    bal_log_line(&common->log, BAL_LOG_INFO, "%zu tokens of prompt, %zu new tokens, %.1f s, %.1f tokens/s",
                 stats->prompt_tokens, stats->new_tokens, stats->seconds, rate);
out:
    return status;
}

static bal_request request_for(const config *c, const int32_t *ids, size_t n, size_t index)
{
    return (bal_request){.kind = BAL_REQUEST_GENERATE,
                         .prompt = ids,
                         .n_prompt = n,
                         .max_new_tokens = (size_t)c->max_new_tokens,
                         .sampling = {c->greedy ? 0 : c->temperature, (size_t)c->top_k, c->top_p},
                         .seed = (uint64_t)c->seed,
                         .stream = index,
                         .stops = c->stop.items,
                         .n_stops = c->stop.n,
                         .ignore_eos = c->ignore_eos};
}

/* {"generate": [...], "tokens_per_second": x} */
static bal_status print_documents(const job *j, size_t n, const bal_engine_stats *stats)
{
    bal_buf out = {0};
    bal_status status;
    BAL_TRY(bal_buf_text(&out, "{\"generate\": ["));
    for (size_t i = 0; i < n; i++)
        BAL_TRY(bal_buf_printf(&out, "%s\n  %s", i == 0 ? "" : ",", bal_buf_cstr(&j->documents[i])));
    BAL_TRY(bal_buf_printf(&out, "\n], \"new_tokens\": %zu, \"seconds\": ", stats->new_tokens));
    BAL_TRY(bal_json_put_f64(&out, stats->seconds));
    BAL_TRY(bal_buf_text(&out, ", \"tokens_per_second\": "));
    BAL_TRY(bal_json_put_f64(&out, stats->seconds > 0 ? (double)stats->new_tokens / stats->seconds : 0));
    BAL_TRY(bal_buf_text(&out, "}\n"));
    if (j->sink != NULL)
        status = bal_buf_append(j->sink, out.data, out.len);
    else
        (void)fputs(out.data, stdout);
out:
    bal_buf_dispose(&out);
    return status;
}

static bal_status run_documents(job *j, const bal_request *requests, size_t n, const bal_common *common)
{
    bal_engine_stats stats = {0};
    bal_status status;
    j->documents = bal_alloc(n, sizeof *j->documents);
    if (j->documents == NULL)
        return BAL_ENOMEM;
    BAL_TRY(run(j, requests, n, common, &stats));
    if (j->json)
        status = print_documents(j, n, &stats);
out:
    for (size_t i = 0; i < n; i++)
        bal_buf_dispose(&j->documents[i]);
    bal_free(j->documents);
    return status;
}

static bal_status read_ids(const cJSON *row, size_t index, bal_ids *out)
{
    const cJSON *item = NULL;
    cJSON_ArrayForEach(item, row)
    {
        double v = item->valuedouble;
        if (!cJSON_IsNumber(item) || !(v >= 0 && v < 2147483648.0) || v != floor(v))
            return bal_fail(BAL_EFORMAT, "row %zu of input_ids holds something else than token ids", index);
        bal_status status = bal_ids_append(out, (int32_t)v);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status from_ids(job *j, const bal_common *common)
{
    const config *c = j->config;
    cJSON *json = NULL;
    bal_ids ids = {0};
    const cJSON *row = NULL;
    bal_request *requests = NULL;
    size_t n = 0, i = 0, at = 0;
    bal_status status;
    BAL_TRY(bal_json_read(&json, c->input, MAX_INPUT_BYTES));
    const cJSON *rows = bal_json_member(json, "input_ids");
    if (!cJSON_IsArray(rows) || !cJSON_IsArray(rows->child)) {
        status = bal_fail(BAL_EFORMAT, "%s: key 'input_ids' must be a list of lists of token ids", c->input);
        goto out;
    }
    n = (size_t)cJSON_GetArraySize(rows);
    requests = bal_alloc(n, sizeof *requests);
    if (requests == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    cJSON_ArrayForEach(row, rows) BAL_TRY(read_ids(row, i++, &ids));
    i = 0;
    cJSON_ArrayForEach(row, rows)
    {
        size_t length = (size_t)cJSON_GetArraySize(row);
        requests[i] = request_for(c, ids.data + at, length, i);
        at += length;
        i++;
    }
    j->json = true;
    status = run_documents(j, requests, n, common);
out:
    cJSON_Delete(json);
    bal_ids_dispose(&ids);
    bal_free(requests);
    return status;
}

static bal_status one_text(job *j, const char *text, size_t n, const bal_common *common)
{
    bal_ids ids = {0};
    bal_status status;
    if (j->config->chat) /* the template has written the special tokens */
        BAL_TRY(bal_tokenizer_encode(j->bundle->tokenizer, text, n, false, &ids));
    if (ids.n == 0)
        BAL_TRY(bal_bundle_prompt(j->bundle, text, n, &ids));
    bal_request r = request_for(j->config, ids.data, ids.n, 0);
    status = run_documents(j, &r, 1, common);
out:
    bal_ids_dispose(&ids);
    return status;
}

static bal_status one_chat(job *j, const bal_common *common)
{
    bal_message messages[2];
    bal_buf text = {0};
    size_t n = 0;
    bal_status status;
    if (j->config->system != NULL)
        messages[n++] = (bal_message){"system", j->config->system};
    messages[n++] = (bal_message){"user", j->config->prompt};
    BAL_TRY(bal_chat_render(j->bundle->tokenizer, messages, n, true, &text));
    status = one_text(j, bal_buf_cstr(&text), text.len, common);
out:
    bal_buf_dispose(&text);
    return status;
}

/* A conversation: a line of standard input is a turn of the user. */
static bal_status conversation(job *j, const bal_common *common)
{
    enum { MAX_TURNS = 1000 };
    bal_message *messages = bal_alloc(MAX_TURNS, sizeof *messages);
    char *line = bal_alloc(MAX_LINE, 1);
    bal_buf text = {0};
    size_t n = 0, owned = 0;
    bal_status status = messages == NULL || line == NULL ? BAL_ENOMEM : BAL_OK;
    if (status == BAL_OK && j->config->system != NULL) {
        messages[n++] = (bal_message){"system", j->config->system};
        owned = 1;
    }
    while (status == BAL_OK && n + 2 <= MAX_TURNS) {
        (void)fputs("> ", stderr);
        if (fgets(line, MAX_LINE, stdin) == NULL)
            break;
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0')
            continue;
        messages[n++] = (bal_message){"user", bal_strdup(line)};
        bal_buf_clear(&text);
        BAL_TRY(messages[n - 1].content == NULL ? BAL_ENOMEM : BAL_OK);
        BAL_TRY(bal_chat_render(j->bundle->tokenizer, messages, n, true, &text));
        BAL_TRY(one_text(j, bal_buf_cstr(&text), text.len, common));
        messages[n++] = (bal_message){"assistant", bal_strdup(bal_buf_cstr(&j->answer))};
        BAL_TRY(messages[n - 1].content == NULL ? BAL_ENOMEM : BAL_OK);
    }
out:
    for (size_t i = owned; messages != NULL && i < n; i++) {
        union { /* the contents from here on are this function's own copies */
            const char *shown;
            char *owned;
        } content = {.shown = messages[i].content};
        bal_free(content.owned);
    }
    bal_free(messages);
    bal_free(line);
    bal_buf_dispose(&text);
    return status;
}

/* What the options ask of one model. */
static bal_status ask(const config *c, const bal_common *common, bal_bundle *bundle, bal_buf *sink)
{
    job j = {.config = c, .bundle = bundle, .json = common->json, .sink = sink};
    bal_status status;
    if (bundle->note[0] != '\0')
        bal_log_line(&common->log, BAL_LOG_INFO, "%s", bundle->note);
    if (c->input != NULL && c->stop.n == 0) {
        status = from_ids(&j, common);
        goto out;
    }
    BAL_TRY(bal_bundle_need_tokenizer(bundle));
    j.stream = !common->json && c->input == NULL;
    if (c->input != NULL)
        status = from_ids(&j, common);
    else if (!c->chat)
        status = one_text(&j, c->prompt, strlen(c->prompt), common);
    else
        status = c->prompt != NULL ? one_chat(&j, common) : conversation(&j, common);
out:
    bal_buf_dispose(&j.text);
    bal_buf_dispose(&j.answer);
    return status;
}

/* The base and each adapter over the same weights, one after the other: a heading and the answer, or one document
 * {"models": [{"adapter": null, "answer": ...}, ...]}. */
static bal_status ask_each(const config *c, const bal_common *common, const bal_bundle *base)
{
    bool json = common->json || c->input != NULL;
    bal_status status = BAL_OK;
    bal_buf out = {0};
    bal_bundle view = {0};
    BAL_TRY(bal_bundle_base(base, c->adapters.items, c->adapters.n));
    BAL_TRY(bal_buf_text(&out, "{\"models\": ["));
    for (size_t i = 0; i <= c->adapters.n; i++) {
        const char *adapter = i == 0 ? NULL : c->adapters.items[i - 1];
        BAL_TRY(bal_bundle_view(&view, base, adapter));
        BAL_TRY(bal_buf_text(&out, i == 0 ? "\n{\"adapter\": " : ",\n{\"adapter\": "));
        BAL_TRY(adapter == NULL ? bal_buf_text(&out, "null") : bal_json_put_text(&out, adapter));
        BAL_TRY(bal_buf_text(&out, ", \"answer\": "));
        if (!json) {
            printf("%s== %s ==\n", i == 0 ? "" : "\n", adapter == NULL ? "base" : adapter);
            (void)fflush(stdout);
        }
        BAL_TRY(ask(c, common, &view, json ? &out : NULL));
        BAL_TRY(bal_buf_text(&out, "}"));
        bal_bundle_dispose(&view);
    }
    BAL_TRY(bal_buf_text(&out, "\n]}\n"));
    if (json)
        (void)fputs(out.data, stdout);
out:
    bal_bundle_dispose(&view);
    bal_buf_dispose(&out);
    return status;
}

static bal_status generate(const config *c, const bal_options *options)
{
    const bal_common *common = bal_options_common(options);
    bal_bundle bundle = {0};
    bal_status status;
    bool several = c->adapters.n > 1;
    if (c->model == NULL || (c->prompt == NULL && c->input == NULL && !c->chat) ||
        (c->prompt != NULL && c->input != NULL))
        return bal_fail(BAL_EINVAL, "--model and one of --prompt, --input or --chat are needed");
    if (c->chat && (c->raw || c->input != NULL))
        return bal_fail(BAL_EINVAL, "--chat goes neither with --raw nor with --input");
    if (several && ((c->chat && c->prompt == NULL) || c->initial_adapter != NULL))
        return bal_fail(BAL_EINVAL, "several adapters need a --prompt or --input, and go without --initial-adapter");
    BAL_TRY(bal_options_start(options));
    bal_interrupt_install();
    BAL_TRY(bal_bundle_load(&bundle, c->model, c->adapters.n == 1 ? c->adapters.items[0] : NULL, c->initial_adapter,
                            c->tokenizer));
    status = several ? ask_each(c, common, &bundle) : ask(c, common, &bundle, NULL);
out:
    bal_bundle_dispose(&bundle);
    return status;
}

int cmd_generate(int argc, char **argv)
{
    config c = {0};
    bal_options *options = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&options, &k_command, argc, argv, &c, &help);
    if (status == BAL_OK && !help)
        status = generate(&c, options);
    status = bal_command_finish(&k_command, status);
    bal_options_free(options);
    return (int)status;
}
