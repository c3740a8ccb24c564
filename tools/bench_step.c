/* One optimiser step of LoRA or BA-LoRA on one micro-batch: forward, losses, backward, clipping, AdamW; no data
 * loading.  Counted work: 4PT for the frozen products (forward and input gradients), 2PT more with a teacher; P as
 * bal_bench_matrix_parameters(), T real tokens.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/io/json.h"
#include "lib/io/jsonl.h"
#include "lib/model/batch.h"
#include "lib/optim/step.h"
#include "tools/bench.h"

#include <math.h>
#include <string.h>

typedef struct bench_step {
    bal_model *model;
    bal_adapter *adapter;
    bal_batch batch;
    bal_step step;
    bal_step_result last;
    double first_loss;
    size_t n_done, longest;
} bench_step;

double bal_bench_matrix_parameters(const bal_model *m)
{
    double p = (double)m->head.w.rows * (double)m->head.w.cols;
    for (size_t i = 0; i < m->config.n_layers; i++)
        for (size_t s = 0; s < BAL_SLOT_COUNT; s++)
            p += (double)m->blocks[i].linear[s].w.rows * (double)m->blocks[i].linear[s].w.cols;
    return p;
}

/* Made-up text: the time does not depend on which tokens they are. */
static bal_status fill_random(bench_step *b, const bal_bench_config *c)
{
    size_t n = (size_t)c->tokens, unlabelled = (size_t)((double)n * (1 - c->labelled));
    int32_t *ids = bal_alloc(n, sizeof *ids), *labels = bal_alloc(n, sizeof *labels);
    bal_status status = ids == NULL || labels == NULL
                            ? BAL_ENOMEM
                            : bal_batch_init(&b->batch, n * (size_t)c->sequences, (size_t)c->sequences);
    bal_rng rng;
    bal_rng_init(&rng, 0, "bench");
    for (int64_t s = 0; s < c->sequences && status == BAL_OK; s++) {
        for (size_t i = 0; i < n; i++) {
            ids[i] = (int32_t)bal_rng_below(&rng, b->model->config.vocab);
            labels[i] = i < unlabelled ? BAL_LABEL_NONE : ids[i];
        }
        status = bal_batch_add(&b->batch, ids, labels, n);
    }
    b->longest = n;
    bal_free(ids);
    bal_free(labels);
    return status;
}

/* The list `key` of a row as whole numbers, at most max of them. */
static bal_status read_ids(const bal_lines *lines, const cJSON *row, const char *key, int32_t *out, size_t max,
                           size_t *n)
{
    const cJSON *list = bal_json_member(row, key), *item = NULL;
    *n = 0;
    if (!cJSON_IsArray(list))
        return bal_fail(BAL_EFORMAT, "%s line %zu: list \"%s\" is missing", bal_lines_path(lines),
                        bal_lines_number(lines), key);
    cJSON_ArrayForEach(item, list)
    {
        if (!cJSON_IsNumber(item) || item->valuedouble != floor(item->valuedouble) || fabs(item->valuedouble) > 1e9)
            return bal_fail(BAL_EFORMAT, "%s line %zu: \"%s\" must hold whole numbers", bal_lines_path(lines),
                            bal_lines_number(lines), key);
        if (*n < max)
            out[(*n)++] = (int32_t)item->valuedouble;
    }
    return BAL_OK;
}

enum { MAX_ROWS = 65536 };

static bal_status fill_rows(bench_step *b, const bal_bench_config *c, size_t max_rows)
{
    size_t max = (size_t)c->tokens, n = 0, n_labels = 0;
    int32_t *ids = bal_alloc(max, sizeof *ids), *labels = bal_alloc(max, sizeof *labels);
    bal_lines *lines = NULL;
    cJSON *row = NULL;
    bal_status status = ids == NULL || labels == NULL ? BAL_ENOMEM : bal_lines_open(&lines, c->rows);
    if (status != BAL_OK)
        goto out;
    BAL_TRY(bal_batch_init(&b->batch, max * max_rows, max_rows));
    while (b->batch.n_seqs < max_rows) {
        BAL_TRY(bal_jsonl_next(lines, &row));
        if (row == NULL)
            break;
        BAL_TRY(read_ids(lines, row, "input_ids", ids, max, &n));
        BAL_TRY(read_ids(lines, row, "labels", labels, max, &n_labels));
        if (n != n_labels) {
            status = bal_fail(BAL_EFORMAT, "%s line %zu: %zu ids but %zu labels", c->rows, bal_lines_number(lines), n,
                              n_labels);
            goto out;
        }
        BAL_TRY(bal_batch_add(&b->batch, ids, labels, n));
        b->longest = n > b->longest ? n : b->longest;
        cJSON_Delete(row);
        row = NULL;
    }
    if (b->batch.n_seqs == 0)
        status = bal_fail(BAL_EFORMAT, "%s holds no rows", c->rows);
out:
    cJSON_Delete(row);
    bal_lines_close(lines);
    bal_free(ids);
    bal_free(labels);
    return status;
}

/* How many rows the file has, at most `most`. */
static bal_status count_rows(const char *path, size_t most, size_t *n)
{
    bal_lines *lines = NULL;
    const char *text = NULL;
    size_t length = 0;
    *n = 0;
    bal_status status = bal_lines_open(&lines, path);
    while (status == BAL_OK && *n < most) {
        status = bal_lines_next(lines, &text, &length);
        if (text == NULL)
            break;
        *n += length > 0;
    }
    bal_lines_close(lines);
    return status;
}

static bal_status make_adapter(bench_step *b, const bal_bench_config *c)
{
    char all[] = "all-linear";
    char *targets[] = {all};
    bal_adapter_config config = {.r = (size_t)c->r,
                                 .lora_alpha = (double)c->r,
                                 .target_modules = targets,
                                 .n_target_modules = 1,
                                 .task_type = "CAUSAL_LM"};
    if (strlen(c->init) >= sizeof config.init)
        return bal_fail(BAL_EINVAL, "--init '%.60s' is not known", c->init);
    memcpy(config.init, c->init, strlen(c->init) + 1);
    bal_status status = bal_adapter_new(&b->adapter, &config, b->model->modules, b->model->n_modules, 0, true);
    return status != BAL_OK ? status : bal_model_attach(b->model, b->adapter);
}

/* The rows that the first step computed stay where they are. */
static bal_status load_teacher(void *context, size_t index, const bal_batch *batch, real_t *final, bool *found)
{
    const bench_step *b = context;
    (void)index;
    (void)batch;
    (void) final;
    *found = b->n_done > 1;
    return BAL_OK;
}

static bal_status save_teacher(void *context, size_t index, const bal_batch *batch, real_t *final)
{
    (void)context;
    (void)index;
    (void)batch;
    (void) final;
    return BAL_OK;
}

static bal_status prepare(bench_step *b, const bal_bench_config *c, size_t max_rows)
{
    bool terms = strcmp(c->method, "ba-lora-nlg") == 0;
    bal_status status;
    BAL_TRY(bal_model_load(&b->model, c->model));
    BAL_TRY(make_adapter(b, c));
    BAL_TRY(c->rows != NULL ? fill_rows(b, c, max_rows) : fill_random(b, c));
    bal_batch_finish(&b->batch, false);
    bal_step_config config = {
        .loss = {.temperature = 2, .top_k_entropy = 20, .svd_top_k = 10},
        .adamw = {.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
        .pass = {.max_tokens = b->batch.n_tokens,
                 .max_seqs = b->batch.n_seqs,
                 .max_seq_len = b->longest,
                 .checkpoint_activations = c->checkpoint_activations},
        .max_grad_norm = 1,
        .share_prefix = c->share_prefix,
    };
    if (strcmp(c->compute, "bf16") == 0)
        config.pass.compute = config.loss.compute = BAL_COMPUTE_BF16;
    if (c->teacher_cached)
        config.teacher_rows = (bal_teacher_store){b, load_teacher, save_teacher};
    if (terms) {
        config.loss.lambda_consistency = 0.025;
        config.loss.lambda_diversity = 0.005;
        config.loss.lambda_svd = 0.005;
    }
    status = bal_step_init(&b->step, b->model, &b->adapter->params, &config);
out:
    return status;
}

static bal_status run_once(void *context)
{
    bench_step *b = context;
    bal_batch *micro[] = {&b->batch};
    const bal_loss_config *loss = &b->step.config.loss;
    const bal_loss_weights weights = {loss->lambda_consistency, loss->lambda_diversity, loss->lambda_svd};
    const double lr[] = {2e-5, 2e-5};
    bal_status status = bal_step_run(&b->step, micro, 1, ++b->n_done, lr, &weights, &b->last);
    if (b->n_done == 1)
        b->first_loss = b->last.values.total;
    return status;
}

bal_status bal_bench_step(cJSON *out, const bal_bench_config *c, bool sequences_given)
{
    bench_step b = {.model = NULL};
    bal_bench_times times;
    size_t max_rows = 0;
    bal_status status;
    if (c->rows != NULL)
        BAL_TRY(count_rows(c->rows, sequences_given ? (size_t)c->sequences : MAX_ROWS, &max_rows));
    BAL_TRY(prepare(&b, c, max_rows));
    BAL_TRY(bal_bench_measure(&times, c, run_once, &b));
    double tokens = (double)bal_batch_text_tokens(&b.batch), work = 4 * bal_bench_matrix_parameters(b.model) * tokens;
    if (b.step.teacher && !c->teacher_cached)
        work += work / 2;
    (void)cJSON_AddStringToObject(out, "method", c->method);
    (void)cJSON_AddStringToObject(out, "init", c->init);
    (void)cJSON_AddStringToObject(out, "compute", c->compute);
    if (strcmp(c->compute, "bf16") == 0)
        (void)cJSON_AddBoolToObject(out, "bf16_native", bal_bf16_is_native());
    bal_bench_report(out, &times, tokens, "tokens/s", "tokens_per_second", work);
    (void)cJSON_AddNumberToObject(out, "tokens", tokens);
    (void)cJSON_AddNumberToObject(out, "shared_tokens", (double)b.batch.n_shared);
    (void)cJSON_AddNumberToObject(out, "sequences", (double)b.batch.n_seqs);
    (void)cJSON_AddNumberToObject(out, "labelled_rows", (double)b.batch.n_rows);
    (void)cJSON_AddNumberToObject(out, "r", (double)c->r);
    (void)cJSON_AddNumberToObject(out, "first_loss", b.first_loss);
    (void)cJSON_AddNumberToObject(out, "last_loss", b.last.values.total);
out:
    bal_step_dispose(&b.step);
    bal_batch_dispose(&b.batch);
    bal_adapter_free(b.adapter);
    bal_model_free(b.model);
    return status;
}
