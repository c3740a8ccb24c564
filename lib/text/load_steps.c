/* The components around the model of a tokenizer.json; one clear error for any that is not known.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/text/tokenizer_impl.h"

#include <stdio.h>
#include <string.h>

bal_status bal_tokenizer_unknown(const char *path, const char *what, const char *type)
{
    return bal_fail(BAL_EUNSUPPORTED, "%s: %s '%.60s' is not supported", path, what, type);
}

static const char *type_of(const cJSON *v)
{
    const char *type = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "type"));
    return type != NULL ? type : "(without a type)";
}

bool bal_tokenizer_flag(const cJSON *v, const char *key, bool otherwise)
{
    const cJSON *f = cJSON_GetObjectItemCaseSensitive(v, key);
    return cJSON_IsBool(f) ? cJSON_IsTrue(f) != 0 : otherwise;
}

bal_status bal_tokenizer_check_flags(const cJSON *v, const char *path)
{
    static const char *const flags[] = {"clean_text",    "handle_chinese_chars",
                                        "strip_accents", "lowercase",
                                        "strip_left",    "strip_right",
                                        "use_regex",     "add_prefix_space",
                                        "trim_offsets",  "individual_digits",
                                        "invert",        "split",
                                        "cleanup",       "single_word",
                                        "lstrip",        "rstrip",
                                        "normalized",    "special",
                                        "fuse_unk",      "byte_fallback",
                                        "ignore_merges", NULL};
    for (size_t i = 0; flags[i] != NULL; i++) {
        const cJSON *f = bal_json_member(v, flags[i]);
        if (f != NULL && !cJSON_IsBool(f))
            return bal_fail(BAL_EFORMAT, "%s: '%s' must be true or false", path, flags[i]);
    }
    return BAL_OK;
}

static bal_status copy_text(char **out, const cJSON *v, const char *key, const char *path)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, key));
    if (text == NULL)
        return bal_fail(BAL_EFORMAT, "%s: component %s lacks the text '%s'", path, type_of(v), key);
    if (strstr(text, "\xC0\x80") != NULL) /* how bal_json_parse() holds a NUL */
        return bal_fail(BAL_EUNSUPPORTED, "%s: '%s' of component %s holds a NUL, which is not supported", path, key,
                        type_of(v));
    *out = bal_strdup(text);
    return *out == NULL ? BAL_ENOMEM : BAL_OK;
}

/* copy_text() of what is one character in the reference. */
static bal_status copy_character(char **out, const cJSON *v, const char *key, const char *path)
{
    uint32_t cp;
    bal_status status = copy_text(out, v, key, path);
    size_t n = status == BAL_OK ? strlen(*out) : 0;
    if (status == BAL_OK && (n == 0 || bal_utf8_decode((const unsigned char *)*out, n, &cp) != n))
        return bal_fail(BAL_EFORMAT, "%s: '%s' of component %s must be one character, not '%.20s'", path, key,
                        type_of(v), *out);
    return status;
}

static bal_status read_pattern(bal_step *s, const cJSON *v, const char *path)
{
    const cJSON *pattern = cJSON_GetObjectItemCaseSensitive(v, "pattern");
    const char *regex = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(pattern, "Regex"));
    if (regex != NULL)
        return bal_regex_compile(&s->regex, regex, path);
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(pattern, "String"));
    if (text != NULL && text[0] == '\0') /* matches between all characters */
        return bal_regex_compile(&s->regex, "", path);
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
    return bal_tokenizer_unknown(path, "split behaviour", name != NULL ? name : "(none)");
}

static bal_status read_prepend_scheme(const cJSON *v, int *out, const char *path)
{
    static const char *const names[] = {"never", "first", "always"};
    const char *scheme = cJSON_GetStringValue(bal_json_member(v, "prepend_scheme"));
    *out = bal_tokenizer_flag(v, "add_prefix_space", true) ? 2 : 0;
    for (int i = 0; i < 3 && scheme != NULL; i++)
        if (strcmp(scheme, names[i]) == 0) {
            *out = i;
            return BAL_OK;
        }
    return scheme == NULL && bal_json_member(v, "prepend_scheme") == NULL
               ? BAL_OK
               : bal_tokenizer_unknown(path, "prepend_scheme", scheme != NULL ? scheme : "(no text)");
}

static bal_status read_metaspace(bal_tokenizer *t, bal_step *s, const cJSON *v, const char *path)
{
    s->kind = BAL_STEP_METASPACE;
    bal_status status = read_prepend_scheme(v, &s->prepend, path);
    t->first_is_marked |= s->prepend == 1;
    s->split = bal_tokenizer_flag(v, "split", true);
    return status == BAL_OK ? copy_character(&s->content, v, "replacement", path) : status;
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
                 {"StripAccents", BAL_STEP_STRIP_ACCENTS},
                 {"ByteLevel", BAL_STEP_BYTE_LEVEL},
                 {"Nmt", BAL_STEP_NMT}};
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
    if (strcmp(type, "BertNormalizer") == 0) {
        s->kind = BAL_STEP_BERT;
        s->clean_text = bal_tokenizer_flag(v, "clean_text", true);
        s->handle_cjk = bal_tokenizer_flag(v, "handle_chinese_chars", true);
        s->lowercase = bal_tokenizer_flag(v, "lowercase", true);
        s->strip_accents = bal_tokenizer_flag(v, "strip_accents", s->lowercase);
        return BAL_OK;
    }
    if (strcmp(type, "Precompiled") == 0) {
        const char *map = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(v, "precompiled_charsmap"));
        s->kind = BAL_STEP_PRECOMPILED;
        if (map == NULL)
            return bal_fail(BAL_EFORMAT, "%s: the normalizer Precompiled lacks its precompiled_charsmap", path);
        bal_status status = bal_charsmap_read_base64(&s->charsmap, map);
        return status == BAL_OK ? BAL_OK : bal_fail_note(status, "%s", path);
    }
    if (strcmp(type, "Strip") == 0) {
        s->kind = BAL_STEP_STRIP;
        s->left = bal_tokenizer_flag(v, "strip_left", true);
        s->right = bal_tokenizer_flag(v, "strip_right", true);
        return BAL_OK;
    }
    return bal_tokenizer_unknown(path, "normalizer", type);
}

static bal_status read_pre_tokenizer(bal_tokenizer *t, bal_step *s, const cJSON *v, const char *path)
{
    const char *type = type_of(v);
    bal_status status;
    s->kind = BAL_STEP_SPLIT;
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = BAL_STEP_BYTE_LEVEL;
        s->add_prefix_space = bal_tokenizer_flag(v, "add_prefix_space", true);
        s->use_regex = bal_tokenizer_flag(v, "use_regex", true);
        s->behavior = BAL_SPLIT_ISOLATED;
        return BAL_OK;
    }
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(t, s, v, path);
    if (strcmp(type, "Split") == 0) {
        s->invert = bal_tokenizer_flag(v, "invert", false);
        status = read_pattern(s, v, path);
        return status == BAL_OK ? read_behavior(s, v, path) : status;
    }
    if (strcmp(type, "Digits") == 0) {
        s->behavior = bal_tokenizer_flag(v, "individual_digits", false) ? BAL_SPLIT_ISOLATED : BAL_SPLIT_CONTIGUOUS;
        s->is_in = bal_is_numeric;
        return BAL_OK;
    }
    if (strcmp(type, "Whitespace") == 0) { /* what the pattern finds is kept, the rest removed */
        s->behavior = BAL_SPLIT_REMOVED;
        s->invert = true;
        return bal_regex_compile(&s->regex, bal_words_pattern, path);
    }
    if (strcmp(type, "WhitespaceSplit") == 0) {
        s->behavior = BAL_SPLIT_REMOVED;
        s->is_in = bal_is_space;
        return BAL_OK;
    }
    if (strcmp(type, "Punctuation") == 0) {
        s->behavior = BAL_SPLIT_ISOLATED;
        s->is_in = bal_is_punctuation;
        return bal_json_member(v, "behavior") != NULL ? read_behavior(s, v, path) : BAL_OK;
    }
    if (strcmp(type, "CharDelimiterSplit") == 0) {
        s->behavior = BAL_SPLIT_REMOVED;
        return copy_character(&s->literal, v, "delimiter", path);
    }
    if (strcmp(type, "FixedLength") == 0) { /* so many characters, and what is left */
        int64_t length = 5;
        char pattern[40];
        status = bal_json_i64(v, path, "length", 1, 65535, &length, NULL);
        (void)snprintf(pattern, sizeof pattern, "[\\s\\S]{1,%d}", (int)length);
        s->behavior = BAL_SPLIT_ISOLATED;
        return status == BAL_OK ? bal_regex_compile(&s->regex, pattern, path) : status;
    }
    if (strcmp(type, "BertPreTokenizer") == 0) { /* white space goes, then punctuation stands alone */
        if (t->pre_tokenizers.n == BAL_MAX_STEPS)
            return bal_fail(BAL_ELIMIT, "%s: more than %d pretokenizers", path, BAL_MAX_STEPS);
        s->behavior = BAL_SPLIT_REMOVED;
        s->is_in = bal_is_space;
        bal_step *next = &t->pre_tokenizers.items[t->pre_tokenizers.n++];
        next->kind = BAL_STEP_SPLIT;
        next->behavior = BAL_SPLIT_ISOLATED;
        next->is_in = bal_is_punctuation;
        return BAL_OK;
    }
    return bal_tokenizer_unknown(path, "pre-tokenizer", type);
}

static bal_status read_decoder(bal_tokenizer *t, bal_step *s, const cJSON *v, const char *path)
{
    const char *type = type_of(v);
    if (strcmp(type, "ByteLevel") == 0) {
        s->kind = BAL_STEP_BYTE_LEVEL;
        return BAL_OK;
    }
    if (strcmp(type, "ByteFallback") == 0 || strcmp(type, "Fuse") == 0) {
        s->kind = type[0] == 'B' ? BAL_STEP_BYTE_FALLBACK : BAL_STEP_FUSE;
        return BAL_OK;
    }
    if (strcmp(type, "Metaspace") == 0)
        return read_metaspace(t, s, v, path);
    if (strcmp(type, "WordPiece") == 0) {
        s->kind = BAL_STEP_WORDPIECE;
        s->cleanup = bal_tokenizer_flag(v, "cleanup", true);
        return copy_text(&s->content, v, "prefix", path);
    }
    if (strcmp(type, "BPEDecoder") == 0) {
        s->kind = BAL_STEP_BPE_SUFFIX;
        return copy_text(&s->content, v, "suffix", path);
    }
    if (strcmp(type, "CTC") == 0) {
        s->kind = BAL_STEP_CTC;
        s->cleanup = bal_tokenizer_flag(v, "cleanup", true);
        bal_status status = copy_text(&s->literal, v, "pad_token", path);
        return status == BAL_OK ? copy_text(&s->content, v, "word_delimiter_token", path) : status;
    }
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
        return status == BAL_OK ? copy_character(&s->content, v, "content", path) : status;
    }
    return bal_tokenizer_unknown(path, "decoder", type);
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
    status = bal_tokenizer_check_flags(v, path);
    if (status != BAL_OK)
        return status;
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

static bal_status add_affix(int32_t *list, size_t *n, const cJSON *v, const bal_tokenizer *t, const char *path)
{
    double id = cJSON_IsNumber(v) ? v->valuedouble : -1;
    if (*n == 16 || !(id >= 0 && id < (double)t->n_tokens) || id != (double)(int32_t)id)
        return bal_fail(BAL_EFORMAT,
                        "%s: post_processor names more than 16 ids, or one that is no whole number in 0 .. %zu", path,
                        t->n_tokens - 1);
    list[(*n)++] = (int32_t)id;
    return BAL_OK;
}

static bal_status read_template(bal_tokenizer *t, const cJSON *v, const char *path)
{
    const cJSON *specials = cJSON_GetObjectItemCaseSensitive(v, "special_tokens");
    const cJSON *single = cJSON_GetObjectItemCaseSensitive(v, "single");
    bool after = false;
    size_t n_texts = 0;
    for (const cJSON *e = single != NULL ? single->child : NULL; e != NULL; e = e->next) {
        const cJSON *s = cJSON_GetObjectItemCaseSensitive(e, "SpecialToken");
        const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(s, "id"));
        if (s == NULL) {
            const cJSON *text = cJSON_GetObjectItemCaseSensitive(e, "Sequence");
            const char *which = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(text, "id"));
            if (which == NULL || strcmp(which, "A") != 0 || n_texts++ > 0)
                return bal_tokenizer_unknown(path, "post-processor", "TemplateProcessing without one text A");
            after = true;
            continue;
        }
        const cJSON *ids = cJSON_GetObjectItemCaseSensitive(
            cJSON_GetObjectItemCaseSensitive(specials, name != NULL ? name : ""), "ids");
        if (!cJSON_IsArray(ids))
            return bal_fail(BAL_EFORMAT, "%s: post_processor names the special token '%.60s' without ids", path,
                            name != NULL ? name : "");
        for (const cJSON *id = ids->child; id != NULL; id = id->next) {
            bal_status status = after ? add_affix(t->suffix, &t->n_suffix, id, t, path)
                                      : add_affix(t->prefix, &t->n_prefix, id, t, path);
            if (status != BAL_OK)
                return status;
        }
    }
    return n_texts == 1 ? BAL_OK
                        : bal_tokenizer_unknown(path, "post-processor", "TemplateProcessing without one text A");
}

static bal_status read_post_processor(bal_tokenizer *t, const cJSON *v, const char *path) // NOLINT(misc-no-recursion)
{
    const char *type = v != NULL ? type_of(v) : "ByteLevel";
    if (strcmp(type, "ByteLevel") == 0)
        return BAL_OK;                 /* moves offsets only */
    if (t->n_prefix + t->n_suffix > 0) /* the reference takes the first one's output for a pair of texts */
        return bal_tokenizer_unknown(path, "post-processor", "Sequence of two that add tokens");
    if (strcmp(type, "TemplateProcessing") == 0)
        return read_template(t, v, path);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0) {
        const cJSON *cls = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(v, "cls"), 1);
        const cJSON *sep = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(v, "sep"), 1);
        bal_status status = add_affix(t->prefix, &t->n_prefix, cls, t, path);
        return status == BAL_OK ? add_affix(t->suffix, &t->n_suffix, sep, t, path) : status;
    }
    if (strcmp(type, "Sequence") == 0) {
        const cJSON *list = cJSON_GetObjectItemCaseSensitive(v, "processors");
        for (const cJSON *e = list != NULL ? list->child : NULL; e != NULL; e = e->next) {
            bal_status status = strcmp(type_of(e), "Sequence") == 0
                                    ? bal_tokenizer_unknown(path, "post-processor", "nested Sequence")
                                    : read_post_processor(t, e, path);
            if (status != BAL_OK)
                return status;
        }
        return BAL_OK;
    }
    return bal_tokenizer_unknown(path, "post-processor", type);
}

bal_status bal_tokenizer_read_components(bal_tokenizer *t, const cJSON *json, const char *path)
{
    bal_status status;
    BAL_TRY(read_steps(t, &t->normalizers, bal_json_member(json, "normalizer"), "normalizers", read_normalizer, path));
    BAL_TRY(read_steps(t, &t->pre_tokenizers, bal_json_member(json, "pre_tokenizer"), "pretokenizers",
                       read_pre_tokenizer, path));
    t->has_decoder = bal_json_member(json, "decoder") != NULL; /* also an empty Sequence */
    BAL_TRY(read_steps(t, &t->decoders, bal_json_member(json, "decoder"), "decoders", read_decoder, path));
    BAL_TRY(bal_regex_compile(&t->byte_level_regex, bal_gpt2_pattern, path));
    status = read_post_processor(t, bal_json_member(json, "post_processor"), path);
out:
    return status;
}
