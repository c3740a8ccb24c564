/* Models: GGUF files, safetensors files, Hugging Face folders.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "tools/inspect.h"

#include <math.h>
#include <string.h>

static const bal_tensor *gguf_at(const void *source, size_t k)
{
    return bal_gguf_tensor_at(source, k);
}

static const bal_tensor *safetensors_at(const void *source, size_t k)
{
    return bal_safetensors_at(source, k);
}

/* A GGUF number or text as a document value; of an array the first few. */
static void add_value(bal_inspection *i, cJSON *object, const char *key, const bal_gguf_value *v)
{
    enum { FIRST = 8 };
    if (!v->is_array && v->texts == NULL) {
        if (v->type == BAL_GGUF_BOOL)
            bal_inspect_bool(i, object, key, bal_gguf_element(v, 0) != 0);
        else
            bal_inspect_number(i, object, key, bal_gguf_element(v, 0));
        return;
    }
    cJSON *list = object;
    if (v->is_array) {
        cJSON *array = bal_inspect_object(i, object, key);
        bal_inspect_number(i, array, "elements", (double)v->n);
        list = bal_inspect_array(i, array, "first");
        key = NULL;
    }
    for (size_t k = 0; k < v->n && k < FIRST; k++) {
        if (v->texts == NULL) {
            bal_inspect_number(i, list, key, bal_gguf_element(v, k));
            continue;
        }
        char *copy = bal_strndup(v->texts[k].data, v->texts[k].n);
        if (copy == NULL)
            i->short_memory = true;
        bal_inspect_text(i, list, key, copy);
        bal_free(copy);
    }
}

static void add_gguf_config(bal_inspection *i, const bal_gguf *g, const char *architecture)
{
    static const char *const names[][2] = {
        {"layers", "block_count"},
        {"hidden_size", "embedding_length"},
        {"heads", "attention.head_count"},
        {"kv_heads", "attention.head_count_kv"},
        {"head_dim", "attention.key_length"},
        {"intermediate_size", "feed_forward_length"},
        {"vocabulary", "vocab_size"},
        {"context", "context_length"},
        {"rope_theta", "rope.freq_base"},
        {"rope_scaling", "rope.scaling.type"},
        {"rms_norm_eps", "attention.layer_norm_rms_epsilon"},
    };
    cJSON *config = bal_inspect_object(i, i->doc, "config");
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        char key[160];
        (void)snprintf(key, sizeof key, "%.96s.%s", architecture, names[k][1]);
        const bal_gguf_value *v = bal_gguf_find(g, key);
        if (v != NULL)
            add_value(i, config, names[k][0], v);
    }
    bal_inspect_bool(i, config, "tied_head", bal_gguf_tensor(g, "output.weight") == NULL);
}

/* "2 <|im_end|>" for a key such as tokenizer.ggml.eos_token_id. */
static void add_token(bal_inspection *i, cJSON *section, const char *name, const bal_gguf *g, const char *key)
{
    const bal_gguf_value *tokens = bal_gguf_find(g, "tokenizer.ggml.tokens"), *v = bal_gguf_find(g, key);
    double id = v == NULL || v->is_array ? -1 : bal_gguf_element(v, 0);
    char text[128];
    if (!(id >= 0 && id < 9e15))
        return;
    size_t at = (size_t)id;
    bool known = tokens != NULL && tokens->texts != NULL && at < tokens->n;
    int n = known ? (int)(tokens->texts[at].n < 80 ? tokens->texts[at].n : 80) : 0;
    (void)snprintf(text, sizeof text, "%.0f %.*s", id, n, known ? tokens->texts[at].data : "");
    bal_inspect_text(i, section, name, text);
}

static void add_gguf_tokenizer(bal_inspection *i, const bal_gguf *g)
{
    const bal_gguf_value *tokens = bal_gguf_find(g, "tokenizer.ggml.tokens");
    const bal_gguf_value *merges = bal_gguf_find(g, "tokenizer.ggml.merges");
    if (tokens == NULL)
        return;
    cJSON *section = bal_inspect_object(i, i->doc, "tokenizer");
    bal_inspect_text(i, section, "model", bal_gguf_text_of(g, "tokenizer.ggml.model"));
    bal_inspect_text(i, section, "pre_tokenizer", bal_gguf_text_of(g, "tokenizer.ggml.pre"));
    bal_inspect_number(i, section, "vocabulary", (double)tokens->n);
    if (merges != NULL)
        bal_inspect_number(i, section, "merges", (double)merges->n);
    add_token(i, section, "bos", g, "tokenizer.ggml.bos_token_id");
    add_token(i, section, "eos", g, "tokenizer.ggml.eos_token_id");
    add_token(i, section, "pad", g, "tokenizer.ggml.padding_token_id");
    bal_inspect_text(i, section, "chat_template", bal_gguf_text_of(g, "tokenizer.chat_template"));
}

bal_status bal_inspect_gguf(bal_inspection *i, const char *path)
{
    bal_gguf *g;
    char format[32];
    uint64_t bytes = 0;
    bal_status status = bal_gguf_open(&g, path);
    if (status != BAL_OK)
        return status;
    const char *architecture = bal_gguf_text_of(g, "general.architecture"), *type = bal_gguf_text_of(g, "general.type");
    (void)snprintf(format, sizeof format, "GGUF version %u", bal_gguf_version(g));
    bal_inspect_text(i, i->doc, "kind", type != NULL ? type : "model");
    bal_inspect_text(i, i->doc, "format", format);
    bal_inspect_text(i, i->doc, "architecture", architecture);
    bal_inspect_text(i, i->doc, "name", bal_gguf_text_of(g, "general.name"));
    BAL_TRY(bal_file_size(path, &bytes));
    bal_inspect_number(i, i->doc, "file_bytes", (double)bytes);
    if (architecture != NULL)
        add_gguf_config(i, g, architecture);
    add_gguf_tokenizer(i, g);
    status = bal_inspect_tensor_list(i, bal_gguf_count_tensors(g), gguf_at, g, false);
    if (i->metadata) {
        cJSON *all = bal_inspect_object(i, i->doc, "metadata");
        for (size_t k = 0; k < bal_gguf_count_values(g); k++)
            add_value(i, all, bal_gguf_value_at(g, k)->key, bal_gguf_value_at(g, k));
    }
out:
    bal_gguf_close(g);
    return status;
}

/* Tensors and metadata of an open safetensors file or folder. */
static bal_status add_safetensors(bal_inspection *i, const bal_safetensors *s, bool tied)
{
    bal_status status = bal_inspect_tensor_list(i, bal_safetensors_count(s), safetensors_at, s, tied);
    if (i->metadata)
        bal_inspect_copy(i, i->doc, "metadata", bal_safetensors_metadata_all(s));
    return status;
}

bal_status bal_inspect_safetensors(bal_inspection *i, const char *path)
{
    bal_safetensors *s;
    bal_status status = bal_safetensors_open(&s, path);
    if (status != BAL_OK)
        return status;
    bal_inspect_text(i, i->doc, "kind", "tensors");
    bal_inspect_text(i, i->doc, "format", "safetensors");
    status = add_safetensors(i, s, false);
    bal_safetensors_close(s);
    return status;
}

static void add_config(bal_inspection *i, const cJSON *json)
{
    /* our word, and the keys of config.json in which different families keep it */
    static const char *const names[][4] = {
        {"layers", "num_hidden_layers", "n_layer", "num_layers"},
        {"hidden_size", "hidden_size", "n_embd", "d_model"},
        {"heads", "num_attention_heads", "n_head", "num_heads"},
        {"kv_heads", "num_key_value_heads", NULL, NULL},
        {"head_dim", "head_dim", "d_kv", NULL},
        {"intermediate_size", "intermediate_size", "n_inner", "d_ff"},
        {"vocabulary", "vocab_size", NULL, NULL},
        {"context", "max_position_embeddings", "n_positions", NULL},
        {"activation", "hidden_act", "activation_function", "hidden_activation"},
        {"tied_head", "tie_word_embeddings", NULL, NULL},
        {"sliding_window", "sliding_window", NULL, NULL},
        {"rope_theta", "rope_theta", NULL, NULL},
        {"rope", "rope_parameters", "rope_scaling", NULL},
        {"dtype", "dtype", "torch_dtype", NULL},
    };
    cJSON *config = bal_inspect_object(i, i->doc, "config");
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        const cJSON *value = NULL;
        for (size_t a = 1; a < 4 && value == NULL && names[k][a] != NULL; a++)
            value = bal_json_member(json, names[k][a]);
        bal_inspect_copy(i, config, names[k][0], value);
    }
}

/* Files beside the weights that other commands read. */
static void add_files(bal_inspection *i, const char *dir)
{
    static const char *const names[] = {"tokenizer.json",         "tokenizer.json.gz",   "tokenizer_config.json",
                                        "generation_config.json", "chat_template.jinja", "vocab.txt"};
    cJSON *files = bal_inspect_array(i, i->doc, "files_beside");
    for (size_t k = 0; k < sizeof names / sizeof names[0]; k++) {
        char *path = bal_path_join(dir, names[k]);
        if (path != NULL && bal_file_exists(path))
            bal_inspect_text(i, files, NULL, names[k]);
        bal_free(path);
    }
}

bal_status bal_inspect_model_folder(bal_inspection *i, const char *dir)
{
    enum { MAX_CONFIG = 16 << 20 };
    bal_safetensors *s = NULL;
    cJSON *json = NULL;
    bool tied = false;
    char *path = bal_path_join(dir, "config.json");
    bal_status status = path == NULL ? BAL_ENOMEM : bal_json_read(&json, path, MAX_CONFIG);
    if (status != BAL_OK)
        goto out;
    BAL_TRY(bal_safetensors_open(&s, dir));
    bal_inspect_text(i, i->doc, "kind", "model");
    bal_inspect_text(i, i->doc, "format", "Hugging Face folder, safetensors");
    bal_inspect_copy(i, i->doc, "architecture", bal_json_member(json, "model_type"));
    bal_inspect_copy(i, i->doc, "classes", bal_json_member(json, "architectures"));
    const cJSON *text = bal_json_member(json, "text_config");
    add_config(i, cJSON_IsObject(text) ? text : json);
    tied = cJSON_IsTrue(bal_json_member(json, "tie_word_embeddings"));
    add_files(i, dir);
    status = add_safetensors(i, s, tied);
out:
    bal_safetensors_close(s);
    cJSON_Delete(json);
    bal_free(path);
    return status;
}
