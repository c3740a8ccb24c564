/* Which files of a repository are needed: of a model its configuration, tokenizer and weights in one form; never a
 * pickle.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/io/hub_impl.h"

#include "lib/base/mem.h"
#include "lib/io/json.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

enum { MAX_SHOWN = 8, MAX_INDEX = 64 << 20, MAX_SHARDS = 4096 };

static const char *const k_tokenizer[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                          "added_tokens.json", "chat_template.jinja"};
/* Read by nothing here, but the tokenizer's message about them says how to convert them. */
static const char *const k_old_tokenizer[] = {"tokenizer.model", "vocab.json", "merges.txt", "vocab.txt"};
static const char *const k_pickles[] = {"pytorch_model.bin", "pytorch_model.bin.index.json", "adapter_model.bin"};

void hub_choice_dispose(hub_choice *c)
{
    bal_free(c->files);
    *c = (hub_choice){0};
}

static bal_status add(hub_choice *c, const hub_file *f)
{
    if (f == NULL)
        return BAL_OK;
    for (size_t i = 0; i < c->n; i++)
        if (c->files[i] == f)
            return BAL_OK;
    if (c->n == c->cap) {
        size_t cap = 2 * c->cap + 16;
        const hub_file **grown = bal_realloc(c->files, cap, sizeof(void *));
        if (grown == NULL)
            return BAL_ENOMEM;
        c->files = grown;
        c->cap = cap;
    }
    c->files[c->n++] = f;
    return BAL_OK;
}

static bal_status add_names(hub_choice *c, const hub_list *l, const char *const *names, size_t n)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < n && status == BAL_OK; i++)
        status = add(c, hub_list_find(l, names[i]));
    return status;
}

static bal_status add_tokenizer(hub_choice *c, const hub_list *l)
{
    bal_status status = add_names(c, l, k_tokenizer, sizeof k_tokenizer / sizeof *k_tokenizer);
    if (status == BAL_OK && hub_list_find(l, "tokenizer.json") == NULL)
        status = add_names(c, l, k_old_tokenizer, sizeof k_old_tokenizer / sizeof *k_old_tokenizer);
    return status;
}

/* "a.gguf, b.gguf, ..." */
static bal_status name_some(bal_buf *b, const hub_list *l, const char *ending)
{
    size_t shown = 0;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < l->n && status == BAL_OK && shown <= MAX_SHOWN; i++)
        if (bal_ends_with(l->files[i].path, ending)) {
            status = shown < MAX_SHOWN ? bal_buf_printf(b, "%s%.80s", shown > 0 ? ", " : "", l->files[i].path)
                                       : bal_buf_text(b, ", ...");
            shown++;
        }
    return status;
}

/* PART.gguf itself, or a name that ends in -PART.gguf, .PART.gguf or _PART.gguf whatever the case. */
static bool is_gguf_part(const char *path, const char *part)
{
    char ending[HUB_MAX_NAME + 8];
    size_t length = strlen(path);
    if (strcmp(path, part) == 0)
        return bal_ends_with(path, ".gguf");
    int n = snprintf(ending, sizeof ending, "%s.gguf", part);
    if (length < (size_t)n || strcasecmp(path + length - (size_t)n, ending) != 0)
        return false;
    return length == (size_t)n || strchr("-._/", path[length - (size_t)n - 1]) != NULL;
}

static bal_status choose_gguf(hub_choice *c, const hub_list *l, const hub_name *name)
{
    const hub_file *found = NULL;
    size_t n = 0;
    bal_buf some = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < l->n; i++)
        if (name->part[0] != '\0' ? is_gguf_part(l->files[i].path, name->part)
                                  : bal_ends_with(l->files[i].path, ".gguf")) {
            found = &l->files[i];
            n++;
        }
    BAL_TRY(name_some(&some, l, ".gguf"));
    if (n == 0 && name->part[0] != '\0')
        status = bal_fail(BAL_ENOENT, "'%s' has no GGUF file '%s'%s%s", name->id, name->part,
                          some.len > 0 ? "; it has " : "", bal_buf_cstr(&some));
    else if (n > 1)
        status =
            bal_fail(BAL_EINVAL, "'%s' has %zu GGUF files (%s); name one of them, as '%s:Q4_K_M' or '%s:FILE.gguf'",
                     name->id, n, bal_buf_cstr(&some), name->id, name->id);
    else if (n == 1)
        status = add(c, c->single = found);
out:
    bal_buf_dispose(&some);
    return status;
}

static bal_status fail_pickle(const hub_list *l, const hub_name *name, bal_hub_kind kind)
{
    for (size_t i = 0; i < sizeof k_pickles / sizeof *k_pickles; i++)
        if (hub_list_find(l, k_pickles[i]) != NULL)
            return kind == BAL_HUB_ADAPTER
                       ? bal_fail(BAL_EUNSUPPORTED,
                                  "'%s' holds its adapter only as %s, which is not read and not "
                                  "fetched; load it in peft and save it again, as safetensors",
                                  name->id, k_pickles[i])
                       : bal_fail(BAL_EUNSUPPORTED,
                                  "'%s' holds its weights only as %s, which is not read and not fetched; convert them: "
                                  "python3 -c \"from transformers import AutoModelForCausalLM as M; "
                                  "M.from_pretrained('%s').save_pretrained('model')\", then --model model",
                                  name->id, k_pickles[i], name->id);
    return bal_fail(BAL_ENOENT, "'%s' holds no %s", name->id,
                    kind == BAL_HUB_ADAPTER ? "adapter: adapter_config.json and adapter_model.safetensors are needed"
                    : kind == BAL_HUB_TOKENIZER ? "tokenizer.json"
                                                : "model: neither config.json with safetensors nor a GGUF file");
}

static bal_status choose_model(hub_choice *c, const hub_list *l, const hub_name *name)
{
    static const char *const names[] = {"config.json", "generation_config.json"};
    bal_status status;
    const hub_file *weights = hub_list_find(l, "model.safetensors");
    c->index = weights == NULL ? hub_list_find(l, "model.safetensors.index.json") : NULL;
    if (name->part[0] == '\0' && hub_list_find(l, "config.json") != NULL && (weights != NULL || c->index != NULL)) {
        BAL_TRY(add_names(c, l, names, 2));
        BAL_TRY(add_tokenizer(c, l));
        BAL_TRY(add(c, c->index));
        return add(c, weights);
    }
    c->index = NULL;
    BAL_TRY(choose_gguf(c, l, name));
    if (c->n == 0)
        status = fail_pickle(l, name, BAL_HUB_MODEL);
out:
    return status;
}

bal_status hub_choose(hub_choice *c, const hub_list *l, const hub_name *name, bal_hub_kind kind)
{
    static const char *const adapter[] = {"adapter_config.json", "adapter_model.safetensors"};
    if (kind == BAL_HUB_MODEL || (kind == BAL_HUB_TOKENIZER && name->part[0] != '\0'))
        return choose_model(c, l, name);
    if (kind == BAL_HUB_ADAPTER) {
        bool there = hub_list_find(l, adapter[0]) != NULL && hub_list_find(l, adapter[1]) != NULL;
        return there ? add_names(c, l, adapter, 2) : fail_pickle(l, name, kind);
    }
    bool lacking = !l->whole && hub_list_find(l, "tokenizer.json") == NULL; /* the repository may have it */
    bal_status status = lacking ? BAL_OK : add_tokenizer(c, l);
    if (status == BAL_OK && c->n == 0)
        status = choose_gguf(c, l, name);
    return status == BAL_OK && c->n == 0 ? fail_pickle(l, name, kind) : status;
}

bal_status hub_choose_shards(hub_choice *c, const hub_list *l, const hub_name *name, const char *index_path)
{
    cJSON *json = NULL;
    const cJSON *entry = NULL;
    const hub_file *last = NULL;
    bal_status status;
    BAL_TRY(bal_json_read(&json, index_path, MAX_INDEX));
    const cJSON *map = bal_json_member(json, "weight_map");
    if (!cJSON_IsObject(map))
        BAL_TRY(bal_fail(BAL_EFORMAT, "the index of '%s' has no object 'weight_map'", name->id));
    cJSON_ArrayForEach(entry, map)
    {
        const char *file = cJSON_GetStringValue(entry);
        if (last != NULL && file != NULL && strcmp(file, last->path) == 0)
            continue; /* as the one before, mostly */
        last = file != NULL && bal_ends_with(file, ".safetensors") ? hub_list_find(l, file) : NULL;
        if (last == NULL)
            BAL_TRY(bal_fail(BAL_ENOENT, "the index of '%s' names '%.80s', which the repository does not have",
                             name->id, file != NULL ? file : "no file"));
        if (c->n > MAX_SHARDS)
            BAL_TRY(bal_fail(BAL_ELIMIT, "the index of '%s' names more than %d files", name->id, MAX_SHARDS));
        BAL_TRY(add(c, last));
    }
out:
    cJSON_Delete(json);
    return status;
}

/* --- data sets --- */

static const char *const k_readable[] = {".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".txt"};
enum { N_READABLE = sizeof k_readable / sizeof *k_readable, PARQUET = N_READABLE, NO_DATA };
/* Descriptions that are no records. */
static const char *const k_not_data[] = {"dataset_infos.json", "dataset_info.json", "state.json",  "metadata.json",
                                         "license.txt",        "licence.txt",       "README.txt",  "requirements.txt",
                                         "config.json",        "croissant.json",    "LICENSE.txt", "schema.json"};

/* The form of a data file by its name: 0 .. N_READABLE - 1, PARQUET or NO_DATA; *stem: bytes before the ending. */
static size_t form_of(const char *path, size_t *stem)
{
    const char *slash = strrchr(path, '/'), *own = slash != NULL ? slash + 1 : path;
    size_t length = strlen(path);
    *stem = length;
    for (size_t i = 0; i < sizeof k_not_data / sizeof *k_not_data; i++)
        if (strcasecmp(own, k_not_data[i]) == 0)
            return NO_DATA;
    if (own[0] == '.' || path[0] == '.')
        return NO_DATA;
    if (length > 3 && strcmp(path + length - 3, ".gz") == 0)
        length -= 3;
    for (size_t i = 0; i <= N_READABLE; i++) {
        const char *ending = i < N_READABLE ? k_readable[i] : ".parquet";
        size_t n = strlen(ending);
        if (length > n && strncasecmp(path + length - n, ending, n) == 0) {
            *stem = length - n;
            return i;
        }
    }
    return NO_DATA;
}

static const char *split_word(const char *word, size_t n)
{
    static const char *const words[][2] = {
        {"train", "train"},    {"training", "train"},        {"test", "test"},        {"testing", "test"},
        {"eval", "test"},      {"validation", "validation"}, {"valid", "validation"}, {"val", "validation"},
        {"dev", "validation"}, {"validate", "validation"}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strlen(words[i][0]) == n && strncasecmp(word, words[i][0], n) == 0)
            return words[i][1];
    return NULL;
}

/* Takes a file's name apart: the split that it says (NULL: none), and what is left without split and number of a shard:
 * files of one set have the same rest. */
static const char *take_apart(const char *path, size_t stem, char *rest, size_t n_rest)
{
    const char *split = NULL;
    size_t used = 0;
    for (size_t i = 0; i < stem;) {
        size_t n = 0;
        while (i + n < stem && isalnum((unsigned char)path[i + n]))
            n++;
        const char *word = n > 0 ? split_word(path + i, n) : NULL;
        size_t digits = strspn(path + i, "0123456789");
        bool of = n == 2 && strncmp(path + i, "of", 2) == 0 && i > 0 && path[i - 1] == '-' && path[i + 2] == '-';
        split = word != NULL ? word : split;
        if (n > 0 && word == NULL && !(digits >= n && n >= 4) && !of) {
            for (size_t k = 0; k < n && used + 2 < n_rest; k++)
                rest[used++] = path[i + k];
        } else if (n == 0 && used > 0 && rest[used - 1] != '/' && used + 2 < n_rest) {
            rest[used++] = path[i] == '/' ? '/' : '-';
        }
        i += n > 0 ? n : 1;
    }
    while (used > 0 && (rest[used - 1] == '-' || rest[used - 1] == '/'))
        used--;
    rest[used] = '\0';
    return split;
}

/* Does a folder of the path, or the beginning of the file's own name, say `part`? */
static bool has_part(const char *path, size_t stem, const char *part, size_t n)
{
    for (size_t at = 0; at < stem;) {
        size_t length = strcspn(path + at, "/");
        bool own = at + length > stem;
        if (length >= n && strncmp(path + at, part, n) == 0 &&
            (own ? at + n == stem || (at + n < stem && strchr("-_.", path[at + n]) != NULL) : length == n))
            return true;
        at += length + 1;
    }
    return false;
}

typedef struct wanted {
    char config[HUB_MAX_NAME];
    const char *split;
} wanted;

static wanted read_part(const hub_name *name, const char *split)
{
    wanted w = {.split = split};
    size_t used = 0;
    for (const char *p = name->part; *p != '\0';) {
        size_t n = strcspn(p, "/");
        const char *word = split_word(p, n);
        if (word != NULL) {
            w.split = word;
        } else {
            used += (size_t)snprintf(w.config + used, sizeof w.config - used, "%s%.*s", used > 0 ? "/" : "", (int)n, p);
        }
        p += n + (p[n] == '/');
    }
    return w;
}

static bool fits(const hub_file *f, size_t stem, const wanted *w)
{
    for (const char *p = w->config; *p != '\0';) {
        size_t n = strcspn(p, "/");
        if (!has_part(f->path, stem, p, n))
            return false;
        p += n + (p[n] == '/');
    }
    return true;
}

static bal_status fail_several(const hub_name *name, const char *first, const char *second)
{
    const char *shown = strrchr(second, '/') != NULL && second[0] != '/' ? second : first;
    char folder[HUB_MAX_PATH];
    (void)snprintf(folder, sizeof folder, "%.*s", (int)strcspn(shown, "/"), shown);
    return bal_fail(BAL_EINVAL,
                    "'%s' holds several data sets, '%.100s' and '%.100s' among them; name one, as '%s:%.60s'", name->id,
                    first[0] != '\0' ? first : "data", second[0] != '\0' ? second : "data", name->id,
                    folder[0] != '\0' ? folder : "NAME");
}

static bal_status fail_no_data(const hub_list *l, const hub_name *name, const wanted *w, bool parquet, bool other)
{
    bal_buf some = {0};
    bal_status status = BAL_OK;
    size_t stem = 0, shown = 0;
    if (parquet)
        return bal_fail(
            BAL_EUNSUPPORTED,
            "'%s' holds this data only as Parquet, which is not read; convert it: python3 -c \"from datasets "
            "import load_dataset as L; L('%s', %s%s%ssplit='%s').to_json('data.jsonl')\", then --data "
            "data.jsonl",
            name->id, name->id, w->config[0] != '\0' ? "'" : "", w->config, w->config[0] != '\0' ? "', " : "",
            w->split != NULL ? w->split : "train");
    for (size_t i = 0; i < l->n && shown < MAX_SHOWN && status == BAL_OK; i++)
        if (form_of(l->files[i].path, &stem) < NO_DATA)
            status = bal_buf_printf(&some, "%s%.80s", shown++ > 0 ? ", " : "", l->files[i].path);
    if (status == BAL_OK)
        status = bal_fail(BAL_ENOENT, "'%s' has no %s%s%s%s%s%s%s%s", name->id,
                          other && w->split != NULL ? w->split : "data", other && w->split != NULL ? " split" : "",
                          w->config[0] != '\0' ? " of '" : "", w->config, w->config[0] != '\0' ? "'" : "",
                          shown > 0 ? "; it has " : " in JSON, CSV, TSV or text", bal_buf_cstr(&some),
                          shown == MAX_SHOWN ? ", ..." : "");
    bal_buf_dispose(&some);
    return status;
}

/* What there is of a set. */
typedef struct survey {
    bool any;     /* files of the configuration */
    bool named;   /* some of them say a split */
    bool parquet; /* of the split */
    size_t best;  /* the form with the lowest number that can be read; NO_DATA: none */
} survey;

/* Is it a file of the split?  Beside files that say theirs, one that does not is something else. */
static bool in_split(const char *own, const wanted *w, bool named)
{
    return own == NULL ? !named && (w->split == NULL || strcmp(w->split, "train") == 0)
                       : w->split == NULL || strcmp(w->split, own) == 0;
}

static survey look_over(const hub_list *l, const wanted *w)
{
    survey s = {.best = NO_DATA};
    char rest[HUB_MAX_PATH];
    for (int pass = 0; pass < 2; pass++)
        for (size_t i = 0; i < l->n; i++) {
            size_t stem, form = form_of(l->files[i].path, &stem);
            if (form == NO_DATA || !fits(&l->files[i], stem, w))
                continue;
            const char *own = take_apart(l->files[i].path, stem, rest, sizeof rest);
            s.any = true;
            if (pass == 0)
                s.named = s.named || own != NULL;
            else if (in_split(own, w, s.named) && form == PARQUET)
                s.parquet = true;
            else if (in_split(own, w, s.named) && form < s.best)
                s.best = form;
        }
    return s;
}

bal_status hub_choose_data(hub_choice *c, const hub_list *l, const hub_name *name, const char *split)
{
    wanted w = read_part(name, split);
    survey there = look_over(l, &w);
    bool any = false;
    char rest[HUB_MAX_PATH], first[HUB_MAX_PATH] = "";
    bal_status status = BAL_OK;
    if (there.best == NO_DATA)
        return fail_no_data(l, name, &w, there.parquet, there.any);
    for (size_t i = 0; i < l->n; i++) {
        size_t stem, form = form_of(l->files[i].path, &stem);
        if (form >= PARQUET || !fits(&l->files[i], stem, &w) ||
            !in_split(take_apart(l->files[i].path, stem, rest, sizeof rest), &w, there.named))
            continue;
        if (any && strcmp(rest, first) != 0)
            BAL_TRY(fail_several(name, first, rest));
        (void)snprintf(first, sizeof first, "%s", rest);
        any = true;
        if (form == there.best) /* else the same once more, in another form */
            BAL_TRY(add(c, &l->files[i]));
    }
out:
    return status;
}
