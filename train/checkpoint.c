/* Checkpoints: out/checkpoint-N, written beside and renamed, so that each is complete or absent.
 *   adapter_config.json, adapter_model.safetensors   the rank-r pair (not for method full)
 *   balora/initial/                                  A0, B0 of a residual start
 *   balora/trainer_state.safetensors                 AdamW's moments; all weights for method full; what the method carries
 *                                                    from step to step (AdaLoRA's scores and ranks)
 *   balora/state.json                                step, position in the data, random state, best validation, run
 *   balora/recipe.json                               a recipe that makes this run
 * SPDX-License-Identifier: Apache-2.0 */
#include "train/train.h"

#include "lib/base/clock.h"
#include "lib/base/file.h"
#include "lib/base/mem.h"
#include "lib/io/json.h"
#include "lib/io/safetensors.h"
#include "lib/model/pack.h"

#include <dirent.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { STATE_MAX_BYTES = 1 << 20, MAX_CHECKPOINTS = 4096 };

static bool is(const char *a, const char *b)
{
    return a != NULL && strcmp(a, b) == 0;
}

static bool checkpoint_step(const char *name, int64_t *step)
{
    return bal_starts_with(name, "checkpoint-") &&
           bal_parse_i64(name + strlen("checkpoint-"), 0, INT64_MAX, step) == BAL_OK;
}

/* Steps of the checkpoints in out, rising; *n of them (at most MAX_CHECKPOINTS). */
static void list_checkpoints(const char *out, int64_t *steps, size_t *n)
{
    *n = 0;
    DIR *dir = opendir(out);
    if (dir == NULL)
        return;
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        int64_t step = 0;
        if (!checkpoint_step(e->d_name, &step) || *n == MAX_CHECKPOINTS)
            continue;
        size_t at = (*n)++;
        for (; at > 0 && steps[at - 1] > step; at--)
            steps[at] = steps[at - 1];
        steps[at] = step;
    }
    (void)closedir(dir);
}

static char *checkpoint_path(const char *out, const char *prefix, int64_t step)
{
    char name[64];
    (void)snprintf(name, sizeof name, "%scheckpoint-%" PRId64, prefix, step);
    return bal_path_join(out, name);
}

static bal_status is_checkpoint(const char *dir)
{
    char *state = bal_path_join(dir, "balora/state.json");
    bool there = state != NULL && bal_file_exists(state);
    bal_free(state);
    return there ? BAL_OK
                 : bal_fail(BAL_ENOENT, "%s is no checkpoint of this program: balora/state.json is not there", dir);
}

bal_status checkpoint_find(trainer *t)
{
    const char *resume = t->config->resume;
    if (is(resume, "none"))
        return BAL_OK;
    if (!is(resume, "auto")) {
        bal_status status = is_checkpoint(resume);
        if (status == BAL_OK && (t->resume_from = bal_strdup(resume)) == NULL)
            status = BAL_ENOMEM;
        return status;
    }
    int64_t *steps = bal_alloc(MAX_CHECKPOINTS, sizeof *steps);
    size_t n = 0;
    if (steps == NULL)
        return BAL_ENOMEM;
    list_checkpoints(t->config->out, steps, &n);
    bal_status status = BAL_OK;
    if (n > 0 && (t->resume_from = checkpoint_path(t->config->out, "", steps[n - 1])) == NULL)
        status = BAL_ENOMEM;
    bal_free(steps);
    return status != BAL_OK || t->resume_from == NULL ? status : is_checkpoint(t->resume_from);
}

/* Entries of an earlier run in --out. */
static bool ours(const char *name)
{
    static const char *const names[] = {
        "adapter_config.json", "adapter_model.safetensors", "balora", "pissa", "over_base", "best",
        "model.safetensors"};
    int64_t step = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return checkpoint_step(name, &step) || bal_starts_with(name, ".checkpoint-");
}

static bal_status clear_out(trainer *t, DIR *dir)
{
    const char *out = t->config->out;
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        if (!ours(e->d_name))
            continue;
        if (!t->config->overwrite && !bal_starts_with(e->d_name, ".checkpoint-"))
            return bal_fail(BAL_EINVAL,
                            "%s holds a run already (%s); --resume auto continues it, --overwrite starts anew", out,
                            e->d_name);
        char *path = bal_path_join(out, e->d_name);
        bal_status status = path == NULL ? BAL_ENOMEM : bal_folder_exists(path) ? bal_folder_remove(path) : BAL_OK;
        if (status == BAL_OK && !bal_folder_exists(path))
            (void)unlink(path);
        bal_free(path);
        if (status != BAL_OK)
            return status;
    }
    return BAL_OK;
}

bal_status checkpoint_prepare_out(trainer *t)
{
    bal_status status = BAL_OK;
    char *probe = NULL;
    t->made_out = !bal_folder_exists(t->config->out);
    BAL_TRY(bal_folder_make(t->config->out));
    DIR *dir = t->resume_from == NULL ? opendir(t->config->out) : NULL;
    if (dir != NULL) {
        status = clear_out(t, dir);
        (void)closedir(dir);
        BAL_TRY(status);
    }
    probe = bal_path_join(t->config->out, ".balora-probe");
    if (probe == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_file_replace(probe, "", 0));
    (void)unlink(probe);
out:
    bal_free(probe);
    return status;
}

/* The records as they will be seen, so that a changed data file is noticed. */
static void data_hash(const trainer *t, char out[65])
{
    bal_sha256_hex(t->data.ids, t->data.n_tokens * sizeof *t->data.ids, out);
}

static bal_status put_state(const trainer *t, bal_buf *b)
{
    bal_status status = BAL_OK;
    const train_state *s = &t->state;
    char hash[65];
    data_hash(t, hash);
    BAL_TRY(bal_buf_printf(b,
                           "{\"format\":1,\"step\":%" PRIu64 ",\"max_steps\":%" PRIu64 ",\"position\":%" PRIu64
                           ",\"updates\":%" PRIu64 ",\"skipped_steps\":%" PRIu64 ",\"undefined_spectral\":%" PRIu64
                           ",\"tokens\":%" PRIu64 ",\"rows\":%" PRIu64 ",\"micro_batch_size\":%zu,\"parameters\":%zu,",
                           s->step, t->max_steps, s->position, t->step.adamw.t, s->skipped_steps, s->undefined_spectral,
                           s->tokens, s->rows, t->micro_size, t->params->n));
    BAL_TRY(bal_buf_text(b, "\"seconds\":"));
    BAL_TRY(bal_json_put_f64(b, s->seconds));
    BAL_TRY(bal_buf_text(b, ",\"best_validation\":"));
    BAL_TRY(bal_json_put_f64(b, s->best_validation));
    BAL_TRY(bal_buf_printf(
        b, ",\"best_step\":%" PRIu64 ",\"evaluations_without_gain\":%" PRIu64 ",\"run\":\"%s\",\"data_sha256\":\"%s\"",
        s->best_step, s->evaluations_without_gain, t->metrics.uuid, hash));
    const bal_rng *rng = bal_pass_rng(t->step.pass);
    BAL_TRY(bal_buf_printf(b, ",\"dropout\":\"%016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %016" PRIx64 "\"}\n",
                           rng->s[0], rng->s[1], rng->s[2], rng->s[3]));
out:
    return status;
}

static bal_status write_text(const char *dir, const char *name, const char *text, size_t n)
{
    char *path = bal_path_join(dir, name);
    bal_status status = path == NULL ? BAL_ENOMEM : bal_file_replace(path, text, n);
    bal_free(path);
    return status;
}

static bal_status write_tensors(const trainer *t, const char *dir)
{
    bal_status status = BAL_OK;
    bal_safetensors_writer *w = NULL;
    const bal_adamw *o = &t->step.adamw;
    char *path = bal_path_join(dir, "trainer_state.safetensors");
    if (path == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_safetensors_writer_new(&w));
    BAL_TRY(bal_safetensors_writer_add_real(w, "adamw.m", 1, &o->n, o->m));
    BAL_TRY(bal_safetensors_writer_add_real(w, "adamw.v", 1, &o->n, o->v));
    if (t->adapter != NULL && t->adapter->n_history > 0)
        BAL_TRY(bal_safetensors_writer_add_real(w, "method", 1, &t->adapter->n_history, t->adapter->history));
    if (t->full)
        BAL_TRY(bal_safetensors_writer_add_real(w, "values", 1, &t->params->n, t->params->values));
    BAL_TRY(bal_safetensors_writer_commit(w, path));
out:
    bal_safetensors_writer_free(w);
    bal_free(path);
    return status;
}

static bal_status write_own(const trainer *t, const char *dir)
{
    bal_status status = BAL_OK;
    bal_buf state = {0};
    char *own = bal_path_join(dir, "balora"), *initial = bal_path_join(dir, "balora/initial");
    if (own == NULL || initial == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_folder_make(own));
    if (!t->full)
        BAL_TRY(bal_adapter_save(t->adapter, dir));
    if (t->residual)
        BAL_TRY(bal_adapter_save_initial(t->adapter, initial));
    if (!t->full)
        BAL_TRY(bal_model_save_base(t->model, dir));
    BAL_TRY(write_tensors(t, own));
    const char *recipe = bal_options_recipe(t->options);
    BAL_TRY(write_text(own, "recipe.json", recipe, strlen(recipe)));
    BAL_TRY(put_state(t, &state));
    BAL_TRY(write_text(own, "state.json", bal_buf_cstr(&state), state.len));
out:
    bal_buf_dispose(&state);
    bal_free(own);
    bal_free(initial);
    return status;
}

static void remove_old(const trainer *t)
{
    int64_t *steps = bal_alloc(MAX_CHECKPOINTS, sizeof *steps);
    size_t n = 0, keep = (size_t)t->config->save_total_limit;
    if (steps == NULL)
        return;
    list_checkpoints(t->config->out, steps, &n);
    for (size_t i = 0; i + keep < n; i++) {
        char *old = checkpoint_path(t->config->out, "", steps[i]);
        if (old != NULL && bal_folder_remove(old) != BAL_OK)
            bal_log_line(t->log, BAL_LOG_WARN, "%s", bal_error_message());
        bal_free(old);
    }
    bal_free(steps);
}

bal_status checkpoint_write(trainer *t)
{
    bal_status status = BAL_OK;
    char *beside = checkpoint_path(t->config->out, ".", (int64_t)t->state.step);
    char *path = checkpoint_path(t->config->out, "", (int64_t)t->state.step);
    if (beside == NULL || path == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(metrics_flush(t, true)); /* the curve must reach at least to the checkpoint */
    BAL_TRY(bal_folder_remove(beside));
    BAL_TRY(write_own(t, beside));
    BAL_TRY(bal_folder_replace(beside, path));
    remove_old(t);
    t->last_save = bal_clock_seconds();
out:
    if (status != BAL_OK && beside != NULL) {
        char why[1024];
        (void)snprintf(why, sizeof why, "%s", bal_error_message());
        (void)bal_folder_remove(beside); /* the checkpoints before it stay as they are */
        (void)bal_fail(status, "%s", why);
    }
    bal_free(beside);
    bal_free(path);
    return status;
}

static bal_status save_trained(trainer *t, const char *dir)
{
    if (!t->full) {
        bal_status status = bal_adapter_write_final(t->adapter, dir);
        return status == BAL_OK ? train_save_base(t, dir) : status;
    }
    bal_dtype dtype = is(t->config->dtype, "bf16")  ? BAL_DTYPE_BF16
                      : is(t->config->dtype, "f16") ? BAL_DTYPE_F16
                                                    : BAL_DTYPE_F32;
    return bal_model_save(t->model, dir, dtype);
}

/* A model from scratch has no folder that its tokenizer could be copied from. */
static bal_status copy_tokenizer(const trainer *t, const char *dir)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"};
    const char *from = t->config->tokenizer;
    if (!is(t->command, "pretrain") || from == NULL)
        return BAL_OK;
    bal_status status = BAL_OK;
    bal_buf text = {0};
    char *folder = bal_folder_exists(from) ? bal_strdup(from) : bal_path_dir(from);
    if (folder == NULL)
        BAL_TRY(BAL_ENOMEM);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool given = i == 0 && !bal_folder_exists(from);
        char *path = given ? bal_strdup(from) : bal_path_join(folder, names[i]);
        bal_buf_clear(&text);
        if (path == NULL)
            status = BAL_ENOMEM;
        else if (bal_file_exists(path))
            status = bal_file_read(path, (size_t)1 << 30, &text);
        if (status == BAL_OK && text.len > 0)
            status = write_text(dir, names[i], bal_buf_cstr(&text), text.len);
        bal_free(path);
        BAL_TRY(status);
    }
out:
    bal_buf_dispose(&text);
    bal_free(folder);
    return status;
}

bal_status checkpoint_finish(trainer *t)
{
    bal_status status = BAL_OK;
    char run[96];
    char *own = bal_path_join(t->config->out, "balora");
    if (own == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(save_trained(t, t->config->out));
    BAL_TRY(copy_tokenizer(t, t->config->out));
    BAL_TRY(bal_folder_make(own));
    const char *recipe = bal_options_recipe(t->options);
    BAL_TRY(write_text(own, "recipe.json", recipe, strlen(recipe)));
    int n = snprintf(run, sizeof run, "{\"run\":\"%s\",\"step\":%" PRIu64 "}\n", t->metrics.uuid, t->state.step);
    BAL_TRY(write_text(own, "run.json", run, (size_t)n));
    if (t->metrics.store != NULL)
        BAL_TRY(bal_run_artifact(t->metrics.store, t->metrics.run, t->config->out, t->full ? "model" : "adapter"));
out:
    bal_free(own);
    return status;
}

bal_status checkpoint_write_best(trainer *t)
{
    bal_status status = BAL_OK;
    char *beside = bal_path_join(t->config->out, ".checkpoint-best"), *best = bal_path_join(t->config->out, "best");
    if (beside == NULL || best == NULL)
        BAL_TRY(BAL_ENOMEM);
    BAL_TRY(bal_folder_remove(beside));
    BAL_TRY(bal_folder_make(beside));
    BAL_TRY(save_trained(t, beside));
    BAL_TRY(copy_tokenizer(t, beside));
    BAL_TRY(bal_folder_replace(beside, best));
out:
    bal_free(beside);
    bal_free(best);
    return status;
}
