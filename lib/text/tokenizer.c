/* Encoding and the public face of tokenizers.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/gguf.h"
#include "lib/text/tokenizer_impl.h"

#include <string.h>

bal_status bal_ids_append(bal_ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap == 0 ? 64 : 2 * ids->cap;
        int32_t *data = bal_realloc(ids->data, cap, sizeof *data);
        if (data == NULL)
            return BAL_ENOMEM;
        ids->data = data;
        ids->cap = cap;
    }
    ids->data[ids->n++] = id;
    return BAL_OK;
}

void bal_ids_clear(bal_ids *ids)
{
    ids->n = 0;
}

void bal_ids_dispose(bal_ids *ids)
{
    bal_free(ids->data);
    *ids = (bal_ids){0};
}

typedef struct encoder {
    const bal_tokenizer *t;
    bal_buf normal;
    bal_pieces pieces;
    bal_piece_cache *cache; /* of a long text, else NULL */
    bal_ids *out;
    bool at_start;
} encoder;

enum { LONG_TEXT = 4096 };

static bal_status encode_piece(const bal_tokenizer *t, const char *piece, size_t n, bal_ids *out)
{
    switch (t->model) {
    case BAL_MODEL_WORDPIECE:
        return bal_wordpiece_encode(t, piece, n, out);
    case BAL_MODEL_WORDLEVEL:
        return bal_wordlevel_encode(t, piece, n, out);
    case BAL_MODEL_UNIGRAM:
        return bal_unigram_encode(t, piece, n, out);
    default:
        return bal_bpe_encode(t, piece, n, out);
    }
}

/* Words come back: their ids are kept. */
static bal_status encode_part(encoder *e, const char *piece, size_t n)
{
    size_t before = e->out->n;
    bal_status status = BAL_OK;
    if (e->cache != NULL && bal_piece_cache_get(e->cache, piece, n, e->out, &status))
        return status;
    status = encode_piece(e->t, piece, n, e->out);
    if (e->cache != NULL && status == BAL_OK)
        bal_piece_cache_put(e->cache, piece, n, e->out->data + before, e->out->n - before);
    return status;
}

static bal_status encode_plain(encoder *e, const char *text, size_t n)
{
    if (n == 0)
        return BAL_OK;
    bal_status status = bal_pre_tokenize(e->t, text, n, e->at_start, &e->pieces);
    for (size_t i = 0; i < e->pieces.n && status == BAL_OK; i++) {
        const char *piece = e->pieces.text.data + e->pieces.items[i].begin;
        size_t left = e->pieces.items[i].n, part;
        for (; left > 0 && status == BAL_OK; piece += part, left -= part) {
            part = e->t->joins_word_mark != NULL ? bal_bpe_cut(e->t, piece, left) : left;
            status = encode_part(e, piece, part);
        }
    }
    e->at_start = false;
    return status;
}

static bal_status encode_raw(encoder *e, const char *text, size_t n)
{
    bal_added_scan scan = {0};
    const bal_added *a;
    if (n == 0)
        return BAL_OK;
    bool cut = false;
    bal_status status = bal_normalize(e->t, text, n, &e->normal, e->t->first_is_marked && e->at_start ? &cut : NULL);
    e->at_start = e->at_start && !cut;
    const char *normal = bal_buf_cstr(&e->normal);
    while (status == BAL_OK && (a = bal_added_find(&e->t->normalized, normal, e->normal.len, &scan)) != NULL) {
        status = encode_plain(e, normal + scan.from, scan.begin - scan.from);
        if (status == BAL_OK)
            status = bal_ids_append(e->out, a->id);
        e->at_start = false;
    }
    return status == BAL_OK ? encode_plain(e, normal + scan.from, scan.begin - scan.from) : status;
}

bal_status bal_tokenizer_encode(const bal_tokenizer *t, const char *text, size_t n, bool special, bal_ids *out)
{
    encoder e = {.t = t, .out = out, .at_start = true};
    bal_buf clean = {0};
    bal_added_scan scan = {0};
    bal_status status = BAL_OK;
    const bal_added *a;
    BAL_TRY(bal_utf8_lossy(text, n, &clean));
    if (n >= LONG_TEXT && (e.cache = bal_piece_cache_new(n)) == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; special && i < t->n_prefix; i++)
        BAL_TRY(bal_ids_append(out, t->prefix[i]));
    const char *in = bal_buf_cstr(&clean);
    while ((a = bal_added_find(&t->raw, in, clean.len, &scan)) != NULL) {
        BAL_TRY(encode_raw(&e, in + scan.from, scan.begin - scan.from));
        BAL_TRY(bal_ids_append(out, a->id));
        e.at_start = false;
    }
    BAL_TRY(encode_raw(&e, in + scan.from, scan.begin - scan.from));
    for (size_t i = 0; special && i < t->n_suffix; i++)
        BAL_TRY(bal_ids_append(out, t->suffix[i]));
out:
    bal_buf_dispose(&clean);
    bal_buf_dispose(&e.normal);
    bal_pieces_dispose(&e.pieces);
    bal_piece_cache_free(e.cache);
    return status;
}

const char *const bal_named_tokens[BAL_NAMED_TOKENS] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                        "pad_token", "cls_token", "mask_token"};

static bal_status tokenizer_new(bal_tokenizer **out)
{
    bal_tokenizer *t = *out = bal_alloc(1, sizeof *t);
    if (t == NULL)
        return BAL_ENOMEM;
    t->unk = t->bos = t->eos = t->pad = -1;
    for (int i = 0; i < 256; i++)
        t->byte_ids[i] = -1;
    return BAL_OK;
}

/* SentencePiece's own file is told apart, with the command that converts it. */
static bal_status no_tokenizer(const char *path)
{
    char *file = bal_path_join(path, "tokenizer.model");
    bool there = file != NULL && bal_file_exists(file);
    bal_free(file);
    if (!there)
        return bal_fail(BAL_ENOENT, "%s holds no tokenizer.json", path);
    return bal_fail(BAL_EUNSUPPORTED,
                    "%s holds tokenizer.model, which is not read, and no tokenizer.json; convert it: python3 -c \"from "
                    "transformers import AutoTokenizer as T; T.from_pretrained('%s').save_pretrained('%s')\"",
                    path, path, path);
}

bal_status bal_tokenizer_load(bal_tokenizer **out, const char *path)
{
    bal_tokenizer *t = NULL;
    char *inside = NULL;
    *out = NULL;
    bal_status status = tokenizer_new(&t);
    if (status != BAL_OK)
        return status;
    if (bal_folder_exists(path)) {
        inside = bal_path_join(path, "tokenizer.json");
        if (inside != NULL && !bal_file_exists(inside)) {
            bal_free(inside);
            inside = bal_path_join(path, "tokenizer.json.gz");
        }
        BAL_TRY(inside == NULL ? BAL_ENOMEM : BAL_OK);
        if (!bal_file_exists(inside)) { /* a folder around one GGUF file is that file */
            bal_free(inside);
            BAL_TRY(bal_gguf_in_folder(&inside, path));
        }
        if (inside == NULL)
            BAL_TRY(no_tokenizer(path));
        path = inside;
    }
    if (bal_ends_with(path, ".gguf"))
        BAL_TRY(bal_tokenizer_load_gguf(t, path));
    else
        BAL_TRY(bal_tokenizer_load_json(t, path));
    *out = t;
    t = NULL;
out:
    bal_free(inside);
    bal_tokenizer_free(t);
    return status;
}

bal_status bal_tokenizer_parse(bal_tokenizer **out, const char *json, size_t n, const char *name)
{
    cJSON *tree = NULL;
    bal_tokenizer *t = NULL;
    bal_status status = BAL_OK;
    *out = NULL;
    BAL_TRY(tokenizer_new(&t));
    BAL_TRY(bal_json_parse(&tree, json, n, name));
    BAL_TRY(bal_tokenizer_read_json(t, tree, name));
    *out = t;
    t = NULL;
out:
    cJSON_Delete(tree);
    bal_tokenizer_free(t);
    return status;
}

static void steps_dispose(bal_steps *s)
{
    for (size_t i = 0; i < s->n; i++) {
        pcre2_code_free(s->items[i].regex);
        bal_free(s->items[i].literal);
        bal_free(s->items[i].content);
        bal_charsmap_free(s->items[i].charsmap);
    }
}

void bal_tokenizer_free(bal_tokenizer *t)
{
    if (t == NULL)
        return;
    steps_dispose(&t->normalizers);
    steps_dispose(&t->pre_tokenizers);
    steps_dispose(&t->decoders);
    pcre2_code_free(t->byte_level_regex);
    bal_free(t->tokens);
    bal_free(t->texts);
    bal_free(t->by_text.slots);
    bal_trie_dispose(&t->trie);
    bal_free(t->scores);
    bal_free(t->merges.slots);
    bal_free(t->joins_word_mark);
    for (size_t i = 0; i < t->normalized.n; i++)
        bal_free(t->normalized.items[i].own);
    bal_free(t->raw.items);
    bal_free(t->normalized.items);
    bal_free(t->chat_template);
    bal_free(t->tool_template);
    for (size_t i = 0; i < BAL_NAMED_TOKENS; i++)
        bal_free(t->named[i]);
    bal_free(t);
}

size_t bal_tokenizer_vocab_size(const bal_tokenizer *t)
{
    return t->n_tokens;
}

int32_t bal_tokenizer_id(const bal_tokenizer *t, const char *token)
{
    return bal_vocab_find(t, token, strlen(token));
}

const char *bal_tokenizer_token(const bal_tokenizer *t, int32_t id)
{
    return id < 0 || (size_t)id >= t->n_tokens ? NULL : t->tokens[id].text;
}

bool bal_tokenizer_is_special(const bal_tokenizer *t, int32_t id)
{
    return id >= 0 && (size_t)id < t->n_tokens && t->tokens[id].special;
}

int32_t bal_tokenizer_bos(const bal_tokenizer *t)
{
    return t->bos;
}

int32_t bal_tokenizer_eos(const bal_tokenizer *t)
{
    return t->eos;
}

int32_t bal_tokenizer_pad(const bal_tokenizer *t)
{
    return t->pad;
}

int32_t bal_tokenizer_mask(const bal_tokenizer *t)
{
    const char *named = t->named[BAL_NAMED_TOKENS - 1];
    int32_t id = named != NULL ? bal_tokenizer_id(t, named) : -1;
    id = id >= 0 ? id : bal_tokenizer_id(t, "[MASK]");
    return id >= 0 ? id : bal_tokenizer_id(t, "<mask>");
}

const char *bal_tokenizer_chat_template(const bal_tokenizer *t)
{
    return t->chat_template;
}

const char *bal_tokenizer_kind(const bal_tokenizer *t)
{
    return t->kind;
}
