/* What `balora data` is made of.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_DATASETS_DATASETS_H
#define BAL_DATASETS_DATASETS_H

#include "lib/base/status.h"
#include "lib/base/str.h"
#include "lib/data/record.h"
#include "lib/io/hub.h"

#include <stddef.h>
#include <stdint.h>

/* world.c: appends problem number `index` of the world `seed` as one JSON line {"question","answer","kind","group"}:
 * a word problem in GSM8K's form, its rationale with <<...>> marks and a last line "#### N".  The same seed and index
 * give the same line whatever else is asked for. */
bal_status world_problem(bal_buf *out, uint64_t seed, uint64_t index);
size_t world_kinds(void);

/* bpe_train.c: a byte-level BPE tokenizer from texts. */
typedef struct bpe_trainer bpe_trainer;
bal_status bpe_trainer_new(bpe_trainer **out);
void bpe_trainer_free(bpe_trainer *t); /* accepts NULL */
/* Counts the words of text[0..n): split as the tokenizer that is written will split (digits alone, then words with
 * the space before them). */
bal_status bpe_trainer_add(bpe_trainer *t, const char *text, size_t n);
/* Merges the most frequent pairs until the vocabulary (256 bytes, 4 special tokens, merges) has `vocab` entries or
 * nothing occurs twice; appends tokenizer.json.  *size: entries. */
bal_status bpe_trainer_finish(bpe_trainer *t, size_t vocab, bal_buf *json, size_t *size);
/* tokenizer_config.json beside it: special tokens and the ChatML template. */
bal_status bpe_tokenizer_config(bal_buf *json);

/* balora data list: formats, registered sets, sets in the hub's cache; to standard output. */
bal_status data_list(bool json);
/* balora data get: fetches what is missing (split NULL: all of them) and prints the files, one a line. */
bal_status data_get(const char *name, const char *split, const bal_hub_options *hub, bool json);

#endif
