/* Reading PEFT folders.  The tensor file says which modules are adapted; target_modules is checked against it.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter_impl.h"
#include "lib/adapter/peft.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/safetensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char PREFIX[] = "base_model.model.";

typedef struct factors { /* the two tensors of a module, NULL when the file lacks one */
    const bal_tensor *a, *b;
} factors;

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

/* Which module and factor a tensor belongs to: "base_model.model.<module>.lora_A.weight". */
static bool split_name(const char *name, const char **module, size_t *n, char *which)
{
    static const char tail_a[] = ".lora_A.weight", tail_b[] = ".lora_B.weight";
    if (!bal_starts_with(name, PREFIX) || strlen(name) <= sizeof PREFIX - 1 + sizeof tail_a - 1)
        return false;
    *module = name + sizeof PREFIX - 1;
    *n = strlen(*module) - (sizeof tail_a - 1);
    *which = bal_ends_with(name, tail_a) ? 'A' : 'B';
    return *which == 'A' || bal_ends_with(name, tail_b);
}

static bal_status check_shape(const bal_tensor *t, char which, size_t r, const bal_module *m)
{
    size_t rows = which == 'A' ? r : m->w->rows, cols = which == 'A' ? m->w->cols : r;
    if (t->n_dims != 2)
        return bal_fail(BAL_EFORMAT, "adapter tensor '%s' in %s has %zu dimensions instead of 2", t->name, t->file,
                        t->n_dims);
    if (t->shape[0] != rows || t->shape[1] != cols)
        return bal_fail(BAL_EFORMAT,
                        "adapter tensor '%s' in %s is %zu x %zu, but rank %zu on this model's '%s' (%zu x %zu) "
                        "needs %zu x %zu; is it the adapter of another base model?",
                        t->name, t->file, t->shape[0], t->shape[1], r, m->name, m->w->rows, m->w->cols, rows, cols);
    if (t->dtype != BAL_DTYPE_F32 && t->dtype != BAL_DTYPE_F16 && t->dtype != BAL_DTYPE_BF16 &&
        t->dtype != BAL_DTYPE_F64)
        return bal_fail(BAL_EUNSUPPORTED, "adapter tensor '%s' in %s has dtype %s; F32, F16 and BF16 are read", t->name,
                        t->file, t->dtype_name);
    return BAL_OK;
}

/* found[i]: the tensors of modules[i].  Every tensor must belong to a module, and every pair be complete. */
static bal_status collect(const bal_safetensors *file, size_t r, const bal_module *modules, size_t n, factors *found)
{
    for (size_t i = 0; i < bal_safetensors_count(file); i++) {
        const bal_tensor *t = bal_safetensors_at(file, i);
        const char *module = NULL;
        size_t len = 0, m = 0;
        char which = 0;
        if (!split_name(t->name, &module, &len, &which))
            return bal_fail(BAL_EUNSUPPORTED,
                            "tensor '%s' in %s is not a LoRA factor (…lora_A.weight, …lora_B.weight); adapters "
                            "with other tensors are not supported yet",
                            t->name, t->file);
        while (m < n && (strlen(modules[m].name) != len || strncmp(modules[m].name, module, len) != 0))
            m++;
        if (m == n)
            return bal_fail(BAL_EFORMAT,
                            "adapter tensor '%s' in %s has no module in this model; is it the adapter of another base "
                            "model?",
                            t->name, t->file);
        *(which == 'A' ? &found[m].a : &found[m].b) = t;
        bal_status status = check_shape(t, which, r, &modules[m]);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

static bal_status check_complete(const peft_config *c, const char *dir, const bal_module *modules, size_t n,
                                 const factors *found, size_t *n_found)
{
    *n_found = 0;
    for (size_t i = 0; i < n; i++) {
        bool wanted = c->exact_targets && bal_adapter_targets(&c->config, modules[i].name);
        if (found[i].a == NULL && found[i].b == NULL && !wanted)
            continue;
        if (found[i].a == NULL || found[i].b == NULL)
            return bal_fail(BAL_EFORMAT, "adapter %s lacks tensor '%s%s.lora_%c.weight'", dir, PREFIX, modules[i].name,
                            found[i].a == NULL ? 'A' : 'B');
        ++*n_found;
    }
    if (*n_found == 0)
        return bal_fail(BAL_EFORMAT, "adapter %s holds no LoRA tensors", dir);
    return BAL_OK;
}

static bal_status read_factor(const bal_tensor *t, real_t *out)
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

/* A and B of the folder, without any initial factors; picked (n entries) receives the modules in order. */
static bal_status load_pair(bal_adapter **out, peft_config *c, const char *dir, const bal_module *modules, size_t n,
                            size_t *picked, bool train)
{
    bal_status status = BAL_OK;
    bal_adapter *a = NULL;
    bal_safetensors *file = NULL;
    size_t n_found = 0, k = 0;
    factors *found = bal_alloc(n, sizeof *found);
    if (found == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_peft_config_read(c, dir));
    BAL_TRY(open_tensors(&file, dir));
    BAL_TRY(collect(file, c->config.r, modules, n, found));
    BAL_TRY(check_complete(c, dir, modules, n, found, &n_found));
    for (size_t i = 0; i < n; i++)
        if (found[i].a != NULL)
            picked[k++] = i;
    BAL_TRY(name_targets(c, modules, picked, k));
    BAL_TRY(bal_adapter_build(&a, &c->config, modules, picked, k, train));
    for (size_t i = 0; i < k; i++) {
        BAL_TRY(read_factor(found[picked[i]].a, a->loras[i].a));
        BAL_TRY(read_factor(found[picked[i]].b, a->loras[i].b));
    }
    *out = a;
    a = NULL;
out:
    bal_adapter_free(a);
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
    BAL_TRY(load_pair(&start, &c, dir, modules, n, picked, false));
    if (start->config.r != a->config.r)
        BAL_TRY(bal_fail(BAL_EFORMAT, "the initial adapter %s has rank %zu, the adapter has %zu", dir, start->config.r,
                         a->config.r));
    if (start->n_loras != a->n_loras)
        BAL_TRY(bal_fail(BAL_EFORMAT, "the initial adapter %s has %zu modules, the adapter has %zu", dir,
                         start->n_loras, a->n_loras));
    BAL_TRY(bal_adapter_make_initial(a));
    memcpy(a->initial, start->params.values, a->params.n * sizeof(real_t));
    for (size_t i = 0; i < a->n_loras; i++) {
        bal_lora *l = &a->loras[i];
        if (strcmp(l->module, start->loras[i].module) != 0)
            BAL_TRY(bal_fail(BAL_EFORMAT, "the initial adapter %s has module '%s', the adapter '%s'", dir,
                             start->loras[i].module, l->module));
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
    BAL_TRY(load_pair(&a, &c, dir, modules, n, picked, train));
    BAL_TRY(give_start(a, &c, dir, initial_dir, modules, n, picked, note, note_bytes));
    *out = a;
    a = NULL;
out:
    bal_adapter_free(a);
    bal_peft_config_dispose(&c);
    bal_free(picked);
    return status;
}
