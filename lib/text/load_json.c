/* tokenizer.json: every component that is known, and one clear error for any other.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { JSON_MAX_BYTES = 256 << 20, CONFIG_MAX_BYTES = 16 << 20 };

/* Adds the added tokens; ids: of each, -1 for one that does not count.  The reference takes an id from the model's
 * vocabulary, or the next free one: the ids that the file names are not used, and of equal texts the first counts. */
static bal_status number_added(bal_tokenizer *t, const cJSON *added, int32_t next, int32_t *ids)
{
    int32_t end = 0; /* behind the largest id of an added token */
    for (const cJSON *a = added != NULL ? added->child : NULL; a != NULL; a = a->next, ids++) {
        char *content = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(a, "content"));
        size_t n = bal_json_text_bytes(content);
        int32_t id = *ids = n > 0 ? bal_vocab_find(t, content, n) : -1;
        if (n == 0)
            continue;
        if (id < 0) {
            id = *ids = end > next ? end : next;
            bal_status status = bal_vocab_add(t, id, content, n);
            if (status != BAL_OK)
                return status;
            bal_vocab_index_one(t, id);
            t->tokens[id].outside = true;
        }
        end = id >= end ? id + 1 : end;
        *ids = t->tokens[id].added ? -1 : id;
        t->tokens[id].added = true;
        t->tokens[id].special |= bal_tokenizer_flag(a, "special", false);
    }
    while (t->n_tokens > 0 && t->tokens[t->n_tokens - 1].text == NULL)
        t->n_tokens--;
    return BAL_OK;
}

/* Vocabulary and added tokens share one table of ids.  vocab: an object of ids, or (Unigram) a list of [text, score]
 * whose ids are their places. */
static bal_status read_vocab(bal_tokenizer *t, const cJSON *vocab, const cJSON *added, int32_t *added_ids,
                             const char *path)
{
    bool list = cJSON_IsArray(vocab);
    double top = -1, place = 0;
    size_t bytes = 0, n_added = 0, n_vocab = 0;
    for (const cJSON *v = vocab->child; v != NULL; v = v->next) {
        const char *text = list ? cJSON_GetStringValue(v->child) : v->string;
        double id = list ? place++ : v->valuedouble;
        if (text == NULL || (list && (!cJSON_IsNumber(v->child->next) || v->child->next->next != NULL)))
            return bal_fail(BAL_EFORMAT, "%s: entry %.17g of the vocabulary is no pair of a text and a score", path,
                            id);
        top = id > top ? id : top;
        bytes += strlen(text) + 1;
        n_vocab++;
    }
    for (const cJSON *a = added != NULL ? added->child : NULL; a != NULL; a = a->next) {
        const cJSON *id = cJSON_GetObjectItemCaseSensitive(a, "id");
        const char *content = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(a, "content"));
        if (!cJSON_IsNumber(id) || content == NULL)
            return bal_fail(BAL_EFORMAT, "%s: an added token lacks its id or content", path);
        if (!(id->valuedouble >= 0 && id->valuedouble < BAL_MAX_VOCAB))
            return bal_fail(BAL_EFORMAT, "%s: added token '%.40s' has id %.17g, not in 0 .. %d", path, content,
                            id->valuedouble, BAL_MAX_VOCAB - 1);
        if (strlen(content) > BAL_MAX_ADDED)
            return bal_fail(BAL_ELIMIT, "%s: added token '%.40s...' has more than %d bytes", path, content,
                            BAL_MAX_ADDED);
        bal_status status = bal_tokenizer_check_flags(a, path);
        if (status != BAL_OK)
            return status;
        bytes += strlen(content) + 1;
        n_added++;
    }
    if (!(top < BAL_MAX_VOCAB) || n_vocab + n_added >= BAL_MAX_VOCAB)
        return bal_fail(BAL_EFORMAT, "%s: largest id is %.17g, not in 0 .. %d", path, top, BAL_MAX_VOCAB - 1);
    size_t n_ids = top + 1 > (double)n_vocab ? (size_t)(top + 1) : n_vocab;
    bal_status status = bal_vocab_reserve(t, n_ids + n_added, bytes);
    place = 0;
    for (const cJSON *v = vocab->child; v != NULL && status == BAL_OK; v = v->next) {
        char *text = list ? v->child->valuestring : v->string;
        double id = list ? place++ : v->valuedouble;
        bool whole = (list || cJSON_IsNumber(v)) && id >= 0 && id == (double)(int32_t)id;
        status = whole ? bal_vocab_add(t, (int32_t)id, text, bal_json_text_bytes(text))
                       : bal_fail(BAL_EFORMAT, "token '%.40s' has no whole id", text);
    }
    if (status == BAL_OK)
        status = bal_vocab_index(t);
    for (size_t i = 0; i < t->n_tokens && status == BAL_OK && !list; i++) {
        const bal_token *k = &t->tokens[i];
        if (k->text != NULL && bal_vocab_find(t, k->text, k->n) != (int32_t)i)
            status = bal_fail(BAL_EFORMAT, "token '%.40s' has two ids", k->text);
    }
    if (status == BAL_OK)
        status = number_added(t, added, (int32_t)n_vocab, added_ids);
    return status == BAL_OK ? BAL_OK : bal_fail_note(status, "%s", path);
}

static bal_status read_added(bal_tokenizer *t, const cJSON *added, const int32_t *ids)
{
    size_t n = (size_t)(added != NULL ? cJSON_GetArraySize(added) : 0);
    t->raw.items = bal_alloc(n + 1, sizeof *t->raw.items);
    t->normalized.items = bal_alloc(n + 1, sizeof *t->normalized.items);
    if (t->raw.items == NULL || t->normalized.items == NULL)
        return BAL_ENOMEM;
    for (const cJSON *a = added != NULL ? added->child : NULL; a != NULL; a = a->next) {
        int32_t id = *ids++;
        if (id < 0)
            continue;
        const bal_token *k = &t->tokens[id];
        bal_added x = {k->text,
                       k->n,
                       id,
                       bal_tokenizer_flag(a, "single_word", false),
                       bal_tokenizer_flag(a, "lstrip", false),
                       bal_tokenizer_flag(a, "rstrip", false),
                       bal_tokenizer_flag(a, "normalized", !k->special),
                       NULL};
        bal_buf form = {0};
        if (x.normalized && t->normalizers.n > 0) { /* such a token is searched for as the normalizers leave it */
            bal_status status = bal_normalize(t, k->text, k->n, &form, NULL);
            x.own = status == BAL_OK ? bal_strndup(bal_buf_cstr(&form), form.len) : NULL;
            x.text = x.own;
            x.n = (uint32_t)form.len;
            bal_buf_dispose(&form);
            if (x.own == NULL)
                return status != BAL_OK ? status : BAL_ENOMEM;
        }
        if (x.n == 0) { /* the reference would find it between any two characters */
            bal_free(x.own);
            return bal_fail(BAL_EUNSUPPORTED,
                            "added token %d, of which the normalizer leaves nothing, is not supported", (int)id);
        }
        if (x.own != NULL) {
            t->tokens[id].form = x.own;
            t->tokens[id].n_form = x.n;
        }
        bal_added_set *set = x.normalized ? &t->normalized : &t->raw;
        set->items[set->n++] = x;
    }
    for (size_t i = 0; i < t->normalized.n; i++) { /* decoding asks whether the form is the text of a special token */
        const bal_added *x = &t->normalized.items[i];
        int32_t same = x->own != NULL ? bal_vocab_find(t, x->own, x->n) : -1;
        t->tokens[x->id].special_form = same >= 0 && t->tokens[same].special;
    }
    bal_added_index(&t->raw);
    bal_added_index(&t->normalized);
    return BAL_OK;
}

/* A merge is "left right", or ["left", "right"]. */
static bal_status read_merge(bal_tokenizer *t, const cJSON *m, uint32_t rank, const char *path, bal_buf *joined)
{
    char *left = NULL, *right = NULL;
    size_t nl = 0, nr = 0;
    if (cJSON_IsString(m)) {
        left = m->valuestring;
        if (strncmp(left, "#version", 8) == 0)
            return BAL_OK;
        size_t n = bal_json_text_bytes(left);
        char *space = memchr(left, ' ', n);
        nl = space != NULL ? (size_t)(space - left) : 0;
        nr = space != NULL ? n - nl - 1 : 0;
        right = space != NULL && memchr(space + 1, ' ', nr) == NULL ? space + 1 : NULL;
    } else if (cJSON_IsArray(m) && m->child != NULL && m->child->next != NULL) {
        left = cJSON_GetStringValue(m->child);
        right = cJSON_GetStringValue(m->child->next);
        nl = left != NULL ? bal_json_text_bytes(left) : 0;
        nr = right != NULL ? bal_json_text_bytes(right) : 0;
    }
    if (left == NULL || right == NULL)
        return bal_fail(BAL_EFORMAT, "%s: merge %u is no pair of texts", path, (unsigned)rank);
    bal_buf_clear(joined);
    size_t cut = t->n_continuing; /* the right one continues a word: so much of it goes */
    if (cut > nr)
        return bal_fail(BAL_EFORMAT, "%s: the right token of merge %u is shorter than continuing_subword_prefix", path,
                        (unsigned)rank);
    bal_status status = bal_buf_append(joined, left, nl);
    if (status == BAL_OK)
        status = bal_buf_append(joined, right + cut, nr - cut);
    if (status != BAL_OK)
        return status;
    int32_t a = bal_vocab_known(t, left, nl), b = bal_vocab_known(t, right, nr);
    int32_t c = bal_vocab_known(t, bal_buf_cstr(joined), joined->len);
    if (a < 0 || b < 0 || c < 0)
        return bal_fail(BAL_EFORMAT, "%s: merge %u ('%.40s' + '%.40s') names a token that the vocabulary lacks", path,
                        (unsigned)rank, left, right);
    return bal_merges_add(t, (uint32_t)a, (uint32_t)b, rank, (uint32_t)c, true);
}

static bal_status read_affix(const cJSON *model, const char *key, char *out, size_t *n, const char *path)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, key));
    *n = text != NULL ? strlen(text) : 0;
    if (*n > BAL_MAX_AFFIX || (*n > 0 && strstr(text, "\xC0\x80") != NULL))
        return bal_tokenizer_unknown(path, key, text);
    memcpy(out, text != NULL ? text : "", *n);
    return BAL_OK;
}

/* An unk_token that the model does not know is an error at the first text that needs it. */
static void find_unknown(bal_tokenizer *t, const cJSON *model)
{
    char *unk = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "unk_token"));
    t->unk = unk != NULL ? bal_vocab_known(t, unk, bal_json_text_bytes(unk)) : -1;
    t->unk_missing = unk != NULL && t->unk < 0;
}

static bal_status read_bpe(bal_tokenizer *t, const cJSON *model, const char *path)
{
    const cJSON *merges = cJSON_GetObjectItemCaseSensitive(model, "merges");
    bal_buf joined = {0};
    uint32_t rank = 0;
    bal_status status = read_affix(model, "continuing_subword_prefix", t->continuing_prefix, &t->n_continuing, path);
    if (status == BAL_OK)
        status = read_affix(model, "end_of_word_suffix", t->word_suffix, &t->n_word_suffix, path);
    if (status != BAL_OK)
        return status;
    const cJSON *dropout = bal_json_member(model, "dropout");
    if (dropout != NULL && (!cJSON_IsNumber(dropout) || dropout->valuedouble != 0))
        return bal_tokenizer_unknown(path, "model option", "dropout");
    t->kind = "BPE";
    t->fuse_unk = bal_tokenizer_flag(model, "fuse_unk", false);
    t->byte_fallback = bal_tokenizer_flag(model, "byte_fallback", false);
    t->ignore_merges = bal_tokenizer_flag(model, "ignore_merges", false);
    find_unknown(t, model);
    bal_vocab_find_bytes(t);
    status = bal_merges_reserve(t, (size_t)(merges != NULL ? cJSON_GetArraySize(merges) : 0));
    for (const cJSON *m = merges != NULL ? merges->child : NULL; m != NULL && status == BAL_OK; m = m->next)
        status = read_merge(t, m, rank++, path, &joined);
    bal_buf_dispose(&joined);
    return status == BAL_OK ? bal_bpe_find_cuts(t) : status;
}

/* WordPiece, and WordLevel, which is whole words only. */
static bal_status read_words(bal_tokenizer *t, const cJSON *model, bool pieces, const char *path)
{
    const char *prefix = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "continuing_subword_prefix"));
    int64_t most = 100;
    uint32_t node = 0;
    find_unknown(t, model);
    bal_status status = bal_json_i64(model, path, "max_input_chars_per_word", 0, INT32_MAX, &most, NULL);
    if (status == BAL_OK)
        status = bal_trie_build(&t->trie, t->tokens, t->n_tokens);
    if (status != BAL_OK)
        return status;
    t->kind = pieces ? "WordPiece" : "WordLevel";
    t->model = pieces ? BAL_MODEL_WORDPIECE : BAL_MODEL_WORDLEVEL;
    t->max_word_chars = (size_t)most;
    t->continuing = 0;
    for (const char *p = prefix != NULL ? prefix : "##"; *p != '\0' && t->continuing >= 0; p++) {
        node = bal_trie_step(&t->trie, node, (unsigned char)*p);
        t->continuing = node != 0 ? (int64_t)node : -1;
    }
    return BAL_OK;
}

/* The number that the reference library makes of x's shortest decimal form: the digits as a whole number, rounded to a
 * double, times or divided by a power of ten, rounded again.  The last bit may differ from x, and where two ways to cut
 * a text have equal sums it tells which one is taken.  Only the digits are read back, so x comes from any JSON reader. */
static double as_reference_reads(double x)
{
    char text[40];
    double back = 0, power = 1;
    uint64_t digits = 0;
    int64_t exponent = 0;
    for (int n = 15; n <= 17; n++) { /* the shortest form that means x, or that with zeros behind it */
        (void)snprintf(text, sizeof text, "%.*e", n - 1, fabs(x));
        if (bal_parse_f64(text, 0, INFINITY, &back) == BAL_OK && back == fabs(x))
            break;
    }
    char *e = strchr(text, 'e');
    if (e == NULL || bal_parse_i64(e[1] == '+' ? e + 2 : e + 1, -400, 400, &exponent) != BAL_OK)
        return x;
    while (e > text + 2 && e[-1] == '0')
        e--;
    for (const char *p = text; p < e; p++)
        if (*p != '.') {
            digits = digits * 10 + (uint64_t)(*p - '0');
            exponent -= p > text ? 1 : 0;
        }
    for (int64_t i = exponent < 0 ? -exponent : exponent; i > 0 && i < 23; i--)
        power *= 10; /* exact up to 10^22 */
    if (exponent < -22 || exponent > 22)
        return x;
    double y = exponent < 0 ? (double)digits / power : (double)digits * power;
    return x < 0 ? -y : y;
}

static bal_status read_unigram(bal_tokenizer *t, const cJSON *model, const char *path)
{
    const cJSON *vocab = bal_json_member(model, "vocab");
    int64_t unk = -1;
    double least = INFINITY;
    size_t i = 0;
    bal_status status = bal_json_i64(model, path, "unk_id", 0, cJSON_GetArraySize(vocab) - (int64_t)1, &unk, NULL);
    if (status != BAL_OK)
        return status;
    t->kind = "Unigram";
    t->model = BAL_MODEL_UNIGRAM;
    t->unk = (int32_t)unk;
    t->byte_fallback = bal_tokenizer_flag(model, "byte_fallback", false);
    bal_vocab_find_bytes(t);
    t->scores = bal_alloc(t->n_tokens, sizeof *t->scores);
    if (t->scores == NULL)
        return BAL_ENOMEM;
    for (const cJSON *v = vocab->child; v != NULL; v = v->next) {
        t->scores[i] = as_reference_reads(v->child->next->valuedouble);
        least = t->scores[i] < least ? t->scores[i] : least;
        i++;
    }
    t->unk_score = least - 10;
    return bal_trie_build(&t->trie, t->tokens, t->n_tokens);
}

static bal_status read_model(bal_tokenizer *t, const cJSON *model, const char *type, const char *path)
{
    if (strcmp(type, "WordPiece") == 0 || strcmp(type, "WordLevel") == 0)
        return read_words(t, model, type[4] == 'P', path);
    return strcmp(type, "Unigram") == 0 ? read_unigram(t, model, path) : read_bpe(t, model, path);
}

/* The special tokens of tokenizer_config.json: a text each, or an object with its content. */
static bal_status config_tokens(bal_tokenizer *t, const cJSON *config)
{
    for (size_t i = 0; i < BAL_NAMED_TOKENS; i++) {
        const cJSON *v = cJSON_GetObjectItemCaseSensitive(config, bal_named_tokens[i]);
        const char *text = cJSON_GetStringValue(cJSON_IsObject(v) ? cJSON_GetObjectItemCaseSensitive(v, "content") : v);
        int32_t id = text != NULL ? bal_tokenizer_id(t, text) : -1;
        if (text != NULL && (t->named[i] = bal_strdup(text)) == NULL)
            return BAL_ENOMEM;
        t->bos = i == 0 ? id : t->bos;
        t->eos = i == 1 ? id : t->eos;
        t->pad = i == 4 ? id : t->pad;
    }
    return BAL_OK;
}

static bal_status keep(char **out, const char *text)
{
    if (text == NULL || *out != NULL)
        return BAL_OK;
    *out = bal_strdup(text);
    return *out == NULL ? BAL_ENOMEM : BAL_OK;
}

/* One text, or a list of {name, template}: "default" and "tool_use" are used. */
static bal_status config_template(bal_tokenizer *t, const cJSON *v)
{
    bal_status status = keep(&t->chat_template, cJSON_GetStringValue(v));
    for (const cJSON *e = cJSON_IsArray(v) ? v->child : NULL; e != NULL && status == BAL_OK; e = e->next) {
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "name"));
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(e, "template"));
        if (name != NULL && strcmp(name, "default") == 0)
            status = keep(&t->chat_template, text);
        else if (name != NULL && strcmp(name, "tool_use") == 0)
            status = keep(&t->tool_template, text);
    }
    return status;
}

/* What stands beside tokenizer.json; chat_template.jinja goes before the template of tokenizer_config.json. */
static bal_status read_beside(bal_tokenizer *t, const char *path)
{
    char *dir = bal_path_dir(path), *config_path = NULL, *template_path = NULL;
    cJSON *config = NULL;
    bal_buf text = {0};
    bal_status status = BAL_OK;
    BAL_TRY(dir == NULL ? BAL_ENOMEM : BAL_OK);
    config_path = bal_path_join(dir, "tokenizer_config.json");
    template_path = bal_path_join(dir, "chat_template.jinja");
    BAL_TRY(config_path == NULL || template_path == NULL ? BAL_ENOMEM : BAL_OK);
    if (bal_file_exists(template_path)) {
        BAL_TRY(bal_file_read(template_path, CONFIG_MAX_BYTES, &text));
        BAL_TRY(keep(&t->chat_template, bal_buf_cstr(&text)));
    }
    if (bal_file_exists(config_path)) {
        BAL_TRY(bal_json_read(&config, config_path, CONFIG_MAX_BYTES));
        BAL_TRY(config_tokens(t, config));
        BAL_TRY(config_template(t, cJSON_GetObjectItemCaseSensitive(config, "chat_template")));
    }
out:
    bal_buf_dispose(&text);
    cJSON_Delete(config);
    bal_free(dir);
    bal_free(config_path);
    bal_free(template_path);
    return status;
}

bal_status bal_tokenizer_read_json(bal_tokenizer *t, const cJSON *json, const char *path)
{
    bal_status status = BAL_OK;
    int32_t *added_ids = NULL;
    const cJSON *model = bal_json_member(json, "model");
    const cJSON *added = bal_json_member(json, "added_tokens");
    const char *type = model != NULL ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "type")) : NULL;
    const cJSON *vocab = model != NULL ? bal_json_member(model, "vocab") : NULL;
    if (vocab == NULL)
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: no tokenizer: 'model' with 'vocab' is missing", path));
    /* old files name no type: merges tell that it is BPE ... */
    if (type == NULL && bal_json_member(model, "merges") != NULL)
        type = "BPE";
    else if (type == NULL)
        type = cJSON_IsArray(vocab)                                         ? "Unigram"
               : bal_json_member(model, "max_input_chars_per_word") != NULL ? "WordPiece"
                                                                            : "WordLevel";
    if (strcmp(type, "BPE") != 0 && strcmp(type, "WordPiece") != 0 && strcmp(type, "Unigram") != 0 &&
        strcmp(type, "WordLevel") != 0)
        BAL_TRY(bal_tokenizer_unknown(path, "model", type));
    BAL_TRY(bal_tokenizer_check_flags(model, path));
    if (cJSON_IsArray(vocab) != (strcmp(type, "Unigram") == 0))
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: the vocabulary of a %s model is %s", path, type,
                         cJSON_IsArray(vocab) ? "a list" : "no list"));
    added_ids = bal_alloc((size_t)(added != NULL ? cJSON_GetArraySize(added) : 0) + 1, sizeof *added_ids);
    BAL_TRY(added_ids == NULL ? BAL_ENOMEM : BAL_OK);
    BAL_TRY(read_vocab(t, vocab, added, added_ids, path));
    BAL_TRY(read_model(t, model, type, path));
    BAL_TRY(bal_tokenizer_read_components(t, json, path));
    BAL_TRY(read_added(t, added, added_ids));
out:
    bal_free(added_ids);
    return status;
}

bal_status bal_tokenizer_load_json(bal_tokenizer *t, const char *path)
{
    cJSON *json = NULL;
    bal_status status = bal_json_read(&json, path, JSON_MAX_BYTES);
    if (status == BAL_OK)
        status = bal_tokenizer_read_json(t, json, path);
    cJSON_Delete(json);
    return status == BAL_OK ? read_beside(t, path) : status;
}
