/* What two sequences have in common, as Python's difflib finds it.  SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_BLOCKS_H
#define BAL_TEXT_BLOCKS_H

#include "lib/base/status.h"

#include <stddef.h>
#include <stdint.h>

/* The positions of difflib.SequenceMatcher's "equal" blocks in a and in b, rising; both lists have room for
 * min(n_a, n_b) entries.  With b of 200 or more, values that make up more than 1 % of it begin no block. */
bal_status bal_equal_positions(const int32_t *a, size_t n_a, const int32_t *b, size_t n_b, uint32_t *at_a,
                               uint32_t *at_b, size_t *n);

#endif
