/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/model/bundle.h"

#include "lib/model/pack.h"
#include "lib/text/spaces.h"

#include <stdio.h>
#include <string.h>

static bal_status load(bal_bundle *out, bool any, const char *model, const char *adapter, const char *initial_adapter,
                       const char *tokenizer)
{
    bal_status status;
    *out = (bal_bundle){0};
    BAL_TRY(any ? bal_model_load_any(&out->model, model) : bal_model_load(&out->model, model));
    if (adapter != NULL) {
        BAL_TRY(bal_model_load_base(out->model, adapter, NULL, 0));
        BAL_TRY(bal_adapter_load(&out->adapter, adapter, initial_adapter, out->model->modules, out->model->n_modules,
                                 false, out->note, sizeof out->note));
        BAL_TRY(bal_model_attach(out->model, out->adapter));
    }
    status = bal_tokenizer_load(&out->tokenizer, tokenizer == NULL ? model : tokenizer);
    if (status != BAL_OK && tokenizer == NULL) { /* ids need none */
        (void)snprintf(out->no_tokenizer, sizeof out->no_tokenizer, "%.500s", bal_error_message());
        out->tokenizer = NULL;
        status = BAL_OK;
    }
out:
    if (status != BAL_OK)
        bal_bundle_dispose(out);
    return status;
}

bal_status bal_bundle_load(bal_bundle *out, const char *model, const char *adapter, const char *initial_adapter,
                           const char *tokenizer)
{
    return load(out, false, model, adapter, initial_adapter, tokenizer);
}

bal_status bal_bundle_load_any(bal_bundle *out, const char *model, const char *adapter, const char *initial_adapter,
                               const char *tokenizer)
{
    return load(out, true, model, adapter, initial_adapter, tokenizer);
}

bal_status bal_bundle_base(const bal_bundle *b, const char *const *adapters, size_t n)
{
    bal_status status = BAL_OK;
    for (size_t i = 0; i < 2 * n; i++) /* the second time all must agree with what the first left */
        BAL_TRY(bal_model_load_base(b->model, adapters[i % n], NULL, 0));
out:
    return status;
}

bal_status bal_bundle_view(bal_bundle *out, const bal_bundle *of, const char *adapter)
{
    bal_status status = BAL_OK;
    *out = *of;
    out->view = true;
    out->model = NULL;
    out->adapter = NULL;
    out->note[0] = '\0';
    if (adapter != NULL)
        BAL_TRY(bal_adapter_load(&out->adapter, adapter, NULL, of->model->modules, of->model->n_modules, false,
                                 out->note, sizeof out->note));
    status = bal_model_share(&out->model, of->model, out->adapter);
out:
    if (status != BAL_OK)
        bal_bundle_dispose(out);
    return status;
}

void bal_bundle_dispose(bal_bundle *b)
{
    if (!b->view)
        bal_tokenizer_free(b->tokenizer);
    bal_model_free(b->model);
    bal_adapter_free(b->adapter);
    *b = (bal_bundle){0};
}

bal_status bal_bundle_need_tokenizer(const bal_bundle *b)
{
    if (b->tokenizer != NULL)
        return BAL_OK;
    return bal_fail(BAL_EINVAL,
                    "text needs a tokenizer, and the model has none (%.300s); give one with --tokenizer, or ids",
                    b->no_tokenizer);
}

static bal_status prefix_token(const bal_bundle *b, int32_t *out)
{
    *out = bal_tokenizer_bos(b->tokenizer);
    if (*out < 0)
        *out = bal_tokenizer_eos(b->tokenizer);
    if (*out < 0 && b->model != NULL)
        *out = b->model->config.bos;
    if (*out < 0 && b->model != NULL && b->model->config.n_eos > 0)
        *out = b->model->config.eos[0];
    if (*out < 0)
        return bal_fail(BAL_EINVAL, "an empty text cannot be given to a model without BOS and EOS");
    return BAL_OK;
}

/* Whether special tokens are to be put around a text: not if it begins with the prefix token itself, as what a chat
 * template makes often does (lm-eval's has_bos_prefix). */
static bool wants_specials(const bal_bundle *b, const char *text, size_t n)
{
    int32_t prefix = -1;
    const char *word = prefix_token(b, &prefix) == BAL_OK ? bal_tokenizer_token(b->tokenizer, prefix) : NULL;
    size_t length = word == NULL ? 0 : strlen(word);
    return length == 0 || n < length || memcmp(text, word, length) != 0;
}

bal_status bal_bundle_prompt(const bal_bundle *b, const char *text, size_t n, bal_ids *out)
{
    size_t before = out->n;
    int32_t prefix = -1;
    bal_status status;
    BAL_TRY(bal_bundle_need_tokenizer(b));
    BAL_TRY(bal_tokenizer_encode(b->tokenizer, text, n, wants_specials(b, text, n), out));
    if (out->n > before)
        goto out;
    BAL_TRY(prefix_token(b, &prefix));
    status = bal_ids_append(out, prefix);
out:
    return status;
}

static bal_status split_empty(const bal_bundle *b, const char *continuation, bal_ids *ids, size_t *n_context)
{
    int32_t prefix = -1;
    bal_ids rest = {0};
    bal_status status;
    BAL_TRY(prefix_token(b, &prefix));
    BAL_TRY(bal_tokenizer_encode(b->tokenizer, continuation, strlen(continuation), false, &rest));
    if (rest.n == 0 || rest.data[0] != prefix)
        BAL_TRY(bal_ids_append(ids, prefix));
    for (size_t i = 0; i < rest.n; i++)
        BAL_TRY(bal_ids_append(ids, rest.data[i]));
    *n_context = 1;
out:
    bal_ids_dispose(&rest);
    return status;
}

bal_status bal_bundle_split(const bal_bundle *b, const char *context, const char *continuation, bal_ids *ids,
                            size_t *n_context)
{
    bal_buf whole = {0};
    bal_ids front = {0};
    size_t n = strlen(context), space;
    bal_status status;
    bal_ids_clear(ids);
    BAL_TRY(bal_bundle_need_tokenizer(b));
    if (n == 0) {
        BAL_TRY(split_empty(b, continuation, ids, n_context));
    } else {
        BAL_TRY(bal_buf_text(&whole, context));
        BAL_TRY(bal_buf_text(&whole, continuation));
        while ((space = bal_space_last(context, n)) > 0)
            n -= space;
        bool specials = wants_specials(b, context, n);
        BAL_TRY(bal_tokenizer_encode(b->tokenizer, whole.data, whole.len, specials, ids));
        BAL_TRY(bal_tokenizer_encode(b->tokenizer, context, n, specials, &front));
        *n_context = front.n;
        if (front.n == 0) { /* only white space: there is nothing to condition on but the prefix */
            bal_ids_clear(ids);
            BAL_TRY(split_empty(b, whole.data, ids, n_context));
        }
    }
    if (ids->n <= *n_context)
        status =
            bal_fail(BAL_EINVAL, "the continuation '%.40s' has no tokens of its own after its context", continuation);
out:
    bal_ids_dispose(&front);
    bal_buf_dispose(&whole);
    return status;
}
