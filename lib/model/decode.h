/* Inference with a key/value cache: one step runs a set of tokens, each at a position of a slot, through the model.
 * The values of a token depend on its own sequence alone, bit for bit: not on what else is in the step, how its
 * prompt was cut into steps, which slot it has, or the number of threads.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_MODEL_DECODE_H
#define BAL_MODEL_DECODE_H

#include "lib/model/model.h"
#include "lib/tensor/gemm.h"

#include <stddef.h>
#include <stdint.h>

typedef struct bal_decoder bal_decoder;

typedef struct bal_decoder_options {
    size_t slots;        /* sequences at a time */
    size_t capacity;     /* positions of a slot */
    size_t rows;         /* tokens of a step, at most */
    size_t logits;       /* rows of logits at a time, at most */
    bal_compute compute; /* of products with the model's matrices; adapters and attention are always f32 */
} bal_decoder_options;

/* Bytes of one cached position. */
size_t bal_decoder_position_bytes(const bal_model *m);
/* The model (with what is attached to it) must outlive the decoder. */
bal_status bal_decoder_new(bal_decoder **out, const bal_model *m, const bal_decoder_options *o);
void bal_decoder_free(bal_decoder *d); /* accepts NULL */

typedef struct bal_decode_row {
    int32_t token;
    uint32_t slot, position;
} bal_decode_row;

/* Runs n tokens: those of one slot follow each other, and all its earlier positions are there already.  want: the
 * n_want rows, ascending, whose logits may be asked for; of the others the last block makes keys and values alone.
 * Allocates nothing.  BAL_EFORMAT for a token outside the vocabulary, BAL_ENUMERIC for logits that are no numbers comes
 * later, from the next two. */
bal_status bal_decoder_step(bal_decoder *d, const bal_decode_row *rows, size_t n, const uint32_t *want, size_t n_want);
/* Logits of the wanted rows first .. first + n - 1 (n <= options.logits): n x vocab at *out, valid until the next
 * call. */
bal_status bal_decoder_logits(bal_decoder *d, size_t first, size_t n, const real_t **out);
/* Makes the first n positions of slot `to` those of slot `from`. */
void bal_decoder_copy(bal_decoder *d, size_t from, size_t to, size_t n);

/* What a row of logits says about one token. */
typedef struct bal_token_score {
    double log_probability; /* of the token: log-softmax, natural */
    int32_t best;           /* the first largest */
} bal_token_score;
bal_token_score bal_logits_score(const real_t *logits, size_t vocab, int32_t token);
/* The same of the wanted rows first .. first + n - 1, whose logits are made a piece of the vocabulary at a time and
 * forgotten: out[i] is about token[i]. */
bal_status bal_decoder_scores(bal_decoder *d, size_t first, size_t n, const int32_t *token, bal_token_score *out);
/* The k <= vocab likeliest tokens, by falling logit (equal ones by id), and their log probabilities as above. */
void bal_logits_top(const real_t *logits, size_t vocab, size_t k, int32_t *ids, double *log_probabilities);
/* The first largest of x[0..n). */
int32_t bal_logits_best(const real_t *logits, size_t vocab);

#endif
