/* Writing PEFT folders.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/adapter_impl.h"
#include "lib/adapter/method.h"
#include "lib/adapter/peft.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/safetensors.h"

#include <string.h>

static bal_status add_tensors(bal_safetensors_writer *w, const char *module, const bal_site_tensor *t, size_t n)
{
    bal_buf name = {0};
    bal_status status = BAL_OK;
    for (size_t k = 0; k < n; k++) {
        const size_t shape[2] = {t[k].rows, t[k].cols};
        if (t[k].not_saved)
            continue;
        name.len = 0;
        BAL_TRY(module != NULL ? bal_buf_printf(&name, "base_model.model.%s.%s", module, t[k].key)
                               : bal_buf_printf(&name, "base_model.%s", t[k].key));
        BAL_TRY(bal_safetensors_writer_add_real(w, bal_buf_cstr(&name), t[k].n_dims, shape, t[k].v));
    }
out:
    bal_buf_dispose(&name);
    return status;
}

/* The start of a residual adapter as a plain LoRA of its factors. */
static bal_status add_initial(bal_safetensors_writer *w, const bal_adapter *a)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < a->n_sites && status == BAL_OK; i++) {
        bal_site_tensor t[2] = {a->sites[i].tensor[0], a->sites[i].tensor[1]};
        for (size_t k = 0; k < 2; k++)
            t[k].v = a->initial + (t[k].v - a->params.values);
        status = add_tensors(w, a->sites[i].module, t, 2);
    }
    return status;
}

static bal_status fill_copy(void *context, size_t row0, size_t n_rows, real_t *out)
{
    bal_copy_rows(context, row0, n_rows, out);
    return BAL_OK;
}

static bal_status add_copies(bal_safetensors_writer *w, const bal_adapter *a)
{
    bal_buf name = {0};
    bal_status status = BAL_OK;
    for (size_t i = 0; i < a->n_copies; i++) {
        bal_copy *c = &a->copies[i];
        const size_t shape[2] = {c->turned ? c->cols : c->rows, c->turned ? c->rows : c->cols};
        for (size_t k = 0; k < (c->twin != NULL ? 2 : 1); k++) {
            name.len = 0;
            BAL_TRY(bal_buf_printf(&name, "base_model.model.%s", k == 0 ? c->key : c->twin));
            BAL_TRY(bal_safetensors_writer_add_fill(w, bal_buf_cstr(&name), BAL_DTYPE_F32, c->vector ? 1 : 2, shape,
                                                    fill_copy, c));
        }
    }
out:
    bal_buf_dispose(&name);
    return status;
}

static bal_status write_tensors(const bal_adapter *a, bool initial, const char *path)
{
    bal_status status = BAL_OK;
    bal_safetensors_writer *w = NULL;
    BAL_TRY(bal_safetensors_writer_new(&w));
    BAL_TRY(bal_safetensors_writer_metadata(w, "format", "pt"));
    if (initial)
        BAL_TRY(add_initial(w, a));
    for (size_t i = 0; !initial && i < a->n_sites; i++)
        BAL_TRY(add_tensors(w, a->sites[i].module, a->sites[i].tensor, a->sites[i].n_tensors));
    if (!initial)
        BAL_TRY(add_tensors(w, NULL, a->shared, a->n_shared));
    if (!initial)
        BAL_TRY(add_copies(w, a));
    BAL_TRY(bal_safetensors_writer_commit(w, path));
out:
    bal_safetensors_writer_free(w);
    return status;
}

static bal_status write_folder(const bal_adapter *a, bool initial, const char *dir)
{
    bal_status status = BAL_OK;
    char *config = bal_path_join(dir, "adapter_config.json"),
         *tensors = bal_path_join(dir, "adapter_model.safetensors");
    if (config == NULL || tensors == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_folder_make(dir));
    BAL_TRY(write_tensors(a, initial, tensors));
    BAL_TRY(bal_peft_config_write(a, initial, config));
out:
    bal_free(config);
    bal_free(tensors);
    return status;
}

bal_status bal_adapter_save(const bal_adapter *a, const char *dir)
{
    return write_folder(a, false, dir);
}

bal_status bal_adapter_save_initial(const bal_adapter *a, const char *dir)
{
    if (a->initial == NULL)
        return bal_fail(BAL_EINVAL, "a %s adapter has no initial factors to save in %s", a->config.init, dir);
    return write_folder(a, true, dir);
}

/* As a finished run leaves it. */
static bal_status save_finished(const bal_adapter *a, const char *dir)
{
    bal_adapter *finished = NULL;
    const bal_method *m = bal_method_of(&a->config);
    bal_status status = m->finished != NULL ? m->finished(&finished, a) : BAL_OK;
    if (status == BAL_OK)
        status = bal_adapter_save(finished != NULL ? finished : a, dir);
    bal_adapter_free(finished);
    return status;
}

bal_status bal_adapter_write_final(const bal_adapter *a, const char *dir)
{
    if (a->initial == NULL)
        return save_finished(a, dir);
    bal_status status = BAL_OK;
    bal_adapter *plain = NULL;
    char *pair = bal_path_join(dir, "pissa"), *initial = bal_path_join(dir, "balora/initial");
    if (pair == NULL || initial == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_adapter_to_plain(&plain, a));
    BAL_TRY(bal_adapter_save(plain, dir));
    BAL_TRY(bal_adapter_save(a, pair));
    BAL_TRY(bal_adapter_save_initial(a, initial));
out:
    bal_adapter_free(plain);
    bal_free(pair);
    bal_free(initial);
    return status;
}

bal_status bal_adapter_save_final(const bal_adapter *a, const char *dir)
{
    bal_status status = BAL_OK;
    bal_buf beside = {0};
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') /* "out/" must not put the temporary folder inside */
        len--;
    BAL_TRY(bal_buf_append(&beside, dir, len));
    BAL_TRY(bal_buf_text(&beside, ".tmp"));
    BAL_TRY(bal_folder_remove(bal_buf_cstr(&beside)));
    BAL_TRY(bal_adapter_write_final(a, bal_buf_cstr(&beside)));
    BAL_TRY(bal_folder_replace(bal_buf_cstr(&beside), dir));
out:
    if (status != BAL_OK && beside.len > 0) {
        char kept[1024]; /* removing must not hide why writing failed */
        size_t n = strlen(bal_error_message());
        memcpy(kept, bal_error_message(), n + 1);
        (void)bal_folder_remove(bal_buf_cstr(&beside));
        (void)bal_fail(status, "%s", kept);
    }
    bal_buf_dispose(&beside);
    return status;
}
