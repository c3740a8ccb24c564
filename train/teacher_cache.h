/* The teacher does not change, so what it says of a record is the same in every epoch: its final hidden rows are kept
 * in a file, and later epochs pay only its head (DESIGN section 5.11).  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TRAIN_TEACHER_CACHE_H
#define BAL_TRAIN_TEACHER_CACHE_H

#include "lib/data/dataset.h"
#include "lib/model/batch.h"
#include "lib/model/model.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct teacher_cache teacher_cache;

/* Opens or makes the file for the rows of data's records under model m: label rows, or with unshifted the positions of
 * the labels themselves (--compat llm172).  bf16: rows are kept rounded, and used rounded from the first time on.
 * BAL_EFORMAT when the file belongs to another model, data set or form; BAL_EBUSY when another run has it open. */
bal_status teacher_cache_open(teacher_cache **out, const char *path, const bal_model *m, const bal_dataset *data,
                              bool unshifted, bool bf16);
void teacher_cache_close(teacher_cache *c); /* accepts NULL */
/* Fills the regulariser rows of final (T x hidden) from the records that b was made of, in its order.  *found is false,
 * and final undefined, when one of them is not there or damaged. */
bal_status teacher_cache_load(teacher_cache *c, const uint32_t *records, const bal_batch *b, real_t *final,
                              bool *found);
/* Keeps the regulariser rows of final; with bf16 they are rounded in place. */
bal_status teacher_cache_save(teacher_cache *c, const uint32_t *records, const bal_batch *b, real_t *final);

#endif
