/* GGUF knows the splitting of a byte-level BPE by name only (tokenizer.ggml.pre): the pre-tokenizers of a
 * tokenizer.json are compared with those that the names stand for.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/text/tokenizer_gguf.h"

#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/text/tokenizer.h"

#include <stdio.h>
#include <string.h>

enum { MAX_FILE = 1 << 28, NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER = 4, UNUSED = 5 };

#define LLAMA3                                                                                                         \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"           \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2                                                                                                          \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"                \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* split: of a Split step before ByteLevel without its own pattern; digits: a Digits step (each by itself) before. */
static const struct {
    const char *name, *split;
    bool digits, ignore_merges;
} k_pre[] = {{"gpt-2", NULL, false, false},     {"smollm", NULL, true, false},  {"llama-bpe", LLAMA3, false, true},
             {"qwen2", QWEN2, false, false},    {"gpt2", NULL, false, false},   {"default", NULL, false, false},
             {"starcoder", NULL, true, false},  {"refact", NULL, true, false},  {"olmo", NULL, false, false},
             {"llama-v3", LLAMA3, false, true}, {"llama3", LLAMA3, false, true}};
enum { N_PRE = sizeof k_pre / sizeof *k_pre };

static const char *text_of(const cJSON *object, const char *key)
{
    const cJSON *v = bal_json_member(object, key);
    return v != NULL && cJSON_IsString(v) ? v->valuestring : "";
}

/* The name for these pre-tokenizers, NULL if there is none. */
static const char *pre_name(const cJSON *pre, bool ignore_merges)
{
    const cJSON *list = bal_json_member(pre, "pretokenizers"), *step = list != NULL ? list->child : pre;
    const char *split = NULL;
    bool digits = false, byte_level = false, own_pattern = false;
    for (; step != NULL; step = list != NULL ? step->next : NULL) {
        const char *type = text_of(step, "type");
        const cJSON *use = bal_json_member(step, "use_regex");
        if (byte_level)
            return NULL;
        if (strcmp(type, "Digits") == 0 && cJSON_IsTrue(bal_json_member(step, "individual_digits")) && split == NULL)
            digits = true;
        else if (strcmp(type, "Split") == 0 && split == NULL && strcmp(text_of(step, "behavior"), "Isolated") == 0)
            split = text_of(bal_json_member(step, "pattern"), "Regex");
        else if (strcmp(type, "ByteLevel") == 0 && !cJSON_IsTrue(bal_json_member(step, "add_prefix_space"))) {
            byte_level = true;
            own_pattern = use == NULL || cJSON_IsTrue(use);
        } else {
            return NULL;
        }
    }
    for (size_t i = 0; i < N_PRE && byte_level; i++) {
        bool same = k_pre[i].split == NULL ? split == NULL && own_pattern
                                           : split != NULL && !own_pattern && strcmp(split, k_pre[i].split) == 0;
        if (same && k_pre[i].digits == digits && k_pre[i].ignore_merges == ignore_merges)
            return k_pre[i].name;
    }
    return NULL;
}

typedef struct lists {
    bal_gguf_text *tokens, *merges;
    int32_t *types;
    size_t n, n_merges;
    bal_buf texts; /* of unused tokens and joined merges */
    size_t *at;    /* offsets in texts of the merges */
} lists;

static bal_status put_unused(lists *l, size_t vocab, const bal_tokenizer *t)
{
    bal_status status = BAL_OK;
    size_t *offsets = bal_alloc(vocab, sizeof *offsets);
    if (offsets == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < vocab; i++) {
        const char *token = bal_tokenizer_token(t, (int32_t)i);
        offsets[i] = l->texts.len;
        l->types[i] = token == NULL ? UNUSED : bal_tokenizer_is_special(t, (int32_t)i) ? CONTROL : NORMAL;
        if (token == NULL)
            BAL_TRY(bal_buf_printf(&l->texts, "[PAD%zu]", i));
        l->tokens[i] = (bal_gguf_text){token, token != NULL ? strlen(token) : l->texts.len - offsets[i]};
    }
    for (size_t i = 0; i < vocab; i++) /* now that the buffer does not move any more */
        if (l->tokens[i].data == NULL)
            l->tokens[i].data = l->texts.data + offsets[i];
out:
    bal_free(offsets);
    return status;
}

static bal_status join_merges(const cJSON *merges, bal_buf *texts, bal_gguf_text *out)
{
    bal_status status = BAL_OK;
    const cJSON *m;
    size_t i = 0, at;
    for (m = merges->child; m != NULL; m = m->next) {
        const cJSON *right = cJSON_IsArray(m) && m->child != NULL ? m->child->next : NULL;
        if (cJSON_IsString(m))
            status = bal_buf_text(texts, m->valuestring);
        else if (right != NULL && cJSON_IsString(m->child) && cJSON_IsString(right))
            status = bal_buf_printf(texts, "%s %s", m->child->valuestring, right->valuestring);
        else
            return bal_fail(BAL_EFORMAT, "tokenizer.json: a merge is neither a text nor a pair of texts");
        if (status == BAL_OK)
            status = bal_buf_append(texts, "", 1);
        if (status != BAL_OK)
            return status;
    }
    for (at = 0; at < texts->len; at += out[i++].n + 1)
        out[i] = (bal_gguf_text){texts->data + at, strlen(texts->data + at)};
    return BAL_OK;
}

static bal_status put_ids(const bal_tokenizer *t, const cJSON *config, bal_gguf_writer *w)
{
    static const char *const keys[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                       "tokenizer.ggml.padding_token_id"};
    const int32_t ids[3] = {bal_tokenizer_bos(t), bal_tokenizer_eos(t), bal_tokenizer_pad(t)};
    const cJSON *add = bal_json_member(config, "add_bos_token");
    bal_status status = BAL_OK;
    bal_ids probe = {0};
    for (size_t i = 0; i < 3; i++)
        if (ids[i] >= 0)
            BAL_TRY(bal_gguf_writer_u32(w, keys[i], (uint32_t)ids[i]));
    BAL_TRY(bal_tokenizer_encode(t, "a", 1, true, &probe));
    bool begins = probe.n > 0 && ids[0] >= 0 && probe.data[0] == ids[0];
    BAL_TRY(bal_gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", add != NULL ? cJSON_IsTrue(add) : begins));
    if (bal_tokenizer_chat_template(t) != NULL)
        status = bal_gguf_writer_text(w, "tokenizer.chat_template", bal_tokenizer_chat_template(t));
out:
    bal_ids_dispose(&probe);
    return status;
}

static bal_status put_bpe(const bal_tokenizer *t, const cJSON *json, const char *pre, size_t vocab, bal_gguf_writer *w)
{
    const cJSON *merges = bal_json_member(bal_json_member(json, "model"), "merges"), *added;
    bal_status status = BAL_OK;
    bal_buf joined = {0};
    lists l = {.n = vocab > bal_tokenizer_vocab_size(t) ? vocab : bal_tokenizer_vocab_size(t)};
    l.n_merges = cJSON_IsArray(merges) ? (size_t)cJSON_GetArraySize(merges) : 0;
    l.tokens = bal_alloc(l.n, sizeof *l.tokens);
    l.types = bal_alloc(l.n, sizeof *l.types);
    l.merges = bal_alloc(l.n_merges, sizeof *l.merges);
    if (l.tokens == NULL || l.types == NULL || l.merges == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(put_unused(&l, l.n, t));
    if (l.n_merges > 0)
        BAL_TRY(join_merges(merges, &joined, l.merges));
    added = bal_json_member(json, "added_tokens");
    for (const cJSON *a = cJSON_IsArray(added) ? added->child : NULL; a != NULL; a = a->next) {
        const cJSON *id = bal_json_member(a, "id");
        if (id != NULL && cJSON_IsNumber(id) && id->valuedouble >= 0 && id->valuedouble < (double)l.n &&
            !cJSON_IsTrue(bal_json_member(a, "special")))
            l.types[(size_t)id->valuedouble] = USER;
    }
    BAL_TRY(bal_gguf_writer_text(w, "tokenizer.ggml.model", "gpt2"));
    BAL_TRY(bal_gguf_writer_text(w, "tokenizer.ggml.pre", pre));
    BAL_TRY(bal_gguf_writer_texts(w, "tokenizer.ggml.tokens", l.tokens, l.n));
    BAL_TRY(bal_gguf_writer_i32s(w, "tokenizer.ggml.token_type", l.types, l.n));
    BAL_TRY(bal_gguf_writer_texts(w, "tokenizer.ggml.merges", l.merges, l.n_merges));
out:
    bal_free(l.tokens);
    bal_free(l.types);
    bal_free(l.merges);
    bal_buf_dispose(&l.texts);
    bal_buf_dispose(&joined);
    return status;
}

static bal_status read_if_there(cJSON **out, const char *folder, const char *name)
{
    char *path = bal_path_join(folder, name);
    bal_status status = path == NULL ? BAL_ENOMEM : BAL_OK;
    if (status == BAL_OK && bal_file_exists(path))
        status = bal_json_read(out, path, MAX_FILE);
    bal_free(path);
    return status;
}

bal_status bal_tokenizer_write_gguf(const char *folder, size_t vocab, bal_gguf_writer *w, char *note, size_t note_bytes)
{
    cJSON *json = NULL, *config = NULL;
    bal_tokenizer *t = NULL;
    bal_status status;
    note[0] = '\0';
    BAL_TRY(read_if_there(&json, folder, "tokenizer.json"));
    BAL_TRY(read_if_there(&config, folder, "tokenizer_config.json"));
    if (json == NULL) {
        (void)snprintf(note, note_bytes, "%.200s holds no tokenizer.json, so the GGUF file holds no tokenizer", folder);
        goto out;
    }
    const cJSON *model = bal_json_member(json, "model"), *normalizer = bal_json_member(json, "normalizer");
    bool bpe = strcmp(text_of(model, "type"), "BPE") == 0 &&
               (normalizer == NULL || strcmp(text_of(normalizer, "type"), "NFC") == 0);
    const char *pre =
        bpe ? pre_name(bal_json_member(json, "pre_tokenizer"), cJSON_IsTrue(bal_json_member(model, "ignore_merges")))
            : NULL;
    if (pre == NULL) {
        (void)snprintf(
            note, note_bytes,
            "the tokenizer of %.200s has no name in GGUF files, so the file holds none; give --tokenizer %.200s",
            folder, folder);
        goto out;
    }
    BAL_TRY(bal_tokenizer_load(&t, folder));
    BAL_TRY(put_bpe(t, json, pre, vocab, w));
    BAL_TRY(put_ids(t, config, w));
out:
    cJSON_Delete(json);
    cJSON_Delete(config);
    bal_tokenizer_free(t);
    return status;
}

static bal_status put_pre(bal_buf *b, size_t pre)
{
    bal_status status;
    BAL_TRY(bal_buf_text(b, ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["));
    if (k_pre[pre].digits)
        BAL_TRY(bal_buf_text(b, "{\"type\":\"Digits\",\"individual_digits\":true},"));
    if (k_pre[pre].split != NULL) {
        BAL_TRY(bal_buf_text(b, "{\"type\":\"Split\",\"pattern\":{\"Regex\":"));
        BAL_TRY(bal_json_put_text(b, k_pre[pre].split));
        BAL_TRY(bal_buf_text(b, "},\"behavior\":\"Isolated\",\"invert\":false},"));
    }
    status = bal_buf_printf(b,
                            "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,"
                            "\"use_regex\":%s}]}",
                            k_pre[pre].split == NULL ? "true" : "false");
out:
    return status;
}

static bal_status put_added(bal_buf *b, const bal_gguf_value *tokens, const bal_gguf_value *types)
{
    bal_status status = bal_buf_text(b, ",\"added_tokens\":[");
    bool first = true;
    for (size_t i = 0; i < tokens->n && status == BAL_OK; i++) {
        int type = types != NULL ? (int)bal_gguf_element(types, i) : NORMAL;
        if (type != CONTROL && type != USER && type != UNKNOWN)
            continue;
        BAL_TRY(bal_buf_printf(b, "%s{\"id\":%zu,\"content\":", first ? "" : ",", i));
        BAL_TRY(bal_json_put_textn(b, tokens->texts[i].data, tokens->texts[i].n));
        status = bal_buf_printf(b,
                                ",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
                                "\"special\":%s}",
                                type == USER ? "false" : "true");
        first = false;
    }
    if (status == BAL_OK)
        status = bal_buf_text(b, "]");
out:
    return status;
}

static bal_status put_vocab(bal_buf *b, const bal_gguf_value *tokens, const bal_gguf_value *merges, bool ignore_merges)
{
    bal_status status;
    BAL_TRY(bal_buf_printf(b,
                           ",\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
                           "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,\"fuse_unk\":false,"
                           "\"byte_fallback\":false,\"ignore_merges\":%s,\"vocab\":{",
                           ignore_merges ? "true" : "false"));
    for (size_t i = 0; i < tokens->n; i++) {
        BAL_TRY(bal_buf_text(b, i == 0 ? "" : ","));
        BAL_TRY(bal_json_put_textn(b, tokens->texts[i].data, tokens->texts[i].n));
        BAL_TRY(bal_buf_printf(b, ":%zu", i));
    }
    BAL_TRY(bal_buf_text(b, "},\"merges\":["));
    for (size_t i = 0; i < merges->n; i++) {
        BAL_TRY(bal_buf_text(b, i == 0 ? "" : ","));
        BAL_TRY(bal_json_put_textn(b, merges->texts[i].data, merges->texts[i].n));
    }
    status = bal_buf_text(b, "]}}\n");
out:
    return status;
}

/* Token number `key`, NULL if there is none. */
static const bal_gguf_text *named_token(const bal_gguf *g, const bal_gguf_value *tokens, const char *key, int64_t *id)
{
    *id = -1;
    bool found = false;
    if (bal_gguf_i64(g, key, id, &found) != BAL_OK || !found || *id < 0 || (uint64_t)*id >= tokens->n)
        return NULL;
    return &tokens->texts[*id];
}

static bool adds_bos(const bal_gguf *g)
{
    int64_t add = 0;
    return bal_gguf_i64(g, "tokenizer.ggml.add_bos_token", &add, NULL) == BAL_OK && add != 0;
}

/* A sequence that begins with BOS, or the byte level alone. */
static bal_status put_processor(bal_buf *b, const bal_gguf *g, const bal_gguf_value *tokens)
{
    int64_t id;
    const bal_gguf_text *bos = adds_bos(g) ? named_token(g, tokens, "tokenizer.ggml.bos_token_id", &id) : NULL;
    bal_buf name = {0};
    bal_status status;
    if (bos == NULL)
        return bal_buf_text(b, ",\"post_processor\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,"
                               "\"trim_offsets\":false,\"use_regex\":true}");
    BAL_TRY(bal_json_put_textn(&name, bos->data, bos->n));
    status = bal_buf_printf(b,
                            ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{"
                            "\"id\":%s,\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[{"
                            "\"SpecialToken\":{\"id\":%s,\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{"
                            "\"SpecialToken\":{\"id\":%s,\"type_id\":1}},{\"Sequence\":{\"id\":\"B\",\"type_id\":1}}],"
                            "\"special_tokens\":{%s:{\"id\":%s,\"ids\":[%lld],\"tokens\":[%s]}}}",
                            bal_buf_cstr(&name), bal_buf_cstr(&name), bal_buf_cstr(&name), bal_buf_cstr(&name),
                            bal_buf_cstr(&name), (long long)id, bal_buf_cstr(&name));
out:
    bal_buf_dispose(&name);
    return status;
}

static bal_status put_config(bal_buf *b, const bal_gguf *g, const bal_gguf_value *tokens)
{
    static const char *const keys[][2] = {{"bos_token", "tokenizer.ggml.bos_token_id"},
                                          {"eos_token", "tokenizer.ggml.eos_token_id"},
                                          {"pad_token", "tokenizer.ggml.padding_token_id"},
                                          {"unk_token", "tokenizer.ggml.unknown_token_id"}};
    const char *chat = bal_gguf_text_of(g, "tokenizer.chat_template");
    bal_status status;
    int64_t id;
    BAL_TRY(bal_buf_printf(b, "{\n  \"add_bos_token\": %s,\n  \"add_prefix_space\": false",
                           adds_bos(g) ? "true" : "false"));
    for (size_t i = 0; i < 4; i++) {
        const bal_gguf_text *token = named_token(g, tokens, keys[i][1], &id);
        if (token == NULL)
            continue;
        BAL_TRY(bal_buf_printf(b, ",\n  \"%s\": ", keys[i][0]));
        BAL_TRY(bal_json_put_textn(b, token->data, token->n));
    }
    if (chat != NULL) {
        BAL_TRY(bal_buf_text(b, ",\n  \"chat_template\": "));
        BAL_TRY(bal_json_put_text(b, chat));
    }
    status = bal_buf_text(b, ",\n  \"clean_up_tokenization_spaces\": false,\n"
                             "  \"tokenizer_class\": \"PreTrainedTokenizerFast\"\n}\n");
out:
    return status;
}

static bal_status write_into(const char *dir, const char *name, const bal_buf *b)
{
    char *path = bal_path_join(dir, name);
    bal_status status = path == NULL ? BAL_ENOMEM : bal_file_replace(path, b->data, b->len);
    bal_free(path);
    return status;
}

bal_status bal_tokenizer_export(const bal_gguf *g, const char *dir, char *note, size_t note_bytes)
{
    const char *model = bal_gguf_text_of(g, "tokenizer.ggml.model"), *pre = bal_gguf_text_of(g, "tokenizer.ggml.pre");
    const bal_gguf_value *tokens = bal_gguf_find(g, "tokenizer.ggml.tokens");
    const bal_gguf_value *types = bal_gguf_find(g, "tokenizer.ggml.token_type");
    const bal_gguf_value *merges = bal_gguf_find(g, "tokenizer.ggml.merges");
    bal_buf json = {0}, config = {0};
    bal_status status = BAL_OK;
    size_t k = 0;
    note[0] = '\0';
    pre = pre == NULL ? "default" : pre;
    while (k < N_PRE && strcmp(k_pre[k].name, pre) != 0)
        k++;
    if (model == NULL || strcmp(model, "gpt2") != 0 || k == N_PRE || tokens == NULL || tokens->texts == NULL ||
        merges == NULL || merges->texts == NULL ||
        (types != NULL && (types->texts != NULL || !types->is_array || types->n != tokens->n))) {
        (void)snprintf(note, note_bytes,
                       "the file's tokenizer (%.40s, %.40s) cannot be written as tokenizer.json; give --tokenizer with "
                       "the GGUF file",
                       model != NULL ? model : "none", pre);
        return BAL_OK;
    }
    BAL_TRY(bal_buf_text(&json, "{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"normalizer\":null"));
    BAL_TRY(put_added(&json, tokens, types));
    BAL_TRY(put_pre(&json, k));
    BAL_TRY(put_processor(&json, g, tokens));
    BAL_TRY(bal_buf_text(&json, ",\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,"
                                "\"use_regex\":true}"));
    BAL_TRY(put_vocab(&json, tokens, merges, k_pre[k].ignore_merges));
    BAL_TRY(put_config(&config, g, tokens));
    BAL_TRY(write_into(dir, "tokenizer.json", &json));
    status = write_into(dir, "tokenizer_config.json", &config);
out:
    bal_buf_dispose(&json);
    bal_buf_dispose(&config);
    return status;
}
