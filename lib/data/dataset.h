/* Tokenised data sets: all records of a file as token ids with labels, end to end.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_DATA_DATASET_H
#define BAL_DATA_DATASET_H

#include "lib/data/record.h"
#include "lib/data/registry.h"

#include <stddef.h>
#include <stdint.h>

typedef struct bal_data_options {
    bal_data_format format;
    bal_data_template template;
    bal_data_suffix suffix;
    bool train_on_prompt; /* labels on the prompt, too */
    size_t max_length;    /* tokens of a record; longer ones are cut (0: no bound).  Text is split instead. */
    size_t limit;         /* first records of the file (0: all) */
    size_t skip;          /* records at the beginning that are passed over (they count for the limit) */
    size_t vocab;         /* of the model: a larger id is an error (0: not checked) */
} bal_data_options;

typedef struct bal_dataset {
    int32_t *ids, *labels;                 /* [n_tokens]; label BAL_LABEL_NONE = none, unshifted */
    size_t *start;                         /* [n + 1] */
    size_t n, n_tokens, n_rows;            /* n_rows: tokens that are predicted and labelled */
    size_t longest;                        /* tokens */
    size_t n_read, n_truncated, n_skipped; /* records of the file; cut; left out because nothing of them is labelled */
    bal_data_format format;                /* as found */
    size_t cap_records, cap_tokens;
} bal_dataset;

/* Reads path (JSON lines, a JSON array, CSV or TSV with a heading, .gz too: lib/io/records.h; a name ending in .txt: plain
 * text, records end at empty lines).  tokenizer may be NULL for the tokens format.  BAL_EFORMAT names the line; an empty set is an error. */
bal_status bal_dataset_load(bal_dataset *d, const char *path, const bal_tokenizer *tokenizer,
                            const bal_data_options *o);
/* Several files, one behind the other; n > 0. */
bal_status bal_dataset_load_files(bal_dataset *d, const char *const *paths, size_t n, const bal_tokenizer *tokenizer,
                                  const bal_data_options *o);
/* What --data says: a file, a registered name or a set of a hub, of which the split is read (lib/data/registry.h). */
bal_status bal_dataset_load_named(bal_dataset *d, const char *what, const char *split, const bal_hub_options *hub,
                                  const bal_tokenizer *tokenizer, const bal_data_options *o);
void bal_dataset_dispose(bal_dataset *d);
/* Appends one record with its labels; skipped when no row of it is labelled. */
bal_status bal_dataset_add(bal_dataset *d, const int32_t *ids, const int32_t *labels, size_t n);
/* Ids and labels of a record's text: appended to ids and labels (cleared first), not cut. */
bal_status bal_record_tokens(const bal_record *r, const bal_tokenizer *t, bool train_on_prompt, bal_ids *ids,
                             bal_ids *labels);

static inline size_t bal_dataset_length(const bal_dataset *d, size_t i)
{
    return d->start[i + 1] - d->start[i];
}

#endif
