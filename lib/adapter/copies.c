/* Tensors of the model that an adapter trains copies of: those of modules_to_save, and the biases that the key "bias"
 * names, with peft's meaning and under peft's names (peft/utils/save_and_load.py, tuners/tuners_utils.py).
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter_impl.h"
#include "lib/adapter/method.h"
#include "lib/adapter/select.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"

#include <string.h>

static const char WEIGHT[] = ".weight", BIAS[] = ".bias", BASE[] = ".base_layer";

void bal_copies_dispose(bal_copies *c)
{
    for (size_t i = 0; c->of != NULL && i < c->n; i++) {
        bal_free(c->of[i].tensor);
        bal_free(c->of[i].key);
        bal_free(c->of[i].twin);
    }
    bal_free(c->of);
    *c = (bal_copies){NULL, 0};
}

bal_status bal_copies_duplicate(bal_copies *out, const bal_copies *from)
{
    *out = (bal_copies){bal_alloc(from->n, sizeof *out->of), 0};
    if (out->of == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < from->n; i++) {
        bal_copy *to = &out->of[out->n++];
        *to = from->of[i];
        to->v = to->d = NULL;
        to->tensor = bal_strdup(from->of[i].tensor);
        to->key = bal_strdup(from->of[i].key);
        to->twin = from->of[i].twin != NULL ? bal_strdup(from->of[i].twin) : NULL;
        if (to->tensor == NULL || to->key == NULL || (from->of[i].twin != NULL && to->twin == NULL))
            return BAL_ENOMEM;
    }
    return BAL_OK;
}

static char *joined(const char *a, const char *b, const char *c)
{
    bal_buf text = {0};
    char *out = bal_buf_printf(&text, "%s%s%s", a, b, c) == BAL_OK ? bal_strdup(bal_buf_cstr(&text)) : NULL;
    bal_buf_dispose(&text);
    return out;
}

/* adapted: the module lies inside of peft's layer. */
static bal_status add_copy(bal_copies *to, const bal_module *m, size_t i, bool is_bias, bool adapted)
{
    const char *tail = is_bias ? BIAS : WEIGHT;
    bool vector = is_bias || m->kind == BAL_MODULE_NORM;
    bal_copy *c = &to->of[to->n++];
    *c = (bal_copy){.tensor = joined(m->name, "", tail),
                    .key = joined(m->name, adapted ? BASE : "", tail),
                    .module = i,
                    .rows = m->w->rows,
                    .cols = vector ? 1 : m->w->cols,
                    .vector = vector,
                    .is_bias = is_bias,
                    .turned = !vector && m->fan_in_fan_out,
                    .head = m->is_head};
    return c->tensor == NULL || c->key == NULL ? BAL_ENOMEM : BAL_OK;
}

static bal_bias_mode biases_of(const bal_adapter_config *c)
{
    return bal_method_of(c)->no_sites ? BAL_BIAS_ALL : c->bias;
}

static bal_status check(const bal_adapter_config *c)
{
    const bal_method *m = bal_method_of(c);
    if (c->bias != BAL_BIAS_NONE && !m->biases && !m->no_sites)
        return bal_fail(BAL_EINVAL,
                        "peft's %s has no key bias, so that biases cannot be trained with it; leave bias %s out",
                        m->title, bal_bias_name(c->bias));
    return BAL_OK;
}

/* The embedding and the head when both are one matrix and are to stay one. */
static bool one_matrix(const bal_adapter_config *c, const bal_module *modules, size_t n, size_t *embedding,
                       size_t *head)
{
    *embedding = *head = n;
    for (size_t i = 0; i < n && c->ensure_weight_tying; i++) {
        if (modules[i].kind == BAL_MODULE_EMBEDDING)
            *embedding = i;
        else if (modules[i].is_head)
            *head = i;
    }
    return *embedding < n && *head < n && modules[*embedding].w->data == modules[*head].w->data;
}

bal_status bal_copies_choose(bal_copies *out, const bal_adapter_config *c, const bal_module *modules, size_t n,
                             const size_t *picked, size_t n_picked, bool trains)
{
    bal_status status = check(c);
    bal_bias_mode biases = biases_of(c);
    size_t embedding, head;
    *out = (bal_copies){NULL, 0};
    if (status != BAL_OK)
        return status;
    bool shared = one_matrix(c, modules, n, &embedding, &head);
    bool tied = shared && (bal_config_saves(c, modules[embedding].name) || bal_config_saves(c, modules[head].name));
    bool *adapted = bal_alloc(n, sizeof *adapted);
    out->of = bal_alloc(2 * n, sizeof *out->of);
    if (adapted == NULL || out->of == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t k = 0; k < n_picked; k++) {
        adapted[picked[k]] = true;
        /* read, each has its own tensors; trained, both would have to move together */
        if (trains && shared && (picked[k] == embedding || picked[k] == head))
            BAL_TRY(bal_fail(BAL_EUNSUPPORTED,
                             "ensure_weight_tying with an adapter on '%s' can be read but not trained; leave it out "
                             "of target_modules",
                             modules[picked[k]].name));
    }
    for (size_t i = 0; i < n; i++) {
        const bal_module *m = &modules[i];
        bool saved = tied && (i == embedding || i == head) ? i == embedding : bal_config_saves(c, m->name);
        bool bias = saved || biases == BAL_BIAS_ALL || (biases == BAL_BIAS_LORA_ONLY && adapted[i]);
        if (saved && m->projected)
            BAL_TRY(
                bal_fail(BAL_EUNSUPPORTED,
                         "modules_to_save names '%s', which in this model is a product of two matrices of its file; "
                         "leave it out",
                         m->name));
        if (saved)
            BAL_TRY(add_copy(out, m, i, false, false));
        if (saved && tied && i == embedding &&
            (out->of[out->n - 1].twin = joined(modules[head].name, "", WEIGHT)) == NULL)
            BAL_TRY(BAL_ENOMEM);
        if (bias && m->bias != NULL)
            BAL_TRY(add_copy(out, m, i, true, adapted[i]));
    }
out:
    bal_free(adapted);
    if (status != BAL_OK)
        bal_copies_dispose(out);
    return status;
}

void bal_copies_start(bal_adapter *a, const bal_module *modules)
{
    for (size_t i = 0; i < a->n_copies; i++) {
        const bal_copy *c = &a->copies[i];
        const bal_module *m = &modules[c->module];
        if (c->is_bias)
            memcpy(c->v, m->bias, c->rows * sizeof *c->v);
        else if (m->w->data != NULL)
            bal_view_dequant_parallel(m->w, 0, c->rows, c->v, c->cols);
    }
}

bal_copy_name bal_copies_name(const bal_adapter_config *c, const char *rest, const bal_module *modules, size_t n)
{
    bool all = biases_of(c) == BAL_BIAS_ALL, any = biases_of(c) != BAL_BIAS_NONE;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(modules[i].name);
        if (strncmp(rest, modules[i].name, len) != 0 || rest[len] != '.')
            continue;
        const char *tail = rest + len;
        bool saved = bal_config_saves(c, modules[i].name);
        if (saved && (strcmp(tail, WEIGHT) == 0 || strcmp(tail, BIAS) == 0))
            return BAL_COPY_TENSOR;
        if (saved && all && (strcmp(tail, ".modules_to_save.bias") == 0 || strcmp(tail, ".original_module.bias") == 0))
            return BAL_COPY_AGAIN;
        bool of_pair = modules[i].is_head || modules[i].kind == BAL_MODULE_EMBEDDING;
        if (c->ensure_weight_tying && of_pair && strcmp(tail, WEIGHT) == 0) /* the other one is named */
            return BAL_COPY_TENSOR;
        if (any && (strcmp(tail, BIAS) == 0 || strcmp(tail, ".base_layer.bias") == 0))
            return BAL_COPY_TENSOR;
    }
    return BAL_COPY_NONE;
}

void bal_copy_rows(const bal_copy *c, size_t row0, size_t n_rows, real_t *out)
{
    if (!c->turned) {
        memcpy(out, c->v + row0 * c->cols, n_rows * c->cols * sizeof *out);
        return;
    }
    for (size_t i = 0; i < n_rows; i++)
        for (size_t r = 0; r < c->rows; r++)
            out[i * c->rows + r] = c->v[r * c->cols + row0 + i];
}
