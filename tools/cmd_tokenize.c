/* balora tokenize: JSON lines of text to ids and back.  SPDX-License-Identifier: Apache-2.0 */
#include "tools/commands.h"

#include "lib/base/file.h"
#include "lib/io/jsonl.h"
#include "lib/io/options.h"
#include "lib/text/chat.h"
#include "lib/text/tokenizer.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct tokenize_config {
    const char *tokenizer, *chat_template;
    bool special_tokens, decode, skip_special_tokens, chat, assistant_mask;
} tokenize_config;

static const bal_option k_options[] = {
    {"tokenizer", 't', BAL_OPTION_PATH, offsetof(tokenize_config, tokenizer), NULL, 0, 0, NULL, "model", "Input",
     "tokenizer.json (also .gz), a folder holding one, or a GGUF file"},
    {"special_tokens", 0, BAL_OPTION_FLAG, offsetof(tokenize_config, special_tokens), "true", 0, 0, NULL, NULL,
     "Encoding", "add the special tokens of the post-processor"},
    {"chat", 0, BAL_OPTION_FLAG, offsetof(tokenize_config, chat), NULL, 0, 0, NULL, NULL, "Chat",
     "conversations through the chat template: messages, tools, add_generation_prompt"},
    {"assistant_mask", 0, BAL_OPTION_FLAG, offsetof(tokenize_config, assistant_mask), NULL, 0, 0, NULL, NULL, "Chat",
     "list also which bytes of the text the assistant wrote: what --template chat trains on"},
    {"chat_template", 0, BAL_OPTION_PATH, offsetof(tokenize_config, chat_template), NULL, 0, 0, NULL, NULL, "Chat",
     "a Jinja file to use in place of the tokenizer's template"},
    {"decode", 'd', BAL_OPTION_FLAG, offsetof(tokenize_config, decode), NULL, 0, 0, NULL, NULL, "Decoding",
     "ids to text"},
    {"skip_special_tokens", 0, BAL_OPTION_FLAG, offsetof(tokenize_config, skip_special_tokens), NULL, 0, 0, NULL, NULL,
     "Decoding", "leave special tokens out of the text"},
};

static const bal_command k_command = {
    .name = "tokenize",
    .usage = "--tokenizer PATH [--decode] [FILE]",
    .summary = "text to token ids and back",
    .description = "Reads JSON lines from FILE or standard input: {\"text\": ...} gives {\"ids\": [...]}; with "
                   "--decode the other\n"
                   "way round.  --chat takes {\"messages\": [...]} and gives {\"text\", \"ids\"}.  One answer a line, "
                   "in order.\n\n"
                   "  echo '{\"text\": \"Hello world\"}' | balora tokenize --tokenizer model.gguf",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
    .max_positional = 1,
};

static bal_status encode_line(const bal_tokenizer *t, const tokenize_config *c, const cJSON *line, bal_buf *out)
{
    bal_ids ids = {0};
    char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(line, "text"));
    bal_status status = BAL_OK;
    if (text == NULL)
        return bal_fail(BAL_EFORMAT, "key 'text' with a text is needed");
    BAL_TRY(bal_tokenizer_encode(t, text, bal_json_text_bytes(text), c->special_tokens, &ids));
    BAL_TRY(bal_buf_text(out, "{\"ids\": ["));
    for (size_t i = 0; i < ids.n; i++)
        BAL_TRY(bal_buf_printf(out, "%s%d", i > 0 ? ", " : "", (int)ids.data[i]));
    BAL_TRY(bal_buf_text(out, "]}\n"));
out:
    bal_ids_dispose(&ids);
    return status;
}

static bal_status decode_line(const bal_tokenizer *t, const tokenize_config *c, const cJSON *line, bal_buf *out)
{
    bal_ids ids = {0};
    bal_buf text = {0};
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(line, "ids");
    bal_status status = BAL_OK;
    if (!cJSON_IsArray(list))
        return bal_fail(BAL_EFORMAT, "key 'ids' with a list of ids is needed");
    for (const cJSON *v = list->child; v != NULL; v = v->next) {
        if (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) ||
            !(v->valuedouble >= 0 && v->valuedouble < INT32_MAX))
            BAL_TRY(bal_fail(BAL_EFORMAT, "'ids' must hold whole numbers from 0"));
        if (!(v->valuedouble < (double)bal_tokenizer_vocab_size(t)))
            BAL_TRY(bal_fail(BAL_EFORMAT, "id %.17g is outside the vocabulary of %zu", v->valuedouble,
                             bal_tokenizer_vocab_size(t)));
        BAL_TRY(bal_ids_append(&ids, (int32_t)v->valuedouble));
    }
    BAL_TRY(bal_tokenizer_decode(t, ids.data, ids.n, c->skip_special_tokens, &text));
    BAL_TRY(bal_buf_text(out, "{\"text\": "));
    BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(&text), text.len));
    BAL_TRY(bal_buf_text(out, "}\n"));
out:
    bal_ids_dispose(&ids);
    bal_buf_dispose(&text);
    return status;
}

static bal_status chat_line(const bal_tokenizer *t, const char *template, bool mask, const cJSON *line, bal_buf *out)
{
    bal_chat_options o = {.chat_template = template,
                          .tools = bal_json_member(line, "tools"),
                          .documents = bal_json_member(line, "documents"),
                          .extra = bal_json_member(line, "chat_template_kwargs")};
    bal_buf text = {0};
    bal_ids ids = {0};
    bal_stretches assistant = {0};
    const cJSON *messages = bal_json_member(line, "messages");
    bal_status status = BAL_OK;
    if (!cJSON_IsArray(messages))
        return bal_fail(BAL_EFORMAT, "key 'messages' with a list of messages is needed");
    BAL_TRY(bal_json_bool(line, "a conversation", "add_generation_prompt", &o.generation_prompt, NULL));
    BAL_TRY(bal_json_i64(line, "a conversation", "now", 0, INT64_MAX, &o.now, NULL));
    BAL_TRY(bal_chat_apply(t, messages, &o, &text, mask ? &assistant : NULL));
    BAL_TRY(bal_tokenizer_encode(t, bal_buf_cstr(&text), text.len, false, &ids));
    BAL_TRY(bal_buf_text(out, "{\"text\": "));
    BAL_TRY(bal_json_put_textn(out, bal_buf_cstr(&text), text.len));
    BAL_TRY(bal_buf_text(out, ", \"ids\": ["));
    for (size_t i = 0; i < ids.n; i++)
        BAL_TRY(bal_buf_printf(out, "%s%d", i > 0 ? ", " : "", (int)ids.data[i]));
    BAL_TRY(bal_buf_text(out, mask ? "], \"assistant\": [" : ""));
    for (size_t i = 0; i < assistant.n; i++)
        BAL_TRY(
            bal_buf_printf(out, "%s[%zu, %zu]", i > 0 ? ", " : "", assistant.items[i].begin, assistant.items[i].end));
    BAL_TRY(bal_buf_text(out, "]}\n"));
out:
    bal_stretches_dispose(&assistant);
    bal_ids_dispose(&ids);
    bal_buf_dispose(&text);
    return status;
}

static bal_status tokenize(const tokenize_config *c, const char *path)
{
    bal_tokenizer *t = NULL;
    bal_lines *lines = NULL;
    cJSON *line = NULL;
    bal_buf out = {0}, template = {0};
    bal_status status = BAL_OK;
    if (c->chat && c->decode)
        BAL_TRY(bal_fail(BAL_EINVAL, "--chat does not go with --decode"));
    if (c->chat_template != NULL)
        BAL_TRY(bal_file_read(c->chat_template, 1 << 24, &template));
    if (c->tokenizer == NULL)
        BAL_TRY(bal_fail(BAL_EINVAL, "--tokenizer PATH is needed"));
    BAL_TRY(bal_tokenizer_load(&t, c->tokenizer));
    BAL_TRY(bal_lines_open(&lines, path));
    for (;;) {
        BAL_TRY(bal_jsonl_next(lines, &line));
        if (line == NULL)
            break;
        bal_buf_clear(&out);
        status = c->chat ? chat_line(t, c->chat_template != NULL ? bal_buf_cstr(&template) : NULL, c->assistant_mask,
                                     line, &out)
                 : c->decode ? decode_line(t, c, line, &out)
                             : encode_line(t, c, line, &out);
        if (status != BAL_OK)
            BAL_TRY(bal_fail_note(status, "%s, line %zu", bal_lines_path(lines), bal_lines_number(lines)));
        if (fwrite(out.data, 1, out.len, stdout) != out.len)
            BAL_TRY(bal_fail(BAL_EIO, "standard output cannot be written"));
        cJSON_Delete(line);
        line = NULL;
    }
out:
    cJSON_Delete(line);
    bal_buf_dispose(&out);
    bal_buf_dispose(&template);
    bal_lines_close(lines);
    bal_tokenizer_free(t);
    return status;
}

int cmd_tokenize(int argc, char **argv)
{
    tokenize_config config = {0};
    bal_options *options = NULL;
    bool help = false;
    size_t n = 0;
    bal_status status = bal_options_parse(&options, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help) {
        const char *const *words = bal_options_positional(options, &n);
        status = tokenize(&config, n > 0 ? words[0] : "-");
    }
    bal_options_free(options);
    return bal_command_finish(&k_command, status);
}
