/* A growing answer as text: what later tokens cannot change, and the text that each token adds.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef BAL_TEXT_SPELLING_H
#define BAL_TEXT_SPELLING_H

#include "lib/text/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>

/* Bytes of text[0..n) that later tokens cannot change: not a character that is incomplete (U+FFFD so far), not what
 * may be the beginning of a stop text.  Where a stop text begins when there is one (*stopped). */
size_t bal_text_settled(const char *text, size_t n, const char *const *stops, size_t n_stops, bool *stopped);

/* The texts of ids[0..n), one after the other: what each adds to those before it.  A token that ends inside a character
 * has the text before that; the character is the next token's.  Special tokens have their names. */
typedef struct bal_spelling {
    const bal_tokenizer *tokenizer;
    const int32_t *ids;
    size_t n, next, window, unit; /* the next token; the first of those it is decoded with, and of its character */
    bal_buf before, with;
} bal_spelling;
/* Starts at token `first`.  ids stay the caller's. */
void bal_spelling_start(bal_spelling *p, const bal_tokenizer *t, const int32_t *ids, size_t n, size_t first);
/* The text that `id` would have as the next token (out is replaced); an incomplete character is U+FFFD. */
bal_status bal_spelling_try(bal_spelling *p, int32_t id, bal_buf *out);
/* The next token's text. */
bal_status bal_spelling_next(bal_spelling *p, bal_buf *out);
void bal_spelling_dispose(bal_spelling *p);

#endif
