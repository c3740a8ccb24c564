/* Tokenizers: text to ids and back, from a tokenizer.json or from the vocabulary inside a GGUF file.
 * A tokenizer is constant after loading: any number of threads may use one.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_TOKENIZER_H
#define BAL_TEXT_TOKENIZER_H

#include "lib/base/status.h"
#include "lib/base/str.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bal_tokenizer bal_tokenizer;

/* A growing list of ids. */
typedef struct bal_ids {
    int32_t *data;
    size_t n, cap;
} bal_ids;

bal_status bal_ids_append(bal_ids *ids, int32_t id);
void bal_ids_clear(bal_ids *ids);
void bal_ids_dispose(bal_ids *ids);

/* path: a tokenizer.json (also .gz), a folder holding one, or a GGUF file. */
bal_status bal_tokenizer_load(bal_tokenizer **out, const char *path);
/* From the text of a tokenizer.json; name is used in messages. */
bal_status bal_tokenizer_parse(bal_tokenizer **out, const char *json, size_t n, const char *name);
void bal_tokenizer_free(bal_tokenizer *t); /* accepts NULL */

/* Appends the ids of text[0..n).  special: with the post-processor's special tokens (BOS, CLS ...).  Special tokens
 * written in the text become their ids in any case.  Invalid UTF-8 counts as U+FFFD, one for each maximal broken
 * part, as Python's errors="replace" has it. */
bal_status bal_tokenizer_encode(const bal_tokenizer *t, const char *text, size_t n, bool special, bal_ids *out);
/* Appends the text of ids[0..n).  An id without a token gives no text (models have rows
 * beyond their vocabulary); a negative one is BAL_EFORMAT. */
bal_status bal_tokenizer_decode(const bal_tokenizer *t, const int32_t *ids, size_t n, bool skip_special, bal_buf *out);

/* Largest id + 1. */
size_t bal_tokenizer_vocab_size(const bal_tokenizer *t);
/* Id of a token by its exact text in the vocabulary ("<|im_end|>"), -1 if there is none. */
int32_t bal_tokenizer_id(const bal_tokenizer *t, const char *token);
/* Its text as in the vocabulary, NULL outside. */
const char *bal_tokenizer_token(const bal_tokenizer *t, int32_t id);
bool bal_tokenizer_is_special(const bal_tokenizer *t, int32_t id);
/* Named by tokenizer_config.json beside tokenizer.json, or by the GGUF metadata; -1 if unknown. */
int32_t bal_tokenizer_bos(const bal_tokenizer *t);
int32_t bal_tokenizer_eos(const bal_tokenizer *t);
int32_t bal_tokenizer_pad(const bal_tokenizer *t);
/* The token that stands for a masked one: as named there, else [MASK] or <mask>; -1 if there is none. */
int32_t bal_tokenizer_mask(const bal_tokenizer *t);
/* The chat template that came with it (tokenizer_config.json, chat_template.jinja, GGUF), NULL if none. */
const char *bal_tokenizer_chat_template(const bal_tokenizer *t);
/* "BPE", "WordPiece", "Unigram", "SentencePiece BPE": for people. */
const char *bal_tokenizer_kind(const bal_tokenizer *t);

#endif
