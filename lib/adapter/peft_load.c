/* Reading PEFT folders.  The tensor file says which modules are adapted; target_modules is checked against it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter_impl.h"
#include "lib/adapter/method.h"
#include "lib/adapter/peft.h"
#include "lib/adapter/select.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char PREFIX[] = "base_model.model.";

typedef struct found_tensors { /* of a module or of all of them, NULL where the file has none */
    const bal_tensor *t[BAL_SITE_TENSORS];
} found_tensors;

static bal_status open_tensors(bal_safetensors **out, const char *dir)
{
    bal_status status;
    char *path = bal_path_join(dir, "adapter_model.safetensors"), *old = bal_path_join(dir, "adapter_model.bin");
    if (path == NULL || old == NULL)
        status = BAL_ENOMEM;
    else if (!bal_file_exists(path) && bal_file_exists(old))
        status = bal_fail(BAL_EUNSUPPORTED,
                          "%s holds adapter_model.bin, which is not read; convert it: python3 -c \"import torch, "
                          "safetensors.torch as s; s.save_file({k: v.contiguous() for k, v in "
                          "torch.load('%s', weights_only=True).items()}, '%s')\"",
                          dir, old, path);
    else
        status = bal_safetensors_open(out, path);
    bal_free(path);
    bal_free(old);
    return status;
}

/* Which module and tensor of a site a name means: "base_model.model.<module>.<key>"; the longest key counts. */
static bool split_name(const char *name, const bal_site *site, const char **module, size_t *n, size_t *which)
{
    size_t best = 0;
    if (!bal_starts_with(name, PREFIX))
        return false;
    *module = name + sizeof PREFIX - 1;
    for (size_t k = 0; k < site->n_tensors; k++) {
        size_t len = strlen(site->tensor[k].key), whole = strlen(*module);
        if (len <= best || whole <= len + 1 || (*module)[whole - len - 1] != '.' ||
            strcmp(*module + whole - len, site->tensor[k].key) != 0)
            continue;
        best = len;
        *n = whole - len - 1;
        *which = k;
    }
    return best > 0;
}

static bal_status check_dtype(const bal_tensor *t)
{
    if (t->dtype != BAL_DTYPE_F32 && t->dtype != BAL_DTYPE_F16 && t->dtype != BAL_DTYPE_BF16 &&
        t->dtype != BAL_DTYPE_F64)
        return bal_fail(BAL_EUNSUPPORTED, "adapter tensor '%s' in %s has dtype %s; F32, F16 and BF16 are read", t->name,
                        t->file, t->dtype_name);
    return BAL_OK;
}

static bal_status check_shape(const bal_tensor *t, const bal_site *s, const bal_site_tensor *want)
{
    size_t cols = t->n_dims == 2 ? t->shape[1] : 1;
    if (t->n_dims != want->n_dims)
        return bal_fail(BAL_EFORMAT, "adapter tensor '%s' in %s has %zu dimensions instead of %zu", t->name, t->file,
                        t->n_dims, want->n_dims);
    if (t->shape[0] != want->rows || cols != want->cols)
        return bal_fail(BAL_EFORMAT,
                        "adapter tensor '%s' in %s is %zu x %zu, but rank %zu on this model's '%s' (%zu x %zu) "
                        "needs %zu x %zu; is it the adapter of another base model?",
                        t->name, t->file, t->shape[0], cols, s->r, s->module, s->out, s->in, want->rows, want->cols);
    return check_dtype(t);
}

static bal_status not_of_method(const bal_tensor *t, const bal_adapter_config *c, const bal_site *probe)
{
    bal_buf keys = {0};
    if (probe->n_tensors == 0)
        return bal_fail(BAL_EUNSUPPORTED,
                        "tensor '%s' in %s does not belong to a %s adapter on this model: it is no "
                        "bias of it",
                        t->name, t->file, bal_method_of(c)->title);
    for (size_t k = 0; k < probe->n_tensors; k++)
        (void)bal_buf_printf(&keys, "%s\u2026%s", k > 0 ? ", " : "", probe->tensor[k].key);
    bal_status status =
        bal_fail(BAL_EUNSUPPORTED, "tensor '%s' in %s does not belong to a %s adapter, which consists of %s", t->name,
                 t->file, bal_method_of(c)->title, bal_buf_cstr(&keys));
    bal_buf_dispose(&keys);
    return status;
}

/* Keys of the method's tensors: as a site of the first module has them. */
static bal_status describe_probe(bal_site *probe, bal_adapter *of, const bal_adapter_config *c,
                                 const bal_selector *ranks, const bal_module *m)
{
    of->config = *c;
    *probe = (bal_site){.method = bal_method_of(c),
                        .adapter = of,
                        .module = (char *)(uintptr_t)m->name, /* only read */
                        .out = m->kind == BAL_MODULE_EMBEDDING ? m->w->cols : m->w->rows,
                        .in = m->kind == BAL_MODULE_EMBEDDING ? m->w->rows : m->w->cols,
                        .embedding = m->kind == BAL_MODULE_EMBEDDING,
                        .r = bal_selector_rank(ranks, m->name),
                        .scale = 1};
    return probe->method->describe(probe);
}

/* The module whose name a tensor's name begins with, and which of the tensors of its own site it is: sites of a method
 * may consist of other tensors for other shapes. */
static bal_status find_place(const char *name, bal_adapter *of, const bal_adapter_config *c, const bal_selector *ranks,
                             const bal_module *modules, size_t n, size_t *m, size_t *which, bool *found)
{
    *found = false;
    if (!bal_starts_with(name, PREFIX))
        return BAL_OK;
    for (size_t i = 0; i < n && !*found; i++) {
        const char *rest = name + sizeof PREFIX - 1;
        size_t len = strlen(modules[i].name);
        bal_site site;
        if (strncmp(rest, modules[i].name, len) != 0 || rest[len] != '.' || !bal_module_adaptable(c, &modules[i]))
            continue;
        bal_status status = describe_probe(&site, of, c, ranks, &modules[i]);
        if (status != BAL_OK)
            return status;
        for (size_t k = 0; k < site.n_tensors; k++)
            if (strcmp(rest + len + 1, site.tensor[k].key) == 0) {
                *m = i;
                *which = k;
                *found = true;
            }
    }
    return BAL_OK;
}

/* Rows of the file's base weight beside the model's, which may be rounded otherwise, or packed (not compared). */
static bal_status compare_base(const bal_tensor *t, const bal_module *m)
{
    const double most = 0.01; /* of the norm; bf16 is within 0.004 */
    double off = 0, size = 0;
    bal_view v;
    bal_dtype d = m->w->dtype;
    bal_status status = check_dtype(t);
    real_t *row = bal_alloc(2, m->w->cols * sizeof *row);
    if (row == NULL)
        return BAL_ENOMEM;
    BAL_TRY(status);
    BAL_TRY(bal_tensor_view(t, &v));
    bool plain = d == BAL_DTYPE_F32 || d == BAL_DTYPE_F64 || d == BAL_DTYPE_BF16 || d == BAL_DTYPE_F16;
    for (size_t i = 0; i < v.rows && plain && m->w->data != NULL; i++) {
        real_t *mine = row + v.cols;
        bal_view_dequant(&v, i, 1, row, v.cols);
        bal_view_dequant(m->w, i, 1, mine, v.cols);
        for (size_t k = 0; k < v.cols; k++) {
            double e = (double)row[k] - (double)mine[k];
            off += e * e;
            size += (double)mine[k] * (double)mine[k];
        }
    }
    if (!(off <= most * most * size))
        BAL_TRY(bal_fail(BAL_EFORMAT,
                         "'%s' in %s is the base weight that the adapter was trained on, and differs from the model's "
                         "'%s': it is the adapter of another base model, or peft trained the weight, too",
                         t->name, t->file, m->name));
out:
    bal_free(row);
    return status;
}

/* peft also writes the base weight of an adapted embedding or head: it is the model's own, or the adapter is of another
 * base (a vocabulary that was enlarged, weights that were trained).  *is: it is such a tensor. */
static bal_status check_base(const bal_tensor *t, const bal_module *modules, size_t n, bool residual, bool *is)
{
    static const char tail[] = ".base_layer.weight";
    const bal_module *m = NULL;
    *is = false;
    if (!bal_starts_with(t->name, PREFIX) || !bal_ends_with(t->name, tail))
        return BAL_OK;
    const char *module = t->name + sizeof PREFIX - 1;
    size_t len = strlen(module) - (sizeof tail - 1);
    for (size_t i = 0; i < n && m == NULL; i++)
        if (strlen(modules[i].name) == len && strncmp(modules[i].name, module, len) == 0)
            m = &modules[i];
    if (m == NULL)
        return BAL_OK;
    *is = true;
    bool turned = m->fan_in_fan_out;
    if (t->n_dims != 2 || t->shape[turned ? 1 : 0] != m->w->rows || t->shape[turned ? 0 : 1] != m->w->cols)
        return bal_fail(BAL_EFORMAT,
                        "'%s' in %s is the base weight that the adapter was trained on, and of another shape than "
                        "the model's '%s' (%zu x %zu): it is the adapter of another base model",
                        t->name, t->file, m->name, m->w->rows, m->w->cols);
    bool shared = false; /* what a residual start has taken out of a head is missing in the embedding, too */
    for (size_t i = 0; i < n; i++)
        shared = shared || (&modules[i] != m && modules[i].w->data == m->w->data);
    return turned || (residual && !shared) ? BAL_OK : compare_base(t, m);
}

/* A tensor of the model that the adapter has a copy of; these are read by read_copies(). */
static bool is_copy(const char *name, const bal_adapter_config *c, const bal_module *modules, size_t n)
{
    return bal_starts_with(name, PREFIX) && bal_copies_name(c, name + sizeof PREFIX - 1, modules, n) != BAL_COPY_NONE;
}

/* found[i]: the tensors of modules[i], found[n] the shared ones (checked later).  Every tensor must belong to a
 * module. */
static bal_status collect(const bal_safetensors *file, const char *dir, const peft_config *p, const bal_module *modules,
                          size_t n, found_tensors *found)
{
    const bal_adapter_config *c = &p->config;
    bal_adapter of = {0};
    bal_selector *ranks = NULL;
    bal_site probe;
    bal_status status = BAL_OK;
    if (n == 0)
        return bal_fail(BAL_EINVAL, "the model has no module that an adapter could be on");
    BAL_TRY(bal_selector_new(&ranks, c));
    BAL_TRY(describe_probe(&probe, &of, c, ranks, &modules[0]));
    bool without_base = modules[0].w->data == NULL && (c->n_modules_to_save > 0 || c->bias != BAL_BIAS_NONE);
    of.sites = &probe;
    of.n_sites = 1;
    if (probe.method->describe_shared != NULL)
        BAL_TRY(probe.method->describe_shared(&of));
    for (size_t i = 0; i < bal_safetensors_count(file); i++) {
        const bal_tensor *t = bal_safetensors_at(file, i);
        const char *module = NULL;
        size_t len = 0, m = 0, which = 0, k = 0;
        while (k < of.n_shared && (!bal_starts_with(t->name, "base_model.") ||
                                   strcmp(t->name + strlen("base_model."), of.shared[k].key) != 0))
            k++;
        if (k < of.n_shared) {
            found[n].t[k] = t;
            continue;
        }
        bool there = false;
        bool base = false;
        if (is_copy(t->name, c, modules, n))
            continue;
        BAL_TRY(check_base(t, modules, n, p->residual, &base));
        if (base)
            continue;
        BAL_TRY(find_place(t->name, &of, c, ranks, modules, n, &m, &which, &there));
        if (!there && without_base && (bal_ends_with(t->name, ".weight") || bal_ends_with(t->name, ".bias")) &&
            !split_name(t->name, &probe, &module, &len, &which))
            continue;
        if (!there && !split_name(t->name, &probe, &module, &len, &which))
            BAL_TRY(not_of_method(t, c, &probe));
        if (!there)
            BAL_TRY(bal_fail(BAL_EFORMAT,
                             "adapter tensor '%s' in %s has no module in this model; is it the adapter of another base "
                             "model?",
                             t->name, t->file));
        found[m].t[which] = t;
    }
out:
    bal_selector_free(ranks);
    return status == BAL_EINVAL ? bal_fail_note(BAL_EFORMAT, "%s", dir) : status;
}

static bool any_found(const found_tensors *f)
{
    for (size_t k = 0; k < BAL_SITE_TENSORS; k++)
        if (f->t[k] != NULL)
            return true;
    return false;
}

/* picked: the modules that the file holds tensors of. */
static bal_status pick(const peft_config *c, const char *dir, const bal_module *modules, size_t n,
                       const found_tensors *found, size_t *picked, size_t *n_picked)
{
    bal_selector *selector = NULL;
    bal_status status = bal_selector_new(&selector, &c->config);
    *n_picked = 0;
    for (size_t i = 0; i < n && status == BAL_OK; i++)
        if (any_found(&found[i]) || (c->exact_targets && bal_selector_targets(selector, &modules[i])))
            picked[(*n_picked)++] = i;
    bal_selector_free(selector);
    if (status == BAL_OK && *n_picked == 0 && !bal_method_of(&c->config)->no_sites)
        return bal_fail(BAL_EFORMAT, "adapter %s holds no %s tensors", dir, bal_method_of(&c->config)->title);
    return status == BAL_EINVAL ? bal_fail_note(BAL_EFORMAT, "%s", dir) : status;
}

static bal_status read_values(const bal_tensor *t, real_t *out)
{
    bal_view v;
    bal_status status = bal_tensor_view(t, &v);
    if (status != BAL_OK)
        return status;
    bal_view_dequant(&v, 0, v.rows, out, v.cols);
    for (size_t i = 0; i < v.rows * v.cols; i++)
        if (!isfinite(out[i]))
            return bal_fail(BAL_ENUMERIC, "adapter tensor '%s' in %s holds %g at row %zu, column %zu", t->name, t->file,
                            (double)out[i], i / v.cols, i % v.cols);
    return BAL_OK;
}

static bal_status read_tensors(const char *dir, const bal_site *s, const bal_site_tensor *t, size_t n,
                               const found_tensors *found)
{
    bal_status status = BAL_OK;
    for (size_t k = 0; k < n; k++) {
        if (t[k].not_saved && found->t[k] == NULL)
            continue;
        if (found->t[k] == NULL && s->module == NULL)
            return bal_fail(BAL_EFORMAT, "adapter %s lacks tensor 'base_model.%s'", dir, t[k].key);
        if (found->t[k] == NULL)
            return bal_fail(BAL_EFORMAT, "adapter %s lacks tensor '%s%s.%s'", dir, PREFIX, s->module, t[k].key);
        BAL_TRY(check_shape(found->t[k], s, &t[k]));
        BAL_TRY(read_values(found->t[k], t[k].v));
    }
out:
    return status;
}

/* A tensor of the model in the file: under its key, or (a bias) as it is called with the module adapted or not, which
 * depends on the version of peft. */
static const bal_tensor *find_copy(const bal_safetensors *file, const bal_copy *c)
{
    char name[512];
    size_t stem = strlen(c->tensor) - strlen(".bias");
    (void)snprintf(name, sizeof name, "%s%s", PREFIX, c->key);
    const bal_tensor *t = bal_safetensors_find(file, name);
    if (t == NULL && c->is_bias) {
        (void)snprintf(name, sizeof name, "%s%s", PREFIX, c->tensor);
        t = bal_safetensors_find(file, name);
    }
    if (t == NULL && c->is_bias) {
        (void)snprintf(name, sizeof name, "%s%.*s.base_layer.bias", PREFIX, (int)stem, c->tensor);
        t = bal_safetensors_find(file, name);
    }
    return t;
}

static bal_status read_copy(const bal_tensor *t, const bal_copy *c)
{
    size_t n_dims = c->vector ? 1 : 2, rows = c->turned ? c->cols : c->rows, cols = c->turned ? c->rows : c->cols;
    bal_status status = check_dtype(t);
    if (status != BAL_OK)
        return status;
    if (t->n_dims != n_dims || t->shape[0] != rows || (n_dims == 2 && t->shape[1] != cols))
        return bal_fail(
            BAL_EFORMAT,
            "adapter tensor '%s' in %s has %zu values in %zu dimensions, but the model's '%s' is %zu x %zu; "
            "is it the adapter of another base model?",
            t->name, t->file, t->n_elements, t->n_dims, c->tensor, rows, cols);
    if (!c->turned)
        return read_values(t, c->v);
    real_t *turned = bal_alloc(rows * cols, sizeof *turned);
    if (turned == NULL)
        return BAL_ENOMEM;
    status = read_values(t, turned);
    for (size_t i = 0; status == BAL_OK && i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            c->v[j * rows + i] = turned[i * cols + j];
    bal_free(turned);
    return status;
}

/* The copies; biases may be missing together, since older versions of peft forgot those of adapted modules: then they are
 * the model's own. */
static bal_status read_copies(const bal_adapter *a, const char *dir, const bal_safetensors *file, char *note,
                              size_t note_bytes)
{
    size_t found = 0, biases = 0;
    for (size_t i = 0; i < a->n_copies; i++)
        if (a->copies[i].is_bias) {
            biases++;
            found += find_copy(file, &a->copies[i]) != NULL;
        }
    bool forgotten = found == 0 && biases > 0 && a->config.bias == BAL_BIAS_LORA_ONLY;
    for (size_t i = 0; i < a->n_copies; i++) {
        const bal_copy *c = &a->copies[i];
        const bal_tensor *t = find_copy(file, c);
        if (t == NULL && c->is_bias && forgotten)
            continue;
        if (t == NULL)
            return bal_fail(BAL_EFORMAT, "adapter %s lacks tensor '%s%s'", dir, PREFIX, c->key);
        bal_status status = read_copy(t, c);
        if (status != BAL_OK)
            return status;
    }
    if (forgotten && note != NULL)
        (void)snprintf(note, note_bytes,
                       "the adapter says bias lora_only, but its file has none of the %zu biases: the model's own are "
                       "used",
                       biases);
    return BAL_OK;
}

/* When the file names its modules by a pattern or by layers, the list of their full paths says the same. */
static bal_status name_targets(peft_config *c, const bal_module *modules, const size_t *picked, size_t n)
{
    if (c->exact_targets)
        return BAL_OK;
    for (size_t i = 0; i < c->config.n_target_modules; i++)
        bal_free(c->config.target_modules[i]);
    bal_free(c->config.target_modules);
    c->config.n_target_modules = 0;
    c->config.target_modules = bal_alloc(n, sizeof *c->config.target_modules);
    if (c->config.target_modules == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n; i++) {
        c->config.target_modules[i] = bal_strdup(modules[picked[i]].name);
        if (c->config.target_modules[i] == NULL)
            return BAL_ENOMEM;
        c->config.n_target_modules++;
    }
    return BAL_OK;
}

/* peft ties copies only when they are called embed_tokens or lm_head, whatever the key says: then it writes the head, too. */
static void forget_tying(bal_adapter_config *c, const bal_safetensors *file, const bal_module *modules, size_t n)
{
    char name[512];
    for (size_t i = 0; i < n && c->ensure_weight_tying; i++) {
        (void)snprintf(name, sizeof name, "%s%s.weight", PREFIX, modules[i].name);
        if (modules[i].is_head && c->n_modules_to_save > 0 && bal_safetensors_find(file, name) == NULL)
            c->ensure_weight_tying = false;
    }
}

/* A key that no adapted module has changes nothing; peft says nothing of it. */
static bal_status check_patterns(const bal_adapter *a, const char *dir, char *note, size_t note_bytes)
{
    bal_selector *selector = NULL;
    bal_status status = bal_selector_new(&selector, &a->config);
    if (status == BAL_OK && bal_selector_check_patterns(selector, a) != BAL_OK && note != NULL)
        (void)snprintf(note, note_bytes, "%s: %s", dir, bal_error_message());
    bal_selector_free(selector);
    return status == BAL_EINVAL ? bal_fail_note(BAL_EFORMAT, "%s", dir) : status;
}

/* The tensors of the folder, without any initial factors; picked (n entries) receives the modules in order. */
static bal_status load_pair(bal_adapter **out, peft_config *c, const char *dir, const bal_module *modules, size_t n,
                            size_t *picked, bool train, char *note, size_t note_bytes)
{
    bal_status status = BAL_OK;
    bal_adapter *a = NULL;
    bal_safetensors *file = NULL;
    bal_copies copies = {NULL, 0};
    size_t k = 0;
    found_tensors *found = bal_alloc(n + 1, sizeof *found);
    if (found == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_peft_config_read(c, dir));
    BAL_TRY(open_tensors(&file, dir));
    forget_tying(&c->config, file, modules, n);
    BAL_TRY(collect(file, dir, c, modules, n, found));
    BAL_TRY(pick(c, dir, modules, n, found, picked, &k));
    BAL_TRY(name_targets(c, modules, picked, k));
    BAL_TRY(bal_copies_choose(&copies, &c->config, modules, n, picked, k, train));
    BAL_TRY(bal_adapter_build(&a, &c->config, modules, picked, k, &copies, train));
    bal_copies_start(a, modules);
    BAL_TRY(check_patterns(a, dir, note, note_bytes));
    for (size_t i = 0; i < k; i++)
        BAL_TRY(read_tensors(dir, &a->sites[i], a->sites[i].tensor, a->sites[i].n_tensors, &found[picked[i]]));
    const bal_site whole = {.method = bal_method_of(&a->config)};
    BAL_TRY(read_tensors(dir, &whole, a->shared, a->n_shared, &found[n]));
    if (whole.method->loaded != NULL)
        BAL_TRY(whole.method->loaded(a));
    BAL_TRY(read_copies(a, dir, file, note, note_bytes));
    *out = a;
    a = NULL;
out:
    bal_adapter_free(a);
    bal_copies_dispose(&copies);
    bal_safetensors_close(file);
    bal_free(found);
    return status;
}

static bal_status load_initial(bal_adapter *a, const char *dir, const bal_module *modules, size_t n)
{
    bal_status status = BAL_OK;
    peft_config c = {0};
    bal_adapter *start = NULL;
    size_t *picked = bal_alloc(n, sizeof *picked);
    if (picked == NULL)
        return BAL_ENOMEM;
    if (!bal_method_of(&a->config)->low_rank)
        BAL_TRY(bal_fail(BAL_EINVAL, "an initial adapter is given (%s), but a %s adapter has no low-rank factors", dir,
                         bal_method_of(&a->config)->title));
    BAL_TRY(load_pair(&start, &c, dir, modules, n, picked, false, NULL, 0));
    if (!bal_method_of(&start->config)->low_rank)
        BAL_TRY(bal_fail(BAL_EFORMAT, "the initial adapter %s is of the method %s; it must be a LoRA", dir,
                         bal_method_of(&start->config)->title));
    for (size_t i = 0; i < a->n_loras && i < start->n_loras; i++)
        if (start->loras[i].r != a->loras[i].r)
            BAL_TRY(bal_fail(BAL_EFORMAT, "the initial adapter %s has rank %zu on '%s', the adapter has %zu", dir,
                             start->loras[i].r, a->loras[i].module, a->loras[i].r));
    if (start->config.r != a->config.r)
        BAL_TRY(bal_fail(BAL_EFORMAT, "the initial adapter %s has rank %zu, the adapter has %zu", dir, start->config.r,
                         a->config.r));
    if (start->n_loras != a->n_loras)
        BAL_TRY(bal_fail(BAL_EFORMAT, "the initial adapter %s has %zu modules, the adapter has %zu", dir,
                         start->n_loras, a->n_loras));
    BAL_TRY(bal_adapter_make_initial(a));
    for (size_t i = 0; i < a->n_loras; i++) {
        bal_lora *l = &a->loras[i];
        if (strcmp(l->module, start->loras[i].module) != 0)
            BAL_TRY(bal_fail(BAL_EFORMAT, "the initial adapter %s has module '%s', the adapter '%s'", dir,
                             start->loras[i].module, l->module));
        memcpy(a->initial + (l->a - a->params.values), start->loras[i].a, l->r * l->in * sizeof(real_t));
        memcpy(a->initial + (l->b - a->params.values), start->loras[i].b, l->r * l->out * sizeof(real_t));
        /* one scale for both products: a start written with another alpha is brought to this one */
        double ratio = start->loras[i].scale / l->scale;
        real_t *b0 = a->initial + (l->b - a->params.values);
        for (size_t j = 0; ratio != 1 && j < l->out * l->r; j++)
            b0[j] = (real_t)((double)b0[j] * ratio);
    }
out:
    bal_adapter_free(start);
    bal_peft_config_dispose(&c);
    bal_free(picked);
    return status;
}

/* Where our own folders keep the initial factors: dir/balora/initial (checkpoints), or ../balora/initial for the
 * pissa/ folder of a finished run.  *out is NULL when there are none. */
static bal_status find_initial(const char *dir, char **out)
{
    static const char *const places[] = {"balora/initial", "../balora/initial"};
    *out = NULL;
    for (size_t i = 0; i < 2; i++) {
        char *place = bal_path_join(dir, places[i]);
        if (place == NULL)
            return BAL_ENOMEM;
        char *config = bal_path_join(place, "adapter_config.json");
        bool there = config != NULL && bal_file_exists(config);
        bal_free(config);
        if (there) {
            *out = place;
            return BAL_OK;
        }
        bal_free(place);
    }
    return BAL_OK;
}

static bal_status redo_start(bal_adapter *a, const bal_module *modules, const size_t *picked, char *note,
                             size_t note_bytes)
{
    bal_status status = BAL_OK;
    const bal_view **views = bal_alloc(a->n_loras, sizeof *views); // NOLINT(bugprone-sizeof-expression): of pointers
    if (views == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < a->n_loras; i++)
        views[i] = modules[picked[i]].w;
    bal_start start;
    if (!bal_start_parse(a->config.init, &start))
        BAL_TRY(bal_fail(BAL_EINVAL, "start '%s' is unknown", a->config.init));
    BAL_TRY(bal_adapter_make_initial(a));
    BAL_TRY(bal_adapter_init_residual(a, start, views, NULL, false, 0, a->initial));
    if (note != NULL)
        (void)snprintf(note, note_bytes,
                       "the adapter says %s and has no initial factors: the decomposition of %zu matrices was redone",
                       a->config.init, a->n_loras);
out:
    bal_free(views);
    return status;
}

static bal_status give_start(bal_adapter *a, const peft_config *c, const char *dir, const char *initial_dir,
                             const bal_module *modules, size_t n, const size_t *picked, char *note, size_t note_bytes)
{
    char *own = NULL;
    bal_status status = BAL_OK;
    if (initial_dir == NULL && c->residual)
        BAL_TRY(find_initial(dir, &own));
    if (initial_dir != NULL || own != NULL) {
        BAL_TRY(load_initial(a, initial_dir != NULL ? initial_dir : own, modules, n));
        if (!c->residual) /* saved again, the config must say that W is not what (A, B) alone is added to */
            (void)snprintf(a->config.init, sizeof a->config.init, "pissa");
    } else if (c->unknown_start) {
        BAL_TRY(bal_fail(BAL_EUNSUPPORTED,
                         "%s: init_lora_weights '%s' starts from changed base weights; give its initial factors with "
                         "--initial-adapter, or convert it to plain LoRA with peft",
                         dir, c->config.init));
    } else if (c->residual && !c->redo) {
        BAL_TRY(bal_fail(BAL_EINVAL,
                         "%s: '%s' cannot be repeated, since it depends on chance or data; give its initial factors "
                         "with --initial-adapter",
                         dir, c->config.init));
    } else if (c->residual) {
        BAL_TRY(redo_start(a, modules, picked, note, note_bytes));
    }
out:
    bal_free(own);
    return status;
}

bal_status bal_adapter_load(bal_adapter **out, const char *dir, const char *initial_dir, const bal_module *modules,
                            size_t n, bool train, char *note, size_t note_bytes)
{
    bal_status status = BAL_OK;
    peft_config c = {0};
    bal_adapter *a = NULL;
    size_t *picked = bal_alloc(n, sizeof *picked);
    *out = NULL;
    if (note != NULL && note_bytes > 0)
        note[0] = '\0';
    if (picked == NULL)
        return BAL_ENOMEM;
    if (!bal_folder_exists(dir))
        BAL_TRY(bal_fail(BAL_ENOENT, "adapter folder %s is not there", dir));
    BAL_TRY(load_pair(&a, &c, dir, modules, n, picked, train, note, note_bytes));
    BAL_TRY(give_start(a, &c, dir, initial_dir, modules, n, picked, note, note_bytes));
    *out = a;
    a = NULL;
out:
    bal_adapter_free(a);
    bal_peft_config_dispose(&c);
    bal_free(picked);
    return status;
}
