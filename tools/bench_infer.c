/* Inference: a prompt in one piece (logits of its last token), and greedy decoding of several sequences at a time from
 * an empty context.  Counted work: 2P a token, of which the head only where logits are wanted.
 * SPDX-License-Identifier: Apache-2.0 */
#include "lib/base/mem.h"
#include "lib/base/rng.h"
#include "lib/model/decode.h"
#include "tools/bench.h"

#include <string.h>

typedef struct bench_infer {
    bal_model *model;
    bal_decoder *decoder;
    bal_decode_row *rows;
    uint32_t *which;
    size_t n_rows, n_new;
    uint32_t context; /* positions that are taken already: their keys and values are zeros, which cost the same */
} bench_infer;

static void infer_dispose(bench_infer *b)
{
    bal_decoder_free(b->decoder);
    bal_model_free(b->model);
    bal_free(b->rows);
    bal_free(b->which);
}

/* slots sequences of at most `capacity` positions, n_rows tokens a step, logits of n_logits rows. */
static bal_status infer_prepare(bench_infer *b, const bal_bench_config *c, size_t slots, size_t capacity, size_t n_rows,
                                size_t n_logits)
{
    bal_decoder_options options = {.slots = slots, .capacity = capacity, .rows = n_rows, .logits = n_logits};
    if (strcmp(c->compute, "bf16") == 0)
        options.compute = BAL_COMPUTE_BF16;
    bal_status status;
    BAL_TRY(bal_model_load(&b->model, c->model));
    BAL_TRY(bal_decoder_new(&b->decoder, b->model, &options));
    b->n_rows = n_rows;
    b->rows = bal_alloc(n_rows, sizeof *b->rows);
    b->which = bal_alloc(n_logits, sizeof *b->which);
    if (b->rows == NULL || b->which == NULL)
        status = BAL_ENOMEM;
out:
    return status;
}

static bal_status run_prompt(void *context)
{
    bench_infer *b = context;
    const real_t *logits;
    bal_status status;
    b->which[0] = (uint32_t)b->n_rows - 1;
    BAL_TRY(bal_decoder_step(b->decoder, b->rows, b->n_rows, b->which, 1));
    status = bal_decoder_logits(b->decoder, 0, 1, &logits);
out:
    return status;
}

bal_status bal_bench_prompt(cJSON *out, const bal_bench_config *c)
{
    bench_infer b = {.model = NULL};
    bal_bench_times times;
    size_t n = (size_t)c->tokens;
    bal_rng rng;
    bal_status status;
    BAL_TRY(infer_prepare(&b, c, 1, n, n, 1));
    bal_rng_init(&rng, 0, "bench");
    for (size_t i = 0; i < n; i++)
        b.rows[i] = (bal_decode_row){(int32_t)bal_rng_below(&rng, b.model->config.vocab), 0, (uint32_t)i};
    BAL_TRY(bal_bench_measure(&times, c, run_prompt, &b));
    double head = (double)b.model->head.w.rows * (double)b.model->head.w.cols;
    double body = bal_bench_matrix_parameters(b.model) - head;
    bal_bench_report(out, &times, (double)n, "tokens/s", "tokens_per_second", 2 * (body * (double)n + head));
    (void)cJSON_AddNumberToObject(out, "tokens", (double)n);
out:
    infer_dispose(&b);
    return status;
}

static bal_status run_decode(void *context)
{
    bench_infer *b = context;
    const real_t *logits;
    bal_status status = BAL_OK;
    size_t vocab = b->model->config.vocab;
    for (size_t s = 0; s < b->n_rows; s++) {
        b->rows[s] = (bal_decode_row){(int32_t)(s % vocab), (uint32_t)s, b->context};
        b->which[s] = (uint32_t)s;
    }
    for (size_t i = 0; i < b->n_new; i++) {
        BAL_TRY(bal_decoder_step(b->decoder, b->rows, b->n_rows, b->which, b->n_rows));
        BAL_TRY(bal_decoder_logits(b->decoder, 0, b->n_rows, &logits));
        for (size_t s = 0; s < b->n_rows; s++) {
            b->rows[s].token = bal_logits_best(logits + s * vocab, vocab);
            b->rows[s].position++;
        }
    }
out:
    return status;
}

bal_status bal_bench_decode(cJSON *out, const bal_bench_config *c)
{
    bench_infer b = {.model = NULL, .n_new = (size_t)c->new_tokens};
    bal_bench_times times;
    size_t n = (size_t)c->sequences;
    bal_status status;
    b.context = (uint32_t)c->context;
    BAL_TRY(infer_prepare(&b, c, n, b.n_new + b.context, n, n));
    BAL_TRY(bal_bench_measure(&times, c, run_decode, &b));
    double tokens = (double)n * (double)b.n_new;
    bal_bench_report(out, &times, tokens, "tokens/s", "tokens_per_second",
                     2 * bal_bench_matrix_parameters(b.model) * tokens);
    (void)cJSON_AddNumberToObject(out, "sequences", (double)n);
    (void)cJSON_AddNumberToObject(out, "context", (double)c->context);
    (void)cJSON_AddNumberToObject(out, "new_tokens", (double)b.n_new);
out:
    infer_dispose(&b);
    return status;
}
