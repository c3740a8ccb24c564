/* balora inspect PATH: what a model, adapter, tokenizer or data file holds.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/gguf.h"
#include "lib/io/json.h"
#include "lib/io/options.h"
#include "lib/model/save_gguf.h"
#include "tools/commands.h"
#include "tools/inspect.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

typedef struct inspect_config {
    bool tensors, metadata, check;
    const char *synthesize, *dtype, *out;
    int64_t seed;
} inspect_config;

static const bal_option k_options[] = {
    {.name = "tensors",
     .letter = 't',
     .type = BAL_OPTION_FLAG,
     .offset = offsetof(inspect_config, tensors),
     .group = "What to show",
     .help = "every tensor: name, type, shape, bytes"},
    {.name = "metadata",
     .letter = 'm',
     .type = BAL_OPTION_FLAG,
     .offset = offsetof(inspect_config, metadata),
     .group = "What to show",
     .help = "all metadata of GGUF and safetensors files (arrays shortened)"},
    {.name = "check",
     .type = BAL_OPTION_FLAG,
     .offset = offsetof(inspect_config, check),
     .group = "What to show",
     .help = "look for NaN and infinity in all weights; exit status 3 when there is one"},
    {.name = "synthesize",
     .type = BAL_OPTION_PATH,
     .offset = offsetof(inspect_config, synthesize),
     .group = "A model to try sizes with",
     .help = "config.json of a model to make with random weights, instead of showing a PATH"},
    {.name = "dtype",
     .type = BAL_OPTION_CHOICE,
     .offset = offsetof(inspect_config, dtype),
     .default_text = "q4_0",
     .choices = "q4_0|bf16",
     .group = "A model to try sizes with",
     .help = "type of its weights"},
    {.name = "out",
     .letter = 'o',
     .type = BAL_OPTION_PATH,
     .offset = offsetof(inspect_config, out),
     .group = "A model to try sizes with",
     .help = "folder that gets its model.gguf"},
    {.name = "seed",
     .type = BAL_OPTION_INT,
     .offset = offsetof(inspect_config, seed),
     .default_text = "0",
     .max = 9e15,
     .group = "A model to try sizes with",
     .help = "of its weights"},
};

static const bal_command k_command = {
    .name = "inspect",
    .usage = "PATH [options] | --synthesize config.json --out DIR",
    .summary = "what a model, adapter, tokenizer or data file holds",
    .description =
        "PATH is a model folder, GGUF file, safetensors file, adapter folder, tokenizer.json, or a data file\n"
        "(JSON lines, JSON, CSV, TSV, text; also .gz).\n\n"
        "  balora inspect SmolLM2.gguf --tensors\n"
        "  balora inspect --synthesize llama-7b/config.json --dtype q4_0 --out 7b   # does it fit?  train on it\n",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
    .max_positional = 1,
};

/* Random weights of a configuration's shape. */
static bal_status synthesize(const bal_options *o, const inspect_config *c)
{
    enum { MAX_CONFIG = 1 << 24 };
    bal_buf text = {0};
    bal_status status = BAL_OK;
    bal_quant quant = BAL_QUANT_Q4_0;
    char *path = c->out == NULL ? NULL : bal_path_join(c->out, "model.gguf");
    uint64_t bytes = 0;
    if (c->out == NULL)
        BAL_TRY(bal_fail(BAL_EINVAL, "--out DIR is needed"));
    if (path == NULL)
        BAL_TRY(BAL_ENOMEM);
    if (bal_file_exists(path))
        BAL_TRY(bal_fail(BAL_EINVAL, "%s is there already; give another folder", path));
    (void)bal_quant_parse(c->dtype, &quant);
    BAL_TRY(bal_options_start(o));
    BAL_TRY(bal_file_read(c->synthesize, MAX_CONFIG, &text));
    BAL_TRY(bal_folder_make(c->out));
    BAL_TRY(bal_model_synthesize(bal_buf_cstr(&text), path, quant, (uint64_t)c->seed));
    BAL_TRY(bal_file_size(path, &bytes));
    if (bal_options_common(o)->json)
        printf("{\"bytes\":%llu,\"dtype\":\"%s\"}\n", (unsigned long long)bytes, c->dtype);
    else
        printf("%s: random weights as %s, %.0f MiB\n", path, c->dtype, (double)bytes / 1048576.0);
out:
    bal_buf_dispose(&text);
    bal_free(path);
    return status;
}

static bool folder_has(const char *dir, const char *name)
{
    char *path = bal_path_join(dir, name);
    bool there = path != NULL && bal_file_exists(path);
    bal_free(path);
    return there;
}

static bal_status inspect_folder(bal_inspection *i, const char *dir)
{
    if (folder_has(dir, "adapter_config.json"))
        return bal_inspect_adapter(i, dir);
    bool weights = folder_has(dir, "model.safetensors") || folder_has(dir, "model.safetensors.index.json");
    if (weights && folder_has(dir, "config.json"))
        return bal_inspect_model_folder(i, dir);
    if (weights)
        return bal_inspect_safetensors(i, dir);
    if (folder_has(dir, "tokenizer.json") || folder_has(dir, "tokenizer.json.gz"))
        return bal_inspect_tokenizer(i, dir);
    char *gguf = NULL;
    bal_status status = bal_gguf_in_folder(&gguf, dir);
    if (status == BAL_OK && gguf != NULL)
        status = bal_inspect_gguf(i, gguf);
    bal_free(gguf);
    if (status != BAL_OK || gguf != NULL)
        return status;
    return bal_fail(BAL_ENOENT,
                    "%s holds no model (config.json, *.safetensors), adapter (adapter_config.json) or "
                    "tokenizer (tokenizer.json)",
                    dir);
}

static bal_status inspect_file(bal_inspection *i, const char *path)
{
    char magic[16] = "";
    FILE *f = fopen(path, "rbe");
    if (f != NULL) {
        if (fread(magic, 1, sizeof magic, f) < 4)
            magic[0] = '\0'; /* too short to be known by its first bytes */
        (void)fclose(f);
    }
    const char *slash = strrchr(path, '/'), *name = slash == NULL ? path : slash + 1;
    if (memcmp(magic, "GGUF", 4) == 0 || bal_ends_with(path, ".gguf"))
        return bal_inspect_gguf(i, path);
    if (bal_ends_with(path, ".safetensors") || bal_ends_with(path, ".safetensors.index.json"))
        return bal_inspect_safetensors(i, path);
    if (memcmp(magic, "SQLite format 3", 16) == 0)
        return bal_fail(BAL_EUNSUPPORTED, "%s is a database of runs: see balora runs list --db %s", path, path);
    if (strcmp(name, "tokenizer.json") == 0 || strcmp(name, "tokenizer.json.gz") == 0)
        return bal_inspect_tokenizer(i, path);
    return bal_inspect_data(i, path);
}

static bal_status print_document(const bal_inspection *i, bool json)
{
    bal_buf b = {0};
    if (!json) {
        bal_inspect_print(i->doc, stdout);
        return BAL_OK;
    }
    bal_status status = bal_json_put(&b, i->doc, true);
    if (status == BAL_OK)
        (void)printf("%s\n", bal_buf_cstr(&b));
    bal_buf_dispose(&b);
    return status;
}

static bal_status inspect(const bal_options *o, const inspect_config *config)
{
    size_t n;
    const char *const *words = bal_options_positional(o, &n);
    if (config->synthesize != NULL && n == 0)
        return synthesize(o, config);
    if (n != 1)
        return bal_fail(BAL_EINVAL, "a PATH to inspect is needed");
    bal_status status = config->check ? bal_options_start(o) : BAL_OK;
    bal_inspection i = {
        .doc = cJSON_CreateObject(), .tensors = config->tensors, .metadata = config->metadata, .check = config->check};
    bal_inspect_text(&i, i.doc, "path", words[0]);
    if (status == BAL_OK)
        status = bal_folder_exists(words[0]) ? inspect_folder(&i, words[0]) : inspect_file(&i, words[0]);
    if (status == BAL_OK && i.short_memory)
        status = bal_fail(BAL_ENOMEM, "out of memory while %s was described", words[0]);
    if (status == BAL_OK)
        status = print_document(&i, bal_options_common(o)->json);
    cJSON_Delete(i.doc);
    return status;
}

int cmd_inspect(int argc, char **argv)
{
    inspect_config config = {0};
    bal_options *o = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&o, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help)
        status = inspect(o, &config);
    bal_options_free(o);
    return bal_command_finish(&k_command, status);
}
