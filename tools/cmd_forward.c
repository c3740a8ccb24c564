/* balora forward: logits, hidden states, losses and gradients of given token ids, as safetensors, to be laid beside
 * the numbers of other programs.  SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/str.h"
#include "lib/io/json.h"
#include "lib/io/options.h"
#include "lib/io/safetensors.h"
#include "lib/loss/lm_loss.h"
#include "lib/loss/loss_options.h"
#include "lib/model/masked.h"
#include "lib/model/pack.h"
#include "lib/model/pass.h"
#include "lib/text/tokenizer.h"
#include "tools/commands.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MAX_INPUT_BYTES = 1 << 28 };

typedef struct forward_config {
    const char *model, *input, *out, *adapter, *initial_adapter;
    bool hidden_states, grad, pll;
    int64_t mask_id;
    bal_loss_options loss;
} forward_config;

#define PATH_ROW(NAME, FIELD, GROUP, HELP)                                                                             \
    {                                                                                                                  \
        .name = NAME, .type = BAL_OPTION_PATH, .offset = offsetof(forward_config, FIELD), .group = GROUP, .help = HELP \
    }
#define FLAG_ROW(NAME, FIELD, GROUP, HELP)                                                                             \
    {                                                                                                                  \
        .name = NAME, .type = BAL_OPTION_FLAG, .offset = offsetof(forward_config, FIELD), .group = GROUP, .help = HELP \
    }

static const bal_option k_options[] = {
    PATH_ROW("model", model, "Files", "Hugging Face folder or GGUF file"),
    PATH_ROW("input", input, "Files",
             "JSON: {\"input_ids\": [[...], ...], \"labels\": [[...], ...]}, rows of any lengths; for encoders also "
             "token_type_ids"),
    PATH_ROW("out", out, "Files", "safetensors file to write"),
    PATH_ROW("adapter", adapter, "Files", "adapter folder (PEFT)"),
    PATH_ROW("initial_adapter", initial_adapter, "Files",
             "A0, B0 of a residual start (PiSSA): the student is W + s(BA - B0 A0)"),
    FLAG_ROW("hidden_states", hidden_states, "Output", "also hidden.0 .. hidden.L"),
    FLAG_ROW("grad", grad, "Output", "also the gradient of the total loss: of the adapter, without one of all weights"),
    FLAG_ROW("pll", pll, "Output",
             "also pll: of an encoder, the log-probability of each token with it alone masked (pseudo-log-likelihood)"),
    {.name = "mask_id",
     .type = BAL_OPTION_INT,
     .offset = offsetof(forward_config, mask_id),
     .default_text = "-1",
     .min = -1,
     .max = 2147483647,
     .group = "Output",
     .help = "token that masks, for --pll; -1: the tokenizer's [MASK] or <mask>"},
    BAL_LOSS_OPTION_ROWS(offsetof(forward_config, loss)),
};

static const bal_preset k_presets[] = {
    {"ba-lora-nlg", "{" BAL_LOSS_PRESET_NLG "}"},
    {"bias-aware-2024", "{" BAL_LOSS_PRESET_BIAS_AWARE_2024 "}"},
    {"pissa", "{" BAL_LOSS_PRESET_OFF "}"},
    {"lora", "{" BAL_LOSS_PRESET_OFF "}"},
};

static const bal_command k_command = {
    .name = "forward",
    .usage = "--model PATH --input IN.json --out OUT.safetensors [options]",
    .summary = "logits, hidden states, losses and gradients of given token ids",
    .description =
        "Writes, as F32: logits (rows end to end), hidden.0 .. hidden.L (the last after the final norm),\n"
        "loss.task|consistency|diversity|spectral|total (the terms before their weights), grad.NAME,\n"
        "teacher.logits (when the consistency term is on).  Labels are not shifted; -100 is none.\n"
        "Of an encoder (BERT, RoBERTa, DistilBERT, ELECTRA): the logits of its head for masked tokens, if the\n"
        "files have one; hidden.0 after the norm of the embeddings; with --pll pll, tokens end to end.\n",
    .options = k_options,
    .n_options = sizeof k_options / sizeof k_options[0],
    .presets = k_presets,
    .n_presets = sizeof k_presets / sizeof k_presets[0],
};

typedef struct forward_job {
    const forward_config *config;
    bal_loss_config loss_config;
    bool unshifted, labelled, teacher;
    bal_model *model;
    bal_adapter *adapter;
    bal_params *params; /* whose gradients are asked for; NULL: none */
    bal_batch batch;
    bal_pass *pass;
    bal_lm_loss *loss;
    bal_loss_values values;
    real_t *hidden; /* (L + 1) x T x D */
    real_t *pll;    /* T */
    bool headless;  /* an encoder whose files have no head: no logits */
    real_t scalars[5];
} forward_job;

/* ---- input ---- */

static bal_status read_row(const cJSON *row, const char *what, size_t index, int32_t *out, size_t n)
{
    const cJSON *item = NULL;
    size_t i = 0;
    cJSON_ArrayForEach(item, row)
    {
        double v = item->valuedouble;
        if (!cJSON_IsNumber(item) || !(v >= -2147483648.0 && v <= 2147483647.0) || v != floor(v))
            return bal_fail(BAL_EFORMAT, "element %zu of row %zu of %s is not a whole number", i, index, what);
        if (i < n)
            out[i] = (int32_t)v;
        i++;
    }
    if (i != n)
        return bal_fail(BAL_EFORMAT, "row %zu of %s has %zu elements, but %zu tokens", index, what, i, n);
    return BAL_OK;
}

static bal_status check_labels(const forward_job *j, const int32_t *labels, size_t row, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (labels[i] != BAL_LABEL_NONE && (labels[i] < 0 || (size_t)labels[i] >= j->model->config.vocab))
            return bal_fail(BAL_EFORMAT, "label %d (row %zu, element %zu) is neither -100 nor a token below %zu",
                            labels[i], row, i, j->model->config.vocab);
    return BAL_OK;
}

static bal_status fill_batch(forward_job *j, const cJSON *ids, const cJSON *types, const cJSON *labels, size_t longest)
{
    bal_status status = BAL_OK;
    const cJSON *row = NULL, *label_row = labels == NULL ? NULL : labels->child;
    const cJSON *type_row = types == NULL ? NULL : types->child;
    size_t index = 0;
    int32_t *tokens = bal_alloc(longest, sizeof *tokens), *values = bal_alloc(longest, sizeof *values);
    if (tokens == NULL || values == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    bal_batch_clear(&j->batch);
    cJSON_ArrayForEach(row, ids)
    {
        size_t n = (size_t)cJSON_GetArraySize(row);
        BAL_TRY(read_row(row, "input_ids", index, tokens, n));
        if (labels != NULL) {
            if (!cJSON_IsArray(label_row)) {
                status = bal_fail(BAL_EFORMAT, "labels has no row %zu of numbers, but input_ids does", index);
                goto out;
            }
            BAL_TRY(read_row(label_row, "labels", index, values, n));
            BAL_TRY(check_labels(j, values, index, n));
            label_row = label_row->next;
        }
        BAL_TRY(bal_batch_add(&j->batch, tokens, labels == NULL ? NULL : values, n));
        if (types != NULL) {
            if (!cJSON_IsArray(type_row)) {
                status = bal_fail(BAL_EFORMAT, "token_type_ids has no row %zu of numbers, but input_ids does", index);
                goto out;
            }
            BAL_TRY(read_row(type_row, "token_type_ids", index, values, n));
            bal_batch_types(&j->batch, values);
            type_row = type_row->next;
        }
        index++;
    }
    bal_batch_finish(&j->batch, j->unshifted);
out:
    bal_free(tokens);
    bal_free(values);
    return status;
}

/* Tokens of a row.  Linear scaling by a factor makes room for that many times the positions; dynamic scaling is for
 * sequences of any length. */
static size_t context_of(const bal_model_config *c)
{
    double longest = (double)c->max_positions;
    if (c->rope.kind == BAL_ROPE_DYNAMIC || c->max_positions == 0)
        return SIZE_MAX;
    if (c->rope.kind == BAL_ROPE_LINEAR && c->rope.factor > 1)
        longest *= c->rope.factor;
    return longest < 1e9 ? (size_t)longest : SIZE_MAX;
}

static bal_status read_input(forward_job *j)
{
    cJSON *json = NULL;
    const cJSON *row = NULL;
    size_t total = 0, longest = 0, n = 0;
    bal_status status;
    status = bal_json_read(&json, j->config->input, MAX_INPUT_BYTES);
    if (status != BAL_OK)
        return status; /* names the file already */
    const cJSON *ids = bal_json_member(json, "input_ids"), *labels = bal_json_member(json, "labels");
    const cJSON *types = bal_json_member(json, "token_type_ids");
    if (types != NULL && !j->model->config.masked) {
        status = bal_fail(BAL_EINVAL, "token_type_ids are for encoders; '%s' is a decoder", j->config->model);
        goto out;
    }
    if (labels != NULL && j->model->config.masked) {
        status = bal_fail(BAL_EUNSUPPORTED, "losses of an encoder ('%s') are not computed: leave the labels away",
                          j->config->model);
        goto out;
    }
    if (!cJSON_IsArray(ids) || (labels != NULL && !cJSON_IsArray(labels))) {
        status = bal_fail(BAL_EFORMAT, "input_ids (and labels, if given) must be an array of arrays of numbers");
        goto out;
    }
    cJSON_ArrayForEach(row, ids)
    {
        if (!cJSON_IsArray(row) || row->child == NULL) {
            status = bal_fail(BAL_EFORMAT, "row %zu of input_ids is not an array of at least one token", n);
            goto out;
        }
        size_t length = (size_t)cJSON_GetArraySize(row);
        if (length > context_of(&j->model->config)) {
            status = bal_fail(BAL_ELIMIT, "row %zu of input_ids has %zu tokens, but the model's context is %zu", n,
                              length, context_of(&j->model->config));
            goto out;
        }
        longest = length > longest ? length : longest;
        total += length;
        n++;
    }
    if (n == 0) {
        status = bal_fail(BAL_EFORMAT, "input_ids has no row");
        goto out;
    }
    if (labels != NULL && (size_t)cJSON_GetArraySize(labels) != n) {
        status = bal_fail(BAL_EFORMAT, "labels has %d rows, but input_ids %zu", cJSON_GetArraySize(labels), n);
        goto out;
    }
    j->labelled = labels != NULL;
    BAL_TRY(bal_batch_init(&j->batch, total, n));
    BAL_TRY(fill_batch(j, ids, types, labels, longest));
out:
    cJSON_Delete(json);
    return status == BAL_OK ? BAL_OK : bal_fail_note(status, "%s", j->config->input);
}

/* ---- computation ---- */

static void keep_hidden(void *context, size_t layer, const real_t *hidden, size_t n_tokens)
{
    forward_job *j = context;
    size_t n = n_tokens * j->model->config.hidden;
    memcpy(j->hidden + layer * n, hidden, n * sizeof *hidden);
}

static bal_status load(forward_job *j, const bal_log *log)
{
    bal_status status;
    char note[512] = "";
    const forward_config *c = j->config;
    BAL_TRY(bal_model_load_any(&j->model, c->model));
    if (j->model->config.masked && c->grad)
        BAL_TRY(bal_fail(BAL_EUNSUPPORTED, "gradients of an encoder ('%s') are not computed", c->model));
    if (c->adapter != NULL) {
        BAL_TRY(bal_model_load_base(j->model, c->adapter, note, sizeof note));
        if (note[0] != '\0')
            bal_log_line(log, BAL_LOG_INFO, "%s", note);
        BAL_TRY(bal_adapter_load(&j->adapter, c->adapter, c->initial_adapter, j->model->modules, j->model->n_modules,
                                 c->grad, note, sizeof note));
        if (note[0] != '\0')
            bal_log_line(log, BAL_LOG_INFO, "%s", note);
        BAL_TRY(bal_model_attach(j->model, j->adapter));
        j->params = c->grad ? &j->adapter->params : NULL;
    } else if (c->initial_adapter != NULL) {
        status = bal_fail(BAL_EINVAL, "--initial-adapter needs --adapter");
    } else if (c->grad) {
        BAL_TRY(bal_model_make_trainable(j->model));
        j->params = &j->model->params;
    }
out:
    return status;
}

static bal_status compute_losses(forward_job *j)
{
    const bal_batch *b = &j->batch;
    bal_loss_config *c = &j->loss_config;
    const bal_loss_weights weights = {c->lambda_consistency, c->lambda_diversity, c->lambda_svd};
    bal_status status;
    c->train_head = j->params == &j->model->params;
    BAL_TRY(bal_lm_loss_new(&j->loss, j->model, c, b->n_tokens));
    bal_loss_values_zero(&j->values, c);
    if (j->params != NULL)
        bal_pass_clear_dfinal(j->pass, b->n_tokens);
    BAL_TRY(bal_lm_loss_run(j->loss, b, bal_pass_final(j->pass, BAL_STUDENT),
                            j->teacher ? bal_pass_final(j->pass, BAL_TEACHER) : NULL, b->n_rows, b->n_reg_rows,
                            &weights, &j->values, j->params != NULL ? bal_pass_dfinal(j->pass) : NULL, NULL));
    bal_loss_values_finish(&j->values, &weights);
    if (j->params != NULL)
        BAL_TRY(bal_pass_backward(j->pass, b));
out:
    return status;
}

static bal_status mask_token(const forward_job *j, int32_t *out)
{
    bal_tokenizer *t = NULL;
    bal_status status = BAL_OK;
    *out = (int32_t)j->config->mask_id;
    if (*out >= 0)
        return BAL_OK;
    BAL_TRY(bal_tokenizer_load(&t, j->config->model));
    *out = bal_tokenizer_mask(t);
    if (*out < 0)
        status = bal_fail(BAL_EINVAL, "the tokenizer of '%s' has no token that masks", j->config->model);
out:
    bal_tokenizer_free(t);
    return status == BAL_OK ? BAL_OK : bal_fail_note(status, "--mask-id is not given");
}

static bal_status compute_pll(forward_job *j)
{
    const bal_batch *b = &j->batch;
    bal_masked *s = NULL;
    double *values = bal_alloc(b->n_tokens, sizeof *values);
    int32_t mask = -1;
    bal_status status;
    j->pll = bal_alloc(b->n_tokens, sizeof *j->pll);
    if (values == NULL || j->pll == NULL) {
        status = BAL_ENOMEM;
        goto out;
    }
    BAL_TRY(bal_masked_new(&s, j->model, 0, BAL_COMPUTE_F32));
    BAL_TRY(mask_token(j, &mask));
    for (size_t i = 0; i < b->n_seqs; i++) {
        size_t begin = b->seq_start[i];
        BAL_TRY(bal_masked_pll(s, b->tokens + begin, b->type + begin, b->seq_start[i + 1] - begin, NULL, 0, mask,
                               values + begin));
    }
    for (size_t t = 0; t < b->n_tokens; t++)
        j->pll[t] = (real_t)values[t];
out:
    bal_masked_free(s);
    bal_free(values);
    return status;
}

static bal_status compute(forward_job *j)
{
    const bal_batch *b = &j->batch;
    const bal_model_config *m = &j->model->config;
    bal_status status;
    j->teacher = j->labelled && j->loss_config.lambda_consistency != 0;
    const bal_pass_options options = {
        .max_tokens = b->n_tokens, .max_seqs = b->n_seqs, .backward = j->params != NULL, .teacher = j->teacher};
    BAL_TRY(bal_pass_new(&j->pass, j->model, &options));
    if (j->config->hidden_states) {
        j->hidden = bal_alloc((m->n_layers + 1) * b->n_tokens, m->hidden * sizeof *j->hidden);
        if (j->hidden == NULL) {
            status = BAL_ENOMEM;
            goto out;
        }
        bal_pass_watch(j->pass, keep_hidden, j);
    }
    BAL_TRY(bal_pass_forward(j->pass, b, BAL_STUDENT));
    if (j->hidden != NULL) /* the last one is meant after the final norm */
        keep_hidden(j, m->n_layers, bal_pass_final(j->pass, BAL_STUDENT), b->n_tokens);
    bal_pass_watch(j->pass, NULL, NULL);
    if (j->teacher)
        BAL_TRY(bal_pass_forward(j->pass, b, BAL_TEACHER));
    if (j->labelled)
        BAL_TRY(compute_losses(j));
    j->headless = m->masked && bal_model_need_head(j->model) != BAL_OK;
    if (j->headless && !j->config->hidden_states)
        BAL_TRY(bal_fail_note(BAL_EUNSUPPORTED, "there are no logits; --hidden-states gives what there is"));
    if (j->config->pll)
        BAL_TRY(compute_pll(j));
out:
    return status;
}

/* ---- output ---- */

typedef struct logits_source {
    const bal_model *model;
    const real_t *final;
    bool adapted;
} logits_source;

static bal_status fill_logits(void *context, size_t row0, size_t n_rows, real_t *out)
{
    const logits_source *s = context;
    bal_status status = BAL_OK;
    uint32_t *rows = bal_alloc(n_rows, sizeof *rows);
    if (rows == NULL)
        return BAL_ENOMEM;
    for (size_t i = 0; i < n_rows; i++)
        rows[i] = (uint32_t)(row0 + i);
    status = bal_lm_logits(s->model, s->final, rows, n_rows, s->adapted, out);
    bal_free(rows);
    return status;
}

static bal_status add_losses(forward_job *j, bal_safetensors_writer *w)
{
    const struct {
        const char *name;
        double value;
        bool there;
    } losses[5] = {{"loss.task", j->values.task, true},
                   {"loss.consistency", j->values.consistency, j->loss_config.lambda_consistency != 0},
                   {"loss.diversity", j->values.diversity, j->loss_config.lambda_diversity != 0},
                   {"loss.spectral", j->values.spectral, j->loss_config.lambda_svd != 0},
                   {"loss.total", j->values.total, true}};
    const size_t one = 1;
    bal_status status = BAL_OK;
    for (size_t i = 0; i < 5; i++) {
        j->scalars[i] = (real_t)losses[i].value;
        if (losses[i].there)
            BAL_TRY(bal_safetensors_writer_add_real(w, losses[i].name, 1, &one, &j->scalars[i]));
    }
out:
    return status;
}

/* Rows of a gradient whose file holds the matrix the other way round. */
static bal_status fill_turned(void *context, size_t row0, size_t n_rows, real_t *out)
{
    const bal_copy *c = context;
    bal_copy gradient = *c;
    gradient.v = c->d;
    bal_copy_rows(&gradient, row0, n_rows, out);
    return BAL_OK;
}

static bal_status add_gradients(const forward_job *j, bal_safetensors_writer *w)
{
    bal_status status = BAL_OK;
    char name[320];
    for (size_t i = 0; j->adapter != NULL && i < j->adapter->n_copies; i++) {
        bal_copy *c = &j->adapter->copies[i];
        const size_t shape[2] = {c->cols, c->rows};
        (void)snprintf(name, sizeof name, "grad.base_model.model.%s", c->key);
        if (c->turned)
            BAL_TRY(bal_safetensors_writer_add_fill(w, name, BAL_DTYPE_F32, 2, shape, fill_turned, c));
    }
    for (size_t i = 0; i < j->params->n_segments; i++) {
        const bal_segment *s = &j->params->segments[i];
        const size_t shape[2] = {s->vector ? s->n : s->rows, s->cols};
        (void)snprintf(name, sizeof name, "grad.%s", s->name);
        if (!s->turned)
            BAL_TRY(bal_safetensors_writer_add_real(w, name, s->vector ? 1 : 2, shape, j->params->grads + s->offset));
    }
out:
    return status;
}

static bal_status write_output(forward_job *j)
{
    const bal_model_config *m = &j->model->config;
    const size_t logits_shape[2] = {j->batch.n_tokens, m->vocab}, hidden_shape[2] = {j->batch.n_tokens, m->hidden};
    logits_source student = {j->model, bal_pass_final(j->pass, BAL_STUDENT), true}, teacher = {.model = j->model};
    bal_safetensors_writer *w = NULL;
    bal_status status;
    char name[32];
    BAL_TRY(bal_safetensors_writer_new(&w));
    if (!j->headless)
        BAL_TRY(bal_safetensors_writer_add_fill(w, "logits", BAL_DTYPE_F32, 2, logits_shape, fill_logits, &student));
    if (j->pll != NULL)
        BAL_TRY(bal_safetensors_writer_add_real(w, "pll", 1, logits_shape, j->pll));
    for (size_t i = 0; j->hidden != NULL && i <= m->n_layers; i++) {
        (void)snprintf(name, sizeof name, "hidden.%zu", i);
        BAL_TRY(bal_safetensors_writer_add_real(w, name, 2, hidden_shape,
                                                j->hidden + i * hidden_shape[0] * hidden_shape[1]));
    }
    if (j->teacher) {
        teacher.final = bal_pass_final(j->pass, BAL_TEACHER);
        BAL_TRY(bal_safetensors_writer_add_fill(w, "teacher.logits", BAL_DTYPE_F32, 2, logits_shape, fill_logits,
                                                &teacher));
    }
    if (j->labelled)
        BAL_TRY(add_losses(j, w));
    if (j->params != NULL)
        BAL_TRY(add_gradients(j, w));
    BAL_TRY(bal_safetensors_writer_commit(w, j->config->out));
out:
    bal_safetensors_writer_free(w);
    return status;
}

static bal_status print_summary(const forward_job *j, const bal_options *o)
{
    const bal_loss_values *v = &j->values;
    bal_buf b = {0};
    bal_status status = BAL_OK;
    if (!bal_options_common(o)->json)
        return BAL_OK;
    BAL_TRY(bal_buf_text(&b, "{\"out\":"));
    BAL_TRY(bal_json_put_text(&b, j->config->out));
    BAL_TRY(bal_buf_printf(&b, ",\"tokens\":%zu,\"rows\":%zu", j->batch.n_tokens, j->batch.n_rows));
    if (j->labelled) {
        const double parts[5] = {v->task, v->consistency, v->diversity, v->spectral, v->total};
        static const char *const names[5] = {"task", "consistency", "diversity", "spectral", "total"};
        for (size_t i = 0; i < 5; i++) {
            BAL_TRY(bal_buf_printf(&b, ",\"loss.%s\":", names[i]));
            BAL_TRY(bal_json_put_f64(&b, parts[i]));
        }
    }
    (void)printf("%s}\n", bal_buf_cstr(&b));
out:
    bal_buf_dispose(&b);
    return status;
}

static bal_status forward(const bal_options *o, const forward_config *config)
{
    forward_job j = {.config = config};
    bal_status status;
    if (config->model == NULL || config->input == NULL || config->out == NULL)
        return bal_fail(BAL_EINVAL, "--model, --input and --out are needed");
    bal_loss_options_resolve(&config->loss, &j.loss_config, &j.unshifted);
    BAL_TRY(bal_options_start(o));
    BAL_TRY(load(&j, &bal_options_common(o)->log));
    BAL_TRY(read_input(&j));
    if (config->grad && !j.labelled) {
        status = bal_fail(BAL_EINVAL, "--grad needs labels in '%s'", config->input);
        goto out;
    }
    BAL_TRY(compute(&j));
    BAL_TRY(write_output(&j));
    BAL_TRY(print_summary(&j, o));
out:
    bal_lm_loss_free(j.loss);
    bal_pass_free(j.pass);
    bal_batch_dispose(&j.batch);
    bal_free(j.hidden);
    bal_free(j.pll);
    bal_model_free(j.model);
    bal_adapter_free(j.adapter);
    return status;
}

int cmd_forward(int argc, char **argv)
{
    forward_config config = {0};
    bal_options *o = NULL;
    bool help = false;
    bal_status status = bal_options_parse(&o, &k_command, argc, argv, &config, &help);
    if (status == BAL_OK && !help)
        status = forward(o, &config);
    bal_options_free(o);
    return bal_command_finish(&k_command, status);
}
