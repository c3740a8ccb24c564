/* Vocabularies inside GGUF files: model "gpt2" (byte-level BPE with merges; the split pattern is known by name only)
 * and "llama" (SentencePiece: merges by score).  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/io/gguf.h"
#include "lib/text/tokenizer_impl.h"

#include <string.h>

enum { TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER = 4, TYPE_BYTE = 6 };

#define LLAMA3_PATTERN                                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"           \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define QWEN2_PATTERN                                                                                                  \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"                \
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* tokenizer.ggml.pre -> patterns, applied one after the other; what lies between matches is kept too. */
static const struct {
    const char *name, *first, *second;
    bool ignore_merges;
} k_pre[] = {
    {"gpt-2", bal_gpt2_pattern, NULL, false},      {"gpt2", bal_gpt2_pattern, NULL, false},
    {"mpt", bal_gpt2_pattern, NULL, false},        {"olmo", bal_gpt2_pattern, NULL, false},
    {"phi-2", bal_gpt2_pattern, NULL, false},      {"roberta-bpe", bal_gpt2_pattern, NULL, false},
    {"smollm", "\\p{N}", bal_gpt2_pattern, false}, {"starcoder", "\\p{N}", bal_gpt2_pattern, false},
    {"refact", "\\p{N}", bal_gpt2_pattern, false}, {"codeshell", "\\p{N}", bal_gpt2_pattern, false},
    {"llama-bpe", LLAMA3_PATTERN, NULL, true},     {"llama-v3", LLAMA3_PATTERN, NULL, true},
    {"llama3", LLAMA3_PATTERN, NULL, true},        {"smaug-bpe", LLAMA3_PATTERN, NULL, false},
    {"qwen2", QWEN2_PATTERN, NULL, false},         {"deepseek-r1-qwen", QWEN2_PATTERN, NULL, false},
};

static bal_status read_tokens(bal_tokenizer *t, const bal_gguf *g, const char *path)
{
    const bal_gguf_value *tokens = bal_gguf_find(g, "tokenizer.ggml.tokens");
    const bal_gguf_value *types = bal_gguf_find(g, "tokenizer.ggml.token_type");
    const bal_gguf_value *scores = bal_gguf_find(g, "tokenizer.ggml.scores");
    if (tokens == NULL || tokens->texts == NULL || tokens->n == 0 || tokens->n >= BAL_MAX_VOCAB)
        return bal_fail(BAL_EFORMAT, "%s: tokenizer.ggml.tokens is missing or no list of texts", path);
    if ((types != NULL && (types->texts != NULL || types->n != tokens->n)) ||
        (scores != NULL && (scores->texts != NULL || scores->n != tokens->n)))
        return bal_fail(BAL_EFORMAT, "%s: token types or scores are not %zu numbers", path, tokens->n);
    size_t bytes = 0;
    for (size_t i = 0; i < tokens->n; i++)
        bytes += tokens->texts[i].n + 1;
    bal_status status = bal_vocab_reserve(t, tokens->n, bytes);
    size_t n_added = 0;
    for (size_t i = 0; i < tokens->n && status == BAL_OK; i++) {
        status = bal_vocab_add(t, (int32_t)i, tokens->texts[i].data, tokens->texts[i].n);
        if (status != BAL_OK)
            break;
        int type = types != NULL ? (int)bal_gguf_element(types, i) : 1;
        t->tokens[i].special = type == TYPE_CONTROL || type == TYPE_UNKNOWN;
        t->tokens[i].added = type == TYPE_CONTROL || type == TYPE_USER;
        t->tokens[i].score = scores != NULL ? (float)bal_gguf_element(scores, i) : 0.0F;
        if (type == TYPE_UNKNOWN)
            t->unk = (int32_t)i;
        n_added += t->tokens[i].added;
    }
    if (status == BAL_OK)
        status = bal_vocab_index(t);
    if (status != BAL_OK)
        return status;
    t->raw.items = bal_alloc(n_added + 1, sizeof *t->raw.items);
    if (t->raw.items == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < t->n_tokens; i++)
        if (t->tokens[i].added && t->tokens[i].n > 0)
            t->raw.items[t->raw.n++] =
                (bal_added){t->tokens[i].text, t->tokens[i].n, (int32_t)i, false, false, false, false, NULL};
    bal_added_index(&t->raw);
    return BAL_OK;
}

static bal_step *add_step(bal_steps *steps, bal_step_kind kind)
{
    bal_step *s = &steps->items[steps->n++];
    s->kind = kind;
    return s;
}

static bal_status add_split(bal_tokenizer *t, const char *pattern, const char *path)
{
    bal_step *s = add_step(&t->pre_tokenizers, BAL_STEP_SPLIT);
    s->behavior = BAL_SPLIT_ISOLATED;
    return bal_regex_compile(&s->regex, pattern, path);
}

static bal_status setup_gpt2(bal_tokenizer *t, const bal_gguf *g, const char *path)
{
    const bal_gguf_value *merges = bal_gguf_find(g, "tokenizer.ggml.merges");
    const char *pre = bal_gguf_text_of(g, "tokenizer.ggml.pre");
    bal_buf joined = {0};
    bal_status status = BAL_OK;
    size_t k = 0, n_pre = sizeof k_pre / sizeof k_pre[0];
    t->kind = "BPE";
    pre = pre == NULL || strcmp(pre, "default") == 0 ? "gpt-2" : pre;
    while (k < n_pre && strcmp(k_pre[k].name, pre) != 0)
        k++;
    if (k == n_pre)
        return bal_fail(BAL_EUNSUPPORTED,
                        "%s: pre-tokenizer '%.60s' (tokenizer.ggml.pre) is not known; use the model's tokenizer.json",
                        path, pre);
    if (merges == NULL || merges->texts == NULL)
        return bal_fail(BAL_EFORMAT, "%s: tokenizer.ggml.merges is missing or no list of texts", path);
    t->ignore_merges = k_pre[k].ignore_merges;
    BAL_TRY(add_split(t, k_pre[k].first, path));
    if (k_pre[k].second != NULL)
        BAL_TRY(add_split(t, k_pre[k].second, path));
    (void)add_step(&t->pre_tokenizers, BAL_STEP_BYTE_LEVEL);
    (void)add_step(&t->decoders, BAL_STEP_BYTE_LEVEL);
    BAL_TRY(bal_merges_reserve(t, merges->n));
    for (size_t i = 0; i < merges->n; i++) {
        const bal_gguf_text m = merges->texts[i];
        const char *space = m.n > 0 ? memchr(m.data + 1, ' ', m.n - 1) : NULL;
        size_t nl = space != NULL ? (size_t)(space - m.data) : 0;
        int32_t a = -1, b = -1, c = -1;
        if (space != NULL) {
            bal_buf_clear(&joined);
            BAL_TRY(bal_buf_append(&joined, m.data, nl));
            BAL_TRY(bal_buf_append(&joined, space + 1, m.n - nl - 1));
            a = bal_vocab_find(t, m.data, nl);
            b = bal_vocab_find(t, space + 1, m.n - nl - 1);
            c = bal_vocab_find(t, bal_buf_cstr(&joined), joined.len);
        }
        if (a < 0 || b < 0 || c < 0)
            BAL_TRY(bal_fail(BAL_EFORMAT, "%s: merge %zu ('%.*s') names a token that the vocabulary lacks", path, i,
                             m.n < 60 ? (int)m.n : 60, m.data));
        BAL_TRY(bal_merges_add(t, (uint32_t)a, (uint32_t)b, (uint32_t)i, (uint32_t)c, false));
    }
out:
    bal_buf_dispose(&joined);
    return status;
}

static bal_status setup_llama(bal_tokenizer *t, const bal_gguf *g)
{
    static const char mark[] = "\xE2\x96\x81";
    int64_t prefix = 1;
    bal_status status = bal_gguf_i64(g, "tokenizer.ggml.add_space_prefix", &prefix, NULL);
    t->kind = "SentencePiece BPE";
    t->by_score = true;
    t->byte_fallback = true;
    t->fuse_unk = true;
    bal_vocab_find_bytes(t);
    if (status == BAL_OK && prefix != 0) {
        bal_step *s = add_step(&t->normalizers, BAL_STEP_PREPEND);
        status = (s->content = bal_strdup(mark)) == NULL ? BAL_ENOMEM : BAL_OK;
    }
    for (int decoding = 0; decoding < 2 && status == BAL_OK; decoding++) {
        bal_step *s = add_step(decoding != 0 ? &t->decoders : &t->normalizers, BAL_STEP_REPLACE);
        s->literal = bal_strdup(decoding != 0 ? mark : " ");
        s->content = bal_strdup(decoding != 0 ? " " : mark);
        status = s->literal == NULL || s->content == NULL ? BAL_ENOMEM : BAL_OK;
    }
    (void)add_step(&t->decoders, BAL_STEP_BYTE_FALLBACK);
    (void)add_step(&t->decoders, BAL_STEP_FUSE);
    if (status == BAL_OK && prefix != 0) {
        bal_step *s = add_step(&t->decoders, BAL_STEP_STRIP);
        s->start = 1;
        status = (s->content = bal_strdup(" ")) == NULL ? BAL_ENOMEM : BAL_OK;
    }
    return status;
}

static bal_status special_id(const bal_tokenizer *t, const bal_gguf *g, const char *key, int32_t *out)
{
    int64_t id = -1;
    bool found = false;
    bal_status status = bal_gguf_i64(g, key, &id, &found);
    if (status == BAL_OK && found && (id < 0 || (size_t)id >= t->n_tokens))
        status = bal_fail(BAL_EFORMAT, "%s is %lld, outside the vocabulary of %zu", key, (long long)id, t->n_tokens);
    if (status == BAL_OK && found)
        *out = (int32_t)id;
    return status;
}

bal_status bal_tokenizer_load_gguf(bal_tokenizer *t, const char *path)
{
    bal_gguf *g = NULL;
    bal_status status = BAL_OK;
    BAL_TRY(bal_gguf_open(&g, path));
    const char *model = bal_gguf_text_of(g, "tokenizer.ggml.model");
    if (model == NULL)
        BAL_TRY(bal_fail(BAL_ENOENT, "%s holds no tokenizer (tokenizer.ggml.model is missing)", path));
    bool llama = strcmp(model, "llama") == 0;
    if (!llama && strcmp(model, "gpt2") != 0)
        BAL_TRY(bal_fail(BAL_EUNSUPPORTED, "%s: tokenizer model '%.60s' is not supported; gpt2 and llama are", path,
                         model));
    BAL_TRY(read_tokens(t, g, path));
    t->has_decoder = true;
    BAL_TRY(bal_regex_compile(&t->byte_level_regex, bal_gpt2_pattern, path));
    BAL_TRY(llama ? setup_llama(t, g) : setup_gpt2(t, g, path));
    BAL_TRY(bal_bpe_find_cuts(t));
    BAL_TRY(special_id(t, g, "tokenizer.ggml.bos_token_id", &t->bos));
    BAL_TRY(special_id(t, g, "tokenizer.ggml.eos_token_id", &t->eos));
    BAL_TRY(special_id(t, g, "tokenizer.ggml.padding_token_id", &t->pad));
    BAL_TRY(special_id(t, g, "tokenizer.ggml.unknown_token_id", &t->unk));
    int64_t add_bos = llama, add_eos = 0; /* the defaults of the two kinds */
    BAL_TRY(bal_gguf_i64(g, "tokenizer.ggml.add_bos_token", &add_bos, NULL));
    BAL_TRY(bal_gguf_i64(g, "tokenizer.ggml.add_eos_token", &add_eos, NULL));
    if (add_bos != 0 && t->bos >= 0)
        t->prefix[t->n_prefix++] = t->bos;
    if (add_eos != 0 && t->eos >= 0)
        t->suffix[t->n_suffix++] = t->eos;
    const int32_t ids[] = {t->bos, t->eos, t->unk, -1, t->pad, -1, -1};
    for (size_t i = 0; i < BAL_NAMED_TOKENS; i++)
        if (ids[i] >= 0 && t->tokens[ids[i]].text != NULL)
            BAL_TRY((t->named[i] = bal_strdup(t->tokens[ids[i]].text)) == NULL ? BAL_ENOMEM : BAL_OK);
    const char *chat = bal_gguf_text_of(g, "tokenizer.chat_template");
    if (chat != NULL)
        BAL_TRY((t->chat_template = bal_strdup(chat)) == NULL ? BAL_ENOMEM : BAL_OK);
out:
    bal_gguf_close(g);
    return status;
}
