/* PEFT adapter folders.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "tools/inspect.h"

#include <math.h>
#include <string.h>

/* The modules of one kind ("q_proj") with the same shapes, a line of the table. */
typedef struct kind {
    const char *name; /* in the tensor's name */
    int n_name;
    size_t count, r, in, out, parameters;
    bool pair; /* has A and B */
} kind;

enum { MAX_KINDS = 64 };

/* Adds the pair of a "...MODULE.lora_A.weight" (with AdaLoRA's E, else NULL); false when there are too many kinds. */
static bool count_pair(kind *kinds, size_t *n, const bal_tensor *a, const bal_tensor *b, const bal_tensor *e)
{
    const char *end = strstr(a->name, ".lora_A"), *begin = end;
    while (begin > a->name && begin[-1] != '.')
        begin--;
    int n_name = (int)(end - begin);
    size_t r = a->shape[0], in = a->shape[1], out = b->shape[0], k = 0;
    for (; k < *n; k++)
        if (kinds[k].n_name == n_name && strncmp(kinds[k].name, begin, (size_t)n_name) == 0 && kinds[k].r == r &&
            kinds[k].in == in && kinds[k].out == out)
            break;
    if (k == *n) {
        if (*n == MAX_KINDS)
            return false;
        kinds[(*n)++] = (kind){begin, n_name, 0, r, in, out, 0, true};
    }
    kinds[k].count++;
    kinds[k].parameters += a->n_elements + b->n_elements + (e != NULL ? e->n_elements : 0);
    return true;
}

/* The tensor whose name has another letter than A, NULL if there is none. */
static const bal_tensor *relative_of(const bal_safetensors *s, const bal_tensor *a, char letter)
{
    char name[1024];
    const char *at = strstr(a->name, ".lora_A");
    if (at == NULL || strlen(a->name) >= sizeof name || a->n_dims != 2)
        return NULL;
    memcpy(name, a->name, strlen(a->name) + 1);
    name[at - a->name + 6] = letter;
    return bal_safetensors_find(s, name);
}

/* The B that belongs to an A, NULL if there is none or the ranks differ. */
static const bal_tensor *partner(const bal_safetensors *s, const bal_tensor *a)
{
    const bal_tensor *b = relative_of(s, a, 'B');
    return b != NULL && b->n_dims == 2 && b->shape[1] == a->shape[0] ? b : NULL;
}

/* How B A is scaled. */
typedef struct scaling {
    double alpha;
    bool rslora;
    double init_r; /* AdaLoRA: alpha over this one, whatever rank is left; else 0 */
} scaling;

static double scale_of(const scaling *s, double r)
{
    if (s->init_r > 0)
        return s->alpha / (s->init_r + 1e-5);
    return s->alpha / (s->rslora ? sqrt(r) : r);
}

/* Where the name of the module ends in that of a tensor of another method than LoRA; NULL: it is of none. */
static const char *module_end(const char *name)
{
    static const char *const marks[] = {".hada_w",       ".lokr_w",        ".ia3_l",
                                        ".vera_lambda_", ".adapter_down.", ".adapter_up."};
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (strstr(name, marks[i]) != NULL)
            return strstr(name, marks[i]);
    return NULL;
}

/* Adds one tensor of such a method: it begins a module when it is the one that each has once. */
static bool count_tensor(kind *kinds, size_t *n, const bal_tensor *t, size_t *modules)
{
    static const char *const once[] = {".hada_w1_a", ".lokr_w1",       ".lokr_w1_a",
                                       ".ia3_l",     ".vera_lambda_b", ".adapter_up.weight"};
    const char *end = module_end(t->name), *begin = end;
    size_t k = 0;
    while (begin > t->name && begin[-1] != '.')
        begin--;
    int n_name = (int)(end - begin);
    while (k < *n && (kinds[k].n_name != n_name || strncmp(kinds[k].name, begin, (size_t)n_name) != 0))
        k++;
    if (k == MAX_KINDS)
        return false;
    if (k == *n)
        kinds[(*n)++] = (kind){.name = begin, .n_name = n_name};
    for (size_t i = 0; i < sizeof once / sizeof *once; i++)
        if (strcmp(end, once[i]) == 0) {
            kinds[k].count++;
            ++*modules;
        }
    kinds[k].parameters += t->n_elements;
    return true;
}

static bal_status add_modules(bal_inspection *i, const bal_safetensors *s, const scaling *how)
{
    kind kinds[MAX_KINDS];
    size_t n = 0, pairs = 0, others = 0;
    for (size_t k = 0; k < bal_safetensors_count(s); k++) {
        const bal_tensor *t = bal_safetensors_at(s, k);
        if (strstr(t->name, ".lora_B") != NULL || strstr(t->name, ".lora_E") != NULL)
            continue;
        const bal_tensor *b = partner(s, t);
        if (strstr(t->name, ".lora_A") != NULL && b == NULL)
            return bal_fail(BAL_EFORMAT, "%s: tensor '%s' has no lora_B of the same rank", t->file, t->name);
        if (b == NULL && module_end(t->name) != NULL && !count_tensor(kinds, &n, t, &pairs))
            return bal_fail(BAL_ELIMIT, "%s: more than %d kinds of modules", t->file, MAX_KINDS);
        if (b == NULL)
            others += module_end(t->name) == NULL;
        else if (!count_pair(kinds, &n, t, b, relative_of(s, t, 'E')))
            return bal_fail(BAL_ELIMIT, "%s: more than %d kinds of modules", t->file, MAX_KINDS);
        else
            pairs++;
    }
    bal_inspect_number(i, i->doc, "modules_adapted", (double)pairs);
    if (others > 0)
        bal_inspect_number(i, i->doc, "other_tensors", (double)others);
    cJSON *table = bal_inspect_array(i, i->doc, "modules");
    for (size_t k = 0; k < n; k++) {
        char name[128];
        (void)snprintf(name, sizeof name, "%.*s", kinds[k].n_name, kinds[k].name);
        cJSON *row = bal_inspect_object(i, table, NULL);
        bal_inspect_text(i, row, "module", name);
        bal_inspect_number(i, row, "count", (double)kinds[k].count);
        if (kinds[k].pair) {
            double r = (double)kinds[k].r;
            bal_inspect_number(i, row, "rank", r);
            bal_inspect_number(i, row, "scale", scale_of(how, r)); /* NaN is shown as none */
            bal_inspect_number(i, row, "in", (double)kinds[k].in);
            bal_inspect_number(i, row, "out", (double)kinds[k].out);
        }
        bal_inspect_number(i, row, "parameters", (double)kinds[k].parameters);
    }
    return BAL_OK;
}

static const bal_tensor *tensor_at(const void *source, size_t k)
{
    return bal_safetensors_at(source, k);
}

static bool has_folder(const char *dir, const char *name)
{
    char *path = bal_path_join(dir, name);
    bool there = path != NULL && bal_folder_exists(path);
    bal_free(path);
    return there;
}

static bal_status add_peft_config(bal_inspection *i, const cJSON *json, const char *path, scaling *how)
{
    static const char *const keys[] = {"peft_type",
                                       "task_type",
                                       "base_model_name_or_path",
                                       "r",
                                       "lora_alpha",
                                       "lora_dropout",
                                       "use_rslora",
                                       "use_dora",
                                       "target_modules",
                                       "init_lora_weights",
                                       "rank_pattern",
                                       "alpha_pattern",
                                       "modules_to_save",
                                       "alpha",
                                       "decompose_both",
                                       "decompose_factor",
                                       "feedforward_modules",
                                       "d_initial",
                                       "projection_prng_key",
                                       "save_projection",
                                       "vera_dropout",
                                       "reduction_factor",
                                       "non_linearity",
                                       "init_r",
                                       "target_r",
                                       "tinit",
                                       "tfinal",
                                       "deltaT",
                                       "beta1",
                                       "beta2",
                                       "orth_reg_weight",
                                       "total_step",
                                       "bias",
                                       "layers_to_transform"};
    bal_status status;
    cJSON *config = bal_inspect_object(i, i->doc, "config");
    for (size_t k = 0; k < sizeof keys / sizeof keys[0]; k++) {
        const cJSON *value = bal_json_member(json, keys[k]);
        bool empty = (cJSON_IsObject(value) || cJSON_IsArray(value)) && value->child == NULL;
        if (!empty && !(value != NULL && cJSON_IsArray(value->child))) /* AdaLoRA's truths: the modules say as much */
            bal_inspect_copy(i, config, keys[k], value);
    }
    BAL_TRY(bal_json_f64(json, path, "lora_alpha", &how->alpha, NULL));
    BAL_TRY(bal_json_f64(json, path, "init_r", &how->init_r, NULL));
    status = bal_json_bool(json, path, "use_rslora", &how->rslora, NULL);
out:
    return status;
}

bal_status bal_inspect_adapter(bal_inspection *i, const char *dir)
{
    enum { MAX_CONFIG = 16 << 20 };
    bal_safetensors *s = NULL;
    cJSON *json = NULL;
    scaling how = {.alpha = 8}; /* peft's default */
    char *path = bal_path_join(dir, "adapter_config.json"), *weights = bal_path_join(dir, "adapter_model.safetensors");
    bal_status status = path == NULL || weights == NULL ? BAL_ENOMEM : bal_json_read(&json, path, MAX_CONFIG);
    if (status != BAL_OK)
        goto out;
    BAL_TRY(bal_safetensors_open(&s, weights));
    bal_inspect_text(i, i->doc, "kind", "adapter");
    bal_inspect_text(i, i->doc, "format", "PEFT folder, safetensors");
    if (has_folder(dir, "balora/initial"))
        bal_inspect_text(i, i->doc, "initial_factors", "balora/initial");
    if (has_folder(dir, "pissa"))
        bal_inspect_text(i, i->doc, "rank_r_pair", "pissa");
    BAL_TRY(add_peft_config(i, json, path, &how));
    if (cJSON_GetArraySize(bal_json_member(json, "alpha_pattern")) > 0) {
        bal_inspect_text(i, i->doc, "note", "alpha_pattern gives modules of one kind different scales");
        how.alpha = (double)NAN;
    }
    BAL_TRY(add_modules(i, s, &how));
    BAL_TRY(bal_inspect_tensor_list(i, bal_safetensors_count(s), tensor_at, s, false));
    if (i->metadata)
        bal_inspect_copy(i, i->doc, "metadata", bal_safetensors_metadata_all(s));
out:
    bal_safetensors_close(s);
    cJSON_Delete(json);
    bal_free(path);
    bal_free(weights);
    return status;
}
