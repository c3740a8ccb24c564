/* A queue of requests over a decoder: slots are refilled as requests finish, prompts enter in pieces, and a prompt that
 * begins like a cached one starts from its copy.  Answers are the same bits for any batch size, order and number of
 * threads.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_ENGINE_H
#define BAL_MODEL_ENGINE_H

#include "lib/model/model.h"
#include "lib/model/sample.h"
#include "lib/tensor/gemm.h"
#include "lib/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum bal_request_kind { BAL_REQUEST_GENERATE, BAL_REQUEST_SCORE } bal_request_kind;

/* The arrays are the caller's and stay until the answer. */
typedef struct bal_request {
    bal_request_kind kind;
    const int32_t *prompt; /* GENERATE: the prompt; SCORE: the context; at least one id */
    size_t n_prompt;
    const int32_t *continuation; /* SCORE: the ids whose probability is asked for */
    size_t n_continuation;
    size_t max_new_tokens;
    bal_sampling sampling;
    uint64_t seed, stream;    /* sampling draws from the stream `stream` of `seed` */
    const char *const *stops; /* the text ends before the first of them; need a tokenizer */
    size_t n_stops;
    bool ignore_eos;
    /* GENERATE: probabilities of the answer's tokens, of the prompt's too (which are then all computed, or taken from a
     * prompt that was asked for the same), and n_top likeliest tokens at each place; options.top is needed. */
    bool probabilities, prompt_probabilities;
    size_t n_top;
} bal_request;

/* Entry i is of token i of the prompt (token 0 has none: NaN, and tokens -1) and, behind the prompt, of the answer. */
typedef struct bal_probabilities {
    const double *log_probability; /* natural */
    const int32_t *top;            /* [entry * stride]: the likeliest tokens, the first largest first */
    const double *top_log_probability;
    size_t stride;
} bal_probabilities;

typedef struct bal_answer {
    const int32_t *ids; /* GENERATE: what was generated, with what ended it (EOS, stop text) */
    size_t n_ids;
    const char *text; /* cut before the stop; "" without a tokenizer; special tokens are left out unless ignore_eos */
    size_t n_text;
    const char *finish_reason; /* "stop" or "length" */
    double log_likelihood;     /* SCORE: sum over the continuation, natural logarithm */
    bool is_greedy;
    const double *nll;          /* n_continuation values */
    size_t n_prompt, n_dropped; /* tokens of the prompt used, and dropped at its left because it was too long */
    double seconds;
    bal_probabilities probabilities; /* of a request that asks for them, else NULL */
} bal_answer;

typedef struct bal_engine_options {
    const bal_tokenizer *tokenizer; /* NULL: no text */
    size_t batch;                   /* most sequences at a time; 0: 32 */
    size_t cache_bytes;             /* for keys and values; 0: a quarter of the free memory, at most 2 GiB */
    size_t max_length;              /* of prompt and answer; 0: the model's */
    bal_compute compute;            /* of products with the model's matrices */
    size_t top;                     /* requests may ask for this many likeliest tokens; 0: for no probabilities */
    void *context;
    /* Called when request i is answered, in the order in which they finish; the answer's memory is the engine's. */
    bal_status (*answer)(void *context, size_t i, const bal_answer *a);
    /* Called after each generated token of request i with all of them; may be NULL. */
    void (*token)(void *context, size_t i, const int32_t *ids, size_t n);
    /* The same with a's ids, their probabilities and n_prompt instead; may be NULL. */
    void (*progress)(void *context, size_t i, const bal_answer *a);
} bal_engine_options;

typedef struct bal_engine_stats {
    size_t prompt_tokens, shared_tokens; /* of all prompts and contexts, and of these taken from another one's cache */
    size_t continuation_tokens, new_tokens, steps, slots;
    double seconds;
} bal_engine_stats;

/* Runs all requests.  stats may be NULL.  BAL_ELIMIT for a request that cannot fit: its new tokens or its continuation
 * alone exceed max_length.  BAL_EINTERRUPT after SIGINT.  Allocates only before the first step. */
bal_status bal_engine_run(const bal_model *m, const bal_engine_options *o, const bal_request *requests, size_t n,
                          bal_engine_stats *stats);

/* --- requests that come one by one --- */

typedef struct bal_engine bal_engine;

/* An engine for at most `most` requests at a time, waiting ones included.  The model must outlive it; options are
 * copied.  One thread at a time may call it. */
bal_status bal_engine_open(bal_engine **out, const bal_model *m, const bal_engine_options *o, size_t most);
void bal_engine_close(bal_engine *e); /* accepts NULL */
/* Puts a request in the queue; *id is what the callbacks call it, until its answer.  BAL_EBUSY: the queue is full;
 * BAL_EINVAL, BAL_ELIMIT, BAL_EFORMAT: it cannot be answered (a token outside the vocabulary, too long). */
bal_status bal_engine_add(bal_engine *e, const bal_request *r, size_t *id);
/* Forgets a request without an answer; its memory may go then.  Not from a callback. */
void bal_engine_cancel(bal_engine *e, size_t id);
/* One step of all that is there; *idle: there was nothing to do.  After an error only bal_engine_close() is of use. */
bal_status bal_engine_step(bal_engine *e, bool *idle);
/* Longest prompt with its answer, and sequences at a time. */
size_t bal_engine_max_length(const bal_engine *e);
size_t bal_engine_slots(const bal_engine *e);
const bal_engine_stats *bal_engine_statistics(const bal_engine *e);

#endif
