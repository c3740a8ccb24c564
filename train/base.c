/* The base of a run that is packed in memory, and the starts that go with it.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/adapter/method.h"
#include "lib/base/mem.h"
#include "lib/model/pack.h"
#include "lib/tensor/nf4.h"
#include "train/train.h"

#include <stdio.h>
#include <string.h>

enum { LOFTQ_ROUNDS = 1, PISSA_ROUNDS = 5 };

static bool is(const char *a, const char *b)
{
    return a != NULL && strcmp(a, b) == 0;
}

bool train_packs_with_start(const train_config *c)
{
    return is(c->init, "loftq") || (is(c->init, "pissa") && !is(c->base_dtype, "file"));
}

bal_status train_check_base(const trainer *t, const train_config *c)
{
    bool packs = !is(c->base_dtype, "file"), loftq = is(c->init, "loftq");
    if (t->full && packs)
        return bal_fail(BAL_EINVAL, "method full trains the weights, which base_dtype %s would pack", c->base_dtype);
    if (loftq && !packs && c->reference_model == NULL)
        return bal_fail(BAL_EINVAL,
                        "init loftq makes up for what packing loses: give base_dtype nf4 (or another type), "
                        "or for a GGUF file in blocks its weights in full as reference_model");
    if (c->reference_model != NULL && (!loftq || packs))
        return bal_fail(BAL_EINVAL, "reference_model is for init loftq on a file that is packed already (base_dtype "
                                    "file)");
    if (c->loftq_iter > 0 && (t->full || !train_packs_with_start(c) || c->reference_model != NULL))
        return bal_fail(BAL_EINVAL, "loftq_iter is for init loftq or pissa with base_dtype");
    return BAL_OK;
}

static void say(const trainer *t, const bal_pack_report *r)
{
    if (r->n_packed > 0)
        bal_log_line(t->log, BAL_LOG_INFO, "base      packed as %s: %zu matrices, %.1f -> %.1f MiB%s",
                     bal_dtype_name(t->model->base.type), r->n_packed, r->bytes_before / 1048576.0,
                     r->bytes_after / 1048576.0,
                     r->packed_before ? "; the file's own weights are in blocks, so that this loses twice" : "");
    if (r->n_left > 0)
        bal_log_line(t->log, BAL_LOG_WARN, "%zu matrices stay as they are: their rows are no whole blocks (%s)",
                     r->n_left, r->left);
    if (t->model->base.start != NULL)
        bal_log_line(t->log, BAL_LOG_INFO,
                     "          start %s: the error of the weights is %.2f %%, of packing alone %.2f %%",
                     t->model->base.start, 100 * r->error, 100 * r->plain);
}

bal_status train_load_base(trainer *t)
{
    const train_config *c = t->config;
    const char *from = t->resume_from != NULL ? t->resume_from : c->adapter;
    bal_pack_report r;
    bal_dtype type;
    char note[256] = "";
    bal_status status = BAL_OK;
    if (from != NULL)
        BAL_TRY(bal_model_load_base(t->model, from, note, sizeof note));
    if (note[0] != '\0')
        bal_log_line(t->log, BAL_LOG_INFO, "%s", note);
    if (is(c->base_dtype, "file") || t->model->base.type != BAL_DTYPE_COUNT || t->resume_from != NULL)
        goto out;
    if (c->adapter == NULL && c->init_adapter == NULL && train_packs_with_start(c))
        goto out; /* with the adapter */
    (void)bal_pack_parse(c->base_dtype, &type);
    BAL_TRY(bal_model_pack(t->model, type, &r));
    say(t, &r);
out:
    return status;
}

static bal_status start_from_reference(trainer *t, bal_pack_report *r)
{
    bal_model *reference = NULL;
    bal_status status = bal_model_load(&reference, t->config->reference_model);
    if (status == BAL_OK)
        status = bal_model_start_from(t->model, reference, t->adapter, r);
    bal_model_free(reference);
    return status;
}

bal_status train_packed_adapter(trainer *t, const bal_adapter_config *config)
{
    const train_config *c = t->config;
    bal_adapter_config plain = *config;
    bal_pack_report r;
    bal_dtype type = BAL_DTYPE_COUNT;
    bal_status status;
    bool loftq = is(c->init, "loftq");
    size_t rounds = c->loftq_iter > 0 ? (size_t)c->loftq_iter : loftq ? LOFTQ_ROUNDS : PISSA_ROUNDS;
    if (!is(bal_method_of(config)->name, "lora"))
        return bal_fail(BAL_EINVAL, "init %s on a packed base is for LoRA's factors, not for %s", c->init,
                        bal_method_of(config)->title);
    (void)snprintf(plain.init, sizeof plain.init, "lora");
    BAL_TRY(bal_adapter_new(&t->adapter, &plain, t->model->modules, t->model->n_modules, (uint64_t)c->seed, true));
    if (c->reference_model != NULL) {
        BAL_TRY(start_from_reference(t, &r));
    } else {
        (void)bal_pack_parse(c->base_dtype, &type);
        BAL_TRY(
            bal_model_pack_start(t->model, type, loftq ? BAL_PACKED_LOFTQ : BAL_PACKED_PISSA, rounds, t->adapter, &r));
    }
    say(t, &r);
out:
    return status;
}

bal_status train_save_base(const trainer *t, const char *dir)
{
    bal_adapter *a = t->adapter;
    char init[sizeof a->config.init];
    bal_status status = bal_model_save_base(t->model, dir);
    if (status != BAL_OK || t->model->base.start == NULL)
        return status;
    char *over = bal_path_join(dir, "over_base");
    if (over == NULL)
        return BAL_ENOMEM;
    memcpy(init, a->config.init, sizeof init);
    (void)snprintf(a->config.init, sizeof a->config.init,
                   "lora"); /* over the packed matrices the pair is a plain LoRA */
    status = bal_adapter_save(a, over);
    memcpy(a->config.init, init, sizeof init);
    bal_free(over);
    return status;
}
