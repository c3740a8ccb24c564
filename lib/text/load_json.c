/* tokenizer.json: every component that is known, and one clear error for any other.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

enum { JSON_MAX_BYTES = 256 << 20, CONFIG_MAX_BYTES = 16 << 20 };

static bal_status unknown(const char *path, const char *what, const char *type)
{
    return bal_fail(BAL_EUNSUPPORTED, "%s: %s '%.60s' is not supported", path, what, type);
}

static const char *type_of(const cJSON *v)
{
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "type"));
    return type != NULL ? type : "(without a type)";
}

static bool flag_of(const cJSON *v, const char *key, bool otherwise)
{
    const cJSON *f = cJSON_GetObjectItemCaseSensitive(v, key);
    return cJSON_IsBool(f) ? cJSON_IsTrue(f) != 0 : otherwise;
}

static bal_status copy_text(char **out, const cJSON *v, const char *key, const char *path)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, key));
    if (text == NULL)
        return bal_fail(BAL_EFORMAT, "%s: component %s lacks the text '%s'", path, type_of(v), key);
    *out = bal_strdup(text);
    return *out == NULL ? BAL_ENOMEM : BAL_OK;
}

static bal_status read_pattern(bal_step *s, const cJSON *v, const char *path)
{
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(v, "pattern");
    const char *regex = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(pattern, "Regex"));
    if (regex != NULL)
        return bal_regex_compile(&s->regex, regex, path);
    return copy_text(&s->literal, pattern, "String", path);
}

static bal_status read_behavior(bal_step *s, const cJSON *v, const char *path)
{
    static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "behavior"));
    for (size_t i = 0; name != NULL && i < 5; i++)
        if (strcmp(name, names[i]) == 0) {
            s->behavior = (bal_behavior)i;
            return BAL_OK;
        }
    return unknown(path, "split behaviour", name != NULL ? name : "(none)");
}

static int prepend_scheme(const cJSON *v)
{
    const char *scheme = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "prepend_scheme"));
    if (scheme == NULL)
        return flag_of(v, "add_prefix_space", true) ? 2 : 0;
    return strcmp(scheme, "always") == 0 ? 2 : strcmp(scheme, "first") == 0 ? 1 : 0;
}

static bal_status read_metaspace(bal_step *s, const cJSON *v, const char *path)
{
    s->kind = BAL_STEP_METASPACE;
    s->prepend = prepend_scheme(v);
    s->split = flag_of(v, "split", true);
    return copy_text(&s->content, v, "replacement", path);
}

static bal_status read_normalizer(bal_tokenizer *t, bal_step *s, const cJSON *v, const char *path)
{
    static const struct {
        const char *name;
        bal_step_kind kind;
    } plain[] = {{"NFC", BAL_STEP_NFC},
                 {"NFD", BAL_STEP_NFD},
                 {"NFKC", BAL_STEP_NFKC},
                 {"NFKD", BAL_STEP_NFKD},
                 {"Lowercase", BAL_STEP_LOWERCASE},
                 {"StripAccents", BAL_STEP_STRIP_ACCENTS}};
    const char *type = type_of(v);
    (void)t;
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (strcmp(type, plain[i].name) == 0) {
            s->kind = plain[i].kind;
            return BAL_OK;
        }
    if (strcmp(type, "Prepend") == 0) {
        s->kind = BAL_STEP_PREPEND;
        return copy_text(&s->content, v, "prepend", path);
    }
    if (strcmp(type, "Replace") == 0) {
        s->kind = BAL_STEP_REPLACE;
        bal_status status = read_pattern(s, v, path);
        return status == BAL_OK ? copy_text(&s->content, v, "content", path) : status;
    }
    if (strcmp(type, "Strip") == 0) {
        s->kind = BAL_STEP_STRIP;
        s->left = flag_of(v, "strip_left", true);
        s->right = flag_of(v, "strip_right", true);
        return BAL_OK;
    }
    return unknown(path, "normalizer", type);
}

static bal_status read_pre_tokenizer(bal_tokenizer *t, bal_step *s, const cJSON *v, const char *path)
{
    static const struct {
        const char *name, *pattern;
        bal_behavior behavior;
    } fixed[] = {{"Whitespace", bal_words_pattern, BAL_SPLIT_REMOVED},
                 {"WhitespaceSplit", "\\s+", BAL_SPLIT_REMOVED},
                 {"Punctuation", "[\\p{P}!-/:-@\\[-`{-~]", BAL_SPLIT_ISOLATED}};
    const char *type = type_of(v);
    (void)t;
    s->kind = BAL_STEP_SPLIT;
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = BAL_STEP_BYTE_LEVEL;
        s->add_prefix_space = flag_of(v, "add_prefix_space", true);
        s->use_regex = flag_of(v, "use_regex", true);
        s->behavior = BAL_SPLIT_ISOLATED;
        return BAL_OK;
    }
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(s, v, path);
    if (strcmp(type, "Split") == 0) {
        s->invert = flag_of(v, "invert", false);
        bal_status status = read_pattern(s, v, path);
        return status == BAL_OK ? read_behavior(s, v, path) : status;
    }
    if (strcmp(type, "Digits") == 0) {
        bool each = flag_of(v, "individual_digits", false);
        s->behavior = each ? BAL_SPLIT_ISOLATED : BAL_SPLIT_CONTIGUOUS;
        return bal_regex_compile(&s->regex, "\\p{N}", path);
    }
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        if (strcmp(type, fixed[i].name) == 0) {
            s->behavior = fixed[i].behavior;
            s->invert = i == 0; /* what the pattern finds is kept, the rest removed */
            const char *behavior = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "behavior"));
            bal_status status = bal_regex_compile(&s->regex, fixed[i].pattern, path);
            return status == BAL_OK && behavior != NULL ? read_behavior(s, v, path) : status;
        }
    return unknown(path, "pre-tokenizer", type);
}

static bal_status read_decoder(bal_tokenizer *t, bal_step *s, const cJSON *v, const char *path)
{
    const char *type = type_of(v);
    t->has_decoder = true;
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = BAL_STEP_BYTE_LEVEL;
        return BAL_OK;
    }
    if (strcmp(type, "ByteFallback") == 0 || strcmp(type, "Fuse") == 0) {
        s->kind = type[0] == 'B' ? BAL_STEP_BYTE_FALLBACK : BAL_STEP_FUSE;
        return BAL_OK;
    }
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(s, v, path);
    if (strcmp(type, "Replace") == 0) {
        s->kind = BAL_STEP_REPLACE;
        bal_status status = read_pattern(s, v, path);
        return status == BAL_OK ? copy_text(&s->content, v, "content", path) : status;
    }
    if (strcmp(type, "Strip") == 0) {
        int64_t start = 0, stop = 0;
        s->kind = BAL_STEP_STRIP;
        bal_status status = bal_json_i64(v, path, "start", 0, 1000, &start, NULL);
        if (status == BAL_OK)
            status = bal_json_i64(v, path, "stop", 0, 1000, &stop, NULL);
        s->start = (int)start;
        s->stop = (int)stop;
        return status == BAL_OK ? copy_text(&s->content, v, "content", path) : status;
    }
    return unknown(path, "decoder", type);
}

typedef bal_status step_reader(bal_tokenizer *t, bal_step *s, const cJSON *v, const char *path);

/* One component, or a Sequence of components (the depth of a JSON file is bounded). */
static bal_status read_steps(bal_tokenizer *t, bal_steps *steps, const cJSON *v, const char *list,
                             step_reader *reader, // NOLINT(misc-no-recursion)
                             const char *path)
{
    bal_status status = BAL_OK;
    if (v == NULL)
        return BAL_OK;
    if (strcmp(type_of(v), "Sequence") == 0) {
        const cJSON *items = cJSON_GetObjectItemCaseSensitive(v, list);
        if (!cJSON_IsArray(items))
            return bal_fail(BAL_EFORMAT, "%s: a Sequence lacks its list '%s'", path, list);
        for (const cJSON *item = items->child; item != NULL && status == BAL_OK; item = item->next)
            status = read_steps(t, steps, item, list, reader, path);
        return status;
    }
    if (steps->n == BAL_MAX_STEPS)
        return bal_fail(BAL_ELIMIT, "%s: more than %d %s", path, BAL_MAX_STEPS, list);
    return reader(t, &steps->items[steps->n++], v, path);
}

static bal_status add_affix(int32_t *list, size_t *n, double id, const bal_tokenizer *t, const char *path)
{
    if (*n == 16 || !(id >= 0 && id < (double)t->n_tokens))
        return bal_fail(BAL_EFORMAT, "%s: post_processor names id %.17g, outside the vocabulary, or too many ids", path,
                        id);
    list[(*n)++] = (int32_t)id;
    return BAL_OK;
}

static bal_status read_template(bal_tokenizer *t, const cJSON *v, const char *path)
{
    const cJSON *specials = cJSON_GetObjectItemCaseSensitive(v, "special_tokens");
    const cJSON *single = cJSON_GetObjectItemCaseSensitive(v, "single");
    bool after = false;
    for (const cJSON *e = single != NULL ? single->child : NULL; e != NULL; e = e->next) {
        const cJSON *s = cJSON_GetObjectItemCaseSensitive(e, "SpecialToken");
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(s, "id"));
        if (s == NULL) {
            after = true;
            continue;
        }
        const cJSON *ids = cJSON_GetObjectItemCaseSensitive(
            cJSON_GetObjectItemCaseSensitive(specials, name != NULL ? name : ""), "ids");
        if (!cJSON_IsArray(ids))
            return bal_fail(BAL_EFORMAT, "%s: post_processor names the special token '%.60s' without ids", path,
                            name != NULL ? name : "");
        for (const cJSON *id = ids->child; id != NULL; id = id->next) {
            bal_status status = after ? add_affix(t->suffix, &t->n_suffix, id->valuedouble, t, path)
                                      : add_affix(t->prefix, &t->n_prefix, id->valuedouble, t, path);
            if (status != BAL_OK)
                return status;
        }
    }
    return BAL_OK;
}

static bal_status read_post_processor(bal_tokenizer *t, const cJSON *v, const char *path) // NOLINT(misc-no-recursion)
{
    const char *type = v != NULL ? type_of(v) : "ByteLevel";
    if (strcmp(type, "ByteLevel") == 0)
        return BAL_OK;                 /* moves offsets only */
    if (t->n_prefix + t->n_suffix > 0) /* the reference takes the first one's output for a pair of texts */
        return unknown(path, "post-processor", "Sequence of two that add tokens");
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, v, path);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
        const cJSON *cls = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(v, "cls"), 1);
        const cJSON *sep = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(v, "sep"), 1);
        bal_status status = add_affix(t->prefix, &t->n_prefix, cls != NULL ? cls->valuedouble : -1, t, path);
        return status == BAL_OK ? add_affix(t->suffix, &t->n_suffix, sep != NULL ? sep->valuedouble : -1, t, path)
                                : status;
    }
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(v, "processors");
        for (const cJSON *e = list != NULL ? list->child : NULL; e != NULL; e = e->next) {
            bal_status status = strcmp(type_of(e), "Sequence") == 0 ? unknown(path, "post-processor", "nested Sequence")
                                                                    : read_post_processor(t, e, path);
            if (status != BAL_OK)
                return status;
        }
        return BAL_OK;
    }
    return unknown(path, "post-processor", type);
}

/* Vocabulary and added tokens share one table of ids. */
static bal_status read_vocab(bal_tokenizer *t, const cJSON *vocab, const cJSON *added, const char *path)
{
    double top = -1;
    size_t bytes = 0;
    for (const cJSON *v = vocab->child; v != NULL; v = v->next) {
        top = v->valuedouble > top ? v->valuedouble : top;
        bytes += strlen(v->string) + 1;
    }
    for (const cJSON *a = added != NULL ? added->child : NULL; a != NULL; a = a->next) {
        const cJSON *id = cJSON_GetObjectItemCaseSensitive(a, "id");
        const char *content = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(a, "content"));
        if (!cJSON_IsNumber(id) || content == NULL)
            return bal_fail(BAL_EFORMAT, "%s: an added token lacks its id or content", path);
        top = id->valuedouble > top ? id->valuedouble : top;
        bytes += strlen(content) + 1;
    }
    if (!(top >= 0 && top < BAL_MAX_VOCAB))
        return bal_fail(BAL_EFORMAT, "%s: largest id is %.17g, not in 0 .. %d", path, top, BAL_MAX_VOCAB - 1);
    bal_status status = bal_vocab_reserve(t, (size_t)top + 1, bytes);
    for (const cJSON *v = vocab->child; v != NULL && status == BAL_OK; v = v->next) {
        bool whole = cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble == (double)(int32_t)v->valuedouble;
        status = whole ? bal_vocab_add(t, (int32_t)v->valuedouble, v->string, bal_json_text_bytes(v->string))
                       : bal_fail(BAL_EFORMAT, "token '%.40s' has no whole id", v->string);
    }
    for (const cJSON *a = added != NULL ? added->child : NULL; a != NULL && status == BAL_OK; a = a->next) {
        double id = cJSON_GetObjectItemCaseSensitive(a, "id")->valuedouble;
        const char *content = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(a, "content"));
        bool whole = id >= 0 && id == (double)(int32_t)id;
        status = whole ? bal_vocab_add(t, (int32_t)id, content, strlen(content))
                       : bal_fail(BAL_EFORMAT, "added token '%.40s' has no whole id", content);
        if (status == BAL_OK) {
            t->tokens[(int32_t)id].added = true;
            t->tokens[(int32_t)id].special = flag_of(a, "special", false);
        }
    }
    if (status == BAL_OK)
        status = bal_vocab_index(t);
    return status == BAL_OK ? BAL_OK : bal_fail_note(status, "%s", path);
}

static bal_status read_added(bal_tokenizer *t, const cJSON *added)
{
    size_t n = (size_t)(added != NULL ? cJSON_GetArraySize(added) : 0);
    t->raw.items = bal_alloc(n + 1, sizeof *t->raw.items);
    t->normalized.items = bal_alloc(n + 1, sizeof *t->normalized.items);
    if (t->raw.items == NULL || t->normalized.items == NULL)
        return BAL_ENOMEM;
    for (const cJSON *a = added != NULL ? added->child : NULL; a != NULL; a = a->next) {
        int32_t id = (int32_t)cJSON_GetObjectItemCaseSensitive(a, "id")->valuedouble;
        const bal_token *k = &t->tokens[id];
        bal_added x = {k->text,
                       k->n,
                       id,
                       flag_of(a, "single_word", false),
                       flag_of(a, "lstrip", false),
                       flag_of(a, "rstrip", false),
                       flag_of(a, "normalized", !k->special),
                       NULL};
        bal_buf form = {0};
        if (x.normalized && t->normalizers.n > 0) { /* such a token is searched for as the normalizers leave it */
            bal_status status = bal_normalize(t, k->text, k->n, &form);
            x.own = status == BAL_OK ? bal_strndup(bal_buf_cstr(&form), form.len) : NULL;
            x.text = x.own;
            x.n = (uint32_t)form.len;
            bal_buf_dispose(&form);
            if (x.own == NULL)
                return status != BAL_OK ? status : BAL_ENOMEM;
        }
        if (x.n == 0) {
            bal_free(x.own);
            continue;
        }
        if (x.own != NULL) {
            t->tokens[id].form = x.own;
            t->tokens[id].n_form = x.n;
        }
        bal_added_set *set = x.normalized ? &t->normalized : &t->raw;
        set->items[set->n++] = x;
    }
    bal_added_index(&t->raw);
    bal_added_index(&t->normalized);
    return BAL_OK;
}

/* A merge is "left right", or ["left", "right"]. */
static bal_status read_merge(bal_tokenizer *t, const cJSON *m, uint32_t rank, const char *path, bal_buf *joined)
{
    const char *left = NULL, *right = NULL;
    size_t nl = 0;
    if (cJSON_IsString(m)) {
        left = m->valuestring;
        const char *space = strchr(left, ' ');
        nl = space != NULL ? (size_t)(space - left) : 0;
        right = space != NULL ? space + 1 : NULL;
    } else if (cJSON_IsArray(m) && m->child != NULL && m->child->next != NULL) {
        left = cJSON_GetStringValue(m->child);
        right = cJSON_GetStringValue(m->child->next);
        nl = left != NULL ? strlen(left) : 0;
    }
    if (left == NULL || right == NULL)
        return bal_fail(BAL_EFORMAT, "%s: merge %u is no pair of texts", path, (unsigned)rank);
    bal_buf_clear(joined);
    bal_status status = bal_buf_append(joined, left, nl);
    if (status == BAL_OK)
        status = bal_buf_text(joined, right);
    if (status != BAL_OK)
        return status;
    int32_t a = bal_vocab_find(t, left, nl), b = bal_vocab_find(t, right, strlen(right));
    int32_t c = bal_vocab_find(t, bal_buf_cstr(joined), joined->len);
    if (a < 0 || b < 0 || c < 0)
        return bal_fail(BAL_EFORMAT, "%s: merge %u ('%.40s' + '%.40s') names a token that the vocabulary lacks", path,
                        (unsigned)rank, left, right);
    return bal_merges_add(t, (uint32_t)a, (uint32_t)b, rank, (uint32_t)c);
}

static bal_status read_bpe(bal_tokenizer *t, const cJSON *model, const char *path)
{
    const cJSON *merges = cJSON_GetObjectItemCaseSensitive(model, "merges");
    const char *unk = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "unk_token"));
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    bal_buf joined = {0};
    uint32_t rank = 0;
    for (size_t i = 0; i < 2; i++) {
        const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, affixes[i]));
        if (text != NULL && text[0] != '\0')
            return unknown(path, affixes[i], text);
    }
    const cJSON *dropout = bal_json_member(model, "dropout");
    if (dropout != NULL && dropout->valuedouble != 0)
        return unknown(path, "model option", "dropout");
    t->kind = "BPE";
    t->fuse_unk = flag_of(model, "fuse_unk", false);
    t->byte_fallback = flag_of(model, "byte_fallback", false);
    t->ignore_merges = flag_of(model, "ignore_merges", false);
    if (unk != NULL && (t->unk = bal_vocab_find(t, unk, strlen(unk))) < 0)
        return bal_fail(BAL_EFORMAT, "%s: unk_token '%.60s' is not in the vocabulary", path, unk);
    for (int b = 0; b < 256; b++) {
        char name[8];
        (void)snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        t->byte_ids[b] = bal_vocab_find(t, name, 6);
    }
    bal_status status = bal_merges_reserve(t, (size_t)(merges != NULL ? cJSON_GetArraySize(merges) : 0));
    for (const cJSON *m = merges != NULL ? merges->child : NULL; m != NULL && status == BAL_OK; m = m->next)
        status = read_merge(t, m, rank++, path, &joined);
    bal_buf_dispose(&joined);
    return status;
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
    const cJSON *model = bal_json_member(json, "model");
    const cJSON *added = bal_json_member(json, "added_tokens");
    const char *type = model != NULL ? cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(model, "type")) : NULL;
    const cJSON *vocab = model != NULL ? bal_json_member(model, "vocab") : NULL;
    if (vocab == NULL)
        BAL_TRY(bal_fail(BAL_EFORMAT, "%s: no tokenizer: 'model' with 'vocab' is missing", path));
    /* old files name no type: merges tell that it is BPE */
    if (type == NULL && bal_json_member(model, "merges") != NULL)
        type = "BPE";
    if (type == NULL || strcmp(type, "BPE") != 0)
        BAL_TRY(unknown(path, "model", type != NULL ? type : "WordPiece"));
    BAL_TRY(read_vocab(t, vocab, added, path));
    BAL_TRY(read_bpe(t, model, path));
    BAL_TRY(read_steps(t, &t->normalizers, bal_json_member(json, "normalizer"), "normalizers", read_normalizer, path));
    BAL_TRY(read_steps(t, &t->pre_tokenizers, bal_json_member(json, "pre_tokenizer"), "pretokenizers",
                       read_pre_tokenizer, path));
    BAL_TRY(read_steps(t, &t->decoders, bal_json_member(json, "decoder"), "decoders", read_decoder, path));
    BAL_TRY(bal_regex_compile(&t->byte_level_regex, bal_gpt2_pattern, path));
    BAL_TRY(read_post_processor(t, bal_json_member(json, "post_processor"), path));
    BAL_TRY(read_added(t, added));
out:
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
